-- SPDX-License-Identifier: MIT
-- Nothing that a script passes breaks the library: userdata are told apart by their metatables, tensors of plans that
-- have ended have no bytes, and every function takes every kind of object, if only to refuse it. (spec/c/armor_test.c
-- does the same from C.)
local core = require "marea.core"
local folder = require "spec.support.folder"
local marea = require "marea"
local message_of = require "spec.support.message_of"

local build = os.getenv "MAREA_BUILD" or "build"

teardown(folder.remove)

local function absolute(path)
  local pipe <close> = assert(io.popen(("realpath '%s'"):format(path)))
  return pipe:read "l"
end

describe("everything with everything", function()
  --- Runs spec/support/armor.lua, which calls what it finds; returns what it says.
  local function run(where, seconds, every)
    local root, own = absolute ".", absolute(folder.new())
    local command = ("cd '%s' && MAREA_THREADS=1 LUA_PATH='%s/lua/?.lua;%s/lua/?/init.lua;;' LUA_CPATH='%s/lib/?.so;;' "
      .. "lua5.4 '%s/spec/support/armor.lua' %s '%s' '%s' %d %d </dev/null >out 2>&1"):format(own, root, root,
      absolute(build), root, where, root, own, seconds, every)
    local ok, how, code = os.execute(command)
    local out <close> = assert(io.open(own .. "/out"))
    local said = out:read "a"
    if ok then return said end
    local last <close> = assert(io.open(own .. "/last"))
    error(("%s %d in: %s\n%s"):format(how, code, last:read "l", said), 2)
  end

  local function counts(said)
    local calls, functions, kinds = said:match "(%d+) calls of (%d+) functions with (%d+) kinds of objects\n$"
    return tonumber(calls), tonumber(functions), tonumber(kinds)
  end

  it("outside, with metatables, upvalues and what only lies on the stacks of functions in C", function()
    local calls, functions, kinds = counts(run("outside", 1, 3))
    assert.is_true(functions > 1000 and kinds > 40 and calls > functions * kinds / 3)
  end)

  it("in a sandbox", function()
    local calls, functions, kinds = counts(run("sandbox", 1, 12))
    assert.is_true(functions > 500 and kinds > 30 and calls > functions * kinds / 12)
  end)
end)

describe("userdata", function()
  local function session()
    core.profile_start(10)
    marea.ones(3)
    return core.profile_stop()
  end

  it("of one kind are not taken for another", function()
    local s, scope, t = session(), marea.scope(), marea.ones(2)
    assert.matches("close: argument 'scope': expected a scope", message_of(function() scope.close(s) end))
    assert.matches("close: argument 'scope': expected a scope", message_of(function() scope.close(t) end))
    assert.matches("expected a session", message_of(function() s.rows(scope) end))
    assert.matches("add: argument 'a': expected a tensor", message_of(function() marea.add(s, 1) end))
    scope:close()
  end)

  it("of other libraries are not taken for ours", function()
    local file <close> = io.tmpfile()
    assert.matches("expected a tensor", message_of(function() marea.abs(file) end))
    assert.matches("expected a scope", message_of(function() marea.scope().close(file) end))
    assert.is_false(core.is_tensor(file))
  end)

  it("show no metatable", function()
    for _, value in ipairs {session(), marea.scope(), marea.ones(2), marea.sandbox()._sandbox} do
      assert.is_false(getmetatable(value))
    end
  end)

  it("keep their kind when many have come and gone at the same addresses", function()
    for _ = 1, 20 do
      local list = {}
      for i = 1, 500 do list[i] = i % 3 == 0 and marea.scope() or marea.ones(1) end
      for i, value in ipairs(list) do assert(core.is_tensor(value) == (i % 3 ~= 0)) end
      list = nil -- luacheck: ignore 311
      collectgarbage()
    end
  end)
end)

