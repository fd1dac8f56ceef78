-- SPDX-License-Identifier: MIT
-- What is said to a name of another framework: each answer names something that there is, and each that is code runs
-- here, on values at the edges. An answer that is neither fails.
local core = require "marea.core"
local marea = require "marea"
local advice = require "spec.support.advice"
local allclose = require "spec.support.allclose"
local check = require "marea.internal.check"
local docs = require "marea.repl.docs"
local folder = require "spec.support.folder"
local module = require "marea.nn.module"
local synonyms = require "marea.explain.synonyms"
local nn, optim, data, dist, run = marea.nn, marea.optim, marea.data, marea.dist, advice.run

local INF, NAN, MIN, MAX = math.huge, 0 / 0, math.mininteger, math.maxinteger

teardown(folder.remove)

local function i64(list) return marea.tensor(list, {dtype = "i64"}) end
local function u8(list) return marea.tensor(list, {dtype = "u8"}) end
local function f64(list) return marea.tensor(list, {dtype = "f64"}) end
local function equal(actual, expected) allclose.assert(actual, expected, {exact = true}) end
local function linear() return nn.Linear{2, 2, dtype = "f64"} end

-- ---- where names are ----

local function set_of(...)
  local set = {}
  for _, list in ipairs{...} do
    for _, name in ipairs(list) do set[name] = true end
  end
  return set
end

local TENSOR = set_of(check.names(core.methods), core.fields)

--- Arguments by name of operators, layers and optimizers.
local function arguments()
  local set = {}
  for _, op in ipairs(core.op_names()) do
    for _, attr in ipairs(core.op_info(op).attrs) do set[attr.name] = true end
  end
  for _, place in ipairs{marea.nn, marea.optim, marea.data} do
    for _, name in ipairs(check.names(place)) do
      local class = place[name]
      for _, word in ipairs(type(class) == "table" and docs.keywords(class) or {}) do set[word] = true end
    end
  end
  return set
end

local PLACES = {anywhere = set_of(check.names(marea), check.names(core.methods), core.fields), tensor = TENSOR,
  argument = arguments(), nn = set_of(check.names(nn)), module = set_of(check.names(module.class_methods())),
  optim = set_of(check.names(optim)), ["optim.schedule"] = set_of(check.names(optim.schedule)),
  data = set_of(check.names(data)), dist = set_of(check.names(dist)), image = set_of(check.names(marea.image)),
  variable = setmetatable({["true"] = true, ["false"] = true, ["nil"] = true, marea = true},
    {__index = function(_, name) return _G[name] ~= nil end})}

