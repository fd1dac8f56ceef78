-- SPDX-License-Identifier: MIT
--- The pictures of scripts/vae.lua: training curve, reconstructions, digits decoded from the prior; where z is
--- continuous, latent plane, histograms of the posterior, and two manifolds, decoded from a grid over that plane.
local marea = require "marea"
local image, plot = marea.image, marea.plot
local shared = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")

local SIDE = 30 -- tiles of a manifold in each direction

--- Means and variances of q(z | x) of a whole dataset, (N, latent) each, and the labels (N).
local function encode_all(model, dataset, batch)
  local means, variances, labels = {}, {}, {}
  for x, y in dataset:batches(batch) do
    local q = marea.no_grad(model.encode, model, x)
    table.insert(means, q.mean:keep())
    table.insert(variances, q.variance:detach():keep())
    table.insert(labels, y:keep())
  end
  return marea.concat(means, 1), marea.concat(variances, 1), marea.concat(labels, 1)
end

local function training_curve(log, options)
  local epochs = log:column "epoch"
  return plot.curves{
    {x = epochs, y = log:column "loss", title = "training"},
    {x = epochs, y = log:column "test_loss", title = "test"},
    title = ("VAE, latent %d, %s"):format(options.latent, options.reconstruction),
    xlabel = "epoch", ylabel = "reconstruction + KL"
      .. (options.reconstruction == "bce" and " (nats an image)" or " (an image)"),
  }
end

--- Rows of ten originals, each above what the model makes of them.
local function reconstructions(model, dataset)
  local rows, labels = {}, {}
  for first = 1, 31, 10 do
    local index = {}
    for i = 1, 10 do index[i] = first + i - 1 end
    local x = dataset:rows(index)
    local y = marea.no_grad(model.reconstruct, model, x)
    table.insert(rows, x)
    table.insert(rows, y)
    table.insert(labels, "original")
    table.insert(labels, "decoded")
  end
  local pixels = image.grid(marea.concat(rows, 1):upsample_nearest2d(2), {columns = 10})
  return plot.heatmap{pixels, yticks = labels, xticks = {},
    title = "Test images, and what is decoded from the mean of q(z | x)", colorlabel = "gray value"}
end

local function latent_plane(mean, labels, options)
  local names = {}
  for class = 1, 10 do names[class] = tostring(class - 1) end
  return plot.scatter{
    x = mean:select(2, 1), y = mean:select(2, 2), class = labels, names = names, legend = "class",
    title = ("Means of q(z | x) of %d test images"):format(#mean)
      .. (options.latent > 2 and (", 2 of %d components"):format(options.latent) or ""),
    xlabel = "mean of z1", ylabel = "mean of z2",
  }
end

local function histograms(mean, variance)
  local panels = {columns = 2, title = "q(z | x) of the test images"}
  for component = 1, math.min(mean:size(2), 2) do
    panels[component] = plot.histogram{mean:select(2, component), color = component,
      xlabel = ("mean of z%d"):format(component), ylabel = "images"}
  end
  for component = 1, math.min(mean:size(2), 2) do
    panels[#panels + 1] = plot.histogram{variance:select(2, component), color = component,
      xlabel = ("variance of z%d"):format(component), ylabel = "images"}
  end
  if mean:size(2) == 1 then panels.columns = 1 end
  return plot.panels(panels)
end

--- Digits decoded from z1 = q(j), z2 = q(i), where q are the prior's quantiles of SIDE shares from low to high. z1
--- grows to the right and z2 upwards, as in the plane of means; further components are 0.
local function manifold(model, low, high, options)
  local quantiles = model:prior():icdf(marea.linspace(low, high, SIDE, "f64")):totable()
  local plane, tiles, columns, rows = options.latent > 1, {}, {}, {}
  for i = SIDE, 1, -1 do
    local z = marea.zeros{SIDE, options.latent}
    for j = 1, SIDE do
      z[{j, 1}] = quantiles[j]
      if plane then z[{j, 2}] = quantiles[i] end
    end
    table.insert(tiles, marea.no_grad(model.decode, model, z))
    columns[i] = marea.format("%.2f", quantiles[i])
    if plane then table.insert(rows, columns[i]) end
  end
  return plot.heatmap{image.grid(marea.concat(tiles, 1), {columns = SIDE}), map = "gnuplot2", xlabel = "z1",
    xticks = columns, ylabel = plane and "z2" or nil, yticks = rows, colorlabel = "gray value",
    title = marea.format("Decoded from the prior's quantiles %g to %g", low, high)
      .. (plane and options.latent > 2 and ", z3 and on are 0" or plane and "" or ", every row the same")}
end

--- 100 digits decoded from the prior.
local function samples(model)
  local pixels = image.grid(marea.no_grad(model.generate, model, 100):upsample_nearest2d(2), {columns = 10})
  return plot.heatmap{pixels, xticks = {}, yticks = {}, title = "Decoded from samples of the prior",
    colorlabel = "gray value"}
end

local function pictures(model, dataset, log, options, save)
  save("training_curve", training_curve(log, options))
  save("reconstructions", reconstructions(model, dataset))
  save("samples", samples(model))
  if model:is_discrete() then return end
  local mean, variance, labels = encode_all(model, dataset, options.batch)
  save("histograms", histograms(mean, variance))
  save("manifold", manifold(model, 0.05, 0.95, options))
  save("manifold_tails", manifold(model, 5e-6, 1 - 5e-6, options))
  if options.latent > 1 then save("latent", latent_plane(mean, labels, options)) end
end

--- Writes all pictures to options.out. Without gnuplot their scripts are left there, and it says so.
return function(model, dataset, log, options)
  model:evaluate()
  local save = shared.saver(options.out)
  marea.scope(pictures, model, dataset, log, options, save)
  model:train()
  print("Pictures, metrics.csv and vae.safetensors are in " .. options.out)
end
