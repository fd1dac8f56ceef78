/* SPDX-License-Identifier: MIT
** gemm_int8.c: products of bytes, whose sums are exact in int32. Every instruction set has the same sums.
*/
#include <math.h>
#include <string.h>

#include "core.h"

#define ROWS 256 /* of a block: of 1,024 terms a quarter of a second-level cache */
#define PANELS 8 /* of a block: half of that */

/* The range of n elements, 0 in it, is 255 steps. A row with a NaN or an infinity gets the factor NaN; one whose elements are
   all below some 3e-36, 0. */
static void quantize_row (const marea_kernels *f32, size_t n, const float *x, uint8_t *y, float *factor,
                          int32_t *zero) {
  const float high = n > 0 ? (float)f32->max(n, x) : 0, low = n > 0 ? (float)f32->min(n, x) : 0;
  const float step = (high > 0 ? high : 0) / 255 - (low < 0 ? low : 0) / 255;
  *factor = isfinite(high) && isfinite(low) ? step : NAN;
  *zero = 0;
  if (step >= 1.2e-38f && !isnan(*factor)) {
    *zero = low < 0 ? (int32_t)(0.5f - low / step) : 0;
    f32->int8_quantize(n, x, 1 / step, (float)*zero, y);
    return;
  }
  if (!isnan(*factor)) *factor = 0;
  memset(y, 0, n);
}

void marea_int8_quantize (const marea_kernels *f32, marea_range rows, const float *x, int64_t n,
                          const marea_int8_rows *to) {
  for (int64_t i = rows.first; i < rows.end; i++) {
    quantize_row(f32, (size_t)n, x + i * n, to->at + i * to->step, to->factor + i, to->zero + i);
    memset(to->at + i * to->step + n, 0, (size_t)(to->step - n));
  }
}

/* The sums of two panels' columns, which lie behind each. */
static void load_columns (const marea_int8_sums *g, int64_t bytes, int32_t *column) {
  const size_t size = MAREA_INT8_PANEL * sizeof *column;
  for (int i = 0; i < 2; i++)
    memcpy(column + i * MAREA_INT8_PANEL, g->w + i * g->w_panel + bytes - (int64_t)size, size);
}

/* Places `first` and on, as many as a call of the kernel takes. */
static void multiply_places (marea_context *ctx, const marea_int8_weight *w, const marea_int8_block *b,
                             int64_t first, marea_int8_sums *g, const int32_t *column, int64_t col) {
  const marea_kernels *f32 = ctx->kernels[MAREA_F32];
  const int64_t n = MAREA_MIN(MAREA_INT8_COLUMNS, w->n - col);
  float *y = b->y + first * b->y_col + col;
  const float *bias = b->add ? y : w->bias ? w->bias + col : NULL;
  g->places = MAREA_MIN(MAREA_INT8_PLACES, b->places - first);
  g->x = b->x + first * b->x_col;
  ctx->int8(g);
  f32->int8_finish((size_t)g->places, (size_t)n, g->sum, column, b->factor + first, b->zero + first,
                   w->scale + col, bias, b->add ? (size_t)b->y_col : 0,
                   w->act == MAREA_ACT_RELU ? 0 : -INFINITY, (size_t)b->y_col, y);
  if (w->act == MAREA_ACT_NONE || w->act == MAREA_ACT_RELU) return;
  for (int64_t i = 0; i < g->places; i++)
    f32->bias_act(1, (size_t)n, NULL, w->act, w->slope, y + i * b->y_col);
}

/* Nothing of the kernel's is left: what a host is asked for may use tiles of its own. */
static void end_sums (marea_context *ctx, marea_int8_sums *g) {
  g->places = 0;
  ctx->int8(g);
  g->height = 0;
}

#define BETWEEN_CHECKS (1 << 23) /* some ms in plain C */

void marea_int8_multiply (marea_context *ctx, const marea_int8_weight *w, const marea_int8_block *b) {
  int32_t sum[MAREA_INT8_PLACES * MAREA_INT8_COLUMNS] __attribute__((aligned(64))),
      column[MAREA_INT8_COLUMNS];
  const int64_t bytes = marea_int8_panel_bytes(w->taps, w->step);
  marea_int8_sums g = {.sum = sum,
                       .tap = b->tap,
                       .taps = w->step > 0 ? w->taps : 0,
                       .x_col = b->x_col,
                       .depth = w->step > 0 ? w->step : 4};
  int64_t left = 0; /* products until the next check for interrupts */
  for (int64_t p = b->panels.first; p < b->panels.end; p += 2) {
    g.w = w->at + p * bytes;
    g.w_panel = b->panels.end - p > 1 ? bytes : 0; /* a single one is computed twice */
    load_columns(&g, bytes, column);
    for (int64_t i = 0; i < b->places; i += MAREA_INT8_PLACES) {
      if (left <= 0) {
        end_sums(ctx, &g);
        if (marea_stopping(ctx)) return;
        left = BETWEEN_CHECKS;
      }
      multiply_places(ctx, w, b, i, &g, column, p * MAREA_INT8_PANEL);
      left -= g.places * MAREA_INT8_COLUMNS * g.taps * g.depth;
    }
  }
  end_sums(ctx, &g);
}

typedef struct job {
  marea_context *ctx;
  const marea_int8_rows *x;
  const marea_int8_weight *w;
  int64_t m, across; /* across: blocks of panels */
  float *y;
} job;

static void run_block (void *arg, int64_t block, int worker) {
  static const int64_t here = 0;
  const job *j = arg;
  const int64_t row = block / j->across * ROWS, panel = block % j->across * PANELS;
  const marea_int8_block b = {.x = j->x->at + row * j->x->step,
                              .factor = j->x->factor + row,
                              .zero = j->x->zero + row,
                              .y = j->y + row * j->w->n,
                              .places = MAREA_MIN(ROWS, j->m - row),
                              .x_col = j->x->step,
                              .y_col = j->w->n,
                              .tap = &here,
                              .panels = {panel, MAREA_MIN(panel + PANELS, marea_int8_panels(j->w->n))}};
  (void)worker;
  marea_int8_multiply(j->ctx, j->w, &b);
}

void marea_int8_product (marea_context *ctx, const marea_int8_rows *x, int64_t m, const marea_int8_weight *w,
                         float *y) {
  job j = {ctx, x, w, m, (marea_int8_panels(w->n) + PANELS - 1) / PANELS, y};
  marea_parallel(ctx, (m + ROWS - 1) / ROWS * j.across, run_block, &j);
}
