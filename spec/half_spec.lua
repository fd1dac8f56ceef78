-- SPDX-License-Identifier: MIT
-- bf16 and f16: their bits against a reference that is written here from the formats' definitions, and against
-- PyTorch's (spec/golden/make_half.py); arithmetic, promotion, gradients, files. That every operator gives what it
-- gives in f32, rounded once, is in spec/ops_spec.lua.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local folder = require "spec.support.folder"
local has = require "spec.support.has"
local message_of = require "spec.support.message_of"
local nn, optim = marea.nn, marea.optim

local FORMATS = {bf16 = {exponent = 8, fraction = 7}, f16 = {exponent = 5, fraction = 10}}
local NAMES = {"bf16", "f16"}
local CODE = {bf16 = {"BF16", "I2"}, f16 = {"F16", "I2"}, f32 = {"F32", "I4"}, f64 = {"F64", "I8"}}

local path = os.tmpname()
teardown(function() os.remove(path) end)

--- A tensor of elements with these bits, by way of a file that is written by hand.
local function from_bits(dtype, bits)
  local code, parts = CODE[dtype], {}
  local pack = "<" .. code[2]
  for i, b in ipairs(bits) do parts[i] = string.pack(pack, b) end
  local data = table.concat(parts)
  local header = ('{"x":{"dtype":"%s","shape":[%d],"data_offsets":[0,%d]}}'):format(code[1], #bits, #data)
  header = header .. (" "):rep(-#header % 8)
  folder.write(path, string.pack("<I8", #header) .. header .. data)
  return assert(marea.load(path)).x
end

--- The bits of the elements, from the file that a tensor is saved to.
local function bits_of(x)
  local code, bits = CODE[x.dtype], {}
  assert(marea.save(path, {x = x:reshape(-1)}))
  local text = folder.read(path)
  local header_size = string.unpack("<I8", text)
  assert.is_truthy(text:sub(9, 8 + header_size):find('"dtype":"' .. code[1] .. '"', 1, true))
  local size, at = string.packsize("<" .. code[2]), 9 + header_size
  for i = 1, x:numel() do bits[i] = string.unpack("<" .. code[2], text, at + (i - 1) * size) end
  return bits
end

--- The number that bits stand for, by the definition of binary formats; nil for NaN.
local function value_of(format, bits)
  local top = (1 << format.exponent) - 1
  local sign = bits >> (format.exponent + format.fraction) == 0 and 1.0 or -1.0
  local exponent, fraction = bits >> format.fraction & top, bits & (1 << format.fraction) - 1
  local bias = top >> 1
  if exponent == top then return fraction == 0 and sign * math.huge or nil end
  if exponent == 0 then return sign * fraction * 2.0 ^ (1 - bias - format.fraction) end
  return sign * (1 + fraction * 2.0 ^ -format.fraction) * 2.0 ^ (exponent - bias)
end

local function f32_bits(x) return (string.unpack("<I4", string.pack("<f", x))) end

local function all_bits()
  local bits = {}
  for i = 0, 0xffff do bits[i + 1] = i end
  return bits
end

--- Fails at the first place where two lists differ.
local function same(expected, got, what)
  assert.are.equal(#expected, #got)
  for i = 1, #expected do
    if expected[i] ~= got[i] then
      error(("%s: element %d: expected %x, got %x"):format(what, i, expected[i], got[i]), 2)
    end
  end
end

describe("every value of", function()
  for _, dtype in ipairs(NAMES) do
    local format = FORMATS[dtype]
    local infinity = (1 << format.exponent) - 1 << format.fraction
    local quiet = 1 << format.fraction - 1

    it(dtype .. " is exact in f32 and f64, and comes back", function()
      local all = all_bits()
      local x = from_bits(dtype, all)
      same(all, bits_of(x), "saved")
      local wide, back, expected = bits_of(x:to "f32"), bits_of(x:to("f32"):to(dtype)), {}
      local of_f64, listed = x:to("f64"):totable(), x:totable()
      for i, bits in ipairs(all) do
        local value = value_of(format, bits)
        if value then
          expected[i] = f32_bits(value)
          assert(back[i] == bits and of_f64[i] == value and listed[i] == value, i)
          if value == 0 then assert(1 / of_f64[i] == 1 / value) end
        else -- the payload of a NaN stays, in the upper bits; rounding makes it quiet, and so does widening an f16
          local sign, payload = bits & 0x8000, bits & (1 << format.fraction) - 1
          local kept = dtype == "f16" and payload | quiet or payload
          expected[i] = sign << 16 | 0x7f800000 | kept << 23 - format.fraction
          assert(back[i] == (bits | quiet) and of_f64[i] ~= of_f64[i] and listed[i] ~= listed[i], i)
        end
      end
      same(expected, wide, dtype .. " to f32")
    end)

    it(dtype .. " and of the ties between two: rounding to nearest even, once", function()
      local given, expected = {}, {}
      local function add(bits, result)
        given[#given + 1], expected[#expected + 1] = bits, result
      end
      for bits = 0, infinity - 1 do
        local low, high = value_of(format, bits), value_of(format, bits + 1)
        if high == math.huge then high = 2 * low - value_of(format, bits - 1) end -- where it would be
        local middle = f32_bits((low + high) / 2)
        local even = bits & 1 == 0 and bits or bits + 1
        for sign = 0, 1 do
          local s, t = sign << 31, sign << 15
          add(s | middle, t | even)
          if middle > f32_bits(low) then add(s | middle - 1, t | bits) end
          add(s | middle + 1, t | bits + 1)
        end
      end
      same(expected, bits_of(from_bits("f32", given):to(dtype)), "f32 to " .. dtype)
    end)

    it(dtype .. " from NaN: quiet, with the sign and the upper bits", function()
      local given, expected = {}, {}
      for i, payload in ipairs{1, 0x1000, 0x3fffff, 0x400000, 0x400001, 0x7fffff, 0x155555} do
        local bits = (i & 1) << 31 | 0x7f800000 | payload
        given[i], expected[i] = bits, bits >> 16 & 0x8000 | infinity | quiet | payload >> 23 - format.fraction
      end
      same(expected, bits_of(from_bits("f32", given):to(dtype)), dtype)
      for _, bits in ipairs(bits_of(from_bits("f64", {0x7ff0000000000001, 0x7ff8000000000000}):to(dtype))) do
        assert.are.equal(infinity | quiet, bits & (infinity | quiet))
      end
    end)

    it(dtype .. " from f64 and i64 is rounded once, not by way of f32", function()
      local one = 2.0 ^ -format.fraction -- of the last bit of 1
      local values = {1 + one / 2, 1 + one / 2 + 0x1p-50, 1 + one / 2 - 0x1p-50, 1 + 1.5 * one, -1 - one / 2 - 0x1p-50,
        0x1p-1070, -0x1p-1070, 1e300, -1e300}
      assert.are.same({1, 1 + one, 1, 1 + 2 * one, -1 - one, 0, -0.0, math.huge, -math.huge},
        marea.tensor(values, {dtype = "f64"}):to(dtype):totable())
      assert.are.same({1, 1 + one}, marea.tensor({values[1], values[2]}, {dtype = dtype}):totable())
      local unit = 1 << format.fraction -- consecutive integers up to twice it
      local big = dtype == "bf16" and 1 << 62 or 0
      local integers = {2 * unit + 1, 2 * unit + 3, -2 * unit - 3, big + (big >> 8), big + (big >> 8) + 1, 255}
      local up = dtype == "bf16" and big * (1 + 1 / 128) or 1
      local rounded = {2 * unit, 2 * unit + 4, -2 * unit - 4, big * 1.0, up, 255}
      assert.are.same(rounded, marea.tensor(integers, {dtype = "i64"}):to(dtype):totable())
      assert.are.same({255, 0}, marea.tensor({255, 0}, {dtype = "u8"}):to(dtype):totable())
    end)

    it(dtype .. " to integers: cut towards zero, in range", function()
      local x = marea.tensor({-1.5, 2.75, 300, 0 / 0, 1 / 0}, {dtype = dtype})
      assert.are.same({-1, 2, 300, 0, math.maxinteger}, x:to("i64"):totable())
      assert.are.same({0, 2, 255, 0, 255}, x:to("u8"):totable())
    end)

    it(dtype .. " in runs of any length and step gives what one by one gives", function()
      marea.seed(3)
      local x = marea.normal({2, 300}) * 2.0 ^ 9
      for n = 1, 300, 7 do
        local part = x[{1, ("1:%d"):format(n)}]
        local narrow = part:to(dtype)
        local wide = narrow:to "f32"
        for i = 1, n, 13 do
          assert.are.equal(marea.tensor(part[i], {dtype = dtype}):item(), narrow[i])
          assert.are.equal(narrow[i], wide[i])
        end
      end
      local turned = x:transpose(1, 2):to(dtype)
      allclose.assert(turned:transpose(1, 2), x:to(dtype), {exact = true})
      allclose.assert(turned["1:300:3, :"]:to "f32", x:to(dtype):transpose(1, 2)["1:300:3, :"]:to "f32", {exact = true})
    end)
  end
end)

describe("PyTorch's bits of", function()
  local golden = assert(marea.load "spec/golden/half.safetensors")

  for _, dtype in ipairs(NAMES) do
    it(dtype .. ": conversions", function()
      same(bits_of(golden[dtype]), bits_of(golden.x:to(dtype)), dtype)
    end)

    it(dtype .. ": arithmetic", function()
      local a, b = golden[dtype .. ".a"], golden[dtype .. ".b"]
      local got = {add = a + b, sub = a - b, mul = a * b, div = a / b, sqrt = a:abs():sqrt()}
      for name, y in pairs(got) do
        assert.are.equal(dtype, y.dtype)
        same(bits_of(golden[dtype .. "." .. name]), bits_of(y), name)
      end
    end)

    it(dtype .. ": gradients that add up over passes", function()
      local a, b = golden[dtype .. ".a"], golden[dtype .. ".b"]
      local leaf = a:clone():requires_grad_()
      for _, scale in ipairs{b, b * 0.125, b * b} do (leaf * scale):backward(marea.ones_like(a)) end
      assert.are.equal(dtype, leaf.grad.dtype)
      same(bits_of(golden[dtype .. ".grad"]), bits_of(leaf.grad), "grad")
    end)
  end
end)

describe("the dtype of results", function()
  local RANK = {u8 = 0, i64 = 1, bf16 = 2, f16 = 2, f32 = 3, f64 = 4}

  it("is PyTorch's: u8 < i64 < bf16, f16 < f32 < f64, and f32 for bf16 with f16", function()
    for a, of_a in pairs(RANK) do
      for b, of_b in pairs(RANK) do
        local expected = of_a > of_b and a or of_b > of_a and b or a == b and a or "f32"
        local x, y = marea.ones({2}, {dtype = a}), marea.ones({2}, {dtype = b})
        assert.are.equal(expected, (x + y).dtype, a .. " + " .. b)
        assert.are.equal(expected, marea.concat{x, y}.dtype, a .. " .. " .. b)
      end
    end
  end)

  it("is that of the tensor beside a number or a tensor of rank 0, which is not rounded first", function()
    for _, dtype in ipairs(NAMES) do
      local x = marea.tensor({3, 5}, {dtype = dtype})
      for _, y in ipairs{x * 0.1, x * 2, 1 / x, x ^ 2, x + marea.tensor(0.1), marea.where(x:gt(4), x, 0.5),
        x:clamp{max = 4}} do
        assert.are.equal(dtype, y.dtype)
      end
      allclose.assert(x * 0.1, (x:to "f32" * 0.1):to(dtype), {exact = true})
      assert.are.equal(dtype, (x:sum() * 2).dtype)
      assert.are.equal(dtype, (x + marea.ones({2}, {dtype = "i64"})).dtype)
      assert.are.equal("u8", x:gt(1).dtype)
      assert.are.equal("i64", x:argmax(1).dtype)
    end
  end)

  it("is f32 where an operator that wants equal dtypes gets an f32 beside", function()
    local x = marea.ones({2, 3}, {dtype = "bf16"})
    assert.are.equal("f32", x:linear(marea.ones{3, 4}).dtype)
    assert.are.equal("bf16", x:linear(marea.ones({3, 4}, {dtype = "bf16"})).dtype)
  end)
end)

describe("tensors of half floats", function()
  it("are made, printed, indexed and changed as others are", function()
    for _, dtype in ipairs(NAMES) do
      local with = {dtype = dtype}
      for _, x in ipairs{marea.zeros({2, 3}, with), marea.full({2, 3}, 0.1, with), marea.ones{2, 3, dtype = dtype},
        marea.arange(1, 6, 1, dtype), marea.linspace(0, 1, 5, dtype), marea.eye(3, with),
        marea.normal({2}, with), marea.uniform({2}, with),
        marea.one_hot(marea.tensor({1}, {dtype = "i64"}), 3, with)} do
        assert.are.equal(dtype, x.dtype)
      end
      local x = marea.tensor({{1, 2, 3}, {4, 5, 6}}, with)
      assert.are.equal("tensor " .. dtype .. " (2, 3): min 1, mean 3.5, max 6\n  1  2  3\n  4  5  6", tostring(x))
      assert.are.equal(5, x[{2, 2}])
      x[{2, 2}] = 1 / 3
      x[1] = marea.tensor{7, 8, 9}
      assert.are.same({{7, 8, 9}, {4, x[{2, 2}], 6}}, x:totable())
      assert.is_true(math.abs(x[{2, 2}] - 1 / 3) < 1e-3)
      local view = x:transpose(1, 2)
      assert.is_true(view:shares(x))
      view:add_(1)
      assert.are.equal(8, x[{1, 1}])
      x:mul_(2):fill_(3)
      assert.are.equal(18, x:sum():item())
      assert.are.equal(2, marea.tensor(2, with):item())
    end
  end)

  it("take a result in place in their dtype only", function()
    local x = marea.ones({3}, {dtype = "bf16"})
    has(message_of(function() x:add_(marea.ones{3}) end), "add: the result f32 (3) does not fit in place of bf16 (3)")
    assert.are.equal("bf16", x:add_(marea.ones({3}, {dtype = "i64"})).dtype)
  end)

  it("are refused by optimizers, which say what to do", function()
    local net = nn.Linear{3, 2, dtype = "bf16"}
    local optimizer = optim.SGD{net, lr = 0.1}
    has(message_of(function()
      optimizer:step(function() return net(marea.ones({4, 3}, {dtype = "bf16"})):sum() end)
    end), "SGD: parameter 'bias' is bf16",
      "keep it in f32 and convert it where it is used, by marea.autocast or w:to 'bf16'")
    has(message_of(function()
      marea.sgd_step(net.bias:detach(), marea.ones({2}, {dtype = "bf16"}), nil, {lr = 0.1})
    end), "sgd_step: argument 'p': expected f32 or f64, got bf16",
      "keep them in f32 and convert where they are used, w:to 'bf16'")
  end)

  it("train by way of f32 weights that are converted where they are used", function()
    marea.seed(1)
    local w = marea.zeros({3, 1}):requires_grad_()
    local x = marea.normal({64, 3}):to "bf16"
    local y = x:matmul(marea.tensor({{1}, {-2}, {0.5}}, {dtype = "bf16"}))
    local optimizer = optim.SGD{{w}, lr = 0.2}
    for _ = 1, 100 do optimizer:step(function() return x:matmul(w:to "bf16"):mse(y) end) end
    assert.are.equal("f32", w.dtype)
    allclose.assert(w:detach(), {{1}, {-2}, {0.5}}, {atol = 0.01})
  end)

  it("have gradients of any order, and the tape's messages", function()
    local x = marea.tensor({1, 2}, {dtype = "f16"}):requires_grad_()
    local d = marea.grad((x ^ 3):sum(), {x}, {create_graph = true})[1]
    assert.are.equal("f16", d.dtype)
    assert.are.same({3, 12}, d:totable())
    assert.are.same({6, 12}, marea.grad(d:sum(), {x})[1]:totable())
    has(message_of(function() (x * 2):backward(marea.ones{2}) end), "argument 'seed': expected f16 (2), got f32 (2)")
  end)

  it("have the same bits for any number of threads", function()
    local function run()
      marea.seed(5)
      local x = marea.normal({300, 400}, {dtype = "bf16"}):requires_grad_()
      local w = marea.normal({400, 200}, {dtype = "bf16"}):requires_grad_()
      x:matmul(w):tanh():softmax():sum{dims = 1}:square():sum():backward()
      return {x.grad, w.grad}
    end
    local before, first = marea.threads(), nil
    for _, threads in ipairs{1, 2, 3} do
      marea.set_threads(threads)
      local now = run()
      first = first or now
      for i = 1, 2 do allclose.assert(now[i], first[i], {exact = true}) end
    end
    marea.set_threads(before)
  end)

  -- In a process of its own: a pool that others have used gives blocks that are a little larger than what is asked for.
  it("take the memory that a plan foresees, with the conversions", function()
    local script = folder.write(folder.new() .. "/peak.lua", [[
      local marea = require "marea"
      local function work()
        local x = marea.ones({500, 1000}, {dtype = "bf16"}):requires_grad_()
        local y = (x * 2):exp():sum()
        y:backward()
      end
      local plan = marea.plan(work)
      local before = marea.memory().live
      marea.memory_reset_peak()
      marea.scope(work)
      print(marea.memory().peak - before, plan.peak - plan.alive)
    ]])
    local text, code = folder.lua(script)
    assert.are.equal(0, code, text)
    local real, planned = text:match "^(%d+)%s+(%d+)%s*$"
    assert.are.equal(real, planned)
    assert.is_true(tonumber(real) > 3 * 1000000)
  end)

  it("take half of the memory of f32", function()
    marea.scope(function()
      local live = marea.memory().live
      local x = marea.zeros({500, 1000}, {dtype = "bf16"})
      assert.is_true(marea.memory().live - live < 1.1 * 2 * x:numel())
    end)
  end)
end)

--- Elementwise operators read and write half floats where they lie, in pieces that are converted on their way: against
--- casts to f32 of all inputs and of the result, with sizes beyond one block, rows of all lengths and views.
describe("elementwise operators of half floats and of f32 beside", function()
  local two = {
    add = function(a, b) return a + b end, sub = function(a, b) return a - b end, mul = function(a, b) return a * b end,
    div = function(a, b) return a / b end, pow = function(a, b) return a:abs() ^ b end,
    maximum = marea.maximum, minimum = marea.minimum, remainder = marea.remainder,
    where = function(a, b) return marea.where((a:to "f32" + b:to "f32"):gt(0), a, b) end,
    lt = marea.lt, floor_divide = marea.floor_divide,
  }
  local one = {
    relu = marea.relu, leaky_relu = marea.leaky_relu, elu = marea.elu, sigmoid = marea.sigmoid, tanh = marea.tanh,
    softplus = marea.softplus, gelu = marea.gelu, silu = marea.silu, exp = marea.exp, square = marea.square,
    sqrt = function(a) return a:abs():sqrt() end, sin = marea.sin, lgamma = marea.lgamma, isnan = marea.isnan,
    clamp = function(a) return a:clamp(-0.1, 0.1) end, neg = marea.neg, scaled = function(a) return a * 3 end,
    masked_fill = function(a) return a:masked_fill(a:lt(0.25), 0.1) end,
    inverse = function(a) return 1 / a end,
    dropout = function(a)
      marea.seed(6)
      return a:dropout{p = 0.3}
    end,
    all = function(a) return a:dropout{p = 1} end,
  }

  --- Results and gradients of f, of leaves as they are and of casts of them.
  local function compare(f, inputs, what)
    local leaves, others, casts, common = {}, {}, {}, nil
    for i, t in ipairs(inputs) do
      leaves[i], others[i] = t:detach():requires_grad_(), t:detach():requires_grad_()
      casts[i] = t.dtype == "f32" and others[i] or others[i]:to "f32"
      common = (common == nil or common == t.dtype) and t.dtype or "f32"
    end
    local y, z = f(table.unpack(leaves)), f(table.unpack(casts))
    if y.dtype ~= "u8" then
      assert.are.equal(common, y.dtype, what)
      z = z:to(common)
    end
    allclose.assert(y:detach(), z:detach(), {exact = true})
    if not y.requires_grad then return end
    local dy = marea.normal(y.shape):to(y.dtype)
    y:backward(dy)
    z:backward(dy)
    for i, t in ipairs(leaves) do
      if t.grad then
        assert.are.equal(t.dtype, t.grad.dtype)
        local ok, message = allclose.check(t.grad, others[i].grad, {exact = true})
        if not ok then error(("%s, gradient %d: %s"):format(what, i, message)) end
      end
    end
  end

  local function views(shape, dtype)
    local x = marea.normal(shape):to(dtype)
    local list = {x}
    if #shape == 2 then
      list[2] = marea.normal({shape[2], shape[1]}):to(dtype):transpose(1, 2)
      list[3] = marea.normal({shape[1], 2 * shape[2]}):to(dtype)[{":", ("1:%d:2"):format(2 * shape[2])}]
    end
    return list
  end

  for name, f in pairs(one) do
    it(name, function()
      marea.seed(4)
      for _, dtype in ipairs(NAMES) do
        for _, shape in ipairs{{}, {3}, {17000}, {7, 300}, {300, 7}} do
          for _, x in ipairs(views(shape, dtype)) do compare(f, {x}, name .. " of " .. dtype) end
        end
      end
    end)
  end

  for name, f in pairs(two) do
    it(name, function()
      marea.seed(4)
      for _, dtypes in ipairs{{"bf16", "bf16"}, {"bf16", "f32"}, {"f32", "bf16"}, {"f16", "bf16"}} do
        for _, shapes in ipairs{{{3}, {3}}, {{2100}, {2100}}, {{2100}, {1}}, {{7, 300}, {7, 300}},
          {{7, 1}, {1, 300}}, {{400, 5}, {5}}, {{130, 260}, {130, 1}}} do
          for _, a in ipairs(views(shapes[1], dtypes[1])) do
            local others = views(shapes[2], dtypes[2])
            compare(f, {a, others[#others]}, ("%s of %s and %s"):format(name, dtypes[1], dtypes[2]))
          end
        end
      end
    end)
  end

  it("take the gradient of an input that is given twice as f32 does", function()
    for _, f in ipairs{function(a) return a * a end, function(a) return a / a end, function(a) return a ^ a end} do
      compare(f, {marea.uniform{shape = {500}, low = 0.5, high = 2}:to "bf16"}, "twice")
    end
  end)

  it("work in place", function()
    local x, y = marea.normal{300, 50}:to "bf16", marea.normal{50}
    local z = x:clone()
    z:mul_(y:to "bf16"):exp_():add_(0.1)
    local step = (x:to "f32" * y:to("bf16"):to "f32"):to "bf16":to "f32":exp():to "bf16"
    allclose.assert(z, (step:to "f32" + 0.1):to "bf16", {exact = true})
    local wide = y:clone()
    wide:add_(x[1])
    allclose.assert(wide, y + x[1]:to "f32", {exact = true})
  end)

  it("have gradients of gradients", function()
    local a, b = marea.normal{40}:to("bf16"):requires_grad_(), marea.normal{40}:requires_grad_()
    local function second(cast)
      local y = (cast(a) * b * b):to("f32"):sum()
      local d = marea.grad(y, {a, b}, {create_graph = true})
      return marea.grad((d[1]:to "f32":square() + d[2]:square()):sum(), {a, b})
    end
    local got, expected = second(function(t) return t end), second(function(t) return t:to "f32" end)
    for i, g in ipairs(expected) do
      assert.are.equal(g.dtype, got[i].dtype)
      allclose.assert(got[i], g, {rtol = 0.02, atol = 0.02})
    end
  end)

  it("make no copy of a tensor in f32, and keep half floats for the reverse pass", function()
    local x, bytes = marea.normal{1000, 1000}:to("bf16"):requires_grad_(), 2000000
    for name, results in pairs{relu = 1, gelu = 1, silu = 1, square = 1} do
      marea.scope(function()
        marea.memory_reset_peak()
        local before = marea.memory().live
        local y = x[name](x)
        assert.are.equal("bf16", y.dtype)
        assert.is_true(marea.memory().peak - before < 1.1 * results * bytes, name)
      end)
    end
  end)
end)

describe("files", function()
  it("keep the dtypes in safetensors", function()
    marea.seed(2)
    local kept = {a = marea.normal({3, 5}, {dtype = "bf16"}), b = marea.normal({2, 1, 4}, {dtype = "f16"}),
      c = marea.normal{3}, d = marea.tensor({1, 2}, {dtype = "u8"})}
    assert(marea.save(path, kept))
    local read = assert(marea.load(path))
    for name, t in pairs(kept) do
      assert.are.equal(t.dtype, read[name].dtype)
      allclose.assert(read[name], t, {exact = true})
    end
  end)

  it("keep f16 in npy, which has no bf16", function()
    local x = marea.tensor({{1, 2.5}, {-3, 1 / 0}}, {dtype = "f16"})
    assert(marea.save_npy(x, path))
    has(folder.read(path), "'descr': '<f2'")
    local y = marea.load_npy(path)
    assert.are.equal("f16", y.dtype)
    allclose.assert(y, x, {exact = true})
    allclose.assert(marea.load_npy(path):transpose(1, 2), x:transpose(1, 2), {exact = true})
    has(message_of(function() marea.save_npy(x:to "bf16", path) end), "NPY files have no bf16; save x:to 'f32'")
  end)

  it("of half floats fill the parameters of a network of f32", function()
    local net = nn.Linear{2, 2}
    local state = {}
    for name, t in pairs(net:state()) do state[name] = t:detach():to "bf16" end
    net:load_state(state)
    assert.are.equal("f32", net.weight.dtype)
  end)
end)
