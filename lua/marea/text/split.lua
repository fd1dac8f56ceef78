-- SPDX-License-Identifier: MIT
--- Texts cut into words or characters.
local check = require "marea.internal.check"

local split = {}

--- Raises unless the text is UTF-8; the message names the first byte that is none.
---@param what string the function, for messages
---@param text any
---@param name? string the argument, "text"
---@return string
function split.checked(what, text, name)
  check.string(what, name or "text", text)
  local whole, broken = utf8.len(text)
  if not whole then
    check.raise("%s: argument '%s': byte %d, 0x%02x, is no UTF-8", what, name or "text", broken, text:byte(broken))
  end
  return text
end

--- The characters of a text in UTF-8, none of them torn.
---@param text string
---@return string[]
---@example marea.text.characters "déjà"
function split.characters(text)
  local list = {}
  for c in split.checked("characters", text):gmatch(utf8.charpattern) do list[#list + 1] = c end
  return list
end

--- The words of a text in UTF-8: runs of letters, digits, _ and of what is not ASCII, and each other character by
--- itself; spaces are left out.
---@param text string
---@param options? {lower: boolean?} lower: A to Z become small
---@return string[]
---@example marea.text.words("Isn't it?", {lower = true})
function split.words(text, options)
  options = check.options("words", options, {"lower"})
  local list = {}
  if split.checked("words", text) and options.lower then
    text = text:gsub("[A-Z]", function(c) return string.char(c:byte() + 32) end)
  end
  for run, other in text:gmatch "([A-Za-z0-9_\128-\255]*)([^A-Za-z0-9_\128-\255]?)" do
    if run ~= "" then list[#list + 1] = run end
    if other:find "[^ \t\n\v\f\r]" then list[#list + 1] = other end
  end
  return list
end

return split
