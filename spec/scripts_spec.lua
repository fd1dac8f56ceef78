-- SPDX-License-Identifier: MIT
-- The scripts as a user runs them.
local marea = require "marea"
local folder = require "spec.support.folder"

local vae = "scripts/vae.lua --smoke --out "

teardown(folder.remove)

-- The architecture: output shape and parameters of each layer.
local layers = {
  {"encoder.conv1", "28, 28, 32", "320"}, {"encoder.conv2", "28, 28, 32", "9,248"},
  {"encoder.conv3", "14, 14, 64", "18,496"}, {"encoder.4", "12544", "0"}, {"encoder.dense", "128", "1,605,760"},
  {"mean", "2", "258"}, {"logvar", "2", "258"}, {"decoder.dense1", "128", "384"},
  {"decoder.dense2", "12544", "1,618,176"}, {"decoder.3", "14, 14, 64", "0"}, {"decoder.up1", "28, 28, 32", "18,464"},
  {"decoder.up2", "28, 28, 32", "9,248"}, {"decoder.up3", "28, 28, 1", "289"},
}

-- The same for --model deep.
local deep_layers = {
  {"encoder.conv1", "28, 28, 32", "320"}, {"encoder.2", "28, 28, 32", "0"}, {"encoder.conv2", "28, 28, 32", "9,248"},
  {"encoder.4", "28, 28, 32", "0"}, {"encoder.conv3", "28, 28, 32", "9,248"}, {"encoder.6", "28, 28, 32", "0"},
  {"encoder.conv4", "28, 28, 32", "9,248"}, {"encoder.8", "28, 28, 32", "0"},
  {"encoder.conv5", "14, 14, 64", "18,496"}, {"encoder.dense", "128", "1,605,760"}, {"mean", "2", "258"},
  {"logvar", "2", "258"}, {"decoder.dense1", "128", "384"}, {"decoder.dense2", "12544", "1,618,176"},
  {"decoder.up1", "28, 28, 32", "18,464"}, {"decoder.up2", "28, 28, 32", "9,248"},
  {"decoder.up3", "28, 28, 32", "9,248"}, {"decoder.up4", "28, 28, 32", "9,248"}, {"decoder.up5", "28, 28, 1", "289"},
}

local function assert_layers(text, rows)
  for _, row in ipairs(rows) do
    local name, shape, parameters = table.unpack(row)
    assert.is_truthy(text:find(("%s %%(%%w+%%) +%%(N, %s%%) +%s%%s"):format(name, shape, parameters)), name)
  end
end

describe("vae.lua", function()
  local out = folder.new()
  local whole, resumed = out .. "/whole", out .. "/resumed"

  it("trains, and leaves pictures, metrics and weights", function()
    local text, code = folder.lua(vae .. whole)
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find("Total params: 3,280,901", 1, true))
    assert_layers(text, layers)
    assert.is_truthy(text:find "epoch 2/2  step 4/4  loss [%d.]+  reconstruction [%d.]+  KL [%d.]+  %d+ images/s")
    local rows = assert(marea.metrics.read(whole .. "/metrics.csv"))
    assert.are.equal(2, #rows)
    assert.is_true(rows[2].loss < rows[1].loss and rows[2].test_loss < rows[1].test_loss)
    assert.is_true(rows[2].test_loss < 300)
    for _, name in ipairs{"training_curve", "reconstructions", "samples", "latent", "histograms", "manifold",
      "manifold_tails"} do
      local png = assert(marea.load_png(("%s/%s.png"):format(whole, name)))
      assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
    end
  end)

  it("has z1 to the right and z2 upwards in its manifolds, as in the plane of means", function()
    local model = dofile "scripts/vae_model.lua"{latent = 2, model = "conv", posterior = "normal", sampler = "exact"}
    model:build{28, 28, 1}
    assert(marea.checkpoint.load(whole .. "/vae.safetensors", {model = model}))
    local low, high = table.unpack(model:prior():icdf(marea.tensor{5e-6, 1 - 5e-6}):totable())
    local corners = marea.no_grad(model.decode, model:evaluate(), marea.tensor{{low, high}, {high, low}})
    local picture = assert(marea.load_png(whole .. "/manifold_tails.png")):to "f32"
    local function inside(x, row, column) return x:narrow(1, row + 6, 16):narrow(2, column + 6, 16) end
    for i, at in ipairs{{57, 91}, {57 + 29 * 28, 91 + 29 * 28}} do -- top left, bottom right
      local tile = inside(picture, at[1], at[2]) / 255
      local function apart(k)
        return (tile - inside(marea.image.colorize(corners[k], "gnuplot2"), 1, 1)):abs():max():item()
      end
      assert.is_true(apart(i) < 0.02 and apart(3 - i) > 0.1, apart(i))
    end
  end)

  it("stopped and resumed gives the same weights, whatever the threads", function()
    local text, code = folder.lua(vae .. resumed .. " --epochs 1 --threads 1")
    assert.are.equal(0, code, text)
    text, code = folder.lua(vae .. resumed .. " --resume")
    assert.are.equal(0, code, text)
    assert.is_nil(text:find "epoch 1/2")
    assert.are.equal(folder.read(whole .. "/vae.safetensors"), folder.read(resumed .. "/vae.safetensors"))
    local a, b = marea.metrics.read(whole .. "/metrics.csv"), marea.metrics.read(resumed .. "/metrics.csv")
    for i, row in ipairs(a) do
      row.seconds, b[i].seconds = nil, nil
      assert.are.same(row, b[i])
    end
  end)

  it("takes its options", function()
    local text, code = folder.lua(vae .. out .. "/other --latent 5 --reconstruction mse --optimizer adam --lr 2e-3 "
      .. "--epochs 1 --batch 64 --seed 3")
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find("Total params: 3,282,059", 1, true), text)
    assert.is_truthy(text:find "step 8/8")
  end)

  it("has the deep network of the notebook", function()
    local text, code = folder.lua(vae .. out .. "/deep --model deep --epochs 1")
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find("Total params: 3,317,893", 1, true), text)
    assert_layers(text, deep_layers)
    assert.are.equal(4, select(2, text:gsub("%(Dropout%)", "")))
  end)

  it("has other posteriors, and the notebook's sampler", function()
    local cases = {
      {"--posterior laplace --latent 3", 632390}, {"--posterior relaxed_bernoulli --latent 20", 644804},
      {"--posterior gumbel_softmax --latent 4", 660824}, {"--sampler notebook", 631188},
    }
    for i, case in ipairs(cases) do
      local folder_out = ("%s/posterior%d"):format(out, i)
      local text, code = folder.lua(("%s %s --model mlp --optimizer adam %s"):format(vae, folder_out, case[1]))
      assert.are.equal(0, code, text)
      assert.is_truthy(text:gsub(",", ""):find("Total params: " .. case[2], 1, true), text)
      local rows = assert(marea.metrics.read(folder_out .. "/metrics.csv"))
      assert.is_true(rows[2].test_loss < rows[1].test_loss, case[1])
      assert.is_true(rows[2].kl > 0, case[1])
      assert.is_truthy(folder.read(folder_out .. "/samples.png"))
    end
    local text, code = folder.lua(vae .. out .. "/none --sampler notebook --posterior laplace")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("goes with '--posterior normal' only", 1, true), text)
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/vae.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"data", "epochs", "latent", "model", "posterior", "sampler", "batch", "reconstruction",
      "optimizer", "lr", "schedule", "seed", "threads", "out", "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua "scripts/vae.lua --epoch 3"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("Did you mean '--epochs'", 1, true), text)
    text, code = folder.lua("scripts/vae.lua --data /nowhere")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("/nowhere", 1, true))
    text, code = folder.lua(vae .. out .. "/none --resume")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("none/vae.safetensors", 1, true), text)
  end)
