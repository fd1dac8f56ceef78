-- SPDX-License-Identifier: MIT
--- Density exp(-|x - loc| / scale) / (2 scale), elementwise.
local core = require "marea.core"
local distribution = require "marea.dist.distribution"
local ops, log = core.ops, distribution.log

---@class Laplace: Distribution
---@field loc userdata|number mean and median
---@field scale userdata|number > 0
---@field mean userdata|number
---@field variance userdata|number
---@example dist.Laplace{loc = 0, scale = 1}:sample{5}
local Laplace = distribution.class("Laplace", {
  names = {"loc", "scale"},
  ranges = {scale = {above = 0}},
  properties = {
    mean = function(self) return self.loc end,
    variance = function(self) return 2 * self.scale * self.scale end,
  },
})

--- loc + scale * noise: a sample that gradients flow through.
---@param shape? integer[] how many, as dimensions in front of the parameters' shape
function Laplace:rsample(shape)
  return self.loc + self:noise(ops.laplace, shape) * self.scale
end

--- Log of the density at x, elementwise.
function Laplace:log_prob(x)
  x = distribution.value(self, "log_prob", "x", x)
  return -distribution.abs(x - self.loc) / self.scale - log(2 * self.scale)
end

--- 1 + log(2 scale), elementwise.
function Laplace:entropy()
  return 1 + log(2 * self.scale)
end

--- Probability of a value up to x. Each side is computed from its own tail.
function Laplace:cdf(x)
  local z = (distribution.tensor(self, "cdf", "x", x) - self.loc) / self.scale
  local below, above = ops.exp(ops.clamp(z, {max = 0})), ops.exp(-ops.clamp(z, {min = 0}))
  return ops.where(ops.lt(z, 0), 0.5 * below, 1 - 0.5 * above)
end

--- The value that a share p of the values lies below, 0 <= p <= 1.
function Laplace:icdf(p)
  p = distribution.tensor(self, "icdf", "p", p)
  local below, above = ops.log(2 * ops.clamp(p, {max = 0.5})), -ops.log(2 * ops.clamp(1 - p, {max = 0.5}))
  return self.loc + ops.where(ops.lt(p, 0.5), below, above) * self.scale
end

return Laplace
