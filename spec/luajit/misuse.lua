-- Wrong arguments of marea_ffi.lua: each is an error with a sentence, at the caller's line, and never a crash.
package.path = "bindings/luajit/?.lua;" .. package.path
local ffi = require "ffi"
local marea = require "marea_ffi"
local op = marea.op

local x, net = marea.tensor{{1, 2}, {3, 4}}, marea.load_onnx(arg[1])
local freed, freed_net, data = marea.tensor{1}, marea.load_onnx(arg[1]), ffi.new "float[6]"
freed:free()
freed_net:free()
local cycle = {}
cycle[1] = cycle

local function expect(message, f, ...)
  local ok, text = pcall(f, ...)
  assert(not ok, message .. ": no error")
  assert(type(text) == "string" and text:find(message, 1, true), message .. ":\n  " .. tostring(text))
end

-- Tensors of tables.
expect("tensor: argument 'values': expected a table of numbers or a number, got nothing", marea.tensor)
expect("tensor: argument 'values': expected a table of numbers or a number, got a tensor", marea.tensor, x)
expect("tensor: argument 'values': expected tables of one length, got 1 elements beside 2", marea.tensor, {{1, 2}, {3}})
expect("tensor: argument 'values': expected a table of 2, got 3", marea.tensor, {{1, 2}, 3})
expect("tensor: argument 'values': expected numbers, got 'a'", marea.tensor, {1, "a"})
expect("tensor: argument 'values': expected numbers, got a table", marea.tensor, {1, {2}})
expect("expected at most 8 levels of tables, got more", marea.tensor, cycle)
expect("tensor: argument 'dtype': expected f32, f64, i64, u8, bf16 or f16, got 'f3'", marea.tensor, {1}, "f3")
expect("zeros: argument 'shape': expected a table of sizes, got nothing", marea.zeros)
expect("zeros: argument 'shape': expected a table of sizes, got 3", marea.zeros, 3)
expect("zeros: argument 'shape[1]': expected an integer, got 0.5", marea.zeros, {0.5})
expect("zeros: argument 'shape[1]': expected an integer, got inf", marea.zeros, {math.huge})
expect("zeros: shape (-1): size -1 is outside 0..2147483647", marea.zeros, {-1})
expect("zeros: argument 'shape': expected at most 8 sizes, got 9", marea.zeros, {1, 1, 1, 1, 1, 1, 1, 1, 1})
expect("zeros: ", marea.zeros, {2 ^ 31 - 1, 2 ^ 31 - 1, 2 ^ 31 - 1})

-- The host's memory.
expect("from_memory: argument 'data': expected an array or a pointer of C, got nothing", marea.from_memory)
expect("from_memory: argument 'data': expected an array or a pointer of C, got 'abcd'", marea.from_memory, "abcd", {1})
expect("expected an array or a pointer of float, double, int64_t or uint8_t, got ctype<int [3]>", marea.from_memory,
  ffi.new "int[3]", {3})
expect("got ctype<struct ", marea.from_memory, ffi.new "struct { float v[3]; }", {3})
expect("got ctype<float **>", marea.from_memory, ffi.new("float *[1]") + 0, {1})
expect("got ctype<const float *>", marea.from_memory, ffi.cast("const float *", data), {1})
expect("got ctype<void *>", marea.from_memory, ffi.cast("void *", data), {1})
expect("from_memory: argument 'data': expected an array or a pointer of double for f64, got ctype<float [6]>",
  marea.from_memory, data, {3}, "f64")
expect("from_memory: argument 'data': expected 28 bytes for the shape, got 24", marea.from_memory, data, {7})
expect("expected 36893488147419103232 bytes", marea.from_memory, data, {2 ^ 31, 2 ^ 32})
expect("from_memory: argument 'shape': expected a table of sizes, got nothing", marea.from_memory, data)
expect("from_memory: argument 'data' is NULL", marea.from_memory, ffi.cast("float *", nil), {2})
expect("expected an address that f32 divides by 4", marea.from_memory,
  ffi.cast("float *", ffi.cast("char *", data) + 1), {2})

