-- SPDX-License-Identifier: MIT
--- Any value as text for people, in bounded time and space: tables one or two levels deep, tensors and networks as they
--- show themselves.
local core = require "marea.core"
local check = require "marea.internal.check"
local format = core.format

local inspect = {}

local WIDTH = 100 -- letters; a longer table takes several lines
local ENTRIES = 20 -- entries of a table that are shown
local INNER = 8 -- entries of a table in a table that are shown
local LINES = 60 -- lines of a network that are shown
local VISITED = 2000 -- keys of a table, apart from its list, that are read
local LETTERS = 60 -- letters of a string in a table that are shown

-- ---- single values ----

--- The first n bytes, or a few less, so that the text does not end in the middle of a letter.
local function beginning(s, n)
  while n > 0 and (s:byte(n + 1) or 0) & 0xC0 == 0x80 do n = n - 1 end
  return s:sub(1, n)
end

local function string_text(s)
  local shown = #s > LETTERS and beginning(s, LETTERS) or s
  shown = ("%q"):format(shown):gsub("\\\n", "\\n"):gsub("\r", "\\r"):gsub("\t", "\\t")
  shown = core.printable(shown)
  return #s > LETTERS and shown .. "..." or shown
end

local function function_text(f)
  local info = debug.getinfo(f, "Su")
  if info.what == "C" then return "function" end
  local names = {}
  for i = 1, info.nparams do names[i] = debug.getlocal(f, i) end
  if info.isvararg then names[#names + 1] = "..." end
  return ("function(%s)"):format(table.concat(names, ", "))
end

local function tensor_text(t)
  if t:is_released() then return "a tensor that was released" end
  if t.rank == 0 then return tostring(t) end
  return ("tensor %s %s"):format(t.dtype, check.shape_text(t.shape))
end

--- What an object's own __tostring says; nil when it has none or fails.
local function own_text(value)
  local meta = debug.getmetatable(value)
  if type(meta) ~= "table" or rawget(meta, "__tostring") == nil then return nil end
  local ok, text = pcall(tostring, value)
  if not ok then return nil end
  return type(value) == "userdata" and text:gsub("[ :]*%(?0x%x+%)?$", "") or text
end

local function first_line(text)
  local line = text:match "^[^\n]*"
  return #line < #text and line:gsub("%s*{$", "") or line
end

-- ---- tables ----

local function key_text(key)
  if type(key) == "string" then return key:find "^[%a_][%w_]*$" and key or ("[%s]"):format(string_text(key)) end
  if type(key) == "table" then return "[table]" end
  return ("[%s]"):format(inspect.text(key, 0))
end

--- Numbers, then strings, then the rest; the rest keeps no order that means anything, so it goes by its text.
local function key_before(a, b)
  local ta, tb = type(a), type(b)
  if ta ~= tb then
    if ta == "number" or tb == "number" then return ta == "number" end
    if ta == "string" or tb == "string" then return ta == "string" end
    return ta < tb
  end
  if ta == "number" or ta == "string" then return core.before(a, b) end
  return core.before(key_text(a), key_text(b))
end

--- Keys that are not in the list 1..n, sorted; whether there may be more.
local function other_keys(t, n)
  local keys, visited = {}, 0
  local key = nil
  if n > VISITED then key = n end -- a long list is not walked
  while true do
    key = next(t, key)
    if key == nil then return table.sort(keys, key_before) or keys, false end
    local listed = math.type(key) == "integer" and key >= 1 and key <= n
    if not listed then keys[#keys + 1] = key end
    visited = visited + 1
    if visited > VISITED + n and visited > 2 * VISITED then return table.sort(keys, key_before) or keys, true end
  end
end

--- Entries as text, and how many are left out (math.huge: not counted).
local function entries_of(t, most, depth)
  local parts, n = {}, rawlen(t)
  for i = 1, math.min(n, most) do parts[i] = inspect.text(rawget(t, i), depth - 1) end
  local keys, more = other_keys(t, n)
  for i = 1, math.min(#keys, most - #parts) do
    parts[#parts + 1] = ("%s = %s"):format(key_text(keys[i]), inspect.text(rawget(t, keys[i]), depth - 1))
  end
  return parts, more and math.huge or n + #keys - #parts
end

local function left_out(n)
  if n <= 0 then return nil end
  return n == math.huge and "... more" or ("... %d more"):format(n)
end

local function class_name(t)
  local meta = debug.getmetatable(t)
  local name = type(meta) == "table" and rawget(meta, "__name")
  return type(name) == "string" and name .. " " or ""
end

--- A value on one line; tables `depth` levels deep.
---@param depth? integer
---@return string
function inspect.text(value, depth)
  local kind = type(value)
  if kind == "string" then return string_text(value) end
  if kind == "function" then return function_text(value) end
  if core.is_tensor(value) then return tensor_text(value) end
  local own = own_text(value)
  if own then return first_line(own) end
  if kind ~= "table" then return kind == "number" and format("%s", value) or (tostring(value):gsub(": 0x%x+$", "")) end
  if next(value) == nil then return class_name(value) .. "{}" end
  if (depth or 1) <= 0 then return class_name(value) .. "{...}" end
  local parts, rest = entries_of(value, INNER, depth or 1)
  parts[#parts + 1] = left_out(rest)
  return ("%s{%s}"):format(class_name(value), table.concat(parts, ", "))
end

local function table_text(t)
  local parts, rest = entries_of(t, ENTRIES, 2)
  if #parts == 0 then return class_name(t) .. "{}" end
  parts[#parts + 1] = left_out(rest)
  local line = ("%s{%s}"):format(class_name(t), table.concat(parts, ", "))
  if #line <= WIDTH then return line end
  local lines = {}
  for i, part in ipairs(parts) do
    part = first_line(part)
    if #part > WIDTH then part = beginning(part, WIDTH) .. "..." end
    lines[i] = "  " .. part .. (i < #parts and "," or "")
  end
  return ("%s{\n%s\n}"):format(class_name(t), table.concat(lines, "\n"))
end

--- An operator with its arguments; another function with the place that defines it.
local function function_value(f)
  for _, name in ipairs(core.op_names()) do
    if core.ops[name] == f then return "function " .. require "marea.repl.help".signature(core.op_info(name)) end
  end
  local info = debug.getinfo(f, "S")
  return function_text(f) .. (info.what == "C" and "" or (", %s:%d"):format(info.short_src, info.linedefined))
end

--- A text of many lines, its beginning only.
local function bounded(text, most)
  local at, lines = 0, 0
  while lines < most do
    at = text:find("\n", at + 1, true)
    if not at then return text end
    lines = lines + 1
  end
  local _, rest = text:sub(at + 1):gsub("\n", "")
  return ("%s\n... %d more lines"):format(text:sub(1, at - 1), rest + 1)
end

--- A value as the prompt shows it, on as many lines as it needs.
---@return string
function inspect.value(value)
  if type(value) == "string" then return value end
  if core.is_tensor(value) then return tostring(value) end
  local own = own_text(value)
  if own then return require "marea.nn.module".is_module(value) and bounded(own, LINES) or own end
  if type(value) == "table" then return table_text(value) end
  if type(value) == "function" then return function_value(value) end
  return inspect.text(value)
end

return inspect
