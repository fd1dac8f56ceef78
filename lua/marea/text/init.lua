-- SPDX-License-Identifier: MIT
--- marea.text: texts to numbers and back. Tokenizers cut a text into words, characters or pieces; a vocabulary numbers
--- them from 1; pad puts lists of numbers into one tensor.
---
---   local words = marea.text.words("To be, or not to be", {lower = true})
---   local vocabulary = marea.text.Vocabulary{words, min_count = 1}
---   local x, lengths = marea.text.pad{vocabulary:encode(words), vocabulary:encode{"to", "be"}}
local check = require "marea.internal.check"
local split = require "marea.text.split"
local batch = require "marea.text.batch"

return check.strict({
  BytePair = require "marea.text.byte_pair",
  Stream = require "marea.text.stream",
  Vocabulary = require "marea.text.vocabulary",
  words = split.words,
  characters = split.characters,
  pad = batch.pad,
  trim = batch.trim,
}, "text")
