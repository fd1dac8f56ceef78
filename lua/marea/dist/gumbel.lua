-- SPDX-License-Identifier: MIT
--- The distribution of the largest of many: cdf exp(-exp(-(x - loc) / scale)), elementwise.
local core = require "marea.core"
local distribution = require "marea.dist.distribution"
local ops, log = core.ops, distribution.log

---@class Gumbel: Distribution
---@field loc userdata|number mode
---@field scale userdata|number > 0
---@field mean userdata|number loc + Euler's constant * scale
---@field variance userdata|number
---@example dist.Gumbel{loc = 0, scale = 1}:sample{5}
local Gumbel = distribution.class("Gumbel", {
  names = {"loc", "scale"},
  ranges = {scale = {above = 0}},
  properties = {
    mean = function(self) return self.loc + distribution.EULER * self.scale end,
    variance = function(self) return math.pi ^ 2 / 6 * self.scale * self.scale end,
  },
})

--- loc + scale * noise: a sample that gradients flow through.
---@param shape? integer[] how many, as dimensions in front of the parameters' shape
function Gumbel:rsample(shape)
  return self.loc + self:noise(ops.gumbel, shape) * self.scale
end

--- Log of the density at x, elementwise: -z - exp(-z) - log scale, z = (x - loc) / scale.
function Gumbel:log_prob(x)
  local z = (distribution.value(self, "log_prob", "x", x) - self.loc) / self.scale
  local function density(v) return -v - distribution.exp(-v) end
  if type(z) == "number" then return (z == -math.huge and z or density(z)) - log(self.scale) end
  return distribution.log_inside(ops.eq(z, -math.huge), z, 0, density) - log(self.scale)
end

--- log scale + 1 + Euler's constant, elementwise.
function Gumbel:entropy()
  return log(self.scale) + 1 + distribution.EULER
end

local LEAST = {min = -80} -- the cdf is 0 there, and exp(80) still a number in f32

--- Probability of a value up to x.
function Gumbel:cdf(x)
  local z = (distribution.tensor(self, "cdf", "x", x) - self.loc) / self.scale
  return ops.exp(-ops.exp(-ops.clamp(z, LEAST)))
end

--- The value that a share p of the values lies below, 0 <= p <= 1.
function Gumbel:icdf(p)
  p = distribution.tensor(self, "icdf", "p", p)
  return self.loc - ops.log(-ops.log(p)) * self.scale
end

return Gumbel
