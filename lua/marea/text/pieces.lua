-- SPDX-License-Identifier: MIT
--- GPT-2's cut of a text before byte pairs are joined (Radford et al. 2019, encoder.py): its pattern
---
---   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
---
--- Pieces put together are the text.
local unicode = require "marea.text.unicode"

local ASCII = {letter = "^[A-Za-z]+", number = "^[0-9]+", space = "^[\t-\r ]+",
  other = "^[\0-\8\14-\31!-/:-@[-`{-\127]+"}
local ENDINGS = {"s", "t", "re", "ve", "m", "ll", "d"}

--- The class of the character at byte i.
local function class_at(text, i)
  for class, pattern in next, ASCII do
    if text:find(pattern, i) then return class end
  end
  return unicode.class(utf8.codepoint(text, i))
end

--- The last byte of the run of a class that begins at byte i.
local function run_end(text, i, class)
  local at = i
  while true do
    local _, stop = text:find(ASCII[class], at)
    at = stop and stop + 1 or at
    local byte = text:byte(at)
    if not byte or byte < 0x80 or unicode.class(utf8.codepoint(text, at)) ~= class then return at - 1 end
    at = utf8.offset(text, 2, at)
  end
end

--- The last byte of an ending such as 've at byte i; nil when there is none.
local function ending_at(text, i)
  for _, letters in ipairs(ENDINGS) do
    if text:find(letters, i + 1, true) == i + 1 then return i + #letters end
  end
end

--- Spaces, but the last one is left to the word behind them.
local function spaces_end(text, i)
  local stop = run_end(text, i, "space")
  local last = utf8.offset(text, -1, stop + 1)
  return stop < #text and last > i and last - 1 or stop
end

local function piece_end(text, i)
  local first = text:byte(i)
  local ending = first == 39 and ending_at(text, i) -- '
  if ending then return ending end
  local from = first == 32 and i < #text and i + 1 or i
  local class = class_at(text, from)
  if class ~= "space" then return run_end(text, from, class) end
  return spaces_end(text, i)
end

--- Calls f with each piece of a text, which is UTF-8.
---@param text string
---@param f fun(piece: string)
return function(text, f)
  local i = 1
  while i <= #text do
    local stop = piece_end(text, i)
    f(text:sub(i, stop))
    i = stop + 1
  end
end
