-- The prompt without a terminal: reading, evaluating, completing, explaining, showing.
local repl = require "marea.repl"
local docs = require "marea.repl.docs"
local example = require "marea.repl.example"
local marea = require "marea"

local function session()
  local env = {}
  for name, value in pairs(package.loaded._G) do env[name] = value end
  return repl.new(env)
end

--- What the prompt shows for lines typed one after the other; the last of them.
local function shown(...)
  local s, text = session(), nil
  for _, line in ipairs{...} do
    local _, said = s:feed(line)
    text = said
  end
  return text
end

describe("evaluating", function()
  it("shows the values of expressions, and nothing for statements", function()
    assert.are.equal("3", shown "1 + 2")
    assert.are.equal("3", shown "= 1 + 2")
    assert.are.equal("1\ttwo\tnil", shown "1, 'two', nil")
    assert.is_nil(shown "x = 1")
    assert.is_nil(shown "")
    assert.is_nil(shown "(function() end)()")
    assert.are.equal("nil", shown "nil")
    assert.are.equal("7", shown("y = 7", "y -- why"))
  end)

  it("keeps the last value in _", function()
    assert.are.equal("6", shown("2 + 3", "_ + 1"))
    assert.are.equal("5", shown("2 + 3", "x = 1", "_"))
  end)

  it("waits for what is not complete", function()
    local s = session()
    for _, text in ipairs{"for i = 1, 3 do", "f(", "x = {", "1 +", "x = [[", "function g()", "if true then", "'a' ..",
      "local x =", "return f({", "x = 1 --[[", "repeat"} do
      assert.are.equal("incomplete", s:is_complete(text), text)
    end
    for _, text in ipairs{"1", "x = 1", ":help", "?x", "f()", "for i = 1, 3 do end", "", "do end -- end"} do
      assert.are.equal("complete", s:is_complete(text), text)
    end
    for _, text in ipairs{"1 1", "end", "x = = 1", ")", "x:shape"} do
      assert.are.equal("invalid", s:is_complete(text), text)
    end
  end)

  it("takes an entry of several lines as one chunk", function()
    assert.are.equal("1\t9", shown("do local a = 1", "return a,", "9 end"))
    local s = session()
    assert.are.equal("more", (s:feed "total = 0 for i = 1, 3 do"))
    assert.are.equal(">> ", s.prompt)
    assert.are.equal("more", (s:feed "  total = total + i"))
    assert.are.equal("done", (s:feed "end"))
    assert.are.equal("total = 0 for i = 1, 3 do\n  total = total + i\nend", s.entry)
    assert.are.equal("> ", s.prompt)
    assert.are.equal("6", select(2, s:feed "total"))
  end)

  it("shows the last line of a pasted text if it is an expression", function()
    assert.are.equal("30", shown "local a = 5\nlocal b = 6\na * b")
    assert.are.equal("3", shown "local t = {\n1,\n2}\n#t + 1")
    assert.are.equal("{2}", shown "local function f(x) return x end\nf{\n2\n}")
    assert.are.equal("1\nreturn nil, 2", shown("s = [[1\nreturn nil, 2]]", "s")) -- a string stays as it is
    assert.is_nil(shown "x = [[\nabc]]")
  end)

  it("drops the lines of an entry that is cancelled", function()
    local s = session()
    s:feed "f("
    assert.is_true(s:cancel())
    assert.is_false(s:cancel())
    assert.are.equal("4", select(2, s:feed "2 + 2"))
  end)

  it("reports errors with the line that was typed, and the calls of the script", function()
    local s = session()
    local result = s:evaluate "error 'boo'"
    assert.is_false(result.ok)
    assert.are.equal("stdin:1: boo", result.text)
    s:evaluate "function f()\n  error 'inside'\nend"
    assert.is_truthy(s:evaluate "f()".text:find "^stdin:2: inside\nstack traceback:\n  stdin:2: in %w+ 'f'$")
    assert.are.equal("error object: {code = 3}", s:evaluate "error({code = 3})".text)
    assert.is_truthy(s:evaluate "marea.seed 'x'".text:find("stdin:1: seed: argument 'n'", 1, true))
    assert.is_false(s:evaluate "x = = 1".ok)
  end)

  it("guesses what a misspelt global should have been", function()
    assert.is_truthy(shown "mrea.zeros{2}":find("there is no variable 'mrea'; did you mean 'marea'?", 1, true))
    assert.is_truthy(shown "prnt(1)":find("did you mean 'print'?", 1, true))
    assert.is_truthy(shown("network = 1", "netwrk.x = 1"):find("did you mean 'network'?", 1, true))
    assert.is_falsy(shown "qqqqqq()":find "did you mean")
  end)

  it("gives the parts of the library their names", function()
    assert.are.equal("Linear(2 -> 3)   bias (3), weight (2, 3)   9", shown "nn.Linear{2, 3}")
    assert.are.equal("true", shown "optim == marea.optim")
  end)
end)

