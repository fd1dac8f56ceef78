-- SPDX-License-Identifier: MIT
--- What scripts/qa.lua reports: how many answers are right, the curve, and where the network looks while it writes.
local marea = require "marea"
local plot = marea.plot
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local shared = dofile(here .. "options.lua")
local score = dofile(here .. "qa_reader_score.lua")
local report = {}

--- The first `count` questions of a part, answered: lists of words.
function report.answers(model, found, part, count, temperature)
  local answers = {}
  for input, lengths in part.set:subset(1, math.min(count, #part.set)):batches(100) do
    for _, row in ipairs(model:answer(input, lengths, temperature)) do
      answers[#answers + 1] = found.outputs:decode(row)
    end
  end
  return answers
end

--- The share of answers, percent, that are word for word the true ones.
function report.exact(answers, part)
  local right = 0
  for i, words in ipairs(answers) do
    right = right + (table.concat(words, " ") == table.concat(part.pairs.answers[i], " ") and 1 or 0)
  end
  return 100 * right / #answers
end

--- Exact match and F1 in percent as SQuAD counts them.
function report.squad(answers, golds)
  local exact, f1 = 0, 0
  for i, words in ipairs(answers) do
    local one, overlap = score.answer(table.concat(words, " "), golds[i])
    exact, f1 = exact + one, f1 + overlap
  end
  return 100 * exact / #answers, 100 * f1 / #answers
end

--- The answer that is the commonest one in training, for each of n questions.
local function commonest(list, n)
  local counts, best = {}, nil
  for _, words in ipairs(list) do
    local line = table.concat(words, " ")
    counts[line] = (counts[line] or 0) + 1
    if not best or counts[line] > counts[best] or counts[line] == counts[best] and line < best then best = line end
  end
  local answers = {}
  for i = 1, n do answers[i] = {best} end
  return answers, best
end

-- ---- pictures ----

local function curve(log)
  local x = log:column "epoch"
  return plot.curves{{x = x, y = log:column "loss", title = "training"},
    {x = x, y = log:column "validation", title = "validation"}, title = "Loss", xlabel = "epoch",
    ylabel = "cross entropy a word"}
end

--- The weights with which one question is read, a row for each word of the answer.
local function heat_map(model, found, question, answer)
  local input = marea.tensor({found.inputs:encode(question)}, {dtype = "i64"})
  local output = marea.tensor({found.outputs:encode(answer, {stop = true})}, {dtype = "i64"})
  local _, weights = model(input, marea.tensor({#question}, {dtype = "i64"}), output)
  local rows = table.move(answer, 1, #answer, 1, {})
  if #rows < weights:size(2) then rows[#rows + 1] = "(end)" end
  local wide = #question > 15 and 18 or 1 -- columns as wide as the labels of many words are high
  local high = wide * (#question // (2 * #rows) + 1) -- few rows are drawn thicker
  local map = weights[1]:narrow(1, 1, #rows):reshape(#rows, 1, #question, 1):expand(#rows, high, #question, wide)
  return plot.heatmap{map:reshape(#rows * high, #question * wide), map = "viridis", xticks = question, yticks = rows,
    colorlabel = "weight"}
end

--- The weights with which a memory network looks at a story: a row for each sentence, a column for each hop.
local function story_map(model, found, question, answer)
  local input = marea.tensor({found.inputs:encode(question)}, {dtype = "i64"})
  local _, weights = model(input, marea.tensor({#question}, {dtype = "i64"}))
  local hops, sentences = {}, {}
  for k = 1, weights:size(2) do hops[k] = tostring(k) end
  for sentence in table.concat(question, " "):gmatch "([^.]+) %. ?" do sentences[#sentences + 1] = sentence end
  local asked = table.concat(question, " "):match "([^. ][^.]*)$"
  local n, wide = weights:size(3), 6 -- columns are as wide as labels of sentences need
  local map = weights[1]:transpose(1, 2):reshape(n, 1, #hops, 1):expand(n, wide // 2, #hops, wide)
  return plot.heatmap{map:reshape(n * wide // 2, #hops * wide), map = "viridis", xticks = hops, yticks = sentences,
    xlabel = "hop", colorlabel = "weight", title = ("%s? %s"):format(asked, answer[1])}
end

--- Up to three questions with answers to draw: answers of at most 12 words to questions of at most `most`, the longest
--- ones by the lists of `by`.
local function choose(by, answers, questions, most)
  local list = {}
  for i = 1, math.min(#answers, 300) do
    if #questions[i] <= most and #answers[i] <= 12 then list[#list + 1] = i end
  end
  table.sort(list, function(a, b)
    if #by[a] ~= #by[b] then return #by[a] > #by[b] end
    return a < b
  end)
  return {table.unpack(list, 1, 3)}
end

-- ---- the end of a run ----

local function line(words) return #words == 0 and "(nothing)" or table.concat(words, " ") end

--- Prints up to five answers, for SCAN and bAbI wrong ones.
local function print_some(answers, test)
  local shown = 0
  for i, words in ipairs(answers) do
    if shown < 5 and (test.golds or line(words) ~= line(test.answers[i])) then
      shown = shown + 1
      print(marea.format("%s -> %s, not %s", line(test.questions[i]), line(words), line(test.answers[i])))
    end
  end
end

local function print_scores(answers, found, part)
  local n = #answers
  if not part.pairs.golds then
    return print(marea.format("%d questions of the test: %.2f %% are answered exactly", n, report.exact(answers, part)))
  end
  print(marea.format("%d questions of the test: exact match %.2f %%, F1 %.2f %%", n,
    report.squad(answers, part.pairs.golds)))
  local always, best = commonest(found.train.pairs.answers, n)
  local exact, f1 = report.squad(always, part.pairs.golds)
  print(marea.format("always '%s', training's commonest answer: exact match %.2f %%, F1 %.2f %%", best, exact, f1))
end

--- Answers the test's questions, prints some and the scores, writes the pictures to options.out.
function report.write(model, found, log, options)
  local part, save = found.test, shared.saver(options.out)
  local answers = report.answers(model, found, part, #part.set, options.temperature)
  print_some(answers, part.pairs)
  save("training_curve", curve(log))
  local questions, is_story = part.pairs.questions, model.hops ~= nil
  local draw = is_story and story_map or heat_map
  for k, i in ipairs(choose(is_story and questions or answers, answers, questions, is_story and 80 or 30)) do
    save("attention" .. k, marea.no_grad(draw, model, found, questions[i], answers[i]))
  end
  print_scores(answers, found, part)
  print("Pictures, metrics.csv and qa.safetensors are in " .. options.out)
end

return report
