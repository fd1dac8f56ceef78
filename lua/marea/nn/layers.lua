-- SPDX-License-Identifier: MIT
--- Layers without parameters: shapes, pooling, dropout.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local ops = core.ops
local format = core.format

local layers = {}

---@class Flatten  (N, ...) -> (N, product of the rest), in h, w, c order for images
---@example nn.Flatten{}(marea.normal{2, 4, 4, 3})
local Flatten = module.class("Flatten")

function Flatten:init(options)
  self.name = check.options("Flatten", options, {"name"}).name
end

function Flatten:forward(x) return ops.flatten(x, {from = 2}) end -- luacheck: no unused args

---@class Reshape  nn.Reshape{14, 14, 64}: (N, ...) -> (N, 14, 14, 64); one size may be -1
---@example nn.Reshape{4, 4, 3}(marea.normal{2, 48})
local Reshape = module.class("Reshape")

function Reshape:init(options)
  options = check.options("Reshape", options, {"name"}, 7)
  self.name = options.name
  self.shape = core.shape{}
  for i, size in ipairs(options) do self.shape[i] = check.integer("Reshape", "shape", size, -1) end
end

function Reshape:forward(x)
  check.tensor("Reshape", "x", x)
  return x:reshape{x:size(1), table.unpack(self.shape)}
end

function Reshape:describe() return check.shape_text(self.shape) end

--- A layer over ops[operator] with a kernel in front: nn.MaxPool2d{2, stride = 2}.
local function window(class_name, name, first, names)
  local class, operator = module.class(class_name), ops[name]
  class.operator = name
  local known = table.move(names, 1, #names, 3, {first, "name"})
  function class:init(options)
    options = check.options(class_name, options, known, 1)
    self.name = options.name
    self.attributes = {[first] = check.pair(class_name, first, options[first] or options[1], 1)}
    for _, key in ipairs(names) do self.attributes[key] = options[key] end
  end
  function class:forward(x) return operator(x, self.attributes) end
  function class:describe()
    local text = first .. " " .. check.size_text(self.attributes[first])
    for _, key in ipairs(names) do
      if self.attributes[key] then text = ("%s, %s %s"):format(text, key, check.size_text(self.attributes[key])) end
    end
    return text
  end
  layers[class_name] = class
end

window("MaxPool2d", "max_pool2d", "kernel", {"stride", "padding"})
window("AvgPool2d", "avg_pool2d", "kernel", {"stride", "padding", "count_padding"})
window("UpsampleNearest2d", "upsample_nearest2d", "scale", {})
window("UpsampleBilinear2d", "upsample_bilinear2d", "scale", {})

--- A layer that makes one number of each channel: nn.GlobalAvgPool2d{}, (N, H, W, C) -> (N, C).
---@example nn.GlobalAvgPool2d{}(marea.normal{2, 4, 4, 3})
local function global_pool(class_name, operator)
  local class = module.class(class_name)
  function class:init(options) self.name = check.options(class_name, options, {"name"}).name end
  function class:forward(x) -- luacheck: no unused args
    check.tensor(class_name, "x", x)
    if x.rank ~= 4 then check.fail(class_name, "x", "images (N, H, W, C)", x) end
    return operator(x, {dims = {2, 3}})
  end
  layers[class_name] = class
end

global_pool("GlobalAvgPool2d", ops.mean)
global_pool("GlobalMaxPool2d", ops.max) -- a maximum that occurs several times shares its gradient

---@class Dropout  nn.Dropout{0.5}: in training, elements become 0 with probability p and the others x / (1 - p)
---@example nn.Dropout{0.5}(marea.ones{2, 6})
local Dropout = module.class("Dropout")

function Dropout:init(options)
  options = check.options("Dropout", options, {"p", "name"}, 1)
  self.name = options.name
  self.p = check.number("Dropout", "p", options.p or options[1] or 0.5, 0, 1)
end

function Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  return ops.dropout(x, self.p)
end

function Dropout:describe() return format("p %g", self.p) end

layers.Flatten, layers.Reshape, layers.Dropout = Flatten, Reshape, Dropout

return layers
