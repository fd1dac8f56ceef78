-- SPDX-License-Identifier: MIT
--- marea.optim: optimizers over the operators sgd_step, rmsprop_step, adam_step, adagrad_step and orthogonalize, and
--- schedules.
---
---   local optimizer = optim.Adam{net, lr = 1e-3, clip_norm = 1}
---   optimizer:step(loss)                              -- backward, clip, update, clear the gradients
---   local loss = optimizer:step(function() return net(x):mse(y) end)    -- in a scope of its own
---
--- In front: a module, or a table of modules and parameters; or several of them, groups, of which each table may have
--- arguments of its own: optim.Adam{{net.encoder, lr = 1e-4}, {net.decoder, beta1 = 0.5}, lr = 1e-3}.
--- Arguments of all: lr (a number, or a function of the step), weight_decay, clip_norm (of all gradients together),
--- clip_value (of each element, after clip_norm), allow_not_finite (false: a step of a loss that is NaN or infinite
--- raises and says where it began); the last three have no group's own values.
--- A gradient beyond 2^63 in f32 (2^511 in f64), also an infinite one, counts as that in Adam, AdamW, RMSprop and
--- Adagrad: its square is still a number, and the weight learns on as the mean of squares fades. clip_norm measures
--- larger and smaller gradients right.
--- Parameters that are frozen (net.encoder:freeze()) have no gradient and are left as they are, with what is remembered
--- of them, until net.encoder:unfreeze(); the count of steps goes on.
local core = require "marea.core"
local check = require "marea.internal.check"
local define = require "marea.optim.optimizer".define
local ops = core.ops

local optim = {schedule = require "marea.optim.schedule"}

local function momentum_slot(self)
  for _, group in ipairs(self.groups) do
    if group.attributes.momentum > 0 then return {"momentum"} end
  end
  return {}
end

