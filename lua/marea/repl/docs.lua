-- SPDX-License-Identifier: MIT
--- Reads the documentation in comments of Lua sources, and finds the comment that belongs to a value.
---
--- A block of lines that begin with `---` belongs to the function, class or field below it; the first block of a file
--- describes the file, unless a function follows it. Tags are LuaCATS': `---@param name? type text`, `---@return type
--- text`, `---@class Name  text`, `---@field name? type text`; and `---@example code`, which help shows and the tests
--- run.
local core = require "marea.core"
local check = require "marea.internal.check"

local docs = {}

-- ---- the parser ----

---@class Entry
---@field kind string "function", "class", "field" or "file"
---@field name string as it is written: "image.grid", "Module:summary", "Conv2d"
---@field short string its last part
---@field line integer where the definition begins, which a function knows as its linedefined
---@field arguments string[] of a function
---@field text string[] lines
---@field params {name: string, type: string, optional: boolean, text: string}[]
---@field fields {name: string, type: string, optional: boolean, text: string}[] of a class
---@field returns string[]
---@field examples string[]
---@field base string|nil the class that a class inherits from
---@field file Entry|nil of a class whose file explains more: with an example, or because the class has no text

local function new_entry()
  return {text = {}, params = {}, fields = {}, returns = {}, examples = {}, arguments = {}}
end

--- A type at the beginning of `text` and what follows it: brackets may hold spaces.
---@param text string
---@return string type, string rest
function docs.split_type(text)
  local depth, i = 0, 1
  while i <= #text do
    local c = text:sub(i, i)
    if c:find "[%({<%[]" then depth = depth + 1
    elseif c:find "[%)}>%]]" then depth = depth - 1
    elseif c == " " and depth == 0 and not text:sub(1, i - 1):find "[:,|]$" then break
    end
    i = i + 1
  end
  return text:sub(1, i - 1), (text:sub(i):gsub("^%s+", ""))
end

local LISTS = {param = "params", field = "fields"}

local function read_tag(entry, tag, rest)
  if LISTS[tag] then
    local name, optional, after = rest:match "^([%w_%.]+)(%??)%s*(.*)$"
    if not name then return end
    local kind, text = docs.split_type(after)
    table.insert(entry[LISTS[tag]], {name = name, type = kind, optional = optional == "?", text = text})
  elseif tag == "return" then entry.returns[#entry.returns + 1] = rest
  elseif tag == "example" then entry.examples[#entry.examples + 1] = rest
  elseif tag == "class" then
    local name, text = rest:match "^([%w_]+)(.*)$"
    entry.class, entry.base = name, text:match "^:%s*([%w_%.]+)"
    text = text:gsub("^:%s*[%w_%.]+", ""):gsub("^%s+", "")
    if text ~= "" then entry.text[#entry.text + 1] = text end
  end
end

local function read_comment(entry, line)
  local tag, rest = line:match "^%-%-%-%s?@(%w+)%s*(.*)$"
  if tag then
    read_tag(entry, tag, rest)
    entry.last = tag
  elseif LISTS[entry.last] and not line:find "^%-%-%-%s%S" then -- a parameter's text goes on
    local param = entry[LISTS[entry.last]][#entry[LISTS[entry.last]]]
    param.text = param.text .. " " .. line:match "^%-%-%-%s*(.*)$"
  else
    entry.text[#entry.text + 1] = line:match "^%-%-%-%s?(.*)$"
  end
end

--- What a line of code defines: kind, name, arguments.
local function definition(line)
  local name, arguments = line:match "^%s*local%s+function%s+([%w_]+)%s*(%b())"
  if not name then name, arguments = line:match "^%s*function%s+([%w_%.:]+)%s*(%b())" end
  if not name then name, arguments = line:match "^%s*([%w_%.]+)%s*=%s*function%s*(%b())" end
  if not name then name, arguments = "function", line:match "^%s*return%s+function%s*(%b())" end
  if arguments then return "function", name, arguments end
  name = line:match "^%s*local%s+([%w_]+)%s*=" or line:match "^%s*([%w_%.]+)%s*="
  if name then return "field", name end
end

local function attach(entry, line, number)
  local kind, name, arguments = definition(line)
  if not kind then return nil end
  entry.kind, entry.name, entry.line = kind, name, number
  if entry.class and kind == "field" then entry.kind, entry.name = "class", entry.class end
  for argument in (arguments or ""):gmatch "[%w_%.]+" do entry.arguments[#entry.arguments + 1] = argument end
  entry.short = entry.name:match "([%w_]+)$"
  return entry
end

--- The documented definitions of a Lua source, and functions without a comment.
---@param source string
---@return Entry[] entries, Entry|nil file
function docs.parse(source)
  local entries, file, entry, number, begun = {}, nil, nil, 0, false
  for line in (source .. "\n"):gmatch "([^\n]*)\n" do
    number = number + 1
    local comment = line:match "^%s*(%-%-%-.*)$"
    if comment and not comment:find "^%-%-%-%-" then
      entry = entry or new_entry()
      read_comment(entry, comment)
    elseif not line:find "^%-%-" and not line:find "^#!" then
      if entry and not begun and definition(line) ~= "function" then
        file, entry.kind = entry, "file"
      elseif line:find "%S" then
        entries[#entries + 1] = attach(entry or new_entry(), line, number)
      end
      entry, begun = nil, true
    end
  end
  return entries, file
end

-- ---- files ----

local parsed = {} -- of the library's files, which stay as they are

--- The entries of a file, and the file's own; nothing when it cannot be read.
---@return Entry[] entries, Entry|nil file
function docs.file(path)
  local known = parsed[path]
  if known then return known.entries, known.file end
  local handle = io.open(path, "r")
  if not handle then return {}, nil end
  local entries, file = docs.parse(handle:read "a" or "")
  handle:close()
  if docs.is_library(path) then parsed[path] = {entries = entries, file = file} end
  return entries, file
end

function docs.is_library(path)
  return core.module_of("@" .. path) ~= nil
end

--- The file and line of a Lua function; nil for others.
local function place_of(f)
  local info = debug.getinfo(f, "S")
  if info.what == "C" then return nil end
  return info.source:match "^@(.*)$", info.linedefined
end

-- ---- from a value to its entry ----

--- The entry of the function that begins in this line; of one without a name or text, that of the function around it.
local function entry_at(path, line)
  local around
  for _, entry in ipairs((docs.file(path))) do
    local bare = entry.name == "function" and #entry.text == 0
    if entry.kind == "function" and entry.line == line then return bare and around or entry end
    if entry.kind == "function" and #entry.text > 0 and entry.line < line then around = entry end
  end
end

--- Files in which the functions of a table are defined, itself and what it keeps in tables, in the order of the keys.
local function files_of(t)
  local paths = {}
  local function add(value)
    local path = type(value) == "function" and place_of(value)
    if path then paths[#paths + 1] = path end
  end
  for _, key in ipairs(check.names(t)) do
    local value = rawget(t, key)
    add(value)
    if type(value) == "table" then
      for _, inner in ipairs(check.names(value)) do add(rawget(value, inner)) end
    end
  end
  return paths
end

local function has_code(entry)
  for _, line in ipairs(entry.text) do
    if line:find "^%s%s%S" then return true end
  end
  return false
end

local function class_entry(class)
  local name = rawget(class, "__name")
  if type(name) ~= "string" then return nil end
  for _, path in ipairs(files_of(class)) do
    local entries, file = docs.file(path)
    for _, entry in ipairs(entries) do
      if entry.short == name and entry.kind ~= "function" then
        if file and (has_code(file) or #entry.text == 0) then entry.file = file end
        return entry
      end
    end
  end
end

--- The file of a module that was loaded by its name.
local function file_entry(t)
  for name, loaded in pairs(package.loaded) do
    if rawequal(loaded, t) and type(name) == "string" then
      local path = package.searchpath(name, package.path)
      return path and select(2, docs.file(path)) or nil
    end
  end
end

--- The definitions of what is written in C: stubs with comments.
function docs.core()
  return (docs.file(check.folder .. "repl/core_docs.lua"))
end

local function core_entry(f)
  for _, entry in ipairs(docs.core()) do
    local place = entry.name:find "^Tensor:" and core.methods or core
    if rawget(place, entry.short) == f then return entry end
  end
end

--- For a class that a local function defines, such as `window` in nn/pool.lua: the comment of that function.
local function maker_entry(class)
  local init = rawget(class, "init")
  local path, line = nil, nil
  if type(init) == "function" then path, line = place_of(init) end
  if not path or rawget(class, "operator") then return nil end
  local found
  for _, entry in ipairs((docs.file(path))) do
    if entry.kind == "function" and #entry.text > 0 and entry.line < line then found = entry end
  end
  return found and setmetatable({kind = "class", file = false}, {__index = found})
end

--- What is documented about a value: a function, a class or a module. nil: nothing.
---@return Entry|nil
function docs.of(value)
  if type(value) == "function" then
    local path, line = place_of(value)
    if path then return entry_at(path, line) end
    return core_entry(value)
  end
  if type(value) == "table" then return class_entry(value) or maker_entry(value) or file_entry(value) end
end

-- ---- arguments by name ----

local function in_library(f)
  local path = type(f) == "function" and place_of(f)
  return path ~= nil and path ~= false and docs.is_library(path)
end

--- May the class be called to ask for its arguments? Only where no code of the script would run.
local function may_ask(class)
  local meta = debug.getmetatable(class)
  if not meta or not in_library(rawget(meta, "__call")) then return false end
  return not rawget(class, "__module") or in_library(class.init)
end

--- The names in a type such as "{columns: integer?, gap: integer?}".
local function names_in_type(kind)
  local names = {}
  local inside = kind:match "^(%b{})"
  for name in (inside or ""):sub(2):gmatch "([%a_][%w_]*)%s*:" do names[#names + 1] = name end
  return names
end

--- The arguments that a function or class takes by name, in a table; empty when none are known.
---@return string[]
function docs.keywords(f)
  if type(f) == "table" then return may_ask(f) and check.keywords(f) or {} end
  if type(f) ~= "function" then return {} end
  local entry = docs.of(f)
  for _, param in ipairs(entry and entry.params or {}) do
    local names = names_in_type(param.type)
    if #names > 0 then return names end
  end
  if in_library(f) and debug.getlocal(f, 1) == "options" then return check.keywords(f) end
  return {}
end

return docs
