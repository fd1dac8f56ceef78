-- SPDX-License-Identifier: MIT
--- Pictures of scripts/series.lua: a row of each class, the training curve, what is taken for what.
local marea = require "marea"
local plot = marea.plot
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local shared = dofile(here .. "options.lua")
local series = dofile(here .. "series_data.lua")

local function training_curve(log)
  return plot.curves{{x = log:column "epoch", y = log:column "accuracy", title = "rows that are right"},
    yrange = {0, 100}, title = "Validation while training", xlabel = "epoch", ylabel = "percent"}
end

--- The first row of each class, one above the other.
local function examples(test)
  local x, each, panels = test:field "x", #test // #series.CLASSES, {}
  for class, name in ipairs(series.CLASSES) do
    local row = x[(class - 1) * each + 1]:reshape(-1)
    panels[class] = plot.curves{{x = marea.arange(1, series.LENGTH), y = row}, title = name,
      xrange = {0, series.LENGTH}, yrange = {-5, 5}, width = 1000, height = 190}
  end
  panels.columns = 1
  return plot.panels(panels)
end

--- counts[i][j]: rows of class i that are taken for class j.
local function confusion(labels, classes)
  local n = #series.CLASSES
  return marea.one_hot(labels, n):matmul(marea.one_hot(classes, n), {transpose_a = true})
end

--- Writes the pictures to options.out, prints what is right of each class and of all.
---@param classes userdata i64 (N), what the model gave
return function(test, classes, accuracy, log, options)
  local save, counts = shared.saver(options.out), confusion(test:field "label", classes)
  save("training_curve", training_curve(log))
  save("examples", examples(test))
  save("confusion", plot.matrix{counts, labels = series.CLASSES, xlabel = "predicted", ylabel = "true",
    title = marea.format("%s: %.2f %% of the test rows are right", options.model, accuracy)})
  for class, row in ipairs(counts:totable()) do
    print(marea.format("%-10s %6.2f %%", series.CLASSES[class], 100 * row[class] * #series.CLASSES / #test))
  end
  print(marea.format("%.2f %% of %d test rows are right", accuracy, #test))
  print(("Pictures, metrics.csv and %s.safetensors are in %s"):format(options.model, options.out))
end
