-- SPDX-License-Identifier: MIT
-- A step of the GAN of scripts/gan.lua at batch 64: Marea, PyTorch and Keras.
local chart = require "lib.chart"
local contest = require "lib.contest"
local machine = require "lib.machine"
local passes = require "lib.passes"
local settings = require "lib.settings"

local group = {name = "gan", title = "GAN training step, 28x28, batch 64"}

-- Of the discriminator and of the generator, forward, one image, as net:summary counts; a backward pass costs twice
-- that, one through the frozen discriminator the same again.
local D, G, BATCH = 55.30e6, 25.35e6, 64
local SECONDS = 0.5
local FLOP = BATCH * (2 * 3 * D + G + 3 * G + 2 * D)

local PEERS = {PyTorch = settings.pytorch{layouts = true, compiled = true}, Keras = settings.keras}

function group.run(bench)
  local function limit(threads, isa) return machine.compute_limit(bench.limits, isa, threads, FLOP) end
  local request = "gan batch=" .. BATCH
  local cases = {{name = "training step", seconds = SECONDS, request = request, limit = limit, bf16 = true,
    peers = PEERS}}
  if bench.isa ~= "avx2" then
    cases[2] = {name = "AVX2", worker = "Marea AVX2", seconds = SECONDS, request = request, peers = {},
      limit = function(threads) return limit(threads, "avx2") end}
  end
  return passes.run(bench, "gan", cases)
end

function group.figures(rows, bench)
  local shown, labels = table.move(rows, 1, #bench.threads, 1, {}), {}
  for i, row in ipairs(shown) do labels[i] = contest.threads_text(row.threads) end
  return {chart.bars(chart.series(shown), {title = "GAN training step, batch 64", ylabel = "ms", labels = labels,
    values = true})}
end

return group
