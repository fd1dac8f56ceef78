-- SPDX-License-Identifier: MIT
-- A loss that is not finite: it raises, changes nothing, and names the operator, line and layer where it began.
local marea = require "marea"
local core = require "marea.core"
local message_of = require "spec.support.message_of"
local nn, optim = marea.nn, marea.optim

local Decoder = nn.class "Decoder"

function Decoder:init()
  self.hidden = nn.Linear{3, 8, activation = "relu"}
  self.out = nn.Linear{8, 4, bias = false}
end

function Decoder:forward(x) return self.out(self.hidden(x)) end

local Model = nn.class "Model"

function Model:init() self.dec = Decoder() end

function Model:forward(x) return self.dec(x):log() end

--- The line of the caller.
local function here() return debug.getinfo(2, "l").currentline end

local function leaf(values) return marea.tensor(values, {requires_grad = true}) end

describe("a step with a loss that is NaN", function()
  it("raises, changes nothing and names operator, line and layer", function()
    marea.seed(3)
    local model = Model()
    local optimizer, x = optim.Adam{model}, marea.uniform{5, 3}
    optimizer:step(model.dec(x):square():mean())
    local state = {}
    for name, t in pairs(model:state()) do state[name] = t:detach():totable() end
    marea.no_grad(function() model.dec.out.weight:abs_():neg_() end)
    local before = model.dec.out.weight:detach():totable()
    local text = message_of(function() optimizer:step((model(x) + 1):mean()) end)
    assert.matches("backward: the loss is nan, so no gradient was computed\n  it began in log %(spec/blame_spec.lua:"
      .. "21, after layer 'dec%.out'%), which made 20 nan of finite numbers\n  x, f32 %(5, 4%), lies between %-", text)
    assert.matches("; 20 of 20 values are <= 0$", text)
    assert.are.same(before, model.dec.out.weight:detach():totable())
    assert.are.same(state["dec.hidden.weight"], model.dec.hidden.weight:detach():totable())
    assert.is_nil(model.dec.out.weight.grad)
    assert.are.equal(1, optimizer.steps)
    optimizer:step(model.dec(x):square():mean())
    assert.are.equal(2, optimizer.steps)
  end)

  it("does so in the form with a function", function()
    local model = Model()
    local optimizer = optim.SGD{model}
    assert.matches("spec/blame_spec.lua:" .. here() + 1 .. ": backward: the loss is nan", message_of(function()
      optimizer:step(function() return (model.dec(marea.ones(2, 3)) * 0):log():sum() * 0 end) end))
  end)

  it("may be allowed", function()
    local p = leaf{1, 2}
    optim.SGD{{p}, lr = 1, allow_not_finite = true}:step((p * (0 / 0)):sum())
    assert.is_true(p[1] ~= p[1])
    local q = leaf{1, 2}
    local loss = (q / 0):sum()
    loss:backward{allow_not_finite = true}
    assert.are.equal(math.huge, q.grad[1])
    assert.matches("SGD: argument 'allow_not_finite': expected true or false, got 1",
      message_of(function() optim.SGD{{p}, allow_not_finite = 1} end))
  end)
end)

