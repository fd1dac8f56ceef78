-- SPDX-License-Identifier: MIT
-- embedding vocabulary=v width=h numbers=n sparse=0|1: a training step of a table by Adam, of which n rows are read.
local marea = require "marea"

return function(a)
  marea.seed(1)
  local table = marea.nn.Embedding{a.vocabulary, a.width, sparse = a.sparse == 1}
  local optimizer = marea.optim.Adam{table}
  local index = marea.randint({a.numbers}, 1, a.vocabulary)
  return function() optimizer:step(function() return table(index):sum() end) end
end
