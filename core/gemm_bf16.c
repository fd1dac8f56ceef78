/* SPDX-License-Identifier: MIT
** gemm_bf16.c: dense products of bf16, summed in f32, and the packing of their operands.
**
** As in blas.c, C is cut into blocks by its shape alone, and a long k behind a small C into parts whose products are added up
** by a fixed tree. A block packs its columns of B, and of A what the kernel cannot read where it lies. Its k goes in
** pieces for which two panels of B stay in a first-level cache.
*/
#include <string.h>

#include "core.h"

#define SIDE 256       /* rows and columns of a block: 256 KB of packed B with DEPTH terms */
#define DEPTH 512      /* terms of a piece of k: 32 KB of two panels of B */
#define LEAST_BLOCKS 8 /* so many threads find work, if blocks stay larger than LEAST_WORK */
#define LEAST_WORK 4e6 /* multiply-adds: some 10 us at 400 a ns (AMX), 60 us at 64 (AVX-512) */
#define MOST_PARTS 16  /* of k, each of which has a product of its own */

/* ---- packing ---- */

/* `columns` of a panel from rows of pairs that lie along k. */
static void turn_panel (const marea_kernels *k, int64_t depth, int64_t columns, const uint16_t *w,
                        int64_t step, uint32_t *to) {
  const int64_t whole = step % 2 == 0 ? depth / 2 : 0;
  if (whole > 0) k->turn((size_t)columns, (size_t)whole, (size_t)(step / 2), w, MAREA_BF16_PANEL, to);
  for (int64_t d = 2 * whole; d < depth; d += 2)
    for (int64_t j = 0; j < columns; j++) {
      const uint16_t *pair = w + j * step + d;
      to[d / 2 * MAREA_BF16_PANEL + j] = pair[0] | (d + 1 < depth ? (uint32_t)pair[1] << 16 : 0);
    }
}

void marea_bf16_pack (const marea_kernels *k, int64_t depth, int64_t n, const uint16_t *w, int64_t step,
                      bool turned, uint16_t *to, int64_t panel) {
  for (int64_t j = 0; j < n; j += MAREA_BF16_PANEL, to += panel) {
    const int64_t columns = MAREA_MIN(MAREA_BF16_PANEL, n - j);
    uint32_t *pairs = (uint32_t *)(void *)to;
    if (columns < MAREA_BF16_PANEL)
      memset(to, 0, (size_t)(marea_even(depth) * MAREA_BF16_PANEL) * sizeof *to);
    if (turned) turn_panel(k, depth, columns, w + j * step, step, pairs);
    else k->bf16_pairs((size_t)depth, (size_t)columns, step, w + j, MAREA_BF16_PANEL, pairs);
  }
}

/* Up to 16 x 16 pairs at a time. */
void marea_bf16_pack_turned (const marea_kernels *k, int64_t depth, int64_t n, const uint16_t *x,
                             int64_t step, uint16_t *to, int64_t row) {
  uint32_t pairs[MAREA_BF16_PANEL * MAREA_BF16_PANEL];
  for (int64_t d = 0; d < depth; d += 2 * MAREA_BF16_PANEL)
    for (int64_t j = 0; j < n; j += MAREA_BF16_PANEL) {
      const int64_t rows = MAREA_MIN(depth - d, 2 * MAREA_BF16_PANEL),
                    columns = MAREA_MIN(n - j, MAREA_BF16_PANEL);
      k->bf16_pairs((size_t)rows, (size_t)columns, step, x + d * step + j, MAREA_BF16_PANEL, pairs);
      k->turn((size_t)(marea_even(rows) / 2), (size_t)columns, MAREA_BF16_PANEL, pairs, (size_t)(row / 2),
              to + j * row + d);
    }
}

/* ---- one block ---- */

typedef struct job {
  marea_context *ctx;
  const marea_bf16_gemm *g;
  int64_t m, n, k, parts; /* sides of a block; k: of a part */
  char *workspace;        /* of each worker */
  float *partial;         /* (parts, m, n) */
  const float *bias;      /* (n); NULL: none */
} job;

