-- SPDX-License-Identifier: MIT
-- A step of Adam for a large table of which few rows are read: of the whole table, and of these rows alone
-- (nn.Embedding{sparse = true}; PyTorch's SparseAdam). The limit is the time of the bytes that have to move: weight and
-- two states in and out and the gradient in and out, of all rows or of those that are read, and the rows to the result.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local machine = require "lib.machine"
local passes = require "lib.passes"

local group = {name = "embedding", title = "Step of a table's rows, Adam"}

local SECONDS = 0.5
local CASES = {{vocabulary = 50257, width = 768, numbers = 1024}, {vocabulary = 200000, width = 128, numbers = 2048},
  {vocabulary = 50257, width = 64, numbers = 1024}}
local KINDS = {[0] = "whole table", "rows read"}

local function bytes(case, sparse)
  local rows = sparse == 1 and case.numbers or case.vocabulary
  return 4 * case.width * (8 * rows + 3 * case.numbers)
end

function group.run(bench)
  local cases = {}
  for _, case in ipairs(CASES) do
    for sparse = 0, 1 do
      cases[#cases + 1] = {seconds = SECONDS, sparse = sparse,
        name = ("%d of %d x %d, %s"):format(case.numbers, case.vocabulary, case.width, KINDS[sparse]),
        request = ("embedding vocabulary=%d width=%d numbers=%d sparse=%d"):format(case.vocabulary, case.width,
          case.numbers, sparse),
        limit = function(threads) return machine.memory_limit(bench.limits, threads, bytes(case, sparse)) end}
    end
  end
  return passes.run(bench, "embedding", cases)
end

--- How many times faster the step of the rows is, case by case.
function group.notes(rows)
  local notes, whole = {}, {}
  for _, row in ipairs(rows) do
    local case = row.name:match "^[^,]+" .. row.threads
    if row.sparse == 0 then whole[case] = row.ours.median end
    if row.sparse == 1 then
      notes[#notes + 1] = marea.format("%s, %s: %.1f times as fast as the whole table", row.name,
        contest.threads_text(row.threads), whole[case] / row.ours.median)
    end
  end
  return notes
end

function group.figures(rows)
  local function label(name) return (name:gsub(" of ", "/"):gsub(", ", "\n")) end
  return {chart.one_thread(rows, {title = group.title .. ", one thread", ylabel = "ms", logy = true}, nil, label)}
end

return group
