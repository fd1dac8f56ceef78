-- SPDX-License-Identifier: MIT
-- Recurrent layers over 64 rows of 64 steps, forward and with all gradients, beside PyTorch's. The limit is the time of
-- the matrix products: those of x and of h with their weights; backward has two of each.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local machine = require "lib.machine"
local join = contest.join

local group = {name = "recurrent", title = "Recurrent layers, 64 x 64 steps"}

local ROWS, LENGTH, SECONDS = 64, 64, 0.5
local CASES = {{kind = "LSTM", size = 128}, {kind = "LSTM", size = 512}, {kind = "GRU", size = 128},
  {kind = "GRU", size = 512}}
local GATES, PASSES = {LSTM = 4, GRU = 3}, {forward = 1, step = 3}

local function flop(case, map)
  return 2 * 2 * PASSES[map] * ROWS * LENGTH * GATES[case.kind] * case.size ^ 2
end

function group.run(bench)
  local c, rows = contest.new(), {}
  for _, case in ipairs(CASES) do
    for _, map in ipairs{"forward", "step"} do
      for _, threads in ipairs(bench.threads) do
        local request = marea.format("recurrent kind=%s rows=%d length=%d inputs=%d hidden=%d map=%s", case.kind, ROWS,
          LENGTH, case.size, case.size, map)
        request = marea.format("%s threads=%d seconds=%g", request, threads, SECONDS)
        local name = marea.format("%s, %d units%s", case.kind, case.size, map == "step" and ", with gradients" or "")
        rows = join(rows, {{name = name, threads = threads, unit = "ms", ours = c:ask("Marea", request)[1],
          peers = {PyTorch = c:ask("PyTorch", request, contest.threads_text(threads))},
          limit = machine.compute_limit(bench.limits, bench.isa, threads, flop(case, map)), flop = flop(case, map)}})
      end
    end
  end
  c:run("recurrent", bench.rounds)
  return rows
end

function group.figures(rows)
  local shown, labels = {}, {}
  for _, row in ipairs(rows) do
    if row.threads == 1 then
      shown[#shown + 1] = row
      labels[#labels + 1] = row.name
    end
  end
  local function gflops(ms, row) return row.flop / ms * 1e-6 end
  return {chart.bars(chart.series(shown, gflops), {title = "Recurrent layers, one thread", labels = labels,
    ylabel = "GFLOP/s", values = true})}
end

return group
