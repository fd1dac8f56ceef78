-- SPDX-License-Identifier: MIT
--- Counts even digits among others (Segui et al. 2015) or cells under a microscope (Lempitsky and Zisserman 2010), in
--- images made on the way, by a density map whose sum is the count or directly. docs/counting.md shows what comes out.
local argparse = require "argparse"
local marea = require "marea"
local nn, optim, data, checkpoint, metrics = marea.nn, marea.optim, marea.data, marea.checkpoint, marea.metrics
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local report = dofile(here .. "count_report.lua")
local shared = dofile(here .. "options.lua")
local count = shared.count

local parser = argparse("count.lua", "Trains a network that counts objects in images.")
parser:option("--task", "digits: the even ones of 0 to 5; cells: 74 to 317", "digits"):choices{"digits", "cells"}
parser:option("--method", "what is learned", "density"):choices{"density", "direct"}
parser:option("--data", "where digits come from: sample, mnist, or a folder with IDX files", "sample")
parser:option("--epochs", "passes over new images (30)", "30"):convert(count "--epochs")
parser:option("--images", "new images an epoch (digits: 2000, cells: 256)"):convert(count "--images")
parser:option("--batch", "images a step (digits: 16, cells: 4)"):convert(count "--batch")
parser:option("--lr", "learning rate; a tenth of it every 15 epochs", "1e-3"):convert(tonumber)
shared.training(parser, "out/count")
local options = parser:parse()
-- sigma: of the density, in pixels; patch: what it learns from of an image; close: an error of the count that weighs as
-- much as one of 1 in the density; unit: what direct counts in; mean, std: of pixels, taken out before the network
local tasks = {
  digits = {images = 2000, batch = 16, test = 1000, sigma = 3, close = 1, unit = 1, mean = 0, std = 1},
  cells = {images = 256, batch = 4, test = 100, sigma = 2, patch = 128, close = 4, unit = 100, mean = 0.1, std = 0.2},
}
local task = tasks[options.task]
local images, batch = options.images or options.smoke and 4 or task.images, options.batch or task.batch
if options.smoke then task.test, batch, options.epochs = 4, 2, math.min(options.epochs, 2) end
marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end

--- n images. Epochs have seeds of their own, all different from the test's, 0; digits are never those of the test.
local function make(n, split, seed)
  if options.task == "cells" then return data.synthetic.cells{n, seed = seed} end
  return data.synthetic.digits{n, from = assert(data.mnist(options.data, split)), seed = seed}
end

-- ---- density: a U-Net (Ronneberger et al. 2015) ----

local SCALE = 100 -- of the densities, which are small numbers

local function conv(channels, name, dilation)
  return nn.Conv2d{channels, kernel = 3, padding = "same", dilation = dilation, activation = "relu",
    init = "he_normal", name = name}
end

local Density = nn.class("Density")

function Density:init(width)
  self.fine = nn.Sequential{conv(width, "conv1"), conv(width, "conv2")}
  self.middle = nn.Sequential{nn.MaxPool2d{2}, conv(2 * width, "conv")}
  self.coarse = nn.Sequential{nn.MaxPool2d{2}, conv(4 * width, "conv1"), conv(4 * width, "conv2", 2)}
  self.up1 = nn.ConvTranspose2d{2 * width, kernel = 2, stride = 2}
  self.merge1 = conv(2 * width)
  self.up2 = nn.ConvTranspose2d{width, kernel = 2, stride = 2}
  self.merge2 = conv(width)
  self.head = nn.Conv2d{1, kernel = 1}
end

--- Images (N, H, W, 1), H and W divisible by 4 -> densities times SCALE, (N, H, W, 1).
function Density:forward(x)
  local fine = self.fine((x - task.mean) / task.std)
  local middle = self.middle(fine)
  local up = self.merge1(marea.concat({middle, self.up1(self.coarse(middle))}, -1))
  return self.head(self.merge2(marea.concat({fine, self.up2(up)}, -1)))
