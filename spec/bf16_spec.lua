-- SPDX-License-Identifier: MIT
-- Products and convolutions of bf16: operands in bf16, sums in f32. Each instruction set against f64, and the same bits
-- for any number of threads. The kernels alone are tested by spec/c/bf16_cases.h, autocast by autocast_spec.
local marea = require "marea"
local under_isa = require "spec.support.under_isa"

describe("products and convolutions of bf16 are f64's but for 1e-6 and one rounding:", function()
  for _, isa in ipairs(marea.info().isas) do
    it(isa, function()
      local cases, numbers = under_isa(isa, "spec/support/bf16_products.lua")
      assert(cases, numbers)
      assert.is_true(cases > 160 and numbers > 100000, ("%d cases, %d numbers"):format(cases, numbers))
    end)
  end
end)

describe("bf16 has the same bits for any number of threads:", function()
  local threads = marea.info().threads
  after_each(function() marea.set_threads(threads) end)

  local function bits_of(f, shapes)
    local first
    for n = 1, 4 do
      marea.set_threads(n)
      marea.seed(4)
      local leaves = {}
      for i, shape in ipairs(shapes) do leaves[i] = marea.normal(shape):to "bf16":detach():requires_grad_() end
      local y = f(table.unpack(leaves))
      local results = marea.grad(y:to "f32":sum(), leaves)
      results[#results + 1] = y:detach()
      first = first or results
      for i, t in ipairs(results) do assert.are.equal(t:numel(), t:eq(first[i]):to "f32":sum():item()) end
    end
  end

  it("matmul", function()
    for _, s in ipairs{{300, 200, 500}, {64, 6000, 32}, {5, 3, 2}} do
      bits_of(marea.matmul, {{s[1], s[2]}, {s[2], s[3]}})
    end
  end)

  it("conv2d and conv_transpose2d", function()
    for _, s in ipairs{{9, 20, 32, 32}, {3, 28, 1, 16}, {17, 7, 200, 300}} do
      for _, op in ipairs{marea.conv2d, marea.conv_transpose2d} do
        local weight = op == marea.conv2d and {3, 3, s[3], s[4]} or {3, 3, s[4], s[3]}
        bits_of(function(x, w, b) return op(x, w, b, {stride = 2, padding = "same", activation = "relu"}) end,
          {{s[1], s[2], s[2], s[3]}, weight, {s[4]}})
      end
    end
  end)
end)

describe("training under autocast has the same bits", function()
  local nn, optim, checkpoint = marea.nn, marea.optim, marea.checkpoint
  local threads, path = marea.info().threads, os.tmpname()
  after_each(function() marea.set_threads(threads) end)
  teardown(function() os.remove(path) end)

  local function conv(from, to, stride)
    return nn.Conv2d{from, to, kernel = 3, stride = stride, padding = "same", activation = "relu"}
  end

  local function begin()
    marea.seed(3)
    local net = nn.Sequential{conv(1, 16, 1), nn.MaxPool2d{2}, conv(16, 24, 2), nn.Flatten{}, nn.Linear{384, 70},
      nn.Dropout{0.2}, nn.ReLU{}, nn.Linear{70, 5}}
    return net, optim.Adam{net, lr = 1e-2}
  end

  local function train(net, adam, first, last)
    for step = first, last do
      marea.scope(function()
        marea.seed(step)
        local x, labels = marea.normal{20, 16, 16, 1}, marea.randint({20}, 1, 5)
        adam:step(function() return marea.autocast(function() return net(x):cross_entropy(labels) end) end)
      end)
    end
  end

  local function same(a, b)
    local others = b:parameters()
    for i, p in ipairs(a:parameters()) do
      assert.are.equal(p:numel(), p:detach():eq(others[i]:detach()):to "f32":sum():item())
    end
  end

  it("for 1 to 4 threads", function()
    local first
    for n = 1, 4 do
      marea.set_threads(n)
      local net, adam = begin()
      train(net, adam, 1, 4)
      first = first or net
      same(first, net)
    end
  end)

  it("after a resume", function()
    local whole, adam = begin()
    train(whole, adam, 1, 4)
    local half, optimizer = begin()
    train(half, optimizer, 1, 2)
    assert(checkpoint.save(path, {model = half, optimizer = optimizer}))
    local net, other = begin()
    assert(checkpoint.load(path, {model = net, optimizer = other}))
    train(net, other, 3, 4)
    same(whole, net)
  end)
end)

describe("bf16:", function()
  local function bf16(...) return marea.tensor(...):to "bf16" end

  it("a product without terms is act(bias)", function()
    local y = marea.linear(marea.zeros{3, 0}:to "bf16", marea.zeros{0, 2}:to "bf16", bf16{1, -1}, {activation = "relu"})
    assert.are.same({{1, 0}, {1, 0}, {1, 0}}, y:totable())
    local x, w = marea.zeros{1, 2, 0}, marea.zeros{0, 3}
    local full = marea.rnn(x, w, marea.zeros{3, 3}, marea.ones{3})
    local rounded = marea.rnn(x, w, marea.zeros{3, 3}, marea.ones{3}, nil, nil, {products = "bf16"})
    assert.are.equal(0, (full - rounded):abs():max():item())
  end)

  it("one row is rounded as rows of many are", function()
    local w = marea.normal{40, 30}
    local x = marea.normal{1, 40}
    local function loss(rows)
      return marea.linear_cross_entropy(rows, w, marea.full({#rows}, 2):to "i64", nil, {products = "bf16"}):item()
    end
    assert.is_true(math.abs(loss(x) - loss(marea.concat({x, x}, 1))) < 1e-6)
  end)

  it("gradients of a GRU of 17 units stay in their memory", function()
    marea.seed(1)
    local function leaf(...) return marea.normal{...}:requires_grad_() end
    local x, w_x, w_h = leaf(100, 4, 7), leaf(7, 51), leaf(17, 51)
    local function gradient(products)
      local y = marea.gru(x, w_x, w_h, {reset_after = false, products = products})
      return marea.grad(y:sum(), {w_h})[1]
    end
    local full, rounded = gradient "full", gradient "bf16"
    assert.is_true((full - rounded):abs():max():item() < 0.02 * full:abs():max():item())
  end)

  it("a large value that is hidden harms no row of attention", function()
    local q, v = marea.normal{1, 4, 1, 8}, marea.full({1, 4, 1, 8}, 8):clone()
    v:select(2, 4):fill_(3.402e38)
    local y = marea.scaled_dot_product_attention(q, q, v, {causal = true, products = "bf16"})
    assert.are.equal(8, y:select(2, 3):max():item())
  end)

  it("a depthwise convolution is f32's, rounded", function()
    local x, w = marea.normal{2, 9, 9, 12}:to "bf16", marea.normal{3, 3, 1, 12}:to "bf16"
    local how = {padding = "same", groups = 12}
    local expected = marea.conv2d(x:to "f32", w:to "f32", how):to "bf16"
    assert.are.equal(expected:numel(), marea.conv2d(x, w, how):eq(expected):to "f32":sum():item())
  end)

  it("an optimizer's norms are f32 under autocast", function()
    local w = marea.zeros{1000}:requires_grad_()
    local sgd = marea.optim.SGD{{w}, lr = 1, clip_norm = 1e-5}
    marea.autocast({dtype = "f16"}, function() sgd:step(function() return (w * 5.5e-6):sum() end) end)
    assert.is_true(math.abs(w:detach():norm():item() - 1e-5) < 1e-8)
  end)
end)

it("what a bf16 operator does not need stays as small as its operands: no copies in f32", function()
  local x = marea.normal{64, 28, 28, 32}:to "bf16":detach()
  local w = marea.normal{3, 3, 32, 32}:to "bf16":detach()
  local plan = marea.plan(function() return marea.conv2d(x, w, {padding = "same"}) end)
  local result = 64 * 28 * 28 * 32 * 2
  assert.is_true(plan.peak - plan.alive < 1.4 * result, plan.peak - plan.alive)
end)
