-- SPDX-License-Identifier: MIT
-- Recurrent layers over 64 rows of 64 steps, forward and with all gradients, beside PyTorch's, eager and
-- compiled. The limit is the time of the matrix products: those of x and of h with their weights; backward has two of
-- each.
local marea = require "marea"
local passes = require "lib.passes"

local group = {name = "recurrent", title = "Recurrent layers, 64 x 64 steps"}

local ROWS, LENGTH, SECONDS = 64, 64, 0.5
local CASES = {{kind = "LSTM", size = 128}, {kind = "LSTM", size = 512}, {kind = "GRU", size = 128},
  {kind = "GRU", size = 512}}
local GATES = {LSTM = 4, GRU = 3}

local function flop(case)
  local once = 2 * 2 * ROWS * LENGTH * GATES[case.kind] * case.size ^ 2
  return {forward = once, step = 3 * once}
end

function group.run(bench)
  local cases = {}
  for _, case in ipairs(CASES) do
    cases[#cases + 1], cases[#cases + 2] = passes.both(bench, {seconds = SECONDS, bf16 = true, peers = passes.WITH_ALL,
      name = marea.format("%s, %d units", case.kind, case.size),
      request = marea.format("recurrent kind=%s rows=%d length=%d inputs=%d hidden=%d", case.kind, ROWS, LENGTH,
        case.size, case.size)}, flop(case))
  end
  return passes.run(bench, "recurrent", cases)
end

function group.figures(rows) return passes.figures(rows, "Recurrent layers, one thread") end

return group
