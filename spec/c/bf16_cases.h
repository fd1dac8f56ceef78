/* SPDX-License-Identifier: MIT
** bf16_cases.h: products of bf16 against sums of the same operands in double. Included by kernels_test.c.
*/

#include "../../core/kernels/half.h"

typedef struct bf16_case {
  int64_t rows, cols, x_col, depth, n, taps;
  bool wide, accumulate;
  marea_activation act;
} bf16_case;

enum { BF16_X = 40000, BF16_W = 80000, BF16_Y = 40000 };

static uint16_t bf16_x[BF16_X], bf16_w[BF16_W], bf16_y[BF16_Y];
static float bf16_wide[BF16_Y], bf16_bias[200];

/* Element (tap, d, n) of packed weights */
static uint16_t *bf16_weight (const marea_bf16_product *g, int64_t tap, int64_t d, int64_t n) {
  return (uint16_t *)g->w + n / MAREA_BF16_PANEL * g->w_panel + tap * g->w_tap +
         (d / 2 * MAREA_BF16_PANEL + n % MAREA_BF16_PANEL) * 2 + d % 2;
}

static void fill_bf16 (uint16_t *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = to_bf16((float)uniform(-2, 2));
}

static double bf16_reference (const marea_bf16_product *g, int64_t i, int64_t j, int64_t n, double *size) {
  double sum = g->bias ? (double)g->bias[n] : 0;
  *size = fabs(sum);
  for (int64_t t = 0; t < g->taps; t++)
    for (int64_t d = 0; d < g->depth; d++) {
      const double x = (double)from_bf16(g->x[i * g->x_row + j * g->x_col + g->tap[t] + d]);
      const double product = x * (double)from_bf16(*bf16_weight(g, t, d, n));
      sum += product;
      *size += fabs(product);
    }
  return sum;
}

/* Relative to the sum of the magnitudes of what is added up, `before` among it, before the rounding to bf16 */
static void compare_bf16 (const marea_bf16_product *g, int64_t i, int64_t j, int64_t n, double before) {
  const int64_t at = i * g->y_row + j * g->y_col + n;
  double size, want = bf16_reference(g, i, j, n, &size);
  size += fabs(before);
  if (g->act == MAREA_ACT_RELU) want = fmax(want, 0);
  if (g->act == MAREA_ACT_TANH) want = tanh(want);
  const double got = g->wide ? (double)bf16_wide[at] - before : (double)from_bf16(bf16_y[at]);
  const double rounding = g->wide ? 0 : fabs(want) * 0x1p-8;
  if (!(fabs(got - want) <= size * 1e-6 + rounding)) complain("bf16 product", "sum", got, want);
}

static void one_bf16_product (const marea_bf16_kernels *k, const marea_kernels *f32, const bf16_case *c) {
  int64_t tap[9];
  const int64_t panels = (c->n + MAREA_BF16_PANEL - 1) / MAREA_BF16_PANEL;
  for (int64_t t = 0; t < c->taps; t++) tap[t] = t * c->x_col / 2;
  marea_bf16_product g = {.x = bf16_x,
                          .w = bf16_w,
                          .y = c->wide ? (void *)bf16_wide : bf16_y,
                          .bias = bf16_bias,
                          .rows = c->rows,
                          .cols = c->cols,
                          .x_row = (c->cols + 1) * c->x_col,
                          .x_col = c->x_col,
                          .y_row = c->cols * (c->n + 3),
                          .y_col = c->n + 3,
                          .depth = c->depth,
                          .n = c->n,
                          .tap_rows = 1,
                          .taps = c->taps,
                          .tap_row = c->taps,
                          .tap = tap,
                          .w_tap = c->depth * MAREA_BF16_PANEL,
                          .w_panel = c->taps * c->depth * MAREA_BF16_PANEL,
                          .wide = c->wide,
                          .accumulate = c->accumulate,
                          .act = c->act,
                          .f32 = f32};
  if (c->accumulate) g.bias = NULL;
  fill_bf16(bf16_x, BF16_X);
  fill_bf16(bf16_w, panels * g.w_panel);
  for (int64_t t = 0; t < c->taps; t++)
    for (int64_t d = 0; d < c->depth; d++)
      for (int64_t n = c->n; n < panels * MAREA_BF16_PANEL; n++) *bf16_weight(&g, t, d, n) = 0;
  for (int i = 0; i < 200; i++) bf16_bias[i] = (float)uniform(-1, 1);
  for (int i = 0; i < BF16_Y; i++) bf16_y[i] = 0x7fc0, bf16_wide[i] = 0.5f;
  k->product(&g);
  for (int64_t i = 0; i < c->rows; i++)
    for (int64_t j = 0; j < c->cols; j++) {
      const int64_t end = i * g.y_row + j * g.y_col + c->n;
      for (int64_t n = 0; n < c->n; n++) compare_bf16(&g, i, j, n, c->accumulate ? 0.5 : 0);
      if (bf16_y[end] != 0x7fc0 || bf16_wide[end] != 0.5f) complain("bf16 product", "writes behind n", 1, 0);
    }
}

