-- SPDX-License-Identifier: MIT
--- Density 1 / (high - low) from low to high, elementwise.
local core = require "marea.core"
local check = require "marea.internal.check"
local distribution = require "marea.dist.distribution"
local ops, log = core.ops, distribution.log
local format = core.format

local NAMES = {"low", "high"}
local broadcasting = distribution.broadcasting("Uniform", NAMES)

local function setup(self, given)
  broadcasting(self, given)
  local low, high = self.low, self.high
  if type(low) == "number" and type(high) == "number" and low >= high then
    check.fail("Uniform", "high", format("a number greater than low = %g", low), high)
  end
end

---@class Uniform: Distribution
---@field low userdata|number
---@field high userdata|number > low
---@field mean userdata|number
---@field variance userdata|number
---@example dist.Uniform{low = 0, high = 1}:sample{5}
local Uniform = distribution.class("Uniform", {
  names = NAMES,
  setup = setup,
  properties = {
    mean = function(self) return 0.5 * (self.low + self.high) end,
    variance = function(self) return distribution.square(self.high - self.low) / 12 end,
  },
})

--- low + (high - low) * u: a sample from [low, high) that gradients flow through. A value that rounds up to `high`
--- becomes `low`: the interval that rounds to `low` is half as long as that of other numbers, and the one of `high` is
--- its other half, so that all numbers are equally likely.
---@param shape? integer[] how many, as dimensions in front of the parameters' shape
function Uniform:rsample(shape)
  local x = self.low + self:noise(ops.uniform, shape) * (self.high - self.low)
  return ops.where(ops.lt(x, self.high), x, self.low)
end

--- Log of the density at x, elementwise; -infinity outside, low and high being inside.
function Uniform:log_prob(x)
  x = distribution.tensor(self, "log_prob", "x", x)
  local outside = distribution.either(ops.lt(x, self.low), ops.gt(x, self.high))
  local density = -log(self.high - self.low)
  if type(density) == "number" then density = ops.full({}, density, x.dtype) end
  return ops.where(outside, -math.huge, ops.where(ops.eq(x, x), density, 0 / 0))
end

--- log(high - low), elementwise.
function Uniform:entropy()
  return log(self.high - self.low)
end

--- Probability of a value up to x.
function Uniform:cdf(x)
  local share = (distribution.tensor(self, "cdf", "x", x) - self.low) / (self.high - self.low)
  return ops.clamp(share, {min = 0, max = 1})
end

--- The value that a share p of the values lies below, 0 <= p <= 1; else NaN.
function Uniform:icdf(p)
  p = distribution.tensor(self, "icdf", "p", p)
  local x = self.low + p * (self.high - self.low)
  return ops.where(ops.mul(ops.ge(p, 0), ops.le(p, 1)), x, 0 / 0)
end

return Uniform
