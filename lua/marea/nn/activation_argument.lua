-- SPDX-License-Identifier: MIT
--- The `activation` argument of layers with weights. The common activations are part of the layer's own operator, the
--- others are an operator that runs after it.
local core = require "marea.core"
local check = require "marea.internal.check"
local ops = core.ops

local activation_argument = {}

local fused = {relu = true, leaky_relu = true, elu = true, sigmoid = true, tanh = true, softplus = true,
  relu6 = true}

local separate = {gelu = ops.gelu, silu = ops.silu, hard_swish = ops.hard_swish, softmax = ops.softmax,
  log_softmax = ops.log_softmax}

local choices = {none = true}
for name in pairs(fused) do choices[name] = true end
for name in pairs(separate) do choices[name] = true end

--- The names that the `activation` argument takes.
---@return string[]
function activation_argument.names() return check.names(choices) end

--- Attributes for the layer's operator and, when it cannot do the activation itself, the function to call after it.
---@return table attributes, function|nil after
function activation_argument.read(what, options)
  local attributes, chosen = {}, options.activation
  if chosen ~= "leaky_relu" then check.idle(what, options, {"slope"}, "without activation = \"leaky_relu\"") end
  if type(chosen) == "function" then return attributes, chosen end
  if chosen == nil or chosen == "none" then return attributes, nil end
  check.choice(what, "activation", chosen, choices)
  if separate[chosen] then return attributes, separate[chosen] end
  attributes.activation = chosen
  attributes.slope = options.slope and check.number(what, "slope", options.slope, 0)
  return attributes, nil
end

return activation_argument
