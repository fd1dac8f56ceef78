-- SPDX-License-Identifier: MIT
--- Lua's patterns, matched by a program in Lua: find, match, gmatch and gsub as in `string`, with the same results. A
--- function in C cannot be stopped while it backtracks; this one can. The functions of `string` still do the work
--- wherever their worst case is short.
local find, match, gmatch, gsub = string.find, string.match, string.gmatch, string.gsub
local byte, sub, concat = string.byte, string.sub, table.concat

local pattern = {}

local WORK = 1e7 -- steps that a call of a function of `string` may take at worst: 10 ms at 1 ns each
local MATCHES = 10000 -- bytes; in a longer text a pattern could match so often that replacing all takes too long
local SPECIAL = "[%^$*+?.(%[%%-]" -- characters without which a pattern is a plain text to `find`
local DEPTH = 200 -- items within each other, as in Lua

-- ---- compiling: a pattern is a list of items ----

local classes = {} -- "%a", "[^x-z]", "." -> set of bytes

local function class_set(class)
  local set = classes[class]
  if not set then
    set = {}
    for b = 0, 255 do set[b] = find(string.char(b), "^" .. class) ~= nil end
    classes[class] = set
  end
  return set
end

--- Where the class that begins at `at` ends (one beyond).
local function class_end(p, at)
  local c = sub(p, at, at)
  if c == "%" then
    if at == #p then error("malformed pattern (ends with '%')", 0) end
    return at + 2
  end
  if c ~= "[" then return at + 1 end
  at = at + 1
  if sub(p, at, at) == "^" then at = at + 1 end
  repeat
    if at > #p then error("malformed pattern (missing ']')", 0) end
    at = at + (sub(p, at, at) == "%" and 2 or 1)
  until sub(p, at, at) == "]"
  return at + 1
end

local function single(p, at)
  local stop = class_end(p, at)
  local class = sub(p, at, stop - 1)
  if find(class, "^[%^$]$") then class = "%" .. class end
  local times = match(p, "^[*+?-]", stop)
  return {what = "single", set = class_set(class), times = times}, stop + (times and 1 or 0)
end

local function escaped(p, at)
  local c = sub(p, at + 1, at + 1)
  if c == "b" then
    if at + 3 > #p then error("malformed pattern (missing arguments to '%b')", 0) end
    return {what = "balance", open = byte(p, at + 2), close = byte(p, at + 3)}, at + 4
  elseif c == "f" then
    if sub(p, at + 2, at + 2) ~= "[" then error("missing '[' after '%f' in pattern", 0) end
    local stop = class_end(p, at + 2)
    return {what = "frontier", set = class_set(sub(p, at + 2, stop - 1))}, stop
  elseif find(c, "^%d") then
    return {what = "again", index = tonumber(c)}, at + 2
  end
  return single(p, at)
end

local function item_at(p, at)
  local c = sub(p, at, at)
  if c == "(" then
    if sub(p, at + 1, at + 1) == ")" then return {what = "position"}, at + 2 end
    return {what = "open"}, at + 1
  elseif c == ")" then return {what = "close"}, at + 1
  elseif c == "$" and at == #p then return {what = "end"}, at + 1
  elseif c == "%" then return escaped(p, at) end
  return single(p, at)
end

--- The items of a pattern without its "^".
local function compile(p)
  local items, at = {}, 1
  while at <= #p do items[#items + 1], at = item_at(p, at) end
  return items
end

-- ---- matching ----

--- A match under way: s, items, captures (start, and length: a number, "open" or "position"), depth.
local step

local function fits(m, set, at)
  local b = byte(m.s, at)
  return b ~= nil and set[b]
end

local function most_first(m, i, at, item, least)
  local n = 0
  while fits(m, item.set, at + n) do n = n + 1 end
  for k = n, least, -1 do
    local stop = step(m, i + 1, at + k)
    if stop then return stop end
  end
end

local function fewest_first(m, i, at, item)
  while true do
    local stop = step(m, i + 1, at)
    if stop then return stop end
    if not fits(m, item.set, at) then return nil end
    at = at + 1
  end
end

local function balance(m, at, item)
  if byte(m.s, at) ~= item.open then return nil end
  local depth = 1
  for k = at + 1, #m.s do
    local b = byte(m.s, k)
    if b == item.close then
      depth = depth - 1
      if depth == 0 then return k + 1 end
    elseif b == item.open then depth = depth + 1 end
  end
end

