---@meta
-- SPDX-License-Identifier: MIT
-- What is written in C and is no operator: functions of marea, and methods of tensors. This file is read, never run.
-- The operators say what they are by themselves: marea.op_info(name).

---@class Tensor  numbers of one type in a grid
---@field shape integer[]
---@field dtype string "f32", "f64", "i64", "u8", "bf16" or "f16"
---@field rank integer number of dimensions
---@field grad Tensor? of a leaf, after backward; may be set
---@field requires_grad boolean are gradients wanted?
---@field is_leaf boolean made by no operator that was recorded
Tensor = {}

--- A tensor from numbers: a number, a table of them, or tables in tables of one depth. f32 unless asked for.
---@param values number|table
---@param options? {dtype: string?} "f32", "f64", "i64", "u8", "bf16" or "f16"
---@return userdata
---@example marea.tensor{{1, 2, 3}, {4, 5, 6}}
---@example marea.tensor({1, 2}, {dtype = "i64"})
function core.tensor(values, options) end

--- The bytes of a text as u8 (n), 0 to 255; t:to_bytes() gives the text back.
---@param text string
---@return userdata
---@example marea.bytes "Marea"
function core.bytes(text) end

--- Is it a tensor?
---@param value any
---@return boolean
---@example marea.is_tensor(marea.zeros{2})
function core.is_tensor(value) end

--- The names of all operators.
---@return string[]
---@example #marea.op_names()
function core.op_names() end

--- What an operator says about itself: name, family, doc, inputs, attrs, differentiable, elementwise, ...
---@param name string
---@return table
---@example marea.op_info("conv2d").inputs
function core.op_info(name) end

--- Releases at its end what was made inside, except what f returns or what was kept (t:keep()). Without f: a scope for
--- `local s <close> = marea.scope()`.
---@param f? function
---@return any ... what f returns
---@example marea.scope(function() return (marea.ones{3} * 2):sum() end)
function core.scope(f, ...) end

--- A scope without recording: gradients do not flow through what is computed inside.
---@param f? function
---@return any ... what f returns
---@example marea.no_grad(function() return marea.ones{3}:requires_grad_() * 2 end).requires_grad
function core.no_grad(f, ...) end

--- Runs before() and then f(...) in no_grad, nothing between them: for changes that must not be torn apart. Ctrl-C
--- ends the operators of `before`; f runs to its end, and the error is raised after it. Optimizers update so.
---@param before function|nil
---@param f function
---@example w = marea.ones{2}
---@example marea.shield(nil, function() w:mul_(3):add_(1) end)
---@example w
function core.shield(before, f, ...) end

--- Runs f(...) and returns its results; Ctrl-C stops it with the error `interrupted!`, as often as it comes, and no
--- pcall in f holds it. The program marea does so with everything; under lua5.4 a second one would end the program.
--- f cannot yield to a coroutine outside.
---@param f function
---@example marea.interruptible(function(x) return 2 * x end, 21)
function core.interruptible(f, ...) end

--- Are operators being recorded for gradients?
---@return boolean
---@example marea.recording()
function core.recording() end

--- The dtype that marea.autocast has set for products; nil: none.
---@return string|nil
---@example marea.autocast(marea.autocasting)
function core.autocasting() end

--- The gradients of y, a tensor of one element unless there is a seed, with respect to xs. An x that y does not depend
--- on gets false, which is told from a gradient that is 0: usually it is a mistake.
---@param y userdata
---@param xs userdata|userdata[]
---@param options? {seed: userdata?, retain_graph: boolean?, create_graph: boolean?} seed: gradient of y, of its shape;
---create_graph: the gradients can be differentiated again
---@return userdata|boolean|(userdata|boolean)[] one, or a list for a list; false for an x that y does not depend on
---@example x = marea.tensor{1, 2, 3}:requires_grad_()
---@example marea.grad((x * x):sum(), x)
function core.grad(y, xs, options) end

--- Seed and position of the random numbers: for set_random_state.
---@return integer seed, integer counter
---@example marea.random_state()
function core.random_state() end

