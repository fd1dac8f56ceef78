-- SPDX-License-Identifier: MIT
-- A program for sweep_spec: lack of memory in large calls and in gradients of gradients of every operator leaves
-- nothing. In a process of its own, whose heap is small, because garbage is collected after many of the calls.
local core = require "marea.core"
local marea = require "marea"
local requests = require "spec.support.requests"
local sample = require "spec.support.sample"

--- The operator's first result that has a history, with gradients for the inputs at `wanted` only.
local function result(info, inputs, attrs, wanted)
  local given, leaves = {}, {}
  for i, t in pairs(inputs) do given[i] = t end
  for _, i in ipairs(wanted) do
    given[i] = inputs[i]:detach():requires_grad_()
    leaves[#leaves + 1] = given[i]
  end
  core.seed(11) -- random operators draw the same numbers
  for _, y in ipairs(sample.call(info, given, attrs)) do
    if y.requires_grad then return y, leaves end
  end
end

--- A sum of the elements, each with a weight of its own.
local function weighed(y)
  local n = 1
  for _, size in ipairs(y.shape) do n = n * size end
  return (y:reshape(n) * marea.linspace(0.5, 1.5, n, {dtype = y.dtype})):sum()
end

--- Forward and backward of a sample with every request for memory failing in turn, and all later ones.
local function survives(info, seed, options, orders)
  core.scope(function()
    core.seed(seed)
    local inputs, attrs = sample.draw(info, sample.generator(seed, options))
    local places = {}
    for _, i in ipairs(sample.places(info, inputs)) do
      if inputs[i].dtype == options.dtype and info.differentiable then places[#places + 1] = i end
    end
    local function body()
      core.scope(function()
        local y, leaves = result(info, inputs, attrs, places)
        if not y then return end
        local first = core.grad(weighed(y), leaves, {create_graph = orders == 2})
        for k = 1, orders == 2 and #leaves or 0 do
          if first[k] and first[k].requires_grad then core.grad(weighed(first[k]), leaves, {retain_graph = true}) end
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