/* Rows and columns of C, and terms of k */
typedef struct block {
  int64_t row, m, col, n, depth, k;
  float *sums; /* (m, n) by steps sums_row, 1; NULL: goes to C at once */
  int64_t sums_row;
} block;

static int64_t parts_of (int64_t side, int64_t step) { return (side + step - 1) / step; }

static int64_t piece_of (int64_t k) { return MAREA_MIN(DEPTH, marea_bf16_whole(k)); }

/* Elements of a worker's packed B, packed A, operands in bf16, and of the sums, which are f32 */
static size_t packed_size (const job *j) {
  return (size_t)(piece_of(j->k) * (parts_of(j->n, MAREA_BF16_PANEL) * MAREA_BF16_PANEL));
}
static size_t rows_size (const job *j) { return (size_t)(piece_of(j->k) * j->m); }
static size_t narrow_size (const job *j) { return (size_t)(piece_of(j->k) * MAREA_MAX(j->m, j->n)); }

static size_t worker_bytes (const job *j) {
  const size_t halves = packed_size(j) + rows_size(j) + narrow_size(j);
  return marea_worker_step(halves * sizeof(uint16_t) + (size_t)(j->m * j->n) * sizeof(float));
}

/* The part of an operand from element (row, col) on as stored, in bf16: where it lies, or rounded into `to`. */
static const uint16_t *narrow (const job *j, const marea_bf16_operand *o, int64_t row, int64_t rows,
                               int64_t col, int64_t cols, uint16_t *to, int64_t *step) {
  *step = o->dtype == MAREA_BF16 ? o->step : cols;
  if (o->dtype == MAREA_BF16) return (const uint16_t *)o->at + row * o->step + col;
  const float *from = (const float *)o->at + row * o->step + col;
  for (int64_t i = 0; i < rows; i++)
    j->ctx->kernels[MAREA_F32]->narrow_bf16((size_t)cols, from + i * o->step, to + i * cols);
  return to;
}

/* Terms d .. d + k - 1 of the block's rows of A, each row's adjacent and as many as the kernel can read: *depth. */
static const uint16_t *rows_of_a (const job *j, const block *b, int64_t d, int64_t k, uint16_t *to,
                                  uint16_t *scratch, int64_t *row, int64_t *depth) {
  const marea_bf16_operand *a = &j->g->a;
  const marea_kernels *f32 = j->ctx->kernels[MAREA_F32];
  const bool narrows = a->dtype != MAREA_BF16;
  *depth = marea_bf16_depth(k);
  *row = *depth;
  if (j->g->ta) {
    int64_t step;
    const uint16_t *x = narrow(j, a, d, k, b->row, b->m, scratch, &step);
    marea_bf16_pack_turned(f32, k, b->m, x, step, to, *row);
  } else if (k == *depth && !narrows) {
    *row = a->step;
    return (const uint16_t *)a->at + b->row * a->step + d;
  }
  for (int64_t i = 0; i < b->m; i++) {
    const int64_t at = (b->row + i) * a->step + d;
    uint16_t *end = to + i * *row;
    if (!j->g->ta && narrows) f32->narrow_bf16((size_t)k, (const float *)a->at + at, end);
    else if (!j->g->ta) memcpy(end, (const uint16_t *)a->at + at, (size_t)k * sizeof *to);
    memset(end + k, 0, (size_t)(*row - k) * sizeof *to);
  }
  return to;
}

/* The panels of terms d .. d + k - 1 of the block's columns of B, with zeros up to `depth`. */
static void pack_b (const job *j, const block *b, int64_t d, int64_t k, int64_t depth, uint16_t *to,
                    uint16_t *scratch) {
  const marea_bf16_gemm *g = j->g;
  const int64_t panel = depth * MAREA_BF16_PANEL;
  int64_t step;
  const uint16_t *w = g->tb ? narrow(j, &g->b, b->col, b->n, d, k, scratch, &step)
                            : narrow(j, &g->b, d, k, b->col, b->n, scratch, &step);
  marea_bf16_pack(j->ctx->kernels[MAREA_F32], k, b->n, w, step, g->tb, to, panel);
  if (marea_even(k) == depth) return;
  for (int64_t i = 0; i < b->n; i += MAREA_BF16_PANEL, to += panel)
    memset(to + marea_even(k) * MAREA_BF16_PANEL, 0,
           (size_t)((depth - marea_even(k)) * MAREA_BF16_PANEL) * sizeof *to);
}

