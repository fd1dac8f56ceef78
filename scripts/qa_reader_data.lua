-- SPDX-License-Identifier: MIT
--- Questions with their paragraphs as tensors, for scripts/qa_reader.lua: each text is a run of numbers of kinds
--- (qa_reader_words.lua), all of them one behind the other, from which batches are cut.
local marea = require "marea"
local data = marea.data
local reader_words = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "qa_reader_words.lua")

local reader_data = {SHAPES = reader_words.SHAPES, split = reader_words.split, vocabularies = reader_words.vocabularies}
local PADDING <const> = reader_words.PADDING -- the kind of what lies behind the end of a text
local GROUP <const> = 5 -- most questions of a row, which share the reading of their paragraph

local Set = {}
Set.__index = Set

--- The first and last word of an answer that begins at a character and has so many bytes.
local function place(q, answer, starts, stops)
  local from = utf8.offset(q.context, answer.start)
  local to, first, last = from + #answer.text - 1, 1, #starts
  while first < #starts and stops[first] < from do first = first + 1 end
  while last > first and starts[last] > to do last = last - 1 end
  return first, last
end

--- What a set is collected in: texts, one behind the other as numbers of kinds, and lists with an item for each row and
--- each question.
local function new_lists()
  return {flat = {}, kinds = {[PADDING] = ""}, numbers = {[""] = PADDING}, questions = {},
    rows = {first = {}, lengths = {}, question = {}, count = {}},
    asked = {first = {}, lengths = {}, start = {}, stop = {}}}
end

--- Puts a text behind the others; returns where it begins, and its length.
local function add_text(lists, words)
  local flat, kinds, numbers = lists.flat, lists.kinds, lists.numbers
  local first = #flat + 1
  for _, word in ipairs(words) do
    if not numbers[word] then
      kinds[#kinds + 1] = word
      numbers[word] = #kinds
    end
    flat[#flat + 1] = numbers[word]
  end
  return first, #words
end

--- Adds a question about a paragraph, to the last row or to a new one.
local function add_question(lists, q, paragraph)
  local rows, asked, n = lists.rows, lists.asked, #lists.questions + 1
  lists.questions[n] = {question = q, starts = paragraph.starts, stops = paragraph.stops}
  if paragraph.count % GROUP == 0 then
    local row = #rows.first + 1
    rows.first[row], rows.lengths[row], rows.question[row], rows.count[row] = paragraph.first, paragraph.length, n, 0
  end
  paragraph.count, rows.count[#rows.count] = paragraph.count + 1, rows.count[#rows.count] + 1
  asked.first[n], asked.lengths[n] = add_text(lists, (reader_data.split(q.question)))
  asked.start[n], asked.stop[n] = 1, 1
  local answer = q.answers and q.answers[1]
  if answer then asked.start[n], asked.stop[n] = place(q, answer, paragraph.starts, paragraph.stops) end
end

local function collect(questions, longest)
  local lists, paragraph = new_lists(), {}
  for _, q in ipairs(questions) do
    if q.context ~= paragraph.context then
      local words, starts, stops = reader_data.split(q.context)
      paragraph = {context = q.context, starts = starts, stops = stops, count = 0}
      if #words <= longest then paragraph.first, paragraph.length = add_text(lists, words) end
    end
    if paragraph.first then add_question(lists, q, paragraph) end
  end
  return lists
end

--- Questions as a set: set.rows, a Dataset for batches, and set:batch, which makes one of a pass's rows.
---@param questions table[] of data.squad, those of one paragraph together
---@param longest integer? words of a paragraph; questions about longer ones are left out
function reader_data.set(questions, words, letters, longest)
  local lists = collect(questions, longest or math.maxinteger)
  local self = setmetatable({questions = lists.questions,
    tables = reader_words.describe(lists.kinds, words, letters)}, Set)
  local function tensor(numbers) return marea.tensor(numbers, {dtype = "i64"}) end
  self.flat = tensor(lists.flat)
  for name, numbers in pairs(lists.asked) do self[name] = tensor(numbers) end
  local fields = {}
  for i, name in ipairs{"first", "lengths", "question", "count"} do fields[i] = {name, tensor(lists.rows[name])} end
  self.rows = data.Dataset(fields)
  return self
end

function Set:__len() return #self.questions end

--- The texts that begin at `first` (N) and have `lengths` (N) words: kinds (N, T), with padding behind.
local function cut(flat, first, lengths)
  local at = marea.arange(0, lengths:max():item() - 1, 1, "i64"):unsqueeze(1)
  local inside = at:minimum(lengths:unsqueeze(2) - 1)
  return flat:index_select(first:unsqueeze(2) + inside):masked_fill(at:ge(lengths:unsqueeze(2)), PADDING)
end

--- A batch of P paragraphs with Q questions: numbers (the questions'), row (Q), the place of each question's paragraph,
--- p and q, places (P, T) and (Q, J) in the tables of kinds that occur in the batch, their lengths, start and stop (Q),
--- and the tables.
function Set:batch(first, lengths, question, count)
  local numbers, row, counts = {}, {}, count:totable()
  for i, n in ipairs(question:totable()) do
    for k = n, n + counts[i] - 1 do numbers[#numbers + 1], row[#row + 1] = k, i end
  end
  local index = marea.tensor(numbers, {dtype = "i64"})
  local q_lengths = self.lengths:index_select(index)
  local p, q = cut(self.flat, first, lengths), cut(self.flat, self.first:index_select(index), q_lengths)
  local kinds, places = marea.concat{p:reshape(-1), q:reshape(-1)}:unique{inverse = true}
  local batch = {numbers = numbers, row = marea.tensor(row, {dtype = "i64"}), p_lengths = lengths,
    q_lengths = q_lengths,
    p = places:narrow(1, 1, p:numel()):reshape(p.shape),
    q = places:narrow(1, p:numel() + 1, q:numel()):reshape(q.shape),
    start = self.start:index_select(index), stop = self.stop:index_select(index)}
  for name, t in pairs(self.tables) do batch[name] = t:index_select(kinds) end
  return batch
end

--- The text of words first to last of a question's paragraph.
function Set:answer(number, first, last)
  local q = self.questions[number]
  return q.question.context:sub(q.starts[first], q.stops[last])
end

return reader_data
