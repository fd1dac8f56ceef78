-- SPDX-License-Identifier: MIT
-- Plans: they foretell what a run then takes, compute nothing, and leave nothing behind.
local core = require "marea.core"
local marea = require "marea"
local message_of = require "spec.support.message_of"
local quickest = require "spec.support.quickest"
local sample = require "spec.support.sample"
local nn, optim = marea.nn, marea.optim

local gan = dofile "scripts/gan_model.lua"
local VAE = dofile "scripts/vae_model.lua"
local Classifier = dofile "scripts/classifier_model.lua"

local function conv(channels, dilation)
  return nn.Conv2d{channels, kernel = 3, padding = "same", dilation = dilation, activation = "relu"}
end

-- The network of scripts/count.lua.
local UNet = nn.class "UNet"

function UNet:init(width)
  self.fine = nn.Sequential{conv(width), conv(width)}
  self.middle = nn.Sequential{nn.MaxPool2d{2}, conv(2 * width)}
  self.coarse = nn.Sequential{nn.MaxPool2d{2}, conv(4 * width), conv(4 * width, 2)}
  self.up1 = nn.ConvTranspose2d{2 * width, kernel = 2, stride = 2}
  self.merge1 = conv(2 * width)
  self.up2 = nn.ConvTranspose2d{width, kernel = 2, stride = 2}
  self.merge2 = conv(width)
  self.head = nn.Conv2d{1, kernel = 1}
end

function UNet:forward(x)
  local fine = self.fine(x)
  local middle = self.middle(fine)
  local up = self.merge1(marea.concat({middle, self.up1(self.coarse(middle))}, -1))
  return self.head(self.merge2(marea.concat({fine, self.up2(up)}, -1)))
end

--- A layer whose first result counts.
local First = nn.class "First"

function First:init(layer) self.layer = layer end

function First:forward(x) return (self.layer(x)) end

local function recurrent(kind, options) return function() return First(nn[kind](options)) end end

local function transformer()
  local layers = {}
  for i = 1, 2 do layers[i] = nn.TransformerEncoderLayer{64, 4, dim_feedforward = 256, dropout = 0.1} end
  return nn.Sequential(layers)
end

local function convolutions()
  return nn.Sequential{nn.Conv1d{32, 64, kernel = 5}, nn.Conv1d{64, 16, kernel = 3}}
end

local function vae() return VAE{model = "conv", latent = 2, posterior = "normal"} end

local function mlp()
  return nn.Sequential{nn.Linear{512, activation = "relu"}, nn.Linear{256, activation = "relu"}, nn.Linear{10}}
end

--- What marea.plan plans, for real: the peak of the second step.
local function measured_peak(net, shape)
  local optimizer = optim.Adam{net}
  local x = marea.zeros(shape)
  local function step() optimizer:step(net(x):square():mean()) end
  collectgarbage()
  marea.memory_trim() -- what other tests have left in the pool has other sizes
  marea.scope(step)
  marea.memory_reset_peak()
  marea.scope(step)
  local peak = marea.memory().peak
  x:release()
  return peak
end

local function bits(t) return table.concat(t:detach():reshape(t:numel()):totable(), " ") end

describe("a plan in a coroutine that ends by an error", function()
  it("leaves nothing behind: layers have no sizes, and what is made later is not kept", function()
    local net = marea.nn.Linear{2}
    local co = coroutine.create(function()
      marea.plan(function()
        net(marea.zeros{1, 3})
        error "on purpose"
      end)
    end)
    assert.is_false(coroutine.resume(co))
    assert.are.same({4, 2}, table.move(net(marea.zeros{4, 5}).shape, 1, 2, 1, {})) -- not the plan's 3 inputs
    collectgarbage()
    collectgarbage()
    local before = core.memory().blocks
    for _ = 1, 3 do marea.nn.Linear{2}(marea.zeros{4, 5}) end
    collectgarbage()
    collectgarbage()
    assert.are.equal(before, core.memory().blocks)
  end)
end)