--- Goes on with the random numbers from a state that random_state gave.
---@param seed integer
---@param counter integer
---@example marea.set_random_state(marea.random_state())
function core.set_random_state(seed, counter) end

--- How many threads operators use. Results do not depend on it.
---@param n integer
---@example marea.set_threads(marea.threads())
function core.set_threads(n) end

--- How many threads operators use.
---@return integer
---@example marea.threads()
function core.threads() end

--- Version, instruction set, BLAS, threads, Lua.
---@return table
---@example marea.info()
function core.info() end

--- Bytes: live, peak, pooled; and blocks, mallocs, boxes.
---@return table
---@example marea.memory().live
function core.memory() end

--- Sets the peak to what is live now.
---@example marea.memory_reset_peak()
function core.memory_reset_peak() end

--- Most bytes that tensors may take; nil: no limit.
---@param bytes? integer
---@example marea.memory_limit(nil)
function core.memory_limit(bytes) end

--- Gives pooled memory back to the system.
---@example marea.memory_trim()
function core.memory_trim() end

--- A text of JSON as Lua's values: objects are tables by name, without those that are null; lists are lists, in which
--- null is false.
---@param text string
---@return any value nil when the text is no JSON
---@return string? message
---@example marea.json '{"classes": ["cat", "dog"]}'
function core.json(text) end

--- Seconds of a clock that never jumps.
---@return number
---@example marea.clock()
function core.clock() end

--- A file in MNIST's format IDX, gzip or not.
---@param path string
---@return userdata|nil t, string|nil message
---@example marea.load_idx "missing.idx"
function core.load_idx(path) end

--- A file in NumPy's format.
---@param path string
---@return userdata|nil t, string|nil message
---@example marea.load_npy "missing.npy"
function core.load_npy(path) end

--- Writes a file in NumPy's format.
---@param t userdata
---@param path string
---@return boolean|nil ok, string|nil message
---@example path = os.tmpname()
---@example marea.save_npy(marea.eye(3), path), marea.load_npy(path), os.remove(path)
function core.save_npy(t, path) end

--- The arrays of one of NumPy's archives, as numpy.savez and savez_compressed write them, by their names.
---@param path string
---@return table<string, userdata>|nil tensors, string|nil message
---@example marea.load_npz "missing.npz"
function core.load_npz(path) end

--- Writes named tensors as one of NumPy's archives, uncompressed, whole or not at all.
---@param tensors table<string, userdata>
---@param path string
---@return boolean|nil ok, string|nil message
---@example path = os.tmpname()
---@example marea.save_npz({weight = marea.eye(3)}, path), marea.load_npz(path), os.remove(path)
function core.save_npz(tensors, path) end

--- The members of a ZIP archive, stored or deflated, by their names: their bytes as u8 (n), of which t:to_bytes() makes
--- a string. Nothing is unpacked to a path.
---@param path string
---@return table<string, userdata>|nil members, string|nil message
---@example marea.load_zip "missing.zip"
function core.load_zip(path) end

--- What torch.save wrote, since PyTorch 1.6: tensors, lists, dicts, numbers, strings, booleans. Lists and tuples are
--- lists, in which None is false; dicts are tables, without the keys of None. Nothing in the file is run: one that
--- wants more than that, as a whole module does, is refused with the name of what it wants; save its state_dict(). A
--- state goes to a network by net:load_state(state, {from = "torch"}). Each tensor has memory of its own.
---@param path string
---@return any value, string|nil message
---@example marea.load_torch "missing.pt"
function core.load_torch(path) end

--- The tensors of a GGUF file, and what else it tells: its architecture, the words of its tokenizer. Versions 2 and 3;
--- blocks q8_0 and q4_0 become f32, files with others are refused with their names. Shapes are PyTorch's: the outermost
--- size first.
---@param path string
---@return table<string, userdata>|nil tensors, table<string, any>|string metadata, or the message
---@example marea.load_gguf "missing.gguf"
function core.load_gguf(path) end

