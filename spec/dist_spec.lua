-- SPDX-License-Identifier: MIT
-- Distributions against their formulas.
local marea = require "marea"
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local gradcheck = require "marea.gradcheck"
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
  Uniform = function(t) return dist.Uniform(t{-1, 0.5}, t{2, 0.75}) end,
  Gumbel = function(t) return dist.Gumbel(t{0.5, -1}, t{2, 0.3}) end,
  RelaxedBernoulli = function(t) return dist.RelaxedBernoulli{temperature = t{0.5, 2}, logits = t{1, -0.5}} end,
}

local discrete = {
  Bernoulli = function(t) return dist.Bernoulli{probs = t{0.3, 0.9}} end,
  ["Bernoulli from logits"] = function(t) return dist.Bernoulli{logits = t{1.5, -3}} end,
  Categorical = function(t) return dist.Categorical{probs = t{{0.2, 0.5, 0.3}, {1, 2, 6}}} end,
  ["Categorical from logits"] = function(t) return dist.Categorical{logits = t(LOGITS)} end,
  Poisson = function(t) return dist.Poisson(t{0.7, 25}) end,
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

--- The parameters that a case makes, as lists, and the distribution from tensors in their place.
local function parameters_of(make)
  local lists = {}
  make(function(list) lists[#lists + 1] = list return f64(list) end)
  local function rebuild(tensors)
    local i = 0
    return make(function() i = i + 1 return tensors[i] end)
  end
  return lists, rebuild
end

--- First and second gradients of f(distribution) with respect to the parameters of a case.
local function check_gradients(make, f, what)
  local lists, rebuild = parameters_of(make)
  local inputs, places = {}, {}
  for i, list in ipairs(lists) do inputs[i], places[i] = f64(list), i end
  local function call(given) return f(rebuild(given)) end
  assert(gradcheck.check(call, inputs, places), what)
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
      check_gradients(make, function(q)
        local now_seed, now_counter = marea.random_state()
        marea.set_random_state(seed, counter + 1000)
        local x = q:rsample{3}
        marea.set_random_state(now_seed, now_counter)
        return {x}
      end)
    end)

    it(name .. " has gradients of density, entropy and quantiles", function()
      check_gradients(make, function(q)
        local results = {q:log_prob(f64{0.6, 0.7}), q:icdf(f64{0.3, 0.8}), q:cdf(f64{0.6, 0.7})}
        if name ~= "RelaxedBernoulli" then results[4] = q:entropy() end
        return results
      end)
    end)

    it(name .. " takes f32 and numbers like f64", function()
      local wide, narrow = make(f64), make(f32)
      local x, p = {0.6, 0.7}, {0.3, 0.8}
      for _, method in ipairs{"log_prob", "cdf"} do
        close(narrow[method](narrow, f32(x)), wide[method](wide, f64(x)), {rtol = 2e-6, atol = 1e-6}, method)
      end
      close(narrow:icdf(f32(p)), wide:icdf(f64(p)), {rtol = 2e-6, atol = 1e-6})
      assert.are.equal("f32", narrow:sample().dtype)
      assert.are.equal("f64", wide:sample().dtype)
      local lists, rebuild = parameters_of(make)
      local first = {}
      for i, list in ipairs(lists) do first[i] = list[1] end
      local q = rebuild(first)
      close(q:log_prob(f64{0.6, 0.7})[1], wide:log_prob(f64(x))[1], {rtol = 1e-12, atol = 0})
      assert.are.same({}, q.batch_shape)
      assert.are.same({4}, q:sample{4}.shape)
    end)
  end
end)

describe("a discrete distribution", function()
  --- Values that can be drawn, as batches of two.
  local function values(q)
    local list = {}
    for k = 0, 80 do list[#list + 1] = {k, k} end
    local name = getmetatable(q).__name
    if name == "Bernoulli" then return f64{{0, 0}, {1, 1}} end
    if name == "Categorical" then return marea.tensor({{1, 1}, {2, 2}, {3, 3}}, {dtype = "i64"}) end
    return f64(list)
  end

  for name, make in sorted(discrete) do
    it(name .. " has probabilities that sum to 1 and are met by its samples", function()
      marea.seed(12)
      local q = make(f64)
      local all = values(q)
      local probs = q:log_prob(all):exp()
      close(probs:sum{dims = {1}}, {1, 1}, {atol = 1e-9})
      local x = q:sample{N}
      assert.are.same({N, 2}, x.shape)
      for i = 1, math.min(#all, 40) do
        local expected = probs[i]:totable()
        local share = x:eq(all[i]):to("f64"):mean{dims = {1}}:totable()
        for column = 1, 2 do
          local p = expected[column]
          local bound = 4.5 * math.sqrt(p * (1 - p) / N) + 1e-12
          if N * p >= 5 then assert.is_true(math.abs(share[column] - p) <= bound, name .. i) end
        end
      end
    end)

    it(name .. " has gradients of probabilities and entropy", function()
      check_gradients(make, function(q)
        local results = {q:log_prob(values(q))}
        if not name:find "Poisson" then results[2] = q:entropy() end
        return results
      end)
    end)

    if not name:find "Poisson" then
      it(name .. " has the entropy of its probabilities", function()
        local q = make(f64)
        local log_p = q:log_prob(values(q))
        close(q:entropy(), -(log_p:exp() * log_p):sum{dims = {1}}, {rtol = 1e-12})
      end)
    end

    it(name .. " has no rsample and says so", function()
      local ok, message = pcall(function() return make(f64):rsample() end)
      assert.is_false(ok)
      assert.is_truthy(message:find("has no rsample: gradients do not flow through its values; use sample", 1, true))
    end)
  end
end)

describe("mean and variance", function()
  local cases = {}
  for name, make in sorted(continuous) do if name ~= "RelaxedBernoulli" then cases[name] = make end end
  for name, make in sorted(discrete) do if not name:find "Categorical" then cases[name] = make end end
  local KURTOSIS = {Normal = 3, Laplace = 6, Logistic = 4.2, Uniform = 1.8, Gumbel = 5.4}
  for name, make in sorted(cases) do
    it("of " .. name .. " are those of samples", function()
      marea.seed(13)
      local q = make(f64)
      local x, mean, variance = q:sample{N}, q.mean, q.variance
      close((x:mean{dims = {1}} - mean):abs():le((variance / N):sqrt() * 4), {1, 1}, {exact = true})
      local fourth = KURTOSIS[name] or 3 + 1 / 0.0452 -- at most that of Bernoulli(0.047)
      local off = (x:var{dims = {1}} / variance - 1):abs()
      close(off:le(4 * math.sqrt((fourth - 1) / N)), {1, 1}, {exact = true})
    end)
  end
end)

describe("PyTorch's numbers", function()
  local tensors, texts = core.load "spec/golden/dist.safetensors"
  assert(tensors, texts)
  local TIGHT = {rtol = 1e-11, atol = 1e-13}

  local function of(key, prefix)
    local found = {}
    for name, t in pairs(tensors) do
      local rest = name:match("^" .. key:gsub("%p", "%%%0") .. "/" .. prefix .. "([%w_]+)$")
      if rest then found[rest] = t end
    end
    return found
  end

  local PARAMETERS = {"mean", "std", "loc", "scale", "low", "high", "probs", "logits", "rate", "temperature"}

  --- The distribution from the tensors that are its parameters (mean of Laplace, say, is none).
  local function build(class, given, is_parameter)
    local arguments = {}
    for _, name in ipairs(PARAMETERS) do
      if given[name] and is_parameter(name) then arguments[name] = given[name]:requires_grad_() end
    end
    return dist[class](arguments), arguments
  end

  for key, text in sorted(texts) do
    local class = key:match "^(%u%w*)/"
    if class then
      it("of " .. key, function()
        local case = of(key, "")
        local q, parameters = build(class, case, function(name) return case["d_" .. name] ~= nil end)
        local log_prob = q:log_prob(case.x)
        close(log_prob, case.log_prob, TIGHT, "log_prob")
        log_prob:sum():backward()
        for name, t in pairs(parameters) do close(t.grad, case["d_" .. name], TIGHT, "gradient of " .. name) end
        if case.entropy then close(q:entropy(), case.entropy, TIGHT, "entropy") end
        if case.mean then close(q.mean, case.mean, TIGHT, "mean") end
        if case.variance then close(q.variance, case.variance, TIGHT, "variance") end
        if case.cdf then close(q:cdf(case.x), case.cdf, TIGHT, "cdf") end
        if case.icdf then close(q:icdf(case.p), case.icdf, TIGHT, "icdf") end
      end)
    elseif key:find "^kl/" then
      local p_class, q_class = text:match "p=(%w+)", text:match "q=(%w+)"
      it(("of the divergence from %s to %s (%s)"):format(p_class, q_class, key), function()
        local function always() return true end
        local p, q = build(p_class, of(key, "p%."), always), build(q_class, of(key, "q%."), always)
        close(dist.kl(p, q), tensors[key .. "/y"], TIGHT)
      end)
    end
  end
end)

describe("at the edges", function()
  local inf = math.huge
  for _, dtype in ipairs{"f32", "f64"} do
    local function t(list) return marea.tensor(list, {dtype = dtype}) end

    it("probabilities 0 and 1 give no NaN in " .. dtype, function()
      local q = dist.Bernoulli{probs = t{0, 1, 0, 1}}
      close(q:log_prob(t{0, 1, 1, 0}), {0, 0, -inf, -inf})
      close(q:entropy(), {0, 0, 0, 0})
      local p = t{0, 1}:requires_grad_()
      marea.sum(dist.Bernoulli{probs = p}:log_prob(t{0, 1})):backward()
      close(p.grad, {-1, 1})
      local logits = dist.Bernoulli{logits = t{-inf, inf, 200, -200}}
      close(logits:log_prob(t{0, 1, 0, 1}), {0, 0, -200, -200})
      close(logits:entropy(), {0, 0, 0, 0})
      close(dist.kl(dist.Bernoulli{logits = t{-inf, inf, 60, -60}}, q), {0, 0, inf, inf})
      close(dist.kl(q, logits), {0, 0, 200, 200})
    end)

    it("classes of probability 0 give no NaN in " .. dtype, function()
      local probs, logits = dist.Categorical{probs = t{0, 1, 1}}, dist.Categorical{logits = t{-inf, 0, 0}}
      local uniform = dist.Categorical{logits = t{5, 5, 5}}
      for _, q in ipairs{probs, logits} do
        close(q:entropy(), math.log(2))
        close(q:log_prob(1), -inf)
        close(dist.kl(q, uniform), math.log(1.5))
        close(dist.kl(uniform, q), inf)
        close(dist.kl(q, q), 0)
        assert.are.equal(0, q:sample{1000}:eq(1):to("f64"):sum():item())
      end
    end)

    it("others are what the formulas tend to in " .. dtype, function()
      close(dist.Poisson(t{0, 0}):log_prob(t{0, 1}), {0, -inf})
      close(dist.Poisson(t{0, 0}):sample{2}, {0, 0, 0, 0})
      close(dist.kl(dist.Poisson(t{0, 2}), dist.Poisson(t{3, 0})), {3, inf})
      close(dist.Uniform(0, 1):log_prob(t{0, 1, -0.1, 1.1}), {0, 0, -inf, -inf})
      close(dist.Uniform(2, 4):icdf(t{0, 1, -0.1}), {2, 4, 0 / 0})
      close(dist.Uniform(2, 4):cdf(t{1, 2.5, 5}), {0, 0.25, 1})
      close(dist.kl(dist.Uniform(t{0, 0}, 1), dist.Uniform(t{-1, 0.5}, 1)), {math.log(2), inf})
      close(dist.Laplace(0, 1):icdf(t{0, 0.5, 1}), {-inf, 0, inf})
      close(dist.Logistic(0, 1):icdf(t{0, 0.5, 1}), {-inf, 0, inf})
      close(dist.Gumbel(0, 1):icdf(t{0, 1}), {-inf, inf})
      close(dist.Gumbel(0, 1):cdf(t{-1000, 1000}), {0, 1})
      close(dist.Logistic(0, 1):log_prob(t{-1000, 1000}), {-1000, -1000})
      local x = t{-1000, 0, 1000}:requires_grad_()
      local total = dist.Gumbel(0, 1):cdf(x) + dist.Laplace(0, 1):cdf(x) + dist.Logistic(0, 1):cdf(x)
      total:sum():backward()
      close(x.grad, {0, math.exp(-1) + 0.5 + 0.25, 0})
      close(dist.RelaxedBernoulli{logits = 0, temperature = 1}:log_prob(t{0, 0.5, 1}), {0, 0, 0}, {atol = 1e-6})
    end)

    it("noise is never infinite in " .. dtype, function()
      marea.seed(14)
      for _, name in ipairs{"gumbel", "logistic", "laplace"} do
        local x = marea[name]({1000000}, {dtype = dtype}):abs():max():item()
        assert.is_true(x > 10 and x < 40, name)
      end
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

  it("takes probabilities like logits, whatever their sum", function()
    local probs = dist.GumbelSoftmax{probs = f64{1, 2, 5}, temperature = 0.5}
    local logits = dist.GumbelSoftmax{logits = f64{0, math.log(2), math.log(5)}, temperature = 0.5}
    local x = f64{0.2, 0.5, 0.3}
    close(probs.probs, {0.125, 0.25, 0.625})
    close(probs:log_prob(x), logits:log_prob(x), {rtol = 1e-12})
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

  it("in closed form is what draws give", function()
    local function pair(P, a, b, c, d) return P(f64(a), f64(b)), P(f64(c), f64(d)) end
    local tests = {
      {pair(dist.Normal, {0.3, -1}, {0.5, 2}, {0, 1}, {1, 2.5})},
      {pair(dist.Gumbel, {0.3, -1}, {0.5, 2}, {0, 1}, {1, 2.5})},
      {dist.Normal(f64{0.3, -1}, f64{0.5, 2}), dist.Laplace(f64{0, 1}, f64{1, 2})},
      {dist.Uniform(f64{-1, 0}, f64{2, 1}), dist.Normal(f64{0, 1}, f64{1, 2})},
      {dist.Uniform(f64{-1, 0}, f64{2, 1}), dist.Uniform(f64{-1, -1}, f64{3, 3})},
      {dist.Bernoulli{probs = f64{0.3, 0.9}}, dist.Bernoulli{logits = f64{1, -1}}},
      {dist.Categorical{logits = f64(LOGITS)}, dist.Categorical{probs = f64{0.2, 0.5, 0.3}}},
      {dist.Poisson(f64{0.7, 25}), dist.Poisson(f64{1, 22})},
    }
    marea.seed(16)
    for i, test in ipairs(tests) do
      local p, q = table.unpack(test)
      local x = p:sample{N}
      local difference = p:log_prob(x) - q:log_prob(x)
      local bound = difference:std{dims = {1}} * (4 / math.sqrt(N)) + 1e-12
      close((dist.kl(p, q) - difference:mean{dims = {1}}):abs():le(bound), {1, 1}, {exact = true}, "pair " .. i)
    end
  end)

  it("as an estimate has the gradients of the closed form, pathwise or by the score function", function()
    local function gradient(make, f)
      local a = f64(make.start):requires_grad_()
      marea.seed(17)
      f(make.p(a), make.q):sum():backward()
      return a.grad
    end
    local cases = {
      {start = {0.3, -1}, p = function(a) return dist.Normal(a, f64{0.5, 2}) end, q = dist.Normal(f64{0, 1}, 1)},
      {start = {0.3, 1}, p = function(a) return dist.Poisson(a) end, q = dist.Poisson(f64{0.5, 2})},
      {start = {0.3, -1}, p = function(a) return dist.Bernoulli{logits = a} end, q = dist.Bernoulli{probs = 0.3}},
    }
    for _, case in ipairs(cases) do
      local exact = gradient(case, dist.kl)
      local estimate = gradient(case, function(p, q) return dist.kl_estimate(p, q, {samples = 400000}) end)
      close(estimate, exact, {rtol = 0, atol = 0.02})
    end
  end)

  it("refuses what does not fit", function()
    local function fails(text, f, ...)
      local ok, message = pcall(f, ...)
      assert.is_false(ok)
      assert.is_truthy(message:find(text, 1, true), message)
    end
    local p = dist.Normal(0, 1)
    fails("kl: argument 'p': expected a distribution, got 3", dist.kl, 3, p)
    fails("kl: unknown argument 'sample'; did you mean 'samples'?", dist.kl, p, p, {sample = 3})
    fails("kl_estimate: argument 'samples': expected an integer of at least 1, got 0", dist.kl_estimate, p, p,
      {samples = 0})
    fails("kl_estimate: argument 'samples'", dist.kl_estimate, p, p)
    fails("register_kl: argument 'f'", dist.register_kl, dist.Normal, dist.Gumbel)
    fails("register_kl: argument 'Q': expected a class of distributions such as dist.Normal", dist.register_kl,
      dist.Normal, p, print)
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

  it("has gradients to both sides in closed form", function()
    local function check(make, ...)
      local lists, inputs, places = {...}, {}, {}
      for i, list in ipairs(lists) do inputs[i], places[i] = f64(list), i end
      local function divergence(t) return {dist.kl(make(table.unpack(t)))} end
      assert(gradcheck.check(divergence, inputs, places))
      assert(gradcheck.check_second(divergence, inputs, places, {rtol = 1e-4}) ~= false)
    end
    for _, P in ipairs{"Normal", "Laplace", "Gumbel"} do
      check(function(a, b, c, d) return dist[P](a, b), dist[P](c, d) end, {0.3, -1}, {0.5, 2}, {0, 1}, {1, 2.5})
    end
    check(function(a, b, c, d) return dist.Laplace(a, b), dist.Normal(c, d) end, {0.3, -1}, {0.5, 2}, {0, 1}, {1, 2.5})
    check(function(a, b, c, d) return dist.Normal(a, b), dist.Laplace(c, d) end, {0.3, -1}, {0.5, 2}, {0, 1}, {1, 2.5})
    check(function(a, b, c, d) return dist.Uniform(a, b), dist.Normal(c, d) end, {-1, 0}, {1, 2}, {0, 1}, {1, 2.5})
    check(function(a, b, c, d) return dist.Uniform(a, b), dist.Uniform(c, d) end, {-1, 0}, {1, 2}, {-2, -1}, {3, 2.5})
    check(function(a, b) return dist.Bernoulli{probs = a}, dist.Bernoulli{logits = b} end, {0.3, 0.9}, {1, -2})
    check(function(a, b) return dist.Bernoulli{logits = a}, dist.Bernoulli{probs = b} end, {1, -2}, {0.3, 0.9})
    check(function(a, b) return dist.Categorical{logits = a}, dist.Categorical{probs = b} end, LOGITS, {0.2, 0.5, 0.3})
    check(function(a, b) return dist.Categorical{probs = a}, dist.Categorical{logits = b} end, {0.2, 0.5, 0.3}, LOGITS)
    check(function(a, b) return dist.Poisson(a), dist.Poisson(b) end, {0.7, 25}, {1, 22})
  end)

  it("broadcasts, as an estimate too", function()
    marea.seed(19)
    local p, q = dist.Normal(f64{0, 1, 2}, 1), dist.Normal(f64{{0}, {1}, {-1}, {2}}, f64{1, 2, 3})
    local exact = dist.kl(p, q)
    assert.are.same({4, 3}, exact.shape)
    assert.are.same({4, 3}, dist.kl_estimate(p, q, {samples = 4}).shape)
    close(dist.kl_estimate(p, q, {samples = N}), exact, {rtol = 0, atol = 0.05})
    assert.are.same({4, 3}, dist.kl_estimate(q, p, {samples = 4}).shape)
  end)

  it("works with classes of users", function()
    local Exponential = dist.class("Exponential", {
      names = {"rate"},
      ranges = {rate = {above = 0}},
      properties = {mean = function(self) return 1 / self.rate end},
    })
    function Exponential:rsample(shape) return self:noise(marea.laplace, shape):abs() / self.rate end
    function Exponential:log_prob(x) return marea.log(self.rate) - self.rate * x end
    marea.seed(18)
    local p, q = Exponential(f64{0.5, 2}), Exponential{rate = f64{1, 1}}
    close(p:sample{N}:mean{dims = {1}} / p.mean, {1, 1}, {rtol = 0, atol = 4 / math.sqrt(N)})
    local exact = (p.rate / q.rate):log() + q.rate / p.rate - 1
    close(dist.kl(p, q, {samples = N}), exact, {rtol = 0, atol = 0.02})
    dist.register_kl(Exponential, Exponential, function(a, b) return (a.rate / b.rate):log() + b.rate / a.rate - 1 end)
    close(p:kl(q), exact, {exact = true})
  end)

  it("is extended by users", function()
    local keep = dist.kl(dist.Normal(1, 2), dist.Normal(0, 1))
    dist.register_kl(dist.Logistic, dist.Normal, function() return 17 end)
    assert.are.equal(17, dist.Logistic(0, 1):kl(dist.Normal(0, 1)))
    assert.are.equal(keep, dist.Normal(1, 2):kl(dist.Normal(0, 1)))
  end)
end)

describe("shapes and misuse", function()
  local function fails(text, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok)
    assert.is_truthy(message:find(text, 1, true), message)
  end

  it("broadcast parameters, samples in front, classes behind", function()
    local a, b = marea.zeros(4, 1), marea.ones(3)
    for _, name in ipairs{"Normal", "Laplace", "Logistic", "Gumbel", "Uniform"} do
      local q = dist[name](a, b)
      assert.are.same({4, 3}, q.batch_shape)
      assert.are.same({5, 4, 3}, q:sample{5}.shape)
      assert.are.same({4, 3}, q:sample().shape)
      assert.are.same({5, 4, 3}, q:log_prob(q:sample{5}).shape)
      assert.are.same({0, 4, 3}, q:sample{0}.shape)
    end
    local classes = dist.Categorical{logits = marea.zeros(2, 3)}
    assert.are.same({5, 2}, classes:sample{5}.shape)
    assert.are.same({5, 2}, classes:log_prob(classes:sample{5}).shape)
    assert.are.same({4, 2}, classes:log_prob(marea.tensor({{1}, {2}, {3}, {1}}, {dtype = "u8"})).shape)
    local relaxed = dist.GumbelSoftmax{logits = marea.zeros(3), temperature = marea.ones(4, 2)}
    assert.are.same({4, 2}, relaxed.batch_shape)
    assert.are.same({3}, relaxed.event_shape)
    assert.are.same({7, 4, 2, 3}, relaxed:sample{7}.shape)
    assert.are.same({7, 4, 2}, relaxed:log_prob(relaxed:sample{7}).shape)
    assert.are.same({2, 3}, dist.Bernoulli{probs = marea.full({3}, 0.5)}:sample{2}.shape)
    assert.are.same({2}, dist.Poisson(3):sample{2}.shape)
    assert.is_false(dist.Laplace(a:requires_grad_(), b):sample().requires_grad)
  end)

  it("take values that are integers", function()
    local k = marea.tensor({0, 1}, {dtype = "i64"})
    close(dist.Poisson(2):log_prob(k), {-2, math.log(2) - 2})
    close(dist.Bernoulli{logits = 0}:log_prob(k:to "u8"), {math.log(0.5), math.log(0.5)})
    close(dist.Laplace(0, f64(1)):log_prob(k), {-math.log(2), -math.log(2) - 1})
    assert.are.equal(-math.log(2) - 3, dist.Laplace(0, 1):log_prob(3))
  end)

  it("say what is wrong", function()
    fails("Laplace: argument 'scale': expected a number greater than 0, got -1", dist.Laplace, 0, -1)
    fails("Laplace: argument 'scale': expected a number, got ", dist.Laplace, 0, 0 / 0)
    fails("Gumbel: argument 'loc': expected a tensor of f32 or f64, or a number, got nil", dist.Gumbel)
    fails("Logistic: argument 'loc': expected a tensor of f32 or f64, or a number, got tensor i64 (2)", dist.Logistic,
      marea.tensor({1, 2}, {dtype = "i64"}), 1)
    fails("Uniform: argument 'high': expected a number greater than low = 2, got 1", dist.Uniform, 2, 1)
    fails("Poisson: argument 'rate': expected a number of at least 0, got -1", dist.Poisson, -1)
    fails("poisson: argument 'rate': element 2 of", function() dist.Poisson(marea.tensor{1, -1}):sample() end)
    fails("Bernoulli: argument 'probs': expected numbers from 0 to 1, got 2 to 2", dist.Bernoulli,
      {probs = marea.tensor{2}})
    fails("RelaxedBernoulli: argument 'probs': expected numbers from 0 to 1, got -1 to 0.5", dist.RelaxedBernoulli,
      {probs = marea.tensor{0.5, -1}, temperature = 1})
    for _, name in ipairs{"Categorical", "GumbelSoftmax"} do
      fails(name .. ": argument 'probs': expected numbers of at least 0, got -1 to 0.5", dist[name],
        {probs = marea.tensor({0.5, -1}, {dtype = "f64"}), temperature = name == "GumbelSoftmax" and 1 or nil})
    end
    assert.are.equal(1, dist.Categorical{probs = marea.tensor{0.5, 1.5, 0 / 0}}.batch_shape == {} and 1)
    fails("Bernoulli: expected either probs or logits, by name, got both", dist.Bernoulli, {probs = 0.5, logits = 0})
    fails("Bernoulli: too many arguments without a name", dist.Bernoulli, 0.5)
    fails("Bernoulli: argument 'probs': expected a number from 0 to 1, got 1.5", dist.Bernoulli, {probs = 1.5})
    fails("Categorical: argument 'logits': expected a tensor (.., classes) of f32 or f64, got 3", dist.Categorical,
      {logits = 3})
    fails("Categorical:log_prob: argument 'x': expected classes as i64 or u8, got tensor f32 (1)", function()
      dist.Categorical{logits = marea.zeros(3)}:log_prob(marea.tensor{1})
    end)
    fails("gather", function() dist.Categorical{logits = marea.zeros(3)}:log_prob(4) end)
    fails("RelaxedBernoulli: argument 'temperature': expected a number greater than 0, got 0", dist.RelaxedBernoulli,
      {logits = 0, temperature = 0})
    fails("GumbelSoftmax: argument 'hard': expected true or false, got 1", dist.GumbelSoftmax,
      {logits = marea.zeros(3), temperature = 1, hard = 1})
    fails("GumbelSoftmax: unknown argument 'temprature'; did you mean 'temperature'?", dist.GumbelSoftmax,
      {logits = marea.zeros(3), temprature = 1})
    fails("Laplace:rsample: argument 'shape': expected a list of sizes, got 3", function()
      dist.Laplace(0, 1):sample(3)
    end)
    fails("Laplace has no field 'smaple'; did you mean 'sample'?", function() return dist.Laplace(0, 1):smaple() end)
    fails("Poisson has no entropy in closed form", function() return dist.Poisson(1):entropy() end)
    fails("Laplace:log_prob: argument 'x'", function() return dist.Laplace(0, 1):log_prob{1} end)
  end)

  it("samples have the same bits for any number of threads", function()
    local threads = marea.threads()
    local cases = {
      dist.Normal(0, 1), dist.Laplace(0, 1), dist.Logistic(0, 1), dist.Uniform(0, 1), dist.Gumbel(0, 1),
      dist.Bernoulli{probs = 0.3}, dist.Poisson(20), dist.RelaxedBernoulli{logits = 0, temperature = 0.5},
      dist.Categorical{logits = marea.zeros(3)}, dist.GumbelSoftmax{logits = marea.zeros(3), temperature = 0.5},
    }
    for _, q in ipairs(cases) do
      local first
      for n = 1, 4 do
        marea.set_threads(n)
        marea.seed(15)
        local x = q:sample{30001}
        first = first or x
        allclose.assert_same(x, first, n .. " threads")
      end
    end
    marea.set_threads(threads)
  end)
end)
