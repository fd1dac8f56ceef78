-- SPDX-License-Identifier: MIT
-- The memory network of scripts/qa.lua: its hops against loops, and how stories are cut into sentences.
local marea = require "marea"

local memory, stories = dofile "scripts/qa_memory.lua", dofile "scripts/qa_stories.lua"
local STORY = {{5, 6, 3, 6, 7, 9, 3, 5, 8, 3, 7, 5}, {8, 9, 3, 4, 1, 1, 1, 1, 1, 1, 1, 1}} -- 3 ends a sentence
local PARTS = {{{{5, 6}, {6, 7, 9}, {5, 8}}, {7, 5}}, {{{8, 9}}, {4}}} -- sentences and question of each

local function story_network(tying)
  marea.seed(5)
  local model = memory.Network{inputs = 9, answers = {2, 5, 8}, ends = 3, sentence = 3, memory = 4, embedding = 4,
    hops = 2, tying = tying}
  model:evaluate()
  return model, marea.tensor(STORY, {dtype = "i64"}), marea.tensor({12, 4}, {dtype = "i64"})
end

--- The vector of a sentence by the definition: sums of embeddings, times 1 + 4 (k - 2.5) (j - 2) / 12, and its age's.
local function naive(words, sentence, time)
  local v = {}
  for k = 1, 4 do
    v[k] = time and time[k] or 0
    for j, word in ipairs(sentence) do v[k] = v[k] + words[word][k] * (1 + 4 * (k - 2.5) * (j - 2) / 12) end
  end
  return v
end

local function dot(a, b)
  local sum = 0
  for k = 1, #a do sum = sum + a[k] * b[k] end
  return sum
end

--- Weights (hops, sentences) and the last u, by loops.
local function naive_hops(model, story, question, linear)
  local function rows(layer) return layer.weight:totable() end
  local adjacent, all = not model.between, {}
  local u = naive(rows(adjacent and model.words[1] or model.question), question)
  for hop = 1, 2 do
    local first, p, sum, read = adjacent and hop or 1, {}, 0, {0, 0, 0, 0}
    local a, ta = rows(model.words[first]), rows(model.times[first])
    local c, tc = rows(model.words[first + 1]), rows(model.times[first + 1])
    for i, sentence in ipairs(story) do
      p[i] = dot(naive(a, sentence, ta[#story + 1 - i]), u)
      if not linear then p[i] = math.exp(p[i]) end
      sum = sum + p[i]
    end
    for i, sentence in ipairs(story) do
      if not linear then p[i] = p[i] / sum end
      for k, value in ipairs(naive(c, sentence, tc[#story + 1 - i])) do read[k] = read[k] + p[i] * value end
    end
    local turned = adjacent and u or {}
    local columns = adjacent and {} or model.between.weight:transpose(1, 2):totable()
    for k, column in ipairs(columns) do turned[k] = dot(column, u) end
    u = {}
    for k = 1, 4 do u[k] = turned[k] + read[k] end
    all[hop] = p
  end
  return all, u
end

local function check_near(expected, got)
  for i, value in ipairs(expected) do
    assert.is_true(math.abs(value - got[i]) < 1e-5, ("%d: %g, not %g"):format(i, got[i], value))
  end
end

describe("a memory network", function()
  it("has the hops of a memory network as loops have them, linear and with softmax, tied either way", function()
    for _, tying in ipairs{"adjacent", "layers"} do
      local model, input, lengths = story_network(tying)
      for _, linear in ipairs{false, true} do
        model.linear = linear
        local hidden, weights = model(input, lengths)
        assert.are.same({{2, 4}, {2, 2, 3}}, {hidden.shape, weights.shape})
        for n, part in ipairs(PARTS) do
          local all, u = naive_hops(model, part[1], part[2], linear)
          for hop = 1, 2 do check_near(all[hop], weights[n][hop]:totable()) end
          check_near(u, hidden[n]:totable())
        end
        assert.are.equal(0, weights[2]:narrow(2, 2, 2):abs():max():item(), "no weight where there is no sentence")
      end
    end
  end)

  it("answers with one word, that of the loss", function()
    for _, tying in ipairs{"adjacent", "layers"} do
      local model, input, lengths = story_network(tying)
      local scores = model:scores((model(input, lengths)))
      local best = scores:argmax(2):totable()
      assert.are.same({{best[1]}, {best[2]}}, model:answer(input, lengths, 0))
      local output = marea.tensor({{3, 1}, {2, 1}}, {dtype = "i64"})
      local loss, n = model:loss(input, lengths, output)
      local logs = scores:log_softmax(2):totable()
      assert.are.equal(2, n)
      assert.is_true(math.abs(loss:item() + (logs[1][3] + logs[2][2]) / 2) < 1e-5)
      local rows = model.words[#model.words].weight
      if tying == "adjacent" then check_near({dot(rows[8]:totable(), model(input, lengths)[1]:totable())},
        {scores[1][3]:item()}) end
    end
  end)

  it("looks at the last sentences, has empty memories in training alone, and a story of none", function()
    local model, input, lengths = story_network "adjacent"
    model.memory = 2
    local hidden, weights = model(input, lengths)
    assert.are.same({2, 2, 2}, weights.shape)
    local later = marea.tensor({{6, 7, 9, 3, 5, 8, 3, 7, 5}}, {dtype = "i64"})
    check_near(model(later, marea.tensor({9}, {dtype = "i64"}))[1]:totable(), hidden[1]:totable())
    model.memory = 4
    local seen = {}
    model:train()
    for _ = 1, 60 do
      local _, age = stories.batch(input, lengths, model)
      local row = age[1]:totable()
      assert.is_true(row[1] > row[2] and row[2] > row[3] and row[3] >= 1 and row[1] <= 4)
      seen[table.concat(row)] = true
    end
    local count = 0
    for _ in pairs(seen) do count = count + 1 end
    assert.are.equal(4, count) -- ways to leave one of four ages out
    model:evaluate()
    assert.are.same({{3, 2, 1}, {1, 1, 1}}, (select(2, stories.batch(input, lengths, model))):totable())
    assert.is_true(model(marea.tensor({{4, 5}}, {dtype = "i64"}), marea.tensor({2}, {dtype = "i64"})):isfinite():all()
      :item() ~= 0)
  end)
end)