describe("a plan's peak", function()
  local cases = {
    {"a multilayer perceptron", mlp, {784}, {1, 32, 1024}},
    {"the VAE's encoder", function() return vae().encoder end, {28, 28, 1}, {1, 32}},
    {"the VAE's decoder", function() return vae().decoder end, {2}, {1, 32}},
    {"the classifier", Classifier, {28, 28, 1}, {1, 32}},
    {"the GAN's generator", function() return gan.generator(64) end, {64}, {2, 32}},
    {"the GAN's discriminator", function() return gan.discriminator{} end, {28, 28, 1}, {1, 32}},
    {"a dense layer whose results are the most of it", function() return nn.Linear{96, 128} end, {64, 96}, {32}},
    {"an LSTM", recurrent("LSTM", {96, 128}), {64, 96}, {1, 32}},
    {"a GRU of two layers in both directions", recurrent("GRU", {96, 64, layers = 2, bidirectional = true}), {64, 96},
      {1, 32}},
    {"a plain recurrent layer", recurrent("RNN", {96, 128}), {64, 96}, {32}},
    {"two transformer layers", transformer, {64, 64}, {1, 32}},
    {"1-D convolutions", convolutions, {256, 32}, {1, 32}},
    {"a U-Net", function() return UNet(16) end, {64, 64, 1}, {1, 8}},
  }
  for _, case in ipairs(cases) do
    local name, make, shape, batches = table.unpack(case)
    it("is that of " .. name .. " to within a tenth", function()
      for _, n in ipairs(batches) do
        local net, batch = make(), {n, table.unpack(shape)}
        local plan = marea.plan(net, batch)
        local peak = measured_peak(net, batch)
        local off = (plan.peak - plan.alive) / (peak - plan.alive) - 1
        assert.is_true(math.abs(off) <= 0.1, ("batch %d: planned %d, measured %d"):format(n, plan.peak, peak))
      end
    end)
  end

  it("grows when a script holds on to results", function()
    local x = marea.ones(1000, 100)
    local function run(keep)
      local list = {}
      for i = 1, 10 do
        local y = x:exp()
        if keep then list[i] = y else y:release() end
      end
      return list
    end
    local held, released = marea.plan(function() run(true) end), marea.plan(function() run(false) end)
    assert.is_true(held.peak - held.alive > 10 * 400000)
    assert.is_true(released.peak - released.alive < 2 * 400000)
  end)

  it("is there in milliseconds for what would take 500 GB", function()
    local net = nn.Sequential{nn.Linear{200000, activation = "relu"}, nn.Linear{100000}}
    marea.plan(net, {8, 1000})
    local plan
    collectgarbage "stop" -- a plan begins with a collection, here of all that other specs keep
    local took = quickest(function() plan = marea.plan(net, {1024, 150000}) end)
    collectgarbage "restart"
    local sanitized = (os.getenv "MAREA_BUILD" or ""):find "asan" -- some ten times slower
    assert.is_true(took < (sanitized and 0.5 or 0.05), took)
    assert.is_true(plan.peak > 500e9)
    assert.are.equal(150000 * 200000 + 200000 + 200000 * 100000 + 100000, plan.params)
  end)

  it("does not count against the memory limit", function()
    marea.memory_limit(marea.memory().live + 100e6 // 1)
    local plan = marea.plan(mlp(), {100000, 784})
    marea.memory_limit(nil)
    assert.is_true(plan.peak > 1e9)
  end)
end)

it("weight gradients of 2^31 elements can be planned", function()
  local ops = require "marea.core".ops
  local function full(...) return ops.full {shape = {...}, value = 0, dtype = "f32"} end
  local plan = marea.plan(function()
    return ops.conv2d_grad_weight(full(1, 1, 1, 65536), full(1, 1, 1, 32768), {kernel = 1})
  end)
  assert.is_true(plan.peak > 8e9)
end)

describe("a plan's figures", function()
  it("are the shapes, parameters and FLOPs of a real step", function()
    local net = mlp()
    local plan = marea.plan(net, {32, 784})
    net:build{784}
    local optimizer, x = optim.Adam{net}, marea.zeros(32, 784)
    optimizer:step(net(x):square():mean())
    local forward, backward = 0, 0
    for _, row in ipairs(marea.profile(function() optimizer:step(net(x):square():mean()) end).rows) do
      if row.op == "adam_step" then assert.are.equal(plan.update, row.flop)
      elseif row.direction == "forward" then forward = forward + row.flop
      else backward = backward + row.flop end
    end
    assert.are.equal(forward, plan.forward)
    assert.are.equal(backward, plan.backward)
    assert.are.equal(net:count(), plan.params)
    assert.are.same({"f32 (32, 10)"}, plan.results)
    assert.are.equal(2 * 32 * (784 * 512 + 512 * 256 + 256 * 10), plan.inference.flops)
    assert.are.equal("1 (Linear)", plan.rows[1].name)
    assert.are.equal("f32 (32, 512)", plan.rows[1].shape)
    assert.are.equal(2 * 32 * 784 * 512, plan.rows[1].forward)
    assert.are.equal(784 * 512 + 512, plan.rows[1].params)
  end)

  it("come for any function, with inputs by their shapes", function()
    local plan, got = marea.plan(function(x, labels)
      local loss = x:requires_grad_():cross_entropy(labels)
      loss:backward()
      return loss, x.grad
    end, {64, 10}, {64, dtype = "i64"})
    assert.is_nil(got)
    assert.are.same({"f32 ()", "f32 (64, 10)"}, plan.results)
    assert.is_true(plan.backward > 0)
    assert.are.equal(0, #plan.rows)
    assert.matches("^Result: f32 %(%), f32 %(64, 10%)\nRun: ", tostring(plan))
  end)

  it("read well", function()
    local text = tostring(marea.plan(nn.Sequential{nn.Linear{100, name = "hidden"}, nn.Linear{1}}, {50, 20}))
    assert.matches("\nhidden %(Linear%) +f32 %(50, 100%) +2,100 +200 kFLOP", text)
    assert.matches("\nParams: 2,201\n", text)
    assert.matches("\nInference: 210 kFLOP, peak ", text)
    assert.matches("\nTraining step, Adam: ", text)
  end)

  it("take the optimizer and the loss that are given", function()
    local net = nn.Linear{10}
    local sgd = marea.plan(net, {4, 1000}, {optimizer = optim.SGD, loss = function(y) return y:sum() end})
    local adam = marea.plan(net, {4, 1000})
    assert.are.equal("SGD", sgd.optimizer)
    assert.is_true(adam.peak - sgd.peak > 1.5 * 40000) -- two tensors beside each weight
  end)

  it("are those of inference alone when nothing is trained", function()
    local plan = marea.plan(nn.Flatten{}, {4, 5, 6})
    assert.are.same({"f32 (4, 30)"}, plan.results)
    assert.is_nil(plan.optimizer)
    assert.are.equal(plan.inference.peak, plan.peak)
  end)
end)

describe("a plan leaves behind", function()
  it("no memory, graph or random numbers", function()
    local net = gan.generator(8)
    collectgarbage()
    collectgarbage()
    local peak = marea.memory().peak
    local before, tape, seed, counter = marea.memory().live, core.tape_length(), marea.random_state()
    marea.plan(net, {16, 8})
    marea.plan(function() marea.ones(1000, 1000):requires_grad_():exp():sum():backward() end)
    collectgarbage()
    collectgarbage()
    assert.are.equal(before, marea.memory().live)
    assert.are.equal(tape, core.tape_length())
    assert.are.same({seed, counter}, {marea.random_state()})
    assert.is_true(marea.memory().peak < peak + 10000)
  end)

  it("layers without sizes, and their modes", function()
    local net = nn.Sequential{nn.Linear{8}, nn.BatchNorm{}}
    net:evaluate()
    marea.plan(net, {4, 3})
    assert.are.equal(0, #net:parameters())
    assert.is_false(net[2].training)
    assert.are.equal("Linear(? -> 8)", tostring(net[1]))
    assert.are.same({4, 8}, net(marea.ones(4, 3)).shape)
  end)

  it("weights, statistics, gradients and what optimizers remember", function()
    local net = nn.Sequential{nn.Linear{3, 8}, nn.BatchNorm{8}, nn.Linear{8, 1}}
    local optimizer, x = optim.Adam{net, clip_norm = 1}, marea.uniform{4, 3}
    optimizer:step(net(x):square():mean())
    net(x):square():mean():backward()
    local state, gradients = {}, {}
    for name, t in pairs(net:state()) do state[name] = bits(t) end
    for name, t in pairs(optimizer:state()) do state[name] = bits(t) end
    for name, t in net:named_parameters() do gradients[name] = bits(t.grad) end
    marea.plan(net, {64, 3})
    marea.plan(function()
      for _ = 1, 3 do optimizer:step(net(x):square():mean()) end
      x:fill_(7)
      x[1] = 8
    end)
    for name, t in pairs(net:state()) do assert.are.equal(state[name], bits(t)) end
    for name, t in pairs(optimizer:state()) do assert.are.equal(state[name], bits(t)) end
    for name, t in net:named_parameters() do assert.are.equal(gradients[name], bits(t.grad)) end
    assert.is_true(x:max():item() < 1)
  end)

  it("an optimizer that has not made a step", function()
    local net = nn.Linear{3, 1}
    local optimizer, x = optim.Adam{net}, marea.ones(4, 3)
    marea.plan(function() optimizer:step(net(x):square():mean()) end)
    assert.are.equal(0, optimizer.steps)
    optimizer:step(net(x):square():mean())
    assert.are.equal(1, optimizer.steps)
  end)

  it("graphs of before", function()
    local w = marea.ones(3):requires_grad_()
    local loss = (w * w):sum()
    marea.plan(function() loss:backward() end)
    assert.is_nil(w.grad)
    loss:backward()
    assert.are.same({2, 2, 2}, w.grad:totable())
  end)

  it("nothing of itself after an error", function()
    assert.matches("no such thing", message_of(function() marea.plan(function() error "no such thing" end) end))
    assert.is_false(core.planning())
    assert.are.equal(3, marea.ones(3):sum():item())
    assert.are.equal("table", type(marea.profile(function() end)))
  end)
end)

describe("in a plan", function()
  it("numbers are nan, and whole tables and files are refused", function()
    local x = marea.ones(2, 3)
    local numbers, text
    marea.plan(function()
      local y = x + 1
      numbers, text = {y:sum():item(), y[{1, 2}]}, tostring(y)
      assert.matches("totable: tensor f32 %(2, 3%) is from a plan: it has a shape and no values",
        message_of(function() y:totable() end))
      assert.matches("save_npy: f32 %(2, 3%) is from a plan", message_of(function() marea.save_npy(y, "never.npy") end))
      assert.are.same({{1, 1, 1}, {1, 1, 1}}, x:totable())
    end)
    assert.is_true(numbers[1] ~= numbers[1] and numbers[2] ~= numbers[2])
    assert.are.equal("tensor f32 (2, 3), planned: no values", text)
  end)

  it("wrong shapes are errors as ever", function()
    assert.matches("matmul: .* inner sizes 3 and 4 differ", message_of(function()
      marea.plan(function(a, b) return a:matmul(b) end, {2, 3}, {4, 5})
    end))
  end)

  it("another one cannot begin", function()
    assert.matches("plan: one is running already", message_of(function()
      marea.plan(function() marea.plan(function() end) end)
    end))
  end)

  local MOST = {flatnonzero = true, masked_select = true, unique = true} -- sizes that depend on values are the largest

  it("every operator gives results of the shapes that it really gives, and gradients", function()
    local cases = {}
    for _, name in ipairs(core.op_names()) do
      for seed = 1, 12 do
        core.seed(seed)
        local info = core.op_info(name)
        local inputs, attrs = sample.draw(info, sample.generator(seed, {}))
        cases[#cases + 1] = {info = info, inputs = inputs, attrs = attrs}
      end
    end
    local function run(case)
      local copy, shapes, total = {}, {}, nil
      for i, t in pairs(case.inputs) do
        copy[i] = t
        if core.is_tensor(t) and t.dtype == "f64" and case.info.differentiable then
          copy[i] = t:detach():requires_grad_()
        end
      end
      for i, y in ipairs(sample.call(case.info, copy, case.attrs)) do
        shapes[i] = y.dtype .. " " .. table.concat(y.shape, ",")
        if y.requires_grad then total = total and total + y:sum() or y:sum() end
      end
      if total then total:backward{create_graph = not case.info.once} end
      for _, i in ipairs(sample.places(case.info, copy)) do copy[i]:clear_grad() end -- its graph holds its leaf
      return shapes
    end
    core.plan(function()
      for _, case in ipairs(cases) do case.shapes = core.scope(run, case) end
    end)
    for _, case in ipairs(cases) do
      if not case.info.mutates and not MOST[case.info.name] then assert.are.same(core.scope(run, case), case.shapes,
        case.info.name) end
    end
  end)
end)

it("a tensor that outlives its plan is refused", function()
  local survivor
  marea.plan(function() survivor = (marea.ones(2) + 1):keep() end)
  assert.matches("add: argument 'a', f32 %(2%), is from a plan that has ended: it has no values",
    message_of(function() return survivor + 1 end))
  survivor:release()
end)

it("a plan says what it wants", function()
  assert.matches("plan: argument 'f': expected a module and the shape of a batch, or a function, got 3",
    message_of(function() marea.plan(3) end))
  assert.matches("plan: expected the shape of a batch", message_of(function() marea.plan(nn.Linear{3}) end))
  assert.matches("plan: unknown argument 'optimiser'; did you mean 'optimizer'%?",
    message_of(function() marea.plan(nn.Linear{3}, {1, 2}, {optimiser = optim.SGD}) end))
end)
