-- SPDX-License-Identifier: MIT
--- The commands of the prompt, in the order in which :help lists them. One is
---
---   {name = "time", usage = ":time code", doc = "one line", run = function(session, argument) ... end}
---
--- run gets the session (see marea.repl) and what follows the command's name, without spaces around it; what it
--- returns is shown: a text, nothing, or nil and a message that is an error. It may raise. `completes`, if there is
--- one, says what the argument is: "code" or "file".
local core = require "marea.core"

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

local function list()
  local lines, width = {}, 0
  for _, command in ipairs(commands) do width = math.max(width, #command.usage) end
  for i, command in ipairs(commands) do
    lines[i] = ("  %s%s   %s"):format(command.usage, (" "):rep(width - #command.usage), command.doc)
  end
  return table.concat(lines, "\n")
end

local INTRODUCTION = [[
Lua is run as you type it; the value of an expression is shown, and kept in _. The library is there as marea, its parts
as nn, optim, dist, data, image, plot, ...

  ?conv2d   ?nn.Conv2d   ?x.sum      what it takes and does, with an example
  Tab                                completes names, methods, arguments in f{...}, file names in strings
  Ctrl-C                             stops what runs, or drops what is typed     Ctrl-D   leaves

]]

add{
  name = "help", usage = ":help [topic]", doc = "this text; with a topic, the same as ?topic", completes = "code",
  run = function(session, argument)
    if argument == "" then return INTRODUCTION .. list() end
    return session:help(argument)
  end,
}

add{
  name = "quit", usage = ":quit", doc = "leave (Ctrl-D does so too)",
  run = function(session) session.finished = true end,
}

--- 0.000123 -> "123 us".
local function duration(seconds)
  if seconds < 1e-3 then return ("%.3g us"):format(seconds * 1e6) end
  if seconds < 1 then return ("%.3g ms"):format(seconds * 1e3) end
  return ("%.2f s"):format(seconds)
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

return commands
