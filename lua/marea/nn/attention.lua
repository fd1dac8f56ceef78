-- SPDX-License-Identifier: MIT
--- Attention of a decoder to the steps of an encoder.
---
---   local attention = nn.Attention{128, query = 128, key = 256}             -- Bahdanau's
---   local context, weights = attention(states, encoded, {lengths = lengths})
---
--- states (N, Tq, query), encoded (N, Tk, key), lengths (N), i64 or u8: the steps of encoded that count, 0 to Tk.
--- context (N, Tq, key) is the mean of encoded by weights (N, Tq, Tk), a softmax of scores over the steps that count.
--- What lies behind them reaches nothing, even if it is NaN. A row of length 0 has weights and a context of 0.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local init = require "marea.nn.initializers"
local Linear = require "marea.nn.linear".Linear
local ops = core.ops

local LEAST_SCORE = -1e30 -- whose share of a softmax is 0 beside any other score
local SCORES = {additive = "additive", dot = "dot", encoder = "encoder"}
-- What sizes say nothing to a score; dot has no parameters.
local IDLE = {additive = {}, dot = {"hidden", "query", "key"}, encoder = {"query"}}

---@class Attention  context, weights = net(query, key, {lengths}). score = "additive" (Bahdanau et al. 2015):
--- v . tanh(W query + U key + b), {hidden, query = , key = } being the sizes; "dot" (Luong et al. 2015): query . key,
--- times 1 / sqrt(size) with scaled = true; "encoder", {outputs, key = }: tanh(W key + b), a column for each of the
--- outputs, whatever the decoder's state is: net(key, {lengths}). dtype, name
---@example context, weights = nn.Attention{score = "dot"}(marea.normal{1, 2, 4}, marea.normal{1, 3, 4})
---@example context.shape, weights.shape
local Attention = module.class("Attention")

--- Refuses lengths that are none; is a row empty?
local function want_lengths(lengths, n, steps)
  if lengths == nil then return false end
  check.tensor("Attention", "lengths", lengths)
  if lengths.rank ~= 1 or lengths:size(1) ~= n or (lengths.dtype ~= "i64" and lengths.dtype ~= "u8") then
    check.fail("Attention", "lengths", ("i64 or u8 (%d)"):format(n), lengths)
  end
  local has_empty = core.planning() -- whose tensors have no values
  for i, length in ipairs(has_empty and {} or lengths:totable()) do
    if length < 0 or length > steps then
      check.raise("Attention: argument 'lengths': row %d has length %d, expected 0 to %d, the steps of key", i, length,
        steps)
    end
    has_empty = has_empty or length == 0
  end
  return has_empty
end

local function want_sequences(name, x, size)
  check.tensor("Attention", name, x)
  if x.rank ~= 3 or (size and x:size(3) ~= size) then
    check.fail("Attention", name, ("sequences (N, T, %s)"):format(size or "C"), x)
  end
end

function Attention:init(options)
  local what = "Attention"
  options = check.options(what, options, {"score", "query", "key", "scaled", "dtype", "name"}, 1)
  self.name = options.name
  self.score = check.choice(what, "score", options.score or "additive", SCORES)
  self.scaled = check.boolean(what, "scaled", options.scaled, false)
  if self.scaled and self.score ~= "dot" then check.raise("%s: 'scaled' is for score = \"dot\"", what) end
  self.dtype = options.dtype or "f32"
  local sizes = {outputs = options[1], hidden = options[1], query = options.query, key = options.key}
  check.idle(what, sizes, IDLE[self.score], ("with score = \"%s\""):format(self.score))
  if self.score == "dot" then return end
  self.size = check.integer(what, self.score == "additive" and "hidden" or "outputs", options[1], 1)
  self.key = check.integer(what, "key", options.key, 1)
  self.key_layer = Linear{self.key, self.size, dtype = self.dtype}
  if self.score == "encoder" then return end
  self.query = check.integer(what, "query", options.query, 1)
  self.query_layer = Linear{self.query, self.size, bias = false, dtype = self.dtype}
  self.v = core.no_grad(function()
    return module.parameter(init.find(what, "init", "glorot_uniform")(core.shape{self.size}, self.size, 1, self.dtype))
  end)
end

--- Scores (N, Tq, Tk).
function Attention:scores(query, key)
  if self.score == "encoder" then return ops.transpose(ops.tanh(self.key_layer(key)), 2, 3) end
  local s = ops.matmul(query, key, {transpose_b = true})
  return self.scaled and s / math.sqrt(key:size(3)) or s
end

--- Weights (N, Tq, Tk), 0 for the steps behind lengths, which `behind` (N, Tk) tells. Where a row may be empty, its
--- scores must not all be -infinity, of which a softmax makes NaN.
function Attention:weights(query, key, lengths, behind, has_empty)
  if self.score == "additive" then
    return ops.additive_attention(self.query_layer(query), self.key_layer(key), self.v, lengths)
  end
  local s, mask = self:scores(query, key), behind and ops.unsqueeze(behind, 2)
  if not mask then return ops.softmax(s, 3) end
  local weights = ops.softmax(ops.masked_fill(s, mask, has_empty and LEAST_SCORE or -math.huge), 3)
  return has_empty and ops.masked_fill(weights, mask, 0) or weights
end

function Attention:forward(query, key, options)
  if self.score == "encoder" then query, key, options = nil, query, key end
  local o, behind = check.options("Attention", options, {"lengths"}, 0), nil
  want_sequences("key", key, self.key)
  if query then want_sequences("query", query, self.query or key:size(3)) end
  local n, steps = key:size(1), key:size(2)
  local has_empty = want_lengths(o.lengths, n, steps)
  if o.lengths then
    behind = ops.ge(ops.reshape(ops.arange(0, steps - 1, 1, "i64"), {1, steps}), ops.unsqueeze(o.lengths, 2))
    key = ops.masked_fill(key, ops.unsqueeze(behind, 3), 0)
  end
  local weights = self:weights(query, key, o.lengths, behind, has_empty)
  return ops.matmul(weights, key), weights
end

function Attention:describe()
  local size = self.size and (", %d"):format(self.size) or ""
  return self.score .. size .. (self.scaled and ", scaled" or "")
end

return {Attention = Attention}
