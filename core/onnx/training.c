/* SPDX-License-Identifier: MIT
** training.c: ONNX's optimizers (domain ai.onnx.preview.training). Inputs are the rate, the count of steps and, for each
** kind in turn, all tensors of it: weights, gradients, states. Results are new weights and new states, in the same order.
*/
#include "node.h"

typedef struct step {
  value *rate, *count; /* in the weights' dtype; without dimensions */
  int tensors, kinds;
} step;

static value *number_of (onnx_node *n, value *v, int dtype) {
  if (goes_on(n) && count_of(v) != 1)
    marea_onnx_reject(n, "expected one number, got %s", marea_tensor_text(v->t).s);
  return goes_on(n) ? marea_onnx_cast(n, marea_onnx_reshape(n, v, 0, NULL), dtype) : NULL;
}

static bool begin (onnx_node *n, int kinds, step *s) {
  *s = (step){.tensors = (n->n_in - 2) / kinds, .kinds = kinds};
  if (n->n_in < 2 + kinds || (n->n_in - 2) % kinds)
    marea_onnx_reject(n, "expected 2 inputs and %d for each tensor, got %d", kinds, n->n_in);
  value *x = input(n, 2);
  if (!goes_on(n)) return false;
  s->rate = number_of(n, input(n, 0), dtype_of(x));
  s->count = number_of(n, input(n, 1), dtype_of(x));
  return goes_on(n);
}

static value *of_kind (onnx_node *n, const step *s, int kind, int i) {
  return input(n, 2 + kind * s->tensors + i);
}
static void give_kind (onnx_node *n, const step *s, int kind, int i, value *v) {
  give(n, kind * s->tensors + i, v);
}

/* G + norm_coefficient X */
static value *gradient (onnx_node *n, const step *s, int i) {
  const double norm = float_of(n, "norm_coefficient", 0);
  value *g = of_kind(n, s, 1, i);
  return norm != 0 ? add(n, g, times(n, of_kind(n, s, 0, i), norm)) : g;
}

static value *is_later (onnx_node *n, const step *s) {
  return op2(n, "gt", s->count, marea_onnx_scalar(n, 0, dtype_of(s->count)));
}

HANDLER(Adagrad) {
  const double decay = float_of(n, "decay_factor", 0), epsilon = float_of(n, "epsilon", 1e-6);
  step s;
  if (!begin(n, 3, &s)) return;
  value *rate = divide(n, s.rate, plus(n, times(n, s.count, decay), 1));
  for (int i = 0; i < s.tensors && goes_on(n); i++) {
    value *g = gradient(n, &s, i), *h = add(n, of_kind(n, &s, 2, i), op1(n, "square", g));
    value *change = divide(n, mul(n, rate, g), plus(n, op1(n, "sqrt", h), epsilon));
    give_kind(n, &s, 0, i, sub(n, of_kind(n, &s, 0, i), change));
    give_kind(n, &s, 1, i, h);
  }
}

/* 1 - share^count */
static value *rest_of (onnx_node *n, const step *s, double share) {
  value *power = op2(n, "pow", marea_onnx_scalar(n, share, dtype_of(s->count)), s->count);
  return plus(n, op1(n, "neg", power), 1);
}

HANDLER(Adam) {
  const double alpha = float_of(n, "alpha", 0.9f), beta = float_of(n, "beta", 0.999f),
               epsilon = float_of(n, "epsilon", 1e-6);
  const double post = float_of(n, "norm_coefficient_post", 0);
  step s;
  if (!begin(n, 4, &s)) return;
  value *later = mul(n, s.rate, divide(n, op1(n, "sqrt", rest_of(n, &s, beta)), rest_of(n, &s, alpha)));
  value *rate = where(n, is_later(n, &s), later, s.rate);
  for (int i = 0; i < s.tensors && goes_on(n); i++) {
    value *g = gradient(n, &s, i);
    value *v = add(n, times(n, of_kind(n, &s, 2, i), alpha), times(n, g, 1 - alpha));
    value *h = add(n, times(n, of_kind(n, &s, 3, i), beta), times(n, op1(n, "square", g), 1 - beta));
    value *x = sub(n, of_kind(n, &s, 0, i), divide(n, mul(n, rate, v), plus(n, op1(n, "sqrt", h), epsilon)));
    give_kind(n, &s, 0, i, post != 0 ? times(n, x, 1 - post) : x);
    give_kind(n, &s, 1, i, v);
    give_kind(n, &s, 2, i, h);
  }
}

HANDLER(Momentum) {
  const double alpha = float_of(n, "alpha", 0), beta = float_of(n, "beta", 0);
  const bool nesterov = marea_onnx_is(n, "mode", "standard", "nesterov");
  step s;
  if (!begin(n, 3, &s)) return;
  const int dtype = dtype_of(s.rate);
  value *share = where(n, is_later(n, &s), marea_onnx_scalar(n, beta, dtype), marea_onnx_scalar(n, 1, dtype));
  for (int i = 0; i < s.tensors && goes_on(n); i++) {
    value *g = gradient(n, &s, i), *v = add(n, times(n, of_kind(n, &s, 2, i), alpha), mul(n, share, g));
    value *change = nesterov ? add(n, g, times(n, v, alpha)) : v;
    give_kind(n, &s, 0, i, sub(n, of_kind(n, &s, 0, i), mul(n, s.rate, change)));
    give_kind(n, &s, 1, i, v);
  }
}
