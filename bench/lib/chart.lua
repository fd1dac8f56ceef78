-- SPDX-License-Identifier: MIT
--- Figures of resolved rows (lib/report.lua), all of one size, with one colour for each contestant.
local plot = require "marea".plot

local chart = {}

local WIDTH, HEIGHT = 780, 470
local NAN = 0 / 0
local COLORS = {limit = 8, Marea = 1, oneDNN = 2, ["ONNX Runtime"] = 3, PyTorch = 4, Keras = 5, JAX = 6}
local ORDER = {"limit", "Marea", "oneDNN", "ONNX Runtime", "PyTorch", "Keras", "JAX"}

--- A contestant's figure in a row, in the row's unit.
local function figure_of(row, name)
  if name == "limit" then return row.limit end
  local figure = name == "Marea" and row.ours or row.peers[name]
  return figure and figure.median
end

--- Lists for plot.bars, one a contestant that has any figure. convert(figure, row) gives what is drawn.
--- suffix: behind the names; color: instead of the contestants' own, by name.
function chart.series(rows, convert, suffix, color)
  local list = {}
  for _, name in ipairs(ORDER) do
    local series, found = {title = name .. (suffix or ""), color = (color or COLORS)[name], y = {}}, false
    for i, row in ipairs(rows) do
      local figure = figure_of(row, name)
      found = found or figure ~= nil
      series.y[i] = figure and (convert and convert(figure, row) or figure) or NAN
    end
    if found and series.color then list[#list + 1] = series end
  end
  return list
end

function chart.bars(series, options)
  options.width, options.height = WIDTH, HEIGHT
  for i, s in ipairs(series) do options[i] = s end
  return plot.bars(options)
end

--- Bars of the rows on one thread in f32, with their names below, or label(name) of them. convert as in chart.series.
function chart.one_thread(rows, options, convert, label)
  local shown = {}
  options.labels, options.values = {}, true
  for _, row in ipairs(rows) do
    if row.threads == 1 and (row.precision or "f32") == "f32" then
      shown[#shown + 1] = row
      options.labels[#shown] = label and label(row.name) or row.name
    end
  end
  return chart.bars(chart.series(shown, convert), options)
end

function chart.curves(options)
  options.width, options.height = WIDTH, HEIGHT
  return plot.curves(options)
end

--- All figures in one picture.
function chart.save(figures, title, path)
  if #figures == 0 then return true end
  figures.columns, figures.title = math.min(3, #figures), title
  return plot.panels(figures):save(path)
end

return chart
