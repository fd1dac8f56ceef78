/* SPDX-License-Identifier: MIT
** gemv_bf16.c: a row times a matrix of bf16. It takes the time in which the matrix is read, so that nothing is packed: its
** elements become f32 as they come.
*/
#include <string.h>

#include "core.h"

#define LEAST 256 /* columns of a block */
#define MOST \
  4096 /* and the most: 8 KB of each row of B in one piece, and 16 KB of sums in a first-level cache */
#define CHECKED 4096 /* rows of B between two checks for interrupts: 4 MB, some 0.5 ms */

typedef struct job {
  marea_context *ctx;
  const marea_bf16_gemm *g;
  const marea_kernels *f32;
  float *x, *bias, *sums; /* (k), (n) or NULL, (n) */
  int64_t columns;        /* of a block */
} job;

static void multiply (const job *j, int64_t first, int64_t n) {
  const marea_bf16_gemm *g = j->g;
  const uint16_t *w = (const uint16_t *)g->b.at + (g->tb ? first * g->b.step : first);
  float *y = j->sums + first;
  memset(y, 0, (size_t)n * sizeof *y);
  const bool turned = g->tb || (g->n == 1 && g->b.step == 1);
  for (int64_t i = 0; turned && i < n && !marea_stopping(j->ctx); i++)
    y[i] = j->f32->bf16_dot((size_t)g->k, w + i * g->b.step, j->x);
  for (int64_t d = 0; !turned && d < g->k && !marea_stopping(j->ctx); d += CHECKED)
    j->f32->bf16_add_scaled((size_t)MAREA_MIN(CHECKED, g->k - d), (size_t)n, (size_t)g->b.step,
                            w + d * g->b.step, j->x + d, y);
}

static void run_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  const marea_bf16_gemm *g = j->g;
  const int64_t first = block * j->columns, n = MAREA_MIN(j->columns, g->n - first);
  float *y = j->sums + first, *wide = (float *)g->c + first;
  (void)worker;
  multiply(j, first, n);
  j->f32->bias_act(1, (size_t)n, j->bias ? j->bias + first : NULL, g->end.act, g->end.slope, y);
  if (!g->wide) j->f32->narrow_bf16((size_t)n, y, (uint16_t *)g->c + first);
  else if (g->add) j->f32->add((size_t)n, wide, 1, y, 1, wide, NULL);
  else memcpy(wide, y, (size_t)n * sizeof *y);
}

/* x := A rounded to bf16, whose elements may lie apart. */
static void load_row (marea_context *ctx, const marea_bf16_gemm *g, float *x) {
  const int64_t step = g->ta ? g->a.step : 1;
  uint16_t some[LEAST];
  for (int64_t d = 0; d < g->k && !marea_stopping(ctx); d += LEAST) {
    const int64_t n = MAREA_MIN(LEAST, g->k - d);
    const char *from = (const char *)g->a.at + (size_t)(d * step) * marea_element_size(g->a.dtype);
    marea_convert_run(ctx, n, g->a.dtype, from, step, MAREA_BF16, some, 1);
    ctx->kernels[MAREA_F32]->widen_bf16((size_t)n, some, x + d);
  }
}

/* A block for each thread, or more: of rows of B as long as possible, which memory gives faster, up to half as fast again.
   A sum is the same in any. */
static int64_t columns_of (const marea_bf16_gemm *g, int threads) {
  const int64_t part = ((g->n - 1) / threads / 64 + 1) * 64;
  return MAREA_MAX(LEAST, MAREA_MIN(part, MOST));
}

marea_status marea_gemv_bf16 (marea_context *ctx, const marea_bf16_gemm *g) {
  const int64_t columns = columns_of(g, ctx->threads);
  const size_t row = (size_t)g->n * sizeof(float);
  const size_t sizes[] = {(size_t)g->k * sizeof(float), row, g->end.bias ? row : 0};
  void *part[MAREA_COUNT(sizes)];
  char *memory;
  MAREA_TRY(marea_scratch(ctx, MAREA_COUNT(sizes), sizes, &memory, part));
  if (ctx->shape_only) return MAREA_OK;
  job j = {.ctx = ctx,
           .g = g,
           .f32 = ctx->kernels[MAREA_F32],
           .columns = columns,
           .x = part[0],
           .sums = part[1],
           .bias = part[2]};
  load_row(ctx, g, j.x);
  if (j.bias)
    marea_convert_run(ctx, g->n, g->wide ? MAREA_F32 : MAREA_BF16, g->end.bias, 1, MAREA_F32, j.bias, 1);
  marea_parallel(ctx, (g->n + columns - 1) / columns, run_block, &j);
  marea_free(ctx, memory);
  return MAREA_OK;
}