local function open(m, i, at, length)
  local captures = m.captures
  if #captures == 32 then error("too many captures", 0) end
  captures[#captures + 1] = {start = at, length = length}
  local level = #captures
  local stop = step(m, i + 1, at)
  if not stop then captures[level] = nil end
  return stop
end

local function close(m, i, at)
  for level = #m.captures, 1, -1 do
    local capture = m.captures[level]
    if capture.length == "open" then
      capture.length = at - capture.start
      local stop = step(m, i + 1, at)
      if not stop then capture.length = "open" end
      return stop
    end
  end
  error("invalid pattern capture", 0)
end

local function captured(m, capture)
  if capture.length == "position" then return capture.start end
  if capture.length == "open" then error("unfinished capture", 0) end
  return sub(m.s, capture.start, capture.start + capture.length - 1)
end

local function again(m, at, item)
  local capture = m.captures[item.index]
  if not capture or capture.length == "open" then
    error(("invalid capture index %%%d"):format(item.index), 0)
  end
  if capture.length == "position" then return nil end
  local text = captured(m, capture)
  return sub(m.s, at, at + #text - 1) == text and at + #text or nil
end

local function walk(m, i, at)
  while true do
    local item = m.items[i]
    if not item then return at end
    local what, times = item.what, item.times
    if what == "single" then
      if times == "*" then return most_first(m, i, at, item, 0)
      elseif times == "+" then return most_first(m, i, at, item, 1)
      elseif times == "-" then return fewest_first(m, i, at, item)
      elseif fits(m, item.set, at) then
        local stop = times and step(m, i + 1, at + 1)
        if stop then return stop end
        if not times then at = at + 1 end
      elseif not times then return nil end
    elseif what == "open" then return open(m, i, at, "open")
    elseif what == "position" then return open(m, i, at, "position")
    elseif what == "close" then return close(m, i, at)
    elseif what == "end" then return at == #m.s + 1 and at or nil
    elseif what == "frontier" then
      if item.set[byte(m.s, at - 1) or 0] or not item.set[byte(m.s, at) or 0] then return nil end
    else
      at = what == "balance" and balance(m, at, item) or what == "again" and again(m, at, item)
      if not at then return nil end
    end
    i = i + 1
  end
end

function step(m, i, at)
  if m.depth == DEPTH then error("pattern too complex", 0) end
  m.depth = m.depth + 1
  local stop = walk(m, i, at)
  m.depth = m.depth - 1
  return stop
end

--- The captures as values; the whole match when there are none and `whole` is asked for.
local function values(m, start, stop, whole)
  local list = {}
  for k, capture in ipairs(m.captures) do list[k] = captured(m, capture) end
  if whole and #list == 0 then list[1] = sub(m.s, start, stop - 1) end
  return list
end

--- The first match from `at` on: start, one beyond its end, and the match.
local function search(s, items, at, anchored)
  repeat
    local m = {s = s, items = items, captures = {}, depth = 0}
    local stop = step(m, 1, at)
    if stop then return at, stop, m end
    at = at + 1
  until at > #s + 1 or anchored
end

-- ---- the functions ----

local function parse(p)
  local anchored = sub(p, 1, 1) == "^"
  return compile(anchored and sub(p, 2) or p), anchored
end

--- Can it take only a few steps? Every repetition may try every length at every place.
local function is_short(s, p)
  local _, repetitions = gsub(p, "[*+?-]", "")
  local _, balances = gsub(p, "%%b", "")
  return (#s + 1.0) ^ (repetitions + balances + 1) * (#p + 1.0) <= WORK
end

local function check(name, s, p)
  if type(s) == "number" then s = tostring(s) end
  if type(p) == "number" then p = tostring(p) end
  if type(s) ~= "string" then error(("bad argument #1 to '%s' (string expected, got %s)"):format(name, type(s)), 3) end
  if type(p) ~= "string" then error(("bad argument #2 to '%s' (string expected, got %s)"):format(name, type(p)), 3) end
  return s, p
end

local function position(s, init)
  init = init and math.tointeger(tonumber(init)) or 1
  if init < 0 then init = #s + init + 1 end
  return init < 1 and 1 or init
end

--- Plain search, which skips as Knuth, Morris and Pratt do.
local function find_plain(s, p, at)
  if #p == 0 then return at, at - 1 end
  local failure, k = {0}, 0
  for i = 2, #p do
    while k > 0 and byte(p, k + 1) ~= byte(p, i) do k = failure[k] end
    if byte(p, k + 1) == byte(p, i) then k = k + 1 end
    failure[i] = k
  end
  k = 0
  for i = at, #s do
    while k > 0 and byte(p, k + 1) ~= byte(s, i) do k = failure[k] end
    if byte(p, k + 1) == byte(s, i) then k = k + 1 end
    if k == #p then return i - #p + 1, i end
  end
  return nil
end

function pattern.find(s, p, init, plain)
  s, p = check("find", s, p)
  local at = position(s, init)
  if plain or not find(p, SPECIAL) then
    if #s * #p <= 10 * WORK then return find(s, p, init, true) end
    if at <= #s + 1 then return find_plain(s, p, at) end
    return nil
  end
  if is_short(s, p) then return find(s, p, init) end
  if at > #s + 1 then return nil end
  local items, anchored = parse(p)
  local start, stop, m = search(s, items, at, anchored)
  if not start then return nil end
  return start, stop - 1, table.unpack(values(m, start, stop, false))
end

function pattern.match(s, p, init)
  s, p = check("match", s, p)
  if is_short(s, p) then return match(s, p, init) end
  local at = position(s, init)
  if at > #s + 1 then return nil end
  local items, anchored = parse(p)
  local start, stop, m = search(s, items, at, anchored)
  if not start then return nil end
  return table.unpack(values(m, start, stop, true))
end

--- A "^" has no meaning here, as in Lua.
function pattern.gmatch(s, p, init)
  s, p = check("gmatch", s, p)
  if is_short(s, p) then return gmatch(s, p, init) end
  local items, at, last = compile(p), position(s, init), nil
  return function()
    while at <= #s + 1 do
      local start, stop, m = search(s, items, at, false)
      if not start then at = #s + 2 break end
      if stop ~= last then
        at, last = stop, stop
        return table.unpack(values(m, start, stop, true))
      end
      at = start + 1
    end
    return nil
  end
end

--- The text that replaces a match, `whole`, whose captures are in `list`; itself when there are none.
local function replacement(repl, whole, list)
  if type(repl) == "string" then
    if not find(repl, "%", 1, true) then return repl end
    if find(repl, "%%[^%d%%]") or find(repl, "^%%$") or find(gsub(repl, "%%%%", ""), "%%$") then
      error("invalid use of '%' in replacement string", 0)
    end
    return (gsub(repl, "%%([%d%%])", function(c)
      if c == "%" then return "%" end
      if c == "0" then return whole end
      local text = list[tonumber(c)]
      if text == nil then error(("invalid capture index %%%s in replacement string"):format(c), 0) end
      return tostring(text)
    end))
  end
  local value
  if type(repl) == "table" then value = repl[list[1]] else value = repl(table.unpack(list)) end
  if not value then return whole end
  if type(value) ~= "string" and type(value) ~= "number" then
    error(("invalid replacement value (a %s)"):format(type(value)), 0)
  end
  return tostring(value)
end

--- Does `find` take it as gsub does? It searches for a text without special characters as it is, a ")" as well.
local function is_pattern_to_find(p) return find(p, SPECIAL) ~= nil or not find(p, ")", 1, true) end

--- Its matches one by one, each found by `string`: where finding one is short, and replacing all of them is not.
local function gsub_by_matches(s, p, repl, limit)
  local out, count, at, last = {}, 0, 1, nil
  while count < limit do
    local found = table.pack(find(s, p, at))
    local start, stop = found[1], found[2]
    if not start then break end
    out[#out + 1] = sub(s, at, start - 1)
    if stop + 1 ~= last then
      local whole = sub(s, start, stop)
      count = count + 1
      out[#out + 1] = replacement(repl, whole, found.n > 2 and table.move(found, 3, found.n, 1, {}) or {whole})
      at, last = stop + 1, stop + 1
    elseif start > #s then at = start break
    else
      out[#out + 1] = sub(s, start, start)
      at = start + 1
    end
  end
  out[#out + 1] = sub(s, at)
  return concat(out), count
end

function pattern.gsub(s, p, repl, limit)
  s, p = check("gsub", s, p)
  if type(repl) == "number" then repl = tostring(repl) end
  local short = is_short(s, p)
  if short and (#s <= MATCHES or sub(p, 1, 1) == "^") then return gsub(s, p, repl, limit) end
  if type(repl) ~= "string" and type(repl) ~= "table" and type(repl) ~= "function" then
    error(("bad argument #3 to 'gsub' (string/function/table expected, got %s)"):format(type(repl)), 2)
  end
  limit = limit or #s + 1
  if short and is_pattern_to_find(p) then return gsub_by_matches(s, p, repl, limit) end
  local items, anchored = parse(p)
  local out, count, at, last = {}, 0, 1, nil
  while count < limit do
    local m = {s = s, items = items, captures = {}, depth = 0}
    local stop = step(m, 1, at)
    if stop and stop ~= last then
      count = count + 1
      out[#out + 1] = replacement(repl, sub(s, at, stop - 1), values(m, at, stop, true))
      at, last = stop, stop
    elseif at <= #s then
      out[#out + 1] = sub(s, at, at)
      at = at + 1
    else break end
    if anchored then break end
  end
  out[#out + 1] = sub(s, at)
  return concat(out), count
end

return pattern
