-- SPDX-License-Identifier: MIT
--- The state of Lua's own random numbers.
local random = {}

--- Lua's generator shows its state to nobody: it gets a new one, whose numbers math.randomseed takes.
---@return integer, integer
function random.renew_lua()
  local a, b = math.random(0), math.random(0)
  math.randomseed(a, b)
  return a, b
end

return random
