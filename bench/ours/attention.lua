-- SPDX-License-Identifier: MIT
-- attention rows=n length=t heads=h width=d causal=0|1 map=forward|step: scaled_dot_product_attention, or that and its
-- gradients to queries, keys and values.
local marea = require "marea"

return function(a)
  local function values() return marea.normal{a.rows, a.length, a.heads, a.width} end
  local q, k, v, dy = values(), values(), values(), values()
  local options = {causal = a.causal == 1}
  if a.map == "forward" then
    return function()
      marea.scope(function() marea.scaled_dot_product_attention(q, k, v, options) end)
    end
  end
  for _, x in ipairs{q, k, v} do x:requires_grad_() end
  return function()
    marea.scope(function() marea.grad(marea.scaled_dot_product_attention(q, k, v, options), {q, k, v}, {seed = dy}) end)
  end
end
