-- SPDX-License-Identifier: MIT
-- Fused attention forward, and with its gradients, for short rows and long ones, beside PyTorch's and, for rows of
-- which it can hold all weights, JAX's. The limit is the time of the matrix products: two forward, five backward, of
-- which causal attention has about half.
local marea = require "marea"
local passes = require "lib.passes"
local settings = require "lib.settings"

local group = {name = "attention", title = "Attention, heads of 64"}

local SECONDS = 0.3
local CASES = {
  {rows = 64, length = 64, heads = 8, causal = 1}, {rows = 16, length = 256, heads = 6, causal = 1},
  {rows = 1, length = 2048, heads = 8, causal = 0}, {rows = 1, length = 8192, heads = 8, causal = 1},
}
local PYTORCH = {PyTorch = settings.pytorch{}}
local WITH_JAX = {PyTorch = PYTORCH.PyTorch, JAX = settings.jax}
local PRODUCTS = {forward = 2, step = 7}

local function flop(case)
  local t, sums = case.length, {}
  local seen = case.causal == 1 and t * (t + 1) / 2 or t * t
  for map, products in pairs(PRODUCTS) do sums[map] = 2 * 64 * products * case.rows * case.heads * seen end
  return sums
end

function group.run(bench)
  local cases = {}
  for _, case in ipairs(CASES) do
    cases[#cases + 1], cases[#cases + 2] = passes.both(bench, {seconds = SECONDS, bf16 = true,
      peers = case.length <= 256 and WITH_JAX or PYTORCH,
      name = marea.format("%d x %d, %d heads%s", case.rows, case.length, case.heads,
        case.causal == 1 and ", causal" or ""),
      request = marea.format("attention rows=%d length=%d heads=%d width=64 causal=%d", case.rows, case.length,
        case.heads, case.causal)}, flop(case))
  end
  return passes.run(bench, "attention", cases)
end

function group.figures(rows) return passes.figures(rows, "Attention, one thread") end

return group
