-- SPDX-License-Identifier: MIT
--- What random programs call, in a Lua state of the host or in a sandbox, where spec/support/sample.lua comes as text
--- and of marea only the public functions are there. Needs `marea`; `sample` when it is loaded already.
local marea, sample, begin = ...

local tools = {messages = {}}

--- Runs f; an error's message is kept.
function tools.try(f)
  if begin then begin() end
  local ok, message = pcall(f)
  if not ok then tools.messages[#tools.messages + 1] = tostring(message) end
end

local infos = {}

local function info_of(name)
  infos[name] = infos[name] or marea.op_info(name)
  return infos[name]
end

--- The operator with inputs and attributes of a sample, those given in the place of its own. Its first result.
function tools.sampled(name, seed, inputs, attrs)
  local info = info_of(name)
  local own, own_attrs = sample.draw(info, sample.generator(seed, {dtype = seed % 3 == 0 and "f64" or "f32"}))
  for i, t in pairs(inputs) do own[i] = t end
  for key, value in pairs(attrs) do own_attrs[key] = value end
  if info.inputs[1] and info.inputs[1].variadic then return marea[name](own, own_attrs) end
  local n = #info.inputs
  while n > 0 and own[n] == nil do n = n - 1 end
  local arguments = {table.unpack(own, 1, n)}
  arguments[n + 1] = own_attrs
  return (marea[name](table.unpack(arguments, 1, n + 1)))
end

--- A new tensor of t's shape.
function tools.like(t)
  return marea.normal{shape = marea.is_tensor(t) and t.shape or {2, 3}}
end

--- A leaf with t's values that learns.
function tools.learning(t) return t:detach():cast("f32"):requires_grad_() end

--- A tensor that was released.
function tools.gone()
  local t = marea.zeros(2, 2)
  t:release()
  return t
end

--- A table whose metamethods fail.
function tools.hostile()
  local function fail() error("a metamethod of the script's", 0) end
  return setmetatable({1, 2}, {__index = fail, __newindex = fail, __len = fail, __call = fail, __pairs = fail,
    __eq = fail, __tostring = fail, __name = 42, __add = fail, __concat = fail, __lt = fail})
end

function tools.copy(list)
  local copy = {}
  for key, value in pairs(list) do copy[key] = value end
  return copy
end

local function text_of(x)
  if type(x) == "number" then return ("%s %q"):format(math.type(x), x) end
  if type(x) ~= "table" then return tostring(x) end
  local parts = {}
  for i, item in ipairs(x) do parts[i] = text_of(item) end
  return "{" .. table.concat(parts, " ") .. "}"
end

--- The bits of all tensors and numbers of a list, as a text; other values by their type.
function tools.values(v)
  local parts = {}
  for i = 1, 8 do
    local x = v[i]
    local ok, text = pcall(function()
      if not marea.is_tensor(x) then return type(x) == "number" and text_of(x) or type(x) end
      if x:is_released() then return "released" end
      return x.dtype .. text_of(x.shape) .. text_of(x:totable())
    end)
    parts[i] = ok and text or "none"
  end
  return table.concat(parts, "\n")
end

return tools
