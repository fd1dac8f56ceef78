-- SPDX-License-Identifier: MIT
-- Remainders, products, norms, tests, sorting and indexing by tensors, against plain loops of Lua, where values are
-- edges:
-- NaN, infinities, both zeros, the smallest and largest integers, no elements, one element without a dimension.
local core = require "marea.core"
local marea = require "marea"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"

local INF, NAN = math.huge, 0 / 0
local MIN, MAX = math.mininteger, math.maxinteger

local function f64(list) return marea.tensor(list, {dtype = "f64"}) end
local function i64(list) return marea.tensor(list, {dtype = "i64"}) end
local function u8(list) return marea.tensor(list, {dtype = "u8"}) end

--- Equal as Lua's numbers are told apart: NaN is NaN, 0 is not -0, 1 is not 1.0.
local function same_number(a, b)
  if a ~= a or b ~= b then return a ~= a and b ~= b end
  return a == b and math.type(a) == math.type(b) and (a ~= 0 or 1 / a == 1 / b)
end

local function assert_numbers(expected, actual, what)
  assert.are.equal(#expected, #actual, what)
  for i = 1, #expected do
    if not same_number(expected[i], actual[i]) then
      error(("%s: %d: expected %s, got %s"):format(what or "numbers", i, expected[i], actual[i]), 2)
    end
  end
end

local REALS = {0.0, -0.0, 1, -1, 0.5, -0.5, 3, -3, 0.1, -0.1, 7.5, -7.5, 1e-300, -1e300, 5e-324, INF, -INF, NAN, 1 / 3,
  2 ^ 53,
  -2 ^ 60 - 0.0, 1e22}
local INTEGERS = {0, 1, -1, 2, -2, 3, -3, 7, -7, 255, MIN, MAX, MIN + 1, MAX - 1, 1 << 53 | 1}
local BYTES = {0, 1, 2, 3, 7, 100, 200, 254, 255}

--- All pairs of a list as two lists.
local function pairs_of(list, skip_zero)
  local a, b = {}, {}
  for _, x in ipairs(list) do
    for _, y in ipairs(list) do
      if not (skip_zero and y == 0) then a[#a + 1], b[#b + 1] = x, y end
    end
  end
  return a, b
end

describe("% and //", function()
  local operators = {["%"] = function(a, b) return a % b end, ["//"] = function(a, b) return a // b end}

  it("of f64 are Lua's, to the sign of a zero", function()
    local a, b = pairs_of(REALS)
    for name, f in pairs(operators) do
      local expected = {}
      for i = 1, #a do expected[i] = f(a[i] * 1.0, b[i] * 1.0) end
      assert_numbers(expected, f(f64(a), f64(b)):totable(), name)
    end
  end)

  it("of i64 are Lua's, the smallest integer by -1 included", function()
    local a, b = pairs_of(INTEGERS, true)
    for name, f in pairs(operators) do
      local expected = {}
      for i = 1, #a do expected[i] = f(a[i], b[i]) end
      assert_numbers(expected, f(i64(a), i64(b)):totable(), name)
    end
  end)

  it("of u8 are Lua's", function()
    local a, b = pairs_of(BYTES, true)
    for name, f in pairs(operators) do
      local expected = {}
      for i = 1, #a do expected[i] = f(a[i], b[i]) end
      local y = f(u8(a), u8(b))
      assert.are.equal("u8", y.dtype)
      assert_numbers(expected, y:totable(), name)
    end
  end)

  it("of f32 are exact but for one rounding, on every ratio", function()
    marea.seed(1)
    local a, b = marea.uniform({8000}, -1, 1), marea.uniform({8000}, -1, 1)
    a = a * (marea.uniform({8000}, -60, 60) * math.log(2)):exp()
    local r, q = (a % b):totable(), (a // b):totable()
    local la, lb = a:totable(), b:totable()
    for i = 1, #la do
      local exact = math.fmod(la[i], lb[i]) -- a float's, so exact in f32 as well
      if exact * lb[i] < 0 then exact = string.unpack("f", string.pack("f", exact + lb[i])) end
      if exact ~= r[i] then error(("%a %% %a: expected %a, got %a"):format(la[i], lb[i], exact, r[i])) end
      local quotient = math.floor(string.unpack("f", string.pack("f", la[i] / lb[i])))
      assert.are.equal(quotient, q[i])
    end
  end)

  it("take numbers on both sides, and broadcast", function()
    assert.are.same({1, 0, 2}, (7 % i64{3, 7, 5}):totable())
    assert.are.same({-2, 2}, (i64{-4, 5} // 2):totable())
    assert.are.same({{1, 2}, {0, 0}}, (i64{{5}, {6}} % i64{2, 3}):to("f64"):totable())
    assert.are.equal("f32", (i64{5} % 2.5).dtype)
    assert.are.equal(1.5, (marea.tensor(5.5) % 2):item())
  end)

  it("of integers by 0 are an error that changes nothing", function()
    for name, f in pairs{remainder = operators["%"], floor_divide = operators["//"]} do
      for _, t in ipairs{i64{1, 2}, u8{1, 2}} do
        assert.matches(name .. ": argument 'b': %w+ %(%) is 0, by which integers cannot be divided",
          message_of(function() return f(t, 0) end))
        assert.matches("%(2, 1%) has a 0", message_of(function() return f(t, (t - 2):reshape(2, 1):mul(0)) end))
        local before = t:changes()
        assert.is_false(pcall(t[name .. "_"], t, 0))
        assert.are.equal(before, t:changes())
        assert.are.same({1, 2}, t:totable())
      end
    end
    assert.are.equal(0, (i64{} % 0):numel())
    assert.are.same({1, 1}, (i64{{3, 1}, {5, 1}}:transpose(1, 2)[1] // i64{2, 0, 4, 0}["1:4:2"]):totable())
  end)

  it("have the gradients of a - floor(a / b) b", function()
    local a, b = f64{7.5, -7.5, 7.5}:requires_grad_(), f64{2, 2, -2}:requires_grad_()
    local da, db = table.unpack(marea.grad((a % b):sum(), {a, b}))
    assert_numbers({1.0, 1.0, 1.0}, da:totable())
    assert_numbers({-3.0, 4.0, 4.0}, db:totable())
    assert.is_false((a // b).requires_grad)
  end)
end)

describe("prod", function()
  --- The gradient of a product of a row, by leaving one out.
  local function others(list)
    local y = {}
    for i = 1, #list do
      y[i] = 1.0
      for k = 1, #list do if k ~= i then y[i] = y[i] * list[k] end end
    end
    return y
  end

  it("has the right gradient at no zero, one, two and among infinities", function()
    for _, list in ipairs{{2, 3, 4}, {2, 0, 4}, {0, 3, 0}, {0}, {5}, {0, 0, 0, 0, 0}, {1, 2, 3, 4, 5, 6, 0}, {INF, 2,
      0.5},
      {-0.0, 2, 3}, {1e-100, 1e-100, 1e100, 1e150}} do
      local x = f64(list):requires_grad_()
      for i, d in ipairs(marea.grad(x:prod(), x):totable()) do
        assert.is_true(math.abs(d - others(list)[i]) <= 1e-12 * math.abs(d) or d == others(list)[i], tostring(d))
      end
    end
  end)

  it("has the right second gradient at one and two zeros", function()
    for _, list in ipairs{{2, 0, 4, 3}, {0, 3, 0, 5}, {2, 3, 4, 5}} do
      local x = f64(list):requires_grad_()
      local first = marea.grad(x:prod(), x, {create_graph = true})
      for i = 1, #list do
        local row = marea.grad(first['' .. i .. ':' .. i]:sum(), x, {retain_graph = true}):totable()
        for k = 1, #list do
          local expected = k == i and 0.0 or 1.0
          for m = 1, #list do if k ~= i and m ~= i and m ~= k then expected = expected * list[m] end end
          assert.are.equal(expected, row[k])
        end
      end
    end
  end)

  it("folds dims, and integers wrap around", function()
    local x = f64{{{1, 2}, {3, 4}}, {{5, 6}, {7, 8}}}
    assert.are.same({{3, 8}, {35, 48}}, x:prod(2):totable())
    assert.are.same({1 * 2 * 5 * 6, 3 * 4 * 7 * 8}, x:prod{1, 3}:totable())
    assert.are.same({2, 1, 1}, x:prod({2, 3}, true).shape)
    assert.are.equal(MAX * 3, i64{MAX, 3}:prod():item())
    assert.are.equal(65025, u8{255, 255}:prod():item())
    assert.are.equal("i64", u8{1}:prod().dtype)
    assert.are.equal(1, f64{}:prod():item())
    assert.are.equal(1, i64{}:prod():item())
    assert.are.same({1, 1}, marea.zeros{0, 2}:prod(1):totable())
    assert.are.equal(3, marea.tensor(3):prod():item())
    assert.are.equal(1, marea.tensor{1e30, 1e30, 1e-30, 1e-30}:prod():item() // 0.99)
  end)

  it("agrees with a loop on long rows and columns", function()
    marea.seed(2)
    local x = marea.uniform({70000}, 0.999, 1.001)
    local product = 1
    for _, v in ipairs(x:totable()) do product = product * v end
    allclose.assert(x:prod(), product, {rtol = 1e-7, atol = 0})
    local y = x:reshape(10000, 7)
    local columns = {1, 1, 1, 1, 1, 1, 1}
    for i, v in ipairs(x:totable()) do columns[(i - 1) % 7 + 1] = columns[(i - 1) % 7 + 1] * v end
    allclose.assert(y:prod(1), columns, {rtol = 1e-7, atol = 0})
  end)
end)

describe("norm", function()
  it("neither overflows nor vanishes", function()
    for _, dtype in ipairs{"f32", "f64"} do
      local sizes = dtype == "f32" and {1e-40, 1e-30, 1, 1e30, 2e37} or {1e-310, 1e-200, 1e-30, 1, 1e30, 1e200, 1e307}
      for _, size in ipairs(sizes) do
        for p, expected in pairs{[1] = 7, [2] = 5, [3] = 91 ^ (1 / 3), [INF] = 4, [0.5] = 13.928203230275509,
          [50] = 4.0000000454} do
          local y = marea.tensor({3 * size, -4 * size}, {dtype = dtype}):norm(p)
          allclose.assert(y, expected * size, {rtol = size < 1e-35 and 1e-4 or dtype == "f32" and 1e-6 or 1e-9,
            atol = 0},
            ("%s %g %g"):format(dtype, size, p))
          local x = marea.tensor({{3 * size, 1}, {-4 * size, 1}}, {dtype = dtype})
          allclose.assert(x:norm(p, 1)['1:1'], {expected * size},
            {rtol = size < 1e-35 and 1e-4 or dtype == "f32" and 1e-6 or 1e-9, atol = 0})
        end
      end
    end
  end)

  it("of zeros, nothing, infinities and NaN", function()
    for _, p in ipairs{1, 2, 3, 0.5, INF} do
      assert.are.equal(0, f64{0, -0.0}:norm(p):item())
      assert.are.equal(0, f64{}:norm(p):item())
      assert.are.equal(INF, f64{1, -INF}:norm(p):item())
      assert.is_true(same_number(NAN, f64{1, NAN, INF}:norm(p):item()))
      assert.are.same({0, 0}, marea.zeros{0, 2}:norm(p, 1):totable())
      assert.are.equal(2, f64(-2):norm(p):item())
    end
  end)

  it("has the gradient 0 at 0, of every order", function()
    for _, p in ipairs{1, 2, 3, 1.5, 0.5, INF} do
      local x = f64{0, 0, 0}:requires_grad_()
      local first = marea.grad(x:norm(p), x, {create_graph = true})
      assert_numbers({0.0, 0.0, 0.0}, first:abs():totable(), "p = " .. p)
      if first.requires_grad then
        assert_numbers({0.0, 0.0, 0.0}, marea.grad(first:sum(), x):abs():totable(), "second, p = " .. p)
      end
      local y = f64{{0, 0}, {3, -4}}:requires_grad_()
      local rows = marea.grad(y:norm(p, 2):sum(), y):totable()
      assert_numbers({0.0, 0.0}, {math.abs(rows[1][1]), math.abs(rows[1][2])})
      assert.is_true(rows[2][1] >= 0 and rows[2][2] < 0)
    end
  end)

  it("has the right gradient for huge and tiny numbers", function()
    for _, size in ipairs{1e-30, 1e30} do
      local x = marea.tensor{3 * size, -4 * size}:requires_grad_()
      allclose.assert(marea.grad(x:norm(), x), {0.6, -0.8}, {rtol = 1e-6, atol = 0})
      allclose.assert(marea.grad(x:norm(3), x), {9 / 91 ^ (2 / 3), -16 / 91 ^ (2 / 3)}, {rtol = 1e-6, atol = 0})
      allclose.assert(marea.grad(x:norm(INF), x), {0, -1})
    end
    local tie = f64{2, -2, 1}:requires_grad_()
    assert_numbers({0.5, -0.5, 0.0}, marea.grad(tie:norm(INF), tie):totable())
  end)

  it("says what it wants", function()
    for _, p in ipairs{0, -1, NAN} do
      assert.matches("norm: argument 'p': expected a number above 0 %(infinity: the largest |x|%)",
        message_of(function() return f64{1}:norm(p) end))
    end
    assert.matches("norm: argument 'x': expected dtype f32 or f64", message_of(function() return i64{1}:norm() end))
  end)
end)

describe("any, all, isnan, isinf, isfinite", function()
  it("agree with loops on edges of every dtype", function()
    local values = {f32 = {0, -0.0, 1, -1, 1e-45, INF, -INF, NAN}, f64 = {0, -0.0, 5e-324, 1e308, INF, -INF, NAN},
      i64 = {0, 1, MIN, MAX}, u8 = {0, 1, 255}}
    for dtype, list in pairs(values) do
      local x = marea.tensor(list, {dtype = dtype})
      local expected = {isnan = {}, isinf = {}, isfinite = {}}
      for i, v in ipairs(list) do
        expected.isnan[i] = v ~= v and 1 or 0
        expected.isinf[i] = (v == INF or v == -INF) and 1 or 0
        expected.isfinite[i] = (v == v and v ~= INF and v ~= -INF) and 1 or 0
        local one = marea.tensor(v, {dtype = dtype})
        assert.are.equal(v ~= 0 and 1 or 0, one:any():item())
        assert.are.equal(v ~= 0 and 1 or 0, one:all():item())
      end
      for name, bits in pairs(expected) do
        assert.are.equal("u8", x[name](x).dtype)
        assert.are.same(bits, x[name](x):totable(), name .. " of " .. dtype)
      end
    end
  end)

  it("find the one element that decides, wherever it is", function()
    for _, n in ipairs{1, 2, 511, 512, 513, 40000} do
      for _, at in ipairs{1, n // 2 + 1, n} do
        local x = marea.zeros(n)
        assert.are.equal(0, x:any():item())
        assert.are.equal(1, (x + 1):all():item())
        x[at] = -1e-45
        assert.are.equal(1, x:any():item())
        assert.are.equal(0, (x + 1e-45):eq(1e-45):all():item())
        local column = x:unsqueeze(2):mul(marea.tensor{0, 1})
        assert.are.same({0, 1}, column:any(1):totable())
        assert.are.equal(1, column:any(2):sum():item())
      end
    end
  end)

  it("of nothing, and over dims", function()
    assert.are.equal(0, f64{}:any():item())
    assert.are.equal(1, f64{}:all():item())
    local x = u8{{{1, 0}, {2, 0}}, {{0, 0}, {3, 4}}}
    assert.are.same({{1, 0}, {1, 1}}, x:any(2):totable())
    assert.are.same({{1, 0}, {0, 0}}, x:all(2):totable())
    assert.are.same({{{1}}}, x:any({1, 2, 3}, true):totable())
    assert.are.same({1, 1}, x:any{1, 2}:totable())
    assert.are.same({1, 0, 1}, marea.zeros{3, 0}:all(2):ne(marea.tensor{0, 1, 0}):totable())
  end)
end)

-- ---- order ----

--- Positions of a list in order, NaN last; stable, by insertion.
local function ordered(list, descending)
  local at = {}
  for i = 1, #list do
    local k = #at
    while k > 0 do
      local a, b = list[at[k]], list[i]
      local before = a ~= a and b == b or (a == a and b == b and (descending and b > a or not descending and b < a))
      if not before then break end
      at[k + 1] = at[k]
      k = k - 1
    end
    at[k + 1] = i
  end
  return at
end

describe("sort", function()
  local lists = {f32 = {3, NAN, -0.0, 0.0, 1, 1, -INF, INF, 1e-45, -1e-45, NAN, 2}, f64 = {1, 5e-324, -0.0, 0, NAN,
    -1e308, INF, 1},
    i64 = {MAX, 0, MIN, -1, 3, 3, MIN}, u8 = {255, 0, 128, 127, 0, 255}}

  it("is stable, with NaN last, for every dtype in both directions", function()
    for dtype, list in pairs(lists) do
      for _, descending in ipairs{false, true} do
        local x = marea.tensor(list, {dtype = dtype})
        local wide, at = x:totable(), ordered(x:totable(), descending)
        local values, positions = x:sort(-1, descending)
        local expected = {}
        for i, k in ipairs(at) do expected[i] = wide[k] end
        assert_numbers(expected, values:totable(), dtype)
        assert.are.same(at, positions:totable())
        assert.are.same(at, x:argsort{descending = descending}:totable())
        for k = 0, #list do
          local top, where = x:topk(k, 1, descending)
          assert_numbers(table.move(expected, 1, k, 1, {}), k > 0 and top:totable() or {}, dtype)
          assert.are.same(table.move(at, 1, k, 1, {}), k > 0 and where:totable() or {})
        end
      end
    end
  end)

  it("agrees with a loop for every length, on few and many values", function()
    marea.seed(3)
    for _, n in ipairs{0, 1, 2, 15, 16, 17, 31, 33, 100, 1000, 2047, 2048, 5000} do
      for _, high in ipairs{3, 1 << 40} do
        local x = marea.randint({n}, -high, high)
        local list = n > 0 and x:totable() or {}
        local at = {}
        for i = 1, n do at[i] = i end
        table.sort(at, function(a, b) return list[a] < list[b] or (list[a] == list[b] and a < b) end)
        local _, positions = x:sort()
        assert.are.same(at, n > 0 and positions:totable() or {}, n .. " of " .. high)
        local narrow = x:to "f32"
        list = n > 0 and narrow:totable() or {}
        table.sort(at, function(a, b) return list[a] > list[b] or (list[a] == list[b] and a < b) end)
        _, positions = narrow:sort(1, true)
        assert.are.same(at, n > 0 and positions:totable() or {}, n .. " of " .. high)
      end
    end
  end)

  it("goes along any dimension of any strides", function()
    local x = f64{{3, 1, 2}, {9, 7, 8}}
    assert.are.same({{1, 2, 3}, {7, 8, 9}}, (x:sort()):totable())
    assert.are.same({{3, 1, 2}, {9, 7, 8}}, (x:sort(1)):totable())
    assert.are.same({{1, 7}, {2, 8}, {3, 9}}, (x:transpose(1, 2):sort(1)):totable())
    assert.are.same({{9, 7, 8}}, (x:topk(1, 1)):totable())
    assert.are.same({{2, 2, 2}}, select(2, x:topk(1, 1)):totable())
    local big = marea.uniform{300, 50, 3}
    allclose.assert((big:sort(1)), (big:permute(2, 3, 1):contiguous():sort(3)):permute(3, 1, 2):totable(),
      {exact = true})
  end)

  it("sends gradients where the values came from", function()
    local x = f64{3, 1, NAN, 2}:requires_grad_()
    local weights = f64{10, 20, 30, 40}
    assert_numbers({30.0, 10.0, 40.0, 20.0}, marea.grad(((x:sort()) * weights):sum(), x):totable())
    local top = x:topk(2)
    assert_numbers({10.0, 0.0, 0.0, 20.0}, marea.grad((top * weights["1:2"]):sum(), x):totable())
    local _, positions = x:sort()
    assert.is_false(positions.requires_grad)
  end)

  it("says what it wants", function()
    assert.matches("topk: argument 'k': expected 0 to 3, the size of the dimension, got 4",
      message_of(function() return f64{1, 2, 3}:topk(4) end))
    assert.matches("topk: argument 'k': expected 0 to 3", message_of(function() return f64{1, 2, 3}:topk(-1) end))
    assert.matches("sort: argument 'dim': dimension %-1 does not exist",
      message_of(function() return f64(1):sort() end))
  end)
end)

describe("unique", function()
  it("gives the values, where they went and how often they occur", function()
    local cases = {{f64{3, NAN, -0.0, 3, 0, NAN, 1}, {-0.0, 1.0, 3.0, NAN}, {3, 4, 1, 3, 1, 4, 2}, {2, 1, 2, 2}},
      {i64{MAX, MIN, MAX, 0}, {MIN, 0, MAX}, {3, 1, 3, 2}, {1, 1, 2}}, {u8{255, 255}, {255}, {1, 1}, {2}}, {i64{}, {},
        {}, {}},
      {marea.tensor(7), {7.0}, 1, {1}}}
    for _, case in ipairs(cases) do
      local values, inverse, counts = case[1]:unique{inverse = true, counts = true}
      local empty = values:numel() == 0
      assert_numbers(case[2], empty and {} or values:totable())
      assert.are.same(case[3], empty and {} or inverse:totable())
      assert.are.same(case[4], empty and {} or counts:totable())
      assert.are.same(case[4], select(2, case[1]:unique{counts = true}):numel() > 0
        and select(2, case[1]:unique{counts = true}):totable() or {})
      assert.are.equal(1, select("#", case[1]:unique()))
    end
  end)

  it("keeps the shape in the inverse, of views as well", function()
    local x = i64{{5, 3}, {3, 4}, {5, 5}}
    local values, inverse = x:transpose(1, 2):unique{inverse = true}
    assert.are.same({3, 4, 5}, values:totable())
    assert.are.same({{3, 1, 3}, {1, 2, 3}}, inverse:totable())
    assert.are.same({{5, 3, 5}, {3, 4, 5}}, values[inverse]:totable())
  end)
end)

-- ---- masks and positions ----

describe("a mask as an index", function()
  local x

  before_each(function() x = marea.arange(1, 12):reshape(3, 4) end)

  it("takes elements, or what lies at the dimensions it covers", function()
    assert.are.same({7, 8, 9, 10, 11, 12}, x[x:gt(6)]:totable())
    assert.are.same({{1, 2, 3, 4}, {9, 10, 11, 12}}, x[u8{1, 0, 255}]:totable())
    assert.are.same({2, 10}, x[{u8{1, 0, 1}, 2}]:totable())
    assert.are.same({{2, 4}, {6, 8}, {10, 12}}, x[{":", u8{0, 1, 0, 1}}]:totable())
    assert.are.same({{2, 3}, {10, 11}}, x[{u8{1, 0, 1}, "2:3"}]:totable())
    assert.are.same({0, 4}, x[u8{0, 0, 0}].shape)
    assert.are.same({0}, x[x:gt(99)].shape)
    assert.are.same({{1, 4, 7, 10}}, x:reshape(4, 3):transpose(1, 2)[u8{1, 0, 0}]:totable())
    local deep = x:reshape(3, 2, 2)
    assert.are.same({{1, 2}, {7, 8}}, deep[u8{{1, 0}, {0, 1}, {0, 0}}]:totable())
    assert.are.same({5, 7}, deep[{2, u8{1, 1}, 1}]:totable())
    assert.are.equal(0, marea.zeros{0}[marea.zeros{0, dtype = "u8"}]:numel())
  end)

  it("is written to", function()
    x[x:gt(6)] = 0
    assert.are.same({{1, 2, 3, 4}, {5, 6, 0, 0}, {0, 0, 0, 0}}, x:totable())
    x[u8{0, 1, 1}] = marea.tensor{-1, -2, -3, -4}
    assert.are.same({{1, 2, 3, 4}, {-1, -2, -3, -4}, {-1, -2, -3, -4}}, x:totable())
    x[x:lt(0)] = marea.arange(10, 17)
    assert.are.same({{1, 2, 3, 4}, {10, 11, 12, 13}, {14, 15, 16, 17}}, x:totable())
    x[{":", u8{1, 0, 0, 1}}] = 7
    assert.are.same({{7, 2, 3, 7}, {7, 11, 12, 7}, {7, 15, 16, 7}}, x:totable())
    local view = x:transpose(1, 2)
    view[view:eq(7)] = marea.arange(1, 6)
    assert.are.same({{1, 2, 3, 4}, {2, 11, 12, 5}, {3, 15, 16, 6}}, x:totable())
    view[{u8{0, 1, 0, 0}, 3}] = NAN
    assert.is_true(same_number(NAN, x[{3, 2}]))
    x[x:isnan()] = x[x:eq(16)]
    assert.are.equal(16, x[{3, 2}])
    x[marea.zeros{3, 4, dtype = "u8"}] = marea.tensor{}
    x[x:gt(1e9)] = 5
    local whole = i64{MAX, 1}
    whole[whole:gt(1)] = MIN
    assert.are.same({MIN, 1}, whole:totable())
  end)

  it("carries gradients, NaN beside it or not", function()
    local w = f64{1, NAN, 3, INF}:requires_grad_()
    local mask = u8{1, 0, 1, 0}
    assert_numbers({2.0, 0.0, 6.0, 0.0}, marea.grad(w[mask]:square():sum(), w):totable())
    assert_numbers({2.0, 0.0, 6.0, 0.0}, marea.grad(w:masked_select(mask):square():sum(), w):totable())
    assert_numbers({0.0, NAN, 0.0, INF}, marea.grad(w:masked_fill(mask, 5):square():sum(), w):totable())
    local v = f64(2):requires_grad_()
    assert_numbers({20.0}, {marea.grad(w:detach():masked_fill(w:isfinite(), v):masked_select(mask):mul(10):sum(),
      v):item()})
  end)

  it("counts no elements beyond what has an address: their number would wrap around, to 4", function()
    local one = u8{{{{1}}}}
    local tall, wide = one:expand(27905, 384773, 1, 1), one:expand(1, 1, 34724, 49477)
    assert.matches("masked_select: a tensor of shape .* needs more bytes than can be addressed",
      message_of(function() return tall:masked_select(wide) end))
  end)

  it("says what does not fit, and changes nothing then", function()
    local before = x:totable()
    local function fails(pattern, f) assert.matches(pattern, message_of(f)) end
    fails("index: mask u8 %(2%) does not have the sizes of tensor f32 %(3, 4%) from dimension 1 on",
      function() return x[u8{1, 0}] end)
    fails("index: mask u8 %(3, 4%) does not have .- from dimension 2 on", function() return x[{1, x:gt(0)}] end)
    fails("index: mask u8 %(%) does not have", function() return x[marea.tensor(1, {dtype = "u8"})] end)
    fails("index: expected a mask %(u8.-%) or positions %(i64%), got tensor f32 %(3%)",
      function() return x[marea.ones(3)] end)
    fails("index: one mask or tensor of positions at a time", function() return x[{u8{1, 1, 1}, i64{1}}] end)
    fails("index: too many positions", function() return x[{1, 1, i64{1}}] end)
    fails("v is f32 %(3%), which does not fit into the part f32 %(2%)", function() x[x:lt(3)] = marea.ones(3) end)
    fails("argument 'value': expected an integer", function() i64{1}[u8{1}] = 0.5 end)
    fails("requires a gradient, and a change in place is not recorded", function()
      local w = marea.ones(2):requires_grad_()
      w[u8{1, 0}] = 3
    end)
    assert.are.same(before, x:totable())
  end)
end)

describe("positions as an index", function()
  local x

  before_each(function() x = marea.arange(1, 12):reshape(3, 4) end)

  it("take rows in any order, negative ones from the end", function()
    assert.are.same({{9, 10, 11, 12}, {1, 2, 3, 4}, {9, 10, 11, 12}}, x[i64{-1, 1, 3}]:totable())
    assert.are.same({4, 12}, x[{i64{1, -1}, -1}]:totable())
    assert.are.same({{4, 1}, {8, 5}, {12, 9}}, x[{":", i64{-1, 1}}]:totable())
    assert.are.same({2, 3, 4}, x[i64{{1, 2, 3}, {3, 2, 1}}].shape)
    assert.are.same({5, 6, 7, 8}, x[marea.tensor(2, {dtype = "i64"})]:totable())
    assert.are.same({0, 4}, x[i64{}].shape)
    assert.are.same({3, 1}, i64{1, 2, 3}[i64{-1, -3}]:totable())
  end)

  it("are written to, of equal ones the last", function()
    x[i64{1, -1}] = 0
    assert.are.same({{0, 0, 0, 0}, {5, 6, 7, 8}, {0, 0, 0, 0}}, x:totable())
    x[i64{2, 2}] = marea.tensor{{1, 1, 1, 1}, {2, 2, 2, 2}}
    assert.are.same({2, 2, 2, 2}, x[2]:totable())
    x[{":", i64{-1}}] = marea.tensor{{7}, {8}, {9}}
    assert.are.same({{0, 0, 0, 7}, {2, 2, 2, 8}, {0, 0, 0, 9}}, x:totable())
    x[i64{3, 2, 1}] = x
    assert.are.same({{0, 0, 0, 9}, {2, 2, 2, 8}, {0, 0, 0, 7}}, x:totable())
    local order = i64{3, 1, 2}
    order[order] = order
    assert.are.same({1, 2, 3}, order:totable())
    local bytes = marea.zeros{4, dtype = "u8"}
    bytes[i64{2}] = marea.tensor{200}
    assert.are.same({0, 200, 0, 0}, bytes:totable())
  end)

  it("carry gradients, equal positions add up", function()
    local w = f64{1, 2, 3}:requires_grad_()
    assert_numbers({0.0, 0.0, 20.0}, marea.grad((w[i64{-1, 3}] * f64{5, 15}):sum(), w):totable())
    local second = marea.grad(w[i64{1, -1}]:square():sum(), w, {create_graph = true})
    assert_numbers({2.0, 0.0, 2.0}, marea.grad(second:sum(), w):totable())
  end)

  it("out of range are an error that changes nothing", function()
    local before = x:totable()
    for _, bad in ipairs{0, 4, -4, MIN, MAX} do
      local text = ("is %d, expected 1 to 3, or negative from the end"):format(bad):gsub("%-", "%%-")
      assert.matches(text, message_of(function() return x[i64{1, bad}] end))
      assert.matches(text, message_of(function() x[i64{1, bad}] = 5 end))
    end
    assert.are.same(before, x:totable())
    assert.matches("expected 1 to 3$", message_of(function() return x:index_select(i64{-1}) end):match "[^\n]*")
    assert.matches("argument 'src' shares the memory", message_of(function() x:index_put(i64{1, 2, 3}, x) end))
    assert.matches("requires a gradient", message_of(function()
      marea.ones(2):requires_grad_():index_put(i64{1}, marea.ones(1))
    end))
  end)

  it("that a finalizer releases meanwhile are refused or were read", function()
    collectgarbage("setpause", 0)
    local seen = {}
    for _ = 1, 3000 do
      local rows = i64{3, 1}
      local list = {rows, 2}
      setmetatable({}, {__gc = function()
        rows:release()
        list[1] = 2
      end})
      for _, key in ipairs{rows, list} do
        local ok, message = pcall(function() return x[key] end)
        if not ok then seen[#seen + 1] = message end
      end
    end
    collectgarbage("setpause", 200)
    for _, message in ipairs(seen) do assert.matches("released", message) end
  end)

  it("see a graph that needs what they change", function()
    local w = f64{1, 2}:requires_grad_()
    local y = w * 1
    local z = y:square():sum()
    marea.no_grad(function() y[i64{1}] = 9 end)
    assert.matches("was changed in place", message_of(function() z:backward() end))
  end)
end)

describe("chunk, tril, triu, flatnonzero", function()
  it("cut as PyTorch does", function()
    local sizes = function(...)
      local list = {}
      for i, t in ipairs{...} do list[i] = #t end
      return list
    end
    assert.are.same({3, 3, 1}, sizes(marea.ones(7):chunk(3)))
    assert.are.same({2, 2, 2}, sizes(marea.ones(6):chunk(4)))
    assert.are.same({1, 1}, sizes(marea.ones(2):chunk(5)))
    assert.are.same({0}, sizes(marea.zeros{0}:chunk(3)))
    assert.matches("chunk: argument 'count': expected 1 or more, got 0",
      message_of(function() marea.ones(2):chunk(0) end))
  end)

  it("keep triangles, whatever the diagonal", function()
    local x = i64{{1, 2, 3}, {4, 5, 6}}
    for _, d in ipairs{MIN, -3, -2, -1, 0, 1, 2, 3, MAX} do
      local low, up = {}, {}
      for i = 1, 2 do
        low[i], up[i] = {}, {}
        for j = 1, 3 do
          low[i][j] = j - i <= d and x[{i, j}] or 0
          up[i][j] = j - i >= d and x[{i, j}] or 0
        end
      end
      assert.are.same(low, x:tril(d):totable(), "tril " .. d)
      assert.are.same(up, x:triu(d):totable(), "triu " .. d)
    end
    local w = f64{{INF, NAN}, {1, INF}}:requires_grad_()
    assert.are.same({{1, 0}, {1, 1}}, marea.grad(w:tril():sum(), w):totable())
  end)

  it("count positions row by row", function()
    assert.are.same({2, 3, 6}, f64{{0, NAN, -1}, {-0.0, 0, 1e-300}}:flatnonzero():totable())
    assert.are.same({1, 3, 5}, f64{{5, 0}, {0, 6}, {7, 0}}:transpose(1, 2):flatnonzero():totable()[1] == 1
      and {1, 3, 5} or {})
    local mask = marea.uniform{50000}:lt(0.3)
    local list, expected = mask:totable(), {}
    for i, v in ipairs(list) do if v == 1 then expected[#expected + 1] = i end end
    assert.are.same(expected, mask:flatnonzero():totable())
  end)
end)

describe("slice_grad", function()
  it("refuses sizes that are none before it counts with them", function()
    for _, size in ipairs{math.mininteger, -1, math.maxinteger} do
      assert.matches("slice_grad: shape .* is outside 0%.%.2147483647", message_of(function()
        marea.slice_grad(marea.ones{0}, {shape = {size}, dim = 1, start = 1})
      end))
    end
  end)
end)

describe("in a plan", function()
  it("sizes that depend on values are the largest there are", function()
    marea.plan(function()
      local x = marea.ones(3, 4)
      assert.are.same({12}, x[x:gt(5)].shape)
      assert.are.same({3, 4}, x[u8{1, 0, 0}].shape)
      assert.are.same({12}, x:unique().shape)
      x[x:gt(1)] = 3
      x[i64{1}] = x[i64{2}]
      local w = marea.ones(4):requires_grad_()
      w[w:detach():gt(9)]:sum():backward()
      assert.are.same({4}, w.grad.shape)
    end)
  end)
end)

it("a profile and lack of memory meet them as any operator", function()
  local x = marea.uniform{5000}
  local report = marea.profile(function() return x:sort(), x[x:gt(0.5)], x % 0.3 end)
  local names = {}
  for _, row in ipairs(report.rows) do names[row.op] = true end
  assert.is_true(names.sort and names.flatnonzero and names.remainder)
  for k = 1, 12 do
    core.memory_fail(k, true)
    local ok, message = pcall(function() x[x:gt(0.5)] = x[x:gt(0.5)]:sort() return x:unique() end)
    core.memory_fail(0)
    assert.is_true(ok or message:find "out of memory" ~= nil, tostring(message))
  end
end)
