-- SPDX-License-Identifier: MIT
--- The state that a run leaves for the next one: tensors, numbers and names only. It refers to nothing else of the
--- script, so that nothing else of it stays in memory.
---   roots       {name, class, holders} of the networks, see match.lua
---   optimizers  {name, kind, steps, slots}, slots: parameter -> name of the slot -> tensor
---   datasets    name -> {epoch, examples, rows, seed, stream, is_open}
---   ranges      key -> place, see range.lua
---   random, lua_random, streams, seed    random states at the last whole step, and what marea.seed got
---   text, finished              the script; whether it came to its end
local core = require "marea.core"
local random = require "marea.internal.random"
local match = require "marea.rerun.match"
local variables = require "marea.rerun.variables"

local function weak() return setmetatable({}, {__mode = "k"}) end

local function record_root(run, root)
  local record = {name = root.name, class = root.class, holders = {}}
  for i, holder in ipairs(match.holders(root.value, run.recorded)) do
    local old = run.old_of[holder.node]
    if #holder.keys == 0 and old then holder.keys, holder.tensors = old.keys, old.tensors end -- not made yet
    holder.node = nil
    for _, key in ipairs(holder.keys) do run.alive[holder.tensors[key]] = true end
    record.holders[i] = holder
  end
  return record
end

local function record_optimizer(run, optimizer)
  local record = {name = run.name_of[optimizer], kind = optimizer.name, steps = optimizer.steps, slots = {}}
  for _, entry in ipairs(optimizer._entries) do
    local slots = {}
    for _, slot in ipairs(optimizer.slots) do slots[slot] = entry[slot] end
    record.slots[entry.tensor] = slots
  end
  local old = run.memory[optimizer]
  for t, slots in pairs(old and old.kind == optimizer.name and old.slots or {}) do
    if run.alive[t] and not record.slots[t] then record.slots[t] = slots end
  end
  return record
end

local function record_datasets(run)
  local records = {}
  for name, dataset in pairs(run.objects) do
    local examples, since = run.done[dataset], run.open[dataset]
    if examples then
      records[name] = {epoch = dataset.position.epoch, examples = examples, rows = #dataset, seed = dataset.seed,
        stream = dataset.stream,
        is_open = not run.finished and since ~= nil and run.steps > since and examples < #dataset}
    end
  end
  return records
end

--- What an optimizer of the earlier state remembers, for parameters that are there still.
local function record_unused(run, old)
  local record = {name = old.name, kind = old.kind, steps = old.steps, slots = {}}
  for t, slots in pairs(old.slots) do
    if run.alive[t] then record.slots[t] = slots end
  end
  for t, came in pairs(run.came) do
    if run.alive[t] and came.from and old.slots[came.from] then record.slots[t] = old.slots[came.from] end
  end
  return record
end

--- The parts of the earlier state that this run has not reached, when it was ended early.
local function carry(run, state)
  for _, root in ipairs(run.before.roots) do
    local first = root.name:match "^[%a_][%w_]*"
    if not run.claimed[root] and (not first or variables.is_declared(run.text, first)) then
      table.insert(state.roots, root)
      for _, holder in ipairs(root.holders) do
        for _, t in pairs(holder.tensors) do run.alive[t] = true end
      end
    end
  end
  for _, old in ipairs(run.before.optimizers) do
    local record = not run.taken[old] and record_unused(run, old)
    if record and next(record.slots) then table.insert(state.optimizers, record) end
  end
end

local function was_changed(run, t)
  return run.changes[t] and not t:is_released() and t:changes() ~= run.changes[t]
end

--- Has the run made a step, or changed parameters by other means?
local function has_learned(run)
  if run.steps > 0 then return true end
  for t in pairs(run.changes) do
    if was_changed(run, t) then return true end
  end
  return false
end

--- Are all elements of the parameters that the run has changed finite? 0 * x is 0 for finite x alone.
local function is_finite(run)
  return core.no_grad(function()
    for t in pairs(run.changes) do
      if run.alive[t] and was_changed(run, t) and t:numel() > 0 and (t * 0):sum():item() ~= 0 then return false end
    end
    return true
  end)
end

--- The state after this run. One that has not learned, or whose weights are no numbers any more, leaves that before it.
---@param run Run
---@param finished boolean the script came to its end
---@return table|nil state, string|nil note
return function(run, finished)
  run.finished, run.recorded, run.alive = finished, weak(), {}
  if not has_learned(run) then return run.before end
  local state = {roots = {}, optimizers = {}, datasets = record_datasets(run), ranges = run.ranges, text = run.text,
    seed = run.seed, random = run.random, lua_random = {random.renew_lua()}, streams = run.streams, finished = finished}
  for i, root in ipairs(run.roots) do state.roots[i] = record_root(run, root) end
  for i, optimizer in ipairs(run.optimizers) do state.optimizers[i] = record_optimizer(run, optimizer) end
  if run.before and not finished then carry(run, state) end
  if not is_finite(run) then return run.before, "weights are not finite: those before this run stay" end
  return state
end
