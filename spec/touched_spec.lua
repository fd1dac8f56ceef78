-- SPDX-License-Identifier: MIT
-- nn.Embedding{sparse = true}: gradients and steps of the rows that were read, against the dense ones and loops of Lua.
local marea = require "marea"
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local nn, optim = marea.nn, marea.optim

local function i64(list) return marea.tensor(list, {dtype = "i64"}) end

local function table_of(rows, size, options)
  marea.seed(5)
  options = options or {}
  options[1], options[2] = rows, size
  return nn.Embedding(options)
end

local function loss_of(e, index, dy) return (e(index) * dy):sum() end

--- The weight after some steps of optimizer `make` with lookups of the rows in `batches`.
local function trained(make, options, batches)
  local e = table_of(9, 3, options)
  local optimizer = make(e)
  for k, batch in ipairs(batches) do
    marea.seed(100 + k)
    optimizer:step(function()
      local loss = 0
      for _, index in ipairs(batch) do loss = loss + loss_of(e, i64(index), marea.normal{#index, 3}) end
      return loss
    end)
  end
  return e.weight:totable(), optimizer, e
end

local BATCHES <const> = {{{7, 2, 7}}, {{1, 1}, {9, 1}, {1, 4, 9}}, {{}}, {{2}, {2, 7, 5}}}

--- Adam of the rows read in each step only, in numbers of Lua.
local function lazy_adam(w, steps, a)
  local m, v = {}, {}
  for r, row in ipairs(w) do m[r], v[r] = {}, {}; for h = 1, #row do m[r][h], v[r][h] = 0, 0 end end
  for t, g in ipairs(steps) do
    for r, row in pairs(g) do
      for h, d in ipairs(row) do
        w[r][h] = w[r][h] - a.lr * a.weight_decay * w[r][h]
        m[r][h] = a.beta1 * m[r][h] + (1 - a.beta1) * d
        v[r][h] = a.beta2 * v[r][h] + (1 - a.beta2) * d * d
        w[r][h] = w[r][h] - a.lr * (m[r][h] / (1 - a.beta1 ^ t)) / (math.sqrt(v[r][h] / (1 - a.beta2 ^ t)) + a.eps)
      end
    end
  end
  return w
end

describe("a sparse embedding", function()
  it("gives the bits of the dense one with SGD, also for several lookups in a step and a padding", function()
    local function sgd(e) return optim.SGD{e, lr = 0.1} end
    for _, padding in ipairs{0, 2} do
      padding = padding > 0 and padding or nil
      assert.are.same((trained(sgd, {padding = padding}, BATCHES)),
        (trained(sgd, {padding = padding, sparse = true}, BATCHES)))
    end
  end)

  it("counts its rows in clip_norm and clip_value", function()
    local function clipped(e) return optim.SGD{e, lr = 0.1, clip_norm = 0.5, clip_value = 0.2} end
    allclose.assert(marea.tensor((trained(clipped, {sparse = true}, BATCHES))),
      marea.tensor((trained(clipped, {}, BATCHES))), {rtol = 1e-5, atol = 1e-6})
  end)

  it("is stepped by AdamW in the rows that were read only, as a loop does it", function()
    local a = {lr = 0.1, beta1 = 0.8, beta2 = 0.9, eps = 1e-8, weight_decay = 0.1}
    local e = table_of(5, 2, {sparse = true, dtype = "f64"})
    local expected = e.weight:totable()
    local optimizer = optim.AdamW{e, lr = 0.1, beta1 = 0.8, beta2 = 0.9, weight_decay = 0.1}
    local steps = {{[2] = {1, -2}, [4] = {3, 0.5}}, {[4] = {-1, 2}}, {[1] = {2, 2}, [2] = {0.25, 1}}}
    for _, g in ipairs(steps) do
      local index, dy = {}, {}
      for r, row in pairs(g) do index[#index + 1], dy[#dy + 1] = r, row end
      optimizer:step(loss_of(e, i64(index), marea.tensor(dy, {dtype = "f64"})))
    end
    expected = lazy_adam(expected, steps, a)
    allclose.assert(e.weight, marea.tensor(expected, {dtype = "f64"}), {rtol = 1e-12, atol = 1e-12})
    assert.is_nil(e.weight.grad)
  end)

  it("gets one dense gradient when its weight is used elsewhere too", function()
    local function tied(sparse)
      local e = table_of(6, 3, {sparse = sparse})
      local optimizer = optim.Adam{e, lr = 0.1}
      for _ = 1, 3 do
        optimizer:step(function() return (e(i64{2, 5, 2}):matmul(e.weight:transpose(1, 2))):square():sum() end)
      end
      return e.weight
    end
    allclose.assert(tied(true), tied(false), {rtol = 1e-5, atol = 1e-6})
  end)

  it("goes on from a saved state with the same bits", function()
    local function adam(e) return optim.Adam{e, lr = 0.1} end
    local _, optimizer, e = trained(adam, {sparse = true}, BATCHES)
    local again = table_of(9, 3, {sparse = true})
    again:load_state(e:state())
    local other = optim.Adam{again, lr = 0.1}
    other:load_state(optimizer:state())
    for _, pair in ipairs{{e, optimizer}, {again, other}} do
      pair[2]:step(loss_of(pair[1], i64{3, 7, 3}, marea.ones{3, 3}))
    end
    assert.are.same(e.weight:totable(), again.weight:totable())
  end)

  it("gives the same bits for any number of threads", function()
    local threads <const> = core.threads()
    local _ <close> = marea.finally(function() core.set_threads(threads) end)
    local first
    for n = 1, 4 do
      core.set_threads(n)
      marea.seed(8)
      local e = nn.Embedding{500, 64, sparse = true}
      local optimizer = optim.Adam{e, lr = 0.1}
      for _ = 1, 3 do
        optimizer:step(function() return loss_of(e, marea.randint({30, 20}, 1, 500), marea.normal{30, 20, 64}) end)
      end
      first = first or e.weight:clone()
      assert.are.equal(0, (first - e.weight):abs():max():item())
    end
  end)

  it("adds gradients up until the step, and drops them in zero_grad, evaluate and freeze", function()
    local function sgd(e) return optim.SGD{e, lr = 1} end
    local e = table_of(4, 1, {sparse = true})
    local optimizer, before = sgd(e), e.weight:clone():detach()
    loss_of(e, i64{1}, 1):backward()
    loss_of(e, i64{1, 3}, 1):backward()
    optimizer:step()
    assert.are.same({{2}, {0}, {1}, {0}}, (before - e.weight:detach()):round():totable())
    loss_of(e, i64{1}, 1):backward()
    optimizer:zero_grad()
    assert.matches("no parameter has a gradient", message_of(function() optimizer:step() end))
    e:evaluate()
    loss_of(e, i64{2}, 1):backward()
    assert.are.same({{0}, {1}, {0}, {0}}, e.weight.grad:totable())
    e:freeze()
    assert.is_false(e(i64{1}).requires_grad)
  end)

  it("forgets the lookups of a step that failed, and those of a plan", function()
    local e = table_of(4, 1, {sparse = true})
    local optimizer = optim.SGD{e, lr = 1}
    local function fails()
      e(i64{1})
      error("no", 0)
    end
    assert.is_false((pcall(optimizer.step, optimizer, fails)))
    local before = e.weight:clone():detach()
    local function step() optimizer:step(function() return loss_of(e, i64{2}, 1) end) end
    marea.plan(step)
    assert.are.equal(0, optimizer.steps)
    step()
    assert.are.same({{0}, {1}, {0}, {0}}, (before - e.weight:detach()):round():totable())
  end)

  it("refuses a number that is no row with its place, and a sparse that is no boolean", function()
    local e = table_of(4, 1, {sparse = true})
    assert.matches("element %(1, 2%) of .* is 5, expected 1 to 4", message_of(function() e(i64{{1, 5}}) end))
    assert.matches("true or false", message_of(function() nn.Embedding{4, 1, sparse = 1} end))
  end)
end)
