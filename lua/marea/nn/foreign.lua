-- SPDX-License-Identifier: MIT
--- States of modules of PyTorch and Keras, by the names that they have there, as net:load_state(state, {from = ...})
--- takes them.
---
--- A module's tensors are looked for under its own path. PyTorch counts from 0: what is "2.weight" here is "1.weight"
--- there. Keras writes "encoder/lstm_cell/kernel:0" for what is read as "encoder.kernel". A layer that has other shapes
--- or names there has a rule below; any other module's tensors have the same names in both.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local ops = core.ops

local foreign = {}

-- A rule gets the layer and take(name), and returns the layer's tensors by their names here. take gives nil for a
-- tensor that is not there, after writing its name down as missing.
local rules = {torch = {}, keras = {}}
foreign.rules = rules

local function turned(t) return t and ops.permute(t, {2, 1}) end
local function sum(a, b) return a and b and a + b end

--- Part k of n along the last axis.
local function part(t, k, n)
  local size = t:size(-1) // n
  return ops.narrow(t, t.rank, (k - 1) * size + 1, size)
end

--- Layers whose tensors have other names only: {name here, name there} of each, in the order there.
local function renamed(names)
  return function(layer, take)
    local tensors = {}
    for _, pair in ipairs(names) do
      if layer[pair[1]] then tensors[pair[1]] = take(pair[2]) end
    end
    return tensors
  end
end

-- ---- PyTorch ----

function rules.torch.Linear(layer, take)
  return {weight = turned(take "weight"), bias = layer.has_bias and take "bias" or nil}
end

--- (Cout, Cin, KH, KW), of transposed convolutions (Cin, Cout, KH, KW); of sequences without KH.
local function convolution(layer, take)
  local weight = take "weight"
  local order = weight and weight.rank == 3 and {3, 2, 1} or {3, 4, 2, 1}
  return {weight = weight and ops.permute(weight, order), bias = layer.has_bias and take "bias" or nil}
end

for _, name in ipairs {"Conv1d", "ConvTranspose1d", "Conv2d", "ConvTranspose2d"} do rules.torch[name] = convolution end

--- Its out_proj is a Linear.
function rules.torch.MultiHeadAttention(layer, take)
  return {in_proj_weight = turned(take "in_proj_weight"), in_proj_bias = layer.in_proj_bias and take "in_proj_bias"}
end

local NORM = renamed {{"weight", "weight"}, {"bias", "bias"}, {"running_mean", "running_mean"},
  {"running_var", "running_var"}}

function rules.torch.BatchNorm(layer, take)
  take("num_batches_tracked", "optional")
  return NORM(layer, take)
end

--- One direction of one layer. The gates have the same order; what is one bias here is the sum of two there.
local function recurrent_weights(layer, take, suffix)
  local w = {w_x = turned(take("weight_ih" .. suffix)), w_h = turned(take("weight_hh" .. suffix))}
  if not layer.has_bias then return w end
  local input, hidden = take("bias_ih" .. suffix), take("bias_hh" .. suffix)
  w.bias = sum(input, hidden)
  if layer.attributes.reset_after == nil or not w.bias then return w end
  w.bias = ops.concat({part(w.bias, 1, 3), part(w.bias, 2, 3), part(input, 3, 3)}, 1)
  w.bias_h = part(hidden, 3, 3)
  return w
end

local function check_reset(layer)
  if layer.attributes.reset_after ~= false then return end
  check.raise("load_state: PyTorch's GRU has its reset gate after the product, this layer has reset_after = false")
end

--- The tensors under weights[layer].forward and .reverse; weights(k, reverse) gives those of one direction.
local function stack(layer, weights)
  local tensors = {}
  for k = 1, layer.layers do
    for _, direction in ipairs(layer.bidirectional and {"forward", "reverse"} or {"forward"}) do
      for name, t in pairs(weights(k, direction)) do tensors[("weights.%d.%s.%s"):format(k, direction, name)] = t end
    end
  end
  return tensors
end

local function recurrent(layer, take)
  check_reset(layer)
  return stack(layer, function(k, direction)
    return recurrent_weights(layer, take, ("_l%d%s"):format(k - 1, direction == "reverse" and "_reverse" or ""))
  end)
end

local function cell(layer, take)
  check_reset(layer)
  return recurrent_weights(layer, take, "")
end

for _, name in ipairs {"LSTM", "GRU", "RNN"} do
  rules.torch[name], rules.torch[name .. "Cell"] = recurrent, cell
end

rules.t7 = rules.torch -- torch7.lua makes states of PyTorch

-- ---- Keras ----

