-- SPDX-License-Identifier: MIT
--- The layers that are measured one by one, their FLOP and bytes, and the requests for them.
local marea = require "marea"

local layers = {}

local function conv(name, kind, n, side, cin, cout, kernel, stride)
  local out = kind == "transposed" and side * stride or (side + stride - 1) // stride
  return {name = name, kind = kind, n = n, h = side, w = side, cin = cin, cout = cout, kernel = kernel,
    stride = stride, out = out, maps = {"forward", "input", "weight"}}
end

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
  return 2 * layer.n * places * (layer.kernel or 1) ^ 2 * layer.cin * layer.cout
end

--- Bytes of x, y and the weights in f32, each touched once.
function layers.bytes(layer)
  local x, y = layer.h ^ 2 * layer.cin, layer.out ^ 2 * layer.cout
  return 4 * (layer.n * (x + y) + layer.kernel ^ 2 * layer.cin * layer.cout)
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
