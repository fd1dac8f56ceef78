-- SPDX-License-Identifier: MIT
-- Lists and tables of arguments in which a value is missing: a variable that is nil, misspelt say. Lua's # and ipairs
-- end at such a hole or behind it; every public list says where it is.
local marea = require "marea"
local allclose = require "spec.support.allclose"
local message_of = require "spec.support.message_of"
local nn, optim, data, dist, plot = marea.nn, marea.optim, marea.data, marea.dist, marea.plot

local close = allclose.assert

local typo = nil

local a, b, x = marea.ones{2}, marea.ones{2}, marea.zeros{2, 3, 4}
local function layer() return nn.Linear{1, 1} end
local curve = {y = {1, 3}}

--- What is called, and what its message says.
local cases = {
  {"nn.Sequential{a, nil, b}", function() nn.Sequential{layer(), typo, layer()} end,
    "Sequential: argument 2 of 3 is nil"},
  {"nn.Sequential{nil, a}", function() nn.Sequential{typo, layer()} end, "Sequential: argument 1 of 2 is nil"},
  {"nn.Sequential{a, nil, b, nil, c}", function() nn.Sequential{layer(), typo, layer(), typo, layer()} end,
    "Sequential: argument 2 of 5 is nil"},
  {"nn.Linear{4, nil}", function() nn.Linear{4, typo} end, "Linear: argument 2 of 2 is nil"},
  {"nn.Linear{4, nil, name}", function() nn.Linear{4, typo, bias = false, name = "a"} end,
    "Linear: argument 2 of 2 is nil"},
  {"nn.Linear{nil, 4}", function() nn.Linear{typo, 4} end, "Linear: argument 1 of 2 is nil"},
  {"nn.Linear{nil}", function() nn.Linear{typo} end, "Linear: argument 1 of 1 is nil"},
  {"nn.Conv2d{1, nil}", function() nn.Conv2d{1, typo, kernel = 3} end, "Conv2d: argument 2 of 2 is nil"},
  {"nn.Conv2d kernel", function() nn.Conv2d{1, 1, kernel = {typo, 3}} end, "'kernel'"},
  {"nn.ConvTranspose2d{1, nil}", function() nn.ConvTranspose2d{1, typo, kernel = 3} end, "argument 2 of 2 is nil"},
  {"nn.BatchNorm{nil}", function() nn.BatchNorm{typo} end, "BatchNorm: argument 1 of 1 is nil"},
  {"nn.LayerNorm{nil}", function() nn.LayerNorm{typo} end, "LayerNorm: argument 1 of 1 is nil"},
  {"nn.LayerNorm{{2, nil, 3}}", function() nn.LayerNorm{{2, typo, 3}} end,
    "LayerNorm: argument 'shape': item 2 of 3 is nil"},
  {"nn.GroupNorm{nil}", function() nn.GroupNorm{typo, groups = 2} end, "GroupNorm: argument 1 of 1 is nil"},
  {"nn.Dropout{nil}", function() nn.Dropout{typo} end, "Dropout: argument 1 of 1 is nil"},
  {"nn.LeakyReLU{nil}", function() nn.LeakyReLU{typo} end, "LeakyReLU: argument 1 of 1 is nil"},
  {"nn.ELU{nil}", function() nn.ELU{typo} end, "ELU: argument 1 of 1 is nil"},
  {"nn.Softmax{nil}", function() nn.Softmax{typo} end, "Softmax: argument 1 of 1 is nil"},
  {"nn.MaxPool2d{nil}", function() nn.MaxPool2d{typo, stride = 2} end, "MaxPool2d: argument 1 of 1 is nil"},
  {"nn.UpsampleNearest2d{nil}", function() nn.UpsampleNearest2d{typo} end, "argument 1 of 1 is nil"},
  {"nn.Reshape{2, nil, 3}", function() nn.Reshape{2, typo, 3} end, "Reshape: argument 2 of 3 is nil"},
  {"build", function() nn.Linear{1}:build{2, typo, 3} end, "build: argument 'input_shape': item 2 of 3 is nil"},
  {"summary", function() nn.Linear{1}:summary{2, typo, 3} end, "summary: argument 'input_shape': item 2 of 3 is nil"},
  {"build, two inputs", function() nn.Linear{1}:build({2}, typo) end, "build: argument 'input_shape'", "got nil"},
  {"init.fans", function() nn.init.fans{2, typo, 3} end, "fans: argument 'shape': item 2 of 3 is nil"},
  {"init.glorot_uniform", function() nn.init.glorot_uniform{2, typo, 3} end, "item 2 of 3 is nil"},
  {"init.orthogonal", function() nn.init.orthogonal{2, typo, 3} end,
    "orthogonal: argument 'shape': item 2 of 3 is nil"},
  {"optim.Adam{nil}", function() optim.Adam{typo, lr = 1} end, "Adam: argument '1'", "got nil"},
  {"optim.Adam{a, nil, b}", function() optim.Adam{layer(), typo, layer()} end, "Adam: argument 2 of 3 is nil"},
  {"optim.Adam{{a, nil, b}}", function() optim.Adam{{layer(), typo, layer()}} end,
    "Adam: argument 1: item 2 of 3 is nil"},
  {"optim.SGD{a, {a, nil, b}}", function() optim.SGD{layer(), {layer(), typo, layer(), lr = 2}} end,
    "SGD: argument 2: item 2 of 3 is nil"},
  {"data.Dataset{a, nil, b}", function() data.Dataset{a, typo, b} end, "Dataset: argument 2 of 3 is nil"},
  {"data.Dataset{{name, nil}}", function() data.Dataset{{"x", typo}} end, "Dataset: argument 2 of 2 is nil"},
  {"rows{1, nil, 2}", function() data.Dataset{a}:rows{1, typo, 2} end, "item [2]", "got nil"},
  {"dist.Normal{1, nil}", function() dist.Normal{1, typo} end, "Normal: argument 2 of 2 is nil"},
  {"dist.Normal(1, nil)", function() dist.Normal(1, typo) end, "Normal: argument 2 of 2 is nil"},
  {"dist.Uniform(nil, 1)", function() dist.Uniform(typo, 1) end, "Uniform: argument 1 of 2 is nil"},
  {"sample{2, nil, 3}", function() dist.Normal{0, 1}:sample{2, typo, 3} end, "argument 'shape': item 2 of 3 is nil"},
  {"dist.class", function() dist.class("Foo", {names = {"a", typo, "b"}}) end,
    "class: argument 'names': item 2 of 3 is nil"},
  {"plan", function() marea.plan(nn.Linear{1}, {2, typo, 3}) end, "plan: argument 2 of 3 is nil"},
  {"gradcheck", function() marea.gradcheck{function() end, a, typo, b} end, "gradcheck: argument 3 of 4 is nil"},
  {"grad", function() marea.grad(a:sum(), {a, typo, b}) end, "grad: argument 'xs': item 2: expected a tensor, got nil"},
  {"grad, nil at the end", function() marea.grad(a:sum(), {a, typo, b, typo}) end,
    "item 2: expected a tensor, got nil"},
  {"checkpoint", function() marea.checkpoint.save("/nowhere", {model = {layer(), typo, layer()}}) end,
    "checkpoint.save: argument 'model': item 2 of 3 is nil"},
  {"metrics", function() marea.metrics.open("/nowhere", {"a", typo, "b"}) end,
    "metrics.open: argument 'columns': item 2 of 3 is nil"},
  {"rerun", function() marea.rerun("/nowhere", {arguments = {"a", typo, "b"}}) end,
    "rerun: argument 'arguments': item 2 of 3 is nil"},
  {"sandbox", function() marea.sandbox{read = {"/a", typo, "/b"}} end, "sandbox: argument 'read': item 2 of 3 is nil"},
  {"augment", function()
    local images = marea.zeros{1, 4, 4, 1}
    marea.augment.affine{}(images, typo, images)
  end, "affine: argument '2': expected a tensor, got nil"},
  {"augment's range", function() marea.augment.affine{rotate = {typo, 3}} end, "affine: argument 'rotate'"},
  {"plot.curves{a, nil, b}", function() plot.curves{curve, typo, curve} end, "curves: argument 2 of 3 is nil"},
  {"plot.curves y", function() plot.curves{{y = {1, typo, 3}}} end, "curves: argument 'y': item 2 of 3 is nil"},
  {"plot.curves x", function() plot.curves{{x = {1, typo, 3}, y = {1, 2, 3}}} end,
    "curves: argument 'x': item 2 of 3 is nil"},
  {"plot xrange", function() plot.curves{curve, xrange = {typo, 2}} end, "plot: argument 'xrange': item 1 of 2 is nil"},
  {"plot yrange", function() plot.curves{curve, yrange = {1, typo}} end, "plot: argument 'yrange'"},
  {"plot.bars labels", function() plot.bars{{y = {1, 2, 3}}, labels = {"a", typo, "b"}} end,
    "bars: argument 'labels': item 2 of 3 is nil"},
  {"plot.bars y", function() plot.bars{{y = {1, typo, 3}}, labels = {"a", "b", "c"}} end,
    "bars: argument 'y': item 2 of 3 is nil"},
  {"plot.scatter", function() plot.scatter{x = {1, typo, 2}, y = {1, 2, 3}} end,
    "scatter: argument 'x': item 2 of 3 is nil"},
  {"plot.histogram", function() plot.histogram{{1, typo, 3}} end, "histogram: argument 'values': item 2 of 3 is nil"},
  {"plot.histogram{nil}", function() plot.histogram{typo, bins = 3} end, "histogram: argument 1 of 1 is nil"},
  {"plot.heatmap", function() plot.heatmap{marea.eye(3), xticks = {"a", typo, "b"}} end,
    "heatmap: argument 'xticks': item 2 of 3 is nil"},
  {"plot.matrix", function() plot.matrix{marea.eye(3), labels = {"a", typo, "b"}} end,
    "matrix: argument 'labels': item 2 of 3 is nil"},
  {"plot.images", function() plot.images{marea.zeros{3, 4, 4, 1}, captions = {"a", typo, "b"}} end,
    "images: argument 'captions': item 2 of 3 is nil"},
  {"plot.panels", function() plot.panels{plot.curves{curve}, typo, plot.curves{curve}} end,
    "panels: argument 2 of 3 is nil"},
  {"zeros{2, nil, 3}", function() marea.zeros{2, typo, 3} end, "zeros: size 2 of 3 is nil"},
  {"zeros({2, nil, 3})", function() marea.zeros({2, typo, 3}, {dtype = "f64"}) end, "zeros: size 2 of 3 is nil"},
  {"zeros(2, nil, 3)", function() marea.zeros(2, typo, 3) end, "zeros: size 2 of 3 is nil"},
  {"ones(2, nil)", function() marea.ones(2, typo) end, "ones: size 2 of 2 is nil"},
  {"ones(nil, 2)", function() marea.ones(typo, 2) end, "ones: size 1 of 2 is nil"},
  {"full", function() marea.full({2, typo, 3}, 1) end, "full: argument 'shape'", "a list with nil at 2"},
  {"full, nil at the end", function() marea.full({2, typo, 3, typo}, 1) end,
    "full: argument 'shape'", "a list with nil at 2"},
  {"normal", function() marea.normal{2, typo, 3, std = 2} end, "normal: argument 'shape'", "a list with nil at 2"},
  {"tensor", function() marea.tensor{1, typo, 3} end, "tensor: item [2]: expected a number, got nil"},
  {"tensor, nil at the end", function() marea.tensor{1, typo, 3, typo} end,
    "tensor: item [2]: expected a number, got nil"},
  {"tensor, nil in front", function() marea.tensor{typo, 2} end, "tensor: item [1]: expected a number, got nil"},
  {"tensor, a row", function() marea.tensor{{1, 2, 3}, typo, {1, 2, 3}} end,
    "tensor: item [2]: expected a table, got nil"},
  {"tensor, in the first row", function() marea.tensor{{1, typo, 3}, {1, 2, 3}} end,
    "item [1][2]: expected a number, got nil"},
  {"tensor, in a later row", function() marea.tensor{{1, 2, 3}, {1, typo, 3}} end,
    "item [2][2]: expected a number, got nil"},
  {"tensor, in a later row, shorter", function() marea.tensor{{1, 2, 3, 4}, {1, typo, 3, typo}} end, "item [2]"},
  {"reshape{2, nil, 12}", function() x:reshape{2, typo, 12} end, "reshape: argument 'shape'", "a list with nil at 2"},
  {"reshape(2, nil, 12)", function() x:reshape(2, typo, 12) end, "reshape: argument 'shape': item 2 of 3 is nil"},
  {"reshape(2, nil)", function() x:reshape(2, typo) end, "reshape: argument 'shape': item 2 of 2 is nil"},
  {"reshape(nil, 12)", function() x:reshape(typo, 12) end, "reshape: argument 'shape': item 1 of 2 is nil"},
  {"reshape(nine sizes)", function() x:reshape(1, 1, 1, 1, 1, 1, 2, 3, 4) end, "at most 8 integers, got 9"},
  {"permute{1, nil, 3}", function() x:permute{1, typo, 3} end, "permute: argument 'dims'", "a list with nil at 2"},
  {"permute(nil, 2, 1)", function() x:permute(typo, 2, 1) end, "permute: argument 'dims': item 1 of 3 is nil"},
  {"expand", function() x:expand{2, typo, 4} end, "expand: argument 'shape'", "a list with nil at 2"},
  {"sum", function() x:sum{dims = {1, typo, 3}} end, "sum: argument 'dims'", "a list with nil at 2"},
  {"pad", function() x:pad{1, typo, 1, 1, 1, 1} end, "pad: argument", "a list with nil at 2"},
  {"max_pool2d", function() x:max_pool2d{kernel = {typo, 2}} end,
    "max_pool2d: argument 'kernel'", "a list with nil at 1"},
  {"concat{a, nil, b}", function() marea.concat{a, typo, b} end,
    "concat: argument 'xs': item 2: expected a tensor, got nil"},
  {"concat{a, nil, b, nil}", function() marea.concat{a, typo, b, typo, dim = 1} end,
    "item 2: expected a tensor, got nil"},
  {"concat(a, nil, b)", function() marea.concat(a, typo, b) end, "concat: argument 2 of 3 is nil"},
  {"concat(a, nil)", function() marea.concat(a, typo) end, "concat: argument 2 of 2 is nil"},
  {"stack({a, nil, b}, 1)", function() marea.stack({a, typo, b}, 1) end, "stack: argument 'xs': item 2", "got nil"},
  {"stack(a, nil, {dim})", function() marea.stack(a, typo, {dim = 1}) end, "stack: argument 2 of 3 is nil"},
  {"x[{1, nil, 2}]", function() return x[{1, typo, 2}] end, "index: expected", "got nil at 2"},
  {"x[{1, nil, 2, nil}]", function() return x[{1, typo, 2, typo}] end,
    "index: expected", "got nil at 2"},
  {"x[{1, nil, 2}] = 1", function() x[{1, typo, 2}] = 1 end, "got nil at 2"},
}

