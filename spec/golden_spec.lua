-- SPDX-License-Identifier: MIT
-- Operators, optimizers and a small VAE against the numbers that PyTorch gave (spec/golden/make_golden.py).
local marea = require "marea"
local core = require "marea.core"
local allclose = require "spec.support.allclose"
local golden = require "spec.support.golden"
local small_vae = require "spec.support.small_vae"
local nn = require "marea.nn"
local ops = core.ops

local RTOL, ATOL = 1.3e-6, 1e-5 -- torch.testing.assert_close for float32; rtol grows with the root of a sum's length

local function compare(case, name, actual)
  local rtol = RTOL * math.sqrt(math.max(case.sums[name] or 1, 1))
  allclose.assert(actual, case.tensors[name], {rtol = rtol, atol = ATOL}, case.key .. " " .. name)
end

local function run_case(op, case)
  local inputs = {}
  for i, name in ipairs(case.inputs) do
    local t = case.tensors[name]
    if case.tensors["d_" .. name] then t:requires_grad_(true) end
    inputs[i] = t
  end
  local args = {table.unpack(inputs)}
  args[#args + 1] = case.attrs
  local y = ops[op](table.unpack(args))
  compare(case, "y", y)
  y:backward(case.tensors.dy)
  for _, name in ipairs(case.inputs) do
    if case.tensors["d_" .. name] then compare(case, "d_" .. name, case.tensors[name].grad) end
  end
end

local FILES = {
  conv = {"conv2d", "conv_transpose2d"}, linear = {"linear"}, pool = {"max_pool2d", "avg_pool2d"},
  resample = {"gaussian_blur", "upsample_bilinear2d"},
  affine = {"affine2d"},
  loss = {"bce", "bce_with_logits", "mse", "l1", "huber", "cross_entropy", "kl_normal"},
  norm = {"batch_norm", "group_norm", "layer_norm"},
}

-- op of the file -> operator and the state tensors it takes after p and g
local OPTIMIZERS = {
  sgd_step = {"sgd_step", 0, momentum = 1}, rmsprop_step = {"rmsprop_step", 1, momentum = 1},
  adam_step = {"adam_step", 2, counts = true}, adamw_step = {"adam_step", 2, counts = true},
  adagrad_step = {"adagrad_step", 1},
}

local function run_optimizer(kind, case)
  local p, g, expected = case.tensors.p, case.tensors.g, case.tensors.p_steps
  local states = kind[2] + (case.attrs.momentum and kind.momentum or 0)
  local args = {p, false}
  for i = 1, states do args[2 + i] = ops.full {shape = p.shape, value = 0} end
  args[3 + states] = case.attrs
  for step = 1, #g do
    args[2] = g:select(1, step):contiguous()
    if kind.counts then case.attrs.step = step end
    ops[kind[1]](table.unpack(args))
    allclose.assert(p, expected:select(1, step), {rtol = RTOL, atol = ATOL}, ("%s step %d"):format(case.key, step))
  end
end

describe("golden numbers of PyTorch", function()
  for file, names in pairs(FILES) do
    for _, op in ipairs(names) do
      it("agree with " .. op, function()
        local cases = assert(golden.read(file)[op])
        assert.is_true(#cases >= 20)
        for _, case in ipairs(cases) do core.scope(run_case, op, case) end
      end)
    end
  end

  for name, kind in pairs(OPTIMIZERS) do
    it("agree with the optimizer " .. name, function()
      local cases = assert(golden.read("optim")[name])
      assert.is_true(#cases >= 20)
      for _, case in ipairs(cases) do core.scope(run_optimizer, kind, case) end
    end)
  end

  it("agree with the running statistics of a batch normalization", function()
    local case = golden.read("norm").batch_norm_training[1]
    local t = case.tensors
    local layer = nn.BatchNorm{6, momentum = case.attrs.momentum, eps = case.attrs.eps}
    for step = 1, #t.x do
      layer(t.x[step])
      allclose.assert(layer.running_mean, t.mean[step], {rtol = RTOL, atol = ATOL}, "mean after step " .. step)
      allclose.assert(layer.running_var, t.variance[step], {rtol = RTOL, atol = ATOL}, "variance after step " .. step)
    end
    allclose.assert(layer:evaluate()(t.test), t.y, {rtol = RTOL, atol = ATOL}, "y")
  end)

  it("agree with eigenvalues and the Fréchet distance", function()
    local cases = golden.read "linalg"
    for _, case in ipairs(cases.eigh) do
      local a = case.tensors.a
      allclose.assert((ops.eigh(a)), case.tensors.w, {rtol = RTOL, scaled = true}, case.key)
    end
    for _, case in ipairs(cases.frechet) do
      local distance = marea.judge.frechet(case.tensors.a, case.tensors.b)
      allclose.assert(distance, case.tensors.distance, {rtol = 1e-6, atol = 0}, case.key)
    end
    assert.is_true(#cases.eigh + #cases.frechet >= 14)
  end)

  it("agree with 200 training steps of a small VAE", function()
    local case = golden.read("vae").vae[1]
    local t, attrs = case.tensors, case.attrs
    local model = {weights = {}, squares = {}}
    local weights, squares = model.weights, model.squares
    for name, tensor in pairs(t) do
      local weight = name:match "^start%.(.+)"
      if weight then
        weights[weight] = tensor:requires_grad_(true)
        squares[weight] = ops.full {shape = tensor.shape, value = 0}
      end
    end

    local step_attrs = {lr = attrs.lr, rho = attrs.rho, eps = attrs.eps}
    for step = 1, attrs.steps do
      core.scope(function()
        local x = t.images[(step - 1) % #t.images + 1]
        if step == 1 then
          local loss = small_vae.loss(weights, x, t.noise[1])
          for _, name in ipairs(small_vae.names) do
            local gradient = core.grad(loss, weights[name], {retain_graph = true})
            allclose.assert(gradient, t["grad." .. name], {rtol = 1e-4, atol = ATOL}, "gradient of " .. name)
          end
        end
        local loss = small_vae.step(model, x, t.noise[step], step_attrs)
        allclose.assert(loss, t.losses[step], {rtol = 1e-4, atol = 0}, "loss of step " .. step)
      end)
      local snapshot = step == 10 and "step10." or step == attrs.steps and "final."
      if snapshot then
        for name, w in pairs(weights) do
          allclose.assert(w, t[snapshot .. name], {rtol = 0, atol = 1e-4}, snapshot .. name)
        end
      end
    end
  end)
end)
