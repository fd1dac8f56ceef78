-- SPDX-License-Identifier: MIT
--- Gradients against central differences in f64, and linear operators against their adjoints.
---
--- A function under test takes a list of tensors and returns a list of results. What is compared is the derivative of
--- L = sum over results of <v, y> for random v: along one random direction (its cost does not grow with the size,
--- after JAX's check_grads) or for every element of small inputs.
local core = require "marea.core"
local ops = core.ops

local gradcheck = {}

local EPS = 1e-6

local function random_like(t)
  return ops.uniform {shape = t.shape, low = -1, high = 1, dtype = "f64"}
end

local function is_real(t)
  return core.is_tensor(t) and (t.dtype == "f64" or t.dtype == "f32")
end

local function dot(a, b)
  return ops.sum(ops.mul(a, b))
end

local function weighted(results, weights)
  local total
  for i = 1, #results do
    if weights[i] then
      local term = dot(results[i], weights[i])
      total = total and ops.add(total, term) or term
    end
  end
  return total
end

local function value_of(f, inputs, weights)
  return weighted(f(inputs), weights):item()
end

local function with(inputs, i, t)
  local copy = {}
  for k, v in pairs(inputs) do copy[k] = v end
  copy[i] = t
  return copy
end

--- |a - n| against 1e-7 + 1e-5 |n|, and what the subtraction of two values of about |L| loses.
local function agree(analytic, numeric, magnitude, o)
  local tolerance = (o.atol or 1e-7) + (o.rtol or 1e-5) * math.abs(numeric) + 1e-9 * math.abs(magnitude)
  return math.abs(analytic - numeric) <= tolerance -- false for NaN
end

local function leaves_of(inputs, places)
  local leaves, copy = {}, {}
  for k, v in pairs(inputs) do copy[k] = v end
  for _, i in ipairs(places) do
    copy[i] = inputs[i]:detach():requires_grad_(true)
    leaves[#leaves + 1] = copy[i]
  end
  return leaves, copy
end

local function real_places(inputs, places)
  local real = {}
  for _, i in ipairs(places) do
    if is_real(inputs[i]) then real[#real + 1] = i end
  end
  return real
end

--- One random direction over all inputs at once.
local function check_direction(f, inputs, places, grads, weights, o)
  local up, down, analytic = {}, {}, 0
  for k, v in pairs(inputs) do up[k], down[k] = v, v end
  for n, i in ipairs(places) do
    local direction = random_like(inputs[i])
    if grads[n] then analytic = analytic + dot(grads[n], direction):item() end
    local step = ops.mul(direction, EPS)
    up[i], down[i] = ops.add(inputs[i], step), ops.sub(inputs[i], step)
  end
  local high, low = value_of(f, up, weights), value_of(f, down, weights)
  local numeric = (high - low) / (2 * EPS)
  if agree(analytic, numeric, high, o) then return true end
  return false, ("along a random direction: gradient %.12g, difference %.12g"):format(analytic, numeric)
end

--- Every element of every input.
local function check_elements(f, inputs, places, grads, weights, o)
  for n, i in ipairs(places) do
    local shape, size = inputs[i].shape, inputs[i]:numel()
    for k = 1, size do
      local unit = {}
      for j = 1, size do unit[j] = j == k and EPS or 0 end
      local step = core.tensor(unit, {dtype = "f64"}):reshape(shape)
      local high = value_of(f, with(inputs, i, ops.add(inputs[i], step)), weights)
      local low = value_of(f, with(inputs, i, ops.sub(inputs[i], step)), weights)
      local numeric = (high - low) / (2 * EPS)
      local analytic = grads[n] and grads[n]:contiguous():reshape({size})[k] or 0
      if not agree(analytic, numeric, high, o) then
        return false, ("input %s element %d: gradient %.12g, difference %.12g"):format(i, k, analytic, numeric)
      end
    end
  end
  return true
end

local SMALL = 12 -- elements of all inputs together that get the full Jacobian

--- Checks the gradient of f. `places` lists the inputs to look at; only those of real dtype count.
--- Returns true, or false and what differs; nil when nothing depends on a real input.
---@param f fun(inputs: table): table
---@param inputs table
---@param places integer[]
---@param options? {rtol: number?, atol: number?, elements: boolean?}
function gradcheck.check(f, inputs, places, options)
  local o = options or {}
  places = real_places(inputs, places)
  local leaves, copy = leaves_of(inputs, places)
  local results = f(copy)
  local weights, any = {}, false
  for i, y in ipairs(results) do
    weights[i] = is_real(y) and random_like(y) or false
    any = any or (weights[i] and y.requires_grad)
  end
  if not any then return nil end
  local grads = core.grad(weighted(results, weights), leaves, {})
  for n, leaf in ipairs(leaves) do
    local gradient = grads[n]
    if gradient and table.concat(gradient.shape, ",") ~= table.concat(leaf.shape, ",") then
      return false, ("input %s: gradient of another shape"):format(places[n])
    end
    if gradient and gradient.dtype ~= leaf.dtype then
      return false, ("input %s: gradient is %s"):format(places[n], gradient.dtype)
    end
  end
  local size = 0
  for _, i in ipairs(places) do size = size + inputs[i]:numel() end
  local check = o.elements and size <= SMALL and check_elements or check_direction
  return check(f, inputs, places, grads, weights, o)
end

--- Checks the gradient of the gradient: of h(x, v) = gradient of <v, f(x)> with respect to x.
--- Returns nil when f has no gradient, or one that depends neither on x nor on v.
function gradcheck.check_second(f, inputs, places, options)
  places = real_places(inputs, places)
  local _, probe = leaves_of(inputs, places)
  local all, checked, seeds = {}, {table.unpack(places)}, {}
  for k, v in pairs(inputs) do all[k] = v end
  for i, y in ipairs(f(probe)) do
    if is_real(y) and y.requires_grad then
      seeds[i] = "seed" .. i -- their places in `all`, apart from the inputs'
      all[seeds[i]] = random_like(y)
      checked[#checked + 1] = seeds[i]
    end
  end
  if not next(seeds) then return nil end

  local function gradient(x)
    local own, leaves, seed = {}, {}, {}
    for k in pairs(inputs) do own[k] = x[k] end
    for n, i in ipairs(places) do
      if not own[i].requires_grad then own[i] = own[i]:detach():requires_grad_(true) end
      leaves[n] = own[i]
    end
    for i, at in pairs(seeds) do
      seed[i] = x[at].requires_grad and x[at] or x[at]:detach():requires_grad_(true)
    end
    local out = {}
    for _, d in ipairs(core.grad(weighted(f(own), seed), leaves, {create_graph = true})) do
      if d then out[#out + 1] = d end
    end
    return out
  end
  return gradcheck.check(gradient, all, checked, options)
end

--- Adjoint identity of an operator that is linear in the inputs `places` together: <A x, v> = <x, A' v>.
function gradcheck.check_adjoint(f, inputs, places)
  places = real_places(inputs, places)
  local leaves, copy = leaves_of(inputs, places)
  local y = f(copy)[1]
  if not y.requires_grad then return nil end
  local v = random_like(y)
  local left_terms = ops.mul(y, v)
  local left = ops.sum(left_terms)
  local grads = core.grad(left, leaves, {retain_graph = true})
  local right, magnitude = 0, ops.sum(ops.abs(left_terms)):item()
  for n, leaf in ipairs(leaves) do
    if grads[n] then
      right = right + dot(grads[n], leaf):item()
      magnitude = magnitude + ops.sum(ops.abs(ops.mul(grads[n], leaf))):item()
    end
  end
  if math.abs(left:item() - right) <= 1e-12 * math.max(magnitude, 1) then return true end
  return false, ("<Ax, v> = %.17g, <x, A'v> = %.17g"):format(left:item(), right)
end

return gradcheck
