-- SPDX-License-Identifier: MIT
-- Files of Torch7 (spec/golden/make_t7.py): values, networks, and what is refused.
local marea = require "marea"
local folder = require "spec.support.folder"
local allclose = require "spec.support.allclose"
local bytes_of = require "spec.support.hex"
local golden = require "spec.golden.t7"
local nn = marea.nn

teardown(folder.remove)

local place = folder.new() .. "/a.t7"

local function load(bytes)
  folder.write(place, bytes)
  return marea.load_t7(place)
end

local function refused(bytes, why)
  local value, message = load(bytes)
  assert.is_nil(value)
  assert.is_truthy(message:find("load_t7: '" .. place .. "': " .. why, 1, true), message)
end

describe("a file of Torch7", function()
  it("holds tensors of every type and any strides", function()
    local v = assert(load(bytes_of(golden.values)))
    local want = {
      f32 = {"f32", {{1.5, -2}}}, f64 = {"f64", {1 / 3}}, u8 = {"u8", {200, 1}}, i8 = {"i64", {-128, 127}},
      i16 = {"i64", {-300}}, i32 = {"i64", {-5, (1 << 31) - 1}}, i64 = {"i64", {-(1 << 62), 7}},
      middle = {"f32", {{8, 9}, {14, 15}}}, storage = {"i64", {2, 3}},
      transposed = {"f32", {{0, 6, 12, 18}, {1, 7, 13, 19}, {2, 8, 14, 20}, {3, 9, 15, 21}, {4, 10, 16, 22},
        {5, 11, 17, 23}}},
    }
    for name, case in pairs(want) do
      assert.are.same(case, {v[name].dtype, v[name]:totable()}, name)
      assert.is_true(v[name]:is_contiguous(), name)
    end
    assert.are.same({0}, v.empty.shape)
    local half = assert(load(bytes_of(golden.half)))
    assert.are.same({"f16", {0.5, 65504}}, {half.dtype, half:totable()})
  end)

  it("holds numbers, texts, truth values, tables and objects", function()
    local v = assert(load(bytes_of(golden.values)))
    assert.are.same({0.1, -7, true, false, "größe"}, {v.number, v.integer, v.yes, v.no, v.text})
    assert.are.equal("integer", math.type(v.integer))
    assert.are.same({1, "x", {2.5}}, v.list)
    assert.are.same({"three", "half", "true"}, {v[3], v[2.5], v[true]})
    assert.are.equal(v.cycle, v.cycle.itself)
    assert.are.equal(v.a, v.b)
    assert.are.same({__typename = "nn.Identity", size = 3}, v.object)
    assert.is_true(load "\5\0\0\0\1\0\0\0")
    assert.is_false(load "\0\0\0\0")
  end)

  local first = {permute = {1, 3, 4, 2}, back = {1, 4, 2, 3}}
  local networks = {
    double = {nn.Sequential{nn.Linear{5, 7}, nn.Tanh{}, nn.Linear{7, 3}}},
    float = {nn.Sequential{nn.Linear{5, 7}, nn.ReLU{}, nn.Sequential{nn.Linear{7, 4}, nn.Tanh{}}}},
    cuda = {nn.Sequential{nn.Linear{5, 3}}},
    conv = {nn.Sequential{nn.Conv2d{2, 3, kernel = 3}, nn.BatchNorm{3, eps = 1e-5}, nn.ReLU{}}, first},
    old = {nn.Sequential{nn.Conv2d{2, 3, kernel = 2}, nn.BatchNorm{3, eps = 1e-5}, nn.ReLU{}}, first},
    temporal = {nn.Sequential{nn.Conv1d{3, 4, kernel = 2}, nn.Tanh{}}},
    embedding = {nn.Sequential{nn.Embedding{6, 4}, nn.Linear{4, 2}}},
  }
  for name, case in pairs(golden.networks) do
    it("gives a network that computes what it did: " .. name, function()
      local net, order = table.unpack(networks[name])
      net:load_state(assert(load(bytes_of(case.file))), {from = "t7"}):evaluate()
      local x = marea.tensor(case.x, {dtype = name == "embedding" and "i64" or "f32"}):reshape(case.shape)
      local y = net(order and x:permute(order.permute) or x)
      if order then y = y:permute(order.back) end
      allclose.assert(y:contiguous():reshape(-1), case.y, {atol = 1e-5, rtol = 1e-5})
    end)
  end

  it("that is no module, or one of other layers, is no state", function()
    local net = nn.Sequential{nn.Linear{5, 3}}
    local function fails(state, why)
      local ok, message = pcall(net.load_state, net, state, {from = "t7"})
      assert.is_false(ok)
      assert.is_truthy(message:find(why, 1, true), message)
    end
    fails({}, "load_state: argument 'state': expected a module of Torch7, as marea.load_t7 gives it, got ")
    fails({__typename = "nn.Sequential", modules = {3}},
      "load_state: 'modules' of Torch7's nn.Sequential: expected modules, got 3")
    fails(assert(load(bytes_of(golden.networks.double.file))), "load_state: the state of t7 does not fit the module")
  end)

  it("with functions, or a class with a format of its own, is refused", function()
    refused(bytes_of(golden.code), "refused: a function, which is code, is kept as 'f'")
    refused(bytes_of(golden.own), "refused: class 'tds.Hash' has a format of its own")
    refused("4\n1\n", "in ASCII, which is not read")
  end)

  it("that is missing or cut gives nil and a message", function()
    local t, message = marea.load_t7(place .. ".no")
    assert.is_nil(t)
    assert.matches("load_t7: .*No such file", message)
    refused(bytes_of(golden.values):sub(1, -2), "truncated: it ends too early")
    refused(bytes_of(golden.values) .. "\0", "there are 1 bytes behind its value")
  end)
end)
