-- SPDX-License-Identifier: MIT
-- marea.profile: what is counted, which layer it belongs to, how the times add up, the table and the trace.
local marea = require "marea"
local core = require "marea.core"
local json = require "dkjson"
local folder = require "spec.support.folder"
local message_of = require "spec.support.message_of"
local nn, optim, ops = marea.nn, marea.optim, core.ops

teardown(folder.remove)

--- The row of an operator in a layer and direction, or one without calls.
local function row_of(report, layer, op, direction)
  for _, row in ipairs(report.rows) do
    if row.layer == layer and row.op == op and row.direction == direction then return row end
  end
  return {calls = 0, flop = 0, bytes = 0, seconds = 0}
end

local function layers_of(report)
  local set = {}
  for _, row in ipairs(report.rows) do set[row.layer] = true end
  return set
end

local function events_of(report)
  local list = {}
  for i = 1, report.events do list[i] = report._event(i) end
  return list
end

--- Spends time in Lua.
local function idle(seconds)
  local stop = marea.clock() + seconds
  while marea.clock() < stop do end
end

local Classifier = nn.class "Classifier"

function Classifier:init()
  self.encoder = nn.Sequential{
    nn.Conv2d{2, 4, kernel = 3, padding = "same", activation = "relu", name = "conv1"},
    nn.Conv2d{4, 6, kernel = 3, stride = 2, padding = "same", activation = "tanh", name = "conv2"},
    nn.Flatten{},
  }
  self.head = nn.Linear{4 * 4 * 6, 5}
end

function Classifier:encode(x) return self.encoder(x) end

function Classifier:forward(x) return self.head(self:encode(x)) * 2 end

describe("a profile of training", function()
  local images, labels, net, optimizer = marea.normal{3, 8, 8, 2}, marea.tensor({1, 5, 2}, {dtype = "i64"})
  local report, loss, second

  setup(function()
    net = Classifier()
    optimizer = optim.SGD{net, lr = 0.1}
    report, loss, second = marea.profile(function()
      local last
      for _ = 1, 4 do last = optimizer:step(function() return net(images):cross_entropy(labels) end) end
      return last:item(), "done"
    end)
  end)

  it("returns what the function returned", function()
    assert.is_true(loss > 0)
    assert.are.equal("done", second)
  end)

  it("counts the calls of every layer", function()
    for _, expected in ipairs{
      {"encoder.conv1", "conv2d"}, {"encoder.conv2", "conv2d"}, {"encoder.3", "flatten"}, {"head", "linear"},
      {"Classifier", "mul"}, {"", "cross_entropy"},
    } do
      assert.are.equal(4, row_of(report, expected[1], expected[2], "forward").calls, table.concat(expected, " "))
    end
    assert.are.equal(4 * 6, row_of(report, "", "sgd_step", "forward").calls)
    assert.are.equal(4, row_of(report, "", "backward", "backward").calls)
    local calls = 0
    for _, row in ipairs(report.rows) do calls = calls + row.calls end
    assert.are.equal(report.calls, calls)
    assert.are.equal(report.calls, report.events)
  end)

  it("gives the operators of the backward pass to the layer that they differentiate", function()
    assert.are.equal(4, row_of(report, "encoder.conv1", "conv2d_backward", "backward").calls)
    assert.are.equal(4, row_of(report, "encoder.conv2", "conv2d_backward", "backward").calls)
    assert.are.equal(4, row_of(report, "", "cross_entropy_grad", "backward").calls)
    for layer in pairs(layers_of(report)) do
      assert.is_truthy(({["encoder.conv1"] = 1, ["encoder.conv2"] = 1, ["encoder.3"] = 1, head = 1, Classifier = 1,
        [""] = 1})[layer], layer)
    end
  end)

  it("counts FLOPs of layers as their summary does, for both gradients too", function()
    local conv1, conv2, head = 2 * 8 * 8 * 4 * 9 * 2, 2 * 4 * 4 * 6 * 9 * 4, 2 * 96 * 5
    local summary = net:summary{8, 8, 2}
    assert.are.equal(conv1 + conv2 + head, summary.flops)
    assert.are.equal(4 * 3 * conv1, row_of(report, "encoder.conv1", "conv2d", "forward").flop)
    assert.are.equal(4 * 3 * conv2, row_of(report, "encoder.conv2", "conv2d", "forward").flop)
    assert.are.equal(4 * 3 * head, row_of(report, "head", "linear", "forward").flop)
    -- of the images no gradient is asked for
    assert.are.equal(4 * 3 * conv1, row_of(report, "encoder.conv1", "conv2d_backward", "backward").flop)
    assert.are.equal(4 * 3 * 2 * conv2, row_of(report, "encoder.conv2", "conv2d_backward", "backward").flop)
  end)

  it("puts rows together by layer and by operator", function()
    local seconds, share = 0, 0
    for _, group in ipairs(report:group "layer") do
      seconds, share = seconds + group.seconds, share + group.share
      assert.are.equal("", group.op)
      assert.is_true(math.abs(group.forward + group.backward - group.seconds) < 1e-12)
    end
    assert.is_true(math.abs(seconds - report.operators) < 1e-9)
    assert.is_true(math.abs(share + report.script_share - 1) < 1e-9)
    local by_op = report:group "op"
    for i = 2, #by_op do assert.is_true(by_op[i].seconds <= by_op[i - 1].seconds) end
    for _, group in ipairs(by_op) do
      if group.op == "conv2d" then assert.are.equal(8, group.calls) end
    end
  end)

  it("prints a table, the slowest first", function()
    local text = tostring(report)
    local heading = text:match "^[^\n]*"
    for _, word in ipairs{"layer", "op", "calls", "fwd ms", "bwd ms", "share", "GFLOP/s", "GB/s"} do
      assert.is_truthy(heading:find(word, 1, true), word)
    end
    assert.is_truthy(text:find "\nencoder%.conv2 +conv2d %(direct%) +4 +[%d.]+ +[%d.]+ %% +[%d.]+ +[%d.]+\n")
    assert.is_truthy(text:find "operators [%d.]+ %%, script %(Lua and dispatch%) [%d.]+ %%")
    local short = report:table{by = "layer", limit = 2}
    assert.is_truthy(short:find "\n%(4 more%) +%d")
    assert.is_nil(short:match "^[^\n]*":find(" op ", 1, true))
  end)
end)

