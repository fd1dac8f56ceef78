-- SPDX-License-Identifier: MIT
--- Hints for the library's own messages: what a newcomer most likely meant. A rule is {pattern, function}: the function
--- gets what went on and the pattern's captures, and returns a text or nil; the first text is taken.
local core = require "marea.core"
local check = require "marea.internal.check"
local frames = require "marea.explain.frames"
local synonyms = require "marea.explain.synonyms"
local format = core.format

---@class Failure
---@field inputs {name: string, tensor: userdata}[] of the operator
---@field arguments table the values that the failing function was given, with their number n
---@field script table[] frames of the script, the innermost first
---@field call table how the function was called: debug.getinfo's name and namewhat
---@field caller table the same of its caller

local function input(failure, name)
  for _, given in ipairs(failure.inputs) do
    if given.name == name then return given.tensor end
  end
  return nil
end

--- The script's name for an input, or else the operator's; simple enough to be put in front of a method.
local function called(failure, name)
  local t = input(failure, name)
  return t and frames.name_of(failure.script, t) or name
end

local function product(sizes, first)
  local n = 1
  for i = first, #sizes do n = n * sizes[i] end
  return n
end

--- The text of the line of the script.
local function source(failure)
  return failure.script[1] and frames.source_line(failure.script[1]) or ""
end

--- A variable of the line that is nil because nothing of its name exists.
local function missing_variable(failure)
  local frame = failure.script[1]
  if not frame then return nil end
  return require "marea.explain.language".undefined(frame, source(failure))
end

-- ---- convolutions, dense layers ----

local function channels(failure, has, takes)
  local x, name = input(failure, "x"), called(failure, "x")
  has, takes = math.tointeger(has), math.tointeger(takes)
  if not x or (x.rank ~= 4 and x.rank ~= 3) then return nil end
  if x.rank == 3 and x:size(2) == takes then
    return ("sequences are (N, T, C), channels last; %s:permute(1, 3, 2) makes them so"):format(name)
  end
  if x.rank == 4 and x:size(2) == takes then
    return ("images are (N, H, W, C), channels last; %s:permute(1, 3, 4, 2) makes them so"):format(name)
  end
  if x.rank == 4 and takes == 1 and has == 3 then
    return ("%s:mean(4, true) makes gray images of coloured ones"):format(name)
  end
  return ("a layer's first number is the channels of its input: {%d, ...}"):format(has)
end

local function images(failure)
  local x, name = input(failure, "x"), called(failure, "x")
  if not x then return nil end
  if x.rank == 3 and x:size(3) <= 4 then
    return ("one image is a batch of 1: %s:unsqueeze(1)"):format(name)
  elseif x.rank == 3 then
    return ("%s:unsqueeze(-1) adds the dimension of one channel"):format(name)
  elseif x.rank == 2 then
    return ("rows of pixels become images by reshape, as in %s:reshape(-1, 28, 28, 1)"):format(name)
  end
  return nil
end

local function dense(failure, wanted)
  local x, name = input(failure, "x"), called(failure, "x")
  if not x then return nil end
  if x.rank > 2 and product(x.shape, 2) == math.tointeger(wanted) then
    return ("nn.Flatten{} before it, or %s:flatten(2), makes rows of %s"):format(name, wanted)
  end
  local size = x.rank > 0 and x:size(-1)
  return size and ("the layer's first number is the last size of its input: {%d, ...}"):format(size) or nil
end

local function inner_sizes(failure)
  local a, b = input(failure, "a"), input(failure, "b")
  if not (a and b) or a.rank < 2 or b.rank < 2 then return nil end
  local name_a, name_b = called(failure, "a"), called(failure, "b")
  if a:size(-1) == b:size(-1) then
    return ("%s:matmul(%s:transpose(-1, -2)) multiplies with the transpose"):format(name_a, name_b)
  end
  if a:size(-2) == b:size(-2) then
    return ("%s:transpose(-1, -2):matmul(%s) multiplies the transpose"):format(name_a, name_b)
  end
  if a:size(-2) == b:size(-1) then return ("%s:matmul(%s) has sizes that fit"):format(name_b, name_a) end
  return "(n, k) times (k, m) gives (n, m)"
end

