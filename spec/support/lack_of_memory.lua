-- SPDX-License-Identifier: MIT
-- A program for sweep_spec: lack of memory in large calls and in gradients of gradients of every operator leaves
-- nothing. In a process of its own, whose heap is small, because garbage is collected after many of the calls.
local core = require "marea.core"
require "marea"
local requests = require "spec.support.requests"
local sample = require "spec.support.sample"

--- Forward and backward of a sample with every request for memory failing in turn, and all later ones.
local function survives(info, seed, options, orders)
  if info.once then orders = math.min(orders, 1) end
  core.scope(function()
    core.seed(seed)
    local inputs, attrs = sample.draw(info, sample.generator(seed, options))
    local places = {}
    for _, i in ipairs(sample.places(info, inputs)) do
      if inputs[i].dtype == options.dtype and info.differentiable then places[#places + 1] = i end
    end
    local function body()
      core.scope(function()
        local y, leaves = sample.result(info, inputs, attrs, places)
        if not y then return end
        local first = core.grad(sample.weighed(y), leaves, {create_graph = orders == 2})
        for k = 1, orders == 2 and #leaves or 0 do
          local dx = first[k]
          if dx and dx.requires_grad then core.grad(sample.weighed(dx), leaves, {retain_graph = true}) end
        end
      end)
    end
    body()
    local before
    requests.each_failure(body, function(_, _, what)
      before = before or requests.in_use()
      requests.assert_same_use(before, info.name .. ", " .. what)
    end, true)
  end)
end

local n = 0
for _, name in ipairs(core.op_names()) do
  local info = core.op_info(name)
  survives(info, 4, {dtype = "f64"}, 2)
  if name ~= "split" then survives(info, 5, {dtype = "f32", large = 20000}, 1) end -- into 32 parts at most
  n = n + 1
end
print(n .. " operators")
