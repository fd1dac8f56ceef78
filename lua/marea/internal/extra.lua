-- SPDX-License-Identifier: MIT
--- Optional modules in C, each with a library of its own (bindings/extra): they are there where that library was when
--- Marea was built.
local check = require "marea.internal.check"

local extra = {}

-- name -> what it reads or writes, Debian's package to build it with
local MODULES = {hdf5 = {"HDF5", "libhdf5-dev"}, sndfile = {"sound files", "libsndfile1-dev"},
  csv = {"CSV files", "libcsv-dev"}}

--- The module; raises, with what is missing, when it cannot be loaded.
---@param name string
---@param function_name string the function that needs it
---@return table
function extra.load(name, function_name)
  local ok, result = pcall(require, "marea." .. name)
  if ok then return result end
  local what, debian = table.unpack(MODULES[name])
  if not (package and package.loadlib) then
    check.raise("%s: not in a sandbox, where modules for %s are not loaded", function_name, what)
  end
  if not tostring(result):find("^module '[%w.]+' not found") then
    check.raise("%s: the module for %s does not load: %s", function_name, what, tostring(result):match "[^\n]*")
  end
  check.raise("%s: there is no module for %s (marea/%s.so): this Marea was built without Debian's package %s, or lacks "
    .. "its package lua-marea-%s", function_name, what, name, debian, name)
end

return extra