end

local MARGIN = 16 -- pixels

--- Cuts the same corner, task.patch pixels, out of all images and targets; keep(t) leaves out MARGIN of it where it was
--- cut, for what lies beyond cannot be seen there. Edges of the images look as in a test.
local function corner(x, target)
  local size, n = x:size(2), task.patch
  if not n then return x, target, function(t) return t end end
  local side = marea.randint{2, low = 0, high = 1}:totable()
  local function part(t, from, m) return t:narrow(2, side[1] * from + 1, m):narrow(3, side[2] * from + 1, m) end
  return part(x, size - n, n), part(target, size - n, n), function(t) return part(t, MARGIN, n - MARGIN) end
end

--- Squared error of the density, and of its sum: a faint shift everywhere hardly shows in the first.
function Density:loss(x, dots)
  local patch, target, keep = corner(x, dots:gaussian_blur(task.sigma) * SCALE)
  local difference = keep(self(patch) - target)
  local surplus = difference:sum{dims = {2, 3, 4}} / (SCALE * task.close)
  return difference:square():mean() + surplus:square():mean()
end

function Density:estimate(x) return self(x):sum{dims = {2, 3, 4}} / SCALE end -- luacheck: no unused args

-- ---- direct: the mean of what is seen everywhere, times a weight ----

local Direct = nn.class("Direct")

function Direct:init()
  self.net = nn.Sequential{conv(32, "conv1"), nn.MaxPool2d{2}, conv(64, "conv2"), nn.MaxPool2d{2}, conv(128, "conv3"),
    nn.MaxPool2d{2, padding = "same"}, conv(128, "conv4"), nn.GlobalAvgPool2d{}, nn.Linear{1}}
end

function Direct:forward(x) return self.net((x - task.mean) / task.std) end

function Direct:loss(x, _, counts) return self(x):mse(counts:unsqueeze(2) / task.unit) end

function Direct:estimate(x) return self(x):squeeze(2) * task.unit end

-- ---- training ----

local test = make(task.test, "test", 0)
local model = options.method == "density" and Density(16) or Direct()
print(model:summary{test:field "image":size(2), test:field "image":size(3), 1})
local decay = optim.schedule.exponential(options.lr, 0.1, 15 * ((images + batch - 1) // batch))
local optimizer = optim.Adam{model, lr = decay, clip_norm = 1}

shared.make_folder(options.out)
local file, first = options.out .. "/count.safetensors", 1
if options.resume then first = assert(checkpoint.load(file, {model = model, optimizer = optimizer})).epoch + 1 end
local log = metrics.open(options.out .. "/metrics.csv", {"epoch", "loss", "mae", "rmse", "exact", "seconds"},
  {resume = options.resume})

for epoch in marea.rerun.range(first, options.epochs) do
  local started = marea.clock()
  local train = make(images, "train", options.seed * 1000 + epoch)
  local title = ("epoch %" .. #tostring(options.epochs) .. "d/%d"):format(epoch, options.epochs)
  local bar = data.progress(train:batches(batch, {shuffle = true, epoch = epoch}), title)
  for x, dots, counts in bar:each() do
    local loss = model:loss(x, dots, counts)
    optimizer:step(loss)
    bar:show("loss", loss:item())
  end
  local errors = report.errors(report.predict(model, test, batch))
  local seconds = marea.clock() - started
  io.stderr:write(("%s  test MAE %.3f  RMSE %.3f  exact %.1f %%  left %.0f min\n"):format(title, errors.mae,
    errors.rmse, 100 * errors.exact, seconds * (options.epochs - epoch) / 60))
  assert(log:write{epoch = epoch, loss = bar.means.loss, mae = errors.mae, rmse = errors.rmse, exact = errors.exact,
    seconds = seconds})
  assert(checkpoint.save(file, {model = model, optimizer = optimizer, epoch = epoch}))
end

report.write(model, test, log, options, {batch = batch, sigma = task.sigma, scale = SCALE})
