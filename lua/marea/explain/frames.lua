-- SPDX-License-Identifier: MIT
--- The script's frames at the moment of an error: their variables, and names for the values in them.
local core = require "marea.core"

local frames = {}

-- A host may have a debug library without them; names are left out then.
local getlocal, getupvalue = debug.getlocal or function() end, debug.getupvalue or function() end

local DEEPEST = 200 -- levels of the stack that are searched
local FIELDS = 1000 -- fields of one table that are searched
local ENTRIES = 10000 -- fields of all tables that the search for one name visits
local LONGEST = 400 -- bytes; longer lines of source are not read

local typed -- what the prompt is running: {chunk, text}
local gone = {} -- names of local variables of what the prompt ran before
local lost -- the message that a function of the library gave with nil in what the prompt ran before: {message, line}

--- For prompts: tells which chunk is about to be run and its text, which cannot be had from the chunk's frame.
--- Tracebacks end at this chunk.
---@param chunk function
---@param text string
function frames.typed(chunk, text)
  for names in (typed and typed.text or ""):gmatch "%f[%w_]local%s+([%a_][%w_%s,]*)" do
    for name in names:gsub("^function%s", ""):gmatch "[%a_][%w_]*" do gone[name] = true end
  end
  local message, source, number = core.last_failure(true) -- its line is one of that text, not of this one
  if typed and message and source == debug.getinfo(typed.chunk, "S").short_src then
    lost = {message = message, line = frames.source_line({func = typed.chunk, source = ""}, number)}
  end
  typed = {chunk = chunk, text = text}
end

--- Does a line of code name the variable?
function frames.names(line, variable)
  return line:find("%f[%w_]" .. variable:gsub("%W", "%%%0") .. "%f[^%w_]") ~= nil
end

--- The message that something of the library gave beside nil in something that the prompt ran before, in a line that
--- names the variable.
function frames.lost_before(frame, variable)
  if not lost or not variable or not frames.is_typed(frame) then return nil end
  return frames.names(lost.line, variable) and lost.message or nil
end

--- Was it a local variable of something that the prompt ran before?
function frames.is_gone(frame, name) return frames.is_typed(frame) and gone[name] == true end

--- Is this the frame of the chunk that the prompt runs?
function frames.is_typed(frame) return typed ~= nil and frame.func == typed.chunk end

--- Is a file, as messages of Lua shorten its name, one of the library's that is at work?
---@param short_src string
function frames.is_library(short_src)
  for level = 2, DEEPEST do
    local info = debug.getinfo(level, "S")
    if not info then return false end
    if info.short_src == short_src and core.module_of(info.source) then return true end
  end
  return false
end

