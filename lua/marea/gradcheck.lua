-- SPDX-License-Identifier: MIT
--- marea.gradcheck: the gradient of a function against central differences, in f64.
---
---   print(marea.gradcheck(function(x) return x:exp():sum() / x:max() end, marea.normal{3, 4}))
---   print(marea.gradcheck(net, x))                                  -- its parameters too
---   assert(marea.gradcheck{loss, x, target, rtol = 1e-4}.ok)
---
--- What is compared is the derivative of L = the sum over results of <v, y> for random weights v (1 for a single
--- number): for some elements of each input, and along a random direction over all elements, which covers the others.
--- Random operators draw the same numbers each time. At a kink of the function (relu at 0) differences tell nothing.
---@example marea.gradcheck(function(x) return x:exp():sum() / x:max() end, marea.normal{3, 4})
local core = require "marea.core"
local amount = require "marea.internal.amount"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local undo = require "marea.internal.undo"
local ops = core.ops
local format = core.format

local gradcheck = {}

local EPS = 1e-6 -- step of the differences
local ELEMENTS = 8 -- elements of each input that are compared
local OWN = 1 << 40 -- offset of the position of our own random numbers from those that the function draws

-- ---- what is differentiated: functions of a list of tensors that return a list ----

local function random_like(t) return ops.uniform{shape = t.shape, low = -1, high = 1, dtype = "f64"} end

local function is_real(t) return core.is_tensor(t) and core.float_dtypes[t.dtype] end

local function dot(a, b) return ops.sum(ops.mul(a, b)) end

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

local function copy_of(list)
  local copy = {}
  for k, v in pairs(list) do copy[k] = v end
  return copy
end

local function leaves_of(inputs, places)
  local leaves, copy = {}, copy_of(inputs)
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

--- Gradients of <weights, f(inputs)> for the inputs at `places`, false where it does not depend on one; and the
--- weights. nil when it depends on none.
local function gradients_of(f, inputs, places)
  local leaves, copy = leaves_of(inputs, places)
  local results, weights, any = f(copy), {}, false
  for i, y in ipairs(results) do
    weights[i] = is_real(y) and (y:numel() == 1 and ops.full(y.shape, 1, "f64") or random_like(y))
    any = any or (weights[i] and y.requires_grad)
  end
  if not any then return nil end
  return core.grad(weighted(results, weights), leaves, {}), weights
end

--- Derivative by central differences as all inputs in `steps` (place -> tensor) move along, and L itself.
local function difference(f, inputs, steps, weights)
  local up, down = copy_of(inputs), copy_of(inputs)
  for i, step in pairs(steps) do
    step = ops.mul(step, EPS)
    up[i], down[i] = ops.add(inputs[i], step), ops.sub(inputs[i], step)
  end
  local high, low = weighted(f(up), weights):item(), weighted(f(down), weights):item()
  return (high - low) / (2 * EPS), high
end

--- How far apart they may be: 1e-7 + 1e-5 |n|, and what the subtraction of two values of about |L| loses.
local function tolerance(numeric, magnitude, o)
  return (o.atol or 1e-7) + (o.rtol or 1e-5) * math.abs(numeric) + 1e-9 * math.abs(magnitude)
end

local function agree(analytic, numeric, magnitude, o)
  return math.abs(analytic - numeric) <= tolerance(numeric, magnitude, o) -- false for NaN
end

--- A tensor like t with a 1 at element k.
local function unit_like(t, k)
  local unit = ops.full({t:numel()}, 0, "f64")
  unit[k] = 1
  return unit:reshape(t.shape)
end

local function element(gradient, k)
  return gradient and gradient:contiguous():reshape({gradient:numel()})[k] or 0
end

-- ---- one answer, for operators ----

--- One random direction over all inputs at once: its cost does not grow with their size.
local function check_direction(f, inputs, places, grads, weights, o)
  local steps, analytic = {}, 0
  for n, i in ipairs(places) do
    steps[i] = random_like(inputs[i])
    if grads[n] then analytic = analytic + dot(grads[n], steps[i]):item() end
  end
  local numeric, magnitude = difference(f, inputs, steps, weights)
  if agree(analytic, numeric, magnitude, o) then return true end
  return false, format("along a random direction: gradient %.12g, difference %.12g", analytic, numeric)
