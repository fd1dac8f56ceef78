-- SPDX-License-Identifier: MIT
-- writing layers=l heads=h width=w vocabulary=v from=t length=n [bf16=1]: a transformer writes n words one by one, of
-- which each is the most likely one after those before it, behind t others; a call counts for n.
local marea = require "marea"
local precision = require "ours.precision"
local nn = marea.nn

local function new_net(a)
  local net = {embed = nn.Embedding{a.vocabulary, a.width}, norm = nn.LayerNorm{a.width}, blocks = {},
    positions = nn.LearnedPositions{a.from + a.length, a.width}, out = nn.Linear{a.width, a.vocabulary, bias = false}}
  for i = 1, a.layers do
    net.blocks[i] = nn.TransformerEncoderLayer{a.width, a.heads, dim_feedforward = 4 * a.width, dropout = 0,
      activation = "gelu", norm_first = true}
    net.blocks[i]:evaluate()
  end
  return net
end

--- The most likely word after `words`, of which the first is the t-th one; caches go on behind them.
local function next_word(net, words, t, caches)
  local x = net.positions(net.embed(words), {start = t - 1})
  for i, block in ipairs(net.blocks) do x, caches[i] = block(x, {cache = caches[i], causal = true}) end
  return net.out(net.norm(x:narrow(2, -1, 1))):argmax(3)
end

return function(a)
  marea.seed(1)
  local net = new_net(a)
  local caches = {}
  for i, block in ipairs(net.blocks) do caches[i] = block:cache{batch = 1, length = a.from + a.length} end
  local text = marea.randint({1, math.max(a.from, 1)}, 1, a.vocabulary)
  if a.from > 0 then marea.no_grad(next_word, net, text, 1, caches) end
  local first = text:narrow(2, 1, 1):clone()
  local write = precision(a, function() -- around all words, so that weights are converted once
    local word, now = first, {table.unpack(caches)}
    for t = a.from + 1, a.from + a.length do word = marea.scope(next_word, net, word, t, now) end
  end)
  return function() marea.no_grad(write) end, a.length
end
