-- SPDX-License-Identifier: MIT
-- scripts/qa_reader.lua and its parts: how texts are cut, how answers are scored (counted by hand), that what a
-- question gets does not depend on its batch, and the search for a span against one that tries all.
local marea = require "marea"
local folder = require "spec.support.folder"
local reader_data = dofile "scripts/qa_reader_data.lua"
local made_up = dofile "scripts/qa_reader_made_up.lua"
local score = dofile "scripts/qa_reader_score.lua"
local Reader = dofile "scripts/qa_reader_model.lua"

teardown(folder.remove)

describe("the reader's words", function()
  it("are letters, numbers and marks, with their bytes", function()
    local line = "The $1,000.50 fee—caf\u{e9}'s, 5\u{b0}C."
    local words, starts, stops = reader_data.split(line)
    assert.are.same({"The", "$", "1,000.50", "fee", "—", "caf\u{e9}", "'", "s", ",", "5", "\u{b0}", "C", "."}, words)
    for i, word in ipairs(words) do assert.are.equal(word, line:sub(starts[i], stops[i])) end
    assert.are.same({}, (reader_data.split " \n\t "))
  end)

  it("of an answer are those that it covers", function()
    local context = "In the caf\u{e9} of 1911, two Frenchmen met."
    local function answer(text, start)
      local q = {question = "Who?", context = context, answers = {{text = text, start = start}}}
      local words, letters = reader_data.vocabularies({q}, 1)
      local set = reader_data.set({q}, words, letters)
      return set:answer(1, set.start:item(), set.stop:item())
    end
    assert.are.equal("1911, two", answer("1911, two", 16))
    assert.are.equal("Frenchmen", answer("French", 26))
    assert.are.equal("met.", answer("met.", 36))
  end)
end)

describe("the reader's score", function()
  local function of(answer, ...)
    local truths = {}
    for i, text in ipairs{...} do truths[i] = {text = text} end
    return score.answer(answer, truths)
  end

  it("does not count capitals, punctuation, articles and white space", function()
    assert.are.same({"usled", "test", "theatre"}, score.words " The  U.S.-led, an \"A\" test\u{a0}theatre the")
    assert.are.same({"–b", "caf\u{e9}a", "«", "»"}, score.words "a–b caf\u{e9}a «the»") -- é is a letter, – is none
    assert.are.same({1, 1}, {of("the Broncos!", "Denver Broncos", "broncos")})
  end)

  it("is that of the best true answer", function()
    -- precision 2/3, recall 2/2: 2 * 2/3 / (5/3) = 0.8; against the second one 1/3, 1/4: 2/7
    local exact, f1 = of("Denver Broncos team", "Denver Broncos", "a very good team indeed")
    assert.are.equal(0, exact)
    assert.is_near(0.8, f1, 1e-12)
  end)

  it("counts a word as often as both have it", function()
    local _, f1 = of("new new york", "New York New Jersey") -- 3 of 3, 3 of 4
    assert.is_near(6 / 7, f1, 1e-12)
    _, f1 = of("go go go", "go") -- 1 of 3, 1 of 1
    assert.is_near(0.5, f1, 1e-12)
    assert.are.same({0, 0}, {of("", "x")})
    assert.are.same({0, 0}, {of("x y", "z")})
  end)
end)

