-- SPDX-License-Identifier: MIT
--- What a training step changes besides weights: the random state, running statistics, the position of a loader. A
--- step that ends by an error or by Ctrl-C before the optimizer has updated the weights is undone, so that it can be
--- made again with the same numbers. Passes over batches and optimizer:step(f) begin such an attempt.
local core = require "marea.core"
local module = require "marea.nn.module"

local attempt = {}

---@class Attempt
---@field updates integer
local Attempt = {}
Attempt.__index = Attempt

local Droppable = {__index = Attempt} -- the class of attempts in coroutines, which may be dropped before their end

local entries = {} -- {tensor, copy}, the oldest first: values before a change that is not final yet
local noted = {} -- tensor -> its position in `entries`
local begun = 0 -- number of attempts that have begun and not ended
local height = 0 -- length of `entries` when the latest attempt began
local updates = 0 -- number of updates that optimizers have made so far
local after = {} -- random state after the last update: seed, counter

--- Begins an attempt; it ends with :close(), and is undone by :undo().
---@return Attempt
function attempt.begin()
  begun, height = begun + 1, #entries
  local seed, counter = core.random_state()
  return setmetatable({
    height = height, updates = updates, seed = seed, counter = counter, version = module.version(), open = true,
  }, coroutine.isyieldable() and Droppable or Attempt)
end

--- Notes the values of a tensor that is about to be changed in place, once for each attempt.
---@param t userdata
function attempt.note(t)
  if begun == 0 or (noted[t] or 0) > height or core.planning() then return end
  local copy = t:clone():keep() -- may collect garbage, and thereby end an attempt
  entries[#entries + 1] = {t, copy}
  noted[t] = #entries
end

local function forget(i)
  local t, copy = entries[i][1], entries[i][2]
  entries[i], noted[t] = nil, nil
  copy:release()
end

--- An optimizer has updated the weights: what happened before is final. Called inside its shield.
function attempt.settle()
  for i = #entries, 1, -1 do forget(i) end
  updates, height = updates + 1, 0
  after[1], after[2] = core.random_state()
end

--- Has no optimizer updated weights since the attempt began?
function Attempt:is_unfinished() return self.updates == updates end

--- Ends it and keeps what was changed.
function Attempt:close()
  if not self.open then return end
  self.open = false
  begun = begun - 1
  if begun > 0 then return end
  for i = #entries, 1, -1 do forget(i) end
end

local function bring_back(self)
  local unfinished = self:is_unfinished()
  for i = #entries, unfinished and self.height + 1 or 1, -1 do
    entries[i][1]:copy_(entries[i][2])
    forget(i)
  end
  if module.version() ~= self.version then return end -- weights were drawn, and stay
  if unfinished then core.set_random_state(self.seed, self.counter)
  else core.set_random_state(after[1], after[2]) end
end

--- Ends it and brings everything back: to its beginning, or to the last update since.
function Attempt:undo()
  if self.open then core.shield(nil, bring_back, self) end
  self:close()
end

--- For `local _ <close> = attempt.begin()`: undone by an error.
Attempt.__close = core.closer(function(self, problem)
  if problem ~= nil then self:undo() else self:close() end
end)

Droppable.__close = Attempt.__close
-- An attempt whose coroutine was dropped can be ended by nobody. It ends when the garbage collector finds it, except in
-- sandboxes, which have no finalizers.
if pcall(setmetatable, {}, {__gc = Attempt.close}) then Droppable.__gc = Attempt.close end

return attempt
