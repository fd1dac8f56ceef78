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

--- words: with options by name too
local function torture(name, f, words)
  for _, value in ipairs(values) do
    core.scope(function()
      for position = 1, 3 do
        local args = {value[2](), value[2](), value[2]()}
        for i = 1, position - 1 do args[i] = {2, 3} end
        attempt(("%s: argument %d = %s"):format(name, position, value[1]), f, table.unpack(args, 1, position))
      end
      for _, word in ipairs(words and WORDS or {}) do
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
for _, module_name in ipairs {"nn", "optim", "dist", "data", "augment", "judge", "checkpoint", "metrics", "profile",
  "text", "decode"} do
  local names = {}
  for name in pairs(marea[module_name]) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local f = marea[module_name][name]
    if is_callable(f) then torture(module_name .. "." .. name, f, true) end
  end
end
torture("profile", marea.profile, true)

--- The functions of a table and of its metatables' __index tables, sorted.
local function functions_of(t)
  local names, found = {}, {}
  while type(t) == "table" do
    for name, f in next, t do
      if type(name) == "string" and name:sub(1, 2) ~= "__" and is_callable(f) and not found[name] then
        names[#names + 1], found[name] = name, f
      end
    end
    local meta = getmetatable(t)
    t = meta and rawget(meta, "__index")
  end
  table.sort(names)
  return names, found
end

for _, part in ipairs{"nn.init", "optim.schedule", "data.synthetic"} do
  local outer, inner = part:match "(%w+)%.(%w+)"
  local names, found = functions_of(marea[outer][inner])
  for _, name in ipairs(names) do torture(part .. "." .. name, found[name]) end
end

-- what those that make functions make
local made = {
  constant = marea.optim.schedule.constant(0.1), exponential = marea.optim.schedule.exponential(0.1, 0.9),
  cosine = marea.optim.schedule.cosine(0.1, 9), step = marea.optim.schedule.step(0.1, 9),
  warmup = marea.optim.schedule.warmup(3, 0.1), inverse_time = marea.optim.schedule.inverse_time(0.1, 0.5),
  ["init.uniform"] = marea.nn.init.uniform(-1, 1), ["init.normal"] = marea.nn.init.normal(0, 1),
  ["init.constant"] = marea.nn.init.constant(1),
}
for _, name in ipairs((functions_of(made))) do torture(name, made[name]) end

-- methods of objects, each on a new one; these are called by the library alone
local OWN = {allocate = true, define = true, flops = true, materialize = true, misfit = true, read = true,
  weight_shape = true}
local objects = {
  Sequential = function() return marea.nn.Sequential{marea.nn.Linear{2, 3}, marea.nn.BatchNorm{3}} end,
  Conv2d = function() return marea.nn.Conv2d{1, 2, kernel = 2} end,
  Adam = function() return marea.optim.Adam{marea.nn.Linear{2, 3}} end,
  SGD = function() return marea.optim.SGD{marea.nn.Linear{2, 3}} end,
  Dataset = function() return marea.data.Dataset{{"x", marea.ones(3, 2)}} end,
  batches = function() return marea.data.Dataset{marea.ones(3, 2)}:batches(2) end,
  Normal = function() return marea.dist.Normal(0, 1) end,
  BytePair = function() return marea.text.BytePair{{"a rose"}, size = 258, special = {"<pad>"}} end,
  Vocabulary = function() return marea.text.Vocabulary{{"a", "b"}, stop = true} end,
  Categorical = function() return marea.dist.Categorical{logits = marea.ones(3)} end,
}
for _, class in ipairs((functions_of(objects))) do
  for _, name in ipairs((functions_of(objects[class]()))) do
    if not OWN[name] then
      torture(class .. ":" .. name, function(...)
        local object = objects[class]()
        return object[name](object, ...)
      end)
    end
  end
end
local report = marea.profile(function() return marea.ones(2) + 1 end)
for _, name in ipairs {"table", "group", "trace"} do
  torture("report:" .. name, function(...) return report[name](report, ...) end)
end
print(("%d calls, %d faults"):format(calls, faults))
