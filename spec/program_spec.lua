-- SPDX-License-Identifier: MIT
-- The command line of the program `marea`, and what bindings say about arguments, settings and lack of memory.
local core = require "marea.core"
local marea = require "marea"
local folder = require "spec.support.folder"
local requests = require "spec.support.requests"
local quote = folder.quote

local program = quote(folder.absolute((os.getenv "MAREA_BUILD" or "build") .. "/marea"))

--- What the program writes, both streams, and its exit code. `before`: assignments, `input`: what stdin holds.
local function run(arguments, options)
  local o = options or {}
  local pipe = assert(io.popen(("cd %s && printf %%s %s | %s %s %s 2>&1; echo exit $?"):format(o.at or folder.new(),
    quote(o.input or ""), o.before or "", o.program or program, arguments)))
  local text, code = pipe:read "a":match "^(.*)exit (%d+)%s*$"
  pipe:close()
  return text, tonumber(code)
end

--- Asserts the exit code and a part of what is written.
local function expect(code, part, arguments, options)
  local text, found = run(arguments, options)
  assert.are.equal(code, found, text)
  assert.is_truthy(text:find(part, 1, true), text)
  return text
end

describe("the program", function()
  teardown(folder.remove)

  it("shows its version and its options, and refuses others", function()
    local version = "Marea " .. core.info().version .. ", Lua 5.4"
    expect(0, version, "-v")
    expect(0, version, "--version")
    expect(0, "usage: marea [options] [script [arguments]]\n", "-h")
    expect(0, "usage: marea", "--help")
    for _, wrong in ipairs{"-x", "-e", "-l", "--verbose"} do expect(1, "usage: marea", wrong) end
  end)

  it("runs texts and modules in their order, then the script with its arguments", function()
    local at = folder.new()
    folder.write(at .. "/script.lua", "print(n, arg[0], ...) print(select('#', ...), arg[-1])")
    expect(0, "2.0\tscript.lua\ta\tb c\n2\t", "-l marea -e 'n = marea.ones(2):sum():item()' script.lua a 'b c'",
      {at = at})
    expect(0, "nil\tscript.lua\n0\t--\n", "-- script.lua", {at = at})
    expect(0, "3\n", "-e 'x = 1' -e 'print(x + 2)'")
    expect(0, "from stdin\t1\n", "- 1", {input = "print('from stdin', ...)"})
    expect(0, "from stdin\n", "", {input = "print 'from stdin'"})
  end)

  it("reports what goes wrong, and then stops", function()
    expect(1, "module 'nowhere' not found", "-l nowhere -e 'print \"never\"'")
    local text = expect(1, "(command line):1: boom", [[-e 'error "boom"' -e 'print "never"']])
    assert.is_falsy(text:find("never", 1, true))
    expect(1, "unexpected symbol near '='", "-e '= 1'")
    expect(1, "cannot open nowhere.lua", "nowhere.lua")
    expect(1, "stdin:1: boom", "", {input = 'error "boom"'})
    expect(1, "(error object is a table value)", "-e 'error{}'")
    expect(1, "as text", [[-e 'error(setmetatable({}, {__tostring = function() return "as text" end}))']])
    expect(3, "", "-e 'os.exit(3)'")
  end)

  it("gives Lua's own traceback when the library cannot explain", function()
    local explain = [[package.loaded["marea.explain"] = nil package.preload["marea.explain"] = ]]
    for _, loader in ipairs{"function() error 'no' end", "function() return 1 end",
      "function() return {traceback = error} end", "function() return {traceback = function() end} end"} do
      expect(1, "boom\nstack traceback:\n", "-e " .. quote(explain .. loader .. ' error "boom"'))
    end
  end)

  it("reads, evaluates and prints after a script, also after one that fails", function()
    local at = folder.new()
    folder.write(at .. "/good.lua", "n = 20")
    folder.write(at .. "/bad.lua", "n = 30 error 'boom'")
    expect(0, "21\n", "-i good.lua", {at = at, input = "n + 1\n"})
    expect(0, "31\n", "-i bad.lua", {at = at, input = "n + 1\n"})
    expect(0, "boom", "-i bad.lua", {at = at, input = "n + 1\n"})
  end)

  it("finds the library that is compiled in where no path can name its folder", function()
    local at = folder.new() .. "/a;b?"
    assert(os.execute(("mkdir %s && cp %s %s/"):format(quote(at), program, quote(at))))
    expect(0, "6.0\n", [[-e 'print(require "marea".arange(1, 3):sum():item())']], {program = quote(at .. "/marea")})
  end)

  it("says which setting of the environment it cannot follow", function()
    for _, threads in ipairs{"none", "0", "2x", "99999999999"} do
      expect(1, ("MAREA_THREADS: expected a positive integer, got '%s'"):format(threads), "-l marea",
        {before = "MAREA_THREADS=" .. threads})
    end
    expect(1, "MAREA_CONV ('sideways')", "-l marea", {before = "MAREA_CONV=sideways"})
    expect(0, "generic\t1\n", [[-l marea -e 'local i = marea.info() print(i.isa, i.threads)']],
      {before = "MAREA_ISA=generic MAREA_THREADS=1 MAREA_CONV=auto"})
  end)
end)

