-- SPDX-License-Identifier: MIT
--- Tensors as lists of views.
local core = require "marea.core"
local check = require "marea.internal.check"
local ops = core.ops

local parts = {}

--- The dimension counted from 1, and its size.
local function dimension(what, x, dim)
  check.tensor(what, "x", x)
  if x.rank == 0 then check.fail(what, "x", "a tensor with at least one dimension", x) end
  dim = check.integer(what, "dim", dim or 1)
  if dim == 0 or dim > x.rank or dim < -x.rank then
    check.raise("%s: argument 'dim': expected 1 to %d, or negative from the end, got %d", what, x.rank, dim)
  end
  dim = dim < 0 and dim + x.rank + 1 or dim
  return dim, x:size(dim)
end

--- See marea.unbind.
function parts.unbind(x, dim)
  local list, along, size = {}, dimension("unbind", x, dim)
  for i = 1, size do list[i] = ops.select(x, along, i) end
  return list
end

--- See marea.parts.
function parts.parts(x, size, dim)
  size = check.integer("parts", "size", size, 1)
  local list, along, total = {}, dimension("parts", x, dim)
  for first = 1, total, size do
    list[#list + 1] = ops.narrow(x, along, first, math.min(size, total - first + 1))
  end
  return list
end

return parts
