-- What `make install` and `luarocks make` put where, used without the source; and how large it is.

local folder = require "spec.support.folder"
local point = require "spec.support.point"
local quote, run, must = folder.quote, folder.run, folder.must

local build = os.getenv("MAREA_BUILD") or "build"
local sanitized = build:find "asan" ~= nil or build:find "coverage" ~= nil

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

--- A command that finds the libraries and pkg-config files below the place that make install filled.
local function inside(place, command)
  return ("cd / && PKG_CONFIG_PATH=%s LD_LIBRARY_PATH=%s %s"):format(quote(place .. "/lib/pkgconfig"),
    quote(place .. "/lib"), command)
end

--- A command that runs lua5.4 with the modules that were installed in a place.
local function lua_in(place)
  return ("cd / && LUA_PATH=%s LUA_CPATH=%s lua5.4 -e "):format(
    quote(place .. "/share/lua/5.4/?.lua;" .. place .. "/share/lua/5.4/?/init.lua"),
    quote(place .. "/lib/lua/5.4/?.so"))
end

describe("make install", function()
  local prefix, source

  setup(function()
    prefix, source = folder.new() .. "/Über uns & mehr", folder.absolute "."
    must(("make -s install BUILD=%s PREFIX=%s"):format(build, quote(prefix)))
  end)

  teardown(folder.remove)

  it("puts a module and a program where they work without the source", function()
    local shape = [['local m = require "marea"; print(m.nn.Linear{3, 2}(m.zeros{1, 3}).shape[2])']]
    local output = must(lua_in(prefix) .. shape)
    assert.are.equal("2\n", output)
    local program = ("cd / && %s "):format(quote(prefix .. "/bin/marea"))
    assert.are.equal(point "6.0\n", must(program .. "-e 'print(require(\"marea\").arange(1, 3):sum():item())'"))
    assert.are.equal("1000\n", must(program .. "-e 'print(require(\"marea\").data.mnist(\"sample\", \"test\").size)'"))
    local script = prefix .. "/share/marea/scripts/vae.lua"
    output = run(program .. "vae.lua")
    assert.is_truthy(output:find("\n  hint: vae.lua comes with Marea: " .. script, 1, true), output)
    assert.is_truthy(must(program .. quote(script) .. " --help"):find "Trains a convolutional variational autoencoder")
  end)

  it("puts marea_ffi.lua where LuaJIT looks", function()
    if sanitized then return pending "luajit has no sanitizer in it" end
    if not has "luajit" then return pending "luajit is not installed" end
    local path = "LUA_PATH=" .. quote(prefix .. "/share/lua/5.1/?.lua")
    local output = must(inside(prefix, path .. [[ luajit -e 'print(require "marea_ffi".zeros{2, 3})']]))
    assert.are.equal("f32 (2,3)\n", output)
  end)

  it("brings the optional modules, which the program finds too", function()
    local module = build .. "/lib/marea/hdf5.so"
    if not os.rename(module, module) then return pending "built without libhdf5-dev" end
    local call = [['print((require("marea.internal.extra").load("hdf5", "f").safetensors ""))']]
    assert.are.equal("nil\n", must(lua_in(prefix) .. call))
    assert.are.equal("nil\n", must(("cd / && %s -e %s"):format(quote(prefix .. "/bin/marea"), call)))
  end)

  it("tells pkg-config where the libraries are", function()
    assert.are.equal(require "marea.core".info().version .. "\n", must(inside(prefix, "pkg-config --modversion marea")))
    local flags = must(inside(prefix, [[sh -c 'eval printf "%s\\\n" "$(pkg-config --cflags --libs marea-lua)"']]))
    assert.is_truthy(flags:find(("-I%s/include\n"):format(prefix), 1, true), flags)
    assert.is_truthy(flags:find "%-lmarea_lua\n%-lm\n%-lmarea\n", flags)
    assert.is_falsy(flags:find("-lopenblas", 1, true)) -- the shared library brings it along
    assert.is_truthy(must(inside(prefix, "pkg-config --static --libs marea")):find "%-lopenblas.*%-ljansson")
  end)

  --- The programs of examples/make and examples/cmake do what they do in the source's own build.
  local function works(place)
    local path = place .. "/sine.safetensors"
    assert.is_truthy(must(inside(prefix, ("%s/train %s"):format(place, path))):find "bytes still in use: 0")
    local output = run(("%s/decode %s 0 0"):format(place, path)) -- without LD_LIBRARY_PATH
    assert.is_truthy(output:find "linear: ", output)
    output = run(inside(prefix, ("%s/host_min %s nowhere.safetensors"):format(place,
      quote(source .. "/examples/decode.lua"))))
    assert.is_truthy(output:find "load: 'nowhere.safetensors'", output)
  end

  it("serves programs that are built with make", function()
    if sanitized then return pending "the installed archive needs the sanitizer's flags" end
    local place = folder.new()
    must(inside(prefix, ("make -s -C %s OUT=%s"):format(quote(source .. "/examples/make"), place)))
    works(place)
  end)

  it("serves programs that are built with CMake", function()
    if sanitized then return pending "the installed archive needs the sanitizer's flags" end
    if not has "cmake" then return pending "cmake is not installed" end
    local place = folder.new()
    must(inside(prefix, ("cmake -S %s -B %s"):format(quote(source .. "/examples/cmake"), place)))
    must("cmake --build " .. place)
    works(place)
  end)

  it("brings a manual page without mistakes", function()
    if not has "man" then return pending "man is not installed" end
    local man = "env -u LD_PRELOAD LC_ALL=C.UTF-8 man" -- troff does not bear a sanitizer
    local path = quote(prefix .. "/share/man/man1/marea.1")
    assert.are.equal("", must(("%s --warnings -E UTF-8 -l %s 2>&1 >/dev/null"):format(man, path)))
    local page = must(("%s -l %s | col -b"):format(man, path))
    for option in must(quote(prefix .. "/bin/marea") .. " -h"):gmatch "\n  (%-%a)" do
      assert.is_truthy(page:find("\n +%" .. option .. "[ \n]"), option)
    end
    local words = page:gsub("%s+", " ") -- lines are justified
    assert.is_truthy(words:find(prefix .. "/share/marea/scripts", 1, true))
    assert.is_truthy(words:find(prefix .. "/share/doc/marea/docs", 1, true))
    assert.is_falsy(page:find "@%u+@")
  end)

  it("brings documents whose links lead somewhere, and the examples", function()
    local docs = prefix .. "/share/doc/marea/"
    local links, pages = 0, 0
    for page in must(("cd %s && ls README.md CHANGELOG.md docs/*.md"):format(quote(docs))):gmatch "%S+" do
      local file <close> = assert(io.open(docs .. page))
      pages = pages + 1
      for link in file:read "a":gmatch "%]%(([^)#%s]+)" do
        if not link:find "^%a+:" then
          links = links + 1
          local target = docs .. (page:match "^(.*/)" or "") .. link
          assert.is_true(os.rename(target, target) == true, page .. ": " .. link)
        end
      end
    end
    assert.is_true(pages >= 20 and links > 80, pages .. " pages, " .. links .. " links")
    for _, place in ipairs{"docs", "examples"} do
      local wanted = must(("cd %s && find examples -type f -not -path '*/__pycache__/*' | sort"):format(quote(source)))
      assert.are.equal(wanted, must(("cd %s && find examples -type f | sort"):format(quote(docs))), place)
    end
    assert.are.equal("", run(("find %s -xtype l"):format(quote(prefix)))) -- links to nowhere
  end)

  it("brings scripts that run from there", function()
    local place = folder.new()
    local scripts, marea = prefix .. "/share/marea/scripts/", quote(prefix .. "/bin/marea")
    local count = 0
    for name in must("grep -l argparse " .. quote(scripts) .. "*.lua"):gmatch "([^/\n]+%.lua)" do
      local text, ok = run(("cd %s && %s %s --help"):format(place, marea, quote(scripts .. name)))
      if name ~= "options.lua" then
        count = count + 1
        assert.is_true(ok == true and text:find "^Usage: " ~= nil, name .. ": " .. text)
      end
    end
    assert.is_true(count >= 6, tostring(count))
    must(("cd %s && %s %s --smoke --out smoke"):format(place, marea, quote(scripts .. "vae.lua")))
    assert.is_truthy(must("ls " .. place .. "/smoke"):find "vae.safetensors")
    assert.is_truthy(must(("sh -n %s && echo well"):format(quote(scripts .. "mnist.sh"))):find "well")
  end)

  it("is undone by make uninstall", function()
    local other = quote(folder.new() .. "/Über |it's")
    must(("make -s install BUILD=%s PREFIX=/usr LIBDIR=/usr/lib/here DESTDIR=%s"):format(build, other))
    assert.is_truthy(must(("find %s -type f"):format(other)):find "/usr/lib/here/lua/5.4/marea/core.so")
    must(("make -s uninstall PREFIX=/usr LIBDIR=/usr/lib/here DESTDIR=%s"):format(other))
    assert.are.equal("", must(("find %s -not -type d"):format(other)))
  end)
end)

