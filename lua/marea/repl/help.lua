-- SPDX-License-Identifier: MIT
--- What ?name shows: signature, arguments with their shapes, text and an example, for operators from their descriptors,
--- for the rest of the library and for the script's own functions from the comments in their sources.
local core = require "marea.core"
local check = require "marea.internal.check"
local docs = require "marea.repl.docs"
local complete = require "marea.repl.complete"
local example = require "marea.repl.example"
local inspect = require "marea.repl.inspect"
local layout = require "marea.internal.layout"
local format = core.format

local help = {}
local wrapped, two_columns = layout.wrapped, layout.two_columns

local PARTS = {"nn", "nn.init", "optim", "optim.schedule", "dist", "data", "image", "plot", "augment", "judge",
  "checkpoint", "metrics", "importance", "text", "decode", "onnx", "keras"}

-- ---- layout ----

local function sections(...)
  local list = {}
  for _, section in ipairs{...} do
    if section ~= "" then list[#list + 1] = section end
  end
  return table.concat(list, "\n\n")
end

local function examples_text(lines)
  if not lines or #lines == 0 then return "" end
  return "  > " .. table.concat(lines, "\n  > ")
end

-- ---- operators ----

local function initial_text(spec)
  if spec.initial == nil then return nil end
  if type(spec.initial) == "string" then return ('"%s"'):format(spec.initial) end
  return math.type(spec.initial) == "float" and format("%g", spec.initial) or tostring(spec.initial)
end

--- marea.conv2d(x, weight, bias?, {stride = 1, ...})
---@param info table core.op_info(name)
function help.signature(info)
  local parts, named = {}, {}
  for _, input in ipairs(info.inputs) do
    parts[#parts + 1] = input.name .. (input.optional and "?" or "")
  end
  for _, spec in ipairs(info.attrs) do
    local initial = initial_text(spec)
    named[#named + 1] = initial and ("%s = %s"):format(spec.name, initial) or spec.required and spec.name
      or spec.name .. "?"
  end
  if #named > 0 then parts[#parts + 1] = "{" .. table.concat(named, ", ") .. "}" end
  return ("marea.%s(%s)"):format(info.name, table.concat(parts, ", "))
end

--- The forms an operator has beside that of the signature.
local function forms(info)
  local first = info.inputs[1]
  if not first or first.variadic then return "" end
  local list = {("%s:%s(...)"):format(first.name, info.name)}
  if info.elementwise then list[2] = ("%s:%s_(...) in place"):format(first.name, info.name) end
  return "; also " .. table.concat(list, ", ")
end

local function argument_rows(info)
  local rows = {}
  for _, input in ipairs(info.inputs) do
    rows[#rows + 1] = {input.name, (input.doc or "a tensor") .. (input.variadic and ", a list of them" or "")}
  end
  for _, spec in ipairs(info.attrs) do
    local choices = spec.choices and ": " .. table.concat(spec.choices, ", ") or ""
    rows[#rows + 1] = {spec.name, (spec.doc or spec.kind) .. choices}
  end
  return rows
end

--- One operator: signature, text, arguments, example.
---@param info table core.op_info(name)
---@param width? integer letters of a line, the terminal's when left out
---@return string
function help.operator(info, width)
  return sections(wrapped(help.signature(info) .. forms(info), "", width), wrapped(info.doc, "  ", width),
    two_columns(argument_rows(info), width), examples_text(example.of(info)))
end

-- ---- what Lua sources say ----

local function entry_signature(entry, name)
  if entry.kind == "file" then return name end
  if entry.kind ~= "function" then return name .. "{...}" end
  return ("%s(%s)"):format(name, table.concat(entry.arguments, ", "))
end

local function entry_rows(entry)
  local rows = {}
  for _, param in ipairs(entry.params) do
    local text = param.type .. (param.optional and ", may be left out" or "")
    rows[#rows + 1] = {param.name, param.text ~= "" and text .. ": " .. param.text or text}
  end
  for _, result in ipairs(entry.returns) do rows[#rows + 1] = {"->", result} end
  return rows
end

local function keywords_text(value)
  local names = docs.keywords(value)
  return #names > 0 and wrapped("by name: " .. table.concat(names, ", "), "  ") or ""
end

--- The text of what makes an instance, where its arguments are explained.
local function init_text(class)
  if type(class) ~= "table" then return "" end
  local meta = debug.getmetatable(class)
  local make = rawget(class, "init") or (not rawget(class, "__module") and meta and rawget(meta, "__call"))
  local entry = type(make) == "function" and docs.of(make)
  return entry and table.concat(entry.text, "\n") or ""
end

local function contents(value)
  local names = {}
  for _, name in ipairs(check.names(value)) do
    if name:find "^%a" then names[#names + 1] = name end
  end
  return wrapped(table.concat(names, ", "), "  ")
end

--- A documented function, class or module.
---@param entry Entry
function help.entry(entry, name, value)
  local about = entry.file and wrapped(table.concat(entry.file.text, "\n"), "  ") or ""
  return sections(entry_signature(entry, name), wrapped(table.concat(entry.text, "\n"), "  "),
    entry.kind ~= "file" and wrapped(init_text(value), "  ") or "", about, two_columns(entry_rows(entry)),
    entry.kind == "file" and contents(value) or keywords_text(value), examples_text(entry.examples))
end

-- ---- what a name means ----

local function operator_of(value, key)
  if type(value) ~= "function" or type(key) ~= "string" then return nil end
  local name = key:gsub("_$", "")
  if core.ops[key] == value then return core.op_info(key) end
  return core.ops[name] and core.methods[key] == value and core.op_info(name) or nil
end

--- For a layer that only calls an operator: the operator's text.
local function layer_text(class, name)
  local operator = type(class) == "table" and rawget(class, "operator")
  if type(operator) ~= "string" then return nil end
  local info = core.op_info(operator)
  return sections(name .. "{...}", wrapped(("The layer of marea.%s: %s"):format(operator, info.doc), "  "),
    keywords_text(class), examples_text(help.layer_example(class, info)))
end

--- The layer on an input of its operator.
---@return string[]
function help.layer_example(class, info)
  local doc = info.inputs[1].doc
  local shape = doc:find "H, W" and "{1, 4, 4, 2}" or doc:find "N, T" and "{1, 8, 2}"
  return {"x = marea.normal" .. (shape or "{2, 3}"), ("nn.%s{%s}(x)"):format(class.__name, shape and "2" or "")}
end

local function describe(value, name, key)
  local info = operator_of(value, key)
  if info then return help.operator(info) end
  local entry = docs.of(value)
  if entry and (#entry.text > 0 or #entry.params > 0 or entry.file) then return help.entry(entry, name, value) end
  local layer = layer_text(value, name)
  if layer then return layer end
  if type(value) == "function" and debug.getinfo(value, "S").what ~= "C" then
    return ("%s: %s, %s"):format(name, inspect.text(value), debug.getinfo(value, "S").short_src)
  end
  if type(value) == "function" then
    return ("%s: a function of Lua; https://www.lua.org/manual/5.4/manual.html#pdf-%s"):format(name, name)
  end
  return ("%s is %s"):format(name, inspect.value(value))
end

--- Topics that are no names, such as ?index.
local TOPICS = {
  index = [[
x[2]  x[-1]                  a row, or a number where x has one dimension; counting starts at 1, -1 is the last
x[{2, 5}]                    a position in each dimension
x['2:5, :, -1']              ranges, ends included; ':' is all of a dimension, '1:9:2' every other one
x[{'2:5', 1}]                positions and ranges in one list
x[x:gt(0)]                   the elements where a mask (u8) is not 0
x[rows]  x[{':', columns}]   positions in a tensor of i64, which may repeat
x[{1, 1}] = 10  x['2'] = 0   writes; masks and positions are written to as well

A full index gives a number of Lua; of a tensor that requires a gradient, while operators are recorded, a tensor of
rank 0, through which gradients flow: x[1]:item() is its number. Fewer positions, or ranges, give a view, which shares
the memory; a mask or a tensor of positions gives a copy.]],
}
TOPICS.indexing, TOPICS.slicing = TOPICS.index, TOPICS.index

-- Fields of tensors.
TOPICS.shape = "x.shape: the sizes, a list; it prints as (2, 3), compares by == with other lists, and joins texts by .."
TOPICS.dtype = "x.dtype: \"f32\", \"f64\", \"i64\", \"u8\", \"bf16\" or \"f16\"; x:to(dtype) converts"
TOPICS.precision = [[
"f32"           24 bits, 4 bytes: what tensors are unless asked for
"f64"           53 bits, 8 bytes
"bf16"          8 bits, 2 bytes, the range of f32: operands of products, by marea.autocast(f)
"f16"           11 bits, 2 bytes, numbers up to 65504: files and models that come in it

Operators of bf16 and f16 compute in f32 and round once. Weights and what optimizers keep stay f32 under
marea.autocast, for steps are often smaller than bf16's distance from one number to the next. net:quantize() gives a
copy for inference whose large weights are bytes.]]
for _, dtype in ipairs{"bf16", "f16", "f32", "f64", "int8"} do TOPICS[dtype] = TOPICS.precision end
TOPICS.rank = "x.rank: the number of dimensions, #x.shape"
TOPICS.requires_grad = "x.requires_grad: are gradients wanted? x:requires_grad_() says so"
TOPICS.is_leaf = "x.is_leaf: was it made by no operator that was recorded?"

--- Tables of methods under the names that help gives them.
local function owners()
  return {Tensor = core.methods, Module = require "marea.nn.module".class_methods(),
    Optimizer = require "marea.optim.optimizer", Dataset = require "marea.data.dataset"}
end
local OWNERS = {"Module", "Optimizer", "Dataset"} -- in the order in which a name is looked for

--- Looks for a name that was given without its table: {name = in full, value =}.
local function search(word)
  if core.ops[word] then return {name = word, value = core.ops[word], key = word} end
  if core.methods[word] then return {name = "Tensor:" .. word, value = core.methods[word], key = word} end
  local marea = require "marea"
  local own = rawget(marea, word) or getmetatable(marea).__lazy[word] and marea[word]
  if own then return {name = "marea." .. word, value = own, key = word} end
  for _, part in ipairs(PARTS) do
    local place = complete.value({marea = marea}, "marea." .. part)
    local value = type(place) == "table" and rawget(place, word)
    if value ~= nil and value ~= false then return {name = part .. "." .. word, value = value, key = word} end
  end
  for _, owner in ipairs(OWNERS) do
    local method = rawget(owners()[owner], word)
    if type(method) == "function" then return {name = owner .. ":" .. word, value = method, key = word} end
  end
end

--- Every name that help knows, without its table.
local function all_names()
  local names, seen = {}, {}
  local function add(list)
    for _, name in ipairs(list) do
      if not seen[name] and name:find "^%a" then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  local marea = require "marea"
  add(core.op_names())
  add(check.names(marea))
  add(check.names(core.methods))
  for _, part in ipairs(PARTS) do
    local place = complete.value({marea = marea}, "marea." .. part)
    if type(place) == "table" then add(check.names(place)) end
  end
  add(check.names(owners().Module))
  table.sort(names, core.before)
  return names
end

--- Names that help knows and that begin with `word`.
---@return integer start, string[] names
function help.complete(word)
  local list = {}
  for _, name in ipairs(all_names()) do
    if name:sub(1, #word) == word then list[#list + 1] = name end
  end
  return 1, list
end

--- The text about a name: a global, a path such as x.sum or nn.Conv2d, or a name of the library by itself.
---@param env table the globals
---@param topic string
---@return string|nil text, string|nil message with "did you mean"
function help.topic(env, topic)
  topic = topic:gsub("%s+", ""):gsub("[%({].*$", "")
  if topic == "" then return require "marea.repl.commands".find "help".run(nil, "") end
  local value, parts = complete.value(env, topic)
  if value == nil then value, parts = complete.value(owners(), topic) end
  if value ~= nil then return describe(value, topic, parts[#parts]) end
  local base, word = topic:match "^(.*)[%.:]([%w_]*)$"
  if not base then
    if TOPICS[topic] then return TOPICS[topic] end
    local found = search(topic)
    if found then return describe(found.value, found.name, found.key) end
    local other = require "marea.explain.synonyms".anyone(topic)
    if other then return nil, ("what other frameworks call '%s' is here %s"):format(topic, other) end
    local names = all_names()
    table.move(check.names(env), 1, #check.names(env), #names + 1, names)
    return nil, ("nothing is known about '%s'%s"):format(topic, check.did_you_mean(topic, names))
  end
  local place = complete.value(env, base)
  if place == nil then return nil, ("there is no '%s'%s"):format(base, check.did_you_mean(base, check.names(env))) end
  local members = core.is_tensor(place) and core.methods or place
  local names = type(members) == "table" and check.names(members) or {}
  return nil, ("'%s' has no '%s'%s"):format(base, word, check.did_you_mean(word, names))
end

return help