/* Writes the sums of a block to C. */
static void finish (const job *j, const block *b) {
  const marea_bf16_gemm *g = j->g;
  const marea_kernels *f32 = j->ctx->kernels[MAREA_F32];
  const float *bias = j->bias ? j->bias + b->col : NULL;
  for (int64_t i = 0; i < b->m; i++) {
    float *sums = b->sums + i * b->sums_row;
    const int64_t at = (b->row + i) * g->ldc + b->col;
    f32->bias_act(1, (size_t)b->n, bias, g->end.act, g->end.slope, sums);
    if (!g->wide) f32->narrow_bf16((size_t)b->n, sums, (uint16_t *)g->c + at);
    else if (g->add) f32->add((size_t)b->n, (float *)g->c + at, 1, sums, 1, (float *)g->c + at, NULL);
    else memcpy((float *)g->c + at, sums, (size_t)b->n * sizeof *sums);
  }
}

/* Terms d .. d + k - 1; with sums, added to them but for the first ones. */
static void multiply_piece (const job *j, const block *b, int64_t d, int64_t k, uint16_t *memory) {
  const marea_bf16_gemm *g = j->g;
  const size_t size = g->wide ? sizeof(float) : sizeof(uint16_t);
  uint16_t *panels = memory, *rows = panels + packed_size(j), *scratch = rows + rows_size(j);
  int64_t row, depth;
  const uint16_t *a = rows_of_a(j, b, b->depth + d, k, rows, scratch, &row, &depth);
  marea_bf16_product p = marea_bf16_matrix(j->ctx->kernels[MAREA_F32], b->m, depth, b->n, a, row, panels,
                                           depth * MAREA_BF16_PANEL);
  pack_b(j, b, b->depth + d, k, depth, panels, scratch);
  if (b->sums) {
    p.y = b->sums;
    p.y_col = b->sums_row;
    p.wide = true;
    p.accumulate = d > 0;
  } else {
    p.y = (char *)g->c + (size_t)(b->row * g->ldc + b->col) * size;
    p.y_col = g->ldc;
    p.wide = g->wide;
    p.accumulate = g->add;
    p.bias = j->bias ? j->bias + b->col : NULL;
    p.act = g->end.act;
    p.slope = g->end.slope;
  }
  j->ctx->bf16->product(&p);
}

static void multiply_block (const job *j, block *b, uint16_t *memory, bool finishes) {
  if (b->k > DEPTH && !b->sums) {
    b->sums = (float *)(void *)(memory + packed_size(j) + rows_size(j) + narrow_size(j));
    b->sums_row = b->n;
  }
  for (int64_t d = 0; d < b->k && !marea_stopping(j->ctx); d += DEPTH)
    multiply_piece(j, b, d, MAREA_MIN(DEPTH, b->k - d), memory);
  if (b->sums && finishes && !marea_stopping(j->ctx)) finish(j, b);
}

static void run_block (void *arg, int64_t index, int worker) {
  const job *j = arg;
  const marea_bf16_gemm *g = j->g;
  const int64_t cols = parts_of(g->n, j->n), rows = parts_of(g->m, j->m), part = index / (rows * cols);
  block b = {.row = index / cols % rows * j->m, .col = index % cols * j->n, .depth = part * j->k};
  b.m = MAREA_MIN(j->m, g->m - b.row);
  b.n = MAREA_MIN(j->n, g->n - b.col);
  b.k = MAREA_MIN(j->k, g->k - b.depth);
  if (j->parts > 1) {
    b.sums = j->partial + (part * g->m + b.row) * g->n + b.col;
    b.sums_row = g->n;
  }
  multiply_block(j, &b, (uint16_t *)(void *)(j->workspace + (size_t)worker * worker_bytes(j)), j->parts == 1);
}

