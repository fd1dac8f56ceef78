-- SPDX-License-Identifier: MIT
-- Does memory stay flat while a script trains? The loop of scripts/vae.lua on the sample, small batches, 5,000 steps;
-- prints live and pooled bytes of tensors, Lua's heap, resident memory and calls of the allocator at a few steps.
--
--   build/marea bench/memory.lua [STEPS] [BATCH]          exits 1 when memory grows by more than 1 KiB a 1,000 steps
local marea = require "marea"
local optim, data = marea.optim, marea.data

local steps, batch = math.tointeger(arg[1] or 5000), math.tointeger(arg[2] or 8)
marea.seed(1)

local vae = dofile((arg[0]:match "^.*/" or "") .. "vae_model.lua")()
local optimizer = optim.RMSprop{vae.model, lr = 1e-3}
local train = assert(data.mnist("sample", "train"))

local function resident()
  local status = assert(io.open "/proc/self/status"):read "a"
  return math.tointeger(status:match "VmRSS:%s*(%d+)")
end

local function measure()
  local memory = marea.memory()
  return {live = memory.live, pooled = memory.pooled, resident = resident(), mallocs = memory.mallocs}
end

local function run(on_step)
  local step = 0
  while true do
    for x in train:batches(batch, {shuffle = true, drop_last = true}) do
      if step > 0 then on_step(step) end -- between two steps, when everything of the last one is gone
      if step == steps then return end
      optimizer:step(vae.loss(x))
      step = step + 1
    end
  end
end

local shown = {[100] = true, [500] = true}
for step = 1000, steps, 1000 do shown[step] = true end
local first, last
print "  step    live bytes    pooled bytes    resident KiB    mallocs"
run(function(step)
  if not shown[step] then return end
  last = measure()
  first = first or last
  print(("%6d  %12d    %12d    %12d    %7d"):format(step, last.live, last.pooled, last.resident, last.mallocs))
end)

local thousands = (steps - 100) / 1000
local growth = (last.live - first.live) / 1024 / thousands
local footprint = (last.live + last.pooled - first.live - first.pooled) / 1024 / thousands
print(marea.format("growth of live memory: %.3f KiB a 1,000 steps; of live and pooled: %.3f; resident: %.1f", growth,
  footprint, (last.resident - first.resident) / thousands))
os.exit(growth <= 1 and footprint <= 1)