describe("commands", function()
  it("are explained one by one", function()
    assert.are.equal(":quit\n  leave (Ctrl-D does so too)", shown ":help quit")
    assert.are.equal(shown ":help quit", shown ":help :quit")
    assert.is_truthy(shown(":help conv2d"):find("Cout", 1, true))
    assert.is_truthy(shown(":help qui t"):find("nothing is known", 1, true))
  end)

  it("are listed by :help", function()
    local text = shown ":help":gsub("%s+", " ")
    for _, command in ipairs(require "marea.repl.commands") do
      assert.is_truthy(text:find(command.usage, 1, true), command.usage)
      assert.is_truthy(text:find(command.doc, 1, true), command.doc)
    end
  end)

  it("run, fail and are guessed", function()
    local s = session()
    assert.is_truthy(s:evaluate ":time x = 6 * 7".text:find "^[%d%.]+ [mu]?s$")
    assert.is_truthy(s:evaluate ":time x".text:find "^42\n")
    assert.are.same({ok = false, text = "there is no command ':halp'; did you mean 'help'?"}, s:evaluate ":halp")
    assert.is_false(s:evaluate ":time error 'x'".ok)
    assert.is_false(s:evaluate ":time".ok)
    assert.are.equal(s:evaluate "?conv2d".text, s:evaluate ":help conv2d".text)
    s:evaluate ":q"
    assert.is_true(s.finished)
  end)
end)

