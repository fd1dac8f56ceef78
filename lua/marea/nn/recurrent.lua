-- SPDX-License-Identifier: MIT
--- Recurrent layers over sequences (N, T, C), and their cells, one step.
---
---   local net = nn.LSTM{64, 128, layers = 2, bidirectional = true, dropout = 0.3}
---   local y, h, c = net(x, {lengths = lengths})     -- y (N, T, 256); h, c (4, N, 128)
---   y, h, c = net(next_x, {h0 = h:detach(), c0 = c:detach()})
---
--- {in, out} or {out}, the input size then coming from the first x. lengths (N), i64 or u8: the steps of each row that
--- count, 0 to T, rows in any order; y is 0 behind them, and h, c are the states at the end of each row. They hold
--- layer 1, its reverse, layer 2, its reverse, ... Without h0 and c0 states begin with 0. Dropout acts on what goes
--- from layer to layer, in training, and is refused where there is one layer.
---
--- Weights are those of the operators lstm, gru and rnn, under weights[layer].forward and weights[layer].reverse. They
--- begin as in Keras: w_x "glorot_uniform", w_h "orthogonal", biases 0 but for the forget gate's, 1 (`forget_bias`).
--- PyTorch's ranges are init = nn.init.uniform(-k, k), recurrent_init and bias_init likewise, with k = 1 / sqrt(out),
--- and forget_bias = 0; it adds two biases, here there is one.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local init = require "marea.nn.initializers"
local ops = core.ops

local COMMON = {"bias", "init", "recurrent_init", "bias_init", "dtype", "name"}
local STACK = {"layers", "bidirectional", "dropout"}
local SIGMOIDS = {sigmoid = "sigmoid", hard_sigmoid = "hard_sigmoid"}
local ACTIVATIONS = {tanh = "tanh", relu = "relu"}

-- ---- the three kinds: number of gates, arguments, further parameters, one direction of one layer ----
--
-- run(x, weights, h0, c0, lengths, attributes) -> y, the last h, the last c if there is one

local kinds = {}

local function read_gate(self, what, options)
  self.attributes.recurrent_activation =
    check.choice(what, "recurrent_activation", options.recurrent_activation or "sigmoid", SIGMOIDS)
end

kinds.lstm = {gates = 4, arguments = {"recurrent_activation", "forget_bias"}}

function kinds.lstm.read(self, what, options)
  read_gate(self, what, options)
  self.forget_bias = check.number(what, "forget_bias", options.forget_bias or 1)
end

function kinds.lstm.finish(self, weights)
  if weights.bias then weights.bias:narrow(1, self.outputs + 1, self.outputs):add_(self.forget_bias) end
end

function kinds.lstm.run(x, w, h0, c0, lengths, attributes)
  if w.w_x_scale then
    attributes.inputs = w.inputs
    return ops.lstm_int8(x, w.w_x, w.w_x_scale, w.w_h, w.w_h_scale, w.bias, h0, c0, lengths, attributes)
  end
  return ops.lstm(x, w.w_x, w.w_h, w.bias, h0, c0, lengths, attributes)
end

kinds.gru = {gates = 3, arguments = {"recurrent_activation", "reset_after"}}

function kinds.gru.read(self, what, options)
  read_gate(self, what, options)
  self.attributes.reset_after = check.boolean(what, "reset_after", options.reset_after, true)
end

function kinds.gru.finish(self, weights)
  if not weights.bias or not self.attributes.reset_after then return end
  weights.bias_h = self._bias_init(core.shape{self.outputs}, self.outputs, self.outputs, self.dtype)
end

function kinds.gru.run(x, w, h0, _, lengths, attributes)
  return ops.gru(x, w.w_x, w.w_h, w.bias, w.bias_h, h0, lengths, attributes)
end

kinds.rnn = {gates = 1, arguments = {"activation"}}

function kinds.rnn.read(self, what, options)
  self.attributes.activation = check.choice(what, "activation", options.activation or "tanh", ACTIVATIONS)
end

function kinds.rnn.finish() end

function kinds.rnn.run(x, w, h0, _, lengths, attributes)
  return ops.rnn(x, w.w_x, w.w_h, w.bias, h0, lengths, attributes)
end

