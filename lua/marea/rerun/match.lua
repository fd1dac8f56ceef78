-- SPDX-License-Identifier: MIT
--- Finds for each part of a network its predecessor in the network of an earlier run, and copies values from it.
---
--- A network is a list of holders, in the order of the walk: {path, parent, class, keys, tensors, traits}, one for each
--- module and each plain table with tensors in it. Holders whose path consists of names only are matched by the path.
--- Other paths contain positions, which shift when a layer is added or removed. Such holders are aligned in their
--- order, so that the sum of their likenesses is largest (Needleman and Wunsch 1970; gaps cost nothing).
local core = require "marea.core"
local check = require "marea.internal.check"
local module = require "marea.nn.module"
local format = core.format

local match = {}

-- ---- holders ----

local NO_TRAIT = {training = true, frozen = true, name = true, inputs = true}

local function trait_text(value)
  local kind = type(value)
  if kind == "number" or kind == "string" or kind == "boolean" then return format("%s", value) end
  if check.is_plain(value) and #value > 0 and math.type(value[1]) then
    return check.size_text(value)
  end
end

--- The fields of a layer that are no tensors, as texts: they tell apart layers whose tensors are not made yet.
local function traits_of(m)
  local traits = {}
  for _, key in ipairs(module.public_keys(m)) do
    if not NO_TRAIT[key] then traits[key] = trait_text(m[key]) end
  end
  return traits
end

