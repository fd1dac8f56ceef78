-- SPDX-License-Identifier: MIT
-- Random operators: the generator's known answers, distributions, and independence of threads and dtypes.
--
-- Known answers of Philox4x32-10 (Random123, kat_vectors) reach the core through a copy in Lua: the copy gives the
-- known answers, and an f64 draw of `uniform` in [0, 1) is the leading 53 bits of two words, (w1 << 32 | w2) >> 11.
-- The state (key = seed, counter = next block) is set with set_random_state.
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local ops = core.ops

local N = 100000

local function moments(values)
  local n, s = #values, 0
  for i = 1, n do s = s + values[i] end
  local mean, square = s / n, 0
  for i = 1, n do square = square + (values[i] - mean) ^ 2 end
  return mean, square / n
end

--- Kolmogorov-Smirnov distance to a distribution function, times sqrt(n): above 1.95 once in 1,000 tests.
local function ks(values, cdf)
  table.sort(values)
  local n, d = #values, 0
  for i = 1, n do
    local p = cdf(values[i])
    d = math.max(d, i / n - p, p - (i - 1) / n)
  end
  return d * math.sqrt(n)
end

--- The same for the standard normal distribution, computed for all values at once.
local function normal_ks(values)
  table.sort(values)
  local p = (ops.erf(core.tensor(values, {dtype = "f64"}) / math.sqrt(2)) * 0.5 + 0.5):totable()
  local n, d = #values, 0
  for i = 1, n do d = math.max(d, i / n - p[i], p[i] - (i - 1) / n) end
  return d * math.sqrt(n)
end

--- Philox4x32-10 after Salmon et al., "Parallel random numbers: as easy as 1, 2, 3".
local function philox(key, counter)
  local k0, k1 = key[1], key[2]
  local c0, c1, c2, c3 = table.unpack(counter)
  for _ = 1, 10 do
    local p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
    c0, c1, c2, c3 = (p1 >> 32) ~ c1 ~ k0, p1 & 0xffffffff, (p0 >> 32) ~ c3 ~ k1, p0 & 0xffffffff
    k0, k1 = (k0 + 0x9E3779B9) & 0xffffffff, (k1 + 0xBB67AE85) & 0xffffffff
  end
  return {c0, c1, c2, c3}
end

