-- SPDX-License-Identifier: MIT
-- The rules of automatic differentiation: who gets a gradient, what a pass consumes, what counts as misuse.
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local folder = require "spec.support.folder"
local ops = core.ops

local function leaf(values)
  return core.tensor(values, {dtype = "f64", requires_grad = true})
end

--- The call fails with a message that has all the texts.
local function fails_with(texts, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "no error")
  for _, text in ipairs(texts) do
    assert.is_truthy(tostring(message):find(text, 1, true), ("'%s' has no '%s'"):format(message, text))
  end
end

describe("backward", function()
  it("gives a leaf its gradient", function()
    local x = leaf {1, 2, 3}
    assert.is_nil(x.grad)
    assert.is_true(x.is_leaf and x.requires_grad)
    local y = (x * x):sum()
    assert.is_false(y.is_leaf)
    assert.is_true(y.requires_grad)
    y:backward()
    allclose.assert(x.grad, {2, 4, 6})
    assert.is_false(x.grad.requires_grad)
    assert.is_nil(y.grad)
  end)

  it("adds to the gradient that is there", function()
    local x = leaf {1, 2}
    for _ = 1, 3 do (x * 2):sum():backward() end
    allclose.assert(x.grad, {6, 6})
    x:clear_grad()
    assert.is_nil(x.grad)
  end)

  it("sums over all the ways from a leaf to the result", function()
    local x = leaf {3}
    local a = x * 2
    local b = a + x
    local y = a * b + x -- 6x^2 + x
    y:sum():backward()
    allclose.assert(x.grad, {37})
  end)

  it("counts an input that is given twice", function()
    local x = leaf {5}
    ops.concat {x, x, x}:sum():backward()
    allclose.assert(x.grad, {3})
    x:clear_grad()
    ops.mul(x, x):sum():backward()
    allclose.assert(x.grad, {10})
  end)

  it("takes a seed for a result with many elements", function()
    local x = leaf {1, 2, 3}
    fails_with({"backward", "seed"}, function() (x * 2):backward() end)
    local y = x * 2
    y:backward(core.tensor({1, 10, 100}, {dtype = "f64"}))
    allclose.assert(x.grad, {2, 20, 200})
    fails_with({"backward", "(3)", "(2)"}, function() (x * 2):backward(core.tensor({1, 2}, {dtype = "f64"})) end)
  end)

  it("gives every leaf a gradient in memory of its own", function()
    local a, b, seed = leaf {1, 2}, leaf {3, 4}, core.tensor({1, 10}, {dtype = "f64"})
    local y = a + b
    y:backward(seed)
    a.grad:mul_(2)
    allclose.assert(a.grad, {2, 20})
    allclose.assert(b.grad, {1, 10})
    allclose.assert(seed, {1, 10})
  end)

  it("takes one pass, or more with retain_graph", function()
    local x = leaf {1, 2}
    local y = (x * x):sum()
    y:backward {retain_graph = true}
    y:backward()
    allclose.assert(x.grad, {4, 8})
    fails_with({"backward"}, y.backward, y)
    allclose.assert(x.grad, {4, 8})
  end)

  it("refuses a second pass through a shared part that is consumed", function()
    local x = leaf {1, 2}
    local shared = x:exp()
    local a, b = shared:sum(), (shared * shared):sum()
    a:backward()
    fails_with({"backward"}, b.backward, b)
  end)

  it("refuses a result without a graph", function()
    fails_with({"backward"}, function() core.tensor {1}:backward() end)
    fails_with({"backward"}, function() leaf({1}):detach():backward() end)
  end)

  it("works for every element of a chain of views", function()
    local x = leaf {{1, 2, 3}, {4, 5, 6}}
    x:transpose(1, 2):slice {dim = 1, start = 2, stop = 3}:reshape {4}:square():sum():backward()
    allclose.assert(x.grad, {{0, 4, 6}, {0, 10, 12}})
  end)

  it("works for indexing", function()
    local x = leaf {{1, 2, 3}, {4, 5, 6}}
    local y = x[2] * x[1]
    y:sum():backward()
    allclose.assert(x.grad, {{4, 5, 6}, {1, 2, 3}})
    x:clear_grad()
    x["1:2, 2"]:sum():backward()
    allclose.assert(x.grad, {{0, 1, 0}, {0, 1, 0}})
  end)

  it("reaches a leaf through broadcasting and promotion", function()
    local row, column = leaf {1, 2, 3}, leaf {{1}, {2}}
    local y = row * column
    y:sum():backward()
    allclose.assert(row.grad, {3, 3, 3})
    allclose.assert(column.grad, {{6}, {6}})
    local narrow = core.tensor({1, 2}, {dtype = "f32", requires_grad = true})
    y = narrow * core.tensor({3, 4}, {dtype = "f64"})
    y:sum():backward()
    assert.are.equal("f32", narrow.grad.dtype)
    allclose.assert(narrow.grad, {3, 4})
  end)

  it("leaves nothing on the tape", function()
    collectgarbage()
    collectgarbage()
    local before = core.tape_length()
    local x = leaf {1, 2}
    local y = (x:exp() * x):sum()
    assert.is_true(core.tape_length() > before)
    y:backward()
    y:release()
    collectgarbage()
    collectgarbage()
    assert.are.equal(before, core.tape_length())
  end)
end)

