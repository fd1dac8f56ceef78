-- SPDX-License-Identifier: MIT
-- Operators on 4 elements from the script: what a call costs when there is nothing to compute. Over a million calls
-- each in all rounds together.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"

local group = {name = "small", title = "Small operators, 4 elements, one thread"}

local TO_NS = 1e6
local SECONDS = 0.3

function group.run(bench)
  local c, rows = contest.new(), {}
  local function add(name, request)
    local torch = c:ask("PyTorch", marea.format("%s threads=1 seconds=%g", request, SECONDS))
    for scope = 0, 1 do
      local ours = c:ask("Marea", marea.format("%s scope=%d threads=1 seconds=%g", request, scope, SECONDS))
      rows[#rows + 1] = {name = name .. (scope == 1 and ", in marea.scope" or ""), unit = "ns", factor = TO_NS,
        ours = ours[1], peers = {PyTorch = torch}}
    end
  end
  add("x + y", "small op=add")
  add("x:add_(y)", "small op=add_")
  add("x:relu()", "small op=relu")
  add("forward and backward, chain of 1,000", "chain nodes=1000")
  c:run("small", bench.rounds)
  return rows
end

function group.figures(rows)
  local shown, labels = {}, {}
  for i = 1, #rows, 2 do
    shown[#shown + 1] = rows[i]
    labels[#labels + 1] = i < 7 and rows[i].name or "forward + backward"
  end
  return {chart.bars(chart.series(shown), {title = "Small operators from the script, 4 elements", labels = labels,
    ylabel = "ns a call", values = true})}
end

return group
