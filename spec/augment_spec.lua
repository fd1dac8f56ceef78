-- SPDX-License-Identifier: MIT
-- Random changes of images.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local augment = marea.augment

local exact = {exact = true}
local digits = marea.tensor{{1, 2, 3, 4}, {5, 6, 7, 8}, {9, 10, 11, 12}} -- (3, 4)

--- f raises an error that says so, and names a line of this file.
local function has(text, f)
  local message = message_of(f)
  assert.is_truthy(message:find(text, 1, true), message)
end

local function images(n, h, w, c)
  marea.seed(9)
  return marea.uniform{shape = {n, h, w, c}}
end

--- What a change makes of one gray image, as rows.
local function apply(change, image)
  local h, w = image:size()
  return change(image:reshape(1, h, w, 1)):reshape(h, w)
end

describe("affine2d", function()
  it("with the identity gives every image bit for bit, of even and odd sizes", function()
    for _, shape in ipairs{{3, 5, 4, 2}, {2, 28, 28, 1}, {1, 1, 1, 3}} do
      for _, dtype in ipairs{"f32", "f64"} do
        local x = images(table.unpack(shape)):to(dtype)
        local identity = marea.tensor({{1, 0, 0}, {0, 1, 0}}, {dtype = dtype}):reshape(1, 2, 3):tile{shape[1], 1, 1}
        allclose.assert(marea.affine2d(x, identity), x, exact)
      end
    end
  end)

  it("with whole shifts gives pixels bit for bit, and zeros from outside", function()
    local x = images(1, 6, 7, 2)
    for down = -7, 7 do
      for right = -8, 8 do
        local y = marea.affine2d(x, marea.tensor{{{1, 0, -right}, {0, 1, -down}}})
        local expected = marea.pad(x, {0, 0, 8, 8, 8, 8, 0, 0}):narrow(2, 9 - down, 6):narrow(3, 9 - right, 7)
        allclose.assert(y, expected, exact)
      end
    end
  end)

  it("reads zeros where the place is infinite or no number", function()
    for _, value in ipairs{0 / 0, 1 / 0, -1 / 0, 1e300} do
      local matrix = marea.tensor({{{1, 0, value}, {0, 1, 0}}}, {dtype = "f64"})
      assert.are.equal(0, marea.affine2d(images(1, 3, 3, 1):to "f64", matrix):abs():max():item())
    end
  end)

  it("names what does not fit", function()
    local x = images(2, 3, 3, 1)
    has("matrix", function() marea.affine2d(x, marea.ones(1, 2, 3)) end)
    has("matrix", function() marea.affine2d(x, marea.ones(2, 3, 2)) end)
    has("derivative", function() marea.affine2d(x, marea.ones(2, 2, 3), {derivative = 2}) end)
  end)
end)