--- The holders of a module or a tensor that a variable holds.
---@param seen table see module.walk
function match.holders(value, seen)
  local list, by_node = {}, {}
  local function add(node, path)
    local holder = {path = path, parent = path:match "^(.*)%.[^.]*$" or "", keys = {}, tensors = {}, node = node,
      class = module.is_module(node) and getmetatable(node).__name or "table",
      traits = type(node) == "table" and traits_of(node) or {}}
    list[#list + 1], by_node[node] = holder, holder
    return holder
  end
  local function put(holder, key, t)
    holder.keys[#holder.keys + 1] = key
    holder.tensors[key] = t
  end
  if core.is_tensor(value) then
    if not seen[value] then put(add(value, ""), "", value) end
    seen[value] = true
    return list
  end
  module.walk(value, "", seen, function(path, found, owner, key)
    if not owner then add(found, path)
    elseif not found:is_released() then
      put(by_node[owner] or add(owner, path:sub(1, -#tostring(key) - 2)), key, found)
    end
  end)
  return list
end

--- "root.path.key", without what is empty.
function match.name(root, path, key)
  local parts = {root}
  if path ~= "" then parts[#parts + 1] = path end
  if key ~= "" then parts[#parts + 1] = tostring(key) end
  return table.concat(parts, ".")
end

-- ---- likeness ----

--- Keys that both have, keys with the same shape in both, keys of either.
local function compare(new, old)
  local common, equal = 0, 0
  for _, key in ipairs(new.keys) do
    local other = old.tensors[key]
    if other then
      common = common + 1
      if new.tensors[key].shape == other.shape then equal = equal + 1 end
    end
  end
  return common, equal, #new.keys + #old.keys - common
end

local function share_of_traits(new, old)
  local equal, all = 0, 0
  for key, text in pairs(new.traits) do
    all = all + 1
    if old.traits[key] == text then equal = equal + 1 end
  end
  return all == 0 and 1 or equal / all
end

--- Have both the same tensors of the same shapes?
local function is_same(new, old)
  local _, equal, all = compare(new, old)
  return equal == all
end

local SAME = 50 -- likeness of two layers with the same shapes; layers of the same class alone count far less

--- How alike two holders are; 0: they do not correspond.
local function likeness(new, old)
  if new.class ~= old.class then return 0 end
  local place = (new.path == old.path and 1 or 0) + (new.parent == old.parent and 1 or 0)
  if #new.keys == 0 or #old.keys == 0 then return place + 1 + 5 * share_of_traits(new, old) end
  local common, equal, all = compare(new, old)
  if common == 0 then return 0 end
  return place + 1 + 7 * equal / all + (equal == all and SAME or 0)
end

-- ---- pairs ----

local function has_names_only(path) return not ("." .. path .. "."):find "%.%-?%d+%." end

--- pair(new, old) for holders whose path has names only and is in both lists; returns what is left of them.
local function pair_by_path(new, old, pair)
  local at, rest_new, rest_old, taken = {}, {}, {}, {}
  for _, holder in ipairs(old) do at[holder.path] = holder end
  for _, holder in ipairs(new) do
    local other = has_names_only(holder.path) and at[holder.path]
    if other and (other.class == holder.class or is_same(holder, other)) then
      taken[other] = true
      pair(holder, other)
    else
      rest_new[#rest_new + 1] = holder
    end
  end
  for _, holder in ipairs(old) do
    if not taken[holder] then rest_old[#rest_old + 1] = holder end
  end
  return rest_new, rest_old
end

--- The best alignment of new[first_new..last_new] with old[first_old..last_old].
local function align(new, first_new, last_new, old, first_old, last_old, pair)
  local n, m = last_new - first_new + 1, last_old - first_old + 1
  if n < 1 or m < 1 then return end
  local like, best = {}, {} -- best[i][k]: of the i-th and later new ones with the k-th and later old ones
  for i = n + 1, 1, -1 do
    like[i], best[i] = {}, {}
    for k = m + 1, 1, -1 do
      if i > n or k > m then
        best[i][k] = 0
      else
        like[i][k] = likeness(new[first_new + i - 1], old[first_old + k - 1])
        best[i][k] = math.max(like[i][k] + best[i + 1][k + 1], best[i + 1][k], best[i][k + 1])
      end
    end
  end
  local i, k = 1, 1
  while i <= n and k <= m do
    if like[i][k] > 0 and best[i][k] == like[i][k] + best[i + 1][k + 1] then
      pair(new[first_new + i - 1], old[first_old + k - 1])
      i, k = i + 1, k + 1
    elseif best[i][k] == best[i + 1][k] then i = i + 1
    else k = k + 1 end
  end
end

--- pair(new, old) for all holders of `new` that have a predecessor in `old`.
function match.pairs(new, old, pair)
  new, old = pair_by_path(new, old, pair)
  local first, last_new, last_old = 1, #new, #old
  local function same(a, b) return a.class == b.class and is_same(a, b) end
  while first <= last_new and first <= last_old and new[first].path == old[first].path
    and same(new[first], old[first]) do
    pair(new[first], old[first])
    first = first + 1
  end
  while last_new >= first and last_old >= first and #new[last_new].keys > 0 and same(new[last_new], old[last_old]) do
    pair(new[last_new], old[last_old])
    last_new, last_old = last_new - 1, last_old - 1
  end
  align(new, first, last_new, old, first, last_old, pair)
end

-- ---- values ----

--- Do two shapes differ at most in their last two sizes? In the layout of weights these are widths: what lies in front,
--- such as the places of a kernel, has no meaning of its own in another size.
local function fits(a, b)
  if #a ~= #b then return false end
  for i = 1, #a - 2 do
    if a[i] ~= b[i] then return false end
  end
  return true
end

--- Copies what both tensors have: "kept"; "grown" or "cut" when their widths differ, some of it then being as it was in
--- `t` or left out; nil when nothing fits.
---@param t userdata
---@param old userdata
---@return "kept"|"grown"|"cut"|nil
function match.take(t, old)
  local a, b = t.shape, old.shape
  if not fits(a, b) then return nil end
  local how, to, from = "kept", t, old
  for dim = 1, #a do
    local n = math.min(a[dim], b[dim])
    if a[dim] > n then how = "grown" elseif b[dim] > n and how == "kept" then how = "cut" end
    if n == 0 then return how end
    to, from = to:narrow(dim, 1, n), from:narrow(dim, 1, n)
  end
  to:copy_(from)
  return how
end

return match
