-- SPDX-License-Identifier: MIT
-- What newcomers do wrong, and what they read then: spec/golden/mistakes/*.txt, compared in full. `make mistakes`
-- writes the files anew; every change of a text is there to be read as by someone who meets it for the first time.
local folder = require "spec.support.folder"
local mistakes = require "spec.support.mistakes"

local UPDATE = os.getenv "MAREA_UPDATE_MISTAKES" == "1"
local FILES = {"tensors", "language", "layers", "training", "files", "names"}

teardown(folder.remove)

describe("a mistake", function()
  local program = folder.quote(folder.absolute((os.getenv "MAREA_BUILD" or "build") .. "/marea"))

  for _, name in ipairs(FILES) do
    local path = "spec/golden/mistakes/" .. name .. ".txt"
    local entries, titles = mistakes.read(path), {}
    for _, entry in ipairs(entries) do
      it(("(%s) %s"):format(name, entry.title), function()
        assert.is_nil(titles[entry.title], "a title that occurs twice")
        titles[entry.title] = true
        local text, code = mistakes.run(entry, program)
        assert.are.equal(1, code, text)
        assert.is_nil(text:find "%.[ch]:%d", "a line of C")
        assert.is_nil(text:find "lua/marea/", "a line of the library")
        if UPDATE then entry.says = text end
        assert.are.equal(entry.says, text)
      end)
    end
    if UPDATE then
      it(name .. " is written", function() mistakes.write(path, entries) end)
    end
  end
end)