describe("a profile of convolutions", function()
  local function zeros(shape, dtype) return ops.full {shape = shape, value = 0, dtype = dtype} end

  --- The algorithm of each operator that f runs, by its name.
  local function algorithms(f)
    local taken = {}
    for _, row in ipairs(marea.profile(f).rows) do taken[row.op] = row.algorithm or false end
    return taken
  end

  local function conv2d(x, w, attrs)
    return algorithms(function() return ops.conv2d(zeros(x), zeros(w), attrs) end).conv2d
  end

  it("shows which algorithm was taken, and other operators have none", function()
    local same = {padding = "same"}
    assert.are.equal("winograd", conv2d({1, 28, 28, 32}, {3, 3, 32, 32}, same))
    assert.are.equal("direct", conv2d({1, 28, 28, 32}, {3, 3, 32, 32}, {padding = "same", algorithm = "direct"}))
    assert.are.equal("direct", conv2d({1, 28, 28, 8}, {3, 3, 8, 32}, same))
    assert.are.equal("winograd", conv2d({2, 28, 28, 32}, {4, 4, 32, 32}, {padding = "same", stride = 2}))
    assert.are.equal("few channels", conv2d({1, 28, 28, 1}, {3, 3, 1, 32}, same))
    assert.are.equal("depthwise", conv2d({1, 28, 28, 32}, {3, 3, 1, 32}, {padding = "same", groups = 32}))
    assert.are.equal("batch", conv2d({24, 8, 8, 64}, {5, 5, 32, 32}, {padding = "same", groups = 2}))
    assert.are.equal("direct", conv2d({23, 8, 8, 64}, {5, 5, 32, 32}, {padding = "same", groups = 2}))
    assert.is_false(algorithms(function() return zeros{2, 2}:matmul(zeros{2, 2}) end).matmul)
  end)

  it("shows those of both gradients, and all that a layer took", function()
    local w = zeros{3, 3, 32, 1}:requires_grad_(true)
    local function step(channels)
      local x = zeros{1, 28, 28, 32}:requires_grad_(channels == nil)
      local v = channels and zeros{3, 3, 32, channels}:requires_grad_(true) or w
      ops.conv2d(x, v, {padding = "same"}):sum():backward()
    end
    assert.are.equal("few channels + direct swapped", algorithms(step).conv2d_backward)
    assert.are.equal("winograd", algorithms(function() step(32) end).conv2d_backward)
    local report = marea.profile(function()
      step(32)
      step(8)
      step(32)
    end)
    assert.are.equal("winograd, direct", row_of(report, "", "conv2d", "forward").algorithm)
    assert.are.equal(3, row_of(report, "", "conv2d", "forward").calls)
    assert.is_truthy(report:table{by = "op"}:find("\nconv2d (winograd, direct) ", 1, true))
    assert.is_nil(report:table{by = "layer"}:find("winograd", 1, true))
  end)
end)

