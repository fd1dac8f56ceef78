-- SPDX-License-Identifier: MIT
-- nn.Attention, nn.SinusoidalPositions and nn.LearnedPositions against loops of Lua.
local marea = require "marea"
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local has = require "spec.support.has"
local message_of = require "spec.support.message_of"
local nn = marea.nn

local close = allclose.assert

local function i64(list) return marea.tensor(list, {dtype = "i64"}) end

--- Context and weights of one query from the scores of the first `length` steps.
local function pick(scores, key, length)
  local sum, weights, context = 0, {}, {}
  for t = 1, length do sum = sum + math.exp(scores[t]) end
  for t = 1, #key do weights[t] = t <= length and math.exp(scores[t]) / sum or 0 end
  for c = 1, #key[1] do
    context[c] = 0
    for t = 1, length do context[c] = context[c] + weights[t] * key[t][c] end
  end
  return context, weights
end

--- The score of query i and step t, by loops.
local function score_of(net, query, key)
  local state = {}
  for name, t in pairs(net:state()) do state[name] = t:totable() end
  local function dense(layer, x, j)
    local bias = state[layer .. ".bias"]
    local s = bias and bias[j] or 0
    for c = 1, #x do s = s + x[c] * state[layer .. ".weight"][c][j] end
    return s
  end
  if net.score == "dot" then
    local s = 0
    for c = 1, #key do s = s + query[c] * key[c] end
    return net.scaled and s / math.sqrt(#key) or s
  end
  local s = 0
  for j = 1, net.size do
    local a = dense("query_layer", query, j) + dense("key_layer", key, j)
    s = s + state.v[j] * (1 - 2 / (math.exp(2 * a) + 1))
  end
  return s
end

local function encoder_score(net, key, i)
  local weight, s = net.key_layer.weight:totable(), net.key_layer.bias:totable()[i]
  for c = 1, #key do s = s + key[c] * weight[c][i] end
  return 1 - 2 / (math.exp(2 * s) + 1)
end

local function naive(net, query, key, lengths)
  local contexts, weights = {}, {}
  for n, rows in ipairs(key) do
    contexts[n], weights[n] = {}, {}
    for i = 1, query and #query[n] or net.size do
      local scores = {}
      for t = 1, lengths[n] do
        scores[t] = query and score_of(net, query[n][i], rows[t]) or encoder_score(net, rows[t], i)
      end
      contexts[n][i], weights[n][i] = pick(scores, rows, lengths[n])
    end
  end
  return contexts, weights
end

describe("nn.Attention", function()
  local NETS = {
    function() return nn.Attention{5, query = 3, key = 4, dtype = "f64"} end,
    function() return nn.Attention{score = "dot"} end,
    function() return nn.Attention{score = "dot", scaled = true} end,
    function() return nn.Attention{6, score = "encoder", key = 4, dtype = "f64"} end,
  }

  local function call(net, query, key, options)
    if net.score == "encoder" then return net(key, options) end
    return net(query, key, options)
  end

  it("is what loops over the steps give, with lengths and without", function()
    for _, make in ipairs(NETS) do
      local net = make()
      local key = marea.normal{2, 4, 4, dtype = "f64"}
      local query = marea.normal{2, 2, net.query or 4, dtype = "f64"}
      for _, lengths in ipairs{{4, 4}, {1, 3}} do
        local context, weights = call(net, query, key, {lengths = lengths[1] < 4 and i64(lengths) or nil})
        local c, w = naive(net, net.score ~= "encoder" and query:totable() or nil, key:totable(), lengths)
        close(context, c, {rtol = 1e-10, atol = 1e-12})
        close(weights, w, {rtol = 1e-10, atol = 1e-12})
      end
    end
  end)

  it("has right gradients, and none from what lies behind the lengths, even NaN", function()
    for _, make in ipairs(NETS) do
      local net = make()
      local query, lengths = marea.normal{2, 2, net.query or 4, dtype = "f64"}, i64{1, 3}
      assert.is_truthy(marea.gradcheck(function(key) return (call(net, query, key, {lengths = lengths})) end,
        marea.normal{2, 4, 4, dtype = "f64"}))
      local key = marea.normal{2, 4, 4, dtype = "f64"}
      key[2][4] = 0 / 0
      key:requires_grad_()
      local context = call(net, query, key, {lengths = lengths})
      context:square():sum():backward()
      assert.are.equal(0, key.grad:ne(key.grad):max():item())
      for _, p in ipairs(net:parameters()) do assert.are.equal(0, p.grad:ne(p.grad):max():item()) end
    end
  end)

  it("gives the same bits for any number of threads, and can be planned", function()
    local threads <const> = core.threads()
    local _ <close> = marea.finally(function() core.set_threads(threads) end)
    local net, x, expected = nn.Attention{16, query = 8, key = 8}, marea.normal{4, 50, 8}, nil
    for n = 1, 4 do
      core.set_threads(n)
      local now = net(x, x):totable()
      expected = expected or now
      assert.are.same(expected, now)
    end
    assert.is_true(marea.plan(function() return (net(x, x, {lengths = i64{1, 2, 3, 4}})) end).peak > 0)
  end)

  it("has the additive form's gradients, in memory that the hidden size does not multiply", function()
    local net, lengths = nn.Attention{5, query = 3, key = 4, dtype = "f64"}, i64{1, 3}
    local key = marea.normal{2, 4, 4, dtype = "f64"}
    assert.is_truthy(marea.gradcheck(function(query) return (net(query, key, {lengths = lengths})) end,
      marea.normal{2, 2, 3, dtype = "f64"}))
    local query = marea.normal{2, 2, 3, dtype = "f64"}
    net.v:requires_grad_(false)
    assert.is_truthy(marea.gradcheck(function(v)
      net.v = v
      return (net(query, key, {lengths = lengths}))
    end, net.v:clone()))
    local wide, x = nn.Attention{128, query = 8, key = 8}, marea.normal{4, 50, 8}
    local plan = marea.plan(function() return wide(x, x):sum():backward() end)
    assert.is_true(plan.peak - plan.alive < 4 * 50 * 50 * 128 * 4) -- (N, Tq, Tk, hidden) in f32
  end)

  it("names what does not fit", function()
    local net, x = nn.Attention{4, query = 3, key = 3}, marea.ones{2, 4, 3}
    has(message_of(function() nn.Attention{score = "dot", scaled = 1} end), "scaled", "true or false")
    has(message_of(function() nn.Attention{4, query = 3, key = 3, scaled = true} end), "'scaled' is for")
    has(message_of(function() net(x, x, {lengths = i64{2, 5}}) end), "row 2 has length 5, expected 0 to 4")
    has(message_of(function() net(x, x, {lengths = i64{2}}) end), "lengths", "(2)")
    has(message_of(function() net(marea.ones{2, 4, 2}, x) end), "query", "(N, T, 3)")
    has(message_of(function() nn.Attention{4, score = "add", key = 3} end), "score", "additive")
    has(message_of(function() nn.Attention{4, query = 3} end), "key")
  end)
end)

describe("positions", function()
  it("are sines and cosines", function()
    for _, size in ipairs{6, 5} do
      local y, expected = nn.SinusoidalPositions{}(marea.zeros{1, 3, size, dtype = "f64"}, {start = 4}), {}
      for t = 1, 3 do
        expected[t] = {}
        for c = 0, size - 1 do
          local angle = (t + 3) * 10000 ^ (-(c // 2 * 2) / size)
          expected[t][c + 1] = c % 2 == 0 and math.sin(angle) or math.cos(angle)
        end
      end
      close(y, {expected}, {rtol = 1e-12, atol = 1e-12})
    end
    assert.are.equal("f32", nn.SinusoidalPositions{}(marea.zeros{1, 2, 4}).dtype)
  end)

  it("are learned rows", function()
    local net, x = nn.LearnedPositions{5, 4}, marea.normal{2, 2, 4}
    close(net(x, {start = 3}), x + net.weight['4:5'], {rtol = 0, atol = 0})
    net(x):sum():backward()
    assert.are.same({2, 2, 0, 0, 0}, net.weight.grad:select(2, 1):totable())
    has(message_of(function() net(x, {start = 4}) end), "2 steps from 4 on", "positions for 5")
    has(message_of(function() net(marea.ones{2, 2, 3}) end), "x", "(N, T, 4)")
    has(message_of(function() nn.SinusoidalPositions{}(marea.ones{2, 3}) end), "x", "(N, T, C)")
  end)
end)
