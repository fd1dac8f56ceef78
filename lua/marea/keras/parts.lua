-- SPDX-License-Identifier: MIT
--- Layers of Keras that marea.nn has no equal of. Those with weights name them as Keras does, in Keras' order.
local core = require "marea.core"
local foreign = require "marea.nn.foreign"
local module = require "marea.nn.module"
local ops = core.ops

local parts = {}

-- ---- functions as layers ----

---@class Function  y = f(x, ...): what has no weights. `text` is shown beside its name.
local Function = module.class "Function"

function Function:init(title, f, text) self._title, self._f, self._text = title, f, text end

function Function:forward(...) return self._f(...) end

function Function:describe() return self._text and ("%s, %s"):format(self._title, self._text) or self._title end

parts.Function = Function

---@class Noise  y = f(x) in training, else x
local Noise = module.class("Noise", Function)

function Noise:forward(x)
  if not self.training then return x end
  return self._f(x)
end

parts.Noise = Noise

-- ---- layers with weights ----

---@class PReLU  x where it is positive, else alpha x; alpha broadcasts to an example of x (He et al. 2015)
local PReLU = module.class "PReLU"

function PReLU:init(shape) self.alpha = module.parameter(ops.full(shape, 0)) end

function PReLU:forward(x) return x:relu() - self.alpha * (-x):relu() end

foreign.rules.keras[PReLU] = function(_, take) return {alpha = take "alpha"} end
parts.PReLU = PReLU

---@class SeparableConv  a convolution of each channel by itself, then one of a single place across channels.
--- depthwise_kernel (..., in, multiplier), pointwise_kernel (..., in multiplier, out), bias (out)
local SeparableConv = module.class "SeparableConv"

