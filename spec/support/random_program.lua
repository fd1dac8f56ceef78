-- SPDX-License-Identifier: MIT
--- Random programs over the whole Lua API, as text: the same for the same seed and list of operators. A program holds
--- tensors in v[1..8], layers in net, optimizers in opt, datasets in set, distributions in law, coroutines in co. Each
--- line is a `try` of spec/support/random_tools.lua, so that an error ends the line and not the program. Arguments
--- are mostly plausible, some are not.
local core = require "marea.core"
local docs = require "marea.repl.docs"

local random_program = {}

local SLOTS, DEEPEST = 8, 3

-- ---- chance ----

local function mix(z) -- splitmix64's
  z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
  z = (z ~ (z >> 27)) * 0x94D049BB133111EB
  return z ~ (z >> 31)
end

local function generator(seed)
  local state = mix(seed * 0xD1342543DE82EF95 + 1) -- so that streams of neighbouring seeds do not overlap
  local g = {}
  local function word()
    state = state + 0x9E3779B97F4A7C15
    return mix(state) >> 1
  end
  function g.int(low, high) return low + word() % (high - low + 1) end
  function g.pick(list) return list[g.int(1, #list)] end
  function g.chance(percent) return g.int(1, 100) <= percent end
  return g
end

-- ---- expressions ----

local GARBAGE = {"nil", "true", "-1", "0", "1 << 31", "1 << 53", "math.maxinteger", "math.mininteger", "1.5", "0 / 0",
  "math.huge", "-math.huge", '"3"', '""', '"a\\0b"', "{}", "{0}", "{-1}", "{1 << 40, 1 << 40}", "{1.5}", "{{}}",
  "{nil, 1}", "{1, 1, 1, 1, 1, 1, 1, 1, 1}", "{nonsense = 1}", "function() end", "print", "error",
  "hostile()", "coroutine.create(print)", "gone()",
  "marea.zeros(0)", "marea.zeros(0, 3)", "marea.tensor(2)", "marea.ones(2, 1, 2, 1, 2)",
  'marea.tensor({0, -1, 1 << 40}, {dtype = "i64"})', 'marea.tensor({255, 0}, {dtype = "u8"})',
  'marea.tensor({0 / 0, 1 / 0, -1 / 0}, {dtype = "f64"})', "net[1]", "net[2]", "opt[1]", "set[1]", "law[1]", "co[1]",
  "marea", "marea.nn", "_G", "v"}
local REALS = {"0.5", "2", "-1", "0", "1e-3", "0.9", "1", "3", "1e30", "-1e-30", "100"}
local INTEGERS = {"1", "2", "3", "0", "-1", "4", "5"}
local DTYPES = {'"f32"', '"f64"', '"i64"', '"u8"', '"bf16"', '"f16"'}

local function slot(g) return ("v[%d]"):format(g.int(1, SLOTS)) end

local function shape(g, least, most)
  local sizes = {}
  for i = 1, g.int(least or 0, most or 3) do sizes[i] = g.int(g.chance(5) and 0 or 1, 5) end
  return "{" .. table.concat(sizes, ", ") .. "}"
end

local makers = {
  function(g) return ("marea.normal(%s)"):format(shape(g)) end,
  function(g) return ("marea.uniform(%s, -2, 2)"):format(shape(g)) end,
  function(g) return ('marea.normal{shape = %s, dtype = "%s"}'):format(shape(g), g.pick{"f64", "bf16", "f16"}) end,
  function(g) return ("marea.randint(%s, 1, 5)"):format(shape(g, 1)) end,
  function(g) return ('marea.randint(%s, 0, 255):cast("u8")'):format(shape(g, 1)) end,
  function(g) return ("marea.ones(%s)"):format(shape(g)) end,
  function(g) return ("marea.normal(%s):requires_grad_()"):format(shape(g)) end,
  function(g) return ("marea.normal(%s):transpose(1, -1)"):format(shape(g, 1)) end,
  function(g) return ("marea.normal{4, %d}"):format(g.int(1, 4)) end,
  function(g) return ("marea.tensor{%d, %d, %d}"):format(g.int(-3, 3), g.int(-3, 3), g.int(-3, 3)) end,
  function(g) return ("marea.arange(%s, 6, 2)"):format(g.pick(INTEGERS)) end,
  function() return "marea.uniform{2, 6, 6, 2}" end,
}

local function made(g) return g.pick(makers)(g) end

--- A tensor: one that is there, one of the same shape, a new one.
local function tensor(g)
  if g.chance(4) then return g.pick(GARBAGE) end
  if g.chance(70) then return slot(g) end
  if g.chance(50) then return ("like(%s)"):format(slot(g)) end
  return made(g)
end

local kinds = {
  real = function(g) return g.pick(REALS) end,
  number = function(g) return g.chance(50) and g.pick(REALS) or g.pick(INTEGERS) end,
  int = function(g) return g.pick(INTEGERS) end,
  bool = function(g) return g.pick{"true", "false"} end,
  dtype = function(g) return g.pick(DTYPES) end,
  dim = function(g) return g.pick{"1", "2", "-1", "3", "-2"} end,
  index = function(g) return g.pick{"1", "2", "-1", "3"} end,
  dims = function(g) return g.pick{"1", "2", "-1", "{1}", "{1, 2}", "{-1}", "{2, 1}", "{}", "{1, 2, 3}"} end,
  sizes = function(g) return g.chance(20) and "{-1}" or g.chance(10) and "{2, -1}" or shape(g) end,
  pair = function(g) return g.pick{"1", "2", "3", "{1, 2}", "{2, 1}"} end,
  sides = function(g) return g.pick{"0", "1", '"same"', "{1, 0}"} end,
  padding = function(g) return g.pick{"0", "1", '"same"', "{1, 0}", "{1, 0, 2, 1}"} end,
  enum = function(g, spec) return ("%q"):format(g.pick(spec.choices)) end,
}

local function attribute(g, spec)
  if g.chance(6) then return g.pick(GARBAGE) end
  return kinds[spec.kind](g, spec)
end

--- {name = value} for attributes that must be given, and for others with this chance; "" for none.
local function attributes(g, info, percent)
  local parts = {}
  for _, spec in ipairs(info.attrs) do
    if g.chance(spec.required and 97 or percent) then
      parts[#parts + 1] = ("%s = %s"):format(spec.name, attribute(g, spec))
    end
  end
  if g.chance(1) then parts[#parts + 1] = "nonsense = 1" end
  return #parts > 0 and "{" .. table.concat(parts, ", ") .. "}" or nil
end

-- ---- operators ----

local infos, elementwise, unary = {}, {}, {}
for _, name in ipairs(core.op_names()) do
  local info = core.op_info(name)
  infos[#infos + 1] = info
  if info.elementwise then elementwise[#elementwise + 1] = info end
  if #info.inputs == 1 and not info.inputs[1].variadic then unary[#unary + 1] = info end
end

--- An operator with the inputs of one of its samples, some of them exchanged.
local function sampled(g)
  local info = g.pick(infos)
  local exchanged = {}
  for i = 1, #info.inputs do
    if g.chance(12) then exchanged[#exchanged + 1] = ("[%d] = %s"):format(i, tensor(g)) end
  end
  local changed = g.chance(15) and attributes(g, info, 10) or "{}"
  return ('sampled("%s", %d, {%s}, %s)'):format(info.name, g.int(1, 1000), table.concat(exchanged, ", "), changed)
end

local function of_one(g)
  local info = g.pick(unary)
  local named = attributes(g, info, 15)
  if g.chance(50) then return ("marea.%s(%s%s)"):format(info.name, tensor(g), named and ", " .. named or "") end
  return ("%s:%s(%s)"):format(slot(g), info.name, named or "")
end

local function of_two(g)
  local a = slot(g)
  local b = g.pick{("like(%s)"):format(a), a, slot(g), g.pick(REALS), tensor(g)}
  if g.chance(40) then return ("%s %s %s"):format(a, g.pick{"+", "-", "*", "/", "^"}, b) end
  local name = g.pick{"add", "sub", "mul", "div", "pow", "maximum", "minimum", "eq", "lt", "ge", "mse", "l1", "huber",
    "matmul"}
  return ("%s:%s(%s)"):format(a, name, b)
end

-- ---- layers and their like ----

--- Layers of rows, which net[1] is made of, and of images, for net[2].
local LAYERS = {
  {"nn.Linear{4}", 'nn.Linear{6, activation = "relu"}', "nn.Linear{6, 6, bias = false}", "nn.ReLU{}", "nn.Tanh{}",
    "nn.Dropout{0.5}", "nn.LayerNorm{}", "nn.BatchNorm{}", "nn.Softmax{}", "nn.ELU{}", "nn.GELU{}", "nn.LogSoftmax{}",
    "nn.SiLU{}", "nn.Softplus{}", "nn.Reshape{-1}", "net[1]"},
  {'nn.Conv2d{2, kernel = 3, padding = "same"}', "nn.ConvTranspose2d{2, kernel = 3}", "nn.MaxPool2d{2}",
    "nn.AvgPool2d{2}", "nn.BatchNorm{}", "nn.GroupNorm{groups = 2}", "nn.UpsampleNearest2d{2}", "nn.ReLU{}",
    "nn.UpsampleBilinear2d{2}", "nn.Conv2d{4, kernel = 2, stride = 2}", "nn.Sigmoid{}", "nn.GlobalAvgPool2d{}",
    "nn.Flatten{}", "nn.Linear{3}", "net[2]"},
}
local INPUTS = {"marea.normal{4, 6}", "marea.uniform{2, 6, 6, 2}"}

--- A layer or several for net[i].
local function network(g, i)
  if g.chance(5) then i = 3 - i end
  if g.chance(20) then return g.pick(LAYERS[i]) end
  local parts = {}
  for k = 1, g.int(1, 3) do parts[k] = g.chance(2) and g.pick(GARBAGE) or g.pick(LAYERS[i]) end
  return "nn.Sequential{" .. table.concat(parts, ", ") .. "}"
end

local function net(g) return ("net[%d]"):format(g.int(1, 2)) end

--- A call of one of the nets.
local function output(g)
  local i = g.int(1, 2)
  return ("net[%d](%s)"):format(i, g.chance(80) and INPUTS[i] or tensor(g))
end

local function optimizer(g)
  local options = g.pick{"", ", clip_norm = 1", ", clip_value = 0.1", ", lr = 0.1",
    ", lr = optim.schedule.step(0.1, 2)", ", weight_decay = 0.1", ", allow_not_finite = true"}
  local trained = g.pick{net(g), net(g), "{net[1], net[2]}", "{" .. slot(g) .. "}", "{net[1]}, {net[2], lr = 0.5}",
    g.pick(GARBAGE)}
  return ("optim.%s{%s%s}"):format(g.pick{"SGD", "Adam", "AdamW", "RMSprop", "Adagrad"}, trained, options)
end

local function loss(g)
  if g.chance(60) then
    return ("%s:%s"):format(output(g), g.pick{"sum()", "square():mean()", "mean()", "exp():sum()"})
  end
  return g.pick{("(%s * %s):sum()"):format(slot(g), slot(g)), slot(g), ("%s:sum()"):format(slot(g)),
    ("(learning(%s) * 2):sum()"):format(slot(g)), ("(learning(%s) ^ 2):mean()"):format(slot(g))}
end

local LAWS = {"Normal", "Laplace", "Logistic", "Gumbel", "Uniform", "Bernoulli", "Categorical", "Poisson",
  "RelaxedBernoulli", "GumbelSoftmax"}

local function law(g)
  local name = g.pick(LAWS)
  local a = g.pick{"0", "1", "0.3", slot(g), "marea.uniform{3}"}
  local b = g.pick{"1", "2", slot(g), "marea.ones{3}"}
  if g.chance(5) then b = g.pick(GARBAGE) end
  if name == "Poisson" then return ("dist.Poisson(%s)"):format(a) end
  if name == "Bernoulli" or name == "Categorical" then
    return ("dist.%s{%s = %s}"):format(name, g.pick{"probs", "logits"}, g.pick{a, "marea.uniform{2, 3}"})
  end
  return ("dist.%s(%s, %s)"):format(name, a, b)
end

-- ---- examples of the documentation ----

local ROOT = debug.getinfo(1, "S").source:match "^@(.*)spec/support/"

--- The library's source files, in the order of their names.
function random_program.sources()
  local quoted = "'" .. ROOT:gsub("'", "'\\''") .. "lua/marea'"
  local pipe = assert(io.popen("find " .. quoted .. " -name '*.lua' | LC_ALL=C sort"))
  local list = {}
  for path in pipe:lines() do list[#list + 1] = path end
  pipe:close()
  return list
end

-- gnuplot takes seconds; a class and a distance that is registered stay, and keep the program's variables
local LEFT_OUT = {"plot", "os.", "sandbox", "register_kl", "nn.class"}

--- Lines of the examples as one statement each, an expression being assigned.
local function examples()
  local list = {}
  for _, path in ipairs(random_program.sources()) do
    for _, entry in ipairs((docs.file(path))) do
      local lines = {}
      for i, line in ipairs(entry.examples or {}) do
        lines[i] = load(line) and line or "local _ = " .. line:gsub("^=", "")
      end
      local text = table.concat(lines, " ")
      local left_out = false
      for _, word in ipairs(LEFT_OUT) do left_out = left_out or text:find(word, 1, true) ~= nil end
      if #lines > 0 and load(text) and not left_out then list[#list + 1] = text end
    end
  end
  return list
end

local all_examples

--- An example, at times with a number or a tensor exchanged.
local function example(g)
  all_examples = all_examples or examples()
  local text = g.pick(all_examples)
  local at = g.int(1, 6)
  if g.chance(40) then
    local n = 0
    text = text:gsub("%f[%w_.]%d+%.?%d*%f[^%w_.]", function()
      n = n + 1
      return n == at and (g.chance(50) and g.pick(GARBAGE) or g.pick(REALS)) or nil
    end)
  end
  if g.chance(25) then text = text:gsub("marea%.normal%b{}", function() return slot(g) end, 1) end
  text = "local net, opt, set, law, co " .. text
  return load(text) and text or "local _ = 1"
end

-- ---- statements ----

local block -- block(g, depth, least, most): some statements as the body of a function

local function assign(g, text) return ("%s = %s"):format(slot(g), text) end

--- A body that may end in an error or return a tensor.
local function body(g, depth)
  local text = block(g, depth + 1)
  if g.chance(15) then return text .. ' error "stop"' end
  if g.chance(50) then return text .. " return " .. slot(g) end
  return text
end

local function index_of(g)
  return g.pick{"1", "2", "-1", '"1:2"', '":, 1"', '"::2"', '"2:1"', "{1, 1}", '{"1:2", 1}', "{1}", "0",
    g.pick(INTEGERS), g.pick(GARBAGE)}
end

local statements = {
  {16, function(g) return assign(g, sampled(g)) end},
  {12, function(g) return assign(g, of_one(g)) end},
  {10, function(g) return assign(g, of_two(g)) end},
  {8, function(g) return assign(g, made(g)) end},
  {6, function(g) -- in place
    local info = g.pick(elementwise)
    local arguments = #info.inputs > 1 and g.pick{("like(%s)"):format(slot(g)), slot(g), g.pick(REALS)}
    arguments = arguments or attributes(g, info, 20) or ""
    return ("%s:%s_(%s)"):format(slot(g), info.name, arguments)
  end},
  {4, function(g) return ("%s:%s"):format(slot(g), g.pick{"zero_()", "fill_(" .. g.pick(REALS) .. ")",
    "copy_(" .. tensor(g) .. ")", "fill_(" .. g.pick(GARBAGE) .. ")"}) end},
  {5, function(g) -- views
    local t = slot(g)
    return assign(g, t .. g.pick{":narrow(1, 1, 1)", ":narrow(-1, 1, 2)", ":select(1, 1)", ":transpose(1, -1)",
      ":flatten()", ":unsqueeze(1)", ":squeeze()", ":reshape{-1}", ":detach()", ":flip(1)", ":slice{dim = 1, step = 2}",
      (":expand{2, table.unpack(%s.shape)}"):format(t), ":permute{2, 1}", ":contiguous()", ":clone()", ":split(2)",
      ":split(1, -1)[1]"})
  end},
  {4, function(g) return assign(g, ("%s[%s]"):format(slot(g), index_of(g))) end},
  {4, function(g)
    return ("%s[%s] = %s"):format(slot(g), index_of(g), g.pick{g.pick(REALS), slot(g), g.pick(GARBAGE)})
  end},
  {3, function(g) return ("%s:requires_grad_(%s)"):format(slot(g), g.pick{"", "", "true", "false"}) end},
  {5, function(g) -- the reverse pass
    return ("(%s):backward(%s)"):format(loss(g), g.pick{"", "", "", "nil, {retain_graph = true}",
      ("like(%s)"):format(slot(g)), g.pick(GARBAGE)})
  end},
  {4, function(g)
    local options = g.pick{"", "", ", {create_graph = true}", ", {retain_graph = true}", ", " .. g.pick(GARBAGE)}
    return assign(g, ("marea.grad(%s, %s%s)"):format(loss(g), slot(g), options))
  end},
  {2, function(g)
    return g.pick{("%s:clear_grad()"):format(slot(g)), assign(g, slot(g) .. ".grad")}
  end},
  {3, function(g) return g.pick{"%s:keep()", "%s:release()", "%s:keep():detach()"}:format(slot(g)) end},
  {5, function(g)
    local i = g.int(1, 2)
    return ("net[%d] = %s"):format(i, network(g, i))
  end},
  {6, function(g) return assign(g, output(g)) end},
  {4, function(g)
    return net(g) .. g.pick{":train()", ":evaluate()", ":freeze()", ":unfreeze()", ":parameters()", ":count()",
      ":state()", ":build{4, 6}", ":build{6, 6, 2}", ":summary{6}", ":load_state(net[2]:state())",
      ':buffer("b", v[1])', '.name = "x"', (":load_state(%s)"):format(g.pick(GARBAGE)),
      (":build(%s)"):format(g.pick(GARBAGE))}
  end},
  {4, function(g) return "opt[1] = " .. optimizer(g) end},
  {6, function(g)
    if g.chance(50) then return ("%s = opt[1]:step(%s)"):format(slot(g), loss(g)) end
    return ("opt[1]:step(function() return %s end)"):format(loss(g))
  end},
  {1, function(g)
    return g.pick{"opt[1]:load_state(opt[1]:state())", "opt[1]:zero_grad()",
      ("opt[1]:load_state(%s)"):format(g.pick(GARBAGE))}
  end},
  {2, function(g)
    local t = slot(g)
    return g.pick{("set[1] = data.Dataset{%s, like(%s)}"):format(t, t), ("set[1] = data.Dataset{%s}"):format(tensor(g)),
      "set[1] = data.Dataset{marea.normal{7, 4}, marea.randint({7}, 1, 3)}",
      ("set[1]:subset(%s)"):format(g.pick{"1, 3", "2, 9", g.pick(GARBAGE)}),
      "set[1]:load_state(set[1]:state())", ("set[1]:rows{%s, 2}"):format(g.pick(INTEGERS))}
  end},
  {3, function(g, depth) -- a pass over a dataset
    return ("for x, y in set[1]:batches(%d, {shuffle = %s}) do v[1] = x %s%s end"):format(g.int(1, 4),
      g.pick{"true", "false"}, block(g, depth + 1), g.pick{"", "", " break", ' error "stop"'})
  end},
  {3, function(g) return "law[1] = " .. law(g) end},
  {4, function(g)
    return assign(g, "law[1]" .. g.pick{":sample{3}", ":rsample{2, 3}", ":rsample()", ":log_prob(" .. tensor(g) .. ")",
      ":entropy()", ":cdf(" .. slot(g) .. ")", ":icdf(" .. slot(g) .. ")", ":kl(" .. law(g) .. ")",
      ":sample(" .. g.pick(GARBAGE) .. ")", ":log_prob(1)"})
  end},
  {4, function(g, depth) -- scopes
    return assign(g, ("marea.%s(function() %s end)"):format(g.pick{"scope", "no_grad", "autocast"}, body(g, depth)))
  end},
  {2, function(g, depth)
    return ("local s <close> = marea.%s() %s"):format(g.pick{"scope", "no_grad"}, block(g, depth + 1))
  end},
  {2, function(g, depth)
    return ('marea.autocast({dtype = "%s"}, function() %s end)'):format(g.pick{"bf16", "f16", "f32", "i64"},
      body(g, depth))
  end},
  {2, function(g, depth)
    return ("marea.shield(%s, function() %s end)"):format(
      g.pick{"nil", ("function() %s end"):format(block(g, depth + 1))}, body(g, depth))
  end},
  {3, function(g, depth)
    if g.chance(30) then return ("marea.plan(%s, {4, 6})"):format(net(g)) end
    local shadows = "local v, net, opt, set, law = copy(v), copy(net), copy(opt), copy(set), copy(law) "
    return ("marea.plan(function() %s%s end)"):format(g.chance(50) and shadows or "", body(g, depth)) -- or survivors
  end},
  {3, function(g, depth)
    return g.pick{"marea.profile.start()", "tostring(marea.profile.stop())",
      ("tostring(marea.profile(function() %s end))"):format(body(g, depth))}
  end},
  {3, function(g, depth) -- coroutines
    if g.chance(50) then
      return ("co[1] = coroutine.create(function() %s coroutine.yield() %s end) coroutine.resume(co[1])"):format(
        g.pick{"local s <close> = marea.scope()", "local s <close> = marea.no_grad()", block(g, depth + 1)},
        block(g, depth + 1))
    end
    return g.pick{"assert(coroutine.resume(co[1]))", "coroutine.close(co[1])", "co[1] = nil",
      ("coroutine.wrap(function() %s end)()"):format(body(g, depth))}
  end},
  {2, function() return "collectgarbage()" end},
  {2, function(g) -- files
    local path = ('folder .. "/%s"'):format(g.pick{"a", "b", "c"})
    return g.pick{("marea.save(%s, {x = %s})"):format(path, tensor(g)), assign(g, ("marea.load(%s).x"):format(path)),
      ("marea.save_npy(%s, %s)"):format(tensor(g), path), assign(g, ("marea.load_npy(%s)"):format(path)),
      ("marea.save_png(%s, %s)"):format(tensor(g), path), assign(g, ("marea.load_png(%s)"):format(path)),
      ("#marea.encode_png(%s)"):format(tensor(g)):gsub("^#", "local _ = #"),
      ("marea.checkpoint.save(%s, {model = %s, optimizer = opt[1], loader = set[1]})"):format(path, net(g)),
      ("marea.checkpoint.load(%s, {model = %s, optimizer = opt[1]})"):format(path, net(g)),
      ("marea.save(%s, %s)"):format(g.pick{path, g.pick(GARBAGE)}, g.pick(GARBAGE))}
  end},
  {3, function(g)
    return g.pick{"tostring(%s)", "local _ = %s:totable()", "local _ = %s:item()", "tostring(%s:show())", "%s:size(1)",
      "local _ = #%s", "marea.blame(%s)", "local _ = %s.shape", "%s:is_contiguous()", "%s:shares(v[1])",
      "%s:in_graph()"}:format(slot(g))
  end},
  {1, function(g) return ("tostring(%s)"):format(g.pick{net(g), "opt[1]", "set[1]", "law[1]"}) end},
  {1, function(g)
    return g.pick{"marea.seed(7)", "marea.set_random_state(marea.random_state())", "marea.memory_trim()",
      "marea.memory_reset_peak()", ("marea.seed(%s)"):format(g.pick(GARBAGE))}
  end},
  {1, function(g) return ("tostring(marea.gradcheck(function(x) return %s end, %s))"):format(
    g.pick{"x:exp():sum()", "(x * x):mean()", "x:sin()", "net[1](x)"}, g.pick{slot(g), INPUTS[1]}) end},
  {6, function(g) return example(g) end},
  {2, function(g) -- a function of the library with whatever comes
    local part = g.pick{"augment", "image", "judge", "importance", "metrics", "nn", "optim", "dist", "data"}
    local names = {}
    for name in pairs(require("marea." .. part)) do names[#names + 1] = name end
    table.sort(names)
    local arguments = {}
    for i = 1, g.int(0, 3) do arguments[i] = g.chance(50) and tensor(g) or g.pick(GARBAGE) end
    return ("marea.%s.%s(%s)"):format(part, g.pick(names), table.concat(arguments, ", "))
  end},
}

local weights = 0
for _, entry in ipairs(statements) do weights = weights + entry[1] end

local function statement(g, depth)
  local at = g.int(1, weights)
  for _, entry in ipairs(statements) do
    at = at - entry[1]
    if at <= 0 then return entry[2](g, depth) end
  end
end

local function attempt(g, depth) return ("try(function() %s end)"):format(statement(g, depth)) end

function block(g, depth)
  local lines = {}
  for i = 1, depth < DEEPEST and g.int(1, 3) or 0 do
    lines[i] = g.chance(70) and attempt(g, depth) or ("do %s end"):format(statement(g, depth))
  end
  return table.concat(lines, " ")
end

local HEAD = [[
local marea, try, sampled, like, gone, copy = marea, tools.try, tools.sampled, tools.like, tools.gone, tools.copy
local learning, hostile = tools.learning, tools.hostile
local nn, optim, data, dist, checkpoint, importance = marea.nn, marea.optim, marea.data, marea.dist, marea.checkpoint,
  marea.importance
local judge, augment, image, metrics, gradcheck = marea.judge, marea.augment, marea.image, marea.metrics,
  marea.gradcheck
local v, net, opt, set, law, co = {}, {}, {}, {}, {}, {}
marea.seed(1)
net[1], net[2] = nn.Sequential{nn.Linear{4}, nn.Tanh{}}, nn.Conv2d{2, 2, kernel = 2}
opt[1], law[1] = optim.SGD{net[2]}, dist.Normal(0, 1)
set[1] = data.Dataset{marea.normal{7, 4}, marea.randint({7}, 1, 3)}
]]

--- A program of so many statements; each is one line.
---@param seed integer
---@param calls? integer 30
---@return string
function random_program.text(seed, calls)
  local g = generator(seed)
  local lines = {HEAD}
  for i = 1, SLOTS do lines[#lines + 1] = ("v[%d] = %s"):format(i, made(g)) end
  for _ = 1, calls or 30 do lines[#lines + 1] = attempt(g, 1) end
  lines[#lines + 1] = "return tools.values(v)\n"
  return table.concat(lines, "\n")
end

--- The same without one of its statements, counted from 1; nil: there are not so many.
function random_program.without(text, i)
  local n, found = 0, false
  local rest = text:gsub("[^\n]*\n", function(line)
    if not line:find "^try" then return nil end
    n = n + 1
    if n ~= i then return nil end
    found = true
    return ""
  end)
  return found and rest or nil
end

return random_program
