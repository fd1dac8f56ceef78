-- SPDX-License-Identifier: MIT
-- Eigenvalues, and the judges of generated images.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local judge = marea.judge

local function f64(value) return marea.tensor(value, {dtype = "f64"}) end

--- f raises an error that says so, and names a line of this file.
local function has(text, f)
  local message = message_of(f)
  assert.is_truthy(message:find(text, 1, true), message)
end

describe("eigh", function()
  it("knows the eigenvalues that have a closed form", function()
    local w, v = marea.eigh(f64{{2, 1}, {1, 2}})
    allclose.assert(w, {1, 3}, {rtol = 1e-14})
    allclose.assert(v:abs(), {{math.sqrt(0.5), math.sqrt(0.5)}, {math.sqrt(0.5), math.sqrt(0.5)}}, {rtol = 1e-14})
    allclose.assert((marea.eigh(f64{{3, 0, 0}, {0, -1, 0}, {0, 0, 2}})), {-1, 2, 3}, {rtol = 1e-14})
    -- second differences with fixed ends: 2 - 2 cos(k pi / (n + 1))
    local n, rows, expected = 40, {}, {}
    for i = 1, n do
      rows[i], expected[i] = {}, 2 - 2 * math.cos(i * math.pi / (n + 1))
      for j = 1, n do rows[i][j] = i == j and 2 or math.abs(i - j) == 1 and -1 or 0 end
    end
    allclose.assert((marea.eigh(f64(rows))), expected, {rtol = 1e-13, atol = 1e-14})
    allclose.assert((marea.eigh(marea.tensor(rows))), expected, {rtol = 1e-6})
  end)

  it("takes matrices apart and puts them together, large ones and many, zero and repeated eigenvalues", function()
    marea.seed(2)
    for _, shape in ipairs{{1, 1}, {3, 5, 5}, {2, 2, 17, 17}, {128, 128}} do
      local n = shape[#shape]
      local a = marea.normal{shape = shape, dtype = "f64"}
      a = a + a:transpose(-1, -2)
      local low = marea.matmul(a:narrow(-1, 1, (n + 1) // 2), a:narrow(-1, 1, (n + 1) // 2), {transpose_b = true})
      for _, m in ipairs{a, low, marea.eye(n, {dtype = "f64"})} do
        local w, v = marea.eigh(m)
        allclose.assert(marea.matmul(v * w:unsqueeze(-2), v, {transpose_b = true}), m, {rtol = 1e-12, scaled = true})
        local unit = marea.matmul(v, v, {transpose_a = true})
        allclose.assert(unit, marea.zeros_like(unit) + marea.eye(n, {dtype = "f64"}), {atol = 1e-13})
        if n > 1 then assert.is_true((w:narrow(-1, 2, n - 1) - w:narrow(-1, 1, n - 1)):min():item() >= 0) end
      end
    end
  end)

  it("takes the symmetric part", function()
    allclose.assert((marea.eigh(f64{{2, 3}, {-1, 2}})), {1, 3}, {rtol = 1e-14})
  end)

  it("says what is wrong", function()
    has("square matrices", function() marea.eigh(marea.ones(2, 3)) end)
    for _, value in ipairs{0 / 0, 1 / 0} do
      local two = marea.tensor{{{1, 2}, {2, 1}}, {{1, 2}, {value, 1}}}
      has("matrix 2 of f32 (2, 2, 2) has elements that are not finite", function() marea.eigh(two) end)
    end
    has("larger than 16384", function() marea.eigh(marea.ones(1, 1):expand{20000, 20000}) end)
  end)
end)

describe("judge.classes", function()
  it("counts the images that the classifier is sure of", function()
    local p = marea.tensor{{0.95, 0.05, 0}, {0.5, 0.4, 0.1}, {0.05, 0.95, 0}, {0.92, 0.08, 0}}
    local found = judge.classes(p)
    assert.are.same({2, 1, 0}, found.counts)
    assert.are.equal(0.75, found.confident)
    assert.are.equal(2, found.coverage)
    allclose.assert(found.kl, 2 / 3 * math.log(2 / 3 * 3) + 1 / 3 * math.log(1 / 3 * 3), {rtol = 1e-12})
    assert.are.same({2, 0, 0}, judge.classes(p['1:2, :'], {threshold = 0.5}).counts)
    assert.are.equal(1, judge.classes(p, {least = 0.5}).coverage)
  end)

  it("is 0 for equal shares, log K for one class, and NaN without a sure image", function()
    local even = judge.classes(marea.eye(10))
    assert.are.equal(10, even.coverage)
    allclose.assert(even.kl, 0, {atol = 1e-12})
    local one = judge.classes(marea.one_hot(marea.tensor({4, 4}, {dtype = "i64"}), 10):to "f32")
    assert.are.equal(1, one.coverage)
    allclose.assert(one.kl, math.log(10), {rtol = 1e-12})
    local none = judge.classes(marea.full({5, 10}, 0.1))
    assert.are.equal(0, none.confident)
    assert.are.equal(0, none.coverage)
    assert.is_true(none.kl ~= none.kl)
    assert.are.equal("nan", ("%g"):format(none.kl)) -- without the sign that 0 / 0 has on some machines
  end)

  it("says what is wrong", function()
    has("probabilities (N, K)", function() judge.classes(marea.ones(3)) end)
    has("from 0 to 1", function() judge.classes(marea.ones(3, 2), {threshold = 90}) end)
  end)
end)

describe("judge.frechet", function()
  --- Gaussian features with the given mean and covariance, exactly: whitened draws.
  local function features(n, mean, covariance)
    local d = #mean
    local x = marea.normal{shape = {n, d}, dtype = "f64"}
    local g = judge.gaussian(x)
    local function power(a, exponent)
      local w, v = marea.eigh(a)
      return marea.matmul(v * w ^ exponent, v, {transpose_b = true})
    end
    return (x - g.mean):matmul(power(g.covariance, -0.5)):matmul(power(covariance, 0.5)) + f64(mean)
  end

  it("fits mean and covariance", function()
    local g = judge.gaussian(marea.tensor{{1, 2}, {3, 6}, {5, 4}})
    assert.are.equal(3, g.n)
    allclose.assert(g.mean, {3, 4}, {rtol = 1e-14})
    allclose.assert(g.covariance, {{4, 2}, {2, 4}}, {rtol = 1e-14})
  end)

  it("is |m1 - m2|^2 + sum (s1 - s2)^2 for diagonal covariances", function()
    marea.seed(4)
    local a = features(500, {1, 2, 3}, f64{{4, 0, 0}, {0, 9, 0}, {0, 0, 0.25}})
    local b = features(500, {0, 2, 5}, f64{{1, 0, 0}, {0, 16, 0}, {0, 0, 0}})
    allclose.assert(judge.frechet(a, b), (1 + 0 + 4) + (2 - 1) ^ 2 + (3 - 4) ^ 2 + 0.5 ^ 2, {rtol = 1e-9})
    allclose.assert(judge.frechet(b, a), judge.frechet(a, b), {rtol = 1e-9})
    allclose.assert(judge.frechet(a, a), 0, {atol = 1e-6})
    allclose.assert(judge.frechet(a, a + 3), 27, {rtol = 1e-9})
  end)

  it("agrees with the formula of two dimensions: tr sqrt(m) = sqrt(tr m + 2 sqrt(det m))", function()
    marea.seed(5)
    local s1, s2 = {{3, 1}, {1, 2}}, {{1, -0.5}, {-0.5, 4}}
    local a, b = features(100, {0, 0}, f64(s1)), features(100, {0, 0}, f64(s2))
    local trace = s1[1][1] * s2[1][1] + 2 * s1[1][2] * s2[1][2] + s1[2][2] * s2[2][2]
    local determinant = (3 * 2 - 1) * (1 * 4 - 0.25)
    local expected = 3 + 2 + 1 + 4 - 2 * math.sqrt(trace + 2 * math.sqrt(determinant))
    allclose.assert(judge.frechet(a, b), expected, {rtol = 1e-9})
  end)

  it("takes features with more dimensions than images", function()
    marea.seed(6)
    local a, b = marea.normal{20, 64}, marea.normal{20, 64} + 1
    local forth, back = judge.frechet(a, judge.gaussian(b)), judge.frechet(b, a)
    assert.is_true(forth > 64)
    allclose.assert(forth, back, {rtol = 1e-6})
  end)

  it("says what is wrong", function()
    local a = marea.normal{20, 3}
    has("20 and to 10 images", function() judge.frechet(a, a['1:10, :']) end)
    has("3 features and 2 features", function() judge.frechet(a, a[':, 1:2']) end)
    has("at least two images", function() judge.gaussian(a['1:1, :']) end)
  end)
end)

describe("judge.see", function()
  it("gives features and probabilities of all images, whatever the batch", function()
    marea.seed(7)
    local nn = marea.nn
    local net = {body = nn.Linear{4, 3}, output = nn.Linear{3, 2}}
    function net:features(x) return self.body(x:flatten{from = 2}) end
    function net:classify(features) return self.output(features) end
    local x = marea.normal{7, 2, 2, 1}
    local features, p = judge.see(net, x, {batch = 3})
    assert.are.same({7, 3}, features.shape)
    assert.is_false(features.requires_grad or p.requires_grad)
    allclose.assert(features, net:features(x), {rtol = 1e-6})
    allclose.assert(p, net.output(net:features(x)):softmax(), {rtol = 1e-6})
    allclose.assert(p:sum(2), marea.ones(7), {rtol = 1e-6})
  end)

  it("says what is wrong", function()
    has("methods features and classify", function() judge.see({}, marea.ones(1, 2, 2, 1)) end)
    has("at least one image", function() judge.see({features = print, classify = print}, marea.ones(0, 2, 2, 1)) end)
  end)
end)
