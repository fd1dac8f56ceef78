-- SPDX-License-Identifier: MIT
--- Networks that go out: files of ONNX, read again by marea.onnx.load and, where it is installed, run by ONNX Runtime.
--- It is there after `make peers`, with the package onnx, or in the Python that ONNX_PYTHON names.
local core = require "marea.core"
local marea = require "marea"
local folder = require "spec.support.folder"
local message_of = require "spec.support.message_of"
local round_trip = require "spec.support.onnx_round_trip"

local nn = marea.nn
local SEEDS <const>, CASES <const> = 40, 9
local NEAR <const> = 1e-5
-- no way to say: draws, losses, what only training and quantization take, and a few rare ones
local WITHOUT = {"affine2d", "batch_norm", "bce", "bce_with_logits", "bernoulli", "categorical", "conv2d_int8",
  "cross_entropy", "ctc_loss", "dropout", "dropout_apply", "eigh", "flatnonzero", "gaussian_blur", "huber", "index_add",
  "index_reduce", "kl_normal", "l1", "lgamma", "linear_cross_entropy", "linear_int8", "lstm_int8", "masked_select",
  "max_pool2d_pick", "mse", "norm_icdf", "normal_deviation", "orthogonalize", "poisson", "polygamma", "quantize_int8",
  "sample_normal", "unique"}
-- composed of others, or joined with others when they come back
local COMPOSED = {"expm1", "silu", "var", "std", "norm", "scaled_dot_product_attention", "additive_attention",
  "group_norm", "rms_norm", "rotary"}

local function set_of(list)
  local set = {}
  for _, name in ipairs(list) do set[name] = true end
  return set
end

--- A test that needs ONNX Runtime.
local function with_runtime(name, f)
  if round_trip.runtime then it(name, f) else pending(name .. " (ONNX Runtime is missing)") end
end

local function assert_near(expected, results, exact, what)
  assert.is_true(type(results) == "table", what .. ": " .. tostring(results))
  for i, t in ipairs(expected) do
    local difference, why = round_trip.difference(results[i], t)
    assert.is_true(difference <= (exact and 0 or NEAR), ("%s: result %d: %s %s"):format(what, i, difference, why or ""))
  end
end

--- A few cases of an operator that have elements: visit(expected, results) gets what round_trip.run gives.
local function cases_of(info, path, visit)
  local count, seed = 0, 0
  while count < CASES and seed < SEEDS do
    seed = seed + 1
    for kind, variable in ipairs{99, 1, 99} do -- all tensors depend on inputs, one does, all do and images are turned
      local f, given, n, empty = round_trip.case(info, seed, variable, kind == 3)
      if not empty and not (kind == 2 and n == 1) then
        local file = ("%s/%s-%d-%d"):format(path, info.name, seed, kind)
        if visit(round_trip.run(f, file, given)) then count = count + 1 end
        -- the largest window of -infinity is the smallest number in ONNX Runtime
        if kind == 3 and info.name:find "^is" then os.remove(file .. ".onnx") end
      end
    end
  end
  return count
end

describe("an operator saved as ONNX", function()
  local without, composed = set_of(WITHOUT), set_of(COMPOSED)
  local path
  setup(function() path = folder.new() end)
  teardown(function() folder.remove(path) end)

  for _, info in ipairs(round_trip.operators()) do
    if without[info.name] then
      it("has no way to be said: " .. info.name, function()
        cases_of(info, path, function(expected, message)
          assert.is_nil(expected)
          assert.is_truthy(message:find("no way to say: " .. info.name, 1, true), message)
          return true
        end)
      end)
    else
      it("gives the same when it is loaded: " .. info.name, function()
        local count = cases_of(info, path, function(expected, results)
          if not expected then
            assert.is_truthy(results:find "does not depend on the inputs" or results:find "with dropout", results)
            return
          end
          assert_near(expected, results, not composed[info.name], info.name)
          return true
        end)
        assert.is_true(count > 0)
      end)
    end
  end

  with_runtime("gives the same in ONNX Runtime", function()
    assert.is_true(round_trip.in_runtime(NEAR, path) > 300)
  end)
end)

