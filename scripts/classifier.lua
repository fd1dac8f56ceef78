-- SPDX-License-Identifier: MIT
--- A convolutional classifier of MNIST digits, trained on images that are turned, moved, scaled and sheared a little.
--- It leaves weights, metrics.csv and pictures in --out. `marea scripts/classifier.lua` trains on the sample in
--- scripts/data; --help lists the options.
local argparse = require "argparse"
local marea = require "marea"
local optim, data, checkpoint, metrics = marea.optim, marea.data, marea.checkpoint, marea.metrics
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local cli = dofile(here .. "options.lua")
local Classifier = dofile(here .. "classifier_model.lua")
local report = dofile(here .. "classifier_report.lua")

local parser = argparse("classifier.lua", "Trains a convolutional classifier of digits.")
parser:option("--data", "sample, mnist, fashion, or a folder with IDX files", "sample")
parser:option("--epochs", "passes over the training images (sample: 15, otherwise 5)"):convert(cli.count "--epochs")
parser:option("--batch", "images a step", "128"):convert(cli.count "--batch")
parser:option("--lr", "highest learning rate", "2e-3"):convert(cli.number "--lr")
parser:option("--augment", "random changes of the training images", "affine"):choices{"affine", "none"}
cli.training(parser, "out/classifier", {}, true)
local options = parser:parse()

marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end
local train = assert(data.mnist(options.data, "train"))
local test = assert(data.mnist(options.data, "test"))
local epochs = options.epochs or options.data == "sample" and 15 or 5
if options.smoke then train, test, epochs = train:subset(1, 512), test:subset(1, 256), options.epochs or 2 end

local augment = options.augment == "affine" and marea.augment.affine{rotate = 10, shift = 2, scale = 0.1, shear = 5}
  or function(x) return x end

-- ---- training ----

local function loss_of(model, x, labels)
  local logits = model(x)
  return logits:cross_entropy(labels), logits
end

local model = Classifier()
print(model:summary{28, 28, 1})
local steps = epochs * ((#train + options.batch - 1) // options.batch)
local warm = steps // 5
local schedule = optim.schedule.warmup(warm, optim.schedule.cosine(options.lr, steps - warm))
local optimizer = optim.Adam{model, lr = schedule}

cli.make_folder(options.out)
local file, first = options.out .. "/classifier.safetensors", 1
if options.resume then
  first = assert(cli.load(file, {model = model, optimizer = optimizer, loader = train})).epoch + 1
end
local log = metrics.open(options.out .. "/metrics.csv", {"epoch", "loss", "accuracy", "test_loss", "test_accuracy",
  "seconds"}, {resume = options.resume})

--- Share of the images (percent) whose class is the one with the largest logit.
local function accuracy(logits, labels)
  return logits:argmax(2):eq(labels):to "f32":mean():item() * 100
end

local function evaluate()
  model:evaluate()
  local bar = data.progress(test:batches(500), {stream = false})
  for x, labels in bar:each() do
    local loss, logits = marea.no_grad(loss_of, model, x, labels)
    bar:show("loss", loss:item(), "accuracy", accuracy(logits, labels))
  end
  model:train()
  return bar.means.loss, bar.means.accuracy
end

for epoch in marea.rerun.range(first, epochs) do
  local started = marea.clock()
  local title = ("epoch %" .. #tostring(epochs) .. "d/%d"):format(epoch, epochs)
  local bar = data.progress(train:batches(options.batch, {shuffle = true, epoch = epoch}), title)
  for x, labels in bar:each() do
    local loss, logits = marea.autocast({dtype = options.precision}, loss_of, model, augment(x), labels)
    optimizer:step(loss) -- backward, update
    bar:show("loss", loss:item(), "accuracy", accuracy(logits, labels))
  end
  local test_loss, test_accuracy = evaluate()
  io.stderr:write(marea.format("%s  test loss %.4f  accuracy %.2f %%\n", title, test_loss, test_accuracy))
  assert(log:write{epoch = epoch, loss = bar.means.loss, accuracy = bar.means.accuracy, test_loss = test_loss,
    test_accuracy = test_accuracy, seconds = marea.clock() - started})
  assert(checkpoint.save(file, {model = model, optimizer = optimizer, loader = train, epoch = epoch}))
end

report(model, test, log, options)
