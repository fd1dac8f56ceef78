-- SPDX-License-Identifier: MIT
--- What a rerun took over: the difference between the networks of two runs, as lists and as a text.
local core = require "marea.core"
local amount = require "marea.internal.amount"
local check = require "marea.internal.check"
local match = require "marea.rerun.match"
local variables = require "marea.rerun.variables"

local report = {}

local NAMES = 4 -- that a line of the text shows

---@class RerunReport
---@field kept {name: string, from: string?}[] tensors with the values they had, under another name if `from` is given
---@field grown {name: string, shape: integer[], before: integer[]}[] wider ones: the rest is new
---@field cut {name: string, shape: integer[], before: integer[]}[] narrower ones: the rest is gone
---@field reinitialised {name: string, shape: integer[], before: integer[]}[] of a shape that has no use for the values
---@field new {name: string, shape: integer[]}[]
---@field dropped {name: string, shape: integer[]}[]
---@field loaded {name: string}[] those to which the script gave the values of a file or a state
---@field optimizers {name: string, kind: string, before: string, steps: integer}[] that took over an earlier one
---@field random string|nil "goes on", or why not
---@field files integer files of data that were not read again
---@field at string where training goes on, "" from the beginning
---@field note string|nil
local Report = {}
Report.__index = Report

local function sort(list)
  table.sort(list, function(a, b) return core.before(a.name, b.name) end)
end

--- Tensor of the earlier state -> its name, and the other way round.
local function names_of(state)
  local name_of, tensor_of = {}, {}
  for _, root in ipairs(state and state.roots or {}) do
    for _, holder in ipairs(root.holders) do
      for _, key in ipairs(holder.keys) do
        local name, t = match.name(root.name, holder.path, key), holder.tensors[key]
        if not t:is_released() then name_of[t], tensor_of[name] = name, t end
      end
    end
  end
  return name_of, tensor_of
end

local function add_tensor(self, run, name, t, name_before, tensor_before, used)
  local came = run.came[t] or {}
  local how = came.from and came.how or "new"
  local from = came.from or not used[tensor_before[name]] and tensor_before[name]
  if how == "new" and from then
    how = "re-initialised"
    used[from] = true
  end
  local entry = {name = name, shape = t.shape, before = from and from.shape or nil}
  if how == "kept" then
    local earlier = name_before[from]
    entry.from = earlier ~= name and earlier or nil
    self.numbers = self.numbers + t:numel()
  end
  if came.loaded then table.insert(self.loaded, {name = name}) end
  table.insert(self[how == "re-initialised" and "reinitialised" or how], entry)
end

--- Tensors of the earlier state that have no successor. Not among them are those of layers that have not made their
--- parameters yet and, while the script runs, those of variables that the script may still define.
local function add_dropped(self, run, fate, used)
  for _, root in ipairs(run.before and run.before.roots or {}) do
    local first = root.name:match "^[%a_][%w_]*"
    local claimed = run.claimed[root]
    local is_gone = fate == "replaced" or first and not variables.is_declared(run.text, first)
    if claimed or is_gone and fate ~= "kept" then
      for _, holder in ipairs(root.holders) do
        for _, key in ipairs(claimed and claimed.waits[holder] and {} or holder.keys) do
          local t = holder.tensors[key]
          if not used[t] and not t:is_released() then
            table.insert(self.dropped, {name = match.name(root.name, holder.path, key), shape = t.shape})
          end
        end
      end
    end
  end
end

local function add_optimizers(self, run)
  for _, optimizer in ipairs(run.optimizers) do
    local old = run.memory[optimizer]
    if old then
      table.insert(self.optimizers, {name = run.name_of[optimizer] or optimizer.name, kind = optimizer.name,
        before = old.kind, steps = old.steps})
    end
  end
end

local function random_text(run)
  if not run:goes_on() then return nil end
  if run.is_restored then return "as the script loaded it" end
  if run:goes_on_in_place() then return "goes on" end
  return ("begins anew: the seed is %s, it was %s"):format(run.seed or "not set", run.before.seed or "not set")
