-- SPDX-License-Identifier: MIT
-- The examples of the documentation run as a user would run them, each alone, beside the files that they read: those of
-- other frameworks are in spec/golden/documents.zip (make_documents.py there), Marea writes the others.
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

local function write_pets(home)
  for i, class in ipairs{"cat", "dog"} do
    folder.must(("mkdir -p %s/pets/%s"):format(home, class))
    for k = 1, 9 do
      assert(marea.save_jpeg(marea.full({40, 50, 3}, i / 4), ("%s/pets/%s/%d.jpg"):format(home, class, k)))
    end
  end
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
  assert(os.execute(("ln -s %s %s/scripts"):format(folder.quote(folder.absolute "scripts"), folder.quote(home))))
  folder.must(("mkdir -p %s/data %s/out/classifier"):format(home, home))
  for _, write in ipairs{write_pictures, write_pets, write_sound, write_table, write_safetensors,
    write_onnx} do write(home) end
  return home
end

-- ---- the examples ----

local WEIGHTS = "print(net[%d].weight:mean():item(), net[%d].bias:mean():item())"

-- What most examples of training take as there.
local STEP = [[
local net = marea.nn.Linear{4, 3}
local x, y = marea.normal{5, 4}, marea.tensor({1, 2, 3, 1, 2}, {dtype = "i64"})
local optimizer = marea.optim.Adam{net}
local function loss(result, wanted) return result:cross_entropy(wanted) end
]]

