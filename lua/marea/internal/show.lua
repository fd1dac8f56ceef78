-- SPDX-License-Identifier: MIT
--- Tensors as pictures in a terminal: two pixels a letter (half blocks) in 24-bit or 256 colours, or letters of
--- different darkness where there are no colours. Nothing is printed: what show returns is a text to print, which the
--- prompt does by itself.
local core = require "marea.core"
local check = require "marea.internal.check"
local image = require "marea.image"
local layout = require "marea.internal.layout"
local ops = core.ops
local format = core.format

local show = {}

local MOST = 1 << 22 -- elements that are averaged; of larger tensors only some rows and columns are taken
local SMALL = 16 -- pixels; smaller pictures are enlarged to so many
local SHADES = " .:-=+*#%@"
local HALF = "▀" -- upper half in the foreground's colour, lower half in the background's

---@class Shown what show() returns; tostring gives the text
---@field text string
local Shown = {__name = "Shown"}
Shown.__index = Shown
function Shown:__tostring() return self.text end

--- A text without spaces and empty lines around it.
---@return Shown
function show.text(text)
  return setmetatable({text = (text:gsub("^[%c ]*\n", ""):gsub(" +\n", "\n"):gsub("%s+$", ""))}, Shown)
end

-- ---- the terminal ----

--- "truecolor", "256" or nil: by NO_COLOR, TERM and COLORTERM, and whether stdout is a terminal.
local function colors()
  local none, terminal = os.getenv "NO_COLOR", os.getenv "TERM" or "dumb"
  if (none and none ~= "") or terminal == "dumb" or not core.isatty(1) then return nil end
  local kind = os.getenv "COLORTERM"
  return (kind == "truecolor" or kind == "24bit" or terminal:find "direct") and "truecolor" or "256"
end

--- Letters of a line, lines, and the kind of colours, nil for none.
---@param options {width: integer?, height: integer?}
---@return integer, integer, string|nil
function show.room(options)
  local columns, lines = layout.terminal()
  local width = check.integer("show", "width", options.width or columns, 1)
  local height = check.integer("show", "height", options.height or lines, 1)
  return width, height, colors()
end

-- ---- pixels ----

--- t as a picture (H, W, C); raises when its shape is none that can be shown.
local function as_image(t)
  if t.rank == 4 and (t:size(4) == 1 or t:size(4) == 3) and t:numel() > 0 then return image.grid(t, {gap = 1}) end
  if t.rank == 3 and (t:size(3) == 1 or t:size(3) == 3) then return t end
  if t.rank == 2 then return t:unsqueeze(3) end
  if t.rank == 1 then return t:reshape(1, t:size(1), 1) end
  check.fail("show", "t", "a matrix (H, W), an image (H, W, 1 or 3) or images (N, H, W, 1 or 3)", t)
end

--- Rows and columns at equal distances, so that at most MOST elements are left.
local function thinned(x)
  local step = math.ceil(math.sqrt(x:numel() / MOST))
  if step <= 1 then return x end
  return x[("1:%d:%d, 1:%d:%d, :"):format(x:size(1), step, x:size(2), step)]
end

--- The mean of each block of f x f pixels; blocks at the edges may be smaller.
local function shrunk(x, f)
  local h, w = x:size(1), x:size(2)
  return x:unsqueeze(1):avg_pool2d{kernel = f, stride = f, padding = {0, -h % f, 0, -w % f}, count_padding = false}[1]
end

local function enlarged(x, f)
  return x:unsqueeze(1):upsample_nearest2d{scale = f}[1]
end

--- Values from 0 to 1, and their range when they had to be scaled.
local function scaled(x)
  if x.dtype == "u8" then return x:cast "f32" / 255 end
  x = x:cast "f32"
  local finite = (x - x):eq(0)
  local low = ops.where(finite, x, math.huge):min():item()
  local high = ops.where(finite, x, -math.huge):max():item()
  if low > high or (low >= 0 and high <= 1) then return ops.where(finite, x, 0) end
  local width = high > low and high - low or 1
  return (ops.where(finite, x, low) - low) / width, format("%.4g to %.4g", low, high)
end

--- The colours of a gray picture by a map; a coloured one as it is.
local function colored(x, map)
  if x:size(3) == 3 then return x end
  return image.colorize(x, map)
