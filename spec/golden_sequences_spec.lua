-- SPDX-License-Identifier: MIT
-- Layers of sequences against the numbers that PyTorch gave (spec/golden/make_sequences.py), with weights loaded by
-- PyTorch's names.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local golden = require "spec.support.golden"
local nn = marea.nn

local TOLERANCE = {rtol = 1e-5, atol = 1e-5} -- f32 here, f64 rounded once there

local function compare(case, name, actual, expected)
  allclose.assert(actual, expected or case.tensors[name], TOLERANCE, case.key .. " " .. name)
end

--- The tensors whose names begin with `prefix`, by the rest of their names.
local function under(case, prefix)
  local list = {}
  for name, t in pairs(case.tensors) do
    if name:sub(1, #prefix) == prefix then list[name:sub(#prefix + 1)] = t end
  end
  return list
end

--- make() gives the layer; another one holds the gradients that are expected.
local function loaded(case, make)
  local net, gradients = make(), make()
  net:load_state(under(case, "w."), {from = "torch"})
  gradients:load_state(under(case, "g."), {from = "torch"})
  return net, gradients
end

local function compare_gradients(case, net, gradients, inputs)
  for name, t in gradients:named_parameters() do
    compare(case, "gradient of " .. name, net:state()[name].grad or marea.zeros_like(t), t)
  end
  for _, name in ipairs(inputs) do
    if case.tensors["d_" .. name] then compare(case, "d_" .. name, case.tensors[name].grad) end
  end
end

local function learn(case, inputs)
  for _, name in ipairs(inputs) do
    if case.tensors["d_" .. name] then case.tensors[name]:requires_grad_(true) end
  end
end

--- What backward from all results with their gradients starts from.
local function total(case, results)
  local sum
  for name, t in pairs(results) do
    local part = (t * case.tensors["d" .. name]):sum()
    sum = sum and sum + part or part
  end
  return sum
end

local function each(file, name, run, least)
  local cases = golden.read(file)[name]
  assert(#cases >= (least or 20), name)
  for _, case in ipairs(cases) do marea.scope(function() run(case, case.attrs, case.tensors) end) end
end

describe("golden numbers of PyTorch agree with", function()
  for _, kind in ipairs {"LSTM", "GRU", "RNN"} do
    it("nn." .. kind, function()
      each(kind:lower(), kind, function(case, a, t)
        local net, gradients = loaded(case, function()
          return nn[kind] {a.width, a.outputs, layers = a.layers, bidirectional = a.bidirectional, bias = a.bias,
            activation = kind == "RNN" and a.activation or nil}
        end)
        learn(case, {"x", "h0", "c0"})
        local results = {}
        results.y, results.h, results.c =
          net(t.x, {h0 = t.h0, c0 = t.c0, lengths = t.lengths})
        for name, result in pairs(results) do compare(case, name, result) end
        total(case, results):backward()
        compare_gradients(case, net, gradients, {"x", "h0", "c0"})
      end)
    end)
  end

  it("nn.Embedding", function()
    each("embedding", "Embedding", function(case, a, t)
      local net, gradients = loaded(case, function()
        return nn.Embedding {a.vocabulary, a.size, padding = a.padded and 1 or nil}
      end)
      local y = net(t.index + 1)
      compare(case, "y", y)
      y:backward(t.dy)
      compare_gradients(case, net, gradients, {})
    end)
  end)

  it("scaled_dot_product_attention", function()
    each("attention", "attention", function(case, a, t)
      local names = {"q", "k", "v"}
      learn(case, names)
      local q, k, v = t.q:transpose(2, 3), t.k:transpose(2, 3), t.v:transpose(2, 3) -- heads behind the time
      local y = marea.scaled_dot_product_attention(q, k, v, t.mask, t.lengths, {causal = a.causal, scale = a.scale})
      y = y:transpose(2, 3)
      compare(case, "y", y)
      y:backward(t.dy)
      for _, name in ipairs(names) do compare(case, "d_" .. name, t[name].grad) end
    end)
  end)

  it("nn.MultiHeadAttention", function()
    each("multihead", "MultiHeadAttention", function(case, a, t)
      local net, gradients = loaded(case, function() return nn.MultiHeadAttention {a.size, a.heads, bias = a.bias} end)
      learn(case, {"x", "memory"})
      local y = net(t.x, t.memory, {lengths = t.lengths, causal = a.causal})
      compare(case, "y", y)
      y:backward(t.dy)
      compare_gradients(case, net, gradients, {"x", "memory"})
    end)
  end)

  for _, kind in ipairs {"TransformerEncoderLayer", "TransformerDecoderLayer"} do
    it("nn." .. kind, function()
      each("transformer", kind, function(case, a, t)
        local net, gradients = loaded(case, function()
          return nn[kind] {a.size, a.heads, dim_feedforward = a.inner, activation = a.activation,
            norm_first = a.norm_first, dropout = 0}
        end)
        learn(case, {"x", "memory"})
        local y = kind == "TransformerDecoderLayer"
          and net(t.x, t.memory, {causal = a.causal, memory_lengths = t.lengths})
          or net(t.x, {causal = a.causal, lengths = t.lengths})
        compare(case, "y", y)
        y:backward(t.dy)
        compare_gradients(case, net, gradients, {"x", "memory"})
      end)
    end)
  end

  for kind, least in pairs {Conv1d = 20, ConvTranspose1d = 16} do
    it("nn." .. kind, function()
      each("conv1d", kind, function(case, a, t)
        local net, gradients = loaded(case, function()
          return nn[kind] {a.width, a.outputs, kernel = a.kernel, stride = a.stride, padding = a.padding,
            dilation = a.dilation, groups = a.groups, bias = a.bias, output_padding = a.output_padding}
        end)
        learn(case, {"x"})
        local y = net(t.x:transpose(2, 3)):transpose(2, 3) -- (N, C, T) there
        compare(case, "y", y)
        y:backward(t.dy)
        compare_gradients(case, net, gradients, {"x"})
      end, least)
    end)
  end

  it("ctc_loss", function()
    each("ctc", "ctc_loss", function(case, a, t)
      learn(case, {"logits"})
      local log_probs = marea.log_softmax(t.logits:transpose(1, 2), 3) -- (T, N, V) there
      local y = marea.ctc_loss(log_probs, t.labels + 1, t.input_lengths, t.target_lengths,
        {reduction = a.reduction, zero_infinity = a.zero_infinity})
      compare(case, "y", y)
      y:backward(t.dy)
      compare(case, "d_logits", t.logits.grad)
    end)
  end)
end)
