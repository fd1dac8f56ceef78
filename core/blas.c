/* SPDX-License-Identifier: MIT
** blas.c: dense products, of f32 by our own kernel, of f64 and of vectors by OpenBLAS, which is held to one thread: our
** workers share the work, in blocks.
**
** Usually C = A B is cut into blocks of C. When C is small and k is long (weights of a dense layer behind a flattened
** image), k is cut, and the partial products are added up by a fixed tree. A long k is cut once more, so that the
** error does not grow with it. The thread count never changes a result: in our kernel an element of C is the same sum
** in whichever block it lies, and every other cut depends on the shape only.
*/
#include <limits.h>
#include <math.h>
#include <string.h>

#include "core.h"

#define MIN_WORK 2000000          /* multiply-adds of a block: 30 us at 64 a ns (one core, AVX-512) */
#define LEAST_WORK (MIN_WORK / 2) /* of a product that is cut at all; of smaller ones OpenBLAS packs less */
#define MOVED \
  10 /* multiply-adds that take as long as an element that is read or written: 27 GB/s of a third cache */
#define MAX_BLOCKS 32   /* of a cut by the shape; a part of k has a product of its own, as large as C */
#define LEAST_DEPTH 512 /* terms of a part of k, which costs a product in memory as large as C */
#define GRAIN 32 /* blocks are multiples of it, as the tiles of OpenBLAS's kernels (16 x 4 to 32 x 12) are */

#define LONG_WORK 3e8 /* multiply-adds between two checks of marea_stopping: 5 ms at 64 a ns */
#define WIDEST 4096   /* columns of a block of our kernel: with its rows and its depth, 2.7e8 multiply-adds */
#define SUMMED 2048   /* elements of C whose partial sums are added up at a time */
#define PANELS 1      /* the kind of a packed form */
#define DEPTH 256     /* OpenBLAS takes k in parts of at least this many, our kernel of MAREA_PRODUCT_DEPTH */

typedef struct product {
  int dtype;
  bool ta, tb;
  int64_t m, n, k, lda, ldb, ldc;
  const char *a, *b;
  char *c;
  bool add;           /* C += A B */
  const char *panels; /* the whole B packed, MAREA_PRODUCT_DEPTH rows behind the other; NULL: it is not */
  int64_t col, cols;  /* of that B: the first column of b, and how many there are */
  marea_epilogue end;
} product;

/* m rows from `row` on and n columns from `col` on of the product, of k terms from `depth` on */
static product part_of (const product *p, int64_t row, int64_t m, int64_t col, int64_t n, int64_t depth,
                        int64_t k) {
  const size_t size = marea_element_size(p->dtype);
  product part = *p;
  part.m = m, part.n = n, part.k = k;
  part.a += (size_t)(p->ta ? depth * p->lda + row : row * p->lda + depth) * size;
  part.b += (size_t)(p->tb ? col * p->ldb + depth : depth * p->ldb + col) * size;
  part.c += (size_t)(row * p->ldc + col) * size;
  part.col += col;
  if (part.end.bias) part.end.bias = (const char *)part.end.bias + (size_t)col * size;
  return part;
}

/* ---- one product on one thread ---- */

static void clear (const product *p) {
  for (int64_t i = 0; i < p->m; i++)
    memset(p->c + (size_t)(i * p->ldc) * marea_element_size(p->dtype), 0,
           (size_t)p->n * marea_element_size(p->dtype));
}

/* Is the matrix of a product with a vector stored (k, .)? */
static bool is_stored_by_k (const product *p) { return p->m == 1 ? !p->tb : p->ta; }

