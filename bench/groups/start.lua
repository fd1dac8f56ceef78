-- SPDX-License-Identifier: MIT
-- Starting the program, and a whole training: peak memory with MNIST loaded, and the time of one epoch. MNIST is taken
-- where data.mnist finds it ($MAREA_DATA, data/mnist, ...); without it, memory is that of the sample, and there is no
-- epoch.
local chart = require "lib.chart"
local contest = require "lib.contest"
local contestants = require "lib.contestants"
local launch = require "lib.launch"

local group = {name = "start", title = "Start, memory, one epoch"}

local STARTS, SLOW_STARTS = 20, 5
local STEPS = 20 -- of PyTorch's training, for its memory

--- ms of every start.
local function starts(command, times)
  local rounds = {}
  for i = 1, times do rounds[i] = launch(command) end
  return contest.known(rounds)
end

local function python()
  local worker = contestants.get "PyTorch"
  return worker and worker.program
end

--- What one epoch takes: ms and MiB; nil without MNIST.
local function epoch(program, source, threads)
  local _, peak, printed = launch(("%s bench/ours/train.lua %s %d"):format(program, source, threads))
  return printed and 1000 * tonumber(printed:match "([%d.]+)%s*$"), peak
end

function group.run(bench)
  local program, rows, threads = contestants.program, {}, bench.threads[#bench.threads]
  local torch = python()
  local import = torch and {starts(torch .. " -c 'import torch'", SLOW_STARTS)}
  for _, options in ipairs{"-e ''", "-l marea -e ''"} do
    rows[#rows + 1] = {name = "start: marea " .. options, unit = "ms", peers = {PyTorch = import},
      ours = starts(program .. " " .. options, STARTS)}
  end

  local source = "mnist"
  local ms, peak = epoch(program, source, threads)
  if not ms then
    source = "sample"
    peak = select(2, epoch(program, source, threads))
  end
  local _, torch_peak = nil, nil
  if torch then _, torch_peak = launch(("%s bench/peers/pytorch.py --train %d"):format(torch, STEPS)) end
  rows[#rows + 1] = {name = "peak memory of training, " .. source, threads = threads, unit = "MiB",
    ours = contest.known{peak}, peers = {PyTorch = torch_peak and {contest.known{torch_peak}}}}
  rows[#rows + 1] = {name = "one epoch of MNIST", threads = threads, unit = "s", factor = 1e-3,
    ours = contest.known{source == "mnist" and ms or nil}}
  return rows
end

function group.figures(rows)
  local shown = {rows[1], rows[2], rows[3]}
  return {chart.bars(chart.series(shown), {title = "Start and peak memory", ylabel = "ms, MiB", logy = true,
    yrange = {1, 3000}, values = true, labels = {"start, ms", "with -l marea, ms", "peak of training, MiB"}})}
end

return group
