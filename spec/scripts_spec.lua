-- SPDX-License-Identifier: MIT
-- The scripts as a user runs them.
local marea = require "marea"
local folder = require "spec.support.folder"

local vae = "scripts/vae.lua --smoke --out "

teardown(folder.remove)

-- The architecture: output shape and parameters of each layer.
local layers = {
  {"encoder.conv1", "28, 28, 32", "320"}, {"encoder.conv2", "28, 28, 32", "9,248"},
  {"encoder.conv3", "14, 14, 64", "18,496"}, {"encoder.4", "12544", "0"}, {"encoder.dense", "128", "1,605,760"},
  {"mean", "2", "258"}, {"logvar", "2", "258"}, {"decoder.dense1", "128", "384"},
  {"decoder.dense2", "12544", "1,618,176"}, {"decoder.3", "14, 14, 64", "0"}, {"decoder.up1", "28, 28, 32", "18,464"},
  {"decoder.up2", "28, 28, 32", "9,248"}, {"decoder.up3", "28, 28, 1", "289"},
}

describe("vae.lua", function()
  local out = folder.new()
  local whole, resumed = out .. "/whole", out .. "/resumed"

  it("trains, and leaves pictures, metrics and weights", function()
    local text, code = folder.lua(vae .. whole)
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find("Total params: 3,280,901", 1, true))
    for _, row in ipairs(layers) do
      local name, shape, parameters = table.unpack(row)
      assert.is_truthy(text:find(("%s %%(%%w+%%) +%%(N, %s%%) +%s%%s"):format(name, shape, parameters)), name)
    end
    assert.is_truthy(text:find "epoch 2/2  step 4/4  loss [%d.]+  reconstruction [%d.]+  KL [%d.]+  %d+ images/s")
    local rows = assert(marea.metrics.read(whole .. "/metrics.csv"))
    assert.are.equal(2, #rows)
    assert.is_true(rows[2].loss < rows[1].loss and rows[2].test_loss < rows[1].test_loss)
    assert.is_true(rows[2].test_loss < 300)
    for _, name in ipairs{"training_curve", "reconstructions", "latent", "histograms", "manifold", "manifold_tails"} do
      local png = assert(marea.load_png(("%s/%s.png"):format(whole, name)))
      assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
    end
  end)

  it("stopped and resumed gives the same weights, whatever the threads", function()
    local text, code = folder.lua(vae .. resumed .. " --epochs 1 --threads 1")
    assert.are.equal(0, code, text)
    text, code = folder.lua(vae .. resumed .. " --resume")
    assert.are.equal(0, code, text)
    assert.is_nil(text:find "epoch 1/2")
    assert.are.equal(folder.read(whole .. "/vae.safetensors"), folder.read(resumed .. "/vae.safetensors"))
    local a, b = marea.metrics.read(whole .. "/metrics.csv"), marea.metrics.read(resumed .. "/metrics.csv")
    for i, row in ipairs(a) do
      row.seconds, b[i].seconds = nil, nil
      assert.are.same(row, b[i])
    end
  end)

  it("takes its options", function()
    local text, code = folder.lua(vae .. out .. "/other --latent 5 --reconstruction mse --optimizer adam --lr 2e-3 "
      .. "--epochs 1 --batch 64 --seed 3")
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find("Total params: 3,282,059", 1, true), text)
    assert.is_truthy(text:find "step 8/8")
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/vae.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"data", "epochs", "latent", "batch", "reconstruction", "optimizer", "lr", "seed", "threads",
      "out", "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua "scripts/vae.lua --epoch 3"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("Did you mean '--epochs'", 1, true), text)
    text, code = folder.lua("scripts/vae.lua --data /nowhere")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("/nowhere", 1, true))
    text, code = folder.lua(vae .. out .. "/none --resume")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("none/vae.safetensors", 1, true), text)
  end)
end)

