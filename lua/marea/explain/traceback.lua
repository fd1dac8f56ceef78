-- SPDX-License-Identifier: MIT
--- Tracebacks for people who write scripts: the script's frames; frames of the library between them become one line,
--- and frames of C are left out.
local core = require "marea.core"
local frames = require "marea.explain.frames"

local FIRST, LAST = 12, 8 -- levels that are shown of a deep stack

--- The number of levels on the stack above this function's caller.
local function depth()
  local low, high = 1, 1
  while debug.getinfo(high, "l") do low, high = high, high * 2 end
  while low < high do
    local middle = (low + high) // 2
    if debug.getinfo(middle, "l") then low = middle + 1 else high = middle end
  end
  return high - 2
end

local function function_name(frame)
  if frame.what == "main" then return "main chunk" end
  local known = frame.namewhat ~= "" and frame.name ~= "?" and frame.name
  if known then return ("%s '%s'"):format(frame.namewhat == "method" and "method" or "function", known) end
  return ("function <line %d>"):format(frame.linedefined)
end

local function fold(lines, folded)
  if #folded == 0 then return end
  local parts, seen = {}, {}
  for _, part in ipairs(folded) do
    if not seen[part] then
      seen[part] = true
      parts[#parts + 1] = part
    end
  end
  lines[#lines + 1] = ("[%d frame%s in %s]"):format(#folded, #folded == 1 and "" or "s", table.concat(parts, ", "))
end

--- Lines for the script's frames, innermost first; frames of the library in front of the first one are left out.
local function lines_of()
  local deepest = depth()
  local lines, folded, level = {}, {}, 2
  while level <= deepest do
    local frame = debug.getinfo(level, "Slnf")
    if not frame or frames.is_typed(frame) then break end
    local own = frame.what ~= "C" and core.module_of(frame.source)
    if own then folded[#folded + 1] = own:match "^marea%.[%w_]+" or own -- "marea.nn" of "marea.nn.conv"
    elseif frame.what ~= "C" then
      if #lines > 0 then fold(lines, folded) end
      folded = {}
      lines[#lines + 1] = ("%s:%d: in %s"):format(frame.short_src, frame.currentline, function_name(frame))
    end
    if level == FIRST and deepest > FIRST + LAST then
      lines[#lines + 1] = ("[%d frames]"):format(deepest - FIRST - LAST)
      folded, level = {}, deepest - LAST
    end
    level = level + 1
  end
  return lines
end

--- Is all that the lines say in the message already?
local function is_known(lines, message)
  if #lines == 0 then return true end
  local place = lines[1]:match "^(.-:%d+): in main chunk$"
  return #lines == 1 and place ~= nil and message:find(place, 1, true) ~= nil
end

--- The text to be put below a message: "" when it has nothing to add. With MAREA_TRACEBACK=full it is Lua's own
--- traceback, with every frame.
---@param message string
---@return string
return function(message)
  if debug.traceback and os and os.getenv "MAREA_TRACEBACK" == "full" then return "\n" .. debug.traceback(nil, 2) end
  local lines = lines_of()
  if is_known(lines, message) then return "" end
  return "\nstack traceback:\n  " .. table.concat(lines, "\n  ")
end
