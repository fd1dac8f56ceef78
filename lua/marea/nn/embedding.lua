-- SPDX-License-Identifier: MIT
--- A table with a row for each word, letter or class.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local init = require "marea.nn.initializers"
local touched = require "marea.internal.touched"
local embedding = core.ops.embedding

---@class Embedding  nn.Embedding{10000, 64, padding = 1}: numbers (...) -> their rows of weight (10000, 64), (..., 64)
---@example nn.Embedding{5, 2}(marea.tensor({{1, 5}, {5, 5}}, {dtype = "i64"}))
local Embedding = module.class("Embedding")

--- {vocabulary, size}: rows and columns of weight; padding: the number of a row that begins as 0 and gets no gradient
--- (PyTorch's padding_idx); init = "uniform", Keras' U(-0.05, 0.05) (PyTorch's is nn.init.normal(0, 1)), dtype = "f32",
--- name. sparse: in training, gradients and the steps of marea.optim touch only the rows that were read, so that they
--- cost what the batch does and not the vocabulary. Rows that were not read keep their values and what the optimizer
--- remembers of them; momentum and weight decay act when a row is read (PyTorch's SparseAdam, which has no decay, and
--- TensorFlow's LazyAdam; Adam's step counts all steps). Plain SGD does the same as without. weight.grad stays nil and
--- marea.grad finds no gradient to weight; optimizer:zero_grad() drops those of the rows. A weight that has a gradient
--- of its own too, as one tied to an output layer, is updated as a whole. Outside of training, lookups are as without
--- sparse.
function Embedding:init(options)
  options = check.options("Embedding", options, {"padding", "init", "dtype", "name", "sparse"}, 2)
  self.name = options.name
  self.vocabulary = check.integer("Embedding", "vocabulary", options[1], 1)
  self.size = check.integer("Embedding", "size", options[2], 1)
  if options.padding ~= nil then
    self.padding = check.integer("Embedding", "padding", options.padding, 1)
    if self.padding > self.vocabulary then
      check.fail("Embedding", "padding", ("a row from 1 to %d"):format(self.vocabulary), self.padding)
    end
  end
  self.sparse = check.boolean("Embedding", "sparse", options.sparse, false)
  local make = init.find("Embedding", "init", options.init or "uniform")
  self.weight = core.no_grad(function()
    local weight = make(core.shape{self.vocabulary, self.size}, self.vocabulary, self.size, options.dtype or "f32")
    if self.padding then weight[self.padding] = 0 end
    return module.parameter(weight)
  end)
end

function Embedding:forward(index)
  if self.sparse and self.training and core.recording() and self.weight.requires_grad then
    return touched.lookup(self.weight, index, self.padding)
  end
  return embedding(self.weight, index, self.padding)
end

function Embedding:flops() return 0 end -- luacheck: no unused args

function Embedding:describe()
  local padding = self.padding and (", padding %d"):format(self.padding) or ""
  return ("%d -> %d%s%s"):format(self.vocabulary, self.size, padding, self.sparse and ", sparse" or "")
end

return {Embedding = Embedding}
