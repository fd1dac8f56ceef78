-- SPDX-License-Identifier: MIT
-- Messages give advice that people paste. Every piece of it that is code is run here, as it is written, on values at
-- the edges: a piece that no example runs fails the test, and so does an example whose advice no source gives any more.
local core = require "marea.core"
local marea = require "marea"
local advice = require "spec.support.advice"
local allclose = require "spec.support.allclose"
local folder = require "spec.support.folder"
local point = require "spec.support.point"
local repl = require "marea.repl"
local nn, optim, data, run = marea.nn, marea.optim, marea.data, advice.run

local INF, NAN, MIN, MAX = math.huge, 0 / 0, math.mininteger, math.maxinteger

teardown(folder.remove)

local function i64(list) return marea.tensor(list, {dtype = "i64"}) end
local function u8(list) return marea.tensor(list, {dtype = "u8"}) end
local function f64(list) return marea.tensor(list, {dtype = "f64"}) end

local function equal(actual, expected)
  allclose.assert(actual, expected, {exact = true})
end

--- An example that is one expression: runs it for each {env, expected}.
local function gives(code, cases, fill)
  return function(text)
    if fill then text = text:format(table.unpack(fill)) end
    for _, case in ipairs(cases) do equal(run(text, code, case[1]), case[2]) end
  end
end

--- One that has only to run: code, then env; `of` builds the env afresh.
local function runs(code, env, fill)
  return function(text)
    if fill then text = text:format(table.unpack(fill)) end
    run(text, code, env and env())
  end
end

local function all(...)
  local list = {...}
  return function(text) for _, example in ipairs(list) do example(text) end end
end

local function images() return {x = marea.arange(1, 24):reshape(1, 3, 4, 2)} end
local function small_net() return nn.Sequential{nn.Linear{2, 3, activation = "relu"}, nn.Linear{3, 1}} end

local PAIR = {{{a = f64{1, NAN, -INF, 0.0}, b = f64{2, 1, INF, -0.0}}, nil}}
local function compared(code, expected) return gives(code, {{PAIR[1][1], expected}}) end

local bits = {a = u8{0, 0, 1, 1}, b = u8{0, 1, 0, 1}}
local function shifted(code, f)
  return function(text)
    for b = 0, 62 do
      local values = {0, 1, -1, 5, -7, MAX, MIN, 1 << 53 | 1}
      local expected = {}
      for i, v in ipairs(values) do expected[i] = f(v, b) end
      equal(run(text, code, {a = i64(values), b = b}), expected)
    end
    equal(run(text, code, {a = u8{255, 1, 0}, b = 3}), {f(255, 3) & 255, f(1, 3) & 255, 0})
  end
end

-- Advice that is no code that could run by itself, and texts that only look like it.
local WORDS = {
  ["marea: the module marea.core is not open in this Lua state"] = "a state",
  ["link libmarea_lua.a and libmarea.a into the program, or link it with -Wl,-E"] = "for the linker",
  ["one for Lua needs index_base = 1 in its config"] = "C, in embed_spec",
  ["or of code, :plan step()"] = "a line of the prompt, in repl_spec",
  ["and break do else elseif end false for function goto if in local nil not or repeat return then true "] =
    "Lua's words",
  ["set palette defined (0 '#f7f9fc', 0.5 '#9ecae1', 1 '#08519c')"] = "gnuplot's",
  ["show() draws it here, save(path) makes the PNG"] = "at the prompt, in plot_spec",
  ["Lua's words are 'and' and 'or'"] = "words",
  ["local function name(...) ... end"] = "a form",
}

local function see(text)
  local name = text:match "^see ([%a_]+)$"
  assert.is_function(core.ops[name] or marea.zeros(1)[name])
end

