-- SPDX-License-Identifier: MIT
--- Prints what a SQuAD file asks and answers, a line for each question, whatever its ids and its JSON's layout are:
--- title, context, question, then the answers, with tabs between them and each run of white space as one space.
--- scripts/texts.sh sorts the lines and compares their SHA-256.
local marea = require "marea"

local SPACE = "[ \t\n\v\f\r]+"

local function plain(text) return (text:gsub(SPACE, " "):gsub("^ ", ""):gsub(" $", "")) end

local questions, message = marea.data.squad(arg[1])
if not questions then
  io.stderr:write(message, "\n")
  os.exit(1)
end
for _, q in ipairs(questions) do
  local parts = {plain(q.title), plain(q.context), plain(q.question)}
  for _, answer in ipairs(q.answers) do parts[#parts + 1] = plain(answer.text) end
  io.write(table.concat(parts, "\t"), "\n")
end
