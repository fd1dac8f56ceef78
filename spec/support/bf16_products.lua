-- SPDX-License-Identifier: MIT
-- Runs in a process of its own, started by bf16_spec with MAREA_ISA set: products and convolutions of bf16, with their
-- gradients, against the same in f64 from the same operands. Prints what errs by more than allowed, then how many
-- numbers it compared.
--
--   MAREA_ISA=amx lua5.4 spec/support/bf16_products.lua
local marea = require "marea"
local allclose = require "spec.support.allclose"

local compared, cases = 0, 0

-- |y - exact| <= 2^-8 |exact| (the rounding to bf16) + 1e-6 times the sum of the products' magnitudes
local function compare(what, y, exact, magnitude)
  local a, e, m = allclose.flat(y), allclose.flat(exact), allclose.flat(magnitude)
  assert(y.dtype == "bf16" and #a == #e and #e == #m, what)
  for i = 1, #e do
    compared = compared + 1
    local close = math.abs(a[i] - e[i]) <= 2 ^ -8 * math.abs(e[i]) + 1e-6 * m[i]
    if not close then -- or NaN
      print(("%s: element %d of %d: %.9g instead of %.9g"):format(what, i, #e, a[i], e[i]))
      return
    end
  end
end

local function random_tensor(shape)
  return marea.normal(shape):to "bf16":detach()
end

--- Results and gradients of f for inputs of a dtype, with gradient dy.
local function run(f, inputs, dy, dtype, positive)
  local leaves = {}
  for i, t in ipairs(inputs) do
    local x = t:to(dtype)
    leaves[i] = (positive and x:abs() or x):detach():clone():requires_grad_()
  end
  local y = f(table.unpack(leaves))
  local results = marea.grad(y, leaves, {seed = (positive and dy:abs() or dy):to(dtype)})
  table.insert(results, 1, y:detach())
  return results
end

local function check(what, f, ...)
  local inputs = {...}
  cases = cases + 1
  marea.scope(function()
    local ok, y = pcall(f, table.unpack(inputs))
    if not ok then return end -- a kernel that is larger than its input
    local dy = random_tensor(y.shape)
    local names = {"y", "gradient of x", "gradient of weight", "gradient of bias"}
    local narrow, exact = run(f, inputs, dy, "bf16"), run(f, inputs, dy, "f64")
    local magnitude = run(f, inputs, dy, "f64", true)
    for i, t in ipairs(narrow) do
      if t then compare(what .. ": " .. names[i], t, exact[i], magnitude[i]) end
    end
  end)
end

-- ---- products ----

local sizes = {{3, 5, 7}, {1, 64, 33}, {16, 1300, 16}, {40, 2050, 8}, {270, 34, 290}, {17, 513, 31}, {5, 33, 1},
  {50, 47, 130}, {1, 70, 5001}, {300, 2500, 32}} -- the last one is cut into parts of k, with many rows
for _, s in ipairs(sizes) do
  local m, k, n = s[1], s[2], s[3]
  for turned = 0, 3 do
    local ta, tb = turned % 2 == 1, turned > 1
    check(("matmul %dx%dx%d %s %s"):format(m, k, n, ta, tb), function(a, b)
      return marea.matmul(a, b, {transpose_a = ta, transpose_b = tb})
    end, random_tensor(ta and {k, m} or {m, k}), random_tensor(tb and {n, k} or {k, n}))
  end
  check(("linear %dx%dx%d"):format(m, k, n), marea.linear, random_tensor{m, k}, random_tensor{k, n}, random_tensor{n})
end
check("matmul of batches", marea.matmul, random_tensor{6, 5, 20}, random_tensor{6, 20, 9})
check("matmul that broadcasts", function(a, b) return marea.matmul(a:detach(), b:detach()):requires_grad_() end,
  random_tensor{2, 1, 5, 20}, random_tensor{3, 20, 9}) -- without gradients, whose sum over matrices rounds again

-- ---- convolutions ----

math.randomseed(5)
local R = math.random
local channels = {1, 2, 3, 5, 8, 16, 17, 32, 40}
for _ = 1, 120 do
  local groups = ({1, 1, 1, 2, 3})[R(5)]
  local cin, cout = groups * channels[R(9)], groups * channels[R(9)]
  local kh, kw, s, d = R(5), R(5), R(3), R(2)
  local p = {R(0, 3), R(0, 3), R(0, 3), R(0, 3)}
  local h = math.max(d * (kh - 1) + 1 - p[1] - p[2], 1) + R(0, 9)
  local w = math.max(d * (kw - 1) + 1 - p[3] - p[4], 1) + R(0, 18)
  local transposed = R(3) == 1
  local how = {stride = s, padding = p, dilation = d, groups = groups}
  local what = ("%s of %dx%d, channels %d and %d, kernel %dx%d, stride %d, padding %s, dilation %d, groups %d"):format(
    transposed and "conv_transpose2d" or "conv2d", h, w, cin, cout, kh, kw, s, table.concat(p, " "), d, groups)
  local op = transposed and marea.conv_transpose2d or marea.conv2d
  check(what, function(x, weight, bias) return op(x, weight, bias, how) end, random_tensor{R(3), h, w, cin},
    random_tensor(transposed and {kh, kw, cout // groups, cin} or {kh, kw, cin // groups, cout}), random_tensor{cout})
end
-- images larger than a tile, small ones of which several are multiplied together, gathered pixels of many rows
for _, s in ipairs{{1, 120, 40, 3, 32, 40, 1}, {20, 7, 7, 3, 64, 48, 1}, {18, 6, 5, 3, 300, 96, 2},
  {2, 60, 50, 7, 3, 40, 2}, {2, 50, 40, 3, 1, 20, 1}} do
  local n, h, w, k, cin, cout, stride = table.unpack(s)
  check(("conv2d of %d images %dx%d"):format(n, h, w), function(x, weight, bias)
    return marea.conv2d(x, weight, bias, {padding = "same", stride = stride})
  end, random_tensor{n, h, w, cin}, random_tensor{k, k, cin, cout}, random_tensor{cout})
end

print(("%s: %d cases, %d numbers"):format(marea.info().isa, cases, compared))
