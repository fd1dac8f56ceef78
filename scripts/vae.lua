-- SPDX-License-Identifier: MIT
--- A convolutional variational autoencoder (Kingma and Welling 2014) on MNIST. It leaves pictures, metrics.csv and
--- weights in --out. `marea scripts/vae.lua` trains on the sample in scripts/data; --help lists the options.
local argparse = require "argparse"
local marea = require "marea"
local nn, optim, data, checkpoint, metrics = marea.nn, marea.optim, marea.data, marea.checkpoint, marea.metrics
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local report = dofile(here .. "vae_report.lua")

--- Reads an option that counts.
local function count(name)
  return function(text)
    local n = math.tointeger(tonumber(text))
    if n and n > 0 then return n end
    return nil, ("option '%s': expected a whole number of at least 1, got '%s'"):format(name, text)
  end
end

local parser = argparse("vae.lua", "Trains a convolutional variational autoencoder.")
parser:option("--data", "sample, mnist, fashion, or a folder with IDX files", "sample")
parser:option("--epochs", "passes over the training images (sample: 12, otherwise 15)"):convert(count "--epochs")
parser:option("--latent", "components of the latent space", "2"):convert(count "--latent")
parser:option("--batch", "images a step", "128"):convert(count "--batch")
parser:option("--reconstruction", "loss between image and decoded image", "bce"):choices{"bce", "mse"}
parser:option("--optimizer", "for the weights", "rmsprop"):choices{"rmsprop", "adam", "adamw", "adagrad", "sgd"}
parser:option("--lr", "learning rate", "1e-3"):convert(tonumber)
parser:option("--seed", "of the random numbers", "1"):convert(math.tointeger)
parser:option("--threads", "at most this many; all cores when left out"):convert(count "--threads")
parser:option("--out", "folder for the results", "out/vae")
parser:flag("--resume", "goes on from the weights in --out")
parser:flag("--smoke", "a few steps on a few images, to see that all of it runs")
local options = parser:parse()

marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end
local train = assert(data.mnist(options.data, "train"))
local test = assert(data.mnist(options.data, "test"))
local epochs = options.epochs or options.data == "sample" and 12 or 15
if options.smoke then train, test, epochs = train:subset(1, 512), test:subset(1, 256), options.epochs or 2 end

-- ---- the model ----

local VAE = nn.class("VAE")

function VAE:init(latent)
  self.encoder = nn.Sequential{
    nn.Conv2d{1, 32, kernel = 3, padding = "same", activation = "relu", name = "conv1"},
    nn.Conv2d{32, 32, kernel = 3, padding = "same", activation = "relu", name = "conv2"},
    nn.Conv2d{32, 64, kernel = 3, stride = 2, padding = "same", activation = "relu", name = "conv3"},
    nn.Flatten{},
    nn.Linear{14 * 14 * 64, 128, activation = "relu", name = "dense"},
  }
  self.mean = nn.Linear{128, latent}
  self.logvar = nn.Linear{128, latent}
  self.decoder = nn.Sequential{
    nn.Linear{latent, 128, activation = "relu", name = "dense1"},
    nn.Linear{128, 14 * 14 * 64, activation = "relu", name = "dense2"},
    nn.Reshape{14, 14, 64},
    nn.ConvTranspose2d{64, 32, kernel = 3, stride = 2, padding = "same", activation = "relu", name = "up1"},
    nn.ConvTranspose2d{32, 32, kernel = 3, padding = "same", activation = "relu", name = "up2"},
    nn.ConvTranspose2d{32, 1, kernel = 3, padding = "same", activation = "sigmoid", name = "up3"},
  }
end

--- Images (N, 28, 28, 1) -> mean and log of the variance of q(z | x), both (N, latent).
function VAE:encode(x)
  local h = self.encoder(x)
  return self.mean(h), self.logvar(h)
end

--- z = mean + exp(logvar / 2) * eps, eps from N(0, 1): a sample that gradients flow through.
local function sample(mean, logvar)
  return marea.sample_normal(mean, logvar)
end

--- (N, latent) -> images (N, 28, 28, 1), values from 0 to 1.
function VAE:decode(z)
  return self.decoder(z)
end

function VAE:forward(x)
  local mean, logvar = self:encode(x)
  return self:decode(sample(mean, logvar)), mean, logvar
end

--- For one image: the reconstruction's loss, summed over pixels (bce: nats; mse: squared differences), and
--- KL(q(z | x) || N(0, 1)) in nats.
local function losses(model, x)
  local y, mean, logvar = model(x)
  local reconstruction = marea[options.reconstruction](y, x, {reduction = "batchmean"})
  return reconstruction, marea.kl_normal(mean, logvar, {reduction = "batchmean"})
end

-- ---- training ----

local model = VAE(options.latent)
print(model:summary{28, 28, 1})
local classes = {rmsprop = "RMSprop", adam = "Adam", adamw = "AdamW", adagrad = "Adagrad", sgd = "SGD"}
local optimizer = optim[classes[options.optimizer]]{model, lr = options.lr}

assert(os.execute("mkdir -p '" .. options.out:gsub("'", "'\\''") .. "'"), "no folder for the results: " .. options.out)
local file, first = options.out .. "/vae.safetensors", 1
if options.resume then
  first = assert(checkpoint.load(file, {model = model, optimizer = optimizer, loader = train})).epoch + 1
end
local log = metrics.open(options.out .. "/metrics.csv", {"epoch", "loss", "reconstruction", "kl", "test_loss",
  "test_reconstruction", "test_kl", "seconds"}, {resume = options.resume})

local function evaluate()
  model:evaluate()
  local bar = data.progress(test:batches(options.batch), {stream = false})
  for x in bar:each() do
    local reconstruction, kl = marea.no_grad(losses, model, x)
    bar:show("reconstruction", reconstruction:item(), "kl", kl:item())
  end
  model:train()
  return bar.means.reconstruction, bar.means.kl
end

for epoch = first, epochs do
  local started = marea.clock()
  local title = ("epoch %" .. #tostring(epochs) .. "d/%d"):format(epoch, epochs)
  local bar = data.progress(train:batches(options.batch, {shuffle = true, epoch = epoch}), title)
  for x in bar:each() do
    local reconstruction, kl = losses(model, x)
    local loss = reconstruction + kl
    optimizer:step(loss) -- backward, update
    bar:show("loss", loss:item(), "reconstruction", reconstruction:item(), "KL", kl:item())
  end
  local reconstruction, kl = evaluate()
  local seconds = marea.clock() - started
  io.stderr:write(("%s  test loss %.2f  reconstruction %.2f  KL %.2f\n"):format(title, reconstruction + kl,
    reconstruction, kl))
  assert(log:write{epoch = epoch, loss = bar.means.loss, reconstruction = bar.means.reconstruction, kl = bar.means.KL,
    test_loss = reconstruction + kl, test_reconstruction = reconstruction, test_kl = kl, seconds = seconds})
  assert(checkpoint.save(file, {model = model, optimizer = optimizer, loader = train, epoch = epoch}))
end

report(model, test, log, options)
