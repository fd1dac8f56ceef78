-- SPDX-License-Identifier: MIT
--- Examples of operators as source text. They are made from the `sample` in an operator's descriptor, the same that the
--- tests draw cases from: here its generator writes down how a tensor is made instead of making it.
local core = require "marea.core"
local format = core.format

local example = {}

local TRIES = 40 -- seeds, of which the one with the shortest text is taken

-- ---- source text ----

local written = setmetatable({}, {__mode = "k"}) -- tensor -> the text that made it

local literal

local function tensor_literal(t)
  return written[t] or ('marea.tensor(%s, {dtype = "%s"})'):format(literal(t:totable()), t.dtype)
end

function literal(value)
  if core.is_tensor(value) then return tensor_literal(value) end
  if type(value) == "string" then return ('"%s"'):format(value) end
  if type(value) ~= "table" then return math.type(value) == "float" and format("%.6g", value) or tostring(value) end
  if rawget(value, "code") then return value.code end
  local parts = {}
  for i, item in ipairs(value) do parts[i] = literal(item) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local Expression = {} -- source text of a tensor, with which samples may calculate a little

local function expression(...)
  return setmetatable({code = format(...)}, Expression)
end

function Expression.__index(a, method)
  return function(_, ...) return expression("%s:%s(%s)", literal(a), method, literal({...}):sub(2, -2)) end
end

for event, sign in pairs{__add = "+", __sub = "-", __mul = "*", __div = "/"} do
  Expression[event] = function(a, b) return expression("(%s %s %s)", literal(a), sign, literal(b)) end
end

-- ---- the generator ----

local Generator = {}

function Generator.int(g, low, high)
  if low <= 0 and high > 0 then low = 1 end
  return low + g.word() % (math.min(high, low + 3) - low + 1)
end

--- One or two digits where the range has room for them.
function Generator.real(g, low, high)
  local middle = low + (high - low) * g.pick{0.25, 0.5, 0.75}
  for _, grain in ipairs{1, 0.5, 0.1, 0.01} do
    local x = math.floor(middle / grain + 0.5) * grain
    if x ~= 0 and x > low and x < high then return tonumber(format("%.6g", x)) end
  end
  return middle
end

function Generator.bool(g) return g.word() & 1 == 1 end

