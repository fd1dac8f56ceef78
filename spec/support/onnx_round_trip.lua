-- SPDX-License-Identifier: MIT
--- A network saved as ONNX and loaded again; the file, its inputs and results stay for spec/support/run_onnx.py.
local core = require "marea.core"
local marea = require "marea"
local module = require "marea.nn.module"
local folder = require "spec.support.folder"
local sample = require "spec.support.sample"

local round_trip = {}

--- The largest difference of two tensors, as a part of 1 + |expected|; nan agrees with nan.
function round_trip.difference(a, b)
  if a.dtype ~= b.dtype or table.concat(a.shape, ",") ~= table.concat(b.shape, ",") then
    return math.huge, ("%s (%s), expected %s (%s)"):format(a.dtype, table.concat(a.shape, ", "), b.dtype,
      table.concat(b.shape, ", "))
  end
  if a:numel() == 0 then return 0 end
  a, b = a:to "f64", b:to "f64"
  local same = ((a - b):abs() / (b:abs() + 1)):masked_fill(a:eq(b):maximum(a:isnan() * b:isnan()), 0)
  return same:max():item()
end

local function keep(path, kind, name, t)
  assert(marea.save_npy(t:contiguous(), ("%s.%s.%s.npy"):format(path, kind, name)))
end

--- The tensors among some results, those of tables in the order of their keys.
local function collect(value, list)
  if core.is_tensor(value) then list[#list + 1] = value
  elseif module.is_plain(value) then
    for _, key in ipairs(module.public_keys(value)) do collect(value[key], list) end
  end
  return list
end

--- Keeps inputs {name, tensor} and what f gives for them, under the names of the file's results.
local function expect(f, path, inputs, options)
  local list = {}
  for i, input in ipairs(inputs) do
    list[i] = input[2]
    keep(path, "in", input[1], input[2])
  end
  local expected = marea.no_grad(function() return collect({f(table.unpack(list))}, {}) end)
  for i, t in ipairs(expected) do
    keep(path, "out", options.results and options.results[i] or i == 1 and "result" or "result_" .. i, t)
  end
  return expected
end

--- What the file gives for the inputs; or why it cannot be loaded or run.
local function load_and_run(path, inputs)
  local net, problem = marea.onnx.load(path .. ".onnx")
  if not net then return problem end
  local named = {}
  for _, input in ipairs(inputs) do named[input[1]] = input[2] end
  local ok, results = pcall(function()
    return marea.no_grad(function() return {net(named)} end)
  end)
  return ok and results or tostring(results)
end

--- Saves f under path .. ".onnx", with inputs {name, tensor} in the order of its arguments; f's results, and those of
--- the file as marea.onnx.load has it.
---@param options? table of marea.onnx.save; `also`: inputs of other sizes, whose results come behind
---@return userdata[]? expected nil with a message, when it cannot be saved
---@return userdata[]|string results, or why it cannot be loaded
function round_trip.run(f, path, inputs, options)
  local given, named = {order = {}}, {}
  options = options or {}
  for key, value in pairs(options) do given[key] = value end
  for i, input in ipairs(inputs) do given.order[i], named[input[1]] = input[1], input[2] end
  given.also = nil
  local owner = options.weights or f
  if type(owner) == "table" then owner:evaluate() end
  local done, message = marea.onnx.save(f, path .. ".onnx", named, given)
  if not done then return nil, message end
  local expected = expect(f, path, inputs, options)
  local results = load_and_run(path, inputs)
  if options.also and type(results) == "table" then
    local other = path .. "-also"
    assert(os.execute(("cp %s.onnx %s.onnx"):format(path, other)))
    table.move(expect(f, other, options.also, options), 1, #expected, #expected + 1, expected)
    local more = load_and_run(other, options.also)
    if type(more) == "string" then return expected, more end
    table.move(more, 1, #more, #results + 1, results)
  end
  return expected, results
end

--- t by way of a window of one element, if it is an image or a sequence: in the file it then has channels first.
local function turned(t)
  if t.dtype ~= "f32" or t:numel() == 0 then return t end
  if t.rank == 4 then return t:max_pool2d{kernel = 1} end
  return t.rank == 3 and t:max_pool1d{kernel = 1} or t
end

--- A case of an operator from the registry's sample: a function of its first `variable` tensors, and these; how many
--- tensors there are, and whether one has no elements.
---@param turn? boolean images are there with channels first in the file
function round_trip.case(info, seed, variable, turn)
  local g = sample.generator(seed, {dtype = "f32", contiguous = true})
  local inputs, attrs = sample.draw(info, g)
  local places, given, empty = sample.places(info, inputs), {}, false
  for k, place in ipairs(places) do
    empty = empty or inputs[place]:numel() == 0
    if k <= variable then given[k] = {("x%d"):format(k), inputs[place]:clone()} end
  end
  local function f(...)
    local all = {}
    for i, t in pairs(inputs) do all[i] = t end
    for k = 1, #given do
      local t = select(k, ...)
      all[places[k]] = turn and turned(t) or t
    end
    return table.unpack(sample.call(info, all, attrs))
  end
  return f, given, #places, empty
end

--- A Python with ONNX Runtime and onnx; nil when there is none.
local function python()
  local candidates = {os.getenv "ONNX_PYTHON" or false, "build/peers/bin/python", "build/bench/venv/bin/python"}
  for _, path in ipairs(candidates) do
    if path and select(2, folder.run(path .. " -c 'import onnx, onnxruntime'")) then return path end
  end
end

round_trip.runtime = python()

--- Asserts that ONNX's checker and ONNX Runtime agree with what lies in a folder; returns the number of files.
function round_trip.in_runtime(near, path)
  local command, count = "(%s spec/support/run_onnx.py %s 2>/dev/null)", 0
  local text = folder.must(command:format(round_trip.runtime, path))
  for line in text:gmatch "[^\n]+" do
    local difference = tonumber(line:match ": ([%d.e+-]+)$")
    if not (difference and difference < near) then error(line, 2) end
    count = count + 1
  end
  return count
end

--- The operators of the registry that have inputs, and change none.
function round_trip.operators()
  local list = {}
  for _, name in ipairs(core.op_names()) do
    local info = core.op_info(name)
    if #info.inputs > 0 and not info.mutates and not name:find "_grad" and not name:find "_backward" then
      list[#list + 1] = info
    end
  end
  return list
end

return round_trip
