-- SPDX-License-Identifier: MIT
--- Hints for Lua's own messages, run-time and syntax errors alike.
local core = require "marea.core"
local check = require "marea.internal.check"
local frames = require "marea.explain.frames"
local synonyms = require "marea.explain.synonyms"

local language = {}

local RESERVED = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat return then true "
  .. "until while"):gmatch "%a+" do RESERVED[word] = true end

local PARTS = {nn = true, optim = true, data = true, dist = true, plot = true, checkpoint = true}

-- ---- names that are nearly right ----

--- Keys of a table that a script may name, and of the classes behind it.
local function keys_of(value, list)
  for _ = 1, 5 do
    if type(value) ~= "table" then break end
    local visited = 0
    for key in next, value do
      visited = visited + 1
      if visited > 1000 then break end
      if type(key) == "string" and not key:find "^_" then list[#list + 1] = key end
    end
    local meta = getmetatable(value)
    value = type(meta) == "table" and rawget(meta, "__index") or nil
  end
  return list
end

--- Variables that hold the script's tables: local ones, then global ones in the order of their names.
local function tables_of(frame)
  local list, names = {}, {}
  local variables, globals = frames.variables(frame)
  for _, variable in ipairs(variables) do
    if type(variable.value) == "table" then list[#list + 1] = variable end
  end
  for name, value in next, globals do
    if type(name) == "string" and type(value) == "table" and not package.loaded[name] then names[#names + 1] = name end
  end
  table.sort(names, core.before)
  for _, name in ipairs(names) do list[#list + 1] = {name = name, value = rawget(globals, name)} end
  return list
end

--- "'net' has no 'con1'; did you mean 'conv1'?" for a field or method that is nil.
local function near_field(frame, name)
  local line = frames.source_line(frame)
  local owner = line:match("([%w_]+)[%.:]" .. name .. "%f[^%w_]")
  local variables = tables_of(frame)
  local is_module = false
  if owner then
    local found, value = frames.variable(frame, owner)
    variables = found and {{name = owner, value = value}} or variables
    is_module = found and require "marea.nn.module".is_module(value)
  end
  local other = synonyms.of(name, is_module and "module" or nil)
  local hint = other and ("what other frameworks call '%s' is here %s"):format(name, other)
  if is_module and hint then return hint end
  for _, variable in ipairs(variables) do
    local guess = type(variable.value) == "table" and check.did_you_mean(name, keys_of(variable.value, {}))
      :match "did you mean '(.-)'"
    if guess and guess ~= name then
      return ("'%s' has no '%s'; did you mean '%s'?"):format(variable.name, name, guess)
    end
  end
  return hint or owner and #variables == 1 and ("'%s' has no '%s'"):format(owner, name) or nil
end

--- For a global variable that is nil.
local function near_variable(frame, name)
  if name == "marea" then return "a script begins with: local marea = require \"marea\"" end
  if name == "self" then
    return "'self' exists in functions defined with a colon: function Net:forward(x), not Net.forward(x)"
  end
  if frames.is_gone(frame, name) then
    return ("local variables end with what was entered; %s = ... without 'local' stays"):format(name)
  end
  local other = synonyms.of(name, "variable")
  if other then return ("'%s' is here %s"):format(name, other) end
  if PARTS[name] then return ("a script that uses %s begins with: local %s = marea.%s"):format(name, name, name) end
  local variables, globals = frames.variables(frame)
  local names = keys_of(globals, {})
  for _, variable in ipairs(variables) do names[#names + 1] = variable.name end
  local guess = check.did_you_mean(name, names):match "did you mean '(.-)'"
  if guess then return ("there is no variable '%s'; did you mean '%s'?"):format(name, guess) end
  return ("there is no variable '%s'"):format(name)
end

--- Is there a declaration of this name above the frame's line? A closure cannot see those that it does not use.
local function is_declared(frame, name)
  local lines = frames.source_lines(frame)
  for number = 1, math.min(#lines, frame.currentline) do
    local line = lines[number]
    if line:find("%f[%w_]local[^=]*%f[%w_]" .. name .. "%f[^%w_]")
      or line:find("%f[%w_]function%s+" .. name .. "%f[^%w_]")
      or line:find("%f[%w_]function[^%(]*%([^%)]*%f[%w_]" .. name .. "%f[^%w_]") then
      return true
    end
  end
  return false
end

--- A hint when exactly one variable of a line of source does not exist or is nil.
---@param frame table
---@param line string
---@return string|nil
function language.undefined(frame, line)
  local code = line:gsub("%-%-.*", ""):gsub("(['\"]).-%1", ""):gsub("%f[%w_]%d[%w%.]*", "")
  local declared = {}
  for _, pattern in ipairs{"%f[%w_]for%s+([%w_,%s]-)%s*=", "%f[%w_]for%s+([%w_,%s]-)%s+in%f[^%w_]",
    "%f[%w_]local%s+([%w_,%s]+)", "%f[%w_]function%s*[%w_%.:]*%s*(%b())"} do
    for names in code:gmatch(pattern) do
      for word in names:gmatch "[%a_][%w_]*" do declared[word] = true end
    end
  end
  local missing, exists
  for at, word, after in code:gmatch "()([%a_][%w_]*)()" do
    local before, next_one = code:sub(1, at - 1):match "(%S?)%s*$", code:match("^%s*(=?)[^=]", after)
    local is_variable = before ~= "." and before ~= ":" and next_one ~= "=" and not (RESERVED[word] or declared[word])
    local found, value = false, nil
    if is_variable then found, value = frames.variable(frame, word) end
    if is_variable and value == nil then
      if missing and missing ~= word then return nil end
      missing, exists = word, found
    end
  end
  if not missing or not exists and is_declared(frame, missing) then return nil end
  return exists and ("'%s' is nil here"):format(missing) or near_variable(frame, missing)
end

-- ---- run-time errors ----

--- The message that something of the library gave beside nil, when the line where it did so is the one at work or names
--- the variable or field. Nobody else has it any more.
local function lost_message(frame, name)
  local message, source, number = core.last_failure()
  local is_here = message and source == frame.short_src
    and (number == frame.currentline or name and frames.names(frames.source_line(frame, number), name))
  if is_here then return ("line %d gave nil and a message, which assert(...) shows: %s"):format(number, message) end
  local earlier = frames.lost_before(frame, name)
  return earlier and "an earlier entry gave nil and a message: " .. earlier
end

--- A variable that is nil because a function that reads a file said why instead.
local function unasserted(frame, name)
  local lost = lost_message(frame, name)
  if lost then return lost end
  local lines = frames.source_lines(frame)
  for number = math.min(#lines, frame.currentline - 1), 1, -1 do
    local line = lines[number]
    local call = line:match("%f[%w_]" .. name .. "%f[^%w_][%w_, ]*=%s*([%w_%.:]*[%.:][%w_]+)")
    if call and (call:find "mnist$" or call:find "load[%w_]*$" or call:find "read$" or call:find "open$") then
      return ("%s on line %d gave nil and a message: assert(%s(...)) shows it"):format(call, number, call)
    end
    if call then return nil end
  end
  return nil
end

local function nil_value(frame, _, kind, name)
  if kind == "global" then return unasserted(frame, name) or near_variable(frame, name) end
  if kind == "local" or kind == "upvalue" then return unasserted(frame, name) end
  if kind == "field" or kind == "method" then return lost_message(frame, name) or near_field(frame, name) end
  return nil
end

--- A function of Lua's own that was given a tensor.
local function given_tensor(frame, number, name, wanted)
  local line = frames.source_line(frame)
  local list = line:match("%f[%w_]" .. name .. "%s*(%b())")
  local words = {}
  for word in (list and list:sub(2, -2) or ""):gmatch "[^,]+" do words[#words + 1] = word:match "^%s*(.-)%s*$" end
  local t = words[math.tointeger(number)] or "t"
  if not t:find "^[%w_%.]+$" then t = "t" end
  if name == "format" or name == "write" then
    return ("%s:item() is the number of a tensor of one element, tostring(%s) a text"):format(t, t)
  end
  local other = ({max = "maximum(...)", min = "minimum(...)",
    fmod = "remainder(...), whose sign is the divisor's"})[name] or name .. "()"
  if wanted == "number" and math[name] and core.ops[other:match "^%w+"] then
    return ("for tensors it is a method: %s:%s"):format(t, other)
  end
  return ("%s:item() is the number of a tensor of one element"):format(t)
end

local function concatenated()
  return "t:item() is the number of a tensor of one element, tostring(t) a text"
end

local function looped() return "t:item() is the number of a tensor of one element" end

local function nil_given(frame)
  return lost_message(frame) or language.undefined(frame, frames.source_line(frame))
end

--- A number that is treated as a tensor: what a full index reads.
local function number_indexed(frame)
  local line = frames.source_line(frame)
  if line:find "%][:%.]" then return "a full index reads a number of Lua, which has no methods" end
  return "a number of Lua has no methods; those are of tensors"
end

local function called_table(frame, kind, name)
  if kind == "for iterator" then
    return "a data set is visited in batches: for x, y in set:batches(128) do; a list by ipairs(list)"
  end
  if kind == "method" or kind == "field" then
    local line = frames.source_line(frame)
    local owner = line:match("([%w_]+)[%.:]" .. name .. "%f[^%w_]")
    return ("'%s' is a field, not a method: %s.%s"):format(name, owner or "t", name)
  end
  return nil
end

local rules = {
  {"attempt to (%a+) a nil value %((%a+) '([^']+)'%)$", nil_value},
  {"attempt to (perform arithmetic on) a nil value %((%a+) '([^']+)'%)$", nil_value},
  {"attempt to (get length of) a nil value %((%a+) '([^']+)'%)$", nil_value},
  {"attempt to (concatenate) a nil value %((%a+) '([^']+)'%)$", nil_value},
  {"attempt to index a nil value$", nil_given},
  {"attempt to index a number value", number_indexed},
  {"attempt to compare %a+ with nil$", nil_given},
  {"attempt to compare nil with %a+$", nil_given},
  {"bad argument #(%d+) to '([%w_]+)' %((%a+) expected, got marea.Tensor%)$", given_tensor},
  {"invalid value %(userdata%) at index %d+ in table for 'concat'$", concatenated},
  {"'for' .- %(number expected, got marea.Tensor%)$", looped},
  {"bad argument #%d+ to '[%w_]+' %(%a+ expected, got nil%)$", nil_given},
  {"bad argument #%d+ to 'format' %(number has no integer representation%)$", function()
    return "%d shows integers, %g or %.3f any number"
  end},
  {"attempt to call a %a+ value %((for iterator) '([^']+)'%)$", called_table},
  {"attempt to call a table value %((%a+) '([^']+)'%)$", called_table},
  {"attempt to call a string value %((%a+) '([^']+)'%)$", called_table},
  {"attempt to call a number value %((%a+) '([^']+)'%)$", called_table},
  {"attempt to call a boolean value %((%a+) '([^']+)'%)$", called_table},
}

-- ---- syntax errors ----

local function reserved_name(line)
  for word in line:gmatch "[{,%.:]%s*(%a+)%s*[=%(]" do
    if RESERVED[word] and word ~= "function" and word ~= "not" then
      return ("'%s' is a word of Lua's own and cannot be a name"):format(word)
    end
  end
  return nil
end

--- The number of the first line that says `else if` for elseif.
local function else_if(lines)
  for number, line in ipairs(lines) do
    if line:find "%f[%w_]else%s+if%f[^%w_]" then return number end
  end
  return nil
end

local function syntax(message, line, lines)
  if line:find "!=" then return "not equal is written ~=" end
  local name, operator = line:match "([%w_%.]+)%s*([%+%-%*/])=[^=]"
  if name then return ("Lua has no %s=: %s = %s %s ..."):format(operator, name, name, operator) end
  if line:find "%+%+" then return "Lua has no ++: i = i + 1" end
  local indexed, positions = line:match "([%w_%.]+)%[%s*([^%[%]{}(),]+,[^%[%]{}()]*)%]"
  if indexed and message:find "']' expected near ','" then
    return ("positions are a list: %s[{%s}]"):format(indexed, positions)
  end
  if message:find "function arguments expected" then
    return "fields are read with a dot, x.shape; methods are called, x:sum()"
  end
  local reserved = reserved_name(line)
  if reserved then return reserved end
  if line:find "%[[^%]'\"]*:[^%]]*%]" then return "a range is a string: x['2:5, :']" end
  if line:find "&&" or line:find "||" then return "Lua's words are 'and' and 'or'" end
  if message:find "'then' expected near '='" then return "equal is written ==" end
  if line:find "^%s*import%s" or line:find "^%s*from%s" then return "local name = require \"name\"" end
  if line:find "^%s*def%s" then return "local function name(...) ... end" end
  if message:find "expected %(to close '.-' at line %d+%)" then
    local opened, number = message:match "to close '(.-)' at line (%d+)"
    local at = opened == "if" and else_if(lines)
    if at then return ("'else if' on line %d opens another block; one word, elseif, does not"):format(at) end
    return ("what '%s' on line %s begins, or something in it, has no end"):format(opened, number)
  end
  return nil
end

-- ---- files ----

--- A command of the shell about a path, as an argument in Lua.
local function command(words, path)
  if path:find "^%-" then path = "./" .. path end
  if not path:find "^[%w_%./%-]+$" then path = "'" .. path:gsub("'", "'\\''") .. "'" end
  return (" %q"):format(words .. " " .. path)
end

--- A script that is not where it was looked for, but comes with the project.
local function own_script(path)
  local name = path:match "[^/]+$"
  for _, folder in ipairs(name and check.script_folders() or {}) do
    local file = io.open(folder .. name)
    if file then
      file:close()
      return ("%s comes with Marea: %s%s"):format(name, folder, name)
    end
  end
  return nil
end

--- The hint for a message, or nil.
---@param message string "FILE:LINE: ..."
---@param script table[] frames of the script, the innermost first; none for syntax errors
---@param text? string the source of a syntax error, where it is in no file
---@return string|nil
return setmetatable(language, {__call = function(_, message, script, text)
  local frame = script[1]
  for _, rule in ipairs(frame and rules or {}) do
    local captures = table.pack(message:match(rule[1]))
    local hint = captures[1] and rule[2](frame, table.unpack(captures, 1, captures.n))
    if hint then return hint end
  end
  local place = message:match "^.-:%d+: save[%w_]*: '(.*)/[^/]*': cannot open: No such file"
    or message:match "^save[%w_]*: '(.*)/[^/]*': cannot open: No such file"
  if place then return ("there is no folder '%s'; os.execute%s makes it"):format(place, command("mkdir -p", place)) end
  if message:find "stack overflow" then return "a function calls itself without end" end
  local path = message:match "^cannot open (%S+)$" or message:match "^cannot open (%S+): "
  if path then return own_script(path) end
  local file, number = message:match "^(.-):(%d+): .* near "
  if not file then return nil end
  local lines = frames.source_lines{source = text or "@" .. file}
  return syntax(message, lines[math.tointeger(number)] or "", lines)
end})
