-- SPDX-License-Identifier: MIT
-- The VAE's training step at batch 128: Marea, PyTorch, Keras and JAX, each in all of its settings, and the sum of
-- oneDNN's best primitives for its layers, which is what a step would take that did nothing else.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local layers = require "lib.layers"
local machine = require "lib.machine"
local passes = require "lib.passes"
local settings = require "lib.settings"
local stats = require "lib.stats"

local group = {name = "step", title = "VAE training step, 28x28, batch 128"}

local SECONDS = 0.3
local CONVS = {{label = "", request = " convs=transposed"},
  {label = ", rewritten with conv2d", request = " convs=plain"}}
local PEERS = {PyTorch = settings.pytorch{layouts = true, compiled = true, variants = CONVS}, Keras = settings.keras,
  JAX = settings.jax}

local function onednn(c, threads)
  local requests = {}
  for _, layer in ipairs(layers.step) do
    local seconds = layer.kind == "linear" and 0.005 or 0.02
    for _, map in ipairs(layer.maps) do
      requests[#requests + 1] = layers.onednn_request(layer, map, threads, seconds)
    end
  end
  return c:ask("oneDNN", requests, marea.format("sum of %d, %s", #requests, contest.threads_text(threads)))
end

function group.run(bench)
  local flop = layers.step_flop()
  local function limit(threads, isa) return machine.compute_limit(bench.limits, isa, threads, flop) end
  local cases = {{name = "training step", seconds = SECONDS, request = "step batch=128", limit = limit,
    bf16 = true, peers = PEERS, bounds = {oneDNN = onednn}}}
  if bench.isa ~= "avx2" then
    cases[2] = {name = "AVX2", worker = "Marea AVX2", seconds = SECONDS, request = "step batch=128", peers = {},
      limit = function(threads) return limit(threads, "avx2") end}
  end
  local rows = passes.run(bench, "step", cases)
  if bench.threads[2] and not contest.cpu_time then
    rows[#rows + 1] = {name = "2 threads against 1", unit = "times",
      ours = contest.known(stats.ratios(rows[1].ours.rounds, rows[2].ours.rounds))}
  end
  return rows
end

function group.figures(rows, bench)
  local shown, labels = table.move(rows, 1, #bench.threads, 1, {}), {}
  for i, row in ipairs(shown) do labels[i] = contest.threads_text(row.threads) end
  return {chart.bars(chart.series(shown), {title = "VAE training step, batch 128 (oneDNN: sum of its best primitives)",
    ylabel = "ms", labels = labels, values = true})}
end

return group
