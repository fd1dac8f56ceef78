-- SPDX-License-Identifier: MIT
--- One of several classes, 1 to n: probs (.., classes) are divided by their sum, logits are up to a constant.
local core = require "marea.core"
local check = require "marea.internal.check"
local distribution = require "marea.dist.distribution"
local ops = core.ops

local LAST, SUM_LAST = {dim = -1}, {dims = {-1}}

---@class Categorical: Distribution
---@field probs userdata (.., classes), sums to 1
---@field logits userdata (.., classes)
---@field classes integer
---@example dist.Categorical{logits = marea.normal{4}}:sample{5}
local Categorical = distribution.class("Categorical", {
  names = {"probs", "logits"},
  positional = 0,
  setup = function(self, given)
    local value = distribution.probs_or_logits("Categorical", self, given, distribution.check_classes "Categorical",
      math.huge)
    if given.probs then self.probs = value / value:sum{dims = {-1}, keepdim = true} end
    self.batch_shape, self.dtype = distribution.batch_of(value.shape), value.dtype
    self.classes = value:size(-1)
  end,
  properties = {
    probs = function(self) return ops.softmax(self.logits, LAST) end,
    logits = function(self) return ops.log(self.probs) end,
  },
})

local function same(x) return x end

--- The logarithms of the probabilities; -infinity for 0.
local function log_probs(self)
  return rawget(self, "logits") and ops.log_softmax(self.logits, LAST) or ops.log(self.probs)
end

--- Sum over classes of weights (.., classes) times log probability, a weight of 0 making its term 0; shape (..).
function Categorical:weighed_logs(weights)
  local terms = rawget(self, "logits")
    and distribution.weigh(weights, ops.log_softmax(self.logits, LAST), -math.huge, same)
    or distribution.weigh(weights, self.probs, 0, ops.log)
  return terms:sum(SUM_LAST)
end

--- Classes, i64.
---@param shape? integer[] how many, as dimensions in front of the batch
function Categorical:sample(shape)
  return core.no_grad(function()
    local all = distribution.sample_shape(self, "sample", shape)
    all[#all + 1] = self.classes
    return ops.categorical(log_probs(self):expand(all))
  end)
end

--- Log of the probability of classes x, which broadcast against the batch; shape (..).
---@param x userdata|integer i64 or u8
function Categorical:log_prob(x)
  local what = "Categorical:log_prob"
  if math.type(x) == "integer" then x = ops.full({}, x, "i64") end
  check.tensor(what, "x", x)
  if x.dtype ~= "i64" and x.dtype ~= "u8" then check.fail(what, "x", "classes as i64 or u8", x) end
  local shape = distribution.broadcast(what, self.batch_shape, x)
  local index = x:expand(shape):unsqueeze(-1)
  shape[#shape + 1] = self.classes
  if rawget(self, "logits") then
    return ops.log_softmax(self.logits, LAST):expand(shape):gather(index, LAST):squeeze(-1)
  end
  return ops.log(self.probs:expand(shape):gather(index, LAST):squeeze(-1))
end

--- Shape of the batch; classes of probability 0 add nothing.
function Categorical:entropy()
  return -self:weighed_logs(self.probs)
end

return Categorical
