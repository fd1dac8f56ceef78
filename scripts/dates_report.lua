-- SPDX-License-Identifier: MIT
--- Pictures of scripts/dates.lua: the training curve, and where the network looks while it writes.
local marea = require "marea"
local plot, text = marea.plot, marea.text
local shared = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")

local function training_curve(log)
  return plot.curves{{x = log:column "epoch", y = log:column "exact", title = "exactly right"}, yrange = {0, 100},
    title = "Validation dates while training", xlabel = "epoch", ylabel = "percent"}
end

--- A character as a label: one that is seen, for a space too.
local function label(c) return c == " " and "_" or c end

local function labels(line)
  local list = text.characters(line)
  for i, c in ipairs(list) do list[i] = label(c) end
  return list
end

--- The weights of one date (10, length) as a figure: a row for each character that is written.
local function heat_map(weights, free, written)
  return plot.heatmap{weights, map = "viridis", xticks = labels(free), yticks = labels(written),
    colorlabel = "weight", title = free .. " -> " .. written}
end

--- The first `count` test dates that begin with a letter and have no apostrophe, each of another length.
local function choose(lines, count)
  local chosen, seen = {}, {}
  for i, line in ipairs(lines) do
    if #chosen < count and line:find "^%a" and not line:find "'" and not seen[#line // 4] then
      chosen[#chosen + 1], seen[#line // 4] = i, true
    end
  end
  return chosen
end

local function heat_maps(model, dates, save)
  for k, i in ipairs(choose(dates.free, 3)) do
    local input, lengths, output = dates.rows:rows{i}
    local _, weights = model(text.trim(input, lengths), lengths, output)
    save("attention" .. k, heat_map(weights[1], dates.free[i], dates.written[i]))
  end
end

--- Writes the pictures to options.out, prints some dates, the wrong ones first, and the share that is right.
---@param dates {free: string[], iso: string[], rows: Dataset, written: string[]} the test's
---@param exact number percent
return function(model, dates, exact, log, options)
  local save, wrong = shared.saver(options.out), {}
  save("training_curve", training_curve(log))
  marea.no_grad(heat_maps, model, dates, save)
  for i, line in ipairs(dates.written) do
    if line ~= dates.iso[i] then wrong[#wrong + 1] = i end
  end
  for k = 1, math.min(#wrong, 5) do
    local i = wrong[k]
    print(marea.format("wrong: %s -> %s, not %s", dates.free[i], dates.written[i], dates.iso[i]))
  end
  print(marea.format("%d of %d test dates are exactly right: %.2f %%", #dates.iso - #wrong, #dates.iso, exact))
  print("Pictures, metrics.csv and dates.safetensors are in " .. options.out)
end
