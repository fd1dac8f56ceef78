-- SPDX-License-Identifier: MIT
-- scripts/vae.lua, vae_study.lua and iwae.lua as a user runs them.
local marea = require "marea"
local folder = require "spec.support.folder"
local script = require "spec.support.script"

teardown(folder.remove)

local vae = "scripts/vae.lua --smoke --out "

-- The architecture: output shape and parameters of each layer.
local layers = {
  {"encoder.conv1", "28, 28, 32", "320"}, {"encoder.conv2", "28, 28, 32", "9,248"},
  {"encoder.conv3", "14, 14, 64", "18,496"}, {"encoder.4", "12544", "0"}, {"encoder.dense", "128", "1,605,760"},
  {"mean", "2", "258"}, {"logvar", "2", "258"}, {"decoder.dense1", "128", "384"},
  {"decoder.dense2", "12544", "1,618,176"}, {"decoder.3", "14, 14, 64", "0"}, {"decoder.up1", "28, 28, 32", "18,464"},
  {"decoder.up2", "28, 28, 32", "9,248"}, {"decoder.up3", "28, 28, 1", "289"},
}

-- The same for --model deep.
local deep_layers = {
  {"encoder.conv1", "28, 28, 32", "320"}, {"encoder.2", "28, 28, 32", "0"}, {"encoder.conv2", "28, 28, 32", "9,248"},
  {"encoder.4", "28, 28, 32", "0"}, {"encoder.conv3", "28, 28, 32", "9,248"}, {"encoder.6", "28, 28, 32", "0"},
  {"encoder.conv4", "28, 28, 32", "9,248"}, {"encoder.8", "28, 28, 32", "0"},
  {"encoder.conv5", "14, 14, 64", "18,496"}, {"encoder.dense", "128", "1,605,760"}, {"mean", "2", "258"},
  {"logvar", "2", "258"}, {"decoder.dense1", "128", "384"}, {"decoder.dense2", "12544", "1,618,176"},
  {"decoder.up1", "28, 28, 32", "18,464"}, {"decoder.up2", "28, 28, 32", "9,248"},
  {"decoder.up3", "28, 28, 32", "9,248"}, {"decoder.up4", "28, 28, 32", "9,248"}, {"decoder.up5", "28, 28, 1", "289"},
}

local function assert_layers(text, rows)
  for _, row in ipairs(rows) do
    local name, shape, parameters = table.unpack(row)
    assert.is_truthy(text:find(("%s %%(%%w+%%) +%%(N, %s%%) +%s%%s"):format(name, shape, parameters)), name)
  end
end