/* Matrix times vector, if the product is one: y = M x, or y += M x, M stored (rows, cols). */
static bool multiply_vector (marea_context *ctx, const product *p) {
  const bool row = p->m == 1; /* c = a B; otherwise c = A b */
  if (!row && p->n != 1) return false;
  const marea_blas_vector_product v = {.dtype = p->dtype,
                                       .by_k = is_stored_by_k(p),
                                       .add = p->add,
                                       .n = row ? p->n : p->m,
                                       .k = p->k,
                                       .matrix = row ? p->b : p->a,
                                       .ld = row ? p->ldb : p->lda,
                                       .x = row ? p->a : p->b,
                                       .x_step = row ? (p->ta ? p->lda : 1) : (p->tb ? 1 : p->ldb),
                                       .y = p->c,
                                       .y_step = row ? 1 : p->ldc};
  marea_blas_vector(ctx->kernels[p->dtype], &v);
  return true;
}

static void finish (const product *p, const marea_kernels *k) {
  if (!p->end.bias && p->end.act == MAREA_ACT_NONE) return;
  const int64_t at_once = p->ldc == p->n ? p->m : 1; /* rows */
  for (int64_t i = 0; i < p->m; i += at_once)
    k->bias_act((size_t)at_once, (size_t)p->n, p->end.bias, p->end.act, p->end.slope,
                p->c + (size_t)(i * p->ldc) * marea_element_size(p->dtype));
}

/* Does our kernel compute it? Not products with a vector: they read the matrix once, at the speed of memory, in
   OpenBLAS too. Nor a C of fewer than 8 columns, half a vector, most of whose lanes would be idle. */
static bool is_ours (const product *p) {
  return p->dtype == MAREA_F32 && MAREA_MIN(p->m, p->n) > 1 && p->n >= 8;
}

/* Where the packed rows of B from `depth` on begin, k of them, at the product's columns */
static const char *panels_at (const product *p, int64_t depth, int64_t k) {
  if (!p->panels) return NULL;
  return p->panels + (size_t)(depth * p->cols + p->col * k) * marea_element_size(p->dtype);
}

static void multiply_ours (marea_context *ctx, const product *all, void *workspace) {
  for (int64_t i = 0; i < all->m; i += MAREA_PRODUCT_ROWS)
    for (int64_t l = 0; l < all->k && !marea_stopping(ctx); l += MAREA_PRODUCT_DEPTH) {
      const bool last = l + MAREA_PRODUCT_DEPTH >= all->k;
      const product p = part_of(all, i, MAREA_MIN(all->m - i, MAREA_PRODUCT_ROWS), 0, all->n, l,
                                MAREA_MIN(all->k - l, MAREA_PRODUCT_DEPTH));
      const marea_product g = {.a = p.a,
                               .b = p.b,
                               .panels = panels_at(&p, l, p.k),
                               .c = p.c,
                               .scratch = workspace,
                               .m = p.m,
                               .n = p.n,
                               .k = p.k,
                               .lda = p.lda,
                               .ldb = p.ldb,
                               .ldc = p.ldc,
                               .ta = p.ta,
                               .tb = p.tb,
                               .accumulate = l > 0 || all->add,
                               .bias = l == 0 ? p.end.bias : NULL,
                               .act = last ? p.end.act : MAREA_ACT_NONE,
                               .slope = p.end.slope};
      ctx->kernels[MAREA_F32]->product(&g);
    }
}

/* C = A B, or C += A B */
static void multiply_matrices (marea_context *ctx, const product *p, bool add) {
  const marea_blas_product g = {.dtype = p->dtype,
                                .ta = p->ta,
                                .tb = p->tb,
                                .add = add,
                                .m = p->m,
                                .n = p->n,
                                .k = p->k,
                                .a = p->a,
                                .lda = p->lda,
                                .b = p->b,
                                .ldb = p->ldb,
                                .c = p->c,
                                .ldc = p->ldc};
  marea_blas_matrices(ctx->kernels[p->dtype], &g);
}

/* In pieces of LONG_WORK, by rows of C and parts of k, with a check of marea_stopping between them. */
static void multiply_in_pieces (marea_context *ctx, const product *all) {
  const int64_t rows = MAREA_MAX((int64_t)(LONG_WORK / (double)all->n / DEPTH), 2 * GRAIN);
  const int64_t most = MAREA_MIN(rows, all->m);
  const int64_t depth = MAREA_MAX((int64_t)(LONG_WORK / (double)all->n / (double)most), DEPTH);
  for (int64_t i = 0; i < all->m; i += most)
    for (int64_t l = 0; l < all->k && !marea_stopping(ctx); l += depth) {
      const product p = part_of(all, i, MAREA_MIN(most, all->m - i), 0, all->n, l,
                                MAREA_MIN(depth, all->k - l));
      multiply_matrices(ctx, &p, l > 0 || all->add);
    }
}

