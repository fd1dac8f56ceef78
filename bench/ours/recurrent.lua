-- SPDX-License-Identifier: MIT
-- recurrent kind=LSTM|GRU rows=n length=t inputs=c hidden=h map=forward|step: a layer over whole sequences, or that and
-- its gradients to the parameters and the sequences.
local marea = require "marea"

return function(a)
  local net = marea.nn[a.kind]{a.inputs, a.hidden}
  local x, dy = marea.normal{a.rows, a.length, a.inputs}, marea.normal{a.rows, a.length, a.hidden}
  if a.map == "forward" then
    return function()
      marea.scope(function() marea.no_grad(function() net(x) end) end)
    end
  end
  local leaves = net:parameters()
  leaves[#leaves + 1] = x:requires_grad_()
  return function()
    marea.scope(function() marea.grad((net(x)), leaves, {seed = dy}) end)
  end
end
