-- SPDX-License-Identifier: MIT
-- What files and terminals may be like at the edge of what is taken: headers in other layouts, too many names, pictures
-- beyond the format's sides, folders behind links, terminals that know nothing.
local core = require "marea.core"
local marea = require "marea"
local folder = require "spec.support.folder"
local terminal = require "spec.support.terminal"

--- A NPY file of version 1 with this header, and four bytes for each of `n` elements.
local function npy(header, n)
  return "\x93NUMPY\1\0" .. string.pack("<s2", header) .. ("\0\0\x80?"):rep(n)
end

describe("a file", function()
  teardown(folder.remove)

  it("in NPY may have its header in any layout that Python reads", function()
    local path = folder.new() .. "/x.npy"
    for _, header in ipairs{
      "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n",
      '{"shape":(2,),"descr":"<f4","fortran_order":False}',
      "\t{ 'descr'\t:\r\n '<f4' , 'fortran_order' : False,\t'shape': ( 2 , ) }\n\n",
    } do
      folder.write(path, npy(header, 2))
      assert.are.same({1, 1}, assert(marea.load_npy(path)):totable(), header)
    end
  end)

  it("in NPY with a damaged header is refused with what was expected there", function()
    local path = folder.new() .. "/x.npy"
    for header, part in pairs{
      [""] = "expected", ["{"] = "expected", ["{'descr"] = "expected", ["{'descr': '"] = "simple type",
      ["{'descr': ''"] = "element type '' is not supported", ["{'descr': '<f4\\n"] = "simple type",
      ["{'descr': '<f4\t'"] = "simple type", ["{'descr': '" .. ("x"):rep(40) .. "'"] = "simple type",
      ["{'descr': '<f4', 'fortran_order': Fal"] = "True or False",
      ["{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807,)}"] = "x.npy",
      ["{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,)}"] = "sizes below 2^63",
      ["{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}"] = "',' or ')'",
      ["{'descr': '<f4', 'fortran_order': False, 'shape': ("] = "sizes below 2^63",
      ["{'descr': '<f4', 'fortran_order': False, 'shape': 2}"] = "a tuple",
    } do
      folder.write(path, npy(header, 1))
      local t, message = marea.load_npy(path)
      assert.is_nil(t)
      assert.is_truthy(message:find(part, 1, true), header .. ": " .. message)
    end
  end)

  it("in safetensors holds at most 65,536 tensors", function()
    local path, names = folder.new() .. "/many.safetensors", {}
    for i = 1, 65537 do names[i] = ('"%05d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'):format(i) end
    folder.write(path, string.pack("<s8", "{" .. table.concat(names, ",") .. "}"))
    local tensors, why = marea.load(path)
    assert.is_nil(tensors)
    assert.is_truthy(why:find("more than 65536 tensors", 1, true), why)
  end)

  it("in PNG holds a picture, and none of too long a side, of no pixel or of integers", function()
    local path = folder.new() .. "/x.png"
    for _, t in ipairs{marea.ones{1, 1 << 20}, marea.ones{1 << 20, 1}, marea.ones{0, 3}, marea.ones{3, 0},
      marea.ones{2, 2, 5}, marea.ones{2, 2, 0}, marea.ones{3}, marea.ones{1, 1, 1, 1},
      marea.ones({2, 2}, {dtype = "i64"})} do
      local ok, message = pcall(marea.save_png, t, path)
      assert.is_false(ok)
      assert.matches("save_png: .*got ", message)
    end
    assert.is_nil(folder.read(path))
  end)
end)

describe("the system", function()
  teardown(folder.remove)

  it("is asked for folders, also behind links, and for sleep in numbers that it knows", function()
    local at = folder.new()
    assert(os.execute(("cd %s && mkdir real && ln -s real link && ln -s nowhere broken && touch file"):format(at)))
    local names = core.list_folder(at)
    table.sort(names)
    assert.are.same({"broken", "file", "link/", "real/"}, names)
    assert.is_nil((core.list_folder(at .. "/nowhere")))
    for _, seconds in ipairs{-1, 1e7, 0 / 0} do
      local ok, message = pcall(core.sleep, seconds)
      assert.is_false(ok)
      assert.matches("expected 0 to 1e6 seconds", message)
    end
    core.sleep(0)
  end)
end)

describe("the prompt", function()
  it("works at a terminal that knows nothing, in the locale C, and without a place for its history", function()
    if not os.execute "command -v tmux >/dev/null" then return pending "needs tmux" end
    local program = folder.quote(folder.absolute((os.getenv "MAREA_BUILD" or "build") .. "/marea"))
    for _, settings in ipairs{"TERM=dumb", "-u TERM", "LC_ALL=C", "MAREA_HISTORY=/nowhere/at/all"} do
      local t = terminal.open(("env %s HOME=%s %s"):format(settings, folder.new(), program))
      t:wait ">"
      t:enter "20 + 1"
      t:wait "21\n>"
      t:close()
    end
    folder.remove()
  end)
end)
