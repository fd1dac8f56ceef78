-- SPDX-License-Identifier: MIT
-- Messages: the script's line, the layer, the function, the argument, what was expected and what came.
local core = require "marea.core"
local ops = core.ops

local function message_of(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "no error")
  assert.is_string(message)
  return message
end

--- The first line of the message must be `text`, after "FILE:LINE: ".
local function says(text, f, ...)
  local message = message_of(f, ...):match "^[^\n]*"
  assert.are.equal(text, (message:gsub("^[^:]*errors_spec%.lua:%d+: ", "", 1)))
end

local x = core.tensor{{1, 2, 3}, {4, 5, 6}}
local image, kernel = ops.full({1, 8, 8, 1}, 0), ops.full({3, 3, 1, 2}, 0)

describe("an argument that is wrong", function()
  it("is named, with what was expected and what came", function()
    says("conv2d: argument 'weight': expected a tensor, got nothing", function() return ops.conv2d(x) end)
    says("conv2d: argument 'weight': expected a tensor, got string 'w'", function() return ops.conv2d(x, "w") end)
    says("add: argument 'b': expected a tensor or a number, got true", function() return x + true end)
    says("add: argument 'b': expected a tensor or a number, got a list of 2", function() return x + {1, 2} end)
    says("add_: argument 'a': expected a tensor, got 1", function() return x.add_(1, x) end)
    says("conv2d: argument 'stride': expected a positive integer or {h, w}, got string 'x'",
      function() return ops.conv2d(image, kernel, {stride = "x"}) end)
    says("conv2d: argument 'stride': expected a positive integer or {h, w}, got a list of 3",
      function() return ops.conv2d(image, kernel, {stride = {1, 2, 3}}) end)
    says("conv2d: argument 'stride': expected a positive integer or {h, w}, got a list with 1.5 at 2",
      function() return ops.conv2d(image, kernel, {stride = {1, 1.5}}) end)
    says("conv2d: argument 'padding': expected an integer, {h, w}, {top, bottom, left, right}, 'same' or 'valid', "
      .. "got string 'full'", function() return ops.conv2d(image, kernel, {padding = "full"}) end)
    says("sum: argument 'keepdim': expected true or false, got 1", function() return x:sum(1, 1) end)
    says("cast: argument 'dtype': expected one of 'f32', 'f64', 'i64', 'u8', 'bf16', 'f16', got string 'float'",
      function() return x:cast "float" end)
    says("full: argument 'shape': expected a list of at most 8 integers, got nothing", function() return ops.full() end)
    says("select: argument 'dim': expected a dimension (1 is the first, -1 the last), got 0",
      function() return x:select(0, 1) end)
    local message = message_of(function() return ops.mse(x, x, "men") end)
    assert.is_truthy(message:find("expected one of 'mean', 'sum'", 1, true))
  end)

  it("is refused before the call has a result that cannot be differentiated", function()
    local w = ops.full({3, 2}, 1)
    says("linear: argument 'slope': expected a number >= 0, got -1",
      function() return ops.linear(x, w, {activation = "leaky_relu", slope = -1}) end)
    says("conv2d: argument 'slope': expected a number >= 0, got -1",
      function() return ops.conv2d(image, kernel, {activation = "leaky_relu", slope = -1}) end)
  end)

  it("that asks for more memory than any machine has is out of memory", function()
    for log2 = 18, 30 do -- 2^51 to 2^63 bytes
      local message = message_of(ops.full, {1 << 30, 1 << log2}, 0, "f64")
      assert.is_truthy(message:find("full: ", 1, true))
    end
  end)

  it("may not be a numeric string, a fraction, NaN or out of range where an integer is asked for", function()
    for _, bad in ipairs{"3", 1.5, 0 / 0, 2.0 ^ 63, -1 / 0} do
      local message = message_of(function() return x:select(1, bad) end)
      assert.is_truthy(message:find("select: argument 'index': expected an index",
        1, true))
    end
    assert.are.same({4, 5, 6}, x:select(1, 2.0):totable())
  end)

  it("is found out by name, with a guess at what was meant", function()
    says("conv2d: unknown argument 'strid'; did you mean 'stride'?",
      function() return ops.conv2d(image, kernel, {strid = 2}) end)
    says("conv2d: unknown argument 'dialtion'; did you mean 'dilation'?",
      function() return ops.conv2d(image, kernel, {dialtion = 2}) end)
    says("conv2d: unknown argument 'qqq'; known: 'stride', 'padding', 'dilation', 'groups', 'activation', 'slope', "
      .. "'algorithm'",
      function() return ops.conv2d(image, kernel, {qqq = 2}) end)
    says("conv2d: argument 'bias' is a tensor; give it by position, before the table",
      function() return ops.conv2d(image, kernel, {bias = x}) end)
    says("sum: argument 'dims' is given twice", function() return x:sum({1}, {dims = 2}) end)
    says("conv2d: arguments by name come last", function() return ops.conv2d(image, kernel, {stride = 1}, 2) end)
    says("relu: too many arguments: expected at most 1, got 2", function() return x:relu(1) end)
    says("tensor: unknown argument 'dtyp'; did you mean 'dtype'?", core.tensor, {1}, {dtyp = "f32"})
    says("a tensor has no field or method 'shap'; did you mean 'shape'?", function() return x.shap end)
    says("a tensor has no field or method 'reshapee'; did you mean 'reshape'?", function() return x:reshapee(3) end)
  end)

  it("that is long is shortened", function()
    local long = ("x"):rep(100000)
    assert.is_true(#message_of(ops.conv2d, image, kernel, {[long] = 1}) < 300)
    assert.is_true(#message_of(ops.conv2d, image, long) < 300)
    assert.is_true(#message_of(function() return x[long] end) < 300)
  end)

  it("never reaches a format", function()
    assert.is_truthy(message_of(ops.conv2d, image, "%s%n"):find("string '%s%n'", 1, true))
  end)
end)

describe("a table that is no tensor", function()
  it("is refused with the path to the item", function()
    says("tensor: item [2]: expected a list of 2 as the first one, got a list of 1", core.tensor, {{1, 2}, {3}})
    says("tensor: item [2][1]: expected a number, got string 'x'", core.tensor, {{1, 2}, {"x", 3}})
    says("tensor: item [2]: expected a table, got 3", core.tensor, {{1, 2}, 3})
    says("tensor: item [1]: expected a number, got tensor f32 (2, 3) (stack makes one tensor of a list of tensors)",
      core.tensor, {x})
    says("tensor: item [3]: expected an integer from 0 to 255, got 256", core.tensor, {0, 255, 256}, {dtype = "u8"})
    local endless = {}
    endless[1] = endless
    says("tensor: the table is nested deeper than the 8 dimensions of a tensor", core.tensor, endless)
  end)
end)

describe("an index that is wrong", function()
  it("is explained", function()
    says("index 0: the first element is 1", function() return x[0] end)
    says("index 0: the first element is 1", function() return x[{1, 0}] end)
    says("index 0: the first element is 1", function() return x["0:1"] end)
    says("index 3 is out of range for dimension 1 of tensor f32 (2, 3)", function() return x[3] end)
    says("index -4 is out of range for dimension 2 of tensor f32 (2, 3)", function() return x[{1, -4}] end)
    says("index: too many positions for tensor f32 (2, 3)", function() return x[{1, 1, 1}] end)
    says("index '1:2:'" .. ": expected positions and ranges such as '2:5, :, -1'", function() return x["1:2:"] end)
    says("index '1,'" .. ": expected positions and ranges such as '2:5, :, -1'", function() return x["1,"] end)
    says("index: expected an integer, a list such as {2, 5}, a string such as '2:5, :', a mask or a tensor of "
      .. "positions, got 1.5", function() return x[1.5] end)
  end)

  it("is not written to", function()
    says("t[...] = v: argument 'v': expected a number or a tensor, got a list of 3", function() x[1] = {1, 2, 3} end)
    says("t[...] = v: v is f32 (2), which does not fit into the part f32 (3) of f32 (2, 3)",
      function() x[1] = core.tensor{1, 2} end)
    says("copy_: tensor f32 (3, 2) does not fit into tensor f32 (2, 3)", function() x:copy_(x:transpose(1, 2)) end)
    says("a tensor's field 'requires_grad' is read only; call t:requires_grad_()",
      function() x.requires_grad = true end)
    says("fill_: argument 'value': expected an integer, got 1.5",
      function() core.tensor({1}, {dtype = "i64"}):fill_(1.5) end)
  end)
end)

describe("the place in a message", function()
  it("is the innermost line that is not the library's", function()
    local chunk = assert(load([[
      local f, x = ...
      return function()
        return f(x)
      end]], "=a_script"))
    assert.are.equal("a_script:3: conv2d: argument 'weight': expected a tensor, got nothing",
      message_of(chunk(ops.conv2d, x)))
  end)

  it("skips frames of the library's files, but not of others beside them", function()
    core.library "@/somewhere/library/"
    local script = assert(load("local f = ...\nlocal y = f()\nreturn y", "=a_script"))
    local function inside(name)
      return assert(load("local f, x = ... return function() local y = f(x) return y end",
        "@/somewhere/library/" .. name))(ops.conv2d, x)
    end
    assert.is_truthy(message_of(script, inside "nn/conv.lua"):find "^a_script:2: conv2d")
    assert.is_truthy(message_of(script, inside "layer.lua"):find "^/somewhere/library/layer.lua:1: conv2d")
  end)
end)

describe("the layer in a message", function()
  local Layer = {__module = true, __name = "Layer"}
  Layer.__index = Layer
  function Layer:__call(t)
    local y = self.op and self.op(t) or t
    for _, layer in ipairs(self.layers or {}) do y = layer(y) end
    if self.last then y = self.last(y) end
    return y
  end
  local function layer(fields) return setmetatable(fields, Layer) end
  local function broken() return layer{op = function(t) return ops.conv2d(t) end} end

  it("is its path from the outermost module", function()
    local model = layer{last = layer{layers = {layer{}, layer{last = broken()}}}}
    assert.is_truthy(message_of(model, x):find("got nothing (layer 'last.layers.2.last')", 1, true))
  end)

  it("is its class when it is alone, and missing outside of modules", function()
    assert.is_truthy(message_of(broken(), x):find("(layer 'Layer')", 1, true))
    assert.is_nil(message_of(ops.conv2d, x):find("layer", 1, true))
  end)
end)

describe("a file", function()
  local path

  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  it("keeps tensors and texts", function()
    local i = core.tensor({1, -2}, {dtype = "i64"})
    assert.is_true(core.save(path, {["enc.weight"] = x, index = i}, {epoch = "3", empty = ""}))
    local tensors, texts = core.load(path)
    assert.are.same(x:totable(), tensors["enc.weight"]:totable())
    assert.are.same({1, -2}, tensors.index:totable())
    assert.are.equal("i64", tensors.index.dtype)
    assert.are.same({epoch = "3", empty = ""}, texts)
  end)

  it("may be a string, with the same bytes", function()
    local tensors, texts = {["enc.weight"] = x, half = core.tensor({0.5}, {dtype = "f16"})}, {epoch = "3"}
    local bytes = core.save_string(tensors, texts)
    assert.is_true(core.save(path, tensors, texts))
    local f <close> = assert(io.open(path, "rb"))
    assert.are.equal(f:read "a", bytes)
    local again, told = core.load_string(bytes)
    assert.are.same({x:totable(), {0.5}, texts}, {again["enc.weight"]:totable(), again.half:totable(), told})
    assert.are.same({}, core.load_string(core.save_string{}))
    local value, message = core.load_string(bytes:sub(1, -2))
    assert.is_nil(value)
    assert.is_truthy(message:find("^load_string: truncated: tensor"), message)
    assert.matches("^load_string: damaged: wrong checksum", select(2, core.load_string((bytes:gsub("enc", "end")))))
    says("load_string: argument 'bytes': expected a string, got nothing", core.load_string)
    says("save_string: argument 'w': expected a tensor, got string 'v'", core.save_string, {w = "v"})
    says("save_string: argument 'texts': expected a table of strings, got 3", core.save_string, {w = x}, 3)
  end)

  it("that is missing gives nil and a message; misuse raises", function()
    local value, message = core.load(path .. ".missing")
    assert.is_nil(value)
    assert.is_truthy(message:find(path .. ".missing", 1, true))
    assert.is_nil((core.save("/nowhere/at/all", {a = x})))
    says("load: argument 'path': expected a string, got 3", core.load, 3)
    says("save: argument 'w': expected a tensor, got string 'v'", core.save, path, {w = "v"})
    says("save: argument 'tensors': expected names as keys, got 1", core.save, path, {x})
    says("save: argument 'path': a zero byte is not allowed here", core.save, "a\0b", {})
  end)
end)
