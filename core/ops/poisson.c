/* SPDX-License-Identifier: MIT
** poisson.c: numbers of the Poisson distribution, exact up to the rounding of double arithmetic.
**
** Every element owns one Philox block. Rates below 10 invert the distribution function with one uniform number;
** larger ones try proposals until one is accepted, each with numbers of a branch of the element's block: any number
** of tries, and the result still depends on nothing but seed, counter, place and rate.
*/
#include "draw.h"

#define LARGEST_RATE 0x1p53 /* numbers above it are not told apart in double */

/* The smallest k whose distribution function is above u. The sum ends where its terms no longer count. */
static double by_inversion (double rate, double u) {
  double k = 0, p = exp(-rate), sum = p;
  while (u >= sum && (k < rate || p > 0x1p-60)) {
    k += 1;
    p *= rate / k;
    sum += p;
  }
  return k;
}

/* log k! - (k + 1/2) log k + k - log(2 pi) / 2 for k >= 1: Stirling's series, the error itself for small k */
static double stirling_error (double k) {
  if (k < 16) {
    double factorial = 1;
    for (double i = 2; i <= k; i++) factorial *= i;
    return log(factorial) - (k + 0.5) * log(k) + k - 0.91893853320467274178;
  }
  const double z = 1 / (k * k);
  return (1 / 12.0 - z * (1 / 360.0 - z * (1 / 1260.0 - z / 1680))) / k;
}

/* log of exp(-rate) rate^k / k! by the distance of k from the rate, without the cancellation of large terms.
   Source: C. Loader, "Fast and accurate computation of binomial probabilities", 2000. */
static double log_mass (double k, double rate) {
  if (k == 0) return -rate;
  const double x = (k - rate) / rate;
  const double deviance = rate * ((1 + x) * log1p(x) - x);
  return -deviance - stirling_error(k) - 0.5 * log(2 * 3.14159265358979323846 * k);
}

/* PTRS. Source: W. Hoermann, "The transformed rejection method for generating Poisson random variables", Insurance:
   Mathematics and Economics 12, 1993. Accepts at least 3 of 4 tries. */
static double by_rejection (double rate, uint64_t seed, uint64_t counter) {
  const double b = 0.931 + 2.53 * sqrt(rate), a = -0.059 + 0.02483 * b;
  const double inverse_alpha = 1.1239 + 1.1328 / (b - 3.4), sure = 0.9277 - 3.6224 / (b - 2);
  for (uint32_t branch = 0;; branch++) {
    uint32_t word[4];
    marea_philox_branch(seed, counter, branch, word);
    const double u = unit(word64(word)) - 0.5, v = unit(word64(word + 2)), side = 0.5 - fabs(u);
    const double k = floor((2 * a / side + b) * u + rate + 0.43);
    if (side >= 0.07 && v <= sure) return k;
    if (k < 0 || (side < 0.013 && v > side)) continue;
    if (log(v * inverse_alpha / (a / (side * side) + b)) <= log_mass(k, rate)) return k;
  }
}

static void poisson_block (void *arg, int64_t block, int worker) {
  const draw *d = arg;
  const int64_t end = MAREA_MIN((block + 1) * d->step, d->n);
  (void)worker;
  for (int64_t i = block * d->step; i < end; i++) {
    const double rate = load(d, d->a, i);
    uint32_t word[4];
    if (rate >= 10) {
      store(d, i, by_rejection(rate, d->seed, d->counter + (uint64_t)i));
      continue;
    }
    marea_philox(d->seed, d->counter + (uint64_t)i, word);
    store(d, i, by_inversion(rate, unit(word64(word))));
  }
}

static marea_status poisson_forward (marea_call *c) {
  draw d = draw_of(c);
  d.a = marea_at(c->in[0]);
  for (int64_t i = 0; i < d.n && !MAREA_STOPPING(c->ctx, i); i++) {
    const double rate = load(&d, d.a, i);
    if (!(rate >= 0 && rate <= LARGEST_RATE))
      return marea_reject(c, MAREA_EARG, "argument 'rate': element %lld of %s is %g, expected 0 to 2^53",
                          (long long)i + c->ctx->config.index_base, marea_tensor_text(c->in[0]).s, rate);
  }
  return run_draw(c, &d, poisson_block);
}

const marea_op marea_op_poisson = {
    .name = "poisson",
    .family = "random",
    .doc =
        "A whole number k with probability exp(-rate) rate^k / k! for each element, in rate's shape and "
        "dtype (f32 rounds those above 2^24). No gradient. Error: a rate outside [0, 2^53], the first one is "
        "named.",
    .inputs = {{"rate", "(any shape) at least 0"}},
    .flags = MAREA_RANDOM | MAREA_NO_GRAD,
    .shape = marea_shape_same,
    .forward = poisson_forward,
    .draws = out_count,
    .sample = "return {g.tensor(g.shape(0, 4), {lo = 0, hi = 30})}",
};
