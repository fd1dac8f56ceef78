-- SPDX-License-Identifier: MIT
--- What is in a file of Keras: the configuration of a network, if it has one, and its weights by name.
---
---   .keras         a ZIP archive of config.json and model.weights.h5
---   .weights.h5    layers/dense_1/vars/0: weights are numbered, and layers are named by their class and number in the
---                  network; vars@name is the layer's own name, which the first versions did not write
---   .h5            model_weights/dense@weight_names lists "dense/kernel:0" and so on; @model_config is the
---                  configuration. Without it, and without model_weights, it is what save_weights of Keras 2 wrote.
local core = require "marea.core"
local check = require "marea.internal.check"
local extra = require "marea.internal.extra"
local files = require "marea.internal.files"

local file = {}

--- Raises what file.attempt gives back: the file is damaged, or needs what is not there.
function file.fail(text, ...) error({problem = core.format(text, ...)}, 0) end

--- What f(...) gives; nil and a message, that begins with `what` and the path, for a file that cannot be taken. Errors
--- of other kinds in f come from a configuration that makes no sense; interrupts and want of memory go on.
function file.attempt(what, path, f, ...)
  local ok, result = pcall(f, ...)
  if ok then return result end
  local text = type(result) == "table" and result.problem or tostring(result)
  if type(result) == "string" then
    if text:find "interrupted" or text:find "memory" then error(result, 0) end
    text = "damaged: " .. text:gsub("^[^\n]-:%d+: ", ""):gsub(" %(layer '[^']*'%)$", ""):match "[^\n]*"
  end
  return nil, ("%s: '%s': %s"):format(what, core.printable(path), text)
end

---@class KerasFile
---@field config table|nil the network's
---@field legacy boolean Keras 1 or 2 wrote it
---@field unnamed boolean layers have the names of their classes, with numbers
---@field weights {name: string, group: string?, tensor: userdata}[] group: where .h5 has the weights of one layer

local function lines_of(text)
  local list = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do
    if line ~= "" then list[#list + 1] = line end
  end
  return list
end

--- Long lists of names go on in weight_names1 and so on.
local function names_of(texts, group)
  local whole = texts[group .. "@weight_names"]
  if whole then return lines_of(whole) end
  local list = {}
  for k = 0, math.maxinteger do
    local text = texts[("%s@weight_names%d"):format(group, k)]
    if not text then return list end
    local more = lines_of(text)
    table.move(more, 1, #more, #list + 1, list)
  end
end

--- A name from its layer on: "sequential/dense/kernel", or "kernel" alone -> "dense/kernel".
local function below(group, name)
  local at = ("/" .. name):find("/" .. group .. "/", 1, true)
  return at and name:sub(at) or group .. "/" .. name
end

local function listed(tensors, texts)
  local groups, weights, root = {}, {}, texts["model_weights@layer_names"] and "model_weights/" or ""
  for key in pairs(texts) do
    local group = key:match("^" .. root .. "(.+)@weight_names0?$")
    if group then groups[#groups + 1] = group end
  end
  table.sort(groups, core.before)
  for _, group in ipairs(groups) do
    for _, name in ipairs(names_of(texts, root .. group)) do
      local tensor = tensors[root .. group .. "/" .. name]
      if not tensor then file.fail("damaged: '%s/%s' is listed and not there", group, name) end
      weights[#weights + 1] = {name = below(group, name:gsub(":%d+$", "")), group = group, tensor = tensor}
    end
  end
  return weights
end

-- Steps of a path that name what is there for its owner; false: a layer has one of these only.
local STEPS = {layers = false, vars = false, cell = false, layer = false, forward_layer = "forward",
  backward_layer = "backward", query_dense = "query", key_dense = "key", value_dense = "value",
  output_dense = "attention_output"}

--- "layers/dense/vars/0" -> "shared/0". What comes below "layers" is a layer's name, whatever it is.
local function path_of(key, texts)
  local path, at, before = {}, "", nil
  for step in key:gmatch "[^/]+" do
    at = at == "" and step or at .. "/" .. step
    local plain = step:gsub("^_", "")
    local known = STEPS[plain]
    if known == nil or before == "layers" then known = texts[at .. "/vars@name"] or step end
    path[#path + 1] = known or nil
    before = before ~= "layers" and plain or nil
  end
  return table.concat(path, "/")
end

local function numbered(tensors, texts)
  local keys, weights = {}, {}
  for key in pairs(tensors) do keys[#keys + 1] = key end
  table.sort(keys, core.before)
  for _, key in ipairs(keys) do
    if key:find "^layers/" then weights[#weights + 1] = {name = path_of(key, texts), tensor = tensors[key]} end
  end
  return weights
end

local function from_hdf5(hdf5, bytes)
  local converted, message = hdf5.safetensors(bytes)
  if not converted then file.fail("%s", message) end
  local tensors, texts = core.load_string(converted)
  if not tensors then file.fail("%s", texts) end
  return tensors, texts
end

local function object(text)
  local value, message = core.json(text)
  if type(value) == "table" then return value end
  file.fail("damaged: its configuration is no object%s", message and ": " .. message or "")
end

local function has_names(texts)
  for key in pairs(texts) do
    if key:find "/vars@name$" then return true end
  end
  return false
end

local function read_hdf5(hdf5, bytes, config, version)
  local tensors, texts = from_hdf5(hdf5, bytes)
  if texts["@model_config"] then config = object(texts["@model_config"]) end
  local lists = texts["@layer_names"] or texts["model_weights@layer_names"]
  version = version or texts["@keras_version"] or texts["model_weights@keras_version"] or "3"
  return {config = config, legacy = tonumber(tostring(version):match "^%d+" or 3) < 3,
    unnamed = not lists and not has_names(texts),
    weights = lists and listed(tensors, texts) or numbered(tensors, texts)}
end

local function read_archive(hdf5, members)
  local config, weights, about = members["config.json"], members["model.weights.h5"], members["metadata.json"]
  if not config or not weights then
    file.fail("a ZIP archive without %s, so it is not Keras'", config and "model.weights.h5" or "config.json")
  end
  about = about and core.json(about:to_bytes())
  return read_hdf5(hdf5, weights:to_bytes(), object(config:to_bytes()), type(about) == "table" and about.keras_version)
end

--- Reads any of the three kinds.
---@param what string the function that was called
---@param path string
---@return KerasFile? file
---@return string? message
function file.read(what, path)
  local bytes, message = files.read(check.string(what, "path", path))
  if not bytes then return nil, ("%s: %s"):format(what, message) end
  local hdf5 = extra.load("hdf5", what)
  if bytes:find("PK\3\4", 1, true) ~= 1 then return file.attempt(what, path, read_hdf5, hdf5, bytes) end
  local members, problem = core.load_zip(path)
  if not members then return nil, (problem:gsub("^load_zip", what)) end
  return file.attempt(what, path, read_archive, hdf5, members)
end

return file
