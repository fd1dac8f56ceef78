-- SPDX-License-Identifier: MIT
--- Networks that were made elsewhere, or are to run elsewhere: files of ONNX.
---
---   local net = assert(marea.onnx.load "model.onnx")
---   local scores = net(images)            -- what the file calls its inputs, in its order; or net{image = images}
---   assert(marea.onnx.save(net, "model.onnx", {image = images}))      -- see onnx/save.lua
---
--- A loaded network is a module: its weights have the names of the file, it can be trained, saved and loaded like any
--- other. Tensors have the layout of the file, which for images is (N, C, H, W), and positions count from 0 in it.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"

local onnx = {}

---@class Model  what marea.onnx.load gives: a module, called with the inputs of the file; its weights are in `weights`
local Model = module.class("Model")

--- The name of a weight in `weights`: names that begin with `_`, which the walk over a module passes over, get a letter
--- in front.
local function key_of(name, taken)
  local key = name:find "^_" and "w" .. name or name
  while taken[key] do key = "w" .. key end
  return key
end

--- The weights that are learned become parameters, other real ones belong to the state. `_read`: what the graph reads.
local function take_weights(self)
  self.weights, self._read = {}, {}
  for _, weight in ipairs(core.graph_weights(self._graph)) do
    local key = key_of(weight.name, self.weights)
    if weight.learned then self.weights[key] = module.parameter(weight.tensor)
    elseif weight.tensor.dtype:find "f" then self.weights[key] = weight.tensor:keep() end
    self._read[key] = self.weights[key]
  end
end

function Model:init(graph)
  self._graph = graph
  self._inputs, self._results = core.graph_ports(graph)
  take_weights(self)
end

--- The same network with weights of its own; see net:quantize().
function Model:copied()
  local new = Model(core.graph_copy(self._graph))
  new.training = self.training
  return new
end

--- What the network takes.
---@return {name: string, dtype: string, shape: integer[]?}[] ports in the order of the arguments; -1: any size
function Model:inputs() return self._inputs end

--- What it gives.
---@return {name: string, dtype: string, shape: integer[]?}[]
function Model:results() return self._results end

--- What the file says about itself: texts by name, as the letters that a network reads.
---@return table<string, string>
function Model:metadata() return core.graph_metadata(self._graph) end

local function names_of(ports)
  local names = {}
  for i, port in ipairs(ports) do names[i] = port.name end
  return names
end

--- " f32 (any, 3)"
local function describe_sizes(port)
  if not port.shape then return "" end
  local sizes = {}
  for i, size in ipairs(port.shape) do sizes[i] = size < 0 and "any" or tostring(size) end
  return (" %s (%s)"):format(port.dtype, table.concat(sizes, ", "))
end

--- The inputs by name, in the file's order.
local function by_name(self, given)
  local list, names, known = {}, names_of(self._inputs), {}
  for i, name in ipairs(names) do list[i], known[name] = given[name], true end
  for name in pairs(given) do
    if not known[name] then
      check.raise("Model: there is no input '%s'; the inputs are %s%s", tostring(name), check.list(names),
        check.did_you_mean(tostring(name), names))
    end
  end
  return list
end

--- The arguments as a list.
local function arguments(self, ...)
  local first, n = (...), select("#", ...)
  if check.is_plain(first) and n == 1 then return by_name(self, first) end
  if n ~= #self._inputs then
    check.raise("Model: expected %s, got %d arguments", check.list(names_of(self._inputs)), n)
  end
  return {...}
end

--- What to do about the commonest mistakes; "" for others.
local function advice(port, x)
  local want = port.shape
  if x.dtype ~= port.dtype then return ("; x:to %q converts"):format(port.dtype) end
  if x.rank + 1 == #want then return "; x:unsqueeze(1) makes a batch of one" end
  if x.rank == 4 and #want == 4 and want[2] > 0 and x:size(4) == want[2] then
    return "; x:permute(1, 4, 2, 3) puts the channels first"
  end
  return ""
end

local function check_input(port, x)
  if not core.is_tensor(x) then
    local number = type(x) == "number" and ("; marea.tensor(%s, {dtype = %q}) makes one"):format(x, port.dtype) or ""
    check.raise("Model: input '%s': expected a tensor%s, got %s%s", port.name, describe_sizes(port), check.describe(x),
      number)
  end
  if not port.shape then return end
  local fits = x.dtype == port.dtype and x.rank == #port.shape
  for i, size in ipairs(port.shape) do fits = fits and (size < 0 or size == x:size(i)) end
  if fits then return end
  check.raise("Model: input '%s': expected%s, got %s%s", port.name, describe_sizes(port), check.describe(x),
    advice(port, x))
end

--- The tensors in `weights` are those that the graph reads.
local function check_weights(self)
  for key, tensor in pairs(self._read) do
    if self.weights[key] ~= tensor then
      check.raise("Model: weights%s was replaced; the network reads the tensor that it was loaded with, which "
        .. "marea.no_grad(function() net.weights%s:copy_(t) end) changes", check.key_text(key), check.key_text(key))
    end
  end
end

local function checked(self, ...)
  local list = arguments(self, ...)
  for i, port in ipairs(self._inputs) do check_input(port, list[i]) end
  check_weights(self)
  return table.unpack(list, 1, #self._inputs)
end

function Model:forward(...) return core.graph_run(self._graph, checked(self, ...)) end

--- The list of Marea's operators that a call with these inputs runs, as text.
---@param ... userdata the inputs, as for a call
---@return string
function Model:program(...)
  return core.graph_text(self._graph, checked(self, ...))
end

local function describe_ports(ports)
  local list = {}
  for i, port in ipairs(ports) do list[i] = port.name .. describe_sizes(port) end
  return table.concat(list, ", ")
end

function Model:describe() return describe_ports(self._inputs) .. " -> " .. describe_ports(self._results) end

--- Loads a network from a file of ONNX, of operator sets 7 to 21. Weights that the file keeps in further files are read
--- from the folder of the file alone.
---@param path string
---@return table? model to be called with its inputs; nil when the file cannot be read
---@return string? message the reason: operators that are missing are named, all of them
---@example marea.onnx.load "model.onnx"
function onnx.load(path)
  local graph, message = core.onnx_load(path)
  if not graph then return nil, message end
  return Model(graph)
end

--- The same from the bytes of such a file, whose tensors are all in it.
---@param bytes string
---@return table? model nil for what is no model, or needs what is not supported
---@return string? message
---@example marea.onnx.load_string ""
function onnx.load_string(bytes)
  local graph, message = core.onnx_load_string(bytes)
  if not graph then return nil, message end
  return Model(graph)
end

--- Saves a network as a file of ONNX.
---@param net table|function a module, or a function of the inputs
---@param path string
---@param inputs table<string, userdata> examples by the names that the inputs get in the file
---@param options? {order: string[]?, results: string[]?, free: table?, opset: integer?, weights: table?} order: of the
---  network's arguments, where there are several; results: names of what it gives; free = {image = {1}}: dimensions of
---  any size, {image = {batch = 1, width = 3}} where several are one size; opset: 17 (initially) to 21; weights: a
---  module whose names the weights get, if net is a function
---@return boolean? done nil when the file cannot be written, or ONNX has no way to say an operator
---@return string? message which names all such operators
function onnx.save(net, path, inputs, options) return require "marea.onnx.save"(net, path, inputs, options) end

return onnx
