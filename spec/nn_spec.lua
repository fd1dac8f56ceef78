-- SPDX-License-Identifier: MIT
-- Modules, layers, initializers, summary.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local has = require "spec.support.has"
local message_of = require "spec.support.message_of"
local folder = require "spec.support.folder"
local nn = marea.nn

local function names_of(net)
  local names = {}
  for name in net:named_parameters() do names[#names + 1] = name end
  return names
end

local close = allclose.assert

--- The message of the error that f raises; it names a line of this file.
teardown(folder.remove)

describe("a module", function()
  it("names its parameters by path, in an order that does not depend on the table", function()
    local Net = nn.class "Net"
    function Net:init()
      self.zebra = nn.Linear{2, 3}
      self.apple = nn.Sequential{nn.Linear{2, 2, name = "first"}, nn.ReLU{}, nn.Linear{2, 2, bias = false}}
      self.blocks = {nn.Linear{1, 1}, nn.Linear{1, 1}}
      self.scale = nn.parameter(marea.ones(1))
      self._private = nn.Linear{1, 1}
    end
    for _ = 1, 3 do
      assert.are.same({"apple.3.weight", "apple.first.bias", "apple.first.weight", "blocks.1.bias", "blocks.1.weight",
        "blocks.2.bias", "blocks.2.weight", "scale", "zebra.bias", "zebra.weight"}, names_of(Net()))
    end
  end)

  it("counts a tensor that is used twice once", function()
    local a, b = nn.Linear{4, 4}, nn.Linear{4, 4}
    b.weight = a.weight
    local net = nn.Sequential{a, b}
    assert.are.same({"1.bias", "1.weight", "2.bias"}, names_of(net))
    assert.are.equal(24, (net:count()))
  end)

  it("survives the scope it was made in, also when sizes are inferred there", function()
    local net
    marea.scope(function()
      net = nn.Sequential{nn.Linear{3, 4}, nn.Linear{2}}
      net(marea.ones(5, 3))
    end)
    assert.are.same({5, 2}, net(marea.ones(5, 3)).shape)
    assert.is_true(net[2].weight.requires_grad and net[2].weight.is_leaf)
  end)

  it("infers sizes without a gradient being recorded too, and can be trained afterwards", function()
    local net = nn.Linear{2}
    marea.no_grad(net, marea.ones(1, 3))
    net(marea.ones(4, 3)):sum():backward()
    close(net.weight.grad, {{4, 4}, {4, 4}, {4, 4}})
  end)

  it("switches all of its layers between training and evaluation", function()
    local net = nn.Sequential{nn.Dropout{0.5}, nn.Sequential{nn.Dropout{0.5}}}
    local x = marea.ones(50, 50)
    assert.is_true(net(x):eq(0):to("f32"):mean():item() > 0.6)
    close(net:evaluate()(x), x, {exact = true})
    assert.is_false(net[2][1].training)
    assert.is_true(net:train()[2][1].training)
  end)

  it("freezes: no gradients, but still part of the state", function()
    local net = nn.Sequential{nn.Linear{2, 2}, nn.Linear{2, 1}}
    net[1]:freeze()
    net(marea.ones(1, 2)):sum():backward()
    assert.is_nil(net[1].weight.grad)
    assert.is_not_nil(net[2].weight.grad)
    assert.are.same({9, 3}, {net:count()})
    assert.is_not_nil(net:state()["1.weight"])
  end)

  it("keeps buffers in the state and out of the parameters", function()
    local Norm = nn.class "Norm"
    function Norm:init() self:buffer("running_mean", marea.zeros(3)) end
    local net = Norm()
    assert.are.equal(0, #net:parameters())
    net:load_state{running_mean = marea.tensor{1, 2, 3}}
    close(net.running_mean, {1, 2, 3})
  end)

  it("tells what is missing, unexpected and of another shape in one error, and changes nothing then", function()
    local net = nn.Sequential{nn.Linear{2, 3, name = "a"}, nn.Linear{3, 1, name = "b"}}
    local before = marea.tensor(net.b.bias)
    local state = {["a.weight"] = marea.zeros(3, 2), ["b.bias"] = marea.ones(1), ["c.weight"] = marea.zeros(1)}
    has(message_of(function() net:load_state(state) end), "missing: a.bias, b.weight", "unexpected: c.weight",
      "a.weight is f32 (3, 2), expected f32 (2, 3)")
    close(net.b.bias, before, {exact = true})
    net:load_state({["b.bias"] = marea.ones(1), ["c.weight"] = marea.zeros(1)}, {strict = false})
    close(net.b.bias, {1})
  end)

  it("names ten tensors of a state that does not fit, and says how many more there are", function()
    local net, state = nn.Linear{2, 3}, {}
    for i = 1, 30 do state[("t%02d"):format(i)] = marea.zeros(1) end
    has(message_of(function() net:load_state(state) end), "missing: bias, weight\n",
      "t01, t02, t03, t04, t05, t06, t07, t08, t09, t10 and 20 more")
    for i = 12, 30 do state[("t%02d"):format(i)] = nil end
    has(message_of(function() net:load_state(state) end), "t09, t10, t11") -- no shorter with "and 1 more"
  end)

  it("is a table of tensors by name: other keys, values and objects are refused, whatever loads it", function()
    local t = marea.ones(1)
    local net = nn.Linear{2, 2}
    local loaders = {net, nn.Sequential{net}, marea.optim.SGD{net}, marea.optim.Adam{net}}
    for _, loader in ipairs(loaders) do
      local function refused(state, ...)
        has(message_of(function() loader:load_state(state, {strict = false}) end), "load_state: argument", ...)
      end
      for _, key in ipairs{1, -1, 1.5, true, t, {}} do refused({[key] = t}, "a table of tensors by name") end
      refused({b = 3, a = "x"}, "'a': expected a tensor, got string 'x'")
      refused(net, "without a metatable, got a Linear")
      refused(setmetatable({}, {__index = error, __pairs = error}), "without a metatable")
      refused(t, "a table of tensors, got tensor")
    end
  end)

  it("takes the state of another one", function()
    local a, b = nn.Linear{3, 2}, nn.Linear{3, 2}
    b:load_state(a:state())
    local x = marea.normal{4, 3}
    close(a(x), b(x), {exact = true})
  end)

  it("is named in errors by the path of the layer", function()
    local net = nn.Sequential{nn.Sequential{nn.Conv2d{1, 4, kernel = 3, name = "conv1"}, name = "encoder"}}
    has(message_of(function() local y = net(marea.zeros{1, 8, 8, 3}); return y end), "conv2d", "3 channels",
      "(layer 'encoder.conv1')")
  end)

  it("shows the first of many tensors, and how many there are", function()
    local Net = nn.class "Net"
    function Net:init(n)
      self.all = {}
      for i = 1, n do self.all[("w%02d"):format(i)] = nn.parameter(marea.zeros(2)) end
    end
    assert.are.equal([[
Net
  all   w01 (2), w02 (2), w03 (2) and 10 more   26
26 parameters]], tostring(Net(13)))
    assert.is_truthy(tostring(Net(12)):find("w12 (2)   24", 1, true))
  end)

  it("shows its tree", function()
    local shared = nn.Dropout{0.5}
    local net = nn.Sequential{nn.Linear{4, name = "hidden", activation = "relu"}, function(x) return x end,
      nn.Conv2d{1, 200, kernel = {3, 5}, padding = "same", bias = false}, nn.LayerNorm{2}:freeze(),
      nn.Sequential{shared, shared, name = "inner"}}
    assert.are.equal([[
Sequential
  hidden: Linear(? -> 4, relu)
  2: function
  3: Conv2d(1 -> 200, kernel 3x5, padding same, no bias)   weight (3, 5, 1, 200)   3,000
  4: LayerNorm(2, eps 1e-05), frozen                       bias (2), weight (2)        4
  inner: Sequential
    1: Dropout(p 0.5)
    2: Dropout, the same as above
3,004 parameters]], tostring(net))
    assert.are.equal("Dropout(p 0.5)", tostring(shared))
    local Net = nn.class "Net"
    function Net:init()
      self.blocks, self.scales = {nn.Linear{2, 3}, nn.Linear{3, 1}}, {nn.parameter(marea.zeros{7})}
    end
    assert.are.equal([[
Net
  blocks.1: Linear(2 -> 3)   bias (3), weight (2, 3)    9
  blocks.2: Linear(3 -> 1)   bias (1), weight (3, 1)    4
  scales                     1 (7)                      7
20 parameters]], tostring(Net()))
    assert.are.equal("class Linear", tostring(nn.Linear))
  end)
end)

describe("a class", function()
  it("that is defined again by the same file changes the old instances", function()
    local path = folder.new() .. "/net.lua"
    local text = [[local nn = require("marea").nn
      local Net = nn.class "Net"
      function Net:init() self.layer = nn.Linear{2, 2} end
      function Net:forward(x) return %s end
      return Net]]
    folder.write(path, text:format "self.layer(x)")
    local Net = dofile(path)
    local net = Net()
    local x = marea.ones(1, 2)
    local y = net(x)
    folder.write(path, text:format "self.layer(x) * 2")
    assert.are.equal(Net, dofile(path))
    close(net(x), y * 2)
  end)

  it("of the same name in another file is another class", function()
    local text = "local C = require('marea').nn.class 'Linear'; function C:forward() return %d end; return C"
    local at = folder.new()
    local A = dofile(folder.write(at .. "/a.lua", text:format(1)))
    local B = dofile(folder.write(at .. "/b.lua", text:format(2)))
    assert.are.equal(1, A()(0))
    assert.are.equal(2, B()(0))
    assert.are.same({1, 5}, nn.Linear{3, 5}(marea.ones(1, 3)).shape)
  end)

  it("inherits", function()
    local Scaled = nn.class("Scaled", nn.Linear)
    function Scaled:forward(x) return nn.Linear.forward(self, x) * 3 end
    local layer = Scaled{2, 2, init = "ones"}
    close(layer(marea.ones(1, 2)), {{6, 6}})
  end)
end)

describe("a layer", function()
  it("refuses arguments it does not know and guesses what was meant", function()
    has(message_of(function() nn.Conv2d{1, 2, kernal = 3} end), "Conv2d: unknown argument 'kernal'",
      "did you mean 'kernel'?")
    has(message_of(function() nn.Linear{1, 2, activation = "rellu"} end), "'relu'", "string 'rellu'")
    has(message_of(function() nn.Conv2d{1, 2} end), "Conv2d: argument 'kernel'", "got nil")
    has(message_of(function() nn.Linear(3) end), "Linear: expected its arguments in braces")
    has(message_of(function() nn.Linear{1, 2, 3} end), "Linear", "at most 2")
    has(message_of(function() nn.Linear{0} end), "Linear: argument 'out'", "at least 1")
    has(message_of(function() nn.Sequential{nn.ReLU{}, 3} end), "Sequential: argument '2'", "a module or a function")
    has(message_of(function() local f = nn.Conv2D; return f end), "did you mean 'Conv2d'?")
    has(message_of(function() local f = marea.optin; return f end), "did you mean 'optim'?")
    has(message_of(function() nn.Sequential{nn.ReLU{name = "forward"}} end), "the name 'forward' of layer 1 is taken")
  end)

  it("does what its operators do", function()
    local x = marea.normal{2, 5, 5, 3}
    local conv = nn.Conv2d{3, 4, kernel = 3, stride = 2, padding = "same", activation = "relu"}
    close(conv(x), marea.conv2d(x, conv.weight, conv.bias, {stride = 2, padding = "same"}):relu())
    local up = nn.ConvTranspose2d{4, kernel = 3, stride = 2, padding = "same", activation = "gelu"}
    assert.are.same({2, 10, 10, 4}, up(x).shape)
    assert.are.same({3, 3, 4, 3}, up.weight.shape)
    close(up(x), marea.conv_transpose2d(x, up.weight, up.bias, {stride = 2, padding = "same"}):gelu())
    local sequences = x:reshape(2, 25, 3)
    local conv1 = nn.Conv1d{4, kernel = 3, stride = 2, padding = "same", activation = "relu"}
    assert.are.same({2, 13, 4}, conv1(sequences).shape)
    assert.are.same({3, 3, 4}, conv1.weight.shape)
    close(conv1(sequences), marea.conv1d(sequences, conv1.weight, conv1.bias, {stride = 2, padding = "same"}):relu())
    local up1 = nn.ConvTranspose1d{3, 4, kernel = 3, stride = 2, padding = {1, 0}, output_padding = 1}
    assert.are.same({2, 51, 4}, up1(sequences).shape)
    assert.are.same({3, 4, 3}, up1.weight.shape)
    has(message_of(function() nn.Conv1d{3, kernel = 3}(x) end), "Conv1d: argument 'x'", "sequences (N, T, C)")
    has(message_of(function() nn.Conv1d{3, kernel = {3, 3}} end), "Conv1d: argument 'kernel'", "an integer")
    local dense = nn.Linear{3, 2, bias = false, activation = function(y) return y:square() end}
    close(dense(x), x:matmul(dense.weight):square())
    close(nn.LeakyReLU{0.2}(x), x:leaky_relu(0.2))
    close(nn.ELU{}(x), x:elu())
    close(nn.Linear{3, 2, activation = "elu", init = "ones"}(x), x:sum(-1, true):expand(2, 5, 5, 2):elu())
    close(nn.MaxPool2d{2}(x), x:max_pool2d(2))
    close(nn.AvgPool2d{kernel = 3, stride = 1, padding = 1}(x), x:avg_pool2d(3, 1, 1))
    close(nn.MaxPool2d{2, ceil_mode = true}(x), x:max_pool2d{kernel = 2, ceil_mode = true})
    close(nn.AdaptiveAvgPool2d{1}(x), x:mean({2, 3}, true))
    assert.are.same({2, 2, 3, 3}, nn.AdaptiveMaxPool2d{{2, 3}}(x).shape)
    close(nn.MaxPool1d{2}(sequences), sequences:max_pool1d(2))
    close(nn.AvgPool1d{3, stride = 1, padding = {1, 0}}(sequences), sequences:avg_pool1d(3, 1, {1, 0}))
    close(nn.AdaptiveAvgPool1d{5}(sequences), sequences:avg_pool1d(5))
    close(nn.AdaptiveMaxPool1d{output_size = 5}(sequences), sequences:max_pool1d(5))
    has(message_of(function() nn.MaxPool1d{{2, 2}} end), "MaxPool1d: argument 'kernel'", "an integer")
    assert.are.same({2, 10, 10, 3}, nn.UpsampleNearest2d{2}(x).shape)
    close(nn.UpsampleBilinear2d{scale = {2, 3}}(x), x:upsample_bilinear2d{scale = {2, 3}})
    close(nn.GlobalAvgPool2d{}(x), x:avg_pool2d(5):reshape(2, 3))
    close(nn.GlobalMaxPool2d{name = "top"}(x), x:max_pool2d(5):reshape(2, 3))
    has(message_of(function() nn.GlobalAvgPool2d{}(x[1]) end), "GlobalAvgPool2d: argument 'x'", "(N, H, W, C)")
    assert.are.same({2, 75}, nn.Flatten{}(x).shape)
    assert.are.same({2, 25, 3}, nn.Reshape{25, 3}(x).shape)
    assert.are.same({2, 3, 25}, nn.Reshape{3, -1}(x).shape)
  end)

  it("works in f64", function()
    local net = nn.Linear{3, 2, dtype = "f64"}
    assert.are.equal("f64", net(marea.ones{1, 3, dtype = "f64"}).dtype)
  end)
end)

describe("an initializer", function()
  it("keeps Keras' limits", function()
    marea.seed(1)
    local conv = nn.Conv2d{32, 32, kernel = 3}
    local limit = math.sqrt(6 / (9 * 32 + 9 * 32))
    assert.is_true(conv.weight:max():item() <= limit and conv.weight:max():item() > 0.99 * limit)
    close(conv.bias, marea.zeros(32), {exact = true})
    local up = nn.ConvTranspose2d{64, 32, kernel = 3}
    assert.is_true(up.weight:abs():max():item() <= math.sqrt(6 / (9 * 96)))
    local he = nn.Linear{400, 300, init = "he_normal"}.weight
    assert.is_true(math.abs(he:std():item() / math.sqrt(2 / 400) - 1) < 0.02)
    assert.is_true(he:abs():max():item() <= 2 / 0.8796 * math.sqrt(2 / 400) * 1.001)
    assert.is_true(math.abs(nn.init.glorot_normal({300, 100}):std():item() / math.sqrt(2 / 400) - 1) < 0.02)
    assert.is_true(nn.init.he_uniform({54, 7}):abs():max():item() <= math.sqrt(6 / 54))
    assert.are.same({9 * 4, 9 * 8}, {nn.init.fans{3, 3, 4, 8}})
  end)

  it("makes orthogonal matrices", function()
    local tall = nn.init.orthogonal({20, 8}, nil, nil, "f64")
    close(tall:matmul(tall, {transpose_a = true}), marea.eye(8, "f64"), {atol = 1e-12})
    local wide = nn.init.orthogonal({3, 3, 2, 30}):reshape(18, 30)
    close(wide:matmul(wide, {transpose_b = true}), marea.eye(18), {atol = 1e-5})
  end)

  it("can be any function of shape and fans, or made from numbers", function()
    local seen
    local layer = nn.Conv2d{2, 6, kernel = {3, 5}, groups = 2, bias_init = nn.init.constant(0.5),
      init = function(shape, fan_in, fan_out)
        seen = {shape, fan_in, fan_out}
        return marea.ones(shape)
      end}
    assert.are.same({{3, 5, 1, 6}, 15, 90}, seen)
    close(layer.bias, {0.5, 0.5, 0.5, 0.5, 0.5, 0.5})
    assert.is_true(nn.Linear{10, 10, init = nn.init.uniform(2, 3)}.weight:min():item() >= 2)
  end)

  it("draws the same weights from the same seed", function()
    marea.seed(5)
    local a = nn.Linear{9, 9}
    marea.seed(5)
    close(nn.Linear{9, 9}.weight, a.weight, {exact = true})
  end)
end)

describe("a summary", function()
  it("gives output shapes, parameters and FLOPs, as Keras does", function()
    local net = nn.Sequential{
      nn.Conv2d{32, kernel = 3, padding = "same", activation = "relu", name = "conv1"},
      nn.Conv2d{64, kernel = 3, stride = 2, padding = "same", name = "conv2"},
      nn.Flatten{}, nn.Linear{10},
    }
    local summary = net:summary{28, 28, 1}
    assert.are.equal(320 + 18496 + 125450, summary.total)
    assert.are.equal(summary.total, summary.trained)
    assert.are.equal(2 * (225792 + 3612672 + 125440), summary.flops)
    has(tostring(summary), "conv1 (Conv2d)", "(N, 28, 28, 32)", "18,496", "(N, 12544)", "Total params: 144,266")
  end)

  it("leaves modes and random numbers as they were", function()
    local net = nn.Sequential{nn.Linear{4, 4}, nn.Dropout{0.5}, function(x) return x + marea.normal(x.shape) end}
    local seed, counter = marea.random_state()
    net:summary{4}
    assert.are.same({seed, counter}, {marea.random_state()})
    assert.is_true(net.training)
  end)

  it("builds what has no sizes yet", function()
    local net = nn.Sequential{nn.Linear{3}, nn.Linear{2}}
    assert.are.equal(0, #net:parameters())
    assert.are.equal(4, #net:build{5}:parameters())
    has(message_of(function() net:build() end), "build: argument 'input_shape': expected a shape")
    has(message_of(function() net:summary() end), "summary: argument 'input_shape': expected a shape")
  end)
end)

describe("marea", function()
  it("makes zeros and ones as it makes everything", function()
    close(marea.zeros(2, 3), {{0, 0, 0}, {0, 0, 0}})
    close(marea.ones{2, dtype = "i64"}, {1, 1})
    assert.are.equal("i64", marea.ones({2}, {dtype = "i64"}).dtype)
    assert.are.same({}, marea.zeros{}.shape)
    assert.are.equal("u8", marea.zeros_like(marea.ones{3, dtype = "u8"}).dtype)
    assert.are.equal("f64", marea.ones_like(marea.ones{3, dtype = "u8"}, {dtype = "f64"}).dtype)
  end)

  it("seeds Lua's generator as well", function()
    marea.seed(7)
    local a = math.random()
    marea.seed(7)
    assert.are.equal(a, math.random())
  end)
end)

describe("arguments that would do nothing", function()
  local function says(expected, make)
    local message = message_of(make)
    assert.is_truthy(message:find(expected, 1, true), message)
  end

  it("are refused by layers with weights", function()
    says("Linear: argument 'slope' does nothing without activation = \"leaky_relu\", got 0.3",
      function() nn.Linear{3, 4, slope = 0.3} end)
    says("Conv2d: argument 'slope' does nothing",
      function() nn.Conv2d{3, kernel = 3, activation = "relu", slope = 1} end)
    says("BatchNorm: argument 'slope' does nothing", function() nn.BatchNorm{3, slope = 1} end)
    says("Conv1d: argument 'bias_init' does nothing with bias = false, got string 'ones'",
      function() nn.Conv1d{3, kernel = 3, bias = false, bias_init = "ones"} end)
    says("Linear: argument 'bias': expected true or false, got 0", function() nn.Linear{3, 4, bias = 0} end)
    assert.are.equal(0.3, nn.Linear{3, 4, activation = "leaky_relu", slope = 0.3}.attributes.slope)
  end)

  it("are refused by recurrent layers", function()
    for _, name in ipairs{"LSTM", "GRU", "RNN"} do
      says(name .. ": dropout = 0.5 acts between layers, of which there is one",
        function() nn[name]{3, 4, bidirectional = true, dropout = 0.5} end)
      says(name .. ": argument 'bias_init' does nothing with bias = false",
        function() nn[name]{3, 4, bias = false, bias_init = "zeros"} end)
      assert.are.equal(0, nn[name]{3, 4, dropout = 0}.dropout)
    end
    for _, name in ipairs{"LSTM", "LSTMCell"} do
      says(name .. ": argument 'forget_bias' does nothing with bias = false, got 1",
        function() nn[name]{3, 4, bias = false, forget_bias = 1} end)
    end
  end)

  it("are refused by attention, by the score", function()
    says("Attention: argument 'key' does nothing with score = \"dot\", got 3",
      function() nn.Attention{score = "dot", key = 3} end)
    says("Attention: argument 'hidden' does nothing with score = \"dot\", got 4",
      function() nn.Attention{4, score = "dot"} end)
    says("Attention: argument 'query' does nothing with score = \"encoder\", got 3",
      function() nn.Attention{4, score = "encoder", key = 2, query = 3} end)
  end)

  it("are refused where one is given twice", function()
    says("MaxPool2d: argument 'kernel' was given twice, 2 and kernel = 3", function() nn.MaxPool2d{2, kernel = 3} end)
    says("Dropout: argument 'p' was given twice, 0.1 and p = 0.2", function() nn.Dropout{0.1, p = 0.2} end)
    says("LeakyReLU: argument 'slope' was given twice", function() nn.LeakyReLU{0.1, slope = 0.2} end)
  end)
end)
