-- Scripts that nobody has read: what they may do, what they may not, and that the host goes on.

local marea = require "marea"
local hostile = require "spec.support.hostile"

local BUDGET, LATE = 0.05, 0.1 -- seconds; LATE is the promise
local TRIES = 8 -- the machine may be busy; a script that is late each time is late

local function sorted(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function new(options)
  return marea.sandbox(options or {seconds = 5})
end

--- It runs the next script; on a busy machine that may take more than one try.
local function assert_alive(box)
  local ok, result
  for _ = 1, TRIES do
    ok, result = box:run "return 7"
    if ok then break end
  end
  assert.are.same({true, 7}, {ok, result})
end

describe("a sandbox", function()
  it("gives scripts Lua and marea, takes arguments and gives results back", function()
    local box <close> = new()
    local ok, a, b, t = box:run([[
      local x, list = ...
      local y = x * 2
      return y, list[1] .. list.name, {1, {k = true}, y:sum():item(), nested = {y}}
    ]], marea.tensor{1, 2}, {"a", name = "b"})
    assert.is_true(ok)
    assert.are.same({2, 4}, a:totable())
    assert.are.equal("ab", b)
    assert.is_true(t[2].k)
    assert.are.equal(6, t[3])
    assert.are.same({2, 4}, t.nested[1]:totable())
    a:add_(1) -- a copy of the host's own
    assert.are.same({2, 4}, t.nested[1]:totable())
  end)

  it("keeps globals between runs and returns what is printed", function()
    local box <close> = new{globals = {limit = 3, image = marea.ones(2, 2)}}
    assert.is_true(box:run "count = (count or 0) + limit  print('count', count, nil)")
    assert.are.same({true, 6, 4.0}, {box:run "count = count + limit  return count, image:sum():item()"})
    assert.are.equal("count\t3\tnil\n", box:output())
    assert.are.equal("", box:output())
    assert.is_nil(rawget(_G, "count"))
  end)

  it("trains a network", function()
    local box <close> = new{seconds = 30}
    local ok, first, last, shown = box:run [[
      marea.seed(1)
      local nn, dist = marea.nn, require "marea.dist"
      local Net = nn.class "Net"
      function Net:init() self.layers = nn.Sequential{nn.Linear{1, 16, activation = "tanh"}, nn.Linear{16, 1}} end
      function Net:forward(x) return self.layers(x) end
      local net = Net()
      local optimizer = marea.optim.Adam{net, lr = 0.02}
      local x = marea.linspace(-3, 3, 64):unsqueeze(-1)
      local y = x:sin() + 0 * dist.Normal(0, 1):sample{64, 1}
      local losses = {}
      for step = 1, 180 do losses[step] = optimizer:step(function() return net(x):mse(y) end):item() end
      return losses[1], losses[#losses], tostring(net)
    ]]
    assert(ok, first)
    assert.is_true(last < 0.2 * first)
    assert.is_truthy(shown:find("Linear(1 -> 16, tanh)", 1, true))
  end)

  it("returns nil and a message for what goes wrong", function()
    local box <close> = new()
    assert.are.same({nil, "sandbox:1: no"}, {box:run "error 'no'"})
    assert.are.same({nil, "sandbox:1: unexpected symbol near '+'"}, {box:run "+"})
    assert.are.same({nil, "(error object is a table value)"}, {box:run "error {}"})
    assert.are.same({nil, "sandbox:1: add: argument 'b': expected a tensor or a number, got nothing"},
      {box:run "marea.ones(1):add()"})
    for _, text in ipairs{"return print", "local t = {} t.t = t return t", "return {[{}] = 1}",
      "local t = marea.ones(1) t:release() return t", "return coroutine.create(print)"} do
      local ok, message = box:run(text)
      assert.is_nil(ok)
      assert.is_truthy(message:find "cannot pass")
    end
    assert.are.same({nil, "no.lua: No such file or directory"}, {box:run_file "no.lua"})
  end)

  it("weighs results in full, and raises nothing for them in the host", function()
    local box <close> = new{seconds = 10, tensor_memory = 64e6, results = 8e6, memory = 16e6}
    local function says(text, what)
      local ok, message = box:run(text)
      assert.is_nil(ok)
      assert.is_truthy(message:find(what, 1, true), message)
    end
    says("return marea.ones(1):expand(2147483647)", "values of more than 8000000 bytes cannot pass")
    says("local x = marea.ones(1):expand(1000000) return x, x, x", "values of more than 8000000 bytes")
    says("local s, t = ('x'):rep(1e6), {} for i = 1, 10 do t[i] = s end return t", "values of more than 8000000 bytes")
    says("local t = {1} for i = 1, 15 do t = {t, t, t, t} end return t", "values of more than 8000000 bytes")
    local ok, x = box:run "return marea.ones(1):expand(1000000)"
    assert.is_true(ok)
    assert.are.equal(1000000, x:sum():item())
    assert.are.same({1000000}, x.shape)
    local large <close> = new{seconds = 10, memory = 2 ^ 18}
    local fine, message = large:run("return ...", ("x"):rep(300000))
    assert.is_nil(fine)
    assert.is_truthy(message:find("values of more than 262144 bytes cannot pass", 1, true), message)
    assert.has_error(function() new{results = -1} end)
  end)

  it("copies results within the time of the run", function()
    local box <close> = new{seconds = 0.05}
    local late = math.huge
    for _ = 1, TRIES do
      local start = marea.clock()
      box:run "local t = {} for i = 1, 1e5 do t[i] = {i} end return t, t, t, t, t, t"
      late = math.min(late, marea.clock() - start - 0.05)
    end
    assert.is_true(late <= LATE, ("%.3f s late"):format(late))
  end)

  it("limits texts", function()
    local box <close> = new()
    local long = ("x = 1 "):rep(200000)
    assert.are.same({nil, "sandbox: a text of 1200000 bytes; it may have 1048576"}, {box:run(long)})
    assert.are.same({nil, "sandbox: a text with 6001 times goto and break; it may have 6000"},
      {box:run("do " .. ("goto a "):rep(6001) .. "::a:: end")})
    assert.are.same({true}, {box:run("do " .. ("goto a "):rep(6000) .. "::a:: end")})
    assert.are.same({true, nil, "C stack overflow"},
      {box:run "return load(('('):rep(300), 'x')"})
    assert.are.same({true, 200000}, {box:run("return " .. ("1 + "):rep(199999) .. "1")})
    assert.are.same({nil, "attempt to load a binary chunk (mode is 't')"}, {box:run(string.dump(load "return 1"))})
  end)

  it("sees the C locale, whatever the host's is", function()
    local before = os.setlocale()
    for _, name in ipairs{"de_DE.UTF-8", "C.UTF-8", "en_US.UTF-8"} do
      if os.setlocale(name) then
        local box <close> = new()
        assert.are.same({true, "1.5", 2.5, true}, {box:run "return tostring(1.5), '1.5' + 1, 'Z' < 'a'"})
        assert.are.equal(name, os.setlocale())
      end
    end
    os.setlocale(before)
  end)

  it("raises for misuse by the host", function()
    assert.has_error(function() new{second = 1} end, "sandbox: unknown argument 'second'; did you mean 'seconds'?")
    assert.has_error(function() new{seconds = 0} end)
    assert.has_error(function() new{read = {"/nowhere/at/all"}} end)
    assert.has_error(function() new{threads = 1000} end)
    local box = new()
    assert.has_error(function() box:run("return 1", print) end)
    assert.has_error(function() box:run(1) end)
    box:close()
    box:close()
    assert.has_error(function() box:run "return 1" end)
  end)

  it("has a budget of each kind for each run", function()
    local box <close> = new{seconds = 20, instructions = 1e6, flop = 1e8, memory = 8e6, tensor_memory = 4e6}
    local function says(text, what)
      local ok, message = box:run(text)
      assert.is_nil(ok)
      assert.is_truthy(message:find(what, 1, true), message)
      assert.is_true(box:run "return 1")
    end
    says("for i = 1, 1e9 do end", "sandbox:1: sandbox: the limit of 1e+06 instructions is reached")
    says("local a = marea.ones(100, 100) for i = 1, 1e6 do pcall(a.matmul, a, a) end", "the limit of")
    says("local a = marea.ones(100, 100) for i = 1, 1e6 do a:matmul(a) end",
      "matmul: the limit of 1e+08 floating-point operations is reached: 2e+06 wanted")
    says("local t = {} for i = 1, 1e6 do t[i] = {} end", "not enough memory")
    says("return marea.zeros(1100, 1000)", "out of memory")
    says("return ('x'):rep(2e6)", "string of 2000000 bytes")
    says("local s = ('x'):rep(1e6) return s .. s", "not enough memory")
  end)

  it("opens and computes with the least memory that it may have, and says what that is", function()
    local box <close> = new{memory = 2 ^ 18, string = 2 ^ 8}
    assert.are.same({true, 3}, {box:run "return marea.ones{3}:sum():item()"})
    for name, bytes in pairs{memory = 262144, string = 256} do
      local ok, message = pcall(marea.sandbox, {[name] = 1})
      assert.is_false(ok)
      assert.are.equal(("sandbox: argument '%s': expected at least %d bytes, without which no sandbox opens, got 1")
        :format(name, bytes), message:match "^[^\n]-:%d+: ([^\n]*)$")
    end
  end)

  it("is stopped by Ctrl-C in the host, which goes on", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write [[
      local box = require "marea".sandbox{seconds = 100, instructions = 1e15}
      local ok, message = require "marea".catch_interrupt(box.run, box,
        "while true do pcall(function() while true do end end) end")
      print(ok, message:match "interrupted!", box:run "return 7")]]
    file:close()
    local pipe = io.popen(("timeout -s INT 1 %s/marea %s"):format(os.getenv "MAREA_BUILD" or "build", path))
    assert.are.equal("false\tinterrupted!\ttrue\t7\n", pipe:read "a")
    pipe:close()
    os.remove(path)
  end)

  it("reads and writes in the folders that it is given", function()
    local folder = os.tmpname()
    os.remove(folder)
    assert(os.execute(("mkdir -p %s/in %s/out"):format(folder, folder)))
    assert(marea.save_npy(marea.arange(1, 3), folder .. "/in/a.npy"))
    local box <close> = new{read = {folder .. "/in"}, write = {folder .. "/out"}}
    assert.are.same({true, 6.0, 6.0}, {box:run([[
      local folder = ...
      local a = assert(marea.load_npy(folder .. "/in/a.npy"))
      assert(marea.save(folder .. "/out/b.safetensors", {a = a}))
      assert(marea.metrics.open(folder .. "/out/m.csv", {"x"}):write{x = 1})
      return a:sum():item(), assert(marea.load(folder .. "/in/../out/b.safetensors")).a:sum():item()
    ]], folder)})
    for _, call in ipairs{"marea.save_npy(marea.ones(1), F .. '/in/c.npy')", "marea.load_npy(F .. '/a.npy')",
      "marea.load(F .. '/input/x')", "marea.load(F .. '/out/../../x')"} do
      local ok, message = box:run(call:gsub("F", ("%q"):format(folder)))
      assert.is_nil(ok)
      assert.is_truthy(message:find "is not in a folder that the sandbox may")
    end
    assert.is_nil(box:run("assert(marea.metrics.open(..., {'x'}):write{x = 1})", folder .. "/m.csv"))
    os.execute("rm -r " .. folder)
  end)
end)

describe("in a sandbox", function()
  local box
  setup(function() box = new{seconds = 20} end)
  teardown(function() box:close() end)

  local function same(text)
    local locale = os.setlocale(nil, "numeric")
    os.setlocale("C", "numeric") -- in a sandbox numbers have a point everywhere
    local here = table.pack(load(text, "=sandbox")())
    os.setlocale(locale, "numeric")
    local there = table.pack(box:run(text))
    assert(there[1], there[2])
    assert.are.same(here, table.pack(table.unpack(there, 2, there.n)))
  end

  it("tables work as always, with metamethods too", function()
    same [[
      local log = {}
      local function spy(t)
        return setmetatable({}, {__index = t, __newindex = t, __len = function() return #t end})
      end
      local a = spy{3, 1, 2}
      table.insert(a, 9) table.insert(a, 1, 8) log[1] = table.concat(a, ",")
      log[2] = table.remove(a, 1) log[3] = table.remove(a) table.sort(a) log[4] = table.concat(a, ",", 2)
      log[5] = {table.unpack(a, 1, 2)} log[6] = table.move({1, 2, 3, 4}, 2, 4, 1)
      log[7] = table.move({1, 2, 3, 4}, 1, 3, 2) log[8] = table.move(a, 1, 3, 2, {}) log[9] = table.remove({}) == nil
      local t = {5, 2, 8} table.sort(t, function(x, y) return x > y end) log[10] = t
      local n = {} for i = 1, 9000 do n[i] = i * 1.5 end
      log[12] = table.concat(n, ", ") log[13] = table.concat(n, 7, 3, 8998)
      log[14] = table.concat(n, ("-"):rep(3000), 1, 300) log[15] = {pcall(table.concat, {1, {}, 3}, ",")}
      log[#log + 1] = {pcall(pairs)}
      for _, n in ipairs{255, 256, 257, 511, 512, 513, 65536, 131072} do
        log[#log + 1] = #("ab"):rep(n)
        log[#log + 1] = #("ab"):rep(n, ",")
      end
      log[16] = {table.unpack({1, 2, 3}, 2)} log[17] = {pcall(table.unpack, {}, 1, 1e7)} log[18] = table.pack(nil, 2).n
      local p, lists = {}, setmetatable({}, {__pairs = function() return next, {a = 1}, nil end})
      for k, v in pairs(lists) do p[k] = v end log[19] = p
      log[24] = {pcall(function() return ("x"):byte {} end)} log[25] = {pcall(function() return ("i"):pack() end)}
      log[20] = {pcall(function() for _ in pairs(nil) do end end)} log[21] = {next({}), next({9}), next({9}, 1)}
      log[22] = {pcall(next, {}, "no")} log[23] = pairs{} == next
      log[11] = {string.rep("ab", 600, "-"), string.rep("x", 0), string.rep("x", -1), string.rep("", 5, ","),
        ("%5d|%-5s|%q|%%|%x|%.3f|%s"):format(3, "a", "b\n\0001", 255, 2, nil), ("%q"):format(1 / 3), ("x"):byte(1, -1),
        {pcall(function() return ("%d"):format("x") end)},
        ("%s;"):rep(2000):format(table.unpack(n, 1, 2000)), ("abc"):byte(-2, -1), ("<i4"):pack(7),
        {("<i4z"):unpack("\7\0\0\0ab\0")},
        string.packsize("!8i4i8"), {utf8.codepoint("häß", 1, -1)}, #(("ab"):rep(50000)),
        (("ab"):rep(50000)):byte(99999, 100000),
        string.rep(7, 3), string.rep("x", 257), string.rep("xy", 70000, "z")}
      return log
    ]]
  end)

  it("coroutines and protected calls work as always", function()
    same [[
      local log = {}
      local co = coroutine.create(function(a) local b = coroutine.yield(a + 1) error("e" .. b, 0) end)
      log[1] = {coroutine.resume(co, 1)} log[2] = {coroutine.resume(co, 5)} log[3] = coroutine.status(co)
      log[4] = {coroutine.resume(co)}
      local w = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end return "done" end)
      log[5] = {w(), w(), w(), w()} log[6] = {pcall(w)}
      log[7] = {pcall(error, {1})} log[8] = {xpcall(function() error("x", 0) end, function(m) return m .. "!" end)}
      log[9] = {xpcall(function(...) return ... end, print, 1, nil, 3)}
      local p = coroutine.wrap(function() return pcall(function() return coroutine.yield(1) + 1 end) end)
      log[10] = {p(), p(4)}
      local closed
      local c = coroutine.create(function()
        local x <close> = setmetatable({}, {__close = function() closed = true end}) coroutine.yield()
      end)
      coroutine.resume(c) log[11] = {coroutine.close(c)} log[12] = closed log[13] = coroutine.isyieldable()
      return log
    ]]
  end)

  it("messages say what they say elsewhere", function()
    for _, text in ipairs{
      "marea.convv2d()", "marea.nn.Linaer{1, 2}", "return marea.softmx", "marea.zeros{2, dtpye = 'f64'}",
      "local images = marea.ones(2, 3)\nlocal w = marea.ones(4, 5)\nreturn images:matmul(w)",
      "local x = marea.ones(2, 3) return x:shap()", "local x = marea.ones(2, 3) return x.shpe",
      "return marea.ones(2) .. 'a'", "return marea.ones(2) < 3", "marea.nn.Linear{4}(marea.ones(2))",
      "local net = marea.nn.Sequential{marea.nn.Linear{3, 4}, marea.nn.Linear{5, 1}}\nnet(marea.ones(2, 3))",
      "marea.ones(2):backward()", "local a = marea.ones(3):requires_grad_()\na:add_(1)", "marea.ones(2, 3):reshape{7}",
      "marea.tensor{{1, 2}, {3}}", "local x = marea.ones(3) x[7] = 1", "marea.optim.Adam{}", "marea.scope(3)",
      "local x = marea.ones(3)\nlocal t = {a = x, b = marea.ones(4)}\nreturn t.a + t.b", "marea.ones(2):to 'f16'",
      "local x = marea.ones(2) x:release() return x + 1", "marea.nn.Conv2d{3, 4, kernal = 3}", "marea.dist.Normal(0)",
      "local w = marea.ones(3, 3) local function f(x) return x:matmul(w) end f(marea.ones(2, 2))", "marea.load(3)",
      "local x = marea.log(marea.tensor({0}, {requires_grad = true})) (x * 0):sum():backward()",
    } do
      local ok, here = pcall(assert(load(text, "=sandbox", "t", setmetatable({marea = marea}, {__index = _G}))))
      local refused, there = box:run(text)
      assert.are.same({ok or nil, here}, {refused, there}, text)
    end
  end)

  it("load works as always", function()
    same [[
      local i, pieces = 0, {"return ", "1 + ", "x"}
      local f = load(function() i = i + 1 return pieces[i] end, "=n", "t", {x = 2})
      return f(), load("return ...", "n")(7), select("#", load("+")), load("x = 3; return x", "n", "t", {})()
    ]]
  end)

  it("metatables work as always", function()
    same [[
      local V = {} V.__index = V
      function V.__add(a, b) return V.new(a.x + b.x) end
      V.__tostring = function(v) return "V" .. v.x end
      V.__eq = function(a, b) return a.x == b.x end V.__lt = function(a, b) return a.x < b.x end
      V.__call = function(v, y) return v.x * y end V.__len = function(v) return v.x end
      V.__concat = function(a, b) return "cat" end V.__close = function() end V.__name = "V"
      function V.new(x) return setmetatable({x = x}, V) end
      local a, b = V.new(1), V.new(2)
      function V:late() return self.x + 10 end
      local r = {tostring(a + b), a == V.new(1), a < b, a(5), #b, a .. b, b:late(), getmetatable(a) == V, rawlen(a)}
      setmetatable(a, nil) r[#r + 1] = getmetatable(a) == nil
      return r
    ]]
  end)

  -- The slow ways of the sandbox's patterns against Lua's own, with the bounds for the fast way at 0.
  for _, bound in ipairs{"WORK = 1e7", "MATCHES = 10000"} do
    it("patterns work as always, without " .. bound, function()
      local path = assert(package.searchpath("marea.sandbox.pattern", package.path))
      local file = assert(io.open(path))
      local text, n = file:read("a"):gsub(bound, bound:match "%u+" .. " = 0")
      file:close()
      assert.are.equal(1, n)
      local slow = assert(load(text))()
      local pieces = {"a", "b", ".", "%a", "[ab]", "[^a]", "%d", "(a)", "(", ")", "()", "*", "+", "-", "?", "%1",
       "%b()",
        "%f[%a]", "$", "^", "%%", "x", "[a-c]", "%s", "]", "[%a-]", "[]a]", "(.-)"}
      local letters = {"a", "b", "c", "x", "(", ")", " ", "1", "%", "-", "]"}
      math.randomseed(5)
      local function draw(list, most)
        local t = {}
        for i = 1, math.random(0, most) do t[i] = list[math.random(#list)] end
        return table.concat(t)
      end
      local good = 0
      for _ = 1, 2500 do
        local s, p, init = draw(letters, 12), draw(pieces, 6), math.random() < 0.3 and math.random(-14, 14) or nil
        local repl = ({"<%0>", "x", function(a) return a ~= "a" and #tostring(a) or nil end, {a = "A", b = false}})
          [math.random(4)]
        local calls = {{"find", s, p, init}, {"match", s, p, init}, {"gsub", s, p, repl}, {"gsub", s, p, "%1", 2}}
        for _, call in ipairs(calls) do
          local here = table.pack(pcall(string[call[1]], table.unpack(call, 2, 4)))
          local there = table.pack(pcall(slow[call[1]], table.unpack(call, 2, 4)))
          if here[1] and not tostring(there[2]):find "unfinished capture" then -- which Lua tells only where it is read
            assert.are.same(here, there, ("%s(%q, %q)"):format(call[1], s, p))
            good = good + 1
          elseif not here[1] then
            assert.is_false(there[1], ("%s(%q, %q): %s"):format(call[1], s, p, here[2]))
          end
        end
        local function list(f)
          local t = {}
          for a, b in f(s, p, init) do t[#t + 1] = tostring(a) .. "," .. tostring(b) end
          return t
        end
        local fine, found = pcall(list, string.gmatch)
        if fine then assert.are.same(found, list(slow.gmatch)) end
      end
      assert.is_true(good > 4000)
    end)
  end
end)

describe("a hostile script", function()
  local folder
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute(("mkdir -p %s/read %s/write && ln -s /etc/passwd %s/read/link"):format(folder, folder, folder)))
  end)
  teardown(function() os.execute("rm -r " .. folder) end)

  --- Seconds beyond the budget.
  local function overtime(text)
    local box <close> = marea.sandbox{seconds = BUDGET, tensor_memory = 2 ^ 27, memory = 2 ^ 24}
    local start = marea.clock()
    local ok, message = box:run(text)
    local took = marea.clock() - start
    assert.is_nil(ok)
    assert.are.equal("string", type(message))
    assert_alive(box)
    return took - BUDGET
  end

  for _, name in ipairs(sorted(hostile.stops)) do
    it("is stopped: " .. name, function()
      local late, tries = math.huge, 0
      while late > LATE and tries < TRIES do
        late = math.min(late, overtime(hostile.stops[name]))
        tries = tries + 1
      end
      assert.is_true(late <= LATE, ("%.3f s late"):format(late))
    end)
  end

  for _, name in ipairs(sorted(hostile.denied)) do
    it("is denied: " .. name, function()
      local box <close> = marea.sandbox{seconds = 5, read = {folder .. "/read"}, write = {folder .. "/write"}}
      local text = hostile.denied[name]:gsub("READ", folder .. "/read"):gsub("WRITE", folder .. "/write")
      local ok, result = box:run(text)
      assert(ok, result)
      assert.is_nil(result)
      assert.are.same({true, 7}, {box:run "return 7"})
    end)
  end

  it("leaves the host as it was", function()
    assert.is_nil(io.open "/tmp/marea_escaped")
    assert.are.equal("xx", ("x"):rep(2))
    assert.are.equal(6, marea.arange(1, 3):sum():item())
    assert.is_nil(debug.gethook())
  end)
end)

-- The same scripts by kind, shorter ones and more: spec/support/attacks.lua.
describe("an attack", function()
  local folder, before
  local sanitized = (os.getenv "MAREA_BUILD" or ""):find "asan" ~= nil
  local BRIEF, FACTOR = 0.02, sanitized and 10 or 1
  local MEMORY = 700 -- MB: tensors, their copies, Lua's

  local function listed()
    local pipe = io.popen(("cd %s && find . ! -path './write/*' | sort | xargs ls -ld --time-style=+ && cat secret")
      :format(folder))
    local text = pipe:read "a"
    pipe:close()
    return text
  end

  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute(([[mkdir -p %s/read %s/write && cd %s && echo "the secret" > secret &&
      ln -s ../secret read/link && ln -s ../secret write/link &&
      ln -s .. write/folder && ln -s ../new write/nowhere && ln -s /dev/zero read/zero &&
      mkfifo read/pipe]]):format(folder, folder, folder)))
    before = listed()
  end)
  teardown(function()
    os.execute("rm -r " .. folder)
    require "marea.core".collect() -- what came back; when it is done next depends on what lives now
  end)

  --- Megabytes that the process has had at most since the last call of this.
  local function peak()
    local status, clear = io.open "/proc/self/status", io.open("/proc/self/clear_refs", "w")
    if not (status and clear) or sanitized then return 0 end
    local kilobytes = status:read "a":match "VmHWM:%s*(%d+)"
    status:close()
    clear:write "5"
    clear:close()
    return tonumber(kilobytes) / 1024
  end

  --- Seconds beyond the budget; at least 0.
  local function overtime(text, seconds)
    local box <close> = marea.sandbox{seconds = seconds, read = {folder .. "/read"}, write = {folder .. "/write"}}
    peak()
    local start = marea.clock()
    local results = table.pack(box:run(text))
    local late = marea.clock() - start - seconds
    assert.is_true(results[1] or type(results[2]) == "string")
    for i = 2, results.n do
      if marea.is_tensor(results[i]) then results[i]:release() end
      assert.are_not.equal("escaped", results[i])
      assert.is_nil(type(results[i]) == "string" and results[i]:find("the secret", 1, true) or nil)
    end
    assert_alive(box)
    assert.is_true(peak() < MEMORY)
    return late
  end

  local kinds = require "spec.support.attacks"
  for _, kind in ipairs(sorted(kinds)) do
    for _, name in ipairs(sorted(kinds[kind])) do
      it(("fails, %s: %s"):format(kind, name), function()
        local text = kinds[kind][name]:gsub("%u+", {SECRET = folder .. "/secret", READ = folder .. "/read",
          WRITE = folder .. "/write", BUDGET = tostring(BRIEF)})
        local late, tries, seconds = math.huge, 0, kind == "crowds" and 0.15 or BRIEF
        while late > LATE * FACTOR and tries < TRIES do
          late = math.min(late, overtime(text, seconds))
          tries = tries + 1
        end
        assert.is_true(late <= LATE * FACTOR, ("%.3f s late"):format(late))
      end)
    end
  end

  it("leaves files as they were", function()
    assert.are.equal(before, listed())
    assert.is_nil(io.open "/tmp/marea_escaped")
    assert.is_nil(io.open "marea_escaped")
  end)
end)

it("a sandbox refuses more folders than it can hold", function()
  local folders = {}
  for i = 1, 16 do folders[i] = "/tmp" end
  local ok, message = pcall(require "marea".sandbox, {read = folders})
  assert.is_false(ok)
  assert.is_truthy(message:find("'read': expected at most 15 folders, got 16", 1, true), message)
end)
