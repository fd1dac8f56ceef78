-- The program's prompt in a real terminal: history, completion, pastes, keys, sizes, and how soon it is there.
local terminal = require "spec.support.terminal"
local folder = require "spec.support.folder"
local clock = require "marea.core".clock

local build = os.getenv("MAREA_BUILD") or "build"
local sanitized = build:find "asan" -- some twenty times slower
local LINES = sanitized and 100 or 1000

describe("the prompt in a terminal", function()
  local home, t

  local function open(options)
    t = terminal.open(("env -u XDG_STATE_HOME -u MAREA_HISTORY HOME=%s %s/marea"):format(home, build), options)
    t:wait "for help\n>"
  end

  local function close()
    t:press "C-d"
    t:close()
  end

  before_each(function() home = folder.new() end)
  after_each(function()
    t:close()
    folder.remove()
  end)

  it("evaluates, goes on after an unfinished line, and says what was wrong", function()
    open()
    t:enter "x = 6 * 7"
    t:enter "x, 'é'"
    t:wait "42      é\n>"
    t:enter "for i = 1, 2 do"
    t:wait ">>"
    t:enter "io.write(i, ' ')"
    t:enter "end"
    t:wait "> end\n1 2\n>"
    t:enter "mrea.x"
    t:wait "did you mean 'marea'?\n>"
  end)

  it("keeps its history from session to session, entries of several lines whole", function()
    open()
    t:enter "first = 1"
    t:enter "for i = 1, 2 do"
    t:enter "  print(first + i)"
    t:enter "end"
    t:wait "2\n3\n>"
    close()
    open()
    t:press("Up")
    t:wait "> for i = 1, 2 do\n  print(first + i)\nend"
    t:press("Up")
    t:wait "> first = 1"
    t:press("Enter", "Up", "Up", "Enter")
    t:wait "end\n2\n3\n>"
    t:press "C-r"
    t:type "first ="
    t:wait "bck:first =" -- libedit's way to say that it searches
    t:press "Enter"
    local pipe = io.popen("stat -c %a " .. home .. "/.marea_history")
    assert.are.equal("600\n", pipe:read "a")
    pipe:close()
  end)

  it("keeps what sessions side by side and killed ones have typed", function()
    open()
    local other = terminal.open(("env MAREA_HISTORY=%s/.marea_history %s/marea"):format(home, build))
    other:wait "for help\n>"
    t:enter "from_one = 1"
    other:enter "from_two = 2"
    other:wait "2\n>"
    t:wait "1\n>"
    other:close()
    close()
    local text = folder.read(home .. "/.marea_history")
    assert.is_truthy(text:find("from_one", 1, true) and text:find("from_two", 1, true))
    assert.are.equal(1, select(2, text:gsub("_HiStOrY_V2_", "")))
  end)

  it("bounds the history", function()
    local lines = {"_HiStOrY_V2_"}
    for i = 1, 5000 do lines[#lines + 1] = ("entry\\040%d"):format(i) end
    folder.write(home .. "/.marea_history", table.concat(lines, "\n") .. "\n")
    open()
    t:press "Up"
    t:wait "> entry 5000"
    t:press("C-u", "C-d")
    os.execute "sleep 0.1"
    local text = folder.read(home .. "/.marea_history")
    assert.are.equal(2001, select(2, text:gsub("\n", "")))
    assert.is_truthy(text:find("entry\\0405000\n", 1, true))
  end)

  it("completes names, fields, arguments and files, and lists what there is", function()
    open()
    t:type "mare"
    t:press "Tab"
    t:type ".conv_transpose2"
    t:press "Tab"
    t:wait "> marea.conv_transpose2d"
    t:press "C-u"
    t:enter "net = nn.Sequential{nn.Conv2d{1, 4, kernel = 3, name = 'conv1'}}"
    t:type "net.con"
    t:press "Tab"
    t:type ".bi"
    t:press "Tab"
    t:type ".sh"
    t:press("Tab", "Enter")
    t:wait "> net.conv1.bias.shape\n(4)\n>"
    t:type "nn.Conv2d{1, 2, ker"
    t:press "Tab"
    t:wait "> nn.Conv2d{1, 2, kernel ="
    t:press "C-u"
    t:type "io.open('core/ops/LI"
    t:press "Tab"
    t:wait "> io.open('core/ops/LIST.h"
    t:press "C-u"
    t:type "optim."
    t:press "Tab"
    t:wait "Adagrad   Adam      AdamW     Muon      RMSprop   SGD       schedule\n> optim."
    t:press "C-u"
    t:type "1 + (mar"
    t:press("Left", "Left", "Left", "Left", "Right", "Right", "Right", "Right", "Tab")
    t:wait "> 1 + (marea"
  end)

  it("takes a marked paste as one chunk, which is looked at before it runs", function()
    open()
    t:paste("local a = 5\nlocal b = 6\nprint(a + b)\na * b\n", true)
    t:wait "> local a = 5\nlocal b = 6\nprint(a + b)\na * b"
    t:press "Enter"
    t:wait "a * b\n11\n30\n>"
    t:press("Up", "C-a")
    t:type "do end "
    t:press "Enter"
    t:wait "11\n30\n>"
  end)

  local function thousand()
    local lines = {"t = {}"}
    for i = 1, LINES - 1 do lines[#lines + 1] = ("t[#t + 1] = %d -- é, a line of the usual length"):format(i) end
    return table.concat(lines, "\n") .. "\n"
  end

  it("loses nothing of 1,000 lines that are pasted, marked or not", function()
    open()
    local begun = clock()
    t:paste(thousand(), true)
    t:enter ""
    t:enter "#t, #t == t[#t]"
    t:wait(("%-8dtrue\n>"):format(LINES - 1))
    t:paste(thousand(), false)
    t:enter "#t + 1, #t == t[#t]"
    t:wait(("%-8dtrue\n>"):format(LINES))
    local block = {"function f(x)"}
    for i = 1, LINES - 2 do block[#block + 1] = ("  x = x + %d -- in a function that has not ended"):format(i) end
    t:paste(table.concat(block, "\n") .. "\nreturn x\nend\n", false)
    t:enter "f(0)"
    t:wait(("%d\n>"):format((LINES - 2) * (LINES - 1) // 2), 20)
    assert.is_true(clock() - begun < 15)
  end)

  it("drops the line at Ctrl-C, an unfinished chunk too, and stops what runs", function()
    open()
    t:type "some text"
    t:wait "> some text"
    t:press "C-c"
    t:enter "1 + 1"
    t:wait "2\n>"
    t:enter "f("
    t:wait ">>"
    t:press "C-c"
    t:enter "2 + 2"
    t:wait "4\n>"
    t:enter "print 'begun' while true do end"
    t:wait "begun"
    t:press "C-c"
    t:wait "begun\n^C\nstdin:1: interrupted!\n>"
    t:enter "3 + 3"
    t:wait "6\n>"
    t:enter "g("
    t:press "C-d"
    t:enter "4 + 4"
    t:wait "8\n>"
  end)

  it("says on a line of its own what Ctrl-C has stopped, below a progress line too", function()
    open{width = 80}
    t:enter "function forever() return 1 end"
    t:enter "for x in data.progress(forever, 'pass') do end"
    os.execute "sleep 0.3"
    t:press "C-c"
    t:wait "\n>"
    local screen = t:screen()
    local below = screen:match "do end\npass  step %d+^C\n[^\n]*interrupted![^\n]*\n(.*)$"
    -- It says where, if the interrupt fell into a function that the loop called.
    assert.is_truthy(below == ">" or below and below:find "^stack traceback:\n.*\n>$", screen)
    t:enter "function fail() if marea.clock() > begun + 0.3 then error 'wrong' end end"
    t:enter "begun = marea.clock() for x in data.progress(forever, 'pass') do fail() end"
    t:wait "'fail'\n>"
    assert.is_truthy(t:screen():find "fail%(%) end\npass  step %d+\nstdin:1: wrong\n", t:screen())
  end)

  it("is on a line of its own, where the editor takes it to be, below what has no newline", function()
    open{width = 60}
    t:enter "x = io.write 'no newline'"
    t:wait "no newline\n>"
    t:type "mare"
    t:press "Tab"
    t:wait "no newline\n> marea"
    t:press "C-u"
    t:enter "x = io.write(('x'):rep(60))"
    t:wait(("x"):rep(60) .. "\n>")
    t:enter "begun = marea.clock() while marea.clock() < begun + 0.5 do end"
    t:type "mare"
    t:wait "end\nmare\n> mare"
    t:press "Tab"
    t:wait "end\nmare\n> marea"
  end)

  it("is told of a signal as of a key", function()
    open()
    t:type "some text"
    t:wait "> some text"
    os.execute("kill -INT " .. t:tmux "display -p '#{pane_pid}'")
    t:enter "1 + 1"
    t:wait "2\n>"
    t:type "other text"
    t:wait "> other text"
    os.execute("kill -CONT " .. t:tmux "display -p '#{pane_pid}'")
    t:type " goes on"
    t:wait "2\n> other text goes on"
  end)

  it("follows the size of the window", function()
    open{width = 60, height = 20}
    t:type(("x"):rep(50) .. " = 1")
    t:resize(30, 20)
    os.execute "sleep 0.2"
    t:resize(90, 20)
    os.execute "sleep 0.2"
    t:press "Enter"
    t:enter(("x"):rep(50) .. " + 1")
    t:wait "2\n>"
    t:enter "core = require 'marea.core' core.terminal_size(0)"
    t:enter "core.terminal_size(0)"
    t:wait "90      20\n>"
    t:type "abc"
    t:resize(70, 20)
    os.execute "sleep 0.2"
    t:resize(90, 20)
    os.execute "sleep 0.2"
    t:wait "90      20\n> abc"
  end)

  it("wraps help to the terminal's width, which may change", function()
    open{width = 80, height = 50}
    t:enter ":help"
    t:wait "begins anew\n>"
    t:enter "?plot.heatmap"
    local screen = t:wait "map = \"viridis\"}\n>"
    assert.is_truthy(screen:find("\n  Ctrl%-D +leaves\n"))
    assert.is_truthy(screen:find("\n                    what the colours mean\n", 1, true), screen)
    t:resize(50, 50)
    t:enter ":help help"
    t:wait "  this text; with a topic, what ?topic says; with\n  a command, that line of it\n>"
  end)

  it("shows colours", function()
    open()
    t:enter "marea.eye(16):show()"
    t:wait "▀\n>"
    assert.is_truthy(t:tmux "capture-pane -p -e":find "\27%[38;5;231m?.-▀")
  end)

  it("leaves at :quit", function()
    open()
    t:enter ":quit"
    os.execute "sleep 0.2"
    assert.is_truthy(t:screen():find "no server" or t:screen():find "error")
  end)

  it("leaves at a Ctrl-D that was typed while something ran", function()
    open()
    t:enter "os.execute 'sleep 0.3' x = 1"
    t:press "C-d"
    os.execute "sleep 0.8"
    assert.is_truthy(t:screen():find "no server" or t:screen():find "error")
  end)

  it("leaves stdin to the script that asks for it", function()
    open()
    t:paste("line = io.read()\nwhat is read\nline\n", false)
    t:wait "> line\nwhat is read\n>"
  end)
end)

describe("the prompt", function()
  it("is there within 20 ms", function()
    if sanitized then return end
    local path, best = folder.new(), math.huge
    for _ = 1, 40 do -- the machine may be busy
      os.execute(("(sleep 0.1; echo :quit) | MAREA_HISTORY= script -q -T %s/times -c %s/marea %s/output > /dev/null")
        :format(path, build, path))
      local taken, seen = 0, 0
      local output = folder.read(path .. "/output"):match "^[^\n]*\n(.*)$"
      for seconds, bytes in folder.read(path .. "/times"):gmatch "([%d%.]+) (%d+)" do
        if output:sub(1, seen):find "> " then break end
        taken, seen = taken + tonumber(seconds), seen + tonumber(bytes)
      end
      assert.is_truthy(output:sub(1, seen):find("for help", 1, true))
      best = math.min(best, taken)
      if best < 0.02 then break end
    end
    folder.remove()
    assert.is_true(best < 0.02, ("%.1f ms"):format(best * 1e3))
  end)
end)
