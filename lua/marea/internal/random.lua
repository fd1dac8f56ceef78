-- SPDX-License-Identifier: MIT
--- The parts of the random state that are not the core's: the state of Lua's math.random, and the number of datasets
--- that have got a stream of orders.
local undo = require "marea.internal.undo"

local random = {streams = 0}

--- A new number for a dataset's orders. Each dataset since marea.seed gets another one.
---@return integer
function random.new_stream()
  undo.note(random)
  random.streams = random.streams + 1
  return random.streams - 1
end

--- Lua does not tell the state of math.random. So math.random gets a new state here, whose two seeds are known.
---@return integer, integer
function random.renew_lua()
  local a, b = math.random(0), math.random(0)
  math.randomseed(a, b)
  return a, b
end

return random