/* ---- a long k ---- */

/* A float sum of k products loses digits in proportion to k. OpenBLAS has such sums in products of vectors and of small
   matrices; there, and only for a long k, pieces of k are added up in double. */

#define PIECE 256   /* products that are added up in f32: their error is at most 256 x 2^-24 of their size */
#define STRIPE 1024 /* the same with a vector, where OpenBLAS keeps four sums */
#define SMALL 4096  /* elements of C whose sums in double, 32 KB, lie on the stack */

/* C of at most SMALL elements */
static void multiply_small (marea_context *ctx, const product *all) {
  double total[SMALL];
  float some[SMALL];
  const int64_t n = all->m * all->n, piece = all->m == 1 || all->n == 1 ? STRIPE : PIECE;
  memset(total, 0, (size_t)n * sizeof *total);
  for (int64_t l = 0; l < all->k && !marea_stopping(ctx); l += piece) {
    product p = part_of(all, 0, all->m, 0, all->n, l, MAREA_MIN(piece, all->k - l));
    p.c = (char *)some;
    p.ldc = p.n;
    p.add = false;
    if (!multiply_vector(ctx, &p)) multiply_matrices(ctx, &p, false);
    for (int64_t i = 0; i < n; i++) total[i] += (double)some[i];
  }
  for (int64_t i = 0; i < n; i++) {
    float *c = (float *)all->c + i / all->n * all->ldc + i % all->n;
    *c = (float)(all->add ? (double)*c + total[i] : total[i]);
  }
}

/* Rows of the matrix lie along k: one dot product each. */
static void multiply_dots (marea_context *ctx, const product *p) {
  const bool row = p->m == 1;
  const char *matrix = row ? p->b : p->a, *x = row ? p->a : p->b;
  const int64_t ld = row ? p->ldb : p->lda, step = row ? 1 : p->ldc;
  for (int64_t i = 0; i < p->m * p->n && !marea_stopping(ctx); i++) {
    const char *line = matrix + (size_t)(i * ld) * sizeof(float);
    float *c = (float *)p->c + i * step;
    const double dot = ctx->kernels[MAREA_F32]->dot((size_t)p->k, line, x);
    *c = (float)(p->add ? (double)*c + dot : dot);
  }
}

/* The longest k that is not cut into pieces: 2 to 16 pieces of it, below which adding up in double takes longer than it
   gains digits. */
static int64_t longest (const product *p) {
  if (p->m * p->n == 1) return 512;
  return p->m == 1 || p->n == 1 ? 4096 : 2048;
}

static bool is_deep (const product *p) {
  const bool few = p->m == 1 || p->n == 1 || p->m * p->n <= SMALL;
  return p->dtype == MAREA_F32 && few && p->k > longest(p);
}

static void multiply_deep (marea_context *ctx, const product *p) {
  const int64_t side = MAREA_MAX(p->m, p->n);
  if (p->m > 1 && p->n > 1) multiply_small(ctx, p);
  else if (side == 1 || !is_stored_by_k(p)) multiply_dots(ctx, p);
  else
    for (int64_t i = 0; i < side; i += SMALL) {
      const int64_t some = MAREA_MIN(SMALL, side - i);
      const product part = p->n == 1 ? part_of(p, i, some, 0, 1, 0, p->k)
                                     : part_of(p, 0, 1, i, some, 0, p->k);
      multiply_small(ctx, &part);
    }
}

static void multiply (marea_context *ctx, const product *p) {
  if (p->m == 0 || p->n == 0) return;
  if (p->k == 0) {
    if (!p->add) clear(p);
    return;
  }
  if (is_deep(p)) multiply_deep(ctx, p);
  else if (!multiply_vector(ctx, p)) multiply_in_pieces(ctx, p);
}

