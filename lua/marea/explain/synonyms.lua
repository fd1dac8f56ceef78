-- SPDX-License-Identifier: MIT
--- Names of other frameworks: name -> what it is called here, in one table for each kind of thing (tensors, modules,
--- arguments, ...). Messages prefer such a hint to a name of ours that is spelt alike.
local IN_MEMORY = "the tensor itself: all tensors are in main memory"

--- Fields and methods of tensors, functions of marea; what is asked for in other places too.
local anywhere = {
  ["view"] = "reshape(...)", view_as = "reshape(other.shape)", viewAs = "reshape(other.shape)",
  resize = "reshape(...)", resizeAs = "reshape(other.shape)", ndim = "rank", dim = "rank", nDimension = "rank",
  ndimension = "rank", len = "#t", length = "#t", nelement = "numel()", nElement = "numel()", astype = "to(dtype)",
  type = "dtype", typeAs = "to(other.dtype)", type_as = "to(other.dtype)", float = "to('f32')", double = "to('f64')",
  long = "to('i64')", int = "to('i64')", byte = "to('u8')", bool = "'u8', with 0 and 1",
  half = "to('f16')", bfloat16 = "to('bf16')", numpy = "totable()", tolist = "totable()",
  storage = "totable()", cpu = IN_MEMORY, cuda = IN_MEMORY, device = "main memory for all tensors",
  is_cuda = "false: all tensors are in main memory", mm = "matmul", bmm = "matmul", mv = "matmul", dot = "matmul",
  ger = "x:unsqueeze(2) * y, of two vectors", outer = "x:unsqueeze(2) * y, of two vectors", t = "transpose(1, 2)",
  T = "transpose(1, 2)", swapaxes = "transpose", movedim = "permute", cat = "concat", concatenate = "concat",
  hstack = "concat", vstack = "concat", dstack = "concat", expand_dims = "unsqueeze",
  unsqueeze_ = "unsqueeze, which gives another view", squeeze_ = "squeeze, which gives another view",
  transpose_ = "transpose, which gives another view", broadcast_to = "expand", expandAs = "expand(other.shape)",
  expand_as = "expand(other.shape)", repeat_ = "tile", repeatTensor = "tile", copy = "clone", size_of = "shape",
  indexSelect = "index_select", indexAdd = "index_add", maskedFill = "masked_fill",
  cmul = "* or mul_", cdiv = "/ or div_", cadd = "+ or add_",
  csub = "- or sub_", cmax = "maximum", cmin = "minimum", cpow = "^", addcmul = "x + a * b", addcdiv = "x + a / b",
  addmm = "x + a:matmul(b)", add_to = "add_", zero = "zero_", fill = "fill_", zero_grad = "clear_grad",
  grad_fn = "is_leaf", power = "^", multiply = "*", divide = "/", subtract = "-", negative = "neg", absolute = "abs",
  amax = "max", amin = "min", clip = "clamp", clamp_min = "maximum", clamp_max = "minimum",
  logical_and = "a * b, of 0 and 1", logical_or = "a:maximum(b), of 0 and 1", logical_not = "1 - a, of 0 and 1",
  equal = "eq, element by element", not_equal = "ne", less = "lt", greater = "gt",
  allclose = "(a - b):abs():le(1e-6):all():item() == 1, of finite numbers, f32 or f64", log_sum_exp = "logsumexp",
  swish = "silu", leakyrelu = "leaky_relu", dot_product_attention = "scaled_dot_product_attention",
  softmin = "(-x):softmax(dim)", hardtanh = "clamp(-1, 1)",
  diag = "marea.where(marea.eye(n):ne(0), x, 0), of a vector",
  trace = "marea.where(marea.eye(n):ne(0), x, 0):sum()", unstack = "unbind", tobytes = "to_bytes",
  scatter = "scatter_add, which adds", symeig = "eigh", mod = "remainder",
  nonzero = "flatnonzero(), positions in x:flatten()",
  argwhere = "flatnonzero(), positions in x:flatten()",
  multinomial = "p:log():expand(n, C):categorical(), n draws by probabilities p (C)",
  meshgrid = "unsqueeze, for operators broadcast",
  tensordot = "matmul after reshape", einsum = "matmul, permute and sum", randn = "normal{3, 4}, sizes in one list",
  rand = "uniform{3, 4}, sizes in one list", random = "uniform{3, 4}, sizes in one list",
  random_normal = "normal", random_uniform = "uniform",
  normal_ = "t:copy_(marea.normal(t.shape))", uniform_ = "t:copy_(marea.uniform(t.shape))",
  bernoulli_ = "t:copy_(marea.bernoulli(...))", randperm = "permutation", manual_seed = "seed", manualSeed = "seed",
  set_seed = "seed", from_numpy = "load_npy", savez = "save_npz", Tensor = "tensor", FloatTensor = "tensor",
  DoubleTensor = "tensor(list, {dtype = \"f64\"})", LongTensor = "tensor(list, {dtype = \"i64\"})", array = "tensor",
  as_tensor = "tensor", Variable = "tensor(list, {requires_grad = true})", empty = "zeros", range = "arange",
  logspace = "10 ^ marea.linspace(...)", arctan = "atan", nll_loss = "cross_entropy",
  softmax_cross_entropy = "cross_entropy, of labels: target:argmax(-1)",
  sparse_categorical_crossentropy = "cross_entropy",
  categorical_crossentropy = "cross_entropy, of labels: target:argmax(-1)",
  binary_cross_entropy = "bce", binary_crossentropy = "bce", mse_loss = "mse", l1_loss = "l1",
  smooth_l1_loss = "huber", kl_div = "dist.kl", autograd = "grad", inf = "math.huge", pi = "math.pi",
  sigmoid_cross_entropy_with_logits = "bce_with_logits", functional = "marea itself: marea.relu(x) or x:relu()",
  F = "marea itself: marea.relu(x) or x:relu()", layers = "nn", optimizers = "optim", optimizer = "optim",
  losses = "the operators marea.mse, marea.cross_entropy, ...", save_state = "save",
  amp = "autocast", mixed_precision = "autocast", set_global_policy = "autocast", is_autocast_enabled = "autocasting",
  setdefaulttensortype = "an option: marea.zeros({3}, {dtype = \"f64\"})",
  set_default_dtype = "an option: marea.zeros({3}, {dtype = \"f64\"})",
}

