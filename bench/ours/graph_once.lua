-- SPDX-License-Identifier: MIT
-- graph_once.lua MODEL INPUTS: a process that loads a network of ONNX and runs it once, with a batch of 1.
package.path = arg[0]:match "^.*/" .. "../?.lua;" .. package.path
local marea = require "marea"
local ports = require "lib.ports"

marea.no_grad(assert(marea.onnx.load(arg[1])):evaluate(), ports.make(arg[2], 1, ports.random))
