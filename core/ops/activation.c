/* SPDX-License-Identifier: MIT
** activation.c: activation functions, applied to each element. Any shape and strides; the result has x's
** shape.
**
** The gradient of those that can be told from their result y is one operator, activation_grad, which linear
** and the convolutions use for their fused activations too. So x need not be kept.
*/
#include <math.h>

#include "formula.h"

#define ACTIVATION(op) \
  .name = #op, .family = "activation", .inputs = {{"x", "any shape"}}, .forward = op##_forward
#define MAP (MAREA_STRIDED | MAREA_ELEMENTWISE | MAREA_MIXES)
#define ANY_VALUE "return {g.tensor(g.shape(0, 4))}"
#define NOT_ZERO "return {g.tensor(g.shape(0, 4), {away = {0}})}"

static const marea_kernels *kernels (const marea_call *c) { return marea_kernels_for(c, 0); }

/* ---- activation_grad --------------------------------------------------------------------------------- */

static marea_status activation_grad_shape (marea_call *c) {
  MAREA_TRY(marea_want_shape(c, 1, c->in[0]));
  MAREA_TRY(marea_want_slope(c, 1));
  return marea_shape_same(c);
}

marea_binary_kernel *marea_activation_grad_kernel (const marea_kernels *k, marea_activation activation) {
  switch (activation) {
  case MAREA_ACT_RELU: return k->relu_grad;
  case MAREA_ACT_LEAKY_RELU: return k->leaky_relu_grad;
  case MAREA_ACT_ELU: return k->elu_grad;
  case MAREA_ACT_SIGMOID: return k->sigmoid_grad;
  case MAREA_ACT_TANH: return k->tanh_grad;
  case MAREA_ACT_SOFTPLUS: return k->softplus_grad;
  case MAREA_ACT_RELU6: return k->relu6_grad;
  default: return NULL;
  }
}

static marea_status activation_grad_forward (marea_call *c) {
  marea_binary_kernel *kernel = marea_activation_grad_kernel(kernels(c), (marea_activation)c->attr[0].i);
  if (kernel) return marea_map_binary(c, kernel, &c->attr[1].f);
  marea_copy_strided(c->ctx, c->in[0], c->out[0]);
  return MAREA_OK;
}

/* The slope changes with y, not only from piece to piece. */
static bool is_curved (int64_t activation) {
  return activation >= MAREA_ACT_ELU && activation <= MAREA_ACT_SOFTPLUS;
}

/* t times the derivative of the activation's slope after y; NULL where that is 0. */
static marea_tensor *times_curvature (formula *f, marea_tensor *t, marea_tensor *y) {
  switch ((marea_activation)f->v->attr[0].i) {
  case MAREA_ACT_ELU: /* slope 1 above 0, y + alpha below */
    return keep_where(f, with_number(f, &marea_op_le, y, 0), t);
  case MAREA_ACT_SIGMOID: /* y - y^2 */ return mul(f, t, plus(f, times(f, y, -2), 1));
  case MAREA_ACT_TANH: /* 1 - y^2 */ return mul(f, t, times(f, y, -2));
  case MAREA_ACT_SOFTPLUS: /* 1 - exp(-y) */
    return mul(f, t, unary(f, &marea_op_exp, unary(f, &marea_op_neg, y)));
  default: return NULL;
  }
}

static marea_status activation_grad_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *u = v->dout[0], *dy = v->in[0], *y = v->in[1];
  if (v->need[0]) give(&f, 0, step(&f, &marea_op_activation_grad, v->attr, 2, u, y, NULL));
  if (v->need[1] && is_curved(v->attr[0].i)) give(&f, 1, times_curvature(&f, mul(&f, u, dy), y));
  return finish(&f);
}

