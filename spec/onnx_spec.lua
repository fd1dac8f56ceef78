-- SPDX-License-Identifier: MIT
--- Networks of other frameworks. The models are those of ONNX's own test suite, from Debian's libonnx-testdata; without
--- that package there is nothing to load, and the tests are skipped.
local marea = require "marea"
local folder = require "spec.support.folder"
local message = require "spec.support.message_of"

local DATA = "/usr/share/libonnx-testdata/data/"

local function exists(path)
  local f <close> = io.open(path)
  return f ~= nil
end

local there = exists(DATA .. "node/test_abs/model.onnx")

--- A test that needs the package.
local function with_models(name, f)
  if there then it(name, f) else pending(name .. " (Debian's package libonnx-testdata is missing)") end
end

local function load_model(name) return assert(marea.onnx.load(DATA .. name .. "/model.onnx")) end

--- What a command writes.
local function output(command)
  local pipe <close> = assert(io.popen(("bash -c '%s' 2>&1"):format(command)))
  return pipe:read "a"
end

describe("ONNX's own test suite", function()
  with_models("gives the results of its files for 900 models at least, and wrong ones for none", function()
    local text = output("build/test/onnx " .. DATA .. "{node,simple,pytorch-converted,pytorch-operator}/*")
    local equal, drawn, refused, wrong = text:match "(%d+) equal, (%d+) drawn, (%d+) refused, (%d+) wrong"
    assert.are.equal("0", wrong, text:match "WRONG[^\n]*")
    assert.are.equal(1072, equal + drawn + refused)
    assert.is_true(tonumber(equal) >= 900, equal)
  end)
end)

