-- SPDX-License-Identifier: MIT
--- The words that a model knows, and their numbers.
local core = require "marea.core"
local check = require "marea.internal.check"
local decoded = require "marea.text.decoding"
local files = require "marea.internal.files"
local json_text = require "marea.internal.json_text"

---@class Vocabulary
---@field padding integer? the numbers of the special words that there are
---@field unknown integer?
---@field begin integer?
---@field stop integer?
---@example v = marea.text.Vocabulary{{"a", "rose", "is", "a", "rose"}, stop = true}
---@example v:encode({"a", "tulip"}, {stop = true})
---@example v:decode{3, 5}
local Vocabulary = {__name = "Vocabulary"}
Vocabulary.__index = Vocabulary

local SPECIAL = {"padding", "unknown", "begin", "stop"} -- in the order of their numbers
local DEFAULT = {padding = "<pad>", unknown = "<unk>", begin = "<bos>", stop = "<eos>"}

--- Adds the words of a list, or of lists in it, to counts.
local function count(list, counts, path, is_inner)
  for i = 1, check.items("Vocabulary", path, list, "a list of words or of lists of words") do
    local item = list[i]
    if type(item) == "table" and not is_inner then count(item, counts, ("%s[%d]"):format(path, i), true)
    else
      local word = check.string("Vocabulary", ("%s[%d]"):format(path, i), item)
      counts[word] = (counts[word] or 0) + 1
    end
  end
  return counts
end

local function checked_counts(counts)
  if type(counts) ~= "table" then check.fail("Vocabulary", "counts", "a table of numbers by word", counts) end
  for word, n in next, counts do
    check.string("Vocabulary", "counts", word)
    check.number("Vocabulary", ("counts[%q]"):format(word), n)
  end
  return counts
end

