-- SPDX-License-Identifier: MIT
-- Image grids and colour maps; figures by gnuplot, and what happens without it.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local folder = require "spec.support.folder"
local image, plot = marea.image, marea.plot

local close = allclose.assert

teardown(folder.remove)

describe("an image grid", function()
  it("puts images side by side, row by row", function()
    local x = marea.arange(1, 6):reshape(6, 1, 1, 1):expand(6, 2, 1, 1)
    local grid = image.grid(x, {columns = 3})
    assert.are.same({4, 3, 1}, grid.shape)
    close(grid:reshape(4, 3), {{1, 2, 3}, {1, 2, 3}, {4, 5, 6}, {4, 5, 6}})
  end)

  it("fills empty places and gaps", function()
    local x = marea.ones(3, 1, 1, 1)
    close(image.grid(x, {columns = 2, value = 7}):reshape(2, 2), {{1, 1}, {1, 7}})
    close(image.grid(x, {columns = 2, gap = 1, value = 9}):reshape(3, 3), {{1, 9, 1}, {9, 9, 9}, {1, 9, 9}})
    assert.are.same({3, 3, 3}, image.grid(marea.zeros{7, 1, 1, 3, dtype = "u8"}).shape)
  end)

  it("is saved as it is, in gray or in colours", function()
    local path = folder.new() .. "/a.png"
    local x = marea.linspace(0, 1, 24):reshape(2, 3, 4, 1)
    assert(image.save(x, path, {columns = 2}))
    assert.are.same({3, 8, 1}, marea.load_png(path).shape)
    assert(image.save(x, path, {columns = 1, map = "gnuplot2"}))
    assert.are.same({6, 4, 3}, marea.load_png(path).shape)
    local ok, message = image.save(x, "/nowhere/at/all.png")
    assert.is_nil(ok)
    assert.is_truthy(message:find "/nowhere/at/all.png")
  end)

  it("refuses what is no image", function()
    assert.is_truthy(message_of(function() image.grid(marea.ones(3, 3)) end):find "images %(N, H, W, C%)")
    assert.is_truthy(message_of(function() image.colorize(marea.ones(3, 3, 3), "gray") end):find "a gray image")
    assert.is_truthy(message_of(function() image.colorize(marea.ones(3, 3), "virdis") end)
      :find "did you mean 'viridis'")
  end)
end)

describe("an image in another size", function()
  it("is what the operator makes of whole factors", function()
    marea.seed(4)
    local x = marea.uniform{5, 4, 3}
    close(image.resize(x, 15, 8), x:unsqueeze(1):upsample_bilinear2d({scale = {3, 2}}):squeeze(1), {atol = 1e-6})
    close(image.resize(x, 5, 4), x)
  end)

  it("lies between the pixels, with any factor", function()
    local ramp = marea.tensor({0, 10, 20, 30, 40, 50}, {dtype = "u8"}):reshape(1, 6, 1)
    close(image.resize(ramp, 1, 3):reshape(3), {5, 25, 45})
    close(image.resize(ramp, 1, 4):reshape(4), {2.5, 17.5, 32.5, 47.5})
    close(image.resize(ramp, 1, 9):reshape(9), {0, 5, 35 / 3, 55 / 3, 25, 95 / 3, 115 / 3, 45, 50}, {atol = 1e-5})
    close(image.resize(ramp, 2, 1):reshape(2), {25, 25})
    close(image.resize(ramp:permute(2, 1, 3), 2, 2):reshape(4), {10, 10, 40, 40})
    assert.are.equal("f32", image.resize(ramp, 1, 6).dtype)
  end)

  it("refuses what is no image, and no size", function()
    assert.is_truthy(message_of(function() image.resize(marea.ones(3, 3), 2, 2) end):find "an image %(H, W, C%)")
    assert.is_truthy(message_of(function() image.resize(marea.ones(3, 0, 1), 2, 2) end):find "an image %(H, W, C%)")
    assert.is_truthy(message_of(function() image.resize(marea.ones(3, 3, 1), 0, 2) end):find "height")
    assert.is_truthy(message_of(function() image.resize(marea.ones(3, 3, 1), 2) end):find "width")
  end)
end)

