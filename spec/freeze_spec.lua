-- SPDX-License-Identifier: MIT
-- Frozen modules whose parameters are not made yet: the wish holds when they are.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local folder = require "spec.support.folder"
local nn, optim, checkpoint = marea.nn, marea.optim, marea.checkpoint

local close = allclose.assert

--- A layer of each kind that learns its sizes from the first input, by name.
local function lazy_layers()
  return {
    {"Linear", nn.Linear{3}}, {"Linear without bias", nn.Linear{3, bias = false}},
    {"Linear f64", nn.Linear{3, dtype = "f64"}, "f64"},
    {"Conv2d", nn.Conv2d{3, kernel = 3, padding = "same"}}, {"Conv2d groups", nn.Conv2d{4, kernel = 1, groups = 2}},
    {"ConvTranspose2d", nn.ConvTranspose2d{3, kernel = 2, stride = 2}},
    {"BatchNorm", nn.BatchNorm{}}, {"BatchNorm, scale only", nn.BatchNorm{center = false}},
    {"LayerNorm", nn.LayerNorm{}}, {"GroupNorm", nn.GroupNorm{groups = 2}},
  }
end

local function input(dtype) return marea.normal({2, 4, 4, 4}, 0, 1, dtype or "f32") end

local function values_of(net)
  local values = {}
  for name, t in pairs(net:state()) do values[name] = t:clone() end
  return values
end

local function unchanged(net, values)
  for name, t in pairs(net:state()) do close(t, values[name], {exact = true}, name) end
end

--- Makes a layer of its own when it sees its first input.
local Late = nn.class "Late"
function Late:forward(x)
  if not self.scale then
    self.scale = nn.parameter(marea.ones{x:size(-1)})
    self.inner = nn.Linear{x:size(-1), 2}
  end
  return self.inner(x * self.scale)
end

teardown(folder.remove)

