-- SPDX-License-Identifier: MIT
--- Finds the modules that the script's variables hold, for messages that name parameters. The search is made when a
--- message is made; nothing is recorded before.
local core = require "marea.core"
local module = require "marea.nn.module"

local visible = {}

local function holds_modules(t)
  for _, part in pairs(t) do
    if module.is_module(part) then return true end
  end
  return false
end

--- Appends the value if it can be searched for parameters: a module, an optimizer with what it trains, a table of
--- modules.
local function take(list, seen, value)
  if type(value) ~= "table" or seen[value] then return end
  seen[value] = true
  local is_root = module.is_module(value) or (getmetatable(value) == nil and holds_modules(value))
  if is_root or rawget(value, "groups") then list[#list + 1] = value end
  for _, group in ipairs(rawget(value, "groups") or {}) do
    if type(group) == "table" then take(list, seen, group.root) end
  end
end

local function take_variables(list, seen, get, from)
  local i = 1
  local name, value = get(from, i)
  while name do
    take(list, seen, value)
    i = i + 1
    name, value = get(from, i)
  end
end

--- The values of the script's variables: local ones of the functions on the stack, the innermost first, then global
--- ones.
function visible.roots()
  local list, seen, level = {}, {}, 2
  local info = debug.getinfo(level, "f")
  while info do
    take_variables(list, seen, function(_, i) return debug.getlocal(level + 2, i) end)
    take_variables(list, seen, debug.getupvalue, info.func)
    level = level + 1
    info = debug.getinfo(level, "f")
  end
  local names = {}
  for name in pairs(_G) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names, core.before)
  for _, name in ipairs(names) do take(list, seen, _G[name]) end
  return list
end

--- Calls visit(name, tensor) for the tensors of all modules and optimizers that can be seen, names being paths from
--- there.
local function each(visit)
  local function visit_living(name, t)
    if core.is_tensor(t) and not t:is_released() then visit(name, t) end
  end
  for _, root in ipairs(visible.roots()) do
    for _, entry in ipairs(rawget(root, "groups") and {} or module.tensors(root)) do
      visit_living(entry.name, entry.tensor)
    end
    for _, entry in ipairs(rawget(root, "_entries") or {}) do
      for _, slot in ipairs(root.slots) do visit_living(entry.name .. "." .. slot, entry[slot]) end
    end
  end
end

--- The longest path of a parameter or buffer, of a parameter with ".grad" behind it for its gradient, or with the name
--- of what an optimizer remembers of it; nil when t is none.
---@param t userdata
---@return string|nil
function visible.name_of(t)
  local best
  core.scope(each, function(name, tensor)
    local gradient = tensor.grad
    local found = tensor:shares(t) and name or gradient and gradient:shares(t) and name .. ".grad"
    if found and (not best or #found > #best) then best = found end
  end)
  return best
end

return visible
