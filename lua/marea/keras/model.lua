-- SPDX-License-Identifier: MIT
--- A network as Keras' configuration describes it: a list of calls of its layers.
local core = require "marea.core"
local check = require "marea.internal.check"
local file = require "marea.keras.file"
local foreign = require "marea.nn.foreign"
local layers = require "marea.keras.layers"
local module = require "marea.nn.module"

---@class Model  what marea.keras.load gives: a module whose layers are in `layers`, by Keras' names
local Model = module.class "Model"

-- ---- the calls, as the configuration has them ----
--
-- call = {layer = name, args = tree, options = table of trees}. A tree is a value, a list of trees, or {from = key,
-- result = k}: the k-th result of the call with this key, "layer:k", k counting from 0.

-- What stands for a value among the arguments, by its class.
local VALUES = {}

--- Keras 3: tensors have where they come from.
function VALUES.__keras_tensor__(config)
  local layer, node, result = table.unpack(config.keras_history)
  return {from = ("%s:%d"):format(layer, node), result = result + 1}
end

--- A constant.
function VALUES.__numpy__(config)
  local x = core.tensor(type(config.value) == "table" and config.value or {config.value})
  if type(config.value) ~= "table" then x = x:reshape{} end
  return x:to(tostring(config.dtype):find "float" and "f32" or "i64"):keep()
end

VALUES.__tensor__ = VALUES.__numpy__

--- refuse(what) is called for a value of another class.
local function read_tree(value, refuse)
  if type(value) ~= "table" then return value end
  if type(value.class_name) == "string" then
    local read = VALUES[value.class_name]
    if read then return read(value.config) end
    return refuse("an argument of class " .. value.class_name)
  end
  local tree = {}
  for key, item in pairs(value) do tree[key] = read_tree(item, refuse) end
  return tree
end

--- Keras 2: a list of {layer, node, result, options}. A model among the layers has a call of its own before.
local function read_old(inputs, offset)
  local function read(value)
    if type(value) ~= "table" then return value end
    if type(value[1]) == "string" and math.type(value[2]) == "integer" and math.type(value[3]) == "integer" then
      return {from = ("%s:%d"):format(value[1], value[2] - (offset[value[1]] or 0)), result = value[3] + 1}
    end
    local tree = {}
    for key, item in pairs(value) do tree[key] = read(item) end
    return tree
  end
  local args, options = {}, {}
  if type(inputs[1]) == "string" then inputs = {inputs} end
  for i, input in ipairs(inputs) do
    args[i] = read(input)
    for key, value in pairs(input[4] or {}) do options[key] = read(value) end
  end
  return args, options
end

local function is_model(class) return class == "Functional" or class == "Model" or class == "Sequential" end

--- How many calls of a layer come before those that its configuration lists.
local function offsets(config, legacy)
  local offset = {}
  for _, entry in ipairs(config.layers) do
    local class = entry.class_name
    local first = is_model(class) and (entry.config.layers or entry.config)[1]
    local own = class ~= "Sequential" or first and first.class_name == "InputLayer"
      or first and first.config and (first.config.batch_input_shape or first.config.batch_shape)
    offset[entry.name] = is_model(class) and own and (legacy or class ~= "Sequential") and 1 or 0
  end
  return offset
end

