-- SPDX-License-Identifier: MIT
--- The corpus of mistakes: text files of entries "=== title", a script, "---", and what the program then says in full.
--- A script begins with PREAMBLE on its first line, unless its title ends in [bare].
local folder = require "spec.support.folder"

local mistakes = {}

local PREAMBLE = 'local marea = require "marea" local nn, optim, data = marea.nn, marea.optim, marea.data '

--- The entries of a file: a list of {title, script, says}.
function mistakes.read(path)
  local list, part = {}, nil
  for line in assert(folder.read(path)):gmatch "([^\n]*)\n?" do
    local title = line:match "^=== (.*)$"
    if title then
      list[#list + 1] = {title = title, script = "", says = ""}
      part = "script"
    elseif line == "---" then part = "says"
    elseif part then list[#list][part] = list[#list][part] .. line .. "\n" end
  end
  for _, entry in ipairs(list) do entry.says = entry.says:gsub("\n+$", "\n") end
  return list
end

function mistakes.write(path, list)
  local parts = {}
  for i, entry in ipairs(list) do parts[i] = ("=== %s\n%s---\n%s"):format(entry.title, entry.script, entry.says) end
  folder.write(path, table.concat(parts, "\n"))
end

--- What the program says about a script, run as train.lua in a folder of its own.
function mistakes.run(entry, program)
  local place = folder.new()
  folder.write(place .. "/train.lua", (entry.title:find "%[bare%]$" and "" or PREAMBLE) .. entry.script)
  local command = ("cd %s && env -u MAREA_TRACEBACK OPENBLAS_NUM_THREADS=1 %s train.lua 2>&1; echo exit $?")
    :format(place, program)
  local pipe = assert(io.popen(command))
  local text, code = pipe:read "a":match "^(.*)exit (%d+)%s*$"
  pipe:close()
  text = text:gsub("==%d+==WARNING: AddressSanitizer[^\n]*\n", "") -- it tells of every allocation that fails
  return text:gsub("%[%d%d%d+ frames%]", "[many frames]"), tonumber(code)
end

return mistakes
