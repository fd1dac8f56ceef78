-- SPDX-License-Identifier: MIT
--- Texts as words for scripts/qa_reader.lua, and what the network reads of each. A *kind* is a spelling that occurs in
--- the texts, capitals and all: its word, its letters, what it is matched by and what it looks like stand in tables
--- with a row for each.
local marea = require "marea"
local text = marea.text

local reader_words = {LETTERS = 12, SHAPES = 5, PADDING = 1} -- letters of a kind; columns of its shape; what is no kind

-- ---- texts to kinds ----

--- Words with their first and last bytes: letters, numbers such as 1,000.5, single marks.
function reader_words.split(line)
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
  if n > reader_words.LETTERS then table.move(numbers, n - 4, n, 8) end
  for i = n + 1, reader_words.LETTERS do numbers[i] = letters.padding end
  return table.move(numbers, 1, reader_words.LETTERS, 1, {})
end

--- Numbers that tell what a kind looks like, and how rare its word is.
local function shape(word, number, words)
  local rarity = number == words.unknown and 1 or math.log(number) / math.log(#words)
  local function is(pattern) return word:find(pattern) and 1 or 0 end
  return {rarity, is "^%u", is "^%u+$", is "^%d", is "^[%w\x80-\xff]" == 1 and 0 or 1}
end

--- The tables of kinds: word, lower, stem, prefix (kinds), letters (kinds, LETTERS), shape (kinds, SHAPES).
function reader_words.describe(kinds, words, letters)
  local columns, numbers = {word = {}, lower = {}, stem = {}, prefix = {}}, {}
  local function number_of(key)
    numbers[#numbers + 1] = not numbers[key] and key or nil
    numbers[key] = numbers[key] or #numbers
    return numbers[key]
  end
  local spelt, shapes = {}, {}
  for i, kind in ipairs(kinds) do
    local lower = kind:lower()
    columns.word[i] = i == reader_words.PADDING and words.padding or words:number(lower)
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
function reader_words.vocabularies(questions, least)
  local words, letters, last = {}, {}, nil
  local function add(line)
    for _, word in ipairs((reader_words.split(line))) do
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

return reader_words
