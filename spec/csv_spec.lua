-- SPDX-License-Identifier: MIT
-- marea.load_csv and save_csv, against Python's module csv.
local marea = require "marea"
local folder = require "spec.support.folder"
local allclose = require "spec.support.allclose"

teardown(folder.remove)

local path = folder.new() .. "/a.csv"

local function load(text, options)
  folder.write(path, text)
  return marea.load_csv(path, options)
end

local function values(column) return marea.is_tensor(column) and column:totable() or column end

describe("load_csv", function()
  if not pcall(require, "marea.csv") then return pending "is not there: libcsv-dev was missing when this was built" end

  it("gives tensors and lists by the names in the first line", function()
    local columns, names = assert(load "name,size,price\nchair,3,9.5\ntable,1,\n,2,-1e3\n")
    assert.are.same({"name", "size", "price"}, names)
    assert.are.same({"chair", "table", false}, columns.name)
    assert.are.same({"i64", {3, 1, 2}}, {columns.size.dtype, columns.size:totable()})
    assert.are.equal("f64", columns.price.dtype)
    allclose.assert(columns.price, {9.5, 0 / 0, -1000}, {exact = true})
  end)

  it("reads quotes, ends of lines of every kind and UTF-8's mark", function()
    local columns = assert(load "\xef\xbb\xbfa,\"b \"\"x\"\"\"\r\n1,\"p\"\"q,\r\nr\"\r\n\r\n2,\"\"\r\n")
    assert.are.same({1, 2}, values(columns.a))
    assert.are.same({'p"q,\r\nr', ""}, columns['b "x"'])
    assert.are.same({1, 2}, values(assert(load "a\n1\n2").a))
  end)

  it("takes other separators, names, types and signs of absence", function()
    local columns, names = assert(load("1;2,5;x\n3;4;\n", {separator = ";", header = false}))
    assert.are.same({"1", "2", "3"}, names)
    assert.are.same({{1, 3}, {"2,5", "4"}, {"x", false}}, {values(columns["1"]), columns["2"], columns["3"]})
    columns = assert(load("zip\tn\tm\n00123\t-9\t1\n1\t5\t2\n", {separator = "\t", missing = {"-9"},
      types = {zip = "text", m = "f32"}}))
    assert.are.same({"00123", "1"}, columns.zip)
    allclose.assert(columns.n, {0 / 0, 5}, {exact = true})
    assert.are.equal("f32", columns.m.dtype)
    assert.are.same({7}, values(assert(load("a\n7\n", {names = {"b"}})).b))
    assert.are.same({"f64", {2 ^ 63, 1}}, (function(t) return {t.dtype, t:totable()} end)(
      assert(load "a\n9223372036854775808\n1\n").a))
    assert.are.same({math.maxinteger, math.mininteger}, values(assert(load(("a\n%d\n%d\n"):format(math.maxinteger,
      math.mininteger))).a))
    assert.are.same({"0x10", "1"}, assert(load "a\n0x10\n1\n").a)
    assert.are.same({math.huge, -math.huge}, values(assert(load "a\ninf\n-Infinity\n").a))
    assert.are.same({0}, assert(load "a,b\n").a.shape)
  end)

  local function refused(text, why, options)
    local columns, message = load(text, options)
    assert.is_nil(columns)
    assert.are.equal(("load_csv: '%s': %s"):format(path, why), message)
  end

  it("names the line of what it refuses", function()
    refused("a,b\n1,2\n1,2,3\n", "line 3: a row of 3 fields; there are 2 columns")
    refused("a,b\n\"1\n\n\",2\n1\n", "line 5: a row of 1 fields; there are 2 columns")
    refused("a,b\n1,\"2\n3", "line 2: a quote is not closed")
    refused("a,b\n1,x\"2\n", "line 2: a quote in the middle of a field")
    refused("", "it is empty")
    refused("a,b,a\n1,2,3\n", "columns 1 and 3 have the same name 'a'")
    refused("a,b\n1,2\n", "it has 2 columns; names has 1", {names = {"x"}})
    refused("a\n1\nx\n", "column 'a': line 3: 'x' is no number", {types = {a = "f32"}})
    refused("a\n1.5\n", "column 'a' has values that are no integers", {types = {a = "i64"}})
    refused("a\n1\n", "it has no column 'b', which types names", {types = {b = "f32"}})
    refused((","):rep(70000) .. "\n", "line 1: more than 65536 columns")
    local columns, message = marea.load_csv(path .. ".none")
    assert.is_nil(columns)
    assert.is_truthy(message:find("load_csv: " .. path .. ".none: No such file", 1, true), message)
  end)

  it("agrees with Python's csv about tables of any texts and numbers", function()
    local expected = folder.must(([==[/usr/bin/python3 -c '
import csv, json, random
random.seed(1)
def text(): return "".join(random.choice("ab,;\"\n\t é") for _ in range(random.randrange(6)))
rows = [[random.uniform(-1, 1) * 10 ** random.randrange(-20, 20), random.randrange(-10**15, 10**15), text() or "x",
         text() or "y"] for _ in range(300)]
with open("%s", "w", newline="") as f:
  csv.writer(f).writerows([["real", "whole", "t,1", "t\"2"]] + rows)
print(json.dumps([list(c) for c in zip(*rows)]))']==]):format(path))
    local want, columns = marea.json(expected), assert(marea.load_csv(path))
    assert.are.same(want[1], values(columns.real))
    assert.are.same(want[2], values(columns.whole))
    assert.are.same({want[3], want[4]}, {columns["t,1"], columns['t"2']})
  end)

  it("survives any bytes, with a message or columns", function()
    local whole, random = 'a,"b",c\n1,"x ""y""\nz",2.5e3\n-7,NA,nan\n', 1
    local outcomes = {}
    local function draw(n)
      random = random * 6364136223846793005 + 1442695040888963407
      return (random >> 33) % n + 1
    end
    local function try(text)
      local columns, message = load(text)
      outcomes[columns and "read" or "refused"] = true
      assert.is_truthy(columns or message:find "^load_csv: ")
    end
    for length = 0, #whole do try(whole:sub(1, length)) end
    for _ = 1, 10000 do
      local text = whole
      for _ = 1, draw(4) do
        local at = draw(#text)
        text = text:sub(1, at - 1) .. ('",\n\r\0 1e-\xff;'):sub(draw(12)):sub(1, 1) .. text:sub(at + draw(2))
      end
      try(text)
    end
    assert.are.same({read = true, refused = true}, outcomes)
  end)

  it("is what save_csv writes", function()
    local given = {whole = marea.tensor({1, -2 ^ 62, 3}, {dtype = "i64"}), real = marea.tensor({0.1, 1 / 3, 1e300},
      {dtype = "f64"}), small = marea.tensor{0.5, 0 / 0, -2}, text = {'a "b",\nc', "", "NA "}, gap = {"x", false, "y"}}
    assert.is_true(marea.save_csv(given, path))
    local columns, names = assert(marea.load_csv(path))
    assert.are.same({"gap", "real", "small", "text", "whole"}, names)
    for name, column in pairs(given) do
      if marea.is_tensor(column) then allclose.assert(columns[name], column, {exact = true})
      else assert.are.same(column, columns[name]) end
    end
    assert.is_true(marea.save_csv(given, path, {separator = ";", names = {"text", "whole"}}))
    assert.are.same({"text", "whole"}, select(2, assert(marea.load_csv(path, {separator = ";"}))))
  end)

  it("is what save_csv writes of one column, in which no line is empty", function()
    for text, column in pairs{['a\nNA\nx\n""\n'] = {false, "x", ""}, ["a\n1\nNA\n3\n"] = {1, 0 / 0, 3}} do
      assert.is_true(marea.save_csv({a = column}, path))
      assert.are.equal(text, folder.read(path))
      local a = assert(marea.load_csv(path)).a
      if marea.is_tensor(a) then allclose.assert(a, column, {exact = true})
      else assert.are.same(column, a) end
    end
  end)

  it("reads a pipe, which has its bytes once, and reports what it cannot read", function()
    folder.write(path, "a,b\nx,1\ny,2\n")
    local pipe = path .. ".pipe"
    folder.must("mkfifo " .. pipe)
    os.execute(("cat %s >%s &"):format(path, pipe))
    local columns = assert(marea.load_csv(pipe))
    assert.are.same({{"x", "y"}, {1, 2}}, {columns.a, values(columns.b)})
    local place = path:match "(.*)/"
    assert.are.same({nil, ("load_csv: '%s': Is a directory"):format(place)}, {marea.load_csv(place)})
  end)

  it("and save_csv refuse arguments that make no sense", function()
    local function raises(text, f, ...)
      local ok, message = pcall(f, ...)
      assert.is_false(ok)
      assert.is_truthy(message:find(text, 1, true), message)
    end
    raises("separator", marea.load_csv, path, {separator = '"'})
    raises("separator", marea.load_csv, path, {separator = "ab"})
    for separator in ("e.-+0n"):gmatch "." do
      raises("separator", marea.load_csv, path, {separator = separator})
      raises("separator", marea.save_csv, {a = {1}}, path, {separator = separator})
    end
    local texts = {}
    for i = 1, 33 do texts[i] = tostring(i) end
    raises("load_csv: argument 'missing': expected at most 32 texts, got 33", marea.load_csv, path, {missing = texts})
    raises("types.a", marea.load_csv, path, {types = {a = "int"}})
    raises("names[1]", marea.load_csv, path, {names = {1}})
    raises("columns", marea.save_csv, 1, path)
    raises("columns.a", marea.save_csv, {a = marea.zeros{2, 2}}, path)
    raises("columns.a[1]", marea.save_csv, {a = {{}}}, path)
    raises("column 'b' has 2 rows, 'a' 1", marea.save_csv, {a = {1}, b = {1, 2}}, path)
    raises("there is no column 'x'", marea.save_csv, {a = {1}}, path, {names = {"x"}})
    raises("hint: the columns come first: marea.save_csv(columns, path)", marea.save_csv, {a = {1}})
    local done, message = marea.save_csv({a = {1}}, path .. "/none/a.csv")
    assert.is_nil(done)
    assert.matches("^save_csv: '", message)
  end)
end)
