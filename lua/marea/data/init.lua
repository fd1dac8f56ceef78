-- SPDX-License-Identifier: MIT
--- marea.data: datasets, passes over them in batches, and the progress line around a pass.
local check = require "marea.internal.check"
local texts = require "marea.data.texts"

return check.strict({
  Dataset = require "marea.data.dataset",
  corpus = texts.corpus,
  folder = require "marea.data.folder",
  mnist = require "marea.data.mnist",
  scan = texts.scan,
  squad = texts.squad,
  progress = require "marea.progress",
  synthetic = require "marea.data.synthetic",
}, "data")
