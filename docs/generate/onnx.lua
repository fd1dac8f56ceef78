-- SPDX-License-Identifier: MIT
--- Writes the table of docs/onnx.md anew: how many of the models of ONNX's own test suite with each operator give the
--- results of their files. `make onnx-table`
---
---   marea docs/generate/onnx.lua RESULTS < docs/onnx.md      RESULTS: what build/test/onnx prints
local BEGIN, END = "<!-- the table: make onnx-table -->\n", "<!-- end of the table -->\n"

--- The operators of each model, and what became of it.
local function read(path)
  local operators, became = {}, {}
  for line in io.lines(path) do
    local name, list = line:match "^operators (%S+): (.*)"
    if name then operators[name] = list end
    local word, model = line:match "^(%a+) (test_[%w_]+)"
    if model and word ~= "operators" then became[model] = word end
  end
  return operators, became
end

--- Operator -> {equal =, drawn =, refused =, WRONG =}: numbers of models.
local function count(operators, became)
  local rows = {}
  for model, list in pairs(operators) do
    local seen = {}
    for op in list:gmatch "%S+" do
      if not seen[op] then
        seen[op] = true
        rows[op] = rows[op] or {equal = 0, drawn = 0, refused = 0, WRONG = 0}
        local word = became[model] or "refused"
        rows[op][word] = rows[op][word] + 1
      end
    end
  end
  return rows
end

local function table_of(rows)
  local names, lines = {}, {"| operator | models | equal | random numbers | refused |\n", "|---|---|---|---|---|\n"}
  for name in pairs(rows) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local r = rows[name]
    lines[#lines + 1] = ("| %s | %d | %d | %s | %s |\n"):format(name, r.equal + r.drawn + r.refused + r.WRONG, r.equal,
      r.drawn > 0 and r.drawn or "", r.refused > 0 and r.refused or "")
  end
  return table.concat(lines)
end

local text = io.read "a"
local from, to = text:find(BEGIN, 1, true), text:find(END, 1, true)
if not from or not to then error "docs/onnx.md: the marks around the table are missing" end
io.write(text:sub(1, from - 1), BEGIN, table_of(count(read(arg[1]))), text:sub(to))