-- Operators.
expect("relu: argument 'x': expected a tensor, got nothing", op.relu)
expect("relu: argument 'x': expected a tensor, got nothing", op.relu, nil)
expect("relu: input 1: expected a tensor, got ctype<float [6]>", op.relu, data)
expect("relu: input 1: expected a tensor, got ctype<struct marea_tensor *>", op.relu, x.handle)
expect("relu: input 1: expected a tensor, got one that was freed", op.relu, freed)
expect("relu: expected at most 1 inputs, got 2", op.relu, x, x)
expect("relu: unknown argument 'steepness'", op.relu, x, {steepness = 1})
expect("add: input 2: expected a tensor, got 2", op.add, x, 2)
expect("matmul: f32 (2, 2) x f32 (3): inner sizes 2 and 3 differ", op.matmul, x, marea.zeros{3})
expect("there is no operator 'no_such'", op.no_such, x)
expect("op: argument 'name': expected a text without zero bytes, got 3", function() return op[3] end)
expect("sum: argument 'dims': dimension 5 is out of range", op.sum, x, {dims = 5})
expect("sum: argument 'dims[1]': expected an integer, got 'a'", op.sum, x, {dims = {"a"}})
expect("sum: argument 'dims': expected", op.sum, x, {dims = {0, 0, 0, 0, 0, 0, 0, 0, 0}})
expect("sum: argument 'dims': expected a number, a text, a list or a boolean, got a function", op.sum, x,
  {dims = print})
expect("sum: argument 'attributes': expected names with values, got 2", op.sum, x, {[2] = 1})
expect("reshape: ", op.reshape, x)
expect("reshape: ", op.reshape, x, {shape = {3}})
expect("expected a text without zero bytes", op.linear, x, x, {activation = "relu\0"})
expect("concat: expected at most 8 arguments one by one, got more", op.concat, x, x, x, x, x, x, x, x, x)
expect("concat: input 2: expected a tensor, got a boolean", op.concat, {x, false}, {dim = 0})
local crowd = {}
for i = 1, 20 do crowd["a" .. i] = i end
expect("sum: ", op.sum, x, crowd)

-- Methods.
for _, method in ipairs{"shape", "dtype", "size", "data", "bytes", "totable", "item", "free"} do
  expect("expected a tensor, got nothing", x[method])
  expect("expected a tensor, got one that was freed", x[method], freed)
  expect("expected a tensor, got a table", x[method], {})
end
expect("item: expected a tensor of one element, got 4", x.item, x)
expect("data: expected elements row by row without gaps, got a view", x.data, op.permute(x, {dims = {1, 0}}))
assert(tostring(freed) == "a tensor that was freed")

-- Files and networks.
expect("load: 'nowhere': cannot open: No such file or directory", marea.load, "nowhere")
expect("load: argument 'path': expected a text without zero bytes, got nothing", marea.load)
expect("'README.md': not an ONNX model", marea.load_onnx, "README.md")
expect("parse_onnx: argument 'bytes': expected a text, got a tensor", marea.parse_onnx, x)
expect("not an ONNX model", marea.parse_onnx, "no model")
expect("run: argument 'self': expected a network, got one that was freed", freed_net.run, freed_net, x)
expect("inputs: argument 'self': expected a network, got a tensor", net.inputs, x)
expect("run: input 1: expected a tensor, got 'x'", net.run, net, "x")
expect("graph: expected 1 inputs, got 0", net.run, net)
expect("graph: expected 1 inputs, got 2", net.run, net, x, x)
expect("'z'", net.run, net, marea.zeros{3})
expect("'z'", net.run, net, marea.zeros({1, 2}, "i64"))
expect("encode_png: argument 't': expected a tensor, got nothing", marea.encode_png)
expect("png", marea.encode_png, marea.zeros{3})

-- Settings.
expect("set_threads: argument 'threads': expected an integer, got nothing", marea.set_threads)
expect("set_threads: expected 1..64 threads, got -1", marea.set_threads, -1)
expect("seed: argument 'seed': expected an integer of at least 0, got -1", marea.seed, -1)
expect("memory_limit: argument 'bytes': expected an integer of at least 0, got 0.5", marea.memory_limit, 0.5)
expect("time_limit: argument 'seconds': expected a number of at least 0, got nan", marea.time_limit, 0 / 0)
marea.time_limit(1e-9)
expect("time", op.relu, x)
marea.time_limit(0)

-- The error is at the caller's line.
local _, text = pcall(function() op.relu(freed) end)
assert(text:find "^spec/luajit/misuse.lua:%d+: relu: ", text)
print "done"
