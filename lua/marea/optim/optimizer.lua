-- SPDX-License-Identifier: MIT
--- The part that all optimizers share: finding the parameters, clipping, the order of events in a step, and state.
local core = require "marea.core"
local check = require "marea.internal.check"
local events = require "marea.internal.events"
local module = require "marea.nn.module"
local attempt = require "marea.internal.attempt"
local touched = require "marea.internal.touched"
local undo = require "marea.internal.undo"
local unwind = require "marea.internal.unwind"
local ops = core.ops
local format = core.format

---@class Optimizer
local Optimizer = {}
Optimizer.__index = Optimizer

--- Defines an optimizer.
---@param name string
---@param spec {numbers: table<string, number>, flags: string[]?, slots: function, apply: function}
---  numbers: its arguments and their initial values; slots(self) -> names of the tensors kept for each parameter;
---  operator: its name; its inputs are p, g, the tensors of `states`, which names the slots, and rows. Or, in its
---  place, apply(p, g, slots, attributes, rows, ready). counts: it wants the step; l2: its operator calls
---  weight_decay that; slots_of(p, attributes): the names for this parameter, if not all; want_rows(name, p,
---  attributes): raises where the gradient must not be of some rows only; prepare(p, g, slots, attributes) -> ready,
---  what is computed before any weight is changed
function Optimizer.define(name, spec)
  local class = {}
  class.__index = class
  class.__name = name
  class.__tostring = Optimizer.tostring
  class.spec = spec
  class.each = spec.operator and core.each(spec.operator)
  class.__optimizer = true
  local own = {} -- arguments that a group may set for itself
  for key in pairs(spec.numbers) do own[#own + 1] = key end
  table.move(spec.flags or {}, 1, #(spec.flags or {}), #own + 1, own)
  table.sort(own, core.before)
  class.own_names = own
  local names = {"clip_value", "clip_norm", "allow_not_finite", table.unpack(own)}
  local function construct(_, options, named)
    if type(named) == "table" and options ~= nil then -- Adam(net:parameters(), {lr = 0.1})
      options = {options}
      for key, value in pairs(named) do options[key] = value end
    end
    return setmetatable({name = name}, class):read(check.options(name, options, names, math.maxinteger))
  end
  return setmetatable(class, {__index = Optimizer, __call = construct})
end

--- Attributes of the operator from the first of `given` that has them, else the initial ones.
local function read_attributes(self, given, fallback)
  local name, spec, attributes = self.name, self.spec, {}
  local function value(key)
    if given[key] ~= nil then return given[key] end
    return fallback[key]
  end
  for key, initial in pairs(spec.numbers) do
    if key ~= "lr" then attributes[key] = check.number(name, key, value(key) or initial, 0) end
  end
  for _, flag in ipairs(spec.flags or {}) do
    attributes[flag] = check.boolean(name, flag, value(flag), false)
  end
  if spec.l2 then attributes.l2, attributes.weight_decay = attributes.weight_decay, nil end
  return attributes
end

local function check_rate(self, lr)
  if lr ~= nil and type(lr) ~= "function" then check.number(self.name, "lr", lr, 0) end
  return lr
end

--- Splits the i-th argument, a plain table, into its modules and parameters and the arguments that it sets for them.
local function split(self, i, part)
  local root, settings = {}, {}
  if type(part) ~= "table" or getmetatable(part) ~= nil then return part, settings end
  check.length(self.name, part, ("argument %d: item"):format(i))
  for key, value in pairs(part) do root[key] = value end
  for _, key in ipairs(self.own_names) do
    local value = part[key]
    if value ~= nil and type(value) ~= "table" and not core.is_tensor(value) then
      root[key], settings[key] = nil, value
    end
  end
  return root, settings
end

--- self.groups := {root, lr, attributes} for each of the positional arguments.
local function read_groups(self, options)
  local empty = options[1] ~= nil
  self.groups = {}
  for i, part in ipairs(options) do
    if type(part) ~= "table" and not core.is_tensor(part) then
      check.fail(self.name, tostring(i), "a module, or a table of modules and parameters", part)
    end
    local root, settings = split(self, i, part)
    if not check.is_plain(root) or next(root) ~= nil then empty = false end
    self.groups[i] = {root = root, lr = check_rate(self, settings.lr),
      attributes = read_attributes(self, settings, options)}
  end
  if empty then
    check.raise("%s: argument 1: expected a module, or a table of modules and parameters, got an empty list, of a "
      .. "network without sizes or a quantized one; give it as it is, optim.%s{net}", self.name, self.name)
  elseif #self.groups == 0 then
    check.fail(self.name, "1", "a module, or a table of modules and parameters", options[1])
  end
end

--- Refuses what net:quantize() gave, unless a part of it has been made to train again.
local function want_floats(self, root)
  for _, found in ipairs(module.parameters(root)) do if found.tensor.requires_grad then return end end
  for _, found in ipairs(module.modules(root)) do
    if rawget(found.module, "_quantized") then
      check.raise("%s: argument 1: expected a network with parameters to train, got a quantized one, whose weights are "
        .. "bytes for inference; train the one it was made of, then make net:quantize() anew", self.name)
    end
  end
end

function Optimizer:read(options)
  local name, spec = self.name, self.spec
  self.lr = check_rate(self, options.lr or spec.numbers.lr)
  read_groups(self, options)
  for _, group in ipairs(self.groups) do want_floats(self, group.root) end
  self.clip_value = options.clip_value and check.number(name, "clip_value", options.clip_value, 0)
  self.clip_norm = options.clip_norm and check.number(name, "clip_norm", options.clip_norm, 0)
  self._backward = {allow_not_finite = check.boolean(name, "allow_not_finite", options.allow_not_finite, false)}
  self.steps = 0
  self.slots = spec.slots(self)
  self._entries, self._active, self._gradients, self._list = {}, {}, {}, {}
  if events.watcher then events.watcher:look() end
  return self
end

---@return boolean
function Optimizer.is_optimizer(value)
  local class = type(value) == "table" and getmetatable(value)
  return type(class) == "table" and rawget(class, "__optimizer") == true
end

function Optimizer:tostring()
  local lr = type(self.lr) == "function" and "schedule" or format("%g", self.lr)
  return ("%s(lr %s, %d steps made)"):format(self.name, lr, self.steps)
end

-- ---- parameters and their slots ----

local STORED = {bf16 = true, f16 = true}

local function want_precise(self, name, tensor)
  if not STORED[tensor.dtype] or not tensor.requires_grad then return end
  check.raise("%s: parameter '%s' is %s, which would round small steps away; keep it in f32 and convert it where it is "
    .. "used, by marea.autocast or w:to '%s'", self.name, name, tensor.dtype, tensor.dtype)
end

--- Parameters of all groups: {name, tensor, group}. Names begin with the group's number where there are several.
local function parameters(self)
  local list, seen = {}, {}
  for i, group in ipairs(self.groups) do
    local prefix = #self.groups > 1 and i .. "." or ""
    for _, found in ipairs(module.parameters(group.root)) do
      local name = prefix .. found.name
      if seen[found.tensor] then
        check.raise("%s: parameter '%s' is in an earlier group too, as '%s'", self.name, name, seen[found.tensor])
      end
      seen[found.tensor] = name
      want_precise(self, name, found.tensor)
      list[#list + 1] = {name = name, tensor = found.tensor, group = group}
    end
  end
  return list
end

--- self._entries := {name, tensor, group, slot tensors...} of every parameter. Looks again only when parameters were
--- made since; a parameter that is still the same keeps its slots.
function Optimizer:find_parameters()
  undo.note(self)
  if self._version == module.version() and #self._entries > 0 then return end
  local kept = {}
  for _, entry in ipairs(self._entries) do kept[entry.name] = entry end
  local entries = parameters(self)
  for i, found in ipairs(entries) do
    local old = kept[found.name]
    if old and old.tensor == found.tensor then entries[i] = old end
  end
  if #entries == 0 then check.raise("%s: there are no parameters to train", self.name) end
  self._entries, self._version = entries, module.version()
  if events.watcher then events.watcher:optimizes(self) end
end

--- Names of the tensors that are kept for the parameter of this entry.
local function slots_of(self, entry)
  local spec = self.spec
  return spec.slots_of and spec.slots_of(entry.tensor, entry.group.attributes) or self.slots
end

--- Gives an entry its slots, zeros, when it has none.
function Optimizer.allocate(entry, slots)
  local last = slots[#slots]
  if not last or entry[last] then return end
  undo.note(entry)
  for _, slot in ipairs(slots) do
    entry[slot] = ops.full(entry.tensor.shape, 0, entry.tensor.dtype):keep()
  end
end

-- ---- a step ----

local LEAST_SQUARE = {f32 = 1e-30, f64 = 1e-290} -- a mean of squares below it has lost digits to underflow

--- The Euclidean norm of g as a number of Lua, in double precision. This is not the operator `norm`, whose result has
--- the dtype of g: in f32 it would be rounded, and infinite from 3.4e38 on. Where the squares overflow or underflow, g
--- is divided by its largest element first.
local function norm_of(g)
  if not LEAST_SQUARE[g.dtype] then g = g:to "f32" end
  local flat = ops.reshape(g, {g:numel()})
  local sum = ops.matmul(flat, flat):item() -- one pass, no memory
  if sum ~= sum or sum < math.huge and sum >= LEAST_SQUARE[g.dtype] * g:numel() then return math.sqrt(sum) end
  local most = g:numel() > 0 and g:abs():max():item() or 0
  if most == 0 or most == math.huge then return most end
  return most * math.sqrt((g / most):square():sum():item())
end

--- The norm over all tensors together; NaN if an element is NaN.
local function global_norm(gradients)
  local norms, most, sum = {}, 0, 0
  for i, g in ipairs(gradients) do
    norms[i] = norm_of(g)
    if norms[i] ~= norms[i] then return norms[i] end
    most = math.max(most, norms[i])
  end
  if most == 0 or most == math.huge then return most end
  for _, norm in ipairs(norms) do sum = sum + (norm / most) ^ 2 end
  return most * math.sqrt(sum)
end

--- clip_norm scales all gradients together, then clip_value clamps each element (Keras' order), both in place. Returns
--- the factor of clip_norm, if there was one.
local function clip(self, gradients)
  if not self.clip_norm and not self.clip_value then return nil end
  local norm = global_norm(gradients)
  if (norm ~= norm or norm == math.huge) and not core.planning() then
    self:zero_grad()
    check.raise("%s: the norm of the gradients is %s; no parameter was changed", self.name, norm)
  end
  local scale = self.clip_norm and norm > self.clip_norm and self.clip_norm / norm
  for _, g in ipairs(gradients) do
    if scale then g:mul_(scale) end
    if self.clip_value then g:clamp_(-self.clip_value, self.clip_value) end
  end
  return scale
end

--- Sets what changes from step to step in the groups' attributes.
local function set_attributes(self)
  for _, group in ipairs(self.groups) do
    undo.note(group.attributes)
    local lr = group.lr or self.lr
    if type(lr) == "function" then lr = lr(self.steps + 1) end
    if lr ~= group.attributes.lr then group.attributes.lr = check.number(self.name, "lr", lr, 0) end
    if self.spec.counts then group.attributes.step = self.steps + 1 end
  end
end

local function clear_grad(entry)
  entry.tensor:clear_grad()
  touched.clear(entry.tensor)
end

--- What spec.prepare gives for each entry.
local function prepare(self, entries, gradients)
  local f, ready = self.spec.prepare, {}
  if not f then return ready end
  for i, entry in ipairs(entries) do
    ready[i] = f(entry.tensor, gradients[i], entry, entry.group.attributes)
  end
  return ready
end

--- Lists of a step are used again, for they would be most of what Lua allocates in it.
local function cut(list, n)
  for i = #list, n + 1, -1 do list[i] = nil end
end

--- The entries that have a gradient, their gradients and, where only rows were read, the numbers of these. A gradient
--- that nothing but the operator reads is `true`.
local function with_gradients(self, loss)
  local entries, gradients, rows, n = self._active, self._gradients, {}, 0
  local own = self.each and not self.clip_norm and not self.clip_value
  for i = 1, #self._entries do
    local entry = self._entries[i]
    local g, of = touched.gradient(entry.tensor, own)
    if g then
      if not entry.tensor:is_contiguous() then
        check.raise("%s: parameter '%s' is a view with gaps; make it a tensor of its own with :clone()", self.name,
          entry.name)
      end
      if of and self.spec.want_rows then self.spec.want_rows(entry.name, entry.tensor, entry.group.attributes) end
      n = n + 1
      entries[n], gradients[n], rows[n] = entry, g, of
    end
  end
  cut(entries, n)
  cut(gradients, n)
  if n == 0 then
    check.raise("%s:step: %s", self.name, loss and "the loss does not depend on a parameter of this optimizer"
      or "no parameter has a gradient; give it the loss, or call loss:backward() before")
  end
  return entries, gradients, rows
end

--- After a step that has failed. Gradients of a loss that was given are dropped, or a step that is made again would add
--- to them. Others are kept, clipped if that was done: a sum over lookups, which is a tensor apart, is scaled in its
--- parts, so that a step that is made again finds all gradients scaled together.
local function give_up(self, loss, entries, gradients, scale)
  if loss then
    for _, entry in ipairs(self._entries) do clear_grad(entry) end
  elseif scale then
    for i, entry in ipairs(entries) do touched.scale(entry.tensor, scale, gradients[i]) end
  end
end

--- Changes the weights of the entries: one call for all of a group.
local function apply_each(self, entries, gradients, rows)
  local each, states, list, n, group = self.each, self.spec.states, self._list, 0, entries[1].group
  for i = 1, #entries do
    local entry = entries[i]
    if entry.group ~= group then
      cut(list, n)
      each(list, group.attributes)
      n, group = 0, entry.group
    end
    list[n + 1], list[n + 2] = entry.tensor, gradients[i]
    n = n + 2
    for k = 1, #states do list[n + k] = entry[states[k]] or false end
    n = n + #states + 1
    list[n] = rows[i] or false
  end
  cut(list, n)
  each(list, group.attributes)
end

local function apply_one_by_one(self, entries, gradients, rows, ready)
  local apply = self.spec.apply
  for i, entry in ipairs(entries) do
    apply(entry.tensor, gradients[i], entry, entry.group.attributes, rows[i], ready[i])
  end
end

--- Notes whether the list that a step has left is that of all parameters with gradients of their own: then the next
--- one needs nothing but the list.
local function note_list(self, entries, gradients, rows)
  self._whole = nil
  if #self.groups > 1 or #entries < #self._entries or next(rows) then return end
  for i = 1, #gradients do
    if gradients[i] ~= true then return end
  end
  self._whole = self._entries
end

--- Is this step that of the list which the last one has left?
local function is_whole(self)
  local known = self._whole == self._entries and not (self.clip_norm or self.clip_value or touched.any())
  if known and core.have_gradients(self._list, #self.spec.states + 3) then
    return true
  end
  if self._whole then self._whole, self._list = nil, {} end
end

--- The update. Everything that can fail comes before the first weight is changed. Runs in core.shield, so that an
--- interrupt ends it before the update or after it.
local function update(self, loss)
  local made = self.steps
  local entries, gradients, rows, scale
  local _ <close> = unwind.finally(function()
    if self.steps == made then give_up(self, loss, entries, gradients, scale) end
  end)
  self:find_parameters()
  if is_whole(self) then
    set_attributes(self)
    self.each(self._list, self.groups[1].attributes)
    self.steps = self.steps + 1
    core.clear_gradients(self._list, #self.spec.states + 3)
  else
    entries, gradients, rows = with_gradients(self, loss)
    for i = 1, #entries do Optimizer.allocate(entries[i], slots_of(self, entries[i])) end
    set_attributes(self)
    scale = clip(self, gradients)
    local ready = prepare(self, entries, gradients)
    if self.each then apply_each(self, entries, gradients, rows)
    else apply_one_by_one(self, entries, gradients, rows, ready) end
    self.steps = self.steps + 1
    for i = 1, #entries do clear_grad(entries[i]) end
    if self.each then note_list(self, entries, gradients, rows) end
  end
  if not core.planning() then attempt.settle() end
  if events.watcher then events.watcher:stepped() end
end

--- The reverse pass, and then the update. An interrupt may end the pass, which then changes no gradient; it cannot end
--- the update.
local function advance(self, loss)
  local pass = loss and function() loss:backward(self._backward) end
  if core.autocasting() then core.autocast("f32", core.shield, pass, update, self, loss ~= nil) -- norms in f32
  else core.shield(pass, update, self, loss ~= nil) end
end

local function advance_by(self, loss, ...)
  if not core.is_tensor(loss) then check.tensor(self.name .. ":step", "loss", loss) end
  advance(self, loss)
  return loss, ...
end

local function step_of(self, f)
  local _ <close> = attempt.begin()
  return advance_by(self, f())
end

--- One update.
---   step(loss)  backward, clip, update, clear the gradients; a loss that is NaN or infinite raises before anything
---               has changed, unless allow_not_finite was given
---   step(f)     the same for the loss that f returns, in a scope: what f made is released. Returns what f returned.
---   step()      from gradients that are there already
--- Ctrl-C ends it before the weights are touched or after the update, never between. A step that fails changes no
--- weight. One of a loss whose backward pass fails, as where the loss is NaN, leaves gradients as they were; one that
--- fails later drops them all. step() keeps them, clipped if it came that far, and may be made again; only where their
--- norm, which clip_norm and clip_value look at, is NaN or infinite they are dropped.
---@param what? userdata|function
function Optimizer:step(what)
  if core.is_tensor(self) then check.fail("step", "self", "an optimizer", self) end
  if events.watcher then events.watcher:trains() end
  if type(what) == "function" then return core.scope(step_of, self, what) end
  if what ~= nil and not core.is_tensor(what) then check.tensor(self.name .. ":step", "loss", what) end
  advance(self, what)
  return what
end

--- Drops the gradients of all parameters. step does it after each update.
function Optimizer:zero_grad()
  self:find_parameters()
  for _, entry in ipairs(self._entries) do clear_grad(entry) end
end

-- ---- state ----

--- Name -> tensor: the number of steps made and, for each parameter, what the optimizer remembers of it.
---@return table<string, userdata>
function Optimizer:state()
  self:find_parameters()
  local state = {steps = core.tensor(self.steps, {dtype = "i64"})}
  for _, entry in ipairs(self._entries) do
    for _, slot in ipairs(self.slots) do
      if entry[slot] then state[entry.name .. "." .. slot] = entry[slot] end
    end
  end
  return state
end

--- Adds to `wrong` what of the entry's part of a state does not fit; its names are known then. A part is whole, or not
--- there: that of a parameter without a step.
local function want_part(self, entry, state, wrong, known)
  local missing, any = {}, false
  for _, slot in ipairs(slots_of(self, entry)) do
    local name = entry.name .. "." .. slot
    local given = state[name]
    known[name] = true
    any = any or given ~= nil
    if not given then missing[#missing + 1] = name .. " is missing"
    elseif given.shape ~= entry.tensor.shape then
      wrong[#wrong + 1] = ("%s is %s, expected %s"):format(name, check.shape_text(given.shape),
        check.shape_text(entry.tensor.shape))
    end
  end
  if any then table.move(missing, 1, #missing, #wrong + 1, wrong) end
end

--- nil, or what keeps `state` from fitting.
---@param state table<string, userdata>
---@return string|nil
function Optimizer:misfit(state)
  self:find_parameters()
  local wrong, known = {}, {steps = true}
  if not state.steps or state.steps:numel() ~= 1 then wrong[#wrong + 1] = "steps is missing" end
  for _, entry in ipairs(self._entries) do want_part(self, entry, state, wrong, known) end
  for _, name in ipairs(check.names(state)) do
    if not known[name] then wrong[#wrong + 1] = name .. " is unexpected" end
  end
  if #wrong == 0 then return nil end
  table.sort(wrong, core.before)
  return ("the state does not fit %s: %s"):format(self.name, table.concat(wrong, "; "))
end

--- Copies a state; raises and changes nothing when it does not fit.
---@param state table<string, userdata> what state() gave
function Optimizer:load_state(state)
  check.state("load_state", state)
  local misfit = self:misfit(state)
  if misfit then check.raise("load_state: %s", misfit) end
  core.shield(nil, function()
    for _, entry in ipairs(self._entries) do
      for _, slot in ipairs(self.slots) do
        local given = state[entry.name .. "." .. slot]
        if given then
          Optimizer.allocate(entry, slots_of(self, entry))
          entry[slot]:copy_(given)
        else
          entry[slot] = nil
        end
      end
    end
    self._whole = nil
    self.steps = state.steps:item()
  end)
  return self
end

return Optimizer
