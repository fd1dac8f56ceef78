-- SPDX-License-Identifier: MIT
--- A program in a real terminal (tmux), typed at and looked at as a person would.
local clock = require "marea.core".clock
local folder = require "spec.support.folder"

local terminal = {}

---@class Terminal
local Terminal = {}
Terminal.__index = Terminal

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

--- Starts a command line in a terminal of its own.
---@param command string
---@param options? {width: integer?, height: integer?}
---@return Terminal
function terminal.open(command, options)
  local o = options or {}
  local self = setmetatable({folder = folder.new()}, Terminal)
  self:tmux(("new-session -d -x %d -y %d %s"):format(o.width or 100, o.height or 30,
    quote("exec " .. command))) -- so that the pane's process is the program
  return self
end

--- Runs a command of tmux; returns what it says.
function Terminal:tmux(command)
  local pipe = assert(io.popen(("TERM=xterm tmux -S %s/socket -f /dev/null %s 2>&1"):format(self.folder, command)))
  local text = pipe:read "a"
  pipe:close()
  return text
end

function Terminal:type(text) self:tmux("send-keys -l " .. quote(text)) end

--- Presses keys: "Enter", "Tab", "Up", "C-c", ...
function Terminal:press(...)
  for _, key in ipairs{...} do self:tmux("send-keys " .. key) end
end

function Terminal:enter(text)
  self:type(text)
  self:press "Enter"
end

--- Pastes; with `marked`, the terminal marks the ends of the text if the program has asked for it.
function Terminal:paste(text, marked)
  local path = folder.write(self.folder .. "/paste", text)
  self:tmux("load-buffer " .. path)
  self:tmux("paste-buffer " .. (marked and "-p" or ""))
end

function Terminal:resize(width, height)
  self:tmux(("resize-window -x %d -y %d"):format(width, height))
end

--- What the screen shows, with what has scrolled away, without empty lines at the end.
function Terminal:screen()
  return (self:tmux "capture-pane -p -S -5000":gsub(" +\n", "\n"):gsub("%s+$", ""))
end

--- Waits until the screen ends with this text, spaces at its ends aside; raises with the screen when it does not.
---@return string screen
function Terminal:wait(text, seconds)
  local last, screen = clock() + (seconds or 10), self:screen()
  text = text:gsub("%s+$", "")
  while screen:sub(-#text) ~= text and clock() < last do
    os.execute "sleep 0.02"
    screen = self:screen()
  end
  if screen:sub(-#text) == text then return screen end
  error(("the terminal does not end with '%s' but shows\n%s"):format(text, screen), 2)
end

--- Ends the program as a person does, by Ctrl-D; by force when it does not end so.
function Terminal:close()
  self:press("C-c", "C-d")
  local last = clock() + 2
  while self:tmux "has-session" == "" and clock() < last do os.execute "sleep 0.02" end
  self:tmux "kill-server"
end

return terminal