const marea_op marea_op_activation_grad = {
    .name = "activation_grad",
    .family = "activation",
    .inputs = {{"dy", "gradient after the activation"}, {"y", "its result, same shape"}},
    .attrs = MAREA_ATTRS({"activation", MAREA_ENUM, 0, MAREA_ACTIVATION_NAMES, "the activation"},
                         {"slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC}),
    .flags = MAP | MAREA_PROMOTES,
    .saves_in = 3,
    .shape = activation_grad_shape,
    .forward = activation_grad_forward,
    .vjp = activation_grad_vjp,
    .sample =
        "local s = g.shape(0, 4) return {g.tensor(s), g.tensor(s, {lo = 0.1, hi = 0.9})}, {activation = "
        "g.pick{'none', 'relu', 'leaky_relu', 'elu', 'sigmoid', 'tanh', 'softplus', 'relu6'}}",
    .doc = "activation_grad(dy, y, activation, slope) = dy times the activation's derivative, told from its "
           "result y: relu [y > 0], leaky_relu y > 0 ? 1 : slope, elu y > 0 ? 1 : y + slope, sigmoid y (1 - "
           "y), tanh 1 - y^2, softplus 1 - exp(-y), relu6 [0 < y < 6]. Gradients to dy and y. Errors: shapes "
           "differ, slope < 0.",
};

/* dx for the operator of a vjp */
static marea_status from_result (marea_vjp *v, marea_activation activation, double slope) {
  formula f = {.v = v};
  const marea_attr attrs[] = {marea_attr_int(activation), marea_attr_real(slope)};
  give(&f, 0, step(&f, &marea_op_activation_grad, attrs, 2, v->dout[0], v->out[0], NULL));
  return finish(&f);
}

/* ---- activations whose gradient is told from y ------------------------------------------------------- */

static marea_status relu_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->relu, NULL); }

static marea_status relu_vjp (marea_vjp *v) { return from_result(v, MAREA_ACT_RELU, 0); }

const marea_op marea_op_relu = {
    ACTIVATION(relu),
    .flags = MAP | MAREA_SINGLE | MAREA_BY_SIGN,
    .shape = marea_shape_same,
    .saves_out = 1,
    .vjp = relu_vjp,
    .sample = NOT_ZERO,
    .doc = "relu(x) = max(x, 0). Gradient: dx = dy where x > 0, else 0 (also at 0).",
};

static marea_status relu6_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->relu6, NULL); }

static marea_status relu6_vjp (marea_vjp *v) { return from_result(v, MAREA_ACT_RELU6, 0); }

const marea_op marea_op_relu6 = {
    ACTIVATION(relu6),
    .flags = MAP | MAREA_SINGLE,
    .shape = marea_shape_same,
    .saves_out = 1,
    .vjp = relu6_vjp,
    .sample = "return {g.tensor(g.shape(0, 4), {lo = -3, hi = 9, away = {0, 6}})}",
    .doc = "relu6(x) = min(max(x, 0), 6). Gradient: dx = dy where 0 < x < 6, else 0. Howard et al., "
           "\"MobileNets\", 2017.",
};

static marea_status slope_shape (marea_call *c) {
  MAREA_TRY(marea_want_slope(c, 0));
  return marea_shape_same(c);
}

static marea_status leaky_relu_forward (marea_call *c) {
  return marea_map_unary(c, kernels(c)->leaky_relu, &c->attr[0].f);
}

static marea_status leaky_relu_vjp (marea_vjp *v) {
  return from_result(v, MAREA_ACT_LEAKY_RELU, v->attr[0].f);
}

const marea_op marea_op_leaky_relu = {
    ACTIVATION(leaky_relu),
    .flags = MAP | MAREA_SINGLE | MAREA_BY_SIGN,
    .attrs = MAREA_ATTRS({"slope", MAREA_REAL, 0.01, NULL, "slope for x < 0, at least 0"}),
    .shape = slope_shape,
    .saves_out = 1,
    .vjp = leaky_relu_vjp,
    .sample = "return {g.tensor(g.shape(0, 4), {away = {0}})}, {slope = g.pick{0.01, 0.2}}",
    .doc = "leaky_relu(x, slope): x where x > 0, slope x elsewhere. Gradient: dx = dy where x > 0, else "
           "slope dy. Error: slope < 0. Maas, Hannun and Ng, 2013.",
};

