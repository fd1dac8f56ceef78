-- SPDX-License-Identifier: MIT
--- nn.Sequential{layer, layer, function(x) ... end}: one after the other. A layer's key is its `name`, else its
--- position, so paths read encoder.conv1.weight or encoder.1.weight.
local check = require "marea.check"
local module = require "marea.nn.module"

---@class Sequential
---@example net = nn.Sequential{nn.Linear{8, 16, activation = "relu", name = "hidden"}, nn.Linear{16, 2}}
---@example net(marea.normal{4, 8})
local Sequential = module.class("Sequential")

function Sequential:init(options)
  options = check.options("Sequential", options, {"name"}, math.maxinteger)
  self.name = options.name
  self._order = {}
  for i, layer in ipairs(options) do
    local is_module = module.is_module(layer)
    if not is_module and type(layer) ~= "function" then
      check.fail("Sequential", tostring(i), "a module or a function", layer)
    end
    local key = is_module and layer.name or i
    if self[key] ~= nil then check.raise("Sequential: the name '%s' of layer %d is taken", key, i) end
    self[key] = layer
    self._order[i] = key
  end
end

function Sequential:forward(x)
  for _, key in ipairs(self._order) do x = self[key](x) end
  return x
end

function Sequential:parts() return self._order end

return Sequential
