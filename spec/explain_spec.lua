-- SPDX-License-Identifier: MIT
-- What is added to messages, as a library: under any Lua, in handlers of the script's own, and when it fails itself.
local core = require "marea.core"
local marea = require "marea"
local folder = require "spec.support.folder"
local quickest = require "spec.support.quickest"

teardown(folder.remove)

--- Runs a script by lua5.4; returns what it wrote.
local function run(text, environment)
  local path = folder.write(folder.new() .. "/train.lua", text)
  return (folder.lua(path, environment):gsub("/[^ :]*/train%.lua", "train.lua"))
end

describe("a tensor", function()
  it("knows the line and the operator that made it", function()
    local line = debug.getinfo(1, "l").currentline
    local x = marea.ones(2, 2)
    local y = x:reshape(4)
    assert.are.same({("spec/explain_spec.lua:%d"):format(line + 1), "full"}, {core.origin(x)})
    assert.are.same({("spec/explain_spec.lua:%d"):format(line + 2), "reshape"}, {core.origin(y)})
    local _, lower = marea.max(marea.ones(2, 2), 1)
    assert.is_nil(lower)
    assert.are.equal("split", select(2, core.origin(select(2, x:split(1, 1)))))
    assert.are.same({}, {core.origin(3)})
    y:release()
    assert.are.same({}, {core.origin(y)})
  end)
end)

describe("the message of an operator", function()
  it("names variables of the innermost function, its upvalues and fields of tables", function()
    local weights = {first = marea.ones(2, 3)}
    local upvalue = marea.ones(5, 4)
    local function multiply(x) return x:matmul(upvalue) end
    local _, message = pcall(multiply, weights.first)
    assert.is_truthy(message:find("\n  a: 'x', made at ", 1, true), message)
    assert.is_truthy(message:find("b: 'upvalue', made at ", 1, true), message)
    _, message = pcall(function() return weights.first:matmul(upvalue) end)
    assert.is_truthy(message:find("a: 'weights.first', made at ", 1, true), message)
  end)

  it("is whole when what explains it fails, and leaves hooks alone", function()
    local x = marea.ones(2, 2)
    local function multiply() return x:matmul(marea.ones(3, 3)) end
    local function count() end
    local _, explained = pcall(multiply)
    debug.sethook(count, "", 1000000)
    pcall(multiply)
    local hook, mask, n = debug.gethook()
    debug.sethook()
    assert.are.same({count, "", 1000000}, {hook, mask, n})
    core.explain_with(function() error "broken" end)
    local _, bare = pcall(multiply)
    core.explain_with(function() return 3 end)
    local _, odd = pcall(multiply)
    core.explain_with(function(...) return require "marea.explain".details(...) end)
    assert.are.equal(explained:match "^[^\n]*", bare)
    assert.are.equal(bare, odd)
    assert.are.equal(explained, select(2, pcall(multiply)))
  end)

  it("runs no metamethod of what the script holds", function()
    local function fail() error "a metamethod ran" end
    local touchy = setmetatable({}, {__index = fail, __eq = fail, __len = fail, __pairs = fail, __tostring = fail,
      __name = "Touchy"})
    local x = marea.ones(2, 2)
    local _, message = pcall(function() return x:matmul(marea.ones(3, 3)), touchy end)
    assert.is_truthy(message:find("a: 'x'", 1, true), message)
    _, message = pcall(function() return x + touchy end)
    assert.is_truthy(message:find("expected a tensor or a number, got a Touchy", 1, true), message)
  end)

  it("is whole in a sandbox", function()
    local box = marea.sandbox{seconds = 5}
    local result, message = box:run "local x = marea.ones(2, 3) return x:matmul(x)"
    assert.is_nil(result)
    assert.are.equal("sandbox:1: matmul: f32 (2, 3) x f32 (2, 3): inner sizes 3 and 2 differ\n"
      .. "  a: 'x'; b: 'x'\n  hint: x:matmul(x:transpose(-1, -2)) multiplies with the transpose", message)
    box:close()
  end)

  it("takes no time that shows beside large tables and long lines", function()
    local x, large = marea.ones(2, 2), {}
    for i = 1, 300000 do large[i] = {} end
    local long = assert(load("--[[" .. ("local a = b "):rep(100000) .. "]] local x = ... return x + nothing"))
    assert.is_true(quickest(function()
      pcall(function() return x:matmul(marea.ones(3, 3)), large end)
      pcall(long, x)
    end) < 0.2)
  end)

  it("is found in a coroutine", function()
    local co = coroutine.create(function()
      local inside = marea.ones(2, 2)
      return inside:matmul(marea.ones(3, 3))
    end)
    local _, message = coroutine.resume(co)
    assert.is_truthy(message:find("a: 'inside'", 1, true), message)
  end)
end)

describe("marea.traceback", function()
  local script = [[
    local marea = require "marea"
    local net = marea.nn.Sequential{marea.nn.Linear{2, 3}, function(x) return x.nothing end}
    local function train() local y = net(marea.ones(1, 2)) return y end
    print(select(2, xpcall(function() local y = train() return y end, marea.traceback)))
  ]]

  it("shows the script's frames and folds the library's", function()
    assert.are.equal([[
train.lua:2: a tensor has no field or method 'nothing' (layer 'Sequential')
stack traceback:
  train.lua:2: in function <line 2>
  [2 frames in marea.nn]
  train.lua:3: in function 'train'
  train.lua:4: in function <line 4>
  train.lua:4: in main chunk
]], run(script))
  end)

  it("shows every frame when MAREA_TRACEBACK is full", function()
    local text = run(script, "MAREA_TRACEBACK=full")
    assert.is_truthy(text:find("lua/marea/nn/sequential.lua:", 1, true), text)
    assert.is_truthy(text:find("[C]: in function 'xpcall'", 1, true), text)
  end)

  it("passes on what is no text", function()
    local object = {}
    assert.are.equal(object, marea.traceback(object))
    assert.are.equal(object, marea.explain(object))
    assert.is_nil(marea.traceback(nil))
  end)

  it("explains Lua's own messages", function()
    local text = run[[
      local marea = require "marea"
      local net = {conv1 = 1}
      print(select(2, xpcall(function() return net.con1() end, marea.explain)))
    ]]
    assert.are.equal("train.lua:3: attempt to call a nil value (field 'con1')\n"
      .. "  hint: 'net' has no 'con1'; did you mean 'conv1'?\n", text)
  end)
end)
