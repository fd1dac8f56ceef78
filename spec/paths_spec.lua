-- SPDX-License-Identifier: MIT
-- Paths are the keys of states, optimizers, files and reruns: each stands for one tensor, or is refused.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local has = require "spec.support.has"
local message_of = require "spec.support.message_of"
local folder = require "spec.support.folder"
local nn, optim, checkpoint = marea.nn, marea.optim, marea.checkpoint

local close = allclose.assert

local function linear(options)
  options = options or {}
  options[1], options[2] = 2, 2
  return nn.Linear(options)
end

--- A module whose fields are those of the table.
local Holder = nn.class "Holder"
function Holder:init(fields)
  for key, value in pairs(fields) do self[key] = value end
end
function Holder:forward(x) return x end -- luacheck: no unused args

--- Two tensors with one path, and how messages name their places.
local function twins()
  local buffered = Holder{a = Holder{}}
  buffered:buffer("a.mean", marea.ones{1})
  buffered.a.mean = nn.parameter(marea.ones{1})
  return {
    {Holder{linear(), ["1"] = linear()}, "'1.bias'", "self[1].bias", 'self["1"].bias'},
    {Holder{["a.b"] = linear(), a = {b = linear()}}, "'a.b.bias'", "self.a.b.bias", 'self["a.b"].bias'},
    {Holder{["a.b"] = {c = linear()}, a = {["b.c"] = linear()}}, "'a.b.c.bias'", 'self.a["b.c"].bias',
      'self["a.b"].c.bias'},
    {Holder{["a.weight"] = nn.parameter(marea.ones{1}), a = linear()}, "'a.weight'", "self.a.weight",
      'self["a.weight"]'},
    {Holder{weight = nn.parameter(marea.ones{1}), [""] = linear()}, "'weight'", "self.weight", 'self[""].weight'},
    {Holder{[-1] = linear(), ["-1"] = linear()}, "'-1.bias'", "self[-1].bias", 'self["-1"].bias'},
    {buffered, "'a.mean'", "self.a.mean", 'self["a.mean"]'},
    {nn.Sequential{Holder{linear(), ["1"] = linear()}, name = "outer"}, "'1.1.bias'", "self[1][1].bias",
      'self[1]["1"].bias'},
  }
end

teardown(folder.remove)

describe("two tensors with one path", function()
  it("are refused by everything that goes by paths, with both places", function()
    for i in ipairs(twins()) do
      for name, use in pairs{
        state = function(net) net:state() end,
        parameters = function(net) net:parameters() end,
        named_parameters = function(net) net:named_parameters() end,
        load_state = function(net) net:load_state({}) end,
        count = function(net) net:count() end,
        freeze = function(net) net:freeze() end,
        optimizer = function(net) optim.SGD{net}:step() end,
        group = function(net) optim.Adam{net, linear()}:zero_grad() end,
        checkpoint = function(net) checkpoint.save("/nowhere", {model = net}) end,
      } do
        local one = twins()[i]
        has(message_of(function() use(one[1]) end), "two tensors have the path", table.unpack(one, 2))
        assert.is_string(tostring(one[1]), name)
      end
      has(message_of(function() marea.plan(twins()[i][1], {1, 2}) end), "two tensors have the path")
    end
  end)

  it("of a table of modules are refused too", function()
    has(message_of(function() optim.Adam{{linear(), ["1"] = linear()}}:zero_grad() end), "self[1].bias")
    has(message_of(function() checkpoint.save("/nowhere", {model = {["a.b"] = linear(), a = {b = linear()}}}) end),
      'self["a.b"].bias')
  end)
end)