describe("a hole in", function()
  for _, case in ipairs(cases) do
    it(case[1] .. " is an error that says where", function()
      local message = message_of(case[2])
      for i = 3, #case do assert.is_truthy(message:find(case[i], 1, true), message) end
      assert.is_truthy(message:find("^[^\n]*holes_spec%.lua:%d+: "), message)
    end)
  end

  it("a list that a script fills is found wherever it lies in the table", function()
    local orders = {{1, 3}, {3, 1}, {1, 2, 4}, {4, 2, 1}, {1, 2, 3, 5}, {5, 3, 2, 1}, {2}, {8}, {1, 2, 3, 4, 6}}
    for _, order in ipairs(orders) do
      local sizes, layers, tensors = {}, {}, {}
      for _, i in ipairs(order) do sizes[i], layers[i], tensors[i] = 1, nn.ReLU{}, a end
      for _, use in ipairs{
        function() marea.zeros(sizes) end, function() marea.full(sizes, 1) end,
        function() marea.zeros{1}:reshape(sizes) end,
        function() marea.tensor(sizes) end, function() nn.Sequential(layers) end, function() marea.concat(tensors) end,
        function() data.Dataset(tensors) end, function() optim.Adam(tensors) end,
        function() return marea.zeros{1, 1, 1, 1, 1, 1}[sizes] end,
      } do assert.is_truthy(message_of(use):find "nil", table.concat(order, " ")) end
    end
  end)

  it("the program's message brings the misspelt variable", function()
    local path = os.tmpname()
    local file <close> = assert(io.open(path, "w"))
    file:write('local nn = require("marea").nn\nlocal relu = nn.ReLU{}\n'
      .. 'local net = nn.Sequential{nn.Linear{1, 1}, rellu, relu}\n')
    file:close()
    local ok, message = xpcall(dofile, marea.explain, path)
    os.remove(path)
    assert.is_false(ok)
    assert.is_truthy(message:find("argument 2 of 3 is nil\n  hint: ", 1, true), message)
    assert.is_truthy(message:find("'relu'", 1, true), message)
  end)
end)

