-- SPDX-License-Identifier: MIT
-- Networks that PyTorch has written as files of ONNX (peers/onnx_models.py), and those of the packages that `make
-- models` gets, beside ONNX Runtime: first both compute the same numbers from the same input, then they take turns in
-- inference. Behind it what one process takes that loads the file and runs it once: time and peak memory.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local contestants = require "lib.contestants"
local launch = require "lib.launch"
local ports = require "lib.ports"

local group = {name = "graphs", title = "Networks of ONNX, inference"}

local FOLDER = "build/bench/graphs"
local TOLERANCE = 1e-4 -- of the largest result
local OCR = "build/models/rapidocr_onnxruntime/models/ch_"
local ALONE = 5 -- processes

-- Those of PyTorch, and those of packages, which have a path.
local NETWORKS = {
  {"resnet18", "x:f32:N,3,224,224"}, {"mobilenet_v2", "x:f32:N,3,224,224"}, {"squeezenet", "x:f32:N,3,224,224"},
  {"decoder", "x:f32:N,2"}, {"lstm", "x:f32:N,50,64"}, {"encoder", "x:f32:N,64,256"},
  {"silero-vad", "input:f32:N,576;state:f32:2,N,128;sr:i64:",
    "build/models/silero_vad/data/silero_vad_16k_op15.onnx"},
  {"magika", "bytes:i32:N,2048", "build/models/magika/models/standard_v3_3/model.onnx"},
  {"OCR, detection", "x:f32:N,3,320,320", OCR .. "PP-OCRv4_det_infer.onnx"},
  {"OCR, letters", "x:f32:N,3,48,320", OCR .. "PP-OCRv4_rec_infer.onnx"},
  {"OCR, direction", "x:f32:N,3,48,192", OCR .. "ppocr_mobile_v2.0_cls_infer.onnx"},
}

local function path(net) return net[3] or ("%s/%s.onnx"):format(FOLDER, net[1]) end

local function request(net, batch, threads)
  return ("graphs model=%s batch=%d inputs=%s threads=%d seconds=0.3"):format(path(net), batch, net[2], threads)
end

local function is_there(net)
  local file = io.open(path(net))
  return file and file:close()
end

--- Whether the networks are there: written once, by the Python that has PyTorch.
local function write_networks()
  local worker = contestants.get "PyTorch"
  if is_there{"encoder"} then return true end
  if not worker then return false end
  local command = "mkdir -p %s && %s bench/peers/onnx_models.py %s >%s/log 2>&1"
  return os.execute(command:format(FOLDER, worker.program, FOLDER, FOLDER))
end

--- Stops when ONNX Runtime computes something else from the same numbers.
local function compare(net)
  local worker = contestants.get "ONNX Runtime"
  local x = ports.make(net[2], 1, ports.pattern)
  local y = marea.no_grad(assert(marea.onnx.load(path(net))):evaluate(), x):reshape(-1)
  local theirs, message = worker:ask(("numbers model=%s inputs=%s"):format(path(net), net[2]))
  assert(theirs, message)
  local difference, most = (y - marea.tensor(theirs)):abs():max():item(), y:abs():max():item()
  if #theirs == y:size() and difference <= TOLERANCE * most then return end
  error(marea.format("%s: results differ by %g of at most %g", net[1], difference, most), 0)
end

local function alone(rows, net)
  local onnx, ours, theirs = contestants.get "ONNX Runtime", {{}, {}}, {{}, {}}
  local arguments = ("%s '%s'"):format(path(net), net[2])
  for i = 1, ALONE do
    ours[1][i], ours[2][i] = launch(contestants.program .. " bench/ours/graph_once.lua " .. arguments)
    theirs[1][i], theirs[2][i] = launch(("%s bench/peers/onnx_runtime.py --once %s"):format(onnx.program, arguments))
  end
  for i, unit in ipairs{"ms", "MiB"} do
    rows[#rows + 1] = {name = net[1] .. (i == 1 and ": load and run once" or ": peak memory of that"), unit = unit,
      ours = contest.known(ours[i]), peers = {["ONNX Runtime"] = {contest.known(theirs[i])}}}
  end
end

function group.run(bench)
  if not contestants.get "ONNX Runtime" or not write_networks() then
    print "Networks of ONNX: left out, without PyTorch, onnx and ONNX Runtime; see make bench-peers"
    return {}
  end
  local c, rows = contest.new(), {}
  local found = {}
  for _, net in ipairs(NETWORKS) do
    if is_there(net) then found[#found + 1] = net end
  end
  for _, net in ipairs(found) do
    compare(net)
    for _, batch in ipairs{1, 16} do
      for _, threads in ipairs(bench.threads) do
        rows[#rows + 1] = {name = ("%s, batch %d"):format(net[1], batch), threads = threads, unit = "ms",
          ours = c:ask("Marea", request(net, batch, threads))[1],
          peers = {["ONNX Runtime"] = c:ask("ONNX Runtime", request(net, batch, threads),
            contest.threads_text(threads))}}
      end
    end
  end
  c:run("graphs", bench.rounds)
  for _, net in ipairs(found) do alone(rows, net) end
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
