-- SPDX-License-Identifier: MIT
-- conv kind=conv|transposed map=forward|input|weight n= h= w= cin= cout= kernel= stride= [groups= pad= bf16=1]: one
-- convolution by the operators, padding "same" where no other is given. h, w, cin: of the layer's input. The forward
-- pass adds the bias and applies ReLU.
local marea = require "marea"

local MAPS = {
  conv = {
    forward = function(t) return marea.conv2d(t.x, t.w, t.b, t.fused) end,
    input = function(t) return marea.conv2d_grad_input(t.dy, t.w, t.input) end,
    weight = function(t) return marea.conv2d_grad_weight(t.x, t.dy, t.weight) end,
  },
  transposed = { -- y is the larger side
    forward = function(t) return marea.conv_transpose2d(t.x, t.w, t.b, t.fused) end,
    input = function(t) return marea.conv2d(t.dy, t.w, nil, t.plain) end,
    weight = function(t) return marea.conv2d_grad_weight(t.dy, t.x, t.weight) end,
  },
}

return function(a)
  local transposed, k, s = a.kind == "transposed", a.kernel, a.stride
  local oh = transposed and a.h * s or (a.h + s - 1) // s
  local ow = transposed and a.w * s or (a.w + s - 1) // s
  local groups, padding = a.groups or 1, a.pad or "same"
  local function random(...) return marea.uniform{shape = {...}, low = -1, high = 1} end
  local t = {
    x = random(a.n, a.h, a.w, a.cin), dy = random(a.n, oh, ow, a.cout), b = random(a.cout),
    w = transposed and random(k, k, a.cout // groups, a.cin) or random(k, k, a.cin // groups, a.cout),
    plain = {stride = s, padding = padding, groups = groups},
    fused = {stride = s, padding = padding, groups = groups, activation = "relu"},
    input = {size = {a.h, a.w}, stride = s, padding = padding, groups = groups},
    weight = {kernel = k, stride = s, padding = padding, groups = groups},
  }
  local map = MAPS[a.kind][a.map]
  if a.bf16 == 1 then
    for _, name in ipairs{"x", "dy", "b", "w"} do t[name] = t[name]:to "bf16" end
  end
  local function run() marea.no_grad(map, t) end
  return function() marea.scope(run) end -- the result is written to the same place every time, as in a training loop
end
