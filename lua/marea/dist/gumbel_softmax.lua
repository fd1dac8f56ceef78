-- SPDX-License-Identifier: MIT
--- The concrete distribution: a one-hot vector of classes made smooth. A value is
--- softmax((logits + Gumbel noise) / temperature); temperature to 0 gives one-hot draws of Categorical.
--- Source: Jang, Gu and Poole 2017 (arXiv 1611.01144), Maddison, Mnih and Teh 2017 (arXiv 1611.00712).
local core = require "marea.core"
local check = require "marea.internal.check"
local distribution = require "marea.dist.distribution"
local ops = core.ops

local LAST = {dim = -1}

---@class LogGumbelSoftmax: Distribution
---@field logits userdata (.., classes)
---@field temperature userdata|number > 0
---@example dist.LogGumbelSoftmax{logits = marea.normal{4}, temperature = 0.5}:rsample{2}
local LogGumbelSoftmax = distribution.class("LogGumbelSoftmax", {
  names = {"logits", "temperature"},
  positional = 0,
  setup = function(self, given)
    distribution.check_classes "LogGumbelSoftmax" ("logits", given.logits)
    local t = distribution.parameter("LogGumbelSoftmax", "temperature", given.temperature, {above = 0})
    self.logits, self.temperature = given.logits, t
    self.batch_shape = distribution.broadcast("LogGumbelSoftmax", distribution.batch_of(given.logits.shape), t)
    self.event_shape = core.shape{given.logits:size(-1)}
    self.dtype = distribution.dtype_of(given.logits, t)
  end,
})

--- The temperature against vectors of classes.
local function temperature(self)
  local t = self.temperature
  return type(t) == "number" and t or t:unsqueeze(-1)
end

--- The logarithms of a value of GumbelSoftmax: log_softmax((logits + gumbel) / temperature).
---@param shape? integer[] how many, as dimensions in front of (batch, classes)
function LogGumbelSoftmax:rsample(shape)
  return ops.log_softmax((self.logits + self:noise(ops.gumbel, shape)) / temperature(self), LAST)
end

--- Log of the density at the vectors y (.., classes) of logarithms; shape (..). With n classes and
--- s = logits - temperature y: log (n-1)! + (n-1) log temperature + sum s - n logsumexp s; -infinity if a y is.
function LogGumbelSoftmax:log_prob(y)
  local n, factorial = self.event_shape[1], 0
  for i = 2, n - 1 do factorial = factorial + math.log(i) end
  y = distribution.tensor(self, "log_prob", "y", y)
  local outside = ops.max(ops.eq(y, -math.huge), {dims = {-1}, keepdim = true})
  local s = self.logits - temperature(self) * ops.where(outside, 0, y)
  local density = factorial + (n - 1) * distribution.log(self.temperature) + ops.log_softmax(s, LAST):sum{dims = {-1}}
  return ops.where(outside:squeeze(-1), -math.huge, density)
end

local function setup(self, given)
  local value = distribution.probs_or_logits("GumbelSoftmax", self, given,
    distribution.check_classes "GumbelSoftmax", math.huge)
  self.temperature = distribution.parameter("GumbelSoftmax", "temperature", given.temperature, {above = 0})
  self.hard = given.hard or false
  if type(self.hard) ~= "boolean" then check.fail("GumbelSoftmax", "hard", "true or false", given.hard) end
  if given.probs then self.probs = value / value:sum{dims = {-1}, keepdim = true} end
  local logits = given.logits or ops.log(distribution.inside(self.probs))
  self.base = LogGumbelSoftmax{logits = logits, temperature = self.temperature}
  self.batch_shape, self.event_shape, self.dtype = self.base.batch_shape, self.base.event_shape, self.base.dtype
end

---@class GumbelSoftmax: Distribution
---@field probs userdata (.., classes), sums to 1
---@field logits userdata (.., classes), up to a constant
---@field temperature userdata|number > 0, one for each vector
---@field hard boolean
---@field base LogGumbelSoftmax the distribution of the logarithms of a value
---@example dist.GumbelSoftmax{logits = marea.normal{4}, temperature = 0.5}:rsample{2}
local GumbelSoftmax = distribution.class("GumbelSoftmax", {
  names = {"probs", "logits", "temperature", "hard"},
  positional = 0,
  setup = setup,
  properties = {
    probs = function(self) return ops.softmax(self.logits, LAST) end,
    logits = function(self) return self.base.logits end,
  },
})

--- A vector of classes that sums to 1 and that gradients flow through. With hard = true it is one-hot (a draw of
--- Categorical), and gradients are those of the smooth vector: the straight-through estimator.
---@param shape? integer[] how many, as dimensions in front of (batch, classes)
function GumbelSoftmax:rsample(shape)
  local soft = ops.exp(self.base:rsample(shape))
  if not self.hard then return soft end
  local hard = ops.one_hot(ops.argmax(soft, LAST), {classes = self.event_shape[1], dtype = soft.dtype})
  return hard + (soft - soft:detach())
end

--- Log of the density of smooth vectors x (.., classes); shape (..). Zeros count as the smallest normal number.
function GumbelSoftmax:log_prob(x)
  local y = ops.log(distribution.inside(distribution.tensor(self, "log_prob", "x", x)))
  return self.base:log_prob(y) - y:sum{dims = {-1}}
end

return {GumbelSoftmax = GumbelSoftmax, LogGumbelSoftmax = LogGumbelSoftmax}
