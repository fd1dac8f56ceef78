-- SPDX-License-Identifier: MIT
-- The VAE's training step at batch 128: Marea, PyTorch, Keras and JAX, each in all of its settings, and the sum of
-- oneDNN's best primitives for its layers, which is what a step would take that did nothing else.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local layers = require "lib.layers"
local machine = require "lib.machine"
local stats = require "lib.stats"
local join = contest.join

local group = {name = "step", title = "VAE training step, 28x28, batch 128"}

local SECONDS = 0.3

local function ours(c, name, threads)
  return c:ask(name, marea.format("step batch=128 threads=%d seconds=%g", threads, SECONDS))[1]
end

local function onednn(c, threads)
  local requests = {}
  for _, layer in ipairs(layers.step) do
    local seconds = layer.kind == "linear" and 0.005 or 0.02
    for _, map in ipairs(layer.maps) do
      requests[#requests + 1] = layers.onednn_request(layer, map, threads, seconds)
    end
  end
  return c:ask("oneDNN", requests, "sum of " .. #requests .. ", " .. contest.threads_text(threads))
end

local function keras(bf16)
  return function(c, threads)
    local list = {}
    for i, label in ipairs{"jit_compile off", "jit_compile on"} do
      list = join(list, c:ask("Keras " .. threads, marea.format("step batch=128 jit=%d bf16=%d threads=%d seconds=%g",
        i - 1, bf16, threads, SECONDS), contest.threads_text(threads) .. ", " .. label))
    end
    return list
  end
end

local function jax(c, threads)
  return c:ask("JAX " .. threads, marea.format("step batch=128 threads=%d seconds=%g", threads, SECONDS),
    contest.threads_text(threads))
end

local function pytorch(request, compiled)
  return function(c, threads) return c:ask_pytorch("step batch=128 " .. request, threads, SECONDS, compiled) end
end

local RIVALS = {oneDNN = onednn, PyTorch = pytorch("convs=transposed", true), Keras = keras(0), JAX = jax}
local REWRITTEN = {PyTorch = pytorch("convs=plain", true)}
local BF16 = {PyTorch = pytorch("convs=plain bf16=1", true), Keras = keras(1)}

--- Entries of peers for each number of threads, by {name = function(c, threads)}; the best of a peer's settings may be
--- one with fewer threads.
local function ask(c, bench, peers)
  local lists = {}
  for _, t in ipairs(bench.threads) do
    lists[t] = {}
    for name, f in pairs(peers) do lists[t][name] = join((lists[t - 1] or {})[name], f(c, t)) end
  end
  return lists
end

function group.run(bench)
  local c, mine, avx2 = contest.new(), {}, {}
  for _, t in ipairs(bench.threads) do
    mine[t] = ours(c, "Marea", t)
    avx2[t] = bench.isa == "avx512" and ours(c, "Marea AVX2", t) or nil
  end
  local rivals, rewritten, bf16 = ask(c, bench, RIVALS), ask(c, bench, REWRITTEN), ask(c, bench, BF16)
  c:run("step", bench.rounds)

  local rows, flop = {}, layers.step_flop()
  local function add(name, isa, entries, peers)
    for t, entry in ipairs(entries) do
      rows[#rows + 1] = {name = name, threads = t, unit = "ms", ours = entry, peers = peers[t] or {},
        limit = machine.compute_limit(bench.limits, isa, t, flop), bounds = {oneDNN = true}, list_settings = true}
    end
  end
  add("training step", bench.isa, mine, rivals)
  add("the same, PyTorch rewritten with conv2d", bench.isa, mine, rewritten)
  add("the same, peers rewritten and in bf16, Marea in f32", bench.isa, mine, bf16)
  add("AVX2", "avx2", avx2, {})
  if bench.threads[2] and not contest.cpu_time then
    rows[#rows + 1] = {name = "2 threads against 1", unit = "times",
      ours = contest.known(stats.ratios(mine[1].rounds, mine[2].rounds))}
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
