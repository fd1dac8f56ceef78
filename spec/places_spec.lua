-- Where the library lies and what the script's files are called changes nothing in what is said: library code is found
-- by the files that it was loaded from, not by words in their paths.
local folder = require "spec.support.folder"

local build = os.getenv "MAREA_BUILD" or "build"
local quote = folder.quote

local function sh(command, ...)
  assert(os.execute(command:format(...)))
end

local here = folder.absolute "."

--- A script whose error comes through two frames of the library and two of its own files.
local MODEL = [[
local marea = require "marea"
local Net = marea.nn.class "Net"
function Net:init() self.layer = marea.nn.Linear{4, 2} end
function Net:forward(x) local y = self.layer(x) return y end
return Net
]]
local SCRIPT = [[
local marea = require "marea"
local Net = dofile(MODEL)
local function train()
  local report = marea.profile(function() local y = Net()(marea.zeros{3, 5}) return y end)
  return report
end
local _, message = xpcall(train, marea.traceback)
print(message)
local t = marea.ones{2} + marea.nn.ReLU{}(marea.ones{2})
print(require("marea.core").origin(t))
]]

describe("library code", function()
  local at
  setup(function() at = folder.new() end)
  teardown(folder.remove)

  --- What the script at `script` says, with its model at `model`: the message's line, the traceback and an origin.
  local function said(command, script, model)
    sh("mkdir -p $(dirname %s) $(dirname %s)", quote(script), quote(model))
    folder.write(model, MODEL)
    folder.write(script, (SCRIPT:gsub("MODEL", function() return ("%q"):format(model) end)))
    return (folder.run(command .. " " .. quote(script)))
  end

  --- Everything that names a place names the script's.
  local function expect(text, script, model)
    local function short(path, line) -- as Lua shortens a source
      local name = #path <= 59 and path or "..." .. path:sub(-56)
      return ("%s:%d:"):format(name, line)
    end
    assert.are.equal(short(model, 4), text:match "^(.-:%d+:)", text)
    assert.is_truthy(text:find(("\n  %s in function <line 4>\n  [1 frame in marea.nn]\n  %s in function 'f'\n"
      .. "  [1 frame in marea.profile]\n"
      .. "  %s in function <line 3>\n  %s in main chunk\n"):format(short(model, 4), short(script, 4), short(script, 4),
      short(script, 7)), 1, true), text)
    assert.is_truthy(text:find("\n" .. short(script, 9):sub(1, -2) .. "\tadd", 1, true), text)
  end

  local function try(command, script, model)
    expect(said(command, script, model), script, model)
  end

  --- lua5.4 with another way to the same modules.
  local function lua(path, prefix)
    return ("%s LUA_PATH=%s LUA_CPATH=%s lua5.4"):format(prefix or "", quote(path),
      quote(("%s/%s/lib/?.so"):format(here, build)))
  end

  local function tree(path) return ("%s/lua/?.lua;%s/lua/?/init.lua"):format(path, path) end

  it("is not a script that is called as the library or its files are", function()
    for _, name in ipairs{"marea.lua", "lua/marea/init.lua", "marea/nn/conv.lua",
      "share/lua/5.4/marea/internal/check.lua", "(marea)/nn/linear.lua"} do
      try(lua(tree(here)), at .. "/" .. name, at .. "/marea/" .. name)
    end
  end)

  it("is the library through links, relative paths, and paths that differ between files and folders", function()
    sh("ln -s %s/lua %s/link", quote(here), quote(at))
    for _, path in ipairs{at .. "/link/?.lua;" .. at .. "/link/?/init.lua", "./lua/?.lua;./lua/?/init.lua",
      "lua/?.lua;lua/?/init.lua", "./lua/?.lua;" .. here .. "/lua/?/init.lua",
      here .. "/lua/../lua/?.lua;./lua/?/init.lua", "./lua/../lua/../lua/?.lua;lua/?/init.lua"} do
      try(lua(path), at .. "/script.lua", at .. "/model.lua")
    end
  end)

  it("is not a script in the library's own folder", function()
    local copy = at .. "/copy"
    sh("mkdir %s && cp -r lua %s/", quote(copy), quote(copy))
    local own = copy .. "/lua/marea/"
    try(lua(tree(copy)), own .. "script.lua", own .. "nn/model.lua")
    try(lua(tree(copy)), own .. "nn/script.lua", own .. "marea.lua")
  end)

  it("is the library in a folder of its name, of a long path and of one with spaces and umlauts", function()
    for _, place in ipairs{"marea", "marea/lua/marea", "Über uns/mein marea", ("long/"):rep(80) .. "marea", "100%d"} do
      local copy = at .. "/" .. place
      sh("mkdir -p %s && cp -r lua %s/", quote(copy), quote(copy))
      try(lua(tree(copy)), copy .. "/script.lua", copy .. "/lua/model.lua")
      try(lua("./lua/?.lua;./lua/?/init.lua", ("cd %s &&"):format(quote(copy))), copy .. "/script.lua",
        copy .. "/lua/model.lua")
    end
  end)

  it("is told apart in Lua's own messages, however its path is shortened there", function()
    local code = quote('local m = require "marea" local d = m.dist.Normal{0, 1} '
      .. 'print(select(2, xpcall(function() return d.sample() end, m.explain)))')
    for _, place in ipairs{"marea", "Über uns/mein marea", ("deep/"):rep(20) .. "marea"} do
      local copy = at .. "/" .. place
      sh("mkdir -p %s && cp -r lua %s/", quote(copy), quote(copy))
      local text = folder.run(lua(tree(copy)) .. " -e " .. code)
      assert.matches("^%(command line%):1: attempt to index a nil value.*%(in Marea, called from here%)", text)
    end
  end)

  it("is the library that is compiled into a program, wherever that lies", function()
    sh("mkdir -p %s/marea/bin && cp %s/marea %s/marea/bin/", quote(at), quote(build), quote(at))
    try(quote(at .. "/marea/bin/marea"), at .. "/marea/bin/script.lua", at .. "/marea/bin/marea.lua")
    try(quote(build .. "/marea"), at .. "/script.lua", at .. "/model.lua")
  end)

  it("lets a notebook's kernel be installed from a folder with spaces and quotes in its name", function()
    local copy = at .. "/\"Über\" \\ uns'"
    local at_copy = quote(copy)
    sh("mkdir -p %s/build && cp -r Makefile lua examples %s/ && touch %s/build/marea", at_copy, at_copy, at_copy)
    local target = "build/jupyter/marea/kernel.json"
    sh("cd %s && make -s -o build/marea %s", at_copy, target)
    local text = folder.read(copy .. "/" .. target)
    local escaped = copy:gsub('["\\]', "\\%0")
    assert.is_truthy(text:find(('"%s/examples/jupyter/marea_kernel.py"'):format(escaped), 1, true), text)
    assert.is_truthy(text:find(('{"MAREA_PROGRAM": "%s/build/marea"}'):format(escaped), 1, true), text)
  end)

  it("is known by its modules' names", function()
    local core = require "marea.core"
    core.library "@/somewhere/marea/"
    assert.are.equal("marea.nn.conv", core.module_of "@(marea)/nn/conv.lua")
    assert.are.equal("marea.nn.conv", core.module_of "@/somewhere/marea/nn/conv.lua")
    assert.are.equal("marea.nn", core.module_of "@/somewhere/marea/nn/init.lua")
    assert.are.equal("marea", core.module_of "@/somewhere/marea/init.lua")
    for _, source in ipairs{"@/somewhere/marea/own.lua", "@/somewhere/marea/", "@/somewhere/marea",
      "@elsewhere/nn/conv.lua", "=(marea)/nn/conv.lua", "@(marea)/own.lua", "", "@",
      "@/somewhere/marea/nn/conv.luac", "return 1"} do
      assert.is_nil(core.module_of(source), source)
    end
  end)
end)
