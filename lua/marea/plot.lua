-- SPDX-License-Identifier: MIT
--- marea.plot: figures by gnuplot.
---
---   plot.curves{{x = epochs, y = losses, title = "training"}, xlabel = "epoch", ylabel = "loss (nats)"}:save("a.png")
---   plot.scatter{x = x, y = y, class = labels, names = {...}}:save("b.png")
---   plot.histogram{values, bins = 50, xlabel = "mean of z1"}:save("c.png")
---   plot.heatmap{image, map = "gnuplot2", xticks = {...}}:save("d.png")
---   plot.bars{{y = {3, 1}, title = "before"}, {y = {2, 1}, title = "after"}, labels = {"a", "b"}}:save("e.png")
---   plot.matrix{counts, labels = {"0", "1"}, xlabel = "predicted", ylabel = "true"}:save("f.png")
---   plot.images{images, captions = {"a 4", "a 9"}, columns = 10}:save("g.png")
---   plot.panels{figure, figure, columns = 2}:save("h.png")
---
--- Numbers are given as lists or as tensors of one dimension. A figure holds a script for gnuplot that includes the
--- data; save writes it beside the picture and runs gnuplot. Without gnuplot the script stays there, and save returns
--- nil and a message. show() gives the figure as text for a terminal: print(figure:show()), or figure:show() at the
--- prompt.
local core = require "marea.core"
local check = require "marea.internal.check"
local files = require "marea.internal.files"
local format = core.format

local plot = {}

-- Ten colours that are told apart (Tableau 10).
local COLORS = {"#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22",
  "#17becf"}

local AXES = {"title", "xlabel", "ylabel", "xrange", "yrange", "logx", "logy", "width", "height"}

---@class Figure
---@field width integer pixels
---@field height integer
---@field picture userdata|nil of a figure that is an image, with its colour map
---@field map string|nil
---@field panels Figure[]|nil
---@field edges number[]|nil pixels of the plot within the figure: left, top, width, height
local Figure = {}
Figure.__index = Figure

function Figure:__tostring()
  return ("figure of %d x %d pixels; show() draws it here, save(path) makes the PNG"):format(self.width, self.height)
end

-- ---- gnuplot's language ----

--- A string for gnuplot. Within single quotes nothing is interpreted but the quote itself.
local function quote(text)
  return "'" .. format("%s", text):gsub("[%c]", " "):gsub("'", "''") .. "'"
end

local function number(x)
  if x ~= x then return "NaN" end
  if x == math.huge then return "1e308" end
  if x == -math.huge then return "-1e308" end
  return format("%.9g", x)
end

--- A list of numbers from a list or a tensor.
local function numbers(what, name, values)
  if core.is_tensor(values) then
    local t = values
    return core.no_grad(function() return t:detach():reshape(t:numel()):totable() end)
  end
  check.items(what, name, values, "a list of numbers or a tensor")
  for i, x in ipairs(values) do
    if type(x) ~= "number" then check.fail(what, ("%s[%d]"):format(name, i), "a number", x) end
  end
  return values
end

