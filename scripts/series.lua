-- SPDX-License-Identifier: MIT
--- Tells from a sensor's time series what a machine suffers from, by convolutions or by a recurrent network. The series
--- are made up (series_data.lua), so a run needs no data. docs/series.md shows what comes out.
local argparse = require "argparse"
local marea = require "marea"
local nn, optim, data, checkpoint = marea.nn, marea.optim, marea.data, marea.checkpoint
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local shared = dofile(here .. "options.lua")
local series = dofile(here .. "series_data.lua")
local report = dofile(here .. "series_report.lua")

local parser = argparse("series.lua", "Trains a network that tells five states of a machine apart.")
parser:option("--model", "conv: convolutions; gru: a recurrent network", "conv"):choices{"conv", "gru"}
parser:option("--epochs", "passes over the rows", "12"):convert(shared.count "--epochs")
parser:option("--rows", "for training", "12000"):convert(shared.count "--rows")
parser:option("--batch", "rows a step", "64"):convert(shared.count "--batch")
shared.cosine_rate(parser, "3e-3")
shared.training(parser, "out/series", {{"model", "conv"}})
local options = parser:parse()
local tests = 2000
if options.smoke then options.epochs, options.rows, tests = math.min(options.epochs, 2), 200, 100 end
if options.threads then marea.set_threads(options.threads) end

-- ---- rows of one seed each: training, validation (3), test (2) ----

local CLASSES = #series.CLASSES
local function dataset(rows, seed)
  local x, labels = series.draw(rows, seed)
  return data.Dataset({{"x", x}, {"label", labels}}, {seed = options.seed})
end
local train = dataset(math.max(options.rows // CLASSES, 1) * CLASSES, options.seed * 1000)
local validation, test = dataset(tests, 3), dataset(tests, 2)
marea.seed(options.seed)

-- ---- the networks: series (N, 512, 1) to logits (N, 5) ----

--- Convolutions that see 121 steps in the end, and means over quarters of the row.
local function conv()
  local layers, inputs = {}, 1
  for _, outputs in ipairs{16, 32, 32, 64} do
    layers[#layers + 1] = nn.Conv1d{inputs, outputs, kernel = 9, stride = 2, padding = "same", bias = false}
    layers[#layers + 1] = nn.BatchNorm{outputs, activation = "relu"}
    inputs = outputs
  end
  table.move({nn.AdaptiveAvgPool1d{4}, nn.Flatten{}, nn.Linear{4 * 64, CLASSES}}, 1, 3, #layers + 1, layers)
  return nn.Sequential(layers)
end

local Recurrent = nn.class "Recurrent"
local FRAME <const>, SIZE <const> = 8, 96 -- samples that are read in one step; the state

function Recurrent:init()
  self.gru = nn.GRU{FRAME, SIZE}
  self.head = nn.Linear{2 * SIZE, CLASSES}
end

--- From the last state and the mean of all.
function Recurrent:forward(x)
  local states, last = self.gru(x:reshape(#x, -1, FRAME))
  return self.head(marea.concat({last[1], states:mean{2}}, 2))
end

local model = options.model == "conv" and conv() or Recurrent()
model:build{series.LENGTH, 1}
print(("%s: %d parameters"):format(options.model, model:count()))

-- ---- training ----

--- Classes that the model gives to the rows of a dataset, i64 (N), and the share (percent) that is right.
local function classify(rows)
  model:evaluate()
  local found = {}
  for x in rows:batches(250) do
    found[#found + 1] = marea.no_grad(function() return model(x):argmax(2) end):keep()
  end
  model:train()
  local classes = marea.concat(found, 1)
  return classes, 100 * classes:eq(rows:field "label"):to "f32":mean():item()
end

local steps = options.epochs * ((#train + options.batch - 1) // options.batch)
local optimizer = optim.Adam{model, clip_norm = 1,
  lr = optim.schedule.warmup(50, optim.schedule.cosine(options.lr, math.max(steps - 50, 1)))}
shared.make_folder(options.out)
local file, first = ("%s/%s.safetensors"):format(options.out, options.model), 1
if options.resume then first = assert(shared.load(file, {model = model, optimizer = optimizer})).epoch + 1 end
local log = marea.metrics.open(options.out .. "/metrics.csv", {"epoch", "loss", "accuracy", "seconds"},
  {resume = options.resume})

for epoch in marea.rerun.range(first, options.epochs) do
  local started = marea.clock()
  local bar = data.progress(train:batches(options.batch, {shuffle = true, epoch = epoch}),
    {title = ("epoch %d/%d"):format(epoch, options.epochs), unit = "rows"})
  for x, labels in bar:each() do
    local loss = model(x):cross_entropy(labels)
    optimizer:step(loss)
    bar:show("loss", loss:item())
  end
  local _, accuracy = classify(validation)
  io.stderr:write(marea.format("epoch %d/%d  validation %.2f %% right\n", epoch, options.epochs, accuracy))
  assert(log:write{epoch = epoch, loss = bar.means.loss, accuracy = accuracy, seconds = marea.clock() - started})
  assert(checkpoint.save(file, {model = model, optimizer = optimizer, epoch = epoch}))
end

local classes, accuracy = classify(test)
report(test, classes, accuracy, log, options)
