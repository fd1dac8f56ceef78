-- SPDX-License-Identifier: MIT
--- Counts even digits among others (Segui et al. 2015) or cells under a microscope (Lempitsky and Zisserman 2010), in
--- images made on the way, by a density map whose sum is the count or directly. docs/counting.md shows what comes out.
local argparse = require "argparse"
local marea = require "marea"
local nn, optim, data, checkpoint, metrics = marea.nn, marea.optim, marea.data, marea.checkpoint, marea.metrics
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local report = dofile(here .. "count_report.lua")
local Density = dofile(here .. "count_model.lua")
local shared = dofile(here .. "options.lua")
local count = shared.count

local parser = argparse("count.lua", "Trains a network that counts objects in images.")
parser:option("--task", "digits: the even ones of 0 to 5; cells: 74 to 317", "digits"):choices{"digits", "cells"}
parser:option("--method", "what is learned", "density"):choices{"density", "direct"}
parser:option("--data", "where digits come from: sample, mnist, or a folder with IDX files", "sample")
parser:option("--epochs", "passes over new images", "30"):convert(count "--epochs")
parser:option("--images", "new images an epoch (digits: 2000, cells: 256)"):convert(count "--images")
parser:option("--batch", "images a step (digits: 16, cells: 4)"):convert(count "--batch")
parser:option("--lr", "highest learning rate, from which it falls to 0 along a cosine (density: 4e-3, direct: 1e-3)")
  :convert(shared.number "--lr")
shared.training(parser, "out/count", {{"task", "digits"}, {"method", "density"}})
local options = parser:parse()
-- sigma: of the density, in pixels; unit: what direct counts in; smoke: new images an epoch with --smoke
local tasks = {
  digits = {images = 2000, batch = 16, validation = 500, test = 1000, sigma = 3, unit = 1, smoke = 16},
  cells = {images = 256, batch = 4, validation = 50, test = 100, sigma = 2, unit = 100, smoke = 4},
}
local task = tasks[options.task]
local images, batch, epochs = options.images or task.images, options.batch or task.batch, options.epochs
if options.smoke then
  images, batch, epochs, task.validation, task.test = options.images or task.smoke, 2, math.min(epochs, 3), 4, 4
end
marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end

--- Digits for training, for choices, and for the test; no image of a digit is in two of them.
local function read_digits()
  local train = assert(data.mnist(options.data, "train"))
  local part = #train * 9 // 10
  return {train = train:subset(1, part), validation = train:subset(part + 1, #train),
    test = assert(data.mnist(options.data, "test"))}
end

local digits = options.task == "digits" and read_digits()

--- n images; seeds differ between training, validation and test.
local function make(n, split, seed)
  if digits then return data.synthetic.digits{n, from = digits[split], seed = seed} end
  return data.synthetic.cells{n, seed = seed}
end

-- ---- direct: the mean of what is seen everywhere, times a weight ----

local Direct = nn.class("Direct")

function Direct:init(width)
  local layers = {}
  for i, factor in ipairs{1, 2, 4, 4} do
    layers[2 * i - 1] = nn.Conv2d{factor * width, kernel = 3, padding = "same", activation = "relu", init = "he_normal"}
    layers[2 * i] = i < 4 and nn.MaxPool2d{2, padding = "same"} or nn.GlobalAvgPool2d{}
  end
  layers[#layers + 1] = nn.Linear{1}
  self.net = nn.Sequential(layers)
end

function Direct:forward(x) return self.net(x) end

function Direct:loss(x, _, counts) return self(x):mse(counts:unsqueeze(2) / task.unit) end

function Direct:estimate(x) return self(x):squeeze(2) * task.unit end

-- ---- training ----

local validation = make(task.validation, "validation", -1)
local direct = options.method == "direct"
local model, lr = direct and Direct(32) or Density(16, task.sigma), options.lr or direct and 1e-3 or 4e-3
print(model:summary{validation:field "image":size(2), validation:field "image":size(3), 1})
local steps = epochs * ((images + batch - 1) // batch)
local optimizer = optim.Adam{model, lr = optim.schedule.cosine(lr, steps)}

shared.make_folder(options.out)
local file, first = options.out .. "/count.safetensors", 1
if options.resume then first = assert(shared.load(file, {model = model, optimizer = optimizer})).epoch + 1 end
local log = metrics.open(options.out .. "/metrics.csv", {"epoch", "loss", "mae", "rmse", "exact", "seconds"},
  {resume = options.resume})

for epoch in marea.rerun.range(first, epochs) do
  local started = marea.clock()
  local train = make(images, "train", options.seed * 1000 + epoch)
  -- Few images make a batch, and each batch other statistics: the last third learns with those of predictions.
  if 3 * epoch > 2 * epochs then model:evaluate() else model:train() end
  local title = ("epoch %" .. #tostring(epochs) .. "d/%d"):format(epoch, epochs)
  local bar = data.progress(train:batches(batch, {shuffle = true, epoch = epoch}), title)
  for x, dots, counts in bar:each() do
    local loss = model:loss(x, dots, counts)
    optimizer:step(loss)
    bar:show("loss", loss:item())
  end
  local errors = report.errors(report.predict(model, validation, batch))
  local seconds = marea.clock() - started
  io.stderr:write(marea.format("%s  validation MAE %.3f  RMSE %.3f  exact %.1f %%  left %s\n", title, errors.mae,
    errors.rmse, 100 * errors.exact, marea.progress.clock(seconds * (epochs - epoch))))
  assert(log:write{epoch = epoch, loss = bar.means.loss, mae = errors.mae, rmse = errors.rmse, exact = errors.exact,
    seconds = seconds})
  assert(checkpoint.save(file, {model = model, optimizer = optimizer, epoch = epoch}))
end

report.write(model, make(task.test, "test", 0), log, options, {batch = batch, sigma = task.sigma, peak = model.peak})
