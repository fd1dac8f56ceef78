-- SPDX-License-Identifier: MIT
--- The networks of scripts/qa.lua. Both read questions (N, T) into states of an LSTM and write answers with another one
--- that sees means of these states, weighted by attention.
---
---   local loss, n = model:loss(input, lengths, output, counts)      -- the mean cross entropy of n words
---   local rows = model:answer(input, lengths, temperature)          -- lists of numbers; at 0 the likeliest ones
---   local hidden, weights = model(input, lengths, output)           -- (N, length, hidden), (N, length, T)
---
--- input: i64 (N, T), lengths: its words, i64 (N); output: i64 (N, length), counts: its words, i64 (N), with the one
--- that ends an answer; what comes behind that one is padding.
local marea = require "marea"
local nn, decode = marea.nn, marea.decode

--- The mean cross entropy of words (M) behind hidden states (M, C), and M.
local function word_loss(head, hidden, words)
  return hidden:linear_cross_entropy(head.weight, words, head.bias), #words
end

-- ---- the notebook's: attention, and so the answer, by the places of the question alone ----

--- An LSTM with cuDNN's two biases. They are added up: together they learn at twice the rate of one.
local CudnnLSTM = nn.class "CudnnLSTM"

function CudnnLSTM:init(inputs, outputs)
  self.lstm = nn.LSTM{inputs, outputs}
  self.bias_h = nn.parameter(marea.zeros(4 * outputs))
end

function CudnnLSTM:forward(x)
  local w = self.lstm.weights[1].forward
  return (marea.lstm(x, w.w_x, w.w_h, w.bias + self.bias_h))
end

local Notebook = nn.class "Notebook"

--- o: inputs, outputs: sizes of the vocabularies; length: words of an answer; stop: the word that ends one and pads it;
--- embedding, hidden, dropout
function Notebook:init(o)
  self.stop, self.length = o.stop, o.length
  self.embedding = nn.Embedding{o.inputs, o.embedding}
  self.encoder = CudnnLSTM(o.embedding, o.hidden)
  self.attention = nn.Attention{o.length, score = "encoder", key = o.hidden}
  self.decoder = CudnnLSTM(o.hidden, o.hidden)
  self.head = nn.Linear{o.hidden, o.outputs}
  self.drop = nn.Dropout{o.dropout}
end

--- The padding of questions is read, too.
function Notebook:forward(input)
  local encoded = self.drop(self.encoder(self.drop(self.embedding(input))))
  local context, weights = self.attention(encoded)
  return self.drop(self.decoder(context)), weights
end

--- Over all words of output, the padding too.
function Notebook:loss(input, _, output)
  local hidden = self(input)
  return word_loss(self.head, hidden:reshape(-1, hidden:size(3)), output:reshape(-1))
end

function Notebook:answer(input, _, temperature)
  local hidden = marea.no_grad(self.forward, self, input)
  local function step(_, at) return self.head(hidden:select(2, at)), at + 1 end
  local first = marea.full({#input}, self.stop, "i64")
  return decode.sample(step, first, 1, {temperature = temperature, stop = self.stop, length = self.length})
end

-- ---- Bahdanau's: attention by what the decoder has written ----

local Bahdanau = nn.class "Bahdanau"

--- o: as Notebook's, and begin: the word in front of an answer; spread: the standard deviation of the
--- embeddings at first. Keras draws them within 0.05; with larger ones far fewer steps are needed.
function Bahdanau:init(o)
  local normal = nn.init.normal(0, o.spread)
  self.start, self.stop, self.length = o.begin, o.stop, o.length
  self.embedding = nn.Embedding{o.inputs, o.embedding, init = normal}
  self.encoder = nn.LSTM{o.embedding, o.hidden, bidirectional = true}
  self.first = nn.Linear{2 * o.hidden, o.hidden, activation = "tanh"}
  self.words = nn.Embedding{o.outputs, o.embedding, init = normal}
  self.reader = nn.LSTM{o.embedding, o.hidden}
  self.attention = nn.Attention{o.hidden, query = o.hidden, key = 2 * o.hidden}
  self.decoder = nn.LSTM{3 * o.hidden, o.hidden}
  self.head = nn.Linear{o.hidden, o.outputs}
  self.drop = nn.Dropout{o.dropout}
end

--- What the decoder begins with, for questions.
function Bahdanau:read(input, lengths)
  local encoded, h = self.encoder(self.drop(self.embedding(input)), {lengths = lengths})
  local first = self.first(marea.concat({h[1], h[2]}, 2)):unsqueeze(1)
  return {encoded = self.drop(encoded), lengths = lengths, reader = {h0 = first}, decoder = {}}
end

--- Hidden states (N, U, hidden) behind the words `last` (N, U), the state then, weights of attention (N, U, T).
function Bahdanau:write(last, state)
  local written, h, c = self.reader(self.drop(self.words(last)), state.reader)
  local context, weights = self.attention(written, state.encoded, {lengths = state.lengths})
  local hidden, decoder_h, decoder_c = self.decoder(marea.concat({written, context}, 3), state.decoder)
  return self.drop(hidden), {encoded = state.encoded, lengths = state.lengths, reader = {h0 = h, c0 = c},
    decoder = {h0 = decoder_h, c0 = decoder_c}}, weights
end

--- Places in a tensor (N * width) of the first counts[i] of each row.
local function places(counts, width)
  local list = {}
  for i, count in ipairs(counts:totable()) do
    for k = 1, count do list[#list + 1] = (i - 1) * width + k end
  end
  return marea.tensor(list, {dtype = "i64"})
end

--- Each word given the true ones before it.
function Bahdanau:forward(input, lengths, output)
  local begin = marea.full({#output, 1}, self.start, "i64")
  local last = marea.concat({begin, output:narrow(2, 1, output:size(2) - 1)}, 2)
  local hidden, _, weights = self:write(last, self:read(marea.text.trim(input, lengths), lengths))
  return hidden, weights
end

--- Over the words of answers and their ends.
function Bahdanau:loss(input, lengths, output, counts)
  output = marea.text.trim(output, counts)
  local hidden, rows = self(input, lengths, output), places(counts, output:size(2))
  return word_loss(self.head, hidden:reshape(-1, hidden:size(3)):index_select(rows),
    output:reshape(-1):index_select(rows))
end

function Bahdanau:answer(input, lengths, temperature)
  local state = marea.no_grad(function() return self:read(marea.text.trim(input, lengths), lengths) end)
  local function step(last, before)
    local hidden, after = self:write(last:unsqueeze(2), before)
    return self.head(hidden:squeeze(2)), after
  end
  local first = marea.full({#input}, self.start, "i64")
  return decode.sample(step, first, state, {temperature = temperature, stop = self.stop, length = self.length})
end

return {notebook = Notebook, bahdanau = Bahdanau}
