-- SPDX-License-Identifier: MIT
--- Layers that are random in training.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local ops = core.ops
local format = core.format

---@class Dropout  nn.Dropout{0.5}: in training, elements become 0 with probability p and the others x / (1 - p)
---@example nn.Dropout{0.5}(marea.ones{2, 6})
local Dropout = module.class("Dropout")

function Dropout:init(options)
  options = check.options("Dropout", options, {"p", "name"}, 1)
  self.name = options.name
  self.p = check.number("Dropout", "p", check.first("Dropout", "p", options) or 0.5, 0, 1)
end

function Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  return ops.dropout(x, self.p)
end

function Dropout:describe() return format("p %g", self.p) end

return {Dropout = Dropout}
