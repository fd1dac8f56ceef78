/* SPDX-License-Identifier: MIT
** gamma.c: the logarithm of the gamma function and its derivatives, applied to each element. Any shape and strides;
** the result has the shape of x. Computed in double: f32 gets the nearest float, f64 errs by at most 2e-15 of the
** value, at the roots 1, 2 (lgamma) and 1.46 (digamma) too.
*/
#include <math.h>

#include "formula.h"

#define GAMMA(op)                                                                       \
  .name = #op, .family = "gamma", .inputs = {{"x", "any shape"}},                       \
  .flags = MAREA_STRIDED | MAREA_ELEMENTWISE | MAREA_MIXES | MAREA_WIDE, .saves_in = 1, \
  .forward = op##_forward, .vjp = op##_vjp

#define LARGEST_ORDER 100

static const marea_kernels *kernels (const marea_call *c) { return marea_kernels_for(c, 0); }

/* dx = dy psi^(order)(x) */
static marea_status times_polygamma (marea_vjp *v, int64_t order) {
  formula f = {.v = v};
  const marea_attr attr = marea_attr_int(order);
  give(&f, 0, mul(&f, v->dout[0], step(&f, &marea_op_polygamma, &attr, 1, v->in[0], NULL, NULL)));
  return finish(&f);
}

static marea_status lgamma_forward (marea_call *c) { return marea_map_unary(c, kernels(c)->lgamma, NULL); }

#define TERM 20 /* operations of a logarithm or a power in double */

static double lgamma_flop (const marea_call *c) { return TERM * (double)marea_tensor_size(c->in[0]); }

static marea_status lgamma_vjp (marea_vjp *v) { return times_polygamma(v, 0); }

const marea_op marea_op_lgamma = {
    GAMMA(lgamma),
    .shape = marea_shape_same,
    .flop = lgamma_flop,
    .sample = "return {g.tensor(g.shape(0, 4), {lo = 0.2, hi = 6})}",
    .doc = "lgamma(x) = log Gamma(x), for a whole x the logarithm of (x-1)!; infinite at 0, NaN for x < 0. "
           "Gradient: dx = dy polygamma(x, 0).",
};

static int64_t order_of (const marea_call *c) { return c->attr[0].i; }

static marea_status polygamma_shape (marea_call *c) {
  const int64_t order = order_of(c);
  if (order < 0 || order > LARGEST_ORDER)
    return marea_reject(c, MAREA_EARG, "argument 'order': expected 0 to %d, got %lld", LARGEST_ORDER,
                        (long long)order);
  return marea_shape_same(c);
}

static marea_status polygamma_forward (marea_call *c) {
  const double p[] = {(double)order_of(c)};
  return order_of(c) > 0 ? marea_map_slowly(c, kernels(c)->polygamma, p)
                         : marea_map_unary(c, kernels(c)->polygamma, p);
}

/* Near 0 a sum of some order + 11 powers goes before the series. */
static double polygamma_flop (const marea_call *c) {
  const double order = (double)order_of(c), terms = order == 0 ? 1 : order + 23;
  return TERM * terms * (double)marea_tensor_size(c->in[0]);
}

static marea_status polygamma_vjp (marea_vjp *v) { return times_polygamma(v, v->attr[0].i + 1); }

const marea_op marea_op_polygamma = {
    GAMMA(polygamma),
    .attrs = MAREA_ATTRS({"order", MAREA_INT, 0, NULL, "0 (digamma) to 100"}),
    .shape = polygamma_shape,
    .flop = polygamma_flop,
    .sample = "return {g.tensor(g.shape(0, 4), {lo = 0.4, hi = 6})}, {order = g.int(0, 3)}",
    .doc =
        "polygamma(x, order): the derivative of digamma of that order, digamma = (log Gamma)' being order 0; "
        "infinite at 0, NaN for x < 0. Gradient: dx = dy polygamma(x, order + 1). Error: order not in 0 to "
        "100.",
};
