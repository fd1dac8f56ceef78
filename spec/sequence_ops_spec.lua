-- SPDX-License-Identifier: MIT
-- rotary and linear_cross_entropy against plain loops of Lua and against composed operators. Gradients are in ops_spec.
local marea = require "marea"
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local has = require "spec.support.has"
local message_of = require "spec.support.message_of"

local close = allclose.assert

local function i64(list) return marea.tensor(list, {dtype = "i64"}) end

--- f() for 1 to 4 threads gives the same lists of numbers.
local function same_for_threads(f)
  local threads <const> = core.threads()
  local _ <close> = marea.finally(function() core.set_threads(threads) end)
  local expected
  for n = 1, 4 do
    core.set_threads(n)
    local now = f()
    expected = expected or now
    assert.are.same(expected, now)
  end
end

describe("rotary", function()
  local function naive(x, a, position)
    local n, t, heads, d = table.unpack(x.shape)
    local from, y = x:totable(), {}
    for i = 1, n do
      y[i] = {}
      for j = 1, t do
        y[i][j] = {}
        for h = 1, heads do
          local row, out = from[i][j][h], {}
          for k = 0, d // 2 - 1 do
            local p, q = k + 1, k + 1 + d // 2
            if a.interleaved then p, q = 2 * k + 1, 2 * k + 2 end
            local angle = (position(i, j) + (a.start or 0)) * (a.base or 10000) ^ (-2 * k / d)
            out[p] = row[p] * math.cos(angle) - row[q] * math.sin(angle)
            out[q] = row[q] * math.cos(angle) + row[p] * math.sin(angle)
          end
          y[i][j][h] = out
        end
      end
    end
    return y
  end

  it("turns pairs by position and frequency", function()
    local x, rows, step = marea.normal{2, 3, 2, 6, dtype = "f64"}, {{4, 0, 7}, {1, 1, 90}}, {5, 6, 1000}
    for _, a in ipairs{{}, {start = 5}, {interleaved = true, base = 100}, {start = 2, interleaved = true}} do
      close(x:rotary(nil, a), naive(x, a, function(_, j) return j - 1 end), {rtol = 1e-12, atol = 1e-12})
      close(x:rotary(i64(rows), a), naive(x, a, function(i, j) return rows[i][j] end), {rtol = 1e-12, atol = 1e-12})
      close(x:rotary(i64(step), a), naive(x, a, function(_, j) return step[j] end), {rtol = 1e-12, atol = 1e-12})
    end
    close(x:rotary{start = 3}:rotary{start = 3, inverse = true}, x, {rtol = 1e-12, atol = 1e-12})
  end)

  it("makes products depend on the distance of positions alone", function()
    local q, k = marea.normal{1, 1, 1, 8, dtype = "f64"}, marea.normal{1, 1, 1, 8, dtype = "f64"}
    local function product(i, j) return (q:rotary{start = i} * k:rotary{start = j}):sum():item() end
    assert.is_true(math.abs(product(7, 4) - product(1003, 1000)) < 1e-10)
  end)

  it("names what does not fit, and takes its time from any number of threads", function()
    has(message_of(function() marea.rotary(marea.ones{1, 2, 1, 3}) end), "even", "(1, 2, 1, 3)")
    has(message_of(function() marea.rotary(marea.ones{1, 2, 1, 4}, i64{1, 2, 3}) end), "positions", "(2)", "(3)")
    has(message_of(function() marea.rotary(marea.ones{1, 2, 1, 4}, {base = 0}) end), "base", "> 0")
    local x = marea.normal{4, 300, 4, 32}
    same_for_threads(function() return x:rotary():totable() end)
  end)
end)

