-- SPDX-License-Identifier: MIT
--- marea.memory_report(): what takes the memory, with the largest tensors and the lines that made them.
---
---   print(marea.memory_report())
---@example x = marea.zeros(1000, 1000)
---@example marea.memory_report()
local core = require "marea.core"
local amount = require "marea.internal.amount"
local check = require "marea.internal.check"
local columns = require "marea.internal.columns"
local visible = require "marea.internal.visible"

local LARGEST = 10 -- tensors that are listed

local SIZES = {f32 = 4, f64 = 8, i64 = 8, u8 = 1, bf16 = 2, f16 = 2}

---@class MemoryReport
---@field live integer bytes in use by tensors and the graph
---@field peak integer their maximum
---@field tensors {bytes: integer, dtype: string, shape: integer[], made: string?, name: string?}[] the largest ones;
---  made = "FILE:LINE" of the script; name: that of a parameter that can be seen, .grad of its gradient
---@field boxes integer tensors that Lua holds
---@field nodes integer of the graph
local MemoryReport = {}
MemoryReport.__index = MemoryReport

function MemoryReport:__tostring()
  local lines = {("In use %s, at most %s, kept for reuse %s; %s tensors in Lua, %s node%s in the graph"):format(
    amount.bytes(self.live), amount.bytes(self.peak), amount.bytes(self.pooled), amount.thousands(self.boxes),
    amount.thousands(self.nodes), self.nodes == 1 and "" or "s")}
  if #self.tensors == 0 then return lines[1] end
  local cells, listed = {{"Tensor", "Made at", "Name", "Bytes"}}, 0
  for _, t in ipairs(self.tensors) do
    listed = listed + t.bytes
    cells[#cells + 1] = {("%s %s"):format(t.dtype, check.shape_text(t.shape)), t.made or "", t.name or "",
      amount.bytes(t.bytes)}
  end
  cells[#cells + 1] = {"others", "", "", amount.bytes(math.max(self.live - listed, 0))}
  for _, line in ipairs((columns(cells, 3))) do lines[#lines + 1] = line end
  return table.concat(lines, "\n")
end

--- What takes the memory now. Tensors that the script no longer uses count as long as the garbage collector has not
--- found them or a graph refers to them.
---@return MemoryReport
local function memory_report()
  local report = core.memory()
  report.nodes, report.tensors = core.tape_length(), {}
  core.scope(function()
    for i, found in ipairs(core.memory_largest(LARGEST)) do
      local t = found.tensor
      report.tensors[i] = {bytes = t:numel() * SIZES[t.dtype], dtype = t.dtype, shape = t.shape, made = found.made,
        name = visible.name_of(t)}
    end
  end)
  return setmetatable(report, MemoryReport)
end

return setmetatable({}, {__call = memory_report})