local owned = {}

--- Arguments by name, and values of arguments.
owned.argument = {
  kernel_size = "kernel", in_channels = "the first number in the braces",
  out_channels = "the second number in the braces", num_embeddings = "the first number in the braces",
  embedding_dim = "the second number in the braces", padding_idx = "padding",
  in_features = "the first number in the braces", out_features = "the second number in the braces",
  filters = "the last number in the braces",
  units = "the last number in the braces", rate = "p", use_bias = "bias", kernel_initializer = "init",
  bias_initializer = "bias_init", learning_rate = "lr", learningRate = "lr", weightDecay = "weight_decay",
  betas = "beta1 and beta2", clipnorm = "clip_norm", clipvalue = "clip_value",
  alpha = "slope of LeakyReLU, rho of RMSprop",
  batch_size = "the first argument, a number", axis = "dim or dims", keep_dims = "keepdim", negative_slope = "slope",
  epsilon = "eps", input_size = "the first number in the braces", hidden_size = "the second number in the braces",
  is_causal = "causal", dropout_p = "dropout",
  num_layers = "layers", recurrent_initializer = "recurrent_init",
  -- values of arguments
  xavier_uniform = "'glorot_uniform'", xavier_normal = "'glorot_normal'", kaiming_uniform = "'he_uniform'",
  kaiming_normal = "'he_normal'", float32 = "'f32'", float64 = "'f64'", int64 = "'i64'", uint8 = "'u8'",
  average = "'mean'",
}

owned.tensor = {
  index = "index_select, or x[...]", bool = "ne(0), which gives 0 and 1", data = "detach()",
  apply = "an operator, or totable() and a loop", map = "an operator, or totable() and a loop",
}

