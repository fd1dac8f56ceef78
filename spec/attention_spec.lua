-- SPDX-License-Identifier: MIT
-- scaled_dot_product_attention against a composition of matmul and softmax, and against loops over numbers: masks,
-- lengths, grouped keys, dropout, hidden keys that hold NaN, errors. Its gradients against differences are in ops_spec.
local core = require "marea.core"
local marea = require "marea"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"

local attention = marea.scaled_dot_product_attention
local INF, NAN = math.huge, 0 / 0

local function values(dtype, ...) return marea.uniform({...}, -1, 1, dtype) end

--- Tensors of a call; sizes: n, tq, tk, heads, kv_heads, d, dv.
local function case(s, dtype)
  return {q = values(dtype, s.n, s.tq, s.heads, s.d), k = values(dtype, s.n, s.tk, s.kv_heads or s.heads, s.d),
    v = values(dtype, s.n, s.tk, s.kv_heads or s.heads, s.dv or s.d), attrs = {}}
end

local function call(o) return attention(o.q, o.k, o.v, o.mask, o.lengths, o.attrs) end

--- (N, T, kv_heads, D) to (N, heads, T, D)
local function heads_first(x, heads)
  local n, t, kv, d = table.unpack(x.shape)
  return x:unsqueeze(4):expand {n, t, kv, heads // kv, d}:reshape {n, t, heads, d}:permute {1, 3, 2, 4}
end

--- What hides keys, as a tensor (N, heads, Tq, Tk) of 0 and -infinity
local function hidden(o)
  local n, tq, heads = table.unpack(o.q.shape)
  local tk = o.k:size(2)
  local lengths = o.lengths and o.lengths:totable()
  local t = {}
  for row = 1, n do
    for _ = 1, heads do
      for i = 1, tq do
        for j = 1, tk do
          local hide = (lengths and j > lengths[row]) or (o.attrs.causal and j > i + tk - tq)
          t[#t + 1] = hide and -INF or 0
        end
      end
    end
  end
  return marea.tensor(t, {dtype = o.q.dtype}):reshape {n, heads, tq, tk}
end

local function composed(o)
  local heads, d = o.q:size(3), o.q:size(4)
  local q, k, v = heads_first(o.q, heads), heads_first(o.k, heads), heads_first(o.v, heads)
  local s = marea.matmul(q, k:transpose(3, 4)) * (o.attrs.scale or 1 / math.sqrt(d)) + hidden(o)
  if o.mask then s = s + (o.mask.dtype == "u8" and o.mask:cast(o.q.dtype):log() or o.mask) end
  return marea.matmul(s:softmax(4), v):permute {1, 3, 2, 4}
end

--- Values and gradients agree.
local function compare(o, near)
  local leaves = {o.q:requires_grad_(), o.k:requires_grad_(), o.v:requires_grad_()}
  if o.mask and o.mask.dtype ~= "u8" then leaves[4] = o.mask:requires_grad_() end
  local y, wanted = call(o), composed(o)
  allclose.assert(y, wanted, near)
  local weight = values(o.q.dtype, table.unpack(y.shape))
  local expected = core.grad((wanted * weight):sum(), leaves, {})
  for i, got in ipairs(core.grad((y * weight):sum(), leaves, {})) do allclose.assert(got, expected[i], near) end
end

local DTYPES = {f64 = {rtol = 1e-10, atol = 1e-12}, f32 = {rtol = 1e-4, atol = 2e-5}}
local SIZES = {
  {n = 2, tq = 3, tk = 5, heads = 2, d = 4},
  {n = 1, tq = 130, tk = 261, heads = 2, d = 17, dv = 9},
  {n = 2, tq = 70, tk = 70, heads = 4, kv_heads = 2, d = 8},
  {n = 1, tq = 260, tk = 131, heads = 3, kv_heads = 1, d = 5, dv = 20},
  {n = 1, tq = 1, tk = 300, heads = 2, d = 33},
  {n = 2, tq = 1, tk = 9, heads = 4, kv_heads = 2, d = 3, dv = 300},
}

describe("scaled_dot_product_attention", function()
  before_each(function() marea.seed(5) end)

  it("is softmax(q k / sqrt(d)) v, by loops over numbers", function()
    local o = case({n = 1, tq = 2, tk = 3, heads = 1, d = 2}, "f64")
    local q, k, v, y = o.q:totable(), o.k:totable(), o.v:totable(), call(o):totable()
    for i = 1, 2 do
      local e, sum = {}, 0
      for j = 1, 3 do
        e[j] = math.exp((q[1][i][1][1] * k[1][j][1][1] + q[1][i][1][2] * k[1][j][1][2]) / math.sqrt(2))
        sum = sum + e[j]
      end
      for c = 1, 2 do
        local wanted = 0
        for j = 1, 3 do wanted = wanted + e[j] / sum * v[1][j][1][c] end
        assert.is_true(math.abs(wanted - y[1][i][1][c]) < 1e-14)
      end
    end
  end)

  for dtype, near in pairs(DTYPES) do
    for number, s in ipairs(SIZES) do
      it(("agrees with matmul and softmax, values and gradients, sizes %d, %s"):format(number, dtype), function()
        compare(case(s, dtype), near)
        local o = case(s, dtype)
        o.attrs = {causal = s.tq <= s.tk, scale = 0.4}
        o.lengths = s.tq > s.tk and marea.tensor({s.tk // 2}, {dtype = "i64"}) or nil
        compare(o, near)
      end)
    end

    it("takes masks of every shape that broadcasts, " .. dtype, function()
      local s = {n = 2, tq = 5, tk = 140, heads = 4, kv_heads = 2, d = 3}
      for _, shape in ipairs {{2, 4, 5, 140}, {1, 4, 5, 140}, {2, 1, 1, 140}, {5, 140}, {140}, {4, 1, 1}, {1}, {}} do
        local o = case(s, dtype)
        o.mask = values(dtype, table.unpack(shape))
        compare(o, near)
        o = case(s, dtype)
        o.mask = marea.uniform(shape, -1, 2, "f64"):gt(0):cast "u8"
        if #shape >= 1 and shape[#shape] == 140 then compare(o, near) end
      end
    end)
  end

  it("gives zeros, and zero gradients, to a query that sees no key", function()
    local o = case({n = 2, tq = 200, tk = 150, heads = 2, d = 4}, "f64")
    o.attrs.causal, o.lengths = true, marea.tensor({0, 150}, {dtype = "i64"})
    for _, x in ipairs {o.q, o.k, o.v} do x:requires_grad_() end
    local y = call(o)
    y:sum():backward()
    assert.equal(0, y:narrow(1, 1, 1):abs():max():item())
    assert.equal(0, y:narrow(2, 1, 50):abs():max():item())
    assert.is_true(y:narrow(1, 2, 1):narrow(2, 51, 150):abs():min():item() > 0)
    for _, x in ipairs {o.q, o.k, o.v} do
      assert.equal(0, x.grad:narrow(1, 1, 1):abs():max():item())
      assert.is_true(x.grad:isfinite():all():item() == 1)
    end
    assert.equal(0, o.q.grad:narrow(2, 1, 50):abs():max():item())
    o.mask, o.lengths, o.attrs.causal = marea.full({200, 150}, -INF, {dtype = "f64"}), nil, nil
    assert.equal(0, call(o):abs():max():item())
  end)

  it("lets NaN and infinity behind hidden keys reach nothing", function()
    local s = {n = 1, tq = 140, tk = 140, heads = 2, d = 4}
    local function run(bad, hide)
      marea.seed(9)
      local o = case(s, "f64")
      hide(o)
      if bad then
        for _, x in ipairs {o.k, o.v} do x:narrow(2, 140, 1):fill_(bad) end
      end
      for _, x in ipairs {o.q, o.k, o.v} do x:requires_grad_() end
      local y = call(o):narrow(2, 1, 139)
      y:sum():backward()
      return {y, o.q.grad:narrow(2, 1, 139), o.k.grad:narrow(2, 1, 139), o.v.grad:narrow(2, 1, 139)}
    end
    local ways = {
      function(o) o.attrs.causal = true end,
      function(o) o.lengths = marea.tensor({139}, {dtype = "i64"}) end,
      function(o) o.mask = marea.arange(1, 140):lt(140) end,
      function(o)
        o.mask = marea.zeros({140}, {dtype = "f64"})
        o.mask[140] = -INF
      end,
    }
    for _, hide in ipairs(ways) do
      local good = run(nil, hide)
      for _, bad in ipairs {NAN, INF, -INF} do
        local got = run(bad, hide)
        -- with causal the last query sees it, and so its gradient reaches the keys and values that this one sees
        if hide == ways[1] then got[3], got[4] = nil, nil end
        for i, x in ipairs(got) do allclose.assert(x, good[i], {rtol = 1e-12, atol = 1e-14}) end
      end
    end
  end)

  it("shows a NaN that is seen", function()
    local o = case({n = 1, tq = 3, tk = 3, heads = 1, d = 2}, "f32")
    o.attrs.causal = true
    o.k:narrow(2, 2, 1):fill_(NAN)
    local y = call(o)
    assert.are.same({{{{0, 0}}, {{1, 1}}, {{1, 1}}}}, y:isnan():totable())
  end)

  it("has the bits of one thread with any number of threads", function()
    local threads = core.threads()
    local wanted
    for count = 1, 4 do
      core.set_threads(count)
      marea.seed(4)
      local o = case({n = 1, tq = 300, tk = 500, heads = 4, kv_heads = 2, d = 24}, "f32")
      o.attrs = {causal = true, dropout = 0.3}
      for _, x in ipairs {o.q, o.k, o.v} do x:requires_grad_() end
      local y = call(o)
      y:square():sum():backward()
      local got = {y, o.q.grad, o.k.grad, o.v.grad}
      wanted = wanted or got
      for i, x in ipairs(got) do assert.equal(1, x:eq(wanted[i]):all():item()) end
    end
    core.set_threads(threads)
  end)

  it("drops weights with their probability, and the same ones backward", function()
    local n = 400
    local o = case({n = 1, tq = n, tk = n, heads = 1, d = 4}, "f64")
    o.q = marea.zeros({1, n, 1, 4}, {dtype = "f64"})
    o.v = marea.eye(n, {dtype = "f64"}):reshape {1, n, 1, n}
    o.attrs = {dropout = 0.25, seed = 3}
    local weights = call(o):reshape {n, n}
    local share = weights:eq(0):cast "f64":mean():item()
    assert.is_true(math.abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / n / n))
    local kept = weights:max():item()
    assert.is_true(math.abs(kept - 1 / n / 0.75) < 1e-12)
    for dim = 1, 2 do
      local rows = weights:eq(0):cast "f64":mean(dim)
      assert.is_true(rows:max():item() < 0.4 and rows:min():item() > 0.12)
    end
    o.attrs.dropout = 1
    assert.equal(0, call(o):abs():max():item())
  end)

  it("has the gradient of what was not dropped", function()
    local o = case({n = 1, tq = 5, tk = 70, heads = 2, d = 3}, "f64")
    local function f(q, k, v) return attention(q, k, v, {dropout = 0.4, causal = true}) end
    assert.is_true(marea.gradcheck(f, o.q, o.k, o.v).ok)
  end)

  it("computes the gradients that are wanted alone", function()
    local o = case({n = 1, tq = 40, tk = 150, heads = 2, d = 4}, "f64")
    local names = {"q", "k", "v"}
    local function gradient(list)
      for _, name in ipairs(names) do o[name] = o[name]:detach() end
      local leaves = {}
      for i, name in ipairs(list) do leaves[i] = o[name]:requires_grad_() end
      return core.grad(call(o):square():sum(), leaves, {})
    end
    local all = gradient(names)
    for i, name in ipairs(names) do assert.equal(1, gradient({name})[1]:eq(all[i]):all():item()) end
  end)

  it("takes memory that is linear in the length, and tells its FLOPs", function()
    local function plan(t)
      return marea.plan(function()
        local function leaf() return marea.zeros {1, t, 8, 64}:requires_grad_() end
        attention(leaf(), leaf(), leaf(), {causal = true}):sum():backward()
      end)
    end
    local short, long = plan(4096), plan(8192)
    assert.is_true(long.peak - long.alive < 2.01 * (short.peak - short.alive))
    assert.is_true(long.peak - long.alive < 10 * 4 * 8192 * 8 * 64) -- of ten tensors; the weights would be 64
    local products = 2 * 64 * 8 * 8192 * 8193 / 2
    assert.is_true(long.forward >= 2 * products and long.forward < 2.01 * products)
    assert.is_true(long.backward >= 5 * products and long.backward < 5.01 * products)
  end)

  it("names what is wrong", function()
    local function fails(pattern, change)
      local o = case({n = 2, tq = 3, tk = 4, heads = 4, kv_heads = 2, d = 4}, "f32")
      change(o)
      assert.matches(pattern, message_of(function() call(o) end), 1, true)
    end
    fails("'lengths': row 2 has length 5, expected 0 to 4", function(o)
      o.lengths = marea.tensor({4, 5}, {dtype = "i64"})
    end)
    fails("has 4 heads, k f32 (2, 4, 3, 4) 3: expected a multiple", function(o)
      o.k, o.v = values("f32", 2, 4, 3, 4), values("f32", 2, 4, 3, 4)
    end)
    fails("does not broadcast to (N, heads, Tq, Tk) = (2, 4, 3, 4)", function(o) o.mask = marea.zeros {3, 3} end)
    fails("or u8, where 0 hides a key (mask:cast('u8')), got i64", function(o)
      o.mask = marea.zeros({4}, {dtype = "i64"})
    end)
    fails("'dropout': expected 0 to 1, got 1.5", function(o) o.attrs.dropout = 1.5 end)
    fails("q's last size", function(o) o.k = values("f32", 2, 4, 2, 5) end)
    fails("'v'", function(o) o.v = values("f32", 2, 5, 2, 4) end)
  end)
end)

describe("additive_attention", function()
  before_each(function() marea.seed(5) end)

  local function composed_weights(query, key, v, lengths)
    local tk = key:size(2)
    local scores = ((query:unsqueeze(3) + key:unsqueeze(2)):tanh() * v):sum(4)
    if not lengths then return scores:softmax(3) end
    local t = {}
    for _, length in ipairs(lengths:totable()) do
      for j = 1, tk do t[#t + 1] = j > length and -INF or 0 end
    end
    return (scores + marea.tensor(t, {dtype = query.dtype}):reshape {key:size(1), 1, tk}):softmax(3)
  end

  for dtype, near in pairs(DTYPES) do
    it("agrees with tanh and softmax, values and gradients, " .. dtype, function()
      for number, s in ipairs {{2, 3, 5, 4}, {1, 20, 70, 130}, {3, 1, 33, 17}, {3, 9, 6, 1}} do
        local n, tq, tk, h = table.unpack(s)
        local leaves = {values(dtype, n, tq, h):requires_grad_(), values(dtype, n, tk, h):requires_grad_(),
          values(dtype, h):requires_grad_()}
        local lengths = number > 2 and marea.tensor({tk, 1, 0}, {dtype = "i64"}) or nil
        local y = marea.additive_attention(leaves[1], leaves[2], leaves[3], lengths)
        local wanted = composed_weights(leaves[1], leaves[2], leaves[3], lengths)
        allclose.assert(y, wanted, near)
        local weight = values(dtype, n, tq, tk)
        local expected = core.grad((wanted * weight):sum(), leaves, {})
        for i, got in ipairs(core.grad((y * weight):sum(), leaves, {})) do allclose.assert(got, expected[i], near) end
      end
    end)
  end

  it("lets NaN behind the end of a row reach nothing", function()
    local query, key, v = values("f64", 1, 3, 4), values("f64", 1, 5, 4), values("f64", 4)
    key:narrow(2, 4, 2):fill_(NAN)
    for _, x in ipairs {query, key, v} do x:requires_grad_() end
    local y = marea.additive_attention(query, key, v, marea.tensor({3}, {dtype = "i64"}))
    for _, x in ipairs {y, table.unpack(core.grad(y:square():sum(), {query, key, v}, {}))} do
      assert.equal(1, x:isfinite():all():item())
    end
    assert.equal(0, y:narrow(3, 4, 2):abs():max():item())
  end)

  it("has the bits of one thread with any number of threads", function()
    local threads, wanted = core.threads(), nil
    for count = 1, 4 do
      core.set_threads(count)
      marea.seed(4)
      local leaves = {values("f32", 3, 20, 150):requires_grad_(), values("f32", 3, 30, 150):requires_grad_(),
        values("f32", 150):requires_grad_()}
      local got = core.grad(marea.additive_attention(table.unpack(leaves)):square():sum(), leaves, {})
      wanted = wanted or got
      for i, x in ipairs(got) do assert.equal(1, x:eq(wanted[i]):all():item()) end
    end
    core.set_threads(threads)
  end)

  it("names what is wrong", function()
    local query, key, v = values("f32", 2, 3, 4), values("f32", 2, 5, 4), values("f32", 4)
    assert.matches("'lengths': row 2 has length 6, expected 0 to 5", message_of(function()
      marea.additive_attention(query, key, v, marea.tensor({0, 6}, {dtype = "i64"}))
    end), 1, true)
    assert.matches("query's last size", message_of(function()
      marea.additive_attention(query, key, values("f32", 5))
    end), 1, true)
  end)
end)
