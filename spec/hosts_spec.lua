-- Programs of others with Marea inside, as docs/hosts.md tells their users to do it.

local folder = require "spec.support.folder"
local run = folder.run

local build = os.getenv("MAREA_BUILD") or "build"
local sanitized = build:find "asan" ~= nil
local paths = ("LUA_PATH='%s/?.lua;./lua/?.lua;./lua/?/init.lua;;' LUA_CPATH='./" .. build .. "/lib/?.so;;' ")

local function has(program) return os.execute(("command -v %s >/dev/null 2>&1"):format(program)) end

local function write(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read "a"
  file:close()
  return bytes
end

describe("lighttpd", function()
  local marea = require "marea"
  local here = os.getenv "PATH" .. ":/usr/sbin"
  local there = os.execute("PATH=" .. here .. " command -v lighttpd >/dev/null 2>&1")
    and os.execute "test -f /usr/lib/lighttpd/mod_magnet.so && command -v curl >/dev/null 2>&1"
  local address, process, log, answer

  --- Status, type and body of an answer.
  local function get(path, options)
    local head = run(("curl -s -g --path-as-is -o %s -w '%%{http_code} %%{content_type}' %s '%s%s'"):format(answer,
      options or "", address, path))
    local status, kind = head:match "^(%d+) ([^;]*)"
    return tonumber(status), kind, read(answer)
  end

  local function picture(path)
    local status, kind, bytes = get(path)
    assert.are.same({200, "image/png"}, {status, kind})
    return assert(marea.load_png(answer)), bytes
  end

  --- Seconds that each of many requests took, sorted; all of them were answered with 200.
  local function times(points, options)
    local list, connections = {}, 0
    local pipe = assert(io.popen(("curl -s %s -w '%%{http_code} %%{time_total} %%{num_connects}\\n' -o /dev/null "
      .. "'%s/digit.png?z=%s' 2>/dev/null"):format(options or "", address, points)))
    for line in pipe:lines() do
      local status, seconds, connects = line:match "^(%d+) ([%d.]+) (%d+)$"
      assert.are.equal("200", status)
      list[#list + 1] = tonumber(seconds)
      connections = connections + tonumber(connects)
    end
    pipe:close()
    table.sort(list)
    return list, connections
  end

  setup(function()
    if sanitized or not there then return end
    answer, log = os.tmpname(), os.tmpname()
    for port = 18700, 18720 do -- one of them is free
      address = "http://127.0.0.1:" .. port
      process = run(("sh examples/lighttpd/serve.sh %d >%s 2>&1 & echo $!"):format(port, log)):match "%d+"
      for _ = 1, 100 do
        local text = read(log)
        if text:find "server started" then return end
        if text:find "bind" or not os.execute("kill -0 " .. process .. " 2>/dev/null") then break end
        os.execute "sleep 0.05"
      end
      os.execute("kill " .. process .. " 2>/dev/null")
    end
    error("lighttpd does not start:\n" .. read(log))
  end)

  teardown(function()
    if not process then return end
    os.execute("kill " .. process)
    os.remove(answer)
    os.remove(log)
  end)

  local function served(name, test)
    it(name, function()
      if sanitized then return pending "lighttpd has no sanitizer in it" end
      if not there then return pending "lighttpd-modules-lua or curl is not installed" end
      test()
      assert.is_truthy(os.execute("kill -0 " .. process), "lighttpd has ended:\n" .. read(log))
    end)
  end

  served("answers with the digit that the decoder makes of the point", function()
    local decoder = dofile "examples/lighttpd/decoder.lua" ()
    decoder:load_state(assert(marea.load "examples/lighttpd/decoder.safetensors"))
    for _, z in ipairs{{2.7, 0}, {-2, 1.5}} do
      local want = marea.no_grad(decoder, marea.tensor{z}):reshape(28, 28)
      local _, bytes = picture(marea.format("/digit.png?z=%g,%g", z[1], z[2]))
      assert.are.equal(marea.encode_png(want), bytes)
      assert.is_true(want:max():item() > 0.9 and want:mean():item() < 0.4) -- a digit: white on black
    end
    assert.are.same({28, 28, 1}, picture("/digit.png?x=1&z=1%2C2").shape)
  end)

  served("answers with the plane, row by row from the top left", function()
    local plane = picture "/plane.png"
    assert.are.same({588, 588, 1}, plane.shape)
    local corner = picture(marea.format("/digit.png?z=%.9f,%.9f", -20 / 7, 20 / 7))
    assert.is_true((plane["1:28, 1:28"]:to "f32" - corner:to "f32"):abs():max():item() <= 1)
  end)

  served("refuses what is no point, and says why", function()
    for query, message in pairs{
      [""] = "expected ?z=NUMBER,NUMBER", ["?"] = "expected ?z=NUMBER,NUMBER", ["?Z=1,2"] = "expected ?z=NUMBER,NUMBER",
      ["?z="] = "z: expected two numbers, got ''", ["?z=1"] = "z: expected two numbers, got 1",
      ["?z=1,2,3"] = "z: expected two numbers, got 3", ["?z=a,b"] = "z: expected two numbers, got 'a,b'",
      ["?z=nan,0"] = "z: expected two numbers, got 'nan,0'", ["?z=0x10,0"] = "z: expected two numbers, got '0x10,0'",
      ["?z=1e999,0"] = "z: expected numbers from -10 to 10, got 1e999",
      ["?z=10.1,0"] = "z: expected numbers from -10 to 10, got 10.1",
      ["?z=" .. ("9"):rep(400) .. ",0"] = "z: expected two numbers, got '" .. ("9"):rep(80) .. "'",
      ["?z=%3Cscript%3E,0"] = "z: expected two numbers, got '%3Cscript%3E,0'",
    } do
      local status, kind, text = get("/digit.png" .. query)
      assert.are.same({400, "text/plain", message .. "\n"}, {status, kind, text})
    end
    assert.are.equal(405, (get("/digit.png?z=0,0", "-d x")))
    for _, path in ipairs{"/model.lua", "/decoder.safetensors", "/../../LICENSE", "/%2e%2e/train.lua"} do
      assert.is_true((get(path)) >= 400, path)
    end
    assert.are.equal(200, (get "/digit.png?z=0,0"))
  end)

  served("takes at most 3 ms for most requests of a connection, and answers many at once", function()
    local best = math.huge
    for _ = 1, 3 do -- other work on the machine may disturb one of them
      local list, connections = times "[0-2].[0-9][0-9],0.5"
      assert.are.same({300, 1}, {#list, connections})
      best = math.min(best, list[150])
    end
    assert.is_true(best <= 3e-3, ("p50 %.2f ms"):format(best * 1e3))
    assert.are.equal(300, #times("[0-2].[0-9][0-9],0.7", "--parallel --parallel-max 32"))
    assert.is_falsy(read(log):find "error", read(log))
  end)

  served("does not grow", function()
    local function resident() return tonumber(read("/proc/" .. process .. "/status"):match "VmRSS:%s+(%d+)") end
    times "[0-9].[0-9][0-9],1"
    local before = resident()
    times "[0-9].[0-9][0-9],[1-2]"
    assert.is_true(resident() - before < 1000, ("%d kB more"):format(resident() - before))
  end)
end)

describe("clingo", function()
  it("reads digits with a network, better when it knows their sums", function()
    if sanitized then return pending "clingo has no sanitizer in it" end
    if not has "clingo" then return pending "clingo is not installed" end
    local output = run(paths:format "./examples/clingo"
      .. "timeout 60 clingo examples/clingo/sums.lp --quiet=1 --opt-strategy=usc")
    local alone, with_sums = output:match "right%(alone,(%d+)%) right%(with_sums,(%d+)%)"
    assert.is_truthy(output:find "OPTIMUM FOUND", output)
    assert.is_true(tonumber(alone) >= 75)
    assert.is_true(tonumber(with_sums) > tonumber(alone))
  end)

  it("shows an error of the library with its line, and ends as it does for its own", function()
    if sanitized then return pending "clingo has no sanitizer in it" end
    if not has "clingo" then return pending "clingo is not installed" end
    local path = write [[
#script (lua)
local marea = require "marea"
function f(n) return marea.zeros(n.number):reshape(2) end
#end.
p(@f(3)). q.
]]
    local output = run(paths:format "." .. "timeout 60 clingo " .. path)
    os.remove(path)
    assert.is_truthy(output:find("]:3: reshape: f32 (3) has 3 elements, (2) takes 2", 1, true), output)
    assert.is_truthy(output:find "UNKNOWN", output)
  end)
end)

describe("gnuplot", function()
  it("loads the library in the script of a terminal", function()
    if sanitized then return pending "gnuplot has no sanitizer in it" end
    if not has "gnuplot" or not run("gnuplot -e 'set terminal'"):find "\n%s+lua " then
      return pending "gnuplot with Lua is not installed"
    end
    local path = write [[
local marea = require "marea"
gp.write(("marea %g\n"):format(marea.arange(1, 4):sum():item()))
]]
    local output = run(paths:format "." .. ("gnuplot -e 'set terminal lua \"%s\"'"):format(path))
    os.remove(path)
    assert.is_truthy(output:find "marea 10", output)
  end)
end)
