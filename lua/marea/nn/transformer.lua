-- SPDX-License-Identifier: MIT
--- Attention of many heads, and the layers of transformers made of it, over sequences (N, T, C).
---
---   local attention = nn.MultiHeadAttention{128, 8, dropout = 0.1}
---   local y = attention(x, {lengths = lengths})            -- of x to itself
---   y = attention(x, memory)                               -- of x to another sequence
---   local cache = attention:cache{batch = 4, length = 100}
---   y, cache = attention(token, {cache = cache, causal = true})
---
--- mask, lengths, causal: those of the operator scaled_dot_product_attention. A cache holds the keys and values of the
--- steps so far; a call with one writes those of its own steps behind them, without gradients, and gives the cache of
--- the next call, which shares the memory. Rotary positions go on with it. They tell how far apart steps are, so
--- attention of a sequence to itself alone has them. The names of parameters are PyTorch's; weights are (in, out) as
--- nn.Linear's: load_state(state, {from = "torch"}) transposes them.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local init = require "marea.nn.initializers"
local Linear = require "marea.nn.linear".Linear
local LayerNorm = require "marea.nn.norm".LayerNorm
local Dropout = require "marea.nn.dropout".Dropout
local ops = core.ops

--- A dense layer with PyTorch's initial values.
local function dense(inputs, outputs, bias, dtype, activation, zero_bias)
  local k = 1 / math.sqrt(inputs)
  local bias_init = bias and (zero_bias and "zeros" or init.uniform(-k, k)) or nil
  return Linear{inputs, outputs, bias = bias, dtype = dtype, activation = activation, init = init.uniform(-k, k),
    bias_init = bias_init}
end

local function want_sequences(what, name, x, size)
  check.tensor(what, name, x)
  if x.rank ~= 3 or x:size(3) ~= size then check.fail(what, name, ("a tensor (N, T, %d)"):format(size), x) end
end

---@class MultiHeadAttention  attention of many heads (Vaswani et al. 2017): y = net(query, key, value, {mask, lengths,
--- causal, cache}), in the braces by name; key left out: query; value left out: key. {embed_dim, num_heads}, kv_heads:
--- fewer heads of keys and values, dropout = 0 of the weights, bias = true, rotary = true: queries and keys turn by
--- their positions (the operator rotary; a number is its base), dtype, name
---@example nn.MultiHeadAttention{8, 2, rotary = true}(marea.normal{2, 5, 8}, {causal = true}).shape
local MultiHeadAttention = module.class("MultiHeadAttention")

--- The base of rotary positions; false without them.
local function rotary_base(what, rotary, head_dim)
  if not rotary then return check.boolean(what, "rotary", rotary, false) end
  if head_dim % 2 ~= 0 then check.raise("%s: rotary positions turn pairs, but a head has %d values", what, head_dim) end
  if rotary == true then return 10000 end
  if type(rotary) ~= "number" then check.fail(what, "rotary", "true, false or the base, a number", rotary) end
  return check.number(what, "rotary", rotary, 1)
end

function MultiHeadAttention:init(options)
  local what = "MultiHeadAttention"
  options = check.options(what, options, {"kv_heads", "dropout", "bias", "rotary", "dtype", "name"}, 2)
  self.name = options.name
  self.embed_dim = check.integer(what, "embed_dim", options[1], 1)
  self.num_heads = check.integer(what, "num_heads", options[2], 1)
  self.kv_heads = check.integer(what, "kv_heads", options.kv_heads or self.num_heads, 1)
  self.dropout = check.number(what, "dropout", options.dropout or 0, 0, 1)
  self.dtype = options.dtype or "f32"
  if self.embed_dim % self.num_heads ~= 0 then
    check.raise("%s: embed_dim = %d is no multiple of num_heads = %d", what, self.embed_dim, self.num_heads)
  end
  if self.num_heads % self.kv_heads ~= 0 then
    check.raise("%s: num_heads = %d is no multiple of kv_heads = %d", what, self.num_heads, self.kv_heads)
  end
  self.head_dim = self.embed_dim // self.num_heads
  self.rotary = rotary_base(what, options.rotary, self.head_dim)
  self:make_parameters(check.boolean(what, "bias", options.bias, true))
end

--- Columns of the packed weight
function MultiHeadAttention:width() return self.embed_dim + 2 * self.kv_heads * self.head_dim end

