-- SPDX-License-Identifier: MIT
--- marea.rerun.range: the numbers of a loop that a rerun continues. A range has a key; for a range inside another one
--- it is such as "1:2": the second range that was made in an iteration of range 1. The next run gets of each loop its
--- place {first, last, at, is_done}: the iteration `at` was begun, and with is_done it was finished.
local check = require "marea.internal.check"
local core = require "marea.core"
local events = require "marea.internal.events"

---@class Range
---@field steps integer the last number
---@field step integer one less than the number to begin with: as in a pass, what is done already
local Range = {}
Range.__index = Range

--- Forgets the loops inside.
local function drop_inner(places, key)
  for other in pairs(places) do
    if other:sub(1, #key + 1) == key .. ":" then places[other] = nil end
  end
end

--- The number to begin with: that of the earlier run's iteration that was not finished. Loops of a run that came to its
--- end begin again, unless there is more to do now.
local function start_of(run, key, first, last)
  local old, start = run.ranges_before[key], first
  if old and old.first == first and run:goes_on_in_place() and (not run.before.finished or last > old.last) then
    start = old.is_done and old.at + 1 or old.at
  end
  if not old or old.is_done or start ~= old.at then drop_inner(run.ranges_before, key) end
  run.ranges_before[key] = nil
  if start > first then
    local text = start > last and "after %d of %d" or "at %d of %d"
    run.went_on[#run.went_on + 1] = text:format(math.min(start, last), last)
  end
  return start
end

local function enter(self, run, first)
  run:trains()
  local outer = run.inner[#run.inner] or run
  outer.loops = (outer.loops or 0) + 1
  self.key = (outer.key and outer.key .. ":" or "") .. outer.loops
  local start = start_of(run, self.key, first, self.last)
  self.place = {first = first, last = self.last, at = start - 1, is_done = true}
  run.ranges[self.key] = self.place
  return start
end

local function leave(self, inner)
  for i = #inner, 1, -1 do
    if inner[i] == self then table.remove(inner, i) end
  end
end

--- For a generic for: first, first + 1, ..., last. In a rerun that goes on with what an earlier run has learned, the
--- loop begins with the iteration that was not finished.
---@param first integer
---@param last integer
---@return Range, nil, nil, Range
local function new(first, last)
  check.integer("range", "first", first)
  check.integer("range", "last", last)
  local self, start = setmetatable({run = events.watcher, last = last, steps = last}, Range), first
  if self.run then start = enter(self, self.run, first) end
  self.next, self.step = start, start - 1
  return self, nil, nil, self
end

function Range:__call()
  local run, i = self.run, self.next
  if not run then
    if i > self.last then return nil end
    self.next = i + 1
    return i
  end
  if i > self.last then
    self:__close()
    return nil
  end
  if self.place.is_done then run.inner[#run.inner + 1] = self end
  drop_inner(run.ranges, self.key)
  if i ~= self.step + 1 then drop_inner(run.ranges_before, self.key) end
  run.random[1], run.random[2] = core.random_state()
  self.place.at, self.place.is_done, self.loops, self.next = i, false, 0, i + 1
  return i
end

--- The loop was left; `problem`: by an error.
Range.__close = core.closer(function(self, problem)
  if not self.run then return end
  if not problem then self.place.is_done = true end
  leave(self, self.run.inner)
end)

return new
