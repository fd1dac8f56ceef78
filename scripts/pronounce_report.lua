-- SPDX-License-Identifier: MIT
--- What scripts/pronounce.lua shows: the training curve, where the network looks while it speaks, what it got wrong.
local marea = require "marea"
local plot, text = marea.plot, marea.text
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local shared = dofile(here .. "options.lua")
local report = {}

local function training_curve(log)
  local epochs = log:column "epoch"
  return plot.curves{{x = epochs, y = log:column "word_error", title = "words"},
    {x = epochs, y = log:column "phoneme_error", title = "phonemes"}, yrange = {0, 100},
    title = "Validation while training", xlabel = "epoch", ylabel = "wrong, percent"}
end

--- The letters of a word as numbers, one row, and their count.
local function row_of(word, letters)
  local list = letters:encode(text.characters(word))
  return marea.tensor({list}, {dtype = "i64"}), marea.tensor({#list}, {dtype = "i64"})
end

--- The weights of attention while the model says these phonemes: a row for each, a column for each letter.
local function heat_map(model, letters, word, phonemes)
  local spelled, lengths = row_of(word, letters)
  local said = marea.tensor({model.vocabulary:encode(phonemes, {stop = true})}, {dtype = "i64"})
  local _, weights = model(spelled, lengths, said)
  local rows = table.move(phonemes, 1, #phonemes, 1, {})
  rows[#rows + 1] = "end"
  return plot.heatmap{weights[1], map = "viridis", xticks = text.characters(word), yticks = rows, colorlabel = "weight",
    title = word .. ": " .. table.concat(phonemes, " ")}
end

--- Words that are said rightly and have the most letters that are not heard, each of another length.
local function choose(words, said, count, distance)
  local order, chosen, seen = {}, {}, {}
  for i, word in ipairs(words) do
    local is_right = distance(said[i], word.phonemes[1]) == 0
    order[i] = {i = i, rank = (is_right and 0 or 100) - (#word.name - #said[i])}
  end
  table.sort(order, function(a, b) return a.rank < b.rank or a.rank == b.rank and a.i < b.i end)
  for _, at in ipairs(order) do
    local length = #words[at.i].name
    if #chosen < count and not seen[length] then chosen[#chosen + 1], seen[length] = at.i, true end
  end
  return chosen
end

local function print_wrong(words, said, count, distance)
  for i, word in ipairs(words) do
    if count > 0 and distance(said[i], word.phonemes[1]) > 0 and #word.phonemes == 1 then
      print(("wrong: %s  %s, not %s"):format(word.name, table.concat(said[i], " "),
        table.concat(word.phonemes[1], " ")))
      count = count - 1
    end
  end
end

--- Writes the pictures to options.out, prints words that were wrong, and how many.
---@param what {letters: table, words: table[], said: string[][], phoneme_error: number, word_error: number}
function report.all(model, what, log, options, distance)
  local save = shared.saver(options.out)
  save("training_curve", training_curve(log))
  for k, i in ipairs(choose(what.words, what.said, 3, distance)) do
    save("attention" .. k, marea.no_grad(heat_map, model, what.letters, what.words[i].name, what.said[i]))
  end
  print_wrong(what.words, what.said, 8, distance)
  print(marea.format("%d words held out: %.2f %% of the phonemes are wrong, %.2f %% of the words", #what.words,
    what.phoneme_error, what.word_error))
  print("Pictures, metrics.csv and pronounce.safetensors are in " .. options.out)
end

--- Prints the likeliest pronunciations of a word, with their probability.
function report.say(model, letters, word, width)
  word = word:lower()
  if not word:find "^%a+$" then error(("--say: expected a word of the letters a to z, got '%s'"):format(word), 0) end
  local spelled, lengths = row_of(word, letters)
  for _, found in ipairs(model:search(spelled, lengths, width)[1]) do
    print(marea.format("%5.1f %%  %s", 100 * math.exp(found.log_prob), table.concat(found.phonemes, " ")))
  end
end

return report
