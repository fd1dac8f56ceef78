-- SPDX-License-Identifier: MIT
--- The pictures of scripts/classifier.lua: training curve, confusion matrix, and the test images that are taken for
--- another class.
local marea = require "marea"
local judge, plot = marea.judge, marea.plot
local shared = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")

local MOST = 80 -- misclassified images in the picture

--- Curves of what is misclassified, on the changed training images and on the test images.
local function training_curve(log)
  local function errors(column)
    local percent = log:column(column)
    for i, accuracy in ipairs(percent) do percent[i] = 100 - accuracy end
    return percent
  end
  local epochs = log:column "epoch"
  return plot.curves{
    {x = epochs, y = errors "accuracy", title = "training, dropout on"},
    {x = epochs, y = errors "test_accuracy", title = "test"},
    title = "Digits misclassified", xlabel = "epoch", ylabel = "share of the images (%)", logy = true,
  }
end

--- counts[i][j]: images of class i that are taken for class j.
local function confusion(labels, predicted)
  return marea.one_hot(labels, 10):matmul(marea.one_hot(predicted, 10), {transpose_a = true})
end

--- What is taken for something else, surest mistakes first: captions tell true -> predicted class and its probability.
local function mistakes(images, labels, predicted, probabilities)
  local wrong, sure = labels:ne(predicted):totable(), probabilities:max{dims = {2}}:totable()
  local index, captions = {}, {}
  for i, flag in ipairs(wrong) do
    if flag == 1 then index[#index + 1] = i end
  end
  if #index == 0 then return nil end
  table.sort(index, function(a, b) return sure[a] > sure[b] or sure[a] == sure[b] and a < b end)
  local shown = table.move(index, 1, math.min(#index, MOST), 1, {})
  for k, i in ipairs(shown) do
    captions[k] = marea.format("%d → %d  %.0f %%", labels[i] - 1, predicted[i] - 1, 100 * sure[i])
  end
  local title = ("%d of %d test images misclassified"):format(#index, #wrong)
  if #index > MOST then title = ("%s, the surest %d"):format(title, MOST) end
  return plot.images{images:index_select(marea.tensor(shown, {dtype = "i64"}), {dim = 1}), captions = captions,
    columns = 10, title = title .. ": true → predicted class, and its probability"}
end

--- Writes all pictures to options.out. Without gnuplot their scripts are left there, and it says so.
return function(model, dataset, log, options)
  model:evaluate()
  local save = shared.saver(options.out)
  marea.scope(function()
    local images, labels = dataset:field "image":cast "f32" / 255, dataset:field "label"
    local _, probabilities = judge.see(model, images)
    local predicted, digits = probabilities:argmax(2), {}
    for class = 1, 10 do digits[class] = tostring(class - 1) end
    local right = labels:eq(predicted):to "f32":mean():item()
    save("training_curve", training_curve(log))
    save("confusion", plot.matrix{confusion(labels, predicted), labels = digits, xlabel = "predicted", ylabel = "true",
      title = marea.format("%d test images, %.2f %% correct", #labels, 100 * right)})
    local wrong = mistakes(images, labels, predicted, probabilities)
    if wrong then save("mistakes", wrong) end
  end)
  model:train()
  print("Pictures, metrics.csv and classifier.safetensors are in " .. options.out)
end
