-- SPDX-License-Identifier: MIT
--- Workers: programs that stay and answer requests, so that contestants can take turns without starting anew.
---
--- A worker prints "ready NAME AND VERSION", then reads lines "KIND name=value ..." and answers each with
--- "ok NUMBER NUMBER ..." (and a remark behind "# ") or "error WHY". It ends with its input. Requests go through a
--- FIFO, answers through a pipe; what a worker writes to stderr is kept in build/bench/NAME.log.
local worker = {}

local FOLDER = "build/bench"

local Worker = {}
Worker.__index = Worker

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

--- Starts a program. environment: {NAME = value}; nil, message when it is not there or does not get ready.
function worker.start(name, command, environment)
  local file = ("%s/%s"):format(FOLDER, name:gsub("%W+", "-"))
  os.remove(file .. ".fifo")
  assert(os.execute(("mkdir -p %s && mkfifo %s"):format(FOLDER, quote(file .. ".fifo"))))
  local settings = {"env -u OPENBLAS_CORETYPE"}
  for key, value in pairs(environment or {}) do settings[#settings + 1] = key .. "=" .. quote(value) end
  local self = setmetatable({name = name}, Worker)
  self.answers = assert(io.popen(("%s %s < %s 2> %s"):format(table.concat(settings, " "), command,
    quote(file .. ".fifo"), quote(file .. ".log"))))
  self.requests = assert(io.open(file .. ".fifo", "w")) -- waits for the shell to open the other end
  self.requests:setvbuf "line"
  os.remove(file .. ".fifo")
  self.version = (self.answers:read "l" or ""):match "^ready (.+)"
  if self.version then return self end
  self:close()
  return nil, "see " .. file .. ".log"
end

--- The numbers of the answer and its remark; nil, message.
function Worker:ask(request)
  if self.ended then return nil, self.name .. " has ended" end
  self.requests:write(request, "\n")
  local line = self.answers:read "l"
  if not line then
    self.ended = true
    return nil, self.name .. " ended on: " .. request
  end
  local body, remark = line:match "^ok ?([^#]*)#? ?(.*)"
  if not body then return nil, ("%s: %s: %s"):format(self.name, request, line) end
  local numbers = {}
  for word in body:gmatch "%S+" do numbers[#numbers + 1] = tonumber(word) end
  return numbers, remark
end

function Worker:close()
  self.requests:close()
  self.answers:close()
end

return worker