--- Gradient descent: v = momentum v + g, p -= lr v; nesterov looks ahead (Sutskever et al. 2013; PyTorch's form).
---@example net = nn.Linear{2, 1}
---@example optimizer = optim.SGD{net, lr = 0.01}
---@example optimizer:step(net(marea.ones{4, 2}):square():mean())
optim.SGD = define("SGD", {
  numbers = {lr = 0.01, momentum = 0, weight_decay = 0},
  flags = {"nesterov"},
  slots = momentum_slot,
  operator = "sgd_step",
  states = {"momentum"},
})

--- s = rho s + (1 - rho) g^2, p -= lr g / (sqrt(s) + eps): eps outside the root, as in Keras (Tieleman, Hinton 2012).
---@example net = nn.Linear{2, 1}
---@example optimizer = optim.RMSprop{net, lr = 0.01}
---@example optimizer:step(net(marea.ones{4, 2}):square():mean())
optim.RMSprop = define("RMSprop", {
  numbers = {lr = 1e-3, rho = 0.9, eps = 1e-7, momentum = 0, weight_decay = 0},
  slots = function(self) return {"square", table.unpack(momentum_slot(self))} end,
  operator = "rmsprop_step",
  states = {"square", "momentum"},
})

local function adam_slots() return {"mean", "square"} end

--- Kingma and Ba 2015; weight_decay is added to the gradient (L2).
---@example net = nn.Linear{2, 1}
---@example optimizer = optim.Adam{net, lr = 0.01}
---@example optimizer:step(net(marea.ones{4, 2}):square():mean())
optim.Adam = define("Adam", {
  numbers = {lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0},
  counts = true,
  l2 = true,
  slots = adam_slots,
  operator = "adam_step",
  states = {"mean", "square"},
})

--- Loshchilov and Hutter 2019: Adam with p -= lr weight_decay p beside the gradient's step.
---@example net = nn.Linear{2, 1}
---@example optimizer = optim.AdamW{net, lr = 0.01}
---@example optimizer:step(net(marea.ones{4, 2}):square():mean())
optim.AdamW = define("AdamW", {
  numbers = {lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01},
  counts = true,
  slots = adam_slots,
  operator = "adam_step",
  states = {"mean", "square"},
})

--- s = s + g^2, p -= lr g / (sqrt(s) + eps) (Duchi et al. 2011).
---@example net = nn.Linear{2, 1}
---@example optimizer = optim.Adagrad{net, lr = 0.01}
---@example optimizer:step(net(marea.ones{4, 2}):square():mean())
optim.Adagrad = define("Adagrad", {
  numbers = {lr = 0.01, eps = 1e-10, weight_decay = 0},
  slots = function() return {"sum"} end,
  operator = "adagrad_step",
  states = {"sum"},
})

--- Is it for Muon's own update, rather than AdamW's?
local function is_muon(p, attributes) return p.rank == 2 and not attributes.adam end

local function muon_slots(p, attributes)
  return is_muon(p, attributes) and {"momentum"} or {"mean", "square"}
end

local function muon_rows(name, p, attributes)
  if is_muon(p, attributes) then
    check.raise("Muon: parameter '%s' is a sparse table; put it into a group with adam = true", name)
  end
end

--- The update: of a looked ahead gradient, in which no direction is larger than another. The slot stays as it is, so
--- that all updates are there before a weight is changed; what is made on the way is released at once.
local function muon_update(p, g, slot, attributes)
  if not is_muon(p, attributes) then return end
  local ahead = slot.momentum * attributes.momentum
  ahead:add_(g):mul_(attributes.momentum):add_(g)
  local update, norm = ops.orthogonalize(ahead), ahead:norm():item()
  ahead:release()
  local eps = attributes.eps -- beside a larger norm it is less than f32 tells apart
  if norm < eps * 0x1p25 then update:mul_(norm / (norm + eps)) end
  return update
end

local function muon_step(p, g, slot, attributes, rows, ready)
  local a = attributes
  if not ready then
    return ops.adam_step(p, g, slot.mean, slot.square, rows, {lr = a.lr, beta1 = a.beta1, beta2 = a.beta2, eps = a.eps,
      step = a.step, weight_decay = a.weight_decay})
  end
  local scale = 0.2 * math.sqrt(math.max(p:size(1), p:size(2)))
  slot.momentum:mul_(a.momentum):add_(g)
  ops.sgd_step(p, ready, nil, nil, {lr = a.lr * scale, weight_decay = a.weight_decay / scale})
end

--- Jordan et al. 2024 (kellerjordan.github.io/posts/muon), for the matrices inside a network: v = momentum v + g; p -=
--- lr (0.2 sqrt(longer side) orthogonalize(g + momentum v) + weight_decay p). The factor gives updates the size of
--- AdamW's, so that one lr serves both (Liu et al., arXiv:2502.16982): parameters that are no matrices, and groups with
--- adam = true, which tables of words and last layers should be, take AdamW's step, with beta1, beta2 and eps.
--- Momentum moves a matrix also while its gradients are 0, as in SGD. There its steps shrink from the first on; here
--- they keep their size until the norm of g + momentum v comes near eps, some 400 steps with 0.95, and fade then.
--- In memory a step holds, beside the gradients, the updates of all matrices, as much as these, and one matrix more.
---@example net = nn.Sequential{nn.Linear{2, 8}, nn.Linear{8, 1}}
---@example optimizer = optim.Muon{net[1], {net[2], adam = true}, lr = 0.01}
---@example optimizer:step(net(marea.ones{4, 2}):square():mean())
optim.Muon = define("Muon", {
  numbers = {lr = 1e-3, momentum = 0.95, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.1},
  flags = {"adam"},
  counts = true,
  slots = function() return {"momentum", "mean", "square"} end,
  slots_of = muon_slots,
  want_rows = muon_rows,
  prepare = muon_update,
  apply = muon_step,
})

return check.strict(optim, "optim")
