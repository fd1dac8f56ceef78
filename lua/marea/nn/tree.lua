-- SPDX-License-Identifier: MIT
--- A network as text: one line for each module, set in below the one that holds it, with the shapes of its tensors and
--- their number of elements.
local core = require "marea.core"
local amount = require "marea.internal.amount"
local check = require "marea.internal.check"

local MOST <const>, SHOWN <const> = 12, 3 -- tensors in a line; of more, as a network from elsewhere has, the first ones

local function tensors_of(node, keys)
  local parts, elements = {}, 0
  for _, key in ipairs(keys) do
    local value = node[key]
    if core.is_tensor(value) and not value:is_released() then
      parts[#parts + 1] = ("%s %s"):format(key, check.shape_text(value.shape))
      elements = elements + value:numel()
    end
  end
  if #parts <= MOST then return table.concat(parts, ", "), elements end
  return ("%s and %d more"):format(table.concat(parts, ", ", 1, SHOWN), #parts - SHOWN), elements
end

--- Rows {depth, label, tensors, count} of a module and of what is in it. What is in a plain table is listed under the
--- table's key.
local function rows_of(root, module)
  local rows, seen = {}, {}
  local visit

  local function add(depth, label, tensors, count)
    rows[#rows + 1] = {depth = depth, label = core.printable(label), tensors = core.printable(tensors or ""),
      count = count or 0}
  end

  local function visit_parts(node, keys, depth, prefix)
    for _, key in ipairs(keys) do
      local value, label = node[key], prefix .. key
      if module.is_module(value) then visit(value, depth, label .. ": ")
      elseif type(value) == "function" then add(depth, label .. ": function")
      elseif module.is_plain(value) and not seen[value] then
        seen[value] = true
        local inside = module.public_keys(value)
        local tensors, count = tensors_of(value, inside)
        if tensors ~= "" then add(depth, label, tensors, count) end
        visit_parts(value, inside, depth, label .. ".")
      end
    end
  end

  function visit(m, depth, label)
    label = label .. getmetatable(m).__name
    if seen[m] then return add(depth, label .. ", the same as above") end
    seen[m] = true
    local about, parts = m:describe(), m:parts()
    if about ~= "" or #parts == 0 then label = ("%s(%s)"):format(label, about) end
    add(depth, label .. (m.frozen and ", frozen" or ""), tensors_of(m, module.public_keys(m)))
    visit_parts(m, parts, depth + 1, "")
  end

  visit(root, 0, "")
  return rows
end

local function padded(text, width) return text .. (" "):rep(width - #text) end

---@param root table a module
---@param module table marea.nn.module
---@return string
return function(root, module)
  local rows, width, middle, total = rows_of(root, module), 0, 0, 0
  for _, row in ipairs(rows) do
    row.label = ("  "):rep(row.depth) .. row.label
    if row.tensors ~= "" then
      width, middle = math.max(width, #row.label), math.max(middle, #row.tensors)
    end
    total = total + row.count
  end
  local lines, digits = {}, #amount.thousands(total)
  for i, row in ipairs(rows) do
    lines[i] = row.label
    if row.tensors ~= "" then
      local count = amount.thousands(row.count)
      lines[i] = ("%s   %s   %s%s"):format(padded(row.label, width), padded(row.tensors, middle),
        (" "):rep(digits - #count), count)
    end
  end
  if #rows > 1 then lines[#lines + 1] = amount.thousands(total) .. " parameters" end
  return table.concat(lines, "\n")
end
