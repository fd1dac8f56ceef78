-- SPDX-License-Identifier: MIT
--- The second oracle: operators written again in plain Lua, as loops over indices that follow the textbook formula.
--- Slow and simple on purpose. An array is {shape = {...}, ...elements in row-major order}.
---
--- naive[op](inputs, attrs) returns an array; inputs are arrays (false where an optional one is absent).
local core = require "marea.core"
local allclose = require "spec.support.allclose"

local naive = {}

local function count(shape)
  local n = 1
  for i = 1, #shape do n = n * shape[i] end
  return n
end

--- The array of a tensor.
function naive.array(t)
  if not core.is_tensor(t) then return t end
  local a = allclose.flat(t)
  a.shape = t.shape
  return a
end

--- Position of an index (1-based in every dim).
local function position(shape, index)
  local p = 0
  for d = 1, #shape do p = p * shape[d] + index[d] - 1 end
  return p + 1
end

--- Calls f(index) for every index of a shape in row-major order; f must not keep the table.
local function each(shape, f)
  local rank, n = #shape, count(shape)
  local index = {}
  for d = 1, rank do index[d] = 1 end
  for _ = 1, n do
    f(index)
    for d = rank, 1, -1 do
      index[d] = index[d] + 1
      if index[d] <= shape[d] then break end
      index[d] = 1
    end
  end
end

