-- SPDX-License-Identifier: MIT
--- The tables and pictures of scripts/vae_study.lua.
local marea = require "marea"
local image, plot = marea.image, marea.plot

local COLUMNS = 12 -- digits in a row of a picture

local function write(path, lines)
  local file = assert(io.open(path, "w"))
  assert(file:write(table.concat(lines, "\n"), "\n"))
  assert(file:close())
end

--- What a run's row of a table says, in nats: the loss that its training logged for the test images, the ELBO of all
--- of them, and bounds of -log p(x) from 1, 50 and all samples for some.
local function numbers(run)
  local last = run.log[#run.log]
  return {last.loss, last.test_loss, -run.result.elbo, -run.result.bound1, -run.result.bound50, -run.result.bound,
    last.test_kl}
end

local function tables(runs, options)
  local csv = {"run,model,posterior,latent,epochs,loss,test_loss,minus_elbo,bound_1,bound_50,bound,kl"}
  local bound = ("%d images, k = %%d"):format(runs[1].result.images)
  local markdown = {
    ("| run | network | posterior | latent | epochs | training loss | test loss | -ELBO | %s | %s | %s |"):format(
      bound:format(1), bound:format(50), bound:format(options.samples)),
    "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
  }
  for _, run in ipairs(runs) do
    local n, epochs = numbers(run), #run.log
    csv[#csv + 1] = marea.format("%s,%s,%s,%d,%d,%.4f,%.4f,%.4f,%.4f,%.4f,%.4f,%.4f", run.name, run.model,
      run.posterior, run.latent, epochs, table.unpack(n))
    markdown[#markdown + 1] = marea.format("| %s | %s | %s | %d | %d | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |",
      run.name, run.model, run.posterior, run.latent, epochs, table.unpack(n, 1, 6))
  end
  write(options.out .. "/results.csv", csv)
  write(options.out .. "/results.md", markdown)
  print(table.concat(markdown, "\n"))
end

--- Rows of digits, one a run, under the names in `labels`.
local function rows_of_digits(rows, labels, title)
  local pixels = image.grid(marea.concat(rows, 1):upsample_nearest2d(2), {columns = COLUMNS, gap = 2, value = 0.5})
  return plot.heatmap{pixels, yticks = labels, xticks = {}, title = title, colorlabel = "gray value"}
end

local function label(run) return run.name:gsub("^latent", "latent "):gsub("_", " ") end

--- The first test images of the digits 0 to 9 in turn, COLUMNS of them.
local function originals(test)
  local labels, index, next_digit = test:field "label":totable(), {}, 0
  for i, class in ipairs(labels) do
    if #index < COLUMNS and (class - 1 == next_digit or #labels - i < COLUMNS - #index) then
      index[#index + 1], next_digit = i, (next_digit + 1) % 10
    end
  end
  return (test:rows(index))
end

local function digits(runs, test, load)
  local x = originals(test)
  local decoded, sampled, labels = {x}, {}, {}
  for i, run in ipairs(runs) do
    local model = load(run)
    decoded[i + 1] = marea.no_grad(model.reconstruct, model, x)
    marea.seed(1)
    sampled[i] = marea.no_grad(model.generate, model, COLUMNS)
    labels[i] = label(run)
  end
  local samples = rows_of_digits(sampled, labels, "Decoded from samples of the prior")
  table.insert(labels, 1, "test images")
  return rows_of_digits(decoded, labels, "Decoded from the centre of q(z | x)"), samples
end

--- Bounds against the size of the latent space, of the runs that differ in it alone.
local function bound_curves(runs, options)
  local x, curves = {}, {{}, {}, {}, {}}
  for _, run in ipairs(runs) do
    if run.name:match "^latent" then
      x[#x + 1] = run.latent
      for i = 1, 4 do table.insert(curves[i], numbers(run)[i + 2]) end
    end
  end
  if #x < 2 then return nil end
  local some = (" of %d images"):format(runs[1].result.images)
  return plot.curves{
    {x = x, y = curves[1], title = "-ELBO of all test images"},
    {x = x, y = curves[2], title = "k = 1" .. some},
    {x = x, y = curves[3], title = "k = 50"},
    {x = x, y = curves[4], title = ("k = %d"):format(options.samples)},
    title = "Bounds of -log p(x) from k importance samples", xlabel = "components of z",
    ylabel = "nats an image",
  }
end

--- Writes everything to options.out. Without gnuplot the pictures' scripts are left there, and it says so.
return function(runs, test, load, options)
  tables(runs, options)
  local reconstructions, samples = digits(runs, test, load)
  local figures = {reconstructions = reconstructions, samples = samples, bounds = bound_curves(runs, options)}
  for name, figure in pairs(figures) do
    local ok, message = figure:save(options.out .. "/" .. name .. ".png")
    if not ok then io.stderr:write(name, ": ", message, "\n") end
  end
  print("results.csv, results.md and pictures are in " .. options.out)
end
