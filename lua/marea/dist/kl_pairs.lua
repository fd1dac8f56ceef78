-- SPDX-License-Identifier: MIT
--- Divergences in closed form, elementwise; d is the difference of the locations.
local core = require "marea.core"
local distribution = require "marea.dist.distribution"
local register = require "marea.dist.kl".register_kl
local Normal = require "marea.dist.normal"
local Laplace = require "marea.dist.laplace"
local Uniform = require "marea.dist.uniform"
local Gumbel = require "marea.dist.gumbel"
local Bernoulli = require "marea.dist.bernoulli"
local Categorical = require "marea.dist.categorical"
local Poisson = require "marea.dist.poisson"
local log, exp, abs, square = distribution.log, distribution.exp, distribution.abs, distribution.square
local ops = core.ops

local LOG_2PI = math.log(2 * math.pi)

register(Normal, Normal, function(p, q)
  local ratio = square(p.std / q.std)
  local shift = square((p.mean - q.mean) / q.std)
  return 0.5 * (ratio + shift - 1 - log(ratio))
end)

register(Laplace, Laplace, function(p, q)
  local d = abs(p.loc - q.loc)
  return (p.scale * exp(-d / p.scale) + d) / q.scale - log(p.scale / q.scale) - 1
end)

--- -entropy(p) - E_p[log q] for a normal q, told by the mean and the variance of p.
local function to_normal(p, q)
  local second = (p.variance + square(p.mean - q.mean)) / square(q.std)
  return 0.5 * (second + LOG_2PI) + log(q.std) - p:entropy()
end

register(Laplace, Normal, to_normal)
register(Uniform, Normal, to_normal)

--- E|x - q.loc| of a normal x: std sqrt(2/pi) exp(-t^2) + d erf t with t = d / (std sqrt 2).
register(Normal, Laplace, function(p, q)
  local d = p.mean - q.loc
  local t = distribution.tensor(p, "kl", "mean", d / (p.std * math.sqrt(2)))
  local distance = math.sqrt(2 / math.pi) * p.std * exp(-square(t)) + d * ops.erf(t)
  return distance / q.scale + log(2 * q.scale) - p:entropy()
end)

--- Infinite unless q's interval holds p's.
register(Uniform, Uniform, function(p, q)
  local low, high = distribution.tensor(p, "kl", "low", p.low), distribution.tensor(p, "kl", "high", p.high)
  local inside = ops.mul(ops.ge(low, q.low), ops.le(high, q.high))
  return ops.where(inside, log((q.high - q.low) / (high - low)), math.huge)
end)

register(Gumbel, Gumbel, function(p, q)
  local ratio, d = p.scale / q.scale, (p.loc - q.loc) / q.scale
  local gamma = ops.lgamma(distribution.tensor(p, "kl", "scale", 1 + ratio))
  return exp(gamma - d) + d - log(ratio) + distribution.EULER * (ratio - 1) - 1
end)

register(Bernoulli, Bernoulli, function(p, q)
  local one, zero = p:masses()
  return p:weighed_logs(one, zero) - q:weighed_logs(one, zero)
end)

register(Categorical, Categorical, function(p, q)
  return p:weighed_logs(p.probs) - q:weighed_logs(p.probs)
end)

register(Poisson, Poisson, function(p, q)
  local a, b = distribution.tensor(p, "kl", "rate", p.rate), distribution.tensor(q, "kl", "rate", q.rate)
  return distribution.weigh(a, a, 0, ops.log) - distribution.weigh(a, b, 0, ops.log) - a + b
end)