end

--- Every element of every input.
local function check_elements(f, inputs, places, grads, weights, o)
  for n, i in ipairs(places) do
    for k = 1, inputs[i]:numel() do
      local numeric, magnitude = difference(f, inputs, {[i] = unit_like(inputs[i], k)}, weights)
      local analytic = element(grads[n], k)
      if not agree(analytic, numeric, magnitude, o) then
        return false, format("input %s element %d: gradient %.12g, difference %.12g", i, k, analytic, numeric)
      end
    end
  end
  return true
end

local SMALL = 12 -- elements of all inputs together that get the full Jacobian

local function check_kinds(inputs, places, grads)
  for n, i in ipairs(places) do
    local gradient = grads[n]
    if gradient and gradient.shape ~= inputs[i].shape then
      return false, ("input %s: gradient of another shape"):format(i)
    end
    if gradient and gradient.dtype ~= inputs[i].dtype then
      return false, ("input %s: gradient is %s"):format(i, gradient.dtype)
    end
  end
  return true
end

--- Checks the gradient of f, a function of a list of f64 tensors that returns a list, along one random direction.
--- `places` lists the inputs to look at; only those of real dtype count.
--- Returns true, or false and what differs; nil when nothing depends on a real input.
---@param f fun(inputs: table): table
---@param inputs table
---@param places integer[]
---@param options? {rtol: number?, atol: number?, elements: boolean?} elements: all of them when they are few
function gradcheck.check(f, inputs, places, options)
  local o = options or {}
  places = real_places(inputs, places)
  local grads, weights = gradients_of(f, inputs, places)
  if not grads then return nil end
  local ok, message = check_kinds(inputs, places, grads)
  if not ok then return false, message end
  local size = 0
  for _, i in ipairs(places) do size = size + inputs[i]:numel() end
  local compare = o.elements and size <= SMALL and check_elements or check_direction
  return compare(f, inputs, places, grads, weights, o)
end

--- The gradient as a function to be checked, h(x, v) = gradient of <v, f(x)> with respect to x: the function, its
--- inputs and places. nil when f has no gradient.
local function gradient_function(f, inputs, places)
  local _, probe = leaves_of(inputs, places)
  local all, checked, seeds = copy_of(inputs), {table.unpack(places)}, {}
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
  return gradient, all, checked
end

--- Checks the gradient of the gradient, by x and by v. nil when f has no gradient, or one that depends on neither.
---@param f fun(inputs: table): table
---@param inputs table
---@param places integer[]
---@param options? {rtol: number?, atol: number?, elements: boolean?}
---@return boolean|nil ok, string|nil message
function gradcheck.check_second(f, inputs, places, options)
  local gradient, all, checked = gradient_function(f, inputs, real_places(inputs, places))
  if not gradient then return nil end
  return gradcheck.check(gradient, all, checked, options)
end

--- Adjoint identity of an operator that is linear in the inputs `places` together: <A x, v> = <x, A' v>.
---@param f fun(inputs: table): table
---@param inputs table
---@param places integer[]
---@return boolean|nil ok, string|nil message
function gradcheck.check_adjoint(f, inputs, places)
  local leaves, copy = leaves_of(inputs, real_places(inputs, places))
  local y = f(copy)[1]
  if not y.requires_grad then return nil end
  local left_terms = ops.mul(y, random_like(y))
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
  return false, format("<Ax, v> = %.17g, <x, A'v> = %.17g", left:item(), right)
end

-- ---- a report, for functions and modules ----

---@class Gradcheck
---@field ok boolean
---@field rows {name: string, shape: integer[], elements: integer, ok: boolean, at: string?, gradient: number?,
---  difference: number?, allowed: number?}[] of each input and parameter: how many elements were looked at, and of what
---  is furthest off where ("[2, 3]", "along a random direction"), both derivatives and how far apart they may be
---@field depends boolean whether a result depends on anything at all
local Gradcheck = {}
Gradcheck.__index = Gradcheck