describe("the flag requires_grad", function()
  it("spreads to results and can be switched on leaves", function()
    local x = core.tensor {1, 2}
    assert.is_false((x * 2).requires_grad)
    assert.are.equal(x, x:requires_grad_())
    assert.is_true((x * 2).requires_grad)
    x:requires_grad_(false)
    assert.is_false((x * 2).requires_grad)
  end)

  it("cannot be switched off on a result", function()
    local y = leaf {1} * 2
    fails_with({"requires_grad_"}, y.requires_grad_, y, false)
  end)

  it("is for real tensors", function()
    local labels = core.tensor({1, 2}, {dtype = "i64"})
    fails_with({"requires_grad_"}, labels.requires_grad_, labels)
  end)

  it("does not spread from comparisons and argmax", function()
    local x = leaf {1, 2}
    assert.is_false(x:gt(1).requires_grad)
    assert.is_false(x:argmax(1).requires_grad)
  end)
end)

describe("no_grad", function()
  it("records nothing and gives back the results", function()
    local x = leaf {1, 2}
    local before = core.tape_length()
    local a, b = core.no_grad(function(k)
      assert.is_false(core.recording())
      return x * k, "text"
    end, 3)
    assert.is_true(core.recording())
    assert.are.equal("text", b)
    assert.is_false(a.requires_grad)
    allclose.assert(a, {3, 6})
    assert.are.equal(before, core.tape_length())
  end)

  it("ends with an error inside it", function()
    local ok = pcall(core.no_grad, function() error "x" end)
    assert.is_false(ok)
    assert.is_true(core.recording())
  end)

  it("nests", function()
    core.no_grad(function()
      core.no_grad(function() end)
      assert.is_false(core.recording())
    end)
  end)
end)

describe("detach", function()
  it("shares values and cuts history", function()
    local x = leaf {1, 2}
    local y = x * 3
    local d = y:detach()
    assert.is_true(d:shares(y))
    assert.is_false(d.requires_grad)
    assert.is_true(d.is_leaf)
    local z = y * d
    z:sum():backward()
    allclose.assert(x.grad, {9, 18})
  end)
end)

