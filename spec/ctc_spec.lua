-- SPDX-License-Identifier: MIT
-- ctc_loss against the sum over all alignments, one by one.
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local gradcheck = require "marea.gradcheck"
local sample = require "spec.support.sample"
local ops = core.ops

local function f64(values) return core.tensor(values, {dtype = "f64"}) end
local function i64(values) return core.tensor(values, {dtype = "i64"}) end
local function message(f, ...) return select(2, pcall(f, ...)) end

--- The labels of an alignment: equal neighbours are one, blanks (1) are none.
local function collapse(path)
  local labels = {}
  for t, v in ipairs(path) do
    if v ~= 1 and v ~= path[t - 1] then labels[#labels + 1] = v end
  end
  return table.concat(labels, " ")
end

--- The loss of one row: y[t][v], its labels.
local function brute(y, steps, classes, labels)
  local wanted, total, path = table.concat(labels, " "), 0, {}
  local function walk(t, p)
    if t > steps then
      if collapse(path) == wanted then total = total + math.exp(p) end
      return
    end
    for v = 1, classes do
      path[t] = v
      walk(t + 1, p + y[t][v])
    end
    path[t] = nil
  end
  walk(1, 0)
  return -math.log(total)
end

local function draw(g)
  local n, t, v, s = g.int(1, 4), g.int(0, 5), g.int(2, 4), g.int(0, 3)
  local function ints(shape, lo, hi) return g.tensor(shape, {dtype = "i64", lo = lo, hi = hi}) end
  return g.tensor {n, t, v}:log_softmax(-1), ints({n, s}, 2, v), ints({n}, 0, t), ints({n}, 0, s)
end

describe("ctc_loss", function()
  it("is the sum over all alignments", function()
    for seed = 1, 60 do
      local y, targets, input, length = draw(sample.generator(seed))
      local n, losses, mean = y:size(1), {}, 0
      for i = 1, n do
        local labels, rows = {}, y[i]:totable()
        for k = 1, length[i] do labels[k] = targets[{i, k}] end
        losses[i] = brute(rows, input[i], y:size(3), labels)
        mean = mean + losses[i] / math.max(length[i], 1) / n
      end
      local function loss(how) return ops.ctc_loss(y, targets, input, length, how) end
      allclose.assert(loss {reduction = "none"}, f64(losses), {atol = 1e-12})
      for i = 1, n do losses[i] = losses[i] == math.huge and 0 or losses[i] end
      allclose.assert(loss {reduction = "none", zero_infinity = true}, f64(losses), {atol = 1e-12})
      if mean < math.huge then assert.is_true(math.abs(loss {}:item() - mean) < 1e-12) end
    end
  end)

  it("has the gradient of central differences", function()
    for seed = 1, 15 do
      local y, targets, input, length = draw(sample.generator(seed))
      for _, reduction in ipairs {"mean", "sum", "none"} do
        local report = gradcheck(function(x)
          return ops.ctc_loss(x, targets, input, length, {reduction = reduction, zero_infinity = true})
        end, y)
        assert.is_true(report.ok, tostring(report))
      end
    end
  end)

  it("has closed values", function()
    local y = ops.full({1, 2, 2}, math.log(0.5), "f64") -- labels "a": aa, a-, -a
    local function loss(labels, steps) return ops.ctc_loss(y, i64 {labels}, i64 {steps}, i64 {#labels}, {}):item() end
    assert.is_true(math.abs(loss({2}, 2) + math.log(0.75)) < 1e-15)
    assert.is_true(math.abs(loss({2}, 1) + math.log(0.5)) < 1e-15)
    assert.are.equal(math.huge, loss({2, 2}, 2)) -- a blank must lie between equal labels
    assert.are.equal(math.huge, loss({2}, 0))
  end)

  it("of a row without an alignment has a gradient of zeros", function()
    local y = core.tensor({{{-1, -2}}, {{-1, -2}}}, {dtype = "f64", requires_grad = true})
    local loss = ops.ctc_loss(y, i64 {{2, 2}, {2, 2}}, i64 {1, 1}, i64 {2, 1}, {reduction = "sum"})
    assert.are.equal(math.huge, loss:item())
    allclose.assert(core.grad(loss, {y}, {})[1], f64 {{{0, 0}}, {{0, -1}}}, {exact = true})
  end)

  it("computes no gradient in no_grad", function()
    local y, labels = ops.normal({16, 60, 20}):log_softmax(3), ops.full({16, 20}, 3, "i64")
    local steps, counts = ops.full({16}, 60, "i64"), ops.full({16}, 20, "i64")
    local function least()
      local best, loss = math.huge, nil
      for _ = 1, 5 do
        local start = os.clock()
        loss = ops.ctc_loss(y, labels, steps, counts)
        best = math.min(best, os.clock() - start)
      end
      return best, loss:item()
    end
    local with, loss = least()
    local without, same = core.no_grad(least)
    assert.are.equal(loss, same)
    assert.is_true(without < 0.8 * with) -- it is 0.4 of it
  end)

  it("has a gradient for a view, too", function()
    local y = ops.normal({5, 3, 4}):log_softmax(3):requires_grad_()
    local function loss(x) return ops.ctc_loss(x, i64{{2}, {3}, {4}}, i64{5, 4, 3}, i64{1, 1, 1}) end
    loss(y:transpose(1, 2)):backward()
    local whole = y:detach():transpose(1, 2):contiguous():requires_grad_()
    loss(whole):backward()
    allclose.assert(y.grad:transpose(1, 2), whole.grad, {exact = true})
    assert.is_true(whole.grad:abs():max():item() > 0)
  end)

  it("names the row and value that do not fit", function()
    local y = ops.full({2, 3, 4}, -1, "f64")
    local function fails(targets, input, length, more)
      return message(ops.ctc_loss, y, i64(targets), i64(input), i64(length), more or {})
    end
    assert.matches("label 5 at {2, 1} is out of range, expected 1%.%.4", fails({{2, 3}, {5, 2}}, {3, 3}, {2, 2}))
    assert.matches("label 1 at {1, 2} is the blank", fails({{2, 1}, {3, 2}}, {3, 3}, {2, 2}))
    assert.matches("'input_lengths': row 2 has length 4, expected 0 to 3", fails({{2, 3}, {3, 2}}, {3, 4}, {2, 2}))
    assert.matches("'target_lengths': row 1 has length 3, expected 0 to 2", fails({{2, 3}, {3, 2}}, {3, 3}, {3, 2}))
    assert.matches("'blank': 5 is out of range", fails({{2, 3}, {3, 2}}, {3, 3}, {2, 2}, {blank = 5}))
    assert.matches("'targets'", fails({{2, 3}}, {3, 3}, {2, 2}))
  end)
end)