describe("completion", function()
  local s
  setup(function()
    s = session()
    s:evaluate [[
      x = marea.normal{2, 3}
      net = nn.Sequential{nn.Conv2d{1, 4, kernel = 3, name = "conv1"}, nn.Linear{4, 2}}
      deep = {inner = {list = {{leaf = 1}}, ["two words"] = {z = 1}}, call = function() end, _hidden = 1}
      text, number = "abc", 1
      trap = setmetatable({}, {__index = function() error "code ran" end})
    ]]
  end)

  --- The texts that completing gives, in full.
  local function completed(text)
    local start, list = s:complete(text)
    local full = {}
    for i, candidate in ipairs(list) do full[i] = text:sub(1, start - 1) .. candidate end
    return full
  end

  local one = { -- what is typed, the only completion
    {"mare", "marea"},
    {"marea.conv_transpose2", "marea.conv_transpose2d"},
    {"marea.nn.Conv2", "marea.nn.Conv2d"},
    {"nn.ConvTranspose2", "nn.ConvTranspose2d"},
    {"optim.RMS", "optim.RMSprop"},
    {"optim.schedule.cos", "optim.schedule.cosine"},
    {"nn.init.glorot_u", "nn.init.glorot_uniform"},
    {"x.sha", "x.shape"},
    {"x.requires", "x.requires_grad"},
    {"x:requires", "x:requires_grad_"},
    {"x:cums", "x:cumsum"},
    {"x.cums", "x.cumsum"},
    {"print(x:cums", "print(x:cumsum"},
    {"y = 1 + x:cums", "y = 1 + x:cumsum"},
    {"x:relu():cu", nil},
    {"net.con", "net.conv1"},
    {"net.conv1.bia", "net.conv1.bias"},
    {"net.conv1.bias.sh", "net.conv1.bias.shape"},
    {"net[2].bia", "net[2].bias"},
    {"net:summ", "net:summary"},
    {"net['conv1'].bia", "net['conv1'].bias"},
    {"deep.inner.li", "deep.inner.list"},
    {"deep.inner.list[1].le", "deep.inner.list[1].leaf"},
    {"deep.inner['two words'].", "deep.inner['two words'].z"},
    {"deep:ca", "deep:call"},
    {"deep._h", "deep._hidden"},
    {"string.for", "string.format"},
    {"text:for", "text:format"},
    {"math.hu", "math.huge"},
    {"io.std", nil},
    {"func", "function"},
    {"whi", "while"},
    {"nn.Conv2d{1, 2, ker", "nn.Conv2d{1, 2, kernel = "},
    {"nn.Conv2d{1, 2, kernel = 3, pad", "nn.Conv2d{1, 2, kernel = 3, padding = "},
    {"marea.conv2d(x, x, {stri", "marea.conv2d(x, x, {stride = "},
    {"marea.conv2d(x, x, {padding = 'sa", "marea.conv2d(x, x, {padding = 'same"},
    {"nn.Conv2d{1, 2, padding = 'sa", "nn.Conv2d{1, 2, padding = 'same"},
    {"nn.Linear{1, 2, activation = \"leaky", "nn.Linear{1, 2, activation = \"leaky_relu"},
    {"nn.Linear{1, 2, init = 'orth", "nn.Linear{1, 2, init = 'orthogonal"},
    {"x:mse(x, {reduction = \"su", "x:mse(x, {reduction = \"sum"},
    {"x:cast{dty", "x:cast{dtype = "},
    {"optim.Adam{net, l", "optim.Adam{net, lr = "},
    {"optim.Adam{net, lr = 1, bet", nil},
    {"plot.curves{{y = {1}}, xl", "plot.curves{{y = {1}}, xlabel = "},
    {"image.grid(x, {col", "image.grid(x, {columns = "},
    {"io.open('core/ops/LI", "io.open('core/ops/LIST.h"},
    {"io.open('cor", "io.open('core/"},
    {"io.open(\"core/tens", "io.open(\"core/tensor.c"},
    {":ti", ":time"},
    {":time x.sha", ":time x.shape"},
    {"?nn.Conv2", "?nn.Conv2d"},
    {"?conv_transpose2", "?conv_transpose2d"},
    {"?cumsu", "?cumsum"},
    {"", "  "},
    {"-- a comment mare", nil},
    {"'a string' .. mare", "'a string' .. marea"},
    {"[[long ]] mare", "[[long ]] marea"},
    {"trap.x", nil},
    {"nothing.x", nil},
    {"x.shape.x", nil},
    {"12.", nil},
    {"'a'..mare", "'a'..marea"},
  }

  for _, case in ipairs(one) do
    it(("of '%s'"):format(case[1]), function()
      local full = completed(case[1])
      if case[2] then assert.are.same({case[2]}, full)
      else assert.is_true(#full ~= 1, table.concat(full, ", ")) end
    end)
  end

  it("lists all that fits, sorted", function()
    local function listed(text) return select(2, s:complete(text)) end
    assert.are.same({"dtype", "grad", "is_leaf", "rank", "requires_grad", "shape"}, listed "x.")
    assert.are.same({"conv1d", "conv2d", "conv2d_backward", "conv2d_grad_input", "conv2d_grad_weight", "conv2d_int8",
      "conv_transpose1d", "conv_transpose2d"}, listed "marea.conv")
    local arguments = listed "nn.Conv2d{"
    for _, name in ipairs{"kernel = ", "stride = ", "padding = ", "activation = ", "init = "} do
      assert.is_truthy((" " .. table.concat(arguments, " ")):find(" " .. name, 1, true), name)
    end
    assert.are.same({"lr = "}, listed "optim.Adam{net, lr")
    assert.are.same({}, listed "optim.Adam{net, lr = 1, lr")
    assert.are.same({"beta1 = ", "beta2 = "}, listed "optim.Adam{net, be")
    assert.are.same({"f32", "f64", "f16"}, listed "x:cast{dtype = 'f")
    assert.are.same({"inner", "call"}, {listed "deep."[2], listed "deep."[1]})
    assert.are.same({"stderr", "stdin", "stdout"}, listed "io.std")
  end)

  it("goes on in the lines that follow", function()
    s:feed "nn.Conv2d{1, 2,"
    assert.are.same({"  kernel = "}, completed "  ker")
    s:cancel()
    s:feed "for i = 1, 2 do"
    assert.are.same({"  x:cumsum"}, completed "  x:cums")
    s:cancel()
  end)

  it("says what a line editor does", function()
    assert.are.same({4, "marea"}, {s:expand("mare", 80)})
    assert.are.same({8, "conv2d_grad_"}, {s:expand("marea.conv2d_g", 80)})
    local erase, insert, list = s:expand("marea.conv2d", 30)
    assert.are.same({0, ""}, {erase, insert})
    assert.are.equal("conv2d\nconv2d_backward\nconv2d_grad_input\nconv2d_grad_weight\nconv2d_int8",
      (list:gsub("  +", "\n")))
    assert.is_nil((s:expand("nothing.x", 80)))
  end)

  it("runs no code of the script", function()
    s:evaluate "probe = setmetatable({}, {__call = function() error 'ran' end, __index = {field = 1}})"
    assert.are.same({"probe.field"}, completed "probe.fi")
    assert.are.same({}, completed "probe{fi")
  end)
end)

describe("help", function()
  local s
  setup(function() s = session() end)

  it("has signature, arguments, text and example of every operator, and every example runs", function()
    for _, name in ipairs(marea.op_names()) do
      local info = marea.op_info(name)
      local text = assert(s:help("marea." .. name))
      assert.is_truthy(text:find("marea." .. name .. "(", 1, true), name)
      for _, part in ipairs{info.inputs, info.attrs} do
        for _, spec in ipairs(part) do assert.is_truthy(text:find("\n  " .. spec.name .. "  ", 1, true), name) end
      end
      local lines = example.of(info)
      assert.is_truthy(lines, name .. " has no example")
      assert.is_truthy(text:find("  > " .. lines[#lines], 1, true), name)
      assert(example.run(lines))
    end
  end)

  it("tells of dtypes and precision", function()
    for _, topic in ipairs{"precision", "bf16", "f16", "f32", "f64"} do
      local text = assert(s:help(topic))
      assert.is_truthy(text:find("marea.autocast(f)", 1, true), topic)
    end
    assert.are.equal("inf", tostring(marea.tensor{65504 * 2}:to "f16":item()))
    assert.are.equal(65504, marea.tensor{65504}:to "f16":item())
  end)

  it("has text and example of all the rest of the library, and every example runs", function()
    local core = require "marea.core"
    local function with_example(topic)
      local text, message = s:help(topic)
      assert.is_truthy(text, message)
      assert.is_truthy(text:find "\n\n  %S[^\n]+%.\n" or text:find "\n\n  %S[^\n]+\n", topic .. " has no text")
      local lines = {}
      for line in text:gmatch "\n  > ([^\n]*)" do lines[#lines + 1] = line end
      assert.is_true(#lines > 0, topic .. " has no example")
      local ok, problem = example.run(lines)
      assert.is_true(ok, ("%s: %s"):format(topic, problem))
    end
    for _, part in ipairs{"marea", "nn", "nn.init", "optim", "optim.schedule", "dist", "data", "image", "plot",
      "augment", "judge", "checkpoint", "metrics", "importance"} do
      local place = s.env
      for key in part:gmatch "%w+" do place = place[key] end
      for _, name in ipairs(require "marea.internal.check".names(place)) do
        local value = rawget(place, name)
        local class = type(value) == "table" and rawget(value, "__name")
        if (type(value) == "function" and not core.ops[name]) or class then with_example(part .. "." .. name) end
      end
    end
    s:evaluate "a_tensor = marea.zeros{2}"
    for _, name in ipairs(require "marea.internal.check".names(core.methods)) do
      if not core.ops[name:gsub("_$", "")] then with_example("a_tensor." .. name) end
    end
    for _, name in ipairs{"parameters", "named_parameters", "buffer", "state", "load_state", "train", "evaluate",
      "freeze", "unfreeze", "count", "build", "summary"} do with_example("nn.Linear." .. name) end
  end)

  it("shows no example that does not run, wherever it is written", function()
    local pipe = assert(io.popen "find lua/marea -name '*.lua'")
    local n = 0
    for path in pipe:lines() do
      for _, entry in ipairs((docs.file(path))) do
        if #entry.examples > 0 then
          local ok, problem = example.run(entry.examples)
          assert.is_true(ok, ("%s: %s: %s"):format(path, entry.name, problem))
          n = n + 1
        end
      end
    end
    pipe:close()
    assert.is_true(n > 100)
  end)

  it("is wrapped to a width, tables beside their first column, and code is left alone", function()
    local layout = require "marea.internal.layout"
    local text = table.concat({"Some words that are wrapped", "and joined.", "  a, b  what a and b are called",
      "        by others", "  next  two", "", "  f{1, 2,  3}  -- is code, however long it may be"}, "\n")
    assert.are.equal(table.concat({"  Some words that are", "  wrapped and joined.", "    a, b  what a and b are",
      "          called by others", "    next  two", "", "    f{1, 2,  3}  -- is code, however long it may be"}, "\n"),
      layout.wrapped(text, "  ", 26))
    assert.are.equal("  x        a first, a second and a\n           third\n  stride   one",
      layout.two_columns({{"x", "a first, a second and a third"}, {"stride", "one"}}, 35))
    assert.are.equal("", layout.wrapped("", "  ", 30))
  end)

  it("leaves the random state as it was", function()
    marea.seed(5)
    local seed, counter = marea.random_state()
    s:help "dropout"
    assert.are.same({seed, counter}, {marea.random_state()})
  end)

  it("finds a name by itself, on a value and in a part of the library", function()
    s:evaluate "x = marea.normal{2}  net = nn.Linear{2, 1}"
    assert.are.equal(s:help "conv2d", s:help "marea.conv2d")
    assert.are.equal(s:help "sum", s:help "x.sum")
    assert.are.equal(s:help "sum", s:help "x:sum")
    assert.are.equal(s:help "sum", s:help "x:sum(")
    assert.is_truthy(s:help "nn.Conv2d":find("kernel", 1, true))
    assert.is_truthy(s:help "Adam":find("^optim%.Adam{"))
    assert.is_truthy(s:help "summary":find "^Module:summary")
    assert.is_truthy(s:help "net.summary":find "Keras")
    assert.is_truthy(s:help "nn.ReLU":find("max(x, 0)", 1, true))
    assert.is_truthy(s:help "marea":find "require")
    assert.is_truthy(s:help "print":find "manual")
    assert.are.equal(s:help "conv2d", s:evaluate "conv2d?".text)
  end)

  it("says what was meant", function()
    s:evaluate "x = marea.normal{2}"
    assert.are.equal("nothing is known about 'conv2'; did you mean 'conv2d'?", select(2, s:help "conv2"))
    assert.are.equal("'nn' has no 'Conv2'; did you mean 'Conv2d'?", select(2, s:help "nn.Conv2"))
    assert.is_truthy(select(2, s:help "x.cumsun"):find("did you mean 'cumsum'?", 1, true))
    assert.are.equal("there is no 'mrea'; did you mean 'marea'?", select(2, s:help "mrea.conv2d"))
  end)
end)

describe("comments of Lua sources", function()
  local source = [[
#!/usr/bin/env lua
-- SPDX-License-Identifier: MIT
--- The file:
---   code()
local x = 1

---@class Thing: Base  what it is
local Thing = {}

--- Adds.
--- More text.
---@param a number one of them
---@param b? {width: integer?, height: integer?} the other,
---which may be left out
---@return number sum, string|nil message
---@example add(1, 2)
function lib.add(a, b) return a + b end

local function bare(x, ...) end

--- A field.
lib.pi = 3
]]

  it("are read with their parameters, results and examples", function()
    local entries, file = docs.parse(source)
    assert.are.same({"The file:", "  code()"}, file.text)
    local by_name = {}
    for _, entry in ipairs(entries) do by_name[entry.name] = entry end
    local add = by_name["lib.add"]
    assert.are.equal("function", add.kind)
    assert.are.equal(17, add.line)
    assert.are.same({"a", "b"}, add.arguments)
    assert.are.same({"Adds.", "More text."}, add.text)
    assert.are.same({"number sum, string|nil message"}, add.returns)
    assert.are.same({"add(1, 2)"}, add.examples)
    assert.are.same({name = "a", type = "number", optional = false, text = "one of them"}, add.params[1])
    assert.are.same({name = "b", type = "{width: integer?, height: integer?}", optional = true,
      text = "the other, which may be left out"}, add.params[2])
    assert.are.equal("class", by_name.Thing.kind)
    assert.are.same({"what it is"}, by_name.Thing.text)
    assert.are.same({"x", "..."}, by_name.bare.arguments)
    assert.are.same({"A field."}, by_name["lib.pi"].text)
  end)

  it("of the script's own functions are help too", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write("--- Doubles.\n---@param n number\nfunction double(n) return 2 * n end\n")
    file:close()
    local s = session()
    s:evaluate(("assert(loadfile(%q, 't', _ENV))()"):format(path))
    local text = s:help "double"
    os.remove(path)
    assert.are.equal("double(n)\n\n  Doubles.\n\n  n   number", text)
  end)
end)

describe("commands that find out", function()
  local s
  setup(function()
    s = session()
    s:evaluate "net = nn.Sequential{nn.Linear{8, name = 'first'}, nn.Linear{1}}  x = marea.normal{4, 3}"
  end)

  local function text_of(line)
    local result = s:evaluate(line)
    assert.is_true(result.ok, result.text)
    return result.text
  end

  it("plan a module by the shape of a batch, and code", function()
    assert.matches("first %(Linear%) +f32 %(128, 8%) .-\nTraining step, Adam: ", text_of ":plan net {128, 3}")
    assert.are.equal(text_of ":plan net {128, 3}", text_of ":plan net, {128, 3}")
    assert.matches("\nRun: .-backward [%d%.]+ FLOP%)", text_of ":plan net(x):square():sum():backward()")
  end)

  it("profile code", function()
    assert.matches("^layer +op .-\nfirst +linear ", text_of ":profile net(x)")
  end)

  it("report memory", function() assert.matches("^In use ", text_of ":memory") end)

  it("check gradients", function()
    assert.matches("^gradients agree with differences: 5 of 5 ", text_of ":gradcheck net, x")
    assert.matches("^gradients agree with differences: 1 of 1 ", text_of ":gradcheck function(t) return t:exp() end, x")
  end)

  it("want commas between the arguments whose gradients they check, and say where", function()
    for given, meant in pairs{
      ["net x"] = "net, x", ["nn.Linear{3, 2} x"] = "nn.Linear{3, 2}, x", ["net x * 2 - x"] = "net, x * 2 - x",
      ["function(a, b) return a * b end x, x"] = "function(a, b) return a * b end, x, x",
      ["net  x  x"] = "net, x, x",
    } do
      assert.are.same({ok = false, text = ("gradcheck: expected commas between the arguments; did you mean "
        .. "':gradcheck %s'?"):format(meant)}, s:evaluate(":gradcheck " .. given))
    end
    assert.matches("^gradients agree with differences: 5 of 5 ", text_of ":gradcheck net, x * 2 - x")
  end)

  it("say what they want", function()
    for line, message in pairs{
      [":plan"] = "plan: expected a module and the shape", [":plan net"] = "plan: expected the shape of a batch",
      [":plan nothing {1}"] = "got nil", [":profile"] = "profile: expected Lua", [":profile 1 +"] = "unexpected symbol",
      [":gradcheck"] = "gradcheck: expected a function", [":plan 1 +"] = "unexpected symbol",
      [":gradcheck net, x +"] = "unexpected symbol", [":gradcheck net x +"] = "expected near 'x'",
    } do
      local result = s:evaluate(line)
      assert.is_false(result.ok)
      assert.matches(message, result.text)
    end
  end)
end)
