-- SPDX-License-Identifier: MIT
--- Groups of cases beside PyTorch in all of its settings, each on every number of threads. A case:
---
---   {name =, request =, seconds = of a turn, limit = function(threads) -> ms, settings = {{label =, request =}, ...}}
---
--- A request gets threads and seconds; what a setting adds is for PyTorch alone. flop and sparse are for figures and
--- notes of a group.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local machine = require "lib.machine"

local passes = {}

--- As the script says, and through torch.compile in its default mode, warm.
passes.COMPILED = {{label = "eager", request = ""}, {label = "compiled", request = " compile=1"}}

local PLAIN = {{request = ""}}

local function request_of(case, threads, setting)
  return marea.format("%s%s threads=%d seconds=%g", case.request, setting or "", threads, case.seconds)
end

--- PyTorch's entries for a case.
local function ask_settings(c, case, threads)
  local list = {}
  for _, setting in ipairs(case.settings or PLAIN) do
    local label = contest.threads_text(threads) .. (setting.label and ", " .. setting.label or "")
    list = contest.join(list, c:ask("PyTorch", request_of(case, threads, setting.request), label))
  end
  return list
end

--- Measures all cases; the rows of a case follow each other. The best of PyTorch's settings may be one with fewer
--- threads.
function passes.run(bench, group, cases)
  local c, rows = contest.new(), {}
  for _, case in ipairs(cases) do
    local settings = {}
    for _, threads in ipairs(bench.threads) do
      settings = contest.join(settings, ask_settings(c, case, threads))
      rows[#rows + 1] = {name = case.name, threads = threads, unit = "ms", peers = {PyTorch = settings},
        ours = c:ask("Marea", request_of(case, threads))[1], limit = case.limit(threads),
        list_settings = case.settings ~= nil, flop = case.flop, sparse = case.sparse}
    end
  end
  c:run(group, bench.rounds)
  return rows
end

--- Two cases, bound by multiply-adds: one forward, and one with its gradients. flop: {forward =, step =}
function passes.both(bench, case, flop)
  local cases = {}
  for i, map in ipairs{"forward", "step"} do
    local function limit(threads) return machine.compute_limit(bench.limits, bench.isa, threads, flop[map]) end
    cases[i] = {name = case.name .. (map == "step" and ", with gradients" or ""), flop = flop[map], limit = limit,
      request = case.request .. " map=" .. map, seconds = case.seconds, settings = case.settings}
  end
  return table.unpack(cases)
end

--- GFLOP/s of all rows on one thread.
function passes.figures(rows, title)
  local function gflops(ms, row) return row.flop / ms * 1e-6 end
  return {chart.one_thread(rows, {title = title, ylabel = "GFLOP/s"}, gflops)}
end

return passes