static void check_bf16 (const marea_bf16_kernels *k, const marea_kernels *f32) {
  static const int64_t cols[] = {1, 2, 5, 13, 14, 15, 16, 17, 28, 29, 33},
                       depths[] = {2, 8, 16, 30, 32, 48, 64, 96};
  static const int64_t ns[] = {1, 7, 16, 17, 32, 33, 64, 100};
  for (int i = 0; i < 11 * 8 * 8; i++) {
    const bool wide = i % 3 == 0;
    const bf16_case c = {1 + i % 3,
                         cols[i % 11],
                         depths[i / 88] + i % 5,
                         depths[i / 88],
                         ns[i / 11 % 8],
                         1 + i % 4,
                         wide,
                         wide && i % 2 == 0,
                         wide && i % 2 == 0 ? MAREA_ACT_NONE
                         : i % 4 == 1       ? MAREA_ACT_RELU
                         : i % 4 == 2       ? MAREA_ACT_TANH
                                            : MAREA_ACT_NONE};
    one_bf16_product(k, f32, &c);
  }
  end_group("products of bf16");
}

/* Normalization of rows of bf16, where there are kernels for it; row m of `r` is a number for each channel. */
enum { NORM_MEAN, NORM_FACTOR, NORM_OFFSET, NORM_A, NORM_B, NORM_C, NORM_SUM, NORM_SQUARES, NORM_NUMBERS };

static void compare_norm (const char *kernel, double got, double want, double allowed) {
  if (!(fabs(got - want) <= allowed)) complain("bf16 normalization", kernel, got, want);
}

static void compare_norm_rows (const char *kernel, const marea_bf16_rows *r, const double *want) {
  for (size_t i = 0; i < r->rows * r->step; i++) {
    const double got = (double)from_bf16(r->to[i]);
    if (i % r->step < r->width) compare_norm(kernel, got, want[i], fabs(want[i]) * 0x1p-8 + 1e-5);
    else if (r->to[i] != 0x7fc0) complain("bf16 normalization", "writes behind a row", got, 0);
  }
}

static void one_bf16_norm (const marea_kernels *k, size_t rows, size_t width, size_t step, bool relu) {
  static float r[NORM_NUMBERS][100];
  static double y[BF16_Y], dx[BF16_Y];
  double sums[4][100] = {{0}};
  for (int m = 0; m < NORM_NUMBERS; m++)
    for (int j = 0; j < 100; j++) r[m][j] = (float)uniform(-1, 1);
  fill_bf16(bf16_x, BF16_X);
  fill_bf16(bf16_w, BF16_X);
  const marea_bf16_rows g = {rows,      width,        step,           bf16_x,          bf16_w,
                             bf16_y,    r[NORM_MEAN], r[NORM_FACTOR], r[NORM_OFFSET],  r[NORM_A],
                             r[NORM_B], r[NORM_C],    r[NORM_SUM],    r[NORM_SQUARES], relu};
  for (size_t j = 0; j < width; j++)
    for (size_t i = 0; i < rows; i++) {
      const size_t at = i * step + j;
      const double d = (double)from_bf16(bf16_x[at]) - (double)r[NORM_MEAN][j];
      const double z = d * (double)r[NORM_FACTOR][j] + (double)r[NORM_OFFSET][j];
      const double e = relu && z <= 0 ? 0 : (double)from_bf16(bf16_w[at]);
      y[at] = relu ? fmax(z, 0) : z;
      dx[at] = (double)r[NORM_A][j] * e + (double)r[NORM_B][j] * d + (double)r[NORM_C][j];
      sums[0][j] += d, sums[1][j] += d * d, sums[2][j] += e, sums[3][j] += e * d;
    }
  for (int i = 0; i < BF16_Y; i++) bf16_y[i] = 0x7fc0;
  k->bf16_normalize(&g);
  compare_norm_rows("normalize", &g, y);
  k->bf16_norm_grad(&g);
  compare_norm_rows("norm_grad", &g, dx);
  for (int pass = 0; pass < 2; pass++) {
    const float before = 0.5f, behind[] = {r[NORM_SUM][width], r[NORM_SQUARES][width]};
    for (size_t j = 0; j < width; j++) r[NORM_SUM][j] = r[NORM_SQUARES][j] = before;
    if (pass == 0) k->bf16_norm_moments(&g);
    else k->bf16_norm_sums(&g);
    for (size_t j = 0; j < width; j++) {
      compare_norm(pass ? "norm_sums" : "norm_moments", (double)r[NORM_SUM][j], 0.5 + sums[2 * pass][j],
                   1e-4);
      compare_norm(pass ? "norm_sums" : "norm_moments", (double)r[NORM_SQUARES][j],
                   0.5 + sums[2 * pass + 1][j], 1e-4);
    }
    if (r[NORM_SUM][width] != behind[0] || r[NORM_SQUARES][width] != behind[1])
      complain("bf16 normalization", "adds behind the last channel", 1, 0);
  }
}

static void check_bf16_norm (const marea_kernels *k) {
  for (int i = 0; i < 400 && k->bf16_normalize; i++) {
    const size_t width = 1 + (size_t)below(98);
    one_bf16_norm(k, (size_t)below(50), width, width + (i % 2 ? (size_t)below(5) : 0), i % 4 < 2);
  }
  end_group("normalization of bf16");
}
