--- Decodes one digit with the weights that scripts/vae.lua left. Arguments: weights file, then a point of the latent
--- plane. Returns the image, f32 (28, 28), values from 0 to 1. Run by host_min.c.
local file, z1, z2 = ...
local marea = require "marea"
local nn = marea.nn

local decoder = nn.Sequential{
  nn.Linear{2, 128, activation = "relu", name = "dense1"},
  nn.Linear{128, 14 * 14 * 64, activation = "relu", name = "dense2"},
  nn.Reshape{14, 14, 64},
  nn.ConvTranspose2d{64, 32, kernel = 3, stride = 2, padding = "same", activation = "relu", name = "up1"},
  nn.ConvTranspose2d{32, 32, kernel = 3, padding = "same", activation = "relu", name = "up2"},
  nn.ConvTranspose2d{32, 1, kernel = 3, padding = "same", activation = "sigmoid", name = "up3"},
}

local weights, prefix = {}, "decoder."
for name, tensor in pairs(assert(marea.load(file))) do
  if name:sub(1, #prefix) == prefix then weights[name:sub(#prefix + 1)] = tensor end
end
decoder:load_state(weights)

local z = marea.tensor{{tonumber(z1) or 0, tonumber(z2) or 0}}
return marea.no_grad(decoder, z):reshape(28, 28)
