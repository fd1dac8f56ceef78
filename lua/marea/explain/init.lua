-- SPDX-License-Identifier: MIT
--- marea.explain: what an error message says beyond its first line. Nothing here runs before there is an error.
---
--- Messages of the library get at most two lines: which variables of the script hold the tensors, with the lines that
--- made them, and a hint. Messages of Lua itself ("attempt to call a nil value") get a hint from `explain`, which a
--- message handler calls, as the program does: xpcall(f, marea.traceback).
local core = require "marea.core"
local check = require "marea.internal.check"
local frames = require "marea.explain.frames"

local explain = {}

local getlocal = debug.getlocal or function() end -- a host's debug library may have none

local FRAMES = 3 -- frames of the script in which names are looked for
local TENSORS = 3 -- tensors that are described

-- ---- the tensors of a failed call ----

local own_names = {item = {"t"}, backward = {"t"}, index = {"t"}, copy_ = {"t", "src"}, fill_ = {"t"}, zero_ = {"t"},
  requires_grad_ = {"t"}, grad = {"y", "xs"}, ["t[...] = v"] = {"t", "key", "v"}}

--- The names of the arguments of a function of the core, and whether they may be given as one list.
local function names_of(function_name)
  if own_names[function_name] then return own_names[function_name], false end
  local operator = core.ops[function_name] and function_name or function_name:gsub("_$", "")
  if not core.ops[operator] then return {}, false end
  local names = {}
  local inputs = core.op_info(operator).inputs
  for i, input in ipairs(inputs) do names[i] = input.name end
  return names, inputs[1] ~= nil and inputs[1].variadic
end

--- The tensors that the C function at `level` was given: a list of {name, tensor}.
local function inputs_of(function_name, level)
  local names, variadic = names_of(function_name)
  local list = {}
  local function add(name, value)
    if core.origin(value) then list[#list + 1] = {name = name, tensor = value} end
  end
  local _, first = getlocal(level + 1, 1)
  if variadic and type(first) == "table" then
    for i = 1, math.min(rawlen(first), 8) do add("tensor " .. i, rawget(first, i)) end
    return list
  end
  for i = 1, variadic and 8 or #names do
    local found, value = getlocal(level + 1, i)
    if not found then break end
    add(variadic and "tensor " .. i or names[i], value)
  end
  return list
end

--- The first values that the C function at `level` was given.
local function arguments_of(level)
  local list = {n = 0}
  for i = 1, 4 do
    local found, value = getlocal(level + 1, i)
    if not found then break end
    list[i], list.n = value, i
  end
  return list
end

--- "x: 'images', made at train.lua:2 by reshape"; nil when there is nothing to tell.
local function describe(input, script, place)
  local name, parts = frames.name_of(script, input.tensor), {}
  local line, operator = core.origin(input.tensor)
  local by = operator and #core.op_info(operator).inputs > 0 and " by " .. operator or ""
  if name and name ~= input.name then parts[1] = ("'%s'"):format(name) end
  if line and line ~= place then parts[#parts + 1] = ("made at %s%s"):format(line, by)
  elseif by ~= "" and not name then parts[#parts + 1] = ("made%s on this line"):format(by) end
  if #parts == 0 then return nil end
  return ("%s: %s"):format(input.name, table.concat(parts, ", "))
end

local function tensor_line(inputs, script, message, place)
  local told = {}
  for _, input in ipairs(inputs) do
    local wanted = input.name ~= "bias" or message:find("'bias'", 1, true)
    local text = wanted and #told < TENSORS and describe(input, script, place)
    if text then told[#told + 1] = text end
  end
  return #told > 0 and "\n  " .. table.concat(told, "; ") or ""
end

--- "methods are called with a colon: net:train()" when that is what is wrong.
local function dotted()
  local method, frame = frames.without_object()
  if not method or not frame then return nil end
  local line = frames.source_line(frame)
  local object = line:match("([%w_%.]+)%." .. method.name .. "%s*[%({\"']") or "object"
  -- net:summary() would be told the next mistake: it wants a shape.
  local is_complete = line:find("%." .. method.name .. "%s*%(%s*%)") and not method.isvararg
  local arguments = is_complete and "()" or "(...)"
  return ("methods are called with a colon: %s:%s%s"):format(object, method.name, arguments)
end

-- ---- messages of the library ----

--- Called by the core with each message that it is about to raise: the bare one, and the one with place and layer.
--- operation: whether an operator could not do its work, so that its tensors matter.
function explain.details(message, whole, operation)
  local name = message:match "^([^:]+):" or message:match "^index" or ""
  local script = frames.of_script(FRAMES)
  local call = debug.getinfo(2, "n") or {}
  local within = own_names[call.name] and call.name ~= name -- an operator of a reverse pass, whose inputs are its own
  local inputs = within and {} or inputs_of(name, 2)
  local place = whole:sub(1, whole:find(message, 1, true) - 1):match "^(.*:%d+): $"
  local about = operation or message:find "^index" or message:find "^item"
  local lines = about and tensor_line(inputs, script, message, place) or ""
  local failure = {inputs = inputs, arguments = arguments_of(2), script = script, call = call,
    caller = debug.getinfo(3, "nS") or {}}
  local hint = dotted() or require "marea.explain.hints"(message, failure)
  return hint and ("%s\n  hint: %s"):format(lines, hint) or lines
end

-- ---- messages of Lua ----

--- A module that is not found: one line when its name is nearly that of one there is.
local function not_found(message)
  local first, name = message:match "^(.-module '([^']+)' not found):"
  if not name then return message end
  if name == "argparse" then return first .. "\n  hint: Debian's package lua-argparse has it" end
  local guess = check.did_you_mean(name, {"marea", "argparse"})
  return guess ~= "" and first .. guess or message
end

--- Lua's own message about a line of the library, put at the line of the script.
local function at_script(message, script)
  local file, text = message:match "^(.-):%d+: (.*)$"
  local frame = script[1]
  if frame and message:find "^attempt to " then
    return ("%s:%d: %s"):format(frame.short_src, frame.currentline, message)
  end
  if not frame or not file or not frames.is_library(file) then return message end
  local where = text:find "^stack overflow" and "" or " (in Marea, called from here)"
  return ("%s:%d: %s%s"):format(frame.short_src, frame.currentline, text, where)
end

--- A message of Lua's own with a hint below it; other values as they are. To be called where the error happened, by a
--- message handler.
---@param message any
---@param text? string the source of a syntax error, where it is in no file
function explain.explain(message, text)
  if type(message) ~= "string" then return message end
  if message:find("\n", 1, true) then return not_found(message) end
  local script = frames.of_script(FRAMES)
  local hint = dotted() or require "marea.explain.language"(message, script, text)
  message = at_script(message, script)
  return hint and ("%s\n  hint: %s"):format(message, hint) or message
end

--- The same with a traceback of the script's frames below.
function explain.traceback(message)
  if type(message) ~= "string" then return message end
  message = explain.explain(message)
  return message .. require "marea.explain.traceback"(message)
end

return explain
