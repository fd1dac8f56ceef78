-- SPDX-License-Identifier: MIT
-- graphs model=PATH batch=1 shape=3,224,224: a network of ONNX in inference; its input x is (batch, shape).
local marea = require "marea"

local nets = {}

local function sizes(arguments)
  local shape = {arguments.batch}
  for size in tostring(arguments.shape):gmatch "%d+" do shape[#shape + 1] = math.tointeger(size) end
  return shape
end

return function(arguments)
  nets[arguments.model] = nets[arguments.model] or assert(marea.onnx.load(arguments.model)):evaluate()
  marea.seed(1)
  local net, x = nets[arguments.model], marea.normal(sizes(arguments))
  return function() marea.no_grad(net, x) end
end
