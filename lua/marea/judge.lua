-- SPDX-License-Identifier: MIT
--- marea.judge: how much generated images look like real ones to a classifier that was trained on these: how sure it
--- is, how evenly the classes come, and how far its features are from those of real images. Figures of different
--- classifiers cannot be compared, nor Fréchet distances of different numbers of images.
---
---   local features, p = judge.see(classifier, images)
---   local classes = judge.classes(p)                      -- classes.confident, .coverage, .kl, .counts
---   local distance = judge.frechet(features, real_features)
local core = require "marea.core"
local amount = require "marea.internal.amount"
local check = require "marea.internal.check"
local ops = core.ops

local judge = {}

--- What a classifier makes of images, in batches and without gradients.
---@param classifier table in evaluation mode, with methods features(x) -> (N, D), classify(features) -> logits (N, K)
---@param images userdata (N, H, W, C)
---@param options? {batch: integer?} images at once (500)
---@return userdata features (N, D), userdata probabilities (N, K)
---@example Classifier = nn.class "Classifier"
---@example function Classifier:init() self.body, self.head = nn.Linear{8}, nn.Linear{3} end
---@example function Classifier:features(x) return self.body(x:flatten{from = 2}) end
---@example function Classifier:classify(features) return self.head(features) end
---@example judge.see(Classifier(), marea.uniform{10, 4, 4, 1})
function judge.see(classifier, images, options)
  if type(classifier) ~= "table" or not classifier.features or not classifier.classify then
    check.fail("see", "classifier", "a classifier with the methods features and classify", classifier)
  end
  check.tensor("see", "images", images)
  local size = check.integer("see", "batch", check.options("see", options, {"batch"}).batch or 500, 1)
  if images.rank == 0 or images:size(1) == 0 then check.fail("see", "images", "at least one image", images) end
  return core.no_grad(function()
    local features, probabilities = {}, {}
    for first = 1, images:size(1), size do
      local f, p = core.scope(function()
        local seen = classifier:features(images:narrow(1, first, math.min(size, images:size(1) - first + 1)))
        return seen, classifier:classify(seen):softmax()
      end)
      features[#features + 1], probabilities[#probabilities + 1] = f, p
    end
    return ops.concat(features, 1), ops.concat(probabilities, 1)
  end)
end

--- How the images that a classifier is sure of are spread over its K classes.
---   confident  share of the images whose largest probability is at least `threshold` (0.9)
---   counts     of them in each class
---   coverage   number of classes that hold at least a share of `least` (0.02) of them
---   kl         KL(classes || uniform) of them in nats, from 0 to log K; NaN when there are none
---@param p userdata probabilities (N, K)
---@param options? {threshold: number?, least: number?}
---@return {confident: number, counts: integer[], coverage: integer, kl: number}
---@example judge.classes(marea.normal{50, 3}:softmax(), {threshold = 0.5})
function judge.classes(p, options)
  check.tensor("classes", "p", p)
  if p.rank ~= 2 or p:numel() == 0 then check.fail("classes", "p", "probabilities (N, K)", p) end
  options = check.options("classes", options, {"threshold", "least"})
  local threshold = check.number("classes", "threshold", options.threshold or 0.9, 0, 1)
  local least = check.number("classes", "least", options.least or 0.02, 0, 1)
  local counts = core.no_grad(function()
    local sure = ops.max(p:detach(), {dims = {2}, keepdim = true}):ge(threshold):to "i64"
    return (ops.one_hot(p:detach():argmax(2), p:size(2), {dtype = "i64"}) * sure):sum(1):totable()
  end)
  local sure, coverage, kl = 0, 0, 0
  for _, count in ipairs(counts) do sure = sure + count end
  for _, count in ipairs(counts) do
    local share = count / sure
    if sure > 0 and share >= least then coverage = coverage + 1 end
    if count > 0 then kl = kl + share * math.log(share * #counts) end
  end
  return {confident = sure / p:size(1), counts = counts, coverage = coverage, kl = sure > 0 and kl or amount.nan}
end

---@class Gaussian
---@field n integer how many rows it was fitted to
---@field mean userdata (D), f64
---@field covariance userdata (D, D), f64
local Gaussian = {}
Gaussian.__index = Gaussian

--- Mean and covariance (divided by N - 1) of features (N, D): keep that of the real images, and compare many with it.
---@param features userdata (N, D), N at least 2
---@return Gaussian
---@example judge.gaussian(marea.normal{50, 3}).mean
function judge.gaussian(features)
  check.tensor("gaussian", "features", features)
  if features.rank ~= 2 or features:size(1) < 2 or features:size(2) < 1 then
    check.fail("gaussian", "features", "features (N, D) of at least two images", features)
  end
  return core.no_grad(function()
    local x = features:detach():to "f64"
    local n, mean = x:size(1), x:mean(1)
    local centred = x - mean
    local covariance = ops.matmul(centred, centred, {transpose_a = true}) / (n - 1)
    return setmetatable({n = n, mean = mean:keep(), covariance = covariance:keep()}, Gaussian)
  end)
end

--- v diag(sqrt(w)) v^T, the root of a symmetric matrix without negative eigenvalues (rounding may make some).
local function root(a)
  local w, v = ops.eigh(a)
  return ops.matmul(v * w:clamp{min = 0}:sqrt(), v, {transpose_b = true})
end

--- Fréchet distance between the Gaussians fitted to two sets of features,
---   |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)),   tr (S1 S2)^(1/2) = tr (S1^(1/2) S2 S1^(1/2))^(1/2)
--- (Dowson and Landau 1982; of a classifier's features: Heusel et al. 2017). Its bias grows as the number of images
--- shrinks, so both must have the same.
---@param a userdata|Gaussian features (N, D), or what judge.gaussian made of them
---@param b userdata|Gaussian
---@return number
---@example judge.frechet(marea.normal{50, 3}, marea.normal{50, 3})
function judge.frechet(a, b)
  if getmetatable(a) ~= Gaussian then a = judge.gaussian(a) end
  if getmetatable(b) ~= Gaussian then b = judge.gaussian(b) end
  if a.mean:size(1) ~= b.mean:size(1) then
    check.raise("frechet: %d features and %d features cannot be compared", a.mean:size(1), b.mean:size(1))
  end
  if a.n ~= b.n then
    check.raise("frechet: fitted to %d and to %d images; the distance depends on how many, so they must be equal", a.n,
      b.n)
  end
  return core.no_grad(function()
    local half = root(a.covariance)
    local shared = ops.eigh(half:matmul(b.covariance):matmul(half)):clamp{min = 0}:sqrt():sum()
    local trace = ((a.covariance + b.covariance) * ops.eye(a.mean:size(1), {dtype = "f64"})):sum()
    return math.max(((a.mean - b.mean):square():sum() + trace - 2 * shared):item(), 0)
  end)
end

return check.strict(judge, "judge")
