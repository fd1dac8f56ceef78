-- SPDX-License-Identifier: MIT
--- marea.image: many images side by side, other sizes, colour maps, PNG files. Images are tensors (H, W), (H, W, C)
--- or, many of them, (N, H, W, C): u8, or f32 and f64 with values from 0 to 1.
local core = require "marea.core"
local check = require "marea.internal.check"
local ops = core.ops

local image = {}

--- Images side by side, row by row: (N, H, W, C) -> (rows * H, columns * W, C). Empty places at the end, and the
--- gaps, are `value`.
---@param x userdata (N, H, W, C)
---@param options? {columns: integer?, gap: integer?, value: number?} columns: a square is tried when left out
---@return userdata
---@example image.grid(marea.uniform{6, 4, 4, 1}, {columns = 3, gap = 1}):show()
function image.grid(x, options)
  check.tensor("grid", "x", x)
  options = check.options("grid", options, {"columns", "gap", "value"})
  if x.rank ~= 4 or x:numel() == 0 then check.fail("grid", "x", "images (N, H, W, C)", x) end
  local n, h, w, c = x:size()
  local columns = check.integer("grid", "columns", options.columns or math.ceil(math.sqrt(n)), 1)
  local gap = check.integer("grid", "gap", options.gap or 0, 0)
  local value = check.number("grid", "value", options.value or 0)
  local rows = (n + columns - 1) // columns
  return core.no_grad(function()
    local missing = rows * columns - n
    if missing > 0 then x = ops.concat({x, ops.full({missing, h, w, c}, value, x.dtype)}, 1) end
    if gap > 0 then
      x = x:pad({0, 0, 0, gap, 0, gap, 0, 0}, value)
      h, w = h + gap, w + gap
    end
    local all = x:reshape(rows, columns, h, w, c):permute(1, 3, 2, 4, 5):reshape(rows * h, columns * w, c)
    if gap > 0 then all = all:narrow(1, 1, rows * h - gap):narrow(2, 1, columns * w - gap) end
    return all:contiguous()
  end)
end

--- Where the pixels of a side of `to` lie in one of `from`: between which two, and how far behind the first.
local function between(from, to)
  local place = ((ops.arange(0, to - 1) + 0.5) * (from / to) - 0.5):clamp(0, from - 1)
  local before = place:floor()
  return before:to "i64" + 1, (before + 1):clamp(0, from - 1):to "i64" + 1, place - before
end

local function resize_side(x, dim, to)
  if x:size(dim) == to then return x end
  local first, second, part = between(x:size(dim), to)
  local shape = {1, 1, 1}
  shape[dim] = to
  local a, b = x:index_select(first, dim), x:index_select(second, dim)
  return a + (b - a) * part:reshape(shape)
end

--- An image in another size, by linear interpolation between the centres of pixels, as OpenCV's resize and PyTorch's
--- interpolate do it: one that gets much smaller should be blurred before. f32.
---@param x userdata (H, W, C)
---@param height integer pixels
---@param width integer pixels
---@return userdata (height, width, C)
---@example image.resize(marea.uniform{6, 8, 3}, 3, 12).shape
function image.resize(x, height, width)
  check.tensor("resize", "x", x)
  if x.rank ~= 3 or x:numel() == 0 then check.fail("resize", "x", "an image (H, W, C)", x) end
  check.integer("resize", "height", height, 1)
  check.integer("resize", "width", width, 1)
  return core.no_grad(function() return resize_side(resize_side(x:to "f32", 1, height), 2, width) end)
end

-- Colours of a value t from 0 to 1.
local maps = {}

function maps.gray(t) return t, t, t end

--- gnuplot's palette 30, 31, 32, which matplotlib calls gnuplot2.
function maps.gnuplot2(t)
  local blue = t < 0.25 and 4 * t or t < 0.92 and 1.84 - 2 * t or t / 0.08 - 11.5
  return t / 0.32 - 0.78125, 2 * t - 0.84, blue
end

-- Polynomial of degree 6 fitted to matplotlib's viridis by Matt Zucker (shadertoy.com/view/WlfXRN, CC0).
local VIRIDIS = {
  {0.2777273272234177, 0.1050930431085774, -0.3308618287255563, -4.634230498983486, 6.228269936347081,
    4.776384997670288, -5.435455855934631},
  {0.005407344544966578, 1.404613529898575, 0.214847559468213, -5.799100973351585, 14.17993336680509,
    -13.74514537774601, 4.645852612178535},
  {0.3340998053353061, 1.384590162594685, 0.09509516302823659, -19.33244095627987, 56.69055260068105,
    -65.35303263337234, 26.3124352495832},
}

function maps.viridis(t)
  local rgb = {0, 0, 0}
  for i, c in ipairs(VIRIDIS) do
    for k = 7, 1, -1 do rgb[i] = rgb[i] * t + c[k] end
  end
  return table.unpack(rgb)
end

local function clamped(x) return math.min(math.max(x, 0), 1) end

--- The 256 colours of a map: rows {red, green, blue}, from 0 to 1.
---@param name string "gray", "viridis" or "gnuplot2"
---@return number[][]
---@example image.colors("viridis")[256]
function image.colors(name)
  local map, rows = check.choice("colors", "map", name, maps), {}
  for i = 0, 255 do
    local r, g, b = map(i / 255)
    rows[i + 1] = {clamped(r), clamped(g), clamped(b)}
  end
  return rows
end

--- Gray values as colours: (H, W) or (H, W, 1) -> (H, W, 3), f32. Values are clamped to 0 and 1, NaN becomes 0.
---@param x userdata f32 or f64 from 0 to 1, or u8
---@param name string "gray", "viridis" or "gnuplot2"
---@return userdata
---@example image.colorize(marea.uniform{4, 4}, "viridis")
function image.colorize(x, name)
  check.tensor("colorize", "x", x)
  if x.rank ~= 2 and not (x.rank == 3 and x:size(3) == 1) then
    check.fail("colorize", "x", "a gray image (H, W) or (H, W, 1)", x)
  end
  local colors = image.colors(name)
  return core.no_grad(function()
    local index = x:detach():reshape(x:size(1), x:size(2))
    if x.dtype ~= "u8" then
      index = ops.where(index:ne(index), 0, index)
      index = (index * 255):clamp(0, 255):round()
    end
    return ops.index_select(core.tensor(colors), index:cast("i64") + 1, {dim = 1})
  end)
end

--- Writes a PNG; many images (N, H, W, C) are put in a grid.
---@param x userdata
---@param path string
---@param options? {map: string?, columns: integer?, gap: integer?, value: number?}
---@return boolean|nil ok, string|nil message
---@example path = os.tmpname()
---@example image.save(marea.uniform{9, 8, 8, 1}, path), os.remove(path)
function image.save(x, path, options)
  check.tensor("save", "x", x)
  options = check.options("save", options, {"map", "columns", "gap", "value"})
  return core.no_grad(function()
    local flat = x:detach()
    if x.rank == 4 then
      flat = image.grid(flat, {columns = options.columns, gap = options.gap, value = options.value})
    end
    if options.map then flat = image.colorize(flat, options.map) end
    return core.save_png(flat, path)
  end)
end

return check.strict(image, "image")
