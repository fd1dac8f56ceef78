-- SPDX-License-Identifier: MIT
--- Runs a program once: milliseconds, peak memory in MiB, and what it printed; nil when it failed.
local function launch(command)
  local pipe = assert(io.popen("env -u OPENBLAS_CORETYPE build/bench/launch " .. command))
  local text = pipe:read "a"
  if not pipe:close() then return nil end
  local printed, ms, peak = text:match "^(.-)([%d.]+) ([%d.]+)\n$"
  return tonumber(ms), tonumber(peak), printed
end

return launch