end)

describe("results", function()
  local place, program = folder.new(), folder.absolute((os.getenv "MAREA_BUILD" or "build") .. "/marea")
  local scripts = folder.absolute "scripts"

  local function run(script, arguments)
    return folder.run(("cd %s && MAREA_TEXT=/nowhere %s %s/%s.lua --smoke %s"):format(place, program, scripts, script,
      arguments))
  end

  -- Options, the folder of this kind of run, and options that do not go on from the weights there.
  local kinds = {
    {"vae", "--epochs 1 --model mlp", "vae_mlp", "--model mlp --latent 3"},
    {"vae_study", "--epochs 1 --model mlp --runs latent2", "vae_study_mlp"},
    {"iwae", "--epochs 1 --samples 1", "iwae", "--latent 3"},
    {"classifier", "--epochs 1", "classifier"},
    {"count", "--epochs 1 --method direct", "count_direct", "--method density"},
    {"gan", "--steps 1 --loss wgan-gp", "gan_wgan-gp", "--latent 3"},
    {"dates", "--epochs 1", "dates", "--attention notebook"},
    {"pronounce", "--epochs 1 --stress", "pronounce_stress", "--epochs 2"},
    {"series", "--epochs 1", "series"},
    {"series", "--epochs 1 --model gru", "series_gru"},
    {"gpt", "--steps 1 --model lstm", "gpt_lstm", "--model gru"},
    {"qa", "--epochs 1", "qa", "--attention bahdanau"},
    {"qa", "--epochs 1 --attention notebook", "qa"},
    {"qa", "--epochs 1 --data babi --task 2", "qa_babi_2"},
    {"qa_reader", "--epochs 1 --groups 8", "reader", "--size 8"},
  }

  it("of each kind of run are in a folder of their own; with other options there is advice", function()
    for _, kind in ipairs(kinds) do
      local script, arguments, name, other = table.unpack(kind)
      local text, ok = run(script, arguments)
      assert.is_true(ok, text)
      local out = ("out/%s_smoke"):format(name)
      local file = script == "vae_study" and "results.csv" or "metrics.csv"
      assert.is_truthy(folder.read(("%s/%s/%s"):format(place, out, file)), name)
      if other then
        text, ok = run(script, ("--resume --out %s %s"):format(out, other))
        assert.is_false(ok, text)
        assert.is_truthy(text:find("hint: a run with other options has written it", 1, true), text)
        text, ok = run(script, "--resume --out none")
        assert.is_false(ok, text)
        assert.is_truthy(text:find("hint: a training run writes it", 1, true), text)
      end
    end
  end)
end)

describe("vae_study.lua", function()
  local out = folder.new()
  local command = "scripts/vae_study.lua --smoke --model mlp --threads 2 --out " .. out
    .. " --runs latent2 latent5 laplace gumbel_softmax"

  it("trains, estimates log p(x), and leaves tables and pictures; --resume takes what is there", function()
    local text, code = folder.lua(command)
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find "run 4/4  gumbel_softmax done")
    local lines = {}
    for line in folder.read(out .. "/results.csv"):gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.are.equal(5, #lines)
    assert.is_truthy(lines[2]:find "^latent2,mlp,normal,2,1,")
    for i = 2, #lines do
      local numbers = {}
      for cell in lines[i]:gmatch "[^,]+" do numbers[#numbers + 1] = tonumber(cell) end
      local _, _, _, _, elbo, bound1, bound50 = table.unpack(numbers)
      assert.is_true(elbo > 0 and bound50 < bound1 and math.abs(elbo / bound1 - 1) < 0.2, lines[i])
    end
    for _, name in ipairs{"reconstructions", "samples", "bounds"} do
      local png = assert(marea.load_png(("%s/%s.png"):format(out, name)))
      assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
    end
    local results, weights = folder.read(out .. "/results.csv"), folder.read(out .. "/latent5/vae.safetensors")
    os.remove(out .. "/results.csv")
    os.remove(out .. "/latent2/evaluation.csv")
    text, code = folder.lua(command .. " --resume")
    assert.are.equal(0, code, text)
    assert.is_nil(text:find("epoch 1/1", 1, true))
    assert.are.equal(results, folder.read(out .. "/results.csv"))
    assert.are.equal(weights, folder.read(out .. "/latent5/vae.safetensors"))
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/vae_study.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"runs", "images", "samples", "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua "scripts/vae_study.lua --smoke --runs none"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("must be one of 'latent2'", 1, true), text)
    text, code = folder.lua "scripts/vae_study.lua --samples 70"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("a multiple of 50", 1, true), text)
  end)
end)

describe("iwae.lua", function()
  local out = folder.new()

  it("trains on both objectives; --resume of a finished run only estimates again", function()
    for _, objective in ipairs{"elbo", "iwae"} do
      local command = ("scripts/iwae.lua --smoke --samples 3 --objective %s --out %s/%s"):format(objective, out,
        objective)
      local text, code = folder.lua(command)
      assert.are.equal(0, code, text)
      local rows = assert(marea.metrics.read(("%s/%s/metrics.csv"):format(out, objective)))
      assert.is_true(rows[2].test_loss < rows[1].test_loss)
      local one, many = text:match "<= ([%d.]+) nats %(k = 1%).*<= ([%d.]+) nats %(k = 50%)"
      assert.is_true(tonumber(many) < tonumber(one), text)
    end
    local weights = folder.read(out .. "/iwae/iwae.safetensors")
    local text, code = folder.lua("scripts/iwae.lua --smoke --samples 3 --resume --out " .. out .. "/iwae")
    assert.are.equal(0, code, text)
    assert.is_nil(text:find("epoch 2/2", 1, true))
    assert.are.equal(weights, folder.read(out .. "/iwae/iwae.safetensors"))
  end)
end)

