-- SPDX-License-Identifier: MIT
-- A step of Adam for a large table of which few rows are read: of the whole table, and of these rows alone
-- (nn.Embedding{sparse = true}; PyTorch's SparseAdam). The limit is the time of the bytes that have to move: weight and
-- two states in and out and the gradient in and out, of all rows or of those that are read, and the rows to the result.
local marea = require "marea"
local chart = require "lib.chart"
local contest = require "lib.contest"
local machine = require "lib.machine"

local group = {name = "embedding", title = "Step of a table's rows, Adam"}

local SECONDS = 0.5
local CASES = {{vocabulary = 50257, width = 768, numbers = 1024}, {vocabulary = 200000, width = 128, numbers = 2048},
  {vocabulary = 50257, width = 64, numbers = 1024}}
local KINDS = {[0] = "whole table", "rows read"}

local function bytes(case, sparse)
  local rows = sparse == 1 and case.numbers or case.vocabulary
  return 4 * case.width * (8 * rows + 3 * case.numbers)
end

local function request_of(case, sparse, threads)
  return marea.format("embedding vocabulary=%d width=%d numbers=%d sparse=%d threads=%d seconds=%g", case.vocabulary,
    case.width, case.numbers, sparse, threads, SECONDS)
end

function group.run(bench)
  local c, rows = contest.new(), {}
  for _, case in ipairs(CASES) do
    for sparse = 0, 1 do
      for _, threads in ipairs(bench.threads) do
        local request = request_of(case, sparse, threads)
        rows[#rows + 1] = {threads = threads, unit = "ms", sparse = sparse, ours = c:ask("Marea", request)[1],
          name = ("%d of %d x %d, %s"):format(case.numbers, case.vocabulary, case.width, KINDS[sparse]),
          peers = {PyTorch = c:ask("PyTorch", request, contest.threads_text(threads))},
          limit = machine.memory_limit(bench.limits, threads, bytes(case, sparse))}
      end
    end
  end
  c:run("embedding", bench.rounds)
  return rows
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
