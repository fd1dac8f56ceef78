-- SPDX-License-Identifier: MIT
--- The networks of scripts/, saved as ONNX: what marea.onnx.load and ONNX Runtime make of the files.
local marea = require "marea"
local folder = require "spec.support.folder"
local round_trip = require "spec.support.onnx_round_trip"

local nn = marea.nn
local NEAR <const> = 1e-5

local function numbers(most, ...) return marea.randint({...}, 1, most) end
local function i64(...) return marea.tensor({...}, {dtype = "i64"}) end
local function script(name) return dofile("scripts/" .. name .. ".lua") end

describe("a script's network saved as ONNX", function()
  local path
  setup(function()
    path = folder.new()
    marea.seed(3)
  end)
  teardown(function() folder.remove(path) end)

  --- `exact`: the operators come back as they were, and with them every bit.
  local function check(name, net, inputs, options, exact)
    local expected, results = round_trip.run(net, path .. "/" .. name, inputs, options)
    assert.is_truthy(expected, results)
    assert.is_true(type(results) == "table", results)
    for i, t in ipairs(expected) do
      local difference, why = round_trip.difference(results[i], t)
      assert.is_true(difference <= (exact and 0 or NEAR), ("%s: %d: %s %s"):format(name, i, difference, why or ""))
    end
  end

  local function image(n) return {{"image", marea.uniform{n, 28, 28, 1}}} end
  local function of_images(options)
    options = options or {}
    options.free, options.also = {image = {1}}, image(5)
    return options
  end

  it("classifier", function() check("classifier", script "classifier_model"(), image(2), of_images(), true) end)

  it("vae", function()
    for _, kind in ipairs{"conv", "deep", "mlp"} do
      local model = script "vae_model"{model = kind, posterior = "normal", latent = 4}
      check("encoder-" .. kind, function(x) return model.mean(model.encoder(x)) end, image(2),
        of_images{weights = model}, true)
      check("decoder-" .. kind, model.decoder, {{"z", marea.normal{2, 4}}},
        {free = {z = {1}}, also = {{"z", marea.normal{3, 4}}}}, true)
    end
  end)

  it("gan", function()
    local networks = script "gan_model"
    check("generator", networks.generator(16), {{"noise", marea.normal{3, 16}}}, {free = {noise = {1}}})
    check("discriminator", networks.discriminator{}, image(2), of_images(), true)
  end)

  it("count, of images of any size", function()
    local net = script "count_model"(8, 1)
    net(marea.uniform{2, 16, 16, 1}) -- running statistics
    for _, t in net:named_parameters() do marea.no_grad(function() t:copy_(marea.normal(t.shape, 0, 0.2)) end) end
    check("count", net, {{"image", marea.uniform{2, 16, 16, 1}}},
      {free = {image = {1, 2, 3}}, also = {{"image", marea.uniform{1, 32, 24, 1}}}})
  end)

  it("gpt", function()
    for _, kind in ipairs{"transformer", "lstm", "gru"} do
      for _, tie in ipairs{true, false} do
        local net = script "gpt_model"{model = kind, context = 32, vocabulary = 50, width = 32, heads = 4, layers = 2,
          dropout = 0.1, tie = tie}
        check(("gpt-%s-%s"):format(kind, tie), net, {{"words", numbers(50, 2, 12)}},
          {free = {words = {1, 2}}, also = {{"words", numbers(50, 3, 9)}}}, kind ~= "transformer" and not tie)
      end
    end
  end)

  it("pronounce", function()
    local phonemes = setmetatable({begin = 1, stop = 2}, {__len = function() return 20 end})
    check("pronounce", script "pronounce_model"{phonemes = phonemes, letters = 30, size = 16, dropout = 0.1},
      {{"letters", numbers(30, 2, 7)}, {"lengths", i64(7, 4)}, {"phonemes", numbers(20, 2, 5)}},
      {results = {"logits", "weights"}})
  end)

  it("qa", function()
    local networks = script "qa_model"
    local o = {spread = 0.1, begin = 1, stop = 2, length = 7, inputs = 30, outputs = 20, embedding = 8, hidden = 8,
      dropout = 0.1}
    check("bahdanau", networks.bahdanau(o),
      {{"input", numbers(30, 2, 7)}, {"lengths", i64(7, 4)}, {"output", numbers(20, 2, 5)}})
    check("notebook", networks.notebook(o), {{"input", numbers(30, 2, 7)}})
  end)

  it("qa_reader", function()
    local net = script "qa_reader_model"{unknown = 1, size = 8, words = 40, letters = 20, shapes = 4, dropout = 0.1}
    local inputs = {
      {"word", numbers(40, 20)}, {"letters", numbers(20, 20, 8)}, {"shape", marea.uniform{20, 4}},
      {"p", numbers(20, 2, 6)}, {"q", numbers(20, 3, 4)}, {"row", i64(1, 1, 2)}, {"p_lengths", i64(6, 4)},
      {"q_lengths", i64(4, 3, 2)}, {"lower", numbers(9, 20)}, {"stem", numbers(5, 20)}, {"prefix", numbers(5, 20)}}
    check("reader", function(...)
      local batch = {}
      for i, input in ipairs(inputs) do batch[input[1]] = select(i, ...) end
      return net(batch)
    end, inputs, {weights = net, results = {"start", "stop"}})
  end)

  it("series", function()
    check("series", nn.Sequential{nn.Conv1d{1, 8, kernel = 9, stride = 2, padding = "same", bias = false},
      nn.BatchNorm{8, activation = "relu"}, nn.AdaptiveAvgPool1d{4}, nn.Flatten{}, nn.Linear{32, 5}},
    {{"x", marea.normal{2, 50, 1}}}, {free = {x = {1}}})
  end)

  local name = "all of them, in ONNX Runtime"
  if round_trip.runtime then
    it(name, function() assert.is_true(round_trip.in_runtime(NEAR, path) >= 30) end)
  else
    pending(name .. " (ONNX Runtime is missing)")
  end
end)