describe("vae.lua", function()
  local out = folder.new()
  local whole, resumed = out .. "/whole", out .. "/resumed"

  it("trains, and leaves pictures, metrics and weights", function()
    local text = script.run(vae .. whole)
    assert.is_truthy(text:find("Total params: 3,280,901", 1, true))
    assert_layers(text, layers)
    assert.is_truthy(text:find "epoch 2/2  step 4/4  loss [%d.]+  reconstruction [%d.]+  KL [%d.]+  %d+ images/s")
    local rows = assert(marea.metrics.read(whole .. "/metrics.csv"))
    assert.are.equal(2, #rows)
    assert.is_true(rows[2].loss < rows[1].loss and rows[2].test_loss < rows[1].test_loss)
    assert.is_true(rows[2].test_loss < 300)
    script.has_pictures(whole, "training_curve reconstructions samples latent histograms manifold manifold_tails")
  end)

  it("has z1 to the right and z2 upwards in its manifolds, as in the plane of means", function()
    local model = dofile "scripts/vae_model.lua"{latent = 2, model = "conv", posterior = "normal", sampler = "exact"}
    model:build{28, 28, 1}
    assert(marea.checkpoint.load(whole .. "/vae.safetensors", {model = model}))
    local low, high = table.unpack(model:prior():icdf(marea.tensor{5e-6, 1 - 5e-6}):totable())
    local corners = marea.no_grad(model.decode, model:evaluate(), marea.tensor{{low, high}, {high, low}})
    local picture = assert(marea.load_png(whole .. "/manifold_tails.png")):to "f32"
    local function inside(x, row, column) return x:narrow(1, row + 6, 16):narrow(2, column + 6, 16) end
    for i, at in ipairs{{57, 91}, {57 + 29 * 28, 91 + 29 * 28}} do -- top left, bottom right
      local tile = inside(picture, at[1], at[2]) / 255
      local function apart(k)
        return (tile - inside(marea.image.colorize(corners[k], "gnuplot2"), 1, 1)):abs():max():item()
      end
      assert.is_true(apart(i) < 0.02 and apart(3 - i) > 0.1, apart(i))
    end
  end)

  it("stopped and resumed gives the same weights, whatever the threads", function()
    script.run(vae .. resumed .. " --epochs 1 --threads 1")
    local text = script.run(vae .. resumed .. " --resume")
    assert.is_nil(text:find "epoch 1/2")
    assert.are.equal(folder.read(whole .. "/vae.safetensors"), folder.read(resumed .. "/vae.safetensors"))
    assert.are.same(script.metrics(whole), script.metrics(resumed))
  end)

  it("takes its options", function()
    local text = script.run(vae .. out .. "/other --latent 5 --reconstruction mse --optimizer adam --lr 2e-3 "
      .. "--epochs 1 --batch 64 --seed 3")
    assert.is_truthy(text:find("Total params: 3,282,059", 1, true), text)
    assert.is_truthy(text:find "step 8/8")
  end)

  it("has the deep network of the notebook", function()
    local text = script.run(vae .. out .. "/deep --model deep --epochs 1")
    assert.is_truthy(text:find("Total params: 3,317,893", 1, true), text)
    assert_layers(text, deep_layers)
    assert.are.equal(4, select(2, text:gsub("%(Dropout%)", "")))
  end)

  it("has other posteriors, and the notebook's sampler", function()
    local cases = {
      {"--posterior laplace --latent 3", 632390}, {"--posterior relaxed_bernoulli --latent 20", 644804},
      {"--posterior gumbel_softmax --latent 4", 660824}, {"--sampler notebook", 631188},
    }
    for i, case in ipairs(cases) do
      local folder_out = ("%s/posterior%d"):format(out, i)
      local text = script.run(("%s %s --model mlp --optimizer adam %s"):format(vae, folder_out, case[1]))
      assert.is_truthy(text:gsub(",", ""):find("Total params: " .. case[2], 1, true), text)
      local rows = assert(marea.metrics.read(folder_out .. "/metrics.csv"))
      assert.is_true(rows[2].test_loss < rows[1].test_loss, case[1])
      assert.is_true(rows[2].kl > 0, case[1])
      assert.is_truthy(folder.read(folder_out .. "/samples.png"))
    end
    script.fails(vae .. out .. "/none --sampler notebook --posterior laplace", "goes with '--posterior normal' only")
  end)

  it("explains itself, and what is wrong", function()
    script.explains("scripts/vae.lua",
      "data epochs latent model posterior sampler batch reconstruction optimizer lr schedule seed")
    script.fails("scripts/vae.lua --epoch 3", "Did you mean '--epochs'")
    script.fails("scripts/vae.lua --data /nowhere", "/nowhere")
    script.fails(vae .. out .. "/none --resume", "none/vae.safetensors")
  end)
end)

describe("vae_study.lua", function()
  local out = folder.new()
  local command = "scripts/vae_study.lua --smoke --model mlp --threads 2 --out " .. out
    .. " --runs latent2 latent5 laplace gumbel_softmax"

  it("trains, estimates log p(x), and leaves tables and pictures; --resume takes what is there", function()
    local text = script.run(command)
    assert.is_truthy(text:find "run 4/4  gumbel_softmax done")
    local lines = {}
    for line in folder.read(out .. "/results.csv"):gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.are.equal(5, #lines)
    assert.is_truthy(lines[2]:find "^latent2,mlp,normal,2,1,")
    for i = 2, #lines do
      local numbers = {}
      for cell in lines[i]:gmatch "[^,]+" do numbers[#numbers + 1] = tonumber(cell) end
      local _, _, _, _, elbo, bound1, bound50 = table.unpack(numbers)
      assert.is_true(elbo > 0 and bound50 < bound1 and math.abs(elbo / bound1 - 1) < 0.2, lines[i])
    end
    script.has_pictures(out, "reconstructions samples bounds")
    local results, weights = folder.read(out .. "/results.csv"), folder.read(out .. "/latent5/vae.safetensors")
    os.remove(out .. "/results.csv")
    os.remove(out .. "/latent2/evaluation.csv")
    text = script.run(command .. " --resume")
    assert.is_nil(text:find("epoch 1/1", 1, true))
    assert.are.equal(results, folder.read(out .. "/results.csv"))
    assert.are.equal(weights, folder.read(out .. "/latent5/vae.safetensors"))
  end)

  it("explains itself, and what is wrong", function()
    script.explains("scripts/vae_study.lua", "runs images samples")
    script.fails("scripts/vae_study.lua --smoke --runs none", "must be one of 'latent2'")
    script.fails("scripts/vae_study.lua --samples 70", "a multiple of 50")
  end)
end)

describe("iwae.lua", function()
  local out = folder.new()

  it("trains on both objectives; --resume of a finished run only estimates again", function()
    for _, objective in ipairs{"elbo", "iwae"} do
      local command = ("scripts/iwae.lua --smoke --samples 3 --objective %s --out %s/%s"):format(objective, out,
        objective)
      local text = script.run(command)
      local rows = assert(marea.metrics.read(("%s/%s/metrics.csv"):format(out, objective)))
      assert.is_true(rows[2].test_loss < rows[1].test_loss)
      local one, many = text:match "<= ([%d.]+) nats %(k = 1%).*<= ([%d.]+) nats %(k = 50%)"
      assert.is_true(tonumber(many) < tonumber(one), text)
    end
    local weights = folder.read(out .. "/iwae/iwae.safetensors")
    local text = script.run("scripts/iwae.lua --smoke --samples 3 --resume --out " .. out .. "/iwae")
    assert.is_nil(text:find("epoch 2/2", 1, true))
    assert.are.equal(weights, folder.read(out .. "/iwae/iwae.safetensors"))
  end)
end)
