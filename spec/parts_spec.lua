-- SPDX-License-Identifier: MIT
-- Tensors as lists of views, and bytes as tensors.
local marea = require "marea"
local message_of = require "spec.support.message_of"

describe("unbind", function()
  it("gives the elements of a dimension as views, as many as there are", function()
    local x = marea.arange(1, 600):reshape(2, 100, 3)
    local list = x:unbind(2)
    assert.are.equal(100, #list)
    for i, view in ipairs(list) do
      assert.is_true(view:shares(x))
      assert.are.same(x[{1, i}]:totable(), view[1]:totable())
      assert.are.same({2, 3}, view.shape)
    end
    assert.are.same({1, 4}, {#x:unbind(-3)[2]:unbind()[1]:narrow(1, 1, 1), x:reshape(600):unbind()[4]:item()})
    assert.are.equal(0, #marea.zeros(3, 0):unbind(2))
  end)

  it("gives each element its gradient", function()
    local x = marea.ones{50, 2, dtype = "f64"}:requires_grad_()
    local sum = marea.zeros{2, dtype = "f64"}
    for t, row in ipairs(marea.unbind(x)) do sum = sum + row * t end
    sum:sum():backward()
    for t = 1, 50 do assert.are.same({t, t}, x.grad[t]:totable()) end
  end)

  it("refuses what has no such dimension", function()
    assert.matches("unbind: argument 'dim': expected 1 to 1, or negative from the end, got 2",
      message_of(function() marea.unbind(marea.zeros(2), 2) end))
    assert.matches("unbind: argument 'x': expected a tensor with at least one dimension",
      message_of(function() marea.unbind(marea.tensor(1)) end))
    assert.matches("unbind: argument 'x': expected a tensor, got 3", message_of(function() marea.unbind(3) end))
  end)
end)

describe("parts", function()
  it("cuts a dimension into any number of views", function()
    local x = marea.arange(1, 100)
    for size = 1, 101, 7 do
      local list = x:parts(size)
      assert.are.equal((99 // size) + 1, #list)
      assert.are.same(x:totable(), (#list > 1 and marea.concat(list) or list[1]):totable())
      assert.are.equal(size <= 100 and size or 100, list[1]:numel())
    end
    assert.are.same({{3}, {6}}, marea.tensor{{1, 2, 3}, {4, 5, 6}}:parts(2, -1)[2]:totable())
    assert.is_true(x:parts(3)[1]:shares(x))
  end)

  it("refuses sizes below 1", function()
    assert.matches("parts: argument 'size': expected an integer of at least 1, got 0",
      message_of(function() marea.parts(marea.zeros(2), 0) end))
  end)
end)

describe("bytes", function()
  it("become a tensor of u8 and a text again", function()
    local all = {}
    for i = 0, 255 do all[i + 1] = string.char(i) end
    all = table.concat(all)
    local t = marea.bytes(all)
    assert.are.equal("u8", t.dtype)
    assert.are.same({256}, t.shape)
    for i = 1, 256 do assert.are.equal(i - 1, t[i]) end
    assert.are.equal(all, t:to_bytes())
    assert.are.equal(all, t:reshape(4, 64):to_bytes())
    assert.are.equal(all:reverse(), t:flip(1):to_bytes())
    assert.are.equal("adbecf", marea.bytes "abcdef":reshape(2, 3):transpose(1, 2):to_bytes())
    assert.are.equal("", marea.bytes "":to_bytes())
    assert.are.equal("x", marea.bytes "x"[1] and marea.tensor(120, {dtype = "u8"}):to_bytes())
  end)

  it("do not change with the text's tensor", function()
    local t = marea.bytes "abc"
    local text = t:to_bytes()
    t:fill_(120)
    assert.are.same({"abc", "xxx"}, {text, t:to_bytes()})
  end)

  it("are those of a string, and of u8", function()
    assert.matches("bytes: argument 'text': expected a string, got 1", message_of(function() marea.bytes(1) end))
    assert.matches("to_bytes: expected a tensor of u8, got f32 %(2%)",
      message_of(function() marea.ones(2):to_bytes() end))
  end)
end)
