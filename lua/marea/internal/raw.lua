-- SPDX-License-Identifier: MIT
--- Tensors from the bytes of their elements and back, by way of a safetensors file in memory: 8 bytes of the header's
--- length, the header as JSON, the bytes.
local core = require "marea.core"
local json_text = require "marea.internal.json_text"

local raw = {}

--- Tensors by number.
---@param list {dtype: string, shape: integer[], bytes: string}[] dtype: "F32", "F64" or "I64"
---@return userdata[]
function raw.tensors(list)
  if #list == 0 then return {} end
  local header, parts, at = {}, {}, 0
  for i, item in ipairs(list) do
    header[tostring(i)] = {dtype = item.dtype, shape = item.shape, data_offsets = {at, at + #item.bytes}}
    at, parts[i] = at + #item.bytes, item.bytes
  end
  local text = json_text(header)
  local found = assert(core.load_string(("<I8"):pack(#text) .. text .. table.concat(parts)))
  local tensors = {}
  for i in ipairs(list) do tensors[i] = found[tostring(i)] end
  return tensors
end

--- The bytes of a tensor's elements, row by row.
---@param t userdata
---@return string
function raw.bytes(t)
  local text = core.save_string({t = t})
  return text:sub(9 + ("<I8"):unpack(text))
end

return raw
