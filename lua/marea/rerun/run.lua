-- SPDX-License-Identifier: MIT
--- One run of a script under watch: finds the networks in its variables, gives them what an earlier run has learned,
--- and notes where the script stands. state.lua makes of it what the next run takes over.
local core = require "marea.core"
local module = require "marea.nn.module"
local random = require "marea.internal.random"
local Optimizer = require "marea.optim.optimizer"
local match = require "marea.rerun.match"
local variables = require "marea.rerun.variables"

---@class Run
local Run = {}
Run.__index = Run

local function weak() return setmetatable({}, {__mode = "k"}) end

---@param path string
---@param chunk function the script
---@param text string its source
---@param before table|nil the state that it takes over
---@param cache table<string, table> files that were loaded: path -> {time, size, tensor, changes}
function Run.new(path, chunk, text, before, cache)
  local self = setmetatable({
    path = path, thread = coroutine.running(), chunk = chunk, text = text, before = before, cache = cache,
    known = variables.known_globals(),
    -- networks
    roots = {}, -- list of {name, value, holders, before}, in the order in which they were found
    root_of = weak(), -- a network -> its root
    seen = weak(), -- set of the modules and tensors in networks
    claimed = {}, -- root of the earlier state -> the root that takes it over
    old_of = weak(), -- a holder's module or table -> its predecessor
    came = weak(), -- tensor -> {how, from}: how it got its values, and from which earlier tensor
    changes = weak(), -- parameter -> its number of changes in place when it was found
    -- optimizers
    optimizers = {},
    memory = weak(), -- optimizer -> the earlier one that it takes over
    taken = {}, -- set of the earlier ones that are taken over
    remembered = weak(), -- set of entries whose slots were taken over
    objects = {}, name_of = weak(), -- name -> optimizer or dataset, and back
    -- datasets
    open = weak(), -- dataset whose pass has begun -> number of steps made before it
    done = weak(), -- dataset -> rows that were trained on
    resumed = {}, -- set of the names of datasets whose place was taken over
    -- loops: see range.lua
    ranges = {}, ranges_before = {}, inner = {}, went_on = {},
    -- the rest
    used = {}, kept_files = 0, -- set of the files that were read; how many of them were in the cache
    steps = 0, looks = 0, -- numbers of steps, and of searches through the variables
    random = {core.random_state()}, streams = random.streams, -- at the last whole step
  }, Run)
  for key, place in pairs(before and before.ranges or {}) do self.ranges_before[key] = place end
  return self
end

-- ---- networks ----

--- Notes a parameter's number of changes in place: if it grows, the parameter has learned.
local function watch_changes(self, keys, tensors)
  for _, key in ipairs(keys) do
    local t = tensors[key]
    if t.requires_grad and not self.changes[t] then self.changes[t] = t:changes() end
  end
end

local function fill(self, node, tensors, keys)
  local old = self.old_of[node]
  for _, key in ipairs(old and keys or {}) do
    local t, from = tensors[key], old.tensors[key]
    if self.came[t] or not from or from:is_released() then goto continue end
    if t:in_graph() then
      self.waiting = true
    else
      self.came[t] = {how = core.no_grad(match.take, t, from) or "re-initialised", from = from}
    end
    ::continue::
  end
  watch_changes(self, keys, tensors)
end

--- The root of the earlier state for a variable: the one of the same name. For a variable that is new, a root of the
--- same class whose variable the script no longer has.
local function predecessor(self, name, class)
  local function is_gone(root, text) return not variables.is_declared(text, root:match "^[%a_][%w_]*" or "%(") end
  if not self.before then return nil end
  for _, root in ipairs(self.before.roots) do
    if root.name == name then return not self.claimed[root] and root or nil end
  end
  for _, root in ipairs(self.before.roots) do
    if not self.claimed[root] and root.class == class and is_gone(root.name, self.text)
      and is_gone(name, self.before.text) then
      return root
    end
  end
end

