-- SPDX-License-Identifier: MIT
--- An importance weighted autoencoder (Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519) on MNIST whose pixels
--- are drawn anew in each pass, 1 with the probability of their gray value. At the end it estimates log p(x) of test
--- images. `marea scripts/iwae.lua` trains on the sample in scripts/data; --help lists the options.
local argparse = require "argparse"
local marea = require "marea"
local nn, optim, data, dist, importance = marea.nn, marea.optim, marea.data, marea.dist, marea.importance
local checkpoint, metrics = marea.checkpoint, marea.metrics
local cli = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")

local parser = argparse("iwae.lua", "Trains an autoencoder on the importance weighted bound.")
parser:option("--data", "sample, mnist, fashion, or a folder with IDX files", "sample")
parser:option("--epochs", "passes over the training images", "100"):convert(cli.count "--epochs")
parser:option("--objective", "elbo: the mean of k one-sample bounds; iwae: one bound of k samples", "iwae")
  :choices{"elbo", "iwae"}
parser:option("--samples", "k, samples of z for each image in training", "5"):convert(cli.count "--samples")
parser:option("--latent", "components of z", "50"):convert(cli.count "--latent")
parser:option("--hidden", "units of each hidden layer", "200"):convert(cli.count "--hidden")
parser:option("--batch", "images a step", "100"):convert(cli.count "--batch")
parser:option("--lr", "learning rate of Adam at the first step, down to 0 along a cosine", "2e-3")
  :convert(cli.number "--lr")
parser:option("--images", "test images, evenly spaced, whose log p(x) is estimated, with 5000 samples", "500")
  :convert(cli.count "--images")
cli.training(parser, "out/iwae", {{"objective", "iwae"}})
local options = parser:parse()

marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end
local train = assert(data.mnist(options.data, "train"))
local test = assert(data.mnist(options.data, "test"))
local epochs, final_samples = options.epochs, 5000
if options.smoke then
  train, test, epochs, final_samples = train:subset(1, 400), test:subset(1, 100), math.min(epochs, 2), 50
end

-- ---- the model ----

local IWAE = nn.class("IWAE")

function IWAE:init(hidden, latent)
  self.encoder = nn.Sequential{
    nn.Flatten{},
    nn.Linear{784, hidden, activation = "relu"},
    nn.Linear{hidden, hidden, activation = "relu"},
  }
  self.mean = nn.Linear{hidden, latent}
  self.logvar = nn.Linear{hidden, latent}
  self.decoder = nn.Sequential{
    nn.Linear{latent, hidden, activation = "relu"},
    nn.Linear{hidden, hidden, activation = "relu"},
    nn.Linear{hidden, 784},
  }
end

--- Logarithms of k importance weights of images x (N, 28, 28, 1) whose pixels are 0 or 1: (k, N).
function IWAE:forward(x, k, chunk)
  local h = self.encoder(x)
  local q = dist.Normal(self.mean(h), (0.5 * self.logvar(h)):exp())
  local target = x:reshape(1, #x, 784)
  local function log_likelihood(z)
    local logits = self.decoder(z:reshape(-1, z:size(3))):reshape(#z, #x, 784)
    return -logits:bce_with_logits(target:expand(#z, -1, -1), {reduction = "none"}):sum(3)
  end
  return importance.log_weights(q, dist.Normal(0, 1), log_likelihood, {samples = k, chunk = chunk})
end

--- Means over the images of a dataset, in nats: the bounds of log p(x) from each k of a list, from `samples` samples.
local function bounds(model, dataset, ks, samples, title)
  local bar = data.progress(dataset:batches(20), title or {stream = false})
  for x in bar:each() do
    local log_weights = marea.no_grad(model.forward, model, x:bernoulli(), samples, 100)
    for _, k in ipairs(ks) do bar:show("k = " .. k, importance.bound(log_weights, k):mean():item()) end
  end
  return bar.means
end

-- ---- training ----

local model = IWAE(options.hidden, options.latent)
local steps = epochs * math.ceil(#train / options.batch)
local optimizer = optim.Adam{model, lr = optim.schedule.cosine(options.lr, steps)}
local k = options.objective == "iwae" and options.samples or 1 -- samples in one bound
print(("%d parameters; %s, %d samples"):format(model:count(), options.objective, options.samples))

cli.make_folder(options.out)
local file, first = options.out .. "/iwae.safetensors", 1
if options.resume then
  first = assert(cli.load(file, {model = model, optimizer = optimizer, loader = train})).epoch + 1
end
local log = metrics.open(options.out .. "/metrics.csv", {"epoch", "loss", "test_loss", "seconds"},
  {resume = options.resume})

for epoch in marea.rerun.range(first, epochs) do
  local started = marea.clock()
  local title = ("epoch %" .. #tostring(epochs) .. "d/%d"):format(epoch, epochs)
  local bar = data.progress(train:batches(options.batch, {shuffle = true, epoch = epoch}), title)
  for x in bar:each() do
    local loss = -importance.bound(model(x:bernoulli(), options.samples), k):mean()
    optimizer:step(loss) -- backward, update
    bar:show("loss", loss:item())
  end
  local test_loss = -bounds(model, test, {k}, options.samples)["k = " .. k]
  local seconds = marea.clock() - started
  io.stderr:write(marea.format("%s  test loss %.2f\n", title, test_loss))
  assert(log:write{epoch = epoch, loss = bar.means.loss, test_loss = test_loss, seconds = seconds})
  assert(checkpoint.save(file, {model = model, optimizer = optimizer, loader = train, epoch = epoch}))
end

local sizes = {1, 50, final_samples}
local some = test:spaced(math.min(options.images, #test))
local means = bounds(model, some, sizes, final_samples, "log p(x)")
for _, size in ipairs(sizes) do
  print(marea.format("test, %d images: -log p(x) <= %.2f nats (k = %d)", #some, -means["k = " .. size], size))
end
print("Metrics and weights are in " .. options.out)
