-- SPDX-License-Identifier: MIT
--- Texts for language models and question answering, from the files in which they are published.
local core = require "marea.core"
local check = require "marea.internal.check"
local files = require "marea.internal.files"

local texts = {}

--- nil and a message about a file and a place in it.
local function refused(path, what) return core.failed(core.printable(path) .. ": " .. what) end

--- The text of a file in UTF-8.
local function read(what, path)
  local text, message = files.read(check.string(what, "path", path))
  if not text then return nil, message end
  local length, broken = utf8.len(text)
  if not length then
    return nil, ("%s: byte %d, 0x%02x, is no UTF-8"):format(core.printable(path), broken, text:byte(broken))
  end
  return text, nil, length
end

--- A text in two parts, the first for training, the rest held out, cut between characters.
---@param path string
---@param options? {share: number?} of the characters for training (0.9)
---@return string|nil training, string|nil held_out or a message
---@example data.corpus "missing.txt"
function texts.corpus(path, options)
  local share = check.number("corpus", "share", check.options("corpus", options, {"share"}).share or 0.9, 0, 1)
  local text, message, length = read("corpus", path)
  if not text then return core.failed(message) end
  local cut = utf8.offset(text, math.floor(length * share) + 1)
  return text:sub(1, cut - 1), text:sub(cut)
end

local function words(text)
  local list = {}
  for word in text:gmatch "%S+" do list[#list + 1] = word end
  return list
end

--- SCAN (Lake and Baroni 2018): commands and the actions that they ask for, of lines
--- "IN: jump twice OUT: I_JUMP I_JUMP".
---@param path string
---@return string[][]|nil commands, string[][]|string actions or a message
---@example data.scan "missing.txt"
function texts.scan(path)
  local text, message = read("scan", path)
  if not text then return core.failed(message) end
  local commands, actions, line = {}, {}, 0
  for content in text:gmatch "([^\n]*)\n?" do
    line = line + 1
    local command, action = content:match "^%s*IN:%s(.-)%sOUT:%s(.-)%s*$"
    if command then commands[#commands + 1], actions[#actions + 1] = words(command), words(action)
    elseif content:find "%S" then return refused(path, ("line %d is not 'IN: ... OUT: ...'"):format(line)) end
  end
  return commands, actions
end

--- The answers of a question with their first characters, counted from 1; a message when one does not stand there.
local function answers_of(context, answers)
  local list = {}
  for i, answer in ipairs(type(answers) == "table" and answers or {}) do
    local start, text
    if type(answer) == "table" then start, text = answer.answer_start, answer.text end
    if math.type(start) ~= "integer" or start < 0 or type(text) ~= "string" then
      return nil, ("answer %d has no text, or no answer_start"):format(i)
    end
    local byte = utf8.offset(context, start + 1)
    if not byte or context:sub(byte, byte + #text - 1) ~= text then
      return nil, ("answer %d, '%s', is not at character %d of its context"):format(i, text, start)
    end
    list[i] = {text = text, start = start + 1}
  end
  return list
end

local function add_questions(list, article, paragraph)
  if type(paragraph) ~= "table" or type(paragraph.context) ~= "string" or type(paragraph.qas) ~= "table" then
    return ("behind question %d: a paragraph without context or questions"):format(#list)
  end
  for _, q in ipairs(paragraph.qas) do
    local place = ("question %d, "):format(#list + 1)
    if type(q) ~= "table" or type(q.question) ~= "string" then return place .. "which has no text" end
    local answers, problem = answers_of(paragraph.context, q.answers)
    if not answers then return place .. problem end
    list[#list + 1] = {id = q.id, title = article.title, context = paragraph.context, question = q.question,
      answers = answers}
  end
end

--- SQuAD (Rajpurkar et al. 2016), the JSON of version 1.1 or 2.0: a list of questions with id, title, context, question
--- and answers, each {text, start}, start counted in characters from 1. Each answer is looked up in its context.
---@param path string
---@return table[]|nil questions, string|nil message
---@example data.squad "missing.json"
function texts.squad(path)
  local text, message = read("squad", path)
  if not text then return core.failed(message) end
  local file, problem = core.json(text)
  if type(file) ~= "table" or type(file.data) ~= "table" then return refused(path, problem or "there is no 'data'") end
  local list = {}
  for i, article in ipairs(file.data) do
    if type(article) ~= "table" or type(article.paragraphs) ~= "table" then
      return refused(path, ("article %d has no paragraphs"):format(i))
    end
    for _, paragraph in ipairs(article.paragraphs) do
      problem = add_questions(list, article, paragraph)
      if problem then return refused(path, problem) end
    end
  end
  return list
end

return texts
