-- SPDX-License-Identifier: MIT
--- marea.dist: probability distributions over operators; gradients flow through all of it but `sample`.
---
---   local q = dist.Normal(mean, std)          -- or dist.Normal{mean = 0, std = 1}
---   q:rsample{10}, q:sample(), q:log_prob(x), q:entropy(), q:cdf(x), q:icdf(p), q.mean, q.variance
---   dist.kl(q, p), dist.kl(q, p, {samples = 10}), dist.register_kl(P, Q, f)
---
--- docs/distributions.md says what each has.
local check = require "marea.internal.check"
local distribution = require "marea.dist.distribution"
local gumbel_softmax = require "marea.dist.gumbel_softmax"
local kl = require "marea.dist.kl"
require "marea.dist.kl_pairs"

return check.strict({
  Normal = require "marea.dist.normal",
  Laplace = require "marea.dist.laplace",
  Logistic = require "marea.dist.logistic",
  Uniform = require "marea.dist.uniform",
  Gumbel = require "marea.dist.gumbel",
  Bernoulli = require "marea.dist.bernoulli",
  Categorical = require "marea.dist.categorical",
  Poisson = require "marea.dist.poisson",
  RelaxedBernoulli = require "marea.dist.relaxed_bernoulli",
  GumbelSoftmax = gumbel_softmax.GumbelSoftmax,
  LogGumbelSoftmax = gumbel_softmax.LogGumbelSoftmax,
  class = distribution.class,
  kl = kl.kl,
  kl_estimate = kl.kl_estimate,
  register_kl = kl.register_kl,
}, "dist")
