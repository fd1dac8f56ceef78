-- SPDX-License-Identifier: MIT
-- runner.lua write FOLDER: a network with convolutions, an LSTM and attention, an input and what it gives, for
-- spec/runner.sh. runner.lua compare FOLDER NAME: is what the program NAME gave the same?
local marea = require "marea"
local nn = marea.nn

local what, folder, name = table.unpack(arg)

local function write()
  marea.seed(1)
  local see = nn.Sequential{nn.Conv2d{3, 32, kernel = 3, padding = "same", activation = "relu"}, nn.BatchNorm{32},
    nn.Conv2d{32, 32, kernel = 3, stride = 2, padding = "same", activation = "relu"}}
  local remember, attend = nn.LSTM{256, 32}, nn.TransformerEncoderLayer{32, 4, dim_feedforward = 64}
  local last = nn.Linear{32, 10}
  local function net(x)
    local read = remember(see(x):reshape(2, 8, 256))
    return last(attend(read):mean(2)):softmax(2)
  end
  for _, layer in ipairs{see, attend} do layer:evaluate() end
  local x = marea.normal{2, 16, 16, 3}
  assert(marea.onnx.save(net, folder .. "/model.onnx", {x = x}))
  assert(marea.save_npy(x, folder .. "/x.npy"))
  assert(marea.save_npy(marea.no_grad(assert(marea.onnx.load(folder .. "/model.onnx")), x), folder .. "/y.npy"))
end

local function compare()
  local y, theirs = assert(marea.load_npy(folder .. "/y.npy")), assert(marea.load_npy(folder .. "/" .. name .. ".npy"))
  local difference = (y - theirs):abs():max():item()
  print(marea.format("%s: results differ by %.2g at most", name, difference))
  assert(difference <= 1e-5)
end

if what == "write" then write() else compare() end
