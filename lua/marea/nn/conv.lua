-- SPDX-License-Identifier: MIT
--- Convolutions over images (N, H, W, C), channels last.
---
---   nn.Conv2d{1, 32, kernel = 3, stride = 2, padding = "same", activation = "relu", name = "conv1"}
---
--- {in, out} or {out}, the input channels then coming from the first x. Further arguments: kernel (required), stride,
--- dilation: an integer or {height, width}; padding: an integer, {h, w}, {top, bottom, left, right}, "same" or
--- "valid"; groups; algorithm ("auto", or "direct" for exact windows); activation, slope;
--- bias = true; init = "glorot_uniform"; bias_init = "zeros"; dtype; name.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local Weighted = require "marea.nn.weighted"
local ops = core.ops

local ALGORITHMS = {auto = true, direct = true}
local PADDINGS = {same = "same", valid = "valid"}
local IMAGES = "images (N, H, W, C)"

local function read_convolution(self, what, options, names)
  options = self:read(what, options, names)
  self.kernel = check.pair(what, "kernel", options.kernel, 1)
  for _, name in ipairs{"stride", "padding", "dilation", "groups", "output_padding", "algorithm"} do
    self.attributes[name] = options[name]
  end
  if options.algorithm ~= nil then check.choice(what, "algorithm", options.algorithm, ALGORITHMS) end
  for _, name in ipairs{"stride", "dilation"} do
    if options[name] ~= nil then check.pair(what, name, options[name], 1) end
  end
  if type(options.padding) == "string" then check.choice(what, "padding", options.padding, PADDINGS) end
  self.groups = check.integer(what, "groups", options.groups or 1, 1)
  if self.outputs % self.groups ~= 0 or (self.inputs and self.inputs % self.groups ~= 0) then
    check.raise("%s: groups = %d must divide the channels, %s", what, self.groups, self:sizes())
  end
  if self.inputs then self:materialize(self.inputs) end
end

local function describe(self)
  local text = ("%s, kernel %s"):format(self:sizes(), check.size_text(self.kernel))
  for _, name in ipairs{"stride", "padding", "dilation", "groups", "output_padding", "algorithm"} do
    local value = self.attributes[name]
    if value then text = ("%s, %s %s"):format(text, name, check.size_text(value)) end
  end
  return text .. self:describe_tail()
end

---@class Conv2d  weight (KH, KW, in / groups, out); out size floor((in + pads - dilation (k-1) - 1) / stride) + 1
---@example x = marea.normal{1, 8, 8, 1}
---@example nn.Conv2d{1, 4, kernel = 3, stride = 2, padding = "same", activation = "relu"}(x)
local Conv2d = module.class("Conv2d", Weighted)

function Conv2d:init(options)
  read_convolution(self, "Conv2d", options, {"kernel", "stride", "padding", "dilation", "groups", "algorithm"})
end

function Conv2d:weight_shape(inputs)
  local h, w = self.kernel[1], self.kernel[2]
  return {h, w, inputs // self.groups, self.outputs}, 1.0 * h * w * inputs // self.groups, 1.0 * h * w * self.outputs
end

function Conv2d:forward(x)
  if not self.weight then self:infer(x, 4, IMAGES) end
  local y = ops.conv2d(x, self.weight, self.bias, self.attributes)
  if self._after then return self._after(y) end
  return y
end

function Conv2d:flops(_, y)
  return 2 * y:numel() * self.kernel[1] * self.kernel[2] * self.inputs // self.groups
end

Conv2d.describe = describe

---@class ConvTranspose2d  weight (KH, KW, out / groups, in); "same": out size = in * stride. The gradient of Conv2d.
---@example x = marea.normal{1, 4, 4, 8}
---@example nn.ConvTranspose2d{8, 1, kernel = 3, stride = 2, padding = "same"}(x)
local ConvTranspose2d = module.class("ConvTranspose2d", Weighted)

function ConvTranspose2d:init(options)
  read_convolution(self, "ConvTranspose2d", options,
    {"kernel", "stride", "padding", "dilation", "groups", "output_padding", "algorithm"})
end

function ConvTranspose2d:weight_shape(inputs)
  local h, w = self.kernel[1], self.kernel[2]
  return {h, w, self.outputs // self.groups, inputs}, h * w * inputs, h * w * self.outputs // self.groups
end

function ConvTranspose2d:forward(x)
  if not self.weight then self:infer(x, 4, IMAGES) end
  local y = ops.conv_transpose2d(x, self.weight, self.bias, self.attributes)
  if self._after then return self._after(y) end
  return y
end

function ConvTranspose2d:flops(x)
  return 2 * x:numel() * self.kernel[1] * self.kernel[2] * self.outputs // self.groups
end

ConvTranspose2d.describe = describe

return {Conv2d = Conv2d, ConvTranspose2d = ConvTranspose2d}
