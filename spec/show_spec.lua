-- Values as text: tables, networks, pictures and figures for the terminal.
local marea = require "marea"
local inspect = require "marea.repl.inspect"
local folder = require "spec.support.folder"
local quickest = require "spec.support.quickest"
local nn, plot = marea.nn, marea.plot

local build = os.getenv("MAREA_BUILD") or "build"

local function lines_of(text)
  local lines = {}
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
  return lines
end

describe("a table at the prompt", function()
  it("is readable, two levels deep, with sorted keys", function()
    assert.are.equal("{}", inspect.value{})
    assert.are.equal("{1, 2, x = 3}", inspect.value{1, 2, x = 3})
    assert.are.equal('{a = {1, {...}}, b = "q\\"\\n", ["two words"] = true, [0.5] = 1}',
      (inspect.value{b = 'q"\n', a = {1, {2}}, ["two words"] = true, [0.5] = 1}
        :gsub("^{%[0%.5%] = 1, (.*)}$", "{%1, [0.5] = 1}")))
    assert.are.equal("{[-1] = 1, [0] = 2, a = 3}", inspect.value{[0] = 2, [-1] = 1, a = 3})
    assert.are.equal("{f = function(x, y, ...)}", inspect.value{f = function(x, y, ...) return x, y, ... end})
    assert.are.equal("{tensor f32 (2, 3), 2.5 (f32)}", inspect.value{marea.zeros{2, 3}, marea.tensor(2.5)})
    assert.are.equal('{net = "Linear(2 -> 3)   bias (3), weight (2, 3)   9"}',
      (inspect.value{net = nn.Linear{2, 3}}:gsub("= (.*)}$", '= "%1"}')))
    assert.are.equal("{{{...}}}", inspect.value{{{{1}}}})
  end)

  it("shows no addresses, also of what refers to itself", function()
    local t = {print, io.stdout, coroutine.create(print), {}}
    t.self = t
    local text = inspect.value(t)
    assert.is_falsy(text:find "0x%x")
    assert.is_truthy(text:find("self = {function, ", 1, true))
  end)

  it("is one entry a line when it is long", function()
    local lines = lines_of(inspect.value{first = ("x"):rep(50), second = ("y"):rep(50), third = 3})
    assert.are.equal(5, #lines)
    assert.are.equal("  third = 3", lines[4])
  end)

  it("is bounded in length and time", function()
    local list = {}
    for i = 1, 2000000 do list[i] = i end
    list.name = "x"
    assert.is_truthy(inspect.value(list):find("20, ... 1999981 more}", 1, true))
    assert.is_true(quickest(function() inspect.value(list) end) < 0.05)
    local keyed = {}
    for i = 1, 100000 do keyed["k" .. i] = i end
    assert.is_true(#inspect.value(keyed) < 2000)
    assert.is_true(quickest(function() inspect.value(keyed) end) < 0.05)
    assert.is_true(#inspect.value{("a"):rep(1000000)} < 200)
    assert.is_true(#inspect.value{("é"):rep(100)} < 200)
    assert.is_truthy(utf8.len(inspect.value{("é"):rep(100)}))
  end)

  it("names a function's arguments and place", function()
    assert.is_truthy(inspect.value(marea.conv2d):find("function marea.conv2d(x, weight, bias?, {stride = 1,", 1, true))
    local function f(a, ...) return a, ... end
    assert.is_truthy(inspect.value(f):find "^function%(a, %.%.%.%), .*show_spec.lua:%d+$")
    assert.are.equal("function", inspect.value(print))
  end)

  it("survives objects that fail to show themselves", function()
    local bad = setmetatable({1}, {__tostring = function() error "no" end, __index = function() error "no" end})
    assert.are.equal("{1}", inspect.value(bad))
    assert.are.equal("a tensor that was released", (function()
      local t = marea.zeros{2}
      t:release()
      return inspect.text(t)
    end)())
  end)

  it("is cut where a network would fill the screen", function()
    local layers = {}
    for i = 1, 200 do layers[i] = nn.ReLU{} end
    local lines = lines_of(inspect.value(nn.Sequential(layers)))
    assert.are.equal(61, #lines)
    assert.are.equal("... 142 more lines", lines[61])
  end)
end)

describe("a tensor of 60000 x 784", function()
  it("prints within 10 ms", function()
    if build:find "asan" then return end
    for _, dtype in ipairs{"f32", "u8"} do
      local t = marea.full({60000, 784}, 1, dtype)
      local best = quickest(function() tostring(t) end, 20)
      t:release()
      assert.is_true(best < 0.01, ("%s: %.1f ms"):format(dtype, best * 1e3))
    end
  end)
end)

describe("t:show()", function()
  --- What a program writes under a terminal of this kind (tty: whether it is one), without the environment's own ideas.
  local function written(code, environment)
    local command = ("env -u NO_COLOR -u COLORTERM %s script -qec %q /dev/null < /dev/null"):format(environment,
      ("%s/marea -e '%s'"):format(build, code))
    local pipe = assert(io.popen(command))
    local text = pipe:read "a":gsub("\r", "")
    pipe:close()
    return text
  end

  it("draws with letters where there are no colours", function()
    local lines = lines_of(tostring(marea.eye(16):show()))
    assert.are.equal(8, #lines)
    assert.are.equal("++", lines[1]) -- two pixels a letter
    assert.are.equal((" "):rep(14) .. "++", lines[8])
    assert.are.equal(("@"):rep(8), lines_of(tostring(marea.eye(2):show()))[4]) -- enlarged
    assert.are.equal("+@", (tostring(marea.tensor({{128, 255}, {128, 255}}, {dtype = "u8"}):show{width = 2})))
    assert.are.equal("2.5 (f32)", tostring(marea.tensor(2.5):show()))
  end)

  it("scales what is not from 0 to 1 and says so; NaN and infinities do no harm", function()
    local lines = lines_of(tostring(marea.tensor{{-1, 3}, {0 / 0, math.huge}}:show()))
    assert.are.equal("(2, 2), -1 to 3", lines[#lines])
    assert.is_truthy(tostring(marea.full({3, 3}, 7):show()):find("7 to 7", 1, true))
    assert.is_truthy(tostring(marea.full({3, 3}, 0 / 0):show()))
  end)

  it("fits the room there is", function()
    local lines = lines_of(tostring(marea.uniform{1000, 700}:show{width = 60, height = 20}))
    assert.is_true(#lines <= 21)
    for _, line in ipairs(lines) do assert.is_true(#line <= 60) end
    assert.is_truthy(lines[#lines]:find("(1000, 700), means of 25 x 25", 1, true))
    assert.are.equal(1, #lines_of(tostring(marea.uniform{7}:show())))
    assert.is_true(#lines_of(tostring(marea.uniform{9, 8, 8, 1}:show())) > 8)
  end)

  it("writes a PNG", function()
    local path = folder.new() .. "/x.png"
    assert.is_true(marea.normal{8, 8}:show(path))
    assert.are.same({8, 8, 3}, marea.load_png(path).shape)
    assert.is_true(marea.uniform{4, 5, 5, 3}:show(path))
    local ok, message = marea.eye(3):show "/nowhere/x.png"
    assert.is_nil(ok)
    assert.is_truthy(message:find("/nowhere/x.png", 1, true))
    folder.remove()
  end)

  it("refuses what is no picture", function()
    assert.has_error(function() marea.zeros{2, 2, 2, 2}:show() end)
    assert.has_error(function() marea.zeros{0, 2}:show() end)
    assert.has_error(function() marea.eye(2):show{maps = "gray"} end)
  end)

  it("uses the colours of the terminal", function()
    local code = "print(require([[marea]]).eye(2):show{width = 2})"
    assert.is_truthy(written(code, "TERM=xterm COLORTERM=truecolor"):find("\27[38;2;255;255;255;48;2;0;0;0m▀", 1, true))
    assert.is_truthy(written(code, "TERM=xterm-256color"):find("\27[38;5;231;48;5;16m▀", 1, true))
    assert.is_falsy(written(code, "TERM=xterm-256color NO_COLOR=1"):find "\27%[")
    assert.is_falsy(written(code, "TERM=dumb"):find "\27%[")
  end)
end)

describe("figure:show()", function()
  it("draws curves, bars, histograms and points with letters", function()
    local room = {width = 60, height = 12}
    for _, figure in ipairs{
      plot.curves{{y = {4, 2, 1}, title = "loss"}, {y = {5, 3, 2}, title = "test"}, xlabel = "epoch"},
      plot.bars{{y = {3, 1}}, labels = {"epoch", "b"}, xlabel = "epoch"},
      plot.histogram{marea.normal{100}, xlabel = "epoch"},
      plot.scatter{x = {1, 2}, y = {3, 4}, class = {1, 2}, xlabel = "epoch"},
    } do
      local text = tostring(assert(figure:show(room)))
      local lines = lines_of(text)
      assert.is_true(#lines >= 8 and #lines <= 12, text)
      for _, line in ipairs(lines) do assert.is_true(#line <= 60, text) end
      assert.is_truthy(text:find "epoch")
    end
    local text = tostring(plot.curves{{y = {1, 2}, title = "up"}, {y = {2, 1}, title = "down"}}:show(room))
    assert.is_truthy(text:find "A[-*]*up" and text:find "B[-#]*down", text)
  end)

  it("draws images as t:show() does, and panels one below the other", function()
    local image = marea.uniform{12, 20}
    local text = tostring(image:show())
    assert.are.equal(text, tostring(plot.heatmap{image}:show()))
    assert.are.equal(text .. "\n" .. text, tostring(plot.panels{plot.heatmap{image}, plot.heatmap{image}}:show()))
  end)
end)