describe("grad", function()
  it("gives gradients of results and leaves and leaves .grad alone", function()
    local x = leaf {1, 2}
    local h = x * x
    local y = h:sum()
    local list = core.grad(y, {x, h}, {})
    allclose.assert(list[1], {2, 4})
    allclose.assert(list[2], {1, 1})
    assert.is_nil(x.grad)
  end)

  it("gives one tensor for one tensor", function()
    local x = leaf {3}
    allclose.assert(core.grad((x * x):sum(), x), {6})
  end)

  it("gives false where nothing depends", function()
    local x, other = leaf {3}, leaf {4}
    local list = core.grad((x * x):sum(), {x, other}, {})
    assert.is_false(list[2])
  end)

  it("gives gradients in memory of their own", function()
    local x, y, seed = leaf {1, 2}, leaf {3, 4}, core.tensor({1, 10}, {dtype = "f64"})
    local list = core.grad(x + y, {x, y}, {seed = seed})
    list[1]:mul_(2)
    allclose.assert(list[2], {1, 10})
    allclose.assert(seed, {1, 10})
    allclose.assert(core.grad(x:sum(), x):mul_(3), {3, 3})
  end)

  it("asked for nothing gives nothing and leaves .grad alone", function()
    local x = leaf {3}
    assert.are.same({}, core.grad((x * x):sum(), {}))
    assert.is_nil(x.grad)
  end)

  it("takes a seed", function()
    local x = leaf {1, 2}
    allclose.assert(core.grad(x * x, x, {seed = core.tensor({10, 1}, {dtype = "f64"})}), {20, 4})
  end)

  it("can be taken of itself with create_graph", function()
    local x = leaf {2, 3}
    local first = core.grad((x ^ 4):sum(), x, {create_graph = true})
    assert.is_true(first.requires_grad)
    local second = core.grad(first:sum(), x, {create_graph = true})
    allclose.assert(second, {48, 108})
    local third = core.grad(second:sum(), x)
    allclose.assert(third, {48, 72})
    assert.is_false(third.requires_grad)
  end)

  it("makes a gradient penalty", function() -- WGAN-GP: d/dw of (|df/dx| - 1)^2
    local x, w = leaf {1, 2}, leaf {3, 4}
    local gx = core.grad((x * w):tanh():sum(), x, {create_graph = true})
    local penalty = ((gx * gx):sum():sqrt() - 1):square()
    penalty:backward()
    assert.are.same({2}, w.grad.shape)
    local function value(w1, w2)
      local g1, g2 = w1 * (1 - (1 - 2 / (math.exp(2 * w1) + 1)) ^ 2), w2 * (1 - (1 - 2 / (math.exp(4 * w2) + 1)) ^ 2)
      return (math.sqrt(g1 * g1 + g2 * g2) - 1) ^ 2
    end
    local eps = 1e-6
    allclose.assert(w.grad, {(value(3 + eps, 4) - value(3 - eps, 4)) / (2 * eps),
      (value(3, 4 + eps) - value(3, 4 - eps)) / (2 * eps)}, {rtol = 1e-5, atol = 1e-8})
  end)
end)

