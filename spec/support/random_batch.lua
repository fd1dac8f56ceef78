-- SPDX-License-Identifier: MIT
--- Batches of random programs in processes of their own, which may crash.
local folder = require "spec.support.folder"
local random_program = require "spec.support.random_program"

local random_batch = {}

local SECONDS = 3600 -- of a batch; one that takes longer hangs

local root = folder.absolute "."

--- Runs spec/support/random_runner.lua in a folder of its own, for some of the files that programs write have any name.
---@return {output: string, ended: boolean, faults: integer, running: string} ended: with its last line
local function run(mode, ...)
  local at = folder.new()
  assert(os.execute("mkdir " .. folder.quote(at .. "/files")))
  local command = ("cd %s && LUA_PATH=%s timeout %d %s %s %s . %s 2>&1"):format(folder.quote(at),
    folder.quote(root .. "/?.lua;;"), SECONDS,
    folder.quote(("%s/%s/marea"):format(root, os.getenv "MAREA_BUILD" or "build")),
    folder.quote(root .. "/spec/support/random_runner.lua"), mode, table.concat({...}, " "))
  local pipe = assert(io.popen(command))
  local output = pipe:read "a"
  pipe:close()
  local faults = output:match "%d+ programs, (%d+) faults%s*$"
  local running = (folder.read(at .. "/running") or ""):gsub("%s+$", "")
  folder.remove(at)
  return {output = output, ended = faults ~= nil, faults = tonumber(faults or 0), running = running}
end

--- Runs the program in a file.
function random_batch.file(mode, path) return run(mode, folder.quote(folder.absolute(path))) end

--- The text without the statements without which it still `fails(text)`.
function random_batch.shortest(text, fails)
  if not fails(text) then return text .. "(alone it does not fail)" end
  local i = 1
  while true do
    local candidate = random_program.without(text, i)
    if not candidate then return text end
    if fails(candidate) then text = candidate else i = i + 1 end
  end
end

--- What a fault is, whatever program and numbers show it.
local function kind_of(line) return (line:gsub("^FAULT in %S+ ", ""):gsub("program:%d+", ""):gsub("%d+", "N")) end

local function has_fault(output, kind)
  for line in output:gmatch "FAULT[^\n]*" do
    if kind_of(line) == kind then return true end
  end
  return false
end

--- The shortest program of a seed that crashes, or that has the fault of this kind.
local function reduced(mode, seed, kind)
  local at = folder.new()
  local function fails(text)
    local result = run(mode, folder.quote(folder.write(at .. "/program.lua", text)))
    if kind then return has_fault(result.output, kind) end
    return not result.ended
  end
  local text = random_batch.shortest(random_program.text(seed), fails)
  folder.remove(at)
  return text
end

local shown = {} -- kinds of faults that a program was shown of

--- Runs the programs of `count` seeds from `first` on. Returns the number of faults, and what is said about them, with
--- the shortest program for each kind.
---@return integer faults, string text
function random_batch.run(mode, first, count)
  local faults, texts, last = 0, {}, first + count - 1
  while first <= last do
    local result = run(mode, first, last - first + 1)
    for line, seed in result.output:gmatch "(FAULT in (%d+)[^\n]*)" do
      faults, texts[#texts + 1] = faults + 1, line
      local kind = kind_of(line)
      if not shown[kind] then
        shown[kind] = true
        texts[#texts + 1] = reduced(mode, math.tointeger(seed), kind)
      end
    end
    if result.ended then break end
    local seed = math.tointeger(tonumber(result.running:match "^%d+")) or first
    faults = faults + 1
    texts[#texts + 1] = ("CRASH in %s (%s):\n%s\n%s"):format(result.running, mode, result.output:sub(-6000),
      reduced(mode, seed))
    first = seed + 1
  end
  return faults, table.concat(texts, "\n")
end

return random_batch
