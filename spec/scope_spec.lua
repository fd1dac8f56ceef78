-- SPDX-License-Identifier: MIT
-- Scopes and no_grad: what lives, what ends, in which order, across errors and coroutines.
local core = require "marea.core"

local x

local function boxes()
  collectgarbage()
  collectgarbage()
  return core.memory().boxes
end

before_each(function() x = core.tensor({1, 2, 3}, {requires_grad = true}) end)

describe("scope(f, ...)", function()
  it("passes arguments and results through", function()
    local results = table.pack(core.scope(function(...) return select("#", ...), nil, "a" end, 1, nil, 2))
    assert.are.same({3, nil, "a", n = 3}, results)
    assert.are.equal(0, select("#", core.scope(function() end)))
  end)

  it("releases what was made inside, but not what is returned or kept", function()
    local inner, kept
    local result, list = core.scope(function()
      inner, kept = x + 1, (x + 2):keep()
      local deep = {x + 3, {name = x + 4}}
      deep.itself = deep
      return x * 2, deep
    end)
    assert.is_true(inner:is_released())
    assert.is_false(kept:is_released())
    assert.are.same({2, 4, 6}, result:totable())
    assert.are.same({4, 5, 6}, list[1]:totable())
    assert.are.same({5, 6, 7}, list[2].name:totable())
    assert.is_false(x:is_released())
  end)

  it("leaves nothing behind", function()
    local before, blocks = boxes(), core.memory().blocks
    for _ = 1, 100 do core.scope(function() return (x * x):exp():sum() + 1 end) end
    assert.are.equal(before, boxes())
    assert.are.equal(blocks, core.memory().blocks)
  end)

  it("gives its results to the scope around it", function()
    local outer
    core.scope(function()
      outer = core.scope(function() return x + 1 end)
      assert.is_false(outer:is_released())
    end)
    assert.is_true(outer:is_released())
  end)

  it("ends when f raises, and passes the error on", function()
    local inner
    local ok, message = pcall(core.scope, function()
      inner = x + 1
      error {code = 7}
    end)
    assert.is_false(ok)
    assert.are.equal(7, message.code)
    assert.is_true(inner:is_released())
  end)

  it("may be left by a yield, and coroutines do not end each other's", function()
    local function worker()
      return coroutine.wrap(function()
        local mine
        core.scope(function()
          mine = x + 1
          coroutine.yield(mine)
          coroutine.yield(mine)
        end)
        coroutine.yield "done"
      end)
    end
    local a, b = worker(), worker()
    local ta, tb = a(), b()
    a()
    assert.are.equal("done", a())
    assert.is_true(ta:is_released())
    assert.is_false(tb:is_released())
    b()
    assert.are.equal("done", b())
    assert.is_true(tb:is_released())
  end)

  it("of a coroutine that was dropped or died leaves its tensors to the garbage collector", function()
    local before = boxes()
    local function body(last)
      core.scope(function()
        local t = x + 1
        last(t)
      end)
    end
    coroutine.wrap(body)(coroutine.yield)
    local dead = coroutine.create(body)
    assert.is_false(coroutine.resume(dead, error))
    local t = x + 1 -- the next operator notices
    assert.is_false(t:is_released())
    t, dead = nil, nil
    assert.is_nil(t or dead)
    assert.are.equal(before, boxes())
  end)
end)

describe("scope()", function()
  it("ends with its block, in whatever way that is left", function()
    local t
    for _ = 1, 3 do
      local s <close> = core.scope()
      assert.is_truthy(tostring(s):find "open")
      t = x + 1
      if t then break end
    end
    assert.is_true(t:is_released())
    pcall(function()
      local _ <close> = core.scope()
      t = x + 1
      error "out"
    end)
    assert.is_true(t:is_released())
  end)

  it("ends by close, once, and in any order", function()
    local outer = core.scope()
    local a = x + 1
    local inner = core.scope()
    local b = x + 2
    outer:close()
    assert.is_true(a:is_released())
    assert.is_false(b:is_released())
    outer:close()
    inner:close()
    assert.is_true(b:is_released())
    assert.is_false((x + 1):is_released())
  end)
end)

describe("a released tensor", function()
  it("says where it was made and which scope ended it", function()
    local t
    core.scope(function() t = core.tensor{{1, 2}} end)
    local ok, message = pcall(function() return t + 1 end)
    assert.is_false(ok)
    local wanted = "scope_spec.lua:%d+: add: argument 'a': tensor f32 %(1, 2%) made at .*scope_spec.lua:%d+ "
      .. "was released by the scope ended at .*scope_spec.lua:%d+; return it from the scope or call :keep%(%)"
    assert.is_truthy(message:find(wanted), message)
    assert.is_truthy(tostring(t):find "was released by the scope")
  end)

  it("may be released again and asked about, and nothing else", function()
    local t = core.tensor{1, 2}
    t:release()
    t:release()
    assert.is_true(t:is_released())
    for _, use in ipairs{
      function() return t[1] end, function() return t.shape end, function() return #t end, function() t[1] = 2 end,
      function() return t:item() end, function() return t:keep() end, function() return core.ops.concat{x, t} end,
      function() return t:backward() end, function() return core.grad(x:sum(), {t}) end,
    } do
      local ok, message = pcall(use)
      assert.is_false(ok)
      assert.is_truthy(message:find("was released", 1, true), message)
    end
  end)

  it("can be one that a <close> variable held", function()
    local seen
    do
      local t <close> = core.tensor{1}
      seen = t
    end
    assert.is_true(seen:is_released())
  end)

  it("stays alive in the graph that needs it", function()
    local y
    core.scope(function() y = ((x * 2) * (x * 3)):sum():keep() end)
    y:backward()
    assert.are.same({12, 24, 36}, x.grad:totable())
  end)
end)

