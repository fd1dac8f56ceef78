-- SPDX-License-Identifier: MIT
--- marea.profile: where the time of a script goes, by layer and operator, forward and backward, and how much of it is
--- the script's own.
---
---   local report = marea.profile(function()
---     for x in train:batches(128) do optimizer:step(loss(model, x)) end
---   end)
---   print(report)                                  -- sorted by time
---   print(report:table{by = "layer"})
---   assert(report:trace "out/trace.json")          -- for ui.perfetto.dev or chrome://tracing
---
--- marea.profile.start() and marea.profile.stop() do the same around what is no function.
---
--- Times are those of the wall clock, whatever the number of threads. An operator's is its self time, without the
--- operators that it runs in turn. A layer is the path of the module at work, as in error messages; operators of a
--- backward pass belong to the layer whose forward call they differentiate. FLOPs count 2 for a multiply-add of
--- products and convolutions, padding included, what the windows of pools and blur and gamma functions take, and 1 for
--- each element elsewhere; bytes are those of inputs and outputs. Behind the name of a convolution stands the algorithm
--- that it took, behind that of conv2d_backward those of the input's and the weight's gradient.
local core = require "marea.core"
local check = require "marea.internal.check"
local columns = require "marea.internal.columns"
local files = require "marea.internal.files"
local module = require "marea.nn.module"
local chrome_trace = require "marea.profile.chrome_trace"
local format = core.format

local profile = {}

local EVENTS = 100000 -- calls that are kept for the trace when the script gives no number
local LINES = 30 -- lines of a table when the script gives no number

-- ---- names of layers ----

local function order_of(prefix) return math.tointeger(prefix:match "^%d+") end

