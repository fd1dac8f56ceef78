-- SPDX-License-Identifier: MIT
--- 1 with probability `probs`, else 0, elementwise.
local core = require "marea.core"
local distribution = require "marea.dist.distribution"
local ops, weigh = core.ops, distribution.weigh

---@class Bernoulli: Distribution
---@field probs userdata|number probability of 1
---@field logits userdata|number log(probs / (1 - probs))
---@field mean userdata probs
---@field variance userdata probs (1 - probs)
---@example dist.Bernoulli{probs = 0.3}:sample{5}
local Bernoulli = distribution.class("Bernoulli", {
  names = {"probs", "logits"},
  positional = 0,
  setup = function(self, given)
    local value = distribution.probs_or_logits("Bernoulli", self, given, function(name, v)
      distribution.parameter("Bernoulli", name, v, name == "probs" and {low = 0, high = 1} or nil)
    end, 1)
    self.batch_shape, self.dtype = distribution.broadcast("Bernoulli", value), distribution.dtype_of(value)
  end,
  properties = {
    probs = function(self) return ops.sigmoid(distribution.tensor(self, "probs", "logits", self.logits)) end,
    logits = function(self) return distribution.logit(distribution.tensor(self, "logits", "probs", self.probs)) end,
    mean = function(self) return self.probs end,
    variance = function(self)
      local one, zero = self:masses()
      return one * zero
    end,
  },
})

--- The probabilities of 1 and of 0, from logits without cancellation.
function Bernoulli:masses()
  local logits = rawget(self, "logits")
  if not logits then
    local probs = distribution.tensor(self, "masses", "probs", self.probs)
    return probs, 1 - probs
  end
  logits = distribution.tensor(self, "masses", "logits", logits)
  return ops.sigmoid(logits), ops.sigmoid(-logits)
end

local function log_rest(p) return ops.log1p(-p) end

local function log_sigmoid(x) return -ops.softplus(-x) end

local function log_sigmoid_rest(x) return -ops.softplus(x) end

--- one * log P(1) + zero * log P(0), a weight of 0 making its term 0 even where the logarithm is infinite.
function Bernoulli:weighed_logs(one, zero)
  local logits = rawget(self, "logits")
  if logits then
    logits = distribution.tensor(self, "log_prob", "logits", logits, one)
    return weigh(one, logits, -math.huge, log_sigmoid) + weigh(zero, logits, math.huge, log_sigmoid_rest)
  end
  local probs = distribution.tensor(self, "log_prob", "probs", self.probs, one)
  return weigh(one, probs, 0, ops.log) + weigh(zero, probs, 1, log_rest)
end

--- Zeros and ones, as reals.
---@param shape? integer[] how many, as dimensions in front of the parameters' shape
function Bernoulli:sample(shape)
  return core.no_grad(function()
    local probs = distribution.tensor(self, "sample", "probs", self.probs)
    return ops.bernoulli(probs:expand(distribution.sample_shape(self, "sample", shape)))
  end)
end

--- x log probs + (1 - x) log(1 - probs), elementwise; -infinity for what cannot be.
---@param x userdata|number from 0 to 1
function Bernoulli:log_prob(x)
  x = distribution.tensor(self, "log_prob", "x", x)
  local outside = distribution.either(ops.lt(x, 0), ops.gt(x, 1))
  return distribution.log_inside(outside, x, 0, function(v) return self:weighed_logs(v, 1 - v) end)
end

--- Elementwise; 0 for probabilities 0 and 1.
function Bernoulli:entropy()
  return -self:weighed_logs(self:masses())
end

return Bernoulli