/* Sizes fit in int: marea_gemm_parallel refuses larger ones, and marea_bytes a dimension above INT32_MAX. */
static product make_product (int dtype, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const void *a,
                             const void *b, void *c) {
  return (product){.dtype = dtype,
                   .ta = ta,
                   .tb = tb,
                   .m = m,
                   .n = n,
                   .k = k,
                   .lda = ta ? m : k,
                   .ldb = tb ? k : n,
                   .ldc = n,
                   .a = a,
                   .b = b,
                   .c = c};
}

/* The same product for gemm_bf16.c */
static marea_bf16_gemm as_bf16 (const product *p, int dtype) {
  return (marea_bf16_gemm){.ta = p->ta,
                           .tb = p->tb,
                           .m = p->m,
                           .n = p->n,
                           .k = p->k,
                           .a = {p->a, p->lda, dtype},
                           .b = {p->b, p->ldb, dtype},
                           .c = p->c,
                           .ldc = p->ldc,
                           .wide = dtype != MAREA_BF16,
                           .add = p->add,
                           .end = p->end};
}

void marea_gemm (marea_context *ctx, int dtype, bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                 const void *a, const void *b, void *c) {
  product p = make_product(dtype, ta, tb, m, n, k, a, b, c);
  multiply(ctx, &p);
}

/* ---- cut into blocks ---- */

typedef struct job {
  marea_context *ctx;
  product all;
  const marea_kernels *kernels;
  char *workspace; /* of our kernel, for each worker; NULL: OpenBLAS computes */
  int64_t m, n, k; /* sides of a block */
  char *partial;   /* k is cut: (parts of k - 1) products of m * n, of the parts after the first */
} job;

static int64_t parts_of (int64_t side, int64_t step) { return (side + step - 1) / step; }

static bool cuts_k (const job *j) { return j->k < j->all.k; }

static size_t worker_step (const job *j) {
  return marea_worker_step(marea_product_scratch(j->m, sizeof(float)));
}

/* Block (row, column, part of k), columns fastest */
static product block_of (const job *j, int64_t block) {
  const product *p = &j->all;
  const int64_t rows = parts_of(p->m, j->m), cols = parts_of(p->n, j->n), part = block / (rows * cols);
  const int64_t row = block / cols % rows * j->m, col = block % cols * j->n, depth = part * j->k;
  product one = part_of(p, row, MAREA_MIN(j->m, p->m - row), col, MAREA_MIN(j->n, p->n - col), depth,
                        MAREA_MIN(j->k, p->k - depth));
  if (!cuts_k(j)) return one;
  one.end = (marea_epilogue){0}; /* rows and columns are whole then */
  if (part == 0) return one;
  one.c = j->partial + (size_t)((part - 1) * p->m * p->n) * marea_element_size(p->dtype);
  one.add = false;
  return one;
}

static void run_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  const product p = block_of(j, block);
  if (j->workspace && !(cuts_k(j) && is_deep(&p))) {
    multiply_ours(j->ctx, &p, j->workspace + (size_t)worker * worker_step(j));
    return;
  }
  multiply(j->ctx, &p);
  finish(&p, j->kernels);
}

/* Parts of `step` rounded up to GRAIN, all but the last of the same size */
static int64_t even (int64_t side, double step) {
  const int64_t whole = (int64_t)MAREA_MIN(step, (double)side);
  const int64_t part = (side - 1) / parts_of(side, MAREA_MAX(whole, 2 * GRAIN)) + 1;
  return MAREA_MIN((part + GRAIN - 1) / GRAIN * GRAIN, side);
}

/* How long it takes, in multiply-adds. Products of a few rows, or of small k, move more than they compute. */
static double cost (const product *p) {
  const double m = (double)p->m, n = (double)p->n, k = (double)p->k;
  return m * n * k + MOVED * (m * k + k * n + m * n);
}

/* Blocks of C for our kernel: a few for each thread, nearly square, since each block packs its rows of A and its columns
   of B. */