describe("augment.affine", function()
  it("turns counter-clockwise", function()
    local quarter = apply(augment.affine{rotate = {90, 90}}, digits['1:3, 1:3'])
    allclose.assert(quarter, {{3, 7, 11}, {2, 6, 10}, {1, 5, 9}}, {atol = 1e-5})
    local half = apply(augment.affine{rotate = {180, 180}}, digits)
    allclose.assert(half, {{12, 11, 10, 9}, {8, 7, 6, 5}, {4, 3, 2, 1}}, {atol = 1e-5})
  end)

  it("shifts to the right and downwards, also what it has turned", function()
    allclose.assert(apply(augment.affine{shift = {1, 1}}, digits), {{0, 0, 0, 0}, {0, 1, 2, 3}, {0, 5, 6, 7}}, exact)
    local both = apply(augment.affine{rotate = {90, 90}, shift = {1, 1}}, digits['1:3, 1:3'])
    allclose.assert(both, {{0, 0, 0}, {0, 3, 7}, {0, 2, 6}}, {atol = 1e-5})
  end)

  it("enlarges by its factor", function()
    local row = marea.tensor{{0, 0, 1, 2, 3, 0, 0}} -- a straight line around the centre
    allclose.assert(apply(augment.affine{scale = {2, 2}}, row):reshape(7):narrow(1, 3, 3), {1.5, 2, 2.5}, {atol = 1e-6})
  end)

  it("shears: upright lines lean to the left", function()
    local upright = marea.tensor{{0, 0, 1, 0, 0}, {0, 0, 1, 0, 0}, {0, 0, 1, 0, 0}}
    local expected = {{0, 1, 0, 0, 0}, {0, 0, 1, 0, 0}, {0, 0, 0, 1, 0}}
    allclose.assert(apply(augment.affine{shear = {45, 45}}, upright), expected, {atol = 1e-5})
  end)

  it("draws for each image, within its limits, and the same for the same seed", function()
    local n, spot = 4000, marea.zeros(4000, 9, 9, 1)
    spot[':, 5, 5'] = 1
    local change = augment.affine{shift = 2}
    marea.seed(3)
    local y = change(spot)
    marea.seed(3)
    allclose.assert(change(spot), y, exact)
    -- bilinear weights keep the spot's mass and its centre of mass
    local place = marea.arange(-4, 4):reshape(1, 1, 9, 1)
    allclose.assert(y:sum{2, 3, 4}, marea.ones(n), {atol = 1e-6})
    local right = (y * place):sum{2, 3, 4}
    assert.is_true(right:abs():max():item() <= 2 + 1e-6 and right:max():item() > 1.98 and right:min():item() < -1.98)
    allclose.assert(right:mean(), 0, {atol = 4 * 2 / math.sqrt(3 * n)})
    allclose.assert(right:std(), 2 / math.sqrt(3), {atol = 0.05})
  end)

  it("treats several tensors alike, of any dtype", function()
    local x = images(5, 8, 8, 1)
    local a, b = augment.affine{rotate = 30, scale = 0.2}(x, marea.concat({x, x * 2}, 4):to "f64")
    allclose.assert(b[':, :, :, 1:1'], a, {atol = 1e-6})
    allclose.assert(b[':, :, :, 2:2'], a * 2, {atol = 1e-6})
  end)

  it("changes nothing when nothing is asked for, and lets gradients through", function()
    local x = images(2, 5, 5, 1)
    allclose.assert(augment.affine{}(x), x, exact)
    local leaf = x:clone():requires_grad_()
    augment.affine{shift = {1, 1}}(leaf):sum():backward()
    allclose.assert(leaf.grad['1, :, :, 1'], {{1, 1, 1, 1, 0}, {1, 1, 1, 1, 0}, {1, 1, 1, 1, 0}, {1, 1, 1, 1, 0},
      {0, 0, 0, 0, 0}}, exact)
  end)

  it("says what is wrong", function()
    has("did you mean 'rotate'", function() augment.affine({rotat = 3}) end)
    has("scale", function() augment.affine({scale = 1}) end)
    has("shift", function() augment.affine({shift = {2, 1}}) end)
    has("images (N, H, W, C)", function() augment.affine{shift = 1}(digits) end)
    has("2 images", function() augment.affine{}(images(2, 3, 3, 1), images(3, 3, 3, 1)) end)
  end)
end)

describe("augment.flip", function()
  it("mirrors all images, or none", function()
    allclose.assert(apply(augment.flip{p = 1}, digits), {{4, 3, 2, 1}, {8, 7, 6, 5}, {12, 11, 10, 9}}, exact)
    local upside_down = {{9, 10, 11, 12}, {5, 6, 7, 8}, {1, 2, 3, 4}}
    allclose.assert(apply(augment.flip{p = 1, axis = "vertical"}, digits), upside_down, exact)
    allclose.assert(apply(augment.flip{p = 0}, digits), digits, exact)
  end)

  it("mirrors each image by its own draw, several tensors alike", function()
    local n = 4000
    local x = marea.tensor{0, 1}:reshape(1, 1, 2, 1):tile{n, 1, 1, 1}
    marea.seed(5)
    local y, z = augment.flip{p = 0.3}(x, x * 2)
    local mirrored = y:select(3, 1):reshape(n)
    allclose.assert(mirrored:mean(), 0.3, {atol = 4 * math.sqrt(0.21 / n)})
    allclose.assert(z, y * 2, exact)
    allclose.assert(y:sum{2, 3, 4}, marea.ones(n), exact)
  end)

  it("says what is wrong", function()
    has("'horizontal', 'vertical'", function() augment.flip({axis = "diagonal"}) end)
    has("from 0 to 1", function() augment.flip({p = 2}) end)
  end)
end)
