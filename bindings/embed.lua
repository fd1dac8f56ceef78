-- SPDX-License-Identifier: MIT
--- Writes the Lua files of the library as a table in C (bind_files of bind.h), so that a program needs no files.
---
---   lua5.4 bindings/embed.lua OUTPUT.c lua/marea/init.lua lua/marea/nn/conv.lua ...

--- "lua/marea/nn/init.lua" is the module "marea.nn", "lua/marea/plan.lua" is "marea.plan".
local function module_name(path)
  return (path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", "."))
end

local escapes = {['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["?"] = "\\?"}

local function literal(line)
  return '"' .. line:gsub('["\\\n\t\r?]', escapes):gsub("[\0-\31\127-\255]", function(c)
    return ("\\%03o"):format(c:byte())
  end) .. '"'
end

local paths = table.move(arg, 2, #arg, 1, {})
table.sort(paths)
local out = {'/* Made by bindings/embed.lua. */\n#include "bind.h"\n\nconst bind_file bind_files[] = {\n'}
for _, path in ipairs(paths) do
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  out[#out + 1] = ('    {"%s", "@(marea)/%s", %d,\n'):format(module_name(path), path:gsub("^lua/marea/", ""), #text)
  for line in text:gmatch "[^\n]*\n?" do
    if line ~= "" then out[#out + 1] = "     " .. literal(line) .. "\n" end
  end
  out[#out + 1] = "    },\n"
end
out[#out + 1] = "    {NULL, NULL, 0, NULL},\n};\n"

local file = assert(io.open(arg[1], "wb"))
assert(file:write(table.concat(out)))
assert(file:close())