owned.nn = {
  Dense = "Linear", Conv2D = "Conv2d", Conv2DTranspose = "ConvTranspose2d", MaxPooling2D = "MaxPool2d",
  AveragePooling2D = "AvgPool2d", GlobalAveragePooling2D = "GlobalAvgPool2d", UpSampling2D = "UpsampleNearest2d",
  Upsample = "UpsampleNearest2d", BatchNormalization = "BatchNorm", BatchNorm1d = "BatchNorm",
  BatchNorm2d = "BatchNorm", LayerNormalization = "LayerNorm", Module = "class", Parameter = "parameter",
  View = "Reshape", SoftMax = "Softmax", LogSoftMax = "LogSoftmax", SoftPlus = "Softplus",
  PReLU = "x:maximum(0) + slope * x:minimum(0), where slope is an nn.parameter", SpatialConvolution = "Conv2d",
  SpatialConvolutionMM = "Conv2d", SpatialFullConvolution = "ConvTranspose2d", SpatialMaxPooling = "MaxPool2d",
  SpatialAveragePooling = "AvgPool2d", SpatialBatchNormalization = "BatchNorm",
  SpatialUpSamplingNearest = "UpsampleNearest2d", Conv1D = "Conv1d", Conv1DTranspose = "ConvTranspose1d",
  TemporalConvolution = "Conv1d", MaxPooling1D = "MaxPool1d", AveragePooling1D = "AvgPool1d",
  TemporalMaxPooling = "MaxPool1d",
  Identity = "function(x) return x end", Lambda = "a function, as nn.Sequential takes it",
  ModuleList = "a field that is a list of layers", ModuleDict = "a field that is a table of layers",
  LookupTable = "Embedding",
  Concat = "a class whose forward joins the results with marea.concat",
  ConcatTable = "a class whose forward calls its layers one after the other",
  ParallelTable = "a class whose forward calls its layers one after the other", CAddTable = "a + b in forward",
  CMulTable = "a * b in forward", JoinTable = "marea.concat in forward", SplitTable = "x:unbind(dim) in forward",
  SimpleRNN = "RNN", CuDNNLSTM = "LSTM", CuDNNGRU = "GRU", SeqLSTM = "LSTM", SeqGRU = "GRU", FastLSTM = "LSTM",
  SimpleRNNCell = "RNNCell",
  MultiheadAttention = "MultiHeadAttention", Transformer = "TransformerEncoderLayer and TransformerDecoderLayer",
  RotaryEmbedding = "MultiHeadAttention{128, 8, rotary = true}",
  CTCLoss = "the operator marea.ctc_loss",
  BCELoss = "the operator marea.bce", MSELoss = "the operator marea.mse", L1Loss = "the operator marea.l1",
  SmoothL1Loss = "the operator marea.huber", HuberLoss = "the operator marea.huber",
  BCEWithLogitsLoss = "the operator marea.bce_with_logits", CrossEntropyLoss = "the operator marea.cross_entropy",
  NLLLoss = "the operator marea.cross_entropy, which takes logits", KLDivLoss = "marea.dist.kl",
  MSECriterion = "the operator marea.mse", AbsCriterion = "the operator marea.l1",
  SmoothL1Criterion = "the operator marea.huber", BCECriterion = "the operator marea.bce",
  ClassNLLCriterion = "the operator marea.cross_entropy, which takes logits",
  CrossEntropyCriterion = "the operator marea.cross_entropy", DistKLDivCriterion = "marea.dist.kl",
  functional = "marea itself: marea.relu(x) or x:relu()", utils = "an argument of optimizers: clip_norm = 1",
}

owned.module = {
  eval = "evaluate()", training_mode = "train()", training = "a field, true or false; train() and evaluate() switch",
  state_dict = "state()", load_state_dict = "load_state(state)", requires_grad = "freeze() and unfreeze()",
  quantize_dynamic = "quantize()",
  requires_grad_ = "freeze() and unfreeze()", num_parameters = "count()", trainable_variables = "parameters()",
  getParameters = "parameters(), a list of tensors", parametersList = "parameters(), a list of tensors",
  zeroGradParameters = "optimizer:zero_grad(), which step(loss) does by itself",
  zero_grad = "optimizer:zero_grad(), which step(loss) does by itself", updateParameters = "optimizer:step(loss)",
  accGradParameters = "loss:backward()", updateGradInput = "loss:backward()",
  updateOutput = "forward, called as net(x)", backward = "loss:backward(), of the tensor that the loss is",
  clearState = "nothing: no layer keeps its results",
  clone = "a second one by its class, and load_state(net:state())", predict = "net(x)",
  fit = "a loop over batches with optimizer:step(loss)", compile = "an optimizer and a loop", modules = "parts()",
  children = "parts()", named_modules = "parts()", named_children = "parts()", register_buffer = "buffer(name, t)",
  register_parameter = "a field: net.w = nn.parameter(t)", apply = "a loop over net:parameters()",
  add = "nn.Sequential{...} with all of its layers", add_module = "a field: net.name = layer",
  append = "nn.Sequential{...} with all of its layers", remove = "nn.Sequential{...} without it", get = "net[i]",
  size = "#net:parts()", to = "an argument of layers: dtype = \"f64\"",
  double = "an argument of layers: dtype = \"f64\"", float = "an argument of layers: dtype = \"f32\"",
  half = "an argument of layers: dtype = \"f32\"", cuda = "nothing: all tensors are in main memory",
  cpu = "nothing: all tensors are in main memory", device = "main memory for all tensors",
  save = "marea.save(path, net:state())", load = "net:load_state(assert(marea.load(path)))",
}

