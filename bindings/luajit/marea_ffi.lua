-- SPDX-License-Identifier: MIT
--- Marea in programs with LuaJIT: the C API of libmarea (marea.h) through the FFI, in one file. docs/luajit.md is its
--- manual. Each Lua state has a context of its own. The library never calls back into Lua.
local ffi = require "ffi"

-- What this file uses of marea.h, in its words; spec/luajit_spec.lua compares it with what the C compiler says.
if not pcall(ffi.sizeof, "marea_named") then -- else this state has loaded the file before
  ffi.cdef [[
typedef struct marea_context marea_context;
typedef struct marea_tensor marea_tensor;
typedef struct marea_op marea_op;
typedef struct marea_file marea_file;
typedef struct marea_graph marea_graph;
typedef struct marea_config marea_config;
typedef enum marea_status {
  MAREA_OK = 0,
  MAREA_ENOMEM = 1
} marea_status;
typedef enum marea_dtype { MAREA_F32, MAREA_F64, MAREA_I64, MAREA_U8, MAREA_BF16, MAREA_F16 } marea_dtype;
enum { MAREA_MAX_RANK = 8, MAREA_MAX_OUT = 32 };
typedef struct marea_memory_info {
  size_t live, peak, pooled;
  uint64_t blocks;
  uint64_t mallocs;
  size_t limit;
} marea_memory_info;
typedef enum marea_named_type {
  MAREA_NAMED_REAL,
  MAREA_NAMED_INT,
  MAREA_NAMED_TEXT,
  MAREA_NAMED_LIST
} marea_named_type;
typedef struct marea_named {
  const char *name;
  marea_named_type type;
  int n;
  union {
    double f;
    const char *s;
    int64_t v[8];
  };
} marea_named;
typedef struct marea_graph_port {
  const char *name;
  marea_dtype dtype;
  int rank;
  int64_t shape[8];
} marea_graph_port;
const char *marea_error (const marea_context *ctx);
const char *marea_status_text (marea_status status);
const char *marea_version (void);
marea_status marea_open (const marea_config *config, marea_context **ctx);
void marea_close (marea_context *ctx);
marea_memory_info marea_memory (const marea_context *ctx);
void marea_memory_limit (marea_context *ctx, size_t max_bytes);
void marea_limit_time (marea_context *ctx, double seconds);
marea_status marea_set_threads (marea_context *ctx, int threads);
int marea_threads (const marea_context *ctx);
void marea_seed (marea_context *ctx, uint64_t seed);
size_t marea_dtype_size (marea_dtype dtype);
double marea_number_at (marea_dtype dtype, const void *at);
void marea_put_number (marea_dtype dtype, void *at, double value);
marea_status marea_empty (marea_context *ctx, marea_dtype dtype, int rank, const int64_t *shape, marea_tensor **out);
marea_status marea_zeros (marea_context *ctx, marea_dtype dtype, int rank, const int64_t *shape, marea_tensor **out);
marea_status marea_from_memory (marea_context *ctx, marea_dtype dtype, int rank, const int64_t *shape, void *data,
                                void (*release)(void *ud), void *ud, marea_tensor **out);
marea_tensor *marea_retain (marea_tensor *t);
void marea_release (marea_tensor *t);
marea_dtype marea_tensor_dtype (const marea_tensor *t);
int marea_tensor_rank (const marea_tensor *t);
const int64_t *marea_tensor_shape (const marea_tensor *t);
const int64_t *marea_tensor_strides (const marea_tensor *t);
int64_t marea_tensor_size (const marea_tensor *t);
bool marea_tensor_contiguous (const marea_tensor *t);
bool marea_tensor_shares (const marea_tensor *a, const marea_tensor *b);
void *marea_tensor_data (const marea_tensor *t);
const marea_op *marea_op_find (const char *name);
marea_status marea_call_op (marea_context *ctx, const char *name, int n_in, marea_tensor *const *in, int n_named,
                            const marea_named *named, int n_out, marea_tensor **out);
marea_status marea_encode_png (marea_tensor *t, marea_tensor **out);
marea_status marea_file_load (marea_context *ctx, const char *path, marea_file **out);
int marea_file_count (const marea_file *f);
const char *marea_file_name (const marea_file *f, int i);
marea_tensor *marea_file_tensor (const marea_file *f, int i);
int marea_file_text_count (const marea_file *f);
void marea_file_text (const marea_file *f, int i, const char **key, const char **value);
void marea_file_free (marea_file *f);
marea_status marea_onnx_load (marea_context *ctx, const char *path, marea_graph **out);
marea_status marea_onnx_parse (marea_context *ctx, const void *bytes, size_t n, marea_graph **out);
int marea_graph_inputs (const marea_graph *g);
int marea_graph_outputs (const marea_graph *g);
bool marea_graph_input (const marea_graph *g, int i, marea_graph_port *port);
bool marea_graph_output (const marea_graph *g, int i, marea_graph_port *port);
marea_status marea_graph_run (marea_graph *g, int n_in, marea_tensor *const *in, int n_out, marea_tensor **out);
void marea_graph_free (marea_graph *g);
]]
  ffi.cdef "int memcmp(const void *a, const void *b, size_t n);"
