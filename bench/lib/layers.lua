-- SPDX-License-Identifier: MIT
--- The layers that are measured one by one, their FLOP and bytes, and the requests for them.
local marea = require "marea"

local layers = {}

local function conv(name, kind, n, side, cin, cout, kernel, stride)
  local out = kind == "transposed" and side * stride or (side + stride - 1) // stride
  return {name = name, kind = kind, n = n, h = side, w = side, cin = cin, cout = cout, kernel = kernel,
    stride = stride, out = out, maps = {"forward", "input", "weight"}}
end

--- A layer of a network at 224x224, of one image; a bias and ReLU stand behind.
local function at224(side, cin, cout, kernel, stride, groups)
  local layer = conv(nil, "conv", 1, side, cin, cout, kernel, stride)
  layer.groups, layer.pad = groups or 1, kernel // 2
  layer.name = ("%s%dx%d %d>%d%s at %d"):format(layer.groups > 1 and "depthwise " or "", kernel, kernel, cin, cout,
    stride > 1 and " /" .. stride or "", side)
  return layer
end

--- All layers of ResNet-18 (He et al. 2015) that differ.
layers.resnet18 = {
  at224(224, 3, 64, 7, 2), at224(56, 64, 64, 3, 1),
  at224(56, 64, 128, 3, 2), at224(28, 128, 128, 3, 1), at224(56, 64, 128, 1, 2),
  at224(28, 128, 256, 3, 2), at224(14, 256, 256, 3, 1), at224(28, 128, 256, 1, 2),
  at224(14, 256, 512, 3, 2), at224(7, 512, 512, 3, 1), at224(14, 256, 512, 1, 2),
}

