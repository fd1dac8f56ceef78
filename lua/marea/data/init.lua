-- SPDX-License-Identifier: MIT
--- marea.data: datasets, passes over them in batches, and the progress line around a pass.
local check = require "marea.internal.check"

return check.strict({
  Dataset = require "marea.data.dataset",
  mnist = require "marea.data.mnist",
  progress = require "marea.progress",
  synthetic = require "marea.data.synthetic",
}, "data")
