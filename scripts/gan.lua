-- SPDX-License-Identifier: MIT
--- A convolutional generative adversarial network (Goodfellow et al. 2014) on MNIST. It leaves pictures, metrics.csv
--- and weights in --out. `marea scripts/gan.lua` trains on the sample in scripts/data; --help lists the options.
local argparse = require "argparse"
local marea = require "marea"
local optim, data, checkpoint, metrics = marea.optim, marea.data, marea.checkpoint, marea.metrics
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local networks = dofile(here .. "gan_model.lua")
local Report = dofile(here .. "gan_report.lua")
local shared = dofile(here .. "options.lua")
local count = shared.count

local parser = argparse("gan.lua", "Trains a generative adversarial network.")
parser:option("--data", "sample, mnist, fashion, or a folder with IDX files", "sample")
parser:option("--steps", "updates of the generator (sample: 1500, otherwise 5000)"):convert(count "--steps")
parser:option("--loss", "logistic or wgan-gp", "logistic"):choices{"logistic", "wgan-gp"}
parser:flag("--as-assigned", "the setting of the exercise, which dies at once: see docs/gan.md")
parser:option("--latent", "size of z (64; as assigned 2)"):convert(count "--latent")
parser:option("--batch", "images a step", "64"):convert(count "--batch")
parser:option("--critic", "updates of the discriminator a step (1; wgan-gp: 3)"):convert(count "--critic")
parser:option("--every", "steps between two rows of metrics.csv", "50"):convert(count "--every")
shared.training(parser, "out/gan", {{"loss", "logistic"}, {"as_assigned"}})
local options = parser:parse()

marea.seed(options.seed)
if options.threads then marea.set_threads(options.threads) end
local train = assert(data.mnist(options.data, "train"))
local assigned, wasserstein = options.as_assigned, options.loss == "wgan-gp"
if options.smoke then options.steps, options.every, options.batch = options.steps or 6, 1, 16 end
local steps = options.steps or options.data == "sample" and 1500 or 5000
local batch, latent = options.batch, options.latent or assigned and 2 or 64
local critic_steps = options.critic or wasserstein and 3 or 1

-- ---- the networks ----

local generator = networks.generator(latent)
local discriminator = networks.discriminator{dropout = wasserstein and 0 or 0.4, sigmoid = assigned}
print(generator:summary{latent})
print(discriminator:summary{28, 28, 1})

local function optimizer(network, lr, decay)
  if assigned then return optim.RMSprop{network, lr = optim.schedule.inverse_time(lr, decay), clip_value = 1} end
  local beta1, beta2 = table.unpack(wasserstein and {0, 0.9} or {0.5, 0.999})
  return optim.Adam{network, lr = 2e-4, beta1 = beta1, beta2 = beta2}
end
local optimizers = {generator = optimizer(generator, 4e-4, 3e-8), discriminator = optimizer(discriminator, 8e-4, 6e-8)}

local function noise(n)
  if assigned then return marea.uniform({n, latent}, -1, 1) end
  return marea.normal{n, latent}
end

local function real_images() return (train:rows(marea.randint({batch}, 1, #train))) end

--- Images for the discriminator: no gradient flows back from here into the generator.
local function fake_images()
  if assigned then generator:evaluate() end
  local x = marea.no_grad(generator, noise(batch))
  generator:train()
  return x
end

-- ---- the losses ----

local function share(condition) return condition:to("f32"):mean():item() end

--- Cross-entropy of the discriminator's results, probabilities or logits, and one label for all of them.
local function against(y, label)
  return (assigned and marea.bce or marea.bce_with_logits)(y, marea.full(y.shape, label))
end

--- 10 (|gradient of D at x| - 1)^2, x on the lines between real and generated images (Gulrajani et al. 2017).
local function gradient_penalty(real, fake)
  local t = marea.uniform{#real, 1, 1, 1}
  local x = (real * t + fake * (1 - t)):requires_grad_()
  local slope = marea.grad(discriminator(x):sum(), x, {create_graph = true})
  local norm = (slope:square():sum{2, 3, 4} + 1e-12):sqrt()
  return (norm - 1):square():mean() * 10
end

--- Loss, and the share of the images that the discriminator judges rightly.
local function discriminator_loss()
  local x, fake = real_images(), fake_images()
  if assigned then -- one batch of both, so that the loss is the mean over all
    local p = discriminator(marea.concat({x, fake}, 1))
    local labels = marea.concat({marea.ones(batch, 1), marea.zeros(batch, 1)}, 1)
    return p:bce(labels), share(p:gt(0.5):eq(labels))
  end
  local of_real, of_fake = discriminator(x), discriminator(fake)
  local right = (share(of_real:gt(0)) + share(of_fake:le(0))) / 2
  if wasserstein then return of_fake:mean() - of_real:mean() + gradient_penalty(x, fake), right end
  return (against(of_real, 0.9) + against(of_fake, 0)) / 2, right -- 0.9: so that it is never quite sure
end

local function generator_loss()
  local y = discriminator(generator(noise(batch)))
  return wasserstein and -y:mean() or against(y, 1)
end

-- ---- training ----

local report = Report(generator, noise(100), options, steps)
local file, first = options.out .. "/gan.safetensors", 1
local parts = {model = {generator = generator, discriminator = discriminator}, optimizer = optimizers}
if options.resume then first = assert(shared.load(file, parts)).step + 1
else report:sample(0) end
local log = metrics.open(options.out .. "/metrics.csv", {"step", "discriminator", "generator", "accuracy", "seconds"},
  {resume = options.resume})

local sums, n, started = {0, 0, 0}, 0, marea.clock()
local bar = data.progress(marea.rerun.range(first, steps), {title = "GAN"})
for step in bar:each() do
  local loss, right
  for _ = 1, critic_steps do loss, right = optimizers.discriminator:step(discriminator_loss) end
  discriminator:freeze() -- its gradients are not even computed while the generator learns
  local fooled = optimizers.generator:step(generator_loss)
  discriminator:unfreeze()
  local values = {loss:item(), fooled:item(), right}
  for i = 1, 3 do sums[i] = sums[i] + values[i] end
  n = n + 1
  bar:show("discriminator", values[1], "generator", values[2], "accuracy", right)
  if step % options.every == 0 or step == steps then
    local now = marea.clock()
    assert(log:write{step = step, discriminator = sums[1] / n, generator = sums[2] / n, accuracy = sums[3] / n,
      seconds = now - started})
    sums, n, started = {0, 0, 0}, 0, now
  end
  if report:due(step) then
    report:sample(step)
    parts.step = step
    assert(checkpoint.save(file, parts))
  end
end

report:finish(log)
