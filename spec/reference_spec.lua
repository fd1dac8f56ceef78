-- SPDX-License-Identifier: MIT
-- Operators in f64 against the same operators written again in plain Lua (spec/support/naive.lua), on random cases of
-- their samples; and the special values of operators that have some.
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local naive = require "spec.support.naive"
local sample = require "spec.support.sample"
local ops = core.ops

local CASES = {conv = 200, pool = 200}

describe("the reference in Lua agrees with", function()
  for _, name in ipairs(core.op_names()) do
    if naive[name] then
      it(name, function()
        local info = core.op_info(name)
        for seed = 5001, 5000 + (CASES[info.family] or 60) do
          core.scope(function()
            local inputs, attrs = sample.draw(info, sample.generator(seed))
            local arrays = {}
            for i, t in pairs(inputs) do arrays[i] = naive.array(t) end
            local expected = naive[name](arrays, attrs)
            local y = sample.call(info, inputs, attrs)[1]
            local what = ("%s case %d"):format(name, seed)
            assert.are.equal(table.concat(expected.shape, ","), table.concat(y.shape, ","), what .. ": shape")
            expected.shape = nil
            allclose.assert(y, expected, {rtol = 1e-11, atol = 1e-12, scaled = true}, what)
          end)
        end
      end)
    end
  end
end)

-- Operators that take integers; for u8 those in which small ones cannot wrap around.
local INTEGERS = {
  i64 = {"neg", "abs", "sign", "square", "clamp", "add", "sub", "mul", "maximum", "minimum", "eq", "ne", "lt", "le",
    "gt", "ge", "where", "sum", "mean", "max", "min", "argmax", "argmin", "cumsum", "permute", "flip", "tile", "pad",
    "slice", "concat", "index_select", "index_add", "gather", "scatter_add"},
  u8 = {"add", "mul", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "where", "sum", "mean", "max", "min",
    "cumsum", "permute", "flip", "tile", "pad", "slice", "concat", "index_select", "index_add", "gather",
    "scatter_add"},
}
local GIVES_REALS = {mean = true, maximum = "its sample adds a fraction", minimum = "its sample adds a fraction"}

for dtype, names in pairs(INTEGERS) do
  describe("the reference in Lua agrees for " .. dtype .. " with", function()
    for _, name in ipairs(names) do
      it(name, function()
        local info = core.op_info(name)
        for seed = 7001, 7040 do
          core.scope(function()
            local inputs, attrs = sample.draw(info, sample.generator(seed, {dtype = dtype}))
            for key, value in pairs(attrs) do -- bounds and fillings have to be whole too, and scale is for reals
              if math.type(value) == "float" then attrs[key] = dtype == "u8" and 1 or math.floor(value) end
            end
            if attrs.scale then attrs.scale = nil end
            local arrays = {}
            for i, t in pairs(inputs) do arrays[i] = naive.array(t) end
            local y = sample.call(info, inputs, attrs)[1]
            local expected = naive[name](arrays, attrs)
            expected.shape = nil
            allclose.assert(y, expected, {rtol = 1e-6, atol = 0}, ("%s case %d"):format(name, seed))
            if not GIVES_REALS[name] then assert.are_not.equal("f", y.dtype:sub(1, 1), name) end
          end)
        end
      end)
    end
  end)
end