/* ---- parts of k ---- */

/* Rows of the parts' products are added up, neighbours first, and written. */
static void add_parts (void *arg, int64_t row, int worker) {
  const job *j = arg;
  const marea_bf16_gemm *g = j->g;
  const block b = {.row = row, .m = 1, .n = g->n, .sums = j->partial + row * g->n};
  (void)worker;
  if (marea_stopping(j->ctx)) return;
  for (int64_t gap = 1; gap < j->parts; gap *= 2)
    for (int64_t part = 0; part + gap < j->parts; part += 2 * gap) {
      float *to = b.sums + part * g->m * g->n;
      j->ctx->kernels[MAREA_F32]->add((size_t)g->n, to, 1, to + gap * g->m * g->n, 1, to, NULL);
    }
  finish(j, &b);
}

/* ---- all blocks ---- */

/* The largest equal sides up to SIDE, halved while there are few blocks with work enough. */
static void choose_blocks (job *j) {
  const marea_bf16_gemm *g = j->g;
  j->m = parts_of(g->m, parts_of(g->m, SIDE));
  j->n = parts_of(parts_of(g->n, parts_of(g->n, SIDE)), 32) * 32;
  j->k = g->k;
  j->parts = 1;
  if (g->m * g->n <= SIDE * SIDE && g->k >= 8 * MAREA_MAX(g->m, g->n) && g->k >= 2 * DEPTH) {
    j->parts = MAREA_MIN(parts_of(g->k, DEPTH), MOST_PARTS);
    j->k = parts_of(parts_of(g->k, j->parts), MAREA_BF16_DEPTH) * MAREA_BF16_DEPTH;
    j->parts = parts_of(g->k, j->k);
    return;
  }
  while (parts_of(g->m, j->m) * parts_of(g->n, j->n) < LEAST_BLOCKS &&
         (double)j->m * (double)j->n * (double)j->k > 2 * LEAST_WORK) {
    if (j->n > j->m && j->n >= 64) j->n = parts_of(j->n / 2, 32) * 32;
    else j->m = parts_of(j->m, 2);
  }
}

/* An operand of f32 that several blocks read is rounded before the first one, all of it. */
typedef struct whole {
  const marea_kernels *f32;
  marea_bf16_operand *of; /* becomes what is made at `to` */
  int64_t rows, cols;     /* as stored */
  const float *from;
  int64_t step;
  uint16_t *to;
} whole;

#define ROWS 16 /* of a block */

static whole whole_of (const marea_context *ctx, marea_bf16_operand *o, bool turned, int64_t rows,
                       int64_t cols) {
  return (whole){
      ctx->kernels[MAREA_F32], o, turned ? cols : rows, turned ? rows : cols, o->at, o->step, NULL};
}

/* 0: it is read where it lies. */
static size_t whole_bytes (const whole *w, int64_t readers) {
  const size_t bytes = (size_t)(w->rows * marea_even(w->cols)) * sizeof(uint16_t);
  return w->of->dtype == MAREA_BF16 || readers < 2 ? 0
                                                   : (bytes + MAREA_ALIGN - 1) / MAREA_ALIGN * MAREA_ALIGN;
}

static void narrow_rows (void *arg, int64_t at, int worker) {
  const whole *w = arg;
  (void)worker;
  for (int64_t i = at * ROWS; i < MAREA_MIN((at + 1) * ROWS, w->rows); i++)
    w->f32->narrow_bf16((size_t)w->cols, w->from + i * w->step, w->to + i * marea_even(w->cols));
}

static void narrow_whole (marea_context *ctx, whole *w, void *to, bool parallel) {
  const int64_t blocks = parts_of(w->rows, ROWS);
  w->to = to;
  if (parallel) marea_parallel(ctx, blocks, narrow_rows, w);
  for (int64_t i = 0; i < blocks && !parallel; i++) narrow_rows(w, i, 0);
  *w->of = (marea_bf16_operand){to, marea_even(w->cols), MAREA_BF16};
}