local function names_with(...)
  local names = table.move(AXES, 1, #AXES, 1, {})
  for _, name in ipairs{...} do names[#names + 1] = name end
  return names
end

local function figure(options, width, height)
  return setmetatable({
    width = check.integer("plot", "width", options.width or width, 50),
    height = check.integer("plot", "height", options.height or height, 50),
    data = {}, commands = {},
  }, Figure)
end

function Figure:add(text, ...)
  self.commands[#self.commands + 1] = select("#", ...) > 0 and format(text, ...) or text
end

--- A block of rows: a list of them, or a function that hands them to its argument one by one when the script is
--- written. Returns the block's name within the figure, "@1@" and so on until then.
---@param rows table[]|fun(put: fun(row: table))
---@return string
function Figure:block(rows)
  self.data[#self.data + 1] = rows
  return ("@%d@"):format(#self.data)
end

function Figure:axes(options)
  if options.title then self:add("set title %s", quote(options.title)) end
  for _, axis in ipairs{"x", "y"} do
    local label, range = options[axis .. "label"], options[axis .. "range"]
    if label then self:add("set %slabel %s", axis, quote(label)) end
    if range ~= nil then
      if check.items("plot", axis .. "range", range, "{low, high}", 2) > 2 then
        check.fail("plot", axis .. "range", "{low, high}", range)
      end
      for i = 1, 2 do check.number("plot", ("%srange, %d"):format(axis, i), range[i]) end
    end
    if range then self:add("set %srange [%s:%s]", axis, number(range[1]), number(range[2])) end
    if options["log" .. axis] then self:add("set logscale %s", axis) end
  end
end

-- ---- kinds of figures ----

local function lines_of(x, y)
  local rows = {}
  for i = 1, math.min(#x, #y) do rows[i] = number(x[i]) .. " " .. number(y[i]) end
  return rows
end

--- Whole numbers close together get no ticks between them.
local function whole(xs)
  local low, high = math.huge, -math.huge
  for _, x in ipairs(xs) do
    if x ~= math.floor(x) then return false end
    low, high = math.min(low, x), math.max(high, x)
  end
  return high - low <= 8
end

local MOST_DOTS <const> = 200 -- of a curve; with more they cover it

--- Curves: a list of {x = , y = , title = } (x left out: 1, 2, ...), with the axes' arguments: title, xlabel, ylabel,
--- xrange, yrange ({low, high}), logx, logy, width, height (pixels). Up to 200 values of a curve have dots.
---@return Figure
---@example plot.curves{{y = {4, 2, 1}, title = "loss"}, xlabel = "epoch"}
function plot.curves(options)
  options = check.options("curves", options, AXES, math.maxinteger)
  local self, parts, steps = figure(options, 900, 560), {}, not options.logx
  self:axes(options)
  self:add("set key outside right top reverse Left")
  for i, curve in ipairs(options) do
    check.options("curves", curve, {"x", "y", "title"})
    local y = numbers("curves", "y", curve.y)
    local x = curve.x and numbers("curves", "x", curve.x) or {}
    for k = #x + 1, curve.x and 0 or #y do x[k] = k end
    steps = steps and whole(x)
    local look = #y > MOST_DOTS and "lw 1.5 pt 7 ps 0" or "lw 2 pt 7 ps 0.6"
    parts[i] = ("%s using 1:2 with linespoints %s lc rgb '%s' %s"):format(self:block(lines_of(x, y)), look,
      COLORS[(i - 1) % #COLORS + 1], curve.title and "title " .. quote(curve.title) or "notitle")
  end
  if #parts == 0 then check.raise "curves: expected at least one curve" end
  if steps then self:add "set xtics 1" end
  self:add("plot " .. table.concat(parts, ", "))
  return self
end

--- Labels under whole numbers from 1 on, slanted where they would touch.
local function add_labels(self, labels)
  local places, longest = {}, 0
  for i, label in ipairs(labels) do
    longest = math.max(longest, #tostring(label))
    places[i] = ("%s %d"):format(quote(label), i)
  end
  local room = self.width * 0.8 / #labels
  self:add("set xtics scale 0 %s (%s)", longest * 8 > room and "rotate by 35 right" or "", table.concat(places, ", "))
end

--- Bars in groups: a list of {y = one value a group, title =, color = 1 to 10 (its place in the list when left out)},
--- NaN for no bar.
---   labels     of the groups
---   values     true: each bar's value above it
---   line       {y =, title =}: a level across all groups
--- and the axes' arguments, as for curves.
---@return Figure
---@example plot.bars{{y = {3, 1}, title = "before"}, {y = {2, 1}, title = "after"}, labels = {"a", "b"}}
function plot.bars(options)
  options = check.options("bars", options, names_with("labels", "values", "line"), math.maxinteger)
  local labels = options.labels
  check.items("bars", "labels", labels, "a list of labels", 1)
  if #options == 0 then check.raise "bars: expected at least one list of values" end
  local self, parts, width = figure(options, 900, 560), {}, 0.8 / #options
  self:axes(options)
  self:add("set key outside right top reverse Left")
  self:add("set style fill solid 0.85 noborder")
  self:add("set xrange [0.4:%d.6]", #labels)
  if not options.yrange and not options.logy then self:add("set yrange [0:*]") end
  add_labels(self, labels)
  local function add(...) parts[#parts + 1] = format(...) end
  for i, series in ipairs(options) do
    check.options("bars", series, {"y", "title", "color"})
    local y, x = numbers("bars", "y", series.y), {}
    if #y ~= #labels then check.raise("bars: y has %d numbers for %d labels", #y, #labels) end
    for k = 1, #y do x[k] = k + (i - 0.5) * width - 0.4 end
    local block = self:block(lines_of(x, y))
    add("%s using 1:2:(%s) with boxes lc rgb '%s' %s", block, number(0.92 * width),
      COLORS[((series.color or i) - 1) % #COLORS + 1], series.title and "title " .. quote(series.title) or "notitle")
    if options.values then
      add("%s using 1:2:(sprintf($2 < 100 ? '%%.3g' : '%%.0f', $2)) with labels offset 0,0.5 font ',8' notitle", block)
    end
  end
  if options.line then
    local line = check.options("bars", options.line, {"y", "title"})
    add("%s with lines dt 2 lw 1.5 lc rgb '#444444' %s", number(numbers("bars", "line.y", {line.y})[1]),
      line.title and "title " .. quote(line.title) or "notitle")
  end
  self:add("plot " .. table.concat(parts, ", "))
  return self
end

local function classes_of(class)
  local seen, list = {}, {}
  for _, c in ipairs(class) do
    if not seen[c] then
      seen[c] = true
      list[#list + 1] = c
    end
  end
  table.sort(list)
  return list
end

--- Points (x, y), coloured by class with a legend beside the plot. class: numbers; names[class]: what the legend
--- says (the number itself when left out). diagonal = true draws the line y = x.
---@return Figure
---@example plot.scatter{x = marea.normal{20}, y = marea.normal{20}, class = marea.randint({20}, 1, 2)}
function plot.scatter(options)
  options = check.options("scatter", options, names_with("x", "y", "class", "names", "legend", "diagonal"))
  local x, y = numbers("scatter", "x", options.x), numbers("scatter", "y", options.y)
  if #x ~= #y then check.raise("scatter: x has %d numbers, y has %d", #x, #y) end
  local class = options.class and numbers("scatter", "class", options.class)
  if class and #class ~= #x then check.raise("scatter: x has %d numbers, class has %d", #x, #class) end
  local self, points, entries = figure(options, 900, 760), {}, {}
  self:axes(options)
  local size = #x > 3000 and 0.35 or #x > 500 and 0.5 or 0.8
  for i, c in ipairs(class and classes_of(class) or {false}) do
    local rows = {}
    for k = 1, #x do
      if not c or class[k] == c then rows[#rows + 1] = number(x[k]) .. " " .. number(y[k]) end
    end
    local color = COLORS[(i - 1) % #COLORS + 1]
    points[i] = format("%s using 1:2 with points pt 7 ps %g lc rgb '%s' notitle", self:block(rows), size, color)
    if c then
      entries[i] = ("keyentry with points pt 7 ps 1.4 lc rgb '%s' title %s"):format(color,
        quote((options.names or {})[c] or format("%g", c)))
    end
  end
  if options.diagonal then points[#points + 1] = "x with lines dt 2 lw 1.5 lc rgb '#444444' notitle" end
  local legend = options.legend and "title " .. quote(options.legend) or ""
  self:add(class and "set key outside right top reverse Left %s" or "unset key", legend)
  self:add("plot " .. table.concat(points, ", ") .. (#entries > 0 and ", " or "") .. table.concat(entries, ", "))
  return self
end

--- Counts of finite values in `bins` equal bins between low and high: centres, counts.
local function count(values, bins, low, high)
  local counts, centers, width = {}, {}, (high - low) / bins
  for i = 1, bins do counts[i], centers[i] = 0, low + (i - 0.5) * width end
  for _, v in ipairs(values) do
    if v >= low and v <= high then
      local i = math.min(math.floor((v - low) / width) + 1, bins)
      counts[i] = counts[i] + 1
    end
  end
  return centers, counts, width
end

local function range_of(values)
  local low, high = math.huge, -math.huge
  for _, v in ipairs(values) do
    if v == v and math.abs(v) < math.huge then low, high = math.min(low, v), math.max(high, v) end
  end
  if low > high then low, high = 0, 1 end
  if low == high then low, high = low - 0.5, high + 0.5 end
  return low, high
end

--- Histogram of the numbers in front; bins (50); xrange: from its minimum to its maximum when left out.
---@return Figure
---@example plot.histogram{marea.normal{1000}, bins = 20}
function plot.histogram(options)
  options = check.options("histogram", options, names_with("bins", "color"), 1)
  local values = numbers("histogram", "values", options[1])
  local bins = check.integer("histogram", "bins", options.bins or 50, 1)
  local self = figure(options, 640, 440)
  self:axes(options)
  local low, high = range_of(values)
  if options.xrange then low, high = table.unpack(options.xrange) end
  local centers, counts, width = count(values, bins, low, high)
  self:add("unset key")
  if not options.yrange then self:add("set yrange [0:*]") end
  self:add("set style fill solid 0.85 noborder")
  self:add("plot %s using 1:2:(%s) with boxes lc rgb '%s' notitle", self:block(lines_of(centers, counts)),
    number(width), COLORS[options.color or 1])
  return self
end

local SIDES = 200 -- pixels left and right of an image, for labels

--- Labels at equal distances, centred in their parts of an axis of `size` pixels; none for an empty list. They are
--- turned where they would touch.
local function add_ticks(self, axis, labels, size)
  local places, longest = {}, 0
  for i, label in ipairs(labels) do
    longest = math.max(longest, #tostring(label))
    places[i] = format("%s %.9g", quote(label), (i - 0.5) * size / #labels - 0.5)
  end
  if #places == 0 then
    self:add("unset %stics", axis)
  else
    local crowded = axis == "x" and longest * 7 > (self.width - SIDES) / #labels
    self:add("set %stics out nomirror scale 0.4 %s (%s) font ',9'", axis, crowded and "rotate" or "",
      table.concat(places, ", "))
  end
end

--- Fixes the edges of the plot: pixels from the left and from above, width and height.
local function set_edges(self, left, top, w, h)
  self.edges = {left, top, w, h}
  self:add("@edges@")
end

--- The edges of a figure whose upper left corner is at pixel (x, y) of a picture.
local function edges_at(self, x, y, width, height)
  local left, top, w, h = table.unpack(self.edges)
  left, top = left + x, top + y
  return format("set lmargin at screen %.9g; set rmargin at screen %.9g; set tmargin at screen %.9g; "
    .. "set bmargin at screen %.9g", left / width, (left + w) / width, 1 - top / height, 1 - (top + h) / height)
end

--- Pixels that the longest of these labels takes at most.
local function text_width(labels)
  local longest = 0
  for _, label in ipairs(labels or {}) do longest = math.max(longest, #tostring(label)) end
  return 7 * longest
end

--- Sizes the picture so that the plot of an image of w x h pixels has exactly so many, or a whole multiple when the
--- image is small, with room for labels around it.
local function frame(columns, rows, options)
  local zoom = math.max(300 // math.max(columns, rows, 1), 1)
  local w, h = columns * zoom, rows * zoom
  local left, right = math.max(90, 24 + text_width(options.yticks)), SIDES - 90 + (options.colorlabel and 20 or 0)
  local top, bottom = options.title and 56 or 24, 90
  if options.xticks and #options.xticks == 0 and not options.xlabel then bottom = 24 end
  local self = figure({}, w + left + right, h + top + bottom)
  set_edges(self, left, top, w, h)
  self:add("set xrange [-0.5:%d.5]", columns - 1)
  self:add("set yrange [%d.5:-0.5]", rows - 1)
  return self
end

local function palette(map)
  local steps = {}
  for i, c in ipairs(require "marea.image".colors(map)) do
    steps[i] = format("%d %.4f %.4f %.4f", i - 1, c[1], c[2], c[3])
  end
  return table.concat(steps, ", ")
end

--- The numbers of a row, at a precision that a picture shows.
local function shades(row)
  local parts = {}
  for first = 1, #row, 100 do
    local last = math.min(first + 99, #row)
    parts[#parts + 1] = format(("%.4g "):rep(last - first + 1), table.unpack(row, first, last))
  end
  return table.concat(parts)
end

--- Draws a colour image (H, W, 3): a line of column, row, red, green and blue for each pixel.
local function add_colored(self, x)
  local h, w = x:size(1), x:size(2)
  local bytes = core.no_grad(function()
    local values = x:detach()
    if x.dtype ~= "u8" then values = (values * 255):clamp(0, 255):round() end
    return values:reshape(h, w * 3):clone():keep()
  end)
  self:add("plot %s using 1:2:3:4:5 with rgbimage notitle", self:block(function(write)
    for i = 1, h do
      local row = core.scope(function() return bytes[i]:totable() end)
      for k = 1, w do write(("%d %d %d %d %d"):format(k - 1, i - 1, row[3 * k - 2], row[3 * k - 1], row[3 * k])) end
    end
  end))
  return self
end

local HEATMAP = {"title", "xlabel", "ylabel", "map", "xticks", "yticks", "colorlabel"}

--- An image with axes, one pixel of the picture for each of its own (small images are enlarged), the first row on top.
---   in front        (H, W) or (H, W, 1), values from 0 to 1 (u8: to 255); (H, W, 3): red, green and blue, no map
---   map             "gray" (when left out), "viridis" or "gnuplot2"; colorlabel: what the colours mean
---   xticks, yticks  labels at equal distances, centred in their parts of the axis; {} for none; left out: pixels
---   title, xlabel, ylabel
---@return Figure
---@example plot.heatmap{marea.uniform{8, 8}, map = "viridis"}
function plot.heatmap(options)
  options = check.options("heatmap", options, HEATMAP, 1)
  local x = check.tensor("heatmap", "1", options[1])
  local colored = x.rank == 3 and x:size(3) == 3
  if x.rank ~= 2 and not (x.rank == 3 and x:size(3) == 1) and not colored then
    check.fail("heatmap", "1", "an image (H, W), (H, W, 1) or (H, W, 3)", x)
  end
  for _, name in ipairs{"xticks", "yticks"} do
    if options[name] ~= nil then check.items("heatmap", name, options[name], "a list of labels") end
  end
  local h, w = x:size(1), x:size(2)
  local self = frame(w, h, options)
  self:axes(options)
  self:add("set tics front")
  if options.xticks then add_ticks(self, "x", options.xticks, w) end
  if options.yticks then add_ticks(self, "y", options.yticks, h) end
  self:add("unset key")
  self.picture, self.map = x:detach(), options.map
  if colored then return add_colored(self, x) end
  self:add("set cbrange [0:%d]", x.dtype == "u8" and 255 or 1)
  if options.colorlabel then self:add("set cblabel %s", quote(options.colorlabel)) end
  self:add("set palette defined (%s)", palette(options.map or "gray"))
  local pixels = core.no_grad(function() return x:detach():reshape(h, w):clone():keep() end)
  self:add("plot %s matrix with image notitle", self:block(function(write)
    for i = 1, h do write(core.scope(function() return shades(pixels[i]:totable()) end)) end
  end))
  return self
end

--- The figure's edges around a plot of w x h pixels, without axes.
local function bare(self, left, top, w, h)
  self:add("unset key; unset colorbox; unset border; unset grid")
  set_edges(self, left, top, w, h)
end

--- A row "x y text" of a block for gnuplot's labels.
local function caption_of(x, y, text)
  return format('%.9g %.9g "%s"', x, y, (format("%s", text):gsub('[%c"\\]', " ")))
end

local CELL = 58 -- pixels, least width and height of a cell of plot.matrix

--- Counts (rows, columns) as cells with their numbers, darker on a logarithmic scale; cells of 0 stay empty. A
--- confusion matrix, say.
---   in front  whole numbers, not negative: a tensor (H, W)
---   labels    of the rows, from above, and of the columns; xlabel, ylabel, title
---@return Figure
---@example plot.matrix{marea.randint({2, 2}, 0, 9), labels = {"cat", "dog"}}
function plot.matrix(options)
  options = check.options("matrix", options, {"labels", "xlabel", "ylabel", "title"}, 1)
  local counts = check.tensor("matrix", "1", options[1])
  if counts.rank ~= 2 or counts:numel() == 0 then check.fail("matrix", "1", "counts (H, W)", counts) end
  if options.labels ~= nil then check.items("matrix", "labels", options.labels, "a list of labels") end
  local h, w = counts:size()
  local label = text_width(options.labels)
  local cell, left = math.max(CELL, label + 8), math.max(80, label + (options.ylabel and 56 or 24))
  local self = figure({}, w * cell + left + 30, h * cell + (options.title and 140 or 100))
  bare(self, left, options.title and 60 or 20, w * cell, h * cell)
  self:axes(options)
  self:add("set xrange [-0.5:%d.5]; set yrange [%d.5:-0.5]", w - 1, h - 1)
  add_ticks(self, "x", options.labels or {}, w)
  add_ticks(self, "y", options.labels or {}, h)
  self:add("set tics scale 0; set xtics norotate")
  local values, cells, dark, light, most = counts:totable(), {}, {}, {}, 1
  for _, row in ipairs(values) do most = math.max(most, table.unpack(row)) end
  for i, row in ipairs(values) do
    local shades_of_row = {}
    for j, n in ipairs(row) do
      local shade = math.log(1 + check.number("matrix", "1", n, 0)) / math.log(1 + most)
      shades_of_row[j] = number(shade)
      local list = shade > 0.65 and light or dark
      if n ~= 0 then list[#list + 1] = caption_of(j - 1, i - 1, format("%.10g", n)) end
    end
    cells[i] = table.concat(shades_of_row, " ")
  end
  self:add("set cbrange [0:1]; set palette defined (0 '#f7f9fc', 0.5 '#9ecae1', 1 '#08519c')")
  self:add("plot %s matrix with image notitle, %s with labels font ',11' tc rgb '#222222' notitle, "
    .. "%s with labels font ',11' tc rgb '#ffffff' notitle", self:block(cells), self:block(dark), self:block(light))
  return self
end

--- Gray images (N, H, W, 1) in rows, each below its caption.
---   captions  one text for each image; columns: a square is tried when left out; title
---@return Figure
---@example plot.images{marea.uniform{4, 8, 8, 1}, captions = {"a", "b", "c", "d"}}
function plot.images(options)
  options = check.options("images", options, {"captions", "columns", "title"}, 1)
  local x = check.tensor("images", "1", options[1])
  if x.rank ~= 4 or x:size(4) ~= 1 or x:numel() == 0 then
    check.fail("images", "1", "at least one gray image (N, H, W, 1)", x)
  end
  local n, h, w = x:size()
  local captions = options.captions or {}
  check.items("images", "captions", captions, "a list of texts")
  local columns = check.integer("images", "columns", options.columns or math.ceil(math.sqrt(n)), 1)
  local rows, top = (n + columns - 1) // columns, options.captions and math.max(h // 3, 6) or 2
  local zoom = math.max(900 // (columns * (w + 2)), 1)
  local width, height = columns * (w + 2), rows * (h + top)
  local title = options.title and 40 or 10
  local self = figure({}, width * zoom + 40, height * zoom + title + 20)
  bare(self, 20, title, width * zoom, height * zoom)
  self:axes(options)
  self:add("unset tics; set xrange [-0.5:%d.5]; set yrange [%d.5:-0.5]", width - 1, height - 1)
  self.picture = x:detach()
  local pixels = core.no_grad(function()
    local gray = x.dtype == "u8" and x:cast("f32") / 255 or x:detach()
    local tiles = gray:pad({0, 0, top, 0, 1, 1, 0, 0}, 1)
    return require "marea.image".grid(tiles, {columns = columns, value = 1}):reshape(height, width):keep()
  end)
  local texts = {}
  for i = 1, math.min(n, #captions) do
    local row, column = (i - 1) // columns, (i - 1) % columns
    texts[i] = caption_of((column + 0.5) * (w + 2) - 0.5, row * (h + top) + top / 2, captions[i])
  end
  self:add("set cbrange [0:1]; set palette gray")
  self:add("plot %s matrix with image notitle, %s with labels font ',10' tc rgb '#222222' notitle",
    self:block(function(write)
      for i = 1, height do write(core.scope(function() return shades(pixels[i]:totable()) end)) end
    end), self:block(texts))
  return self
end

--- Width and height of a panel: those of the first figure, more where a heat map or images need it.
local function panel_size(figures)
  local width, height = figures[1].width, figures[1].height
  for _, panel in ipairs(figures) do
    if panel.edges then width, height = math.max(width, panel.width), math.max(height, panel.height) end
  end
  return width, height
end

--- Figures side by side, row by row, in one picture. Heat maps and images keep their size, others fill their panel.
---@return Figure
---@example plot.panels{plot.histogram{marea.normal{100}}, plot.heatmap{marea.eye(4)}}
function plot.panels(options)
  options = check.options("panels", options, {"columns", "title"}, math.maxinteger)
  if #options == 0 then check.raise "panels: expected at least one figure" end
  local columns = check.integer("panels", "columns", options.columns or math.ceil(math.sqrt(#options)), 1)
  local rows = (#options + columns - 1) // columns
  local w, h = panel_size(options)
  local head = options.title and 40 or 0
  local self = figure({}, w * columns, h * rows + head)
  self:add("set multiplot layout %d,%d %s", rows, columns,
    options.title and ("title %s font ',15'"):format(quote(options.title)) or "")
  self.panels = {table.unpack(options)}
  for k, panel in ipairs(options) do
    local renamed = {}
    local x, y = (k - 1) % columns * w + (w - panel.width) / 2, (k - 1) // columns * h + (h - panel.height) / 2 + head
    for i, block in ipairs(panel.data) do renamed[i] = self:block(block) end
    self:add("reset")
    self:add("@style@")
    for _, command in ipairs(panel.commands) do
      if command == "@edges@" then command = edges_at(panel, x, y, self.width, self.height) end
      self.commands[#self.commands + 1] = command:gsub("@(%d+)@", function(i) return renamed[tonumber(i)] end)
    end
  end
  self:add("unset multiplot")
  return self
end

-- ---- files ----

local STYLE = "set border 3 lc rgb '#444444'\nset tics nomirror\nset grid lc rgb '#dddddd' lt 1 lw 0.5\n"
  .. "set datafile missing 'NaN'\nset encoding utf8"

--- In place of dots in colours, a letter for each colour.
local function with_letters(command)
  local letters, n = {}, 0
  return (command:gsub("pt 7(.-lc rgb '(#%x+)')", function(rest, color)
    if not letters[color] then n, letters[color] = n + 1, n + 1 end
    return ("pt %d%s"):format(letters[color], rest)
  end))
end

--- Hands the lines of gnuplot's script to write(line), one by one, after those of `setup`: data may be large.
--- setup.letters: it draws with letters.
local function each_line(self, setup, write)
  for _, line in ipairs(setup) do write(line) end
  write(STYLE)
  if setup.letters then write "unset grid" end
  for i, rows in ipairs(self.data) do
    write(("$D%d << EOD"):format(i))
    if type(rows) == "function" then rows(write)
    else
      for _, row in ipairs(#rows > 0 and rows or {"NaN NaN"}) do write(row) end
    end
    write "EOD"
  end
  for _, command in ipairs(self.commands) do
    if setup.letters then command = with_letters(command) end
    if command == "@edges@" then command = edges_at(self, 0, 0, self.width, self.height) end
    write((command:gsub("@(%d+)@", "$D%1"):gsub("^@style@$", (STYLE:gsub("%%", "%%%%")))))
  end
  write "set output"
end

--- The lines that make gnuplot draw a PNG at `path`.
local function png_setup(self, path)
  return {("set terminal pngcairo noenhanced size %d,%d background 'white' font 'DejaVu Sans,11'"):format(self.width,
    self.height), "set output " .. quote(path)}
end

--- gnuplot's script for a picture at `path`.
---@param path string
---@return string
function Figure:script(path)
  local lines = {}
  each_line(self, png_setup(self, path), function(line) lines[#lines + 1] = line end)
  return table.concat(lines, "\n") .. "\n"
end

local function shell_quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

--- Writes gnuplot's script to the file `script` and runs it: what it says, and how it ended (127: there is none).
---@return string|nil said, boolean|nil|string ok or the message, integer|nil code
local function run(self, setup, script)
  local written, message = files.write(script, function(put)
    each_line(self, setup, function(line) put(line .. "\n") end)
  end)
  if not written then return core.failed(message) end
  local pipe = io.popen("gnuplot " .. shell_quote(script) .. " 2>&1", "r")
  local said = pipe:read "a"
  local ok, _, code = pipe:close()
  return said, ok, code
end

--- Makes the PNG. When gnuplot is missing or refuses, its script stays at `path`.gp.
---@param path string
---@return boolean|nil ok, string|nil message
function Figure:save(path)
  check.string("save", "path", path)
  local script = path .. ".gp"
  local name = core.printable(script)
  local said, ok, code = run(self, png_setup(self, path), script)
  if not said then return core.failed(ok) end
  if ok then return os.remove(script) end
  if code == 127 then
    return core.failed(("gnuplot is not installed; %s makes the picture: gnuplot %s"):format(name, name))
  end
  return core.failed(("gnuplot: %s (its script is %s)"):format(core.printable(said:gsub("%s+", " ")), name))
end

--- The figure drawn with letters, for a terminal: print it, or let the prompt show it. Heat maps and images are drawn
--- with half blocks, as x:show() does.
---@param options? {width: integer?, height: integer?} in letters; the terminal's size when left out
---@return Shown|nil shown, string|nil message
function Figure:show(options)
  options = check.options("show", options, {"width", "height"})
  local show = require "marea.internal.show"
  if self.picture then return show.show(self.picture, {map = self.map}) end
  if self.panels then return show.all(self.panels, options) end
  local width, height, colors = show.room(options)
  local script = os.tmpname()
  local terminal = ("set terminal dumb noenhanced size %d,%d %s"):format(width, height, colors and "ansi256" or "mono")
  local said, ok, code = run(self, {terminal, letters = true}, script)
  os.remove(script)
  if not said then return core.failed(ok) end
  if code == 127 then return core.failed("gnuplot is not installed") end
  if not ok then return core.failed("gnuplot: " .. said:gsub("%s+", " ")) end
  return show.text(said)
end

return check.strict(plot, "plot")
