-- SPDX-License-Identifier: MIT
-- The attribute `products` of operators that have products inside: operands in bf16, all else in f32. Each instruction
-- set against f64, the same bits for any number of threads, plans, and backward outside of autocast.
local core = require "marea.core"
local marea = require "marea"
local under_isa = require "spec.support.under_isa"
local allclose = require "spec.support.allclose"

describe("operands of products are rounded to bf16, and nothing else:", function()
  for _, isa in ipairs(marea.info().isas) do
    it(isa, function()
      local cases, numbers = under_isa(isa, "spec/support/rounded_products.lua")
      assert(cases, numbers)
      assert.is_true(cases > 40 and numbers > 100000, ("%d cases, %d numbers"):format(cases, numbers))
    end)
  end
end)

local function layer(name, gates)
  return {name = name, shapes = {{70, 6, 40}, {40, gates * 48}, {48, gates * 48}}, run = function(attrs, x, w_x, w_h)
    return (marea[name](x, w_x, w_h, attrs))
  end}
end

local function loss(attrs, x, w, b)
  return marea.linear_cross_entropy(x, w, marea.arange(1, 300, {dtype = "i64"}), b, attrs)
end

local function attend(attrs, q, k, v)
  attrs.causal = true
  return marea.scaled_dot_product_attention(q, k, v, nil, nil, attrs)
end

local CASES = {layer("lstm", 4), layer("gru", 3), layer("rnn", 1),
  {name = "linear_cross_entropy", shapes = {{300, 40}, {40, 501}, {501}}, run = loss},
  {name = "scaled_dot_product_attention", shapes = {{3, 150, 4, 20}, {3, 290, 2, 20}, {3, 290, 2, 24}}, run = attend}}

local function leaves_of(case)
  marea.seed(4)
  local leaves = {}
  for i, shape in ipairs(case.shapes) do leaves[i] = marea.normal(shape):mul(0.3):requires_grad_() end
  return leaves
end

--- The result and the gradients; f calls the operator.
local function results_of(leaves, f)
  local y = f()
  local results = marea.grad(y:sum(), leaves)
  results[#results + 1] = y:detach()
  return results
end

local function equal(got, expected)
  assert.are.equal(#expected, #got)
  for i, t in ipairs(expected) do
    assert.are.equal("f32", got[i].dtype)
    assert(allclose.check(got[i], t, {exact = true}))
  end
end

--- Takes the free parts of large blocks that tensors of other tests hold together, which would be handed out with some
--- bytes to spare; a list of tensors.
local function occupy_leftovers()
  local held = {}
  marea.memory_trim()
  for bits = 24, 14, -1 do
    local mallocs = marea.memory().mallocs
    local t = marea.zeros{1 << bits}
    while marea.memory().mallocs == mallocs do
      held[#held + 1] = t
      t = marea.zeros{1 << bits}
    end
    t:release()
    marea.memory_trim()
  end
  return held
end

for _, case in ipairs(CASES) do
  describe(case.name .. " with products of bf16", function()
    local threads = marea.info().threads
    after_each(function() marea.set_threads(threads) end)

    it("has the same bits for any number of threads", function()
      local leaves, first = leaves_of(case), nil
      for n = 1, 4 do
        marea.set_threads(n)
        local got = results_of(leaves, function() return case.run({products = "bf16"}, table.unpack(leaves)) end)
        first = first or got
        equal(got, first)
      end
    end)

    it("is what autocast asks for, and its gradient outside as inside", function()
      local leaves = leaves_of(case)
      local asked = results_of(leaves, function() return case.run({products = "bf16"}, table.unpack(leaves)) end)
      local function run() return case.run({}, table.unpack(leaves)) end
      equal(results_of(leaves, function() return marea.autocast(run) end), asked)
      equal(marea.autocast(results_of, leaves, run), asked)
      local half = marea.autocast({dtype = "f16"}, results_of, leaves, run)
      equal(half, results_of(leaves, run))
    end)

    it("is full for f64", function()
      local doubles = {}
      for i, t in ipairs(leaves_of(case)) do doubles[i] = t:detach():to "f64" end
      local full = case.run({}, table.unpack(doubles))
      assert(allclose.check(case.run({products = "bf16"}, table.unpack(doubles)), full, {exact = true}))
      assert(allclose.check(marea.autocast(case.run, {}, table.unpack(doubles)), full, {exact = true}))
    end)

    it("takes the memory that is planned, and none from the system again", function()
      local leaves = leaves_of(case)
      local function step()
        core.scope(function()
          marea.grad(case.run({products = "bf16"}, table.unpack(leaves)):sum(), leaves)
        end)
      end
      collectgarbage()
      collectgarbage()
      local held = occupy_leftovers()
      local plan = marea.plan(step)
      step()
      local mallocs = marea.memory().mallocs
      step()
      assert.are.equal(mallocs, marea.memory().mallocs)
      collectgarbage()
      collectgarbage()
      marea.memory_trim() -- what the pool keeps is not always of the size that is asked for
      marea.memory_reset_peak()
      local before = marea.memory()
      step()
      local after = marea.memory()
      local off = (plan.peak - plan.alive) / (after.peak - before.live) - 1
      assert.is_true(math.abs(off) <= 0.05, ("planned %d, measured %d"):format(plan.peak - plan.alive,
        after.peak - before.live))
      for _, t in ipairs(held) do t:release() end
    end)
  end)
end
