-- SPDX-License-Identifier: MIT
-- A chain of so many nodes, forward and backward, once: for a look at the memory.
--
--   build/marea bench/ours/graph.lua NODES
local marea = require "marea"
package.path = (arg[0]:match "^.*/" or "") .. "../?.lua;" .. package.path
marea.set_threads(1)
require "ours.chain"{nodes = math.tointeger(arg[1]), scope = 1}()
