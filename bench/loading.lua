-- SPDX-License-Identifier: MIT
-- Does reading pictures from files hold up training? A network of 18 layers (He et al. 2015) trains on JPEGs of
-- 224 x 224 pixels that data.folder reads with workers, and on the same pictures in memory, in turns; prints the median
-- seconds of a step of each, their ratio, and what one thread takes to read a batch.
--
--   build/marea bench/loading.lua [ROUNDS] [BATCH] [WORKERS]     exits 1 when files take more than 3 % longer
local marea = require "marea"
local nn, optim, data = marea.nn, marea.optim, marea.data

local rounds, batch = math.tointeger(arg[1] or 5), math.tointeger(arg[2] or 32)
local workers = math.tointeger(arg[3] or 2)
local SIDE <const>, CLASSES <const>, EACH <const>, STEPS <const> = 224, 4, 32, 4

local folder = os.getenv "MAREA_BENCH" or "build/bench/pictures"
marea.seed(1)

--- Smooth pictures with some detail, of 40 to 60 KB as photos of this size have them.
local function make_pictures()
  for class = 1, CLASSES do
    local path = ("%s/%d"):format(folder, class)
    assert(os.execute(("mkdir -p '%s'"):format(path)))
    for i = 1, EACH do
      local small = marea.uniform{1, SIDE // 8, SIDE // 8, 3}
      local x = small:upsample_bilinear2d{scale = 8}:squeeze(1) + marea.normal{SIDE, SIDE, 3} * 0.05
      assert(marea.save_jpeg(x:clamp(0, 1), ("%s/%03d.jpg"):format(path, i), {quality = 90}))
    end
  end
end

-- ---- the network ----

local Block = nn.class "Block"

function Block:init(inputs, outputs, stride)
  self.conv1 = nn.Conv2d{inputs, outputs, kernel = 3, stride = stride, padding = 1, bias = false}
  self.norm1 = nn.BatchNorm{outputs, activation = "relu"}
  self.conv2 = nn.Conv2d{outputs, outputs, kernel = 3, padding = 1, bias = false}
  self.norm2 = nn.BatchNorm{outputs}
  if stride > 1 then self.short = nn.Conv2d{inputs, outputs, kernel = 1, stride = stride, bias = false} end
end

function Block:forward(x)
  local y = self.norm2(self.conv2(self.norm1(self.conv1(x))))
  return (y + (self.short and self.short(x) or x)):relu()
end

local function network()
  local layers = {nn.Conv2d{3, 64, kernel = 7, stride = 2, padding = 3, bias = false},
    nn.BatchNorm{64, activation = "relu"}, nn.MaxPool2d{3, stride = 2, padding = 1}}
  local inputs = 64
  for _, outputs in ipairs{64, 128, 256, 512} do
    for block = 1, 2 do
      layers[#layers + 1] = Block(inputs, outputs, block == 1 and outputs > 64 and 2 or 1)
      inputs = outputs
    end
  end
  layers[#layers + 1] = nn.GlobalAvgPool2d{}
  layers[#layers + 1] = nn.Linear{512, CLASSES}
  return nn.Sequential(layers)
end

-- ---- measuring ----

if not io.open(("%s/%d/%03d.jpg"):format(folder, CLASSES, EACH)) then make_pictures() end
local files = assert(data.folder(folder, {size = SIDE, workers = workers, ahead = 2 * batch, seed = 1}))
local alone = assert(data.folder(folder, {size = SIDE, workers = 0}))
local all = {}
for i = 1, #alone do all[i] = i end
local images = (alone:rows(all) * 255):round():to "u8"
local memory = data.Dataset{{"image", images, scale = 1 / 255}, {"label", marea.tensor((function()
  local list = {}
  for i = 1, #alone do list[i] = (i - 1) // EACH + 1 end
  return list
end)(), {dtype = "i64"})}, seed = 1}

local net = network()
local optimizer = optim.SGD{net, lr = 0.01, momentum = 0.9}

--- Seconds of each step but the first of a pass.
local function run(set, times)
  local before
  local n = 0
  for x, y in set:batches(batch, {shuffle = true, drop_last = true}) do
    local loss = marea.cross_entropy(net(x), y)
    optimizer:step(loss)
    local now = marea.clock()
    if before then times[#times + 1] = now - before end
    before, n = now, n + 1
    if n == STEPS then break end
  end
end

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

local from_files, from_memory, ratios = {}, {}, {}
run(memory, {})
for _ = 1, rounds do
  local a, b, c = {}, {}, {}
  run(memory, a)
  run(files, b)
  run(memory, c)
  table.move(c, 1, #c, #a + 1, a)
  ratios[#ratios + 1] = median(b) / median(a)
  from_files[#from_files + 1], from_memory[#from_memory + 1] = median(b), median(a)
end
local start = marea.clock()
for i = 1, batch do alone:rows{i} end
local reading = marea.clock() - start
local ratio = median(ratios)
print(marea.format("step of %d pictures: %.3f s from memory, %.3f s from files with %d workers: %.3f times as long",
  batch, median(from_memory), median(from_files), workers, ratio))
print(marea.format("one thread reads %d pictures in %.3f s, %.1f %% of a step", batch, reading,
  100 * reading / median(from_memory)))
os.exit(ratio <= 1.03, true)
