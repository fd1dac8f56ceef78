-- SPDX-License-Identifier: MIT
--- Groups of cases that run forward and with their gradients, beside PyTorch, bound by multiply-adds.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local machine = require "lib.machine"

local passes = {}

--- Measures all cases: {name, request, forward = FLOPs, step = FLOPs with gradients}. A request gets map, threads and
--- seconds of a turn.
function passes.run(bench, group, cases, seconds)
  local c, rows = contest.new(), {}
  for _, case in ipairs(cases) do
    for _, map in ipairs{"forward", "step"} do
      for _, threads in ipairs(bench.threads) do
        local request = marea.format("%s map=%s threads=%d seconds=%g", case.request, map, threads, seconds)
        local name = case.name .. (map == "step" and ", with gradients" or "")
        rows = contest.join(rows, {{name = name, threads = threads, unit = "ms", ours = c:ask("Marea", request)[1],
          peers = {PyTorch = c:ask("PyTorch", request, contest.threads_text(threads))},
          limit = machine.compute_limit(bench.limits, bench.isa, threads, case[map]), flop = case[map]}})
      end
    end
  end
  c:run(group, bench.rounds)
  return rows
end

--- GFLOP/s of all rows on one thread.
function passes.figures(rows, title)
  local function gflops(ms, row) return row.flop / ms * 1e-6 end
  return {chart.one_thread(rows, {title = title, ylabel = "GFLOP/s"}, gflops)}
end

return passes
