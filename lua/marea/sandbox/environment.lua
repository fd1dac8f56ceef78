-- SPDX-License-Identifier: MIT
--- Makes the global variables of a sandbox's scripts. bindings/sandbox.c runs this file first in the sandbox's own Lua
--- state. It replaces the state's globals, which the library uses there, by versions that cannot run for long, and
--- returns the table of globals that scripts see, without io, os, debug and package.
---
--- A function in C cannot be stopped. So each of them takes little time at most: it is followed by a look at the
--- budgets (`guard`), hands long work to a function in Lua, in which the hook counts instructions (`ease`), or refuses
--- it.
-- luacheck: globals setmetatable getmetatable string table coroutine io os debug package load require pcall xpcall
-- luacheck: globals print next pairs
local host = ... -- switch, check, guard, ease, next, load, loader, print, allow, loaded, longest: sandbox.c
local check, guard, switch = host.check, host.guard, host.switch
local loaded = host.loaded

local rawget, type, select, error, find = rawget, type, select, error, string.find
local real = {
  pcall = pcall, setmetatable = setmetatable, getmetatable = getmetatable, metatable = debug.getmetatable,
  open = io.open, remove = os.remove, rename = os.rename, rep = string.rep, sort = table.sort, concat = table.concat,
  codes = utf8.codes,
}
real.format = guard(string.format)

local PIECE = 4096 -- items, or bytes of a format, that a function in C goes over at once
local LONG_QUOTE = 65536 -- bytes of a string that %q writes

local env = {_VERSION = _VERSION}
env._G = env

-- ---- walking over tables: in a table that was emptied `next` may search long ----

next = host.next

function pairs(...)
  local t = ...
  if select("#", ...) == 0 then error("bad argument #1 to 'pairs' (table expected, got no value)", 2) end
  local mt = real.metatable(t)
  local event = type(mt) == "table" and rawget(mt, "__pairs")
  if not event then return next, t, nil end
  local f, state, key = event(t)
  return f, state, key
end

local function copy(t, names)
  local c = {}
  if not names then
    for key, value in next, t do c[key] = value end
    return c
  end
  for name in names:gmatch "%S+" do c[name] = t[name] end
  return c
end

local function expect(name, position, value, kind)
  if type(value) ~= kind then
    error(("bad argument #%d to '%s' (%s expected, got %s)"):format(position, name, kind, type(value)), 3)
  end
  return value
end

-- ---- errors: an exhausted budget passes through ----

local function finish(...)
  check()
  return ...
end

function env.pcall(...) return finish(real.pcall(...)) end

local function handle(handler, ok, ...)
  check()
  if ok then return true, ... end
  return false, handler(...)
end

--- The handler runs after the error has left the function, so it does not see the stack of the error.
function env.xpcall(f, handler, ...)
  expect("xpcall", 2, handler, "function")
  return handle(handler, real.pcall(f, ...))
end

-- ---- coroutines: each switch is a look at the budgets ----

local co = copy(coroutine)

local function back(to, ...)
  switch(to)
  return ...
end

local function resume(thread, ...)
  local from = co.running()
  switch(expect("resume", 1, thread, "thread"))
  return back(from, co.resume(thread, ...))
end

local function closed(ok, ...)
  if not ok then error(..., 0) end
  return ...
end

local function close(thread)
  local from = co.running()
  switch(expect("close", 1, thread, "thread"))
  return closed(back(from, real.pcall(co.close, thread)))
end

local function unwrap(thread, ok, ...)
  if ok then return ... end
  if co.status(thread) == "dead" then close(thread) end
  error(..., 0)
end

coroutine = copy(co, "create isyieldable running status yield")
coroutine.resume = resume
coroutine.close = close
function coroutine.wrap(f)
  local thread = co.create(f)
  return function(...) return unwrap(thread, resume(thread, ...)) end
end

-- ---- metatables: no finalizers, no weak tables ----

-- The collector calls finalizers where no hook runs, and weak keys can make it slow without bound. The collector reads
-- __gc and __mode from a metatable at any time. So a table gets a copy of its metatable, without the two.
local origin, shield = {}, {} -- keys in such a copy: the metatable it was made of, and its __metatable

function setmetatable(t, mt)
  expect("setmetatable", 1, t, "table")
  local before = real.getmetatable(t)
  if before ~= nil and rawget(before, shield) ~= nil then
    error("cannot change a protected metatable", 2)
  end
  if mt == nil then return real.setmetatable(t, nil) end
  expect("setmetatable", 2, mt, "table")
  if rawget(mt, "__gc") ~= nil or rawget(mt, "__mode") ~= nil then
    error("setmetatable: a sandbox has neither finalizers (__gc) nor weak tables (__mode)", 2)
  end
  local own = {}
  for key, value in next, mt do
    if type(key) == "string" and key:sub(1, 2) == "__" then own[key] = value end
  end
  own[origin], own[shield], own.__metatable = mt, own.__metatable, nil
  return real.setmetatable(t, own)
