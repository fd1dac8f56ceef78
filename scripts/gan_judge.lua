-- SPDX-License-Identifier: MIT
--- Judges generated digits by the classifier of scripts/classifier.lua: how sure it is, how evenly the classes come,
--- and how far its features are from those of real images. Rows: real images, a GAN, a VAE; all with the same number.
---
---   marea scripts/gan_judge.lua --data mnist --gan out/gan/gan.safetensors --vae out/vae/vae.safetensors
local argparse = require "argparse"
local marea = require "marea"
local nn, data, judge = marea.nn, marea.data, marea.judge
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local shared = dofile(here .. "options.lua")
local networks, Classifier = dofile(here .. "gan_model.lua"), dofile(here .. "classifier_model.lua")

local parser = argparse("gan_judge.lua", "Judges generated digits by a classifier.")
parser:option("--data", "sample, mnist, fashion, or a folder with IDX files", "sample")
parser:option("--classifier", "weights from scripts/classifier.lua", "out/classifier/classifier.safetensors")
parser:option("--gan", "weights from scripts/gan.lua; may be given several times"):count "*"
parser:option("--vae", "weights from scripts/vae.lua; may be given several times"):count "*"
parser:option("--samples", "images in each row (at most as many as there are test images)", "10000")
  :convert(shared.count "--samples")
parser:option("--seed", "of the random numbers", "1"):convert(shared.whole "--seed")
local options = parser:parse()

marea.seed(options.seed)
local train, test = assert(data.mnist(options.data, "train")), assert(data.mnist(options.data, "test"))
local n = math.min(options.samples, #test)
local classifier = assert(Classifier.load(options.classifier))

--- A network with the tensors of a file whose names begin with `prefix`, in evaluation mode, and the size of z. make:
--- size -> network; the size is that of its first layer, dense1.
local function load(path, prefix, make)
  local tensors, state = assert(marea.load(path)), {}
  for name, t in pairs(tensors) do
    if name:sub(1, #prefix) == prefix then state[name:sub(#prefix + 1)] = t end
  end
  local first = state["dense1.weight"] or error(("%s: holds no %sdense1.weight"):format(path, prefix))
  local latent = first:size(1)
  local network = make(latent)
  network:build{latent}
  network:load_state(state):evaluate()
  return network, latent
end

--- The decoder of scripts/vae.lua.
local function vae_decoder(latent)
  local function up(channels_in, channels_out, stride, activation, name)
    return nn.ConvTranspose2d{channels_in, channels_out, kernel = 3, stride = stride, padding = "same",
      activation = activation, name = name}
  end
  return nn.Sequential{
    nn.Linear{latent, 128, activation = "relu", name = "dense1"},
    nn.Linear{128, 14 * 14 * 64, activation = "relu", name = "dense2"}, nn.Reshape{14, 14, 64},
    up(64, 32, 2, "relu", "up1"), up(32, 32, 1, "relu", "up2"), up(32, 1, 1, "sigmoid", "up3"),
  }
end

--- n images from z of N(0, 1).
local function generate(network, latent)
  local parts = {}
  for first = 1, n, 500 do
    parts[#parts + 1] = marea.no_grad(network, marea.normal{math.min(500, n - first + 1), latent})
  end
  return marea.concat(parts, 1)
end

local function real(dataset)
  local index = marea.permutation(#dataset):narrow(1, 1, n) -- values 1 to the dataset's size
  return (dataset:rows(index))
end

local reference = judge.gaussian((judge.see(classifier, real(train))))
print(("%d images each; Fréchet distance to as many training images"):format(n))
print "row                                  Fréchet  confident  coverage  KL to uniform (nats)"
local function row(name, images)
  marea.scope(function()
    local features, p = judge.see(classifier, images())
    local classes = judge.classes(p)
    local kl = classes.confident > 0 and marea.format("%8.4f", classes.kl) or "       -" -- of no image
    print(marea.format("%-36s %7.2f  %7.1f %%  %5d/10  %s", name, judge.frechet(features, reference),
      100 * classes.confident, classes.coverage, kl))
  end)
end

row("real test images", function() return real(test) end)
for _, path in ipairs(options.gan) do
  row(path, function() return generate(load(path, "generator.", networks.generator)) end)
end
for _, path in ipairs(options.vae) do
  row(path, function() return generate(load(path, "decoder.", vae_decoder)) end)
end