--- New array of a shape with f(index) as elements.
local function build(shape, f)
  local y = {shape = shape}
  each(shape, function(index) y[#y + 1] = f(index) end)
  return y
end

local function copy(list)
  return table.move(list, 1, #list, 1, {})
end

local function dim_of(dim, rank)
  return dim < 0 and rank + dim + 1 or dim
end

local function dims_of(dims, rank)
  local set = {}
  if type(dims) == "number" then dims = {dims} end
  if dims == nil or #dims == 0 then
    for d = 1, rank do set[d] = true end
  else
    for _, d in ipairs(dims) do set[dim_of(d, rank)] = true end
  end
  return set
end

-- ---- elementwise ----

local function sigmoid(x) return 1 / (1 + math.exp(-x)) end
local function softplus(x) return math.max(x, 0) + math.log(1 + math.exp(-math.abs(x))) end
local function tanh(x)
  local e = math.exp(-2 * math.abs(x))
  return (x < 0 and -1 or 1) * (1 - e) / (1 + e)
end

--- By Stirling's series at x + 30.
local function lgamma(x)
  local product, w = 0, x
  for _ = 1, 30 do product, w = product + math.log(w), w + 1 end
  local series = 1 / (12 * w) - 1 / (360 * w ^ 3) + 1 / (1260 * w ^ 5) - 1 / (1680 * w ^ 7)
  return (w - 0.5) * math.log(w) - w + 0.5 * math.log(2 * math.pi) + series - product
end

--- By the sum of (x + k)^-s over 2000 k, small terms first, and the first terms of Euler and Maclaurin's formula.
local function polygamma(x, a)
  local n, w, sum = a.order or 0, x + 2000, 0
  local s = n + 1
  for k = 1999, 0, -1 do sum = sum + (x + k) ^ -s end
  if n == 0 then return math.log(w) - 1 / (2 * w) - 1 / (12 * w ^ 2) - sum end
  local factorial = 1
  for i = 2, n do factorial = factorial * i end
  sum = sum + w ^ (1 - s) / (s - 1) + w ^ -s / 2 + s * w ^ (-s - 1) / 12
  return (n % 2 == 1 and 1 or -1) * factorial * sum
end

local unary = {
  lgamma = lgamma, polygamma = polygamma,
  neg = function(x) return -x end, abs = math.abs, square = function(x) return x * x end, sqrt = math.sqrt,
  sign = function(x) return x > 0 and 1 or x < 0 and -1 or 0 end, rsqrt = function(x) return 1 / math.sqrt(x) end,
  reciprocal = function(x) return 1 / x end, exp = math.exp, log = function(x) return math.log(x) end,
  log1p = function(x) return math.log(1 + x) end, expm1 = function(x) return math.exp(x) - 1 end,
  isnan = function(x) return x ~= x and 1 or 0 end, isinf = function(x) return math.abs(x) == math.huge and 1 or 0 end,
  isfinite = function(x) return math.abs(x) < math.huge and 1 or 0 end,
  sin = math.sin, cos = math.cos, floor = math.floor, ceil = math.ceil, sigmoid = sigmoid, tanh = tanh,
  softplus = softplus, silu = function(x) return x * sigmoid(x) end,
  hard_swish = function(x) return x <= -3 and 0 or x * math.min(x / 6 + 0.5, 1) end,
  relu = function(x) return math.max(x, 0) end, relu6 = function(x) return math.min(math.max(x, 0), 6) end,
  leaky_relu = function(x, a) return x > 0 and x or (a.slope or 0.01) * x end,
  elu = function(x, a) return x > 0 and x or (a.alpha or 1) * (math.exp(x) - 1) end,
  clamp = function(x, a) return math.min(math.max(x, a.min or -math.huge), a.max or math.huge) end,
}
for name, f in pairs(unary) do
  naive[name] = function(inputs, a)
    local x = inputs[1]
    local y = {shape = x.shape}
    for i = 1, #x do y[i] = f(x[i], a) end
    return y
  end
end

local function broadcast_shape(...)
  local shape = {}
  local rank = 0
  for _, s in ipairs {...} do rank = math.max(rank, #s) end
  for d = 1, rank do
    shape[d] = 1
    for _, s in ipairs {...} do
      local size = s[d - rank + #s]
      if size and size ~= 1 then shape[d] = size end
    end
  end
  return shape
end

--- Element of x at an index of a shape that it broadcasts to; a number stands for itself.
local function at(x, index)
  if type(x) == "number" then return x end
  local own, skip = {}, #index - #x.shape
  for d = 1, #x.shape do own[d] = x.shape[d] == 1 and 1 or index[d + skip] end
  return x[position(x.shape, own)]
end

local function shape_of(x)
  return type(x) == "number" and {} or x.shape
end

local function flag(condition) return condition and 1 or 0 end
local binary = {
  add = function(a, b) return a + b end, sub = function(a, b) return a - b end, mul = function(a, b) return a * b end,
  div = function(a, b) return a / b end, pow = function(a, b) return a ^ b end, maximum = math.max, minimum = math.min,
  remainder = function(a, b) return a % b end, floor_divide = function(a, b) return a // b end,
  eq = function(a, b) return flag(a == b) end, ne = function(a, b) return flag(a ~= b) end,
  lt = function(a, b) return flag(a < b) end, le = function(a, b) return flag(a <= b) end,
  gt = function(a, b) return flag(a > b) end, ge = function(a, b) return flag(a >= b) end,
}
for name, f in pairs(binary) do
  naive[name] = function(inputs)
    local a, b = inputs[1], inputs[2]
    return build(broadcast_shape(shape_of(a), shape_of(b)), function(index) return f(at(a, index), at(b, index)) end)
  end
end

function naive.where(inputs)
  local c, a, b = inputs[1], inputs[2], inputs[3]
  return build(broadcast_shape(shape_of(c), shape_of(a), shape_of(b)), function(index)
    return at(c, index) ~= 0 and at(a, index) or at(b, index)
  end)
end

-- ---- reductions: f gets the list of elements that fall together ----

local function reduce(f)
  return function(inputs, a)
    local x = inputs[1]
    local set = dims_of(a.dims, #x.shape)
    local kept = {}
    for d = 1, #x.shape do kept[d] = set[d] and 1 or x.shape[d] end
    local groups = build(kept, function() return {} end)
    each(x.shape, function(index)
      local own = {}
      for d = 1, #kept do own[d] = set[d] and 1 or index[d] end
      table.insert(groups[position(kept, own)], x[position(x.shape, index)])
    end)
    local y = {shape = kept}
    for i = 1, #groups do y[i] = f(groups[i], a) end
    if not a.keepdim then
      y.shape = {}
      for d = 1, #kept do if not set[d] then table.insert(y.shape, kept[d]) end end
    end
    return y
  end
end

local function sum(v)
  local s = 0
  for i = 1, #v do s = s + v[i] end
  return s
end

local function variance(v, a)
  local mean, s = sum(v) / #v, 0
  for i = 1, #v do s = s + (v[i] - mean) ^ 2 end
  return s / (#v - (a.correction or 1))
end

local function logsumexp(v)
  local m, s = math.max(table.unpack(v)), 0
  for i = 1, #v do s = s + math.exp(v[i] - m) end
  return m + math.log(s)
end

naive.sum = reduce(sum)
naive.mean = reduce(function(v) return sum(v) / #v end)
naive.max = reduce(function(v) return math.max(table.unpack(v)) end)
naive.min = reduce(function(v) return math.min(table.unpack(v)) end)
naive.var = reduce(variance)
naive.std = reduce(function(v, a) return math.sqrt(variance(v, a)) end)
naive.logsumexp = reduce(logsumexp)
naive.prod = reduce(function(v)
  local p = 1
  for i = 1, #v do p = p * v[i] end
  return p
end)
naive.norm = reduce(function(v, a)
  local p, total = a.p or 2, 0
  for i = 1, #v do
    total = p == math.huge and math.max(total, math.abs(v[i])) or p < math.huge and total + math.abs(v[i]) ^ p or total
  end
  return p == math.huge and total or total ^ (1 / p)
end)
naive.any = reduce(function(v)
  for i = 1, #v do if v[i] ~= 0 then return 1 end end
  return 0
end)
naive.all = reduce(function(v)
  for i = 1, #v do if v[i] == 0 then return 0 end end
  return 1
end)

function naive.masked_fill(inputs)
  local x, mask, value = inputs[1], inputs[2], inputs[3]
  return build(broadcast_shape(x.shape, mask.shape), function(index)
    return at(mask, index) ~= 0 and at(value, index) or at(x, index)
  end)
end

function naive.masked_select(inputs)
  local x, mask = inputs[1], inputs[2]
  local y = {}
  each(broadcast_shape(x.shape, mask.shape), function(index)
    if at(mask, index) ~= 0 then y[#y + 1] = at(x, index) end
  end)
  y.shape = {#y}
  return y
end

local function triangle(keeps)
  return function(inputs, a)
    local x = inputs[1]
    local rank = #x.shape
    return build(x.shape, function(index)
      return keeps(index[rank] - index[rank - 1], a.diagonal or 0) and at(x, index) or 0
    end)
  end
end
naive.tril = triangle(function(d, diagonal) return d <= diagonal end)
naive.triu = triangle(function(d, diagonal) return d >= diagonal end)

--- The first result of sort and topk; samples have no ties.
local function in_order(x, dim, descending, kept)
  local shape = copy(x.shape)
  dim = dim_of(dim or -1, #shape)
  shape[dim] = kept or shape[dim]
  return build(shape, function(index)
    local line, own = {}, copy(index)
    for i = 1, x.shape[dim] do
      own[dim] = i
      line[i] = x[position(x.shape, own)]
    end
    table.sort(line, function(a, b) if descending then return a > b end return a < b end)
    return line[index[dim]]
  end)
end
function naive.sort(inputs, a) return in_order(inputs[1], a.dim, a.descending) end
function naive.topk(inputs, a) return in_order(inputs[1], a.dim, a.largest ~= false, a.k) end

local function extreme_place(better)
  local f = reduce(function(v)
    local best = 1
    for i = 2, #v do if better(v[i], v[best]) then best = i end end
    return best
  end)
  return function(inputs, a) return f(inputs, {dims = {a.dim}, keepdim = a.keepdim}) end
end
naive.argmax = extreme_place(function(a, b) return a > b end)
naive.argmin = extreme_place(function(a, b) return a < b end)

function naive.cumsum(inputs, a)
  local x = inputs[1]
  local dim = dim_of(a.dim, #x.shape)
  return build(x.shape, function(index)
    local s, own = 0, copy(index)
    for i = a.reverse and index[dim] or 1, a.reverse and x.shape[dim] or index[dim] do
      own[dim] = i
      s = s + x[position(x.shape, own)]
    end
    return s
  end)
end

local function along_last(f)
  return function(inputs, a)
    local x = inputs[1]
    local dim = dim_of(a.dim or -1, #x.shape)
    return build(x.shape, function(index)
      local row, own = {}, copy(index)
      for i = 1, x.shape[dim] do
        own[dim] = i
        row[i] = x[position(x.shape, own)]
      end
      return f(row, index[dim])
    end)
  end
end
naive.softmax = along_last(function(v, i) return math.exp(v[i] - logsumexp(v)) end)
naive.log_softmax = along_last(function(v, i) return v[i] - logsumexp(v) end)

-- ---- shape and index ----

function naive.permute(inputs, a)
  local x, shape = inputs[1], {}
  for d, from in ipairs(a.dims) do shape[d] = x.shape[dim_of(from, #x.shape)] end
  return build(shape, function(index)
    local own = {}
    for d, from in ipairs(a.dims) do own[dim_of(from, #x.shape)] = index[d] end
    return x[position(x.shape, own)]
  end)
end

function naive.flip(inputs, a)
  local x = inputs[1]
  local set = dims_of(a.dims, #x.shape)
  return build(x.shape, function(index)
    local own = copy(index)
    for d = 1, #own do if set[d] then own[d] = x.shape[d] + 1 - own[d] end end
    return x[position(x.shape, own)]
  end)
end

local function with_ones_in_front(list, rank)
  local out = copy(list)
  while #out < rank do table.insert(out, 1, 1) end
  return out
end

function naive.tile(inputs, a)
  local rank = math.max(#a.repeats, #inputs[1].shape)
  local from, repeats, shape = with_ones_in_front(inputs[1].shape, rank), with_ones_in_front(a.repeats, rank), {}
  for d = 1, rank do shape[d] = repeats[d] * from[d] end
  return build(shape, function(index)
    local own = {}
    for d = 1, rank do own[d] = (index[d] - 1) % from[d] + 1 end
    return inputs[1][position(from, own)]
  end)
end

function naive.pad(inputs, a)
  local x, shape = inputs[1], {}
  for d = 1, #x.shape do shape[d] = x.shape[d] + (a.padding[2 * d - 1] or 0) + (a.padding[2 * d] or 0) end
  return build(shape, function(index)
    local own = {}
    for d = 1, #shape do
      own[d] = index[d] - (a.padding[2 * d - 1] or 0)
      if own[d] < 1 or own[d] > x.shape[d] then return a.value or 0 end
    end
    return x[position(x.shape, own)]
  end)
end

function naive.slice(inputs, a)
  local x = inputs[1]
  local dim, shape, step = dim_of(a.dim, #x.shape), copy(x.shape), a.step or 1
  local size = x.shape[dim]
  local start, stop = dim_of(a.start or 1, size), dim_of(a.stop or -1, size)
  shape[dim] = math.max((stop - start) // step + 1, 0)
  return build(shape, function(index)
    local own = copy(index)
    own[dim] = start + (index[dim] - 1) * step
    return x[position(x.shape, own)]
  end)
end

function naive.concat(inputs, a)
  local rank, shape = #inputs[1].shape, copy(inputs[1].shape)
  local dim = dim_of(a.dim or 1, rank)
  shape[dim] = 0
  for _, x in ipairs(inputs) do shape[dim] = shape[dim] + x.shape[dim] end
  return build(shape, function(index)
    local own, i = copy(index), 1
    while own[dim] > inputs[i].shape[dim] do
      own[dim] = own[dim] - inputs[i].shape[dim]
      i = i + 1
    end
    return inputs[i][position(inputs[i].shape, own)]
  end)
end

function naive.index_select(inputs, a)
  local x, choice = inputs[1], inputs[2]
  local dim, shape, extra = dim_of(a.dim or 1, #x.shape), copy(x.shape), #choice.shape
  table.remove(shape, dim)
  for d = extra, 1, -1 do table.insert(shape, dim, choice.shape[d]) end
  return build(shape, function(index)
    local own = {table.unpack(index, 1, dim - 1)}
    own[dim] = choice[position(choice.shape, {table.unpack(index, dim, dim + extra - 1)})]
    table.move(index, dim + extra, #index, dim + 1, own)
    return x[position(x.shape, own)] * (a.scale or 1)
  end)
end

function naive.index_add(inputs, a)
  local x, choice, source = inputs[1], inputs[2], inputs[3]
  local dim, y = dim_of(a.dim, #x.shape), copy(x)
  y.shape = x.shape
  each(source.shape, function(index)
    local own = copy(index)
    own[dim] = choice[index[dim]]
    local p = position(x.shape, own)
    y[p] = y[p] + source[position(source.shape, index)]
  end)
  return y
end

function naive.gather(inputs, a)
  local x, choice = inputs[1], inputs[2]
  local dim = dim_of(a.dim, #x.shape)
  return build(choice.shape, function(index)
    local own = copy(index)
    own[dim] = choice[position(choice.shape, index)]
    return x[position(x.shape, own)]
  end)
end

function naive.scatter_add(inputs, a)
  local x, choice, source = inputs[1], inputs[2], inputs[3]
  local dim, y = dim_of(a.dim, #x.shape), copy(x)
  y.shape = x.shape
  each(choice.shape, function(index)
    local own = copy(index)
    own[dim] = choice[position(choice.shape, index)]
    local p = position(x.shape, own)
    y[p] = y[p] + source[position(source.shape, index)]
  end)
  return y
end

-- ---- matmul and linear ----

local function swap_last(x)
  local shape = copy(x.shape)
  local r = #shape
  shape[r], shape[r - 1] = shape[r - 1], shape[r]
  return build(shape, function(index)
    local own = copy(index)
    own[r], own[r - 1] = index[r - 1], index[r]
    return x[position(x.shape, own)]
  end)
end

local function reshaped(x, shape)
  local y = copy(x)
  y.shape = shape
  return y
end

function naive.matmul(inputs, attrs)
  local a, b = inputs[1], inputs[2]
  local drop_row, drop_column = #a.shape == 1, #b.shape == 1
  if drop_row then a = reshaped(a, {1, a.shape[1]}) elseif attrs.transpose_a then a = swap_last(a) end
  if drop_column then b = reshaped(b, {b.shape[1], 1}) elseif attrs.transpose_b then b = swap_last(b) end
  local ra, rb = #a.shape, #b.shape
  local batch = broadcast_shape({table.unpack(a.shape, 1, ra - 2)}, {table.unpack(b.shape, 1, rb - 2)})
  local shape = copy(batch)
  shape[#shape + 1], shape[#shape + 2] = a.shape[ra - 1], b.shape[rb]
  local r, inner = #shape, a.shape[ra]
  local y = build(shape, function(index)
    local s, ia, ib = 0, copy(index), copy(index)
    for k = 1, inner do
      ia[r], ib[r - 1] = k, k
      -- a one-sized last dim is not broadcast: at() only stretches dims of size 1, and here the index is 1 then
      s = s + at(a, ia) * at(b, ib)
    end
    return s
  end)
  if drop_column then table.remove(y.shape) end
  if drop_row then table.remove(y.shape, drop_column and #y.shape or #y.shape - 1) end
  return y
end

local fused = {
  none = function(x) return x end, relu = unary.relu, relu6 = unary.relu6,
  leaky_relu = unary.leaky_relu, sigmoid = sigmoid, tanh = tanh,
  softplus = softplus, elu = function(x, a) return x > 0 and x or (a.slope or 0.01) * (math.exp(x) - 1) end,
}

local function activate(y, attrs)
  local f = fused[attrs.activation or "none"]
  for i = 1, #y do y[i] = f(y[i], attrs) end
  return y
end

function naive.linear(inputs, attrs)
  local x, w, b = inputs[1], inputs[2], inputs[3]
  local n_in, n_out = w.shape[1], w.shape[2]
  local shape = copy(x.shape)
  shape[#shape] = n_out
  local r = #shape
  local y = build(shape, function(index)
    local s, own = b and b[index[r]] or 0, copy(index)
    for k = 1, n_in do
      own[r] = k
      s = s + x[position(x.shape, own)] * w[(k - 1) * n_out + index[r]]
    end
    return s
  end)
  return activate(y, attrs)
end

-- ---- normalization ----

--- (x - mean) / sqrt(variance + eps) * weight + bias, where elements with the same key(index) share mean and variance
--- and `last` last dimensions tell the place in weight and bias.
local function normalize(x, weight, bias, eps, last, key)
  local sums, squares, counts = {}, {}, {}
  local function over(f)
    each(x.shape, function(index) f(key(index), x[position(x.shape, index)], index) end)
  end
  over(function(k, v) sums[k], counts[k] = (sums[k] or 0) + v, (counts[k] or 0) + 1 end)
  over(function(k, v) squares[k] = (squares[k] or 0) + (v - sums[k] / counts[k]) ^ 2 end)
  local y, shape = {shape = x.shape}, table.move(x.shape, #x.shape - last + 1, #x.shape, 1, {})
  over(function(k, v, index)
    local place = position(shape, table.move(index, #index - last + 1, #index, 1, {}))
    y[#y + 1] = (v - sums[k] / counts[k]) / math.sqrt(squares[k] / counts[k] + eps) * (weight and weight[place] or 1)
      + (bias and bias[place] or 0)
  end)
  return y
end

function naive.batch_norm(inputs, a)
  local function channel(index) return index[#index] end
  return activate(normalize(inputs[1], inputs[2], inputs[3], a.eps, 1, channel), a)
end

function naive.batch_norm_eval(inputs, a)
  local x, mean, var, weight, bias = table.unpack(inputs, 1, 5)
  return activate(build(x.shape, function(index)
    local c = index[#index]
    return (x[position(x.shape, index)] - mean[c]) / math.sqrt(var[c] + a.eps) * (weight and weight[c] or 1)
      + (bias and bias[c] or 0)
  end), a)
end

function naive.group_norm(inputs, a)
  local width = inputs[1].shape[#inputs[1].shape] // a.groups
  return normalize(inputs[1], inputs[2], inputs[3], a.eps, 1, function(index)
    return index[1] .. "," .. (index[#index] - 1) // width
  end)
end

function naive.layer_norm(inputs, a)
  return normalize(inputs[1], inputs[2], inputs[3], a.eps, a.last, function(index)
    return table.concat(index, ",", 1, #index - a.last)
  end)
end

function naive.rms_norm(inputs, a)
  local x, weight, last, squares, counts = inputs[1], inputs[2], a.last, {}, {}
  local function key(index) return table.concat(index, ",", 1, #index - last) end
  each(x.shape, function(index)
    local k, v = key(index), x[position(x.shape, index)]
    squares[k], counts[k] = (squares[k] or 0) + v * v, (counts[k] or 0) + 1
  end)
  local row = table.move(x.shape, #x.shape - last + 1, #x.shape, 1, {})
  return build(x.shape, function(index)
    local k, place = key(index), position(row, table.move(index, #index - last + 1, #index, 1, {}))
    return x[position(x.shape, index)] / math.sqrt(squares[k] / counts[k] + a.eps) * (weight and weight[place] or 1)
  end)
end

-- ---- convolution and pools ----

local function pair(v, default)
  if v == nil then v = default end
  if type(v) == "number" then return {v, v} end
  return v
end

--- top, left padding and the output's height and width of a convolution or pool.
local function windows(x, kernel, a, default_stride)
  local stride, dilation = pair(a.stride, default_stride or 1), pair(a.dilation, 1)
  local padding, before, out = a.padding or 0, {}, {}
  for d = 1, 2 do
    local size, reach = x.shape[d + 1], dilation[d] * (kernel[d] - 1) + 1
    local after
    if padding == "same" then
      local total = math.max((-(-size // stride[d]) - 1) * stride[d] + reach - size, 0)
      before[d], after = total // 2, total - total // 2
    elseif padding == "valid" then
      before[d], after = 0, 0
    elseif type(padding) == "number" then
      before[d], after = padding, padding
    elseif #padding == 2 then
      before[d], after = padding[d], padding[d]
    else
      before[d], after = padding[2 * d - 1], padding[2 * d]
    end
    out[d] = (size + before[d] + after - reach) // stride[d] + 1
  end
  return before, out, stride, dilation
end

function naive.conv2d(inputs, a)
  local x, w, b = inputs[1], inputs[2], inputs[3]
  local n, h, width, cin = table.unpack(x.shape)
  local kh, kw, cg, cout = table.unpack(w.shape)
  local before, out, stride, dilation = windows(x, {kh, kw}, a)
  local per_group = cout // (a.groups or 1)
  local y = build({n, out[1], out[2], cout}, function(index)
    local i, oy, ox, co = table.unpack(index)
    local s = b and b[co] or 0
    local first = (co - 1) // per_group * cg
    for ky = 0, kh - 1 do
      local iy = (oy - 1) * stride[1] + ky * dilation[1] - before[1]
      for kx = 0, kw - 1 do
        local ix = (ox - 1) * stride[2] + kx * dilation[2] - before[2]
        if iy >= 0 and iy < h and ix >= 0 and ix < width then
          local at_x = (((i - 1) * h + iy) * width + ix) * cin + first
          local at_w = ((ky * kw + kx) * cg) * cout + co
          for ci = 1, cg do s = s + x[at_x + ci] * w[at_w + (ci - 1) * cout] end
        end
      end
    end
    return s
  end)
  return activate(y, a)
end

function naive.conv_transpose2d(inputs, a)
  local x, w, b = inputs[1], inputs[2], inputs[3]
  local n, cin = x.shape[1], x.shape[4]
  local kh, kw, cg = table.unpack(w.shape) -- (KH, KW, Cout / groups, Cin)
  local groups = a.groups or 1
  local cout, cin_group = cg * groups, cin // groups
  local stride, dilation, extra = pair(a.stride, 1), pair(a.dilation, 1), pair(a.output_padding, 0)
  local kernel, size, crop = {kh, kw}, {}, {}
  for d = 1, 2 do
    local input, reach = x.shape[d + 1], dilation[d] * (kernel[d] - 1) + 1
    local after
    if a.padding == "same" then
      size[d] = input * stride[d]
      crop[d] = math.max(reach - stride[d], 0) // 2
    else
      local p = a.padding
      if p == nil or p == "valid" then p = 0 end
      if type(p) == "number" then p = {p, p, p, p} end
      if #p == 2 then p = {p[1], p[1], p[2], p[2]} end
      crop[d], after = p[2 * d - 1], p[2 * d]
      size[d] = (input - 1) * stride[d] + reach - crop[d] - after + extra[d]
    end
  end
  local y = build({n, size[1], size[2], cout}, function(index) return b and b[index[4]] or 0 end)
  each(x.shape, function(index)
    local i, iy, ix, ci = table.unpack(index)
    local value, group = x[position(x.shape, index)], (ci - 1) // cin_group
    for ky = 0, kh - 1 do
      local oy = (iy - 1) * stride[1] + ky * dilation[1] - crop[1]
      for kx = 0, kw - 1 do
        local ox = (ix - 1) * stride[2] + kx * dilation[2] - crop[2]
        if oy >= 0 and oy < size[1] and ox >= 0 and ox < size[2] then
          local at_y = (((i - 1) * size[1] + oy) * size[2] + ox) * cout + group * cg
          local at_w = ((ky * kw + kx) * cg) * cin + ci
          for co = 1, cg do y[at_y + co] = y[at_y + co] + value * w[at_w + (co - 1) * cin] end
        end
      end
    end
  end)
  return activate(y, a)
end

--- Sequences as images of height 1, by the functions above.
local function of_sequences(two)
  return function(inputs, a)
    local x, w, attrs = inputs[1], inputs[2], {}
    for name, value in pairs(a) do attrs[name] = value end
    for _, name in ipairs {"stride", "dilation", "output_padding"} do
      if a[name] then attrs[name] = {name == "output_padding" and 0 or 1, a[name]} end
    end
    local p = a.padding
    if type(p) == "number" then p = {p, p} end
    if type(p) == "table" then attrs.padding = {0, 0, p[1], p[2]} end
    local function with_shape(t, ...) return setmetatable({shape = {...}}, {__index = t}) end
    local y = two({with_shape(x, x.shape[1], 1, x.shape[2], x.shape[3]),
      with_shape(w, 1, w.shape[1], w.shape[2], w.shape[3]), inputs[3]}, attrs)
    y.shape = {y.shape[1], y.shape[3], y.shape[4]}
    return y
  end
end
naive.conv1d, naive.conv_transpose1d = of_sequences(naive.conv2d), of_sequences(naive.conv_transpose2d)

--- The first input of each window, and the end behind the last one, padding included; how many windows there are.
local function pool_windows(size, kernel, stride, before, after, a)
  if a.adaptive then
    return function(o) return (o - 1) * size // kernel, -(-o * size // kernel) end, kernel
  end
  local windows_in = (size + before + after - kernel) // stride + 1
  local rest = (size + before + after - kernel) % stride
  if a.ceil_mode and rest > 0 and windows_in * stride < size + before then windows_in = windows_in + 1 end
  return function(o)
    local first = (o - 1) * stride - before
    return first, math.min(first + kernel, size + after)
  end, windows_in
end

local function pool(finish)
  return function(inputs, a)
    local x = inputs[1]
    local kernel = pair(a.kernel)
    local before, out, stride = windows(x, kernel, a, kernel)
    local n, h, width, c = table.unpack(x.shape)
    local sizes, range, p = {h, width}, {}, a.padding or 0
    if type(p) == "number" then p = {p, p, p, p} end
    for d = 1, 2 do
      local after = p == "same" and math.max((-(-sizes[d] // stride[d]) - 1) * stride[d] + kernel[d] - sizes[d], 0)
        - before[d] or p == "valid" and 0 or p[#p == 2 and d or 2 * d]
      range[d], out[d] = pool_windows(sizes[d], kernel[d], stride[d], before[d], after, a)
    end
    return build({n, out[1], out[2], c}, function(index)
      local i, oy, ox, channel = table.unpack(index)
      local y0, y1 = range[1](oy)
      local x0, x1 = range[2](ox)
      local seen = {}
      for iy = math.max(y0, 0), math.min(y1, h) - 1 do
        for ix = math.max(x0, 0), math.min(x1, width) - 1 do
          seen[#seen + 1] = x[((i - 1) * h + iy) * width * c + ix * c + channel]
        end
      end
      return finish(seen, (y1 - y0) * (x1 - x0), a)
    end)
  end
end
naive.max_pool2d = pool(function(seen) return math.max(-math.huge, table.unpack(seen)) end)
naive.avg_pool2d = pool(function(seen, covered, a)
  if #seen == 0 then return 0 end
  return sum(seen) / (a.count_padding and not a.adaptive and covered or #seen)
end)

local function pool_of_sequences(two)
  return function(inputs, a)
    local x, attrs = inputs[1], {}
    for name, value in pairs(a) do attrs[name] = value end
    attrs.kernel, attrs.stride = {1, a.kernel}, a.stride and {1, a.stride}
    if type(a.padding) == "table" then attrs.padding = {0, 0, a.padding[1], a.padding[2]} end
    local y = two({setmetatable({shape = {x.shape[1], 1, x.shape[2], x.shape[3]}}, {__index = x})}, attrs)
    y.shape = {y.shape[1], y.shape[3], y.shape[4]}
    return y
  end
end
naive.max_pool1d, naive.avg_pool1d = pool_of_sequences(naive.max_pool2d), pool_of_sequences(naive.avg_pool2d)

function naive.upsample_nearest2d(inputs, a)
  local x, scale = inputs[1], pair(a.scale)
  local n, h, width, c = table.unpack(x.shape)
  return build({n, h * scale[1], width * scale[2], c}, function(index)
    local own = {index[1], (index[2] - 1) // scale[1] + 1, (index[3] - 1) // scale[2] + 1, index[4]}
    return x[position(x.shape, own)]
  end)
end

--- Applies weight(d, i, j), of output i and input j along height (d = 1) and width (d = 2), to images.
local function separable(x, size, weight)
  local n, h, width, c = table.unpack(x.shape)
  return build({n, size[1], size[2], c}, function(index)
    local s = 0
    for i = 1, h do
      local across = weight(1, index[2], i)
      for j = 1, across ~= 0 and width or 0 do
        s = s + across * weight(2, index[3], j) * x[position(x.shape, {index[1], i, j, index[4]})]
      end
    end
    return s
  end)
end

function naive.gaussian_blur(inputs, a)
  local x, radius = inputs[1], a.radius or math.floor(4 * a.sigma + 0.5)
  local function bell(k) return math.abs(k) <= radius and math.exp(-k * k / (2 * a.sigma ^ 2)) or 0 end
  local total = 0
  for k = -radius, radius do total = total + bell(k) end
  return separable(x, {x.shape[2], x.shape[3]}, function(d, i, j)
    local n, s = x.shape[d + 1], 0
    for k = -radius - 1, radius + 1 do -- copies of the image, and of its mirror image
      s = s + bell(j + 2 * n * k - i) + bell(1 - j + 2 * n * k - i)
    end
    return s / total
  end)
end

function naive.upsample_bilinear2d(inputs, a)
  local x, scale = inputs[1], pair(a.scale)
  local function weight(d, i, j)
    local place = (i - 0.5) / scale[d] + 0.5 -- that of the centre of x's pixel 1 is 1
    place = math.min(math.max(place, 1), x.shape[d + 1])
    return math.max(1 - math.abs(place - j), 0)
  end
  return separable(x, {x.shape[2] * scale[1], x.shape[3] * scale[2]}, weight)
end

-- ---- affine ----

--- max(0, 1 - |s|), or its derivative.
local function hat(s, order)
  if math.abs(s) >= 1 then return 0 end
  return order == 0 and 1 - math.abs(s) or s < 0 and 1 or -1
end

--- Calls f(n, i, j, r, s, weight) for every pixel (i, j) of the result and (r, s) of the image it reads.
local function each_tap(x, matrix, a, f)
  local order = pair(a.derivative, 0)
  local n_images, h, w = x.shape[1], x.shape[2], x.shape[3]
  for n = 1, n_images do
    local m = table.move(matrix, 6 * n - 5, 6 * n, 1, {})
    each({h, w, h, w}, function(index)
      local i, j, r, s = table.unpack(index)
      local u, v = j - (w + 1) / 2, i - (h + 1) / 2
      local px, py = (w + 1) / 2 + m[1] * u + m[2] * v + m[3], (h + 1) / 2 + m[4] * u + m[5] * v + m[6]
      f(n, i, j, r, s, hat(py - r, order[1]) * hat(px - s, order[2]))
    end)
  end
end

local function affine(inputs, a, spread)
  local x, matrix = inputs[1], inputs[2]
  local y = build(x.shape, function() return 0 end)
  each_tap(x, matrix, a, function(n, i, j, r, s, weight)
    for c = 1, x.shape[4] do
      local here, there = position(x.shape, {n, i, j, c}), position(x.shape, {n, r, s, c})
      if spread then here, there = there, here end
      y[here] = y[here] + weight * x[there]
    end
  end)
  return y
end

function naive.affine2d(inputs, a) return affine(inputs, a, false) end

function naive.affine2d_grad(inputs, a) return affine(inputs, a, true) end

-- ---- losses ----

local function reduced(values, how, count_of)
  if how == "none" then return values end
  local s = sum(values)
  if how == "batchmean" then
    s = s / values.shape[1]
  elseif how ~= "sum" and count_of > 0 then -- nothing counted: 0
    s = s / count_of
  end
  return {s, shape = {}}
end

local function loss(f)
  return function(inputs, a)
    local x, t = inputs[1], inputs[2]
    local shape = broadcast_shape(shape_of(x), shape_of(t))
    local values = build(shape, function(index) return f(at(x, index), at(t, index), a) end)
    return reduced(values, a.reduction, #values)
  end
end
naive.mse = loss(function(x, t) return (x - t) ^ 2 end)
naive.l1 = loss(function(x, t) return math.abs(x - t) end)
naive.huber = loss(function(x, t, a)
  local d, delta = math.abs(x - t), a.delta or 1
  return d <= delta and 0.5 * d * d or delta * (d - 0.5 * delta)
end)
naive.bce_with_logits = loss(function(x, t) return softplus(x) - x * t end)
naive.bce = loss(function(p, t, a)
  local eps = a.eps or 1e-7
  local q = math.min(math.max(p, eps), 1 - eps)
  return -(t * math.log(q) + (1 - t) * math.log(1 - q))
end)
naive.kl_normal = loss(function(m, v) return 0.5 * (m * m + math.exp(v) - 1 - v) end)

function naive.cross_entropy(inputs, a)
  local logits, labels = inputs[1], inputs[2]
  local classes, smoothing, counted = logits.shape[#logits.shape], a.label_smoothing or 0, 0
  local values = {shape = labels.shape}
  for i = 1, #labels do
    local row = {table.unpack(logits, (i - 1) * classes + 1, i * classes)}
    if labels[i] == a.ignore_label then
      values[i] = 0
    else
      local total = logsumexp(row)
      values[i] = (1 - smoothing) * (total - row[labels[i]]) + smoothing * (total - sum(row) / classes)
      counted = counted + 1
    end
  end
  return reduced(values, a.reduction, counted)
end

return naive
