/* SPDX-License-Identifier: MIT
** reduction_cases.h: sums, extremes and exponentials against plain loops, for kernels_test.c.
*/
#include <float.h>

static void check_reductions (const marea_kernels *k, bool wide) {
  const double least = wide ? DBL_MIN : FLT_MIN;
  numbers x, y;
  for (int round = 0; round < 1000; round++) {
    int n = below(MAX_N);
    double sum = 0, dot = 0, e = 0, prod = 1, high = -INFINITY, low = INFINITY;
    double tolerance = wide ? 1e-12 : 1e-4;
    place(&x, wide);
    place(&y, wide);
    fill(&x, n, -2, 2);
    fill(&y, n, -2, 2);
    if (n && round % 10 == 0) set(&x, below(n), NAN);
    for (int i = 0; i < n; i++) {
      double a = get(&x, i);
      sum += a, dot += a * get(&y, i), e += exp(a - 1), prod *= a;
      high = isnan(a) || isnan(high) ? NAN : fmax(high, a);
      low = isnan(a) || isnan(low) ? NAN : fmin(low, a);
    }
#define NEAR(name, got, wanted)                                             \
  if (isnan(wanted) ? !isnan(got) : !(fabs((got) - (wanted)) <= tolerance)) \
  complain("value", name, got, wanted)
    NEAR("sum", k->sum((size_t)n, x.start), sum);
    NEAR("dot", k->dot((size_t)n, x.start, y.start), dot);
    NEAR("exp_sum", k->exp_sum((size_t)n, 1, x.start, NULL), e);
    NEAR("prod", k->prod((size_t)n, x.start), prod);
    if (n) NEAR("max", k->max((size_t)n, x.start), high);
    if (n) NEAR("min", k->min((size_t)n, x.start), low);
    double a0 = n ? get(&x, 0) : 0, b0 = n ? get(&y, 0) : 0;
    k->axpy((size_t)n, 0.5, x.start, y.start);
    if (n) expect("axpy", &y, 0, 0.5 * a0 + b0, 4);
    k->scale((size_t)n, 0.5, x.start, y.start);
    if (n) expect("scale", &y, n - 1, 0.5 * get(&x, n - 1), 4);
    NEAR("exp_sum", k->exp_sum((size_t)n, 1, x.start, y.start), e);
    for (int i = 0; i < n; i++) expect("exp_sum", &y, i, exp(get(&x, i) - 1), 4);
    for (int i = 0; i < n; i++) set(&x, i, get(&y, i));
    k->scale_normal((size_t)n, -least, y.start, y.start);
    for (int i = 0; i < n; i++)
      expect("scale_normal", &y, i, get(&x, i) < 1 ? 0 : -least * get(&x, i), least * 1e-9);
    NEAR("exp_sum", k->exp_sum((size_t)n, 800, x.start, y.start), e * 0);
    for (int i = 0; i < n; i++) expect("exp_sum", &y, i, get(&x, i) * 0, 0);
    if (get(&y, n) != GUARD)
      complain("wrote beyond the end", "axpy, scale, scale_normal, exp_sum", get(&y, n), GUARD);
  }
  end_group(wide ? "reductions f64" : "reductions f32");
}
