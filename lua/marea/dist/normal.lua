-- SPDX-License-Identifier: MIT
--- N(mean, std^2), elementwise.
local core = require "marea.core"
local distribution = require "marea.dist.distribution"
local ops, log, square = core.ops, distribution.log, distribution.square

local LOG_2PI = math.log(2 * math.pi)
---@class Normal: Distribution
---@field mean userdata|number
---@field std userdata|number > 0
---@field variance userdata|number
---@example dist.Normal{mean = 0, std = 1}:sample{5}
local Normal = distribution.class("Normal", {
  names = {"mean", "std"},
  ranges = {std = {above = 0}},
  properties = {variance = function(self) return square(self.std) end},
})

--- mean + std * eps: a sample that gradients flow through (Kingma and Welling 2014).
---@param shape? integer[] how many, as dimensions in front of the parameters' shape
function Normal:rsample(shape)
  return self.mean + self:noise(ops.normal, shape) * self.std
end

--- Log of the density at x, elementwise.
function Normal:log_prob(x)
  x = distribution.value(self, "log_prob", "x", x)
  return -0.5 * square((x - self.mean) / self.std) - log(self.std) - 0.5 * LOG_2PI
end

--- 0.5 log(2 pi e std^2), elementwise.
function Normal:entropy()
  return log(self.std) + 0.5 * (1 + LOG_2PI)
end

--- Probability of a value up to x.
function Normal:cdf(x)
  local z = (distribution.tensor(self, "cdf", "x", x) - self.mean) / self.std
  return 0.5 * (1 + ops.erf(z / math.sqrt(2)))
end

--- The value that a share p of the values lies below, 0 <= p <= 1.
function Normal:icdf(p)
  return self.mean + ops.norm_icdf(distribution.tensor(self, "icdf", "p", p)) * self.std
end

return Normal
