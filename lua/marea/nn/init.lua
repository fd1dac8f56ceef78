-- SPDX-License-Identifier: MIT
--- marea.nn: layers, containers, initializers, and the classes that scripts define.
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local conv = require "marea.nn.conv"

local nn = {
  class = module.class,
  parameter = module.parameter,
  is_module = module.is_module,
  init = require "marea.nn.initializers",
  Sequential = require "marea.nn.sequential",
  Linear = require "marea.nn.linear",
  Conv2d = conv.Conv2d,
  ConvTranspose2d = conv.ConvTranspose2d,
}

for name, class in pairs(require "marea.nn.layers") do nn[name] = class end
for name, class in pairs(require "marea.nn.norm") do nn[name] = class end
for name, class in pairs(require "marea.nn.activation") do
  if module.is_class(class) then nn[name] = class end
end

return check.strict(nn, "nn")
