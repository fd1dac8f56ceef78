--- Output handler of busted: every failure in full as it happens, what was skipped and why, the time of each file, and
--- at the end one plain line, "N passed, N failed", that people and machines read alike.
return function()
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()
  local before = { passed = 0, failed = 0 }

  local function counts()
    return {
      passed = handler.successesCount,
      failed = handler.failuresCount + handler.errorsCount,
    }
  end

  local function message_of(t)
    local message = t.message
    if type(message) ~= "string" then message = require("pl.pretty").write(message or "error without a message") end
    return message
  end

  local function report(list)
    local t = list[#list]
    local at = t.element.trace or t.trace or {}
    io.write(("\nFAILED %s (%s:%s)\n%s\n"):format(t.name or "?", at.short_src or "?", at.currentline or "?",
      message_of(t)))
    io.flush()
  end

  function handler.fileEnd(file)
    local now = counts()
    io.write(("%-36s %5d passed %3d failed %7.1f s\n"):format(file.name:gsub("^%./", ""),
      now.passed - before.passed, now.failed - before.failed, file.duration or 0))
    io.flush()
    before = now
    return nil, true
  end

  function handler.testEnd(_, _, status)
    if status == "failure" then report(handler.failures) end
    if status == "error" then report(handler.errors) end
    if status == "pending" then
      local t = handler.pendings[#handler.pendings]
      io.write(("skipped: %s: %s\n"):format(t.name, message_of(t):gsub("^%S+:%d+: ", "")))
    end
    return nil, true
  end

  function handler.error(element, _, message)
    if element.descriptor == "it" then return nil, true end
    io.write(("\nERROR in %s %s\n%s\n"):format(element.descriptor, element.name or "", tostring(message)))
    return nil, true
  end

  function handler.suiteEnd()
    local now = counts()
    io.write(("%d passed, %d failed\n"):format(now.passed, now.failed))
    io.flush()
    return nil, true
  end

  busted.subscribe({ "file", "end" }, handler.fileEnd)
  busted.subscribe({ "test", "end" }, handler.testEnd, { predicate = handler.cancelOnPending })
  busted.subscribe({ "error" }, handler.error)
  busted.subscribe({ "failure" }, handler.error)
  busted.subscribe({ "suite", "end" }, handler.suiteEnd)
  return handler
end
