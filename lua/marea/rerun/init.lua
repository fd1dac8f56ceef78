-- SPDX-License-Identifier: MIT
--- marea.rerun: runs a script again, after an edit say, and goes on with what the run before has learned.
---
---   marea.rerun("train.lua", {arguments = {"--lr", "1e-4"}, report = print})
---   for epoch in marea.rerun.range(1, 10) do ... end      -- in the script: a loop that goes on where it was
---
--- A run takes over: weights, found by the script's variables and the paths below; what optimizers remember of them;
--- the random state; the place in the data; data that was read from files that are still the same. It does so with the
--- first call of a network, before its weights are used. The state that it leaves is that of the last whole step,
--- however it ends: by itself, by an error, or by Ctrl-C. docs/rerun.md tells more.
local core = require "marea.core"
local check = require "marea.internal.check"
local events = require "marea.internal.events"
local unwind = require "marea.internal.unwind"
local Run = require "marea.rerun.run"
local files = require "marea.rerun.files"
local new_report = require "marea.rerun.report".new
local range = require "marea.rerun.range"
local state_of = require "marea.rerun.state"

local rerun = {range = range}

local sessions = {} -- path -> what is known of a script
local last_path

local EXIT, CHANGED = {}, {} -- errors that end a run: os.exit was called, a file was saved
local PERIOD = 0.2 -- seconds between two looks at files

local function session_of(path)
  sessions[path] = sessions[path] or {path = path, cache = {}, sources = files.new(path), arguments = {}}
  return sessions[path]
end

-- ---- one run ----

local own_arg = {} -- the table `arg` of the script, where the program has no such global variable

--- Gives a table other contents: libraries such as argparse hold the table `arg`. Returns what was in it.
local function refill(t, contents)
  local before = {}
  for key, value in pairs(t) do before[key] = value end
  for key in pairs(before) do t[key] = nil end
  for key, value in pairs(contents) do t[key] = value end
  return before
end

