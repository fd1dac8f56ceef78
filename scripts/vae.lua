-- SPDX-License-Identifier: MIT
--- A convolutional variational autoencoder (Kingma and Welling 2014) on MNIST. It leaves pictures, metrics.csv and
--- weights in --out. `marea scripts/vae.lua` trains on the sample in scripts/data; --help lists the options. The
--- networks and posteriors are in vae_model.lua, the pictures in vae_report.lua.
local argparse = require "argparse"
local marea = require "marea"
local optim, data, checkpoint, metrics = marea.optim, marea.data, marea.checkpoint, marea.metrics
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local cli = dofile(here .. "options.lua")
local VAE, report = dofile(here .. "vae_model.lua"), dofile(here .. "vae_report.lua")

local parser = argparse("vae.lua", "Trains a convolutional variational autoencoder.")
parser:option("--data", "sample, mnist, fashion, or a folder with IDX files", "sample")
parser:option("--epochs", "passes over the training images (sample: 12, otherwise 15)"):convert(cli.count "--epochs")
parser:option("--latent", "components of the latent space", "2"):convert(cli.count "--latent")
parser:option("--model", "deep: two more convolutions and dropout; mlp: one hidden layer, fast", "conv")
  :choices{"conv", "deep", "mlp"}
parser:option("--posterior", "q(z | x); the last two are discrete, trained through their relaxations", "normal")
  :choices{"normal", "laplace", "relaxed_bernoulli", "gumbel_softmax"}
parser:option("--sampler", "notebook: exp(logvar) for the deviation; then the loss is no bound (docs/vae.md)", "exact")
  :choices{"exact", "notebook"}
parser:option("--batch", "images a step", "128"):convert(cli.count "--batch")
parser:option("--reconstruction", "loss between image and decoded image", "bce"):choices{"bce", "mse"}
parser:option("--optimizer", "for the weights", "rmsprop"):choices{"rmsprop", "adam", "adamw", "adagrad", "sgd"}
parser:option("--lr", "learning rate", "1e-3"):convert(cli.number "--lr")
parser:option("--schedule", "of the learning rate; cosine: down to 0 at the last step", "constant")
  :choices{"constant", "cosine"}
cli.training(parser, "out/vae", {{"model", "conv"}, {"posterior", "normal"}, {"sampler", "exact"}}, true)
local options = parser:parse()
if options.sampler == "notebook" and options.posterior ~= "normal" then
  parser:error "option '--sampler notebook' goes with '--posterior normal' only"
end

marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end
local train = assert(data.mnist(options.data, "train"))
local test = assert(data.mnist(options.data, "test"))
local epochs = options.epochs or options.data == "sample" and 12 or 15
if options.smoke then train, test, epochs = train:subset(1, 512), test:subset(1, 256), options.epochs or 2 end

--- For one image: the reconstruction's loss, summed over pixels (bce: nats; mse: squared differences), and
--- KL(q(z | x) || p(z)) in nats.
local function losses(model, x)
  local y, kl = model(x)
  return marea[options.reconstruction](y, x, {reduction = "batchmean"}), kl
end

-- ---- training ----

local model = VAE(options)
print(model:summary{28, 28, 1})
local classes = {rmsprop = "RMSprop", adam = "Adam", adamw = "AdamW", adagrad = "Adagrad", sgd = "SGD"}
local steps = math.ceil(#train / options.batch) -- of an epoch
local optimizer = optim[classes[options.optimizer]]{model,
  lr = optim.schedule[options.schedule](options.lr, epochs * steps)}

cli.make_folder(options.out)
local file, first = options.out .. "/vae.safetensors", 1
if options.resume then
  first = assert(cli.load(file, {model = model, optimizer = optimizer, loader = train})).epoch + 1
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

for epoch in marea.rerun.range(first, epochs) do
  local started = marea.clock()
  -- of relaxed posteriors: max(1/2, exp(-r t)) after t steps (Jang, Gu and Poole 2017, 4.3)
  model:set_temperature(math.max(0.5, math.exp(-3e-5 * (epoch - 1) * steps)))
  local title = ("epoch %" .. #tostring(epochs) .. "d/%d"):format(epoch, epochs)
  local bar = data.progress(train:batches(options.batch, {shuffle = true, epoch = epoch}), title)
  for x in bar:each() do
    local reconstruction, kl = marea.autocast({dtype = options.precision}, losses, model, x)
    local loss = reconstruction + kl
    optimizer:step(loss) -- backward, update
    bar:show("loss", loss:item(), "reconstruction", reconstruction:item(), "KL", kl:item())
  end
  local reconstruction, kl = evaluate()
  local seconds = marea.clock() - started
  io.stderr:write(marea.format("%s  test loss %.2f  reconstruction %.2f  KL %.2f\n", title, reconstruction + kl,
    reconstruction, kl))
  assert(log:write{epoch = epoch, loss = bar.means.loss, reconstruction = bar.means.reconstruction, kl = bar.means.KL,
    test_loss = reconstruction + kl, test_reconstruction = reconstruction, test_kl = kl, seconds = seconds})
  assert(checkpoint.save(file, {model = model, optimizer = optimizer, loader = train, epoch = epoch}))
end

report(model, test, log, options)
