-- SPDX-License-Identifier: MIT
--- Cleanup that runs however a block is left, whole even when Ctrl-C waits:
---
---   local _ <close> = finally(function(problem) ... end)     -- problem: the error, nil when there was none
local core = require "marea.core"

local Cleanup = {}
Cleanup.__close = core.closer(function(self, problem) self.run(problem) end)

---@param cleanup fun(problem: any)
return function(cleanup) return setmetatable({run = cleanup}, Cleanup) end
