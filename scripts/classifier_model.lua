-- SPDX-License-Identifier: MIT
--- The classifier that scripts/classifier.lua trains, for every script that uses it, as judges of generated digits do:
---
---   local Classifier = dofile "scripts/classifier_model.lua"
---   local model = assert(Classifier.load "out/classifier/classifier.safetensors")
---   local features = model:features(x)                    -- (N, 128)
---   local p = model:probabilities(x)                      -- (N, 10)
local marea = require "marea"
local nn = marea.nn
local shared = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")

local Classifier = nn.class "Classifier"

--- x: images (N, 28, 28, 1) with values from 0 to 1; classes 1 to 10 are the digits 0 to 9.
function Classifier:init()
  self.body = nn.Sequential{
    nn.Conv2d{1, 32, kernel = 3, padding = "same", activation = "relu", name = "conv1"},
    nn.Conv2d{32, 32, kernel = 3, padding = "same", activation = "relu", name = "conv2"},
    nn.MaxPool2d{2},
    nn.Conv2d{32, 64, kernel = 3, padding = "same", activation = "relu", name = "conv3"},
    nn.Conv2d{64, 64, kernel = 3, padding = "same", activation = "relu", name = "conv4"},
    nn.MaxPool2d{2},
    nn.Dropout{0.25},
    nn.Flatten{},
    nn.Linear{7 * 7 * 64, 128, activation = "relu", name = "dense"},
  }
  self.dropout = nn.Dropout{0.5}
  self.output = nn.Linear{128, 10}
end

--- The layer before the last, (N, 128), not negative.
function Classifier:features(x) return self.body(x) end

--- Logits (N, 10) from features.
function Classifier:classify(features) return self.output(self.dropout(features)) end

function Classifier:forward(x) return self:classify(self:features(x)) end

--- Probabilities (N, 10).
function Classifier:probabilities(x) return self(x):softmax() end

--- A trained classifier, ready for use: in evaluation mode, frozen.
---@return table|nil model, string|nil message
function Classifier.load(path)
  local model = Classifier()
  local ok, message = shared.load(path, {model = model, random = false})
  if not ok then return nil, message end
  model:evaluate()
  model:freeze()
  return model
end

return Classifier
