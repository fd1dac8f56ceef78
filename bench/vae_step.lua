-- SPDX-License-Identifier: MIT
-- A training step of the VAE of scripts/vae.lua (3,280,901 parameters) on random images: what bench/run.lua measures
-- beside PyTorch (bench/vae_step.py).
--
--   build/marea bench/vae_step.lua --threads 2 --steps 10 [--warmup 3] [--batch 128]
--
-- Prints one line of JSON: times of the steps in ms, peak resident memory in MiB, version.
local marea = require "marea"
local optim = marea.optim

local options = {threads = 1, steps = 10, warmup = 3, batch = 128}
for i = 1, #arg, 2 do
  local name = arg[i]:match "^%-%-(%w+)$"
  if not options[name] then error("unknown option " .. arg[i]) end
  options[name] = assert(math.tointeger(arg[i + 1]), arg[i] .. " needs a number")
end

marea.set_threads(options.threads)
marea.seed(1)

local vae = dofile((arg[0]:match "^.*/" or "") .. "vae_model.lua")

local x = marea.uniform{options.batch, 28, 28, 1}
local optimizer = optim.RMSprop{vae.model, lr = 1e-3}

local times, loss = {}, nil
for step = 1 - options.warmup, options.steps do
  local start = marea.clock()
  loss = optimizer:step(function() return vae.loss(x) end)
  loss = marea.is_tensor(loss) and loss:item() or loss
  if step > 0 then times[step] = ("%.3f"):format(1000 * (marea.clock() - start)) end
end

local status = assert(io.open "/proc/self/status"):read "a"
local peak = tonumber(status:match "VmHWM:%s*(%d+)") / 1024
local info = marea.info()
print(('{"ms": [%s], "peak_mib": %.1f, "loss": %.4f, "version": "Marea %s %s"}'):format(table.concat(times, ", "), peak,
  loss, info.version, info.isa))
