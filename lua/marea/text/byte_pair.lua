-- SPDX-License-Identifier: MIT
--- Byte-pair encoding of texts (Sennrich et al. 2016) over bytes, as GPT-2's: frequent pieces of words get a number,
--- and since all bytes have one, no text is unknown.
local core = require "marea.core"
local check = require "marea.internal.check"
local decoded = require "marea.text.decoding"
local json_text = require "marea.internal.json_text"
local files = require "marea.internal.files"
local pieces = require "marea.text.pieces"
local split = require "marea.text.split"
local train = require "marea.text.byte_pair_training"

---@class BytePair
---@example bp = marea.text.BytePair{{"low lower lowest slow"}, size = 260}
---@example bp:encode "slower"
---@example bp:decode(bp:encode "slower")
local BytePair = {__name = "BytePair"}
BytePair.__index = BytePair

-- GPT-2 writes a byte as a character: those of Latin-1 that can be seen as themselves, others from 256 on.
local letter_of, byte_of, in_order = {}, {}, {}

local function fill_letters()
  local hidden = {}
  for byte = 0, 255 do
    local is_seen = byte >= 33 and byte <= 126 or byte >= 161 and byte ~= 173
    table.insert(is_seen and in_order or hidden, byte)
    letter_of[string.char(byte)] = utf8.char(is_seen and byte or 255 + #hidden)
  end
  table.move(hidden, 1, #hidden, #in_order + 1, in_order)
  for byte, letter in pairs(letter_of) do byte_of[letter] = byte end
end
fill_letters()

local function to_letters(bytes) return (bytes:gsub(".", letter_of)) end

local has_unknown -- a letter that stands for no byte was asked for
setmetatable(byte_of, {__index = function() has_unknown = true end})

--- The bytes that letters stand for; nil when one of them stands for none.
local function to_bytes(letters)
  if letters:find "[\0- \127]" then return nil end
  has_unknown = false
  local bytes = letters:gsub("[\xC0-\xFF][\x80-\xBF]*", byte_of)
  return not has_unknown and bytes or nil
end

local MOST_KNOWN, LONGEST_KNOWN = 1 << 15, 64 -- pieces whose numbers are kept, twice; bytes of such a piece

local function new()
  return setmetatable({_bytes = {}, _numbers = {}, _rank = {}, _joined = {}, _merges = {}, _special = {}, _size = 0,
    _known = {}, _older = {}, _room = MOST_KNOWN}, BytePair)
end

local function add(self, number, bytes)
  self._bytes[number], self._numbers[bytes] = bytes, number
  self._size = math.max(self._size, number)
end

local function add_special(self, number, text)
  self._special[number], self._special[text] = text, number
  self._size = math.max(self._size, number)
end

--- Notes that the numbers a and b become the number of both together.
local function add_merge(self, a, b, joined)
  local key = a << 32 | b
  self._merges[#self._merges + 1] = {a, b}
  self._rank[key], self._joined[key] = self._rank[key] or #self._merges, joined
end

--- Learns from texts: the 256 bytes, and then the pairs that occur most often, each joined to a new number.
--- {texts}: a list of texts in UTF-8; size: numbers at most, with bytes and special ones (1000); min_count: pairs that
--- occur less often are not joined (2); special: texts that get the first numbers, such as {"<pad>", "<eos>"}.
local function construct(_, options)
  options = check.options("BytePair", options, {"size", "min_count", "special"}, 1)
  local texts, special = options[1], options.special or {}
  local n = check.items("BytePair", "texts", texts, "a list of texts")
  local m = check.items("BytePair", "special", special, "a list of texts")
  local size = check.integer("BytePair", "size", options.size or 1000, 256 + m)
  local least = check.integer("BytePair", "min_count", options.min_count or 2, 1)
  local self, counts = new(), {}
  for i = 1, m do
    local text = check.string("BytePair", ("special[%d]"):format(i), special[i])
    if text == "" or self._special[text] then check.raise("BytePair: special[%d] is empty, or comes twice", i) end
    add_special(self, i, text)
  end
  for i, byte in ipairs(in_order) do add(self, m + i, string.char(byte)) end
  for i = 1, n do
    pieces(split.checked("BytePair", texts[i], ("texts[%d]"):format(i)), function(piece)
      counts[piece] = (counts[piece] or 0) + 1
    end)
  end
  train(counts, self._numbers, least, function(a, b)
    if self._size >= size then return nil end
    local bytes = self._bytes[a] .. self._bytes[b]
    local joined = self._numbers[bytes] or self._size + 1
    add(self, joined, bytes)
    add_merge(self, a, b, joined)
    return joined
  end)
  return self
end

function BytePair:__len() return self._size end

function BytePair:__tostring() return ("BytePair(%d numbers, %d merges)"):format(self._size, #self._merges) end

--- The number of a special text, nil when it is none.
---@param text string
---@return integer?
---@example marea.text.BytePair{{"a"}, special = {"<pad>"}}:number "<pad>"
function BytePair:number(text)
  return self._special[check.string("number", "text", text)]
end

--- Joins the pair of the least rank as long as there is one.
local function join(self, numbers)
  while true do
    local best, least
    for i = 1, #numbers - 1 do
      local key = numbers[i] << 32 | numbers[i + 1]
      local rank = self._rank[key]
      if rank and (not least or rank < least) then best, least = key, rank end
    end
    if not best then return numbers end
    local joined, i = {}, 1
    while i <= #numbers do
      local is_pair = i < #numbers and numbers[i] << 32 | numbers[i + 1] == best
      joined[#joined + 1] = is_pair and self._joined[best] or numbers[i]
      i = i + (is_pair and 2 or 1)
    end
    numbers = joined
  end
end

--- Keeps the numbers of a piece for the next time. What was not asked for while MOST_KNOWN others were is forgotten.
local function keep(self, piece, numbers)
  if #piece > LONGEST_KNOWN then return end
  if self._room == 0 then self._known, self._older, self._room = {}, self._known, MOST_KNOWN end
  self._known[piece], self._room = numbers, self._room - 1
end

local function of_piece(self, piece)
  local numbers = self._known[piece]
  if numbers then return numbers end
  numbers = self._older[piece]
  if numbers then keep(self, piece, numbers) return numbers end
  numbers = {}
  for i = 1, #piece do
    numbers[i] = self._numbers[piece:sub(i, i)]
    if not numbers[i] then check.raise("encode: byte 0x%02x has no number", piece:byte(i)) end
  end
  numbers = join(self, numbers)
  keep(self, piece, numbers)
  return numbers
end

--- The special texts, each with where it comes next in a text: {text, first, last}, once it was looked for.
local function special_texts(self)
  local list = {}
  for key in next, self._special do
    if type(key) == "string" then list[#list + 1] = {text = key, first = 0} end
  end
  return list
end

--- The first special text in `text` from byte i on, the longest of those that begin there: first and last byte. Places
--- behind i are remembered, so that a long text is searched once and not from each special text on.
local function find_special(list, text, i)
  local first, last
  for _, special in ipairs(list) do
    if special.first < i then
      local a, b = text:find(special.text, i, true)
      special.first, special.last = a or math.huge, b
    end
    local a, b = special.first, special.last
    if b and (not first or a < first or a == first and b > last) then first, last = a, b end
  end
  return first, last
end

--- The numbers of a text in UTF-8, from 1 (the files' number + 1). Special texts inside get their numbers, as Hugging
--- Face's tokenizers do; with special = false they are text as any other.
---@param text string
---@param options? {special: boolean?}
---@return integer[]
---@example marea.text.BytePair{{"a rose is a rose"}, size = 262}:encode "a rose"
function BytePair:encode(text, options)
  options = check.options("encode", options, {"special"})
  split.checked("encode", text)
  local numbers, i = {}, 1
  local special = options.special == false and {} or special_texts(self)
  local function add_piece(piece)
    local list = of_piece(self, piece)
    table.move(list, 1, #list, #numbers + 1, numbers)
  end
  while i <= #text do
    local first, last = find_special(special, text, i)
    pieces(text:sub(i, (first or #text + 1) - 1), add_piece)
    if first then numbers[#numbers + 1] = self._special[text:sub(first, last)] end
    i = (last or #text) + 1
  end
  return numbers
end

--- The text of numbers, without the special ones unless asked for. Numbers from the middle of a text may give a part of
--- a character.
---@param numbers integer[]|userdata a list, or i64 or u8 (n)
---@param options? {special: boolean?}
---@return string
---@example marea.text.BytePair{{"a"}}:decode{66, 67}
function BytePair:decode(numbers, options)
  return table.concat(decoded({
    size = self._size,
    word = function(number) return type(number) == "number" and self._special[number] or self._bytes[number] end,
    is_special = function(number) return self._special[number] end,
  }, numbers, options))
end

--- The tables of a tokenizer.json. Special texts stand in vocab, too: other programs take their numbers from there.
local function tables_of(self)
  local vocab, merges, added = {}, {}, {}
  for number, bytes in pairs(self._bytes) do vocab[to_letters(bytes)] = number - 1 end
  for i, pair in ipairs(self._merges) do
    merges[i] = to_letters(self._bytes[pair[1]]) .. " " .. to_letters(self._bytes[pair[2]])
  end
  for number = 1, self._size do
    local text = self._special[number]
    if text then
      if vocab[text] then check.raise("save: the special text '%s' is a piece, too, and names must differ", text) end
      vocab[text] = number - 1
      added[#added + 1] = {id = number - 1, content = text, single_word = false, lstrip = false,
        rstrip = false, normalized = false, special = true}
    end
  end
  return vocab, merges, added
end

--- Writes a tokenizer.json, as Hugging Face's library tokenizers reads it.
---@param path string
---@return boolean|nil ok, string|nil message
---@example path = os.tmpname()
---@example marea.text.BytePair{{"a"}}:save(path), #marea.text.BytePair.load(path), os.remove(path)
function BytePair:save(path)
  check.string("save", "path", path)
  local vocab, merges, added = tables_of(self)
  return core.save_bytes(path, json_text{version = "1.0", added_tokens = added,
    pre_tokenizer = {type = "ByteLevel", add_prefix_space = false, trim_offsets = true, use_regex = true},
    decoder = {type = "ByteLevel", add_prefix_space = true, trim_offsets = true, use_regex = true},
    model = {type = "BPE", vocab = vocab, merges = merges, byte_fallback = false, fuse_unk = false}})
end

local function is_set(value) return value ~= nil and value ~= false and value ~= "" end

--- What keeps a tokenizer.json from being one of byte pairs as GPT-2's; nil: nothing.
local function misfit(t)
  local model, before = t.model, t.pre_tokenizer
  if type(model) ~= "table" or model.type ~= "BPE" then return "the model is not BPE" end
  if type(model.vocab) ~= "table" or type(model.merges) ~= "table" then return "there is no vocab, or no merges" end
  for _, name in ipairs{"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
    "ignore_merges"} do
    if is_set(model[name]) then return ("'%s' of the model is not supported"):format(name) end
  end
  if is_set(t.normalizer) then return "a normalizer is not supported" end
  if type(before) ~= "table" or before.type ~= "ByteLevel" or before.use_regex == false or before.add_prefix_space then
    return "the pre_tokenizer is not ByteLevel, without a space in front, as GPT-2's"
  end
end

local MOST = 1 << 24 -- numbers of a file

local function is_number(id) return math.type(id) == "integer" and id >= 0 and id < MOST end

--- Takes over the numbers of special texts; a message when one is of a kind that is not supported.
local function read_added(self, added)
  for _, token in ipairs(type(added) == "table" and added or {}) do
    if type(token) ~= "table" or not is_number(token.id) or type(token.content) ~= "string" or token.content == "" then
      return "an added token without a number or a text"
    end
    for _, name in ipairs{"lstrip", "rstrip", "single_word"} do
      if token[name] then return ("'%s' of the added token '%s' is not supported"):format(name, token.content) end
    end
    add_special(self, token.id + 1, token.content)
  end
end

local function read_vocab(self, vocab)
  for letters, id in pairs(vocab) do
    if type(letters) ~= "string" or not is_number(id) then return ("the number of '%s' is none"):format(letters) end
    local bytes = to_bytes(letters)
    if self._special[letters] == nil then
      if not bytes then return ("'%s' in vocab does not stand for bytes"):format(letters) end
      add(self, id + 1, bytes)
    end
  end
end

local function read_merges(self, vocab, merges)
  local function number_of(letters)
    local id = vocab[letters]
    return id and self._bytes[id + 1] and id + 1
  end
  for i, pair in ipairs(merges) do
    local a, b
    if type(pair) == "table" then a, b = pair[1], pair[2] else a, b = tostring(pair):match "^(%S+) (%S+)$" end
    local is_pair = type(a) == "string" and type(b) == "string"
    local left, right, joined = is_pair and number_of(a), is_pair and number_of(b), is_pair and number_of(a .. b)
    if not (left and right and joined) then
      return ("merge %d is not of two texts in vocab that are one there"):format(i)
    end
    add_merge(self, left, right, joined)
  end
end

local function from_tables(path, vocab, merges, added)
  local self = new()
  local message = read_added(self, added) or read_vocab(self, vocab) or read_merges(self, vocab, merges)
  if message then return core.failed(core.printable(path) .. ": " .. message) end
  return self
end

--- In GPT-2's files: what is in vocab and neither a byte nor made by a merge is special.
local function special_of(vocab, merges)
  local made, added = {}, {}
  for _, pair in ipairs(merges) do made[pair:gsub(" ", "", 1)] = true end
  for letters, id in pairs(vocab) do
    if utf8.len(letters) > 1 and not made[letters] then added[#added + 1] = {id = id, content = letters} end
  end
  return added
end

local function read_json(path)
  local text, message = files.read(path)
  if not text then return nil, message end
  local t, problem = core.json(text)
  if type(t) ~= "table" then return nil, core.printable(path) .. ": " .. (problem or "no tokenizer") end
  return t
end

--- Reads a tokenizer.json of Hugging Face's with byte pairs as GPT-2's, or GPT-2's vocab.json and merges.txt. What is
--- of another kind gives nil and what is not supported.
---@param path string tokenizer.json, or vocab.json
---@param merges_path? string merges.txt
---@return BytePair|nil tokenizer, string|nil message
---@example marea.text.BytePair.load "missing.json"
function BytePair.load(path, merges_path)
  local t, message = read_json(check.string("load", "path", path))
  if not t then return core.failed(message) end
  if merges_path == nil then
    local problem = misfit(t)
    if problem then return core.failed(core.printable(path) .. ": " .. problem) end
    return from_tables(path, t.model.vocab, t.model.merges, t.added_tokens)
  end
  local text, problem = files.read(check.string("load", "merges_path", merges_path))
  if not text then return core.failed(problem) end
  local merges = {}
  for line in text:gmatch "[^\r\n]+" do
    if not (#merges == 0 and line:find "^#version") then merges[#merges + 1] = line end
  end
  return from_tables(path, t, merges, special_of(t, merges))
end

return setmetatable(BytePair, {__call = construct})
