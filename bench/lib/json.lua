-- SPDX-License-Identifier: MIT
--- A value as JSON: tables with the keys 1 to n and no others are lists, keys of the others are sorted.
local marea = require "marea"

local ESCAPES = {['"'] = '\\"', ["\\"] = "\\\\"}

local function text(s)
  return '"' .. s:gsub('[%c"\\]', function(c) return ESCAPES[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

local encode

local function list(t, indent)
  local parts, flat = {}, type(t[1]) ~= "table"
  for i, v in ipairs(t) do parts[i] = encode(v, indent .. "  ") end
  if flat then return "[" .. table.concat(parts, ", ") .. "]" end
  return ("[\n%s  %s\n%s]"):format(indent, table.concat(parts, ",\n  " .. indent), indent)
end

local function object(t, indent)
  local parts = {}
  for key, v in pairs(t) do parts[#parts + 1] = ("%s: %s"):format(text(tostring(key)), encode(v, indent .. "  ")) end
  table.sort(parts)
  return ("{\n%s  %s\n%s}"):format(indent, table.concat(parts, ",\n  " .. indent), indent)
end

function encode(value, indent)
  indent = indent or ""
  if type(value) == "string" then return text(value) end
  if type(value) ~= "table" then return type(value) == "number" and marea.format("%.6g", value) or tostring(value) end
  local count = 0
  for _ in pairs(value) do count = count + 1 end
  return count == #value and (count > 0 and list(value, indent) or "[]") or object(value, indent)
end

return encode