describe("a colour map", function()
  it("has the colours that it is known for", function()
    local gnuplot2, viridis, gray = image.colors "gnuplot2", image.colors "viridis", image.colors "gray"
    assert.are.equal(256, #gnuplot2)
    close(gnuplot2[1], {0, 0, 0})
    close(gnuplot2[256], {1, 1, 1})
    close(gnuplot2[129], {0.78737745, 0.163921569, 0.836078431}, {atol = 1e-6}) -- matplotlib's gnuplot2(128)
    close(viridis[1], {0.267004, 0.004874, 0.329415}, {atol = 0.012})
    close(viridis[129], {0.127568, 0.566949, 0.550556}, {atol = 0.012})
    close(viridis[256], {0.993248, 0.906157, 0.143936}, {atol = 0.013})
    close(gray[129], {128 / 255, 128 / 255, 128 / 255})
  end)

  it("clamps, and takes NaN for 0 and bytes for 255ths", function()
    close(image.colorize(marea.tensor{{-1, 0.5, 2, 0 / 0}}, "gray"):select(3, 1), {{0, 128 / 255, 1, 0}})
    close(image.colorize(marea.full({1, 1}, 51, "u8"), "gray"), {{{0.2, 0.2, 0.2}}})
  end)
end)

describe("a figure", function()
  local function size_of(path)
    local png = assert(marea.load_png(path))
    return {png:size(2), png:size(1)}
  end

  it("becomes a picture of its size, and leaves nothing else", function()
    local at = folder.new()
    local points = marea.normal{200}
    local figures = {
      curves = plot.curves{{y = {3, 2, 1.5}, title = "training"}, {x = {1, 3}, y = {2, 1}}, xlabel = "epoch",
        ylabel = "loss (nats)", width = 500, height = 300},
      scatter = plot.scatter{x = points, y = points:exp(), class = marea.randint({200}, 1, 3), names = {"a", "b", "c"},
        diagonal = true},
      histogram = plot.histogram{points, bins = 10, xlabel = "z"},
      heatmap = plot.heatmap{marea.zeros(60, 60, 1), map = "gnuplot2", xticks = {"-1", "0", "1"}, yticks = {}},
      colors = plot.heatmap{marea.uniform{20, 30, 3}, title = "red, green, blue"},
      bars = plot.bars{{y = {1, 0 / 0, 3}, title = "a"}, {y = marea.tensor{2, 1, 2}, color = 5}, values = true,
        labels = {"one", "two", "a label with many words"}, line = {y = 2.5, title = "b"}, logy = true},
      matrix = plot.matrix{marea.tensor({{9, 0}, {1, 1200}}, {dtype = "i64"}), labels = {"a", "b"}, title = "a table"},
      images = plot.images{marea.uniform{3, 8, 8, 1}, captions = {"a", "b"}, columns = 2},
      panels = plot.panels{plot.histogram{{1, 2, 2}}, plot.histogram{points}, plot.curves{{y = {1, 2}}}, columns = 2,
        title = "three"},
    }
    for name, figure in pairs(figures) do
      local path = ("%s/%s.png"):format(at, name)
      assert(figure:save(path))
      assert.are.same({figure.width, figure.height}, size_of(path))
      assert.is_nil(folder.read(path .. ".gp"))
    end
    assert.are.equal(500, figures.curves.width)
    assert.are.equal(1280, figures.panels.width)
  end)

  it("shows text as it is: no quoting, no commands, no markup", function()
    local at = folder.new()
    local text = "it's `touch " .. at .. "/broken` \\ \"x\" $y _{z}\nnext"
    local figure = plot.curves{{y = {1, 2}, title = text}, title = text, xlabel = text}
    assert.is_truthy(figure:script("p.png"):find("'it''s `touch", 1, true))
    local path = at .. "/it's \"here\" $HOME.png"
    assert(figure:save(path))
    assert.is_not_nil(folder.read(path))
    assert.is_nil(folder.read(at .. "/broken"))
  end)

  it("copes with NaN, infinities, one value and none", function()
    local at = folder.new()
    assert(plot.histogram{{1, 0 / 0, 1 / 0, -1 / 0, 2}}:save(at .. "/a.png"))
    assert(plot.histogram{{3, 3, 3}}:save(at .. "/b.png"))
    assert(plot.histogram{{}}:save(at .. "/c.png"))
    assert(plot.curves{{y = {1, 0 / 0, 2}}}:save(at .. "/d.png"))
  end)

  it("counts every value once", function()
    local script = plot.histogram{{0, 1, 2, 3, 4}, bins = 2}:script "p.png"
    assert.is_truthy(script:find("1 2\n3 3\n", 1, true), script)
  end)

  it("places a group's bars side by side, without those that are not there", function()
    local script = plot.bars{{y = {10, 0 / 0}}, {y = {20, 30}}, labels = {"a", "b"}}:script "p.png"
    assert.is_truthy(script:find("$D1 << EOD\n0.8 10\n1.8 NaN\nEOD", 1, true), script)
    assert.is_truthy(script:find("$D2 << EOD\n1.2 20\n2.2 30\nEOD", 1, true), script)
    assert.is_truthy(script:find("('a' 1, 'b' 2)", 1, true), script)
  end)

  it("of a colour image has a line for each pixel", function()
    local script = plot.heatmap{marea.tensor{{{0, 0.2, 1}, {1, 0, 2}}}}:script "p.png"
    assert.is_truthy(script:find("EOD\n0 0 0 51 255\n1 0 255 0 255\nEOD", 1, true), script)
    assert.is_truthy(script:find("with rgbimage", 1, true))
    assert.is_nil(script:find("palette", 1, true))
  end)

  it("turns the labels below an image only where they would touch", function()
    local image_of, many = marea.zeros(10, 300), {}
    for i = 1, 60 do many[i] = marea.format("%.2f", i) end
    assert.is_truthy(plot.heatmap{image_of, xticks = many}:script "p.png":find "xtics [^\n]*rotate")
    assert.is_nil(plot.heatmap{image_of, xticks = {"true 7", "predicted 7.1"}}:script "p.png":find "rotate")
  end)

  it("of an image has its rows as they were, also when the image has changed and its scope has ended", function()
    local expected = {}
    for i = 0, 249 do expected[i + 1] = marea.format("%.4g", i / 8) end
    local figure = marea.scope(function()
      local x = marea.arange(0, 499, {dtype = "f32"}):reshape(2, 250) / 8
      local heatmap = plot.heatmap{x}
      x:zero_()
      return heatmap
    end)
    local script = figure:script "p.png"
    assert.is_truthy(script:find(table.concat(expected, " "), 1, true), script)
    assert.is_truthy(plot.panels{figure}:script "p.png":find(table.concat(expected, " "), 1, true))
  end)

  it("of a matrix has every count but 0 once, and shades from 0 to 1", function()
    local script = plot.matrix{marea.tensor{{7, 0}, {1, 1e6}}, labels = {"x", "y"}}:script "p.png"
    local counts = {}
    for place, count in script:gmatch '\n(%d+ %d+) "(%d+)"' do counts[place] = count end
    assert.are.same({["0 0"] = "7", ["0 1"] = "1", ["1 1"] = "1000000"}, counts)
    local first, last = script:match "\n([%d.]+) 0\n[%d.]+ ([%d.]+)\nEOD"
    close(tonumber(first), math.log(8) / math.log(1e6 + 1))
    close(tonumber(last), 1)
  end)

  it("of images has each below its caption, of bytes as of numbers from 0 to 1", function()
    local x = marea.tensor({{{0, 255}, {255, 0}}}, {dtype = "u8"}):reshape(1, 2, 2, 1)
    local script = plot.images{x, captions = {'say "4"'}}:script "p.png"
    assert.is_truthy(script:find("1 0 1 1 \n1 1 0 1 \nEOD", 1, true), script)
    assert.is_truthy(script:find('"say  4 "', 1, true), script)
    assert.are.equal(script, plot.images{x:to "f32" / 255, captions = {'say "4"'}}:script "p.png")
  end)

  it("side by side keep their places, heat maps and images too", function()
    local figures, values <const> = {columns = 2, title = "four"}, {0.25, 0.5, 0.75, 1}
    for i, value in ipairs(values) do
      local x = marea.full({6, 6}, value)
      figures[i] = i < 4 and plot.heatmap{x, title = "map"} or plot.images{x:reshape(1, 6, 6, 1), title = "images"}
    end
    local path = folder.new() .. "/panels.png"
    local all = plot.panels(figures)
    assert(all:save(path))
    local png = assert(marea.load_png(path)):to "f64" / 255
    local w, h = all.width // 2, (all.height - 40) // 2
    assert.are.same({all.height, all.width}, {png:size(1), png:size(2)})
    assert.are.same({math.max(figures[1].width, figures[4].width), math.max(figures[1].height, figures[4].height)},
      {w, h})
    for i, value in ipairs(values) do -- the middle of its panel, and no other value in it
      local top, left = 40 + (i - 1) // 2 * h, (i - 1) % 2 * w
      local figure = figures[i]
      local x = left + (w - figure.width) // 2 + figure.edges[1] + figure.edges[3] // 2
      local y = top + (h - figure.height) // 2 + figure.edges[2] + figure.edges[4] // 2
      local part = png:narrow(1, y - 20, 40):narrow(2, x - 20, 40)
      assert.is_true((part - value):abs():max():item() < 0.01, i)
    end
  end)

  it("without gnuplot leaves its script and says so", function()
    local at = folder.new()
    folder.write(at .. "/p.lua", ([[
      local marea = require "marea"
      print(marea.plot.curves{{y = {1, 2}}}:save("%s/p.png"))]]):format(at))
    local lua = io.popen("command -v lua5.4"):read "l"
    os.execute(("mkdir %s/bin && ln -s %s %s/bin/lua5.4"):format(at, lua, at))
    local text = folder.lua(at .. "/p.lua", ("PATH=%s/bin"):format(at))
    assert.is_truthy(text:find("nil\tgnuplot is not installed; " .. at .. "/p.png.gp", 1, true), text)
    assert.is_nil(folder.read(at .. "/p.png"))
    assert.is_truthy(folder.read(at .. "/p.png.gp"):find "plot %$D1")
  end)

  it("that cannot be written gives nil and a message", function()
    local ok, message = plot.curves{{y = {1}}}:save "/nowhere/at/all.png"
    assert.is_nil(ok)
    assert.is_truthy(message:find "/nowhere/at/all.png")
  end)

  it("refuses misuse", function()
    assert.is_truthy(message_of(function() plot.curves{{y = {1}}, xlable = "x"} end):find "did you mean 'xlabel'")
    assert.is_truthy(message_of(function() plot.curves{} end):find "at least one curve")
    assert.is_truthy(message_of(function() plot.scatter{x = {1}, y = {1, 2}} end):find "x has 1 numbers, y has 2")
    assert.is_truthy(message_of(function() plot.histogram{{1, "a"}} end):find "values%[2%]")
    assert.is_truthy(message_of(function() plot.heatmap{marea.ones(2, 2, 4)} end):find "an image")
    assert.is_truthy(message_of(function() plot.matrix{marea.ones(3)} end):find "counts %(H, W%)")
    assert.is_truthy(message_of(function() plot.matrix{marea.full({1, 1}, -1)} end):find "at least 0")
    assert.is_truthy(message_of(function() plot.images{marea.ones(2, 2, 2, 3)} end):find "gray image")
    assert.is_truthy(message_of(function() plot.images{marea.ones(2, 2, 2, 1), captions = "a"} end):find "captions")
    assert.is_truthy(message_of(function() plot.bars{{y = {1}}} end):find "labels")
    assert.is_truthy(message_of(function() plot.bars{labels = {"a"}} end):find "at least one list of values")
    assert.is_truthy(message_of(function() plot.bars{{y = {1, 2}}, labels = {"a"}} end):find "2 numbers for 1 labels")
    assert.is_truthy(message_of(function() plot.bars{{y = {1}}, labels = {"a"}, line = {y = "x"}} end)
      :find "line.y%[1%]")
  end)
end)
