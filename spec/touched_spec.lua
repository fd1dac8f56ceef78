-- SPDX-License-Identifier: MIT
-- nn.Embedding{sparse = true}: gradients and steps of the rows that were read, against the dense ones and loops of Lua.
local marea = require "marea"
local core = require "marea.core"
local check = require "marea.internal.check"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local nn, optim = marea.nn, marea.optim

local function i64(list) return marea.tensor(list, {dtype = "i64"}) end

local function table_of(rows, size, options)
  marea.seed(5)
  options = options or {}
  options[1], options[2] = rows, size
  return nn.Embedding(options)
end

local function loss_of(e, index, dy) return (e(index) * dy):sum() end

--- The weight after some steps of optimizer `make` with lookups of the rows in `batches`.
local function trained(make, options, batches)
  local e = table_of(9, 3, options)
  local optimizer = make(e)
  for k, batch in ipairs(batches) do
    marea.seed(100 + k)
    optimizer:step(function()
      local loss = 0
      for _, index in ipairs(batch) do loss = loss + loss_of(e, i64(index), marea.normal{#index, 3}) end
      return loss
    end)
  end
  return e.weight:totable(), optimizer, e
end

local BATCHES <const> = {{{7, 2, 7}}, {{1, 1}, {9, 1}, {1, 4, 9}}, {{}}, {{2}, {2, 7, 5}}}

--- Adam of the rows read in each step only, in numbers of Lua.
local function lazy_adam(w, steps, a)
  local m, v = {}, {}
  for r, row in ipairs(w) do m[r], v[r] = {}, {}; for h = 1, #row do m[r][h], v[r][h] = 0, 0 end end
  for t, g in ipairs(steps) do
    for r, row in pairs(g) do
      for h, d in ipairs(row) do
        w[r][h] = w[r][h] - a.lr * a.weight_decay * w[r][h]
        m[r][h] = a.beta1 * m[r][h] + (1 - a.beta1) * d
        v[r][h] = a.beta2 * v[r][h] + (1 - a.beta2) * d * d
        w[r][h] = w[r][h] - a.lr * (m[r][h] / (1 - a.beta1 ^ t)) / (math.sqrt(v[r][h] / (1 - a.beta2 ^ t)) + a.eps)
      end
    end
  end
  return w
end

describe("a sparse embedding", function()
  it("gives the bits of the dense one with SGD, also for several lookups in a step and a padding", function()
    local function sgd(e) return optim.SGD{e, lr = 0.1} end
    for _, padding in ipairs{0, 2} do
      padding = padding > 0 and padding or nil
      assert.are.same((trained(sgd, {padding = padding}, BATCHES)),
        (trained(sgd, {padding = padding, sparse = true}, BATCHES)))
    end
  end)

  it("counts its rows in clip_norm and clip_value", function()
    local function clipped(e) return optim.SGD{e, lr = 0.1, clip_norm = 0.5, clip_value = 0.2} end
    allclose.assert(marea.tensor((trained(clipped, {sparse = true}, BATCHES))),
      marea.tensor((trained(clipped, {}, BATCHES))), {rtol = 1e-5, atol = 1e-6})
  end)

  it("is stepped by AdamW in the rows that were read only, as a loop does it", function()
    local a = {lr = 0.1, beta1 = 0.8, beta2 = 0.9, eps = 1e-8, weight_decay = 0.1}
    local e = table_of(5, 2, {sparse = true, dtype = "f64"})
    local expected = e.weight:totable()
    local optimizer = optim.AdamW{e, lr = 0.1, beta1 = 0.8, beta2 = 0.9, weight_decay = 0.1}
    local steps = {{[2] = {1, -2}, [4] = {3, 0.5}}, {[4] = {-1, 2}}, {[1] = {2, 2}, [2] = {0.25, 1}}}
    for _, g in ipairs(steps) do
      local index, dy = {}, {}
      for r, row in pairs(g) do index[#index + 1], dy[#dy + 1] = r, row end
      optimizer:step(loss_of(e, i64(index), marea.tensor(dy, {dtype = "f64"})))
    end
    expected = lazy_adam(expected, steps, a)
    allclose.assert(e.weight, marea.tensor(expected, {dtype = "f64"}), {rtol = 1e-12, atol = 1e-12})
    assert.is_nil(e.weight.grad)
  end)

  it("gets one dense gradient when its weight is used elsewhere too", function()
    local function tied(sparse)
      local e = table_of(6, 3, {sparse = sparse})
      local optimizer = optim.Adam{e, lr = 0.1}
      for _ = 1, 3 do
        optimizer:step(function() return (e(i64{2, 5, 2}):matmul(e.weight:transpose(1, 2))):square():sum() end)
      end
      return e.weight
    end
    allclose.assert(tied(true), tied(false), {rtol = 1e-5, atol = 1e-6})
  end)

  it("goes on from a saved state with the same bits", function()
    local function adam(e) return optim.Adam{e, lr = 0.1} end
    local _, optimizer, e = trained(adam, {sparse = true}, BATCHES)
    local again = table_of(9, 3, {sparse = true})
    again:load_state(e:state())
    local other = optim.Adam{again, lr = 0.1}
    other:load_state(optimizer:state())
    for _, pair in ipairs{{e, optimizer}, {again, other}} do
      pair[2]:step(loss_of(pair[1], i64{3, 7, 3}, marea.ones{3, 3}))
    end
    assert.are.same(e.weight:totable(), again.weight:totable())
  end)

  it("gives the same bits for any number of threads", function()
    local threads <const> = core.threads()
    local _ <close> = marea.finally(function() core.set_threads(threads) end)
    local first
    for n = 1, 4 do
      core.set_threads(n)
      marea.seed(8)
      local e = nn.Embedding{500, 64, sparse = true}
      local optimizer = optim.Adam{e, lr = 0.1}
      for _ = 1, 3 do
        optimizer:step(function() return loss_of(e, marea.randint({30, 20}, 1, 500), marea.normal{30, 20, 64}) end)
      end
      first = first or e.weight:clone()
      assert.are.equal(0, (first - e.weight):abs():max():item())
    end
  end)

  it("adds gradients up until the step, and drops them in zero_grad, evaluate and freeze", function()
    local function sgd(e) return optim.SGD{e, lr = 1} end
    local e = table_of(4, 1, {sparse = true})
    local optimizer, before = sgd(e), e.weight:clone():detach()
    loss_of(e, i64{1}, 1):backward()
    loss_of(e, i64{1, 3}, 1):backward()
    optimizer:step()
    assert.are.same({{2}, {0}, {1}, {0}}, (before - e.weight:detach()):round():totable())
    loss_of(e, i64{1}, 1):backward()
    optimizer:zero_grad()
    assert.matches("no parameter has a gradient", message_of(function() optimizer:step() end))
    e:evaluate()
    loss_of(e, i64{2}, 1):backward()
    assert.are.same({{0}, {1}, {0}, {0}}, e.weight.grad:totable())
    e:freeze()
    assert.is_false(e(i64{1}).requires_grad)
  end)

  it("forgets the lookups of a step that failed, and those of a plan", function()
    local e = table_of(4, 1, {sparse = true})
    local optimizer = optim.SGD{e, lr = 1}
    local function fails()
      e(i64{1})
      error("no", 0)
    end
    assert.is_false((pcall(optimizer.step, optimizer, fails)))
    local before = e.weight:clone():detach()
    local function step() optimizer:step(function() return loss_of(e, i64{2}, 1) end) end
    marea.plan(step)
    assert.are.equal(0, optimizer.steps)
    step()
    assert.are.same({{0}, {1}, {0}, {0}}, (before - e.weight:detach()):round():totable())
  end)

  it("keeps gradients beyond the scope of the reverse pass, as a dense one does", function()
    local function scoped(sparse, make)
      local e = table_of(6, 2, {sparse = sparse})
      local optimizer = make(e)
      for _ = 1, 3 do
        for _, index in ipairs{{5}, {2, 5}} do
          marea.scope(function() loss_of(e, i64(index), 3):backward() end)
          collectgarbage()
        end
        optimizer:step()
      end
      return e.weight:totable()
    end
    local function sgd(e) return optim.SGD{e, lr = 0.1} end
    assert.are.same(scoped(nil, sgd), scoped(true, sgd))
    local function adam(e) return optim.Adam{e, lr = 0.1} end
    assert.are_not.same(table_of(6, 2, {}).weight:totable(), scoped(true, adam))
  end)

  it("does not mind that the numbers change after the lookup", function()
    local e, index = table_of(4, 1, {sparse = true}), i64{1}
    local optimizer, before = optim.SGD{e, lr = 1}, e.weight:clone():detach()
    local loss = loss_of(e, index, 1)
    index:fill_(3)
    optimizer:step(loss)
    assert.are.same({{1}, {0}, {0}, {0}}, (before - e.weight:detach()):round():totable())
  end)

  it("holds no more than a few times the table when no step comes", function()
    local e = table_of(50, 64, {sparse = true})
    local optimizer, before = optim.SGD{e, lr = 1}, e.weight:clone():detach()
    local index, row <const> = marea.randint({40}, 1, 50), 50 * 64 * 4
    local function grown(n, f)
      collectgarbage()
      local was = marea.memory().live
      for _ = 1, n do marea.scope(f) end
      collectgarbage()
      return marea.memory().live - was
    end
    assert.is_true(grown(500, function() e(index) end) < 2 * row)
    assert.is_true(grown(500, function() (e(index) / 500):sum():backward() end) < 8 * row)
    optimizer:step()
    local counts = marea.zeros(50):index_add(index, marea.ones(40)):unsqueeze(2):expand(50, 64)
    allclose.assert(before - e.weight:detach(), counts, {rtol = 1e-4, atol = 1e-4})
    assert.is_true(grown(1, function() optimizer:step(function() return e(index):sum() end) end) < row)
  end)

  it("is one table for several lookups, layers and optimizers, each step taking what is there", function()
    local function shared(sparse)
      local a, b = table_of(6, 2, {sparse = sparse}), table_of(6, 2, {sparse = sparse})
      b.weight = a.weight
      local first, second = optim.SGD{a, lr = 0.1}, optim.SGD{b, lr = 0.2}
      first:step(loss_of(a, i64{1, 2}, 1) + loss_of(b, i64{2, 4}, 2))
      local loss = loss_of(a, i64{6}, 3)
      loss:backward{retain_graph = true}
      loss:backward()
      second:step()
      assert.matches("no parameter has a gradient", message_of(function() first:step() end))
      return a.weight:totable()
    end
    assert.are.same(shared(nil), shared(true))
  end)

  it("forgets the gradients of a layer that is frozen, and of a step whose norm is not finite", function()
    local e = table_of(4, 1, {sparse = true})
    local optimizer, before = optim.SGD{e, lr = 1, clip_norm = 1}, e.weight:totable()
    loss_of(e, i64{1}, 1):backward()
    e:freeze():unfreeze()
    assert.matches("no parameter has a gradient", message_of(function() optimizer:step() end));
    (e(i64{1}) * math.huge):sum():backward{allow_not_finite = true}
    assert.matches("the norm of the gradients is inf", message_of(function() optimizer:step() end))
    assert.matches("no parameter has a gradient", message_of(function() optimizer:step() end))
    assert.are.same(before, e.weight:totable())
  end)

  it("takes AdamW's step in Muon's group with adam = true, and none in another, before anything has changed", function()
    local function made(make)
      local net = {e = table_of(9, 3, {sparse = true}), head = nn.parameter(marea.normal{3, 2})}
      net.optimizer = make(net)
      function net.loss() return net.e(i64{7, 2, 7}):matmul(net.head):square():sum() end
      return net
    end
    local a = made(function(net)
      return optim.Muon{{net.e, adam = true, weight_decay = 0.2}, {net.head}, lr = 0.1, clip_norm = 1e9}
    end)
    local b = made(function(net) return optim.AdamW{net.e, lr = 0.1, weight_decay = 0.2} end)
    for _ = 1, 3 do
      b.head:detach():copy_(a.head:detach())
      a.optimizer:step(a.loss)
      b.optimizer:step(b.loss)
      assert.are.same(b.e.weight:totable(), a.e.weight:totable())
    end
    local c = made(function(net) return optim.Muon{net.head, net.e, lr = 0.1} end)
    local e, head, muon = c.e.weight:totable(), c.head:totable(), c.optimizer
    assert.matches("Muon: parameter '2.weight' is a sparse table", message_of(function() muon:step(c.loss) end))
    assert.are.same({e, head, 0, {"steps"}},
      {c.e.weight:totable(), c.head:totable(), muon.steps, check.names(muon:state())})
  end)

  it("and a dense one are as before a step of a loss that fails, so that it can be made again", function()
    for _, sparse in ipairs{false, true} do
      local e, fails = table_of(4, 1, {sparse = sparse}), true
      local optimizer = optim.SGD{e, lr = function() return fails and error "no rate" or 1 end}
      local before = e.weight:detach():clone()
      local function loss() return loss_of(e, i64{2, 2}, 1) end
      assert.matches("no rate", message_of(function() optimizer:step(loss) end))
      assert.matches("no rate", message_of(function() optimizer:step(loss()) end))
      fails = false
      optimizer:step(loss)
      allclose.assert(before - e.weight:detach(), marea.tensor{{0}, {2}, {0}, {0}}, {rtol = 0, atol = 1e-6})
    end
  end)

  it("and dense ones are clipped together when a step from gradients fails behind that and is made again", function()
    local spec = optim.SGD.spec
    for _, case in ipairs{"one lookup", "two lookups", "tied", "dense"} do
      --- The weights after a step; `fails`: after one that has failed between clip_norm and the update.
      local function after(fails)
        local e, other = table_of(4, 2, {sparse = case ~= "dense"}), nn.parameter(marea.ones{3})
        local optimizer = optim.SGD{e, other, lr = 1, clip_norm = 0.5}
        loss_of(e, i64{2, 3, 2}, 1):backward()
        if case == "two lookups" then loss_of(e, i64{2, 4}, 2):backward() end
        if case == "tied" then (e.weight * 0.1):sum():backward() end
        other:sum():backward()
        if fails then
          spec.prepare = function() error("no memory", 0) end
          local _, message = pcall(optimizer.step, optimizer)
          spec.prepare = nil
          assert.are.equal("no memory", message)
        end
        optimizer:step()
        return marea.concat({e.weight:detach():reshape(-1), other:detach()}, 1)
      end
      allclose.assert(after(true), after(false), {rtol = 1e-5, atol = 1e-6})
    end
  end)

  it("refuses a number that is no row with its place, and a sparse that is no boolean", function()
    local e = table_of(4, 1, {sparse = true})
    assert.matches("element %(1, 2%) of .* is 5, expected 1 to 4", message_of(function() e(i64{{1, 5}}) end))
    assert.matches("true or false", message_of(function() nn.Embedding{4, 1, sparse = 1} end))
  end)
end)

describe("a step of rows", function()
  local STEPS <const> = {
    sgd_step = {states = 1, {lr = 0.1, momentum = 0.9, nesterov = true, weight_decay = 0.1}, {lr = 0.5}},
    rmsprop_step = {states = 2, {lr = 0.1, momentum = 0.9, weight_decay = 0.1}, {lr = 0.5}},
    adam_step = {states = 2, {lr = 0.1, step = 3, l2 = 0.1}, {lr = 0.1, step = 1, weight_decay = 0.1}},
    adagrad_step = {states = 1, {lr = 0.1, weight_decay = 0.1}, {lr = 0.5}},
  }

  --- p, then its states, after the step `name` of the whole, or of `rows`.
  local function stepped(name, states, attributes, shape, rows, dtype)
    marea.seed(3)
    local tensors = {}
    for i = 1, states + 1 do tensors[i] = marea.uniform{shape = shape, dtype = dtype} end
    local g = marea.normal{shape = shape, dtype = dtype}
    if rows then g = g:index_select(rows) end
    local inputs = {tensors[1], g, tensors[2], tensors[3]}
    inputs[#inputs + 1] = rows
    inputs[#inputs + 1] = attributes
    core.ops[name](table.unpack(inputs))
    return tensors
  end

  it("gives these rows the bits of the dense step and leaves the others alone", function()
    for _, shape in ipairs{{7}, {7, 5}, {7, 3, 300}, {7, 0}} do
      for _, list in ipairs{{1, 2, 4, 7}, {3}, {1, 2, 3, 4, 5, 6, 7}, {}} do
        local rows, others = i64(list), {}
        for r = 1, 7 do others[r] = r end
        for i = #list, 1, -1 do table.remove(others, list[i]) end
        for name, cases in pairs(STEPS) do
          for _, attributes in ipairs(cases) do
            for _, dtype in ipairs{"f32", "f64"} do
              local before = {}
              marea.seed(3)
              for i = 1, cases.states + 1 do before[i] = marea.uniform{shape = shape, dtype = dtype} end
              local dense = stepped(name, cases.states, attributes, shape, nil, dtype)
              for i, t in ipairs(stepped(name, cases.states, attributes, shape, rows, dtype)) do
                assert.are.same(dense[i]:index_select(rows):totable(), t:index_select(rows):totable())
                assert.are.same(before[i]:index_select(i64(others)):totable(), t:index_select(i64(others)):totable())
              end
            end
          end
        end
      end
    end
  end)

  it("refuses rows that do not rise, are none of p or do not fit the gradient, and changes nothing", function()
    local p, g = marea.zeros(3, 2), marea.ones(2, 2)
    local function refused(rows, by)
      return message_of(function() core.ops.sgd_step(p, by or g, nil, rows, {lr = 1}) end)
    end
    assert.matches("element 2 of i64 %(2%) is 4, expected 1 to 3", refused(i64{1, 4}))
    assert.matches("element 1 of i64 %(2%) is 0, expected 1 to 3", refused(i64{0, 1}))
    assert.matches("element 1 of i64 %(2%) is %-9223372036854775808, expected", refused(i64{math.mininteger, 1}))
    assert.matches("element 2 of i64 %(2%) is 2 after 2, expected rising numbers", refused(i64{2, 2}))
    assert.matches("argument 'g': expected the 1 rows of p", refused(i64{2}))
    assert.matches("argument 'g': expected the 2 rows of p", refused(i64{2, 3}, marea.ones(2, 3)))
    assert.are.same({{0, 0}, {0, 0}, {0, 0}}, p:totable())
  end)
end)
