-- SPDX-License-Identifier: MIT
--- Runs a function and afterwards undoes the changes that the library has made to its own tables meanwhile: layers that
--- have made their parameters, optimizers that have counted steps. Plans and gradient checks leave no trace so.
local events = require "marea.internal.events"
local unwind = require "marea.internal.unwind"

local undo = {}

local notes -- table -> a copy of its fields before the change; nil outside of undo.run
local order -- the tables in the order of their first change

--- Remembers the fields of a table. To be called before a table changes. Does nothing outside of undo.run.
---@param t table
function undo.note(t)
  if unwind.latest then unwind.settle() end
  if not notes or notes[t] then return end
  local fields = {}
  for key, value in next, t do fields[key] = value end
  notes[t] = fields
  order[#order + 1] = t
end

--- Will changes be undone?
function undo.is_running() return notes ~= nil end

local function restore()
  for _, t in ipairs(order) do
    local fields = notes[t]
    for key in next, t do
      if fields[key] == nil then rawset(t, key, nil) end
    end
    for key, value in next, fields do rawset(t, key, value) end
  end
end

--- Runs f(...) and then restores the fields of all tables that were noted meanwhile. No event reaches a watcher
--- (marea.internal.events). Returns what f returned.
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
