/* SPDX-License-Identifier: MIT
** int8_cases.h: products of bytes against plain loops. Included by kernels_test.c.
*/

enum { INT8_X = 20000, INT8_W = 60000 };

static uint8_t int8_x[INT8_X];
static int8_t int8_w[INT8_W];

/* A generator of its own, so that other tests keep their numbers. */
static double int8_uniform (double low, double high) {
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return low + (high - low) * (double)(state >> 8) / 16777216;
}

static void fill_int8 (bool extreme) {
  for (int i = 0; i < INT8_X; i++) int8_x[i] = (uint8_t)(extreme ? 255 : int8_uniform(0, 256));
  for (int i = 0; i < INT8_W; i++)
    int8_w[i] = (int8_t)(extreme ? i / 64 % 2 ? -127 : 127 : int8_uniform(-127, 128));
}

static int64_t int8_reference (const marea_int8_sums *g, int64_t place, int64_t n) {
  const int8_t *w = g->w + n / MAREA_INT8_PANEL * g->w_panel + n % MAREA_INT8_PANEL * 4;
  int64_t sum = 0;
  for (int64_t t = 0; t < g->taps; t++)
    for (int64_t d = 0; d < g->depth; d++)
      sum += g->x[place * g->x_col + g->tap[t] + d] *
             w[(t * g->depth + d) / 4 * 4 * MAREA_INT8_PANEL + d % 4];
  return sum;
}

static void one_int8_case (marea_int8_kernel *kernel, int64_t places, int64_t depth, int64_t taps,
                           bool single) {
  int32_t sum[(MAREA_INT8_PLACES + 1) * MAREA_INT8_COLUMNS];
  int64_t tap[9];
  for (int64_t t = 0; t < taps; t++) tap[t] = t * (depth + 3);
  marea_int8_sums g = {.x = int8_x,
                       .w = int8_w,
                       .sum = sum,
                       .tap = tap,
                       .places = places,
                       .x_col = depth + 5,
                       .taps = taps,
                       .w_panel = single ? 0 : taps * depth * MAREA_INT8_PANEL + 64,
                       .depth = depth};
  for (int i = 0; i < MAREA_INT8_COLUMNS; i++) sum[places * MAREA_INT8_COLUMNS + i] = 12345;
  for (int i = 0; i < 2; i++) kernel(&g);
  g.places = 0;
  kernel(&g);
  for (int64_t i = 0; i < places; i++)
    for (int64_t n = 0; n < MAREA_INT8_COLUMNS; n++) {
      const int64_t want = int8_reference(&g, i, n), got = sum[i * MAREA_INT8_COLUMNS + n];
      if (got != want) complain("int8 sums", "sum", (double)got, (double)want);
    }
  for (int i = 0; i < MAREA_INT8_COLUMNS; i++)
    if (sum[places * MAREA_INT8_COLUMNS + i] != 12345) complain("int8 sums", "writes behind places", 1, 0);
}

/* Floats to bytes and back, of n elements: the nearest step; and nothing is written behind them. */
static void one_int8_row (const marea_kernels *f32, size_t n) {
  float x[100], y[100], scale[100], bias[100];
  int32_t sum[MAREA_INT8_COLUMNS], column[MAREA_INT8_COLUMNS];
  uint8_t bytes[101];
  const float factor[] = {0.5f};
  const int32_t zero[] = {7};
  for (size_t i = 0; i < 100; i++)
    x[i] = (float)int8_uniform(-3, 3), scale[i] = (float)int8_uniform(0, 1), bias[i] = (float)i;
  memset(bytes, 99, sizeof bytes);
  f32->int8_quantize(n, x, 50, 130, bytes);
  for (size_t i = 0; i < n; i++) {
    const float want = fminf(fmaxf(x[i] * 50 + 130, 0), 255);
    if (fabsf((float)bytes[i] - want) > 0.5f) complain("int8_quantize", "byte", bytes[i], (double)want);
  }
  if (bytes[n] != 99) complain("int8_quantize", "writes behind n", 1, 0);
  if (n > MAREA_INT8_COLUMNS) return;
  for (int i = 0; i < MAREA_INT8_COLUMNS; i++) sum[i] = i * 1000 - 5000, column[i] = 100 - i;
  y[n] = 99;
  f32->int8_finish(1, n, sum, column, factor, zero, scale, n % 2 ? bias : NULL, 0, 0, n, y);
  for (size_t i = 0; i < n; i++) {
    const float want = fmaxf((float)(sum[i] - 7 * column[i]) * (0.5f * scale[i]) + (n % 2 ? bias[i] : 0), 0);
    if (y[i] != want) complain("int8_finish", "number", (double)y[i], (double)want);
  }
  if (y[n] != 99) complain("int8_finish", "writes behind n", 1, 0);
}

/* Two rows of n, the step 40, added to what is there. */
static void one_int8_sum (const marea_kernels *f32, size_t n) {
  float y[80], before[80], scale[MAREA_INT8_COLUMNS];
  int32_t sum[2 * MAREA_INT8_COLUMNS], column[MAREA_INT8_COLUMNS];
  const float factor[] = {0.5f, 2};
  const int32_t zero[] = {7, 3};
  for (int i = 0; i < 80; i++) before[i] = y[i] = (float)int8_uniform(-3, 3);
  for (int i = 0; i < 2 * MAREA_INT8_COLUMNS; i++) sum[i] = i * 1000 - 5000;
  for (int i = 0; i < MAREA_INT8_COLUMNS; i++) column[i] = 100 - i, scale[i] = (float)int8_uniform(0, 1);
  f32->int8_finish(2, n, sum, column, factor, zero, scale, y, 40, -INFINITY, 40, y);
  for (int i = 0; i < 80; i++) {
    const int row = i / 40, j = i % 40;
    const float number = (float)(sum[row * MAREA_INT8_COLUMNS + j % MAREA_INT8_COLUMNS] -
                                 zero[row] * column[j % MAREA_INT8_COLUMNS]);
    const float want = (size_t)j < n ? number * (factor[row] * scale[j % MAREA_INT8_COLUMNS]) + before[i]
                                     : before[i];
    if (y[i] != want) complain("int8_finish", "sum", (double)y[i], (double)want);
  }
}

static void check_int8 (marea_int8_kernel *kernel, const marea_kernels *f32) {
  static const int64_t depths[] = {4, 8, 60, 64, 72, 128};
  for (int64_t places = 1; places <= MAREA_INT8_PLACES; places++)
    for (int d = 0; d < 6; d++) {
      fill_int8(places % 7 == 0);
      one_int8_case(kernel, places, depths[d], 1 + (places + d) % 4, places % 3 == 0);
    }
  for (size_t n = 0; n < 100; n++) one_int8_row(f32, n), one_int8_sum(f32, n % (MAREA_INT8_COLUMNS + 1));
  end_group("products of bytes");
}
