-- Tensors, operators and networks through marea_ffi.lua. arg: a safetensors file of a decoder, the same one as ONNX.
package.path = "bindings/luajit/?.lua;" .. package.path
local ffi = require "ffi"
local marea = require "marea_ffi"
local op = marea.op

local function same(want, got, depth)
  if type(want) ~= "table" then
    if want ~= got then error(("expected %s, got %s"):format(tostring(want), tostring(got)), depth or 2) end
    return
  end
  same(#want, #got, (depth or 2) + 1)
  for i = 1, #want do same(want[i], got[i], (depth or 2) + 1) end
end

-- From tables, and back, in each dtype.
for _, dtype in ipairs{"f32", "f64", "i64", "u8", "bf16", "f16"} do
  local t = marea.tensor({{1, 2, 3}, {4, 5, 6}}, dtype)
  same(dtype, t:dtype())
  same({2, 3}, t:shape())
  same(6, t:size())
  same({{1, 2, 3}, {4, 5, 6}}, t:totable())
end
same(7, marea.tensor(7):item())
same({}, marea.tensor(7):shape())
same({0}, marea.tensor{}:shape())
same("f32 (2,3)", tostring(marea.zeros{2, 3}))
same({{0, 0}}, marea.zeros({1, 2}, "i64"):totable())
same({{1, 3}, {2, 4}}, op.permute(marea.tensor{{1, 2}, {3, 4}}, {dims = {1, 0}}):totable())

-- Over the host's memory, without a copy: whoever writes, both see it.
local kinds = {f32 = "float", f64 = "double", i64 = "int64_t", u8 = "uint8_t"}
for dtype, kind in pairs(kinds) do
  for _, data in ipairs{ffi.new(kind .. "[2][3]"), ffi.new(kind .. "[?]", 6), ffi.new(kind .. "[7]")} do
    local flat = ffi.cast(kind .. " *", data)
    for i = 0, 5 do flat[i] = i end
    local t = marea.from_memory(data, {2, 3})
    same(dtype, t:dtype())
    same({{0, 1, 2}, {3, 4, 5}}, t:totable())
    op.mul_(t, t)
    same(25, tonumber(flat[5]))
    flat[0] = 9
    same(9, t:totable()[1][1])
    same(25, tonumber(t:data()[5]))
  end
end
local half = ffi.new("uint16_t[2]", 0x3c00, 0x4000)
same({1, 2}, marea.from_memory(half, {2}, "f16"):totable())
local struct = ffi.new("struct { int n; float v[3]; }", {3, {1, 2, 3}})
same({1, 2, 3}, marea.from_memory(struct.v, {3}, nil, struct):totable())
same({1, 2}, marea.from_memory(ffi.cast("void *", struct.v), {2}, "f32", struct):totable())

-- A view keeps the memory of the tensor that it was made of; a result does not.
local freed = 0
local function lent()
  local data = ffi.gc(ffi.new("float[4]", 1, 2, 3, 4), function() freed = freed + 1 end)
  return marea.from_memory(data, {4})
end
local view = op.reshape(op.reshape(lent(), {shape = {2, 2}}), {shape = {4}})
collectgarbage() collectgarbage()
same(0, freed)
same({1, 2, 3, 4}, view:totable())
view = op.add(view, view)
collectgarbage() collectgarbage()
same(1, freed)
same({2, 4, 6, 8}, view:totable())

-- Operators: several results, inputs in a list, inputs and attributes that are left out.
local values, places = op.topk(marea.tensor{3, 1, 2}, {k = 2})
same({3, 2}, values:totable())
same({0, 2}, places:totable())
same({1, 2, 3}, op.concat({marea.tensor{1}, marea.tensor{2, 3}}, {dim = 0}):totable())
local many = {}
for i = 1, 40 do many[i] = marea.tensor{i} end
same(40, op.concat(many, {dim = 0}):totable()[40])
same({{3}}, op.linear(marea.tensor{{1, 1}}, marea.tensor{{1}, {2}}):totable())
same({{4}}, op.linear(marea.tensor{{1, 1}}, marea.tensor{{1}, {2}}, marea.tensor{1}, {activation = "relu"}):totable())
same({{3}}, op.sum(marea.tensor{{1, 2}}, {dims = {1}, keepdim = true}):totable())

-- Random numbers follow from the seed; threads; memory beyond a limit is an error, and Lua's garbage goes before.
marea.seed(7)
local first = op.uniform({shape = {3}}):totable()
marea.seed(7)
same(first, op.uniform({shape = {3}}):totable())
marea.set_threads(1)
same(1, marea.threads())
marea.memory_limit(64 * 2 ^ 20)
for _ = 1, 100 do op.add(marea.zeros{1000, 1000}, marea.zeros{1000, 1000}) end
local ok, text = pcall(marea.zeros, {10000, 10000})
assert(not ok and text:find "memory", text)
marea.memory_limit(0)
for _ = 1, 300 do marea.zeros{1000, 1000} end
assert(marea.memory().peak < 300 * 2 ^ 20, marea.memory().peak)

-- A decoder of safetensors, and the same network of ONNX.
local w, texts = marea.load(arg[1])
same("table", type(texts))
local x = marea.tensor{{0.3, -1}}
local y = x
for i, name in ipairs{"dense1", "dense2", "pixels"} do
  y = op.linear(y, w[name .. ".weight"], w[name .. ".bias"], {activation = i < 3 and "relu" or "sigmoid"})
end
local net = marea.load_onnx(arg[2])
same("z", net:inputs()[1].name)
same("f32", net:inputs()[1].dtype)
same(2, #net:inputs()[1].shape)
same("image", net:outputs()[1].name)
local z = op.reshape(net:run(x), {shape = {1, 784}})
assert(op.max(op.abs(op.sub(y, z))):item() < 1e-6)
local file = assert(io.open(arg[2], "rb"))
same(z:totable(), op.reshape(marea.parse_onnx(file:read "*a"):run(x), {shape = {1, 784}}):totable())
file:close()
same("\137PNG", marea.encode_png(op.reshape(y, {shape = {28, 28}})):sub(1, 4))

-- The file can be loaded anew, and what the first one made is collected without it.
package.loaded.marea_ffi = nil
local again = require "marea_ffi"
assert(again ~= marea)
same({2}, again.op.add(again.tensor{1}, again.tensor{1}):totable())
print "done"
