-- SPDX-License-Identifier: MIT
--- Recurrent layers as loops over Lua numbers, straight from their formulas.
local naive = {}

local function sigmoid(x) return 1 / (1 + math.exp(-x)) end
local function tanh(x) return 1 - 2 / (math.exp(2 * x) + 1) end
local function hard(x) return math.max(0, math.min(1, 0.2 * x + 0.5)) end

--- Sum over i of v[i] w[i][j]; w is a table of rows.
local function column(v, w, j)
  local sum = 0
  for i = 1, #v do sum = sum + v[i] * w[i][j] end
  return sum
end

local cells = {}

--- o: {w_x, w_h, bias, s = gate, ...}. Each returns the new states of one row: h, c.
function cells.lstm(o, x, h, c)
  local n, new_h, new_c = #h, {}, {}
  for j = 1, n do
    local a = {}
    for k = 0, 3 do
      a[k] = column(x, o.w_x, k * n + j) + (o.bias and o.bias[k * n + j] or 0) + column(h, o.w_h, k * n + j)
    end
    new_c[j] = o.s(a[1]) * c[j] + o.s(a[0]) * tanh(a[2])
    new_h[j] = o.s(a[3]) * tanh(new_c[j])
  end
  return new_h, new_c
end

function cells.gru(o, x, h)
  local n, new, reset, r = #h, {}, {}, {}
  local function input(k, j) return column(x, o.w_x, k * n + j) + (o.bias and o.bias[k * n + j] or 0) end
  for j = 1, n do
    r[j] = o.s(input(0, j) + column(h, o.w_h, j))
    reset[j] = r[j] * h[j]
  end
  for j = 1, n do
    local z = o.s(input(1, j) + column(h, o.w_h, n + j))
    local q = o.reset_after and r[j] * (column(h, o.w_h, 2 * n + j) + (o.bias_h and o.bias_h[j] or 0))
      or column(reset, o.w_h, 2 * n + j)
    new[j] = (1 - z) * tanh(input(2, j) + q) + z * h[j]
  end
  return new
end

function cells.rnn(o, x, h)
  local new = {}
  for j = 1, #h do
    local a = column(x, o.w_x, j) + (o.bias and o.bias[j] or 0) + column(h, o.w_h, j)
    new[j] = o.activation == "relu" and math.max(a, 0) or tanh(a)
  end
  return new
end

--- All rows: y, h, c as nested tables. o: x (N, T, C), lengths, h0, c0, reverse, recurrent_activation, and the cell's.
function naive.run(kind, o)
  o.s = o.recurrent_activation == "hard_sigmoid" and hard or sigmoid
  local ys, hs, cs, zeros = {}, {}, {}, {}
  for j = 1, #o.w_h do zeros[j] = 0 end
  for row, x in ipairs(o.x) do
    local length, y = o.lengths and o.lengths[row] or #x, {}
    local h, c = o.h0 and o.h0[row] or zeros, o.c0 and o.c0[row] or zeros
    for step = 1, length do
      local t = o.reverse and length + 1 - step or step
      h, c = cells[kind](o, x[t], h, c)
      y[t] = h
    end
    for t = length + 1, #x do y[t] = zeros end
    ys[row], hs[row], cs[row] = y, h, c
  end
  return ys, hs, cs
end

return naive
