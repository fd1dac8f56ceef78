-- SPDX-License-Identifier: MIT
--- Orders of rows in which those of one batch have nearly the same length, so that little padding is computed.
local core = require "marea.core"
local check = require "marea.internal.check"
local ops = core.ops

local by_length = {}

local POOL = 100 -- batches whose rows are sorted together

--- The lengths of a dataset's rows: its field of this name.
---@param dataset Dataset
---@param name string
---@return userdata lengths i64 or u8 (N)
function by_length.lengths(dataset, name)
  local t = dataset:field(check.string("batches", "by_length", name))
  if t.rank ~= 1 or (t.dtype ~= "i64" and t.dtype ~= "u8") then
    check.fail("batches", "by_length", "the name of a field of lengths, i64 (N)", t)
  end
  return t
end

--- The rows of `order`, sorted by length, shortest first; those of one length stay in their order.
function by_length.sorted(order, lengths)
  return order:index_select(lengths:index_select(order):argsort())
end

--- Pools of batches are sorted by length, then the batches are put in an order drawn here; the last one, which may be
--- smaller, stays the last.
---@param order userdata i64 (n), shuffled
---@param lengths userdata of all rows
---@param size integer rows of a batch
function by_length.shuffled(order, lengths, size)
  local pools, n = {}, #order
  for first = 1, n, POOL * size do
    pools[#pools + 1] = by_length.sorted(order:narrow(1, first, math.min(POOL * size, n - first + 1)), lengths)
  end
  if n == 0 then return order end
  local whole = n // size
  local sorted = ops.concat(pools)
  if whole == 0 then return sorted end
  local batches = sorted:narrow(1, 1, whole * size):reshape(whole, size):index_select(ops.permutation(whole))
  return ops.concat{batches:reshape(whole * size), sorted:narrow(1, whole * size + 1, n - whole * size)}
end

return by_length
