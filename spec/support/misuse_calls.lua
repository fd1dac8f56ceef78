-- SPDX-License-Identifier: MIT
-- Runs in a process and a folder of its own, started by misuse_spec: calls every public function of marea.core with
-- every bad value at every argument, and with every wrong number of arguments. A call may succeed or raise a string
-- that names the function; memory must be what it was. Prints one line for each fault and at the end a count.
--
--   lua5.4 spec/support/misuse_calls.lua <file for the call that is running, to be read after a crash>
local core, marea = require "marea.core", require "marea"
local sample = require "spec.support.sample"
local bad_values = require "spec.support.bad_values"
local ops = core.ops

local running = assert(io.open(arg[1], "w"))
local calls, faults = 0, 0
local LIMIT = 256 << 20
local values, made = bad_values.values, bad_values.made

-- ---- the calls ----

local function report(what, text)
  faults = faults + 1
  if faults <= 60 then print(what .. ": " .. text) end
end

--- Settings that a call may have changed go back.
local function reset()
  core.memory_fail(0)
  core.memory_limit(LIMIT)
  if core.threads() ~= 2 then core.set_threads(2) end
  pcall(core.profile_stop)
end

local function attempt(name, what, f, args, n)
  calls = calls + 1
  running:seek "set"
  running:write(what, (" "):rep(120), "\n")
  running:flush()
  local ok, message = pcall(f, table.unpack(args, 1, n))
  reset()
  if ok then return end
  if type(message) ~= "string" then
    report(what, "raised a " .. type(message))
  elseif name and not message:find(name, 1, true) then
    report(what, "does not name the function: " .. message)
  elseif name and message:find "a metamethod ran" then -- without a name it is Lua itself that runs it
    report(what, "ran a metamethod")
  elseif #message > 2000 then
    report(what, "message of " .. #message .. " bytes")
  end
end

local function settle()
  collectgarbage()
  collectgarbage()
  local m = core.memory()
  return m.live, m.blocks
end

--- All bad calls of one function. `valid()` makes a list of good arguments and its length.
local function torture(name, f, valid, message_name)
  local live, blocks = settle()
  local n = select(2, valid())
  for position = 1, n do
    for _, value in ipairs(values) do
      core.scope(function()
        local args = valid()
        args[position] = value[2]()
        attempt(message_name, ("%s: argument %d = %s"):format(name, position, value[1]), f, args, n)
      end)
    end
  end
  for count = 0, n + 3 do
    for _, filler in ipairs {values[1], values[5], values[20]} do
      core.scope(function()
        local args = valid()
        for i = n + 1, count do args[i] = filler[2]() end
        attempt(message_name, ("%s: %d arguments, more of %s"):format(name, count, filler[1]), f, args, count)
      end)
    end
  end
  local live_now, blocks_now = settle()
  if live_now ~= live or blocks_now ~= blocks then
    report(name, ("left %d bytes, %d blocks"):format(live_now - live, blocks_now - blocks))
  end
end

core.memory_limit(LIMIT)
core.set_threads(2)

-- operators: inputs, then attributes by position
for _, name in ipairs(core.op_names()) do
  local info = core.op_info(name)
  local variadic = info.inputs[1] and info.inputs[1].variadic
  local function valid()
    local inputs, attrs = sample.draw(info, sample.generator(2, {dtype = "f32", contiguous = true}))
    local args = variadic and {inputs} or {table.unpack(inputs, 1, #info.inputs)}
    local n = #info.inputs
    for i, attr in ipairs(info.attrs) do args[n + i] = attrs[attr.name] end
    return args, n + #info.attrs
  end
  torture(name, ops[name], valid, name)
  -- the same values by name
  for _, attr in ipairs(info.attrs) do
    local live, blocks = settle()
    for _, value in ipairs(values) do
      core.scope(function()
        local inputs, attrs = sample.draw(info, sample.generator(2, {dtype = "f32"}))
        attrs[attr.name] = value[2]()
        attempt(name, ("%s{%s = %s}"):format(name, attr.name, value[1]), sample.call, {info, inputs, attrs}, 3)
      end)
    end
    local live_now, blocks_now = settle()
    if live_now ~= live or blocks_now ~= blocks then report(name .. "." .. attr.name, "left memory behind") end
  end
  if info.elementwise then
    local method = made(1)[name .. "_"]
    torture(name .. "_", method, valid, name)
  end
end

-- methods that are not operators
local methods = {
  size = {1}, numel = {}, item = {}, totable = {}, tostring = {}, is_contiguous = {}, shares = {made(2, 2)},
  copy_ = {made(2, 2)}, fill_ = {1}, zero_ = {}, requires_grad_ = {true}, backward = {made(2, 2)}, clear_grad = {},
  detach = {}, to = {"f64"}, release = {}, keep = {}, is_released = {},
}
for name, rest in pairs(methods) do
  torture(name, made(1)[name], function()
    local t = made(2, 2)
    if name == "backward" then t = t:requires_grad_(true) * 2 end
    return {t, table.unpack(rest)}, 1 + #rest
  end, name)
end

-- metamethods
local metamethods = {
  add = function(a, b) return a + b end, sub = function(a, b) return a - b end, mul = function(a, b) return a * b end,
  div = function(a, b) return a / b end, pow = function(a, b) return a ^ b end,
  length = function(a) return #a end, negative = function(a) return -a end,
  get = function(a, b) return a[b] end, text = function(a) return tostring(a) end,
}
for name, f in pairs(metamethods) do
  torture("metamethod " .. name, f, function() return {made(2, 2), 1}, (name == "get" or #name == 3) and 2 or 1 end)
end
torture("metamethod set", function(a, b, c) a[b] = c end, function() return {made(2, 2), 1, 5}, 3 end)
torture("index list", function(a, b, c) return a[{b, c}] end, function() return {made(2, 2), 1, 2}, 3 end)
for _, text in ipairs {"1", "1:2", "2:1", ":", ",", ":,:", ":,:,:", "0", "-3", "1:3", "a", "1::0", "::-1", "1:2:3:4",
  "99999999999999999999", "-", ":,", "\0", " 1 , 2 ", "1;2", "..."} do
  core.scope(function()
    attempt(nil, "slice " .. text, function(t, s) return t[s] end, {made(2, 2), text}, 2)
    attempt(nil, "slice " .. text .. " written", function(t, s) t[s] = 1 end, {made(2, 2), text}, 2)
  end)
end

-- functions of the module
local function graph()
  local x = made(2):requires_grad_(true)
  return {(x * x):sum(), x, {}}, 3
end
local functions = {
  tensor = function() return {{{1, 2}, {3, 4}}, {dtype = "f32"}}, 2 end, is_tensor = function() return {made(1)}, 1 end,
  op_names = function() return {}, 0 end, op_info = function() return {"add"}, 1 end,
  recording = function() return {}, 0 end, grad = graph, tape_length = function() return {}, 0 end,
  seed = function() return {1}, 1 end, random_state = function() return {}, 0 end,
  set_random_state = function() return {1, 2}, 2 end, set_threads = function() return {2}, 1 end,
  threads = function() return {}, 0 end, info = function() return {}, 0 end, memory = function() return {}, 0 end,
  memory_reset_peak = function() return {}, 0 end, memory_limit = function() return {LIMIT}, 1 end,
  memory_trim = function() return {}, 0 end, memory_fail = function() return {0, false}, 2 end,
  isatty = function() return {1}, 1 end, clock = function() return {}, 0 end,
  scope = function() return {function() return made(1) end, 1}, 2 end,
  no_grad = function() return {function() return made(1) end, 1}, 2 end,
  save = function() return {"a.safetensors", {a = made(2)}, {k = "v"}}, 3 end,
  load = function() return {"a.safetensors"}, 1 end, save_npy = function() return {made(2), "a.npy"}, 2 end,
  load_npy = function() return {"a.npy"}, 1 end,
  save_npz = function() return {{a = made(2)}, "a.npz"}, 2 end, load_npz = function() return {"a.npz"}, 1 end,
  save_string = function() return {{a = made(2)}, {k = "v"}}, 2 end,
  load_string = function() return {core.save_string{a = made(2)}}, 1 end,
  load_torch = function() return {"a.pt"}, 1 end, load_gguf = function() return {"a.gguf"}, 1 end,
  load_t7 = function() return {"a.t7"}, 1 end, load_zip = function() return {"a.npz"}, 1 end,
  load_idx = function() return {"a.idx"}, 1 end,
  save_png = function() return {made(2, 2), "a.png"}, 2 end, load_png = function() return {"a.png"}, 1 end,
  encode_png = function() return {made(2, 2)}, 1 end,
  save_jpeg = function() return {made(2, 2), "a.jpg"}, 2 end, load_jpeg = function() return {"a.jpg"}, 1 end,
  load_image = function() return {"a.jpg"}, 1 end,
}
-- what they are given may raise itself
local unnamed = {scope = true, no_grad = true}
for name, valid in pairs(functions) do
  torture(name, core[name] or marea[name], valid, not unnamed[name] and name or nil)
end

torture("profile_start", core.profile_start, function() return {100}, 1 end, "profile")
torture("profile_stop", function()
  core.profile_start(100)
  return core.profile_stop()
end, function() return {}, 0 end)
local session_methods = {rows = {}, event = {1}, times = {}, layers = {}}
for name, rest in pairs(session_methods) do
  core.profile_start(100)
  local session = core.profile_stop()
  torture("session:" .. name, session[name], function() return {session, table.unpack(rest)}, 1 + #rest end)
end

-- the same from a coroutine, a finalizer, a to-be-closed variable and a hook
local function some_calls()
  core.scope(function()
    for i, value in ipairs(values) do
      attempt("add", "add from elsewhere, " .. i, ops.add, {made(2), value[2]()}, 2)
      attempt("conv2d", "conv2d from elsewhere, " .. i, ops.conv2d, {made(1, 3, 3, 1), value[2](), nil, {}}, 4)
    end
  end)
end
assert(coroutine.resume(coroutine.create(some_calls)))
do
  local _ <close> = setmetatable({}, {__close = some_calls})
end
setmetatable({}, {__gc = some_calls})
collectgarbage()
collectgarbage()
local hooked = false
debug.sethook(function()
  if hooked then return end
  hooked = true
  some_calls()
end, "", 100)
for _ = 1, 1000 do local _ = made(2) + 1 end
debug.sethook()

print(("%d calls, %d faults"):format(calls, faults))
