-- SPDX-License-Identifier: MIT
--- Divergences in closed form, elementwise; d is the difference of the locations.
local distribution = require "marea.dist.distribution"
local register = require "marea.dist.kl".register_kl
local Normal = require "marea.dist.normal"
local Laplace = require "marea.dist.laplace"
local log, exp, abs, square = distribution.log, distribution.exp, distribution.abs, distribution.square

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
