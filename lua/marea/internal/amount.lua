-- SPDX-License-Identifier: MIT
--- Amounts as people read them.
local format = require "marea.core".format

local amount = {}

--- NaN without the sign that 0 / 0 has on some machines, which would be written as "-nan".
amount.nan = math.abs(0 / 0)

--- 1234567 -> "1,234,567".
---@param n integer
function amount.thousands(n)
  local s = ("%d"):format(n)
  local head = (#s - 1) % 3 + 1
  return s:sub(1, head) .. s:sub(head + 1):gsub("%d%d%d", ",%0")
end

local PREFIXES = {"k", "M", "G", "T", "P", "E"}

local function scaled(n, unit)
  local i = 0
  while n >= 999.5 and i < #PREFIXES do n, i = n / 1000, i + 1 end
  if i == 0 then return ("%d %s"):format(n, unit) end
  return format(n < 9.995 and "%.2f %s%s" or n < 99.95 and "%.1f %s%s" or "%.0f %s%s", n, PREFIXES[i], unit)
end

--- 1234567 -> "1.23 MB", with decimal prefixes.
---@param n number
function amount.bytes(n) return scaled(n, "B") end

--- 1234567 -> "1.23 MFLOP".
---@param n number
function amount.flops(n) return scaled(n, "FLOP") end

--- 75 -> "1:15", 3675 -> "1:01:15".
---@param seconds number
function amount.clock(seconds)
  local s = math.floor(seconds + 0.5)
  if s >= 3600 then return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60) end
  return ("%d:%02d"):format(s // 60, s % 60)
end

return amount