describe("a change in place", function()
  it("of a saved value is an error that names the operator", function()
    local x = leaf {1, 2}
    local h = x * 2
    local y = h:exp()
    local z = (y * y):sum()
    core.no_grad(function() y:add_(1) end)
    fails_with({"mul"}, z.backward, z)
    assert.is_nil(x.grad)
  end)

  it("of a value that nobody saved is fine", function()
    local x = leaf {1, 2}
    local h = x + 1 -- add needs no values
    local y = (h - 3):sum()
    core.no_grad(function() h:fill_(0) end)
    y:backward()
    allclose.assert(x.grad, {1, 1})
  end)

  it("through a view counts for the base", function()
    local x = leaf {1, 2}
    local h = x * 1
    local y = h:square():sum()
    core.no_grad(function() h:detach()[1] = 7 end)
    fails_with({"square"}, y.backward, y)
  end)

  it("of a leaf that requires a gradient needs no_grad", function()
    local x = leaf {1, 2}
    fails_with({"add_"}, function() x:add_(1) end)
    core.no_grad(function() x:add_(1) end)
    allclose.assert(x, {2, 3})
  end)

  it("does not lose the gradient of what is written", function()
    local x, w = core.tensor {1, 2}, core.tensor({5, 6}, {requires_grad = true})
    fails_with({"copy_", "requires a gradient"}, function() x:copy_(w) end)
    fails_with({"t[...] = v", "requires a gradient"}, function() x["1:1"] = w["2:2"] end)
    allclose.assert(x, {1, 2})
    x:copy_(w:detach())
    allclose.assert(x, {5, 6})
  end)

  it("is refused where elements share memory", function()
    local x = core.tensor {1}:expand {3}
    fails_with({"add_", "share memory"}, function() x:add_(core.tensor {1, 2, 3}) end)
    fails_with({"copy_", "share memory"}, function() x:copy_(core.tensor {1, 2, 3}) end)
    allclose.assert(x, {1, 1, 1})
    allclose.assert(x:clone():add_(core.tensor {1, 2, 3}), {2, 3, 4})
  end)

  it("by an optimizer step is allowed, and seen by an older graph", function()
    local x = leaf {1, 2}
    local old = (x * x):sum()
    local y = (x * 3):sum()
    y:backward()
    ops.sgd_step(x, x.grad, {lr = 0.5})
    allclose.assert(x, {-0.5, 0.5})
    fails_with({"mul"}, old.backward, old)
  end)
end)

describe("a pass", function()
  teardown(folder.remove)

  it("lets go of results on its way that the script has dropped, in a scope too", function()
    -- in a process of its own: garbage is not looked for when Lua's heap is large beside what there is to gain
    local text, code = folder.lua(folder.write(folder.new() .. "/pass.lua", [[
      local core = require "marea.core"
      local x = core.ops.full({1024, 1024}, 0.5):requires_grad_(true)
      core.scope(function()
        local h = x
        for _ = 1, 10 do h = (h * 0.5):sigmoid() end
        local kept, y = h, h:sum()
        h = nil
        core.memory_reset_peak()
        local before = core.memory().live
        y:backward()
        local m, size = core.memory(), 4 << 20
        assert(before > 10 * size)
        assert(m.live < before - 7 * size, m.live)
        assert(m.peak < before + 3 * size, m.peak)
        assert(kept[{1, 1}]:item() > 0)
      end)]]))
    assert.are.equal(0, code, text)
  end)
end)

describe("a long chain", function()
  it("of 1,000,000 operators goes backward and is freed without recursion", function()
    local before = core.memory().live
    local x = leaf {1}
    core.scope(function()
      local y = x
      for _ = 1, 1000 do
        y = core.scope(function()
          local h = y
          for _ = 1, 1000 do h = h + 1 end
          return h
        end)
      end
      assert.is_true(core.tape_length() >= 1000000)
      y:sum():backward()
      allclose.assert(x.grad, {1})
      local unused = x
      for _ = 1, 100000 do unused = unused * 1 end -- freed without a backward pass
    end)
    x:release()
    x = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.are.equal(0, core.tape_length())
    assert.is_true(core.memory().live <= before)
  end)

  it("takes no more than 256 bytes an operator, and gives them back", function()
    local x, y = leaf {1}, leaf {2}
    collectgarbage()
    core.memory_reset_peak()
    local before, n = core.memory(), 20000
    core.scope(function()
      local h = x
      for _ = 1, n / 100 do
        h = core.scope(function()
          local z = h
          for _ = 1, 50 do z = (z + y):neg() end
          return z
        end)
      end
      assert.is_true(core.memory().peak - before.live < 256 * n, core.memory().peak - before.live)
      h:sum():backward()
    end)
    x:clear_grad()
    y:clear_grad()
    assert.are.equal(before.live, core.memory().live)
    assert.are.equal(before.blocks, core.memory().blocks)
  end)

  it("of a wide concatenation of 10,000 inputs works", function()
    local x = leaf {2}
    local list = {}
    for i = 1, 10000 do list[i] = x end
    ops.concat(list):sum():backward()
    allclose.assert(x.grad, {10000})
  end)

  it("of many inputs has gradients of gradients", function()
    local x, list = leaf {2}, {}
    for i = 1, 20 do list[i] = i % 2 == 0 and x * x or x end
    local y = ops.concat(list)
    local dx = core.grad((y * y):sum(), x, {create_graph = true}) -- 10 (x^4 + x^2)
    allclose.assert(dx, {40 * 8 + 20 * 2})
    allclose.assert(core.grad(dx:sum(), x), {120 * 4 + 20})
  end)

  it("of 8 dims works", function()
    local x = ops.full {shape = {1, 2, 1, 2, 1, 2, 1, 2}, value = 2, dtype = "f64"}:requires_grad_(true)
    x:permute {8, 7, 6, 5, 4, 3, 2, 1}:square():sum():backward()
    allclose.assert(x.grad:sum(), 64)
    fails_with({"unsqueeze"}, x.unsqueeze, x, 1)
  end)
end)

