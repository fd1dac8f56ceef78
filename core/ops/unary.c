/* SPDX-License-Identifier: MIT
** unary.c: functions of one number, applied to each element. Any shape and strides; the result has the
** shape of x. Gradients come from the result where that is cheaper than from x. In the formulas dy is the
** gradient of y.
*/
#include <float.h>
#include <math.h>

#include "formula.h"

/* Data that all of them share. ANY_VALUE and the like are samples. */
#define UNARY(op)                                                                            \
  .name = #op, .family = "unary", .inputs = {{"x", "any shape"}}, .shape = marea_shape_same, \
  .forward = op##_forward
#define MAP (MAREA_STRIDED | MAREA_ELEMENTWISE | MAREA_MIXES)
#define ANY_VALUE "return {g.tensor(g.shape(0, 4))}"
#define NOT_ZERO "return {g.tensor(g.shape(0, 4), {away = {0}})}"
#define POSITIVE "return {g.tensor(g.shape(0, 4), {lo = 0.2, hi = 3})}"
#define BETWEEN_INTEGERS "return {g.tensor(g.shape(0, 4), {away = {-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2}})}"

static const marea_kernels *kernels (const marea_call *c) { return marea_kernels_for(c, 0); }

/* ---- sign and powers --------------------------------------------------------------------------------- */

static marea_status neg_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->neg, NULL); }

static marea_status neg_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, unary(&f, &marea_op_neg, v->dout[0]));
  return finish(&f);
}

const marea_op marea_op_neg = {
    UNARY(neg),     .flags = MAP | MAREA_SINGLE, .dtypes = MAREA_SIGNED,
    .vjp = neg_vjp, .sample = ANY_VALUE,         .doc = "neg(x) = -x. Also for i64. Gradient: dx = -dy.",
};

static marea_status abs_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->abs, NULL); }

static marea_status abs_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *x = v->in[0], *dx = mul(&f, v->dout[0], unary(&f, &marea_op_sign, x));
  give(&f, 0, keep_where(&f, with_number(&f, &marea_op_ne, x, 0), dx));
  return finish(&f);
}

const marea_op marea_op_abs = {
    UNARY(abs),
    .flags = MAP,
    .dtypes = MAREA_ANY,
    .saves_in = 1,
    .vjp = abs_vjp,
    .sample = NOT_ZERO,
    .doc = "abs(x) = |x|. Every dtype. Gradient: dx = dy sign(x), 0 at x = 0, whatever dy.",
};

static marea_status sign_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->sign, NULL); }

const marea_op marea_op_sign = {
    UNARY(sign),
    .flags = MAP | MAREA_NO_GRAD,
    .dtypes = MAREA_ANY,
    .sample = NOT_ZERO,
    .doc = "sign(x) = -1, 0 or 1; NaN stays NaN. Every dtype. The result is a constant for gradients.",
};

static marea_status square_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->square, NULL); }

static marea_status square_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, times(&f, mul(&f, v->dout[0], v->in[0]), 2));
  return finish(&f);
}

const marea_op marea_op_square = {
    UNARY(square),
    .flags = MAP | MAREA_WIDE,
    .dtypes = MAREA_SIGNED,
    .saves_in = 1,
    .vjp = square_vjp,
    .sample = ANY_VALUE,
    .doc = "square(x) = x^2. Also for i64, which wraps around. Gradient: dx = 2 x dy.",
};

static marea_status sqrt_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->sqrt, NULL); }

static marea_status sqrt_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, times(&f, divide(&f, v->dout[0], v->out[0]), 0.5));
  return finish(&f);
}

const marea_op marea_op_sqrt = {
    UNARY(sqrt),
    .flags = MAP,
    .saves_out = 1,
    .vjp = sqrt_vjp,
    .sample = POSITIVE,
    .doc = "sqrt(x), the square root; NaN for x < 0. Gradient: dx = dy / (2 y), infinite at x = 0.",
};

static marea_status rsqrt_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->rsqrt, NULL); }

static marea_status rsqrt_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *y = v->out[0];
  give(&f, 0, times(&f, mul(&f, mul(&f, mul(&f, v->dout[0], y), y), y), -0.5));
  return finish(&f);
}

