-- SPDX-License-Identifier: MIT
-- The convolutions of ResNet-18 and MobileNetV2 for images of 224x224, those that differ, one by one: forward at batch
-- 1 and 16, ResNet's also their gradients, beside oneDNN 3 as PyTorch calls it (in both layouts; with weights, and with
-- images, in the layout that oneDNN likes best) and ONNX Runtime, whose reordering of images counts. The limit is as
-- in the group conv.
local marea = require "marea"
local layers = require "lib.layers"
local machine = require "lib.machine"
local onnx_model = require "peers.onnx_model"
local passes = require "lib.passes"
local settings = require "lib.settings"

local group = {name = "vision", title = "Convolutions of ResNet-18 and MobileNetV2 at 224x224"}

local SECONDS, FOLDER = 0.06, "build/bench/vision"
local WORKERS = {"PyTorch tuned"}
local FORMS = {{label = ", channels first", request = " layout=first"},
  {label = ", channels last", request = " layout=last"},
  {label = ", channels last, packed weights", request = " layout=last form=packed"},
  {label = ", blocked", request = " layout=first form=blocked"}}
local FORWARD = settings.pytorch{workers = WORKERS, variants = FORMS}
local GRADIENT = settings.pytorch{workers = WORKERS, layouts = true}

local function onnx(path)
  return function(threads)
    return {{worker = "ONNX Runtime", label = settings.threads_text(threads), request = " model=" .. path}}
  end
end

--- A case of a layer in one direction.
local function case_of(bench, network, layer, map, batch, path)
  local flop, bytes = batch * layers.flop(layer), layers.bytes(layer)
  local forward = map == "forward"
  return {name = marea.format("%s %s, batch %d, %s", network, layer.name, batch, map), seconds = SECONDS, flop = flop,
    request = layers.vision_request(layer, map, batch), bf16 = true,
    peers = {PyTorch = forward and FORWARD or GRADIENT, ["ONNX Runtime"] = forward and onnx(path) or nil},
    limit = function(threads, isa)
      local compute = machine.compute_limit(bench.limits, isa, threads, flop)
      local moved = batch * bytes / (isa == bench.bf16 and 2 or 1)
      return compute and math.max(compute, machine.memory_limit(bench.limits, threads, moved))
    end}
end

function group.run(bench)
  assert(os.execute("mkdir -p " .. FOLDER))
  local cases = {}
  for network, list in pairs{["ResNet-18"] = layers.resnet18, MobileNetV2 = layers.mobilenet} do
    for i, layer in ipairs(list) do
      local path = ("%s/%s-%d.onnx"):format(FOLDER, network, i)
      onnx_model.save_conv(layer, path)
      for _, map in ipairs(network == "ResNet-18" and {"forward", "input", "weight"} or {"forward"}) do
        for _, batch in ipairs{1, 16} do cases[#cases + 1] = case_of(bench, network, layer, map, batch, path) end
      end
    end
  end
  table.sort(cases, function(a, b) return a.name < b.name end)
  local rows = passes.run(bench, "vision", cases)
  for _, row in ipairs(rows) do row.list_settings = false end
  return rows
end

function group.figures() return {} end

return group
