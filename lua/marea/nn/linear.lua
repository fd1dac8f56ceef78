-- SPDX-License-Identifier: MIT
--- nn.Linear{784, 128, activation = "relu"}: y = activation(x W + b), x (..., in), W (in, out), b (out).
local core = require "marea.core"
local module = require "marea.nn.module"
local Weighted = require "marea.nn.weighted"
local linear, linear_int8 = core.ops.linear, core.ops.linear_int8

---@class Linear
---@example nn.Linear{8, 2, activation = "tanh"}(marea.normal{4, 8})
local Linear = module.class("Linear", Weighted)

--- {in, out} or {out}, the input size then coming from the first x; activation, slope, bias = true,
--- init = "glorot_uniform", bias_init = "zeros", dtype = "f32", name.
function Linear:init(options)
  self:read("Linear", options, {})
  if self.inputs then self:materialize(self.inputs) end
end

function Linear:weight_shape(inputs)
  return {inputs, self.outputs}, inputs, self.outputs
end

function Linear:forward(x)
  if not self.weight then self:infer(x, nil, "a tensor (..., in)") end
  local y
  if self._bytes then y = linear_int8(x, self.weight, self.scale, self.bias, self._bytes)
  else y = linear(x, self.weight, self.bias, self.attributes) end
  if self._after then return self._after(y) end
  return y
end

--- The weight becomes bytes, as nn/quantize.lua says.
function Linear:to_bytes(quantize)
  if self.inputs > 65536 then return false end -- sums would not fit
  self._bytes = {inputs = self.inputs, activation = self.attributes.activation, slope = self.attributes.slope}
  quantize.weight(self, "weight", "scale")
  if self.bias then self:buffer("bias", self.bias) end
end

function Linear:flops(_, y) return 2 * self.inputs * y:numel() end

function Linear:describe() return self:sizes() .. (self._bytes and ", int8" or "") .. self:describe_tail() end

return {Linear = Linear}
