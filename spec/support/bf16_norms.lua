-- SPDX-License-Identifier: MIT
-- Runs in a process of its own, started by norm_spec with MAREA_ISA set: batch and group normalization of bf16 beside
-- f32 parameters, with their gradients, against plain loops in double. Prints what errs by more than allowed, then how
-- many numbers it compared.
--
--   MAREA_ISA=amx lua5.4 spec/support/bf16_norms.lua
local marea = require "marea"
local allclose = require "spec.support.allclose"

local compared, cases = 0, 0

-- bf16: |y - exact| <= 2^-8 |exact| (the rounding to bf16) + 3e-5 scale, f32: the latter alone
local function compare(what, y, exact, dtype, scale)
  local got = allclose.flat(y)
  assert(y.dtype == dtype and #got == #exact, what .. ": " .. y.dtype)
  for i, e in ipairs(exact) do
    compared = compared + 1
    local close = math.abs(got[i] - e) <= (dtype == "bf16" and 2 ^ -8 * math.abs(e) or 0) + 3e-5 * scale
    if not close then -- or NaN
      return print(("%s: element %d of %d: %.9g instead of %.9g"):format(what, i, #exact, got[i], e))
    end
  end
end

local ACT = {
  none = function(v) return v, 1 end,
  relu = function(v) return math.max(v, 0), v > 0 and 1 or 0 end,
  tanh = function(v)
    local y = 1 - 2 / (math.exp(2 * v) + 1)
    return y, 1 - y * y
  end,
}

--- Results by the formulas. x, dy: values, row by row; cell(i): number of the group of mean and variance of element i.
local function exact(x, dy, w, b, channels, eps, act, cell)
  local sum, squares, count, e_sum, product = {}, {}, {}, {}, {}
  local function add(t, k, v) t[k] = (t[k] or 0) + v end
  for i, v in ipairs(x) do
    add(sum, cell(i), v)
    add(count, cell(i), 1)
  end
  for i, v in ipairs(x) do add(squares, cell(i), (v - sum[cell(i)] / count[cell(i)]) ^ 2) end
  local y, dx, dw, db, e, hat = {}, {}, {}, {}, {}, {}
  for i, v in ipairs(x) do
    local k, c = cell(i), (i - 1) % channels + 1
    hat[i] = (v - sum[k] / count[k]) / math.sqrt(squares[k] / count[k] + eps)
    local made, slope = ACT[act](hat[i] * w[c] + b[c])
    y[i], e[i] = made, dy[i] * slope
    add(dw, c, e[i] * hat[i])
    add(db, c, e[i])
    add(e_sum, k, e[i] * w[c])
    add(product, k, e[i] * w[c] * hat[i])
  end
  for i in ipairs(x) do
    local k, c = cell(i), (i - 1) % channels + 1
    dx[i] = (e[i] * w[c] - e_sum[k] / count[k] - hat[i] * product[k] / count[k])
      / math.sqrt(squares[k] / count[k] + eps)
  end
  return {y, dx, dw, db}
end

local function check(shape, act, groups)
  local channels, size = shape[#shape], 1
  for _, s in ipairs(shape) do size = size * s end
  local what = ("%s, %s, %s"):format(table.concat(shape, "x"), act, groups or "batch")
  local function leaf(t) return t:detach():requires_grad_() end
  local x, dy = leaf((marea.normal(shape) * 3 + 1):to "bf16"), marea.normal(shape):to "bf16"
  local w, b = leaf(marea.normal{channels}), leaf(marea.normal{channels})
  cases = cases + 1
  local y
  if groups then y = marea.group_norm(x, w, b, {groups = groups, eps = 1e-3})
  else y = marea.batch_norm(x, w, b, {activation = act, eps = 1e-3}) end
  local got = marea.grad(y, {x, w, b}, {seed = dy})
  table.insert(got, 1, y)
  local example, width = size // shape[1], channels // (groups or channels)
  local wanted = exact(allclose.flat(x), allclose.flat(dy), allclose.flat(w), allclose.flat(b), channels, 1e-3, act,
    function(i)
      local c = (i - 1) % channels
      return groups and (i - 1) // example * groups + c // width or c
    end)
  local root = math.sqrt(size / channels)
  for i, name in ipairs{"y", "dx", "dweight", "dbias"} do
    compare(what .. ": " .. name, got[i]:detach(), wanted[i], i < 3 and "bf16" or "f32", i < 3 and 1 or root)
  end
end

marea.seed(11)
for _, shape in ipairs{{5, 1}, {700, 1}, {40, 3}, {3, 5, 7, 16}, {1100, 16}, {37, 21}, {6, 70}, {300, 64}, {2, 700},
  {3, 1100}, {2, 2100}} do
  for act in pairs(ACT) do check(shape, act) end
end
for _, shape in ipairs{{3, 6, 5, 12}, {2, 300, 8}, {2, 3, 520}} do
  for _, groups in ipairs{1, 4, shape[#shape]} do check(shape, "none", groups) end
end
print(("%s: %d cases, %d numbers"):format(os.getenv "MAREA_ISA", cases, compared))
