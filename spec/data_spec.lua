-- SPDX-License-Identifier: MIT
-- Datasets, passes in batches and their scopes, MNIST files, the progress line, metrics.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local folder = require "spec.support.folder"
local data, metrics = marea.data, marea.metrics

local close = allclose.assert

--- A dataset of the numbers 1 to n.
local function counting(n, seed)
  local x = marea.arange(1, n)
  return data.Dataset{{"x", x}, {"y", (x * 10):to "i64"}, seed = seed}
end

--- The numbers that a pass delivers, as a list of lists.
local function pass_of(dataset, ...)
  local batches = {}
  for x in dataset:batches(...) do batches[#batches + 1] = x:totable() end
  return batches
end

local function flat(batches)
  local all = {}
  for _, batch in ipairs(batches) do table.move(batch, 1, #batch, #all + 1, all) end
  return all
end

teardown(folder.remove)

describe("a dataset", function()
  it("holds rows that belong together", function()
    local d = counting(7)
    assert.are.equal(7, #d)
    local x, y = d:rows{7, 1}
    close(x, {7, 1})
    close(y, {70, 10})
    close(d:subset(3, 5):field "y", {30, 40, 50})
    close(d:spaced(1):field "y", {10})
    close(d:spaced(3):field "y", {10, 30, 50})
    close(d:spaced(#d):field "y", d:field "y", {exact = true})
    assert.are.equal("Dataset(7 rows: x f32 (7), y i64 (7))", tostring(d))
  end)

  it("converts and scales the rows it gives", function()
    local d = data.Dataset{{"image", marea.full({3, 2}, 255, "u8"), scale = 1 / 255}, marea.ones(3)}
    local x = d:rows{1, 2}
    assert.are.equal("f32", x.dtype)
    close(x, {{1, 1}, {1, 1}})
    assert.are.equal("u8", d:field("image").dtype)
  end)

  it("refuses what does not fit", function()
    assert.is_truthy(message_of(function() data.Dataset{marea.ones(3), marea.ones(4)} end)
      :find "'1' has 3 rows, '2' has 4")
    assert.is_truthy(message_of(function() data.Dataset{} end):find "empty")
    assert.is_truthy(message_of(function() data.Dataset{{"x", 3}} end):find "argument 'x': expected a tensor, got 3")
    assert.is_truthy(message_of(function() counting(3):field "z" end):find "no field 'z'")
    assert.is_truthy(message_of(function() counting(3):batches(2, {shufle = true}) end):find "did you mean 'shuffle'")
    assert.is_truthy(message_of(function() counting(3):batches(0) end):find "at least 1")
    assert.is_truthy(message_of(function() counting(3):subset(2, 4) end):find "row 4 of a dataset of 3 rows")
    assert.is_truthy(message_of(function() counting(3):spaced(4) end):find "4 rows of a dataset of 3 rows")
  end)
end)

describe("a pass", function()
  it("delivers every row once, the smaller rest too", function()
    assert.are.same({{1, 2, 3}, {4, 5, 6}, {7}}, pass_of(counting(7), 3))
    assert.are.same({{1, 2, 3}, {4, 5, 6}}, pass_of(counting(7), 3, {drop_last = true}))
    assert.are.same({{4, 5, 6}, {7}}, pass_of(counting(7), 3, {from = 2}))
    assert.are.same({}, pass_of(counting(2), 3, {drop_last = true}))
    local shuffled = flat(pass_of(counting(100), 7, {shuffle = true}))
    table.sort(shuffled)
    assert.are.same(flat(pass_of(counting(100), 100)), shuffled)
  end)

  it("keeps the fields together", function()
    for x, y in counting(50):batches(8, {shuffle = true}) do close(y, x * 10) end
  end)

  it("is shuffled by seed and epoch alone", function()
    marea.seed(1)
    local d = counting(40)
    local first = pass_of(d, 8, {shuffle = true})
    local second = pass_of(d, 8, {shuffle = true})
    assert.are_not.same(first, second)
    marea.normal{1000}
    assert.are.same(first, pass_of(d, 8, {shuffle = true, epoch = 1}))
    assert.are.same(flat(second), flat(pass_of(d, 3, {shuffle = true, epoch = 2})))
    marea.seed(2)
    assert.are_not.same(first, pass_of(d, 8, {shuffle = true, epoch = 1}))
    assert.are.same(pass_of(counting(40, 9), 8, {shuffle = true}), pass_of(counting(40, 9), 8, {shuffle = true}))
  end)

  it("does not move the random state", function()
    local d = counting(40)
    local seed, counter = marea.random_state()
    pass_of(d, 8, {shuffle = true})
    assert.are.same({seed, counter}, {marea.random_state()})
  end)

  it("has another order for each dataset, one that is made anew for each epoch too", function()
    local x = marea.arange(1, 40)
    local makers = {
      function() return data.Dataset{x} end, function() return data.Dataset{{"x", x}} end,
      function() return data.Dataset{marea.arange(1, 80)}:subset(1, 40) end,
      function() return data.Dataset{x}:spaced(40) end,
    }
    for _, make in ipairs(makers) do
      local function epochs(n)
        local seen, list = {}, {}
        for i = 1, n do
          list[i] = table.concat(flat(pass_of(make(), 8, {shuffle = true})), " ")
          assert.is_nil(seen[list[i]])
          seen[list[i]] = true
        end
        return list
      end
      marea.seed(6)
      local first = epochs(20)
      marea.seed(6)
      assert.are.same(first, epochs(20)) -- and the same with the same seed
      marea.seed(7)
      assert.are_not.same(first[1], epochs(1)[1])
    end
    local function seeded() return pass_of(data.Dataset{x, seed = 3}, 8, {shuffle = true}) end
    assert.are.same(seeded(), seeded())
    assert.are.same(seeded(), pass_of(data.Dataset{x, seed = 3}:subset(1, 40), 8, {shuffle = true}))
  end)

  it("goes on in its order when a script without a seed is stopped and run again", function()
    local path = folder.write(folder.new() .. "/train.lua", [[
      local marea = require "marea"
      local net = marea.nn.Linear{1, 1, init = "zeros"}
      local optimizer = marea.optim.SGD{net, lr = 0.1}
      local train = marea.data.Dataset{marea.arange(1, 12):reshape(12, 1)}
      for epoch in marea.rerun.range(1, 2) do
        for x in train:batches(4, {shuffle = true, epoch = epoch}) do
          optimizer:step(net(x):sum())
          seen[#seen + 1] = x:sum():item()
          if #seen == stop then error "stopped" end
        end
      end
    ]])
    local globals = package.loaded._G
    local function run(stop)
      globals.stop = stop
      return pcall(marea.rerun, path)
    end
    globals.seen = {}
    marea.seed(5)
    assert.is_true(run(nil))
    local whole = globals.seen
    marea.rerun.forget(path)
    globals.seen = {}
    marea.seed(5)
    assert.is_false(run(2))
    assert.is_true(run(nil))
    assert.are.same(whole, globals.seen)
    globals.seen, globals.stop = nil, nil
    marea.rerun.forget(path)
  end)

  it("warns of a seed whose order comes again from a dataset that was made anew", function()
    local x, warnings, globals = marea.arange(1, 40), {}, package.loaded._G -- busted has other ones
    local before = globals.warn
    globals.warn = function(text) warnings[#warnings + 1] = text end
    for _ = 1, 2 do pass_of(data.Dataset{x, seed = 30}, 8, {shuffle = true}) end
    assert.are.equal(1, #warnings)
    assert.is_truthy(warnings[1]:find("the order of seed 30 and epoch 1 comes again", 1, true))
    local d = data.Dataset{x, seed = 4}
    for _ = 1, 2 do pass_of(d, 8, {shuffle = true}) end
    for epoch = 1, 3 do pass_of(data.Dataset{x, seed = 5}, 8, {shuffle = true, epoch = epoch}) end
    for _ = 1, 2 do pass_of(data.Dataset{x, seed = 6}, 8) end
    for _ = 1, 2 do pass_of(data.Dataset{x}, 8, {shuffle = true}) end
    globals.warn = before
    assert.are.equal(1, #warnings)
  end)

  it("releases what an iteration made when the next one begins, and at the end", function()
    collectgarbage() -- of the tests before, so that nothing of it goes while we count
    local boxes = marea.memory().boxes
    local d, last, made = counting(6), nil, nil
    local inside = marea.memory().boxes
    for x in d:batches(2) do
      if last then assert.is_true(last:is_released() and made:is_released()) end
      last, made = x, x * 2
      close(made, x + x)
    end
    assert.is_true(last:is_released() and made:is_released())
    assert.are.equal(inside, marea.memory().boxes)
    assert.is_true(inside > boxes)
  end)

  it("releases on break and on an error too", function()
    local kept
    for x in counting(6):batches(2) do
      kept = x
      if x[1] == 3 then break end
    end
    assert.is_true(kept:is_released())
    pcall(function()
      for x in counting(6):batches(2) do
        kept = x * 2
        error "stop"
      end
    end)
    assert.is_true(kept:is_released())
    for x in counting(6):batches(2) do kept = (x * 2):keep() end
    close(kept, {10, 12})
  end)

  it("says which loop released a tensor that is used too late", function()
    local late
    for x in counting(2):batches(2) do late = x * 2 end
    local message = message_of(function() return late:sum() + 1 end)
    assert.is_truthy(message:find("made at .-data_spec.lua:%d+ was released by the scope ended at .-data_spec.lua:%d+"))
  end)

  it("goes on behind the rows that were delivered", function()
    marea.seed(3)
    local d = counting(10)
    local whole, seen, state = pass_of(d, 3, {shuffle = true, epoch = 4}), {}, nil
    for x in d:batches(3, {shuffle = true, epoch = 4}) do
      seen[#seen + 1] = x:totable()
      if #seen == 2 then
        state = d:state()
        break
      end
    end
    local other = counting(10)
    other:load_state(state)
    for x in other:batches(3, {shuffle = true}) do seen[#seen + 1] = x:totable() end
    assert.are.same(whole, seen)
    assert.are.same(pass_of(d, 3, {shuffle = true, epoch = 5}), pass_of(other, 3, {shuffle = true}))
  end)
end)

describe("mnist", function()
  it("reads the sample", function()
    local train, test = data.mnist "sample", data.mnist("sample", "test")
    assert.are.equal(6000, #train)
    assert.are.equal(1000, #test)
    assert.are.same({6000, 28, 28, 1}, train:field("image").shape)
    assert.are.equal("u8", train:field("image").dtype)
    local x, y = test:rows{1, 2, 3, 4}
    assert.are.equal("f32", x.dtype)
    assert.are.same({4, 28, 28, 1}, x.shape)
    assert.are.equal(1, x:max():item())
    assert.are.same({8, 3, 2, 1}, y:totable()) -- 7, 2, 1, 0
    assert.are.same({1, 10}, {train:field("label"):min():item(), train:field("label"):max():item()})
  end)

  it("reads raw and compressed files of a folder", function()
    local at = folder.new()
    for _, name in ipairs{"images-idx3", "labels-idx1"} do
      os.execute(("zcat scripts/data/t10k-%s-ubyte.gz > %s/t10k-%s-ubyte"):format(name, at, name))
    end
    assert.are.equal(1000, #data.mnist(at, "test"))
    local nothing, message = data.mnist(at, "train")
    assert.is_nil(nothing)
    assert.is_truthy(message:find(at, 1, true))
  end)

  it("gives nil and a message for files that are none", function()
    local at = folder.new()
    folder.write(at .. "/train-images-idx3-ubyte", "no images")
    folder.write(at .. "/train-labels-idx1-ubyte", "\0\0\8\1\0\0\0\2\1\2")
    local nothing, message = data.mnist(at)
    assert.is_nil(nothing)
    assert.is_string(message)
    folder.write(at .. "/train-images-idx3-ubyte", "\0\0\8\3\0\0\0\1\0\0\0\1\0\0\0\1\7")
    nothing, message = data.mnist(at)
    assert.is_nil(nothing)
    assert.is_truthy(message:find "has 1 images, .* has 2 labels")
    folder.write(at .. "/train-labels-idx1-ubyte", "\0\0\8\3\0\0\0\1\0\0\0\1\0\0\0\1\7")
    nothing, message = data.mnist(at)
    assert.is_nil(nothing)
    assert.is_truthy(message:find "expected u8 of 1 dimensions")
  end)

  it("refuses an unknown split", function()
    assert.is_truthy(message_of(function() data.mnist("sample", "tests") end):find "did you mean 'test'")
  end)
end)

describe("progress", function()
  local function stream()
    local s = {text = ""}
    function s:write(...)
      self.text = self.text .. table.concat{...}
      return self
    end
    function s.flush() end
    return s
  end

  it("writes one plain line a pass where there is no terminal", function()
    local out = stream()
    local count = 0
    for x, y in data.progress(counting(10):batches(4), {title = "epoch 1", stream = out, unit = "rows"}) do
      count = count + 1
      close(y, x * 10)
    end
    assert.are.equal(3, count)
    assert.is_truthy(out.text:find "^epoch 1  step 3/3  %d+ rows/s  in 0:00\n$", out.text)
  end)

  it("shows times as clocks do", function()
    local clock = require "marea.internal.amount".clock
    assert.are.same({"0:00", "0:42", "1:15", "1:01:15"}, {clock(0), clock(41.6), clock(75), clock(3675)})
  end)

  it("shows means of the values so far, weighted by the size of the batches", function()
    local out = stream()
    local bar = data.progress(counting(10):batches(4), {title = "t", stream = out})
    for x in bar:each() do bar:show("loss", x:mean():item(), "KL", 2) end
    assert.are.equal(5.5, bar.means.loss)
    assert.is_truthy(out.text:find("t  step 3/3  loss 5.5000  KL 2.0000  ", 1, true), out.text)
  end)

  it("rewrites its line on a terminal, at most ten times a second", function()
    local at = folder.new()
    folder.write(at .. "/bar.lua", [[
      local marea = require "marea"
      local core = require "marea.core"
      core.isatty = function() return true end
      for _ in marea.progress(marea.data.Dataset{marea.arange(1, 2000)}:batches(1), "e") do
        local t = core.clock()
        while core.clock() < t + 1e-4 do end
      end]])
    local text, code = folder.lua(at .. "/bar.lua")
    assert.are.equal(0, code, text)
    local _, rewrites = text:gsub("\r", "")
    assert.is_true(rewrites >= 2 and rewrites <= 200, rewrites)
    local seconds = tonumber(text:match "(%d+) images/s[^\r]*\n")
    assert.is_true(rewrites <= 2000 / seconds * 10 + 2)
    assert.is_truthy(text:find "step 2000/2000  %d+ images/s  in %d:%d%d\27%[K\27%[%?7h\n$")
  end)

  it("passes the end of a loop on to what it wraps", function()
    local kept
    for x in data.progress(counting(6):batches(2), {stream = stream()}) do
      kept = x
      if x[1] == 3 then break end
    end
    assert.is_true(kept:is_released())
    local out = stream()
    for _ in data.progress(counting(6):batches(2), {stream = false}) do close(1, 1) end
    assert.are.equal("", out.text)
  end)

  it("takes any iterator that needs no state", function()
    local n, out = 0, stream()
    for i in data.progress(function()
      n = n + 1
      return n <= 3 and n or nil
    end, {stream = out, total = 3}) do assert.are.equal(n, i) end
    assert.is_truthy(out.text:find "step 3/3  in 0:00")
    assert.is_truthy(message_of(function() data.progress(3) end):find "an iterator")
    assert.is_truthy(message_of(function() data.progress(next, {titel = "x"}) end):find "did you mean 'title'")
  end)
end)

describe("images made for counting", function()
  local synthetic = data.synthetic
  local digits = assert(data.mnist("sample", "train"))
  local threads = marea.threads()
  teardown(function() marea.set_threads(threads) end)

  --- All fields of a dataset in one number each that any change would change, and the random state afterwards.
  local function made(make, options)
    local d = make(options)
    local prints = {}
    for i, name in ipairs{"image", "dots", "count"} do
      local t = d:field(name):to("f64"):reshape(-1)
      prints[i] = (t * marea.arange(1, t:numel(), {dtype = "f64"}):sin()):sum():item()
    end
    return prints
  end

  it("are a function of the seed alone", function()
    for name, options in pairs{digits = {20, from = digits}, cells = {2, size = 64, low = 5, mean = 20, sd = 5}} do
      marea.seed(1)
      options.seed = 7
      local seed, counter = marea.random_state()
      marea.set_threads(1)
      local first = made(synthetic[name], options)
      assert.are.same({seed, counter}, {marea.random_state()})
      marea.seed(2)
      marea.set_threads(3)
      assert.are.same(first, made(synthetic[name], options), name)
      options.seed = 8
      local other = made(synthetic[name], options)
      for i = 1, 3 do assert.are_not.equal(first[i], other[i]) end
    end
  end)

  it("of digits: none to five, far apart, whole, and the even ones have dots", function()
    local d = synthetic.digits{400, from = digits, seed = 3}
    assert.are.equal("Dataset(400 rows: image u8 (400, 100, 100, 1), dots u8 (400, 100, 100, 1), count f32 (400))",
      tostring(d))
    local dots, counts = d:field "dots", d:field "count"
    close(dots:to("f32"):sum{dims = {2, 3, 4}}, counts)
    local none = counts:eq(0):to("f32"):mean():item()
    assert.is_true(math.abs(none - 0.331) < 0.08, "share without even digits: " .. none)
    assert.are.equal(5, synthetic.digits{2000, from = digits, seed = 4}:field "count":max():item())
    -- of nothing but twos: as many dots as digits, each dot with a whole digit around it
    local twos = {}
    for i, label in ipairs(digits:field "label":totable()) do if label == 3 then twos[#twos + 1] = i end end
    local images, labels = digits:field "image":index_select(marea.tensor(twos, {dtype = "i64"}), {dim = 1}),
      marea.full({#twos}, 3, "i64")
    local only = data.Dataset{{"image", images}, {"label", labels}}
    local all = synthetic.digits{60, from = only, gap = 40, most = 4, seed = 5}
    local numbers = {}
    for i = 1, #all do
      local image, at = all:field "image"[i], all:field "dots"[i]:to("i64"):reshape(-1)
      local found, ink = {}, image:to("i64"):sum():item()
      for k = 1, at:sum():item() do
        local place = at:argmax(1):item()
        at[place] = 0
        found[k] = {(place - 1) // 100, (place - 1) % 100}
        local y, x = found[k][1] - 14 + 1, found[k][2] - 14 + 1
        ink = ink - image:narrow(1, y, 28):narrow(2, x, 28):to("i64"):sum():item()
        for j = 1, k - 1 do
          assert.is_true((found[j][1] - found[k][1]) ^ 2 + (found[j][2] - found[k][2]) ^ 2 >= 1600)
        end
      end
      assert.are.equal(0, ink, "image " .. i) -- 40 pixels apart no two share a pixel, and nothing is elsewhere
      numbers[#found] = true
    end
    for n = 0, 4 do assert.is_true(numbers[n], n .. " digits never came") end
  end)

  it("of cells: as many dots as counted, and brighter there", function()
    local d = synthetic.cells{12, seed = 2}
    local dots, counts = d:field "dots":to "f32", d:field "count"
    close(dots:sum{dims = {2, 3, 4}}, counts)
    close(dots:gaussian_blur(2):sum{dims = {2, 3, 4}}, counts, {rtol = 1e-4, atol = 0})
    assert.is_true(counts:min():item() >= 74 and counts:max():item() <= 317)
    local x = (d:rows{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
    local there = (x * dots:clamp(0, 1)):sum():item() / dots:clamp(0, 1):sum():item()
    assert.is_true(there > 3 * x:mean():item(), "cells hardly stand out")
    close(synthetic.cells{5, size = 40, low = 4, mean = 4, sd = 0, high = 9}:field "count", {4, 4, 4, 4, 4})
  end)

  it("refuse what cannot be made", function()
    assert.is_truthy(message_of(function() synthetic.digits{1, from = 3} end)
      :find("digits: argument 'from': expected a dataset of digits, got 3", 1, true))
    assert.is_truthy(message_of(function() synthetic.digits{1, from = digits, most = 90} end):find "no room for %d+")
    assert.is_truthy(message_of(function() synthetic.digits{1, from = digits, size = 20} end):find "at most 20x20")
    assert.is_truthy(message_of(function() synthetic.cells{1, mean = 1000} end):find "from 74 to 317, got 1000")
    assert.is_truthy(message_of(function() synthetic.cells{1, sead = 2} end):find "did you mean 'seed'")
  end)
end)

describe("a dataset with a seed", function()
  it("is not kept by what watches for orders that come again", function()
    local core = require "marea.core"
    local function blocks()
      collectgarbage()
      collectgarbage()
      return core.memory().blocks
    end
    local before = blocks()
    do
      local set = data.Dataset{marea.zeros{1000, 10}, seed = 3}
      for _ in set:batches(100, {shuffle = true}) do end -- luacheck: ignore 542
    end
    assert.are.equal(before, blocks())
  end)
end)

describe("metrics", function()
  it("keeps a table in a CSV file", function()
    local path = folder.new() .. "/m.csv"
    local log = metrics.open(path, {"epoch", "loss", "kl"})
    assert.is_nil(folder.read(path))
    assert(log:write{epoch = 1, loss = 1 / 3, kl = 2})
    assert(log:write{epoch = 2, loss = 1e-12})
    assert.are.equal("epoch,loss,kl\n1,0.333333333,2\n2,1e-12,\n", folder.read(path))
    assert.is_nil(folder.read(path .. ".tmp"))
    assert.are.same({1, 2}, log:column "epoch")
    assert.are.same({{epoch = 1, loss = 0.333333333, kl = 2}, {epoch = 2, loss = 1e-12}}, (metrics.read(path)))
  end)

  it("continues a file and replaces the rows that come again", function()
    local path = folder.new() .. "/m.csv"
    local log = metrics.open(path, {"epoch", "loss"})
    for epoch = 1, 3 do log:write{epoch = epoch, loss = epoch} end
    log = metrics.open(path, {"epoch", "loss"}, {resume = true})
    log:write{epoch = 2, loss = 20}
    assert.are.same({1, 20}, log:column "loss")
    assert.are.equal("epoch,loss\n1,1\n2,20\n", folder.read(path))
  end)

  it("gives nil and a message when it cannot write", function()
    local ok, message = metrics.open("/nowhere/at/all.csv", {"epoch"}):write{epoch = 1}
    assert.is_nil(ok)
    assert.is_truthy(message:find "/nowhere/at/all.csv")
    assert.is_truthy(message_of(function() metrics.open("x", {"epoch"}):write{epch = 1} end)
      :find "did you mean 'epoch'")
  end)
end)