local function position(k, shape)
  local at = {}
  for d = #shape, 1, -1 do
    at[d] = (k - 1) % shape[d] + 1
    k = (k - 1) // shape[d] + 1
  end
  return "[" .. table.concat(at, ", ") .. "]"
end

--- Notes a comparison if none of this row was further off, for what is allowed.
local function note(row, at, analytic, numeric, magnitude, o)
  local allowed = tolerance(numeric, magnitude, o)
  local off = math.abs(analytic - numeric) / allowed
  if off ~= off then off = math.huge end
  if off > 1 then row.ok = false end
  if row.off and off <= row.off then return end
  row.off, row.at, row.gradient, row.difference, row.allowed = off, at, analytic, numeric, allowed
end

--- Places of at most n elements out of `size`, at equal distances.
local function spread(size, n)
  local list = {}
  for i = 1, math.min(n, size) do list[i] = (i - 1) * size // math.min(n, size) + 1 end
  return list
end

local function check_row(f, inputs, i, gradient, weights, o)
  local x = inputs[i]
  local row = {name = o.names[i], shape = x.shape, elements = 0, ok = true}
  for _, k in ipairs(spread(x:numel(), o.elements)) do
    local numeric, magnitude = difference(f, inputs, {[i] = unit_like(x, k)}, weights)
    note(row, position(k, x.shape), element(gradient, k), numeric, magnitude, o)
    row.elements = row.elements + 1
  end
  if x:numel() <= o.elements then return row end
  local step = random_like(x)
  local numeric, magnitude = difference(f, inputs, {[i] = step}, weights)
  note(row, "along a random direction", gradient and dot(gradient, step):item() or 0, numeric, magnitude, o)
  return row
end

local function report_on(f, inputs, places, o)
  local report = setmetatable({ok = true, depends = true, rows = {}}, Gradcheck)
  local grads, weights = gradients_of(f, inputs, places)
  if not grads then
    report.ok, report.depends = false, false
    return report
  end
  for n, i in ipairs(places) do
    report.rows[n] = core.scope(check_row, f, inputs, i, grads[n], weights, o)
    report.ok = report.ok and report.rows[n].ok
  end
  return report
end

