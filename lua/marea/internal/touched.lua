-- SPDX-License-Identifier: MIT
--- Rows of a table that were read, and their gradients: what nn.Embedding{sparse = true} gives to the optimizers.
---
--- A lookup copies the different rows that it reads, in rising order, and the gradient goes to the copy, a leaf of its
--- own. So neither the reverse pass nor the step touches a row that was not read.
local core = require "marea.core"
local undo = require "marea.internal.undo"
local ops = core.ops

local touched = {}

local reads = setmetatable({}, {__mode = "k"}) -- weight -> list of {rows, copy, padding}, in the order of the lookups

local function copy_of(weight, index)
  local rows, place = ops.unique(index, {inverse = true})
  return rows, ops.embedding(weight, rows):requires_grad_(), place
end

--- weight[index[..]], whose gradient goes to the rows that were read.
---@param padding? integer row without gradient
function touched.lookup(weight, index, padding)
  local ok, rows, copy, place = pcall(core.no_grad, copy_of, weight, index)
  if not ok then -- the dense lookup names the place of a number that is no row
    ops.embedding(weight, index, padding)
    error(rows, 0)
  end
  local list = reads[weight] or {}
  reads[weight] = list
  undo.note(list)
  list[#list + 1] = {rows = rows, copy = copy, padding = padding}
  return ops.embedding(copy, place)
end

--- Forgets the lookups of a weight.
function touched.clear(weight)
  local list = reads[weight]
  if not list then return end
  undo.note(list)
  for i = #list, 1, -1 do list[i] = nil end
end

local function grad_of(copy) return copy.grad end

--- The rows and the gradient of one lookup; nil where no gradient came or its scope has ended.
local function part_of(read)
  local ok, g = pcall(grad_of, read.copy)
  if not ok or not g then return nil end
  if read.padding then g = g:masked_fill(read.rows:eq(read.padding):unsqueeze(2), 0) end
  return read.rows, g
end

local function merge(rows, gradients, size)
  if #rows == 1 then return rows[1], gradients[1] end
  local all, place = ops.unique(ops.concat(rows, 1), {inverse = true})
  local zero = ops.full({all:numel(), size}, 0, gradients[1].dtype)
  return all, ops.index_add(zero, place, ops.concat(gradients, 1))
end

local function gradient(weight)
  local rows, gradients = {}, {}
  local list = reads[weight] or {}
  for i = #list, 1, -1 do -- the reverse pass adds them up from the last lookup
    local r, g = part_of(list[i])
    if r then rows[#rows + 1], gradients[#gradients + 1] = r, g end
  end
  local dense = weight.grad
  if #rows == 0 then return dense end
  local all, g = merge(rows, gradients, weight:size(2))
  if not dense then return g, all end
  return ops.index_add(dense, all, g)
end

--- The gradient of a parameter and, where only rows of it were read, their numbers in rising order. A weight that has
--- a gradient of its own too, as one that is used elsewhere, gets one dense sum. nil: there is none.
---@return userdata|nil, userdata|nil
function touched.gradient(weight)
  if not reads[weight] then return weight.grad end
  return core.no_grad(gradient, weight)
end

--- Copies of these rows of the parameter and of its slots.
function touched.take(entry, slots, rows)
  return core.no_grad(function()
    local part = {weight = ops.index_select(entry.tensor, rows)}
    for _, slot in ipairs(slots) do part[slot] = ops.index_select(entry[slot], rows) end
    return part
  end)
end

--- Puts them back.
function touched.put(entry, slots, rows, part)
  core.no_grad(function()
    ops.index_put(entry.tensor, rows, part.weight)
    for _, slot in ipairs(slots) do ops.index_put(entry[slot], rows, part[slot]) end
  end)
end

return touched