--- The words of counts that occur often enough, the most frequent ones first, those of one frequency by their bytes.
local function frequent(counts, least)
  local words = {}
  for word, n in next, counts do
    if n >= least then words[#words + 1] = word end
  end
  table.sort(words, function(a, b)
    if counts[a] ~= counts[b] then return counts[a] > counts[b] end
    return core.before(a, b)
  end)
  return words
end

local function add(self, word)
  self._words[#self._words + 1] = word
  self._numbers[word] = #self._words
  return #self._words
end

--- The words of a state or of `words`, in their order, each once.
local function add_all(self, words, most)
  for i = 1, check.items("Vocabulary", "words", words, "a list of words") do
    local word = check.string("Vocabulary", ("words[%d]"):format(i), words[i])
    if #self._words >= most then return end
    if not self._numbers[word] then add(self, word) end
  end
end

local function add_special(self, options)
  for _, name in ipairs(SPECIAL) do
    local word = options[name]
    if word == nil then word = name == "padding" or name == "unknown" end
    if word == true then word = DEFAULT[name] end
    if word then
      check.string("Vocabulary", name, word)
      if self._numbers[word] then check.raise("Vocabulary: two special words are '%s'", word) end
      self[name] = add(self, word)
    end
  end
end

--- Words in a list, or in lists (one for each text), get numbers by how often they occur. In place of the list: counts
--- (a table of numbers by word), or words (a list in the order of the numbers).
--- min_count: words that occur less often are left out (1); most: so many words at most, with the special ones.
--- padding = "<pad>", unknown = "<unk>", begin, stop: special words, the first numbers; a text, true for the usual one
--- (<bos>, <eos>), false for none. padding and unknown are there unless they are false.
local function construct(_, options)
  options = check.options("Vocabulary", options, {"counts", "words", "min_count", "most", table.unpack(SPECIAL)}, 1)
  local self = setmetatable({_words = {}, _numbers = {}}, Vocabulary)
  local least = check.number("Vocabulary", "min_count", options.min_count or 1)
  local most = options.most and check.integer("Vocabulary", "most", options.most, 1) or math.maxinteger
  add_special(self, options)
  if options.words then add_all(self, options.words, most) return self end
  local counts = options.counts and checked_counts(options.counts) or count(options[1] or {}, {}, "1")
  add_all(self, frequent(counts, least), most)
  return self
end

function Vocabulary:__len() return #self._words end

function Vocabulary:__tostring() return ("Vocabulary(%d words)"):format(#self._words) end

--- The number of a word; that of the unknown one, or nil, when it is not there.
---@param word string
---@return integer?
---@example marea.text.Vocabulary{{"a", "b"}}:number "b"
function Vocabulary:number(word) return self._numbers[word] or self.unknown end

--- The word with this number.
---@param number integer
---@return string?
---@example marea.text.Vocabulary{{"a", "b"}}:word(3)
function Vocabulary:word(number) return self._words[number] end

--- Words to numbers. Without an unknown word, a word that is not there is an error that names its place.
---@param words string[]
---@param options? {begin: boolean?, stop: boolean?} put these special words at the ends
---@return integer[]
---@example marea.text.Vocabulary{{"a", "b"}}:encode{"b", "c"}
function Vocabulary:encode(words, options)
  options = check.options("encode", options, {"begin", "stop"})
  local numbers = {}
  for _, name in ipairs{"begin", "stop"} do
    if options[name] and not self[name] then check.raise("encode: the vocabulary has no word for '%s'", name) end
  end
  if options.begin then numbers[1] = self.begin end
  for i = 1, check.items("encode", "words", words, "a list of words") do
    local word = check.string("encode", ("words[%d]"):format(i), words[i])
    local number = self:number(word)
    if not number then check.raise("encode: word %d, '%s', is not in the vocabulary", i, word) end
    numbers[#numbers + 1] = number
  end
  if options.stop then numbers[#numbers + 1] = self.stop end
  return numbers
end

--- Numbers to words, without padding, begin and stop unless asked for; a stop ends the text.
---@param numbers integer[]|userdata a list, or i64 or u8 (n)
---@param options? {special: boolean?} special: all words, the special ones too
---@return string[]
---@example marea.text.Vocabulary{{"a", "b"}}:decode{4, 3, 1}
function Vocabulary:decode(numbers, options)
  return decoded({
    size = #self._words,
    stop = self.stop,
    word = function(number) return self._words[number] end,
    is_special = function(number) return number == self.padding or number == self.begin end,
  }, numbers, options)
end

--- The vocabulary as a text in JSON, for the texts of a checkpoint; from_state makes it again.
---@return string
---@example marea.text.Vocabulary{{"a", "b"}}:state()
function Vocabulary:state()
  local state = {words = self._words}
  for _, name in ipairs(SPECIAL) do state[name] = self[name] end
  for i, word in ipairs(self._words) do
    if not utf8.len(word) then check.raise("state: word %d is no UTF-8", i) end
  end
  return json_text(state)
end

--- A vocabulary from what state() gave; nil and a message when it is none.
---@param text string
---@return Vocabulary|nil vocabulary, string|nil message
---@example marea.text.Vocabulary.from_state(marea.text.Vocabulary{{"a", "b"}}:state())
function Vocabulary.from_state(text)
  local state, message = core.json(check.string("from_state", "text", text))
  local words = type(state) == "table" and state.words
  if type(words) ~= "table" then return core.failed("no vocabulary: " .. (message or "there are no words")) end
  local self = setmetatable({_words = {}, _numbers = {}}, Vocabulary)
  for i, word in ipairs(words) do
    if type(word) ~= "string" or self._numbers[word] then
      return core.failed(("no vocabulary: word %d is no text, or comes twice"):format(i))
    end
    add(self, word)
  end
  for _, name in ipairs(SPECIAL) do
    if state[name] ~= nil and not words[state[name]] then
      return core.failed(("no vocabulary: '%s' is no number of a word"):format(name))
    end
    self[name] = state[name]
  end
  return self
end

--- Writes the vocabulary into a file, in JSON.
---@param path string
---@return boolean|nil ok, string|nil message
---@example path = os.tmpname()
---@example marea.text.Vocabulary{{"a"}}:save(path), #marea.text.Vocabulary.load(path), os.remove(path)
function Vocabulary:save(path) return core.save_bytes(check.string("save", "path", path), self:state()) end

--- The vocabulary of a file that save has written.
---@param path string
---@return Vocabulary|nil vocabulary, string|nil message
---@example marea.text.Vocabulary.load "missing.json"
function Vocabulary.load(path)
  local text, message = files.read(check.string("load", "path", path))
  if not text then return core.failed(message) end
  return Vocabulary.from_state(text)
end

return setmetatable(Vocabulary, {__call = construct})
