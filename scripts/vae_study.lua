-- SPDX-License-Identifier: MIT
--- What the size of the latent space, the posterior and the network do to a variational autoencoder: trains
--- scripts/vae.lua with each choice, estimates the ELBO and log p(x) of test images, and leaves results.csv, results.md
--- and pictures in --out. --resume takes trainings and estimates that are there; docs/vae.md discusses the results.
local argparse = require "argparse"
local marea = require "marea"
local data, metrics, importance = marea.data, marea.metrics, marea.importance
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local cli = dofile(here .. "options.lua")
local VAE, report = dofile(here .. "vae_model.lua"), dofile(here .. "vae_study_report.lua")

local runs = {
  {name = "latent2", latent = 2}, {name = "latent5", latent = 5}, {name = "latent10", latent = 10},
  {name = "latent20", latent = 20}, {name = "latent50", latent = 50},
  {name = "laplace", latent = 20, posterior = "laplace"},
  {name = "relaxed_bernoulli", latent = 20, posterior = "relaxed_bernoulli"},
  {name = "gumbel_softmax", latent = 20, posterior = "gumbel_softmax"},
  {name = "notebook_sampler", latent = 20, sampler = "notebook"},
  {name = "deep", latent = 2, model = "deep"},
}

local names = {}
for i, run in ipairs(runs) do names[i] = run.name end

local parser = argparse("vae_study.lua", "Compares latent spaces, posteriors and networks of scripts/vae.lua.")
parser:option("--data", "sample, mnist, fashion, or a folder with IDX files", "sample")
parser:option("--runs", "names of the runs to make, all when left out: " .. table.concat(names, ", ")):args "+"
  :choices(names):argname "<name>"
parser:option("--model", "network of all runs but 'deep': conv or mlp", "conv"):choices{"conv", "mlp"}
parser:option("--epochs", "passes over the training images", "15"):convert(cli.count "--epochs")
parser:option("--images", "test images, evenly spaced, whose log p(x) is estimated", "200")
  :convert(cli.count "--images")
parser:option("--samples", "importance samples for each of them, a multiple of 50", "5000")
  :convert(cli.count "--samples")
parser:option("--decodes", "images decoded at a time", "1000"):convert(cli.count "--decodes")
parser:option("--threads", "at most this many; all cores when left out"):convert(cli.count "--threads")
cli.results(parser, "out/vae_study", {{"model", "conv"}})
parser:flag("--resume", "takes what --out has, and goes on with what is unfinished there")
parser:flag("--smoke", "a few steps on a few images, to see that all of it runs")
local options = parser:parse()
if options.samples % 50 ~= 0 then parser:error "option '--samples': expected a multiple of 50" end
if options.smoke then options.epochs, options.images, options.samples = 1, 10, 50 end
if options.threads then marea.set_threads(options.threads) end
local test = assert(data.mnist(options.data, "test"))
if options.smoke then test = test:subset(1, 100) end

--- The runs that --runs names, with everything filled in.
local function chosen()
  local list, wanted = {}, {}
  for _, name in ipairs(options.runs or names) do wanted[name] = true end
  for _, run in ipairs(runs) do
    if wanted[run.name] then
      run.model, run.posterior = run.model or options.model, run.posterior or "normal"
      run.sampler = run.sampler or "exact"
      run.folder = options.out .. "/" .. run.name
      list[#list + 1] = run
    end
  end
  return list
end

--- The program that runs this script.
local function interpreter()
  local i = -1
  while arg[i - 1] do i = i - 1 end
  return arg[i]
end

--- Trains a run by scripts/vae.lua, unless --resume finds it finished.
local function train(run)
  local log = options.resume and metrics.read(run.folder .. "/metrics.csv")
  local made = log and log[#log] and log[#log].epoch or 0
  if made >= options.epochs then return end
  local words = {interpreter(), here .. "vae.lua", "--data", options.data, "--epochs", options.epochs, "--optimizer",
    "adam", "--schedule", "cosine", "--latent", run.latent, "--model", run.model, "--posterior", run.posterior,
    "--sampler", run.sampler, "--out", run.folder}
  for i, word in ipairs(words) do words[i] = cli.quote(word) end
  if options.threads then table.insert(words, "--threads " .. options.threads) end
  if made > 0 then table.insert(words, "--resume") end
  if options.smoke then table.insert(words, "--smoke") end
  assert(os.execute(table.concat(words, " ")), run.name .. ": the training failed")
end

local function load(run)
  local model = VAE(run)
  assert(cli.load(run.folder .. "/vae.safetensors", {model = model, random = false}))
  return model:evaluate()
end

--- ELBO of images x from one sample each, in nats, the mean: that of the distribution that z has in fact, not relaxed.
local function elbo(model, x)
  local q = model:proposal(model:encode(x))
  return (model:log_likelihood(q:sample{1}, x):sum() - q:kl(model:prior()):sum()) / #x
end

--- Bounds of log p(x) from k = 1, 50 and all samples, means over images x.
local function bounds(model, x)
  local chunk = math.max(options.decodes // #x, 1)
  local log_weights = importance.log_weights(model:proposal(model:encode(x)), model:prior(),
    function(z) return model:log_likelihood(z, x) end, {samples = options.samples, chunk = chunk})
  local function mean(k) return importance.bound(log_weights, k):mean():item() end
  return mean(1), mean(50), mean(options.samples)
end

--- The row of a run: what is in its evaluation.csv, or estimated now.
local function evaluate(run)
  local path = run.folder .. "/evaluation.csv"
  local row = options.resume and (metrics.read(path) or {})[1]
  if row and row.images == options.images and row.samples == options.samples and row.epochs == options.epochs then
    return row
  end
  marea.seed(1)
  local model = load(run)
  local bar = data.progress(test:batches(100), run.name .. ", ELBO")
  for x in bar:each() do bar:show("ELBO", marea.no_grad(elbo, model, x):item()) end
  local estimates = data.progress(test:spaced(math.min(options.images, #test)):batches(10), run.name .. ", log p(x)")
  for x in estimates:each() do
    local bound1, bound50, bound = marea.no_grad(bounds, model, x)
    estimates:show("k = 1", bound1, "k = 50", bound50, "k = all", bound)
  end
  local log = metrics.open(path, {"images", "samples", "epochs", "elbo", "bound1", "bound50", "bound"})
  assert(log:write{images = options.images, samples = options.samples, epochs = options.epochs, elbo = bar.means.ELBO,
    bound1 = estimates.means["k = 1"], bound50 = estimates.means["k = 50"], bound = estimates.means["k = all"]})
  return log.rows[1]
end

local list, started = chosen(), marea.clock()
for i, run in ipairs(list) do
  train(run)
  run.result, run.log = evaluate(run), assert(metrics.read(run.folder .. "/metrics.csv"))
  local left = (marea.clock() - started) / i * (#list - i)
  io.stderr:write(("run %d/%d  %s done  left about %s\n"):format(i, #list, run.name,
    marea.progress.clock(left)))
end
report(list, test, load, options)