const marea_op marea_op_rsqrt = {
    UNARY(rsqrt),
    .flags = MAP | MAREA_WIDE,
    .saves_out = 1,
    .vjp = rsqrt_vjp,
    .sample = POSITIVE,
    .doc = "rsqrt(x) = 1 / sqrt(x); infinite at 0, NaN for x < 0. Gradient: dx = -dy y^3 / 2.",
};

static marea_status reciprocal_forward (marea_call *c) {
  return marea_map_unary(c, kernels(c)->reciprocal, NULL);
}

static marea_status reciprocal_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *y = v->out[0];
  give(&f, 0, unary(&f, &marea_op_neg, mul(&f, mul(&f, v->dout[0], y), y)));
  return finish(&f);
}

const marea_op marea_op_reciprocal = {
    UNARY(reciprocal),
    .flags = MAP | MAREA_WIDE,
    .saves_out = 1,
    .vjp = reciprocal_vjp,
    .sample = "return {g.tensor(g.shape(0, 4), {lo = 0.3, hi = 3})}",
    .doc = "reciprocal(x) = 1 / x; infinite at 0. Gradient: dx = -dy y^2.",
};

/* ---- exponentials and logarithms --------------------------------------------------------------------- */

static marea_status exp_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->exp, NULL); }

static marea_status exp_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, mul(&f, v->dout[0], v->out[0]));
  return finish(&f);
}

const marea_op marea_op_exp = {
    UNARY(exp),          .flags = MAP | MAREA_WIDE,
    .saves_out = 1,      .vjp = exp_vjp,
    .sample = ANY_VALUE, .doc = "exp(x) = e^x; f32 overflows to infinity above 88.72. Gradient: dx = dy y.",
};

static marea_status log_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->log, NULL); }

static marea_status log_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, divide(&f, v->dout[0], v->in[0]));
  return finish(&f);
}

const marea_op marea_op_log = {
    UNARY(log),
    .flags = MAP | MAREA_WIDE,
    .saves_in = 1,
    .vjp = log_vjp,
    .sample = POSITIVE,
    .doc = "log(x), the natural logarithm; -infinity at 0, NaN for x < 0. Gradient: dx = dy / x.",
};

static marea_status log1p_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->log1p, NULL); }

static marea_status log1p_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, divide(&f, v->dout[0], plus(&f, v->in[0], 1)));
  return finish(&f);
}

const marea_op marea_op_log1p = {
    UNARY(log1p),
    .flags = MAP | MAREA_WIDE,
    .saves_in = 1,
    .vjp = log1p_vjp,
    .sample = "return {g.tensor(g.shape(0, 4), {lo = -0.7, hi = 3})}",
    .doc = "log1p(x) = log(1 + x), exact for small x; NaN for x < -1. Gradient: dx = dy / (1 + x).",
};

static marea_status expm1_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->expm1, NULL); }

static marea_status expm1_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, mul(&f, v->dout[0], plus(&f, v->out[0], 1)));
  return finish(&f);
}

const marea_op marea_op_expm1 = {
    UNARY(expm1),        .flags = MAP | MAREA_WIDE,
    .saves_out = 1,      .vjp = expm1_vjp,
    .sample = ANY_VALUE, .doc = "expm1(x) = e^x - 1, exact for small x. Gradient: dx = dy (y + 1).",
};

/* ---- circular functions and rounding ----------------------------------------------------------------- */

static marea_status sin_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->sin, NULL); }

static marea_status sin_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, mul(&f, v->dout[0], unary(&f, &marea_op_cos, v->in[0])));
  return finish(&f);
}

const marea_op marea_op_sin = {
    UNARY(sin),     .flags = MAP,        .saves_in = 1,
    .vjp = sin_vjp, .sample = ANY_VALUE, .doc = "sin(x), x in radians. Gradient: dx = dy cos(x).",
};

static marea_status cos_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->cos, NULL); }

static marea_status cos_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, unary(&f, &marea_op_neg, mul(&f, v->dout[0], unary(&f, &marea_op_sin, v->in[0]))));
  return finish(&f);
}

const marea_op marea_op_cos = {
    UNARY(cos),     .flags = MAP,        .saves_in = 1,
    .vjp = cos_vjp, .sample = ANY_VALUE, .doc = "cos(x), x in radians. Gradient: dx = -dy sin(x).",
};

static marea_status atan_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->atan, NULL); }

