-- SPDX-License-Identifier: MIT
--- What the scripts share: options, folders, pictures, random numbers for data.
local options = {}

--- For option:convert: reads what `read` makes of the text, nil where it is not `expected`.
local function reader(name, expected, read)
  return function(text)
    local value = read(text)
    if value then return value end
    return nil, ("option '%s': expected %s, got '%s'"):format(name, expected, text)
  end
end

local function whole(text) return math.tointeger(tonumber(text)) end

--- For option:convert: reads an option that counts.
---@param name string of the option, for the message
function options.count(name)
  return reader(name, "a whole number of at least 1", function(text)
    local n = whole(text)
    return n and n > 0 and n
  end)
end

--- For option:convert: reads a number.
function options.number(name) return reader(name, "a number", tonumber) end

--- For option:convert: reads a part of a whole.
function options.share(name)
  return reader(name, "a number from 0 to 1", function(text)
    local p = tonumber(text)
    return p and p >= 0 and p <= 1 and p
  end)
end

--- For option:convert: reads a whole number.
function options.whole(name) return reader(name, "a whole number", whole) end

--- Adds --lr for optim.schedule.cosine.
---@param default string
function options.cosine_rate(parser, default)
  parser:option("--lr", "highest learning rate, from which it falls to 0 along a cosine", default)
    :convert(options.number "--lr")
end

--- The folder of a run: `out`, and behind it what its kind has that is not the default, "out/count_cells_direct".
local function run_folder(out, kinds, given)
  local words = {out}
  for _, kind in ipairs(kinds) do
    local name, default = kind[1], kind[2]
    if type(default) == "function" then default = default(given) end
    local value = given[name]
    if value and value ~= default then words[#words + 1] = value == true and name or value end
  end
  if given.smoke then words[#words + 1] = "smoke" end
  return table.concat(words, "_")
end

--- Adds --out. Left out, it is a folder of this kind of run alone, so that no run overwrites another kind's results.
---@param out string the default kind's
---@param kinds? {[1]: string, [2]: any}[] options that make other kinds: their names, "as_assigned", and defaults, or
---  functions of the options that give them
function options.results(parser, out, kinds)
  parser:option("--out", ("folder for the results (%s; of another kind of run, %s_KIND)"):format(out, out))
  parser:action(function(given) given.out = given.out or run_folder(out, kinds or {}, given) end)
end

--- Adds the options of a training script; out, kinds: as of options.results.
---@param precision? boolean adds --precision for marea.autocast, which makes another kind
function options.training(parser, out, kinds, precision)
  if precision then
    parser:option("--precision", "of products: f32, or bf16 (docs/precision.md)", "f32"):choices{"f32", "bf16"}
    kinds = table.move(kinds or {}, 1, #(kinds or {}), 2, {{"precision", "f32"}})
  end
  parser:option("--seed", "of the random numbers", "1"):convert(options.whole "--seed")
  parser:option("--threads", "at most this many; all cores when left out"):convert(options.count "--threads")
  options.results(parser, out, kinds)
  parser:flag("--resume", "goes on from the weights in --out")
  parser:flag("--smoke", "a few steps on little data, to see that all of it runs")
end

local OTHER <const> = "\n  hint: a run with other options has written it; give the same ones, or another --out"

--- marea.checkpoint.load of what a run has left. Where there is nothing, or what does not fit, the message tells what
--- to do.
---@param texts? table<string, string> vocabularies' states by names: no other ones may be in the file
function options.load(path, what, texts)
  local found, message = require "marea".checkpoint.load(path, what)
  for name, text in pairs(found and texts or {}) do
    if found.texts[name] and found.texts[name] ~= text then
      return nil, ("%s: was trained with other %s, or in another order"):format(path, name) .. OTHER
    end
  end
  if found then return found end
  local file = io.open(path)
  if not file then return nil, message .. "\n  hint: a training run writes it; --out names that run's folder" end
  file:close()
  if message:find("does not fit", 1, true) or message:find("was saved with the optimizer", 1, true) then
    message = message .. OTHER
  end
  return nil, message
end

--- A function that draws whole numbers from 1 to n: the high bits of a linear congruential generator (Knuth's MMIX).
--- It is apart from Marea's random state: the same seed gives the same data, whatever was drawn before.
function options.numbers(seed)
  local state = seed * 2 + 1
  return function(n)
    state = state * 6364136223846793005 + 1442695040888963407
    return (state >> 33) % n + 1
  end
end

--- A word for the shell.
function options.quote(text) return "'" .. tostring(text):gsub("'", "'\\''") .. "'" end

--- Makes a folder for results.
function options.make_folder(path)
  assert(os.execute("mkdir -p " .. options.quote(path)), "no folder for the results: " .. path)
end

--- The path of a text that scripts/texts.sh gets, in $MAREA_TEXT or data/text.
---@param name string "squad-train-v1.1.json"
---@param target string which target of make gets it: "text" or "squad"
function options.text_file(name, target)
  for _, place in ipairs{os.getenv "MAREA_TEXT" or "data/text", "data/text"} do
    local file = io.open(place .. "/" .. name)
    if file then
      file:close()
      return place .. "/" .. name
    end
  end
  error(("no file %s in $MAREA_TEXT or data/text; `make %s` gets it"):format(name, target), 0)
end

--- save(name, figure) writes FOLDER/NAME.png. Without gnuplot the figure's script is left there, and it says so.
function options.saver(folder)
  return function(name, figure)
    local ok, message = figure:save(folder .. "/" .. name .. ".png")
    if not ok then io.stderr:write(name, ": ", message, "\n") end
  end
end

return options