end

local lib = ffi.load(os.getenv "MAREA_LIBRARY" or "libmarea.so.0")
local VERSION = "0.1.0"
local found = ffi.string(lib.marea_version())
if found ~= VERSION then error(("marea_ffi.lua %s: expected libmarea %s, got %s"):format(VERSION, VERSION, found)) end

local marea = {version = VERSION}
local Tensor, Graph = {}, {}
Tensor.__index, Graph.__index = Tensor, Graph

---- errors

local HERE = debug and debug.getinfo(1, "S").source

--- An error at the line that called into this file.
local function raise(text, ...)
  local level = 2
  while HERE and (debug.getinfo(level, "S") or {}).source == HERE do level = level + 1 end
  error(select("#", ...) > 0 and text:format(...) or text, level)
end

--- What a message says of a value.
local function described(value)
  local kind = type(value)
  if kind == "nil" then return "nothing" end
  if kind == "string" then return "'" .. value:sub(1, 60) .. "'" end
  if kind == "cdata" then return tostring(ffi.typeof(value)) end
  if getmetatable(value) == Tensor then return "a tensor" end
  return kind == "number" and tostring(value) or "a " .. kind
end

--- An argument's name, or the number of an operator's input, in a message.
local function place_of(argument)
  return type(argument) == "number" and "input " .. argument or ("argument '%s'"):format(argument)
end

local function refuse(who, argument, expected, value)
  raise("%s: %s: expected %s, got %s", who, place_of(argument), expected, described(value))
end

---- the context

local list = ffi.new "marea_context *[1]"
local opened = lib.marea_open(nil, list)
if opened ~= lib.MAREA_OK then error("marea_open: " .. ffi.string(lib.marea_status_text(opened))) end
-- Finalizers are functions of C, as those of Lua keep LuaJIT from compiling; so the library has to stay loaded.
package.loaded["marea_ffi.library"] = lib
local context = ffi.gc(list[0], lib.marea_close)

local function check(status)
  if status ~= lib.MAREA_OK then raise(ffi.string(lib.marea_error(context))) end
end

--- Calls again without what Lua has not collected yet, if the memory did not suffice.
local function spare(status, f, ...)
  if status ~= lib.MAREA_ENOMEM then return status end
  collectgarbage()
  return f(...)
end

---- checking arguments

local DTYPES = {"f32", "f64", "i64", "u8", "bf16", "f16"} -- as marea_dtype counts them, from 0
local C_TYPES = {f32 = "float", f64 = "double", i64 = "int64_t", u8 = "uint8_t", bf16 = "uint16_t", f16 = "uint16_t"}
local NUMBER_OF, POINTERS, ELEMENTS = {}, {}, {}
for k, name in ipairs(DTYPES) do
  NUMBER_OF[name] = k - 1
  POINTERS[name] = ffi.typeof(C_TYPES[name] .. " *")
  ELEMENTS[name] = tostring(POINTERS[name]):match "^ctype<(.-) %*>$"
end

local function dtype_named(who, name)
  return NUMBER_OF[name] or refuse(who, "dtype", "f32, f64, i64, u8, bf16 or f16", name)
end

--- A text without zeros, at which C would end it.
local function text_of(who, argument, value)
  if type(value) == "string" and not value:find("\0", 1, true) then return value end
  refuse(who, argument, "a text without zero bytes", value)
