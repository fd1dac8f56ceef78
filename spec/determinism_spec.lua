-- SPDX-License-Identifier: MIT
-- The same seed on the same machine and build gives the same bits: for any number of threads, in every run, and when a
-- run is stopped, saved and resumed.
local core = require "marea.core"
local small_vae = require "spec.support.small_vae"
local ops = core.ops

local STEPS = 200

local function train(steps, threads, batch)
  core.set_threads(threads)
  core.seed(42)
  local x = ops.uniform {shape = {batch, 8, 8, 1}}
  local model = small_vae.new()
  local losses = {}
  for step = 1, steps do losses[step] = small_vae.step(model, x) end
  return small_vae.bits(model), losses
end

describe("training", function()
  local threads = core.threads()
  teardown(function() core.set_threads(threads) end)

  it("of 200 steps gives the same bits with 1, 2, 3 and 4 threads, twice", function()
    local first, losses = train(STEPS, 1, 16)
    assert.is_true(losses[STEPS] < losses[1])
    for _ = 1, 2 do
      for n = 1, 4 do assert.is_true(train(STEPS, n, 16) == first, n .. " threads") end
    end
  end)

  it("of big batches does too", function()
    local first = train(3, 1, 700)
    for n = 2, 4 do assert.is_true(train(3, n, 700) == first, n .. " threads") end
  end)

  it("does not depend on the collector", function()
    local first = train(20, 2, 8)
    collectgarbage "generational"
    local second = train(20, 2, 8)
    collectgarbage "incremental"
    collectgarbage "stop"
    local third = train(20, 2, 8)
    collectgarbage "restart"
    assert.is_true(first == second and first == third)
  end)

  it("depends on the seed", function()
    core.seed(1)
    local a = small_vae.bits(small_vae.new())
    core.seed(2)
    assert.is_false(small_vae.bits(small_vae.new()) == a)
  end)
end)

describe("a run that is resumed", function()
  it("after any of 20 steps ends with the bits of one that was not stopped", function()
    local total = 24
    local path = os.tmpname()
    core.seed(9)
    local x = ops.uniform {shape = {8, 8, 8, 1}}
    local model = small_vae.new()
    local files = {}
    for step = 1, total do
      small_vae.step(model, x)
      if step <= 20 then
        files[step] = path .. "." .. step
        local seed, counter = core.random_state()
        assert(core.save(files[step], small_vae.state(model), {seed = tostring(seed), counter = tostring(counter)}))
      end
    end
    local whole = small_vae.bits(model)
    for stop, file in ipairs(files) do
      local tensors, texts = core.load(file)
      assert(tensors, texts)
      local resumed = {weights = {}, squares = {}}
      for _, name in ipairs(small_vae.names) do
        resumed.weights[name] = tensors["weight." .. name]:requires_grad_(true)
        resumed.squares[name] = tensors["square." .. name]
      end
      core.set_random_state(math.tointeger(tonumber(texts.seed)), math.tointeger(tonumber(texts.counter)))
      for _ = stop + 1, total do small_vae.step(resumed, x) end
      assert.is_true(small_vae.bits(resumed) == whole, "stopped after step " .. stop)
      os.remove(file)
    end
    os.remove(path)
  end)
end)
