-- SPDX-License-Identifier: MIT
--- marea.metrics: a table of numbers in a CSV file, one row an epoch. At each row a new file is written and takes the
--- old one's place, so that the file is whole at any time. The first column is the key: writing a row removes the rows
--- with this key and larger ones, so that a resumed run continues the file it finds.
---
---   local log = metrics.open("out/metrics.csv", {"epoch", "loss"}, {resume = true})
---   log:write{epoch = 1, loss = 171.2}
---   log:column "loss"                                   -- {171.2}
local core = require "marea.core"
local check = require "marea.internal.check"
local amount = require "marea.internal.amount"
local events = require "marea.internal.events"
local files = require "marea.internal.files"

local metrics = {}

---@class Metrics
---@field rows table<string, number>[]
local Metrics = {}
Metrics.__index = Metrics

local function cell_text(value)
  if value == nil then return "" end
  if value ~= value then value = amount.nan end
  return core.format(math.type(value) == "integer" and "%d" or "%.9g", value)
end

local function split(line)
  local cells = {}
  for cell in (line:gsub("\r$", "") .. ","):gmatch "([^,]*)," do cells[#cells + 1] = cell end
  return cells
end

--- Rows of a CSV file whose first line names the columns.
---@param path string
---@return table<string, number>[]|nil rows, string[]|string columns or message
---@example metrics.read "missing.csv"
function metrics.read(path)
  check.string("metrics.read", "path", path)
  local file, message = io.open(path)
  if not file then return core.failed(core.printable(message)) end
  local columns, rows = nil, {}
  for line in file:lines() do
    local cells = split(line)
    if columns then
      local row = {}
      for i, name in ipairs(columns) do
        local value = tonumber(cells[i] or "")
        row[name] = math.tointeger(value) or value
      end
      rows[#rows + 1] = row
    else
      columns = cells
    end
  end
  file:close()
  if not columns then return core.failed(core.printable(path .. ": is empty")) end
  return rows, columns
end

--- A table that is kept in a file from the first row on.
---@param path string
---@param columns string[]
---@param options? {resume: boolean?} resume: begins with the rows that the file has, as a rerun always does that goes
---  on with what an earlier run has learned
---@example path = os.tmpname()
---@example log = metrics.open(path, {"epoch", "loss"})
---@example log:write{epoch = 1, loss = 171.2}, os.remove(path)
function metrics.open(path, columns, options)
  check.string("metrics.open", "path", path)
  check.items("metrics.open", "columns", columns, "a list of names", 1)
  for i, name in ipairs(columns) do check.string("metrics.open", ("columns, %d"):format(i), name) end
  local self = setmetatable({path = path, columns = columns, rows = {}}, Metrics)
  local resume = check.options("metrics.open", options, {"resume"}).resume
  if resume or events.watcher and events.watcher:goes_on() then self.rows = metrics.read(path) or {} end
  return self
end

function Metrics:save()
  local lines = {table.concat(self.columns, ",")}
  for i, row in ipairs(self.rows) do
    local cells = {}
    for k, name in ipairs(self.columns) do cells[k] = cell_text(row[name]) end
    lines[i + 1] = table.concat(cells, ",")
  end
  return files.write(self.path, function(put) put(table.concat(lines, "\n") .. "\n") end)
end

--- Adds a row, a table with the columns' names as keys.
---@param row table<string, number>
---@return boolean|nil ok, string|nil message
function Metrics:write(row)
  check.options("metrics:write", row, self.columns)
  local key = check.number("metrics:write", self.columns[1], row[self.columns[1]])
  while #self.rows > 0 and (self.rows[#self.rows][self.columns[1]] or key) >= key do table.remove(self.rows) end
  self.rows[#self.rows + 1] = row
  return self:save()
end

--- The numbers of one column.
---@param name string
---@return number[]
function Metrics:column(name)
  local values = {}
  for i, row in ipairs(self.rows) do values[i] = row[name] or amount.nan end
  return values
end

return check.strict(metrics, "metrics")
