-- SPDX-License-Identifier: MIT
--- Images made for counting, with dots at the centres of what is counted. The same seed gives the same images, on any
--- number of threads; the random state is left as it was.
---
---   local train = data.synthetic.cells{64, seed = 1}
---   for image, dots, count in train:batches(8) do
---     local density = dots:gaussian_blur(2)          -- its sum over an image is the count
---   end
---
--- Fields of the datasets: image, u8 (N, S, S, 1) in memory, batches f32 in [0, 1]; dots, the number of objects whose
--- centre is in a pixel, u8 (N, S, S, 1), batches f32; count, f32 (N).
local core = require "marea.core"
local check = require "marea.internal.check"
local unwind = require "marea.internal.unwind"
local Dataset = require "marea.data.dataset"
local ops = core.ops

local synthetic = {}

local KEY = 0x6C62272E07BB0142 -- changes the seed, so that images are independent of a training with the same seed

--- f() with random numbers that depend on `seed` alone.
local function seeded(seed, f)
  local before, counter = core.random_state()
  core.set_random_state(seed ~ KEY, 0)
  local _ <close> = unwind.finally(function() core.set_random_state(before, counter) end)
  return core.no_grad(f)
end

--- A function that gives the next of a sequence of numbers from [0, 1), drawn in blocks.
local function numbers()
  local block, used = {}, 0
  return function()
    if used == #block then
      block, used = core.scope(function() return ops.uniform({1024}, 0, 1, "f64"):totable() end), 0
    end
    used = used + 1
    return block[used]
  end
end

--- A whole number from low to high.
local function whole(uniform, low, high)
  return low + math.floor(uniform() * (high - low + 1))
end

