-- SPDX-License-Identifier: MIT
--- Keras' layers by the names of their classes: what makes one here from its configuration.
---
--- layers[class](c, w, context) -> module, mask. c: the configuration. w(name, k, place): the layer's weight of this
--- name, or its k-th one (from 0) where a file lists them; place: its number in its part of the layer, where a layer
--- has parts. A file without it is refused. context.legacy: the file is of Keras 1 or 2; context.build(entry) makes the
--- layer inside of a layer; context.is_operator: it is one of keras.ops, which only has the layer's name. mask: what
--- becomes of the mask of time steps: "keeps" (the default), "takes" (the layer gets it, keeps it if `_sequences`),
--- "makes" (module._mask(x) gives it), "merges" (the layer gets {masks = list} after its tensors, and
--- module._merged_mask(tensors, masks) gives it) or "drops".
--- Source: the layers' documentation and behaviour in Keras 3 and 2.
local core = require "marea.core"
local check = require "marea.internal.check"
local parts = require "marea.keras.parts"
local nn = require "marea.nn"
local ops = core.ops

local layers = {}

--- The layer cannot be made: `why` names what there is no equal of here.
local function refuse(why, ...) error({refused = core.format(why, ...)}, 0) end

--- An entry of the configuration is left out, null, or one of these.
local function only(c, name, ...)
  local value = c[name]
  if not value then return end
  for _, allowed in ipairs{...} do
    if value == allowed then return end
  end
  refuse("%s = %s", name, type(value) == "table" and (value.class_name or "a list") or tostring(value))
end

-- ---- activations ----

local function hard_sigmoid_2(x) return (x * 0.2 + 0.5):clamp(0, 1) end
local function hard_sigmoid_3(x) return (x + 3):relu6() * (1 / 6) end

local SELU_SCALE <const>, SELU_ALPHA <const> = 1.0507009873554805, 1.6732632423543772 -- Klambauer et al. 2017

-- What the `activation` argument of a layer here takes, or a function.
local ACTIVATIONS = {
  linear = "none", relu = "relu", relu6 = "relu6", elu = "elu", sigmoid = "sigmoid", tanh = "tanh",
  softplus = "softplus", gelu = "gelu", silu = "silu", swish = "silu", softmax = "softmax",
  log_softmax = "log_softmax", exponential = ops.exp,
  softsign = function(x) return x / (x:abs() + 1) end,
  mish = function(x) return x * x:softplus():tanh() end,
  selu = function(x) return x:elu{alpha = SELU_ALPHA} * SELU_SCALE end,
  hard_silu = "hard_swish", hard_swish = "hard_swish",
  leaky_relu = function(x) return x:leaky_relu{slope = 0.2} end,
}

--- The activation that an entry of a configuration means.
local function activation_of(value, context)
  if not value then return "none" end
  local name = type(value) == "table" and (value.config or value.class_name) or value
  if name == "hard_sigmoid" then return context.legacy and hard_sigmoid_2 or hard_sigmoid_3 end
  local found = type(name) == "string" and ACTIVATIONS[name]
  if not found then refuse("activation = %s", type(name) == "string" and name or "an object") end
  return found
end

--- The same as a function.
local function activation_function(value, context)
  local found = activation_of(value, context)
  if type(found) == "function" then return found end
  if found == "none" then return function(x) return x end end
  return ops[found]
end

local function functional(title, f, text) return parts.Function(title, f, text) end

function layers.Activation(c, _, context)
  local name = type(c.activation) == "table" and (c.activation.config or c.activation.class_name) or c.activation
  return functional("activation", activation_function(c.activation, context), tostring(name))
end

function layers.ReLU(c)
  local slope, threshold, highest = c.negative_slope or 0, c.threshold or 0, c.max_value
  if slope == 0 and threshold == 0 and not highest then return nn.ReLU{} end
  if slope == 0 and threshold == 0 and highest == 6 then return nn.ReLU6{} end
  return functional("relu", function(x)
    local above = x:ge(threshold):to(x.dtype)
    local y = x * above + (x - threshold) * slope * (1 - above)
    return highest and y:minimum(highest) or y
  end)
