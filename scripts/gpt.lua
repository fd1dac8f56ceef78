-- SPDX-License-Identifier: MIT
--- A language model of characters on any text file: a transformer of nanoGPT's small size, an LSTM or a GRU. It shows
--- texts of its own as it learns, and leaves a curve, metrics.csv and weights in --out. `marea gpt.lua --text FILE`
--- trains on the first 90 % of the file and is judged by the rest; --help lists the options.
local argparse = require "argparse"
local marea = require "marea"
local optim, data, text, checkpoint, metrics, plot =
  marea.optim, marea.data, marea.text, marea.checkpoint, marea.metrics, marea.plot
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local network = dofile(here .. "gpt_model.lua")
local shared = dofile(here .. "options.lua")
local count = shared.count

local parser = argparse("gpt.lua", "Trains a language model of characters.")
parser:option("--text", "file in UTF-8")
parser:option("--model", "transformer, lstm or gru", "transformer"):choices{"transformer", "lstm", "gru"}
parser:option("--layers", "of the network", "4"):convert(count "--layers")
parser:option("--heads", "of attention", "4"):convert(count "--heads")
parser:option("--width", "of a layer", "128"):convert(count "--width")
parser:option("--context", "characters that are seen at a time", "64"):convert(count "--context")
parser:option("--batch", "rows a step", "12"):convert(count "--batch")
parser:option("--steps", "updates", "2000"):convert(count "--steps")
parser:option("--every", "steps between two rows of metrics.csv; the first: step 1", "250"):convert(count "--every")
parser:option("--optimizer", "muon or adamw", "muon"):choices{"muon", "adamw"}
shared.cosine_rate(parser, "8e-3")
parser:option("--warmup", "steps until then", "100"):convert(shared.whole "--warmup")
parser:option("--dropout", "of all layers", "0"):convert(shared.number "--dropout")
parser:option("--length", "characters of the text that is written", "300"):convert(count "--length")
parser:option("--writing", "of texts: f32, or int8, faster (docs/precision.md)", "f32"):choices{"f32", "int8"}
parser:flag("--tie", "the table of characters is also the last layer, which has no bias then")
shared.training(parser, "out/gpt", {{"model", "transformer"}}, true)
local options = parser:parse()
if options.smoke then
  options.text = options.text or arg[0]
  options.steps, options.every, options.layers = math.min(options.steps, 6), 2, 2
  options.width, options.context, options.length = 16, 16, 40
end
if not options.text then parser:error "--text FILE: the text to learn from" end
marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end
shared.make_folder(options.out)

-- ---- the text ----

