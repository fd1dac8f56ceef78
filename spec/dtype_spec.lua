-- SPDX-License-Identifier: MIT
-- A dtype that is added and not handled stops the compiler at every place that depends on one. docs/architecture.md,
-- "Dtypes", lists the places; here a dtype is added to a copy of the sources, and the compiler's errors are compared
-- with the list. Then the copy handles it as f16, by changes in few files, and compiles.
local folder = require "spec.support.folder"
local read, write = folder.read, folder.write

local COMPILE = "LC_ALL=C gcc -std=gnu11 -fsyntax-only -Wall -Werror=switch -fdiagnostics-color=never -Icore -Ibindings"

--- The places of the list: "core/blas.c multiply_vector" = true.
local function listed()
  local places = {}
  local section = read "docs/architecture.md":match "\n## Dtypes\n(.-)\n## "
  for file, functions in section:gmatch "\n| `([%w_./]+)` | ([^|\n]+) |" do
    for name in functions:gmatch "`([%w_]+)`" do places[file .. " " .. name] = true end
  end
  return places
end

--- The places of errors that a compiler found in the tree at `copy`.
local function broken(copy)
  local places = {}
  local flags = folder.run("pkg-config --cflags lua5.4 2>/dev/null"):gsub("%s+$", "")
  local text = folder.run(("cd '%s' && %s %s $(find core bindings -name '*.c' ! -path 'core/kernels/*')")
    :format(copy, COMPILE, flags))
  local inside
  for line in text:gmatch "[^\n]+" do
    local file, name = line:match "^([%w_./]+): In function '([%w_]+)':"
    if name then inside = file:gsub("[%w_]+/%.%./", "") .. " " .. name end
    local at = line:match "^([%w_./]+):%d+:%d+: error: "
    if at and line:find("static assertion", 1, true) then
      places[at:gsub("[%w_]+/%.%./", "") .. " static_assert"] = true
    elseif at then
      places[inside or line] = true
    end
  end
  return places
end

local function sorted(set)
  local list = {}
  for key in pairs(set) do list[#list + 1] = key end
  table.sort(list)
  return table.concat(list, "\n")
end

describe("a new dtype", function()
  local copy
  setup(function()
    copy = folder.new()
    folder.must(("cp -r core bindings '%s'"):format(copy))
  end)
  teardown(function() folder.remove(copy) end)

  it("stops the compiler at every place that docs/architecture.md lists, and at no other", function()
    local header, found = read "core/marea.h":gsub("MAREA_F16 } marea_dtype;", "MAREA_F16, MAREA_NEW } marea_dtype;")
    local counted, also = header:gsub("MAREA_DTYPE_COUNT = MAREA_F16 %+ 1", "MAREA_DTYPE_COUNT = MAREA_NEW + 1")
    assert.equal(2, found + also)
    write(copy .. "/core/marea.h", counted)
    assert.equal(sorted(listed()), sorted(broken(copy)))
  end)

  it("that is only stored, like another one, is handled in core/marea.h and four files more", function()
    for _, file in ipairs {"core/dtype.h", "core/dtype.c", "core/io/elements.c", "bindings/convert.c"} do
      local text = read(file):gsub("case MAREA_F16:", "case MAREA_NEW: %0")
        :gsub("D%(F16, \"f16\", marea_f16, FLOAT, 2, F32%)", "%0 D(NEW, \"new\", marea_f16, FLOAT, 2, F32)")
      write(copy .. "/" .. file, text)
    end
    assert.equal("", sorted(broken(copy)))
  end)
end)
