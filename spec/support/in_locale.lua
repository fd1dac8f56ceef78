-- SPDX-License-Identifier: MIT
--- What Marea writes and says, in the locale C and then in the one that is named; prints what differs, and "same N" at
--- the end. Run: in_locale.lua LOCALE FOLDER
local locale, folder = arg[1], arg[2]
local marea = require "marea"
local read = require "spec.support.folder".read
local nn, plot = marea.nn, marea.plot

local function message(f, ...)
  local ok, text = pcall(f, ...)
  assert(not ok)
  return text
end

-- Nothing here depends on time.
local works = {
  tensors = function() return tostring(marea.tensor{{1.5, -2.25}, {1e-7, 3}}) .. tostring(marea.tensor(0.125)) end,
  large_tensor = function() return tostring(marea.arange(1, 1000) / 3) end,
  messages = function()
    return table.concat({
      message(marea.dropout, marea.ones(3), 1.5), message(marea.conv2d, 2.5), message(marea.zeros, 1.5),
      message(marea.full, {2}, 0.5, {dtype = 1.5}), message(nn.Dropout, {1.5}), message(nn.Linear, {0.5, 2}),
      message(marea.dist.Uniform, 2.5, 1.5), message(marea.arange, 0.5, 1.5, 0), message(marea.uniform, {2}, 2.5, 1.5),
      message(marea.tensor, {{1, 2}, {0.5}}), message(marea.load_png, "x", {bits = 8.5}),
      message(marea.optim.Adam, {{marea.ones{2}}, lr = -0.5}),
    }, "\n")
  end,
  modules = function()
    return tostring(nn.Sequential{nn.Linear{2, 3}, nn.Dropout{0.25}, nn.LayerNorm{3, eps = 0.0125},
      nn.LeakyReLU{0.0625}})
  end,
  order = function() -- by bytes: there, "a" comes before "B"
    local names = {}
    local net = {a = marea.ones(1), B = marea.ones(2), [1] = marea.ones(3)}
    for _, entry in ipairs(require "marea.nn.module".tensors(net)) do
      names[#names + 1] = entry.name
    end
    assert(table.concat(names, " ") == "1 B a", table.concat(names, " "))
    return require "marea.repl.inspect".text{a = 1, B = 2, ["ä"] = 3, Z = 4} .. message(nn.Linear, {2, 2, a = 1, B = 2})
  end,
  optimizer = function() return tostring(marea.optim.Adam{nn.Linear{2, 2}, lr = 0.0025}) end,
  metrics = function()
    local path = folder .. "/metrics.csv"
    local log = marea.metrics.open(path, {"epoch", "loss", "note"})
    log:write{epoch = 1, loss = 171.25, note = 1e-5}
    log:write{epoch = 2.5, loss = 0.125}
    local back = assert(marea.metrics.read(path))
    assert(back[1].loss == 171.25 and back[2].epoch == 2.5 and back[2].loss == 0.125 and back[1].note == 1e-5)
    return read(path)
  end,
  tables = function()
    local path = folder .. "/table.csv"
    if not pcall(require, "marea.csv") then return "" end
    assert(marea.save_csv({a = {0.5, 2.25}, b = {"x", "y"}}, path))
    local back = assert(marea.load_csv(path))
    assert(back.a[1] == 0.5 and back.a[2] == 2.25)
    return read(path)
  end,
  plots = function()
    local z = marea.tensor{{0.5, 0.25}, {0.125, 1}}
    local figures = {
      plot.curves{{y = {0.5, 1.25}, x = {0.125, 0.5}}, xlabel = "x", yrange = {0.5, 1.5}},
      plot.scatter{x = {0.5, 1.5}, y = {0.25, 2.5}, class = {1, 2}, names = {"a", 0.5}},
      plot.histogram{{0.5, 1.5, 1.75}, bins = 3}, plot.heatmap{z, xticks = {0.5, 1.5}},
      plot.bars{{y = {0.5, 2.5}}, labels = {0.5, 1.5}, line = {y = 0.75}}, plot.matrix{z * 8},
      plot.images{z:reshape(1, 2, 2, 1), captions = {0.5}},
    }
    local texts = {}
    for i, figure in ipairs(figures) do texts[i] = figure:script "p.png" end
    return table.concat(texts)
  end,
  pictures = function()
    local path = folder .. "/f.png"
    local ok, why = plot.curves{{y = {0.5, 1.25}}}:save(path)
    return ok and read(path) or why
  end,
  files = function()
    marea.save_npy(marea.tensor{0.5, 1.5}, folder .. "/a.npy")
    marea.save(folder .. "/a.safetensors", {a = marea.tensor{0.5}}, {x = "0.5"})
    local net = nn.Linear{2, 2, bias = false}
    net.weight = marea.ones(2, 2)
    marea.checkpoint.save(folder .. "/c.safetensors", {model = net, epoch = 3})
    assert(marea.checkpoint.load(folder .. "/c.safetensors", {model = net}).epoch == 3)
    return read(folder .. "/a.npy") .. read(folder .. "/a.safetensors")
  end,
  amounts = function()
    local amount = require "marea.internal.amount"
    return amount.bytes(1234567) .. amount.flops(98765.5) .. amount.thousands(12345)
  end,
  help = function() -- with examples of operators, whose numbers are drawn
    local texts = {}
    for _, name in ipairs{"dropout", "clamp", "adam_step", "huber"} do
      texts[#texts + 1] = require "marea.repl.help".topic({marea = marea}, name)
    end
    return table.concat(texts)
  end,
  values = function() return require "marea.repl.inspect".text{0.5, {x = 1.5, [2.5] = "y"}} end,
  shown = function() return tostring((marea.tensor{{0.5, 7.25}, {1, 2}}):show{width = 20, height = 4}) end,
  blame = function()
    local w = marea.tensor({-0.5, 0.25}, {requires_grad = true})
    return message(function() w:log():sum():backward() end)
  end,
  gradcheck = function()
    local report = marea.gradcheck(function(x) return (x * x:detach()):sum() end,
      marea.tensor({0.5, 1.25}, {dtype = "f64"}))
    return tostring(report)
  end,
  plan = function() return tostring(marea.plan(nn.Linear{300, 200}, marea.zeros{64, 300})) end,
  numbers = function() return marea.format("%s %g %5.2f %q", 0.5, 1e-9, 2.5, "x") end,
}

--- JSON as far as numbers go: none is followed by a comma and a digit within itself.
local function trace()
  local path = folder .. "/t.json"
  marea.profile.start()
  for _ = 1, 3 do marea.ones{30, 30}:matmul(marea.ones{30, 30}) end
  local report = marea.profile.stop()
  assert(report:trace(path))
  local text = read(path)
  for number in text:gmatch '":(%-?[%d%.,eE+-]+)[,}]' do
    local whole = number:gsub(",$", "")
    assert(whole:find "^%-?%d+%.?%d*$", number)
  end
  assert(text:find '"ts":%d+%.%d%d%d,"dur":%d+%.%d%d%d,', text)
  assert(not tostring(report):find "%d,%d", tostring(report))
end

local names = {}
for name in pairs(works) do names[#names + 1] = name end
table.sort(names)

local plain, same = {}, 0
os.setlocale "C"
for _, name in ipairs(names) do plain[name] = works[name]() end
for _, name in ipairs(names) do
  assert(os.setlocale(locale), "no locale " .. locale)
  assert(tostring(0.5) == "0,5")
  local found = works[name]()
  assert(os.setlocale(nil) == locale, "the host's locale is another one now")
  os.setlocale "C"
  if found == plain[name] then same = same + 1 else print(name, plain[name], "\n", found) end
end
os.setlocale(locale)
trace()
print("same " .. same)
