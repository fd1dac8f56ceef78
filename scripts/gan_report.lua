-- SPDX-License-Identifier: MIT
--- The pictures of scripts/gan.lua: what the generator makes of the same z as training goes on, the losses, and samples
--- at the end.
local marea = require "marea"
local image, plot = marea.image, marea.plot
local shared = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")

local SHARES = {0, 0.02, 0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1} -- of the training, at which samples are drawn
local SHOWN = 16 -- digits of a row of the strip
local SIDE, ZOOM = 28, 2 -- pixels of a digit; pixels of the pictures for each of them

local Report = {}
Report.__index = Report

--- @param z userdata (100, latent) what the pictures show all along
local function new(generator, z, options, steps)
  shared.make_folder(options.out .. "/samples")
  local self = setmetatable({generator = generator, z = z:keep(), out = options.out, steps = steps, at = {},
    options = options}, Report)
  for _, part in ipairs(SHARES) do self.at[math.floor(part * steps + 0.5)] = true end
  return self
end

--- Are samples to be drawn after this step?
function Report:due(step) return self.at[step] == true end

local function sample_path(self, step) return ("%s/samples/%06d.png"):format(self.out, step) end

--- Draws a grid of 10 x 10 samples, by the running statistics of the generator's normalizations.
function Report:sample(step)
  self.generator:evaluate()
  marea.scope(function()
    local x = marea.no_grad(self.generator, self.z)
    assert(image.save(x:upsample_nearest2d(ZOOM), sample_path(self, step), {columns = 10}))
  end)
  self.generator:train()
end

local function steps_drawn(self)
  local list = {}
  for step in pairs(self.at) do list[#list + 1] = step end
  table.sort(list)
  return list
end

--- A grid that was drawn, gray values from 0 to 1.
local function read_grid(path) return assert(marea.load_png(path)):to "f32" / 255 end

--- Its first SHOWN digits, as large as ZOOM says, which an earlier run may have drawn at another size.
local function first_digits(path)
  local grid = read_grid(path)
  local side = grid:size(1) // 10
  local tiles = grid:reshape(10, side, 10, side):permute(1, 3, 2, 4):reshape(100, side, side, 1):narrow(1, 1, SHOWN)
  return tiles:max_pool2d(side // SIDE):upsample_nearest2d(ZOOM)
end

local function strip(self)
  local rows, labels = {}, {}
  for i, step in ipairs(steps_drawn(self)) do
    rows[i], labels[i] = first_digits(sample_path(self, step)), ("%d"):format(step)
  end
  return plot.heatmap{image.grid(marea.concat(rows, 1), {columns = SHOWN}), yticks = labels, xticks = {},
    ylabel = "steps", title = "What the generator makes of the same z during training", colorlabel = "gray value"}
end

local function losses(self, log)
  local steps = log:column "step"
  local logistic = self.options.loss == "logistic"
  return plot.panels{columns = 1, title = "Adversarial training, " .. (self.options.as_assigned and "as assigned"
      or self.options.loss) .. " loss",
    plot.curves{{x = steps, y = log:column "discriminator", title = "discriminator"},
      {x = steps, y = log:column "generator", title = "generator"}, xlabel = "step",
      ylabel = logistic and "cross-entropy (nats)" or "critic's loss"},
    plot.curves{{x = steps, y = log:column "accuracy", title = "discriminator"}, yrange = {0, 1}, xlabel = "step",
      ylabel = "share of images judged rightly"}}
end

--- Writes the pictures. Without gnuplot their scripts are left there, and it says so.
function Report:finish(log)
  local save = shared.saver(self.out)
  marea.scope(function()
    local final = read_grid(sample_path(self, self.steps))
    save("samples", plot.heatmap{final, xticks = {}, yticks = {}, colorlabel = "gray value",
      title = ("100 digits from random z after %d steps"):format(self.steps)})
    save("strip", strip(self))
    save("losses", losses(self, log))
  end)
  print("Pictures, metrics.csv and gan.safetensors are in " .. self.out)
end

return new
