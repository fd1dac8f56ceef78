-- SPDX-License-Identifier: MIT
--- The distribution whose cdf is sigmoid((x - loc) / scale), elementwise.
local core = require "marea.core"
local distribution = require "marea.dist.distribution"
local ops, log = core.ops, distribution.log

---@class Logistic: Distribution
---@field loc userdata|number mean and median
---@field scale userdata|number > 0
---@field mean userdata|number
---@field variance userdata|number
---@example dist.Logistic{loc = 0, scale = 1}:sample{5}
local Logistic = distribution.class("Logistic", {
  names = {"loc", "scale"},
  ranges = {scale = {above = 0}},
  properties = {
    mean = function(self) return self.loc end,
    variance = function(self) return math.pi ^ 2 / 3 * self.scale * self.scale end,
  },
})

--- loc + scale * noise: a sample that gradients flow through.
---@param shape? integer[] how many, as dimensions in front of the parameters' shape
function Logistic:rsample(shape)
  return self.loc + self:noise(ops.logistic, shape) * self.scale
end

--- Log of the density at x, elementwise: -z - 2 log(1 + exp(-z)) - log scale, z = (x - loc) / scale.
function Logistic:log_prob(x)
  local z = (distribution.tensor(self, "log_prob", "x", x) - self.loc) / self.scale
  local density = distribution.log_inside(ops.eq(z, -math.huge), z, 0, function(v) return -v - 2 * ops.softplus(-v) end)
  return density - log(self.scale)
end

--- 2 + log scale, elementwise.
function Logistic:entropy()
  return 2 + log(self.scale)
end

--- Probability of a value up to x.
function Logistic:cdf(x)
  return ops.sigmoid((distribution.tensor(self, "cdf", "x", x) - self.loc) / self.scale)
end

--- The value that a share p of the values lies below, 0 <= p <= 1.
function Logistic:icdf(p)
  p = distribution.tensor(self, "icdf", "p", p)
  return self.loc + (ops.log(p) - ops.log1p(-p)) * self.scale
end

return Logistic
