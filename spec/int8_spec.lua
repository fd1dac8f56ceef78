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

describe("lstm_int8", function()
  local C, H = 21, 33

  --- Weights as floats and as lstm_int8's five arguments behind x.
  local function weights()
    local w_x, w_h, bias = marea.normal{C, 4 * H} * 0.3, marea.normal{H, 4 * H} * 0.3, marea.normal{4 * H}
    local x_bytes, x_scale = marea.quantize_int8(w_x)
    local h_bytes, h_scale = marea.quantize_int8(w_h)
    return {x_bytes, x_scale, h_bytes, h_scale, bias}, {w_x, w_h, bias}
  end

  local function run(x, w, h0, c0, lengths, options)
    options = options or {}
    options.inputs = C
    return marea.lstm_int8(x, w[1], w[2], w[3], w[4], w[5], h0, c0, lengths, options)
  end

  --- One row (T, C), step by step, of products that are tested above.
  local function by_steps(x, w, h, c, length, options)
    local ys, gate = {}, options.recurrent_activation == "hard_sigmoid" and function(a)
      return (a * 0.2 + 0.5):clamp(0, 1)
    end or marea.sigmoid
    for step = 1, length do
      local t = options.reverse and length + 1 - step or step
      local a = marea.linear_int8(x:narrow(1, t, 1), w[1], w[2], w[5], {inputs = C})
        + marea.linear_int8(h, w[3], w[4], {inputs = H})
      local function part(k) return a:narrow(2, (k - 1) * H + 1, H) end
      c = gate(part(2)) * c + gate(part(1)) * part(3):tanh()
      h = gate(part(4)) * c:tanh()
      ys[t] = h:reshape{H}
    end
    for t = length + 1, x:size(1) do ys[t] = marea.zeros{H} end
    return marea.stack(ys), h, c
  end

  local function near(a, b, what)
    local distance = (a:reshape{-1} - b:reshape{-1}):abs():max():item()
    assert(distance < 1e-5, what .. ": " .. distance)
  end

  it("is a step of products of bytes after the other, of each row on its own", function()
    marea.seed(11)
    local n, steps = 7, 9
    local lengths, w = {9, 3, 0, 7, 1, 9, 5}, weights()
    local x, h0, c0 = marea.normal{n, steps, C}, marea.normal{n, H}:tanh(), marea.normal{n, H}
    for _, options in ipairs{{}, {reverse = true}, {recurrent_activation = "hard_sigmoid"}} do
      local y, h, c = run(x, w, h0, c0, marea.tensor(lengths, {dtype = "i64"}), options)
      for i, length in ipairs(lengths) do
        local want, want_h, want_c =
          by_steps(x:select(1, i), w, h0:narrow(1, i, 1), c0:narrow(1, i, 1), length, options)
        near(y:select(1, i), want, "y of row " .. i)
        near(h:select(1, i), want_h, "h of row " .. i)
        near(c:select(1, i), want_c, "c of row " .. i)
      end
    end
  end)

  it("is near lstm, with many rows and from zeros", function()
    marea.seed(12)
    local w, floats = weights()
    local x = marea.normal{150, 40, C}
    local y, h, c = run(x, w)
    local want, want_h, want_c = marea.lstm(x, floats[1], floats[2], floats[3])
    assert.is_true((y - want):abs():max():item() < 0.1 and (y - want):abs():mean():item() < 0.005)
    assert.is_true((h - want_h):abs():mean():item() < 0.005 and (c - want_c):abs():mean():item() < 0.01)
  end)

  it("leaves other rows alone where one is no number, and has the same bits for any number of threads", function()
    local threads, w, x = marea.info().threads, weights(), marea.normal{40, 5, C}
    local all = run(x, w)
    marea.no_grad(function() x:select(1, 3):narrow(1, 2, 1):fill_(0 / 0) end)
    for n = 1, 4 do
      marea.set_threads(n)
      local y = run(x, w)
      for i = 1, 40 do
        local same = y:select(1, i):eq(all:select(1, i)):to "f32":sum():item()
        assert.are.equal(i == 3 and H or 5 * H, same)
      end
    end
    marea.set_threads(threads)
  end)

  it("takes empty shapes, and refuses what does not fit", function()
    local w, x = weights(), marea.ones{2, 3, C}
    assert.are.same({0, 3, H}, run(marea.zeros{0, 3, C}, w).shape)
    assert.are.same({2, 0, H}, run(marea.zeros{2, 0, C}, w).shape)
    local function refused(...)
      local a = table.pack(...)
      return message_of(function() run(table.unpack(a, 1, a.n)) end)
    end
    assert.matches("argument 'x': expected size 21 in dimension 3", refused(marea.ones{2, 3, 20}, w))
    assert.matches("argument 'x' requires a gradient", refused(marea.ones{2, 3, C}:requires_grad_(), w))
    assert.matches("argument 'h0': expected size 2 in dimension 1", refused(x, w, marea.ones{3, H}))
    assert.matches("argument 'c0': expected f32 %(2, 33%)", refused(x, w, nil, marea.ones{2, 3}))
    local lengths = marea.tensor({1, 4}, {dtype = "i64"})
    assert.matches("argument 'lengths': row 2 has length 4", refused(x, w, nil, nil, lengths))
    assert.matches("argument 'w_h': expected size", refused(x, {w[1], w[2], w[1], w[2], w[5]}))
    local other, scale = marea.quantize_int8(marea.ones{C, 10})
    assert.matches("argument 'w_x_scale': expected size 132", refused(x, {other, scale, w[3], w[4], w[5]}))
    assert.matches("argument 'w_x_scale': expected size 8", refused(x, {other, scale, other, scale}))
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

  it("says what is wrong, and what to do", function()
    local net = network()
    local small = net:quantize()
    assert.matches("linear_int8: argument 'x': expected dtype f32, got f64 %(2, 64%).-hint: x:to%('f32'%) makes it",
      message_of(function()
        local x = marea.ones{2, 64}:to "f64"
        small(x)
      end))
    assert.matches("quantize: argument 2: expected nothing behind the options, got 3; all go by name",
      message_of(function() net:quantize({}, 3) end))
    net:quantize({}, nil)
    assert.matches("quantize: argument 'skip%[3%]': expected each path and layer once, got 'last' again; take one out",
      message_of(function() net:quantize{skip = {"last", "hidden", "last"}} end))
    assert.matches("'skip%[2%]': expected each path and layer once, got the layer again",
      message_of(function() net:quantize{skip = {net.last, net.last}} end))
    local dense = nn.Sequential{nn.Linear{200, 200}}:quantize()
    for _, quantized in ipairs{dense, small} do
      assert.matches("Adam: argument 1: expected a network with parameters to train, got a quantized one, whose",
        message_of(function() marea.optim.Adam{quantized, lr = 0.1} end))
    end
    assert.matches("Adam: argument 1: expected a module, .-, got an empty list, of a network without sizes or",
      message_of(function() marea.optim.Adam(dense:parameters(), {lr = 0.1}) end))
    small[2]:unfreeze()
    marea.optim.Adam{small}
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

  it("takes LSTM, of several layers and both directions, with lengths and states; GRU stays", function()
    marea.seed(2)
    local net = nn.LSTM{70, 64, layers = 2, bidirectional = true, dropout = 0.5}:evaluate()
    local small, sizes = net:quantize()
    assert.are.equal("1 of 1 layers in int8", tostring(sizes):match "^[^:]*")
    assert.matches("^LSTM%(70 %-> 64, 2 layers, both directions, dropout 0.5, int8%)", tostring(small))
    assert.are.equal(0, (select(2, small:count())))
    local x, states = marea.normal{5, 9, 70}, marea.normal{4, 5, 64}:tanh()
    for _, o in ipairs{{}, {lengths = marea.tensor({9, 3, 0, 7, 1}, {dtype = "i64"}), h0 = states, c0 = states}} do
      local want, got = {net(x, o)}, {small(x, o)}
      for i = 1, 3 do assert.is_true(distance(got[i], want[i]) < 0.03) end
    end
    local path = os.tmpname()
    marea.checkpoint.save(path, {model = small})
    local other = nn.LSTM{70, 64, layers = 2, bidirectional = true, bias = true}:quantize()
    marea.checkpoint.load(path, {model = other})
    os.remove(path)
    assert.is_true(other(x):eq((small(x))):all():item() == 1)
    assert.are.equal("u8", nn.LSTM{70, 64, bias = false}:quantize().weights[1].forward.w_h.dtype)
    assert.are.equal("f32", nn.GRU{70, 64}:quantize().weights[1].forward.w_h.dtype)
    assert.are.equal("f32", nn.LSTM{40000, 1}:quantize{skip = {""}}.weights[1].forward.w_x.dtype)
    assert.are.equal(0, select(2, nn.LSTM{70000, 1}:quantize()).quantized)
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

  it("leaves layers of f64, and takes those of half floats", function()
    local x = marea.normal{3, 2, 130}
    for _, class in ipairs{nn.Linear, nn.LSTM} do
      local wide, sizes = class{130, 130, dtype = "f64"}:quantize()
      assert.are.equal(0, sizes.quantized)
      assert.are.equal("f64", (wide(x:to "f64")).dtype)
      for _, dtype in ipairs{"bf16", "f16"} do
        local net = class{130, 130, dtype = dtype}
        local small = net:quantize()
        assert.matches("int8", tostring(small))
        assert.is_true(distance((small(x)), (net(x))) < 0.05)
        assert.are.equal("f32", (small(x:to(dtype))).dtype)
      end
    end
  end)

  it("leaves layers whose sums int32 does not hold", function()
    local _, sizes = nn.Sequential{nn.Linear{70000, 2}, nn.Linear{2, 9000}}:quantize()
    assert.are.equal("1 of 2", tostring(sizes):match "^%d+ of %d+")
  end)

  -- MAREA_SPEC_PRINT=1 prints what docs/precision.md says.
  local function tell(what, ...)
    local text = what:format(...)
    if os.getenv "MAREA_SPEC_PRINT" then print(text) end
    return text
  end

  --- Trains for some epochs on the sample of MNIST; loss_of(net, images, labels).
  local function trained(net, loss_of, epochs)
    local optimizer = marea.optim.Adam{net, lr = 1e-3}
    for epoch = 1, epochs do
      for x, y in marea.data.mnist("sample", "train"):batches(64, {shuffle = true, epoch = epoch}) do
        optimizer:step(function() return loss_of(net, x, y) end)
      end
    end
    return net:evaluate()
  end

  --- Digits of 1,000 that a classifier has right, and its loss.
  local function judge(model)
    local right, loss = 0, 0
    for x, y in marea.data.mnist("sample", "test"):batches(500) do
      local logits = marea.no_grad(model, x)
      right = right + logits:argmax(2):eq(y):to "f32":sum():item()
      loss = loss + logits:cross_entropy(y):item() / 2
    end
    return right, loss
  end

  local function classify(net, x, y) return net(x):cross_entropy(y) end

  it("classifies as many digits as the network in f32, but for a few in 1,000", function()
    marea.seed(3)
    local net = trained(nn.Sequential{nn.Flatten{}, nn.Linear{784, 128, activation = "relu"},
      nn.Linear{128, 128, activation = "relu"}, nn.Linear{128, 10}}, classify, 3)
    local small, sizes = net:quantize()
    local right, loss = judge(net)
    local small_right, small_loss = judge(small)
    local text = tell("dense: %d and %d of 1,000 right, losses %.4f and %.4f", right, small_right, loss, small_loss)
    assert.are.equal(2, sizes.quantized)
    assert(right > 900 and small_right >= right - 5 and small_loss < loss + 0.01, text)
  end)

  it("does so with an LSTM that reads the rows of an image", function()
    local Rows = nn.class "Int8Rows"
    function Rows:init() self.lstm, self.out = nn.LSTM{28, 64}, nn.Linear{64, 10} end
    function Rows:forward(x)
      local _, h = self.lstm(x:reshape(x:size(1), 28, 28))
      return self.out(h:select(1, 1))
    end
    marea.seed(4)
    local net = trained(Rows(), classify, 3)
    local small = net:quantize()
    assert.are.equal("u8 u8", small.lstm.weights[1].forward.w_h.dtype .. " " .. small.lstm.weights[1].forward.w_x.dtype)
    local right, loss = judge(net)
    local small_right, small_loss = judge(small)
    local text = tell("LSTM: %d and %d of 1,000 right, losses %.4f and %.4f", right, small_right, loss, small_loss)
    assert(right > 800 and small_right >= right - 10 and small_loss < loss + 0.02, text)
  end)

  it("reconstructs images as a variational autoencoder in f32 does, but for some hundredths of a nat", function()
    marea.seed(5)
    local VAE = dofile "scripts/vae_model.lua"
    local net = VAE{model = "mlp", posterior = "normal", sampler = "exact", latent = 8}
    local function loss_of(model, x)
      local y, kl = model(x)
      return marea.bce(y, x, {reduction = "batchmean"}) + kl
    end
    trained(net, loss_of, 3)
    local function bound(model)
      local sum = 0
      for x in marea.data.mnist("sample", "test"):batches(500) do
        marea.seed(6) -- the same z
        sum = sum + marea.no_grad(loss_of, model, x):item() / 2
      end
      return sum
    end
    local small, sizes = net:quantize{least = 0}
    local loss, small_loss = bound(net), bound(small)
    local text = tell("VAE: losses %.3f and %.3f", loss, small_loss)
    assert.are.equal(5, sizes.quantized)
    assert(loss < 190 and math.abs(small_loss - loss) < 0.3, text)
  end)
end)
