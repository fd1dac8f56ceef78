-- SPDX-License-Identifier: MIT
-- mlp batch=128 [bf16=1]: a training step of a classifier 784-256-256-10 (269,322 parameters) on random images:
-- forward, cross entropy, backward, Adam. 20 steps a call.
local marea = require "marea"
local nn = marea.nn
local precision = require "ours.precision"

local STEPS = 20

local net, optimizer
local batches = {}

local function prepare()
  marea.seed(1)
  net = nn.Sequential{nn.Linear{784, 256, activation = "relu"}, nn.Linear{256, 256, activation = "relu"},
    nn.Linear{256, 10}}
  optimizer = marea.optim.Adam{net, lr = 1e-3}
end

local function batch_of(n)
  batches[n] = batches[n] or {x = marea.uniform{n, 784}, y = marea.randint({n}, 1, 10)}
  return batches[n]
end

return function(arguments)
  if not net then prepare() end
  local batch = batch_of(arguments.batch)
  local loss = precision(arguments, function() return net(batch.x):cross_entropy(batch.y) end)
  return function()
    for _ = 1, STEPS do optimizer:step(loss) end
  end, STEPS
end
