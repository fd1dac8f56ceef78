-- SPDX-License-Identifier: MIT
--- Layers that change the shape alone.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local ops = core.ops

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

return {Flatten = Flatten, Reshape = Reshape}
