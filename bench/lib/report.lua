-- SPDX-License-Identifier: MIT
--- The table of a group's rows, and the rows as plain tables for JSON. A row:
---
---   {name =, threads =, precision = "f32", unit = "ms", factor = 1 (from ms to the unit), limit = ms, ours = entry,
---    peers = {oneDNN = {entry, ...}, ...},      the entries of a peer are its settings, of which the best counts
---    bounds = {oneDNN = true}, list_settings = true}      peers that are no rivals; whether all settings are told
---
--- Further fields are for the group's figures.
local marea = require "marea"
local stats = require "lib.stats"

local report = {}

local PEERS = {"oneDNN", "oneDNN's choice", "ONNX Runtime", "PyTorch", "Keras", "JAX"}

local function best_of(entries)
  local best
  for _, entry in ipairs(entries or {}) do
    local summary = stats.summary(entry.rounds)
    if summary and (not best or summary.median < best.median) then
      best = {entry = entry, median = summary.median, low = summary.low, high = summary.high}
    end
  end
  return best
end

local function scaled(summary, factor)
  return summary and {median = factor * summary.median, low = factor * summary.low, high = factor * summary.high}
end

--- All settings of a peer: what each says of itself, and its median and ratio, or why it has none.
local function settings_of(entries, row)
  local list = {}
  for i, entry in ipairs(entries) do
    local summary = stats.summary(entry.rounds)
    list[i] = {setting = entry.label, remark = entry.remark, failure = entry.failure,
      median = summary and (row.factor or 1) * summary.median,
      ratio = summary and stats.summary(stats.ratios(entry.rounds, row.ours.rounds))}
  end
  return list
end

--- Who is fastest, and by how much: the ratio of the next one's time to its own, its lowest and highest. What is no
--- rival (row.bounds, by name) does not count.
local function fastest_of(row, peers)
  local best
  for _, name in ipairs(PEERS) do
    local ratio = peers[name] and peers[name].ratio
    if ratio and not (row.bounds or {})[name] and (not best or ratio.median < best.ratio) then
      best = {name = name, ratio = ratio.median, low = ratio.low, high = ratio.high, setting = peers[name].setting}
    end
  end
  if not best then return nil end
  if best.ratio >= 1 then
    return {name = "Marea", ratio = best.ratio, low = best.low, high = best.high, next = best.name,
      setting = best.setting}
  end
  return {name = best.name, ratio = 1 / best.ratio, low = 1 / best.high, high = 1 / best.low, next = "Marea",
    setting = best.setting}
end

