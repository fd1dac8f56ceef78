-- SPDX-License-Identifier: MIT
-- Language models of scripts/gpt.lua, and one of GPT-2's size: the loss of a batch, and a training step, beside
-- PyTorch's, eager and compiled. The limit is the time of the matrix products; a step has three times those of the
-- loss.
local passes = require "lib.passes"

local group = {name = "language", title = "Language models"}

local SECONDS, CHARACTERS, GPT2 = 1, 65, 50257
local CASES = {
  {model = "transformer", layers = 4, heads = 4, width = 128, context = 64, batch = 12},
  {model = "transformer", layers = 6, heads = 6, width = 384, context = 256, batch = 8},
  {model = "lstm", layers = 2, heads = 1, width = 220, context = 64, batch = 12},
  {model = "transformer", layers = 12, heads = 12, width = 768, context = 64, batch = 4, vocabulary = GPT2},
  {model = "transformer", layers = 12, heads = 12, width = 768, context = 1024, batch = 1, vocabulary = GPT2},
}

local function flop(case)
  local width, tokens = case.width, case.batch * case.context
  local layer = case.model == "lstm" and 8 * width ^ 2 or 12 * width ^ 2 + width * (case.context + 1)
  return 2 * tokens * (case.layers * layer + width * (case.vocabulary or CHARACTERS))
end

function group.run(bench)
  local cases = {}
  for _, case in ipairs(CASES) do
    local once = flop(case)
    cases[#cases + 1], cases[#cases + 2] = passes.both(bench, {seconds = SECONDS, bf16 = true, peers = passes.WITH_JAX,
      name = ("%s %d x %d, %d x %d tokens"):format(case.model == "lstm" and "LSTM" or case.model, case.layers,
        case.width, case.batch, case.context),
      request = ("language model=%s layers=%d heads=%d width=%d context=%d batch=%d vocabulary=%d"):format(case.model,
        case.layers, case.heads, case.width, case.context, case.batch, case.vocabulary or CHARACTERS)},
      {forward = once, step = 3 * once})
  end
  return passes.run(bench, "language", cases)
end

function group.figures(rows) return passes.figures(rows, "Language models, one thread") end

return group
