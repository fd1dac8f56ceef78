-- bindings/luajit/marea_ffi.lua in LuaJIT and in programs that have it, as docs/luajit.md tells their users.

local document = require "spec.support.document"
local folder = require "spec.support.folder"
local quote, run, must = folder.quote, folder.run, folder.must

local build = os.getenv("MAREA_BUILD") or "build"
local sanitized = build:find "asan" ~= nil or build:find "coverage" ~= nil
local library = folder.absolute(build) .. "/libmarea.so"

local environment = ("MAREA_LIBRARY=%s LUA_PATH='%s/bindings/luajit/?.lua;%s/examples/luajit/?.lua;;' "):format(
  quote(library), folder.absolute ".", folder.absolute ".")

local function has(program) return os.execute("PATH=$PATH:/usr/sbin command -v " .. program .. " >/dev/null 2>&1") end

--- Runs a test in a program that may be missing.
local function with(program, name, test)
  it(name, function()
    if sanitized then return pending(program .. " has no sanitizer in it") end
    if not has(program) then return pending(program .. " is not installed") end
    test()
  end)
end

--- A command that finds libmarea and marea_ffi.lua.
local function there(command) return environment .. "timeout 60 " .. command end

describe("LuaJIT", function()
  local place, weights, model = nil, "examples/lighttpd/decoder.safetensors", nil

  setup(function()
    local marea = require "marea"
    place = folder.new()
    model = place .. "/decoder.onnx"
    local decoder = dofile "examples/lighttpd/decoder.lua" ()
    decoder:load_state(assert(marea.load(weights)))
    assert(marea.onnx.save(decoder, model, {z = marea.zeros{1, 2}}, {results = {"image"}}))
  end)

  teardown(folder.remove)

  with("luajit", "is told what the C compiler knows of marea.h", function()
    local path = place .. "/layout.c"
    must(there "luajit spec/luajit/layout.lua >" .. quote(path))
    assert.is_true(select(2, folder.read(path):gsub("\n", "")) > 80)
    must("gcc -std=gnu11 -Icore -fsyntax-only " .. quote(path))
    local changed = "sed 's/int marea_threads/long marea_threads/' %s | gcc -std=gnu11 -Icore -fsyntax-only -x c -"
    local _, fine = run(changed:format(quote(path)))
    assert.is_false(fine) -- the test can fail
  end)

  with("luajit", "has tensors, operators and networks", function()
    for _, compiled in ipairs{"-jon", "-joff"} do
      local arguments = ("luajit %s spec/luajit/tensors.lua %s %s"):format(compiled, weights, quote(model))
      assert.are.equal("done\n", must(there(arguments)))
    end
  end)

  with("luajit", "has an error with a sentence for each wrong argument", function()
    assert.are.equal("done\n", must(there("luajit spec/luajit/misuse.lua " .. quote(model))))
  end)

  --- Names and numbers that a command writes, line by line; `least`: those of earlier runs, of which the smaller stay.
  local function numbers(command, least)
    for name, number in must(command):gmatch "([%w_]+) (%-?%d+)\n" do
      least[name] = math.min(least[name] or math.huge, tonumber(number))
    end
    return least
  end

  with("luajit", "takes at most 1 us a call more than C, and does not grow in a million calls", function()
    local program = quote(place .. "/calls")
    must(("ln -s %s %s/libmarea.so.0"):format(quote(library), quote(place)))
    must(("gcc -std=gnu11 -O2 -Icore -o %s spec/luajit/calls.c %s"):format(program, quote(library)))
    local here, there_too = {}, {}
    local slow
    for _ = 1, 5 do -- other work on the machine may disturb one of them
      numbers(("LD_LIBRARY_PATH=%s %s"):format(quote(place), program), here)
      numbers(there "luajit spec/luajit/calls.lua", there_too)
      slow = nil
      for name, each in pairs(here) do
        if there_too[name] - each > 1000 then slow = ("%s: %d ns, in C %d ns"):format(name, there_too[name], each) end
      end
      if not slow then break end
    end
    assert.is_nil(slow)
    assert.is_true(here.add > 0 and here.from_memory > 0)
    assert.is_true(there_too.grown < 4000, ("%d kB more"):format(there_too.grown))
    assert.is_true(there_too.live < 10000, ("%d bytes in use"):format(there_too.live))
  end)

  with("luajit", "does what docs/luajit.md says", function()
    local path = folder.write(place .. "/page.lua", document.lua "docs/luajit.md")
    must(("cp %s %s/decoder.safetensors"):format(weights, quote(place)))
    local command = ("cd %s && "):format(quote(place)) .. there("luajit " .. quote(path))
    assert.are.equal("f32 (2,2)\t15\nf32\n36\t4\nf32 (2,128)\tnil\nz\tf32\nf32 (1,28,28,1)\n"
      .. "matmul: f32 (2, 2) x f32 (3): inner sizes 2 and 3 differ\n", must(command))
  end)

  --- What decoder.lua makes of the point 2.7, 0.
  local function digit_at(path) return must(there("luajit examples/luajit/digit.lua " .. quote(path) .. " 2.7 0")) end

  with("luajit", "draws the same digit by operators and by a network of ONNX", function()
    local text = digit_at(weights)
    assert.is_truthy(text:find "@@@@")
    assert.are.equal(28, select(2, text:gsub("\n", "")))
    assert.are.equal(text, digit_at(model))
  end)

  with("nvim", "draws it into a buffer of Neovim, and shows errors as Neovim's", function()
    for _, path in ipairs{weights, model} do
      local buffer = place .. "/buffer"
      local command = "DIGIT=%s nvim --headless -u NONE -c 'luafile examples/neovim/digit.lua' -c 'Digit %s' "
        .. "-c 'w! %s' -c 'qa!'"
      must(environment .. "timeout 60 sh -c " .. quote(command:format(path, "2.7 0", buffer)))
      assert.are.equal(digit_at(path), folder.read(buffer))
      local output = run(environment .. "timeout 60 sh -c " .. quote(command:format(path, "x 0", buffer)))
      local message = "digit.lua:11: tensor: argument 'values': expected numbers, got nothing"
      assert.is_truthy(output:find(message, 1, true), output)
    end
  end)

  --- Runs test(address) beside nginx.
  local function beside_nginx(test)
    local log, process, address = place .. "/nginx.log", nil, nil
    must("mkdir -p " .. quote(place .. "/nginx"))
    local configuration = folder.read "examples/nginx/nginx.conf"
    for port = 18730, 18750 do -- one of them is free
      address = "http://127.0.0.1:" .. port
      local path = folder.write(place .. "/nginx.conf", (configuration:gsub("18730", port)))
      process = must(("PATH=$PATH:/usr/sbin DIGIT=%s DIGIT_ONNX=%s %s nginx -p %s -c %s >%s 2>&1 & echo $!"):format(
        quote(folder.absolute(weights)), quote(model), environment, quote(place .. "/nginx"), quote(path), quote(log)))
        :match "%d+"
      for _ = 1, 100 do
        if run(("curl -s -m 5 -o /dev/null -w '%%{http_code}' %s/x.png"):format(address)) == "404" then break end
        if not os.execute("kill -0 " .. process .. " 2>/dev/null") then break end
        os.execute "sleep 0.05"
      end
      if os.execute("kill -0 " .. process .. " 2>/dev/null") then break end
    end
    local ok, message = pcall(test, address)
    os.execute("kill " .. process)
    assert(ok, tostring(message) .. "\n" .. folder.read(log))
  end

  with("nginx", "answers with it in nginx, whose workers share the master's networks, also when wrk asks", function()
    if not os.execute "test -f /usr/lib/nginx/modules/ngx_http_lua_module.so" or not has "curl" then
      return pending "libnginx-mod-http-lua or curl is not installed"
    end
    beside_nginx(function(address)
      local function get(path)
        local answer = place .. "/answer"
        local status = must(("curl -s -m 5 -o %s -w '%%{http_code}' '%s/%s'"):format(quote(answer), address, path))
        return status, folder.read(answer)
      end
      local status, picture = get "digit.png?z=2.7,0"
      assert.are.equal("200", status)
      local marea = require "marea"
      local image = assert(marea.load_png(place .. "/answer")):to "f32"
      assert.are.same({28, 28, 1}, image.shape)
      assert.is_true(image:max():item() > 230)
      assert.are.same({"200", picture}, {get "onnx.png?z=2.7,0"})
      assert.are.same({"400", "expected ?z=NUMBER,NUMBER\n"}, {get "digit.png?z=a,0"})
      if not has "wrk" then return end
      for file, page in pairs{[weights] = "digit.png", [model] = "onnx.png"} do
        local output = must(("DIGIT=%s %s wrk -t2 -c4 -d1s -s examples/wrk/check.lua %s/%s"):format(quote(file),
          there "", address, page))
        local right, wrong = output:match "(%d+) right, (%d+) wrong"
        assert.are.equal("0", wrong, output)
        assert.is_true(tonumber(right) > 50, output)
      end
    end)
  end)
end)
