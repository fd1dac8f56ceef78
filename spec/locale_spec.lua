-- SPDX-License-Identifier: MIT
-- A host that sets a locale with a comma in numbers, as programs with windows do: files, messages and texts stay as
-- they are. `make test-locale` runs the whole suite so.
local folder = require "spec.support.folder"

local build = os.getenv "MAREA_BUILD" or "build"

teardown(folder.remove)

--- Where the locale lies, made for this test if it must be; nil: it cannot be.
local function locale_path()
  local path = build .. "/locale"
  if folder.read(path .. "/de_DE.UTF-8/LC_NUMERIC") then return path end
  local made = os.execute(("mkdir -p %s && localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 2>/dev/null"):format(path, path))
  return made and path or nil
end

describe("a locale with a comma in numbers", function()
  it("changes nothing that is written or said, whenever it is set", function()
    local path = locale_path()
    if not path then return pending "needs Debian's package locales (make locale)" end
    local text, code = folder.lua("spec/support/in_locale.lua de_DE.UTF-8 " .. folder.new(), "LOCPATH=" .. path)
    assert.are.equal("same 19\n", text)
    assert.are.equal(0, code)
  end)

  it("does not reach what the library, its scripts and the benchmarks format", function()
    local found = {}
    local sources <close> = assert(io.popen "find lua scripts bench examples docs/generate -name '*.lua' | sort")
    for path in sources:read "a":gmatch "[^\n]+" do
      for text in folder.read(path):gmatch '%("([^"\n]*)"%):format%(' do
        local format = text:gsub("%%%%", ""):gsub("%%%.0f", "") -- no point in either
        if format:find "%%[-+ #%d.]*[aAeEfgG]" then found[#found + 1] = path .. ": " .. text end
      end
    end
    assert.are.same({}, found) -- marea.format writes a point everywhere
  end)
end)
