-- SPDX-License-Identifier: MIT
--- Argument checks of the Lua side: the same sentences as those of the operators, raised with the script's own line.
local core = require "marea.core"
local format = core.format

local check = {}

--- Tells the core the folder of the library's Lua files: frames of files in it are the library's, and messages name the
--- line of the script that called them. Returns what the sources of these files begin with, "@./lua/marea/"; nil when
--- the folder is not known.
---@param source string of a file of the library, as debug.getinfo gives it
---@param name string the file's path in the folder: "internal/check.lua"
function check.library(source, name)
  local prefix = source:sub(1, 1) == "@" and source:sub(-#name) == name and source:sub(1, -#name - 1) or nil
  if prefix then core.library(prefix) end
  return prefix
end

local prefix = check.library(debug.getinfo(1, "S").source, "internal/check.lua")

-- marea.explain adds further lines to messages. It is loaded with the first error.
core.explain_with(function(...) return require "marea.explain".details(...) end,
  function(word)
    local synonyms = require "marea.explain.synonyms"
    return (synonyms.of(word, "tensor") or synonyms.of(word, "argument")) ~= nil
  end)

--- The folder of the library's Lua files, with a slash at its end; "" when it is not known.
check.folder = prefix and prefix:sub(2) or ""

--- The folders in which the project's scripts and their data may be: that of the source tree and that of an
--- installation.
---@return string[] folders, each with a slash at its end
function check.script_folders()
  local list = {}
  for i, path in ipairs{"../../scripts/", "../../../marea/scripts/"} do
    local folder, changed = check.folder .. path, 1
    while changed > 0 do folder, changed = folder:gsub("%f[^/\0][^/%.][^/]*/%.%./", "", 1) end
    list[i] = folder
  end
  return list
end

--- Raises "FILE:LINE: message (layer 'path')" with the line of the script.
---@param text string a format as of string.format
function check.raise(text, ...)
  core.raise(select("#", ...) > 0 and core.format(text, ...) or text)
end

local LONGEST = 60 -- bytes; for longer words no candidate is looked for

--- Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
local function distance(a, b)
  local rows = {[0] = {}}
  for j = 0, #b do rows[0][j] = j end
  for i = 1, #a do
    local row = {[0] = i}
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], rows[i - 2][j - 2] + 1)
      end
    end
    rows[i] = row
  end
  return rows[#a][#b]
end

--- May a word of so many letters have so many mistakes? One in four letters, and one in words of three.
local function is_near(mistakes, letters)
  return letters >= 3 and (mistakes <= 1 or 4 * mistakes <= letters + 1)
end

--- "; did you mean 'x'?" for the candidate nearest to `word`; "" when none is near. "" also when other frameworks call
--- something of `owner` so: a hint then says what it is called here.
---@param word string
---@param candidates string[]
---@param owner? string see marea.explain.synonyms
function check.did_you_mean(word, candidates, owner)
  local best, least
  if #word > LONGEST then return "" end
  for _, candidate in ipairs(candidates) do
    local d = #candidate > LONGEST and math.huge or distance(word:lower(), candidate:lower())
    local near = is_near(d, #word)
    if near then d = d + distance(word, candidate) / 100 end -- capitals count when all else is equal
    if near and (not least or d < least or (d == least and candidate < best)) then
      best, least = candidate, d
    end
  end
  if not best then return "" end
  local is_same = word:lower() == best:lower()
  if owner and not is_same and require "marea.explain.synonyms".of(word, owner) then return "" end
  return ("; did you mean '%s'?"):format(best)
end

--- A table as messages name it: "a Linear", "the class Linear", "a list of 3", "a table".
local function describe_table(value)
  local meta = getmetatable(value)
  local name = type(meta) == "table" and rawget(meta, "__name")
  if rawget(value, "__module") == true then return "the class " .. tostring(rawget(value, "__name")) end
  if type(name) == "string" then return "a " .. name end
  return rawlen(value) > 0 and ("a list of %d"):format(rawlen(value)) or "a table"
end

--- "'eps', 'name'": names in their order.
---@param names string[]
function check.list(names)
  local sorted = table.move(names, 1, #names, 1, {})
  table.sort(sorted, core.before)
  return "'" .. table.concat(sorted, "', '") .. "'"
end

--- A value as messages name it: "string 'x'", "tensor f32 (2, 3)", "a list of 2".
function check.describe(value)
  local kind = type(value)
  if kind == "string" then return ("string '%s'"):format(value) end
  if value ~= value then return "nan" end
  if kind == "table" then return describe_table(value) end
  if kind == "number" or kind == "boolean" or kind == "nil" then return format("%s", value) end
  if core.is_tensor(value) then
    if value:is_released() then return "a tensor that was released" end
    return ("tensor %s %s"):format(value.dtype, check.shape_text(value.shape))
  end
  return "a " .. kind
end

--- A key as a script writes it behind a table: ".name", "[1]", '["1"]'.
---@param key string|integer
function check.key_text(key)
  if type(key) ~= "string" then return ("[%s]"):format(key) end
  return key:find "^[%a_][%w_]*$" and "." .. key or ("[%q]"):format(key)
end

--- "(2, 3)".
---@param shape integer[]
function check.shape_text(shape)
  return "(" .. table.concat(shape, ", ") .. ")"
end

--- "3x3" for a list of sizes, else the value as text.
function check.size_text(value)
  if type(value) ~= "table" then return format("%s", value) end
  local parts = {}
  for i, size in ipairs(value) do parts[i] = format("%s", size) end
  return table.concat(parts, "x")
end

--- Is it a table without a class: a list, a record, a shape?
function check.is_plain(value)
  return type(value) == "table" and (getmetatable(value) == nil or core.is_shape(value))
end

--- Raises "what: argument 'name': expected X, got Y".
function check.fail(what, name, expected, value)
  check.raise("%s: argument '%s': expected %s, got %s", what, name, expected, check.describe(value))
end

--- An object of a class, or a class, where a plain table is wanted?
local function is_object(t)
  local meta = getmetatable(t)
  return rawget(t, "__module") == true or type(meta) == "table" and rawget(meta, "__name") ~= nil
end

--- The length of a list. A hole raises "what: item 2 of 3 is nil": # and ipairs would end there, or behind it.
---@param what string the function, for messages
---@param list table
---@param item? string what messages call an item: "argument" when left out
---@param least? integer a length that is known: holes at the end count too
---@return integer
function check.length(what, list, item, least)
  local length = least or 0
  for key in next, list do
    if math.type(key) == "integer" and key > length then length = key end
  end
  for i = 1, length do
    if rawget(list, i) == nil then check.raise("%s: %s %d of %d is nil", what, item or "argument", i, length) end
  end
  return length
end

--- A list that is the argument `name`: without holes, of at least `least` items. Raises when it is none.
---@param what string the function, for messages
---@param name string
---@param list any
---@param expected string what messages say of it
---@param least? integer 0 when left out
---@return integer length
function check.items(what, name, list, expected, least)
  if type(list) ~= "table" then check.fail(what, name, expected, list) end
  local length = check.length(what, list, ("argument '%s': item"):format(name))
  if length < (least or 0) then check.fail(what, name, expected, list) end
  return length
end

local FEW = 2 -- positional arguments; a list of more may be one that the script has made and shortened

--- The number of array slots that a table constructor such as {4, undefined} has made (2), the empty one at the end
--- included, up to `most`. `next` accepts the key of an empty slot and raises for any other key that is not in the
--- table.
local function places_of(t, most)
  local n = 0
  while n < most and pcall(next, t, n + 1) do n = n + 1 end
  return n
end

--- A value that check.keywords passes in place of a table of arguments: check.options then raises the names it accepts.
local probe = {}

--- Is it a plain table with some of the names and nothing else, as most are? It makes nothing, so that calls in a loop
--- stay cheap.
local function is_named(options, names)
  if type(options) ~= "table" or next(options) == nil or getmetatable(options) ~= nil or options == probe then
    return false
  end
  for key in next, options do
    local found = false
    for i = 1, #names do
      if names[i] == key then
        found = true
        break
      end
    end
    if not found then return false end
  end
  return true
end

--- The table of arguments of a call such as nn.Linear{10, bias = false}: string keys must be among `names`, and at
--- most `positional` values may have none, and none of these is missing: nn.Linear{4, undefined} raises.
---@param what string the function, for messages
---@param options any
---@param names string[]
---@param positional? integer
---@return table options itself, an empty table for nil
function check.options(what, options, names, positional)
  if options == nil then return {} end
  if (positional or 0) == 0 and is_named(options, names) then return options end
  if options == probe then error({probe = probe, names = names}) end
  if type(options) ~= "table" or is_object(options) then
    check.raise("%s: expected its arguments in braces, as in %s{...}, got %s", what, what, check.describe(options))
  end
  local known, unknown = {}, {}
  for _, name in ipairs(names) do known[name] = true end
  for key in pairs(options) do
    if math.type(key) == "integer" then
      if key < 1 or key > (positional or 0) then
        check.raise("%s: too many arguments without a name: expected at most %d; those with a name: %s", what,
          positional or 0, check.list(names))
      end
    elseif not known[key] then
      unknown[#unknown + 1] = format("%s", key)
    end
  end
  if positional then check.length(what, options, nil, positional <= FEW and places_of(options, positional) or 0) end
  table.sort(unknown, core.before)
  if unknown[1] then
    local guess = check.did_you_mean(unknown[1], names, "argument")
    check.raise("%s: unknown argument '%s'%s", what, unknown[1],
      guess == "" and "; known: " .. check.list(names) or guess)
  end
  return options
end

--- Refuses arguments that would do nothing.
---@param given table by name
---@param names string[]
---@param where string why they would not, behind "does nothing": "with bias = false"
function check.idle(what, given, names, where)
  for _, name in ipairs(names) do
    if given[name] ~= nil then
      check.raise("%s: argument '%s' does nothing %s, got %s", what, name, where, check.describe(given[name]))
    end
  end
end

--- A number that needs no name: {0.5} or {p = 0.5}, not both.
function check.first(what, name, options)
  if options[1] ~= nil and options[name] ~= nil then
    check.raise("%s: argument '%s' was given twice, %s and %s = %s", what, name, check.describe(options[1]), name,
      check.describe(options[name]))
  end
  if options[name] ~= nil then return options[name] end
  return options[1]
end

---@return string
function check.string(what, name, value)
  if type(value) ~= "string" then check.fail(what, name, "a string", value) end
  return value
end

---@return integer
function check.integer(what, name, value, least)
  local n = type(value) == "number" and math.tointeger(value)
  if not n or (least and n < least) then
    check.fail(what, name, least and ("an integer of at least %d"):format(least) or "an integer", value)
  end
  return n --[[@as integer]]
end

---@return number
function check.number(what, name, value, low, high)
  if type(value) ~= "number" or value ~= value or (low and value < low) or (high and value > high) then
    local expected = "a number"
    if low and high then expected = format("a number from %g to %g", low, high)
    elseif low then expected = format("a number of at least %g", low) end
    check.fail(what, name, expected, value)
  end
  return value
end

--- true or false; `default` when nothing is given.
---@return boolean
function check.boolean(what, name, value, default)
  if value == nil then return default end
  if type(value) ~= "boolean" then check.fail(what, name, "true or false", value) end
  return value
end

--- `value` must be a key of `choices`; returns what is stored there.
function check.choice(what, name, value, choices)
  local chosen = type(value) == "string" and choices[value]
  if chosen then return chosen end
  local names = {}
  for key in pairs(choices) do names[#names + 1] = key end
  local hint = type(value) == "string" and check.did_you_mean(value, names, "argument") or ""
  check.raise("%s: argument '%s': expected one of %s, got %s%s", what, name, check.list(names), check.describe(value),
    hint)
end

--- A number or a list of two of them as {height, width}.
---@return integer[]
function check.pair(what, name, value, least)
  if type(value) == "number" then
    local n = check.integer(what, name, value, least)
    return {n, n}
  end
  if type(value) ~= "table" or #value ~= 2 then check.fail(what, name, "an integer or {height, width}", value) end
  return {check.integer(what, name, value[1], least), check.integer(what, name, value[2], least)}
end

---@return userdata
function check.tensor(what, name, value)
  if not core.is_tensor(value) then check.fail(what, name, "a tensor", value) end
  return value
end

--- A state that is to be loaded: a table of tensors by name and nothing else.
---@return table<string, userdata>
function check.state(what, state)
  if type(state) ~= "table" then check.fail(what, "state", "a table of tensors", state) end
  if not check.is_plain(state) then check.fail(what, "state", "a table of tensors without a metatable", state) end
  for name in next, state do
    if type(name) ~= "string" then check.fail(what, "state", "a table of tensors by name", state) end
  end
  for _, name in ipairs(check.names(state)) do check.tensor(what, name, state[name]) end
  return state
end

--- A list of sizes, without holes.
---@return integer[]
function check.sizes(what, name, list)
  for i = 1, check.items(what, name, list, "a list of sizes") do
    check.integer(what, ("%s[%d]"):format(name, i), list[i], 0)
  end
  return list
end

--- Makes reading an unknown key of a library table an error that guesses what was meant. Keys of `lazy` are
--- modules that are loaded when they are first read.
---@param name string the table's name in messages
---@param lazy? table<string, string> key -> name of the Lua module
---@param call? function what calling the table does
function check.strict(t, name, lazy, call)
  return setmetatable(t, {
    __lazy = lazy,
    __call = call,
    __index = function(self, key)
      local path = lazy and lazy[key]
      if path then
        local value = require(path)
        rawset(self, key, value)
        return value
      end
      if type(key) ~= "string" or key:sub(1, 2) == "__" then return nil end
      check.raise("%s has no field '%s'%s", name, key, check.did_you_mean(key, check.names(self), name))
    end,
  })
end

--- The string keys of a table and of the tables behind its __index, those of lazy modules included, sorted. Runs no
--- metamethod.
---@return string[]
function check.names(t)
  local names, seen = {}, {}
  local function add(keys)
    for key in next, keys do
      if type(key) == "string" and not seen[key] then
        seen[key] = true
        names[#names + 1] = key
      end
    end
  end
  for _ = 1, 20 do -- a bound for chains of __index that lead in a circle
    add(t)
    local meta = debug.getmetatable(t)
    if not meta then break end
    if rawget(meta, "__lazy") then add(meta.__lazy) end
    t = rawget(meta, "__index")
    if type(t) ~= "table" then break end
  end
  table.sort(names, core.before)
  return names
end

--- The names of the arguments that f{...} takes, [] when f does not read them by check.options before anything else.
---@param f function
---@return string[]
function check.keywords(f, ...)
  local arguments = table.pack(...)
  arguments[arguments.n + 1] = probe
  local ok, found = pcall(f, table.unpack(arguments, 1, arguments.n + 1))
  return not ok and type(found) == "table" and found.probe == probe and found.names or {}
end

return check
