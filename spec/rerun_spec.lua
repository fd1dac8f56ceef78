-- SPDX-License-Identifier: MIT
-- marea.rerun: scripts that are edited and run again.
local marea = require "marea"
local folder = require "spec.support.folder"
local quickest = require "spec.support.quickest"
local rerun = marea.rerun

local here = folder.new()
local path = here .. "/train.lua"

-- A script that trains; with CHECK it stops before its first step, so that what it took over can be looked at.
local BASE = [[
local marea = require "marea"
local nn, optim, data = marea.nn, marea.optim, marea.data
marea.seed(1)
local x = marea.normal{32, 6}
local train = data.Dataset{x, x:sum(2, true)}
local net = nn.Sequential{
  nn.Linear{6, 8, activation = "relu"},
  nn.Linear{8, 4, activation = "relu"},
  nn.Linear{4, 1},
}
local optimizer = optim.Adam{net, lr = 1e-2}
for x, y in train:batches(8, {shuffle = true}) do
  local loss = net(x):mse(y)
  if CHECK then error "checked" end
  optimizer:step(loss)
end
]]

local NO_STEP = "the last run made no step: there is nothing to go back to"

--- Every edit is a text that must occur once, and what replaces it.
local function edited(text, ...)
  local edits = {...}
  for i = 1, #edits, 2 do
    local from, to = text:find(edits[i], 1, true)
    assert(from and not text:find(edits[i], to + 1, true), edits[i])
    text = text:sub(1, from - 1) .. edits[i + 1] .. text:sub(to + 1)
  end
  return text
end

local function write(text) folder.write(path, text) end

--- Runs the script; returns the report, and the error if there was one.
local function run(options)
  local report
  options = options or {}
  options.report = function(r) report = r end
  local ok, problem, message = pcall(rerun, path, options)
  return report, not ok and problem or message
end

--- Runs the script up to its first step; returns the report and the script's variables.
local function look()
  _G.CHECK = true
  local report, problem = run()
  _G.CHECK = nil
  assert.is_truthy(tostring(problem):find("checked", 1, true), problem)
  return report, rerun.variables(path)
end

local function bits(t)
  local values = t:detach():to("f64"):contiguous():reshape(t:numel()):totable()
  for i, v in ipairs(values) do values[i] = string.pack("<d", v) end
  return table.concat(values)
end

local function bits_of(net)
  local all = {}
  for name, t in pairs(net:state()) do all[name] = bits(t) end
  return all
end

local function names(list)
  local all = {}
  for i, entry in ipairs(list) do all[i] = entry.name .. (entry.from and " < " .. entry.from or "") end
  return table.concat(all, " ")
end

--- Trains BASE or `base`, edits, looks: report, variables before and after.
local function edit(...)
  local base, edits = BASE, {...}
  if #edits % 2 == 1 then base = table.remove(edits, 1) end
  rerun.forget()
  write(base)
  run()
  local before = rerun.variables(path)
  write(edited(base, table.unpack(edits)))
  local report, after = look()
  return report, before, after
end

local FIRST = "net.1.bias net.1.weight"
local ALL = FIRST .. " net.2.bias net.2.weight net.3.bias net.3.weight"

--- The report has these lists, and no others.
local function assert_lists(expected, report)
  for _, list in ipairs{"kept", "grown", "cut", "reinitialised", "new", "dropped"} do
    assert.are.equal(expected[list] or "", names(report[list]), list .. "\n" .. tostring(report))
  end
end

local function assert_same(a, b)
  assert.are.equal(bits(a), bits(b))
end

before_each(function() rerun.forget() end)