static marea_status elu_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->elu, &c->attr[0].f); }

static marea_status elu_vjp (marea_vjp *v) { return from_result(v, MAREA_ACT_ELU, v->attr[0].f); }

const marea_op marea_op_elu = {
    ACTIVATION(elu),
    .flags = MAP,
    .attrs = MAREA_ATTRS({"alpha", MAREA_REAL, 1, NULL, "minus the limit at -infinity, at least 0"}),
    .shape = slope_shape,
    .saves_out = 1,
    .vjp = elu_vjp,
    .sample = "return {g.tensor(g.shape(0, 4), {away = {0}})}, {alpha = g.pick{1, 0.5}}",
    .doc = "elu(x, alpha): x where x > 0, alpha (e^x - 1) elsewhere. Gradient: dx = dy where x > 0, else dy "
           "(y + alpha). Error: alpha < 0. Clevert, Unterthiner and Hochreiter, 2015 (arXiv 1511.07289).",
};

static marea_status sigmoid_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->sigmoid, NULL); }

static marea_status sigmoid_vjp (marea_vjp *v) { return from_result(v, MAREA_ACT_SIGMOID, 0); }

const marea_op marea_op_sigmoid = {
    ACTIVATION(sigmoid),
    .flags = MAP,
    .shape = marea_shape_same,
    .saves_out = 1,
    .vjp = sigmoid_vjp,
    .sample = ANY_VALUE,
    .doc = "sigmoid(x) = 1 / (1 + e^-x). Gradient: dx = dy y (1 - y).",
};

static marea_status tanh_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->tanh, NULL); }

static marea_status tanh_vjp (marea_vjp *v) { return from_result(v, MAREA_ACT_TANH, 0); }

const marea_op marea_op_tanh = {
    ACTIVATION(tanh),
    .flags = MAP,
    .shape = marea_shape_same,
    .saves_out = 1,
    .vjp = tanh_vjp,
    .sample = ANY_VALUE,
    .doc = "tanh(x), the hyperbolic tangent. Gradient: dx = dy (1 - y^2).",
};

static marea_status softplus_forward (marea_call *c) {
  return marea_map_unary(c, kernels(c)->softplus, NULL);
}

static marea_status softplus_vjp (marea_vjp *v) { return from_result(v, MAREA_ACT_SOFTPLUS, 0); }

const marea_op marea_op_softplus = {
    ACTIVATION(softplus),
    .flags = MAP | MAREA_WIDE,
    .shape = marea_shape_same,
    .saves_out = 1,
    .vjp = softplus_vjp,
    .sample = ANY_VALUE,
    .doc = "softplus(x) = log(1 + e^x), without overflow. Gradient: dx = dy sigmoid(x) = dy (1 - e^-y).",
};

/* ---- activations whose gradient needs x -------------------------------------------------------------- */

static marea_status gelu_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->gelu, NULL); }

/* x within +-limit, beyond which a slope is 0 or 1 to the last bit: so it is at infinity too, and not infinity * 0 */
static marea_tensor *within (formula *f, marea_tensor *x, double limit) {
  const marea_attr limits[] = {marea_attr_real(-limit), marea_attr_real(limit)};
  return step(f, &marea_op_clamp, limits, 1, x, NULL, NULL);
}

static marea_status gelu_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, binary(&f, &marea_op_gelu_grad, v->dout[0], v->in[0]));
  return finish(&f);
}

const marea_op marea_op_gelu = {
    ACTIVATION(gelu),
    .flags = MAP | MAREA_SINGLE,
    .shape = marea_shape_same,
    .saves_in = 1,
    .vjp = gelu_vjp,
    .sample = ANY_VALUE,
    .doc = "gelu(x) = x F(x), F(x) = (1 + erf(x / sqrt 2)) / 2; exact, not the tanh approximation. Gradient: "
           "dx = dy (F(x) + x F'(x)). Hendrycks and Gimpel, 2016 (arXiv 1606.08415).",
};

static marea_status gelu_grad_shape (marea_call *c) {
  MAREA_TRY(marea_want_shape(c, 1, c->in[0]));
  return marea_shape_same(c);
}

