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
#define COLUMNS 256    /* of B, packed at a time: lines that lie together in each row */
#define BAND 8         /* rows of B */

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
  uint16_t *panels;       /* all of B, if several blocks read it, `panel` from panel to panel */
  int64_t panel;
} job;

/* Rows and columns of C, and terms of k */
typedef struct block {
  int64_t row, m, col, n, depth, k;
  float *sums; /* (m, n) by steps sums_row, 1; NULL: goes to C at once */
  int64_t sums_row;
} block;

static int64_t parts_of (int64_t side, int64_t step) { return (side + step - 1) / step; }

static int64_t piece_of (int64_t k) { return MAREA_MIN(DEPTH, marea_bf16_whole(k)); }

/* Elements of a worker's packed B, packed A, A in bf16, and of the sums, which are f32 */
static size_t packed_size (const job *j) { return (size_t)(piece_of(j->k) * marea_bf16_columns(j->n)); }
static size_t rows_size (const job *j) { return (size_t)(piece_of(j->k) * j->m); }
static size_t narrow_size (const job *j) { return rows_size(j); }

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

/* `n` columns of B, at most COLUMNS, from `col` on, and terms d .. d + k - 1 of them, in panels with zeros up to `depth`. B
   is read in bands of few rows, for in steps of some KB they share few sets of a cache. */
static void pack_columns (const job *j, int64_t col, int64_t n, int64_t d, int64_t k, int64_t depth,
                          uint16_t *to, int64_t panel) {
  const marea_bf16_gemm *g = j->g;
  const marea_kernels *f32 = j->ctx->kernels[MAREA_F32];
  uint16_t scratch[MAREA_BF16_PANEL * DEPTH];
  int64_t step;
  for (int64_t i = 0; g->tb && i < n; i += MAREA_BF16_PANEL) {
    const int64_t some = MAREA_MIN(MAREA_BF16_PANEL, n - i);
    const uint16_t *w = narrow(j, &g->b, col + i, some, d, k, scratch, &step);
    marea_bf16_pack(f32, k, some, w, step, true, to + i / MAREA_BF16_PANEL * panel, panel);
  }
  for (int64_t i = 0; !g->tb && i < k; i += BAND) {
    const int64_t some = MAREA_MIN(BAND, k - i);
    const uint16_t *w = narrow(j, &g->b, d + i, some, col, n, scratch, &step);
    marea_bf16_pack(f32, some, n, w, step, false, to + i * MAREA_BF16_PANEL, panel);
  }
  for (int64_t i = 0; i < n && marea_even(k) < depth; i += MAREA_BF16_PANEL, to += panel)
    memset(to + marea_even(k) * MAREA_BF16_PANEL, 0,
           (size_t)((depth - marea_even(k)) * MAREA_BF16_PANEL) * sizeof *to);
}

