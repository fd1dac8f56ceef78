-- SPDX-License-Identifier: MIT
--- Initial values of weights: functions (shape, fan_in, fan_out, dtype) -> tensor. Layers take one by name
--- (init = "he_normal") or as a function. uniform, normal and constant make such a function from their numbers:
--- init = nn.init.uniform(-0.05, 0.05).
local core = require "marea.core"
local check = require "marea.internal.check"
local ops = core.ops

local init = {}

--- Fans of a weight by Keras' rule: (in, out) for a matrix, (KH, KW, in, out) for a convolution's kernel, where each
--- fan counts the kernel's positions.
---@param shape integer[]
---@return integer fan_in, integer fan_out
---@example nn.init.fans{3, 3, 16, 32}
function init.fans(shape)
  check.sizes("fans", "shape", shape)
  if #shape == 0 then return 1, 1 end
  if #shape == 1 then return shape[1], shape[1] end
  local positions = 1
  for i = 1, #shape - 2 do positions = positions * shape[i] end
  return positions * shape[#shape - 1], positions * shape[#shape]
end

--- The fans that an initializer is given, or those of the rule, at least 1.
local function fans_or(what, shape, fan_in, fan_out)
  local rule_in, rule_out = init.fans(check.sizes(what, "shape", shape))
  return math.max(check.number(what, "fan_in", fan_in or rule_in, 0), 1),
    math.max(check.number(what, "fan_out", fan_out or rule_out, 0), 1)
end

--- Truncated at two standard deviations and widened so that the standard deviation is `std` (Keras).
local function truncated_normal(shape, std, dtype)
  local TAIL, WIDEN = 0.022750131948179195, 1 / 0.87962566103423978 -- Phi(-2), 1 / std of what lies between
  return core.no_grad(function()
    local u = ops.uniform(shape, TAIL, 1 - TAIL, dtype)
    return u:norm_icdf():mul_(std * WIDEN)
  end)
end

--- U(-limit, limit), limit = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).
---@param shape integer[]
---@param fan_in? integer that of the shape when left out
---@param fan_out? integer
---@param dtype? string
---@return userdata
---@example nn.init.glorot_uniform{4, 2}
function init.glorot_uniform(shape, fan_in, fan_out, dtype)
  fan_in, fan_out = fans_or("init.glorot_uniform", shape, fan_in, fan_out)
  local limit = math.sqrt(6 / (fan_in + fan_out))
  return ops.uniform(shape, -limit, limit, dtype or "f32")
end

--- Truncated normal, std = sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010).
---@param shape integer[]
---@param fan_in? integer that of the shape when left out
---@param fan_out? integer
---@param dtype? string
---@return userdata
---@example nn.Linear{4, 2, init = "glorot_normal"}.weight
function init.glorot_normal(shape, fan_in, fan_out, dtype)
  fan_in, fan_out = fans_or("init.glorot_normal", shape, fan_in, fan_out)
  return truncated_normal(shape, math.sqrt(2 / (fan_in + fan_out)), dtype or "f32")
end

--- U(-limit, limit), limit = sqrt(6 / fan_in) (He et al. 2015).
---@param shape integer[]
---@param fan_in? integer that of the shape when left out
---@param fan_out? integer
---@param dtype? string
---@return userdata
---@example nn.Linear{4, 2, init = "he_uniform"}.weight
function init.he_uniform(shape, fan_in, fan_out, dtype)
  fan_in = fans_or("init.he_uniform", shape, fan_in, fan_out)
  local limit = math.sqrt(6 / fan_in)
  return ops.uniform(shape, -limit, limit, dtype or "f32")
end

--- Truncated normal, std = sqrt(2 / fan_in) (He et al. 2015).
---@param shape integer[]
---@param fan_in? integer that of the shape when left out
---@param fan_out? integer
---@param dtype? string
---@return userdata
---@example nn.init.he_normal{4, 2}
function init.he_normal(shape, fan_in, fan_out, dtype)
  fan_in = fans_or("init.he_normal", shape, fan_in, fan_out)
  return truncated_normal(shape, math.sqrt(2 / fan_in), dtype or "f32")
