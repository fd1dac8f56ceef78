-- SPDX-License-Identifier: MIT
-- nn.LSTM, GRU and RNN with layers, directions, lengths and states against loops over Lua numbers, and against their
-- cells; what they begin with; what misuse says.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local has = require "spec.support.has"
local message_of = require "spec.support.message_of"
local naive = require "spec.support.naive_recurrent"
local nn = marea.nn

local NEAR = {rtol = 1e-11, atol = 1e-12}

local function values(...) return marea.uniform({...}, -1, 1, "f64") end

--- y, h, c of all layers by naive loops; h0, c0, h, c: tables (layers * directions, N, out).
local function stacked(net, kind, x, o)
  local h, c = {}, {}
  for _, weights in ipairs(net.weights) do
    local ys = {}
    for _, name in ipairs{"forward", "reverse"} do
      local k = #h + 1
      if weights[name] then
        local plain = {x = x, lengths = o.lengths, h0 = o.h0 and o.h0[k], c0 = o.c0 and o.c0[k],
          reverse = name == "reverse"}
        for field, value in pairs(net.attributes) do if field ~= "reverse" then plain[field] = value end end
        for field, t in pairs(weights[name]) do plain[field] = t:totable() end
        ys[#ys + 1], h[k], c[k] = naive.run(kind, plain)
      end
    end
    x = ys[1]
    if ys[2] then
      for row, steps in ipairs(ys[1]) do
        for t, values_of in ipairs(steps) do
          local wide = {table.unpack(values_of)}
          for _, v in ipairs(ys[2][row][t]) do wide[#wide + 1] = v end
          steps[t] = wide
        end
      end
    end
  end
  return x, h, c
end

local CLASSES = {
  lstm = {nn.LSTM, nn.LSTMCell, {{}, {recurrent_activation = "hard_sigmoid"}}},
  gru = {nn.GRU, nn.GRUCell, {{}, {reset_after = false}, {recurrent_activation = "hard_sigmoid"}}},
  rnn = {nn.RNN, nn.RNNCell, {{}, {activation = "relu"}}},
}

local function make(class, sizes, form, more)
  local options = {dtype = "f64", bias_init = nn.init.uniform(-1, 1)}
  for k, v in pairs(sizes) do options[k] = v end
  for k, v in pairs(form) do options[k] = v end
  for k, v in pairs(more or {}) do options[k] = v end
  return class(options)
end

for kind, entry in pairs(CLASSES) do
  local class, cell_class, forms = entry[1], entry[2], entry[3]
  local name = kind:upper()

  describe("nn." .. name, function()
    before_each(function() marea.seed(7) end)

    it("gives what loops give, with layers, both directions, lengths and states", function()
      for _, form in ipairs(forms) do
        for _, more in ipairs{{}, {layers = 2}, {bidirectional = true}, {layers = 3, bidirectional = true}} do
          local net = make(class, {3, 4}, form, more)
          local n = net.layers * (more.bidirectional and 2 or 1)
          local x, o = values(5, 4, 3), {lengths = marea.tensor({4, 0, 2, 3, 4}, {dtype = "i64"}), h0 = values(n, 5, 4)}
          if kind == "lstm" then o.c0 = values(n, 5, 4) end
          local plain = {lengths = o.lengths:totable(), h0 = o.h0:totable(), c0 = o.c0 and o.c0:totable()}
          local y, h, c = net(x, o)
          local wanted_y, wanted_h, wanted_c = stacked(net, kind, x:totable(), plain)
          allclose.assert(y, wanted_y, NEAR)
          allclose.assert(h, wanted_h, NEAR)
          if kind == "lstm" then allclose.assert(c, wanted_c, NEAR) end
          allclose.assert((net(x)), (stacked(net, kind, x:totable(), {})), NEAR)
        end
      end
    end)

    it("carries states: two halves give what the whole gives", function()
      local net, x = make(class, {3, 4}, {}, {layers = 2}), values(2, 6, 3)
      local y, h, c = net(x)
      local first, h1, c1 = net(x:narrow(2, 1, 3))
      local second, h2, c2 = net(x:narrow(2, 4, 3), {h0 = h1, c0 = c1})
      allclose.assert(marea.concat({first, second}, 2), y, NEAR)
      allclose.assert(h2, h, NEAR)
      if c then allclose.assert(c2, c, NEAR) end
    end)

    it("gives what its cell gives step by step, and the same gradients; the cell has gradients of any order", function()
      for _, form in ipairs(forms) do
        local net, cell = make(class, {3, 4}, form), make(cell_class, {3, 4}, form)
        local weights = net.weights[1].forward
        for field, t in pairs(weights) do cell[field]:detach():copy_(t:detach()) end
        local x, ys, h, c = values(2, 5, 3), {}, nil, nil
        for t = 1, 5 do
          h, c = cell(x:select(2, t), h, c)
          ys[t] = h
        end
        local y = net(x)
        allclose.assert(marea.stack(ys, 2), y, NEAR)
        y:square():sum():backward()
        marea.stack(ys, 2):square():sum():backward()
        for field, t in pairs(weights) do allclose.assert(cell[field].grad, t.grad, NEAR) end
        if form.activation ~= "relu" then
          local leaf = values(2, 3):requires_grad_()
          local dx = marea.grad((cell(leaf)):sum(), {leaf}, {create_graph = true})[1]
          assert.is_true(marea.grad(dx:square():sum(), {leaf})[1]:abs():sum():item() > 0)
        end
      end
    end)

    it("takes the input size from the first x, and drops out between layers in training only", function()
      local net = class{4, layers = 2, dropout = 0.5}
      local x = marea.normal{2, 3, 5}
      assert.are.same({2, 3, 4}, {table.unpack((net(x)).shape)})
      assert.are.equal(5, net.inputs)
      assert.is_false(((net(x)) - (net(x))):abs():sum():item() == 0)
      net:evaluate()
      allclose.assert((net(x)), (net(x)), {exact = true})
      assert.is_truthy(tostring(net):find "5 %-> 4, 2 layers, dropout 0.5")
    end)

    it("says what is wrong", function()
      local net = class{3, 4}
      has(message_of(function() net(marea.zeros(2, 3)) end), name .. ": argument 'x'", "sequences (N, T, C)")
      has(message_of(function() net(marea.zeros(2, 3, 3), {h0 = marea.zeros(2, 4)}) end), name .. ": argument 'h0'",
        "layers * directions = 1")
      has(message_of(function() net(marea.zeros(2, 3, 3), {length = 1}) end), "lengths")
      has(message_of(function() net(marea.zeros(2, 3, 5)) end), "argument 'w_x'")
      has(message_of(function() class{3, 4, layers = 0} end), name .. ": argument 'layers'")
      has(message_of(function() class{3, 4, bidirectional = 1} end), name .. ": argument 'bidirectional'")
      has(message_of(function() class{3, 4, dropout = 2} end), name .. ": argument 'dropout'")
      has(message_of(function() cell_class{3, 4}(marea.zeros(2, 3, 3)) end), name .. "Cell: argument 'x'", "(N, C)")
    end)
  end)
end

describe("initial values", function()
  it("are Keras': orthogonal w_h, glorot w_x, zeros, and 1 for the forget gate", function()
    local weights = nn.LSTM{3, 4, dtype = "f64"}.weights[1].forward
    local product = weights.w_h:detach():matmul(weights.w_h:detach(), {transpose_b = true})
    allclose.assert(product, marea.eye(4), {rtol = 0, atol = 1e-12})
    assert.is_true(weights.w_x:abs():max():item() <= math.sqrt(6 / (3 + 16)))
    assert.are.same({0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0}, weights.bias:totable())
    assert.are.equal(0, nn.LSTM{3, 4, forget_bias = 0}.weights[1].forward.bias:abs():sum():item())
    assert.is_nil(nn.GRU{3, 4, bias = false}.weights[1].forward.bias)
    assert.is_nil(nn.GRU{3, 4, reset_after = false}.weights[1].forward.bias_h)
  end)

  it("go through state() and load_state()", function()
    local a, b = nn.GRU{3, 4, layers = 2, bidirectional = true}, nn.GRU{3, 4, layers = 2, bidirectional = true}
    local x = marea.normal{2, 3, 3}
    b:load_state(a:state())
    allclose.assert((a(x)), (b(x)), {exact = true})
  end)
end)

it("a sequence is learned: the sign of the first step, by the last state", function()
  marea.seed(1)
  local net, out = nn.LSTM{1, 8}, nn.Linear{8, 1}
  local optimizer = marea.optim.Adam{{net, out}, lr = 0.02}
  local loss
  for _ = 1, 150 do
    local x = marea.normal{32, 6, 1}
    local wanted = x:select(2, 1):gt(0):to "f32"
    loss = marea.bce_with_logits(out((select(2, net(x))):select(1, 1)), wanted, {reduction = "mean"})
    optimizer:step(loss)
  end
  assert.is_true(loss:item() < 0.3, loss:item())
end)
