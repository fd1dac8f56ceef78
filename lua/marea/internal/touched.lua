-- SPDX-License-Identifier: MIT
--- Rows of a table that were read, and their gradients: what nn.Embedding{sparse = true} gives to the optimizers.
---
--- A lookup reads the table unrecorded and adds a leaf of its own, -0 of the result's shape in the memory of one
--- number, which leaves each value as it is and to which the gradient goes. So neither the reverse pass nor the step
--- touches a row that was not read. The leaf and a copy of the numbers outlive the scope of the lookup, as the gradient
--- of a parameter does, until a step or zero_grad; those whose graph has ended without a gradient are dropped by later
--- lookups.
local core = require "marea.core"
local undo = require "marea.internal.undo"
local ops = core.ops

local touched = {}

--- weight -> list, in the order of the lookups, of {leaf, index, padding}, or {rows, gradient} of several of them. In a
--- sandbox, which has no weak tables, a weight that was read is held until a step of its optimizer.
local is_weak, weak = pcall(setmetatable, {}, {__mode = "k"})
local reads = is_weak and weak or {}

-- ---- lookups ----

local function read(weight, index)
  local y = ops.embedding(weight, index)
  local leaf = ops.full({}, -0.0, y.dtype):expand(y.shape):detach():requires_grad_()
  return y, leaf:keep(), index:clone():keep()
end

--- The rows and the gradient of one lookup; nil where no gradient has come.
local function part_of(one)
  if one.rows then return one.rows, one.gradient end
  local dy = one.leaf.grad
  if not dy then return nil end
  local rows, place = ops.unique(one.index, {inverse = true})
  local g = ops.embedding_grad(dy, place, {rows = rows:numel()})
  if one.padding then g:masked_fill_(rows:eq(one.padding):unsqueeze(2), 0) end
  return rows, g
end

--- The sum over the lookups of a list: rows in rising order and their gradients; nil where no gradient has come.
local function sum_of(list)
  local rows, gradients = {}, {}
  for i = #list, 1, -1 do -- the reverse pass adds them up from the last lookup
    local r, g = part_of(list[i])
    if r then rows[#rows + 1], gradients[#gradients + 1] = r, g end
  end
  if #rows < 2 then return rows[1], gradients[1] end
  local all, place = ops.unique(ops.concat(rows, 1), {inverse = true})
  local zero = ops.full({all:numel(), gradients[1]:size(2)}, 0, gradients[1].dtype)
  return all, ops.index_add(zero, place, ops.concat(gradients, 1))
end

local function drop(one)
  if one.leaf then one.leaf:clear_grad() end
  if undo.is_running() then return end -- the list will be as it was
  for _, t in ipairs{one.leaf or one.rows, one.index or one.gradient} do t:release() end
end

local function add(list, one)
  list[#list + 1] = one
  list.cost = list.cost + (one.index or one.rows):numel() + 64 -- as if in numbers of rows
end

--- One sum instead of gradients that will not change any more, so that they never take much more than the table.
local function fold(finished)
  local rows, gradient = core.no_grad(sum_of, finished)
  for _, one in ipairs(finished) do drop(one) end
  return {rows = rows:keep(), gradient = gradient:keep()}
end

--- The list without lookups whose graph has ended without a gradient; those that have ended with one come first.
local function compact(list, size)
  local finished, others, dead = {cost = 0}, {cost = 0}, {}
  for _, one in ipairs(list) do
    local has, open = one.rows or one.leaf.grad, one.leaf and one.leaf:in_graph()
    if open then add(others, one) elseif has then add(finished, one) else dead[#dead + 1] = one end
  end
  local new = {cost = 0}
  if #finished > 1 and finished.cost > size then add(new, fold(finished))
  else for _, one in ipairs(finished) do add(new, one) end end
  for _, one in ipairs(others) do add(new, one) end
  for _, one in ipairs(dead) do drop(one) end
  new.limit = 2 * new.cost + size
  return new
end

--- weight[index[..]], whose gradient goes to the rows that were read.
---@param padding? integer row without gradient
function touched.lookup(weight, index, padding)
  local y, leaf, copy = core.no_grad(read, weight, index)
  local list = reads[weight] or {cost = 0, limit = weight:size(1)}
  undo.note(reads)
  undo.note(list)
  if list.cost > list.limit then list = compact(list, weight:size(1)) end
  reads[weight] = list
  add(list, {leaf = leaf, index = copy, padding = padding})
  return ops.add(leaf, y)
end

-- ---- gradients ----

--- Has any table been read whose gradient no step has taken yet?
function touched.any() return next(reads) ~= nil end

--- Forgets the lookups of a weight and their gradients.
function touched.clear(weight)
  local list = reads[weight]
  if not list then return end
  undo.note(reads)
  reads[weight] = nil
  for _, one in ipairs(list) do drop(one) end
end

--- The gradient of a parameter and, where only rows of it were read, their numbers in rising order. A weight that has
--- a gradient of its own too, as one that is used elsewhere, gets one dense sum. nil: there is none; true, where
--- `own` is given: the weight's own.
---@return userdata|true|nil, userdata|nil
function touched.gradient(weight, own)
  local list = reads[weight]
  if own and not list then return core.has_grad(weight) or nil end
  local dense = weight.grad
  local rows, g
  if list then rows, g = core.no_grad(sum_of, list) end
  if not rows then return dense end
  if not dense then return g, rows end
  return core.no_grad(ops.index_add, dense, rows, g)
end

--- Multiplies the gradients of which touched.gradient made a sum, in place. done: what it gave, which is scaled: a sum
--- of its own, or the only part.
function touched.scale(weight, factor, done)
  local parts = {}
  for _, one in ipairs(reads[weight] or {}) do parts[#parts + 1] = one.leaf and one.leaf.grad or one.gradient end
  if #parts == 0 then return end -- `done` is the weight's own gradient
  parts[#parts + 1] = weight.grad
  for _, g in ipairs(parts) do
    if g ~= done then g:mul_(factor) end
  end
end

return touched
