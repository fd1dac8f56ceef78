-- SPDX-License-Identifier: MIT
--- Finds the answer to a question in a paragraph: a reader for SQuAD 1.1 (Rajpurkar et al. 2016) that is trained from
--- nothing and scored by exact match and F1. docs/reader.md explains the network; `qa.lua --reader` runs it too.
local argparse = require "argparse"
local marea = require "marea"
local optim, data, checkpoint, text = marea.optim, marea.data, marea.checkpoint, marea.text
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local shared = dofile(here .. "options.lua")
local reader_data = dofile(here .. "qa_reader_data.lua")
local made_up = dofile(here .. "qa_reader_made_up.lua")
local Reader = dofile(here .. "qa_reader_model.lua")
local score = dofile(here .. "qa_reader_score.lua")
local report = dofile(here .. "qa_reader_report.lua")

local parser = argparse("qa_reader.lua", "Trains a network that finds the answers to questions in paragraphs.")
parser:flag("--reader", "this script, when qa.lua has begun it")
parser:option("--epochs", "passes over the questions", "6"):convert(shared.count "--epochs")
parser:option("--groups", "train on so many groups of up to 5 questions; all when left out")
  :convert(shared.count "--groups")
parser:option("--batch", "groups a step", "8"):convert(shared.count "--batch")
parser:option("--size", "of an LSTM's state in one direction, an even number", "64"):convert(shared.count "--size")
parser:option("--dropout", "share of what is left out between layers", "0.2"):convert(shared.number "--dropout")
shared.cosine_rate(parser, "2e-3")
parser:option("--every", "steps between two savings within an epoch", "500"):convert(shared.count "--every")
parser:option("--ask", "a question that the network in --out answers from the text of --paragraph")
parser:option("--paragraph", "a file with the text for --ask")
shared.training(parser, "out/reader")
local options = parser:parse()
if options.size % 2 > 0 then parser:error(("--size: expected an even number, got %d"):format(options.size)) end
marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end
local file = options.out .. "/reader.safetensors"

local LONGEST <const> = 17 -- words of an answer that is given
local PARAGRAPH <const> = 300 -- words of a paragraph that it learns from; it answers from longer ones too

local function network(words, letters, size)
  return Reader{words = #words, letters = #letters, unknown = words.unknown, shapes = reader_data.SHAPES, size = size,
    dropout = options.dropout}
end

-- ---- one question ----

local function ask(question, path)
  local saved = assert(shared.load(file, {}))
  local words = assert(text.Vocabulary.from_state(saved.texts.words))
  local letters = assert(text.Vocabulary.from_state(saved.texts.letters))
  local size = math.tointeger(tonumber(saved.texts.size))
  local model = {reader = network(words, letters, size), average = network(words, letters, size)}
  assert(shared.load(file, {model = model}))
  local paragraph = assert(data.corpus(path, {share = 1}))
  assert(utf8.len(question), "--ask: the question is no UTF-8")
  assert(question:find "%S", "--ask: a text without words")
  assert(paragraph:find "%S", path .. ": a text without words")
  local set = reader_data.set({{question = question, context = paragraph}}, words, letters)
  local batch = set:batch(set.rows:rows{1})
  local first, last, start, stop = marea.no_grad(model.average.answer, model.average:evaluate(), batch, LONGEST)
  print(set:answer(1, first[1], last[1]))
  shared.saver(options.out)("answer", report.heat_map(set, 1, start[1], stop[1], first[1], last[1]))
end

if options.paragraph and not options.ask then parser:error "--paragraph wants a question, --ask" end
if options.ask then return ask(options.ask, options.paragraph or parser:error "--ask wants a --paragraph") end

-- ---- questions ----

local function read(part)
  return assert(data.squad(shared.text_file(("squad-%s-v1.1.json"):format(part), "squad")))
end