local function broadcast(failure)
  local a, b = input(failure, "a"), input(failure, "b")
  if not (a and b) then return nil end
  local short, long, name = a, b, called(failure, "a")
  if a.rank > b.rank then short, long, name = b, a, called(failure, "b") end
  if short.rank + 1 ~= long.rank then return nil end
  for d = 1, short.rank do
    if short:size(d) ~= long:size(d) and short:size(d) ~= 1 and long:size(d) ~= 1 then return nil end
  end
  local shape = short.shape
  shape[#shape + 1] = 1
  return ("%s:unsqueeze(-1) makes it %s, which fits"):format(name, check.shape_text(shape))
end

local function joined(failure, dim)
  local first, other = failure.inputs[1], failure.inputs[2]
  if not other then return nil end
  local rank, other_rank = first.tensor.rank, other.tensor.rank
  if math.abs(rank - other_rank) == 1 then
    local name = frames.name_of(failure.script, (rank < other_rank and first or other).tensor) or "t"
    return ("%s:unsqueeze(1) has as many dimensions as the other"):format(name)
  end
  if rank ~= other_rank then return nil end
  local differs
  for d = 1, first.tensor.rank do
    if first.tensor:size(d) ~= other.tensor:size(d) then
      if differs then return nil end
      differs = d
    end
  end
  if not differs or differs == math.tointeger(dim) then return nil end
  return ("they can be joined along dimension %d"):format(differs)
end

local function reshaped(failure, count, sizes)
  local list = {}
  for size in sizes:gmatch "%d+" do list[#list + 1] = math.tointeger(size) end
  local rest = product(list, 2)
  count = math.tointeger(count)
  if rest == 0 or count % rest ~= 0 or #list < 2 then return nil end
  local wanted = table.concat(list, ", ", 2)
  return ("%s:reshape(-1, %s) works the first size out: (%d, %s)"):format(called(failure, "x"), wanted, count // rest,
    wanted)
end

local function same_shape(failure, name)
  local x, target = failure.inputs[1] and failure.inputs[1].tensor, input(failure, name)
  if not (x and target) then return nil end
  for _, pair in ipairs{{x, target, failure.inputs[1].name}, {target, x, name}} do
    local long, short = pair[1], pair[2]
    if long.rank == short.rank + 1 and long:size(-1) == 1 then
      return ("%s:squeeze(-1) takes its last dimension away"):format(called(failure, pair[3]))
    end
  end
  return nil
end

-- ---- dtypes and labels ----

local function float_wanted(failure, name, dtype)
  local variable, labels = called(failure, name), input(failure, "labels")
  if labels and labels.dtype:find "^f" then
    return ("the logits come first: %s:cross_entropy(%s)"):format(called(failure, "labels"), variable)
  end
  if dtype == "u8" then return ("%s:to('f32') / 255 makes numbers from 0 to 1 of bytes"):format(variable) end
  return ("%s:to('f32') converts it"):format(variable)
end

local function labels_wanted(failure, name)
  local labels = input(failure, name)
  if not labels then return nil end
  local variable = called(failure, name)
  if labels.rank == input(failure, "logits").rank then
    return ("labels are numbers of classes; of one-hot rows, %s:argmax(-1) makes them"):format(variable)
  end
  return ("%s:to('i64') makes integers of them"):format(variable)
end

local function labels_shape(failure, name)
  local labels, logits = input(failure, name), input(failure, "logits")
  if not (labels and logits) or labels.rank ~= logits.rank then return nil end
  local variable = called(failure, name)
  if labels:size(-1) == 1 then return ("%s:squeeze(-1) takes the last dimension away"):format(variable) end
  return ("labels are numbers of classes; of one-hot rows, %s:argmax(-1) makes them"):format(variable)
end

local function label_range(failure, label, classes)
  local variable = called(failure, "labels")
  if label == "0" then
    return ("classes count from 1; labels that count from 0 become so by %s + 1"):format(variable)
  end
  return ("the last layer has %s outputs, and labels up to %s need as many"):format(classes, label)
end

local function probabilities(failure, name, _, high)
  local variable = called(failure, name)
  if name ~= "target" then
    return ("bce_with_logits takes numbers of any size, or %s:sigmoid() makes probabilities"):format(variable)
  end
  if tonumber(high) > 2 and tonumber(high) <= 255 then return ("%s / 255 for pixels"):format(variable) end
  return nil
end

-- ---- Lua's operators and loops ----

--- The operand that is a tensor of one element, as the script calls it.
local function single(failure)
  for i = 1, 3 do
    local t = failure.arguments[i]
    if core.origin(t) and t:numel() == 1 then return frames.name_of(failure.script, t) or "t" end
  end
  return nil
end

--- A tensor where a number is wanted: what a full index gives of a tensor that learns, or a sum.
local function number_wanted(failure)
  return ("%s:item() is its number, through which no gradient flows"):format(single(failure) or "t")
end

--- An item of a list that is a tensor.
local function stacked()
  return "marea.stack{...} joins tensors and keeps their gradients; marea.tensor(2) is a number among them"
end

local function compared(failure, operator)
  local a, b = failure.arguments[1], failure.arguments[2]
  local name, caller = single(failure), failure.caller
  if caller.what == "C" and (caller.name == "max" or caller.name == "min") then
    return ("of tensors, x:%simum(y) takes the %ser of two elements"):format(caller.name,
      caller.name == "max" and "larg" or "small")
  end
  if a == nil or b == nil then return missing_variable(failure) end
  if name then return ("%s:item() is a number, which can be compared"):format(name) end
  local method = operator == "< or >" and "lt" or "le"
  if not core.is_tensor(a) then a, b, method = b, a, method:gsub("l", "g") end
  local left = frames.name_of(failure.script, a) or "a"
  local right = core.is_tensor(b) and (frames.name_of(failure.script, b) or "b") or format("%s", b)
  return ("%s:%s(%s) gives 0 or 1 for each element"):format(left, method, right)
end

local function text(failure)
  local name = single(failure)
  return name and ("(\"%%.4f\"):format(%s:item()) is a text"):format(name) or nil
end

local function rows(failure)
  local t = failure.arguments[1]
  local name = core.is_tensor(t) and frames.name_of(failure.script, t) or "t"
  return ("for i = 1, #%s do ... %s[i] ... end visits the rows"):format(name, name)
end

local function past_the_end(failure)
  return failure.caller.what == "C" and failure.caller.namewhat == "for iterator" and rows(failure) or nil
end

--- A value that one step computes and the next step begins with, such as the state of a recurrent network.
local function consumed(failure, operator)
  local name
  for _, frame in ipairs(failure.script) do
    for _, variable in ipairs((frames.variables(frame))) do
      local t = variable.value
      if core.is_tensor(t) and t ~= failure.arguments[1] and select(2, core.origin(t)) == operator then
        name = variable.name
      end
    end
  end
  if not name then return nil end
  return ("what one step hands to the next is its values: %s = %s:detach():keep() before the step"):format(name, name)
end

-- ---- names ----

local function synonym(_, name, owner)
  local other = synonyms.of(name, owner)
  return other and ("what other frameworks call '%s' is here %s"):format(name, other) or nil
end

--- "nn has no field 'Dense'": captures in this order.
local function owned_synonym(failure, owner, name) return synonym(failure, name, owner) end

local function argument_synonym(failure, name) return synonym(failure, name, "argument") end

--- A field that a tensor has not got: often a method that was called on the wrong thing.
local function no_field(failure, name)
  local frame = failure.script[1]
  local found, self = false, nil
  if frame then found, self = frames.variable(frame, "self") end
  if found and core.is_tensor(self) and source(failure):find("self[%.:]" .. name) then
    return "'self' is a tensor here: call the method with a colon, net:forward(x), or the module itself, net(x)"
  end
  return synonym(failure, name, "tensor")
end

local function dotted(failure)
  local t, call = failure.arguments[1], failure.call
  if call.namewhat ~= "method" or type(t) ~= "table" then return nil end
  return ("functions of a module are called with a dot: marea.%s(...)"):format(call.name)
end

--- A first argument that is no tensor: the method may have been called with a dot, the function with a colon.
local function first_argument(failure, _, got)
  local line, call = source(failure), failure.call
  local object = call.name and line:match("([%w_]+)%." .. call.name .. "%s*[%({\"']")
  if object and failure.script[1] then
    local found, value = frames.variable(failure.script[1], object)
    if found and core.is_tensor(value) then
      return ("a method is called with a colon: %s:%s(...)"):format(object, call.name)
    end
  end
  return got:find "^a table" and dotted(failure) or got == "nil" and missing_variable(failure) or nil
end

--- A list of tensors to be saved that is no list.
local function saved(failure)
  local given = failure.arguments[2]
  if type(given) ~= "table" or check.is_plain(given) then return nil end
  return ("%s:state() is the table of its tensors"):format(frames.name_of(failure.script, given) or "net")
end

local function integers(_, got)
  return got:find "^%-?%d+%.%d+$" and "n // m divides integers without a rest" or nil
end

--- A rule's function for a text that is always the same.
local function always(hint)
  return function() return hint end
end

local rules = {
  {"^conv2d: x has (%d+) channels, .- takes (%d+)$", channels},
  {"^conv_transpose2d: x has (%d+) channels, .- takes (%d+)$", channels},
  {"^conv1d: x has (%d+) channels, .- takes (%d+)$", channels},
  {"^conv_transpose1d: x has (%d+) channels, .- takes (%d+)$", channels},
  {"^[%w_]+: argument 'x': expected 4 dimensions %(N, H, W", images},
  {"^conv2d: kernel .- is larger than the padded input", always "padding = 'same' keeps the size of the images"},
  {"^linear: x .-: expected %(%.%., (%d+)%)", dense},
  {"^matmul: .-: inner sizes %d+ and %d+ differ", inner_sizes},
  {"^[%w_]+: shapes .- do not broadcast", broadcast},
  {"^reshape: .- has (%d+) elements, (%b()) takes", reshaped},
  {"^concat: .-: they may differ in dim (%d+) only", joined},
  {"^cross_entropy: argument '(labels)': expected dtype i64 or u8", labels_wanted},
  {"^cross_entropy: argument '(labels)': expected shape", labels_shape},
  {"^cross_entropy: label (%-?%d+) at .- for (%d+) classes$", label_range},
  {"^bce[%w_]*: argument '(%w+)': expected numbers from 0 to 1, got (%S+) to (%S+)$", probabilities},
  {"^[%w_]+: argument '(target)': expected shape", same_shape},
  {"^[%w_]+: argument '([%w_]+)': expected dtype f32 or f64, got ([ui]%d+) ", float_wanted},
  {"^[%w_]+: argument '(index)': expected dtype i64 or u8", function(failure, name)
    return ("%s:to('i64') makes integers of them"):format(called(failure, name))
  end},
  {"^(%w+): expected low <= high", function(_, name)
    return ("sizes are a list, the limits come after it: marea.%s({3, 4}, -1, 1)"):format(name)
  end},
  {"^grad: argument 'xs': .- does not require a gradient", function(failure)
    return ("%s:requires_grad_() before y is computed"):format(called(failure, "xs"))
  end},
  {"^[%w_]+_int8: argument 'x': expected dtype f32, got f64", function(failure)
    return ("%s:to('f32') makes it what bytes are computed with"):format(called(failure, "x"))
  end},
  {"^[%w_]+: argument 'weight': expected dtype f64, got f32", function(failure)
    return ("%s:to('f32') makes it what the layer is, or the layer takes dtype = 'f64'"):format(called(failure, "x"))
  end},
  {"^[%w_]+: out of memory", always "smaller batches need less, and marea.no_grad(f) keeps nothing for gradients"},

  {"^([<>]=? or [<>]=?): ", compared},
  {"^%.%.: ", text},
  {"^tensor: item .-: expected a number, got tensor", stacked},
  {"^stack: .-: expected a tensor, got %-?[%d%.]+$", stacked},
  {": expected an? [^,]*numbers?[^,]*, got tensor %w+ %(%)$", number_wanted},
  {": expected an? integers?[^,]*, got tensor %w+ %(%)$", number_wanted},
  {"^index: expected .- got tensor %w+ %(%)$", number_wanted},
  {"^t%[%.%.%.%] = v: tensor %w+ %(%) requires a gradient", number_wanted},
  {"^t%(%.%.%.%): ", function(failure) return failure.call.namewhat == "for iterator" and rows(failure) or nil end},
  {"^index %d+ is out of range for dimension 1 ", past_the_end},
  {"^index: expected a mask .- got tensor f",
    always "t:ne(0) makes a mask of numbers, t:to('i64') makes positions of them"},
  {"^t%[%.%.%.%] = v: .- requires a gradient",
    always "x:masked_fill(mask, v) and marea.where(mask, v, x) give a new tensor, and are recorded"},
  {"expected a tensor or a number, got a list of", always "marea.tensor{...} makes a tensor of a list"},
  {"expected a tensor or a number, got string", always "tonumber(text) makes a number of a text"},
  {"expected a tensor or a number, got true", always "condition and 1 or 0 makes a number of a condition"},
  {"^t%[%.%.%.%] = v: argument 'value': expected an integer", always "integers hold no fractions; t:to('f32') does"},

  {"^a tensor has no field or method '([^']+)'", no_field},
  {"^([%w_%.]+) has no field '([^']+)'$", owned_synonym},
  {": unknown argument '([^']+)'; known: ", argument_synonym},
  {": expected one of .- got string '([^']+)'$", argument_synonym},
  {"^([%w_%.]+): expected its arguments in braces, .- got tensor",
    function(_, class)
      if not rawget(require "marea.nn", class) then return nil end
      return class .. "{...} makes a layer, and the layer is what takes a tensor"
    end},
  {": expected .- got the class ([%w_]+)", function(_, class) return class .. "{} makes a layer of the class" end},
  {"^nn: argument 'self'", always "methods are called with a colon, as in net:train()"},
  {"^(%w+): argument 'self'", function(_, name)
    return ("methods are called with a colon: object:%s(...)"):format(name)
  end},
  {"^[%w_]+: argument '(%w+)': expected a tensor[%w ]*, got (.*)$", first_argument},
  {": arguments by name come last$", dotted},
  {": argument 'shape': expected sizes or a list of sizes, got a table$",
    always "functions of a module are called with a dot: marea.zeros(...)"},
  {": expected [%w' ]*integers?[%w' ]*, got (.*)$", integers},

  {"^%w+: argument '1': expected a module, ", always "the network comes first: {net, lr = 1e-3}"},
  {"^%w+: argument '2': expected a module, .-, got [%d%.]+$", always "a learning rate is given by its name: lr = 1e-3"},
  {"^%w+: there are no parameters to train",
    always "layers without an input size make them at the first call, or at net:build(input shape)"},
  {":step: argument 'loss': expected a tensor, got nil$", always "the function given to step returns the loss"},
  {":step: argument 'loss': expected a tensor, got [%d%.%-]+$", always "step takes the tensor itself, without :item()"},
  {"^class (%w+) defines no method 'forward'$", function(_, class)
    return ("function %s:forward(x) ... return y end says what it computes"):format(class)
  end},
  {"^train: argument 'on': expected", always "net:train() and net:evaluate() switch between the two modes"},
  {"^batches: argument 'size': expected .- got a table$", always "the size comes first: set:batches(128, {...})"},
  {"^load_state: argument 'state': .- got nil$",
    always "marea.load gives nil and a message when it fails: assert(marea.load(...)) shows it"},
  {"^save: argument 'path': expected a string, got a", always "the path comes first: marea.save(path, tensors)"},
  {"^save_csv: argument 'path': expected a string, got",
    always "the columns come first: marea.save_csv(columns, path)"},
  {"^(save_%w+): argument 'path': expected a string, got", function(_, name)
    return ("the tensor comes first: marea.%s(t, path)"):format(name)
  end},
  {"^save: argument 'tensors': expected a table of tensors, got a", saved},
  {"^backward: expected a tensor of one element", function(failure)
    local name = called(failure, "t")
    return ("a loss is one number: %s:mean() or %s:sum()"):format(name, name)
  end},
  {"^backward: the graph behind this (%w+) was consumed", consumed},
  {"^backward: .- does not depend on a tensor that requires a gradient", always
    "t:requires_grad_() marks what is to be learned (layers do); what no_grad or detach gave does not depend on it"},

  {"^item: expected a tensor of one element", function(failure)
    local name = called(failure, "t")
    return ("%s:mean():item() is one number, %s:totable() all of them"):format(name, name)
  end},
  {": argument 'out': .- got nil$", always "the sizes come first, without names: {in, out}, or {out}"},
  {"^%w+: argument 'kernel': .- got nil$", always "as in kernel = 3"},
  {": argument 'x': expected a tensor, got nil", always "a layer takes a tensor: net(x)"},
  {"^index: expected a list of integers, .- got a list of %d+ at %d+$", always "a range is a string: x['2:5, :']"},
  {"expected a tensor, got a list of", always "marea.tensor{...} makes a tensor of a list"},
  {"^tensor: argument 'options': expected a table, got %d", always "values are a list in braces: marea.tensor{1, 2}"},
  {"^no_grad: argument 'f': expected a function, got tensor", always "without the call: marea.no_grad(net, x)"},
  {"^autocast: argument 'f': expected a function, got", always "marea.autocast(function() ... end)"},
  {"^no_grad: argument 'f': expected a function, got", always "marea.no_grad(function() ... end)"},
  {"^arange: argument '%w+': .- got nothing$", always "marea.arange(1, 5) is 1 2 3 4 5"},
  {"^transpose: argument '%w+': .- got nothing$", always "x:transpose(1, 2) exchanges rows and columns"},
  {"^(%w+): argument 'size 1': .- got tensor", function(_, name)
    return ("marea.%s_like(x) takes the shape of a tensor"):format(name)
  end},
  {", got nil$", missing_variable},
  {" of %d+ is nil$", missing_variable},
  {"got a list with nil at %d+$", missing_variable},
}

---@param message string without place and layer
---@param failure Failure
---@return string|nil
return function(message, failure)
  for _, rule in ipairs(rules) do
    local captures = table.pack(message:match(rule[1]))
    local hint = captures[1] and rule[2](failure, table.unpack(captures, 1, captures.n))
    if hint then return hint end
  end
  return nil
end
