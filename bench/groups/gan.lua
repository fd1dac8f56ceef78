-- SPDX-License-Identifier: MIT
-- A step of the GAN of scripts/gan.lua at batch 64: Marea and PyTorch.
local chart = require "lib.chart"
local contest = require "lib.contest"
local machine = require "lib.machine"

local group = {name = "gan", title = "GAN training step, 28x28, batch 64"}

-- Of the discriminator and of the generator, forward, one image, as net:summary counts; a backward pass costs twice
-- that, one through the frozen discriminator the same again.
local D, G, BATCH = 55.30e6, 25.35e6, 64
local FLOP = BATCH * (2 * 3 * D + G + 3 * G + 2 * D)

function group.run(bench)
  local c, marea, avx2, torch = contest.new(), {}, {}, {}
  local function ours(name, threads)
    return c:ask(name, ("gan batch=%d threads=%d seconds=0.5"):format(BATCH, threads))[1]
  end
  for _, t in ipairs(bench.threads) do -- the best of a peer's settings may be the one with fewer threads
    marea[t] = ours("Marea", t)
    avx2[t] = bench.isa == "avx512" and ours("Marea AVX2", t)
    torch[t] = contest.join(torch[t - 1], c:ask_pytorch("gan batch=" .. BATCH, t, 0.5))
  end
  c:run("gan", bench.rounds)

  local rows = {}
  for _, t in ipairs(bench.threads) do
    rows[#rows + 1] = {name = "training step", threads = t, unit = "ms", ours = marea[t], peers = {PyTorch = torch[t]},
      limit = machine.compute_limit(bench.limits, bench.isa, t, FLOP)}
  end
  for _, t in ipairs(bench.threads) do
    if avx2[t] then
      rows[#rows + 1] = {name = "AVX2", threads = t, unit = "ms", ours = avx2[t], peers = {},
        limit = machine.compute_limit(bench.limits, "avx2", t, FLOP)}
    end
  end
  return rows
end

function group.figures(rows, bench)
  local shown, labels = table.move(rows, 1, #bench.threads, 1, {}), {}
  for i, row in ipairs(shown) do labels[i] = contest.threads_text(row.threads) end
  return {chart.bars(chart.series(shown), {title = "GAN training step, batch 64", ylabel = "ms", labels = labels,
    values = true})}
end

return group
