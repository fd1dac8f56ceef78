-- SPDX-License-Identifier: MIT
--- The binary concrete distribution: a Bernoulli variable made smooth, elementwise. A value is
--- sigmoid((logits + logistic noise) / temperature); temperature to 0 gives Bernoulli.
--- Source: Maddison, Mnih and Teh 2017 (arXiv 1611.00712), Jang, Gu and Poole 2017 (arXiv 1611.01144).
local core = require "marea.core"
local distribution = require "marea.dist.distribution"
local Logistic = require "marea.dist.logistic"
local ops = core.ops

--- The parameters are kept; `base` is the distribution of the logit of a value, which rounding does not push to an
--- edge. Probabilities 0 and 1 count as the nearest numbers between them.
local function setup(self, given)
  local t = distribution.parameter("RelaxedBernoulli", "temperature", given.temperature, {above = 0})
  local value = distribution.probs_or_logits("RelaxedBernoulli", self, given, function(name, v)
    distribution.parameter("RelaxedBernoulli", name, v, name == "probs" and {low = 0, high = 1} or nil)
  end, 1)
  self.temperature = t
  self.batch_shape = distribution.broadcast("RelaxedBernoulli", t, value)
  self.dtype = distribution.dtype_of(t, value)
  local logits = given.logits
  if not logits then
    logits = distribution.logit(distribution.inside(value, self.dtype))
  end
  self.base = Logistic(logits / t, 1 / t)
end

---@class RelaxedBernoulli: Distribution
---@field temperature userdata|number > 0
---@field probs userdata|number of Bernoulli's 1
---@field logits userdata|number log(probs / (1 - probs))
---@field base Logistic the distribution of the logit of a value
---@example dist.RelaxedBernoulli{temperature = 0.5, probs = marea.uniform{3}}:rsample{2}
local RelaxedBernoulli = distribution.class("RelaxedBernoulli", {
  names = {"temperature", "probs", "logits"},
  positional = 0,
  setup = setup,
  properties = {
    probs = function(self) return ops.sigmoid(distribution.tensor(self, "probs", "logits", self.logits)) end,
    logits = function(self) return self.base.loc * self.temperature end,
  },
})

--- A value in (0, 1) that gradients flow through.
---@param shape? integer[] how many, as dimensions in front of the parameters' shape
function RelaxedBernoulli:rsample(shape)
  return distribution.inside(ops.sigmoid(self.base:rsample(shape)))
end

--- Log of the density at x, elementwise: 0 and 1 count as the nearest numbers between them; -infinity beyond.
function RelaxedBernoulli:log_prob(x)
  x = distribution.tensor(self, "log_prob", "x", x)
  local outside = distribution.either(ops.lt(x, 0), ops.gt(x, 1))
  return distribution.log_inside(outside, x, 0.5, function(v)
    v = distribution.inside(v)
    local log_x, log_rest = ops.log(v), ops.log1p(-v)
    return self.base:log_prob(log_x - log_rest) - log_x - log_rest
  end)
end

--- Probability of a value up to x.
function RelaxedBernoulli:cdf(x)
  return self.base:cdf(distribution.logit(distribution.tensor(self, "cdf", "x", x)))
end

--- The value that a share p of the values lies below, 0 <= p <= 1.
function RelaxedBernoulli:icdf(p)
  return ops.sigmoid(self.base:icdf(p))
end

return RelaxedBernoulli
