-- SPDX-License-Identifier: MIT
-- Products and convolutions of bf16: operands in bf16, sums in f32. Each instruction set against f64, and the same bits
-- for any number of threads. The kernels alone are tested by spec/c/bf16_cases.h, autocast by autocast_spec.
local marea = require "marea"

describe("products and convolutions of bf16 are f64's but for 1e-6 and one rounding:", function()
  for _, isa in ipairs(marea.info().isas) do
    it(isa, function()
      local command = ("MAREA_ISA=%s LUA_PATH='%s' LUA_CPATH='%s' lua5.4 spec/support/bf16_products.lua 2>&1"):format(
        isa, package.path, package.cpath)
      local pipe = assert(io.popen(command))
      local text = pipe:read "a"
      assert(pipe:close(), text)
      local cases, numbers = text:match("^" .. isa .. ": (%d+) cases, (%d+) numbers\n$")
      assert(cases, text)
      assert.is_true(math.tointeger(cases) > 160 and math.tointeger(numbers) > 100000, text)
    end)
  end
end)

describe("bf16 has the same bits for any number of threads:", function()
  local threads = marea.info().threads
  after_each(function() marea.set_threads(threads) end)

  local function bits_of(f, shapes)
    local first
    for n = 1, 4 do
      marea.set_threads(n)
      marea.seed(4)
      local leaves = {}
      for i, shape in ipairs(shapes) do leaves[i] = marea.normal(shape):to "bf16":detach():requires_grad_() end
      local y = f(table.unpack(leaves))
      local results = marea.grad(y:to "f32":sum(), leaves)
      results[#results + 1] = y:detach()
      first = first or results
      for i, t in ipairs(results) do assert.are.equal(t:numel(), t:eq(first[i]):to "f32":sum():item()) end
    end
  end

  it("matmul", function()
    for _, s in ipairs{{300, 200, 500}, {64, 6000, 32}, {5, 3, 2}} do
      bits_of(marea.matmul, {{s[1], s[2]}, {s[2], s[3]}})
    end
  end)

  it("conv2d and conv_transpose2d", function()
    for _, s in ipairs{{9, 20, 32, 32}, {3, 28, 1, 16}, {17, 7, 200, 300}} do
      for _, op in ipairs{marea.conv2d, marea.conv_transpose2d} do
        local weight = op == marea.conv2d and {3, 3, s[3], s[4]} or {3, 3, s[4], s[3]}
        bits_of(function(x, w, b) return op(x, w, b, {stride = 2, padding = "same", activation = "relu"}) end,
          {{s[1], s[2], s[2], s[3]}, weight, {s[4]}})
      end
    end
  end)
end)

it("what a bf16 operator does not need stays as small as its operands: no copies in f32", function()
  local x = marea.normal{64, 28, 28, 32}:to "bf16":detach()
  local w = marea.normal{3, 3, 32, 32}:to "bf16":detach()
  local plan = marea.plan(function() return marea.conv2d(x, w, {padding = "same"}) end)
  local result = 64 * 28 * 28 * 32 * 2
  assert.is_true(plan.peak - plan.alive < 1.4 * result, plan.peak - plan.alive)
end)
