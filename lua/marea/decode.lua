-- SPDX-License-Identifier: MIT
--- marea.decode: numbers from a model that tells, of what came so far, how likely each number is to come next.
---
--- A model is a function: logits, state = step(numbers, state). numbers: i64 (N), the last one of each row; logits:
--- (N, V), of which softmax gives the probabilities (-infinity for what cannot come); state: what the model keeps,
--- the states of an LSTM or a key-value cache, nil at first. A row of logits that are all -infinity, or one with NaN or
--- infinity, is an error that names it. What is drawn depends on the random state (marea.seed) and on nothing else.
local core = require "marea.core"
local check = require "marea.internal.check"
local ops = core.ops

local decode = {}

--- The numbers that the rows begin with, i64 (N).
local function first_numbers(what, first)
  if math.type(first) == "integer" then first = {first} end
  if type(first) == "table" and check.is_plain(first) then
    check.items(what, "first", first, "a number, a list of numbers or a tensor i64 (N)", 1)
    first = core.tensor(first, {dtype = "i64"})
  end
  if not core.is_tensor(first) or first.rank ~= 1 or first.dtype ~= "i64" or #first == 0 then
    check.fail(what, "first", "a number, a list of numbers or a tensor i64 (N)", first)
  end
  return first
end

local function check_step(what, step)
  local meta = getmetatable(step)
  if type(step) ~= "function" and not (type(meta) == "table" and meta.__call) then
    check.fail(what, "step", "a function", step)
  end
end

--- Refuses logits of which softmax gives no probabilities. Gives the largest of each row, (N, 1).
local function want_logits(what, logits, owners)
  local largest = logits:max{dims = {2}, keepdim = true}
  for i, value in ipairs(largest:reshape(-1):totable()) do
    if not (value > -math.huge and value < math.huge) then
      local what_is = value ~= value and "hold NaN" or value > 0 and "hold infinity"
        or "are all -infinity, so that no number can come next"
      check.raise("%s: the logits of row %d %s", what, owners and owners[i] or i, what_is)
    end
  end
  return largest
end

