-- SPDX-License-Identifier: MIT
--- Answers questions word by word, with an encoder, a decoder and attention between them: those of SQuAD without their
--- articles (squad), commands of SCAN, which ask for actions (scan), and questions about little stories (babi).
--- docs/qa.md shows what comes out. --reader starts qa_reader.lua, which finds answers in the articles.
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
for _, word in ipairs(arg) do
  if word == "--reader" then
    package.path = here .. "?.lua;" .. package.path
    return require "qa_reader"
  end
end
local argparse = require "argparse"
local marea = require "marea"
local optim, checkpoint = marea.optim, marea.checkpoint
local shared = dofile(here .. "options.lua")
local networks = dofile(here .. "qa_model.lua")
local memory = dofile(here .. "qa_memory.lua")
local qa = dofile(here .. "qa_data.lua")
local report = dofile(here .. "qa_report.lua")
local count = shared.count

local parser = argparse("qa.lua", "Trains a network that answers questions word by word.")
parser:option("--data", "squad, scan (`make squad` and `make text` get them) or babi", "squad")
  :choices{"squad", "scan", "babi"}
parser:option("--attention", "bahdanau: by what has been written; notebook: without it (default of squad alone); "
  .. "memory: a memory network, for the stories of babi"):choices{"notebook", "bahdanau", "memory"}
parser:option("--hops", "of memory: how often it looks at the story (3)"):convert(count "--hops")
parser:option("--tying", "of memory: hops share embeddings with the next one (adjacent), or all layers theirs")
  :choices{"adjacent", "layers"}
parser:option("--linear", "of memory: the share of the epochs, the first ones, that is without softmax (0)")
  :convert(shared.share "--linear")
parser:option("--task", "of babi: 1, 2 or 3", "1"):choices{"1", "2", "3"}
parser:option("--examples", "questions to learn from (squad, scan: all; babi: 10000); few: below 5000 of babi")
  :convert(count "--examples")
parser:option("--epochs", "passes over the questions (squad: 2, scan: 16, babi: 12; few: 40; memory: 40, few: 100)")
  :convert(count "--epochs")
parser:option("--batch", "questions a step (squad: 64, scan: 32, babi: 16, memory: 32)"):convert(count "--batch")
parser:option("--lr", "learning rate (squad: 1e-3), for the others the highest one (2e-3; few: 4e-3; memory: 0.32)")
  :convert(shared.number "--lr")
parser:option("--dropout", "between the layers (squad: 0.2, scan and babi: 0; few: 0.2; memory has none)")
  :convert(shared.number "--dropout")
parser:option("--temperature", "of answers that are drawn (squad: 0.85); 0: the likeliest words (scan, babi)")
  :convert(shared.number "--temperature")
parser:flag("--reader", "another network, which finds answers in articles; --reader --help lists its options")
local usual = {squad = "notebook", scan = "bahdanau", babi = "bahdanau"} -- of --attention
shared.training(parser, "out/qa", {{"data", "squad"},
  {"task", function(given) return given.data == "babi" and "1" or given.task end},
  {"attention", function(given) return usual[given.data] end}})
local options = parser:parse()
options.attention = options.attention or usual[options.data]
local remembers = options.attention == "memory"
if remembers and options.data ~= "babi" then
  parser:error(("--attention memory answers with one word about the sentences of a story, which --data %s has not; "
    .. "try --data babi"):format(options.data))
elseif remembers and options.dropout then
  parser:error "--attention memory has no --dropout"
end
for _, name in ipairs(remembers and {} or {"hops", "tying", "linear"}) do
  if options[name] then parser:error(("--%s is for --attention memory"):format(name)) end
