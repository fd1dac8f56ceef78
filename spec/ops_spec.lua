-- SPDX-License-Identifier: MIT
-- Every operator of the registry against rules that hold for all of them: gradients, second derivatives, adjoints,
-- f32 against f64, views against copies, empty tensors, in-place variants, thread counts and instruction sets. The
-- cases come from the operators' own samples; what an operator computes is checked in reference_spec and golden_spec.
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local gradcheck = require "marea.gradcheck"
local sample = require "spec.support.sample"
local ops = core.ops

local SCALE = tonumber(os.getenv "MAREA_SPEC_SCALE") or 1 -- more cases: MAREA_SPEC_SCALE=10

local MANY = {conv = true, pool = true} -- families with many shapes and attributes: 2,000 cases instead of 200

local function cases_of(info)
  return (MANY[info.family] and 2000 or 200) * SCALE
end

local infos = {}
for i, name in ipairs(core.op_names()) do infos[i] = core.op_info(name) end

--- Runs f(inputs, attrs, seed) on random cases of an operator, each in a scope of its own. f returns false and a
--- text when something is wrong, nil when the case says nothing. Returns the number of cases that said something.
local function each_case(info, first, last, options, f)
  local told = 0
  for seed = first, last do
    core.seed(seed)
    local ok, message
    core.scope(function()
      local inputs, attrs = sample.draw(info, sample.generator(seed, options))
      ok, message = f(inputs, attrs, seed)
    end)
    if ok == false then error(("%s case %d: %s"):format(info.name, seed, message), 2) end
    if ok then told = told + 1 end
  end
  return told
end

--- The operator as a function of a list of tensors; a random operator draws the same numbers every time.
local function function_of(info, attrs)
  if info.family ~= "random" and info.family ~= "attention" then -- which has dropout
    return function(inputs) return sample.call(info, inputs, attrs) end
  end
  local seed, counter = core.random_state()
  return function(inputs)
    local now_seed, now_counter = core.random_state()
    core.set_random_state(seed, counter + 1000000)
    local results = sample.call(info, inputs, attrs)
    core.set_random_state(now_seed, now_counter)
    return results
  end
end

--- max |a - b| within rtol of the largest |b|, computed by the core; falls back to Lua for a text or for NaN.
local function close(a, b, rtol, atol)
  if a.dtype == "u8" or a.dtype == "i64" then rtol, atol = 0, 0 end
  if a:numel() == b:numel() and a:numel() > 0 and a.dtype ~= "u8" then
    local wide = {dtype = "f64"}
    local x, y = ops.cast(a, wide), ops.cast(b, wide)
    local difference = ops.max(ops.abs(ops.sub(x, y))):item()
    if difference <= atol + rtol * ops.max(ops.abs(y)):item() then return true end
  end
  return allclose.check(a, b, {rtol = rtol, atol = atol, scaled = true})
end

local function all_close(actual, expected, rtol, atol, what)
  if #actual ~= #expected then return false, ("%s: %d results instead of %d"):format(what, #actual, #expected) end
  for i = 1, #expected do
    local ok, message = close(actual[i], expected[i], rtol, atol)
    if not ok then return false, ("%s, result %d: %s"):format(what, i, message) end
  end
  return true
end

local F32_ALONE = {linear_int8 = true, conv2d_int8 = true, lstm_int8 = true} -- there is nothing to compare it with

