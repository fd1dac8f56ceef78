-- SPDX-License-Identifier: MIT
-- classifier batch=128 [bf16=1]: a training step of scripts/classifier.lua's network (467,818 parameters) on random
-- images by Adam, without the changes of the images.
local marea = require "marea"
local precision = require "ours.precision"

local Classifier = dofile((arg[0]:match "^.*/" or "") .. "../../scripts/classifier_model.lua")

return function(a)
  marea.seed(1)
  local net = Classifier()
  local adam = marea.optim.Adam{net, lr = 1e-3}
  local x, labels = marea.uniform{a.batch, 28, 28, 1}, marea.randint({a.batch}, 1, 10)
  local loss = precision(a, function() return net(x):cross_entropy(labels) end)
  return function() return adam:step(loss):item() end
end
