-- SPDX-License-Identifier: MIT
--- The network of scripts/qa_reader.lua. It reads a paragraph once, looks at each of its questions from every word of
--- the paragraph, reads on with what it saw, and scores each word as the first and the last one of the answer.
local marea = require "marea"
local nn = marea.nn

local MATCHES <const> = {"lower", "stem", "prefix"} -- by which words of paragraph and question are compared
local WORD <const>, SPELLING <const>, HEADS <const> = 100, 64, 4 -- sizes of a word's rows; heads of the first look

local Reader = nn.class("Reader")

--- o: words and letters, sizes of the vocabularies; shapes, columns of shape; unknown, the number of the unknown word;
--- size, of one direction of an LSTM; dropout
function Reader:init(o)
  local width = 2 * o.size
  self.unknown = o.unknown
  self.words = nn.Embedding{o.words, WORD}
  self.letters = nn.Embedding{o.letters, 16}
  self.spelling = nn.Conv1d{16, SPELLING, kernel = 5, padding = "same"}
  self.encoder = nn.LSTM{WORD + SPELLING + o.shapes, o.size, bidirectional = true}
  self.query, self.key = nn.Linear{width, width}, nn.Linear{width, width}
  self.own, self.seen, self.both = nn.Linear{width, width}, nn.Linear{width, width}, nn.Linear{width, width}
  self.match = nn.Linear{2 * #MATCHES + o.shapes, width}
  self.first = nn.LSTM{width, o.size, bidirectional = true}
  self.look, self.mix = nn.Linear{width, width}, nn.Linear{2 * width, width}
  self.second = nn.LSTM{width, o.size, bidirectional = true}
  self.weigh = nn.Linear{width, 1}
  self.start, self.stop = nn.Linear{width, 2 * width}, nn.Linear{3 * width, 2 * width}
  self.dropout = nn.Dropout{o.dropout}
end

--- What is read of each kind of a batch (kinds, WORD + SPELLING + shapes). In training every tenth word is unknown.
function Reader:spell(batch)
  local word = batch.word
  if self.training then
    word = word:masked_fill(marea.uniform(word.shape):lt(0.1), self.unknown)
  end
  local letters = self.spelling(self.letters(batch.letters)):max(2):relu()
  return marea.concat({self.words(word), letters, batch.shape}, 2)
end

--- For each word of a paragraph, whether it occurs in the question (Q, T, #MATCHES), by lower case, stem, prefix.
local function matches(batch)
  local found = {}
  for i, name in ipairs(MATCHES) do
    local p, q = batch[name]:index_select(batch.p):index_select(batch.row), batch[name]:index_select(batch.q)
    found[i] = p:unsqueeze(3):eq(q:unsqueeze(2)):any(3)
  end
  return marea.stack(found, 3):to "f32"
end

--- The paragraph's words as the question sees them (Q, T, 2 * size), and the question's (Q, J, 2 * size).
function Reader:meet(batch)
  local rows, row, lengths = self:spell(batch), batch.row, {lengths = batch.q_lengths}
  local p = self.dropout((self.encoder(self.dropout(rows:index_select(batch.p)), {lengths = batch.p_lengths})))
  local q = self.dropout((self.encoder(self.dropout(rows:index_select(batch.q)), lengths)))
  local function heads(x) return x:reshape(x:size(1), x:size(2), HEADS, -1) end
  local query, key = heads(self.query(p):relu():index_select(row)), heads(self.key(q):relu())
  local seen = marea.scaled_dot_product_attention(query, key, heads(q), nil, batch.q_lengths):flatten(3)
  local found = matches(batch)
  local shape = batch.shape:index_select(batch.p):index_select(row)
  local rare = shape:narrow(3, 1, 1)
  local sum = self.own(p):index_select(row) + self.seen(seen) + self.both(p:index_select(row) * seen)
    + self.match(marea.concat({found, found * rare, shape}, 3))
  return self.dropout(sum:relu()), q
end

--- Every word of the paragraph looks at all others (Clark and Gardner 2018).
function Reader:reread(x, lengths)
  local query = self.look(x):unsqueeze(3)
  local seen = marea.scaled_dot_product_attention(query, x:unsqueeze(3), x:unsqueeze(3), nil, lengths):squeeze(3)
  return x + self.dropout(self.mix(marea.concat({seen, x * seen}, 3)):relu())
end

local function behind(lengths, steps)
  return marea.arange(0, steps - 1, 1, "i64"):unsqueeze(1):ge(lengths:unsqueeze(2))
end

--- Logits of the answer's first and last word (Q, T), -infinity behind the paragraph's end.
function Reader:forward(batch)
  local x, q = self:meet(batch)
  local lengths = batch.p_lengths:index_select(batch.row)
  local one = (self.first(x, {lengths = lengths}))
  local two = self:reread(self.dropout(one), lengths)
  two = (self.second(self.dropout(two), {lengths = lengths}))
  local m, hidden = self.dropout(marea.concat({one, two}, 3)), behind(lengths, x:size(2))
  local function scores(u) return marea.matmul(m, u:unsqueeze(3)):squeeze(3):masked_fill(hidden, -math.huge) end
  local weights = self.weigh(q):squeeze(3):masked_fill(behind(batch.q_lengths, q:size(2)), -math.huge):softmax(2)
  local asked = marea.matmul(weights:unsqueeze(2), q):squeeze(2)
  local start = scores(self.start(asked))
  local begun = marea.matmul(start:softmax(2):unsqueeze(2), m):squeeze(2) -- where it seems to begin
  return start, scores(self.stop(marea.concat({asked, begun}, 2)))
end

--- The likeliest answers of at most `longest` words: first and last words, lists; the two distributions (Q, T).
function Reader:answer(batch, longest)
  local start, stop = self:forward(batch)
  start, stop = start:log_softmax(2), stop:log_softmax(2)
  local n, steps = start:size(1), start:size(2)
  local sums = {}
  for d = 0, math.min(longest, steps) - 1 do -- the last word is d words behind the first
    local sum = start:narrow(2, 1, steps - d) + stop:narrow(2, d + 1, steps - d)
    sums[d + 1] = sum:pad({0, 0, 0, d}, -math.huge)
  end
  local best = marea.stack(sums, 2):reshape(n, -1):argmax(2):totable()
  local first, last = {}, {}
  for i, k in ipairs(best) do
    first[i] = (k - 1) % steps + 1
    last[i] = first[i] + (k - 1) // steps
  end
  return first, last, start:exp(), stop:exp()
end

return Reader