end

--- The report on a run so far.
---@param run Run
---@param fate "under way"|"kept"|"replaced" of the earlier state
---@return RerunReport
function report.new(run, fate)
  local self = setmetatable({path = run.path, goes_on = run:goes_on(), numbers = 0, kept = {}, grown = {}, cut = {},
    reinitialised = {}, new = {}, dropped = {}, loaded = {}, optimizers = {}, random = random_text(run),
    files = run.kept_files, at = table.concat(run.went_on, ", "), steps = run.steps}, Report)
  local name_before, tensor_before = names_of(run.before)
  local used, seen = {}, {}
  for _, came in pairs(run.came) do
    if came.from then used[came.from] = true end
  end
  for _, root in ipairs(run.roots) do
    root.waits = {}
    for _, holder in ipairs(match.holders(root.value, seen)) do
      if #holder.keys == 0 and run.old_of[holder.node] then root.waits[run.old_of[holder.node]] = true end
      for _, key in ipairs(holder.keys) do
        add_tensor(self, run, match.name(root.name, holder.path, key), holder.tensors[key], name_before, tensor_before,
          used)
      end
    end
  end
  add_dropped(self, run, fate, used)
  add_optimizers(self, run)
  for _, list in ipairs{self.kept, self.grown, self.cut, self.reinitialised, self.new, self.dropped, self.loaded} do
    sort(list)
  end
  return self
end

-- ---- the text ----

local function add_list(lines, title, list, format)
  if #list == 0 then return end
  local texts = {}
  for i = 1, math.min(#list, NAMES) do texts[i] = format(list[i]) end
  if #list > NAMES then texts[NAMES + 1] = ("%d more"):format(#list - NAMES) end
  lines[#lines + 1] = ("  %-15s %s"):format(title, table.concat(texts, ", "))
end

local function change(entry)
  return ("%s %s -> %s"):format(entry.name, check.shape_text(entry.before), check.shape_text(entry.shape))
end

local function with_shape(entry) return ("%s %s"):format(entry.name, check.shape_text(entry.shape)) end

local function optimizer_text(entry)
  if entry.kind == entry.before then
    return ("%s goes on after %s steps"):format(entry.name, amount.thousands(entry.steps))
  end
  return ("%s begins anew: %s, it was %s"):format(entry.name, entry.kind, entry.before)
end

function Report:__tostring()
  if not self.goes_on then
    return ("%s: nothing to take over"):format(self.path) .. (self.note and "\n  " .. self.note or "")
  end
  local lines, moved = {self.path .. ":"}, {}
  for _, entry in ipairs(self.kept) do
    if entry.from then moved[#moved + 1] = entry end
  end
  if #self.kept > 0 then
    lines[2] = ("  %-15s %d tensors, %s numbers"):format("kept", #self.kept, amount.thousands(self.numbers))
  end
  add_list(lines, "moved", moved, function(entry) return ("%s -> %s"):format(entry.from, entry.name) end)
  add_list(lines, "grown", self.grown, change)
  add_list(lines, "cut", self.cut, change)
  add_list(lines, "re-initialised", self.reinitialised, change)
  add_list(lines, "new", self.new, with_shape)
  add_list(lines, "dropped", self.dropped, with_shape)
  add_list(lines, "loaded", self.loaded, function(entry) return entry.name end)
  add_list(lines, "optimizer", self.optimizers, optimizer_text)
  add_list(lines, "random numbers", {self.random}, function(text) return text end)
  if self.files > 0 then
    lines[#lines + 1] = ("  %-15s %d file%s still in memory"):format("data", self.files, self.files == 1 and "" or "s")
  end
  if self.at ~= "" then lines[#lines + 1] = ("  %-15s goes on %s"):format("training", self.at) end
  if self.note then lines[#lines + 1] = "  " .. self.note end
  return table.concat(lines, "\n")
end

return report
