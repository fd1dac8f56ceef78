-- SPDX-License-Identifier: MIT
--- Texts of different lengths in one tensor.
local core = require "marea.core"
local check = require "marea.internal.check"
local ops = core.ops

local batch = {}

--- Copies a list of numbers and fills it up to `length`.
local function filled(list, i, n, length, padding)
  local row = {}
  for k = 1, n do row[k] = check.integer("pad", ("lists[%d][%d]"):format(i, k), list[k]) end
  for k = n + 1, length do row[k] = padding end
  return row
end

--- Lists of numbers as one tensor, the shorter ones filled up at their ends.
---@param lists integer[][]
---@param options? {padding: integer?, length: integer?} padding: the number to fill with (1, a vocabulary's first);
---length: of the rows, that of the longest list when left out
---@return userdata numbers i64 (N, T)
---@return userdata lengths i64 (N)
---@example marea.text.pad{{1, 2}, {3}}
function batch.pad(lists, options)
  options = check.options("pad", options, {"padding", "length"})
  local padding = check.integer("pad", "padding", options.padding or 1)
  local n, lengths, longest = check.items("pad", "lists", lists, "a list of lists of numbers", 1), {}, 0
  for i = 1, n do
    lengths[i] = check.items("pad", ("lists[%d]"):format(i), lists[i], "a list of numbers")
    longest = math.max(longest, lengths[i])
  end
  local length = options.length and check.integer("pad", "length", options.length, 0) or longest
  local rows = {}
  for i = 1, n do
    if lengths[i] > length then
      check.raise("pad: list %d has %d numbers, a row has %d", i, lengths[i], length)
    end
    rows[i] = filled(lists[i], i, lengths[i], length, padding)
  end
  local numbers = length == 0 and ops.full({n, 0}, 0, "i64") or core.tensor(rows, {dtype = "i64"})
  return numbers, core.tensor(lengths, {dtype = "i64"})
end

--- The columns that a batch needs: x up to the longest of its lengths, a view.
---@param x userdata (N, T, ...)
---@param lengths userdata i64 (N), each at most T
---@return userdata
---@example marea.text.trim(marea.text.pad({{5, 6}, {7}}, {length = 9}))
function batch.trim(x, lengths)
  check.tensor("trim", "x", x)
  check.tensor("trim", "lengths", lengths)
  if x.rank < 2 then check.fail("trim", "x", "a tensor (N, T, ...)", x) end
  if lengths.rank ~= 1 or #lengths ~= #x then
    check.fail("trim", "lengths", ("a tensor (%d)"):format(#x), lengths)
  end
  if #lengths == 0 then return x end
  local longest, shortest = lengths:max():item(), lengths:min():item()
  if longest > x:size(2) then
    check.raise("trim: row %d has length %d, expected 0 to %d, the columns of x", lengths:argmax(1):item(), longest,
      x:size(2))
  end
  if shortest < 0 then
    check.raise("trim: row %d has length %d, expected 0 to %d, the columns of x", lengths:argmin(1):item(), shortest,
      x:size(2))
  end
  return x:narrow(2, 1, longest)
end

return batch
