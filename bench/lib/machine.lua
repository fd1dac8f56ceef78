-- SPDX-License-Identifier: MIT
--- What the machine can do at most, by build/bench/machine: {peak = {ISA = {[threads] = GFLOP/s}}, read = {[threads] =
--- GB/s}, copy = ...}.
local machine = {}

function machine.measure(threads, isas)
  local limits = {peak = {}, read = {}, copy = {}}
  local pipe = assert(io.popen(("build/bench/machine %d %s"):format(threads, table.concat(isas, " "))))
  for line in pipe:lines() do
    local words = {}
    for word in line:gmatch "%S+" do words[#words + 1] = tonumber(word) or word end
    if words[1] == "peak" then
      limits.peak[words[2]] = limits.peak[words[2]] or {}
      limits.peak[words[2]][words[3]] = words[4]
    else
      limits[words[1]][words[2]] = words[3]
    end
  end
  assert(pipe:close(), "build/bench/machine failed")
  return limits
end

--- The numbers of threads that were measured: 1, 2, 4, ... and all.
function machine.threads(limits)
  local list = {}
  for threads in pairs(limits.read) do list[#list + 1] = threads end
  table.sort(list)
  return list
end

--- ms for so many FLOP; nil where no peak is known, or no ISA given.
function machine.compute_limit(limits, isa, threads, flop)
  local peak = (limits.peak[isa or ""] or {})[threads]
  return peak and flop / peak * 1e-6
end

--- ms for so many bytes at one of the rates; more threads are not slower, whatever the measurement met.
local function limit_of(rates, threads, bytes)
  local rate = rates[1]
  for t, measured in pairs(rates) do
    if t <= threads then rate = math.max(rate, measured) end
  end
  return bytes / rate * 1e-6
end

--- ms for so many bytes read and written.
function machine.memory_limit(limits, threads, bytes) return limit_of(limits.copy, threads, bytes) end

--- ms for so many bytes read.
function machine.read_limit(limits, threads, bytes) return limit_of(limits.read, threads, bytes) end

return machine
