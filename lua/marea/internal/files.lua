-- SPDX-License-Identifier: MIT
--- Writes text files whole or not at all.
local core = require "marea.core"

local files = {}

--- Calls write(put). write calls put(text) for each part of the text; then the file is written.
---@param path string
---@param write fun(put: fun(text: string))
---@return boolean|nil ok, string|nil message
function files.write(path, write)
  local texts = {}
  write(function(text) texts[#texts + 1] = text end)
  return core.save_bytes(path, table.concat(texts))
end

return files
