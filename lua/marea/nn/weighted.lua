-- SPDX-License-Identifier: MIT
--- What layers with a weight and a bias have in common: {in, out} or {out} in front, init, bias, activation, name.
--- A layer whose input size was left out makes its parameters at its first call.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local init = require "marea.nn.initializers"
local activation_argument = require "marea.nn.activation_argument"

local Weighted = module.class("Weighted")

Weighted.arguments = {"activation", "slope", "bias", "init", "bias_init", "dtype", "name"}

--- Reads the arguments that all such layers take. The layer defines weight_shape(inputs) -> shape, fan_in, fan_out.
---@param what string the layer's class, for messages
function Weighted:read(what, options, names)
  local all = table.move(names, 1, #names, #Weighted.arguments + 1, table.move(Weighted.arguments, 1,
    #Weighted.arguments, 1, {}))
  options = check.options(what, options, all, 2)
  local inputs, outputs = options[1], options[2]
  if outputs == nil then inputs, outputs = nil, inputs end
  self.name = options.name
  self.outputs = check.integer(what, "out", outputs, 1)
  self.inputs = inputs and check.integer(what, "in", inputs, 1)
  self.has_bias = check.boolean(what, "bias", options.bias, true)
  if not self.has_bias then check.idle(what, options, {"bias_init"}, "with bias = false") end
  self.dtype = options.dtype or "f32"
  self._init = init.find(what, "init", options.init or "glorot_uniform")
  self._bias_init = init.find(what, "bias_init", options.bias_init or "zeros")
  self.activation = options.activation or "none"
  self.attributes, self._after = activation_argument.read(what, options)
  return options
end

--- Makes weight and bias for this number of inputs.
function Weighted:materialize(inputs)
  core.no_grad(function()
    local shape, fan_in, fan_out = self:weight_shape(inputs)
    local weight = module.parameter(self._init(core.shape(shape), fan_in, fan_out, self.dtype))
    if self.has_bias then
      self.bias = module.parameter(self._bias_init(core.shape{self.outputs}, fan_in, fan_out, self.dtype))
    end
    self.inputs = inputs
    self.weight = weight -- set last: forward takes a layer with a weight as complete
  end)
end

--- For forward: makes the parameters from the last dimension of x, which must have `rank` dimensions if given.
function Weighted:infer(x, rank, expected)
  local what = getmetatable(self).__name
  check.tensor(what, "x", x)
  if x.rank == 0 or (rank and x.rank ~= rank) then check.fail(what, "x", expected, x) end
  module.materialize(self, x:size(-1))
end

function Weighted:sizes()
  return ("%s -> %d"):format(self.inputs or "?", self.outputs)
end

function Weighted:describe_tail()
  local text = self.has_bias and "" or ", no bias"
  if self.activation == "none" then return text end
  return ("%s, %s"):format(text, type(self.activation) == "string" and self.activation or "function")
end

return Weighted
