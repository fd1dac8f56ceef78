-- SPDX-License-Identifier: MIT
--- Writes what editors read to know the library: LuaCATS declarations of every public function, class and argument,
--- from the operators' descriptors and the comments of the Lua sources.
---
---   build/marea docs/generate/types.lua lua/marea/*.lua ... > build/types/marea.lua        (make types)
local core = require "marea.core"
local check = require "marea.internal.check"
local docs = require "marea.repl.docs"
local example = require "marea.repl.example"
local complete = require "marea.repl.complete"
local marea = require "marea"

local out = {}
local function emit(format, ...) out[#out + 1] = select("#", ...) > 0 and format:format(...) or format end

local function emit_text(text)
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do emit("---" .. line) end
end

-- ---- types ----

--- LuaCATS' for the kinds of an operator's attributes.
local KINDS = {
  int = "integer", real = "number", number = "number", bool = "boolean", dim = "integer", index = "integer",
  dtype = "Dtype",
  dims = "integer|integer[]", sizes = "integer|integer[]", pair = "integer|integer[]",
  padding = '"same"|"valid"|integer|integer[]', sides = '"same"|"valid"|integer|integer[]',
}

local function choices(list) return '"' .. table.concat(list, '"|"') .. '"' end

local function attribute_type(spec) return spec.choices and choices(spec.choices) or KINDS[spec.kind] end

local ACTIVATION = choices(require "marea.nn.activation_argument".names())
local INITIALIZER = choices(require "marea.nn.initializers".names()) .. "|fun(shape: integer[], ...: any): Tensor"

--- Arguments by name that mean the same wherever they are taken.
local KEYWORDS = {
  activation = ACTIVATION, init = INITIALIZER, bias_init = INITIALIZER, dtype = "Dtype", name = "string",
  kernel = KINDS.pair, stride = KINDS.pair, dilation = KINDS.pair, output_padding = KINDS.pair,
  output_size = KINDS.pair, ceil_mode = "boolean",
  padding = KINDS.padding, groups = "integer", algorithm = '"auto"|"direct"',
  dim = "integer", bias = "boolean", center = "boolean",
  count_padding = "boolean",
  sparse = "boolean", slope = "number", alpha = "number", eps = "number", momentum = "number", p = "number",
  lr = "number|fun(step: integer): number", beta1 = "number", beta2 = "number", rho = "number", nesterov = "boolean",
  weight_decay = "number", clip_value = "number", clip_norm = "number", allow_not_finite = "boolean",
  hard = "boolean", seed = "integer", low = "integer", high = "integer", mean = "number",
  title = "string", xlabel = "string", ylabel = "string", colorlabel = "string", xrange = "number[]",
  yrange = "number[]", logx = "boolean", logy = "boolean", width = "integer", height = "integer", line = "number",
  labels = "string[]", values = "boolean", map = choices{"gray", "viridis", "gnuplot2"}, xticks = "string[]",
  yticks = "string[]", from = "Dataset", size = "integer", most = "integer", gap = "integer", sd = "number",
  bins = "integer", color = "string", captions = "string[]", columns = "integer",
  x = "Tensor|number[]", y = "Tensor|number[]", class = "Tensor|integer[]", names = "string[]", legend = "boolean",
  diagonal = "boolean", memory = "integer", results = "integer", string = "integer", tensor_memory = "integer",
  threads = "integer", seconds = "number", instructions = "integer", flop = "number", read = "string[]",
  write = "string[]",
  globals = "table", recurrent_init = INITIALIZER, recurrent_activation = choices{"sigmoid", "hard_sigmoid"},
  elementwise_affine = "boolean", kv_heads = "integer", dim_feedforward = "integer", layer_norm_eps = "number",
  norm_first = "boolean", base = "number", score = choices{"additive", "dot", "encoder"}, query = "integer",
  key = "integer", scaled = "boolean", rotary = "boolean|number", adam = "boolean",
  forget_bias = "number", reset_after = "boolean", layers = "integer", bidirectional = "boolean", dropout = "number",
  counts = "table<string, number>", words = "string[]", min_count = "number", special = "string[]", share = "number",
}

--- Those that mean something else in a part: a distribution's parameters are tensors; `scale` is a switch of
--- normalisations and the factor of layers that enlarge.
local OWN = {nn = {scale = "boolean|integer"}, dist = {}, text = {}}
for _, name in ipairs{"probs", "logits", "loc", "scale", "mean", "std", "rate", "low", "high", "temperature"} do
  OWN.dist[name] = "Tensor|number"
end

for _, name in ipairs{"padding", "unknown", "begin", "stop"} do OWN.text[name] = "string|boolean" end

--- What stands in front, without a name.
local POSITIONAL = {
  nn = "integer|integer[]|number|Module", optim = "Module|Module[]|Tensor|table", dist = "Tensor|number",
  data = "Tensor|table", ["data.synthetic"] = "integer", text = "string[]|string[][]", plot = "table|Tensor|number",
}

local function translated(kind)
  local function tensor(before, after)
    return before .. "Tensor" .. after
  end
  kind = (" " .. kind .. " "):gsub("([^%w_])userdata([^%w_])", tensor):gsub("([^%w_])userdata([^%w_])", tensor)
  local of_dist = rawget(marea.dist, kind:match "^%s*(%u%w*)%s*$" or "") and "dist." or ""
  return of_dist .. kind:gsub("^%s+", ""):gsub("%s+$", "")
end

local SIMPLE = {any = true, boolean = true, ["function"] = true, integer = true, ["nil"] = true, number = true,
  string = true, table = true, userdata = true, ["false"] = true, ["true"] = true}

--- Is it a type, rather than a word of a sentence?
local function is_type(word)
  word = word:match "^[^|]*":gsub("[%?%[%]]+$", "")
  return SIMPLE[word] or word:find "^%u[%w]*$" or word:find "^[%(%{]" or word:find "^table<" or word:find "^fun%("
    or word == "self"
end

--- "boolean|nil ok, string|nil message" -> one result after the other.
local function emit_returns(entry)
  for _, text in ipairs(entry.returns) do
    local rest = text
    repeat
      local kind, after = docs.split_type(rest)
      local comma = kind:find ",$" and is_type(kind:sub(1, -2))
      local words, following = after, nil
      if comma then kind, words, following = kind:sub(1, -2), "", after
      else
        local at = 1
        while at do
          local from, to = after:find(",%s+", at)
          local next_type = from and docs.split_type(after:sub(to + 1))
          if next_type and is_type(next_type:gsub(",$", "")) then
            words, following = after:sub(1, from - 1), after:sub(to + 1)
            break
          end
          at = to and to + 1
        end
      end
      emit("---@return %s", (translated(kind) .. " " .. words):gsub("%s+$", ""))
      rest = following
    until not rest
  end
end

-- ---- operators ----

local function is_named(list, name)
  for _, item in ipairs(list) do
    if item == name then return true end
  end
  return false
end

local function input_type(info, input)
  if input.variadic then return "Tensor[]" end
  return info.takes_numbers and "Tensor|number" or "Tensor"
end

local function attribute_line(spec, tag)
  local initial = spec.initial ~= nil and (" (%s)"):format(spec.initial) or ""
  emit("---@%s %s%s %s %s%s", tag, spec.name, spec.required and "" or "?", attribute_type(spec),
    (spec.doc or ""):gsub("\n", " "), initial)
end

local function emit_options(info)
  if #info.attrs == 0 then return end
  emit("---@class marea.%s.options", info.name)
  if is_named({"sizes", "dims"}, info.attrs[1].kind) then emit("---@field [integer] integer sizes or dimensions") end
  for _, spec in ipairs(info.attrs) do
    attribute_line(spec.required and setmetatable({required = false}, {__index = spec}) or spec, "field")
  end
  emit ""
end

-- Operators whose arguments say how many results there are.
local SEVERAL = {split = {"Tensor ..."}, chunk = {"Tensor ..."}, unique = {"Tensor", "Tensor?", "Tensor?"}}

--- The types of what the operator gives, learned from its example: what may be left out is nil in some calls.
local function results_of(info)
  local results = table.pack(example.run(assert(example.of(info), info.name)))
  local kinds = {}
  for i = 2, results.n do kinds[#kinds + 1] = results[i] == nil and "Tensor?" or "Tensor" end
  return SEVERAL[info.name] or kinds
end

--- The form in which the attributes stand behind the inputs, without names.
local function overload(info, from, results)
  local parts = {}
  for i = from, #info.inputs do
    local input = info.inputs[i]
    parts[#parts + 1] = ("%s%s: %s"):format(input.name, input.optional and "?" or "", input_type(info, input))
  end
  local first = info.attrs[1]
  if from == 2 then table.insert(parts, 1, "self: Tensor") end
  local spread = is_named({"sizes", "dims"}, first.kind) and #info.inputs > 0
  if spread then emit("---@overload fun(%s): %s", table.concat(parts, ", ") .. ", ...: integer", results) end
  for _, spec in ipairs(info.attrs) do
    parts[#parts + 1] = ("%s%s: %s"):format(spec.name, spec.required and "" or "?", attribute_type(spec))
  end
  emit("---@overload fun(%s): %s", table.concat(parts, ", "), results)
end

local function emit_operator(info, place, name, results)
  local from, arguments = place == "Tensor:" and 2 or 1, {}
  emit_text(info.doc)
  for i = from, #info.inputs do
    local input = info.inputs[i]
    emit("---@param %s%s %s %s", input.name, input.optional and "?" or "", input_type(info, input), input.doc or "")
    arguments[#arguments + 1] = input.name
  end
  if #info.attrs > 0 then
    local must = #info.inputs == 0 and info.attrs[1].required
    emit("---@param options%s marea.%s.options", must and "" or "?", info.name)
    arguments[#arguments + 1] = "options"
  end
  for _, kind in ipairs(results) do emit("---@return %s", kind) end
  if #info.attrs > 0 then overload(info, from, #results > 0 and table.concat(results, ", ") or "nil") end
  emit("function %s%s(%s) end", place, name, table.concat(arguments, ", "))
  emit ""
end

--- x:stack(y, z, {dim = 1})
local function emit_variadic(info, results)
  emit_text(info.doc)
  emit("---@param ... Tensor|marea.%s.options", info.name)
  emit("---@return %s", results[1])
  emit("function Tensor:%s(...) end", info.name)
  emit ""
end

local function emit_operators()
  for _, name in ipairs(core.op_names()) do
    local info = core.op_info(name)
    local results, first = results_of(info), info.inputs[1]
    emit_options(info)
    emit_operator(info, "marea.", name, results)
    if first and first.variadic then emit_variadic(info, results)
    elseif first then
      emit_operator(info, "Tensor:", name, results)
      if info.elementwise then emit_operator(info, "Tensor:", name .. "_", {"Tensor"}) end
    end
  end
end

-- ---- what Lua sources say ----

local missing = {} -- arguments without a type: the library is to say what they are

local function note_missing(where, name) missing[#missing + 1] = ("%s: %s"):format(where, name) end

local function emit_params(entry, where)
  local known = {}
  for _, param in ipairs(entry.params) do
    known[param.name] = true
    emit("---@param %s%s %s %s", param.name, param.optional and "?" or "", translated(param.type), param.text)
  end
  for _, argument in ipairs(entry.arguments) do
    if not known[argument] and argument ~= "_" and argument ~= "..." then note_missing(where, argument) end
  end
end

--- name(a, b): arguments as they are written.
local function emit_function(entry, where, separator, name)
  local arguments = {}
  for i, argument in ipairs(entry.arguments) do arguments[i] = argument == "_" and "_" .. i or argument end
  emit_text(table.concat(entry.text, "\n"))
  emit_params(entry, where .. separator .. name)
  emit_returns(entry)
  emit("function %s%s%s(%s) end", where, separator, name, table.concat(arguments, ", "))
  emit ""
end

local function keyword_type(part, keyword, where)
  local kind = OWN[part] and OWN[part][keyword] or KEYWORDS[keyword]
  if not kind then note_missing(where, keyword) end
  return kind or "unknown"
end

--- f{...}: a class of its arguments, and the function that takes them.
local function emit_maker(part, name, value, result, text)
  local where = part .. "." .. name
  emit("---@class %s.options", where)
  if POSITIONAL[part] then emit("---@field [integer] %s", POSITIONAL[part]) end
  for _, keyword in ipairs(docs.keywords(value)) do
    emit("---@field %s? %s", keyword, keyword_type(part, keyword, where))
  end
  emit ""
  emit_text(text)
  emit("---@param options? %s.options", where)
  if part == "dist" then emit("---@overload fun(...: Tensor|number): %s", result) end
  emit("---@return %s", result)
  emit("function %s(options) end", where)
  emit ""
end

--- Text of a class: its operator's, or its own, that of its constructor and of its file, where there are such.
local function class_text(value)
  local operator = rawget(value, "operator")
  if type(operator) == "string" then return core.op_info(operator).doc end
  local meta, entry, lines = getmetatable(value), docs.of(value), {}
  local make = docs.of(rawget(value, "init") or not rawget(value, "__module") and meta and rawget(meta, "__call"))
  for _, part in ipairs{entry or {}, make or {}, entry and entry.file or {}} do
    table.move(part.text or {}, 1, #(part.text or {}), #lines + 1, lines)
  end
  return table.concat(lines, "\n")
end

local BASES = {nn = "Module", optim = "Optimizer", dist = "Distribution"}

--- What a distribution's methods take and give, where their comments leave it to the convention of marea.dist: values
--- and shares are tensors, or numbers when all parameters are.
local VALUE = {type = "Tensor|number", text = "", optional = false}

local function conventional(entry)
  local params, known = {}, {}
  for _, param in ipairs(entry.params) do params[#params + 1], known[param.name] = param, true end
  for _, argument in ipairs(entry.arguments) do
    if not known[argument] then params[#params + 1] = setmetatable({name = argument}, {__index = VALUE}) end
  end
  local returns = #entry.returns > 0 and entry.returns or {VALUE.type}
  return setmetatable({params = params, returns = returns}, {__index = entry})
end

local function emit_distribution(value)
  local names, entry = check.names(value), docs.of(value)
  for _, field in ipairs(entry.fields) do emit("---@field %s %s %s", field.name, translated(field.type), field.text) end
  emit("local %s = {}", entry.short)
  emit ""
  for _, name in ipairs(names) do
    local method = type(rawget(value, name)) == "function" and name:find "^%a" and docs.of(rawget(value, name))
    if method and #method.text > 0 and method.short == name then
      emit_function(conventional(method), entry.short, ":", name)
    end
  end
end

local function emit_class_of(part, name, value)
  local result = name
  if BASES[part] then
    result = part .. "." .. name
    emit("---@class %s: %s", result, BASES[part])
    if part == "nn" then emit("---@operator call(...): Tensor") end
    if part == "dist" then emit_distribution(value) end
    emit ""
  end
  emit_maker(part, name, value, result, class_text(value))
end

local function emit_value(part, name, value)
  local entry = docs.of(value)
  if part ~= "marea" and rawequal(value, rawget(marea, name)) then
    return emit("%s.%s = marea.%s\n", part, name, name)
  end
  if type(value) == "table" and rawget(value, "__name") then return emit_class_of(part, name, value) end
  if type(value) ~= "function" or not entry then return end
  if #entry.params == 0 and entry.arguments[1] == "options" then
    return emit_maker(part, name, value, entry.returns[1] or "nil", table.concat(entry.text, "\n"))
  end
  emit_function(entry, part, ".", name)
end

--- The name of a part as a place in the file: marea's own are marea.f, nn.Linear stays short.
local PARTS = {"nn", "nn.init", "optim", "optim.schedule", "dist", "data", "data.synthetic", "image", "plot",
  "augment", "judge", "checkpoint", "metrics", "importance", "text", "decode", "onnx", "keras"}
local CALLED = {"blame", "gradcheck", "memory_report", "plan", "profile", "progress", "rerun", "sandbox"}

local function emit_part(part)
  local place = complete.value({marea = marea}, part == "marea" and part or "marea." .. part)
  for _, name in ipairs(check.names(place)) do
    local value = rawget(place, name)
    if name:find "^%a" and core.ops[name] ~= value then emit_value(part, name, value) end
  end
end

local function emit_parts()
  for _, part in ipairs(PARTS) do
    emit("---@class marea.%s", part)
    emit(part:find "%." and "%s = {}" or "local %s = {}", part)
    emit ""
    emit_part(part)
    if not part:find "%." then emit("marea.%s = %s\n", part, part) end
  end
end

local function overload_of(entry)
  local parts = {}
  for _, param in ipairs(entry.params) do
    parts[#parts + 1] = ("%s%s: %s"):format(param.name, param.optional and "?" or "", translated(param.type))
  end
  local result = entry.returns[1] and translated((docs.split_type(entry.returns[1]):gsub(",$", ""))) or "nil"
  return ("fun(%s): %s"):format(table.concat(parts, ", "), result)
end

--- marea.plan(...) and its like: modules that are called, with functions of their own beside.
local function emit_called(name)
  local module = marea[name]
  if type(module) == "function" then
    local entry = docs.of(module)
    return emit_maker("marea", name, module, entry.returns[1], table.concat(entry.text, "\n"))
  end
  local entry = docs.of(getmetatable(module).__call)
  emit_text(table.concat(entry.text, "\n"))
  emit("---@class marea.%s", name)
  emit("---@overload %s", overload_of(entry))
  emit("marea.%s = {}", name)
  emit ""
  for _, key in ipairs(check.names(module)) do
    local value = rawget(module, key)
    if type(value) == "function" and docs.of(value) and not rawget(module, "__index") then
      emit_function(docs.of(value), "marea." .. name, ".", key)
    end
  end
end

-- ---- classes ----

--- The classes that functions give, with their fields and methods, from the sources.
local CLASSES = {"Batches", "Blame", "BytePair", "Dataset", "Distribution", "Figure", "Gaussian", "Gradcheck",
  "MemoryReport", "Metrics", "Module", "Optimizer", "Plan", "Progress", "Range", "Report", "RerunReport", "Sandbox",
  "Shown", "Tensor", "Stream", "Vocabulary"}

local SPECIAL = {
  Tensor = {"---@operator add(Tensor|number): Tensor", "---@operator sub(Tensor|number): Tensor",
    "---@operator mul(Tensor|number): Tensor", "---@operator div(Tensor|number): Tensor",
    "---@operator pow(Tensor|number): Tensor", "---@operator mod(Tensor|number): Tensor",
    "---@operator idiv(Tensor|number): Tensor", "---@operator unm: Tensor", "---@operator len: integer",
    "---@field [integer] Tensor a row", "---@field [integer[]] number an element",
    "---@field [Tensor] Tensor elements by a mask (u8) or by positions (i64)"},
  Module = {"---@operator call(...): Tensor"},
  Distribution = {"---@field rsample fun(self: Distribution, shape?: integer[]): Tensor|number",
    "---@field log_prob fun(self: Distribution, x: Tensor|number): Tensor|number",
    "---@field entropy fun(self: Distribution): Tensor|number"},
  Dataset = {"---@operator len: integer"},
  Batches = {"---@operator call: Tensor", "---@operator len: integer"},
  Vocabulary = {"---@operator len: integer"}, BytePair = {"---@operator len: integer"},
}

--- Methods of tensors that are added in Lua, under other names in their files.
local function emit_added_methods(known)
  for _, name in ipairs(check.names(core.methods)) do
    if not core.ops[name:gsub("_$", "")] and not known[name] then
      local entry = docs.of(core.methods[name])
      local arguments = table.move(entry.arguments, 2, #entry.arguments, 1, {}) -- without the tensor itself
      emit_function(setmetatable({arguments = arguments}, {__index = entry}), "Tensor", ":", name)
    end
  end
end

local function emit_class(name, paths)
  local heading, methods = nil, {}
  for _, path in ipairs(paths) do
    for _, entry in ipairs((docs.file(path))) do
      if entry.class == name then heading = entry end
      local method = entry.kind == "function" and entry.name:match("^" .. name .. ":([%a][%w_]*)$")
      if method and #entry.text > 0 then methods[#methods + 1] = {name = method, entry = entry} end
    end
  end
  emit_text(heading and table.concat(heading.text, "\n") or "")
  emit("---@class %s%s", name, heading and heading.base and ": " .. heading.base or "")
  for _, line in ipairs(SPECIAL[name] or {}) do emit(line) end
  for _, field in ipairs(heading and heading.fields or {}) do
    emit("---@field %s%s %s %s", field.name, field.optional and "?" or "", translated(field.type), field.text)
  end
  emit("local %s = {}", name)
  emit ""
  local known = {}
  for _, method in ipairs(methods) do
    known[method.name] = true
    emit_function(method.entry, name, ":", method.name)
  end
  if name == "Tensor" then emit_added_methods(known) end
end

-- ---- the file ----

emit "---@meta marea"
emit "-- Made by `make types` from the library's sources. Editors read it, nothing runs it."
emit ""
emit "---@alias Dtype \"f32\"|\"f64\"|\"i64\"|\"u8\""
emit ""
emit "---@class marea"
emit "local marea = {}"
emit ""
for _, name in ipairs(CLASSES) do emit_class(name, arg) end
emit_operators()
emit_part "marea"
for _, name in ipairs(CALLED) do emit_called(name) end
emit_parts()
emit "return marea"

if #missing > 0 then
  io.stderr:write("types: nothing says what these arguments are:\n  ", table.concat(missing, "\n  "), "\n")
  os.exit(1)
end
io.write((table.concat(out, "\n") .. "\n"):gsub("[ \t]+\n", "\n"), "")
