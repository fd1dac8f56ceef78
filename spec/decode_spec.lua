-- SPDX-License-Identifier: MIT
-- marea.decode against enumeration of all rows and loops over numbers; texts from numbers that come one by one.
local marea = require "marea"
local message_of = require "spec.support.message_of"
local decode, text = marea.decode, marea.text

local V <const>, STOP <const> = 4, 4

--- A model whose logits depend on all numbers so far, and on the row that its state began with.
local function new_model(seed)
  marea.seed(seed)
  local mix, into, out = marea.normal{5, 5}, marea.normal{V, 5}, marea.normal{5, V} * 2
  return function(numbers, state)
    local h = state and state.h or marea.zeros(#numbers, 5)
    h = (h:matmul(mix) + marea.one_hot(numbers, V):to "f32":matmul(into)):tanh()
    return h:matmul(out), {h = h}
  end
end

local function ids(list) return marea.tensor(list, {dtype = "i64"}) end

--- All rows of at most `length` numbers with their scores, best first.
local function enumerate(step, first, length, alpha)
  local all = {}
  local function go(numbers, log_prob, last, state)
    local logits, after = step(ids{last}, state)
    local p = logits:log_softmax(2):totable()[1]
    for number = 1, V do
      local list, sum, n = table.move(numbers, 1, #numbers, 1, {}), log_prob + p[number], #numbers + 1
      if number ~= STOP then list[n] = number end
      if number == STOP or n == length then
        all[#all + 1] = {numbers = list, score = sum / ((5 + n) / 6) ^ alpha}
      else go(list, sum, number, after) end
    end
  end
  go({}, 0, first, nil)
  table.sort(all, function(a, b) return a.score > b.score end)
  return all
end

describe("beam search", function()
  it("that is wide enough is exhaustive, row by row", function()
    for seed = 1, 4 do
      local step = new_model(seed)
      for _, alpha in ipairs{0, 0.6, 2} do
        local found = decode.beam(step, {1, 3}, nil, {width = 30, alpha = alpha, stop = STOP, length = 3})
        for i, first in ipairs{1, 3} do
          local all = enumerate(step, first, 3, alpha)
          assert.are.equal(30, #found[i])
          for k = 1, 30 do
            assert.are.same(all[k].numbers, found[i][k].numbers)
            assert.is_true(math.abs(all[k].score - found[i][k].score) < 1e-4)
          end
        end
      end
    end
  end)

  it("of width 1 is greedy, and a narrow one finds what a loop finds", function()
    local step = new_model(9)
    local greedy = decode.greedy(step, {1, 2, 3}, nil, {length = 6})
    for i, row in ipairs(decode.beam(step, ids{1, 2, 3}, nil, {width = 1, length = 6})) do
      assert.are.same(greedy[i], row[1].numbers)
    end
    local beams = {{numbers = {}, log_prob = 0, last = 2}}
    for _ = 1, 5 do
      local all = {}
      for _, beam in ipairs(beams) do
        local logits, state = step(ids{beam.last}, beam.state)
        for number, p in ipairs(logits:log_softmax(2):totable()[1]) do
          local list = table.move(beam.numbers, 1, #beam.numbers, 1, {})
          list[#list + 1] = number
          all[#all + 1] = {numbers = list, log_prob = beam.log_prob + p, last = number, state = state}
        end
      end
      table.sort(all, function(a, b) return a.log_prob > b.log_prob end)
      beams = table.move(all, 1, 3, 1, {})
    end
    local found = decode.beam(step, 2, nil, {width = 3, length = 5})[1]
    for k = 1, 3 do assert.are.same(beams[k].numbers, found[k].numbers) end
  end)

  it("takes a function that selects the rows of a state", function()
    local step, called = new_model(5), 0
    local function select(state, rows)
      called = called + 1
      return {h = state.h:index_select(rows)}
    end
    local options = {width = 3, stop = STOP, length = 5}
    local expected = decode.beam(step, {1, 2}, nil, options)
    options.select = select
    assert.are.same(expected, decode.beam(step, {1, 2}, nil, options))
    assert.is_true(called > 0)
  end)
end)

describe("sampling", function()
  --- Draws n first numbers and holds their frequencies against probabilities.
  local function check_frequencies(logits, options, expected)
    local n = 4000
    local step = function(numbers) return marea.tensor{logits}:expand(#numbers, #logits), nil end
    options.length = 1
    local counts = {}
    for _, row in ipairs(decode.sample(step, marea.full({n}, 1, "i64"), nil, options)) do
      counts[row[1]] = (counts[row[1]] or 0) + 1
    end
    local chi = 0
    for i, p in ipairs(expected) do
      if p == 0 then assert.is_nil(counts[i])
      else chi = chi + ((counts[i] or 0) - n * p) ^ 2 / (n * p) end
    end
    assert.is_true(chi < 20, chi) -- 3 degrees of freedom: once in 5,000
  end

  local function softmax(list)
    local sum, p = 0, {}
    for i, x in ipairs(list) do
      p[i] = math.exp(x)
      sum = sum + p[i]
    end
    for i in ipairs(p) do p[i] = p[i] / sum end
    return p
  end

  it("has the probabilities of the model, the temperature, top_k and top_p", function()
    marea.seed(7)
    local logits = {0.5, 2, 1, -1}
    check_frequencies(logits, {}, softmax(logits))
    check_frequencies(logits, {temperature = 2}, softmax{0.25, 1, 0.5, -0.5})
    check_frequencies(logits, {top_k = 2}, softmax{-math.huge, 2, 1, -math.huge})
    check_frequencies(logits, {top_k = 9, top_p = 1}, softmax(logits))
    local p = softmax(logits) -- 0.137, 0.616, 0.227, 0.020
    check_frequencies(logits, {top_p = p[2] / 2}, {0, 1, 0, 0})
    check_frequencies(logits, {top_p = p[2] + 0.01}, softmax{-math.huge, 2, 1, -math.huge})
    check_frequencies(logits, {top_k = 3, top_p = 0.99, temperature = 0.5}, softmax{1, 4, 2, -math.huge})
    for _, cold in ipairs{0, 1e-300, 1e-40, 1e-19} do check_frequencies(logits, {temperature = cold}, {0, 1, 0, 0}) end
    check_frequencies(logits, {temperature = 1e-40, top_k = 2, top_p = 0.9}, {0, 1, 0, 0})
  end)

  it("gives the same numbers with the same seed, and ends rows by themselves", function()
    local step = new_model(3)
    local function drawn(seed)
      marea.seed(seed)
      return decode.sample(step, {1, 2, 3}, nil, {stop = STOP, length = 12})
    end
    local rows = drawn(5)
    assert.are.same(rows, drawn(5))
    assert.are_not.same(rows, drawn(6))
    for _, row in ipairs(rows) do
      for _, number in ipairs(row) do assert.is_true(number ~= STOP) end
    end
    marea.seed(5)
    local streamed = {{}, {}, {}}
    for numbers in decode.stream(step, {1, 2, 3}, nil, {stop = STOP, length = 12}) do
      for i, number in ipairs(numbers) do
        if number ~= STOP then table.insert(streamed[i], number) end
      end
    end
    assert.are.same(rows, streamed)
    assert.are.same({{}}, decode.sample(step, 1, nil, {length = 0}))
  end)

  it("says what is wrong with a model", function()
    local function says(expected, ...)
      local arguments = table.pack(...)
      local message = message_of(function() decode.sample(table.unpack(arguments)) end)
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    says("sample: argument 'step': expected a function", 1, 1)
    says("sample: argument 'first': expected a number, a list", function() end, "a")
    says("sample: argument 'step': expected a function that gives logits", function() end, 1)
    says("sample: step gave logits (3, 4) for 2 rows", function() return marea.ones(3, 4) end, {1, 1})
    says("sample: the logits of row 2 hold NaN", function() return marea.tensor{{1, 2}, {0 / 0, 1}} end, {1, 1})
    local function of_row_2(row) return function() return marea.tensor{{1, 2, 3}, row} end end
    local n, inf = 0 / 0, math.huge
    local bad = {{{1, n, 0}, "hold NaN"}, {{n, n, n}, "hold NaN"}, {{0, inf, 1}, "hold infinity"},
      {{-inf, -inf, -inf}, "are all -infinity, so that no number can come next"}}
    for _, case in ipairs(bad) do
      for name, options in pairs{sample = {}, greedy = {}, beam = {width = 2}} do
        local message = message_of(function() decode[name](of_row_2(case[1]), {1, 1}, nil, options) end)
        assert.is_truthy(message:find(("%s: the logits of row 2 %s"):format(name, case[2]), 1, true), message)
      end
      for _, options in ipairs{{top_k = 2}, {top_p = 0.5}, {temperature = 0.1}} do
        says("sample: the logits of row 2 " .. case[2], of_row_2(case[1]), {1, 1}, nil, options)
      end
    end
    says("argument 'top_p'", function() end, 1, nil, {top_p = 0})
    says("argument 'temperature'", function() end, 1, nil, {temperature = -1})
  end)
end)

describe("logits at the edges", function()
  local inf = math.huge

  it("that are -infinity are never drawn; large ones are drawn by their differences at any temperature", function()
    local function draws(row, options)
      options.length = 20
      return table.concat(decode.sample(function() return marea.tensor{row} end, 1, nil, options)[1])
    end
    for _, temperature in ipairs{1, 1e-10, 1e10} do
      for _, options in ipairs{{}, {top_k = 2}, {top_p = 0.9}} do
        options.temperature = temperature
        assert.are.equal(("3"):rep(20), draws({-inf, -inf, 1}, options))
        options.temperature = math.min(temperature, 1)
        assert.are.equal(("1"):rep(20), draws({1e30, 0, 1}, options))
        assert.are.equal(("2"):rep(20), draws({-3e38, 3e38, 1}, options))
      end
    end
  end)

  it("of a beam are told by the row that it belongs to", function()
    local steps = 0
    local function step(numbers) -- the beams of row 1 end; what goes on is row 2
      steps = steps + 1
      if steps == 1 then return marea.tensor{{-inf, -inf, 0}, {0, 0, -inf}} end
      return marea.full({#numbers, 3}, -inf)
    end
    local message = message_of(function() decode.beam(step, {1, 1}, nil, {width = 2, stop = 3}) end)
    assert.is_truthy(message:find("beam: the logits of row 2 are all -infinity", 1, true), message)
  end)
end)

describe("text.Stream", function()
  it("gives whole characters, and in the end all of them", function()
    local bp, s = text.BytePair{{"é😀 aé"}, size = 257}, "aé😀中\u{10FFFF}\u{A0}!"
    local stream, parts = text.Stream(bp), {}
    for _, number in ipairs(bp:encode(s)) do
      parts[#parts + 1] = stream:add(number)
      assert.is_truthy(utf8.len(parts[#parts]))
    end
    assert.are.equal("", stream:finish())
    assert.are.equal(s, table.concat(parts))
    local words = text.Stream(text.Vocabulary{{"a", "b"}})
    assert.are.equal("ba", words:add(4) .. words:add(3))
  end)

  it("replaces bytes that are part of no character", function()
    local bp = text.BytePair{{""}}
    local number_of = {}
    for i = 1, 256 do number_of[bp:decode{i}] = i end
    for bytes, expected in pairs{["\xff"] = "\u{FFFD}", ["a\xc3("] = "a\u{FFFD}(", ["\xe2\x82"] = "\u{FFFD}",
      ["\xed\xa0\x80z"] = "\u{FFFD}\u{FFFD}\u{FFFD}z", ["\xf0\x9f\x98\x80\x80"] = "😀\u{FFFD}"} do
      local stream, got = text.Stream(bp), ""
      for c in bytes:gmatch "." do got = got .. stream:add(number_of[c]) end
      assert.are.equal(expected, got .. stream:finish())
    end
    assert.matches("Stream: argument 'tokenizer'", message_of(function() text.Stream {} end))
  end)
end)