function Generator.pick(g, list) return list[g.word() % #list + 1] end

function Generator.shape(_, least, most, low, high)
  local shape = {}
  for i = 1, math.max(least, math.min(2, most)) do shape[i] = math.max(low or 0, math.min(i + 1, high or 5)) end
  return shape
end

--- The shape without its first dimension.
function Generator.broadcast(_, shape)
  return table.move(shape, math.min(2, #shape + 1), #shape, 1, {})
end

function Generator.tensor(_, shape, options)
  local t = options or {}
  if t.dtype == "i64" or t.dtype == "u8" then
    return expression("marea.randint(%s, %d, %d)%s", literal(shape), math.max(math.ceil(t.lo or 0), 0), t.hi or 9,
      t.dtype == "u8" and ':cast("u8")' or "")
  end
  if t.lo or t.hi then return expression("marea.uniform(%s, %g, %g)", literal(shape), t.lo or -2, t.hi or 2) end
  return expression(#shape > 0 and "marea.normal%s" or "marea.normal(%s)", literal(shape))
end

function Generator.distinct(g, shape) return Generator.tensor(g, shape) end

function Generator.index(_, shape, n) return expression("marea.randint(%s, 1, %d)", literal(shape), n) end

function Generator.mask(_, shape) return expression('marea.randint(%s, 0, 1):cast("u8")', literal(shape)) end

local function generator(seed, solid)
  local state = seed
  local g = {dtype = "f32"}
  function g.word() -- the high bits of a linear congruential generator (Knuth)
    state = state * 6364136223846793005 + 1442695040888963407
    return state >> 33
  end
  for name, f in pairs(Generator) do
    g[name] = function(...)
      local result = f(g, ...)
      if not solid or getmetatable(result) ~= Expression then return result end
      local t = assert(load("local marea = ... return " .. result.code))(require "marea")
      written[t] = result.code
      return t
    end
  end
  return g
end

--- A case of the sample as text; where it needs tensors that are there, the tensors.
local function drawn(draw, seed)
  local ok, inputs, attrs = pcall(draw, generator(seed))
  if not ok then inputs, attrs = draw(generator(seed, true)) end
  return inputs, attrs or {}
end

-- ---- a call ----

--- A pair of equal numbers is written as one of them.
local function shortest(spec, value)
  if spec.kind == "pair" and type(value) == "table" and value[1] == value[2] then return value[1] end
  return value
end

--- {name = value} in the order of the descriptor, initial values left out; "" when nothing is left.
local function named(info, attrs)
  local parts = {}
  for _, spec in ipairs(info.attrs) do
    local value = shortest(spec, attrs[spec.name])
    local empty = type(value) == "table" and #value == 0 and spec.kind ~= "sizes"
    if value ~= nil and value ~= spec.initial and not empty then
      parts[#parts + 1] = ("%s = %s"):format(spec.name, literal(value))
    end
  end
  return #parts > 0 and "{" .. table.concat(parts, ", ") .. "}" or ""
end

--- Names for the inputs, as the operator's own; a list of them for a variadic one.
local function lines_of(info, inputs, attrs)
  local lines, arguments = {}, {}
  if info.inputs[1] and info.inputs[1].variadic then
    local name = info.inputs[1].name
    lines[1] = ("%s = %s"):format(name, literal(inputs))
    arguments[1] = name
  else
    local last = 0
    for i = 1, #info.inputs do
      local name = info.inputs[i].name
      if inputs[i] ~= nil then last, lines[#lines + 1] = i, ("%s = %s"):format(name, literal(inputs[i])) end
      arguments[i] = inputs[i] ~= nil and name or "nil"
    end
    for i = #arguments, last + 1, -1 do arguments[i] = nil end
  end
  local options = named(info, attrs)
  if options ~= "" then arguments[#arguments + 1] = options end
  local call = #arguments == 1 and options ~= "" and "marea.%s%s" or "marea.%s(%s)"
  lines[#lines + 1] = call:format(info.name, table.concat(arguments, ", "))
  return lines
end

local function globals()
  local env = {}
  for name, value in pairs(package.loaded._G) do env[name] = value end
  env._G = env
  return env
end

--- Runs the lines of an example one by one, with globals of their own. Returns what the last one gives.
---@param lines string[]
---@return boolean ok, any ... values of the last line, or the message
function example.run(lines)
  local session = require "marea.repl".new(globals())
  local text, results = nil, nil
  for i, line in ipairs(lines) do
    text = text and text .. "\n" .. line or line
    if i == #lines or session:is_complete(text) ~= "incomplete" then
      local f, what = session:compile(text)
      if not f then return false, what end
      results = table.pack(pcall(function() return select(1 + what, f()) end))
      if not results[1] then break end
      text = nil
    end
  end
  return table.unpack(results, 1, results.n)
end

local function works(lines)
  local results = table.pack(example.run(lines))
  if not results[1] then return false end
  for i = 2, results.n do
    if core.is_tensor(results[i]) and results[i]:numel() == 0 then return false end
  end
  return true
end

--- Lines of Lua that call the operator, the same every time; the random state stays as it is. nil: none was found.
---@param info table core.op_info(name)
---@return string[]|nil
function example.of(info)
  local draw = assert(load("return function (g) " .. info.sample .. " end", "=sample of " .. info.name, "t"))()
  local seed, counter = core.random_state()
  local best, least
  for try = 1, TRIES do
    local lines = lines_of(info, drawn(draw, try))
    local length = #table.concat(lines)
    if #info.attrs > 0 and not lines[#lines]:find "{" then length = length + 100 end -- rather one that names arguments
    if (not least or length < least) and works(lines) then best, least = lines, length end
  end
  core.set_random_state(seed, counter)
  return best
end

return example
