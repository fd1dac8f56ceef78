-- SPDX-License-Identifier: MIT
--- Questions and answers for scripts/qa.lua: SQuAD's without their articles, SCAN's commands and actions, or the little
--- stories of qa_babi.lua.
local marea = require "marea"
local text, data = marea.text, marea.data
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local shared = dofile(here .. "options.lua")
local babi = dofile(here .. "qa_babi.lua")
local made_up = dofile(here .. "qa_reader_made_up.lua")
local qa = {}

-- Each is set apart by spaces, in this order: the rules of the Penn Treebank's tokenizer, which the notebook uses.
local APART = {
  {'"', ' " '}, {"[;@#$%%&]", " %0 "}, {"[?!]", " %0 "}, {"([:,])([^%d])", " %1 %2"}, {"[%]%[()%{}<>]", " %0 "},
  {"%-%-", " -- "}, {"([^.])(%.)([%])}>\"']*)%s*$", "%1 %2%3 "}, {"([^'])' ", "%1 ' "}, {"'([sSmMdD]) ", " '%1 "},
  {"'(ll) ", " '%1 "}, {"'(re) ", " '%1 "}, {"'(ve) ", " '%1 "}, {"n't ", " n't "},
}

--- The words of a text, "n't" and "'s" apart from theirs.
function qa.words(line)
  line = " " .. line .. " "
  for _, rule in ipairs(APART) do line = line:gsub(rule[1], rule[2]) end
  local list = {}
  for word in line:gmatch "[^ \t\n\v\f\r]+" do list[#list + 1] = word end
  return list
end

-- ---- pairs: {questions = lists of words, answers = lists of words} ----

local function pairs_of_squad(list)
  local result = {questions = {}, answers = {}, golds = {}}
  for i, q in ipairs(list) do
    result.questions[i], result.answers[i] = qa.words(q.question:lower()), qa.words(q.answers[1].text)
    result.golds[i] = q.answers
  end
  return result
end

local function pairs_of_scan(name)
  local commands, actions = assert(data.scan(shared.text_file(name, "text")))
  return {questions = commands, answers = actions}
end

--- Commands that need no file: a verb, and how often it is done.
local function made_up_scan(n, seed)
  local draw, result = shared.numbers(seed), {questions = {}, answers = {}}
  for i = 1, n do
    local verb, times, answer = ({"walk", "run", "jump", "look"})[draw(4)], draw(3), {}
    for k = 1, times do answer[k] = "I_" .. verb:upper() end
    result.questions[i], result.answers[i] = {verb, ({false, "twice", "thrice"})[times] or nil}, answer
  end
  return result
end

local SMALL <const>, SMALL_TEST <const> = 240, 30 -- pairs with --smoke, made up whatever files there are
local sources = {}

function sources.squad(o)
  if o.smoke then return pairs_of_squad(made_up(SMALL, 1)), pairs_of_squad(made_up(SMALL_TEST, 2)) end
  local function read(name) return pairs_of_squad(assert(data.squad(shared.text_file(name, "squad")))) end
  return read "squad-train-v1.1.json", read "squad-dev-v1.1.json"
end

function sources.scan(o)
  if o.smoke then return made_up_scan(SMALL, 1), made_up_scan(SMALL_TEST, 2) end
  return pairs_of_scan "scan-simple-train.txt", pairs_of_scan "scan-simple-test.txt"
end

function sources.babi(o)
  local examples, tests = o.smoke and SMALL or o.examples, o.smoke and SMALL_TEST or 1000
  return babi.draw(o.task, examples, o.seed), babi.draw(o.task, tests, 0)
end

--- Pairs from `first` to `last`.
local function part(all, first, last)
  local result = {}
  for name, list in pairs(all) do result[name] = table.move(list, first, last, 1, {}) end
  return result
end

--- n pairs, evenly from the first to the last: neighbours are questions about one article.
local function thin(all, n)
  local m, result = #all.questions, {}
  for name, list in pairs(all) do
    result[name] = {}
    for i = 1, n do result[name][i] = list[i * m // n] end
  end
  return result
end

-- ---- numbers ----

--- Lists of words as i64 (N, length), longer ones cut, and how many words count.
local function encode(vocabulary, lists, length, options)
  local rows = {}
  for i, words in ipairs(lists) do
    rows[i] = vocabulary:encode(words, options)
    for k = #rows[i], length + 1, -1 do rows[i][k] = nil end
  end
  return text.pad(rows, {length = length, padding = options.stop and vocabulary.stop or vocabulary.padding})
end

local function longest(lists)
  local length = 1
  for _, words in ipairs(lists) do length = math.max(length, #words) end
  return length
end

--- Everything that a run needs: vocabularies (inputs, outputs), the longest question and answer (with its end), and
--- train, validation, test: {set = Dataset of input, lengths, output, counts; pairs}.
---@param name string "squad", "scan" or "babi"
---@param o {task: integer, examples: integer?, seed: integer, smoke: boolean?} examples: pairs to learn from, those
---  of the validation among them if they are stories; smoke: few pairs, made up
function qa.load(name, o)
  local all, test = sources[name](o)
  local found = {
    inputs = text.Vocabulary{all.questions},
    outputs = text.Vocabulary{all.answers, padding = false, begin = true, stop = true},
    length = longest(all.answers) + 1,
  }
  local width, cut = math.max(longest(all.questions), longest(test.questions)), #all.questions * 4 // 5
  if cut == 0 then error("too few questions: four fifths of them are learned from, so 2 is the least", 0) end
  local splits = {train = part(all, 1, cut), validation = part(all, cut + 1, #all.questions), test = test}
  local most = name ~= "babi" and o.examples or cut
  if most < cut then splits.train = thin(splits.train, most) end
  for _, split in ipairs{"train", "validation", "test"} do -- in this order: each set has random numbers of its own
    local list = splits[split]
    local input, lengths = encode(found.inputs, list.questions, width, {})
    local output, counts = encode(found.outputs, list.answers, found.length, {stop = true})
    found[split] = {pairs = list, set = data.Dataset{{"input", input:keep()}, {"lengths", lengths:keep()},
      {"output", output:keep()}, {"counts", counts:keep()}}}
  end
  return found
end

return qa
