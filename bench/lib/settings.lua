-- SPDX-License-Identifier: MIT
--- The settings in which a peer is measured: {worker =, label =, request = what it adds to the request}, by the number
--- of threads. They race each other, and the best one stands in the table.
---
---   settings.pytorch{layouts = true, compiled = true}(threads) -> list
local marea = require "marea"

local settings = {}

--- 2 -> "2 threads".
function settings.threads_text(n) return n == 1 and "1 thread" or n .. " threads" end

local LAYOUTS = {{label = ", channels first", request = " layout=first"},
  {label = ", channels last", request = " layout=last"}}
local PLAIN = {{label = "", request = ""}}
local EAGER = {label = "", request = ""}
local COMPILED = {label = ", compiled", request = " compile=1"}
local MODES = { -- by worker
  ["PyTorch"] = {EAGER},
  ["PyTorch tuned"] = {EAGER, COMPILED, {label = ", max-autotune", request = " compile=2"}},
  ["PyTorch passive"] = {EAGER},
}
local WORKERS = {"PyTorch", "PyTorch tuned", "PyTorch passive"}

--- PyTorch as it comes, as its tuning guide says (Intel's OpenMP, threads bound to cores, tcmalloc), and with threads
--- that sleep while they wait. layouts: of images, both; compiled: also by torch.compile; variants: more of them;
--- workers: which, all when left out.
function settings.pytorch(options)
  local layouts, variants = options.layouts and LAYOUTS or PLAIN, options.variants or PLAIN
  return function(threads)
    local list = {}
    local function add(worker, ...)
      local setting = {worker = worker, label = settings.threads_text(threads) .. worker:gsub("^PyTorch", ""),
        request = ""}
      for _, part in ipairs{...} do
        setting.label, setting.request = setting.label .. part.label, setting.request .. part.request
      end
      list[#list + 1] = setting
    end
    for _, worker in ipairs(options.workers or WORKERS) do
      for _, mode in ipairs((worker ~= "PyTorch passive" or threads > 1) and MODES[worker] or {}) do
        for _, layout in ipairs((options.compiled or mode == EAGER) and layouts or {}) do
          for _, variant in ipairs(variants) do add(worker, layout, variant, mode) end
        end
      end
    end
    return list
  end
end

--- Keras, without and with jit_compile.
function settings.keras(threads)
  local list = {}
  for jit = 0, 1 do
    list[jit + 1] = {worker = "Keras " .. threads, request = " jit=" .. jit,
      label = ("%s, jit_compile %s"):format(settings.threads_text(threads), jit == 1 and "on" or "off")}
  end
  return list
end

--- JAX, which has one.
function settings.jax(threads)
  return {{worker = "JAX " .. threads, label = settings.threads_text(threads), request = ""}}
end

--- The request in a setting.
function settings.request(request, setting, threads, seconds)
  return marea.format("%s%s threads=%d seconds=%g", request, setting.request, threads, seconds)
end

return settings
