-- SPDX-License-Identifier: MIT
--- filetype.lua: what is in a file, told from its bytes by the network of the package magika, which `make models` gets.
---
---   build/marea examples/models/filetype.lua file ...
local marea = require "marea"

local folder = (os.getenv "MAREA_MODELS" or "build/models") .. "/magika/"
local paths = {...}
if #paths == 0 then error("usage: marea filetype.lua file ...", 0) end

local function read_json(path)
  local file <close> = assert(io.open(path))
  return assert(marea.json(file:read "a"))
end

local net = assert(marea.onnx.load(folder .. "models/standard_v3_3/model.onnx"))
local config = read_json(folder .. "models/standard_v3_3/config.min.json")
local kinds = read_json(folder .. "config/content_types_kb.min.json")

--- The first and the last bytes of a file, without white space around them.
local function ends(path)
  local file <close> = assert(io.open(path, "rb"))
  local size = assert(file:seek "end")
  local n = math.min(size, config.block_size)
  file:seek("set", 0)
  local first = file:read(n) or ""
  file:seek("set", size - n)
  local last = file:read(n) or ""
  return first:gsub("^%s+", ""):sub(1, config.beg_size), last:gsub("%s+$", ""):sub(-config.end_size), first
end

--- What the network reads: 1,024 bytes of the beginning and of the end, with 256 where there are none.
local function features(first, last)
  return marea.concat({
    marea.bytes(first):to "i64":pad({0, config.beg_size - #first}, config.padding_token),
    marea.bytes(last):to "i64":pad({config.end_size - #last, 0}, config.padding_token)}, 1)
end

--- The most probable kind and its probability; one that is too doubtful becomes text or unknown.
local function kind_of(probabilities)
  local place = probabilities:argmax(1):item()
  local name, probability = config.target_labels_space[place], probabilities[place]
  local found = config.overwrite_map[name] or name
  if probability >= (config.thresholds[name] or config.medium_confidence_threshold) then return found, probability end
  return kinds[found].is_text and "txt" or "unknown", probability
end

local results = {}
for i, path in ipairs(paths) do
  local first, last, bytes = ends(path)
  local kind, probability, probabilities
  if bytes == "" then
    kind, probability = "empty", 1
  elseif #first < config.min_file_size_for_dl then -- nothing to go by
    kind, probability = utf8.len(bytes) and "txt" or "unknown", 1
  else
    probabilities = marea.no_grad(function() return net(features(first, last):unsqueeze(1)) end)[1]
    kind, probability = kind_of(probabilities)
  end
  results[i] = {kind = kind, probability = probability, probabilities = probabilities}
  print(marea.format("%s: %s (%s), %.1f %%", path, kinds[kind].description or kind, kind, 100 * probability))
end
return results
