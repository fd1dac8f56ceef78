-- SPDX-License-Identifier: MIT
-- scripts/count.lua, classifier.lua and gan.lua as a user runs them.
local marea = require "marea"
local folder = require "spec.support.folder"
local script = require "spec.support.script"

teardown(folder.remove)

describe("count.lua", function()
  local out = folder.new()

  local function run(...)
    return script.run("scripts/count.lua --smoke " .. table.concat({...}, " "))
  end

  for _, task in ipairs{"digits", "cells"} do
    for _, method in ipairs{"density", "direct"} do
      it(("counts %s by %s, and leaves pictures, metrics and weights"):format(task, method), function()
        local at = ("%s/%s_%s"):format(out, task, method)
        local text = run("--task", task, "--method", method, "--out", at)
        assert.is_truthy(text:find "epoch 3/3  step (%d)/%1  loss [%d.]+")
        assert.is_truthy(text:find "epoch 3/3  validation MAE [%d.]+  RMSE [%d.]+  exact [%d.]+ %%  left 0:00")
        assert.is_truthy(text:find(method .. " +test MAE [%d.]+"))
        assert.is_truthy(text:find "constant  test MAE [%d.]+")
        local rows = assert(marea.metrics.read(at .. "/metrics.csv"))
        assert.are.equal(3, #rows)
        if method == "density" then assert.is_true(rows[2].loss < rows[1].loss) end
        assert.is_true(rows[3].mae <= rows[3].rmse and rows[3].rmse < 1000)
        script.has_pictures(at, "training_curve scatter examples")
      end)
    end
  end

  it("shows images from the fewest objects to the most", function()
    local spread = dofile "scripts/count_report.lua".spread
    assert.are.same({3, 1, 4, 2}, spread({20, 50, 0, 30}, 4))
    assert.are.same({3, 4, 2}, spread({20, 50, 0, 30, 31}, 3))
    assert.are.same({2, 1}, spread({7, 5, 5}, 2))
    assert.are.same({1}, spread({4}, 1))
  end)

  for _, method in ipairs{"density", "direct"} do
    it(("killed and resumed, %s ends with the same bits, whatever the threads"):format(method), function()
      local whole, at = out .. "/cells_" .. method, out .. "/killed_" .. method
      local arguments = ("scripts/count.lua --smoke --task cells --method %s --out %s"):format(method, at)
      folder.lua_killed(arguments .. " --threads 1", at .. "/count.safetensors")
      local text = run("--task cells --resume --method", method, "--out", at)
      assert.is_nil(text:find "epoch 1/3")
      assert.is_truthy(text:find "epoch 2/3", "was killed before the second epoch ended")
      assert.are.equal(folder.read(whole .. "/count.safetensors"), folder.read(at .. "/count.safetensors"))
      assert.are.same(script.metrics(whole), script.metrics(at))
    end)
  end

  it("explains itself, and what is wrong", function()
    script.explains("scripts/count.lua", "task method data epochs images batch lr seed")
    script.fails("scripts/count.lua --task cats", "must be one of 'digits', 'cells'")
    script.fails("scripts/count.lua --data /nowhere", "/nowhere")
    script.fails("scripts/count.lua --resume --smoke --out " .. out .. "/none", "none/count.safetensors")
  end)
end)

describe("classifier.lua", function()
  local out = folder.new()
  local run = "scripts/classifier.lua --smoke --out " .. out

  it("trains, and leaves pictures, metrics and weights that other scripts can load", function()
    local text = script.run(run .. " --epochs 3")
    assert.is_truthy(text:find("Total params: 467,818", 1, true), text)
    local rows = assert(marea.metrics.read(out .. "/metrics.csv"))
    assert.are.equal(3, #rows)
    assert.is_true(rows[3].loss < rows[1].loss and rows[3].test_accuracy > 30)
    script.has_pictures(out, "training_curve confusion mistakes")
    local Classifier = dofile "scripts/classifier_model.lua"
    local model = assert(Classifier.load(out .. "/classifier.safetensors"))
    local test = assert(marea.data.mnist("sample", "test")):subset(1, 256)
    local features, p = marea.judge.see(model, test:field "image":to "f32" / 255)
    assert.are.same({256, 128}, features.shape)
    local accuracy = p:argmax(2):eq(test:field "label"):to "f32":mean():item() * 100
    assert.is_true(math.abs(accuracy - rows[3].test_accuracy) < 1e-4)
    assert.is_nil((Classifier.load(out .. "/none.safetensors")))
  end)

  it("goes on where it stopped", function()
    local text = script.run(run .. " --epochs 4 --resume --augment none --batch 256 --lr 1e-3")
    assert.is_nil(text:find "epoch 3/4")
    assert.is_truthy(text:find "epoch 4/4  step 2/2")
    assert.are.equal(4, #assert(marea.metrics.read(out .. "/metrics.csv")))
  end)

  it("explains itself, and what is wrong", function()
    script.explains("scripts/classifier.lua", "data epochs batch lr augment seed")
    script.fails("scripts/classifier.lua --data /nowhere", "/nowhere")
  end)
end)

describe("gan.lua", function()
  local gan = "scripts/gan.lua --smoke --out "
  local out = folder.new()
  local whole, resumed = out .. "/gan", out .. "/gan_resumed"

  it("trains, and leaves pictures, metrics and weights", function()
    local text = script.run(gan .. whole)
    assert.is_truthy(text:find("Total params: 1,705,441\nTrainable params: 1,679,969\nNon-trainable params: 25,472", 1,
      true), text)
    assert.is_truthy(text:find("Total params: 5,222,401", 1, true))
    assert.is_truthy(text:find "GAN  step 6/6  discriminator [%d.]+  generator [%d.]+  accuracy [%d.]+")
    assert.are.equal(6, #assert(marea.metrics.read(whole .. "/metrics.csv")))
    script.has_pictures(whole, "samples strip losses")
    for _, name in ipairs{"samples/000000", "samples/000006"} do
      local png = assert(marea.load_png(("%s/%s.png"):format(whole, name)))
      assert.is_true(png:to("f32"):std():item() > 0, name .. " is not blank")
      assert.are.same({560, 560, 1}, png.shape)
    end
  end)

  it("stopped and resumed gives the same weights and losses, whatever the threads", function()
    script.run(gan .. resumed .. " --steps 4 --threads 1")
    script.run(gan .. resumed .. " --resume")
    local expected, actual = marea.load(whole .. "/gan.safetensors"), marea.load(resumed .. "/gan.safetensors")
    for name, t in pairs(expected) do -- weights, statistics, and what both optimizers remember
      assert.is_true(actual[name]:eq(t):to("f32"):min():item() == 1, name)
      actual[name] = nil
    end
    assert.is_nil(next(actual))
    assert.are.same(script.metrics(whole), script.metrics(resumed))
  end)

  it("as assigned has the notebook's networks and can die at the third step, as there", function()
    for _, seed in ipairs{1, 8} do -- with others the discriminator comes back from a loss of 5 to 7, and wins
      local command = "%s%s/assigned --as-assigned --batch 64 --steps 5 --seed %d"
      local text = script.run(command:format(gan, out, seed))
      assert.is_truthy(text:find("Total params: 1,697,505", 1, true), text)
      assert.is_truthy(text:find("Non-trainable params: 25,472", 1, true))
      local rows = assert(marea.metrics.read(out .. "/assigned/metrics.csv"))
      assert.is_true(rows[1].discriminator > 0.6 and rows[1].discriminator < 0.8)
      for step = 3, 5 do -- (15.942385 + 0) / 2: every p is 1, at the clip, where there is no gradient
        assert.is_true(math.abs(rows[step].discriminator - 7.9712) < 1e-3, text)
        assert.are.equal(0.5, rows[step].accuracy)
        assert.is_true(rows[step].generator < 1e-5)
      end
    end
  end)

  it("is judged by a classifier, beside real images", function()
    script.run("scripts/classifier.lua --smoke --epochs 1 --out " .. out .. "/judge")
    local text = script.run(("scripts/gan_judge.lua --samples 200 --classifier %s/judge/classifier.safetensors "
      .. "--gan %s/gan.safetensors"):format(out, whole))
    local of_real = tonumber(text:match "real test images +([%d.]+)")
    local of_gan = tonumber(text:match "gan.safetensors +([%d.]+) +[%d.]+ %% +%d+/10")
    assert.is_true(of_real < of_gan, text) -- six steps make no digits
  end)

  it("learns with a gradient penalty too", function()
    script.run(gan .. out .. "/wgan --loss wgan-gp --steps 12")
    local rows = assert(marea.metrics.read(out .. "/wgan/metrics.csv"))
    assert.is_true(rows[1].discriminator > 0) -- the penalty of slopes that are far from 1
    assert.is_true(rows[12].discriminator < -5) -- the critic tells them apart
  end)
end)
