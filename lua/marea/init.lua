-- SPDX-License-Identifier: MIT
--- Marea: `local marea = require "marea"` gives one table, with every operator (marea.conv2d, marea.exp, ...), the
--- functions of the core (marea.tensor, marea.scope, ...) and the submodules nn, optim, dist, importance, data, decode,
--- augment, judge, checkpoint, progress, metrics, image, blame, gradcheck, keras, memory_report, onnx, plan, plot,
--- profile, rerun, sandbox and text, which are loaded when they are first used.
-- Each of them is a file or a folder beside this file. There are also explain/, behind marea.explain and
-- marea.traceback; repl/, the prompt, which programs load by `require "marea.repl"`; and internal/, what they share.
-- Lua 5.1 and its followers read this file as far as here at least: nothing in it is unknown to their parsers.
if _VERSION ~= "Lua 5.4" then error("marea: this is " .. _VERSION .. "; Marea needs Lua 5.4", 0) end

local core = require "marea.core"
local check = require "marea.internal.check"
local pictures = require "marea.internal.pictures"
local events = require "marea.internal.events"
local parts = require "marea.internal.parts"
local random = require "marea.internal.random"
local unwind = require "marea.internal.unwind"

local marea = {}

-- LUA_PATH may find ?/init.lua elsewhere, or under another name for the same place, than ?.lua.
check.library(debug.getinfo(1, "S").source, "init.lua")

for _, functions in ipairs{core.ops, core.files} do
  for name, f in pairs(functions) do marea[name] = f end
end

for _, name in ipairs{
  "tensor", "bytes", "is_tensor", "op_names", "op_info", "scope", "no_grad", "recording", "autocasting", "grad",
  "random_state", "set_random_state", "set_threads", "threads", "info", "memory", "memory_reset_peak", "memory_limit",
  "memory_trim", "format", "clock", "json", "shield", "interruptible",
} do
  marea[name] = core[name]
end

local LOWER = {bf16 = "bf16", f16 = "f16", f32 = "f32"}

--- A scope in which products take operands of fewer bits: matmul, linear and convolutions convert their f32 inputs
--- to `dtype`, add up in f32 and give results of `dtype`; recurrent layers and attention round the operands of their
--- products to bf16 (with "f16" they do not) and give f32; losses, norms, softmax, sums and powers of such results
--- are f32. Weights, their gradients and optimizers stay f32; a weight that is used twice is converted once. The
--- reverse pass may run outside. With dtype "f32" the scope switches an outer one off.
---@param options function|{dtype: string?} f, or "bf16" (left out), "f16" or "f32" before f
---@param ... any f after options, and its arguments
---@return any ... what f returns
---@example w = marea.ones{3, 2}:requires_grad_()
---@example marea.autocast(function() return marea.ones{4, 3}:matmul(w) end).dtype
---@example marea.autocast({dtype = "f32"}, function() return marea.ones{4, 3}:matmul(w) end).dtype
function marea.autocast(options, ...)
  if not check.is_plain(options) then return core.autocast("bf16", options, ...) end
  local dtype = check.options("autocast", options, {"dtype"}).dtype or "bf16"
  return core.autocast(check.choice("autocast", "dtype", dtype, LOWER), ...)
end

--- Seeds the random operators, the orders of datasets and Lua's math.random. Same seed, same numbers, for any number of
--- threads.
---@param n integer
---@example marea.seed(1)
function marea.seed(n)
  core.seed(n)
  math.randomseed(n)
  random.streams = 0
  if events.watcher then events.watcher:seeded(n) end
end

local function caught(ok, ...)
  if ok then return true, ... end
  local problem, interrupted = ...
  if not interrupted then error(problem, 0) end
  return false, problem
end

--- Runs f(...), for scripts that go on after Ctrl-C: true and f's results, or false and the message `interrupted!`
--- when Ctrl-C ended it. Other errors go on. A pcall holds Ctrl-C for 80 ms only, for cleanup.
---@param f function
---@return boolean finished, any ... the results, or the message
---@example marea.catch_interrupt(function(x) return 2 * x end, 21)
function marea.catch_interrupt(f, ...)
  local meta = getmetatable(f)
  if type(f) ~= "function" and not (type(meta) == "table" and meta.__call) then
    check.fail("catch_interrupt", "f", "a function", f)
  end
  return caught(core.interruptible(core.protected, f, nil, ...))
end

--- Cleanup for a variable that is closed, however its block is left: `local _ <close> = marea.finally(f)` calls
--- f(problem) at the block's end, problem being the error or nil. It runs to its end whatever Ctrl-C waits. Lua closes
--- no variables in a coroutine that ends by an error or is dropped while it waits; there it runs when the next such
--- block begins or a module is called.
---@param f fun(problem: any)
---@return table
---@example local _ <close> = marea.finally(function() print "left" end)
function marea.finally(f)
  if type(f) ~= "function" then check.fail("finally", "f", "a function", f) end
  return unwind.finally(f)
