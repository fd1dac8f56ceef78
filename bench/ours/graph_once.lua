-- SPDX-License-Identifier: MIT
-- graph_once.lua MODEL SHAPE: a process that loads a network of ONNX and runs it once, with one of inputs (1, SHAPE).
local marea = require "marea"

local shape = {1}
for size in arg[2]:gmatch "%d+" do shape[#shape + 1] = math.tointeger(size) end
marea.no_grad(assert(marea.onnx.load(arg[1])):evaluate(), marea.normal(shape))
