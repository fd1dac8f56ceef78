-- SPDX-License-Identifier: MIT
-- lstm, gru and rnn against loops over Lua numbers; lengths, padding that holds NaN, errors, and what a gradient of a
-- gradient says. Their gradients against differences are in ops_spec.
local core = require "marea.core"
local marea = require "marea"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local naive = require "spec.support.naive_recurrent"

local NAN = 0 / 0
local GATES = {lstm = 4, gru = 3, rnn = 1}
local INPUTS = {
  lstm = {"x", "w_x", "w_h", "bias", "h0", "c0", "lengths"},
  gru = {"x", "w_x", "w_h", "bias", "bias_h", "h0", "lengths"},
  rnn = {"x", "w_x", "w_h", "bias", "h0", "lengths"},
}

local function values(...) return marea.uniform({...}, -1, 1, "f64") end

--- Arguments of a call by name: tensors, and attributes beside them.
local function case(kind, n, steps, c, h, attrs)
  local g = GATES[kind] * h
  local o = {x = values(n, steps, c), w_x = values(c, g), w_h = values(h, g), bias = values(g), h0 = values(n, h),
    c0 = kind == "lstm" and values(n, h) or nil, attrs = attrs or {}}
  if kind == "gru" and o.attrs.reset_after ~= false then o.bias_h = values(h) end
  return o
end

