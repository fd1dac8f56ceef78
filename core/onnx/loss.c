/* SPDX-License-Identifier: MIT
** loss.c: ONNX's losses over classes. Classes are dimension 1: (N, C, d1, ...), labels are (N, d1, ...).
*/
#include "node.h"

static value *total (onnx_node *n, value *x) { return op1(n, "sum", x); }

static bool fit (onnx_node *n, const value *x, const value *labels) {
  const int rank = rank_of(x);
  bool same = rank >= 2 && rank_of(labels) == rank - 1;
  for (int d = 0; same && d < rank - 1; d++) same = size_of(labels, d) == size_of(x, d + (d > 0));
  if (goes_on(n) && !same)
    marea_onnx_reject(n, "labels %s do not fit %s", marea_tensor_text(labels->t).s,
                      marea_tensor_text(x->t).s);
  return goes_on(n);
}

/* x[n, labels[n, ..], ..], of the labels' shape */
static value *at_labels (onnx_node *n, value *x, value *labels) {
  int64_t shape[MAREA_MAX_RANK];
  const int rank = rank_of(x);
  if (!goes_on(n)) return NULL;
  for (int d = 0; d < rank; d++) shape[d] = d == 1 ? 1 : size_of(x, d);
  value *index = marea_onnx_reshape(n, labels, rank, shape);
  value *y = CALL(n, "gather", VALUES(x, index), NAMED(marea_int("dim", 1)));
  return goes_on(n) ? marea_onnx_reshape(n, y, rank - 1, labels->t->shape) : NULL;
}

/* The loss of logarithms of probabilities. Rows of an ignored label count nothing: neither in sums nor in means. */
static void give_loss (onnx_node *n, value *log_p, value *labels, value *weight) {
  const bool ignores = marea_onnx_attribute(n, "ignore_index"),
             mean = marea_onnx_is(n, "reduction", "mean", "mean");
  const bool none = marea_onnx_is(n, "reduction", "mean", "none"),
             sum = marea_onnx_is(n, "reduction", "mean", "sum");
  if (goes_on(n) && !mean && !none && !sum)
    marea_onnx_reject(n, "expected the reduction 'none', 'sum' or 'mean'");
  if (!fit(n, log_p, labels)) return;
  const int dtype = dtype_of(log_p);
  value *zero = marea_onnx_scalar(n, 0, dtype), *counts = NULL;
  labels = marea_onnx_cast(n, labels, MAREA_I64);
  if (ignores) {
    counts = op2(n, "ne", labels, marea_onnx_integer(n, int_of(n, "ignore_index", 0), MAREA_I64));
    labels = where(n, counts, labels, marea_onnx_integer(n, 0, MAREA_I64));
  }
  labels = marea_onnx_indices(n, labels, size_of(log_p, 1));
  value *loss = op1(n, "neg", at_labels(n, log_p, labels));
  value *w = weight ? CALL(n, "index_select", VALUES(weight, labels), NAMED(marea_int("dim", 0))) : NULL;
  if (w && counts) w = where(n, counts, w, zero);
  if (!w && counts) w = marea_onnx_cast(n, counts, dtype);
  if (w) loss = mul(n, loss, w);
  if (counts) loss = where(n, counts, loss, zero); /* an infinite one, too */
  if (sum) loss = total(n, loss);
  if (mean) loss = w ? divide(n, total(n, loss), total(n, w)) : op1(n, "mean", loss);
  give(n, 0, loss);
}

HANDLER(NegativeLogLikelihoodLoss) { give_loss(n, input(n, 0), input(n, 1), optional(n, 2)); }

HANDLER(SoftmaxCrossEntropyLoss) {
  value *log_p = CALL(n, "log_softmax", VALUES(input(n, 0)), NAMED(marea_int("dim", 1)));
  give_loss(n, log_p, input(n, 1), optional(n, 2));
  give(n, 1, log_p);
}
