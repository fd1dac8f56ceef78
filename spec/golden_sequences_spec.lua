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

local function each(file, name, run)
  local cases = golden.read(file)[name]
  assert(#cases >= 20, name)
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
end)
