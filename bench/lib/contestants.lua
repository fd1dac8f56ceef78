-- SPDX-License-Identifier: MIT
--- Who takes part: Marea and the peers that are installed. Each is started when a group first asks for it.
local worker = require "lib.worker"

local contestants = {}

local FOLDER = "build/bench"

--- Runs this very program, or another Lua that sees the same files.
contestants.program = ("env LUA_PATH='%s' LUA_CPATH='%s' %s"):format(package.path, package.cpath, arg[-1])

local function marea(isa)
  return {{command = contestants.program .. " bench/ours/worker.lua", environment = {MAREA_ISA = isa}}}
end

--- The first Python that has torch: $PYTHON or python3, then Debian's.
local function pytorch(policy)
  local list = {}
  for i, python in ipairs{os.getenv "PYTHON" or "python3", "/usr/bin/python3"} do
    list[i] = {program = python, command = python .. " bench/peers/pytorch.py",
      environment = {OMP_WAIT_POLICY = policy}}
  end
  return list
end

local PROGRAMS = {
  ["Marea"] = marea(os.getenv "MAREA_ISA"),
  ["Marea AVX2"] = marea "avx2",
  ["PyTorch"] = pytorch(),
  ["PyTorch passive"] = pytorch "PASSIVE", -- threads that wait sleep
  ["oneDNN"] = {{command = FOLDER .. "/onednn"}},
  ["ONNX Runtime"] = {{command = "node bench/peers/onnx.js",
    environment = {NODE_PATH = FOLDER .. "/node_modules"}}},
}

local started, order, absent = {}, {}, {}
contestants.only_ours = false

--- The worker of this name; nil when it is not installed, which is said once.
function contestants.get(name)
  if started[name] or absent[name] then return started[name] end
  local ours = name:find "^Marea"
  if contestants.only_ours and not ours then return nil end
  for _, program in ipairs(PROGRAMS[name]) do
    started[name] = worker.start(name, program.command, program.environment)
    if started[name] then
      started[name].program = program.program
      order[#order + 1] = started[name]
      return started[name]
    end
  end
  absent[name] = true
  local message = ("%s is not there or does not start; see %s/*.log"):format(name, FOLDER)
  if ours then error(message, 0) end
  io.stderr:write(message, "\n")
end

--- {name = version} of all that have run.
function contestants.versions()
  local versions = {}
  for name, w in pairs(started) do versions[name] = w.version end
  return versions
end

--- The last one first: each holds the ends of the pipes that were open when it was started.
function contestants.close()
  for i = #order, 1, -1 do order[i]:close() end
end

return contestants
