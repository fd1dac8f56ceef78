-- SPDX-License-Identifier: MIT
-- Bounds of log p(x) against a model where it is known: z from N(0, 1), x1 and x2 from N(w z, s^2).
local marea = require "marea"
local allclose = require "spec.support.allclose"
local importance, Normal = marea.importance, marea.dist.Normal

local close = allclose.assert

local W, S = {0.8, -1.5}, 0.6
local TOTAL = S * S + W[1] * W[1] + W[2] * W[2] -- variance of x along w

local function f64(value) return marea.tensor(value, {dtype = "f64"}) end

local observations = {{0.3, -0.7}, {2, 1}, {-1.1, 2.4}}
local x = f64(observations)

--- log N(x; 0, w w' + s^2 I), from its determinant and its inverse (Sherman and Morrison).
local function log_evidence(row)
  local square, along = row[1] ^ 2 + row[2] ^ 2, row[1] * W[1] + row[2] * W[2]
  return -math.log(2 * math.pi) - 0.5 * math.log(S * S * TOTAL) - 0.5 * (square - along ^ 2 / TOTAL) / (S * S)
end

local evidence = {}
for i, row in ipairs(observations) do evidence[i] = log_evidence(row) end

local prior = Normal(0, 1)

--- The posterior, moved by `shift` and with its deviation times `stretch`; its parameters have the shape (3, 1).
local function proposal(shift, stretch)
  local mean = (x:select(2, 1) * W[1] + x:select(2, 2) * W[2]) / TOTAL
  return Normal((mean + shift):reshape(3, 1), f64{{stretch * S / math.sqrt(TOTAL)}})
end

--- z (k, N, 1) -> log p(x | z), (k, N)
local function log_likelihood(z)
  local center = z * f64{W[1], W[2]}
  return Normal(center, S):log_prob(x:reshape(1, 3, 2)):sum(3)
end

local function weights(q, samples, chunk)
  return importance.log_weights(q, prior, log_likelihood, {samples = samples, chunk = chunk})
end

describe("importance sampling", function()
  before_each(function() marea.seed(7) end)

  it("is exact when q is the posterior, with one sample as with many", function()
    local w = marea.no_grad(weights, proposal(0, 1), 12)
    assert.are.same({12, 3}, w.shape)
    for i = 1, 12 do close(w[i], evidence, {rtol = 1e-12}) end
    for _, k in ipairs{1, 3, 12} do close(importance.bound(w, k), evidence, {rtol = 1e-12}) end
  end)

  it("gives the ELBO with one sample, log p(x) with many, and grows between", function()
    local shift, stretch = 0.3, 1.4
    local w = marea.no_grad(weights, proposal(shift, stretch), 40000, 7000)
    local bounds = {}
    for i, k in ipairs{1, 5, 50, 40000} do bounds[i] = importance.bound(w, k) end
    local variance = S * S / TOTAL
    local gap = 0.5 * (stretch ^ 2 + shift ^ 2 / variance - 1 - 2 * math.log(stretch)) -- KL(q || posterior)
    local error = 4 * w:std(1):max():item() / math.sqrt(40000)
    for i = 1, 3 do
      close(bounds[1][i], evidence[i] - gap, {rtol = 0, atol = error})
      close(bounds[4][i], evidence[i], {rtol = 0, atol = 0.02})
      for step = 2, 4 do assert.is_true(bounds[step][i] > bounds[step - 1][i]) end
    end
  end)

  it("does not depend on the chunks", function()
    local q = proposal(0.1, 1.2)
    local whole = marea.no_grad(weights, q, 20)
    assert.are.same({20, 3}, marea.no_grad(weights, q, 20, 6).shape)
    marea.seed(7)
    close(marea.no_grad(weights, q, 20, 20), whole, {exact = true})
  end)

  it("adds weights of any size without overflow", function()
    local w = f64{{-20000, 700}, {-20001, 710}, {-19990, -900}, {-20000, 0}}
    local function mean_of(a, b) return math.max(a, b) + math.log((1 + math.exp(-math.abs(a - b))) / 2) end
    close(importance.bound(w, 2), {(mean_of(-20000, -20001) + mean_of(-19990, -20000)) / 2,
      (mean_of(700, 710) + mean_of(-900, 0)) / 2}, {rtol = 1e-13})
    close(importance.bound(w, 1), {-19997.75, 127.5}, {rtol = 1e-13})
    close(importance.bound(f64{{-math.huge}, {0}}), {-math.log(2)}, {rtol = 1e-13})
  end)

  it("has gradients: those of finite differences with the same random numbers", function()
    local function objective(mean, std)
      marea.seed(11)
      return importance.bound(weights(Normal(mean, std), 8, 3), 4):sum()
    end
    local mean, std = f64{{0.1}, {-0.4}, {0.9}}:requires_grad_(), f64{{0.5}, {0.7}, {0.3}}:requires_grad_()
    objective(mean, std):backward()
    local h = 1e-6
    for i = 1, 3 do
      local step = marea.zeros{3, 1, dtype = "f64"}
      step[{i, 1}] = h
      local function slope(dm, ds)
        return marea.no_grad(function()
          return (objective(mean + dm, std + ds) - objective(mean - dm, std - ds)):item() / (2 * h)
        end)
      end
      close(mean.grad[{i, 1}], slope(step, 0), {rtol = 1e-6, atol = 1e-7})
      close(std.grad[{i, 1}], slope(0, step), {rtol = 1e-6, atol = 1e-7})
    end
  end)

  it("says what is wrong", function()
    local function message(f, ...) return tostring(select(2, pcall(f, ...))) end
    assert.is_truthy(message(importance.bound, f64{{1}, {2}, {3}}, 2)
      :find("3 samples are not a multiple of k = 2", 1, true))
    assert.is_truthy(message(importance.bound, f64{1, 2}):find("expected a tensor (samples, N)", 1, true))
    assert.is_truthy(message(weights, proposal(0, 1), 0):find("samples", 1, true))
    assert.is_truthy(message(importance.log_weights, proposal(0, 1), prior, function(z) return z end, {samples = 2})
      :find("expected log p(x | z) of shape (2, 3), got (2, 3, 1)", 1, true))
    assert.is_truthy(message(importance.log_weights, proposal(0, 1), prior, log_likelihood, {sample = 3})
      :find("did you mean 'samples'", 1, true))
  end)
end)