describe("count.lua", function()
  local out = folder.new()

  local function run(...)
    local text, code = folder.lua("scripts/count.lua --smoke " .. table.concat({...}, " "))
    assert.are.equal(0, code, text)
    return text
  end

  for _, task in ipairs{"digits", "cells"} do
    for _, method in ipairs{"density", "direct"} do
      it(("counts %s by %s, and leaves pictures, metrics and weights"):format(task, method), function()
        local at = ("%s/%s_%s"):format(out, task, method)
        local text = run("--task", task, "--method", method, "--out", at)
        assert.is_truthy(text:find "epoch 2/2  step 2/2  loss [%d.]+")
        assert.is_truthy(text:find "epoch 2/2  test MAE [%d.]+  RMSE [%d.]+  exact [%d.]+ %%  left 0 min")
        assert.is_truthy(text:find "constant  MAE [%d.]+")
        local rows = assert(marea.metrics.read(at .. "/metrics.csv"))
        assert.are.equal(2, #rows)
        if method == "density" then assert.is_true(rows[2].loss < rows[1].loss) end
        assert.is_true(rows[2].mae <= rows[2].rmse and rows[2].rmse < 1000)
        for _, name in ipairs{"training_curve", "scatter", "examples"} do
          local png = assert(marea.load_png(("%s/%s.png"):format(at, name)))
          assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
        end
      end)
    end
  end

  it("stopped and resumed gives the same weights, whatever the threads", function()
    local at = out .. "/resumed"
    run("--task cells --epochs 1 --threads 1 --out", at)
    local text = run("--task cells --resume --out", at)
    assert.is_nil(text:find "epoch 1/2")
    assert.are.equal(folder.read(out .. "/cells_density/count.safetensors"), folder.read(at .. "/count.safetensors"))
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/count.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"task", "method", "data", "epochs", "images", "batch", "lr", "seed", "threads", "out",
      "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua "scripts/count.lua --task cats"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("must be one of .digits., .cells."), text)
    text, code = folder.lua "scripts/count.lua --data /nowhere"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("/nowhere", 1, true), text)
    text, code = folder.lua("scripts/count.lua --resume --smoke --out " .. out .. "/none")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("none/count.safetensors", 1, true), text)
  end)
end)

describe("classifier.lua", function()
  local out = folder.new()
  local run = "scripts/classifier.lua --smoke --out " .. out

  it("trains, and leaves pictures, metrics and weights that other scripts can load", function()
    local text, code = folder.lua(run .. " --epochs 3")
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find("Total params: 467,818", 1, true), text)
    local rows = assert(marea.metrics.read(out .. "/metrics.csv"))
    assert.are.equal(3, #rows)
    assert.is_true(rows[3].loss < rows[1].loss and rows[3].test_accuracy > 30)
    for _, name in ipairs{"training_curve", "confusion", "mistakes"} do
      local png = assert(marea.load_png(("%s/%s.png"):format(out, name)))
      assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
    end
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
    local text, code = folder.lua(run .. " --epochs 4 --resume --augment none --batch 256 --lr 1e-3")
    assert.are.equal(0, code, text)
    assert.is_nil(text:find "epoch 3/4")
    assert.is_truthy(text:find "epoch 4/4  step 2/2")
    assert.are.equal(4, #assert(marea.metrics.read(out .. "/metrics.csv")))
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/classifier.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"data", "epochs", "batch", "lr", "augment", "seed", "threads", "out", "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua "scripts/classifier.lua --data /nowhere"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("/nowhere", 1, true))
  end)
end)

describe("mnist.sh", function()
  it("takes only files that are MNIST's, byte for byte", function()
    local target, path = folder.new(), folder.new()
    local programs = "mktemp rm mkdir sha256sum cut cat gzip cp mv chmod tr grep"
    for program in programs:gmatch "%S+" do
      local from = io.popen("command -v " .. program):read "l"
      os.execute(("ln -s %s %s/%s"):format(from, path, program))
    end
    local command = "PATH=%s MAREA_DATA=scripts/data /bin/sh scripts/mnist.sh %s 2>&1; echo exit $?"
    local text = io.popen(command:format(path, target)):read "a"
    assert.is_truthy(text:find "exit 1%s*$", text)
    assert.is_truthy(text:find("train-images-idx3-ubyte.gz is not MNIST's", 1, true), text)
    assert.is_truthy(text:find("Not found: train-images-idx3-ubyte", 1, true))
    assert.is_nil(folder.read(target .. "/train-images-idx3-ubyte.gz"))
  end)
end)
