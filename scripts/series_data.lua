-- SPDX-License-Identifier: MIT
--- What a sensor on a machine would measure: made up vibrations of five classes, for scripts/series.lua. All of them
--- are a shaft's turning with its second and third harmonic, and noise; the scale tells nothing, as each row is brought
--- to mean 0 and variance 1. What tells the classes apart is sometimes a shape, sometimes the whole row:
---   healthy    nothing else
---   imbalance  the shaft's own frequency is stronger, beside its harmonics
---   bearing    short rings, 1.3 to 2.6 a turn, that slip: they keep no step with the shaft
---   tooth      the same rings, one a turn: a chipped tooth of a gear
---   drift      the shaft's speed changes by 25 to 60 % from the row's begin to its end; that of others by 3 % at most
local marea = require "marea"
local series = {}

series.CLASSES = {"healthy", "imbalance", "bearing", "tooth", "drift"}
series.LENGTH = 512

local HEALTHY <const>, IMBALANCE <const>, BEARING <const>, TOOTH <const>, DRIFT <const> = 1, 2, 3, 4, 5

local function uniform(n, low, high) return marea.uniform({n, 1}, low, high) end

--- Angles of the shaft (N, T), in turns. Its speed is 10 to 18 turns a row and changes evenly.
local function angles(class, n)
  local t = marea.linspace(0, 1, series.LENGTH):reshape(1, -1)
  local change = class == DRIFT and uniform(n, 0.25, 0.6) or uniform(n, 0, 0.03)
  change = change * (marea.uniform{n, 1}:lt(0.5):to "f32" * 2 - 1)
  return uniform(n, 0, 1) + uniform(n, 10, 18) * (t + change * (t * t - t) / 2)
end

--- The shaft with two harmonics, each with an amplitude and a phase of its own.
local function shaft(class, n, angle)
  local first = class == IMBALANCE and uniform(n, 1.1, 2) or uniform(n, 0.5, 1)
  local sum = (angle * (2 * math.pi)):sin() * first
  for k, amplitude in ipairs{0.5, 0.3} do
    local phase = (angle * (k + 1) + uniform(n, 0, 1)) * (2 * math.pi)
    sum = sum + phase:sin() * uniform(n, 0.4 * amplitude, 1.2 * amplitude)
  end
  return sum
end

--- Rings (N, T) that begin wherever `angle` (N, T) passes a whole number, each of another strength.
local function rings(n, angle)
  local whole = angle:floor()
  local begins = marea.concat({marea.zeros(n, 1), whole:narrow(2, 2, series.LENGTH - 1)
    :gt(whole:narrow(2, 1, series.LENGTH - 1)):to "f32"}, 2) * marea.uniform({n, series.LENGTH}, 0.7, 1.3)
  local k = marea.arange(0, 19)
  local ring = ((k * (2 * math.pi * 0.3)):sin() * (k / -5):exp()):reshape(20, 1, 1)
  local sum = begins:reshape(n, series.LENGTH, 1):conv_transpose1d(ring):reshape(n, -1)
  return sum:narrow(2, 1, series.LENGTH) * uniform(n, 1.2, 3)
end

local function faults(class, n, angle)
  if class == TOOTH then return rings(n, angle + uniform(n, 0, 1)) end
  if class ~= BEARING then return 0 end
  local slip = (marea.normal{n, series.LENGTH} * 0.02):cumsum(2) -- a random walk, in rings
  return rings(n, angle * uniform(n, 1.3, 2.6) + uniform(n, 0, 1) + slip)
end

local function rows_of(class, n)
  local angle = angles(class, n)
  local x = shaft(class, n, angle) + faults(class, n, angle)
    + marea.normal{n, series.LENGTH} * uniform(n, 0.2, 0.8)
  x = x - x:mean({2}, true)
  return x / (x * x):mean({2}, true):sqrt()
end

--- n rows, a fifth of each class, one class after another: x (n, T, 1), labels (n). The same seed gives the same
--- ones; it is the random state from then on.
---@param n integer a multiple of 5
---@param seed integer
function series.draw(n, seed)
  marea.seed(seed)
  local rows, labels, each = {}, {}, n // #series.CLASSES
  for class = HEALTHY, DRIFT do
    rows[class] = rows_of(class, each)
    labels[class] = marea.full({each}, class, "i64")
  end
  return marea.concat(rows, 1):unsqueeze(3):keep(), marea.concat(labels, 1):keep()
end

return series