--- Results and gradients of one case, as a list. `to` is the dtype of real tensors; with `behind` the operator gets
--- results of another one, which the tape keeps only where the gradient reads them.
local function run(info, inputs, attrs, to, behind)
  local copy, leaves, list = {}, {}, {}
  if F32_ALONE[info.name] then to = "f32" end
  for i, t in pairs(inputs) do copy[i] = t end
  for _, i in ipairs(sample.places(info, inputs)) do
    local t = inputs[i]
    if t.dtype == "f64" or t.dtype == "f32" then
      copy[i] = t:to(to or t.dtype):detach()
      if info.mutates then copy[i] = copy[i]:clone() end
      if info.differentiable then
        leaves[#leaves + 1] = copy[i]:requires_grad_(true)
        if behind then copy[i] = ops.mul(copy[i], 1) end
      end
    elseif info.mutates then
      copy[i] = t:clone()
    end
  end
  local results = function_of(info, attrs)(copy)
  if info.mutates then
    for _, i in ipairs(sample.places(info, inputs)) do results[#results + 1] = copy[i] end
  end
  local total
  for i, y in ipairs(results) do
    list[i] = y:detach()
    if y.requires_grad and info.differentiable then
      -- weights without a random draw: a ramp that is the same in f32 and f64
      local n = y:numel()
      local ramp = n == 0 and y or ops.arange {start = 1, stop = n, dtype = y.dtype}:reshape(y.shape)
      local weights = ops.add(ops.mul(ops.cos(ramp), 0.5), 1) -- without balance, so that their sums do not cancel
      local term = ops.sum(ops.mul(y, weights))
      total = total and ops.add(total, term) or term
    end
  end
  if total then
    for i, d in ipairs(core.grad(total, leaves, {})) do
      list[#list + 1] = d or ops.mul(leaves[i]:detach(), 0)
    end
  end
  return list
end

describe("the registry", function()
  it("describes every operator", function()
    assert.is_true(#infos > 100)
    for _, info in ipairs(infos) do
      assert.is_true(#info.doc > 20, info.name .. " has no doc line")
      assert.is_string(info.sample, info.name .. " has no sample")
      assert.is_function(ops[info.name])
    end
  end)
end)

describe("gradients agree with central differences:", function()
  for _, info in ipairs(infos) do
    if info.differentiable then
      it(info.name, function()
        local n = cases_of(info)
        local told = each_case(info, 1, n, {}, function(inputs, attrs, seed)
          return gradcheck.check(function_of(info, attrs), inputs, sample.places(info, inputs),
            {elements = seed % 20 == 0})
        end)
        assert.is_true(told >= n / 4, info.name .. ": too few cases with a gradient: " .. told)
      end)
    end
  end
end)

describe("gradients of gradients agree with central differences:", function()
  for _, info in ipairs(infos) do
    if info.differentiable and not info.once then
      it(info.name, function()
        local n = cases_of(info) // 10
        local told = each_case(info, 1, n, {}, function(inputs, attrs)
          return gradcheck.check_second(function_of(info, attrs), inputs, sample.places(info, inputs),
            {rtol = 1e-5, atol = 1e-6})
        end)
        assert.is_true(told >= n / 4, info.name .. ": too few cases with a second derivative: " .. told)
      end)
    end
  end
end)

describe("a gradient that has none is an error with create_graph:", function()
  for _, info in ipairs(infos) do
    if info.once then
      it(info.name, function()
        local told = each_case(info, 1, 20, {}, function(inputs, attrs)
          local places = sample.places(info, inputs)
          local ok, message = pcall(gradcheck.check_second, function_of(info, attrs), inputs, places, {})
          if ok then return nil end
          return message:find(info.name .. ": its gradient has no gradient", 1, true) ~= nil, message
        end)
        assert.is_true(told > 0)
      end)
    end
  end
end)

-- Linear operators: the inputs that they are linear in, each by itself ("one") or together ("all").
local LINEAR = {
  conv2d = {1, 2, without = 3}, conv_transpose2d = {1, 2, without = 3}, linear = {1, 2, without = 3},
  conv1d = {1, 2, without = 3}, conv_transpose1d = {1, 2, without = 3},
  conv2d_grad_input = {1, 2}, conv2d_grad_weight = {1, 2}, matmul = {1, 2}, mul = {1, 2},
  avg_pool2d = {1}, avg_pool2d_grad = {1}, max_pool2d_grad = {1}, max_pool2d_pick = {1}, upsample_nearest2d = {1},
  upsample_nearest2d_grad = {1}, sum = {1}, sum_to = {1}, mean = {1}, cumsum = {1}, index_select = {1}, gather = {1},
  reshape = {1}, permute = {1}, transpose = {1}, expand = {1}, flatten = {1}, narrow = {1}, select = {1},
  slice = {1}, slice_grad = {1}, flip = {1}, tile = {1}, contiguous = {1}, clone = {1}, neg = {1}, cast = {1},
  pad = {1}, add = {"all"}, sub = {"all"}, concat = {"all"}, stack = {"all"}, index_add = {"all"},
  scatter_add = {"all"}, gaussian_blur = {1}, upsample_bilinear2d = {1}, upsample_bilinear2d_grad = {1},
  affine2d = {1}, affine2d_grad = {1}, embedding = {1}, embedding_grad = {1},
}

describe("linear operators agree with their adjoints:", function()
  for _, info in ipairs(infos) do
    local linear = LINEAR[info.name]
    if linear then
      it(info.name, function()
        local told = each_case(info, 1001, 2000 * SCALE, {}, function(inputs, attrs)
          if attrs.activation then attrs.activation = "none" end
          if attrs.value then attrs.value = 0 end
          if linear.without then inputs[linear.without] = nil end
          local f = function_of(info, attrs)
          if linear[1] == "all" then return gradcheck.check_adjoint(f, inputs, sample.places(info, inputs)) end
          for _, i in ipairs(linear) do
            local ok, message = gradcheck.check_adjoint(f, inputs, {i})
            if ok == false then return false, ("input %d: %s"):format(i, message) end
          end
          return true
        end)
        assert.is_true(told >= 500)
      end)
    end
  end
end)

describe("f32 agrees with f64:", function()
  for _, info in ipairs(infos) do
    it(info.name, function()
      each_case(info, 1, 40, {}, function(inputs, attrs, seed)
        core.seed(seed)
        local narrow = run(info, inputs, attrs, "f32")
        core.seed(seed)
        local wide = run(info, inputs, attrs, "f64")
        return all_close(narrow, wide, 1e-5, 2e-6, "f32")
      end)
    end)
  end
end)

-- The samples have few channels; kernels cut channels and columns into vectors and blocks of many.
local wide = {}
describe("f32 agrees with f64 for many channels:", function()
  local function channels(g) return g.pick {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 96} end

  local function image(g, cin)
    return {g.int(1, 3), g.int(3, 19), g.int(3, 40), cin}
  end

  --- Sizes and values of a recurrent layer with so many gates.
  local function recurrent(g, gates)
    local n, c, h, range = g.int(1, 40), channels(g), channels(g), {lo = -0.3, hi = 0.3}
    local function w(...) return g.tensor({...}, range) end
    return {w(n, 3, c), w(c, gates * h), w(h, gates * h), w(gates * h)}, {reverse = g.bool()}
  end

  wide = {
    lstm = function(g) return recurrent(g, 4) end,
    gru = function(g)
      local inputs, attrs = recurrent(g, 3)
      attrs.reset_after = g.bool()
      return inputs, attrs
    end,
    rnn = function(g) return recurrent(g, 1) end,
    conv2d = function(g)
      local cin, cout, k = channels(g), channels(g), g.int(1, 3)
      return {g.tensor(image(g, cin)), g.tensor {k, k, cin, cout}, g.tensor {cout}},
        {stride = g.int(1, 2), padding = g.pick {"same", 0, {0, 1, 2, 1}}, dilation = k == 2 and 2 or 1,
         activation = g.pick {"none", "relu", "sigmoid"}}
    end,
    conv2d_backward = function(g)
      local cin, cout, k, n = channels(g), channels(g), g.pick {2, 3, 3}, g.pick {2, 16, 17, 35}
      local act, s, h, w = g.pick {"none", "relu", "tanh"}, g.pick {1, 1, 2}, g.int(3, 13), g.int(3, 13)
      local x, y = {n, h, w, cin}, {n, (h + s - 1) // s, (w + s - 1) // s, cout}
      if g.bool() then x, y = y, x end
      return {g.tensor(y), g.tensor(x), g.tensor {k, k, cin, cout}, act ~= "none" and g.tensor(y) or nil},
        {stride = s, padding = "same", activation = act, transposed = y[4] == cin}
    end,
    conv_transpose2d = function(g)
      local cin, cout, k = channels(g), channels(g), g.int(1, 3)
      return {g.tensor(image(g, cin)), g.tensor {k, k, cout, cin}, g.tensor {cout}},
        {stride = g.int(1, 3), padding = g.pick {"same", 0}, activation = g.pick {"none", "tanh", "relu"}}
    end,
    conv1d = function(g)
      local cin, cout, k = channels(g), channels(g), g.int(1, 9)
      return {g.tensor {g.int(1, 3), g.int(9, 70), cin}, g.tensor {k, cin, cout}, g.tensor {cout}},
        {stride = g.int(1, 2), padding = g.pick {"same", 0, {3, 1}}, activation = g.pick {"none", "relu"}}
    end,
    linear = function(g)
      local n_in, n_out = channels(g), channels(g)
      return {g.tensor {g.int(1, 40), n_in}, g.tensor {n_in, n_out}, g.tensor {n_out}}, {activation = "softplus"}
    end,
    max_pool2d = function(g)
      return {g.distinct(image(g, channels(g)))}, {kernel = g.int(2, 3), stride = g.int(1, 3)}
    end,
    avg_pool2d = function(g)
      return {g.tensor(image(g, channels(g)))}, {kernel = g.int(2, 3), stride = g.int(1, 3), padding = "same"}
    end,
  }

  --- Kernels of 3x3 and stride 1 may be computed at Winograd's points, whose rounding error goes with the largest sum
  --- rather than with each one. The activations drawn here have slopes of at most 1.
  local function allowed(info, inputs, attrs)
    local weight = inputs[2]
    if not info.name:match "^conv.*2d" or attrs.stride ~= 1 or weight:size(1) ~= 3
      or math.min(weight:size(3), weight:size(4)) < 16 then
      return 2e-6
    end
    local largest, plain = 0, {padding = attrs.padding, transposed = attrs.transposed}
    for _, sum in ipairs(run(info, inputs, plain, "f64")) do largest = math.max(largest, sum:abs():max():item()) end
    return 4e-6 * largest
  end

  for name, draw in pairs(wide) do
    it(name, function()
      local info = core.op_info(name)
      for seed = 1, 40 do
        core.scope(function()
          local inputs, attrs = draw(sample.generator(seed))
          local ok, message = all_close(run(info, inputs, attrs, "f32"), run(info, inputs, attrs, "f64"), 1e-5,
            allowed(info, inputs, attrs), ("%s case %d"):format(name, seed))
          if not ok then error(message) end
        end)
      end
    end)
  end
end)

it("conv2d_backward gives what the operators it stands for give", function()
  for seed = 1, 30 do
    core.scope(function()
      local inputs, attrs = wide.conv2d_backward(sample.generator(seed))
      for i, t in pairs(inputs) do inputs[i] = core.is_tensor(t) and t:to "f64" or t end
      local dy, x, weight, y = table.unpack(inputs, 1, 4)
      local e = y and ops.activation_grad(dy, y, {activation = attrs.activation}) or dy
      local how = {stride = attrs.stride, padding = attrs.padding}
      local sized = {kernel = {weight:size(1), weight:size(2)}, stride = attrs.stride, padding = attrs.padding}
      local large = {size = {x:size(2), x:size(3)}, stride = attrs.stride, padding = attrs.padding}
      local expected = attrs.transposed
        and {ops.conv2d(e, weight, how), ops.conv2d_grad_weight(e, x, sized)}
        or {ops.conv2d_grad_input(e, weight, large), ops.conv2d_grad_weight(x, e, sized)}
      expected[3] = ops.sum(e, {dims = {1, 2, 3}})
      local dx, dweight, dbias = ops.conv2d_backward(dy, x, weight, y, attrs)
      local ok, message = all_close({dx, dweight, dbias}, expected, 1e-11, 1e-11, "case " .. seed)
      if not ok then error(message) end
    end)
  end
end)

-- What they make of whole channels, statistics and gradients of parameters, stays in f32.
local OF_CHANNELS = {batch_norm = true, batch_norm_backward = true, group_norm_backward = true,
  quantize_int8 = true}

--- Results and gradients with inputs of a dtype that is only stored; in f32, from the same values, what is to be
--- their equal once it is rounded. The gradients that arrive at the results have the stored dtype in both.
local function run_stored(info, inputs, attrs, stored, as_f32)
  local copy, leaves, list, any = {}, {}, {}, false
  for i, t in pairs(inputs) do
    copy[i] = t
    if core.is_tensor(t) and core.float_dtypes[t.dtype] then
      any = true
      copy[i] = t:to(stored):detach()
      if as_f32 then copy[i] = copy[i]:to "f32" end
      if info.differentiable then leaves[#leaves + 1] = copy[i]:requires_grad_(true) end
    end
  end
  local total
  for i, y in ipairs(function_of(info, attrs)(copy)) do
    local of_channels = OF_CHANNELS[info.name] and y.rank == 1
    local to_round = as_f32 and any and y.dtype == "f32" and attrs.dtype == nil and not of_channels
    local z = to_round and y:to(stored) or y
    list[i] = z:detach()
    if y.requires_grad and y:numel() > 0 then
      local ramp = ops.arange{start = 1, stop = y:numel(), dtype = "f32"}:reshape(y.shape)
      local term = ops.sum(ops.mul(z:to "f32", ops.add(ops.mul(ops.cos(ramp), 0.5), 1)))
      total = total and ops.add(total, term) or term
    end
  end
  for _, d in ipairs(total and core.grad(total, leaves, {}) or {}) do
    list[#list + 1] = d and (as_f32 and d:to(stored) or d) or nil
  end
  return list
end

-- Gradients that are made by several operators, each of which rounds; and products that take bf16 as it is, whose sums
-- have another order (spec/bf16_spec.lua has their bounds) and whose gradients round what comes before them.
local ROUNDS_OFTEN = {tile = {rtol = 0.02}}
for _, name in ipairs{"matmul", "linear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d",
  "conv2d_grad_input", "conv2d_grad_weight", "conv2d_backward"} do
  ROUNDS_OFTEN[name] = {rtol = 0.02, atol = 0.02, scaled = true}
end

describe("what is only stored gives what f32 gives, rounded once:", function()
  for _, info in ipairs(infos) do
    it(info.name, function()
      for _, stored in ipairs{"bf16", "f16"} do
        each_case(info, 1, 15 * SCALE, {}, function(inputs, attrs, seed)
          if info.mutates then
            for i, t in pairs(inputs) do
              if core.is_tensor(t) and core.float_dtypes[t.dtype] then inputs[i] = t:to(stored):clone() end
            end
            local ok, message = pcall(sample.call, info, inputs, attrs)
            if info.name == "index_put" then return ok, message end
            return not ok and message:find("in place, whose small changes " .. stored, 1, true) ~= nil, message
          end
          if info.family == "random" and #info.inputs == 0 then
            for _, attr in ipairs(info.attrs) do
              if attr.name == "dtype" then attrs.dtype = stored end
            end
            core.seed(seed)
            local narrow = sample.call(info, inputs, attrs)[1]
            if not attrs.dtype then return nil end
            attrs.dtype = "f32"
            core.seed(seed)
            return narrow.dtype == stored and allclose.check(narrow, sample.call(info, inputs, attrs)[1]:to(stored),
              {exact = true})
          end
          core.seed(seed)
          local got = run_stored(info, inputs, attrs, stored, false)
          core.seed(seed)
          local expected = run_stored(info, inputs, attrs, stored, true)
          if #got ~= #expected then return false, ("%d results instead of %d"):format(#got, #expected) end
          for i, y in ipairs(expected) do
            if got[i].dtype ~= y.dtype then return false, ("result %d is %s"):format(i, got[i].dtype) end
            local ok, message = allclose.check(got[i], y, ROUNDS_OFTEN[info.name] or {exact = true})
            if not ok then return false, ("%s, result %d: %s"):format(stored, i, message) end
          end
          return true
        end)
      end
    end)
  end
end)

describe("a view gives what its copy gives:", function()
  for _, info in ipairs(infos) do
    it(info.name, function()
      each_case(info, 1, 40, {}, function(inputs, attrs, seed)
        local copies, differ = {}, false
        for i, t in pairs(inputs) do
          copies[i] = t
          if core.is_tensor(t) then
            differ = differ or not t:is_contiguous()
            copies[i] = t:clone():contiguous()
            if not copies[i]:is_contiguous() then return false, "clone():contiguous() is not contiguous" end
          end
        end
        if not differ then return nil end
        core.seed(seed)
        local from_view = run(info, inputs, attrs)
        core.seed(seed)
        return all_close(from_view, run(info, copies, attrs), 1e-12, 1e-12, "view")
      end)
    end)
  end
end)

describe("gradients go on to what made the inputs:", function()
  for _, info in ipairs(infos) do
    if info.differentiable and not info.mutates then
      it(info.name, function()
        each_case(info, 1, 20, {}, function(inputs, attrs, seed)
          core.seed(seed)
          local of_leaves = run(info, inputs, attrs)
          core.seed(seed)
          return all_close(run(info, inputs, attrs, nil, true), of_leaves, 1e-12, 1e-12, "behind")
        end)
      end)
    end
  end
end)

describe("an empty tensor is a value or an error that names the operator:", function()
  for _, info in ipairs(infos) do
    it(info.name, function()
      each_case(info, 1, 40, {empty = true}, function(inputs, attrs)
        local ok, message = pcall(run, info, inputs, attrs)
        if ok then return true end
        if info.elementwise then return false, message end
        if not tostring(message):find(info.name, 1, true) then return false, "message: " .. tostring(message) end
        return true
      end)
    end)
  end
end)

describe("the variant in place gives what the plain one gives:", function()
  for _, info in ipairs(infos) do
    if info.elementwise then
      it(info.name .. "_", function()
        local told = each_case(info, 1, 60, {}, function(inputs, attrs, seed)
          core.seed(seed)
          local plain = sample.call(info, inputs, attrs)[1]
          local x = inputs[1]
          if not core.is_tensor(x) then return nil end
          local fits = plain.dtype == x.dtype and table.concat(plain.shape, ",") == table.concat(x.shape, ",")
          local args = {table.unpack(inputs, 2, #info.inputs)}
          args[#info.inputs] = attrs
          local method = x[info.name .. "_"]
          core.seed(seed)
          local ok, result = pcall(method, x, table.unpack(args, 1, #info.inputs))
          if not fits then
            if ok and plain.dtype == x.dtype then return false, "took a result of another shape" end
            return nil
          end
          if not ok then return false, result end
          if not x:shares(result) then return false, "does not return its tensor" end
          return allclose.check(x, plain, {exact = true})
        end)
        assert.is_true(told > 0 or info.name == "where" or #info.inputs > 1 or info.name == "cast",
          "no case in place")
      end)
    end
  end
end)

-- Bigger cases for operators whose samples are small whatever g.shape says.
local function values(shape, dtype)
  return ops.uniform {shape = shape, low = -1, high = 1, dtype = dtype or "f32"}
end

local LARGE = {
  matmul = function() return {values {130, 97}, values {97, 301}}, {} end,
  linear = function() return {values {300, 65}, values {65, 130}, values {130}}, {activation = "relu"} end,
  conv2d = function() return {values {5, 17, 19, 6}, values {3, 3, 6, 20}, values {20}}, {padding = "same"} end,
  conv_transpose2d = function()
    return {values {5, 11, 12, 6}, values {3, 3, 20, 6}, values {20}}, {padding = "same", stride = 2}
  end,
  conv1d = function() return {values {5, 217, 6}, values {5, 6, 20}, values {20}}, {padding = "same"} end,
  conv2d_grad_input = function()
    return {values {5, 17, 19, 6}, values {3, 3, 4, 6}}, {size = {17, 19}, padding = 1}
  end,
  conv2d_grad_weight = function()
    return {values {5, 17, 19, 6}, values {5, 17, 19, 9}}, {kernel = {3, 3}, padding = 1}
  end,
  lstm = function() return {values {70, 5, 33}, values {33, 160}, values {40, 160}, values {160}}, {} end,
  gru = function() return {values {70, 5, 33}, values {33, 120}, values {40, 120}}, {reset_after = false} end,
  rnn = function() return {values {70, 5, 33}, values {33, 40}, values {40, 40}}, {reverse = true} end,
  ctc_loss = function()
    local function all(shape, value) return ops.full(shape, value, "i64") end
    local targets = ops.randint {shape = {40, 7}, low = 2, high = 9}
    return {values {40, 60, 9}, targets, all({40}, 60), all({40}, 7)}, {}
  end,
  max_pool1d = function() return {values {5, 333, 7}}, {kernel = 3, stride = 2} end,
  max_pool2d = function() return {values {5, 33, 31, 7}}, {kernel = 3, stride = 2} end,
  avg_pool2d = function() return {values {5, 33, 31, 7}}, {kernel = 3, stride = 2} end,
  gaussian_blur = function() return {values {3, 67, 31, 7}}, {sigma = 2} end,
  upsample_bilinear2d = function() return {values {3, 33, 31, 7}}, {scale = {2, 3}} end,
  upsample_bilinear2d_grad = function() return {values {3, 66, 93, 7}}, {scale = {2, 3}} end,
  softmax = function() return {values {301, 157}}, {} end,
  log_softmax = function() return {values {301, 157}}, {} end,
  cross_entropy = function()
    return {values {3001, 17}, ops.randint {shape = {3001}, low = 1, high = 17}}, {}
  end,
  sum = function() return {values {33, 1201}}, {dims = {1}} end,
  mean = function() return {values {33, 1201}}, {dims = {2}} end,
  logsumexp = function() return {values {50001}}, {} end,
  var = function() return {values {3, 20001}}, {dims = {2}} end,
  index_add = function()
    return {values {50, 40}, ops.randint {shape = {2000}, low = 1, high = 50}, values {2000, 40}}, {dim = 1}
  end,
  normal = function() return {}, {shape = {50001}} end,
  uniform = function() return {}, {shape = {50001}} end,
  bernoulli = function() return {ops.uniform {shape = {50001}}}, {} end,
  dropout = function() return {values {50001}}, {p = 0.3} end,
  randint = function() return {}, {shape = {50001}, low = 1, high = 7} end,
  permutation = function() return {}, {n = 50001} end,
  categorical = function() return {values {5001, 9}}, {} end,
}

describe("1, 2, 3 and 4 threads give the same bits:", function()
  local threads = core.threads()
  teardown(function() core.set_threads(threads) end)

  for _, info in ipairs(infos) do
    it(info.name, function()
      local function check(inputs, attrs, seed)
        local first
        for n = 1, 4 do
          core.set_threads(n)
          core.seed(seed)
          local ok, results = pcall(run, info, inputs, attrs, "f32")
          if not ok then return n > 1 and false or nil, results end
          first = first or results
          for i = 1, #first do
            local a, b = first[i], results[i]
            if a:numel() > 0 and ops.sum(ops.ne(a, b)):item() ~= 0 then
              local same, message = allclose.check(b, a, {exact = true})
              if not same then return false, ("%d threads, result %d: %s"):format(n, i, message) end
            end
          end
        end
        return true
      end
      each_case(info, 1, 2, {large = 40000}, check)
      if LARGE[info.name] then
        each_case(info, 3, 3, {}, function(_, _, seed)
          local inputs, attrs = LARGE[info.name]()
          return check(inputs, attrs, seed)
        end)
      end
    end)
  end
end)

describe("every instruction set agrees with generic:", function()
  --- Results of all operators under MAREA_ISA=isa, computed by a process of its own.
  local function outputs(isa)
    local path = os.tmpname()
    local command = ("MAREA_ISA=%s LUA_PATH='%s' LUA_CPATH='%s' lua5.4 spec/support/isa_outputs.lua %s 2>&1"):format(
      isa, package.path, package.cpath, path)
    local pipe = assert(io.popen(command))
    local text = pipe:read "a"
    local ok = pipe:close()
    local tensors, texts = core.load(path)
    os.remove(path)
    assert(ok, text)
    assert(tensors, texts)
    assert.are.equal(isa, texts.isa)
    return tensors
  end

  local generic
  for _, isa in ipairs(core.info().isas) do
    if isa ~= "generic" then
      it(isa, function()
        generic = generic or outputs "generic"
        local own, compared = outputs(isa), 0
        for name, expected in pairs(generic) do
          core.scope(function()
            local ok, message = close(assert(own[name], name), expected, 1e-5, 2e-6)
            if not ok then error(("%s: %s"):format(name, message)) end
          end)
          compared = compared + 1
        end
        assert.is_true(compared > 1000)
      end)
    end
  end
end)
