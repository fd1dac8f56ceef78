-- SPDX-License-Identifier: MIT
--- Learning rates that change: functions of the step (1 for the first update) that give the learning rate. Any Lua
--- function of a step will do; these are the common ones.
local check = require "marea.internal.check"

local schedule = {}

local LARGEST = 0x1.fffffffffffffp+1023 -- the largest finite number

--- Checks arguments in the order of `names`: steps and `every` are whole numbers from 1, the rest numbers from 0.
local function arguments(what, names, ...)
  local values = {...}
  for i, name in ipairs(names) do
    if name == "steps" or name == "every" then check.integer(what, name, values[i], 1)
    else check.number(what, name, values[i], 0, LARGEST) end
  end
end

--- A schedule whose step is checked.
local function of_step(what, f)
  return function(step) return f(check.number(what, "step", step)) end
end

--- lr
---@param lr number
---@return fun(step: integer): number
---@example optim.schedule.constant(0.1)(1)
function schedule.constant(lr)
  arguments("constant", {"lr"}, lr)
  return function() return lr end
end

--- lr * rate ^ ((step - 1) / every)
---@param lr number
---@param rate number
---@param every? number 1 when left out
---@return fun(step: integer): number
---@example optim.schedule.exponential(0.1, 0.9)(3)
function schedule.exponential(lr, rate, every)
  every = every or 1
  arguments("exponential", {"lr", "rate"}, lr, rate)
  if check.number("exponential", "every", every, 0, LARGEST) == 0 then
    check.fail("exponential", "every", "a number greater than 0", every)
  end
  return of_step("exponential", function(step) return lr * rate ^ ((step - 1) / every) end)
end

--- From lr down to `final` along half a cosine in `steps` updates, then `final` (Loshchilov and Hutter 2017).
---@param lr number
---@param steps integer
---@param final? number 0 when left out
---@return fun(step: integer): number
---@example optim.Adam{nn.Linear{2, 1}, lr = optim.schedule.cosine(1e-3, 1000)}
function schedule.cosine(lr, steps, final)
  final = final or 0
  arguments("cosine", {"lr", "steps", "final"}, lr, steps, final)
  return of_step("cosine", function(step)
    local part = math.min((step - 1) / math.max(steps - 1, 1), 1)
    return final + (lr - final) * 0.5 * (1 + math.cos(math.pi * part))
  end)
end

--- lr, multiplied by `factor` after every `every` updates.
---@param lr number
---@param every integer
---@param factor? number 0.1 when left out
---@return fun(step: integer): number
---@example optim.schedule.step(0.1, 10)(11)
function schedule.step(lr, every, factor)
  factor = factor or 0.1
  arguments("step", {"lr", "every", "factor"}, lr, every, factor)
  return of_step("step", function(step) return lr * factor ^ ((step - 1) // every) end)
end

--- Linear warm-up: the first `steps` updates take 1/steps, 2/steps, ... of `after`, a number or a schedule; the later
--- ones all of it, counted from the end of the warm-up.
---@param steps integer
---@param after number|fun(step: integer): number
---@return fun(step: integer): number
---@example optim.schedule.warmup(100, optim.schedule.cosine(1e-3, 1000))(50)
function schedule.warmup(steps, after)
  local rate = type(after) == "function" and after or schedule.constant(after)
  check.integer("warmup", "steps", steps, 0)
  return of_step("warmup", function(step)
    if step <= steps then return rate(1) * step / steps end
    return rate(step - steps)
  end)
end

--- lr / (1 + decay * (step - 1)): the `decay` argument of Keras' optimizers.
---@param lr number
---@param decay number
---@return fun(step: integer): number
---@example optim.schedule.inverse_time(0.1, 0.5)(3)
function schedule.inverse_time(lr, decay)
  arguments("inverse_time", {"lr", "decay"}, lr, decay)
  return of_step("inverse_time", function(step) return lr / (1 + decay * (step - 1)) end)
end

return check.strict(schedule, "optim.schedule")