owned.image = {
  scale = "upsample_bilinear2d or avg_pool2d, of images (N, H, W, C)", crop = "a range: x['1:20, 1:20']",
  load = "marea.load_png(path)", imread = "marea.load_png(path)", open = "marea.load_png(path)",
  imwrite = "image.save(x, path)", imsave = "image.save(x, path)", display = "x:show()", imshow = "x:show()",
  show = "x:show()", rotate = "marea.affine2d or marea.augment", hflip = "x:flip(-2)", vflip = "x:flip(-3)",
  flip = "x:flip(dim)", toDisplayTensor = "image.grid(x)", make_grid = "image.grid(x)",
}

owned.optim = {
  Optimizer = "one of its kinds: optim.Adam{net}", lr_scheduler = "schedule",
  Momentum = "SGD{net, lr = 0.1, momentum = 0.9}", sgd = "SGD{net, lr = 0.1}", adam = "Adam{net}",
  adagrad = "Adagrad{net}", rmsprop = "RMSprop{net}",
}

owned["optim.schedule"] = {
  StepLR = "step", ExponentialLR = "exponential", CosineAnnealingLR = "cosine", CosineDecay = "cosine",
}

owned.data = {
  DataLoader = "Dataset{...}:batches(size)", TensorDataset = "Dataset{x, y}", loader = "Dataset{...}:batches(size)",
  MNIST = "mnist(source, split)", load_mnist = "mnist(source, split)", fashion_mnist = "mnist \"fashion\"",
  FashionMNIST = "mnist \"fashion\"", random_split = "train:rows{...}, with numbers of marea.permutation",
}

owned.dist = {
  Gaussian = "Normal", MultivariateNormal = "Normal, whose elements are independent",
  OneHotCategorical = "Categorical, and one_hot of what it draws", kl_divergence = "kl", KL = "kl",
  RelaxedOneHotCategorical = "GumbelSoftmax",
}

--- Variables that scripts and prompts elsewhere have.
owned.variable = {
  exit = "os.exit()", quit = "os.exit()", help = "the prompt's ?name", torch = "marea", np = "marea", tf = "marea",
  None = "nil", True = "true", False = "false", null = "nil", len = "#t", range = "for i = 1, n do", str = "tostring",
  int = "math.floor, which rounds down", float = "tonumber",
}

local synonyms = {}

local ALONE = {variable = true, argument = true}

--- What the name is here, of a "tensor", a "module", an "argument", "nn", "image" or another table of the library; nil:
--- nothing.
---@param name string
---@param owner? string
---@return string|nil
function synonyms.of(name, owner)
  local own = owner and owned[owner]
  if ALONE[owner] then return own[name] end
  return own and own[name] or anywhere[name] or owned.argument[name]
end

local OWNERS = {"argument", "nn", "module", "optim", "optim.schedule", "data", "dist", "image", "tensor"}

--- The same, of whatever has such a name elsewhere; variables are left out.
---@return string|nil
function synonyms.anyone(name)
  if anywhere[name] then return anywhere[name] end
  for _, owner in ipairs(OWNERS) do
    if owned[owner][name] then return owned[owner][name] end
  end
  return nil
end

--- For tests: visit(owner or nil, name, what it is here).
function synonyms.each(visit)
  for name, here in next, anywhere do visit(nil, name, here) end
  for owner, names in next, owned do
    for name, here in next, names do visit(owner, name, here) end
  end
end

return synonyms
