-- SPDX-License-Identifier: MIT
--- marea.plan: output shapes, parameters, FLOPs and peak memory before anything is computed.
---
---   print(marea.plan(net, {128, 28, 28, 1}))       -- inference and a training step of a batch of 128
---   local plan = marea.plan(function() optimizer:step(loss(net(x))) end)
---   if plan.peak > 8e9 then ... end
---
--- What is planned runs as always, but operators do not compute: tensors have shapes and no values, and what they would
--- take counts as memory in use from the line that makes them to the one that releases them. So a plan holds for
--- whatever a script does, backward pass and optimizer included, and takes milliseconds also for what would not fit.
--- Numbers that are read from tensors (loss:item(), x[{1, 2}]) are nan; whole tables (totable) and files raise. Nothing
--- is left behind: weights, gradients, layers, optimizers and the random state are as before. What the function itself
--- changes in Lua stays changed.
---@example net = nn.Sequential{nn.Linear{400, activation = "relu"}, nn.Linear{10}}
---@example marea.plan(net, {128, 784})
local core = require "marea.core"
local amount = require "marea.internal.amount"
local check = require "marea.internal.check"
local columns = require "marea.internal.columns"
local module = require "marea.nn.module"
local optim = require "marea.optim"
local profile = require "marea.profile"
local undo = require "marea.internal.undo"

---@class Plan
---@field rows {name: string, type: string, shape: string, params: integer, forward: number, backward: number}[] of
---  the layers, in the order of their calls: output shape, elements of their own tensors, FLOPs in each direction
---@field results string[] dtypes and shapes of what the function, or the module, returned
---@field params integer elements of the module's tensors, or of those of the layers that were called
---@field forward number FLOPs; 2 for each multiply-add of products and convolutions, 1 for each element elsewhere
---@field backward number the same of backward passes, 0 where there are none
---@field update number the same of the optimizer's step
---@field flops number all of them
---@field peak integer bytes: what marea.memory().peak would be
---@field alive integer bytes of it that were in use before
---@field inference? {flops: number, peak: integer} of a module: the forward pass alone, without recording
---@field optimizer? string of a module: whose step it is; nil when nothing is trained
local Plan = {}
Plan.__index = Plan

-- ---- what is called ----

local function describe(value)
  if core.is_tensor(value) then return ("%s %s"):format(value.dtype, check.shape_text(value.shape)) end
  return type(value)
end

