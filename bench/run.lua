-- SPDX-License-Identifier: MIT
-- The benchmarks: Marea beside the limits of the machine and beside its peers, those that are installed
-- (`make bench-peers`), all in the same run. It prints a table for each group and leaves build/bench/results.json and
-- build/bench/results.png.
--
--   build/marea bench/run.lua [GROUP...] [--rounds 5] [--only-ours] [--cpu-time]        from the root of the project
--
-- Contestants take turns in rounds. A figure is the median over rounds of the median over the calls of a turn. A ratio
-- is the peer's time over ours in the same round: its median, and in brackets its lowest and highest. A peer stands
-- there with the best of its settings, fewer threads included; the last column says who is fastest, and how many times
-- as fast as the next one.
package.path = (arg[0]:match "^.*/" or "") .. "?.lua;" .. package.path
local argparse = require "argparse"
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local contestants = require "lib.contestants"
local encode = require "lib.json"
local machine = require "lib.machine"
local report = require "lib.report"

local GROUPS = {"step", "nets", "gan", "conv", "vision", "decoder", "attention", "recurrent", "embedding", "writing",
  "graphs", "language", "reader", "small", "start", "growth"}
local RESULTS = "build/bench/results"

local parser = argparse("run.lua", "Measures Marea beside its peers.")
parser:argument("groups", "what to measure; all when left out"):args("*"):choices(GROUPS)
parser:option("--rounds", "turns of each contestant", "5"):convert(math.tointeger)
parser:flag("--only-ours", "leaves the peers out")
parser:flag("--cpu-time", "times turns with one thread by CPU time, where other programs use the machine as well")
local options = parser:parse()

local function cores()
  local pipe = io.popen "getconf _NPROCESSORS_ONLN"
  return math.tointeger(pipe:read "n") or 1, pipe:close()
end

local function line_of(path, pattern)
  local file = io.open(path)
  local found = file and file:read "a":match(pattern)
  return found or "unknown"
end

--- What all groups need to know.
local function prepare()
  local info, count = marea.info(), cores()
  local bf16 = (info.isa == "amx" or info.isa == "avx512_bf16") and info.isa or nil -- with f32 as avx512
  local isa = bf16 and "avx512" or info.isa
  local isas = {isa, isa == "avx512" and "avx2" or nil, bf16}
  return {isa = isa, bf16 = bf16, blas = info.blas, cores = count, threads = count > 1 and {1, 2} or {1},
    rounds = options.rounds, limits = machine.measure(count, isas), load = line_of("/proc/loadavg", "^%S+"),
    cpu = line_of("/proc/cpuinfo", "model name%s*: ([^\n]*)")}
end

local function describe(bench)
  local lines = {("%s, %d cores, load %s before the run"):format(bench.cpu, bench.cores, bench.load)}
  for _, threads in ipairs(bench.threads) do
    local peaks = {}
    for isa, rates in pairs(bench.limits.peak) do peaks[#peaks + 1] = marea.format("%s %.1f", isa, rates[threads]) end
    table.sort(peaks)
    lines[#lines + 1] = marea.format("%d thread%s: multiply-adds %s GFLOP/s; memory: read %.1f, copy %.1f GB/s",
      threads, threads == 1 and "" or "s", table.concat(peaks, ", "), bench.limits.read[threads],
      bench.limits.copy[threads])
  end
  return table.concat(lines, "\n")
end

local function plain(rows)
  local list = {}
  for i, row in ipairs(rows) do
    list[i] = {name = row.name, threads = row.threads, precision = row.precision,
      unit = row.unit, limit = row.limit, ours = row.ours,
      share = row.share, peers = next(row.peers) and row.peers, settings = next(row.settings) and row.settings,
      fastest = row.fastest}
  end
  return list
end

contestants.only_ours, contest.cpu_time = options.only_ours, options.cpu_time
local bench = prepare()
print(describe(bench))
local results, figures = {}, {}
for _, name in ipairs(#options.groups > 0 and options.groups or GROUPS) do
  local group = require("groups." .. name)
  local rows = report.resolve(group.run(bench))
  local notes = group.notes and group.notes(rows) or {}
  print(("\n%s\n%s"):format(group.title, report.text(rows)))
  for _, line in ipairs(report.settings(rows)) do notes[#notes + 1] = line end
  for _, note in ipairs(notes) do print(note) end
  results[#results + 1] = {group = name, title = group.title, rows = plain(rows), notes = notes}
  table.move(group.figures(rows, bench), 1, 10, #figures + 1, figures)
end

local versions, names, named = contestants.versions(), {}, {}
for _, version in pairs(versions) do
  if not named[version] then names[#names + 1] = version end
  named[version] = true
end
contestants.close()
table.sort(names)
local won = report.summary(results)
if won then print(("\nWho is fastest on %s, %d cores\n%s"):format(bench.cpu, bench.cores, won)) end
print("\n" .. table.concat(names, "; "))
local summary = {rounds = bench.rounds, cpu_time = options.cpu_time or false, versions = versions, groups = results,
  machine = {cpu = bench.cpu, cores = bench.cores, isa = bench.isa, bf16 = bench.bf16, blas = bench.blas,
    load = bench.load, limits = bench.limits}}
local file = assert(io.open(RESULTS .. ".json", "w"))
assert(file:write(encode(summary), "\n"))
assert(file:close())
local ok, message = chart.save(figures, ("Marea on %s, %d cores"):format(bench.cpu, bench.cores), RESULTS .. ".png")
if not ok then io.stderr:write(message, "\n") end