--- FLOPs and bytes of the operator `op` in what f runs.
local function work(op, f)
  local row = row_of(marea.profile(f), "", op, "forward")
  assert.are.equal(1, row.calls)
  return {row.flop, row.bytes}
end

describe("FLOPs and bytes", function()
  local a = marea.ones(5, 3, 4)

  it("of convolutions count 2 for each multiply-add, padding included", function()
    local x, w = marea.ones(2, 7, 6, 4), marea.ones(3, 2, 2, 6)
    assert.are.same({2 * (2 * 4 * 3 * 6) * (3 * 2 * 2), 4 * (2 * 7 * 6 * 4 + 3 * 2 * 2 * 6 + 2 * 4 * 3 * 6)},
      work("conv2d", function() return ops.conv2d(x, w, {stride = 2, padding = "same", groups = 2}) end))
    local y, v = marea.ones(2, 5, 5, 6), marea.ones(3, 3, 4, 6)
    assert.are.same({2 * (2 * 5 * 5 * 6) * (3 * 3 * 4), 4 * (2 * 5 * 5 * 6 + 3 * 3 * 4 * 6 + 2 * 10 * 10 * 4)},
      work("conv_transpose2d", function() return ops.conv_transpose2d(y, v, {stride = 2, padding = "same"}) end))
  end)

  it("of products too, whichever operand is stored transposed", function()
    local b, c, bias = marea.ones(7, 4), marea.ones(3, 2), marea.ones(7)
    assert.are.same({2 * 5 * 3 * 7 * 4, 4 * (60 + 28 + 5 * 3 * 7)},
      work("matmul", function() return ops.matmul(a, b, {transpose_b = true}) end))
    assert.are.same({2 * 5 * 4 * 2 * 3, 4 * (60 + 6 + 5 * 4 * 2)},
      work("matmul", function() return ops.matmul(a, c, {transpose_a = true}) end))
    assert.are.same({2 * 4, 4 * (4 + 4 + 1)}, work("matmul", function() return ops.matmul(a[{1, 1}], a[{2, 3}]) end))
    local w = b:transpose(1, 2):contiguous()
    assert.are.same({2 * 5 * 3 * 7 * 4, 4 * (60 + 28 + 7 + 5 * 3 * 7)},
      work("linear", function() return ops.linear(a, w, bias, {activation = "relu"}) end))
  end)

  it("of elementwise operators and reductions are one for an element", function()
    assert.are.same({60, 4 * (60 + 1 + 60)}, work("add", function() return a + 1 end))
    assert.are.same({60, 4 * (60 + 1 + 60)}, work("mul", function() a:mul_(1) end))
    assert.are.same({60, 4 * (60 + 1)}, work("sum", function() return a:sum() end))
  end)

  it("of views are none, of copies only bytes; repeated elements count once", function()
    assert.are.same({0, 0}, work("reshape", function() return a:reshape(60) end))
    assert.are.same({0, 4 * (60 + 60)}, work("contiguous", function() return a:permute{3, 1, 2}:contiguous() end))
    local row = marea.ones(1, 4)
    assert.are.same({4000, 4 * (4 + 1)}, work("sum", function() return row:expand{1000, 4}:sum() end))
    local target = marea.ones(1000, 4)
    assert.are.same({0, 4 * (4 + 4000)}, work("copy_", function() target:copy_(row) end))
  end)
end)

