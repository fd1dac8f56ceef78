-- SPDX-License-Identifier: MIT
-- What CONTRIBUTING.md and the hosted checks name is there, and the places to touch for an addition are all of them.
local folder = require "spec.support.folder"

local page = folder.read "CONTRIBUTING.md"

local function lines(command)
  local list, pipe = {}, assert(io.popen(command))
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

local function exists(pattern) -- of the shell
  return #lines(("ls -d %s 2>/dev/null"):format(pattern)) > 0
end

--- The rules of the Makefile.
local function targets()
  local set = {}
  for name in ("\n" .. folder.read "Makefile"):gmatch "\n([%l%d-]+):" do set[name] = true end
  return set
end

--- What a section's list names as places, sorted.
local function places(section)
  local text = assert(page:match("\n### " .. section .. "\n(.-)\n###") or page:match("\n### " .. section .. "\n(.*)"))
  local list = {}
  for path in text:gmatch "\n%- `([^`]+)`" do list[#list + 1] = path end
  table.sort(list)
  return list, text:match "An example is `([^`]+)`"
end

--- Comments of C, Lua and make name things without being places.
local function code(path)
  local text = folder.read(path)
  if path:find "%.lua$" then return (text:gsub("%-%-[^\n]*", "")) end
  if path:find "Makefile$" then return (text:gsub("#[^\n]*", "")) end
  return (text:gsub("/%*.-%*/", ""))
end

--- Who uses operators and formats, and is no place of theirs: the names of other frameworks, ONNX, the program,
--- archives of files.
local function is_user(path, section)
  return path:find "explain/synonyms%.lua$" or path:find "^bindings/program/" or path == "core/io/npz.c"
    or (path:find "^core/onnx/" and section ~= "An operator of ONNX")
end

--- The files whose code has a word, or a name with it inside.
local function files_with(word, where, inside, section)
  local list = {}
  for _, path in ipairs(lines(("find %s -type f | LC_ALL=C sort"):format(where))) do
    local pattern = inside and word or "%f[%w_]" .. word .. "%f[^%w_]"
    local is_here = code(path):find(pattern) or path:find("[/_]" .. word .. "%.")
    if is_here and not is_user(path, section) then list[#list + 1] = path end
  end
  table.sort(list)
  return list
end

describe("CONTRIBUTING.md", function()
  it("names files and folders that are there", function()
    local n = 0
    for path in page:gmatch "`([%w_./*-]+/[%w_./*-]*)`" do
      if not path:find "^build/" then
        n = n + 1
        assert.is_true(exists(path), path)
      end
    end
    for path in page:gmatch "%]%(([^)]+)%)" do
      n = n + 1
      assert.is_true(exists(path), path)
    end
    assert.is_true(n >= 25, n)
  end)

  it("names targets of make that are there, as the README and the hosted checks do", function()
    local known, n = targets(), 0
    for path, pattern in pairs{["CONTRIBUTING.md"] = "[`%s]make ([%l][%l-]*)", ["README.md"] = "[`%s]make ([%l][%l-]*)",
      [".github/workflows/ci.yml"] = "run: make ([%l][%l-]*)"} do
      for name in folder.read(path):gmatch(pattern) do
        n = n + 1
        assert.is_true(known[name] ~= nil, path .. ": make " .. name)
      end
    end
    for name in folder.read ".github/workflows/ci.yml":match "target: %[(.-)%]":gmatch "[%l-]+" do
      n = n + 1
      assert.is_true(known[name] ~= nil, name)
    end
    assert.is_true(n >= 25, n)
  end)

  it("lists all places of an addition, which are few", function()
    for section, search in pairs{ -- where to look, whether the word may lie inside a name, most places
      ["An operator"] = {"core bindings lua", false, 2}, ["A layer"] = {"core bindings lua", false, 1},
      ["A kernel"] = {"core/kernels", true, 4}, ["An instruction set"] = {"core bindings lua Makefile", true, 4},
      ["A file format"] = {"core bindings lua", true, 4}, ["An operator of ONNX"] = {"core bindings lua", false, 2},
    } do
      local list, example = places(section)
      assert.is_truthy(example, section)
      assert.are.same(files_with(example, search[1], search[2], section), list, section)
      assert.is_true(#list <= search[3], section)
    end
  end)
end)
