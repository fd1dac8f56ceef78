-- SPDX-License-Identifier: MIT
-- Recurrent layers over 64 rows of 64 steps, forward and with all gradients, beside PyTorch's. The limit is the time of
-- the matrix products: those of x and of h with their weights; backward has two of each.
local marea = require "marea"
local passes = require "lib.passes"

local group = {name = "recurrent", title = "Recurrent layers, 64 x 64 steps"}

local ROWS, LENGTH, SECONDS = 64, 64, 0.5
local CASES = {{kind = "LSTM", size = 128}, {kind = "LSTM", size = 512}, {kind = "GRU", size = 128},
  {kind = "GRU", size = 512}}
local GATES, PASSES = {LSTM = 4, GRU = 3}, {forward = 1, step = 3}

local function flop(case, map)
  return 2 * 2 * PASSES[map] * ROWS * LENGTH * GATES[case.kind] * case.size ^ 2
end

function group.run(bench)
  local cases = {}
  for i, case in ipairs(CASES) do
    cases[i] = {forward = flop(case, "forward"), step = flop(case, "step"),
      name = marea.format("%s, %d units", case.kind, case.size),
      request = marea.format("recurrent kind=%s rows=%d length=%d inputs=%d hidden=%d", case.kind, ROWS, LENGTH,
        case.size, case.size)}
  end
  return passes.run(bench, "recurrent", cases, SECONDS)
end

function group.figures(rows) return passes.figures(rows, "Recurrent layers, one thread") end

return group
