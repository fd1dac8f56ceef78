-- SPDX-License-Identifier: MIT
--- What a random state has beside the core's: the state of Lua's own numbers, and how many datasets have got a stream
--- of orders.
local undo = require "marea.internal.undo"

local random = {streams = 0}

--- A number for a dataset, another one for each since marea.seed: its orders are its own.
---@return integer
function random.new_stream()
  undo.note(random)
  random.streams = random.streams + 1
  return random.streams - 1
end

--- Lua's generator shows its state to nobody: it gets a new one, whose numbers math.randomseed takes.
---@return integer, integer
function random.renew_lua()
  local a, b = math.random(0), math.random(0)
  math.randomseed(a, b)
  return a, b
end

return random