--- What torch.save of Torch7, the Lua one, wrote in binary: tables, tensors, numbers, strings, booleans. Objects, as
--- the modules of nn, are tables with the name of their class under __typename; a file with functions is refused. A
--- module goes to a network by net:load_state(module, {from = "t7"}).
---@param path string
---@return any value, string|nil message
---@example marea.load_t7 "missing.t7"
function core.load_t7(path) end

--- A PNG as u8 (H, W, C): C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA. Samples are those of the file: colour profiles
--- and gamma (sRGB, iCCP, gAMA, cHRM) are passed over, alpha is not multiplied in. A palette becomes RGB, tRNS an alpha
--- channel; 1, 2 and 4 bits are scaled to 0 to 255, 16 bits give their upper byte. With bits = 16 as i64 from 0 to
--- 65535, as 16 bits are in the file; fewer are scaled.
---@param path string
---@param options? {bits: integer?} bits: 8 or 16, 8 when left out
---@return userdata|nil t, string|nil message
---@example marea.load_png "missing.png"
function core.load_png(path, options) end

--- Writes (H, W) or (H, W, 1 to 4): u8, or reals from 0 to 1. With bits = 16 i64 from 0 to 65535, or reals.
---@param t userdata
---@param path string
---@param options? {bits: integer?} bits: 8 or 16, 8 when left out
---@return boolean|nil ok, string|nil message
---@example path = os.tmpname()
---@example marea.save_png(marea.eye(8), path), os.remove(path)
function core.save_png(t, path, options) end

--- A JPEG as u8 (H, W, C): C = 1 gray, 3 RGB; CMYK becomes RGB without a profile. It is turned as its EXIF data say.
--- With min_side it is decoded at a half, a quarter or an eighth of its size, as long as the shorter side keeps so many
--- pixels: large photos take a part of the time.
---@param path string
---@param options? {min_side: integer?}
---@return userdata|nil t, string|nil message
---@example marea.load_jpeg "missing.jpg"
function core.load_jpeg(path, options) end

--- Writes (H, W) or (H, W, 1 or 3): u8, or reals from 0 to 1.
---@param t userdata
---@param path string
---@param options? {quality: integer?} quality: 1 to 100, 90 when left out
---@return boolean|nil ok, string|nil message
---@example path = os.tmpname()
---@example marea.save_jpeg(marea.eye(8), path), os.remove(path)
function core.save_jpeg(t, path, options) end

--- Writes a file of these bytes, whole or not at all: beside it first, then renamed.
---@param path string
---@param bytes string
---@return boolean|nil ok, string|nil message
---@example path = os.tmpname()
---@example marea.save_bytes(path, "a text"), os.remove(path)
function core.save_bytes(path, bytes) end

--- As string.format, with a point in numbers whatever locale the host or the script has set: for files, and for what
--- is read by programs.
---@param format string
---@param ... any
---@return string
---@example marea.format("%.3f", math.pi)
function core.format(format, ...) end

--- The bytes that save_png would write, for programs that send pictures instead of keeping them.
---@param t userdata
---@return string
---@example #marea.encode_png(marea.eye(8))
function core.encode_png(t) end

--- Writes named tensors and texts as one safetensors file, whole or not at all.
---@param path string
---@param tensors table<string, userdata>
---@param texts? table<string, string>
---@return boolean|nil ok, string|nil message
---@example path = os.tmpname()
---@example marea.save(path, {weight = marea.eye(3)}), marea.load(path), os.remove(path)
function core.save(path, tensors, texts) end

--- The tensors and texts of a safetensors file.
---@param path string
---@return table<string, userdata>|nil tensors, table<string, string>|string texts, or the message
---@example marea.load "missing.safetensors"
function core.load(path) end

--- The bytes of the file that save would write, for a database, a message or another program.
---@param tensors table<string, userdata>
---@param texts? table<string, string>
---@return string bytes
---@example #marea.save_string{weight = marea.eye(3)}
function core.save_string(tensors, texts) end

