-- SPDX-License-Identifier: MIT
--- Reads dates as people write them, "Sat 7th of Feb 2015", and writes "2015-02-07", character by character: an
--- encoder, a decoder, and attention between them (Bahdanau et al. 2015). docs/dates.md shows what comes out.
local argparse = require "argparse"
local marea = require "marea"
local nn, text, optim, data, checkpoint = marea.nn, marea.text, marea.optim, marea.data, marea.checkpoint
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local shared = dofile(here .. "options.lua")
local free_dates = dofile(here .. "dates_data.lua")
local report = dofile(here .. "dates_report.lua")

local parser = argparse("dates.lua", "Trains a network that turns free dates into ISO 8601.")
parser:option("--attention", "bahdanau: by the decoder's state; notebook: without it", "bahdanau")
  :choices{"bahdanau", "notebook"}
parser:option("--epochs", "passes over new dates", "10"):convert(shared.count "--epochs")
parser:option("--dates", "new dates an epoch", "10000"):convert(shared.count "--dates")
parser:option("--batch", "dates a step", "50"):convert(shared.count "--batch")
shared.cosine_rate(parser, "4e-3")
shared.training(parser, "out/dates", {{"attention", "bahdanau"}})
local options = parser:parse()
local epochs, tests = options.epochs, 2000
if options.smoke then options.dates, tests, epochs = 500, 100, math.min(epochs, 2) end
marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end

-- ---- characters and their numbers ----

local LENGTH = 10 -- of "2015-02-07"
local vocabulary = text.Vocabulary{text.characters(free_dates.CHARACTERS), begin = true, unknown = false}

--- Lines as numbers (N, T), with padding behind, and their lengths (N).
local function encode(lines)
  local rows = {}
  for i, line in ipairs(lines) do rows[i] = vocabulary:encode(text.characters(line)) end
  return text.pad(rows)
end

local function dataset(free, iso)
  local input, lengths = encode(free)
  return data.Dataset{{"input", input}, {"lengths", lengths}, {"output", (encode(iso))}}
end

-- ---- the network ----

local Translator = nn.class("Translator")

function Translator:init(size)
  self.embedding = nn.Embedding{#vocabulary, 32}
  self.encoder = nn.LSTM{32, size, bidirectional = true}
  self.decoder = nn.LSTM{32, size}
  self.attention = options.attention == "bahdanau" and nn.Attention{size, query = size, key = 2 * size}
    or nn.Attention{LENGTH, score = "encoder", key = 2 * size}
  self.head = nn.Linear{3 * size, #vocabulary}
end

--- Input (N, T) as the decoder looks at it: states (N, T, 2 * size).
function Translator:read(input, lengths)
  return (self.encoder(self.embedding(input), {lengths = lengths}))
end

--- What comes behind each of the characters `last` (N, U): logits (N, U, V), the state behind them, the weights of
--- attention (N, U, T). state: what was read; at: the place of the next character; h, c: the decoder's.
function Translator:write(last, state)
  local h, last_h, last_c = self.decoder(self.embedding(last), {h0 = state.h, c0 = state.c})
  local context, weights = self:look(h, state)
  local logits = self.head(marea.concat({h, context}, 3))
  local at = state.at + last:size(2)
  return logits, {encoded = state.encoded, lengths = state.lengths, at = at, h = last_h, c = last_c}, weights
end

--- Means of what was read (N, U, 2 * size), for each h (N, U, size), and their weights.
function Translator:look(h, state)
  local lengths = {lengths = state.lengths}
  if options.attention == "bahdanau" then return self.attention(h, state.encoded, lengths) end
  local context, weights = self.attention(state.encoded, lengths) -- for all places of the output
  return context:narrow(2, state.at, h:size(2)), weights:narrow(2, state.at, h:size(2))
end

--- The logits of all characters of `output` (N, 10), each given the true ones before it; attention.
function Translator:forward(input, lengths, output)
  local begin = marea.full({#output, 1}, vocabulary.begin, "i64")
  local last = marea.concat({begin, output:narrow(2, 1, LENGTH - 1)}, 2)
  local logits, _, weights = self:write(last, {encoded = self:read(input, lengths), lengths = lengths, at = 1})
  return logits, weights
end

--- Free dates as ISO dates, the likeliest character at each step.
function Translator:translate(input, lengths)
  local function step(last, state)
    local logits, after = self:write(last:unsqueeze(2), state)
    return logits:squeeze(2), after
  end
  local begin = marea.full({#input}, vocabulary.begin, "i64")
  local state = marea.no_grad(function() return {encoded = self:read(input, lengths), lengths = lengths, at = 1} end)
  local lines = marea.decode.greedy(step, begin, state, {length = LENGTH})
  for i, numbers in ipairs(lines) do lines[i] = table.concat(vocabulary:decode(numbers)) end
  return lines
end

-- ---- training ----

local model = Translator(128)
local optimizer = optim.Adam{model, clip_norm = 1,
  lr = optim.schedule.cosine(options.lr, epochs * ((options.dates + options.batch - 1) // options.batch))}
local free, iso = free_dates.draw(tests, 1, "validation") -- by which options are chosen
local validation = {free = free, iso = iso, rows = dataset(free, iso)}

shared.make_folder(options.out)
local file, first = options.out .. "/dates.safetensors", 1
if options.resume then first = assert(shared.load(file, {model = model, optimizer = optimizer})).epoch + 1 end
local log = marea.metrics.open(options.out .. "/metrics.csv", {"epoch", "loss", "exact", "seconds"},
  {resume = options.resume})

--- Notes what the model writes for dates; the share (percent) that is right.
local function evaluate(dates)
  local lines, right = {}, 0
  for input, lengths in dates.rows:batches(500) do
    table.move(model:translate(input, lengths), 1, #lengths, #lines + 1, lines)
  end
  for i, line in ipairs(lines) do right = right + (line == dates.iso[i] and 1 or 0) end
  dates.written = lines
  return 100 * right / #lines
end

for epoch in marea.rerun.range(first, epochs) do
  local started = marea.clock()
  local train = dataset(free_dates.draw(options.dates, options.seed * 1000 + epoch, "training"))
  local bar = data.progress(train:batches(options.batch, {shuffle = true, epoch = epoch, by_length = "lengths"}),
    {title = ("epoch %d/%d"):format(epoch, epochs), unit = "dates"})
  for input, lengths, output in bar:each() do
    local logits = model(text.trim(input, lengths), lengths, output)
    local loss = logits:reshape(-1, #vocabulary):cross_entropy(output:reshape(-1))
    optimizer:step(loss)
    bar:show("loss", loss:item())
  end
  local exact = evaluate(validation)
  io.stderr:write(marea.format("epoch %d/%d  validation: dates all right %.2f %%\n", epoch, epochs, exact))
  assert(log:write{epoch = epoch, loss = bar.means.loss, exact = exact, seconds = marea.clock() - started})
  assert(checkpoint.save(file, {model = model, optimizer = optimizer, epoch = epoch}))
end

free, iso = free_dates.draw(tests, 0, "test")
local test = {free = free, iso = iso, rows = dataset(free, iso)}
report(model, test, evaluate(test), log, options)
