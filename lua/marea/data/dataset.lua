-- SPDX-License-Identifier: MIT
--- Tensors that belong together, row by row, and the passes over them in batches.
---
---   local train = data.Dataset{ {"image", images, dtype = "f32", scale = 1 / 255}, {"label", labels} }
---   for x, y in train:batches(128, {shuffle = true}) do ... end
---
--- Everything that an iteration makes lives until the next one begins: the pass carries a scope, which also ends on
--- break and on an error. What must live longer is a number (loss:item()) or was kept (t:keep()).
local core = require "marea.core"
local check = require "marea.internal.check"
local attempt = require "marea.internal.attempt"
local events = require "marea.internal.events"
local random = require "marea.internal.random"
local by_length = require "marea.data.by_length"
local ops = core.ops

---@class Dataset
---@example train = data.Dataset{{"image", marea.normal{10, 4}}, {"label", marea.randint({10}, 1, 3)}}
---@example for x, y in train:batches(4) do last = x.shape end
---@example last
local Dataset = {__name = "Dataset"}
Dataset.__index = Dataset

---@class Batches
---@field steps integer batches of the pass
---@field step integer batches delivered, counted from the beginning of the pass
---@field examples integer rows of the pass
---@field epoch integer
local Batches = {}
Batches.__index = Batches

-- ---- the dataset ----

--- A source makes rows when they are asked for: {dtype =, shape =} and source:rows(numbers) -> tensor (n, ...), for a
--- list of numbers of rows. If it has `ahead`, source:prefetch(numbers) is told so many of the rows that come next
--- before each batch, from the first row of that batch on. data.folder has such a field.
local function is_source(value)
  return type(value) == "table" and type(value.rows) == "function" and value.shape ~= nil and value.dtype ~= nil
end

local function read_field(i, given)
  if core.is_tensor(given) then given = {tostring(i), given} end
  given = check.options("Dataset", given, {"dtype", "scale"}, 2)
  local name, t = given[1], given[2]
  check.string("Dataset", ("%d, name"):format(i), name)
  local scale = given.scale and check.number("Dataset", "scale", given.scale)
  local field = {name = name, dtype = given.dtype or scale and "f32" or nil, scale = scale}
  if is_source(t) then
    field.source = t
    return field
  end
  check.tensor("Dataset", name, t)
  if t.rank == 0 then check.fail("Dataset", name, "a tensor with at least one dimension", t) end
  field.tensor = t
  return field
end

--- What a field's rows are: dtype, and shape with the number of rows first.
local function described(field) return field.tensor or field.source end

local function rows_of(field) return field.numbers and field.numbers:size(1) or described(field).shape[1] end

--- Every dataset has its own stream of orders. So a script that makes a new dataset for each epoch, each of which
--- begins at its first epoch, does not get the same order each time.
local function new(fields, seed)
  local self = setmetatable({fields = fields, position = {epoch = 0, examples = 0}, seed = seed,
    stream = random.new_stream(), _identity = {}}, Dataset)
  self.size = rows_of(fields[1])
  for _, field in ipairs(fields) do
    if rows_of(field) ~= self.size then
      check.raise("Dataset: '%s' has %d rows, '%s' has %d", fields[1].name, self.size, field.name, rows_of(field))
    end
  end
  return self
end

--- A list of tensors or of {name, tensor, dtype =, scale =}: batches hold them in this order, converted to `dtype` and
--- multiplied with `scale`. seed: the seed of the orders; datasets with the same one have the same orders. When it is
--- left out, the orders depend on marea.seed and on how many datasets were made since, so that each has its own.
local function construct(_, options)
  options = check.options("Dataset", options, {"seed"}, math.maxinteger)
  if #options == 0 then check.raise("Dataset: expected a list of tensors, got an empty one") end
  local fields = {}
  for i = 1, #options do fields[i] = read_field(i, options[i]) end
  return new(fields, options.seed and check.integer("Dataset", "seed", options.seed))
end

function Dataset:__len() return self.size end

function Dataset:__tostring()
  local parts = {}
  for i, field in ipairs(self.fields) do
    local what, shape = described(field), core.shape{table.unpack(described(field).shape)}
    shape[1] = rows_of(field)
    parts[i] = ("%s %s %s"):format(field.name, what.dtype, check.shape_text(shape))
  end
  return core.printable(("Dataset(%d rows: %s)"):format(self.size, table.concat(parts, ", ")))
end

--- The whole tensor of a field, as it is stored.
---@param name string
---@return userdata
---@example data.Dataset{{"image", marea.normal{10, 4}}}:field "image"
function Dataset:field(name)
  local names = {}
  for i, field in ipairs(self.fields) do
    if field.name == name and field.tensor then return field.tensor end
    if field.name == name then
      check.raise("Dataset: field '%s' is not kept in memory, but for what rows{...} and batches give", name)
    end
    names[i] = field.name
  end
  check.raise("Dataset: there is no field '%s'%s", tostring(name), check.did_you_mean(tostring(name), names))
end

