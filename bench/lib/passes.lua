-- SPDX-License-Identifier: MIT
--- Groups of cases beside peers in all of their settings, each on every number of threads, in both precisions. A case:
---
---   {name =, request =, seconds = of a turn, limit = function(threads, isa) -> ms or nil, bf16 = true,
---    worker = "Marea", peers = {PyTorch = settings.pytorch{...}, ...},      PyTorch as it comes when left out
---    bounds = {oneDNN = function(c, threads) -> entries}}       what is no rival, in f32
---
--- bf16: measured in bf16 as well. isa: of the precision's multiply-adds, nil where that is not known. flop and
--- sparse are for figures and notes of a group.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local machine = require "lib.machine"
local settings = require "lib.settings"

local passes = {}

--- As the script says, and through torch.compile, warm.
passes.COMPILED = {PyTorch = settings.pytorch{compiled = true}}

--- The same, and JAX; Keras, too.
passes.WITH_JAX = {PyTorch = passes.COMPILED.PyTorch, JAX = settings.jax}
passes.WITH_ALL = {PyTorch = passes.COMPILED.PyTorch, JAX = settings.jax, Keras = settings.keras}

local PLAIN = {PyTorch = settings.pytorch{}}

--- What each precision adds to the name of it and to requests.
local PRECISIONS = {{name = "f32", request = "", isa = "isa"}, {name = "bf16", request = " bf16=1", isa = "bf16"}}

--- Our entry, and how its precision is called. Where we have no bf16, f32 stands beside the peers' bf16.
local function ask_ours(c, case, precision, threads, before)
  if precision.name == "bf16" and not rawget(marea, "autocast") then return before, "f32 | bf16" end
  local request = settings.request(case.request .. precision.request, {request = ""}, threads, case.seconds)
  return c:ask(case.worker or "Marea", request)[1], precision.name
end

--- The rows of a case in one precision; ours: our entries of the precision before, by threads.
local function add_rows(c, bench, case, precision, rows, ours)
  local peers = {}
  for _, threads in ipairs(bench.threads) do -- the best of a peer's settings may be one with fewer threads
    local row = {name = case.name, threads = threads, unit = "ms", peers = {}, list_settings = case.peers ~= nil,
      limit = case.limit and case.limit(threads, bench[precision.isa]), flop = case.flop,
      sparse = case.sparse, bounds = case.bounds}
    for name, of in pairs(precision.name == "f32" and case.bounds or {}) do
      peers[name] = contest.join(peers[name], of(c, threads))
      row.peers[name] = peers[name]
    end
    for name, of in pairs(case.peers or PLAIN) do
      peers[name] = contest.join(peers[name],
        c:ask_settings(of, case.request .. precision.request, threads, case.seconds))
      row.peers[name] = peers[name]
    end
    ours[threads], row.precision = ask_ours(c, case, precision, threads, ours[threads])
    row.ours = ours[threads]
    rows[#rows + 1] = row
  end
end

--- Measures all cases; the rows of a case follow each other.
function passes.run(bench, group, cases)
  local c, rows = contest.new(), {}
  for _, case in ipairs(cases) do
    local ours = {}
    for i = 1, case.bf16 and #PRECISIONS or 1 do add_rows(c, bench, case, PRECISIONS[i], rows, ours) end
  end
  c:run(group, bench.rounds)
  return rows
end

--- Two cases, bound by multiply-adds: one forward, and one with its gradients. flop: {forward =, step =}
function passes.both(bench, case, flop)
  local cases = {}
  for i, map in ipairs{"forward", "step"} do
    local function limit(threads, isa) return machine.compute_limit(bench.limits, isa, threads, flop[map]) end
    cases[i] = setmetatable({name = case.name .. (map == "step" and ", with gradients" or ""), flop = flop[map],
      limit = limit, request = case.request .. " map=" .. map}, {__index = case})
  end
  return table.unpack(cases)
end

--- GFLOP/s of all rows on one thread.
function passes.figures(rows, title)
  local function gflops(ms, row) return row.flop / ms * 1e-6 end
  return {chart.one_thread(rows, {title = title, ylabel = "GFLOP/s"}, gflops)}
end

return passes
