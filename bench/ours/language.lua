-- SPDX-License-Identifier: MIT
-- language model=transformer|lstm layers=l heads=h width=c context=t batch=n vocabulary=v map=forward|step [bf16=1]:
-- the networks of scripts/gpt.lua without dropout: the loss of a batch, or a training step by AdamW with clipping.
local marea = require "marea"
local precision = require "ours.precision"

local here = arg[0]:match "^.*/" or ""
local network = dofile(here .. "../../scripts/gpt_model.lua")

local LARGE = 10000 -- words from which the logits are not kept in memory

return function(a)
  marea.seed(1)
  local net = network{model = a.model, vocabulary = a.vocabulary, layers = a.layers, heads = a.heads, width = a.width,
    context = a.context, dropout = 0}
  local function numbers() return marea.randint({a.batch, a.context}, 1, a.vocabulary) end
  local x, y = numbers(), numbers()
  local loss = precision(a, function()
    if a.vocabulary < LARGE then return marea.cross_entropy((net(x)), y) end
    return marea.linear_cross_entropy((net:features(x)), net.out.weight, y)
  end)
  loss():release() -- makes the parameters
  if a.map == "forward" then
    return function()
      marea.scope(function() marea.no_grad(loss) end)
    end
  end
  local adam = marea.optim.AdamW{net, lr = 1e-4, clip_norm = 1}
  return function() adam:step(loss):item() end
end
