-- SPDX-License-Identifier: MIT
-- Distributions against their formulas.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local gradcheck = require "spec.support.gradcheck"
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
    fails("argument 'q': expected a distribution, got 3", function() return Normal(0, 1):kl(3) end)
    fails("did you mean 'Normal'?", function() return marea.dist.Normall end)
  end)
end)

-- ---- what all distributions have ----

local dist = marea.dist
local N = 100000

local LOGITS = {{0.3, -1.2, 0.8}, {2, 0, -0.5}}

--- Cases: make(tensor) builds the distribution from parameters that `tensor` makes; its batch is (2) unless said.
local continuous = {
  Normal = function(t) return dist.Normal(t{0.5, -1}, t{2, 0.3}) end,
  Laplace = function(t) return dist.Laplace(t{0.5, -1}, t{2, 0.3}) end,
  Logistic = function(t) return dist.Logistic(t{0.5, -1}, t{2, 0.3}) end,
  RelaxedBernoulli = function(t) return dist.RelaxedBernoulli{temperature = t{0.5, 2}, logits = t{1, -0.5}} end,
}

local function f32(value) return marea.tensor(value) end

--- Names in order, so that draws are the same in every run.
local function sorted(cases)
  local names = {}
  for name in pairs(cases) do names[#names + 1] = name end
  table.sort(names)
  local i = 0
  return function()
    i = i + 1
    return names[i], cases[names[i]]
  end
end

--- Kolmogorov-Smirnov distance times sqrt(n) of column `column` of samples (n, 2) whose cdf is given the same way.
local function ks(q, x, column)
  local p = q:cdf(x):totable()
  local column_p = {}
  for i = 1, #p do column_p[i] = p[i][column] end
  table.sort(column_p)
  local n, d = #column_p, 0
  for i = 1, n do d = math.max(d, i / n - column_p[i], column_p[i] - (i - 1) / n) end
  return d * math.sqrt(n)
end

describe("a continuous distribution", function()
  for name, make in sorted(continuous) do
    it(name .. " has a density that is the slope of its cdf, and an icdf that is its inverse", function()
      local q = make(f64)
      for _, p in ipairs{0.001, 0.2, 0.4, 0.7, 0.999} do
        local x = q:icdf(f64{p, p})
        close(q:cdf(x), {p, p}, {rtol = 1e-9, atol = 0})
        local h = 1e-5
        local slope = (q:cdf(x + h) - q:cdf(x - h)) / (2 * h)
        if p > 0.1 and p < 0.9 then close(q:log_prob(x):exp(), slope, {rtol = 1e-5, atol = 1e-8}) end
      end
    end)

    it(name .. " samples what its cdf says", function()
      marea.seed(31)
      local q = make(f64)
      local x = q:sample{N}
      for column = 1, 2 do assert.is_true(ks(q, x, column) < 1.95) end -- more once in 1,000 tests
    end)

    it(name .. " lets gradients through rsample: against differences with the same random numbers", function()
      marea.seed(5)
      local seed, counter = marea.random_state()
      local made
      local function tensor(list) made[#made + 1] = list return f64(list) end
      made = {}
      make(tensor)
      local places = {}
      for i = 1, #made do places[i] = i end
      local inputs = {}
      for i, list in ipairs(made) do inputs[i] = f64(list) end
      local function draw(given)
        local now_seed, now_counter = marea.random_state()
        marea.set_random_state(seed, counter + 1000)
        local i = 0
        local q = make(function() i = i + 1 return given[i] end)
        local x = q:rsample{3}
        marea.set_random_state(now_seed, now_counter)
        return {x, q:log_prob(f64{0.3, 0.6})}
      end
      assert(gradcheck.check(draw, inputs, places))
    end)
  end
end)

describe("GumbelSoftmax", function()
  local function make(t, hard)
    return dist.GumbelSoftmax{logits = t(LOGITS), temperature = t{0.7, 1.5}, hard = hard}
  end

  it("draws vectors that sum to 1, whose largest element is a draw of the classes", function()
    marea.seed(8)
    local q = make(f64)
    local x = q:sample{N}
    assert.are.same({N, 2, 3}, x.shape)
    close(x:sum{dims = {-1}}, marea.ones({N, 2}, {dtype = "f64"}), {atol = 1e-12})
    local share = marea.one_hot(x:argmax{dim = -1}, {classes = 3, dtype = "f64"}):mean{dims = {1}}
    close(share, q.probs, {rtol = 0, atol = 4 * 0.5 / math.sqrt(N)})
  end)

  it("has a density that integrates to 1", function()
    local q = dist.GumbelSoftmax{logits = f64{0.3, -0.4}, temperature = 0.8}
    local n = 20000
    local x = (marea.arange(1, n, {dtype = "f64"}) - 0.5) / n
    local density = q:log_prob(marea.stack({x, 1 - x}, {dim = 2})):exp()
    close(density:mean(), 1, {rtol = 2e-3})
    local binary = dist.RelaxedBernoulli{logits = 0.7, temperature = 0.8} -- two classes: the same distribution
    close(density, binary:log_prob(x):exp(), {rtol = 1e-9})
  end)

  it("passes gradients of the smooth vector through hard draws", function()
    local function gradient(hard)
      marea.seed(3)
      local logits = f64(LOGITS):requires_grad_()
      local x = make(function(v) return v == LOGITS and logits or f64(v) end, hard):rsample()
      marea.sum(x * f64{1, 2, 3}):backward()
      return logits.grad, x
    end
    local hard, x = gradient(true)
    close(hard, gradient(false), {exact = true})
    for _, row in ipairs(x:totable()) do
      table.sort(row)
      assert.are.same({0, 0, 1}, row)
    end
  end)

  it("agrees with finite differences", function()
    marea.seed(6)
    local seed, counter = marea.random_state()
    local function f(given)
      marea.set_random_state(seed, counter)
      local q = dist.GumbelSoftmax{logits = given[1], temperature = given[2]}
      local x = q:rsample{2}
      return {x, q:log_prob(x)}
    end
    local inputs = {f64(LOGITS), f64{0.7, 1.5}}
    local ok, message = gradcheck.check(f, inputs, {1, 2}, {rtol = 1e-4})
    assert(ok, message)
  end)
end)

describe("dist.kl", function()
  it("takes the closed form, else an estimate from draws, and says which is missing", function()
    local p, q = dist.Laplace(f64{0.3, -1}, f64{0.5, 2}), dist.Laplace(f64{0, 1}, f64{1, 0.7})
    marea.seed(9)
    for _, other in ipairs{q, dist.Normal(f64{0, 1}, f64{1, 3})} do
      local x = p:sample{N}
      local difference = p:log_prob(x) - other:log_prob(x)
      local bound = difference:std{dims = {1}} * (4 / math.sqrt(N))
      local distance = (dist.kl(p, other) - difference:mean{dims = {1}}):abs()
      close(distance:le(bound), {1, 1}, {exact = true})
    end
    close(p:kl(p), {0, 0}, {atol = 1e-15})
    local relaxed = dist.RelaxedBernoulli{logits = f64{0.2}, temperature = 0.5}
    local ok, message = pcall(dist.kl, relaxed, relaxed)
    assert.is_false(ok)
    assert.is_truthy(message:find("no closed form for RelaxedBernoulli and RelaxedBernoulli; {samples = n}", 1, true))
    close(dist.kl(relaxed, relaxed, {samples = 3}), {0})
  end)

  it("stays finite for relaxed values that round to an edge", function()
    marea.seed(10)
    local function binary(logits) return dist.RelaxedBernoulli{logits = f32{logits, logits}, temperature = 0.05} end
    local function classes(logits) return dist.GumbelSoftmax{logits = f32{{logits, 0, 0}}, temperature = 0.05} end
    for _, make in ipairs{binary, classes} do
      local p, q = make(20), make(-20)
      local x = p:sample{1000}
      for _, value in ipairs{p:log_prob(x):abs():max(), dist.kl(p, q, {samples = 1000}):max()} do
        assert.is_true(value:item() < 1e6 and value:item() == value:item())
      end
      assert.is_true(dist.kl(p, q, {samples = 1000}):min():item() > 10)
    end
  end)

  it("is extended by users", function()
    local keep = dist.kl(dist.Normal(1, 2), dist.Normal(0, 1))
    dist.register_kl(dist.Logistic, dist.Normal, function() return 17 end)
    assert.are.equal(17, dist.Logistic(0, 1):kl(dist.Normal(0, 1)))
    assert.are.equal(keep, dist.Normal(1, 2):kl(dist.Normal(0, 1)))
  end)
end)
