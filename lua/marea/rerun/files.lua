-- SPDX-License-Identifier: MIT
--- The Lua files that a script consists of: itself, what it reads by dofile and loadfile, and the modules that it
--- requires, those of libraries too.
local core = require "marea.core"
local check = require "marea.check"
local format = core.format

local files = {}

---@class ScriptFiles
local Files = {}
Files.__index = Files

--- The text of a file.
---@return string|nil text, string|nil message
function files.read(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text
  text, message = file:read "a"
  file:close()
  return text, message
end

local function stamp(path)
  local time, size = core.file_time(path)
  return time and format("%.9f %d", time, size)
end

local function is_ours(path) return check.folder ~= "" and path:sub(1, #check.folder) == check.folder end

--- The files of the script at `path`.
---@return ScriptFiles
function files.new(path)
  local self = setmetatable({stamps = {}, modules = {}, loaded = {}}, Files)
  self:add(path)
  return self
end

function Files:add(path)
  if type(path) == "string" and not self.stamps[path] then self.stamps[path] = stamp(path) or "" end
end

--- For a module that is about to be read.
function Files:add_module(name)
  local path = type(name) == "string" and package.searchpath(name, package.path)
  if not path or is_ours(path) then return end
  self.modules[name], self.loaded[path] = path, stamp(path)
  self:add(path)
end

--- For the beginning of a run: when one of the modules was saved since it was read, all are read again, for they may
--- refer to each other.
function Files:reload()
  local changed = false
  for _, path in pairs(self.modules) do
    local now = stamp(path)
    changed = changed or now ~= nil and now ~= self.loaded[path]
  end
  for name in pairs(changed and self.modules or {}) do package.loaded[name] = nil end
end

--- Was one of the files saved since the last time? One that is not there is about to be saved.
---@return boolean
function Files:changed()
  local changed = false
  for path, before in pairs(self.stamps) do
    local now = stamp(path)
    if now and now ~= before then
      self.stamps[path] = now
      changed = true
    end
  end
  return changed
end

--- What keeps a file from being run, or nil.
---@return string|nil message
function Files:problem()
  local paths = {}
  for path in pairs(self.stamps) do paths[#paths + 1] = path end
  table.sort(paths, core.before)
  for _, path in ipairs(paths) do
    local chunk, message = loadfile(path)
    if not chunk then return message end
  end
end

return files
