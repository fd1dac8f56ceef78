-- SPDX-License-Identifier: MIT
-- States of PyTorch's and Keras' modules, loaded by their names. spec/golden_sequences_spec.lua compares recurrent
-- layers with PyTorch's numbers; here are Keras' formulas as plain loops, other layers, and what does not fit.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local nn = marea.nn

local function values(...) return marea.normal{...} end

local function tanh(x) return 1 - 2 / (math.exp(2 * x) + 1) end
local function sigmoid(x) return 1 / (1 + math.exp(-x)) end
local function hard_sigmoid(x) return math.max(0, math.min(1, 0.2 * x + 0.5)) end

--- (row r of a list of lists) times m, plus b
local function product(row, m, b)
  local out = {}
  for j = 1, #m[1] do
    out[j] = b and b[j] or 0
    for i = 1, #row do out[j] = out[j] + row[i] * m[i][j] end
  end
  return out
end

--- Keras' GRU over one sequence (T, C): gates z r h, tensors as lists.
local function keras_gru(x, w, after, gate)
  local units = #w.recurrent_kernel
  local h = {}
  for i = 1, units do h[i] = 0 end
  for _, step in ipairs(x) do
    local a = product(step, w.kernel, after and w.bias[1] or w.bias)
    local u = product(h, w.recurrent_kernel, after and w.bias[2])
    local z, r, reset = {}, {}, {}
    for i = 1, units do
      z[i], r[i] = gate(a[i] + u[i]), gate(a[units + i] + u[units + i])
      reset[i] = r[i] * h[i]
    end
    local inner = product(reset, w.recurrent_kernel)
    local new = {}
    for i = 1, units do
      local q = after and r[i] * u[2 * units + i] or inner[2 * units + i]
      new[i] = z[i] * h[i] + (1 - z[i]) * tanh(a[2 * units + i] + q)
    end
    h = new
  end
  return h
end

--- Keras' LSTM likewise: gates i f c o.
local function keras_lstm(x, w, gate)
  local units, h, c = #w.recurrent_kernel, {}, {}
  for i = 1, units do h[i], c[i] = 0, 0 end
  for _, step in ipairs(x) do
    local a, u = product(step, w.kernel, w.bias), product(h, w.recurrent_kernel)
    local new = {}
    for i = 1, units do
      local function at(k) return a[(k - 1) * units + i] + u[(k - 1) * units + i] end
      c[i] = gate(at(2)) * c[i] + gate(at(1)) * tanh(at(3))
      new[i] = gate(at(4)) * tanh(c[i])
    end
    h = new
  end
  return h
end

local function lists(weights)
  local result = {}
  for name, t in pairs(weights) do result[name] = t:to "f64":totable() end
  return result
end

describe("weights of Keras", function()
  local GATES = {sigmoid = sigmoid, hard_sigmoid = hard_sigmoid}

  for name, gate in pairs(GATES) do
    for _, after in ipairs {true, false} do
      it(("of a GRU, reset_after = %s, %s"):format(after, name), function()
        local w = {kernel = values(3, 12), recurrent_kernel = values(4, 12),
          bias = after and values(2, 12) or values(12)}
        local net = nn.GRU {3, 4, reset_after = after, recurrent_activation = name}
        net:load_state({["gru/gru_cell/kernel:0"] = w.kernel, ["gru/gru_cell/recurrent_kernel:0"] = w.recurrent_kernel,
          ["gru/gru_cell/bias:0"] = w.bias}, {from = "keras", strict = false})
        local cell = nn.GRUCell {3, 4, reset_after = after, recurrent_activation = name}
        cell:load_state(w, {from = "keras"})
        net:load_state(w, {from = "keras"})
        local x = values(1, 5, 3)
        local _, h = net(x)
        local expected = marea.tensor(keras_gru(x[1]:totable(), lists(w), after, gate))
        allclose.assert(h:reshape(4), expected, {rtol = 1e-5, atol = 1e-6}, "GRU")
        local state
        for step = 1, 5 do state = cell(x:select(2, step), state) end
        allclose.assert(state:reshape(4), expected, {rtol = 1e-5, atol = 1e-6}, "GRUCell")
      end)
    end

    it("of an LSTM in both directions, " .. name, function()
      local function one() return {kernel = values(3, 16), recurrent_kernel = values(4, 16), bias = values(16)} end
      local w, back, state = one(), one(), {}
      for key, t in pairs(w) do state[("bidirectional/forward_lstm_1/lstm_cell_4/%s:0"):format(key)] = t end
      for key, t in pairs(back) do state[("bidirectional/backward_lstm_1/lstm_cell_5/%s:0"):format(key)] = t end
      local net = {bidirectional = nn.LSTM {3, 4, bidirectional = true, recurrent_activation = name}}
      local Net = nn.class "KerasNet"
      function Net:init() self.bidirectional = net.bidirectional end
      Net():load_state(state, {from = "keras"})
      local x = values(1, 5, 3)
      local _, h = net.bidirectional(x)
      local steps = x[1]:totable()
      local turned = {}
      for i = #steps, 1, -1 do turned[#turned + 1] = steps[i] end
      local expected = marea.tensor {keras_lstm(steps, lists(w), gate), keras_lstm(turned, lists(back), gate)}
      allclose.assert(h:reshape(2, 4), expected, {rtol = 1e-5, atol = 1e-6})
    end)
  end

  it("of other layers have other names", function()
    local net =
      nn.Sequential {nn.Conv2d {1, 2, kernel = 3}, nn.BatchNorm {2}, nn.Linear {2, 3}, nn.Embedding {4, 2}}
    local w = {["1.kernel"] = values(3, 3, 1, 2), ["1.bias"] = values(2), ["2.gamma"] = values(2),
      ["2.beta"] = values(2), ["2.moving_mean"] = values(2), ["2.moving_variance"] = values(2),
      ["3.kernel"] = values(2, 3), ["3.bias"] = values(3), ["4.embeddings"] = values(4, 2)}
    net:load_state(w, {from = "keras"})
    assert.is_true(marea.all(net[1].weight:eq(w["1.kernel"])):item() == 1)
    assert.is_true(marea.all(net[2].running_var:eq(w["2.moving_variance"])):item() == 1)
    assert.is_true(marea.all(net[4].weight:eq(w["4.embeddings"])):item() == 1)
  end)
end)

