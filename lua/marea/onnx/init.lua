-- SPDX-License-Identifier: MIT
--- Networks that were made elsewhere: files of ONNX.
---
---   local net = assert(marea.onnx.load "model.onnx")
---   local scores = net(images)            -- what the file calls its inputs, in its order; or net{image = images}
---
--- A loaded network is a module: its weights have the names of the file, it can be trained, saved and loaded like any
--- other. Tensors have the layout of the file, which for images is (N, C, H, W), and positions count from 0 in it.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"

local onnx = {}

---@class Model  what marea.onnx.load gives: a module with `inputs` and `results`, lists of {name =, dtype =, shape =}
local Model = module.class("Model")

--- Weights of names that begin with `_`, which the walk over a module would pass over, get a letter in front.
local function key_of(name) return name:find "^_" and "w" .. name or name end

function Model:init(graph)
  self._graph = graph
  self._inputs, self._results = core.graph_ports(graph)
  self.weights = {}
  for _, weight in ipairs(core.graph_weights(graph)) do
    local key = key_of(weight.name)
    if weight.learned then self.weights[key] = module.parameter(weight.tensor)
    elseif weight.tensor.dtype:find "f" then self.weights[key] = weight.tensor:keep() end
  end
end

--- What the network takes.
---@return {name: string, dtype: string, shape: integer[]?}[] ports in the order of the arguments; -1: any size
function Model:inputs() return self._inputs end

--- What it gives.
---@return {name: string, dtype: string, shape: integer[]?}[]
function Model:results() return self._results end

--- The inputs by name, in the file's order.
local function by_name(self, given)
  local list, names = {}, {}
  for i, port in ipairs(self._inputs) do
    names[i] = port.name
    if given[port.name] == nil then check.fail("Model", port.name, "a tensor", nil) end
    list[i] = given[port.name]
  end
  for name in pairs(given) do
    local known = false
    for _, other in ipairs(names) do known = known or other == name end
    if not known then
      check.raise("Model: there is no input '%s'; the inputs are %s%s", tostring(name), check.list(names),
        check.did_you_mean(tostring(name), names))
    end
  end
  return list
end

--- The arguments as a list of tensors.
local function arguments(self, ...)
  local first, n = (...), select("#", ...)
  if check.is_plain(first) and n == 1 then return by_name(self, first) end
  if n ~= #self._inputs then check.raise("Model: expected %d inputs, got %d", #self._inputs, n) end
  return {...}
end

function Model:forward(...)
  return core.graph_run(self._graph, table.unpack(arguments(self, ...), 1, #self._inputs))
end

--- The list of Marea's operators that a call with these inputs runs, as text.
---@param ... userdata the inputs, as for a call
---@return string
function Model:program(...)
  return core.graph_text(self._graph, table.unpack(arguments(self, ...), 1, #self._inputs))
end

local function describe_port(port)
  local sizes = {}
  for i, size in ipairs(port.shape or {}) do sizes[i] = size < 0 and "any" or tostring(size) end
  return port.name .. (port.shape and " (" .. table.concat(sizes, ", ") .. ")" or "")
end

function Model:describe()
  local from, to = {}, {}
  for i, port in ipairs(self._inputs) do from[i] = describe_port(port) end
  for i, port in ipairs(self._results) do to[i] = describe_port(port) end
  return table.concat(from, ", ") .. " -> " .. table.concat(to, ", ")
end

--- Loads a network from a file of ONNX, of operator sets 7 to 21. Weights that the file keeps in further files are read
--- from the folder of the file alone.
---@param path string
---@return table? model a module, to be called with its inputs; nil when the file is missing or malformed, or needs an
---   operator that is not supported
---@return string? message which names all such operators
---@example marea.onnx.load "model.onnx"
function onnx.load(path)
  local graph, message = core.onnx_load(path)
  if not graph then return nil, message end
  return Model(graph)
end

return onnx