local function functional_calls(config, offset, builder)
  local calls = {}
  for _, entry in ipairs(config.layers) do
    local function refuse(what) builder:refuse(what, entry.name) end
    for k, node in ipairs(entry.inbound_nodes) do
      local call = {layer = entry.name, key = ("%s:%d"):format(entry.name, k - 1)}
      if type(node) == "table" and node.args then
        call.args, call.options = read_tree(node.args, refuse), read_tree(node.kwargs or {}, refuse)
      else
        call.args, call.options = read_old(node, offset)
      end
      calls[#calls + 1] = call
    end
  end
  return calls
end

--- A Sequential is a chain.
local function chained_calls(entries)
  local calls, before = {}, "input:0"
  for _, entry in ipairs(entries) do
    if entry.class_name ~= "InputLayer" then
      local key = entry.config.name .. ":0"
      calls[#calls + 1] = {layer = entry.config.name, key = key, args = {{from = before, result = 1}}, options = {}}
      before = key
    end
  end
  return calls, before
end

--- The keys of all calls that a tree needs.
local function needs(tree, list)
  if type(tree) ~= "table" then return list end
  if tree.from then
    list[#list + 1] = tree.from
    return list
  end
  for _, item in pairs(tree) do needs(item, list) end
  return list
end

local function is_ready(call, done)
  for _, key in ipairs(needs(call.args, needs(call.options, {}))) do
    if not done[key] then return false end
  end
  return true
end

--- The calls in an order in which each has what it needs.
local function ordered(calls, inputs)
  local done, result = {}, {}
  for _, key in ipairs(inputs) do done[key] = true end
  while #calls > 0 do
    local waiting = {}
    for _, call in ipairs(calls) do
      if is_ready(call, done) then
        done[call.key] = true
        result[#result + 1] = call
      else
        waiting[#waiting + 1] = call
      end
    end
    if #waiting == #calls then file.fail("damaged: layer '%s' needs what no layer gives", waiting[1].layer) end
    calls = waiting
  end
  return result
end

--- Input or output layers: {name, node, result}, or a list of these, or a table of them by name, with others in it.
local function ports(value, offset, name, list)
  list = list or {}
  if not value then return list end
  local layer, node, result = value[1], value[2], value[3]
  if type(layer) == "string" then
    list[#list + 1] = {name = name or layer, layer = layer, from = ("%s:%d"):format(layer, node - (offset[layer] or 0)),
      result = result + 1}
    return list
  end
  for _, item in ipairs(value) do ports(item, offset, name, list) end
  local names = {}
  for key in pairs(value) do
    if type(key) == "string" then names[#names + 1] = key end
  end
  table.sort(names, core.before)
  for _, key in ipairs(names) do ports(value[key], offset, key, list) end
  return list
end

-- ---- making layers ----

--- "SeparableConv2D" -> "separable_conv2d": how .weights.h5 without names calls the layers of a class.
local function snake(class)
  return (class:gsub("%W", ""):gsub("(.)(%u%l+)", "%1_%2"):gsub("(%l)(%u)", "%1_%2"):lower())
end

local function join(path, name) return path == "" and name or path .. "." .. name end

--- What makes the layers of a file.
local Builder = {}
Builder.__index = Builder

--- "a.b.c.dense.kernel" -> "a.dense.kernel": of models in models .h5 leaves out some of the names between these.
local function ends(name) return (name:gsub("^([^.]+)%..*%.([^.]+%.[^.]+)$", "%1.%2")) end

--- The tensors by the ends of their names; false where several have the same.
local function by_ends(tensors)
  local result = {}
  for name, tensor in pairs(tensors) do
    local short = ends(name)
    result[short] = result[short] == nil and tensor
  end
  return result
end

--- The tensor whose name is `whole` but for some of the names of models after the first.
function Builder:find_by_end(whole)
  local first, rest = whole:match "^([^.]+)%.[^.]+%.(.+%..+)$"
  while rest do
    local tensor = self.tensors[first .. "." .. rest]
    if tensor then return tensor end
    rest = rest:match "^[^.]+%.(.+%..+)$"
  end
  return self.by_ends[ends(whole)]
end

--- The weight of a layer at `path`: by its name; by the same name with a number; by its number in the layer.
function Builder:find(path, name, numbered, number)
  local by_name = self.tensors
  local whole, group = join(path, name), self.groups[path]
  local tensor = by_name[whole] or by_name[join(path, numbered)] or group and group[number + 1]
    or self:find_by_end(whole)
  if not tensor then return nil end
  if self.used[tensor] and self.used[tensor] ~= path then
    file.fail("it does not tell the weights of '%s' and '%s' apart", self.used[tensor], path)
  end
  self.used[tensor] = path
  return tensor
end

local function missing(path, name) file.fail("layer '%s' has no '%s' in it", path, name) end

--- Gives a layer its weights.
function Builder:fill(layer, path)
  local tensors = foreign.layer(layer, "keras", foreign.taker(function(name, numbered, number)
    local tensor = self:find(path, name, numbered, number) or missing(path, name)
    return tensor:to "f32"
  end))
  if not tensors then return end
  local misfit = module.misfit(layer, tensors, true)
  if misfit then file.fail("layer '%s': %s", path, misfit) end
  module.assign(layer, tensors)
end

--- Keras 3: "Add" of keras.ops, and not the layer of this name, which says whether it is trained.
local function is_operator(builder, entry) return not builder.legacy and entry.config.trainable == nil end

--- One layer, and what it does with a mask; nil after its class, or the reason, was noted as missing here. A layer
--- that came before says so by an id: it is the one of its name and class.
function Builder:make(entry, path)
  local key = ("%s %s"):format(entry.class_name, entry.config.name or entry.name)
  local made = self.made[key]
  if entry.shared_object_id and made then
    if made == "several" then file.fail("it does not tell which layer '%s' is the same as", path) end
    return made.layer, made.mask
  end
  local layer, mask = self:make_new(entry, path)
  self.made[key] = made and "several" or {layer = layer, mask = mask}
  return layer, mask
end

function Builder:make_new(entry, path)
  local class, config = entry.class_name, entry.config
  if is_model(class) then return Model(self, entry, path) end
  if not layers[class] then
    self:refuse(class, path)
    return nil
  end
  local function weight(name, number, place)
    local numbered = name:gsub("[^.]*$", tostring(place or number))
    return self:find(path, name, numbered, number) or missing(path, name)
  end
  local ok, layer, mask = pcall(layers[class], config, weight,
    {legacy = self.legacy, is_operator = is_operator(self, entry),
      build = function(inner) return self:make(inner, path) end})
  if not ok then
    if type(layer) ~= "table" or not layer.refused then error(layer, 0) end
    self:refuse(("%s, %s"):format(class, layer.refused), path)
    return nil
  end
  self:fill(layer, path)
  if config.trainable == false then layer:freeze() end
  if is_operator(self, entry) then return layer, "drops" end
  return layer, mask or "keeps"
end

function Builder:refuse(what, path)
  self.refused[#self.refused + 1] = ("%s ('%s')"):format(what, path)
end

-- ---- the model ----

local OPTIONS = {mask = true, training = true, initial_state = true, use_causal_mask = true, attention_mask = true,
  query = true, value = true, key = true, key_mask = true, query_mask = true, value_mask = true,
  return_attention_scores = true}

--- What a layer is told at its call must be known here; what is false or left out is nothing.
local function check_options(builder, call)
  for _, name in ipairs(check.names(call.options)) do
    if call.options[name] and not OPTIONS[name] then builder:refuse("the argument " .. name, call.layer) end
  end
  if call.options.return_attention_scores then builder:refuse("return_attention_scores", call.layer) end
  if call.options.training and builder.legacy then builder:refuse("training = true in a call", call.layer) end
end

local function add_layer(self, builder, entry, path, name_there)
  local name = entry.name or entry.config.name
  if self.layers[name] then file.fail("damaged: two layers are called '%s'", join(path, name)) end
  self.layers[name], self._masks[name] = builder:make(entry, join(path, name_there or name))
end

--- Numbers the layers of each class: dense, dense_1.
local function namer()
  local counts = {}
  return function(class)
    local name = snake(class)
    counts[name] = (counts[name] or -1) + 1
    return counts[name] == 0 and name or ("%s_%d"):format(name, counts[name])
  end
end

--- The input layers of a chain: what its first entry, or its first layer, says.
local function chain_inputs(entries)
  local first = entries[1] and entries[1].config or {}
  local name = first.name or "input"
  return {{name = name, layer = name, from = "input:0", result = 1}}
end

--- entry: its configuration; path: where its weights are; {weights, legacy} of the file are in builder.
function Model:init(builder, entry, path)
  local config = entry.config
  local entries = config.layers or config
  self.layers, self._masks = {}, {}
  self.training = false
  self._legacy = builder.legacy
  local name_of = builder.unnamed and namer()
  for _, layer in ipairs(entries) do
    if layer.class_name ~= "InputLayer" then
      add_layer(self, builder, layer, path, name_of and name_of(layer.class_name))
    end
  end
  local calls, last
  if entry.class_name == "Sequential" then
    calls, last = chained_calls(entries)
    self._inputs, self._results = chain_inputs(entries), {{name = last:match "^(.*):", from = last, result = 1}}
  else
    local offset = offsets(config, builder.legacy)
    calls = functional_calls(config, offset, builder)
    self._inputs, self._results = ports(config.input_layers, offset), ports(config.output_layers, offset)
  end
  for _, call in ipairs(calls) do check_options(builder, call) end
  local inputs = {}
  for i, port in ipairs(self._inputs) do inputs[i] = port.from end
  self._calls = ordered(calls, inputs)
  self:read_shapes(entries)
end

--- The shapes of inputs, as the file gives them: -1 for any size.
function Model:read_shapes(entries)
  local shapes = {}
  for _, layer in ipairs(entries) do
    local c = layer.config
    local shape = c.batch_shape or c.batch_input_shape
    if shape then shapes[layer.name or c.name] = {shape = shape, dtype = c.dtype} end
  end
  for _, port in ipairs(self._inputs) do
    local known = shapes[port.layer]
    port.is_real = not known or type(known.dtype) ~= "string" or known.dtype:find "float" ~= nil
    if known then
      port.shape = {}
      for i, size in ipairs(known.shape) do port.shape[i] = size or -1 end
    end
  end
end

local function described(port)
  if not port.shape then return port.name end
  local sizes = {}
  for i, size in ipairs(port.shape) do sizes[i] = size < 0 and "any" or tostring(size) end
  return ("%s (%s)"):format(port.name, table.concat(sizes, ", "))
end

local function listed(list)
  local texts = {}
  for i, port in ipairs(list) do texts[i] = described(port) end
  return table.concat(texts, ", ")
end

function Model:describe() return listed(self._inputs) .. " -> " .. listed(self._results) end

local function named(ports_here)
  local list = {}
  for i, port in ipairs(ports_here) do list[i] = {name = port.name, shape = port.shape} end
  return list
end

--- What the network takes: names and shapes, -1 for any size, in the order of the arguments.
---@return {name: string, shape: integer[]?}[]
function Model:inputs() return named(self._inputs) end

--- What it gives, in order.
---@return {name: string}[]
function Model:results() return named(self._results) end

-- ---- running it ----

local function check_input(port, x)
  check.tensor("Model", port.name, x)
  local fits = not port.shape or x.rank == #port.shape
  for i, size in ipairs(fits and port.shape or {}) do fits = fits and (size < 0 or size == x:size(i)) end
  if not fits then check.raise("Model: expected %s, got %s", described(port), check.describe(x)) end
  return port.is_real and not x.dtype:find "f" and x:to "f32" or x
end

--- A tree with the tensors in it.
local function filled(tree, values)
  if type(tree) ~= "table" then return tree end
  if tree.from then return values[tree.from][tree.result] end
  local result = {}
  for key, item in pairs(tree) do result[key] = filled(item, values) end
  return result
end

--- All tensors and numbers of a tree of lists, in order.
local function flat(tree, list)
  for _, item in ipairs(tree) do
    if type(item) == "table" then flat(item, list) else list[#list + 1] = item end
  end
  return list
end

--- Where the mask of a result is; but for models, only the first result has one.
local function mask_key(key, result) return result == 1 and key or ("%s/%d"):format(key, result) end

--- The mask of an argument's time steps.
local function mask_at(tree, masks)
  return type(tree) == "table" and tree.from and masks[mask_key(tree.from, tree.result)] or nil
end

--- The masks of the arguments, in order; false where there is none.
local function masks_of(call, masks)
  local first, list = call.args[1], {}
  local trees = #call.args == 1 and type(first) == "table" and not first.from and first or call.args
  for i, tree in ipairs(trees) do list[i] = mask_at(tree, masks) or false end
  return list
end

--- a and b, of which either may be missing.
local function both(a, b) return a and b and a * b or a or b end

--- net(query, value, key, {mask, causal}). A step that a mask leaves out is no key, and as a query it sees no key.
--- forgets: Keras 3 takes the masks away from what attention was called with, so that later layers do not see them.
local function attend(layer, call, list, o, masks, forgets)
  local args, options = call.args, call.options
  local query, value, key = list[1] or o.query, o.value or list[2], o.key or list[3]
  masks[call.key] = mask_at(args[1] or options.query, masks)
  local queries = o.query_mask or masks[call.key]
  local values = o.value_mask or mask_at(options.value or args[2], masks)
  local keys = both(values, o.key_mask or mask_at(options.key or args[3], masks))
  local mask = both(o.attention_mask or nil, keys and keys:unsqueeze(2))
  local attended = {args[1] or options.query, options.value or args[2], options.key or args[3]}
  for _, tree in ipairs(forgets and attended or {}) do masks[mask_key(tree.from, tree.result)] = nil end
  return layer(query, value, key, {mask = both(mask, queries and queries:unsqueeze(3)), causal = o.use_causal_mask})
end

local function recur(layer, list, o, mask)
  local states = flat({o.initial_state or nil}, {})
  table.move(list, 2, #list, #states + 1, states)
  local given = layer:first_states(states)
  given.mask = mask
  return layer(list[1], given)
end

local Given = {} -- the metatable of {masks, results}: the masks of what a model takes, and of what it gives

--- A model in a model takes masks and gives those of its results.
local function run_model(model, call, list, given, masks)
  local o = setmetatable({masks = given}, Given)
  list[#list + 1] = o
  local results = {model(table.unpack(list))}
  for i, mask in pairs(o.results) do masks[mask_key(call.key, i)] = mask end
  return table.unpack(results)
end

local function run(self, call, values, masks)
  local layer, kind = self.layers[call.layer], self._masks[call.layer]
  local list, options = flat(filled(call.args, values), {}), filled(call.options, values)
  if layer.attention_output then return attend(layer, call, list, options, masks, not self._legacy) end
  local given, x = masks_of(call, masks), list[1]
  local mask = core.is_tensor(options.mask) and options.mask or given[1] or nil
  if layer._rank and x.rank ~= layer._rank then
    check.raise("Model: layer '%s' is for tensors of %d dimensions, got %s", call.layer, layer._rank, check.describe(x))
  end
  if kind == "keeps" then masks[call.key] = mask end
  if kind == "makes" then masks[call.key] = layer._mask(x) end
  if kind == "merges" then
    masks[call.key] = layer._merged_mask(list, given)
    list[#list + 1] = {masks = given}
    return layer(table.unpack(list))
  end
  if kind == "takes" and layer._sequences then masks[call.key] = mask end
  if layer.first_states then return recur(layer, list, options, mask) end
  if kind == "takes" then return layer(x, {mask = mask}) end
  if not kind then return run_model(layer, call, list, options.mask and {mask} or given, masks) end
  return layer(table.unpack(list))
end

--- The inputs in order, or by name in a table; and what run_model adds.
local function arguments(self, ...)
  local list, n = {...}, select("#", ...)
  local last = list[n]
  local o = {masks = {}}
  if getmetatable(last) == Given then
    o, list[n] = last, nil
    n = n - 1
  end
  if n == 1 and check.is_plain(list[1]) then
    local first = list[1]
    list = {}
    for i, port in ipairs(self._inputs) do list[i] = first[port.name] end
    n = #list
  end
  if n ~= #self._inputs then check.raise("Model: expected %s, got %d arguments", listed(self._inputs), n) end
  return list, o
end

function Model:forward(...)
  local values, masks = {}, {}
  local list, o = arguments(self, ...)
  for i, port in ipairs(self._inputs) do
    values[port.from], masks[port.from] = {check_input(port, list[i])}, o.masks[i] or nil
  end
  for _, call in ipairs(self._calls) do values[call.key] = {run(self, call, values, masks)} end
  local results = {}
  o.results = {}
  for i, port in ipairs(self._results) do
    results[i], o.results[i] = values[port.from][port.result], mask_at(port, masks)
  end
  return table.unpack(results)
end

--- The network of what keras/file.lua read; fails, naming everything, if something in it is not supported.
---@param content KerasFile
---@return table
return function(content)
  local state, groups = {}, {}
  for _, weight in ipairs(content.weights) do
    state[weight.name] = weight.tensor
    if weight.group then
      groups[weight.group] = groups[weight.group] or {}
      table.insert(groups[weight.group], weight.tensor)
    end
  end
  local tensors = foreign.normalized(state, "keras")
  local builder = setmetatable({tensors = tensors, by_ends = by_ends(tensors), groups = groups, used = {}, refused = {},
    made = {}, legacy = content.legacy, unnamed = content.unnamed}, Builder)
  local net = core.no_grad(Model, builder, content.config, "")
  if #builder.refused > 0 then file.fail("it needs what is not supported: %s", table.concat(builder.refused, ", ")) end
  for _, weight in ipairs(content.weights) do
    if not builder.used[weight.tensor] then file.fail("no layer takes '%s'", weight.name) end
  end
  return net:evaluate()
end
