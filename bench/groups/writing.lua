-- SPDX-License-Identifier: MIT
-- Transformers that write one word at a time, with the keys and values of those before in a cache: scripts/gpt.lua's
-- network, one of 6 layers of 384, and one of GPT-2's size. The limit is the time in which memory gives the weights,
-- and keys and values, once; small networks stay in the caches of the processor, and calls of operators are what
-- counts.
local chart = require "lib.chart"
local machine = require "lib.machine"
local passes = require "lib.passes"

local group = {name = "writing", title = "Writing one word at a time"}

local CASES = {
  {name = "4 layers of 128, 65 letters", layers = 4, heads = 4, width = 128, vocabulary = 65, from = 0, length = 64,
    seconds = 0.5},
  {name = "6 layers of 384, 65 letters", layers = 6, heads = 6, width = 384, vocabulary = 65, from = 128, length = 128,
    seconds = 1},
  {name = "12 layers of 768, 50,257 words", layers = 12, heads = 12, width = 768, vocabulary = 50257, from = 512,
    length = 16, seconds = 3},
}

--- Bytes that a word needs: of weights and biases, and of keys and values, in the middle of what is written.
local function bytes(c)
  local w, steps = c.width, c.from + c.length / 2
  return 4 * (c.layers * (12 * w * w + 13 * w + 2 * steps * w) + c.vocabulary * w)
end

function group.run(bench)
  local cases = {}
  for i, case in ipairs(CASES) do
    cases[i] = {name = case.name, seconds = case.seconds, bf16 = true,
      request = ("writing layers=%d heads=%d width=%d vocabulary=%d from=%d length=%d"):format(case.layers, case.heads,
        case.width, case.vocabulary, case.from, case.length),
      limit = function(threads, isa) -- autocast reads the weights in f32, or what it has kept of them in bf16
        return isa == bench.isa and machine.read_limit(bench.limits, threads, bytes(case)) or nil
      end}
  end
  return passes.run(bench, "writing", cases)
end

function group.figures(rows)
  return {chart.one_thread(rows, {title = group.title .. ", one thread", ylabel = "ms a word", logy = true})}
end

return group
