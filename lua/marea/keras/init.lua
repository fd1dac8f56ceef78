-- SPDX-License-Identifier: MIT
--- Networks and weights of Keras, 2 and 3: files .keras, .h5 and .weights.h5.
---
---   local net = assert(marea.keras.load "model.keras")           -- the network, from its configuration
---   local y = net(x)                                             -- as model(x, training=False) gives it
---   local weights = assert(marea.keras.weights "net.weights.h5") -- tensors by name, for a network of your own
---   net:load_state(weights, {from = "keras"})
---
--- It reads HDF5 by the optional module marea.hdf5, which is there where Debian's libhdf5-dev was when Marea was built.
local core = require "marea.core"
local check = require "marea.internal.check"
local file = require "marea.keras.file"

local keras = {}

--- The network of a file .keras or .h5, in evaluation mode: a module whose layers are in net.layers, by Keras' names.
--- It can be trained, changed and saved like any other. Images are (N, H, W, C) and words count from 0, as in Keras.
---@param path string
---@return table? net nil when the file cannot be read, or needs what is not supported
---@return string? message which names all such layers
---@example marea.keras.load "missing.keras"
function keras.load(path)
  local content, message = file.read("keras.load", path)
  if not content then return core.failed(message) end
  local net, problem = file.attempt("keras.load", path, function()
    if not content.config then file.fail "it has weights and no network (marea.keras.weights reads them)" end
    return require "marea.keras.model"(content)
  end)
  if not net then return core.failed(problem) end
  return net
end

--- The weights of any file of Keras by their names, "dense/kernel"; .weights.h5 has numbers, "dense/0". A network of
--- the same layers with the same names takes them: net:load_state(weights, {from = "keras"}), or net:load_keras(path).
---@param path string
---@return table<string, userdata>? weights nil when the file cannot be read
---@return string? message
---@example marea.keras.weights "missing.weights.h5"
function keras.weights(path)
  local content, message = file.read("keras.weights", path)
  if not content then return core.failed(message) end
  local state = {}
  for _, weight in ipairs(content.weights) do state[weight.name] = weight.tensor end
  return state
end

return check.strict(keras, "keras")
