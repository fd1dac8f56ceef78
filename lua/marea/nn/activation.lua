-- SPDX-License-Identifier: MIT
--- Activations: as layers (nn.ReLU{}), and as the `activation` argument of layers with weights, where the common
--- ones are part of the layer's own operator.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local ops = core.ops
local format = core.format

local activation = {}

local fused = {relu = true, leaky_relu = true, elu = true, sigmoid = true, tanh = true, softplus = true}

local separate = {gelu = ops.gelu, silu = ops.silu, softmax = ops.softmax, log_softmax = ops.log_softmax}

local choices = {none = true}
for name in pairs(fused) do choices[name] = true end
for name in pairs(separate) do choices[name] = true end

--- The names that the `activation` argument takes.
---@return string[]
function activation.names() return check.names(choices) end

--- Attributes for the layer's operator and, when it cannot do the activation itself, the function to call after it.
---@return table attributes, function|nil after
function activation.read(what, options)
  local attributes, chosen = {}, options.activation
  if type(chosen) == "function" then return attributes, chosen end
  if chosen == nil or chosen == "none" then return attributes, nil end
  check.choice(what, "activation", chosen, choices)
  if separate[chosen] then return attributes, separate[chosen] end
  attributes.activation = chosen
  attributes.slope = options.slope and check.number(what, "slope", options.slope, 0)
  return attributes, nil
end

--- A layer for an operator of one input. `argument`, if any, is its number: nn.LeakyReLU{0.2} or {slope = 0.2}.
local function layer(class_name, name, argument)
  local class, operator = module.class(class_name), ops[name]
  class.operator = name
  local names = argument and {argument, "name"} or {"name"}
  function class:init(options)
    options = check.options(class_name, options, names, argument and 1 or 0)
    self.name = options.name
    local value = argument and (options[argument] or options[1])
    self.attributes = value and {[argument] = value} or nil
  end
  function class:forward(x)
    if self.attributes then return operator(x, self.attributes) end
    return operator(x)
  end
  function class:describe()
    return self.attributes and format("%s %g", argument, self.attributes[argument]) or ""
  end
  activation[class_name] = class
end

layer("ReLU", "relu")
layer("LeakyReLU", "leaky_relu", "slope")
layer("ELU", "elu", "alpha")
layer("Sigmoid", "sigmoid")
layer("Tanh", "tanh")
layer("Softplus", "softplus")
layer("GELU", "gelu")
layer("SiLU", "silu")
layer("Softmax", "softmax", "dim")
layer("LogSoftmax", "log_softmax", "dim")

return activation
