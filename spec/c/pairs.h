/* SPDX-License-Identifier: MIT
** pairs.h: of kernels_test.c, powers and remainders of pairs of edges and of any bits, and the tests for NaN and infinity.
*/
/* Arguments of pow: any bits, bases near 1 with large exponents, whole exponents, and pairs of edges. */
static void pow_arguments (int batch, float *x, float *y) {
  static const float special[] = {0.0f,   -0.0f,    1.0f,        -1.0f,        2.0f,       -2.0f,
                                  3.0f,   0.5f,     -0.5f,       INFINITY,     -INFINITY,  NAN,
                                  1e-45f, -FLT_MAX, 16777215.0f, -16777216.0f, -3.0f,      1e30f,
                                  0.99f,  -1.5f,    1.01f,       8388607.0f,   8388607.5f, -1e-30f};
  const size_t n = sizeof special / sizeof *special;
  for (int i = 0; i < BATCH; i++) {
    uint32_t bits[2] = {word(), word()};
    memcpy(&x[i], &bits[0], 4);
    memcpy(&y[i], &bits[1], 4);
    if (batch % 4 == 1) x[i] = (float)exp(uniform(-1, 1)), y[i] = (float)uniform(-200, 200);
    if (batch % 4 == 2) y[i] = (float)(below(40) - 20);
    if (batch % 4 == 3) x[i] = 1 + (float)(uniform(-1, 1) * 1e-5), y[i] = (float)uniform(-1e7, 1e7);
    if (batch == 0) x[i] = special[(size_t)i % n], y[i] = special[(size_t)i / n % n];
  }
}

static void check_pow (const marea_kernels *k) {
  float x[BATCH], y[BATCH], z[BATCH];
  for (int batch = 0; batch < 1000; batch++) {
    pow_arguments(batch, x, y);
    k->pow(BATCH, x, 1, y, 1, z, NULL);
    for (int i = 0; i < BATCH; i++) {
      double wanted = pow((double)x[i], (double)y[i]), error = ulps(z[i], wanted);
      bool sign = isnan(wanted) || !signbit(z[i]) == !signbit(wanted);
      if (error <= 2 && sign) continue;
      printf("    pow(%a, %a): %.3f ulp\n", (double)x[i], (double)y[i], error);
      complain("value", "pow", (double)z[i], wanted);
    }
  }
  end_group("pow in ulps");
}

/* Lua's %, which is exact but for the one rounding of fmod + b. */
static double remainder_wanted (double a, double b, bool wide) {
  double r = fmod(a, b);
  if (!((r > 0 && b < 0) || (r < 0 && b > 0))) return r;
  return wide ? r + b : (double)((float)r + (float)b);
}

/* Any bits; ratios of every size; equal numbers and whole ones, where signs of zero and quotients near integers are. */
static void remainder_arguments (int batch, bool wide, double *a, double *b) {
  static const double special[] = {0.0,  -0.0,     1.0,       -1.0, 3.0,   -3.0, 0.1,
                                   -0.1, INFINITY, -INFINITY, NAN,  1e-45, 3e38, -3e38};
  const size_t n = sizeof special / sizeof *special;
  const int most = wide ? 1000 : 120;
  for (int i = 0; i < BATCH; i++) {
    if (batch % 4 == 0) a[i] = special[(size_t)i % n], b[i] = special[(size_t)i / n % n];
    if (batch % 4 == 1)
      a[i] = ldexp(uniform(-2, 2), below(2 * most) - most),
      b[i] = ldexp(uniform(-2, 2), below(2 * most) - most);
    if (batch % 4 == 2) b[i] = uniform(-3, 3), a[i] = b[i] * (below(200) - 100) * (below(2) ? 1 : 1 + 1e-7);
    if (batch % 4 == 3) a[i] = uniform(-1e6, 1e6), b[i] = floor(uniform(-9, 9));
    if (!wide) a[i] = (double)(float)a[i], b[i] = (double)(float)b[i];
  }
}

static void check_remainder (const marea_kernels *k, bool wide) {
  double a[BATCH], b[BATCH], y[BATCH];
  float a4[BATCH], b4[BATCH], y4[BATCH];
  for (int batch = 0; batch < 400; batch++) {
    remainder_arguments(batch, wide, a, b);
    for (int i = 0; i < BATCH; i++) a4[i] = (float)a[i], b4[i] = (float)b[i];
    if (wide) k->remainder(BATCH, a, 1, b, 1, y, NULL);
    else k->remainder(BATCH, a4, 1, b4, 1, y4, NULL);
    for (int i = 0; i < BATCH; i++) {
      const double wanted = remainder_wanted(a[i], b[i], wide), got = wide ? y[i] : (double)y4[i];
      if (isnan(wanted) ? isnan(got) : got == wanted && !signbit(got) == !signbit(wanted)) continue;
      printf("    remainder(%a, %a)\n", a[i], b[i]);
      complain("value", "remainder", got, wanted);
    }
  }
  end_group(wide ? "remainder f64" : "remainder f32");
}

static void check_tests (const marea_kernels *k, bool wide) {
  static const double value[] = {0.0, -0.0, 1.0, -1e30, 1e-45, INFINITY, -INFINITY, NAN, -NAN};
  double x[MAX_N];
  float x4[MAX_N];
  uint8_t y[MAX_N + 1];
  for (int n = 0; n < MAX_N; n++) {
    for (int i = 0; i < n; i++) x[i] = value[below(9)], x4[i] = (float)x[i];
#define T(name, expected)                                            \
  y[n] = 77;                                                         \
  k->name((size_t)n, wide ? (void *)x : x4, y, NULL);                \
  if (y[n] != 77) complain("wrote beyond the end", #name, y[n], 77); \
  for (int i = 0; i < n; i++)                                        \
    if (y[i] != (expected)) complain("value", #name, y[i], expected);
    T(is_nan, x[i] != x[i])
    T(is_inf, x[i] == INFINITY || x[i] == -INFINITY)
    T(is_finite, x[i] == x[i] && fabs(x[i]) < INFINITY)
#undef T
  }
  end_group(wide ? "tests f64" : "tests f32");
}