describe("gradients of parts of a tensor", function()
  --- A sum over parts of x (4, 3) that overlap, and its gradient by hand: each part counts with its own weight.
  local function parts(x)
    return (x[1]:sum() * 2 + x[-1]:sum() * 3 + x:narrow(1, 2, 2):sum() * 5 + x['2:3, 1']:sum() * 0
      + x:slice{dim = 2, start = 1, stop = 3, step = 2}:square():sum() / 2 + x[1]:sum() * 7)
  end
  local values = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {10, 11, 12}}
  local expected = {{1 + 9, 9, 3 + 9}, {4 + 5, 5, 6 + 5}, {7 + 5, 5, 9 + 5}, {10 + 3, 3, 12 + 3}}

  it("add up, of a leaf and of a result", function()
    local x = leaf(values)
    parts(x):backward()
    allclose.assert(x.grad, expected)
    parts(x):backward() -- to what is there
    allclose.assert(x.grad, ops.mul(core.tensor(expected, {dtype = "f64"}), 2))
    local w = leaf(values)
    local y = w * 1
    (parts(y) + y:sum()):backward()
    allclose.assert(w.grad, ops.add(core.tensor(expected, {dtype = "f64"}), 1))
  end)

  it("are caught by marea.grad, and have gradients of their own", function()
    local x = leaf(values)
    local y = x * 1
    local dx, dy = table.unpack(core.grad(parts(y), {x, y}))
    allclose.assert(dx, expected)
    allclose.assert(dy, expected)
    local first = core.grad(parts(x), x, {create_graph = true})
    allclose.assert(first, expected)
    allclose.assert(core.grad(first:sum(), x), {{1, 0, 1}, {1, 0, 1}, {1, 0, 1}, {1, 0, 1}})
  end)

  it("change neither a seed nor a gradient that somebody else has", function()
    local x = leaf(values)
    local y = x * 1
    local seed = core.tensor(values, {dtype = "f64"})
    local total = y + ops.concat({y:narrow(1, 1, 3), y:narrow(1, 4, 1)}, {dim = 1})
    total:backward{seed = seed}
    allclose.assert(x.grad, ops.mul(seed, 2))
    allclose.assert(seed, values)
  end)

  it("cost what they touch: one tensor of x's size for all x[t]", function()
    local steps = 50
    local x = ops.normal{shape = {steps, 8}}:requires_grad_()
    local y = x * 1
    local sum = y[1]:tanh():sum()
    for t = 2, steps do sum = sum + y[t]:tanh():sum() end
    local report = require "marea".profile(function() sum:backward() end)
    local whole = 0
    for _, row in ipairs(report.rows) do
      if row.op == "slice_grad" then whole = whole + row.calls end
    end
    assert.are.equal(1, whole)
    allclose.assert(x.grad, ops.sub(1, x:detach():tanh():square()))
  end)
end)
