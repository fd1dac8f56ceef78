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

describe("a script that is stopped in the middle of an epoch and resumed from its checkpoint", function()
  local marea = require "marea"
  local nn, optim, data, checkpoint = marea.nn, marea.optim, marea.data, marea.checkpoint
  local BATCH, EPOCHS = 8, 2

  local function fresh()
    marea.seed(3)
    local images = marea.uniform {52, 6, 6, 1} -- the last batch is smaller
    local labels = marea.randint({52}, 1, 4)
    local run = {
      loader = data.Dataset {{"image", images}, {"label", labels}, seed = 17},
      model = {
        net = nn.Sequential {nn.Conv2d {1, 4, kernel = 3, padding = "same", activation = "relu"}, nn.Flatten {},
          nn.Dropout {0.25}, nn.Linear {144, 4}},
      },
    }
    run.optimizer = optim.Adam {run.model, lr = 1e-3, clip_norm = 1}
    return run
  end

  --- Trains from the given epoch on; after `save_at` batches in all it writes a checkpoint.
  local function go(run, first_epoch, seen, save_at, path)
    local losses = {}
    for epoch = first_epoch, EPOCHS do
      for x, y in run.loader:batches(BATCH, {shuffle = true, epoch = epoch}) do
        local loss = run.model.net(x):cross_entropy(y)
        run.optimizer:step(loss)
        losses[#losses + 1] = loss:item() + math.random() * 1e-3
        seen = seen + 1
        if seen == save_at then
          assert(checkpoint.save(path, {model = run.model, optimizer = run.optimizer, loader = run.loader,
            epoch = epoch, step = seen}))
        end
      end
    end
    return losses
  end

  local function bits(run)
    local parts = {}
    for _, layer in ipairs {run.model.net[1], run.model.net[4]} do
      for _, t in ipairs {layer.weight, layer.bias} do
        for _, v in ipairs(t:detach():reshape {t:numel()}:totable()) do parts[#parts + 1] = string.pack("<d", v) end
      end
    end
    return table.concat(parts)
  end

  it("ends with the same bits, for 12 places to stop", function()
    local path = os.tmpname()
    for stop = 1, 12 do
      local run = fresh()
      local losses = go(run, 1, 0, stop, path)
      assert.are.equal(14, #losses)
      local resumed = fresh()
      marea.seed(99)
      local saved = assert(checkpoint.load(path, {model = resumed.model, optimizer = resumed.optimizer,
        loader = resumed.loader}))
      assert.are.equal(stop, saved.step)
      local rest = go(resumed, saved.epoch, saved.step)
      assert.are.equal(14 - stop, #rest)
      for i = 1, #rest do assert.are.equal(losses[stop + i], rest[i], "stopped after " .. stop) end
      assert.is_true(bits(resumed) == bits(run), "stopped after " .. stop)
    end
    os.remove(path)
  end)
end)