--- For every module under `roots` the outermost root that it is part of, as its order, and the path from there.
local function places(roots)
  local list, inside, place = {}, {}, {}
  for m, prefix in pairs(roots) do list[#list + 1] = {order = order_of(prefix), parts = module.modules(m)} end
  table.sort(list, function(a, b) return a.order < b.order end)
  for _, root in ipairs(list) do
    for i = 2, #root.parts do inside[root.parts[i].module] = true end
  end
  for _, root in ipairs(list) do
    for _, part in ipairs(inside[root.parts[1].module] and {} or root.parts) do
      place[part.module] = place[part.module] or {root = root.order, path = part.path}
    end
  end
  return place
end

local function join(a, b) return (a == "" or b == "") and a .. b or a .. "." .. b end

--- What the paths of each root begin with: nothing when there is one root, else its name, numbered where several have
--- the same.
local function titles(names)
  local orders, seen, total, title = {}, {}, {}, {}
  for order, name in pairs(names) do
    orders[#orders + 1] = order
    total[name] = (total[name] or 0) + 1
  end
  table.sort(orders)
  for _, order in ipairs(orders) do
    local name = names[order]
    seen[name] = (seen[name] or 0) + 1
    title[order] = #orders == 1 and "" or total[name] == 1 and name or ("%s#%d"):format(name, seen[name])
  end
  return title
end

--- Number of a layer -> its name; and a function that names the layer of a module.
local function layer_names(session)
  local layers, roots = session:layers()
  local place, at, paths, names = places(roots), {}, {}, {}
  for m, prefix in pairs(roots) do at[order_of(prefix)] = place[m] end
  for label, id in pairs(layers) do
    local prefix, name, path = label:match "^(%d+)\t(.-)\t(.*)$"
    local order = order_of(prefix)
    local there = at[order] or {root = order, path = ""}
    paths[id] = {root = there.root, path = join(there.path, path)}
    if there.root == order then names[order] = name end
  end
  local title, result = titles(names), {}
  local function name_at(found)
    local text = join(title[found.root] or "", found.path)
    return text == "" and names[found.root] or text
  end
  for id, found in pairs(paths) do result[id] = name_at(found) end
  return result, function(m) return place[m] and name_at(place[m]) end
end

-- ---- the report ----

---@class Report
---@field wall number seconds from start to stop
---@field operators number of these, in operators
---@field script number in the script: Lua, its arguments' way to the operators, files
---@field overhead number in the profile itself, which is in neither; shares leave it out
---@field script_share number 0 to 1
---@field rows table[] for each layer, operator and direction: layer ("" is none), op, direction ("forward" or
---  "backward"), calls, seconds (self time), total_seconds (with the operators that it ran), flop, bytes, algorithm
---  ("winograd", "direct", ... of convolutions; "winograd + direct" of both gradients; nil of other operators); the
---  operator "backward" is a pass without the operators that it runs
---@field calls integer of all operators
---@field events integer calls that are kept for the trace
local Report = {}
Report.__index = Report

local function add(sum, row, fields)
  for _, field in ipairs(fields) do sum[field] = sum[field] + row[field] end
end

--- Adds the algorithms of a row to those that are known, in the order in which they come.
local function add_algorithm(sum, algorithm)
  if not algorithm then return end
  if not sum.algorithm then
    sum.algorithm = algorithm
  elseif not (", " .. sum.algorithm .. ", "):find(", " .. algorithm .. ", ", 1, true) then
    sum.algorithm = sum.algorithm .. ", " .. algorithm
  end
end

--- The session's rows under the names of layers: one where several numbers have the same name, or several algorithms
--- were taken.
local function named_rows(session, names)
  local rows, known = {}, {}
  for _, row in ipairs(session:rows()) do
    row.layer = names[row.layer] or ""
    local key = table.concat({row.layer, row.op, row.direction}, "\0")
    local first = known[key]
    if first then
      add(first, row, {"calls", "seconds", "total_seconds", "flop", "bytes"})
      add_algorithm(first, row.algorithm)
    else
      known[key], rows[#rows + 1] = row, row
    end
  end
  return rows
end

local function new_report(session)
  local names, layer_of = layer_names(session)
  local function event(i) -- of the trace; nil after the last. The session itself is not for scripts.
    local e = session:event(i)
    if e then e.layer = names[e.layer] or "" end
    return e
  end
  local self = setmetatable({_event = event, _layer_of = layer_of, rows = named_rows(session, names)}, Report)
  local times = session:times()
  self.wall, self.overhead = times.wall, times.overhead
  self.events, self.calls = times.events, times.events + times.dropped
  self.operators = 0
  for _, row in ipairs(self.rows) do self.operators = self.operators + row.seconds end
  self.script = self.wall - self.overhead - self.operators
  self.script_share = self.script / (self.wall - self.overhead)
  return self
end

--- The layer that operators of a module belong to; nil for one that did not run, nor a module around it.
---@param m table
---@return string|nil
function Report:layer_of(m) return self._layer_of(m) end

local function before(a, b)
  if a.seconds ~= b.seconds then return a.seconds > b.seconds end
  return core.before(a.layer .. "\0" .. a.op, b.layer .. "\0" .. b.op)
end

local KEYS = {
  layer = function(row) return row.layer, "" end,
  op = function(row) return "", row.op end,
  both = function(row) return row.layer, row.op end,
}

local function no_calls()
  return {calls = 0, forward = 0, backward = 0, seconds = 0, share = 0, flop = 0, bytes = 0}
end

local function groups_of(self, what, by)
  local key = check.choice(what, "by", by or "both", KEYS)
  local list, groups = {}, {}
  for _, row in ipairs(self.rows) do
    local layer, op = key(row)
    local name = layer .. "\0" .. op
    local g = groups[name]
    if not g then
      g = no_calls()
      g.layer, g.op = layer, op
      groups[name], list[#list + 1] = g, g
    end
    add(g, row, {"calls", "seconds", "flop", "bytes"})
    if op ~= "" then add_algorithm(g, row.algorithm) end
    g[row.direction] = g[row.direction] + row.seconds
    g.share = g.seconds / (self.wall - self.overhead)
  end
  table.sort(list, before)
  return list
end

--- The rows put together: both directions, and with `by` all operators of a layer or all layers of an operator.
---@param by? "layer"|"op"|"both" initially "both"
---@return {layer: string, op: string, calls: integer, forward: number, backward: number, seconds: number,
---  share: number, flop: number, bytes: number, algorithm: string?}[] groups by time; seconds = forward + backward,
---  share of the whole time
function Report:group(by) return groups_of(self, "group", by) end

-- ---- the table ----

local HEADING = {"calls", "fwd ms", "bwd ms", "share", "GFLOP/s", "GB/s"}

local function percent(share) return format("%.1f %%", 100 * share) end

local function milliseconds(seconds) return seconds > 0 and format("%.2f", 1000 * seconds) or "" end

local function rate(amount, seconds)
  return amount > 0 and seconds > 0 and format("%.1f", amount / seconds * 1e-9) or ""
end

local function figures(g)
  return {("%d"):format(g.calls), milliseconds(g.forward), milliseconds(g.backward), percent(g.share),
    rate(g.flop, g.seconds), rate(g.bytes, g.seconds)}
end

--- Those that have no line of their own, as one.
local function rest_of(list, first)
  local rest = no_calls()
  for i = first, #list do
    add(rest, list[i], {"calls", "forward", "backward", "seconds", "share", "flop", "bytes"})
  end
  return rest
end

local function op_name(g) return g.algorithm and ("%s (%s)"):format(g.op, g.algorithm) or g.op end

--- A line with the names in the columns that this table has.
local function line_of(by, layer, op, cells)
  local names = by == "layer" and {layer} or by == "op" and {op} or {layer, op}
  return table.move(cells, 1, #cells, #names + 1, names)
end

local function footer(self)
  local net = self.wall - self.overhead
  local lines = {format("%.2f ms: operators %s, script (Lua and dispatch) %s; the profile took %.2f ms more",
    1000 * net, percent(self.operators / net), percent(self.script_share), 1000 * self.overhead)}
  if self.events < self.calls then
    lines[2] = ("the trace has the first %d of %d calls; profile takes events = N for more"):format(self.events,
      self.calls)
  end
  return lines
end

--- The groups as text, the slowest first. tostring(report) is report:table().
---@param options? {by: string?, limit: integer?} by: see group; limit: lines, further groups are put together
---@return string
function Report:table(options)
  options = check.options("table", options, {"by", "limit"})
  local by, list = options.by or "both", groups_of(self, "table", options.by)
  local limit = check.integer("table", "limit", options.limit or LINES, 1)
  local cells = {line_of(by, "layer", "op", {table.unpack(HEADING)})}
  for i = 1, math.min(limit, #list) do
    local g = list[i]
    cells[i + 1] = line_of(by, g.layer == "" and "-" or g.layer, op_name(g), figures(g))
  end
  if #list > limit then
    local more = ("(%d more)"):format(#list - limit)
    cells[#cells + 1] = line_of(by, more, by == "op" and more or "", figures(rest_of(list, limit + 1)))
  end
  local lines, rule = columns(cells, #cells[1] - #HEADING)
  lines[#lines + 1] = rule
  for _, line in ipairs(footer(self)) do lines[#lines + 1] = line end
  return table.concat(lines, "\n")
end

function Report:__tostring() return self:table() end

-- ---- the trace ----

--- Writes the calls in Chrome's trace format.
---@param path string
---@return boolean|nil ok, string|nil message
function Report:trace(path)
  check.string("trace", "path", path)
  local i = 0
  local function next_event()
    i = i + 1
    return self._event(i)
  end
  return files.write(path, function(put) chrome_trace.write(next_event, put) end)
end

-- ---- start and stop ----

local function start(options)
  options = check.options("profile", options, {"events"})
  return core.profile_start(check.integer("profile", "events", options.events or EVENTS, 0))
end

--- Begins a profile. Error: one is running.
---@param options? {events: integer?} calls that are kept for the trace, the first ones: initially 100,000, at 72 bytes
---  of the memory that tensors live in; sums are kept of all calls
---@example marea.profile.start()
---@example y = marea.normal{100, 100}:matmul(marea.normal{100, 100})
---@example marea.profile.stop()
function profile.start(options) start(options) end

--- Ends the profile. Error: none is running.
---@return Report
---@example marea.profile.start{events = 0}
---@example marea.profile.stop().seconds
function profile.stop() return new_report(core.profile_stop()) end

--- Runs f; the profile ends however f is left.
---@param f function
---@param options? {events: integer?} see profile.start
---@return Report report, any ... what f returned
local function run(_, f, options)
  if type(f) ~= "function" then check.fail("profile", "f", "a function", f) end
  local guard <close> = start(options) -- luacheck: ignore 211
  local results = table.pack(f())
  return profile.stop(), table.unpack(results, 1, results.n)
end

check.strict(profile, "marea.profile", nil, run)

return profile
