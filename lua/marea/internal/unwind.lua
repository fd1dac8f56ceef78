-- SPDX-License-Identifier: MIT
--- Cleanup that runs however a block is left, and that no Ctrl-C cuts short:
---
---   local _ <close> = unwind.finally(function(problem) ... end)     -- problem: the error, nil when there was none
---
--- Lua closes no variables of a coroutine that ends by an error, or that is dropped while it waits; its cleanups run
--- when the next block begins or a module is called. Until then they do not keep the coroutine alive, which would keep
--- variables of the script.
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

local function is_over(cleanup)
  if cleanup.main then return false end
  local thread = core.thread_of(cleanup)
  return not thread or coroutine.status(thread) == "dead"
end

--- Runs the cleanups of coroutines that are over, the innermost first.
function unwind.settle()
  local at = unwind.latest
  while at do
    local outer = at.outer
    if is_over(at) and unlink(at) then at.run("the coroutine ended by an error") end
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
  local cleanup = setmetatable({run = run, outer = unwind.latest, main = false}, Cleanup)
  cleanup.main = core.keep_thread(cleanup)
  unwind.latest = cleanup
  return cleanup
end

return unwind