local training, held_out = assert(data.corpus(options.text))
training, held_out = text.characters(training), text.characters(held_out)
local vocabulary = text.Vocabulary{{training, held_out}, padding = false, unknown = false}
local function numbers_of(list) return marea.tensor(vocabulary:encode(list), {dtype = "i64"}):keep() end
local context, train, validation = options.context, numbers_of(training), numbers_of(held_out)
assert(#validation > context, ("%s: too short: a tenth, %d characters, is held out, and --context %d needs %d of them")
  :format(options.text, #validation, context, context + 1))
local steps_of_row = marea.arange(0, context - 1, 1, "i64"):keep()

--- Rows of `numbers` from these places on, and what follows each number.
local function rows_at(numbers, places)
  local index = (places:unsqueeze(2) + steps_of_row):reshape{-1}
  local shape = {#places, context}
  return numbers:index_select(index):reshape(shape), numbers:index_select(index + 1):reshape(shape)
end

-- ---- network and optimizer ----

options.vocabulary = #vocabulary
local net, writer = network(options) -- the writer: the same, or its copy of bytes
if options.model ~= "transformer" then net:build(marea.ones(1, 1):to "i64") end
local hidden, ends, vectors = {}, {}, {weight_decay = 0} -- hidden: the matrices between the first and the last layer
for _, p in ipairs(net:parameters()) do
  local is_end = p == net.embed.weight or net.out and p == net.out.weight
  table.insert(p.rank < 2 and vectors or is_end and ends or hidden, p)
end
print(("%s: %d parameters, %d characters for training, %d held out"):format(options.model, net:count(), #train,
  #validation))
ends.adam = options.optimizer == "muon" or nil
local optimizer = (ends.adam and optim.Muon or optim.AdamW){hidden, ends, vectors, beta1 = 0.9, beta2 = 0.99,
  weight_decay = 0.1, clip_norm = 1, lr = optim.schedule.warmup(options.warmup,
    optim.schedule.cosine(options.lr, math.max(options.steps - options.warmup, 1)))}

local function loss_at(numbers, places)
  local x, y = rows_at(numbers, places)
  return marea.cross_entropy((net(x)), y)
end

--- Nats per character of the whole held-out text, cut into rows of `context` characters, each without the one before.
local function validate()
  net:evaluate()
  local rows, sum = (#validation - 1) // context, 0
  for first = 1, rows, 64 do
    local last = math.min(first + 63, rows)
    local places = (marea.arange(first, last, 1, "i64") - 1) * context + 1
    local loss = marea.scope(function() return marea.no_grad(loss_at, validation, places):item() end)
    sum = sum + loss * (last - first + 1)
  end
  net:train()
  return sum / rows
end

-- ---- writing ----

--- One character further. A full cache is begun anew with the second half of what it holds.
local function step(numbers, state)
  state = state or {seen = {}, net = writer:begin(1)}
  local seen = table.move(state.seen, math.max(#state.seen - context // 2 + 2, 1), #state.seen, 1, {})
  seen[#seen + 1] = numbers[1]
  local input, inner = numbers:unsqueeze(2), state.net
  if inner.start == context then input, inner = marea.tensor({seen}, {dtype = "i64"}), writer:begin(1) end
  local y, after = writer(input, inner)
  return y:select(2, y:size(2)), {seen = seen, net = after}
end

--- Shows a text as it is drawn: what follows the end of a line, or, in a text of one line, its commonest character.
local function write_text()
  net:evaluate()
  writer = options.writing == "int8" and net:quantize() or net
  local begin = vocabulary:number "\n" or 1
  for number in marea.decode.stream(step, begin, nil, {temperature = 0.8, length = options.length}) do
    io.stdout:write(vocabulary:word(number)):flush()
  end
  print()
  net:train()
end

-- ---- training ----

local file, first = options.out .. "/gpt.safetensors", 1
local parts, texts = {model = net, optimizer = optimizer}, {characters = vocabulary:state()}
if options.resume then first = assert(shared.load(file, parts, texts)).step + 1 end
local log = metrics.open(options.out .. "/metrics.csv", {"step", "loss", "validation", "seconds"},
  {resume = options.resume})
local sum, n, started = 0, 0, marea.clock()
for at = first, options.steps do
  local places = marea.randint({options.batch}, 1, #train - context)
  local function loss() return marea.autocast({dtype = options.precision}, loss_at, train, places) end
  sum, n = sum + optimizer:step(loss):item(), n + 1
  if at == 1 or at % options.every == 0 or at == options.steps then
    local seconds = marea.clock() - started
    local row = {step = at, loss = sum / n, validation = validate(), seconds = seconds}
    assert(log:write(row))
    print(marea.format("step %d  loss %.4f  validation %.4f  %.1f ms a step", at, row.loss, row.validation,
      1e3 * seconds / n))
    if at > 1 then write_text() end
    parts.step, parts.texts = at, texts
    assert(checkpoint.save(file, parts))
    sum, n, started = 0, 0, marea.clock()
  end
end

shared.saver(options.out)("training_curve", plot.curves{title = "Language model", xlabel = "step",
  ylabel = "nats per character", {x = log:column "step", y = log:column "loss", title = "training"},
  {x = log:column "step", y = log:column "validation", title = "held out"}})
print("Picture, metrics.csv and gpt.safetensors are in " .. options.out)
