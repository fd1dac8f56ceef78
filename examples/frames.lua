--- A network that learns what the host's buffers hold, a step at a time; run by frames.c. Arguments: input and target
--- (N, 1), the host's memory. Yields the loss after each step: the host decides when the next one is made.
local input, target = ...
local marea = require "marea"
local nn, optim = marea.nn, marea.optim

marea.seed(1)
marea.set_threads(1) -- enough for a small network, and the game has the other cores
local net = nn.Sequential{
  nn.Linear{1, 32, activation = "tanh"}, nn.Linear{32, 32, activation = "tanh"}, nn.Linear{32, 1},
}
local optimizer = optim.Adam{net, lr = 3e-3}

local function step()
  local loss = (net(input) - target):square():mean()
  optimizer:step(loss)
  return loss:item()
end

while true do coroutine.yield(marea.scope(step)) end