static marea_status atan_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, divide(&f, v->dout[0], with_number(&f, &marea_op_add, square(&f, v->in[0]), 1)));
  return finish(&f);
}

const marea_op marea_op_atan = {
    UNARY(atan),
    .flags = MAP,
    .saves_in = 1,
    .vjp = atan_vjp,
    .sample = ANY_VALUE,
    .doc = "atan(x), the arc tangent, between -pi/2 and pi/2. Gradient: dx = dy / (1 + x^2).",
};

static marea_status floor_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->floor, NULL); }

const marea_op marea_op_floor = {
    UNARY(floor),
    .flags = MAP | MAREA_NO_GRAD,
    .sample = BETWEEN_INTEGERS,
    .doc = "floor(x), the greatest integer <= x, in x's dtype. The result is a constant for gradients.",
};

static marea_status ceil_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->ceil, NULL); }

const marea_op marea_op_ceil = {
    UNARY(ceil),
    .flags = MAP | MAREA_NO_GRAD,
    .sample = BETWEEN_INTEGERS,
    .doc = "ceil(x), the smallest integer >= x, in x's dtype. The result is a constant for gradients.",
};

static marea_status round_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->round, NULL); }

const marea_op marea_op_round = {
    UNARY(round),
    .flags = MAP | MAREA_NO_GRAD,
    .sample = BETWEEN_INTEGERS,
    .doc = "round(x), the nearest integer, halves to the even one, in x's dtype. The result is a constant "
           "for gradients.",
};

/* ---- the normal distribution ------------------------------------------------------------------------- */

static marea_status erf_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->erf, NULL); }

static marea_status erf_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *e = unary(&f, &marea_op_exp, unary(&f, &marea_op_neg, square(&f, v->in[0])));
  give(&f, 0, times(&f, mul(&f, v->dout[0], e), M_2_SQRTPI));
  return finish(&f);
}

const marea_op marea_op_erf = {
    UNARY(erf),
    .flags = MAP,
    .saves_in = 1,
    .vjp = erf_vjp,
    .sample = ANY_VALUE,
    .doc = "erf(x) = 2/sqrt(pi) * the integral of exp(-t^2) from 0 to x. Gradient: dx = dy 2/sqrt(pi) "
           "exp(-x^2).",
};

static marea_status norm_icdf_forward (marea_call *c) {
  return marea_map_unary(c, kernels(c)->norm_icdf, NULL);
}

/* y = F^-1(x), F' = exp(-y^2/2) / sqrt(2 pi) */
static marea_status norm_icdf_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *e = unary(&f, &marea_op_exp, times(&f, square(&f, v->out[0]), 0.5));
  give(&f, 0, times(&f, mul(&f, v->dout[0], e), 2 * M_SQRT2 / M_2_SQRTPI));
  return finish(&f);
}

const marea_op marea_op_norm_icdf = {
    UNARY(norm_icdf),
    .flags = MAP | MAREA_WIDE,
    .saves_out = 1,
    .vjp = norm_icdf_vjp,
    .sample = "return {g.tensor(g.shape(0, 4), {lo = 0.05, hi = 0.95})}",
    .doc = "norm_icdf(p), the value that a standard normal variable stays below with probability p (the "
           "inverse of its distribution function): -infinity at 0, infinity at 1, NaN outside [0, 1]. "
           "Gradient: dp = dy sqrt(2 pi) exp(y^2 / 2).",
};

/* ---- tests ------------------------------------------------------------------------------------------- */

static marea_status test_shape (marea_call *c) {
  marea_layout_like(&c->layout[0], c->in[0]);
  c->layout[0].dtype = MAREA_U8;
  return MAREA_OK;
}

#define TEST(op, text)                                                                                \
  .name = #op, .family = "unary", .inputs = {{"x", "any shape"}}, .shape = test_shape,                \
  .forward = op##_forward, .flags = MAREA_STRIDED | MAREA_MIXES | MAREA_NO_GRAD, .dtypes = MAREA_ANY, \
  .sample = "local x = g.tensor(g.shape(0, 4)) return {g.pick{x, x / 0, (x - x) / 0}}",               \
  .doc = #op "(x): is an element " text " u8, 1 or 0. The result is a constant for gradients."