function Gradcheck:__tostring()
  if not self.depends then return "no result depends on an input or parameter that takes a gradient" end
  local lines, elements = {}, 0
  for _, row in ipairs(self.rows) do
    elements = elements + row.elements
    if not row.ok then
      local apart = math.abs(row.gradient - row.difference)
      lines[#lines + 1] = format("  %s, f64 %s, %s: gradient %.9g, difference %.9g, %.2g apart, allowed %.2g",
        row.name, check.shape_text(row.shape), row.at, row.gradient, row.difference, apart, row.allowed)
    end
  end
  table.insert(lines, 1, ("gradients %sagree with differences: %d of %d inputs and parameters (%s elements, and a "
    .. "random direction of each that has more)"):format(self.ok and "" or "do not ", self.ok and #self.rows or #lines,
    #self.rows, amount.thousands(elements)))
  return table.concat(lines, "\n")
end

-- ---- marea.gradcheck ----

local function own_copy(t)
  local copy = t:detach():clone()
  return t.requires_grad and copy:requires_grad_() or copy
end

local function wide(t) return is_real(t) and t:detach():to("f64"):clone() or t end

--- Modules that f reaches: itself, the arguments, and its variables.
local function modules_of(f, arguments)
  local list, seen = {}, {}
  local function take(value, name)
    if not module.is_module(value) or seen[value] then return end
    seen[value] = true
    list[#list + 1] = {module = value, name = name}
  end
  take(f, "")
  for i = 1, arguments.n do take(arguments[i], ("argument %d"):format(i)) end
  local i, name, value = 1, nil, nil
  if type(f) == "function" then name, value = debug.getupvalue(f, 1) end
  while name do
    take(value, name)
    i = i + 1
    name, value = debug.getupvalue(f, i)
  end
  return list
end

--- What is looked at: a list of f64 tensors with names; put(list) sets parameters and returns the arguments.
local function collect(roots, arguments)
  local inputs, names, slots, explicit = {}, {}, {}, false
  for i = 1, arguments.n do explicit = explicit or (core.is_tensor(arguments[i]) and arguments[i].requires_grad) end
  local function add(name, t, slot)
    inputs[#inputs + 1], names[#names + 1], slots[#slots + 1] = t, name, slot
  end
  local given = {n = arguments.n}
  for i = 1, arguments.n do
    local t = arguments[i]
    given[i] = core.is_tensor(t) and wide(t) or t
    if is_real(t) and (t.requires_grad or not explicit) then
      add("input " .. i, given[i], function(list, x) list[i] = x end)
    end
  end
  for _, root in ipairs(roots) do
    module.replace(root.module, wide, function(path, t, old, set)
      if not old.requires_grad then return end
      add(root.name == "" and path or root.name .. "." .. path, t, function(_, x) set(x) end)
    end)
  end
  return inputs, names, function(list)
    local call = copy_of(given)
    for n, slot in ipairs(slots) do slot(call, list[n]) end
    return call
  end
end

local function run(f, arguments, o)
  local roots = modules_of(f, arguments)
  local seed, counter = core.random_state()
  for _, root in ipairs(roots) do module.replace(root.module, own_copy) end -- statistics will move
  core.scope(core.no_grad, function() f(table.unpack(arguments, 1, arguments.n)) end) -- layers learn their sizes
  local inputs, names, put = collect(roots, arguments)
  o.names = names
  local function list_function(list)
    local own_seed, own_counter = core.random_state()
    core.set_random_state(seed, counter)
    local call = put(list)
    local results = table.pack(f(table.unpack(call, 1, call.n)))
    core.set_random_state(own_seed, own_counter)
    return results
  end
  core.set_random_state(seed, counter + OWN) -- from here on weights and directions are drawn
  local places = {}
  for i = 1, #inputs do places[i] = i end
  if #inputs == 0 then check.raise("gradcheck: there is no f32 or f64 tensor to look at") end
  if o.second then
    local gradient, all, checked = gradient_function(list_function, inputs, places)
    for _, place in ipairs(checked or {}) do names[place] = names[place] or "the weights of result " .. place:sub(5) end
    list_function, inputs, places = gradient or list_function, all or inputs, checked or places
  end
  local report = report_on(list_function, inputs, places, o)
  core.set_random_state(seed, counter)
  return report
end

--- Compares the gradients of f with differences, in f64: what is f32 is converted for the time of the check, parameters
--- of modules as well: of f, of arguments, and of variables that f uses. Nothing is left behind.
---@param f function|table a function or a module, or a table of everything: {f, ..., rtol = 1e-5}
---@param ... any arguments; the real tensors among them are looked at, or, if some require a gradient, these
---@return Gradcheck report, with `ok`, and text for print. Options in the table: rtol (1e-5), atol (1e-7), elements of
---  each input to look at (8, and a random direction), second = true: the gradient of the gradient
local function gradcheck_of(_, f, ...)
  local arguments, o = table.pack(...), {}
  if type(f) == "table" and not module.is_module(f) then
    o = check.options("gradcheck", f, {"rtol", "atol", "elements", "second"}, math.maxinteger)
    arguments, f = table.pack(table.unpack(f, 2)), f[1]
  end
  if type(f) ~= "function" and not module.is_module(f) then
    check.fail("gradcheck", "f", "a function or a module", f)
  end
  local settings = {
    rtol = o.rtol and check.number("gradcheck", "rtol", o.rtol, 0),
    atol = o.atol and check.number("gradcheck", "atol", o.atol, 0),
    elements = check.integer("gradcheck", "elements", o.elements or ELEMENTS, 1),
    second = o.second,
  }
  return core.scope(undo.run, run, f, arguments, settings)
end

return setmetatable(gradcheck, {__call = gradcheck_of})
