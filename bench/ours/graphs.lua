-- SPDX-License-Identifier: MIT
-- graphs model=PATH batch=1 inputs=x:f32:N,3,224,224: a network of ONNX in inference; see lib/ports.lua.
local marea = require "marea"
local ports = require "lib.ports"

local nets = {}

return function(arguments)
  nets[arguments.model] = nets[arguments.model] or assert(marea.onnx.load(arguments.model)):evaluate()
  marea.seed(1)
  local net, x = nets[arguments.model], ports.make(arguments.inputs, arguments.batch, ports.random)
  return function() marea.no_grad(net, x) end
end
