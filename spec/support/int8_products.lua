-- SPDX-License-Identifier: MIT
-- Runs in a process of its own, started by int8_spec with MAREA_ISA set: products and convolutions of bytes against
-- sums of integers. The numbers are integers that bytes hold exactly, so that every sum is known. Prints what is wrong,
-- then how many cases there were and a number made of all results' bits, which is the same under every instruction set.
--
--   MAREA_ISA=amx lua5.4 spec/support/int8_products.lua
local marea = require "marea"

local cases, hash = 0, 0

local state = 1
local function random(n) -- 0 .. n - 1
  state = (state * 6364136223846793005 + 1442695040888963407) & -1
  return (state >> 33) % n
end

local function note(y)
  for i, v in ipairs(marea.is_tensor(y) and y:reshape{-1}:totable() or y) do
    hash = (hash * 31 + string.unpack("<i4", string.pack("<f", v)) + i) & 0x7fffffff
  end
end

local function table_of(n, make)
  local t = {}
  for i = 1, n do t[i] = make(i) end
  return t
end

--- x (m, k) of integers whose rows each have a range of 255, from -zero to 255 - zero; w (k, n) with 127 or -127 in
--- each column.
local function numbers(m, k, n, extreme)
  local x, w = {}, {}
  for i = 1, m do
    local zero = random(256)
    for j = 1, k do
      x[#x + 1] = (extreme and random(2) * 255 or j == 1 and 0 or j == 2 and 255 or random(256)) - zero
    end
    if k > 1 then x[(i - 1) * k + 1], x[(i - 1) * k + 2] = -zero, 255 - zero end
  end
  for j = 1, k do
    for _ = 1, n do
      w[#w + 1] = (extreme or j == 1) and (random(2) * 254 - 127) or random(255) - 127
    end
  end
  return x, w
end

local function matrix(values, rows, cols) return marea.tensor(values):reshape{rows, cols} end

local function check(m, k, n, extreme)
  local x, w = numbers(m, k, n, extreme)
  local bias = table_of(n, function() return random(2000) - 1000 end)
  cases = cases + 1
  marea.scope(function()
    local bytes, scale = marea.quantize_int8(matrix(w, k, n))
    local y = marea.linear_int8(matrix(x, m, k), bytes, scale, marea.tensor(bias), {inputs = k}):reshape{-1}:totable()
    note(y)
    for i = 1, m do
      for j = 1, n do
        local sum = bias[j]
        for d = 1, k do sum = sum + x[(i - 1) * k + d] * w[(d - 1) * n + j] end
        local got = y[(i - 1) * n + j]
        if math.abs(got - sum) > 4e-7 * math.abs(sum) + 1e-3 then
          print(("linear_int8 %d x %d x %d: element (%d, %d) is %.9g instead of %d"):format(m, k, n, i, j, got, sum))
          return
        end
      end
    end
  end)
end

for _, k in ipairs{2, 3, 4, 5, 31, 63, 64, 65, 100, 128, 130} do
  for _, n in ipairs{1, 15, 16, 17, 33} do check(1 + random(9), k, n) end
end
for _, m in ipairs{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100} do
  check(m, 7 + random(40), 20)
end
check(5, 70, 300)
check(300, 9, 18)
check(3, 4096, 17, true)
check(70, 129, 20, true)

--- Sums of a convolution of integers, x (1, h, w, cin) with a range of 255, against loops.
local function check_conv(h, w, cin, cout, o)
  local x = table_of(h * w * cin, function() return random(256) - 100 end)
  x[1], x[2] = -100, 155
  local kh, kw, s, d, top, left = o.kernel[1], o.kernel[2], o.stride or 1, o.dilation or 1, o.padding[1], o.padding[3]
  local weight = table_of(kh * kw * cin * cout, function(i) return i <= cout and 127 or random(255) - 127 end)
  cases = cases + 1
  marea.scope(function()
    local bytes, scale = marea.quantize_int8(marea.tensor(weight):reshape{kh, kw, cin, cout})
    o.inputs = cin
    local y = marea.conv2d_int8(marea.tensor(x):reshape{1, h, w, cin}, bytes, scale, nil, o)
    note(y)
    local oh, ow, got = y:size(2), y:size(3), y:reshape{-1}:totable()
    for place = 0, oh * ow * cout - 1 do
      local oy, ox, co, sum = place // cout // ow, place // cout % ow, place % cout, 0
      for t = 0, kh * kw - 1 do
        local iy, ix = oy * s + t // kw * d - top, ox * s + t % kw * d - left
        for ci = 0, iy >= 0 and iy < h and ix >= 0 and ix < w and cin - 1 or -1 do
          sum = sum + x[(iy * w + ix) * cin + ci + 1] * weight[(t * cin + ci) * cout + co + 1]
        end
      end
      if math.abs(got[place + 1] - sum) > 4e-7 * math.abs(sum) + 1e-3 then
        print(("conv2d_int8 %d x %d x %d: result %d is %.9g instead of %d"):format(h, w, cin, place, got[place + 1],
          sum))
        return
      end
    end
  end)
end

check_conv(7, 9, 3, 5, {kernel = {3, 3}, padding = {1, 1, 1, 1}})
check_conv(8, 7, 4, 17, {kernel = {3, 2}, padding = {0, 1, 2, 0}, stride = 2})
check_conv(9, 20, 1, 33, {kernel = {2, 5}, padding = {1, 0, 0, 3}, dilation = 2})
check_conv(20, 19, 8, 18, {kernel = {1, 1}, padding = {0, 0, 0, 0}})
check_conv(11, 10, 64, 20, {kernel = {1, 1}, padding = {0, 0, 0, 0}, stride = 2})
check_conv(5, 40, 16, 20, {kernel = {3, 3}, padding = {0, 0, 0, 0}})
check_conv(6, 6, 70, 40, {kernel = {3, 3}, padding = {1, 1, 1, 1}})

-- Any numbers: the same bits under every instruction set.
for seed = 1, 20 do
  marea.seed(seed)
  local m, k, n = 1 + random(80), 1 + random(200), 1 + random(70)
  local bytes, scale = marea.quantize_int8(marea.normal{k, n})
  note(bytes)
  note(marea.linear_int8(marea.normal{m, k}, bytes, scale, marea.normal{n}, {inputs = k}))
end

print(("%s: %d cases, %d numbers"):format(marea.info().isa, cases, hash))
