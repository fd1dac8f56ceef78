-- SPDX-License-Identifier: MIT
--- The network of scripts/pronounce.lua: an encoder reads letters in both directions; of the decoder's two layers the
--- first one knows what was said so far and asks where to look, the second one sees that, too, and speaks.
local marea = require "marea"
local nn = marea.nn

local EMBEDDING <const> = 64

local Speaker = nn.class "Speaker"

--- phonemes: a vocabulary with begin and stop; letters: how many; size: of the states; dropout: between all layers
function Speaker:init(o)
  self.vocabulary = o.phonemes
  self.letters, self.phonemes = nn.Embedding{o.letters, EMBEDDING}, nn.Embedding{#o.phonemes, EMBEDDING}
  self.encoder = nn.LSTM{EMBEDDING, o.size, layers = 2, bidirectional = true, dropout = o.dropout}
  self.begin = nn.Linear{2 * o.size, o.size, activation = "tanh"}
  self.listener = nn.LSTM{EMBEDDING, o.size}
  self.query = nn.Linear{o.size, 2 * o.size, bias = false}
  self.attention = nn.Attention{score = "dot", scaled = true}
  self.speaker = nn.LSTM{3 * o.size, o.size}
  self.drop = nn.Dropout{o.dropout}
  self.head = nn.Linear{3 * o.size, #o.phonemes}
end

--- Letters (N, T) as the decoder begins with them: states (N, T, 2 * size), and its own, from what was read last in
--- each direction.
function Speaker:read(letters, lengths)
  local encoded, h = self.encoder(self.drop(self.letters(letters)), {lengths = lengths})
  local whole = self.begin(self.drop(marea.concat({h:select(1, 3), h:select(1, 4)}, 2)))
  local zero = marea.zeros(whole.shape)
  return {encoded = self.drop(encoded), lengths = lengths, h1 = whole, c1 = zero, h2 = whole, c2 = zero}
end

--- One layer of the decoder, whose state has its rows in the first dimension, as the search wants it.
local function run(layer, x, h, c)
  local y, last_h, last_c = layer(x, {h0 = h:unsqueeze(1), c0 = c:unsqueeze(1)})
  return y, last_h:squeeze(1), last_c:squeeze(1)
end

--- What comes behind each of the phonemes `last` (N, U): logits (N, U, V), the state behind them, the weights of
--- attention (N, U, T).
function Speaker:say(last, state)
  local after = {encoded = state.encoded, lengths = state.lengths}
  local heard, said
  heard, after.h1, after.c1 = run(self.listener, self.drop(self.phonemes(last)), state.h1, state.c1)
  local context, weights = self.attention(self.query(heard), state.encoded, {lengths = state.lengths})
  said, after.h2, after.c2 = run(self.speaker, self.drop(marea.concat({heard, context}, 3)), state.h2, state.c2)
  return self.head(self.drop(marea.concat({said, context}, 3))), after, weights
end

--- The logits of all phonemes (N, U), each given the true ones before it; the weights of attention.
function Speaker:forward(letters, lengths, phonemes)
  local begin = marea.full({#phonemes, 1}, self.vocabulary.begin, "i64")
  local last = marea.concat({begin, phonemes:narrow(2, 1, phonemes:size(2) - 1)}, 2)
  local logits, _, weights = self:say(last, self:read(letters, lengths))
  return logits, weights
end

--- The likeliest pronunciations of each row, the best first: {phonemes, log_prob}.
---@param width integer so many are followed, and given back at most
function Speaker:search(letters, lengths, width)
  local function step(last, state)
    local logits, after = self:say(last:unsqueeze(2), state)
    return logits:squeeze(2), after
  end
  local begin = marea.full({#letters}, self.vocabulary.begin, "i64")
  local state = marea.no_grad(self.read, self, letters, lengths)
  local rows = marea.decode.beam(step, begin, state, {width = width, stop = self.vocabulary.stop, length = 30})
  for _, found in ipairs(rows) do
    for _, one in ipairs(found) do one.phonemes = self.vocabulary:decode(one.numbers) end
  end
  return rows
end

return Speaker