--- operator: "conv1d" or "conv2d"; attributes: those of the first convolution; activation: of the second
function SeparableConv:init(operator, depthwise, pointwise, has_bias, attributes, activation)
  self._operator, self._attributes, self._activation = ops[operator], attributes, activation
  self.depthwise_kernel = module.parameter(ops.full(depthwise, 0))
  self.pointwise_kernel = module.parameter(ops.full(pointwise, 0))
  if has_bias then self.bias = module.parameter(ops.full({pointwise[#pointwise]}, 0)) end
end

function SeparableConv:forward(x)
  local kernel = self.depthwise_kernel
  local attributes = {groups = kernel:size(-2)}
  for name, value in pairs(self._attributes) do attributes[name] = value end
  local shape = {kernel:size()}
  shape[#shape - 1], shape[#shape] = 1, kernel:size(-2) * kernel:size(-1)
  local y = self._operator(x, kernel:reshape(shape), nil, attributes)
  return self._activation(self._operator(y, self.pointwise_kernel, self.bias, {}))
end

foreign.rules.keras[SeparableConv] = function(layer, take)
  return {depthwise_kernel = take "depthwise_kernel", pointwise_kernel = take "pointwise_kernel",
    bias = layer.bias and take "bias"}
end

parts.SeparableConv = SeparableConv

---@class Normalization  y = (x - mean) / deviation, deviation = sqrt(variance), at least 1e-7; inverted: x deviation
--- + mean. mean, variance: numbers or tensors, which belong to the state; axes: those of x, from 0, that they lie along
local Normalization = module.class "Normalization"

function Normalization:init(mean, variance, axes, inverted, is_learned)
  self._axes, self._inverted, self._is_learned = axes, inverted, is_learned
  self:buffer("mean", core.is_tensor(mean) and mean:clone() or core.tensor{mean})
  self:buffer("variance", core.is_tensor(variance) and variance:clone() or core.tensor{variance})
end

--- t, whose dimensions belong to the last ones of `axes`, in a shape that broadcasts to x.
local function along(t, axes, x)
  if t:numel() == 1 then return t:reshape{1} end
  local dims, shape = {}, {}
  for i, axis in ipairs(axes) do dims[i] = (axis < 0 and axis + x.rank or axis) + 1 end
  table.sort(dims)
  for i = 1, x.rank do shape[i] = 1 end
  for i = 1, t.rank do shape[dims[#dims + 1 - i]] = t:size(-i) end
  return t:reshape(shape)
end

function Normalization:forward(x)
  local mean = along(self.mean, self._axes, x)
  local deviation = along(self.variance, self._axes, x):sqrt():maximum(1e-7)
  if self._inverted then return x * deviation + mean end
  return (x - mean) / deviation
end

foreign.rules.keras[Normalization] = function(layer, take)
  if not layer._is_learned then return nil end
  local tensors = {mean = take "mean", variance = take "variance"}
  take "count"
  return tensors
end

parts.Normalization = Normalization

---@class Embedding  rows of weight (words, size) by numbers that count from 0
local Embedding = module.class "Embedding"

function Embedding:init(words, size) self.weight = module.parameter(ops.full({words, size}, 0)) end

function Embedding:forward(x) return ops.embedding(self.weight, x:to "i64" + 1) end

function Embedding:describe() return ("%d -> %d, from 0"):format(self.weight:size(1), self.weight:size(2)) end

foreign.rules.keras[Embedding] = function(_, take) return {weight = take "embeddings"} end
parts.Embedding = Embedding

---@class MultiHeadAttention  (Vaswani et al. 2017) query, key, value: kernel (size, heads, width), bias (heads, width);
--- attention_output: kernel (heads, value width, out), bias (out). net(query, value, key?, {mask?, causal?})
local MultiHeadAttention = module.class "MultiHeadAttention"

local PROJECTIONS = {"query", "key", "value", "attention_output"}

--- shapes: those of the kernels, by the names of the projections
function MultiHeadAttention:init(shapes, has_bias, dropout)
  self._dropout = dropout
  for _, name in ipairs(PROJECTIONS) do
    local shape = shapes[name]
    self[name] = {kernel = module.parameter(ops.full(shape, 0))}
    local bias = name == "attention_output" and {shape[3]} or {shape[2], shape[3]}
    if has_bias then self[name].bias = module.parameter(ops.full(bias, 0)) end
  end
end

--- (N, T, size) -> (N, T, heads, width)
local function project(x, to)
  local size, heads, width = to.kernel:size()
  local bias = to.bias and to.bias:reshape{heads * width}
  return ops.linear(x, to.kernel:reshape{size, heads * width}, bias):reshape{x:size(1), x:size(2), heads, width}
end

--- Query i sees the keys up to i: u8 (Tq, Tk).
local function causal_mask(queries, keys)
  return ops.arange(1, queries):reshape{queries, 1}:ge(ops.arange(1, keys))
end

--- A query that a mask leaves no key sees all of them alike: q (N, T, heads, width) is 0 there, the mask 1.
local function seeing(q, mask)
  local sees = mask:any{dims = {-1}, keepdim = true}
  while sees.rank < 4 do sees = sees:unsqueeze(1) end
  return q * sees:permute{1, 3, 2, 4}:to(q.dtype), mask:maximum(1 - sees)
end

function MultiHeadAttention:forward(query, value, key, options)
  local q, k, v = project(query, self.query), project(key or value, self.key), project(value, self.value)
  local mask = options and options.mask
  if mask and mask.rank == 3 then mask = mask:unsqueeze(2) end
  if options and options.causal then
    local causal = causal_mask(q:size(2), k:size(2))
    mask = mask and mask * causal or causal
  end
  if mask then q, mask = seeing(q, mask) end
  local y = ops.scaled_dot_product_attention(q, k, v, mask, nil, {dropout = self.training and self._dropout or 0})
  local out = self.attention_output
  local heads, width, size = out.kernel:size()
  return ops.linear(y:reshape{y:size(1), y:size(2), heads * width}, out.kernel:reshape{heads * width, size}, out.bias)
end

function MultiHeadAttention:describe()
  local size, heads, width = self.query.kernel:size()
  return ("%d, %d heads of %d"):format(size, heads, width)
end

foreign.rules.keras[MultiHeadAttention] = function(layer, take)
  local tensors = {}
  for _, name in ipairs(PROJECTIONS) do
    tensors[name .. ".kernel"] = take(name .. ".kernel")
    if layer[name].bias then tensors[name .. ".bias"] = take(name .. ".bias") end
  end
  return tensors
end

parts.MultiHeadAttention = MultiHeadAttention

---@class Steps  its `layer`, on each step of x (N, T, ...) by itself
local Steps = module.class "Steps"

function Steps:init(layer) self.layer = layer end

function Steps:forward(x)
  local n, steps = x:size(1), x:size(2)
  local y = self.layer(x:reshape{n * steps, select(3, x:size())})
  return y:reshape{n, steps, select(2, y:size())}
end

parts.Steps = Steps

-- ---- recurrent layers ----

---@class Recurrent  an nn.LSTM, nn.GRU or nn.RNN in `layer`, called as Keras calls it: net(x, {mask, h0, c0}).
--- sequences: all steps and not only the last; states: those of the end as well; backwards: from the last step on, and
--- given in that order; merge: how both directions come together
local Recurrent = module.class "Recurrent"

function Recurrent:init(layer, options)
  self.layer = layer
  self._sequences, self._states, self._backwards, self._merge, self._zeros = options.sequences, options.states,
    options.backwards, options.merge, options.zeros
end

--- The rows t[n, at[n, k]] of t (N, T, C): (N, K, C); zeros where at is 0.
local function pick(t, at)
  local n, steps, width = t:size()
  local first = (ops.arange(0, n - 1):to "i64" * steps):reshape{n, 1}
  local rows = t:reshape{n * steps, width}:index_select((at:clamp(1, steps) + first):reshape{n * at:size(2)})
  return rows:reshape{n, at:size(2), width} * at:gt(0):to(t.dtype):unsqueeze(3)
end

--- Of a mask (N, T): the order that brings the time steps that count to the front, how many of them there are up to
--- each step, and their number.
local function masked(mask)
  local counted = mask:to "i64"
  local order = (1 - counted):argsort(2)
  local before = counted:cumsum(2)
  local lengths = counted:sum{dims = {2}}
  return order, before, lengths
end

local function run_plain(self, x, o)
  if self._backwards then x = x:flip{dims = {2}} end
  return self.layer(x, o)
end

--- The results of one direction at all steps. In reverse the step before is the one behind.
local function spread(y, before, counted, reverse)
  if reverse then
    local next_one = before + (1 - counted)
    return pick(y, next_one * next_one:le(before:select(2, before:size(2)):unsqueeze(2)):to "i64")
  end
  return pick(y, before)
end

--- With a mask (N, T) a step that is left out changes no state and gives what the step before it gave. The steps that
--- count come to the front, the layer runs for their number, and its results go back to their places.
local function run_masked(self, x, o, mask)
  if self._backwards then x, mask = x:flip{dims = {2}}, mask:flip{dims = {2}} end
  local order, before, lengths = masked(mask)
  o.lengths = lengths
  local y, h, c = self.layer(pick(x, order), o)
  if not self._sequences then return y, h, c end
  local counted = mask:to "i64"
  local width, all = self.layer.outputs, {}
  for k = 1, y:size(3) // width do
    all[k] = spread(y:narrow(3, (k - 1) * width + 1, width), before, counted, k == 2)
  end
  y = all[2] and ops.concat(all, 3) or all[1]
  if self._zeros then y = y * counted:to(y.dtype):unsqueeze(3) end
  return y, h, c
end

local merges = {
  concat = function(a, b) return ops.concat({a, b}, a.rank) end,
  sum = function(a, b) return a + b end,
  mul = function(a, b) return a * b end,
  ave = function(a, b) return (a + b) * 0.5 end,
}

--- What both directions give, as one; nothing changes where there is one.
local function joined(self, y, width)
  if not self.layer.bidirectional or self._merge == "concat" then return y end
  return merges[self._merge](y:narrow(y.rank, 1, width), y:narrow(y.rank, width + 1, width))
end

function Recurrent:forward(x, options)
  local o = {h0 = options and options.h0, c0 = options and options.c0}
  local mask = options and options.mask
  local y, h, c = (mask and run_masked or run_plain)(self, x, o, mask)
  local width = self.layer.outputs
  if not self._sequences then y = h:size(1) == 2 and ops.concat({h[1], h[2]}, 2) or h[1] end
  y = joined(self, y, width)
  if not self._states then return y end
  local list = {y}
  for k = 1, h:size(1) do
    list[#list + 1] = h[k]
    if c then list[#list + 1] = c[k] end
  end
  return table.unpack(list)
end

--- {h0, c0} from a list of tensors (N, out): h, c of one direction, then of the other.
function Recurrent:first_states(list)
  if #list == 0 then return {} end
  local has_c = self.layer.attributes and getmetatable(self.layer).__name == "LSTM"
  local h, c = {}, {}
  for i = 1, #list, has_c and 2 or 1 do
    h[#h + 1] = list[i]
    if has_c then c[#c + 1] = list[i + 1] end
  end
  return {h0 = ops.stack(h, 1), c0 = c[1] and ops.stack(c, 1)}
end

function Recurrent:describe() return self._sequences and "all steps" or "last step" end

foreign.rules.keras[Recurrent] = function(part, take)
  local tensors = {}
  for name, t in pairs(foreign.layer(part.layer, "keras", take)) do tensors["layer." .. name] = t end
  return tensors
end

parts.Recurrent = Recurrent

return parts