/* Without terms: C = act(bias), a row at a time in f32. */
static marea_status finish_empty (marea_context *ctx, const marea_bf16_gemm *g) {
  const marea_kernels *f32 = ctx->kernels[MAREA_F32];
  const size_t n = (size_t)g->n, bytes = n * sizeof(float);
  if (g->add || ctx->shape_only) return MAREA_OK;
  float *row = marea_alloc(ctx, bytes);
  if (!row) return marea_out_of_memory(ctx, "matmul", bytes, "scratch space");
  memset(row, 0, bytes);
  if (g->end.bias)
    marea_convert_run(ctx, g->n, g->wide ? MAREA_F32 : MAREA_BF16, g->end.bias, 1, MAREA_F32, row, 1);
  f32->bias_act(1, n, NULL, g->end.act, g->end.slope, row);
  for (int64_t i = 0; i < g->m; i++) {
    if (g->wide) memcpy((float *)g->c + i * g->ldc, row, bytes);
    else f32->narrow_bf16(n, row, (uint16_t *)g->c + i * g->ldc);
  }
  marea_free(ctx, row);
  return MAREA_OK;
}

marea_status marea_gemm_bf16 (marea_context *ctx, const marea_bf16_gemm *given, bool parallel) {
  marea_bf16_gemm own = *given, *g = &own;
  job j = {.ctx = ctx, .g = g};
  if (g->m == 0 || g->n == 0) return MAREA_OK;
  if (g->k == 0) return finish_empty(ctx, g);
  if (g->m == 1 && g->b.dtype == MAREA_BF16) return marea_gemv_bf16(ctx, g, parallel);
  choose_blocks(&j);
  const int64_t blocks = parts_of(g->m, j.m) * parts_of(g->n, j.n) * j.parts;
  const size_t workspace = (size_t)(parallel ? ctx->threads : 1) * worker_bytes(&j);
  const size_t partial = j.parts > 1 ? (size_t)(j.parts * g->m * g->n) * sizeof(float) : 0;
  const size_t bias = g->end.bias && !g->wide ? (size_t)g->n * sizeof(float) : 0,
               aligned = (workspace + partial + bias + MAREA_ALIGN - 1) / MAREA_ALIGN * MAREA_ALIGN;
  whole a = whole_of(ctx, &g->a, g->ta, g->m, g->k), b = whole_of(ctx, &g->b, g->tb, g->k, g->n);
  const size_t a_bytes = whole_bytes(&a, parts_of(g->n, j.n)), b_bytes = whole_bytes(&b, parts_of(g->m, j.m)),
               bytes = aligned + a_bytes + b_bytes;
  if (ctx->shape_only) {
    marea_plan_take(ctx, marea_block_size(bytes));
    marea_plan_give(ctx, marea_block_size(bytes));
    return MAREA_OK;
  }
  char *memory = marea_alloc(ctx, bytes);
  if (!memory) return marea_out_of_memory(ctx, "matmul", bytes, "scratch space");
  j.workspace = memory;
  j.partial = (float *)(void *)(memory + workspace);
  j.bias = bias > 0 ? (float *)(void *)(memory + workspace + partial) : g->end.bias;
  if (bias > 0) ctx->kernels[MAREA_F32]->widen_bf16((size_t)g->n, g->end.bias, (float *)j.bias);
  if (a_bytes > 0) narrow_whole(ctx, &a, memory + aligned, parallel);
  if (b_bytes > 0) narrow_whole(ctx, &b, memory + aligned + a_bytes, parallel);
  if (parallel) marea_parallel(ctx, blocks, run_block, &j);
  for (int64_t i = 0; i < blocks && !parallel; i++) run_block(&j, i, 0);
  if (j.parts > 1 && parallel) marea_parallel(ctx, g->m, add_parts, &j);
  for (int64_t i = 0; j.parts > 1 && !parallel && i < g->m; i++) add_parts(&j, i, 0);
  marea_free(ctx, memory);
  return MAREA_OK;
}
