-- SPDX-License-Identifier: MIT
--- Tells how words are pronounced, "knight" as n ay t: an encoder reads the letters, a decoder with attention to them
--- says phoneme after phoneme. It learns from CMUdict as Debian's package festlex-cmu has it. docs/pronounce.md shows
--- what comes out.
local argparse = require "argparse"
local marea = require "marea"
local text, optim, data, checkpoint = marea.text, marea.optim, marea.data, marea.checkpoint
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local shared = dofile(here .. "options.lua")
local lexicon = dofile(here .. "pronounce_data.lua")
local Speaker = dofile(here .. "pronounce_model.lua")
local report = dofile(here .. "pronounce_report.lua")

local parser = argparse("pronounce.lua", "Trains a network that tells how English words are pronounced.")
parser:option("--dictionary", "a lexicon as Festival has them", lexicon.DICTIONARY)
parser:option("--say", "tells how this word is pronounced, by the weights in --out, and does nothing else")
parser:option("--epochs", "passes over the dictionary", "16"):convert(shared.count "--epochs")
parser:option("--batch", "pronunciations a step", "64"):convert(shared.count "--batch")
parser:option("--size", "of the states", "192"):convert(shared.count "--size")
shared.cosine_rate(parser, "2e-3")
parser:option("--dropout", "between layers", "0.2"):convert(shared.number "--dropout")
parser:option("--smoothing", "of labels", "0.1"):convert(shared.number "--smoothing")
parser:option("--average", "the judged weights follow the others by this share a step", "1e-3")
  :convert(shared.number "--average")
parser:option("--beam", "pronunciations that are followed in the search", "4"):convert(shared.count "--beam")
parser:flag("--stress", "tells the stress of vowels, too, as in ae1")
shared.training(parser, "out/pronounce", {{"stress"}})
local options = parser:parse()
if options.smoke then
  options.epochs, options.size, options.batch, options.dropout = math.min(options.epochs, 3), 32, 8, 0
  options.lr, options.average = 1e-2, 0.1
end
marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end

-- ---- letters and phonemes as numbers ----

local letters = text.Vocabulary{words = text.characters "abcdefghijklmnopqrstuvwxyz", unknown = false}
local phonemes = text.Vocabulary{words = lexicon.phonemes(options.stress), unknown = false, begin = true, stop = true}

--- Rows of letters (N, T) and their lengths, phonemes with the stop behind them (N, U) and theirs, the word's place.
---@param all boolean a row for each pronunciation of a word, or for the first one
local function dataset(words, all)
  local spelled, said, places = {}, {}, {}
  for i, word in ipairs(words) do
    for k = 1, all and #word.phonemes or 1 do
      spelled[#spelled + 1] = letters:encode(text.characters(word.name))
      said[#said + 1] = phonemes:encode(word.phonemes[k], {stop = true})
      places[#places + 1] = i
    end
  end
  local x, x_lengths = text.pad(spelled)
  local y, y_lengths = text.pad(said)
  return data.Dataset{{"letters", x}, {"lengths", x_lengths}, {"phonemes", y}, {"counts", y_lengths},
    {"place", marea.tensor(places, {dtype = "i64"})}}
end

-- ---- the network, its weights as they are and as they are on average ----

local sizes = {letters = #letters, phonemes = phonemes, size = options.size, dropout = options.dropout}
local model, average = Speaker(sizes), Speaker(sizes):evaluate()
local file, first = options.out .. "/pronounce.safetensors", 1
average:load_state(model:state())

--- Moves the average towards the weights; at first by more, so that it forgets where they began.
local function follow(step)
  local rate, now = math.max(options.average, 10 / (step + 9)), model:parameters()
  for i, p in ipairs(average:parameters()) do p:mul_(1 - rate):add_(now[i] * rate) end
end

if options.say then
  assert(shared.load(file, {model = {model = model, average = average}}))
  return report.say(average, letters, options.say, options.beam)
end

-- ---- training ----

local words = options.smoke and lexicon.made_up(240, options.stress)
  or assert(lexicon.read(options.dictionary, options.stress))
local parts = lexicon.split(words, 1)
local train, validation = dataset(parts.training, true), dataset(parts.validation)
print(("%d words for training, %d for validation, %d held out; %d parameters"):format(#parts.training,
  #parts.validation, #parts.test, model:count()))
local steps = (#train + options.batch - 1) // options.batch
local optimizer = optim.Adam{model, clip_norm = 1, lr = optim.schedule.warmup(steps // 4 + 1,
  optim.schedule.cosine(options.lr, math.max(options.epochs * steps - steps // 4 - 1, 1)))}
local state = {model = {model = model, average = average}, optimizer = optimizer}
shared.make_folder(options.out)
if options.resume then first = assert(shared.load(file, state)).epoch + 1 end
local log = marea.metrics.open(options.out .. "/metrics.csv", {"epoch", "loss", "phoneme_error", "word_error",
  "seconds"}, {resume = options.resume})

--- What the average says to each word of a part, and how wrong that is: phonemes and words in percent.
local function judge(rows, part, width)
  local said = {}
  for spelled, lengths, _, _, places in rows:batches(200, {by_length = "lengths"}) do
    local found = average:search(text.trim(spelled, lengths), lengths, width)
    for i, place in ipairs(places:totable()) do said[place] = found[i][1].phonemes end
  end
  return said, lexicon.errors(said, part)
end

for epoch in marea.rerun.range(first, options.epochs) do
  local started = marea.clock()
  local bar = data.progress(train:batches(options.batch, {shuffle = true, epoch = epoch, by_length = "lengths"}),
    {title = ("epoch %d/%d"):format(epoch, options.epochs), unit = "words"})
  for spelled, lengths, said, counts in bar:each() do
    said = text.trim(said, counts)
    local logits = model(text.trim(spelled, lengths), lengths, said)
    local loss = logits:cross_entropy(said, {ignore_label = phonemes.padding, label_smoothing = options.smoothing})
    optimizer:step(loss)
    marea.no_grad(follow, (epoch - 1) * steps + bar.step)
    bar:show("loss", loss:item())
  end
  local _, phoneme_error, word_error = judge(validation, parts.validation, 1)
  io.stderr:write(marea.format("epoch %d/%d  validation: phonemes wrong %.2f %%, words %.2f %%\n", epoch,
    options.epochs, phoneme_error, word_error))
  assert(log:write{epoch = epoch, loss = bar.means.loss, phoneme_error = phoneme_error, word_error = word_error,
    seconds = marea.clock() - started})
  state.epoch = epoch
  assert(checkpoint.save(file, state))
end

local said, phoneme_error, word_error = judge(dataset(parts.test), parts.test, options.beam)
report.all(average, {letters = letters, words = parts.test, said = said, phoneme_error = phoneme_error,
  word_error = word_error}, log, options, lexicon.distance)