local function locals_of(level)
  local list, i = {}, 1
  local name, value = getlocal(level + 1, 1)
  while name do
    if name:sub(1, 1) ~= "(" then list[#list + 1] = {name = name, value = value} end
    i = i + 1
    name, value = getlocal(level + 1, i)
  end
  return list
end

--- The innermost frames that are neither C nor the library's, each as debug.getinfo describes it, with `locals`: a list
--- of {name, value} in the order of their declaration.
---@param most integer so many of them
function frames.of_script(most)
  local list = {}
  for level = 2, DEEPEST do
    local frame = debug.getinfo(level, "Slnf")
    if not frame or #list == most then break end
    if frame.what ~= "C" and not core.module_of(frame.source) then
      frame.locals = locals_of(level)
      list[#list + 1] = frame
    end
  end
  return list
end

--- Is it a value that methods are called on?
local function is_object(value)
  local meta = debug.getmetatable and debug.getmetatable(value)
  return type(value) == "table" and type(meta) == "table"
end

--- The call, by a line of the script, of a method that did not get its object: the method's frame, with its name, and
--- the frame of the line. The object is missing when a method is called with a dot.
---@return table|nil method, table|nil frame
function frames.without_object()
  local method, by_library = nil, nil
  for level = 2, DEEPEST do
    local frame = debug.getinfo(level, "Slnfu")
    if not frame then return nil end
    local is_library = core.module_of(frame.source) ~= nil
    if method and not is_library and frame.what ~= "C" then return method, frame end
    local first, self = getlocal(level, 1)
    local missing = frame.what ~= "C" and first == "self" and not is_object(self) and (is_library or self == nil)
    method = missing and frame.name and frame or nil
    if not is_library and frame.what ~= "C" then
      if by_library then return nil end
      by_library = true
    end
  end
end

--- What the frame's code can see, the innermost first: a list of {name, value}; and its table of globals.
function frames.variables(frame)
  local list, globals = {}, nil
  for i = #frame.locals, 1, -1 do list[#list + 1] = frame.locals[i] end
  for i = 1, frame.func and 255 or 0 do
    local name, value = getupvalue(frame.func, i)
    if not name then break end
    if name == "_ENV" then globals = value else list[#list + 1] = {name = name, value = value} end
  end
  return list, type(globals) == "table" and globals or _G
end

--- A global variable, looked for without a call: true where only a function could tell.
local function global(t, name)
  for _ = 1, 5 do
    local value = rawget(t, name)
    local meta = getmetatable(t)
    if value ~= nil or type(meta) ~= "table" then return value end
    local lazy = rawget(meta, "__lazy") -- what the prompt's __index loads
    if type(lazy) == "table" then return rawget(lazy, name) end
    t = rawget(meta, "__index")
    if type(t) ~= "table" then return t ~= nil or nil end
  end
  return nil
end

--- The value of a variable by its name: true, value when there is a local one or a global one that is not nil.
function frames.variable(frame, name)
  local list, globals = frames.variables(frame)
  for _, variable in ipairs(list) do
    if variable.name == name then return true, variable.value end
  end
  local value = global(globals, name)
  return value ~= nil, value
end

--- The first key (integers, then strings, both sorted) under which a table has the value.
---@param most? integer entries that are visited
---@return integer|string|nil key, integer visited
local function key_of(t, value, most)
  local best
  local visited = 0
  for key, item in next, t do
    if visited >= (most or FIELDS) then break end
    visited = visited + 1
    if rawequal(item, value) and (math.type(key) == "integer" or type(key) == "string")
      and (best == nil or core.before(key, best)) then
      best = key
    end
  end
  return best, visited
end

local function join(name, key)
  return math.type(key) == "integer" and ("%s[%d]"):format(name, key) or ("%s.%s"):format(name, key)
end

--- What a script calls a value: "images", "self.scale", "batch[1]"; nil when it has no name. The variables of all
--- frames come before fields of tables in them.
---@param list table[] from frames.of_script
function frames.name_of(list, value)
  for _, frame in ipairs(list) do
    local variables, globals = frames.variables(frame)
    for _, variable in ipairs(variables) do
      if rawequal(variable.value, value) then return variable.name end
    end
    local name = (key_of(globals, value))
    if name then return tostring(name) end
  end
  local left = ENTRIES
  for _, frame in ipairs(list) do
    for _, variable in ipairs((frames.variables(frame))) do
      if type(variable.value) == "table" then
        local key, visited = key_of(variable.value, value, math.min(FIELDS, left))
        if key then return join(variable.name, key) end
        left = left - visited
      end
    end
  end
  return nil
end

--- The lines of a frame's source, as far as they can be had.
---@return string[]
function frames.source_lines(frame)
  local source, list = frame.source, {}
  if typed and frame.func == typed.chunk then source = typed.text end
  if source:sub(1, 1) == "=" then return list end
  local file = source:sub(1, 1) == "@" and io and io.open(source:sub(2)) -- hosts may have no io
  local text = file and file:read "a" or source
  if file then file:close() end
  if source:sub(1, 1) == "@" and not file then return list end
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    list[#list + 1] = #line <= LONGEST and line:gsub("\r$", "") or ""
  end
  return list
end

--- Line `number` of a frame's source, the one it is at when left out; "" when it cannot be had.
function frames.source_line(frame, number)
  return frames.source_lines(frame)[number or frame.currentline] or ""
end

return frames
