-- SPDX-License-Identifier: MIT
--- A page of the documentation as a user follows it: what stands behind `> ` is typed at the program's prompt, what
--- stands below it must come.
---
--- Fences: ```lua name and ```diff name write and change a file; other fences with `> ` are sessions. In the output,
--- `...` stands for any text, as a line of its own for any lines, and `^C` for a Ctrl-C when the lines above have come.
--- Pictures in letters, which differ a little between machines, are compared by their darkness.
local folder = require "spec.support.folder"

local document = {}

local SHADES = " .:-=+*#%@"
local MARK = "\1" -- printed behind each entry

--- The fenced blocks of a page: {info = "lua digits.lua", heading = "Digits", lines = {...}}.
function document.blocks(path)
  local blocks, block, heading = {}, nil, nil
  for line in io.lines(path) do
    local info = line:match "^```(.*)$"
    if info and block then block = nil
    elseif info then
      block = {info = info, heading = heading, lines = {}}
      blocks[#blocks + 1] = block
    elseif block then block.lines[#block.lines + 1] = line
    else heading = line:match "^#+ (.*)$" or heading end
  end
  return blocks
end

--- {typed = {lines}, expected = {lines}} of a session.
function document.entries(lines)
  local entries = {}
  for _, line in ipairs(lines) do
    local first, more, entry = line:match "^> (.*)$", line:match "^>> (.*)$", entries[#entries]
    if first then entries[#entries + 1] = {typed = {first}, expected = {}}
    elseif more then entry.typed[#entry.typed + 1] = more
    elseif entry then entry.expected[#entry.expected + 1] = line end
  end
  return entries
end

-- ---- comparing ----

local function line_fits(expected, line)
  local pattern = expected:gsub("[%^%$%(%)%%%[%]%*%+%-%?]", "%%%0"):gsub("%.%.%.", "\0"):gsub("%.", "%%.")
  return line:find("^" .. pattern:gsub("%z", ".*") .. "$") ~= nil
end

--- Do lines[j..] fit expected[i..]?
local function fits(expected, lines, i, j)
  if i > #expected then return j > #lines end
  if expected[i] ~= "..." then
    return lines[j] ~= nil and line_fits(expected[i], lines[j]) and fits(expected, lines, i + 1, j + 1)
  end
  for k = j, #lines + 1 do
    if fits(expected, lines, i + 1, k) then return true end
  end
  return false
end

local function shade(line, i) return (SHADES:find(line:sub(i, i), 1, true) or 1) - 1 end

local function is_picture(lines)
  local ink = 0
  for i = 1, #lines - 1 do
    if lines[i]:find "[^ %.:%-=%+%*#%%@]" then return false end
    ink = ink + #lines[i]
  end
  return ink > 0
end

--- The same place is as dark, but for half of the ink; the last line names shape and scale.
local function looks_like(expected, lines)
  local difference, ink = 0, 0
  for i = 1, #expected - 1 do
    for k = 1, math.max(#expected[i], #lines[i]) do
      local a = shade(expected[i], k)
      difference, ink = difference + math.abs(a - shade(lines[i], k)), ink + a
    end
  end
  return difference < 0.5 * ink and expected[#expected] == lines[#lines]
end

function document.matches(expected, lines)
  if #expected == #lines and is_picture(expected) then return looks_like(expected, lines) end
  return fits(expected, lines, 1, 1)
end

-- ---- the program ----

local Program = {}
Program.__index = Program

--- The prompt of the program in `home`, fed through a pipe.
local function open(program, home)
  assert(os.execute(("mkfifo %s/typed"):format(home)))
  local output = io.popen(("cd %s && LC_ALL=C exec %s -i <typed 2>&1"):format(home, program))
  local input = io.open(home .. "/typed", "w")
  input:setvbuf "line"
  local self = setmetatable({input = input, output = output, prompt = "> "}, Program)
  output:read "l" -- the greeting
  self:enter{"io.stdout:setvbuf 'line'"}
  self.pid = assert(self:enter{"io.open('/proc/self/stat'):read 'n'"}[1])
  return self
end

function Program:close()
  self.input:close()
  self.output:close()
end

--- What the prompt says to an entry. With `interrupted` a Ctrl-C comes as soon as these lines have come.
function Program:enter(typed, interrupted)
  self.input:write(table.concat(typed, "\n"), ("\nprint '%s'\n"):format(MARK))
  local lines, prompt = {}, "> " .. (">> "):rep(#typed - 1)
  for line in self.output:lines() do
    if #lines == 0 and line:sub(1, #prompt) == prompt then line = line:sub(#prompt + 1) end
    if line == MARK or line == "> " .. MARK then break end
    lines[#lines + 1] = line
    if interrupted and document.matches(interrupted, lines) then
      os.execute("kill -INT " .. self.pid)
      interrupted = nil
    end
  end
  return lines
end

-- ---- a page ----

local function change(path, lines)
  local text = folder.read(path)
  local function all(sign)
    local found = {}
    for _, line in ipairs(lines) do
      if line:sub(1, 1) == sign then found[#found + 1] = line:sub(2) end
    end
    return table.concat(found, "\n")
  end
  local at, stop = text:find(all "-", 1, true)
  assert(at, path .. " has not the lines that are to be changed")
  folder.write(path, text:sub(1, at - 1) .. all "+" .. text:sub(stop + 1))
end

--- The lines above and below ^C; without one: nil and all.
local function around_interrupt(expected)
  for i, line in ipairs(expected) do
    if line == "^C" then
      local whole = table.move(expected, 1, i - 1, 1, {})
      return table.move(expected, 1, i - 1, 1, {}), table.move(expected, i + 1, #expected, i, whole)
    end
  end
  return nil, expected
end

local function check(program, entry, failures)
  local before, expected = around_interrupt(entry.expected)
  local lines = program:enter(entry.typed, before)
  if document.matches(expected, lines) then return end
  failures[#failures + 1] = ("> %s\n-- expected --\n%s\n-- got --\n%s"):format(table.concat(entry.typed, "\n>> "),
    table.concat(expected, "\n"), table.concat(lines, "\n"))
end

--- Follows a page in the folder `home`.
---@return string[] failures
---@return integer entries that were typed
function document.follow(path, program, home)
  local run, failures, typed = open(program, home), {}, 0
  for _, block in ipairs(document.blocks(path)) do
    local kind, name = block.info:match "^(%a+) (.+)$"
    if kind == "lua" then folder.write(home .. "/" .. name, table.concat(block.lines, "\n") .. "\n")
    elseif kind == "diff" then change(home .. "/" .. name, block.lines)
    else
      for _, entry in ipairs(document.entries(block.lines)) do
        check(run, entry, failures)
        typed = typed + 1
      end
    end
  end
  run:close()
  return failures, typed
end

--- The Lua of a page, its blocks one after the other.
function document.lua(path)
  local parts = {}
  for _, block in ipairs(document.blocks(path)) do
    if block.info == "lua" then parts[#parts + 1] = table.concat(block.lines, "\n") end
  end
  return table.concat(parts, "\n")
end

return document
