-- A short run of the random programs of `make random-programs`, those that once failed, and that what is looked for
-- would be found.
local folder = require "spec.support.folder"
local random_batch = require "spec.support.random_batch"
local random_program = require "spec.support.random_program"

local PROGRAMS = 100

describe("random programs", function()
  teardown(folder.remove)

  for _, mode in ipairs{"host", "sandbox"} do
    it(("leave the library as it was (%s)"):format(mode), function()
      local faults, text = random_batch.run(mode, 1, PROGRAMS)
      assert.are.equal(0, faults, text)
    end)

    it(("that failed once do not (%s)"):format(mode), function()
      local pipe = assert(io.popen "ls spec/golden/programs/*.lua")
      for path in pipe:lines() do
        local result = random_batch.file(mode, path)
        assert.is_true(result.ended and result.faults == 0, path .. "\n" .. result.output)
      end
      pipe:close()
    end)
  end

  it("are the same for the same seed, and others for another", function()
    local text = random_program.text(1)
    assert.are.equal(text, random_program.text(1))
    local same = 0
    for line in random_program.text(2):gmatch "try[^\n]+" do
      if text:find(line, 1, true) then same = same + 1 end
    end
    assert.is_true(same < 5, same)
    assert.are.equal(30, select(2, text:gsub("\ntry", "")))
  end)
end)

describe("a random program that", function()
  local function file(line)
    local text = random_program.text(3):gsub("\nreturn", function() return "\n" .. line .. "\nreturn" end, 1)
    return random_batch.file("host", folder.write(folder.new() .. "/program.lua", text))
  end

  local function finds(what, line)
    local result = file(line)
    assert.is_true(result.ended, result.output)
    assert.is_true(result.faults > 0 and result.output:find(what) ~= nil, result.output)
  end

  it("meets an error of Lua's in a line of the library is found", function()
    finds("FAULT in .*/internal/check.lua:%d+: ",
      "try(function() require('marea.internal.check').names(nil) end)")
  end)

  it("leaves memory in use is found", function()
    finds("each run leaves %d+ bytes, 1 blocks", "package.loaded[{}] = marea.ones(5)")
  end)

  it("gives other bits with two threads is found", function()
    finds("2 threads: ", "v[8] = marea.tensor(marea.threads())")
  end)

  it("ends the process is found, and made short", function()
    local text = random_program.text(5, 8)
    text = text:gsub("\nreturn", "\ntry(function() os.exit(3) end)%0", 1)
    local at = folder.new()
    local short = random_batch.shortest(text, function(candidate)
      return not random_batch.file("host", folder.write(at .. "/program.lua", candidate)).ended
    end)
    assert.are.equal(1, select(2, short:gsub("\ntry", "")))
    assert.is_truthy(short:find("os.exit", 1, true))
  end)
end)
