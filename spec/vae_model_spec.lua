-- SPDX-License-Identifier: MIT
-- The models of the VAE scripts: what is drawn, and what its likelihood and divergence are.
local marea = require "marea"
local allclose = require "spec.support.allclose"

local close = allclose.assert
local VAE = dofile "scripts/vae_model.lua"

local function model(posterior, sampler)
  marea.seed(3)
  return VAE{latent = 3, model = "mlp", posterior = posterior, sampler = sampler or "exact"}
end

local x = marea.data.mnist("sample", "test"):rows{1, 2}

describe("VAE", function()
  it("draws z from q, or with the deviation that the notebook takes", function()
    local exact, notebook = model "normal", model("normal", "notebook")
    marea.no_grad(function()
      local logvar = exact.logvar(exact.encoder(x))
      close(exact:sampler(exact:encode(x)).std, (logvar / 2):exp(), {rtol = 1e-5})
      close(notebook:sampler(notebook:encode(x)).std, logvar:exp(), {rtol = 1e-5})
      assert.are.equal(notebook:encode(x).std:sum():item(), exact:encode(x).std:sum():item())
    end)
  end)

  it("draws relaxed values in training, bits and classes for bounds", function()
    local bits, classes = model "relaxed_bernoulli", model "gumbel_softmax"
    marea.no_grad(function()
      local z = bits:sampler(bits:encode(x)):rsample()
      assert.is_true(z:gt(0):to("f32"):min():item() == 1 and z:lt(1):to("f32"):min():item() == 1)
      local drawn_bits = bits:proposal(bits:encode(x)):sample{50}
      for _, b in ipairs(allclose.flat(drawn_bits)) do assert.is_true(b == 0 or b == 1) end
      z = classes:sampler(classes:encode(x)):rsample()
      assert.are.same({2, 3, 10}, z.shape)
      close(z:sum(3), {{1, 1, 1}, {1, 1, 1}}, {rtol = 1e-5})
      local drawn = classes:proposal(classes:encode(x)):sample()
      assert.are.same({2, 3}, drawn.shape)
      close(classes:decode(drawn), classes:decode(marea.one_hot(drawn, {classes = 10, dtype = "f32"})), {exact = true})
    end)
  end)

  it("has the log likelihood of Bernoulli pixels", function()
    local vae = model "normal"
    marea.no_grad(function()
      local z = marea.normal{4, 2, 3}
      local got = vae:log_likelihood(z, x)
      assert.are.same({4, 2}, got.shape)
      for k = 1, 4 do
        local p, t = allclose.flat(vae:decode(z[k])), allclose.flat(x)
        for n = 1, 2 do
          local sum = 0
          for i = (n - 1) * 784 + 1, n * 784 do sum = sum + t[i] * math.log(p[i]) + (1 - t[i]) * math.log(1 - p[i]) end
          close(got[{k, n}], sum, {rtol = 1e-5})
        end
      end
    end)
  end)

  it("has as its loss the mean of the one-sample bounds, whatever the posterior", function()
    for _, posterior in ipairs{"normal", "laplace", "relaxed_bernoulli", "gumbel_softmax"} do
      local vae = model(posterior)
      marea.no_grad(function()
        local q = vae:encode(x)
        local likelihoods = {}
        local log_weights = marea.importance.log_weights(vae:proposal(q), vae:prior(), function(z)
          local likelihood = vae:log_likelihood(z, x)
          likelihoods[#likelihoods + 1] = likelihood:mean(1):keep()
          return likelihood
        end, {samples = 4000, chunk = 1000})
        local kl = q:kl(vae:prior()):sum{dims = {2}}
        local mean = marea.stack(likelihoods, 1):mean(1) - kl
        local spread = log_weights:std(1):max():item()
        close(marea.importance.bound(log_weights, 1), mean, {rtol = 0, atol = 4 * spread / math.sqrt(4000) + 1e-3})
        assert.is_true(kl:min():item() > 0, posterior)
      end)
    end
  end)
end)
