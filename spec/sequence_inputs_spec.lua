-- SPDX-License-Identifier: MIT
-- What sequences may be given that is wrong, or empty: numbers that are no row, lengths, empty texts, texts that are no
-- UTF-8, the vocabulary of another model. Errors name the place and the value.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local folder = require "spec.support.folder"
local message_of = require "spec.support.message_of"
local nn, text = marea.nn, marea.text

local function i64(list) return marea.tensor(list, {dtype = "i64"}) end

--- f(...) raises, and the message holds the words, as they are.
local function says(words, f, ...)
  local arguments = table.pack(...)
  local message = message_of(function()
    local _ = f(table.unpack(arguments, 1, arguments.n)) -- no tail call: messages begin with this line
  end)
  assert.is_truthy(message:find(words, 1, true), message)
end

local N <const>, T <const>, C <const> = 3, 4, 6

--- name -> f(x, lengths): results (N, ...) whose rows are those of x.
local TAKES_LENGTHS <const> = {}

for _, kind in ipairs{"LSTM", "GRU", "RNN"} do
  for _, options in ipairs{{C, 2}, {C, 2, bidirectional = true, layers = 2}} do
    TAKES_LENGTHS[kind .. " " .. (options.layers or 1)] = function(x, lengths)
      marea.seed(2)
      return (nn[kind](options)(x, {lengths = lengths}))
    end
  end
end

for name, options in pairs{additive = {4, query = C, key = C}, dot = {score = "dot"},
  scaled = {score = "dot", scaled = true}, encoder = {score = "encoder", 2, key = C}} do
  TAKES_LENGTHS["Attention " .. name] = function(x, lengths)
    marea.seed(2)
    local net = nn.Attention(options)
    local context, weights
    if name == "encoder" then context, weights = net(x, {lengths = lengths})
    else context, weights = net(marea.ones(N, 2, C), x, {lengths = lengths}) end
    return marea.concat({context, weights}, 3)
  end
end

function TAKES_LENGTHS.MultiHeadAttention(x, lengths)
  marea.seed(2)
  return nn.MultiHeadAttention{C, 2, bias = false}(marea.ones(N, 2, C), x, x, {lengths = lengths})
end

function TAKES_LENGTHS.additive_attention(x, lengths)
  return marea.additive_attention(marea.ones(N, 2, C), x, marea.ones(C), lengths)
end

