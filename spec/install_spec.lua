-- What `make install` and `luarocks make` put where, used without the source; and how large it is.

local build = os.getenv("MAREA_BUILD") or "build"
local sanitized = build:find "asan" ~= nil

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local output = pipe:read "a"
  local ok = pipe:close()
  return output, ok
end

local function must(command)
  local output, ok = run(command)
  assert(ok, command .. "\n" .. output)
  return output
end

local function temporary_folder()
  local path = os.tmpname()
  os.remove(path)
  must("mkdir -p " .. path)
  return path
end

local function has(program) return os.execute(("command -v %s >/dev/null 2>&1"):format(program)) end

--- Bytes of a file without its debugging information.
local function stripped(path)
  local copy = os.tmpname()
  must(("strip -o %s %s"):format(copy, path))
  local file = assert(io.open(copy))
  local bytes = file:seek "end"
  file:close()
  os.remove(copy)
  return bytes
end

--- Under a folder that make install filled: a command that finds its libraries and pkg-config files.
local function inside(folder, command)
  return ("cd / && PKG_CONFIG_PATH=%s/lib/pkgconfig LD_LIBRARY_PATH=%s/lib %s"):format(folder, folder, command)
end

describe("make install", function()
  local folder, source

  setup(function()
    folder, source = temporary_folder(), must "pwd":gsub("\n", "")
    must(("make -s install BUILD=%s PREFIX=%s"):format(build, folder))
  end)

  teardown(function() os.execute("rm -r " .. folder) end)

  it("puts a module and a program where they work without the source", function()
    local lua = ("cd / && LUA_PATH='%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua' "
      .. "LUA_CPATH='%s/lib/lua/5.4/?.so' lua5.4 -e "):format(folder, folder, folder)
    local output = must(lua .. [['local m = require "marea"; print(m.nn.Linear{3, 2}(m.zeros{1, 3}).shape[2])']])
    assert.are.equal("2\n", output)
    local program = ("cd / && %s/bin/marea "):format(folder)
    assert.are.equal("6.0\n", must(program .. "-e 'print(require(\"marea\").arange(1, 3):sum():item())'"))
    assert.are.equal("1000\n", must(program .. "-e 'print(require(\"marea\").data.mnist(\"sample\", \"test\").size)'"))
    local script = folder .. "/share/marea/scripts/vae.lua"
    output = run(program .. "vae.lua")
    assert.is_truthy(output:find("\n  hint: vae.lua comes with Marea: " .. script, 1, true), output)
    assert.is_truthy(must(program .. script .. " --help"):find "Trains a convolutional variational autoencoder")
  end)

  it("tells pkg-config where the libraries are", function()
    assert.are.equal(require "marea.core".info().version .. "\n", must(inside(folder, "pkg-config --modversion marea")))
    local flags = must(inside(folder, "pkg-config --cflags --libs marea-lua"))
    assert.is_truthy(flags:find(("-I%s/include "):format(folder), 1, true), flags)
    assert.is_truthy(flags:find "%-lmarea_lua %-lmarea ", flags)
    assert.is_falsy(flags:find("-lopenblas", 1, true)) -- the shared library brings it along
    assert.is_truthy(must(inside(folder, "pkg-config --static --libs marea")):find "%-lopenblas.*%-ljansson")
  end)

  --- The programs of examples/make and examples/cmake do what they do in the source's own build.
  local function works(place)
    local path = place .. "/sine.safetensors"
    assert.is_truthy(must(inside(folder, ("%s/train %s"):format(place, path))):find "bytes still in use: 0")
    local output = run(("%s/decode %s 0 0"):format(place, path)) -- without LD_LIBRARY_PATH
    assert.is_truthy(output:find "linear: ", output)
    output = run(inside(folder, ("%s/host_min %s/examples/decode.lua nowhere.safetensors"):format(place, source)))
    assert.is_truthy(output:find "load: 'nowhere.safetensors'", output)
  end

  it("serves programs that are built with make", function()
    if sanitized then return pending "the installed archive needs the sanitizer's flags" end
    local place = temporary_folder()
    must(inside(folder, ("make -s -C %s/examples/make OUT=%s"):format(source, place)))
    works(place)
    os.execute("rm -r " .. place)
  end)

  it("serves programs that are built with CMake", function()
    if sanitized then return pending "the installed archive needs the sanitizer's flags" end
    if not has "cmake" then return pending "cmake is not installed" end
    local place = temporary_folder()
    must(inside(folder, ("cmake -S %s/examples/cmake -B %s"):format(source, place)))
    must("cmake --build " .. place)
    works(place)
    os.execute("rm -r " .. place)
  end)

  it("brings a manual page without mistakes", function()
    if not has "man" then return pending "man is not installed" end
    local man = "env -u LD_PRELOAD LC_ALL=C.UTF-8 man" -- troff does not bear a sanitizer
    local path = folder .. "/share/man/man1/marea.1"
    assert.are.equal("", must(("%s --warnings -E UTF-8 -l %s 2>&1 >/dev/null"):format(man, path)))
    local page = must(("%s -l %s | col -b"):format(man, path))
    for option in must(folder .. "/bin/marea -h"):gmatch "\n  (%-%a)" do
      assert.is_truthy(page:find("\n +%" .. option .. "[ \n]"), option)
    end
    assert.is_truthy(page:find(folder .. "/share/marea/scripts", 1, true))
  end)

  it("is undone by make uninstall", function()
    local other = temporary_folder()
    must(("make -s install BUILD=%s PREFIX=/usr LIBDIR=/usr/lib/here DESTDIR=%s"):format(build, other))
    assert.is_truthy(must(("find %s -type f"):format(other)):find "/usr/lib/here/lua/5.4/marea/core.so")
    must(("make -s uninstall PREFIX=/usr LIBDIR=/usr/lib/here DESTDIR=%s"):format(other))
    assert.are.equal("", must(("find %s -not -type d"):format(other)))
    os.execute("rm -r " .. other)
  end)
end)

describe("luarocks make", function()
  it("puts the module into a tree of rocks", function()
    if build ~= "build" then return pending "the rock installs what is in build/" end
    if not has "luarocks" then return pending "luarocks is not installed" end
    local tree = temporary_folder()
    must("luarocks --lua-version 5.4 make --tree " .. tree)
    local lua = ("cd / && LUA_PATH='%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua' "
      .. "LUA_CPATH='%s/lib/lua/5.4/?.so' lua5.4 -e "):format(tree, tree, tree)
    assert.are.equal("6.0\n", must(lua .. [['print(require "marea".arange(1, 3):sum():item())']]))
    os.execute("rm -r " .. tree)
  end)
end)

describe("without debugging information", function()
  local megabyte = 1e6

  it("the shared library has at most 2 MB", function()
    if sanitized then return pending "a sanitizer makes programs larger" end
    assert.is_true(stripped(build .. "/libmarea.so") <= 2 * megabyte)
  end)

  it("a program that runs a network without Lua, the library inside, has at most 3 MB", function()
    if sanitized then return pending "a sanitizer makes programs larger" end
    local program = build .. "/examples/decode"
    assert.is_true(stripped(program) <= 3 * megabyte)
    assert.is_falsy(must("ldd " .. program):find "lua")
    assert.is_falsy(must("ldd " .. program):find "libmarea")
  end)
end)