end

local function filled(name, value, ...)
  local arguments, shape, options = {value = value}, ...
  local given = 0
  if type(shape) == "table" then
    if not check.is_plain(shape) then check.fail(name, "shape", "sizes or a list of sizes", shape) end
    for key, item in pairs(shape) do arguments[key] = item end
    if options ~= nil and type(options) ~= "table" then
      check.raise("%s: expected options by name, as in {dtype = \"f64\"}, got %s", name, check.describe(options))
    end
    for key, item in pairs(options or {}) do arguments[key] = item end
  else
    given = select("#", ...)
    table.move({...}, 1, given, 1, arguments)
  end
  local rank = check.length(name, arguments, "size", given)
  if rank > 8 then check.raise("%s: %d dimensions; a tensor has at most 8", name, rank) end
  for i = 1, rank do
    local size = arguments[i]
    if math.type(size) ~= "integer" or size < 0 then check.integer(name, ("size %d"):format(i), size, 0) end
  end
  if rank > 0 then return core.ops.full(arguments) end
  return core.ops.full({}, arguments)
end

--- zeros(2, 3), zeros({2, 3}, {dtype = "f64"}) and zeros{2, 3, dtype = "f64"} give a tensor (2, 3).
---@param ... integer|table sizes
---@return userdata
---@example marea.zeros{2, 3, dtype = "i64"}
function marea.zeros(...) return filled("zeros", 0, ...) end

--- As zeros, with ones.
---@param ... integer|table sizes
---@return userdata
---@example marea.ones(2, 3)
function marea.ones(...) return filled("ones", 1, ...) end

--- A tensor of x's shape and dtype.
---@param x userdata
---@param value number
---@param options? {dtype: string?}
---@return userdata
---@example marea.full_like(marea.zeros{2, 3}, 7)
function marea.full_like(x, value, options)
  check.tensor("full_like", "x", x)
  local dtype = check.options("full_like", options, {"dtype"}).dtype
  return core.ops.full(x.shape, value, dtype or x.dtype)
end

--- Zeros of x's shape and dtype.
---@param x userdata
---@param options? {dtype: string?}
---@return userdata
---@example marea.zeros_like(marea.normal{2, 3})
function marea.zeros_like(x, options) return marea.full_like(x, 0, options) end

--- Ones of x's shape and dtype.
---@param x userdata
---@param options? {dtype: string?}
---@return userdata
---@example marea.ones_like(marea.normal{2, 3}, {dtype = "f64"})
function marea.ones_like(x, options) return marea.full_like(x, 1, options) end

core.on_not_finite(function(t) return require "marea.blame"(t).text end)

--- The picture of a tensor as a text for the terminal: of a matrix (H, W), an image (H, W, 1 or 3), images (N, H, W, 1
--- or 3) in a grid, a row (W). Values from 0 to 1 (u8: to 255) are shown as they are; others are scaled to fill that
--- range, which the line below then names.
---@param path? string a PNG to write in place of the text
---@param options? {map: string?, width: integer?, height: integer?} map: "gray", "viridis" or "gnuplot2"; width, height
---in letters: the terminal's size when left out
---@return Shown|boolean|nil shown to be printed, or true
---@return string|nil message when the PNG cannot be written
---@example marea.eye(8):show()
function core.methods.show(t, path, options) return require "marea.internal.show".show(t, path, options) end

--- The elements of a dimension as a list of views, x[1] to x[n] for the first one; as many as there are. A loop over
--- them costs what it reads, its gradient too.
---@param x userdata
---@param dim? integer the first when left out
---@return userdata[]
---@example marea.unbind(marea.tensor{{1, 2}, {3, 4}}, 2)
function marea.unbind(x, dim) return parts.unbind(x, dim) end

--- As split, as a list and without a limit: views of `size` elements of a dimension each, the last one perhaps smaller.
---@param x userdata
---@param size integer
---@param dim? integer the first when left out
---@return userdata[]
---@example marea.parts(marea.arange(1, 5), 2)
function marea.parts(x, size, dim) return parts.parts(x, size, dim) end

core.methods.unbind, core.methods.parts = marea.unbind, marea.parts

