/* SPDX-License-Identifier: MIT
** activation.c: ONNX's activations and softmax.
*/
#include "node.h"

HANDLER(Relu) { give_each(n, op1(n, "relu", each(n, 0))); }
HANDLER(Sigmoid) { give_each(n, op1(n, "sigmoid", each(n, 0))); }
HANDLER(Softplus) { give_each(n, op1(n, "softplus", each(n, 0))); }

HANDLER(LeakyRelu) {
  give_each(
      n, CALL(n, "leaky_relu", VALUES(each(n, 0)), NAMED(marea_real("slope", float_of(n, "alpha", 0.01)))));
}

static value *elu (onnx_node *n, value *x, double alpha) {
  return CALL(n, "elu", VALUES(x), NAMED(marea_real("alpha", alpha)));
}

HANDLER(Elu) { give_each(n, elu(n, each(n, 0), float_of(n, "alpha", 1))); }

HANDLER(Selu) {
  const double alpha = float_of(n, "alpha", 1.67326319217681884765625);
  give_each(n, times(n, elu(n, each(n, 0), alpha), float_of(n, "gamma", 1.05070102214813232421875)));
}

/* max(0, x) + min(0, alpha (e^(x / alpha) - 1)) = alpha elu(x / alpha) */
HANDLER(Celu) {
  const double alpha = float_of(n, "alpha", 1);
  give_each(n, times(n, elu(n, times(n, each(n, 0), 1 / alpha), 1), alpha));
}

static value *number_like (onnx_node *n, double number, value *x) {
  return marea_onnx_scalar(n, number, dtype_of(x));
}

HANDLER(ThresholdedRelu) {
  value *x = each(n, 0), *above = op2(n, "gt", x, number_like(n, float_of(n, "alpha", 1), x));
  give_each(n, where(n, above, x, number_like(n, 0, x)));
}

/* The slope before version 7: one number, or one for each channel */
static value *by_channel (onnx_node *n, value *slope, bool last, int rank) {
  int64_t shape[MAREA_MAX_RANK];
  if (!goes_on(n) || n->version >= 7 || rank_of(slope) != 1 || rank < 2) return slope;
  for (int d = 0; d < rank; d++) shape[d] = d == (last ? rank - 1 : 1) ? size_of(slope, 0) : 1;
  return marea_onnx_reshape(n, slope, rank, shape);
}

HANDLER(PRelu) {
  value *x = each(n, 0), *slope = input(n, 1), *aligned[2] = {NULL};
  bool last = goes_on(n) && n->in[0]->channels_last;
  if (n->version < 7) aligned[0] = x, aligned[1] = by_channel(n, slope, last, rank_of(x));
  else if (n->n_in == 2) last = marea_onnx_aligned(n, aligned);
  if (!goes_on(n)) return;
  x = aligned[0];
  value *y = where(n, op2(n, "lt", x, number_like(n, 0, x)), mul(n, x, aligned[1]), x);
  if (last) marea_onnx_give_image(n, 0, y);
  else give(n, 0, y);
}

static value *clamped (onnx_node *n, value *x) {
  return CALL(n, "clamp", VALUES(x), NAMED(marea_real("min", 0), marea_real("max", 1)));
}

HANDLER(HardSigmoid) {
  value *x = each(n, 0);
  give_each(n, clamped(n, plus(n, times(n, x, float_of(n, "alpha", 0.2)), float_of(n, "beta", 0.5))));
}

HANDLER(HardSwish) { give_each(n, op1(n, "hard_swish", each(n, 0))); }

HANDLER(Softsign) {
  value *x = each(n, 0);
  give_each(n, divide(n, x, plus(n, op1(n, "abs", x), 1)));
}

HANDLER(Mish) {
  value *x = each(n, 0);
  give_each(n, mul(n, x, op1(n, "tanh", op1(n, "softplus", x))));
}

/* x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 */
static value *gelu_by_tanh (onnx_node *n, value *x) {
  value *inner = mul(n, x, plus(n, times(n, op1(n, "square", x), 0.044715), 1));
  value *t = op1(n, "tanh", times(n, inner, 0.79788456080286535588));
  return mul(n, times(n, x, 0.5), plus(n, t, 1));
}

HANDLER(Gelu) {
  value *x = each(n, 0);
  give_each(n, marea_onnx_is(n, "approximate", "none", "tanh") ? gelu_by_tanh(n, x) : op1(n, "gelu", x));
}

HANDLER(Shrink) {
  value *x = each(n, 0);
  const double lambd = float_of(n, "lambd", 0.5), bias = float_of(n, "bias", 0);
  value *low = where(n, op2(n, "lt", x, number_like(n, -lambd, x)), plus(n, x, bias), number_like(n, 0, x));
  give_each(n, where(n, op2(n, "gt", x, number_like(n, lambd, x)), plus(n, x, -bias), low));
}

/* ---- softmax: before version 13 over all dimensions from `axis` on ---- */

/* x as a matrix whose rows are softened; *whole: x itself, with the dimension *dim. */
static value *prepare (onnx_node *n, value *x, int *dim) {
  const bool flat = n->version < 13;
  *dim = marea_onnx_axis(n, int_of(n, "axis", flat ? 1 : -1), MAREA_MAX(rank_of(x), 1));
  if (!goes_on(n) || !flat) return x;
  int64_t rows = 1, columns = 1;
  for (int d = 0; d < rank_of(x); d++) *(d < *dim ? &rows : &columns) *= size_of(x, d);
  *dim = 1;
  return marea_onnx_reshape(n, x, 2, (int64_t[]){rows, columns});
}

static void soften (onnx_node *n, const char *op) {
  value *x = input(n, 0);
  int dim = 0;
  if (!goes_on(n)) return;
  value *rows = prepare(n, x, &dim);
  value *y = CALL(n, op, VALUES(rows), NAMED(marea_int("dim", dim)));
  if (goes_on(n)) give(n, 0, marea_onnx_reshape(n, y, rank_of(x), x->t->shape));
}

HANDLER(Softmax) { soften(n, "softmax"); }
HANDLER(LogSoftmax) { soften(n, "log_softmax"); }

/* 1 at the first greatest element, 0 elsewhere */
HANDLER(Hardmax) {
  value *x = input(n, 0);
  int dim = 0;
  if (!goes_on(n)) return;
  value *rows = prepare(n, x, &dim);
  if (!goes_on(n)) return;
  value *first = CALL(n, "argmax", VALUES(rows), NAMED(marea_int("dim", dim), marea_int("keepdim", 1)));
  const int base = n->e->ctx->config.index_base;
  int64_t shape[MAREA_MAX_RANK];
  for (int d = 0; d < rank_of(rows); d++) shape[d] = d == dim ? size_of(rows, d) : 1;
  value *places = CALL(n, "arange", NOTHING,
                       NAMED(marea_int("start", base), marea_int("stop", size_of(rows, dim) - 1 + base),
                             marea_word("dtype", "i64")));
  value *hit = op2(n, "eq", marea_onnx_reshape(n, places, rank_of(rows), shape), first);
  value *y = marea_onnx_cast(n, hit, dtype_of(x));
  if (goes_on(n)) give(n, 0, marea_onnx_reshape(n, y, rank_of(x), x->t->shape));
}