function TAKES_LENGTHS.scaled_dot_product_attention(x, lengths)
  local k = x:reshape(N, T, 2, C // 2)
  return marea.scaled_dot_product_attention(marea.ones(N, 2, 2, C // 2), k, k, nil, lengths)
end

describe("a row of length 0", function()
  it("is zeros in every layer, gives no gradient, and leaves the other rows alone", function()
    marea.seed(1)
    local values = marea.normal{N, T, C}
    values["2"] = 0 / 0 -- reaches nothing
    for name, f in pairs(TAKES_LENGTHS) do
      local x = values:clone():requires_grad_()
      local y = f(x, i64{4, 0, 3})
      y:square():sum():backward()
      assert.are.equal(0, y["2"]:abs():max():item(), name)
      assert.are.equal(0, x.grad["2"]:abs():max():item(), name)
      local whole = f(values:masked_fill(values:ne(values), 0), i64{4, 4, 3})
      for _, row in ipairs{"1", "3"} do
        allclose.assert(y[row]:detach(), whole[row]:detach(), {rtol = 1e-6, atol = 1e-7})
        assert.is_true(x.grad[row]:abs():max():item() > 0, name)
      end
      assert.are.equal(0, f(values, i64{0, 0, 0}):abs():max():item(), name)
    end
  end)

  it("ends with the states that it began with", function()
    local h0 = marea.normal{1, N, 2}
    for _, kind in ipairs{"LSTM", "GRU", "RNN"} do
      local _, h = nn[kind]{C, 2}(marea.normal{N, T, C}, {h0 = h0, lengths = i64{4, 0, 3}})
      allclose.assert(h["1, 2"], h0["1, 2"], {exact = true})
    end
  end)

  it("has a ctc_loss of 0 without labels and an infinite one with some", function()
    local y = marea.normal{2, T, 5}:log_softmax(3)
    local loss = marea.ctc_loss(y, i64{{2, 3}, {2, 3}}, i64{0, 0}, i64{0, 1}, {reduction = "none"})
    assert.are.same({0, math.huge}, loss:totable())
    assert.are.equal(0, marea.ctc_loss(y, i64{{2, 3}, {2, 3}}, i64{0, 0}, i64{0, 1}, {zero_infinity = true}):item())
  end)

  it("comes from pad for an empty list", function()
    local x, lengths = text.pad{{}, {5}}
    assert.are.same({{1}, {5}}, x:totable())
    assert.are.same({0, 1}, lengths:totable())
    assert.are.same({0, 0}, select(2, text.pad{{}, {}}):totable())
    assert.are.same({2, 0}, {table.unpack(text.trim(marea.zeros{2, 3}, i64{0, 0}).shape)})
  end)
end)

describe("lengths that are none", function()
  it("are refused with their row, their value and what is expected", function()
    local x = marea.normal{N, T, C}
    for name, f in pairs(TAKES_LENGTHS) do
      assert.has_no.errors(function() f(x, i64{4, 1, 3}) end, name)
      for _, wrong in ipairs{5, -1} do
        says(("row 2 has length %d, expected 0 to 4"):format(wrong), f, x, i64{4, wrong, 5})
      end
      says("argument 'lengths': expected ", f, x, i64{4, 4})
    end
    says("row 2 has length 9, expected 0 to 4", text.trim, x, i64{1, 9, 3})
    says("row 3 has length -1, expected 0 to 4", text.trim, x, i64{1, 2, -1})
    local y = x:log_softmax(3)
    says("argument 'input_lengths': row 1 has length 5, expected 0 to 4", marea.ctc_loss, y, i64{{2}, {2}, {2}},
      i64{5, 1, 1}, i64{1, 1, 1})
    says("argument 'target_lengths': row 3 has length 2, expected 0 to 1", marea.ctc_loss, y, i64{{2}, {2}, {2}},
      i64{4, 1, 1}, i64{1, 1, 2})
  end)
end)

describe("a number that is no row", function()
  it("is refused with its place", function()
    local e, sparse = nn.Embedding{4, 3}, nn.Embedding{4, 3, sparse = true}
    for _, wrong in ipairs{5, 0, -1} do
      local index = i64{{1, 2}, {3, wrong}}
      local words <const> = ("element (2, 2) of i64 (2, 2) is %d, expected 1 to 4"):format(wrong)
      says(words, e, index)
      says(words, sparse, index)
      says(words, marea.index_select, e.weight, index)
      says(words, marea.one_hot, index, 4)
      local label <const> = ("label %d at (2, 2) is out of range, expected 1..4"):format(wrong)
      says(label, marea.cross_entropy, marea.zeros(2, 2, 4), index)
      says(label, marea.linear_cross_entropy, marea.zeros(2, 2, 3), marea.zeros(3, 4), index)
      says(("label %d at {2, 2} is out of range, expected 1..4"):format(wrong), marea.ctc_loss, marea.zeros(2, 4, 4),
        i64{{2, 3}, {3, wrong}}, i64{4, 4}, i64{2, 2})
    end
    says("expected dtype i64 or u8, got f32 (2)", e, marea.ones(2))
    says("argument 'lists[2][1]': expected an integer, got string 'x'", text.pad, {{1}, {"x"}})
    says("list 2 has 3 numbers, a row has 2", text.pad, {{1}, {1, 2, 3}}, {length = 2})
  end)
end)

describe("a vocabulary of another model", function()
  local small <const> = text.Vocabulary{words = {"a", "b"}, unknown = false}
  local large <const> = text.Vocabulary{words = {"a", "b", "c", "d"}, unknown = false}

  local function net_of(vocabulary)
    return {embed = nn.Embedding{#vocabulary, 3}, out = nn.Linear{3, #vocabulary}}
  end

  it("has numbers that the table has no rows for", function()
    local x = text.pad{large:encode{"a"}, large:encode{"a", "d"}}
    says("element (2, 2) of i64 (2, 2) is 5, expected 1 to 3", net_of(small).embed, x)
    says("number 2 is 5, expected 1 to 3", small.decode, small, {2, 5})
    says("word 2, 'd', is not in the vocabulary", small.encode, small, {"a", "d"})
    local bp = text.BytePair{{"a"}}
    says("number 1 is 300, expected 1 to 256", bp.decode, bp, {300})
  end)

  it("does not fit the states and checkpoints of this one, which are named with both shapes", function()
    local model, other = net_of(small), net_of(large)
    says("weight is f32 (3, 3), expected f32 (5, 3)", other.embed.load_state, other.embed, model.embed:state())
    local path = folder.new() .. "/run.safetensors"
    assert(marea.checkpoint.save(path, {model = model, texts = {vocabulary = small:state()}}))
    local before = other.embed.weight:totable()
    local loaded, message = marea.checkpoint.load(path, {model = other})
    assert.is_nil(loaded)
    for _, words in ipairs{path, "embed.weight is f32 (3, 3), expected f32 (5, 3)",
      "out.weight is f32 (3, 3), expected f32 (3, 5)"} do
      assert.is_truthy(message:find(words, 1, true), message)
    end
    assert.are.same(before, other.embed.weight:totable())
  end)

  it("that is none is refused with what is wrong", function()
    for state, words in pairs{["{}"] = "there are no words", [""] = "not JSON", ['{"words":["a","a"]}'] = "word 2",
      ['{"words":["a",3]}'] = "word 2", ['{"words":["a"],"padding":7}'] = "'padding' is no number of a word",
      ['{"words":["a\xff"]}'] = "not JSON"} do
      local vocabulary, message = text.Vocabulary.from_state(state)
      assert.is_nil(vocabulary)
      assert.is_truthy(message:find(words, 1, true), message)
    end
  end)
end)

describe("an empty text", function()
  it("has no words, no characters and no numbers, and gives an empty batch", function()
    local bp, v = text.BytePair{{""}}, text.Vocabulary{{}}
    assert.are.same({}, text.words "")
    assert.are.same({}, text.characters "")
    assert.are.same({}, bp:encode "")
    assert.are.equal("", bp:decode{})
    assert.are.same({}, v:encode{})
    assert.are.same({}, v:decode{})
    assert.are.equal(256, #bp)
    assert.are.equal(2, #v)
    local x = text.pad{bp:encode "", bp:encode ""}
    assert.are.same({2, 0, 3}, {table.unpack(nn.Embedding{256, 3}(x).shape)})
    for _, kind in ipairs{"LSTM", "GRU", "RNN"} do
      local y, h = nn[kind]{3, 2}(marea.zeros{2, 0, 3})
      assert.are.same({2, 0, 2}, {table.unpack(y.shape)})
      assert.are.equal(0, h:abs():max():item())
    end
    local context, weights = nn.Attention{4, query = 3, key = 3}(marea.zeros{2, 1, 3}, marea.zeros{2, 0, 3})
    assert.are.equal(0, context:abs():max():item())
    assert.are.same({2, 1, 0}, {table.unpack(weights.shape)})
    assert.are.same({2, 0, 4}, {table.unpack(nn.MultiHeadAttention{4, 2}(marea.zeros{2, 0, 4}).shape)})
  end)

  it("is two empty parts of a corpus, and no batches of a list", function()
    local path = folder.write(folder.new() .. "/empty.txt", "")
    assert.are.same({"", ""}, {marea.data.corpus(path)})
    says("argument 'lists': expected a list of lists of numbers", text.pad, {})
  end)
end)

describe("a text that is no UTF-8", function()
  it("is refused with the first byte that is none", function()
    local bp = text.BytePair{{"ok"}}
    for bytes, words in pairs{["ab\xff"] = "byte 3, 0xff, is no UTF-8", ["\xc3"] = "byte 1, 0xc3, is no UTF-8",
      ["a\xed\xa0\x80"] = "byte 2, 0xed, is no UTF-8", ["\xf4\x90\x80\x80"] = "byte 1, 0xf4, is no UTF-8",
      ["\xc0\xaf"] = "byte 1, 0xc0, is no UTF-8"} do
      says(words, text.words, bytes)
      says(words, text.characters, bytes)
      says(words, bp.encode, bp, bytes)
      says("argument 'texts[2]': " .. words, text.BytePair, {{"ok", bytes}})
      local path = folder.write(folder.new() .. "/broken.txt", bytes)
      local corpus, message = marea.data.corpus(path)
      assert.is_nil(corpus)
      assert.are.equal(path .. ": " .. words, message)
      says("word 3 is no UTF-8", function() text.Vocabulary{words = {bytes}}:state() end)
    end
  end)
end)
