-- SPDX-License-Identifier: MIT
--- Runs a script of the tests in a process of its own with MAREA_ISA set; it prints what is wrong, and in the end
--- "ISA: N cases, M numbers".
---@param isa string
---@param script string path of the script
---@return integer? cases, integer|string numbers nil and all that it printed where that is anything else
return function(isa, script)
  local command = ("MAREA_ISA=%s LUA_PATH='%s' LUA_CPATH='%s' lua5.4 %s 2>&1"):format(isa, package.path, package.cpath,
    script)
  local pipe = assert(io.popen(command))
  local text = pipe:read "a"
  assert(pipe:close(), text)
  local cases, numbers = text:match("^" .. isa .. ": (%d+) cases, (%d+) numbers\n$")
  if not cases then return nil, text end
  return math.tointeger(cases), math.tointeger(numbers)
end
