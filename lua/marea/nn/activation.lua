-- SPDX-License-Identifier: MIT
--- Activations as layers: nn.ReLU{}.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local ops = core.ops
local format = core.format

local layers = {}

--- Defines a layer that applies an operator of one input. `argument` names the operator's number, if it has one:
--- nn.LeakyReLU{0.2} or {slope = 0.2}.
local function layer(class_name, name, argument)
  local class, operator = module.class(class_name), ops[name]
  class.operator = name
  local names = argument and {argument, "name"} or {"name"}
  function class:init(options)
    options = check.options(class_name, options, names, argument and 1 or 0)
    self.name = options.name
    local value = argument and check.first(class_name, argument, options)
    self.attributes = value and {[argument] = value} or nil
  end
  function class:forward(x)
    if self.attributes then return operator(x, self.attributes) end
    return operator(x)
  end
  function class:describe()
    return self.attributes and format("%s %g", argument, self.attributes[argument]) or ""
  end
  layers[class_name] = class
end

layer("ReLU", "relu")
layer("ReLU6", "relu6")
layer("LeakyReLU", "leaky_relu", "slope")
layer("ELU", "elu", "alpha")
layer("Sigmoid", "sigmoid")
layer("Tanh", "tanh")
layer("Softplus", "softplus")
layer("GELU", "gelu")
layer("SiLU", "silu")
layer("HardSwish", "hard_swish")
layer("Softmax", "softmax", "dim")
layer("LogSoftmax", "log_softmax", "dim")

return layers
