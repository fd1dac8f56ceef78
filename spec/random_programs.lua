-- SPDX-License-Identifier: MIT
-- `make random-programs PROGRAMS=20000 SEED=1`: random programs (spec/support/random_program.lua) in the program marea
-- of MAREA_BUILD, each in a Lua state of its own host and in a sandbox. A batch of programs is one process; of a batch
-- that crashes the program that ran is made as short as it still crashes, and the batch goes on behind it. Ends with
-- "N programs, M faults", and with 1 when there are any.
--
--   build/marea spec/random_programs.lua 20000 1           20,000 programs, seeds 1 to 20,000
--   build/marea spec/random_programs.lua show 17           the text of one
--   build/marea spec/random_programs.lua run host FILE     a program from a file; "sandbox" for "host"
package.path = "./?.lua;./lua/?.lua;./lua/?/init.lua;" .. package.path
local random_program = require "spec.support.random_program"
local random_batch = require "spec.support.random_batch"

if arg[1] == "show" then
  print(random_program.text(math.tointeger(arg[2])))
  os.exit(true)
end

if arg[1] == "run" then
  local result = random_batch.file(arg[2], arg[3])
  print(result.output)
  os.exit(result.ended and result.faults == 0)
end

local programs, first = math.tointeger(arg[1]) or 20000, math.tointeger(arg[2]) or 1
local BATCH = 100
local faults, done = 0, 0
for at = first, first + programs - 1, BATCH do
  local count = math.min(BATCH, first + programs - at)
  for _, mode in ipairs{"host", "sandbox"} do
    local found, text = random_batch.run(mode, at, count)
    faults = faults + found
    if text ~= "" then print(text) end
  end
  done = done + count
  if done % 500 == 0 then print(("%d programs, %d faults so far"):format(done, faults)) end
  io.stdout:flush()
end
print(("%d programs, %d faults"):format(done, faults))
os.exit(faults == 0)