--- Runs f(...) and lists the calls of modules that hold no other modules or have tensors of their own.
---@return table[] rows
local function watch(f, ...)
  local rows, known = {}, {}
  local function trace(m, ...)
    undo.note(m)
    local results = table.pack(m:forward(...))
    if known[m] == nil then
      local params = module.own_elements(m)
      known[m] = params > 0 or #module.modules(m) == 1
      if known[m] then
        rows[#rows + 1] = {module = m, type = getmetatable(m).__name, shape = describe(results[1]), params = params}
      end
    end
    return table.unpack(results, 1, results.n)
  end
  module.trace(trace, f, ...)
  return rows
end

-- ---- a run ----

local function input_from(value)
  if core.is_tensor(value) or type(value) ~= "table" or module.is_module(value) then return value end
  local options = check.options("plan", value, {"dtype"}, 8)
  local shape = {}
  for i, size in ipairs(options) do shape[i] = check.integer("plan", "shape", size, 0) end
  return core.ops.full(shape, 0, options.dtype or "f32")
end

-- Operators that update parameters.
local updates = {}
for _, name in ipairs(core.op_names()) do updates[name] = core.op_info(name).mutates end

--- Runs f(...) once under a profile: what it takes, and the calls of modules.
local function measure(f, ...)
  local run = {results = {}, forward = 0, backward = 0, update = 0}
  local before, arguments = core.memory().live, table.pack(...)
  local function describe_results(...)
    local results = table.pack(f(...))
    for i = 1, results.n do run.results[i] = describe(results[i]) end
  end
  run.report = profile(function()
    local own = core.memory().live - before -- bytes that the profile takes
    core.memory_reset_peak()
    run.rows = watch(core.scope, describe_results, table.unpack(arguments, 1, arguments.n)) -- keeps no result
    run.peak = core.memory().peak - own
  end, {events = 0})
  for _, row in ipairs(run.report.rows) do
    local part = updates[row.op] and "update" or row.direction
    run[part] = run[part] + row.flop
  end
  run.flops = run.forward + run.backward + run.update
  return run
end

--- Gives the rows their names and FLOPs from the profile.
local function name_rows(run)
  local flop = {forward = {}, backward = {}}
  for _, row in ipairs(run.report.rows) do
    local sum = flop[row.direction]
    sum[row.layer] = (sum[row.layer] or 0) + row.flop
  end
  for _, row in ipairs(run.rows) do
    local layer = run.report:layer_of(row.module)
    row.name = layer and layer ~= row.type and ("%s (%s)"):format(layer, row.type) or row.type
    row.forward, row.backward = flop.forward[layer] or 0, flop.backward[layer] or 0
    row.module = nil
  end
end

local function new_plan(run, alive)
  name_rows(run)
  local plan = setmetatable({alive = alive, params = 0}, Plan)
  for _, key in ipairs{"rows", "results", "peak", "forward", "backward", "update", "flops"} do plan[key] = run[key] end
  for _, row in ipairs(plan.rows) do plan.params = plan.params + row.params end
  return plan
end

local function inputs_from(...)
  local inputs = table.pack(...)
  for i = 1, inputs.n do inputs[i] = input_from(inputs[i]) end
  return table.unpack(inputs, 1, inputs.n)
end

local function plan_function(f, ...)
  local alive = core.memory().live
  return new_plan(measure(f, inputs_from(...)), alive)
end

local function mean_square(y)
  if not core.is_tensor(y) then
    check.raise("plan: the module returns %s; give a loss, as in {loss = function(...) return ... end}",
      check.describe(y))
  end
  return y:square():mean()
end

local function plan_module(net, options, ...)
  local alive = core.memory().live
  for _, entry in ipairs(module.modules(net)) do undo.note(entry.module) end
  local inputs = table.pack(inputs_from(...))
  local function forward() return net(table.unpack(inputs, 1, inputs.n)) end
  net:evaluate()
  core.scope(function() core.no_grad(forward) end) -- layers learn their sizes
  local inference = measure(core.no_grad, forward)
  local params, trained = net:count()
  local plan
  if trained > 0 then
    net:train()
    local optimizer = (options.optimizer or optim.Adam){net}
    local function step() optimizer:step((options.loss or mean_square)(forward())) end
    core.scope(step) -- once before, so that the optimizer has made the tensors that it keeps
    plan = new_plan(measure(step), alive)
    plan.results, plan.optimizer = inference.results, optimizer.name
  end
  plan = plan or new_plan(inference, alive)
  plan.params, plan.inference = params, {flops = inference.flops, peak = inference.peak}
  return plan
end

-- ---- the text ----

local function layout(self)
  local cells = {{"Layer (type)", "Output", "Param #", "forward", "backward"}}
  for _, row in ipairs(self.rows) do
    cells[#cells + 1] = {row.name, row.shape, amount.thousands(row.params),
      row.forward > 0 and amount.flops(row.forward) or "", row.backward > 0 and amount.flops(row.backward) or ""}
  end
  local lines, rule = columns(cells, 2)
  if #self.rows == 0 then return {} end
  lines[#lines + 1] = rule
  lines[#lines + 1] = "Params: " .. amount.thousands(self.params)
  return lines
end

local function peak_text(peak, alive)
  if alive == 0 then return "peak " .. amount.bytes(peak) end
  return ("peak %s, %s of it in use already"):format(amount.bytes(peak), amount.bytes(alive))
end

local function step_text(self)
  local parts = {}
  for _, part in ipairs{"forward", "backward", "update"} do
    if self[part] > 0 then parts[#parts + 1] = part .. " " .. amount.flops(self[part]) end
  end
  local sum = amount.flops(self.flops)
  return #parts > 1 and ("%s (%s)"):format(sum, table.concat(parts, ", ")) or sum
end

function Plan:__tostring()
  local lines = layout(self)
  if #self.results > 0 then lines[#lines + 1] = "Result: " .. table.concat(self.results, ", ") end
  if self.inference then
    lines[#lines + 1] = ("Inference: %s, %s"):format(amount.flops(self.inference.flops),
      peak_text(self.inference.peak, self.alive))
  end
  if self.optimizer or not self.inference then
    local title = self.optimizer and ("Training step, %s"):format(self.optimizer) or "Run"
    lines[#lines + 1] = ("%s: %s, %s"):format(title, step_text(self), peak_text(self.peak, self.alive))
  end
  return table.concat(lines, "\n")
end

-- ---- marea.plan ----

--- The last argument, if it is a table of options by name.
local function split_options(...)
  local arguments = table.pack(...)
  local last = arguments[arguments.n]
  if type(last) ~= "table" or #last > 0 or module.is_module(last) or type(next(last)) ~= "string" then
    return {}, arguments
  end
  arguments.n = arguments.n - 1
  return last, arguments
end

--- What f takes, without computing it: a module with the shapes of its inputs, for inference and a step of training, or
--- a function, which is called once.
---@param f table|function
---@param ... integer[]|userdata inputs: shapes of batches, f32 {128, 28, 28, 1} or {128, 10, dtype = "i64"}, or
---  tensors. Behind those of a module, {optimizer = optim.Adam, loss = function(y) return y:square():mean() end}.
---@return Plan
local function plan(_, f, ...)
  if not module.is_module(f) then
    if type(f) ~= "function" then
      check.fail("plan", "f", "a module and the shape of a batch, or a function", f)
    end
    return undo.run(core.plan, plan_function, f, ...)
  end
  local options, inputs = split_options(...)
  check.options("plan", options, {"optimizer", "loss"})
  if inputs.n == 0 then check.raise("plan: expected the shape of a batch, such as {128, 28, 28, 1}") end
  return undo.run(core.plan, plan_module, f, options, table.unpack(inputs, 1, inputs.n))
end

return setmetatable({}, {__call = plan})
