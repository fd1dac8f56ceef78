-- SPDX-License-Identifier: MIT
--- Runs f, which must raise an error that names a line of the calling spec; returns the message.
---@param f function
---@return string
return function(f)
  local file = debug.getinfo(2, "S").short_src:match "[%w_]+%.lua$"
  local ok, message = pcall(f)
  if ok then error("no error", 2) end
  if not message:find(file .. ":%d+: ") then error("no line of " .. file .. " in: " .. message, 2) end
  return message
end