end

function layers.LeakyReLU(c) return nn.LeakyReLU{slope = c.negative_slope or c.alpha or 0.3} end
function layers.ELU(c) return nn.ELU{alpha = c.alpha or 1} end

function layers.PReLU(_, w)
  local alpha = w("alpha", 0)
  return parts.PReLU(alpha.shape)
end

function layers.Softmax(c)
  local axis = c.axis
  if type(axis) == "table" then
    if #axis > 1 then refuse "a softmax over several axes" end
    axis = axis[1]
  end
  return nn.Softmax{dim = axis < 0 and axis or axis + 1}
end

-- ---- dense layers and convolutions ----

function layers.Dense(c, w, context)
  local inputs, outputs = w("kernel", 0):size()
  return nn.Linear{inputs, outputs, bias = c.use_bias, activation = activation_of(c.activation, context)}
end

--- Layers that know one order of dimensions only.
local function channels_last(c) only(c, "data_format", "channels_last") end

--- Sizes of an image, {height, width}, or a length.
local function sizes(rank, value)
  if type(value) ~= "table" then return value end
  return rank == 1 and value[1] or value
end

--- nil where all of them are 1, which is what a layer here takes it for.
local function unless_one(value)
  if type(value) ~= "table" then return value ~= 1 and value or nil end
  return (value[1] ~= 1 or value[2] ~= 1) and value or nil
end

--- The arguments that convolutions have in common. The kernel's size is that of the weight.
local function convolution(c, rank, weight, context)
  channels_last(c)
  local kernel = rank == 1 and weight:size(1) or {weight:size(1), weight:size(2)}
  local o = {kernel = kernel, stride = unless_one(sizes(rank, c.strides)), padding = c.padding,
    dilation = unless_one(sizes(rank, c.dilation_rate or 1)), bias = c.use_bias,
    groups = c.groups and c.groups > 1 and c.groups or nil, activation = activation_of(c.activation, context)}
  if c.padding == "causal" then o.padding = {(o.dilation or 1) * (o.kernel - 1), 0} end
  return o
end

--- A transposed convolution of Keras gives at least in * stride rows, even if the kernel is smaller than the stride.
local function missing_rows(kernel, stride)
  if not stride then return nil end
  if type(kernel) ~= "table" then return math.max(stride - kernel, 0) end
  return {math.max(stride[1] - kernel[1], 0), math.max(stride[2] - kernel[2], 0)}
end

local function define_convolutions(rank)
  local Conv, Transpose = nn[("Conv%dd"):format(rank)], nn[("ConvTranspose%dd"):format(rank)]

  layers[("Conv%dD"):format(rank)] = function(c, w, context)
    local kernel = w("kernel", 0)
    local o = convolution(c, rank, kernel, context)
    o[1], o[2] = kernel:size(-2) * (o.groups or 1), kernel:size(-1)
    return Conv(o), "drops"
  end

  layers[("DepthwiseConv%dD"):format(rank)] = function(c, w, context)
    local kernel = w("kernel", 0) -- foreign.lua takes the name depthwise_kernel for the same
    local o = convolution(c, rank, kernel, context)
    o.groups = kernel:size(-2)
    o[1], o[2] = o.groups, o.groups * kernel:size(-1)
    return Conv(o), "drops"
  end

  layers[("Conv%dDTranspose"):format(rank)] = function(c, w, context)
    only(c, "output_padding")
    local kernel = w("kernel", 0)
    local o = convolution(c, rank, kernel, context)
    o[1], o[2] = kernel:size(-1), kernel:size(-2) * (o.groups or 1)
    if c.padding == "valid" then o.output_padding = missing_rows(o.kernel, o.stride) end
    return Transpose(o), "drops"
  end

  layers[("SeparableConv%dD"):format(rank)] = function(c, w, context)
    local depthwise, pointwise = w("depthwise_kernel", 0), w("pointwise_kernel", 1)
    local o = convolution(c, rank, depthwise, context)
    local first = {stride = o.stride, padding = o.padding, dilation = o.dilation}
    return parts.SeparableConv(("conv%dd"):format(rank), depthwise.shape, pointwise.shape, c.use_bias, first,
      activation_function(c.activation, context)), "drops"
  end
