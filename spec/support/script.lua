-- SPDX-License-Identifier: MIT
--- What the specs of scripts have in common: a script runs as a user runs it, and leaves what it says.
local marea = require "marea"
local folder = require "spec.support.folder"
local assert = require "luassert"
local script = {}

--- Runs a script, which must succeed; returns what it wrote.
---@param arguments string for the shell, the script's path in front
---@param environment? string assignments in front of the command
function script.run(arguments, environment)
  local text, code = folder.lua(arguments, environment)
  assert.are.equal(0, code, text)
  return text
end

--- Runs a script, which must fail with a message that has `expected` in it.
function script.fails(arguments, expected, environment)
  local text, code = folder.lua(arguments, environment)
  assert.are_not.equal(0, code, text)
  assert.is_truthy(text:find(expected, 1, true), text)
end

--- --help names all of these options, and those of every training script.
---@param options string "data epochs"
function script.explains(path, options)
  local text = script.run(path .. " --help")
  for option in (options .. " threads out resume smoke"):gmatch "%S+" do
    assert.is_truthy(text:find("--" .. option, 1, true), option)
  end
end

--- The pictures are there, and not blank.
---@param names string "training_curve samples"
function script.has_pictures(place, names)
  for name in names:gmatch "%S+" do
    local png = assert(marea.load_png(("%s/%s.png"):format(place, name)))
    assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
  end
end

--- The rows of metrics.csv in a folder, without the time, which differs from run to run.
function script.metrics(place)
  local rows = assert(marea.metrics.read(place .. "/metrics.csv"))
  for _, row in ipairs(rows) do row.seconds = nil end
  return rows
end

return script
