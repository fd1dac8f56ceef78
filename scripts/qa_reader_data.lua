-- SPDX-License-Identifier: MIT
--- Questions with their paragraphs as tensors, for scripts/qa_reader.lua. A *kind* is a spelling that occurs in the
--- texts, capitals and all: each text is a run of numbers of kinds, and what the network reads of a kind (its word,
--- its letters, what it is matched by) stands in tables that have a row for each.
local marea = require "marea"
local data, text = marea.data, marea.text

local reader_data = {LETTERS = 12, SHAPES = 5} -- letters of a kind; columns of its shape
local PADDING <const> = 1 -- the kind of what lies behind the end of a text
local GROUP <const> = 5 -- most questions of a row, which share the reading of their paragraph

-- ---- texts to kinds ----

--- Words with their first and last bytes: letters, numbers such as 1,000.5, single marks.
function reader_data.split(line)
  -- Marks of two and three bytes (U+0080 to U+00BF, U+2000 to U+203F) become as many bytes of one that is no letter.
  local plain = line:gsub("\xC2[\x80-\xBF]", "\1\1"):gsub("\xE2\x80[\x80-\xBF]", "\1\1\1")
  local words, starts, stops, at = {}, {}, {}, 1
  while true do
    local from = plain:find("[^ \t\n\v\f\r]", at)
    if not from then return words, starts, stops end
    local _, to = plain:find("^%d[%d.,]*%d", from)
    if not to then _, to = plain:find("^[%w\x80-\xff]+", from) end
    if not to then _, to = plain:find("^\1+", from) end
    to = to or from
    words[#words + 1], starts[#starts + 1], stops[#stops + 1] = line:sub(from, to), from, to
    at = to + 1
  end
end

local SUFFIXES = {"'s", "ingly", "ings", "ing", "edly", "ed", "ers", "er", "ions", "ion", "ies", "ly", "es", "s", "e",
  "y"}

--- A word without its ending: "founded", "founder" and "found" have one stem.
local function stem(word)
  for _, suffix in ipairs(SUFFIXES) do
    if #word - #suffix >= 3 and word:sub(-#suffix) == suffix then return word:sub(1, -#suffix - 1) end
  end
  return word
end

--- The letters of a word, the first 7 and the last 5 of a long one, as numbers, with padding to LETTERS.
local function spell(word, letters)
  local numbers = letters:encode(text.characters(word))
  local n = #numbers
  if n > reader_data.LETTERS then table.move(numbers, n - 4, n, 8) end
  for i = n + 1, reader_data.LETTERS do numbers[i] = letters.padding end
  return table.move(numbers, 1, reader_data.LETTERS, 1, {})
end

--- Numbers that tell what a kind looks like, and how rare its word is.
local function shape(word, number, words)
  local rarity = number == words.unknown and 1 or math.log(number) / math.log(#words)
  local function is(pattern) return word:find(pattern) and 1 or 0 end
  return {rarity, is "^%u", is "^%u+$", is "^%d", is "^[%w\x80-\xff]" == 1 and 0 or 1}
end

--- The tables of kinds: word, lower, stem, prefix (kinds), letters (kinds, LETTERS), shape (kinds, SHAPES).
local function describe(kinds, words, letters)
  local columns, numbers = {word = {}, lower = {}, stem = {}, prefix = {}}, {}
  local function number_of(key)
    numbers[#numbers + 1] = not numbers[key] and key or nil
    numbers[key] = numbers[key] or #numbers
    return numbers[key]
  end
  local spelt, shapes = {}, {}
  for i, kind in ipairs(kinds) do
    local lower = kind:lower()
    columns.word[i] = i == PADDING and words.padding or words:number(lower)
    columns.lower[i], columns.stem[i] = number_of(lower), number_of("stem " .. stem(lower))
    columns.prefix[i] = number_of("prefix " .. lower:sub(1, 4))
    spelt[i], shapes[i] = spell(kind, letters), shape(kind, columns.word[i], words)
  end
  local tables = {letters = marea.tensor(spelt, {dtype = "i64"}), shape = marea.tensor(shapes, {dtype = "f32"})}
  for name, list in pairs(columns) do tables[name] = marea.tensor(list, {dtype = "i64"}) end
  return tables
end

-- ---- vocabularies ----

--- Vocabularies of the words and the letters of questions and their paragraphs.
---@param least integer how often a word must occur
function reader_data.vocabularies(questions, least)
  local words, letters, last = {}, {}, nil
  local function add(line)
    for _, word in ipairs((reader_data.split(line))) do
      local lower = word:lower()
      words[lower] = (words[lower] or 0) + 1
    end
    for c in line:gmatch(utf8.charpattern) do letters[c] = (letters[c] or 0) + 1 end
  end
  for _, q in ipairs(questions) do
    add(q.question)
    if q.context ~= last then add(q.context) end
    last = q.context
  end
  return text.Vocabulary{counts = words, min_count = least}, text.Vocabulary{counts = letters, min_count = 10}
end

-- ---- questions that need no files ----

local NAMES = {"Ada", "Bela", "Carl", "Dora", "Emil", "Flora", "Georg", "Hanna", "Ivo", "Julia", "Karla", "Leo"}
local PLACES = {"Lima", "Oslo", "Paris", "Rome", "Tunis", "Vienna", "Zagreb", "Bern", "Cairo", "Delhi"}

--- Questions about people, where they live and since when, in the form of data.squad; the same for the same seed.
function reader_data.made_up(n, seed)
  local list, state = {}, seed
  local function draw(names)
    state = (state * 1103515245 + 12345) % 2147483648
    return names[state // 65536 % #names + 1]
  end
  while #list < n do
    local sentences, asked = {}, {}
    for i = 1, 3 do
      local name, city, year = NAMES[(#list + 4 * i) % #NAMES + 1], draw(PLACES), ("%d"):format(1900 + #list % 97 + i)
      sentences[i] = ("%s has lived in %s since %s."):format(name, city, year)
      asked[i] = {"Where does " .. name .. " live?", city}
      if i == 3 then asked[i] = {"Since when has it been so for " .. name .. "?", year} end
    end
    local context = table.concat(sentences, " ")
    for i, pair in ipairs(asked) do
      local answer = {text = pair[2], start = context:find(pair[2], context:find(sentences[i], 1, true), true)}
      list[#list + 1] = {question = pair[1], context = context, answers = {answer}}
    end
  end
  return list
end

-- ---- sets of questions ----

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
  local self = setmetatable({questions = lists.questions, tables = describe(lists.kinds, words, letters)}, Set)
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