describe("a tensor that outlives its plan", function()
  local scalar, vector, view, learned, leaf

  setup(function()
    leaf = marea.ones(3):requires_grad_()
    marea.plan(function()
      vector = marea.zeros(3):keep()
      view = marea.zeros(1000):narrow(1, 900, 3):keep()
      scalar = marea.ones(3):sum():keep()
      learned = leaf:square():keep()
    end)
  end)

  teardown(function()
    for _, t in ipairs {scalar, vector, view, learned} do t:release() end
  end)

  local ended = "is from a plan that has ended: it has no values"
  local planned = "is from a plan: it has a shape and no values"
  local path = folder.new() .. "/never"
  local other = marea.ones(3)

  local ways = {
    fill_ = {ended, function(t) t:fill_(1) end},
    zero_ = {ended, function(t) t:zero_() end},
    copy_ = {ended, function(t) t:copy_(1 * other) end},
    ["copy_ from it"] = {ended, function(t) marea.ones(3):copy_(t) end},
    ["an element"] = {ended, function(t) t[1] = 1 end},
    ["a part"] = {ended, function(t) t["1:2"] = 1 end},
    ["a part from it"] = {ended, function(t) other["1:3"] = t end},
    ["add_"] = {ended, function(t) t:add_(1) end},
    ["add_ of it"] = {ended, function(t) marea.ones(3):add_(t) end},
    ["an operator"] = {ended, function(t) return t + 1 end},
    ["a list"] = {ended, function(t) return marea.concat{other, t} end},
    ["a step"] = {ended, function(t) marea.sgd_step(t, other, other, 1) end},
    ["a gradient for it"] = {ended, function(t) marea.sgd_step(other, t, 1 * other, 1) end},
    detach = {ended, function(t) return t:detach() end},
    ["requires_grad_"] = {ended, function(t) t:requires_grad_() end},
    to = {ended, function(t) return t:to "f64" end},
    tensor = {ended, function(t) return marea.tensor(t) end},
    reshape = {ended, function(t) return t:reshape(3, 1) end},
    index = {planned, function(t) return t[1] end},
    totable = {planned, function(t) return t:totable() end},
    item = {planned, function(t) return (t.rank == 0 and t or scalar):item() end},
    save_npy = {planned, function(t) return marea.save_npy(t, path) end},
    save_png = {planned, function(t) return marea.save_png(t, path) end},
    encode_png = {planned, function(t) return core.encode_png(t) end},
    save = {ended, function(t) return core.save(path, {t = t}) end},
    seed = {ended, function(t) leaf:square():backward(t) end},
    blame = {ended, function(t) return core.blame(t) end},
    ["in a later plan"] = {ended, function(t) marea.plan(function() return t + 1 end) end},
  }
  local says_ended = {save_npy = true, save_png = true, encode_png = true}

  for name, way in pairs(ways) do
    it("is refused: " .. name, function()
      for _, t in ipairs {vector, view} do
        local words = says_ended[name] and ended or way[1]
        assert.matches(words, message_of(function() way[2](t) end), 1, true)
      end
    end)
  end

  it("is refused in the words of the script", function()
    assert.matches("fill_: argument 't', f32 (3), is from a plan that has ended",
      message_of(function() vector:fill_(1) end), 1, true)
    assert.matches("copy_: argument 'src', f32 (3), is from",
      message_of(function() marea.ones(3):copy_(view) end), 1, true)
  end)

  it("passes no gradient", function()
    assert.matches(ended, message_of(function() learned:backward(1 * other) end), 1, true)
    assert.matches(ended, message_of(function() marea.grad(learned, leaf, {seed = 1 * other}) end), 1, true)
    assert.matches(ended, message_of(function() marea.grad(leaf:square():sum(), learned) end), 1, true)
    assert.is_nil(leaf.grad)
  end)

  it("passes into no sandbox", function()
    local box = marea.sandbox()
    local ok, message = pcall(box.run, box, "return ...", vector)
    assert.is_false(ok)
    assert.matches("a planned tensor cannot pass", message)
    box:close()
  end)

  it("has a shape and a text", function()
    assert.are.equal("tensor f32 (3), planned: no values", tostring(vector))
    assert.are.equal("tensor f32 (), planned: no values", tostring(scalar))
    assert.are.same({3}, {view:size()})
  end)
end)

describe("in a plan", function()
  it("views with gaps of real tensors are not read", function()
    local x = marea.ones(4, 6)
    local gaps = x:transpose(1, 2)
    marea.plan(function()
      assert.matches("while a plan runs", message_of(function() marea.save_npy(gaps, "never.npy") end))
      local box = marea.sandbox()
      assert.matches("while a plan runs", select(2, box:run("return ...", gaps)))
    end)
  end)

  it("nobody is blamed, for nothing is computed", function()
    local x = marea.zeros(3, 2):requires_grad_()
    local y = (x:log() * 1):transpose(1, 2) * 1
    marea.plan(function()
      assert.matches("blame: a plan runs", message_of(function() core.blame(y) end))
    end)
    assert.are.equal("log", core.blame(y).op)
  end)

  it("real tensors are left as they are", function()
    local x = marea.ones(3)
    marea.plan(function()
      x:fill_(5):add_(1):copy_(x * 2)
      x[1] = 7
    end)
    assert.are.same({1, 1, 1}, x:totable())
  end)
end)