end

--- The rows of `a` (f64, at most as many as columns) made orthonormal by Gram-Schmidt, twice for accuracy.
local function orthonormal_rows(a)
  for i = 1, a:size(1) do
    local row = a:narrow(1, i, 1)
    local before = i > 1 and a:narrow(1, 1, i - 1)
    for _ = 1, before and 2 or 0 do
      row:sub_(row:matmul(before, {transpose_b = true}):matmul(before))
    end
    row:div_(row:square():sum():sqrt())
  end
  return a
end

--- Random orthogonal matrix: all dimensions but the last are taken as rows; the shorter of rows and columns are
--- orthonormal (Saxe et al. 2013).
---@param shape integer[]
---@param dtype? string
---@return userdata
---@example q = nn.init.orthogonal{3, 3}
---@example q:matmul(q:transpose(1, 2))
function init.orthogonal(shape, _, _, dtype)
  check.sizes("orthogonal", "shape", shape)
  local columns = shape[#shape] or 1
  local rows = 1
  for i = 1, #shape - 1 do rows = rows * shape[i] end
  return core.no_grad(function()
    local a = ops.normal{math.min(rows, columns), math.max(rows, columns), dtype = "f64"}
    a = orthonormal_rows(a)
    if rows > columns then a = a:transpose(1, 2) end
    return a:contiguous():reshape(shape):cast(dtype or "f32")
  end)
end

--- Function for U(low, high); Keras' limits when left out.
---@param low? number
---@param high? number
---@return fun(shape: integer[], ...: any): userdata
---@example nn.Linear{4, 2, init = nn.init.uniform(-0.1, 0.1)}.weight
function init.uniform(low, high)
  low, high = low or -0.05, high or 0.05
  return function(shape, _, _, dtype) return ops.uniform(shape, low, high, dtype or "f32") end
end

--- Function for N(mean, std^2); Keras' numbers when left out.
---@param mean? number
---@param std? number
---@return fun(shape: integer[], ...: any): userdata
---@example nn.Linear{4, 2, init = nn.init.normal(0, 0.02)}.weight
function init.normal(mean, std)
  mean, std = mean or 0, std or 0.05
  return function(shape, _, _, dtype) return ops.normal(shape, mean, std, dtype or "f32") end
end

--- Function for one value everywhere.
---@param value number
---@return fun(shape: integer[], ...: any): userdata
---@example nn.Linear{4, 2, bias_init = nn.init.constant(1)}.bias
function init.constant(value)
  check.number("constant", "value", value)
  return function(shape, _, _, dtype) return ops.full(shape, value, dtype or "f32") end
end

--- All 0.
---@param shape integer[]
---@param dtype? string
---@return userdata
---@example nn.init.zeros{2}
function init.zeros(shape, _, _, dtype) return ops.full(shape, 0, dtype or "f32") end

--- All 1.
---@param shape integer[]
---@param dtype? string
---@return userdata
---@example nn.init.ones{2}
function init.ones(shape, _, _, dtype) return ops.full(shape, 1, dtype or "f32") end

local named = {
  glorot_uniform = init.glorot_uniform, glorot_normal = init.glorot_normal, he_uniform = init.he_uniform,
  he_normal = init.he_normal, orthogonal = init.orthogonal, uniform = init.uniform(), normal = init.normal(),
  zeros = init.zeros, ones = init.ones,
}

--- The names that the `init` argument takes.
---@return string[]
---@example nn.init.names()
function init.names() return check.names(named) end

--- The function that a layer's `init` stands for: a name or a function.
---@param what string the function, for messages
---@param name string the argument, for messages
---@param value string|function
---@return function
---@example nn.init.find("Linear", "init", "he_normal")
function init.find(what, name, value)
  if type(value) == "function" then return value end
  return check.choice(what, name, value, named)
end

return check.strict(init, "nn.init")
