-- SPDX-License-Identifier: MIT
--- Texts from numbers that come one by one.
local check = require "marea.internal.check"

---@class Stream
---@example s = marea.text.Stream(marea.text.BytePair{{""}})
---@example s:add(1), s:finish()
local Stream = {__name = "Stream"}
Stream.__index = Stream

local LATER = {"\x80", "\x80\x80", "\x80\x80\x80", "\xA0\x80", "\x90\x80\x80"} -- what may complete a character
local REPLACEMENT = "\u{FFFD}"

--- May bytes be the beginning of one character?
local function is_begun(bytes)
  if #bytes > 3 then return false end
  for _, later in ipairs(LATER) do
    if utf8.len(bytes .. later) == 1 then return true end
  end
  return false
end

--- The whole characters of bytes, and the beginning of one at their end. A byte that is part of none becomes U+FFFD.
local function whole(bytes)
  local parts = {}
  while true do
    local length, broken = utf8.len(bytes)
    if length then
      parts[#parts + 1] = bytes
      return table.concat(parts), ""
    end
    parts[#parts + 1] = bytes:sub(1, broken - 1)
    bytes = bytes:sub(broken)
    if is_begun(bytes) then return table.concat(parts), bytes end
    parts[#parts + 1], bytes = REPLACEMENT, bytes:sub(2)
  end
end

local function construct(_, tokenizer)
  local meta = getmetatable(tokenizer)
  if type(meta) ~= "table" or type(meta.decode) ~= "function" then
    check.fail("Stream", "tokenizer", "a BytePair or a Vocabulary", tokenizer)
  end
  return setmetatable({_tokenizer = tokenizer, _held = ""}, Stream)
end

--- The text that a further number gives: whole characters in UTF-8. Bytes of one that is not whole are held back until
--- its others come; bytes that are part of none become U+FFFD. Words of a vocabulary are put together without spaces.
---@param number integer
---@return string
---@example marea.text.Stream(marea.text.Vocabulary{{"a", "b"}}):add(3)
function Stream:add(number)
  local piece = self._tokenizer:decode{check.integer("add", "number", number)}
  if type(piece) == "table" then piece = table.concat(piece) end
  local text
  text, self._held = whole(self._held .. piece)
  return text
end

--- The end of the text: U+FFFD for a character that is not whole, else nothing.
---@return string
---@example marea.text.Stream(marea.text.Vocabulary{{"a", "b"}}):finish()
function Stream:finish()
  local text = self._held == "" and "" or REPLACEMENT
  self._held = ""
  return text
end

return setmetatable(Stream, {__call = construct})
