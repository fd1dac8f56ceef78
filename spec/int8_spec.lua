-- SPDX-License-Identifier: MIT
-- Products of bytes for inference: what becomes of numbers, exact sums under each instruction set, and what a quantized
-- network computes.
local marea = require "marea"
local message_of = require "spec.support.message_of"
local under_isa = require "spec.support.under_isa"

describe("products of bytes are exact sums of integers, the same bits under each instruction set:", function()
  local first
  for _, isa in ipairs(marea.info().isas) do
    it(isa, function()
      local cases, hash = under_isa(isa, "spec/support/int8_products.lua")
      assert(cases, hash)
      assert.is_true(cases > 70)
      first = first or hash
      assert.are.equal(first, hash)
    end)
  end
end)

--- The bytes of weights (taps, in, out) as quantize_int8 packs them, and the sums behind each panel.
local function unpacked(bytes, taps, n_in, out)
  local panels = bytes:totable()
  local step = (#panels[1] - 64) // 64 // taps -- fours of a tap
  local function byte(t, i, o)
    local v = panels[(o - 1) // 16 + 1][((t - 1) * step + (i - 1) // 4) * 64 + (o - 1) % 16 * 4 + (i - 1) % 4 + 1]
    return v < 128 and v or v - 256
  end
  local function sum(o)
    local panel, at = panels[(o - 1) // 16 + 1], #panels[1] - 64 + (o - 1) % 16 * 4
    return (string.unpack("<i4", string.char(table.unpack(panel, at + 1, at + 4))))
  end
  assert(n_in <= step * 4 and out <= #panels * 16)
  return byte, sum
end

describe("quantize_int8", function()
  it("gives the nearest bytes, scales of columns and their sums", function()
    for _, s in ipairs{{1, 5, 3}, {1, 64, 17}, {9, 3, 16}, {2, 70, 33}} do
      local taps, n_in, out = table.unpack(s)
      local weight = marea.normal{taps, n_in, out}
      local bytes, scale = marea.quantize_int8(weight)
      local byte, sum = unpacked(bytes, taps, n_in, out)
      local w, scales = weight:totable(), scale:totable()
      for o = 1, out do
        local largest, total = 0, 0
        for t = 1, taps do
          for i = 1, n_in do
            largest = math.max(largest, math.abs(w[t][i][o]))
            total = total + byte(t, i, o)
            assert.is_true(math.abs(byte(t, i, o) * scales[o] - w[t][i][o]) <= scales[o] * 0.50001)
          end
        end
        assert.is_true(math.abs(scales[o] * 127 - largest) < 1e-6 * largest)
        assert.are.equal(total, sum(o))
      end
    end
  end)

  it("takes columns of zeros, and gives NaN where a weight is no number", function()
    local weight = marea.tensor{{0, 1, 0 / 0, 1 / 0}, {0, -2, 1, 1}}
    local bytes, scale = marea.quantize_int8(weight)
    local s = scale:totable()
    assert.are.equal(0, s[1])
    assert.is_true(s[3] ~= s[3] and s[4] ~= s[4])
    local y = marea.linear_int8(marea.ones{1, 2}, bytes, scale):totable()[1]
    assert.are.equal(0, y[1])
    assert.is_true(math.abs(y[2] + 1) < 0.01)
    assert.is_true(y[3] ~= y[3] and y[4] ~= y[4])
  end)

  it("refuses vectors and sums that int32 would not hold", function()
    local function quantize(...)
      local weight = marea.ones{...}
      return message_of(function() marea.quantize_int8(weight) end)
    end
    assert.matches("expected 2 dimensions %(%.%., in, out%) or more", quantize(3))
    assert.matches("sums of 65537 terms", quantize(65537, 1))
    marea.quantize_int8(marea.ones{65536, 1})
  end)
end)

describe("linear_int8", function()
  local bytes, scale = marea.quantize_int8(marea.tensor{{1, 0}, {0, 1}})

  it("gives NaN for a row with a NaN or an infinity, zero for one of zeros, and leaves other rows alone", function()
    local rows = {{1, 2}, {0 / 0, 1}, {1 / 0, 1}, {-1 / 0, 1}, {0, 0}, {1e-38, 0}, {-3, 3}, {3e38, -3e38}}
    local y = marea.linear_int8(marea.tensor(rows), bytes, scale, marea.tensor{10, 20}):totable()
    for i = 2, 4 do assert.is_true(y[i][1] ~= y[i][1] and y[i][2] ~= y[i][2]) end
    assert.is_true(math.abs(y[1][1] - 11) < 0.01 and math.abs(y[1][2] - 22) < 0.01)
    assert.are.same({10, 20}, y[5])
    assert.are.same({10, 20}, y[6])
    assert.is_true(math.abs(y[7][1] - 7) < 0.02 and math.abs(y[7][2] - 23) < 0.02)
    assert.is_true(math.abs(y[8][1] - 3e38) < 3e36 and math.abs(y[8][2] + 3e38) < 3e36)
  end)

  it("takes empty shapes and applies activations", function()
    assert.are.same({0, 2}, marea.linear_int8(marea.zeros{0, 2}, bytes, scale).shape)
    local none, none_scale = marea.quantize_int8(marea.zeros{0, 3})
    local bias = marea.tensor{1, 2, 3}
    assert.are.same({{1, 2, 3}}, marea.linear_int8(marea.zeros{1, 0}, none, none_scale, bias):totable())
    local y = marea.linear_int8(marea.tensor{{-1, 1}}, bytes, scale, {activation = "relu"}):totable()[1]
    assert.is_true(y[1] == 0 and math.abs(y[2] - 1) < 0.01)
  end)

  it("has the same bits for any number of threads", function()
    local threads = marea.info().threads
    local x, w, b = marea.normal{700, 65}, marea.normal{65, 400}, marea.normal{400}
    local packed, scales = marea.quantize_int8(w)
    local first
    for n = 1, 4 do
      marea.set_threads(n)
      local y = marea.linear_int8(x, packed, scales, b)
      first = first or y
      assert.are.equal(y:numel(), y:eq(first):to "f32":sum():item())
    end
    marea.set_threads(threads)
  end)

  it("refuses a gradient, and bytes of another size", function()
    local x = marea.ones{1, 2}:requires_grad_()
    assert.matches("argument 'x' requires a gradient, and products of bytes have none",
      message_of(function() marea.linear_int8(x, bytes, scale) end))
    assert.are.equal(2, marea.no_grad(marea.linear_int8, x, bytes, scale):numel())
    assert.matches("argument 'weight': expected size",
      message_of(function() marea.linear_int8(marea.ones{1, 200}, bytes, scale) end))
  end)
end)
