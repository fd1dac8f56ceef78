-- SPDX-License-Identifier: MIT
--- Errors and pictures of scripts/count.lua: MAE over the epochs, predicted against true counts, and some test images
--- with the dots that are true and the density that was predicted.
local marea = require "marea"
local image, plot = marea.image, marea.plot
local shared = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")

local report = {}

--- True and predicted counts of a dataset with the fields image, dots and count: two lists of numbers.
function report.predict(model, dataset, batch)
  local predicted = {}
  model:evaluate()
  for x in dataset:batches(batch) do
    local counts = marea.no_grad(model.estimate, model, x):totable()
    table.move(counts, 1, #counts, #predicted + 1, predicted)
  end
  model:train()
  return dataset:field "count":totable(), predicted
end

--- Mean absolute error, root of the mean square, and the share that is right when rounded.
---@return {mae: number, rmse: number, exact: number}
function report.errors(truth, predicted)
  local absolute, square, exact = 0, 0, 0
  for i, y in ipairs(predicted) do
    absolute, square = absolute + math.abs(y - truth[i]), square + (y - truth[i]) ^ 2
    if math.floor(y + 0.5) == truth[i] then exact = exact + 1 end
  end
  return {mae = absolute / #truth, rmse = math.sqrt(square / #truth), exact = exact / #truth}
end

--- What one number for all images would do: the mean of the test's counts, the best of them for the RMSE.
local function constant_errors(truth)
  local sum, constant = 0, {}
  for _, n in ipairs(truth) do sum = sum + n end
  for i = 1, #truth do constant[i] = sum / #truth end
  return report.errors(truth, constant)
end

local function training_curve(log, constant)
  local epochs, level = log:column "epoch", {}
  for i = 1, #epochs do level[i] = constant.mae end
  return plot.curves{
    {x = epochs, y = log:column "mae", title = "test"}, {x = epochs, y = level, title = "constant"},
    title = "Mean absolute error", xlabel = "epoch", ylabel = "objects an image", logy = true,
  }
end

local function scatter(truth, predicted, options, errors)
  return plot.scatter{x = truth, y = predicted, diagonal = true, xlabel = "true count", ylabel = "predicted count",
    title = ("%s, %s: MAE %.2f, RMSE %.2f"):format(options.task, options.method, errors.mae, errors.rmse),
    width = 720, height = 640}
end

--- Gray images (N, H, W, 1) in colour, with a red square where dots are.
local function with_dots(x, dots)
  local marked = dots:max_pool2d(3, 1, 1):gt(0)
  return marea.where(marked, marea.tensor{1, 0.1, 0.1}, x)
end

--- Images of density (N, H, W, 1) in colour, from 0 to `most`.
local function in_color(density, most)
  local n, h, w = density:size()
  return image.colorize((density / most):clamp(0, 1):reshape(n * h, w), "viridis"):reshape(n, h, w, 3)
end

--- Test images from the fewest to the most objects, side by side; above each other: the image with its true dots, and
--- true and predicted density.
local function examples(model, dataset, truth, predicted, options, settings)
  local order, chosen, labels = {}, {}, {}
  for i = 1, #truth do order[i] = i end
  table.sort(order, function(a, b)
    if truth[a] ~= truth[b] then return truth[a] < truth[b] end
    return a < b
  end)
  local shown = options.task == "digits" and 6 or 3
  for k = 1, shown do
    chosen[k] = order[1 + (#order - 1) * (2 * k - 1) // (2 * shown)]
    labels[k] = ("true %d, predicted %.1f"):format(truth[chosen[k]], predicted[chosen[k]])
  end
  local x, dots = dataset:rows(chosen)
  local rows, names = {with_dots(x, dots)}, {"true dots"}
  if options.method == "density" then
    local density = dots:gaussian_blur(settings.sigma)
    local most = density:max():item()
    rows[2], rows[3] = in_color(density, most), in_color(model(x) / settings.scale, most)
    names = {"true dots", "true density", "predicted"}
  end
  local all = marea.concat(rows, 1)
  if options.task == "digits" then all = all:upsample_nearest2d(2) end
  return plot.heatmap{image.grid(all, {columns = shown, gap = 2, value = 1}), xticks = labels, yticks = names,
    title = ("Counted in test images: %s, %s"):format(options.task, options.method)}
end

--- Writes the pictures to options.out and prints the errors.
function report.write(model, dataset, log, options, settings)
  local truth, predicted = report.predict(model, dataset, settings.batch)
  local errors, constant = report.errors(truth, predicted), constant_errors(truth)
  local save = shared.saver(options.out)
  model:evaluate()
  marea.no_grad(function()
    save("training_curve", training_curve(log, constant))
    save("scatter", scatter(truth, predicted, options, errors))
    save("examples", examples(model, dataset, truth, predicted, options, settings))
  end)
  model:train()
  for _, row in ipairs{{options.method, errors}, {"constant", constant}} do
    print(("%-8s  MAE %.3f  RMSE %.3f  exact %.1f %%"):format(row[1], row[2].mae, row[2].rmse, 100 * row[2].exact))
  end
  print("Pictures, metrics.csv and count.safetensors are in " .. options.out)
end

return report