-- ---- what layers and cells have in common ----

local Recurrent = module.class("Recurrent")

local function append(list, more)
  for _, name in ipairs(more) do list[#list + 1] = name end
end

--- Reads the arguments of a class of this kind; `further` are those that it has besides.
function Recurrent:read(what, kind, options, further)
  local names = {}
  append(names, COMMON)
  append(names, kinds[kind].arguments)
  append(names, further)
  options = check.options(what, options, names, 2)
  local inputs, outputs = options[1], options[2]
  if outputs == nil then inputs, outputs = nil, inputs end
  self.name = options.name
  self.outputs = check.integer(what, "out", outputs, 1)
  self.inputs = inputs and check.integer(what, "in", inputs, 1)
  self.has_bias = check.boolean(what, "bias", options.bias, true)
  if not self.has_bias then check.idle(what, options, {"bias_init", "forget_bias"}, "with bias = false") end
  self.dtype = options.dtype or "f32"
  self.attributes = {}
  self._kind = kinds[kind]
  self._init = init.find(what, "init", options.init or "glorot_uniform")
  self._recurrent_init = init.find(what, "recurrent_init", options.recurrent_init or "orthogonal")
  self._bias_init = init.find(what, "bias_init", options.bias_init or "zeros")
  kinds[kind].read(self, what, options)
  return options
end

--- The parameters of one direction of one layer: a table.
function Recurrent:weights_for(inputs)
  local h, weights = self.outputs, {}
  local gates = self._kind.gates * h
  core.no_grad(function()
    weights.w_x = self._init(core.shape{inputs, gates}, inputs, gates, self.dtype)
    weights.w_h = self._recurrent_init(core.shape{h, gates}, h, gates, self.dtype)
    if self.has_bias then weights.bias = self._bias_init(core.shape{gates}, h, gates, self.dtype) end
    self._kind.finish(self, weights)
    for name, t in pairs(weights) do weights[name] = module.parameter(t) end
  end)
  return weights
end

function Recurrent:infer(x, rank, expected)
  local what = getmetatable(self).__name
  check.tensor(what, "x", x)
  if x.rank ~= rank then check.fail(what, "x", expected, x) end
  if not self.inputs or not self:made() then module.materialize(self, x:size(-1)) end
end

function Recurrent:sizes() return ("%s -> %d"):format(self.inputs or "?", self.outputs) end

-- ---- layers ----

local Layers = module.class("RecurrentLayers", Recurrent)

function Layers:read_stack(what, kind, options)
  options = self:read(what, kind, options, STACK)
  self.layers = check.integer(what, "layers", options.layers or 1, 1)
  self.bidirectional = check.boolean(what, "bidirectional", options.bidirectional, false)
  self.dropout = check.number(what, "dropout", options.dropout or 0, 0, 1)
  if self.layers == 1 and self.dropout > 0 then
    check.raise("%s: dropout = %g acts between layers, of which there is one", what, self.dropout)
  end
  if self.inputs then self:materialize(self.inputs) end
end

function Layers:made() return self.weights ~= nil end

function Layers:materialize(inputs)
  local weights, width = {}, inputs
  for layer = 1, self.layers do
    weights[layer] = {forward = self:weights_for(width)}
    if self.bidirectional then weights[layer].reverse = self:weights_for(width) end
    width = self.outputs * (self.bidirectional and 2 or 1)
  end
  self.inputs, self.weights = inputs, weights
end

--- The first state of each direction of each layer, from (layers * directions, N, out).
local function states(self, name, given)
  local n = self.layers * (self.bidirectional and 2 or 1)
  if given == nil then return {} end
  local what = getmetatable(self).__name
  check.tensor(what, name, given)
  if given.rank ~= 3 or given:size(1) ~= n then
    check.fail(what, name, ("a tensor (layers * directions = %d, N, %d)"):format(n, self.outputs), given)
  end
  local list = {}
  for k = 1, n do list[k] = given:select(1, k) end
  return list
end

--- The operator's attributes for one direction.
local function attributes_for(self, reverse)
  local result = {reverse = reverse}
  for name, value in pairs(self.attributes) do result[name] = value end
  return result
end

--- All layers: y, the last h, the last c.
function Layers:run(x, o)
  local h0, c0, last_h, last_c = states(self, "h0", o.h0), states(self, "c0", o.c0), {}, {}
  for layer, weights in ipairs(self.weights) do
    if layer > 1 and self.training and self.dropout > 0 then x = ops.dropout(x, self.dropout) end
    local ys = {}
    for _, name in ipairs{"forward", "reverse"} do
      local k = #last_h + 1
      if weights[name] then
        ys[#ys + 1], last_h[k], last_c[k] =
          self._kind.run(x, weights[name], h0[k], c0[k], o.lengths, attributes_for(self, name == "reverse"))
      end
    end
    x = ys[2] and ops.concat(ys, 3) or ys[1]
  end
  return x, ops.stack(last_h, 1), last_c[1] and ops.stack(last_c, 1)
end

function Layers:call(x, options, names)
  local what = getmetatable(self).__name
  self:infer(x, 3, "sequences (N, T, C)")
  return self:run(x, check.options(what, options, names, 0))
end

function Layers:flops(x)
  local h, directions = self.outputs, self.bidirectional and 2 or 1
  local rows, width, total = x:size(1) * x:size(2), self.inputs, 0
  for _ = 1, self.layers do
    total = total + 2 * rows * directions * self._kind.gates * h * (width + h)
    width = h * directions
  end
  return total
end

function Layers:describe()
  local text = self:sizes()
  if self.layers > 1 then text = ("%s, %d layers"):format(text, self.layers) end
  if self.bidirectional then text = text .. ", both directions" end
  if self.dropout > 0 then text = core.format("%s, dropout %g", text, self.dropout) end
  return text .. (self._bytes and ", int8" or "")
end

---@class LSTM  long short-term memory (Hochreiter and Schmidhuber 1997): y, h, c = net(x, {h0, c0, lengths}), in the
--- braces by name. layers = 1, bidirectional = false, dropout = 0, bias = true, forget_bias = 1,
--- recurrent_activation = "sigmoid" or "hard_sigmoid", init, recurrent_init, bias_init, dtype, name
---@example y, h, c = nn.LSTM{3, 4, layers = 2}(marea.normal{2, 5, 3})
---@example y.shape, h.shape, c.shape
local LSTM = module.class("LSTM", Layers)

function LSTM:init(options) self:read_stack("LSTM", "lstm", options) end

function LSTM:forward(x, options) return self:call(x, options, {"h0", "c0", "lengths"}) end

--- The weights become bytes, as nn/quantize.lua says.
function LSTM:to_bytes(quantize)
  local width = self.inputs
  if math.max(width, 2 * self.outputs) > 65536 then return false end -- sums would not fit
  for _, weights in ipairs(self.weights) do
    for _, w in pairs(weights) do
      w.inputs = width
      quantize.weight(w, "w_x", "w_x_scale")
      quantize.weight(w, "w_h", "w_h_scale")
      if w.bias then module.class_methods().buffer(w, "bias", w.bias) end
    end
    width = self.outputs * (self.bidirectional and 2 or 1)
  end
  self._bytes = true
end

---@class GRU  gated recurrent units (Cho et al. 2014): y, h = net(x, {h0, lengths}), in the braces by name.
--- reset_after = true as in PyTorch, false as in the paper; further arguments as LSTM's, but forget_bias
---@example y, h = nn.GRU{3, 4, bidirectional = true}(marea.normal{2, 5, 3}, {lengths = marea.tensor{5, 2}:to "i64"})
---@example y.shape, h.shape
local GRU = module.class("GRU", Layers)

function GRU:init(options) self:read_stack("GRU", "gru", options) end

function GRU:forward(x, options) return self:call(x, options, {"h0", "lengths"}) end

---@class RNN  a plain recurrent network (Elman 1990): y, h = net(x, {h0, lengths}), in the braces by name.
--- activation = "tanh" or "relu"; further arguments as LSTM's, but forget_bias and recurrent_activation
---@example nn.RNN{3, 4}(marea.normal{2, 5, 3})
local RNN = module.class("RNN", Layers)

function RNN:init(options) self:read_stack("RNN", "rnn", options) end

function RNN:forward(x, options) return self:call(x, options, {"h0", "lengths"}) end

-- ---- cells ----

local Cell = module.class("RecurrentCell", Recurrent)

function Cell:read_cell(what, kind, options)
  self:read(what, kind, options, {})
  if self.inputs then self:materialize(self.inputs) end
end

function Cell:made() return self.w_x ~= nil end

function Cell:materialize(inputs)
  local weights = self:weights_for(inputs)
  self.inputs, self.w_h, self.bias, self.bias_h = inputs, weights.w_h, weights.bias, weights.bias_h
  self.w_x = weights.w_x -- set last: a cell with it is complete
end

--- Makes the parameters from x; zeros for the states that were left out.
function Cell:begin(x, ...)
  self:infer(x, 2, "one step (N, C)")
  local list = {...}
  for i = 1, select("#", ...) do
    if list[i] == nil then list[i] = ops.full({x:size(1), self.outputs}, 0, self.dtype) end
  end
  return table.unpack(list)
end

function Cell:gate(x)
  if self.attributes.recurrent_activation == "sigmoid" then return ops.sigmoid(x) end
  return ops.clamp(x * 0.2 + 0.5, 0, 1)
end

--- The k-th of the parts that belong to the gates, and `count` - 1 further ones.
function Cell:part(a, k, count)
  return ops.narrow(a, 2, (k - 1) * self.outputs + 1, (count or 1) * self.outputs)
end

function Cell:flops(x) return 2 * x:size(1) * self._kind.gates * self.outputs * (self.inputs + self.outputs) end

function Cell:describe() return self:sizes() end

---@class LSTMCell  one step of LSTM: h, c = cell(x, h, c), x (N, in), h and c (N, out). Made of operators, so it has
--- gradients of any order. Arguments as LSTM's, but layers, bidirectional and dropout
---@example h, c = nn.LSTMCell{3, 4}(marea.normal{2, 3})
---@example h
local LSTMCell = module.class("LSTMCell", Cell)

function LSTMCell:init(options) self:read_cell("LSTMCell", "lstm", options) end

function LSTMCell:forward(x, h, c)
  h, c = self:begin(x, h, c)
  local a = ops.linear(x, self.w_x, self.bias) + ops.matmul(h, self.w_h)
  c = self:gate(self:part(a, 2)) * c + self:gate(self:part(a, 1)) * self:part(a, 3):tanh()
  return self:gate(self:part(a, 4)) * c:tanh(), c
end

---@class GRUCell  one step of GRU: h = cell(x, h), x (N, in), h (N, out). Made of operators, so it has gradients of any
--- order. Arguments as GRU's, but layers, bidirectional and dropout
---@example nn.GRUCell{3, 4}(marea.normal{2, 3})
local GRUCell = module.class("GRUCell", Cell)

function GRUCell:init(options) self:read_cell("GRUCell", "gru", options) end

function GRUCell:forward(x, h)
  h = self:begin(x, h)
  local a, w_n = ops.linear(x, self.w_x, self.bias), self:part(self.w_h, 3)
  local gates = self:gate(self:part(a, 1, 2) + ops.matmul(h, self:part(self.w_h, 1, 2)))
  local r, z = self:part(gates, 1), self:part(gates, 2)
  local q = self.attributes.reset_after and r * ops.linear(h, w_n, self.bias_h) or ops.matmul(r * h, w_n)
  local new = (self:part(a, 3) + q):tanh()
  return new + z * (h - new)
end

---@class RNNCell  one step of RNN: h = cell(x, h), x (N, in), h (N, out). Made of operators, so it has gradients of any
--- order. Arguments as RNN's, but layers, bidirectional and dropout
---@example nn.RNNCell{3, 4}(marea.normal{2, 3})
local RNNCell = module.class("RNNCell", Cell)

function RNNCell:init(options) self:read_cell("RNNCell", "rnn", options) end

function RNNCell:forward(x, h)
  h = self:begin(x, h)
  local a = ops.linear(x, self.w_x, self.bias) + ops.matmul(h, self.w_h)
  return self.attributes.activation == "relu" and a:relu() or a:tanh()
end

return {LSTM = LSTM, GRU = GRU, RNN = RNN, LSTMCell = LSTMCell, GRUCell = GRUCell, RNNCell = RNNCell}
