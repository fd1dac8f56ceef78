-- SPDX-License-Identifier: MIT
--- Pooling of images (N, H, W, C) and sequences (N, T, C), and upsampling of images.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local ops = core.ops

local layers = {}

--- Defines a layer that applies ops[name]. Its first argument, a size, needs no name: nn.MaxPool2d{2, stride = 2}.
local function window(class_name, name, first, names, fixed)
  local class, operator = module.class(class_name), ops[name]
  class.operator = name
  local known = table.move(names, 1, #names, 3, {first, "name"})
  function class:init(options)
    options = check.options(class_name, options, known, 1)
    self.name = options.name
    local size = check.first(class_name, first, options)
    self.attributes = {[fixed and "kernel" or first] = class_name:find "1d$"
      and check.integer(class_name, first, size, 1) or check.pair(class_name, first, size, 1)}
    if fixed then self.attributes[fixed] = true end
    for _, key in ipairs(names) do self.attributes[key] = options[key] end
  end
  function class:forward(x) return operator(x, self.attributes) end
  function class:describe()
    local text = first .. " " .. check.size_text(self.attributes[fixed and "kernel" or first])
    for _, key in ipairs(names) do
      if self.attributes[key] then text = ("%s, %s %s"):format(text, key, check.size_text(self.attributes[key])) end
    end
    return text
  end
  layers[class_name] = class
end

for _, rank in ipairs{"1d", "2d"} do
  window("MaxPool" .. rank, "max_pool" .. rank, "kernel", {"stride", "padding", "ceil_mode"})
  window("AvgPool" .. rank, "avg_pool" .. rank, "kernel", {"stride", "padding", "count_padding", "ceil_mode"})
  -- any size to this one: nn.AdaptiveAvgPool2d{7}
  window("AdaptiveMaxPool" .. rank, "max_pool" .. rank, "output_size", {}, "adaptive")
  window("AdaptiveAvgPool" .. rank, "avg_pool" .. rank, "output_size", {}, "adaptive")
end
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

return layers
