-- SPDX-License-Identifier: MIT
-- Runs in a process and a folder of its own, started by misuse_spec: calls what marea's Lua modules offer (functions,
-- and classes as constructors) with every bad value at the first three arguments and under every option's name. A call
-- may succeed or raise a string; it may not raise an error of Lua's own, such as an attempt to index nil.
--
--   lua5.4 spec/support/misuse_layers.lua <file for the call that is running, to be read after a crash>
local marea = require "marea"
local values = require "spec.support.bad_values".values
local core = require "marea.core"

local running = assert(io.open(arg[1], "w"))
local calls, faults, seen = 0, 0, {}

-- Words that are options somewhere; a class that does not know one has to say so.
local WORDS = {"activation", "bias", "init", "dtype", "kernel", "stride", "padding", "groups", "name", "p", "lr", "eps",
  "momentum", "beta1", "clip_norm", "shape", "seed", "model", "optimizer", "loader", "epoch", "texts"}

local LUAS_OWN = {"attempt to ", "bad argument #", "stack overflow", "invalid option", "number has no integer"}

local function attempt(what, f, ...)
  calls = calls + 1
  running:seek "set"
  running:write(what, (" "):rep(120), "\n")
  running:flush()
  local ok, message = pcall(f, ...)
  core.memory_limit(256 << 20)
  if ok then return end
  local fault = type(message) ~= "string" and "raised a " .. type(message)
  for _, text in ipairs(LUAS_OWN) do
    if not fault and message:find(text, 1, true) then fault = message end
  end
  if not fault then return end
  faults = faults + 1
  local where = tostring(fault):match "^[^:]*:%d+" or fault
  if seen[where] then return end -- one line for a place
  seen[where] = true
  print(what .. ": " .. tostring(fault))
end

local function torture(name, f)
  for _, value in ipairs(values) do
    core.scope(function()
      for position = 1, 3 do
        local args = {value[2](), value[2](), value[2]()}
        for i = 1, position - 1 do args[i] = {2, 3} end
        attempt(("%s: argument %d = %s"):format(name, position, value[1]), f, table.unpack(args, 1, position))
      end
      for _, word in ipairs(WORDS) do
        attempt(("%s{2, 3, kernel = 1, %s = %s}"):format(name, word, value[1]), f,
          {2, 3, kernel = word ~= "kernel" and 1 or nil, [word] = value[2]()})
      end
    end)
  end
end

local function is_callable(v)
  local meta = getmetatable(v)
  return type(v) == "function" or type(v) == "table" and type(meta) == "table" and meta.__call ~= nil
end

core.memory_limit(256 << 20)
for _, module_name in ipairs {"nn", "optim", "dist", "data", "augment", "judge", "checkpoint", "metrics", "profile"} do
  local names = {}
  for name in pairs(marea[module_name]) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local f = marea[module_name][name]
    if is_callable(f) then torture(module_name .. "." .. name, f) end
  end
end
torture("data.synthetic.digits", marea.data.synthetic.digits)
torture("profile", marea.profile)
local report = marea.profile(function() return marea.ones(2) + 1 end)
for _, name in ipairs {"table", "group", "trace"} do
  torture("report:" .. name, function(...) return report[name](report, ...) end)
end
print(("%d calls, %d faults"):format(calls, faults))
