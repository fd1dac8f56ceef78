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
    {x = epochs, y = log:column "mae", title = "validation"}, {x = epochs, y = level, title = "constant"},
    title = "Mean absolute error while training", xlabel = "epoch", ylabel = "objects an image", logy = true,
  }
end

local function scatter(truth, predicted, options, errors)
  return plot.scatter{x = truth, y = predicted, diagonal = true, xlabel = "true count", ylabel = "predicted count",
    title = marea.format("%s, %s: MAE %.2f, RMSE %.2f", options.task, options.method, errors.mae, errors.rmse),
    width = 720, height = 640}
end

--- Gray images (N, H, W, 1) in colour, with a square of 3x3 pixels of this colour where marks are not 0.
local function with_marks(x, marks, color)
  return marea.where(marks:max_pool2d(3, 1, 1):gt(0), marea.tensor(color), x)
end

--- 1 where a predicted density is the highest of 5x5 pixels and at least 0.4 times the peak of a lone object, else 0.
local function peaks(density)
  return marea.where(density:ge(density:max_pool2d(5, 1, 2):clamp(0.4, math.huge)), 1, 0)
end

--- Images of density (N, H, W, 1) in colour, from 0 to `most`.
local function in_color(density, most)
  local n, h, w = density:size()
  return image.colorize((density / most):clamp(0, 1):reshape(n * h, w), "viridis"):reshape(n, h, w, 3)
end

--- `n` test images, the one with the fewest objects first and the one with the most last, the others at equal distances
--- in between: their numbers.
function report.spread(truth, n)
  local order, chosen = {}, {}
  for i = 1, #truth do order[i] = i end
  table.sort(order, function(a, b)
    if truth[a] ~= truth[b] then return truth[a] < truth[b] end
    return a < b
  end)
  for k = 1, n do chosen[k] = order[1 + (#order - 1) * (k - 1) // math.max(n - 1, 1)] end
  return chosen
end

--- Some test images side by side; above each other: the image with its true dots and, by density, with the peaks of
--- what was predicted, and true and predicted density.
local function examples(model, dataset, truth, predicted, options, settings)
  local shown, labels = math.min(options.task == "digits" and 6 or 3, #truth), {}
  local chosen = report.spread(truth, shown)
  for k, i in ipairs(chosen) do labels[k] = marea.format("true %d, predicted %.1f", truth[i], predicted[i]) end
  local x, dots = dataset:rows(chosen)
  local rows, names = {with_marks(x, dots, {1, 0.1, 0.1})}, {"true dots"}
  if options.method == "density" then
    local density, found = dots:gaussian_blur(settings.sigma) * settings.peak, model(x)
    local most = density:max():item()
    rows[2] = with_marks(x, peaks(found), {0.2, 1, 0.2})
    rows[3], rows[4] = in_color(density, most), in_color(found, most)
    names = {"true dots", "predicted peaks", "true density", "predicted density"}
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
    print(marea.format("%-8s  test MAE %.3f  RMSE %.3f  exact %.1f %%", row[1], row[2].mae, row[2].rmse,
      100 * row[2].exact))
  end
  print("Pictures, metrics.csv and count.safetensors are in " .. options.out)
end

return report
