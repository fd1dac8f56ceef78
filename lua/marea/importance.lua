-- SPDX-License-Identifier: MIT
--- marea.importance: bounds of log p(x) of a model with latent variables, by importance sampling.
---
---   local log_weights = importance.log_weights(q, prior, log_likelihood, {samples = 5000, chunk = 50})
---   importance.bound(log_weights, 1), importance.bound(log_weights, 5000)     -- ELBO, nearly log p(x)
---
--- With z_1 .. z_k from q(z | x) and w_i = p(x | z_i) p(z_i) / q(z_i | x), E[log 1/k sum w_i] is at most log p(x),
--- grows with k, and is the ELBO at k = 1 (Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519). The same two
--- functions, while gradients are recorded, give the objective of an importance weighted autoencoder.
local core = require "marea.core"
local check = require "marea.internal.check"

local importance = {}

--- (k, N, ...) -> (k, N)
local function sum_rest(t)
  return t.rank > 2 and t:flatten{from = 3}:sum(3) or t
end

--- Logarithms of `samples` importance weights for each of N observations, shape (samples, N). Gradients flow through
--- z where they are recorded, and then q needs rsample.
---@param q Distribution q(z | x), batch shape (N, ...)
---@param prior Distribution p(z), broadcasts against q
---@param log_likelihood fun(z: userdata): userdata z (k, N, ...) -> log p(x | z), (k, N)
---@param options {samples: integer, chunk: integer?} chunk: samples at a time, all when left out
---@return userdata
---@example q, prior = dist.Normal(marea.zeros{4, 2}, 1), dist.Normal(0, 1)
---@example importance.log_weights(q, prior, function(z) return z:sum{dims = {-1}} end, {samples = 10})
function importance.log_weights(q, prior, log_likelihood, options)
  options = check.options("importance.log_weights", options, {"samples", "chunk"})
  local samples = check.integer("importance.log_weights", "samples", options.samples, 1)
  local chunk = check.integer("importance.log_weights", "chunk", options.chunk or samples, 1)
  local function weigh(k)
    local z = core.recording() and q:rsample{k} or q:sample{k}
    local ratio = sum_rest(prior:log_prob(z)) - sum_rest(q:log_prob(z))
    local likelihood = log_likelihood(z)
    if likelihood.shape ~= ratio.shape then
      check.raise("importance.log_weights: expected log p(x | z) of shape %s, got %s", check.shape_text(ratio.shape),
        check.shape_text(likelihood.shape))
    end
    return likelihood + ratio
  end
  local parts = {}
  for first = 1, samples, chunk do
    parts[#parts + 1] = core.scope(weigh, math.min(chunk, samples - first + 1))
  end
  return core.ops.concat(parts, 1)
end

--- The bound from k weights, the mean over samples / k disjoint groups: (samples, N) -> (N). Through the maximum, so
--- without overflow.
---@param log_weights userdata (samples, N)
---@param k? integer divides the number of samples, which it is when left out
---@return userdata
---@example importance.bound(marea.normal{10, 4}, 5)
function importance.bound(log_weights, k)
  check.tensor("importance.bound", "log_weights", log_weights)
  if log_weights.rank ~= 2 then check.fail("importance.bound", "log_weights", "a tensor (samples, N)", log_weights) end
  local samples, n = log_weights:size()
  k = check.integer("importance.bound", "k", k or samples, 1)
  if samples % k ~= 0 then
    check.raise("importance.bound: %d samples are not a multiple of k = %d", samples, k)
  end
  local groups = log_weights:reshape(samples // k, k, n)
  return (groups:logsumexp{dims = {2}} - math.log(k)):mean(1)
end

return check.strict(importance, "importance")
