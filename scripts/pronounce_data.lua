-- SPDX-License-Identifier: MIT
--- Words and how they are pronounced, for scripts/pronounce.lua: reads the lexicon of Debian's package festlex-cmu
--- (CMUdict as Festival has it), splits it by words, and tells how far a pronunciation is from those that are right.
local shared = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")
local pronounce = {}

--- Where Debian's package puts the file.
pronounce.DICTIONARY = "/usr/share/festival/dicts/cmu/cmudict-0.4.out"

local VOWELS <const> = "aa ae ah ao aw ay eh er ey ih iy ow oy uh uw"
local CONSONANTS <const> = "b ch d dh f g hh jh k l m n ng p r s sh t th v w y z zh"

--- The names of all phonemes, those of CMUdict.
---@param stress boolean? each vowel without (0) and with stress (1)
function pronounce.phonemes(stress)
  local list = {}
  for sound in VOWELS:gmatch "%l+" do
    for digit = 0, stress and 1 or 0 do list[#list + 1] = stress and sound .. digit or sound end
  end
  for sound in CONSONANTS:gmatch "%l+" do list[#list + 1] = sound end
  return list
end

--- The phonemes of a lexicon's entry: ("abacus" nil (((ae) 1) ((b ax) 0) ((k ax s) 0))) has three syllables and their
--- stress. Festival writes "ax" for an "ah" without stress; both are the phoneme AH of CMUdict.
---@param stress boolean? puts the stress behind each vowel, as in "ae1"
local function phonemes_of(syllables, stress)
  local list = {}
  for sounds, digit in syllables:gmatch "%(%(([%l ]+)%) (%d)%)" do
    for sound in sounds:gmatch "%l+" do
      if sound == "ax" then sound = "ah" end
      list[#list + 1] = stress and sound:find "^[aeiou]" and sound .. digit or sound
    end
  end
  return list
end

local function add(words, by_name, name, phonemes)
  local word, key = by_name[name], table.concat(phonemes, " ")
  if not word then
    word = {name = name, phonemes = {}, seen = {}}
    by_name[name], words[#words + 1] = word, word
  end
  if not word.seen[key] then
    word.seen[key] = true
    table.insert(word.phonemes, phonemes)
  end
end

--- Words in the order of the file, in small letters, each once with all its pronunciations; entries with other
--- characters than letters are left out.
---@param path string
---@param stress boolean?
---@return {name: string, phonemes: string[][]}[]|nil words
---@return string? message
function pronounce.read(path, stress)
  local file, message = io.open(path)
  if not file then return nil, message .. "\n  hint: sudo apt install festlex-cmu, or --dictionary FILE" end
  local words, by_name = {}, {}
  for line in file:lines() do
    local name, syllables = line:match '^%("(%a+)" %S+ (.*)%)$'
    local phonemes = name and phonemes_of(syllables, stress) or {}
    if #phonemes > 0 then add(words, by_name, name:lower(), phonemes) end
  end
  file:close()
  if #words < 10 then return nil, path .. ": no lexicon as Festival has them: fewer than 10 words" end
  return words
end

-- Of the made up language, in which the letters of a syllable tell its sounds.
local FIRST = {b = "b", d = "d", f = "f", k = "k", m = "m", n = "n", sh = "sh", ch = "ch", th = "th", z = "z"}
local SECOND = {a = "ae", e = "eh", i = "ih", ee = "iy", oo = "uw"}

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

--- Words of two syllables that nobody says, for a look at the script without a dictionary.
---@param n integer
---@param stress boolean? as in read
function pronounce.made_up(n, stress)
  local words, first, vowels = {}, sorted_keys(FIRST), sorted_keys(SECOND)
  for i = 0, n - 1 do
    local a, b = first[i % #first + 1], first[i * 7 % 9 + 1]
    local v, w = vowels[i // #first % #vowels + 1], vowels[(i * 3 + i // 50) % #vowels + 1]
    local one, none = stress and "1" or "", stress and "0" or ""
    words[i + 1] = {name = a .. v .. b .. w, phonemes = {{FIRST[a], SECOND[v] .. one, FIRST[b], SECOND[w] .. none}}}
  end
  return words
end

--- Puts words in an order that the seed tells (Fisher and Yates), and cuts them: the first tenth is the test,
--- the next fiftieth, from which settings are chosen, the validation, the others train.
function pronounce.split(words, seed)
  local order, draw = table.move(words, 1, #words, 1, {}), shared.numbers(seed)
  for i = #order, 2, -1 do
    local k = draw(i)
    order[i], order[k] = order[k], order[i]
  end
  local tests, last = #order // 10, #order // 10 + #order // 50
  return {test = table.move(order, 1, tests, 1, {}), validation = table.move(order, tests + 1, last, 1, {}),
    training = table.move(order, last + 1, #order, 1, {})}
end

--- The least number of phonemes to change, put in or leave out that makes one of two lists the other (Levenshtein).
function pronounce.distance(a, b)
  local row = {}
  for k = 0, #b do row[k] = k end
  for i = 1, #a do
    local before = row[0]
    row[0] = i
    for k = 1, #b do
      local changed = before + (a[i] == b[k] and 0 or 1)
      before, row[k] = row[k], math.min(changed, row[k] + 1, row[k - 1] + 1)
    end
  end
  return row[#b]
end

--- The pronunciation of a word that is nearest, how far it is, and its length.
local function nearest(said, word)
  local least, length = math.huge, 0
  for _, phonemes in ipairs(word.phonemes) do
    local d = pronounce.distance(said, phonemes)
    if d < least then least, length = d, #phonemes end
  end
  return least, length
end

--- How wrong are these pronunciations, one for each word, measured by the nearest of the right ones: phonemes to change
--- for each that is right, and words with any, in percent.
---@param said string[][]
---@return number phoneme_error, number word_error
function pronounce.errors(said, words)
  local edits, phonemes, wrong = 0, 0, 0
  for i, word in ipairs(words) do
    local d, length = nearest(said[i], word)
    edits, phonemes, wrong = edits + d, phonemes + length, wrong + (d > 0 and 1 or 0)
  end
  return 100 * edits / phonemes, 100 * wrong / #words
end

return pronounce