if options.smoke then options.epochs, options.size = math.min(options.epochs, 2), math.min(options.size, 16) end
local questions = options.smoke and made_up(600, 1) or read "train"
local words, letters = reader_data.vocabularies(questions, options.smoke and 1 or 5)
local train = reader_data.set(questions, words, letters, PARAGRAPH)
local test = reader_data.set(options.smoke and made_up(60, 2) or read "dev", words, letters)
local rows = train.rows
if options.groups and options.groups < #rows then rows = rows:spaced(options.groups) end

-- ---- training ----

local model = network(words, letters, options.size)
local average = network(words, letters, options.size):load_state(model:state()):freeze()
local optimizer = optim.Adam{model, clip_norm = 5, lr = optim.schedule.warmup(100,
  optim.schedule.cosine(options.lr, options.epochs * ((#rows + options.batch - 1) // options.batch)))}

--- Every tenth step: the average is mostly of the last thousand.
local function follow()
  if optimizer.steps % 10 > 0 then return end
  local keep = math.min(0.99, optimizer.steps / (100 + optimizer.steps))
  local source = model:parameters()
  for i, p in ipairs(average:parameters()) do p:add_((source[i] - p) * (1 - keep)) end
end

--- Exact match and F1 (percent) of the averaged weights, the answers by the questions' numbers.
local function evaluate()
  average:evaluate()
  local answers, exact, f1 = {}, 0, 0
  for first, lengths, question, count in test.rows:batches(8, {by_length = "lengths"}) do
    local batch = test:batch(first, lengths, question, count)
    local from, to = marea.no_grad(average.answer, average, batch, LONGEST)
    for i, k in ipairs(batch.numbers) do
      answers[k] = test:answer(k, from[i], to[i])
      local e, f = score.answer(answers[k], test.questions[k].question.answers)
      exact, f1 = exact + e, f1 + f
    end
  end
  return 100 * exact / #test, 100 * f1 / #test, answers
end

shared.make_folder(options.out)
local parts = {model = {reader = model, average = average}, optimizer = optimizer, loader = rows}
local first = options.resume and assert(shared.load(file, parts)).epoch + 1 or 1
parts.texts = {words = words:state(), letters = letters:state(), size = ("%d"):format(options.size)}
local log = marea.metrics.open(options.out .. "/metrics.csv", {"epoch", "loss", "exact", "f1", "seconds", "processor"},
  {resume = options.resume})
print(("%d parameters, %d words, %d questions, %d for the test"):format(model:count(), #words, #train, #test))

local exact, f1, answers
for epoch in marea.rerun.range(first, options.epochs) do
  local started, processor = marea.clock(), os.clock()
  local pass = rows:batches(options.batch, {shuffle = true, epoch = epoch, by_length = "lengths"})
  local bar = data.progress(pass, {title = ("epoch %d/%d"):format(epoch, options.epochs), unit = "paragraphs"})
  parts.epoch = epoch - 1
  for from, lengths, question, count in bar:each() do
    local batch = train:batch(from, lengths, question, count)
    local start, stop = model(batch)
    local loss = start:cross_entropy(batch.start) + stop:cross_entropy(batch.stop)
    optimizer:step(loss)
    marea.no_grad(follow)
    bar:show("loss", loss:item())
    if pass.step % options.every == 0 then assert(checkpoint.save(file, parts)) end
  end
  exact, f1, answers = evaluate()
  print(marea.format("epoch %d/%d  test: exact %.2f %%, F1 %.2f %%", epoch, options.epochs, exact, f1))
  assert(log:write{epoch = epoch, loss = bar.means.loss, exact = exact, f1 = f1, seconds = marea.clock() - started,
    processor = os.clock() - processor})
  parts.epoch = epoch
  assert(checkpoint.save(file, parts))
end

if not answers then exact, f1, answers = evaluate() end
report.write(average, test, answers, LONGEST, log, options)
print(marea.format("%d questions: exact match %.2f %%, F1 %.2f %%", #test, exact, f1))