local entries = {}
synonyms.each(function(owner, name, here)
  entries[#entries + 1] = {owner = owner or "anywhere", name = name, here = here}
end)
table.sort(entries, function(a, b)
  if a.owner ~= b.owner then return a.owner < b.owner end
  return a.name < b.name
end)

-- ---- examples ----

--- An expression and what it gives for each env. What a method is called on, and the table of a function, are left out
--- in answers: `before` stands in front of the code.
local function gives(code, cases, before)
  return function(here)
    assert.is_truthy(here:find(code, 1, true), here)
    local whole = (before or "") .. code
    for _, case in ipairs(cases) do
      local result = run(whole, whole, case[1])
      if type(case[2]) == "function" then case[2](result) else equal(result, case[2]) end
    end
  end
end

local function runs(code, before, env)
  return function(here)
    assert.is_truthy(here:find(code, 1, true), here)
    local whole = (before or "") .. code
    run(whole, whole, env and env())
  end
end

local function all(...)
  local list = {...}
  return function(here) for _, example in ipairs(list) do example(here) end end
end

local function dtype_is(dtype) return function(t) assert.are.equal(dtype, t.dtype) end end
local function shape_is(...)
  local expected = {...}
  return function(t) assert.are.same(expected, {t:size()}) end
end

--- An argument by name, which something takes.
local function taken(...)
  local code = {...}
  return function() for _, one in ipairs(code) do run(one, one, {linear = linear()}) end end
end

local PAIR = {a = f64{1, NAN, -INF, 0.0}, b = f64{2, 1, INF, -0.0}}
local BITS = {a = u8{0, 0, 1, 1}, b = u8{0, 1, 0, 1}}
local function net() return {net = linear()} end
local function loss_of() return {loss = linear()(f64{{1, 2}}):sum()} end
local function converts(dtype, values, expected)
  return gives(("to('%s')"):format(dtype), {{{x = values}, expected}, {{x = values}, dtype_is(dtype)}}, "x:")
end

local function loss(example)
  return function(here)
    local name = here:match "marea%.([%w_]+)"
    local result = marea[name](table.unpack(example, 1, #example - 1))
    assert.is_true(math.abs(result:item() - example[#example]) < 1e-12, here)
  end
end
local LOG2 = math.log(2)
local class_loss = loss{f64{{0, 0}, {INF, 0}}:clamp(-800, 800), i64{2, 1}, LOG2 / 2}

local function sequential() return nn.Sequential{nn.ReLU{}, nn.Tanh{}} end

--- A network whose parts are kept in a table of its own: are they found?
local function holds(fields)
  return function()
    local Net = nn.class "Net"
    function Net:init() self.layers = fields end
    function Net:forward(x) return x end -- luacheck: no unused args
    assert.are.equal(4, #Net{}:parameters())
  end
end

local trainings = all(runs("optimizer:step(loss)", nil, function()
  local model = linear()
  return {optimizer = optim.SGD{model, lr = 0.1}, loss = model(f64{{1, 2}}):sum()}
end))

local examples = {
  -- tensors: shapes and copies
  ["reshape(...)"] = function() equal(f64{{1, NAN}, {3, 4}}:reshape(-1), {1, NAN, 3, 4}) end,
  ["reshape(other.shape)"] = gives("reshape(other.shape)", {{{x = i64{MIN, MAX}, other = u8{{1}, {2}}}, {{MIN}, {MAX}}},
    {{x = f64{}, other = marea.zeros(0, 3)}, shape_is(0, 3)}}, "x:"),
  ["expand(other.shape)"] = gives("expand(other.shape)", {{{x = i64{MIN}, other = marea.zeros(2, 1)}, {{MIN}, {MIN}}}},
    "x:"),
  ["#t"] = gives("#t", {{{t = marea.zeros(0, 3)}, 0}, {{t = f64{{1}, {2}}}, 2}}),
  ["numel()"] = gives("numel()", {{{x = marea.zeros(0, 3)}, 0}, {{x = f64(1)}, 1}, {{x = marea.ones(2, 3)}, 6}}, "x:"),
  ["to(dtype)"] = gives("to(dtype)", {{{x = f64{-2.9, INF}, dtype = "i64"}, {-2, MAX}}}, "x:"),
  ["to(other.dtype)"] = gives("to(other.dtype)", {{{x = f64{255}, other = u8{1}}, dtype_is "u8"}}, "x:"),
  ["to('f32')"] = converts("f32", i64{MIN, 3}, {-2.0 ^ 63, 3}),
  ["to('f16')"] = converts("f16", f64{1 + 2 ^ -11, -70000}, {1, -math.huge}),
  ["to('bf16')"] = converts("bf16", f64{1 + 2 ^ -7, -70000}, {1 + 2 ^ -7, -70144}),
  ["to('f64')"] = converts("f64", u8{0, 255}, {0, 255}),
  ["to('i64')"] = converts("i64", f64{NAN, -2.9, 1e300}, {0, -2, MAX}),
  ["to('u8')"] = converts("u8", i64{0, 255}, {0, 255}),
  ["'u8', with 0 and 1"] = function() equal(f64{1, NAN}:gt(0), u8{1, 0}) end,
  ["ne(0), which gives 0 and 1"] = gives("ne(0)", {{{x = f64{-3, NAN, -0.0, INF}}, {1, 1, 0, 1}},
    {{x = u8{255, 0}}, {1, 0}}, {{x = i64{MIN, 0}}, {1, 0}}}, "x:"),
  ["totable()"] = gives("totable()", {{{x = i64{MIN, MAX}}, {MIN, MAX}}, {{x = f64{}}, {}}}, "x:"),
  ["an operator, or totable() and a loop"] = gives("totable()", {{{x = f64{-0.0, NAN}}, {-0.0, NAN}}}, "x:"),
  ["detach()"] = gives("detach()", {{{x = f64{NAN}:requires_grad_()}, {NAN}}}, "x:"),
  ["index_select, or x[...]"] = function()
    equal(f64{1, NAN, 3}:index_select(i64{3, 2}), {3, NAN})
    equal(f64{1, NAN, 3}[i64{3, -2}], {3, NAN})
  end,
  ["transpose(1, 2)"] = gives("transpose(1, 2)", {{{x = i64{{1, MIN}}}, {{1}, {MIN}}}, {{x = marea.zeros(0, 2)},
    shape_is(2, 0)}}, "x:"),
  ["transpose, which gives another view"] = function() equal(i64{{1, 2}}:transpose(1, 2), {{1}, {2}}) end,
  ["unsqueeze, which gives another view"] = function() equal(i64{1}:unsqueeze(1), {{1}}) end,
  ["squeeze, which gives another view"] = function() equal(i64{{1}}:squeeze(1), {1}) end,
  ["unsqueeze, for operators broadcast"] = function()
    equal(i64{1, 2}:unsqueeze(2) + i64{10, 20, 30}, {{11, 21, 31}, {12, 22, 32}})
  end,
  ["matmul after reshape"] = function()
    equal(f64{{{1, 2}}, {{3, 4}}}:reshape(2, 2):matmul(f64{{1}, {1}}), {{3}, {7}})
  end,
  ["matmul, permute and sum"] = function() -- 'ij,kj->k'
    equal(f64{{1, 2}, {3, 4}}:matmul(f64{{1, 0}, {0, 2}}:permute(2, 1)):sum(1), {4, 12})
  end,
  ["flatnonzero(), positions in x:flatten()"] = function()
    for _, x in ipairs{f64{{0, NAN}, {-0.0, -3}}, i64{{MIN, 0}}, u8{}, marea.zeros(2, 2)} do
      local kept = {}
      for _, v in ipairs(x:flatten():totable()) do if v ~= 0 then kept[#kept + 1] = v end end
      equal(x:flatten()[x:flatnonzero()], kept)
    end
  end,
  ["scatter_add, which adds"] = function() assert.is_function(core.ops.scatter_add) end,

  -- tensors: arithmetic
  ["* or mul_"] = function() equal(i64{MAX, 3}:mul_(2), i64{MAX, 3} * 2) end,
  ["/ or div_"] = function() equal(f64{-0.0, 3}:div_(2), {-0.0, 1.5}) end,
  ["+ or add_"] = function() equal(i64{MAX, 3}:add_(1), i64{MAX, 3} + 1) end,
  ["- or sub_"] = function() equal(u8{0, 3}:sub_(1), u8{0, 3} - 1) end,
  ["^"] = gives("^", {{{x = f64{-2, 0, INF}}, {4, 0, INF}}}, "x ^ 2 --"),
  ["*"] = gives("*", {{{x = i64{MAX, 3}}, {-2, 6}}}, "x * 2 --"),
  ["/"] = gives("/", {{{x = f64{-0.0, 3}}, {-0.0, 1.5}}}, "x / 2 --"),
  ["-"] = gives("-", {{{x = i64{MIN, 3}}, {MAX, 2}}}, "x - 1 --"),
  ["a * b, of 0 and 1"] = gives("a * b", {{BITS, {0, 0, 0, 1}}}),
  ["a:maximum(b), of 0 and 1"] = gives("a:maximum(b)", {{BITS, {0, 1, 1, 1}}}),
  ["1 - a, of 0 and 1"] = gives("1 - a", {{BITS, {1, 1, 0, 0}}}),
  ["eq, element by element"] = function() equal(PAIR.a:eq(f64{1, NAN, -INF, -0.0}), {1, 0, 1, 1}) end,
  ["(a - b):abs():le(1e-6):all():item() == 1, of finite numbers, f32 or f64"] =
    gives("(a - b):abs():le(1e-6):all():item() == 1", {
      {{a = f64{1, 0.0}, b = f64{1 + 1e-7, -0.0}}, function(same) assert.is_true(same) end},
      {{a = f64{1, 2}, b = f64{1, 2.1}}, function(same) assert.is_false(same) end},
      {{a = f64{NAN}, b = f64{NAN}}, function(same) assert.is_false(same) end},
      {{a = f64{}, b = f64{}}, function(same) assert.is_true(same) end}}),
  ["x + a * b"] = gives("x + a * b", {{{x = f64{1, NAN}, a = f64{2, 1}, b = f64{-3, 1}}, {-5, NAN}}}),
  ["x + a / b"] = gives("x + a / b", {{{x = f64{1, 1}, a = f64{2, 1}, b = f64{-4, 0}}, {0.5, INF}}}),
  ["x + a:matmul(b)"] = gives("x + a:matmul(b)", {{{x = f64{{1}}, a = f64{{1, 2}}, b = f64{{3}, {4}}}, {{12}}}}),
  ["x:unsqueeze(2) * y, of two vectors"] = gives("x:unsqueeze(2) * y", {{{x = f64{1, INF}, y = f64{3, NAN}},
    {{3, NAN}, {INF, NAN}}}, {{x = i64{}, y = i64{1, 2}}, shape_is(0, 2)}}),
  ["marea.where(marea.eye(n):ne(0), x, 0), of a vector"] = gives("marea.where(marea.eye(n):ne(0), x, 0)", {
    {{n = 2, x = f64{INF, NAN}}, {{INF, 0}, {0, NAN}}}, {{n = 2, x = i64{MAX, MIN}}, {{MAX, 0}, {0, MIN}}},
    {{n = 1, x = u8{255}}, dtype_is "u8"}}),
  ["marea.where(marea.eye(n):ne(0), x, 0):sum()"] = gives("marea.where(marea.eye(n):ne(0), x, 0):sum()", {
    {{n = 2, x = f64{{1, INF}, {NAN, 4}}}, 5}, {{n = 2, x = i64{{MAX, 5}, {7, -1}}}, MAX - 1}}),
  ["(-x):softmax(dim)"] = gives("(-x):softmax(dim)", {{{x = f64{0, INF}, dim = 1}, {1, 0}}, {{x = f64{{5, 5}},
    dim = -1}, {{0.5, 0.5}}}}),
  ["clamp(-1, 1)"] = gives("clamp(-1, 1)", {{{x = f64{-3, -0.5, NAN, INF}}, {-1, -0.5, NAN, 1}}}, "x:"),
  ["x:maximum(0) + slope * x:minimum(0), where slope is an nn.parameter"] = function(here)
    local slope = nn.parameter(f64{0.5})
    local y = run(here, "x:maximum(0) + slope * x:minimum(0)", {x = f64{-4, 3, INF, -INF}, slope = slope})
    equal(y:detach(), {-2, 3, INF, -INF})
    local finite = run(here, "x:maximum(0) + slope * x:minimum(0)", {x = f64{-4, 3}, slope = slope})
    equal(marea.grad(finite:sum(), slope), {-4})
  end,

  -- making tensors
  ["p:log():expand(n, C):categorical(), n draws by probabilities p (C)"] = function(here)
    local code = "p:log():expand(n, C):categorical()"
    for _, p in ipairs{f64{0, 1, 0}, marea.tensor{0, 0.5, 0.5}, f64{0, 7, 3}} do -- weights of any sum
      local drawn = run(here, code, {p = p, n = 200, C = 3})
      assert.are.same({200}, {drawn:size()})
      local seen = {}
      for _, class in ipairs(drawn:totable()) do seen[class] = true end
      for class = 1, 3 do assert.are.equal(p[class] > 0, seen[class] == true) end
    end
  end,
  ["uniform{3, 4}, sizes in one list"] = gives("uniform{3, 4}", {{{}, shape_is(3, 4)}, {{}, function(t)
    assert.are.equal(1, (t:ge(0) * t:lt(1)):all():item())
  end}}, "marea."),
  ["normal{3, 4}, sizes in one list"] = gives("normal{3, 4}", {{{}, shape_is(3, 4)}}, "marea."),
  ["t:copy_(marea.normal(t.shape))"] = gives("t:copy_(marea.normal(t.shape))", {{{t = f64{{0, 0}}}, shape_is(1, 2)},
    {{t = marea.zeros(0)}, shape_is(0)}}),
  ["t:copy_(marea.uniform(t.shape))"] = gives("t:copy_(marea.uniform(t.shape))", {{{t = f64{{2, 2}}}, function(t)
    assert.are.equal(1, t:lt(1):all():item())
  end}}),
  ["t:copy_(marea.bernoulli(...))"] = function()
    equal(u8{9, 9}:copy_(marea.bernoulli(f64{0, 1})), {0, 1})
    equal(f64{9, 9}:copy_(marea.bernoulli(f64{0, 1})), {0, 1})
  end,
  ['tensor(list, {dtype = "f64"})'] = gives('tensor(list, {dtype = "f64"})', {{{list = {0.1, NAN}}, {0.1, NAN}}},
    "marea."),
  ['tensor(list, {dtype = "i64"})'] = gives('tensor(list, {dtype = "i64"})', {{{list = {MIN, MAX}}, {MIN, MAX}}},
    "marea."),
  ["tensor(list, {requires_grad = true})"] = gives("tensor(list, {requires_grad = true})", {{{list = {1}},
    function(t) assert.is_true(t.requires_grad and t.is_leaf) end}}, "marea."),
  ["10 ^ marea.linspace(...)"] = function() equal(10 ^ marea.linspace(0, 2, 3), {1, 10, 100}) end,
  ['an option: marea.zeros({3}, {dtype = "f64"})'] = gives('marea.zeros({3}, {dtype = "f64"})', {{{}, dtype_is "f64"}}),
  ["math.huge"] = gives("math.huge", {{{}, INF}}),
  ["math.pi"] = gives("math.pi", {{{}, math.acos(-1)}}),
  ["marea itself: marea.relu(x) or x:relu()"] = all(gives("marea.relu(x)", {{{x = f64{-INF, NAN, 2}}, {0, NAN, 2}}}),
    gives("x:relu()", {{{x = f64{-INF, NAN, 2}}, {0, NAN, 2}}})),
  ["the operators marea.mse, marea.cross_entropy, ..."] = all(loss{f64{1, 3}, f64{2, 5}, 2.5}, function()
    class_loss "marea.cross_entropy"
  end),
  ["cross_entropy, of labels: target:argmax(-1)"] = function(here)
    local target = u8{{0, 1}, {1, 0}}
    local labels = run(here, "target:argmax(-1)", {target = target})
    assert.is_true(math.abs(f64{{0, 0}, {800, 0}}:cross_entropy(labels):item() - LOG2 / 2) < 1e-12)
  end,
  ["dist.kl"] = function(here) assert.are.equal(0, run(here, here)(dist.Normal(0, 1), dist.Normal(0, 1))) end,
  ["marea.dist.kl"] = function(here)
    local kl = run(here, here)(dist.Normal(1, 1), dist.Normal(0, 1))
    assert.are.equal(0.5, type(kl) == "number" and kl or kl:item())
  end,

  -- losses as layers
  ["the operator marea.bce"] = loss{f64{0.5, 0.5}, f64{1, 0}, LOG2},
  ["the operator marea.ctc_loss"] = function()
    local y = marea.full({1, 2, 2}, -LOG2) -- of labels "a": aa, a-, -a
    assert.is_true(math.abs(marea.ctc_loss(y, i64{{2}}, i64{2}, i64{1}):item() + math.log(0.75)) < 1e-6)
  end,
  ["the operator marea.bce_with_logits"] = loss{f64{0, 1e30}, f64{1, 1}, LOG2 / 2},
  ["the operator marea.mse"] = loss{f64{1, 3}, f64{2, 5}, 2.5},
  ["the operator marea.l1"] = loss{f64{1, 3}, f64{2, 5}, 1.5},
  ["the operator marea.huber"] = loss{f64{1, 3}, f64{2, 5}, 1},
  ["the operator marea.cross_entropy"] = class_loss,
  ["the operator marea.cross_entropy, which takes logits"] = all(class_loss, function()
    local logits = f64{{1, -2, 0.5}} -- what NLL takes, logarithms of probabilities, are logits as well
    local a, b = logits:cross_entropy(i64{3}):item(), logits:log_softmax(-1):cross_entropy(i64{3}):item()
    assert.is_true(math.abs(a - b) < 1e-12)
  end),

  -- arguments
  kernel = taken "nn.Conv2d{1, 1, kernel = 3}", lr = taken "optim.SGD{linear, lr = 0.1}",
  weight_decay = taken "optim.Adam{linear, weight_decay = 0.1}", p = taken "nn.Dropout{p = 0.5}",
  bias = taken "nn.Linear{2, 2, bias = false}", init = taken "nn.Linear{2, 2, init = 'zeros'}",
  bias_init = taken "nn.Linear{2, 2, bias_init = 'zeros'}",
  clip_norm = taken "optim.SGD{linear, lr = 1, clip_norm = 1}",
  clip_value = taken "optim.SGD{linear, lr = 1, clip_value = 1}", slope = taken "nn.LeakyReLU{slope = 0.1}",
  keepdim = taken "marea.ones(2, 3):sum{dims = 1, keepdim = true}", eps = taken "nn.BatchNorm{3, eps = 1e-3}",
  ["beta1 and beta2"] = taken "optim.Adam{linear, beta1 = 0.8, beta2 = 0.9}",
  ["slope of LeakyReLU, rho of RMSprop"] = taken("nn.LeakyReLU{slope = 0.1}", "optim.RMSprop{linear, rho = 0.9}"),
  ["dim or dims"] = taken("marea.ones(2, 3):softmax{dim = 1}", "marea.ones(2, 3):sum{dims = {1, 2}}"),
  ["'glorot_uniform'"] = taken "nn.Linear{2, 2, init = 'glorot_uniform'}",
  ["'glorot_normal'"] = taken "nn.Linear{2, 2, init = 'glorot_normal'}",
  ["'he_uniform'"] = taken "nn.Linear{2, 2, init = 'he_uniform'}",
  ["'he_normal'"] = taken "nn.Linear{2, 2, init = 'he_normal'}",
  ["'f32'"] = taken "marea.zeros({1}, {dtype = 'f32'})", ["'f64'"] = taken "marea.zeros({1}, {dtype = 'f64'})",
  ["'i64'"] = taken "marea.zeros({1}, {dtype = 'i64'})", ["'u8'"] = taken "marea.zeros({1}, {dtype = 'u8'})",
  ["'mean'"] = taken "marea.mse(marea.ones(2), marea.ones(2), {reduction = 'mean'})",
  ["the first number in the braces"] = function() assert.are.same({3, 2}, {nn.Linear{3, 2}.weight:size()}) end,
  ["the second number in the braces"] = function() assert.are.same({3, 2}, {nn.Linear{3, 2}.weight:size()}) end,
  ["the last number in the braces"] = function() assert.are.same({1, 5}, {nn.Linear{5}(marea.ones(1, 2)):size()}) end,
  ["the first argument, a number"] = function()
    assert.are.equal(2, #data.Dataset{marea.ones(3, 2)}:batches(2)())
  end,
  ["an argument of optimizers: clip_norm = 1"] = taken "optim.SGD{linear, lr = 1, clip_norm = 1}",
  ['an argument of layers: dtype = "f64"'] = taken 'nn.Linear{2, 2, dtype = "f64"}',
  ['an argument of layers: dtype = "f32"'] = taken 'nn.Linear{2, 2, dtype = "f32"}',

  -- layers
  ["function(x) return x end"] = gives("function(x) return x end", {{{}, function(f)
    equal(nn.Sequential{f}(f64{NAN}), {NAN})
  end}}),
  ["a function, as nn.Sequential takes it"] = function()
    equal(nn.Sequential{function(x) return x * 2 end}(f64{INF}), {INF})
  end,
  ["a field that is a list of layers"] = holds{linear(), linear()},
  ["a field that is a table of layers"] = holds{first = linear(), second = linear()},
  ["a class whose forward joins the results with marea.concat"] = function()
    equal(marea.concat({f64{{1}}, f64{{NAN}}}, 2), {{1, NAN}})
  end,
  ["a class whose forward calls its layers one after the other"] = function()
    local Both = nn.class "Both"
    function Both:init() self.layers = {nn.ReLU{}, nn.Tanh{}} end
    function Both:forward(x)
      local results = {}
      for i, layer in ipairs(self.layers) do results[i] = layer(x) end
      return table.unpack(results)
    end
    local a, b = Both{}(f64{-INF})
    equal(marea.concat{a, b}, {0, -1})
  end,
  ["a + b in forward"] = gives("a + b", {{{a = f64{INF}, b = f64{1}}, {INF}}}),
  ["a * b in forward"] = gives("a * b", {{{a = f64{INF}, b = f64{-1}}, {-INF}}}),
  ["marea.concat in forward"] = function() equal(marea.concat({i64{{MIN}}, i64{{MAX}}}, 2), {{MIN, MAX}}) end,
  ["x:unbind(dim) in forward"] = function() equal(f64{{1, NAN}}:unbind(-1)[2], {NAN}) end,
  ["MultiHeadAttention{128, 8, rotary = true}"] = runs("MultiHeadAttention{128, 8, rotary = true}", "nn."),
  ["TransformerEncoderLayer and TransformerDecoderLayer"] = function()
    assert.is_truthy(nn.is_module(nn.TransformerEncoderLayer{4, 2}) and nn.is_module(nn.TransformerDecoderLayer{4, 2}))
  end,

  -- modules
  ["quantize()"] = runs("quantize()", "net:", net), ["evaluate()"] = runs("evaluate()", "net:", net),
  ["train()"] = runs("train()", "net:", net),
  ["a field, true or false; train() and evaluate() switch"] = function()
    local model = linear()
    assert.is_true(model.training)
    model:evaluate()
    assert.is_false(model.training)
    model:train()
    assert.is_true(model.training)
  end,
  ["state()"] = gives("state()", {{net(), function(state) assert.is_true(core.is_tensor(state.weight)) end}}, "net:"),
  ["load_state(state)"] = runs("load_state(state)", "net:", function()
    return {net = linear(), state = linear():state()}
  end),
  ["freeze() and unfreeze()"] = function()
    local model = linear():freeze()
    assert.is_false(model.weight.requires_grad)
    assert.is_true(model:unfreeze().weight.requires_grad)
  end,
  ["count()"] = gives("count()", {{net(), 6}}, "net:"),
  ["parameters()"] = gives("parameters()", {{net(), function(list) assert.are.equal(2, #list) end}}, "net:"),
  ["parameters(), a list of tensors"] = gives("parameters()", {{net(), function(list)
    assert.is_true(core.is_tensor(list[1]) and core.is_tensor(list[2]))
  end}}, "net:"),
  ["parts()"] = gives("parts()", {{{net = sequential()}, function(parts) assert.are.equal(2, #parts) end}}, "net:"),
  ["#net:parts()"] = gives("#net:parts()", {{{net = sequential()}, 2}, {{net = nn.Sequential{}}, 0},
    {{net = nn.Sequential{sequential(), sequential(), nn.ReLU{}}}, 3}}),
  ["net[i]"] = gives("net[i]", {{{net = sequential(), i = 2}, function(part) equal(part(f64{INF}), {1}) end}}),
  ["net(x)"] = gives("net(x)", {{{net = linear(), x = marea.zeros({0, 2}, {dtype = "f64"})}, shape_is(0, 2)}}),
  ["forward, called as net(x)"] = gives("net(x)", {{{net = linear(), x = f64{{1, 2}}}, shape_is(1, 2)}}),
  ["optimizer:step(loss)"] = trainings,
  ["a loop over batches with optimizer:step(loss)"] = trainings,
  ["an optimizer and a loop"] = function() trainings "optimizer:step(loss)" end,
  ["optimizer:zero_grad(), which step(loss) does by itself"] = function(here)
    local model = linear()
    local optimizer = optim.SGD{model, lr = 1}
    model(f64{{1, 2}}):sum():backward()
    run(here, "optimizer:zero_grad()", {optimizer = optimizer})
    local before = marea.tensor(model.bias)
    for step = 1, 2 do
      optimizer:step(model(f64{{1, 2}}):sum())
      equal(model.bias:detach(), before - step) -- no gradient is added to the one before
    end
  end,
  ["loss:backward()"] = runs("loss:backward()", nil, loss_of),
  ["loss:backward(), of the tensor that the loss is"] = runs("loss:backward()", nil, loss_of),
  ["nothing: no layer keeps its results"] = function() assert.are.equal(2, #linear():parameters()) end,
  ["a second one by its class, and load_state(net:state())"] = function(here)
    local first, second = linear(), linear()
    second:load_state(run(here, "net:state()", {net = first}))
    equal(second.weight:detach(), first.weight:detach())
    second.weight:detach():fill_(7)
    assert.are_not.equal(7, first.weight[{1, 1}]:item())
  end,
  ["buffer(name, t)"] = function(here)
    local model = linear()
    run("net:" .. here, "net:buffer(name, t)", {net = model, name = "mean", t = f64{NAN}})
    equal(model:state().mean, {NAN})
  end,
  ["a field: net.w = nn.parameter(t)"] = function(here)
    local model = linear()
    run(here, "net.w = nn.parameter(t)", {net = model, t = f64{INF}})
    assert.are.equal(3, #model:parameters())
  end,
  ["a field: net.name = layer"] = function(here)
    local model = linear()
    run(here, "net.name = layer", {net = model, layer = linear()})
    assert.are.equal(4, #model:parameters())
  end,
  ["a loop over net:parameters()"] = function(here)
    for _, p in ipairs(run(here, "net:parameters()", net())) do p:detach():fill_(0) end
  end,
  ["nn.Sequential{...} with all of its layers"] = function() equal(sequential()(f64{-INF}), {0}) end,
  ["nn.Sequential{...} without it"] = function() equal(nn.Sequential{nn.Tanh{}}(f64{-INF}), {-1}) end,
  ["marea.save(path, net:state())"] = function(here)
    assert(run(here, here, {path = folder.new() .. "/net.safetensors", net = linear()}))
  end,
  ["net:load_state(assert(marea.load(path)))"] = function(here)
    local path, model = folder.new() .. "/net.safetensors", linear()
    assert(marea.save(path, model:state()))
    local other = linear()
    run(here, here, {path = path, net = other})
    equal(other.weight:detach(), model.weight:detach())
  end,

  -- where tensors are
  ["the tensor itself: all tensors are in main memory"] = function() assert.is_nil(TENSOR.cpu or TENSOR.cuda) end,
  ["main memory for all tensors"] = function() assert.is_nil(TENSOR.device) end,
  ["false: all tensors are in main memory"] = function() assert.is_nil(TENSOR.is_cuda) end,
  ["nothing: all tensors are in main memory"] = function() assert.is_nil(PLACES.module.cuda) end,

  -- images
  ["upsample_bilinear2d or avg_pool2d, of images (N, H, W, C)"] = function()
    local x = marea.ones(1, 4, 6, 3)
    assert.are.same({1, 8, 12, 3}, {x:upsample_bilinear2d{scale = 2}:size()})
    assert.are.same({1, 2, 3, 3}, {x:avg_pool2d{kernel = 2}:size()})
  end,
  ["a range: x['1:20, 1:20']"] = gives("x['1:20, 1:20']", {{{x = u8{{7}}:expand(30, 20)}, shape_is(20, 20)},
    {{x = marea.ones(28, 28, 3)}, shape_is(20, 20, 3)}}),
  ["marea.load_png(path)"] = function(here)
    local path = folder.new() .. "/a.png"
    assert(marea.save_png(u8{{0, 255}}, path))
    equal(run(here, here, {path = path}):flatten(), {0, 255})
    local nothing, message = run(here, here, {path = path .. "x"})
    assert.is_nil(nothing)
    assert.is_string(message)
  end,
  ["image.save(x, path)"] = function(here)
    local path = folder.new() .. "/a.png"
    run(here, here, {x = marea.tensor{{0, 1}, {0.5, 1}}, path = path})
    assert.are.same({2, 2}, {marea.load_png(path):size(1), (marea.load_png(path):size(2))})
  end,
  ["image.grid(x)"] = gives("image.grid(x)", {{{x = marea.ones(4, 2, 2, 1)}, function(t)
    assert.are.equal(16, t:sum():item())
  end}}),
  ["x:show()"] = runs("x:show()", nil, function() return {x = f64{{NAN, 1}}} end),
  ["marea.affine2d or marea.augment"] = function()
    marea.augment.affine{rotate = 10}(marea.ones(1, 4, 4, 1))
    assert.is_function(core.ops.affine2d)
  end,
  ["x:flip(-2)"] = gives("x:flip(-2)", {{{x = u8{{{1}, {2}}, {{3}, {4}}}}, {{{2}, {1}}, {{4}, {3}}}}}),
  ["x:flip(-3)"] = gives("x:flip(-3)", {{{x = u8{{{1}, {2}}, {{3}, {4}}}}, {{{3}, {4}}, {{1}, {2}}}}}),
  ["x:flip(dim)"] = gives("x:flip(dim)", {{{x = f64{1, NAN}, dim = 1}, {NAN, 1}}, {{x = f64{}, dim = -1}, {}}}),

  -- training
  ["one of its kinds: optim.Adam{net}"] = runs("optim.Adam{net}", nil, net),
  ["Adam{net}"] = runs("Adam{net}", "optim.", net), ["Adagrad{net}"] = runs("Adagrad{net}", "optim.", net),
  ["RMSprop{net}"] = runs("RMSprop{net}", "optim.", net), ["SGD{net, lr = 0.1}"] = runs("SGD{net, lr = 0.1}", "optim.",
    net),
  ["SGD{net, lr = 0.1, momentum = 0.9}"] = runs("SGD{net, lr = 0.1, momentum = 0.9}", "optim.", net),
  ["Dataset{...}:batches(size)"] = function()
    for x in data.Dataset{f64{{NAN}}}:batches(5) do equal(x, {{NAN}}) end
  end,
  ["Dataset{x, y}"] = gives("Dataset{x, y}", {{{x = f64{1, 2}, y = u8{0, 1}}, function(set)
    assert.are.equal(2, #set)
  end}}, "data."),
  ["mnist(source, split)"] = function(here)
    local set, message = run("data." .. here, "data.mnist(source, split)", {source = folder.new(), split = "test"})
    assert.is_nil(set)
    assert.is_truthy(message:find("mnist", 1, true))
  end,
  ['mnist "fashion"'] = function(here)
    local set, message = run("data." .. here, 'data.mnist "fashion"')
    assert.is_true(set ~= nil or message:find("fashion", 1, true) ~= nil)
  end,
  ["train:rows{...}, with numbers of marea.permutation"] = function()
    local train = data.Dataset{i64{10, 20, 30}}
    equal(train:rows(marea.permutation(3)):sort(1), {10, 20, 30})
    equal(train:rows{3, 1}, {30, 10})
  end,
  ["Normal, whose elements are independent"] = function()
    assert.are.same({3}, {dist.Normal(marea.zeros(3), marea.ones(3)):sample():size()})
  end,
  ["Categorical, and one_hot of what it draws"] = function()
    local drawn = dist.Categorical{logits = f64{{-INF, 0}}}:sample()
    equal(marea.one_hot(drawn, 2), {{0, 1}})
  end,

  -- variables
  ["os.exit()"] = function() assert.is_function(os.exit) end,
  ["the prompt's ?name"] = function()
    assert.is_true(require "marea.repl".new{marea = marea}:evaluate("?relu").ok)
  end,
  ["for i = 1, n do"] = function(here)
    local code = here .. " last = i end"
    for _, n in ipairs{0, 3} do
      local env = {n = n, last = 0}
      run(code, code, env)
      assert.are.equal(n, env.last)
    end
  end,
  ["math.floor, which rounds down"] = gives("math.floor", {{{}, function(floor)
    assert.are.same({-3, 2, -1}, {floor(-2.5), floor(2.5), floor(-0.1)})
  end}}),
}

-- What the other framework's name computes, by a call of what it is here: name = {call, env, expected}.
local SAME = {
  absolute = {"x:abs()", {x = f64{-3, -0.0, NAN}}, {3, 0.0, NAN}},
  negative = {"x:neg()", {x = f64{1, -INF}}, {-1, INF}},
  clip = {"x:clamp(-1, 1)", {x = f64{-INF, NAN, 0.5}}, {-1, NAN, 0.5}},
  clamp_min = {"x:maximum(0)", {x = f64{-1, NAN}}, {0, NAN}},
  clamp_max = {"x:minimum(0)", {x = f64{-1, NAN, 2}}, {-1, NAN, 0}},
  cmax = {"x:maximum(y)", {x = f64{1, -INF}, y = f64{0, 5}}, {1, 5}},
  cmin = {"x:minimum(y)", {x = f64{1, -INF}, y = f64{0, 5}}, {0, -INF}},
  amax = {"x:max()", {x = i64{MIN, MAX}}, MAX}, amin = {"x:min()", {x = i64{MIN, MAX}}, MIN},
  mod = {"x:remainder(3)", {x = f64{-7, 7, 0}}, {2, 1, 0}},
  log_sum_exp = {"x:logsumexp(1)", {x = f64{800, -INF}}, 800},
  swish = {"x:silu()", {x = f64{0, 800, -800}}, {0, 800, -0.0}},
  leakyrelu = {"x:leaky_relu(0.5)", {x = f64{-2, INF}}, {-1, INF}},
  not_equal = {"x:ne(x)", {x = f64{NAN, 1}}, {1, 0}}, less = {"x:lt(1)", {x = f64{NAN, -INF}}, {0, 1}},
  greater = {"x:gt(1)", {x = f64{NAN, INF}}, {0, 1}},
  mm = {"x:matmul(y)", {x = f64{{1, 2}}, y = f64{{3}, {4}}}, {{11}}},
  mv = {"x:matmul(y)", {x = f64{{1, 2}}, y = f64{3, 4}}, {11}},
  dot = {"x:matmul(y)", {x = f64{1, 2}, y = f64{3, 4}}, 11},
  bmm = {"x:matmul(y)", {x = f64{{{1, 2}}, {{0, 1}}}, y = f64{{{3}, {4}}, {{5}, {6}}}}, {{{11}}, {{6}}}},
  cat = {"marea.concat{x, x}", {x = i64{MIN}}, {MIN, MIN}},
  vstack = {"marea.concat({x, x}, 1)", {x = i64{{MIN}}}, {{MIN}, {MIN}}},
  hstack = {"marea.concat({x, x}, 2)", {x = i64{{MIN}}}, {{MIN, MIN}}},
  dstack = {"marea.concat({x, x}, 3)", {x = i64{{{MIN}}}}, {{{MIN, MIN}}}},
  repeatTensor = {"x:tile(2)", {x = i64{1, MAX}}, {1, MAX, 1, MAX}},
  range = {"marea.arange(2, 4)", {}, {2, 3, 4}}, empty = {"marea.zeros(2)", {}, {0, 0}},
  expand_dims = {"x:unsqueeze(1)", {x = f64{NAN}}, {{NAN}}},
  swapaxes = {"x:transpose(1, 2)", {x = f64{{1, 2}}}, {{1}, {2}}},
  movedim = {"x:permute(2, 1)", {x = f64{{1, 2}}}, {{1}, {2}}},
  broadcast_to = {"x:expand(2, 1)", {x = f64{NAN}}, {{NAN}, {NAN}}},
  zero = {"x:zero_()", {x = f64{NAN, INF}}, {0, 0}}, fill = {"x:fill_(7)", {x = u8{255}}, {7}},
  copy = {"x:clone()", {x = f64{NAN, -0.0}}, {NAN, -0.0}},
  add_to = {"x:add_(1)", {x = i64{MAX}}, {MIN}},
  maskedFill = {"x:masked_fill(m, 0)", {x = f64{NAN, 2}, m = u8{1, 0}}, {0, 2}},
  indexSelect = {"x:index_select(n)", {x = f64{NAN, 2}, n = i64{2, 1}}, {2, NAN}},
  smooth_l1_loss = {"x:huber(y)", {x = f64{1, 3}, y = f64{2, 5}}, 1},
  mse_loss = {"x:mse(y)", {x = f64{1, 3}, y = f64{2, 5}}, 2.5},
  l1_loss = {"x:l1(y)", {x = f64{1, 3}, y = f64{2, 5}}, 1.5},
  randperm = {"marea.permutation(5):sort(1)", {}, {1, 2, 3, 4, 5}},
  random_uniform = {"marea.uniform{2, 3}:ge(0):all()", {}, 1},
  random_normal = {"marea.normal{2, 3}:numel()", {}, 6},
  array = {"marea.tensor{{1}, {2}}", {}, {{1}, {2}}},
  ndim = {"x.rank", {x = marea.zeros(0, 2)}, 2},
}

describe("what other frameworks call", function()
  for _, entry in ipairs(entries) do
    local owner, name, here = entry.owner, entry.name, entry.here
    it(("'%s' (%s) is here something that there is: %s"):format(name, owner, here), function()
      local same = owner == "anywhere" and SAME[name]
      if same then
        assert.is_truthy(same[1]:find(here, 1, true), "the example is of another answer")
        equal(run(same[1], same[1], same[2]), same[3])
      end
      local example = examples[here]
      if example then
        example(here)
      else
        assert.is_true(here:find "^[%a_][%w_]*$" ~= nil, "no example runs it")
        assert.is_true(PLACES[owner][here] == true, "there is no such name")
      end
    end)
  end

  it("is answered once and by an answer that is given", function()
    assert.is_true(#entries > 350, #entries)
    local given, names = {}, {}
    for _, entry in ipairs(entries) do given[entry.here], names[entry.name] = true, true end
    for here in pairs(examples) do assert.is_true(given[here] == true, here) end
    for name in pairs(SAME) do assert.is_true(names[name] == true, name) end
  end)

  it("is no name that there is by now", function()
    for _, entry in ipairs(entries) do
      local elsewhere = entry.owner == "argument" and entry.name == "alpha" -- elu's own; asked for of others
      local exists = PLACES[entry.owner][entry.name] and not elsewhere
      assert.is_falsy(exists, ("%s (%s) exists"):format(entry.name, entry.owner))
    end
  end)

  it("is answered for the thing that has the name", function()
    local function answer(code)
      local chunk = assert(load("local marea, nn, x, net = ... return " .. code))
      local _, message = xpcall(chunk, marea.explain, marea, nn, marea.ones(2, 2), nn.Linear{2, 2})
      return message:match "is here (.*)"
    end
    for code, expected in pairs{
      ["marea.multinomial(x, 3)"] = "p:log():expand(n, C):categorical(), n draws by probabilities p (C)",
      ["x:multinomial(3)"] = "p:log():expand(n, C):categorical(), n draws by probabilities p (C)",
      ["marea.rand(3, 4)"] = "uniform{3, 4}, sizes in one list",
      ["marea.randn(3, 4)"] = "normal{3, 4}, sizes in one list",
      ["nn.MSECriterion()"] = "the operator marea.mse", ["nn.BCECriterion()"] = "the operator marea.bce",
      ["nn.ClassNLLCriterion()"] = "the operator marea.cross_entropy, which takes logits",
      ["nn.CrossEntropyLoss()"] = "the operator marea.cross_entropy", ["x:cuda()"] =
      "the tensor itself: all tensors are in main memory", ["net:cuda()"] = "nothing: all tensors are in main memory",
      ["net:zero_grad()"] = "optimizer:zero_grad(), which step(loss) does by itself", ["x:zero_grad()"] = "clear_grad",
      ["marea.trace(x)"] = "marea.where(marea.eye(n):ne(0), x, 0):sum()",
      ["nn.LeakyReLU{alpha = 0.1}"] = "slope of LeakyReLU, rho of RMSprop",
      ["marea.optim.RMSprop{net, alpha = 0.1}"] = "slope of LeakyReLU, rho of RMSprop",
    } do
      assert.are.equal(expected, answer(code), code)
    end
  end)
end)
