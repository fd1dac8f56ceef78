-- SPDX-License-Identifier: MIT
--- The Kullback-Leibler divergence KL(p || q) = E_p[log p(x) - log q(x)]: a table of closed forms, and an estimate
--- where there is none.
local check = require "marea.internal.check"
local distribution = require "marea.dist.distribution"

local kl = {}

local closed = {} -- class of p -> class of q -> function

local function check_class(name, class)
  if distribution.is_class(class) then return end
  check.fail("register_kl", name, "a class of distributions such as dist.Normal", class)
end

--- Adds (or replaces) the closed form for two classes of distributions.
---@param P table class, as dist.Normal
---@param Q table class
---@param f fun(p: table, q: table): userdata
---@example function inside(p, q) return math.log((q.high - q.low) / (p.high - p.low)) end
---@example dist.register_kl(dist.Uniform, dist.Uniform, inside)
function kl.register_kl(P, Q, f)
  check_class("P", P)
  check_class("Q", Q)
  if type(f) ~= "function" then check.fail("register_kl", "f", "a function of two distributions", f) end
  closed[P] = closed[P] or {}
  closed[P][Q] = f
end

local function check_pair(what, p, q, options)
  if not distribution.is_class(getmetatable(p)) then check.fail(what, "p", "a distribution", p) end
  if not distribution.is_class(getmetatable(q)) then check.fail(what, "q", "a distribution", q) end
  return check.options(what, options, {"samples"})
end

--- Parameters that are numbers take the dtype of the result: f64 if a tensor of either is.
local function in_one_dtype(p, q)
  local dtype = (p.dtype == "f64" or q.dtype == "f64") and "f64" or "f32"
  return distribution.with_dtype(p, dtype), distribution.with_dtype(q, dtype)
end

--- KL(p || q), shape: what their batch shapes broadcast to. In closed form where there is one; else estimated from
--- `samples` draws (see kl_estimate), without which it is an error.
---@param p Distribution
---@param q Distribution
---@param options? {samples: integer?}
---@example dist.kl(dist.Normal{marea.zeros{3}, 1}, dist.Normal{1, 2})
function kl.kl(p, q, options)
  options = check_pair("kl", p, q, options)
  p, q = in_one_dtype(p, q)
  local P, Q = getmetatable(p), getmetatable(q)
  local f = closed[P] and closed[P][Q]
  if f then return f(p, q) end
  if not options.samples then
    check.raise("kl: no closed form for %s and %s; {samples = n} estimates it from n draws", P.__name, Q.__name)
  end
  return kl.kl_estimate(p, q, options)
end

--- Mean of log p(x) - log q(x) over draws x of p, unbiased with its gradients. Gradients go through the values
--- (pathwise) when p has rsample; else a term with value 0, (log p - stop(log p)) stop(log p - log q), adds the
--- score function's to p's parameters. Relaxed distributions of the same class are compared in `base`, the space
--- of logits or logarithms: the divergence is the same, and no value rounds to an edge.
---@param p Distribution
---@param q Distribution
---@param options {samples: integer} number of draws
---@example dist.kl_estimate(dist.Normal(0, 1), dist.Laplace(0, 1), {samples = 100})
function kl.kl_estimate(p, q, options)
  options = check_pair("kl_estimate", p, q, options)
  local n = check.integer("kl_estimate", "samples", options.samples, 1)
  if getmetatable(p) == getmetatable(q) and rawget(p, "base") then p, q = p.base, q.base end
  p, q = in_one_dtype(p, q)
  local pathwise = rawget(getmetatable(p), "rsample")
  local shape = {n} -- the draws' own dimension stays in front of q's batch
  for i = 1, #q.batch_shape - #p.batch_shape do shape[i + 1] = 1 end
  local x = pathwise and p:rsample(shape) or p:sample(shape)
  local log_p = p:log_prob(x)
  local difference = log_p - q:log_prob(x)
  if not pathwise then difference = difference + (log_p - log_p:detach()) * difference:detach() end
  return difference:mean{dims = {1}}
end

return kl
