-- SPDX-License-Identifier: MIT
-- Readers of published texts, on small files in their formats. With MAREA_TEXT, a folder with the real ones, gzipped,
-- their numbers too.
local marea = require "marea"
local folder = require "spec.support.folder"
local data = marea.data

teardown(folder.remove)

local function written(content)
  local path = folder.new() .. "/file"
  assert(marea.save_bytes(path, content))
  return path
end

local function says(expected, value, message)
  assert.is_nil(value)
  assert.is_truthy(message:find(expected, 1, true), message)
end

local SQUAD = [[{"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": "Été 1973, été", "qas": [
  {"id": "a", "question": "When?", "answers": [{"text": "1973", "answer_start": 4},
    {"text": "été", "answer_start": 10}]},
  {"id": "b", "question": "Who?", "answers": []}]}]}]}]]

describe("data.corpus", function()
  it("cuts between characters", function()
    assert.are.same({"éééééééé€", "!"}, {data.corpus(written "éééééééé€!")})
    assert.are.same({"é", "é!"}, {data.corpus(written "éé!", {share = 0.5})})
    assert.are.same({"", ""}, {data.corpus(written "")})
    assert.are.same({"é", ""}, {data.corpus(written "é", {share = 1})})
    says("byte 2, 0xff, is no UTF-8", data.corpus(written "a\xff"))
    says("missing", data.corpus "missing.txt")
    says("/: Is a directory", data.corpus "/")
  end)
end)

describe("data.scan", function()
  it("reads commands and actions", function()
    assert.are.same({{{"jump", "twice"}, {"walk"}}, {{"I_JUMP", "I_JUMP"}, {"I_WALK"}}},
      {data.scan(written "IN: jump twice OUT: I_JUMP I_JUMP\nIN: walk OUT: I_WALK\r\n\n")})
    says("line 2 is not 'IN: ... OUT: ...'", data.scan(written "IN: walk OUT: I_WALK\nIN: walk\n"))
  end)
end)

describe("data.squad", function()
  it("reads questions, their answers counted in characters from 1", function()
    local list = assert(data.squad(written(SQUAD)))
    assert.are.same({id = "a", title = "T", context = "Été 1973, été", question = "When?",
      answers = {{text = "1973", start = 5}, {text = "été", start = 11}}}, list[1])
    assert.are.same({2, {}}, {#list, list[2].answers})
  end)

  it("names what is wrong", function()
    says("question 1, answer 1, '1973', is not at character 5", data.squad(written((SQUAD:gsub("4}", "5}")))))
    says("question 1, answer 1, '1973', is not at character 99", data.squad(written((SQUAD:gsub("4}", "99}")))))
    says("question 1, answer 1 has no text", data.squad(written((SQUAD:gsub("4}", "-4}")))))
    says("article 1 has no paragraphs", data.squad(written '{"data": [{}]}'))
    says("behind question 0: a paragraph without context", data.squad(written '{"data": [{"paragraphs": [1]}]}'))
    says("question 1, which has no text",
      data.squad(written '{"data": [{"paragraphs": [{"context": "a", "qas": [{}]}]}]}'))
    says("question 1, answer 1 has no text",
      data.squad(written '{"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "b", "answers": [1]}]}]}]}'))
    says("there is no 'data'", data.squad(written "[]"))
    says("not JSON at byte", data.squad(written "{"))
  end)
end)

local real = os.getenv "MAREA_TEXT"
if real then
  local function unpacked(name)
    local path = folder.new() .. "/file"
    return os.execute(("gzip -dc '%s/%s.gz' > '%s'"):format(real, name, path)) and path
  end

  it("the published files have as many rows as their papers say", function()
    assert.are.equal(16728, #assert(data.scan(unpacked "scan-simple-train.txt")))
    assert.are.equal(10570, #assert(data.squad(unpacked "squad-dev-v1.1.json")))
    assert.are.equal(87599, #assert(data.squad(unpacked "squad-train-v1.1.json")))
    local train, rest = data.corpus(unpacked "tinyshakespeare.txt")
    assert.are.same({1003854, 111540}, {#train, #rest})
  end)
end
