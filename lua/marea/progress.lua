-- SPDX-License-Identifier: MIT
--- One line about a pass: where it is, the means of named values so far, examples a second, time left.
---
---   for x, y in data.progress(train:batches(128), "epoch 1") do ... end
---
---   local bar = data.progress(train:batches(128), "epoch 1")      -- with values
---   for x, y in bar:each() do ...; bar:show("loss", loss:item(), "KL", kl:item()) end
---   bar.means.loss
---
--- On a terminal the line is rewritten, at most ten times a second. Elsewhere lines are written, at most one in five
--- seconds and a tenth of the pass; the last one always comes.
local core = require "marea.core"
local amount = require "marea.internal.amount"
local check = require "marea.internal.check"
local format = core.format

---@class Progress
---@field means table<string, number> means so far of the values shown, weighted by the size of their batches
---@example train = data.Dataset{marea.normal{10, 4}}
---@example for x in data.progress(train:batches(5), {title = "epoch 1", stream = false}) do last = x.shape end
---@example last
local Progress = {__name = "Progress"}
Progress.__index = Progress

local NAMES = {"title", "unit", "stream", "total"}

--- @param source table|function what to iterate over: train:batches(...), or any iterator that needs no state
--- @param options? string|table the title, or {title=, unit = "images", stream = io.stderr (false: silent), total=}
local function new(_, source, options)
  if type(options) == "string" then options = {title = options} end
  options = check.options("progress", options, NAMES)
  local mt = getmetatable(source)
  if type(source) ~= "function" and not (type(mt) == "table" and mt.__call) then
    check.fail("progress", "source", "an iterator", source)
  end
  local counted = type(source) == "table"
  local stream = options.stream == nil and io.stderr or options.stream or nil
  local now = core.clock()
  local self = setmetatable({
    source = source,
    title = options.title or "",
    unit = options.unit or "images",
    stream = stream,
    steps = options.total or counted and source.steps or nil,
    step = counted and source.step or 0,
    terminal = stream == io.stderr and core.isatty(2) or stream == io.stdout and core.isatty(1) or false,
    started = now, drawn_at = now, drawn_step = 0, seen = 0, size = 0,
    order = {}, sums = {}, weights = {}, means = {},
  }, Progress)
  self.first_step = self.step
  self.drawn_step = self.step
  return self, nil, nil, self
end

--- For a generic for, with the closing value that ends the pass.
function Progress:each() return self, nil, nil, self end

local function number_text(x)
  if math.type(x) == "integer" then return ("%d"):format(x) end
  local size = math.abs(x)
  if x ~= x then return "nan" end
  if size >= 1000 then return format("%.0f", x) end
  if size >= 10 then return format("%.2f", x) end
  return size >= 0.01 and format("%.4f", x) or format("%.3g", x)
end

local function line_of(self, now)
  local parts = {}
  local function add(...) parts[#parts + 1] = format(...) end
  if self.title ~= "" then add("%s", self.title) end
  if self.steps then add("step %" .. #tostring(self.steps) .. "d/%d", self.step, self.steps)
  else add("step %d", self.step) end
  for _, name in ipairs(self.order) do add("%s %s", name, number_text(self.means[name])) end
  local elapsed = math.max(now - self.started, 1e-9)
  if self.seen > 0 then add("%.0f %s/s", self.seen / elapsed, self.unit) end
  local made = self.step - self.first_step
  if self.finished then add("in %s", amount.clock(elapsed))
  elseif self.steps and made > 0 then add("left %s", amount.clock(elapsed / made * (self.steps - self.step))) end
  return table.concat(parts, "  ")
end

-- The terminal clears the rest of the line (K) and cuts off what is too long (?7l, ?7h).
local function draw(self, now, last)
  if not self.stream then return end
  self.drawn_at, self.drawn_step = now, self.step
  local line = line_of(self, now)
  if self.terminal then
    self.stream:write("\r\27[?7l", line, "\27[K\27[?7h", last and "\n" or "")
    self.line_open = not last
  else
    self.stream:write(line, "\n")
  end
  self.stream:flush()
end

local function is_due(self, now)
  if self.terminal then return now - self.drawn_at >= 0.1 end
  return now - self.drawn_at >= 5 and (not self.steps or self.step - self.drawn_step >= self.steps / 10)
end

--- Shows values under their names from now on: pairs of a name and a number, the last batch's.
function Progress:show(...)
  local list = table.pack(...)
  for i = 1, list.n, 2 do
    local name, value = list[i], list[i + 1]
    check.string("show", tostring(i), name)
    check.number("show", name, value ~= value and 0 or value)
    if not self.sums[name] then
      self.order[#self.order + 1] = name
      self.sums[name], self.weights[name] = 0, 0
    end
    local weight = math.max(self.size, 1)
    self.sums[name] = self.sums[name] + value * weight
    self.weights[name] = self.weights[name] + weight
    self.means[name] = self.sums[name] / self.weights[name]
  end
end

local function finish(self)
  if self.finished then return end
  self.finished = true
  draw(self, core.clock(), true)
end

local function rows_of(value)
  return core.is_tensor(value) and value.rank > 0 and #value or 0
end

--- The next item of the source. What was shown belongs to the step before, so the line is drawn first.
function Progress:__call()
  self.step = self.step + (self.running and 1 or 0)
  self.seen = self.seen + self.size
  local now = core.clock()
  if self.running and is_due(self, now) and self.step ~= self.steps then draw(self, now) end
  local items = table.pack(self.source())
  self.running = items[1] ~= nil
  if not self.running then
    self.size = 0
    finish(self)
    return nil
  end
  self.size = rows_of(items[1])
  return table.unpack(items, 1, items.n)
end

--- Has Ctrl-C ended the terminal's line?
local function is_over(problem)
  return type(problem) == "string" and problem:find("interrupted!", 1, true) and core.interrupt_ends_line()
end

--- Ends a pass early: leaves the line as it stands and closes the source.
Progress.__close = core.closer(function(self, problem)
  if self.line_open and not is_over(problem) then self.stream:write "\n" end
  self.line_open = false
  local mt = getmetatable(self.source)
  if type(mt) == "table" and mt.__close then mt.__close(self.source, problem) end
end)

--- Seconds as a clock shows them: 75 -> "1:15", 3675 -> "1:01:15".
---@param seconds number
---@return string
---@example marea.progress.clock(3675)
function Progress.clock(seconds) return amount.clock(check.number("clock", "seconds", seconds, 0, 1e15)) end

return setmetatable(Progress, {__call = new})
