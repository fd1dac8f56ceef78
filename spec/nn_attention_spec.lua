-- SPDX-License-Identifier: MIT
-- nn.MultiHeadAttention and the layers of transformers, against composed operators: values, gradients, caches, states.
local marea = require "marea"
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local has = require "spec.support.has"
local message_of = require "spec.support.message_of"
local nn = marea.nn

local close = allclose.assert

local function i64(list) return marea.tensor(list, {dtype = "i64"}) end

--- Rotary positions 0, 1, ... of x (N, heads, T, D), by angles from a loop.
local function turned(x, base)
  local steps, half = x:size(3), x:size(4) // 2
  local cosines, sines = {}, {}
  for t = 1, steps do
    cosines[t], sines[t] = {}, {}
    for i = 1, half do
      local angle = (t - 1) * base ^ (-(i - 1) / half)
      cosines[t][i], sines[t][i] = math.cos(angle), math.sin(angle)
    end
  end
  local c, s = marea.tensor(cosines, {dtype = "f64"}), marea.tensor(sines, {dtype = "f64"})
  local a, b = x:narrow(4, 1, half), x:narrow(4, half + 1, half)
  return marea.concat({a * c - b * s, b * c + a * s}, 4)
end

--- Attention of many heads by matmul and softmax, from the packed weights.
local function composed(layer, query, key, value, options)
  local e, h, d = layer.embed_dim, layer.num_heads, layer.head_dim
  local width = layer.kv_heads * d
  local function part(x, first, size, count)
    local w, b = layer.in_proj_weight:narrow(2, first, size), layer.in_proj_bias
    local y = marea.linear(x, w:contiguous(), b and b:narrow(1, first, size):contiguous())
    y = y:reshape{x:size(1), x:size(2), count, d}:permute{1, 3, 2, 4}
    if layer.rotary and first <= e + width - size + 1 then y = turned(y, layer.rotary) end
    if count == h then return y end
    return y:unsqueeze(3):expand(x:size(1), count, h // count, x:size(2), d):reshape{x:size(1), h, x:size(2), d}
  end
  local q, k = part(query, 1, e, h), part(key, e + 1, width, layer.kv_heads)
  local v = part(value, e + width + 1, width, layer.kv_heads)
  local scores = marea.matmul(q, k, {transpose_b = true}) / math.sqrt(d)
  if options.causal then
    local ones = marea.ones{query:size(2), key:size(2), dtype = "f64"}
    scores = scores + marea.where(ones:tril():ne(0), ones * 0, ones * -math.huge)
  end
  local y = marea.matmul(scores:softmax{dim = 4}, v):permute{1, 3, 2, 4}
  return layer.out_proj(y:reshape{query:size(1), query:size(2), e})
end

local FORMS = {{}, {kv_heads = 2}, {kv_heads = 1, bias = false}, {rotary = true}, {rotary = 50, kv_heads = 2}}

local function layer_of(form)
  local heads = form.rotary and 2 or 4
  local layer = nn.MultiHeadAttention{12, heads, kv_heads = form.kv_heads, bias = form.bias, rotary = form.rotary,
    dtype = "f64"}
  if layer.in_proj_bias then
    core.no_grad(function() layer.in_proj_bias:copy_(marea.normal{layer.in_proj_bias:size(1)}) end)
  end
  return layer
end

describe("nn.MultiHeadAttention", function()
  it("is attention by matmul and softmax, values and gradients", function()
    marea.seed(2)
    for _, form in ipairs(FORMS) do
      local layer = layer_of(form)
      local x, memory = marea.normal{2, 5, 12, dtype = "f64"}, marea.normal{2, 3, 12, dtype = "f64"}
      local values = marea.normal{2, 3, 12, dtype = "f64"}
      local calls = {{x, x, x, {}}, {x, x, x, {causal = true}}, {x, memory, memory, {}}, {x, memory, values, {}}}
      if form.rotary then calls = {calls[1], calls[2], {x, x, marea.normal{2, 5, 12, dtype = "f64"}, {}}} end
      for _, call in ipairs(calls) do
        local results = {}
        for i, f in ipairs{function() return layer(table.unpack(call)) end,
          function() return composed(layer, table.unpack(call)) end} do
          x:requires_grad_():clear_grad()
          for _, p in ipairs(layer:parameters()) do p:clear_grad() end
          local y = f()
          y:square():sum():backward()
          results[i] = {y, x.grad:clone(), layer.in_proj_weight.grad:clone()}
        end
        for i = 1, 3 do close(results[1][i], results[2][i], {rtol = 1e-9, atol = 1e-11}) end
      end
    end
  end)

  it("has right gradients", function()
    local layer = layer_of{kv_heads = 2}
    assert.is_truthy(marea.gradcheck(function(x) return layer(x, {causal = true}) end,
      marea.normal{2, 3, 12, dtype = "f64"}))
  end)

  it("has PyTorch's names and initial values", function()
    local state = nn.MultiHeadAttention{8, 2}:state()
    local shapes = {}
    for name, t in pairs(state) do shapes[name] = table.concat(t.shape, "x") end
    assert.are.same({in_proj_weight = "8x24", in_proj_bias = "24", ["out_proj.weight"] = "8x8",
      ["out_proj.bias"] = "8"}, shapes)
    assert.are.equal(0, state.in_proj_bias:abs():max():item() + state["out_proj.bias"]:abs():max():item())
    assert.is_true(state.in_proj_weight:abs():max():item() <= math.sqrt(6 / 32))
    assert.is_true(state["out_proj.weight"]:abs():max():item() <= math.sqrt(1 / 8))
  end)

  it("gives step by step, with a cache, what the whole sequence gives", function()
    for _, form in ipairs(FORMS) do
      local layer = layer_of(form)
      local x = marea.normal{3, 7, 12, dtype = "f64"}
      local whole, cache, ys = layer(x, {causal = true}), layer:cache{batch = 3, length = 8}, {}
      for _, part in ipairs{{1, 3}, {4, 1}, {5, 2}, {7, 1}} do
        ys[#ys + 1], cache = layer(x:narrow(2, part[1], part[2]), {cache = cache, causal = true})
      end
      assert.are.equal(7, cache.length)
      close(marea.concat(ys, 2), whole, {rtol = 1e-12, atol = 1e-12})
    end
  end)

  it("sees with rotary positions how far apart steps are, wherever they lie", function()
    local layer, x = layer_of{rotary = true}, marea.normal{2, 6, 12, dtype = "f64"}
    local hidden = marea.concat({marea.zeros{10, 4}, marea.ones{10, 6}}, 2):to "u8"
    local late = layer(marea.concat({marea.normal{2, 4, 12, dtype = "f64"}, x}, 2), {causal = true, mask = hidden})
    close(late:narrow(2, 5, 6), layer(x, {causal = true}), {rtol = 1e-10, atol = 1e-12})
    local turned_around = layer(x:flip{2}):flip{2}
    assert.is_true((turned_around - layer(x)):abs():max():item() > 1e-3)
  end)

  it("hides what lies behind the lengths, even NaN", function()
    local layer, x = nn.MultiHeadAttention{8, 2}, marea.normal{2, 4, 8}
    local short = layer(x:narrow(2, 1, 2))
    local y = layer(x:narrow(2, 1, 2), marea.concat({x:narrow(2, 1, 2), marea.full({2, 2, 8}, 0 / 0)}, 2),
      {lengths = i64{2, 2}})
    close(y, short, {rtol = 1e-5, atol = 1e-6})
  end)

  it("drops weights in training alone, and can be frozen and planned", function()
    local layer, x = nn.MultiHeadAttention{8, 2, dropout = 0.5}, marea.normal{2, 4, 8}
    assert.are.equal(1, (layer(x) - layer(x)):ne(0):max():item())
    layer:evaluate()
    assert.are.same(layer(x):totable(), layer(x):totable())
    layer:freeze()
    assert.is_false(layer(x).requires_grad)
    assert.is_true(marea.plan(function() return layer(x) end).peak > 0)
  end)

  it("gives the same bits for any number of threads", function()
    local threads <const> = core.threads()
    local _ <close> = marea.finally(function() core.set_threads(threads) end)
    local layer, x, expected = nn.MultiHeadAttention{32, 4}, marea.normal{4, 60, 32}, nil
    for n = 1, 4 do
      core.set_threads(n)
      local now = layer(x, {causal = true}):totable()
      expected = expected or now
      assert.are.same(expected, now)
    end
  end)

  it("names what does not fit", function()
    has(message_of(function() nn.MultiHeadAttention{10, 3} end), "embed_dim = 10", "num_heads = 3")
    has(message_of(function() nn.MultiHeadAttention{12, 4, kv_heads = 3} end), "num_heads = 4", "kv_heads = 3")
    local layer = nn.MultiHeadAttention{8, 2}
    has(message_of(function() layer(marea.ones{2, 3, 7}) end), "query", "(N, T, 8)", "(2, 3, 7)")
    has(message_of(function() layer(marea.ones{2, 3, 8}, {lengths = i64{3, 4}}) end), "4", "lengths")
    local x = marea.ones{2, 3, 8}
    has(message_of(function() layer(x, {cache = layer:cache{batch = 2, length = 2}}) end), "room for 2", "3 more")
    has(message_of(function() layer(x, {cache = layer:cache{batch = 1, length = 5}}) end), "batch of 1", "2 rows")
    has(message_of(function() layer(x, {cache = {}}) end), "cache", "net:cache")
    has(message_of(function() layer(x, {cache = layer:cache{batch = 2, length = 5}, lengths = i64{1, 1}}) end), "cache")
    has(message_of(function() layer(x, {cache = layer:cache{batch = 2, length = 5}, causal = 1}) end), "true or false")
    has(message_of(function() layer(x, {mask = 1, casual = true}) end), "casual", "causal")
    has(message_of(function() nn.MultiHeadAttention{6, 2, rotary = true} end), "pairs", "3 values")
    has(message_of(function() nn.MultiHeadAttention{8, 2, rotary = "yes"} end), "rotary", "base")
    has(message_of(function() nn.MultiHeadAttention{8, 2, rotary = 0.5} end), "rotary", "0.5")
    has(message_of(function() nn.MultiHeadAttention{8, 2, rotary = true}(x, x + 0) end), "rotary", "to itself")
  end)
end)

describe("layers of transformers", function()
  local function norm(layer, x) return marea.layer_norm(x, layer.weight, layer.bias, {eps = 1e-5}) end

  it("have PyTorch's names and order of normalization", function()
    local x, memory = marea.normal{2, 5, 8}, marea.normal{2, 3, 8}
    for _, first in ipairs{false, true} do
      local net = nn.TransformerEncoderLayer{8, 2, dim_feedforward = 16, norm_first = first}:evaluate()
      local function feed(t) return net.linear2(net.linear1(t)) end
      local expected
      if first then
        expected = x + net.self_attn(norm(net.norm1, x))
        expected = expected + feed(norm(net.norm2, expected))
      else
        expected = norm(net.norm1, x + net.self_attn(x))
        expected = norm(net.norm2, expected + feed(expected))
      end
      close(net(x), expected, {rtol = 1e-5, atol = 1e-6})
      local decoder = nn.TransformerDecoderLayer{8, 2, dim_feedforward = 16, norm_first = first}:evaluate()
      local function inner(t) return decoder.linear2(decoder.linear1(t)) end
      local own, other = decoder.self_attn, decoder.multihead_attn
      if first then
        expected = x + own(norm(decoder.norm1, x), {causal = true})
        expected = expected + other(norm(decoder.norm2, expected), memory)
        expected = expected + inner(norm(decoder.norm3, expected))
      else
        expected = norm(decoder.norm1, x + own(x, {causal = true}))
        expected = norm(decoder.norm2, expected + other(expected, memory))
        expected = norm(decoder.norm3, expected + inner(expected))
      end
      close(decoder(x, memory, {causal = true}), expected, {rtol = 1e-5, atol = 1e-6})
    end
    local names = {}
    for name in pairs(nn.TransformerDecoderLayer{8, 2, dim_feedforward = 4}:state()) do names[#names + 1] = name end
    table.sort(names)
    assert.are.equal("linear1.bias linear1.weight linear2.bias linear2.weight multihead_attn.in_proj_bias "
      .. "multihead_attn.in_proj_weight multihead_attn.out_proj.bias multihead_attn.out_proj.weight norm1.bias "
      .. "norm1.weight norm2.bias norm2.weight norm3.bias norm3.weight self_attn.in_proj_bias "
      .. "self_attn.in_proj_weight self_attn.out_proj.bias self_attn.out_proj.weight", table.concat(names, " "))
  end)

  it("give step by step, with a cache, what the whole sequence gives", function()
    local x, memory = marea.normal{2, 5, 8}, marea.normal{2, 3, 8}
    for _, first in ipairs{false, true} do
      local options = {8, 2, dim_feedforward = 16, norm_first = first, rotary = first}
      local encoder = nn.TransformerEncoderLayer(options):evaluate()
      local decoder = nn.TransformerDecoderLayer(options):evaluate()
      local a, b, ys, zs = encoder:cache{batch = 2, length = 5}, decoder:cache{batch = 2, length = 5}, {}, {}
      for t = 1, 5 do
        ys[t], a = encoder(x:narrow(2, t, 1), {cache = a, causal = true})
        zs[t], b = decoder(x:narrow(2, t, 1), memory, {cache = b, causal = true, memory_lengths = i64{2, 3}})
      end
      close(marea.concat(ys, 2), encoder(x, {causal = true}), {rtol = 1e-5, atol = 1e-6})
      close(marea.concat(zs, 2), decoder(x, memory, {causal = true, memory_lengths = i64{2, 3}}),
        {rtol = 1e-5, atol = 1e-6})
    end
  end)

  it("train, and their states can be copied", function()
    local x, memory = marea.normal{2, 5, 8}, marea.normal{2, 3, 8}
    local net = nn.TransformerDecoderLayer{8, 2, dim_feedforward = 16}
    net(x, memory):square():sum():backward()
    for name, t in net:named_parameters() do assert.is_truthy(t.grad, name) end
    local copy = nn.TransformerDecoderLayer{8, 2, dim_feedforward = 16}:load_state(net:state())
    assert.are.same(net:evaluate()(x, memory):totable(), copy:evaluate()(x, memory):totable())
    has(message_of(function() nn.TransformerEncoderLayer{8, 3} end), "embed_dim = 8", "num_heads = 3")
    has(message_of(function() net(x, marea.ones{2, 3, 7}) end), "memory", "(N, T, 8)")
    has(message_of(function() nn.TransformerEncoderLayer{8, 2, norm_frist = true} end), "norm_frist", "norm_first")
  end)
end)
