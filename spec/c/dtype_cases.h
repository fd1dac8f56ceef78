/* SPDX-License-Identifier: MIT
** dtype_cases.h: part of kernels_test.c: the kernels of integers, and those between f32 and bf16 or f16, for a sample of
** all floats against rounding in double.
*/
/* x in a binary format with so many fraction bits, whose exponents are least .. most: to nearest even. */
static double rounded (double x, int fraction, int least, int most) {
  int exponent;
  if (x == 0 || !isfinite(x)) return x;
  frexp(x, &exponent); /* 0.5 <= |x| / 2^exponent < 1 */
  const double unit = ldexp(1, (exponent - 1 < least ? least : exponent - 1) - fraction);
  const double y = nearbyint(x / unit) * unit;
  return fabs(y) < ldexp(1, most + 1) ? y : copysign(INFINITY, x);
}

static void check_half (const char *name, void (*widen)(size_t, const uint16_t *, float *),
                        void (*narrow)(size_t, const float *, uint16_t *), int fraction, int least, int most) {
  float x[BATCH], back[BATCH];
  uint16_t half[BATCH], again[BATCH];
  for (int64_t batch = 0; arguments(batch, x); batch++) {
    const size_t n = batch % 5 == 0 ? BATCH : (size_t)(BATCH - batch % 41);
    narrow(n, x, half);
    widen(n, half, back);
    narrow(n, back, again);
    for (size_t i = 0; i < n; i++) {
      const double wanted = rounded((double)x[i], fraction, least, most);
      const bool right = isnan(x[i]) ? isnan(back[i]) : back[i] == wanted && !signbit(back[i]) == !signbit(x[i]);
      if (!right || again[i] != half[i]) complain("narrowed", name, (double)back[i], wanted);
    }
  }
}

static void check_halves (const marea_kernels *k) {
  check_half("bf16", k->widen_bf16, k->narrow_bf16, 7, -126, 127);
  check_half("f16", k->widen_f16, k->narrow_f16, 10, -14, 15);
  end_group("bf16 and f16");
}

static void check_integers (const marea_kernels *i64, const marea_kernels *u8) {
  int64_t a[5] = {-3, 0, 7, INT64_MIN, INT64_MAX}, b[5] = {2, 0, -9, -1, 1}, y[5];
  uint8_t c[4] = {0, 1, 200, 255}, d[4] = {1, 1, 100, 255}, z[4];
#define WANT(name, got, wanted) \
  if ((got) != (wanted)) complain("value", name, (double)(got), (double)(wanted))
  i64->add(5, a, 1, b, 1, y, NULL);
  WANT("add", y[0], -1);
  WANT("add", y[4], INT64_MIN);
  i64->mul(5, a, 1, b, 0, y, NULL);
  WANT("mul", y[2], 14);
  i64->sign(5, a, y, NULL);
  WANT("sign", y[0] * 100 + y[1] * 10 + y[2], -99);
  i64->clamp(5, a, y, (const double *)(const int64_t[]){-2, INT64_MAX});
  WANT("clamp", y[0], -2);
  WANT("clamp", y[4], INT64_MAX);
  i64->maximum(5, a, 1, b, 1, y, NULL);
  WANT("maximum", y[2], 7);
  u8->sub(4, c, 1, d, 1, z, NULL);
  WANT("sub", z[0], 255);
  u8->lt(4, c, 1, d, 1, z, NULL);
  WANT("lt", z[0] * 8 + z[1] * 4 + z[2] * 2 + z[3], 8);
  u8->abs(4, c, z, NULL);
  WANT("abs", z[3], 255);
  u8->where(4, d, 0, c, 1, d, 1, z, NULL);
  WANT("where", z[2], 200);
  i64->remainder(5, a, 1, b, 1, y, NULL);
  for (int i = 0; i < 5; i++) WANT("remainder", y[i], ((int64_t[]){1, 0, -2, 0, 0})[i]);
  i64->floor_divide(5, a, 1, b, 1, y, NULL);
  for (int i = 0; i < 5; i++) WANT("floor_divide", y[i], ((int64_t[]){-2, 0, -1, INT64_MIN, INT64_MAX})[i]);
  u8->remainder(4, d, 0, d, 1, z, NULL);
  WANT("remainder", z[2], 1);
  u8->floor_divide(4, c, 1, d, 1, z, NULL);
  for (int i = 0; i < 4; i++) WANT("floor_divide", z[i], ((uint8_t[]){0, 1, 2, 1})[i]);
  u8->is_finite(4, c, z, NULL);
  i64->is_nan(3, a, z, NULL);
  WANT("tests", z[0] * 8 + z[1] * 4 + z[2] * 2 + z[3], 1);
  end_group("integers");
}