describe("a loaded network", function()
  with_models("is called by position and by name", function()
    local net, x = load_model "pytorch-converted/test_Linear", marea.normal{4, 10}
    local y = net(x)
    assert.are.same({4, 8}, {y:size(1), y:size(2)})
    assert.are.equal(0, (net{["0"] = x} - y):abs():max():item())
    assert.are.equal("0", net:inputs()[1].name)
    assert.are.same({4, 8}, net:results()[1].shape)
  end)

  with_models("computes what its weights say", function()
    local net, x = load_model "pytorch-converted/test_Linear", marea.normal{4, 10}
    local weight, bias = net.weights["1"], net.weights["2"]
    local y = x:matmul(weight:transpose(1, 2)) + bias
    assert.is_true((net(x) - y):abs():max():item() < 1e-6)
  end)

  with_models("is trained, and runs with its new weights", function()
    local net, x = load_model "pytorch-converted/test_Linear", marea.normal{4, 10}
    local before = marea.no_grad(function() return net(x) end)
    local optimizer = marea.optim.Adam{net, lr = 0.02}
    local loss
    for _ = 1, 300 do
      loss = optimizer:step(function() return (net(x) - 1):square():mean() end)
    end
    local after = marea.no_grad(function() return net(x) end)
    assert.is_true((after - 1):abs():max():item() < 0.05)
    assert.is_true((before - 1):abs():max():item() > 0.1)
    assert.is_truthy(loss)
  end)

  with_models("has a copy that shares nothing with it", function()
    local net, x = load_model "pytorch-converted/test_Linear", marea.normal{4, 10}
    local copy = net:quantize()
    local before = copy(x)
    assert.is_false(before.requires_grad)
    marea.no_grad(function() net.weights["2"]:fill_(3) end)
    assert.are.equal(0, (copy(x) - before):abs():max():item())
    copy.weights["2"]:fill_(5)
    assert.is_true((copy(x) - before):abs():max():item() > 1)
    assert.are.equal(3, net.weights["2"]:detach()[1])
  end)

  with_models("refuses a weight that was replaced, and takes one that is written", function()
    local net, x = load_model "pytorch-converted/test_Linear", marea.normal{4, 10}
    local bias, t = net.weights["2"], marea.ones{8}
    net.weights["2"] = t
    assert.is_truthy(message(function() net(x) end):find('weights["2"] was replaced', 1, true))
    net.weights["2"] = bias
    marea.no_grad(function() net.weights["2"]:copy_(t) end)
    assert.are.equal(0, (net(x) - x:matmul(net.weights["1"]:transpose(1, 2)) - 1):abs():max():item() // 1e-5)
  end)

  with_models("gives constants that may be written over", function()
    local net, x = load_model "node/test_shape", marea.normal{3, 4, 5}
    net(x):fill_(7)
    assert.are.same({3, 4, 5}, net(x):totable())
  end)

  with_models("shows the operators that it runs", function()
    local net = load_model "pytorch-converted/test_Linear"
    assert.is_truthy(net:program(marea.normal{4, 10}):find("linear(%0, f32 (10, 8), f32 (8))", 1, true))
    assert.is_truthy(tostring(net):find("Model(0 f32 (4, 10) -> 3 f32 (4, 8))", 1, true))
  end)

  with_models("asks the allocator for nothing from the second run on", function()
    local net, x = load_model "pytorch-converted/test_Conv2d_padding", marea.normal{2, 3, 6, 6}
    marea.no_grad(function()
      for _ = 1, 2 do net(x):release() end
      local before = marea.memory().mallocs
      for _ = 1, 20 do net(x):release() end
      assert.are.equal(before, marea.memory().mallocs)
    end)
  end)

  with_models("is planned, with and without gradients", function()
    local net, x = load_model "pytorch-converted/test_Conv2d_padding", marea.normal{2, 3, 6, 6}
    local run = marea.plan(function() return marea.no_grad(function() return net(x) end) end)
    local step = marea.plan(function() net(x):square():mean():backward() end)
    assert.is_true(run.peak > 0 and step.peak > run.peak, run.peak .. " " .. step.peak)
  end)

  with_models("gives its weights the gradients that operators give", function()
    local net, x = load_model "pytorch-converted/test_Linear", marea.normal{4, 10}
    net(x):sum():backward()
    assert.is_true((net.weights["1"].grad - x:sum{1, keepdim = true}:expand{8, 10}):abs():max():item() < 1e-5)
    assert.are.equal(0, (net.weights["2"].grad - 4):abs():max():item())
  end)

  with_models("refuses inputs that do not fit", function()
    local net = load_model "pytorch-converted/test_Linear"
    assert.is_truthy(message(function() net(marea.normal{4, 3}) end)
      :find("input '0': expected f32 (4, 10), got tensor f32 (4, 3)", 1, true))
    assert.is_truthy(message(function() net() end):find("expected '0', got 0 arguments", 1, true))
    assert.is_truthy(message(function() net{x = marea.normal{4, 10}} end):find("there is no input 'x'", 1, true))
    assert.is_truthy(message(function() net{["0"] = marea.normal{4, 10}, y = marea.normal{1}} end)
      :find("there is no input 'y'; the inputs are '0'", 1, true))
  end)

  with_models("is not there where an operator is missing: all are named", function()
    local net, text = marea.onnx.load(DATA .. "node/test_strnormalizer_nostopwords_nochangecase/model.onnx")
    assert.is_nil(net)
    assert.is_truthy(text:find("operators that are not supported: StringNormalizer", 1, true))
  end)

  it("is not there where the file is not", function()
    local net, text = marea.onnx.load_string "\0\0"
    assert.is_nil(net)
    assert.matches("^onnx: ", text)
    net, text = marea.onnx.load "nothing.onnx"
    assert.is_nil(net)
    assert.is_truthy(text:find("nothing.onnx': cannot open", 1, true))
    net, text = marea.onnx.load "README.md"
    assert.is_nil(net)
    assert.is_truthy(text:find("not an ONNX model", 1, true))
  end)
end)

--- A field of a message: its number and what it holds, a text or a small integer.
local function field(number, value)
  if math.type(value) == "integer" then return string.char(number << 3, value) end
  return string.char(number << 3 | 2, #value) .. value
end

describe("a node that fails", function()
  --- z = op(op(x, y), y), in which the first node is named "first"
  local function load_twice(op)
    local path = folder.new() .. "/twice.onnx"
    local function value(name) return field(1, name) .. field(2, field(1, field(1, 1))) end
    local function node(name, a, b, c)
      return field(1, a) .. field(1, b) .. field(2, c) .. field(3, name) .. field(4, op)
    end
    local graph = field(1, node("first", "x", "y", "sum")) .. field(1, node("second", "sum", "y", "z")) .. field(2, "g")
      .. field(11, value "x") .. field(11, value "y") .. field(12, value "z")
    folder.write(path, field(1, 8) .. field(7, graph) .. field(8, field(1, "") .. field(2, 13)))
    return assert(marea.onnx.load(path))
  end
  teardown(function() folder.remove() end)

  it("is named before what its operator says", function()
    local net = load_twice "Add"
    assert.are.same({5, 5}, net(marea.ones(2), marea.full({2}, 2)):totable())
    local says = "onnx: node 'first' (Add): add: shapes (2) and (3) do not broadcast"
    for _ = 1, 2 do
      local text = message(function() net(marea.ones(2), marea.ones(3)) end)
      assert.is_truthy(text:find(says, 1, true), text)
    end
    local text = message(function() load_twice "MatMul"(marea.ones(2, 3), marea.ones(3, 2)) end)
    assert.is_truthy(text:find("onnx: node 'second' (MatMul): matmul: ", 1, true), text)
  end)
end)

describe("weights in another file", function()
  local place
  setup(function()
    place = folder.new()
    folder.must("mkdir " .. place .. "/data")
  end)
  teardown(function() folder.remove() end)

  --- y = Identity(w) with the weight w, f32 (2), at byte 4 of another file
  local function model(location)
    local function pair(key, value) return field(13, field(1, key) .. field(2, value)) end
    local weight = field(1, 2) .. field(2, 1) .. field(8, "w") .. pair("location", location) .. pair("offset", "4")
      .. field(14, 1)
    local node = field(1, "w") .. field(2, "y") .. field(4, "Identity")
    local graph = field(1, node) .. field(2, "g") .. field(5, weight) .. field(12, field(1, "y"))
    return field(1, 8) .. field(7, graph) .. field(8, field(1, "") .. field(2, 13))
  end

  it("are read from the folder of the model, at their place", function()
    folder.write(place .. "/data/w.bin", ("<ffff"):pack(9, 1.5, 2.5, 9))
    folder.write(place .. "/data/m.onnx", model "w.bin")
    local net = assert(marea.onnx.load(place .. "/data/m.onnx"))
    assert.are.same({1.5, 2.5}, net():totable())
    marea.no_grad(function() net():fill_(7) end)
    assert.are.same({1.5, 2.5}, net():totable())
  end)

  it("are not read for a model in a string", function()
    local net, text = marea.onnx.load_string(model "w.bin")
    assert.is_nil(net)
    assert.is_truthy(text:find("which a model in memory has none of", 1, true), text)
    local whole = field(1, 1) .. field(2, 1) .. field(8, "w") .. field(9, ("<f"):pack(2.5))
    local graph = field(1, field(1, "w") .. field(2, "y") .. field(4, "Identity")) .. field(2, "g") .. field(5, whole)
      .. field(12, field(1, "y"))
    net = assert(marea.onnx.load_string(field(1, 8) .. field(7, graph) .. field(8, field(1, "") .. field(2, 13))))
    assert.are.same({2.5}, net():totable())
  end)

  it("do not keep the model from telling what it says about itself", function()
    local about = field(14, field(1, "letters") .. field(2, "a\nb")) .. field(14, field(1, "author") .. field(2, ""))
    folder.write(place .. "/data/w.bin", ("<ffff"):pack(9, 1.5, 2.5, 9))
    folder.write(place .. "/data/about.onnx", model "w.bin" .. about)
    local net = assert(marea.onnx.load(place .. "/data/about.onnx"))
    assert.are.same({letters = "a\nb", author = ""}, net:metadata())
    folder.write(place .. "/data/m.onnx", model "w.bin")
    assert.are.same({}, assert(marea.onnx.load(place .. "/data/m.onnx")):metadata())
  end)

  it("are not read from elsewhere, nor beyond the end", function()
    folder.write(place .. "/secret.bin", ("<ffff"):pack(9, 1.5, 2.5, 9))
    folder.write(place .. "/data/short.bin", "12345678")
    folder.must(("ln -s ../secret.bin %s/data/link.bin"):format(place))
    for location, reason in pairs{["../secret.bin"] = "not in the model's folder",
      ["/etc/passwd"] = "not in the model's folder", ["link.bin"] = "link.bin", ["short.bin"] = "short.bin",
      ["none.bin"] = "none.bin"} do
      folder.write(place .. "/data/bad.onnx", model(location))
      local net, text = marea.onnx.load(place .. "/data/bad.onnx")
      assert.is_nil(net, location)
      assert.is_truthy(text:find(reason, 1, true), text)
    end
  end)
end)

describe("marea run", function()
  it("says how it is called", function()
    for _, arguments in ipairs{"", "--help", "-o r.safetensors", "m.onnx -o r.safetensors", "m.onnx x.npy -o r.npy"} do
      assert.is_truthy(output("build/marea run " .. arguments):find "^usage: marea run model.onnx", arguments)
    end
  end)

  with_models("runs a network at the shell", function()
    local x = os.tmpname()
    assert(marea.save_npy(marea.ones{4, 10}, x))
    local text = output(("build/marea run %spytorch-converted/test_Linear/model.onnx %s"):format(DATA, x))
    os.remove(x)
    assert.is_truthy(text:find("^3 f32 %(4, 8%): min "), text)
    text = output(("build/marea run %spytorch-converted/test_Linear/model.onnx"):format(DATA))
    assert.are.equal("input  0 f32 (4, 10)\nresult 3 f32 (4, 8)\n", text)
  end)
end)