--- One step of the model, nothing recorded: logits, the state after it, the largest of each row (N, 1).
---@param owners? integer[] the rows for messages, where `numbers` has several of one
local function advance(what, step, numbers, state, owners)
  local logits, after = core.no_grad(function() return step(numbers, state) end)
  if not core.is_tensor(logits) then check.fail(what, "step", "a function that gives logits and state", logits) end
  if logits.rank ~= 2 or #logits ~= #numbers or logits:size(2) == 0 then
    check.raise("%s: step gave logits %s for %d rows, expected (%d, V)", what, check.shape_text(logits.shape), #numbers,
      #numbers)
  end
  return logits, after, want_logits(what, logits, owners)
end

--- Logits in falling order, those that are not to be drawn -inf, and the numbers they belong to.
local function candidates(logits, options)
  local most = logits:size(2)
  local values, numbers = logits:topk(math.min(options.top_k or most, most))
  values = (values - values:narrow(2, 1, 1)) / options.temperature
  if options.top_p < 1 then
    local p = values:softmax(2)
    values = values:masked_fill((p:cumsum(2) - p):ge(options.top_p), -math.huge)
  end
  return values, numbers
end

--- largest (N, 1), of each row: differences can be divided by any temperature, at worst they are -infinity.
local function draw(logits, largest, options)
  if options.temperature == 0 then return logits:argmax(2) end
  if not options.top_k and options.top_p == 1 then
    return ops.categorical((logits - largest) / options.temperature)
  end
  local values, numbers = candidates(logits, options)
  return numbers:gather(ops.categorical(values):reshape(#logits, 1), 2):reshape(#logits)
end

local COLDEST = 1e-20 -- of temperatures that differences of logits are divided by, in f32

--- A temperature that is too near to 0 to be divided by is 0: the most likely number.
local function read_temperature(what, given)
  local temperature = check.number(what, "temperature", given or 1, 0)
  return temperature >= COLDEST and temperature or 0
end

local function drawing_options(what, options)
  local o = check.options(what, options, {"temperature", "top_k", "top_p", "stop", "length"})
  local top_p = check.number(what, "top_p", o.top_p or 1, 0, 1)
  if top_p == 0 then check.fail(what, "top_p", "a number above 0, at most 1", top_p) end
  return {
    temperature = read_temperature(what, o.temperature), top_p = top_p,
    top_k = o.top_k and check.integer(what, "top_k", o.top_k, 1),
    stop = o.stop and check.integer(what, "stop", o.stop),
    length = check.integer(what, "length", o.length or 100, 0),
  }
end

--- Notes in `ended` the rows whose number is the one that ends a text; are all of them there?
local function note_ends(numbers, stop, ended)
  for i, number in ipairs(numbers) do
    if number == stop and not ended[i] then ended[i], ended.n = true, ended.n + 1 end
  end
  return ended.n == #numbers
end

local function stream(what, step, first, state, o)
  check_step(what, step)
  local numbers, done, ended = first_numbers(what, first), 0, {n = 0}
  return function()
    if done >= o.length or ended.n == #numbers then return nil end
    local logits, largest
    logits, state, largest = advance(what, step, numbers, state)
    numbers, done = draw(logits, largest, o), done + 1
    local list = numbers:totable()
    if note_ends(list, o.stop, ended) and #list == 1 then return nil end
    for i in pairs(ended) do
      if i ~= "n" then list[i] = o.stop end
    end
    return #list == 1 and list[1] or list
  end
end

--- An iterator over numbers as they are drawn: of one row a number, of more a list, in which rows that have ended have
--- the number `stop`. The loop may be left at any time. Without `stop` and behind it nothing comes; state as in sample.
---@param step fun(numbers: userdata, state: any): userdata, any
---@param first integer|integer[]|userdata the numbers that the rows begin with, i64 (N); they are not given back
---@param state? any
---@param options? {temperature: number?, top_k: integer?, top_p: number?, stop: integer?, length: integer?}
---@return fun(): integer|integer[]|nil
---@example function step(numbers) return marea.one_hot(numbers % 3 + 1, 3):to "f32" * 50 end
---@example for number in marea.decode.stream(step, 1, nil, {length = 4}) do last = number end
---@example last
function decode.stream(step, first, state, options)
  return stream("stream", step, first, state, drawing_options("stream", options))
end

local function collect(what, step, first, state, o)
  first = first_numbers(what, first)
  local rows, ended = {}, {}
  for i = 1, #first do rows[i] = {} end
  for numbers in stream(what, step, first, state, o) do
    for i, number in ipairs(#rows == 1 and {numbers} or numbers) do
      ended[i] = ended[i] or number == o.stop
      if not ended[i] then table.insert(rows[i], number) end
    end
  end
  return rows
end

--- Draws numbers, one after another, each with the probabilities softmax(logits / temperature).
---   temperature  1; below it likely numbers come more often, 0 is greedy
---   top_k        only the k most likely numbers (all)
---   top_p        only the most likely numbers that together have at least this probability (1; Holtzman et al. 2020)
---   stop         the number that ends a row, which is not given back
---   length       numbers of a row at most (100)
---@param step fun(numbers: userdata, state: any): userdata, any
---@param first integer|integer[]|userdata the numbers that the rows begin with, i64 (N); they are not given back
---@param state? any the state that belongs to them, as after a prompt
---@param options? {temperature: number?, top_k: integer?, top_p: number?, stop: integer?, length: integer?}
---@return integer[][] rows
---@example function step(numbers) return marea.one_hot(numbers % 3 + 1, 3):to "f32" * 50 end
---@example marea.decode.sample(step, {1, 2}, nil, {top_k = 2, length = 4})
function decode.sample(step, first, state, options)
  return collect("sample", step, first, state, drawing_options("sample", options))
end

--- The most likely number at each step, the least of equally likely ones.
---@param step fun(numbers: userdata, state: any): userdata, any
---@param first integer|integer[]|userdata the numbers that the rows begin with, i64 (N); they are not given back
---@param state? any
---@param options? {stop: integer?, length: integer?} as of sample
---@return integer[][] rows
---@example function step(numbers) return marea.one_hot(numbers % 3 + 1, 3):to "f32" end
---@example marea.decode.greedy(step, 1, nil, {stop = 3})
function decode.greedy(step, first, state, options)
  local o = check.options("greedy", options, {"stop", "length"})
  o = drawing_options("greedy", {temperature = 0, stop = o.stop, length = o.length})
  return collect("greedy", step, first, state, o)
end

-- ---- beam search ----

--- The state of other rows: tensors, also those in tables, have their rows in the first dimension.
local function select_rows(state, rows)
  if core.is_tensor(state) then return state:index_select(rows) end
  if type(state) ~= "table" then return state end
  local out = {}
  for key, value in pairs(state) do out[key] = select_rows(value, rows) end
  return out
end

--- The divisor of a log probability (Wu et al. 2016, equation 14).
local function penalty(length, alpha) return ((5 + length) / 6) ^ alpha end

local function by_score(a, b)
  if a.score ~= b.score then return a.score > b.score end
  return a.order < b.order
end

--- Puts a hypothesis among the best of a row, of which there are at most `width`.
local function finish(row, numbers, log_prob, length, o)
  row.order = row.order + 1
  local score = log_prob / penalty(length, o.alpha)
  local found = {numbers = numbers, log_prob = log_prob, score = score, order = row.order}
  table.insert(row.done, found)
  table.sort(row.done, by_score)
  row.done[o.width + 1] = nil
end

--- All continuations of a row's beams that can be among the best, in falling order of their log probability.
local function continuations(row, values, numbers)
  local list = {}
  for b, beam in ipairs(row.beams) do
    for k, value in ipairs(values[beam.at]) do
      if value == -math.huge then break end
      list[#list + 1] = {score = beam.log_prob + value, number = numbers[beam.at][k], beam = beam, order = b << 32 | k}
    end
  end
  table.sort(list, by_score)
  return list
end

local function extended(numbers, number)
  local list = table.move(numbers, 1, #numbers, 1, {})
  list[#list + 1] = number
  return list
end

--- Goes on with the best continuations of a row; those that end are put aside.
local function grow(row, values, numbers, length, o)
  local beams = {}
  for _, c in ipairs(continuations(row, values, numbers)) do
    if #beams == o.width then break end
    if c.number == o.stop then finish(row, c.beam.numbers, c.score, length, o)
    else
      beams[#beams + 1] = {numbers = extended(c.beam.numbers, c.number), log_prob = c.score, parent = c.beam.at}
    end
  end
  local worst = row.done[o.width]
  local is_beaten = worst and beams[1] and beams[1].log_prob / penalty(o.length, o.alpha) <= worst.score
  row.beams = is_beaten and {} or beams
end

--- The beams of all rows one after another: their last numbers, the rows of the state that they come from, and the
--- rows that they belong to.
local function gather_beams(rows)
  local last, parents, owners = {}, {}, {}
  for i, row in ipairs(rows) do
    for _, beam in ipairs(row.beams) do
      last[#last + 1], parents[#parents + 1], owners[#owners + 1] = beam.numbers[#beam.numbers], beam.parent, i
      beam.at = #last
    end
  end
  if #last == 0 then return nil end
  return core.tensor(last, {dtype = "i64"}), core.tensor(parents, {dtype = "i64"}), owners
end

local function beam_options(options)
  local o = check.options("beam", options, {"width", "alpha", "stop", "length", "select"})
  if o.select ~= nil and type(o.select) ~= "function" then check.fail("beam", "select", "a function", o.select) end
  return {
    width = check.integer("beam", "width", o.width or 4, 1), alpha = check.number("beam", "alpha", o.alpha or 0, 0),
    stop = o.stop and check.integer("beam", "stop", o.stop), select = o.select or select_rows,
    length = check.integer("beam", "length", o.length or 100, 1),
  }
end

local function search(step, numbers, state, rows, o)
  local owners
  for length = 1, o.length do
    local logits
    logits, state = advance("beam", step, numbers, state, owners)
    local best, which = logits:log_softmax(2):topk(math.min(o.width + 1, logits:size(2)))
    best, which = best:totable(), which:totable()
    for _, row in ipairs(rows) do grow(row, best, which, length, o) end
    local parents
    numbers, parents, owners = gather_beams(rows)
    if not numbers then return end
    state = core.no_grad(function() return o.select(state, parents) end)
  end
end

--- Searches the likeliest rows, `width` at a time. Their score is log_prob / ((5 + length) / 6)^alpha (Wu et al. 2016),
--- length with the number `stop`; the search of a row ends when no beam can come above the hypotheses that are done.
---   width   beams of a row, and hypotheses that are given back at most (4)
---   alpha   penalty of short rows (0: none)
---   stop    the number that ends a row, which is not given back
---   length  numbers of a row at most (100); rows that are not done then are hypotheses, too
---   select  select(state, rows) -> the state of these rows, i64 (M), some of them more than once; left out, rows are
---           in the first dimension of tensors, also of those in tables
---@param step fun(numbers: userdata, state: any): userdata, any
---@param first integer|integer[]|userdata the numbers that the rows begin with, i64 (N); they are not given back
---@param state? any
---@param options? {width: integer?, alpha: number?, stop: integer?, length: integer?, select: function?}
---@return {numbers: integer[], score: number, log_prob: number}[][] hypotheses of each row, the best one first
---@example function step(numbers) return marea.one_hot(numbers % 3 + 1, 3):to "f32" end
---@example marea.decode.beam(step, 1, nil, {width = 2, stop = 3, length = 4})[1][1].numbers
function decode.beam(step, first, state, options)
  check_step("beam", step)
  local numbers, o, rows = first_numbers("beam", first), beam_options(options), {}
  for i = 1, #numbers do
    rows[i] = {beams = {{numbers = {}, log_prob = 0, at = i}}, done = {}, order = 0}
  end
  search(step, numbers, state, rows, o)
  for i, row in ipairs(rows) do
    for _, beam in ipairs(row.beams) do finish(row, beam.numbers, beam.log_prob, #beam.numbers, o) end
    for _, found in ipairs(row.done) do found.order = nil end
    rows[i] = row.done
  end
  return rows
end

return check.strict(decode, "decode")
