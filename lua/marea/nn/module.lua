-- SPDX-License-Identifier: MIT
--- Modules: plain tables with named fields. Tensors in them are the parameters, modules and plain tables in them
--- are searched in turn. The walk goes through integer keys in order, then string keys sorted, so names, draws and
--- files do not depend on the order of a hash table. A field whose name begins with `_` is private: not walked.
---
---   local Net = nn.class("Net")
---   function Net:init(width) self.hidden = nn.Linear{784, width, activation = "relu"} ... end
---   function Net:forward(x) return self.output(self.hidden(x)) end
---   local net = Net(128);  net(x)
---
--- Running the file again replaces the class in place: old instances pick up the new methods. Classes are told
--- apart by their name and the file that defines them.
local core = require "marea.core"
local check = require "marea.internal.check"
local events = require "marea.internal.events"
local touched = require "marea.internal.touched"
local undo = require "marea.internal.undo"
local unwind = require "marea.internal.unwind"

local module = {}

local Module = {} -- methods of every module
local classes = {} -- file and name -> class
local version = 0 -- how many parameters and buffers were made; optimizers look again when it has changed
local tracer -- called in place of every module's forward while module.trace runs; nil otherwise

-- ---- classes ----

local function enter(self, ...)
  if unwind.latest then unwind.settle() end
  if events.watcher then events.watcher:called(self) end
  if tracer then return tracer(self, ...) end
  return self:forward(...)
end

local function pass(...) return ... end

--- Neither of these two makes a tail call: their frames must stay on the stack, where frozen_at_work finds the module.
local function call(self, ...) return pass(enter(self, ...)) end
local function make(self, ...) return pass(self:materialize(...)) end

--- Is the module at work in this coroutine frozen? Parameters that a frozen module makes are frozen too. The module is
--- looked for on the stack, because a variable would keep its value when a coroutine ends by an error or is dropped.
local function frozen_at_work()
  local self = core.argument_at_work(call, make)
  return self ~= nil and self.frozen
end

--- __newindex: sets a new field of a module. Data under the name of a method would hide the method, so it is refused.
local function set_field(self, key, value)
  if Module[key] and value ~= nil and type(value) ~= "function" then
    check.raise("%s: a field '%s' would hide the method of this name; the field needs another one",
      getmetatable(self).__name, key)
  end
  rawset(self, key, value)
end

local function construct(class, ...)
  local self = setmetatable({training = true, frozen = frozen_at_work()}, class)
  self:init(...)
  return self
end

--- The file that calls nn.class. All chunks without a file name (from a string) count as one file, so that an edited
--- string replaces its class.
local function defining_file()
  local source = debug.getinfo(3, "S").source
  return source:find "^[@=]" and source or "string"
end

--- Defines a class of modules, or replaces the methods of the one that this file defined under this name.
---@param name string
---@param base? table a class to inherit from
---@return table class to be called with what its `init` takes
---@example Net = nn.class "Net"
---@example function Net:init() self.hidden = nn.Linear{4, 2} end
---@example function Net:forward(x) return self.hidden(x):relu() end
---@example Net()(marea.normal{1, 4})
function module.class(name, base)
  check.string("nn.class", "name", name)
  local key = defining_file() .. "\0" .. name
  local class = classes[key] or {}
  classes[key] = class
  for field in pairs(class) do class[field] = nil end
  class.__module = true
  class.__name = name
  class.__index = class
  class.__call = call
  class.__newindex = set_field
  class.__tostring = function(self) return self:tostring() end
  return setmetatable(class, {
    __index = base or Module,
    __call = construct,
    __tostring = function() return "class " .. name end,
  })
end

--- Is it what nn.class gives?
function module.is_class(value)
  return type(value) == "table" and rawget(value, "__module") == true
end

--- The methods of every module: name -> function.
function module.class_methods() return Module end

--- Is it a layer, or an instance of a class that nn.class made?
---@param value any
---@return boolean
---@example nn.is_module(nn.ReLU{})
function module.is_module(value)
  if type(value) ~= "table" then return false end
  return module.is_class(getmetatable(value))