describe("a network saved as ONNX", function()
  local path
  setup(function()
    path = folder.new()
    marea.seed(5)
  end)
  teardown(function() folder.remove(path) end)

  local function check(name, net, inputs, options, exact)
    local expected, results = round_trip.run(net, path .. "/" .. name, inputs, options)
    assert.is_truthy(expected, results)
    assert_near(expected, results, exact, name)
  end

  it("has images with channels last at its ends alone", function()
    local net = nn.Sequential{nn.Conv2d{1, 4, kernel = 3, padding = "same", activation = "relu"}, nn.MaxPool2d{2},
      nn.Conv2d{4, 8, kernel = 3, stride = 2}, nn.BatchNorm{8, activation = "relu"}, nn.UpsampleNearest2d{2},
      nn.ConvTranspose2d{8, 1, kernel = 2, stride = 2}}
    net(marea.uniform{4, 16, 16, 1}) -- running statistics
    check("images", net, {{"image", marea.uniform{2, 16, 16, 1}}},
      {free = {image = {1}}, also = {{"image", marea.uniform{3, 16, 16, 1}}}})
    local program = assert(marea.onnx.load(path .. "/images.onnx")):program(marea.uniform{1, 16, 16, 1})
    assert.is_nil(program:find("permute", 1, true), program)
    assert.is_nil(program:find("transpose(", 1, true), program)
  end)

  it("has the names of its weights", function()
    local net = nn.Sequential{nn.Linear{3, 4, activation = "tanh", name = "hidden"}, nn.Linear{4, 2}}
    check("names", net, {{"x", marea.normal{5, 3}}}, {results = {"scores"}}, true)
    local loaded = assert(marea.onnx.load(path .. "/names.onnx"))
    assert.are.equal("scores", loaded:results()[1].name)
    for name, t in pairs(net:state()) do
      assert.are.equal(0, round_trip.difference(loaded.weights[name], t), name)
    end
  end)

  it("counts positions as here", function()
    local net = nn.Embedding{9, 4}
    check("words", net, {{"words", marea.randint({2, 5}, 1, 9)}},
      {free = {words = {1, 2}}, also = {{"words", marea.randint({4, 3}, 1, 9)}}}, true)
    check("best", function(x) return x:argmax(2), x:topk(2) end, {{"x", marea.normal{4, 6}}}, nil, true)
  end)

  it("may have sizes that follow from free ones", function()
    local x, y = marea.normal{2, 5, 8}, marea.normal{3, 7, 8}
    check("attention", nn.TransformerEncoderLayer{8, 2}, {{"x", x}}, {free = {x = {1, 2}}, also = {{"x", y}}})
    check("gru", nn.GRU{8, 6, layers = 2, bidirectional = true}, {{"x", x}}, {free = {x = {1, 2}}, also = {{"x", y}}},
      true)
    check("shapes", function(t) return t:reshape(-1, 8):reshape(t:size(1), t:size(2), 2, 4):slice{dim = 2, start = 2},
        t:select(2, t:size(2)), t:mean{dims = {1}}:expand(t:size(1), t:size(2), 8) end,
      {{"x", x}}, {free = {x = {1, 2}}, also = {{"x", y}}}, true)
  end)

  it("takes several inputs in the order of its arguments", function()
    check("several", function(b, a) return b - a, a end, {{"b", marea.normal{2, 3}}, {"a", marea.normal{3}}}, nil, true)
  end)

  with_runtime("gives the same in ONNX Runtime, free sizes included", function()
    assert.is_true(round_trip.in_runtime(NEAR, path) >= 11)
  end)
end)

