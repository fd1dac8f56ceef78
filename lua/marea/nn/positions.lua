-- SPDX-License-Identifier: MIT
--- Positions, added to sequences (N, T, C). With {start = n} the first step of x is step n + 1, as it is behind a cache
--- of n steps. Rotary positions are the operator rotary, and the option of that name of layers with attention.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local init = require "marea.nn.initializers"
local ops = core.ops

--- Checks x (N, T, C) with C = size, if that is given; the start.
local function read(what, x, size, options)
  local start = check.options(what, options, {"start"}, 0).start
  check.tensor(what, "x", x)
  if x.rank ~= 3 or (size and x:size(3) ~= size) then
    check.fail(what, "x", ("sequences (N, T, %s)"):format(size or "C"), x)
  end
  return check.integer(what, "start", start or 0, 0)
end

---@class SinusoidalPositions  x + sines and cosines of the position in wavelengths from 2 pi to 2 pi base (Vaswani et
--- al. 2017): columns 2i + 1 and 2i + 2 get sin and cos of p base^(-2i/C), p = 0 at the first step. base = 10000, name
---@example nn.SinusoidalPositions{}(marea.zeros{1, 2, 4})
local SinusoidalPositions = module.class("SinusoidalPositions")

function SinusoidalPositions:init(options)
  options = check.options("SinusoidalPositions", options, {"base", "name"}, 0)
  self.name = options.name
  self.base = check.number("SinusoidalPositions", "base", options.base or 10000, 1)
end

function SinusoidalPositions:forward(x, options)
  local start = read("SinusoidalPositions", x, nil, options)
  local steps, size = x:size(2), x:size(3)
  local pairs_of = (size + 1) // 2
  local positions = ops.arange(start, start + steps - 1, 1, "f64")
  local exponents = ops.arange(0, pairs_of - 1, 1, "f64") * (-2 * math.log(self.base) / size)
  local angles = ops.unsqueeze(positions, 2) * exponents:exp()
  local table_of = ops.reshape(ops.stack({angles:sin(), angles:cos()}, 3), {steps, 2 * pairs_of})
  return x + ops.narrow(table_of, 2, 1, size):to(x.dtype)
end

function SinusoidalPositions:describe() return core.format("base %g", self.base) end

---@class LearnedPositions  x + rows of weight (length, size), a row for each position. {length, size}: the most steps,
--- and the size of each; init = "uniform", dtype = "f32", name
---@example nn.LearnedPositions{5, 4}(marea.zeros{1, 2, 4})
local LearnedPositions = module.class("LearnedPositions")

function LearnedPositions:init(options)
  local what = "LearnedPositions"
  options = check.options(what, options, {"init", "dtype", "name"}, 2)
  self.name = options.name
  self.length = check.integer(what, "length", options[1], 1)
  self.size = check.integer(what, "size", options[2], 1)
  local make = init.find(what, "init", options.init or "uniform")
  self.weight = core.no_grad(function()
    return module.parameter(make(core.shape{self.length, self.size}, self.length, self.size, options.dtype or "f32"))
  end)
end

function LearnedPositions:forward(x, options)
  local start, steps = read("LearnedPositions", x, self.size, options), x:size(2)
  if steps > self.length - start then
    check.raise("LearnedPositions: %d steps from %d on, but there are positions for %d", steps, start, self.length)
  end
  return x + ops.narrow(self.weight, 1, start + 1, steps)
end

function LearnedPositions:describe() return ("%d -> %d"):format(self.length, self.size) end

return {SinusoidalPositions = SinusoidalPositions, LearnedPositions = LearnedPositions}