end

--- Calls f(...) with `trace(m, ...)` in place of every module's forward.
function module.trace(trace, f, ...)
  local before
  local _ <close> = unwind.finally(function() tracer = before end)
  before, tracer = tracer, trace
  return f(...)
end

-- ---- the walk ----

--- The keys of a table that the walk visits, in the order of the walk: integers, then strings.
function module.public_keys(t)
  local keys = {}
  for key in next, t do
    if math.type(key) == "integer" or (type(key) == "string" and key:sub(1, 1) ~= "_") then keys[#keys + 1] = key end
  end
  table.sort(keys, core.before)
  return keys
end

--- A table that is searched for tensors and modules, and is no module itself.
function module.is_plain(value)
  return type(value) == "table" and getmetatable(value) == nil
end

--- Walks through a module or a plain table: visit(path, m) for each module, visit(path, t, owner, key) for each tensor.
---@param seen table<table|userdata, boolean> what is not visited, again; grows
function module.walk(node, path, seen, visit)
  if seen[node] then return end
  seen[node] = true
  if module.is_module(node) then visit(path, node) end
  for _, key in ipairs(module.public_keys(node)) do
    local value, at = node[key], path == "" and tostring(key) or path .. "." .. key
    if core.is_tensor(value) then
      if not seen[value] then
        seen[value] = true
        visit(at, value, node, key)
      end
    elseif module.is_module(value) or module.is_plain(value) then
      module.walk(value, at, seen, visit)
    end
  end
end

local function check_root(root)
  if type(root) ~= "table" then check.fail("nn", "self", "a module", root) end
end

--- What a script writes behind `node` to get to the tensor, such as ".conv[1].weight"; nil when it is not there.
local function place_of(node, tensor, seen)
  if node == tensor then return "" end
  if type(node) ~= "table" or seen[node] or not (module.is_module(node) or module.is_plain(node)) then return nil end
  seen[node] = true
  for _, key in ipairs(module.public_keys(node)) do
    local rest = place_of(node[key], tensor, seen)
    if rest then return check.key_text(key) .. rest end
  end
end

--- All tensors under a module, or a table of modules and tensors, each once, in the order of the walk. Their paths are
--- the keys of states and files, so that two with the same path are refused.
---@return {name: string, tensor: userdata, buffer: boolean}[]
function module.tensors(root)
  if events.watcher then events.watcher:look() end
  local list, named = {}, {}
  if core.is_tensor(root) then return {{name = "1", tensor = root, buffer = false}} end
  check_root(root)
  module.walk(root, "", {}, function(path, value, owner, key)
    if not owner then return end
    if named[path] then
      check.raise("two tensors have the path '%s': self%s and self%s; give one of them another name", path,
        place_of(root, named[path], {}), place_of(root, value, {}))
    end
    named[path] = value
    local buffers = rawget(owner, "_buffers")
    list[#list + 1] = {name = path, tensor = value, buffer = buffers ~= nil and buffers[key] == true}
  end)
  return list
end

--- Does the walk from `root` meet a tensor?
local function has_tensors(root)
  local found = false
  module.walk(root, "", {}, function(_, _, owner) found = found or owner ~= nil end)
  return found
end

--- The tensors that are learned.
function module.parameters(root)
  local list = {}
  for _, entry in ipairs(module.tensors(root)) do
    if not entry.buffer then list[#list + 1] = entry end
  end
  return list
end

--- Elements of the tensors of a module itself and of its tables, not of modules inside it.
---@return integer
function module.own_elements(m)
  local n, inner = 0, {}
  for _, entry in ipairs(module.modules(m)) do
    if entry.module ~= m then inner[#inner + 1] = entry.path .. "." end
  end
  for _, entry in ipairs(module.tensors(m)) do
    local own = true
    for _, path in ipairs(inner) do own = own and entry.name:sub(1, #path) ~= path end
    if own then n = n + entry.tensor:numel() end
  end
  return n
end

--- All modules under `root` and their paths, itself first with the path "".
---@return {path: string, module: table}[]
function module.modules(root)
  local list = {}
  check_root(root)
  module.walk(root, "", {}, function(path, value, owner)
    if not owner then list[#list + 1] = {path = path, module = value} end
  end)
  return list
end

--- Puts map(t) in the place of each tensor under `root`, wherever it lies, and calls visit(path, new, old, set) for it,
--- if given; set(t) puts another one there. For use within undo.run, which puts the old ones back.
function module.replace(root, map, visit)
  local seen, slots, entries = {}, {}, module.tensors(root)
  local function collect(node)
    if seen[node] then return end
    seen[node] = true
    undo.note(node)
    for _, key in ipairs(module.public_keys(node)) do
      local value = node[key]
      if core.is_tensor(value) then
        slots[value] = slots[value] or {}
        table.insert(slots[value], {node, key})
      elseif type(value) == "table" and (module.is_module(value) or getmetatable(value) == nil) then
        collect(value)
      end
    end
  end
  collect(root)
  for _, entry in ipairs(entries) do
    local places = slots[entry.tensor]
    local function set(t)
      for _, place in ipairs(places) do place[1][place[2]] = t end
    end
    local new = map(entry.tensor)
    set(new)
    if visit then visit(entry.name, new, entry.tensor, set) end
  end
end

-- ---- parameters ----

--- Makes `t` a parameter: a leaf that requires a gradient and that no scope releases. What a frozen module makes while
--- it is at work requires none until it is unfrozen.
---@param t userdata
---@return userdata
---@example nn.parameter(marea.zeros{3}).requires_grad
function module.parameter(t)
  check.tensor("nn.parameter", "t", t)
  version = version + 1
  return (t.is_leaf and t or t:detach()):requires_grad_(not frozen_at_work()):keep()
end

--- Makes the parameters of a layer that learns its sizes from its first input. When a rerun copies all of their values
--- from an earlier run, the random state is put back: the draws of the initial values do not count.
function module.materialize(self, ...)
  local seed, counter = core.random_state()
  make(self, ...)
  if events.watcher and events.watcher:made(self) then core.set_random_state(seed, counter) end
end

--- A number that grows whenever a parameter or a buffer is made in any module.
function module.version() return version end

-- ---- state ----

local function shape_of(t) return ("%s %s"):format(t.dtype, check.shape_text(t.shape)) end

local SHOWN <const> = 10 -- names of a kind; of a network of another size all of them would fill the screen

local function add_lines(lines, title, items, separator)
  if #items == 0 then return end
  table.sort(items, core.before)
  local more = #items > SHOWN + 1 and (" and %d more"):format(#items - SHOWN) or ""
  lines[#lines + 1] = ("  %s: %s%s"):format(title,
    table.concat(items, separator or ", ", 1, more ~= "" and SHOWN or #items), more)
end

--- The path of the first module under `root` that has no tensors and would have some of the names.
local function without_sizes(root, names)
  local wanted = {}
  for _, name in ipairs(names) do wanted[name:match "^(.*)%.[^.]*$" or ""] = true end
  for _, entry in ipairs(module.modules(root)) do
    if wanted[entry.path] and not has_tensors(entry.module) then return entry.path end
  end
end

--- The lines of what does not fit; nil: everything fits.
---@param missing string[]
---@param unexpected string[]
---@param mismatched? string[]
function module.differences(missing, unexpected, mismatched)
  local lines = {}
  add_lines(lines, "missing", missing)
  add_lines(lines, "unexpected", unexpected)
  add_lines(lines, "other shape", mismatched or {}, "; ")
  return #lines > 0 and table.concat(lines, "\n") or nil
end

--- What keeps `state` from fitting the tensors of `root`: nil or a text with what is missing, unexpected or of another
--- shape.
function module.misfit(root, state, strict)
  local missing, unexpected, mismatched, known = {}, {}, {}, {}
  for _, entry in ipairs(module.tensors(root)) do
    local given = state[entry.name]
    known[entry.name] = true
    if not given then
      if strict then missing[#missing + 1] = entry.name end
    elseif given.shape ~= entry.tensor.shape then
      mismatched[#mismatched + 1] =
        ("%s is %s, expected %s"):format(entry.name, shape_of(given), shape_of(entry.tensor))
    end
  end
  for name in pairs(state) do
    if strict and not known[name] then unexpected[#unexpected + 1] = name end
  end
  local text = module.differences(missing, unexpected, mismatched)
  if not text then return nil end
  local unmade = #unexpected > 0 and without_sizes(root, unexpected)
  if unmade then
    text = text .. ("\n  %s has no sizes yet: call %s once, or net:build(input shape), before")
      :format(unmade == "" and "the module" or ("layer '%s'"):format(unmade), unmade == "" and "it" or "the network")
  end
  return "the state does not fit the module\n" .. text
end

--- Copies the values of a state that fits. No interrupt ends it: all values are copied.
function module.assign(root, state)
  core.shield(nil, function()
    for _, entry in ipairs(module.tensors(root)) do
      if state[entry.name] then
        entry.tensor:copy_(state[entry.name])
        if events.watcher then events.watcher:loaded(entry.tensor) end
      end
    end
  end)
end

-- ---- methods of every module ----

--- The constructor: gets the arguments that the class is called with. Classes define their own.
function Module:init() end -- luacheck: no unused args

--- What a call of the module computes. Every class defines its own.
function Module:forward()
  check.raise("class %s defines no method 'forward'", getmetatable(self).__name)
end

--- Tensors that are learned, frozen ones included, in the order of the walk.
---@return userdata[]
---@example nn.Linear{3, 2}:parameters()
function Module:parameters()
  local list = {}
  for i, entry in ipairs(module.parameters(self)) do list[i] = entry.tensor end
  return list
end

--- for name, tensor in net:named_parameters() do
---@example for name, t in nn.Linear{3, 2}:named_parameters() do last = name end
---@example last
function Module:named_parameters()
  local list, i = module.parameters(self), 0
  return function()
    i = i + 1
    if list[i] then return list[i].name, list[i].tensor end
  end
end

--- Keeps `t` as self[name]: part of the state, not learned (running statistics).
---@param name string
---@param t userdata
---@return userdata
---@example net = nn.Linear{3, 2}
---@example net:buffer("steps", marea.zeros{1})
function Module:buffer(name, t)
  check.tensor("buffer", "t", t)
  self._buffers = rawget(self, "_buffers") or {}
  self._buffers[name] = true
  version = version + 1
  self[name] = t:detach():keep()
  return self[name]
end

--- Name -> tensor, parameters and buffers; the tensors themselves, not copies.
---@return table<string, userdata>
---@example nn.Linear{3, 2}:state()
function Module:state()
  local state = {}
  for _, entry in ipairs(module.tensors(self)) do state[entry.name] = entry.tensor end
  return state
end

--- Copies values into the module's tensors. One error lists all names that are missing or unexpected and all shapes
--- that differ; nothing is changed then.
---@param state table<string, userdata>
---@param options? {strict: boolean?, from: string?} strict = false: takes the names that are there and ignores the
---   others; from = "torch" or "keras": the state has the names and the layouts of that framework; "t7": it is a module
---   of Torch7, as marea.load_t7 gives it
---@example net = nn.Linear{3, 2}
---@example net:load_state(nn.Linear{3, 2}:state())
---@example net:load_state({weight = marea.ones(2, 3), bias = marea.zeros(2)}, {from = "torch"})
function Module:load_state(state, options)
  if type(state) ~= "table" then check.state("load_state", state) end -- first: a loader's message is no option
  options = check.options("load_state", options, {"strict", "from"})
  local strict = options.strict ~= false
  local from = options.from
    and check.choice("load_state", "from", options.from, {torch = "torch", keras = "keras", t7 = "t7"})
  if from == "t7" then state = core.no_grad(require("marea.nn.torch7").state, state) end
  check.state("load_state", state)
  if from then
    state = core.no_grad(function() return require("marea.nn.foreign").translate(self, state, from, strict) end)
  end
  local misfit = module.misfit(self, state, strict)
  if misfit then check.raise("load_state: %s", misfit) end
  module.assign(self, state)
  return self
end

--- The tensors of what a file held: itself or, where `key` is given, what it has under it.
local function state_in(path, value, key)
  if key ~= nil then value = type(value) == "table" and value[key] or nil end
  local tensors, inside = {}, {}
  for name, t in pairs(type(value) == "table" and value or {}) do
    if core.is_tensor(t) then tensors[name] = t end
    if type(name) == "string" and type(t) == "table" then inside[#inside + 1] = name end
  end
  if next(tensors) then return tensors end
  table.sort(inside)
  check.raise("load_torch: '%s' has no tensors by name%s%s", path, key and (" under '%s'"):format(key) or "",
    #inside > 0 and "; key = name looks into one of its tables: " .. check.list(inside) or "")
end

--- The arguments of load_torch and load_keras.
local function check_load(what, path, map, options, names)
  check.string(what, "path", path)
  if map ~= nil and type(map) ~= "function" and not check.is_plain(map) then
    check.fail(what, "map", "a table of names or a function", map)
  end
  return check.options(what, options, names)
end

--- Loads what torch.save wrote, or a safetensors file, into the module. The names in it are PyTorch's for the same
--- layers at the same places, or else `map` tells which part of this module they belong to: a table from names there,
--- of modules or of single tensors, to names here, in which false leaves something out; or a function of a name that
--- returns one or nil. What parameters are called and how they lie is as in PyTorch in any case: see docs/files.md.
---@param path string
---@param map? table|function
---@param options? {strict: boolean?, key: any} strict as of load_state; key: what of a checkpoint is the state
---@return table? self nil when the file cannot be read
---@return string? message
---@example net = nn.Sequential{nn.Linear{3, 2}}
---@example net:load_torch("missing.pt", {fc = 1}, {key = "model"})
function Module:load_torch(path, map, options)
  options = check_load("load_torch", path, map, options, {"strict", "key"})
  local value, message
  if path:find "%.safetensors$" then value, message = core.load(path) else value, message = core.load_torch(path) end
  if value == nil then return nil, message end
  local state = state_in(path, value, options.key)
  if map then state = require("marea.nn.foreign").renamed("load_torch", "torch", state, map) end
  return self:load_state(state, {from = "torch", strict = options.strict})
end

--- Loads the weights of a file of Keras (.keras, .h5, .weights.h5) into the module. The layers here have the names of
--- Keras' layers, or else `map` tells which part of this module they belong to, as for load_torch. See docs/files.md;
--- marea.keras.load makes the whole network.
---@param path string
---@param map? table|function
---@param options? {strict: boolean?} as of load_state
---@return table? self nil when the file cannot be read
---@return string? message
---@example net = nn.Sequential{nn.Linear{3, 2}}
---@example net:load_keras("missing.h5", {dense = 1})
function Module:load_keras(path, map, options)
  options = check_load("load_keras", path, map, options, {"strict"})
  local state, message = require("marea.keras").weights(path)
  if not state then return nil, message end
  local foreign = require "marea.nn.foreign"
  if map then state = foreign.renamed("load_keras", "keras", foreign.normalized(state, "keras"), map) end
  return self:load_state(state, {from = "keras", strict = options.strict})
end

--- Switches to training, which is the initial mode: dropout sets elements to 0. train(false) is evaluate().
---@param on? boolean true when left out
---@example nn.Dropout{0.5}:train().training
function Module:train(on)
  if on ~= nil and type(on) ~= "boolean" then check.fail("train", "on", "true or false", on) end
  for _, entry in ipairs(module.modules(self)) do entry.module.training = on ~= false end
  return self
end

--- Switches to evaluation: the same output for the same input.
---@example nn.Dropout{0.5}:evaluate()(marea.ones{3})
function Module:evaluate() return self:train(false) end

local function set_frozen(root, frozen)
  for _, entry in ipairs(module.modules(root)) do entry.module.frozen = frozen end
  for _, t in ipairs(root:parameters()) do t:requires_grad_(not frozen) end
  return root
end

--- Takes the parameters out of training: no gradients are computed for them, optimizers leave them alone, and
--- nn.BatchNorm normalizes by its running statistics and keeps them. Gradients still flow through to what comes before.
--- Layers that do not know their sizes yet are frozen too: what they make at their first input is not trained.
---@example nn.Linear{3, 2}:freeze()
function Module:freeze()
  set_frozen(self, true)
  for _, t in ipairs(self:parameters()) do
    t:clear_grad()
    touched.clear(t)
  end
  return self
end

--- Undoes freeze().
---@example nn.Linear{3, 2}:freeze():unfreeze()
function Module:unfreeze() return (set_frozen(self, false)) end

--- Number of elements of all tensors of the state, as Keras counts parameters, and of those that are trained.
---@return integer, integer
---@example nn.Linear{3, 2}:count()
function Module:count()
  local total, trained = 0, 0
  for _, entry in ipairs(module.tensors(self)) do
    total = total + entry.tensor:numel()
    if entry.tensor.requires_grad then trained = trained + entry.tensor:numel() end
  end
  return total, trained
end

--- Makes the parameters of layers whose input size was left out, by running zeros through the module.
---@param ... integer[]|userdata one shape without the batch ({28, 28, 1}) or one tensor for each input
---@example nn.Sequential{nn.Conv2d{4, kernel = 3}, nn.Flatten{}, nn.Linear{2}}:build{8, 8, 1}
function Module:build(...)
  require "marea.nn.summary".run(self, "build", nil, ...)
  return self
end

--- A table of layers as Keras prints it, with output shapes, parameters and FLOPs (2 for each multiply-add) of one
--- example; print it, or read its fields rows, total, trained and flops.
---@param ... integer[]|userdata one shape without the batch ({28, 28, 1}) or one tensor for each input
---@example nn.Sequential{nn.Conv2d{1, 4, kernel = 3}, nn.Flatten{}, nn.Linear{2}}:summary{8, 8, 1}
function Module:summary(...)
  return (require "marea.nn.summary".summary(self, ...)) -- no tail call: an error says who was called
end

--- A copy for inference in which layers with many weights, Linear, LSTM and attention, compute with bytes (int8): a
--- scale for each output, activations become bytes at each call. A quarter of the memory, and faster; results differ by
--- some 1 %. The copy shares nothing with the network, is frozen and in evaluation; its state is saved and loaded as
--- any other's. The second result, printed, tells the sizes.
---@param options? {skip: table|function|nil, least: integer?, convolutions: boolean?} skip: paths or modules to be left
---   as they are, with all that is in them, or a function (path, layer) that says so; least = 16384: layers with fewer
---   weights are left, too; convolutions = false: Conv2d's are left
---@return table, table
---@example net = nn.Sequential{nn.Linear{64, 256, activation = "relu"}, nn.Linear{256, 256}, nn.Linear{256, 10}}
---@example small, sizes = net:quantize{skip = {"2"}}
---@example sizes
---@example small
function Module:quantize(options, ...)
  local new, report = require "marea.nn.quantize".run(self, options, ...)
  return new, report
end

--- What tostring shows in the parentheses of a layer.
function Module:describe() return "" end -- luacheck: no unused args

--- The keys of what tostring lists, in its order.
function Module:parts()
  local keys = {}
  for _, key in ipairs(module.public_keys(self)) do
    local value = self[key]
    if module.is_module(value) or (module.is_plain(value) and has_tensors(value)) then keys[#keys + 1] = key end
  end
  return keys
end

--- The tree of modules with the shapes of their tensors and the number of their elements.
function Module:tostring()
  return (require "marea.nn.tree"(self, module))
end

return module