describe("the layer of an operator", function()
  it("is the same whether the model is called or one of its parts", function()
    local net, x = Classifier(), marea.normal{1, 8, 8, 2}
    local report = marea.profile(function()
      net(x)
      net:encode(x)
      net.encoder(x)
      net.encoder.conv1:forward(x)
    end)
    assert.are.equal(4, row_of(report, "encoder.conv1", "conv2d", "forward").calls)
    assert.are.equal(3, row_of(report, "encoder.conv2", "conv2d", "forward").calls)
    assert.are.equal(1, row_of(report, "head", "linear", "forward").calls)
  end)

  it("begins with the model's name where there are several", function()
    local x = marea.ones(1, 3)
    local function layers(...)
      local models = {...}
      return layers_of(marea.profile(function()
        for _, model in ipairs(models) do model(x) end
      end))
    end
    local function small(name) return nn.Sequential{nn.Linear{3, 3}, nn.ReLU{}, name = name} end
    assert.are.same({["1"] = true, ["2"] = true}, layers(small "generator"))
    assert.are.same({["generator.1"] = true, ["generator.2"] = true, ["discriminator.1"] = true,
      ["discriminator.2"] = true}, layers(small "generator", small "discriminator"))
    assert.are.same({["Sequential#1.1"] = true, ["Sequential#1.2"] = true, ["Sequential#2.1"] = true,
      ["Sequential#2.2"] = true, ["Linear"] = true}, layers(small(), small(), nn.Linear{3, 3}))
    local one = small()
    assert.are.same({["1"] = true, ["2"] = true}, layers(one, one[1], one))
  end)

  it("does not outlive its profile", function()
    local net, x = Classifier(), marea.normal{1, 8, 8, 2}
    local before = net(x):sum()
    local first
    marea.profile(function() first = net(x):sum() end)
    local second = marea.profile(function()
      before:backward()
      first:backward()
    end)
    assert.are.same({[""] = true}, layers_of(second))
    assert.are.equal(4, row_of(second, "", "conv2d_backward", "backward").calls)
  end)

  it("is kept by gradients of gradients", function()
    local net, x = nn.Sequential{nn.Linear{3, 4, activation = "tanh", name = "one"}, nn.Linear{4, 1, name = "two"}},
      marea.normal{2, 3}:requires_grad_()
    local report = marea.profile(function()
      local dx = marea.grad(net(x):sum(), x, {create_graph = true})
      dx:square():sum():backward()
    end)
    assert.are.equal(2, row_of(report, "", "backward", "backward").calls)
    assert.is_true(row_of(report, "one", "matmul", "backward").calls >= 4)
    assert.are.equal(0, row_of(report, "", "matmul", "backward").calls)
    assert.is_true(row_of(report, "", "square", "forward").calls == 1)
  end)

  it("is found in coroutines and without gradients", function()
    local net, x = Classifier(), marea.normal{1, 8, 8, 2}
    local report = marea.profile(function()
      coroutine.wrap(function() marea.no_grad(function() return net(x) end) end)()
    end)
    assert.are.equal(1, row_of(report, "encoder.conv2", "conv2d", "forward").calls)
    for _, row in ipairs(report.rows) do assert.are.equal("forward", row.direction) end
  end)
end)

describe("the times of a profile", function()
  it("add up to the wall clock", function()
    local a, measured, outside = marea.normal{400, 400}, 0, marea.clock()
    local report = marea.profile(function()
      for _ = 1, 10 do
        local before = marea.clock()
        marea.scope(function() return a:matmul(a):matmul(a):matmul(a) end)
        measured = measured + marea.clock() - before
        idle(0.005)
      end
    end)
    outside = marea.clock() - outside
    assert.is_true(math.abs(report.operators + report.script + report.overhead - report.wall) < 1e-9)
    assert.is_true(report.wall <= outside and report.wall >= 0.98 * outside - 0.001)
    assert.is_true(report.script >= 0.05)
    assert.is_true(report.operators <= measured and report.operators >= 0.9 * measured)
    local sum, total = 0, 0
    for _, row in ipairs(report.rows) do sum, total = sum + row.seconds, total + row.total_seconds end
    assert.is_true(math.abs(sum - report.operators) < 1e-9)
    assert.is_true(math.abs(total - sum) < 1e-9) -- nothing was nested
  end)

  it("count a call within a call once", function()
    local w = marea.normal{200, 200}:requires_grad_()
    local report = marea.profile(function()
      for _ = 1, 5 do marea.scope(function() w:matmul(w):sum():backward() end) end
    end)
    local pass = row_of(report, "", "backward", "backward")
    local inside = 0
    for _, row in ipairs(report.rows) do
      if row.direction == "backward" and row ~= pass then inside = inside + row.seconds end
    end
    assert.is_true(inside > 0 and pass.total_seconds >= pass.seconds + inside - 1e-9)
    assert.is_true(pass.total_seconds <= report.wall)
    assert.is_true(report.operators <= report.wall - report.overhead)
  end)
end)

