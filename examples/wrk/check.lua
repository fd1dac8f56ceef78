-- SPDX-License-Identifier: MIT
--- wrk asks a server of digits for random points, and compares each answer with what the network gives here:
---
---   wrk -t2 -c4 -d5s -s examples/wrk/check.lua http://127.0.0.1:18730/digit.png
local marea = require "marea_ffi"
local decode = require "digit".load(os.getenv "DIGIT")
local threads, asked = {}, {}
right, wrong = 0, 0 -- globals, as wrk's thread:get reads them

function setup(thread)
  threads[#threads + 1] = thread
  thread:set("seed", #threads)
end

function init() marea.seed(seed) end

local function hundredths(x) return math.floor(100 * x + 0.5) / 100 end

--- A connection does not say which request an answer is of, so all that are awaited are kept.
function request()
  local z = marea.op.normal{shape = {2}}:totable()
  local text = hundredths(z[1]) .. "," .. hundredths(z[2])
  local z1, z2 = text:match "(.-),(.*)"
  local picture = marea.encode_png(decode(marea.tensor{{tonumber(z1), tonumber(z2)}}))
  asked[picture] = (asked[picture] or 0) + 1
  return wrk.format("GET", wrk.path .. "?z=" .. text)
end

function response(status, _, body)
  local awaited = status == 200 and asked[body]
  if not awaited then wrong = wrong + 1 return end
  right = right + 1
  asked[body] = awaited > 1 and awaited - 1 or nil
end

function done()
  local all, bad = 0, 0
  for _, thread in ipairs(threads) do all, bad = all + thread:get "right", bad + thread:get "wrong" end
  print(("%d right, %d wrong"):format(all, bad))
end
