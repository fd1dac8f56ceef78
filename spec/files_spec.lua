-- SPDX-License-Identifier: MIT
-- The process around the library: limits on files and address space, other versions of Lua, names from strangers.
local marea = require "marea"
local folder = require "spec.support.folder"
local message_of = require "spec.support.message_of"

local build = os.getenv "MAREA_BUILD" or "build"
local sanitized = build:find "asan" ~= nil or build:find "coverage" ~= nil

teardown(folder.remove)

--- What the shell says to a command, and its exit code.
local function shell(command)
  local pipe = assert(io.popen(("(%s) 2>&1; echo exit $?"):format(command)))
  local text = pipe:read "a"
  pipe:close()
  return text:gsub("exit %d+%s*$", ""), tonumber(text:match "exit (%d+)%s*$")
end

--- Runs lua5.4 on a text, in a shell that has run `before`; `place` is a new folder.
local function under(before, text)
  local place = folder.new()
  folder.write(place .. "/run.lua", 'local marea, place = require "marea", ...\n' .. text)
  return place, shell(("%s; export LUA_PATH='%s' LUA_CPATH='%s'; exec lua5.4 %s/run.lua %s")
    :format(before, package.path, package.cpath, place, place))
end

local function names_in(place)
  local names = {}
  for name in io.popen("ls -A " .. place):lines() do names[#names + 1] = name end
  return names
end

describe("a limit on the size of files", function()
  it("is an error of every function that writes, and leaves the old file and nothing else", function()
    if build:find "coverage" then return pending "gcov's counters are files beyond the limit" end
    local place, text, code = under("ulimit -f 8", [[
      local x, path = marea.normal{300, 300}, place .. "/old"
      assert(marea.save_bytes(path, "old"))
      local log = marea.metrics.open(path, {"epoch", "loss"})
      for i = 1, 2000 do log.rows[i] = {epoch = i, loss = i} end
      marea.profile.start()
      for _ = 1, 300 do marea.ones(3) end
      local report = marea.profile.stop()
      for name, write in pairs{
        save = function() return marea.save(path, {x = x}) end, npy = function() return marea.save_npy(x, path) end,
        png = function() return marea.save_png(x, path) end, image = function() return marea.image.save(x, path) end,
        bytes = function() return marea.save_bytes(path, ("x"):rep(1e5)) end,
        checkpoint = function() return marea.checkpoint.save(path, {model = {x = x}}) end,
        metrics = function() return log:save() end, trace = function() return report:trace(path) end,
        plot = function() return marea.plot.heatmap{x}:save(place .. "/p.png") end} do
        local ok, message = write()
        assert(ok == nil and message:find("cannot write: File too large", 1, true), name .. tostring(message))
      end
      print "all refused"]])
    assert.are.equal("all refused\n", text)
    assert.are.equal(0, code)
    assert.are.same({"old", "run.lua"}, names_in(place))
    assert.are.equal("old", folder.read(place .. "/old"))
  end)
end)

describe("a limit on address space", function()
  it("that leaves OpenBLAS none ends the program, which says so", function()
    if sanitized then return pending "sanitizers want terabytes of it" end
    for _, kilobytes in ipairs{60000, 100000, 150000} do
      local text, code = shell(("ulimit -v %d; timeout 20 %s/marea -e 'print(1)'"):format(kilobytes, build))
      assert.is_truthy(text:find "^marea: OpenBLAS wants 128 MB of address space for each thread", text)
      assert.are.equal(1, code)
    end
  end)
end)

describe("a Lua of another version", function()
  for _, version in ipairs{"5.1", "5.2", "5.3", "5.5"} do
    it("is told so: " .. version, function()
      local lua = "lua" .. version
      if not os.execute(("command -v %s >/dev/null"):format(lua)) then return pending("needs " .. lua) end
      if sanitized then return pending "the sanitizer's library is needed" end
      for _, module in ipairs{"marea", "marea.core"} do
        local script = 'package.path, package.cpath = "%s", "%s" require "%s"'
        script = script:format(package.path, package.cpath, module)
        local text, code = shell(("LUA_PATH= LUA_CPATH= %s -e '%s'"):format(lua, script))
        assert.is_truthy(text:find("marea: this is Lua " .. version .. "; Marea needs Lua 5.4", 1, true), text)
        assert.are.equal(1, code)
      end
    end)
  end
end)

describe("text from strangers", function()
  -- escape, delete, C1 (of UTF-8 and as a byte), right-to-left override, isolate, line separator, half a character
  local NASTY = "a\27[31m\127\194\155\155\226\128\174\226\129\166\226\128\168\195"
  local SHOWN = "a?[31m???????"

  it("has no controls in messages, whatever brings it there", function()
    local place = folder.new()
    local function message_to(ok, message) return assert(ok == nil and message) end
    local found = {
      message_to(marea.load(NASTY)), message_to(marea.load_npy(NASTY)), message_to(marea.load_png(NASTY)),
      message_to(marea.save_npy(marea.ones(2), "/nowhere/" .. NASTY)),
      message_to(marea.metrics.open("/nowhere/" .. NASTY, {"a"}):write{a = 1}),
      message_to(marea.metrics.read(NASTY)), message_to(marea.data.mnist(NASTY)),
      message_to(require "marea.core".file_time(NASTY)), message_to(require "marea.core".list_folder(NASTY)),
      message_of(function() marea.ones({2}, {dtype = NASTY}) end), message_of(function() return marea[NASTY] end),
      message_of(function() marea.save(place .. "/x", {[NASTY] = 1}) end),
      message_of(function() marea.nn.Linear{2, 2, [NASTY] = 1} end),
      message_of(function() return marea.ones(2)[NASTY] end), message_of(function() marea.ones(2):sum{[NASTY] = 1} end),
      message_of(function() marea.nn.Linear{2, 2}:load_state{[NASTY] = marea.ones(2)} end),
    }
    for i, message in ipairs(found) do
      assert.is_truthy(message:find(SHOWN, 1, true), i .. ": " .. message)
      assert.is_falsy(message:find "[\0-\8\11-\31\127]", i)
      assert.is_truthy(utf8.len(message), i)
    end
  end)

  it("has none in what is printed of layers, tables, datasets and values", function()
    local key = NASTY:gsub("\27", "") -- which %q writes as \27
    local net = marea.nn.Sequential{marea.nn.Linear{2, 2, name = key}}
    for i, text in ipairs{tostring(net), tostring(marea.data.Dataset{{key, marea.ones(3)}}),
      tostring(marea.plan(net, marea.ones{1, 2})), require "marea.repl.inspect".text{[key] = key}} do
      assert.is_truthy(text:find("a?[31m", 1, true) or text:find("a[31m", 1, true), i .. ": " .. text)
      assert.is_falsy(text:find "[\0-\8\11-\31\127]", i)
      assert.is_falsy(text:find("\226\128\174", 1, true) or text:find("\194\155", 1, true), i)
      assert.is_truthy(utf8.len(text), i)
    end
  end)

  it("keeps letters of all scripts", function()
    local _, message = marea.load_npy "Zürich/日本語/😀.npy"
    assert.is_truthy(message:find("'Zürich/日本語/😀.npy'", 1, true), message)
  end)
end)