-- luacheck: globals arg dofile loadfile require os.exit
--- What a script finds changed: its arguments in `arg`; an os.exit that ends the run and not the program; dofile,
--- loadfile and require that note what they read. The value is to be closed.
local function surroundings(session)
  local before = {arg = arg, exit = os.exit, dofile = dofile, loadfile = loadfile, require = require,
    watcher = events.watcher}
  arg = arg or own_arg
  local words = refill(arg, table.move(session.arguments, 1, #session.arguments, 1, {[0] = session.path}))
  function os.exit(code)
    session.exit_code = code
    error(EXIT, 0)
  end
  function dofile(path, ...)
    session.sources:add(path)
    return before.dofile(path, ...)
  end
  function loadfile(path, ...)
    session.sources:add(path)
    return before.loadfile(path, ...)
  end
  function require(name)
    if package.loaded[name] == nil then session.sources:add_module(name) end
    return before.require(name)
  end
  return unwind.finally(function()
    refill(arg, words)
    arg, os.exit, dofile, loadfile = before.arg, before.exit, before.dofile, before.loadfile
    require = before.require
    events.watcher = before.watcher
  end)
end

--- A message handler: notes the script's variables as they are when it fails.
local function failed(session, run, problem)
  if debug.getinfo(150, "f") then return problem end -- a deep stack may be an overflow: there is no room for calls
  session.traceback = type(problem) == "string" and require "marea.explain".traceback(problem) or nil
  pcall(run.fails, run)
  return problem
end

--- Runs the chunk; returns what core.protected returns.
local function execute(session, run)
  local guard <close> = surroundings(session) -- luacheck: ignore 211
  events.watcher = run
  return core.protected(run.chunk, function(problem) return failed(session, run, problem) end,
    table.unpack(session.arguments))
end

local function is_good_exit(session, problem)
  local code = session.exit_code
  return problem == EXIT and (code == nil or code == true or code == 0)
end

--- Keeps what the run has learned, and the files that it has read.
local function conclude(session, run, finished)
  local state, note = state_of(run, finished)
  local report = new_report(run, state == session.state and "kept" or finished and "replaced" or "under way")
  report.note = note
  session.idle = state == session.state
    and (note and "the last run's weights were not finite" or "the last run made no step")
  if not session.idle then session.earlier = session.state end
  session.state, session.variables, session.run = state, run.variables or {}, nil
  for path in pairs(run.training and session.cache or {}) do
    if not run.used[path] then session.cache[path] = nil end
  end
  return report
end

--- What is known of a script, after the conclusion of a run that Ctrl-C has cut short.
local function settled(session)
  if session and session.run then conclude(session, session.run, false) end
  return session
end

--- Tells of the takeover when the first step is made, and looks whether files were saved.
local function observer(session, run, options, changed)
  local told, looked_at = false, core.clock()
  run.on_step = function()
    if not told then
      told = true
      if options.report then options.report(new_report(run, "under way")) end
    end
    if changed and core.clock() - looked_at > PERIOD then
      looked_at = core.clock()
      if changed(session) then error(CHANGED, 0) end
    end
  end
  return function(report)
    if (not told or report.note) and options.report then options.report(report) end
  end
end

---@param changed? fun(session: table): boolean that stops the run
local function run_once(path, options, changed)
  local session = settled(session_of(path))
  last_path = last_path or path -- a mistyped name does not replace the script that ran last
  local text, message = files.read(path)
  if not text then return core.failed(message) end
  local chunk, problem = loadfile(path)
  if not chunk then return core.failed(problem) end
  last_path = path
  session.arguments = options.arguments or session.arguments
  session.variables, session.traceback, session.exit_code = nil, nil, nil
  session.sources:reload()
  local run = Run.new(path, chunk, text, session.state, session.cache)
  local tell = observer(session, run, options, changed)
  session.run = run
  local ok, raised, interrupted = execute(session, run)
  local finished = ok or is_good_exit(session, raised)
  local report = conclude(session, run, finished)
  tell(report)
  if finished then return report end
  if raised == EXIT then raised = ("%s: the script called os.exit(%s)"):format(path, tostring(session.exit_code)) end
  if interrupted then core.interrupt(raised) end
  error(raised, 0)
end

local function read_options(what, path, options)
  if not (loadfile and debug and debug.getlocal) then
    check.raise("%s: needs loadfile and the debug library, which scripts do not have here", what)
  end
  check.string(what, "path", path)
  options = check.options(what, options, {"arguments", "report", "message"})
  for _, name in ipairs{"report", "message"} do
    if options[name] ~= nil and type(options[name]) ~= "function" then
      check.fail(what, name, "a function", options[name])
    end
  end
  if options.arguments ~= nil then check.items(what, "arguments", options.arguments, "a list of strings") end
  for i, word in ipairs(options.arguments or {}) do check.string(what, ("arguments, %d"):format(i), word) end
  return options
end

--- Runs a script with what its last run under marea.rerun has learned. Errors of the script, Ctrl-C among them, go on
--- to the caller; nothing is lost by them.
---@param path string
---@param options? {arguments: string[]?, report: fun(report: RerunReport)?} arguments: of the script; left out, those
---  of its last run; report: is called once, after the first step of training or else at the end
---@return RerunReport|nil report, string|nil message nil when the file cannot be read or has a syntax error
local function call(_, path, options) return run_once(path, read_options("rerun", path, options)) end

-- ---- what is known of a script ----

local function known(path)
  if path ~= nil then check.string("rerun", "path", path) end
  return settled(sessions[path or last_path or ""])
end

local function nothing_known(path)
  return core.failed(path and ("no run of %s is known"):format(path) or "no run is known")
end

--- The script's local variables at the end of its last run, or where it was stopped: name -> value. Of a run that came
--- to its end, those that it had when the training began.
---@param path? string left out: the script that ran last
---@return table<string, any>|nil variables, string|nil message
function rerun.variables(path)
  local session = known(path)
  if not session or not session.variables then return nothing_known(path) end
  return session.variables
end

--- Takes the last run back: the next one begins with what that one began with. When it has left nothing to take back,
--- that is said first, and another call takes back the run before it.
---@param path? string left out: the script that ran last
---@return boolean|nil ok, string|nil message
function rerun.back(path)
  local session = known(path)
  if not session then return nothing_known(path) end
  local idle = session.idle
  session.idle = nil
  if idle then
    return core.failed(("%s: there is nothing to go back to%s"):format(idle,
      session.earlier and "; once more takes back the run before" or ""))
  end
  if not session.earlier then return core.failed("there is no earlier state to go back to") end
  session.state, session.earlier = session.earlier, nil
  return true
end

--- Forgets what a script has learned: the next run begins anew.
---@param path? string left out: all scripts
function rerun.forget(path)
  if path == nil then sessions, last_path = {}, nil
  else sessions[check.string("forget", "path", path)] = nil end
end

--- The script that ran last, if any.
---@return string|nil
---@example marea.rerun.last()
function rerun.last() return last_path end

--- The last error of a script, with a hint and the calls that led to it.
---@param path? string the last script when left out
---@return string|nil
function rerun.traceback(path)
  local session = known(path)
  return session and session.traceback
end

--- In a script: does this run take over anything from an earlier one?
---@return boolean
function rerun.goes_on() return events.watcher ~= nil and events.watcher:goes_on() end

-- ---- watch ----

local function is_interrupt(problem) return type(problem) == "string" and problem:find "interrupted" ~= nil end

--- For a run: was a file saved that is to be run? One that does not compile is left for later.
local function saved(options)
  return function(session)
    if not session.sources:changed() then return false end
    local problem = session.sources:problem()
    if problem and options.message then options.message(problem) end
    return not problem
  end
end

local function watch_once(path, options)
  local ok, report, message = pcall(run_once, path, options, saved(options))
  if ok and not report and options.message then options.message(message) end
  if ok or report == CHANGED then return ok end
  if is_interrupt(report) then error(report, 0) end
  if options.message then options.message(sessions[path].traceback or tostring(report)) end
  return true
end

--- Runs a script, and again whenever it or a Lua file that it reads was saved: also in the middle of training, which
--- then goes on with the edited script. Returns by Ctrl-C alone, as the error that this is.
---@param path string
---@param options? {arguments: string[]?, report: fun(report: RerunReport)?, message: fun(text: string)?} message: gets
---  the errors of the script
function rerun.watch(path, options)
  options = read_options("watch", path, options)
  local session = session_of(path)
  while true do
    session.sources:changed()
    local wait = watch_once(path, options)
    options.arguments = nil
    while wait and not session.sources:changed() do core.sleep(PERIOD) end
  end
end

return setmetatable(check.strict(rerun, "marea.rerun"), {__index = getmetatable(rerun).__index, __call = call})
