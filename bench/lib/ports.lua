-- SPDX-License-Identifier: MIT
--- Inputs of networks as a word: "x:f32:N,3,224,224" or, of several, "sound:f32:N,576;rate:i64:"; N is the batch.
--- peers/onnx_runtime.py reads the same.
local marea = require "marea"

local ports = {}

local WHOLE <const> = {i32 = "i64", i64 = "i64"} -- what they are carried as

local function parse(text, batch)
  local list = {}
  for name, dtype, sizes in text:gmatch "([^;:]+):(%w+):([^;]*)" do
    local shape, count = {}, 1
    for size in sizes:gmatch "[^,]+" do
      shape[#shape + 1] = size == "N" and batch or math.tointeger(size)
      count = count * shape[#shape]
    end
    list[#list + 1] = {name = name, dtype = dtype, shape = shape, count = count}
  end
  return list
end

--- Tensors by name. fill(port) -> the elements in order, a tensor of one dimension.
---@param text string
---@param batch integer
---@param fill fun(port: table): userdata
---@return table<string, userdata>
function ports.make(text, batch, fill)
  local inputs = {}
  for _, port in ipairs(parse(text, batch)) do
    local x = #port.shape == 0 and marea.full({1}, 16000) or fill(port)
    inputs[port.name] = x:to(WHOLE[port.dtype] or port.dtype):reshape(port.shape)
  end
  return inputs
end

--- 0, 1/8, .. 1, 0, .. or, for whole numbers, 0, 1, .. 250, 0, ..
function ports.pattern(port)
  local x = marea.arange(0, port.count - 1)
  return WHOLE[port.dtype] and x % 251 or x % 9 / 8
end

function ports.random(port)
  return WHOLE[port.dtype] and marea.randint({port.count}, 0, 250) or marea.normal{port.count}
end

return ports
