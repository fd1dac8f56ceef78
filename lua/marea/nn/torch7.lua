-- SPDX-License-Identifier: MIT
--- Modules of Torch7's nn, as marea.load_t7 gives them, as the states that PyTorch's modules in the same places would
--- have: the layers of a container by their positions from 0 on, their weights in PyTorch's layouts.
local check = require "marea.internal.check"
local core = require "marea.core"
local ops = core.ops

local torch7 = {}

local NAMES = {"weight", "bias", "running_mean", "running_var"}

-- ---- layers that keep other tensors than PyTorch's do ----

local layers = {}

--- (Cout, Cin KH KW)
function layers.SpatialConvolutionMM(m, state)
  if state.weight.rank == 2 then
    state.weight = state.weight:reshape(m.nOutputPlane, m.nInputPlane, m.kH, m.kW)
  end
end
layers.SpatialConvolution = layers.SpatialConvolutionMM

--- (Cout, K Cin)
function layers.TemporalConvolution(m, state)
  state.weight = ops.permute(state.weight:reshape(m.outputFrameSize, m.kW, m.inputFrameSize), {1, 3, 2})
end

--- Of the first versions: 1 / sqrt(variance + eps) in place of the variance.
function layers.BatchNormalization(m, state)
  if m.running_std then state.running_var = m.running_std:reciprocal():square() - m.eps end
end
layers.SpatialBatchNormalization = layers.BatchNormalization

-- ---- the walk ----

local function state_of(m)
  local state = {}
  for _, name in ipairs(NAMES) do
    if core.is_tensor(m[name]) and m[name]:numel() > 0 then state[name] = m[name] end
  end
  local layer = layers[m.__typename:match "^c?u?d?nn%.(%w+)$"]
  if layer and next(state) then layer(m, state) end
  return state
end

local function walk(m, path, state)
  for name, t in pairs(state_of(m)) do state[path .. name] = t end
  for i, part in ipairs(type(m.modules) == "table" and m.modules or {}) do
    if type(part) ~= "table" or type(part.__typename) ~= "string" then
      check.raise("load_state: '%smodules' of Torch7's %s: expected modules, got %s", path, m.__typename,
        check.describe(part))
    end
    walk(part, ("%s%d."):format(path, i - 1), state)
  end
end

--- @param m table
function torch7.state(m)
  if type(m) ~= "table" or type(m.__typename) ~= "string" then
    check.fail("load_state", "state", "a module of Torch7, as marea.load_t7 gives it", m)
  end
  local state = {}
  walk(m, "", state)
  return state
end

return torch7
