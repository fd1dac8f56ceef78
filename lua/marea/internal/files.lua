-- SPDX-License-Identifier: MIT
--- Writes text files whole or not at all.
local core = require "marea.core"

local files = {}

--- Writes the bytes of a file.
---@param what string the function, for messages
---@return boolean|nil ok, string|nil message
function files.save(what, path, bytes)
  local ok, message = core.save_bytes(path, bytes)
  if not ok then return core.failed((message:gsub("^save_bytes", what))) end
  return true
end

--- Calls write(put). write calls put(text) for each part of the text; then the file is written.
---@param path string
---@param write fun(put: fun(text: string))
---@param what? string the function, for messages
---@return boolean|nil ok, string|nil message
function files.write(path, write, what)
  local texts = {}
  write(function(text) texts[#texts + 1] = text end)
  return files.save(what or "save_bytes", path, table.concat(texts))
end

--- The bytes of a file; nil and a message when it cannot be read.
---@param path string
---@return string|nil bytes, string|nil message
function files.read(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local bytes, problem = file:read "a"
  file:close()
  return bytes, problem and ("%s: %s"):format(core.printable(path), problem)
end

return files