static void cut_ours (job *j) {
  const product *p = &j->all;
  const double all = (double)p->m * (double)p->n, few = j->ctx->threads == 1 ? 1 : 4.0 * j->ctx->threads;
  const double area = MAREA_MAX(all / few, MIN_WORK * all / cost(p));
  j->m = even(p->m, MAREA_MAX(sqrt(area), area / (double)p->n));
  j->n = even(p->n, MAREA_MIN(area / (double)j->m, WIDEST));
}

/* One side is cut, into blocks of at least MIN_WORK, at most MAX_BLOCKS of them, and at least 2 GRAIN wide: each block
   packs the operand that all of them share, which is a cost of 1 / width of its products. */
static void cut_side (const product *p, int64_t all, int64_t *side) {
  const double per_unit = cost(p) / (double)all;
  int64_t step = MAREA_MAX((int64_t)(MIN_WORK / per_unit) + 1, parts_of(all, MAX_BLOCKS));
  step = MAREA_MAX(step, p->k > 1 && p->m > 1 && p->n > 1 ? 2 * GRAIN : 1);
  *side = MAREA_MIN((step + GRAIN - 1) / GRAIN * GRAIN, all);
}

/* Returns whether our kernel computes it. */
static bool choose_cut (job *j) {
  const product *p = &j->all;
  const bool cut_k = p->ldc == p->n && p->m * p->n <= 256 * 256 && p->k >= 8 * MAREA_MAX(p->m, p->n);
  const bool dots = cut_k && p->tb && p->m < 8; /* of rows of B, which OpenBLAS takes as they lie */
  const bool ours = is_ours(p) && !dots && (cut_k || !is_deep(p));
  j->m = p->m, j->n = p->n, j->k = p->k;
  if (cut_k) {
    cut_side(p, p->k, &j->k);
    const int64_t depth = MAREA_MAX(j->k, LEAST_DEPTH) + DEPTH - 1; /* kernels take k in parts of DEPTH */
    j->k = MAREA_MIN(depth / DEPTH * DEPTH, p->k);
  } else if (ours) cut_ours(j);
  else if (p->m >= p->n) cut_side(p, p->m, &j->m);
  else cut_side(p, p->n, &j->n);
  return ours;
}

typedef struct packing {
  const product *p;
  const marea_kernels *kernels;
  char *panels;
} packing;

static void pack_depth (void *arg, int64_t part, int worker) {
  const packing *k = arg;
  const int64_t depth = part * MAREA_PRODUCT_DEPTH;
  const product p = part_of(k->p, 0, k->p->m, 0, k->p->n, depth,
                            MAREA_MIN(MAREA_PRODUCT_DEPTH, k->p->k - depth));
  const marea_product g = {.b = p.b, .n = p.n, .k = p.k, .ldb = p.ldb};
  (void)worker;
  k->kernels->product_panels(&g, k->panels + (size_t)(depth * p.n) * marea_element_size(p.dtype));
}

/* B is packed once where it is a weight that keeps its packed form: see packs.c. */
static marea_status keep_panels (const marea_gemm_layout *l, job *j) {
  const product *p = &j->all;
  const bool keeps = l->keeps && marea_keeps_packs(l->keeps, l->weight);
  if (!keeps || p->tb || p->ldb != p->n || cuts_k(j)) return MAREA_OK;
  const marea_pack_key key = {{PANELS, p->k, p->n}};
  void *memory;
  bool ready;
  MAREA_TRY(marea_pack_for(l->keeps, l->weight, p->b, &key,
                           (size_t)(p->k * p->n) * marea_element_size(p->dtype), &memory, &ready));
  packing k = {p, j->kernels, memory};
  if (!ready) marea_parallel(j->ctx, parts_of(p->k, MAREA_PRODUCT_DEPTH), pack_depth, &k);
  j->all.panels = memory;
  j->all.cols = p->n;
  return MAREA_OK;
}

