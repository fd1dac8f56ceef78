-- SPDX-License-Identifier: MIT
-- Ctrl-C and other errors in the middle of work: what stops when, what is left as it was, and that one can go on.
local marea = require "marea"
local folder = require "spec.support.folder"
local message_of = require "spec.support.message_of"
local nn, optim, data = marea.nn, marea.optim, marea.data

local build = os.getenv "MAREA_BUILD" or "build"

teardown(folder.remove)

--- What a script writes that signals itself; `signal(seconds)` sends one after that time.
local function run_script(text)
  return folder.lua(folder.write(folder.new() .. "/script.lua", [[
    local marea = require "marea"
    local function signal(seconds)
      os.execute(marea.format("p=$PPID; (sleep %g; kill -INT $p) >/dev/null 2>&1 &", seconds))
    end
    local a = marea.ones(1500, 1500)
    local function work() while true do marea.scope(function() return a:matmul(a) end) end end
    ]] .. text))
end

describe("an interrupt", function()
  for _, program in ipairs{build .. "/marea", "lua5.4"} do
    it("stops " .. program .. " at once, at any moment, and training goes on to the same bits", function()
      local pipe = io.popen(("LUA_PATH='%s' LUA_CPATH='%s' MAREA_THREADS=1 %s/test/interrupts cpu 28 %s %s 2>&1")
        :format(package.path, package.cpath, build, folder.new(), program))
      local text = pipe:read "a"
      assert.is_true((pipe:close()), text)
    end)
  end

  it("comes as often as one likes to what runs in interruptible, under lua5.4 too", function()
    local text = run_script [[
      print(marea.interruptible(function(x, y)
        for _ = 1, 3 do
          signal(0.1)
          print(marea.catch_interrupt(work))
        end
        return x + y
      end, 3, 4))
      print(pcall(marea.interruptible, error, "as usual"))
    ]]
    assert.is_truthy(text:find("^" .. ("false\t[^\n]*interrupted!\n"):rep(3) .. "7\nfalse\tas usual\n"), text)
  end)

  -- With a program that installs our handler: build/marea itself.
  local function run_program(text)
    local path = folder.write(folder.new() .. "/script.lua", [[
      local function signal(seconds)
        os.execute(("p=$PPID; (sleep %g; kill -INT $p) >/dev/null 2>&1 &"):format(seconds))
      end
      local function spin() while true do end end
    ]] .. text)
    local pipe = io.popen(("timeout 20 %s/marea -l marea %s 2>&1"):format(build, path))
    return pipe:read "a", (select(3, pipe:close()))
  end

  it("is held by no pcall, and catch_interrupt gets it by name", function()
    local text, code = run_program [[
      for _ = 1, 2 do
        signal(0.1)
        print(marea.catch_interrupt(function() while true do pcall(spin) end end))
      end
      print(marea.catch_interrupt(math.max, 1, 2))
      print(pcall(marea.catch_interrupt, error, "as usual"))
      print(pcall(marea.catch_interrupt))
      signal(0.1)
      while true do pcall(marea.interruptible, xpcall, spin, spin) end
    ]]
    assert.is_truthy(text:find("^" .. ("false\t[^\n]*:7: interrupted!\n"):rep(2) .. "true\t2\nfalse\tas usual\n"
      .. "false\t[^\n]*catch_interrupt: argument 'f': expected a function, got nil\nmarea: [^\n]*:13: interrupted!"),
      text)
    assert.are.equal(1, code)
  end)

  it("leaves coroutines as Lua has them: their depth, and where errors were raised", function()
    local here = [[
      local function depth()
        local n = 0
        local function go() n = n + 1 coroutine.wrap(go)() end
        return n, pcall(go), n
      end
      local wrap = coroutine.wrap
      local function closing() error "closed" end
      print(select(3, depth()) > 190)
      print(pcall(function() wrap(function() error "x" end)() end))
      print(pcall(wrap(function() local x <close> = setmetatable({}, {__close = closing}) error {} end)))
      print(pcall(wrap(function() error() end)))
      print(wrap(function(...) return coroutine.yield(...) end)(1, nil))
      local ended = wrap(print)
      ended()
      print(pcall(ended))
      local inside
      inside = wrap(function() inside() end)
      print(pcall(inside))
    ]]
    local pipe = io.popen("lua5.4 " .. folder.write(folder.new() .. "/here.lua", here) .. " 2>&1")
    local plain = pipe:read "a"
    pipe:close()
    local text = run_program(here)
    local function lines(output) return (output:gsub("[^\t\n ]*%.lua:%d+:", "AT")) end
    assert.are.equal(lines(plain), lines(text))
    assert.is_truthy(text:find("^true\nfalse\t[^\n]*:13: [^\n]*:13: x\n"), text)
  end)

  it("is caught while interruptible runs, which therefore nothing leaves by a yield", function()
    local text = run_script [[
      local co = coroutine.create(function() return marea.interruptible(coroutine.yield, 1) end)
      print(coroutine.resume(co))
      print(coroutine.resume(coroutine.create(function() return marea.interruptible(math.max, 1, 2) end)))
    ]]
    assert.are.equal("false\tattempt to yield across a C-call boundary\ntrue\t2\n", text)
  end)

  it("comes through hooks that a script sets, and soon where each instruction takes long", function()
    local text = run_program [[
      local function ends(f)
        signal(0.1)
        local start = marea.clock()
        print((marea.catch_interrupt(f)), marea.clock() - start < 0.5)
      end
      ends(function() while true do debug.sethook() end end)
      ends(function() while true do pcall(debug.sethook, type, "", 1000000) pcall(spin) end end)
      ends(function() while true do pcall(string.rep, "x", 3000000) end end)
    ]]
    assert.are.equal(("false\ttrue\n"):rep(3), text)
  end)

  it("leaves 80 ms for what a script closes, and tells it the error", function()
    local text = run_program [[
      local begun
      local short = setmetatable({}, {__close = function(_, problem)
        begun = marea.clock()
        while marea.clock() - begun < 0.03 do end
        print("closed", problem)
      end})
      local long = setmetatable({}, {__close = spin})
      print(marea.catch_interrupt(function()
        local _ <close> = long
        local _ <close> = short
        signal(0.1)
        spin()
      end))
      print(marea.clock() - begun < 0.19)
    ]]
    assert.is_truthy(text:find "^closed\t[^\n]*:4: interrupted!\nfalse\t[^\n]*interrupted!\ntrue\n", text)
  end)

  it("leaves no step half done when the script holds it", function()
    local text = run_program [[
      local net = marea.nn.Sequential{marea.nn.Linear{64, 64}, marea.nn.BatchNorm{64}, marea.nn.Dropout{0.5}}
      local adam = marea.optim.Adam{net}
      local x, expected = marea.normal{512, 64}, {}
      local function step() adam:step(function() return net(x):square():mean() end) end
      local function digest() return ("%.17g %d"):format(net[2].running_mean:to("f64"):sum():item()
        + net[1].weight:to("f64"):sum():item(), (select(2, marea.random_state()))) end
      step()
      local first = {net:state(), adam:state(), {marea.random_state()}}
      for i = 1, 2 do for k, t in pairs(first[i]) do first[i][k] = t:clone() end end
      for i = 1, 4000 do expected[adam.steps] = digest() step() end
      for _ = 1, 3 do
        net:load_state(first[1]) adam:load_state(first[2]) marea.set_random_state(table.unpack(first[3]))
        signal(0.05)
        local ended = marea.catch_interrupt(function() while adam.steps < 4000 do pcall(step) end end)
        print(ended, expected[adam.steps] == digest(), marea.recording())
      end
    ]]
    assert.are.equal(("false\ttrue\ttrue\n"):rep(3), text)
  end)

  it("is not in the way of what runs in its place: coroutines and xpcall are as Lua's", function()
    local script = [=[
      local co = coroutine.wrap(function(a, b) local c = coroutine.yield(a + b) error("at " .. c) end)
      print(co(1, 2), pcall(co, 3))
      print(pcall(co))
      print(coroutine.resume(coroutine.create(function() return 1, nil, 3 end)))
      print(pcall(coroutine.resume, 1))
      print(pcall(coroutine.wrap))
      print(coroutine.close(coroutine.create(print)), pcall(coroutine.close, coroutine.running()))
      print(xpcall(function() error "x" end, function(m) return m .. debug.getinfo(2, "n").name end))
      print(pcall(xpcall, print), xpcall(function(...) return ... end, print, 1, nil, 2))
      print(coroutine.wrap(function() return xpcall(function() return coroutine.yield(7) end, print) end)())
      print(select("#", xpcall(coroutine.wrap(function() end), print)))
    ]=]
    local path = folder.write(folder.new() .. "/script.lua", script)
    local function output(program) return io.popen(("%s %s 2>&1"):format(program, path)):read "a" end
    local text = output(build .. "/marea")
    assert.is_truthy(text:find "^3\tfalse\t")
    assert.are.equal(output "lua5.4", text)
  end)

  it("waits until a shield is through", function()
    local text = run_script [[
      local done = 0
      signal(0.1)
      print(pcall(marea.shield, nil, function()
        local start = marea.clock()
        while marea.clock() - start < 0.4 do marea.scope(function() return a:matmul(a) end) end
        done = done + 1
      end))
      print(done)
    ]]
    assert.is_truthy(text:find "^false\t[^\n]*interrupted!\n1\n", text)
  end)

  it("ends the reverse pass in front of a shield, which then does not begin", function()
    local text = run_script [[
      local x, losses, begun = marea.ones{1}:requires_grad_(true), {}
      for i = 1, 5 do
        losses[i] = x
        for _ = 1, 60000 do losses[i] = losses[i] + x end
      end
      signal(0.01)
      local ok, message
      while #losses > 0 do
        begun = false
        x:clear_grad()
        ok, message = pcall(marea.shield, function() table.remove(losses):backward() end, function() begun = true end)
        if not ok then break end
      end
      print(ok, message, x.grad, begun)
    ]]
    assert.is_truthy(text:find "^false\t[^\n]*interrupted!\tnil\tfalse\n", text)
  end)

  it("reaches a coroutine through its operators", function()
    local text = run_script [[
      signal(0.1)
      print(coroutine.resume(coroutine.create(work)))
    ]]
    assert.is_truthy(text:find "^false\t[^\n]*interrupted!\n", text)
  end)

  it("does not wait for an image of a convolution to be through", function()
    local text = run_script [[
      marea.set_threads(1)
      local x, w = marea.zeros{16, 256, 256, 16}, marea.zeros{63, 63, 16, 16} -- a second an image
      signal(0.2)
      local begun = marea.clock()
      print(pcall(marea.conv2d, x, w, {padding = 31}))
      print(marea.clock() - begun)
    ]]
    local seconds = tonumber(text:match "^false\t[^\n]*interrupted!\n([%d.,]+)\n")
    assert.is_true(seconds and seconds < 0.6, text)
  end)

  it("does not wait for a sequence to be through, forward or backward", function()
    for _, work in ipairs{"marea.no_grad(layer)", "marea.grad(y, {w_h}, {retain_graph = true})"} do
      local text = run_script([[
        marea.set_threads(1)
        local x, w_x = marea.zeros{16, 400, 1}, marea.zeros{1, 4096}
        local w_h = marea.zeros{1024, 4096}:requires_grad_() -- half a second a sequence
        local function layer() return marea.lstm(x, w_x, w_h) end
        local y = marea.lstm(x:narrow(2, 1, 300), w_x, w_h):sum()
        signal(0.2)
        local begun = marea.clock()
        print(pcall(function() while true do marea.scope(function() ]] .. work .. [[ end) end end))
        print(marea.clock() - begun)
      ]])
      local seconds = tonumber(text:match "^false\t[^\n]*interrupted!\n([%d.,]+)\n")
      assert.is_true(seconds and seconds < 0.6, text)
    end
  end)

  it("keeps the hook of a debugger", function()
    local lines = 0
    local function hook() lines = lines + 1 end
    debug.sethook(hook, "l")
    marea.shield(nil, function() end)
    local kept = debug.gethook()
    debug.sethook()
    assert.are.equal(hook, kept)
  end)
end)