end

define_convolutions(1)
define_convolutions(2)

-- ---- pooling and sizes ----

local function define_pools(rank)
  for there, here in pairs{Max = "Max", Average = "Avg"} do
    layers[("%sPooling%dD"):format(there, rank)] = function(c)
      channels_last(c)
      return nn[("%sPool%dd"):format(here, rank)]{kernel = sizes(rank, c.pool_size),
        stride = sizes(rank, c.strides or c.pool_size), padding = c.padding == "same" and "same" or nil}, "drops"
    end
  end
end

define_pools(1)
define_pools(2)

--- The mean of the steps that count.
local function masked_mean(x, mask, o)
  local counted = mask:to(x.dtype):unsqueeze(3)
  return (x * counted):sum(o) / counted:sum(o)
end

for rank, dims in ipairs{{2}, {2, 3}} do
  layers[("GlobalAveragePooling%dD"):format(rank)] = function(c)
    channels_last(c)
    local o = {dims = dims, keepdim = c.keepdims}
    return functional("mean", function(x, options)
      if rank == 1 and options and options.mask then return masked_mean(x, options.mask, o) end
      return ops.mean(x, o)
    end), rank == 1 and "takes" or "drops"
  end
  layers[("GlobalMaxPooling%dD"):format(rank)] = function(c)
    channels_last(c)
    local o = {dims = dims, keepdim = c.keepdims}
    return functional("max", function(x) return ops.max(x, o) end), "drops"
  end
end

--- Padding or cropping as {{before, after} for each dimension}.
local function borders(rank, value)
  if type(value) ~= "table" then value = {value, value} end
  if rank == 1 then return {value} end
  local list = {}
  for i = 1, 2 do list[i] = type(value[i]) == "table" and value[i] or {value[i], value[i]} end
  return list
end

