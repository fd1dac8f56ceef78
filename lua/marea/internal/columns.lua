-- SPDX-License-Identifier: MIT
--- Lines of a table as people read it.

local core = require "marea.core"

--- Cells of equal width, the first `left` columns flush left and the others flush right, with a rule below the first
--- row, the heading.
---@param cells string[][]
---@param left integer
---@return string[] lines, string rule
return function(cells, left)
  local width, total = {}, 0
  for _, row in ipairs(cells) do
    for i, text in ipairs(row) do
      row[i] = core.printable(text) -- names may come from files
      width[i] = math.max(width[i] or 0, utf8.len(row[i]))
    end
  end
  for i, n in ipairs(width) do total = total + n + (i > 1 and 3 or 0) end
  local rule, lines = ("="):rep(total), {}
  for r, row in ipairs(cells) do
    local parts = {}
    for i, text in ipairs(row) do
      local gap = (" "):rep(width[i] - utf8.len(text))
      parts[i] = i <= left and text .. gap or gap .. text
    end
    lines[#lines + 1] = table.concat(parts, "   "):gsub("%s+$", "")
    if r == 1 then lines[#lines + 1] = rule end
  end
  return lines, rule
end
