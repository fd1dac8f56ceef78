-- SPDX-License-Identifier: MIT
--- What the word in front of the cursor may become: names, fields and methods, paths inside a network, arguments of
--- a call by name, choices and file names inside strings. It looks at values without running any code of the script.
local core = require "marea.core"
local check = require "marea.internal.check"

local complete = {}

local KEYWORDS = {"and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
  "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while"}

-- ---- where the cursor is ----

local OPENS = {["("] = true, ["{"] = true, ["["] = true}
local CLOSES = {[")"] = true, ["}"] = true, ["]"] = true}

--- Where a string or comment that begins at i ends; nil when it does not.
local function skip(text, i)
  local level = text:match("^%-%-%[(=*)%[", i) or text:match("^%[(=*)%[", i)
  if level then return select(2, text:find("]" .. level .. "]", i, true)) end
  if text:find("^%-%-", i) then return text:find("\n", i, true) end
  local quote, at = text:sub(i, i), i + 1
  while true do
    at = text:find("[\\\n" .. quote .. "]", at)
    if not at then return nil end
    local found = text:sub(at, at)
    if found ~= "\\" then return at end
    at = at + 2
  end
end

--- Goes through Lua source up to its end: where the string begins that the end lies in, if it does; whether it lies
--- in a comment; and the brackets that are open there, {at =, c = the bracket, comma = where the last comma is}.
local function scan(text)
  local open, i = {}, 1
  while true do
    i = text:find("[%(%){}%[%],;\"'%-]", i)
    if not i then return {open = open} end
    local c = text:sub(i, i)
    local long = text:find("^%[=*%[", i) or text:find("^%-%-", i)
    if long or c == '"' or c == "'" then
      local stop = skip(text, i)
      if not stop then return {open = open, string = c ~= "-" and i or nil, comment = c == "-"} end
      i = stop
    elseif OPENS[c] then open[#open + 1] = {at = i, c = c, comma = i}
    elseif CLOSES[c] then open[#open] = nil
    elseif (c == "," or c == ";") and #open > 0 then open[#open].comma = i
    end
    i = i + 1
  end
end

-- ---- values without code ----

--- t[key] as Lua finds it through tables; lazy modules are loaded.
local function field(value, key)
  for _ = 1, 20 do
    if core.is_tensor(value) then return core.methods[key] end
    local meta = debug.getmetatable(value)
    if type(value) == "table" then
      local found = rawget(value, key)
      if found ~= nil then return found end
      local lazy = meta and rawget(meta, "__lazy")
      if lazy and lazy[key] then return require(lazy[key]) end
    end
    if not meta then return nil end
    value = rawget(meta, "__index")
    if type(value) ~= "table" then return nil end
  end
end

--- The parts of the chain of names at the end of `text`: "f(net.enc[1].conv" -> {"net", "enc", 1, "conv"}; nil: none.
local function chain(text)
  local parts = {}
  while true do
    local head, key = text:match "^(.*)%[(%-?%d+)%]$"
    if not head then head, key = text:match "^(.*)%[[\"']([^\"']*)[\"']%]$" end
    if head then
      table.insert(parts, 1, math.tointeger(tonumber(key)) or key)
      text = head
    else
      local before, name = text:match "^(.-)([%a_][%w_]*)$"
      if not name then return nil end
      table.insert(parts, 1, name)
      if not before:find "[%.:]$" or before:find "%.%.$" then return parts end
      text = before:sub(1, -2)
    end
  end
end

--- The value that a chain of names stands for; nil when there is none.
---@param env table the globals
---@param parts any[]
function complete.resolve(env, parts)
  local value = env
  for _, key in ipairs(parts) do
    value = field(value, key)
    if value == nil then return nil end
  end
  return value
end

--- The value of "net.enc[1].conv" and the chain's keys.
function complete.value(env, text)
  local parts = chain(text)
  if not parts then return nil end
  return complete.resolve(env, parts), parts
end

-- ---- candidates ----

local function is_callable(value)
  local meta = debug.getmetatable(value)
  return type(value) == "function" or (type(meta) == "table" and rawget(meta, "__call") ~= nil)
end

--- The names that begin with `word`, sorted; private ones (with "_" in front) only when the word begins so.
local function matching(names, word)
  local list, seen = {}, {}
  for _, name in ipairs(names) do
    local fits = name:sub(1, #word) == word and (name:sub(1, 1) ~= "_" or word ~= "")
    if fits and not seen[name] and name:find "^[%a_][%w_]*$" then
      seen[name] = true
      list[#list + 1] = name
    end
  end
  table.sort(list, core.before)
  return list
end

local function names_in(value)
  if core.is_tensor(value) then return check.names(core.methods) end
  if type(value) == "table" then return check.names(value) end
  local meta = debug.getmetatable(value)
  local index = type(meta) == "table" and rawget(meta, "__index")
  return type(index) == "table" and check.names(index) or {}
end

local function members(value, separator, word)
  if core.is_tensor(value) and separator == "." then
    local found = matching(core.fields, word)
    if #found > 0 then return found end
  end
  local names = matching(names_in(value), word)
  if separator == "." then return names end
  local methods = {}
  for _, name in ipairs(names) do
    if is_callable(field(value, name)) then methods[#methods + 1] = name end
  end
  return methods
end

local function globals(env, word)
  local names = check.names(env)
  table.move(KEYWORDS, 1, #KEYWORDS, #names + 1, names)
  return matching(names, word)
end

-- ---- arguments by name ----

--- The operator behind a function of the registry: its op_info.
local function operator(f, name)
  local known = type(name) == "string" and core.ops[name] == f
  return known and core.op_info(name) or nil
end

--- Choices of arguments that mean the same in all layers.
local LAYER_CHOICES = {
  activation = function() return require "marea.nn.activation_argument".names() end,
  init = function() return require "marea.nn.initializers".names() end,
  bias_init = function() return require "marea.nn.initializers".names() end,
  padding = function() return {"same", "valid"} end,
  dtype = function()
    local floats = {}
    for _, name in ipairs(core.dtypes) do floats[#floats + 1] = core.float_dtypes[name] and name or nil end
    return floats
  end,
}

--- The arguments that a call of the value `f`, found as `name`, takes by name: {name =, choices =}.
---@return {name: string, choices: string[]|nil}[]
function complete.arguments(f, name)
  local list, info = {}, operator(f, name)
  for _, part in ipairs(info and {info.inputs, info.attrs} or {}) do
    for _, spec in ipairs(part) do
      local choices = spec.choices or (spec.kind == "dtype" and core.dtypes)
        or ((spec.kind == "padding" or spec.kind == "sides") and {"same", "valid"}) or nil
      list[#list + 1] = {name = spec.name, choices = choices}
    end
  end
  if info then return list end
  local choices = require "marea.nn.module".is_class(f) and LAYER_CHOICES or {}
  for _, keyword in ipairs(require "marea.repl.docs".keywords(f)) do
    list[#list + 1] = {name = keyword, choices = choices[keyword] and choices[keyword]()}
  end
  return list
end

--- The function that the innermost bracket of the scan calls with a table, and the name it is found under.
local function callee(env, text, open)
  local last = open[#open]
  if not last or last.c ~= "{" then return nil end
  local before = text:sub(1, last.at - 1):gsub("%s+$", "")
  local outer = open[#open - 1]
  if outer and outer.c == "(" and before:find "[%(,]$" then before = text:sub(1, outer.at - 1):gsub("%s+$", "") end
  local f, parts = complete.value(env, before)
  if f == nil or not is_callable(f) then return nil end
  return f, parts[#parts]
end

--- Arguments that may be given where the word begins, as "name = ".
local function arguments(env, text, open, word)
  local last = open[#open]
  if not last or not text:sub(last.comma + 1, #text - #word):find "^%s*$" then return {} end
  local f, name = callee(env, text, open)
  if not f then return {} end
  local given, list = text:sub(last.at), {}
  for _, argument in ipairs(complete.arguments(f, name)) do
    local key = argument.name
    local fits = key:sub(1, #word) == word and not given:find("[{,;%s]" .. key .. "%s*=")
    if fits then list[#list + 1] = key .. " = " end
  end
  table.sort(list, core.before)
  return list
end

--- Choices of the argument whose string begins at `at`: f{padding = "sa.
local function choices(env, text, state, word)
  local key = text:sub(1, state.string - 1):match "([%a_][%w_]*)%s*=%s*$"
  local f, name = callee(env, text, state.open)
  if not key or not f then return {} end
  local list = {}
  for _, argument in ipairs(complete.arguments(f, name)) do
    for _, choice in ipairs(argument.name == key and argument.choices or {}) do
      if choice:sub(1, #word) == word then list[#list + 1] = choice end
    end
  end
  return list
end

-- ---- files ----

local function home(path)
  return (path:gsub("^~/", function() return (os.getenv "HOME" or "~") .. "/" end))
end

--- Names of files that continue a path.
---@param path string
---@return integer start of the last part of the path, string[] names
function complete.files(path)
  local folder, word = path:match "^(.*/)([^/]*)$"
  folder, word = folder or "", word or path
  local names = core.list_folder(folder == "" and "." or home(folder)) or {}
  local list = {}
  for _, name in ipairs(names) do
    if name:sub(1, #word) == word and (word ~= "" or name:sub(1, 1) ~= ".") then list[#list + 1] = name end
  end
  table.sort(list, core.before)
  return #folder + 1, list
end

-- ---- all together ----

--- What may stand in place of text:sub(start): candidates for the word in front of the cursor, which is at the end of
--- `text`.
---@param env table the globals
---@param text string Lua source up to the cursor
---@return integer start, string[] candidates
function complete.lua(env, text)
  local state = scan(text)
  if state.comment then return #text + 1, {} end
  if state.string then
    local inside = state.string + 1
    local list = choices(env, text, state, text:sub(inside))
    if #list > 0 then return inside, list end
    local start, files = complete.files(text:sub(inside))
    return inside + start - 1, files
  end
  local word = text:match "[%a_][%w_]*$" or ""
  local start = #text - #word + 1
  local base, separator = text:sub(1, start - 1):match "^(.-)%s*([%.:])$"
  if separator and base:sub(-1) ~= "." then
    local value = complete.value(env, base)
    if value == nil then return start, {} end
    return start, members(value, separator, word)
  end
  local list = arguments(env, text, state.open, word)
  if #list == 0 and word ~= "" then list = globals(env, word) end
  return start, list
end

return complete