local examples = {
  ["see mul"] = see, ["see stack"] = see, ["see parts"] = see, ["see detach"] = see,
  -- bindings
  ["a:lt(b) and a:gt(b) compare element by element"] = all(compared("a:lt(b)", {1, 0, 1, 0}), compared("a:gt(b)", {0,
    0, 0, 0})),
  ["a:le(b) and a:ge(b) compare element by element"] = all(compared("a:le(b)", {1, 0, 1, 1}), compared("a:ge(b)", {0,
    0, 0, 1})),
  ["for 0 and 1, a * b is 'and'"] = gives("a * b", {{bits, {0, 0, 0, 1}}}),
  ["for 0 and 1, a:maximum(b) is 'or'"] = gives("a:maximum(b)", {{bits, {0, 1, 1, 1}}}),
  ["for 0 and 1, a:ne(b) is 'exclusive or'"] = gives("a:ne(b)", {{bits, {0, 1, 1, 0}}}),
  ["for 0 and 1, 1 - a is 'not'"] = gives("1 - a", {{bits, {1, 1, 0, 0}}}),
  ["a * (1 << b) shifts integers by a number b"] = shifted("a * (1 << b)", function(a, b) return a << b end),
  ["a // (1 << b) shifts integers by a number b below 63, signs stay"] =
    shifted("a // (1 << b)", function(a, b) return a // (1 << b) end),
  ["tostring(t) is a text, marea.concat{a, b} joins tensors"] = all(
    function(text) assert.matches("nan", run(text, "tostring(t)", {t = f64{NAN}})) end,
    gives("marea.concat{a, b}", {{{a = i64{MIN}, b = i64{}}, {MIN}}, {{a = f64{NAN}, b = f64{-INF}}, {NAN, -INF}}})),
  ["for i = 1, #t do ... t[i] ... end visits its rows, t:totable() makes a table"] = all(
    gives("t:totable()", {{{t = i64{MIN, MAX}}, {MIN, MAX}}}),
    function(text)
      assert(text:find("for i = 1, #t do ... t[i] ... end", 1, true))
      for _, t in ipairs{i64{MIN, MAX}, marea.zeros{0, 3}, marea.ones(2, 3)} do for i = 1, #t do local _ = t[i] end end
    end),
  ["t:item() is its number"] = gives("t:item()", {{{t = f64(NAN)}, NAN}, {{t = marea.tensor(MIN, {dtype = "i64"})},
    MIN}}),
  ["call t:clear_grad()"] = runs("t:clear_grad()", function() return {t = marea.ones(2):requires_grad_()} end),
  ["call t:requires_grad_()"] = runs("t:requires_grad_()", function() return {t = marea.ones(2)} end),
  ["do it inside no_grad, or on t:detach()"] = runs("t:detach()",
    function() return {t = marea.ones(2):requires_grad_()} end),
  ["do it in no_grad, on t:detach(), or by an operator without _"] = function(text)
    local t = marea.ones(2):requires_grad_()
    marea.no_grad(function() t:add_(1) end)
    run(text, "t:detach()", {t = t}):add_(1)
    equal(t + 1, {4, 4})
  end,
  ["return it from the scope or call :keep()"] = function(text)
    assert(text:find(":keep()", 1, true))
    local kept
    marea.scope(function() kept = marea.ones(2):keep() end)
    equal(kept, {1, 1})
    kept:release()
    equal(marea.scope(function() return marea.ones(2) end), {1, 1})
  end,
  ["return it from the scope, or take its values along by :detach():keep()"] = function(text)
    assert(text:find(":detach():keep()", 1, true))
    local x, kept = f64{3, NAN}:requires_grad_(), nil
    marea.scope(function() kept = (x * 2):detach():keep() end)
    equal(kept, {6, NAN})
    kept:release()
    equal(marea.grad(marea.scope(function() return x * 2 end):sum(), x), {2, 2})
  end,
  ["give that one retain_graph = true to use it twice"] = function(text)
    assert(text:find("retain_graph = true", 1, true))
    local x = f64{3}:requires_grad_()
    local y = x:square():sum()
    y:backward{retain_graph = true}
    y:backward()
    equal(x.grad, {12})
  end,

  -- the layers
  ["{samples = n} estimates it from n draws"] = function(text)
    local n = 1000
    local options = run(text, "{samples = n}", {n = n})
    assert.is_true(marea.dist.kl(marea.dist.Laplace(0, 1), marea.dist.Normal(0, 1), options) > 0)
  end,
  ["give it the loss, or call loss:backward() before"] = function(text)
    local net = small_net()
    local optimizer, loss = optim.SGD{net, lr = 0.1}, net(marea.ones(1, 2)):sum()
    run(text, "loss:backward()", {loss = loss})
    optimizer:step()
    optimizer:step(net(marea.ones(1, 2)):sum())
  end,
  ["make it a tensor of its own with :clone()"] = function(text)
    assert(text:find(":clone()", 1, true))
    local t = marea.ones(2, 3):transpose(1, 2):clone()
    assert.is_true(t:is_contiguous())
  end,
  ["give a loss, as in {loss = function(...) return ... end}"] = function(text)
    assert(text:find("{loss = function(...) return ... end}", 1, true))
    marea.plan(small_net(), {4, 2}, {optimizer = optim.SGD, loss = function(y) return y:sum() end})
  end,
  ["profile takes events = N for more"] = function(text)
    assert(text:find("events = N", 1, true))
    marea.profile(function() return marea.ones(2) + 1 end, {events = 100})
  end,

  -- hints: shapes
  ["images are (N, H, W, C), channels last; %s:permute(1, 3, 4, 2) makes them so"] = function(text)
    local y = run(text:format "x", "x:permute(1, 3, 4, 2)", {x = marea.zeros(5, 3, 28, 30)})
    assert.are.same({5, 28, 30, 3}, {y:size()})
  end,
  ["sequences are (N, T, C), channels last; %s:permute(1, 3, 2) makes them so"] = function(text)
    assert.are.same({5, 28, 3}, {run(text:format "x", "x:permute(1, 3, 2)", {x = marea.zeros(5, 3, 28)}):size()})
  end,
  ["%s:mean(4, true) makes gray images of coloured ones"] = function(text)
    assert.are.same({1, 3, 4, 1}, {run(text:format "x", "x:mean(4, true)", images()):size()})
  end,
  ["one image is a batch of 1: %s:unsqueeze(1)"] = function(text)
    assert.are.same({1, 28, 28, 3}, {run(text:format "x", "x:unsqueeze(1)", {x = marea.zeros(28, 28, 3)}):size()})
  end,
  ["%s:unsqueeze(-1) adds the dimension of one channel"] = function(text)
    assert.are.same({5, 28, 28, 1}, {run(text:format "x", "x:unsqueeze(-1)", {x = marea.zeros(5, 28, 28)}):size()})
  end,
  ["rows of pixels become images by reshape, as in %s:reshape(-1, 28, 28, 1)"] = function(text)
    assert.are.same({0, 28, 28, 1}, {run(text:format "x", "x:reshape(-1, 28, 28, 1)", {x = marea.zeros(0,
      784)}):size()})
  end,
  ["nn.Flatten{} before it, or %s:flatten(2), makes rows of %s"] = function(text)
    assert.are.same({1, 24}, {run(text:format("x", 24), "x:flatten(2)", images()):size()})
    assert.are.same({1, 24}, {run(text:format("x", 24), "nn.Flatten{}")(images().x):size()})
  end,
  ["%s:matmul(%s:transpose(-1, -2)) multiplies with the transpose"] = function(text)
    equal(run(text:format("a", "b"), "a:matmul(b:transpose(-1, -2))", {a = f64{{1, 2}}, b = f64{{3, 4}, {5, 6}}}),
      {{11, 17}})
  end,
  ["%s:transpose(-1, -2):matmul(%s) multiplies the transpose"] = function(text)
    equal(run(text:format("a", "b"), "a:transpose(-1, -2):matmul(b)", {a = f64{{1}, {2}}, b = f64{{3}, {4}}}), {{11}})
  end,
  ["%s:matmul(%s) has sizes that fit"] = function(text)
    equal(run(text:format("b", "a"), "b:matmul(a)", {a = f64{{3}, {4}}, b = f64{{1, 2}}}), {{11}})
  end,
  ["%s:unsqueeze(-1) makes it %s, which fits"] = function(text)
    local y = run(text:format("x", "(2, 1)"), "x:unsqueeze(-1)", {x = marea.ones(2)}) + marea.ones(2, 3)
    assert.are.same({2, 3}, {y:size()})
  end,
  ["%s:unsqueeze(1) has as many dimensions as the other"] = function(text)
    local row = run(text:format "t", "t:unsqueeze(1)", {t = marea.ones(3)})
    assert.are.same({3, 3}, {marea.concat{marea.ones(2, 3), row}:size()})
  end,
  ["%s:reshape(-1, %s) works the first size out: (%d, %s)"] = function(text)
    assert.are.same({3, 4}, {run(text:format("x", "4", 3, "4"), "x:reshape(-1, 4)", {x = marea.ones(12)}):size()})
  end,
  ["%s:squeeze(-1) takes its last dimension away"] = function(text)
    assert.are.same({3}, {run(text:format "x", "x:squeeze(-1)", {x = marea.ones(3, 1)}):size()})
  end,
  ["%s:squeeze(-1) takes the last dimension away"] = function(text)
    assert.are.same({1}, {run(text:format "x", "x:squeeze(-1)", {x = marea.ones(1, 1)}):size()})
  end,
  ["marea.%s_like(x) takes the shape of a tensor"] = function(text)
    for _, name in ipairs{"zeros", "ones"} do
      local y = run(text:format(name), ("marea.%s_like(x)"):format(name), {x = i64{{MIN, MAX}}})
      assert.are.same({1, 2}, {y:size()})
    end
  end,
  ["sizes are a list, the limits come after it: marea.%s({3, 4}, -1, 1)"] = function(text)
    for _, name in ipairs{"uniform", "randint"} do
      local y = run(text:format(name), ("marea.%s({3, 4}, -1, 1)"):format(name))
      assert.is_true(y:ge(-1):all():item() == 1 and y:le(1):all():item() == 1)
    end
  end,

  -- hints: dtypes and labels
  ["the logits come first: %s:cross_entropy(%s)"] = function(text)
    equal(run(text:format("logits", "labels"), "logits:cross_entropy(labels)", {logits = f64{{0, 0}}, labels = i64{2}}),
      math.log(2))
  end,
  ["%s:to('f32') / 255 makes numbers from 0 to 1 of bytes"] = gives("x:to('f32') / 255", {{{x = u8{0, 255}}, {0, 1}}},
    {"x"}),
  ["%s:to('f32') converts it"] = gives("x:to('f32')", {{{x = i64{MIN, 3}}, {-2.0 ^ 63, 3}}, {{x = u8{255}}, {255}}},
    {"x"}),
  ["%s:to('f32') makes it what the layer is, or the layer takes dtype = 'f64'"] = function(text)
    nn.Linear{2, 3}(run(text:format "x", "x:to('f32')", {x = f64{{1, NAN}}}))
    nn.Linear{2, 3, dtype = "f64"}(f64{{1, 2}})
  end,
  ["%s:to('f32') makes it what bytes are computed with"] = function(text)
    local net = nn.Linear{2, 3}:quantize{least = 0}
    net(run(text:format "x", "x:to('f32')", {x = f64{{1, NAN}}}))
  end,
  ["all go by name, as in net:quantize{least = 0}"] = function(text)
    assert.are.equal("u8", run(text, "net:quantize{least = 0}", {net = nn.Linear{2, 3}}).weight.dtype)
  end,
  ["give it as it is, optim.%s{net}"] = function(text)
    local net = nn.Linear{1}
    run(text:format "Adam", "optim.Adam{net}", {optim = optim, net = net}):step(function()
      return net(marea.ones{1, 1}):sum()
    end)
  end,
  ["train the one it was made of, then make net:quantize() anew"] = function(text)
    local net = nn.Linear{200, 200}
    optim.Adam{net, lr = 0.1}:step(function() return net(marea.ones{1, 200}):sum() end)
    assert.are.equal("u8", run(text, "net:quantize()", {net = net}).weight.dtype)
  end,
  ["%s:to('i64') makes integers of them"] = gives("x:to('i64')", {{{x = f64{NAN, 2.9, -2.9, 1e300}}, {0, 2, -2, MAX}}},
    {"x"}),
  ["labels are numbers of classes; of one-hot rows, %s:argmax(-1) makes them"] =
    gives("x:argmax(-1)", {{{x = u8{{0, 1}, {1, 0}}}, {2, 1}}}, {"x"}),
  ["classes count from 1; labels that count from 0 become so by %s + 1"] =
    gives("labels + 1", {{{labels = i64{0, 9}}, {1, 10}}, {{labels = u8{0, 254}}, {1, 255}}}, {"labels"}),
  ["bce_with_logits takes numbers of any size, or %s:sigmoid() makes probabilities"] = all(
    gives("x:sigmoid()", {{{x = f64{-INF, 0, INF}}, {0, 0.5, 1}}}, {"x"}),
    function() assert.are.equal(0, f64{1e30}:bce_with_logits(f64{1}):item()) end),
  ["%s / 255 for pixels"] = gives("target / 255", {{{target = f64{0, 255}}, {0, 1}}, {{target = u8{0, 255}}, {0, 1}}},
    {"target"}),
  ["integers hold no fractions; t:to('f32') does"] = function(text)
    local t = run(text, "t:to('f32')", {t = i64{1, 2}})
    t[1] = 0.5
    equal(t, {0.5, 2})
  end,
  ["t:ne(0) makes a mask of numbers, t:to('i64') makes positions of them"] = all(
    gives("t:ne(0)", {{{t = f64{0, -0.0, NAN, 3}}, {0, 0, 1, 1}}}), gives("t:to('i64')", {{{t = f64{1, -1}}, {1, -1}}}),
    function(text)
      local x = f64{5, 6, 7}
      equal(x[run(text, "t:ne(0)", {t = f64{1, 0, 2}})], {5, 7})
      equal(x[run(text, "t:to('i64')", {t = f64{3, -3}})], {7, 5})
    end),
  ["x:masked_fill(mask, v) and marea.where(mask, v, x) give a new tensor, and are recorded"] = function(text)
    for _, code in ipairs{"x:masked_fill(mask, v)", "marea.where(mask, v, x)"} do
      local x = f64{NAN, 2, INF}:requires_grad_()
      local y = run(text, code, {x = x, mask = u8{1, 0, 1}, v = 7})
      equal(y:detach(), {7, 2, 7})
      equal(marea.grad(y:sum(), x), {0, 1, 0})
    end
  end,

  -- hints: Lua's operators, loops, texts
  ["%s:item() is a number, which can be compared"] = gives("x:item()", {{{x = f64{NAN}}, NAN}, {{x = i64{MAX}}, MAX}},
    {"x"}),
  ["%s:%s(%s) gives 0 or 1 for each element"] = function(text)
    for method, expected in pairs{lt = {1, 0, 0}, le = {1, 1, 0}, gt = {0, 0, 0}, ge = {0, 1, 0}} do
      local code = ("a:%s(3)"):format(method)
      equal(run(text:format("a", method, "3"), code, {a = f64{-INF, 3, NAN}}), expected)
    end
  end,
  ['("%%.4f"):format(%s:item()) is a text'] = function(text)
    for value, expected in pairs{[0.25] = "0.2500", [INF] = "inf"} do
      assert.are.equal(point(expected), run(text:format "x", '("%.4f"):format(x:item())', {x = f64(value)}))
    end
  end,
  ["for i = 1, #%s do ... %s[i] ... end visits the rows"] = function(text)
    assert(text:format("t", "t"):find("for i = 1, #t do ... t[i] ... end", 1, true))
    for _, t in ipairs{i64{MIN}, marea.zeros{0, 2}} do for i = 1, #t do local _ = t[i] end end
  end,
  ["n // m divides integers without a rest"] = gives("n // m", {{{n = 7, m = 2}, 3}, {{n = MIN, m = -1}, MIN}}),
  ["condition and 1 or 0 makes a number of a condition"] =
    gives("condition and 1 or 0", {{{condition = true}, 1}, {{condition = false}, 0}}),
  ["a loss is one number: %s:mean() or %s:sum()"] = all(
    gives("t:mean()", {{{t = f64{1, 3}}, 2}}, {"t", "t"}), gives("t:sum()", {{{t = f64{1, 3}}, 4}, {{t = f64{}}, 0}},
      {"t", "t"})),
  ["%s:mean():item() is one number, %s:totable() all of them"] = all(
    gives("t:mean():item()", {{{t = f64{1, 3}}, 2}}, {"t", "t"}), gives("t:totable()", {{{t = i64{MIN}}, {MIN}}}, {"t",
      "t"})),
  ["%s:requires_grad_() before y is computed"] = function(text)
    local x = run(text:format "x", "x:requires_grad_()", {x = f64{3}})
    equal(marea.grad((x * x):sum(), x), {6})
  end,
  ["t:requires_grad_() marks what is to be learned (layers do); what no_grad or detach gave does not depend on it"] =
    function(text) run(text, "t:requires_grad_()", {t = f64{3}}):sum():backward() end,
  ["x:transpose(1, 2) exchanges rows and columns"] = gives("x:transpose(1, 2)", {{{x = i64{{1, 2}}}, {{1}, {2}}}}),
  ["marea.arange(1, 5) is 1 2 3 4 5"] = gives("marea.arange(1, 5)", {{{}, {1, 2, 3, 4, 5}}}),
  ["marea.tensor{...} makes a tensor of a list"] = function(text)
    assert(text:find("marea.tensor{...}", 1, true))
    equal(marea.tensor{NAN, -0.0, INF}, {NAN, -0.0, INF})
  end,
  ["values are a list in braces: marea.tensor{1, 2}"] = gives("marea.tensor{1, 2}", {{{}, {1, 2}}}),
  ["functions of a module are called with a dot: marea.zeros(...)"] = function(text)
    assert(text:find("marea.zeros(...)", 1, true))
    equal(marea.zeros(2), {0, 0})
  end,
  ["functions of a module are called with a dot: marea.%s(...)"] = function(text)
    assert(text:format "ones":find("marea.ones(...)", 1, true))
    equal(marea.ones(2), {1, 1})
  end,
  ["a method is called with a colon: %s:%s(...)"] = function(text)
    assert(text:format("x", "sum"):find("x:sum(...)", 1, true))
    equal(f64{1, 2}:sum(), 3)
  end,
  ["methods are called with a colon: object:%s(...)"] = function(text)
    assert(text:format "train":find("object:train(...)", 1, true))
    small_net():train()
  end,

  -- hints: layers, training, files
  ["'self' is a tensor here: call the method with a colon, net:forward(x), or the module itself, net(x)"] = all(
    runs("net:forward(x)", function() return {net = small_net(), x = marea.ones(1, 2)} end),
    runs("net(x)", function() return {net = small_net(), x = marea.zeros(0, 2)} end)),
  ["%s:state() is the table of its tensors"] = runs("net:state()", function() return {net = small_net()} end, {"net"}),
  ["padding = 'same' keeps the size of the images"] = function(text)
    assert(text:find("padding = 'same'", 1, true))
    assert.are.same({1, 1, 2, 3}, {nn.Conv2d{1, 3, kernel = 5, padding = "same"}(marea.ones(1, 1, 2, 1)):size()})
  end,
  ["smaller batches need less, and marea.no_grad(f) keeps nothing for gradients"] =
    runs("marea.no_grad(f)", function() return {f = function() return marea.ones(2) end} end),
  ["the network comes first: {net, lr = 1e-3}"] = function(text)
    optim.Adam(run(text, "{net, lr = 1e-3}", {net = small_net()}))
  end,
  ["a learning rate is given by its name: lr = 1e-3"] = function(text)
    assert(text:find("lr = 1e-3", 1, true))
    optim.Adam{small_net(), lr = 1e-3}
  end,
  ["layers without an input size make them at the first call, or at net:build(input shape)"] = function(text)
    assert(text:find("net:build(", 1, true))
    local net = nn.Linear{3}
    net:build{5}
    assert.are.equal(18, net:count())
  end,
  ["step takes the tensor itself, without :item()"] = function()
    local net = small_net()
    optim.SGD{net, lr = 0.1}:step(net(marea.ones(1, 2)):sum())
  end,
  ["function %s:forward(x) ... return y end says what it computes"] = function(text)
    local Twice = nn.class "Twice"
    run((text:format "Twice":gsub(" %.%.%. ", " local y = x * 2 ")),
      "function Twice:forward(x) local y = x * 2 return y end",
      {Twice = Twice})
    equal(Twice{}(f64{3}), {6})
  end,
  ["a layer takes a tensor: net(x)"] = function(text)
    for _, n in ipairs{0, 1, 3} do
      assert.are.same({n, 1}, {run(text, "net(x)", {net = small_net(), x = marea.zeros(n, 2)}):size()})
    end
  end,
  ["a layer's first number is the channels of its input: {%d, ...}"] = function(text)
    for _, channels in ipairs{1, 3} do
      assert(text:format(channels):find(("{%d, ...}"):format(channels), 1, true))
      for _, class in ipairs{nn.Conv2d, nn.ConvTranspose2d} do
        class{channels, 2, kernel = 1}(marea.zeros(1, 2, 2, channels))
      end
    end
  end,
  ["the layer's first number is the last size of its input: {%d, ...}"] = function(text)
    assert(text:format(5):find("{5, ...}", 1, true))
    for _, shape in ipairs{{5}, {0, 5}, {2, 3, 5}} do nn.Linear{5, 2}(marea.zeros(shape)) end
  end,
  ["the sizes come first, without names: {in, out}, or {out}"] = function(text)
    assert(text:find("{in, out}, or {out}", 1, true))
    local x = marea.zeros(1, 2)
    assert.are.same({1, 3, 1, 3}, {nn.Linear{2, 3}(x):size(1), nn.Linear{2, 3}(x):size(2), nn.Linear{3}(x):size()})
  end,
  ["{...} makes a layer, and the layer is what takes a tensor"] = function()
    equal(nn.ReLU{}(f64{-INF, NAN, 2}), {0, NAN, 2})
    nn.Linear{2, 3}(marea.ones(1, 2))
  end,
  ["{} makes a layer of the class"] = function(text)
    for _, class in ipairs{"ReLU", "Tanh", "Flatten", "Softplus"} do
      nn.Sequential{run(class .. text, class .. "{}", {[class] = nn[class]})}(marea.ones(1, 2))
    end
  end,
  ["net:train() and net:evaluate() switch between the two modes"] = all(
    runs("net:train()", function() return {net = small_net()} end), runs("net:evaluate()",
      function() return {net = small_net()} end)),
  ["methods are called with a colon, as in net:train()"] = runs("net:train()",
    function() return {net = small_net()} end),
  ["the size comes first: set:batches(128, {...})"] = function(text)
    assert(text:find("set:batches(128, {", 1, true))
    for x in data.Dataset{marea.ones(3, 2)}:batches(128, {shuffle = true}) do assert.are.equal(3, #x) end
  end,
  ["a data set is visited in batches: for x, y in set:batches(128) do; a list by ipairs(list)"] = function(text)
    assert(text:find("for x, y in set:batches(128) do", 1, true))
    for x, y in data.Dataset{marea.ones(3, 2), marea.ones(3)}:batches(128) do assert.are.equal(#x, #y) end
  end,
  ["marea.load gives nil and a message when it fails: assert(marea.load(...)) shows it"] = function()
    local ok, message = pcall(function() return assert(marea.load(folder.new() .. "/nothing")) end)
    assert.is_false(ok)
    assert.matches("nothing", message)
  end,
  ["key = name looks into one of its tables: "] = function()
    local path = folder.new() .. "/a.pt"
    folder.write(path, require "spec.support.hex"(require "spec.golden.torch".checkpoint))
    local ok, message = pcall(nn.Linear{2, 3}.load_torch, nn.Linear{2, 3}, path)
    assert.is_false(ok)
    assert(nn.Linear{2, 3}:load_torch(path, nil, {key = message:match "tables: '(.-)'"}))
  end,
  ["the path comes first: marea.save(path, tensors)"] = function(text)
    assert(run(text, "marea.save(path, tensors)", {path = folder.new() .. "/a.safetensors", tensors = {a = f64{NAN}}}))
  end,
  ["the tensor comes first: marea.%s(t, path)"] = function(text)
    for name, t in pairs{save_npy = f64{NAN}, save_png = u8{{0, 255}}} do
      assert(run(text:format(name), ("marea.%s(t, path)"):format(name), {t = t, path = folder.new() .. "/a"}))
    end
  end,
  ["the columns come first: marea.save_csv(columns, path)"] = function(text)
    assert(run(text, "marea.save_csv(columns, path)", {columns = {a = {"b"}}, path = folder.new() .. "/a.csv"}))
  end,
  ["as in kernel = 3"] = function(text)
    assert(text:find("kernel = 3", 1, true))
    nn.Conv2d{1, 2, kernel = 3}
  end,
  ["without the call: marea.no_grad(net, x)"] =
    runs("marea.no_grad(net, x)", function() return {net = small_net(), x = marea.ones(1, 2)} end),
  ["marea.autocast(function() ... end)"] = function(text)
    assert(text:find("marea.autocast(function()", 1, true))
    marea.autocast(function() end)
  end,
  ["marea.no_grad(function() ... end)"] = function(text)
    assert(text:find("marea.no_grad(function()", 1, true))
    marea.no_grad(function() end)
  end,

  ["%s:item() is its number, through which no gradient flows"] = all(
    gives("w:item()", {{{w = f64(NAN):requires_grad_()}, NAN}, {{w = i64{MIN}}, MIN}, {{w = u8{255}}, 255}}, {"w"}),
    function()
      local w = f64{-0.0, 3, INF}:requires_grad_()
      equal({w[1]:item(), w[-2]:item(), (marea.zeros(3):fill_(w[2]:item()))[1]}, {-0.0, 3, 3})
      equal(marea.grad((w * w[2]:item()):sum(), w), {3, 3, 3})
    end),
  ["marea.stack{...} joins tensors and keeps their gradients; marea.tensor(2) is a number among them"] = function(text)
    assert(text:find("marea.stack{...}", 1, true))
    local w = marea.tensor{NAN, 5}:requires_grad_()
    local stacked = marea.stack{w[1], run(text, "marea.tensor(2)"), w[2]}
    equal(stacked:detach(), {NAN, 2, 5})
    equal(marea.grad(stacked:sum(), w), {1, 1})
    equal(marea.stack{i64{MIN}, i64{MAX}}, {{MIN}, {MAX}})
  end,
  ["what one step hands to the next is its values: %s = %s:detach():keep() before the step"] = function(text)
    local w, h = f64{2}:requires_grad_(), f64{1}
    local optimizer = optim.SGD{{w}, lr = 1}
    for _ = 1, 3 do
      local env = {h = h}
      run(text:format("h", "h"), "h = h:detach():keep()", env)
      h = env.h * w
      optimizer:step(h:sum())
    end
    equal({h:item(), w:item()}, {-2, -3}) -- each step's gradient is the value that it began with: 1, 2, 2
  end,

  ["of tensors, x:%simum(y) takes the %ser of two elements"] = function(text)
    local env = {x = f64{1, NAN, -INF, 3}, y = f64{2, 1, INF, 3}}
    equal(run(text:format("max", "larg"), "x:maximum(y)", env), {2, NAN, INF, 3})
    equal(run(text:format("min", "small"), "x:minimum(y)", env), {1, NAN, -INF, 3})
    equal(run(text:format("max", "larg"), "x:maximum(y)", {x = i64{MIN, MAX}, y = i64{MAX, MIN}}), {MAX, MAX})
  end,
  ["tonumber(text) makes a number of a text"] = function(text)
    for written, expected in pairs{["3"] = 4, ["-0x10"] = -15, ["1e3"] = 1001, [" 2 "] = 3} do
      equal(f64{1} + run(text, "tonumber(text)", {text = written}), {expected})
    end
  end,

  -- the prompt
  ["local variables end with what was entered; %s = ... without 'local' stays"] = function(text)
    assert(text:format "w":find("w = ... without 'local'", 1, true))
    local session = repl.new{marea = marea}
    session:evaluate "local w = 3"
    assert.is_false(session:evaluate("w + 1").ok)
    session:evaluate "w = 3"
    assert.are.equal("4", session:evaluate("w + 1").text)
  end,
  ["x:to(dtype) converts"] = function(text)
    for dtype, expected in pairs{f32 = {-0.0, 255}, f64 = {-0.0, 255}, i64 = {0, 255}, u8 = {0, 255}} do
      local y = run(text, "x:to(dtype)", {x = f64{-0.0, 255}, dtype = dtype})
      assert.are.equal(dtype, y.dtype)
      equal(y, expected)
    end
  end,

  -- hints for Lua's own messages
  ["line %d gave nil and a message, which assert(...) shows: %s"] = function(text)
    assert(text:find("assert(...)", 1, true))
    local script = "local marea, path = ...\nlocal t = %s\nreturn t:sum()"
    for _, call in ipairs{"marea.load(path)", "marea.load_npy(path)", "marea.load_png(path)", "marea.load_idx(path)"} do
      local path = folder.new() .. "/nothing"
      local lost = assert(load(script:format(call)))
      local _, hinted = xpcall(lost, marea.explain, marea, path)
      local _, shown = pcall(assert(load(script:format("assert(" .. call .. ")"))), marea, path)
      assert.is_truthy(hinted:find(text:format(2, shown:match ":2: (.*)"), 1, true), hinted)
    end
  end,
  ["%s:item() is the number of a tensor of one element"] = gives("t:item()", {{{t = f64{{NAN}}}, NAN},
    {{t = i64{MAX}}, MAX}, {{t = u8{{{255}}}}, 255}}, {"t"}),
  ["t:item() is the number of a tensor of one element"] = gives("t:item()", {{{t = f64(-INF)}, -INF},
    {{t = i64{{MIN}}}, MIN}}),
  ["t:item() is the number of a tensor of one element, tostring(t) a text"] = all(
    gives("t:item()", {{{t = f64(-0.0)}, -0.0}, {{t = i64{MAX}}, MAX}}),
    function(text) assert.is_string(table.concat{run(text, "tostring(t)", {t = marea.zeros(0)}), "x"}) end),
  ["%s on line %d gave nil and a message: assert(%s(...)) shows it"] = function()
    assert.is_false((pcall(function() return assert(marea.load_npy(folder.new() .. "/nothing")) end)))
  end,
  ["%s:item() is the number of a tensor of one element, tostring(%s) a text"] = all(
    gives("t:item()", {{{t = f64(-0.0)}, -0.0}}, {"t", "t"}),
    function(text) assert.is_string(run(text:format("t", "t"), "tostring(t)", {t = marea.zeros(0)})) end),
  ["for tensors it is a method: %s:%s"] = function(text)
    for method, expected in pairs{["maximum(...)"] = {1, 5}, ["minimum(...)"] = {0, 1}, ["sqrt()"] = {1, 0},
      ["remainder(...), whose sign is the divisor's"] = {0, 1}} do
      assert(text:format("t", method):find("t:" .. method, 1, true))
      local name = method:match "^%a+"
      assert.is_function(core.ops[name])
      local t = f64{1, 0}
      if name == "sqrt" then equal(t:sqrt(), expected) end
      if name == "maximum" then equal(t:maximum(f64{0, 5}), expected) end
      if name == "minimum" then equal(t:minimum(f64{0, 5}), {0, 0}) end
      if name == "remainder" then equal(f64{-7, 7}:remainder(f64{-3, -3}), {-1, -2}) end
    end
  end,
  ["maximum(...)"] = function() equal(f64{1, NAN}:maximum(2), {2, NAN}) end,
  ["minimum(...)"] = function() equal(f64{1, NAN}:minimum(2), {1, NAN}) end,
  ["remainder(...), whose sign is the divisor's"] = function(text)
    assert(text:find("remainder(...)", 1, true))
    equal(f64{-7, 7, -7, 0.0, 1}:remainder(f64{3, -3, -3, 5, INF}), {2, -2, -1, 0, 1})
    equal(i64{-7, 7, MIN}:remainder(i64{3, -3, -1}), {2, -2, 0})
  end,
  ["methods are called with a colon: %s:%s%s"] = function(text)
    for call, env in pairs{["net:train()"] = {net = small_net()}, ["x:sum()"] = {x = f64{}}} do
      local object, method = call:match "(%w+):(%w+)"
      run(text:format(object, method, "()"), call, env)
    end
    assert(text:format("x", "sum", "(...)"):find("x:sum(...)", 1, true))
  end,
  ["'%s' is a field, not a method: %s.%s"] = function(text)
    local env = {net = small_net(), x = i64{MIN}}
    for field, expected in pairs{["net.training"] = true, ["x.requires_grad"] = false, ["x.dtype"] = "i64",
      ["x.rank"] = 1, ["x.is_leaf"] = true} do
      local owner, name = field:match "(%w+)%.([%w_]+)"
      assert.are.equal(expected, run(text:format(name, owner, name), field, env))
    end
  end,
  ["positions are a list: %s[{%s}]"] = function(text)
    local x = i64{{1, MIN}, {3, MAX}}
    for positions, expected in pairs{["1, 2"] = MIN, ["-1, -1"] = MAX, ["i, j"] = 3} do
      local code = ("x[{%s}]"):format(positions)
      assert.are.equal(expected, run(text:format("x", positions), code, {x = x, i = 2, j = 1}))
    end
  end,
  ["not equal is written ~="] = function(text)
    local code = ("return function(a, b) return a %s b end"):format(text:match "%S+$")
    local differ = assert(load(code))()
    assert.are.same({true, true, false}, {differ(1, 2), differ(NAN, NAN), differ(1, 1.0)})
  end,
  ["equal is written =="] = function(text)
    local same = assert(load(("return function(a, b) return a %s b end"):format(text:match "%S+$")))()
    assert.are.same({false, false, true, true}, {same(1, 2), same(NAN, NAN), same(1, 1.0), same(0.0, -0.0)})
  end,
  ["%d shows integers, %g or %.3f any number"] = function(text)
    for code, shown in pairs{["%d"] = "-9223372036854775808", ["%g"] = "-9.22337e+18",
      ["%.3f"] = "-9223372036854775808.000"} do
      assert(text:find(code, 1, true))
      assert.are.equal(point(shown), code:format(MIN))
    end
    assert.are.same({"inf", "inf", point "0.1", point "0.100"},
      {("%g"):format(INF), ("%.3f"):format(INF), ("%g"):format(0.1), ("%.3f"):format(0.1)})
  end,
  ["there is no folder '%s'; os.execute%s makes it"] = function()
    local place = folder.new()
    for _, name in ipairs{"out", "out/run1", "my results/a b", "it's", "a;b", "$HOME", "-p", 'a"b', "a\\b", "größe"} do
      local path = place .. "/" .. name .. "/net.safetensors"
      local _, hinted = xpcall(function() error((select(2, marea.save(path, {a = f64{1}})))) end, marea.explain)
      run(hinted, hinted:match "; (os%.execute.*) makes it")
      assert(marea.save(path, {a = f64{1}}))
    end
  end,
  ["'self' exists in functions defined with a colon: function Net:forward(x), not Net.forward(x)"] = function(text)
    assert(text:find("function Net:forward(x)", 1, true))
    local Net = nn.class "Net"
    function Net:forward(x) return self and x end
    equal(Net{}(f64{1}), {1})
  end,
  ["Lua has no %s=: %s = %s %s ..."] = function(text)
    for _, operator in ipairs{"+", "-", "*", "/"} do
      assert(load((text:format(operator, "i", "i", operator):match ": (.*)$":gsub("%.%.%.", "1"))))
    end
  end,
  ["Lua has no ++: i = i + 1"] = function(text) run(text, "i = i + 1", {i = 1}) end,
  ["a range is a string: x['2:5, :']"] = function(text)
    assert.are.same({4, 3}, {run(text, "x['2:5, :']", {x = marea.ones(5, 3)}):size()})
  end,
  ['a script begins with: local marea = require "marea"'] = runs 'local marea = require "marea"',
  ['local name = require "name"'] = function(text)
    assert(load((text:gsub("name", "marea") .. " return marea.zeros(1)")))()
  end,
  ["a script that uses %s begins with: local %s = marea.%s"] = function(text)
    for _, part in ipairs{"nn", "optim", "data", "dist", "plot", "checkpoint"} do
      run(text:format(part, part, part), ("local %s = marea.%s"):format(part, part))
      assert.is_truthy(marea[part])
    end
  end,
  ["put it into a group with adam = true"] = function()
    local words = nn.Embedding{4, 2, sparse = true}
    local muon = optim.Muon{{words, adam = true}}
    muon:step(words(i64{1, 3}):sum())
    assert.are.equal(1, muon.steps)
  end,
  ["marea.tensor(%s, {dtype = %q}) makes one"] = function(text)
    local rate = run(text:format(16000, "i64"), 'marea.tensor(16000, {dtype = "i64"})')
    assert.are.same({0, "i64", 16000}, {rate.rank, rate.dtype, rate:item()})
  end,
  ["x:permute(1, 4, 2, 3) puts the channels first"] = function(text)
    local x = run(text, "x:permute(1, 4, 2, 3)", {x = marea.zeros(2, 5, 6, 3)})
    assert.are.equal("2,3,5,6", table.concat(x.shape, ","))
  end,
  ["x:unsqueeze(1) makes a batch of one"] = function(text)
    assert.are.equal("1,3,5", table.concat(run(text, "x:unsqueeze(1)", {x = marea.zeros(3, 5)}).shape, ","))
  end,
  ["fields are read with a dot, x.shape; methods are called, x:sum()"] =
    gives("x:sum()", {{{x = f64{}}, 0}, {{x = f64{1, NAN}}, NAN}}),
}

describe("advice in messages", function()
  local found = advice.collect()
  local texts = {}
  for text in pairs(found) do texts[#texts + 1] = text end
  table.sort(texts)

  it("is found where it is written", function() assert.is_true(#texts > 90, #texts .. " pieces of advice") end)

  for _, text in ipairs(texts) do
    if not WORDS[text] then
      it(("does what it says: %s"):format(text), function()
        if not examples[text] then error(("%s advises '%s', which no example runs"):format(found[text], text)) end
        examples[text](text)
      end)
    end
  end

  it("is not kept here when no message gives it", function()
    for text in pairs(examples) do assert.is_truthy(found[text], text) end
    for text in pairs(WORDS) do assert.is_truthy(found[text], text) end
  end)
end)

-- ---- the table of docs/errors.md ----

--- The loss of a softmax stays high and pulls little where the logits' own is done.
local function twice_softmax()
  local logits, labels = f64{{100, 0}}:requires_grad_(), i64{1}
  local squeezed = logits:softmax(-1):cross_entropy(labels)
  assert.is_true(math.abs(squeezed:item() - math.log(1 + math.exp(-1))) < 1e-12)
  assert.is_true(logits:cross_entropy(labels):item() < 1e-40)
  assert.is_true(marea.grad(squeezed, logits):abs():max():item() < 1e-40)
end

-- What is written there, or meant, and what has to come of it.
local net = small_net()
local MISTAKES = {
  written = {
    ["if t:gt(0) then"] = function() assert.is_truthy(f64{-1, NAN}:gt(0)) end,
    ["not t"] = {{t = f64(0)}, false},
    ["t == 3"] = {{t = f64(3)}, false},
    ["a == b"] = {{a = f64{1}, b = f64{1}}, false},
    ["w[1] == 3"] = {{w = f64{3}:requires_grad_()}, false},
    ["tonumber(w[1])"] = {{w = f64{3}:requires_grad_()}, nil},
    ["list[w[1]]"] = {{list = {"a", "b", "c"}, w = f64{3}:requires_grad_()}, nil},
    ["activation = relu"] = {{nn = {Linear = function(options) return options.activation end}}, nil,
      "nn.Linear{1, activation = relu}"},
    ["nn.Sequential{a, b, hed}"] = function(code)
      assert.are.equal(2, #run(code, code, {a = nn.ReLU{}, b = nn.ReLU{}}))
    end,
    ["x:sum(dmi)"] = {{x = f64{{1, 2}, {3, 4}}}, 10},
    ["net.hiden = nn.Linear{...}"] = function(code)
      local model = small_net()
      run(code:gsub("%.%.%.", "1"), code:gsub("%.%.%.", "1"), {net = model})
      assert.is_not_nil(model.hiden)
    end,
    ["x:relu()"] = function(code)
      local x = f64{-1}
      run(code, code, {x = x})
      equal(x, {-1})
    end,
    ["x:add(1)"] = function(code)
      local x = f64{-1}
      run(code, code, {x = x})
      equal(x, {-1})
    end,
    ["cross_entropy"] = twice_softmax,
    ["softmax"] = twice_softmax,
  },
  meant = {
    ["if t:gt(0):any():item() == 1 then"] = function(code)
      local asked = code .. " return true end return false"
      for values, expected in pairs{[{-1, NAN, 0.0}] = false, [{NAN, INF}] = true, [{}] = false} do
        assert.are.equal(expected, run(asked, asked, {t = f64(values)}))
      end
    end,
    ["t:eq(3)"] = {{t = f64{3, NAN, -3}}, {1, 0, 0}},
    ["a:eq(b)"] = {{a = f64{1, NAN, 0.0}, b = f64{1, NAN, -0.0}}, {1, 0, 1}},
    ["w[1]:item()"] = {{w = f64{NAN, 3}:requires_grad_()}, NAN},
    ['activation = "relu"'] = function(code)
      local layer = "nn.Linear{1, 1, " .. code .. "}"
      assert.is_true(run(layer, layer)(f64{{-INF}}:to("f32")):ge(0):all():item() == 1)
    end,
    ["head"] = {{head = 1}, 1},
    ["x:sum(dim)"] = {{x = f64{{1, 2}, {3, NAN}}, dim = 1}, {4, NAN}},
    ["net.hidden = ..."] = function(code)
      local model = small_net()
      local set = code:gsub("%.%.%.", "nn.Linear{1}")
      run(set, set, {net = model})
      assert.is_not_nil(model.hidden)
    end,
    ["x = x:relu()"] = function(code)
      local env = {x = f64{-1, NAN, INF}}
      run(code, code, env)
      equal(env.x, {0, NAN, INF})
    end,
    ["x:add_(1)"] = {{x = f64{-1, NAN}}, {0, NAN}},
    ["net:evaluate()"] = {{net = net}, net},
    ["net:train()"] = {{net = net}, net},
    ["images / 255"] = {{images = u8{0, 255}}, {0, 1}},
  },
}

--- The rows of the table with the columns "written", "what happens" and "meant".
local function rows()
  local list = {}
  local page = assert(folder.read "docs/errors.md"):match "| written | what happens | meant |\n|[%-|]+\n(.-)\n\n"
  for written, meant in page:gmatch "| ([^|]+) | [^|]+ | ([^|]+) |" do
    list[#list + 1] = {written = written, meant = meant}
  end
  return list
end

describe("the table of docs/errors.md", function()
  local said = {written = {}, meant = {}}

  for _, row in ipairs(rows()) do
    for _, column in ipairs{"written", "meant"} do
      for code in row[column]:gmatch "`(.-)`" do
        said[column][code] = true
        it(("is right about what is %s: %s"):format(column, code), function()
          local example = MISTAKES[column][code]
          assert.is_truthy(example, "no example runs it")
          if type(example) == "function" then return example(code) end
          local result = run(example[3] or code, example[3] or code, example[1])
          if core.is_tensor(result) then return equal(result, example[2]) end
          if example[2] ~= example[2] then return assert.is_true(result ~= result) end
          assert.are.equal(example[2], result)
        end)
      end
    end
  end

  it("says all that is run here", function()
    assert.is_true(#rows() >= 11, #rows())
    for column, examples_of in pairs(MISTAKES) do
      for code in pairs(examples_of) do assert.is_true(said[column][code] == true, code) end
    end
  end)
end)