describe("weights of PyTorch", function()
  it("of convolutions and linear layers are turned, and modules are counted from 0", function()
    local net = nn.Sequential {nn.Conv2d {2, 3, kernel = {2, 3}}, nn.ConvTranspose2d {3, 2, kernel = 2},
      nn.Linear {2, 5}, nn.BatchNorm {5}}
    local w = {["0.weight"] = values(3, 2, 2, 3), ["0.bias"] = values(3), ["1.weight"] = values(3, 2, 2, 2),
      ["1.bias"] = values(2), ["2.weight"] = values(5, 2), ["2.bias"] = values(5), ["3.weight"] = values(5),
      ["3.bias"] = values(5), ["3.running_mean"] = values(5), ["3.running_var"] = values(5),
      ["3.num_batches_tracked"] = marea.ones(1)}
    net:load_state(w, {from = "torch"})
    -- (Cout, Cin, KH, KW) and (Cin, Cout, KH, KW) to (KH, KW, Cin, Cout) and (KH, KW, Cout, Cin)
    assert.are.equal(w["0.weight"][{3, 2, 1, 3}], net[1].weight[{1, 3, 2, 3}]:item())
    assert.are.equal(w["1.weight"][{3, 2, 1, 2}], net[2].weight[{1, 2, 2, 3}]:item())
    assert.are.equal(w["2.weight"][{5, 1}], net[3].weight[{1, 5}]:item())
    assert.are.equal(w["3.running_var"][4], net[4].running_var[4])
  end)

  it("that are missing or left over are named, and nothing is changed", function()
    local net = nn.Sequential {nn.Linear {2, 1}, nn.LSTM {1, 1}}
    local before = net[1].weight[{1, 1}]:item()
    local ok, message = pcall(net.load_state, net, {["0.weight"] = values(1, 2), ["0.bias"] = values(1),
      ["1.weight_ih_l0"] = values(4, 1), ["1.weight_hh_l0"] = values(4, 1), ["1.bias_ih_l0"] = values(4),
      ["1.bias_hh_l1"] = values(4)}, {from = "torch"})
    assert.is_false(ok)
    assert.is_truthy(message:find("missing: 1.bias_hh_l0\n  unexpected: 1.bias_hh_l1", 1, true), message)
    assert.is_truthy(message:find("nn_foreign_spec.lua:", 1, true), message)
    assert.are.equal(before, net[1].weight[{1, 1}]:item())
  end)

  it("of a GRU do not fit one whose reset gate comes before the product", function()
    local ok, message = pcall(function() nn.GRU {1, 1, reset_after = false}:load_state({}, {from = "torch"}) end)
    assert.is_false(ok)
    assert.is_truthy(message:find("reset gate after the product", 1, true), message)
  end)

  it("of another framework are not known", function()
    local ok, message = pcall(function() nn.Linear {1, 1}:load_state({}, {from = "tourch"}) end)
    assert.is_false(ok)
    assert.is_truthy(message:find "did you mean 'torch'", message)
  end)
end)
