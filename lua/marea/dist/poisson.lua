-- SPDX-License-Identifier: MIT
--- The number of events that come at a rate: k with probability exp(-rate) rate^k / k!, elementwise.
local core = require "marea.core"
local distribution = require "marea.dist.distribution"
local ops = core.ops

---@class Poisson: Distribution
---@field rate userdata|number >= 0
---@field mean userdata|number
---@field variance userdata|number
---@example dist.Poisson{rate = 3}:sample{5}
local Poisson = distribution.class("Poisson", {
  names = {"rate"},
  ranges = {rate = {low = 0}},
  properties = {
    mean = function(self) return self.rate end,
    variance = function(self) return self.rate end,
  },
})

--- Counts, as reals.
---@param shape? integer[] how many, as dimensions in front of the parameters' shape
function Poisson:sample(shape)
  return core.no_grad(function()
    local rate = distribution.tensor(self, "sample", "rate", self.rate)
    return ops.poisson(rate:expand(distribution.sample_shape(self, "sample", shape)))
  end)
end

--- x log rate - rate - log x!, elementwise, for counts x; -infinity for x < 0 and at infinity. Numbers between counts
--- are not refused: the formula holds for them too, with the gamma function for x!.
---@param x userdata|number
function Poisson:log_prob(x)
  x = distribution.tensor(self, "log_prob", "x", x)
  local rate = distribution.tensor(self, "log_prob", "rate", self.rate, x)
  local outside = distribution.either(ops.lt(x, 0), ops.eq(x, math.huge))
  return distribution.log_inside(outside, x, 0, function(k)
    return distribution.weigh(k, rate, 0, ops.log) - rate - ops.lgamma(k + 1)
  end)
end

return Poisson