describe("special values", function()
  local inf, nan = math.huge, 0 / 0

  local function f(name, list, attrs)
    return ops[name](core.tensor(list, {dtype = "f64"}), attrs or {}):totable()
  end

  it("go through exp, log and roots", function()
    allclose.assert(f("exp", {-inf, inf, 0, nan, -1000}), {0, inf, 1, nan, 0})
    allclose.assert(f("log", {0, inf, 1, -1}), {-inf, inf, 0, nan})
    allclose.assert(f("sqrt", {0, inf, -1}), {0, inf, nan})
    allclose.assert(f("rsqrt", {0, inf, 4}), {inf, 0, 0.5})
    allclose.assert(f("log1p", {1e-15, -1, 0}), {1e-15, -inf, 0}, {rtol = 1e-12, atol = 0})
    allclose.assert(f("expm1", {1e-15, -inf, inf}), {1e-15, -1, inf}, {rtol = 1e-12, atol = 0})
  end)

  it("go through activations far from zero", function()
    for _, dtype in ipairs {"f32", "f64"} do
      local x = core.tensor({-inf, -1e4, -104, -88.7, 0, 88.7, 104, 1e4, inf, nan}, {dtype = dtype})
      allclose.assert(ops.sigmoid(x), {0, 0, 0, 0, 0.5, 1, 1, 1, 1, nan})
      allclose.assert(ops.tanh(x), {-1, -1, -1, -1, 0, 1, 1, 1, 1, nan})
      allclose.assert(ops.softplus(x), {0, 0, 0, 0, math.log(2), 88.7, 104, 1e4, inf, nan}, {rtol = 1e-6, atol = 1e-6})
      allclose.assert(ops.relu(x), {0, 0, 0, 0, 0, 88.7, 104, 1e4, inf, nan}, {rtol = 1e-6, atol = 1e-6})
      allclose.assert(ops.erf(x), {-1, -1, -1, -1, 0, 1, 1, 1, 1, nan})
    end
  end)

  it("of integers stay integers", function()
    for _, dtype in ipairs {"i64", "u8"} do
      local a, b = core.tensor({1, 9, 3}, {dtype = dtype}), core.tensor({2, 7, 3}, {dtype = dtype})
      for name, expected in pairs {maximum = {2, 9, 3}, minimum = {1, 7, 3}} do
        local y = ops[name](a, b)
        assert.are.equal(dtype, y.dtype)
        assert.are.same(expected, y:totable())
      end
    end
    local wide = core.tensor({math.maxinteger, math.mininteger, 1 << 53 | 1}, {dtype = "i64"})
    assert.are.same({math.mininteger, math.mininteger + 1, (1 << 53) + 2}, (wide + 1):totable())
    assert.are.same({math.maxinteger, math.mininteger, (1 << 53) + 1}, wide:clone():totable())
  end)

  it("of norm_icdf are those of the manifold plots", function()
    allclose.assert(f("norm_icdf", {0, 0.05, 0.5, 0.95, 5e-6, 1 - 5e-6, 1}),
      {-inf, -1.6448536269514722, 0, 1.6448536269514722, -4.417173413469, 4.417173413469, inf},
      {rtol = 1e-9, atol = 1e-12})
    allclose.assert(f("norm_icdf", {-0.1, 1.1}), {nan, nan})
  end)

  it("of erf have 15 digits", function()
    allclose.assert(f("erf", {0.1, 0.5, 1, 2, 3}), {0.1124629160182849, 0.5204998778130465, 0.8427007929497149,
      0.9953222650189527, 0.9999779095030014}, {rtol = 1e-12, atol = 0})
  end)

  it("of the gamma functions", function()
    local root_pi, euler = math.sqrt(math.pi), 0.57721566490153286
    allclose.assert(f("lgamma", {0.5, 1, 2, 5, 0, inf, -1.5, nan}),
      {math.log(root_pi), 0, 0, math.log(24), inf, inf, nan, nan}, {rtol = 1e-15, atol = 0})
    allclose.assert(f("polygamma", {1, 0.5, 2, 0, inf, -0.5, nan}),
      {-euler, -euler - 2 * math.log(2), 1 - euler, -inf, inf, nan, nan}, {rtol = 1e-15, atol = 0})
    allclose.assert(f("polygamma", {1, 0.5, 0, inf, -0.5}, {order = 1}),
      {math.pi ^ 2 / 6, math.pi ^ 2 / 2, inf, 0, nan}, {rtol = 1e-14, atol = 0})
    allclose.assert(f("polygamma", {1, 0.5}, {order = 3}), {math.pi ^ 4 / 15, math.pi ^ 4}, {rtol = 1e-14, atol = 0})
  end)

  it("do not overflow in softmax and its relatives", function()
    local x = core.tensor({{1000, 1000, -inf}, {-1e30, 0, 1}})
    allclose.assert(ops.softmax(x), {{0.5, 0.5, 0}, {0, 1 / (1 + math.exp(1)), math.exp(1) / (1 + math.exp(1))}})
    allclose.assert(ops.logsumexp(x, {dims = {2}}), {1000 + math.log(2), math.log(1 + math.exp(1))},
      {rtol = 1e-6, atol = 1e-6})
    allclose.assert(ops.logsumexp(core.tensor {-inf, -inf}), -inf)
    local labels = core.tensor({1, 3}, {dtype = "i64"})
    allclose.assert(ops.cross_entropy(x, labels, {reduction = "none"}), {math.log(2), math.log(1 + math.exp(1)) - 1})
  end)

  it("of bce are Keras' caps in f32", function()
    local p, target = core.tensor {0, 1, 0, 1}, core.tensor {1, 0, 0, 1}
    allclose.assert(ops.bce(p, target, {reduction = "none"}), {16.118095, 15.942385, 0, 0}, {rtol = 1e-6, atol = 3e-7})
  end)

  it("of kl_normal stay finite for a huge log variance", function()
    for _, dtype in ipairs {"f32", "f64"} do
      local mean = core.tensor({0, 0, 0}, {dtype = dtype}):requires_grad_(true)
      local logvar = core.tensor({1e4, -1e4, 0}, {dtype = dtype}):requires_grad_(true)
      local kl = ops.kl_normal(mean, logvar, {reduction = "none"})
      kl:sum():backward()
      for _, t in ipairs {kl, logvar.grad, mean.grad} do
        for _, v in ipairs(t:totable()) do assert.is_true(v == v and math.abs(v) < inf, tostring(v)) end
      end
    end
  end)

  it("reach the reductions of nothing", function()
    local empty = core.tensor({}, {dtype = "f32"})
    assert.are.equal(0, ops.sum(empty):item())
    for _, name in ipairs {"mean", "max", "min", "logsumexp"} do
      local ok, message = pcall(ops[name], empty)
      assert.is_false(ok, name)
      assert.is_truthy(tostring(message):find(name, 1, true))
    end
  end)

  it("share the gradient among ties", function()
    local x = core.tensor({1, 3, 3, 2}, {dtype = "f64"}):requires_grad_(true)
    ops.max(x):backward()
    allclose.assert(x.grad, {0, 0.5, 0.5, 0})
    local a = core.tensor({1, 2}, {dtype = "f64"}):requires_grad_(true)
    local b = core.tensor({1, 3}, {dtype = "f64"}):requires_grad_(true)
    ops.maximum(a, b):sum():backward()
    allclose.assert(a.grad, {0.5, 0})
    allclose.assert(b.grad, {0.5, 1})
  end)

  it("pick the first maximum of a pool", function()
    local x = ops.full {shape = {1, 2, 2, 1}, value = 1, dtype = "f64"}:requires_grad_(true)
    ops.max_pool2d(x, {kernel = 2}):sum():backward()
    allclose.assert(x.grad, {1, 0, 0, 0})
  end)

  it("of a blur: constants and sums stay, whatever the radius", function()
    for _, a in ipairs {{sigma = 0.4}, {sigma = 2}, {sigma = 3, radius = 40}} do
      local x = ops.uniform({2, 7, 5, 3}, 0, 1, "f64")
      local dims = {dims = {2, 3}}
      allclose.assert(ops.sum(ops.gaussian_blur(x, a), dims), ops.sum(x, dims):totable(), {rtol = 1e-13, atol = 0})
      local ones = ops.full({1, 7, 5, 1}, 1, "f64")
      allclose.assert(ops.gaussian_blur(ones, a), ones:totable(), {rtol = 1e-13, atol = 0})
    end
    local x = ops.uniform({1, 3, 3, 1}, 0, 1, "f64")
    for _, sigma in ipairs {1e-300, 0.1} do allclose.assert(ops.gaussian_blur(x, sigma, 2), x:totable()) end
  end)

  it("of bilinear upsampling: an infinity reaches only the pixels next to it", function()
    local x = core.tensor({1, 1, inf, 1, 1}, {dtype = "f64"}):reshape(1, 1, 5, 1)
    local y = ops.upsample_bilinear2d(x, {scale = {1, 3}}):reshape(15)
    allclose.assert(y, {1, 1, 1, 1, 1, inf, inf, inf, inf, inf, 1, 1, 1, 1, 1})
  end)

  it("put the odd pixel of 'same' after", function()
    -- 4 -> 2 with kernel 3 and stride 2: windows 1..3 and 3..4, so the last one meets the padding
    local x = ops.arange {start = 1, stop = 4, dtype = "f64"}:reshape {1, 1, 4, 1}
    local w = ops.full {shape = {1, 3, 1, 1}, value = 1, dtype = "f64"}
    allclose.assert(ops.conv2d(x, w, {stride = {1, 2}, padding = "same"}), {6, 7})
    -- and its transpose keeps the first columns: full result of 5, cropped 0 before and 1 after
    local y = ops.conv_transpose2d(x:slice {dim = 3, start = 1, stop = 2}, w, {stride = {1, 2}, padding = "same"})
    allclose.assert(y, {1, 1, 3, 2})
  end)

  it("are counted from 1 in labels, indices and argmax", function()
    local x = core.tensor {{1, 5, 2}, {9, 0, 3}}
    assert.are.same({2, 1}, ops.argmax(x, {dim = 2}):totable())
    assert.are.same({{1, 0, 0}, {0, 0, 1}}, ops.one_hot(core.tensor({1, 3}, {dtype = "i64"}), {classes = 3}):totable())
    assert.are.same({{9, 0, 3}}, x:index_select(core.tensor({2}, {dtype = "i64"}), {dim = 1}):totable())
    for _, bad in ipairs {0, 4, -1} do
      local ok, message = pcall(ops.index_select, x, core.tensor({bad}, {dtype = "i64"}), {dim = 2})
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find("index_select", 1, true))
    end
  end)
end)
