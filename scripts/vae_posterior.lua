-- SPDX-License-Identifier: MIT
--- Posteriors q(z | x) of scripts/vae.lua, a table by name. Each has `heads`, linear layers on the encoder's output;
--- q, the distribution of z whose parameters are their values (N, latent); its prior; mean(q), what reconstructions are
--- decoded from. A discrete one is trained through relaxed(q, temperature), whose values are smooth; a component of z
--- takes `classes` numbers, 1 when left out.
local marea = require "marea"
local dist = marea.dist

local CLASSES = 10

local posteriors = {}

posteriors.normal = {
  heads = {"mean", "logvar"},
  q = function(mean, logvar) return dist.Normal(mean, (0.5 * logvar):exp()) end,
  prior = function() return dist.Normal(0, 1) end,
  mean = function(q) return q.mean end,
}

posteriors.laplace = {
  heads = {"mean", "logscale"},
  q = function(mean, logscale) return dist.Laplace(mean, logscale:exp()) end,
  prior = function() return dist.Laplace(0, 1) end,
  mean = function(q) return q.loc end,
}

posteriors.relaxed_bernoulli = {
  heads = {"logits"}, discrete = true,
  q = function(logits) return dist.Bernoulli{logits = logits} end,
  prior = function() return dist.Bernoulli{probs = 0.5} end,
  relaxed = function(q, temperature) return dist.RelaxedBernoulli{logits = q.logits, temperature = temperature} end,
  mean = function(q) return q.probs end,
}

posteriors.gumbel_softmax = {
  heads = {"logits"}, discrete = true, classes = CLASSES,
  q = function(logits) return dist.Categorical{logits = logits:reshape(#logits, -1, CLASSES)} end,
  prior = function() return dist.Categorical{logits = marea.zeros{CLASSES}} end,
  relaxed = function(q, temperature) return dist.GumbelSoftmax{logits = q.logits, temperature = temperature} end,
  mean = function(q) return q.probs end,
}

return posteriors
