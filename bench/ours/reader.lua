-- SPDX-License-Identifier: MIT
-- reader size=64 words=26847 letters=128 paragraphs=8 questions=36 length=128 kinds=700 [bf16=1]: a training step of
-- scripts/qa_reader.lua's network on a batch of random numbers: paragraphs of `length` words and a few less, questions
-- of 7 to 21.
local marea = require "marea"
local precision = require "ours.precision"

local here = arg[0]:match "^.*/" or ""
local Reader = dofile(here .. "../../scripts/qa_reader_model.lua")
local SHAPES <const>, LETTERS <const> = 5, 12 -- columns of a word's shape, letters of its spelling

local function lengths(count, of)
  local list = {}
  for i = 1, count do list[i] = of(i - 1) end
  return marea.tensor(list, {dtype = "i64"})
end

local function new_batch(a)
  local p_lengths = lengths(a.paragraphs, function(i) return a.length - i end)
  local q_lengths = lengths(a.questions, function(i) return 7 + 5 * i % 15 end)
  local function kinds(n) return marea.randint({a.kinds}, 1, n) end
  return {p_lengths = p_lengths, q_lengths = q_lengths, row = lengths(a.questions, function(i)
    return 1 + i * a.paragraphs // a.questions
  end), p = marea.randint({a.paragraphs, p_lengths:max():item()}, 1, a.kinds),
    q = marea.randint({a.questions, q_lengths:max():item()}, 1, a.kinds), word = kinds(a.words),
    lower = kinds(a.kinds), stem = kinds(a.kinds), prefix = kinds(a.kinds),
    letters = marea.randint({a.kinds, LETTERS}, 1, a.letters), shape = marea.uniform{a.kinds, SHAPES},
    start = marea.randint({a.questions}, 1, 7), stop = marea.randint({a.questions}, 1, 7)}
end

return function(a)
  marea.seed(1)
  local batch = new_batch(a)
  local net = Reader{words = a.words, letters = a.letters, unknown = 2, shapes = SHAPES, size = a.size, dropout = 0.2}
  local adam = marea.optim.Adam{net, lr = 1e-3, clip_norm = 5}
  local loss = precision(a, function()
    local start, stop = net(batch)
    return start:cross_entropy(batch.start) + stop:cross_entropy(batch.stop)
  end)
  return function() return adam:step(loss):item() end
end
