-- bindings/luajit/marea_ffi.lua in LuaJIT and in programs that have it, as docs/luajit.md tells their users.

local folder = require "spec.support.folder"
local quote, run, must = folder.quote, folder.run, folder.must

local build = os.getenv("MAREA_BUILD") or "build"
local sanitized = build:find "asan" ~= nil or build:find "coverage" ~= nil
local library = folder.absolute(build) .. "/libmarea.so"

local function has(program) return os.execute("PATH=$PATH:/usr/sbin command -v " .. program .. " >/dev/null 2>&1") end

--- Runs a test in a program that may be missing.
local function with(program, name, test)
  it(name, function()
    if sanitized then return pending(program .. " has no sanitizer in it") end
    if not has(program) then return pending(program .. " is not installed") end
    test()
  end)
end

--- A command that finds libmarea and marea_ffi.lua.
local function there(command)
  return ("MAREA_LIBRARY=%s LUA_PATH='bindings/luajit/?.lua;examples/luajit/?.lua;;' timeout 60 %s"):format(
    quote(library), command)
end

describe("LuaJIT", function()
  local place, weights, model = nil, "examples/lighttpd/decoder.safetensors", nil

  setup(function()
    local marea = require "marea"
    place = folder.new()
    model = place .. "/decoder.onnx"
    local decoder = dofile "examples/lighttpd/decoder.lua" ()
    decoder:load_state(assert(marea.load(weights)))
    assert(marea.onnx.save(decoder, model, {z = marea.zeros{1, 2}}, {results = {"image"}}))
  end)

  teardown(folder.remove)

  with("luajit", "is told what the C compiler knows of marea.h", function()
    local path = place .. "/layout.c"
    must(there "luajit spec/luajit/layout.lua >" .. quote(path))
    assert.is_true(select(2, folder.read(path):gsub("\n", "")) > 80)
    must("gcc -std=gnu11 -Icore -fsyntax-only " .. quote(path))
    local changed = "sed 's/int marea_threads/long marea_threads/' %s | gcc -std=gnu11 -Icore -fsyntax-only -x c -"
    local _, fine = run(changed:format(quote(path)))
    assert.is_false(fine) -- the test can fail
  end)

  with("luajit", "has tensors, operators and networks", function()
    for _, compiled in ipairs{"-jon", "-joff"} do
      local arguments = ("luajit %s spec/luajit/tensors.lua %s %s"):format(compiled, weights, quote(model))
      assert.are.equal("done\n", must(there(arguments)))
    end
  end)

  with("luajit", "has an error with a sentence for each wrong argument", function()
    assert.are.equal("done\n", must(there("luajit spec/luajit/misuse.lua " .. quote(model))))
  end)
end)
