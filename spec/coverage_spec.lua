-- SPDX-License-Identifier: MIT
-- What spec/coverage/report.py says of a small program whose branches are known.
local folder = require "spec.support.folder"

--- Three lines run and one does not; of the two conditions one went both ways.
local CORE = [[
int marea_half(int x) {
  if (x < 0) return -1;
  if (x > 1000)
    return 500;
  return x / 2;
}
]]
local BINDINGS = [[
int marea_half(int x);
int main(void) { return marea_half(4) + marea_half(-2) - 1; }
]]

describe("the report of make coverage", function()
  local report = folder.quote(folder.absolute "spec/coverage/report.py")
  local at
  setup(function()
    at = folder.new()
    assert(os.execute(("cd %s && mkdir core bindings objects"):format(at)))
    folder.write(at .. "/core/half.c", CORE)
    folder.write(at .. "/bindings/main.c", BINDINGS)
    assert(os.execute(("cd %s && gcc --coverage -O0 -c core/half.c -o objects/half.o && "
      .. "gcc --coverage -O0 -c bindings/main.c -o objects/main.o && gcc --coverage objects/*.o -o run && ./run")
      :format(at)))
  end)
  teardown(folder.remove)

  --- What it says with a list of unreachable code, and its exit code.
  local function said(unreachable, listed)
    folder.write(at .. "/unreachable.txt", unreachable)
    local pipe = io.popen(("cd %s && env -u LD_PRELOAD /usr/bin/python3 %s objects unreachable.txt %s 2>&1; "
      .. "echo exit $?"):format(at, report, listed or ""))
    local text, code = pipe:read "a":match "^(.*)exit (%d+)\n$"
    pipe:close()
    return text, tonumber(code)
  end

  it("counts lines and branches, lists what did not run and fails below the gates", function()
    local text, code = said("", "core/half.c")
    assert.are.equal(1, code)
    assert.matches("core/half.c:3: 1 of 2 branches never taken: if %(x > 1000%)\n", text)
    assert.matches("core/half.c:4: never run: return 500;\n", text)
    assert.matches("\ncore +5 +80%.0%% +4 +75%.0%%\n", text)
    assert.matches("\nbindings +1 +100%.0%% +0 +100%.0%%\n", text)
    assert.matches("\ncore: 80%.0 %% of the lines, less than 95 %%", text)
  end)

  it("leaves out what is listed with a reason, and refuses lists that are out of date", function()
    local reason = " | there are no such numbers\n"
    local text = said("core/half.c | if (x > 1000)" .. reason .. "core/half.c | return 500;" .. reason)
    assert.matches("\ncore +4 +100%.0%% +3 +100%.0%%\n", text)
    assert.matches("unreachable.txt%): 1 branches\n", text)
    local stale, code = said("core/half.c | if (x > 2000)" .. reason)
    assert.are.equal(1, code)
    assert.matches("core/half.c has no such code: if %(x > 2000%)\n", stale)
    assert.matches("unreachable.txt:1: not `FILE", (said "core/half.c | if (x > 1000)\n"))
  end)
end)

describe("the list of unreachable code", function()
  it("names lines that are there, with reasons", function()
    local n = 0
    for line in folder.read "spec/coverage/unreachable.txt":gmatch "[^\n]+" do
      if line:sub(1, 1) ~= "#" then
        local path, code, reason = line:match "^(%S+) | (.+) | (.+)$"
        assert.is_truthy(path, line)
        assert.is_true(#reason > 5, line)
        assert.is_truthy(folder.read(path):find("\n%s*" .. code:gsub("%p", "%%%0")), line)
        n = n + 1
      end
    end
    assert.is_true(n > 20)
  end)
end)