describe("freeze before the sizes are known", function()
  for i, entry in ipairs(lazy_layers()) do
    it("holds for " .. entry[1] .. ": at a call, at forward, by build", function()
      local x = input(entry[3])
      for way, make in pairs{
        call = function(net) net(x) end,
        forward = function(net) net[1]:forward(x) end,
        build = function(net) net:build(x) end,
        summary = function(net) net:summary(x) end,
        ["no_grad"] = function(net) marea.no_grad(net, x) end,
      } do
        local net = nn.Sequential{lazy_layers()[i][2]}:freeze()
        make(net)
        assert.is_true(#net:parameters() > 0, way)
        for name, t in net:named_parameters() do assert.is_false(t.requires_grad, way .. " " .. name) end
        assert.are.equal(0, select(2, net:count()))
        assert.is_truthy(tostring(net):find("frozen", 1, true))
        net:unfreeze()
        for name, t in net:named_parameters() do assert.is_true(t.requires_grad, way .. " " .. name) end
      end
    end)
  end

  it("leaves the layers alone from the first step on, and lets gradients through them", function()
    for _, entry in ipairs(lazy_layers()) do
      local x = input(entry[3])
      local first = nn.Linear{4, 4, dtype = entry[3]}
      local net = nn.Sequential{first, entry[2]}
      net[2]:freeze()
      local optimizer = optim.Adam{net, lr = 0.1, weight_decay = 0.1}
      local before = values_of(first)
      marea.seed(1)
      local twin = nn.Sequential{lazy_layers()[1][2]} -- draws of its own
      twin:build(x:to "f32")
      optimizer:step(net(x):square():mean())
      local made = values_of(net[2])
      optimizer:step(net(x):square():mean())
      unchanged(net[2], made)
      for name, t in pairs(first:state()) do
        assert.is_true((t - before[name]):abs():max():item() > 0, entry[1] .. " " .. name)
      end
    end
  end)

  it("draws the weights that it would draw otherwise", function()
    local function made(freeze)
      marea.seed(3)
      local net = nn.Sequential{nn.Conv2d{3, kernel = 3}, nn.BatchNorm{}, nn.Flatten{}, nn.Linear{2}}
      if freeze then net:freeze() end
      return net:build{4, 4, 2}
    end
    unchanged(made(true), values_of(made(false)))
  end)

  it("holds for parts, groups of optimizers and layers that were unfrozen again", function()
    local net = nn.Sequential{nn.Linear{4, name = "encoder"}, nn.Linear{4, name = "middle"},
      nn.Linear{1, name = "head"}}
    net:freeze()
    net.head:unfreeze()
    local optimizer = optim.SGD{{net.encoder, lr = 0.5}, {net.middle, net.head}, lr = 0.1, momentum = 0.9}
    local x = marea.normal{3, 5}
    net:build{5}
    local before = values_of(net)
    for _ = 1, 3 do optimizer:step(net(x):sum()) end
    unchanged(net.encoder, {weight = before["encoder.weight"], bias = before["encoder.bias"]})
    unchanged(net.middle, {weight = before["middle.weight"], bias = before["middle.bias"]})
    close(net.head.bias, before["head.bias"] - 0.1 * 3 * (1 + 1.9 + 2.71))
    net.encoder:unfreeze()
    optimizer:step(net(x):sum())
    assert.is_true((net.encoder.weight - before["encoder.weight"]):abs():max():item() > 0)
  end)

  it("keeps the running statistics of BatchNorm from the first call on", function()
    local net = nn.BatchNorm{}:freeze()
    net(marea.normal{8, 3} + 5)
    close(net.running_mean, {0, 0, 0}, {exact = true})
    net:unfreeze()
    net(marea.normal{8, 3} + 5)
    assert.is_true(net.running_mean:min():item() > 0)
  end)

  it("holds for what a class makes in its forward, and not for what a script puts in later", function()
    local net = nn.Sequential{Late{}, nn.Linear{1}}
    net:freeze()
    net(marea.ones{2, 3}):sum()
    assert.is_true(net[1].inner.frozen)
    for name, t in net:named_parameters() do assert.is_false(t.requires_grad, name) end
    net[2] = nn.Linear{2, 1} -- a new head for a frozen network
    net(marea.ones{2, 3}):sum():backward()
    assert.is_not_nil(net[2].weight.grad)
    assert.is_nil(net[1].inner.weight.grad)
  end)

  it("lets a part that is not frozen make its own inside a frozen one", function()
    local net = nn.Sequential{Late{}, Late{}}:freeze()
    net[2]:unfreeze()
    net(marea.ones{2, 3}):sum():backward()
    assert.is_false(net[1].inner.weight.requires_grad or net[1].scale.requires_grad)
    assert.is_true(net[2].inner.weight.requires_grad and net[2].scale.requires_grad)
  end)

  it("is over when the call of the frozen module ends, by an error too", function()
    local Bad = nn.class "Bad"
    function Bad:forward() error "on purpose" end -- luacheck: no unused args
    pcall(Bad{}:freeze())
    assert.is_true(nn.parameter(marea.ones{1}).requires_grad)
    nn.Sequential{nn.ReLU{}}:freeze()(marea.ones{1})
    assert.is_true(nn.Linear{1, 1}.weight.requires_grad)
    assert.is_false(nn.Linear{1, 1}.frozen)
  end)

  it("is over, and each coroutine has its own, when one ends by an error, is dropped or waits", function()
    local Waits = nn.class "Waits"
    function Waits:forward(what) -- luacheck: no unused args
      coroutine.yield()
      if what == "error" then error "on purpose" end
      return nn.Linear{1, 1}
    end
    local function started(net, what)
      local co = coroutine.create(net)
      coroutine.resume(co, what)
      return co
    end
    local function wait(net, what)
      return started(function(x) return net(x) end, what)
    end
    local frozen, free = Waits{}:freeze(), Waits{}
    local a, b, c = wait(frozen), wait(free), wait(frozen, "error")
    wait(frozen) -- dropped
    assert.is_true(nn.Linear{1, 1}.weight.requires_grad)
    assert.is_false(coroutine.resume(c))
    assert.is_true(nn.parameter(marea.ones{1}).requires_grad)
    assert.is_false(select(2, coroutine.resume(a)).weight.requires_grad)
    assert.is_true(select(2, coroutine.resume(b)).weight.requires_grad)
    assert.is_true(nn.Linear{1, 1}.weight.requires_grad)
  end)

  it("holds through a plan, a file and shared layers", function()
    local net = nn.Sequential{nn.Linear{4}, nn.Linear{1}}
    net[1]:freeze()
    marea.plan(net, {2, 3})
    assert.are.equal(0, #net:parameters())
    local path, source = folder.new() .. "/net.safetensors", nn.Sequential{nn.Linear{3, 4}, nn.Linear{4, 1}}
    assert(checkpoint.save(path, {model = source}))
    local nothing, message = checkpoint.load(path, {model = net})
    assert.is_nil(nothing)
    assert.is_truthy(message:find("layer '1' has no sizes yet: call the network once, or net:build(input", 1, true))
    assert(checkpoint.load(path, {model = net:build{3}}))
    unchanged(net, values_of(source))
    assert.are.same({false, false, true, true}, {net[1].bias.requires_grad, net[1].weight.requires_grad,
      net[2].bias.requires_grad, net[2].weight.requires_grad})
    local shared = nn.Linear{3}
    local tied = nn.Sequential{shared, shared}
    shared:freeze()
    tied(marea.ones{1, 3})
    assert.are.equal(0, select(2, tied:count()))
  end)

  it("tells which layer has no sizes when a state is loaded into it", function()
    local state = nn.Sequential{nn.Linear{2, 2}, nn.Linear{2, 3}}:state()
    assert.is_truthy(message_of(function() nn.Sequential{nn.Linear{2, 2}, nn.Linear{3}}:load_state(state) end)
      :find("layer '2' has no sizes yet", 1, true))
    assert.is_truthy(message_of(function() nn.Linear{3}:load_state(nn.Linear{2, 3}:state()) end)
      :find("the module has no sizes yet", 1, true))
    assert.is_falsy(message_of(function() nn.Linear{2, 3, bias = false}:load_state(nn.Linear{2, 3}:state()) end)
      :find("sizes yet", 1, true))
  end)
end)
