-- SPDX-License-Identifier: MIT
-- marea.text: words, characters, vocabularies, padded batches and batches by length.
local marea = require "marea"
local core = require "marea.core"
local json_text = require "marea.internal.json_text"
local message_of = require "spec.support.message_of"
local folder = require "spec.support.folder"
local text, data = marea.text, marea.data

teardown(folder.remove)

local BROKEN = {{"a\xff", 2}, {"\xc3", 1}, {"ok\xc0\xaf", 3}, {"é\xed\xa0\x80", 3}, {"\xf4\x90\x80\x80", 1},
  {"ab\x80", 3}}

describe("characters", function()
  it("are whole, however many bytes they have", function()
    local s = "aé€😀\0\n"
    assert.are.same({"a", "é", "€", "😀", "\0", "\n"}, text.characters(s))
    assert.are.equal(s, table.concat(text.characters(s)))
    assert.are.same({}, text.characters "")
  end)

  it("and words are of UTF-8; the first byte that is none is named", function()
    for _, case in ipairs(BROKEN) do
      for _, name in ipairs{"characters", "words"} do
        local message = message_of(function() text[name](case[1]) end)
        assert.is_truthy(message:find(("%s: argument 'text': byte %d, 0x"):format(name, case[2]), 1, true), message)
      end
    end
  end)
end)

describe("words", function()
  it("are runs of letters and digits; other characters are words by themselves", function()
    assert.are.same({"Isn", "'", "t", "it", "3", ".", "5", "naïve_x", "?", "!"}, text.words "Isn't it\t3.5\nnaïve_x?!")
    assert.are.same({"abc", "É", "?"}, text.words("ABC É?", {lower = true}))
    assert.are.same({}, text.words " \n")
  end)
end)

