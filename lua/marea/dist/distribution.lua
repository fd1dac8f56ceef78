-- SPDX-License-Identifier: MIT
--- What distributions share: the definition of classes, reading of parameters, shapes, and arithmetic at the edges of
--- the support, such as 0 log 0.
---
--- A distribution is a table with its parameters (numbers, or tensors of f32 or f64 that broadcast), `batch_shape`,
--- `event_shape` and `dtype`, and a metatable of methods. Values have the shape (.., batch_shape, event_shape),
--- log_prob, entropy and the like (.., batch_shape). A distribution of numbers alone gives numbers where it can.
local core = require "marea.core"
local check = require "marea.internal.check"
local ops = core.ops
local format = core.format

local distribution = {}

---@class Distribution
---@field batch_shape integer[] what the parameters broadcast to
---@field event_shape integer[] of one value; {} but for vectors of classes
---@field dtype string f64 if a parameter is, else f32
local Distribution = {}

--- A sample that no gradient flows through.
---@param shape? integer[] how many, as dimensions in front of the distribution's shape
---@example dist.Normal(0, 1):sample{5}
function Distribution:sample(shape)
  return core.no_grad(self.rsample, self, shape)
end

--- Standard noise in the shape and dtype of a sample, for rsample.
---@param op fun(shape: integer[], attrs: table): userdata an operator such as marea.normal
---@param shape? integer[] sizes in front
function Distribution:noise(op, shape)
  return op(distribution.sample_shape(self, "rsample", shape), {dtype = self.dtype})
end

--- KL(self || other) as dist.kl gives it.
---@param other Distribution
---@param options? {samples: integer?}
---@return userdata
---@example dist.Normal(0, 1):kl(dist.Normal(1, 1))
function Distribution:kl(other, options)
  return require "marea.dist.kl".kl(self, other, options)
end

local MISSING = {
  rsample = "%s has no rsample: gradients do not flow through its values; use sample",
  log_prob = "%s has no log_prob in closed form",
  entropy = "%s has no entropy in closed form",
  cdf = "%s has no cdf in closed form",
  icdf = "%s has no icdf in closed form",
  mean = "%s has no mean in closed form",
  variance = "%s has no variance in closed form",
}

