-- SPDX-License-Identifier: MIT
-- Tensors as a script sees them: making and reading them, indices, fields, operators of Lua, numbers beside tensors.
local core = require "marea.core"
local ops = core.ops

local function matrix() return core.tensor{{1, 2, 3}, {4, 5, 6}} end

describe("tensor", function()
  it("makes nested tables into f32, or the dtype that is asked for, and back", function()
    for _, dtype in ipairs{"f32", "f64", "i64", "u8"} do
      local t = core.tensor({{1, 2}, {3, 4}, {5, 6}}, {dtype = dtype})
      assert.are.equal(dtype, t.dtype)
      assert.are.same({3, 2}, t.shape)
      assert.are.same({{1, 2}, {3, 4}, {5, 6}}, t:totable())
    end
    assert.are.equal("f32", matrix().dtype)
  end)

  it("takes a number, empty tables and another tensor", function()
    assert.are.equal(0, core.tensor(2.5).rank)
    assert.are.equal(2.5, core.tensor(2.5):item())
    assert.are.same({0}, core.tensor{}.shape)
    assert.are.same({2, 0}, core.tensor{{}, {}}.shape)
    local t = matrix()
    local copy = core.tensor(t, {dtype = "f64"})
    assert.is_false(copy:shares(t))
    assert.are.same(t:totable(), copy:totable())
  end)

  it("keeps whole numbers of integer dtypes whole", function()
    local big = core.tensor({math.maxinteger, math.mininteger, 3.0}, {dtype = "i64"})
    assert.are.same({math.maxinteger, math.mininteger, 3}, big:totable())
    assert.are.equal("integer", math.type(big[3]))
    assert.are.equal("float", math.type(matrix()[{1, 1}]))
  end)

  it("reads tables raw", function()
    local hostile = setmetatable({1, 2}, {__index = error, __len = error, __pairs = error})
    assert.are.same({1, 2}, core.tensor(hostile):totable())
  end)

  it("has fields", function()
    local t = matrix()
    assert.are.equal(2, t.rank)
    assert.are.equal(2, #t)
    assert.is_false(t.requires_grad)
    assert.is_true(t.is_leaf)
    assert.is_nil(t.grad)
    assert.are.equal(3, t:size(2))
    assert.are.equal(3, t:size(-1))
    assert.are.same({2, 3}, {t:size()})
    assert.are.equal(6, t:numel())
    assert.is_true(t:is_contiguous())
    assert.is_false(t:transpose(1, 2):is_contiguous())
  end)

  it("cannot be taken apart", function()
    assert.is_false(getmetatable(matrix()))
    assert.has_error(function() setmetatable(matrix(), {}) end)
  end)
end)

describe("an index", function()
  it("that is full reads a number, a partial one a view", function()
    local t = matrix()
    assert.are.equal(6, t[{2, 3}])
    assert.are.equal(6, t[{-1, -1}])
    assert.are.equal(6, t[2][3])
    assert.are.same({4, 5, 6}, t[-1]:totable())
    assert.are.same({4, 5, 6}, t[2.0]:totable())
    assert.is_true(t[1]:shares(t))
  end)

  it("may be a string of ranges with inclusive ends", function()
    local t = ops.arange(1, 24):reshape(4, 6)
    assert.are.same({{8, 9}, {14, 15}}, t["2:3, 2:3"]:totable())
    assert.are.same({2, 8, 14, 20}, t[":, 2"]:totable())
    assert.are.same({{1, 3, 5}, {19, 21, 23}}, t["::3, :5:2"]:totable())
    assert.are.same({{23, 24}}, t["-1:, -2:"]:totable())
    assert.are.same({4, 6}, t[":"].shape)
    assert.are.equal(12, t["2, -1"])
    assert.are.same({0, 6}, t["3:2"].shape)
  end)

  it("lets gradients through", function()
    local t = core.tensor({1, 2, 3, 4}, {requires_grad = true})
    local y = t["2:3"]:mul(10):sum() + t["1:1"]:sum()
    y:backward()
    assert.are.same({1, 10, 10, 0}, (t.grad or error "no gradient"):totable())
  end)

  it("writes in place", function()
    local t = matrix()
    t[{1, 1}] = 7
    t[2] = core.tensor{8, 9, 10}
    t[":, 2"] = -1
    assert.are.same({{7, -1, 3}, {8, -1, 10}}, t:totable())
    t[":"] = 0
    assert.are.same({{0, 0, 0}, {0, 0, 0}}, t:totable())
    t:fill_(2):copy_(core.tensor{1, 2, 3}):mul_(2)
    assert.are.same({{2, 4, 6}, {2, 4, 6}}, t:totable())
    assert.are.equal(0, t:zero_():sum():item())
  end)

  it("writes to a tensor with gradients only inside no_grad", function()
    local t = core.tensor({1, 2}, {requires_grad = true})
    assert.has_error(function() t[1] = 5 end)
    core.no_grad(function() t[1] = 5 end)
    assert.are.equal(5, t[1]:item())
    assert.is_true(t.requires_grad)
  end)
end)

describe("a full index of what learns", function()
  local w, b

  before_each(function()
    w, b = core.tensor({1, 2, 3}, {requires_grad = true}), core.tensor(0.5, {requires_grad = true})
  end)

  it("gives a tensor of rank 0 that gradients flow through, in all forms", function()
    local x = core.tensor{1, 2}
    local y = x * w[1] + b + w["2"] + w[{-1}] * w[{"1"}]
    assert.are.same({0, "f32", true}, {w[1].rank, w[1].dtype, w[1].requires_grad})
    y:sum():backward()
    assert.are.same({{3 + 2 * 3, 2, 2}, 2}, {w.grad:totable(), b.grad:item()})
    local sum = 0
    for i = 1, #w do sum = sum + w[i] * i end
    assert.are.same({1, 2, 3}, core.grad(sum, w):totable())
    local m = core.ops.full({2, 2}, 1, "f64"):requires_grad_()
    assert.are.same({{0, 0}, {2, 0}}, core.grad(m[{2, 1}] * m["2, 1"], m):totable())
    assert.are.same({0, 1, 1}, core.grad(core.ops.stack{w[2], w[3]}:sum(), w):totable())
  end)

  it("gives one of results with history, and second derivatives", function()
    local y = w * w
    local slope = core.grad(y[2] * y[2], w, {create_graph = true})
    assert.are.same({0, 32, 0}, slope:totable()) -- of w^4
    assert.are.same({0, 48, 0}, core.grad(slope[2], w):totable())
  end)

  it("gives a number where nothing is recorded: in no_grad, detached, of what does not learn", function()
    assert.are.same({2, 1, 4}, {w:detach()[2], core.no_grad(function() return w[1], (w * w)[2] end)})
    assert.are.equal("float", math.type(core.no_grad(function() return w[1] end)))
    assert.are.equal(2, core.tensor({1, 2}, {dtype = "i64"})[2])
    w:requires_grad_(false)
    assert.are.equal(1, w[1])
    assert.are.same({{1, 2, 3}, 0.5}, {w:totable(), b:item()})
  end)

  it("works in a plan, and is refused where a number is wanted", function()
    local plan = require "marea.plan"(function() return (w[1] * 2):sum() end)
    assert.is_truthy(tostring(plan))
    for _, f in ipairs{function() return w[1] < 2 end, function() return w[1] .. "" end,
      function() return core.tensor{w[1]} end, function() return math.floor(w[1]) end,
      function() return ("%g"):format(w[1]) end, function() return #w[1] end,
      function() return w[w[1]] end, function() core.tensor{1}[1] = w[1] end} do
      assert.is_false(pcall(f))
    end
  end)
end)

describe("an index by a list", function()
  it("may mix positions and ranges, to read and to write", function()
    local t = core.ops.arange(1, 12):reshape(3, 4)
    assert.are.same({5, 9}, t[{"2:3", 1}]:totable())
    assert.are.same({{1, 3}, {9, 11}}, t[{"::2", "::2"}]:totable())
    assert.are.same(t["-1, 2:3"]:totable(), t[{-1, "2:3"}]:totable())
    assert.are.same(t[2]:totable(), t[{2, ":"}]:totable())
    assert.are.equal(7, t[{"2", " 3 "}])
    t[{"2:3", 1}] = 0
    t[{1, "2:3"}] = core.tensor{-1, -2}
    assert.are.same({{1, -1, -2, 4}, {0, 6, 7, 8}, {0, 10, 11, 12}}, t:totable())
    for _, key in ipairs{{"2:9", 1}, {"1,2"}, {"a", 1}, {{1}, 2}, {1, 2, ":"}, {""}, {":", true}} do
      assert.is_false(pcall(function() return t[key] end))
    end
  end)
end)

describe("a shape", function()
  local x = core.ops.full({2, 3}, 0)

  it("prints, compares and joins texts", function()
    assert.are.equal("(2, 3) () (4)", ("%s %s %s"):format(x.shape, core.tensor(1).shape, core.ops.full({4}, 0).shape))
    assert.are.equal("shape (2, 3)!", "shape " .. x.shape .. "!")
    assert.are.equal("(2, 3)7", x.shape .. 7)
    assert.is_true(x.shape == x.shape and x.shape == {2, 3} and {2, 3} == x.shape and x.shape == {2.0, 3})
    assert.is_true(core.tensor(1).shape == {})
    for _, other in ipairs{{3, 2}, {2}, {2, 3, 1}, {}, {"2", 3}} do
      assert.is_true(x.shape ~= other and other ~= x.shape)
    end
    assert.is_false(x.shape == "(2, 3)" or x.shape == 6)
    for _, f in ipairs{function() return x.shape .. nil end, function() return x .. x.shape end,
      function() return {} .. x.shape end} do
      assert.is_false(pcall(f))
    end
  end)

  it("is a list like any other", function()
    local marea = require "marea"
    local shape = x.shape
    assert.are.same({2, 2, 3, "2x3"}, {#shape, shape[1], shape[2], table.concat(shape, "x")})
    for _, i in ipairs{-3, -1, 0, 3} do assert.is_nil(shape[i]) end -- scripts compute shape[#shape - d] or 1
    assert.are.same({2, 3}, {table.unpack(shape)})
    local seen = {}
    for i, size in ipairs(shape) do seen[i] = size end
    assert.are.same({2, 3}, seen)
    for _, t in ipairs{marea.zeros(shape), marea.zeros(shape, {dtype = "i64"}), marea.normal(shape), x:reshape(shape),
      core.ops.full({1}, 0):expand(shape), marea.nn.Reshape(core.ops.full({3}, 0).shape)(x), marea.full_like(x, 1)} do
      assert.is_true(t.shape == shape, tostring(t.shape))
    end
    shape[3] = 1
    assert.are.equal("(2, 3, 1)", tostring(shape))
    assert.is_true(x.shape == {2, 3})
  end)

  it("is what distributions and initializers give and get", function()
    local marea = require "marea"
    local normal = marea.dist.Normal{x, 1}
    assert.are.equal("(2, 3) ()", tostring(normal.batch_shape) .. " " .. tostring(normal.event_shape))
    assert.is_true(marea.dist.Normal{core.ops.full({4, 1, 3}, 0), core.ops.full({2, 1}, 1)}.batch_shape == {4, 2, 3})
    local categorical = marea.dist.Categorical{logits = x}
    assert.is_true(categorical.batch_shape == {2})
    local given
    marea.nn.Linear{2, 3, init = function(shape, ...)
      given = tostring(shape)
      return marea.nn.init.glorot_uniform(shape, ...)
    end}
    assert.are.equal("(2, 3)", given)
  end)

  it("stays one on its way out of a sandbox and into it", function()
    local box = require "marea".sandbox{seconds = 5}
    local _, out, same, text = assert(box:run([[
      local x, shape = marea.zeros(4, 5), ...
      return x.shape, shape == {2, 3}, "is " .. shape .. tostring(getmetatable(shape))]], x.shape))
    assert.are.same({"(4, 5)", true, "is (2, 3)nil"}, {tostring(out), same, text})
    box:close()
  end)
end)

describe("an operator of Lua", function()
  it("works elementwise with broadcasting", function()
    local t = core.tensor{1, 2, 4}
    assert.are.same({2, 4, 8}, (t + t):totable())
    assert.are.same({{0, 1, 3}, {-1, 0, 2}}, (t - core.tensor{{1}, {2}}):totable())
    assert.are.same({-1, -2, -4}, (-t):totable())
    assert.are.same({2, 4, 16}, (2 ^ t):totable())
    assert.are.same({1, 0.5, 0.25}, (1 / t):totable())
  end)

  it("gives a number the dtype of the tensor beside it", function()
    local function dtype(name, number) return (core.tensor({1, 2}, {dtype = name}) + number).dtype end
    assert.are.equal("f32", dtype("f32", 1e300))
    assert.are.equal("f64", dtype("f64", 0.1))
    assert.are.equal("i64", dtype("i64", 2))
    assert.are.equal("f32", dtype("i64", 2.0)) -- a Lua float, whatever its value
    assert.are.equal("f32", dtype("i64", 2.5))
    assert.are.equal("u8", dtype("u8", 200))
    assert.are.equal("f32", dtype("u8", 200.0))
    assert.are.equal(0.1 + 1, (core.tensor({1}, {dtype = "f64"}) + 0.1)[1])
    local condition = core.tensor({1, 0}, {dtype = "u8"})
    assert.are.equal("f32", ops.where(condition, 1, 0).dtype)
  end)

  it("never compares tensors with ==", function()
    assert.are_not.equal(core.tensor{1}, core.tensor{1})
    assert.are.same({1, 0}, core.tensor{1, 2}:eq(1):totable())
  end)
end)

describe("arguments", function()
  it("come by position, by name, or mixed", function()
    local t = ops.arange(1, 6):reshape{2, 3}
    local expected = {{6}, {15}}
    assert.are.same(expected, t:sum({2}, true):totable())
    assert.are.same(expected, t:sum(2, true):totable())
    assert.are.same(expected, t:sum{2, keepdim = true}:totable())
    assert.are.same(expected, t:sum{dims = -1, keepdim = true}:totable())
    assert.are.same(expected, ops.sum(t, nil, {dims = 2, keepdim = true}):totable())
    assert.are.same({2, 3}, ops.full({2, 3}, 1).shape)
    assert.are.same({}, ops.full({}, 1).shape)
    assert.are.same({3, 2}, t:reshape(3, -1).shape)
    assert.are.same({3, 2}, t:permute(2, 1).shape)
  end)

  it("that are lists of tensors may be one table or several arguments", function()
    local t = matrix()
    assert.are.same({4, 3}, ops.concat{t, t}.shape)
    assert.are.same({2, 6}, ops.concat{t, t, dim = 2}.shape)
    assert.are.same({2, 6}, ops.concat({t, t}, 2).shape)
    assert.are.same({2, 6}, t:concat(t, {dim = 2}).shape)
    local many = {}
    for i = 1, 1000 do many[i] = t end
    assert.are.same({2000, 3}, ops.concat(many).shape)
  end)

  it("give several results", function()
    local a, b, c = ops.arange(1, 5):split(2)
    assert.are.same({{1, 2}, {3, 4}, {5}}, {a:totable(), b:totable(), c:totable()})
  end)
end)

describe("op_info", function()
  it("describes every operator", function()
    for _, name in ipairs(core.op_names()) do
      local info = core.op_info(name)
      assert.are.equal(name, info.name)
      assert.is_function(core.ops[name])
      assert.is_true(#info.doc > 0, name)
      for _, attr in ipairs(info.attrs) do
        assert.is_string(attr.kind)
        assert.is_boolean(attr.required)
        if attr.kind == "enum" then assert.is_true(#attr.choices > 1) end
      end
    end
    assert.are.equal("relu", core.op_info "relu".name)
    assert.has_error(function() core.op_info "rellu" end)
  end)
end)

describe("tostring", function()
  it("shows a scalar as a number with its dtype", function()
    assert.are.equal("2.5 (f32)", tostring(core.tensor(2.5)))
    assert.are.equal("7 (i64)", tostring(core.tensor(7, {dtype = "i64"})))
    assert.are.equal("0.3333333 (f32)", tostring(core.tensor(1 / 3)))
    assert.are.equal("0.33333333333333 (f64)", tostring(core.tensor(1 / 3, {dtype = "f64"})))
    assert.are.equal("nan (f32)", tostring(core.tensor(0 / 0)))
    assert.are.equal("255 (u8)", tostring(core.tensor(255, {dtype = "u8"})))
  end)

  it("shows dtype, shape, statistics and every element of a small tensor", function()
    assert.are.equal("tensor f32 (2, 3): min 1, mean 3.5, max 6\n  1  2  3\n  4  5  6", tostring(matrix()))
    assert.are.equal("tensor u8 (2): min 3, mean 100, max 197\n    3  197",
      tostring(core.tensor({3, 197}, {dtype = "u8"})))
    assert.are.equal("tensor f32 (0, 2), empty", tostring(core.tensor{}:reshape(0, 1):expand(0, 2)))
  end)

  it("counts NaNs and leaves them out of the rest", function()
    local text = tostring(core.tensor{1, 0 / 0, 3})
    assert.is_truthy(text:find("min 1, mean 2, max 3, 1 NaN", 1, true))
  end)

  it("counts infinities and leaves them out of the rest", function()
    local huge, nan = math.huge, 0 / 0
    for _, dtype in ipairs{"f32", "f64"} do
      assert.is_truthy(tostring(core.tensor({huge, 1, nan, -huge, 3, nan, nan}, {dtype = dtype})):find(
        ": min 1, mean 2, max 3, 3 NaN, 2 Inf\n", 1, true))
      assert.is_truthy(tostring(core.tensor({huge, -huge}, {dtype = dtype})):find(": 2 Inf\n", 1, true))
      assert.is_truthy(tostring(core.tensor({nan, huge}, {dtype = dtype})):find(": 1 NaN, 1 Inf\n", 1, true))
      assert.is_truthy(tostring(core.tensor({nan}, {dtype = dtype})):find(": 1 NaN\n", 1, true))
    end
  end)

  it("has the same statistics for every layout, dtype and number of threads", function()
    local n = 5000
    local x = ops.arange(1, 3 * n):reshape(3, n)
    local function says(t, least, mean, most)
      local expected = core.format(": min %s, mean %s, max %s\n", least, mean, most)
      assert.is_truthy(tostring(t):find(expected, 1, true), tostring(t))
    end
    for _, dtype in ipairs{"f32", "f64", "i64"} do
      local t = x:cast(dtype)
      says(t, 1, 7500.5, 15000)
      says(t:transpose(1, 2), 1, 7500.5, 15000)
      says(t["2, :"], 5001, 7500.5, 10000)
      says(t[":, 1:5000:2"], 1, 7500, 14999)
      says(t[":, 3:7"], 3, 5005, 10007)
      says(t["1:3:2, 1:5000:4999"], 1, 7500.5, 15000)
      says(t:unsqueeze(1):expand(4, 3, n), 1, 7500.5, 15000)
    end
    local bytes = ops.arange(0, 255):cast "u8"
    says(bytes, 0, 127.5, 255)
    says(bytes["2:4"], 1, 2, 3)
    says(bytes:reshape(16, 16)[":, 1:16:5"], 0, 127.5, 255)
    says(bytes:tile{1000}, 0, 127.5, 255)
    local threads = core.threads()
    local big = ops.normal{3000, 100}
    core.set_threads(1)
    local alone = tostring(big)
    core.set_threads(3)
    assert.are.equal(alone, tostring(big))
    core.set_threads(threads)
  end)

  it("shows corners of a large tensor in bounded time and says so", function()
    local text = tostring(ops.full({6000, 1000}, 0.25))
    assert.is_truthy(text:find("min 0.25, mean 0.25, max 0.25 (of a sample of 4", 1, true))
    text = tostring(ops.full({6000, 1000}, 0 / 0))
    assert.is_truthy(text:find(" NaN (of a sample of 4", 1, true))
    assert.are.equal(8, select(2, text:gsub("\n", "\n")) + 1)
    local blocks = tostring(ops.full({9, 5, 5, 5}, 1))
    assert.is_truthy(blocks:find("[1, 1, :, :]", 1, true))
    assert.is_truthy(blocks:find("[9, 5, :, :]", 1, true))
  end)
end)

describe("a NaN", function()
  local marea = require "marea"

  it("is read and written without its sign", function()
    for _, dtype in ipairs{"f32", "f64"} do
      local t = marea.tensor({0 / 0, -(0 / 0), math.huge, -math.huge}, {dtype = dtype})
      for _, value in ipairs{t[1], t[2], t:totable()[1], t:totable()[2], t:sum():item(), (-t):sum():item()} do
        assert.are.equal("nan", tostring(value))
      end
      assert.are.equal(-math.huge, t[4])
      assert.is_falsy(tostring(t):find("-nan", 1, true))
    end
    for _, value in ipairs{0 / 0, -(0 / 0)} do
      local ok, message = pcall(marea.zeros, value)
      assert.is_false(ok)
      assert.is_truthy(message:find "got nan$", message)
      local path = os.tmpname()
      local log = marea.metrics.open(path, {"epoch", "loss", "other"})
      assert(log:write{epoch = 1, loss = value})
      local file <close> = assert(io.open(path))
      assert.are.equal("epoch,loss,other\n1,nan,\n", file:read "a")
      assert.are.equal("nan", tostring(log:column "other"[1]))
      os.remove(path)
      local text, steps = {}, 0
      local stream = {write = function(_, ...) text[#text + 1] = table.concat{...} end, flush = function() end}
      local line = marea.data.progress(function()
        steps = steps + 1
        return steps <= 2 or nil
      end, {stream = stream})
      for _ in line:each() do line:show("loss", value) end
      assert.is_truthy(table.concat(text):find("loss nan", 1, true), table.concat(text))
    end
  end)
end)
