-- SPDX-License-Identifier: MIT
-- Fused attention forward, and with its gradients, for short rows and long ones, beside PyTorch's. The limit is the
-- time of the matrix products: two forward, five backward, of which causal attention has about half.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local machine = require "lib.machine"
local join = contest.join

local group = {name = "attention", title = "Attention, heads of 64"}

local SECONDS = 0.3
local CASES = {
  {rows = 64, length = 64, heads = 8, causal = 1}, {rows = 16, length = 256, heads = 6, causal = 1},
  {rows = 1, length = 2048, heads = 8, causal = 0}, {rows = 1, length = 8192, heads = 8, causal = 1},
}
local PRODUCTS = {forward = 2, step = 7}

local function flop(case, map)
  local t = case.length
  local seen = case.causal == 1 and t * (t + 1) / 2 or t * t
  return 2 * 64 * PRODUCTS[map] * case.rows * case.heads * seen
end

function group.run(bench)
  local c, rows = contest.new(), {}
  for _, case in ipairs(CASES) do
    for _, map in ipairs{"forward", "step"} do
      for _, threads in ipairs(bench.threads) do
        local request = marea.format("attention rows=%d length=%d heads=%d width=64 causal=%d map=%s", case.rows,
          case.length, case.heads, case.causal, map)
        request = marea.format("%s threads=%d seconds=%g", request, threads, SECONDS)
        local name = marea.format("%d x %d, %d heads%s%s", case.rows, case.length, case.heads,
          case.causal == 1 and ", causal" or "", map == "step" and ", with gradients" or "")
        rows = join(rows, {{name = name, threads = threads, unit = "ms", ours = c:ask("Marea", request)[1],
          peers = {PyTorch = c:ask("PyTorch", request, contest.threads_text(threads))},
          limit = machine.compute_limit(bench.limits, bench.isa, threads, flop(case, map)), flop = flop(case, map)}})
      end
    end
  end
  c:run("attention", bench.rounds)
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
  return {chart.bars(chart.series(shown, gflops), {title = "Attention, one thread", labels = labels,
    ylabel = "GFLOP/s", values = true})}
end

return group
