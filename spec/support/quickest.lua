-- SPDX-License-Identifier: MIT
--- The processor time in seconds of the quickest of `times` calls of f (7 when left out): what f itself needs.
--- Other programs, a collection of other specs' garbage and cold caches only ever add to a call.
---@param f fun()
---@param times? integer
---@return number seconds
return function(f, times)
  local best = math.huge
  for _ = 1, times or 7 do
    local started = os.clock()
    f()
    best = math.min(best, os.clock() - started)
  end
  return best
end
