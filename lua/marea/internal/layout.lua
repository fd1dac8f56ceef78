-- SPDX-License-Identifier: MIT
--- Texts as the prompt shows them, in lines that fit the terminal.
local core = require "marea.core"

local layout = {}

local WIDEST = 100 -- letters; longer lines are hard to read
local NARROWEST = 24 -- letters of a text beside another one, however narrow the terminal is

--- The terminal's letters in a line, and its lines without those that the prompt needs; 80 and 24 without a terminal.
---@return integer columns, integer lines
function layout.terminal()
  local columns, lines = core.terminal_size(1)
  if not columns then return 80, 24 end
  return columns, math.max(lines - 2, 4)
end

local function length(text) return utf8.len(text) or #text end

--- Splits a text into parts {head =, gap =, words =}. A part is a paragraph; or a row of a table, "  name   text", with
--- the lines below that are indented as deep as its second cell; or, as a head without words, an empty line or another
--- indented line, such as code.
local function parts_of(text)
  local parts, part = {}, nil
  local function begin(head, gap)
    part = {head = head, gap = gap, words = {}}
    parts[#parts + 1] = part
  end
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    local gap, cell = line:match "^%s%s+" or "", line:match "^  +%a[%w_, ]-  +()[^%s%-]"
    local goes_on = part and part.gap == gap and line ~= ""
    if cell then begin(line:sub(1, cell - 1), (" "):rep(cell - 1))
    elseif not goes_on then
      local is_text = line ~= "" and gap == ""
      begin(is_text and "" or line, is_text and "" or nil)
    end
    if part.gap then
      for word in line:sub(cell or 1):gmatch "%S+" do table.insert(part.words, word) end
    end
  end
  return parts
end

--- Appends a part to the list `lines`, wrapped to `room` letters.
local function fill(lines, part, indent, room)
  local line, empty = part.head, true
  for _, word in ipairs(part.words) do
    if not empty and length(line) + 1 + length(word) > room then
      lines[#lines + 1] = indent .. line
      line, empty = part.gap, true
    end
    line, empty = line .. (empty and "" or " ") .. word, false
  end
  lines[#lines + 1] = line == "" and "" or indent .. line
end

--- Text in lines of at most `width` letters, the terminal's when left out. Tables, whose lines are set in, are wrapped
--- in their second column; code that is set in stays as it is.
---@param text string
---@param indent string what goes in front of each line
---@param width? integer
---@return string
function layout.wrapped(text, indent, width)
  local room = math.max((width or math.min((layout.terminal()), WIDEST)) - #indent, NARROWEST)
  local lines = {}
  for _, part in ipairs(parts_of(text)) do fill(lines, part, indent, room) end
  return (table.concat(lines, "\n"):gsub("^\n+", ""):gsub("\n+$", ""))
end

--- Rows of two cells, the second one wrapped beside the first.
---@param rows {[1]: string, [2]: string}[]
---@param width? integer letters of a line, the terminal's when left out
---@return string
function layout.two_columns(rows, width)
  local first, lines = 0, {}
  for _, row in ipairs(rows) do first = math.max(first, length(row[1])) end
  for i, row in ipairs(rows) do
    local gap = (" "):rep(first + 5)
    local text = layout.wrapped(row[2], gap, width)
    lines[i] = ("  %s%s%s"):format(row[1], (" "):rep(first + 3 - length(row[1])), text:sub(#gap + 1))
  end
  return table.concat(lines, "\n")
end

return layout
