-- SPDX-License-Identifier: MIT
-- gan batch=64 [bf16=1]: a step of scripts/gan.lua in its default setting on random images: the discriminator
-- (5,222,401 parameters) learns from a real and a generated batch, then the generator (1,705,441) through the frozen
-- discriminator.
local marea = require "marea"
local precision = require "ours.precision"
local networks = dofile((arg[0]:match "^.*/" or "") .. "../../scripts/gan_model.lua")

local LATENT = 64
local generator, discriminator, of_g, of_d
local batches = {}

local function prepare()
  marea.seed(1)
  generator, discriminator = networks.generator(LATENT), networks.discriminator{}
  of_g = marea.optim.Adam{generator, lr = 2e-4, beta1 = 0.5}
  of_d = marea.optim.Adam{discriminator, lr = 2e-4, beta1 = 0.5}
end

local function against(y, label) return y:bce_with_logits(marea.full(y.shape, label)) end

return function(arguments)
  if not generator then prepare() end
  local batch = arguments.batch
  batches[batch] = batches[batch] or marea.uniform{batch, 28, 28, 1}
  local x = batches[batch]
  local function discriminator_loss()
    local fake = marea.no_grad(generator, marea.normal{batch, LATENT})
    return (against(discriminator(x), 0.9) + against(discriminator(fake), 0)) / 2
  end
  local function generator_loss() return against(discriminator(generator(marea.normal{batch, LATENT})), 1) end
  discriminator_loss, generator_loss = precision(arguments, discriminator_loss), precision(arguments, generator_loss)
  return function()
    local loss = of_d:step(discriminator_loss):item()
    discriminator:freeze()
    loss = loss + of_g:step(generator_loss):item()
    discriminator:unfreeze()
    return loss
  end
end
