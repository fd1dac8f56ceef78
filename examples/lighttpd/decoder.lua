-- SPDX-License-Identifier: MIT
--- The network of this example: points of the latent plane (N, 2) -> images (N, 28, 28, 1), values from 0 to 1.
local nn = require "marea".nn

return function()
  return nn.Sequential{
    nn.Linear{2, 128, activation = "relu", name = "dense1"},
    nn.Linear{128, 256, activation = "relu", name = "dense2"},
    nn.Linear{256, 784, activation = "sigmoid", name = "pixels"},
    nn.Reshape{28, 28, 1},
  }
end
