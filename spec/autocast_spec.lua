-- SPDX-License-Identifier: MIT
-- Autocast: which operators it touches, that networks give what explicit casts give, gradients and their dtypes, the
-- casts of parameters that are kept, and that nothing stays switched on.
local core = require "marea.core"
local marea = require "marea"
local allclose = require "spec.support.allclose"
local folder = require "spec.support.folder"
local message_of = require "spec.support.message_of"
local sample = require "spec.support.sample"
local small_vae = require "spec.support.small_vae"
local nn, optim = marea.nn, marea.optim

local function set(names)
  local s = {}
  for name in names:gmatch "[%w_]+" do s[name] = true end
  return s
end

local LOWERS = set "matmul linear conv1d conv2d conv_transpose1d conv_transpose2d"
local ROUNDS = set "rnn gru lstm linear_cross_entropy scaled_dot_product_attention"
local WIDE = set "additive_attention softmax log_softmax layer_norm rms_norm bce bce_with_logits mse l1 huber \z
  kl_normal cross_entropy ctc_loss sum sum_to mean var std logsumexp cumsum prod norm square rsqrt reciprocal exp \z
  log log1p expm1 norm_icdf pow softplus lgamma polygamma sample_normal eigh orthogonalize"
local F32_ALONE = set "linear_int8 conv2d_int8 lstm_int8"

local function equal(got, expected, what)
  assert.are.equal(expected.dtype, got.dtype, what)
  local ok, message = allclose.check(got, expected, {exact = true})
  if not ok then error(("%s: %s"):format(what or "", message), 2) end
end

--- Inputs whose floats are converted.
local function as(inputs, dtype)
  local list = {}
  for i, t in pairs(inputs) do
    list[i] = core.is_tensor(t) and core.float_dtypes[t.dtype] and t:to(dtype) or t
  end
  return list
end

local function call(info, inputs, attrs, autocast)
  core.seed(5)
  if autocast then return marea.autocast(sample.call, info, inputs, attrs) end
  return sample.call(info, inputs, attrs)
end

local function has_floats(inputs)
  for _, t in pairs(inputs) do if core.is_tensor(t) and core.float_dtypes[t.dtype] then return true end end
  return false
end

--- What autocast makes of the attributes, of inputs that are not f64.
local function rounding(name, attrs)
  if not ROUNDS[name] then return attrs end
  local all = {products = "bf16"}
  for key, value in pairs(attrs or {}) do all[key] = value end
  return all
end

describe("under autocast", function()
  for _, name in ipairs(marea.op_names()) do
    local info = marea.op_info(name)
    if not info.mutates then
      it(name .. (LOWERS[name] and " takes bf16" or ROUNDS[name] and " rounds operands"
        or WIDE[name] and " stays wide" or " keeps what it gets"), function()
        for seed = 1, 8 do
          local inputs, attrs = sample.draw(info, sample.generator(seed, {dtype = "f32"}))
          local lowered, narrow = as(inputs, "bf16"), {}
          for i, y in ipairs(call(info, inputs, attrs, true)) do
            local from = LOWERS[name] and lowered or inputs
            equal(y, call(info, from, rounding(name, attrs))[i], name .. " of f32")
          end
          for i, y in ipairs(has_floats(inputs) and call(info, lowered, attrs, true) or {}) do
            local from = (WIDE[name] or ROUNDS[name]) and as(lowered, "f32") or lowered
            equal(y, call(info, from, rounding(name, attrs))[i], name .. " of bf16")
            narrow[i] = y.dtype
          end
          if LOWERS[name] then assert.are.equal("bf16", narrow[1]) end
          if WIDE[name] or ROUNDS[name] then assert.are.equal("f32", narrow[1]) end
          local doubles = as(inputs, "f64")
          for i, y in ipairs(F32_ALONE[name] and {} or call(info, doubles, attrs, true)) do
            equal(y, call(info, doubles, attrs)[i], name .. " of f64")
          end
        end
      end)
    end
  end

  it("f64 beside f32 is a matter of the operator, as without", function()
    local a, b = marea.ones{2, 3}, marea.ones{3, 2, dtype = "f64"}
    local function multiply() return a:matmul(b) end
    assert.are.equal(message_of(multiply), message_of(function() return marea.autocast(multiply) end))
  end)

  it("an operator in place keeps the tensor's dtype", function()
    local x = marea.tensor({1, 2}, {dtype = "bf16"})
    marea.autocast(function() x:exp_() end)
    equal(x, marea.tensor({1, 2}, {dtype = "bf16"}):exp(), "exp_")
  end)

  it("every operator that is named here is there, and docs/precision.md names it", function()
    local page = folder.read "docs/precision.md"
    for _, names in ipairs{LOWERS, ROUNDS, WIDE} do
      for name in pairs(names) do
        assert.is_truthy(marea.op_info(name), name)
        assert.is_truthy(page:find("`" .. name .. "`", 1, true), name)
      end
    end
  end)
end)