--- dots: lists of the centres {y, x} on each image; a pixel may be that of several.
local function dataset(images, dots)
  local n, h, w = images:size()
  local places, counts = {}, {}
  for i, centers in ipairs(dots) do
    counts[i] = #centers
    for _, c in ipairs(centers) do places[#places + 1] = ((i - 1) * h + c[1] - 1) * w + c[2] end
  end
  local empty, index = ops.full({n * h * w}, 0, "u8"), core.tensor(places, {dtype = "i64"})
  return Dataset{
    {"image", images, dtype = "f32", scale = 1 / 255},
    {"dots", ops.index_add(empty, index, ops.full({#places}, 1, "u8"), {dim = 1}):reshape(n, h, w, 1), dtype = "f32"},
    {"count", core.tensor(counts)},
  }
end

-- ---- digits ----

local TRIES = 100 -- to place a digit, before all of the image begin anew; and of those

--- A centre {y, x} at least `gap` from the others and `margin` from the edges; nil when none was found.
local function try_center(uniform, others, size, margin, gap)
  for _ = 1, TRIES do
    local y, x, free = whole(uniform, margin, size - margin), whole(uniform, margin, size - margin), true
    for _, c in ipairs(others) do free = free and (c.y - y) ^ 2 + (c.x - x) ^ 2 >= gap ^ 2 end
    if free then return {y = y, x = x} end
  end
end

local function try_centers(uniform, wanted, ...)
  local centers = {}
  for i = 1, wanted do
    centers[i] = try_center(uniform, centers, ...)
    if not centers[i] then return nil end
  end
  return centers
end

local function centers_of(uniform, wanted, size, margin, gap)
  for _ = 1, TRIES do
    local centers = try_centers(uniform, wanted, size, margin, gap)
    if centers then return centers end
  end
  check.raise("digits: no room for %d of them, %d pixels apart, in %dx%d pixels", wanted, gap, size, size)
end

--- Digits scattered over an image; what counts are the even ones (Segui et al. 2015, arXiv 1505.08082).
---   in front  how many images (1000)
---   from      a dataset with the fields image, u8 (N, H, W, 1), and label, the digit + 1: data.mnist(...)
---   seed      (1)
---   size      height and width of the images (100)
---   most      0 to `most` digits on an image, each number as often (5)
---   gap       least distance of two centres in pixels (28)
---@return Dataset
---@example data.synthetic.digits{2, from = data.mnist("sample", "test")}
function synthetic.digits(options)
  options = check.options("digits", options, {"from", "seed", "size", "most", "gap"}, 1)
  local n = check.integer("digits", "1", options[1] or 1000, 1)
  local size = check.integer("digits", "size", options.size or 100, 1)
  local most = check.integer("digits", "most", options.most or 5, 0)
  if most > size * size then check.fail("digits", "most", ("at most %d"):format(size * size), most) end
  local gap = check.integer("digits", "gap", options.gap or 28, 0)
  local seed = check.integer("digits", "seed", options.seed or 1)
  local from = options.from
  if getmetatable(from) ~= Dataset then check.fail("digits", "from", "a dataset of digits", from) end
  local glyphs, labels = from:field "image", from:field "label"
  local h, w = glyphs:size(2), glyphs:size(3)
  if glyphs.dtype ~= "u8" or glyphs.rank ~= 4 or math.max(h, w) > size then
    check.fail("digits", "from", ("images u8 (N, H, W, 1) of at most %dx%d"):format(size, size), glyphs)
  end
  return seeded(seed, function()
    local images = ops.full({n, size, size, 1}, 0, "u8")
    local uniform, placed, index, dots = numbers(), {}, {}, {}
    for i = 1, n do
      for _, c in ipairs(centers_of(uniform, whole(uniform, 0, most), size, (math.max(h, w) + 1) // 2, gap)) do
        placed[#placed + 1] = {i = i, y = c.y, x = c.x}
        index[#index + 1] = whole(uniform, 1, #from)
      end
      dots[i] = {}
    end
    local digit = core.scope(function() return labels:index_select(core.tensor(index, {dtype = "i64"})):totable() end)
    for k, p in ipairs(placed) do
      core.scope(function()
        local place = images[p.i]:narrow(1, p.y - h // 2 + 1, h):narrow(2, p.x - w // 2 + 1, w)
        place:maximum_(glyphs[index[k]])
      end)
      if digit[k] % 2 == 1 then table.insert(dots[p.i], {p.y + 1, p.x + 1}) end -- labels are digits + 1
    end
    return dataset(images, dots)
  end)
end

-- ---- cells ----

local REACH = 12 -- pixels from a cell's centre to the edge of its patch

--- Standard normal numbers from pairs of uniform ones (Box and Muller 1958).
local function gaussian(uniform)
  return math.sqrt(-2 * math.log(1 - uniform())) * math.cos(2 * math.pi * uniform())
end

--- Centres of cells: a third lie beside an earlier one, so that there are clumps.
local function scatter(uniform, n, size)
  local cells = {}
  local function inside(v) return v >= 0 and v < size end
  for i = 1, n do
    local cell = {y = uniform() * size, x = uniform() * size}
    if i > 1 and uniform() < 1 / 3 then
      local near, angle, distance = cells[whole(uniform, 1, i - 1)], 2 * math.pi * uniform(), 7 + 5 * uniform()
      local beside = {y = near.y + distance * math.sin(angle), x = near.x + distance * math.cos(angle)}
      if inside(beside.y) and inside(beside.x) then cell = beside end
    end
    cells[i] = cell
  end
  return cells
end

--- Patches (n, 2 REACH + 1, 2 REACH + 1, 1) of cells at the middle: eggs with a soft edge, of random size, direction
--- and brightness; fy, fx: where in the middle pixel their centres lie.
local function draw_cells(cells)
  local n, side = #cells, 2 * REACH + 1
  local function per_cell(low, high) return ops.uniform({n, 1, 1, 1}, low, high) end
  local function offsets(name)
    local list = {}
    for i, c in ipairs(cells) do list[i] = c[name] % 1 - 0.5 end
    return core.tensor(list):reshape(n, 1, 1, 1)
  end
  local line = ops.arange(-REACH, REACH, {dtype = "f32"})
  local dy, dx = line:reshape(1, side, 1, 1) - offsets "y", line:reshape(1, 1, side, 1) - offsets "x"
  local angle, size = per_cell(0, math.pi), per_cell(3.6, 6)
  local u = (dx * angle:cos() + dy * angle:sin()) / (size * per_cell(0.8, 1.25))
  local v = (dy * angle:cos() - dx * angle:sin()) / size
  local r = (u:square() + v:square() * (1 + per_cell(-0.45, 0.45) * u):clamp(0.3, 3)):sqrt()
  return (5 * (1 - r)):sigmoid() * per_cell(0.4, 1)
end

--- Focus, uneven light and the camera's noise: light (1, S, S, 1) -> u8.
local function photograph(uniform, light, size)
  local blurred = light:gaussian_blur(0.8 + 0.8 * uniform())
  local line = ops.linspace(-1, 1, size)
  local function squares(shape) return (line - 0.4 * (uniform() - 0.5)):square():reshape(shape) end
  local vignette = 1 - (0.05 + 0.1 * uniform()) * (squares{1, size, 1, 1} + squares{1, 1, size, 1})
  local exposed = (0.04 + 0.06 * uniform() + (0.4 + 0.08 * uniform()) * blurred) * vignette
  local noise = ops.normal({1, size, size, 1}, 0, 0.015 + 0.02 * uniform())
  return ((exposed + noise):clamp(0, 1) * 255):round():cast "u8"
end

--- Draws n cells into an image, u8 (1, S, S, 1); returns their centres.
local function draw_image(uniform, n, size, image)
  local cells, centers, side = scatter(uniform, n, size), {}, 2 * REACH + 1
  local patches, light = draw_cells(cells), ops.full({1, size + 2 * REACH, size + 2 * REACH, 1}, 0, "f32")
  local sheet = light[1]
  for k, c in ipairs(cells) do
    local y, x = math.floor(c.y) + 1, math.floor(c.x) + 1
    sheet:narrow(1, y, side):narrow(2, x, side):add_(patches[k])
    centers[k] = {y, x}
  end
  light = light:narrow(2, REACH + 1, size):narrow(3, REACH + 1, size)
  image:copy_(photograph(uniform, light, size))
  return centers
end

--- Cells under a fluorescence microscope: bright eggs of several sizes that touch and overlap, out of focus, under
--- uneven light, with noise; as many as in the set of Lempitsky and Zisserman (2010).
---   in front  how many images (64)
---   seed      (1)
---   size      height and width of the images (256)
---   low, high, mean, sd  of the number of cells: normal within low and high (74, 317, 150, 95: which makes a mean of
---                        176 and a standard deviation of 61); low <= mean <= high, sd <= high - low
---@return Dataset
---@example data.synthetic.cells{1, size = 64, low = 5, high = 20, mean = 10, sd = 3}
function synthetic.cells(options)
  options = check.options("cells", options, {"seed", "size", "mean", "sd", "low", "high"}, 1)
  local n = check.integer("cells", "1", options[1] or 64, 1)
  local size = check.integer("cells", "size", options.size or 256, 2)
  local seed = check.integer("cells", "seed", options.seed or 1)
  local low = check.integer("cells", "low", options.low or 74, 1)
  local high = check.integer("cells", "high", options.high or 317, low)
  local mean = check.number("cells", "mean", options.mean or 150, low, high)
  local sd = check.number("cells", "sd", options.sd or 95, 0, high - low)
  return seeded(seed, function()
    local uniform, images, dots = numbers(), ops.full({n, size, size, 1}, 0, "u8"), {}
    for i = 1, n do
      local wanted
      repeat wanted = math.floor(mean + sd * gaussian(uniform) + 0.5)
      until low <= wanted and wanted <= high
      dots[i] = core.scope(draw_image, uniform, wanted, size, images:narrow(1, i, 1))
    end
    return dataset(images, dots)
  end)
end

return check.strict(synthetic, "data.synthetic")
