-- SPDX-License-Identifier: MIT
-- What users meet beside the plain case, for every operator of the registry: gradients of some inputs only (a frozen
-- layer), lack of memory in large calls and in gradients of gradients, time limits; and conversions of every dtype.
local core = require "marea.core"
local marea = require "marea"
local allclose = require "spec.support.allclose"
local folder = require "spec.support.folder"
local sample = require "spec.support.sample"

local infos = {}
for i, name in ipairs(core.op_names()) do infos[i] = core.op_info(name) end

--- f(inputs, attrs, places) on random cases of every operator that has gradients; places of float tensors.
local function each_differentiable(cases, options, f)
  for _, info in ipairs(infos) do
    for seed = 1, info.differentiable and cases or 0 do
      core.seed(seed)
      core.scope(function()
        local inputs, attrs = sample.draw(info, sample.generator(seed, options))
        local places = {}
        for _, i in ipairs(sample.places(info, inputs)) do
          local dtype = inputs[i].dtype
          if dtype == "f64" or dtype == "f32" then places[#places + 1] = i end
        end
        f(info, inputs, attrs, places)
      end)
    end
  end
end

--- The gradient for the k-th of some leaves and, where it has a history, that gradient's own gradient for the leaf;
--- false for none and for operators whose gradient has none (once).
local function both_orders(y, leaves, k, once)
  local first = core.grad(sample.weighed(y), leaves, {create_graph = not once})[k]
  local second = first and first.requires_grad and core.grad(sample.weighed(first), {leaves[k]})[1]
  return first, second
end

local function assert_close(a, b, what)
  if a and b then return allclose.assert(a, b, {rtol = 1e-9, atol = 1e-9}, what) end
  local only = a or b -- what does not depend on anything has no gradient, or zeros
  assert.is_true(not only or only:abs():sum():item() == 0, what)
end

describe("gradients of some inputs", function()
  it("are those that all of them get, of the first order and of the second", function()
    local compared = 0
    each_differentiable(6, {}, function(info, inputs, attrs, places)
      if not sample.result(info, inputs, attrs, places) then return end
      for k, i in ipairs(places) do
        local y, leaves = sample.result(info, inputs, attrs, places)
        local first, second = both_orders(y, leaves, k, info.once)
        local own, leaf = sample.result(info, inputs, attrs, {i})
        if own then
          local own_first, own_second = both_orders(own, leaf, 1, info.once)
          assert_close(first, own_first, ("%s, input %d"):format(info.name, i))
          assert_close(second, own_second, ("%s, input %d, second order"):format(info.name, i))
          compared = compared + 1
        end
      end
    end)
    assert.is_true(compared > 500, compared)
  end)
end)

describe("lack of memory", function()
  it("in gradients of gradients and in large calls is an error that leaves nothing", function()
    local text, code = folder.lua "spec/support/lack_of_memory.lua"
    assert.are.equal(#infos .. " operators\n", text)
    assert.are.equal(0, code)
  end)
end)

describe("conversions between dtypes", function()
  local DTYPES = {"f32", "f64", "i64", "u8"}
  local VALUES = {0, 1, 2.5, -1.5, 255, 255.75, 256, -1e3, 1e19, -1e19, 0 / 0, 1 / 0, -1 / 0, 2 ^ 53, 0.99, 7}

  --- What a number becomes: integers cut towards zero and stay in range, NaN is 0.
  local function converted(x, dtype)
    if dtype == "f64" then return x end
    if dtype == "f32" then return (string.unpack("f", string.pack("f", x))) end
    if x ~= x then return 0 end
    if dtype == "u8" then return math.max(0, math.min(255, math.floor(math.max(x, 0)))) end
    if x >= 2 ^ 63 then return math.maxinteger end
    if x <= -2 ^ 63 then return math.mininteger end
    return math.tointeger(x < 0 and math.ceil(x) or math.floor(x))
  end

  it("cut towards zero, stay in range and make 0 of NaN, in any layout", function()
    for _, from in ipairs(DTYPES) do
      local values = {}
      for i, x in ipairs(VALUES) do values[i] = converted(x, from) end
      local x = marea.tensor(VALUES, {dtype = "f64"}):to(from):reshape{4, 4}
      allclose.assert_same(x:to "f64":reshape(16), marea.tensor(values, {dtype = "f64"}), from)
      local views = {contiguous = x, transposed = x:transpose(1, 2), columns = x["1:4, 2:4:2"]}
      for _, to in ipairs(DTYPES) do
        for name, view in pairs(views) do
          local what = ("%s to %s, %s"):format(from, to, name)
          local given, expected = allclose.flat(view), {}
          for i, value in ipairs(given) do expected[i] = converted(value, to) end
          allclose.assert(view:to(to), marea.tensor(expected, {dtype = to}):reshape(view.shape), {exact = true}, what)
          local target = marea.zeros({view:size(2), view:size(1)}, {dtype = to}):transpose(1, 2)
          target:copy_(view)
          allclose.assert(target, view:to(to), {exact = true}, what .. ", into a transposed one")
        end
      end
    end
  end)
end)
