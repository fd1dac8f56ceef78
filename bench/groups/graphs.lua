-- SPDX-License-Identifier: MIT
-- Networks that PyTorch has written as files of ONNX (peers/onnx_models.py), beside ONNX Runtime: first both compute
-- the same numbers from the same input, then they take turns in inference. Behind it what one process takes that
-- loads the file and runs it once: time and peak memory.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local contestants = require "lib.contestants"
local launch = require "lib.launch"

local group = {name = "graphs", title = "Networks of ONNX, inference"}

local FOLDER = "build/bench/graphs"
local TOLERANCE = 1e-4 -- of the largest result
local SHAPES = {resnet18 = "3,224,224", mobilenet_v2 = "3,224,224", squeezenet = "3,224,224", decoder = "2",
  lstm = "50,64", encoder = "64,256"}
local NAMES = {"resnet18", "mobilenet_v2", "squeezenet", "decoder", "lstm", "encoder"}
local ALONE = 5 -- processes

local function path(name) return ("%s/%s.onnx"):format(FOLDER, name) end

local function request(name, batch, threads)
  return ("graphs model=%s batch=%d shape=%s threads=%d seconds=0.3"):format(path(name), batch, SHAPES[name], threads)
end

--- Whether the networks are there: written once, by the Python that has PyTorch.
local function write_networks()
  local worker = contestants.get "PyTorch"
  local last = io.open(path(NAMES[#NAMES]))
  if last then return last:close() end
  if not worker then return false end
  local command = "mkdir -p %s && %s bench/peers/onnx_models.py %s >%s/log 2>&1"
  return os.execute(command:format(FOLDER, worker.program, FOLDER, FOLDER))
end

--- Stops when ONNX Runtime computes something else from the numbers 0, 1/8, .. 1, 0, ... along the input.
local function compare(name)
  local worker = contestants.get "ONNX Runtime"
  local shape, count = {1}, 1
  for size in SHAPES[name]:gmatch "%d+" do
    shape[#shape + 1] = math.tointeger(size)
    count = count * shape[#shape]
  end
  local x = (marea.arange(0, count - 1) % 9 / 8):to "f32":reshape(shape)
  local y = marea.no_grad(assert(marea.onnx.load(path(name))):evaluate(), x):reshape(-1)
  local theirs, message = worker:ask(("numbers model=%s shape=%s"):format(path(name), SHAPES[name]))
  assert(theirs, message)
  local difference, most = (y - marea.tensor(theirs)):abs():max():item(), y:abs():max():item()
  if #theirs == y:size() and difference <= TOLERANCE * most then return end
  error(marea.format("%s: results differ by %g of at most %g", name, difference, most), 0)
end

local function alone(rows, name)
  local onnx, ours, theirs = contestants.get "ONNX Runtime", {{}, {}}, {{}, {}}
  local arguments = path(name) .. " " .. SHAPES[name]
  for i = 1, ALONE do
    ours[1][i], ours[2][i] = launch(contestants.program .. " bench/ours/graph_once.lua " .. arguments)
    theirs[1][i], theirs[2][i] = launch(("%s bench/peers/onnx_runtime.py --once %s"):format(onnx.program, arguments))
  end
  for i, unit in ipairs{"ms", "MiB"} do
    rows[#rows + 1] = {name = name .. (i == 1 and ": load and run once" or ": peak memory of that"), unit = unit,
      ours = contest.known(ours[i]), peers = {["ONNX Runtime"] = {contest.known(theirs[i])}}}
  end
end

function group.run(bench)
  if not contestants.get "ONNX Runtime" or not write_networks() then
    print "Networks of ONNX: left out, without PyTorch, onnx and ONNX Runtime; see make bench-peers"
    return {}
  end
  local c, rows = contest.new(), {}
  for _, name in ipairs(NAMES) do
    compare(name)
    for _, batch in ipairs{1, 16} do
      for _, threads in ipairs(bench.threads) do
        rows[#rows + 1] = {name = ("%s, batch %d"):format(name, batch), threads = threads, unit = "ms",
          ours = c:ask("Marea", request(name, batch, threads))[1],
          peers = {["ONNX Runtime"] = c:ask("ONNX Runtime", request(name, batch, threads),
            contest.threads_text(threads))}}
      end
    end
  end
  c:run("graphs", bench.rounds)
  for _, name in ipairs(NAMES) do alone(rows, name) end
  return rows
end

function group.figures(rows)
  local shown, labels = {}, {}
  for _, row in ipairs(rows) do
    if row.threads == 1 then
      shown[#shown + 1] = row
      labels[#labels + 1] = row.name:gsub(", batch ", " x ")
    end
  end
  if #shown == 0 then return {} end
  return {chart.bars(chart.series(shown), {title = "Networks of ONNX, one thread", labels = labels, ylabel = "ms",
    logy = true})}
end

return group
