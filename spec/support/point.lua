-- SPDX-License-Identifier: MIT
-- Numbers as Lua's and C's own functions print them here: with the decimal point of the locale.
local POINT = ("%.1f"):format(0):sub(2, 2)

--- "6.0" as this process prints it.
return function(text) return (text:gsub("(%d)%.(%d)", "%1" .. POINT .. "%2")) end
