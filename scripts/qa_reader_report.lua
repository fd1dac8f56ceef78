-- SPDX-License-Identifier: MIT
--- Pictures of scripts/qa_reader.lua: the training curve, and where the network sees an answer begin and end.
local marea = require "marea"
local plot = marea.plot
local shared = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")

local report = {}

local function training_curve(log)
  return plot.curves{
    {x = log:column "epoch", y = log:column "f1", title = "F1"},
    {x = log:column "epoch", y = log:column "exact", title = "exact match"},
    yrange = {0, 100}, title = "Test questions while training", xlabel = "epoch", ylabel = "percent"}
end

--- A line that fits above a picture.
local function shortened(line)
  if utf8.len(line) <= 52 then return line end
  return line:sub(1, utf8.offset(line, 50) - 1) .. "..."
end

local WINDOW <const> = 24 -- words of a heat map

--- The probabilities that each word is the first and the last one of the answer to a question of a set, of the words
--- around the answer.
---@param start userdata (T)
---@param stop userdata (T)
function report.heat_map(set, number, start, stop, first, last)
  local q = set.questions[number]
  local n = math.min(WINDOW, #q.starts)
  local from = math.max(math.min(first - (n - (last - first)) // 2, #q.starts - n + 1), 1)
  local labels = {}
  for i = 1, n do labels[i] = set:answer(number, from + i - 1, from + i - 1) end
  local rows = marea.stack({start:narrow(1, from, n), stop:narrow(1, from, n)}, 1)
  return plot.heatmap{rows:index_select(marea.tensor({1, 1, 1, 1, 2, 2, 2, 2}, {dtype = "i64"})), map = "viridis",
    xticks = labels, yticks = {"first", "last"}, colorlabel = "probability", title = shortened(q.question.question)}
end

--- Writes the pictures to options.out and prints some answers.
---@param answers table<integer, string> by the questions' numbers
---@param longest integer words of an answer
function report.write(model, test, answers, longest, log, options)
  local save = shared.saver(options.out)
  save("training_curve", training_curve(log))
  for k = 1, 3 do
    local number = k * #test.rows // 4
    local batch = test:batch(test.rows:rows{number})
    local first, last, start, stop = marea.no_grad(model.answer, model, batch, longest)
    save("answer" .. k, report.heat_map(test, batch.numbers[1], start[1], stop[1], first[1], last[1]))
  end
  for k = 1, 5 do
    local number = k * #test // 6
    local q = test.questions[number].question
    print(("%s -> %s, true: %s"):format(q.question, answers[number], q.answers[1].text))
  end
  print("Pictures, metrics.csv and reader.safetensors are in " .. options.out)
end

return report