--- Matches the holders of a root that have no predecessor with those of the earlier root that have no successor.
local function pair_holders(self, root)
  self.claimed[root.before] = root
  root.taken = root.taken or {}
  local new, old = {}, {}
  for _, holder in ipairs(root.holders) do
    if not self.old_of[holder.node] then new[#new + 1] = holder end
  end
  for _, holder in ipairs(#new > 0 and root.before.holders or {}) do
    if not root.taken[holder] then old[#old + 1] = holder end
  end
  match.pairs(new, old, function(holder, other)
    self.old_of[holder.node] = other
    root.taken[other] = true
  end)
end

--- Copies values from the predecessor to the tensors of a root.
local function take_over(self, root)
  root.before = root.before or predecessor(self, root.name, root.class)
  if root.before then pair_holders(self, root) end
  for _, holder in ipairs(root.holders) do fill(self, holder.node, holder.tensors, holder.keys) end
end

local function search(self, root)
  root.holders = match.holders(root.value, self.seen)
  take_over(self, root)
end

local function class_of(value)
  local class = type(value) == "table" and getmetatable(value)
  return class and class.__name or type(value)
end

local function add_root(self, name, value)
  for i, root in ipairs(self.roots) do
    if root.name == name then table.remove(self.roots, i) end -- the variable holds another network now
  end
  local root = {name = name, value = value, class = class_of(value)}
  self.roots[#self.roots + 1] = root
  self.root_of[value] = root
  search(self, root)
end

--- Names a network that no variable holds by its class and a number.
local function add_unnamed(self, value)
  local n = 1
  for _, root in ipairs(self.roots) do
    if root.name:sub(1, 1) == "(" and root.class == class_of(value) then n = n + 1 end
  end
  add_root(self, ("(%s %d)"):format(class_of(value), n), value)
end

local function note(self, name, value, kind)
  if kind == "optimizer" or kind == "dataset" then
    if self.look_of[value] ~= self.looks then self.name_of[value] = name end
    self.look_of[value], self.objects[name] = self.looks, value
    return
  end
  local root = self.root_of[value]
  if not root then
    if not self.seen[value] then add_root(self, name, value) end
  elseif root.look ~= self.looks and not root.before and root.name ~= name then
    root.name = name
    take_over(self, root)
  end
  root = self.root_of[value]
  if root then root.look = self.looks end
end

--- Looks at all variables.
local function look_again(self)
  self.looked, self.waiting, self.looks = module.version(), false, self.looks + 1
  self.seen, self.look_of = weak(), weak()
  for _, root in ipairs(self.roots) do search(self, root) end
  variables.each(self.thread, self.chunk, self.known, function(...) note(self, ...) end)
end

function Run:look()
  if self.looked ~= module.version() or self.waiting then look_again(self) end
end

function Run:called(m)
  if self.looked == module.version() and not self.waiting and self.seen[m] then return end
  look_again(self)
  if not self.seen[m] then add_unnamed(self, m) end
end

function Run:made(m)
  local keys, tensors = {}, {}
  for _, key in ipairs(module.public_keys(m)) do
    if core.is_tensor(m[key]) then keys[#keys + 1], tensors[key] = key, m[key] end
  end
  fill(self, m, tensors, keys)
  if self.seen[m] then self.looked = module.version() end
  for _, key in ipairs(keys) do
    local came = self.came[tensors[key]]
    if not came or came.how ~= "kept" then return false end
  end
  return true
end

function Run:loaded(t)
  local came = self.came[t] or {how = "new"}
  came.loaded = true
  self.came[t] = came
  self.changes[t] = t:changes()
end

function Run:restored() self.is_restored = true end

function Run:goes_on() return next(self.claimed) ~= nil end

--- Does the script continue where the earlier run stopped? It does not when it uses another seed, or when it has loaded
--- a checkpoint itself.
function Run:goes_on_in_place()
  return self:goes_on() and not self.is_restored and self.seed == self.before.seed
end

-- ---- optimizers ----

--- The earlier optimizer that had most of the parameters. Of several, one of the same kind that none has taken over
--- yet.
local function memory_of(self, optimizer)
  local best, most = nil, 0
  for _, old in ipairs(self.before and self.before.optimizers or {}) do
    local count = 0
    for _, entry in ipairs(optimizer._entries) do
      local came = self.came[entry.tensor]
      if came and came.from and old.slots[came.from] then count = count + 4 end
    end
    if count > 0 then
      count = count + (old.kind == optimizer.name and 2 or 0) + (self.taken[old] and 0 or 1)
      if count > most then best, most = old, count end
    end
  end
  return best
end

local function remember(self, optimizer, entry, old)
  local came = self.came[entry.tensor]
  if self.remembered[entry] or not came then return end
  self.remembered[entry] = true
  local slots = came.from and old.slots[came.from]
  if came.how == "re-initialised" or not slots or next(slots) == nil then return end
  optimizer.allocate(entry, optimizer.slots)
  for _, slot in ipairs(optimizer.slots) do
    if slots[slot] and not slots[slot]:is_released() then core.no_grad(match.take, entry[slot], slots[slot]) end
  end
end

function Run:optimizes(optimizer)
  local list, known, is_new = {}, true, true
  for _, entry in ipairs(optimizer._entries) do known = known and self.seen[entry.tensor] end
  for _, group in ipairs(known and {} or optimizer.groups) do
    if not self.root_of[group.root] then add_unnamed(self, group.root) end
  end
  for _, other in ipairs(self.optimizers) do
    local alive = other == optimizer
    for _, entry in ipairs(other._entries) do alive = alive or self.seen[entry.tensor] end
    if alive then list[#list + 1] = other end
    is_new = is_new and other ~= optimizer
  end
  if is_new then list[#list + 1] = optimizer end
  self.optimizers = list
  local old = self.memory[optimizer]
  if not old then
    old = memory_of(self, optimizer)
    if not old then return end
    self.memory[optimizer], self.taken[old] = old, true
    if old.kind == optimizer.name then optimizer.steps = old.steps end
  end
  if old.kind ~= optimizer.name then return end
  for _, entry in ipairs(optimizer._entries) do remember(self, optimizer, entry, old) end
end

-- ---- training ----


--- Makes optimizers in variables look for their parameters now, so that they take over their slots before their first
--- step. Optimizers whose parameters are not made yet fail here, and do it at their first step.
local function find_parameters(self)
  local names = {}
  for name, object in pairs(self.objects) do
    if Optimizer.is_optimizer(object) and not self.memory[object] then names[#names + 1] = name end
  end
  table.sort(names, core.before)
  for _, name in ipairs(names) do pcall(Optimizer.find_parameters, self.objects[name]) end
end

function Run:seeded(n) self.seed = n end

function Run:trains()
  if self.training then return end
  self.training = true
  look_again(self)
  if self.waiting then -- parameters that a graph still refers to: it may be garbage
    core.collect()
    look_again(self)
  end
  find_parameters(self)
  self.variables = variables.of_script(self.thread, self.chunk)
  if not self:goes_on_in_place() then return end
  core.set_random_state(table.unpack(self.before.random))
  math.randomseed(table.unpack(self.before.lua_random))
  random.streams = self.before.streams
end

--- After an error of the script: finds its networks and optimizers while its variables are still on the stack.
function Run:fails()
  self:look()
  find_parameters(self)
  self.variables = variables.of_script(self.thread, self.chunk)
end

--- From the first step on parameters without a predecessor are settled: a later match does not overwrite their values.
local function settle(self)
  self.settled = self.looks
  for _, root in ipairs(self.roots) do
    for _, holder in ipairs(root.holders) do
      for _, key in ipairs(self.old_of[holder.node] and {} or holder.keys) do
        local t = holder.tensors[key]
        self.came[t] = self.came[t] or {how = "new"}
      end
    end
  end
end

function Run:stepped()
  self.steps = self.steps + 1
  self.random[1], self.random[2] = core.random_state()
  self.streams = random.streams
  for dataset in pairs(self.open) do self.done[dataset] = dataset.position.examples end
  if self.settled ~= self.looks then
    settle(self)
    for _, optimizer in ipairs(self.optimizers) do self:optimizes(optimizer) end
    find_parameters(self)
  end
  if self.on_step then self.on_step(self) end
end

-- ---- data ----

function Run:load(path, load)
  local time, size = core.file_time(path)
  local kept = self.cache[path]
  self.used[path] = true
  if kept and kept.time == time and kept.size == size and not kept.tensor:is_released()
    and kept.tensor:changes() == kept.changes then
    self.kept_files = self.kept_files + 1
    return kept.tensor
  end
  local t, message = load(path)
  if not t then return nil, message end
  self.cache[path] = {time = time, size = size, tensor = t:keep(), changes = t:changes()}
  return t
end

--- Sets a dataset to where the earlier run was: behind the rows of the pass that were trained on, or at the pass's end.
local function seek(self, dataset, name, epoch)
  local old = self.before and self.before.datasets[name]
  if not old or self.resumed[name] or dataset.resumed or not self:goes_on_in_place() then return end
  self.resumed[name] = true
  local is_same = old.rows == #dataset and old.seed == dataset.seed and (epoch == nil or epoch == old.epoch)
  dataset.stream = old.stream
  if old.is_open and is_same then
    dataset:load_state{epoch = old.epoch, examples = old.examples, seed = dataset.seed}
    self.went_on[#self.went_on + 1] = ("behind %d of %d rows of %s"):format(old.examples, #dataset, name)
  elseif dataset.position.epoch == 0 then
    dataset.position = {epoch = old.epoch, examples = #dataset}
  end
end

function Run:pass(dataset, epoch)
  self:trains()
  if not self.name_of[dataset] then look_again(self) end
  local name = self.name_of[dataset]
  if name then seek(self, dataset, name, epoch) end
  self.open[dataset], self.done[dataset] = self.steps, nil
end

function Run:batch(dataset, more)
  self.random[1], self.random[2] = core.random_state()
  self.streams = random.streams
  self.done[dataset] = dataset.position.examples
  if not more then self.open[dataset] = nil end
end

return Run
