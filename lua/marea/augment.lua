-- SPDX-License-Identifier: MIT
--- marea.augment: random changes of images (N, H, W, C) in a training loop, each image by its own draw. The draws come
--- from the random state that marea.seed sets.
---
---   local augment = marea.augment.affine{rotate = 10, shift = 2, scale = 0.1}
---   for x, y in train:batches(128, {shuffle = true}) do
---     x = augment(x)
---
--- The functions that are returned take one tensor or several, for example images and their density maps, and change
--- all of them alike.
local core = require "marea.core"
local check = require "marea.internal.check"
local ops = core.ops

local augment = {}

--- {low, high} of a number r, which means from middle - r to middle + r, or of a pair.
local function range(what, name, value, middle)
  if type(value) == "number" then
    local r = check.number(what, name, value, 0)
    return {middle - r, middle + r}
  end
  if type(value) ~= "table" or #value ~= 2 then check.fail(what, name, "a number or {low, high}", value) end
  local low = check.number(what, name, value[1])
  return {low, check.number(what, name, value[2], low)}
end

--- n random numbers from a range, one for each image.
local function draw(n, limits)
  return ops.uniform{shape = {n}, low = limits[1], high = limits[2], dtype = "f64"}
end

--- The images are as many as in the first tensor.
local function check_images(what, first, ...)
  for i = 1, 1 + select("#", ...) do
    local x = select(i, first, ...)
    check.tensor(what, tostring(i), x)
    if x.rank ~= 4 then check.fail(what, tostring(i), "images (N, H, W, C)", x) end
    if x:size(1) ~= first:size(1) then check.fail(what, tostring(i), first:size(1) .. " images (N, H, W, C)", x) end
  end
end

local function each(f, ...)
  local results = {...}
  for i, x in ipairs(results) do results[i] = f(x) end
  return table.unpack(results)
end

--- Matrices (n, 2, 3) for affine2d, which lead from a pixel of the result to its place in the image: the inverse of a
--- turn by `angle` behind a scaling behind a shear, and of the shift that follows them.
local function matrices(n, limits)
  local angle, slant = draw(n, limits.rotate) * (math.pi / 180), draw(n, limits.shear) * (math.pi / 180)
  local scale, right, down = draw(n, limits.scale), draw(n, limits.shift), draw(n, limits.shift)
  local tangent = slant:sin() / slant:cos()
  local cos, sin = angle:cos() / scale, angle:sin() / scale
  local m11, m12 = cos - tangent * sin, -sin - tangent * cos
  return ops.stack({m11, m12, -(m11 * right + m12 * down), sin, cos, -(sin * right + cos * down)}, 2):reshape(n, 2, 3)
end

--- A function x -> images that are turned, scaled, sheared and moved about their centres (bilinear interpolation, zeros
--- come in at the borders). Each argument is a number r for draws from -r to r, or {low, high}; left out: no change.
---   rotate  degrees, counter-clockwise
---   shear   degrees that upright lines lean to the left
---   scale   factor; a number r means from 1 - r to 1 + r
---   shift   pixels, to the right and downwards, each its own draw
---@param options {rotate: any, shear: any, scale: any, shift: any}
---@return fun(x: userdata, ...: userdata): userdata ...
---@example augment.affine{rotate = 10, shift = 2}(marea.uniform{2, 8, 8, 1})
function augment.affine(options)
  options = check.options("affine", options, {"rotate", "shift", "scale", "shear"})
  local limits = {scale = range("affine", "scale", options.scale or 0, 1)}
  for _, name in ipairs{"rotate", "shift", "shear"} do limits[name] = range("affine", name, options[name] or 0, 0) end
  check.number("affine", "scale", limits.scale[1], 1e-6)
  for _, degrees in ipairs(limits.shear) do check.number("affine", "shear", degrees, -89, 89) end
  return function(...)
    check_images("affine", ...)
    local matrix = core.no_grad(matrices, (...):size(1), limits)
    return each(function(x) return ops.affine2d(x, matrix:to(x.dtype)) end, ...)
  end
end

--- A function x -> images, each mirrored with probability p (0.5): left and right change places, or with
--- axis = "vertical" above and below.
---@param options? {p: number?, axis: string?}
---@return fun(x: userdata, ...: userdata): userdata ...
---@example augment.flip()(marea.uniform{2, 8, 8, 1})
function augment.flip(options)
  options = check.options("flip", options, {"p", "axis"})
  local p = check.number("flip", "p", options.p or 0.5, 0, 1)
  local dim = check.choice("flip", "axis", options.axis or "horizontal", {horizontal = 3, vertical = 2})
  return function(...)
    check_images("flip", ...)
    local mask = ops.uniform{shape = {(...):size(1), 1, 1, 1}}:lt(p)
    return each(function(x) return ops.where(mask, ops.flip(x, {dims = {dim}}), x) end, ...)
  end
end

return check.strict(augment, "augment")