--- Two layers with weights that are used twice, in one of two ways: by autocast, and with casts that are written down.
local function two_ways(dtype)
  marea.seed(3)
  local x, w = marea.normal{16, 8}, marea.normal{8, 8}:mul(0.3):requires_grad_()
  local b, v = marea.normal{8}:requires_grad_(), marea.normal{8, 3}:mul(0.3):requires_grad_()
  local function run(cast)
    local h = marea.linear(cast(x), cast(w), cast(b), {activation = "relu"})
    h = marea.linear(h, cast(w), cast(b), {activation = "tanh"})
    local y = h:matmul(cast(v))
    return y, marea.cross_entropy(y:to "f32", marea.arange(1, 16):remainder(3):add(1):to "i64")
  end
  return {w, b, v}, function() return run(function(t) return t end) end, function()
    return run(function(t) return t:to(dtype) end)
  end
end

describe("a network under autocast", function()
  for _, dtype in ipairs{"bf16", "f16"} do
    it("gives what explicit casts to " .. dtype .. " give, with gradients in f32", function()
      local leaves, automatic, by_hand = two_ways(dtype)
      local y, loss = marea.autocast({dtype = dtype}, automatic)
      local z, expected = by_hand()
      equal(y:detach(), z:detach(), "result")
      assert.are.equal("f32", loss.dtype)
      equal(loss:detach(), expected:detach(), "loss")
      local got, wanted = marea.grad(loss, leaves), marea.grad(expected, leaves)
      for i, g in ipairs(wanted) do equal(g, got[i], "gradient " .. i) end
    end)
  end

  it("has the same gradients when the reverse pass runs inside", function()
    local leaves, automatic, by_hand = two_ways "bf16"
    local inside = marea.autocast(function()
      local _, loss = automatic()
      return marea.grad(loss, leaves)
    end)
    local _, expected = by_hand()
    for i, g in ipairs(marea.grad(expected, leaves)) do equal(inside[i], g, "gradient " .. i) end
  end)

  it("has gradients of gradients", function()
    local leaves, automatic, by_hand = two_ways "bf16"
    local function second(run)
      local _, loss = run()
      local sum = 0
      for _, g in ipairs(marea.grad(loss, leaves, {create_graph = true})) do sum = g:square():sum() + sum end
      return marea.grad(sum, leaves)
    end
    local expected = second(by_hand)
    for i, g in ipairs(second(function() return marea.autocast(automatic) end)) do
      assert.are.equal("f32", g.dtype)
      equal(g, expected[i], "outside, gradient " .. i)
    end
    for i, g in ipairs(marea.autocast(second, automatic)) do
      assert.is_true((g - expected[i]):abs():max():item() <= 0.02 * expected[i]:abs():max():item(), "inside " .. i)
    end
  end)

  it("blames the operator that made the first NaN", function()
    local w = marea.ones{2, 2}:requires_grad_()
    local message = message_of(function()
      marea.autocast(function() (marea.ones{1, 2}:matmul(w) - 3):log():sum():backward() end)
    end)
    assert.is_truthy(message:find("log", 1, true))
  end)

  it("finds the values of a parameter that has changed", function()
    local w, x = marea.ones{2, 2}:requires_grad_(), marea.ones{1, 2}
    marea.autocast(function()
      assert.are.same({{2, 2}}, x:matmul(w):totable())
      marea.no_grad(function() w:mul_(3) end)
      assert.are.same({{6, 6}}, x:matmul(w):totable())
      local other = w:detach():requires_grad_()
      assert.are.same({{6, 6}}, x:matmul(other):totable())
      assert.are.same({{6, 6}}, x:matmul(w:transpose(1, 2)):totable())
    end)
  end)
end)

--- Calls of cast that convert to `dtype` in f, by way of the bytes of a trace.
local function casts(f)
  local p = marea.profile(f)
  local n = 0
  for _, row in ipairs(p.rows) do if row.op == "cast" then n = n + row.calls end end
  return n
end