local function call(kind, o)
  local list, names = {}, INPUTS[kind]
  for i, name in ipairs(names) do list[i] = o[name] end
  list[#names + 1] = o.attrs
  return marea[kind](table.unpack(list, 1, #names + 1))
end

local function expected(kind, o)
  local plain = {reset_after = true}
  for k, v in pairs(o.attrs) do plain[k] = v end
  for _, name in ipairs(INPUTS[kind]) do plain[name] = o[name] and o[name]:totable() end
  return naive.run(kind, plain)
end

local function compare(kind, o)
  local y, h, c = call(kind, o)
  local wanted_y, wanted_h, wanted_c = expected(kind, o)
  local near = {rtol = 1e-12, atol = 1e-13}
  allclose.assert(y, wanted_y, near)
  allclose.assert(h, wanted_h, near)
  if c then allclose.assert(c, wanted_c, near) end
end

--- All that an operator has besides its sizes.
local FORMS = {
  lstm = {{}, {reverse = true}, {recurrent_activation = "hard_sigmoid"}},
  gru = {{}, {reverse = true}, {recurrent_activation = "hard_sigmoid"}, {reset_after = false},
    {reset_after = false, reverse = true, recurrent_activation = "hard_sigmoid"}},
  rnn = {{}, {reverse = true}, {activation = "relu"}, {activation = "relu", reverse = true}},
}

for kind, forms in pairs(FORMS) do
  describe(kind, function()
    before_each(function() marea.seed(5) end)

    it("gives what a loop over its formula gives", function()
      for _, attrs in ipairs(forms) do
        for _, sizes in ipairs{{3, 4, 2, 5}, {1, 1, 1, 1}, {19, 3, 4, 33}, {37, 2, 3, 3}} do
          compare(kind, case(kind, sizes[1], sizes[2], sizes[3], sizes[4], attrs))
        end
      end
    end)

    it("takes rows of any length in any order, 0 included", function()
      for _, attrs in ipairs(forms) do
        local o = case(kind, 20, 6, 3, 5, attrs)
        o.lengths = marea.randint{shape = {20}, low = 0, high = 6}
        o.lengths[1], o.lengths[2], o.lengths[20] = 0, 6, 6
        compare(kind, o)
        o.lengths = o.lengths:to "u8"
        compare(kind, o)
      end
    end)

    it("goes without bias and first states", function()
      local o = case(kind, 3, 4, 2, 5)
      o.bias, o.bias_h, o.h0, o.c0 = nil, nil, nil, nil
      compare(kind, o)
    end)

    it("with all lengths T gives the bits of no lengths", function()
      local o = case(kind, 5, 4, 3, 8)
      local y = call(kind, o)
      o.lengths = marea.full({5}, 4, "i64")
      allclose.assert(call(kind, o), y, {exact = true})
    end)

    it("lets nothing of what lies behind the end of a row into results and gradients", function()
      for _, attrs in ipairs(forms) do
        local o = case(kind, 4, 5, 3, 6, attrs)
        o.lengths = marea.tensor({2, 5, 0, 4}, {dtype = "i64"})
        local function run(x)
          local all = {}
          for k, v in pairs(o) do all[k] = v end
          all.x = x:detach():requires_grad_()
          local leaves = {all.x}
          for _, name in ipairs{"w_x", "w_h", "bias", "bias_h", "h0", "c0"} do
            if o[name] then
              all[name] = o[name]:detach():requires_grad_()
              leaves[#leaves + 1] = all[name]
            end
          end
          local y, h = call(kind, all)
          local grads = core.grad((y * y):sum() + h:sum(), leaves, {})
          return {y, h, table.unpack(grads)}
        end
        local clean = run(o.x)
        local dirty = o.x:clone()
        for row, length in ipairs(o.lengths:totable()) do
          for t = length + 1, 5 do dirty[row][t]:copy_(marea.full({3}, NAN, "f64")) end
        end
        for i, t in ipairs(run(dirty)) do allclose.assert(t, clean[i], {exact = true}) end
      end
    end)

    it("names the row of a length that is out of range", function()
      local o = case(kind, 3, 4, 2, 5)
      for _, length in ipairs{5, -1} do
        o.lengths = marea.tensor({4, length, 9}, {dtype = "i64"})
        local wanted = "%s: argument 'lengths': row 2 has length %d, expected 0 to 4, the steps of x"
        assert.are.equal(wanted:format(kind, length),
          (message_of(function() call(kind, o) end):match "%w+: argument [^\n]*"))
      end
    end)

    it("names the argument that does not fit", function()
      for _, wrong in ipairs{{"w_x", {9, 5}}, {"w_h", {5, 7}}, {"bias", {3}}, {"h0", {2, 5}}, {"x", {3, 4}}} do
        local o = case(kind, 3, 4, 2, 5)
        o[wrong[1]] = marea.zeros(wrong[2]):to "f64"
        local message = message_of(function() call(kind, o) end)
        assert.is_truthy(message:find(kind .. ": argument '" .. wrong[1] .. "'", 1, true))
      end
    end)

    it("says what has gradients of any order", function()
      local o = case(kind, 2, 3, 2, 2)
      o.x:requires_grad_()
      local message = message_of(function() marea.grad(call(kind, o):sum(), {o.x}, {create_graph = true}) end)
      assert.is_truthy(message:find("nn." .. kind:upper() .. "Cell", 1, true), message)
    end)

    it("calls the system's allocator in no steady step", function()
      local o = case(kind, 8, 6, 4, 16)
      for _, name in ipairs{"w_x", "w_h", "bias"} do o[name]:requires_grad_() end
      local function step()
        marea.scope(function()
          local y = call(kind, o)
          y:sum():backward()
        end)
      end
      for _ = 1, 3 do step() end
      local before = core.memory().mallocs
      for _ = 1, 5 do step() end
      assert.are.equal(before, core.memory().mallocs)
    end)
  end)
end

it("gru has no bias_h when the reset comes before the product", function()
  local o = case("gru", 2, 3, 2, 2)
  o.attrs = {reset_after = false}
  assert.is_truthy(message_of(function() call("gru", o) end):find("reset_after", 1, true))
end)

describe("layers whose weight is shared by columns among the threads", function()
  local threads = core.threads()
  teardown(function() core.set_threads(threads) end)

  -- H so that w_h passes half a second-level cache in f32 and in bf16, the fewest rows and some lengths
  local SIZES = {lstm = 372, gru = 424, rnn = 736}

  local function all_results(kind, o, products)
    local list, names = {}, INPUTS[kind]
    local leaves = {}
    for i, name in ipairs(names) do
      list[i] = o[name]
      if o[name] and name ~= "lengths" then
        list[i] = o[name]:detach():requires_grad_()
        leaves[#leaves + 1] = list[i]
      end
    end
    local attrs = {products = products}
    for k, v in pairs(o.attrs) do attrs[k] = v end
    list[#names + 1] = attrs
    local y, h = marea[kind](table.unpack(list, 1, #names + 1))
    return {y, h, table.unpack(core.grad((y * y):sum() + h:sum(), leaves, {}))}
  end

  for kind, h in pairs(SIZES) do
    it("give the bits of one thread: " .. kind, function()
      marea.seed(6)
      for _, attrs in ipairs{{}, kind == "gru" and {reset_after = false} or {reverse = true}} do
        for _, products in ipairs{"full", "bf16"} do
          local o = case(kind, 7, 3, 5, h, attrs)
          for name, t in pairs(o) do if name ~= "attrs" then o[name] = (t * 0.1):to "f32" end end
          o.lengths = marea.tensor({3, 0, 2, 3, 1, 3, 3}, {dtype = "i64"})
          core.set_threads(1)
          local one = all_results(kind, o, products)
          for n = 2, 3 do
            core.set_threads(n)
            for i, t in ipairs(all_results(kind, o, products)) do allclose.assert(t, one[i], {exact = true}) end
          end
        end
      end
    end)
  end
end)