describe("marea.onnx.save", function()
  local path
  setup(function() path = folder.new() .. "/x.onnx" end)
  teardown(function() folder.remove() end)

  it("loads convolutions that are joined, whichever way each one is computed", function()
    marea.seed(1)
    local one, few = marea.normal{1, 3, 9, 12}, marea.normal{2, 3, 20, 20}
    for _, x in ipairs{one, few, marea.normal{24, 3, 5, 5}} do
      local function conv(kernel, cin, cout, options)
        local w, b = marea.normal{kernel, kernel, cin // (options.groups or 1), cout}, marea.normal{cout}
        options.padding = "same"
        return function(y) return marea.conv2d(y, w, b, options) end
      end
      local first = conv(3, 3, 32, {activation = "relu"})
      local all = {conv(1, 32, 64, {activation = "tanh"}), conv(3, 32, 33, {activation = "relu"}),
        conv(5, 32, 1, {activation = "sigmoid"}), conv(3, 32, 32, {groups = 32, activation = "relu6"}),
        conv(3, 32, 8, {dilation = 2}), conv(2, 32, 40, {groups = 2})}
      local function net(t)
        local y = first(t:permute{1, 3, 4, 2})
        local list = {y}
        for i, f in ipairs(all) do list[i + 1] = f(y) end
        list[#list + 1] = y * 2
        return marea.concat(list, {dim = 4}):relu()
      end
      assert(marea.onnx.save(net, path, {x = x}))
      local loaded = assert(marea.onnx.load(path))
      local expected = marea.no_grad(net, x)
      for _ = 1, 2 do assert_near({expected}, {marea.no_grad(loaded, x)}, false, "joined") end
      local half = marea.no_grad(function() return marea.autocast(function() return loaded(x) end) end)
      assert.is_true((half:to "f32" - expected):abs():mean():item() < 0.05)
      assert(marea.onnx.save(loaded, path .. ".again", {x = x}))
      assert_near({expected}, {marea.no_grad(assert(marea.onnx.load(path .. ".again")), x)}, false, "saved again")
    end
  end)

  it("names all operators that cannot be said", function()
    local done, text = marea.onnx.save(function(x) return x:lgamma() + x:norm_icdf() end, path, {x = marea.ones{2}})
    assert.is_nil(done)
    assert.is_truthy(text:find("no way to say: lgamma, norm_icdf", 1, true), text)
  end)

  it("refuses changes in place by the operator's name", function()
    local text = message_of(function()
      marea.onnx.save(function(x) return (x + 1):relu_() end, path, {x = marea.ones{2}})
    end)
    assert.is_truthy(text:find("relu: it changes a tensor in place", 1, true), text)
    text = message_of(function()
      marea.onnx.save(function(x)
        local y = x + 1
        y:copy_(x)
        return y
      end, path, {x = marea.ones{2}})
    end)
    assert.is_truthy(text:find("copy_: it changes", 1, true), text)
    assert.are.equal(4, marea.ones{2}:add(1):sum():item()) -- nothing is traced any more
  end)

  it("leaves the network in training", function()
    local net = nn.Sequential{nn.Linear{2, 2}, nn.Dropout{0.5}}
    assert(marea.onnx.save(net, path, {x = marea.ones{1, 2}}))
    assert.is_true(net.training)
    assert.is_true(net[2].training)
  end)

  it("refuses an input that is only read by Lua", function()
    local done, text = marea.onnx.save(function(x, y) return x * y:item() end, path,
      {x = marea.ones{2}, y = marea.ones{1}}, {order = {"x", "y"}})
    assert.is_nil(done)
    assert.is_truthy(text:find("no result depends on input 'y'", 1, true), text)
  end)

  it("refuses what a free size changes", function()
    local done, text = marea.onnx.save(function(x) return x * x:size(1) end, path, {x = marea.ones{2}},
      {free = {x = {1}}})
    assert.is_nil(done)
    assert.is_truthy(text:find("a constant that follows a free size", 1, true), text)
    done, text = marea.onnx.save(function(x)
      for _ = 1, x:size(1) do x = x + 1 end
      return x
    end, path, {x = marea.ones{2}}, {free = {x = {1}}})
    assert.is_nil(done)
    assert.is_truthy(text:find("other operators", 1, true), text)
  end)

  it("refuses arguments that do not fit", function()
    local x = marea.ones{2}
    local function fails(text, ...)
      local arguments = {...}
      local message = message_of(function() marea.onnx.save(table.unpack(arguments)) end)
      assert.is_truthy(message:find(text, 1, true), message)
    end
    local function f(t) return t + 1 end
    fails("argument 'net': expected a module or a function", 3, path, {x = x})
    fails("expected an input at least", f, path, {})
    fails("option 'order'", f, path, {x = x, y = x})
    fails("there is no input 'y'", f, path, {x = x}, {order = {"y"}})
    fails("the network gives 1 tensors, got 2 names", f, path, {x = x}, {results = {"a", "b"}})
    fails("has no dimension 3", f, path, {x = x}, {free = {x = {3}}})
    fails("operator sets 17 to 21", f, path, {x = x}, {opset = 12})
    fails("'x' is the name of two", f, path, {x = x}, {results = {"x"}})
    fails("gave no tensor", function() return 1 end, path, {x = x})
  end)

  it("writes any of its operator sets", function()
    for opset = 17, 21 do
      assert(marea.onnx.save(function(t) return t:gelu():mean{dims = {2}}, t:max{dims = {1}} end, path,
        {x = marea.normal{2, 3}}, {opset = opset}))
      assert.is_truthy(marea.onnx.load(path))
    end
  end)

  it("runs no trace when it has failed", function()
    message_of(function() marea.onnx.save(function() error "no" end, path, {x = marea.ones{1}}) end)
    core.trace_start{marea.ones{1}}
    core.trace_drop()
  end)
end)