describe("the casts of parameters", function()
  local x = marea.ones{4, 8}
  local lowered = marea.ones({4, 8}, {dtype = "bf16"})

  --- How many casts f makes beyond those of products that get bf16 already.
  local function beyond(products, f)
    local v = marea.ones({8, 8}, {dtype = "bf16"})
    local each = casts(function() marea.autocast(function() lowered:matmul(v) end) end)
    return casts(f) - products * each
  end

  it("are made once within the outermost autocast", function()
    local w = marea.normal{8, 8}:requires_grad_()
    assert.are.equal(1, beyond(3, function()
      marea.autocast(function()
        for _ = 1, 2 do lowered:matmul(w) end
        marea.autocast(function() lowered:matmul(w) end)
      end)
    end))
    assert.are.equal(2, beyond(2, function()
      for _ = 1, 2 do marea.autocast(function() lowered:matmul(w) end) end
    end))
    assert.are.equal(2, beyond(2, function()
      marea.autocast(function()
        lowered:matmul(w)
        marea.no_grad(function() w:mul_(2) end)
        lowered:matmul(w)
      end)
    end))
  end)

  it("are made each time for what is no parameter", function()
    local c = marea.normal{8, 8}
    assert.are.equal(2, beyond(2, function()
      marea.autocast(function() for _ = 1, 2 do lowered:matmul(c) end end)
    end))
  end)

  it("serve calls with and without recording, and several reverse passes", function()
    local w = marea.normal{8, 3}:requires_grad_()
    marea.autocast(function()
      marea.no_grad(function() return x:matmul(w) end)
      for i = 1, 3 do
        x:matmul(w):sum():backward()
        assert.are.same({4 * i, 4 * i, 4 * i}, w.grad[1]:totable())
      end
    end)
    assert.are.equal("f32", w.grad.dtype)
  end)

  it("leave parameters that are out of use to be freed, and are freed at the end", function()
    local before = marea.memory().live
    marea.autocast(function()
      for i = 1, 40 do
        local w = marea.normal{8, i}:requires_grad_()
        x:matmul(w):sum():backward()
        assert.is_false(w:in_graph())
      end
    end)
    collectgarbage()
    collectgarbage()
    assert.is_true(marea.memory().live - before < 4096)
  end)

  it("of a plan are not those of a run", function()
    local net = nn.Sequential{nn.Linear{8, 16, activation = "relu"}, nn.Linear{16, 3}}
    marea.autocast(function()
      net(x)
      local p = marea.plan(function() return net(x):sum() end)
      assert.is_true(p.peak > 0)
      equal(net(x):detach(), marea.autocast(net, x):detach(), "after the plan")
      marea.plan(function() return net(x):sum() end)
    end)
    marea.autocast(net, x)
  end)

  it("take no memory from the system once a step repeats itself", function()
    local net = nn.Sequential{nn.Linear{64, 64, activation = "relu"}, nn.Linear{64, 64}}
    local adam, input = optim.Adam(net:parameters(), {lr = 1e-3}), marea.normal{32, 64}
    local function step()
      adam:step(function() return marea.autocast(function() return (net(input) - 1):square():mean() end) end)
    end
    for _ = 1, 4 do step() end
    local before = marea.memory().mallocs
    for _ = 1, 20 do step() end
    assert.are.equal(before, marea.memory().mallocs)
  end)
end)

describe("autocast", function()
  local x, w = marea.ones{2, 3}, marea.ones{3, 2}
  local function dtype_of_product() return x:matmul(w).dtype end

  it("hands arguments and results through, and calls objects", function()
    local layer = nn.Linear{3, 2}
    assert.are.equal("bf16", marea.autocast(layer, x).dtype)
    local function f(...) return 1, "a", select("#", ...) end
    assert.are.same({1, "a", 4}, {marea.autocast({}, f, 1, nil, 2, nil)})
    assert.are.same({1, "a", 0}, {marea.autocast(f)})
    assert.are.equal("f16", marea.autocast({dtype = "f16"}, dtype_of_product))
  end)

  it("nests, and is switched off by f32", function()
    marea.autocast(function()
      assert.are.equal("bf16", marea.autocasting())
      marea.autocast({dtype = "f16"}, function() assert.are.equal("f16", dtype_of_product()) end)
      marea.autocast({dtype = "f32"}, function()
        assert.is_nil(marea.autocasting())
        assert.are.equal("f32", dtype_of_product())
      end)
      assert.are.equal("bf16", dtype_of_product())
      assert.are.equal("bf16", marea.no_grad(dtype_of_product))
    end)
    assert.is_nil(marea.autocasting())
  end)

  it("ends with an error, in a shield, in an attempt, in a step and in a coroutine that dies", function()
    local net = nn.Linear{3, 2}
    local sgd = optim.SGD(net:parameters(), {lr = 0.1})
    local function fails() marea.autocast(error, "inside") end
    assert.is_false(pcall(fails))
    assert.is_false(pcall(marea.shield, nil, fails))
    assert.is_false(pcall(function() sgd:step(fails) end))
    assert.is_false(pcall(marea.plan, fails))
    assert.is_nil(marea.autocasting())
    assert.is_false(coroutine.resume(coroutine.create(fails)))
    assert.are.equal("f32", dtype_of_product())
    assert.is_nil(marea.autocasting())
    marea.autocast(function() assert.is_false(pcall(fails)) assert.are.equal("bf16", marea.autocasting()) end)
  end)

  it("cannot be left by a yield", function()
    local step = coroutine.wrap(function() return pcall(marea.autocast, coroutine.yield) end)
    local ok, message = step()
    assert.is_false(ok)
    assert.is_truthy(tostring(message):find("yield", 1, true))
    assert.is_nil(marea.autocasting())
  end)

  it("of a sandbox is its own", function()
    local box <close> = marea.sandbox{seconds = 5}
    local ok, result = box:run[[
      assert(marea.autocasting() == nil)
      pcall(marea.autocast, error)
      assert(marea.autocasting() == nil)
      return marea.autocast(function() return marea.ones{2, 2}:matmul(marea.ones{2, 2}).dtype end)]]
    assert.are.same({true, "bf16"}, {ok, result})
    marea.autocast(function()
      assert.are.same({true, "f32"}, {box:run "return marea.ones{2, 2}:matmul(marea.ones{2, 2}).dtype"})
    end)
  end)

  it("names what is wrong", function()
    local function says(f, text) assert.is_truthy(message_of(f):find(text, 1, true), message_of(f)) end
    says(function() marea.autocast(x) end, "autocast: argument 'f': expected a function, got tensor f32 (2, 3)")
    says(function() marea.autocast{dtype = "bf16"} end, "autocast: argument 'f': expected a function, got")
    says(function() marea.autocast({dtype = "f64"}, print) end,
      "autocast: argument 'dtype': expected one of 'bf16', 'f16', 'f32', got string 'f64'")
    says(function() marea.autocast({type = "bf16"}, print) end, "autocast: unknown argument 'type'")
  end)
end)

