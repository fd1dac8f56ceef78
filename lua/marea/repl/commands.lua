-- SPDX-License-Identifier: MIT
--- The commands of the prompt, in the order in which :help lists them. One is
---
---   {name = "time", usage = ":time code", doc = "one line", run = function(session, argument) ... end}
---
--- run gets the session (see marea.repl) and what follows the command's name, without spaces around it; what it
--- returns is shown: a text, nothing, or nil and a message that is an error. It may raise. `completes`, if there is
--- one, says what the argument is: "code" or "file".
local core = require "marea.core"
local layout = require "marea.internal.layout"
local format = core.format

local commands = {}

local function add(command)
  commands[#commands + 1] = command
end

--- The command that `word` names: its name, or a beginning that no other has.
---@return table|nil
function commands.find(word)
  local found
  for _, command in ipairs(commands) do
    if command.name == word then return command end
    if command.name:sub(1, #word) == word then
      if found then return nil end
      found = command
    end
  end
  return found
end

local INTRODUCTION = "Lua is run as you type it; the value of an expression is shown, and kept in _. The library is "
  .. "there as marea, its parts as nn, optim, dist, data, image, plot, ..."

local KEYS = {
  {"?conv2d", "what it takes and does, with an example; so do ?nn.Conv2d and ?x.sum"},
  {"Tab", "completes names, methods, arguments in f{...}, file names in strings"},
  {"Ctrl-C", "stops what runs, or drops what is typed"},
  {"Ctrl-D", "leaves"},
}

local function introduction()
  local rows = {}
  for i, command in ipairs(commands) do rows[i] = {command.usage, command.doc} end
  return table.concat({layout.wrapped(INTRODUCTION, ""), layout.two_columns(KEYS), layout.two_columns(rows)}, "\n\n")
end

add{
  name = "help", usage = ":help [topic]", completes = "code",
  doc = "this text; with a topic, what ?topic says; with a command, that line of it",
  run = function(session, argument)
    if argument == "" then return introduction() end
    local command = commands.find((argument:gsub("^:", "")))
    local text, message = session:help(argument)
    if text or not command then return text, message end
    return command.usage .. "\n" .. layout.wrapped(command.doc, "  ")
  end,
}

add{
  name = "quit", usage = ":quit", doc = "leave (Ctrl-D does so too)",
  run = function(session) session.finished = true end,
}

--- 0.000123 -> "123 us".
local function duration(seconds)
  if seconds < 1e-3 then return format("%.3g us", seconds * 1e6) end
  if seconds < 1 then return format("%.3g ms", seconds * 1e3) end
  return format("%.2f s", seconds)
end

add{
  name = "time", usage = ":time code", doc = "run Lua and say how long it took", completes = "code",
  run = function(session, argument)
    if argument == "" then return nil, "time: expected Lua to run, as in :time net(x)" end
    local begun = core.clock()
    local result = session:run(argument)
    local took = core.clock() - begun
    if not result.ok then return nil, result.text end
    return (result.text and result.text .. "\n" or "") .. duration(took)
  end,
}

add{
  name = "profile", usage = ":profile code", doc = "run Lua and say where the time went: layers, operators, the script",
  completes = "code",
  run = function(session, argument)
    if argument == "" then return nil, "profile: expected Lua to run, as in :profile net(x)" end
    local result
    local report = require "marea.profile"(function() result = session:run(argument) end)
    if not result.ok then return nil, result.text end
    return tostring(report)
  end,
}

add{
  name = "memory", usage = ":memory", doc = "what takes the memory: the largest tensors and the lines that made them",
  run = function() return tostring(require "marea.memory_report"()) end,
}

--- Shows what an expression gives.
local function show(session, expression)
  local result = session:run(expression)
  if not result.ok then return nil, result.text end
  return result.text
end

add{
  name = "plan", usage = ":plan net {128, 28, 28, 1}",
  doc = "shapes, FLOPs and peak memory of a batch before it is run; or of code, :plan step()", completes = "code",
  run = function(session, argument)
    if argument == "" then return nil, "plan: expected a module and the shape of a batch, as in :plan net {1, 3}" end
    local name, comma, shapes = argument:match "^([%a_][%w_%.]*)%s*(,?)%s*(.*)$"
    if name and (shapes == "" or comma == "," or shapes:find "^{.*}$") then
      local inputs = shapes == "" and "" or ", " .. shapes:gsub("}%s*{", "}, {")
      return show(session, ("require 'marea.plan'(%s%s)"):format(name, inputs))
    end
    local f, what = session:compile(argument)
    if not f then return nil, what end
    return tostring(require "marea.plan"(function() return select(what + 1, f()) end))
  end,
}

--- "net {4, 4}" -> "net, {4, 4}": puts commas between arguments; nil when the result is no Lua either.
local function with_commas(session, text)
  if session:load("return " .. text) then return text end
  local first, rest
  for gap, after in text:gmatch "()%s+()%S" do
    if session:load("return " .. text:sub(1, gap - 1)) then first, rest = text:sub(1, gap - 1), text:sub(after) end
  end
  rest = rest and with_commas(session, rest)
  return rest and first .. ", " .. rest
end

add{
  name = "gradcheck", usage = ":gradcheck f, x, ...", doc = "gradients of a function or a module against differences",
  completes = "code",
  run = function(session, argument)
    if argument == "" then return nil, "gradcheck: expected a function and its arguments, as in :gradcheck net, x" end
    local meant = with_commas(session, argument)
    if meant and meant ~= argument then
      return nil, ("gradcheck: expected commas between the arguments; did you mean ':gradcheck %s'?"):format(meant)
    end
    return show(session, ("require 'marea.gradcheck'(%s)"):format(argument))
  end,
}

-- ---- edit and rerun: docs/rerun.md ----

--- The words of a command line; those in '...' or "..." may have spaces.
local function words_of(text)
  local words, at = {}, text:match "^%s*()"
  while at <= #text do
    local word, after = text:match("^'([^']*)'%s*()", at)
    if not word then word, after = text:match('^"([^"]*)"%s*()', at) end
    if not word then word, after = text:match("^(%S+)%s*()", at) end
    words[#words + 1], at = word, after
  end
  return words
end

--- Runs the script that the argument names, else the last one again, by rerun() or rerun.watch().
local function run_script(name, how, argument)
  local rerun = require "marea.rerun"
  local words = words_of(argument)
  local path = table.remove(words, 1) or rerun.last()
  if not path then return nil, ("%s: expected a script, as in :%s train.lua"):format(name, name) end
  local options = {arguments = argument ~= "" and words or nil, report = print}
  if how == rerun.watch then options.message = print end
  local ok, report, message = pcall(how, path, options)
  if ok then return nil, message and require "marea.explain".explain(message) end
  if not tostring(report):find "interrupted" then return nil, rerun.traceback(path) or tostring(report) end
  return "interrupted; :rerun goes on, :variables has the script's variables"
end

add{
  name = "rerun", usage = ":rerun [file ...]", completes = "file",
  doc = "run a script with what its last run has learned; without a name, the last script",
  run = function(_, argument) return run_script("rerun", require "marea.rerun", argument) end,
}

add{
  name = "watch", usage = ":watch [file ...]", completes = "file",
  doc = "the same, and again whenever a file of the script is saved, until Ctrl-C",
  run = function(_, argument) return run_script("watch", require "marea.rerun".watch, argument) end,
}

add{
  name = "variables", usage = ":variables [file]", completes = "file",
  doc = "give the prompt the local variables of the script that ran last",
  run = function(session, argument)
    local found, message = require "marea.rerun".variables(argument ~= "" and argument or nil)
    if not found then return nil, message end
    local names = {}
    for name, value in pairs(found) do
      rawset(session.env, name, value)
      names[#names + 1] = name
    end
    table.sort(names, core.before)
    return table.concat(names, ", ")
  end,
}

add{
  name = "back", usage = ":back [file]", completes = "file",
  doc = "take the last run back: the next :rerun begins with what that one began with",
  run = function(_, argument)
    local _, message = require "marea.rerun".back(argument ~= "" and argument or nil)
    return nil, message
  end,
}

add{
  name = "forget", usage = ":forget [file]", doc = "the next :rerun begins anew", completes = "file",
  run = function(_, argument) require "marea.rerun".forget(argument ~= "" and argument or nil) end,
}

return commands
