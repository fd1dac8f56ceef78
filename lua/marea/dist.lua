-- SPDX-License-Identifier: MIT
--- marea.dist: probability distributions over operators; gradients flow through all of it but `sample`.
---
---   local q = dist.Normal(mean, std)          -- or dist.Normal{mean = 0, std = 1}
---   q:rsample(), q:sample(), q:log_prob(x), q:entropy(), q:kl(p), q:cdf(x), q:icdf(p)
---
--- A distribution is a table with its parameters (tensors that broadcast, or numbers) and a metatable of methods
--- that inherits from Distribution.
local core = require "marea.core"
local check = require "marea.check"
local ops = core.ops

local dist = {}

---@class Distribution
local Distribution = {}

local function define(name, parameters)
  local class = setmetatable({}, {__index = Distribution})
  class.__index = class
  class.__name = name
  getmetatable(class).__call = function(_, first, ...)
    local given
    if type(first) == "table" and not core.is_tensor(first) and select("#", ...) == 0 then
      given = check.options(name, first, parameters, #parameters)
    else
      given = {first, ...}
    end
    local self = setmetatable({}, class)
    for i, parameter in ipairs(parameters) do
      local value = given[parameter] or given[i]
      if type(value) ~= "number" and not core.is_tensor(value) then
        check.fail(name, parameter, "a tensor or a number", value)
      end
      self[parameter] = value
    end
    return self
  end
  dist[name] = class
  return class
end

--- Shape that two parameters broadcast to; the shape {} for numbers.
local function broadcast(what, a, b)
  local sa, sb = core.is_tensor(a) and a.shape or {}, core.is_tensor(b) and b.shape or {}
  local rank, shape = math.max(#sa, #sb), {}
  for i = 1, rank do
    local m, n = sa[#sa - rank + i] or 1, sb[#sb - rank + i] or 1
    if m ~= n and m ~= 1 and n ~= 1 then
      check.raise("%s: parameters %s and %s do not broadcast", what, check.shape_text(sa), check.shape_text(sb))
    end
    shape[i] = m == 1 and n or m
  end
  return shape
end

--- {2, 3} before the shape of the parameters.
local function sample_shape(what, before, shape)
  local all = {}
  for i, size in ipairs(before or {}) do all[i] = check.integer(what, "shape", size, 0) end
  return table.move(shape, 1, #shape, #all + 1, all)
end

local function dtype_of(...)
  for _, value in ipairs{...} do
    if core.is_tensor(value) then return value.dtype end
  end
  return "f32"
end

--- A sample without history.
---@param shape? integer[] how many, as dimensions in front of the parameters' shape
function Distribution:sample(shape)
  return core.no_grad(self.rsample, self, shape)
end

local LOG_2PI = math.log(2 * math.pi)

local function log(x) return type(x) == "number" and math.log(x) or x:log() end

local function square(x) return x * x end

---@class Normal: Distribution N(mean, std^2), elementwise; std > 0
local Normal = define("Normal", {"mean", "std"})

--- mean + std * eps: a sample that gradients flow through (Kingma and Welling 2014).
---@param shape? integer[] how many, as dimensions in front of the parameters' shape
function Normal:rsample(shape)
  local all = sample_shape("Normal:rsample", shape, broadcast("Normal", self.mean, self.std))
  local eps = ops.normal(all, {dtype = dtype_of(self.mean, self.std)})
  return self.mean + eps * self.std
end

--- Log of the density at x, elementwise.
function Normal:log_prob(x)
  return -0.5 * square((x - self.mean) / self.std) - log(self.std) - 0.5 * LOG_2PI
end

--- 0.5 log(2 pi e std^2), elementwise.
function Normal:entropy()
  return log(self.std) + 0.5 * (1 + LOG_2PI)
end

--- KL(self || other), elementwise.
---@param other Normal
function Normal:kl(other)
  if getmetatable(other) ~= Normal then check.fail("Normal:kl", "other", "a Normal", other) end
  local ratio = square(self.std / other.std)
  local shift = square((self.mean - other.mean) / other.std)
  return 0.5 * (ratio + shift - 1 - log(ratio))
end

--- Probability of a value up to x.
function Normal:cdf(x)
  local z = (x - self.mean) / self.std
  return 0.5 * (1 + ops.erf(z / math.sqrt(2)))
end

--- The value that a share p of the values lies below, 0 <= p <= 1.
---@param p userdata
function Normal:icdf(p)
  return self.mean + check.tensor("Normal:icdf", "p", p):norm_icdf() * self.std
end

return check.strict(dist, "dist")
