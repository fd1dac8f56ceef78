-- SPDX-License-Identifier: MIT
-- marea.gradcheck: agrees with right gradients, finds wrong ones, and leaves nothing behind.
local marea = require "marea"
local message_of = require "spec.support.message_of"
local nn = marea.nn

local function wrong(x) return (x * x:detach()):sum() end

describe("gradcheck", function()
  before_each(function() marea.seed(5) end)

  it("agrees with a right gradient, of f32 inputs too", function()
    local report = marea.gradcheck(function(x, y) return (x:exp() / y):sum(), x:tanh() end, marea.normal{3, 4},
      marea.ones(3, 1) + 1)
    assert.is_true(report.ok)
    assert.are.same({"input 1", "input 2"}, {report.rows[1].name, report.rows[2].name})
    assert.are.same({8, 3}, {report.rows[1].elements, report.rows[2].elements})
    assert.matches("^gradients agree with differences: 2 of 2 inputs and parameters %(11 elements", tostring(report))
  end)

  it("says which element is wrong, and by how much", function()
    local x = marea.tensor{{1, 2}, {3, -4}}
    local report = marea.gradcheck(wrong, x)
    assert.is_false(report.ok)
    assert.are.same({4, "[2, 2]"}, {report.rows[1].elements, report.rows[1].at})
    assert.is_true(math.abs(report.rows[1].gradient + 4) < 1e-6)
    assert.is_true(math.abs(report.rows[1].difference + 8) < 1e-6)
    assert.matches("\n  input 1, f64 %(2, 2%), %[2, 2%]: gradient %-4, difference %-[78]%.?%d*, 4 apart, "
      .. "allowed 8%.?%d*e%-05$", tostring(report))
  end)

  it("finds what is wrong beyond the elements that it looks at", function()
    local mask = marea.zeros(100)
    mask[50] = 1
    local function f(x) return (x + wrong(x * mask)):sum() end
    local report = marea.gradcheck{f, marea.ones(100), elements = 4}
    assert.is_false(report.ok)
    assert.are.equal("along a random direction", report.rows[1].at)
  end)

  it("checks parameters of modules: of f, of arguments, and of variables", function()
    local net = nn.Sequential{nn.Linear{2, 3, activation = "tanh", name = "first"}, nn.Linear{3, 1}}
    local x = marea.normal{4, 2}
    local function names(report)
      local list = {}
      for i, row in ipairs(report.rows) do list[i] = row.name end
      assert.is_true(report.ok)
      return list
    end
    assert.are.same({"input 1", "2.bias", "2.weight", "first.bias", "first.weight"}, names(marea.gradcheck(net, x)))
    assert.are.same({"input 1", "net.2.bias", "net.2.weight", "net.first.bias", "net.first.weight"},
      names(marea.gradcheck(function(t) return net(t):square():mean() end, x)))
    net[2]:freeze()
    assert.are.same({"input 2", "argument 1.first.bias", "argument 1.first.weight"},
      names(marea.gradcheck(function(n, t) return n(t) end, net, x)))
  end)

  it("leaves modules, their modes, statistics and the random state as they were", function()
    local net = nn.Sequential{nn.Linear{5}, nn.BatchNorm{}, nn.Dropout{0.5}}
    local x = marea.normal{6, 3}
    local seed, counter = marea.random_state()
    assert.is_true(marea.gradcheck(net, x).ok)
    assert.are.same({seed, counter}, {marea.random_state()})
    assert.are.equal(0, #net:parameters())
    net(x)
    local weight, mean = net[1].weight, net[2].running_mean:totable()
    assert.is_true(marea.gradcheck(net, x).ok)
    assert.are.equal(weight, net[1].weight)
    assert.are.equal("f32", net[1].weight.dtype)
    assert.are.same(mean, net[2].running_mean:totable())
    assert.is_nil(net[1].weight.grad)
    marea.nn.Linear{1}(net(x))
  end)

  it("leaves them so after an error", function()
    local net = nn.Linear{3}
    assert.matches("no way", message_of(function()
      marea.gradcheck(function(x)
        if net(x).dtype == "f64" then error "no way" end
        return net(x)
      end, marea.ones(2, 2))
    end))
    assert.is_nil(net.weight)
  end)

  it("looks at the inputs that require a gradient, if some do", function()
    local x, y = marea.ones(2):requires_grad_(), marea.ones(2)
    local report = marea.gradcheck(function(a, b) return a * b:detach() end, x, y)
    assert.is_true(report.ok)
    assert.are.equal(1, #report.rows)
  end)

  it("checks gradients of gradients", function()
    local report = marea.gradcheck{function(x) return x:sin() * x end, marea.normal{5}, second = true}
    assert.is_true(report.ok)
    assert.are.same({"input 1", "the weights of result 1"}, {report.rows[1].name, report.rows[2].name})
    assert.is_false(marea.gradcheck{function(x) return x * x * x:detach() end, marea.ones(2), second = true}.ok)
  end)

  it("says when nothing depends on anything", function()
    local report = marea.gradcheck(function(x) return x:detach():sum() end, marea.ones(2))
    assert.is_false(report.ok)
    assert.matches("^no result depends", tostring(report))
  end)

  it("says what it wants", function()
    assert.matches("gradcheck: argument 'f': expected a function or a module, got 3",
      message_of(function() marea.gradcheck(3) end))
    assert.matches("gradcheck: unknown argument 'rtl'; did you mean 'rtol'%?",
      message_of(function() marea.gradcheck{wrong, marea.ones(2), rtl = 1} end))
    assert.matches("gradcheck: there is no f32 or f64 tensor to look at",
      message_of(function() marea.gradcheck(function() end, 3) end))
  end)
end)