describe("count.lua", function()
  local out = folder.new()

  local function run(...)
    local text, code = folder.lua("scripts/count.lua --smoke " .. table.concat({...}, " "))
    assert.are.equal(0, code, text)
    return text
  end

  for _, task in ipairs{"digits", "cells"} do
    for _, method in ipairs{"density", "direct"} do
      it(("counts %s by %s, and leaves pictures, metrics and weights"):format(task, method), function()
        local at = ("%s/%s_%s"):format(out, task, method)
        local text = run("--task", task, "--method", method, "--out", at)
        assert.is_truthy(text:find "epoch 3/3  step (%d)/%1  loss [%d.]+")
        assert.is_truthy(text:find "epoch 3/3  validation MAE [%d.]+  RMSE [%d.]+  exact [%d.]+ %%  left 0:00")
        assert.is_truthy(text:find(method .. " +test MAE [%d.]+"))
        assert.is_truthy(text:find "constant  test MAE [%d.]+")
        local rows = assert(marea.metrics.read(at .. "/metrics.csv"))
        assert.are.equal(3, #rows)
        if method == "density" then assert.is_true(rows[2].loss < rows[1].loss) end
        assert.is_true(rows[3].mae <= rows[3].rmse and rows[3].rmse < 1000)
        for _, name in ipairs{"training_curve", "scatter", "examples"} do
          local png = assert(marea.load_png(("%s/%s.png"):format(at, name)))
          assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
        end
      end)
    end
  end

  it("shows images from the fewest objects to the most", function()
    local spread = dofile "scripts/count_report.lua".spread
    assert.are.same({3, 1, 4, 2}, spread({20, 50, 0, 30}, 4))
    assert.are.same({3, 4, 2}, spread({20, 50, 0, 30, 31}, 3))
    assert.are.same({2, 1}, spread({7, 5, 5}, 2))
    assert.are.same({1}, spread({4}, 1))
  end)

  for _, method in ipairs{"density", "direct"} do
    it(("killed and resumed, %s ends with the same bits, whatever the threads"):format(method), function()
      local whole, at = out .. "/cells_" .. method, out .. "/killed_" .. method
      local arguments = ("scripts/count.lua --smoke --task cells --method %s --out %s"):format(method, at)
      folder.lua_killed(arguments .. " --threads 1", at .. "/count.safetensors")
      local text = run("--task cells --resume --method", method, "--out", at)
      assert.is_nil(text:find "epoch 1/3")
      assert.is_truthy(text:find "epoch 2/3", "was killed before the second epoch ended")
      assert.are.equal(folder.read(whole .. "/count.safetensors"), folder.read(at .. "/count.safetensors"))
      local a, b = marea.metrics.read(whole .. "/metrics.csv"), marea.metrics.read(at .. "/metrics.csv")
      for i, row in ipairs(a) do
        row.seconds, b[i].seconds = nil, nil
        assert.are.same(row, b[i])
      end
    end)
  end

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/count.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"task", "method", "data", "epochs", "images", "batch", "lr", "seed", "threads", "out",
      "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua "scripts/count.lua --task cats"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("must be one of .digits., .cells."), text)
    text, code = folder.lua "scripts/count.lua --data /nowhere"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("/nowhere", 1, true), text)
    text, code = folder.lua("scripts/count.lua --resume --smoke --out " .. out .. "/none")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("none/count.safetensors", 1, true), text)
  end)
end)

