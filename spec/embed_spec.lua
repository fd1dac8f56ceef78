-- Marea inside other programs and at its prompt.

local point = require "spec.support.point"
local run = require "spec.support.folder".run

local build = os.getenv("MAREA_BUILD") or "build"

local function temporary_folder()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir -p " .. path))
  return path
end

describe("the example host", function()
  local folder

  setup(function()
    folder = temporary_folder()
    local output, ok = run(("%s/marea scripts/vae.lua --smoke --epochs 1 --out %s"):format(build, folder))
    assert(ok, output)
  end)

  teardown(function() os.execute("rm -r " .. folder) end)

  it("decodes a digit and reads its pixels", function()
    local output, ok = run(("%s/examples/host_min examples/decode.lua %s/vae.safetensors 0.5 -0.5"):format(build,
      folder))
    assert(ok, output)
    local rows = 0
    for line in output:gmatch "([^\n]*)\n" do
      rows = rows + 1
      assert.are.equal(56, #line)
    end
    assert.are.equal(28, rows)
    assert.is_truthy(output:find "%S") -- an untrained decoder is gray, not black
  end)

  it("decodes the same as the one without Lua", function()
    local arguments = folder .. "/vae.safetensors 0.5 -0.5"
    local without = run(("%s/examples/decode %s"):format(build, arguments))
    assert.are.equal(run(("%s/examples/host_min examples/decode.lua %s"):format(build, arguments)), without)
    assert.are.equal(28 * 57, #without)
    local output, ok = run(build .. "/examples/decode nowhere.safetensors 0 0")
    assert.is_falsy(ok)
    assert.is_truthy(output:find "nowhere.safetensors")
  end)

  it("reports a missing file as an error of the script", function()
    local output, ok = run(build .. "/examples/host_min examples/decode.lua nowhere.safetensors")
    assert.is_falsy(ok)
    assert.is_truthy(output:find("decode.lua:%d+: load: 'nowhere.safetensors'"))
  end)
end)

describe("the example in C without Lua", function()
  it("trains a network, saves it and leaves nothing behind", function()
    local path = os.tmpname()
    local output, ok = run(("%s/examples/train %s"):format(build, path))
    assert(ok, output)
    local first, last = output:match "step   1  loss ([%d.,]+).*step 600  loss ([%d.,]+)"
    assert.is_true(tonumber(last) < 0.01 * tonumber(first))
    assert.is_truthy(output:find "bytes still in use: 0")
    local core = require "marea.core"
    assert.are.same({1, 32}, core.load(path)["hidden.weight"].shape)
    os.remove(path)
  end)
end)

describe("the example that draws frames", function()
  it("trains in what is left of each, from the host's memory", function()
    local output, ok = run(build .. "/examples/frames examples/frames.lua 300")
    assert(ok, output)
    local steps, first, last, own = output:match "(%d+) steps, loss (%S+) to (%S+), %d+ frames over 4 ms, (%d+) by"
    assert.is_true(tonumber(steps) >= 300)
    assert.is_true(tonumber(last) < 0.2 * tonumber(first))
    local sanitized = build:find "asan" -- a step takes longer than the budget there
    assert.is_true(tonumber(own) <= 6 or sanitized, output)
  end)

  it("ends with the script's message", function()
    local output, ok = run(build .. "/examples/frames nowhere.lua 3")
    assert.is_falsy(ok)
    assert.is_truthy(output:find "cannot open nowhere.lua")
  end)
end)

describe("the example in C++", function()
  it("lends its threads and stops a script that nobody has read", function()
    if not os.execute "pkg-config --exists lua5.4-c++" then return pending "needs Lua that is built as C++" end
    local output, ok = run(build .. "/examples/host_cpp")
    assert(ok, output)
    assert.is_truthy(output:find(point "mean 99999.0, last sample now 199998\n", 1, true))
    assert.is_truthy(output:find("result: 30\n", 1, true))
    assert.is_truthy(output:find("stopped: plugin:1: sandbox: the time limit of 0.2 s is reached\n", 1, true))
    assert.is_truthy(output:find("attempt to index a nil value (global 'io')", 1, true))
  end)
end)

describe("a program that carries Lua", function()
  local folder, static
  setup(function()
    folder = temporary_folder()
    assert(os.execute(("cp %s/lib/marea/core.so %s/marea.so"):format(build, folder)))
    static = run("pkg-config --variable=libdir lua5.4"):match "%S+" .. "/liblua5.4.a"
  end)
  teardown(function() os.execute("rm -r " .. folder) end)

  --- Builds spec/c/shape.c with these arguments and runs it with those.
  local function shape(compiler, arguments, ...)
    local sanitize = build:find "asan" and "-fsanitize=address,undefined" or ""
    local output, ok = run(("%s $(pkg-config --cflags lua5.4) %s -o %s/host spec/c/shape.c %s"):format(compiler,
      sanitize, folder, arguments))
    assert(ok, output)
    return run(("%s/host %s"):format(folder, table.concat({...}, " ")))
  end

  it("as a library", function()
    assert.are.equal("shape 2\n", (shape("cc", "-llua5.4", folder)))
  end)

  it("inside, with its symbols shown", function()
    assert.are.equal("shape 2\n", (shape("cc", ("-Wl,-E %s -lm -ldl"):format(static), folder)))
  end)

  it("inside and hidden: the module cannot be loaded, and says why", function()
    local output, ok = shape("cc", ("%s -lm -ldl"):format(static), folder)
    assert.is_falsy(ok)
    assert.is_truthy(output:find "undefined symbol: lua")
    output, ok = shape("cc", ("%s -lm -ldl"):format(static), build .. "/test/linked")
    assert.is_falsy(ok)
    assert.is_truthy(output:find("this program has a Lua inside that it does not show to modules", 1, true))
  end)

  it("in a plugin whose symbols stay its own: the module that is linked to Lua works", function()
    local output, ok = run(("cc $(pkg-config --cflags lua5.4) -shared -fPIC -o %s/plugin.so spec/c/shape.c -llua5.4")
      :format(folder))
    assert(ok, output)
    local loader = folder .. "/plugin.so"
    output, ok = shape("cc", "-DLOADER -ldl", loader, folder)
    assert.is_falsy(ok)
    assert.is_truthy(output:find "undefined symbol: lua")
    assert.are.equal("shape 2\n", (run(("%s/host %s %s/test/linked"):format(folder, loader, build))))
  end)

  it("built as C++", function()
    assert.are.equal("shape 2\n", (shape("c++ -x c++", "-x none -llua5.4-c++", folder)))
  end)
end)

describe("the prompt", function()
  local function type_in(...)
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(table.concat({...}, "\n"), "\n")
    file:close()
    local output = run(("%s/marea -i < %s"):format(build, path))
    os.remove(path)
    return output
  end

  it("prints the values of expressions, of several lines too", function()
    local output = type_in("1 +", "2, 'two'", "=marea.arange(1, 3):sum():item()", "x = 7", "x")
    assert.is_truthy(output:find "3\ttwo\n")
    assert.is_truthy(output:find "6.0\n")
    assert.is_truthy(output:find "7\n")
  end)

  it("goes on after an error, which names the line that was typed", function()
    local output = type_in("marea.seed('x')", "marea.zeros({2}, 'f64')", "'still here'")
    assert.is_truthy(output:find("stdin:1: seed: argument 'n': expected an integer, got string 'x'", 1, true))
    assert.is_truthy(output:find("stdin:1: zeros: expected options by name", 1, true))
    assert.is_truthy(output:find "still here\n")
  end)
end)
