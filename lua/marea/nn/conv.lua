-- SPDX-License-Identifier: MIT
--- Convolutions over images (N, H, W, C) and sequences (N, T, C), channels last.
---
---   nn.Conv2d{1, 32, kernel = 3, stride = 2, padding = "same", activation = "relu", name = "conv1"}
---   nn.Conv1d{12, 32, kernel = 5, padding = "same"}
---
--- {in, out} or {out}, the input channels then coming from the first x. Further arguments: kernel (required), stride,
--- dilation: an integer or {height, width}; padding: an integer, {h, w}, {top, bottom, left, right}, "same" or
--- "valid". Of sequences sizes are integers, and padding may be {left, right}. groups; algorithm ("auto", or "direct"
--- for exact windows); activation, slope; bias = true; init = "glorot_uniform"; bias_init = "zeros"; dtype; name.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local Weighted = require "marea.nn.weighted"
local ops = core.ops

local ALGORITHMS = {auto = true, direct = true}
local PADDINGS = {same = "same", valid = "valid"}

--- The sizes of a class' kernel, {height, width} or {length}.
local function read_sizes(self, what, name, value)
  if self.rank == 4 then return check.pair(what, name, value, 1) end
  return {check.integer(what, name, value, 1)}
end

local function read_convolution(self, what, options, names)
  options = self:read(what, options, names)
  self.kernel = read_sizes(self, what, "kernel", options.kernel)
  for _, name in ipairs{"stride", "padding", "dilation", "groups", "output_padding", "algorithm"} do
    self.attributes[name] = options[name]
  end
  if options.algorithm ~= nil then check.choice(what, "algorithm", options.algorithm, ALGORITHMS) end
  for _, name in ipairs{"stride", "dilation"} do
    if options[name] ~= nil then read_sizes(self, what, name, options[name]) end
  end
  if type(options.padding) == "string" then check.choice(what, "padding", options.padding, PADDINGS) end
  self.groups = check.integer(what, "groups", options.groups or 1, 1)
  if self.outputs % self.groups ~= 0 or (self.inputs and self.inputs % self.groups ~= 0) then
    check.raise("%s: groups = %d must divide the channels, %s", what, self.groups, self:sizes())
  end
  if self.inputs then self:materialize(self.inputs) end
end

--- The number of places in the kernel.
local function taps(self) return self.kernel[1] * (self.kernel[2] or 1) end

--- The weight's shape: the kernel's, and these channels.
local function shape_of(self, ...)
  local shape = {table.unpack(self.kernel)}
  for _, channels in ipairs{...} do shape[#shape + 1] = channels end
  return shape
end

local function forward(self, x)
  if not self.weight then self:infer(x, self.rank, self.takes) end
  local y
  if self._bytes then y = ops.conv2d_int8(x, self.weight, self.scale, self.bias, self._bytes)
  else y = ops[self.computes](x, self.weight, self.bias, self.attributes) end
  if self._after then return self._after(y) end
  return y
end

local function describe(self)
  local text = ("%s, kernel %s"):format(self:sizes(), check.size_text(self.kernel))
  for _, name in ipairs{"stride", "padding", "dilation", "groups", "output_padding", "algorithm"} do
    local value = self.attributes[name]
    if value then text = ("%s, %s %s"):format(text, name, check.size_text(value)) end
  end
  return text .. (self._bytes and ", int8" or "") .. self:describe_tail()
end

---@class Conv2d  weight (KH, KW, in / groups, out); out size floor((in + pads - dilation (k-1) - 1) / stride) + 1
---@example x = marea.normal{1, 8, 8, 1}
---@example nn.Conv2d{1, 4, kernel = 3, stride = 2, padding = "same", activation = "relu"}(x)
local Conv2d = module.class("Conv2d", Weighted)
Conv2d.computes, Conv2d.rank, Conv2d.takes = "conv2d", 4, "images (N, H, W, C)"
Conv2d.convolves = true -- for nn/quantize.lua

function Conv2d:init(options)
  read_convolution(self, getmetatable(self).__name, options,
    {"kernel", "stride", "padding", "dilation", "groups", "algorithm"})
end

function Conv2d:weight_shape(inputs)
  local n = taps(self)
  local shape = shape_of(self, inputs // self.groups, self.outputs)
  return shape, 1.0 * n * inputs // self.groups, 1.0 * n * self.outputs
end

function Conv2d:flops(_, y)
  return 2 * y:numel() * taps(self) * self.inputs // self.groups
end

--- The weight becomes bytes, as nn/quantize.lua says, but for groups and few channels.
function Conv2d:to_bytes(quantize)
  if self.groups > 1 or taps(self) * self.inputs > 65536 or self.inputs < 16 or self.outputs < 16 then return false end
  local a = self.attributes
  self._bytes = {inputs = self.inputs, kernel = self.kernel, stride = a.stride, padding = a.padding,
    dilation = a.dilation, activation = a.activation, slope = a.slope}
  quantize.weight(self, "weight", "scale")
  if self.bias then self:buffer("bias", self.bias) end
end

Conv2d.forward, Conv2d.describe = forward, describe

---@class ConvTranspose2d  weight (KH, KW, out / groups, in); "same": out size = in * stride. The gradient of Conv2d.
---@example x = marea.normal{1, 4, 4, 8}
---@example nn.ConvTranspose2d{8, 1, kernel = 3, stride = 2, padding = "same"}(x)
local ConvTranspose2d = module.class("ConvTranspose2d", Weighted)
ConvTranspose2d.computes, ConvTranspose2d.rank, ConvTranspose2d.takes = "conv_transpose2d", 4, Conv2d.takes

function ConvTranspose2d:init(options)
  read_convolution(self, getmetatable(self).__name, options,
    {"kernel", "stride", "padding", "dilation", "groups", "output_padding", "algorithm"})
end

function ConvTranspose2d:weight_shape(inputs)
  local n = taps(self)
  return shape_of(self, self.outputs // self.groups, inputs), n * inputs, n * self.outputs // self.groups
end

function ConvTranspose2d:flops(x)
  return 2 * x:numel() * taps(self) * self.outputs // self.groups
end

ConvTranspose2d.forward, ConvTranspose2d.describe = forward, describe

---@class Conv1d  weight (K, in / groups, out); out length floor((T + pads - dilation (k-1) - 1) / stride) + 1
---@example x = marea.normal{2, 16, 3}
---@example nn.Conv1d{3, 4, kernel = 5, padding = "same", activation = "relu"}(x)
local Conv1d = module.class("Conv1d", Conv2d)
Conv1d.computes, Conv1d.rank, Conv1d.takes = "conv1d", 3, "sequences (N, T, C)"

function Conv1d:init(options) Conv2d.init(self, options) end

---@class ConvTranspose1d  weight (K, out / groups, in); "same": out length = T * stride. The gradient of Conv1d.
---@example x = marea.normal{2, 8, 4}
---@example nn.ConvTranspose1d{4, 3, kernel = 3, stride = 2, padding = "same"}(x)
local ConvTranspose1d = module.class("ConvTranspose1d", ConvTranspose2d)
ConvTranspose1d.computes, ConvTranspose1d.rank, ConvTranspose1d.takes = "conv_transpose1d", 3, Conv1d.takes

function ConvTranspose1d:init(options) ConvTranspose2d.init(self, options) end

return {Conv2d = Conv2d, ConvTranspose2d = ConvTranspose2d, Conv1d = Conv1d, ConvTranspose1d = ConvTranspose1d}
