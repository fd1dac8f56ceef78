-- SPDX-License-Identifier: MIT
--- nn.Sequential{layer, layer, function(x) ... end}: one after the other. A layer's key is its `name`, else its
--- position, so paths read encoder.conv1.weight or encoder.1.weight. The same layer may come twice: it then has one
--- weight and the path of its first place.
local check = require "marea.internal.check"
local module = require "marea.nn.module"

---@class Sequential
---@example net = nn.Sequential{nn.Linear{8, 16, activation = "relu", name = "hidden"}, nn.Linear{16, 2}}
---@example net(marea.normal{4, 8})
local Sequential = module.class("Sequential")

--- The key of the i-th layer: its name, else i. A name that the walk would not visit or that looks like the path of
--- another layer is refused.
local function key_of(self, i, layer)
  local key = module.is_module(layer) and layer.name or i
  if key == i then return i end
  if type(key) ~= "string" then check.fail("Sequential", ("name of layer %d"):format(i), "a string", key) end
  if key == "" or key:find "^_" or tostring(math.tointeger(tonumber(key))) == key then
    check.raise("Sequential: the name '%s' of layer %d is %s", key, i, key == "" and "empty"
      or key:find "^_" and "private: parameters are not looked for under keys that begin with '_'"
      or "that of a position; name it 'layer" .. key .. "', say")
  end
  if self[key] == nil or rawget(self, key) == layer then return key end
  for k, other in ipairs(self._order) do
    if other == key then check.raise("Sequential: layers %d and %d have the same name '%s'", k, i, key) end
  end
  check.raise("Sequential: the name '%s' of layer %d is taken: every module has a field or method of this name", key, i)
end

function Sequential:init(options)
  options = check.options("Sequential", options, {"name"}, math.maxinteger)
  self.name = options.name
  self._order = {}
  for i, layer in ipairs(options) do
    if not module.is_module(layer) and type(layer) ~= "function" then
      check.fail("Sequential", tostring(i), "a module or a function", layer)
    end
    local key = key_of(self, i, layer)
    self[key] = layer
    self._order[i] = key
  end
end

function Sequential:forward(x)
  local order = self._order
  for i = 1, #order do x = self[order[i]](x) end
  return x
end

function Sequential:parts() return self._order end

return {Sequential = Sequential}
