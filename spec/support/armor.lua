-- SPDX-License-Identifier: MIT
--- Calls everything with everything, in a process of its own:
---
---   lua5.4 armor.lua outside|sandbox ROOT FOLDER SECONDS EVERY
---
--- Each function gets one in EVERY objects as its first argument, others with each function, alone and with SECONDS
--- others as the second one. The working folder is one to be littered; FOLDER/last gets the name of each call before it
--- is made, so that a crash is found there.
--- Ends with "CALLS calls of FUNCTIONS functions with KINDS kinds of objects".
local where, root, folder, n_seconds, every = arg[1], arg[2], arg[3], tonumber(arg[4]), tonumber(arg[5])
local marea = require "marea"
local core = require "marea.core"
local exit = os.exit -- among the functions that are called is one that gives scripts an os.exit of their own

local last = assert(io.open(folder .. "/last", "w"))
last:setvbuf "no"
local function note(name)
  last:seek "set"
  last:write(name, (" "):rep(200 - #name), "\n")
end

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

--- The library's modules, in the order of names.
local function modules()
  local list = {"marea.core"}
  for _, name in ipairs(dofile(root .. "/spec/support/modules.lua").all(root)) do
    if name ~= "marea.sandbox.environment" then list[#list + 1] = name end -- it remakes the globals
  end
  return list
end

local text = read(root .. "/spec/support/armor_walk.lua")

-- ---- outside ----

--- The state's userdata is the first upvalue of each function; this is its metatable.
local function end_of_state()
  local _, state = debug.getupvalue(core.seed, 1)
  return debug.getmetatable(state), state
end

--- Lua's own functions, which are not what is tried.
local function lua_itself()
  local known = {}
  for _, name in ipairs {"string", "table", "math", "io", "os", "coroutine", "utf8", "debug", "package", "_G"} do
    local library = package.loaded[name]
    known[library] = true
    for _, value in pairs(library) do
      if type(value) == "function" or type(value) == "table" then known[value] = true end
    end
  end
  known[require] = nil
  known[end_of_state().__gc] = true -- it closes the library: last_calls
  for _, command in ipairs(require "marea.repl.commands") do
    if command.name == "watch" then known[command.run] = true end -- waits for a file to change
  end
  return known
end

--- Userdata that never leave the stack of a function in C: a hook sees them there.
local function hidden()
  local found, seen = {}, {}
  local function look()
    for level = 2, 4 do
      for i = 1, debug.getinfo(level, "S") and 20 or 0 do
        local name, value = debug.getlocal(level, i)
        if not name then break end
        local meta = type(value) == "userdata" and debug.getmetatable(value)
        if meta and not seen[meta] and meta.__name ~= "FILE*" then
          seen[meta] = true
          found[#found + 1] = value
        end
      end
    end
  end
  debug.sethook(look, "cr")
  local t = marea.ones(2)
  marea.save("hidden.safetensors", {t = t})
  marea.load "hidden.safetensors"
  core.list_folder "."
  core.interruptible(function() marea.ones(1) end)
  debug.sethook()
  return found
end

local function outside()
  local walk = assert(load(text, "@armor_walk"))()
  local roots = {}
  for _, name in ipairs(modules()) do
    local ok, module = pcall(require, name)
    if ok then roots[name] = module end
  end
  local objects = walk.objects(marea)
  for _, object in ipairs(objects) do roots["object " .. object.name] = object.make() end
  for i, value in ipairs(hidden()) do
    local name = ("hidden %d (%s)"):format(i, debug.getmetatable(value).__name or "no name")
    roots[name] = value
    objects[#objects + 1] = {name = name, make = function() return value end}
  end
  local functions, userdata = walk.reach(roots, lua_itself())
  local kinds = {}
  for _, item in ipairs(userdata) do -- the state, light userdata, ...
    local meta = debug.getmetatable(item.value)
    if not kinds[meta or "light"] then
      kinds[meta or "light"] = true
      objects[#objects + 1] = {name = item.name, make = function() return item.value end}
    end
  end
  objects[#objects + 1] = {name = "file of io", make = io.tmpfile}
  objects[#objects + 1] = {name = "closed file of io", make = function()
    local f = io.tmpfile()
    f:close()
    return f
  end}
  local open, closed = marea.sandbox{seconds = .05}._sandbox, marea.sandbox()._sandbox
  closed:close()
  objects[#objects + 1] = {name = "sandbox", make = function() return open end}
  objects[#objects + 1] = {name = "closed sandbox", make = function() return closed end}
  return walk, functions, objects
end

local function too_long() error "too many steps" end

--- What a call may have changed for all that follow.
local function put_back()
  core.memory_fail(0)
  core.memory_limit()
  marea.seed(1)
end

--- The end of the state, called with everything; then with the state itself, after which nothing works, nor breaks.
local function last_calls(objects)
  local meta, state = end_of_state()
  local calls, t = 0, marea.ones(2)
  for _, object in ipairs(objects) do
    if object.value ~= state then pcall(meta.__gc, object.value) end
    calls = calls + 1
  end
  meta.__gc(state)
  meta.__gc(state)
  note "after the end"
  for _, f in pairs(core) do
    if type(f) == "function" then
      pcall(f)
      pcall(f, t)
      calls = calls + 2
    end
  end
  assert(select(2, pcall(marea.ones, 2)):find "closing")
  return calls
end

local function run_outside()
  local walk, functions, objects = outside()
  local calls = 0
  core.explain_with(function() end) -- what else messages say takes its time
  for i, item in ipairs(functions) do
    for k = 1 + i % every, #objects, every do
      local object = objects[k]
      note(("%s, first argument: %s"):format(item.name, object.name))
      local seconds = {}
      for j = 1, n_seconds do seconds[j] = objects[(i * 7 + k * 3 + j * 11) % #objects + 1] end
      debug.sethook(too_long, "", 1000000)
      calls = calls + walk.call(item.f, object, seconds)
      debug.sethook()
      put_back()
    end
  end
  return calls + last_calls(objects), #functions, #objects
end

-- ---- in a sandbox ----

local prepare = [[
  local text, names, methods = ...
  walk = load(text, "=walk")()
  objects = walk.objects(marea)
  local roots = {_G = _G}
  for _, name in ipairs(names) do
    local ok, module = pcall(require, name)
    if ok then roots[name] = module end
  end
  for _, object in ipairs(objects) do
    local made = object.make()
    for _, method in ipairs(type(made) == "userdata" and methods or {}) do
      local ok, f = pcall(function() return made[method] end)
      if ok then roots[object.name .. ":" .. method] = f end
    end
  end
  functions = walk.reach(roots)
  return #functions, #objects
]]

local step = [[
  local i, k, n = ...
  local seconds = {}
  for j = 1, n do seconds[j] = objects[(i * 7 + k * 3 + j * 11) % #objects + 1] end
  return walk.call(functions[i].f, objects[k], seconds)
]]

local function run_sandbox()
  local box = marea.sandbox{seconds = 5, memory = 2 ^ 30, flop = 1e8, read = {"."}, write = {"."}}
  local methods = {"rows", "event", "times", "layers", "close", "run", "output", "shape", "grad"}
  for name in pairs(core.methods) do methods[#methods + 1] = name end
  table.sort(methods)
  local ok, n_functions, n_objects = assert(box:run(prepare, text, modules(), methods))
  assert(ok)
  local calls = 0
  for i = 1, n_functions do
    for k = 1 + i % every, n_objects, every do
      note(("function %d, first argument: object %d"):format(i, k))
        local fine, n = box:run(step, i, k, n_seconds)
      calls = calls + (fine and n or 1)
    end
  end
  return calls, n_functions, n_objects
end

local calls, n_functions, n_objects = (where == "outside" and run_outside or run_sandbox)()
print(("%d calls of %d functions with %d kinds of objects"):format(calls, n_functions, n_objects))
exit(true, true)
