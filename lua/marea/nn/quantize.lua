-- SPDX-License-Identifier: MIT
--- net:quantize(): a copy of a network for inference whose large weights are bytes. A class of layers that has a method
--- `to_bytes` of its own makes its weights bytes by it, as buffers; what a script derives from such a class and
--- computes itself stays as it is.
local core = require "marea.core"
local amount = require "marea.internal.amount"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local ops = core.ops

local quantize = {}

quantize.LEAST = 16384 -- weights of a layer from which it pays for one row as for many: 128 x 128

local SIZES = {f64 = 8, i64 = 8, f32 = 4, bf16 = 2, f16 = 2, u8 = 1}

--- owner[name] := its bytes, owner[scale] := their scales, as buffers.
function quantize.weight(owner, name, scale)
  if (rawget(owner, "_buffers") or {})[scale] then return end -- it has been done
  local w = owner[name]
  if w.dtype == "bf16" or w.dtype == "f16" then w = w:to "f32" end
  local bytes, scales = ops.quantize_int8(w)
  module.class_methods().buffer(owner, name, bytes)
  module.class_methods().buffer(owner, scale, scales)
end

--- Bytes of all tensors under a module.
local function size_of(root)
  local total = 0
  for _, entry in ipairs(module.tensors(root)) do total = total + entry.tensor:numel() * SIZES[entry.tensor.dtype] end
  return total
end

--- A copy of a module or a plain table and all that is in it, private fields too; everything else is shared.
---@param seen table original -> copy
local function copy(value, seen)
  if seen[value] then return seen[value] end
  if core.is_tensor(value) then
    seen[value] = value:detach():clone():keep()
    return seen[value]
  end
  if not (module.is_module(value) or module.is_plain(value)) then return value end
  if module.is_module(value) and value.copied then -- what it computes with is not in its fields
    seen[value] = value:copied()
    return seen[value]
  end
  local new = {}
  seen[value] = new
  for key, field in next, value do new[key] = copy(field, seen) end
  return setmetatable(new, getmetatable(value))
end

--- options.skip as a function of path and layer; and the list as a set.
local function skips(skip)
  if skip == nil then return function() return false end end
  if type(skip) == "function" then return skip end
  if type(skip) ~= "table" or module.is_module(skip) then
    check.fail("quantize", "skip", "a list of paths and layers, or a function (path, layer)", skip)
  end
  local left_out = {}
  for i, entry in ipairs(skip) do
    if type(entry) ~= "string" and not module.is_module(entry) then
      check.fail("quantize", ("skip[%d]"):format(i), "a path or a layer", entry)
    end
    if left_out[entry] then
      check.raise("quantize: argument 'skip[%d]': expected each path and layer once, got %s again; take one out", i,
        type(entry) == "string" and ("'%s'"):format(entry) or "the layer")
    end
    left_out[entry] = true
  end
  for key in pairs(skip) do
    if math.type(key) ~= "integer" or key < 1 or key > #skip then
      check.raise("quantize: argument 'skip': expected a list, as in {%q}, got the key %s", key, check.describe(key))
    end
  end
  return function(path, layer) return left_out[path] or left_out[layer] end, left_out
end

--- Every path and layer of the list must be there.
local function check_list(root, left_out)
  local known = {}
  for _, entry in ipairs(module.modules(root)) do known[entry.path], known[entry.module] = true, true end
  for entry in pairs(left_out or {}) do
    if not known[entry] then
      check.raise("quantize: skip names %s, which is no part of the network",
        type(entry) == "string" and ("'%s'"):format(entry) or "a layer")
    end
  end
end

--- A layer whose weights are not drawn yet would draw others in the copy.
local function want_sizes(path, layer)
  if not (layer.weight_shape or layer.weights_for) or #module.tensors(layer) > 0 then return end
  check.raise("quantize: %s has no sizes yet: call the network once, or net:build(input shape), before",
    path == "" and "the module" or ("layer '%s'"):format(path))
end

--- How many weights to_bytes would change in a layer; nil: none.
local function weights_of(layer, convolutions)
  local class = getmetatable(layer)
  if not rawget(class, "to_bytes") or (class.convolves and not convolutions) then return nil end
  local n = 0
  for _, entry in ipairs(module.tensors(layer)) do
    if entry.tensor.dtype == "f64" then return nil end -- products of bytes are f32
    if entry.tensor.rank > 1 then n = n + entry.tensor:numel() end
  end
  return n
end

local Report = {}
Report.__index = Report
function Report:__tostring()
  return ("%d of %d layers in int8: %s -> %s"):format(self.quantized, self.layers, amount.bytes(self.before),
    amount.bytes(self.after))
end

--- See Module:quantize.
function quantize.run(root, options, ...)
  if not module.is_module(root) then check.fail("quantize", "self", "a module", root) end
  if (...) ~= nil then
    check.raise("quantize: argument 2: expected nothing behind the options, got %s"
      .. "; all go by name, as in net:quantize{least = 0}", check.describe((...)))
  end
  options = check.options("quantize", options, {"skip", "least", "convolutions"}, 0)
  local convolutions = check.boolean("quantize", "convolutions", options.convolutions, false)
  local least = check.integer("quantize", "least", options.least or quantize.LEAST, 0)
  local skip, left_out = skips(options.skip)
  check_list(root, left_out)
  local report = setmetatable({quantized = 0, layers = 0, before = size_of(root)}, Report)
  local chosen, left, seen = {}, {}, {}
  for _, entry in ipairs(module.modules(root)) do
    if not left[entry.module] and skip(entry.path, entry.module) then
      for _, inner in ipairs(module.modules(entry.module)) do left[inner.module] = true end
    end
  end
  for _, entry in ipairs(module.modules(root)) do -- after all are known: a layer may be in several places
    local layer = entry.module
    local n = weights_of(layer, convolutions)
    if n then report.layers = report.layers + 1 end
    if not left[layer] then
      want_sizes(entry.path, layer)
      if n and n >= least then chosen[#chosen + 1] = layer end
    end
  end
  local new = copy(root, seen)
  core.no_grad(function()
    for _, layer in ipairs(chosen) do
      if seen[layer]:to_bytes(quantize) ~= false then report.quantized = report.quantized + 1 end
    end
  end)
  new:freeze():evaluate()
  new._quantized = report.quantized > 0 or nil -- for optimizers
  report.after = size_of(new)
  return new, report
end

return quantize
