-- SPDX-License-Identifier: MIT
--- marea.load_csv and marea.save_csv.
local core = require "marea.core"
local check = require "marea.internal.check"
local extra = require "marea.internal.extra"
local files = require "marea.internal.files"
local raw = require "marea.internal.raw"

local csv = {}

local MISSING <const> = {"NA", "N/A", "NaN", "nan", "NULL", "null", "None"}
local MOST_MISSING <const> = 32
local KINDS <const> = {text = "text", f32 = "f32", f64 = "f64", i64 = "i64"}
local PIECE <const> = 1 << 20 -- bytes that are read at once

local function check_separator(what, separator)
  if separator == nil then return "," end
  if type(separator) == "string" and separator:find "^[^%w.+\"\r\n\0\x80-\xff-]$" then return separator end
  check.fail(what, "separator", "one character of no number or word, not a quote or the end of a line", separator)
end

local function texts_of(what, name, list, most)
  local n = check.items(what, name, list, "a list of texts", 0)
  if most and n > most then check.raise("%s: argument '%s': expected at most %d texts, got %d", what, name, most, n) end
  for i, text in ipairs(list) do check.string(what, ("%s[%d]"):format(name, i), text) end
  return list
end

local function read_options(options)
  options = check.options("load_csv", options, {"separator", "header", "names", "missing", "types"})
  local types = options.types or {}
  if not check.is_plain(types) then check.fail("load_csv", "types", "a table of types by name", types) end
  for _, name in ipairs(check.names(types)) do
    check.choice("load_csv", ("types.%s"):format(name), types[name], KINDS)
  end
  return {
    separator = check_separator("load_csv", options.separator),
    header = check.boolean("load_csv", "header", options.header, true),
    names = options.names and texts_of("load_csv", "names", options.names),
    missing = options.missing and texts_of("load_csv", "missing", options.missing, MOST_MISSING) or MISSING,
    types = types,
  }
end

--- Gives a file to a parser, in pieces: what it finds.
---@param read fun(): string|nil, string|nil
local function parse(read, o, texts)
  local parser = extra.load("csv", "load_csv").parser(o.separator, o.header, o.missing, texts)
  while true do
    local piece, problem = read()
    if problem then return nil, problem end
    if not piece then return parser:finish() end
    local ok, message = parser:feed(piece)
    if not ok then return nil, message end
  end
end

--- A function that begins to read an open file, as often as it is called. What cannot be read twice, a pipe, is kept.
local function reader_of(file)
  if file:seek() then
    return function()
      file:seek "set"
      return function() return file:read(PIECE) end
    end
  end
  local whole, problem = file:read "a"
  return function()
    local rest = whole
    return function()
      local piece = rest
      rest = nil
      return piece, problem
    end
  end
end

--- The columns' names: given, in the first line, or numbers.
local function names_of(o, found, n)
  local names = o.names or (o.header and found) or {}
  if o.names and #o.names ~= n then return nil, ("it has %d columns; names has %d"):format(n, #o.names) end
  local seen = {}
  for i = 1, n do
    local name = names[i] or tostring(i)
    names[i] = name
    if seen[name] then return nil, ("columns %d and %d have the same name '%s'"):format(seen[name], i, name) end
    seen[name] = i
  end
  for _, name in ipairs(check.names(o.types)) do
    if not seen[name] then return nil, ("it has no column '%s', which types names"):format(name) end
  end
  return names
end

--- The kind of each column, as asked for; which ones are texts, and whether there are any.
local function choose(o, names, kinds, columns)
  local texts, any = {}, false
  for i, name in ipairs(names) do
    local wanted = o.types[name]
    if wanted and wanted ~= "text" and kinds[i] == "text" then
      return nil, ("column '%s': %s"):format(name, columns[i])
    end
    if wanted == "i64" and kinds[i] ~= "I64" then
      return nil, ("column '%s' has values that are no integers"):format(name)
    end
    texts[i] = kinds[i] == "text" or wanted == "text"
    any = any or texts[i]
  end
  return texts, any
end

local function tensors_of(o, names, kinds, columns, texts)
  local list, places, result = {}, {}, {}
  for i, name in ipairs(names) do
    if not texts[i] then
      list[#list + 1] = {dtype = kinds[i], shape = {#columns[i] // 8}, bytes = columns[i]}
      places[#list] = name
    end
  end
  for k, t in ipairs(raw.tensors(list)) do result[places[k]] = t:to(o.types[places[k]] or t.dtype) end
  return result
end

local function load(file, o)
  local reader = reader_of(file)
  local found, kinds, columns = parse(reader(), o)
  if not found then return nil, kinds end
  local names, message = names_of(o, found, #kinds)
  if not names then return nil, message end
  local texts, any = choose(o, names, kinds, columns)
  if not texts then return nil, any end
  local result = tensors_of(o, names, kinds, columns, texts)
  if any then
    local again, problem, lists = parse(reader(), o, texts)
    if not again then return nil, problem end
    for i, name in ipairs(names) do result[name] = result[name] or lists[i] end
  end
  return result, names
end

function csv.load(path, options)
  check.string("load_csv", "path", path)
  local o = read_options(options)
  local file <close>, message = io.open(path, "rb")
  if not file then return core.failed("load_csv: " .. core.printable(message)) end
  local columns, names = load(file, o)
  if not columns then return core.failed(("load_csv: '%s': %s"):format(core.printable(path), core.printable(names))) end
  return columns, names
end

-- ---- out ----

--- A column's values as texts.
local function cells(what, name, column, separator)
  if core.is_tensor(column) then
    if column.rank ~= 1 then check.fail(what, ("columns.%s"):format(name), "a tensor (rows) or a list", column) end
    column = column:totable()
  elseif not check.is_plain(column) then
    check.fail(what, ("columns.%s"):format(name), "a tensor (rows) or a list of texts and numbers", column)
  end
  local special, list = ("[\"\r\n%%%s]"):format(separator), {}
  for i, value in ipairs(column) do
    local text = "" -- no value
    if type(value) == "string" then
      text = (value == "" or value:find(special)) and '"' .. value:gsub('"', '""') .. '"' or value
    elseif math.type(value) == "integer" then text = core.format("%d", value)
    elseif type(value) == "number" and value == value then text = core.format("%.17g", value)
    elseif value and value == value then
      check.fail(what, ("columns.%s[%d]"):format(name, i), "a text, a number or false for none", value)
    end
    list[i] = text
  end
  return list
end

function csv.save(columns, path, options)
  if not check.is_plain(columns) then check.fail("save_csv", "columns", "a table of columns by name", columns) end
  check.string("save_csv", "path", path)
  options = check.options("save_csv", options, {"separator", "names"})
  local separator = check_separator("save_csv", options.separator)
  local names = options.names and texts_of("save_csv", "names", options.names) or check.names(columns)
  local head, all = {}, {}
  for i, name in ipairs(names) do
    if columns[name] == nil then check.raise("save_csv: there is no column '%s'", name) end
    head[i] = cells("save_csv", "names", {name}, separator)[1]
    all[i] = cells("save_csv", name, columns[name], separator)
    if #all[i] ~= #all[1] then
      check.raise("save_csv: column '%s' has %d rows, '%s' %d", name, #all[i], names[1], #all[1])
    end
  end
  return files.write(path, function(put)
    put(table.concat(head, separator) .. "\n")
    for row = 1, #(all[1] or {}) do
      local line = {}
      for i = 1, #all do line[i] = all[i][row] end
      local text = table.concat(line, separator)
      put((text == "" and MISSING[1] or text) .. "\n") -- an empty line is no row
    end
  end, "save_csv")
end

return csv
