-- SPDX-License-Identifier: MIT
--- Exact match and F1 of answers, as SQuAD's official script counts them (evaluate-v1.1.py, Rajpurkar et al. 2016):
--- capitals, punctuation, articles and white space do not count; of several true answers the best one does.
local score = {}

-- White space beyond ASCII: U+0085, U+00A0, U+2000 to U+200A, U+2028, U+2029, U+202F, U+205F, U+3000.
local SPACES = {"\xC2[\x85\xA0]", "\xE2\x80[\x80-\x8A\xA8\xA9\xAF]", "\xE2\x81\x9F", "\xE3\x80\x80"}
local LETTER = "[%w_\x80-\xff]"

local MARKS = {"\xC2[\x80-\xBF]", "\xE2\x80[\x80-\xBF]"} -- no letters, as dashes and quotation marks

--- Takes out a, an and the where they are words of their own.
local function without_articles(line)
  for _, pattern in ipairs(MARKS) do line = line:gsub(pattern, "\1%0\1") end
  return (line:gsub(LETTER .. "+", function(word)
    if word == "a" or word == "an" or word == "the" then return " " end
  end):gsub("\1", ""))
end

--- Words of a text, normalized.
---@return string[]
function score.words(line)
  for _, pattern in ipairs(SPACES) do line = line:gsub(pattern, " ") end
  local words = {}
  for word in without_articles(line:lower():gsub("%p", "")):gmatch "%S+" do words[#words + 1] = word end
  return words
end

local function f1_of(a, b)
  local left, common = {}, 0
  for _, word in ipairs(b) do left[word] = (left[word] or 0) + 1 end
  for _, word in ipairs(a) do
    if (left[word] or 0) > 0 then left[word], common = left[word] - 1, common + 1 end
  end
  if common == 0 then return 0 end
  local precision, recall = common / #a, common / #b
  return 2 * precision * recall / (precision + recall)
end

--- Exact match (0 or 1) and F1 (0 to 1) of an answer, the best over all true ones.
---@param answer string
---@param truths {text: string}[] as data.squad gives them
function score.answer(answer, truths)
  local words, exact, f1 = score.words(answer), 0, 0
  local line = table.concat(words, " ")
  for _, truth in ipairs(truths) do
    local true_words = score.words(truth.text)
    if table.concat(true_words, " ") == line then exact = 1 end
    f1 = math.max(f1, f1_of(words, true_words))
  end
  return exact, f1
end

return score
