-- SPDX-License-Identifier: MIT
--- What other frameworks call things: name -> what it is here. For "did you mean", where no name here is spelt alike.
return {
  -- methods of tensors, operators
  ["view"] = "reshape(...)", view_as = "reshape(other.shape)", resize = "reshape(...)", ndim = "rank", dim = "rank",
  len = "#t", length = "#t", nelement = "numel()", astype = "to(dtype)", type = "dtype", float = "to('f32')",
  double = "to('f64')", long = "to('i64')", int = "to('i64')", byte = "to('u8')", numpy = "totable()",
  tolist = "totable()", cpu = "the tensor itself: all tensors are in main memory",
  cuda = "the tensor itself: all tensors are in main memory", mm = "matmul", bmm = "matmul", dot = "matmul",
  t = "transpose(1, 2)", T = "transpose(1, 2)", swapaxes = "transpose", cat = "concat", concatenate = "concat",
  hstack = "concat", vstack = "concat", expand_dims = "unsqueeze", broadcast_to = "expand", repeat_ = "tile",
  copy = "clone", size_of = "shape", add_to = "add_", zero = "zero_", fill = "fill_", zero_grad = "clear_grad",
  data = "detach()", pow_ = "^", power = "^", multiply = "*", divide = "/",
  mod = "remainder", subtract = "-",
  amax = "max", amin = "min", nonzero = "flatnonzero()", argwhere = "flatnonzero()", clip = "clamp",
  log_sum_exp = "logsumexp",
  randn = "normal", rand = "uniform", random_normal = "normal", random_uniform = "uniform",
  multinomial = "p:log():expand(n, C):categorical(), n draws by probabilities p (C)", randperm = "permutation",
  manual_seed = "seed", set_seed = "seed", from_numpy = "load_npy", Tensor = "tensor", array = "tensor",
  range = "arange", nll_loss = "cross_entropy", binary_cross_entropy = "bce", mse_loss = "mse", l1_loss = "l1",
  smooth_l1_loss = "huber", autograd = "grad", sigmoid_cross_entropy_with_logits = "bce_with_logits",
  -- marea.nn
  Dense = "Linear", Conv2D = "Conv2d", Conv2DTranspose = "ConvTranspose2d", MaxPooling2D = "MaxPool2d",
  AveragePooling2D = "AvgPool2d", GlobalAveragePooling2D = "GlobalAvgPool2d", UpSampling2D = "UpsampleNearest2d",
  Upsample = "UpsampleNearest2d", BatchNormalization = "BatchNorm", BatchNorm1d = "BatchNorm",
  BatchNorm2d = "BatchNorm", LayerNormalization = "LayerNorm", Module = "class", Parameter = "parameter",
  SpatialConvolution = "Conv2d", SpatialMaxPooling = "MaxPool2d", View = "Reshape", SoftMax = "Softmax",
  -- losses that are layers elsewhere
  BCELoss = "the operator marea.bce", MSELoss = "the operator marea.mse", L1Loss = "the operator marea.l1",
  BCEWithLogitsLoss = "the operator marea.bce_with_logits", CrossEntropyLoss = "the operator marea.cross_entropy",
  -- methods of modules
  eval = "evaluate()", training_mode = "train()", state_dict = "state()", load_state_dict = "load_state(state)",
  requires_grad = "freeze() and unfreeze()", num_parameters = "count()", trainable_variables = "parameters()",
  predict = "net(x)", fit = "a loop over batches with optimizer:step(loss)", compile = "an optimizer and a loop",
  modules = "parts()",
  -- arguments
  kernel_size = "kernel", in_channels = "the first number in the braces",
  out_channels = "the second number in the braces",
  in_features = "the first number in the braces", out_features = "the second number in the braces",
  filters = "the last number in the braces", units = "the last number in the braces", rate = "p", use_bias = "bias",
  kernel_initializer = "init", bias_initializer = "bias_init", learning_rate = "lr", betas = "beta1 and beta2",
  clipnorm = "clip_norm", clipvalue = "clip_value", alpha = "rho", batch_size = "the first argument, a number",
  axis = "dim or dims", keep_dims = "keepdim", negative_slope = "slope", epsilon = "eps",
  -- values of arguments
  xavier_uniform = "'glorot_uniform'", xavier_normal = "'glorot_normal'", kaiming_uniform = "'he_uniform'",
  kaiming_normal = "'he_normal'", float32 = "'f32'", float64 = "'f64'", int64 = "'i64'", uint8 = "'u8'",
  bool = "'u8', with 0 and 1", average = "'mean'",
  -- data
  DataLoader = "Dataset{...}:batches(size)", TensorDataset = "Dataset{x, y}", Optimizer = "Adam",
}
