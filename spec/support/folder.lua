-- SPDX-License-Identifier: MIT
--- A new folder for a test's files, and programs that run as a user would run them.
local folder = {}

--- Makes an empty folder; returns its path. remove() deletes all of them.
local made = {}

function folder.new()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir -p " .. path))
  made[#made + 1] = path
  return path
end

function folder.remove()
  for _, path in ipairs(made) do os.execute("rm -rf " .. path) end
  made = {}
end

function folder.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

function folder.read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return text
end

--- Runs lua5.4 with this tree's modules; returns what it wrote (both streams) and its exit code.
---@param arguments string for the shell
---@param environment? string assignments in front of the command
function folder.lua(arguments, environment)
  local command = ("LUA_PATH='%s' LUA_CPATH='%s' %s lua5.4 %s 2>&1; echo exit $?"):format(package.path, package.cpath,
    environment or "", arguments)
  local pipe = assert(io.popen(command))
  local text = pipe:read "a"
  pipe:close()
  return text:gsub("exit %d+%s*$", ""), tonumber(text:match "exit (%d+)%s*$")
end

return folder