end

function getmetatable(value)
  local mt = real.getmetatable(value)
  if type(mt) ~= "table" then return mt end
  local protected = rawget(mt, shield)
  if protected ~= nil then return protected end
  return rawget(mt, origin)
end

--- getmetatable for scripts. The metatable of a library table that loads its parts lazily is hidden: it names private
--- modules, and a script could add others.
function env.getmetatable(value)
  local mt = real.metatable(value)
  if type(mt) == "table" and rawget(mt, "__lazy") then return false end
  return getmetatable(value)
end

-- ---- strings ----

local strings = {}
for name, f in next, string do
  if name ~= "dump" then strings[name] = guard(f) end
end

strings.byte = guard(string.byte, "bytes")
for _, name in ipairs{"pack", "packsize", "unpack"} do strings[name] = guard(string[name], "packing") end

--- string.rep in pieces of 256, with a look at the budgets in between: repeating a short text millions of times is
--- slow.
function strings.rep(s, n, separator)
  if type(s) == "number" then s = tostring(s) end
  expect("rep", 1, s, "string")
  n = expect("rep", 2, math.tointeger(n) or n, "number")
  separator = separator or ""
  local unit = s .. separator
  if #unit * (n + 0.0) > host.longest then
    error(("a string of %.0f bytes; the sandbox's may have %d"):format(#unit * (n + 0.0), host.longest), 2)
  end
  if #unit == 0 or n < 1 then return "" end
  if n <= 256 then return real.rep(s, n, separator) end
  local part = (n - 1) // 256
  local many = strings.rep(unit, part)
  check()
  return real.rep(many, 256) .. real.rep(unit, n - 1 - part * 256) .. s
end

--- string.format with one conversion at a time, and a look at the budgets after each.
local function format_in_pieces(text, values)
  local out, at, used = {}, 1, 0
  while at <= #text do
    local start = find(text, "%", at, true) or #text + 1
    local _, stop = find(text, "^[-+ #0-9.]*.", start + 1)
    out[#out + 1] = text:sub(at, start - 1)
    if start > #text then break end
    local conversion = text:sub(start, stop)
    local takes = conversion ~= "%%" and 1 or 0
    local value = values[used + 1]
    if conversion == "%q" and type(value) == "string" and #value > LONG_QUOTE then
      error(("a string of %d bytes; a sandbox quotes at most %d"):format(#value, LONG_QUOTE), 3)
    end
    if used + takes > values.n then error(("bad argument #%d to 'format' (no value)"):format(used + 2), 3) end
    out[#out + 1] = takes == 1 and real.format(conversion, value) or real.format(conversion)
    used, at = used + takes, (stop or #text) + 1
  end
  return table.concat(out)
end

strings.format = host.ease(string.format, "format", function(text, ...)
  return format_in_pieces(text, table.pack(...))
end)

local patterns = host.loader "marea.sandbox.pattern" "marea.sandbox.pattern"
for name, f in next, patterns do
  strings[name] = function(...) return finish(f(...)) end
end

real.getmetatable("").__index = copy(strings)
real.getmetatable("").__metatable = false
string = strings

-- ---- tables: metamethods in C could repeat for long, so only plain tables get there ----

local tables = {pack = guard(table.pack), unpack = guard(table.unpack, "items")}

local function is_plain(t) return type(t) == "table" and real.getmetatable(t) == nil end

--- table.concat of a plain table. Writing numbers takes time, so many items are joined in pieces.
local function concat_plain(t, separator, first, last)
  local step = math.max(1, math.min(PIECE, host.longest // math.max(#separator, 1)))
  if last - first < step then return finish(real.concat(t, separator, first, last)) end
  local pieces, length = {}, 0
  for i = 0, (last - first) // step do
    local at = first + i * step
    pieces[i + 1] = finish(real.concat(t, separator, at, math.min(at + step - 1, last)))
    length = length + #pieces[i + 1]
    if length > host.longest then error("resulting string too large", 0) end
  end
  return concat_plain(pieces, separator, 1, #pieces)
end

tables.concat = host.ease(table.concat, "concat", function(t, separator, first, last)
  separator, first, last = tostring(separator or ""), first or 1, last or #t
  if is_plain(t) then return concat_plain(t, separator, first, last) end
  local plain, n = {}, 0
  for i = first, last do
    n = n + 1
    plain[n] = t[i]
  end
  return concat_plain(plain, separator, 1, n)
end)

function tables.move(from, first, last, at, to)
  to = to or from
  if at > first and at <= last and from == to then
    for i = last - first, 0, -1 do to[at + i] = from[first + i] end
  else
    for i = 0, last - first do to[at + i] = from[first + i] end
  end
  return to
end

tables.insert = host.ease(table.insert, "move", function(t, ...)
  local n, at, value = #t + 1, ...
  if select("#", ...) == 1 then
    t[n] = at
    return
  end
  if at < 1 or at > n then error("bad argument #2 to 'insert' (position out of bounds)", 2) end
  for i = n, at + 1, -1 do t[i] = t[i - 1] end
  t[at] = value
end)

tables.remove = host.ease(table.remove, "move", function(t, at)
  local n = #t
  at = at or n
  if at ~= n and (at < 1 or at > n + 1) then
    error("bad argument #2 to 'remove' (position out of bounds)", 2)
  end
  local value = t[at]
  for i = at, n - 1 do t[i] = t[i + 1] end
  if n > 0 then t[n] = nil end
  return value
end)

--- table.sort with a comparison in Lua, in which the hook counts.
function tables.sort(t, before)
  return finish(real.sort(t, before and function(a, b) return before(a, b) end or function(a, b) return a < b end))
end

table = tables

-- ---- files: those of the library, below the roots ----

local function opened(path, mode)
  local writing = mode ~= nil and mode:find "[wa+]" ~= nil
  local ok, message = host.allow(path, writing)
  if not ok then return nil, message end
  return real.open(path, mode)
end

local function changed(f)
  return function(a, b)
    for _, path in ipairs{a, b} do
      local ok, message = host.allow(path, true)
      if not ok then return nil, message end
    end
    return f(a, b)
  end
end

io = {
  open = function(path, mode)
    return opened(expect("open", 1, path, "string"), mode and expect("open", 2, mode, "string"))
  end,
  popen = function() return nil, "a sandbox runs no programs" end,
}
os = {remove = changed(real.remove), rename = changed(real.rename), getenv = function() return nil end}
-- What messages and gradcheck need of the library `debug`. Scripts do not see it.
debug = copy(debug, "getinfo getlocal getupvalue getmetatable")

-- ---- code ----

--- load for text only, no binary chunks. The pieces that a function gives are joined before they are compiled.
local function load_text(chunk, name, environment)
  if type(chunk) == "function" then
    local pieces = {}
    for piece in chunk do
      if piece == "" then break end
      pieces[#pieces + 1] = expect("load", 1, piece, "string")
    end
    chunk = table.concat(pieces)
  end
  expect("load", 1, chunk, "string")
  return finish(host.load(chunk, name or "=(load)", environment))
end

function env.load(chunk, name, _, ...)
  local environment = env
  if select("#", ...) > 0 then environment = ... end
  return load_text(chunk, name and expect("load", 2, name, "string"), environment)
end

load = function(chunk, name) return load_text(chunk, name, env) end

function require(name)
  local value = loaded[name]
  if value ~= nil then return value end
  local loader = host.loader(name)
  if not loader then error(("module '%s' not found: a sandbox has marea and its parts"):format(name), 2) end
  value = loader(name)
  if value == nil then value = true end
  loaded[name] = value
  return value
end

--- Is it `marea` or a part that `marea` names? Scripts cannot require the private modules.
local function is_public(name)
  if name == "marea" then return true end
  for _, part in next, real.metatable(loaded.marea).__lazy do
    if part == name then return true end
  end
  return false
end

function env.require(name)
  if not is_public(expect("require", 1, name, "string")) then
    error(("module '%s' not found: a sandbox has marea and its parts"):format(name), 2)
  end
  return require(name)
end

-- ---- the rest of the globals ----

for name in ("assert error ipairs next pairs rawequal rawget rawlen rawset select tonumber tostring type "
  .. "setmetatable"):gmatch "%S+" do
  env[name] = _G[name]
end
env.math, env.utf8 = copy(math), {}
for name, f in next, utf8 do env.utf8[name] = type(f) == "function" and guard(f) or f end
env.utf8.codepoint = guard(utf8.codepoint, "bytes")

function env.utf8.codes(s, lax)
  local f, state, at = real.codes(s, lax)
  return guard(f), state, at
end
env.string, env.table, env.coroutine = copy(strings), copy(tables), copy(coroutine)

function env.print(...)
  local texts = table.pack(...)
  for i = 1, texts.n do texts[i] = tostring(texts[i]) end
  host.print(table.concat(texts, "\t", 1, texts.n) .. "\n")
end

pcall, xpcall, print = env.pcall, env.xpcall, env.print
package = {loaded = loaded} -- messages pass over the tables of Lua's libraries
for name in ("string table math utf8 coroutine _G"):gmatch "%S+" do loaded[name] = env[name] end
local made = {io = true, os = true, debug = true, package = true, load = true, require = true}
for name in next, _G do -- the library's globals: those of the script, and what was made above
  if env[name] == nil and not made[name] then _G[name] = nil end
end

return env
