-- SPDX-License-Identifier: MIT
--- The bytes of hexadecimal digits.
return function(hex) return (hex:gsub("%x%x", function(x) return string.char(tonumber(x, 16)) end)) end
