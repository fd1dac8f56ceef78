-- SPDX-License-Identifier: MIT
--- A new folder for a test's files, and programs that run as a user would run them.
local folder = {}

--- A word for the shell.
function folder.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

--- The whole path of a file.
function folder.absolute(path)
  local pipe = assert(io.popen("realpath " .. folder.quote(path)))
  local result = pipe:read "l"
  pipe:close()
  return result
end

--- Makes an empty folder; returns its path. remove() deletes all of them, remove(path) that one.
local made = {}

function folder.new()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir -p " .. folder.quote(path)))
  made[#made + 1] = path
  return path
end

function folder.remove(path)
  for i = #made, 1, -1 do
    if path == nil or path == made[i] then os.execute("rm -rf " .. folder.quote(table.remove(made, i))) end
  end
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

--- Runs a command of the shell; returns what it wrote (both streams), whether it succeeded, and its exit code.
function folder.run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local output = pipe:read "a"
  local ok, _, code = pipe:close()
  return output, ok == true, code
end

--- Runs a command that has to succeed; returns what it wrote.
function folder.must(command)
  local output, ok = folder.run(command)
  assert(ok, command .. "\n" .. output)
  return output
end

--- The shell's command that runs lua5.4 with this tree's modules.
local function command_of(arguments, environment)
  return ("LUA_PATH='%s' LUA_CPATH='%s' %s lua5.4 %s"):format(package.path, package.cpath, environment or "", arguments)
end

--- Runs lua5.4 with this tree's modules; returns what it wrote (both streams) and its exit code.
---@param arguments string for the shell
---@param environment? string assignments in front of the command
function folder.lua(arguments, environment)
  local pipe = assert(io.popen(command_of(arguments, environment) .. " 2>&1; echo exit $?"))
  local text = pipe:read "a"
  pipe:close()
  return text:gsub("exit %d+%s*$", ""), tonumber(text:match "exit (%d+)%s*$")
end

--- The same, killed (SIGKILL) as soon as there is a file at `path`, and found still running then.
function folder.lua_killed(arguments, path, environment)
  local waits = ("until [ -e %s ]; do kill -0 $pid || exit 1; sleep 0.01; done; kill -9 $pid"):format(path)
  assert(os.execute(("{ exec >/dev/null 2>&1; %s & pid=$!; %s; }"):format(command_of(arguments, environment), waits)))
end

return folder
