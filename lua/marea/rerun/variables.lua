-- SPDX-License-Identifier: MIT
--- The variables of a script that is at work: what gives networks, optimizers and datasets their names in a rerun.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local Dataset = require "marea.data.dataset"
local Optimizer = require "marea.optim.optimizer"

local variables = {}

local LEVELS = 150 -- levels of the stack that are searched
local FIELDS = 256 -- fields; a larger table is taken for data and not searched
local ALL_FIELDS = 20000 -- fields of all tables together that one search visits
local DEPTH = 4 -- tables in tables that are searched

--- Calls visit(name, value, f) for the local variables of the script's functions f, the script's own first, then those
--- of what it has called, in the order of their declarations.
---@param thread thread whose stack it is
---@param chunk function the script
local function locals(thread, chunk, visit)
  local bottom
  for level = 1, LEVELS do
    local info = debug.getinfo(thread, level, "f")
    if not info then break end
    if info.func == chunk then bottom = level end
  end
  for level = bottom or 0, 1, -1 do
    local info = debug.getinfo(thread, level, "Sf")
    for i = 1, (info.what == "C" or core.module_of(info.source)) and 0 or 250 do
      local name, value = debug.getlocal(thread, level, i)
      if not name then break end
      if name:sub(1, 1) ~= "(" then visit(name, value, info.func) end
    end
  end
end

--- Global variables that are not libraries, sorted by name.
local function globals(visit)
  local libraries, names = {}, {}
  for _, library in pairs(package.loaded) do libraries[library] = true end
  for name, value in pairs(_G) do
    if type(name) == "string" and not libraries[value] then names[#names + 1] = name end
  end
  table.sort(names, core.before)
  for _, name in ipairs(names) do visit(name, _G[name]) end
end

--- May the table be searched? Not if it is large, or if the search has visited too many fields already.
local function is_small(t, seen)
  local n = 0
  for _ in next, t do
    n = n + 1
    if n > FIELDS then return false end
  end
  seen.fields = (seen.fields or 0) + n
  return seen.fields <= ALL_FIELDS
end

local function is_parameter(value)
  return core.is_tensor(value) and not value:is_released() and value.is_leaf and value.requires_grad
end

--- visit(name, value, kind) for the module, parameter, optimizer or dataset that `value` is, or for those in the tables
--- that it leads to.
local function search(name, value, depth, seen, visit)
  if type(value) ~= "table" then
    if is_parameter(value) then visit(name, value, "parameter") end
  elseif module.is_module(value) then visit(name, value, "module")
  elseif Optimizer.is_optimizer(value) then visit(name, value, "optimizer")
  elseif getmetatable(value) == Dataset then visit(name, value, "dataset")
  elseif getmetatable(value) == nil and depth < DEPTH and not seen[value] and is_small(value, seen) then
    seen[value] = true
    for _, key in ipairs(module.public_keys(value)) do
      local text = math.type(key) and "." .. key or check.key_text(key)
      search(name .. text, value[key], depth + 1, seen, visit)
    end
  end
end

--- visit(name, value, kind) for every module, parameter, optimizer and dataset that variables hold, in the order of
--- their declarations: kind says which.
---@param thread thread that runs the script
---@param chunk function the script
---@param known table<any, boolean> values of global variables that are not the script's
function variables.each(thread, chunk, known, visit)
  local seen = {}
  local function one(name, value) search(name, value, 1, seen, visit) end
  locals(thread, chunk, one)
  local running = coroutine.running()
  if running ~= thread then locals(running, chunk, one) end
  globals(function(name, value)
    if not known[value] then one(name, value) end
  end)
end

--- The script's own local variables: name -> value.
function variables.of_script(thread, chunk)
  local found = {}
  locals(thread, chunk, function(name, value, f)
    if f == chunk then found[name] = value end
  end)
  return found
end

--- The values of the global variables, as a set.
function variables.known_globals()
  local known = {}
  for _, value in pairs(_G) do known[value] = true end
  return known
end

--- Does the text of a script declare this variable, or assign to it?
---@param text string
---@param name string
function variables.is_declared(text, name)
  for list in text:gmatch "local%s+([%a_][%w_%s,]*)" do
    if (" " .. list .. " "):find("[%s,]" .. name .. "[%s,]") then return true end
  end
  return ("\n" .. text):find("\n%s*" .. name .. "%s*=") ~= nil
end

return variables