static marea_status isnan_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->is_nan, NULL); }
const marea_op marea_op_isnan = {TEST(isnan, "NaN? Integers never are.")};

static marea_status isinf_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->is_inf, NULL); }
const marea_op marea_op_isinf = {TEST(isinf, "infinity or -infinity? Integers never are.")};

static marea_status isfinite_forward (marea_call *c) {
  return marea_map_unary(c, kernels(c)->is_finite, NULL);
}
const marea_op marea_op_isfinite = {TEST(isfinite, "neither infinite nor NaN? Integers always are.")};

/* ---- clamp and cast ---------------------------------------------------------------------------------- */

static marea_status clamp_shape (marea_call *c) {
  const double min = marea_attr_number(&c->attr[0]), max = marea_attr_number(&c->attr[1]);
  if (!(min <= max)) return marea_reject(c, MAREA_EARG, "min %g is not below max %g", min, max);
  return marea_shape_same(c);
}

/* The integers next to a real bound, inside. */
static marea_attr rounded_up (marea_attr a) {
  if (a.n != MAREA_EXACT) a.f = ceil(a.f);
  return a;
}

static marea_attr rounded_down (marea_attr a) {
  if (a.n != MAREA_EXACT) a.f = floor(a.f);
  return a;
}

static marea_status clamp_forward (marea_call *c) {
  const marea_attr low = rounded_up(c->attr[0]), high = rounded_down(c->attr[1]);
  const int64_t whole[] = {marea_attr_integer(&low), marea_attr_integer(&high)};
  double p[] = {marea_attr_number(&c->attr[0]), marea_attr_number(&c->attr[1])};
  if (!marea_is_float(c->in[0]->dtype)) memcpy(p, whole, sizeof p);
  return marea_map_unary(c, kernels(c)->clamp, p);
}

/* What passed unchanged is where y = x, the bounds included. */
static marea_status clamp_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, keep_where(&f, binary(&f, &marea_op_eq, v->in[0], v->out[0]), v->dout[0]));
  return finish(&f);
}

const marea_op marea_op_clamp = {
    .name = "clamp",
    .family = "unary",
    .inputs = {{"x", "any shape"}},
    .attrs = MAREA_ATTRS({"min", MAREA_NUMBER, -INFINITY, NULL, "lower bound"},
                         {"max", MAREA_NUMBER, INFINITY, NULL, "upper bound"}),
    .flags = MAP,
    .dtypes = MAREA_ANY,
    .saves_in = 1,
    .saves_out = 1,
    .shape = clamp_shape,
    .forward = clamp_forward,
    .vjp = clamp_vjp,
    .sample = "return {g.tensor(g.shape(0, 4), {away = {-1, 0.5}})}, {min = -1, max = 0.5}",
    .doc = "clamp(x, min, max): x, but at least min and at most max; NaN stays NaN. Every dtype. Gradient: "
           "dy where min <= x <= max, else 0. Error: min > max.",
};

static marea_status cast_shape (marea_call *c) {
  marea_layout_like(&c->layout[0], c->in[0]);
  c->layout[0].dtype = (int8_t)c->attr[0].i;
  return MAREA_OK;
}

static marea_status cast_forward (marea_call *c) {
  marea_copy_strided(c->ctx, c->in[0], c->out[0]);
  return MAREA_OK;
}

static marea_status cast_vjp (marea_vjp *v) {
  formula f = {.v = v};
  const marea_attr dtype = marea_attr_int(v->in[0]->dtype);
  give(&f, 0, step(&f, &marea_op_cast, &dtype, 1, v->dout[0], NULL, NULL));
  return finish(&f);
}

const marea_op marea_op_cast = {
    .name = "cast",
    .family = "unary",
    .inputs = {{"x", "any shape"}},
    .attrs = MAREA_ATTRS({"dtype", MAREA_DTYPE, MAREA_REQUIRED, NULL, "dtype of the result"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = cast_shape,
    .forward = cast_forward,
    .vjp = cast_vjp,
    .sample = "return {g.tensor(g.shape(0, 4))}, {dtype = 'f64'}",
    .doc = "cast(x, dtype): x converted, always a new tensor. To integers values are cut towards zero and "
           "kept in the dtype's range, NaN becomes 0. Gradient: dx = dy in x's dtype; a result of integers "
           "is a constant.",
};
