-- SPDX-License-Identifier: MIT
-- counting batch=16 side=100 [bf16=1]: a training step of the U-Net of scripts/count.lua (96,177 parameters) by Adam on
-- random images and maps.
local marea = require "marea"
local precision = require "ours.precision"

local Density = dofile((arg[0]:match "^.*/" or "") .. "../../scripts/count_model.lua")
local WIDTH, SIGMA = 16, 3

return function(a)
  marea.seed(1)
  local net = Density(WIDTH, SIGMA)
  local adam = marea.optim.Adam{net, lr = 1e-3}
  local x, map = marea.uniform{a.batch, a.side, a.side, 1}, marea.uniform{a.batch, a.side, a.side, 1}
  local loss = precision(a, function() return net:distance(x, map) end)
  return function() return adam:step(loss):item() end
end