describe("blame", function()
  it("goes to data that came in", function()
    local model, x = Decoder(), marea.ones(2, 3)
    local made = here() - 1
    x[{1, 2}] = 0 / 0
    assert.matches("it came in as argument 'x' of linear %(spec/blame_spec.lua:15, layer 'hidden'%)\n  f32 %(2, 3%), "
      .. "made at spec/blame_spec.lua:" .. made .. ", has 1 nan among 6 values$",
      message_of(function() model(x):sum():backward() end))
  end)

  it("goes to a parameter that was not finite before", function()
    local model = Model()
    marea.no_grad(function() model.dec.out.weight[1] = 1 / 0 end)
    local text = message_of(function() model.dec(marea.ones(2, 3)):sum():backward() end)
    assert.matches("\n  it came in as parameter 'dec%.out%.weight', which has 4 infinite among 32 values\n", text)
    assert.matches("\n  hint: the gradients of an earlier step", text)
  end)

  it("goes to a number of the script", function()
    local x = leaf{1, 2}
    assert.matches("it came in as argument 'b' of add %(.-%), the number inf$",
      message_of(function() (x + math.huge - 1):sum():backward() end))
    assert.matches("it began in div %(.-%), which made 2 infinite of finite numbers\n  a, f32 %(2%), lies between 1 "
      .. "and 2; b, f32 %(%), is 0$", message_of(function() (x / 0):mean():backward() end))
  end)

  it("goes to what was first on the way, through operators whose results are not saved", function()
    local x = leaf{2, 500}
    local y = ((x * 1 + 1):reshape(2, 1):transpose(1, 2) - 1):exp()
    local text = message_of(function() ((y - y) * 3 + 1):flatten():sum():backward() end)
    assert.matches("it began in exp %(", text)
    assert.matches("1 infinite of finite numbers\n  x, f32 %(1, 2%), lies between 2 and 500; 1 of 2 values are so "
      .. "large that exp overflows$", text)
  end)

  it("draws the same random numbers once more", function()
    marea.seed(8)
    local x = leaf(marea.ones(64))
    local kept = x:dropout(0.5)
    local loss = ((kept - 1):sqrt() + 1):sum()
    assert.matches("sqrt .-, which made (%d+) nan of finite numbers\n  x, f32 %(64%), lies between %-1 and 1; %1 of 64",
      message_of(function() loss:backward() end))
  end)

  it("passes over infinities that do no harm", function()
    local x, mask = leaf{{1, 2}, {3, 4}}, marea.tensor({{1, 0}, {1, 1}}, {dtype = "u8"})
    local p = marea.where(mask, x, -math.huge):softmax()
    assert.is_nil(marea.blame(p:sum()))
    assert.matches("it began in sqrt ", message_of(function() (p - 2):sqrt():sum():backward() end))
  end)

  it("says what is not known any more", function()
    local x = leaf{1, 2}
    local c = marea.tensor{-3, 1}
    assert.matches("it began in sqrt %(.-%), which made 1 nan\n  'x' is not known any more$",
      message_of(function() (x + c):sqrt():sum():backward() end))
    local y = marea.ones(2)
    local z = (x * y):log():sum()
    marea.no_grad(function() x:fill_(-1) end)
    assert.is_nil(marea.blame(z))
    local w = ((x * y):log() + y):sum()
    marea.no_grad(function() y:fill_(2) end)
    assert.matches("it began in log %(", tostring(marea.blame(w)))
  end)

  it("finds one of many inputs", function()
    local list = {}
    for i = 1, 20 do list[i] = leaf{i == 17 and -1 or i} * 1 end
    for i = 1, 20 do list[i] = list[i]:log() end
    assert.matches("it began in log .-x, f32 %(1%), is %-1$",
      message_of(function() marea.concat(list):sum():backward() end))
  end)

  it("walks long graphs without recursion and leaves them as they were", function()
    local x = leaf{-1}
    local y = x:sqrt()
    for _ = 1, 100000 do y = y + 1 end
    local length = core.tape_length()
    assert.matches("it began in sqrt ", tostring(marea.blame(y)))
    assert.are.equal(length, core.tape_length())
    y:backward{allow_not_finite = true}
    assert.are.equal(1, #x.grad)
  end)

  it("returns its findings", function()
    local x = leaf{1, -1}
    local line = here() + 1
    local found = marea.blame(x:log())
    assert.are.same({"log", "spec/blame_spec.lua:" .. line}, {found.op, found.place})
    assert.is_nil(found.given)
    assert.is_nil(marea.blame(x))
    assert.is_nil(marea.blame(marea.tensor({1, 2}, {dtype = "i64"})))
    assert.matches("it is a tensor of the script\n  f32 %(1%), made at .-, has 1 nan among 1 values",
      tostring(marea.blame(marea.tensor{0 / 0})))
  end)

  it("keeps its memory and does without when there is none", function()
    local model, x = Model(), marea.ones(2, 3)
    marea.no_grad(function() model.dec.out.weight:fill_(-1) end)
    local loss = (model(x) + 1):mean()
    collectgarbage()
    collectgarbage()
    local before, complete = marea.memory().live, false
    for k = 1, 400 do
      core.memory_fail(k, false)
      local text = message_of(function() loss:backward() end)
      core.memory_fail(0, false)
      assert.matches("backward: ", text)
      complete = complete or text:find "it began in log" ~= nil
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(complete)
    assert.are.equal(before, marea.memory().live)
  end)
end)

it("a seed says that a result is no loss", function()
  local x = leaf{0, 1}
  x:log():backward(marea.ones(2))
  assert.are.same({math.huge, 1}, x.grad:totable())
end)