describe("a name", function()
  it("in a Sequential is a string that is found and is nobody else's", function()
    local function refused(name, ...)
      has(message_of(function() nn.Sequential{linear(), linear{name = name}} end), ...)
    end
    refused("1", "Sequential: the name '1' of layer 2 is that of a position; name it 'layer1'")
    refused("-3", "the name '-3' of layer 2 is that of a position")
    refused("_head", "the name '_head' of layer 2 is private", "begin with '_'")
    refused("", "the name '' of layer 2 is empty")
    refused("forward", "the name 'forward' of layer 2 is taken")
    refused("training", "the name 'training' of layer 2 is taken")
    refused("frozen", "the name 'frozen' of layer 2 is taken")
    refused(3, "'name of layer 2': expected a string, got 3")
    refused(linear(), "'name of layer 2': expected a string, got a Linear")
    has(message_of(function() nn.Sequential{linear{name = "a"}, nn.ReLU{}, linear{name = "a"}} end),
      "layers 1 and 3 have the same name 'a'")
    for _, name in ipairs{"a.b", "a/b", "01", "1.5", "1x", "größe", "a b"} do
      local net = nn.Sequential{linear{name = name}, linear()}
      local path = folder.new() .. "/net.safetensors"
      assert(checkpoint.save(path, {model = net, optimizer = optim.Adam{net}}))
      assert.is_not_nil(marea.load(path)[name .. ".weight"])
    end
  end)

  it("may come twice for the same layer: one weight under its first path", function()
    local named, nameless = linear{name = "tied"}, linear()
    local net = nn.Sequential{named, nameless, nn.ReLU{}, named, nameless}
    local names = {}
    for name in net:named_parameters() do names[#names + 1] = name end
    assert.are.same({"2.bias", "2.weight", "tied.bias", "tied.weight"}, names)
    local x = marea.normal{3, 2}
    close(net(x), nameless(named(nameless(named(x)):relu())))
    local optimizer = optim.SGD{net, lr = 1}
    optimizer:step(net(x):sum())
    local other = nn.Sequential{linear{name = "tied"}, linear()}
    other:load_state(net:state())
    close(other.tied.weight, named.weight, {exact = true})
  end)
end)

describe("a checkpoint", function()
  local function adam_of(net)
    local optimizer = optim.Adam{net, lr = 0.1}
    optimizer:step(net(marea.ones{1, 2}):sum())
    return optimizer
  end

  it("gives one optimizer back what it remembers of parameters whose names have a '/'", function()
    local path = folder.new() .. "/run.safetensors"
    local function new()
      marea.seed(2)
      return nn.Sequential{linear{name = "enc/a"}, linear{name = "steps"}, linear{name = "x/y/z.mean"}}
    end
    local net = new()
    local optimizer = adam_of(net)
    assert(checkpoint.save(path, {model = net, optimizer = optimizer}))
    local other = new()
    local restored = optim.Adam{other, lr = 0.1}
    assert(checkpoint.load(path, {model = other, optimizer = restored}))
    local state, count = restored:state(), 0
    for name, t in pairs(optimizer:state()) do
      close(state[name], t, {exact = true}, name)
      count = count + 1
    end
    assert.are.equal(13, count) -- steps, and mean and square of six parameters
  end)

  it("refuses names that would read as another part of it", function()
    has(message_of(function() checkpoint.save("/nowhere", {model = {["optimizer/x"] = linear()}}) end),
      "'optimizer/x.bias' is no path for a model's tensor")
    local net = linear()
    has(message_of(function()
      checkpoint.save("/nowhere", {model = net, optimizer = {["a/b"] = optim.Adam{net}}})
    end), "the name 'a/b' of an optimizer has a '/'")
  end)

  it("of several optimizers is none of a single one's, and the other way round", function()
    local path, net = folder.new() .. "/run.safetensors", linear()
    local optimizer = adam_of(net)
    assert(checkpoint.save(path, {model = net, optimizer = {a = optimizer}}))
    local nothing, message = checkpoint.load(path, {model = net, optimizer = optimizer})
    assert.is_nil(nothing)
    has(message, "has no state of an optimizer")
    assert(checkpoint.save(path, {model = net, optimizer = optimizer}))
    nothing, message = checkpoint.load(path, {model = net, optimizer = {a = optimizer}})
    assert.is_nil(nothing)
    has(message, "has no state of an optimizer")
  end)
end)

describe("a rerun", function()
  it("tells networks in tables apart by their keys", function()
    local path = folder.write(folder.new() .. "/script.lua", [[
      local marea = require "marea"
      local nn, optim = marea.nn, marea.optim
      local function new() return nn.Linear{1, 1, init = "zeros"} end
      local nets = {new(), ["1"] = new(), ["a.b"] = new(), a = {b = new()}}
      local list = {nets[1], nets["1"], nets["a.b"], nets.a.b}
      for i, net in ipairs(list) do optim.SGD{net, lr = i}:step(net(marea.ones{1, 1}):sum()) end
      seen = {}
      for i, net in ipairs(list) do seen[i] = net.weight:item() end
    ]])
    marea.rerun(path)
    assert.are.same({-1, -2, -3, -4}, seen) -- luacheck: ignore
    local report = marea.rerun(path)
    assert.are.same({-2, -4, -6, -8}, seen) -- luacheck: ignore
    assert.are.equal(8, #report.kept)
    marea.rerun.forget(path)
    seen = nil -- luacheck: ignore
  end)
end)
