-- SPDX-License-Identifier: MIT
-- Optimizers: formulas, clipping, order of events, state, memory; schedules.
local marea = require "marea"
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local nn, optim, ops = marea.nn, marea.optim, core.ops

local close = allclose.assert

local function parameter(value) return nn.parameter(marea.tensor(value, {dtype = "f64"})) end

--- The values of p after updates with the gradients given, one after the other.
local function run(optimizer, p, gradients)
  for _, g in ipairs(gradients) do optimizer:step((p * g):sum()) end
  return p:item()
end

local GRADIENTS = {0.5, -2, 3}

describe("an optimizer", function()
  it("follows its formula", function()
    -- name, arguments, update of p by the gradient g, s being a table to remember things in
    local formulas = {
      {"SGD", {lr = 0.1, momentum = 0.9}, function(p, g, s)
        s.v = 0.9 * (s.v or 0) + g
        return p - 0.1 * s.v
      end},
      {"SGD", {lr = 0.1, momentum = 0.9, nesterov = true, weight_decay = 0.01}, function(p, g, s)
        g = g + 0.01 * p
        s.v = 0.9 * (s.v or 0) + g
        return p - 0.1 * (g + 0.9 * s.v)
      end},
      {"RMSprop", {lr = 0.1}, function(p, g, s)
        s.a = 0.9 * (s.a or 0) + 0.1 * g * g
        return p - 0.1 * g / (math.sqrt(s.a) + 1e-7)
      end},
      {"RMSprop", {lr = 0.1, rho = 0.5, momentum = 0.8, eps = 1e-3}, function(p, g, s)
        s.a = 0.5 * (s.a or 0) + 0.5 * g * g
        s.v = 0.8 * (s.v or 0) + 0.1 * g / (math.sqrt(s.a) + 1e-3)
        return p - s.v
      end},
      {"Adam", {lr = 0.1, weight_decay = 0.2}, function(p, g, s)
        g, s.t = g + 0.2 * p, (s.t or 0) + 1
        s.m, s.v = 0.9 * (s.m or 0) + 0.1 * g, 0.999 * (s.v or 0) + 0.001 * g * g
        return p - 0.1 * s.m / (1 - 0.9 ^ s.t) / (math.sqrt(s.v / (1 - 0.999 ^ s.t)) + 1e-8)
      end},
      {"AdamW", {lr = 0.1, beta1 = 0.8, weight_decay = 0.2}, function(p, g, s)
        s.t = (s.t or 0) + 1
        s.m, s.v = 0.8 * (s.m or 0) + 0.2 * g, 0.999 * (s.v or 0) + 0.001 * g * g
        p = p - 0.1 * 0.2 * p
        return p - 0.1 * s.m / (1 - 0.8 ^ s.t) / (math.sqrt(s.v / (1 - 0.999 ^ s.t)) + 1e-8)
      end},
      {"Adagrad", {lr = 0.1}, function(p, g, s)
        s.a = (s.a or 0) + g * g
        return p - 0.1 * g / (math.sqrt(s.a) + 1e-10)
      end},
    }
    for _, formula in ipairs(formulas) do
      local name, arguments, update = table.unpack(formula)
      local p, expected, memory = parameter(2), 2, {}
      arguments[1] = {p}
      for _, g in ipairs(GRADIENTS) do expected = update(expected, g, memory) end
      close(run(optim[name](arguments), p, GRADIENTS), expected, {rtol = 1e-12, atol = 1e-12})
    end
  end)

  it("learns", function()
    for _, name in ipairs{"SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Muon"} do
      marea.seed(2)
      local net = nn.Sequential{nn.Linear{1, 16, activation = "tanh"}, nn.Linear{16, 1}}
      local optimizer = optim[name]{net, lr = name == "SGD" and 0.1 or 0.02}
      local x = marea.linspace(-2, 2, 64):unsqueeze(-1)
      local y = x:sin()
      local first, last
      for step = 1, 200 do
        last = optimizer:step(function() return net(x):mse(y) end):item()
        first = step == 1 and last or first
      end
      assert.is_true(last < 0.1 * first, ("%s: %g to %g"):format(name, first, last))
    end
  end)

  it("takes the learning rate from a function of the step", function()
    local p, steps = parameter(0), {}
    local optimizer = optim.SGD{p, lr = function(step)
      steps[#steps + 1] = step
      return 1 / step
    end}
    close(run(optimizer, p, {1, 1, 1}), -(1 + 1 / 2 + 1 / 3))
    assert.are.same({1, 2, 3}, steps)
  end)

  it("clips the norm of all gradients together, then each element", function()
    local a, b = parameter{0, 0}, parameter{0}
    local optimizer = optim.SGD{{a, b}, lr = 1, clip_norm = 6.5, clip_value = 2}
    optimizer:step((a * marea.tensor({3, 4}, {dtype = "f64"})):sum() + (b * 12):sum()) -- norm 13
    close(a, {-1.5, -2})
    close(b, {-2})
  end)

  it("refuses gradients without a finite norm when it clips, changes nothing and goes on", function()
    local p = parameter{1, 2}
    local optimizer = optim.SGD{{p}, lr = 1, clip_norm = 1}
    assert.is_truthy(message_of(function() optimizer:step((p - 1):sqrt():sum()) end):find "norm of the gradients")
    close(p, {1, 2}, {exact = true})
    optimizer:step((p * 0.5):sum())
    close(p, {0.5, 1.5})
  end)

  it("that fails drops the gradients of a loss, keeps others, and those whose loss has none", function()
    local p, fails = parameter{1, 2}, true
    local optimizer = optim.SGD{p, lr = function() return fails and error "no rate" or 1 end}
    p:sum():backward()
    message_of(function() optimizer:step() end)
    close(p.grad, {1, 1}, {exact = true})
    assert.is_truthy(message_of(function() optimizer:step((p * (0 / 0)):sum()) end):find("nan", 1, true))
    close(p.grad, {1, 1}, {exact = true})
    message_of(function() optimizer:step(p:sum()) end)
    assert.is_nil(p.grad)
    fails = false
    optimizer:step(p:sum())
    close(p, {0, 1}, {exact = true})
    assert.are.equal(1, optimizer.steps)
  end)

  it("clears the gradients and leaves the loss to be read", function()
    local net = nn.Linear{2, 1}
    local optimizer = optim.SGD{net}
    local loss = net(marea.ones(1, 2)):sum()
    assert.are.equal(loss, optimizer:step(loss))
    assert.is_number(loss:item())
    assert.is_nil(net.weight.grad)
    net(marea.ones(1, 2)):sum():backward()
    optimizer:zero_grad()
    assert.is_nil(net.weight.grad)
  end)

  it("gives back what its function returns, and releases the rest", function()
    local net = nn.Linear{2, 1}
    local inside
    local loss, half = optim.SGD{net}:step(function()
      inside = net(marea.ones(1, 2))
      local l = inside:sum()
      return l, l * 0.5
    end)
    close(half, loss:item() / 2)
    assert.is_true(inside:is_released())
  end)

  it("can take a step from gradients that were added up", function()
    local p = parameter(0)
    for _ = 1, 3 do (p * 2):backward() end
    optim.SGD{p, lr = 1}:step()
    close(p, -6)
  end)

  it("finds layers that are built or replaced after it was made", function()
    local net = nn.Sequential{nn.Linear{3}, nn.Linear{1}}
    local optimizer = optim.Adam{net}
    local x = marea.ones(2, 4)
    optimizer:step(function() return net(x):square():sum() end)
    net[1] = nn.Linear{4, 3}
    local before = marea.tensor(net[1].weight)
    optimizer:step(function() return net(x):square():sum() end)
    assert.is_true((net[1].weight - before):abs():max():item() > 0)
  end)

  it("takes its arguments behind a list of parameters, too", function()
    local net = nn.Linear{2, 1, init = "zeros"}
    local behind, inside = optim.SGD(net:parameters(), {lr = 0.5, momentum = 0.1}), optim.SGD{net, lr = 0.5}
    assert.are.equal(0.5, behind.lr)
    assert.are.equal(tostring(inside), tostring(behind))
    assert.are.equal(2, #optim.SGD{{}, {net, momentum = 0.1}}.groups) -- one of several may be empty
    assert.matches("SGD: unknown argument 'lrr'; did you mean 'lr'", message_of(function()
      optim.SGD(net:parameters(), {lrr = 0.5})
    end))
  end)

  it("leaves frozen parameters alone", function()
    local net = nn.Sequential{nn.Linear{2, 2}, nn.Linear{2, 1}}
    net[1]:freeze()
    local before = marea.tensor(net[1].weight)
    optim.AdamW{net}:step(net(marea.ones(1, 2)):sum())
    close(net[1].weight, before, {exact = true})
  end)

  it("says what is wrong", function()
    local p = parameter(1)
    assert.is_truthy(message_of(function() optim.Adam{p, learning_rate = 1} end)
      :find("Adam: unknown argument 'learning_rate'", 1, true))
    assert.is_truthy(message_of(function() optim.SGD{{p}, momentun = 1} end):find "did you mean 'momentum'")
    assert.is_truthy(message_of(function() optim.SGD{lr = 1} end):find "a module, or a table of modules")
    assert.is_truthy(message_of(function() optim.SGD{p, lr = -1} end):find "argument 'lr'")
    assert.is_truthy(message_of(function() optim.SGD{p}:step() end):find "no parameter has a gradient")
    assert.is_truthy(message_of(function() optim.SGD{nn.Linear{3}}:step() end):find "no parameters to train")
    assert.is_truthy(message_of(function() optim.SGD{p}:step(3) end):find "expected a tensor")
  end)

  it("continues from its state as if it had not been interrupted", function()
    for _, name in ipairs{"SGD", "RMSprop", "Adam", "Adagrad"} do
      local arguments = {lr = 0.1, momentum = (name == "SGD" or name == "RMSprop") and 0.9 or nil}
      local function make(p)
        arguments[1] = {p}
        return optim[name](arguments)
      end
      local p = parameter(2)
      local optimizer = make(p)
      run(optimizer, p, {1, 2})
      local q = parameter(p:item())
      local other = make(q):load_state(optimizer:state())
      assert.are.equal(2, other.steps)
      assert.are.equal(run(optimizer, p, GRADIENTS), run(other, q, GRADIENTS))
    end
  end)

  it("refuses a state that does not fit", function()
    local net = nn.Linear{2, 2}
    local a, b = optim.Adam{net}, optim.Adam{nn.Linear{3, 2}}
    a:step(net(marea.ones(1, 2)):sum())
    assert.is_truthy(message_of(function() b:load_state(a:state()) end)
      :find("weight.mean is (2, 2), expected (3, 2)", 1, true))
    assert.is_truthy(message_of(function() optim.RMSprop{net}:load_state(a:state()) end):find "unexpected")
    local part = a:state()
    part["weight.mean"] = nil
    assert.is_truthy(message_of(function() a:load_state(part) end):find("weight.mean is missing", 1, true))
    part["weight.square"] = nil -- no step was made of this parameter
    a:load_state(part):step(net(marea.ones(1, 2)):sum())
  end)

  it("keeps no denormal numbers where gradients stay 0: they would take 100 cycles each, for good", function()
    for dtype, least in pairs{f32 = 0x1p-126, f64 = 0x1p-1022} do
      for name, make in pairs{Adam = optim.Adam, AdamW = optim.AdamW,
        SGD = function(a) return optim.SGD{a[1], lr = a.lr, momentum = 0.9} end,
        RMSprop = function(a) return optim.RMSprop{a[1], lr = a.lr, momentum = 0.9} end} do
        local p = nn.parameter(marea.full({37}, 0.5, dtype))
        local optimizer = make{p, lr = 0.1}
        optimizer:step((p * marea.linspace(-1, 1, 37):to(dtype)):sum())
        for _, slot in pairs(optimizer:state()) do -- as after a long time, for both dtypes
          if slot.dtype == dtype then slot:mul_(least * 40) end
        end
        local before = p:clone():detach()
        for _ = 1, 120 do
          optimizer:step((p * 0):sum())
          for key, slot in pairs(optimizer:state()) do
            local low = marea.where(slot:ne(0), slot:abs(), 1):min():item()
            assert.is_true(slot.dtype == "i64" or low >= least, name .. " " .. key)
          end
        end
        for key, slot in pairs(optimizer:state()) do
          if key ~= "steps" and not key:find "square" then assert.are.equal(0, slot:abs():max():item(), name .. key) end
        end
        if name ~= "AdamW" then assert.is_true((p - before):abs():max():item() < 1e-6) end
      end
    end
  end)

  it("asks for no memory once it runs", function()
    for _, name in ipairs{"Adam", "Muon"} do
      local net = nn.Sequential{nn.Linear{8, 8, activation = "relu"}, nn.Linear{8, 1}}
      local optimizer = optim[name]{net, clip_norm = 1}
      local x = marea.normal{16, 8}
      local function step() return net(x):square():mean() end
      for _ = 1, 3 do optimizer:step(step):release() end
      collectgarbage()
      collectgarbage() -- what other tests have left does not go meanwhile
      local before = marea.memory()
      for _ = 1, 20 do optimizer:step(step):release() end
      local after = marea.memory()
      assert.are.equal(before.mallocs, after.mallocs)
      assert.are.equal(before.live, after.live)
    end
  end)
end)

describe("Muon", function()
  --- a b, or with `turned` a b^T, of tables of rows.
  local function product(a, b, turned)
    local y = {}
    for i, row in ipairs(a) do
      y[i] = {}
      for j = 1, turned and #b or #b[1] do
        y[i][j] = 0
        for k, value in ipairs(row) do y[i][j] = y[i][j] + value * (turned and b[j][k] or b[k][j]) end
      end
    end
    return y
  end

  local function each(f, ...)
    local y, lists = {}, {...}
    for i, row in ipairs(lists[1]) do
      y[i] = {}
      for j in ipairs(row) do y[i][j] = f(lists[1][i][j], lists[2] and lists[2][i][j], lists[3] and lists[3][i][j]) end
    end
    return y
  end

  --- Newton and Schulz's five steps, by loops.
  local function orthogonal(x)
    local norm = 0
    each(function(v) norm = norm + v * v end, x)
    x = each(function(v) return v / math.sqrt(norm) end, x)
    for _ = 1, 5 do
      local gram = product(x, x, true)
      local once = product(gram, x)
      x = each(function(v, w, u) return 3.4445 * v - 4.775 * w + 2.0315 * u end, x, once, product(gram, once))
    end
    return x
  end

  it("takes the steps of its formula for matrices, and AdamW's for the rest", function()
    for _, shape in ipairs{{3, 5}, {5, 2}, {4, 4}} do
      local p, bias, head = parameter(marea.normal(shape):totable()), parameter{1, -2}, parameter{{1}, {2}}
      local other, same = parameter{1, -2}, parameter{{1}, {2}}
      local muon = optim.Muon{{p, bias}, {head, adam = true}, lr = 0.1, momentum = 0.9, weight_decay = 0.2}
      local adam = optim.AdamW{other, same, lr = 0.1, weight_decay = 0.2}
      local value, momentum = p:totable()
      for _ = 1, 3 do
        local g = marea.normal({shape[1], shape[2], dtype = "f64"})
        muon:step((p * g):sum() + (bias * 3):sum() + head:square():sum())
        adam:step((other * 3):sum() + same:square():sum())
        local rows, old = g:totable(), momentum
        momentum = each(function(v, m) return v + 0.9 * (m or 0) end, rows, old)
        local update = orthogonal(each(function(v, m) return v + 0.9 * m end, rows, momentum))
        local scale = 0.2 * math.sqrt(math.max(shape[1], shape[2]))
        value = each(function(v, u) return v - 0.1 * (scale * u + 0.2 * v) end, value, update)
      end
      close(p, value, {rtol = 1e-9, atol = 1e-10})
      close(bias, other, {rtol = 0, atol = 0})
      close(head, same, {rtol = 0, atol = 0})
      assert.are.same({"1.1.momentum", "1.2.mean", "1.2.square", "2.1.mean", "2.1.square", "steps"},
        (function(names)
          for name in pairs(muon:state()) do names[#names + 1] = name end
          table.sort(names)
          return names
        end){})
    end
  end)

  it("goes on from its state", function()
    local function make() return nn.Sequential{nn.Linear{3, 4, activation = "tanh"}, nn.Linear{4, 2}} end
    local a, b, x = make(), make(), marea.normal{5, 3}
    local function train(net, optimizer)
      for _ = 1, 3 do optimizer:step(function() return net(x):square():sum() end) end
    end
    local first, second = optim.Muon{a}, optim.Muon{b}
    train(a, first)
    b:load_state(a:state())
    second:load_state(first:state())
    train(a, first)
    train(b, second)
    assert.are.same(a:state()["1.weight"]:totable(), b:state()["1.weight"]:totable())
    assert.is_truthy(message_of(function() optim.Adam{b}:load_state(first:state()) end):find("momentum", 1, true))
  end)

  it("makes rows or columns nearly orthonormal, whatever the size of x", function()
    for _, shape in ipairs{{6, 20}, {20, 6}, {64, 64}} do
      local x = marea.normal(shape)
      for _, size in ipairs{1e-30, 1, 1e30} do
        local y = marea.orthogonalize(x * size)
        local gram = shape[1] < shape[2] and y:matmul(y, {transpose_b = true}) or y:matmul(y, {transpose_a = true})
        local values = marea.eigh(gram)
        assert.is_true(values:max():item() < 1.15 ^ 2)
        assert.is_true(values:min():item() > (shape[1] == shape[2] and 0 or 0.67 ^ 2))
      end
    end
    local x = marea.tensor({{1, 2}, {3, -4}}, {dtype = "f64"})
    for dtype, least in pairs{f32 = 0x1p-149, f64 = 0x1p-1074} do -- the least number above 0
      close(marea.orthogonalize((x * least):to(dtype)):to "f64", marea.orthogonalize(x), {rtol = 1e-4})
    end
    assert.are.equal(0, marea.orthogonalize(marea.zeros{2, 3}):abs():max():item())
    assert.is_truthy(message_of(function() marea.orthogonalize(marea.zeros{2}) end):find("x", 1, true))
  end)

  it("goes on by momentum where gradients are 0, as SGD does, by full steps until that comes near eps", function()
    --- Sizes of 1,200 steps after one with a gradient.
    local function sizes(make)
      local p, list = parameter(marea.ones{4, 4}:totable()), {}
      local g, optimizer = marea.normal{4, 4, dtype = "f64"}, make(p)
      optimizer:step((p * g):sum())
      for i = 1, 1200 do
        local before = p:detach():clone()
        optimizer:step(function() return (p * 0):sum() end)
        list[i] = (p:detach() - before):abs():max():item()
      end
      return list
    end
    local sgd = sizes(function(p) return optim.SGD{p, momentum = 0.95} end)
    local muon = sizes(function(p) return optim.Muon{p, momentum = 0.95, weight_decay = 0} end)
    assert.is_true(math.abs(sgd[100] / sgd[1] - 0.95 ^ 99) < 1e-6)
    assert.is_true(math.abs(muon[300] / muon[1] - 1) < 0.1)
    assert.is_true(muon[700] < 1e-3 * muon[1])
    assert.are.equal(0, muon[1200])
  end)

  it("holds gradients, updates and one matrix more at its peak", function()
    local list = {}
    for i = 1, 6 do list[i] = nn.parameter(marea.normal{256, 300}) end
    local muon = optim.Muon{list}
    local function loss()
      local sum = 0
      for _, p in ipairs(list) do sum = sum + p:sum() end
      return sum
    end
    muon:step(loss)
    local plan = marea.plan(function() muon:step(loss) end)
    local matrices = (plan.peak - plan.alive) / (256 * 300 * 4)
    assert.is_true(matrices > 12 and matrices < 14.5, matrices) -- the gram matrices are smaller
  end)

  it("leaves numbers where gradients stay 0 until the momentum has faded", function()
    local p = parameter(marea.normal{2, 3}:totable())
    local muon = optim.Muon{p, momentum = 0.5}
    muon:step(p:sum())
    for _ = 1, 1100 do muon:step(function() return (p * 0):sum() end) end -- 0.5^1074 is the least number above 0
    assert.are.equal(0, p:isnan():sum():item())
  end)

  it("changes nothing when memory ends in the middle", function()
    local a, b = parameter(marea.normal{4, 4}:totable()), nn.parameter(marea.normal{1000, 2000})
    local muon, before = optim.Muon{a, b}, {a:totable(), b:sum():item()}
    a:square():sum():backward()
    b:backward{seed = b:detach()}
    repeat
      local live = core.memory().live
      collectgarbage()
    until core.memory().live == live
    core.memory_trim()
    core.memory_limit(core.memory().live + 17000000) -- for the slot of b, and one tensor more
    local ok = pcall(muon.step, muon)
    core.memory_limit(nil)
    assert.is_false(ok)
    assert.are.same(before, {a:totable(), b:sum():item()})
    assert.are.equal(0, muon.steps)
    muon:step()
    assert.are.equal(1, muon.steps)
  end)
end)

describe("groups of parameters", function()
  it("have arguments of their own, and the optimizer's where they name none", function()
    local a, b, c = parameter(1), parameter(1), parameter(1)
    local optimizer = optim.SGD{{a, lr = 0.5}, {b, momentum = 0.5}, c, lr = 0.1}
    for _ = 1, 2 do optimizer:step(a + b + c) end
    close(a, 0, {rtol = 0, atol = 1e-12})
    close(b, 1 - 0.1 - 0.1 * 1.5, {rtol = 1e-12, atol = 0})
    close(c, 0.8, {rtol = 1e-12, atol = 0})
    optimizer.lr = function(step) return step / 10 end
    optimizer:step(a + b + c)
    close(a, -0.5, {rtol = 1e-12, atol = 1e-12})
    close(c, 0.5, {rtol = 1e-12, atol = 0})
  end)

  it("give what optimizers of their own give", function()
    for _, name in ipairs{"RMSprop", "Adam", "AdamW", "Adagrad"} do
      local together, apart = {}, {}
      for i = 1, 2 do together[i], apart[i] = parameter(i), parameter(i) end
      local one = optim[name]{{together[1], lr = 0.2, weight_decay = 0.3}, {together[2]}, lr = 0.1}
      local first = optim[name]{{apart[1]}, lr = 0.2, weight_decay = 0.3}
      local second = optim[name]{{apart[2]}, lr = 0.1}
      for _, g in ipairs(GRADIENTS) do
        one:step(together[1] * g + together[2] * -g)
        first:step(apart[1] * g)
        second:step(apart[2] * -g)
      end
      for i = 1, 2 do close(together[i], apart[i], {exact = true}) end
    end
  end)

  it("may be modules, tables of modules, and named ones; clip_norm is over all", function()
    local net = {encoder = nn.Linear{2, 2}, decoder = nn.Linear{2, 1}, scale = parameter(2)}
    local optimizer = optim.Adam{{net.encoder, lr = 1e-2}, {decoder = net.decoder, scale = net.scale}, clip_norm = 1}
    optimizer:step((net.decoder(net.encoder(marea.ones(3, 2))) * net.scale:to "f32"):sum())
    local names = {}
    for name in pairs(optimizer:state()) do names[#names + 1] = name end
    table.sort(names)
    assert.are.equal("1.1.bias.mean", names[1])
    assert.is_truthy(optimizer:state()["2.decoder.weight.square"])
    local copy = optim.Adam{{net.encoder}, {decoder = net.decoder, scale = net.scale}}
    copy:load_state(optimizer:state())
    assert.are.equal(1, copy.steps)
  end)

  it("refuse what is no group, a parameter in two of them, and unknown arguments", function()
    local a, b = parameter(1), parameter(2)
    local function says(text, f) assert.is_truthy(message_of(f):find(text, 1, true), message_of(f)) end
    says("argument '2'", function() optim.SGD{a, 3} end)
    says("argument 'lr'", function() optim.SGD{{a, lr = -1}, b} end)
    says("argument 'momentum'", function() optim.SGD{{a, momentum = "x"}, b} end)
    says("'2.1' is in an earlier group too, as '1.1'", function() optim.SGD{{a}, {a, b}}:step(a + b) end)
  end)
end)

describe("freezing", function()
  it("works in the middle of training, for a part of a network, and back again", function()
    local net = nn.Sequential{nn.Sequential{nn.Linear{2, 3}, nn.Linear{3, 3}, name = "body"}, nn.Linear{3, 1}}
    local optimizer, x = optim.Adam{net, lr = 0.1}, marea.normal{4, 2}
    local function step() optimizer:step(net(x):square():mean()) end
    local function values(t) return table.concat(t:reshape(-1):totable(), " ") end
    for _ = 1, 3 do step() end
    local body, head = values(net.body[1].weight), values(net[2].weight)
    local mean = values(optimizer:state()["body.1.weight.mean"])
    net.body:freeze()
    for _ = 1, 3 do step() end
    assert.are.equal(body, values(net.body[1].weight))
    assert.are.equal(mean, values(optimizer:state()["body.1.weight.mean"]))
    assert.are_not.equal(head, values(net[2].weight))
    net.body:unfreeze()
    step()
    assert.are_not.equal(body, values(net.body[1].weight))
  end)

  it("keeps a discriminator's weights out of the generator's step: no gradient is computed for them", function()
    local generator = nn.Sequential{nn.Linear{2, 8, activation = "relu"}, nn.BatchNorm{8}, nn.Linear{8, 4}}
    local discriminator = nn.Sequential{nn.Linear{4, 8, activation = "leaky_relu", slope = 0.2}, nn.Dropout{0.4},
      nn.Linear{8, 1}}
    local of_g, of_d = optim.Adam{generator, lr = 0.01}, optim.RMSprop{discriminator, lr = 0.01}
    local z, real = marea.normal{6, 2}, marea.normal{6, 4}
    local function sum(net)
      local total = 0
      for _, t in ipairs(net:parameters()) do total = total + t:detach():to("f64"):abs():sum():item() end
      return total
    end
    for _ = 1, 3 do
      local d, g = sum(discriminator), sum(generator)
      of_d:step(function()
        local fake = marea.no_grad(generator, z)
        return discriminator(real):bce_with_logits(marea.ones(6, 1))
          + discriminator(fake):bce_with_logits(marea.zeros(6, 1))
      end)
      assert.are_not.equal(d, sum(discriminator))
      assert.are.equal(g, sum(generator))
      d = sum(discriminator)
      discriminator:freeze()
      local report = marea.profile(function()
        of_g:step(function() return discriminator(generator(z)):bce_with_logits(marea.ones(6, 1)) end)
      end)
      discriminator:unfreeze()
      assert.are.equal(d, sum(discriminator))
      assert.are_not.equal(g, sum(generator))
      for _, t in ipairs(discriminator:parameters()) do assert.is_nil(t.grad) end
      local products = 0 -- backward: two for each layer of the generator, one (for x) for each of the discriminator
      for _, row in ipairs(report.rows) do
        if row.direction == "backward" and row.op == "matmul" then products = products + row.calls end
      end
      assert.are.equal(5, products) -- the generator's first layer has no gradient to x
    end
  end)
end)

describe("a schedule", function()
  local schedule = optim.schedule

  local function at(rate, steps)
    local values = {}
    for i, step in ipairs(steps) do values[i] = rate(step) end
    return values
  end

  it("is a function of the step, which is 1 at the first update", function()
    close(at(schedule.constant(0.1), {1, 100}), {0.1, 0.1})
    close(at(schedule.exponential(1, 0.5, 10), {1, 11, 21}), {1, 0.5, 0.25})
    close(at(schedule.cosine(1, 101, 0.2), {1, 51, 101, 500}), {1, 0.6, 0.2, 0.2})
    close(at(schedule.step(1, 10, 0.1), {1, 10, 11, 21}), {1, 1, 0.1, 0.01})
    close(at(schedule.warmup(4, 0.8), {1, 2, 4, 5, 50}), {0.2, 0.4, 0.8, 0.8, 0.8})
    close(at(schedule.warmup(2, schedule.step(1, 2, 0.5)), {1, 2, 3, 4, 5}), {0.5, 1, 1, 1, 0.5})
    close(at(schedule.inverse_time(8e-4, 6e-8), {1, 1000001}), {8e-4, 8e-4 / 1.06}, {rtol = 1e-9})
  end)

  it("refuses what is no number", function()
    assert.is_truthy(message_of(function() schedule.cosine(1) end):find "cosine: argument 'steps'")
  end)
end)

describe("steps on all parameters at once", function()
  --- Weights and state after steps between which this and that happens; arguments for the optimizer.
  local function trained(arguments)
    marea.seed(9)
    local net = nn.Sequential{nn.Linear{3, 5, activation = "tanh"}, nn.Linear{5, 2}}
    local x = marea.normal{4, 3}
    local function loss() return net(x):square():mean() end
    net:build{4, 3}
    arguments[1] = net
    local optimizer = optim.Adam(arguments)
    local function steps(n)
      for _ = 1, n do optimizer:step(loss) end
    end
    steps(3)
    marea.plan(function() steps(2) end)
    steps(2)
    net[1]:freeze()
    steps(2)
    net[1]:unfreeze()
    steps(2)
    local state = {}
    for name, t in pairs(optimizer:state()) do state[name] = t:clone() end
    steps(1)
    optimizer:load_state(state)
    steps(2)
    net[2].weight = nn.parameter(marea.ones{5, 2})
    steps(2)
    assert.matches("the loss is nan", message_of(function() optimizer:step((net(x) * (0 / 0)):sum()) end))
    loss():backward()
    optimizer:step()
    steps(2)
    local values = {optimizer.steps}
    for _, found in ipairs{net:state(), optimizer:state()} do
      for _, name in ipairs(require "marea.internal.check".names(found)) do
        values[#values + 1] = found[name]:totable()
      end
    end
    return values
  end

  it("have the bits of steps on one after the other", function()
    assert.are.same(trained{lr = 0.1, clip_norm = 1e30}, trained{lr = 0.1})
  end)
end)

describe("an operator on many lists of tensors", function()
  local each = core.each "adam_step"
  local attributes = {lr = 0.1, step = 3, l2 = 0.1}
  local SIZES = {1, 70000, 3, 0, 16384, 40000}

  --- {p, g, m, v, rows} of each size; of the second and the fourth some rows only.
  local function lists(dtype)
    marea.seed(5)
    local list = {}
    for i, n in ipairs(SIZES) do
      local shape, rows = {n}, false
      if i == 2 then shape, rows = {1000, 70}, marea.tensor({2, 3, 4, 900}, {dtype = "i64"}) end
      local g = marea.normal(rows and {4, 70} or shape):to(dtype)
      for _, t in ipairs{marea.normal(shape):to(dtype), g, marea.normal(shape):to(dtype),
        marea.uniform(shape):to(dtype), rows} do list[#list + 1] = t end
    end
    return list
  end

  local function values(list)
    local all = {}
    for i, t in ipairs(list) do all[i] = t and t:totable() end
    return all
  end

  it("gives the bits of calls one by one, for any number of threads", function()
    local before = marea.threads()
    for _, dtype in ipairs{"f32", "f64"} do
      local expected = lists(dtype)
      for i = 1, #expected, 5 do
        local p, g, m, v, rows = table.unpack(expected, i, i + 4)
        ops.adam_step(p, g, m, v, rows or nil, attributes)
      end
      for threads = 1, 4 do
        marea.set_threads(threads)
        local list = lists(dtype)
        each(list, attributes)
        assert.are.same(values(expected), values(list))
      end
    end
    marea.set_threads(before)
  end)

  it("takes true for the gradient of the first one, and false for none", function()
    local p, q = nn.parameter(marea.ones{3}), nn.parameter(marea.ones{2})
    local loss = (p * 2):sum() + (q * 3):sum()
    loss:backward()
    marea.no_grad(core.each "sgd_step", {p, true, false, false, q, true, false, false}, {lr = 0.5})
    assert.are.same({{0, 0, 0}, {-0.5, -0.5}}, {p:totable(), q:totable()})
  end)

  it("changes none of them when one does not fit, also to a graph that has saved them", function()
    local list = lists "f32"
    local before, w = values(list), nn.parameter(marea.ones{1})
    local loss = (w * list[1]):sum()
    list[#list] = marea.tensor({1}, {dtype = "i64"}) -- rows
    assert.matches("adam_step: argument 'g': expected the 1 rows", message_of(function() each(list, attributes) end))
    list[#list] = false
    assert.are.same(before, values(list))
    loss:backward()
    list[#list - 3] = marea.ones{3}
    assert.matches("adam_step: argument 'g'", message_of(function() each(list, attributes) end))
    list[2] = true
    assert.matches("adam_step: argument 'g': expected a tensor, got", message_of(function() each(list, attributes) end))
    assert.matches("'lr': expected a number", message_of(function() each(list, {step = 1}) end))
    assert.matches("a list with a place for each input", message_of(function() each({w}, attributes) end))
    assert.matches("an operator that changes its inputs", message_of(function() core.each "add" end))
  end)

  it("makes one call after the other where they share memory", function()
    local p, one, two = marea.ones{4}, marea.full({4}, 1), marea.full({4}, 2)
    core.each "sgd_step"({p, one, false, false, p, two, false, false, two, p, false, false}, {lr = 1})
    assert.are.same({{-2, -2, -2, -2}, {4, 4, 4, 4}}, {p:totable(), two:totable()})
  end)

  it("is complete or not begun when memory ends", function()
    local list, k = lists "f32", 0
    local before = values(list)
    repeat
      k = k + 1
      core.memory_fail(k, true)
      local ok = pcall(each, list, attributes)
      core.memory_fail(0)
      if not ok then assert.are.same(before, values(list)) end
    until ok
    local expected = lists "f32"
    each(expected, attributes)
    assert.are.same(values(expected), values(list))
  end)
end)

it("clip_norm may be set after the first step", function()
  local w = marea.zeros{4}:requires_grad_()
  local sgd = marea.optim.SGD{{w}, lr = 1}
  sgd:step((w * 3):sum())
  local before = w:detach():clone()
  sgd.clip_norm = 1
  sgd:step((w * 3):sum())
  assert.is_true(math.abs((w:detach() - before):norm():item() - 1) < 1e-6)
end)
