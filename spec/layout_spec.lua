-- SPDX-License-Identifier: MIT
-- Where the library's Lua files lie.
local marea = require "marea"
local modules = require "spec.support.modules"
local is_class = require "marea.nn.module".is_class

local NOT_NAMED = {init = "marea itself", repl = "the prompt: require 'marea.repl'", internal = "what the parts share"}

local function lines_of(command)
  local pipe <close> = assert(io.popen(command))
  local list = {}
  for line in pipe:lines() do list[#list + 1] = line end
  return list
end

describe("lua/marea", function()
  it("has at its top level what `marea` names, the prompt, and one folder for the rest", function()
    local lazy = getmetatable(marea).__lazy
    local entries = lines_of "ls lua/marea"
    assert.is_true(#entries > 20)
    for _, entry in ipairs(entries) do
      local name = entry:gsub("%.lua$", "")
      assert.is_truthy(NOT_NAMED[name] or lazy[name] or rawget(marea, name),
        entry .. " is nothing that a user finds as marea." .. name)
    end
    for name, module in pairs(lazy) do assert.are.equal("marea." .. name, module) end
  end)

  it("is used by programs and pages through its public modules alone", function()
    local private, found = {}, 0
    for _, name in ipairs(modules.all()) do private[name] = not modules.public()[name] and name ~= "marea.repl" end
    local places = "scripts examples bench docs/*.md README.md"
    for _, line in ipairs(lines_of([[grep -rnoE "require *\(?[\"'\[]+marea\.[a-z_.]+" ]] .. places)) do
      assert.is_false(private[line:match "marea%.[%l_.]+$"] or false, line .. " is private")
      found = found + 1
    end
    assert.is_true(found > 0)
  end)

  it("does without the prompt, which stands on top of the rest", function()
    local uses = lines_of [[grep -rn '^[^-]*require *(\?"marea\.repl' lua/marea]]
    assert.is_true(#uses > 0)
    for _, line in ipairs(uses) do assert.matches("^lua/marea/repl/", line) end
  end)

  it("has no family of layers that marea.nn does not know", function()
    local found = 0
    for _, name in ipairs(modules.all()) do
      local family = name:find "^marea%.nn%." and require(name)
      for class_name, class in pairs(type(family) == "table" and not is_class(family) and family or {}) do
        if is_class(class) then
          assert.are.equal(class, rawget(marea.nn, class_name), name .. ": " .. class_name)
          found = found + 1
        end
      end
    end
    assert.is_true(found > 20, found)
  end)
end)
