-- SPDX-License-Identifier: MIT
--- Cleanup that runs however a block is left, and that no Ctrl-C cuts short:
---
---   local _ <close> = unwind.finally(function(problem) ... end)     -- problem: the error, nil when there was none
---
--- Lua closes no variables of a coroutine that ends by an error; its cleanups run when the next block begins or a
--- module is called.
local core = require "marea.core"

local unwind = {}

--- The innermost cleanup that has not run yet; its field `outer` is the next one. nil: there is none.
unwind.latest = nil

local function unlink(cleanup)
  local inner
  local at = unwind.latest
  while at and at ~= cleanup do inner, at = at, at.outer end
  if not at then return false end
  if inner then inner.outer = cleanup.outer else unwind.latest = cleanup.outer end
  return true
end

--- Runs the cleanups of coroutines that are dead, the innermost first.
function unwind.settle()
  local at = unwind.latest
  while at do
    local outer = at.outer
    if coroutine.status(at.thread) == "dead" and unlink(at) then at.run("the coroutine ended by an error") end
    at = outer
  end
end

local Cleanup = {}

Cleanup.__close = core.closer(function(self, problem)
  if unlink(self) then self.run(problem) end
end)

---@param run fun(problem: any)
function unwind.finally(run)
  if unwind.latest then unwind.settle() end
  unwind.latest = setmetatable({run = run, thread = coroutine.running(), outer = unwind.latest}, Cleanup)
  return unwind.latest
end

return unwind
