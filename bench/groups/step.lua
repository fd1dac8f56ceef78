-- SPDX-License-Identifier: MIT
-- The VAE's training step at batch 128: Marea, PyTorch, and the sum of oneDNN's best primitives for its layers, which
-- is what a step would take that did nothing else.
local chart = require "lib.chart"
local contest = require "lib.contest"
local layers = require "lib.layers"
local machine = require "lib.machine"
local stats = require "lib.stats"
local join = contest.join

local group = {name = "step", title = "VAE training step, 28x28, batch 128"}

local function ours(c, name, threads) return c:ask(name, ("step batch=128 threads=%d seconds=0.3"):format(threads)) end

local function onednn(c, threads)
  local requests = {}
  for _, layer in ipairs(layers.step) do
    local seconds = layer.kind == "linear" and 0.005 or 0.02
    for _, map in ipairs(layer.maps) do
      requests[#requests + 1] = layers.onednn_request(layer, map, threads, seconds)
    end
  end
  return c:ask("oneDNN", requests, "sum of " .. #requests .. ", " .. contest.threads_text(threads))
end

function group.run(bench)
  local c, marea, avx2, sums, torch, rewritten = contest.new(), {}, {}, {}, {}, {}
  for _, t in ipairs(bench.threads) do -- the best of a peer's settings may be the one with fewer threads
    marea[t] = ours(c, "Marea", t)[1]
    avx2[t] = bench.isa == "avx512" and ours(c, "Marea AVX2", t)[1]
    sums[t] = join(sums[t - 1], onednn(c, t))
    torch[t] = join(torch[t - 1], c:ask_pytorch("step batch=128 convs=transposed", t, 0.3))
    rewritten[t] = join(rewritten[t - 1], c:ask_pytorch("step batch=128 convs=plain", t, 0.3))
  end
  c:run("step", bench.rounds)

  local rows, flop = {}, layers.step_flop()
  local function add(name, isa, entries, peers)
    for _, t in ipairs(bench.threads) do
      if not entries[t] then return end
      local row = {name = name, threads = t, unit = "ms", ours = entries[t], peers = {},
        limit = machine.compute_limit(bench.limits, isa, t, flop), bounds = {oneDNN = true}}
      for peer, lists in pairs(peers) do row.peers[peer] = lists[t] end
      rows[#rows + 1] = row
    end
  end
  add("training step", bench.isa, marea, {oneDNN = sums, PyTorch = torch})
  add("the same, PyTorch rewritten with conv2d", bench.isa, marea, {PyTorch = rewritten})
  add("AVX2", "avx2", avx2, {})
  if bench.threads[2] then
    rows[#rows + 1] = {name = "2 threads against 1", unit = "times",
      ours = contest.known(stats.ratios(marea[1].rounds, marea[2].rounds))}
  end
  return rows
end

function group.figures(rows, bench)
  local shown, labels = table.move(rows, 1, #bench.threads, 1, {}), {}
  for i, row in ipairs(shown) do labels[i] = row.threads .. (row.threads == 1 and " thread" or " threads") end
  return {chart.bars(chart.series(shown), {title = "VAE training step, batch 128 (oneDNN: sum of its best primitives)",
    ylabel = "ms", labels = labels, values = true})}
end

return group
