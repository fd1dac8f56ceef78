-- SPDX-License-Identifier: MIT
-- Products of bytes for inference: what becomes of numbers, exact sums under each instruction set, and what a quantized
-- network computes.
local marea = require "marea"
local message_of = require "spec.support.message_of"
local under_isa = require "spec.support.under_isa"

describe("products of bytes are exact sums of integers, the same bits under each instruction set:", function()
  local first
  for _, isa in ipairs(marea.info().isas) do
    it(isa, function()
      local cases, hash = under_isa(isa, "spec/support/int8_products.lua")
      assert(cases, hash)
      assert.is_true(cases > 70)
      first = first or hash
      assert.are.equal(first, hash)
    end)
  end
end)

--- The bytes of weights (taps, in, out) as quantize_int8 packs them, and the sums behind each panel.
local function unpacked(bytes, taps, n_in, out)
  local panels = bytes:totable()
  local step = (#panels[1] - 64) // 64 // taps -- fours of a tap
  local function byte(t, i, o)
    local v = panels[(o - 1) // 16 + 1][((t - 1) * step + (i - 1) // 4) * 64 + (o - 1) % 16 * 4 + (i - 1) % 4 + 1]
    return v < 128 and v or v - 256
  end
  local function sum(o)
    local panel, at = panels[(o - 1) // 16 + 1], #panels[1] - 64 + (o - 1) % 16 * 4
    return (string.unpack("<i4", string.char(table.unpack(panel, at + 1, at + 4))))
  end
  assert(n_in <= step * 4 and out <= #panels * 16)
  return byte, sum
end

describe("quantize_int8", function()
  it("gives the nearest bytes, scales of columns and their sums", function()
    for _, s in ipairs{{1, 5, 3}, {1, 64, 17}, {9, 3, 16}, {2, 70, 33}} do
      local taps, n_in, out = table.unpack(s)
      local weight = marea.normal{taps, n_in, out}
      local bytes, scale = marea.quantize_int8(weight)
      local byte, sum = unpacked(bytes, taps, n_in, out)
      local w, scales = weight:totable(), scale:totable()
      for o = 1, out do
        local largest, total = 0, 0
        for t = 1, taps do
          for i = 1, n_in do
            largest = math.max(largest, math.abs(w[t][i][o]))
            total = total + byte(t, i, o)
            assert.is_true(math.abs(byte(t, i, o) * scales[o] - w[t][i][o]) <= scales[o] * 0.50001)
          end
        end
        assert.is_true(math.abs(scales[o] * 127 - largest) < 1e-6 * largest)
        assert.are.equal(total, sum(o))
      end
    end
  end)

  it("stores the scale that the bytes were made with, also of half floats", function()
    for _, dtype in ipairs{"f32", "bf16", "f16", "f64"} do
      local weight = marea.normal({40, 21}, 0, 0.3):to(dtype)
      local bytes, scale = marea.quantize_int8(weight)
      local same, same_scale = marea.quantize_int8(weight:to "f32")
      assert.are.equal("f32", scale.dtype)
      assert.are.same(same_scale:totable(), scale:totable())
      assert.are.same(same:totable(), bytes:totable())
    end
  end)

  it("takes columns of zeros, and gives NaN where a weight is no number", function()
    local weight = marea.tensor{{0, 1, 0 / 0, 1 / 0}, {0, -2, 1, 1}}
    local bytes, scale = marea.quantize_int8(weight)
    local s = scale:totable()
    assert.are.equal(0, s[1])
    assert.is_true(s[3] ~= s[3] and s[4] ~= s[4])
    local y = marea.linear_int8(marea.ones{1, 2}, bytes, scale, {inputs = 2}):totable()[1]
    assert.are.equal(0, y[1])
    assert.is_true(math.abs(y[2] + 1) < 0.01)
    assert.is_true(y[3] ~= y[3] and y[4] ~= y[4])
  end)

  it("refuses vectors and sums that int32 would not hold", function()
    local function quantize(...)
      local weight = marea.ones{...}
      return message_of(function() marea.quantize_int8(weight) end)
    end
    assert.matches("expected 2 dimensions %(%.%., in, out%) or more", quantize(3))
    assert.matches("sums of 65537 terms", quantize(65537, 1))
    marea.quantize_int8(marea.ones{65536, 1})
  end)
end)

describe("linear_int8", function()
  local bytes, scale = marea.quantize_int8(marea.tensor{{1, 0}, {0, 1}})

  it("gives NaN for a row with a NaN or an infinity, zero for one of zeros, and leaves other rows alone", function()
    local rows = {{1, 2}, {0 / 0, 1}, {1 / 0, 1}, {-1 / 0, 1}, {0, 0}, {1e-38, 0}, {-3, 3}, {3e38, -3e38}}
    local y = marea.linear_int8(marea.tensor(rows), bytes, scale, marea.tensor{10, 20}, {inputs = 2}):totable()
    for i = 2, 4 do assert.is_true(y[i][1] ~= y[i][1] and y[i][2] ~= y[i][2]) end
    assert.is_true(math.abs(y[1][1] - 11) < 0.01 and math.abs(y[1][2] - 22) < 0.01)
    assert.are.same({10, 20}, y[5])
    assert.are.same({10, 20}, y[6])
    assert.is_true(math.abs(y[7][1] - 7) < 0.02 and math.abs(y[7][2] - 23) < 0.02)
    assert.is_true(math.abs(y[8][1] - 3e38) < 3e36 and math.abs(y[8][2] + 3e38) < 3e36)
  end)

  it("takes empty shapes and applies activations", function()
    assert.are.same({0, 2}, marea.linear_int8(marea.zeros{0, 2}, bytes, scale, {inputs = 2}).shape)
    local none, none_scale = marea.quantize_int8(marea.zeros{0, 3})
    local bias = marea.tensor{1, 2, 3}
    assert.are.same({{1, 2, 3}}, marea.linear_int8(marea.zeros{1, 0}, none, none_scale, bias, {inputs = 0}):totable())
    local y = marea.linear_int8(marea.tensor{{-1, 1}}, bytes, scale, {inputs = 2, activation = "relu"}):totable()[1]
    assert.is_true(y[1] == 0 and math.abs(y[2] - 1) < 0.01)
  end)

  it("has the same bits for any number of threads", function()
    local threads = marea.info().threads
    local x, w, b = marea.normal{700, 65}, marea.normal{65, 400}, marea.normal{400}
    local packed, scales = marea.quantize_int8(w)
    local first
    for n = 1, 4 do
      marea.set_threads(n)
      local y = marea.linear_int8(x, packed, scales, b, {inputs = 65})
      first = first or y
      assert.are.equal(y:numel(), y:eq(first):to "f32":sum():item())
    end
    marea.set_threads(threads)
  end)

  it("and conv2d_int8 give NaN for an image with one, and have the same bits for any number of threads", function()
    local threads = marea.info().threads
    local x, packed, scales = marea.normal{3, 20, 19, 24}, marea.quantize_int8(marea.normal{3, 3, 24, 40})
    marea.no_grad(function() x:select(1, 2):narrow(1, 3, 1):fill_(0 / 0) end)
    local first
    for n = 1, 4 do
      marea.set_threads(n)
      local y = marea.conv2d_int8(x, packed, scales, {inputs = 24, kernel = 3, padding = "same"}):select(1, 1)
      first = first or y
      assert.are.equal(y:numel(), y:eq(first):to "f32":sum():item())
    end
    marea.set_threads(threads)
    local y = marea.conv2d_int8(x, packed, scales, {inputs = 24, kernel = 3})
    local nans = y:isnan():to "f32":sum{dims = {2, 3, 4}}:totable()
    assert.are.same({0, 18 * 17 * 40, 0}, nans)
  end)

  it("refuses a gradient, and bytes of another size", function()
    local x = marea.ones{1, 2}:requires_grad_()
    assert.matches("argument 'x' requires a gradient, and products of bytes have none",
      message_of(function() marea.linear_int8(x, bytes, scale, {inputs = 2}) end))
    assert.are.equal(2, marea.no_grad(marea.linear_int8, x, bytes, scale, {inputs = 2}):numel())
    local function refused(n, inputs)
      return message_of(function() marea.linear_int8(marea.ones{1, n}, bytes, scale, {inputs = inputs}) end)
    end
    assert.matches("argument 'weight': expected size", refused(200, 200))
    assert.matches("argument 'x': expected size 2 in dimension 2 %(inputs, those of the weight%), got f32 %(1, 3%)",
      refused(3, 2))
    assert.matches("linear_int8.*inputs", refused(2))
  end)
end)

describe("net:quantize()", function()
  local nn = marea.nn

  local function network()
    return nn.Sequential{nn.Linear{64, 300, activation = "relu", name = "hidden"}, nn.LayerNorm{300},
      nn.Linear{300, 70, name = "last"}}
  end

  --- max |a - b| / max |b|
  local function distance(a, b) return ((a - b):abs():max() / b:abs():max()):item() end

  it("is a copy with bytes for weights, whose results are near; the network stays as it is", function()
    marea.seed(1)
    local net, x = network(), marea.normal{9, 64}
    local before, y = net:state(), net(x):detach()
    local small, sizes = net:quantize()
    assert.are.equal("2 of 2 layers in int8: 165 kB -> 50.4 kB", tostring(sizes))
    assert.is_true(distance(small(x), y) < 0.03)
    assert.is_true(y:eq(net(x)):all():item() == 1)
    for name, t in pairs(net:state()) do assert.is_true(t == before[name] and t.dtype == "f32") end
    assert.matches("hidden: Linear%(64 %-> 300, int8, relu%)", tostring(small))
    marea.no_grad(function() net.hidden.weight:zero_() end)
    assert.is_true(distance(small(x), y) < 0.03)
  end)

  it("has nothing that trains", function()
    local small = network():quantize()
    assert.are.equal(0, (select(2, small:count())))
    assert.is_false(small.training)
    for name, t in small:named_parameters() do assert.is_true(name:find "^2%." and not t.requires_grad) end
    local x = marea.ones{1, 64}:requires_grad_()
    assert.matches("argument 'x' requires a gradient", message_of(function() small(x) end))
    assert.are.equal(70, marea.no_grad(small, x):numel())
  end)

  it("leaves out what it is told to, and layers of few weights", function()
    local net = network()
    local function bytes_of(options)
      local small, sizes = net:quantize(options)
      return small.hidden.weight.dtype .. " " .. small.last.weight.dtype .. " " .. sizes.quantized
    end
    assert.are.equal("u8 u8 2", bytes_of())
    assert.are.equal("f32 u8 1", bytes_of{skip = {"hidden"}})
    assert.are.equal("u8 f32 1", bytes_of{skip = {net.last}})
    assert.are.equal("f32 f32 0", bytes_of{skip = {net}})
    assert.are.equal("f32 u8 1", bytes_of{skip = function(path) return path == "hidden" end})
    assert.are.equal("f32 u8 1", bytes_of{least = 20000})
    local function refused(options) return message_of(function() net:quantize(options) end) end
    assert.matches("skip names 'nothing', which is no part of the network", refused{skip = {"nothing"}})
    assert.matches("argument 'skip': expected a list of paths and layers", refused{skip = 3})
    assert.matches("argument 'skip%[1%]': expected a path or a layer", refused{skip = {3}})
    local unmade = nn.Sequential{nn.Linear{300}}
    assert.matches("layer '1' has no sizes yet", message_of(function() unmade:quantize() end))
  end)

  it("keeps what is shared shared, classes and private fields", function()
    local layer = nn.Linear{128, 128}
    local Twice = nn.class "Int8Twice"
    function Twice:init() self.a, self.b, self._list = layer, layer, {layer} end
    function Twice:forward(x) return self._list[1](self.b(self.a(x))) end
    local net = Twice()
    local small = net:quantize()
    assert.is_true(small.a == small.b and small._list[1] == small.a and small.a ~= layer)
    local x = marea.normal{3, 128}
    assert.is_true(distance(small(x), net(x)) < 0.05)
    assert.are.equal("u8", small:quantize().a.weight.dtype) -- once more changes nothing
  end)

  it("takes attention's packed weight, of self-attention and across", function()
    local block = nn.TransformerEncoderLayer{64, 4, dim_feedforward = 256, activation = "gelu"}:evaluate()
    local small, sizes = block:quantize{least = 0}
    assert.are.equal(4, sizes.quantized)
    local x = marea.normal{2, 7, 64}
    assert.is_true(distance(small(x), block(x)) < 0.03)
    local attention, y = nn.MultiHeadAttention{64, 4}, marea.normal{2, 5, 64}
    assert.is_true(distance(attention:quantize{least = 0}(x, y, y), attention(x, y, y)) < 0.05)
    assert.are.equal("f32", nn.MultiHeadAttention{24, 3}:quantize{least = 0}.in_proj_weight.dtype)
  end)

  it("takes Conv2d where it is asked to, between few channels and in groups not", function()
    local net = nn.Sequential{nn.Conv2d{3, 16, kernel = 3, padding = 1}, nn.Conv2d{16, 20, kernel = {3, 2}, stride = 2,
      padding = "same", activation = "relu"}, nn.Conv2d{20, 32, kernel = 1, groups = 2}, nn.Conv2d{32, 16, kernel = 3,
      dilation = 2, activation = "leaky_relu", slope = 0.2, bias = false}}
    local x = marea.normal{2, 13, 12, 3}
    local small, sizes = net:quantize{least = 0, convolutions = true}
    assert.are.equal("2 of 4 layers in int8", tostring(sizes):match "^[^:]*")
    assert.matches("Conv2d%(16 %-> 20, kernel 3x2, stride 2, padding same, int8, relu%)", tostring(small))
    assert.is_true(distance(small(x), net(x)) < 0.05)
    assert.are.equal(0, select(2, net:quantize{least = 0}).quantized)
  end)

  it("is saved and loaded as any other network", function()
    local path = os.tmpname()
    local net, x = network():quantize(), marea.normal{2, 64}
    marea.checkpoint.save(path, {model = net})
    local other = network():quantize()
    assert.is_false(net(x):eq(other(x)):all():item() == 1)
    marea.checkpoint.load(path, {model = other})
    os.remove(path)
    assert.is_true(net(x):eq(other(x)):all():item() == 1)
  end)

  it("refuses inputs of another size, which padding would hide", function()
    local dense = nn.Linear{200, 200}:quantize()
    local conv = nn.Conv2d{32, 32, kernel = 3}:quantize{convolutions = true, least = 0}
    assert.matches("linear_int8: argument 'x': expected size 200 in dimension 2 .-, got f32 %(2, 256%)",
      message_of(function() dense(marea.ones{2, 256}) end))
    assert.matches("conv2d_int8: argument 'x': expected size 32 in dimension 4 .-, got f32 %(1, 4, 4, 30%)",
      message_of(function() conv(marea.ones{1, 4, 4, 30}) end))
  end)

  it("takes a field of the script's own for nothing else", function()
    local layer = nn.Linear{4, 4}
    layer.scale = 0.5
    assert.are.equal("(1, 4)", tostring(layer(marea.ones{1, 4}).shape))
  end)

  it("leaves a layer that lies in a container that is left, wherever else it lies", function()
    local layer = nn.Linear{200, 200}
    local inner = nn.Sequential{layer}
    for _, net in ipairs{nn.Sequential{layer, inner}, nn.Sequential{inner, layer}} do
      assert.are.equal(0, select(2, net:quantize{skip = {inner}}).quantized)
    end
    assert.matches("expected a list, as in {\"head\"}, got the key string 'head'",
      message_of(function() nn.Sequential{layer}:quantize{skip = {head = true}} end))
  end)

  it("wants layers with sizes, unless they are left", function()
    for _, layer in ipairs{nn.Conv2d{16, kernel = 3}, nn.LSTM{16}, nn.Linear{10}} do
      assert.matches("quantize: layer '1' has no sizes yet: call the network once",
        message_of(function() nn.Sequential{layer}:quantize() end))
      assert.are.equal(0, select(2, nn.Sequential{layer}:quantize{skip = {"1"}}).quantized)
    end
    local norm = nn.LayerNorm{200, scale = false, center = false}
    assert.are.equal(1, select(2, nn.Sequential{nn.Linear{200, 200}, norm}:quantize()).quantized)
  end)

  it("leaves layers whose sums int32 does not hold", function()
    local _, sizes = nn.Sequential{nn.Linear{70000, 2}, nn.Linear{2, 9000}}:quantize()
    assert.are.equal("1 of 2", tostring(sizes):match "^%d+ of %d+")
  end)

  it("classifies as many digits as the network in f32, but for a few in 1,000", function()
    marea.seed(3)
    local train, test = marea.data.mnist("sample", "train"), marea.data.mnist("sample", "test")
    local net = nn.Sequential{nn.Flatten{}, nn.Linear{784, 128, activation = "relu"},
      nn.Linear{128, 128, activation = "relu"}, nn.Linear{128, 10}}
    local optimizer = marea.optim.Adam(net:parameters(), {lr = 1e-3})
    for epoch = 1, 3 do
      for x, y in train:batches(64, {shuffle = true, epoch = epoch}) do
        optimizer:step(function() return net(x):cross_entropy(y) end)
      end
    end
    local function judge(model)
      local right, loss = 0, 0
      for x, y in test:batches(500) do
        local logits = marea.no_grad(model, x)
        right = right + logits:argmax(2):eq(y):to "f32":sum():item()
        loss = loss + logits:cross_entropy(y):item() / 2
      end
      return right, loss
    end
    local right, loss = judge(net)
    local small, sizes = net:quantize()
    local small_right, small_loss = judge(small)
    local text = ("%d and %d of 1,000 right, losses %.4f and %.4f"):format(right, small_right, loss, small_loss)
    assert.are.equal(2, sizes.quantized)
    assert(right > 900 and small_right >= right - 5 and small_loss < loss + 0.01, text)
    if os.getenv "MAREA_SPEC_PRINT" then print(text, sizes) end
  end)
end)
