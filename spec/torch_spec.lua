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

describe("net:load_torch", function()
  local weight, bias = {{1, 2}, {3, 4}, {5, 6}}, {7, 8, 9}

  --- A file of these tensors by name, of safetensors.
  local function saved(names)
    local tensors = {}
    for name, values in pairs(names) do tensors[name] = marea.tensor(values) end
    local path = folder.new() .. "/a.safetensors"
    assert(marea.save(path, tensors))
    return path
  end

  local function values(net) return {net[1].weight:totable(), net[1].bias:totable()} end
  local want = {{{1, 3, 5}, {2, 4, 6}}, bias}

  it("takes a checkpoint's state, by its key", function()
    folder.write(place, bytes_of(golden.checkpoint))
    local net = nn.Linear{2, 3}
    assert.are.equal(net, net:load_torch(place, nil, {key = "model"}))
    local state = assert(marea.load_torch(place)).model
    assert.are.same(state.weight:permute(2, 1):totable(), net.weight:totable())
    local ok, message = pcall(net.load_torch, net, place)
    assert.is_false(ok)
    assert.is_truthy(message:find("has no tensors by name; key = name looks into one of its tables: 'model'", 1, true),
      message)
    assert.is_false((pcall(net.load_torch, net, place, nil, {key = "nothing"})))
  end)

  it("takes a file with PyTorch's names as they are", function()
    local net = nn.Sequential{nn.Linear{2, 3}}
    assert(net:load_torch(saved{["0.weight"] = weight, ["0.bias"] = bias}))
    assert.are.same(want, values(net))
  end)

  it("maps modules, names and what is left out by a table", function()
    local net = nn.Sequential{nn.Linear{2, 3}}
    assert(net:load_torch(saved{["model.fc.weight"] = weight, ["model.fc.bias"] = bias, ["model.head.weight"] = bias},
      {["model.fc"] = 1, ["model.head"] = false}))
    assert.are.same(want, values(net))
    net = nn.Sequential{nn.Linear{2, 3}}
    assert(net:load_torch(saved{w = weight, b = bias}, {w = "1.weight", b = "1.bias"}))
    assert.are.same(want, values(net))
    net = nn.Sequential{nn.Linear{2, 3}}
    assert(net:load_torch(saved{["module.0.weight"] = weight, ["module.0.bias"] = bias}, {module = ""}))
    assert.are.same(want, values(net))
  end)

  it("maps names by a function", function()
    local net = nn.Sequential{nn.Linear{2, 3}}
    assert(net:load_torch(saved{["fc.weight"] = weight, ["fc.bias"] = bias, other = bias}, function(name)
      return name:find "^fc" and name:gsub("^fc", "1") or nil
    end))
    assert.are.same(want, values(net))
  end)

  it("says what does not fit, and gives nil for a file that is not there", function()
    local net = nn.Sequential{nn.Linear{2, 3}}
    local path = saved{["fc.weight"] = weight, b = bias, bias = bias}
    local function fails(map, why, ...)
      local ok, message = pcall(net.load_torch, net, path, map, ...)
      assert.is_false(ok)
      assert.is_truthy(message:find(why, 1, true), message)
    end
    fails({fc = 1}, "load_state: the state of torch does not fit the module")
    fails({b = "x", bias = "x"}, "load_torch: 'b' and 'bias' get the same name")
    fails(3, "load_torch: argument 'map': expected a table of names or a function, got 3")
    fails(function() return 3 end, "load_torch: argument 'map('b')': expected a name, or nil to leave it out, got 3")
    fails(nil, "load_torch", {wrong = 1})
    local value, message = net:load_torch(place .. ".no")
    assert.is_nil(value)
    assert.matches("load_torch: .*No such file", message)
  end)
end)