describe("dates.lua", function()
  local out = folder.new()
  local command = "scripts/dates.lua --smoke --out " .. out

  for _, attention in ipairs{"bahdanau", "notebook"} do
    it(("learns with %s attention; killed and resumed ends with the same bits"):format(attention), function()
      local whole, killed = ("%s/%s"):format(out, attention), ("%s/killed_%s"):format(out, attention)
      local arguments = ("scripts/dates.lua --smoke --attention %s --out "):format(attention)
      local text, code = folder.lua(arguments .. whole)
      assert.are.equal(0, code, text)
      assert.is_truthy(text:find "epoch 2/2  step (%d+)/%1  loss [%d.]+")
      assert.is_truthy(text:find "of 100 test dates are exactly right: [%d.]+ %%")
      local a = assert(marea.metrics.read(whole .. "/metrics.csv"))
      assert.is_true(#a == 2 and a[2].loss < a[1].loss and a[1].loss < 4)
      for _, name in ipairs{"training_curve", "attention1", "attention2", "attention3"} do
        local png = assert(marea.load_png(("%s/%s.png"):format(whole, name)))
        assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
      end
      folder.lua_killed(arguments .. killed .. " --threads 1", killed .. "/dates.safetensors")
      text, code = folder.lua(arguments .. killed .. " --resume")
      assert.are.equal(0, code, text)
      assert.are.equal(folder.read(whole .. "/dates.safetensors"), folder.read(killed .. "/dates.safetensors"))
    end)
  end

  it("draws the same dates for the same seed, no day in two parts", function()
    local dates = dofile "scripts/dates_data.lua"
    local free, iso = dates.draw(3000, 7, "training")
    assert.are.same({free, iso}, {dates.draw(3000, 7, "training")})
    assert.are_not.same(free, (dates.draw(3000, 8, "training")))
    local test_free, test_iso = dates.draw(2000, 0, "test")
    local _, validation_iso = dates.draw(2000, 1, "validation")
    local part = {}
    for name, days in pairs{test = test_iso, validation = validation_iso, training = iso} do
      for _, day in ipairs(days) do
        assert.is_true(part[day] == nil or part[day] == name, day)
        part[day] = name
      end
    end
    for _, line in ipairs(test_free) do
      for c in line:gmatch "." do assert.is_truthy(dates.CHARACTERS:find(c, 1, true), line) end
    end
  end)

  it("draws texts that name the day, with the right weekday", function()
    local free, iso = dofile "scripts/dates_data.lua".draw(5000, 3, "training")
    local weekdays, seen = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, 0
    for i, line in ipairs(free) do
      local year, month, day = iso[i]:match "^(%d%d%d%d)%-(%d%d)%-(%d%d)$"
      year, month, day = math.tointeger(year), math.tointeger(month), math.tointeger(day)
      local numbers = {}
      for n in line:gmatch "%d+" do numbers[math.tointeger(n)] = true end
      assert.is_true(numbers[day] and (numbers[year] or numbers[year % 100]), line)
      if line:find "%d[%a]*[/.-]%d" and not numbers[year] then assert.is_true(day > 12, line) end
      for k, name in ipairs(weekdays) do
        if line:lower():find("^" .. name) then -- Zeller's congruence
          local m, y = month < 3 and month + 12 or month, month < 3 and year - 1 or year
          local h = (day + 13 * (m + 1) // 5 + y + y // 4 - y // 100 + y // 400) % 7 -- 0 is Saturday
          assert.are.equal(k, (h + 6) % 7 + 1, line)
          seen = seen + 1
        end
      end
    end
    assert.is_true(seen > 500)
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/dates.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"attention", "epochs", "dates", "batch", "lr", "seed", "threads", "out", "resume",
      "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua "scripts/dates.lua --attention none"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("must be one of .bahdanau., .notebook."), text)
    text, code = folder.lua(command .. "/none --resume")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("none/dates.safetensors", 1, true), text)
  end)
end)

describe("pronounce.lua", function()
  local out = folder.new()
  local run = "scripts/pronounce.lua --smoke --out "
  local lexicon = dofile "scripts/pronounce_data.lua"
  local debian = io.open(lexicon.DICTIONARY)
  if debian then debian:close() end

  it("learns a made up language; killed and resumed ends with the same bits", function()
    local whole, killed = out .. "/whole", out .. "/killed"
    local text, code = folder.lua(run .. whole)
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find("212 words for training, 4 for validation, 24 held out", 1, true), text)
    assert.is_truthy(text:find "24 words held out: [%d.]+ %% of the phonemes are wrong, [%d.]+ %% of the words")
    local rows = assert(marea.metrics.read(whole .. "/metrics.csv"))
    assert.is_true(#rows == 3 and rows[3].loss < rows[1].loss - 0.5)
    for _, name in ipairs{"training_curve", "attention1", "attention2"} do
      local png = assert(marea.load_png(("%s/%s.png"):format(whole, name)))
      assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
    end
    folder.lua_killed(run .. killed .. " --threads 1", killed .. "/pronounce.safetensors")
    text, code = folder.lua(run .. killed .. " --resume")
    assert.are.equal(0, code, text)
    assert.are.equal(folder.read(whole .. "/pronounce.safetensors"), folder.read(killed .. "/pronounce.safetensors"))
  end)

  it("says words by the weights that are there, without the dictionary", function()
    local text, code = folder.lua(run .. out .. "/whole --say Sheena --beam 3 --dictionary /nowhere")
    assert.are.equal(0, code, text)
    local last, n = 101, 0
    for percent in text:gmatch " *([%d.]+) %%  %l+ [%l ]+\n" do
      percent, n = tonumber(percent), n + 1
      assert.is_true(percent <= last, text)
      last = percent
    end
    assert.are.equal(3, n, text)
    text, code = folder.lua(run .. out .. "/whole --say x-ray")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("expected a word of the letters a to z, got 'x-ray'", 1, true), text)
  end)

  it("tells the stress, too", function()
    local text, code = folder.lua(run .. out .. "/stress --stress --epochs 1")
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find "wrong: %l+ .* not [%l ]+1 %l+ %l+0\n", text)
  end)

  local entries = [[
MNCL
("a" dt (((ax) 0)))
("a" n (((ey) 1)))
("abacus" nil (((ae) 1) ((b ax) 0) ((k ax s) 0)))
("abacus" v (((ae) 1) ((b ax) 0) ((k ax s) 0)))
("Kales" n (((k ey l z) 1)))
("it's" nil (((ih t s) 1)))
("b" nil (((b iy) 1)))
("c" nil (((s iy) 1)))
("d" nil (((d iy) 1)))
("e" nil (((iy) 1)))
("f" nil (((eh f) 1)))
("g" nil (((jh iy) 1)))
("h" nil (((ey ch) 1)))
]]

  it("reads Festival's lexicon: words with all their pronunciations, with and without stress", function()
    local path = folder.write(out .. "/lexicon.out", entries)
    local words = assert(lexicon.read(path))
    assert.are.equal(10, #words)
    assert.are.same({{"ah"}, {"ey"}}, words[1].phonemes)
    assert.are.same({{"ae", "b", "ah", "k", "ah", "s"}}, words[2].phonemes)
    assert.are.equal("kales", words[3].name)
    assert.are.same({"ae1", "b", "ah0", "k", "ah0", "s"}, assert(lexicon.read(path, true))[2].phonemes[1])
    assert.are.same({39, 54}, {#lexicon.phonemes(), #lexicon.phonemes(true)})
    local none, message = lexicon.read(folder.write(out .. "/short.out", "MNCL\n"))
    assert.is_nil(none)
    assert.is_truthy(message:find("short.out: no lexicon as Festival has them", 1, true), message)
  end)

  it("tells which package has the dictionary", function()
    local text, code = folder.lua("scripts/pronounce.lua --dictionary /nowhere/cmudict.out --out " .. out .. "/none")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("/nowhere/cmudict.out", 1, true), text)
    assert.is_truthy(text:find("apt install festlex-cmu", 1, true), text)
  end)

  it("knows all phonemes of Debian's lexicon", function()
    if not debian then return pending "festlex-cmu is not installed" end
    for _, stress in ipairs{false, true} do
      local known, words = {}, assert(lexicon.read(lexicon.DICTIONARY, stress))
      assert.is_true(#words > 100000)
      for _, sound in ipairs(lexicon.phonemes(stress)) do known[sound] = true end
      for _, word in ipairs(words) do
        for _, phonemes in ipairs(word.phonemes) do
          for _, sound in ipairs(phonemes) do assert(known[sound], word.name) end
        end
      end
    end
  end)

  it("holds out a tenth of the words, by the seed", function()
    local words = lexicon.made_up(300)
    local parts, seen = lexicon.split(words, 1), {}
    assert.are.same({30, 6, 264}, {#parts.test, #parts.validation, #parts.training})
    for _, part in pairs(parts) do
      for _, word in ipairs(part) do
        assert.is_nil(seen[word.name], word.name)
        seen[word.name] = true
      end
    end
    for _, word in ipairs(words) do assert.is_true(seen[word.name]) end
    assert.are.same(parts, lexicon.split(words, 1))
    assert.are_not.same(parts.test, lexicon.split(words, 2).test)
  end)

  it("counts what is wrong as the definition does, by the nearest pronunciation", function()
    local function naive(a, b, i, k)
      if i == 0 or k == 0 then return i + k end
      return math.min(naive(a, b, i - 1, k) + 1, naive(a, b, i, k - 1) + 1,
        naive(a, b, i - 1, k - 1) + (a[i] == b[k] and 0 or 1))
    end
    local random = math.random
    for _ = 1, 200 do
      local a, b = {}, {}
      for i = 1, random(0, 5) do a[i] = random(3) end
      for i = 1, random(0, 5) do b[i] = random(3) end
      assert.are.equal(naive(a, b, #a, #b), lexicon.distance(a, b))
    end
    local words = {{phonemes = {{"ah"}, {"ey", "ey"}}}, {phonemes = {{"b", "iy"}}}}
    assert.are.same({25, 50}, {lexicon.errors({{"ey", "ey"}, {"b"}}, words)}) -- 1 of 2 + 2 phonemes, 1 of 2 words
    assert.are.same({0, 0}, {lexicon.errors({{"ah"}, {"b", "iy"}}, words)})
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/pronounce.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"dictionary", "say", "epochs", "batch", "size", "lr", "dropout", "smoothing", "average",
      "beam", "stress", "seed", "threads", "out", "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    for _, how in ipairs{"--resume", "--say word"} do
      text, code = folder.lua(("%s%s/none %s"):format(run, out, how))
      assert.are_not.equal(0, code)
      assert.is_truthy(text:find("none/pronounce.safetensors", 1, true), text)
    end
  end)
end)

describe("series.lua", function()
  local out = folder.new()

  for _, model in ipairs{"conv", "gru"} do
    it(("learns with --model %s; killed and resumed ends with the same bits"):format(model), function()
      local whole, killed = ("%s/%s"):format(out, model), ("%s/killed_%s"):format(out, model)
      local arguments = ("scripts/series.lua --smoke --model %s --out "):format(model)
      local text, code = folder.lua(arguments .. whole)
      assert.are.equal(0, code, text)
      assert.is_truthy(text:find(model == "conv" and "conv: 34261 parameters" or "gru: 31301 parameters", 1, true))
      assert.is_truthy(text:find "[%d.]+ %% of 100 test rows are right")
      local a = assert(marea.metrics.read(whole .. "/metrics.csv"))
      assert.is_true(#a == 2 and a[2].loss < a[1].loss and a[1].loss < 3)
      for _, name in ipairs{"training_curve", "examples", "confusion"} do
        local png = assert(marea.load_png(("%s/%s.png"):format(whole, name)))
        assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
      end
      local file = ("/%s.safetensors"):format(model)
      folder.lua_killed(arguments .. killed .. " --threads 1", killed .. file)
      text, code = folder.lua(arguments .. killed .. " --resume")
      assert.are.equal(0, code, text)
      assert.are.equal(folder.read(whole .. file), folder.read(killed .. file))
    end)
  end

  it("draws the same rows for the same seed, a fifth of each class, of mean 0 and variance 1", function()
    local series = dofile "scripts/series_data.lua"
    local x, labels = series.draw(50, 7)
    local again, other = series.draw(50, 7), series.draw(50, 8)
    assert.are.same({50, series.LENGTH, 1}, x.shape)
    assert.is_true(x:eq(again):to "f32":min():item() == 1 and x:eq(other):to "f32":mean():item() < 0.01)
    assert.are.same({10, 10, 10, 10, 10}, marea.one_hot(labels, 5):sum(1):totable())
    assert.is_true(x:mean{2}:abs():max():item() < 1e-5 and ((x * x):mean{2} - 1):abs():max():item() < 1e-4)
  end)

  it("has rings where bearing and tooth are ill: their steps differ more", function()
    local series = dofile "scripts/series_data.lua"
    local x = series.draw(500, 9)
    local jumps = x:narrow(2, 2, series.LENGTH - 1) - x:narrow(2, 1, series.LENGTH - 1)
    local kurtosis = ((jumps ^ 4):mean{2} / (jumps * jumps):mean{2} ^ 2):reshape(5, 100):mean{2}:totable()
    for _, class in ipairs{1, 2, 5} do assert.is_true(math.abs(kurtosis[class] - 3) < 0.3, kurtosis[class]) end
    for _, class in ipairs{3, 4} do assert.is_true(kurtosis[class] > 3.6, kurtosis[class]) end
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/series.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"model", "epochs", "rows", "batch", "lr", "seed", "threads", "out", "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua "scripts/series.lua --model none"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("must be one of .conv., .gru."), text)
    text, code = folder.lua("scripts/series.lua --smoke --resume --out " .. out .. "/none")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("none/conv.safetensors", 1, true), text)
  end)
end)

describe("classifier.lua", function()
  local out = folder.new()
  local run = "scripts/classifier.lua --smoke --out " .. out

  it("trains, and leaves pictures, metrics and weights that other scripts can load", function()
    local text, code = folder.lua(run .. " --epochs 3")
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find("Total params: 467,818", 1, true), text)
    local rows = assert(marea.metrics.read(out .. "/metrics.csv"))
    assert.are.equal(3, #rows)
    assert.is_true(rows[3].loss < rows[1].loss and rows[3].test_accuracy > 30)
    for _, name in ipairs{"training_curve", "confusion", "mistakes"} do
      local png = assert(marea.load_png(("%s/%s.png"):format(out, name)))
      assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
    end
    local Classifier = dofile "scripts/classifier_model.lua"
    local model = assert(Classifier.load(out .. "/classifier.safetensors"))
    local test = assert(marea.data.mnist("sample", "test")):subset(1, 256)
    local features, p = marea.judge.see(model, test:field "image":to "f32" / 255)
    assert.are.same({256, 128}, features.shape)
    local accuracy = p:argmax(2):eq(test:field "label"):to "f32":mean():item() * 100
    assert.is_true(math.abs(accuracy - rows[3].test_accuracy) < 1e-4)
    assert.is_nil((Classifier.load(out .. "/none.safetensors")))
  end)

  it("goes on where it stopped", function()
    local text, code = folder.lua(run .. " --epochs 4 --resume --augment none --batch 256 --lr 1e-3")
    assert.are.equal(0, code, text)
    assert.is_nil(text:find "epoch 3/4")
    assert.is_truthy(text:find "epoch 4/4  step 2/2")
    assert.are.equal(4, #assert(marea.metrics.read(out .. "/metrics.csv")))
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/classifier.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"data", "epochs", "batch", "lr", "augment", "seed", "threads", "out", "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua "scripts/classifier.lua --data /nowhere"
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("/nowhere", 1, true))
  end)
end)

describe("gpt.lua", function()
  local gpt = "scripts/gpt.lua --smoke --out "
  local out = folder.new()

  for _, model in ipairs{"transformer", "lstm", "gru"} do
    it("trains a " .. model .. "; stopped and resumed gives the same weights", function()
      local whole, resumed = out .. "/" .. model, out .. "/resumed_" .. model
      local text, code = folder.lua(gpt .. whole .. " --tie --model " .. model)
      assert.are.equal(0, code, text)
      assert.is_truthy(text:find "step 6  loss [%d.]+  validation [%d.]+  [%d.]+ ms a step", text)
      text, code = folder.lua(gpt .. resumed .. " --tie --steps 4 --threads 1 --model " .. model)
      assert.are.equal(0, code, text)
      text, code = folder.lua(gpt .. resumed .. " --tie --resume --model " .. model)
      assert.are.equal(0, code, text)
      local expected, actual = marea.load(whole .. "/gpt.safetensors"), marea.load(resumed .. "/gpt.safetensors")
      for name, t in pairs(expected) do
        assert.is_true(actual[name]:eq(t):to("f32"):min():item() == 1, name)
      end
      local rows = assert(marea.metrics.read(whole .. "/metrics.csv"))
      assert.are.same({1, 2, 4, 6}, {rows[1].step, rows[2].step, rows[3].step, rows[4].step})
      assert.is_true(rows[4].validation < rows[1].validation)
      local png = assert(marea.load_png(whole .. "/training_curve.png"))
      assert.is_true(png:to("f32"):std():item() > 5, "the curve is not blank")
    end)
  end

  it("has one table of characters with --tie, whatever the model", function()
    for _, model in ipairs{"transformer", "lstm", "gru"} do
      local options = {model = model, vocabulary = 7, width = 8, context = 6, layers = 1, heads = 2, dropout = 0}
      local make = dofile "scripts/gpt_model.lua"
      local x, apart = marea.randint({1, 6}, 1, 7), make(options)
      options.tie = true
      local tied = make(options)
      local y = tied(x)
      apart(x)
      assert.are.equal(7 * 8 + (model == "transformer" and 0 or 7), apart:count() - tied:count())
      y:sum():backward()
      marea.no_grad(function() tied.embed.weight:mul_(2) end)
      local parts = model == "transformer" and (tied:features(x)) or (tied.core(tied.embed(x)))
      assert.is_true((tied(x) - parts:matmul(tied.embed.weight:transpose(1, 2))):abs():max():item() < 1e-5)
      assert.is_true(tied.embed.weight.grad:abs():min():item() > 0) -- rows that are not read have one of the last layer
    end
  end)

  it("writes with a cache what the whole context gives", function()
    local options = {model = "transformer", vocabulary = 7, width = 8, context = 6, layers = 2, heads = 2, dropout = 0}
    local net = dofile "scripts/gpt_model.lua"(options)
    local x, state = marea.randint({1, 6}, 1, 7), net:begin(1)
    local whole = net(x)
    for t = 1, 6 do
      local y
      y, state = net(x:narrow(2, t, 1), state)
      assert.is_true((y:select(2, 1) - whole:select(2, t)):abs():max():item() < 1e-5)
    end
  end)
end)

describe("gan.lua", function()
  local gan = "scripts/gan.lua --smoke --out "
  local out = folder.new()
  local whole, resumed = out .. "/gan", out .. "/gan_resumed"

  it("trains, and leaves pictures, metrics and weights", function()
    local text, code = folder.lua(gan .. whole)
    assert.are.equal(0, code, text)
    assert.is_truthy(text:find("Total params: 1,705,441\nTrainable params: 1,679,969\nNon-trainable params: 25,472", 1,
      true), text)
    assert.is_truthy(text:find("Total params: 5,222,401", 1, true))
    assert.is_truthy(text:find "GAN  step 6/6  discriminator [%d.]+  generator [%d.]+  accuracy [%d.]+")
    assert.are.equal(6, #assert(marea.metrics.read(whole .. "/metrics.csv")))
    for _, name in ipairs{"samples", "strip", "losses", "samples/000000", "samples/000006"} do
      local png = assert(marea.load_png(("%s/%s.png"):format(whole, name)))
      assert.is_true(png:to("f32"):std():item() > (name:find "samples/" and 0 or 5), name .. " is not blank")
      if name:find "samples/" then assert.are.same({560, 560, 1}, png.shape) end
    end
  end)

  it("stopped and resumed gives the same weights and losses, whatever the threads", function()
    local text, code = folder.lua(gan .. resumed .. " --steps 4 --threads 1")
    assert.are.equal(0, code, text)
    text, code = folder.lua(gan .. resumed .. " --resume")
    assert.are.equal(0, code, text)
    local expected, actual = marea.load(whole .. "/gan.safetensors"), marea.load(resumed .. "/gan.safetensors")
    for name, t in pairs(expected) do -- weights, statistics, and what both optimizers remember
      assert.is_true(actual[name]:eq(t):to("f32"):min():item() == 1, name)
      actual[name] = nil
    end
    assert.is_nil(next(actual))
    local a, b = marea.metrics.read(whole .. "/metrics.csv"), marea.metrics.read(resumed .. "/metrics.csv")
    assert.are.equal(#a, #b)
    for i, row in ipairs(a) do
      row.seconds, b[i].seconds = nil, nil
      assert.are.same(row, b[i])
    end
  end)

  it("as assigned has the notebook's networks and can die at the third step, as there", function()
    for _, seed in ipairs{1, 8} do -- with others the discriminator comes back from a loss of 5 to 7, and wins
      local command = "%s%s/assigned --as-assigned --batch 64 --steps 5 --seed %d"
      local text, code = folder.lua(command:format(gan, out, seed))
      assert.are.equal(0, code, text)
      assert.is_truthy(text:find("Total params: 1,697,505", 1, true), text)
      assert.is_truthy(text:find("Non-trainable params: 25,472", 1, true))
      local rows = assert(marea.metrics.read(out .. "/assigned/metrics.csv"))
      assert.is_true(rows[1].discriminator > 0.6 and rows[1].discriminator < 0.8)
      for step = 3, 5 do -- (15.942385 + 0) / 2: every p is 1, at the clip, where there is no gradient
        assert.is_true(math.abs(rows[step].discriminator - 7.9712) < 1e-3, text)
        assert.are.equal(0.5, rows[step].accuracy)
        assert.is_true(rows[step].generator < 1e-5)
      end
    end
  end)

  it("is judged by a classifier, beside real images", function()
    local text, code = folder.lua("scripts/classifier.lua --smoke --epochs 1 --out " .. out .. "/judge")
    assert.are.equal(0, code, text)
    text, code = folder.lua(("scripts/gan_judge.lua --samples 200 --classifier %s/judge/classifier.safetensors "
      .. "--gan %s/gan.safetensors"):format(out, whole))
    assert.are.equal(0, code, text)
    local of_real = tonumber(text:match "real test images +([%d.]+)")
    local of_gan = tonumber(text:match "gan.safetensors +([%d.]+) +[%d.]+ %% +%d+/10")
    assert.is_true(of_real < of_gan, text) -- six steps make no digits
  end)

  it("learns with a gradient penalty too", function()
    local text, code = folder.lua(gan .. out .. "/wgan --loss wgan-gp --steps 12")
    assert.are.equal(0, code, text)
    local rows = assert(marea.metrics.read(out .. "/wgan/metrics.csv"))
    assert.is_true(rows[1].discriminator > 0) -- the penalty of slopes that are far from 1
    assert.is_true(rows[12].discriminator < -5) -- the critic tells them apart
  end)
end)

describe("mnist.sh", function()
  it("takes only files that are MNIST's, byte for byte", function()
    local target, path = folder.new(), folder.new()
    local programs = "mktemp rm mkdir sha256sum cut cat gzip cp mv chmod tr grep"
    for program in programs:gmatch "%S+" do
      local from = io.popen("command -v " .. program):read "l"
      os.execute(("ln -s %s %s/%s"):format(from, path, program))
    end
    local command = "PATH=%s MAREA_DATA=scripts/data /bin/sh scripts/mnist.sh %s 2>&1; echo exit $?"
    local text = io.popen(command:format(path, target)):read "a"
    assert.is_truthy(text:find "exit 1%s*$", text)
    assert.is_truthy(text:find("train-images-idx3-ubyte.gz is not MNIST's", 1, true), text)
    assert.is_truthy(text:find("Not found: train-images-idx3-ubyte", 1, true))
    assert.is_nil(folder.read(target .. "/train-images-idx3-ubyte.gz"))
  end)
end)

describe("qa.lua", function()
  local out, texts = folder.new(), folder.new()
  local scan = {}
  for i = 1, 40 do
    local n = i % 3 + 1
    scan[i] = ("IN: walk %s OUT: %s"):format(("twice "):rep(n), ("I_WALK "):rep(2 * n))
  end
  scan = table.concat(scan, "\n")
  folder.write(texts .. "/scan-simple-train.txt", scan)
  folder.write(texts .. "/scan-simple-test.txt", scan)
  local squad = {}
  for i = 1, 40 do
    local answer = ("the U.S. %d"):format(i % 4)
    squad[i] = ('{"context": "%s", "qas": [{"question": "What isn\'t %d?", "answers": [%s]}]}'):format(answer, i,
      ('{"text": "%s", "answer_start": 0}'):format(answer))
  end
  squad = ('{"data": [{"title": "T", "paragraphs": [%s]}]}'):format(table.concat(squad, ","))
  folder.write(texts .. "/squad-train-v1.1.json", squad)
  folder.write(texts .. "/squad-dev-v1.1.json", squad)
  local here, without = "MAREA_TEXT=" .. texts, "MAREA_TEXT=/nowhere"

  --- Runs it to its end, then again, killed and resumed: the same bits, whatever the threads. Returns folder and text.
  local function resumed(name, arguments)
    local whole, killed = ("%s/%s"):format(out, name), ("%s/killed_%s"):format(out, name)
    arguments = ("scripts/qa.lua --smoke %s --out "):format(arguments)
    local text, code = folder.lua(arguments .. whole, without)
    assert.are.equal(0, code, text)
    folder.lua_killed(arguments .. killed .. " --threads 1", killed .. "/qa.safetensors", without)
    local again, ok = folder.lua(arguments .. killed .. " --resume", without)
    assert.are.equal(0, ok, again)
    assert.is_nil(again:find "epoch 1/2")
    assert.are.equal(folder.read(whole .. "/qa.safetensors"), folder.read(killed .. "/qa.safetensors"))
    local rows = assert(marea.metrics.read(whole .. "/metrics.csv"))
    assert.is_true(#rows == 2 and rows[2].loss < rows[1].loss)
    return whole, text
  end

  local function check_pictures(place, names)
    for name in names:gmatch "%S+" do
      local png = assert(marea.load_png(("%s/%s.png"):format(place, name)))
      assert.is_true(png:to("f32"):std():item() > 5, name .. " is not blank")
    end
  end

  it("tries each kind of question without a file", function()
    local place, text = resumed("scan", "--data scan --batch 8 --lr 0.02")
    assert.is_truthy(text:find "30 questions of the test: [%d.]+ %% are answered exactly", text)
    check_pictures(place, "training_curve")
    place, text = resumed("squad", "--batch 8 --lr 0.02")
    assert.is_truthy(text:find "30 questions of the test: exact match [%d.]+ %%, F1 [%d.]+ %%", text)
    check_pictures(place, "training_curve attention1")
  end)

  --- What a run of one epoch over the files prints.
  local function whole_run(arguments)
    local text, code = folder.lua(("scripts/qa.lua --epochs 1 --out %s/files %s"):format(out, arguments), here)
    assert.are.equal(0, code, text)
    return text
  end

  it("answers SCAN's commands", function()
    local text = whole_run "--data scan"
    assert.is_truthy(text:find("32 questions to learn from", 1, true), text)
    assert.is_truthy(text:find "40 questions of the test: [%d.]+ %% are answered exactly", text)
  end)

  it("answers SQuAD's questions as the notebook does, drawn", function()
    local text = whole_run "--data squad"
    assert.is_truthy(text:find "40 questions of the test: exact match [%d.]+ %%, F1 [%d.]+ %%", text)
    -- of 40 answers "the U.S. N" 10 are with 0, the others share one of two words with it, articles left out
    assert.is_truthy(text:find("always 'the U.S. 0', training's commonest answer: exact match 25.00 %, F1 62.50 %", 1,
      true), text)
  end)

  it("answers questions about stories, with either attention", function()
    for _, attention in ipairs{"bahdanau", "notebook"} do
      local text, code = folder.lua(
        ("scripts/qa.lua --smoke --data babi --attention %s --task 3 --epochs 1 --out %s/babi"):format(attention, out))
      assert.are.equal(0, code, text)
      assert.is_truthy(text:find "30 questions of the test: [%d.]+ %% are answered exactly", text)
    end
  end)

  it("has the notebook's parameters, layer by layer", function()
    local model = dofile "scripts/qa_model.lua".notebook{inputs = 39476, outputs = 47423, length = 47, stop = 1,
      embedding = 64, hidden = 128, dropout = 0.2}
    local sums = {}
    for name, t in model:named_parameters() do
      local layer = name:match "^[^.]+"
      sums[layer] = (sums[layer] or 0) + t:numel()
    end
    assert.are.same({embedding = 2526464, encoder = 99328, attention = 6063, decoder = 132096, head = 6117567}, sums)
    assert.are.equal(8881518, (model:count()))
  end)

  it("attends as the notebook does: the largest of 60 weights is below .112", function()
    local model = dofile "scripts/qa_model.lua".notebook{inputs = 9, outputs = 9, length = 5, stop = 1, embedding = 4,
      hidden = 8, dropout = 0}
    local hidden, weights = model(marea.randint({2, 60}, 1, 9))
    assert.are.same({{2, 5, 8}, {2, 5, 60}}, {hidden.shape, weights.shape})
    assert.is_true(weights:max():item() <= math.exp(1) / (math.exp(1) + 59 / math.exp(1)))
    assert.is_true((weights:sum(3) - 1):abs():max():item() < 1e-5)
  end)

  it("takes the loss of Bahdanau's over the words and ends of answers, none of the padding", function()
    marea.seed(3)
    local model = dofile "scripts/qa_model.lua".bahdanau{inputs = 9, outputs = 7, length = 4, begin = 1, stop = 2,
      embedding = 4, hidden = 8, dropout = 0, spread = 0.5}
    local input = marea.tensor({{5, 6, 7}, {8, 1, 1}}, {dtype = "i64"})
    local lengths = marea.tensor({3, 1}, {dtype = "i64"})
    local output = marea.tensor({{4, 5, 2, 2}, {2, 2, 2, 2}}, {dtype = "i64"})
    local loss, n = model:loss(input, lengths, output, marea.tensor({3, 1}, {dtype = "i64"}))
    local hidden = model(input, lengths, output)
    local logits = model.head(hidden):log_softmax(3):totable()
    local expected = logits[1][1][4] + logits[1][2][5] + logits[1][3][2] + logits[2][1][2]
    assert.are.equal(4, n)
    assert.is_true(math.abs(loss:item() + expected / 4) < 1e-5)
    local single = model:answer(input:narrow(1, 2, 1), lengths:narrow(1, 2, 1), 0)
    assert.are.same(single[1], model:answer(input, lengths, 0)[2])
  end)

  it("splits words as the Penn Treebank does", function()
    local words = dofile "scripts/qa_data.lua".words
    assert.are.same({"does", "n't", "it", "'s", "the", "$", "3", ",", "i.e.", "1,000", "(", "or", "so", ")", "?"},
      words "doesn't it's the $3, i.e. 1,000 (or so)?")
    assert.are.same({"the", "U.S.", "of", "A.", "is", "big", "."}, words "the U.S. of A. is big.")
    assert.are.same({}, words " ")
  end)

  it("explains itself, and what is wrong", function()
    local text, code = folder.lua "scripts/qa.lua --help"
    assert.are.equal(0, code)
    for _, option in ipairs{"data", "attention", "task", "examples", "epochs", "batch", "lr", "dropout", "temperature",
      "reader", "seed", "threads", "out", "resume", "smoke"} do
      assert.is_truthy(text:find("--" .. option, 1, true), option)
    end
    text, code = folder.lua("scripts/qa.lua --data scans")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("must be one of 'squad', 'scan', 'babi'", 1, true), text)
    local _, message = pcall(dofile "scripts/options.lua".text_file, "none.txt", "text")
    assert.are.equal("no file none.txt in $MAREA_TEXT or data/text; `make text` gets it", message)
    text, code = folder.lua("scripts/qa.lua --data babi --smoke --resume --out " .. out .. "/none")
    assert.are_not.equal(0, code)
    assert.is_truthy(text:find("none/qa.safetensors", 1, true), text)
  end)

  it("starts qa_reader.lua beside it for --reader", function()
    local place = folder.new()
    folder.must(("cp scripts/qa.lua %s"):format(place))
    folder.write(place .. "/qa_reader.lua", "print('reader', #arg, arg[2])")
    assert.are.equal("reader\t2\t--help\n", (folder.lua(place .. "/qa.lua --reader --help")))
  end)
end)

describe("stories of qa_babi.lua", function()
  local babi = dofile "scripts/qa_babi.lua"

  it("are the same for the same seed", function()
    assert.are.same(babi.draw(2, 50, 4), babi.draw(2, 50, 4))
    assert.are_not.same(babi.draw(2, 50, 4), babi.draw(2, 50, 5))
    assert.are.equal(37, #babi.draw(3, 37, 1).questions)
  end)

  --- The rooms of people and the paths of things, from the sentences alone.
  local function follow(words)
    local room, path, holder, sentence = {}, {}, {}, {}
    local function note(thing, place)
      local list = path[thing] or {}
      path[thing] = list
      if list[#list] ~= place then list[#list + 1] = place end
    end
    for _, word in ipairs(words) do
      if word ~= "." then table.insert(sentence, word)
      else
        local line, who, last = table.concat(sentence, " "), sentence[1], sentence[#sentence]
        if line:find "moved to" or line:find "went" or line:find "journeyed" or line:find "travelled" then
          assert.are_not.equal(room[who], last)
          room[who] = last
          for thing, person in pairs(holder) do
            if person == who then note(thing, last) end
          end
        elseif line:find "took" or line:find "got" or line:find "grabbed" or line:find "picked up" then
          assert.is_nil(holder[last], "two have it")
          local list = path[last]
          assert.is_true(not list or list[#list] == room[who], "it lies elsewhere")
          holder[last] = who
          note(last, room[who])
        else
          assert.are.equal(who, holder[last])
          holder[last] = nil
        end
        sentence = {}
      end
    end
    return room, path, table.concat(sentence, " ")
  end

  for task = 1, 3 do
    it(("give the answers of task %d"):format(task), function()
      local drawn = babi.draw(task, 500, 11)
      for i, words in ipairs(drawn.questions) do
        local room, path, question = follow(words)
        local answer
        if task == 1 then answer = room[question:match "^where is (%a+)$"]
        elseif task == 2 then
          local list = path[question:match "^where is the (%a+)$"]
          answer = list[#list]
        else
          local thing, before = question:match "^where was the (%a+) before the (%a+)$"
          for k, place in ipairs(path[thing]) do
            if place == before then answer = path[thing][k - 1] end
          end
        end
        assert.are.same({answer}, drawn.answers[i], table.concat(words, " "))
      end
    end)
  end
end)

describe("texts.sh", function()
  local path = folder.new() -- programs that may be found: no curl
  for program in ("mktemp rm mkdir dirname sha256sum cut cat gzip cp mv chmod sort"):gmatch "%S+" do
    os.execute(("ln -s %s %s/%s"):format(io.popen("command -v " .. program):read "l", path, program))
  end
  local function get(kind, from, target)
    local program = (os.getenv "MAREA_BUILD" or "build") .. "/marea"
    return io.popen(("PATH=%s MAREA=%s MAREA_TEXT=%s /bin/sh scripts/texts.sh %s %s 2>&1; echo exit $?"):format(path,
      program, from, kind, target)):read "a"
  end

  it("takes only files that are the published ones, and leaves nothing of others", function()
    local from, target = folder.new(), folder.new()
    assert(marea.save_bytes(from .. "/tinyshakespeare.txt", "First Citizen:\n"))
    assert(marea.save_bytes(from .. "/scan-simple-test.txt.gz", "no gzip"))
    assert(marea.save_bytes(from .. "/squad-train-v1.1.json", "[]"))
    assert(marea.save_bytes(from .. "/squad-dev-v1.1.json", '{"data": []}'))
    local text = get("text", from, target)
    assert.is_truthy(text:find "exit 1%s*$", text)
    assert.is_truthy(text:find("tinyshakespeare.txt is not the published tinyshakespeare.txt", 1, true), text)
    assert.is_truthy(text:find("scan-simple-test.txt.gz is not a whole .gz file", 1, true), text)
    assert.is_truthy(text:find("there is no curl", 1, true), text)
    assert.is_truthy(text:find("Not found: tinyshakespeare.txt scan-simple-train.txt scan-simple-test.txt", 1, true))
    text = get("squad", from, target)
    assert.is_truthy(text:find "exit 1%s*$", text)
    assert.is_truthy(text:find("there is no 'data'", 1, true), text)
    assert.is_truthy(text:find("squad-dev-v1.1.json is not the published", 1, true), text)
    assert.are.equal("", io.popen("ls " .. target):read "a")
    assert.is_truthy(get("none", from, target):find "usage.*exit 2")
  end)

  it("sums up what SQuAD asks and answers, whatever ids and spaces are", function()
    local file = folder.new() .. "/squad.json"
    assert(marea.save_bytes(file, [[{"data": [{"title": "T", "paragraphs": [{"context": " Été  1973 ", "qas": [
      {"id": 7, "question": "When?\n", "answers": [{"answer_start": 6, "text": "1973"}]},
      {"question": "Who?", "answers": []}]}]}]}]]))
    local text, code = folder.lua("scripts/squad_lines.lua " .. file)
    assert.are.equal("T\tÉté 1973\tWhen?\t1973\nT\tÉté 1973\tWho?\n", text)
    assert.are.equal(0, code)
    assert.is_truthy(folder.lua("scripts/squad_lines.lua /nowhere.json"):find "/nowhere.json")
  end)

  if os.getenv "MAREA_TEXT" then
    it("takes the published files, also gzipped", function()
      local target = folder.new()
      for _, kind in ipairs{"text", "squad"} do
        assert.is_truthy(get(kind, os.getenv "MAREA_TEXT", target):find "exit 0%s*$")
      end
      assert.are.equal(5, select(2, io.popen("ls " .. target):read "a":gsub("\n", "")))
    end)
  end
end)
