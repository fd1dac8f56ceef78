-- SPDX-License-Identifier: MIT
--- Compares tensors, nested tables and numbers element by element in plain Lua, so that a comparison does not rest
--- on the operators that are being tested.
local core = require "marea.core"

local allclose = {}

local function append(list, value)
  if type(value) == "table" then
    for i = 1, #value do append(list, value[i]) end
  else
    list[#list + 1] = value
  end
  return list
end

--- Elements of a tensor, nested table or number in row-major order.
function allclose.flat(value)
  if not core.is_tensor(value) then return append({}, value) end
  local n = value:numel()
  if n == 0 then return {} end
  return core.no_grad(function() return value:detach():reshape({n}):totable() end)
end

local function shape_text(shape)
  return "(" .. table.concat(shape, ", ") .. ")"
end

local function same_shape(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do if a[i] ~= b[i] then return false end end
  return true
end

--- Bits of a number as a comparable value: tells -0 from 0, takes every NaN for the same.
local function bits(x)
  if x ~= x then return "nan" end
  return string.pack("n", x)
end

--- True when |a - e| <= atol + rtol |e| for all elements (NaN agrees with NaN, an infinity with itself).
--- Else false and a text with the worst element. `exact` asks for the same bits.
---@param actual any tensor, nested table or number
---@param expected any the same
---@param options? {rtol: number?, atol: number?, exact: boolean?, scaled: boolean?} scaled: |e| is the largest
---element's, for results whose small elements come from cancellation
function allclose.check(actual, expected, options)
  local o = options or {}
  local rtol, atol = o.rtol or 1.3e-6, o.atol or 1e-5
  if core.is_tensor(actual) and core.is_tensor(expected) and not same_shape(actual.shape, expected.shape) then
    return false, ("shape %s instead of %s"):format(shape_text(actual.shape), shape_text(expected.shape))
  end
  local a, e = allclose.flat(actual), allclose.flat(expected)
  if #a ~= #e then return false, ("%d elements instead of %d"):format(#a, #e) end
  local scale = 0
  if o.scaled then
    for i = 1, #e do
      local m = math.abs(e[i])
      if m > scale and m < math.huge then scale = m end
    end
  end
  local worst, where = 0, nil
  for i = 1, #e do
    local x, y = a[i], e[i]
    local excess
    if o.exact then
      excess = bits(x) == bits(y) and 0 or 1
    elseif x == y or (x ~= x and y ~= y) then
      excess = 0
    else
      excess = math.abs(x - y) / (atol + rtol * (o.scaled and scale or math.abs(y)))
      if excess ~= excess then excess = math.huge end
      if excess <= 1 then excess = 0 end
    end
    if excess > worst then worst, where = excess, i end
  end
  if not where then return true end
  return false, ("element %d of %d: %.9g instead of %.9g (%.3g times the tolerance)"):format(where, #e, a[where],
    e[where], worst)
end

--- The same as an assertion; `what` says what is compared.
function allclose.assert(actual, expected, options, what)
  local ok, message = allclose.check(actual, expected, options)
  if not ok then error((what and what .. ": " or "") .. message, 2) end
end

--- Asserts that two tensors have the same shape, dtype and bits.
function allclose.assert_same(actual, expected, what)
  if core.is_tensor(actual) and core.is_tensor(expected) and actual.dtype ~= expected.dtype then
    error(("%s: dtype %s instead of %s"):format(what or "", actual.dtype, expected.dtype), 2)
  end
  local ok, message = allclose.check(actual, expected, {exact = true})
  if not ok then error((what and what .. ": " or "") .. message, 2) end
end

return allclose
