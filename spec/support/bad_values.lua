-- SPDX-License-Identifier: MIT
--- What the misuse specs give to functions that expect something else.
local core = require "marea.core"
local ops = core.ops

local bad_values = {}

local io_file = assert(io.tmpfile())

local function hostile()
  local function raise() error "a metamethod ran" end
  return setmetatable({1, 2}, {__index = raise, __len = raise, __pairs = raise, __newindex = raise, __call = raise,
    __tostring = raise, __name = 42, __eq = raise, __lt = raise, __concat = raise, __add = raise})
end

function bad_values.made(...)
  return ops.full {shape = {...}, value = 1}
end

local made = bad_values.made
local released = made(2, 2)
released:release()

--- Name and maker of each.
bad_values.values = {
  {"nil", function() return nil end}, {"true", function() return true end}, {"-1", function() return -1 end},
  {"0", function() return 0 end}, {"1", function() return 1 end}, {"2^31", function() return 1 << 31 end},
  {"2^53", function() return 1 << 53 end}, {"2^63-1", function() return math.maxinteger end},
  {"-2^63", function() return math.mininteger end}, {"2.0^63", function() return 2.0 ^ 63 end},
  {"1.5", function() return 1.5 end}, {"NaN", function() return 0 / 0 end}, {"inf", function() return math.huge end},
  {"-inf", function() return -math.huge end}, {"'3'", function() return "3" end}, {"''", function() return "" end},
  {"'a zero byte'", function() return "a\0b" end}, {"a long string", function() return ("x"):rep(100000) end},
  {"a format", function() return "%s%n%d" end},
  {"{}", function() return {} end}, {"{-1}", function() return {-1} end}, {"{0}", function() return {0} end},
  {"{2^40, 2^40}", function() return {1 << 40, 1 << 40} end}, {"{1.5}", function() return {1.5} end},
  {"{nil, 1}", function() return {nil, 1} end}, {"nine sizes", function() return {1, 1, 1, 1, 1, 1, 1, 1, 1} end},
  {"{{}}", function() return {{}} end}, {"a ragged table", function() return {{1, 2}, {3}} end},
  {"an unknown key", function() return {nonsense = 1} end}, {"a table as a key", function() return {[{}] = 1} end},
  {"a table in itself", function() local t = {} t[1] = t return t end}, {"a hostile table", hostile},
  {"a list of tensors", function() return {made(2), made(2)} end}, {"a function", function() return function() end end},
  {"a coroutine", function() return coroutine.create(error) end}, {"a file", function() return io_file end},
  {"a released tensor", function() return released end}, {"a scalar tensor", function() return made() end},
  {"an empty tensor", function() return made(0) end}, {"a rank 5 tensor", function() return made(2, 1, 2, 1, 2) end},
  {"a big tensor", function() return made(7, 11, 3) end},
  {"an i64 tensor", function() return core.tensor({{0, 9}, {-1, 1 << 40}}, {dtype = "i64"}) end},
  {"a u8 tensor", function() return core.tensor({255, 0}, {dtype = "u8"}) end},
  {"an f64 tensor of NaN", function() return core.tensor({0 / 0, 1 / 0}, {dtype = "f64"}) end},
}

return bad_values
