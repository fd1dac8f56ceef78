-- SPDX-License-Identifier: MIT
-- Misuse of every public function: whatever is given, the call succeeds or raises a string that names the function.
-- The calls are made by spec/support/misuse_calls.lua in a process of its own, so a crash is a failure and not an end.
local core, marea = require "marea.core", require "marea"
local folder = require "spec.support.folder"

--- Runs a script of this folder in a new folder; returns its output and whether it ended well.
local function run(script)
  local place, root = folder.new(), folder.absolute "."
  local function absolute(path) return folder.quote(((";" .. path):gsub(";%./", ";" .. root .. "/"):sub(2))) end
  local last = place .. "/running"
  local command = ("cd %s && LUA_PATH=%s LUA_CPATH=%s lua5.4 %s %s 2>&1; echo exit $?"):format(place,
    absolute(package.path), absolute(package.cpath), folder.quote(root .. "/" .. script), last)
  local pipe = assert(io.popen(command))
  local text = pipe:read "a"
  pipe:close()
  local file = io.open(last)
  local running = file and file:read "l" or "?"
  if file then file:close() end
  folder.remove()
  local code = tonumber(text:match "exit (%d+)%s*$")
  return text, code, running
end

local function fails_with(texts, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "no error")
  for _, text in ipairs(texts) do
    assert.is_truthy(tostring(message):find(text, 1, true), ("'%s' has no '%s'"):format(message, text))
  end
end

describe("misuse", function()
  local function expect_no_fault(script, least)
    local text, code, running = run(script)
    assert.are.equal(0, code, ("ended with status %s in: %s\n%s"):format(code, running, text))
    local calls, faults = text:match "(%d+) calls, (%d+) faults"
    assert.is_true(tonumber(calls) >= least, calls .. " calls")
    assert.are.equal(0, tonumber(faults), text)
  end

  it("of every function, argument and kind of value is an error that names the function", function()
    expect_no_fault("spec/support/misuse_calls.lua", 15000)
  end)

  it("of what the Lua modules offer is an error of theirs, not of Lua's", function()
    expect_no_fault("spec/support/misuse_layers.lua", 10000)
  end)
end)

describe("a message", function()
  local ops = core.ops

  it("tells function, argument, what was expected and what came", function()
    local x, w = ops.full {shape = {1, 3, 3, 1}, value = 0}, ops.full {shape = {5, 5, 1, 2}, value = 0}
    fails_with({"misuse_spec.lua:", "conv2d", "5", "3"}, function() ops.conv2d(x, w) end)
    fails_with({"conv2d", "'strid'", "did you mean 'stride'?"}, function() ops.conv2d(x, w, nil, {strid = 2}) end)
    fails_with({"conv2d", "'weight'", "a tensor"}, function() ops.conv2d(x, "w") end)
    fails_with({"conv2d", "'padding'"}, function() ops.conv2d(x, w, nil, {padding = "some"}) end)
    fails_with({"softmax", "'dim'"}, function() ops.softmax(x, {dim = 0}) end)
    fails_with({"softmax", "5"}, function() ops.softmax(x, {dim = 5}) end)
  end)

  it("shows both shapes", function()
    local a, b = ops.full {shape = {2, 3}, value = 0}, ops.full {shape = {4, 5}, value = 0}
    fails_with({"add", "(2, 3)", "(4, 5)"}, ops.add, a, b)
    fails_with({"matmul", "(2, 3)", "(4, 5)"}, ops.matmul, a, b)
  end)

  it("of a table that is no tensor tells the place", function()
    fails_with({"tensor", "[2]"}, core.tensor, {{1, 2}, {3}})
    fails_with({"tensor", "[2][1]"}, core.tensor, {{1, 2}, {"x", 3}})
  end)

  it("of index 0 says that counting starts at 1", function()
    local t = core.tensor {1, 2}
    fails_with({"0"}, function() return t[0] end)
    fails_with({"3"}, function() return t[3] end)
    assert.are.equal(2, t[-1])
  end)

  it("of a label out of range tells it", function()
    local logits = ops.full {shape = {2, 3}, value = 0}
    fails_with({"cross_entropy", "4", "3"}, ops.cross_entropy, logits, core.tensor({1, 4}, {dtype = "i64"}))
    fails_with({"cross_entropy", "0"}, ops.cross_entropy, logits, core.tensor({0, 1}, {dtype = "i64"}))
  end)

  it("comes back as a value for a file that is missing or no file of its kind", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write "not a tensor"
    file:close()
    for _, name in ipairs {"load", "load_idx", "load_npy", "load_npz", "load_zip", "load_torch", "load_gguf", "load_t7",
      "load_png", "load_jpeg", "load_image"} do
      for _, p in ipairs {path, path .. ".missing", "/", ""} do
        local value, message = marea[name](p)
        assert.is_nil(value, name)
        assert.is_string(message, name)
      end
    end
    os.remove(path)
  end)
end)
