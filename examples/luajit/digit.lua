-- SPDX-License-Identifier: MIT
--- The digit at a point of the latent plane, by the decoder of examples/lighttpd or by a network of ONNX:
---
---   luajit examples/luajit/digit.lua examples/lighttpd/decoder.safetensors 2.7 0
---
--- The examples of the other hosts take this file as a module.
local marea = require "marea_ffi"
local op = marea.op
local LAYERS = {{"dense1", "relu"}, {"dense2", "relu"}, {"pixels", "sigmoid"}}
local digit = {}

--- A function of a point's tensor (1,2) that gives the image (28,28), of a file of either kind.
function digit.load(path)
  marea.set_threads(1)
  local net = path:find "%.onnx$" and marea.load_onnx(path)
  local weights = not net and marea.load(path)
  return function(x)
    if net then return op.reshape(net:run(x), {shape = {28, 28}}) end
    for _, layer in ipairs(LAYERS) do
      x = op.linear(x, weights[layer[1] .. ".weight"], weights[layer[1] .. ".bias"], {activation = layer[2]})
    end
    return op.reshape(x, {shape = {28, 28}})
  end
end

--- An image as lines of text, two characters a pixel.
function digit.lines(image)
  local lines, shades = {}, " .:-=+*#%@"
  for y, row in ipairs(image:totable()) do
    for x, value in ipairs(row) do row[x] = shades:sub(1 + value * 9.999, 1 + value * 9.999):rep(2) end
    lines[y] = table.concat(row)
  end
  return lines
end

if arg and arg[0] and arg[0]:find "digit%.lua$" then
  local point = marea.tensor{{tonumber(arg[2]), tonumber(arg[3])}}
  print(table.concat(digit.lines(digit.load(arg[1])(point)), "\n"))
end
return digit