--- A PNG as load_png gives it or a JPEG as load_jpeg does, by the file's first bytes; with `size` resized to it, over
--- all pixels that fall into one (bilinear, as PIL's resize), in 3 channels.
---@param path string
---@param options? {size: integer|integer[], fit: string?, channels: integer?} size: pixels, or {height, width}; fit:
---   "crop", the middle of the picture, when left out, or "stretch", all of it; channels: 3, or 1 for gray
---@return userdata|nil t u8 (H, W, C), string|nil message
---@example marea.load_image("missing.jpg", {size = {224, 224}})
function marea.load_image(path, options)
  if options == nil then return core.load_picture(path) end
  local o = pictures.read_options("load_image", options, {})
  return core.load_picture(path, o.height, o.width, o.channels, o.crop)
end

--- The sound in a WAV file: PCM of 8 to 32 bits, floats, mu-law or A-law. It needs the optional module marea.sndfile.
---@param path string
---@return userdata|nil t f32 (frames, channels), -1 to 1
---@return integer|string rate frames a second, or a message
---@example marea.load_wav "missing.wav"
function marea.load_wav(path) return require "marea.internal.wav".load(path) end

--- Writes sound as a WAV file; samples beyond -1 and 1 are cut off, but with 32 bits, which are floats.
---@param t userdata (frames) or (frames, channels), f32 or f64
---@param path string
---@param rate integer frames a second
---@param options? {bits: integer?} 16 when left out, 24 or 32
---@return boolean|nil done, string|nil message
---@example path = os.tmpname()
---@example marea.save_wav((marea.arange(0, 7999) * (2 * math.pi * 440 / 8000)):sin(), path, 8000)
---@example x, rate = marea.load_wav(path)
---@example x.shape, rate, os.remove(path)
function marea.save_wav(t, path, rate, options) return require "marea.internal.wav".save(t, path, rate, options) end

--- The columns of a CSV file, whose first line names them: numbers are tensors (rows), i64 where all are whole and none
--- is missing, else f64, in which missing ones are NaN; other columns are lists of strings, in which missing ones are
--- false. Fields may be quoted, with separators, ends of lines and doubled quotes in them. A row of another length than
--- the first is refused. It needs the optional module marea.csv.
---@param path string
---@param options? {separator: string?, header: boolean?, names: string[]?, missing: string[]?, types: table?}
---   separator: "," when left out, no character of numbers; header = false: the first line has values; names: of the
---   columns, in place of those in the file or of "1", "2", ...; missing: what stands for no value besides nothing at
---   all, NA, NaN, NULL and the like when left out; types: "text", "f32", "f64" or "i64" by name, where it is to be
---   another
---@return table<string, userdata|table>|nil columns
---@return string[]|string names in the file's order, or a message
---@example path = os.tmpname()
---@example marea.save_bytes(path, "name,size,price\nchair,3,9.5\ntable,1,\n")
---@example columns, names = marea.load_csv(path)
---@example columns.size, columns.price, columns.name[2], os.remove(path)
function marea.load_csv(path, options) return require "marea.internal.csv".load(path, options) end

--- Writes columns as a CSV file with their names in the first line. Numbers keep all their digits.
---@param columns table<string, userdata|table> tensors (rows), or lists of texts and numbers; false: a missing one
---@param path string
---@param options? {separator: string?, names: string[]?} names: which columns, in this order; left out: all, sorted
---@return boolean|nil done, string|nil message
---@example path = os.tmpname()
---@example marea.save_csv({size = marea.tensor{3, 1}, name = {"chair", "table"}}, path), os.remove(path)
function marea.save_csv(columns, path, options) return require "marea.internal.csv".save(columns, path, options) end

--- For message handlers: a message of Lua's own ("attempt to call a nil value (field 'con1')") with a hint below it, if
--- there is one; anything else as it is. The messages of the library have theirs already.
---@param message any
---@return any
---@example xpcall(function() return marea.zeros{2} < 3 end, marea.explain)
function marea.explain(message) return require "marea.explain".explain(message) end

--- A message handler, as in xpcall(f, marea.traceback): the explained message and the script's frames. With
--- MAREA_TRACEBACK=full in the environment all frames.
---@param message any
---@return any
---@example xpcall(function() return marea.zeros{2}:shap() end, marea.traceback)
function marea.traceback(message) return require "marea.explain".traceback(message) end

return check.strict(marea, "marea", {
  nn = "marea.nn",
  optim = "marea.optim",
  dist = "marea.dist",
  importance = "marea.importance",
  onnx = "marea.onnx",
  keras = "marea.keras",
  data = "marea.data",
  decode = "marea.decode",
  augment = "marea.augment",
  blame = "marea.blame",
  judge = "marea.judge",
  checkpoint = "marea.checkpoint",
  progress = "marea.progress",
  memory_report = "marea.memory_report",
  metrics = "marea.metrics",
  gradcheck = "marea.gradcheck",
  image = "marea.image",
  plan = "marea.plan",
  plot = "marea.plot",
  profile = "marea.profile",
  rerun = "marea.rerun",
  sandbox = "marea.sandbox",
  text = "marea.text",
})
