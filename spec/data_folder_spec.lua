-- SPDX-License-Identifier: MIT
-- marea.load_image with a size, against PIL, and data.folder.
local core = require "marea.core"
local marea = require "marea"
local folder = require "spec.support.folder"
local data = marea.data

teardown(folder.remove)

local place = folder.new()

describe("load_image with a size", function()
  local picture = place .. "/picture.png"
  marea.seed(1)
  assert(marea.save_png(marea.uniform{37, 61, 3}, picture))
  assert(marea.save_png(marea.uniform{23, 19, 4}, place .. "/alpha.png"))
  assert(marea.save_png(marea.uniform{40, 30, 1}, place .. "/gray.png"))
  assert(marea.save_jpeg(marea.uniform{50, 44, 3}, place .. "/photo.jpg"))

  it("gives what PIL's resize gives, bit by bit", function()
    if not os.execute "/usr/bin/python3 -c 'import PIL, numpy' 2>/dev/null" then return pending "needs python3-pil" end
    local cases = {}
    for _, name in ipairs{"picture.png", "alpha.png", "gray.png", "photo.jpg"} do
      for k, size in ipairs{{37, 61}, {17, 90}, {64, 5}, {30, 40}, {1, 1}, {8, 8}} do
        if name == "photo.jpg" and k > 4 then break end -- it is decoded smaller
        for _, fit in ipairs{"crop", "stretch"} do
          for _, channels in ipairs{1, 3} do
            cases[#cases + 1] = {name = name, size = size, fit = fit, channels = channels}
          end
        end
      end
    end
    local lines = {}
    for i, case in ipairs(cases) do
      lines[i] = ("%s %d %d %s %d"):format(case.name, case.size[1], case.size[2], case.fit, case.channels)
    end
    folder.write(place .. "/cases", table.concat(lines, "\n"))
    folder.must(("cd %s && /usr/bin/python3 %s cases"):format(place, folder.absolute "spec/support/resize.py"))
    for i, case in ipairs(cases) do
      local x = assert(marea.load_image(place .. "/" .. case.name, {size = case.size, fit = case.fit,
        channels = case.channels}))
      local want = assert(marea.load_npy(("%s/%d.npy"):format(place, i)))
      assert.are.equal(0, x:ne(want):sum():item(), lines[i])
    end
  end)

  it("decodes large JPEGs smaller first, to much the same", function()
    local x = (marea.arange(0, 799):reshape(800, 1, 1) * 0.02):sin()
      * (marea.arange(0, 599):reshape(1, 600, 1) * 0.03):cos()
    assert(marea.save_jpeg((x * 0.4 + 0.5):expand{800, 600, 3}, place .. "/large.jpg", {quality = 100}))
    local small = assert(marea.load_image(place .. "/large.jpg", {size = {60, 45}, channels = 1})):to "f32"
    local mean = (x * 0.4 + 0.5):reshape(1, 800, 600, 1):avg_pool2d{kernel = {13, 13}, stride = {13, 13}}
    assert.is_true(math.abs(small:mean():item() / 255 - mean:mean():item()) < 0.01)
    assert.is_true(math.abs((small / 255):std():item() - x:std():item() * 0.4) < 0.02)
  end)

  it("refuses what is no size", function()
    local function raises(text, options)
      local ok, message = pcall(marea.load_image, picture, options)
      assert.is_false(ok)
      assert.is_truthy(message:find(text, 1, true), message)
    end
    raises("size", {})
    raises("size", {size = {0, 3}})
    raises("at most 65500 pixels", {size = 70000})
    raises("channels", {size = 3, channels = 2})
    raises("fit", {size = 3, fit = "fill"})
  end)
end)

describe("data.folder", function()
  local path = place .. "/pets"
  folder.must("mkdir -p " .. path .. "/dog " .. path .. "/cat " .. path .. "/.hidden")
  marea.seed(2)
  for i = 1, 17 do
    local name = ("%s/%s/%02d.%s"):format(path, i % 3 == 0 and "cat" or "dog", i, i % 4 == 0 and "PNG" or "jpg")
    assert((i % 4 == 0 and marea.save_png or marea.save_jpeg)(marea.uniform{20 + i, 30, 3}, name))
  end
  folder.write(path .. "/dog/notes.txt", "no picture")

  it("gives pictures and classes in the order of their names", function()
    local set = assert(data.folder(path, {size = {12, 10}}))
    assert.are.equal("Dataset(17 rows: image u8 (17, 12, 10, 3), label i64 (17))", tostring(set))
    assert.are.same({"cat", "dog"}, set.classes)
    assert.are.same({path .. "/cat/03.jpg", path .. "/dog/01.jpg", path .. "/dog/17.jpg"},
      {set.paths[1], set.paths[6], set.paths[17]})
    local n, labels = 0, {}
    for x, y in set:batches(5) do
      assert.are.equal("f32", x.dtype)
      for i = 1, #y do
        n = n + 1
        labels[n] = y[i]
        local want = assert(marea.load_image(set.paths[n], {size = {12, 10}}))
        assert.are.equal(0, (x[i] * 255):round():to("u8"):ne(want):sum():item())
      end
    end
    assert.are.equal(17, n)
    assert.are.equal("11111222222222222", table.concat(labels))
  end)

  it("gives the same batches for any number of workers, and goes on where it was", function()
    local first
    for _, workers in ipairs{0, 1, 2, 4} do
      for _, ahead in ipairs{1, 3, 64} do
        local set = assert(data.folder(path, {size = 8, workers = workers, ahead = ahead, seed = 5}))
        local list = {}
        for _ = 1, 2 do
          for x, y in set:batches(4, {shuffle = true}) do
            list[#list + 1] = ("%.9g %d"):format(x:sum():item(), y:sum():item())
          end
        end
        local text = table.concat(list, ",")
        first = first or text
        assert.are.equal(first, text)
        set:batches(4, {shuffle = true, epoch = 2})()
        local other = assert(data.folder(path, {size = 8, workers = workers, ahead = ahead}))
        other:load_state(set:state())
        local x, y = other:batches(4, {shuffle = true})()
        assert.are.equal(list[7], ("%.9g %d"):format(x:sum():item(), y:sum():item()))
      end
    end
  end)

  it("gives rows, parts and two passes at once", function()
    local set = assert(data.folder(path, {size = 8, ahead = 4}))
    local function sum(x) return x:sum():item() end
    local all = {}
    for i = 1, 17 do all[i] = sum((set:rows{i})) end
    assert.are.equal(sum((set:rows{3, 17, 1})), sum(marea.concat({(set:rows{3}), (set:rows{17}), (set:rows{1})}, 1)))
    local part, spaced = set:subset(6, 9), set:subset(6, 17):spaced(3)
    assert.are.equal(all[7], sum((part:rows{2})))
    assert.are.equal(all[10], sum((spaced:rows{2})))
    local pass = part:batches(2)
    local i, k = 0, 5
    for x in set:batches(1) do
      i = i + 1
      assert.are.equal(all[i], sum(x))
      local y = i % 2 == 1 and pass()
      if y then
        k = k + 2
        assert.is_true(math.abs(all[k - 1] + all[k] - sum(y)) < 1e-2)
      end
    end
    assert.are.same({17, 9}, {i, k})
  end)

  it("can be left in the middle, and leaves no thread behind", function()
    local function threads()
      local n = 0
      for line in io.lines "/proc/self/status" do n = tonumber(line:match "^Threads:%s*(%d+)") or n end
      return n
    end
    collectgarbage()
    collectgarbage()
    local before = threads()
    for _ = 1, 5 do
      local set = assert(data.folder(path, {size = 300, workers = 4}))
      set:batches(2)()
    end
    collectgarbage()
    collectgarbage()
    assert.are.equal(before, threads())
  end)

  it("names a file that is damaged when its turn comes", function()
    local bad = path .. "/cat/99.jpg"
    folder.write(bad, "text")
    for _, workers in ipairs{0, 2} do
      local set = assert(data.folder(path, {size = 8, workers = workers}))
      assert.are.equal(18, #set)
      assert.is_not_nil(set:rows{1, 2})
      local ok, message = pcall(function()
        for _ in set:batches(4) do end
      end)
      assert.is_false(ok)
      assert.is_truthy(message:find("load_image: '" .. bad .. "': neither a PNG nor a JPEG file", 1, true), message)
      assert.is_not_nil(set:rows{1, 2})
    end
    os.remove(bad)
  end)

  it("ends by Ctrl-C in the middle of a batch", function()
    for _, workers in ipairs{0, 2} do
      local script = folder.write(place .. "/wait.lua", ([[
local marea = require "marea"
local set = assert(marea.data.folder(%q, {size = 1, workers = %d}))
set:rows(marea.ones({1000000}, {dtype = "i64"}))
]]):format(path, workers))
      local text = folder.run(("timeout -k 9 -s INT 1 %s/marea %s"):format(os.getenv "MAREA_BUILD" or "build", script))
      assert.is_truthy(text:find("interrupted", 1, true), text)
    end
  end)

  it("reads ahead again after rows that are taken in the middle of a pass", function()
    local set = assert(data.folder(path, {size = 8}))
    local sums = {}
    for x in set:batches(3) do sums[#sums + 1] = x:sum():item() end
    local pass, aside = set:batches(3), path .. ".aside"
    assert.are.equal(sums[1], pass():sum():item())
    set:rows{1}
    assert.are.equal(sums[2], pass():sum():item())
    core.sleep(1)
    assert(os.rename(path, aside))
    local ok, problem = pcall(function()
      for k = 3, #sums do assert.are.equal(sums[k], pass():sum():item()) end
    end)
    assert(os.rename(aside, path))
    assert.is_true(ok, problem)
  end)

  it("outlives the batch in which it is made", function()
    local set
    for _ in data.Dataset{marea.ones{1}}:batches(1) do set = assert(data.folder(path, {size = 8})) end
    local x, y = set:rows{17}
    assert.are.same({{1, 8, 8, 3}, {2}}, {x.shape, y:totable()})
  end)

  it("says when there is nothing, and what makes no sense", function()
    local set, message = data.folder(place .. "/none", {size = 8})
    assert.is_nil(set)
    assert.is_truthy(message:find("data.folder: " .. place .. "/none: No such file", 1, true), message)
    folder.must("mkdir -p " .. place .. "/empty/class")
    set, message = data.folder(place .. "/empty", {size = 8})
    assert.is_nil(set)
    assert.is_truthy(message:find("has no folders with pictures", 1, true), message)
    local function raises(text, options)
      local ok, problem = pcall(data.folder, path, options)
      assert.is_false(ok)
      assert.is_truthy(problem:find(text, 1, true), problem)
    end
    raises("size", nil)
    raises("workers", {size = 8, workers = 65})
    raises("ahead", {size = 8, ahead = 0})
    raises("unknown argument 'worker'", {size = 8, worker = 2})
    local whole = assert(data.folder(path, {size = 8}))
    local ok, problem = pcall(whole.field, whole, "image")
    assert.is_false(ok)
    assert.is_truthy(problem:find("field 'image' is not kept in memory, but for what rows{...} and batches", 1, true))
    ok, problem = pcall(whole.rows, whole, {18})
    assert.is_false(ok)
    assert.is_truthy(problem:find("expected rows from 1 to 17, got 18", 1, true), problem)
  end)
end)

describe("a field that is a source", function()
  it("makes rows when they are asked for, and is told what comes next", function()
    local told = {}
    local source = {dtype = "f32", shape = {10, 2}, ahead = 4}
    function source:rows(numbers) -- luacheck: no unused args
      local t = marea.tensor(numbers):unsqueeze(2)
      return marea.concat({t, t * 10}, 2)
    end
    function source:prefetch(numbers) -- luacheck: no unused args
      told[#told + 1] = table.concat(numbers, " ")
    end
    local set = data.Dataset{{"x", source, scale = 0.5}, {"y", marea.arange(1, 10)}}
    local seen = {}
    for x, y in set:batches(3) do
      assert.are.same(x:totable(), (marea.stack({y, y * 10}, 2) * 0.5):totable())
      seen[#seen + 1] = #y
    end
    assert.are.same({3, 3, 3, 1}, seen)
    assert.are.same({"1 2 3 4", "4 5 6 7", "7 8 9 10", "10"}, told)
  end)
end)
