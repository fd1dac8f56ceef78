-- SPDX-License-Identifier: MIT
--- Trains the decoder that digit.lua serves: a dense variational autoencoder with a latent plane. Arguments: a
--- folder with MNIST (or "mnist", "sample"), passes, and the file to write. The one beside this script is what
---   marea examples/lighttpd/train.lua mnist 8 examples/lighttpd/decoder.safetensors
--- left; it holds the decoder alone, 235 thousand weights.
local marea = require "marea"
local nn, optim, data, dist = marea.nn, marea.optim, marea.data, marea.dist
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local source, passes, path = ...
passes = tonumber(passes) or 10
local Decoder = dofile(here .. "decoder.lua")

marea.seed(1)
local train = assert(data.mnist(source or "sample", "train"))
local encoder = nn.Sequential{
  nn.Flatten{}, nn.Linear{784, 512, activation = "relu"}, nn.Linear{512, 128, activation = "relu"}, nn.Linear{128, 4},
}
local decoder = Decoder()
local prior = dist.Normal(marea.zeros(2), marea.ones(2))
local steps = passes * math.ceil(#train / 128)
local optimizer = optim.Adam{encoder, decoder, lr = optim.schedule.cosine(1e-3, steps)}

for pass = 1, passes do
  local bar = data.progress(train:batches(128, {shuffle = true, epoch = pass}), ("pass %d/%d"):format(pass, passes))
  for x in bar:each() do
    local heads = encoder(x)
    local q = dist.Normal(heads:narrow(2, 1, 2), (heads:narrow(2, 3, 2) / 2):exp()) -- mean, logarithm of the variance
    local loss = marea.bce(decoder(q:rsample()), x, {reduction = "batchmean"}) + q:kl(prior):sum() / #x
    optimizer:step(loss)
    bar:show("loss", loss:item())
  end
  assert(marea.save(path or here .. "decoder.safetensors", decoder:state()))
end
