-- SPDX-License-Identifier: MIT
-- Byte pairs against plain loops that count anew for each pair, and files in the formats of GPT-2 and Hugging Face.
-- With MAREA_TEXT, a folder with tinyshakespeare.txt.gz, that text is encoded too.
local marea = require "marea"
local core = require "marea.core"
local pieces = require "marea.text.pieces"
local json_text = require "marea.internal.json_text"
local message_of = require "spec.support.message_of"
local folder = require "spec.support.folder"
local BytePair = marea.text.BytePair

teardown(folder.remove)

local TEXT = "low lower lowest, slow slower; the newest is the widest: été, été! 12 123 1234\n\n  low low\tlow 😀😀"

local function pieces_of(text)
  local list = {}
  pieces(text, function(piece) list[#list + 1] = piece end)
  return list
end

--- A list with all pairs (a, b) joined, from the left.
local function joined(list, a, b)
  local out, i = {}, 1
  while i <= #list do
    local is_pair = list[i] == a and list[i + 1] == b
    out[#out + 1] = is_pair and a .. b or list[i]
    i = i + (is_pair and 2 or 1)
  end
  return out
end

local function bytes_of(text)
  local list = {}
  for i = 1, #text do list[i] = text:sub(i, i) end
  return list
end

--- Writes a text to a file in a folder of its own.
local function written(name, text)
  local path = folder.new() .. "/" .. name
  assert(marea.save_bytes(path, text))
  return path
end

describe("pieces of a text", function()
  it("are those of GPT-2's pattern", function() -- the lists are of Python's module regex
    for text, expected in pairs{
      ["I've  been'S here's"] = {"I", "'ve", " ", " been", "'", "S", " here", "'s"},
      [" \n a\t\tb  "] = {" \n", " a", "\t", "\t", "b", "  "}, ["x_y-z[0] ^2"] = {"x", "_", "y", "-", "z", "[", "0",
        "]", " ^", "2"},
      ["été²Ⅷ中文٣ あ"] = {"été", "²Ⅷ", "中文", "٣", " あ"}, ["a\u{a0}b\u{3000}\u{2003}c"] = {"a", "\u{a0}", "b",
        "\u{3000}", "\u{2003}", "c"},
      ["e\u{301}\0\127 😀!"] = {"e", "\u{301}\0\127", " 😀!"}, [""] = {}, [" "] = {" "}, ["'l'll"] = {"'", "l", "'ll"},
    } do
      assert.are.same(expected, pieces_of(text), text)
    end
  end)

  it("put together are the text", function()
    marea.seed(2)
    for _ = 1, 200 do
      local codes = {}
      for i, code in ipairs(marea.randint({12}, 1, 0x2FF):totable()) do codes[i] = utf8.char(code) end
      local text = table.concat(codes)
      assert.are.equal(text, table.concat(pieces_of(text)))
    end
  end)
end)

describe("BytePair", function()
  it("joins the most frequent pair, one after the other", function()
    local bp = BytePair{{TEXT}, size = 290}
    local words = {}
    for i, piece in ipairs(pieces_of(TEXT)) do words[i] = bytes_of(piece) end
    for n = 257, #bp do
      local counts, most = {}, 0
      for _, word in ipairs(words) do
        for i = 1, #word - 1 do
          local key = word[i] .. "|" .. word[i + 1]
          counts[key] = (counts[key] or 0) + 1
          most = math.max(most, counts[key])
        end
      end
      local bytes, found = bp:decode{n}, nil
      for cut = 1, #bytes - 1 do
        local a, b = bytes:sub(1, cut), bytes:sub(cut + 1)
        if counts[a .. "|" .. b] == most then found = {a, b} end
      end
      assert.is_truthy(found, ("%d joins %q, which is not the most frequent"):format(n, bytes))
      for i, word in ipairs(words) do words[i] = joined(word, found[1], found[2]) end
    end
    assert.is_true(#bp > 270)
    local text = {}
    for _, number in ipairs(bp:encode(TEXT)) do text[#text + 1] = bp:decode{number} end
    local expected = {}
    for _, word in ipairs(words) do table.move(word, 1, #word, #expected + 1, expected) end
    assert.are.same(expected, text) -- the merges, in their order, are what training did
  end)

  it("gives any text back", function()
    local bp = BytePair{{TEXT}, size = 280, special = {"<pad>", "<eos>"}}
    for _, text in ipairs{TEXT, "", "\0\1\127", "日本語 text", "<pad", "  \n "} do
      assert.are.equal(text, bp:decode(bp:encode(text)))
      assert.are.equal(text, bp:decode(marea.tensor(#text > 0 and bp:encode(text) or {}, {dtype = "i64"})))
    end
    local again = BytePair{{TEXT}, size = 280, special = {"<pad>", "<eos>"}}
    assert.are.same(bp:encode(TEXT), again:encode(TEXT))
  end)

  it("knows special texts", function()
    local bp = BytePair{{TEXT}, size = 270, special = {"<pad>", "<eos>", "<eos>2"}}
    assert.are.same({1, 2, nil}, {bp:number "<pad>", bp:number "<eos>", bp:number "low"})
    local numbers = bp:encode "a<eos>b<eos>2<pad>"
    assert.are.same({2, 3, 1}, {numbers[2], numbers[4], numbers[5]})
    assert.are.same({"ab", "a<eos>b<eos>2<pad>"}, {bp:decode(numbers), bp:decode(numbers, {special = true})})
    assert.are.equal(5, #bp:encode("<eos>", {special = false}))
    assert.are.same({2, 2, 3, 1, 2}, bp:encode "<eos><eos><eos>2<pad><eos>")
  end)

  it("needs time in proportion to a text with many special texts", function()
    local bp = BytePair{{TEXT}, size = 270, special = {"<pad>", "<eos>"}}
    local function seconds(n)
      local text, least = ("low <eos>"):rep(n), math.huge
      for _ = 1, 3 do
        local before = os.clock()
        bp:encode(text)
        least = math.min(least, os.clock() - before)
      end
      return least
    end
    assert.is_true(seconds(32000) < 40 * seconds(2000)) -- 16 times the text; the square would be 256
  end)

  it("takes no more memory with every new word", function()
    local bp = BytePair{{"low lower lowest slow"}, size = 260}
    local first = bp:encode "lowest"
    bp:encode(("x"):rep(1000000))
    local function grown(from)
      collectgarbage()
      local before = collectgarbage "count"
      for i = from, from + 70000 do bp:encode("n" .. i) end
      collectgarbage()
      return collectgarbage "count" - before
    end
    grown(1)
    assert.is_true(grown(1000000) < 4096) -- KB; 70,000 words take some 20 MB
    assert.are.same(first, bp:encode "lowest")
  end)

  it("stops where no pair is frequent enough", function()
    assert.are.equal(256, #BytePair{{"abc"}})
    assert.are.equal(258, #BytePair{{"abc"}, min_count = 1})
  end)

  it("refuses broken UTF-8 and numbers that are none, with their places", function()
    local bp = BytePair{{TEXT}, size = 260}
    assert.matches("encode: argument 'text': byte 3, 0xff, is no UTF%-8", message_of(function() bp:encode "ab\xff" end))
    assert.matches("BytePair: argument 'texts%[1%]': byte 1, 0x80, is no UTF%-8",
      message_of(function() BytePair{{"\x80"}} end))
    assert.matches("decode: number 2 is 999, expected 1 to 260", message_of(function() bp:decode{1, 999} end))
    assert.matches("argument 'size': expected an integer of at least 257",
      message_of(function() BytePair{{TEXT}, size = 256, special = {"<pad>"}} end))
    assert.matches("special%[2%] is empty, or comes twice",
      message_of(function() BytePair{{TEXT}, special = {"a", "a"}} end))
  end)

  it("comes back from its file", function()
    local bp = BytePair{{TEXT}, size = 280, special = {"<eos>"}}
    local path = folder.new() .. "/tokenizer.json"
    assert.is_true(bp:save(path))
    local again = assert(BytePair.load(path))
    assert.are.same({#bp, bp:encode(TEXT .. "<eos>")}, {#again, again:encode(TEXT .. "<eos>")})
    assert.are.equal(0, core.json(folder.read(path)).model.vocab["<eos>"]) -- from where Hugging Face's library has it
    assert.matches("the special text 'low' is a piece, too",
      message_of(function() BytePair{{TEXT}, size = 280, special = {"low"}}:save(path) end))
  end)
end)

describe("files of tokenizers", function()
  --- The vocab of all bytes, as GPT-2 writes them, and of `more`.
  local function vocab(more)
    local path = folder.new() .. "/t.json"
    assert(BytePair{{""}}:save(path))
    local file <close> = assert(io.open(path))
    local t = core.json(file:read "a")
    for letters, id in pairs(more) do t.model.vocab[letters] = id end
    return t
  end

  it("of GPT-2 are read, with numbers from 1", function()
    local words = vocab{["Ġl"] = 256, ["ow"] = 257, ["Ġlow"] = 258, ["<|endoftext|>"] = 259}.model.vocab
    assert.are.same({0, 93, 187, 188, 220, 198},
      {words["!"], words["~"], words["ÿ"], words["Ā"], words["Ġ"], words["Ċ"]})
    local bp = assert(BytePair.load(written("vocab.json", json_text(words)),
      written("merges.txt", "#version: 0.2\nĠ l\no w\nĠl ow\n")))
    assert.are.same({259, 76, 258, 260, 1}, bp:encode " lowlow<|endoftext|>!")
    assert.are.equal(" lowlow!", bp:decode(bp:encode " lowlow<|endoftext|>!"))
  end)

  it("give the numbers that Hugging Face's library gives", function() -- spec/golden/make_tokenizer.py
    local bp = assert(BytePair.load "spec/golden/tokenizer.json")
    local cases = assert(core.json(folder.read "spec/golden/tokenizer_ids.json"))
    assert.is_true(#cases > 50)
    for _, case in ipairs(cases) do
      local ids = bp:encode(case.text)
      for i, number in ipairs(ids) do ids[i] = number - 1 end
      assert.are.same(case.ids, ids, case.text)
      assert.are.equal(case.text, bp:decode(bp:encode(case.text), {special = true}))
    end
  end)

  it("of Hugging Face are read with merges of both forms, and refused when they are of another kind", function()
    local t = vocab{["ab"] = 256}
    for _, merges in ipairs{{"a b"}, {{"a", "b"}}} do
      t.model.merges = merges
      assert.are.same({257, 65}, assert(BytePair.load(written("t.json", json_text(t)))):encode "aba")
    end
    local function refused(change, expected)
      local other = vocab{["ab"] = 256}
      change(other)
      local got, message = BytePair.load(written("t.json", json_text(other)))
      assert.is_nil(got)
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    refused(function(o) o.model.type = "Unigram" end, "the model is not BPE")
    refused(function(o) o.model.byte_fallback = true end, "'byte_fallback' of the model is not supported")
    refused(function(o) o.normalizer = {type = "NFC"} end, "a normalizer is not supported")
    refused(function(o) o.pre_tokenizer = {type = "Whitespace"} end, "the pre_tokenizer is not ByteLevel")
    refused(function(o) o.model.merges = {"a b", "a c"} end, "merge 2 is not of two texts in vocab")
    refused(function(o) o.model.vocab["a"] = -1 end, "the number of 'a' is none")
    refused(function(o) o.model.vocab["a b"] = 300 end, "'a b' in vocab does not stand for bytes")
    refused(function(o) o.added_tokens = {{id = 300, content = "<m>", lstrip = true}} end,
      "'lstrip' of the added token")
    refused(function(o) o.added_tokens = {5} end, "an added token without a number or a text")
    local got, message = BytePair.load(written("t.json", "{"))
    assert.is_nil(got)
    assert.matches("t.json: json: not JSON at byte 1: .*line 1, column 1", message)
    assert.is_nil((BytePair.load "missing.json"))
  end)
end)

local texts = os.getenv "MAREA_TEXT"
local path = texts and texts .. "/tinyshakespeare.txt.gz"
local there = path and io.open(path)
if there then
  there:close()
  it("tinyshakespeare is encoded in less than half of its bytes, and comes back", function()
    local file <close> = assert(io.popen("gzip -dc '" .. path .. "'"))
    local text = file:read "a"
    local bp = BytePair{{text}, size = 1000}
    local numbers = bp:encode(text)
    assert.is_true(#numbers < #text / 2)
    assert.are.equal(text, bp:decode(numbers))
  end)
end
