-- SPDX-License-Identifier: MIT
-- The build on systems that are not Debian: other names of Lua and OpenBLAS, no dpkg.
local folder = require "spec.support.folder"
local run, must = folder.run, folder.must

--- The programs of this system but for those that the shell's patterns name, in a folder of links: what is written to a
--- file in it changes the system's program.
local function programs_without(...)
  local bin = folder.new()
  must(("ln -s /usr/bin/* %s/"):format(bin))
  must(("cd %s && rm -f dpkg* apt-* lua5* lua %s"):format(bin, table.concat({...}, " ")))
  must(("ln -s $(command -v lua5.4) %s/lua"):format(bin))
  return bin
end

--- pkg-config's files as another distribution names them.
local function modules(names)
  local place = folder.new()
  for name, version in pairs(names) do
    folder.write(("%s/%s.pc"):format(place, name),
      ("Name: %s\nDescription: x\nVersion: %s\nLibs: -l%s\nCflags: -I/of/%s\n"):format(name, version, name, name))
  end
  return place
end

describe("make without dpkg", function()
  teardown(folder.remove)

  --- What make has found, as "NAME := value" lines.
  local function found(names)
    local database = must(("env -u LUA PATH=%s PKG_CONFIG_LIBDIR=%s make -pnr help"):format(programs_without(),
      modules(names)))
    return function(variable) return database:match("\n" .. variable .. " :?= ([^\n]*)\n") end
  end

  it("finds Lua 5.4 and OpenBLAS under the names that they have", function()
    local value = found{["lua"] = "5.4.6", openblasp = "0.3.26", libpng = "1", libjpeg = "2", zlib = "1",
      minizip = "1", jansson = "2", ["libprotobuf-c"] = "1"}
    assert.are.equal("lua", value "LUA")
    assert.are.equal("lua", value "LUA_MODULE")
    assert.are.equal("openblasp", value "BLAS_MODULE")
    assert.is_truthy(value "MODULE_CFLAGS":find("-I/of/openblasp", 1, true), value "MODULE_CFLAGS")
    assert.are.equal("lua54", found{["lua"] = "5.3.6", lua54 = "5.4.6"} "LUA_MODULE")
    value = found{["lua-5.4"] = "5.4.6", ["lua"] = "5.5.0"}
    assert.are.equal("lua-5.4", value "LUA_MODULE")
    assert.are.equal("", value "BLAS_MODULE") -- then it is -lopenblas
  end)

  it("installs nothing, and goes on when all is there", function()
    local place = folder.new()
    local bin = programs_without()
    for _, program in ipairs{"tmux", "gnuplot", "busted"} do -- not what is asked here
      if #run("command -v " .. program) == 0 then must(("ln -s /bin/true %s/%s"):format(bin, program)) end
    end
    assert.are.equal("", must(("PATH=%s make -s setup setup-test BUILD=%s"):format(bin, place)))
  end)

  it("names the programs, headers and modules that are missing", function()
    local compiler = folder.write(folder.new() .. "/compiler", [[#!/bin/sh
text=$(cat)
case $text in *jansson.h*) exit 1 ;; esac
]])
    must("chmod +x " .. compiler)
    local output, ok = run(("PATH=%s make setup CC=%s"):format(programs_without "gnuplot", compiler))
    assert.is_false(ok)
    assert.is_truthy(output:find("No dpkg here, so nothing was installed. Missing:\n", 1, true), output)
    assert.is_truthy(output:find("\n  jansson.h (Debian's package libjansson-dev)\n", 1, true), output)
    assert.is_truthy(output:find("\n  gnuplot (Debian's package gnuplot-nox)\n", 1, true), output)
    assert.is_falsy(output:find("png.h", 1, true), output)
  end)
end)
