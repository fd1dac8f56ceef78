-- SPDX-License-Identifier: MIT
--- The modules of lua/marea, as their files are.
local modules = {}

--- All of them, in the order of their files' names.
---@param root? string the folder that the sources lie in; where the tests run when left out
---@return string[]
function modules.all(root)
  local list = {}
  local pipe <close> = assert(io.popen(("cd '%s/lua' && find marea -name '*.lua' | LC_ALL=C sort"):format(root or ".")))
  for path in pipe:lines() do
    list[#list + 1] = path:gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
  end
  return list
end

--- Those that scripts in a sandbox may require: `marea` and the parts that it names.
---@return table<string, boolean>
function modules.public()
  local set = {marea = true}
  for _, name in pairs(getmetatable(require "marea").__lazy) do set[name] = true end
  return set
end

return modules