--- What load gives for a file of these bytes.
---@param bytes string
---@return table<string, userdata>|nil tensors, table<string, string>|string texts texts, or the message
---@example marea.load_string(marea.save_string{weight = marea.eye(3)}).weight
function core.load_string(bytes) end

--- Size of a dimension; without one, all sizes.
---@param dim? integer 1 is the first, -1 the last
---@return integer ...
---@example marea.zeros{2, 3}:size(-1)
function Tensor:size(dim) end

--- Number of elements.
---@return integer
---@example marea.zeros{2, 3}:numel()
function Tensor:numel() end

--- The number in a tensor of one element.
---@return number
---@example marea.ones{2, 3}:sum():item()
function Tensor:item() end

--- Nested tables of numbers; a number for rank 0.
---@return table|number
---@example marea.eye(2):totable()
function Tensor:totable() end

--- The elements of a u8 tensor as a string, in row-major order: what marea.bytes took.
---@return string
---@example marea.bytes("Marea"):flip(1):to_bytes()
function Tensor:to_bytes() end

--- What print shows: dtype, shape, statistics of the finite elements, a corner.
---@return string
---@example marea.zeros{1000, 1000}:tostring()
function Tensor:tostring() end

--- Do the elements lie in row-major order without gaps?
---@return boolean
---@example marea.zeros{2, 3}:transpose(1, 2):is_contiguous()
function Tensor:is_contiguous() end

--- Do both look at the same memory?
---@param u userdata
---@return boolean
---@example x = marea.zeros{4}
---@example x:shares(x:reshape(2, 2))
function Tensor:shares(u) end

--- How often its memory was changed in place.
---@return integer
---@example marea.zeros{2}:add_(1):changes()
function Tensor:changes() end

--- Does something refer to it that was recorded? Then a change in place may break that graph.
---@return boolean
---@example w = marea.ones{2}:requires_grad_()
---@example y = (w * 2):sum()
---@example w:in_graph()
function Tensor:in_graph() end

--- Copies src into this tensor; broadcasts and converts.
---@param src userdata
---@return userdata self
---@example marea.zeros{2, 2}:copy_(marea.ones{2})
function Tensor:copy_(src) end

--- Makes every element this number.
---@param value number
---@return userdata self
---@example marea.zeros{2, 2}:fill_(7)
function Tensor:fill_(value) end

--- Makes every element 0.
---@return userdata self
---@example marea.ones{2, 2}:zero_()
function Tensor:zero_() end

--- Makes a leaf one whose gradient is wanted.
---@param on? boolean true when left out
---@return userdata self
---@example marea.zeros{2}:requires_grad_().requires_grad
function Tensor:requires_grad_(on) end

--- Computes the gradients of the leaves that this tensor was made from and adds them to their grad.
---@param options? userdata|{seed: userdata?, retain_graph: boolean?, create_graph: boolean?} seed: the gradient of this
---tensor, of its shape; not needed for one element
---@example x = marea.tensor{1, 2}:requires_grad_()
---@example (x * x):sum():backward()
---@example x.grad
function Tensor:backward(options) end

--- Forgets the gradient.
---@return userdata self
---@example marea.zeros{2}:requires_grad_():clear_grad()
function Tensor:clear_grad() end

--- The same memory without history.
---@return userdata
---@example marea.zeros{2}:requires_grad_():detach().requires_grad
function Tensor:detach() end

--- This tensor in another dtype; itself if it has that one.
---@param dtype string "f32", "f64", "i64", "u8", "bf16" or "f16"
---@return userdata
---@example marea.tensor{1.7}:to "i64"
function Tensor:to(dtype) end

--- Gives the memory back now.
---@example marea.zeros{2}:release()
function Tensor:release() end

--- No scope releases it any more.
---@return userdata self
---@example marea.scope(function() kept = marea.ones{2}:keep() end)
---@example kept
function Tensor:keep() end

--- Was its memory given back, by release or at the end of a scope?
---@return boolean
---@example marea.zeros{2}:is_released()
function Tensor:is_released() end
