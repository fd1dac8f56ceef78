-- SPDX-License-Identifier: MIT
-- Files of Keras 3 and 2 (spec/golden/make_keras.py): networks, weights, and what is refused.
local marea = require "marea"
local folder = require "spec.support.folder"
local allclose = require "spec.support.allclose"
local nn = marea.nn

local place = folder.new()
local members = assert(marea.load_zip "spec/golden/keras.zip")

teardown(function()
  folder.remove()
  for _, bytes in pairs(members) do bytes:release() end -- other tests look at the memory
end)

local function file(name) return folder.write(place .. "/" .. name, members[name]:to_bytes()) end

local function data_of(name) return assert(marea.load_npz(file(name .. ".npz"))) end

local function inputs_of(data)
  local list = {}
  while data["x" .. #list + 1] do list[#list + 1] = data["x" .. #list + 1] end
  return list
end

describe("a file of Keras", function()
  if not pcall(require, "marea.hdf5") then
    return pending "is not read: libhdf5-dev was missing when this was built"
  end

  local count = 0
  for _, name in ipairs{"mlp", "cnn", "unet", "text", "series", "attention", "nested", "norms", "padded", "masked",
    "translator", "frames", "steps", "shapes", "backbone"} do
    for _, version in ipairs{"", "_2"} do
      for _, kind in ipairs{".keras", ".h5"} do
        local whole = name .. version .. kind
        if members[whole] then
          count = count + 1
          it("gives a network that computes what Keras does: " .. whole, function()
            local data = data_of(name .. version)
            local net = assert(marea.keras.load(file(whole)))
            local results = {marea.no_grad(net, table.unpack(inputs_of(data)))}
            assert.is_not_nil(results[1])
            assert.is_nil(data["y" .. #results + 1])
            for i, y in ipairs(results) do
              allclose.assert(y, data["y" .. i], {atol = 1e-5, rtol = 1e-5})
              assert.are.same(data["y" .. i].shape, y.shape)
            end
          end)
        end
      end
    end
  end

  it("is tested in all forms", function() assert.are.equal(58, count) end)

  it("gives a module: by name, printed, counted, trained, saved as ONNX", function()
    local net = assert(marea.keras.load(file "cnn.keras"))
    local data = data_of "cnn"
    assert.are.same({{name = "input_layer", shape = {-1, 13, 12, 3}}}, net:inputs())
    allclose.assert(net{input_layer = data.x1}, data.y1, {atol = 1e-5})
    assert.are.equal(633, (net:count()))
    local line = "conv2d: Conv2d(3 -> 4, kernel 3x3, stride 2x2, padding same, no bias)"
    assert.is_truthy(tostring(net):find(line, 1, true))
    assert.are.equal(17280, net:summary{13, 12, 3}.flops)
    local onnx = place .. "/cnn.onnx"
    assert(marea.onnx.save(net, onnx, {x = data.x1}))
    allclose.assert(assert(marea.onnx.load(onnx))(data.x1), data.y1, {atol = 1e-5})
    net:train()
    local optimizer = marea.optim.SGD(net:parameters(), {lr = 0.1})
    local function loss() return (net(data.x1) - 1):square():mean() end
    local before = loss():item()
    for _ = 1, 5 do
      optimizer:zero_grad()
      loss():backward()
      optimizer:step()
    end
    assert.is_true(loss():item() < before)
  end)

  it("gives weights by name, which a network of one's own takes", function()
    local weights = assert(marea.keras.weights(file "mlp_2.h5"))
    assert.are.same({5, 8}, {weights["dense/kernel"]:size()})
    assert.are.same({5, 8}, {assert(marea.keras.weights(file "mlp.weights.h5"))["dense/0"]:size()})
    local elu = function(x) return x:elu() end
    for _, kind in ipairs{"mlp.keras", "mlp.h5", "mlp.weights.h5", "mlp_2.h5"} do
      local net = nn.Sequential{nn.Linear{5, 8, activation = "relu"}, nn.Linear{8, 6, bias = false, activation = elu},
        nn.LeakyReLU{0.3}, nn.Linear{6, 4, activation = "tanh"}, nn.Linear{4, 3, activation = "softmax"}}
      assert(net:load_keras(file(kind), {dense = 1, dense_1 = 2, dense_2 = 4, dense_3 = 5}))
      local data = data_of(kind:match "^[^.]*")
      allclose.assert(net(data.x1), data.y1, {atol = 1e-5})
    end
    local Text = nn.class "Text"
    function Text:init()
      self.embedding, self.time_distributed, self.dense_1 = nn.Embedding{11, 5}, nn.Linear{3, 4}, nn.Linear{3, 2}
      self.bidirectional, self.bidirectional_1 = nn.LSTM{5, 4, bidirectional = true}, nn.GRU{8, 3, bidirectional = true}
      self.gru_1 = nn.GRU{4, 3, reset_after = false}
    end
    local net, weights_there = Text(), assert(marea.keras.weights(file "text.h5"))
    assert(net:load_state(assert(marea.keras.weights(file "text.weights.h5")), {from = "keras"}))
    allclose.assert(net.dense_1.weight, weights_there["dense_1/kernel"])
    allclose.assert(net.bidirectional.weights[1].reverse.w_h,
      weights_there["bidirectional/backward_lstm/lstm_cell/recurrent_kernel"])
  end)

  it("is refused with all that is not supported, by layer", function()
    local net, message = marea.keras.load(file "refused.keras")
    assert.is_nil(net)
    local _, more = marea.keras.load(file "refused2.keras")
    for _, why in ipairs{"GlobalAveragePooling2D, data_format = channels_first ('mean')",
      "GlobalMaxPooling1D, data_format = channels_first ('max')", "ZeroPadding2D, data_format = channels_first ('pad')",
      "Cropping2D, data_format = channels_first ('crop')", "Flatten, data_format = channels_first ('flat')",
      "SpatialDropout2D, data_format = channels_first ('drop')", "Bidirectional, merge_mode = None ('apart')",
      "Bidirectional, backward_layer with activation = relu ('unlike')",
      "Bidirectional, backward_layer of class GRU ('other')"} do
      assert.is_truthy(more:find(why, 1, true), more)
    end
    _, more = marea.keras.load(file "refused_2.h5")
    assert.is_truthy(more:find("training = true in a call ('random')", 1, true), more)
    assert.are.equal(("keras.load: '%s/refused.keras': it needs what is not supported: "
      .. "Conv2D, data_format = channels_first ('first'), Lambda ('code'), LSTM, activation = relu ('inner.relu_lstm')")
      :format(place), message)
  end)

  local function refused(path, why)
    local net, message = marea.keras.load(path)
    assert.is_nil(net)
    assert.is_truthy(message:find(why, 1, true), message)
  end

  it("that is none is refused with the reason", function()
    refused(place .. "/none.keras", "keras.load: " .. place .. "/none.keras: No such file")
    refused(file "mlp.npz", "a ZIP archive without config.json, so it is not Keras'")
    refused(folder.write(place .. "/text.h5", "text"), "not an HDF5 file, or a damaged one")
    refused(file "mlp.weights.h5", "it has weights and no network (marea.keras.weights reads them)")
    assert.is_table(marea.keras.weights(file "mlp.weights.h5"))
    assert.is_nil((marea.keras.weights(place .. "/none.keras")))
    assert.is_nil((nn.Linear{1, 1}:load_keras(place .. "/none.keras")))
  end)

  it("tells inputs that do not fit", function()
    local net = assert(marea.keras.load(file "nested.keras"))
    local ok, message = pcall(net, marea.zeros{2, 4})
    assert.is_false(ok)
    assert.is_truthy(message:find("Model: expected left (any, 4), right (any, 4), got 1 arguments", 1, true), message)
    ok, message = pcall(net, marea.zeros{2, 4}, marea.zeros{2, 5})
    assert.is_false(ok)
    assert.is_truthy(message:find("Model: expected right (any, 4), got tensor f32 (2, 5)", 1, true), message)
  end)

  it("that is damaged, also in its configuration, gives a message and never an error", function()
    local random = 1
    local function draw(n)
      random = random * 6364136223846793005 + 1442695040888963407
      return (random >> 33) % n + 1
    end
    local outcomes = {}
    local function try(bytes)
      local net, message = marea.keras.load(folder.write(place .. "/damaged.h5", bytes))
      local outcome = net and "read" or "refused"
      outcomes[outcome] = (outcomes[outcome] or 0) + 1
      assert.is_truthy(net or message:find("^keras%.load: '"), message)
    end
    for _, name in ipairs{"mlp.h5", "nested_2.h5", "text.h5", "series.h5"} do
      local whole = members[name]:to_bytes()
      local from, to = whole:find('{"class_name": ".*}')
      for _ = 1, 60 do
        local at = from + draw(to - from) - 1
        local put = ('0919"{}[]:,-nafk'):sub(draw(16))
        try(whole:sub(1, at - 1) .. put:sub(1, 1) .. whole:sub(at + 1))
        try(whole:sub(1, at - 1) .. whole:sub(at + 1, at + 2) .. whole:sub(at + 2))
      end
      for _ = 1, 10 do try(whole:sub(1, draw(#whole))) end
    end
    assert.is_true(outcomes.read > 20 and outcomes.refused > 100, ("%d, %d"):format(outcomes.read, outcomes.refused))
  end)
end)
