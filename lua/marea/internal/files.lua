-- SPDX-License-Identifier: MIT
--- Text files that are whole or not there.
local core = require "marea.core"

local files = {}

--- Calls write(put), which calls put(text) as often as it likes, and makes a file of the texts.
---@param path string
---@param write fun(put: fun(text: string))
---@return boolean|nil ok, string|nil message
function files.write(path, write)
  local texts = {}
  write(function(text) texts[#texts + 1] = text end)
  return core.save_bytes(path, table.concat(texts))
end

return files
