--- More scripts that mean harm, by kind, for sandbox_spec. Each must end within 100 ms of its budget, by an error or
--- with a result other than "escaped", and leave the host, its memory and its files as they were. READ and WRITE stand
--- for the folders that the sandbox has, SECRET for a file beside them, which holds "the secret", BUDGET for seconds.
local modules = require "spec.support.modules"

local attacks = {}

--- "'marea.core', 'marea.internal.check', ...": what `marea` does not name.
local function private_modules()
  local public, quoted = modules.public(), {"'marea.core'"}
  for _, name in ipairs(modules.all()) do
    if not public[name] then quoted[#quoted + 1] = ("'%s'"):format(name) end
  end
  return table.concat(quoted, ", ")
end

--- A text that loads `text`, made of a piece that is repeated.
local function parse(before, piece, n, after)
  return ("local t = %q .. (%q):rep(%d) .. %q while true do load(t) end"):format(before, piece, n, after or "")
end

attacks.parsing = {
  ["a long or"] = parse("return ", "a or ", 200000, "a"),
  ["a long and"] = parse("return ", "a and ", 160000, "a"),
  ["or and and"] = parse("return ", "a and b or ", 90000, "a"),
  ["comparisons"] = parse("return ", "a < b or ", 100000, "a"),
  ["a long elseif"] = parse("if a then ", "elseif a then ", 70000, "end"),
  ["breaks"] = parse("while a do ", "if a then break end ", 50000, "end"),
  ["gotos to one label"] = parse("do ", "goto x ", 30000, "::x:: end"),
  ["labels"] =
    "local t = {} for i = 1, 30000 do t[i] = '::a' .. i .. '::' end t = table.concat(t) while true do load(t) end",
  ["gotos that wait through blocks"] =
    "local t = {} for i = 1, 30000 do t[i] = 'goto a' .. i .. ' ' end "
    .. "t = 'do ' .. table.concat(t) .. ('do end '):rep(80000) while true do load(t) end",
  ["upvalues of upvalues"] =
    "local t = {} for i = 1, 190 do t[i] = 'local a' .. i .. ' ' end t = table.concat(t) .. ('local function "
    .. "f() '):rep(150)"
    .. " .. ('x = y '):rep(100000) while true do load(t) end",
  ["brackets"] = parse("return ", "(", 900000),
  ["braces"] = parse("return ", "{", 900000),
  ["unary minus"] = parse("return ", "- ", 500000, "1"),
  ["not"] = parse("return ", "not ", 250000, "1"),
  ["powers to the right"] = parse("return ", "2^", 400000, "1"),
  ["concatenations to the right"] = parse("return ", "a..", 300000, "a"),
  ["calls of calls"] = parse("return f", "()", 400000),
  ["indices of indices"] = parse("return a", "[a", 300000),
  ["fields of fields"] = parse("return a", ".a", 400000),
  ["functions in functions"] = parse("", "function f() ", 70000),
  ["blocks in blocks"] = parse("", "do ", 300000),
  ["repeats in repeats"] = parse("", "repeat ", 140000),
  ["too many locals"] = parse("", "local a ", 120000),
  ["too many constants"] =
    "local t = {} for i = 1, 100000 do t[i] = i .. ',' end t = 'return {' .. table.concat(t) .. '}' while true "
    .. "do load(t) end",
  ["constants that fall into one chain"] =
    "local t = {} for i = 1, 70000 do t[i] = i * 131071 .. ',' end t = 'return {' .. table.concat(t) .. '}' "
    .. "while true do load(t) end",
  ["a long string"] = parse("return '", "x", 1000000, "'"),
  ["a string without end"] = parse("return '", "x", 1000000),
  ["a long bracket"] = parse("return [", "=", 1000000, "["),
  ["a comment without end"] = parse("--[[", "x", 1000000),
  ["escapes"] = parse("return '", "\\u{7FFFFFFF}", 70000, "'"),
  ["digits"] = parse("return ", "9", 1000000),
  ["digits behind the point"] = parse("return 0.", "1", 1000000, "e9"),
  ["hexadecimal digits"] = parse("return 0x", "f", 1000000, ".fp1"),
  ["line ends"] = parse("", "\n", 1000000),
  ["parameters"] = parse("return function(a", ",a", 400000, ") end"),
  ["assignments to many"] = parse("a", ",a", 400000, " = 1"),
  ["attributes"] = parse("", "local a <close> = nil ", 40000),
  ["pieces of one letter"] =
    "local i = 0 load(function() i = i + 1 return i < 1e9 and (i % 2 == 1 and 'a' or '=') or nil end)",
  ["pieces that grow"] = "local s = ' ' load(function() s = #s < 2^19 and s .. s or s return s end)",
  ["pieces from a coroutine"] = "load(coroutine.wrap(function() while true do coroutine.yield ' ' end end))",
  ["a reader that loads"] = "local function f() load(f) return ' ' end load(f) while true do load(f) end",
  ["a reader that fails"] = "while true do pcall(load, function() error 'x' end) end",
  ["a chunk that is no text"] = "for _, x in ipairs{1, true, {}, print} do pcall(load, x) end while true do end",
  ["a binary chunk"] =
    "local f = load('\\27Lua\\x54\\0\\x19\\x93\\r\\n\\x1a\\n' .. ('\\4'):rep(500)) if f then f() return 'escaped' end",
  ["a binary chunk in pieces"] =
    "local s, i = '\\27Lua\\x54\\0\\x19\\x93\\r\\n\\x1a\\n' .. ('\\4'):rep(500), 0 "
    .. "local f = load(function() i = i + 1 return i <= #s and s:sub(i, i) or nil end) if f then f() return "
    .. "'escaped' end",
  ["mode b"] = "local f = load('\\27Lua', 'x', 'b') if f then return 'escaped' end",
}

attacks.tables = {
  ["keys of one chain"] = "local t = {} for m = 1, 2^15 + 1 do t[m * 65535] = true end while true do end",
  ["keys of one chain, many"] = "local t = {} for m = 1, 2^17 + 1 do t[m * 262143] = true end while true do end",
  ["keys of one chain, negative"] = "local t = {} for m = 1, 2^15 + 1 do t[m * -65535] = true end while true do end",
  ["keys of one chain, large"] =
    "local t = {} for m = 1, 2^15 + 1 do t[m * 65535 * 65537 + (1 << 40) * 65535] = true end while true do end",
  ["floats of one chain"] =
    "local t = {} for m = 1, 2^15 + 1 do t[m * 65535 + 0.5] = true end while true do end",
  ["one chain, emptied and filled again"] =
    "local t = {} for m = 1, 12000 do t[m * 16383] = true end for m = 1, 8000 do t[m * 16383] = nil end "
    .. "for i = 1, 1e9 do t['a' .. i] = true end",
  ["one chain by constructors"] =
    "local s = {} for m = 1, 20000 do s[m] = '[' .. m * 32767 .. ']=1' end load('return {' .. table.concat(s, "
    .. "',') .. '}')() "
    .. "while true do end",
  ["two chains in turn"] =
    "while true do pcall(function() local t = {} for m = 1, 9000 do t[m * 8191] = 1 t[m * 8191 + 1] = 1 end end) end",
  ["growing at every second step"] =
    "local t = {} for i = 1, 2^18 do t[i] = i end local i = 0 while true do i = i + 1 t['a' .. i % 7] = nil "
    .. "t['a' .. (i + 1) % 7] = 1 end",
  ["next in a table that was emptied"] =
    "local t = {} for i = 1, 2^17 do t[i + 0.5] = i end for k in pairs(t) do t[k] = nil end "
    .. "while true do next(t) next(t) next(t) next(t) next(t) next(t) end",
  ["pairs of a table that was emptied"] =
    "local t = {} for i = 1, 2^17 do t[i + 0.5] = i end for k in pairs(t) do t[k] = nil end while true do for _ "
    .. "in pairs(t) do end end",
  ["next as an iterator"] =
    "local t = {} for i = 1, 2^17 do t[i + 0.5] = i end for k in next, t do t[k] = nil end while true do for _ "
    .. "in next, t do end end",
  ["the length of a table with holes"] =
    "local t = {} for i = 1, 60 do t[1 << i] = 1 end while true do local _ = #t, #t, #t end",
  ["insert in front"] = "local t = {} for i = 1, 4e5 do t[i] = i end while true do table.insert(t, 1, 0) end",
  ["remove from the front"] =
    "local t = {} for i = 1, 4e5 do t[i] = i end while true do table.remove(t, 1) t[#t + 1] = 1 end",
  ["concat of numbers"] = "local t = {} for i = 1, 3e5 do t[i] = 0.1 end while true do pcall(table.concat, t) end",
  ["concat with a long separator"] =
    "local t, s = {}, ('x'):rep(1e5) for i = 1, 1e5 do t[i] = '' end while true do pcall(table.concat, t, s) end",
  ["concat over a range without end"] = "while true do pcall(table.concat, {}, '', 1, math.maxinteger) end",
  ["concat with ends that overflow"] =
    "while true do pcall(table.concat, {}, '', math.mininteger, math.maxinteger) end",
  ["unpack of everything"] = "local t = {} for i = 1, 4e5 do t[i] = i end while true do pcall(table.unpack, t) end",
  ["unpack with ends that overflow"] =
    "while true do pcall(table.unpack, {}, math.mininteger, math.maxinteger) pcall(table.unpack, {}, 1, 1e8) end",
  ["pack of many"] =
    "local t = {} for i = 1, 6e4 do t[i] = i end while true do pcall(function() table.pack(table.unpack(t)) end) end",
  ["move onto itself"] = "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.move(t, 1, #t, 2) end",
  ["move with ends that overflow"] = "while true do pcall(table.move, {}, math.mininteger, math.maxinteger, 1) end",
  ["sort with an order that lies"] =
    "local t = {} for i = 1, 1e5 do t[i] = i end while true do pcall(table.sort, t, function() return true end) end",
  ["sort with an order that fails"] =
    "local t = {} for i = 1, 1e5 do t[i] = -i end while true do pcall(table.sort, t, error) end",
  ["sort of long strings"] =
    "local t, p = {}, ('\\0'):rep(1e5) for i = 1, 50 do t[i] = p .. (i * 7 % 50) end while true do table.sort(t) end",
  ["sort of a table that changes"] =
    "local t = {} for i = 1, 1e5 do t[i] = -i end while true do pcall(table.sort, t, function(a, b) t[#t] = nil "
    .. "t[#t + 1] = 1 return a < b end) end",
  ["a table that is its own metatable"] =
    "local t = {} t.__index = t t.__newindex = t setmetatable(t, t) while true do pcall(function() t.x = t.y end) end",
  ["tables as keys"] = "local t = {} while true do pcall(function() for i = 1, 1e9 do t[{}] = i end end) t = {} end",
  ["huge constructors"] = "local t = 'return {' .. ('1,'):rep(4e5) .. '}' local f = load(t) while true do f() end",
}

attacks.strings = {
  ["comparing zeros"] =
    "local a, b = ('\\0'):rep(1e6 - 1) .. 'a', ('\\0'):rep(1e6 - 1) .. 'b' while true do local _ = a < b, a <= "
    .. "b, a > b, a >= b end",
  ["comparing zeros made anew"] =
    "while true do local a, b = ('\\0'):rep(9e5) .. 'a', ('\\0'):rep(9e5) .. 'b' local _ = a < b, a < b, a < b, "
    .. "a < b end",
  ["equal texts"] =
    "local a, b = ('x'):rep(1e6 - 1) .. 'a', ('x'):rep(1e6 - 1) .. 'a' while true do local _ = a == b, a ~= b end",
  ["long texts as numbers"] = "local s = ('9'):rep(1e6) while true do local _ = s + 0, s * 1, -s, s // 1, s % 7 end",
  ["long texts as bits"] = "local s = ('9'):rep(1e6) while true do pcall(function() return s & 1, s | 1, ~s end) end",
  ["long fractions"] =
    "local s = '0.' .. ('1'):rep(9e5) .. 'e9' while true do local _ = s + 0, s + 0, s + 0, s + 0 end",
  ["long texts in math"] =
    "local s = ('9'):rep(1e6) while true do math.abs(s) math.floor(s) math.max(s, s) math.fmod(s, 3) end",
  ["tonumber of long texts"] = "local s = ('z'):rep(1e6) while true do tonumber(s, 36) tonumber(s) end",
  ["keys of long texts"] = "local t, s = {}, ('x'):rep(9e5) while true do t[s .. #t] = nil end",
  ["format of many"] =
    "local t = {} for i = 1, 6e4 do t[i] = 1e308 end while true do pcall(string.format, ('%.99e'):rep(6e4), "
    .. "table.unpack(t)) end",
  ["format of wide fields"] = "while true do pcall(string.format, ('%99d'):rep(1000), table.unpack({}, 1, 1000)) end",
  ["format of quotes"] = "local s = ('\\1'):rep(1e6) while true do pcall(string.format, '%q%q%q', s, s, s) end",
  ["format of what shows itself"] =
    "local t = setmetatable({}, {__tostring = function() return ('x'):rep(1e6) end}) while true do "
    .. "pcall(string.format, ('%s'):rep(50), "
    .. "t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t) end",
  ["format that shows itself"] =
    "local t t = setmetatable({}, {__tostring = function() return ('%s'):format(t) end}) while true do "
    .. "pcall(string.format, '%s', t) end",
  ["packsize of many"] =
    "while true do pcall(string.packsize, ('i1'):rep(4e5)) pcall(string.packsize, ('!16Xj'):rep(1e5)) end",
  ["pack of paddings"] = "while true do pcall(string.pack, ('c900000'):rep(50), table.unpack({}, 1, 50)) end",
  ["unpack of many"] = "local s = ('x'):rep(9e5) while true do pcall(string.unpack, ('b'):rep(9e5), s) end",
  ["unpack behind the end"] =
    "while true do pcall(string.unpack, 's8', '\\255\\255\\255\\255\\255\\255\\255\\127', math.mininteger) end",
  ["byte of everything"] = "local s = ('x'):rep(9e5) while true do pcall(string.byte, s, 1, -1) end",
  ["char of many"] =
    "local t = {} for i = 1, 6e4 do t[i] = 65 end while true do pcall(string.char, table.unpack(t)) end",
  ["rep by parts"] =
    "while true do pcall(string.rep, 'ab', 499999, '') pcall(string.rep, '', 1e6, 'x') pcall(string.rep, 'x', "
    .. "-1e18) end",
  ["rep that overflows"] =
    "while true do pcall(string.rep, ('x'):rep(1e6), math.maxinteger) pcall(string.rep, 'x', 2^63) end",
  ["reverse and upper"] = "local s = ('x'):rep(1e6) while true do s:reverse():upper():lower():len() end",
  ["sub of everything"] =
    "local s = ('x'):rep(1e6) while true do s:sub(2) s:sub(-999999) s:sub(math.mininteger, math.maxinteger) end",
  ["utf8 of continuation bytes"] =
    "local s = 'a' .. ('\\x80'):rep(9e5) local f = utf8.codes 'abc' while true do pcall(f, s, 1) end",
  ["utf8 of everything"] =
    "local s = ('\\u{800}'):rep(3e5) while true do utf8.len(s) utf8.offset(s, -1) for _ in utf8.codes(s) do end end",
  ["utf8 of many"] =
    "local t = {} for i = 1, 6e4 do t[i] = 8000 end while true do pcall(utf8.char, table.unpack(t)) end",
  ["utf8 codepoints"] = "local s = ('x'):rep(9e5) while true do pcall(utf8.codepoint, s, 1, -1) end",
  ["gsub with a table that answers"] =
    "while true do pcall(string.gsub, ('x'):rep(1e6), 'x', setmetatable({}, {__index = function() return "
    .. "('y'):rep(1000) end})) end",
  ["gsub of everything"] = "local s = ('x'):rep(9e5) while true do pcall(string.gsub, s, 'x', '%0') end",
  ["gsub of positions"] = "local s = ('x'):rep(4e5) while true do pcall(string.gsub, s, '()()()', '%1%2%3') end",
  ["gsub by a table"] = "local s, t = ('x'):rep(9e5), {x = 'y'} while true do pcall(string.gsub, s, '.', t) end",
  ["gsub within gsub"] =
    "local function f(s) return (s:gsub('.', f)) end while true do pcall(f, ('x'):rep(100)) end",
  ["gmatch of nothing"] = "local s = ('x'):rep(1e6) while true do for _ in s:gmatch '' do end end",
  ["frontiers"] = "while true do (('a '):rep(4e5)):find('%f[b]' .. ('%f[%a]a? '):rep(10)) end",
  ["captures by number"] = "while true do pcall(string.find, ('a'):rep(1e5), '(a*)(a*)(a*)%1%2%3b') end",
  ["32 captures"] = "while true do pcall(string.match, ('a'):rep(1e5), ('(a-)'):rep(32) .. 'b') end",
  ["sets without end"] = "while true do pcall(string.find, 'x', '[' .. ('a-z'):rep(3e5)) end",
  ["a huge set"] =
    "local p = '[' .. ('ab'):rep(2e5) .. ']' while true do pcall(string.gsub, ('c'):rep(1e5), p, '') end",
  ["plain search for long texts"] =
    "local s = ('a'):rep(1e6) while true do s:find(('a'):rep(4e5) .. 'b', 1, true) end",
  ["concatenation in a loop"] =
    "local s = '' while true do pcall(function() for i = 1, 1e9 do s = s .. 'xxxxxxxxxxxxxxxx' end end) s = '' end",
  ["concatenation of many"] =
    "local s = ('x'):rep(1e5) while true do pcall(function() return s .. s .. s .. s .. s .. s .. s .. s .. s "
    .. ".. s .. s .. s end) end",
}

attacks.calls = {
  ["arguments in heaps"] =
    "local t = {} for i = 1, 6e4 do t[i] = i end local function f(...) while true do f2(...) f2(...) f2(...) "
    .. "f2(...) end end "
    .. "function f2() end f(table.unpack(t))",
  ["select of heaps"] =
    "local t = {} for i = 1, 6e4 do t[i] = i end local function f(...) while true do local _ = select('#', ...) "
    .. "_ = select(-1, ...) end end "
    .. "f(table.unpack(t))",
  ["arguments that grow by hundreds"] =
    "local function use(...) while true do local _ = select('#', ...) _ = select('#', ...) end end local list = "
    .. "('1,'):rep(200) "
    .. "local grow = load('local grow, use = ... return function(n, ...) if n == 0 then return use(...) end "
    .. "return grow()(n - 1, ' .. list .. '...) end') "
    .. "local g local function get() return g end g = grow(get, use) pcall(g, 1000)",
  ["arguments that grow"] =
    "local function f(...) return f(1, 2, 3, 4, 5, 6, 7, 8, 9, ...) end while true do pcall(f) end",
  ["recursion with close variables"] =
    "local mt = {__close = function() end} local function f() local x <close> = setmetatable({}, mt) return 1 + "
    .. "f() end "
    .. "while true do pcall(f) end",
  ["close variables that recurse"] =
    "local function f() local x <close> = setmetatable({}, {__close = function() f() end}) end while true do "
    .. "pcall(f) end",
  ["close variables in a coroutine that yields"] =
    "while true do local co = coroutine.wrap(function() local x <close> = setmetatable({}, {__close = "
    .. "function() while true do "
    .. "coroutine.yield() end end}) end) pcall(co) pcall(co) end",
  ["__close that raises again and again"] =
    "local function f(n) local x <close> = setmetatable({}, {__close = function() error(n) end}) if n > 0 then "
    .. "f(n - 1) end end "
    .. "while true do pcall(f, 150) end",
  ["__gc of what is closed"] =
    "local x <close> = setmetatable({}, {__close = function(t) pcall(setmetatable, t, {__gc = function() end}) "
    .. "while true do end end})",
  ["__index of functions in C"] =
    "local t = setmetatable({}, {__index = string.rep}) while true do pcall(function() return t[1e9] end) end",
  ["__call of __call"] =
    "local a = {} for i = 1, 1e4 do a = setmetatable({}, {__call = a}) end while true do pcall(a) end",
  ["__index of __index"] =
    "local a = {} for i = 1, 3000 do a = setmetatable({}, {__index = a}) end while true do pcall(function() "
    .. "return a.x end) end",
  ["__eq between any"] =
    "local mt = {__eq = function(a, b) return a == b end} local a, b = setmetatable({}, mt), setmetatable({}, mt) "
    .. "while true do pcall(function() return a == b end) end",
  ["__lt by sort"] =
    "local mt = {__lt = function() while true do end end} table.sort{setmetatable({}, mt), setmetatable({}, mt)}",
  ["__len that lies"] =
    "local t = setmetatable({}, {__len = function() return math.maxinteger end}) while true do "
    .. "pcall(table.unpack, t) pcall(table.insert, t, 1) "
    .. "pcall(table.remove, t) pcall(ipairs, t) end",
  ["__concat that grows"] =
    "local t t = setmetatable({}, {__concat = function(a) return a .. t end}) while true do pcall(function() "
    .. "return t .. t end) end",
  ["__pairs that goes on"] =
    "for _ in pairs(setmetatable({}, {__pairs = function() return function() return 1 end end})) do end",
  ["__name that is long"] = "while true do pcall(error, tostring(setmetatable({}, {__name = ('x'):rep(9e5)}))) end",
  ["__metatable that is a function"] =
    "local t = setmetatable({}, {__metatable = function() end}) if pcall(setmetatable, t, {}) then return "
    .. "'escaped' end",
  ["__mode by an inherited field"] =
    "local mt = setmetatable({}, {__index = {__mode = 'k', __gc = function() _G.ran = 1 end}}) local t = "
    .. "setmetatable({}, mt) t[{}] = 1 "
    .. "for i = 1, 1e5 do local _ = {} end if ran or next(t) == nil then return 'escaped' end",
  ["an error that is a table"] = "while true do pcall(error, setmetatable({}, {__tostring = error})) end",
  ["an error object that waits"] = "error(setmetatable({}, {__tostring = function() while true do end end}))",
  ["an error that is nil"] = "error()",
  ["an error that is long"] = "error(('x'):rep(1e6))",
  ["errors at the end of a giant function"] =
    "local f = load('local n = ... if n then goto e end ' .. ('do local a = x end '):rep(50000) .. ' ::e:: x.y.z = 1') "
    .. "while true do pcall(f, 1) end",
  ["errors of the library on a deep stack"] =
    "local function f(n) if n > 0 then return 1 + f(n - 1) end while true do pcall(function() "
    .. "return marea.ones(2) + marea.ones(3) end) end end f(5e4)",
  ["a profile on a deep stack"] =
    "local function f(n) if n > 0 then return 1 + f(n - 1) end marea.profile.start() local x = marea.ones(1) "
    .. "while true do x = x + 1 end end f(5e4)",
  ["long names of chunks"] = "local f = load('marea.bad()', '=' .. ('x'):rep(9e5)) while true do pcall(f) end",
  ["errors at far levels"] =
    "local function f(n) if n > 0 then return 1 + f(n - 1) end while true do pcall(error, 'x', 1e9) end end f(1e4)",
  ["a handler that yields"] =
    "local co = coroutine.wrap(function() while true do xpcall(error, coroutine.yield, 'x') end end) while true "
    .. "do co() end",
  ["a handler in C"] =
    "while true do xpcall(error, string.rep, 'x') xpcall(error, pcall, 'x') xpcall(error, xpcall, 'x') end",
  ["a handler within a handler"] =
    "local function h() xpcall(error, h) end while true do pcall(xpcall, error, h) end",
  ["assert of everything"] =
    "while true do pcall(assert, false, setmetatable({}, {__tostring = function() while true do end end})) end",
  ["goto into a loop"] = "do ::a:: local x <close> = nil if x == nil then goto a end end",
  ["coroutines that close each other"] =
    "local a, b a = coroutine.create(function() coroutine.close(b) while true do coroutine.yield() end end) "
    .. "b = coroutine.create(function() while true do pcall(coroutine.resume, a) end end) while true do "
    .. "coroutine.resume(b) end",
  ["a coroutine that resumes itself"] =
    "local co co = coroutine.create(function() while true do pcall(coroutine.resume, co) coroutine.yield() end "
    .. "end) while true do coroutine.resume(co) end",
  ["a coroutine that wraps itself"] =
    "local f f = function() return coroutine.wrap(f)() end while true do pcall(f) end",
  ["coroutines with deep stacks"] =
    "local function deep(n) if n == 0 then return coroutine.yield() end return 1 + deep(n - 1) end local t = {} "
    .. "while true do pcall(function() local co = coroutine.create(deep) coroutine.resume(co, 1e4) t[#t + 1] = "
    .. "co end) if #t > 20 then t = {} end end",
  ["a thread kept from run to run"] =
    "co = co or coroutine.create(function() while true do end end) coroutine.resume(co) while true do end",
  ["wrap of functions in C"] =
    "while true do pcall(coroutine.wrap(string.rep), 'x', 1e6) pcall(coroutine.wrap(table.sort), {3, 2, 1}) end",
  ["yield across sort"] = "coroutine.wrap(function() table.sort({3, 2, 1}, coroutine.yield) end)() while true do end",
  ["tostring of everything"] = "while true do for _, v in pairs(_G) do tostring(v) end end",
  ["dofile and its like"] =
    "if dofile or loadfile or loadstring or getfenv or setfenv or newproxy or collectgarbage then return 'escaped' end",
}

attacks.memory = {
  ["garbage at the limit"] =
    "local t = {} pcall(function() for i = 1, 1e9 do t[i] = {i} end end) while true do pcall(function() return "
    .. "('x'):rep(1e6) end) end",
  ["strings at the limit"] =
    "local t = {} while true do pcall(function() for i = 1, 1e9 do t[#t + 1] = ('x'):rep(1e5) .. i end end) end",
  ["closures and upvalues"] =
    "local t = {} while true do pcall(function() for i = 1, 1e9 do local a, b, c = i, i, i t[i] = function() "
    .. "return a, b, c end end end) end",
  ["coroutines that are never run"] =
    "local t = {} while true do pcall(function() for i = 1, 1e9 do t[i] = coroutine.create(print) end end) end",
  ["metatables"] =
    "local t = {} while true do pcall(function() for i = 1, 1e9 do t[i] = setmetatable({}, {}) end end) end",
  ["functions from load"] =
    "local t = {} while true do pcall(function() for i = 1, 1e9 do t[i] = load('return ' .. i) end end) end",
  ["boxes of tensors"] =
    "local t = {} while true do pcall(function() for i = 1, 1e9 do t[i] = marea.ones(1) end end) end",
  ["boxes that wait"] = "while true do for i = 1, 1000 do marea.ones(1) end end",
  ["a graph that is dropped"] =
    "local x = marea.ones(1):requires_grad_() while true do local y = x for i = 1, 3e4 do y = y + x end end",
  ["a graph that is kept"] =
    "local x = marea.ones(1):requires_grad_() local y = x while true do pcall(function() for i = 1, 1e9 do y = "
    .. "y * x end end) end",
  ["tensors that are emptied"] = "while true do local t = marea.ones(1e6) t:release() end",
  ["scopes that are never closed"] =
    "local t = {} while true do pcall(function() for i = 1, 1e9 do t[i] = marea.scope() end end) end",
  ["results of a scope"] =
    "local t = {} for i = 1, 1e5 do t[i] = {} end while true do marea.scope(function() return t end) end",
  ["prints"] = "while true do print(('x'):rep(9e5)) end",
  ["prints of many"] = "local t = {} for i = 1, 6e4 do t[i] = i end while true do pcall(print, table.unpack(t)) end",
  ["layers without end"] =
    "local t = {} while true do pcall(function() for i = 1, 1e9 do t[i] = marea.nn.Linear{10, 10} end end) end",
  ["parameters of optimizers"] =
    "local t = {} for i = 1, 2000 do t[i] = marea.ones(1):requires_grad_() end while true do "
    .. "pcall(marea.optim.Adam, {t, lr = 0.1}) end",
  ["a profile that remembers"] =
    "marea.profile.start{events = 1e15} local x = marea.ones(1) while true do x = x + 1 end",
  ["profiles within each other"] =
    "while true do pcall(marea.profile, function() marea.profile(function() end) end) end",
  ["long names of layers"] =
    "local C = marea.nn.class(('x'):rep(1e5)) function C:init() end function C:forward(x) return x:bad() end "
    .. "while true do pcall(C(), marea.ones(1)) end",
}

attacks.results = {
  ["an expanded tensor"] = "local x = marea.ones(1):expand(60000000) return x, x, x, x, x, x, x, x, x, x",
  ["an expanded tensor in a table"] =
    "local x = marea.ones(1):expand(30000000) local t = {} for i = 1, 100 do t[i] = x end return t",
  ["an expanded tensor beyond all memory"] = "return marea.ones(1):expand(2147483647)",
  ["an expanded tensor of many dimensions"] = "return marea.ones(1, 1, 1):expand(1000, 1000, 1000)",
  ["one tensor many times"] = "local x, t = marea.ones(1000, 1000), {} for i = 1, 500 do t[i] = x end return t",
  ["a string many times"] = "local s, t = ('x'):rep(1e6), {} for i = 1, 1e5 do t[i] = s end return t",
  ["tables shared at each level"] = "local t = {1} for i = 1, 14 do t = {t, t, t, t, t, t} end return t",
  ["tables within each other"] = "local t = {} for i = 1, 1e5 do t = {t} end return t",
  ["a ring"] = "local t = {} t[1] = t return t",
  ["a metatable that lies"] = "return setmetatable({}, {__index = error, __len = error, __pairs = error})",
  ["keys that are tensors"] = "return {[marea.ones(1)] = 1}",
  ["functions"] = "return print, string.rep, coroutine.create(print)",
  ["ten thousand results"] = "local t = {} for i = 1, 1e4 do t[i] = i end return table.unpack(t)",
  ["sixty thousand results"] = "local t = {} for i = 1, 6e4 do t[i] = i end return table.unpack(t)",
  ["many small tensors"] = "local t = {} for i = 1, 3000 do t[i] = marea.ones(1) end return t",
  ["a released tensor"] = "local x = marea.ones(1) x:release() return x",
  ["a tensor that learns"] = "local x = marea.ones(1):requires_grad_() return x * 2, x.grad",
  ["a view of a view"] = "return marea.ones(4000, 1000):transpose(1, 2)['1:10, :']",
  ["a result in the last moment"] =
    "local start = marea.clock() local x = marea.ones(4000, 5000) while marea.clock() - start < BUDGET * 0.98 "
    .. "do end return x, x, x",
  ["tables in the last moment"] =
    "local t = {} for i = 1, 20000 do t[i] = {i} end local start = marea.clock() return t, t, t, t, t",
}

attacks.files = {
  ["the secret by load"] =
    "for _, f in ipairs{'load', 'load_npy', 'load_npz', 'load_zip', 'load_torch', 'load_gguf', 'load_t7', 'load_png', "
    .. "'load_jpeg', 'load_image', 'load_idx'} do "
    .. "local ok, t = pcall(marea[f], 'SECRET') "
    .. "if ok and t then return 'escaped' end end",
  ["the secret upward"] =
    "for _, p in ipairs{'READ/../secret', 'READ/./../secret', 'READ//..//secret', 'READ/x/../../secret'} do "
    .. "local ok, t = pcall(marea.load_npy, p) if ok and t then return 'escaped' end end",
  ["the secret through a link"] =
    "local ok, t = pcall(marea.load_npy, 'READ/link') if ok and t then return 'escaped' end",
  ["writing through a link"] =
    "for _, p in ipairs{'WRITE/link', 'WRITE/folder/new', 'WRITE/nowhere'} do pcall(marea.save_npy, "
    .. "marea.ones(1), p) end",
  ["writing beside"] =
    "for _, p in ipairs{'WRITE/../new', 'SECRET', 'SECRET.npy', 'WRITE/../write2/x', 'WRITE2/x'} do "
    .. "pcall(marea.save_npy, marea.ones(1), p) "
    .. "pcall(marea.save, p, {x = marea.ones(1)}) pcall(marea.save_png, marea.ones(2, 2), p) end",
  ["writing where only reading is allowed"] =
    "for _, f in ipairs{'save_npy', 'save_png'} do pcall(marea[f], marea.ones(2, 2), 'READ/new') end "
    .. "pcall(marea.save, 'READ/new', {x = marea.ones(1)}) pcall(function() marea.metrics.open('READ/new', "
    .. "{'x'}):write{x = 1} end) "
    .. "pcall(function() marea.plot.curves{{y = {1}}}:save 'READ/new.png' end) pcall(marea.checkpoint.save, "
    .. "'READ/new', {x = marea.ones(1)})",
  ["the folder as a file"] =
    "for _, p in ipairs{'READ', 'WRITE', 'READ/', 'WRITE/.', 'WRITE/..'} do pcall(marea.load, p) "
    .. "pcall(marea.save, p, {x = marea.ones(1)}) end",
  ["an empty path"] =
    "for _, p in ipairs{'', '.', '..', '/', '//', '~', 'READ\\0'} do pcall(marea.load, p) pcall(marea.save, p, "
    .. "{x = marea.ones(1)}) end",
  ["a path without end"] =
    "pcall(marea.load, ('READ/'):rep(1e4)) pcall(marea.load, ('x'):rep(1e6)) pcall(marea.save, 'WRITE/' .. "
    .. "('x'):rep(1e5), {x = marea.ones(1)})",
  ["devices"] =
    "for _, p in ipairs{'/dev/zero', '/dev/stdin', '/dev/tty', '/proc/self/mem', '/proc/self/environ', "
    .. "'/proc/self/fd/0'} do "
    .. "local ok, t = pcall(marea.load, p) if ok and t then return 'escaped' end end",
  ["devices through a link"] = "local ok, t = pcall(marea.load_idx, 'READ/zero') if ok and t then return 'escaped' end",
  ["a pipe"] = "local ok, t = pcall(marea.load_idx, 'READ/pipe') if ok and t then return 'escaped' end",
  ["metrics elsewhere"] =
    "pcall(function() marea.metrics.open('SECRET', {'a'}):write{a = 1} end) pcall(marea.metrics.open, "
    .. "'/tmp/marea_escaped', {'a'})",
  ["metrics read elsewhere"] =
    "local ok, t = pcall(marea.metrics.read, 'SECRET') if ok and type(t) == 'table' and next(t) then return "
    .. "'escaped' end",
  ["checkpoints elsewhere"] =
    "pcall(marea.checkpoint.load, 'SECRET') pcall(marea.checkpoint.save, '/tmp/marea_escaped', {})",
  ["plots elsewhere"] = "pcall(function() marea.plot.curves{{y = {1, 2}}}:save '/tmp/marea_escaped.png' end) "
    .. "pcall(function() marea.plot.curves{{y = {1, 2}}}:save 'SECRET' end) pcall(function() "
    .. "marea.plot.curves{{y = {1, 2}}}:show() end)",
  ["plots with commands"] =
    "pcall(function() marea.plot.curves{{y = {1, 2}, title = \"x'; touch /tmp/marea_escaped; '\"}}:save "
    .. "\"WRITE/a'; touch marea_escaped; '.png\" end)",
  ["a trace elsewhere"] =
    "marea.profile.start() marea.ones(1) pcall(function() marea.profile.stop():trace '/tmp/marea_escaped' end)",
  ["data sets elsewhere"] =
    "for _, p in ipairs{'SECRET', '/etc', 'READ/..', '/'} do pcall(marea.data.mnist, p) pcall(marea.data.mnist, "
    .. "p, 'test') end",
  ["images elsewhere"] =
    "for _, name in ipairs{'load', 'save', 'grid'} do pcall(function() marea.image[name]('SECRET', "
    .. "marea.ones(2, 2)) end) end "
    .. "pcall(function() marea.ones(2, 2):show 'SECRET' end) pcall(function() marea.ones(2, 2):show "
    .. "'/tmp/marea_escaped' end)",
  ["a rerun of a file"] =
    "if pcall(marea.rerun, 'SECRET') then return 'escaped' end pcall(marea.rerun.variables, 'SECRET')",
  ["a file of a metrics object"] =
    "local m = marea.metrics.open('WRITE/m.csv', {'a'}) for k, v in pairs(m) do if type(v) == 'userdata' and "
    .. "getmetatable(v) then "
    .. "return 'escaped' end end",
  ["listing by completion"] =
    "if pcall(function() return require 'marea.repl.complete'.files('/etc/') end) then return 'escaped' end",
  ["stamps of files"] =
    "if pcall(function() return require 'marea.rerun.files'.new('SECRET').stamps end) then return 'escaped' end",
  ["errors that quote a file"] =
    "local ok, m = pcall(load, 'x', '@SECRET') local f = load('local x = marea.ones(1) x:bad()', '@SECRET') "
    .. "local _, message = pcall(f) if tostring(message):find 'the secret' then return 'escaped' end",
  ["explanations that quote a file"] =
    "local _, m = pcall(load('local t = {} t.x.y = 1', '@SECRET')) if tostring(marea.explain(m)):find 'the secret' "
    .. "or tostring(marea.traceback(m)):find 'the secret' then return 'escaped' end",
}

attacks.modules = {
  ["the parts of the library"] =
    ("for _, n in ipairs{%s} do if pcall(require, n) then return 'escaped' end end"):format(private_modules()),
  ["names that look like parts"] =
    "for _, n in ipairs{'marea.', 'marea..core', 'marea/core', 'marea.nn/../core', './marea/core', "
    .. "'marea.core.', ' marea.core', "
    .. "'MAREA.core', 'marea.core\\0', 'marea\\0', '@marea', '(marea)'} do if pcall(require, n) then return "
    .. "'escaped' end end",
  ["names that are no strings"] =
    "for _, n in ipairs{1, true, {}, print} do if pcall(require, n) then return 'escaped' end end",
  ["the list of lazy parts"] =
    "local mt = getmetatable(marea) if type(mt) == 'table' and mt.__lazy then mt.__lazy.foo = 'marea.core' "
    .. "if pcall(function() return marea.foo end) then return 'escaped' end end",
  ["a key that says how to load"] =
    "pcall(function() marea.__lazy = {foo = 'marea.core'} return marea.foo end) if rawget(marea, 'foo') then "
    .. "return 'escaped' end",
  ["a metatable of the library replaced"] =
    "pcall(setmetatable, marea, {__index = function() return 'mine' end}) pcall(setmetatable, marea.nn, nil)",
  ["package"] = "if package or rawget(_G, 'package') then return 'escaped' end",
  ["loaded through a module"] =
    "for k, v in pairs(marea) do if type(v) == 'table' and (v.loaded or v.preload or v.searchers) then return "
    .. "'escaped' end end",
  ["sandboxes of its own"] =
    "local ok = pcall(marea.sandbox, {seconds = 1e9, read = {'/'}}) if ok then return 'escaped' end",
  ["limits lifted"] =
    "for _, f in ipairs{{'memory_limit'}, {'memory_limit', 1 << 40}, {'set_threads', 64}, {'interruptible', print}} do "
    .. "if pcall(marea[f[1]], f[2]) then return 'escaped' end end",
  ["functions replaced"] =
    "pcall = error error = nil string.format = nil table.concat = nil setmetatable = nil getmetatable = nil "
    .. "marea.ones = nil "
    .. "marea.nn.Linear = nil _G.require = nil _G._G = nil",
  ["globals that the library reads"] =
    "_G.os = {getenv = function() return '/' end} _G.io = {open = error} _G.debug = {getinfo = error} "
    .. "_G.package = {loaded = {}} pcall(function() marea.bad() end) pcall(function() return marea.ones(2) .. 1 end)",
  ["classes of the library changed"] = "local L = marea.nn.Linear for k in pairs(L) do L[k] = nil end pcall(L, {2, 3})",
  ["strings of the library changed"] =
    "string.rep = function() return 'mine' end if ('x'):rep(2) ~= 'xx' then return 'escaped' end",
  ["shield that loops"] = "marea.shield(nil, function() while true do end end)",
  ["shield within shield"] = "local function f() marea.shield(nil, f) end while true do pcall(f) end",
  ["shield with work"] = "marea.shield(nil, function() local x = marea.zeros(2e7) while true do x:add_(1) end end)",
  ["no_grad that yields"] = "coroutine.wrap(function() marea.no_grad(coroutine.yield) end)() while true do end",
  ["a plan that loops"] = "marea.plan(function() while true do end end)",
  ["a plan without memory"] =
    "pcall(marea.plan, function() local t = {} for i = 1, 1e9 do t[i] = marea.zeros(1e6) end end) while true do end",
  ["gradcheck of anything"] =
    "for _, f in ipairs{print, error, load, require, pcall} do pcall(marea.gradcheck, f, {marea.ones(1)}) end "
    .. "while true do end",
  ["a data set that never ends"] =
    "local d = {} pcall(function() for x in marea.data.Dataset{x = marea.ones(1000, 2)}:batches(1) do while "
    .. "true do end end end) while true do end",
  ["progress without end"] =
    "pcall(function() for i in marea.progress(setmetatable({}, {__call = function() return 1 end})) do end end) "
    .. "while true do end",
  ["names without end"] =
    "while true do pcall(function() return marea[('x'):rep(1e6)] end) pcall(function() return "
    .. "marea.ones(1)[('x'):rep(1e6)] end) end",
}

attacks.numerics = {
  ["polygamma in place"] = "marea.full({2e7}, .5):polygamma_{order = 100}",
  ["polygamma"] = "while true do marea.full({1e5}, .5):polygamma{order = 100} end",
  ["polygamma of few in place"] =
    "local x = marea.full({16000}, .5) while true do x:fill_(.5):polygamma_{order = 100} end",
  ["eigenvalues"] = "marea.eigh(marea.eye(1200))",
  ["eigenvalues of many"] = "marea.eigh(marea.eye(4):expand(100000, 4, 4))",
  ["eigenvalues of NaN"] = "while true do pcall(marea.eigh, marea.full({50, 50}, 0 / 0)) end",
  ["averages of large windows"] =
    "local x = marea.ones(1, 2000, 2000, 1) while true do marea.avg_pool2d(x, 500, 1) end",
  ["maxima of large windows"] = "local x = marea.ones(1, 2000, 2000, 1) while true do marea.max_pool2d(x, 500, 1) end",
  ["gradients of large windows"] = "marea.avg_pool2d_grad(marea.ones(1, 1501, 1501, 1), 2000, 500, 1)",
  ["a window as large as the image"] =
    "local x = marea.ones(1, 3000, 3000, 1) while true do marea.max_pool2d(x, 3000) marea.avg_pool2d(x, 3000) end",
  ["a wide blur"] =
    "local x = marea.ones(1, 2, 3000, 1000) while true do marea.gaussian_blur(x, 256, {radius = 1024}) end",
  ["a blur with many taps"] =
    "local x = marea.ones(1, 2, 4000, 1) while true do marea.gaussian_blur(x, 256, {radius = 1024}) end",
  ["a wide enlargement"] =
    "local x = marea.ones(1, 1, 1, 1) while true do marea.upsample_bilinear2d(x, {1, 2000000}) end",
  ["a large identity"] = "while true do marea.eye(5000) end",
  ["a kernel as large as the image"] =
    "local x, w = marea.ones(1, 1000, 1000, 4), marea.ones(1000, 1000, 4, 1) while true do marea.conv2d(x, w) end",
  ["a large kernel"] = "marea.conv2d(marea.ones(1, 800, 800, 1), marea.ones(400, 400, 1, 1))",
  ["a transposed convolution"] = "marea.conv_transpose2d(marea.ones(1, 60, 60, 100), marea.ones(40, 40, 4, 100))",
  ["gradients of a convolution"] =
    "local x, w = marea.ones(1, 200, 200, 16):requires_grad_(), marea.ones(31, 31, 16, 16):requires_grad_() "
    .. "while true do marea.conv2d(x, w):sum():backward() end",
  ["a product in f64"] = "local a = marea.zeros{2500, 2500, dtype = 'f64'} a:matmul(a)",
  ["a long product in f64"] =
    "local a = marea.zeros{3, 3000000, dtype = 'f64'} while true do a:matmul(a:transpose(1, 2)) end",
  ["an outer product"] = "local a = marea.zeros{5000, 1} while true do a:matmul(a:transpose(1, 2)) end",
  ["small products"] = "local a = marea.ones(1, 1, 1):expand(1000000, 2, 2) while true do a:matmul(a) end",
  ["Poisson numbers"] = "local x = marea.full({1e7}, 1e6) while true do marea.poisson(x) end",
  ["categories of one long row"] = "local p = marea.ones(1, 5e7) while true do marea.categorical(p) end",
  ["categories without end"] = "local p = marea.ones(1, 5000000) while true do marea.categorical(p) end",
  ["a permutation"] = "while true do marea.permutation(5000000) end",
  ["transposed copies"] =
    "local x = marea.ones(2, 2, 2, 2, 2, 2, 500, 200) while true do x:permute{8, 7, 6, 5, 4, 3, 2, 1}:contiguous() end",
  ["filling and copying"] =
    "local x = marea.zeros(2e7) local y = marea.ones(1) while true do x:fill_(1) x:zero_() x:copy_(y) "
    .. "x['1:10000000'] = 3 end",
  ["conversions"] = "local x = marea.ones(5000000) while true do x:to 'f64':to 'u8':to 'i64' end",
  ["pictures"] = "local x = marea.ones(3000, 3000) while true do x:show() tostring(x) end",
  ["PNG of a large image"] = "local x = marea.ones(2000, 2000, 3) while true do marea.encode_png(x) end",
  ["a reverse pass over many"] =
    "local x = marea.ones(1):requires_grad_() while true do local y = x for i = 1, 2e4 do y = y + x end "
    .. "y:backward() end",
  ["gradients of gradients"] =
    "local x = marea.ones(1):requires_grad_() local y = x for i = 1, 500 do y = y * x end while true do y = "
    .. "marea.grad(y, {x}, {create_graph = true})[1] end",
  ["joining many"] =
    "local x, t = marea.ones(1), {} for i = 1, 1e5 do t[i] = x end while true do marea.concat(t) marea.stack(t) end",
  ["lists of many indices"] =
    "local x, t = marea.ones(10), {} for i = 1, 1e5 do t[i] = 1 end while true do pcall(function() return x[t] "
    .. "end) end",
  ["tensors of empty rows"] = "while true do pcall(function() return marea.zeros(2^20, 0):totable() end) end",
  ["empty sums"] = "local p = marea.zeros(0, 2^22) while true do p:sum(1) p:softmax(1) end",
  ["sizes that overflow"] =
    "for _, s in ipairs{2^31, 2^32, 2^62, -1, 1e300, 0 / 0} do pcall(marea.zeros, s) pcall(marea.zeros, s, s) "
    .. "pcall(marea.ones(1).expand, marea.ones(1), s) "
    .. "pcall(marea.arange, 1, s) pcall(marea.eye, s) pcall(marea.ones(1).tile, marea.ones(1), {s}) "
    .. "pcall(marea.permutation, s) end while true do end",
  ["an optimizer of many"] =
    "local p = marea.ones(1e7):requires_grad_() local o = marea.optim.Adam{{p}, lr = .1} while true do "
    .. "o:step(function() return p:sum() end) end",
}

attacks.objects = {
  ["a planned tensor that is kept"] =
    "local t marea.plan(function() t = marea.zeros(3):keep() end) for _, f in ipairs{'fill_', 'zero_', 'copy_', "
    .. "'item', 'totable', 'tostring'} do "
    .. "pcall(function() return t[f](t, 1) end) end pcall(tostring, t) pcall(function() return t[1] end) "
    .. "pcall(function() t[1] = 1 end)",
  ["a planned view"] =
    "local t marea.plan(function() t = marea.zeros(1000):narrow(1, 500, 3):keep() end) pcall(t.fill_, t, 1) "
    .. "pcall(t.copy_, t, marea.ones(3)) pcall(tostring, t)",
  ["a planned number"] =
    "local t marea.plan(function() t = marea.zeros{1}:sum():keep() end) pcall(tostring, t) pcall(t.item, t)",
  ["a planned result"] = "local t marea.plan(function() t = marea.zeros(3):keep() end) return t",
  ["a planned file"] =
    "local t marea.plan(function() t = marea.zeros(3):keep() end) pcall(marea.save_npy, t, 'WRITE/x.npy') "
    .. "pcall(marea.save, 'WRITE/x', {t = t}) pcall(marea.encode_png, t)",
  ["a session closed as a scope"] =
    "marea.profile.start() marea.ones(3) local r = marea.profile.stop() for k, v in pairs(r) do if type(v) == "
    .. "'userdata' then return 'escaped' end end",
  ["a scope as a tensor"] =
    "local s = marea.scope() for name, f in pairs(marea) do if type(f) == 'function' and name ~= 'scope' then "
    .. "pcall(f, s) end end",
  ["methods of tensors on others"] =
    "local methods = {} for _, n in ipairs{'size', 'item', 'fill_', 'copy_', 'release', 'keep', 'detach', 'to', "
    .. "'tostring', 'add', 'add_'} do "
    .. "methods[n] = marea.ones(1)[n] end for _, x in ipairs{marea.scope(), {}, 'x', 1, print, "
    .. "coroutine.create(print)} do for _, f in pairs(methods) do pcall(f, x, x) end end",
  ["methods of scopes on tensors"] =
    "local close = marea.scope().close pcall(close, marea.ones(1)) pcall(close, {}) pcall(close, nil) pcall(close)",
  ["a released tensor everywhere"] =
    "local t = marea.ones(3) t:release() for name, f in pairs(marea) do if type(f) == 'function' then pcall(f, "
    .. "t) end end",
}

--- Those that take a while to prepare; the spec gives them 150 ms.
attacks.crowds = {
  ["scopes that are dropped behind others"] =
    "local old, new = {}, {} for i = 1, 15000 do old[i] = marea.scope() end "
    .. "for i = 1, 15000 do new[i] = marea.scope() end old = nil "
    .. "while true do pcall(function() local t = {} for i = 1, 1e9 do t[i] = {i} end end) end",
  ["scopes that end in their order"] =
    "local t = {} for i = 1, 20000 do t[i] = marea.scope() end for i = 1, #t do t[i]:close() end while true do end",
  ["scopes of many coroutines"] =
    "local t = {} for i = 1, 2000 do t[i] = coroutine.create(function() local s = marea.scope() coroutine.yield() end) "
    .. "coroutine.resume(t[i]) end while true do marea.ones(1) end",
  ["gradients of one leaf"] =
    "local x = marea.ones(1):requires_grad_() local y, t = x * 2, {} for i = 1, 5e4 do t[i] = x end "
    .. "while true do pcall(marea.grad, y, t) end",
  ["gradients of many leaves"] =
    "local t = {} for i = 1, 20000 do t[i] = marea.ones(1):requires_grad_() end local y = t[1] * 2 "
    .. "while true do pcall(marea.grad, y, t) end",
  ["gradients of many results"] =
    "local x, t = marea.ones(1):requires_grad_(), {} t[1] = x * 2 for i = 2, 10000 do t[i] = t[i - 1] + x end "
    .. "while true do pcall(marea.grad, t[#t], t, {retain_graph = true}) end",
  ["a file of many tensors"] =
    "local x, t = marea.ones(1), {} for i = 1, 30000 do t['n' .. i * 7919 % 50021] = x end "
    .. "while true do pcall(marea.save, 'WRITE/x', t) end",
  ["a file of many texts"] =
    "local t = {} for i = 1, 30000 do t['n' .. i * 7919 % 50021] = 'x' end "
    .. "while true do pcall(marea.save, 'WRITE/x', {a = marea.ones(1)}, t) end",
  ["tensors of many sizes"] =
    "local t = {} for i = 1, 20000 do t[i] = marea.ones(i % 3000 + 1) end t = nil "
    .. "while true do for i = 1, 100 do marea.ones(i * 31 % 3000 + 1) end end",
  ["a shape of a million sizes as a text"] =
    "local s = marea.ones(2).shape for i = 1, 1e6 do s[i] = i end while true do pcall(tostring, s) end",
  ["shapes of half a million sizes compared"] =
    "local s, t = marea.ones(2).shape, marea.ones(2).shape for i = 1, 5e5 do s[i], t[i] = i, i end "
    .. "while true do local _ = s == t end",
  ["a report of many"] =
    "local t = {} for i = 1, 3000 do t[i] = marea.ones(10) end while true do tostring(marea.memory_report()) end",
}

return attacks
