-- SPDX-License-Identifier: MIT
-- Distributions against their formulas.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local Normal = marea.dist.Normal

local close = allclose.assert

local function f64(value) return marea.tensor(value, {dtype = "f64"}) end

describe("Normal", function()
  it("gives density, entropy, distribution and quantiles", function()
    local mean, std, x = f64{0.5, -1}, f64{2, 0.3}, f64{1.25, -1.5}
    local q = Normal(mean, std)
    local expected = {}
    for i = 1, 2 do
      local z = (x[i] - mean[i]) / std[i]
      expected[i] = -z * z / 2 - math.log(std[i]) - math.log(2 * math.pi) / 2
    end
    close(q:log_prob(x), expected, {rtol = 1e-12, atol = 0})
    local two_pi_e = 2 * math.pi * math.exp(1)
    close(q:entropy(), {0.5 * math.log(two_pi_e * 4), 0.5 * math.log(two_pi_e * 0.09)})
    close(q:icdf(q:cdf(x)), x, {rtol = 1e-9})
    close(Normal{mean = 0, std = 1}:icdf(f64{0.05, 0.5, 0.975}), {-1.6448536269514722, 0, 1.9599639845400545})
  end)

  it("gives the divergence from another one", function()
    local mean, logvar = f64{{0.3, -2}}, f64{{0.4, -1}}
    local kl = Normal(mean, (logvar * 0.5):exp()):kl(Normal(0, 1))
    close(kl, marea.kl_normal(mean, logvar, {reduction = "none"}), {rtol = 1e-12})
    close(Normal(1, 2):kl(Normal(marea.tensor(1), 2)), 0)
  end)

  it("samples with the right moments, the same for the same seed", function()
    marea.seed(4)
    local a = Normal(3, 2):sample{20000}
    marea.seed(4)
    close(Normal(3, 2):sample{20000}, a, {exact = true})
    close(a:mean(), 3, {atol = 0.05})
    close(a:std(), 2, {atol = 0.05})
    assert.are.same({5, 4, 3}, Normal(marea.zeros(4, 1), marea.ones(3)):sample{5}.shape)
    assert.are.equal("f64", Normal(f64(0), 1):sample().dtype)
  end)

  it("lets gradients through rsample and not through sample", function()
    local mean, std = f64{1, 2}:requires_grad_(), f64{3, 4}:requires_grad_()
    local q = Normal(mean, std)
    local z = q:rsample()
    z:sum():backward()
    close(mean.grad, {1, 1})
    close(std.grad, (z - mean) / std)
    assert.is_false(q:sample().requires_grad)
  end)

  it("refuses what does not fit", function()
    local function fails(text, f)
      local ok, message = pcall(f)
      assert.is_false(ok)
      assert.is_truthy(message:find(text, 1, true), message)
    end
    fails("Normal: argument 'std'", function() return Normal(marea.zeros(2)) end)
    fails("Normal: unknown argument 'stdd'; did you mean 'std'?", function() return Normal{mean = 0, stdd = 1} end)
    fails("(2) and (3) do not broadcast", function() return Normal(marea.zeros(2), marea.ones(3)):sample() end)
    fails("'other'", function() return Normal(0, 1):kl(3) end)
    fails("did you mean 'Normal'?", function() return marea.dist.Normall end)
  end)
end)