describe("no hole is", function()
  it("what a list leaves out at its end, or a script has taken away", function()
    close(nn.Linear{4, init = "ones"}(marea.ones{1, 3}), {{3, 3, 3, 3}})
    local layers = {}
    for i = 1, 5 do layers[i] = nn.Linear{1, 1} end
    table.remove(layers)
    assert.are.equal(8, #nn.Sequential(layers):parameters())
    layers[#layers] = nil
    assert.are.equal(6, #nn.Sequential(layers):parameters())
    local shape = x.shape
    shape[#shape] = nil
    assert.are.same({2, 3}, marea.zeros(shape).shape)
    assert.are.same({2, 3}, marea.full(shape, 1).shape)
    assert.are.same({2, 3}, nn.Reshape(shape)(marea.zeros{1, 6})[1].shape)
    local sizes = {}
    for i = 1, 3 do sizes[#sizes + 1] = i end
    assert.are.same({1, 2, 3}, marea.zeros(sizes).shape)
    assert.are.same({5, 1, 2, 3}, nn.Reshape(sizes)(marea.zeros{5, 6}).shape)
  end)

  it("an argument of a function that may be left out", function()
    close(x:sum(nil), x:sum())
    close(marea.ones{3}:clamp(nil, 0.5), {0.5, 0.5, 0.5})
    assert.are.equal("f32", marea.zeros({2}, nil).dtype)
    close(marea.concat({a, b}, nil), marea.concat{a, b})
    assert.are.same({1, 2}, marea.linear(marea.ones{1, 2}, marea.eye(2), nil, {activation = "relu"}).shape)
  end)

  it("a long list that lies in a table as it should", function()
    local list = {}
    for i = 1000, 1, -1 do list[i] = i end
    close(marea.tensor(list):sum(), 500500)
    list[1002] = 1
    assert.is_truthy(message_of(function() marea.tensor(list) end):find "item %[1001%]: expected a number, got nil")
    list[1002], list[1 << 40] = nil, 1
    assert.is_truthy(message_of(function() marea.tensor(list) end):find "item %[1001%]")
    assert.is_truthy(message_of(function() marea.concat{a, [1 << 40] = b} end):find "item 2")
    assert.is_truthy(message_of(function() nn.Sequential{nn.ReLU{}, [1 << 60] = nn.ReLU{}} end)
      :find "argument 2 of 1152921504606846976 is nil")
  end)
end)