function MultiHeadAttention:make_parameters(bias)
  local e, out = self.embed_dim, self:width()
  core.no_grad(function()
    self.in_proj_weight = module.parameter(init.find("", "init", "glorot_uniform")(core.shape{e, out}, e, out,
      self.dtype))
    if bias then self.in_proj_bias = module.parameter(ops.full({out}, 0, self.dtype)) end
  end)
  self.out_proj = dense(e, e, bias, self.dtype, nil, true)
end

--- x times `size` columns of the packed weight, from `first` on. Bytes lie in panels of 16 columns.
local function project(self, x, first, size)
  local weight, bias, scale = self.in_proj_weight, self.in_proj_bias, self.in_proj_scale
  if size < self:width() then
    bias = bias and ops.narrow(bias, 1, first, size)
    if scale then
      scale, weight = ops.narrow(scale, 1, first, size), ops.narrow(weight, 1, first // 16 + 1, size // 16)
    else
      weight = ops.narrow(weight, 2, first, size)
    end
  end
  if scale then return ops.linear_int8(x, weight, scale, bias, {inputs = self.embed_dim}) end
  return ops.linear(x, weight, bias)
end

--- The heads of a projection: (N, T, heads, head_dim).
local function heads(self, x)
  local n, steps, size = x:size()
  return x:reshape(n, steps, size // self.head_dim, self.head_dim)
end

--- Keys and values (N, T, kv_heads, head_dim).
local function keys_and_values(self, key, value)
  local e, h = self.embed_dim, self.kv_heads
  local width = h * self.head_dim
  if value == key then
    local both = heads(self, project(self, key, e + 1, 2 * width))
    return ops.narrow(both, 3, 1, h), ops.narrow(both, 3, h + 1, h)
  end
  return heads(self, project(self, key, e + 1, width)), heads(self, project(self, value, e + width + 1, width))
end

local function projections(self, query, key, value)
  if key ~= query or value ~= query then
    return heads(self, project(self, query, 1, self.embed_dim)), keys_and_values(self, key, value)
  end
  local h, kv = self.num_heads, self.kv_heads
  local all = heads(self, project(self, query, 1, (h + 2 * kv) * self.head_dim))
  return ops.narrow(all, 3, 1, h), ops.narrow(all, 3, h + 1, kv), ops.narrow(all, 3, h + kv + 1, kv)
end

--- Queries, keys and values (N, T, heads, head_dim); `start` steps lie before the first one.
local function queries_keys_values(self, query, key, value, start)
  local q, k, v = projections(self, query, key, value)
  if not self.rotary then return q, k, v end
  local options = {start = start, base = self.rotary}
  return ops.rotary(q, options), ops.rotary(k, options), v
end

--- The packed weight becomes bytes, as nn/quantize.lua says, if queries, keys and values are whole panels of it.
function MultiHeadAttention:to_bytes(quantize)
  if self.embed_dim % 16 ~= 0 or self.kv_heads * self.head_dim % 16 ~= 0 then return false end
  quantize.weight(self, "in_proj_weight", "in_proj_scale")
  if self.in_proj_bias then self:buffer("in_proj_bias", self.in_proj_bias) end
end

--- A cache for `batch` rows of up to `length` steps, without any so far.
---@param options {batch: integer, length: integer}
---@return table
---@example nn.MultiHeadAttention{8, 2}:cache{batch = 1, length = 4}.length
function MultiHeadAttention:cache(options)
  options = check.options("cache", options, {"batch", "length"}, 0)
  local n, length = check.integer("cache", "batch", options.batch or 1, 1),
    check.integer("cache", "length", options.length, 1)
  local function zeros()
    return ops.full({n, length, self.kv_heads, self.head_dim}, 0, self.dtype):keep()
  end
  return {key = zeros(), value = zeros(), length = 0}
end

local function want_cache(cache)
  if type(cache) ~= "table" or not core.is_tensor(cache.key) then
    check.fail("MultiHeadAttention", "cache", "what net:cache{...} gives", cache)
  end
end

--- Writes k and v into the cache: the keys and values to look at, their lengths, and the next cache.
local function extend(cache, k, v)
  local n, steps, room, last = k:size(1), k:size(2), cache.key:size(2), cache.length + k:size(2)
  if n ~= cache.key:size(1) then
    check.raise("MultiHeadAttention: the cache is for a batch of %d, x has %d rows", cache.key:size(1), n)
  elseif last > room then
    check.raise("MultiHeadAttention: the cache has room for %d steps, it holds %d and %d more were given", room,
      cache.length, steps)
  end
  ops.narrow(cache.key, 2, cache.length + 1, steps):copy_(k)
  ops.narrow(cache.value, 2, cache.length + 1, steps):copy_(v)
  local following = {key = cache.key, value = cache.value, length = last}
  if steps == 1 then return cache.key, cache.value, ops.full({n}, last, "i64"), following end
  return ops.narrow(cache.key, 2, 1, last), ops.narrow(cache.value, 2, 1, last), nil, following
end

--- Attention and the last product.
local function attend(self, q, k, v, o, lengths, causal)
  local dropout = self.training and self.dropout or 0
  local y = ops.scaled_dot_product_attention(q, k, v, o.mask, lengths, {causal = causal, dropout = dropout})
  return self.out_proj(ops.reshape(y, {q:size(1), q:size(2), self.embed_dim}))
end

local function with_cache(self, query, o, causal)
  if o.lengths or o.mask then check.raise("MultiHeadAttention: a cache goes without mask and lengths") end
  want_cache(o.cache)
  local q, k, v = queries_keys_values(self, query, query, query, o.cache.length)
  local lengths, following
  k, v, lengths, following = extend(o.cache, k, v)
  return attend(self, q, k, v, o, lengths, lengths == nil and causal), following
end

function MultiHeadAttention:forward(query, key, value, options)
  local what = "MultiHeadAttention"
  if type(key) == "table" then key, options = nil, key end
  if type(value) == "table" then value, options = nil, value end
  local o = check.options(what, options, {"mask", "lengths", "causal", "cache"}, 0)
  want_sequences(what, "query", query, self.embed_dim)
  key = key or query
  value = value or key
  if key ~= query then want_sequences(what, "key", key, self.embed_dim) end
  if value ~= key then want_sequences(what, "value", value, self.embed_dim) end
  if self.rotary and key ~= query then
    check.raise("%s: rotary positions are of attention of a sequence to itself", what)
  end
  local causal = check.boolean(what, "causal", o.causal, false)
  if o.cache == nil then
    local q, k, v = queries_keys_values(self, query, key, value, 0)
    return attend(self, q, k, v, o, o.lengths, causal)
  end
  if key ~= query then check.raise("%s: a cache is of attention of a sequence to itself", what) end
  if not core.recording() then return with_cache(self, query, o, causal) end
  return core.no_grad(with_cache, self, query, o, causal)
end

function MultiHeadAttention:flops(x)
  local rows, e = x:size(1) * x:size(2), self.embed_dim
  return 2 * rows * e * (self:width() + e) + 4 * rows * x:size(2) * e
end

function MultiHeadAttention:describe()
  local text = ("%d, %d heads"):format(self.embed_dim, self.num_heads)
  if self.kv_heads ~= self.num_heads then text = ("%s, %d of keys"):format(text, self.kv_heads) end
  if self.dropout > 0 then text = core.format("%s, dropout %g", text, self.dropout) end
  if self.rotary then text = core.format("%s, rotary %g", text, self.rotary) end
  return text .. (self.in_proj_scale and ", int8" or "")
end

-- ---- layers of transformers ----

local Transformer = module.class("TransformerLayer")

local ARGUMENTS = {"dim_feedforward", "dropout", "activation", "layer_norm_eps", "norm_first", "bias", "rotary",
  "dtype", "name"}

function Transformer:read(what, options, norms)
  options = check.options(what, options, ARGUMENTS, 2)
  local dtype, bias = options.dtype or "f32", check.boolean(what, "bias", options.bias, true)
  self.name = options.name
  self.d_model = check.integer(what, "d_model", options[1], 1)
  self.nhead = check.integer(what, "nhead", options[2], 1)
  self.dropout = check.number(what, "dropout", options.dropout or 0.1, 0, 1)
  self.norm_first = check.boolean(what, "norm_first", options.norm_first, false)
  self.self_attn = MultiHeadAttention{self.d_model, self.nhead, dropout = self.dropout, bias = bias,
    rotary = options.rotary, dtype = dtype}
  local inner = check.integer(what, "dim_feedforward", options.dim_feedforward or 2048, 1)
  self.linear1 = dense(self.d_model, inner, bias, dtype, options.activation or "relu")
  self.linear2 = dense(inner, self.d_model, bias, dtype)
  for i = 1, norms do
    self["norm" .. i] = LayerNorm{self.d_model, eps = options.layer_norm_eps, center = bias, dtype = dtype}
  end
  self.drop = Dropout{self.dropout}
  return bias, dtype
end

--- What a part of the layer gets of x: with norm_first x normalized, else x itself.
function Transformer:before(norm, x) return self.norm_first and norm(x) or x end

--- x + y, y being what a part has made of x; normalized, unless norm_first.
function Transformer:add(norm, x, y)
  x = x + self.drop(y)
  return self.norm_first and x or norm(x)
end

function Transformer:feed(norm, x)
  local y = self.linear1(self:before(norm, x))
  return self:add(norm, x, self.linear2(self.drop(y)))
end

--- Attention of x to itself by {mask, lengths, causal, cache}; the next cache.
function Transformer:attend(x, o)
  local y, following = self.self_attn(self:before(self.norm1, x), o)
  return self:add(self.norm1, x, y), following
end

--- A cache for `batch` rows of up to `length` steps: see MultiHeadAttention.
---@param options {batch: integer, length: integer}
---@return table
---@example nn.TransformerEncoderLayer{8, 2}:cache{batch = 1, length = 4}.length
function Transformer:cache(options) return self.self_attn:cache(options) end

function Transformer:describe()
  return core.format("%d, %d heads, dropout %g%s", self.d_model, self.nhead, self.dropout,
    self.norm_first and ", norm first" or "")
end

---@class TransformerEncoderLayer  attention of x to itself and two dense layers, each added to what goes in and
--- normalized: y = net(x, {mask, lengths, causal, cache}). {d_model, nhead}, dim_feedforward = 2048, dropout = 0.1,
--- activation = "relu", layer_norm_eps = 1e-5, norm_first = false, bias = true, dtype, name, as in PyTorch; rotary as
--- MultiHeadAttention's
---@example nn.TransformerEncoderLayer{8, 2, dim_feedforward = 16}(marea.normal{2, 5, 8}).shape
local TransformerEncoderLayer = module.class("TransformerEncoderLayer", Transformer)

function TransformerEncoderLayer:init(options) self:read("TransformerEncoderLayer", options, 2) end

function TransformerEncoderLayer:forward(x, options)
  local o = check.options("TransformerEncoderLayer", options, {"mask", "lengths", "causal", "cache"}, 0)
  local following
  want_sequences("TransformerEncoderLayer", "x", x, self.d_model)
  x, following = self:attend(x, o)
  x = self:feed(self.norm2, x)
  if following then return x, following end
  return x
end

---@class TransformerDecoderLayer  TransformerEncoderLayer with attention to the encoder's result between: y = net(x,
--- memory, {mask, lengths, causal, cache, memory_mask, memory_lengths}). Arguments as TransformerEncoderLayer's; with
--- rotary the attention to memory has no positions
---@example net = nn.TransformerDecoderLayer{8, 2, dim_feedforward = 16}
---@example net(marea.normal{2, 5, 8}, marea.normal{2, 7, 8}, {causal = true}).shape
local TransformerDecoderLayer = module.class("TransformerDecoderLayer", Transformer)

function TransformerDecoderLayer:init(options)
  local bias, dtype = self:read("TransformerDecoderLayer", options, 3)
  self.multihead_attn = MultiHeadAttention{self.d_model, self.nhead, dropout = self.dropout, bias = bias, dtype = dtype}
end

local function kept(k, v) return {k:contiguous():keep(), v:contiguous():keep()} end

--- Attention to memory. A cache keeps the keys and values of the memory of its first call.
local function look(self, x, memory, o, following)
  local cross = self.multihead_attn
  local options = {mask = o.memory_mask, lengths = o.memory_lengths}
  if not following then return cross(x, memory, options) end
  return core.no_grad(function()
    following.memory = o.cache.memory or kept(keys_and_values(cross, memory, memory))
    local q = heads(cross, project(cross, x, 1, cross.embed_dim))
    return attend(cross, q, following.memory[1], following.memory[2], options, options.lengths, false)
  end)
end

function TransformerDecoderLayer:forward(x, memory, options)
  local what, following = "TransformerDecoderLayer"
  local o = check.options(what, options, {"mask", "lengths", "causal", "cache", "memory_mask", "memory_lengths"}, 0)
  want_sequences(what, "x", x, self.d_model)
  want_sequences(what, "memory", memory, self.d_model)
  x, following = self:attend(x, {mask = o.mask, lengths = o.lengths, causal = o.causal, cache = o.cache})
  x = self:add(self.norm2, x, look(self, self:before(self.norm2, x), memory, o, following))
  x = self:feed(self.norm3, x)
  if following then return x, following end
  return x
end

return {MultiHeadAttention = MultiHeadAttention, TransformerEncoderLayer = TransformerEncoderLayer,
  TransformerDecoderLayer = TransformerDecoderLayer}
