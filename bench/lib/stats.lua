-- SPDX-License-Identifier: MIT
--- Medians and spreads of what was measured in rounds. A list may have holes: rounds in which something failed.
local stats = {}

local function sorted(list)
  local values = {}
  for _, v in pairs(list) do values[#values + 1] = v end
  table.sort(values)
  return values
end

--- {median=, low=, high=}; nil when there is no number.
function stats.summary(list)
  local v = sorted(list)
  local count = #v
  if count == 0 then return nil end
  local middle = count // 2
  local median = count % 2 == 1 and v[middle + 1] or (v[middle] + v[middle + 1]) / 2
  return {median = median, low = v[1], high = v[count]}
end

function stats.median(list) return stats.summary(list).median end

--- a[i] / b[i] of the rounds that both have.
function stats.ratios(a, b)
  local list = {}
  for i, x in pairs(a) do list[i] = b[i] and x / b[i] end
  return list
end

return stats
