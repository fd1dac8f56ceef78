-- SPDX-License-Identifier: MIT
--- A reader of digits for sums.lp: trained in a moment on the sample when clingo loads it, so it errs here and there.
local marea = require "marea"
local nn, optim, data = marea.nn, marea.optim, marea.data

marea.seed(1)
local net = nn.Sequential{nn.Flatten{}, nn.Linear{784, 64, activation = "relu"}, nn.Linear{64, 10}}
local train = assert(data.mnist("sample", "train"))
local optimizer = optim.Adam{net, lr = 2e-3}
for x, label in train:batches(100, {shuffle = true, epoch = 1}) do
  optimizer:step(marea.cross_entropy(net(x), label))
end

local costs, labels
for x, label in assert(data.mnist("sample", "test")):batches(1000) do
  costs = marea.no_grad(function() return (net(x):log_softmax{dim = 2} * -100):round():totable() end)
  labels = label:totable() -- 1 for a zero
end

local reader = {}

--- -100 ln p(digit | picture), a whole number: picture from 1 to 1000, digit from 0 to 9.
function reader.cost(picture, digit) return math.tointeger(costs[picture][digit + 1]) end

--- What the picture shows.
function reader.truth(picture) return labels[picture] - 1 end

return reader
