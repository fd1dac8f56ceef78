-- SPDX-License-Identifier: MIT
--- The networks of scripts/gpt.lua: logits, state = net(numbers, state), numbers i64 (N, T), logits (N, T, V). The
--- state is nil at first; net:begin(n) gives one with which a network goes on, step by step.
local marea = require "marea"
local nn = marea.nn

--- Logits (N, T, V) of what the last layer reads (N, T, width).
local function logits(net, x)
  if net.out then return net.out(x) end
  return x:matmul(net.embed.weight, {transpose_b = true})
end

local Transformer = nn.class "LanguageTransformer"

function Transformer:init(o)
  local normal = nn.init.normal(0, 0.02)
  self.context = o.context
  self.embed = nn.Embedding{o.vocabulary, o.width, init = normal}
  self.drop = nn.Dropout{o.dropout}
  self.blocks = {}
  for i = 1, o.layers do
    self.blocks[i] = nn.TransformerEncoderLayer{o.width, o.heads, dim_feedforward = 4 * o.width, dropout = o.dropout,
      activation = "gelu", norm_first = true, rotary = true}
  end
  self.norm = nn.LayerNorm{o.width}
  if not o.tie then self.out = nn.Linear{o.width, o.vocabulary, bias = false, init = normal} end
  marea.no_grad(function()
    local residual = 0.02 / math.sqrt(2 * o.layers) -- so that the sum over all layers has the size of one
    for _, block in ipairs(self.blocks) do
      local attention = block.self_attn
      attention.in_proj_weight:copy_(marea.normal(attention.in_proj_weight.shape, 0, 0.02))
      block.linear1.weight:copy_(marea.normal(block.linear1.weight.shape, 0, 0.02))
      for _, layer in ipairs{attention.out_proj, block.linear2} do
        layer.weight:copy_(marea.normal(layer.weight.shape, 0, residual))
      end
    end
  end)
end

--- A state with empty caches of keys and values.
function Transformer:begin(n)
  local state = {start = 0}
  for i, block in ipairs(self.blocks) do state[i] = block:cache{batch = n, length = self.context} end
  return state
end

--- What the last layer reads, (N, T, width), and the state after it.
function Transformer:features(numbers, state)
  local after = state and {start = state.start + numbers:size(2)}
  local x = self.drop(self.embed(numbers))
  for i, block in ipairs(self.blocks) do
    if state then x, after[i] = block(x, {cache = state[i], causal = true})
    else x = block(x, {causal = true}) end
  end
  return self.norm(x), after
end

function Transformer:forward(numbers, state)
  local x, after = self:features(numbers, state)
  return logits(self, x), after
end

local Recurrent = nn.class "LanguageRecurrent"

function Recurrent:init(o)
  self.embed = nn.Embedding{o.vocabulary, o.width, init = nn.init.normal(0, 0.02)}
  local class = o.model == "lstm" and nn.LSTM or nn.GRU
  self.core = class{o.width, o.width, layers = o.layers, dropout = o.layers > 1 and o.dropout or 0}
  if not o.tie then self.out = nn.Linear{o.width, o.vocabulary} end
end

function Recurrent:begin() return {} end -- luacheck: no unused args

function Recurrent:forward(numbers, state)
  local y, h, c = self.core(self.embed(numbers), state)
  return logits(self, y), {h0 = h, c0 = c}
end

return function(o) return (o.model == "transformer" and Transformer or Recurrent)(o) end
