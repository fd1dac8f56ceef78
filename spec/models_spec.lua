-- SPDX-License-Identifier: MIT
--- The programs of examples/models on what `make models` gets, beside the models' own packages with ONNX Runtime.
local marea = require "marea"
local document = require "spec.support.document"
local folder = require "spec.support.folder"
local python = require "spec.support.onnx_round_trip".runtime

local build = os.getenv "MAREA_BUILD" or "build"
local NEAR <const> = 1e-4

--- The folder of the models, which the other builds share.
local models = "build/models"

--- Runs a program of examples/models as the program marea would; returns its results, and what it printed.
local function run(name, ...)
  local lines = {}
  local environment = setmetatable({print = function(line) lines[#lines + 1] = line end}, {__index = _G})
  local program = assert(loadfile(("examples/models/%s.lua"):format(name), "t", environment))
  return lines, program(...)
end

local function reference(...)
  local words = {}
  for i, word in ipairs{...} do words[i] = folder.quote(word) end
  return folder.must(("%s spec/support/run_models.py %s %s"):format(python, models, table.concat(words, " ")))
end

--- Does a file of the models exist? Tests of what is missing are pending.
local function has(path) return os.execute(("test -e %s/%s"):format(models, path)) == true end

local function test(name, needs, needs_python, f)
  it(name, function()
    for _, path in ipairs(needs) do
      if not has(path) then return pending(("there is no %s/%s (make models)"):format(models, path)) end
    end
    if needs_python and not python then return pending "ONNX Runtime is missing" end
    f()
  end)
end

describe("examples/models", function()
  local place
  setup(function() place = folder.new() end)
  teardown(function() folder.remove(place) end)

  local speech, talk = {"silero_vad", "talk.wav"}, models .. "/talk.wav"

  test("speech.lua finds the sentences of a recording, and no noise", speech, false, function()
    local lines, spans = run("speech", talk)
    assert.are.equal(#spans, #lines)
    assert.is_truthy(lines[1]:match "^ +%d+%.%d%d s to +%d+%.%d%d s$", lines[1])
    -- The recording: silence, a sentence, two seconds of noise from 4 s on, a sentence.
    for _, span in ipairs(spans) do
      local first, last = span[1] / 16000, span[2] / 16000
      assert.is_true(first > 1.4 and last < 4.2 or first > 5.8 and last < 9.3, ("%g to %g"):format(first, last))
    end
    assert.is_true(#spans >= 2)
  end)

  test("speech.lua, beside its package", speech, true, function()
    local _, spans, probabilities = run("speech", talk)
    local out, expected = place .. "/probabilities.npy", {}
    for first, last in reference("speech", talk, out):gmatch "(%d+) (%d+)" do
      expected[#expected + 1] = {tonumber(first), tonumber(last)}
    end
    assert.are.same(expected, spans)
    local difference = marea.tensor(probabilities, {dtype = "f64"}) - assert(marea.load_npy(out))
    assert.is_true(difference:abs():max():item() < NEAR)
  end)

  test("speech.lua of a file that is none, or has another rate", speech, false, function()
    local loud = place .. "/44.wav"
    assert(marea.save_wav(marea.ones{100}, loud, 44100))
    for path, message in pairs{
      ["README.md"] = "'README.md': not a WAV file",
      [loud] = "expected sound at 16 or 8 kHz",
    } do
      local ok, problem = pcall(run, "speech", path)
      assert.is_true(not ok and problem:find(message, 1, true) ~= nil, problem)
    end
  end)

  test("speech.c tells the same while it listens", speech, false, function()
    local _, spans = run("speech", talk)
    folder.write(place .. "/raw", folder.read(talk):sub(45))
    local text = folder.must(("%s/examples/models/speech %s/silero_vad/data/silero_vad.onnx < %s/raw"):format(build,
      models, place))
    local times = {}
    for time, what in text:gmatch "(%d+%.%d+) s (%a+)" do times[#times + 1] = {tonumber(time), what} end
    assert.are.equal(2 * #spans, #times)
    for i, span in ipairs(spans) do -- without margins
      assert.are.same({"speech", "silence"}, {times[2 * i - 1][2], times[2 * i][2]})
      assert.is_near(span[1] / 16000 + 0.03, times[2 * i - 1][1], 0.006)
      assert.is_near(span[2] / 16000 - 0.03, times[2 * i][1], 0.006)
    end
    local said, ok = folder.run(build .. "/examples/models/speech nowhere.onnx </dev/null")
    assert.is_true(not ok and said:find("nowhere.onnx", 1, true) ~= nil)
  end)

  local text = {"rapidocr_onnxruntime", "sign.png"}

  --- What rapidocr-onnxruntime 1.4.4 with ONNX Runtime 1.32 says of this picture.
  local SIGN <const> = {
    {"MareareadsONNX", 43, 38, 418, 71}, {"Lua 5.4 and C11", 41, 125, 267, 148},
    {"12.50EUR", 333, 206, 496, 232}, {"No.4711", 60, 259, 167, 280}}

  local lines_of_sign, boxes_of_sign, given_to_networks
  local function read_sign()
    if not lines_of_sign then
      lines_of_sign, boxes_of_sign, given_to_networks = run("text", models .. "/sign.png")
    end
    return lines_of_sign, boxes_of_sign, given_to_networks
  end

  test("text.lua reads a picture", text, false, function()
    local lines, boxes = read_sign()
    assert.are.equal(#SIGN, #lines)
    for i, expected in ipairs(SIGN) do
      local box = boxes[i]
      assert.are.equal(expected[1], box.text)
      assert.is_true(lines[i]:find(expected[1], 1, true) ~= nil)
      for k, side in ipairs{"left", "top", "right", "bottom"} do assert.is_near(expected[k + 1], box[side], 2) end
      assert.is_true(box.sure > 0.9)
    end
  end)

  test("text.lua's networks, beside ONNX Runtime", text, true, function()
    local _, _, given = read_sign()
    for name, both in pairs(given) do
      assert(marea.save_npy(both[1]:contiguous(), place .. "/in.npy"))
      reference("run", ("%s/rapidocr_onnxruntime/models/ch_PP-OCRv4_%s_infer.onnx"):format(models, name),
        place .. "/in.npy", place .. "/out.npy")
      local expected = assert(marea.load_npy(place .. "/out.npy"))
      local computed = name == "det" and both[2]:reshape(expected.shape) or both[2]
      assert.are.same(expected.shape, computed.shape)
      local difference = (computed - expected):abs()
      -- The edges of the map are steep: ONNX Runtime with and without its optimizations differs by 2e-4 there.
      assert.is_true(difference:max():item() < (name == "det" and 1e-3 or NEAR), name)
      assert.is_true(difference:gt(NEAR):to "f32":mean():item() < 1e-3, name)
    end
  end)

  test("text.lua of pictures without text", {"rapidocr_onnxruntime"}, false, function()
    for _, c in ipairs{1, 4} do
      assert(marea.save_png(marea.full({40, 64, c}, 200, "u8"), place .. "/empty.png"))
      local lines, boxes = run("text", place .. "/empty.png")
      assert.are.same({0, 0}, {#lines, #boxes}, c)
    end
  end)

  test("filetype.lua, beside its package", {"magika"}, true, function()
    local paths = {"README.md", "Makefile", "core/marea.h", "lua/marea/init.lua", "docs/gan_samples.png",
      "bench/peers/serve.py", build .. "/marea",
      folder.write(place .. "/empty", ""), folder.write(place .. "/few", "abc"),
      folder.write(place .. "/bytes", "\xff\xfe\1"), folder.write(place .. "/spaces", (" "):rep(9000) .. "\n"),
      folder.write(place .. "/doubtful", "words and 17 more of them, 3; x = [")}
    local lines, results = run("filetype", table.unpack(paths))
    local i = 0
    for kind, probability in reference("filetype", table.unpack(paths)):gmatch "(%S+) (%S+)" do
      i = i + 1
      assert.are.equal(kind, results[i].kind, paths[i])
      assert.is_near(tonumber(probability), results[i].probability, NEAR, paths[i])
      assert.is_true(lines[i]:find(paths[i], 1, true) == 1 and lines[i]:find("(" .. kind .. ")", 1, true) ~= nil)
    end
    assert.are.equal(#paths, i)
  end)

  --- filetype.lua's probabilities follow the files of this project, which change.
  local function but_probability(line) return (line:gsub("(%(%l+%)), %d+%.%d %%$", "%1")) end

  local all = {"silero_vad", "rapidocr_onnxruntime", "magika", "talk.wav", "sign.png"}
  test("docs/models.md says what comes", all, false, function()
    local commands = 0
    for _, block in ipairs(document.blocks "docs/models.md") do
      local command = block.lines[1]:match "^%$ (.*)$"
      if command then
        local lines, expected = {}, {}
        for line in folder.must(command):gmatch "[^\n]+" do lines[#lines + 1] = but_probability(line) end
        for i = 2, #block.lines do expected[i - 1] = but_probability(block.lines[i]) end
        assert.are.same(expected, lines)
        commands = commands + 1
      end
    end
    assert.are.equal(4, commands)
    folder.must(("ln -s %s %s/build"):format(folder.absolute "build", place))
    local program = "env -u COLORTERM NO_COLOR=1 " .. folder.quote(folder.absolute(build .. "/marea"))
    local failures, typed = document.follow("docs/models.md", program, place)
    assert.are.equal("", table.concat(failures, "\n\n"))
    assert.is_true(typed >= 4, typed)
  end)
end)
