-- SPDX-License-Identifier: MIT
-- recurrent kind=LSTM|GRU rows=n length=t inputs=c hidden=h map=forward|step [bf16=1]: a layer over whole
-- sequences, or that and its gradients to the parameters and the sequences.
local marea = require "marea"
local precision = require "ours.precision"

return function(a)
  local net = marea.nn[a.kind]{a.inputs, a.hidden}
  local run = precision(a, function(x) return (net(x)) end)
  local x, dy = marea.normal{a.rows, a.length, a.inputs}, marea.normal{a.rows, a.length, a.hidden}
  if a.map == "forward" then
    return function()
      marea.scope(function() marea.no_grad(run, x) end)
    end
  end
  dy = dy:to(run(x).dtype)
  local leaves = net:parameters()
  leaves[#leaves + 1] = x:requires_grad_()
  return function()
    marea.scope(function() marea.grad(run(x), leaves, {seed = dy}) end)
  end
end
