-- SPDX-License-Identifier: MIT
--- Finds what scripts can reach, and calls it with everything: for armor_spec, outside of sandboxes and, as text, in
--- one. There is no `debug` in there, so metatables and upvalues are looked into only outside.
---
---   local functions, userdata = walk.reach{root = value}   -- lists of {name =, f =} and {name =, value =}
---   local calls = walk.call(f, object, seconds)            -- of walk.objects(marea)
local walk = {}

local debug = debug -- luacheck: ignore 431
local get_metatable = debug and debug.getmetatable or getmetatable

-- By nature they wait, end the program, start others, or undo Lua's own safety. A name at the end of a path.
local skipped = {
  ["sleep"] = "waits", ["exit"] = "ends", ["popen"] = "starts a program", ["execute"] = "starts a program",
  ["read"] = "waits for input", ["lines"] = "waits for input",
  ["watch"] = "waits for a file to change", ["watching"] = "waits for a file to change",
}

local function name_of(path, key)
  if type(key) == "string" then return path .. "." .. key end
  return path .. "[" .. (math.type(key) and tostring(key) or type(key)) .. "]"
end

local function later(a, b) return a.name < b.name end

--- What lies one step from a value: {name =, value =}, in the order of names.
local function neighbours(path, value)
  local list = {}
  local function add(name, v) list[#list + 1] = {name = name, value = v} end
  if type(value) == "table" then
    for key, v in next, value do
      add(name_of(path, key), v)
      if type(key) == "table" or type(key) == "userdata" or type(key) == "function" then add(path .. "{key}", key) end
    end
  end
  local meta = get_metatable(value)
  if meta and type(value) ~= "string" then add(path .. "{meta}", meta) end
  if debug and type(value) == "function" then
    for i = 1, 255 do
      local name, v = debug.getupvalue(value, i)
      if not name then break end
      add(path .. "^" .. name .. i, v)
    end
  elseif debug and type(value) == "userdata" then
    for i = 1, 3 do add(path .. "{value " .. i .. "}", (debug.getuservalue(value, i))) end
  end
  table.sort(list, later)
  return list
end

--- Functions that lead from the values of `roots`, and the userdata on the way; what `known` has is left out.
function walk.reach(roots, known)
  local seen, functions, userdata, queue = {}, {}, {}, {}
  for value in next, known or {} do seen[value] = true end
  for name, value in next, roots do queue[#queue + 1] = {name = name, value = value} end
  table.sort(queue, later)
  for at = 1, math.huge do
    local item = queue[at]
    if not item then break end
    local value, kind = item.value, type(item.value)
    if (kind == "table" or kind == "function" or kind == "userdata") and not seen[value] then
      seen[value] = true
      if kind == "userdata" then userdata[#userdata + 1] = item end
      if kind == "function" and not skipped[item.name:match "[%w_]+$" or ""] then
        functions[#functions + 1] = {name = item.name, f = value}
      end
      for _, next_one in ipairs(neighbours(item.name, value)) do queue[#queue + 1] = next_one end
    end
  end
  return functions, userdata, seen
end

--- Kinds of objects: {name =, make = function, good = function}. One is made anew when a call has ended it.
function walk.objects(marea)
  local objects = {}
  local function object(name, make, good) objects[#objects + 1] = {name = name, make = make, good = good} end
  local function is_alive(t) return not t:is_released() end
  local function survivor(f) -- of a plan
    return function()
      local t
      marea.plan(function() t = f(marea.zeros(3):keep()):keep() end)
      return t
    end
  end
  object("tensor", function() return marea.ones(2, 3) end, is_alive)
  object("scalar", function() return marea.full({}, 1, "f64") end, is_alive)
  object("integers", function() return marea.tensor({1, 2, 3}, {dtype = "i64"}) end, is_alive)
  object("leaf", function() return marea.ones(2):requires_grad_() end, is_alive)
  object("view with gaps", function() return marea.ones(4, 6):transpose(1, 2):narrow(1, 2, 3) end, is_alive)
  object("expanded", function() return marea.ones(1):expand(1000) end, is_alive)
  object("released", function()
    local t = marea.ones(2)
    t:release()
    return t
  end)
  object("survivor", survivor(function(t) return t end), is_alive)
  object("survivor's view", survivor(function(t) return t:narrow(1, 2, 2) end), is_alive)
  object("scalar survivor", survivor(function(t) return t:sum() end), is_alive)
  object("survivor that learns", survivor(function(t) return t:detach():requires_grad_():square() end), is_alive)
  object("scope", function() return marea.scope() end, function(s) return tostring(s) == "scope (open)" end)
  object("closed scope", function()
    local s = marea.scope()
    s:close()
    return s
  end)
  local has_core, core = pcall(require, "marea.core") -- reports keep their session to themselves
  if has_core then
    object("session", function()
      pcall(marea.profile.stop)
      core.profile_start(10)
      marea.ones(3)
      return core.profile_stop()
    end)
  end
  object("report", function()
    pcall(marea.profile.stop)
    marea.profile.start()
    return marea.profile.stop()
  end)
  object("layer", function() return marea.nn.Linear{3, 2} end)
  object("optimizer", function() return marea.optim.Adam{marea.nn.Linear{3, 2}} end)
  for name, value in next, {number = 1, negative = -1, fraction = .5, huge = 2 ^ 53, least = math.mininteger,
    nan = 0 / 0, infinity = 1 / 0, text = "name", ["true"] = true} do
    object(name, function() return value end)
  end
  object("table", function() return {} end)
  object("list", function() return {1, 2} end)
  object("list of tensors", function() return {marea.ones(2), marea.ones(2)} end)
  object("table that raises", function() return setmetatable({}, {__index = error, __call = error}) end)
  object("function", function() return function() end end)
  object("thread", function() return coroutine.create(function() coroutine.yield() end) end)
  object("dead thread", function()
    local co = coroutine.create(function() end)
    coroutine.resume(co)
    return co
  end)
  table.sort(objects, later)
  return objects
end

--- The object, as it was or made anew; nil when a call has changed the world so that it cannot be made.
local function made(object)
  if not object.value or (object.good and not object.good(object.value)) then
    local ok, value = pcall(object.make)
    object.value = ok and value or nil
  end
  return object.value
end

--- f with the object as the first argument, and with each of `seconds` as the second one. Returns how many calls.
function walk.call(f, object, seconds)
  pcall(f, made(object))
  for _, second in ipairs(seconds) do pcall(f, made(object), made(second)) end
  return 1 + #seconds
end

return walk
