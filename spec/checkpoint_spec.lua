-- SPDX-License-Identifier: MIT
-- One file for a training run: exact resume, and nothing changed by a file that does not fit.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local folder = require "spec.support.folder"
local nn, optim, data, checkpoint = marea.nn, marea.optim, marea.data, marea.checkpoint

local close = allclose.assert

--- Everything a run consists of: dropout and a draw of Lua's own make it depend on both random states.
local function new_run()
  marea.seed(11)
  local run = {}
  run.data = data.Dataset{marea.normal{40, 6}, marea.normal{40, 1}}
  run.model = nn.Sequential{nn.Linear{6, 8, activation = "relu", name = "hidden"}, nn.Dropout{0.3}, nn.Linear{8, 1}}
  run.optimizer = optim.Adam{run.model, lr = optim.schedule.inverse_time(0.01, 0.1)}
  return run
end

--- Trains to the end of epoch `last`; calls after(epoch, batch) after each step and stops when that returns true.
local function train(run, first, last, after)
  local losses = {}
  for epoch = first, last do
    for x, y in run.data:batches(8, {shuffle = true, epoch = epoch}) do
      local loss = run.optimizer:step(function() return (run.model(x) * math.random()):mse(y) end)
      losses[#losses + 1] = loss:item()
      if after and after(epoch, #losses) then return losses end
    end
  end
  return losses
end

local function parts(run, more)
  local what = {model = run.model, optimizer = run.optimizer, loader = run.data}
  for key, value in pairs(more or {}) do what[key] = value end
  return what
end

teardown(folder.remove)

describe("a checkpoint", function()
  it("holds several optimizers by name", function()
    local path = folder.new() .. "/two.safetensors"
    local function new()
      local nets = {a = nn.Linear{2, 3}, b = nn.Linear{3, 1}}
      return {model = nets, optimizer = {a = optim.Adam{nets.a, lr = 0.1}, b = optim.RMSprop{nets.b, lr = 0.1}}}
    end
    local function step(run)
      local y = run.model.b(run.model.a(marea.ones(4, 2))):square():sum()
      run.optimizer.a:step(y)
      run.optimizer.b:step()
    end
    local first, second = new(), new()
    step(first)
    assert(checkpoint.save(path, first))
    assert(checkpoint.load(path, second))
    step(first)
    step(second)
    close(first.model.a.weight, second.model.a.weight, {exact = true})
    close(first.model.b.weight, second.model.b.weight, {exact = true})
    assert.are.equal(2, second.optimizer.a.steps)
    local swapped = new()
    swapped.optimizer.a, swapped.optimizer.b = swapped.optimizer.b, swapped.optimizer.a
    local ok, message = checkpoint.load(path, swapped)
    assert.is_nil(ok)
    assert.is_truthy(message:find("was saved with the optimizer", 1, true), message)
    assert.is_falsy(pcall(checkpoint.save, path, {model = first.model, optimizer = {3}}))
  end)

  it("taken in the middle of an epoch is resumed bit for bit", function()
    local at = folder.new()
    local whole = new_run()
    local losses = train(whole, 1, 3, function(epoch, step)
      if step == 8 then
        local what = parts(whole, {epoch = epoch, step = step, texts = {note = "n"}})
        assert(checkpoint.save(at .. "/run.safetensors", what))
      end
    end)
    local resumed = new_run()
    resumed.model:load_state{["hidden.weight"] = marea.zeros(6, 8), ["hidden.bias"] = marea.zeros(8),
      ["3.weight"] = marea.zeros(8, 1), ["3.bias"] = marea.zeros(1)}
    marea.seed(99)
    local saved = assert(checkpoint.load(at .. "/run.safetensors", parts(resumed)))
    assert.are.same({epoch = 2, step = 8, texts = {note = "n"}}, saved)
    local rest = train(resumed, saved.epoch, 3)
    assert.are.same(table.move(losses, 9, #losses, 1, {}), rest)
    for name, t in pairs(whole.model:state()) do close(resumed.model:state()[name], t, {exact = true}) end
    for name, t in pairs(whole.optimizer:state()) do close(resumed.optimizer:state()[name], t, {exact = true}) end
  end)

  it("brings the order back where datasets are made elsewhere, or anew for each epoch", function()
    local at = folder.new()
    local rows = marea.arange(1, 24)
    local function pass(dataset, epoch)
      local seen = {}
      for x in dataset:batches(5, {shuffle = true, epoch = epoch}) do
        table.move(x:totable(), 1, #x, #seen + 1, seen)
      end
      return seen
    end
    local net = nn.Linear{1, 1}
    marea.seed(1)
    local loader = data.Dataset{rows}
    for x in loader:batches(5, {shuffle = true}) do
      if #x > 0 then break end
    end
    assert(checkpoint.save(at .. "/loader.safetensors", {model = net, loader = loader}))
    local rest = pass(data.Dataset{rows}) -- another stream
    for x in loader:batches(5, {shuffle = true, epoch = 1, from = 2}) do rest[#rest + 1] = x:sum():item() end
    marea.seed(2)
    marea.normal{100}
    local other, again = data.Dataset{rows}, {}
    assert(checkpoint.load(at .. "/loader.safetensors", {model = net, loader = other}))
    for x in other:batches(5, {shuffle = true}) do again[#again + 1] = x:sum():item() end
    assert.are.same(table.move(rest, 25, #rest, 1, {}), again)
    marea.seed(3)
    local epochs = {}
    for epoch = 1, 3 do
      epochs[epoch] = pass(data.Dataset{rows})
      if epoch == 1 then assert(checkpoint.save(at .. "/anew.safetensors", {model = net})) end
    end
    marea.seed(4)
    assert(checkpoint.load(at .. "/anew.safetensors", {model = net}))
    assert.are.same({epochs[2], epochs[3]}, {pass(data.Dataset{rows}), pass(data.Dataset{rows})})
  end)

  it("holds the model's tensors under their paths", function()
    local path = folder.new() .. "/a.safetensors"
    local run = new_run()
    assert(checkpoint.save(path, {model = run.model}))
    local tensors = marea.load(path)
    close(tensors["hidden.weight"], run.model.hidden.weight, {exact = true})
    assert.is_nil(tensors["optimizer/steps"])
    assert(checkpoint.save(path, {model = {net = run.model}, optimizer = run.optimizer}))
    tensors = marea.load(path)
    assert.is_not_nil(tensors["net.hidden.weight"])
    assert.are.equal(0, tensors["optimizer/steps"]:item())
  end)

  it("can be used without touching the random state", function()
    local path = folder.new() .. "/a.safetensors"
    local run = new_run()
    assert(checkpoint.save(path, {model = run.model}))
    marea.seed(5)
    assert(checkpoint.load(path, {model = run.model, random = false}))
    assert.are.equal(5, (marea.random_state()))
  end)

  it("that does not fit gives nil and a message, and changes nothing", function()
    local path = folder.new() .. "/a.safetensors"
    local run = new_run()
    train(run, 1, 1)
    assert(checkpoint.save(path, parts(run)))
    local function refused(text, what)
      local seed, counter = marea.random_state()
      local saved, message = checkpoint.load(path, what)
      assert.is_nil(saved)
      assert.is_truthy(message:find(text, 1, true), message)
      assert.are.same({seed, counter}, {marea.random_state()})
    end
    local other = nn.Sequential{nn.Linear{6, 9, name = "hidden"}}
    local before = marea.tensor(other.hidden.bias)
    refused("hidden.bias is f32 (8), expected f32 (9)", {model = other})
    refused("unexpected: 3.bias, 3.weight", {model = other})
    close(other.hidden.bias, before, {exact = true})
    refused("was saved with the optimizer Adam, not RMSprop", {model = run.model, optimizer = optim.RMSprop{run.model}})
    assert(checkpoint.save(path, {model = run.model}))
    refused("has no state of an optimizer", {model = run.model, optimizer = run.optimizer})
    refused("has no position of a loader", {model = run.model, loader = run.data})
    assert(marea.save(path, {a = marea.ones(1)}))
    refused("is no checkpoint", {model = run.model})
  end)

  it("that is missing or cut off gives nil and a message", function()
    local path = folder.new() .. "/a.safetensors"
    local run = new_run()
    local saved, message = checkpoint.load(path, {model = run.model})
    assert.is_nil(saved)
    assert.is_truthy(message:find(path, 1, true))
    assert(checkpoint.save(path, {model = run.model}))
    folder.write(path, folder.read(path):sub(1, -20))
    saved, message = checkpoint.load(path, {model = run.model})
    assert.is_nil(saved)
    assert.is_string(message)
    local ok, why = checkpoint.save("/nowhere/at/all", {model = run.model})
    assert.is_nil(ok)
    assert.is_truthy(why:find("/nowhere/at/all", 1, true))
  end)

  it("refuses misuse", function()
    assert.has_error(function() checkpoint.save("x", {}) end)
    local ok, message = pcall(function() checkpoint.save("x", {modell = 1}) end)
    assert.is_false(ok)
    assert.is_truthy(message:find "checkpoint_spec.lua:%d+: .*did you mean 'model'")
  end)
end)
