-- SPDX-License-Identifier: MIT
-- decoder batch=128 [bf16=1]: the VAE's decoder, points of the latent plane (batch, 2) -> images (batch, 28, 28, 1).
local marea = require "marea"
local precision = require "ours.precision"
local vae_model = require "vae_model"

local decoder

return function(arguments)
  if not decoder then
    marea.seed(1)
    decoder = vae_model("sigmoid").model.decoder
  end
  local z = marea.normal{arguments.batch, 2}
  local run = precision(arguments, function() return decoder(z) end)
  return function() marea.no_grad(run) end
end
