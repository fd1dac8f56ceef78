--- Scripts that mean harm, for sandbox_spec. Each must end in an ordinary error within 100 ms of its budget (`stops`),
--- or find what it looks for out of reach: it returns "escaped" when it got there (`denied`).
local stops = {
  ["endless while"] = "while true do end",
  ["endless repeat"] = "repeat until false",
  ["endless goto"] = "::top:: goto top",
  ["endless for"] = "for i = 1, math.huge do end",
  ["endless numeric for of integers"] = "for i = 1, math.maxinteger do end",
  ["tail calls"] = "local function f() return f() end f()",
  ["deep recursion"] = "local function f() return 1 + f() end f()",
  ["mutual recursion through metamethods"] =
    "local t = setmetatable({}, {}) getmetatable(t).__index = function(s, k) return s[k + 1] end "
    .. "t = setmetatable({}, getmetatable(t)) while true do pcall(function() return t[1] end) end",
  ["recursion of tostring"] =
    "local t t = setmetatable({}, {__tostring = function() return tostring(t) end}) "
    .. "while true do pcall(tostring, t) end",
  ["recursion through gsub"] = "local function f() return (('a'):gsub('a', f)) end while true do pcall(f) end",
  ["recursion of sort"] =
    "local function f() table.sort({1, 2, 3}, function() f() end) end while true do pcall(f) end",
  ["pcall that swallows"] = "while true do pcall(function() while true do end end) end",
  ["pcall of pcall"] = "while true do pcall(pcall, pcall, function() while true do end end) end",
  ["nested pcalls"] =
    "local function f() pcall(f) while true do end end while true do pcall(f) end",
  ["xpcall whose handler loops"] =
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
  ["xpcall whose handler fails"] = "while true do xpcall(error, error, 'x') end",
  ["handler that recurses"] =
    "local function h() error('again') end while true do xpcall(error, function() xpcall(error, h) end) end",
  ["error in a loop"] = "while true do pcall(error) end",
  ["__close that loops"] =
    "local x <close> = setmetatable({}, {__close = function() while true do end end}) error('x')",
  ["__close that swallows"] =
    "while true do pcall(function() local x <close> = setmetatable({}, {__close = function() while true do end end}) "
    .. "while true do end end) end",
  ["__close that fails"] =
    "while true do pcall(function() local x <close> = setmetatable({}, {__close = error}) error('y') end) end",
  ["a loop in a coroutine"] = "coroutine.wrap(function() while true do end end)()",
  ["a loop in a coroutine that is resumed for ever"] =
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
  ["many short coroutines"] = "while true do coroutine.wrap(function() for i = 1, 100 do end end)() end",
  ["coroutines within coroutines"] =
    "local function f(n) if n == 0 then return end for i = 1, 40 do coroutine.wrap(f)(n - 1) end end "
    .. "while true do pcall(f, 100) end",
  ["a coroutine without end"] =
    "local f = coroutine.wrap(function() while true do coroutine.yield() end end) while true do f() end",
  ["a coroutine that swallows"] =
    "local f = coroutine.wrap(function() while true do pcall(function() while true do end end) end end) "
    .. "while true do pcall(f) end",
  ["coroutines that are closed"] =
    "while true do local co = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() "
    .. "while true do end end}) coroutine.yield() end) coroutine.resume(co) pcall(coroutine.close, co) end",
  ["coroutines that are kept"] =
    "local t = {} while true do pcall(function() local co = coroutine.create(function() coroutine.yield() end) "
    .. "coroutine.resume(co) t[#t + 1] = co end) end",
  ["a string that doubles"] = "local s = 'x' while true do s = s .. s end",
  ["a string that doubles, swallowed"] =
    "while true do pcall(function() local s = 'x' while true do s = s .. s end end) end",
  ["string.rep, huge"] = "while true do pcall(string.rep, 'x', 1e15) end",
  ["string.rep of nothing"] = "string.rep('', 1e15) while true do end",
  ["string.rep of a byte"] = "while true do pcall(string.rep, 'x', 1e6) end",
  ["string.rep with separators"] = "while true do pcall(string.rep, '', 1e9, ',') end",
  ["upper of long texts"] = "local s = ('x'):rep(1e6) while true do s:upper():lower():reverse() end",
  ["comparing long texts"] =
    "local a, b = ('x'):rep(1e6) .. 'a', ('x'):rep(1e6) .. 'b' while true do local _ = a == b, a < b, a <= b end",
  ["format"] = "while true do pcall(string.format, ('%s'):rep(1e5), table.unpack({}, 1, 1e5)) end",
  ["pack"] = "while true do pcall(string.pack, ('s'):rep(1e5), table.unpack({}, 1, 1e5)) end",
  ["concat of everything"] =
    "local t = {} for i = 1, 1e5 do t[i] = 'xxxxxxxxxx' end while true do pcall(table.concat, t) end",
  ["concat of a table that never ends"] = "table.concat(setmetatable({}, {__index = rawlen}), '', 1, 1e15)",
  ["a table that fills the memory"] = "local t = {} for i = 1, 1e15 do t[i] = i end",
  ["tables that fill the memory, swallowed"] =
    "local t = {} while true do pcall(function() for i = 1, 1e15 do t[#t + 1] = {i} end end) end",
  ["keys that fill the memory"] = "local t = {} while true do pcall(function() while true do t[{}] = {} end end) end",
  ["closures that fill the memory"] =
    "local f = print while true do pcall(function() while true do local g = f f = function() return g end end end) end",
  ["table.move of nothing"] = "table.move({}, 1, 1e15, 2)",
  ["table.insert into a table that lies"] =
    "table.insert(setmetatable({}, {__len = function() return 1 << 53 end}), 1, 'x')",
  ["table.remove from a table that lies"] =
    "table.remove(setmetatable({}, {__len = function() return 1 << 53 end}), 1)",
  ["unpack of a table that lies"] =
    "while true do pcall(table.unpack, setmetatable({}, {__len = function() return 1 << 20 end})) end",
  ["sort of a million"] =
    "local t = {} for i = 1, 3e5 do t[i] = -i end while true do table.sort(t) for i = 1, #t do t[i] = -t[i] end end",
  ["sort with a function in C"] =
    "local t = {} for i = 1, 3e5 do t[i] = i * 7 % 1001 end while true do pcall(table.sort, t, math.ult) end",
  ["backtracking"] = "(('a'):rep(1000)):find(('.-'):rep(50) .. 'b')",
  ["backtracking of sets"] = "(('a'):rep(30000)):match(('[a-c]*'):rep(30) .. 'x')",
  ["backtracking of options"] = "(('a'):rep(100)):match(('a?'):rep(100) .. ('a'):rep(200))",
  ["backtracking in gsub"] = "(('a'):rep(5000)):gsub('(a*)*b' .. ('a*'):rep(20) .. 'b', '')",
  ["backtracking in gmatch"] = "for _ in (('a'):rep(5000)):gmatch(('a-'):rep(20) .. 'b') do end",
  ["balanced brackets"] = "(('('):rep(3e5)):find('%b()')",
  ["plain search"] = "while true do (('a'):rep(1e6)):find(('a'):rep(3e5) .. 'b', 1, true) end",
  ["gsub that grows"] = "while true do pcall(string.gsub, ('x'):rep(1e5), 'x', ('y'):rep(1e5)) end",
  ["load of a long text"] = "local s = ('x=1 '):rep(2e5) while true do load(s) end",
  ["load of endless pieces"] = "load(function() return ' ' end)",
  ["load of pieces from a function in C"] = "load(math.random)",
  ["load of nested brackets"] = "while true do load(('('):rep(1e5)) load(('{'):rep(1e5)) load(('a.'):rep(1e5)) end",
  ["load that loads itself"] = "local s s = 'load(s)()' _G.s = 'load(s)()' load(s)() while true do pcall(load(s)) end",
  ["__index that goes round"] =
    "local a, b = {}, {} setmetatable(a, {__index = b}) setmetatable(b, {__index = a}) "
    .. "while true do pcall(function() return a.x end) end",
  ["__newindex that goes round"] =
    "local a, b = {}, {} setmetatable(a, {__newindex = b}) setmetatable(b, {__newindex = a}) "
    .. "while true do pcall(function() a.x = 1 end) end",
  ["__eq, __lt and __concat that loop"] =
    "local mt = {} mt.__eq = function() while true do end end mt.__lt, mt.__concat = mt.__eq, mt.__eq "
    .. "local a, b = setmetatable({}, mt), setmetatable({}, mt) pcall(function() return a == b end) "
    .. "pcall(function() return a < b end) return a .. b",
  ["__len and __call that loop"] =
    "local f = setmetatable({}, {__call = function(self) return self() end, __len = function(self) return self() end}) "
    .. "return #f",
  ["an error that loops when it is shown"] =
    "while true do pcall(error, setmetatable({}, {__tostring = function() while true do end end})) end",
  ["garbage"] = "while true do local t = {{}, {}, {}} end",
  ["garbage with chains"] =
    "local t while true do t = {} for i = 1, 1e5 do t = {t} end end",
  ["a huge tensor"] = "while true do pcall(marea.zeros, 100000, 100000) end",
  ["tensors that fill the memory"] =
    "local t = {} while true do pcall(function() while true do t[#t + 1] = marea.zeros(1000, 1000) end end) end",
  ["one long product"] = "local a = marea.zeros(3000, 3000) return a:matmul(a)",
  ["products for ever, swallowed"] =
    "local a = marea.zeros(500, 500) while true do pcall(function() local b = a:matmul(a) end) end",
  ["a graph without end"] =
    "local x = marea.ones(10):requires_grad_() local y = x while true do pcall(function() y = y + x end) end",
  ["changes in place for ever"] = "local x = marea.zeros(1000, 1000) while true do x:add_(1) end",
  ["a tensor as a list"] = "local x = marea.zeros(1000, 1000) while true do pcall(x.totable, x) end",
  ["tensors of Lua numbers"] =
    "local t = {} for i = 1, 1e5 do t[i] = i end while true do pcall(marea.tensor, t) end",
  ["scopes within scopes"] =
    "local function f() return marea.scope(f) end while true do pcall(f) end",
  ["a scope that loops"] = "while true do pcall(marea.scope, function() while true do end end) end",
  ["no_grad that loops"] = "while true do pcall(marea.no_grad, function() while true do end end) end",
  ["training without end"] =
    "local net = marea.nn.Linear{10, 10} local o = marea.optim.Adam{net, lr = 0.1} local x = marea.ones(5, 10) "
    .. "while true do pcall(function() o:step(function() return net(x):square():mean() end) end) end",
  ["a layer that calls itself"] =
    "local C = marea.nn.class 'C' function C:init() end function C:forward(x) return self(x) end "
    .. "while true do pcall(C(), 1) end",
  ["names of layers"] =
    "local C = marea.nn.class 'C' function C:init() self.a = self end while true do pcall(function() "
    .. "for _ in pairs(C():state()) do end end) end",
  ["help for ever"] = "while true do pcall(marea.op_info, ('x'):rep(1e6)) end",
  ["prints without end"] = "while true do print(('x'):rep(1e5)) end",
}

