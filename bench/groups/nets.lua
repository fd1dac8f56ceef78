-- SPDX-License-Identifier: MIT
-- Training steps by Adam of networks of other sizes, beside PyTorch, Keras and JAX: a dense classifier 784-256-256-10,
-- a value network 4-64-2 as deep Q-learning trains it, scripts/classifier.lua's network, and scripts/count.lua's U-Net
-- on images of 100x100. The limit is the time of the products; a step has three times those of the forward pass, less
-- the gradients of the inputs.
local marea = require "marea"
local machine = require "lib.machine"
local passes = require "lib.passes"
local settings = require "lib.settings"

local group = {name = "nets", title = "Training steps of other networks"}

local DENSE = {PyTorch = settings.pytorch{compiled = true}, Keras = settings.keras, JAX = settings.jax}
local IMAGES = {PyTorch = settings.pytorch{layouts = true, compiled = true}, Keras = settings.keras, JAX = settings.jax}

--- Multiply-adds of an image's step: all layers three times, the first one twice.
local function step_of(first, others) return 2 * first + 3 * others end

local MLP = step_of(784 * 256, 256 * 256 + 256 * 10)
local DQN = step_of(4 * 64, 64 * 2)
local CLASSIFIER = step_of(9 * 32 * 28 ^ 2, 9 * (32 * 32 * 28 ^ 2 + (32 * 64 + 64 * 64) * 14 ^ 2) + 3136 * 128 + 1280)
local COUNTING = step_of(9 * 16 * 100 ^ 2, (9 * (16 * 16 + 32 * 16) + 16 + 32 * 16) * 100 ^ 2
  + (9 * (16 * 32 + 64 * 32) + 64 * 32) * 50 ^ 2 + 9 * (32 * 64 + 64 * 64) * 25 ^ 2)

local CASES = {
  {kind = "mlp", name = "784-256-256-10", batch = 128, products = MLP, peers = DENSE, seconds = 0.2},
  {kind = "dqn", name = "4-64-2", batch = 1, products = DQN, peers = DENSE, seconds = 0.2},
  {kind = "dqn", name = "4-64-2", batch = 32, products = DQN, peers = DENSE, seconds = 0.2},
  {kind = "classifier", name = "classifier, 28x28", batch = 128, products = CLASSIFIER, peers = IMAGES, seconds = 0.5},
  {kind = "counting", name = "U-Net, 100x100", batch = 16, side = " side=100", products = COUNTING, peers = IMAGES,
    seconds = 0.5},
}

function group.run(bench)
  local cases = {}
  for i, case in ipairs(CASES) do
    local flop = 2 * case.batch * case.products
    cases[i] = {name = marea.format("%s, batch %d", case.name, case.batch), seconds = case.seconds, bf16 = true,
      request = marea.format("%s batch=%d%s", case.kind, case.batch, case.side or ""), peers = case.peers, flop = flop,
      limit = function(threads, isa) return machine.compute_limit(bench.limits, isa, threads, flop) end}
  end
  return passes.run(bench, "nets", cases)
end

function group.figures(rows) return passes.figures(rows, group.title .. ", one thread") end

return group