describe("bindings", function()
  local function message_of(f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok)
    return message
  end

  it("refuse what no file can hold", function()
    local path = folder.new() .. "/file"
    assert.matches("save_bytes: argument 'bytes': expected a string", message_of(marea.save_bytes, path, {}))
    assert.matches("a key has a zero byte", message_of(marea.save, path, {["a\0b"] = marea.ones(1)}))
    assert.matches("a key has a zero byte", message_of(marea.save, path, {a = marea.ones(1)}, {["b\0"] = "text"}))
    assert.matches("expected names as keys", message_of(marea.save, path, {marea.ones(1)}))
    local gone = core.scope(function() return {marea.ones(2)} end)[1]
    gone:release()
    assert.matches("released", message_of(marea.save, path, {a = gone}))
    assert.matches("zero byte", message_of(marea.load_npy, path .. "\0"))
    assert.matches("argument 'options': expected a table", message_of(marea.load_png, path, 16))
    assert.matches("argument 'bits': expected 8 or 16", message_of(marea.load_png, path, {bits = "many"}))
  end)

  it("collect garbage and try again when memory is short, and raise when there is none", function()
    local at = folder.new()
    local x = marea.tensor({{1, 2}, {3, 4}}, {requires_grad = true})
    local flat, image = x:detach(), marea.tensor({{0, 1}, {2, 3}}, {dtype = "u8"})
    assert(marea.save_npy(flat, at .. "/x.npy") and marea.save_png(image, at .. "/x.png")
      and marea.save_jpeg(image, at .. "/x.jpg"))
    local function or_raise(value, message) return value or error(message, 0) end
    for name, body in pairs{
      load_npy = function() return or_raise(marea.load_npy(at .. "/x.npy")) end,
      load_png = function() return or_raise(marea.load_png(at .. "/x.png")) end,
      save_npy = function() return or_raise(marea.save_npy(flat, at .. "/y.npy")) end,
      save_png = function() return or_raise(marea.save_png(image, at .. "/y.png")) end,
      save_bytes = function() return or_raise(marea.save_bytes(at .. "/y", "text")) end,
      save_jpeg = function() return or_raise(marea.save_jpeg(image, at .. "/y.jpg")) end,
      load_jpeg = function() return or_raise(marea.load_jpeg(at .. "/x.jpg")) end,
      load_image = function() return or_raise(marea.load_image(at .. "/x.png")) end,
      encode_png = function() return marea.encode_png(image) end,
      to = function() return flat:to "f64" end,
      detach = function() return x:detach() end,
      tensor = function() return marea.tensor{1, 2, 3} end,
      copy = function() return marea.tensor(flat, {dtype = "f64"}) end,
      part = function() return flat["1, :"] + 1 end,
      assign = function() local y = flat:clone() y[y:gt(2)] = 0 y[{1}] = marea.tensor{7, 8} return y end,
      backward = function() (x * x):sum():backward{retain_graph = true} x:clear_grad() end,
      grad = function() return marea.grad((x * x):sum(), x, {create_graph = true}) end,
      plan = function() return marea.plan(function() return flat:matmul(flat) end) end,
      largest = function() return core.memory_largest(3) end,
      text = function() return tostring(flat:transpose(1, 2)) end,
      list = function() return flat:transpose(1, 2):totable() end,
    } do
      body()
      local before
      requests.each_failure(function() core.scope(function() body() end) end, function(_, _, what)
        x:clear_grad()
        before = before or requests.in_use()
        requests.assert_same_use(before, name .. ", " .. what)
      end)
    end
  end)
end)
