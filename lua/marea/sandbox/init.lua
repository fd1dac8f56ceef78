-- SPDX-License-Identifier: MIT
--- Runs scripts that nobody has read:
---
---   local sandbox = marea.sandbox{seconds = 2, memory = 16e6, read = {"data"}}
---   local ok, loss = sandbox:run(text, 0.01)          -- true and the results, or nil and a message
---
--- A sandbox is a Lua state of its own with a context of its own. A script finds Lua's basic functions, string, table,
--- math, utf8, coroutine and `marea`, but no io, os, debug, package, binary chunks, finalizers or weak tables; what it
--- prints is kept (`output`). Arguments and results are copied: nil, booleans, numbers, strings, tensors and tables of
--- these.
--- A script that goes beyond a limit ends with an error that it cannot catch.
local core = require "marea.core"
local check = require "marea.internal.check"

local Sandbox = {}
Sandbox.__index = Sandbox

local numbers = {
  memory = 32 * 2 ^ 20, -- bytes that Lua may use
  string = 2 ^ 20, -- bytes of one string
  tensor_memory = 256 * 2 ^ 20,
  threads = 1,
  seconds = 10, -- of a run, on the wall clock
  instructions = 1e9, -- of Lua's virtual machine, of a run
  flop = 1e12, -- floating-point operations of tensors, of a run
  results = 0, -- bytes of what a run returns; 0: as many as tensor_memory
}

local least = {memory = 2 ^ 18, string = 2 ^ 8} -- bytes without which the library does not load

local function limit(name, value)
  if value == nil then return numbers[name] end
  check.number("sandbox", name, value, 1e-3, 1e15)
  if least[name] and value < least[name] then
    check.fail("sandbox", name, ("at least %d bytes, without which no sandbox opens"):format(least[name]), value)
  end
  return value
end

local function folders(name, list)
  if list == nil then return {} end
  check.items("sandbox", name, list, "a list of folders")
  for i = 1, #list do check.string("sandbox", ("%s[%d]"):format(name, i), list[i]) end
  return list
end

--- Options: memory (bytes, 32 MiB, at least 256 KiB), string (bytes of one, 1 MiB, at least 256), tensor_memory
--- (256 MiB), threads (1), seconds (10), instructions (1e9), flop (1e12), results (bytes that a run may return, every
--- copy in full; as many as tensor_memory); read and write, lists of folders that the library's file functions reach
--- (none); globals, a table of values that scripts find.
---@param options? table
---@return Sandbox
local function new(options)
  options = check.options("sandbox", options, {"memory", "string", "tensor_memory", "threads", "seconds",
    "instructions", "flop", "results", "read", "write", "globals"})
  local limits = {}
  for name in pairs(numbers) do limits[name] = limit(name, options[name]) end
  check.number("sandbox", "threads", limits.threads, 1, 64)
  local sandbox = core.sandbox(limits, folders("read", options.read), folders("write", options.write))
  local self = setmetatable({_sandbox = sandbox}, Sandbox)
  for name, value in pairs(options.globals or {}) do self:set(name, value) end
  return self
end

--- Runs a text with fresh limits; further arguments are the script's `...`. What it leaves in its globals stays.
---@param text string
---@return boolean|nil ok, any ... results, or a message
function Sandbox:run(text, ...) return self._sandbox:run(text, "=sandbox", ...) end

--- The same with a file's text.
---@param path string
function Sandbox:run_file(path, ...)
  local file, message = io.open(check.string("run_file", "path", path), "rb")
  if not file then return core.failed(message) end
  local text = file:read "a"
  file:close()
  if not text then return core.failed(path .. ": cannot be read") end
  return self._sandbox:run(text, "@" .. path, ...)
end

--- Makes a value a global of the scripts.
---@param name string
---@param value any
function Sandbox:set(name, value)
  local ok, message = self._sandbox:run("local name, value = ...; _G[name] = value", "=set",
    check.string("set", "name", name), value)
  if not ok then check.raise("%s", message) end
end

--- What scripts printed since this was last asked; the first 64 KiB.
---@return string
function Sandbox:output() return self._sandbox:output() end

--- Ends it and frees its memory. The garbage collector would do so some time.
function Sandbox:close() self._sandbox:close() end

Sandbox.__close = Sandbox.close

return new
