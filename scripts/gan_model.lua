-- SPDX-License-Identifier: MIT
--- The two networks of scripts/gan.lua, for every script that uses them:
---
---   local networks = dofile "scripts/gan_model.lua"
---   local generator = networks.generator(64)              -- z (N, 64) -> images (N, 28, 28, 1), values from 0 to 1
---   local discriminator = networks.discriminator{}        -- images -> logits (N, 1)
local marea = require "marea"
local nn = marea.nn

local networks = {}

---@param latent integer size of z
function networks.generator(latent)
  local function up(channels_in, channels_out, stride)
    return nn.ConvTranspose2d{channels_in, channels_out, kernel = 3, stride = stride, padding = "same"}
  end
  local function norm(channels) return nn.BatchNorm{channels, activation = "relu"} end
  return nn.Sequential{
    nn.Linear{latent, 128, name = "dense1"}, norm(128),
    nn.Linear{128, 14 * 14 * 64, name = "dense2"}, norm(14 * 14 * 64),
    nn.Reshape{14, 14, 64},
    up(64, 32, 2), norm(32),
    up(32, 32, 1), norm(32),
    nn.ConvTranspose2d{32, 1, kernel = 3, padding = "same", activation = "sigmoid", name = "image"},
  }
end

---@param options {dropout: number?, sigmoid: boolean?} dropout: 0.4; sigmoid: probabilities in place of logits
function networks.discriminator(options)
  local layers, channels = {}, {1, 64, 128, 256}
  for i = 1, 3 do
    table.insert(layers, nn.Conv2d{channels[i], channels[i + 1], kernel = 5, stride = 2, padding = "same",
      activation = "leaky_relu", slope = 0.2, name = "conv" .. i})
    table.insert(layers, nn.Dropout{options.dropout or 0.4})
  end
  table.insert(layers, nn.Flatten{})
  table.insert(layers, nn.Linear{4 * 4 * 256, 1024, activation = "leaky_relu", slope = 0.2, name = "dense"})
  table.insert(layers, nn.Linear{1024, 1, activation = options.sigmoid and "sigmoid" or "none", name = "output"})
  return nn.Sequential(layers)
end

return networks