describe("linear_cross_entropy", function()
  local function both(a, rows, depth, classes, dtype)
    local x, w = marea.normal{rows, depth, dtype = dtype}, marea.normal{depth, classes, dtype = dtype}
    local b, labels = marea.normal{classes, dtype = dtype}, marea.randint({rows}, 1, classes)
    local up = a.reduction == "none" and marea.normal{rows, dtype = dtype} or 3
    local function run(f)
      for _, t in ipairs{x, w, b} do t:requires_grad_():clear_grad() end
      local loss = f()
      marea.sum(loss * up):backward()
      return {loss, x.grad:clone(), w.grad:clone(), b.grad:clone()}
    end
    return run(function() return marea.linear_cross_entropy(x, w, labels, b, a) end),
      run(function() return marea.cross_entropy(marea.linear(x, w, b), labels, a) end)
  end

  it("is cross_entropy behind linear, over many tiles, whatever gradient comes in", function()
    marea.seed(5)
    for _, a in ipairs{{}, {reduction = "sum", label_smoothing = 0.1}, {reduction = "none", ignore_label = 3},
      {ignore_label = 2}, {label_smoothing = 1}} do
      local fused, composed = both(a, 13, 7, 1500, "f64")
      for i = 1, 4 do close(fused[i], composed[i], {rtol = 1e-10, atol = 1e-12}) end
      fused, composed = both(a, 300, 5, 400, "f64")
      for i = 1, 4 do close(fused[i], composed[i], {rtol = 1e-10, atol = 1e-12}) end
      fused, composed = both(a, 40, 16, 700, "f32")
      for i = 1, 4 do close(fused[i], composed[i], {rtol = 1e-4, atol = 1e-4}) end
    end
  end)

  it("counts no rows when all are ignored, and names what does not fit", function()
    local x, w = marea.ones{2, 3}, marea.ones{3, 4}
    assert.are.equal(0, marea.linear_cross_entropy(x, w, i64{1, 1}, {ignore_label = 1}):item())
    local least = math.mininteger
    assert.are.equal(0, marea.linear_cross_entropy(x, w, i64{least, least}, {ignore_label = least}):item())
    has(message_of(function() marea.linear_cross_entropy(x, w, i64{1, 5}) end), "label 5", "1..4")
    has(message_of(function() marea.linear_cross_entropy(x, marea.ones{2, 4}, i64{1, 1}) end), "(2, 3)", "(2, 4)")
    has(message_of(function() marea.linear_cross_entropy(x, w, i64{1}) end), "labels", "(2)")
  end)

  it("gives the same bits for any number of threads", function()
    local x, w = marea.normal{200, 32}:requires_grad_(), marea.normal{32, 3000}:requires_grad_()
    local labels = marea.randint({200}, 1, 3000)
    same_for_threads(function()
      x:clear_grad()
      w:clear_grad()
      local loss = marea.linear_cross_entropy(x, w, labels)
      loss:backward()
      return {loss:item(), x.grad:totable(), w.grad:totable()}
    end)
  end)

  it("and cross_entropy and softmax make no denormal numbers of logits that are far apart", function()
    local x, labels = (marea.normal{20, 300} * 27):requires_grad_(), marea.randint({20}, 1, 300)
    local identity = marea.eye(300)
    local cases = {
      softmax = x:softmax(2):detach(),
      cross_entropy = marea.grad(marea.cross_entropy(x, labels), {x})[1],
      ["linear_cross_entropy with its gradient"] = marea.grad(marea.linear_cross_entropy(x, identity, labels), {x})[1],
      linear_cross_entropy = marea.grad(marea.linear_cross_entropy(x, identity, labels, {reduction = "none"}):mean(),
        {x})[1],
    }
    local expected = x:detach():to "f64":softmax(2)
    close(cases.softmax:to "f64", expected, {rtol = 1e-4, atol = 0x1p-125})
    for name, t in pairs(cases) do
      local normal, zero = t:abs():ge(0x1p-126):sum():item(), t:eq(0):sum():item()
      assert.is_true(normal + zero == 20 * 300 and zero > 1000, name)
    end
  end)

  it("adds up deep products of tiles", function()
    local fused, composed = both({reduction = "none"}, 8, 16, 60000, "f32")
    for i = 1, 4 do close(fused[i], composed[i], {rtol = 1e-4, atol = 1e-4}) end
  end)

  it("gives its gradients twice, some of them, and to an input that came to require one", function()
    local x, w, b = marea.normal{200, 6}, marea.normal{6, 90}:requires_grad_(), marea.normal{90}
    local labels = marea.randint({200}, 1, 90)
    for _, seed in ipairs{1, -2} do
      local loss = marea.linear_cross_entropy(x, w, labels, b) * seed
      local same = marea.cross_entropy(marea.linear(x, w, b), labels) * seed
      local expected = marea.grad(same, {w})[1]
      for _, retain in ipairs{true, true, false} do
        close(marea.grad(loss, {w}, {retain_graph = retain})[1], expected, {rtol = 1e-4, atol = 1e-6})
      end
    end
    local loss = marea.linear_cross_entropy(x, w, labels, b)
    x:requires_grad_()
    local given = marea.grad(loss, {x, w})
    local expected = marea.grad(marea.cross_entropy(marea.linear(x, w, b), labels), {x, w})
    for i = 1, 2 do close(given[i], expected[i], {rtol = 1e-4, atol = 1e-6}) end
  end)

  it("makes no gradient that nobody can ask for", function()
    local x, w = marea.zeros{100, 32}, marea.zeros{32, 60000}:requires_grad_()
    local function peak(f)
      local plan = marea.plan(f)
      return plan.peak - plan.alive, plan.forward
    end
    local function loss() return marea.linear_cross_entropy(x, w, i64(1):expand(100)) end
    local with, flop = peak(loss)
    local without, once = peak(function() return marea.no_grad(loss) end)
    assert.is_true(with > 32 * 60000 * 4 and without < 32 * 60000 * 4 / 1.5, with .. " " .. without)
    assert.are.equal(2, flop // once)
  end)

  it("needs an eighth of the logits' memory", function()
    local plan = marea.plan(function()
      local x, w = marea.zeros{3008, 16}:requires_grad_(), marea.zeros{16, 9000}:requires_grad_()
      marea.linear_cross_entropy(x, w, i64(1):expand(3008)):backward()
    end)
    assert.is_true(plan.peak - plan.alive < 3008 * 9000 * 4 / 8, tostring(plan.peak - plan.alive))
  end)
end)
