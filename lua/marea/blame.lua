-- SPDX-License-Identifier: MIT
--- marea.blame(t): where values that are not finite began.
---
---   print(marea.blame(loss))
---   -- it began in log (train.lua:31, after layer 'decoder.out'), which made 2 nan of finite numbers
---   --   x, f32 (4, 3), lies between -0.31 and 2.5; 2 of 12 values are <= 0
---
--- loss:backward() and optimizer:step(loss) call it when a loss is not finite. Nothing is recorded before that: values
--- that the graph no longer holds are computed once more.
---@example x = marea.tensor({1, -2}, {requires_grad = true})
---@example marea.blame(x:log():sum())
local core = require "marea.core"
local amount = require "marea.internal.amount"
local check = require "marea.internal.check"
local visible = require "marea.internal.visible"
local ops = core.ops
local format = core.format

---@class Blame
---@field op? string the operator whose result is not finite; nil: t is a leaf
---@field place? string "FILE:LINE" of the script that called it
---@field layer? string path of the layer that it belongs to, or that was last before it
---@field in_layer boolean whether it belongs to the layer
---@field given? string the input that came with such values; nil: all inputs that are known are finite
---@field text string two lines
local Blame = {}
Blame.__index = Blame

function Blame:__tostring() return self.text end

-- ---- counting ----

local function count(condition) return condition:sum():item() end

local function is_real(t) return core.float_dtypes[t.dtype] end

--- "2 nan and 1 inf".
local function bad_text(t)
  local nans, infinities = count(ops.ne(t, t)), count(ops.eq(ops.abs(t), math.huge))
  local parts = {}
  if nans > 0 then parts[1] = amount.thousands(nans) .. " nan" end
  if infinities > 0 then parts[#parts + 1] = amount.thousands(infinities) .. " infinite" end
  return table.concat(parts, " and ")
end

--- What arguments of some operators should not be: position -> text and test.
local function overflows(x) return ops.gt(x, x.dtype == "f64" and 709.78 or 88.72) end
local function not_positive(x) return ops.le(x, 0) end
local function zero(x) return ops.eq(x, 0) end
local too_large = {"so large that exp overflows", overflows}
local outside = {"outside of 0 to 1", function(x) return ops.gt(ops.abs(x - 0.5), 0.5) end}
local DOMAINS = {
  log = {{"<= 0", not_positive}},
  rsqrt = {{"<= 0", not_positive}},
  log1p = {{"<= -1", function(x) return ops.le(x, -1) end}},
  sqrt = {{"< 0", function(x) return ops.lt(x, 0) end}},
  pow = {{"<= 0", not_positive}},
  reciprocal = {{"0", zero}},
  div = {nil, {"0", zero}},
  exp = {too_large},
  expm1 = {too_large},
  kl_normal = {nil, too_large},
  sample_normal = {nil, too_large},
  bce = {outside},
  norm_icdf = {outside},
}

--- "x, f32 (4, 3), lies between -0.31 and 2.5; 2 of 12 values are <= 0".
local function input_text(op, i, input)
  local t = input.tensor
  if not t then return ("'%s' is not known any more"):format(input.name) end
  if not is_real(t) or t:numel() == 0 then return nil end
  local low, high, n = ops.min(t):item(), ops.max(t):item(), t:numel()
  local text = ("%s, %s %s, "):format(input.name, t.dtype, check.shape_text(t.shape))
  text = text .. (low == high and format("is %.4g", low) or format("lies between %.4g and %.4g", low, high))
  local domain = DOMAINS[op] and DOMAINS[op][i]
  local outside_of = domain and count(domain[2](t)) or 0
  if outside_of == 0 or n == 1 then return text end
  return ("%s; %s of %s values are %s"):format(text, amount.thousands(outside_of), amount.thousands(n), domain[1])
end

-- ---- sentences ----

local function layer_of(name) return name and (name:match "^(.*)%.[^.]*$" or "") end

local function place_text(found)
  local parts = {found.place}
  if found.layer and found.layer ~= "" then
    parts[#parts + 1] = ("%slayer '%s'"):format(found.in_layer and "" or "after ", found.layer)
  end
  return #parts > 0 and (" (%s)"):format(table.concat(parts, ", ")) or ""
end

local function began_in(found, raw)
  local parts = {}
  for i, input in ipairs(raw.inputs) do parts[#parts + 1] = input_text(raw.op, i, input) end
  local known = true
  for _, input in ipairs(raw.inputs) do known = known and input.tensor ~= nil end
  local made = raw.result and ", which made " .. bad_text(raw.result) .. (known and " of finite numbers" or "") or ""
  local details = #parts > 0 and "\n  " .. table.concat(parts, "; ") or ""
  return ("it began in %s%s%s%s"):format(raw.op, place_text(found), made, details)
end

local function came_with(found, raw)
  local t, name = raw.given, raw.given.requires_grad and raw.given.is_leaf and visible.name_of(raw.given)
  if t.rank == 0 and raw.op then
    return ("it came in as argument '%s' of %s%s, the number %s"):format(raw.given_name, raw.op, place_text(found),
      (format("%s", t:item()):gsub("%-nan", "nan")))
  end
  local bad = ("%s among %s values"):format(bad_text(t), amount.thousands(t:numel()))
  if name then
    return ("it came in as parameter '%s', which has %s\n  hint: the gradients of an earlier step were not finite; an "
      .. "optimizer with clip_norm refuses such steps"):format(name, bad)
  end
  local made = raw.given_made and (", made at %s,"):format(raw.given_made) or ""
  local what = ("%s %s%s has %s"):format(t.dtype, check.shape_text(t.shape), made, bad)
  if not raw.op then return "it is a tensor of the script\n  " .. what end
  return ("it came in as argument '%s' of %s%s\n  %s"):format(raw.given_name, raw.op, place_text(found), what)
end

local function find(t)
  local raw = core.blame(t)
  local found = {op = raw.op, place = raw.place, in_layer = raw.own_parameter, given = raw.given_name}
  found.layer = raw.parameter and layer_of(visible.name_of(raw.parameter))
  found.text = raw.given and came_with(found, raw) or began_in(found, raw)
  return setmetatable(found, Blame)
end

local function is_finite(t) return not is_real(t) or bad_text(t) == "" end

--- Where the values of t that are not finite began: the operator, the line of the script that called it, its layer, and
--- what its inputs looked like. nil when all values of t are finite. The graph behind t must not be consumed.
---@param t userdata
---@return Blame|nil
local function blame(_, t)
  check.tensor("blame", "t", t)
  return core.scope(core.no_grad, function()
    if is_finite(t) then return nil end
    return find(t)
  end)
end

return setmetatable({}, {__call = blame})
