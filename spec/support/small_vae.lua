-- SPDX-License-Identifier: MIT
--- A small VAE made of operators alone: 8x8 images, latent size 2, RMSprop. The specs train it for golden numbers
--- (the same net as in golden/make_golden.py), memory, determinism and resuming.
local core = require "marea.core"
local ops = core.ops

local small_vae = {}

local SHAPES = {
  {"enc1.weight", {3, 3, 1, 4}}, {"enc1.bias", {4}}, {"enc2.weight", {3, 3, 4, 8}}, {"enc2.bias", {8}},
  {"hidden.weight", {128, 16}}, {"hidden.bias", {16}}, {"mean.weight", {16, 2}}, {"mean.bias", {2}},
  {"logvar.weight", {16, 2}}, {"logvar.bias", {2}}, {"dec1.weight", {2, 16}}, {"dec1.bias", {16}},
  {"dec2.weight", {16, 128}}, {"dec2.bias", {128}}, {"up1.weight", {3, 3, 4, 8}}, {"up1.bias", {4}},
  {"up2.weight", {3, 3, 1, 4}}, {"up2.bias", {1}},
}

--- Names of the parameters in a fixed order.
small_vae.names = {}
for i, entry in ipairs(SHAPES) do small_vae.names[i] = entry[1] end

--- Parameters from the current random state, and RMSprop's running squares: {weights =, squares =}.
function small_vae.new()
  local model = {weights = {}, squares = {}}
  for _, entry in ipairs(SHAPES) do
    local name, shape = table.unpack(entry)
    model.weights[name] = ops.uniform {shape = shape, low = -0.2, high = 0.2}:requires_grad_(true)
    model.squares[name] = ops.full {shape = shape, value = 0}
  end
  return model
end

--- Reconstruction (64 * mean binary cross-entropy) + KL divergence a image. `noise` (N, 2) stands in for the random
--- draw when it is given.
function small_vae.loss(w, x, noise)
  local n = #x
  local h = ops.conv2d(x, w["enc1.weight"], w["enc1.bias"], {padding = "same", activation = "relu"})
  h = ops.conv2d(h, w["enc2.weight"], w["enc2.bias"], {padding = "same", stride = 2, activation = "relu"})
  h = ops.linear(h:reshape {n, 128}, w["hidden.weight"], w["hidden.bias"], {activation = "relu"})
  local mean = ops.linear(h, w["mean.weight"], w["mean.bias"])
  local logvar = ops.linear(h, w["logvar.weight"], w["logvar.bias"])
  local z = noise and mean + (0.5 * logvar):exp() * noise or ops.sample_normal(mean, logvar)
  h = ops.linear(z, w["dec1.weight"], w["dec1.bias"], {activation = "relu"})
  h = ops.linear(h, w["dec2.weight"], w["dec2.bias"], {activation = "relu"}):reshape {n, 4, 4, 8}
  h = ops.conv_transpose2d(h, w["up1.weight"], w["up1.bias"], {padding = "same", stride = 2, activation = "relu"})
  local p = ops.conv_transpose2d(h, w["up2.weight"], w["up2.bias"], {padding = "same", activation = "sigmoid"})
  return 64 * ops.bce(p, x) + ops.kl_normal(mean, logvar, {reduction = "batchmean"})
end

--- One training step; returns the loss as a number. Nothing but weights and squares is left behind.
---@param options? {lr: number?, rho: number?, eps: number?}
function small_vae.step(model, x, noise, options)
  return core.scope(function()
    local loss = small_vae.loss(model.weights, x, noise)
    loss:backward()
    local attrs = options or {lr = 1e-3}
    for _, name in ipairs(small_vae.names) do
      local w = model.weights[name]
      ops.rmsprop_step(w, w.grad, model.squares[name], attrs)
      w:clear_grad()
    end
    return loss:item()
  end)
end

--- All state tensors by name, as a checkpoint would hold them.
function small_vae.state(model)
  local state = {}
  for _, name in ipairs(small_vae.names) do
    state["weight." .. name], state["square." .. name] = model.weights[name]:detach(), model.squares[name]
  end
  return state
end

--- The bits of all state, as one string.
function small_vae.bits(model)
  local parts = {}
  for _, name in ipairs(small_vae.names) do
    for _, t in ipairs {model.weights[name]:detach(), model.squares[name]} do
      for _, v in ipairs(t:reshape {t:numel()}:totable()) do parts[#parts + 1] = string.pack("<d", v) end
    end
  end
  return table.concat(parts)
end

return small_vae
