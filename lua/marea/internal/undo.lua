-- SPDX-License-Identifier: MIT
--- Puts back what the library changes in its tables (layers that make their parameters, optimizers that count) while
--- something runs that is to leave no trace.
local events = require "marea.internal.events"
local unwind = require "marea.internal.unwind"

local undo = {}

local notes -- table -> its fields as they were; nil: nothing is remembered
local order -- the tables, as they were noted

--- To be called before a table changes. Does nothing outside of undo.run.
---@param t table
function undo.note(t)
  if unwind.latest then unwind.settle() end
  if not notes or notes[t] then return end
  local fields = {}
  for key, value in next, t do fields[key] = value end
  notes[t] = fields
  order[#order + 1] = t
end

local function restore()
  for _, t in ipairs(order) do
    local fields = notes[t]
    for key in next, t do
      if fields[key] == nil then rawset(t, key, nil) end
    end
    for key, value in next, fields do rawset(t, key, value) end
  end
end

--- Runs f(...) and then puts back the fields of all tables that were noted meanwhile; nobody watches. Returns what f
--- returned.
function undo.run(f, ...)
  local watcher, outer_notes, outer_order
  local _ <close> = unwind.finally(function()
    restore()
    notes, order, events.watcher = outer_notes, outer_order, watcher
  end)
  watcher, outer_notes, outer_order = events.watcher, notes, order
  notes, order, events.watcher = {}, {}, nil
  return f(...)
end

return undo