--- __index of instances: gives a method of the class or computes a property; raises for other fields.
local function reader(class, properties)
  return function(self, key)
    local value = class[key]
    if value ~= nil then return value end
    if properties[key] then return properties[key](self) end
    if type(key) ~= "string" or key:sub(1, 2) == "__" then return nil end
    if MISSING[key] then check.raise(MISSING[key], class.__name) end
    local known = {}
    for _, t in ipairs{class, Distribution, properties} do
      for name in pairs(t) do known[#known + 1] = name end
    end
    check.raise("%s has no field '%s'%s", class.__name, key, check.did_you_mean(key, known))
  end
end

--- Defines a class of distributions. Calling it with parameters, by name or in order, makes an instance.
---@param name string
---@param spec {names: string[], positional: integer?, ranges: table?, setup: function?, properties: table?} names:
---arguments; positional: how many of them need no name; ranges: of those that are numbers, as in {scale = {above = 0}};
---setup: fun(self, given), sets the instance's parameters, for classes whose parameters do not simply broadcast;
---properties: fields that are computed when they are read
---@example Shifted = dist.class("Shifted", {names = {"by"}})
---@example Shifted{by = 3}.by
function distribution.class(name, spec)
  check.string("class", "name", name)
  spec = check.options("class", spec, {"names", "positional", "ranges", "setup", "properties"})
  for _, key in ipairs{"names", "ranges", "properties"} do
    if type(spec[key] or {}) ~= "table" then check.fail("class", key, "a table", spec[key]) end
  end
  local names = spec.names or {}
  check.items("class", "names", names, "a list of names")
  local positional = spec.positional or #names
  local setup = spec.setup or distribution.broadcasting(name, names, spec.ranges)
  local class = {__name = name}
  class.__index = reader(class, spec.properties or {})
  local function construct(_, first, ...)
    local given = {first, ...}
    local single = select("#", ...) == 0
    if single and (first == nil or type(first) == "table") then given = first or {} end
    given = check.options(name, given, names, positional)
    local named = {}
    for i, key in ipairs(names) do
      named[key] = given[key]
      if named[key] == nil and i <= positional then named[key] = given[i] end
    end
    local self = setmetatable({event_shape = core.shape{}}, class)
    setup(self, named)
    return self
  end
  return setmetatable(class, {__index = Distribution, __call = construct})
end

function distribution.is_class(value)
  local meta = type(value) == "table" and getmetatable(value)
  return type(meta) == "table" and meta.__index == Distribution
end

-- ---- parameters ----

function distribution.is_real(value)
  return core.is_tensor(value) and core.float_dtypes[value.dtype] == true
end

--- A number (greater than `above`, from `low` to `high`) or a tensor of reals, whose values are not looked at.
---@param range? {above: number?, low: number?, high: number?}
function distribution.parameter(what, name, value, range)
  if distribution.is_real(value) then return value end
  local r = range or {}
  if type(value) ~= "number" then check.fail(what, name, "a tensor of f32 or f64, or a number", value) end
  check.number(what, name, value, r.low, r.high)
  if r.above and value <= r.above then check.fail(what, name, format("a number greater than %g", r.above), value) end
  return value
end

--- The shape that parameters broadcast to; {} for numbers.
---@param ... userdata|number|integer[] tensors, numbers, or shapes
function distribution.broadcast(what, ...)
  local shape = {}
  for _, value in ipairs{...} do
    local other = core.is_tensor(value) and value.shape or type(value) == "table" and value or {}
    local rank, both = math.max(#shape, #other), {}
    for i = 1, rank do
      local m, n = shape[#shape - rank + i] or 1, other[#other - rank + i] or 1
      if m ~= n and m ~= 1 and n ~= 1 then
        check.raise("%s: parameters %s and %s do not broadcast", what, check.shape_text(shape),
          check.shape_text(other))
      end
      both[i] = m == 1 and n or m
    end
    shape = both
  end
  return core.shape(shape)
end

--- f64 if one of the values is, else f32.
function distribution.dtype_of(...)
  for _, value in ipairs{...} do
    if core.is_tensor(value) and value.dtype == "f64" then return "f64" end
  end
  return "f32"
end

--- The setup of a class whose parameters are all required and broadcast.
---@param ranges? table<string, table> range of a parameter that is a number
function distribution.broadcasting(name, names, ranges)
  return function(self, given)
    local values = {}
    for i, key in ipairs(names) do
      values[i] = distribution.parameter(name, key, given[key], ranges and ranges[key])
      self[key] = values[i]
    end
    self.batch_shape = distribution.broadcast(name, table.unpack(values))
    self.dtype = distribution.dtype_of(table.unpack(values))
  end
end

--- A check of a parameter that holds vectors of classes, for probs_or_logits.
function distribution.check_classes(what)
  return function(name, value)
    if not distribution.is_real(value) or value.rank == 0 or value:size(-1) == 0 then
      check.fail(what, name, "a tensor (.., classes) of f32 or f64", value)
    end
  end
end

--- A shape without its last dimension.
---@param shape integer[]
function distribution.batch_of(shape) return core.shape(table.move(shape, 1, #shape - 1, 1, {})) end

--- Raises for probabilities below 0 or above `highest`: errors of later operators would name other numbers.
local function check_probs(what, probs, highest)
  if not core.is_tensor(probs) or probs:numel() == 0 then return end
  local low, high = core.no_grad(function() return probs:min():item(), probs:max():item() end)
  if low < 0 or high > highest then
    check.raise("%s: argument 'probs': expected numbers %s, got %g to %g", what,
      highest == 1 and "from 0 to 1" or "of at least 0", low, high)
  end
end

--- Puts the one of `probs` and `logits` that is given into the instance.
---@param self table
---@param given table
---@param check_value fun(name: string, value: any) raises what does not fit
---@param highest number of probs
function distribution.probs_or_logits(what, self, given, check_value, highest)
  if (given.probs == nil) == (given.logits == nil) then
    check.raise("%s: expected either probs or logits, by name, got %s", what, given.probs == nil and "none" or "both")
  end
  local key = given.probs ~= nil and "probs" or "logits"
  check_value(key, given[key])
  if key == "probs" then check_probs(what, given.probs, highest) end
  self[key] = given[key]
  return given[key]
end

--- Sizes in front, then those of the distribution.
---@param before? integer[]
function distribution.sample_shape(self, method, before)
  local what = getmetatable(self).__name .. ":" .. method
  if before ~= nil then check.items(what, "shape", before, "a list of sizes") end
  local all = {}
  for i, size in ipairs(before or {}) do all[i] = check.integer(what, "shape", size, 0) end
  table.move(self.batch_shape, 1, #self.batch_shape, #all + 1, all)
  return table.move(self.event_shape, 1, #self.event_shape, #all + 1, all)
end

-- ---- arithmetic of numbers and tensors ----

local EULER = 0.57721566490153286061 -- Euler's constant, minus digamma(1)

distribution.EULER = EULER

function distribution.log(x) return type(x) == "number" and math.log(x) or ops.log(x) end

function distribution.exp(x) return type(x) == "number" and math.exp(x) or ops.exp(x) end

function distribution.abs(x) return type(x) == "number" and math.abs(x) or ops.abs(x) end

function distribution.square(x) return x * x end

local INSIDE = {
  f32 = {min = 0x1p-126, max = 1 - 0x1p-24}, f64 = {min = 0x1p-1022, max = 1 - 0x1p-53},
  bf16 = {min = 0x1p-126, max = 1 - 0x1p-8}, f16 = {min = 0x1p-14, max = 1 - 0x1p-11},
}

--- Brings probabilities from [0, 1] into (0, 1), where logarithms are finite.
---@param p userdata|number
---@param dtype? string of a number
function distribution.inside(p, dtype)
  local limits = INSIDE[dtype or p.dtype]
  if type(p) == "number" then return math.min(math.max(p, limits.min), limits.max) end
  return ops.clamp(p, limits)
end

--- log(p / (1 - p)); infinite at 0 and 1.
function distribution.logit(p)
  if type(p) == "number" then return math.log(p) - math.log(1 - p) end
  return ops.log(p) - ops.log1p(-p)
end

--- A number or a tensor of reals as it is; integers in the distribution's dtype.
function distribution.value(self, method, name, value)
  if type(value) == "number" or distribution.is_real(value) then return value end
  local what = getmetatable(self).__name .. ":" .. method
  if not core.is_tensor(value) then check.fail(what, name, "a tensor or a number", value) end
  return ops.cast(value, self.dtype)
end

--- The same as a tensor, numbers in the distribution's dtype or, if that is larger, in that of the tensor beside them.
---@param beside? userdata
function distribution.tensor(self, method, name, value, beside)
  value = distribution.value(self, method, name, value)
  if type(value) ~= "number" then return value end
  return ops.full({}, value, beside and beside.dtype == "f64" and "f64" or self.dtype)
end

--- The distribution with numbers in its parameters taken as `dtype`.
function distribution.with_dtype(self, dtype)
  if self.dtype == dtype then return self end
  local copy = setmetatable({}, getmetatable(self))
  for key, value in next, self do copy[key] = value end
  copy.dtype = dtype
  return copy
end

--- f(x), but -infinity where the mask `outside` is 1: there f gets `safe` in place of x, so that no gradient is NaN.
---@param outside userdata
---@param x userdata
---@param safe number
---@param f fun(x: userdata): userdata
function distribution.log_inside(outside, x, safe, f)
  return ops.where(outside, -math.huge, f(ops.where(outside, safe, x)))
end

--- Elementwise `or` of masks: 1 where a or b is 1.
function distribution.either(a, b) return ops.maximum(a, b) end

--- weight * f(x), but 0 where the weight is 0 and x is `edge`, where f is infinite: 0 log 0 = 0. There f gets 0.5 in
--- place of x, so that no gradient is NaN.
---@param weight userdata
---@param x userdata
---@param edge number
---@param f fun(x: userdata): userdata
function distribution.weigh(weight, x, edge, f)
  local hidden = ops.mul(ops.eq(weight, 0), ops.eq(x, edge))
  return weight * f(ops.where(hidden, 0.5, x))
end

return distribution
