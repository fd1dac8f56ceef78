-- SPDX-License-Identifier: MIT
--- The prompt without a terminal: everything that a front end (the program's line editor, a notebook, a test) needs to
--- read, evaluate, complete, explain and show.
---
---   local session = repl.new()
---   session:evaluate "1 + 2"          -- {ok = true, text = "3", values = {3, n = 1}}
---   session:is_complete "for i = 1, 3 do"      -- "incomplete"
---   session:complete "marea.con"      -- 7, {"concat", "contiguous", "conv2d", ...}
---   session:feed(line)                -- line by line, as they are typed
local core = require "marea.core"
local check = require "marea.internal.check"
local frames = require "marea.explain.frames"

local repl = {}

---@class Session
---@field env table the globals of what is typed
---@field prompt string what to write in front of the next line
---@field entry string|nil what the last feed completed, lines that belong together in one
---@field finished boolean :quit was given
local Session = {}
Session.__index = Session

local PARTS = {"nn", "optim", "dist", "data", "image", "plot", "augment", "judge", "checkpoint", "metrics",
  "importance", "onnx", "keras"}

--- Gives the parts of the library (nn, optim, ...) their names among the globals, when they are first used unless the
--- globals have a metatable of their own.
local function offer_parts(env)
  if getmetatable(env) ~= nil then
    for _, name in ipairs(PARTS) do
      if rawget(env, name) == nil then rawset(env, name, require("marea." .. name)) end
    end
    return
  end
  local lazy = {}
  for _, name in ipairs(PARTS) do lazy[name] = "marea." .. name end
  setmetatable(env, {
    __lazy = lazy,
    __index = function(self, key)
      if not lazy[key] then return nil end
      local part = require(lazy[key])
      rawset(self, key, part)
      return part
    end,
  })
end

--- A session over the globals `env` (_G when left out), in which marea and its parts have their names.
---@param env? table
---@return Session
function repl.new(env)
  env = env or _G
  if rawget(env, "marea") == nil then env.marea = require "marea" end
  offer_parts(env)
  return setmetatable({env = env, prompt = "> ", finished = false}, Session)
end

-- ---- reading ----

local MOST_SPLITS = 50 -- lines that are tried as the beginning of the last expression

--- Does the message of the compiler say that the text ends too early? `x:name` without arguments is taken for a
--- mistake, not for the beginning of a longer text.
local function is_begun(message)
  return message:find "<eof>'?$" ~= nil and not message:find "function arguments expected"
end

function Session:load(text) return load(text, "=stdin", "t", self.env) end

--- Compiles statements whose last lines are an expression: the function returns nil and the expression's values.
local function load_with_value(self, text)
  local starts = {}
  for at in text:gmatch "\n()%s*[%a_%d#]" do starts[#starts + 1] = at end
  for i = #starts, math.max(1, #starts - MOST_SPLITS), -1 do
    local head, tail = text:sub(1, starts[i] - 1), text:sub(starts[i])
    if self:load("return nil, " .. tail) and self:load(head) then
      return self:load(head .. "return nil, " .. tail)
    end
  end
end

--- Compiles an expression, or statements, or statements whose last line is an expression. The function returns nil in
--- front of an expression's values: `return f()` would be a tail call, and errors in f could not name the line that
--- called it.
---@return function|nil f, string|integer what the values to leave out, or the message; boolean begun: the text only
---ends too early
function Session:compile(text)
  text = text:gsub("^%s*=", "", 1)
  local f, message = self:load("return nil, " .. text)
  if f then return f, 1, false end
  local begun = is_begun(message) and text:find "%S" ~= nil
  f = load_with_value(self, text)
  if f then return f, 1, false end
  f, message = self:load(text)
  if f then return f, 0, false end
  return nil, message, begun or is_begun(message)
end

local WORDS = {exit = "quit", quit = "quit", help = "help"}

--- The command and its argument for exit, quit() and help "conv2d", which other prompts understand; nil for other
--- texts, and when the script has a variable of this name.
local function word_of(self, text)
  local word, rest = text:match "^%s*(%a+)(.-)%s*$"
  local command = WORDS[word]
  if not command or rawget(self.env, word) ~= nil then return nil end
  local argument = rest:match "^%s*%((.*)%)$" or rest:match "^%s*(['\"].*)$"
    or command == "help" and rest:match "^%s+(.*)$" or rest
  argument = argument:match "^%s*['\"]?(.-)['\"]?%s*$"
  if argument == "" then return command, "" end
  return command == "help" and argument:find "^[%w_%.:]+$" and command or nil, argument
end

--- Is it a command (":time f()") or a question ("?conv2d")? These are not Lua.
local function sort_of(self, text)
  local word, about = word_of(self, text)
  if word then return "command", word, about end
  if text:find "^%s*:%a" then return "command", text:match "^%s*:(%a[%w_]*)%s*(.-)%s*$" end
  if text:find "^%s*%?" then return "question", text:match "^%s*%?%s*(.-)%s*$" end
  if text:find "%S%s*%?%s*$" and not text:find "\n" and text:find "^%s*[%w_%.:]+%s*%?%s*$" then
    return "question", text:match "^%s*(.-)%s*%?%s*$"
  end
  return "lua"
end

--- Is the text something to run, or does it go on?
---@return string "complete", "incomplete" or "invalid", which running it explains
function Session:is_complete(text)
  if sort_of(self, text) ~= "lua" then return "complete" end
  local f, _, begun = self:compile(text)
  return f and "complete" or begun and "incomplete" or "invalid"
end

-- ---- running ----

local function explain(problem)
  if type(problem) ~= "string" then
    local meta = debug.getmetatable(problem)
    if not meta or not meta.__tostring then
      return ("error object: %s"):format(require "marea.repl.inspect".text(problem))
    end
    problem = tostring(problem)
  end
  return require "marea.explain".traceback(problem)
end

local function protected(f, ...) return table.pack(core.protected(f, explain, ...)) end

---@class Result
---@field ok boolean
---@field text string|nil what to show: the values, or the error
---@field values table|nil of an expression, with their number n

--- Runs Lua.
---@return Result
function Session:run(text)
  local f, what = self:compile(text)
  if not f then return {ok = false, text = require "marea.explain".explain(what, text)} end
  frames.typed(f, text)
  local values = protected(f)
  if not values[1] then return {ok = false, text = values[2]} end
  values = table.pack(table.unpack(values, 2 + what, values.n))
  if values.n == 0 then return {ok = true} end
  rawset(self.env, "_", values[1])
  local shown = protected(self.format, self, values)
  return {ok = shown[1], text = shown[2], values = values}
end

local function run_command(self, name, argument)
  local commands = require "marea.repl.commands"
  local command = commands.find(name)
  if not command then
    local names = {}
    for i, c in ipairs(commands) do names[i] = c.name end
    return {ok = false, text = ("there is no command ':%s'%s"):format(name, check.did_you_mean(name, names))}
  end
  local results = protected(command.run, self, argument)
  if not results[1] then return {ok = false, text = results[2]} end
  if results[2] == nil and results[3] ~= nil then return {ok = false, text = results[3]} end
  return {ok = true, text = results[2]}
end

--- Runs what was typed: Lua, a command such as ":time f()", or a question such as "?conv2d".
---@param text string
---@return Result
function Session:evaluate(text)
  local sort, word, argument = sort_of(self, text)
  if sort == "command" then return run_command(self, word, argument) end
  if sort == "question" then
    local answer, message = self:help(word)
    return {ok = answer ~= nil, text = answer or message}
  end
  if text:find "^%s*$" then return {ok = true} end
  return self:run(text)
end

--- Takes the next line that was typed. "more": it goes on; "done": `text` is to be shown, as an error when `ok` is
--- false; session.entry is what was run. session.prompt is for the line after it.
---@param line string
---@return string status, string|nil text, boolean|nil ok
function Session:feed(line)
  local text = self.pending and self.pending .. "\n" .. line or line
  self.entry = nil
  if self:is_complete(text) == "incomplete" then
    self.pending, self.prompt = text, ">> "
    return "more"
  end
  self:cancel()
  if text:find "%S" then self.entry = text end
  local result = self:evaluate(text)
  return "done", result.text, result.ok
end

--- Forgets the lines of a text that has not ended; false if there were none.
---@return boolean
function Session:cancel()
  local had = self.pending ~= nil
  self.pending, self.prompt = nil, "> "
  return had
end

-- ---- showing, completing, explaining ----

--- Values as the prompt shows them: side by side when each is short, else one below the other.
---@param values table with their number n
---@return string
function Session:format(values) -- luacheck: no unused args
  local parts, short = {}, true
  for i = 1, values.n do
    parts[i] = require "marea.repl.inspect".value(values[i])
    short = short and not parts[i]:find "\n"
  end
  return table.concat(parts, short and "\t" or "\n")
end

local function complete_command(self, text)
  local commands = require "marea.repl.commands"
  local name, gap, argument = text:match "^%s*:([%w_]*)(%s*)(.*)$"
  local list, start = {}, #text - #name + 1
  if gap == "" then
    for _, command in ipairs(commands) do
      if command.name:sub(1, #name) == name then list[#list + 1] = command.name end
    end
    return start, list
  end
  local command = commands.find(name)
  local kind, before = command and command.completes, #text - #argument
  if kind == "file" then start, list = require "marea.repl.complete".files(argument)
  elseif kind == "code" then start, list = require "marea.repl.complete".lua(self.env, argument)
  else return #text + 1, {} end
  return before + start, list
end

--- What may stand in place of the end of `text`, which is the line up to the cursor: text:sub(1, start - 1) and a
--- candidate.
---@param text string
---@return integer start, string[] candidates
function Session:complete(text)
  if not self.pending and text:find "^%s*:%a*" and not text:find "^%s*::" then return complete_command(self, text) end
  if text:find "^%s*$" then return #text + 1, {"  "} end
  local asked = not self.pending and text:match "^%s*%?%s*()"
  local before = self.pending and #self.pending + 1 or asked and asked - 1 or 0
  local source = self.pending and self.pending .. "\n" .. text or text:sub(before + 1)
  local start, list = require "marea.repl.complete".lua(self.env, source)
  if asked and #list == 0 and not source:find "[%.:]" then start, list = require "marea.repl.help".complete(source) end
  return self.pending and start - before or start + before, list
end

local LISTED = 200 -- candidates that are shown at most

--- The longest beginning that all have in common, in whole characters.
local function common(list)
  local first, n = list[1], #list[1]
  for _, candidate in ipairs(list) do
    while candidate:sub(1, n) ~= first:sub(1, n) do n = n - 1 end
  end
  while n > 0 and n < #first and first:byte(n + 1) & 0xC0 == 0x80 do n = n - 1 end
  return first:sub(1, n)
end

--- Candidates in columns, read downwards.
local function in_columns(list, width)
  local cell, shown = 0, math.min(#list, LISTED)
  for i = 1, shown do cell = math.max(cell, utf8.len(list[i]) or #list[i]) end
  local columns = math.max((width + 2) // (cell + 2), 1)
  local rows = (shown + columns - 1) // columns
  local lines = {}
  for r = 1, rows do
    local parts = {}
    for i = r, shown, rows do parts[#parts + 1] = list[i] .. (" "):rep(cell - (utf8.len(list[i]) or #list[i])) end
    lines[r] = table.concat(parts, "  "):gsub("%s+$", "")
  end
  if shown < #list then lines[#lines + 1] = ("... %d more"):format(#list - shown) end
  return table.concat(lines, "\n")
end

--- For a line editor: how many characters in front of the cursor to erase, what to insert in their place, and the
--- candidates as a text of `width` columns when they have nothing more in common. Nothing when there are none.
---@param text string the line up to the cursor
---@param width? integer the terminal's when left out
---@return integer|nil erase, string|nil insert, string|nil list
function Session:expand(text, width)
  local start, list = self:complete(text)
  if #list == 0 then return nil end
  local typed, begins = text:sub(start), common(list)
  if #list > 1 and #begins <= #typed then
    return 0, "", in_columns(list, width or require "marea.internal.layout".terminal())
  end
  return utf8.len(typed) or #typed, begins
end

--- What is known about a name: signature, shapes, text, an example.
---@param topic string "conv2d", "nn.Conv2d", "x.sum"
---@return string|nil text, string|nil message
function Session:help(topic)
  return require "marea.repl.help".topic(self.env, topic)
end

--- The same for a front end that asks about the name at the end of a text; nil when nothing is known.
function Session:inspect(text)
  local name = text:match "([%a_][%w_%.:]*)$"
  return name and (self:help(name)) or nil
end

--- Where the lines typed at earlier sessions are kept: $MAREA_HISTORY (empty: nowhere), else marea_history in
--- $XDG_STATE_HOME, else ~/.marea_history.
---@return string|nil
function repl.history_path()
  local given, state, home = os.getenv "MAREA_HISTORY", os.getenv "XDG_STATE_HOME", os.getenv "HOME"
  if given then return given ~= "" and given or nil end
  if state and state ~= "" and core.list_folder(state) then return state .. "/marea_history" end
  return home and home ~= "" and home .. "/.marea_history" or nil
end

return check.strict(repl, "repl")
