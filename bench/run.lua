-- SPDX-License-Identifier: MIT
-- Runs the VAE training step of Marea and of PyTorch in turns, so that both see the same machine, and prints a table.
--
--   build/marea bench/run.lua [rounds [steps]]        from the root of the project; `make bench` does it
--
-- Each round starts every contestant once. The figure is the median over all steps of all rounds. PyTorch is
-- taken at its best memory layout. Without a Python that has torch, only our own figures are shown.
-- Results also go to build/bench/vae_step.json.
local rounds, steps = tonumber(arg[1]) or 3, tonumber(arg[2]) or 10

local MAREA = ("LUA_PATH='%s' LUA_CPATH='%s' %s bench/vae_step.lua"):format(package.path, package.cpath, arg[-1])

local function python_with_torch()
  for _, python in ipairs {os.getenv "PYTHON" or "python3", "/usr/bin/python3"} do
    if os.execute(python .. " -c 'import torch' 2>/dev/null") then return python end
  end
end

--- The fields of one line of JSON that the contestants print.
local function run(command)
  local pipe = assert(io.popen("env -u OPENBLAS_CORETYPE " .. command))
  local line = pipe:read "a"
  if not pipe:close() then return nil, command .. " failed" end
  local result = {ms = {}, peak = tonumber(line:match '"peak_mib": ([%d.]+)'), version = line:match '"version": "(.-)"'}
  for ms in (line:match '"ms": %[(.-)%]' or ""):gmatch "[%d.]+" do table.insert(result.ms, tonumber(ms)) end
  if #result.ms == 0 then return nil, command .. " printed no times" end
  return result
end

local function median(list)
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[n // 2 + 1] or (list[n // 2] + list[n // 2 + 1]) / 2
end

local contestants = {}
local python = python_with_torch()
for threads = 1, 2 do
  local options = (" --threads %d --steps %d"):format(threads, steps)
  table.insert(contestants, {name = "marea", threads = threads, command = "env " .. MAREA .. options})
  if python then
    for _, layout in ipairs {"", " --channels-last"} do
      table.insert(contestants, {name = "pytorch", threads = threads, layout = layout,
        command = python .. " bench/vae_step.py" .. options .. layout})
    end
  end
end

for round = 1, rounds do
  for _, c in ipairs(contestants) do
    io.stderr:write(("\rround %d of %d: %s, %d threads%s   "):format(round, rounds, c.name, c.threads, c.layout or ""))
    local result = assert(run(c.command))
    c.ms = c.ms or {}
    table.move(result.ms, 1, #result.ms, #c.ms + 1, c.ms)
    c.peak, c.version = math.max(c.peak or 0, result.peak), result.version
  end
end
io.stderr:write("\r", (" "):rep(70), "\r")

local lines = {}
print("VAE training step, 28x28, batch 128; median of " .. rounds * steps .. " steps, ms")
print(("%-34s %8s %10s %10s %9s %10s"):format("", "threads", "median", "fastest", "ratio", "peak MiB"))
for threads = 1, 2 do
  local best
  for _, c in ipairs(contestants) do
    c.median = c.median or median(c.ms)
    if c.name == "pytorch" and c.threads == threads and (not best or c.median < best.median) then best = c end
  end
  for _, c in ipairs(contestants) do
    if c.threads == threads then
      local ratio = best and ("%.2f"):format(best.median / c.median) or "-"
      local name = c.version .. (c.layout or ""):gsub("^ %-%-", ", ")
      print(("%-34s %8d %10.1f %10.1f %9s %10.0f"):format(name, threads, c.median, c.ms[1], ratio, c.peak))
      table.insert(lines, ('{"name": "%s", "version": "%s", "options": "%s", "threads": %d, "median_ms": %.3f, ' ..
        '"fastest_ms": %.3f, "peak_mib": %.1f}'):format(c.name, c.version, c.layout or "", threads, c.median, c.ms[1],
        c.peak))
    end
  end
end
print("ratio: how many steps in the time of one of PyTorch's best at the same number of threads")

os.execute "mkdir -p build/bench"
local file = assert(io.open("build/bench/vae_step.json", "w"))
assert(file:write("[\n  ", table.concat(lines, ",\n  "), "\n]\n"))
assert(file:close())