local KERNEL = renamed {{"weight", "kernel"}, {"bias", "bias"}}
for _, name in ipairs {"Linear", "Conv1d", "ConvTranspose1d", "Conv2d", "ConvTranspose2d"} do
  rules.keras[name] = KERNEL
end

--- A depthwise convolution has a kernel (..., in, multiplier) there: here in groups, each with multiplier results.
local function keras_convolution(layer, take)
  local tensors = KERNEL(layer, take)
  if tensors.weight and layer.inputs and layer.groups == layer.inputs then
    local shape = {tensors.weight:size()}
    shape[#shape - 1], shape[#shape] = 1, shape[#shape - 1] * shape[#shape]
    tensors.weight = tensors.weight:reshape(shape)
  end
  return tensors
end

rules.keras.Conv1d, rules.keras.Conv2d = keras_convolution, keras_convolution
rules.keras.Embedding = renamed {{"weight", "embeddings"}}
rules.keras.LayerNorm = renamed {{"weight", "gamma"}, {"bias", "beta"}}
rules.keras.GroupNorm = rules.keras.LayerNorm
rules.keras.RMSNorm = renamed {{"weight", "scale"}}
rules.keras.BatchNorm = renamed {{"weight", "gamma"}, {"bias", "beta"}, {"running_mean", "moving_mean"},
  {"running_var", "moving_variance"}}

--- Gates z r n there, r z n here.
local function reordered(t)
  return t and ops.concat({part(t, 2, 3), part(t, 1, 3), part(t, 3, 3)}, t.rank)
end

local function keras_weights(layer, take, prefix)
  local w = {w_x = take(prefix .. "kernel"), w_h = take(prefix .. "recurrent_kernel")}
  w.bias = layer.has_bias and take(prefix .. "bias") or nil
  if layer.attributes.reset_after == nil then return w end
  w.w_x, w.w_h, w.bias = reordered(w.w_x), reordered(w.w_h), reordered(w.bias)
  if not w.bias or not layer.attributes.reset_after then return w end
  if w.bias.rank ~= 2 then
    check.raise("load_state: Keras' GRU with reset_after has a bias (2, 3 out), got %s; layers without have "
      .. "reset_after = false", check.shape_text(w.bias.shape))
  end
  local input, hidden = w.bias:select(1, 1), w.bias:select(1, 2)
  local r, z = part(input, 1, 3) + part(hidden, 1, 3), part(input, 2, 3) + part(hidden, 2, 3)
  w.bias = ops.concat({r, z, part(input, 3, 3)}, 1)
  w.bias_h = part(hidden, 3, 3)
  return w
end

local function keras_recurrent(layer, take)
  if layer.layers > 1 then
    check.raise("load_state: Keras' recurrent layers are single ones, this %s has layers = %d",
      getmetatable(layer).__name, layer.layers)
  end
  return stack(layer, function(_, direction)
    local prefix = direction == "reverse" and "backward." or "forward."
    return keras_weights(layer, take, layer.bidirectional and prefix or "")
  end)
end

local function keras_cell(layer, take) return keras_weights(layer, take, "") end

for _, name in ipairs {"LSTM", "GRU", "RNN"} do
  rules.keras[name], rules.keras[name .. "Cell"] = keras_recurrent, keras_cell
end

-- ---- names ----

local readers = {}

--- "2.weight" -> "1.weight"
function readers.torch(path)
  return (path:gsub("%f[^.\0]%d+%f[.\0]", function(number) return tostring(math.tointeger(number) - 1) end))
end

readers.t7 = readers.torch

function readers.keras(path) return path end

local function dotted(name) return (name:gsub("/", "."):gsub(":%d+$", "")) end

--- "a.lstm.lstm_cell.kernel" -> "a.lstm.kernel", "b.forward_gru.kernel" -> "b.forward.kernel", where recurrent layers
--- are; "a.depthwise_kernel" -> "a.kernel" where there is no second one, as Keras 3 calls it.
---@param all table<string, any> the dotted names of the whole state
local function normal_keras(name, all)
  local head, last = name:match "^(.*)%.([^.]+)$"
  if last == "depthwise_kernel" and not all[head .. ".pointwise_kernel"] then return head .. ".kernel" end
  if not head or not all[head .. ".recurrent_kernel"] then return name end
  local layer, inner = head:match "^(.+)%.([^.]+)$"
  if inner and inner:find "^%l[%l_]*_cell[%d_]*$" then head = layer end
  local above, direction = head:match "^(.+)%.(%l+)_[^.]*$"
  if direction == "forward" or direction == "backward" then head = above .. "." .. direction end
  return head .. "." .. last
end

--- The state by the names that are looked for, and these -> the names that were given.
function foreign.normalized(state, from)
  local result, given = {}, {}
  local names, all = {}, {}
  for name in pairs(state) do
    names[#names + 1] = name
    all[dotted(name)] = true
  end
  table.sort(names, core.before)
  for _, name in ipairs(names) do
    local normal = from == "keras" and normal_keras(dotted(name), all) or name
    if given[normal] then
      check.raise("load_state: '%s' and '%s' are both read as '%s'", given[normal], name, normal)
    end
    result[normal], given[normal] = state[name], name
  end
  return result, given
end

-- ---- names that a file's user maps ----

--- What a function makes of a name there: that which the framework has for the same place here; nil: it is left out.
local function by_function(map, name, read, what)
  local own = map(name)
  if own and type(own) ~= "string" then
    check.fail(what, ("map('%s')"):format(name), "a name, or nil to leave it out", own)
  end
  return own and read(own) or nil
end

--- The same of a table, whose keys are whole names or those of modules; the longest one counts.
local function by_table(map, name, read)
  local head = name
  while head and map[head] == nil do head = head:match "^(.*)%." end
  if not head then return name end
  local own = map[head]
  if own == "" then return name:sub(#head + 2) end
  return own and read(tostring(own)) .. name:sub(#head + 1) or nil
end

--- The state with the names that `map` gives.
---@param what string the function that was called
---@param from "torch"|"keras"
---@param state table<string, userdata>
---@param map table|function
---@return table<string, userdata>
function foreign.renamed(what, from, state, map)
  local result, given = {}, {}
  for _, name in ipairs(check.names(state)) do
    local own = (type(map) == "function" and by_function or by_table)(map, name, readers[from], what)
    if own then
      if given[own] then check.raise("%s: '%s' and '%s' get the same name", what, given[own], name) end
      result[own], given[own] = state[name], name
    end
  end
  return result
end

--- The rule of the layer's class, which must be one of this library: of marea.nn by its name, or by itself.
local function rule_of(m, from)
  local class = getmetatable(m)
  local nn = require "marea.nn"
  return rules[from][class] or rawget(nn, class.__name) == class and rules[from][class.__name] or nil
end

--- take(name) for the tensors of one layer, which a rule asks for in their order there. Some files of Keras number
--- them: find gets the name, the same with a number from 0 on for its last part, and the tensor's number in the layer.
---@param find fun(name: string, numbered: string, number: integer, optional: any): userdata?
function foreign.taker(find)
  local numbers, count = {}, 0
  return function(name, optional)
    local head = name:match "^(.*%.)[^.]*$" or ""
    local number = numbers[head] or 0
    numbers[head], count = number + 1, count + 1
    return find(name, head .. number, count - 1, optional)
  end
end

--- The tensors of one layer by their names here; nil: there is no rule for its class.
function foreign.layer(layer, from, take)
  local rule = rule_of(layer, from)
  return rule and rule(layer, take)
end

local function join(path, name) return path == "" and name or path .. "." .. name end

--- The state of `root` here, from a state of the same module there. Names that are missing or left over are an error,
--- unless `strict` is false.
---@param from "torch"|"keras"|"t7"
function foreign.translate(root, state, from, strict)
  local tensors, given = foreign.normalized(state, from)
  local translated, used, missing = {}, {}, {}
  local function take(name, optional)
    used[name] = true
    if not tensors[name] and not optional then missing[#missing + 1] = name end
    return tensors[name]
  end
  local ruled = {}
  for _, entry in ipairs(module.modules(root)) do
    local rule = rule_of(entry.module, from)
    if rule then
      ruled[#ruled + 1] = entry.path
      local there = readers[from](entry.path)
      local own = rule(entry.module, foreign.taker(function(name, numbered, _, optional)
        local by_number = from == "keras" and not tensors[join(there, name)] and tensors[join(there, numbered)]
        return take(join(there, by_number and numbered or name), optional)
      end))
      for name, t in pairs(own) do translated[join(entry.path, name)] = t end
    end
  end
  local function is_ruled(name)
    for _, path in ipairs(ruled) do
      if path == "" or name:sub(1, #path + 1) == path .. "." then return true end
    end
  end
  for _, entry in ipairs(module.tensors(root)) do
    if not is_ruled(entry.name) then translated[entry.name] = take(readers[from](entry.name)) end
  end
  if not strict then return translated end
  local unexpected = {}
  for name in pairs(tensors) do
    if not used[name] then unexpected[#unexpected + 1] = given[name] end
  end
  local text = module.differences(missing, unexpected)
  if text then check.raise("load_state: the state of %s does not fit the module\n%s", from, text) end
  return translated
end

return foreign