describe("the trace of a profile", function()
  local path = folder.new() .. "/trace.json"

  --- The file's events, which must nest: what begins within another ends within it.
  local function read()
    local trace = assert(json.decode(folder.read(path)))
    local stack, operators, layers = {}, {}, {}
    local function leave(now)
      while stack[#stack] and stack[#stack].stop and stack[#stack].stop <= now do stack[#stack] = nil end
    end
    local function microseconds(x) return math.floor(x * 1000 + 0.5) end -- as ns, which are whole
    for _, e in ipairs(trace.traceEvents) do
      local start = e.ts and microseconds(e.ts)
      if e.ph == "B" then
        leave(start)
        stack[#stack + 1] = {name = e.name}
        layers[#layers + 1] = e.name
      elseif e.ph == "E" then
        while stack[#stack].stop do
          assert.is_true(stack[#stack].stop <= start)
          stack[#stack] = nil
        end
        assert.are.equal(stack[#stack].name, e.name)
        stack[#stack] = nil
      elseif e.ph == "X" then
        leave(start)
        local stop, outer = start + microseconds(e.dur), stack[#stack]
        assert.is_true(not outer or not outer.stop or stop <= outer.stop, e.name)
        operators[#operators + 1] = e
        stack[#stack + 1] = {name = e.name, stop = stop}
      end
    end
    for _, open in ipairs(stack) do assert.is_truthy(open.stop) end
    return operators, layers
  end

  it("is JSON whose events nest, with the layers around their operators", function()
    local net = Classifier()
    local optimizer = optim.SGD{net, lr = 0.1}
    local x, y = marea.normal{2, 8, 8, 2}, marea.tensor({1, 2}, {dtype = "i64"})
    local report = marea.profile(function()
      for _ = 1, 2 do optimizer:step(function() return net(x):cross_entropy(y) end) end
    end)
    assert(report:trace(path))
    local operators, layers = read()
    assert.are.equal(report.calls, #operators)
    local expected = {}
    for i, e in ipairs(events_of(report)) do expected[i] = e.op end
    for i, e in ipairs(operators) do
      assert.are.equal(expected[i], e.name)
      assert.is_true(e.cat == "forward" or e.cat == "backward")
    end
    assert.are.equal("encoder.conv1", operators[1].args.layer)
    assert.are.equal(row_of(report, "encoder.conv1", "conv2d", "forward").flop, 2 * operators[1].args.flop)
    assert.are.same({"encoder", "conv1", "conv2", "3", "head", "Classifier"}, {table.unpack(layers, 1, 6)})
  end)

  it("keeps the first calls, and says so", function()
    local a = marea.ones(2)
    local report = marea.profile(function()
      for _ = 1, 30 do local _ = a + 1 end
    end, {events = 20})
    assert.are.equal(20, report.events)
    assert.are.equal(30, report.calls)
    assert.are.equal(30, row_of(report, "", "add", "forward").calls)
    assert.is_truthy(tostring(report):find("the first 20 of 30 calls", 1, true))
    assert(report:trace(path))
    assert.are.equal(20, #read())
    report = marea.profile(function() return a + 1 end, {events = 0})
    assert(report:trace(path))
    assert.are.equal(0, #read())
  end)

  it("holds any name", function()
    local names = {'a "quoted" \\ name', "line\nbreak\127\1", "\xff\xfe", "große Schicht", "tab\tin it"}
    local net = nn.Sequential{}
    for i, name in ipairs(names) do
      net[name] = nn.Linear{2, 2}
      net._order[i] = name
    end
    local report = marea.profile(function() return net(marea.ones(1, 2)) end)
    assert(report:trace(path))
    local operators, found = read(), {}
    for _, e in ipairs(operators) do found[e.args.layer] = true end
    names[3] = "??"
    for _, name in ipairs(names) do assert.is_true(found[name], name) end
  end)

  it("that cannot be written is nil and a message", function()
    local ok, message = marea.profile(function() end):trace "/nowhere/trace.json"
    assert.is_nil(ok)
    assert.is_truthy(message:find("/nowhere/trace.json", 1, true))
  end)
end)

describe("profile.start and profile.stop", function()
  it("measure what is between them", function()
    local a = marea.ones(3)
    marea.profile.start{events = 5}
    local b = a * 2
    local report = marea.profile.stop()
    b:add_(1)
    assert.are.equal(1, #report.rows)
    assert.are.equal("mul", report.rows[1].op)
    assert.are.equal(1, report.calls)
  end)

  it("leave nothing behind, and nothing is recorded outside", function()
    local a = marea.ones(3)
    local function use()
      collectgarbage()
      collectgarbage()
      local m = core.memory()
      return {m.live, m.blocks, m.boxes}
    end
    local before = use()
    do
      local report = marea.profile(function()
        for _ = 1, 3000 do local _ = a + 1 end
      end)
      assert.are.equal(3000, report.calls)
    end
    assert.are.same(before, use())
    local mallocs = core.memory().mallocs
    for _ = 1, 100 do marea.scope(function() return a + 1 end) end
    assert.are.equal(mallocs, core.memory().mallocs)
  end)
end)

describe("a profile that goes wrong", function()
  --- None is running: a new one can start.
  local function is_over() marea.profile(function() end) end

  it("passes the error of its function on and ends", function()
    local thrown = {}
    local ok, caught = pcall(marea.profile, function() error(thrown) end)
    assert.is_false(ok)
    assert.are.equal(thrown, caught)
    is_over()
    local message = message_of(function() marea.profile(function() return marea.ones(2):reshape(3) end) end)
    assert.is_truthy(message:find("reshape", 1, true))
    is_over()
    local _, traceback = xpcall(function()
      local function inner() error "deep" end
      marea.profile(function() inner() end)
    end, debug.traceback)
    assert.is_truthy(traceback:find("in upvalue 'inner'", 1, true))
    is_over()
  end)

  it("counts the call that failed", function()
    local report = marea.profile(function() pcall(ops.reshape, marea.ones(2), {3}) end)
    local row = row_of(report, "", "reshape", "forward")
    assert.are.same({1, 0, 0}, {row.calls, row.flop, row.bytes})
  end)

  it("is one inside another, or none to stop", function()
    local message = message_of(function() marea.profile(function() marea.profile(function() end) end) end)
    assert.is_truthy(message:find "profile: one is running already, since [^%s]*profile_spec.lua:%d+$", message)
    is_over()
    message = message_of(function() marea.profile.stop() end)
    assert.is_truthy(message:find("profile.stop: no profile is running", 1, true))
    message = message_of(function() marea.profile(function() marea.profile.stop() end) end)
    assert.is_truthy(message:find("profile.stop: no profile is running", 1, true))
    is_over()
  end)

  it("has wrong arguments", function()
    for text, f in pairs{
      ["profile: argument 'f': expected a function, got a table"] = function() marea.profile{} end,
      ["profile: unknown argument 'event'; did you mean 'events'?"] = function() marea.profile(print, {event = 1}) end,
      ["profile: argument 'events': expected an integer of at least 0, got -1"] = function()
        marea.profile.start{events = -1}
      end,
      ["table: argument 'by': expected one of 'both', 'layer', 'op', got string 'layers'; did you mean 'layer'?"] =
        function() marea.profile(function() end):table{by = "layers"} end,
      ["group: argument 'by': expected one of 'both', 'layer', 'op', got 1"] =
        function() marea.profile(function() end):group(1) end,
      ["table: argument 'limit': expected an integer of at least 1, got 0"] =
        function() marea.profile(function() end):table{limit = 0} end,
      ["trace: argument 'path': expected a string, got nil"] = function() marea.profile(function() end):trace() end,
    } do
      assert.is_truthy(message_of(f):find(text, 1, true), text)
    end
    is_over()
  end)

  it("runs out of memory, or its coroutine dies", function()
    local x, net = marea.normal{1, 8, 8, 2}, Classifier()
    local done
    for k = 1, 400 do
      core.memory_trim()
      core.memory_fail(k, true)
      local ok, message = pcall(marea.profile, function() return marea.no_grad(net, x):sum():item() end)
      core.memory_fail(0)
      assert.is_true(ok or tostring(message):find "memory" ~= nil, tostring(message))
      is_over()
      done = ok
      if ok then break end
    end
    assert.is_true(done)
    local dead = coroutine.create(function() marea.profile(function() error "inside" end) end)
    assert.is_false(coroutine.resume(dead))
    is_over()
  end)

  it("is interrupted", function()
    local script = folder.write(folder.new() .. "/endless.lua", [[
      local marea = require "marea"
      local a = marea.ones(2000, 2000)
      os.execute "p=$PPID; (sleep 0.3; kill -INT $p) >/dev/null 2>&1 &"
      print(pcall(marea.profile, function()
        while true do marea.scope(function() return a:matmul(a) end) end
      end))
      local report = marea.profile(function() return a + 1 end)
      print(report.calls, marea.no_grad(function() return (a + 1):sum():item() end))]])
    local text = folder.lua(script)
    assert.is_truthy(text:find "^false\t[^\n]*interrupted!\n1\t8000000.0\n", text)
  end)
end)
