-- SPDX-License-Identifier: MIT
-- chain nodes=1000 scope=0|1: additions and ReLUs of 4 elements in a row, forward and backward; the time of one node.
local marea = require "marea"

return function(arguments)
  local x, b, nodes = marea.ones(4):requires_grad_(), marea.ones(4), arguments.nodes
  local function run()
    local y = x
    for _ = 1, nodes // 2 do y = (y + b):relu() end
    y:sum():backward()
    x:clear_grad()
  end
  if arguments.scope == 1 then return function() marea.scope(run) end, nodes end
  return run, nodes
end
