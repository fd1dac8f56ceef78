-- SPDX-License-Identifier: MIT
-- The examples of docs/files.md and docs/onnx.md run as a user would run them, each alone, beside the files that they
-- read: those of other frameworks are in spec/golden/documents.zip (make_documents.py there), Marea writes the others.
local marea = require "marea"
local document = require "spec.support.document"
local folder = require "spec.support.folder"
local nn = marea.nn

local program = folder.quote(folder.absolute((os.getenv "MAREA_BUILD" or "build") .. "/marea"))

teardown(folder.remove)

-- ---- the files that examples read ----

local function there(module) return (pcall(require, "marea." .. module)) end

local function write_pictures(home)
  local picture = marea.arange(0, 600 * 500 * 3 - 1):reshape(600, 500, 3):remainder(251):to "u8"
  assert(marea.save_jpeg(picture, home .. "/photo.jpg"))
  assert(marea.save_png(picture, home .. "/cat.png"))
end

local function write_sound(home)
  if not there "sndfile" then return end
  assert(marea.save_wav(marea.tensor{{0.5, -0.25}, {-0.5, 0.25}}, home .. "/talk.wav", 16000))
end

local function write_table(home)
  folder.write(home .. "/houses.csv", 'street,rooms,area\n"Elm Road 1, left",3,72.5\nMill Lane 7,4,90\n')
end

--- The parameters of two layers as PyTorch would name and turn them.
local function write_safetensors(home)
  assert(marea.save(home .. "/model.safetensors", {
    ["encoder.layer1.weight"] = marea.full({100, 784}, 0.75), ["encoder.layer1.bias"] = marea.full({100}, 0.75),
    ["encoder.layer3.weight"] = marea.full({10, 100}, 1), ["encoder.layer3.bias"] = marea.full({10}, 1),
  }))
end

--- A network of ONNX that takes images (N, 3, 224, 224) and finds class 7 in all of them.
local function write_onnx(home)
  local Network = nn.class "Network"
  function Network:init() self.head = nn.Linear{3, 10} end
  function Network:forward(x) return self.head(x:mean{dims = {3, 4}}) end
  local net = Network()
  marea.no_grad(function() net.head.bias:select(1, 7):fill_(100) end)
  local inputs = {image = marea.zeros(1, 3, 224, 224)}
  assert(marea.onnx.save(net, home .. "/model.onnx", inputs, {results = {"scores"}, free = {image = {1}}}))
end

local function new_home()
  local home = folder.new()
  for name, bytes in pairs(assert(marea.load_zip "spec/golden/documents.zip")) do
    folder.write(home .. "/" .. name, bytes:to_bytes())
  end
  for _, write in ipairs{write_pictures, write_sound, write_table, write_safetensors, write_onnx} do write(home) end
  return home
end

-- ---- the examples ----

local WEIGHTS = "print(net[%d].weight:mean():item(), net[%d].bias:mean():item())"

-- For each example of a page, in its order: what it prints, as spec/support/document.lua compares it; `needs`: optional
-- modules; `also`: what is run behind it, to see what it did.
local PAGES = {
  ["docs/files.md"] = {
    {heading = "JPEG", also = "print(photo.shape, small.shape, marea.load_image('small.jpg').shape)",
      "(600, 500, 3)\t(300, 250, 3)\t(300, 250, 3)"},
    {heading = "Sound and tables", needs = {"sndfile", "csv"}, also = [[
      local soft, again = marea.load_wav "soft.wav"
      print(sound.shape, rate, again, soft:totable()[1][1], x.dtype, x.shape, table.concat(names, " "))
      for line in io.lines "short.csv" do print(line) end]],
      "(2, 2)\t16000\t16000\t0.0625\tf32\t(2, 2)\tstreet rooms area", "area,street", '72.5,"Elm Road 1, left"',
      "90...,Mill Lane 7"},
    {heading = "Without files", "3"},
    {heading = "PyTorch", also = WEIGHTS:format(1, 3), "3", "0.25\t0.5"},
    {heading = "Names of parameters", also = WEIGHTS:format(1, 3), "0.75\t1.0"},
    {heading = "Keras", needs = {"hdf5"}, "Model(input_layer (any, 28, 28, 1) -> dense)", "...",
      "6,810 parameters\ttensor f32 (1, 10): ...", "...",
      "tensor f32 (3, 3, 1, 4): min 0.25, mean 0.25, max 0.25", "..."},
    {heading = "Keras", needs = {"hdf5"}, also = WEIGHTS:format(2, 3), "0.25\t0.5"},
    {heading = "Torch7", also = WEIGHTS:format(1, 3), "nn.Sequential\t3", "0.25\t0.5"},
    {heading = "GGUF", "llama\ttensor f32 (32, 8): min 0.25, mean 0.25, max 0.25", "..."},
  },
  ["docs/onnx.md"] = {
    {heading = "Networks from elsewhere and for elsewhere: ONNX", also = "print(image.shape, scores.shape)",
      "Model(image f32 (any, 3, 224, 224) -> scores f32 (any, 10))", "...", "7", "(1, 3, 224, 224)\t(1, 10)"},
    {heading = "Networks for elsewhere", also = [[
      local again, two = assert(marea.onnx.load "model.onnx"), marea.uniform{2, 32, 32, 3}
      print((again(two) - net(two)):abs():max():item() < 1e-5, again)]],
      "true\tModel(image f32 (any, 32, 32, 3) -> scores f32 (any, 10))", "..."},
  },
}

local function missing(example)
  for _, module in ipairs(example.needs or {}) do
    if not there(module) then return module end
  end
end

--- The lines that an example prints in the folder `home`.
local function run(block, example, home)
  folder.write(home .. "/example.lua", table.concat(block.lines, "\n") .. "\n" .. (example.also or ""))
  local printed = folder.must(("cd %s && LC_ALL=C NO_COLOR=1 %s example.lua"):format(folder.quote(home), program))
  local lines = {}
  for line in printed:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines
end

local function examples_of(page)
  local blocks = {}
  for _, block in ipairs(document.blocks(page)) do
    if block.info == "lua" then blocks[#blocks + 1] = block end
  end
  return blocks
end

for page, examples in pairs(PAGES) do
  describe("an example of " .. page, function()
    local home
    setup(function() home = new_home() end)
    local blocks = examples_of(page)

    it("is known here, with what it prints", function()
      local headings = {{}, {}}
      for i, list in ipairs{blocks, examples} do
        for k, one in ipairs(list) do headings[i][k] = one.heading end
      end
      assert.are.same(headings[1], headings[2])
    end)

    for i, example in ipairs(examples) do
      it(("runs alone: %d, %s"):format(i, example.heading), function()
        local module = missing(example)
        if module then return pending(("needs marea.%s, which is not there"):format(module)) end
        local lines = run(blocks[i], example, home)
        if document.matches(example, lines) then return end
        assert.are.equal(table.concat(example, "\n"), table.concat(lines, "\n"))
      end)
    end
  end)
end