static marea_status gelu_grad_forward (marea_call *c) {
  return marea_map_binary(c, kernels(c)->gelu_grad, NULL);
}

/* The slope's slope is F'(x) (2 - x^2), F'(x) = exp(-x^2/2) / sqrt(2 pi). */
static marea_status gelu_grad_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *u = v->dout[0], *dy = v->in[0];
  if (v->need[0]) give(&f, 0, binary(&f, &marea_op_gelu_grad, u, v->in[1]));
  if (v->need[1]) {
    marea_tensor *x2 = square(&f, within(&f, v->in[1], 40));
    marea_tensor *bell = times(&f, unary(&f, &marea_op_exp, times(&f, x2, -0.5)), M_2_SQRTPI * M_SQRT1_2 / 2);
    give(&f, 1, mul(&f, mul(&f, u, dy), mul(&f, bell, plus(&f, times(&f, x2, -1), 2))));
  }
  return finish(&f);
}

const marea_op marea_op_gelu_grad = {
    .name = "gelu_grad",
    .family = "activation",
    .inputs = {{"dy", "gradient after gelu"}, {"x", "its input, same shape"}},
    .flags = MAP | MAREA_PROMOTES,
    .saves_in = 3,
    .shape = gelu_grad_shape,
    .forward = gelu_grad_forward,
    .vjp = gelu_grad_vjp,
    .sample = "local s = g.shape(0, 4) return {g.tensor(s), g.tensor(s)}",
    .doc =
        "gelu_grad(dy, x) = dy (F(x) + x F'(x)), the gradient of gelu. Gradients to dy and x. Error: shapes "
        "differ.",
};

static marea_status silu_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->silu, NULL); }

/* y = x s, s = sigmoid(x); y' = s + x s (1 - s), where 1 - s is sigmoid(-x) */
static marea_status silu_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *x = within(&f, v->in[0], 800), *s = unary(&f, &marea_op_sigmoid, x);
  marea_tensor *rest = unary(&f, &marea_op_sigmoid, unary(&f, &marea_op_neg, x));
  give(&f, 0, mul(&f, v->dout[0], add(&f, s, mul(&f, mul(&f, x, s), rest))));
  return finish(&f);
}

const marea_op marea_op_silu = {
    ACTIVATION(silu),
    .flags = MAP,
    .shape = marea_shape_same,
    .saves_in = 1,
    .vjp = silu_vjp,
    .sample = ANY_VALUE,
    .doc = "silu(x) = x sigmoid(x), also called swish. Gradient: dx = dy (s + x s (1 - s)), s = sigmoid(x). "
           "Elfwing, Uchibe and Doya, 2017 (arXiv 1702.03118).",
};

static marea_status hard_swish_forward (marea_call *c) {
  return marea_map_unary(c, kernels(c)->hard_swish, NULL);
}

/* y' = g + x / 6 inside of -3 to 3, where x is what is left of it between these limits, and g outside of them */
static marea_status hard_swish_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *x = within(&f, v->in[0], 3), *sixth = times(&f, x, 1.0 / 6);
  marea_tensor *inside = binary(&f, &marea_op_eq, v->in[0], x);
  give(&f, 0, mul(&f, v->dout[0], add(&f, plus(&f, sixth, 0.5), keep_where(&f, inside, sixth))));
  return finish(&f);
}

const marea_op marea_op_hard_swish = {
    ACTIVATION(hard_swish),
    .flags = MAP,
    .shape = marea_shape_same,
    .saves_in = 1,
    .vjp = hard_swish_vjp,
    .sample = "return {g.tensor(g.shape(0, 4), {lo = -6, hi = 6, away = {-3, 3}})}",
    .doc = "hard_swish(x) = x g, g = min(max(x / 6 + 1/2, 0), 1), also called hard_silu; 0 at -infinity. "
           "Gradient: "
           "dx = dy (g + x / 6) where -3 < x < 3, else dy g. Howard et al., \"Searching for MobileNetV3\", "
           "2019.",
};
