-- SPDX-License-Identifier: MIT
-- A training step of scripts/qa_reader.lua's network at its sizes on made-up words, beside PyTorch's: 8 paragraphs of
-- some 125 words with 36 questions. PyTorch's LSTMs of two directions read packed sequences, or are two layers each, of
-- which one reads rows that were turned round, so that oneDNN's layer computes them. The limit is the time of the
-- matrix products of the LSTMs, the dense layers, the convolution and the attention; backward has twice as many.
local machine = require "lib.machine"
local passes = require "lib.passes"
local settings = require "lib.settings"

local group = {name = "reader", title = "Reader of questions, training step"}

local SECONDS, SIZE = 1, 64
local WORDS, LETTERS, KINDS = 26847, 128, 700
local PARAGRAPHS, QUESTIONS, LENGTH, ASKED = 8, 36, 128, 14 -- words of a paragraph at most, of a question on average
local INPUTS, MATCH = 100 + 64 + 5, 11 -- columns of a word; of how it matches

local PEERS = {PyTorch = settings.pytorch{compiled = true, variants = {{label = ", packed", request = " packed=1"},
  {label = ", turned", request = ""}}}}

--- Multiply-adds of a word in an LSTM of both directions.
local function lstm(inputs) return 2 * 4 * SIZE * (inputs + SIZE) end

local function flop()
  local w = 2 * SIZE
  local words = LENGTH - (PARAGRAPHS - 1) / 2
  local read, asked, pairs_ = PARAGRAPHS * words, QUESTIONS * ASKED, QUESTIONS * words
  local forward = KINDS * 12 * 5 * 16 * 64 + (read + asked) * (lstm(INPUTS) + w * w) -- spelling; encoder, query and key
    + read * w * w + pairs_ * (2 * ASKED * w + 2 * w * w + MATCH * w) -- own; attention, seen and both, match
    + 2 * pairs_ * lstm(w) + pairs_ * (w * w + 2 * words * w + 2 * w * w) -- LSTMs; look, self-attention, mix
    + pairs_ * 3 * 2 * w -- scores
  return 3 * 2 * forward
end

function group.run(bench)
  local work = flop()
  return passes.run(bench, "reader", {{name = "training step", seconds = SECONDS, bf16 = true, peers = PEERS,
    flop = work,
    request = ("reader size=%d words=%d letters=%d paragraphs=%d questions=%d length=%d kinds=%d"):format(SIZE, WORDS,
      LETTERS, PARAGRAPHS, QUESTIONS, LENGTH, KINDS),
    limit = function(threads, isa) return machine.compute_limit(bench.limits, isa, threads, work) end}})
end

function group.figures(rows) return passes.figures(rows, group.title .. ", one thread") end

return group