end

-- ---- letters ----

local function truecolor(layer, p)
  return ("%d;2;%d;%d;%d"):format(layer, p[1], p[2], p[3])
end

--- The nearest of the 6 x 6 x 6 colours, or of the 24 grays.
local function palette(layer, p)
  local r, g, b = p[1], p[2], p[3]
  if math.max(r, g, b) - math.min(r, g, b) < 8 then
    local gray = math.floor((r - 8) / 10 + 0.5)
    if gray >= 0 and gray < 24 then return ("%d;5;%d"):format(layer, 232 + gray) end
  end
  local function step(v) return math.floor(v / 51 + 0.5) end
  return ("%d;5;%d"):format(layer, 16 + 36 * step(r) + 6 * step(g) + step(b))
end

--- Two rows of pixels as one line. A colour is named when it changes.
local function half_blocks(upper, lower, code)
  local parts, before = {}, nil
  for i = 1, #upper do
    local now = code(38, upper[i]) .. ";" .. (lower and code(48, lower[i]) or "49")
    parts[i] = (now ~= before and "\27[" .. now .. "m" or "") .. HALF
    before = now
  end
  return table.concat(parts) .. "\27[0m"
end

local function luminance(p) return 0.299 * p[1] + 0.587 * p[2] + 0.114 * p[3] end

local function letters(upper, lower)
  local parts = {}
  for i = 1, #upper do
    local value = (luminance(upper[i]) + luminance((lower or upper)[i])) / 2
    local at = math.min(math.floor(value / 255 * (#SHADES - 1) + 0.5), #SHADES - 1) + 1
    parts[i] = SHADES:sub(at, at)
  end
  return (table.concat(parts):gsub("%s+$", ""))
end

local function lines_of(x, kind)
  local pixels = (x * 255):clamp(0, 255):round():totable()
  local code, lines = kind == "truecolor" and truecolor or palette, {}
  for y = 1, #pixels, 2 do
    local upper, lower = pixels[y], pixels[y + 1]
    lines[#lines + 1] = kind and half_blocks(upper, lower, code) or letters(upper, lower)
  end
  return lines
end

-- ---- together ----

--- x, its range if it was scaled, and the map that suits it.
local function prepared(t, options)
  if t:numel() == 0 then check.fail("show", "t", "a tensor with elements", t) end
  local x, range = scaled(thinned(as_image(t:detach())))
  return x, range, options.map or (range and "viridis" or "gray")
end

local function save(t, path, options)
  return core.no_grad(function()
    local x, _, map = prepared(t, options)
    return core.save_png(colored(x, map), path)
  end)
end

--- See Tensor:show.
---@return Shown|boolean|nil, string|nil
function show.show(t, path, options)
  check.tensor("show", "t", t)
  if type(path) == "table" and not core.is_tensor(path) then path, options = nil, path end
  options = check.options("show", options, {"map", "width", "height"})
  if path ~= nil then return save(t, check.string("show", "path", path), options) end
  if t.rank == 0 then return show.text(tostring(t)) end
  local width, height, kind = show.room(options)
  return core.no_grad(function()
    local x, range, map = prepared(t, options)
    local f = math.ceil(math.max(x:size(2) / width, x:size(1) / (2 * height)))
    local zoom = math.min(SMALL // math.max(x:size(1), x:size(2)), width // x:size(2), 2 * height // x:size(1))
    if f > 1 then x = shrunk(x, f)
    elseif zoom > 1 then x = enlarged(x, zoom) end
    local lines = lines_of(colored(x, map), kind)
    if range or f > 1 then
      lines[#lines + 1] = ("%s%s%s"):format(check.shape_text(t.shape), range and ", " .. range or "",
        f > 1 and (", means of %d x %d"):format(f, f) or "")
    end
    return setmetatable({text = table.concat(lines, "\n")}, Shown)
  end)
end

--- Several figures one below the other.
function show.all(figures, options)
  local texts = {}
  for i, figure in ipairs(figures) do
    local shown, message = figure:show(options)
    if not shown then return core.failed(message) end
    texts[i] = shown.text
  end
  return setmetatable({text = table.concat(texts, "\n")}, Shown)
end

return show
