-- SPDX-License-Identifier: MIT
--- Values as JSON (RFC 8259), which core.json reads.
local core = require "marea.core"

local function quote(text)
  return '"' .. text:gsub('[\0-\31"\\]', function(c)
    if c == '"' or c == "\\" then return "\\" .. c end
    return ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local json_text

local function object(value)
  local parts = {}
  for name in next, value do parts[#parts + 1] = name end
  table.sort(parts, core.before)
  for i, name in ipairs(parts) do parts[i] = quote(name) .. ":" .. json_text(value[name]) end
  return "{" .. table.concat(parts, ",") .. "}"
end

--- A value as text: strings in UTF-8, numbers, booleans, lists (tables with [1], or empty ones) and objects by name,
--- sorted by their bytes.
---@param value any
---@return string
function json_text(value)
  if type(value) == "string" then return quote(value) end
  if math.type(value) == "float" then
    local text = core.format("%.17g", value)
    return text:find "[.e]" and text or text .. ".0"
  end
  if type(value) ~= "table" then return tostring(value) end
  if next(value) ~= nil and value[1] == nil then return object(value) end
  local parts = {}
  for i, item in ipairs(value) do parts[i] = json_text(item) end
  return "[" .. table.concat(parts, ",") .. "]"
end

return json_text