/* Of the block's columns, unless all of B is packed: *panel from panel to panel. */
static const uint16_t *panels_of_b (const job *j, const block *b, int64_t d, int64_t k, int64_t depth,
                                    uint16_t *to, int64_t *panel) {
  if (j->panels) {
    *panel = j->panel;
    return j->panels + b->col / MAREA_BF16_PANEL * j->panel + d * MAREA_BF16_PANEL;
  }
  *panel = depth * MAREA_BF16_PANEL;
  for (int64_t i = 0; i < b->n; i += COLUMNS)
    pack_columns(j, b->col + i, MAREA_MIN(COLUMNS, b->n - i), b->depth + d, k, depth, to + i * depth, *panel);
  return to;
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
  int64_t row, depth, panel;
  const uint16_t *a = rows_of_a(j, b, b->depth + d, k, rows, scratch, &row, &depth);
  const uint16_t *w = panels_of_b(j, b, d, k, depth, panels, &panel);
  marea_bf16_product p = marea_bf16_matrix(j->ctx->kernels[MAREA_F32], b->m, depth, b->n, a, row, w, panel);
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
    p.prefetch_output = true;
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

/* ---- operands that several blocks read ---- */

/* A is rounded before the first block, and turned, so that the terms of a row are adjacent. */
typedef struct whole_a {
  const job *job;
  marea_bf16_operand from;
  uint16_t *to;
  int64_t row; /* elements from row to row of `to` */
} whole_a;

#define ROWS 16 /* of a block of A */
#define SOME (2 * MAREA_BF16_DEPTH)

/* No multiple of 2 KB, after which rows share few sets of the caches. */
static int64_t row_of_a (const marea_bf16_gemm *g) {
  const int64_t row = marea_bf16_whole(g->k);
  return row % 1024 == 0 ? row + MAREA_BF16_DEPTH : row;
}

static size_t bytes_of_a (const job *j) {
  const marea_bf16_gemm *g = j->g;
  if (parts_of(g->n, j->n) < 2 || (!g->ta && g->a.dtype == MAREA_BF16)) return 0;
  return (size_t)(g->m * row_of_a(g)) * sizeof(uint16_t);
}

/* Terms d .. d + MAREA_BF16_DEPTH - 1 of all rows, some rows at a time */
static void turn_terms (const whole_a *w, int64_t d) {
  const marea_bf16_gemm *g = w->job->g;
  const int64_t k = MAREA_MIN(MAREA_BF16_DEPTH, g->k - d);
  uint16_t scratch[MAREA_BF16_DEPTH * SOME];
  for (int64_t i = 0; i < g->m; i += SOME) {
    int64_t step;
    const int64_t rows = MAREA_MIN(SOME, g->m - i);
    const uint16_t *x = narrow(w->job, &w->from, d, k, i, rows, scratch, &step);
    marea_bf16_pack_turned(w->job->ctx->kernels[MAREA_F32], k, rows, x, step, w->to + i * w->row + d, w->row);
  }
}

static void prepare_a (void *arg, int64_t at, int worker) {
  const whole_a *w = arg;
  const marea_bf16_gemm *g = w->job->g;
  (void)worker;
  if (marea_stopping(w->job->ctx)) return;
  if (g->ta) {
    turn_terms(w, at * MAREA_BF16_DEPTH);
    return;
  }
  for (int64_t i = at * ROWS; i < MAREA_MIN((at + 1) * ROWS, g->m); i++)
    w->job->ctx->kernels[MAREA_F32]->narrow_bf16((size_t)g->k, (const float *)w->from.at + i * w->from.step,
                                                 w->to + i * w->row);
}

/* Elements from panel to panel of B in pieces of DEPTH terms */
static int64_t panel_of_b (int64_t k) {
  const int64_t last = (k - 1) % DEPTH + 1;
  return (k - last + marea_bf16_depth(last)) * MAREA_BF16_PANEL;
}

static size_t bytes_of_b (const job *j) {
  if (j->parts > 1 || parts_of(j->g->m, j->m) < 2) return 0; /* a part packs the terms that it has */
  return (size_t)(marea_bf16_columns(j->g->n) / MAREA_BF16_PANEL * panel_of_b(j->g->k)) * sizeof(uint16_t);
}

static void prepare_b (void *arg, int64_t at, int worker) {
  const job *j = arg;
  const int64_t pieces = parts_of(j->g->k, DEPTH), col = at / pieces * COLUMNS, d = at % pieces * DEPTH;
  const int64_t k = MAREA_MIN(DEPTH, j->g->k - d);
  (void)worker;
  if (marea_stopping(j->ctx)) return;
  pack_columns(j, col, MAREA_MIN(COLUMNS, j->g->n - col), d, k, marea_bf16_depth(k),
               j->panels + col / MAREA_BF16_PANEL * j->panel + d * MAREA_BF16_PANEL, j->panel);
}

/* Prepares what there is memory for. */
static void prepare (job *j, marea_bf16_gemm *g, uint16_t *a, uint16_t *b) {
  whole_a w = {j, g->a, a, row_of_a(g)};
  if (a) {
    marea_parallel(j->ctx, parts_of(g->ta ? g->k : g->m, g->ta ? MAREA_BF16_DEPTH : ROWS), prepare_a, &w);
    g->a = (marea_bf16_operand){a, w.row, MAREA_BF16};
    g->ta = false;
  }
  if (!b) return;
  j->panels = b;
  j->panel = panel_of_b(g->k);
  marea_parallel(j->ctx, parts_of(g->n, COLUMNS) * parts_of(g->k, DEPTH), prepare_b, j);
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

marea_status marea_gemm_bf16 (marea_context *ctx, const marea_bf16_gemm *given) {
  marea_bf16_gemm own = *given, *g = &own;
  job j = {.ctx = ctx, .g = g};
  if (g->m == 0 || g->n == 0) return MAREA_OK;
  if (g->k == 0) return finish_empty(ctx, g);
  if (g->m == 1 && g->b.dtype == MAREA_BF16) return marea_gemv_bf16(ctx, g);
  choose_blocks(&j);
  const int64_t blocks = parts_of(g->m, j.m) * parts_of(g->n, j.n) * j.parts;
  const size_t sizes[] = {(size_t)ctx->threads * worker_bytes(&j),
                          j.parts > 1 ? (size_t)(j.parts * g->m * g->n) * sizeof(float) : 0,
                          g->end.bias && !g->wide ? (size_t)g->n * sizeof(float) : 0, bytes_of_a(&j),
                          bytes_of_b(&j)};
  void *part[MAREA_COUNT(sizes)];
  char *memory;
  MAREA_TRY(marea_scratch(ctx, MAREA_COUNT(sizes), sizes, &memory, part));
  if (ctx->shape_only) return MAREA_OK;
  j.workspace = part[0];
  j.partial = part[1];
  j.bias = part[2] ? part[2] : g->end.bias;
  if (part[2]) ctx->kernels[MAREA_F32]->widen_bf16((size_t)g->n, g->end.bias, part[2]);
  prepare(&j, g, part[3], part[4]);
  marea_parallel(ctx, blocks, run_block, &j);
  if (j.parts > 1) marea_parallel(ctx, g->m, add_parts, &j);
  marea_free(ctx, memory);
  return MAREA_OK;
}
