-- SPDX-License-Identifier: MIT
-- Names that people type because they know them from elsewhere: each is answered by a hint that is right here.
local core = require "marea.core"
local marea = require "marea"
local check = require "marea.internal.check"
local repl = require "marea.repl"
local synonyms = require "marea.explain.synonyms"
local module = require "marea.nn.module"

local PREAMBLE = [[
local marea = require "marea"
local nn, optim, data, dist, image = marea.nn, marea.optim, marea.data, marea.dist, marea.image
local x, net = marea.ones(2, 2), marea.nn.Linear{2, 2}
]]

--- What is said about a script.
local function said(script)
  local chunk = assert(load(PREAMBLE .. script, PREAMBLE .. script))
  local ok, message = xpcall(chunk, marea.explain)
  return ok, tostring(message)
end

local WRITTEN = {tensor = "return x:%s()", module = "return net:%s()", variable = "return %s()",
  argument = "return nn.Conv2d{1, 1, kernel = 3, %s = 1}"}

describe("a name of another framework", function()
  it("is answered by what it is here", function()
    local entries, failures = {}, {}
    synonyms.each(function(owner, name, here)
      if not (owner == nil and name:find "^%l+_?%l*$" and pcall(function() return marea[name] end)) then
        entries[#entries + 1] = {owner = owner, name = name, here = here}
      end
    end)
    assert.is_true(#entries > 250, #entries)
    for _, entry in ipairs(entries) do
      local script = (WRITTEN[entry.owner or "tensor"] or "return " .. entry.owner .. ".%s"):format(entry.name)
      local here = synonyms.of(entry.name, entry.owner or "tensor")
      local ok, message = said(script)
      local answered = message:find("is here " .. here, 1, true) or message:find "is a field, not a method"
        or message:find "did you mean"
      if ok or not answered then failures[#failures + 1] = ("%s: %s"):format(script, message) end
    end
    table.sort(failures)
    assert.are.equal("", table.concat(failures, "\n"))
  end)

  it("is answered by a name that exists", function()
    local known = {causal = true,
      kernel = true, weight_decay = true, lr = true, p = true, bias = true, init = true, bias_init = true,
      recurrent_init = true, layers = true, clip_norm = true, clip_value = true, rho = true, keepdim = true,
      slope = true, eps = true, dim = true, dims = true, beta1 = true, padding = true, step = true,
      cosine = true, exponential = true, optimizer = true, loss = true,
      nothing = true,
      marea = true, a = true, an = true, one = true, the = true, main = true, no = true, x = true, t = true,
      n = true, weight = true,
      condition = true, matmul = true, math = true, os = true, tostring = true, tonumber = true, train = true,
      net = true,
      ["function"] = true, ["for"] = true, ["false"] = true, ["true"] = true, ["nil"] = true}
    for _, list in ipairs{check.names(marea), check.names(core.methods), core.fields, check.names(marea.nn),
      check.names(marea.optim), check.names(marea.data), check.names(marea.dist), check.names(marea.image),
      check.names(module.class_methods())} do
      for _, name in ipairs(list) do known[name] = true end
    end
    synonyms.each(function(_, name, here)
      local word = here:match "^[%a_][%w_]*"
      assert.is_true(word == nil or known[word] == true, name .. ": " .. here)
      for path in here:gmatch "marea%.([%w_%.]+)" do
        local value = marea
        for key in path:gmatch "[%w_]+" do value = value[key] end
        assert.is_truthy(value, here)
      end
    end)
  end)
end)

describe("?index", function()
  it("has examples of all that stands in brackets, which run", function()
    local text, looked = repl.new{}:help "index", 0
    for line in text:gmatch "[^\n]+" do
      local code = line:match "^(x%[.-)   "
      for piece in (code or ""):gmatch "x%b[][ =0-9]*" do
        local x = marea.arange(1, 60):reshape(5, 6, 2)
        local positions = marea.tensor({-1, 1, 1}, {dtype = "i64"})
        local env = {x = x, rows = positions, columns = positions}
        assert(load(piece:find "=" and piece or "return " .. piece, piece, "t", env))()
        looked = looked + 1
      end
    end
    assert.are.equal(10, looked)
  end)
end)

describe("the hint to n // m", function()
  it("is for fractions, not for what is too large", function()
    assert.is_truthy(select(2, said "marea.zeros(2.5)"):find("hint: n // m", 1, true))
    for _, value in ipairs{"2^63", "1e300", "-2^70", "0/0"} do
      local _, message = said(("marea.tensor({%s}, {dtype = 'i64'})"):format(value))
      assert.is_truthy(message:find("expected an integer", 1, true), message)
      assert.is_nil(message:find("n // m", 1, true), message)
    end
  end)
end)

describe("a hint for Lua's own message", function()
  it("does not guess the very name that is missing", function()
    for _, name in ipairs{"add", "sum", "normal", "zeros", "relu"} do
      local _, message = said(("return x.shape:%s{1}"):format(name))
      assert.is_truthy(message:find("attempt to call a nil value", 1, true), message)
      assert.is_nil(message:find(("did you mean '%s'"):format(name), 1, true), message)
    end
  end)

  it("puts positions into a list, whatever they are", function()
    for index, list in pairs{["1, 2"] = "{1, 2}", ["i + 1, -1"] = "{i + 1, -1}", ['"2:3", #x'] = '{"2:3", #x}'} do
      local text = PREAMBLE .. ("print(f(1, 2), x[%s])"):format(index)
      local _, message = load(text, text)
      message = require "marea.explain".explain(message, text)
      assert.is_truthy(message:find("positions are a list: x[" .. list .. "]", 1, true), message)
    end
  end)
end)

describe("Torch7's range", function()
  it("is answered by a string", function()
    for _, index in ipairs{"{1, 2}", "1, {1, 2}", "{1, 2}, {}"} do
      local _, message = said(("return x[{%s}]"):format(index))
      assert.is_truthy(message:find("hint: a range is a string: x['2:5, :']", 1, true), message)
    end
    assert.is_nil(select(2, said "return x[{{}}]"):find("a range is", 1, true))
  end)
end)

describe("a method that is called with a dot", function()
  it("is told the colon, whatever the method", function()
    local objects = {
      {"net", module.class_methods(), {init = true, describe = true}},
      {"adam", require "marea.optim.optimizer", {define = true, is_optimizer = true, allocate = true, read = true}},
      {"set", require "marea.data.dataset", {}},
    }
    local looked = 0
    for _, object in ipairs(objects) do
      for name, f in pairs(object[2]) do
        if type(f) == "function" and not name:find "^_" and not object[3][name] then
          local _, message = said(([[
            local adam, set = optim.Adam{net}, data.Dataset{x}
            local result = %s.%s()
            if type(result) == "function" then result() end]]):format(object[1], name))
          assert.is_truthy(message:find(("colon: %s:%s"):format(object[1], name), 1, true), message)
          looked = looked + 1
        end
      end
    end
    assert.is_true(looked > 25, looked)
  end)

  it("is told what works when it is written so", function()
    assert.is_truthy(select(2, said "net.train()"):find("colon: net:train()", 1, true))
    assert.is_truthy(select(2, said "net.summary()"):find("colon: net:summary(...)", 1, true))
    assert.is_truthy(select(2, said "net:summary()"):find("summary: argument 'input_shape': expected a shape", 1, true))
    assert.is_true((said "net:train() net:summary{2}"))
  end)
end)

describe("a field of a module", function()
  it("cannot hide a method, unless it is one", function()
    for name in pairs(module.class_methods()) do
      local net = marea.nn.Linear{2, 2}
      local ok, message = pcall(function() net[name] = marea.zeros(1) end)
      assert.is_false(ok, name)
      assert.is_truthy(message:find(("Linear: a field '%s' would hide the method"):format(name), 1, true), message)
      net[name] = function() return 7 end
      assert.are.equal(7, net[name]())
      assert.is_false(pcall(marea.nn.Sequential, {marea.nn.Linear{2, 2, name = name}}))
    end
    local net = marea.nn.Linear{2, 2}
    net.other, net.training = marea.zeros(1), false
    assert.are.equal(0, net.other:item())
  end)
end)

describe("the prompt", function()
  local function session() return repl.new{marea = marea, print = print} end

  it("takes exit, quit and help as others do, with and without parentheses", function()
    for _, text in ipairs{"exit", "quit", "exit()", " quit () ", "quit( )"} do
      local s = session()
      assert.is_true(s:evaluate(text).ok)
      assert.is_true(s.finished, text)
    end
    local s = session()
    assert.are.equal(s:evaluate(":help").text, s:evaluate("help").text)
    assert.are.equal(s:evaluate(":help").text, s:evaluate("help()").text)
    for _, text in ipairs{"help(conv2d)", "help 'conv2d'", 'help("conv2d")', "help conv2d"} do
      assert.are.equal(s:evaluate("?conv2d").text, s:evaluate(text).text, text)
    end
    assert.is_false(s.finished)
    s:evaluate "exit, help = 3, 4"
    assert.are.same({"3", "4"}, {s:evaluate("exit").text, s:evaluate("help").text})
    assert.is_false(s.finished)
  end)

  it("knows every name of the library by itself, and what is no name", function()
    local s = session()
    for _, list in ipairs{check.names(marea), check.names(module.class_methods()), check.names(marea.nn), core.fields,
      {"index", "batches", "zero_grad", "load_state"}} do
      for _, name in ipairs(list) do assert.is_string((s:help(name)), name) end
    end
    assert.is_truthy(select(2, s:help "outer"):find("is here x:unsqueeze(2) * y", 1, true))
    assert.is_truthy(select(2, s:help "gradchek"):find("did you mean 'gradcheck'", 1, true))
  end)

  it("says that local variables end with their entry", function()
    local s = session()
    s:evaluate "local w, v = 3, 4"
    s:evaluate "local function f() end"
    for _, text in ipairs{"w + 1", "v.x", "f()"} do
      assert.is_truthy(s:evaluate(text).text:find("local variables end with what was entered", 1, true), text)
    end
    assert.is_nil(s:evaluate("g()").text:find("local variables end", 1, true))
  end)

  it("repeats the message that an entry has lost, of the variable that it made", function()
    local s = session()
    s:evaluate 'one = marea.load "nowhere"'
    for _, text in ipairs{"two:baz()", "print(two.x)", "two()"} do
      assert.is_nil(s:evaluate(text).text:find("nowhere", 1, true), text)
    end
    local EARLIER = "an earlier entry gave nil and a message: load: "
    assert.is_truthy(s:evaluate "one:baz()".text:find(EARLIER .. "'nowhere'", 1, true))
    assert.is_truthy(s:evaluate "one.x = 3".text:find("'nowhere'", 1, true))
    local text = s:evaluate 'one = marea.load "elsewhere" one:baz()'.text
    assert.is_truthy(text:find("line 1 gave nil and a message, which assert(...) shows: load: 'elsewhere'", 1, true))
    assert.is_truthy(s:evaluate "one:baz()".text:find(EARLIER .. "'elsewhere'", 1, true))
  end)
end)

describe("a guess", function()
  local function guess(word) return select(2, said("return marea." .. word)):match "did you mean '(.-)'" end

  it("is near", function()
    for word, name in pairs{relux = "relu", sofmtax = "softmax", linspase = "linspace", covn2d = "conv2d",
      sgmoid = "sigmoid", corss_entropy = "cross_entropy", Zeros = "zeros"} do
      assert.are.equal(name, guess(word), word)
    end
    for _, word in ipairs{"utils", "isfoo", "qz", "xx", "jit", "unique_consecutive", "polyfit"} do
      assert.is_nil(guess(word), word)
    end
    local _, message = said "return x.shap"
    assert.is_truthy(message:find("did you mean 'shape'", 1, true))
    assert.is_nil(select(2, said "return x.outre"):find "did you mean")
  end)
end)
