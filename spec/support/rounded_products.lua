-- SPDX-License-Identifier: MIT
-- Runs in a process of its own, started by products_spec with MAREA_ISA set: operators with products inside, whose
-- operands are rounded to bf16, against f64: one step from operands that are rounded by hand, whole sequences within
-- what rounding costs. Prints what errs by more than allowed, then how many numbers it compared.
--
--   MAREA_ISA=amx lua5.4 spec/support/rounded_products.lua
local marea = require "marea"
local allclose = require "spec.support.allclose"

local compared, cases = 0, 0

--- |y - exact| <= share * magnitude, element by element
local function compare(what, y, exact, magnitude, share)
  local a, e, m = allclose.flat(y), allclose.flat(exact), allclose.flat(magnitude)
  assert(y.dtype == "f32" and #a == #e and #e == #m, what)
  for i = 1, #e do
    compared = compared + 1
    local close = math.abs(a[i] - e[i]) <= share * m[i]
    if not close then -- or NaN
      print(("%s: element %d of %d: %.9g instead of %.9g"):format(what, i, #e, a[i], e[i]))
      return
    end
  end
end

local function rounded(t) return t:detach():to "bf16":to "f64":detach() end
local function double(t) return t:detach():to "f64":detach() end

local function gradients(f, inputs, dy, dtype)
  local leaves = {}
  for i, t in ipairs(inputs) do leaves[i] = t:to(dtype):detach():clone():requires_grad_() end
  local y = f(table.unpack(leaves))
  local results = marea.grad(y, leaves, {seed = dy:to(dtype)})
  table.insert(results, 1, y:detach())
  return results
end

--- Results and gradients differ from f64's by at most `most` of their norm, and do differ.
local function near(what, f, inputs, dy, most)
  cases = cases + 1
  local exact = gradients(function(...) return f("full", ...) end, inputs, dy, "f64")
  for i, t in ipairs(gradients(function(...) return f("bf16", ...) end, inputs, dy, "f32")) do
    local error, norm = (double(t) - exact[i]):norm():item(), exact[i]:norm():item()
    compared = compared + t:numel()
    assert(t.dtype == "f32", what)
    local close = error <= most * norm and error >= 1e-5 * norm
    if not close then
      print(("%s: result %d errs by %.3g of its norm"):format(what, i, error / norm))
    end
  end
end

-- ---- recurrent layers ----

local GATES = {lstm = 4, gru = 3, rnn = 1}

local function run(name, x, w_x, w_h, bias, h0, lengths, attrs)
  if name == "lstm" then return (marea.lstm(x, w_x, w_h, bias, h0, nil, lengths, attrs)) end
  if name == "gru" then return (marea.gru(x, w_x, w_h, bias, nil, h0, lengths, attrs)) end
  return (marea.rnn(x, w_x, w_h, bias, h0, lengths, attrs))
end

--- One step from h0: the sums that enter the gates are of rounded operands. tanh and sigmoid have slopes of at most 1.
local function one_step(name, n, c, h)
  cases = cases + 1
  local width = GATES[name] * h
  local x, h0, bias = marea.normal{n, 1, c}, marea.normal{n, h}, marea.normal{width}
  local w_x, w_h = marea.normal{c, width} * 0.3, marea.normal{h, width} * 0.3
  local y = run(name, x, w_x, w_h, bias, h0, nil, {products = "bf16"})
  local a = rounded(x):reshape{n, c}:matmul(rounded(w_x)) + double(bias)
  local b = rounded(h0):matmul(rounded(w_h))
  local function part(t, i) return t:narrow(2, (i - 1) * h + 1, h) end
  local exact
  if name == "lstm" then
    local s = a + b
    exact = part(s, 4):sigmoid() * (part(s, 1):sigmoid() * part(s, 3):tanh()):tanh()
  elseif name == "gru" then
    local s = a + b
    local r, z = part(s, 1):sigmoid(), part(s, 2):sigmoid()
    local new = (part(a, 3) + r * part(b, 3)):tanh()
    exact = new + z * (double(h0) - new)
  else
    exact = (a + b):tanh()
  end
  compare(name .. " of one step", y:reshape{n, h}, exact, marea.ones({n, h}, {dtype = "f64"}), 3e-6 * (c + h) ^ 0.5)
end

--- The gradients of one step to its operands, from the gradient da of the sums, in f64.
local function one_step_back(n, c, h)
  cases = cases + 1
  local x, w_x, w_h = marea.normal{n, 1, c}, marea.normal{c, h} * 0.3, marea.normal{h, h} * 0.3
  local h0, dy = marea.normal{n, h}, marea.normal{n, 1, h}
  local function f(a, b, d, e) return run("rnn", a, b, d, nil, e, nil, {products = "bf16"}) end
  local got = gradients(f, {x, w_x, w_h, h0}, dy, "f32")
  local y, flat = double(got[1]):reshape{n, h}, rounded(x):reshape{n, c}
  local da = rounded(double(dy):reshape{n, h} * (1 - y * y))
  local function check(what, t, left, right) -- a number near the middle of two of bf16 may go to either
    compare(what, t:reshape(left:matmul(right).shape), left:matmul(right), left:abs():matmul(right:abs()), 2 ^ -9)
  end
  check("rnn's dx", got[2], da, rounded(w_x):transpose(1, 2))
  check("rnn's dw_x", got[3], flat:transpose(1, 2), da)
  check("rnn's dw_h", got[4], rounded(h0):transpose(1, 2), da)
  check("rnn's dh0", got[5], da, rounded(w_h):transpose(1, 2))
end

for _, s in ipairs{{3, 5, 7}, {40, 64, 32}, {150, 33, 48}, {1, 16, 20}} do
  local n, c, h = table.unpack(s)
  for _, name in ipairs{"lstm", "gru", "rnn"} do
    one_step(name, n, c, h)
    local steps, gates = 5, GATES[name]
    local inputs = {marea.normal{n, steps, c}, marea.normal{c, gates * h} * 0.2, marea.normal{h, gates * h} * 0.2}
    local lengths = marea.randint{shape = {n}, low = 0, high = steps}
    lengths[1] = steps
    for _, reverse in ipairs{false, true} do
      near(name, function(products, x, w_x, w_h)
        return run(name, x, w_x, w_h, nil, nil, lengths, {reverse = reverse, products = products})
      end, inputs, marea.normal{n, steps, h}, 0.03)
    end
  end
  one_step_back(n, c, h)
end
for _, after in ipairs{true, false} do
  near("gru", function(products, x, w_x, w_h)
    return (marea.gru(x, w_x, w_h, {reset_after = after, products = products}))
  end, {marea.normal{20, 6, 9}, marea.normal{9, 39} * 0.2, marea.normal{13, 39} * 0.2}, marea.normal{20, 6, 13}, 0.03)
end

-- ---- linear_cross_entropy ----

--- The loss of rounded operands; gradients of the logits' gradient, rounded, within the rounding of a few numbers.
local function linear_loss(n, c, v)
  cases = cases + 1
  local x, w, b = marea.normal{n, c}, marea.normal{c, v} * 0.3, marea.normal{v}
  local labels = marea.randint{shape = {n}, low = 1, high = v}
  local attrs = {reduction = "sum", products = "bf16"}
  local function f(a, d, e) return marea.linear_cross_entropy(a, d, labels, e, attrs) end
  local got = gradients(f, {x, w, b}, marea.ones{}, "f32")
  local logits = (rounded(x):matmul(rounded(w)) + double(b)):requires_grad_()
  local loss = marea.cross_entropy(logits, labels, {reduction = "sum"})
  local d = marea.grad(loss, {logits})[1]
  compare("loss", got[1], loss:detach(), marea.ones({}, {dtype = "f64"}), 1e-5 * n)
  compare("loss without gradients", marea.no_grad(f, x, w, b), loss:detach(), marea.ones({}, {dtype = "f64"}), 1e-5 * n)
  local function check(what, t, left, right)
    compare(what, t, left:matmul(right), left:abs():matmul(right:abs()), 2 ^ -9)
  end
  check("loss' dx", got[2], rounded(d), rounded(w):transpose(1, 2))
  check("loss' dweight", got[3], rounded(x):transpose(1, 2), rounded(d))
  compare("loss' dbias", got[4], d:sum(1), d:abs():sum(1), 1e-5)
end

for _, s in ipairs{{5, 7, 9}, {300, 64, 1001}, {700, 33, 300}} do
  linear_loss(table.unpack(s))
  local labels = marea.randint{shape = {s[1]}, low = 1, high = s[3]}
  for _, reduction in ipairs{"mean", "none"} do
    local dy = reduction == "mean" and marea.ones{} or marea.normal{s[1]}
    near("linear_cross_entropy", function(products, x, w)
      return marea.linear_cross_entropy(x, w, labels, {reduction = reduction, products = products})
    end, {marea.normal{s[1], s[2]}, marea.normal{s[2], s[3]}}, dy, 0.03)
  end
end

-- ---- attention ----

--- One tile: scores of rounded queries, scaled before, and keys; weights are rounded, their sum is not.
local function one_tile(tq, tk, d, dv)
  cases = cases + 1
  local q, k, v = marea.normal{1, tq, 1, d}, marea.normal{1, tk, 1, d}, marea.normal{1, tk, 1, dv}
  local y = marea.scaled_dot_product_attention(q, k, v, nil, nil, {scale = 0.3, products = "bf16"})
  local s = rounded(q * 0.3):reshape{tq, d}:matmul(rounded(k):reshape{tk, d}:transpose(1, 2))
  local p = (s - s:max(2, true)):exp()
  local values = rounded(v):reshape{tk, dv}
  local sum = p:sum(2, true)
  compare("attention of a tile", y:reshape{tq, dv}, rounded(p):matmul(values) / sum, p:matmul(values:abs()) / sum,
    2 ^ -10)
end

for _, s in ipairs{{5, 7, 3, 2}, {40, 250, 64, 64}, {130, 33, 17, 40}, {2, 1, 32, 1}} do
  one_tile(table.unpack(s))
end

-- n, tq, tk, heads, kv_heads, d, dv
for _, s in ipairs{{2, 9, 11, 2, 1, 5, 3}, {1, 300, 300, 2, 2, 64, 64}, {2, 140, 530, 2, 1, 20, 36}} do
  local n, tq, tk, heads, kv, d, dv = table.unpack(s)
  local inputs = {marea.normal{n, tq, heads, d}, marea.normal{n, tk, kv, d}, marea.normal{n, tk, kv, dv}}
  local lengths, dy = marea.randint{shape = {n}, low = 1, high = tk}, marea.normal{n, tq, heads, dv}
  local hides = marea.randint{shape = {n, 1, tq, tk}, low = 0, high = 1}:cast "u8"
  for _, how in ipairs{{}, {causal = true}, {lengths = lengths}, {mask = hides}, {causal = true, dropout = 0.25}} do
    near("attention", function(products, q, k, v)
      marea.seed(5) -- the same dropout
      return marea.scaled_dot_product_attention(q, k, v, how.mask, how.lengths,
        {causal = how.causal, dropout = how.dropout, seed = 3, products = products})
    end, inputs, dy, 0.03)
  end
  -- what is hidden reaches nothing, be it no number
  cases = cases + 1
  local k, v = inputs[2]:detach():clone(), inputs[3]:detach():clone()
  local function f(x, a, b)
    return marea.scaled_dot_product_attention(x, a, b, nil, nil, {causal = true, products = "bf16"})
  end
  local before = f(inputs[1], k, v)
  k:narrow(2, tk, 1):fill_(0 / 0)
  v:narrow(2, tk, 1):fill_(1 / 0)
  local after = f(inputs[1], k, v)
  local seen = tq - 1
  compare("attention beside keys that are no numbers", after:narrow(2, 1, seen), double(before):narrow(2, 1, seen),
    marea.ones({n, seen, heads, dv}, {dtype = "f64"}), 2 ^ -6)
end

print(("%s: %d cases, %d numbers"):format(marea.info().isa, cases, compared))
