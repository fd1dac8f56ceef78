-- SPDX-License-Identifier: MIT
-- Tables of words: the operator embedding, its gradient and nn.Embedding, against loops of Lua.
local marea = require "marea"
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local nn = marea.nn

local function i64(list) return marea.tensor(list, {dtype = "i64"}) end
local function leaf(t) return t:requires_grad_() end

--- What a loop over the positions adds to each row; padding: a row that is left out.
local function added_up(rows, size, index, dy, padding)
  local sums = {}
  for r = 1, rows do
    sums[r] = {}
    for h = 1, size do sums[r][h] = 0 end
  end
  for i, r in ipairs(index) do
    for h = 1, r ~= padding and size or 0 do sums[r][h] = sums[r][h] + dy[i][h] end
  end
  return sums
end

describe("embedding", function()
  it("picks rows for an index of any shape and either integer type", function()
    local w = marea.tensor{{1, 2}, {3, 4}, {5, 6}}
    assert.are.same({{{5, 6}, {1, 2}}, {{5, 6}, {5, 6}}}, marea.embedding(w, i64{{3, 1}, {3, 3}}):totable())
    assert.are.same({{3, 4}}, w:embedding(marea.tensor({2}, {dtype = "u8"})):totable())
    assert.are.same({3, 4}, w:embedding(i64(2)):totable())
    assert.are.same({0, 2}, w:embedding(i64{}).shape)
    assert.are.same({3, 4}, w:embedding(i64(2), {padding = 2}):totable())
  end)

  it("adds the gradients of a row up in the order of the index, and gives the padding none", function()
    marea.seed(3)
    for _, padding in ipairs{0, 2} do
      local w = leaf(marea.normal{7, 5, dtype = "f64"})
      local index, dy = marea.randint({6, 4}, 1, 7), marea.normal{6, 4, 5, dtype = "f64"}
      local options = {padding = padding > 0 and padding or nil}
      marea.embedding(w, index, options):mul(dy):sum():backward()
      local expected = added_up(7, 5, index:reshape{24}:totable(), dy:reshape{24, 5}:totable(), padding)
      assert.are.same(expected, w.grad:totable())
    end
  end)

  it("has gradients of gradients, without those at the padding", function()
    local dy = leaf(marea.ones{3, 2, dtype = "f64"})
    local index = marea.tensor({1, 2, 1}, {dtype = "u8"})
    local dw = marea.embedding_grad(dy, index, {rows = 300, padding = 2})
    dw:square():sum():backward()
    assert.are.same({{4, 4}, {0, 0}, {4, 4}}, dy.grad:totable())
    dy:clear_grad()
    marea.embedding_grad(dy, index, {rows = 300, padding = 258}):square():sum():backward() -- 258 is 2 as a byte
    assert.are.same({{4, 4}, {2, 2}, {4, 4}}, dy.grad:totable())
  end)

  it("gives the bits of index_add, for any number of threads", function()
    local threads <const> = core.threads()
    local _ <close> = marea.finally(function() core.set_threads(threads) end)
    marea.seed(5)
    local dy = marea.normal{3000, 96}
    local index = (marea.uniform{3000}:square() * 50):floor():cast "i64" + 1 -- some rows many times
    local expected = marea.index_add(marea.zeros{50, 96}, index, dy)
    for n = 1, 4 do
      core.set_threads(n)
      local dw = marea.embedding_grad(dy, index, {rows = 50})
      assert.are.equal(1, dw:eq(expected):all():item(), n .. " threads")
    end
  end)

  it("costs what it touches", function()
    local w = leaf(marea.zeros{50000, 8})
    local report = marea.profile(function() w:embedding(i64{1, 7, 7}):sum():backward() end)
    local flop = {}
    for _, row in ipairs(report.rows) do flop[row.op] = row.flop end
    assert.are.equal(0, flop.embedding)
    assert.are.equal(24, flop.embedding_grad)
  end)

  it("names the place and the value of a number that is no row", function()
    local w = marea.zeros{10, 4}
    local text = message_of(function() w:embedding(i64{{1, 2, 3}, {4, 11, 12}}) end)
    assert.matches("embedding: argument 'index': element %(2, 2%) of i64 %(2, 3%) is 11, expected 1 to 10", text)
    assert.matches("element %(1%) of i64 %(1%) is 0", message_of(function() w:embedding(i64{0}) end))
    assert.matches("element %(1%) of i64 %(1%) is 3, expected 1 to 2",
      message_of(function() marea.embedding_grad(marea.ones{1, 4}, i64{3}, {rows = 2}) end))
    assert.matches("argument 'padding': expected a row from 1 to 10, got 11",
      message_of(function() w:embedding(i64{1}, {padding = 11}) end))
    assert.matches("argument 'dy': expected the shape of the index",
      message_of(function() marea.embedding_grad(marea.ones{2, 4}, i64{1}, {rows = 2}) end))
    assert.matches("embedding", message_of(function() w:embedding(marea.ones{2}) end))
  end)
end)

describe("nn.Embedding", function()
  it("begins with Keras' numbers, and the padding with 0", function()
    marea.seed(1)
    local layer = nn.Embedding{1000, 16, padding = 3}
    assert.are.same({"weight"}, {(layer:named_parameters()())})
    assert.are.same({1000, 16}, layer.weight.shape)
    local least, most = layer.weight:min():item(), layer.weight:max():item()
    assert.is_true(least >= -0.05 and least < -0.049 and most <= 0.05 and most > 0.049)
    allclose.assert(layer.weight[3], marea.zeros{16})
    assert.is_true(layer.weight.requires_grad)
    local wide = nn.Embedding{1000, 16, init = nn.init.normal(0, 1), dtype = "f64"}
    assert.are.equal("f64", wide.weight.dtype)
    assert.is_true(math.abs(wide.weight:std():item() - 1) < 0.05)
  end)

  it("leaves the padding as it is while it is trained", function()
    local layer = nn.Embedding{4, 2, padding = 1}
    local sgd = marea.optim.SGD{layer, lr = 1}
    local before = layer.weight:totable()
    sgd:step(function() return layer(i64{{1, 2}, {2, 1}}):sum() end)
    local after = layer.weight:totable()
    assert.are.same({0, 0}, after[1])
    assert.are.same(before[4], after[4])
    allclose.assert(marea.tensor(after[2]), {before[2][1] - 2, before[2][2] - 2})
  end)

  it("refuses sizes and paddings that cannot be", function()
    assert.matches("argument 'vocabulary': expected an integer of at least 1, got 0",
      message_of(function() nn.Embedding{0, 2} end))
    assert.matches("argument 'size'", message_of(function() nn.Embedding{2} end))
    assert.matches("argument 'padding': expected a row from 1 to 4, got 5",
      message_of(function() nn.Embedding{4, 2, padding = 5} end))
  end)
end)
