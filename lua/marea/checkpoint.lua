-- SPDX-License-Identifier: MIT
--- marea.checkpoint: the whole state of a training run in one safetensors file, so that a run that is stopped and
--- resumed goes on bit for bit as one that never stopped. Tensors: the model's, under their paths; the optimizer's,
--- under "optimizer/". Text: random state, position of the loader, and what the script adds. Never code.
---
---   checkpoint.save("out/run.safetensors", {model = net, optimizer = optimizer, loader = train, epoch = 3})
---   local saved, message = checkpoint.load("out/run.safetensors", {model = net, optimizer = optimizer})
local core = require "marea.core"
local check = require "marea.internal.check"
local events = require "marea.internal.events"
local module = require "marea.nn.module"
local random = require "marea.internal.random"

local checkpoint = {}

local FORMAT, OPTIMIZER = "marea 1", "optimizer/"

local function integer(text) return math.tointeger(tonumber(text or "")) end

local function integers(text, n)
  local list = {}
  for word in (text or ""):gmatch "%S+" do list[#list + 1] = integer(word) end
  return #list == n and list or nil
end

local function add_loader(texts, loader)
  local state = loader:state()
  texts["loader.position"] = ("%d %d"):format(state.epoch, state.examples)
  if state.seed then texts["loader.seed"] = ("%d"):format(state.seed) end
  if state.stream then texts["loader.stream"] = ("%d"):format(state.stream) end
end

--- Optimizers by the prefix that their tensors and texts have: "" for a single one, else "name/".
local function optimizers_of(what)
  local optimizer, list = what.optimizer, {}
  if optimizer == nil then return list end
  if type(optimizer) ~= "table" then
    check.fail("checkpoint", "optimizer", "an optimizer or a table of them", optimizer)
  end
  if optimizer.load_state then return {[""] = optimizer} end
  for name, one in pairs(optimizer) do
    if type(name) ~= "string" or type(one) ~= "table" or not one.load_state then
      check.fail("checkpoint", "optimizer", "an optimizer or a table of them by name", one)
    end
    if name:find "/" then check.raise("checkpoint: the name '%s' of an optimizer has a '/' in it", name) end
    list[name .. "/"] = one
  end
  return list
end

--- Writes the file, whole or not at all.
---@param path string
---@param what {model: table, optimizer: table?, loader: table?, epoch: integer?, step: integer?, texts: table?}
---  model: a module or a table of modules; optimizer: one, or a table of them by name; texts: string pairs of the
---  script's own
---@return boolean|nil ok, string|nil message
---@example path, net = os.tmpname(), nn.Linear{3, 2}
---@example checkpoint.save(path, {model = net, epoch = 1}), checkpoint.load(path, {model = net}), os.remove(path)
function checkpoint.save(path, what)
  what = check.options("checkpoint.save", what, {"model", "optimizer", "loader", "epoch", "step", "texts"})
  if type(what.model) ~= "table" then check.fail("checkpoint.save", "model", "a module", what.model) end
  if module.is_plain(what.model) then check.items("checkpoint.save", "model", what.model) end
  return core.no_grad(function()
    local tensors, texts = {}, {format = FORMAT}
    for _, entry in ipairs(module.tensors(what.model)) do
      if entry.name:sub(1, #OPTIMIZER) == OPTIMIZER then
        check.raise("checkpoint.save: '%s' is no path for a model's tensor: what begins with '%s' is the optimizer's",
          entry.name, OPTIMIZER)
      end
      tensors[entry.name] = entry.tensor
    end
    for prefix, optimizer in pairs(optimizers_of(what)) do
      for name, t in pairs(optimizer:state()) do tensors[OPTIMIZER .. prefix .. name] = t end
      texts["optimizer" .. prefix] = optimizer.name
    end
    texts["random.core"] = ("%d %d"):format(core.random_state())
    texts["random.lua"] = ("%d %d"):format(random.renew_lua())
    texts["random.streams"] = ("%d"):format(random.streams)
    if what.loader then add_loader(texts, what.loader) end
    if what.epoch then texts.epoch = ("%d"):format(check.integer("checkpoint.save", "epoch", what.epoch)) end
    if what.step then texts.step = ("%d"):format(check.integer("checkpoint.save", "step", what.step)) end
    for key, text in pairs(what.texts or {}) do texts["text." .. key] = text end
    return core.save(path, tensors, texts)
  end)
end

--- Tensors of the model, and those of the optimizers by prefix. The names of a single one's may have a '/' in them.
local function sort_tensors(tensors, optimizers)
  local model, states = {}, {}
  for prefix in pairs(optimizers) do states[prefix] = {} end
  for name, t in pairs(tensors) do
    local rest = name:sub(1, #OPTIMIZER) == OPTIMIZER and name:sub(#OPTIMIZER + 1)
    local prefix = rest and (states[""] and "" or rest:match "^[^/]*/" or "")
    if not rest then model[name] = t
    elseif states[prefix] then states[prefix][rest:sub(#prefix + 1)] = t end
  end
  return model, states
end

--- nil, or what keeps an optimizer's state from being loaded.
local function optimizer_misfit(optimizer, state, saved_name)
  if next(state) == nil or not saved_name then return "has no state of an optimizer" end
  if saved_name ~= optimizer.name then
    return ("was saved with the optimizer %s, not %s"):format(saved_name, optimizer.name)
  end
  return optimizer:misfit(state)
end

--- nil, or what keeps the file from being loaded into `what`.
local function misfit(what, model, optimizers, states, texts)
  if texts.format ~= FORMAT then return "is no checkpoint of this version of Marea" end
  if not (integers(texts["random.core"], 2) and integers(texts["random.lua"], 2)) then return "has no random state" end
  if what.loader and not integers(texts["loader.position"], 2) then return "has no position of a loader" end
  local problem = what.model and module.misfit(what.model, model, true)
  for prefix, optimizer in pairs(optimizers) do
    problem = problem or optimizer_misfit(optimizer, states[prefix], texts["optimizer" .. prefix])
  end
  return problem
end

--- Runs shielded: all of it comes back or nothing.
local function put_back(what, model, optimizers, states, texts)
  if what.model then module.assign(what.model, model) end
  for prefix, optimizer in pairs(optimizers) do optimizer:load_state(states[prefix]) end
  if what.loader then
    local position = integers(texts["loader.position"], 2)
    what.loader:load_state{epoch = position[1], examples = position[2], seed = integer(texts["loader.seed"]),
      stream = integer(texts["loader.stream"])}
  end
  if what.random == false then return end
  core.set_random_state(table.unpack(integers(texts["random.core"], 2)))
  math.randomseed(table.unpack(integers(texts["random.lua"], 2)))
  random.streams = integer(texts["random.streams"]) or random.streams
end

--- Reads a file and puts everything back: weights, optimizer, random state, position of the loader. When anything
--- does not fit, nothing is changed.
---@param path string
---@param what {model: table?, optimizer: table?, loader: table?, random: boolean?} random = false leaves the random
---  state alone, as for using a trained model
---@return {epoch: integer?, step: integer?, texts: table<string, string>}|nil saved, string|nil message
---@example checkpoint.load("missing.safetensors", {model = nn.Linear{3, 2}})
function checkpoint.load(path, what)
  what = check.options("checkpoint.load", what, {"model", "optimizer", "loader", "random"})
  local message
  local saved = core.no_grad(function()
    local tensors, texts = core.load(path)
    if not tensors then
      message = texts
      return nil
    end
    local optimizers = optimizers_of(what)
    local model, states = sort_tensors(tensors, optimizers)
    local problem = misfit(what, model, optimizers, states, texts)
    if problem then
      message = core.printable(("%s: %s"):format(path, problem))
      return nil
    end
    core.shield(nil, put_back, what, model, optimizers, states, texts)
    if events.watcher then events.watcher:restored() end
    local result = {epoch = integer(texts.epoch), step = integer(texts.step), texts = {}}
    for key, text in pairs(texts) do
      if key:sub(1, 5) == "text." then result.texts[key:sub(6)] = text end
    end
    return result
  end)
  return saved, message
end

return check.strict(checkpoint, "checkpoint")
