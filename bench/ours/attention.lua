-- SPDX-License-Identifier: MIT
-- attention rows=n length=t heads=h width=d causal=0|1 map=forward|step [bf16=1]: scaled_dot_product_attention, or
-- that and its gradients to queries, keys and values.
local marea = require "marea"
local precision = require "ours.precision"

return function(a)
  local function values() return marea.normal{a.rows, a.length, a.heads, a.width} end
  local q, k, v, dy = values(), values(), values(), values()
  local options = {causal = a.causal == 1}
  local attend = precision(a, function() return marea.scaled_dot_product_attention(q, k, v, options) end)
  if a.map == "forward" then
    return function()
      marea.scope(function() attend() end)
    end
  end
  for _, x in ipairs{q, k, v} do x:requires_grad_() end
  dy = dy:to(attend().dtype)
  return function()
    marea.scope(function() marea.grad(attend(), {q, k, v}, {seed = dy}) end)
  end
end
