-- SPDX-License-Identifier: MIT
--- marea.nn: layers, containers, initializers, and the classes that scripts define.
local check = require "marea.internal.check"
local module = require "marea.nn.module"

local nn = {
  class = module.class,
  parameter = module.parameter,
  is_module = module.is_module,
  init = require "marea.nn.initializers",
}

-- The families of layers, a file each, which returns its classes by name. A new family is one more name here.
local FAMILIES = {"sequential", "linear", "embedding", "conv", "pool", "norm", "activation", "shape", "dropout",
  "recurrent", "attention", "transformer", "positions"}

for _, family in ipairs(FAMILIES) do
  for name, class in pairs(require("marea.nn." .. family)) do nn[name] = class end
end

return check.strict(nn, "nn")
