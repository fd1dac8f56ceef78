-- SPDX-License-Identifier: MIT
-- language model=transformer|lstm layers=l heads=h width=c context=t batch=n map=forward|step: the networks of
-- scripts/gpt.lua without dropout over 65 characters: the loss of a batch, or a training step by AdamW with clipping.
local marea = require "marea"

local here = arg[0]:match "^.*/" or ""
local network = dofile(here .. "../../scripts/gpt_model.lua")

local CHARACTERS = 65

return function(a)
  marea.seed(1)
  local net = network{model = a.model, vocabulary = CHARACTERS, layers = a.layers, heads = a.heads, width = a.width,
    context = a.context, dropout = 0}
  local x, y = marea.randint({a.batch, a.context}, 1, CHARACTERS), marea.randint({a.batch, a.context}, 1, CHARACTERS)
  local function loss() return marea.cross_entropy((net(x)), y) end
  loss():release() -- makes the parameters
  if a.map == "forward" then
    return function()
      marea.scope(function() marea.no_grad(loss) end)
    end
  end
  local adam = marea.optim.AdamW{net, lr = 1e-4, clip_norm = 1}
  return function() adam:step(loss):item() end
end