describe("a vocabulary", function()
  local ROSE = {{"a", "rose", "is"}, {"a", "rose"}, {"is", "a", "flower"}}

  it("numbers words by frequency, those of one frequency by their bytes, behind the special ones", function()
    local v = text.Vocabulary{ROSE}
    assert.are.same({1, 2, nil}, {v.padding, v.unknown, v.begin})
    assert.are.equal(6, #v)
    local words = {}
    for i = 1, 6 do words[i] = v:word(i) end
    assert.are.same({"<pad>", "<unk>", "a", "is", "rose", "flower"}, words)
    assert.are.same({3, 2, 6}, v:encode{"a", "tulip", "flower"})
  end)

  it("leaves out what is rare or too much", function()
    assert.are.equal(5, #text.Vocabulary{ROSE, min_count = 2})
    assert.are.equal(3, #text.Vocabulary{ROSE, most = 3})
    assert.are.same({"<s>", "b"}, text.Vocabulary{counts = {a = 1, b = 2}, min_count = 2, padding = false,
      unknown = false, begin = "<s>"}:decode({1, 2}, {special = true}))
    assert.are.same({2, 1}, text.Vocabulary{words = {"b", "a"}, padding = false, unknown = false}:encode{"a", "b"})
  end)

  it("puts begin and stop at the ends, and ends texts at stop", function()
    local v = text.Vocabulary{ROSE, begin = true, stop = true}
    local numbers = v:encode({"rose", "x"}, {begin = true, stop = true})
    assert.are.same({3, 7, 2, 4}, numbers)
    assert.are.same({"rose", "<unk>"}, v:decode(marea.tensor({3, 7, 2, 4, 7, 1}, {dtype = "i64"})))
    assert.are.same({"<bos>", "rose", "<eos>", "<pad>"}, v:decode({3, 7, 4, 1}, {special = true}))
  end)

  it("comes back from its state and from a file", function()
    local words = {"a", "b\n\"\\\0\127", "é😀", "<unk>"}
    local v = text.Vocabulary{words = words, stop = true, padding = false}
    local path = folder.new() .. "/words.json"
    assert.is_true(v:save(path))
    for _, w in ipairs{text.Vocabulary.from_state(v:state()), text.Vocabulary.load(path)} do
      assert.are.equal(v:state(), w:state())
      assert.are.same({1, 2, 3, 4, 5}, w:encode{"<unk>", "<eos>", words[1], words[2], words[3]})
      assert.are.same({nil, 1, 2}, {w.padding, w.unknown, w.stop})
    end
    local _, texts = (function()
      assert(marea.save(path, {}, {vocabulary = v:state()}))
      return assert(marea.load(path))
    end)()
    assert.are.equal(v:state(), texts.vocabulary)
    for _, bad in ipairs{"", "{", "[]", '{"words":[1]}', '{"words":["a","a"]}', '{"words":["a"],"stop":2}'} do
      local got, message = text.Vocabulary.from_state(bad)
      assert.is_nil(got)
      assert.matches("no vocabulary: ", message)
    end
    assert.is_nil((text.Vocabulary.load(path .. ".missing")))
  end)

  it("names the place of what it does not know", function()
    local v = text.Vocabulary{ROSE, unknown = false}
    assert.matches("encode: word 2, 'tulip', is not in the vocabulary",
      message_of(function() v:encode{"a", "tulip"} end))
    assert.matches("decode: number 2 is 99, expected 1 to 5", message_of(function() v:decode{1, 99} end))
    assert.matches("the vocabulary has no word for 'stop'", message_of(function() v:encode({}, {stop = true}) end))
    assert.matches("two special words are '<x>'", message_of(function() text.Vocabulary{ROSE, begin = "<x>",
      stop = "<x>"} end))
    assert.matches("argument '1%[2%]%[1%]': expected a string, got 3",
      message_of(function() text.Vocabulary{{{"a"}, {3}}} end))
  end)
end)

describe("pad", function()
  it("makes one tensor of lists of any length", function()
    local x, lengths = text.pad{{5, 6, 7}, {}, {8}}
    assert.are.same({{5, 6, 7}, {1, 1, 1}, {8, 1, 1}}, x:totable())
    assert.are.same({3, 0, 1}, lengths:totable())
    assert.are.same({"i64", "i64"}, {x.dtype, lengths.dtype})
    assert.are.same({{5, 9, 9}}, (text.pad({{5}}, {length = 3, padding = 9})):totable())
    assert.are.same({2, 0}, (text.pad{{}, {}}).shape)
  end)

  it("names the list and the place of what is no number", function()
    assert.matches("argument 'lists%[2%]%[1%]': expected an integer, got string 'a'",
      message_of(function() text.pad{{1}, {"a"}} end))
    assert.matches("pad: list 2 has 3 numbers, a row has 2",
      message_of(function() text.pad({{1}, {1, 2, 3}}, {length = 2}) end))
  end)

  it("is undone by trim, as far as a batch allows", function()
    local x, lengths = text.pad({{1, 2}, {3}}, {length = 5})
    local short = text.trim(x, lengths)
    assert.are.same({{1, 2}, {3, 1}}, short:totable())
    assert.is_true(short:shares(x))
    assert.matches("trim: row 2 has length 7, expected 0 to 5, the columns of x",
      message_of(function() text.trim(x, marea.tensor({1, 7}, {dtype = "i64"})) end))
  end)
end)

describe("batches by length", function()
  local ROWS, SIZE = 700, 8

  local function dataset()
    local lists = {}
    for i = 1, ROWS do
      lists[i] = {}
      for k = 1, i * 37 % 41 do lists[i][k] = i end
    end
    local x, n = text.pad(lists)
    return data.Dataset{{"x", x}, {"n", n}, {"row", marea.arange(1, ROWS, {dtype = "i64"})}, seed = 5}
  end

  --- The rows of each batch as a text, from a pass that stops behind `last` batches.
  local function batches(set, options, last)
    local list = {}
    for _, _, row in set:batches(SIZE, options) do
      list[#list + 1] = table.concat(row:totable(), " ")
      if #list == last then break end
    end
    return list
  end

  it("have every row once, little padding, and another order each epoch", function()
    local set, seen, used, padded = dataset(), {}, 0, 0
    for x, n, row in set:batches(SIZE, {shuffle = true, by_length = "n"}) do
      for _, r in ipairs(row:totable()) do
        assert.is_nil(seen[r])
        seen[r] = true
      end
      used, padded = used + n:sum():item(), padded + text.trim(x, n):numel()
    end
    assert.are.equal(ROWS, #seen)
    assert.is_true(used / padded > 0.95, used / padded)
    local options = {shuffle = true, by_length = "n"}
    local second, third = batches(set, options), batches(set, options)
    assert.are_not.same(second, third)
    table.sort(second)
    table.sort(third)
    assert.are_not.same(second, third) -- not only the order of the batches
  end)

  it("come again with the seed, for any number of threads, and go on where a pass ended", function()
    local options, threads = {shuffle = true, by_length = "n", epoch = 3}, core.threads()
    local _ <close> = marea.finally(function() core.set_threads(threads) end)
    local whole = batches(dataset(), options)
    core.set_threads(1)
    assert.are.same(whole, batches(dataset(), options))
    local first, second = dataset(), dataset()
    local begun = batches(first, options, 30)
    second:load_state(first:state())
    for _, rows in ipairs(batches(second, {shuffle = true, by_length = "n"})) do begun[#begun + 1] = rows end
    assert.are.same(whole, begun)
  end)

  it("are sorted without shuffle, the shortest first", function()
    local last = 0
    for _, n in dataset():batches(SIZE, {by_length = "n"}) do
      assert.is_true(n:min():item() >= last)
      last = n:max():item()
    end
    assert.are.equal(40, last)
  end)

  it("are fine with few rows, and refuse a field that holds no lengths", function()
    local set = data.Dataset{{"x", marea.zeros(3, 2)}, {"n", marea.tensor({2, 0, 1}, {dtype = "i64"})}}
    for _, size in ipairs{1, 2, 3, 4} do
      local rows = 0
      for x in set:batches(size, {shuffle = true, by_length = "n"}) do rows = rows + #x end
      assert.are.equal(3, rows)
    end
    assert.matches("argument 'by_length': expected the name of a field of lengths",
      message_of(function() set:batches(2, {by_length = "x"}) end))
    assert.matches("there is no field 'm'", message_of(function() set:batches(2, {by_length = "m"}) end))
  end)
end)

describe("JSON", function()
  it("is read as it is written", function()
    local values = {true, false, 1, -2.5, 1e300, 2.0, math.mininteger, "", "é\n\"\\\0", {}, {1, {2, {}}},
      {a = {b = 1}, ["c d"] = {true}}}
    for _, value in ipairs(values) do
      local again, message = core.json(json_text(value))
      assert.is_nil(message)
      assert.are.same(value, again)
      assert.are.equal(math.type(value), math.type(again))
    end
    assert.are.same({a = {1, 2.5, "é😀/\t"}, c = {1, false, 2}},
      core.json ' { "a" : [ 1 , 2.5e0, "\\u00e9\\ud83d\\ude00\\/\\t" ] , "b" : null, "c": [1, null, 2] } ')
    assert.is_false((core.json "null"))
    local deep = core.json(("["):rep(100) .. ("]"):rep(100))
    for _ = 1, 99 do deep = deep[1] end
    assert.are.same({}, deep)
  end)

  it("that is none is refused with its place", function()
    for bad, place in pairs{[""] = "end of file", ["[1,]"] = "byte 4: unexpected token near '%]' %(line 1,",
      ["[1"] = "expected near end", ['{"a" 1}'] = "':' expected", ['"a'] = "premature end",
      ['"\\x"'] = "invalid escape",
      ['"\\ud800"'] = "invalid Unicode", ["01"] = "invalid token", ["[1] 2"] = "end of file expected",
      ['{"a":1,"a":2}'] =
        "a name occurs twice, before byte 10", ['["a\n"]'] = "unexpected newline",
      ["[\n\n nul]"] = "line 3, column", [("["):rep(300)] = "more than 100 lists and objects in each other",
      ["\xff"] = "unable to decode byte 0xff", ["9223372036854775808"] = "more than 64 bits", ["]"] = "unbalanced"} do
      local value, message = core.json(bad)
      assert.is_nil(value, bad)
      assert.is_truthy(message:find(place), message)
    end
    assert.matches("json: argument 'text': expected a string, got 5", message_of(function() core.json(5) end))
  end)

  it("is held by the limit of memory", function()
    local whole = "[" .. ("{},"):rep(2e5) .. "1]"
    local before = marea.memory().live
    marea.memory_limit(before + (4 << 20))
    local ok, message = pcall(core.json, whole)
    marea.memory_limit(nil)
    assert.is_false(ok)
    assert.matches("json: out of memory", message)
    assert.are.equal(200001, #core.json(whole))
  end)

  it("of a large tokenizer is read within a second", function()
    local vocabulary, merges = {}, {}
    for i = 0, 149999 do
      vocabulary[("Ġ%x"):format(i * 77)], merges[i + 1] = i, ("Ġ%x %x"):format(i, i * 77)
    end
    local whole = json_text{model = {vocab = vocabulary, merges = merges}, more = ("x"):rep(2e6)}
    local start = os.clock()
    local t = core.json(whole)
    assert.is_true(os.clock() - start < 1)
    assert.are.same({149999, merges[150000]}, {t.model.vocab[("Ġ%x"):format(149999 * 77)], t.model.merges[150000]})
  end)
end)