describe("the reader's batches", function()
  local questions = made_up(60, 3)
  questions[61] = {question = "Which rose?", context = ("A long one. "):rep(40),
    answers = {{text = "long", start = 3}}}
  local words, letters = reader_data.vocabularies(questions, 1)

  it("hold the words of their texts, the answers, and what is matched", function()
    local set = reader_data.set(questions, words, letters)
    local seen = 0
    for first, lengths, question, count in set.rows:batches(4, {shuffle = true, by_length = "lengths"}) do
      local batch = set:batch(first, lengths, question, count)
      local p, word = batch.p:totable(), batch.word:totable()
      for i, k in ipairs(batch.numbers) do
        local q, row = set.questions[k].question, batch.row:totable()[i]
        local split = reader_data.split(q.context)
        assert.are.equal(#split, batch.p_lengths:totable()[row])
        for t, w in ipairs(split) do assert.are.equal(w:lower(), words:word(word[p[row][t]])) end
        for t = #split + 1, #p[row] do assert.are.equal(words.padding, word[p[row][t]]) end
        assert.are.equal(q.answers[1].text, set:answer(k, batch.start:totable()[i], batch.stop:totable()[i]))
        seen = seen + 1
      end
    end
    assert.are.equal(61, seen)
  end)

  it("leave out what is too long, and have no more than five questions of a paragraph in a row", function()
    assert.are.equal(60, #reader_data.set(questions, words, letters, 100))
    local many = {}
    for i = 1, 12 do many[i] = {question = "Who " .. i, context = "He did.", answers = {{text = "He", start = 1}}} end
    local set = reader_data.set(many, words, letters)
    assert.are.same({5, 5, 2}, set.rows:field "count":totable())
    assert.are.same({1, 6, 11}, set.rows:field "question":totable())
  end)

  it("give a question the same answer whatever stands beside it", function()
    marea.seed(4)
    local set = reader_data.set(questions, words, letters)
    local model = Reader{words = #words, letters = #letters, unknown = words.unknown, shapes = reader_data.SHAPES,
      size = 8, dropout = 0.5}:evaluate()
    local last = #set.rows
    marea.no_grad(function()
      local alone, _ = model(set:batch(set.rows:rows{1}))
      local beside, behind = model(set:batch(set.rows:rows{1, last}))
      local n, t = alone:size(1), alone:size(2)
      assert.is_true(beside:size(2) > t)
      assert.is_true((alone - beside:narrow(1, 1, n):narrow(2, 1, t)):abs():max():item() < 1e-5)
      assert.are.equal(-math.huge, beside:narrow(1, 1, n):narrow(2, t + 1, 1):max():item())
      assert.are.equal(-math.huge, behind:narrow(1, 1, n):narrow(2, t + 1, 1):max():item())
    end)
  end)

  it("give the likeliest span of at most so many words", function()
    marea.seed(5)
    local set = reader_data.set(questions, words, letters)
    local model = Reader{words = #words, letters = #letters, unknown = words.unknown, shapes = reader_data.SHAPES,
      size = 8, dropout = 0}:evaluate()
    for _, p in ipairs(model:parameters()) do marea.no_grad(p.mul_, p, 3) end -- so that words differ
    local batch = set:batch(set.rows:rows{1, 5})
    for _, longest in ipairs{1, 3, 100} do
      local first, last, start, stop = marea.no_grad(model.answer, model, batch, longest)
      start, stop = start:totable(), stop:totable()
      for i in ipairs(batch.numbers) do
        local best, from, to = -1, nil, nil
        for a = 1, #start[i] do
          for b = a, math.min(a + longest - 1, #start[i]) do
            if start[i][a] * stop[i][b] > best then best, from, to = start[i][a] * stop[i][b], a, b end
          end
        end
        assert.is_near(best, start[i][first[i]] * stop[i][last[i]], 1e-6 * best)
        assert.is_true(from <= to and first[i] <= last[i] and last[i] - first[i] < longest)
      end
    end
  end)
end)

describe("qa_reader.lua", function()
  local out = folder.new()
  local command = "scripts/qa_reader.lua --smoke --threads 1 --out "

  it("learns, leaves pictures and answers a question", function()
    local text, code = folder.lua(command .. out .. "/whole")
    assert.are.equal(0, code, text)
    local exact, f1 = text:match "60 questions: exact match ([%d.]+) %%, F1 ([%d.]+) %%"
    assert.is_true(tonumber(exact) > 60 and tonumber(f1) >= tonumber(exact), text)
    local a = assert(marea.metrics.read(out .. "/whole/metrics.csv"))
    assert.is_true(#a == 2 and a[2].loss < a[1].loss and a[2].f1 >= a[2].exact)
    for _, name in ipairs{"training_curve", "answer1", "answer2", "answer3"} do
      local png = assert(marea.load_png(("%s/whole/%s.png"):format(out, name)))
      assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
    end
    local paragraph = folder.write(out .. "/p.txt",
      "Emil has lived in Bern since 1922. Carl has lived in Rome since 1950. Leo has lived in Lima since 1951.")
    text, code = folder.lua(("%s%s/whole --ask 'Where does Carl live?' --paragraph %s"):format(command, out, paragraph))
    assert.are.equal(0, code, text)
    assert.are.equal("Rome\n", text)
    assert.is_truthy(folder.read(out .. "/whole/answer.png"))
  end)

  it("killed within an epoch and resumed ends with the same bits", function()
    local text, code = folder.lua(command .. out .. "/long --every 5")
    assert.are.equal(0, code, text)
    local killed = out .. "/killed"
    folder.lua_killed(command .. killed .. " --every 5", killed .. "/reader.safetensors")
    text, code = folder.lua(command .. killed .. " --every 5 --resume")
    assert.are.equal(0, code, text)
    assert.are.equal(folder.read(out .. "/long/reader.safetensors"), folder.read(killed .. "/reader.safetensors"))
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/qa_reader.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"epochs", "groups", "batch", "size", "dropout", "lr", "every", "ask", "paragraph", "seed",
      "threads", "out", "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua(command .. out .. "/none --resume")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("none/reader.safetensors", 1, true), text)
    text, code = folder.lua(command .. out .. "/none --ask 'Who?'")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("--paragraph", 1, true), text)
    text, code = folder.lua(command .. out .. "/none --paragraph " .. folder.write(out .. "/bad.txt", "Ada \xff"))
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("--paragraph wants a question", 1, true), text)
    assert.is_nil(folder.read(out .. "/none/metrics.csv"))
    for question, message in pairs{["'Who?' --paragraph " .. out .. "/bad.txt"] = "bad.txt: byte 5, 0xff, is no UTF-8",
      ["'Who?' --paragraph /"] = "/: Is a directory", ["'\xff' --paragraph README.md"] = "the question is no UTF-8",
      ["'Who?' --paragraph /dev/null"] = "/dev/null: a text without words"} do
      text, code = folder.lua(("%s%s/whole --ask %s"):format(command, out, question))
      assert.are_not.equal(0, code)
      assert.is_truthy(text:find(message, 1, true), text)
    end
    text, code = folder.lua("scripts/qa_reader.lua --out " .. out .. "/none", "MAREA_TEXT=" .. out)
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("make squad", 1, true), text)
  end)
end)
