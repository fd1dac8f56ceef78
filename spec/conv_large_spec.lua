-- SPDX-License-Identifier: MIT
-- Convolutions whose weights do not stay in the near caches pack them by panels, or read them piece by piece; 1x1
-- kernels see an image as one row. Against sums that plain Lua adds up, at some places each.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local sample = require "spec.support.sample"
local ops = require "marea.core".ops

local PLACES = 12

-- n, height, width, cin, cout, kernel, stride, padding, dilation; the algorithm of y and of dx
local CASES = {
  {2, 12, 13, 64, 130, 3, 2, {1, 1, 1, 1}, 1, "packed", "packed"},
  {1, 30, 31, 70, 40, 5, 1, {2, 2, 2, 2}, 1, "packed", "packed"},
  {3, 7, 7, 48, 96, 4, 1, {0, 3, 1, 2}, 1, "packed", "packed"},
  {1, 5, 6, 340, 345, 3, 1, {1, 1, 1, 1}, 1, "pieces", "packed"},
  {1, 9, 11, 260, 450, 3, 2, {4, 0, 0, 2}, 2, "pieces", "packed"},
  {2, 7, 7, 260, 270, 1, 1, {0, 0, 0, 0}, 1, "packed", "packed"},
  {1, 4, 5, 1010, 1000, 1, 1, {0, 0, 0, 0}, 1, "pieces", "packed"},
}

local function prepare(c, g)
  local n, h, w, cin, cout, k, s, pad, d = table.unpack(c)
  local t = {n = n, size = {h, w}, k = k, s = s, pad = pad, d = d, cin = cin, cout = cout}
  local reach = d * (k - 1) + 1
  t.out = {(h + pad[1] + pad[2] - reach) // s + 1, (w + pad[3] + pad[4] - reach) // s + 1}
  t.x, t.dy = g.tensor {n, h, w, cin}, g.tensor {n, t.out[1], t.out[2], cout}
  t.weight, t.bias = g.tensor {k, k, cin, cout}, g.tensor {cout}
  t.how = {stride = s, padding = pad, dilation = d}
  t.case = ("%dx%d, %d>%d, %dx%d"):format(h, w, cin, cout, k, k)
  return t
end

--- Elements by position, for loops: of a row-major list.
local function reader(t)
  local list, shape = allclose.flat(t), t.shape
  return function(i, j, k, l) return list[((i * shape[2] + j) * shape[3] + k) * shape[4] + l + 1] end
end

--- The sum over taps and channels, and the size of its terms. meets(ky, kx) -> row and column that the tap meets, nil
--- outside of the image; term(row, column, ky, kx, channel).
local function sum_taps(t, channels, meets, term)
  local sum, terms = 0, 0
  for tap = 0, t.k * t.k - 1 do
    local ky, kx = tap // t.k, tap % t.k
    local row, col = meets(ky, kx)
    for channel = 0, row and channels - 1 or -1 do
      local value = term(row, col, ky, kx, channel)
      sum, terms = sum + value, terms + math.abs(value)
    end
  end
  return sum, terms
end

local function is_inside(y, x, size) return y >= 0 and y < size[1] and x >= 0 and x < size[2] end

--- y at a place, and the size of its terms.
local function sum_forward(t, x, w, n, oy, ox, co)
  return sum_taps(t, t.cin, function(ky, kx)
    local iy, ix = oy * t.s + ky * t.d - t.pad[1], ox * t.s + kx * t.d - t.pad[3]
    if is_inside(iy, ix, t.size) then return iy, ix end
  end, function(iy, ix, ky, kx, ci) return x(n, iy, ix, ci) * w(ky, kx, ci, co) end)
end

local function sum_input(t, dy, w, n, iy, ix, ci)
  return sum_taps(t, t.cout, function(ky, kx)
    local y, x = iy + t.pad[1] - ky * t.d, ix + t.pad[3] - kx * t.d
    if y % t.s == 0 and x % t.s == 0 and is_inside(y // t.s, x // t.s, t.out) then return y // t.s, x // t.s end
  end, function(oy, ox, ky, kx, co) return dy(n, oy, ox, co) * w(ky, kx, ci, co) end)
end

--- Compares a result with f(n, row, column, channel) at the corners and at random places.
local function compare(t, result, g, f)
  local at, shape = reader(result), result.shape
  for i = 1, PLACES do
    local place = {}
    for d = 1, 4 do place[d] = i == 1 and 0 or i == 2 and shape[d] - 1 or g.int(0, shape[d] - 1) end
    local wanted, terms = f(table.unpack(place))
    local got = at(table.unpack(place))
    assert(math.abs(got - wanted) <= 3e-6 * terms + 1e-6,
      ("%s: %.9g, not %.9g at (%s)"):format(t.case, got, wanted, table.concat(place, ", ")))
  end
end

local function algorithm_of(f, op)
  for _, row in ipairs(marea.profile(f).rows) do
    if row.op == op then return row.algorithm end
  end
end

describe("convolutions of large weights", function()
  local threads = marea.info().threads
  after_each(function() marea.set_threads(threads) end)

  it("add up what their windows have, in both directions", function()
    for seed, c in ipairs(CASES) do
      marea.scope(function()
        local g = sample.generator(seed, {dtype = "f32"})
        local t = prepare(c, g)
        local x, dy, w, b = reader(t.x), reader(t.dy), reader(t.weight), allclose.flat(t.bias)
        local y, dx
        local function forward() y = ops.conv2d(t.x, t.weight, t.bias, t.how) end
        assert.are.equal(c[10], algorithm_of(forward, "conv2d"), t.case)
        forward()
        compare(t, y, g, function(n, oy, ox, co)
          local sum, terms = sum_forward(t, x, w, n, oy, ox, co)
          return sum + b[co + 1], terms
        end)
        t.how.size = t.size
        local function input() dx = ops.conv2d_grad_input(t.dy, t.weight, t.how) end
        assert.are.equal(c[11], algorithm_of(input, "conv2d_grad_input"), t.case)
        input()
        compare(t, dx, g, function(...) return sum_input(t, dy, w, ...) end)
      end)
    end
  end)

  it("have the same bits for any number of threads, and fused activations those of separate ones", function()
    for seed, c in ipairs(CASES) do
      marea.scope(function()
        local t = prepare(c, sample.generator(seed, {dtype = "f32"}))
        local plain, first
        for count = 1, 4 do
          marea.set_threads(count)
          local y = ops.conv2d(t.x, t.weight, t.bias, t.how)
          local dx = ops.conv2d_backward(t.dy, t.x, t.weight, y, t.how)
          plain, first = plain or y, first or dx
          assert.are.equal(0, (y - plain):abs():max():item(), t.case)
          assert.are.equal(0, (dx - first):abs():max():item(), t.case)
        end
        local how = {stride = t.s, padding = t.pad, dilation = t.d, activation = "tanh"}
        local y = ops.conv2d(t.x, t.weight, t.bias, how)
        assert.are.equal(0, (y - plain:tanh()):abs():max():item(), t.case)
        local e = t.dy * (1 - y:square())
        how.size, how.activation = t.size, nil
        local dx = ops.conv2d_grad_input(e, t.weight, how)
        how.size, how.activation = nil, "tanh"
        allclose.assert((ops.conv2d_backward(t.dy, t.x, t.weight, y, how)), dx,
          {rtol = 2e-5, atol = 2e-5, scaled = true}, t.case)
      end)
    end
  end)
end)
