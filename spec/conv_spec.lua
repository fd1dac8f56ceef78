-- SPDX-License-Identifier: MIT
-- Convolutions choose among ways of computing by shape: a batch of small images goes across the images, a few images go
-- one by one. A batch must give what its parts give, on every geometry.
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local sample = require "spec.support.sample"
local ops = core.ops

local CASES = 60
local FEW = 20 -- images that are walked over one by one

--- A geometry whose smaller side has at most 8 columns, and sizes for it.
local function draw(g)
  local groups, k = g.pick {1, 1, 1, 2}, {g.int(1, 5), g.int(1, 5)}
  local c = {n = g.int(24, 60), cin = groups * g.pick {16, 17, 33, 40}, cout = groups * g.pick {16, 20, 32, 47, 64}}
  c.how = {stride = {g.int(1, 3), g.int(1, 3)}, dilation = {g.int(1, 2), g.int(1, 2)}, groups = groups,
    padding = {g.int(0, 4), g.int(0, 4), g.int(0, 4), g.int(0, 4)}}
  local size, out = {}, {}
  for d = 1, 2 do
    local extent = c.how.dilation[d] * (k[d] - 1) + 1
    local padding = c.how.padding[2 * d - 1] + c.how.padding[2 * d]
    size[d] = math.max(extent - padding, 1) + g.int(0, 7)
    out[d] = (size[d] + padding - extent) // c.how.stride[d] + 1
  end
  c.x, c.dy = g.tensor {c.n, size[1], size[2], c.cin}, g.tensor {c.n, out[1], out[2], c.cout}
  c.weight, c.bias = g.tensor {k[1], k[2], c.cin // groups, c.cout}, g.tensor {c.cout}
  c.wide_bias = g.tensor {c.cin}
  c.kernel, c.size, c.out = k, size, out
  return c
end

local function with(how, more)
  local all = {}
  for key, value in pairs(how) do all[key] = value end
  for key, value in pairs(more) do all[key] = value end
  return all
end

--- f(first, count) for parts of a batch.
local function parts(n, f)
  local results = {}
  for first = 1, n, FEW do results[#results + 1] = f(first, math.min(FEW, n - first + 1)) end
  return results
end

local function part(t, first, count) return t:slice {dim = 1, start = first, stop = first + count - 1} end

local function sum(list)
  local total = list[1]
  for i = 2, #list do total = total + list[i] end
  return total
end

local function concat(list)
  list[#list + 1] = {dim = 1}
  return ops.concat(table.unpack(list))
end

--- name -> the result for images first .. first + count - 1, and how results of parts come together
local MAPS = {
  {"conv2d with bias and activation", function(c, first, count)
    return ops.conv2d(part(c.x, first, count), c.weight, c.bias, with(c.how, {activation = "softplus"}))
  end, concat},
  {"conv2d_grad_input", function(c, first, count)
    return ops.conv2d_grad_input(part(c.dy, first, count), c.weight, with(c.how, {size = c.size}))
  end, concat},
  {"conv_transpose2d with bias and activation", function(c, first, count)
    local missing = {}
    for d = 1, 2 do
      local extent = c.how.dilation[d] * (c.kernel[d] - 1) + 1
      local padding = c.how.padding[2 * d - 1] + c.how.padding[2 * d]
      missing[d] = c.size[d] - ((c.out[d] - 1) * c.how.stride[d] + extent - padding)
    end
    return ops.conv_transpose2d(part(c.dy, first, count), c.weight, c.wide_bias,
      with(c.how, {output_padding = missing, activation = "tanh"}))
  end, concat},
  {"conv2d_grad_weight", function(c, first, count)
    return ops.conv2d_grad_weight(part(c.x, first, count), part(c.dy, first, count), with(c.how, {kernel = c.kernel}))
  end, sum},
  {"conv2d_backward, its weight gradient", function(c, first, count)
    local dy = part(c.dy, first, count)
    local x, how = part(c.x, first, count), with(c.how, {activation = "tanh"})
    return select(2, ops.conv2d_backward(dy, x, c.weight, dy, how))
  end, sum},
  {"conv2d_backward, its input gradient", function(c, first, count)
    local dy = part(c.dy, first, count)
    local x, how = part(c.x, first, count), with(c.how, {activation = "tanh"})
    return (ops.conv2d_backward(dy, x, c.weight, dy, how))
  end, concat},
}

describe("a batch of small images gives what its parts give:", function()
  for _, dtype in ipairs {"f32", "f64"} do
    local tolerance = dtype == "f64" and {rtol = 1e-11, atol = 1e-12, scaled = true}
      or {rtol = 1e-5, atol = 1e-5, scaled = true}
    for _, map in ipairs(MAPS) do
      local name, f, together = table.unpack(map)
      it(name .. ", " .. dtype, function()
        for seed = 1, dtype == "f64" and CASES or CASES // 4 do
          core.scope(function()
            local c = draw(sample.generator(seed, {dtype = dtype}))
            local few = parts(c.n, function(first, count) return f(c, first, count) end)
            local expected = together(few)
            local what = ("case %d: kernel %dx%d, %dx%d to %dx%d"):format(seed, c.kernel[1], c.kernel[2], c.size[1],
              c.size[2], c.out[1], c.out[2])
            allclose.assert(f(c, 1, c.n), expected, tolerance, what)
          end)
        end
      end)
    end
  end

  it("conv2d_grad_weight of more images than the kernel takes at once", function()
    for _, cout in ipairs {32, 33} do
      local g = sample.generator(cout, {dtype = "f32"})
      local x, dy = g.tensor {70, 15, 15, 17}, g.tensor {70, 8, 8, cout}
      local how = {kernel = 5, stride = 2, padding = "same"}
      allclose.assert(ops.conv2d_grad_weight(x, dy, how), ops.conv2d_grad_weight(x:to "f64", dy:to "f64", how),
        {rtol = 1e-5, atol = 1e-5, scaled = true}, cout .. " channels")
    end
  end)

  it("with the same bits for any number of threads", function()
    local c = draw(sample.generator(7, {dtype = "f32"}))
    local threads, first = core.threads(), {}
    for count = 1, 4 do
      core.set_threads(count)
      for _, map in ipairs(MAPS) do
        local y = map[2](c, 1, c.n)
        first[map[1]] = first[map[1]] or y
        assert.are.equal(1, ops.eq(y, first[map[1]]):min():item(), map[1])
      end
    end
    core.set_threads(threads)
  end)
end)

describe("of images that are large enough for strips", function()
  --- A geometry with at least 12 outputs a phase and channels too few for points; 20 images.
  local function draw_large(g)
    local groups, channels = g.pick {1, 1, 2}, g.pick {1, 3, 5}
    local c = {n = 20, cin = groups * g.pick {1, 3, 4, 7}, cout = groups * channels}
    c.kernel = {g.int(1, 5), g.int(1, 5)}
    if g.int(1, 4) == 1 then groups, c.cin, c.cout = 6, 6, 6 end
    c.how = {stride = {g.int(1, 3), g.int(1, 3)}, dilation = {g.int(1, 2), g.int(1, 2)}, groups = groups,
      padding = {g.int(0, 6), g.int(0, 6), g.int(0, 6), g.int(0, 6)}}
    c.size, c.out = {}, {}
    for d = 1, 2 do
      local extent = c.how.dilation[d] * (c.kernel[d] - 1) + 1
      c.size[d] = math.max(12 * c.how.stride[d], extent) + g.int(0, 9)
      c.out[d] = (c.size[d] + c.how.padding[2 * d - 1] + c.how.padding[2 * d] - extent) // c.how.stride[d] + 1
    end
    c.x, c.dy = g.tensor {c.n, c.size[1], c.size[2], c.cin}, g.tensor {c.n, c.out[1], c.out[2], c.cout}
    c.weight, c.bias = g.tensor {c.kernel[1], c.kernel[2], c.cin // groups, c.cout}, g.tensor {c.cout}
    return c
  end

  local function each(dtype, f)
    local tolerance = dtype == "f64" and {rtol = 1e-12, atol = 1e-12, scaled = true}
      or {rtol = 2e-6, atol = 2e-6, scaled = true}
    for seed = 1, dtype == "f64" and CASES // 4 or CASES // 2 do
      core.scope(function()
        local c = draw_large(sample.generator(seed, {dtype = dtype}))
        f(c, tolerance, ("case %d: kernel %dx%d, %dx%d to %dx%d"):format(seed, c.kernel[1], c.kernel[2], c.size[1],
          c.size[2], c.out[1], c.out[2]))
      end)
    end
  end

  for _, dtype in ipairs {"f32", "f64"} do
    it("conv2d does what it does to images whose padding is there, " .. dtype, function()
      each(dtype, function(c, tolerance, what)
        local p = c.how.padding
        local padded = ops.pad(c.x, {padding = {0, 0, p[1], p[2], p[3], p[4], 0, 0}})
        local more = {activation = "relu", padding = 0}
        allclose.assert(ops.conv2d(c.x, c.weight, c.bias, with(c.how, {activation = "relu"})),
          ops.conv2d(padded, c.weight, c.bias, with(c.how, more)), tolerance, what)
      end)
    end)

    it("conv2d_grad_input is the adjoint of conv2d, image by image, " .. dtype, function()
      each(dtype, function(c, tolerance, what)
        local y = ops.conv2d(c.x, c.weight, c.how)
        local dx = ops.conv2d_grad_input(c.dy, c.weight, with(c.how, {size = c.size}))
        local function dot(a, b) return (a * b):sum {dims = {2, 3, 4}} end
        local scale = (y * y):sum():item() ^ 0.5 * (c.dy * c.dy):sum():item() ^ 0.5
        allclose.assert(dot(c.x, dx) / scale, dot(y, c.dy) / scale, tolerance, what)
      end)
    end)

    it("conv2d_backward gives the gradients that the operators give one by one, " .. dtype, function()
      each(dtype, function(c, tolerance, what)
        local y = ops.conv2d(c.x, c.weight, c.bias, with(c.how, {activation = "relu"}))
        local e = c.dy * y:gt(0):to(dtype)
        local dx, dw, db = ops.conv2d_backward(c.dy, c.x, c.weight, y, with(c.how, {activation = "relu"}))
        allclose.assert(dx, ops.conv2d_grad_input(e, c.weight, with(c.how, {size = c.size})), tolerance, what)
        allclose.assert(dw, ops.conv2d_grad_weight(c.x, e, with(c.how, {kernel = c.kernel})), tolerance, what)
        allclose.assert(db, e:sum {dims = {1, 2, 3}}, tolerance, what)
        local relu = c.x:relu() -- as if a transposed convolution had made it of dy
        local how = with(c.how, {activation = "relu", transposed = true})
        e = c.x * relu:gt(0):to(dtype)
        dx, dw, db = ops.conv2d_backward(c.x, c.dy, c.weight, relu, how)
        allclose.assert(dx, ops.conv2d(e, c.weight, c.how), tolerance, what)
        allclose.assert(dw, ops.conv2d_grad_weight(e, c.dy, with(c.how, {kernel = c.kernel})), tolerance, what)
        allclose.assert(db, e:sum {dims = {1, 2, 3}}, tolerance, what)
      end)
    end)
  end
end)

-- The weight gradient for one output channel changes the roles of its two images.
describe("a convolution with one output channel", function()
  local function draw_single(g)
    local c = {n = g.int(1, 30), cin = g.pick {4, 7, 16, 33, 40}, kernel = {g.int(1, 5), g.int(1, 5)}}
    c.how = {stride = g.pick {1, 1, 1, 2}, dilation = {g.int(1, 2), g.int(1, 2)},
      padding = {g.int(0, 6), g.int(0, 6), g.int(0, 6), g.int(0, 6)}}
    c.size, c.out = {}, {}
    for d = 1, 2 do
      local extent = c.how.dilation[d] * (c.kernel[d] - 1) + 1
      c.size[d] = extent + g.int(0, 14)
      c.out[d] = (c.size[d] + c.how.padding[2 * d - 1] + c.how.padding[2 * d] - extent) // c.how.stride + 1
    end
    c.x, c.dy = g.tensor {c.n, c.size[1], c.size[2], c.cin}, g.tensor {c.n, c.out[1], c.out[2], 1}
    c.weight = g.tensor {c.kernel[1], c.kernel[2], c.cin, 1}
    return c
  end

  for _, dtype in ipairs {"f32", "f64"} do
    it("has the weight gradient of one with two, of which the other gets nothing, " .. dtype, function()
      local small = dtype == "f64" and 1e-12 or 3e-6
      local tolerance = {rtol = small, atol = small, scaled = true}
      for seed = 1, CASES do
        core.scope(function()
          local c = draw_single(sample.generator(seed, {dtype = dtype}))
          local what = ("case %d: kernel %dx%d"):format(seed, c.kernel[1], c.kernel[2])
          local how = with(c.how, {kernel = c.kernel})
          local function of_two(x, dy)
            local both = ops.conv2d_grad_weight(x, ops.concat(dy, dy * 0, {dim = 4}), how)
            return both:slice {dim = 4, start = 1, stop = 1}
          end
          allclose.assert(ops.conv2d_grad_weight(c.x, c.dy, how), of_two(c.x, c.dy), tolerance, what)
          local y = ops.conv2d(c.x, c.weight, with(c.how, {activation = "relu"}))
          local _, dw = ops.conv2d_backward(c.dy, c.x, c.weight, y, with(c.how, {activation = "relu"}))
          allclose.assert(dw, of_two(c.x, c.dy * y:gt(0):to(dtype)), tolerance, what)
          local relu = c.x:relu() -- as if a transposed convolution had made it of dy
          _, dw = ops.conv2d_backward(c.x, c.dy, c.weight, relu, with(c.how, {activation = "relu", transposed = true}))
          allclose.assert(dw, of_two(c.x * relu:gt(0):to(dtype), c.dy), tolerance, what)
        end)
      end
    end)
  end
end)

describe("a convolution with one output channel has the values of one with two:", function()
  local function draw_wide(g)
    local c = {n = g.int(1, 9), channels = g.pick {4, 7, 16, 33, 64}, kernel = {g.int(1, 5), g.int(1, 5)}}
    c.how = {stride = g.int(1, 3), padding = {g.int(0, 3), g.int(0, 3), g.int(0, 3), g.int(0, 3)}}
    c.size = {c.kernel[1] + g.int(0, 40), c.kernel[2] + g.int(0, 40)}
    return c
  end

  local function first_of(t) return t:slice {dim = 4, start = 1, stop = 1} end

  for _, dtype in ipairs {"f32", "f64"} do
    local small = dtype == "f64" and 1e-12 or 3e-6
    local tolerance = {rtol = small, atol = small, scaled = true}
    local function each(f)
      for seed = 1, CASES do
        core.scope(function()
          local g = sample.generator(seed, {dtype = dtype})
          local c = draw_wide(g)
          f(g, c, ("case %d: kernel %dx%d, stride %d"):format(seed, c.kernel[1], c.kernel[2], c.how.stride))
        end)
      end
    end

    it("forward, " .. dtype, function()
      each(function(g, c, what)
        local x = g.tensor {c.n, c.size[1], c.size[2], c.channels}
        local w = g.tensor {c.kernel[1], c.kernel[2], c.channels, 2}
        local b = g.tensor {2}
        local how = with(c.how, {activation = "relu"})
        local one = ops.conv2d(x, first_of(w):clone(), b:slice {dim = 1, start = 1, stop = 1}, how)
        allclose.assert(one, first_of(ops.conv2d(x, w, b, how)), tolerance, what)
      end)
    end)

    it("transposed, " .. dtype, function()
      each(function(g, c, what)
        local out = {}
        for d = 1, 2 do
          out[d] = (c.size[d] + c.how.padding[2 * d - 1] + c.how.padding[2 * d] - c.kernel[d]) // c.how.stride + 1
        end
        local dy = g.tensor {c.n, out[1], out[2], c.channels}
        local w = g.tensor {c.kernel[1], c.kernel[2], 2, c.channels}
        local how = with(c.how, {size = c.size})
        local one = ops.conv2d_grad_input(dy, w:slice {dim = 3, start = 1, stop = 1}, how)
        allclose.assert(one, first_of(ops.conv2d_grad_input(dy, w, how)), tolerance, what)
      end)
    end)
  end
end)

describe("images without a pixel, with padding around them, are zeros:", function()
  local how = {padding = 8, activation = "relu"}
  for _, channels in ipairs {0, 1, 4, 16} do
    for _, size in ipairs {{0, 5}, {5, 0}, {0, 0}} do
      it(("%d channels of %dx%d"):format(channels, size[1], size[2]), function()
        core.scope(function()
          local function ones(...) return ops.full {shape = {...}, value = 1, dtype = "f32"} end
          local x, w = ones(2, size[1], size[2], channels), ones(3, 3, channels, 16)
          local dy = ones(2, size[1] + 14, size[2] + 14, 16)
          local y = ops.conv2d(x, w, ones(16), how)
          assert.equal(1, y:min():item())
          assert.equal(1, y:max():item())
          local shape = {3, 3, channels, 16}
          local dw = ops.conv2d_grad_weight(x, dy, {padding = 8, kernel = 3})
          local dx, dw_too, db = ops.conv2d_backward(dy, x, w, y, how)
          assert.same(shape, dw.shape)
          assert.same(shape, dw_too.shape)
          assert.same(x.shape, dx.shape)
          assert.equal(0, dw:abs():sum():item())
          assert.equal(0, dw_too:abs():sum():item())
          assert.equal(2 * (size[1] + 14) * (size[2] + 14), db:slice {dim = 1, start = 1, stop = 1}:item())
          assert.same(x.shape, ops.conv2d_grad_input(dy, w, {padding = 8, size = size}).shape)
        end)
      end)
    end
  end
end)

describe("a depthwise convolution is a dense one whose weight has a diagonal:", function()
  local function geometry(g)
    local c = {channels = g.pick {2, 7, 16, 17, 40, 67}, n = g.int(1, 3)}
    c.kernel, c.size = {g.int(1, 5), g.int(1, 5)}, {g.int(9, 20), g.int(9, 20)}
    c.how = {stride = {g.int(1, 3), g.int(1, 3)}, dilation = {g.int(1, 2), g.int(1, 2)},
      padding = {g.int(0, 4), g.int(0, 4), g.int(0, 4), g.int(0, 4)}}
    c.x = g.tensor {c.n, c.size[1], c.size[2], c.channels}
    c.weight, c.bias = g.tensor {c.kernel[1], c.kernel[2], 1, c.channels}, g.tensor {c.channels}
    c.line = ops.arange(1, c.channels, {dtype = c.x.dtype})
    c.diagonal = ops.eq(c.line:reshape(c.channels, 1), c.line)
    c.dense = c.weight * c.diagonal:cast(c.x.dtype)
    return c
  end

  for _, dtype in ipairs {"f32", "f64"} do
    local tolerance = dtype == "f64" and {rtol = 1e-11, atol = 1e-12, scaled = true}
      or {rtol = 1e-5, atol = 1e-5, scaled = true}
    it("forward, input and weight gradient, " .. dtype, function()
      for seed = 1, CASES // 4 do
        core.scope(function()
          local c = geometry(sample.generator(seed, {dtype = dtype}))
          local depthwise = with(c.how, {groups = c.channels})
          local activated = {activation = seed % 2 == 0 and "relu" or "tanh"}
          local what = ("case %d, %d channels"):format(seed, c.channels)
          local y = ops.conv2d(c.x, c.weight, c.bias, with(depthwise, activated))
          allclose.assert(y, ops.conv2d(c.x, c.dense, c.bias, with(c.how, activated)), tolerance, what)
          local dx = ops.conv2d_grad_input(y, c.weight, with(depthwise, {size = c.size}))
          allclose.assert(dx, ops.conv2d_grad_input(y, c.dense, with(c.how, {size = c.size})), tolerance, what)
          local dw = ops.conv2d_grad_weight(c.x, y, with(depthwise, {kernel = c.kernel}))
          local all = ops.conv2d_grad_weight(c.x, y, with(c.how, {kernel = c.kernel}))
          allclose.assert(dw, (all * c.diagonal:cast(dtype)):sum {dims = {3}, keepdim = true}, tolerance, what)
        end)
      end
    end)
  end
end)

-- Kernels of 3x3 and, with stride 2, of 4x4 to 6x6 go through bilinear algorithms where there are channels enough, in
-- f32; f64 does not.
describe("at the points of bilinear algorithms", function()
  --- c: n, size, kernel, stride, padding, cin, cout
  local function fill(c, g)
    c.out = {}
    for d = 1, 2 do
      c.out[d] = (c.size[d] + c.padding[2 * d - 1] + c.padding[2 * d] - c.kernel[d]) // c.stride[d] + 1
    end
    c.x, c.dy = g.tensor {c.n, c.size[1], c.size[2], c.cin}, g.tensor {c.n, c.out[1], c.out[2], c.cout}
    c.weight = g.tensor {c.kernel[1], c.kernel[2], c.cin, c.cout}
    c.bias, c.wide_bias = g.tensor {c.cout}, g.tensor {c.cin}
    return c
  end

  local function any(g)
    local stride = g.pick {1, 2, 2, 2}
    local lowest = stride == 1 and 3 or g.pick {3, 4, 4}
    local c = {n = g.int(3, 30), cin = g.int(32, 50), cout = g.int(32, 50), size = {}, kernel = {},
      stride = {stride, stride}, padding = {g.int(0, 3), g.int(0, 3), g.int(0, 3), g.int(0, 3)}}
    for d = 1, 2 do
      c.kernel[d] = lowest == 4 and g.int(4, 6) or 3
      c.size[d] = math.max(c.kernel[d] - c.padding[2 * d - 1] - c.padding[2 * d], 1) + g.int(0, 14)
    end
    return fill(c, g)
  end

  local function square(c)
    return {n = c.n, size = {c.side, c.side}, kernel = {5, 5}, stride = {2, 2}, padding = {1, 2, 1, 2}, cin = c.cin,
      cout = c.cout}
  end

  --- Results of all maps: a convolution, one transposed, the gradients alone and at once.
  local function maps(c, dtype)
    local function t(name) return dtype == "f64" and c[name]:to "f64" or c[name] end
    local how = {stride = c.stride, padding = c.padding}
    local missing = {}
    for d = 1, 2 do
      local extent = c.kernel[d] - c.padding[2 * d - 1] - c.padding[2 * d]
      missing[d] = c.size[d] - ((c.out[d] - 1) * c.stride[d] + extent)
    end
    local y = ops.conv2d(t "x", t "weight", t "bias", with(how, {activation = "relu"}))
    local masked = dtype == "f64" and c.y:to "f64" or y
    c.y = c.y or y
    local dx, dw, db = ops.conv2d_backward(t "dy", t "x", t "weight", masked, with(how, {activation = "relu"}))
    return {
      ["conv2d"] = y,
      ["conv_transpose2d"] = ops.conv_transpose2d(t "dy", t "weight", t "wide_bias",
        with(how, {output_padding = missing, activation = "leaky_relu", slope = 0.2})),
      ["conv2d_grad_input"] = ops.conv2d_grad_input(t "dy", t "weight", with(how, {size = c.size})),
      ["conv2d_grad_weight"] = ops.conv2d_grad_weight(t "x", t "dy", with(how, {kernel = c.kernel})),
      ["conv2d_backward, input"] = dx, ["conv2d_backward, weight"] = dw, ["conv2d_backward, bias"] = db,
    }
  end

  --- Errors go with the largest sum, not with each one.
  local function check(c, what)
    local got, wanted = maps(c, "f32"), maps(c, "f64")
    for name, expected in pairs(wanted) do
      local error = (got[name]:to "f64" - expected):abs():max():item() / expected:abs():max():item()
      assert(error < 1e-5, ("%s, %s: an error of %.1e of the largest value"):format(name, what, error))
    end
  end

  it("convolutions are what they are by taps, on every geometry", function()
    for seed = 1, 40 do
      core.scope(function() check(any(sample.generator(seed, {dtype = "f32"})), "case " .. seed) end)
    end
  end)

  for what, c in pairs {
    ["few tiles an image, images in two parts"] = {n = 230, side = 7, cin = 40, cout = 64},
    ["weights in parts"] = {n = 40, side = 7, cin = 260, cout = 70},
    ["many tiles an image"] = {n = 9, side = 38, cin = 33, cout = 47},
  } do
    it(what, function()
      core.scope(function() check(fill(square(c), sample.generator(1, {dtype = "f32"})), what) end)
    end)
  end

  it("the bits are the same for any number of threads", function()
    local threads = core.threads()
    for seed, c in ipairs {{n = 40, side = 14, cin = 40, cout = 70}, {n = 9, side = 38, cin = 33, cout = 47}} do
      core.scope(function()
        local filled, first = fill(square(c), sample.generator(seed, {dtype = "f32"})), nil
        for count = 1, 3 do
          core.set_threads(count)
          local got = maps(filled, "f32")
          first = first or got
          for name, y in pairs(got) do assert.are.equal(1, ops.eq(y, first[name]):min():item(), name) end
        end
      end)
    end
    core.set_threads(threads)
  end)
end)

-- Columns of an image of few channels that a strided gradient writes are computed together.
describe("input gradients of few channels and a stride are loops over taps:", function()
  local function geometry(g)
    local c = {n = g.int(1, 2), cin = g.int(1, 9), cout = g.int(1, 20), size = {}, out = {}}
    c.kernel, c.stride = {g.int(1, 5), g.int(1, 7)}, {g.int(1, 3), g.int(2, 4)}
    c.padding = {g.int(0, 2), g.int(0, 2), g.int(0, 8), g.int(0, 3)}
    for d = 1, 2 do
      local padding = c.padding[2 * d - 1] + c.padding[2 * d]
      c.size[d] = math.max(c.kernel[d] - padding, 1) + g.int(0, 14)
      if d == 2 then c.size[d] = -(-c.size[d] // c.stride[d]) * c.stride[d] end
      c.out[d] = (c.size[d] + padding - c.kernel[d]) // c.stride[d] + 1 - (c.n == 2 and d == 2 and 1 or 0)
      c.out[d] = math.max(c.out[d], 1)
    end
    c.dy, c.weight = g.tensor {c.n, c.out[1], c.out[2], c.cout}, g.tensor {c.kernel[1], c.kernel[2], c.cin, c.cout}
    return c
  end

  --- The products of a pixel of dy, added up where they belong
  local function add_pixel(c, dy, weight, dx, i, j)
    for ky = 1, c.kernel[1] do
      for kx = 1, c.kernel[2] do
        local row = dx[(i - 1) * c.stride[1] + ky - c.padding[1]]
        local pixel = row and row[(j - 1) * c.stride[2] + kx - c.padding[3]]
        for ci = 1, pixel and c.cin or 0 do
          for co, value in ipairs(dy) do pixel[ci] = pixel[ci] + value * weight[ky][kx][ci][co] end
        end
      end
    end
  end

  local function by_loops(c)
    local dy, weight = c.dy:totable(), c.weight:totable()
    local dx = ops.full({c.n, c.size[1], c.size[2], c.cin}, 0, "f64"):totable()
    for n = 1, c.n do
      for i = 1, c.out[1] do
        for j = 1, c.out[2] do add_pixel(c, dy[n][i][j], weight, dx[n], i, j) end
      end
    end
    return core.tensor(dx, {dtype = "f64"})
  end

  local TOLERANCE = {f32 = 1e-5, f64 = 1e-12, bf16 = 0.01}

  it("in each dtype", function()
    for seed = 1, 40 do
      core.scope(function()
        local c = geometry(sample.generator(seed, {dtype = "f32"}))
        c.dy, c.weight = c.dy:to "bf16":to "f64", c.weight:to "bf16":to "f64"
        local how, wanted = {stride = c.stride, padding = c.padding, size = c.size}, by_loops(c)
        for dtype, tolerance in pairs(TOLERANCE) do
          local got = ops.conv2d_grad_input(c.dy:to(dtype), c.weight:to(dtype), how):to "f64"
          local error, largest = (got - wanted):abs():max():item(), wanted:abs():max():item()
          assert(error <= tolerance * largest, ("case %d, %s: %.1e of %.1e"):format(seed, dtype, error, largest))
        end
      end)
    end
  end)

  it("with a bias and an activation, by conv_transpose2d", function()
    for cin = 2, 5 do
      local g = sample.generator(cin, {dtype = "f32"})
      local dy, weight, bias = g.tensor {2, 5, 6, 7}, g.tensor {3, 4, cin, 7}, g.tensor {cin}
      local how = {stride = 2, padding = {1, 1, 1, 1}}
      local y = ops.conv_transpose2d(dy, weight, bias, with(how, {activation = "relu"}))
      local plain = ops.conv2d_grad_input(dy, weight, with(how, {size = {y:size(2), y:size(3)}}))
      allclose.assert(y, (plain + bias):relu(), {rtol = 1e-5, atol = 1e-6})
      dy, weight, bias = dy:to "bf16", weight:to "bf16", bias:to "bf16"
      local half = ops.conv_transpose2d(dy, weight, bias, with(how, {activation = "relu"}))
      allclose.assert(half:to "f32", y, {rtol = 0.02, atol = 0.06})
    end
  end)
end)

describe("conv1d", function()
  local function f64(...) return ops.uniform {shape = {...}, low = -1, high = 1, dtype = "f64"} end
  local function message(f, ...) return select(2, pcall(f, ...)) end

  it("is conv2d of images of height 1, with its gradients, to the bit", function()
    local function leaf(...)
      return core.tensor(f64(...):totable(), {dtype = "f64", requires_grad = true})
    end
    local x, w, b = leaf(3, 21, 4), leaf(5, 2, 6), leaf(6)
    local y = ops.conv1d(x, w, b, {stride = 2, padding = {3, 1}, dilation = 2, groups = 2, activation = "tanh"})
    local z = ops.conv2d(x:reshape(3, 1, 21, 4), w:reshape(1, 5, 2, 6), b,
      {stride = {1, 2}, padding = {0, 0, 3, 1}, dilation = {1, 2}, groups = 2, activation = "tanh"})
    allclose.assert(y, z:squeeze(2), {exact = true})
    local seed = f64(table.unpack(y.shape))
    local one = core.grad((y * seed):sum(), {x, w, b}, {})
    local two = core.grad((z:squeeze(2) * seed):sum(), {x, w, b}, {})
    for i = 1, 3 do allclose.assert(one[i], two[i], {exact = true}) end
  end)

  it("takes padding as an integer, {left, right} or a word", function()
    local x, w = f64(1, 7, 1), f64(4, 1, 1)
    local function length(padding) return ops.conv1d(x, w, nil, {padding = padding}):size(2) end
    assert.are.same({4, 6, 7, 7, 4}, {length(0), length(1), length {1, 2}, length "same", length "valid"})
    allclose.assert(ops.conv1d(x, w, nil, {padding = "same"}),
      ops.conv1d(x, w, nil, {padding = {1, 2}}), {exact = true})
  end)

  it("speaks of sequences when something does not fit", function()
    local x = f64(2, 7, 3)
    assert.matches("conv1d: kernel 9 %(with its dilation%) is larger than the padded input 7",
      message(ops.conv1d, x, f64(5, 3, 1), nil, {dilation = 2}))
    assert.matches("conv1d: argument 'x': expected 3 dimensions %(N, T, Cin%)",
      message(ops.conv1d, x:unsqueeze(1), f64(5, 3, 1)))
    assert.matches("conv1d: x has 3 channels, weight %(5, 2, 1%) takes 2", message(ops.conv1d, x, f64(5, 2, 1)))
    assert.matches("conv1d: argument 'padding': expected an integer, {left, right}",
      message(ops.conv1d, x, f64(5, 3, 1), nil, {padding = {1, 2, 3, 4}}))
    for _, padding in ipairs{{1, 1, 2, 2}, {1, 1, 1}, {1}, {}} do
      for _, name in ipairs{"conv1d", "conv_transpose1d"} do
        assert.matches(name .. ": argument 'padding': expected an integer, {left, right}, 'same' or 'valid', got a ",
          message(ops[name], x, f64(3, 3, 3), nil, {padding = padding}))
      end
      for _, name in ipairs{"max_pool1d", "avg_pool1d"} do
        assert.matches(name .. ": argument 'padding': expected an integer, {left, right}, 'same' or 'valid', got a ",
          message(ops[name], x, {kernel = 3, padding = padding}))
      end
    end
    assert.matches("conv_transpose1d: x f64 %(2, 0, 3%) has no steps",
      message(ops.conv_transpose1d, f64(2, 0, 3), f64(5, 1, 3)))
  end)
end)
