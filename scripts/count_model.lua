-- SPDX-License-Identifier: MIT
--- The network of scripts/count.lua that draws a map of densities, whose sum is the count: a U-Net (Ronneberger et al.
--- 2015) with batch normalization.
---
---   local Density = dofile "scripts/count_model.lua"
---   local model = Density(16, 3)                          -- channels of the finest layers, sigma in pixels
---   local loss = model:loss(x, dots)
local marea = require "marea"
local nn = marea.nn

local function conv(channels, dilation)
  return nn.Sequential{
    nn.Conv2d{channels, kernel = 3, padding = "same", dilation = dilation, bias = false, init = "he_normal"},
    nn.BatchNorm{momentum = 0.9, activation = "relu"}}
end

local Density = nn.class("Density")

function Density:init(width, sigma)
  self.sigma = sigma
  self.peak = 2 * math.pi * sigma ^ 2 -- times the density of a lone object is 1 at its centre
  self.fine = nn.Sequential{conv(width), conv(width)}
  self.middle = nn.Sequential{nn.MaxPool2d{2}, conv(2 * width)}
  self.coarse = nn.Sequential{nn.MaxPool2d{2}, conv(4 * width), conv(4 * width, 2)}
  self.up1 = nn.ConvTranspose2d{2 * width, kernel = 2, stride = 2}
  self.merge1 = conv(2 * width)
  self.up2 = nn.ConvTranspose2d{width, kernel = 2, stride = 2}
  self.merge2 = conv(width)
  self.head = nn.Conv2d{1, kernel = 1, init = "zeros"}
end

--- Images (N, H, W, 1), H and W divisible by 4 -> densities times the peak, (N, H, W, 1).
function Density:forward(x)
  local fine = self.fine(x)
  local middle = self.middle(fine)
  local up = self.merge1(marea.concat({middle, self.up1(self.coarse(middle))}, -1))
  return self.head(self.merge2(marea.concat({fine, self.up2(up)}, -1)))
end

--- How far the map of x is from `wanted`, densities times the peak. In objects: the squared error of the map, 1 for a
--- lone object that is not seen, and a hundredth of that of the sum; with more of it networks smear.
function Density:distance(x, wanted)
  local difference = self(x) - wanted
  local missed = difference:square():sum{dims = {2, 3, 4}} / (self.peak / 2)
  local surplus = difference:sum{dims = {2, 3, 4}} / self.peak
  return (missed + 0.01 * surplus:square()):mean()
end

--- dots: 1 where an object has its centre.
function Density:loss(x, dots) return self:distance(x, dots:gaussian_blur(self.sigma) * self.peak) end

function Density:estimate(x) return self(x):sum{dims = {2, 3, 4}} / self.peak end

return Density
