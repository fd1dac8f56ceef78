-- SPDX-License-Identifier: MIT
--- Text files that are whole or not there.
local core = require "marea.core"
local finally = require "marea.finally"

local files = {}

--- Writes beside `path` and renames: `write(put)` calls put(text) as often as it likes.
---@param path string
---@param write fun(put: fun(text: string))
---@return boolean|nil ok, string|nil message
function files.write(path, write)
  local beside = path .. ".tmp"
  local file, message = io.open(beside, "w")
  if not file then return core.failed(message) end
  local problem
  local _ <close> = finally(function(interrupted)
    if interrupted == nil then return end
    file:close()
    os.remove(beside)
  end)
  local function put(text)
    local ok, why = file:write(text)
    if not ok then problem = problem or why end
  end
  write(put)
  local closed, why = file:close()
  if problem or not closed then
    os.remove(beside)
    return core.failed(problem or why)
  end
  return os.rename(beside, path)
end

return files