end
-- hidden: size of the LSTMs; spread: of embeddings at first (bahdanau); by_length: what batches are sorted by
local few = options.examples and options.examples < 5000
local defaults = {
  squad = {epochs = 2, batch = 64, lr = 1e-3, dropout = 0.2, temperature = 0.85, hidden = 128,
    spread = 0.5},
  scan = {epochs = 16, batch = 32, lr = 2e-3, dropout = 0, temperature = 0, hidden = 128,
    spread = 0.5, by_length = "counts"},
  babi = {examples = 10000, epochs = few and 40 or 12, batch = 16,
    lr = few and 4e-3 or 2e-3, dropout = few and 0.2 or 0, temperature = 0, hidden = 64, spread = 1,
    by_length = "lengths"},
  memory = {examples = 10000, epochs = few and 100 or 40, batch = 32, lr = 0.32, temperature = 0,
    by_length = "lengths", hops = 3, tying = "adjacent", linear = 0},
}
for name, value in pairs(defaults[remembers and "memory" or options.data]) do
  if options[name] == nil then options[name] = value end
end
if options.smoke then options.epochs = math.min(options.epochs, 2) end
marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end

-- ---- data, network, optimizer ----

local found = qa.load(options.data, {task = tonumber(options.task), examples = options.examples, seed = options.seed,
  smoke = options.smoke})
local train, validation = found.train.set, found.validation.set
local model = remembers and memory.of(found, {embedding = 20, hops = options.hops, tying = options.tying})
  or networks[options.attention]{inputs = #found.inputs, outputs = #found.outputs, length = found.length,
    begin = found.outputs.begin, stop = found.outputs.stop, embedding = options.smoke and 8 or 64,
    hidden = options.smoke and 16 or options.hidden, dropout = options.dropout, spread = options.spread}
print(marea.format("%d questions to learn from, %d words in, %d words out, %d parameters", #train, #found.inputs,
  #found.outputs, (model:count())))
local steps = options.epochs * ((#train + options.batch - 1) // options.batch)
local squad = options.data == "squad"
local optimizer = remembers and memory.optimizer(model, options.lr, steps)
  or optim.Adam{model, lr = squad and options.lr or optim.schedule.cosine(options.lr, steps),
    clip_norm = not squad and 1 or nil}

shared.make_folder(options.out)
local file, first = options.out .. "/qa.safetensors", 1
local texts = {["words of questions"] = found.inputs:state(), ["words of answers"] = found.outputs:state()}
if options.resume then
  first = assert(shared.load(file, {model = model, optimizer = optimizer}, texts)).epoch + 1
end
local log = marea.metrics.open(options.out .. "/metrics.csv", {"epoch", "loss", "validation", "exact", "seconds"},
  {resume = options.resume})

-- ---- training ----

local function train_epoch(epoch)
  local pass = train:batches(options.batch, {shuffle = true, epoch = epoch, by_length = options.by_length})
  local bar = marea.data.progress(pass, {title = ("epoch %d/%d"):format(epoch, options.epochs), unit = "questions"})
  for input, lengths, output, counts in bar:each() do
    local loss = model:loss(input, lengths, output, counts)
    optimizer:step(loss)
    bar:show("loss", loss:item())
  end
  return bar.means.loss
end

--- The loss of a word of the validation, and the share of its first 1,000 questions that are answered exactly.
local function validate()
  local sum, words = 0, 0
  for input, lengths, output, counts in validation:batches(options.batch, {by_length = options.by_length}) do
    local loss, n = marea.no_grad(model.loss, model, input, lengths, output, counts)
    sum, words = sum + loss:item() * n, words + n
  end
  local answers = report.answers(model, found, found.validation, 1000, options.temperature)
  return sum / words, report.exact(answers, found.validation)
end

for epoch in marea.rerun.range(first, options.epochs) do
  local started = marea.clock()
  model:train()
  if remembers then model:begin_epoch(epoch, options.linear * options.epochs) end
  local loss = train_epoch(epoch)
  model:evaluate()
  local held_out, exact = validate()
  io.stderr:write(marea.format("epoch %d/%d  validation loss %.4f  exactly right %.2f %%\n", epoch, options.epochs,
    held_out, exact))
  assert(log:write{epoch = epoch, loss = loss, validation = held_out, exact = exact,
    seconds = marea.clock() - started})
  assert(checkpoint.save(file, {model = model, optimizer = optimizer, epoch = epoch, texts = texts}))
end

model:evaluate()
report.write(model, found, log, options)