describe("a shield", function()
  it("hands errors through, with recording as before", function()
    local x = marea.ones(2):requires_grad_(true)
    assert.are.same({false, "inside"}, {pcall(marea.shield, nil, error, "inside")})
    assert.is_true(marea.recording())
    marea.shield(function() (x * 3):sum():backward() end, function()
      assert.is_false(marea.recording())
      marea.shield(nil, function() x:mul_(2) end)
    end)
    assert.are.same({3, 3}, x.grad:totable())
    assert.are.same({2, 2}, x:totable())
    assert.is_truthy(message_of(function() marea.shield(1, error) end)
      :find("shield: argument 'before': expected a function or nil", 1, true))
    for name, text in pairs{shield = "shield: argument 'f': expected a function",
      interruptible = "interruptible: argument 'f': expected a function"} do
      assert.is_truthy(message_of(function() marea[name](nil) end):find(text, 1, true))
    end
  end)
end)

describe("an iteration that ends by an error", function()
  local net, optimizer, set

  before_each(function()
    marea.seed(3)
    net = nn.Sequential{nn.Linear{4, 3}, nn.BatchNorm{3}, nn.Dropout{0.5}}
    optimizer = optim.Adam{net, lr = 0.1}
    set = data.Dataset{marea.normal{12, 4}}
  end)

  local function loss_of(x) return net(x):square():mean() end

  local function remembered()
    return {
      net[2].running_mean:totable(), net[2].running_var:totable(), net[1].weight:totable(), {marea.random_state()},
      set:state(), optimizer.steps, net[1].weight.grad == nil,
    }
  end

  it("counts as not begun before the update", function()
    local before
    assert.is_false(pcall(function()
      for x in set:batches(4) do
        if optimizer.steps == 1 then
          loss_of(x)
          loss_of(x)
          error "stop"
        end
        optimizer:step(loss_of(x))
        before = remembered()
      end
    end))
    assert.are.same(before, remembered())
    assert.are.equal(4, set:state().examples)
  end)

  it("keeps the update that it made, and takes back what came after", function()
    local before
    assert.is_false(pcall(function()
      for x in data.progress(set:batches(4), {stream = false}) do
        optimizer:step(loss_of(x))
        before = remembered()
        loss_of(x)
        error "stop"
      end
    end))
    assert.are.same(before, remembered())
    assert.are.equal(4, set:state().examples)
  end)

  it("is undone in a step of a function", function()
    local x = set:field "1"
    optimizer:step(loss_of(x))
    local before = remembered()
    assert.is_false(pcall(optimizer.step, optimizer, function()
      loss_of(x)
      error "stop"
    end))
    assert.are.same(before, remembered())
  end)

  it("keeps what a break leaves", function()
    local mean
    for x in set:batches(4) do
      loss_of(x)
      mean = net[2].running_mean:totable()
      if set:state().examples == 4 then break end
    end
    assert.are.same(mean, net[2].running_mean:totable())
    assert.are.equal(4, set:state().examples)
  end)
end)
