-- SPDX-License-Identifier: MIT
-- scripts/dates.lua, pronounce.lua, series.lua and gpt.lua as a user runs them.
local marea = require "marea"
local folder = require "spec.support.folder"
local script = require "spec.support.script"

teardown(folder.remove)

describe("dates.lua", function()
  local out = folder.new()
  local command = "scripts/dates.lua --smoke --out " .. out

  for _, attention in ipairs{"bahdanau", "notebook"} do
    it(("learns with %s attention; killed and resumed ends with the same bits"):format(attention), function()
      local whole, killed = ("%s/%s"):format(out, attention), ("%s/killed_%s"):format(out, attention)
      local arguments = ("scripts/dates.lua --smoke --attention %s --out "):format(attention)
      local text = script.run(arguments .. whole)
      assert.is_truthy(text:find "epoch 2/2  step (%d+)/%1  loss [%d.]+")
      assert.is_truthy(text:find "of 100 test dates are exactly right: [%d.]+ %%")
      local a = assert(marea.metrics.read(whole .. "/metrics.csv"))
      assert.is_true(#a == 2 and a[2].loss < a[1].loss and a[1].loss < 4)
      script.has_pictures(whole, "training_curve attention1 attention2 attention3")
      folder.lua_killed(arguments .. killed .. " --threads 1", killed .. "/dates.safetensors")
      script.run(arguments .. killed .. " --resume")
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
    script.explains("scripts/dates.lua", "attention epochs dates batch lr seed")
    script.fails("scripts/dates.lua --attention none", "must be one of 'bahdanau', 'notebook'")
    script.fails(command .. "/none --resume", "none/dates.safetensors")
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
    local text = script.run(run .. whole)
    assert.is_truthy(text:find("212 words for training, 4 for validation, 24 held out", 1, true), text)
    assert.is_truthy(text:find "24 words held out: [%d.]+ %% of the phonemes are wrong, [%d.]+ %% of the words")
    local rows = assert(marea.metrics.read(whole .. "/metrics.csv"))
    assert.is_true(#rows == 3 and rows[3].loss < rows[1].loss - 0.5)
    script.has_pictures(whole, "training_curve attention1 attention2")
    folder.lua_killed(run .. killed .. " --threads 1", killed .. "/pronounce.safetensors")
    script.run(run .. killed .. " --resume")
    assert.are.equal(folder.read(whole .. "/pronounce.safetensors"), folder.read(killed .. "/pronounce.safetensors"))
  end)

  it("says words by the weights that are there, without the dictionary", function()
    local text = script.run(run .. out .. "/whole --say Sheena --beam 3 --dictionary /nowhere")
    local last, n = 101, 0
    for percent in text:gmatch " *([%d.]+) %%  %l+ [%l ]+\n" do
      percent, n = tonumber(percent), n + 1
      assert.is_true(percent <= last, text)
      last = percent
    end
    assert.are.equal(3, n, text)
    script.fails(run .. out .. "/whole --say x-ray", "expected a word of the letters a to z, got 'x-ray'")
  end)

  it("tells the stress, too", function()
    local text = script.run(run .. out .. "/stress --stress --epochs 1")
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
    local command = "scripts/pronounce.lua --dictionary /nowhere/cmudict.out --out " .. out .. "/none"
    script.fails(command, "/nowhere/cmudict.out")
    script.fails(command, "apt install festlex-cmu")
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
    script.explains("scripts/pronounce.lua",
      "dictionary say epochs batch size lr dropout smoothing average beam stress seed")
    for _, how in ipairs{"--resume", "--say word"} do
      script.fails(("%s%s/none %s"):format(run, out, how), "none/pronounce.safetensors")
    end
  end)
end)

describe("series.lua", function()
  local out = folder.new()

  for _, model in ipairs{"conv", "gru"} do
    it(("learns with --model %s; killed and resumed ends with the same bits"):format(model), function()
      local whole, killed = ("%s/%s"):format(out, model), ("%s/killed_%s"):format(out, model)
      local arguments = ("scripts/series.lua --smoke --model %s --out "):format(model)
      local text = script.run(arguments .. whole)
      assert.is_truthy(text:find(model == "conv" and "conv: 34261 parameters" or "gru: 31301 parameters", 1, true))
      assert.is_truthy(text:find "[%d.]+ %% of 100 test rows are right")
      local a = assert(marea.metrics.read(whole .. "/metrics.csv"))
      assert.is_true(#a == 2 and a[2].loss < a[1].loss and a[1].loss < 3)
      script.has_pictures(whole, "training_curve examples confusion")
      local file = ("/%s.safetensors"):format(model)
      folder.lua_killed(arguments .. killed .. " --threads 1", killed .. file)
      script.run(arguments .. killed .. " --resume")
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
    script.explains("scripts/series.lua", "model epochs rows batch lr seed")
    script.fails("scripts/series.lua --model none", "must be one of 'conv', 'gru'")
    script.fails("scripts/series.lua --smoke --resume --out " .. out .. "/none", "none/conv.safetensors")
  end)
end)

it("scripts name the option whose number is none", function()
  for arguments, message in pairs{["gpt.lua --lr fast"] = "option '--lr': expected a number, got 'fast'",
    ["dates.lua --seed 1.5"] = "option '--seed': expected a whole number, got '1.5'",
    ["series.lua --rows 0"] = "option '--rows': expected a whole number of at least 1, got '0'"} do
    local text, code = folder.lua("scripts/" .. arguments)
    assert.are.equal(1, code)
    assert.is_truthy(text:find(message, 1, true), text)
  end
end)

describe("gpt.lua", function()
  local gpt = "scripts/gpt.lua --smoke --out "
  local out = folder.new()

  for _, model in ipairs{"transformer", "lstm", "gru"} do
    it("trains a " .. model .. "; stopped and resumed gives the same weights", function()
      local whole, resumed = out .. "/" .. model, out .. "/resumed_" .. model
      local text = script.run(gpt .. whole .. " --tie --model " .. model)
      assert.is_truthy(text:find "step 6  loss [%d.]+  validation [%d.]+  [%d.]+ ms a step", text)
      script.run(gpt .. resumed .. " --tie --steps 4 --threads 1 --model " .. model)
      script.run(gpt .. resumed .. " --tie --resume --model " .. model)
      local expected, actual = marea.load(whole .. "/gpt.safetensors"), marea.load(resumed .. "/gpt.safetensors")
      for name, t in pairs(expected) do
        assert.is_true(actual[name]:eq(t):to("f32"):min():item() == 1, name)
      end
      local rows = assert(marea.metrics.read(whole .. "/metrics.csv"))
      assert.are.same({1, 2, 4, 6}, {rows[1].step, rows[2].step, rows[3].step, rows[4].step})
      assert.is_true(rows[4].validation < rows[1].validation)
      assert.is_truthy(text:find("Picture, metrics.csv and gpt.safetensors are in " .. whole, 1, true), text)
      script.has_pictures(whole, "training_curve")
    end)
  end

  it("writes with bytes, and trains to the same weights", function()
    local whole, bytes = out .. "/lstm", out .. "/bytes"
    script.run(gpt .. bytes .. " --tie --model lstm --writing int8")
    local expected, actual = marea.load(whole .. "/gpt.safetensors"), marea.load(bytes .. "/gpt.safetensors")
    for name, t in pairs(expected) do assert.is_true(actual[name]:eq(t):to("f32"):min():item() == 1, name) end
  end)

  it("refuses texts that are too short, and to go on with other characters", function()
    local place, letters = out .. "/other", "abcdefghijklmnopqrstuvwxyz "
    local function go(name, text, more)
      local path = folder.write(("%s/%s.txt"):format(out, name), text)
      return folder.lua(("%s%s --text %s%s"):format(gpt, place, path, more))
    end
    local text, code = go("short", letters, "")
    assert.are.equal(1, code)
    assert.is_truthy(text:find("short.txt: too short: a tenth, 3 characters, is held out, and --context 16 needs 17", 1,
      true), text)
    text, code = go("one", letters:rep(10), "")
    assert.are.equal(0, code, text)
    text, code = go("two", letters:rep(10):upper(), " --resume")
    assert.are.equal(1, code)
    assert.is_truthy(text:find("gpt.safetensors: was trained with other characters, or in another order\n  hint: ", 1,
      true), text)
  end)

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
