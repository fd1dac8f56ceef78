-- SPDX-License-Identifier: MIT
--- The table that net:summary(shape) shows, and the trial run behind it and behind net:build(shape).
local core = require "marea.core"
local amount = require "marea.internal.amount"
local check = require "marea.internal.check"
local columns = require "marea.internal.columns"
local unwind = require "marea.internal.unwind"
local module = require "marea.nn.module"

local summary = {}

local function input_from(what, value)
  if core.is_tensor(value) then return value end
  check.items(what, "input_shape", value, "a shape without the batch, such as {28, 28, 1}, or a tensor", 1)
  local shape = {1}
  for i, size in ipairs(value) do shape[i + 1] = check.integer(what, "input_shape", size, 0) end
  return core.ops.full(shape, 0)
end

--- Runs zeros (a batch of 1) through the module without recording and in evaluation mode, so that layers learn their
--- input sizes. The random state moves only when parameters were made.
---@param what string the method that was called, for messages
---@param trace? function see module.trace
function summary.run(root, what, trace, ...)
  if select("#", ...) == 0 then input_from(what, nil) end
  local modes, made = {}, module.version()
  local seed, counter = core.random_state()
  for i, entry in ipairs(module.modules(root)) do modes[i] = {entry.module, entry.module.training} end
  root:evaluate()
  local inputs = table.pack(...)
  local _ <close> = unwind.finally(function()
    for _, mode in ipairs(modes) do mode[1].training = mode[2] end
  end)
  core.no_grad(function()
    for i = 1, inputs.n do inputs[i] = input_from(what, inputs[i]) end
    local function forward() root(table.unpack(inputs, 1, inputs.n)) end
    if trace then module.trace(trace, forward) else forward() end
  end)
  if module.version() == made then core.set_random_state(seed, counter) end
end

local function batch_shape(t)
  local shape = t.shape
  if #shape > 0 then shape[1] = "N" end
  return check.shape_text(shape)
end

--- One row for each module that is called and that holds no other modules or has parameters of its own, in the order of
--- the calls.
local function trace_rows(root, ...)
  local rows, row_of, path_of = {}, {}, {}
  local function trace(m, ...)
    local results = table.pack(m:forward(...))
    local inside = #module.modules(m) - 1
    local y = results[1]
    local row = row_of[m]
    if not row and core.is_tensor(y) and (inside == 0 or module.own_elements(m) > 0) then
      row = {module = m, type = getmetatable(m).__name, shape = batch_shape(y), flops = 0,
        params = module.own_elements(m)}
      row_of[m] = row
      rows[#rows + 1] = row
    end
    if row and m.flops then row.flops = row.flops + m:flops((...), y) end
    return table.unpack(results, 1, results.n)
  end
  summary.run(root, "summary", trace, ...)
  for _, entry in ipairs(module.modules(root)) do path_of[entry.module] = entry.path end
  for _, row in ipairs(rows) do
    local path = path_of[row.module] or ""
    row.name = path == "" and row.type or ("%s (%s)"):format(path, row.type)
    row.module = nil
  end
  return rows
end

local function layout(self)
  local cells = {{"Layer (type)", "Output shape", "Param #", "FLOPs"}}
  for _, row in ipairs(self.rows) do
    cells[#cells + 1] = {row.name, row.shape, amount.thousands(row.params),
      row.flops > 0 and amount.thousands(row.flops) or ""}
  end
  local lines, rule = columns(cells, 2)
  lines[#lines + 1] = rule
  lines[#lines + 1] = "Total params: " .. amount.thousands(self.total)
  lines[#lines + 1] = "Trainable params: " .. amount.thousands(self.trained)
  lines[#lines + 1] = "Non-trainable params: " .. amount.thousands(self.total - self.trained)
  lines[#lines + 1] = ("FLOPs: %s for one example, forward"):format(amount.thousands(self.flops))
  return table.concat(lines, "\n")
end

local Summary = {__tostring = layout}

--- See Module:summary.
function summary.summary(root, ...)
  local self = setmetatable({rows = trace_rows(root, ...), flops = 0}, Summary)
  self.total, self.trained = root:count()
  for _, row in ipairs(self.rows) do self.flops = self.flops + row.flops end
  return self
end

return summary