end

local function is_integer(value)
  return type(value) == "number" and value % 1 == 0 and math.abs(value) <= 2 ^ 53
end

local sizes = ffi.new("int64_t[?]", lib.MAREA_MAX_RANK)

--- The rank of a shape, whose sizes go to `sizes`.
local function shape_of(who, shape)
  if type(shape) ~= "table" or getmetatable(shape) == Tensor then refuse(who, "shape", "a table of sizes", shape) end
  local rank = #shape
  if rank > lib.MAREA_MAX_RANK then raise("%s: argument 'shape': expected at most 8 sizes, got %d", who, rank) end
  for d = 1, rank do
    if not is_integer(shape[d]) then refuse(who, ("shape[%d]"):format(d), "an integer", shape[d]) end
    sizes[d - 1] = shape[d]
  end
  return rank
end

--- The handle of a tensor.
local function handle_of(who, argument, value)
  if getmetatable(value) ~= Tensor then refuse(who, argument, "a tensor", value) end
  return value.handle or raise("%s: %s: expected a tensor, got one that was freed", who, place_of(argument))
end

---- tensors

-- Lua does not see how large tensors are: their memory is looked at after so many bytes of results.
local LOOK, FLOOR = 64 * 2 ^ 20, 128 * 2 ^ 20
local unseen, bound = 0, FLOOR

local function live() return tonumber(lib.marea_memory(context).live) end

local function watch_memory(handle)
  unseen = unseen + tonumber(lib.marea_tensor_size(handle)) * 8
  if unseen < LOOK then return end
  unseen = 0
  if live() < bound then return end
  collectgarbage()
  bound = math.max(FLOOR, 2 * live())
end

--- The tensor of a new handle. `memory`: the host's, which has to live as long.
local function own(handle, memory)
  local t = setmetatable({handle = ffi.gc(handle, lib.marea_release), memory = memory}, Tensor)
  watch_memory(handle)
  return t
end

local one = ffi.new "marea_tensor *[1]"

local function make(f, who, shape, dtype)
  local number, rank = dtype_named(who, dtype or "f32"), shape_of(who, shape)
  check(spare(f(context, number, rank, sizes, one), f, context, number, rank, sizes, one))
  return own(one[0])
end

--- A tensor of zeros; dtype is f32 where it is not given.
function marea.zeros(shape, dtype) return make(lib.marea_zeros, "zeros", shape, dtype) end