for rank = 1, 2 do
  layers[("ZeroPadding%dD"):format(rank)] = function(c)
    channels_last(c)
    local padding = {0, 0}
    for _, pair in ipairs(borders(rank, c.padding)) do table.move(pair, 1, 2, #padding + 1, padding) end
    return functional("zeros around", function(x) return x:pad{padding = padding} end), "drops"
  end
  layers[("Cropping%dD"):format(rank)] = function(c)
    channels_last(c)
    local cut = borders(rank, c.cropping)
    return functional("cropped", function(x)
      for i, pair in ipairs(cut) do x = x:narrow(i + 1, pair[1] + 1, x:size(i + 1) - pair[1] - pair[2]) end
      return x
    end), "drops"
  end
end

function layers.UpSampling2D(c)
  channels_last(c)
  only(c, "interpolation", "nearest", "bilinear")
  return nn[c.interpolation == "bilinear" and "UpsampleBilinear2d" or "UpsampleNearest2d"]{scale = c.size}, "drops"
end

function layers.UpSampling1D(c)
  return functional("repeated", function(x)
    return x:unsqueeze(3):upsample_nearest2d{scale = {c.size, 1}}:squeeze(3)
  end), "drops"
end

function layers.Flatten(c)
  channels_last(c)
  return nn.Flatten{}, "drops"
end

function layers.Reshape(c) return nn.Reshape(c.target_shape), "drops" end

function layers.Permute(c)
  local order = {1}
  for i, dim in ipairs(c.dims) do order[i + 1] = dim + 1 end
  return functional("permuted", function(x) return x:permute(order) end), "drops"
end

function layers.RepeatVector(c)
  return functional("repeated", function(x) return x:unsqueeze(2):expand{x:size(1), c.n, x:size(2)} end), "drops"
end

-- ---- normalization ----

--- The axes of a normalization must be the last ones of x; counted from the front they tell how many x has.
---@return integer|nil rank
local function check_last(value)
  local axes = type(value) == "table" and value or {value}
  for i, axis in ipairs(axes) do
    local expected = axis < 0 and i - #axes - 1 or axes[1] + i - 1
    if axis ~= expected then refuse "axes that are not the last" end
  end
  return axes[1] >= 0 and axes[#axes] + 1 or nil
end

--- Model refuses what has another number of dimensions.
local function of_rank(layer, rank)
  layer._rank = rank
  return layer
end

function layers.BatchNormalization(c, w)
  local rank = check_last(c.axis)
  local any = w(c.scale and "gamma" or c.center and "beta" or "moving_mean", 0)
  return of_rank(nn.BatchNorm{any:size(1), momentum = c.momentum, eps = c.epsilon, center = c.center, scale = c.scale},
    rank)
end

layers.BatchNormalizationV1, layers.SyncBatchNormalization = layers.BatchNormalization, layers.BatchNormalization

function layers.LayerNormalization(c, w)
  if c.rms_scaling then refuse "rms_scaling = true" end
  local rank = check_last(c.axis)
  local first = (c.scale or c.center) and w(c.scale and "gamma" or "beta", 0)
  if not first and type(c.axis) == "table" and #c.axis > 1 then refuse "several axes without weights" end
  return of_rank(nn.LayerNorm{first and {first:size()}, eps = c.epsilon, center = c.center, scale = c.scale}, rank)
end

function layers.RMSNormalization(c, w)
  local rank = check_last(c.axis)
  return of_rank(nn.RMSNorm{{w("scale", 0):size()}, eps = c.epsilon}, rank)
end

function layers.GroupNormalization(c, w)
  local rank = check_last(c.axis)
  if not c.scale and not c.center then refuse "neither scale nor center" end
  local channels = w(c.scale and "gamma" or "beta", 0):size(1)
  return of_rank(nn.GroupNorm{channels, groups = c.groups == -1 and channels or c.groups, eps = c.epsilon,
    center = c.center, scale = c.scale}, rank)
end

local function normalized(x, dim) return x * x:square():sum{dims = {dim}, keepdim = true}:maximum(1e-12):rsqrt() end

--- x / |x|, with no less than 1e-12 below the root.
function layers.UnitNormalization(c)
  if type(c.axis) == "table" and #c.axis > 1 then refuse "several axes" end
  local axis = type(c.axis) == "table" and c.axis[1] or c.axis
  return functional("unit", function(x) return normalized(x, axis < 0 and axis or axis + 1) end)
end

--- Numbers of a configuration: one, or lists as a tensor that stays.
local function numbers(value) return type(value) == "table" and core.tensor(value):keep() or value end

function layers.Normalization(c, w, context)
  local axes = c.axis == nil and {-1} or c.axis and (type(c.axis) == "table" and c.axis or {c.axis}) or {}
  if c.mean then
    return parts.Normalization(numbers(c.mean), numbers(c.variance), axes, c.invert), context.legacy and "drops"
  end
  return parts.Normalization(w("mean", 0), w("variance", 1), axes, c.invert, true), context.legacy and "drops"
end

function layers.Rescaling(c, _, context)
  local scale, offset = numbers(c.scale), numbers(c.offset or 0)
  return functional("scaled", function(x) return x:to "f32" * scale + offset end), context.legacy and "drops"
end

-- ---- what is random in training ----

--- Drops together what noise_shape has one number for; its sizes are those of x where it has none.
local function dropout_of(c, noise_shape)
  return parts.Noise("dropped together", function(x)
    local shape = {x:size()}
    for i in ipairs(shape) do shape[i] = noise_shape[i] or shape[i] end
    return x * ops.dropout(ops.full(shape, 1), c.rate)
  end, core.format("p %g", c.rate))
end

function layers.Dropout(c)
  if c.noise_shape then return dropout_of(c, c.noise_shape) end
  return nn.Dropout{p = c.rate}
end

function layers.SpatialDropout1D(c) return dropout_of(c, {false, 1, false}) end

function layers.SpatialDropout2D(c)
  channels_last(c)
  return dropout_of(c, {false, 1, 1, false})
end

function layers.GaussianNoise(c)
  return parts.Noise("noise", function(x) return x + ops.normal(x.shape) * c.stddev end)
end

function layers.GaussianDropout(c)
  local deviation = math.sqrt(c.rate / (1 - c.rate))
  return parts.Noise("noise", function(x) return x * (ops.normal(x.shape) * deviation + 1) end)
end

for _, name in ipairs{"RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast",
  "RandomBrightness"} do
  layers[name] = function()
    return parts.Noise(name, function()
      check.raise("Model: %s is not done here in training, where marea.augment changes images", name)
    end)
  end
end

local function identity() return functional("same", function(x) return x end) end

layers.ActivityRegularization, layers.InputLayer, layers.Identity = identity, identity, identity

-- ---- sequences ----

function layers.Embedding(c, w)
  local layer = parts.Embedding(w("embeddings", 0):size())
  if not c.mask_zero then return layer, "drops" end
  layer._mask = function(x) return x:ne(0) end
  return layer, "makes"
end

function layers.Masking(c)
  local value = c.mask_value or 0
  local layer = functional("mask", function(x) return x * x:ne(value):any{dims = {-1}, keepdim = true}:to(x.dtype) end)
  layer._mask = function(x) return x:ne(value):any{dims = {-1}} end
  return layer, "makes"
end

local function gate_of(c, context)
  if c.recurrent_activation == "sigmoid" then return "sigmoid" end
  if c.recurrent_activation == "hard_sigmoid" and context.legacy then return "hard_sigmoid" end
  refuse("recurrent_activation = %s", tostring(c.recurrent_activation))
end

-- nn's layer of a class, its number of gates and its arguments.
local RECURRENT = {
  LSTM = {"LSTM", 4, function(c, context)
    only(c, "activation", "tanh")
    return {recurrent_activation = gate_of(c, context)}
  end},
  GRU = {"GRU", 3, function(c, context)
    only(c, "activation", "tanh")
    return {recurrent_activation = gate_of(c, context), reset_after = c.reset_after or false}
  end},
  SimpleRNN = {"RNN", 1, function(c)
    only(c, "activation", "tanh", "relu")
    return {activation = c.activation}
  end},
}

local function recurrent(class, c, w, context, bidirectional)
  local name, gates, read = table.unpack(RECURRENT[class])
  if c.stateful then refuse "stateful = true" end
  local o, front = read(c, context), bidirectional and "forward." or ""
  local inputs, width = w(front .. "kernel", 0):size()
  o[1], o[2] = inputs, w(front .. "recurrent_kernel", 1, 1):size(1)
  if width ~= gates * o[2] then check.raise("a kernel of %d columns for %d units", width, o[2]) end
  o.bidirectional, o.bias = bidirectional, c.use_bias
  return nn[name](o)
end

for class in pairs(RECURRENT) do
  layers[class] = function(c, w, context)
    return parts.Recurrent(recurrent(class, c, w, context), {sequences = c.return_sequences, states = c.return_state,
      backwards = c.go_backwards, zeros = c.zero_output_for_mask, merge = "concat"}), "takes"
  end
end

--- Both directions are alike.
local function check_backward(forward, backward)
  if not backward then return end
  local class = backward.class_name
  if class ~= forward.class_name then refuse("backward_layer of class %s", tostring(class)) end
  for _, name in ipairs{"units", "activation", "recurrent_activation", "use_bias", "reset_after", "return_sequences",
    "return_state", "zero_output_for_mask"} do
    if backward.config[name] ~= forward.config[name] then
      refuse("backward_layer with %s = %s", name, tostring(backward.config[name]))
    end
  end
  if not backward.config.go_backwards then refuse "backward_layer with go_backwards = false" end
end

function layers.Bidirectional(c, w, context)
  local class, inner = c.layer.class_name, c.layer.config
  if not RECURRENT[class] then refuse("of a layer %s", tostring(class)) end
  only(c, "merge_mode", "concat", "sum", "mul", "ave")
  if not c.merge_mode then refuse "merge_mode = None" end
  if inner.go_backwards then refuse "go_backwards = true" end
  check_backward(c.layer, c.backward_layer)
  return parts.Recurrent(recurrent(class, inner, w, context, true), {sequences = inner.return_sequences,
    states = inner.return_state, merge = c.merge_mode,
    zeros = inner.zero_output_for_mask or context.legacy and inner.return_sequences}), "takes"
end

-- Layers that treat each step alike without being told.
local STEPWISE = {Dense = true, Activation = true, Dropout = true, LayerNormalization = true, ReLU = true,
  LeakyReLU = true, ELU = true, Rescaling = true}

function layers.TimeDistributed(c, _, context)
  local layer = context.build(c.layer)
  return STEPWISE[c.layer.class_name] and layer or parts.Steps(layer)
end

-- ---- several inputs ----

--- f over a list: f(f(a, b), c).
local function folded(f)
  return function(list)
    local y = list[1]
    for i = 2, #list do y = f(y, list[i]) end
    return y
  end
end

--- Dimensions that are missing come behind the batch: layers (and not operators) broadcast from the front.
local function aligned(list)
  local rank, result = 0, {}
  for _, x in ipairs(list) do rank = math.max(rank, x.rank) end
  for i, x in ipairs(list) do
    for _ = x.rank + 1, rank do x = x:unsqueeze(2) end
    result[i] = x
  end
  return result
end

--- The mask of merged time steps. Keras 2: what all masks have that are there; Keras 3: what one of them has, where all
--- are there.
local function merged_mask(masks, legacy)
  local result
  for _, mask in ipairs(masks) do
    if not mask and not legacy then return nil end
    if mask and result then
      result = legacy and result * mask or result:maximum(mask)
    else
      result = result or mask or nil
    end
  end
  return result
end

--- x at the time steps of a mask, else `other`.
local function where(mask, x, other)
  local counted = mask:to(x.dtype):unsqueeze(mask.rank + 1)
  return x * counted + (1 - counted) * other
end

--- The products of Keras 3: masked time steps count as 1.
local function masked_product(list, masks)
  local y
  for i, x in ipairs(list) do
    if masks[i] then x = where(masks[i], x, 1) end
    y = y and y * x or x
  end
  local mask = merged_mask(masks)
  return mask and where(mask, y, 0) or y
end

--- The maxima and minima of Keras 3: at masked time steps the other tensor counts.
local function masked_extremum(f)
  return function(list, masks)
    local y, before = list[1], masks[1]
    for i = 2, #list do
      local x, mask = list[i], masks[i]
      if mask then x = where(mask, x, y) end
      if before then y = where(before, y, x) end
      before = before and mask and before:maximum(mask)
      y = f(y, x)
    end
    return y
  end
end

--- A layer that f makes one tensor of a list of tensors; with_masks(list, masks) does in Keras 3.
local function merge(title, f, with_masks)
  return function(_, _, context)
    if context.is_operator then return functional(title, function(...) return f{...} end) end
    local layer = functional(title, function(...)
      local list = {...}
      local masks = table.remove(list).masks
      list = aligned(list)
      if with_masks and not context.legacy then return with_masks(list, masks) end
      return f(list)
    end)
    layer._merged_mask = function(_, masks) return merged_mask(masks, context.legacy) end
    return layer, "merges"
  end
end

local function sum(a, b) return a + b end
local function product(a, b) return a * b end

layers.Add = merge("a + b", folded(sum))
layers.Subtract = merge("a - b", folded(function(a, b) return a - b end))
layers.Multiply = merge("a b", folded(product), masked_product)
layers.Divide = merge("a / b", folded(function(a, b) return a / b end))
layers.TrueDivide = layers.Divide
layers.Maximum = merge("maximum", folded(ops.maximum), masked_extremum(ops.maximum))
layers.Minimum = merge("minimum", folded(ops.minimum), masked_extremum(ops.minimum))
layers.NotEqual = merge("a ~= b", folded(ops.ne))
layers.LogicalOr = merge("a or b", folded(ops.maximum))
layers.LogicalAnd = merge("a and b", folded(product))
layers.Average = merge("mean", function(list) return folded(sum)(list) / #list end)

--- Masks of tensors that are joined at time steps; true for all steps where there is none.
local function joined_mask(list, masks)
  local result, any = {}, false
  for i, x in ipairs(list) do
    result[i] = masks[i] or ops.full({x:size(1), x:size(2)}, 1):to "u8"
    any = any or masks[i]
  end
  return any and ops.concat(result, 2) or nil
end

function layers.Concatenate(c, _, context)
  local axis = c.axis or -1
  local function dim_of(x) return axis < 0 and x.rank + 1 + axis or axis + 1 end
  local layer = functional("joined", function(first, ...)
    local list = {first, ...}
    if not core.is_tensor(list[#list]) then table.remove(list) end
    return ops.concat(list, dim_of(first))
  end)
  layer._merged_mask = function(list, masks)
    if dim_of(list[1]) == 2 and list[1].rank > 2 then return joined_mask(list, masks) end
    return merged_mask(masks, context.legacy)
  end
  return layer, "merges"
end

-- ---- operators that Keras 3 makes masks with ----

function layers.ExpandDims(c)
  if type(c.axis) ~= "number" then refuse "several axes" end
  return functional("expanded", function(x) return x:unsqueeze(c.axis < 0 and c.axis or c.axis + 1) end)
end

for name, value in pairs{ZerosLike = 0, OnesLike = 1} do
  layers[name] = function(c)
    local dtype = c.dtype == "bool" and "u8"
    return functional(tostring(value), function(x) return ops.full(x.shape, value):to(dtype or x.dtype) end)
  end
end

function layers.Any(c)
  if type(c.axis) ~= "number" then refuse "several axes" end
  local o = {dims = {c.axis < 0 and c.axis or c.axis + 1}, keepdim = c.keepdims}
  return functional("any", function(x) return x:any(o) end)
end

--- x with the dimension `axis` (from 0) at the end, and the others, but for the batch, as one.
local function contracted(x, axis)
  local order, rest, size = {1}, {}, 1
  for dim = 2, x.rank do
    if dim ~= axis + 1 then
      order[#order + 1] = dim
      rest[#rest + 1] = x:size(dim)
      size = size * x:size(dim)
    end
  end
  order[#order + 1] = axis + 1
  return x:permute(order):reshape{x:size(1), size, x:size(axis + 1)}, rest
end

function layers.Dot(c)
  local axes = type(c.axes) == "table" and c.axes or {c.axes, c.axes}
  return functional("dot", function(a, b)
    local at, to = axes[1] < 0 and a.rank + axes[1] or axes[1], axes[2] < 0 and b.rank + axes[2] or axes[2]
    if c.normalize then a, b = normalized(a, at + 1), normalized(b, to + 1) end
    local left, left_rest = contracted(a, at)
    local right, right_rest = contracted(b, to)
    local shape = {a:size(1), table.unpack(left_rest)}
    table.move(right_rest, 1, #right_rest, #shape + 1, shape)
    if #shape == 1 then shape[2] = 1 end
    return ops.matmul(left, right:transpose(2, 3)):reshape(shape)
  end), "drops"
end

function layers.MultiHeadAttention(c, w)
  if c.use_gate then refuse "use_gate = true" end
  if c.sliding_window then refuse "sliding_window" end
  if c.attention_axes and (#c.attention_axes ~= 1 or c.attention_axes[1] ~= 1) then refuse "attention_axes" end
  local step, shapes = c.use_bias and 2 or 1, {}
  for i, name in ipairs{"query", "key", "value", "attention_output"} do
    shapes[name] = {w(name .. ".kernel", (i - 1) * step, 0):size()}
  end
  return parts.MultiHeadAttention(shapes, c.use_bias, c.dropout or 0), "drops"
end

return layers
