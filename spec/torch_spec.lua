-- SPDX-License-Identifier: MIT
-- Files that torch.save wrote (spec/golden/make_torch.py): values, networks, and what is refused.
local marea = require "marea"
local folder = require "spec.support.folder"
local allclose = require "spec.support.allclose"
local golden = require "spec.golden.torch"
local bytes_of = require "spec.support.hex"
local nn = marea.nn

teardown(folder.remove)

local place = folder.new() .. "/a.pt"


local function load(hex)
  folder.write(place, bytes_of(hex))
  return marea.load_torch(place)
end

local function refused(hex, why)
  local value, message = load(hex)
  assert.is_nil(value)
  assert.is_truthy(message:find(why, 1, true), message)
end

describe("a file of torch.save", function()
  it("holds tensors of every dtype and any strides", function()
    local v = assert(load(golden.values))
    local want = {
      f32 = {"f32", {{1.5, -2}}}, f16 = {"f16", {0.5, 65504}}, i64 = {"i64", {-(1 << 62), 7}},
      i32 = {"i64", {-5, (1 << 31) - 1}}, i16 = {"i64", {-300}}, i8 = {"i64", {-128, 127}}, u8 = {"u8", {200, 1}},
      bool = {"u8", {1, 0}}, transposed = {"f32", {{0, 4, 8}, {1, 5, 9}, {2, 6, 10}, {3, 7, 11}}},
      middle = {"f32", {{17, 18}, {21, 22}}}, expanded = {"f32", {{1, 1, 1}, {2, 2, 2}}}, parameter = {"f32", {4, 5}},
    }
    for name, case in pairs(want) do
      assert.are.equal(case[1], v[name].dtype, name)
      assert.are.same(case[2], v[name]:totable(), name)
      assert.is_true(v[name]:is_contiguous(), name)
    end
    assert.are.equal("f64", v.f64.dtype)
    assert.are.equal(1 / 3, v.f64:item())
    assert.are.equal("bf16", v.bf16.dtype)
    assert.are.equal(0.5, v.bf16[1])
    assert.are.same({0, 3}, {v.empty:size()})
    assert.are.same({4, 2, 3}, {v.permuted:size()})
    assert.are.equal(12 + 4 + 3, v.permuted[{4, 2, 2}] or v.permuted:totable()[4][2][2])
    assert.are.equal(v.f32, v.again)
  end)

  it("holds numbers, texts, lists and dicts", function()
    local v = assert(load(golden.values))
    assert.is_nil(v.nothing)
    assert.are.same({true, false, -7, 1 << 40, math.mininteger, 0.1, "größe"},
      {v.yes, v.no, v.integer, v.large, v.negative, v.number, v.text})
    assert.are.same({1, false, "x", {2.5}}, v.list)
    assert.are.equal(v.list, v.itself)
    assert.are.same({1, 2, 3, 4}, v.tuple)
    assert.are.same({}, v.none)
    assert.are.same({"three", "half"}, {v[3], v[2.5]})
    assert.are.same({a = 2, b = 1}, v.ordered)
    assert.are.equal(1500, #v["long list"])
    assert.are.equal(1499, v["long list"][1500])
    assert.are.equal(v.cycle, v.cycle[2])
  end)

  it("may be a checkpoint with a network's and an optimizer's state", function()
    local c = assert(load(golden.checkpoint))
    assert.are.equal(3, c.epoch)
    assert.are.same({3, 2}, {c.model.weight:size()})
    assert.are.equal(0.1, c.optimizer.param_groups[1].lr)
    assert.are.same({3, 2}, {c.optimizer.state[0].momentum_buffer:size()})
    nn.Linear{2, 3}:load_state(c.model, {from = "torch"})
  end)

  local networks = {
    linear = function() return nn.Sequential{nn.Linear{5, 7}, nn.ReLU{}, nn.Linear{7, 3}} end,
    conv = function()
      return nn.Sequential{nn.Conv2d{2, 3, kernel = 3, padding = 1}, nn.BatchNorm{3, eps = 1e-5}, nn.ReLU{}}
    end,
    lstm = function() return nn.LSTM{4, 6, layers = 2} end,
    gru = function() return nn.GRU{4, 6, reset_after = true} end,
    norm = function()
      return nn.Sequential{nn.Linear{5, 8}, nn.LayerNorm{8}, nn.GELU{}, nn.Linear{8, 2}}
    end,
  }
  for name, make in pairs(networks) do
    it("gives a network that computes what PyTorch does: " .. name, function()
      local case = golden.networks[name]
      local net = make()
      net:load_state(assert(load(case.file)), {from = "torch"})
      net:train(false)
      local x = marea.tensor(case.x):reshape(case.shape)
      if name == "conv" then x = x:permute(1, 3, 4, 2) end
      local y = net(x)
      if name == "conv" then y = y:permute(1, 4, 2, 3) end
      allclose.assert(y:contiguous():reshape(-1), case.y, {atol = 1e-5, rtol = 1e-5})
    end)
  end

  it("that would run code is refused by what it wants, and nothing runs", function()
    refused(golden.code, "refused: the file wants 'posix.system'")
    assert.is_nil(io.open "ran")
  end)

  it("of a whole module, of before 1.6 or of another protocol is refused by name", function()
    refused(golden.module, "refused: the file wants 'torch.nn.modules.linear.Linear'")
    refused(golden.legacy, "the format of PyTorch before 1.6")
    refused(golden.protocol, "a pickle of protocol 4; only 2 is supported")
  end)

  it("that is missing, damaged or cut gives nil and a message", function()
    local t, message = marea.load_torch(place .. ".no")
    assert.is_nil(t)
    assert.matches("load_torch: .*No such file", message)
    refused("00", "not a ZIP archive")
    refused(golden.checkpoint:sub(1, -3), "not a ZIP archive")
    local changed, n = bytes_of(golden.checkpoint):gsub("epoch", "epocg", 1)
    assert.are.equal(1, n)
    folder.write(place, changed)
    t, message = marea.load_torch(place)
    assert.is_nil(t)
    assert.is_truthy(message:find("wrong checksum of member 'archive/data.pkl'", 1, true), message)
  end)
end)