--- The sizes of nested tables, by the first element of each.
local function shape_of_table(value)
  local shape = {}
  while type(value) == "table" do
    if #shape == lib.MAREA_MAX_RANK then
      raise "tensor: argument 'values': expected at most 8 levels of tables, got more"
    end
    shape[#shape + 1] = #value
    value = value[1]
  end
  return shape
end

--- Puts the numbers of a table, which is at `level` of the shape, from the address on; returns the one behind them.
local function put(values, shape, level, number, at, step)
  if level > #shape then
    if type(values) ~= "number" then refuse("tensor", "values", "numbers", values) end
    lib.marea_put_number(number, at, values)
    return at + step
  end
  if type(values) ~= "table" then refuse("tensor", "values", ("a table of %d"):format(shape[level]), values) end
  if #values ~= shape[level] then
    raise("tensor: argument 'values': expected tables of one length, got %d elements beside %d", #values, shape[level])
  end
  for i = 1, #values do at = put(values[i], shape, level + 1, number, at, step) end
  return at
end

--- A tensor with the numbers of nested tables, or of one number; dtype is f32 where it is not given.
function marea.tensor(values, dtype)
  if type(values) ~= "number" and (type(values) ~= "table" or getmetatable(values) == Tensor) then
    refuse("tensor", "values", "a table of numbers or a number", values)
  end
  local shape = shape_of_table(values)
  local t = make(lib.marea_empty, "tensor", shape, dtype)
  local number = dtype_named("tensor", dtype or "f32")
  local step = tonumber(lib.marea_dtype_size(number))
  put(values, shape, 1, number, ffi.cast("uint8_t *", lib.marea_tensor_data(t.handle)), step)
  return t
end

local function read_kind(name)
  local pointer = name:match "^ctype<([%w_ ]-) %*>$"
  if pointer then return {element = pointer, array = false} end
  return {
    element = name:match "^ctype<([%w_ ]-) %[[%d%[%]?]+>$" or name:match "^ctype<([%w_ ]-) %(&%)%[[%d%[%]]+>$",
    array = true,
  }
end

--- The type of the elements of the host's memory, and its bytes if they are known: those of a pointer are not.
local kinds = {} -- by the numbers of types
local function kind_of(data)
  local id = tonumber(ffi.typeof(data))
  local kind = kinds[id]
  if not kind then
    kind = read_kind(tostring(ffi.typeof(data)))
    kinds[id] = kind
  end
  return kind.element, kind.array and ffi.sizeof(data) or nil
end

local function dtype_of_elements(element)
  for _, dtype in ipairs(DTYPES) do
    if ELEMENTS[dtype] == element and element ~= ELEMENTS.bf16 then return dtype end
  end
end

--- A tensor over the host's memory, without a copy: an array or a pointer of float (f32), double (f64), int64_t (i64),
--- uint8_t (u8); with `dtype` also of uint16_t (bf16, f16) or a void *. It keeps `data` and `owner` from being
--- collected. Of a pointer neither the length is checked nor, without an owner, is the memory kept.
function marea.from_memory(data, shape, dtype, owner)
  local who = "from_memory"
  if type(data) ~= "cdata" then refuse(who, "data", "an array or a pointer of C", data) end
  local element, bytes = kind_of(data)
  dtype = dtype or dtype_of_elements(element)
  if not dtype then refuse(who, "data", "an array or a pointer of float, double, int64_t or uint8_t", data) end
  local number, rank = dtype_named(who, dtype), shape_of(who, shape)
  if element ~= ELEMENTS[dtype] and (element ~= "void" or bytes) then
    refuse(who, "data", ("an array or a pointer of %s for %s"):format(C_TYPES[dtype], dtype), data)
  end
  local wanted = tonumber(lib.marea_dtype_size(number))
  for d = 0, rank - 1 do wanted = wanted * tonumber(sizes[d]) end
  if bytes and wanted > bytes then
    raise("%s: argument 'data': expected %.0f bytes for the shape, got %.0f", who, wanted, bytes)
  end
  check(lib.marea_from_memory(context, number, rank, sizes, ffi.cast("void *", data), nil, nil, one))
  return own(one[0], {data, owner})
end

local function self_of(who, t) return handle_of(who, "self", t) end

function Tensor.shape(t)
  local handle, shape = self_of("shape", t), {}
  local from = lib.marea_tensor_shape(handle)
  for d = 1, lib.marea_tensor_rank(handle) do shape[d] = tonumber(from[d - 1]) end
  return shape
end

function Tensor.dtype(t) return DTYPES[tonumber(lib.marea_tensor_dtype(self_of("dtype", t))) + 1] end

--- The number of elements.
function Tensor.size(t) return tonumber(lib.marea_tensor_size(self_of("size", t))) end

--- The address of elements that lie row by row without gaps.
local function elements_of(who, t)
  local handle = self_of(who, t)
  if lib.marea_tensor_contiguous(handle) then return lib.marea_tensor_data(handle) end
  raise("%s: expected elements row by row without gaps, got a view", who)
end

--- A pointer to the elements, row by row, which is valid as long as the tensor.
function Tensor.data(t)
  local at = elements_of("data", t)
  return ffi.cast(POINTERS[t:dtype()], at)
end

--- The bytes of the elements, row by row, as a text.
function Tensor.bytes(t)
  local at = elements_of("bytes", t)
  return ffi.string(at, t:size() * tonumber(lib.marea_dtype_size(lib.marea_tensor_dtype(t.handle))))
end

--- The element at an address, or a table of those along a dimension.
local function numbers(handle, d, at, step)
  if d == lib.marea_tensor_rank(handle) then return lib.marea_number_at(lib.marea_tensor_dtype(handle), at) end
  local values, stride = {}, tonumber(lib.marea_tensor_strides(handle)[d]) * step
  for i = 1, tonumber(lib.marea_tensor_shape(handle)[d]) do
    values[i] = numbers(handle, d + 1, at + (i - 1) * stride, step)
  end
  return values
end

--- The elements as nested tables of numbers; of a tensor without dimensions, the number.
function Tensor.totable(t)
  local handle = self_of("totable", t)
  local step = tonumber(lib.marea_dtype_size(lib.marea_tensor_dtype(handle)))
  return numbers(handle, 0, ffi.cast("const uint8_t *", lib.marea_tensor_data(handle)), step)
end

--- The only element.
function Tensor.item(t)
  local handle = self_of("item", t)
  if lib.marea_tensor_size(handle) ~= 1 then raise("item: expected a tensor of one element, got %d", t:size()) end
  return lib.marea_number_at(lib.marea_tensor_dtype(handle), lib.marea_tensor_data(handle))
end

--- Gives the memory back now, not when Lua collects the tensor. Views of it stay valid.
function Tensor.free(t)
  lib.marea_release(ffi.gc(self_of("free", t), nil))
  t.handle, t.memory = nil, nil
end

function Tensor.__tostring(t)
  if not t.handle then return "a tensor that was freed" end
  return ("%s (%s)"):format(t:dtype(), table.concat(t:shape(), ","))
end

---- operators

local MOST_ATTRIBUTES = 16 -- more than any operator has
local MOST_RESULTS = tonumber(lib.MAREA_MAX_OUT)
local OTHERS = (MOST_RESULTS - 1) * ffi.sizeof "void *"
local nameds = ffi.new("marea_named[?]", MOST_ATTRIBUTES)
local n_ins, n_outs = 0, 0
local ins, outs, others, nothing

--- Makes the lists that calls share long enough; nothing runs between filling them and the call.
local function make_room(n_in, n_out)
  if n_in > n_ins then n_ins, ins = n_in, ffi.new("marea_tensor *[?]", n_in) end
  if n_out <= n_outs then return end
  n_outs, outs, nothing = n_out, ffi.new("marea_tensor *[?]", n_out), ffi.new("marea_tensor *[?]", n_out)
  others = outs + 1
end

make_room(16, MOST_RESULTS)

local SETTERS = {}

function SETTERS.number(named, value)
  if not is_integer(value) then
    named.type, named.f = lib.MAREA_NAMED_REAL, value
    return
  end
  named.type, named.v[0] = lib.MAREA_NAMED_INT, value
end

function SETTERS.boolean(named, value) named.type, named.v[0] = lib.MAREA_NAMED_INT, value and 1 or 0 end

function SETTERS.string(named, value, who, name)
  named.type, named.s = lib.MAREA_NAMED_TEXT, text_of(who, name, value)
end

function SETTERS.table(named, value, who, name)
  named.type, named.n = lib.MAREA_NAMED_LIST, #value
  for k = 1, #value do
    if not is_integer(value[k]) then refuse(who, ("%s[%d]"):format(name, k), "an integer", value[k]) end
    if k <= lib.MAREA_MAX_RANK then named.v[k - 1] = value[k] end
  end
end

--- Fills `nameds`; returns how many there are. The texts are kept by the caller's table.
local function set_attributes(who, attributes)
  local n = 0
  local name, value = next(attributes) -- LuaJIT compiles this, and no pairs
  while name ~= nil do
    if type(name) ~= "string" then refuse(who, "attributes", "names with values", name) end
    local set = SETTERS[type(value)] or refuse(who, name, "a number, a text, a list or a boolean", value)
    if n == MOST_ATTRIBUTES then raise("%s: expected at most %d attributes, got more", who, n) end
    nameds[n].name, nameds[n].n = name, 1
    set(nameds[n], value, who, name)
    n = n + 1
    name, value = next(attributes, name)
  end
  return n
end

--- Puts the handle of inputs[i] into `ins`, and NULL for nil; returns whether it is over the host's memory.
local function set_input(who, inputs, i)
  local x = inputs[i]
  if x == nil then
    ins[i - 1] = nil
    return false
  end
  ins[i - 1] = handle_of(who, i, x)
  return x.memory ~= nil
end

--- The same for all of inputs[1..n]; without a loop for the first ones.
local function set_inputs(who, inputs, n)
  make_room(n, 0)
  local lent = n > 0 and set_input(who, inputs, 1)
  lent = n > 1 and set_input(who, inputs, 2) or lent
  lent = n > 2 and set_input(who, inputs, 3) or lent
  for i = 4, n do lent = set_input(who, inputs, i) or lent end
  return lent
end

--- The host's memory that a result is a view of.
local function memory_below(handle, inputs, n)
  for i = 1, n do
    local x = inputs[i]
    if x and x.memory and lib.marea_tensor_shares(handle, x.handle) then return x.memory end
  end
end

--- The results from outs[k] to outs[n - 1]. `lent`: an input is over the host's memory.
local function results(k, n, lent, inputs, n_in)
  if k == n then return end
  local handle = outs[k]
  local t = handle ~= nil and own(handle, lent and memory_below(handle, inputs, n_in) or nil) or nil
  if k == n - 1 then return t end
  return t, results(k + 1, n, lent, inputs, n_in)
end

--- How many results an operator gave.
local function count_results()
  if ffi.C.memcmp(others, nothing, OTHERS) == 0 then return outs[0] ~= nil and 1 or 0 end
  local n = MOST_RESULTS
  while outs[n - 1] == nil do n = n - 1 end
  return n
end

local function apply(name, inputs, n_in, n_named)
  set_inputs(name, inputs, n_in)
  return lib.marea_call_op(context, name, n_in, ins, n_named, nameds, MOST_RESULTS, outs)
end

local function is_table(value) return type(value) == "table" and getmetatable(value) ~= Tensor end

local function call(name, inputs, n_in, attributes)
  local n_named = attributes and set_attributes(name, attributes) or 0
  local lent = set_inputs(name, inputs, n_in)
  local status = lib.marea_call_op(context, name, n_in, ins, n_named, nameds, MOST_RESULTS, outs)
  if status ~= lib.MAREA_OK then check(spare(status, apply, name, inputs, n_in, n_named)) end
  return results(0, count_results(), lent, inputs, n_in)
end

--- Calls with n arguments: inputs and perhaps attributes, or a list of inputs and perhaps attributes.
local function call_with(name, n, arguments)
  local first, last = arguments[1], n > 0 and arguments[n]
  if is_table(first) and first[1] ~= nil then return call(name, first, table.maxn(first), arguments[2]) end
  if is_table(last) then return call(name, arguments, n - 1, last) end
  return call(name, arguments, n)
end

--- Operators by their names: marea.op.conv2d(x, w, b, {stride = 2, padding = "same"}), or with the inputs in a list:
--- marea.op.concat({x, y, z}, {dim = 0}). An input that is left out is nil; dims and indices count from 0; a name that
--- ends in _ writes the result over the first input and gives nothing. LuaJIT compiles no calls with varargs, and loops
--- within a call badly.
marea.op = setmetatable({}, {
  __index = function(ops, name)
    local function operator(a, b, c, d, e, f, g, h, i)
      if i ~= nil then raise("%s: expected at most 8 arguments one by one, got more", name) end
      local n = h ~= nil and 8 or g ~= nil and 7 or f ~= nil and 6 or e ~= nil and 5 or d ~= nil and 4
        or c ~= nil and 3 or b ~= nil and 2 or a ~= nil and 1 or 0
      return call_with(name, n, {a, b, c, d, e, f, g, h})
    end
    text_of("op", "name", name)
    if lib.marea_op_find(name) ~= nil or lib.marea_op_find((name:gsub("_$", ""))) ~= nil then ops[name] = operator end
    return operator
  end,
})

---- files

local file_list, graph_list = ffi.new "marea_file *[1]", ffi.new "marea_graph *[1]"

--- The tensors of a safetensors file by their names, and its texts.
function marea.load(path)
  check(lib.marea_file_load(context, text_of("load", "path", path), file_list))
  local file = ffi.gc(file_list[0], lib.marea_file_free)
  local tensors, texts, key, value = {}, {}, ffi.new "const char *[1]", ffi.new "const char *[1]"
  for i = 0, lib.marea_file_count(file) - 1 do
    tensors[ffi.string(lib.marea_file_name(file, i))] = own(lib.marea_retain(lib.marea_file_tensor(file, i)))
  end
  for i = 0, lib.marea_file_text_count(file) - 1 do
    lib.marea_file_text(file, i, key, value)
    texts[ffi.string(key[0])] = ffi.string(value[0])
  end
  lib.marea_file_free(ffi.gc(file, nil))
  return tensors, texts
end

--- The bytes of a PNG file: of (H,W) or (H,W,C), u8 as it is, f32 and f64 from 0 to 1.
function marea.encode_png(t)
  check(lib.marea_encode_png(handle_of("encode_png", "t", t), one))
  return own(one[0]):bytes()
end

---- graphs

local function own_graph()
  return setmetatable({handle = ffi.gc(graph_list[0], lib.marea_graph_free)}, Graph)
end

--- A network of an ONNX file.
function marea.load_onnx(path)
  check(lib.marea_onnx_load(context, text_of("load_onnx", "path", path), graph_list))
  return own_graph()
end

--- A network of the bytes of such a file.
function marea.parse_onnx(bytes)
  if type(bytes) ~= "string" then refuse("parse_onnx", "bytes", "a text", bytes) end
  check(lib.marea_onnx_parse(context, bytes, #bytes, graph_list))
  return own_graph()
end

local function graph_of(who, net)
  if getmetatable(net) ~= Graph then refuse(who, "self", "a network", net) end
  return net.handle or raise("%s: argument 'self': expected a network, got one that was freed", who)
end

local function ports(handle, count, get)
  local described_ports, port = {}, ffi.new "marea_graph_port"
  for i = 0, count(handle) - 1 do
    get(handle, i, port)
    local shape = port.rank >= 0 and {} or nil
    for d = 1, port.rank do shape[d] = tonumber(port.shape[d - 1]) end
    described_ports[i + 1] = {name = ffi.string(port.name), dtype = DTYPES[tonumber(port.dtype) + 1], shape = shape}
  end
  return described_ports
end

--- A list of {name, dtype, shape}: what the network takes. A size of -1 is any; what the file does not tell is nil.
function Graph.inputs(net) return ports(graph_of("inputs", net), lib.marea_graph_inputs, lib.marea_graph_input) end

--- The same of what it gives.
function Graph.outputs(net) return ports(graph_of("outputs", net), lib.marea_graph_outputs, lib.marea_graph_output) end

local function run_graph(handle, inputs, n_in, n_out)
  set_inputs("run", inputs, n_in)
  return lib.marea_graph_run(handle, n_in, ins, n_out, outs)
end

--- All results of a network for its inputs.
function Graph.run(net, ...)
  local handle, inputs, n_in = graph_of("run", net), {...}, select("#", ...)
  local n_out = lib.marea_graph_outputs(handle)
  make_room(0, n_out)
  local lent = set_inputs("run", inputs, n_in)
  check(spare(lib.marea_graph_run(handle, n_in, ins, n_out, outs), run_graph, handle, inputs, n_in, n_out))
  return results(0, n_out, lent, inputs, n_in)
end

--- Gives the memory of the network back now.
function Graph.free(net)
  lib.marea_graph_free(ffi.gc(graph_of("free", net), nil))
  net.handle = nil
end

---- settings

local function count_of(who, argument, value)
  if not is_integer(value) or value < 0 then refuse(who, argument, "an integer of at least 0", value) end
  return value
end

--- What random numbers follow from.
function marea.seed(seed) lib.marea_seed(context, count_of("seed", "seed", seed)) end

function marea.set_threads(n)
  if not is_integer(n) or math.abs(n) >= 2 ^ 31 then refuse("set_threads", "threads", "an integer", n) end
  check(lib.marea_set_threads(context, n))
end

function marea.threads() return lib.marea_threads(context) end

--- What tensors may take, in bytes; 0 is no limit.
function marea.memory_limit(bytes) lib.marea_memory_limit(context, count_of("memory_limit", "bytes", bytes)) end

--- Bytes in use by tensors, their maximum so far, and bytes kept for reuse.
function marea.memory()
  local info = lib.marea_memory(context)
  return {live = tonumber(info.live), peak = tonumber(info.peak), pooled = tonumber(info.pooled)}
end

--- Seconds that operators may take from now on; 0 is no limit.
function marea.time_limit(seconds)
  if type(seconds) ~= "number" or seconds ~= seconds or seconds < 0 then
    refuse("time_limit", "seconds", "a number of at least 0", seconds)
  end
  lib.marea_limit_time(context, seconds)
end

return marea