--- Those of MobileNetV2 (Sandler et al. 2018): a first one, and blocks that widen six times, filter each channel alone
--- and narrow again.
layers.mobilenet = {at224(224, 3, 32, 3, 2), at224(112, 32, 32, 3, 1, 32), at224(112, 32, 16, 1, 1)}
for _, block in ipairs{{112, 16, 24, 2}, {56, 24, 24, 1}, {56, 24, 32, 2}, {28, 32, 32, 1}, {28, 32, 64, 2},
  {14, 64, 64, 1}, {14, 64, 96, 1}, {14, 96, 96, 1}, {14, 96, 160, 2}, {7, 160, 160, 1}, {7, 160, 320, 1}} do
  local side, cin, cout, stride = table.unpack(block)
  local wide, seen = 6 * cin, {}
  for _, layer in ipairs(layers.mobilenet) do seen[layer.name] = true end
  for _, layer in ipairs{at224(side, cin, wide, 1, 1), at224(side, wide, wide, 3, stride, wide),
    at224(side // stride, wide, cout, 1, 1)} do
    if not seen[layer.name] then layers.mobilenet[#layers.mobilenet + 1] = layer end
  end
end
layers.mobilenet[#layers.mobilenet + 1] = at224(7, 320, 1280, 1, 1)

local function linear(name, n, cin, cout)
  return {name = name, kind = "linear", n = n, cin = cin, cout = cout, maps = {"forward", "input", "weight"}}
end

local first = conv("VAE conv1 1>32", "conv", 128, 28, 1, 32, 3, 1)

--- All convolutions of the VAE and those of the GAN's discriminator.
layers.convolutions = {
  first,
  conv("VAE conv2 32>32", "conv", 128, 28, 32, 32, 3, 1),
  conv("VAE conv3 32>64 /2", "conv", 128, 28, 32, 64, 3, 2),
  conv("VAE up1 64>32 x2", "transposed", 128, 14, 64, 32, 3, 2),
  conv("VAE up2 32>32", "transposed", 128, 28, 32, 32, 3, 1),
  conv("VAE up3 32>1", "transposed", 128, 28, 32, 1, 3, 1),
  conv("GAN conv1 1>64 /2", "conv", 64, 28, 1, 64, 5, 2),
  conv("GAN conv2 64>128 /2", "conv", 64, 14, 64, 128, 5, 2),
  conv("GAN conv3 128>256 /2", "conv", 64, 7, 128, 256, 5, 2),
}

--- The VAE's encoder and decoder. Its input needs no gradient.
local _, conv2, conv3, up1, up2, up3 = table.unpack(layers.convolutions)
layers.encoder = {
  setmetatable({maps = {"forward", "weight"}}, {__index = first}), conv2, conv3,
  linear("dense", 128, 12544, 128), linear("mean", 128, 128, 2), linear("logvar", 128, 128, 2),
}
layers.decoder = {linear("dense1", 128, 2, 128), linear("dense2", 128, 128, 12544), up1, up2, up3}
layers.step = table.move(layers.decoder, 1, #layers.decoder, #layers.encoder + 1, {table.unpack(layers.encoder)})

--- FLOP of one map; a multiply-add is two, and padding counts as work.
function layers.flop(layer)
  local places = layer.kind == "conv" and layer.out ^ 2 or layer.kind == "transposed" and layer.h ^ 2 or 1
  return 2 * layer.n * places * (layer.kernel or 1) ^ 2 * layer.cin * layer.cout / (layer.groups or 1)
end

--- Bytes of x, y and the weights in f32, each touched once.
function layers.bytes(layer)
  local x, y = layer.h ^ 2 * layer.cin, layer.out ^ 2 * layer.cout
  return 4 * (layer.n * (x + y) + layer.kernel ^ 2 * layer.cin * layer.cout / (layer.groups or 1))
end

--- FLOP of the VAE's training step at batch 128.
function layers.step_flop()
  local sum = 0
  for _, layer in ipairs(layers.step) do sum = sum + #layer.maps * layers.flop(layer) end
  return sum
end

local function geometry(layer, side, cin, cout)
  return ("n=%d h=%d w=%d cin=%d cout=%d kernel=%d stride=%d"):format(layer.n, side, side, cin, cout, layer.kernel,
    layer.stride)
end

--- For bench/ours/worker.lua.
function layers.our_request(layer, map, threads, seconds)
  return marea.format("conv kind=%s map=%s %s threads=%d seconds=%g", layer.kind, map,
    geometry(layer, layer.h, layer.cin, layer.cout), threads, seconds)
end

--- The request of a layer at 224x224 for so many images, of everybody.
function layers.vision_request(layer, map, batch)
  return ("conv kind=conv map=%s n=%d h=%d w=%d cin=%d cout=%d kernel=%d stride=%d groups=%d pad=%d"):format(map, batch,
    layer.h, layer.w, layer.cin, layer.cout, layer.kernel, layer.stride, layer.groups, layer.pad)
end

-- What a map of a transposed layer is for the convolution that it transposes.
local MIRRORED = {forward = "input", input = "forward", weight = "weight"}

--- For bench/peers/onednn.c, which knows convolutions only. Bias and ReLU belong to a layer's forward pass; the
--- gradient with respect to a convolution's input has no place for them. `own`: what it chooses by itself.
function layers.onednn_request(layer, map, threads, seconds, own)
  local fused = map == "forward" and 1 or 0
  local tail = marea.format("%sthreads=%d seconds=%g", own and "own=1 " or "", threads, seconds)
  if layer.kind == "linear" then
    return ("linear map=%s fused=%d n=%d cin=%d cout=%d %s"):format(map, fused, layer.n, layer.cin, layer.cout, tail)
  elseif layer.kind == "conv" then
    return ("conv map=%s fused=%d %s %s"):format(map, fused, geometry(layer, layer.h, layer.cin, layer.cout), tail)
  end
  return ("conv map=%s fused=0 %s %s"):format(MIRRORED[map], geometry(layer, layer.out, layer.cout, layer.cin), tail)
end

return layers
