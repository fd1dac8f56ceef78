-- SPDX-License-Identifier: MIT
-- scripts/qa.lua as a user runs it, and the stories that it makes up.
local marea = require "marea"
local folder = require "spec.support.folder"
local script = require "spec.support.script"

teardown(folder.remove)

describe("qa.lua", function()
  local out, texts = folder.new(), folder.new()
  local scan = {}
  for i = 1, 40 do
    local n = i % 3 + 1
    scan[i] = ("IN: walk %s OUT: %s"):format(("twice "):rep(n), ("I_WALK "):rep(2 * n))
  end
  scan = table.concat(scan, "\n")
  folder.write(texts .. "/scan-simple-train.txt", scan)
  folder.write(texts .. "/scan-simple-test.txt", scan)
  local squad = {}
  for i = 1, 40 do
    local answer = ("the U.S. %d"):format(i % 4)
    squad[i] = ('{"context": "%s", "qas": [{"question": "What isn\'t %d?", "answers": [%s]}]}'):format(answer, i,
      ('{"text": "%s", "answer_start": 0}'):format(answer))
  end
  squad = ('{"data": [{"title": "T", "paragraphs": [%s]}]}'):format(table.concat(squad, ","))
  folder.write(texts .. "/squad-train-v1.1.json", squad)
  folder.write(texts .. "/squad-dev-v1.1.json", squad)
  local here, without = "MAREA_TEXT=" .. texts, "MAREA_TEXT=/nowhere"

  --- Runs it to its end, then again, killed and resumed: the same bits, whatever the threads. Returns folder and text.
  local function resumed(name, arguments)
    local whole, killed = ("%s/%s"):format(out, name), ("%s/killed_%s"):format(out, name)
    arguments = ("scripts/qa.lua --smoke %s --out "):format(arguments)
    local text = script.run(arguments .. whole, without)
    folder.lua_killed(arguments .. killed .. " --threads 1", killed .. "/qa.safetensors", without)
    local again = script.run(arguments .. killed .. " --resume", without)
    assert.is_nil(again:find "epoch 1/2")
    assert.are.equal(folder.read(whole .. "/qa.safetensors"), folder.read(killed .. "/qa.safetensors"))
    local rows = assert(marea.metrics.read(whole .. "/metrics.csv"))
    assert.is_true(#rows == 2 and rows[2].loss < rows[1].loss)
    return whole, text
  end

  it("tries each kind of question without a file", function()
    local place, text = resumed("scan", "--data scan --batch 8 --lr 0.02")
    assert.is_truthy(text:find "30 questions of the test: [%d.]+ %% are answered exactly", text)
    script.has_pictures(place, "training_curve")
    place, text = resumed("squad", "--batch 8 --lr 0.02")
    assert.is_truthy(text:find "30 questions of the test: exact match [%d.]+ %%, F1 [%d.]+ %%", text)
    script.has_pictures(place, "training_curve attention1")
  end)

  --- What a run of one epoch over the files prints.
  local function whole_run(arguments)
    return script.run(("scripts/qa.lua --epochs 1 --out %s/files %s"):format(out, arguments), here)
  end

  it("answers SCAN's commands", function()
    local text = whole_run "--data scan"
    assert.is_truthy(text:find("32 questions to learn from", 1, true), text)
    assert.is_truthy(text:find "40 questions of the test: [%d.]+ %% are answered exactly", text)
  end)

  it("learns from as few examples as it is told, and is judged by all", function()
    local few, code = folder.lua(("scripts/qa.lua --data babi --examples 1 --out %s/few"):format(out))
    assert.are.equal(1, code)
    assert.is_truthy(few:find("too few questions: four fifths of them are learned from, so 2 is the least", 1, true),
      few)
    local text = whole_run "--data scan --examples 7"
    assert.is_truthy(text:find("7 questions to learn from", 1, true), text)
    assert.is_truthy(text:find("40 questions of the test", 1, true), text)
  end)

  it("answers SQuAD's questions as the notebook does, drawn", function()
    local text = whole_run "--data squad"
    assert.is_truthy(text:find "40 questions of the test: exact match [%d.]+ %%, F1 [%d.]+ %%", text)
    -- of 40 answers "the U.S. N" 10 are with 0, the others share one of two words with it, articles left out
    assert.is_truthy(text:find("always 'the U.S. 0', training's commonest answer: exact match 25.00 %, F1 62.50 %", 1,
      true), text)
  end)

  it("answers questions about stories, with either attention", function()
    for _, attention in ipairs{"bahdanau", "notebook"} do
      local text = script.run(
        ("scripts/qa.lua --smoke --data babi --attention %s --task 3 --epochs 1 --out %s/babi"):format(attention, out))
      assert.is_truthy(text:find "30 questions of the test: [%d.]+ %% are answered exactly", text)
    end
  end)

  it("answers questions about stories with a memory network, and draws where its hops look", function()
    local place, text = resumed("memory", "--data babi --attention memory --task 2 --batch 8")
    assert.is_truthy(text:find "30 questions of the test: [%d.]+ %% are answered exactly", text)
    script.has_pictures(place, "training_curve attention1")
    local code
    text, code = folder.lua("scripts/qa.lua --smoke --data babi --attention memory --task 2 --seed 2 --resume --out "
      .. place)
    assert.are.equal(1, code)
    assert.is_truthy(text:find("qa.safetensors: was trained with other words of ", 1, true), text)
  end)

  it("has the notebook's parameters, layer by layer", function()
    local model = dofile "scripts/qa_model.lua".notebook{inputs = 39476, outputs = 47423, length = 47, stop = 1,
      embedding = 64, hidden = 128, dropout = 0.2}
    local sums = {}
    for name, t in model:named_parameters() do
      local layer = name:match "^[^.]+"
      sums[layer] = (sums[layer] or 0) + t:numel()
    end
    assert.are.same({embedding = 2526464, encoder = 99328, attention = 6063, decoder = 132096, head = 6117567}, sums)
    assert.are.equal(8881518, (model:count()))
  end)

  it("attends as the notebook does: the largest of 60 weights is below .112", function()
    local model = dofile "scripts/qa_model.lua".notebook{inputs = 9, outputs = 9, length = 5, stop = 1, embedding = 4,
      hidden = 8, dropout = 0}
    local hidden, weights = model(marea.randint({2, 60}, 1, 9))
    assert.are.same({{2, 5, 8}, {2, 5, 60}}, {hidden.shape, weights.shape})
    assert.is_true(weights:max():item() <= math.exp(1) / (math.exp(1) + 59 / math.exp(1)))
    assert.is_true((weights:sum(3) - 1):abs():max():item() < 1e-5)
  end)

  it("takes the loss of Bahdanau's over the words and ends of answers, none of the padding", function()
    marea.seed(3)
    local model = dofile "scripts/qa_model.lua".bahdanau{inputs = 9, outputs = 7, length = 4, begin = 1, stop = 2,
      embedding = 4, hidden = 8, dropout = 0, spread = 0.5}
    local input = marea.tensor({{5, 6, 7}, {8, 1, 1}}, {dtype = "i64"})
    local lengths = marea.tensor({3, 1}, {dtype = "i64"})
    local output = marea.tensor({{4, 5, 2, 2}, {2, 2, 2, 2}}, {dtype = "i64"})
    local loss, n = model:loss(input, lengths, output, marea.tensor({3, 1}, {dtype = "i64"}))
    local hidden = model(input, lengths, output)
    local logits = model.head(hidden):log_softmax(3):totable()
    local expected = logits[1][1][4] + logits[1][2][5] + logits[1][3][2] + logits[2][1][2]
    assert.are.equal(4, n)
    assert.is_true(math.abs(loss:item() + expected / 4) < 1e-5)
    local single = model:answer(input:narrow(1, 2, 1), lengths:narrow(1, 2, 1), 0)
    assert.are.same(single[1], model:answer(input, lengths, 0)[2])
  end)

  it("splits words as the Penn Treebank does", function()
    local words = dofile "scripts/qa_data.lua".words
    assert.are.same({"does", "n't", "it", "'s", "the", "$", "3", ",", "i.e.", "1,000", "(", "or", "so", ")", "?"},
      words "doesn't it's the $3, i.e. 1,000 (or so)?")
    assert.are.same({"the", "U.S.", "of", "A.", "is", "big", "."}, words "the U.S. of A. is big.")
    assert.are.same({}, words " ")
  end)

  it("explains itself, and what is wrong", function()
    script.explains("scripts/qa.lua", "data attention hops tying linear task examples epochs batch lr dropout "
      .. "temperature reader seed")
    script.fails("scripts/qa.lua --data scans", "must be one of 'squad', 'scan', 'babi'")
    script.fails("scripts/qa.lua --attention memory --data scan", "try --data babi")
    script.fails("scripts/qa.lua --attention memory --data babi --dropout 0.1", "has no --dropout")
    script.fails("scripts/qa.lua --data babi --hops 2", "--hops is for --attention memory")
    script.fails("scripts/qa.lua --attention memory --data babi --linear 2", "expected a number from 0 to 1, got '2'")
    local _, message = pcall(dofile "scripts/options.lua".text_file, "none.txt", "text")
    assert.are.equal("no file none.txt in $MAREA_TEXT or data/text; `make text` gets it", message)
    script.fails("scripts/qa.lua --data babi --smoke --resume --out " .. out .. "/none", "none/qa.safetensors")
  end)

  it("starts qa_reader.lua beside it for --reader", function()
    local place = folder.new()
    folder.must(("cp scripts/qa.lua %s"):format(place))
    folder.write(place .. "/qa_reader.lua", "print('reader', #arg, arg[2])")
    assert.are.equal("reader\t2\t--help\n", (folder.lua(place .. "/qa.lua --reader --help")))
  end)
end)

describe("stories of qa_babi.lua", function()
  local babi = dofile "scripts/qa_babi.lua"

  it("are the same for the same seed", function()
    assert.are.same(babi.draw(2, 50, 4), babi.draw(2, 50, 4))
    assert.are_not.same(babi.draw(2, 50, 4), babi.draw(2, 50, 5))
    assert.are.equal(37, #babi.draw(3, 37, 1).questions)
  end)

  --- The rooms of people and the paths of things, from the sentences alone.
  local function follow(words)
    local room, path, holder, sentence = {}, {}, {}, {}
    local function note(thing, place)
      local list = path[thing] or {}
      path[thing] = list
      if list[#list] ~= place then list[#list + 1] = place end
    end
    for _, word in ipairs(words) do
      if word ~= "." then table.insert(sentence, word)
      else
        local line, who, last = table.concat(sentence, " "), sentence[1], sentence[#sentence]
        if line:find "moved to" or line:find "went" or line:find "journeyed" or line:find "travelled" then
          assert.are_not.equal(room[who], last)
          room[who] = last
          for thing, person in pairs(holder) do
            if person == who then note(thing, last) end
          end
        elseif line:find "took" or line:find "got" or line:find "grabbed" or line:find "picked up" then
          assert.is_nil(holder[last], "two have it")
          local list = path[last]
          assert.is_true(not list or list[#list] == room[who], "it lies elsewhere")
          holder[last] = who
          note(last, room[who])
        else
          assert.are.equal(who, holder[last])
          holder[last] = nil
        end
        sentence = {}
      end
    end
    return room, path, table.concat(sentence, " ")
  end

  for task = 1, 3 do
    it(("give the answers of task %d"):format(task), function()
      local drawn = babi.draw(task, 500, 11)
      for i, words in ipairs(drawn.questions) do
        local room, path, question = follow(words)
        local answer
        if task == 1 then answer = room[question:match "^where is (%a+)$"]
        elseif task == 2 then
          local list = path[question:match "^where is the (%a+)$"]
          answer = list[#list]
        else
          local thing, before = question:match "^where was the (%a+) before the (%a+)$"
          for k, place in ipairs(path[thing]) do
            if place == before then answer = path[thing][k - 1] end
          end
        end
        assert.are.same({answer}, drawn.answers[i], table.concat(words, " "))
      end
    end)
  end
end)
