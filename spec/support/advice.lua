-- SPDX-License-Identifier: MIT
--- The advice that messages give, as it stands in the sources: texts with code in them, which people paste.
local folder = require "spec.support.folder"

local advice = {}

-- What looks like code: a call of a method, of a function of marea or with braces, an operator between names, an
-- argument by name (a name of one letter is none: "n = 0" describes a value).
local CODE = {"[%w_%]'s]:[%a_%%]+%(", "marea%.[%a_]+", "%f[%w_%%][%a_]%w*%b{}", "%f[%w]%a [%*/%^%-%+] [%a%d%(]",
  "[%w_]+ // [%w(]", "%f[%w]%d [%*/%^%-%+] %a", "%f[%w_][%a_]+_?%([%w%.]*%)", "see [%a_]+$", "os%.", " [=~]=$",
  "^%%%a shows", "%f[%w_][%a_][%w_]+ = [%w'\"]", "%f[%w]assert%(", "#%a", "#%%s", "for [%w, ]+ in ",
  "%f[%w]and%f[%W].-%f[%w]or%f[%W]", "^%s*function ", "%%s[:%.]%%s", ":%%s%(", "marea%.%%s", "%%s{", "%%s%[",
  "%[%b''%]", "^local ", "%%s =", "%%s%(%.%.%.%)", ": {", "^{"}

local function has_code(text)
  if text:find "^%l[%w_]*%b()$" or text:find "^%l[%w_]*%b():" then return true end
  if not text:find " " then return false end
  for _, pattern in ipairs(CODE) do if text:find(pattern) then return true end end
  return false
end

--- Calls f(text, place in the source) for each string literal of a Lua file.
local function each_literal(source, f)
  local at = 1
  while at <= #source do
    local from, _, mark = source:find("([%-'\"%[])", at)
    if not from then return end
    local comment = source:match("^%-%-[^\n]*", from)
    local long = source:match("^%[(=*)%[", from)
    if comment then
      at = from + #comment
    elseif long then
      at = (select(2, source:find("]" .. long .. "]", from, true)) or #source) + 1
    elseif mark == "'" or mark == '"' then
      local stop = from + 1
      while source:sub(stop, stop) ~= mark do stop = stop + (source:sub(stop, stop) == "\\" and 2 or 1) end
      f(load("return " .. source:sub(from, stop))(), from)
      at = stop + 1
    else
      at = from + 1
    end
  end
end

--- Texts of hints in a file of lua/marea/explain; patterns that messages are told by are left out.
local function of_hints(path, found)
  local source = assert(folder.read(path))
  each_literal(source, function(text, from)
    local before = source:sub(math.max(1, from - 40), from - 1)
    local pattern = text:find "^[%^,%%]" and text:find "%["
      or text:find "^[%^:] ?" and text:find "[%$%^]" or text:find "%$$"
      or before:find "match%s*%(?%s*$" or before:find "find%s*%(?%s*$"
    if not pattern and has_code(text) then found[text] = path end
  end)
end

--- Advice in messages of C: what follows a semicolon or stands in brackets, and lists of it. Of the operators' files,
--- whose other texts are formulas, only what to see.
local function of_c(path, found)
  local source = assert(folder.read(path)):gsub("/%*.-%*/", ""):gsub("\n#include[^\n]*", ""):gsub("'\\?.'", "")
  local at = 1
  while true do
    local from = source:find('"', at, true)
    if not from then return end
    local text, stop = ""
    repeat -- neighbours are one literal
      stop = from + 1
      while source:sub(stop, stop) ~= '"' do stop = stop + (source:sub(stop, stop) == "\\" and 2 or 1) end
      text = text .. source:sub(from + 1, stop - 1):gsub("\\(.)", "%1")
      from = source:match('^%s*()"', stop + 1)
    until not from
    at = stop + 1
    local part = text:match "; (.*)$" or text:match "%((see [^%)]*)%)" or not text:find "%%s" and text or ""
    local sees = text:match "[;%(] ?(see [%a_]+)%)?$"
    if sees then
      found[sees] = path
    elseif has_code(part) and not path:find "^core/ops/" and not text:find "^local " then
      found[part] = path
    end
  end
end

--- Advice in messages of the Lua layer: what follows a semicolon.
local function of_lua(path, found)
  each_literal(assert(folder.read(path)), function(text)
    local part = text:match "; (.*)$"
    if part and has_code(part) then found[part] = path end
  end)
end

function advice.collect()
  local found = {}
  for _, name in ipairs{"hints", "language", "init"} do of_hints("lua/marea/explain/" .. name .. ".lua", found) end
  local pipe = assert(io.popen "ls bindings/*.c bindings/program/*.c core/*.c core/io/*.c core/ops/*.c core/ops/*/*.c")
  for path in pipe:lines() do of_c(path, found) end
  pipe:close()
  pipe = assert(io.popen "find lua/marea -name '*.lua' -not -path '*/explain/*'")
  for path in pipe:lines() do of_lua(path, found) end
  pipe:close()
  return found
end

--- Runs `code`, which the text has to contain, with the variables of env and the library's tables; returns its values.
---@param text string
---@param code string
---@param env? table
function advice.run(text, code, env)
  assert(text:find(code, 1, true), ("'%s' does not say '%s'"):format(text, code))
  local marea = require "marea"
  local tables = {marea = marea, nn = marea.nn, optim = marea.optim, data = marea.data, dist = marea.dist,
    image = marea.image}
  local scope = setmetatable(env or {}, {__index = function(_, name) return tables[name] or _G[name] end})
  local chunk = load("return " .. code, "=advice", "t", scope) or assert(load(code, "=advice", "t", scope))
  return chunk()
end

return advice
