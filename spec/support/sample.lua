-- SPDX-License-Identifier: MIT
--- The generator `g` behind the samples of the operators: small random shapes and tensors, the same for the same
--- seed. An operator's `sample` is the Lua source of a function of `g` that returns its inputs and a table of
--- attributes. Values are multiples of 1/1024, hence exact in f32 and f64 alike.
local core = require "marea.core"
local ops = core.ops

local sample = {}

local GRAIN = 1024
local DISTANCE = 0.05 -- of a value from the points it has to keep away from

local function count(shape)
  local n = 1
  for i = 1, #shape do n = n * shape[i] end
  return n
end

--- A generator. Its functions are called with a dot: g.int(1, 5).
---@param seed integer
---@param options? {dtype: string?, contiguous: boolean?, large: integer?, empty: boolean?} dtype of real tensors
---(f64); contiguous: no views of bigger tensors; large: shapes of about so many elements; empty: shapes with a 0
function sample.generator(seed, options)
  local o = options or {}
  local g = {dtype = o.dtype or "f64"}
  local large = o.large
  local state = (seed + 1) * 0x9E3779B97F4A7C15

  local function word() -- splitmix64
    state = state + 0x9E3779B97F4A7C15
    local z = state
    z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ~ (z >> 27)) * 0x94D049BB133111EB
    return (z ~ (z >> 31)) >> 1
  end

  --- An integer in lo..hi.
  function g.int(lo, hi)
    if hi < lo then error("g.int: empty range", 2) end
    return lo + word() % (hi - lo + 1)
  end

  --- A multiple of 1/1024 in [lo, hi].
  function g.real(lo, hi)
    return g.int(math.ceil(lo * GRAIN), math.floor(hi * GRAIN)) / GRAIN
  end

  function g.bool()
    return word() & 1 == 1
  end

  function g.pick(list)
    return list[g.int(1, #list)]
  end

  --- A shape of min_rank..max_rank dims, each in lo..hi (0..5).
  function g.shape(min_rank, max_rank, lo, hi)
    local shape = {}
    for i = 1, g.int(min_rank, max_rank) do shape[i] = g.int(lo or 0, hi or 5) end
    if large and #shape > 0 then
      local wide = g.int(1, #shape)
      shape[wide] = 1
      shape[wide] = math.max(large // math.max(count(shape), 1), lo or 0)
      large = nil -- one of them: the product of two is too much
    elseif o.empty and #shape > 0 then
      if lo == nil or lo == 0 then shape[g.int(1, #shape)] = 0 end
    elseif (lo or 0) == 0 and #shape > 0 and g.int(1, 8) > 1 then
      for i = 1, #shape do -- an empty tensor is worth one case in a few, not most of them
        if shape[i] == 0 then shape[i] = g.int(1, hi or 5) end
      end
    end
    return shape
  end

  local function contiguous(values, shape, dtype)
    local t
    if #values == 0 then
      t = ops.full({shape = shape, value = 0, dtype = dtype})
    else
      t = core.tensor(values, {dtype = dtype})
      if #shape ~= 1 then t = t:reshape(shape) end
    end
    return t
  end

  --- The tensor itself, or the same values as a view of another layout: dims permuted, or a stepped or shifted cut of
  --- a bigger tensor.
  local function tensor_of(shape, value, dtype)
    local rank = #shape
    local kind = o.contiguous and 0 or g.int(0, 5)
    local stored, permutation, cut = shape, nil, nil
    if rank >= 2 and kind == 1 then
      local order = {}
      for i = 1, rank do order[i] = i end
      for i = rank, 2, -1 do
        local j = g.int(1, i)
        order[i], order[j] = order[j], order[i]
      end
      stored, permutation = {}, {}
      for i = 1, rank do
        stored[i] = shape[order[i]]
        permutation[order[i]] = i
      end
    elseif rank >= 1 and kind == 2 then
      local dim, step, start = g.int(1, rank), g.int(1, 3), g.int(1, 3)
      stored = {}
      for i = 1, rank do stored[i] = shape[i] end
      if shape[dim] > 0 then
        cut = {dim = dim, start = start, stop = start + (shape[dim] - 1) * step, step = step}
        stored[dim] = cut.stop + g.int(0, 2)
      end
    end
    local values = {}
    for i = 1, count(stored) do values[i] = value() end
    local t = contiguous(values, stored, dtype)
    if permutation then t = t:permute(permutation) end
    if cut then t = t:slice(cut) end
    return t
  end

  --- A real tensor with values in [lo, hi] (-2..2) that keep away from the `away` points.
  ---@param shape integer[]
  ---@param options? {lo: number?, hi: number?, away: number[]?, dtype: string?}
  function g.tensor(shape, t_options)
    local t = t_options or {}
    local lo, hi, away = t.lo or -2, t.hi or 2, t.away
    local dtype = t.dtype or g.dtype
    if dtype == "i64" or dtype == "u8" then
      lo = math.ceil(dtype == "u8" and math.max(lo, 0) or lo)
      return tensor_of(shape, function() return g.int(lo, math.floor(hi)) end, dtype)
    end
    local function value()
      local x = g.real(lo, hi)
      if not away then return x end
      for _ = 1, 100 do
        local near = false
        for i = 1, #away do near = near or math.abs(x - away[i]) < DISTANCE end
        if not near then return x end
        x = g.real(lo, hi)
      end
      error("g.tensor: no value in range keeps away from the points")
    end
    return tensor_of(shape, value, dtype)
  end

  --- A shape that broadcasts to `shape`: leading dims left out, others set to 1 at random.
  function g.broadcast(shape)
    local b = {}
    for i = g.bool() and 1 or g.int(1, #shape + 1), #shape do b[#b + 1] = g.int(1, 3) == 1 and 1 or shape[i] end
    return b
  end

  --- i64 tensor of indices or labels in 1..n.
  function g.index(shape, n)
    return tensor_of(shape, function() return g.int(1, n) end, "i64")
  end

  --- u8 tensor of zeros and ones.
  function g.mask(shape)
    return tensor_of(shape, function() return g.int(0, 1) end, "u8")
  end

  --- A tensor without ties: values are at least 1/16 apart, or 1 for integers.
  function g.distinct(shape)
    local n = count(shape)
    local rank = {}
    for i = 1, n do rank[i] = i end
    for i = n, 2, -1 do
      local j = g.int(1, i)
      rank[i], rank[j] = rank[j], rank[i]
    end
    local values = {}
    local whole = g.dtype == "i64" or g.dtype == "u8"
    for i = 1, n do values[i] = whole and rank[i] or (rank[i] - n // 2) / 16 end
    local t = contiguous(values, shape, g.dtype)
    if #shape < 2 or o.contiguous or g.bool() then return t end
    return t:transpose(1, 2):contiguous():transpose(1, 2) -- the same values, stored the other way round
  end

  return g
end

local functions = {}

--- Inputs and attributes of one random case of an operator: two tables. An optional input may be missing from the
--- first; a variadic operator's first is its list.
---@param info table core.op_info(name)
---@param g table generator
function sample.draw(info, g)
  local draw = functions[info.name]
  if not draw then
    local text = info.sample or error("operator " .. info.name .. " has no sample")
    draw = assert(load("return function (g) " .. text .. " end", "=sample of " .. info.name, "t"))()
    functions[info.name] = draw
  end
  local inputs, attrs = draw(g)
  if info.mutates then -- what is changed in place has to be contiguous
    for i, t in pairs(inputs) do inputs[i] = t:contiguous() end
  end
  return inputs, attrs or {}
end

local function is_variadic(info)
  return info.inputs[1] ~= nil and info.inputs[1].variadic
end

--- Places in `inputs` that hold tensors.
function sample.places(info, inputs)
  local places = {}
  for i = 1, is_variadic(info) and #inputs or #info.inputs do
    if core.is_tensor(inputs[i]) then places[#places + 1] = i end
  end
  return places
end

--- Calls an operator with a sample's inputs and attributes; returns all results as a list.
function sample.call(info, inputs, attrs)
  local op = ops[info.name]
  if is_variadic(info) then return {op(inputs, attrs)} end
  local n = #info.inputs
  while n > 0 and inputs[n] == nil do n = n - 1 end
  local args = {table.unpack(inputs, 1, n)}
  args[n + 1] = attrs
  return {op(table.unpack(args, 1, n + 1))}
end

--- The operator's first result that has a history, with gradients for the inputs at `wanted` only.
function sample.result(info, inputs, attrs, wanted)
  local given, leaves = {}, {}
  for i, t in pairs(inputs) do given[i] = t end
  for _, i in ipairs(wanted) do
    given[i] = inputs[i]:detach():requires_grad_()
    leaves[#leaves + 1] = given[i]
  end
  core.seed(11) -- random operators draw the same numbers
  for _, y in ipairs(sample.call(info, given, attrs)) do
    if y.requires_grad then return y, leaves end
  end
end

--- A sum of the elements, each with a weight of its own.
function sample.weighed(y)
  local n = 1
  for _, size in ipairs(y.shape) do n = n * size end
  return (y:reshape(n) * ops.linspace{start = 0.5, stop = 1.5, n = n, dtype = y.dtype}):sum()
end

return sample
