-- SPDX-License-Identifier: MIT
--- marea.onnx.save: a network as a file of ONNX, for programs that run such files.
---
---   assert(marea.onnx.save(net, "model.onnx", {image = x}, {results = {"scores"}, free = {image = {1}}}))
---
--- The network is run once, in evaluation, with the tensors that are given, and the operators that it calls are
--- written, with its weights under the names that net:state() has. So the file holds what this run did: what Lua
--- decided by looking at shapes or elements, how often a loop went, is fixed in it. Tensors have Marea's layout in the
--- file, channels last, and positions (words, classes) count as in Marea; inside, convolutions have what ONNX wants.
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local unwind = require "marea.internal.unwind"

local WHAT = "onnx.save"

-- ---- what goes in ----

--- The names of the inputs in the order of the network's arguments.
local function names_of(inputs, order)
  local names = {}
  if not check.is_plain(inputs) then check.fail(WHAT, "inputs", "a table of tensors by name", inputs) end
  for name, t in pairs(inputs) do
    if type(name) ~= "string" then check.fail(WHAT, "inputs", "names as keys", name) end
    check.tensor(WHAT, name, t)
    names[#names + 1] = name
  end
  table.sort(names, core.before)
  if #names == 0 then check.raise("%s: argument 'inputs': expected an input at least", WHAT) end
  if not order then
    if #names > 1 then
      check.raise("%s: option 'order': several inputs need the order of the network's arguments, as {%s}", WHAT,
        check.list(names))
    end
    return names
  end
  check.items(WHAT, "order", order, "a string", 1)
  for _, name in ipairs(order) do
    if inputs[name] == nil then
      check.raise("%s: option 'order': there is no input '%s'%s", WHAT, tostring(name),
        check.did_you_mean(tostring(name), names))
    end
  end
  if #order ~= #names then check.raise("%s: option 'order': expected %d names, got %d", WHAT, #names, #order) end
  return order
end

local function tensors_of(inputs, names)
  local list = {}
  for i, name in ipairs(names) do list[i] = inputs[name] end
  return list
end

-- ---- free sizes ----

--- {1} and {batch = 1} alike: what a free dimension is called -> the dimension. Those of one name have one size.
local function symbols_of(free, inputs)
  local symbols, by_input = {}, {}
  for name, dims in pairs(free) do
    if inputs[name] == nil then check.raise("%s: option 'free': there is no input '%s'", WHAT, tostring(name)) end
    if type(dims) ~= "table" then check.fail(WHAT, "free", "a list of dimensions of each input", dims) end
    by_input[name] = {}
    for symbol, dim in pairs(dims) do
      check.integer(WHAT, "free", dim, 1)
      if dim > inputs[name].rank then
        check.raise("%s: option 'free': input '%s' has no dimension %d", WHAT, name, dim)
      end
      symbol = type(symbol) == "string" and symbol or tostring(dim)
      if not symbols[symbol] then
        symbols[symbol] = true
        symbols[#symbols + 1] = symbol
      end
      by_input[name][dim] = symbol
    end
  end
  table.sort(symbols, core.before)
  for i, symbol in ipairs(symbols) do symbols[symbol] = i end
  return symbols, by_input
end

--- x with `more` elements of a dimension, taken from its beginning.
local function longer(x, dim, more)
  local n, index = x:size(dim), {}
  for i = 0, n + more - 1 do index[i + 1] = i % n + 1 end
  return x:index_select(core.tensor(index, {dtype = "i64"}), {dim = dim})
end

local STEP <const> = 32 -- keeps what layers that halve images want of a size

--- The inputs with other sizes of the free dimensions, so that the two runs differ in what follows from them.
local function with_other_sizes(inputs, free, step)
  local symbols, by_input = symbols_of(free, inputs)
  local others = {}
  for name, x in pairs(inputs) do
    for dim, symbol in pairs(by_input[name] or {}) do
      x = longer(x, dim, symbols[symbol] * (dim == 1 and 1 or step))
    end
    others[name] = x
  end
  return others
end

-- ---- the run ----

--- The tensors of a list of results, tables in the order of their keys.
local function collect(value, list)
  if core.is_tensor(value) then list[#list + 1] = value
  elseif module.is_plain(value) then
    for _, key in ipairs(module.public_keys(value)) do collect(value[key], list) end
  end
  return list
end

--- Puts all modules under `net` into evaluation until the scope ends.
local function in_evaluation(net)
  local before = {}
  if type(net) == "table" then
    for _, entry in ipairs(module.modules(net)) do before[entry.module] = entry.module.training end
  end
  for m in pairs(before) do m.training = false end
  return unwind.finally(function()
    for m, training in pairs(before) do m.training = training end
  end)
end

local function run(net, list)
  return core.no_grad(function()
    local _ <close> = unwind.finally(core.trace_drop)
    core.trace_start(list)
    local results = collect({net(table.unpack(list))}, {})
    if #results == 0 then check.raise("%s: the network gave no tensor", WHAT) end
    return core.trace_stop(results), #results
  end)
end

--- Once more with other sizes: much larger ones, or a little larger where the network does not take these.
local function run_with_other_sizes(net, inputs, names, free)
  local ok, trace = pcall(function()
    return (run(net, tensors_of(with_other_sizes(inputs, free, STEP), names)))
  end)
  if ok then return trace end
  return (run(net, tensors_of(with_other_sizes(inputs, free, 1), names)))
end

local function result_names(given, n)
  local names = {}
  for i = 1, n do names[i] = i == 1 and "result" or "result_" .. i end
  if not given then return names end
  check.items(WHAT, "results", given, "a string", 1)
  if #given ~= n then
    check.raise("%s: option 'results': the network gives %d tensors, got %d names", WHAT, n, #given)
  end
  return given
end

--- marea.onnx.save
return function(net, path, inputs, options)
  local o = check.options(WHAT, options, {"order", "results", "free", "opset", "weights"})
  check.string(WHAT, "path", path)
  if type(net) ~= "function" and not module.is_module(net) then
    check.fail(WHAT, "net", "a module or a function", net)
  end
  local named = o.weights or net
  local names = names_of(inputs, o.order)
  local _ <close> = in_evaluation(type(named) == "table" and named or nil)
  local trace, n = run(net, tensors_of(inputs, names))
  local results, other = result_names(o.results, n), nil
  if o.free then other = run_with_other_sizes(net, inputs, names, o.free) end
  local weights, tensors = {}, {}
  if type(named) == "table" then
    for i, entry in ipairs(module.tensors(named)) do weights[i], tensors[i] = entry.name, entry.tensor end
  end
  return core.onnx_save(trace, path,
    {inputs = names, results = results, weights = weights, tensors = tensors, opset = o.opset or 17}, other)
end
