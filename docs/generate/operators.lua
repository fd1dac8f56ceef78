-- SPDX-License-Identifier: MIT
--- Writes docs/operators.md, the operator reference, from the operators' descriptors.
---
---   build/marea docs/generate/operators.lua > docs/operators.md        (make reference)
local core = require "marea.core"
local help = require "marea.repl.help"

local WIDTH = 100 -- letters of a line

--- The families in the order of core/ops/LIST.h, with their operators.
local function families()
  local list, known = {}, {}
  for _, name in ipairs(core.op_names()) do
    local info = core.op_info(name)
    local family = known[info.family]
    if not family then
      family = {name = info.family}
      known[info.family], list[#list + 1] = family, family
    end
    family[#family + 1] = info
  end
  return list
end

local function contents(list)
  for _, family in ipairs(list) do
    local links = {}
    for i, info in ipairs(family) do links[i] = ("[%s](#%s)"):format(info.name, info.name) end
    io.write("- **", family.name, "**: ", table.concat(links, ", "), "\n")
  end
end

io.write [[
# Operators

Every operator: what it takes, with shapes, what it gives, its gradient and errors, and an example. `?name` at the
prompt shows the same. This page is made from the operators' descriptors by `make reference`.

Arguments in braces are given by name, or behind the others in the order in which they stand here. `=` is the value when
one is left out, `?` marks what may be left out.

]]
local list = families()
contents(list)
for _, family in ipairs(list) do
  io.write("\n## ", family.name, " operators\n")
  for _, info in ipairs(family) do
    io.write("\n### ", info.name, "\n\n```\n", help.operator(info, WIDTH), "\n```\n")
  end
end
