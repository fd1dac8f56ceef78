-- Writes a C program that compiles only if what marea_ffi.lua declares is what marea.h says: each function, each enum
-- value, each struct's size and its fields' places and types, as LuaJIT has read them.
local ffi = require "ffi"
package.path = "bindings/luajit/?.lua;" .. package.path
local marea = require "marea_ffi"

local function says(...) print(string.format(...)) end

local file = assert(io.open "bindings/luajit/marea_ffi.lua")
local text = file:read "*a":match "ffi%.cdef %[%[\n(.-)\n%]%]"
file:close()

says '#include <marea.h>\n#define SAME(a, b) _Static_assert(__builtin_types_compatible_p(a, b), #a " is " #b)'
says("_Static_assert(__builtin_strcmp(MAREA_VERSION, \"%s\") == 0, \"version\");", marea.version)

local function field(struct, declaration)
  local of_type, names = declaration:match "^%s*(const char %*)(.+)$"
  if not of_type then of_type, names = declaration:match "^%s*([%w_]+) (.+)$" end
  for name, size in names:gmatch "([%w_]+)(%[?%d*%]?)" do
    says("_Static_assert(offsetof(%s, %s) == %d, \"%s.%s\");", struct, name, ffi.offsetof(struct, name), struct, name)
    says("SAME(__typeof__(((%s *)0)->%s), %s%s);", struct, name, of_type, size)
  end
end

for body, name in text:gmatch "typedef struct [%w_]+ (%b{}) ([%w_]+);" do
  says("_Static_assert(sizeof(%s) == %d, \"%s\");", name, ffi.sizeof(name), name)
  for declaration in body:sub(2, -2):gsub("union {", ""):gsub("};", ""):gmatch "([^;]+);" do
    field(name, declaration:gsub("%s+", " "))
  end
end

for body in text:gmatch "enum [%w_]* ?(%b{})" do
  for name in body:gmatch "MAREA_[%w_]+" do
    says("_Static_assert(%s == %d, \"%s\");", name, tonumber(ffi.cast("int", ffi.C[name])), name)
  end
end

-- A second declaration of another type is an error of the compiler.
local library, functions = ffi.load(os.getenv "MAREA_LIBRARY"), 0
for declaration in text:gsub("typedef struct [%w_]+ %b{} [%w_]+;", ""):gmatch "[%w_ *]+ ?%*?marea_[%w_]+ %b();" do
  says("%s", declaration)
  functions = functions + (library[declaration:match "(marea_[%w_]+) %("] ~= nil and 1 or 0)
end
assert(functions == select(2, text:gsub("marea_[%w_]+ %(", "")), "a declaration is left out")
