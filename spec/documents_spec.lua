-- The pages that a new user follows say what comes: sessions are typed at the program's prompt, scripts are run.
local document = require "spec.support.document"
local folder = require "spec.support.folder"

local build = os.getenv("MAREA_BUILD") or "build"

--- The whole path of a file, for the shell.
local function absolute(path) return folder.quote(folder.absolute(path)) end

--- A folder as the project's, where the sample is found and files may be written.
local function workplace()
  local home = folder.new()
  assert(os.execute(("ln -s %s %s/scripts"):format(absolute "scripts", home)))
  return home
end

local function follow(path, least)
  local program = "env -u COLORTERM NO_COLOR=1 " .. absolute(build .. "/marea")
  local failures, typed = document.follow(path, program, workplace())
  assert.are.equal("", table.concat(failures, "\n\n"))
  assert.is_true(typed >= least, typed)
end

--- What the program writes when it runs a script.
local function run(source)
  local home = workplace()
  folder.write(home .. "/script.lua", source)
  local program = absolute(build .. "/marea")
  local pipe = io.popen(("cd %s && LC_ALL=C %s script.lua 2>script.errors; echo exit $?"):format(home, program))
  local text, code = pipe:read "a":match "^(.*)exit (%d+)%s*$"
  pipe:close()
  assert.are.equal("0", code, folder.read(home .. "/script.errors"))
  return text
end

describe("a page of the documentation", function()
  teardown(folder.remove)

  it("is compared line by line, with ... for what may differ", function()
    assert.is_true(document.matches({"a ... c", "...", "z"}, {"a b c", "x", "y", "z"}))
    assert.is_true(document.matches({"...", "z"}, {"z"}))
    assert.is_true(document.matches({"1.5 (f32)"}, {"1.5 (f32)"}))
    assert.is_false(document.matches({"1.5"}, {"1x5"}))
    assert.is_false(document.matches({"a"}, {"a", "b"}))
    assert.is_false(document.matches({"a", "...", "b"}, {"a"}))
    assert.is_true(document.matches({" @@ ", "@"}, {" @% ", "@"}))
    assert.is_false(document.matches({" @@ ", "@"}, {"@  @", "@"}))
  end)

  it("docs/tour.md: prompt, network, VAE, Ctrl-C, rerun", function() follow("docs/tour.md", 25) end)

  it("docs/sequences.md: rows, layers, a text that goes on", function() follow("docs/sequences.md", 25) end)

  it("README.md: the first script, and the prompt", function()
    local text = run(document.lua "README.md")
    local steps, at_half, sine = 0, text:match "([%d%.]+)\t(0%.4794%d*)\n$"
    for _ in text:gmatch "%d+00\t%d%.%d" do steps = steps + 1 end
    assert.are.equal(5, steps, text)
    assert.is_true(math.abs(at_half - sine) < 0.05, text)
    follow("README.md", 4)
  end)

  it("docs/scripting.md: its pieces are one script", function()
    local text = run(document.lua "docs/scripting.md")
    assert.is_truthy(text:find("f32\t2\t2\t3\t6\n", 1, true), text)
    assert.is_truthy(text:find("operators %d+%.%d %%, script", 1), text)
    follow("docs/scripting.md", 2)
  end)

  it("docs/precision.md: its pieces are one script", function()
    local text = run(document.lua "docs/precision.md")
    assert.is_truthy(text:find("^20\t%d%.%d+\nbf16\tf32\tf32\nbf16\tbf16\tf32\n.*MB\nf32\tu8\tf32\n$"), text)
    assert.is_truthy(text:find("\n1 of 3 layers in int8: 1.60 MB -> 1.21 MB\n", 1, true), text)
  end)
end)
