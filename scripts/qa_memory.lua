-- SPDX-License-Identifier: MIT
--- An end-to-end memory network (Sukhbaatar et al. 2015) for scripts/qa.lua: the sentences of a story are memories, and
--- the question looks at them a few times, in hops, before it is answered with one word. Its methods are those of the
--- networks in qa_model.lua, but
---
---   local hidden, weights = model(input, lengths)     -- (N, size), (N, hops, S): S sentences of the longest story
---   model:begin_epoch(epoch, linear)                  -- in front of each; so many are without softmax
---
--- A hop: u' = u + sum p_i c_i, p = softmax(u . m_i). The memories m_i and c_i of a sentence are sums of the embeddings
--- of its words, each times the position encoding of its place, and of an embedding of how long ago it was said.
local marea = require "marea"
local nn, decode, optim = marea.nn, marea.decode, marea.optim
local stories = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "qa_stories.lua")
local memory = {}

local MOST = 50 -- sentences, the last ones of a story, that are looked at

--- The encoding of places (words, size): 1 + 4 (k - (size + 1) / 2) (j - (words + 1) / 2) / (size words) for value k of
--- word j, as the authors' program has it; without it the order of words would not count.
function memory.position_encoding(words, size)
  local function centred(n) return marea.arange(1, n) - (n + 1) / 2 end
  return centred(words):unsqueeze(2) * centred(size) * (4 / (size * words)) + 1
end

local Memory = nn.class "MemoryNetwork"
memory.Network = Memory

--- o: inputs: size of the vocabulary; answers: the number of each word of answers there, a list; ends: the word that
--- ends a sentence; sentence: words of the longest one; memory: sentences that are looked at, the last ones;
--- embedding: size; hops; tying: "adjacent": what one hop reads with the next one searches with, the first one's is the
--- question's too, and the last one's answers; "layers": all hops have the same two, and a matrix between them
function Memory:init(o)
  self.ends, self.sentence, self.memory, self.hops = o.ends, o.sentence, o.memory, o.hops
  self.answers = marea.tensor(o.answers, {dtype = "i64"}):keep()
  self.encoding = memory.position_encoding(o.sentence, o.embedding):keep()
  local normal = nn.init.normal(0, 0.1)
  self.words, self.times = {}, {}
  for k = 1, o.tying == "adjacent" and o.hops + 1 or 2 do
    self.words[k] = nn.Embedding{o.inputs, o.embedding, padding = 1, init = normal}
    self.times[k] = nn.Embedding{o.memory, o.embedding, init = normal}
  end
  if o.tying == "layers" then
    self.between = nn.Linear{o.embedding, o.embedding, bias = false, init = normal}
    self.question = nn.Embedding{o.inputs, o.embedding, padding = 1, init = normal}
    self.head = nn.Linear{o.embedding, #o.answers, bias = false, init = normal}
  end
end

--- Sentences (..., words) as vectors (..., size).
function Memory:encode(embedding, numbers)
  local x = embedding(numbers) * self.encoding
  return x:sum(x.rank - 1)
end

--- The weights (N, S) of memories (N, S, size) for u (N, size).
function Memory:weights(memories, u, none)
  local scores = memories:matmul(u:unsqueeze(3)):squeeze(3)
  if self.linear then return scores:masked_fill(none, 0) end
  return scores:masked_fill(none, -math.huge):softmax(2)
end

function Memory:forward(input, lengths)
  local sentences, age, none, questions = stories.batch(input, lengths, self)
  local memories, weights = {}, {}
  for k, embedding in ipairs(self.words) do memories[k] = self:encode(embedding, sentences) + self.times[k](age) end
  local u = self:encode(self.question or self.words[1], questions)
  for hop = 1, self.hops do
    local k = self.between and 1 or hop
    weights[hop] = self:weights(memories[k], u, none)
    local read = weights[hop]:unsqueeze(2):matmul(memories[k + 1]):squeeze(2)
    u = (self.between and self.between(u) or u) + read
  end
  return u, marea.stack(weights, 2)
end

--- Scores of the words of answers.
function Memory:scores(u)
  if self.head then return self.head(u) end
  return u:matmul(self.words[#self.words].weight:index_select(self.answers), {transpose_b = true})
end

--- The linear start: without a softmax the hops have larger gradients, until they know where to look.
function Memory:begin_epoch(epoch, linear) self.linear = epoch <= linear end

--- The mean cross entropy of the first words of answers, and their number.
function Memory:loss(input, lengths, output)
  local hidden = self(input, lengths)
  return self:scores(hidden):cross_entropy(output:select(2, 1)), #output
end

function Memory:answer(input, lengths, temperature)
  local scores = marea.no_grad(function() return self:scores((self(input, lengths))) end)
  local first = marea.full({#input}, 1, "i64")
  return decode.sample(function() return scores, true end, first, true, {temperature = temperature, length = 1})
end

-- ---- for a run ----

--- The network for data that qa.load has found.
---@param o {embedding: integer, hops: integer, tying: string}
function memory.of(found, o)
  local answers, most, longest = {}, stories.size(found.train.pairs.questions, ".")
  for k = 1, #found.outputs do answers[k] = found.inputs:number(found.outputs:word(k)) end
  return Memory{inputs = #found.inputs, answers = answers, ends = found.inputs:number ".", sentence = longest,
    memory = math.min(most, MOST), embedding = o.embedding, hops = o.hops, tying = o.tying}
end

--- Gradient descent as in the paper, halved three times. There it goes along the sum over 32 questions, at 0.01 and up
--- to a norm of 40; along their mean this is 0.32, up to 1.25.
function memory.optimizer(model, lr, steps)
  return optim.SGD{model, lr = optim.schedule.step(lr, (steps + 3) // 4, 0.5), clip_norm = 40 / 32}
end

return memory
