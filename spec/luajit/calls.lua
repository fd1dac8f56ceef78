-- What a call costs through marea_ffi.lua: nanoseconds of each kind, as spec/luajit/calls.c measures them in C, and
-- kilobytes that the process grew by in a million calls of all.
package.path = "bindings/luajit/?.lua;" .. package.path
local ffi = require "ffi"
local marea = require "marea_ffi"
local op = marea.op
ffi.cdef "typedef struct { long s, ns; } moment; int clock_gettime(int clock, moment *now);"

local moment = ffi.new "moment"
local function now()
  ffi.C.clock_gettime(1, moment)
  return tonumber(moment.s) * 1e9 + tonumber(moment.ns)
end

local function resident()
  for line in io.lines "/proc/self/status" do
    local kilobytes = line:match "^VmRSS:%s+(%d+)"
    if kilobytes then return tonumber(kilobytes) end
  end
end

marea.set_threads(1)
local x, m = marea.zeros{4}, marea.zeros{2, 2}
local data = ffi.new "float[4]"
local kinds = {
  {"add", function() return op.add(x, x) end},
  {"sum", function() return op.sum(m, {dims = 1, keepdim = true}) end},
  {"reshape", function() return op.reshape(m, {shape = {4}}) end},
  {"add_", function() op.add_(m, m) end},
  {"from_memory", function() return marea.from_memory(data, {4}) end},
}
local CALLS, ROUNDS = 20000, 10 -- the quickest round counts: the machine has other work

local function measure(f)
  local least = math.huge
  for _ = 1, ROUNDS do
    local start = now()
    for _ = 1, CALLS do f() end
    least = math.min(least, (now() - start) / CALLS)
  end
  return least
end

for _, kind in ipairs(kinds) do measure(kind[2]) end
collectgarbage()
local before = resident()
for _, kind in ipairs(kinds) do print(("%s %.0f"):format(kind[1], measure(kind[2]))) end
collectgarbage()
print(("grown %d"):format(resident() - before))
print(("live %d"):format(marea.memory().live))