--- The field with some of its rows, which cut(t) gives for a tensor.
local function part_of(field, cut)
  local new_field = {name = field.name, dtype = field.dtype, scale = field.scale, source = field.source}
  if field.tensor then new_field.tensor = cut(field.tensor)
  else new_field.numbers = cut(field.numbers or ops.arange(1, rows_of(field), {dtype = "i64"})):keep() end
  return new_field
end

--- Rows `first` to `last` (1-based, both included) as a dataset over the same memory.
---@param first integer
---@param last integer
---@return Dataset
---@example data.Dataset{marea.normal{10, 4}}:subset(1, 5)
function Dataset:subset(first, last)
  check.integer("subset", "first", first, 1)
  check.integer("subset", "last", last, first)
  if last > self.size then check.raise("subset: row %d of a dataset of %d rows", last, self.size) end
  local fields = {}
  for i, field in ipairs(self.fields) do
    fields[i] = part_of(field, function(t) return t:narrow(1, first, last - first + 1) end)
  end
  return new(fields, self.seed)
end

--- `n` rows at equal distances, the first one among them, as a dataset of its own: a part that is like the whole even
--- where rows are sorted.
---@param n integer from 1 to the number of rows
---@return Dataset
---@example data.Dataset{marea.arange(1, 10)}:spaced(5):rows{1, 2}
function Dataset:spaced(n)
  check.integer("spaced", "n", n, 1)
  if n > self.size then check.raise("spaced: %d rows of a dataset of %d rows", n, self.size) end
  local rows = {}
  for i = 1, n do rows[i] = (i - 1) * self.size // n + 1 end
  local index, fields = core.tensor(rows, {dtype = "i64"}), {}
  for i, field in ipairs(self.fields) do
    fields[i] = part_of(field, function(t) return ops.index_select(t, index, {dim = 1}):keep() end)
  end
  return new(fields, self.seed)
end

--- The numbers of rows as a list.
local function listed(field, index)
  if field.numbers then index = ops.index_select(field.numbers, index, {dim = 1}) end
  return index:totable()
end

local function pick(field, index)
  if field.source then
    local rows = field.source:rows(listed(field, index))
    if not field.dtype then return rows end
    index = ops.arange(1, rows:size(1), {dtype = "i64"})
    return ops.index_select(rows, index, {dim = 1, dtype = field.dtype, scale = field.scale})
  end
  return ops.index_select(field.tensor, index, {dim = 1, dtype = field.dtype, scale = field.scale})
end

--- Rows by their numbers, as batches hold them.
---@param index userdata|integer[] 1-based
---@return userdata ... one tensor for each field
---@example data.Dataset{marea.arange(1, 10)}:rows{3, 1}
function Dataset:rows(index)
  if not core.is_tensor(index) then index = core.tensor(index, {dtype = "i64"}) end
  local rows = {}
  for i, field in ipairs(self.fields) do rows[i] = pick(field, index) end
  return table.unpack(rows)
end

-- ---- a pass ----

local SHUFFLE = 0x9E3779B97F4A7C15 -- changes the seed, so that orders are independent of other draws with one seed

--- Spreads the bits of an integer; 0 stays 0 (splitmix64: Steele, Lea, Flood, OOPSLA 2014).
local function mix(z)
  z = (z ~ z >> 30) * 0xBF58476D1CE4E5B9
  z = (z ~ z >> 27) * 0x94D049BB133111EB
  return z ~ z >> 31
end

--- The shuffled order of a pass: a function of seed, stream, epoch, lengths and batch size alone. The random state is
--- as before afterwards.
local function permutation(self, epoch, lengths, size)
  local seed, counter = core.random_state()
  local order
  core.shield(nil, function()
    core.set_random_state((self.seed or seed ~ mix(self.stream)) ~ SHUFFLE, epoch << 32)
    order = core.scope(function()
      local rows = ops.permutation(self.size)
      return lengths and by_length.shuffled(rows, lengths, size) or rows
    end):keep()
    core.set_random_state(seed, counter)
  end)
  return order
end

local last_seeded = {} -- the last shuffled pass with a seed of its own: identity of its dataset, seed, epoch, size

--- The order of a pass, i64 (N).
local function order_of(self, epoch, size, options)
  local lengths = options.by_length and by_length.lengths(self, options.by_length)
  if options.shuffle then return permutation(self, epoch, lengths, size) end
  local rows = ops.arange(1, self.size, {dtype = "i64"})
  return (lengths and by_length.sorted(rows, lengths) or rows):keep()
end

--- Warns when a pass has the order of the pass before, because the script made a new dataset with the same seed.
local function note_order(self, epoch, is_given)
  local last = last_seeded
  if warn and not is_given and last.identity and last.identity ~= self._identity and last.seed == self.seed
    and last.epoch == epoch and last.size == self.size then
    warn(("Dataset: the order of seed %d and epoch %d comes again, as another dataset had it; keep one dataset for all "
      .. "epochs, or give batches the epoch"):format(self.seed, epoch))
  end
  last_seeded = {identity = self._identity, seed = self.seed, epoch = epoch, size = self.size}
