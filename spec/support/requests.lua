-- SPDX-License-Identifier: MIT
--- What is in use, and calls in which requests for memory fail, one after the other.
local core = require "marea.core"
local assert = require "luassert"

local requests = {}

local function use()
  local m = core.memory()
  return {live = m.live, blocks = m.blocks, boxes = m.boxes}
end

--- Bytes and blocks in use once nothing more can be collected.
function requests.in_use()
  collectgarbage()
  collectgarbage()
  return use()
end

function requests.assert_same_use(before, what)
  local now = use()
  if now.live == before.live and now.blocks == before.blocks and now.boxes == before.boxes then return end
  assert.are.same(before, requests.in_use(), what) -- garbage may lie about
end

--- Calls body() with the k-th request failing, for k = 1, 2, ... until a call with every later request failing
--- succeeds, so that all requests have been met; first from k on, then, unless `lasting`, the k-th alone.
--- `check(ok, result, what)` follows each call. Returns the number of requests.
function requests.each_failure(body, check, lasting)
  local function with(k, from_then_on)
    core.memory_trim() -- pooled blocks would hide requests
    core.memory_fail(k, from_then_on)
    local ok, result = pcall(body)
    core.memory_fail(0)
    if not ok then
      assert.is_string(result)
      assert.is_truthy(result:find "memory", result)
    end
    check(ok, result, ("request %d%s"):format(k, from_then_on and " and later" or ""))
    return ok
  end
  local count = 1
  while not with(count, true) do
    count = count + 1
    assert(count < 100000, "never succeeds")
  end
  for k = 1, lasting and 0 or count do with(k, false) end
  return count
end

return requests
