-- SPDX-License-Identifier: MIT
--- The variational autoencoders of scripts/vae.lua and scripts/vae_study.lua. dofile gives the class VAE.
local marea = require "marea"
local nn, dist = marea.nn, marea.dist
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local posteriors = dofile(here .. "vae_posterior.lua")

local function conv(from, to, name, stride)
  return nn.Conv2d{from, to, kernel = 3, stride = stride or 1, padding = "same", activation = "relu", name = name}
end

local function deconv(from, to, name, stride, activation)
  return nn.ConvTranspose2d{from, to, kernel = 3, stride = stride or 1, padding = "same",
    activation = activation or "relu", name = name}
end

--- Networks: width of z -> encoder, images (N, 28, 28, 1) -> (N, hidden); decoder, (N, width) -> images; hidden.
local networks = {}

local function convolutional(width, convs, deconvs)
  table.insert(convs, nn.Flatten{})
  table.insert(convs, nn.Linear{14 * 14 * 64, 128, activation = "relu", name = "dense"})
  local decoder = nn.Sequential{
    nn.Linear{width, 128, activation = "relu", name = "dense1"},
    nn.Linear{128, 14 * 14 * 64, activation = "relu", name = "dense2"},
    nn.Reshape{14, 14, 64},
    table.unpack(deconvs),
  }
  return nn.Sequential(convs), decoder, 128
end

--- The notebook's.
function networks.conv(width)
  return convolutional(width, {conv(1, 32, "conv1"), conv(32, 32, "conv2"), conv(32, 64, "conv3", 2)},
    {deconv(64, 32, "up1", 2), deconv(32, 32, "up2"), deconv(32, 1, "up3", 1, "sigmoid")})
end

--- That of its last exercise: five convolutions, Dropout 0.2 after the first four, and the mirrored decoder.
function networks.deep(width)
  return convolutional(width, {
    conv(1, 32, "conv1"), nn.Dropout{0.2}, conv(32, 32, "conv2"), nn.Dropout{0.2}, conv(32, 32, "conv3"),
    nn.Dropout{0.2}, conv(32, 32, "conv4"), nn.Dropout{0.2}, conv(32, 64, "conv5", 2),
  }, {
    deconv(64, 32, "up1", 2), deconv(32, 32, "up2"), deconv(32, 32, "up3"), deconv(32, 32, "up4"),
    deconv(32, 1, "up5", 1, "sigmoid"),
  })
end

--- One hidden layer each way, as in PyTorch's example: ten times as fast.
function networks.mlp(width)
  local encoder = nn.Sequential{nn.Flatten{}, nn.Linear{784, 400, activation = "relu"}}
  local decoder = nn.Sequential{
    nn.Linear{width, 400, activation = "relu"}, nn.Linear{400, 784, activation = "sigmoid"}, nn.Reshape{28, 28, 1},
  }
  return encoder, decoder, 400
end

local VAE = nn.class("VAE")

function VAE:init(options)
  self._posterior, self._sampler, self._latent = posteriors[options.posterior], options.sampler, options.latent
  local width = options.latent * (self._posterior.classes or 1)
  local hidden
  self.encoder, self.decoder, hidden = networks[options.model](width)
  for _, head in ipairs(self._posterior.heads) do self[head] = nn.Linear{hidden, width} end
  self._prior = self._posterior.prior()
  self._temperature = 1
end

--- Images (N, 28, 28, 1) -> q(z | x), batch shape (N, latent).
function VAE:encode(x)
  local h, values = self.encoder(x), {}
  for i, head in ipairs(self._posterior.heads) do values[i] = self[head](h) end
  return self._posterior.q(table.unpack(values))
end

--- The distribution that z is drawn from for given q: q itself; where q is discrete, its relaxation; with the
--- notebook's sampler N(mean, exp(logvar)^2), which takes the logarithm of the variance for that of the deviation.
function VAE:sampler(q)
  if self._sampler == "notebook" then return dist.Normal(q.mean, q.std * q.std) end
  return self._posterior.discrete and self._posterior.relaxed(q, self._temperature) or q
end

--- The distribution that z is drawn from when bounds of log p(x) are computed: as above, but nothing is relaxed.
function VAE:proposal(q) return self._posterior.discrete and q or self:sampler(q) end

function VAE:prior() return self._prior end

function VAE:is_discrete() return self._posterior.discrete or false end

--- z (N, latent), its relaxation (N, latent) or (N, latent, classes), or classes (N, latent), i64
--- -> images (N, 28, 28, 1), values from 0 to 1.
function VAE:decode(z)
  if z.dtype == "i64" then z = marea.one_hot(z, {classes = self._posterior.classes, dtype = "f32"}) end
  return self.decoder(z:flatten{from = 2})
end

--- Images decoded from the centres of q(z | x).
function VAE:reconstruct(x) return self:decode(self._posterior.mean(self:encode(x))) end

--- n images decoded from the prior.
function VAE:generate(n) return self:decode(self._prior:sample{n, self._latent}) end

--- Images (N, 28, 28, 1) -> decoded images, and KL(q(z | x) || p(z)) in nats, the mean over images.
function VAE:forward(x)
  local q = self:encode(x)
  return self:decode(self:sampler(q):rsample()), q:kl(self._prior):sum() / #x
end

--- log p(x | z) in nats, minus the binary cross-entropy: z (k, N, latent), x (N, 28, 28, 1) -> (k, N).
function VAE:log_likelihood(z, x)
  local k, n = z:size(1), #x
  local y = self:decode(z:reshape(k * n, table.unpack(z.shape, 3)))
  local target = x:reshape(1, n, -1):expand(k, n, -1)
  return -marea.bce(y:reshape(k, n, -1), target, {reduction = "none"}):sum(3)
end

function VAE:set_temperature(temperature) self._temperature = temperature end

return VAE
