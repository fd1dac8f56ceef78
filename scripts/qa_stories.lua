-- SPDX-License-Identifier: MIT
--- Stories as a memory network reads them (qa_memory.lua): apart by sentences, each with its age.
local marea = require "marea"
local text = marea.text
local stories = {}

local EMPTY = 0.1 -- in training so many empty memories, at most, come between n sentences: 0 to EMPTY n, rounded up

--- The sentences of a story, lists of words, and the question behind them: the first n words of a list, of which
--- `ends` ends sentences. What a sentence has behind its first `longest` words is left out.
local function split(words, n, ends, longest)
  local list, sentence = {}, {}
  for k = 1, n do
    if words[k] == ends then
      list[#list + 1], sentence = sentence, {}
    elseif #sentence < longest then
      sentence[#sentence + 1] = words[k]
    end
  end
  return list, sentence
end

--- How long ago each of n sentences was said: n, ..., 2, 1. In training some numbers are left out, as if there were
--- empty memories, so that the network does not learn a story by its numbers.
local function ages(n, training)
  local list = {}
  if not training then
    for k = 1, n do list[k] = n + 1 - k end
    return list
  end
  local gaps = marea.randint({1}, 0, math.ceil(EMPTY * n)):item()
  list = marea.permutation(n + gaps):narrow(1, 1, n):totable()
  table.sort(list, function(a, b) return a > b end)
  return list
end

--- The last sentences of a story with their ages, and what is none, 0 or 1, filled up to n.
local function remember(story, n, o)
  local age, none, list = {}, {}, {}
  local old, before = ages(#story, o.training), math.max(#story - o.memory, 0)
  for k = 1, n do
    list[k] = story[before + k] or {}
    age[k] = math.min(old[before + k] or 1, o.memory)
    none[k] = (story[before + k] or k == 1) and 0 or 1 -- one is there at least: a softmax of nothing is not a number
  end
  return list, age, none
end

--- Batches of stories and questions, i64 (N, T), as sentences (N, S, words), their ages (N, S), 1 where there is none,
--- u8 (N, S), and questions (N, words).
---@param o {ends: integer, sentence: integer, memory: integer, training: boolean} ends: the word that ends a sentence;
---sentence: words of one; memory: sentences that are taken, the last ones
function stories.batch(input, lengths, o)
  local told, questions, most, counts = {}, {}, 1, lengths:totable()
  for i, words in ipairs(input:totable()) do
    told[i], questions[i] = split(words, counts[i], o.ends, o.sentence)
    most = math.max(most, math.min(#told[i], o.memory))
  end
  local all, age, none = {}, {}, {}
  for i, story in ipairs(told) do
    local list
    list, age[i], none[i] = remember(story, most, o)
    table.move(list, 1, most, #all + 1, all)
  end
  local rows = text.pad(all, {length = o.sentence}):reshape(#told, most, o.sentence)
  return rows, marea.tensor(age, {dtype = "i64"}), marea.tensor(none, {dtype = "u8"}),
    (text.pad(questions, {length = o.sentence}))
end

--- The sentences of the longest story, and the words of the longest sentence or question.
---@param questions string[][] stories with their questions
function stories.size(questions, ends)
  local most, longest = 1, 1
  for _, words in ipairs(questions) do
    local story, question = split(words, #words, ends, math.huge)
    most, longest = math.max(most, #story), math.max(longest, #question)
    for _, sentence in ipairs(story) do longest = math.max(longest, #sentence) end
  end
  return most, longest
end

return stories
