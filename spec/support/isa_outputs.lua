-- SPDX-License-Identifier: MIT
-- Runs in a process of its own, started by ops_spec with MAREA_ISA set: saves the f32 results of all operators on
-- the cases of their samples, so that instruction sets can be compared.
--
--   MAREA_ISA=avx2 lua5.4 spec/support/isa_outputs.lua <file>
local core = require "marea.core"
local sample = require "spec.support.sample"

local CASES = 14

local results = {}
for _, name in ipairs(core.op_names()) do
  local info = core.op_info(name)
  for seed = 1, CASES do
    core.seed(seed)
    core.scope(function()
      local g = sample.generator(seed, {dtype = "f32", large = seed > CASES - 4 and 700})
      local ok, inputs, attrs = pcall(sample.draw, info, g)
      if not ok then return end -- a sample that has no large form
      local called, list = pcall(sample.call, info, inputs, attrs)
      if not called then return end
      if info.mutates then list = inputs end
      for i, t in pairs(list) do
        results[("%s/%d/%s"):format(name, seed, i)] = t:detach():contiguous():keep()
      end
    end)
  end
end
assert(core.save(arg[1], results, {isa = core.info().isa}))
