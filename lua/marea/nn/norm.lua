-- SPDX-License-Identifier: MIT
--- Normalization, channels last. All take their number of channels from the first x when it is left out.
---
---   nn.BatchNorm{64, momentum = 0.99, eps = 1e-3, activation = "relu", name = "norm1"}
---   nn.LayerNorm{512}      nn.GroupNorm{64, groups = 8}
---
--- center = false: without bias; scale = false: without weight. activation, slope, dtype, name as elsewhere.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local activation_argument = require "marea.nn.activation_argument"
local attempt = require "marea.internal.attempt"
local ops = core.ops
local format = core.format

local ARGUMENTS = {"eps", "center", "scale", "dtype", "name"}

--- What the three layers have in common; `shape` is that of weight and bias.
local Norm = module.class "Norm"

function Norm:read(what, options, eps, names)
  local all = table.move(names, 1, #names, #ARGUMENTS + 1, table.move(ARGUMENTS, 1, #ARGUMENTS, 1, {}))
  options = check.options(what, options, all, 1)
  self.name = options.name
  self.center = check.boolean(what, "center", options.center, true)
  self.scale = check.boolean(what, "scale", options.scale, true)
  self.dtype = options.dtype or "f32"
  self.attributes = {eps = check.number(what, "eps", options.eps or eps, 0)}
  return options
end

--- Makes weight (ones) if `scale` is set, and bias (zeros) if `center` is set.
function Norm:materialize(shape)
  if self.scale then self.weight = module.parameter(ops.full(shape, 1, self.dtype)) end
  if self.center then self.bias = module.parameter(ops.full(shape, 0, self.dtype)) end
  self.shape = shape -- set last: infer takes a layer with a shape as complete
end

--- For forward: makes the parameters at the first call, from the channels of x.
function Norm:infer(x, least)
  if self.shape then return end
  local what = getmetatable(self).__name
  check.tensor(what, "x", x)
  if x.rank < least then check.fail(what, "x", least == 1 and "a tensor (..., C)" or "a tensor (N, ..., C)", x) end
  module.materialize(self, {x:size(-1)})
end

function Norm:describe()
  local sizes = self.shape and check.size_text(self.shape) or "?"
  if not self.attributes.eps then return sizes end
  return format("%s, eps %g", sizes, self.attributes.eps)
end

---@class BatchNorm  by the mean and variance of each channel, over all other dimensions of the batch (Ioffe and Szegedy
--- 2015), as in Keras: in training by the batch's own, variance divided by n, while running_mean and running_var move:
--- running = momentum * running + (1 - momentum) * batch, with the variance divided by n - 1 as in Keras' fused form;
--- in evaluation, and when frozen, by these.
---@example nn.BatchNorm{3}(marea.normal{8, 3})
local BatchNorm = module.class("BatchNorm", Norm)

function BatchNorm:init(options)
  options = self:read("BatchNorm", options, 1e-3, {"momentum", "activation", "slope"})
  self.momentum = check.number("BatchNorm", "momentum", options.momentum or 0.99, 0, 1)
  self.activation = options.activation or "none"
  local attributes, after = activation_argument.read("BatchNorm", options)
  self.attributes.activation, self.attributes.slope, self._after = attributes.activation, attributes.slope, after
  if options[1] then self:materialize{check.integer("BatchNorm", "channels", options[1], 1)} end
end

function BatchNorm:materialize(shape)
  self:buffer("running_mean", ops.full(shape, 0, self.dtype))
  self:buffer("running_var", ops.full(shape, 1, self.dtype))
  Norm.materialize(self, shape)
end

--- running := momentum * running + (1 - momentum) * batch. n: values behind each mean.
local function move(self, mean, variance, n)
  attempt.note(self.running_mean)
  attempt.note(self.running_var)
  local part, dtype = 1 - self.momentum, self.dtype
  self.running_mean:mul_(self.momentum):add_((mean * part):to(dtype))
  self.running_var:mul_(self.momentum):add_((variance * (part * n / math.max(n - 1, 1))):to(dtype))
end

function BatchNorm:normalize(x)
  if not self.training or self.frozen then
    return ops.batch_norm_eval(x, self.running_mean, self.running_var, self.weight, self.bias, self.attributes)
  end
  local y, mean, variance = ops.batch_norm(x, self.weight, self.bias, self.attributes)
  core.shield(nil, move, self, mean:detach(), variance:detach(), x:numel() // x:size(-1))
  return y
end

function BatchNorm:forward(x)
  self:infer(x, 2)
  local y = self:normalize(x)
  if self._after then return self._after(y) end
  return y
end

function BatchNorm:describe()
  local act = self.activation
  if act == "none" then return Norm.describe(self) end
  return ("%s, %s"):format(Norm.describe(self), type(act) == "string" and act or "function")
end

---@class LayerNorm  each example by itself, over the last dimension, or the last ones: nn.LayerNorm{{28, 28, 3}}
--- (Ba, Kiros, Hinton 2016)
---@example nn.LayerNorm{6}(marea.normal{2, 6})
local LayerNorm = module.class("LayerNorm", Norm)

function LayerNorm:init(options)
  options = self:read("LayerNorm", options, 1e-5, {})
  self:read_shape("LayerNorm", options[1])
end

--- Makes the parameters if the shape is given, a size or a list of sizes.
function LayerNorm:read_shape(what, shape)
  if shape == nil then return end
  if type(shape) ~= "table" then shape = {shape} end
  check.items(what, "shape", shape, "a size or a list of sizes", 1)
  local sizes = {}
  for i, size in ipairs(shape) do sizes[i] = check.integer(what, "shape", size, 1) end
  self:materialize(sizes)
end

function LayerNorm:forward(x)
  self:infer(x, 1)
  self.attributes.last = #self.shape
  return ops.layer_norm(x, self.weight, self.bias, self.attributes)
end

---@class RMSNorm  each example by its root mean square, over the last dimension, or the last ones, without a bias
--- (Zhang and Sennrich 2019). eps left out: the rounding unit of the dtype, 1.19e-7 for f32, as in PyTorch;
--- elementwise_affine = false, or scale = false: without weight
---@example nn.RMSNorm{6}(marea.normal{2, 6})
local RMSNorm = module.class("RMSNorm", LayerNorm)

function RMSNorm:init(options)
  options = check.options("RMSNorm", options, {"eps", "scale", "elementwise_affine", "dtype", "name"}, 1)
  self.name = options.name
  self.scale = check.boolean("RMSNorm", "scale", options.scale, true)
    and check.boolean("RMSNorm", "elementwise_affine", options.elementwise_affine, true)
  self.dtype = options.dtype or "f32"
  self.attributes = {eps = options.eps and check.number("RMSNorm", "eps", options.eps, 0)}
  self:read_shape("RMSNorm", options[1])
end

function RMSNorm:forward(x)
  self:infer(x, 1)
  self.attributes.last = #self.shape
  return ops.rms_norm(x, self.weight, self.attributes)
end

---@class GroupNorm  each example by itself, in `groups` equal cuts of its channels; groups = 1: the whole example,
--- groups = channels: instance normalization (Wu and He 2018)
---@example nn.GroupNorm{8, groups = 2}(marea.normal{2, 4, 4, 8})
local GroupNorm = module.class("GroupNorm", Norm)

function GroupNorm:init(options)
  options = self:read("GroupNorm", options, 1e-5, {"groups"})
  self.attributes.groups = check.integer("GroupNorm", "groups", options.groups, 1)
  if options[1] then self:materialize{check.integer("GroupNorm", "channels", options[1], 1)} end
end

function GroupNorm:materialize(shape)
  local groups = self.attributes.groups
  if shape[1] % groups ~= 0 then
    check.raise("GroupNorm: groups = %d must divide the channels, %d", groups, shape[1])
  end
  Norm.materialize(self, shape)
end

function GroupNorm:forward(x)
  self:infer(x, 2)
  return ops.group_norm(x, self.weight, self.bias, self.attributes)
end

function GroupNorm:describe()
  return ("%s, groups %d"):format(Norm.describe(self), self.attributes.groups)
end

return {BatchNorm = BatchNorm, LayerNorm = LayerNorm, RMSNorm = RMSNorm, GroupNorm = GroupNorm}
