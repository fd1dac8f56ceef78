-- SPDX-License-Identifier: MIT
-- step batch=128 [bf16=1]: a training step of the VAE of scripts/vae.lua (3,280,901 parameters) on random images.
local marea = require "marea"
local precision = require "ours.precision"
local vae_model = require "vae_model"

local vae, optimizer
local batches = {}

local function prepare()
  marea.seed(1)
  vae = vae_model()
  optimizer = marea.optim.RMSprop{vae.model, lr = 1e-3}
end

return function(arguments)
  if not vae then prepare() end
  local batch = arguments.batch
  batches[batch] = batches[batch] or marea.uniform{batch, 28, 28, 1}
  local x = batches[batch]
  local loss = precision(arguments, function() return vae.loss(x) end)
  return function() return optimizer:step(loss):item() end
end