static void add_partials_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  const product *p = &j->all;
  const int64_t all = p->m * p->n, first = block * SUMMED, n = MAREA_MIN(SUMMED, all - first);
  const size_t at = (size_t)first * marea_element_size(p->dtype),
               step = (size_t)all * marea_element_size(p->dtype);
  const int64_t parts = parts_of(p->k, j->k);
  (void)worker;
  char *c[MAX_BLOCKS] = {p->c + at};
  for (int64_t part = 1; part < parts; part++) c[part] = j->partial + (size_t)(part - 1) * step + at;
  for (int64_t gap = 1; gap < parts; gap *= 2)
    for (int64_t part = 0; part + gap < parts; part += 2 * gap)
      j->kernels->add((size_t)n, c[part], 1, c[part + gap], 1, c[part], NULL);
}

/* c := the sum of the partial products, neighbours first, with bias and activation */
static void add_partials (marea_context *ctx, job *j) {
  const product *p = &j->all;
  marea_parallel(ctx, (p->m * p->n - 1) / SUMMED + 1, add_partials_block, j);
  finish(p, j->kernels);
}

static void lay_out (product *p, const marea_gemm_layout *l) {
  if (l->lda > 0) p->lda = l->lda;
  if (l->ldb > 0) p->ldb = l->ldb;
  if (l->ldc > 0) p->ldc = l->ldc;
  p->add = l->add;
}

marea_status marea_gemm_parallel (marea_context *ctx, int dtype, bool ta, bool tb, int64_t m, int64_t n,
                                  int64_t k, const void *a, const void *b, const marea_epilogue *end,
                                  void *c) {
  return marea_gemm_part(ctx, dtype, ta, tb, m, n, k, a, b, end, c, &(marea_gemm_layout){0});
}

marea_status marea_gemm_part (marea_context *ctx, int dtype, bool ta, bool tb, int64_t m, int64_t n,
                              int64_t k, const void *a, const void *b, const marea_epilogue *end, void *c,
                              const marea_gemm_layout *layout) {
  if (MAREA_MAX(m, MAREA_MAX(n, k)) > INT32_MAX)
    return marea_fail(ctx, MAREA_ESHAPE, "matmul: %lld x %lld x %lld: a side is longer than 2147483647",
                      (long long)m, (long long)k, (long long)n);
  job j = {.ctx = ctx, .all = make_product(dtype, ta, tb, m, n, k, a, b, c), .kernels = ctx->kernels[dtype]};
  lay_out(&j.all, layout);
  if (end) j.all.end = *end;
  if (m == 0 || n == 0) return MAREA_OK;
  if (dtype == MAREA_BF16 || layout->bf16) {
    marea_bf16_gemm g = as_bf16(&j.all, dtype);
    if (layout->a_is_bf16) g.a.dtype = MAREA_BF16;
    if (layout->b_is_bf16) g.b.dtype = MAREA_BF16;
    return marea_gemm_bf16(ctx, &g);
  }
  if (k == 0 || ((double)m * (double)n * (double)k < LEAST_WORK && cost(&j.all) < 2.0 * MIN_WORK)) {
    if (ctx->shape_only) return MAREA_OK;
    multiply(ctx, &j.all);
    finish(&j.all, j.kernels);
    return MAREA_OK;
  }
  const bool ours = choose_cut(&j);
  if (ours) MAREA_TRY(keep_panels(layout, &j));
  const int64_t parts = parts_of(k, j.k), blocks = parts_of(m, j.m) * parts_of(n, j.n) * parts;
  const size_t sizes[] = {ours ? (size_t)ctx->threads * worker_step(&j) : 0,
                          (size_t)((parts - 1) * m * n) * marea_element_size(dtype)};
  void *part[MAREA_COUNT(sizes)];
  char *memory;
  MAREA_TRY(marea_scratch(ctx, MAREA_COUNT(sizes), sizes, &memory, part));
  if (ctx->shape_only) return MAREA_OK;
  j.workspace = part[0];
  j.partial = part[1];
  marea_parallel(ctx, blocks, run_block, &j);
  if (cuts_k(&j)) add_partials(ctx, &j);
  marea_free(ctx, memory);
  return MAREA_OK;
}