describe("luarocks make", function()
  it("as the page says it puts the module into a tree of rocks", function()
    local file <close> = assert(io.open "docs/hosts.md")
    local command = file:read "a":match "`(luarocks [^`]*make)`"
    assert.are.equal("luarocks --lua-version 5.4 make", command)
    if build ~= "build" then return pending "the rock installs what is in build/" end
    if not has "luarocks" then return pending "luarocks is not installed" end
    local tree = folder.new()
    must(command .. " --tree " .. tree)
    assert.are.equal(point "6.0\n", must(lua_in(tree) .. [['print(require "marea".arange(1, 3):sum():item())']]))
  end)
end)

describe("make without what the build needs", function()
  --- What make says where the compiler does not find these headers, a pattern of the shell.
  local function said(target, headers)
    local place = folder.new()
    local file = assert(io.open(place .. "/cc", "w"))
    file:write(([[#!/bin/sh
case "$*" in *-E*) ;; *) exec gcc "$@" ;; esac
text=$(cat)
case $text in %s) exit 1 ;; esac
echo "$text" | gcc "$@"
]]):format(headers))
    file:close()
    must("chmod +x " .. place .. "/cc")
    local output, ok = run(("make -j1 %s BUILD=%s/build CC=%s/cc"):format(target, place, place))
    assert.is_falsy(ok)
    return output
  end

  it("names the headers, their packages and make setup, and compiles nothing", function()
    for _, target in ipairs{"all", "jupyter", "module"} do
      local output = said(target, "*png.h*|*jpeglib.h*|*jansson.h*|*lua.h*|*cblas.h*|*zlib.h*")
      for _, line in ipairs{"png.h (Debian's package libpng-dev)", "jpeglib.h (Debian's package libjpeg62-turbo-dev)",
        "jansson.h (Debian's package libjansson-dev)",
        "lua.h (Debian's package liblua5.4-dev)", "cblas.h (Debian's package libopenblas-pthread-dev)",
        "zlib.h (Debian's package zlib1g-dev)", "`make setup` installs what is missing"} do
        assert.is_truthy(output:find(line, 1, true), target .. ": " .. output)
      end
      assert.is_falsy(output:find("stdio.h", 1, true))
      assert.is_falsy(output:find("  CC ", 1, true), output)
    end
    assert.is_truthy(said("all", "*stdio.h*"):find("stdio.h (Debian's package libc6-dev)", 1, true))
  end)

  it("tells of the prompt's library only when the program is built", function()
    local output = run "make -n module BUILD=/nowhere"
    assert.is_falsy(output:find("histedit.h", 1, true))
    assert.is_truthy(run "make -n all BUILD=/nowhere":find("histedit.h:libedit-dev", 1, true))
  end)

  it("has a package for every header that is no part of C or the system", function()
    local makefile <close> = assert(io.open "Makefile")
    local needs, packages = makefile:read "a":match "\n(NEEDS_compiler.-)\n\n", {}
    for what, package in needs:gmatch "([%w._-]+):([%w._-]+)" do packages[what] = package end
    local setup = must "make -pn setup":match "\nPACKAGES := ([^\n]*)"
    for what, package in pairs(packages) do
      assert.is_truthy((" " .. setup .. " "):find(" " .. package .. " ", 1, true), what .. ": " .. package)
    end
    local others = {["lauxlib.h"] = true, ["lualib.h"] = true} -- in lua.h's package
    local all = must "grep -rhoE --exclude-dir=extra '#include <[a-z0-9_]+\\.h>' core bindings | sort -u"
    local paths = must(("{ echo '%s' | gcc -I/usr/include/lua5.4 -E -x c - || true; } 2>/dev/null "
      .. "| grep -o '/usr[^\"]*/[a-z0-9_]*\\.h' | sort -u | xargs realpath")
      :format(all:gsub("#include <arm_neon.h>\n", "")))
    local asked, found = {}, 0
    for header in all:gmatch "<(.-)>" do asked[header] = true end
    for owner, header in must("dpkg -S " .. paths:gsub("\n", " ") .. " 2>/dev/null || true")
      :gmatch "([%w._-]+)[^\n]*/([%w_-]+%.h)\n" do
      local is_system = owner:find "^libc6" or owner:find "gcc" or owner:find "^linux"
      if asked[header] and not is_system and not others[header] then
        assert.is_truthy(packages[header], header .. " of " .. owner)
        found = found + 1
      end
    end
    assert.is_true(found >= 6, tostring(found))
  end)
end)

describe("the tests", function()
  it("leave no line in the user's history", function()
    local home = folder.new()
    must(("env -u MAREA_HISTORY -u XDG_STATE_HOME HOME=%s LUA_PATH='%s' LUA_CPATH='%s' %s/test/interrupts cpu 1 %s "
      .. "%s/marea"):format(home, package.path, package.cpath, build, home, build))
    assert.are.equal("", must(("find %s -name '*history*'"):format(home)))
  end)
end)

describe("without debugging information", function()
  local megabyte = 1e6

  it("the shared library has at most 2.2 MB", function()
    if sanitized then return pending "a sanitizer makes programs larger" end
    assert.is_true(stripped(build .. "/libmarea.so") <= 2.2 * megabyte)
  end)

  it("a program that runs a network without Lua, the library inside, has at most 3 MB", function()
    if sanitized then return pending "a sanitizer makes programs larger" end
    local program = build .. "/examples/decode"
    assert.is_true(stripped(program) <= 3 * megabyte)
    assert.is_falsy(must("ldd " .. program):find "lua")
    assert.is_falsy(must("ldd " .. program):find "libmarea")
  end)
end)
