-- SPDX-License-Identifier: MIT
-- The network of scripts/vae.lua (latent 2, 3,280,901 parameters) and its loss, for the benchmarks: a function of the
-- last layer's activation ("none" when left out: logits, which the loss wants) -> {model =, loss = function(x)}.
local marea = require "marea"
local nn = marea.nn

local function conv(channels_in, channels_out, stride)
  return nn.Conv2d{channels_in, channels_out, kernel = 3, stride = stride, padding = "same", activation = "relu"}
end

local function deconv(channels_in, channels_out, stride, activation)
  return nn.ConvTranspose2d{channels_in, channels_out, kernel = 3, stride = stride, padding = "same",
    activation = activation}
end

return function(last)
  local model = {
    encoder = nn.Sequential{conv(1, 32, 1), conv(32, 32, 1), conv(32, 64, 2), nn.Flatten{},
      nn.Linear{12544, 128, activation = "relu"}},
    mean = nn.Linear{128, 2},
    logvar = nn.Linear{128, 2},
    decoder = nn.Sequential{nn.Linear{2, 128, activation = "relu"}, nn.Linear{128, 12544, activation = "relu"},
      nn.Reshape{14, 14, 64}, deconv(64, 32, 2, "relu"), deconv(32, 32, 1, "relu"), deconv(32, 1, 1, last or "none")},
  }

  local function loss(x)
    local h = model.encoder(x)
    local mean, logvar = model.mean(h), model.logvar(h)
    local y = model.decoder(marea.sample_normal(mean, logvar))
    return marea.bce_with_logits(y, x, {reduction = "batchmean"})
      + marea.kl_normal(mean, logvar, {reduction = "batchmean"})
  end

  return {model = model, loss = loss}
end
