-- SPDX-License-Identifier: MIT
-- Every convolution of the VAE (batch 128) and of the GAN's discriminator (batch 64) in its three directions, called
-- from Lua, beside oneDNN's fastest implementation and the one that it chooses by itself. The limit is the larger of
-- the time for the multiply-adds of direct convolution and the time for x, y and the weights to pass through main
-- memory once.
local chart = require "lib.chart"
local contest = require "lib.contest"
local layers = require "lib.layers"
local machine = require "lib.machine"
local join = contest.join

local group = {name = "conv", title = "Convolutions, VAE batch 128, GAN batch 64"}

local SECONDS = 0.06
local MAPS = {{map = "forward", name = "forward"}, {map = "input", name = "input gradient"},
  {map = "weight", name = "weight gradient"}}

--- Both limits in ms; nil where the peak is not known.
local function limit(bench, layer, threads)
  local compute = machine.compute_limit(bench.limits, bench.isa, threads, layers.flop(layer))
  return compute and math.max(compute, machine.memory_limit(bench.limits, threads, layers.bytes(layer)))
end

function group.run(bench)
  local c, lists = contest.new(), {}
  local function onednn(layer, map, threads, own)
    return c:ask("oneDNN", layers.onednn_request(layer, map, threads, SECONDS, own), contest.threads_text(threads))
  end
  for _, layer in ipairs(layers.convolutions) do
    for _, m in ipairs(MAPS) do
      local best, own = {}, {}
      for _, t in ipairs(bench.threads) do
        local ours = c:ask("Marea", layers.our_request(layer, m.map, t, SECONDS))
        best, own = join(best, onednn(layer, m.map, t)), join(own, onednn(layer, m.map, t, true))
        lists[t] = join(lists[t], {{name = layer.name .. ", " .. m.name, threads = t, unit = "ms", ours = ours[1],
          peers = {oneDNN = best, ["oneDNN's choice"] = own}, limit = limit(bench, layer, t), layer = layer,
          map = m.map}})
      end
    end
  end
  c:run("conv", bench.rounds)
  return join(table.unpack(lists))
end

local SHADES = {{Marea = 1, oneDNN = 2}, {Marea = 10, oneDNN = 6}} -- by threads

local function gflops(ms, row) return layers.flop(row.layer) / ms * 1e-6 end

function group.figures(rows, bench)
  local figures = {}
  for _, m in ipairs(MAPS) do
    local series, labels = {}, {}
    for _, t in ipairs(bench.threads) do
      local shown = {}
      for _, row in ipairs(rows) do
        if row.map == m.map and row.threads == t then shown[#shown + 1] = row end
      end
      for i, row in ipairs(shown) do labels[i] = row.layer.name end
      series = join(series, chart.series(shown, gflops, (", %d thr."):format(t), SHADES[t]))
    end
    local peak = (bench.limits.peak[bench.isa] or {})[1]
    figures[#figures + 1] = chart.bars(series, {title = ("Convolutions, %s, direct FLOP counted"):format(m.name),
      ylabel = "GFLOP/s", labels = labels, line = peak and {y = peak, title = "1 core's FMA"}})
  end
  return figures
end

return group
