/* SPDX-License-Identifier: MIT
** random_noise.c: numbers of standard distributions by inversion: y = loc + scale F^-1(u), u uniform in the
** open interval (0, 1). F^-1 is computed in double from 52 random bits, so it is finite for every draw and f32
** has the tails that a 24-bit u would cut off.
*/
#include "draw.h"

/* The middles of 2^52 equal parts of (0, 1): exact, never 0 or 1. */
static double open_unit (const uint32_t *word) { return ((double)(word64(word) >> 12) + 0.5) * 0x1p-52; }

static double gumbel_icdf (double u) { return -log(-log(u)); }

static double logistic_icdf (double u) { return log(u / (1 - u)); }

static double laplace_icdf (double u) { return u < 0.5 ? log(2 * u) : -log(2 * (1 - u)); }

typedef struct inversion {
  draw d; /* p + q icdf(u) */
  double (*icdf)(double u);
} inversion;

static void inversion_block (void *arg, int64_t block, int worker) {
  const inversion *v = arg;
  const draw *d = &v->d;
  (void)worker;
  EACH_PAIR(d, block, i) {
    uint32_t word[4];
    marea_philox(d->seed, d->counter + (uint64_t)i / 2, word);
    store(d, i, d->p + d->q * v->icdf(open_unit(word)));
    if (i + 1 < last_) store(d, i + 1, d->p + d->q * v->icdf(open_unit(word + 2)));
  }
}

enum { NOISE_SHAPE, NOISE_LOC, NOISE_SCALE, NOISE_DTYPE }; /* ORDER of attributes */

static marea_status noise_shape (marea_call *c) {
  if (!(c->attr[NOISE_SCALE].f >= 0))
    return marea_reject(c, MAREA_EARG, "argument 'scale': expected 0 or more, got %g",
                        c->attr[NOISE_SCALE].f);
  return shape_of_floats(c, NOISE_SHAPE, NOISE_DTYPE);
}

static marea_status invert (marea_call *c, double (*icdf)(double u)) {
  inversion v = {.d = draw_of(c), .icdf = icdf};
  v.d.p = c->attr[NOISE_LOC].f;
  v.d.q = c->attr[NOISE_SCALE].f;
  if (v.d.n > 0) marea_parallel(c->ctx, (v.d.n - 1) / v.d.step + 1, inversion_block, &v);
  return MAREA_OK;
}

#define NOISE(op)                                                                               \
  .name = #op, .family = "random", .flags = MAREA_RANDOM | MAREA_NO_GRAD, .shape = noise_shape, \
  .forward = op##_forward, .draws = pair_draws,                                                 \
  .attrs = MAREA_ATTRS({"shape", MAREA_SIZES, MAREA_REQUIRED, NULL, "sizes of the result"},     \
                       {"loc", MAREA_REAL, 0, NULL, "location, added"},                         \
                       {"scale", MAREA_REAL, 1, NULL, "factor, at least 0"},                    \
                       {"dtype", MAREA_DTYPE, MAREA_F32, NULL, "f32 or f64"}),                  \
  .sample = "return {}, {shape = g.shape(0, 4), loc = g.real(-2, 2), scale = g.real(0, 2)}"

static marea_status gumbel_forward (marea_call *c) { return invert(c, gumbel_icdf); }

const marea_op marea_op_gumbel = {
    NOISE(gumbel),
    .doc =
        "loc + scale (-log(-log u)), u uniform in (0, 1): numbers of the Gumbel distribution, finite. The "
        "index of the largest of logits + gumbel is a draw of softmax(logits). No gradient. Errors: scale < "
        "0, a dtype that is not real.",
};

static marea_status logistic_forward (marea_call *c) { return invert(c, logistic_icdf); }

const marea_op marea_op_logistic = {
    NOISE(logistic),
    .doc =
        "loc + scale log(u / (1 - u)), u uniform in (0, 1): numbers of the logistic distribution, finite. No "
        "gradient. Errors: scale < 0, a dtype that is not real.",
};

static marea_status laplace_forward (marea_call *c) { return invert(c, laplace_icdf); }

const marea_op marea_op_laplace = {
    NOISE(laplace),
    .doc =
        "loc + scale log(2 u) for u < 1/2, loc - scale log(2 (1 - u)) else, u uniform in (0, 1): numbers of "
        "the Laplace distribution, finite. No gradient. Errors: scale < 0, a dtype that is not real.",
};
