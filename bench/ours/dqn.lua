-- SPDX-License-Identifier: MIT
-- dqn batch=1|32 [bf16=1]: a training step of a small value network 4-64-2 (450 parameters) as deep Q-learning makes
-- it: the values of the actions that were taken, huber against their targets, backward, Adam. 200 steps a call.
local marea = require "marea"
local nn = marea.nn
local precision = require "ours.precision"

local STEPS = 200

local net, optimizer
local batches = {}

local function prepare()
  marea.seed(1)
  net = nn.Sequential{nn.Linear{4, 64, activation = "relu"}, nn.Linear{64, 2}}
  optimizer = marea.optim.Adam{net, lr = 1e-3}
end

local function batch_of(n)
  batches[n] = batches[n] or {x = marea.normal{n, 4}, action = marea.randint({n, 1}, 1, 2),
    target = marea.normal{n, 1}}
  return batches[n]
end

return function(arguments)
  if not net then prepare() end
  local batch = batch_of(arguments.batch)
  local loss = precision(arguments, function() return net(batch.x):gather(batch.action, 2):huber(batch.target) end)
  return function()
    for _ = 1, STEPS do optimizer:step(loss) end
  end, STEPS
end