describe("marea.rerun after an edit", function()
  for title, change in pairs{
    nothing = {"local loss", "local loss "},
    ["the loss"] = {":mse(y)", ":l1(y)"},
    ["an activation"] = {'nn.Linear{8, 4, activation = "relu"}', 'nn.Linear{8, 4, activation = "tanh"}'},
    ["the learning rate"] = {"lr = 1e-2", "lr = 1e-3, clip_norm = 1"},
    ["the batch size"] = {"batches(8", "batches(4"},
    ["the data"] = {"marea.normal{32, 6}", "marea.normal{48, 6}"},
  } do
    it("of " .. title .. " keeps all weights and the optimizer's state", function()
      local report, before, after = edit(table.unpack(change))
      assert_lists({kept = ALL}, report)
      assert.are.same(bits_of(before.net), bits_of(after.net))
      local old, new = before.optimizer:state(), after.optimizer:state()
      for name, t in pairs(old) do assert_same(t, new[name]) end
      assert.are.equal(4, after.optimizer.steps)
      assert.are.equal("goes on", report.random)
      assert.is_false(rawequal(before.net, after.net))
    end)
  end

  it("begins anew with another optimizer", function()
    local report, before, after = edit("optim.Adam", "optim.RMSprop")
    assert_lists({kept = ALL}, report)
    assert.are.same(bits_of(before.net), bits_of(after.net))
    run()
    assert.are.equal("RMSprop", rerun.variables(path).optimizer.name)
    assert.are.equal(4, rerun.variables(path).optimizer.steps)
  end)

  it("grows a layer: what both have is kept, the rest is new", function()
    local report, before, after = edit("{6, 8,", "{6, 12,", "{8, 4,", "{12, 4,")
    assert_lists({kept = "net.2.bias net.3.bias net.3.weight", grown = FIRST .. " net.2.weight"}, report)
    local old, new = before.net:state(), after.net:state()
    assert_same(old["1.weight"], new["1.weight"][':, 1:8'])
    assert_same(old["2.weight"], new["2.weight"]['1:8, :'])
    assert.is_true(new["1.weight"][':, 9:12']:abs():min():item() > 0)
    assert.are.equal(0, new["1.bias"]['9:12']:abs():max():item())
    assert.are.same({6, 8}, report.grown[2].before)
    assert.is_truthy(tostring(report):find("net.1.weight (6, 8) -> (6, 12)", 1, true), tostring(report))
    old, new = before.optimizer:state(), after.optimizer:state()
    assert_same(old["1.weight.square"], new["1.weight.square"][':, 1:8'])
    assert.are.equal(0, new["1.weight.square"][':, 9:12']:max():item())
  end)

  it("cuts a layer", function()
    local report, before, after = edit("{6, 8,", "{6, 5,", "{8, 4,", "{5, 4,")
    assert_lists({kept = "net.2.bias net.3.bias net.3.weight", cut = FIRST .. " net.2.weight"}, report)
    assert_same(before.net[1].weight[':, 1:5'], after.net[1].weight)
  end)

  it("finds layers that a new one in the middle has shifted", function()
    local report, before, after = edit('  nn.Linear{8, 4', '  nn.Linear{8, 8},\n  nn.Linear{8, 4')
    assert_lists({kept = FIRST .. " net.3.bias < net.2.bias net.3.weight < net.2.weight net.4.bias < net.3.bias " ..
      "net.4.weight < net.3.weight", new = "net.2.bias net.2.weight"}, report)
    assert_same(before.net[2].weight, after.net[3].weight)
    assert_same(before.net[3].weight, after.net[4].weight)
    assert_same(before.optimizer:state()["3.weight.mean"], after.optimizer:state()["4.weight.mean"])
  end)

  it("finds layers behind some without parameters", function()
    local report, before, after = edit('  nn.Linear{8, 4', '  nn.Dropout{0.5}, nn.ReLU{},\n  nn.Linear{8, 4')
    assert.are.equal(6, #report.kept)
    assert.are.equal(0, #report.new + #report.dropped)
    assert_same(before.net[3].weight, after.net[5].weight)
  end)

  it("drops a layer that is gone", function()
    local report, before, after = edit('  nn.Linear{8, 4, activation = "relu"},\n', "", "{4, 1}", "{8, 1}")
    assert_same(before.net[1].weight, after.net[1].weight)
    assert_lists({kept = FIRST .. " net.2.bias < net.3.bias", grown = "net.2.weight",
      dropped = "net.2.bias net.2.weight"}, report)
  end)

  it("drops a layer at the end", function()
    local report = edit('  nn.Linear{4, 1},\n', "", "{8, 4,", "{8, 1,")
    assert_lists({kept = FIRST .. " net.2.bias < net.3.bias", grown = "net.2.weight",
      dropped = "net.2.bias net.2.weight"}, report)
  end)

  it("finds every layer that stays, whatever comes and goes", function()
    local match, nn = require "marea.rerun.match", marea.nn
    math.randomseed(7)
    local function chain(sizes)
      local layers = {}
      for i, n in ipairs(sizes) do layers[i] = nn.Linear{n, n + 1} end
      return match.holders(nn.Sequential(layers), {})
    end
    for _ = 1, 100 do
      local old, new, stays, size = {}, {}, {}, 0
      for _ = 1, math.random(1, 12) do
        size = size + 2
        local fate = math.random(4)
        if fate ~= 1 then old[#old + 1] = size end
        if fate ~= 2 then new[#new + 1] = size end
        stays[size] = fate > 2 or nil
      end
      local used = {}
      match.pairs(chain(new), chain(old), function(a, b)
        assert.is_nil(used[b])
        used[b] = true
        local n = a.tensors.weight and a.tensors.weight:size(1)
        if n and n == b.tensors.weight:size(1) then stays[n] = nil end
      end)
      assert.is_nil(next(stays))
    end
  end)

  it("keeps a layer that got a name, or another one", function()
    local report, before, after = edit("{4, 1}", '{4, 1, name = "head"}')
    assert.are.equal(6, #report.kept)
    assert_same(before.net[3].weight, after.net.head.weight)
    local named = edited(BASE, "{4, 1}", '{4, 1, name = "head"}')
    report, before, after = edit(named, '"head"', '"output"')
    assert.are.equal(6, #report.kept)
    assert_same(before.net.head.weight, after.net.output.weight)
  end)

  it("keeps weights in another precision", function()
    local report, before, after = edit("{4, 1}", '{4, 1, dtype = "f64"}', "net(x)",
      "net[3](net[2](net[1](x)):to 'f64')", "mse(y)", "mse(y:to 'f64')")
    assert_lists({kept = ALL}, report)
    assert.are.equal("f64", after.net[3].weight.dtype)
    assert_same(before.net[3].weight, after.net[3].weight)
  end)

  it("drops a bias, and makes one", function()
    assert_lists({kept = FIRST .. " net.2.bias net.2.weight net.3.weight", dropped = "net.3.bias"},
      (edit("{4, 1}", "{4, 1, bias = false}")))
    local without = edited(BASE, "{4, 1}", "{4, 1, bias = false}")
    assert_lists({kept = FIRST .. " net.2.bias net.2.weight net.3.weight", new = "net.3.bias"},
      (edit(without, "{4, 1, bias = false}", "{4, 1}")))
  end)

  it("keeps weights when a network is taken apart into a class", function()
    local report, before, after = edit("local net = nn.Sequential{", [[
local Net = nn.class "Net"
function Net:init(options) self.body = nn.Sequential(options) end
function Net:forward(x) return self.body(x) end
local net = Net{]])
    assert.are.equal(6, #report.kept)
    assert.are.equal("net.1.bias", report.kept[1].from)
    assert_same(before.net[2].weight, after.net.body[2].weight)
  end)

  it("knows a variable that was renamed, and not one that is new", function()
    local report, before, after = edit(BASE:gsub("net%f[%W]", "network"), "network = nn", "model = nn",
      "{network,", "{model,", "network(x)", "model(x)")
    assert.are.equal(6, #report.kept)
    assert.are.equal("network.1.bias", report.kept[1].from)
    assert_same(before.network[1].weight, after.model[1].weight)
    report, before, after = edit("local net =", "local other = nn.Sequential{nn.Linear{6, 8}}\nother(x)\nlocal net =")
    assert_lists({kept = ALL, new = "other.1.bias other.1.weight"}, report)
    assert_same(before.net[1].weight, after.net[1].weight)
    assert.are_not.equal(bits(before.net[1].weight), bits(after.other[1].weight))
  end)

  it("tells two networks apart by their variables, in whatever order they are made and used", function()
    local two = edited(BASE, "local optimizer", "local twin = nn.Sequential{nn.Linear{6, 8}}\nlocal optimizer",
      "net(x)", "(net(x) + twin(x):sum(2, true))", "{net,", "{{net, twin},")
    local swapped = "local twin = nn.Sequential{nn.Linear{6, 8}}\ntwin(x)\nlocal net ="
    local report, before, after = edit(two, "local twin = nn.Sequential{nn.Linear{6, 8}}\n", "", "local net =", swapped)
    assert.are.equal(8, #report.kept)
    assert_same(before.twin[1].weight, after.twin[1].weight)
    assert_same(before.net[1].weight, after.net[1].weight)
  end)

  it("drops a network that the script does not have any more", function()
    local two = edited(BASE, "local optimizer", "local twin = nn.Linear{6, 1}\nlocal optimizer", "net(x)",
      "(net(x) + twin(x))", "{net,", "{{net, twin},")
    write(two)
    run()
    write(BASE)
    local report = run()
    assert_lists({kept = ALL, dropped = "twin.bias twin.weight"}, report)
    write(two)
    assert_lists({kept = ALL, new = "twin.bias twin.weight"}, (look()))
  end)

  it("tells networks apart that are made and used in functions, under the same name there", function()
    local made = edited(BASE, "local net = nn.Sequential{\n", [[
local function small(width)
  local network = nn.Sequential{nn.Linear{width}}
  network(x)
  return network
end
local wide = small(3)
local narrow = small(2)
local net = nn.Sequential{
]], "net(x)", "(net(x) + wide(x):sum(2, true) + narrow(x):sum(2, true))", "{net,", "{{net, wide, narrow},")
    local report, before, after = edit(made, "lr = 1e-2", "lr = 1e-3")
    assert.are.equal(10, #report.kept)
    assert_same(before.wide[1].weight, after.wide[1].weight)
    assert_same(before.narrow[1].weight, after.narrow[1].weight)
  end)

  it("keeps shared parameters shared", function()
    local shared = edited(BASE, "  nn.Linear{4, 1},\n", "  nn.Linear{4, 1},\n  nn.Linear{1, 1},\n",
      "local optimizer", "net[4].weight = nn.parameter(marea.ones(1, 1))\nnet[4].bias = net[3].bias\nlocal optimizer")
    local report, before, after = edit(shared, "lr = 1e-2", "lr = 1e-3")
    assert.are.equal(7, #report.kept)
    assert.is_true(rawequal(after.net[3].bias, after.net[4].bias))
    assert_same(before.net[4].weight, after.net[4].weight)
  end)
end)

describe("marea.rerun of layers that learn their sizes from the first input", function()
  local LAZY = edited(BASE, "{6, 8,", "{8,", "{8, 4,", "{4,", "{4, 1}", "{1}")

  it("keeps them, bit for bit, before they are used", function()
    local report, before, after = edit(LAZY, ":mse(y)", ":l1(y)")
    assert_lists({kept = ALL}, report)
    assert.are.same(bits_of(before.net), bits_of(after.net))
  end)

  it("finds them behind a new one, and when one became wider", function()
    local report, before, after = edit(LAZY, "  nn.Linear{4,", "  nn.Linear{5}, nn.Linear{4,")
    assert.are.equal("net.2.bias net.2.weight", names(report.new))
    assert_same(before.net[1].weight, after.net[1].weight)
    assert_same(before.net[2].weight[{1, 1}] and before.net[2].bias, after.net[3].bias)
    assert_same(before.net[3].weight, after.net[4].weight)
    report, before, after = edit(LAZY, "nn.Linear{8,", "nn.Linear{9,")
    assert_lists({kept = "net.2.bias net.3.bias net.3.weight", grown = FIRST .. " net.2.weight"}, report)
    assert_same(before.net[2].weight, after.net[2].weight['1:8, :'])
  end)

  it("is not misled by a plan, which makes layers for a moment", function()
    local planned = edited(LAZY, "local optimizer", "marea.plan(net, {8, 6})\nlocal optimizer")
    local report, before, after = edit(planned, ":mse(y)", ":l1(y)")
    assert_lists({kept = ALL}, report)
    assert.are.same(bits_of(before.net), bits_of(after.net))
  end)

  it("keeps what a run did not come to", function()
    write(LAZY)
    run()
    local before = bits_of(rerun.variables(path).net)
    write(edited(LAZY, "  local loss", "  optimizer:step(net[1](x):mean())\n  error 'early'\n  local loss"))
    run()
    write(LAZY)
    local _, after = look()
    local now = bits_of(after.net)
    assert.are.equal(before["3.weight"], now["3.weight"])
    assert.are.equal(before["2.weight"], now["2.weight"])
    assert.are_not.equal(before["1.weight"], now["1.weight"])
    assert.is_true(after.optimizer:state()["3.weight.square"]:max():item() > 0)
  end)

  it("keeps those of a user's own class too, from the second step on", function()
    local own = edited(BASE, "local net = nn.Sequential{", [[
local Scale = nn.class "Scale"
function Scale:forward(x)
  self.factor = self.factor or nn.parameter(marea.ones(x:size(-1)))
  return x * self.factor
end
local net = nn.Sequential{
  Scale(),]])
    local report, before = edit(own, "if CHECK then", "if CHECK and optimizer.steps > 4 then")
    assert.are.equal(7, #report.kept)
    local factor = rerun.variables(path).net[1].factor
    assert.is_true((factor - before.net[1].factor):abs():max():item() < 0.05) -- a step of 0.01 on the old values
    assert.is_true((factor - 1):abs():max():item() > 0.001)
  end)
end)

describe("marea.rerun of images", function()
  local CONV = [[
local marea = require "marea"
local nn, optim, data = marea.nn, marea.optim, marea.data
marea.seed(3)
local train = data.Dataset{marea.uniform{8, 8, 8, 1}}
local Auto = dofile(HERE .. "/model.lua")
local model = Auto(4)
model:build{8, 8, 1}
local optimizer = optim.SGD{model, lr = 0.1}
for x in train:batches(4) do
  local loss = model(x):mse(x)
  if CHECK then error "checked" end
  optimizer:step(loss)
end
]]
  local MODEL = [[
local marea = require "marea"
local nn = marea.nn
local Auto = nn.class "Auto"
function Auto:init(width)
  self.encoder = nn.Sequential{
    nn.Conv2d{width, kernel = 3, stride = 2, padding = "same", name = "conv1"}, nn.BatchNorm{name = "norm"},
    nn.Conv2d{width, kernel = 3, padding = "same", name = "conv2"},
  }
  self.decoder = nn.Sequential{nn.ConvTranspose2d{1, kernel = 3, stride = 2, padding = "same", name = "up"}}
end
function Auto:forward(x) return self.decoder(self.encoder(x)) end
return Auto
]]

  before_each(function() _G.HERE = here end)
  after_each(function() _G.HERE = nil end)

  local function edit_model(...)
    folder.write(here .. "/model.lua", MODEL)
    write(CONV)
    run()
    local before = rerun.variables(path)
    folder.write(here .. "/model.lua", edited(MODEL, ...))
    local report, after = look()
    return report, before, after
  end

  it("keeps weights, running statistics included, when a method in a file that it reads is edited", function()
    local report, before, after = edit_model("return self.decoder(self.encoder(x))",
      "MARK = true return self.decoder(self.encoder(x))")
    assert.are.equal(10, #report.kept)
    assert.is_true(_G.MARK)
    _G.MARK = nil
    local old, new = bits_of(before.model), bits_of(after.model)
    assert.are_not.equal(bits(marea.zeros(4)), old["encoder.norm.running_mean"])
    new["encoder.norm.running_mean"], new["encoder.norm.running_var"] = nil, nil -- one more batch has moved them
    for name, value in pairs(new) do assert.are.equal(old[name], value, name) end
  end)

  it("re-initialises a kernel of another size, and keeps its bias", function()
    local report, before, after = edit_model('kernel = 3, padding = "same", name = "conv2"',
      'kernel = 5, padding = "same", name = "conv2"')
    assert.are.equal("model.encoder.conv2.weight", names(report.reinitialised))
    assert.are.equal(9, #report.kept)
    assert_same(before.model.encoder.conv2.bias, after.model.encoder.conv2.bias)
    assert.is_truthy(tostring(report):find(
      "re-initialised  model.encoder.conv2.weight (3, 3, 4, 4) -> (5, 5, 4, 4)", 1, true), tostring(report))
  end)

  it("grows all that a width reaches", function()
    write(CONV)
    folder.write(here .. "/model.lua", MODEL)
    run()
    local before = rerun.variables(path)
    write(edited(CONV, "Auto(4)", "Auto(6)"))
    local report, after = look()
    assert.are.equal("model.decoder.up.bias", names(report.kept))
    assert.are.equal(9, #report.grown)
    assert_same(before.model.encoder.conv2.weight, after.model.encoder.conv2.weight[':, :, 1:4, 1:4'])
    assert_same(before.model.decoder.up.weight, after.model.decoder.up.weight[':, :, :, 1:4'])
  end)

  it("takes a layer of another kind for another one", function()
    local report = edit_model('nn.Conv2d{width, kernel = 3, padding = "same", name = "conv2"}',
      'nn.GroupNorm{groups = 2, name = "conv2"}')
    assert.are.equal("model.encoder.conv2.bias model.encoder.conv2.weight", names(report.reinitialised))
    assert.are.equal(8, #report.kept)
  end)
end)

describe("marea.rerun of optimizers", function()
  it("keeps what they remember when groups or momentum are changed", function()
    local _, before, after = edit("optim.Adam{net, lr = 1e-2}",
      "optim.Adam{{net[1], lr = 1e-3}, {net[2], net[3]}, lr = 1e-2}")
    assert.are.equal(4, after.optimizer.steps)
    assert_same(before.optimizer:state()["3.weight.square"], after.optimizer:state()["2.2.weight.square"])
    local sgd = edited(BASE, "optim.Adam{net, lr = 1e-2}", "optim.SGD{net, lr = 1e-2}")
    _, before, after = edit(sgd, "optim.SGD{net,", "optim.SGD{net, momentum = 0.9,")
    assert.are.equal(before.optimizer.steps, after.optimizer.steps)
  end)

  it("finds the right one of several, and says what became of each", function()
    local two = edited(BASE, "local optimizer = optim.Adam{net, lr = 1e-2}",
      "local head = optim.Adam{net[3], lr = 1e-2}\nlocal optimizer = optim.RMSprop{{net[1], net[2]}, lr = 1e-3}",
      "  optimizer:step(loss)",
      "  optimizer:step(loss)\n  if optimizer.steps % 2 == 0 then head:step(net(x):mse(y)) end")
    rerun.forget()
    write(two)
    run()
    local head = rerun.variables(path).head:state()
    write(edited(two, "RMSprop", "Adagrad"))
    local report = run()
    local texts = {}
    for i, o in ipairs(report.optimizers) do texts[i] = ("%s %s %s %d"):format(o.name, o.before, o.kind, o.steps) end
    table.sort(texts)
    assert.are.same({"head Adam Adam 2", "optimizer RMSprop Adagrad 4"}, texts)
    assert.is_truthy(tostring(report):find("optimizer begins anew: Adagrad, it was RMSprop", 1, true), tostring(report))
    assert.are.equal(4, rerun.variables(path).head.steps)
    assert.is_true(bits(head["weight.mean"]) ~= bits(rerun.variables(path).head:state()["weight.mean"]))
  end)

  it("keeps the state of one that a stopped run did not come to, and the networks with it", function()
    local phases = edited(BASE, "for x, y", [[
local judge = {}
local function second()
  judge.net = nn.Sequential{nn.Linear{6, 1}}
  judge.optimizer = optim.Adam{{judge.net, net}, lr = 1e-2}
  for _ = 1, 2 do judge.optimizer:step((judge.net(x) + net(x)):mean()) end
end
for x, y]]) .. "if STOP then error 'stop' end\nsecond()\n"
    rerun.forget()
    write(phases)
    run()
    local before = rerun.variables(path).judge
    local weight, square = bits(before.net[1].weight), bits(before.optimizer:state()["2.3.weight.square"])
    _G.STOP = true
    for _ = 1, 2 do run() end
    _G.STOP = nil
    write(edited(phases, "  for _ = 1, 2 do",
      "  judge.net(x)\n  judge.optimizer:find_parameters()\n  LOOK(judge)\n  for _ = 1, 2 do"))
    function _G.LOOK(judge)
      assert.are.equal(weight, bits(judge.net[1].weight))
      assert.are.equal(square, bits(judge.optimizer:state()["2.3.weight.square"]))
      assert.are.equal(2, judge.optimizer.steps)
    end
    local _, problem = run()
    assert.is_nil(problem)
    _G.LOOK = nil
  end)

  it("knows parameters that are no module's, and networks that no variable holds", function()
    local plain = [[
local marea = require "marea"
marea.seed(1)
local w = marea.normal{4, 1}:requires_grad_()
local hidden = {net = setmetatable({marea.nn.Linear{4, 1}}, {})}
local x = marea.normal{8, 4}
local optimizer = marea.optim.SGD{{w, hidden.net[1]}, lr = 0.1}
for i = 1, 3 do
  local loss = (x:matmul(w) + hidden.net[1](x)):square():mean()
  if CHECK then error "checked" end
  optimizer:step(loss)
end
]]
    write(plain)
    run()
    local before = rerun.variables(path)
    local report, after = look()
    assert.are.equal("(Linear 1).bias (Linear 1).weight w", names(report.kept))
    assert_same(before.w, after.w)
    assert_same(before.hidden.net[1].weight, after.hidden.net[1].weight)
  end)
end)

describe("marea.rerun of a run that was stopped", function()
  local LONG = [[
local marea = require "marea"
local nn, optim, data = marea.nn, marea.optim, marea.data
marea.seed(5)
local x = marea.normal{64, 6}
local train, test = data.Dataset{x, x:sum(2, true)}, data.Dataset{x, x:sum(2, true)}
local net = nn.Sequential{nn.Linear{16, activation = "relu"}, nn.Dropout{0.3}, nn.Linear{1}}
local optimizer = optim.Adam{net, lr = optim.schedule.cosine(1e-2, 32)}
for epoch in marea.rerun.range(1, 4) do
  for x, y in train:batches(8, {shuffle = true, epoch = epoch}) do
    local loss = net(x):mse(y)
    AT("forward", optimizer.steps)
    optimizer:step(loss)
    AT("step", optimizer.steps)
  end
  for x in test:batches(32) do
    net(x)
    AT("test", optimizer.steps)
  end
end
]]
  local stop_where, stop_when

  before_each(function()
    function _G.AT(where, step)
      if where == stop_where and step == stop_when then
        stop_where = nil
        error "interrupted!"
      end
    end
    write(LONG)
  end)
  after_each(function() _G.AT = nil end)

  local function finish() return bits_of(rerun.variables(path).net), rerun.variables(path).optimizer.steps end

  it("goes on as if it had not been stopped, bit for bit, wherever it was", function()
    run()
    local expected = finish()
    for _, place in ipairs{{"forward", 0}, {"forward", 5}, {"step", 5}, {"forward", 20}, {"forward", 31}} do
      rerun.forget()
      stop_where, stop_when = table.unpack(place)
      local _, problem = run()
      assert.is_truthy(problem:find "interrupted!")
      run()
      local actual, steps = finish()
      assert.are.equal(32, steps, table.concat(place, " "))
      assert.are.same(expected, actual, table.concat(place, " "))
    end
  end)

  it("says where it goes on", function()
    stop_where, stop_when = "forward", 11
    run()
    local report = run()
    assert.are.equal("at 2 of 4, behind 24 of 64 rows of train", report.at)
    assert.is_truthy(tostring(report):find("goes on after 11 steps", 1, true))
  end)

  it("repeats an epoch that was stopped in its test, and does not cut a test short", function()
    stop_where, stop_when = "test", 8
    run()
    local tests = 0
    local at = _G.AT
    function _G.AT(where, step)
      if where == "test" then tests = tests + 1 end
      at(where, step)
    end
    assert.are.equal("", run().at)
    assert.are.equal(8, tests)
  end)

  it("begins its loops again when they came to their end, or goes on when there is more to do", function()
    run()
    local report = run()
    assert.are.equal("", report.at)
    assert.are.equal(64, rerun.variables(path).optimizer.steps)
    write(edited(LONG, "range(1, 4)", "range(1, 6)"))
    assert.are.equal("at 5 of 6", run().at)
    assert.are.equal(80, rerun.variables(path).optimizer.steps)
  end)

  it("goes on in the second of two loops, and in a loop in a loop", function()
    write [[
local marea = require "marea"
local w = marea.nn.parameter(marea.ones(1))
local optimizer = marea.optim.SGD{w, lr = 0.1}
local function step(name) TRACE[#TRACE + 1] = name AT(name) optimizer:step((w * w):sum()) end
for i in marea.rerun.range(1, 2) do step("a" .. i) end
for i in marea.rerun.range(1, 2) do
  for k in marea.rerun.range(1, 3) do step(i .. "." .. k) end
end
]]
    _G.TRACE = {}
    stop_where, stop_when = "2.2", nil
    run()
    assert.are.equal("a1 a2 1.1 1.2 1.3 2.1 2.2", table.concat(_G.TRACE, " "))
    _G.TRACE = {}
    local report = run()
    assert.are.equal("2.2 2.3", table.concat(_G.TRACE, " "))
    assert.are.equal("after 2 of 2, at 2 of 2, at 2 of 3", report.at)
    _G.TRACE = {}
    run()
    assert.are.equal("a1 a2 1.1 1.2 1.3 2.1 2.2 2.3", table.concat(_G.TRACE, " "))
    _G.TRACE = nil
  end)

  it("draws other numbers when the seed is another one, and begins the epoch anew", function()
    stop_where, stop_when = "forward", 11
    run()
    write(edited(LONG, "seed(5)", "seed(6)"))
    local report = run()
    assert.are.equal("begins anew: the seed is 6, it was 5", report.random)
    assert.are.equal("", report.at)
    assert.are.equal(11 + 32, rerun.variables(path).optimizer.steps)
  end)

  it("begins the pass anew when the data has other rows", function()
    stop_where, stop_when = "forward", 11
    run()
    write(edited(LONG, "normal{64,", "normal{72,"))
    assert.are.equal("at 2 of 4", run().at)
  end)
end)

describe("marea.rerun and errors", function()
  it("loses nothing by a syntax error, by an early error or by a late one", function()
    write(BASE)
    run()
    local before = bits_of(rerun.variables(path).net)
    write(BASE .. "local = 3\n")
    local report, message = run()
    assert.is_nil(report)
    assert.is_truthy(message:find "train.lua:%d+: .*near '='", message)
    write("error 'at once'\n" .. BASE)
    report, message = run()
    assert.is_truthy(message:find("train.lua:1: at once", 1, true), message)
    assert.is_false(report.goes_on)
    write(edited(BASE, "  optimizer:step", "  local a = nothing.at_all\n  optimizer:step"))
    report, message = run()
    assert.is_truthy(message:find "train.lua:%d+: .*global 'nothing'", message)
    assert.is_truthy(rerun.traceback(path):find "stack traceback:.*train.lua:%d+: in")
    assert.are.equal(6, #report.kept)
    write(BASE)
    local _, after = look()
    assert.are.same(before, bits_of(after.net))
    assert.are.same({nil, here .. "/none.lua: No such file or directory"}, {rerun(here .. "/none.lua")})
  end)

  it("keeps what a run has learned before it fails, and can take it back", function()
    write(BASE)
    run()
    local first = bits_of(rerun.variables(path).net)
    write(BASE .. "error 'in the report'\n")
    run()
    local second = bits_of(rerun.variables(path).net)
    write(BASE)
    local _, after = look()
    assert.are.same(second, bits_of(after.net))
    assert.are.same({nil, NO_STEP .. "; once more takes back the run before"}, {rerun.back(path)})
    _, after = look()
    assert.are.same(second, bits_of(after.net))
    rerun.back(path)
    assert.is_true(rerun.back(path))
    assert.are.same({nil, "there is no earlier state to go back to"}, {rerun.back(path)})
    _, after = look()
    assert.are.same(first, bits_of(after.net))
    assert.are.same({nil, NO_STEP}, {rerun.back(path)})
    assert.are.same({nil, "there is no earlier state to go back to"}, {rerun.back(path)})
  end)

  it("has nothing to go back to when no step was made", function()
    rerun.forget()
    write(BASE)
    look()
    assert.are.same({nil, NO_STEP}, {rerun.back(path)})
  end)

  it("goes back by itself when weights are no numbers any more", function()
    write(BASE)
    run()
    local first = bits_of(rerun.variables(path).net)
    write(edited(BASE, ":mse(y)", ":mse(y) * (0 / 0)", "lr = 1e-2", "lr = 1e-2, allow_not_finite = true"))
    local report = run()
    assert.are.equal("weights are not finite: those before this run stay", report.note)
    assert.matches("^the last run's weights were not finite: there is nothing", select(2, rerun.back(path)))
    write(BASE)
    local _, after = look()
    assert.are.same(first, bits_of(after.net))
  end)

  it("ends the run and not the program by os.exit, and puts everything back", function()
    local exit, read, argument = os.exit, dofile, arg
    write(BASE .. "os.exit(0)\n")
    assert.are.equal("scripts", (run({arguments = {"scripts"}}) or {}).goes_on == false and "scripts")
    write(BASE .. "assert(arg[0] == ... or arg[1] == 'scripts' and ... == 'scripts')\nos.exit(3)\n")
    local report, problem = run()
    assert.are.equal(path .. ": the script called os.exit(3)", problem)
    assert.is_true(report.goes_on)
    assert.is_true(exit == os.exit and read == dofile and arg == argument)
    assert.is_nil(require "marea.internal.events".watcher)
    write "os.exit(true)" -- as a script does that only shows its help
    report, problem = run()
    assert.is_nil(problem)
    assert_lists({}, report)
    write(BASE)
    assert_lists({kept = ALL}, (look()))
  end)

  it("gives each script its own arguments, also to libraries that hold the table of them", function()
    write "HELD = HELD or arg\nSEEN = table.concat(HELD, ' ')"
    for _, words in ipairs{{"a", "b"}, {"c"}, {}} do
      run{arguments = words}
      assert.are.equal(table.concat(words, " "), _G.SEEN)
    end
    _G.HELD, _G.SEEN = nil, nil
  end)

  it("says what is wrong with its arguments", function()
    assert.has_error(function() rerun(7) end)
    assert.is_truthy(select(2, pcall(rerun, path, {argument = {}})):find("did you mean 'arguments'", 1, true))
    assert.is_truthy(select(2, pcall(rerun, path, {report = 1})):find("a function", 1, true))
    assert.is_truthy(select(2, pcall(rerun, path, {arguments = {1}})):find("a string", 1, true))
    assert.is_truthy(select(2, pcall(rerun.range, 1)):find("range: argument 'last'", 1, true))
    assert.are.same({nil, "no run of x is known"}, {rerun.back "x"})
    local box <close> = marea.sandbox{}
    local ok, message = box:run("for i in marea.rerun.range(1, 2) do last = i end\nmarea.rerun 'x.lua'")
    assert.is_nil(ok)
    assert.is_truthy(message:find("sandbox:2: rerun: needs loadfile", 1, true), message)
    assert.are.same({true, 2}, {box:run "return last"})
  end)
end)

describe("marea.rerun and files", function()
  it("does not read data again that is the same and was not changed", function()
    write [[
local marea = require "marea"
local train = assert(marea.data.mnist("sample", "train"))
local net = marea.nn.Linear{784, 10}
local optimizer = marea.optim.SGD{net, lr = 0.1}
for x, y in train:subset(1, 32):batches(16) do optimizer:step(net(x:flatten{from = 2}):cross_entropy(y)) end
SUM = train:field "image":narrow(1, 1, 10):to "f32":sum():item()
if SPOIL then train:field "image":zero_() end
]]
    assert.are.equal(0, run().files)
    local sum = _G.SUM
    _G.SPOIL = true
    assert.are.equal(2, run().files)
    _G.SPOIL = nil
    assert.are.equal(1, run().files) -- the labels
    assert.are.equal(sum, _G.SUM)
    _G.SUM = nil
  end)

  it("reads modules of the script again that were edited", function()
    local search = package.path
    package.path = here .. "/?.lua;" .. package.path
    folder.write(here .. "/own_module.lua", "return 1")
    write "VALUE = require 'own_module'\nif SAVE then SAVE() end"
    run()
    assert.are.equal(1, _G.VALUE)
    run()
    folder.write(here .. "/own_module.lua", "return 22")
    function _G.SAVE() folder.write(here .. "/own_module.lua", "return 333") end -- while the script runs
    run()
    assert.are.equal(22, _G.VALUE)
    _G.SAVE = nil
    run()
    assert.are.equal(333, _G.VALUE)
    package.path, package.loaded.own_module, _G.VALUE = search, nil, nil
  end)

  it("leaves the last word to what the script loads", function()
    local saved = here .. "/net.safetensors"
    write(BASE)
    run()
    local net = rerun.variables(path).net
    marea.save(saved, net:state())
    local expected = bits_of(net)
    run()
    write(edited(BASE, "local optimizer", ("net:load_state(marea.load %q)\nlocal optimizer"):format(saved)))
    local report, after = look()
    assert.are.same(expected, bits_of(after.net))
    assert.are.equal(6, #report.loaded)
  end)

  it("keeps the rows of a table of metrics", function()
    local csv = here .. "/metrics.csv"
    write(([[
local marea = require "marea"
local net = marea.nn.Linear{1, 1}
local optimizer = marea.optim.SGD{net, lr = 0.1}
local log = marea.metrics.open(%q, {"epoch", "steps"})
for epoch in marea.rerun.range(1, 4) do
  optimizer:step(net(marea.ones(1, 1)):sum())
  if epoch == STOP then error "stop" end
  log:write{epoch = epoch, steps = optimizer.steps}
end
]]):format(csv))
    _G.STOP = 3
    run()
    _G.STOP = nil
    run()
    local rows = marea.metrics.read(csv)
    assert.are.same({1, 2, 4, 5}, {rows[1].steps, rows[2].steps, rows[3].steps, rows[4].steps})
  end)
end)

describe("marea.rerun and time and memory", function()
  it("takes less than 100 ms beside the script's own work, for a network of a million weights", function()
    write [[
local marea = require "marea"
local nn = marea.nn
local layers = {}
for i = 1, 40 do layers[i] = nn.Linear{160, 160} end
local net = nn.Sequential(layers)
local optimizer = marea.optim.Adam{net}
local x = marea.ones(1, 160)
optimizer:step(net(x):sum())
]]
    run()
    local own = quickest(function() dofile(path) end)
    local again = quickest(run)
    assert.is_true(again - own < 0.1, ("%.1f ms"):format((again - own) * 1000))
  end)

  it("does not grow over 50 runs", function()
    local function used()
      for _ = 1, 3 do collectgarbage() end
      local m = marea.memory()
      return m.live, m.boxes, collectgarbage "count"
    end
    write(BASE)
    for _ = 1, 3 do run() end
    local live, boxes, heap = used()
    for i = 1, 50 do
      if i % 2 == 0 then write(edited(BASE, "lr = 1e-2", "lr = 1e-3")) else write(BASE) end
      if i % 5 == 0 then write(edited(BASE, "  optimizer:step", "  error 'x'")) end
      run()
    end
    write(BASE)
    run()
    run()
    local live_now, boxes_now, heap_now = used()
    assert.is_true(live_now <= live + 1024, live_now - live)
    assert.is_true(boxes_now <= boxes, boxes_now - boxes)
    assert.is_true(heap_now < heap + 32, heap_now - heap)
  end)
end)

describe("the prompt's commands", function()
  local session, print_before, printed

  before_each(function()
    local env = setmetatable({marea = marea}, {__index = _G})
    session, print_before, printed = require "marea.repl".new(env), print, {}
    function _G.print(...) printed[#printed + 1] = tostring((...)) end
  end)
  after_each(function() _G.print = print_before end)

  local function feed(line)
    local _, text, ok = session:feed(line)
    return text, ok
  end

  it("run, run again, show the variables, go back and forget", function()
    assert.are.equal("rerun: expected a script, as in :rerun train.lua", (feed ":rerun"))
    write(BASE .. "ARGUMENTS = table.concat({...}, '|')\n")
    assert.are.same({nil, true}, {feed(":rerun " .. path .. " --one 'two words' \"three\"")})
    assert.are.equal("--one|two words|three", _G.ARGUMENTS)
    assert.is_truthy(printed[1]:find("nothing to take over", 1, true))
    _G.ARGUMENTS = nil
    feed ":rerun"
    assert.are.equal("--one|two words|three", _G.ARGUMENTS)
    _G.ARGUMENTS = nil
    assert.is_truthy(printed[2]:find "kept +6 tensors")
    assert.are.equal("data, marea, net, nn, optim, optimizer, train, x", (feed ":variables"))
    assert.are.equal("8", (feed "optimizer.steps"))
    assert.are.same({nil, true}, {feed ":back"})
    assert.are.same({"there is no earlier state to go back to", false}, {feed ":back"})
    feed ":rerun"
    feed ":variables"
    assert.are.equal("8", (feed "optimizer.steps"))
    _G.ARGUMENTS = nil
    feed ":forget"
    assert.are.same({"no run is known", false}, {feed ":variables"})
  end)

  it("show errors with the script's lines, and how to go on after Ctrl-C", function()
    write(BASE .. "local = 3\n")
    local text, ok = feed(":rerun " .. path)
    assert.is_false(ok)
    assert.is_truthy(text:find "train.lua:%d+: <name> expected near '='")
    write(BASE .. "local function f() error 'wrong' end\nf()\n")
    text, ok = feed ":rerun"
    assert.is_false(ok)
    assert.is_truthy(text:find "train.lua:%d+: wrong\nstack traceback:\n.*train.lua:%d+: in function 'f'", text)
    write(BASE .. "error 'interrupted!'\n")
    text, ok = feed ":rerun"
    assert.is_true(ok)
    assert.is_truthy(text:find("interrupted; :rerun goes on", 1, true))
    assert.is_truthy(feed(":rerun " .. here .. "/none.lua"):find "No such file")
  end)
end)

describe("marea.rerun.watch", function()
  it("runs again at each save, in the middle of training too, and survives errors until Ctrl-C", function()
    local driver, script = here .. "/driver.lua", here .. "/watched.lua"
    folder.write(driver, [[
local marea = require "marea"
local core = require "marea.core"
local path = ...
local net = "local marea = require 'marea'\nlocal net = marea.nn.Linear{1, 1}\n" ..
  "local optimizer = marea.optim.SGD{net, lr = 0}\nlocal x = marea.ones(1, 1)\n"
local long = net .. "for i = 1, 1e9 do optimizer:step(net(x):sum()) AT(i) end\n"
local short = net .. "optimizer:step(net(x):sum())\nprint(optimizer.steps > 1000)\n"
local function save(text)
  local file = io.open(path, "w")
  file:write(text)
  file:close()
end
-- A syntax error does not stop the training; what comes after it does.
function AT(i)
  if i == 1000 then save "for\n" end
  if told and long then save(short) long = nil end
end
local saves, sleep = {"print 'second'\n", "error 'wrong'\n", "error 'interrupted!'\n"}, core.sleep
function core.sleep()
  save(table.remove(saves, 1))
  sleep(0.01)
end
save(long)
print(pcall(marea.rerun.watch, path, {
  message = function(text) print("message " .. text) told = true end,
  report = function(report) print("report " .. #report.kept) end,
}))
]])
    local text, code = folder.lua(driver .. " " .. script)
    assert.are.equal(0, code, text)
    local lines = {"report 0", "message .-watched.lua:2: .-near <eof>", "report 2", "true", "second", "report 0",
      "report 0", "message .-watched.lua:1: wrong", "stack traceback:.-", "report 0",
      "false\t.-watched.lua:1: interrupted!"}
    local at = 1
    for _, line in ipairs(lines) do
      local from, to = text:find(line, at)
      assert.is_truthy(from, line .. " in\n" .. text)
      at = to
    end
  end)
end)
