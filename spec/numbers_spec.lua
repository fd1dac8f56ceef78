-- SPDX-License-Identifier: MIT
-- Numbers at their edges: infinite gradients of what a mask discards, squares that leave the range, dtypes of Lua's
-- numbers, long sums, supports of distributions. References are closed forms, plain loops, and digits of mpmath 1.3.
local marea = require "marea"
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local message_of_call = require "spec.support.message_of"
local nn, optim, dist, ops = marea.nn, marea.optim, marea.dist, core.ops

local close, inf, nan = allclose.assert, math.huge, 0 / 0

local function leaf(values, dtype) return marea.tensor(values, {dtype = dtype or "f64"}):requires_grad_() end

local function both(f)
  for _, dtype in ipairs{"f32", "f64"} do
    f(dtype, function(values) return marea.tensor(values, {dtype = dtype}) end)
  end
end

local function message_of(f, ...)
  local arguments = table.pack(...)
  return message_of_call(function()
    f(table.unpack(arguments, 1, arguments.n)) -- no tail call: the message names this line
  end)
end

local function same(list, t)
  local got = allclose.flat(t)
  assert.are.equal(#list, #got)
  for i, expected in ipairs(list) do
    local text = ("element %d: expected %s, got %s"):format(i, expected, got[i])
    assert.is_true(got[i] == expected or (expected ~= expected and got[i] ~= got[i]), text)
  end
end

-- ---- masks ----

describe("a gradient of what a mask discards", function()
  --- name, f, inputs, for each input which elements are discarded (true)
  local masks = {
    {"maximum", ops.maximum, {{-1, 3, inf, -inf}, {2, 1, 0, 5}},
      {{true, false, false, true}, {false, true, true, false}}},
    {"minimum", ops.minimum, {{-1, 3, inf, -inf}, {2, 1, 0, 5}},
      {{false, true, true, false}, {true, false, false, true}}},
    {"clamp", function(x) return x:clamp(-1, 1) end, {{-2, 0.5, inf, -inf}}, {{true, false, true, true}}},
    {"relu", ops.relu, {{-2, 3, inf, -inf}}, {{true, false, false, true}}},
    {"leaky_relu of slope 0", function(x) return x:leaky_relu(0) end, {{-2, 3, inf, -inf}},
      {{true, false, false, true}}},
    {"elu of alpha 0", function(x) return x:elu(0) end, {{-2, 3, inf, -inf}}, {{true, false, false, true}}},
    {"abs", ops.abs, {{0, 3}}, {{true, false}}},
    {"pow", ops.pow, {{0, 2, 3}, {0, 0, 2}}, {{true, true, false}, {true, false, false}}},
    {"where", function(a, b) return ops.where(marea.tensor({1, 0}, {dtype = "u8"}), a, b) end, {{1, inf}, {nan, 2}},
      {{false, true}, {true, false}}},
    {"l1", function(a, b) return a:l1(b, "none") end, {{1, 2}, {1, 5}}, {{true, false}, {true, false}}},
    {"huber", function(a, b) return a:huber(b, "none") end, {{1, 2}, {1.5, 5}}, {{false, false}, {false, false}}},
    {"bce", function(p, t) return p:bce(t, "none") end, {{0, 0.5, 1}, {1, 1, 1}}, {{true, false, true}}},
    {"max", function(x) return x:max{dims = {1}, keepdim = true}:expand(3) end, {{1, 3, -inf}}, {{true, false, true}}},
    {"min", function(x) return x:min{dims = {1}, keepdim = true}:expand(3) end, {{1, 3, inf}}, {{false, true, true}}},
  }

  for _, case in ipairs(masks) do
    it("is 0 in " .. case[1] .. ", whatever arrives", function()
      both(function(dtype)
        for _, arriving in ipairs{inf, -inf, nan, 2} do
          local xs = {}
          for i, values in ipairs(case[3]) do xs[i] = leaf(values, dtype) end
          local y = case[2](table.unpack(xs))
          local got = marea.grad(y, xs, {seed = marea.full_like(y, arriving)})
          for i, discarded in ipairs(case[4]) do
            for k, value in ipairs(allclose.flat(got[i])) do
              if discarded[k] then assert.are.equal(0, value) else assert.is_true(value ~= 0) end
            end
          end
        end
      end)
    end)
  end

  it("is 0 in dropout and in the pools, whatever arrives", function()
    marea.seed(1)
    local x = leaf{1, 2, 3, 4, 5, 6, 7, 8}
    local y = x:dropout(0.5)
    local kept, g = allclose.flat(y), allclose.flat(marea.grad(y, x, {seed = marea.full_like(y, inf)}))
    for i, value in ipairs(kept) do assert.are.equal(value == 0 and 0 or inf, g[i]) end
    local image = leaf{{{{1}, {2}}, {{4}, {3}}}}
    local pooled = image:max_pool2d(2)
    same({0, 0, inf, 0}, marea.grad(pooled, image, {seed = marea.full_like(pooled, inf)}))
  end)

  it("is 0 behind a root that is infinite at 0", function()
    both(function(dtype)
      local x = leaf({-1, 4}, dtype)
      x:maximum(0):sqrt():sum():backward{allow_not_finite = true}
      same({0, 0.25}, x.grad)
    end)
  end)

  it("is 0 in second derivatives too", function()
    local function second(f, values)
      local x = leaf(values)
      local first = marea.grad(f(x):sum(), x, {create_graph = true})
      return marea.grad(first:sum(), x)
    end
    same({0, 0, 0}, second(function(x) return x:std():expand(3) end, {2, 2, 2}))
    same({0, -2 ^ -5}, second(function(x) return x:maximum(0):sqrt() end, {-1, 4}))
    local a, b = leaf{0, 2}, leaf{3, 3} -- d2 (a^b) / db2 = a^b log(a)^2; at a = 0 nothing
    local first = marea.grad(ops.pow(a, b):sum(), b, {create_graph = true})
    close(marea.grad(first:sum(), b), {0, 8 * math.log(2) ^ 2}, {rtol = 1e-12})
    local logits = leaf{{1, 2}, {inf, nan}} -- the second row is ignored
    local labels = marea.tensor({1, 2}, {dtype = "i64"})
    local loss = logits:cross_entropy(labels, {ignore_label = 2})
    local g = marea.grad(loss, logits, {create_graph = true})
    local p = 1 / (1 + math.exp(1))
    local h = marea.grad(g, logits, {seed = marea.tensor({{1, 0}, {inf, nan}}, {dtype = "f64"})})
    close(h, {{p * (1 - p), -p * (1 - p)}, {0, 0}}, {rtol = 1e-12})
  end)
end)

-- ---- exponentials ----

local SIZES = {{-1e38, -1e38}, {-3e38, -inf}, {1e30, 1e30, 0}, {-1e30, -1e30, -inf}, {88, 89, 90}, {-inf, -inf}, {5}}

--- Softmax by hand; zeros for a row of -infinity.
local function softmax(row)
  local most, sum, p = math.max(table.unpack(row)), 0, {}
  for i, x in ipairs(row) do
    p[i] = most == -inf and 0 or math.exp(x - most)
    sum = sum + p[i]
  end
  for i in ipairs(p) do p[i] = sum == 0 and 0 or p[i] / sum end
  return p
end

describe("logsumexp and its neighbours", function()
  it("have the softmax as their gradient, however large the numbers", function()
    both(function(dtype)
      for _, row in ipairs(SIZES) do
        local x, p = leaf(row, dtype), softmax(row)
        close(marea.grad(x:logsumexp(), x), p, {rtol = 1e-6})
        close(marea.grad(marea.stack({x, x}, 1):logsumexp{dims = {2}}:sum(), x), marea.tensor(p) * 2, {rtol = 1e-6})
        close(x:softmax(), p, {rtol = 1e-6})
        if row[1] > -inf then
          local label = marea.tensor(1, {dtype = "i64"})
          p[1] = p[1] - 1
          close(marea.grad(x:cross_entropy(label), x), p, {rtol = 1e-6})
          for i in ipairs(p) do p[i] = -p[i] end
          close(marea.grad(x:log_softmax():select(1, 1), x), p, {rtol = 1e-6})
        end
      end
      local huge = dtype == "f64" and 1e300 or 3e38
      local x = leaf({-huge, -huge}, dtype)
      same({0.5, 0.5}, marea.grad(x:logsumexp(), x))
    end)
  end)

  it("tell infinite rows in cross_entropy as log_softmax does", function()
    both(function(_, t)
      local label = marea.tensor({1}, {dtype = "i64"})
      assert.are.equal(inf, t{{-inf, -inf}}:cross_entropy(label):item())
      assert.are.equal(inf, t{{-inf, 0}}:cross_entropy(label, {label_smoothing = 1}):item())
    end)
  end)

  it("take infinite logits in bce_with_logits", function()
    both(function(dtype, t)
      local x = leaf({inf, inf, -inf, -inf, inf, 2, nan}, dtype)
      local target = t{1, 0, 0, 1, 0.5, 0.25, 1}
      local loss = x:bce_with_logits(target, "none")
      local two = math.log(1 + math.exp(-2)) + 2 * 0.75
      close(loss:narrow(1, 1, 6), {0, inf, 0, inf, inf, two}, {rtol = 1e-6})
      assert.is_true(loss[7] ~= loss[7])
      close(marea.grad(loss, x, {seed = marea.full_like(loss, 1)}):narrow(1, 1, 6),
        {0, 1, 0, -1, 0.5, 1 / (1 + math.exp(-2)) - 0.25}, {rtol = 1e-6})
    end)
  end)
end)

describe("an activation's derivative", function()
  it("is its limit at large numbers", function()
    local right = {relu = {1, 0}, leaky_relu = {1, 0.01}, elu = {1, 0}, sigmoid = {0, 0}, tanh = {0, 0},
      softplus = {1, 0}, gelu = {1, 0}, silu = {1, 0}}
    both(function(dtype)
      for name, limits in pairs(right) do
        local x = leaf({1e4, -1e4, 1e8, -1e8, 1e30, -1e30, inf, -inf}, dtype)
        local y = ops[name](x)
        local g = marea.grad(y, x, {seed = marea.full_like(y, 1)})
        for i, value in ipairs(allclose.flat(g)) do close(value, limits[2 - i % 2], {atol = 1e-7}) end
      end
    end)
  end)

  it("has the digits of mpmath for gelu and silu", function()
    local at = {-10, -1.5, -0.25, 0, 0.5, 3, 12}
    local x = leaf(at)
    close(marea.grad(x:gelu():sum(), x), {-7.61840009646481409e-22, -0.127469192229979525, 0.304626645116363974, 0.5,
      0.867495124656162843, 1.01194564720418393, 1}, {rtol = 1e-14, atol = 1e-16})
    close(marea.grad(x:silu():sum(), x), {-0.000408560208657082316, -0.0412941542991429444, 0.376289978429802309, 0.5,
      0.739961187302651809, 1.08810410601516962, 1.00006758546761378}, {rtol = 1e-14, atol = 0})
  end)

  it("is that of the layer in fused activations", function()
    local x = marea.tensor{{-1, 2}}
    local w, image, kernel = marea.eye(2), marea.tensor{{{{-1, 2}}}}, marea.eye(2):reshape(1, 1, 2, 2)
    for _, name in ipairs{"relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "relu6"} do
      local act = {activation = name}
      local expected = ops[name](x)
      close(ops.linear(x, w, nil, act), expected, {rtol = 1e-6})
      close(ops.conv2d(image, kernel, nil, act):reshape(1, 2), expected, {rtol = 1e-6})
      close(ops.conv_transpose2d(image, kernel, nil, act):reshape(1, 2), expected, {rtol = 1e-6})
      local mean, variance = marea.zeros(2), marea.ones(2)
      close(ops.batch_norm_eval(x, mean, variance, nil, nil, {eps = 0, activation = name}), expected, {rtol = 1e-6})
      local layer = nn.Linear{2, 2, activation = name, init = "ones", bias = false}
      close(layer(-x), ops[name](marea.tensor{{-1, -1}}), {rtol = 1e-6})
      local input = leaf({{-1, 2}}, "f32")
      local slope = marea.grad(ops[name](input), input, {seed = marea.ones{1, 2}})
      close(ops.activation_grad(marea.ones{1, 2}, expected, act), slope, {rtol = 1e-6})
    end
    close(ops.linear(x, w, nil, {activation = "elu", slope = 0.5}), x:elu(0.5), {rtol = 1e-6})
  end)
end)

-- ---- squares ----

describe("squares beyond the range of a dtype", function()
  --- Mean and deviation of a list by a plain loop, after dividing by its largest element.
  local function deviation(list, divisor)
    local mean, squares = 0, 0
    for _, v in ipairs(list) do mean = mean + v / #list end
    for _, v in ipairs(list) do squares = squares + (v - mean) ^ 2 end
    return mean, math.sqrt(squares / divisor)
  end

  it("leave std, layer_norm and batch_norm right", function()
    local values = {1, 2, 3, -3}
    local mean, std = deviation(values, 3)
    local _, whole = deviation(values, 4)
    both(function(dtype, t)
      for _, size in ipairs{1e20, 1e-25, 3e18, 1e37, dtype == "f64" and 1e200 or 1, dtype == "f64" and 1e-200 or 1} do
        local x = t(values) * size
        close(x:std() / size, std, {rtol = 1e-6})
        close(x:reshape(4, 1):expand(4, 3):contiguous():std{dims = {1}} / size, {std, std, std}, {rtol = 1e-6})
        close(x:mean() / size, mean, {rtol = 1e-6})
        if size >= 1 then
          local expected = {}
          for i, v in ipairs(values) do expected[i] = (v - mean) / whole end
          close(x:layer_norm(nil, nil, {eps = 0}), expected, {rtol = 1e-5})
          if size < 1e100 then
            close(ops.batch_norm(x:reshape(4, 1), nil, nil, {eps = 0}):reshape(4), expected, {rtol = 1e-5})
          end
        end
      end
      local x = leaf(values, dtype)
      local y = (x * 1e20):std()
      close(marea.grad(y, x) / 1e20, marea.grad(x:std(), x), {rtol = 1e-5})
    end)
    close((marea.ones(100000) * 1e37):mean() / 1e37, 1, {rtol = 1e-6})
    assert.are.equal(inf, (marea.ones(4) * 3e38):sum():item())
    assert.are.equal(inf, marea.tensor{1, inf}:sum():item())
    close((marea.tensor{1.5e18, -1.5e18}:expand(4000, 2):contiguous():var()) / 2.25e36, 8000 / 7999, {rtol = 1e-5})
  end)

  it("leave clip_norm right", function()
    for _, size in ipairs{1e20, 1e-25, 1e-30, 1, 1e37} do
      local a, b = nn.parameter(marea.zeros(2)), nn.parameter(marea.zeros(1))
      local optimizer = optim.SGD{{a, b}, lr = 1, clip_norm = size / 10}
      ops.mul(a, marea.tensor{3, 4} * size):sum():backward()
      ops.mul(b, marea.tensor{12} * size):sum():backward()
      optimizer:step()
      close(a / size, {-3 / 130, -4 / 130}, {rtol = 1e-5})
      close(b / size, {-12 / 130}, {rtol = 1e-5})
    end
  end)

  it("do not hold a weight in Adam, RMSprop and Adagrad", function()
    for _, name in ipairs{"Adam", "AdamW", "RMSprop", "Adagrad"} do
      for _, dtype in ipairs{"f32", "f64"} do
        for _, size in ipairs{dtype == "f64" and 1e200 or 1e20, inf} do
          local p = nn.parameter(marea.zeros(1):to(dtype))
          local optimizer = optim[name]{p, lr = 0.1, weight_decay = 0}
          local before = 0
          for i = 1, 3 do
            ops.mul(p, marea.full({1}, i == 1 and size or 1, dtype)):sum():backward{allow_not_finite = true}
            optimizer:step()
            local now = p:item()
            assert.is_true(now == now and math.abs(now) < 1)
            if i == 1 then assert.is_true(now < -0.05) end
            before = now
          end
          for key, slot in pairs(optimizer:state()) do
            if slot.dtype ~= "i64" then
              local value = slot:item()
              assert.is_true(value == value and math.abs(value) < inf, key)
            end
          end
          assert.is_true(before < 0)
        end
      end
    end
    -- a mean of squares that an earlier version left infinite comes back
    local p, m, v = marea.zeros(1), marea.zeros(1), marea.full({1}, inf)
    ops.adam_step(p, marea.ones(1), m, v, {lr = 0.1, step = 2})
    assert.is_true(v:item() < inf)
  end)
end)

-- ---- numbers of Lua beside tensors ----

describe("a number beside a tensor", function()
  local function result(dtype, n) return (marea.tensor({200, 3}, {dtype = dtype}) + n) end

  it("gives a dtype that depends on its kind and not on its value", function()
    for _, n in ipairs{0, 2, 100, 255} do assert.are.equal("u8", result("u8", n).dtype) end
    for _, n in ipairs{0, -1, 300, math.maxinteger} do assert.are.equal("i64", result("i64", n).dtype) end
    for _, dtype in ipairs{"u8", "i64"} do
      for _, n in ipairs{0.0, 2.0, 1.5, 300.0, -1.0, inf} do assert.are.equal("f32", result(dtype, n).dtype) end
    end
    for _, dtype in ipairs{"f32", "f64"} do
      for _, n in ipairs{2, 2.5, 1e300, math.maxinteger} do assert.are.equal(dtype, result(dtype, n).dtype) end
    end
    for _, op in ipairs{ops.div, ops.pow} do
      assert.are.equal("f32", op(marea.tensor({200, 3}, {dtype = "u8"}), 300).dtype)
      assert.are.equal("f32", op(marea.tensor({200, 3}, {dtype = "i64"}), 2).dtype)
    end
    close(marea.tensor({150}, {dtype = "u8"}) / 300, {0.5})
  end)

  it("wraps around in the dtype, and carries integers exactly", function()
    same({44, 103}, result("u8", 100))
    local large = (1 << 53) + 1
    assert.are.equal(large + 200, result("i64", large)[1])
    assert.are.equal(1, marea.tensor({large}, {dtype = "i64"}):eq(large)[1])
    assert.are.equal(0, marea.tensor({large}, {dtype = "i64"}):eq(large - 1)[1])
    assert.are.equal(large, ops.where(marea.tensor({0}, {dtype = "u8"}), marea.tensor({1}, {dtype = "i64"}), large)[1])
  end)

  it("is refused where the dtype has no such integer, in words that help", function()
    local x = marea.tensor({200, 3}, {dtype = "u8"})
    for _, n in ipairs{300, -1, 256, math.maxinteger, math.mininteger} do
      for _, f in ipairs{ops.add, ops.mul, ops.eq, ops.lt, ops.maximum} do
        local message = message_of(f, x, n)
        assert.truthy(message:find(("%d is not an integer of u8, 0 to 255"):format(n), 1, true), message)
        assert.truthy(message:find("'i64'", 1, true))
        assert.truthy(message_of(f, n, x):find("argument 'a'", 1, true))
      end
      assert.truthy(message_of(function() x:add_(n) end):find("add_: argument 'b'", 1, true))
    end
    same({500, 303}, x:to "i64" + 300) -- the advice
    same({200, 3}, x)
  end)

  it("is refused in place where the result would be real", function()
    for _, dtype in ipairs{"u8", "i64"} do
      for _, n in ipairs{1.5, 2.0} do
        local x = marea.tensor({1, 2}, {dtype = dtype})
        assert.truthy(message_of(function() x:add_(n) end):find("does not fit in place", 1, true))
        same({1, 2}, x)
      end
    end
  end)

  it("is exact as an argument", function()
    local large = math.maxinteger
    assert.are.equal(large, marea.full({2}, large, "i64")[2])
    assert.are.equal(math.mininteger, marea.full({2}, math.mininteger, "i64")[2])
    assert.are.equal((1 << 62), marea.full({1}, 2.0 ^ 62, "i64")[1])
    assert.are.equal(large - 1, marea.full_like(marea.zeros{2, dtype = "i64"}, large - 1)[1])
    assert.are.equal(large, marea.tensor({1, 2}, {dtype = "i64"}):pad({1, 0}, large)[1])
    local x = marea.tensor({large, 5, math.mininteger}, {dtype = "i64"})
    same({large - 1, 7, 7}, x:clamp(7, large - 1))
    same({255, 200}, marea.tensor({255, 200}, {dtype = "u8"}):clamp(-5, 300))
    same({3, 2}, marea.tensor({255, 0}, {dtype = "u8"}):clamp(1.5, 3.5))
    same({large - 4, large - 2, large}, marea.arange(large - 4, large, 2, "i64"))
    same({math.mininteger + 1, math.mininteger}, marea.arange(math.mininteger + 1, math.mininteger, -1, "i64"))
    for _, bad in ipairs{2.0 ^ 63, 1.5, nan, inf} do
      local message = message_of(marea.full, {1}, bad, "i64")
      assert.truthy(message:find("expected an integer of 64 bits for dtype i64", 1, true))
    end
    assert.truthy(message_of(marea.full, {1}, 300, "u8"):find("an integer in 0..255 for dtype u8, got 300", 1, true))
    assert.truthy(message_of(marea.arange, 250, 260, 1, "u8"):find("0..255", 1, true))
  end)

  it("sums integers to a shape", function()
    local x = marea.arange(1, 6, 1, "i64"):reshape(2, 3)
    local y = x:sum_to{1, 3}
    assert.are.equal("i64", y.dtype)
    same({5, 7, 9}, y)
    same({510}, marea.tensor({255, 255}, {dtype = "u8"}):sum_to{1})
  end)
end)

describe("sample_normal", function()
  it("has the gradient of its noise, beside any mean", function()
    local n = 1000
    for _, mean in ipairs{0, 100, 1e6} do
      marea.seed(3)
      local m, logvar = leaf(marea.full({n}, mean):totable(), "f32"), leaf(marea.full({n}, -24):totable(), "f32")
      local y = ops.sample_normal(m, logvar)
      marea.seed(9) -- the gradient is that of the noise drawn, not of noise drawn now
      y:sum():backward()
      marea.seed(3)
      local spread = ops.sample_normal(marea.zeros{n, dtype = "f64"}, marea.full({n}, -24, "f64"))
      close(logvar.grad, spread * 0.5, {rtol = 1e-6})
      close(m.grad, marea.ones(n))
    end
  end)
end)

-- ---- long sums ----

describe("a product with a long inner side", function()
  it("loses no digits", function()
    local tenth = marea.full({1}, 0.1)[1]
    for _, k in ipairs{100000, 1000003} do
      local v = marea.full({k}, 0.1)
      close(v:matmul(v) / (tenth * tenth * k), 1, {rtol = 1e-6})
      for _, shape in ipairs{{1, 3}, {3, 1}, {2, 2}, {4, 8}} do
        local m, n = shape[1], shape[2]
        for t = 0, 3 do
          local ta, tb = t & 1 == 1, t & 2 == 2
          if k == 100000 or m * n <= 4 then
            local a, b = marea.full(ta and {k, m} or {m, k}, 0.1), marea.full(tb and {n, k} or {k, n}, 0.1)
            local y = a:matmul(b, {transpose_a = ta, transpose_b = tb}) / (tenth * tenth * k)
            close(y, marea.ones(m, n), {rtol = 1e-6})
          end
        end
      end
    end
  end)

  it("adds up what a plain loop does", function()
    marea.seed(2)
    local k = 5000
    for _, shape in ipairs{{1, 1}, {1, 5}, {5, 1}, {3, 4}} do
      local m, n = shape[1], shape[2]
      local a, b = marea.normal{m, k}, marea.normal{k, n}
      local x, y, expected = a:totable(), b:totable(), {}
      for i = 1, m do
        expected[i] = {}
        for j = 1, n do
          local sum = 0
          for l = 1, k do sum = sum + x[i][l] * y[l][j] end
          expected[i][j] = sum
        end
      end
      close(a:matmul(b), expected, {atol = 1e-4, rtol = 1e-6})
      close(a:transpose(1, 2):contiguous():matmul(b, {transpose_a = true}), expected, {atol = 1e-4, rtol = 1e-6})
      close(a:matmul(b:transpose(1, 2):contiguous(), {transpose_b = true}), expected, {atol = 1e-4, rtol = 1e-6})
    end
  end)

  it("has the same bits for any number of threads", function()
    marea.seed(5)
    local a, b = marea.normal{3, 200000}, marea.normal{200000, 4}
    local before = core.threads()
    core.set_threads(1)
    local one = a:matmul(b)
    core.set_threads(2)
    close(a:matmul(b), one, {exact = true})
    core.set_threads(before)
  end)
end)

-- ---- windows ----

describe("convolutions with algorithm = 'direct'", function()
  local function spoilt(value)
    local x = marea.ones{2, 16, 16, 16}
    x[{1, 8, 8, 1}] = value
    return x
  end

  it("read nothing outside their windows, in all passes", function()
    local w = marea.ones{3, 3, 16, 16}
    local y = ops.conv2d(spoilt(1e8), w, {padding = 1, algorithm = "direct"})
    assert.are.equal(144, y[{1, 8, 5, 1}])
    assert.are.equal(144, y[{1, 6, 6, 1}])
    for _, value in ipairs{nan, inf} do
      local attributes = {padding = 1, algorithm = "direct"}
      local function bad(t) return 2 * 16 * 16 * 16 - t:lt(1e30):sum():item() end
      assert.are.equal(9 * 16, bad(ops.conv2d(spoilt(value), w, attributes)))
      local x, weight = marea.ones{2, 16, 16, 16}:requires_grad_(), w:clone():requires_grad_()
      local out = ops.conv2d(x, weight, attributes)
      out:backward(spoilt(value))
      assert.are.equal(9 * 16, bad(x.grad)) -- 9 pixels of all channels see it
      local d = marea.grad(ops.conv2d(spoilt(value), weight, attributes), weight, {seed = marea.ones{2, 16, 16, 16}})
      assert.are.equal(9 * 16, 9 * 256 - d:lt(1e30):sum():item()) -- taps and outputs of the one channel read
      assert.are.equal(9 * 16, bad(ops.conv_transpose2d(spoilt(value), w, attributes)))
    end
  end)

  it("come as an argument of the layers", function()
    local layer = nn.Conv2d{16, 16, kernel = 3, padding = 1, algorithm = "direct", init = "ones", bias = false}
    assert.are.equal(144, layer(spoilt(1e8))[{1, 8, 5, 1}]:item())
    assert.truthy(tostring(layer):find("algorithm direct", 1, true))
    assert.truthy(message_of(nn.Conv2d, {1, 2, kernel = 3, algorithm = "exact"}):find("'auto', 'direct'", 1, true))
    local back = nn.ConvTranspose2d{16, 16, kernel = 3, padding = 1, algorithm = "direct", init = "ones", bias = false}
    assert.are.equal(144, back(spoilt(1e8))[{1, 8, 5, 1}]:item())
  end)

  it("are chosen by MAREA_CONV", function()
    local program = "local m = require 'marea' local x = m.ones{2, 16, 16, 16} x[{1, 8, 8, 1}] = 1e8 "
      .. "io.write(m.conv2d(x, m.ones{3, 3, 16, 16}, {padding = 1})[{1, 8, 5, 1}])"
    local function run(way)
      local pipe = assert(io.popen(("MAREA_CONV=%s LUA_PATH='%s' LUA_CPATH='%s' lua5.4 -e \"%s\" 2>&1"):format(way,
        package.path, package.cpath, program)))
      local text = pipe:read "a"
      pipe:close()
      return text
    end
    assert.are.equal(144, tonumber(run "direct"))
    assert.truthy(run "exact":find("MAREA_CONV ('exact')", 1, true))
  end)

  it("pad images without pixels to images without pixels", function()
    for _, stride in ipairs{1, 2, 3} do
      local x, w = marea.zeros{2, 0, 5, 3}:requires_grad_(), marea.ones{3, 3, 3, 4}:requires_grad_()
      local y = ops.conv2d(x, w, {padding = "same", stride = stride})
      assert.are.same({2, 0, (5 + stride - 1) // stride, 4}, table.move(y.shape, 1, 4, 1, {}))
      y:sum():backward()
      close(w.grad, marea.zeros{3, 3, 3, 4})
    end
  end)
end)

-- ---- distributions ----

local function f64(values) return marea.tensor(values, {dtype = "f64"}) end

describe("a distribution's log_prob", function()
  it("is -infinity outside of the support and at infinity, and NaN for NaN", function()
    local cases = { -- distribution, values, what must be -infinity
      {dist.Normal(0, 1), {-inf, inf}}, {dist.Laplace(0, 1), {-inf, inf}}, {dist.Logistic(0, 1), {-inf, inf}},
      {dist.Gumbel(0, 1), {-inf, inf}}, {dist.Uniform(0, 1), {-inf, inf, -0.5, 1.5}},
      {dist.Poisson(1), {-inf, inf, -2, -0.5}},
      {dist.Poisson(3), {inf, -1}}, {dist.Poisson(0), {1, 2}}, {dist.Bernoulli{probs = 0.3}, {-inf, inf, -1, 2}},
      {dist.Bernoulli{logits = 0.3}, {-inf, inf, -1, 2}},
      {dist.Bernoulli{probs = 0}, {1}}, {dist.Bernoulli{probs = 1}, {0}},
      {dist.RelaxedBernoulli{probs = 0.3, temperature = 1}, {-inf, inf, -1, 2}},
    }
    for _, case in ipairs(cases) do
      both(function(dtype)
        local x = leaf(case[2], dtype)
        local y = case[1]:log_prob(x)
        for _, value in ipairs(allclose.flat(y)) do assert.are.equal(-inf, value) end
        local z = case[1]:log_prob(marea.tensor({nan}, {dtype = dtype}))
        assert.is_true(z:item() ~= z:item(), getmetatable(case[1]).__name)
      end)
    end
    assert.are.equal(-inf, dist.Gumbel(0, 1):log_prob(-inf))
    local logits = marea.zeros(3)
    local relaxed = dist.LogGumbelSoftmax{logits = logits, temperature = 0.5}
    assert.are.equal(-inf, relaxed:log_prob(marea.tensor{-inf, -1, -1}):item())
  end)

  it("leaves gradients alone where a value cannot be", function()
    local rate = leaf{2, 2, 2}
    local y = dist.Poisson(rate):log_prob(f64{-1, 3, inf})
    marea.grad(y, rate, {seed = f64{1, 1, 1}})
    same({0, 3 / 2 - 1, 0}, marea.grad(dist.Poisson(rate):log_prob(f64{-1, 3, inf}), rate, {seed = f64{1, 1, 1}}))
    local loc = leaf{0, 1}
    close(marea.grad(dist.Logistic(loc, 1):log_prob(f64{-inf, 1}), loc, {seed = f64{1, 1}}), {0, 0})
  end)

  it("takes parameters that are numbers in the dtype of the value", function()
    close(dist.Poisson(0.1):log_prob(f64{3}), {-8.7995147482101918919}, {rtol = 1e-15, atol = 0})
    close(dist.Bernoulli{probs = 0.3}:log_prob(f64{1}), {-1.2039728043259360296}, {rtol = 1e-15, atol = 0})
    close(dist.Bernoulli{logits = 0.3}:log_prob(f64{1}), {-math.log(1 + math.exp(-0.3))}, {rtol = 1e-15, atol = 0})
    local x, t, p = 0.3, 0.7, 0.2 -- t e^-s / (x (1 - x) (1 + e^-s)^2) with s = t logit(x) - logit(p)
    local s = t * math.log(x / (1 - x)) - math.log(p / (1 - p))
    close(dist.RelaxedBernoulli{probs = p, temperature = t}:log_prob(f64{x}),
      {math.log(t) - s - 2 * math.log(1 + math.exp(-s)) - math.log(x * (1 - x))}, {rtol = 1e-14, atol = 0})
  end)

  it("does so in kl, whichever side is of numbers", function()
    local one, other = dist.Bernoulli{probs = 0.3}, dist.Bernoulli{probs = f64{0.7}}
    close(dist.kl(one, other), {0.33891914415488140669}, {rtol = 1e-14, atol = 0})
    close(dist.kl(dist.Bernoulli{probs = f64{0.7}}, one), {0.33891914415488140669}, {rtol = 1e-14, atol = 0})
    close(dist.kl(dist.Poisson(0.1), dist.Poisson(f64{0.3})), {0.1 * math.log(1 / 3) + 0.2}, {rtol = 1e-14, atol = 0})
    local gumbel = dist.kl(dist.Gumbel(0, 0.3), dist.Gumbel(f64{0}, 0.3))
    close(gumbel, {0}, {atol = 1e-15})
    assert.are.equal("f64", dist.kl(dist.Uniform(0, 0.3), dist.Uniform(f64{0}, 0.7)).dtype)
    close(dist.kl(dist.Uniform(0, 0.3), dist.Uniform(f64{0}, 0.7)), {math.log(0.7 / 0.3)}, {rtol = 1e-14, atol = 0})
    assert.are.equal("f64", dist.kl(dist.Laplace(0, 1), dist.Gumbel(f64{0}, 1), {samples = 3}).dtype)
  end)
end)

describe("samples", function()
  it("of half-open intervals never reach the end", function()
    marea.seed(1)
    for _, ends in ipairs{{100, 101}, {0, 1}, {-1, -0.3}, {1e6, 1e6 + 1}, {0.1, 0.1000001}} do
      local x = dist.Uniform(ends[1], ends[2]):sample{400000}
      local high = marea.full({1}, ends[2])[1]
      assert.is_true(x:max():item() < high or high == marea.full({1}, ends[1])[1])
      assert.is_true(x:min():item() >= marea.full({1}, ends[1])[1])
      assert.is_true(marea.uniform({400000}, ends[1], ends[2]):max():item() < high)
    end
    close(dist.Uniform(100, 101):sample{400000}:mean(), 100.5, {atol = 2e-3})
    local low, high = leaf({100}, "f32"), leaf({101}, "f32")
    local x = dist.Uniform(low, high):rsample{1000}
    x:sum():backward()
    close(low.grad + high.grad, {1000}, {rtol = 1e-5})
  end)

  it("take every finite interval", function()
    local x = marea.uniform({1000}, -1.7e308, 1.7e308, "f64")
    assert.is_true(x:min():item() < -1e308 and x:max():item() > 1e308 and x:abs():max():item() <= 1.7e308)
    for _, bad in ipairs{inf, nan} do
      assert.truthy(message_of(marea.uniform, {1}, 0, bad):find("both finite", 1, true))
    end
  end)

  it("are what cannot be otherwise at the ends of probabilities", function()
    same({0, 1}, marea.bernoulli(marea.tensor{0, 1}:reshape(1, 2):expand(1000, 2)):sum(1) / 1000)
    local classes = marea.categorical(marea.tensor{-inf, 0, -inf}:expand(1000, 3))
    assert.are.equal(1000, classes:eq(2):sum():item())
    for _, op in ipairs{ops.gumbel, ops.logistic, ops.laplace} do
      assert.is_true(op{100000}:abs():max():item() < inf)
    end
  end)
end)

describe("polygamma", function()
  it("has the digits of mpmath at large and small numbers", function()
    local cases = {{1, 1e160, 1e-160}, {1, 1e300, 1e-300}, {2, 1e100, -1e-200}, {5, 1e50, 2.4e-249},
      {100, 1e4, -9.379363201543512734e-245}, {3, 2.5, 0.22390584881725205126}, {20, 0.3, -2.3258316052645273246e+29}}
    for _, case in ipairs(cases) do
      close(ops.polygamma(f64{case[2]}, case[1]), {case[3]}, {rtol = case[1] > 50 and 2e-14 or 2e-15, atol = 0})
    end
  end)
end)

describe("schedules", function()
  it("refuse numbers that give no learning rate", function()
    local schedule = optim.schedule
    local bad = {
      {schedule.exponential, {0.1, 0.9, 0}, "exponential: argument 'every'"},
      {schedule.exponential, {0.1, -1}, "exponential: argument 'rate'"},
      {schedule.exponential, {inf, 0.5}, "exponential: argument 'lr'"},
      {schedule.step, {0.1, 0}, "step: argument 'every'"},
      {schedule.step, {0.1, 2.5}, "step: argument 'every'"},
      {schedule.step, {0.1, 2, -1}, "step: argument 'factor'"},
      {schedule.cosine, {0.1, 0}, "cosine: argument 'steps'"},
      {schedule.cosine, {0.1, 10, -1}, "cosine: argument 'final'"},
      {schedule.warmup, {-1, 0.1}, "warmup: argument 'steps'"},
      {schedule.warmup, {3, nan}, "constant: argument 'lr'"},
      {schedule.inverse_time, {0.1, nan}, "inverse_time: argument 'decay'"},
      {schedule.constant, {-1}, "constant: argument 'lr'"},
    }
    for _, case in ipairs(bad) do
      local message = message_of(case[1], table.unpack(case[2]))
      assert.truthy(message:find(case[3], 1, true), message)
    end
    assert.are.equal(0.1, schedule.warmup(0, 0.1)(1))
  end)
end)

describe("marea.grad", function()
  it("gives false for what y does not depend on", function()
    local x, z = leaf{1, 2}, leaf{3}
    local g = marea.grad((x * x):sum(), {x, z})
    same({2, 4}, g[1])
    assert.is_false(g[2])
    assert.is_false(marea.grad((x * 2):sum(), z))
  end)
end)
