-- A run that is killed while it saves must always leave a checkpoint that loads.

local core = require "marea.core"

local function temporary(name)
  return os.tmpname() .. name
end

-- The child saves as fast as it can; every file holds one number, the same in all tensors.
local child = [[
local core = require "marea.core"
local path = ...
for step = 1, 1e9 do
  local w = core.ops.full({ 64, 1024 }, step)
  assert(core.save(path, { a = w, b = w }, { step = tostring(step) }))
end
]]

describe("a killed run", function()
  it("leaves a whole checkpoint, 50 times", function()
    local script, path = temporary(".lua"), temporary(".safetensors")
    local f = assert(io.open(script, "w"))
    f:write(child)
    f:close()
    math.randomseed(7)
    local loaded = 0
    for _ = 1, 50 do
      local shell = ("LUA_CPATH='%s' lua5.4 %s %s >/dev/null 2>&1 & pid=$!; " -- the first one is waited for
        .. "while [ ! -e %s ] && kill -0 $pid; do sleep 0.01; done; sleep %.3f; kill -9 $pid; wait $pid 2>/dev/null")
        :format(package.cpath, script, path, path, 0.02 + 0.08 * math.random())
      os.execute(shell)
      local tensors, texts = core.load(path)
      if tensors then
        loaded = loaded + 1
        local step = tonumber(texts.step)
        assert.are.equal(step, tensors.a[{ 1, 1 }])
        assert.are.equal(step, tensors.b[{ 64, 1024 }])
      else
        assert.is_nil(io.open(path), "a checkpoint exists but does not load: " .. tostring(texts))
      end
    end
    assert.are.equal(50, loaded)
    os.remove(script)
    os.remove(path)
  end)
end)
