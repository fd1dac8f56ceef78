-- SPDX-License-Identifier: MIT
--- The files of spec/golden: cases that another framework has computed (spec/golden/make_golden.py tells their form).
local core = require "marea.core"

local golden = {}

--- One "key=value key=value" line of the metadata: numbers, booleans, words and lists of them.
local function parse(text)
  local function scalar(s)
    if s == "true" or s == "false" then return s == "true" end
    return math.tointeger(tonumber(s)) or tonumber(s) or s
  end
  local out = {}
  for key, value in text:gmatch "(%S+)=(%S*)" do
    if value:find "," then
      out[key] = {}
      for part in value:gmatch "[^,]+" do table.insert(out[key], scalar(part)) end
    else
      out[key] = scalar(value)
    end
  end
  return out
end

--- All cases of a file by operator: {key, tensors, attrs, inputs, sums}.
function golden.read(name)
  local tensors, texts = core.load("spec/golden/" .. name .. ".safetensors")
  assert(tensors, texts)
  local cases = {}
  for key, text in pairs(texts) do
    local op = key:match "^(.-)/%d+$"
    if op then
      local case = {key = key, tensors = {}, attrs = parse(text), sums = {}}
      case.inputs = case.attrs.inputs
      if type(case.inputs) == "string" then case.inputs = {case.inputs} end
      case.attrs.inputs = nil
      for k, v in pairs(case.attrs) do
        if k:sub(1, 2) == "k." then
          case.sums[k:sub(3)] = v
          case.attrs[k] = nil
        end
      end
      cases[op] = cases[op] or {}
      table.insert(cases[op], case)
      case.prefix = key .. "/"
    end
  end
  for _, list in pairs(cases) do
    table.sort(list, function(a, b) return a.key < b.key end)
    for _, case in ipairs(list) do
      for tensor_name, t in pairs(tensors) do
        if tensor_name:sub(1, #case.prefix) == case.prefix then
          case.tensors[tensor_name:sub(#case.prefix + 1)] = t
        end
      end
    end
  end
  return cases
end

return golden
