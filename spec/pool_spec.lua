-- SPDX-License-Identifier: MIT
-- Pooling of sequences and images: the numbers that PyTorch gives.
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local ops = core.ops

local function sequence(...) return core.tensor({...}, {dtype = "f64"}):reshape(1, select("#", ...), 1) end
local function equal(y, expected)
  allclose.assert(y:flatten(), core.tensor(expected, {dtype = "f64"}), {exact = true})
end
local function message(f, ...) return select(2, pcall(f, ...)) end

describe("pooling with ceil_mode", function()
  it("has a last window that reaches over the end", function()
    local x = sequence(1, 2, 3, 4, 5)
    equal(x:max_pool1d {kernel = 2}, {2, 4})
    equal(x:max_pool1d {kernel = 2, ceil_mode = true}, {2, 4, 5})
    equal(x:avg_pool1d {kernel = 2, ceil_mode = true}, {1.5, 3.5, 5})
    equal(sequence(1, 2):max_pool1d {kernel = 3, stride = 2, ceil_mode = true}, {2})
  end)

  it("has no window that starts behind the input", function()
    equal(sequence(1, 2, 3):max_pool1d {kernel = 2, stride = 4, padding = 1, ceil_mode = true}, {1})
    equal(sequence(1, 2, 3):max_pool1d {kernel = 2, stride = 3, padding = 1, ceil_mode = true}, {1, 3})
  end)

  it("divides by what a window covers of input and padding", function()
    local how = {kernel = 3, stride = 2, padding = 1, ceil_mode = true, count_padding = true}
    equal(sequence(1, 2, 3, 4):avg_pool1d(how), {1, 3, 2})
    how.count_padding = false
    equal(sequence(1, 2, 3, 4):avg_pool1d(how), {1.5, 3, 4})
  end)

  it("does so in both dimensions", function()
    local x = ops.arange(1, 9, 1, "f64"):reshape(1, 3, 3, 1)
    equal(x:max_pool2d {kernel = 2, ceil_mode = true}, {5, 6, 8, 9})
    equal(x:avg_pool2d {kernel = 2, ceil_mode = true, count_padding = true}, {3, 4.5, 7.5, 9})
  end)
end)

describe("adaptive pooling", function()
  it("has windows that overlap where sizes do not divide", function()
    local x = sequence(1, 2, 3, 4, 5)
    equal(x:avg_pool1d {kernel = 3, adaptive = true}, {1.5, 3, 4.5})
    equal(x:max_pool1d {kernel = 3, adaptive = true}, {2, 4, 5})
    equal(sequence(1, 2):avg_pool1d {kernel = 3, adaptive = true}, {1, 1.5, 2})
    equal(ops.arange(1, 9, 1, "f64"):reshape(1, 3, 3, 1):avg_pool2d {kernel = {1, 2}, adaptive = true}, {4.5, 5.5})
  end)

  it("refuses a stride, padding or ceil_mode of its own", function()
    for _, more in ipairs {{stride = 1}, {padding = 1}, {ceil_mode = true}, {padding = "same"}} do
      more.kernel, more.adaptive = 2, true
      assert.matches("max_pool1d: argument 'adaptive'", message(ops.max_pool1d, sequence(1, 2, 3), more))
    end
  end)
end)

it("messages of pooling speak of sequences", function()
  assert.matches("max_pool1d: sequences of 0 are empty", message(ops.max_pool1d, ops.full({1, 0, 1}, 0), {kernel = 2}))
  assert.matches("avg_pool1d: kernel 4 is larger than the padded input 3",
    message(ops.avg_pool1d, sequence(1, 2, 3), {kernel = 4}))
  assert.matches("%(N, T, C%)", message(ops.avg_pool1d, ops.full({1, 1, 1, 1}, 0), {kernel = 1}))
end)