--- Those of a peer's entries that are timed as ours is: the CPU time of one thread is nothing beside the time that two
--- take on a machine that others use.
local function comparable(entries, ours)
  local list = {}
  for _, entry in ipairs(entries or {}) do
    if (entry.by_cpu or false) == (ours.by_cpu or false) then list[#list + 1] = entry end
  end
  return list
end

--- A row with everything worked out. Ratios are the peer's time over ours, round by round.
local function resolve(row)
  local factor = row.factor or 1
  local result = setmetatable({name = row.name, threads = row.threads, precision = row.precision, unit = row.unit,
    peers = {}, settings = {}, limit = row.limit and factor * row.limit,
    ours = scaled(stats.summary(row.ours.rounds), factor)}, {__index = row})
  if result.limit and result.ours then result.share = result.limit / result.ours.median end
  for _, peer in ipairs(PEERS) do
    local entries = comparable((row.peers or {})[peer], row.ours)
    local best = best_of(entries)
    if #entries > 0 then result.settings[peer] = settings_of(entries, row) end
    if best then
      local p = scaled(best, factor)
      p.setting, p.remark = best.entry.label, best.entry.remark
      p.ratio = stats.summary(stats.ratios(best.entry.rounds, row.ours.rounds))
      result.peers[peer] = p
    end
  end
  result.fastest = fastest_of(row, result.peers)
  return result
end

function report.resolve(rows)
  local results = {}
  for i, row in ipairs(rows) do results[i] = resolve(row) end
  return results
end

-- ---- the table ----

local function number(x)
  if not x then return "-" end
  local size = math.abs(x)
  return marea.format(size >= 999.5 and "%.0f" or size >= 99.95 and "%.1f" or size >= 0.9995 and "%.2f" or "%.3f", x)
end

local function ratio(r) return r and marea.format("%.2f (%.2f-%.2f)", r.median, r.low, r.high) or "-" end

local function spread(s) return s and number(s.low) .. "-" .. number(s.high) or "-" end

local COLUMNS = {
  {"", function(row) return row.name end, left = true, always = true},
  {"threads", function(row) return row.threads and ("%d"):format(row.threads) or "-" end},
  {"precision", function(row) return row.precision or "-" end, left = true},
  {"unit", function(row) return row.unit end, always = true},
  {"limit", function(row) return number(row.limit) end},
  {"Marea", function(row) return number(row.ours and row.ours.median) end, always = true},
  {"lowest-highest", function(row) return spread(row.ours) end},
  {"of limit", function(row) return row.share and marea.format("%.0f %%", 100 * row.share) or "-" end},
}
for _, peer in ipairs(PEERS) do
  table.insert(COLUMNS, {peer, function(row) return number((row.peers[peer] or {}).median) end})
  table.insert(COLUMNS, {"ratio", function(row) return ratio((row.peers[peer] or {}).ratio) end})
  table.insert(COLUMNS, {"by", function(row)
    local p = row.peers[peer] or {}
    return p.remark and ("%s, %s"):format(p.setting, p.remark) or p.setting or "-"
  end, left = true})
end

table.insert(COLUMNS, {"fastest", function(row)
  local f = row.fastest
  return f and marea.format("%s, %.2f times %s", f.name, f.ratio, f.next) or "-"
end, left = true})

--- Lines on the settings that failed and, of the rows that list them, on all.
function report.settings(rows)
  local lines = {}
  for _, row in ipairs(rows) do
    for _, peer in ipairs(PEERS) do
      for _, s in ipairs(row.settings[peer] or {}) do
        local found = s.failure or ratio(s.ratio) .. (s.remark and ", " .. s.remark or "")
        if s.failure or row.list_settings then
          lines[#lines + 1] = ("%s, %s%s: %s, %s: %s"):format(row.name, row.threads or 1,
            row.precision and ", " .. row.precision or "", peer, s.setting or "as it is", found)
        end
      end
    end
  end
  return lines
end

--- The column's cells, nil when they are all empty.
local function cells_of(column, rows)
  local cells, width, used = {}, #column[1], column.always
  for i, row in ipairs(rows) do
    cells[i] = column[2](row)
    width = math.max(width, #cells[i])
    used = used or cells[i] ~= "-"
  end
  return used and {title = column[1], cells = cells, width = width, left = column.left}
end

--- The rows as text, a line each.
local function table_text(titled, rows)
  local columns, lines = {}, {}
  for _, column in ipairs(titled) do columns[#columns + 1] = cells_of(column, rows) or nil end
  for i = 0, #rows do
    local parts = {}
    for k, c in ipairs(columns) do
      parts[k] = (c.left and "%-" or "%") .. c.width .. "s"
      parts[k] = parts[k]:format(i == 0 and c.title or c.cells[i])
    end
    lines[#lines + 1] = table.concat(parts, "  "):gsub("%s+$", "")
  end
  return table.concat(lines, "\n")
end

--- The table as text.
function report.text(rows) return table_text(COLUMNS, rows) end

local SUMMARY = {
  {"work", function(row) return row.title end, left = true, always = true},
  {"threads", function(row) return row.threads and ("%d"):format(row.threads) or "-" end},
  {"precision", function(row) return row.precision or "-" end, left = true},
  {"fastest", function(row) return row.fastest.name end, left = true},
  {"times", function(row) return marea.format("%.2f", row.fastest.ratio) end},
  {"lowest-highest", function(row) return marea.format("%.2f-%.2f", row.fastest.low, row.fastest.high) end},
  {"next", function(row) return row.fastest.next end, left = true},
  {"the peer's setting", function(row) return row.fastest.setting or "-" end, left = true},
}

--- For each work, precision and number of threads who is fastest and how many times as fast as the next, by groups as
--- run.lua lists them. Rows without peers are left out.
function report.summary(groups)
  local rows = {}
  for _, group in ipairs(groups) do
    for _, row in ipairs(group.rows) do
      if row.fastest then
        rows[#rows + 1] = setmetatable({title = ("%s: %s"):format(group.group, row.name)}, {__index = row})
      end
    end
  end
  return #rows > 0 and table_text(SUMMARY, rows) or nil
end

return report