-- For each example of a page, in its order: what it prints, as spec/support/document.lua compares it; `needs`: optional
-- modules; `first`: what the page takes as there; `also`: what is run behind it, to see what it did.
local PAGES = {
  {path = "docs/files.md",
    {heading = "JPEG", also = "print(photo.shape, small.shape, marea.load_image('small.jpg').shape)",
      "(600, 500, 3)\t(300, 250, 3)\t(300, 250, 3)"},
    {heading = "Folders of pictures", also = "print(#train, (train:rows{1, 18}).shape)",
      "Dataset(18 rows: image u8 (18, 32, 32, 3), label i64 (18))\tcat, dog", "0.37... (f32)...", "...",
      "18\t(2, 32, 32, 3)"},
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
  {path = "docs/onnx.md",
    {heading = "Networks from elsewhere and for elsewhere: ONNX", also = "print(image.shape, scores.shape)",
      "Model(image f32 (any, 3, 224, 224) -> scores f32 (any, 10))", "...", "7", "(1, 3, 224, 224)\t(1, 10)"},
    {heading = "Networks for elsewhere", also = [[
      local again, two = assert(marea.onnx.load "model.onnx"), marea.uniform{2, 32, 32, 3}
      print((again(two) - net(two)):abs():max():item() < 1e-5, again)]],
      "true\tModel(image f32 (any, 32, 32, 3) -> scores f32 (any, 10))", "..."},
  },
  {path = "docs/classifier.md",
    {heading = "Random changes of images", first = [[
      local model = marea.nn.Sequential{marea.nn.Flatten{}, marea.nn.Linear{784, 10}}
      local optimizer = marea.optim.SGD{model, lr = 0.1}
      local train = assert(marea.data.mnist("sample", "train")):subset(1, 256)]],
      also = "print(mirror((train:rows{1})).shape)", "(1, 28, 28, 1)"},
    {heading = "Judging generated digits", first = [[
      local made = dofile "scripts/classifier_model.lua" ()
      made:evaluate()
      local images = marea.uniform{20, 28, 28, 1}
      local real_features = made:features(images)
      local path = "out/classifier/classifier.safetensors"
      assert(marea.checkpoint.save(path, {model = made}))]],
      also = "print(features.shape, p.shape, classes.coverage, distance < 1e-3)", "(20, 128)\t(20, 10)\t0\ttrue"},
  },
  {path = "docs/debugging.md",
    {heading = "Will it fit? `marea.plan`", first = [[
      local VAE = dofile "scripts/vae_model.lua"
      local vae = VAE{model = "conv", latent = 2, posterior = "normal"}]],
      "Layer (type) ...", "...", "Params: 3,280,901", "Result: f32 (128, 28, 28, 1), f32 ()",
      "Inference: 6.49 GFLOP, ...", "Training step, Adam: 19.4 GFLOP ..."},
    {heading = "Will it fit? `marea.plan`", first = STEP, also = "print(plan.peak > 0)", "true"},
    {heading = "What takes the memory? `marea.memory_report`", first = STEP,
      "In use ...", "Tensor ...", "...", "f32 ...", "..."},
    {heading = "Is the gradient right? `marea.gradcheck`", first = STEP .. [[
      local target = y
      local function my_loss(result, wanted) return result:cross_entropy(wanted) end]],
      "gradients agree ...", "gradients agree ..."},
  },
  {path = "docs/distributions.md",
    {heading = "Distributions", first = [[
      local mean, std = marea.zeros{3}:requires_grad_(), marea.ones{3}
      local logits = marea.zeros{2, 5}
      local function likelihood(z) return (z - 1):square():sum() * -0.5 end]], also = [[
      loss:backward()
      print(z.shape, bit.shape, class.shape, mean.grad.shape)]], "(10, 3)\t(2, 5)\t(2)\t(3)"},
    {heading = "Divergences", first = "local dist = marea.dist", also = [[
      local p, q = Exponential{rate = marea.tensor(1)}, Exponential{rate = marea.tensor(2)}
      print(dist.kl(p, q):item(), p:rsample{4}.shape, p:log_prob(3):item())]], "0.306...\t(4)\t-3.0"},
  },
  {path = "docs/embedding.md",
    {heading = "Scripts that nobody has read", first = "local text = 'print(threshold); return 2 * ...'",
      also = "print(ok, loss)", "0.5", "...", "true\t0.02"},
  },
  {path = "docs/errors.md",
    {heading = "What raises, and what does not", first = STEP .. "local data = marea.data",
      also = "print(#train, marea.load('out/net.safetensors').weight.shape)", "6000\t(4, 3)"},
    {heading = "What raises, and what does not", first = STEP .. "loss = marea.tensor(0 / 0):requires_grad_()",
      also = "print(ok)", "example.lua:7: backward: the loss is nan, so no gradient was computed", "...", "false"},
    {heading = "What raises, and what does not", first = "local function train() return 3 end",
      also = "print(finished, message)", "true\t3"},
  },
  {path = "docs/gan.md",
    {heading = "Alternation in the script", first = [[
      local nn, optim = marea.nn, marea.optim
      local generator, discriminator = nn.Linear{2, 3}, nn.Linear{3, 1}
      local optimizers = {generator = optim.Adam{generator}, discriminator = optim.Adam{discriminator}}
      local x, z = marea.ones{4, 3}, marea.ones{4, 2}
      local function discriminator_loss() return discriminator(x):mean() - discriminator(generator(z)):mean() end
      local function generator_loss()
        print(discriminator.weight.requires_grad)
        return discriminator(generator(z)):mean()
      end]],
      also = "print(discriminator.weight.requires_grad)", "false", "true"},
  },
  {path = "docs/rerun.md",
    {heading = "Edit and rerun", first = "local epochs = 3", also = "print(epoch) end", "1", "2", "3"},
    {heading = "What is kept", first = STEP .. [[
      assert(marea.save("pretrained.safetensors", {weight = marea.ones(4, 3), bias = marea.ones(3)}))]],
      also = "print(net.weight:sum():item())", "12.0"},
  },
  {path = "docs/vae.md",
    {heading = "What the loss bounds", first = [[
      local q, prior = marea.dist.Normal(marea.zeros{4, 2}, 1), marea.dist.Normal(0, 1)
      local function log_likelihood(z) return z:sum{dims = {-1}} * 0 - 3 end]],
      also = "print(log_weights.shape, bound)", "(5000, 4)\ttensor f32 (4): min -3, ...", "..."},
  },
}

local function missing(example)
  for _, module in ipairs(example.needs or {}) do
    if not there(module) then return module end
  end
end

local function source_of(block, example)
  local lines = table.concat(block.lines, "\n")
  local first = example.first and "local marea = require 'marea'\n" .. example.first .. "\n" or ""
  return first .. lines .. "\n" .. (example.also or "")
end

--- The lines that an example prints in the folder `home`.
local function run(block, example, home)
  folder.write(home .. "/example.lua", source_of(block, example))
  local printed = folder.must(("cd %s && LC_ALL=C NO_COLOR=1 %s example.lua"):format(folder.quote(home), program))
  local lines = {}
  for line in printed:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines
end

local function examples_of(path)
  local blocks = {}
  for _, block in ipairs(document.blocks(path)) do
    if block.info == "lua" then blocks[#blocks + 1] = block end
  end
  return blocks
end

local function headings(list)
  local result = {}
  for i, one in ipairs(list) do result[i] = one.heading end
  return result
end

describe("an example of", function()
  it("any page is run: here, or by the spec that is named", function()
    local unknown, elsewhere = {}, {["docs/luajit.md"] = "luajit", ["docs/precision.md"] = "documents",
      ["docs/scripting.md"] = "documents"}
    for path in folder.must "ls docs/*.md":gmatch "%S+" do
      if #examples_of(path) > 0 and not elsewhere[path] then unknown[path] = true end
    end
    for _, page in ipairs(PAGES) do unknown[page.path] = nil end
    assert.are.same({}, unknown)
  end)

  it("docs/onnx.md runs at the shell", function()
    local place, shell = new_home(), nil
    for _, block in ipairs(document.blocks "docs/onnx.md") do
      if block.heading == "Without Lua" and block.info == "" then shell = table.concat(block.lines, "\n") end
    end
    assert(marea.save_npy(marea.ones(1, 3, 224, 224), place .. "/input.npy"))
    local printed = folder.must(("cd %s && marea() { %s \"$@\"; } && %s"):format(folder.quote(place), program, shell))
    assert.matches("^input  image f32 %(any, 3, 224, 224%)\nresult scores f32 %(any, 10%)\n", printed)
    assert.are.equal(7, assert(marea.load(place .. "/results.safetensors")).scores:argmax(2):item())
  end)

  local home
  setup(function() home = new_home() end)

  for _, page in ipairs(PAGES) do
    local blocks = examples_of(page.path)

    it(page.path .. " is known here, with what it prints", function()
      assert.are.same(headings(blocks), headings(page))
    end)

    for i, example in ipairs(page) do
      it(("%s runs alone: %d, %s"):format(page.path, i, example.heading), function()
        local module = missing(example)
        if module then return pending(("needs marea.%s, which is not there"):format(module)) end
        local lines = run(blocks[i], example, home)
        if document.matches(example, lines) then return end
        assert.are.equal(table.concat(example, "\n"), table.concat(lines, "\n"))
      end)
    end
  end
end)
