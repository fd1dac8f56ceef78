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

--- A script for the first Python that has what it imports: $PYTHON, that of `make bench-peers`, python3, Debian's.
local function python(script, environment)
  local list, programs, given = {}, {FOLDER .. "/venv/bin/python", "python3", "/usr/bin/python3"}, os.getenv "PYTHON"
  if given then table.insert(programs, 1, given) end
  for i, program in ipairs(programs) do
    list[i] = {program = program, command = program .. " bench/peers/" .. script, environment = environment}
  end
  return list
end

--- Those of the files that are there.
local function present(files)
  local list = {}
  for _, path in ipairs(files) do
    local file = io.open(path)
    if file and file:close() then list[#list + 1] = path end
  end
  return list
end

--- PyTorch as its tuning guide for processors advises: Intel's OpenMP, whose threads keep to their cores and soon
--- sleep, and tcmalloc.
local function tuned()
  local libraries = table.concat(present{FOLDER .. "/venv/lib/libiomp5.so",
    "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"}, ":")
  return python("pytorch.py", {LD_PRELOAD = libraries, KMP_AFFINITY = "granularity=fine,compact,1,0",
    KMP_BLOCKTIME = "1"})
end

local PROGRAMS = {
  ["Marea"] = marea(os.getenv "MAREA_ISA"),
  ["Marea AVX2"] = marea "avx2",
  ["PyTorch"] = python "pytorch.py",
  ["PyTorch passive"] = python("pytorch.py", {OMP_WAIT_POLICY = "PASSIVE"}), -- threads that wait sleep
  ["PyTorch tuned"] = tuned(),
  ["oneDNN"] = {{command = FOLDER .. "/onednn"}},
  ["ONNX Runtime"] = python "onnx_runtime.py",
}

-- Those that take their number of threads when they start.
for threads = 1, 2 do
  PROGRAMS["Keras " .. threads] = python("keras_nets.py " .. threads, {TF_CPP_MIN_LOG_LEVEL = "3"})
  PROGRAMS["JAX " .. threads] = python("jax_nets.py " .. threads)
end

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
