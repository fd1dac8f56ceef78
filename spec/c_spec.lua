-- Runs the tests that are written in C (spec/c): the core without Lua, and the bindings from a host's side.

local build = os.getenv("MAREA_BUILD") or "build"

local function lines(command)
  local list, pipe = {}, assert(io.popen(command))
  for line in pipe:lines() do list[#list + 1] = line end
  return list, pipe:close()
end

describe("C test", function()
  for _, source in ipairs(lines("ls spec/c/*_test.c")) do
    local name = source:match("([%w_]+)_test%.c$")
    it(name, function()
      local output, ok = lines(("%s/test/%s 2>&1"):format(build, name))
      assert(ok, "\n" .. table.concat(output, "\n"))
    end)
  end
end)