describe("no_grad", function()
  it("switches recording off inside, also when nested or left by an error", function()
    assert.is_true(core.recording())
    local y = core.no_grad(function()
      assert.is_false(core.recording())
      core.no_grad(function() end)
      assert.is_false(core.recording())
      return x * 2
    end)
    assert.is_false(y.requires_grad)
    assert.is_true(core.recording())
    pcall(core.no_grad, error)
    assert.is_true(core.recording())
    assert.is_true((x * 2).requires_grad)
  end)

  it("is a scope", function()
    local inner
    core.no_grad(function() inner = x + 1 end)
    assert.is_true(inner:is_released())
  end)

  it("comes back when a coroutine died in it", function()
    local dead = coroutine.create(function() core.no_grad(function() error "inside" end) end)
    core.no_grad(function() coroutine.resume(dead) end)
    assert.is_true(core.recording())
    assert.is_false(coroutine.resume(coroutine.create(function() core.no_grad(function() error "inside" end) end)))
    assert.is_true((x * 2).requires_grad)
  end)

  it("cannot be left by a yield", function()
    local co = coroutine.create(function() core.no_grad(coroutine.yield) end)
    local ok, message = coroutine.resume(co)
    assert.is_false(ok)
    assert.is_truthy(message:find "yield")
    assert.is_true(core.recording())
  end)
end)

describe("garbage", function()
  it("outside of scopes is collected in time, in both modes of the collector", function()
    for _, mode in ipairs{"incremental", "generational"} do
      local before = collectgarbage(mode)
      local big = core.ops.full({1024, 1024}, 1)
      core.memory_reset_peak()
      for _ = 1, 100 do
        local y = big + 1
        assert(y * 2)
      end
      collectgarbage(before)
      assert.is_true(core.memory().peak < 100 << 20, mode)
    end
  end)

  it("of many small tensors does not pile up, in both modes of the collector", function()
    for _, mode in ipairs{"incremental", "generational"} do
      local before, first = collectgarbage(mode), boxes()
      local heap, most = collectgarbage "count", 0
      for i = 1, 50000 do
        assert(x + 1)
        if i % 1000 == 0 then most = math.max(most, core.memory().boxes - first) end
      end
      collectgarbage(before)
      assert.is_true(most < 4096 + 10 * heap, ("%s: %d boxes, with a heap of %.0f KiB"):format(mode, most, heap))
    end
  end)

  it("does not take those along that are in use", function()
    local first, alive = boxes(), {}
    for i = 1, 20000 do alive[i] = x + i end
    assert.are.equal(first + 20000, boxes())
    assert.are.equal(20003, alive[20000][3]:item())
  end)

  it("is collected when memory runs out, and the operator tries again", function()
    collectgarbage()
    local big = core.ops.full({1024, 1024}, 1)
    core.memory_trim()
    core.memory_limit(core.memory().live + (20 << 20))
    for _ = 1, 20 do assert(big + 1) end
    local ok, message = pcall(function()
      local all = {}
      for i = 1, 20 do all[i] = big + 1 end
      return all
    end)
    core.memory_limit()
    assert.is_false(ok)
    assert.is_truthy(message:find "memory", message)
    assert.are.equal(2, (big + 1)[{1, 1}])
  end)

  it("finalizers may release what an operator is about to use", function()
    for _ = 1, 200 do
      local victim = core.tensor{1, 2, 3}
      setmetatable({}, {__gc = function() victim:release() end})
      pcall(function()
        for _ = 1, 20 do assert((victim + 1)["1:2"]:totable()) end
      end)
    end
  end)
end)

describe("marea.finally in a coroutine", function()
  local marea = require "marea"

  --- How often the cleanup of a coroutine that runs `body` behind it has been called when the next block ends.
  local function cleanups(body)
    local n = 0
    do
      local thread = coroutine.create(function()
        local _ <close> = marea.finally(function() n = n + 1 end)
        body()
      end)
      coroutine.resume(thread)
      assert.are.equal(0, n)
    end
    collectgarbage()
    collectgarbage()
    do local _ <close> = marea.finally(function() end) end
    return n
  end

  it("that ends by an error runs when the next block begins", function()
    assert.are.equal(1, cleanups(function() error "stop" end))
  end)

  it("that is dropped while it waits runs when the next block begins", function()
    assert.are.equal(1, cleanups(coroutine.yield))
  end)

  it("that still waits does not run", function()
    local n = 0
    local thread = coroutine.create(function()
      local _ <close> = marea.finally(function() n = n + 1 end)
      coroutine.yield()
    end)
    coroutine.resume(thread)
    collectgarbage()
    do local _ <close> = marea.finally(function() end) end
    assert.are.equal(0, n)
    coroutine.resume(thread)
    assert.are.equal(1, n)
  end)
end)
