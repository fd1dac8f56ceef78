-- SPDX-License-Identifier: MIT
-- How the time grows: with the batch (a training step, 1 to 1024 images), with the graph (a chain of 10 to 1,000,000
-- nodes, forward and backward), and with threads.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local contestants = require "lib.contestants"
local launch = require "lib.launch"
local machine = require "lib.machine"
local layers = require "lib.layers"

local group = {name = "growth", title = "Growth"}

local BATCHES = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}
local NODES = {10, 100, 1000, 10000, 100000, 1000000}
local ROUNDS = 3
local LINEAR_FROM = {batch = 32, nodes = 1000}

local function step(c, batch, threads)
  return c:ask("Marea", ("step batch=%d threads=%d seconds=0.2"):format(batch, threads))[1]
end

--- Bytes of one node between the two passes: peak memory with a million of them, less that with ten.
local function node_bytes()
  local command = contestants.program .. " bench/ours/graph.lua %d"
  local _, few = launch(command:format(10))
  local _, many = launch(command:format(1000000))
  return few and many and (many - few) * 2 ^ 20 / 1e6
end

function group.run(bench)
  local c, rows, most = contest.new(), {}, bench.threads[#bench.threads]
  local function add(row) rows[#rows + 1] = row end
  for _, batch in ipairs(BATCHES) do
    local limit = machine.compute_limit(bench.limits, bench.isa, most, layers.step_flop() * batch / 128)
    add{name = ("training step, batch %d, an image"):format(batch), threads = most, unit = "us",
      factor = 1000 / batch, batch = batch, ours = step(c, batch, most), limit = limit}
  end
  for _, threads in ipairs(machine.threads(bench.limits)) do
    add{name = "training step, batch 128", threads = threads, unit = "ms", ours = step(c, 128, threads),
      limit = machine.compute_limit(bench.limits, bench.isa, threads, layers.step_flop())}
  end
  for _, nodes in ipairs(NODES) do
    add{name = ("chain of %d nodes, forward and backward, a node"):format(nodes), threads = 1, unit = "ns",
      factor = 1e6, nodes = nodes,
      ours = c:ask("Marea", ("chain nodes=%d scope=1 threads=1 seconds=0.1"):format(nodes))[1]}
  end
  c:run("growth", ROUNDS)
  add{name = "memory of a node of the graph", unit = "bytes", ours = contest.known{node_bytes()}}
  return rows
end

--- The resolved rows that have the field.
local function with(rows, field, from)
  local list = {}
  for _, row in ipairs(rows) do
    if row[field] and row[field] >= (from or 1) then list[#list + 1] = row end
  end
  return list
end

--- The straight line a + b n through the times of n units that has the least squares of relative deviations: with the
--- unit time t / n = a / n + b a line over 1 / n, each relative to its own size. Returns a, b, the largest deviation.
local function straight_line(rows, field)
  local s, sx, sxx, sy, sxy = 0, 0, 0, 0, 0
  for _, row in ipairs(rows) do
    local x, y = 1 / row[field], row.ours.median
    local weight = 1 / y ^ 2
    s, sx, sxx, sy, sxy = s + weight, sx + weight * x, sxx + weight * x * x, sy + weight * y, sxy + weight * x * y
  end
  local a = (s * sxy - sx * sy) / (s * sxx - sx * sx)
  local b, most = (sy - a * sx) / s, 0
  for _, row in ipairs(rows) do most = math.max(most, math.abs((a / row[field] + b) / row.ours.median - 1)) end
  return a, b, most
end

--- How far times are from a straight line, and by how much the slowest unit is slower than the fastest one.
function group.notes(rows)
  local notes = {}
  for _, field in ipairs{"batch", "nodes"} do
    local from, low, high = LINEAR_FROM[field], math.huge, 0
    local list = with(rows, field, from)
    for _, row in ipairs(list) do low, high = math.min(low, row.ours.median), math.max(high, row.ours.median) end
    local a, b, most = straight_line(list, field)
    notes[#notes + 1] = marea.format(
      "from %s %d up: %.4g + %.4g n %s, within %.0f %%; slowest unit %.0f %% above fastest", field, from, a, b,
      list[1].unit, 100 * most, 100 * (high / low - 1))
  end
  return notes
end

local function curve(rows, field, options)
  local x, y = {}, {}
  for i, row in ipairs(with(rows, field)) do x[i], y[i] = row[field], row.ours.median end
  options[1], options.logx, options.xrange = {x = x, y = y}, true, {x[1], x[#x]}
  options.yrange = {0, 1.15 * math.max(table.unpack(y))}
  return chart.curves(options)
end

function group.figures(rows, bench)
  return {
    curve(rows, "batch", {title = ("Training step, %d threads"):format(bench.threads[#bench.threads]),
      xlabel = "images in the batch", ylabel = "microseconds an image"}),
    curve(rows, "nodes", {title = "Chain of small operators, forward and backward", xlabel = "nodes in the graph",
      ylabel = "ns a node"}),
  }
end

return group