describe("the random state", function()
  it("is a seed and a counter that move on", function()
    core.seed(7)
    local seed, counter = core.random_state()
    assert.are.equal(7, seed)
    assert.are.equal(0, counter)
    local a = ops.uniform {shape = {10}}
    local _, moved = core.random_state()
    assert.is_true(moved > 0)
    local b = ops.uniform {shape = {10}}
    assert.is_false(allclose.check(a, b))
    core.set_random_state(7, moved)
    allclose.assert_same(ops.uniform {shape = {10}}, b)
    core.seed(7)
    allclose.assert_same(ops.uniform {shape = {10}}, a)
    core.seed(8)
    assert.is_false(allclose.check(ops.uniform {shape = {10}}, a))
  end)

  it("is left alone by operators without chance", function()
    core.seed(1)
    local x = core.tensor {1, 2, 3}
    local _ = (x * x):sum()
    local _, counter = core.random_state()
    assert.are.equal(0, counter)
  end)

  it("has the known answers of Philox4x32-10", function()
    local ones = 0xffffffff
    assert.are.same({0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, philox({0, 0}, {0, 0, 0, 0}))
    assert.are.same({0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}, philox({ones, ones}, {ones, ones, ones, ones}))
    for _, seed in ipairs {0, 1, 0x123456789abcdef0, -1} do
      for _, counter in ipairs {0, 1, 0xffffffff, 0x7fffffffffffff00} do
        core.set_random_state(seed, counter)
        local u = ops.uniform {shape = {8}, dtype = "f64"}:totable()
        for block = 0, 3 do
          local at = counter + block
          local w = philox({seed & ones, seed >> 32}, {at & ones, at >> 32, 0, 0})
          for half = 0, 1 do
            local expected = ((w[2 * half + 1] << 32 | w[2 * half + 2]) >> 11) * 2.0 ^ -53
            assert.are.equal(expected, u[2 * block + half + 1])
          end
        end
      end
    end
  end)

  it("has a key of 64 bits", function()
    local seen = {}
    for shift = 0, 62, 2 do
      core.seed(1 << shift)
      local v = ops.uniform {shape = {1}, dtype = "f64"}:item()
      assert.is_nil(seen[v])
      seen[v] = true
    end
  end)
end)

describe("the same seed gives the same bits", function()
  local draws = {
    uniform = function() return ops.uniform {shape = {40001}} end,
    normal = function() return ops.normal {shape = {40001}} end,
    bernoulli = function() return ops.bernoulli(ops.full {shape = {40001}, value = 0.3}) end,
    randint = function() return ops.randint {shape = {40001}, low = 1, high = 10} end,
    gumbel = function() return ops.gumbel {shape = {40001}} end,
    logistic = function() return ops.logistic {shape = {40001}} end,
    laplace = function() return ops.laplace {shape = {40001}} end,
    poisson = function() return ops.poisson(ops.linspace(0, 100, 40001)) end,
    permutation = function() return ops.permutation {n = 40001} end,
    categorical = function() return ops.categorical(ops.full {shape = {10001, 4}, value = 0}) end,
    dropout = function() return ops.dropout(ops.full {shape = {40001}, value = 1}, {p = 0.3}) end,
    sample_normal = function()
      return ops.sample_normal(ops.full {shape = {40001}, value = 0}, ops.full {shape = {40001}, value = 0})
    end,
  }
  local threads = core.threads()
  teardown(function() core.set_threads(threads) end)
  for name, draw in pairs(draws) do
    it("of " .. name .. " for any number of threads", function()
      local first
      for n = 1, 4 do
        core.set_threads(n)
        core.seed(11)
        local t = draw()
        first = first or t
        allclose.assert_same(t, first, n .. " threads")
      end
      core.seed(12)
      assert.is_false(allclose.check(draw(), first, {exact = true}))
    end)
  end

  it("in f32 as in f64, up to rounding", function()
    for _, name in ipairs {"uniform", "normal", "gumbel", "logistic", "laplace"} do
      core.seed(3)
      local wide = ops[name] {shape = {1000}, dtype = "f64"}
      core.seed(3)
      local narrow = ops[name] {shape = {1000}, dtype = "f32"}
      assert.are.equal("f32", narrow.dtype)
      allclose.assert(narrow, wide, {rtol = 1e-6, atol = 1e-6}, name)
    end
  end)
end)

describe("the distribution", function()
  before_each(function() core.seed(2024) end)

  for _, dtype in ipairs {"f32", "f64"} do
    it("of uniform is flat in " .. dtype, function()
      local u = ops.uniform({shape = {N}, low = -1, high = 3, dtype = dtype}):totable()
      local mean, variance = moments(u)
      assert.is_true(math.abs(mean - 1) < 4 * math.sqrt(16 / 12 / N))
      assert.is_true(math.abs(variance - 16 / 12) < 0.02)
      assert.is_true(ks(u, function(x) return (x + 1) / 4 end) < 1.95)
      assert.is_true(u[1] >= -1 and u[N] < 3)
    end)

    it("of normal is normal in " .. dtype, function()
      local z = ops.normal({shape = {N}, mean = 2, std = 3, dtype = dtype}):totable()
      local mean, variance = moments(z)
      assert.is_true(math.abs(mean - 2) < 4 * 3 / math.sqrt(N))
      assert.is_true(math.abs(variance - 9) < 9 * 4 * math.sqrt(2 / N))
      local third, fourth = 0, 0
      for i = 1, N do
        z[i] = (z[i] - 2) / 3
        third, fourth = third + z[i] ^ 3 / N, fourth + z[i] ^ 4 / N
      end
      assert.is_true(math.abs(third) < 4 * math.sqrt(15 / N))
      assert.is_true(math.abs(fourth - 3) < 4 * math.sqrt(96 / N))
      assert.is_true(normal_ks(z) < 1.95)
      for i = 1, N do assert(z[i] == z[i] and math.abs(z[i]) < 8) end
    end)
  end

  it("of neighbours has no correlation", function()
    local z, s = ops.normal({shape = {N}, dtype = "f64"}):totable(), 0
    for i = 1, N - 1 do s = s + z[i] * z[i + 1] end
    assert.is_true(math.abs(s / N) < 4 / math.sqrt(N))
  end)

  it("of bernoulli has the probabilities asked for", function()
    local p = core.tensor({0, 0.1, 0.5, 0.9, 1}):reshape {5, 1}:expand {5, 20000}:contiguous()
    local means = ops.bernoulli(p):to("f64"):mean({dims = {2}}):totable()
    assert.are.equal(0, means[1])
    assert.are.equal(1, means[5])
    for i, expected in ipairs {0, 0.1, 0.5, 0.9, 1} do assert.is_true(math.abs(means[i] - expected) < 0.015) end
  end)

  it("of randint is flat and includes both ends", function()
    local counts = {}
    for _, v in ipairs(ops.randint({shape = {N}, low = -2, high = 4}):totable()) do
      assert.are.equal("integer", math.type(v))
      counts[v] = (counts[v] or 0) + 1
    end
    local chi = 0
    for v = -2, 4 do chi = chi + ((counts[v] or 0) - N / 7) ^ 2 / (N / 7) end
    assert.is_true(chi < 22.46) -- 6 degrees of freedom, one in 1,000
    for v in pairs(counts) do assert.is_true(v >= -2 and v <= 4) end
  end)

  it("of permutation is a permutation, every order alike", function()
    local p = ops.permutation({n = 1000}):totable()
    table.sort(p)
    for i = 1, 1000 do assert(p[i] == i) end
    local counts = {}
    for _ = 1, 6000 do
      local key = table.concat(ops.permutation({n = 3}):totable())
      counts[key] = (counts[key] or 0) + 1
    end
    local chi, orders = 0, 0
    for _, c in pairs(counts) do
      chi, orders = chi + (c - 1000) ^ 2 / 1000, orders + 1
    end
    assert.are.equal(6, orders)
    assert.is_true(chi < 20.5) -- 5 degrees of freedom, one in 1,000
  end)

  it("of categorical follows the logits", function()
    local logits = core.tensor {{math.log(0.1), math.log(0.2), math.log(0.7), -math.huge}}
    local counts = {0, 0, 0, 0}
    local draws = ops.categorical(logits:expand {30000, 4}:contiguous()):totable()
    for _, v in ipairs(draws) do counts[v] = counts[v] + 1 end
    for i, expected in ipairs {0.1, 0.2, 0.7, 0} do assert.is_true(math.abs(counts[i] / 30000 - expected) < 0.012) end
    assert.are.equal(0, counts[4])
  end)

  it("of poisson follows the law: a chi-squared test for small and large rates", function()
    for _, rate in ipairs {0.3, 4, 9.9, 10, 40, 1000} do
      local n = 50000
      local counts = {}
      for _, k in ipairs(ops.poisson(ops.full({n}, rate, "f64")):totable()) do counts[k] = (counts[k] or 0) + 1 end
      local chi, cells, expected, got, log_p = 0, 0, 0, 0, -rate
      for k = 0, math.floor(rate + 10 * math.sqrt(rate)) + 10 do -- cells of at least 30 expected draws
        expected, got = expected + n * math.exp(log_p), got + (counts[k] or 0)
        if expected >= 30 then chi, cells, expected, got = chi + (got - expected) ^ 2 / expected, cells + 1, 0, 0 end
        log_p = log_p + math.log(rate / (k + 1))
      end
      local freedom = cells - 1 -- Wilson and Hilferty's bound: exceeded once in 1,000 tests
      local bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ^ 3
      assert.is_true(chi < bound, ("rate %g: %g with %d degrees of freedom"):format(rate, chi, freedom))
    end
  end)

  it("of poisson has mean and variance of the rate, from 0 to 1e15", function()
    allclose.assert(ops.poisson(ops.full({5}, 0, "f64")), {0, 0, 0, 0, 0})
    for _, rate in ipairs {1e-3, 12, 1e4, 1e9, 1e15} do
      local z = ((ops.poisson(ops.full({N}, rate, "f64")) - rate) / math.sqrt(rate)):totable()
      local mean, variance = moments(z)
      assert.is_true(math.abs(mean) < 4 / math.sqrt(N), rate)
      assert.is_true(math.abs(variance - 1) < 4 * math.sqrt((2 + 1 / rate) / N), rate)
    end
    assert.has_error(function() ops.poisson(core.tensor {1, -1}) end)
    assert.has_error(function() ops.poisson(core.tensor {0 / 0}) end)
  end)

  it("of dropout keeps the mean, and its gradient the mask", function()
    local x = ops.full {shape = {N}, value = 1, dtype = "f64"}:requires_grad_(true)
    local y = ops.dropout(x, {p = 0.25})
    local kept = ops.ne(y, 0):to("f64"):mean():item()
    assert.is_true(math.abs(kept - 0.75) < 0.006)
    assert.is_true(math.abs(y:mean():item() - 1) < 0.01)
    y:sum():backward()
    allclose.assert_same(x.grad, y:detach())
    allclose.assert_same(ops.dropout(x, {p = 0}):detach(), x:detach())
  end)

  it("of sample_normal is mean + exp(logvar / 2) * normal", function()
    local n = 1000
    local mean, logvar = ops.normal {shape = {n}, dtype = "f64"}, ops.normal {shape = {n}, dtype = "f64"}
    local seed, counter = core.random_state()
    local z = ops.sample_normal(mean, logvar)
    core.set_random_state(seed, counter)
    local eps = ops.normal {shape = {n}, dtype = "f64"}
    allclose.assert(z, mean + (logvar * 0.5):exp() * eps, {rtol = 1e-12, atol = 1e-12})
  end)
end)
