-- SPDX-License-Identifier: MIT
-- The VAE's decoder, and single convolutions, as files for the peers: ONNX models, and .npy files of
-- the decoder's weights in Marea's layouts.
local marea = require "marea"

local onnx_model = {}

-- ---- protocol buffers: a message is a string of fields (number << 3 | type, then the value) ----

local function varint(n)
  local bytes = {}
  repeat
    local low = n & 0x7f
    n = n >> 7
    bytes[#bytes + 1] = string.char(n > 0 and low | 0x80 or low)
  until n == 0
  return table.concat(bytes)
end

local function int(field, n) return varint(field << 3) .. varint(n) end

--- A string, or a message inside the message.
local function bytes(field, text) return varint(field << 3 | 2) .. varint(#text) .. text end

local function each(f, field, values)
  local parts = {}
  for i, v in ipairs(values) do parts[i] = f(field, v) end
  return table.concat(parts)
end

-- ---- ONNX (onnx.proto3): the few messages that a chain of layers needs ----

local FLOAT, INT64 = 1, 7 -- TensorProto.DataType
local INT, INTS = 2, 7 -- AttributeProto.AttributeType

local function raw(t)
  local path = os.tmpname()
  assert(marea.save_npy(t:contiguous(), path))
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  os.remove(path)
  return text:sub(-4 * t:numel()) -- behind NumPy's header
end

--- TensorProto
local function initializer(name, shape, kind, data)
  return each(int, 1, shape) .. int(2, kind) .. bytes(8, name) .. bytes(9, data)
end

--- NodeProto; attributes: integers or lists of them.
local function node(kind, inputs, output, attributes)
  local parts = {each(bytes, 1, inputs), bytes(2, output), bytes(4, kind)}
  for name, list in pairs(attributes or {}) do
    local one = type(list) == "number"
    parts[#parts + 1] = bytes(5, bytes(1, name) .. (one and int(3, list) .. int(20, INT)
      or each(int, 8, list) .. int(20, INTS)))
  end
  return table.concat(parts)
end

--- ValueInfoProto of f32, the first dimension being the batch.
local function value(name, shape)
  local dims = bytes(1, bytes(2, "N")) .. each(function(field, n) return bytes(field, int(1, n)) end, 1, shape)
  return bytes(1, name) .. bytes(2, bytes(1, int(1, FLOAT) .. bytes(2, dims)))
end

-- ---- the decoder ----

--- Flips both axes of a kernel: a transposed convolution of stride 1 is a convolution with it.
local function flip(w) return marea.flip(w, {1, 2}) end

--- The graph's parts as a chain: each layer reads what the one before has written.
local function build(decoder, plain)
  local nodes, weights, last = {}, {}, "z"
  local function constant(name, t)
    weights[#weights + 1] = initializer(name, t.shape, FLOAT, raw(t))
    return name
  end
  local function add(kind, inputs, attributes)
    local output = "y" .. #nodes + 1
    table.insert(inputs, 1, last)
    nodes[#nodes + 1], last = node(kind, inputs, output, attributes), output
  end
  local function linear(name, layer)
    add("Gemm", {constant(name .. ".weight", layer.weight), constant(name .. ".bias", layer.bias)})
    add("Relu", {})
  end
  local function deconv(name, layer, stride, activation)
    local convolution = plain and stride == 1
    local w = convolution and flip(layer.weight):permute(3, 4, 1, 2) or layer.weight:permute(4, 3, 1, 2)
    local pads = stride == 1 and {1, 1, 1, 1} or {0, 0, 1, 1} -- Keras' "same": top, left, bottom, right
    add(convolution and "Conv" or "ConvTranspose", {constant(name .. ".weight", w),
      constant(name .. ".bias", layer.bias)}, {kernel_shape = {3, 3}, strides = {stride, stride}, pads = pads})
    add(activation, {})
  end
  linear("dense1", decoder[1])
  linear("dense2", decoder[2])
  weights[#weights + 1] = initializer("image", {4}, INT64, ("<i8i8i8i8"):pack(0, 14, 14, 64))
  add("Reshape", {"image"})
  add("Transpose", {}, {perm = {0, 3, 1, 2}})
  deconv("up1", decoder[4], 2, "Relu")
  deconv("up2", decoder[5], 1, "Relu")
  deconv("up3", decoder[6], 1, "Sigmoid")
  return nodes, weights, last
end

--- ModelProto of a graph: IR version 8, operators 13.
local function write(path, graph)
  local file = assert(io.open(path, "wb"))
  assert(file:write(int(1, 8) .. bytes(7, graph) .. bytes(8, bytes(1, "") .. int(2, 13))))
  assert(file:close())
end

--- Writes the decoder for images (N, 1, 28, 28). plain: transposed convolutions of stride 1 become convolutions.
function onnx_model.save(decoder, path, plain)
  local nodes, weights, last = marea.no_grad(build, decoder, plain)
  write(path, each(bytes, 1, nodes) .. bytes(2, "decoder") .. each(bytes, 5, weights) .. bytes(11, value("z", {2}))
    .. bytes(12, value(last, {1, 28, 28})))
end

--- Writes one convolution with bias and ReLU for images z (N, cin, h, w); layer: of lib/layers.lua, at 224x224.
function onnx_model.save_conv(layer, path)
  local k, s, p, n = layer.kernel, layer.stride, layer.pad, layer.out
  local w = marea.uniform{shape = {layer.cout, layer.cin // layer.groups, k, k}, low = -1, high = 1}
  local nodes = {node("Conv", {"z", "w", "b"}, "y", {kernel_shape = {k, k}, strides = {s, s}, pads = {p, p, p, p},
    group = layer.groups}), node("Relu", {"y"}, "seen")}
  write(path, each(bytes, 1, nodes) .. bytes(2, "conv") .. bytes(5, initializer("w", w.shape, FLOAT, raw(w)))
    .. bytes(5, initializer("b", {layer.cout}, FLOAT, raw(marea.zeros(layer.cout))))
    .. bytes(11, value("z", {layer.cin, layer.h, layer.w})) .. bytes(12, value("seen", {layer.cout, n, n})))
end

--- Writes FOLDER/dense1.weight.npy and so on.
function onnx_model.save_weights(decoder, folder)
  for index, name in pairs{"dense1", "dense2", [4] = "up1", [5] = "up2", [6] = "up3"} do
    for _, part in ipairs{"weight", "bias"} do
      assert(marea.save_npy(decoder[index][part]:detach(), ("%s/%s.%s.npy"):format(folder, name, part)))
    end
  end
end

return onnx_model
