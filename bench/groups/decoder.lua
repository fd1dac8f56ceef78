-- SPDX-License-Identifier: MIT
-- The VAE's decoder, 2 numbers -> 28x28 pixels, in inference beside ONNX Runtime and PyTorch. First all are given the
-- same weights, and their pixels are compared. "Rewritten" are peers with convolutions for transposed ones of stride
-- 1, which compute the same and run faster there.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local contestants = require "lib.contestants"
local layers = require "lib.layers"
local machine = require "lib.machine"
local settings = require "lib.settings"
local onnx_model = require "peers.onnx_model"
local vae_model = require "vae_model"
local join = contest.join

local group = {name = "decoder", title = "VAE decoder, inference"}

local FOLDER = "build/bench/decoder"
local X, Y = 5, -12.5 -- the point whose pixels are compared
local TOLERANCE = 1e-5
local PYTORCH = settings.pytorch{layouts = true, compiled = true}

local function ours(c, batch, threads)
  return c:ask("Marea", ("decoder batch=%d threads=%d seconds=0.1"):format(batch, threads))[1]
end

local function onnx(c, batch, threads, convs)
  local request = "decoder model=%s/%s.onnx batch=%d threads=%d seconds=0.1"
  return c:ask("ONNX Runtime", request:format(FOLDER, convs, batch, threads), contest.threads_text(threads))
end

local function pytorch(c, batch, threads, convs)
  return c:ask_settings(PYTORCH, ("decoder batch=%d convs=%s"):format(batch, convs), threads, 0.1)
end

--- The decoder with biases that are seen in the pixels.
local function new_decoder()
  local decoder = vae_model("sigmoid").model.decoder
  for _, layer in ipairs(decoder) do
    if layer.bias then layer.bias:add_(marea.uniform{shape = layer.bias.shape, low = -0.1, high = 0.1}) end
  end
  return decoder
end

--- Writes the weights for the peers; returns the pixels of the point.
local function prepare()
  assert(os.execute("mkdir -p " .. FOLDER))
  marea.seed(1)
  local decoder = marea.no_grad(new_decoder)
  onnx_model.save(decoder, FOLDER .. "/transposed.onnx", false)
  onnx_model.save(decoder, FOLDER .. "/plain.onnx", true)
  onnx_model.save_weights(decoder, FOLDER)
  return marea.no_grad(decoder, marea.tensor{{X, Y}}):reshape(28 * 28):totable()
end

--- Stops when a peer computes something else.
local function compare(name, request, pixels)
  local worker = contestants.get(name)
  if not worker then return end
  local theirs, message = worker:ask(marea.format("check %s x=%g y=%g", request, X, Y))
  assert(theirs, message)
  assert(#theirs == #pixels, name .. ": another number of pixels")
  for i, p in ipairs(pixels) do
    local close = math.abs(p - theirs[i]) <= TOLERANCE
    if not close then error(marea.format("%s (%s): pixel %d is %g, ours %g", name, request, i, theirs[i], p), 0) end
  end
end

local function compare_all()
  local pixels = prepare()
  for _, convs in ipairs{"transposed", "plain"} do
    compare("ONNX Runtime", ("model=%s/%s.onnx"):format(FOLDER, convs), pixels)
    for _, layout in ipairs{"first", "last"} do
      compare("PyTorch", ("folder=%s layout=%s convs=%s"):format(FOLDER, layout, convs), pixels)
    end
  end
end

local function flop(batch)
  local sum = 0
  for _, layer in ipairs(layers.decoder) do sum = sum + layers.flop(layer) end
  return sum * batch / 128
end

function group.run(bench)
  compare_all()
  local c, lists = contest.new(), {transposed = {}, plain = {}}
  for _, batch in ipairs{1, 128, 900} do
    local entries = {}
    for convs, list in pairs(lists) do
      local ort, torch = {}, {}
      for _, t in ipairs(bench.threads) do
        entries[t] = entries[t] or ours(c, batch, t)
        ort, torch = join(ort, onnx(c, batch, t, convs)), join(torch, pytorch(c, batch, t, convs))
        list[#list + 1] = {threads = t, unit = "ms", batch = batch, ours = entries[t],
          name = ("batch %d%s"):format(batch, convs == "plain" and ", peers rewritten" or ""),
          limit = machine.compute_limit(bench.limits, bench.isa, t, flop(batch)),
          peers = {["ONNX Runtime"] = ort, PyTorch = torch}}
      end
    end
  end
  c:run("decoder", bench.rounds)
  return join(lists.transposed, lists.plain)
end

local function microseconds(ms, row) return 1000 * ms / row.batch end

function group.figures(rows)
  local shown, labels = {}, {}
  for _, row in ipairs(rows) do
    if not row.name:find "rewritten" then
      shown[#shown + 1] = row
      labels[#labels + 1] = ("%d, %d thr."):format(row.batch, row.threads)
    end
  end
  return {chart.bars(chart.series(shown, microseconds), {title = "VAE decoder, inference", labels = labels,
    xlabel = "batch", ylabel = "microseconds an image", values = true})}
end

return group
