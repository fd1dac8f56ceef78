-- SPDX-License-Identifier: MIT
-- Marea's side of the benchmarks: answers requests of bench/lib/worker.lua, one a line,
--
--   KIND name=value ... threads=2 seconds=0.1 [clock=cpu]
--
-- with "ok" and the times of calls in ms, by the wall clock or by this process's CPU time, or with "error" and why.
-- A kind is a file here that returns a function: arguments -> what to time; how much one call of it counts for (1 when
-- left out). A kind may keep what it has made for the next request.
local marea = require "marea"

local here = arg[0]:match "^.*/" or ""
package.path = here .. "../?.lua;" .. package.path
local kinds = {}
for _, name in ipairs{"step", "gan", "conv", "decoder", "graphs", "attention", "recurrent", "embedding", "writing",
  "language", "reader", "small", "chain", "mlp", "dqn", "classifier",
  "counting"} do
  kinds[name] = require("ours." .. name)
end

local function measure(f, clock, seconds, count)
  local times = {}
  f()
  local stop = clock() + seconds
  repeat
    local start = clock()
    f()
    local now = clock()
    times[#times + 1] = marea.format("%.9g", 1000 * (now - start) / count)
  until now >= stop
  return times
end

local function read(line)
  local arguments = {}
  for name, value in line:gmatch " (%w+)=(%S+)" do arguments[name] = tonumber(value) or value end
  return line:match "^%w+", arguments
end

local function answer(line)
  local kind, arguments = read(line)
  marea.set_threads(arguments.threads or 1)
  local prepare = kinds[kind] or error("unknown request " .. line)
  local f, count = prepare(arguments)
  return measure(f, arguments.clock == "cpu" and os.clock or marea.clock, arguments.seconds or 0.1, count or 1)
end

local info = marea.info()
io.stdout:setvbuf "line"
print(("ready Marea %s %s"):format(info.version, info.isa))
for line in io.lines() do
  local ok, result = pcall(answer, line)
  print(ok and "ok " .. table.concat(result, " ") or "error " .. tostring(result):gsub("%s+", " "))
  collectgarbage() -- the tensors of this request, before the next one is timed
end