describe("training under autocast", function()
  it("learns as in f32", function()
    local function train(run)
      marea.seed(11)
      local net = nn.Sequential{nn.Linear{2, 32, activation = "relu"}, nn.BatchNorm{32},
        nn.Linear{32, 32, activation = "relu"}, nn.Linear{32, 2}}
      local adam = optim.Adam(net:parameters(), {lr = 3e-3})
      local points = marea.uniform{shape = {256, 2}, low = -1, high = 1}
      local side = (points:select(2, 1) * points:select(2, 2)):gt(0):to "i64" + 1
      local last
      for _ = 1, 150 do
        last = adam:step(function() return run(function() return marea.cross_entropy(net(points), side) end) end)
      end
      for _, p in ipairs(net:parameters()) do assert.are.equal("f32", p.dtype) end
      net:evaluate()
      return net(points):argmax(2):eq(side):to("f32"):mean():item(), last
    end
    local right, loss = train(marea.autocast)
    local right_too, loss_too = train(function(f) return f() end)
    assert.is_true(right > 0.95 and right_too > 0.95, ("%g %g"):format(right, right_too))
    loss, loss_too = loss:item(), loss_too:item()
    assert.is_true(loss < 0.15 and loss_too < 0.15, ("%g %g"):format(loss, loss_too))
  end)

  it("works around a whole loop as around the loss, with equal bits", function()
    local function train(around, within)
      marea.seed(2)
      local net = nn.Sequential{nn.Linear{8, 16, activation = "relu"}, nn.Dropout{0.2}, nn.Linear{16, 1}}
      local adam, x, y = optim.Adam(net:parameters(), {lr = 0.01}), marea.normal{32, 8}, marea.normal{32, 1}
      around(function()
        for _ = 1, 5 do adam:step(function() return within(function() return marea.mse(net(x), y) end) end) end
      end)
      return net:parameters()
    end
    local function plain(f) return f() end
    local a, b = train(plain, marea.autocast), train(marea.autocast, plain)
    for i, p in ipairs(a) do equal(b[i], p, "parameter " .. i) end
  end)

  it("of a small VAE lowers the loss, and goes on from a file with equal bits", function()
    marea.seed(7)
    local model, x, noise = small_vae.new(), marea.uniform{32, 8, 8, 1}:gt(0.5):to "f32", marea.normal{32, 2}
    local function step() return marea.autocast(small_vae.step, model, x, noise, {lr = 3e-3}) end
    local first = step()
    for _ = 1, 20 do step() end
    local path, tensors, random = os.tmpname(), {}, {marea.random_state()}
    for name, t in pairs(model.weights) do tensors["w." .. name] = t:detach():clone() end
    for name, t in pairs(model.squares) do tensors["s." .. name] = t:clone() end
    assert(marea.save(path, tensors))
    local last
    for _ = 1, 5 do last = step() end
    assert.is_true(last < first)
    local loaded = assert(marea.load(path))
    os.remove(path)
    for name in pairs(model.weights) do
      model.weights[name] = loaded["w." .. name]:requires_grad_()
      model.squares[name] = loaded["s." .. name]
    end
    marea.set_random_state(table.unpack(random))
    local again
    for _ = 1, 5 do again = step() end
    assert.are.equal(last, again)
  end)
end)
