-- SPDX-License-Identifier: MIT
-- Runs random programs in this process, started by spec/random_programs.lua:
--
--   build/marea spec/support/random_runner.lua host|sandbox FOLDER FIRST COUNT     programs of seeds from FIRST on
--   build/marea spec/support/random_runner.lua host|sandbox FOLDER FILE            the program in a file
--
-- LUA_PATH finds spec. Programs may write files of any name where it runs.
--
-- Programs find an empty FOLDER/files; FOLDER/running has what runs, to be read after a crash. After each program, in
-- which everything may have failed, the library must be what it was: no memory in use that was not before, an empty
-- tape, recording, nothing planned or profiled. No message may come from a line of the library, and every fourth
-- program must give the same bits with two threads. Prints one line for each fault and at the end a count.
local core = require "marea.core"
local marea = require "marea"
local random_program = require "spec.support.random_program"
local sample = require "spec.support.sample"

local SUPPORT = debug.getinfo(1, "S").source:match "^@(.*/)"

local mode, folder, first, count = arg[1], arg[2], arg[3], tonumber(arg[4] or 1)
local files = folder .. "/files"
local LIMIT = 128 << 20
local PER_SANDBOX = 20 -- programs that run in a sandbox before it is closed

local running = assert(io.open(folder .. "/running", "w"))
local faults = 0

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "a"
  file:close()
  return text
end

local function note(text)
  running:seek "set"
  running:write(text, (" "):rep(40), "\n")
  running:flush()
end

local function report(seed, format, ...)
  faults = faults + 1
  print(("FAULT in %s (%s): %s"):format(seed, mode, format:format(...)))
end

--- The library's source files by the names that Lua's messages have for them: of long paths the end.
local SOURCES = {}
for _, path in ipairs(random_program.sources()) do
  SOURCES[debug.getinfo(assert(load("", "@" .. path)), "S").short_src] = path
end

--- What is wrong with a message: it is Lua's own and comes from a line of the library.
local function is_fault(message)
  local place = message:match "^(.-):%d+: "
  return message:find("internal error", 1, true) or place and (SOURCES[place] or place:find "^%(marea%)/")
end

local function check_messages(seed, messages)
  for _, message in ipairs(messages) do
    if is_fault(message) then report(seed, "%s", message:sub(1, 400)) end
  end
end

local function settle()
  while pcall(core.profile_stop) do end
  core.memory_limit(LIMIT)
  core.memory_fail(0)
  collectgarbage()
  collectgarbage()
  local m = core.memory()
  return m.live, m.blocks
end

-- ---- in this state ----

local function clear_files()
  for _, name in ipairs{"a", "b", "c"} do os.remove(files .. "/" .. name) end
end

--- Runs a program; returns its values and messages as texts.
local function run_here(seed, text, threads)
  clear_files()
  core.set_threads(threads)
  local n = 0
  local tools = assert(loadfile(SUPPORT .. "random_tools.lua"))(marea, sample, function()
    n = n + 1
    note(("%s, statement %d"):format(seed, n))
  end)
  local env = setmetatable({marea = marea, tools = tools, folder = files}, {__index = _G})
  local program = assert(load(text, "=program", "t", env))
  local ok, values = pcall(program)
  if not ok then tools.messages[#tools.messages + 1] = tostring(values) end
  check_messages(seed, tools.messages)
  return ok and values or "", table.concat(tools.messages, "\n"):gsub("0x%x+", "0x")
end

local function check_state(seed)
  if not core.recording() then report(seed, "left recording off") end
  if core.autocasting() then report(seed, "left autocast on") end
  if core.planning() then report(seed, "left a plan running") end
  if core.tape_length() ~= 0 then report(seed, "left %d nodes on the tape", core.tape_length()) end
end

--- The places where two texts differ first.
local function difference(a, b)
  local i = 1
  while a:byte(i) == b:byte(i) and i <= #a do i = i + 1 end
  return ("%q and %q"):format(a:sub(math.max(i - 60, 1), i + 60), b:sub(math.max(i - 60, 1), i + 60))
end

local function run_in_host(seed, text, compare)
  local live, blocks = settle()
  local values, messages = run_here(seed, text, 1)
  local live_now, blocks_now = settle()
  check_state(seed)
  if compare or live_now ~= live or blocks_now ~= blocks then
    local again, messages_again = run_here(seed, text, 2)
    local live_then, blocks_then = settle()
    if live_then > live_now or blocks_then > blocks_now then -- what stays once is kept on purpose
      report(seed, "each run leaves %d bytes, %d blocks", live_then - live_now, blocks_then - blocks_now)
    end
    if compare and values ~= again then report(seed, "2 threads: %s", difference(values, again)) end
    if compare and messages ~= messages_again then report(seed, "again: %s", difference(messages, messages_again)) end
  end
end

-- ---- in a sandbox ----

local box, used

local function open_box()
  box = marea.sandbox{seconds = 60, memory = 64e6, tensor_memory = LIMIT, read = {files}, write = {files}}
  used = 0
  assert(box:run([[
    local sample_text, tools_text
    sample_text, tools_text, folder = ...
    local core = {ops = marea, tensor = marea.tensor, is_tensor = marea.is_tensor}
    local env = setmetatable({require = function() return core end}, {__index = _G})
    tools_chunk, sample = load(tools_text, "=tools"), load(sample_text, "=sample", "t", env)()]],
    read(SUPPORT .. "sample.lua"), read(SUPPORT .. "random_tools.lua"), files))
end

local function run_in_sandbox(seed, text)
  clear_files()
  note(seed)
  if not box then open_box() end
  used = used + 1
  local ok, messages = box:run(("tools = tools_chunk(marea, sample) local f = function() %s end "
    .. "local ok, message = pcall(f) if not ok then tools.messages[#tools.messages + 1] = tostring(message) end "
    .. "return tools.messages"):format(text))
  if ok then check_messages(seed, messages) else check_messages(seed, {messages}) end
  if not ok then print(("%s in a sandbox: %s"):format(seed, tostring(messages):sub(1, 300))) end
  if used == PER_SANDBOX or not ok then
    box:close()
    box = nil
  end
end

-- ----

local run = mode == "host" and run_in_host or run_in_sandbox
if not tonumber(first) then
  run(first, read(first), true)
else
  for seed = tonumber(first), tonumber(first) + count - 1 do
    run(tostring(seed), random_program.text(seed), seed % 4 == 0)
  end
end
if box then box:close() end
print(("%d programs, %d faults"):format(count, faults))
