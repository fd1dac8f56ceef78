-- SPDX-License-Identifier: MIT
-- One epoch of the VAE as scripts/vae.lua trains it, data and progress line included, without the test images. Prints
-- the seconds that it took.
--
--   build/marea bench/ours/train.lua mnist|sample THREADS      exits 2 when the images are not there
local marea = require "marea"
local data, optim = marea.data, marea.optim

package.path = (arg[0]:match "^.*/" or "") .. "../?.lua;" .. package.path
local vae = require "vae_model"()
marea.set_threads(math.tointeger(arg[2]))
marea.seed(1)

local train = data.mnist(arg[1], "train")
if not train then os.exit(2) end
local optimizer = optim.RMSprop{vae.model, lr = 1e-3}
local started = marea.clock()
local bar = data.progress(train:batches(128, {shuffle = true, epoch = 1}), "one epoch")
for x in bar:each() do
  local loss = vae.loss(x)
  optimizer:step(loss)
  bar:show("loss", loss:item())
end
print(marea.clock() - started)