end

local BATCH_OPTIONS = {"shuffle", "epoch", "from", "drop_last", "by_length"}

--- A pass in batches, for a generic for: `for x, y in train:batches(128, {shuffle = true}) do`.
---   shuffle    in an order of its own for each dataset and epoch (false)
---   epoch      the number of the pass; left out, one more than that of the last pass
---   from       the batch to begin with; left out, 1, or the one after the position that load_state has set
---   drop_last  leaves out the last batch when it is smaller (false)
---   by_length  the name of a field of lengths, i64 (N): batches are of rows of nearly the same length. Shuffled, the
---              rows of 100 batches are sorted together and the batches drawn in any order; else the shortest are first
--- When an iteration ends by an error, Ctrl-C among them, before an optimizer has updated the weights, its batch counts
--- as not delivered, and random state and running statistics are as before it; load_state(state()) goes on with it.
---@param size integer
---@param options? {shuffle: boolean?, epoch: integer?, from: integer?, drop_last: boolean?, by_length: string?}
---@return Batches, nil, nil, Batches
---@example for x in data.Dataset{marea.normal{10, 4}}:batches(4, {shuffle = true}) do last = x.shape end
---@example last
function Dataset:batches(size, options)
  if type(self) ~= "table" then check.fail("batches", "self", "a data set", self) end
  check.integer("batches", "size", size, 1)
  options = check.options("batches", options, BATCH_OPTIONS)
  if events.watcher then events.watcher:pass(self, options.epoch) end
  local resumed = self.resumed
  local epoch = options.epoch or resumed and resumed.epoch or self.position.epoch + 1
  check.integer("batches", "epoch", epoch, 0)
  local done = resumed and resumed.epoch == epoch and resumed.examples or 0
  if options.from then done = (check.integer("batches", "from", options.from, 1) - 1) * size end
  local last = options.drop_last and self.size - self.size % size or self.size
  if options.shuffle and self.seed then note_order(self, epoch, options.epoch ~= nil) end
  local order = order_of(self, epoch, size, options)
  self.position, self.resumed = {epoch = epoch, examples = math.min(done, last)}, nil
  local pass = setmetatable({
    dataset = self, order = order, size = size, last = last, epoch = epoch, position = self.position,
    examples = last, steps = (last + size - 1) // size, step = done // size,
  }, Batches)
  return pass, nil, nil, pass
end

--- Where the last pass stands: the rows that were delivered, for checkpoints.
---@return {epoch: integer, examples: integer, seed: integer?, stream: integer}
function Dataset:state()
  return {epoch = self.position.epoch, examples = self.position.examples, seed = self.seed, stream = self.stream}
end

--- The next pass of that epoch begins behind the rows that were delivered.
---@param state {epoch: integer, examples: integer, seed: integer?, stream: integer?} what state() gave
function Dataset:load_state(state)
  state = check.options("load_state", state, {"epoch", "examples", "seed", "stream"})
  for _, name in ipairs{"epoch", "examples"} do check.integer("load_state", name, state[name], 0) end
  for _, name in ipairs{"seed", "stream"} do
    if state[name] ~= nil then check.integer("load_state", name, state[name]) end
  end
  self.resumed = {epoch = state.epoch, examples = state.examples}
  self.position = {epoch = state.epoch, examples = state.examples}
  self.seed, self.stream = state.seed, state.stream or self.stream
end

--- Ends an iteration. One that an error ended before the weights were updated counts as not begun: its rows are
--- delivered again, and the random state and running statistics are put back to what they were before it.
local function end_iteration(self, problem)
  local scope, try = self.scope, self.attempt
  self.scope, self.attempt = nil, nil
  if try and problem == nil then try:close() end
  if try and problem ~= nil then
    if try:is_unfinished() then self.position.examples = self.done end
    try:undo()
  end
  if scope then scope:close() end
end

--- Tells the sources which rows come next.
local function prefetch(self, done)
  for _, field in ipairs(self.dataset.fields) do
    local ahead = field.source and field.source.ahead
    if ahead then
      local coming = self.order:narrow(1, done + 1, math.min(ahead, self.last - done))
      field.source:prefetch(listed(field, coming))
    end
  end
end

--- The next batch; nil after the last one.
function Batches:__call()
  end_iteration(self)
  local done = self.position.examples
  if events.watcher then events.watcher:batch(self.dataset, done < self.last) end
  if done >= self.last then
    self:__close()
    return nil
  end
  self.done, self.attempt = done, attempt.begin()
  self.scope = core.scope()
  local count = math.min(self.size, self.last - done)
  self.position.examples = done + count
  self.step = self.step + 1
  prefetch(self, done)
  return self.dataset:rows(self.order:narrow(1, done + 1, count))
end

Batches.__close = core.closer(function(self, problem)
  end_iteration(self, problem)
  self.order:release()
end)

function Batches:__len() return self.steps end

return setmetatable(Dataset, {__call = construct})
