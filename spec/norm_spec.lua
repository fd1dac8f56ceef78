-- SPDX-License-Identifier: MIT
-- Normalization: stability, the layers' statistics, modes, freezing, state. The operators' formulas and gradients are
-- in ops_spec, reference_spec and golden_spec.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local has = require "spec.support.has"
local message_of = require "spec.support.message_of"
local under_isa = require "spec.support.under_isa"
local nn, optim = marea.nn, marea.optim

local close = allclose.assert

describe("statistics", function()
  --- The biased variance by the operator that makes two passes in double.
  local function variance_of(x, dims)
    return x:to("f64"):var{dims = dims, correction = 0}
  end

  it("are good to f32's digits with a mean of 10,000 deviations, also when the first rows lie elsewhere", function()
    marea.seed(3)
    local x = marea.normal{4000, 33} + 1e4
    x['1:40'] = 0
    local far = x['41:-1']:contiguous()
    for _, values in ipairs{x, far} do
      local _, mean, variance = marea.batch_norm(values)
      close(mean, values:to("f64"):mean{dims = {1}}, {rtol = 1e-7, atol = 0})
      close(variance, variance_of(values, {1}), {rtol = 1e-5, atol = 0})
    end
    local wide = (marea.batch_norm(far:to "f64"))
    close((marea.batch_norm(far)), wide:to "f32", {rtol = 0, atol = 2e-6})
    close(marea.layer_norm(far), marea.layer_norm(far:to "f64"):to "f32", {rtol = 0, atol = 2e-6})
    local images = far['1:3200']:contiguous():reshape{8, 20, 20, 33}
    close(marea.group_norm(images, {groups = 11}), marea.group_norm(images:to "f64", {groups = 11}):to "f32",
      {rtol = 0, atol = 2e-6})
  end)

  it("of many rows, few rows and many channels agree with f64", function()
    for _, shape in ipairs{{20000, 3}, {3, 1500}, {2, 1, 1, 700}, {7, 9, 11, 40}, {600, 1}, {1, 5}} do
      local x, dy = marea.normal(shape) * 3 + 1, marea.normal(shape)
      local c = shape[#shape]
      local weight, bias = marea.normal{c}, marea.normal{c}
      local function results(dtype)
        local list = {x:to(dtype):detach(), weight:to(dtype):detach(), bias:to(dtype):detach()}
        for i = 1, 3 do list[i]:requires_grad_() end
        local y = marea.batch_norm(list[1], list[2], list[3], {activation = "leaky_relu", slope = 0.2})
        y:backward(dy:to(dtype))
        return {y:detach(), list[1].grad, list[2].grad, list[3].grad}
      end
      local single, double = results "f32", results "f64"
      for i = 1, 4 do close(single[i], double[i]:to "f32", {rtol = 1e-4, atol = 1e-4}, "result " .. i) end
    end
  end)

  it("of batch_norm have gradients of their own", function()
    local x = marea.normal{6, 2, dtype = "f64"}:requires_grad_()
    local _, mean, variance = marea.batch_norm(x)
    local both = mean * 2 + variance * 3
    both:sum():backward()
    local centred = x:detach() - x:detach():mean{dims = {1}, keepdim = true}
    close(x.grad, centred * (3 * 2 / 6) + 2 / 6, {rtol = 1e-12, atol = 1e-12})
  end)
end)

describe("of bf16 beside parameters of f32", function()
  local threads = marea.info().threads
  after_each(function() marea.set_threads(threads) end)

  for _, isa in ipairs(marea.info().isas) do
    it("normalizations are those of plain loops in double, rounded once: " .. isa, function()
      local cases, numbers = under_isa(isa, "spec/support/bf16_norms.lua")
      assert(cases, numbers)
      assert.is_true(cases == 42 and numbers > 200000, ("%d cases, %d numbers"):format(cases, numbers))
    end)
  end

  it("results and gradients have the same bits for any number of threads", function()
    local first
    for n = 1, 4 do
      marea.set_threads(n)
      marea.seed(5)
      local x, w = marea.normal{9, 31, 33, 20}:to "bf16":detach():requires_grad_(), marea.normal{20}:requires_grad_()
      local y, mean, variance = marea.batch_norm(x, w, nil, {activation = "relu"})
      local list = marea.grad(y, {x, w}, {seed = marea.normal(x.shape):to "bf16"})
      table.move({y:detach(), mean:detach(), variance:detach()}, 1, 3, 3, list)
      first = first or list
      for i, t in ipairs(list) do close(t, first[i], {exact = true}) end
    end
  end)

  it("results are bf16, statistics and parameters' gradients f32; there are gradients of gradients", function()
    local x, w = marea.normal{40, 6}:to "bf16":detach():requires_grad_(), marea.ones{6}:requires_grad_()
    local y, mean, variance = marea.batch_norm(x, w, nil, {activation = "tanh"})
    assert.are.same({"bf16", "f32", "f32"}, {y.dtype, mean.dtype, variance.dtype})
    local dx = marea.grad(y:to "f32":square():sum(), {x}, {create_graph = true})[1]
    local of_x, of_w = table.unpack(marea.grad(dx:to "f32":square():sum(), {x, w}))
    assert.are.same({"bf16", "bf16", "f32"}, {dx.dtype, of_x.dtype, of_w.dtype})
    local twin, twin_w = x:detach():to "f64":detach():requires_grad_(), marea.ones{6, dtype = "f64"}:requires_grad_()
    local z = marea.batch_norm(twin, twin_w, nil, {activation = "tanh"})
    local dz = marea.grad(z:square():sum(), {twin}, {create_graph = true})[1]
    local wide = marea.grad(dz:square():sum(), {twin, twin_w})
    close(of_x:to "f64", wide[1], {rtol = 0.05, atol = 0.05})
    close(of_w:to "f64", wide[2], {rtol = 0.05, atol = 0.05})
  end)

  it("layers of a network under autocast hand bf16 on, and evaluation does", function()
    for _, layer in ipairs{nn.BatchNorm{8, activation = "relu"}, nn.BatchNorm{8, scale = false, center = false},
      nn.GroupNorm{8, groups = 2}} do
      local net = nn.Sequential{nn.Conv2d{8, kernel = 3}, layer}
      local x = marea.normal{2, 6, 6, 3}
      assert.are.equal("bf16", marea.autocast(net, x).dtype)
      net:evaluate()
      assert.are.equal("bf16", marea.autocast(net, x).dtype)
      assert.are.equal("f32", net(x).dtype)
    end
    local half = nn.BatchNorm{4, dtype = "bf16"}
    local y = half(marea.normal{9, 4}:to "bf16")
    assert.are.same({"bf16", "bf16"}, {y.dtype, half.running_mean.dtype})
  end)

  it("a small U-Net trains to the loss that it has in f32", function()
    local Density = dofile "scripts/count_model.lua"
    local function train(around)
      marea.seed(2)
      local net, x = Density(4, 1.5), marea.uniform{8, 16, 16, 1}
      local wanted = x:gt(0.8):to "f32":gaussian_blur(1)
      around(function() return net(x) end)
      local adam = optim.Adam{net, lr = 0.02}
      local loss
      for _ = 1, 60 do loss = adam:step(function() return around(function() return net:distance(x, wanted) end) end) end
      return loss:item()
    end
    local wide, narrow = train(function(f) return f() end), train(marea.autocast)
    assert.is_true(narrow < 1.15 * wide, ("%g %g"):format(narrow, wide))
  end)
end)

describe("BatchNorm", function()
  it("moves its statistics as Keras does, by the unbiased variance", function()
    local layer = nn.BatchNorm{2, momentum = 0.9}
    layer(marea.tensor{{1, 10}, {2, 10}, {6, 10}})
    close(layer.running_mean, {0.3, 1})
    close(layer.running_var, {0.9 + 0.1 * 7, 0.9})
    layer(marea.tensor{{5, 5}}) -- one row: no variance to speak of, and no division by 0
    close(layer.running_var, {1.44, 0.81})
  end)

  it("normalizes by the batch in training and by its statistics in evaluation, which it keeps", function()
    local layer = nn.BatchNorm{3, eps = 1e-5}
    local x = marea.normal{200, 4, 3} * 5 + 2
    local y = layer(x)
    close(y:mean{dims = {1, 2}}, {0, 0, 0}, {rtol = 0, atol = 1e-5})
    close(y:square():mean{dims = {1, 2}}, {1, 1, 1}, {rtol = 1e-3, atol = 0})
    layer:evaluate()
    local mean = marea.tensor(layer.running_mean)
    close(layer(x), (x - mean) / (layer.running_var + 1e-5):sqrt(), {rtol = 1e-5, atol = 1e-5})
    close(layer.running_mean, mean, {exact = true})
  end)

  it("is frozen with the network it is in: statistics, weights, and gradients that pass through", function()
    local net = nn.Sequential{nn.Linear{3, 4}, nn.BatchNorm{4}, nn.Linear{4, 1}}
    local x = marea.normal{8, 3}
    net(x)
    net[2]:freeze()
    local mean = marea.tensor(net[2].running_mean)
    net(x):sum():backward()
    close(net[2].running_mean, mean, {exact = true})
    assert.is_nil(net[2].weight.grad)
    assert.is_not_nil(net[1].weight.grad)
    net:unfreeze()
    net(x):sum():backward()
    assert.is_not_nil(net[2].weight.grad)
    assert.is_true((net[2].running_mean - mean):abs():sum():item() > 0)
  end)

  it("keeps its statistics in the state, not among the parameters, and counts them as Keras does", function()
    local a, b = nn.BatchNorm{5}, nn.BatchNorm{5}
    a(marea.normal{9, 5} + 3)
    b:load_state(a:state())
    close(b.running_mean, a.running_mean, {exact = true})
    assert.are.equal(2, #a:parameters())
    assert.are.same({20, 10}, {a:count()})
    has(tostring(nn.Sequential{nn.Linear{2, 5}, a}:summary{2}), "Total params: 35", "Non-trainable params: 10")
  end)

  it("trains the same way with the activation inside as behind it", function()
    local inside, outside = nn.BatchNorm{4, activation = "relu"}, nn.BatchNorm{4}
    local x, dy = marea.normal{6, 5, 4}, marea.normal{6, 5, 4}
    local first, second = x:clone():requires_grad_(), x:clone():requires_grad_()
    inside(first):backward(dy)
    outside(second):relu():backward(dy)
    close(first.grad, second.grad, {rtol = 1e-5, atol = 1e-6})
    close(inside.weight.grad, outside.weight.grad, {rtol = 1e-5, atol = 1e-5})
  end)

  it("allocates nothing in a steady training step", function()
    local net = nn.Sequential{nn.Conv2d{2, 4, kernel = 3}, nn.BatchNorm{4, activation = "relu"}, nn.Flatten{},
      nn.Linear{1}}
    local optimizer, x = optim.Adam{net, lr = 1e-3}, marea.normal{4, 6, 6, 2}
    local function train(steps)
      for _ = 1, steps do optimizer:step(function() return net(x):square():mean() end) end
      return marea.memory().mallocs
    end
    train(20)
    assert.are.equal(train(1), train(50))
  end)

  it("refuses what it cannot normalize", function()
    has(message_of(function() nn.BatchNorm{3}(marea.ones(4)) end), "at least 2 dimensions", "(4)")
    has(message_of(function() nn.BatchNorm{3}(marea.ones(4, 2)) end), "batch_norm", "weight", "2")
    has(message_of(function() nn.BatchNorm{3}(marea.ones(0, 3)) end), "batch_norm", "no elements")
    has(message_of(function() nn.BatchNorm{3, momentun = 0.9} end), "momentun", "momentum")
    has(message_of(function() nn.BatchNorm{3, scale = 1} end), "scale", "true or false")
    has(message_of(function() nn.GroupNorm{6, groups = 4} end), "groups = 4", "6")
    has(message_of(function() marea.group_norm(marea.ones(2, 6), {groups = 0}) end), "groups", "does not divide")
    has(message_of(function() marea.layer_norm(marea.ones(2, 6), {last = 3}) end), "last", "1..2")
    has(message_of(function() marea.layer_norm(marea.ones(2, 6), {eps = -1}) end), "eps", ">= 0")
    has(message_of(function() marea.rms_norm(marea.ones(2, 6), {last = 3}) end), "last", "1..2")
    has(message_of(function() marea.rms_norm(marea.ones(2, 6), marea.ones(5)) end), "weight", "(6)", "(5)")
    has(message_of(function() nn.RMSNorm{6, center = true} end), "center")
  end)
end)

describe("layers with their sizes left out", function()
  it("take the channels of the first x", function()
    local x = marea.normal{2, 4, 4, 6}
    for _, layer in ipairs{nn.BatchNorm{}, nn.LayerNorm{}, nn.RMSNorm{}, nn.GroupNorm{groups = 3}} do
      assert.are.same({2, 4, 4, 6}, layer(x).shape)
      assert.are.same({6}, layer.weight.shape)
    end
    assert.is_nil(nn.BatchNorm{6, center = false, scale = false}.weight)
    assert.are.equal(0, #nn.LayerNorm{6, center = false, scale = false}:parameters())
  end)

  it("RMSNorm has PyTorch's names and eps, and rows of any size", function()
    local layer = nn.RMSNorm{{2, 3}}
    assert.are.same({2, 3}, layer:state().weight.shape)
    assert.are.equal(0, #nn.RMSNorm{6, elementwise_affine = false}:parameters())
    local x = marea.normal{4, 2, 3} * 1e-4
    local expected = x / (x:square():mean{dims = {2, 3}, keepdim = true} + 2 ^ -23):sqrt()
    close(layer(x), expected, {rtol = 1e-5, atol = 0})
    for _, scale in ipairs{1e-30, 1e30} do -- squares beyond the range of f32
      close((marea.ones{2, 5} * scale):rms_norm{eps = 0}, marea.ones{2, 5}, {rtol = 1e-5, atol = 0})
    end
  end)

  it("normalize several last dimensions together", function()
    local y = nn.LayerNorm{{4, 6}}(marea.normal{3, 4, 6} * 7)
    close(y:mean{dims = {2, 3}}, {0, 0, 0}, {rtol = 0, atol = 1e-5})
    close(y:square():mean{dims = {2, 3}}, {1, 1, 1}, {rtol = 1e-3, atol = 0})
  end)
end)
