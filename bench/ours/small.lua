-- SPDX-License-Identifier: MIT
-- small op=add|add_|relu scope=0|1: an operator on 4 elements, a thousand times a call, within marea.scope or not.
local marea = require "marea"

local CALLS = 1000

local OPS = {
  add = function(x, y)
    for _ = 1, CALLS do local _ = x + y end
  end,
  add_ = function(x, y)
    for _ = 1, CALLS do x:add_(y) end
  end,
  relu = function(x)
    for _ = 1, CALLS do local _ = x:relu() end
  end,
}

return function(arguments)
  local op, x, y = OPS[arguments.op], marea.tensor{1, 2, 3, 4}, marea.zeros(4)
  if arguments.scope == 1 then return function() marea.scope(op, x, y) end, CALLS end
  return function() op(x, y) end, CALLS
end