local denied = {
  ["io and os"] = "if io or os or debug or package or dofile or loadfile or collectgarbage then return 'escaped' end",
  ["require of others"] =
    "for _, n in ipairs{'io', 'os', 'debug', 'package', 'marea.core', 'marea.sandbox.environment', 'lfs', 'string'} do "
    .. "if pcall(require, n) then return 'escaped' end end",
  ["globals through _G"] = "if _G.io or _G._G.os or rawget(_G, 'debug') then return 'escaped' end",
  ["bytecode"] = "local f = load('\\27Lua\\84\\0\\25\\147\\r\\n\\26\\n', 'x', 'b') if f then return 'escaped' end",
  ["bytecode in pieces"] =
    "local s, i = '\\27LuaT', 0 local f = load(function() i = i + 1 return s:sub(i, i) end, 'x', 'bt') "
    .. "if f then return 'escaped' end",
  ["string.dump"] = "if string.dump or ('').dump then return 'escaped' end",
  ["the metatable of strings"] =
    "local mt = getmetatable('') if mt then mt.__index = function() end return 'escaped' end",
  ["the metatable of tensors"] = "if getmetatable(marea.zeros(1)) then return 'escaped' end",
  ["a protected metatable"] =
    "local t = setmetatable({}, {__metatable = 'mine'}) "
    .. "if getmetatable(t) ~= 'mine' or pcall(setmetatable, t, {}) then return 'escaped' end",
  ["__gc"] = "if pcall(setmetatable, {}, {__gc = function() end}) then return 'escaped' end",
  ["__gc later"] =
    "local mt = {} for i = 1, 10 do local t = setmetatable({}, mt) mt.__gc = function() _G.ran = true end t = nil "
    .. "mt.__gc = nil end for i = 1, 1e5 do local t = {} end if ran then return 'escaped' end",
  ["__gc of a class of layers"] =
    "local C = marea.nn.class 'C' function C:init() end C.__gc = function() while true do end end "
    .. "if pcall(C) then return 'escaped' end",
  ["weak tables"] = "if pcall(setmetatable, {}, {__mode = 'k'}) then return 'escaped' end",
  ["weak tables later"] =
    "local mt = {} local t = setmetatable({}, mt) mt.__mode = 'k' t[{}] = 1 "
    .. "for i = 1, 3e5 do local g = {} end if next(t) == nil then return 'escaped' end",
  ["absolute path"] = "local t, m = pcall(marea.load, '/etc/passwd') if t then return 'escaped' end",
  ["path upward"] =
    "for _, p in ipairs{'../../etc/passwd', 'READ/../../../../etc/passwd', 'READ/..', '..', '/', '', '.'} do "
    .. "if pcall(marea.load_npy, p) then return 'escaped' end end",
  ["path with a zero byte"] = "if pcall(marea.load, 'READ/x\\0/../../y') then return 'escaped' end",
  ["link out of the folder"] = "if pcall(marea.load, 'READ/link') then return 'escaped' end",
  ["writing where only reading is allowed"] =
    "if pcall(marea.save_npy, marea.zeros(2), 'READ/new.npy') then return 'escaped' end",
  ["writing outside"] = "if pcall(marea.save, '/tmp/marea_escaped', {a = marea.zeros(2)}) then return 'escaped' end",
  ["a device"] = "if pcall(marea.load_idx, '/dev/zero') then return 'escaped' end",
  ["programs through plots"] =
    "local ok, m = pcall(function() return marea.plot.curves{{y = {1, 2}}}:save 'WRITE/x.png' end) "
    .. "if ok and m then return 'escaped' end",
  ["files through metrics"] =
    "local ok, m = pcall(function() return marea.metrics.open('/tmp/marea_escaped', {'a'}):write{a = 1} end) "
    .. "if ok and m then return 'escaped' end",
  ["lifting the limits"] =
    "if pcall(marea.memory_limit, nil) or pcall(marea.memory_limit, 1e15) or pcall(marea.set_threads, 64) then "
    .. "return 'escaped' end",
  ["functions of the library through its tables"] =
    "marea.nn.Linear = nil string.rep = nil table.concat = nil pcall = nil error = nil "
    .. "if ('x'):rep(2) ~= 'xx' then return 'escaped' end",
  ["a sandbox in the sandbox"] =
    "local ok, box = pcall(marea.sandbox, {seconds = 100}) if ok then return 'escaped' end",
  ["profiles of the host"] = "if getmetatable(marea.profile) and debug then return 'escaped' end",
}

return {stops = stops, denied = denied}
