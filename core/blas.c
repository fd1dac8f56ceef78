/* SPDX-License-Identifier: MIT
** blas.c: dense products by OpenBLAS, which is held to one thread: our workers share the work, in blocks
** that depend on the shape only, so that the thread count never changes a result.
**
** Three ways to cut C = A B. Usually the longer side of C is cut. When C is small and k is long (weights
** of a dense layer behind a flattened image), k is cut, and the partial products are added up in order.
*/
#include <cblas.h>
#include <limits.h>
#include <string.h>

#include "core.h"

#define MIN_WORK 2000000 /* multiply-adds of a block, about 30 microseconds of one core */
#define MAX_BLOCKS 32
#define GRAIN 32 /* blocks are multiples of this, as the kernels of OpenBLAS like it */

typedef struct product {
  int dtype;
  bool ta, tb, accumulate;
  int64_t m, n, k, lda, ldb, ldc;
  const char *a, *b;
  char *c;
} product;

static size_t size_of (int dtype) { return dtype == MAREA_F64 ? sizeof(double) : sizeof(float); }

const char *marea_blas (void) { return openblas_get_config(); }

/* ---- one product on one thread ---- */

static void clear (const product *p) {
  for (int64_t i = 0; i < p->m; i++)
    memset(p->c + (size_t)(i * p->ldc) * size_of(p->dtype), 0, (size_t)p->n * size_of(p->dtype));
}

/* Matrix times vector, if the product is one: y = M x, M stored (rows, cols). */
static bool multiply_vector (const product *p) {
  double beta = p->accumulate ? 1 : 0;
  bool row = p->m == 1; /* c = a B; otherwise c = A b */
  if (!row && p->n != 1) return false;
  bool stored_by_k = row ? !p->tb : p->ta; /* the matrix is stored (k, .) */
  const char *matrix = row ? p->b : p->a, *x = row ? p->a : p->b;
  int64_t ld = row ? p->ldb : p->lda, side = row ? p->n : p->m;
  int64_t step_x = row ? (p->ta ? p->lda : 1) : (p->tb ? 1 : p->ldb), step_y = row ? 1 : p->ldc;
  int rows = (int)(stored_by_k ? p->k : side), cols = (int)(stored_by_k ? side : p->k);
  CBLAS_TRANSPOSE t = stored_by_k ? CblasTrans : CblasNoTrans;
  if (p->dtype == MAREA_F64)
    cblas_dgemv(CblasRowMajor, t, rows, cols, 1, (const double *)matrix, (int)ld, (const double *)x,
                (int)step_x, beta, (double *)p->c, (int)step_y);
  else
    cblas_sgemv(CblasRowMajor, t, rows, cols, 1, (const float *)matrix, (int)ld, (const float *)x,
                (int)step_x, (float)beta, (float *)p->c, (int)step_y);
  return true;
}

static void multiply (const product *p) {
  if (p->m == 0 || p->n == 0) return;
  if (p->k == 0) {
    if (!p->accumulate) clear(p);
    return;
  }
  if (openblas_get_num_threads() != 1) openblas_set_num_threads(1);
  if (multiply_vector(p)) return;
  CBLAS_TRANSPOSE ta = p->ta ? CblasTrans : CblasNoTrans, tb = p->tb ? CblasTrans : CblasNoTrans;
  int m = (int)p->m, n = (int)p->n, k = (int)p->k;
  if (p->dtype == MAREA_F64)
    cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, 1, (const double *)p->a, (int)p->lda, (const double *)p->b,
                (int)p->ldb, p->accumulate ? 1 : 0, (double *)p->c, (int)p->ldc);
  else
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1, (const float *)p->a, (int)p->lda, (const float *)p->b,
                (int)p->ldb, p->accumulate ? 1 : 0, (float *)p->c, (int)p->ldc);
}

/* Sizes fit in int: marea_gemm_parallel refuses larger ones, and marea_bytes a dimension above INT32_MAX. */
static product make_product (int dtype, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const void *a,
                             const void *b, bool accumulate, void *c) {
  return (product){dtype, ta, tb, accumulate, m, n, k, ta ? m : k, tb ? k : n, n, a, b, c};
}

void marea_gemm (int dtype, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const void *a, const void *b,
                 bool accumulate, void *c) {
  product p = make_product(dtype, ta, tb, m, n, k, a, b, accumulate, c);
  multiply(&p);
}

/* ---- cut into blocks ---- */

typedef enum cut { CUT_M, CUT_N, CUT_K } cut;

typedef struct job {
  product all;
  cut cut;
  int64_t step;  /* of the side that is cut */
  char *partial; /* CUT_K: (blocks - 1) products of m * n, of the blocks after the first */
} job;

static int64_t *side_of (product *p, cut how) { return how == CUT_M ? &p->m : how == CUT_N ? &p->n : &p->k; }

static void run_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const job *j = arg;
  product p = j->all;
  int64_t start = block * j->step, *side = side_of(&p, j->cut);
  *side = MAREA_MIN(j->step, *side - start);
  size_t size = size_of(p.dtype);
  if (j->cut != CUT_N) p.a += (size_t)(start * ((j->cut == CUT_M) == p.ta ? 1 : p.lda)) * size;
  if (j->cut != CUT_M) p.b += (size_t)(start * ((j->cut == CUT_N) == p.tb ? p.ldb : 1)) * size;
  if (j->cut == CUT_M) p.c += (size_t)(start * p.ldc) * size;
  if (j->cut == CUT_N) p.c += (size_t)start * size;
  if (j->cut == CUT_K && block > 0) {
    p.c = j->partial + (size_t)((block - 1) * p.m * p.n) * size;
    p.accumulate = false;
  }
  multiply(&p);
}

/* Blocks of at least MIN_WORK, at most MAX_BLOCKS of them, and not so narrow that packing the operand they
   share costs more than it brings. */
static void choose_cut (job *j) {
  product *p = &j->all;
  int64_t narrow = p->m * p->n <= 256 * 256 && p->k >= 4 * MAREA_MAX(p->m, p->n);
  j->cut = narrow ? CUT_K : p->m >= p->n ? CUT_M : CUT_N;
  int64_t side = *side_of(p, j->cut);
  double per_unit = (double)p->m * (double)p->n * (double)p->k / (double)side;
  int64_t step = (int64_t)(MIN_WORK / per_unit) + 1;
  step = MAREA_MAX(step, (side + MAX_BLOCKS - 1) / MAX_BLOCKS);
  step = MAREA_MAX(step, p->k > 1 && p->m > 1 && p->n > 1 ? 2 * GRAIN : 1);
  j->step = (step + GRAIN - 1) / GRAIN * GRAIN;
}

static void fold_partial (marea_context *ctx, const job *j, int64_t blocks) {
  size_t n = (size_t)(j->all.m * j->all.n);
  const marea_kernels *k = ctx->kernels[j->all.dtype];
  for (int64_t block = 1; block < blocks; block++)
    k->add(n, j->all.c, 1, j->partial + (size_t)(block - 1) * n * size_of(j->all.dtype), 1, j->all.c, NULL);
}

marea_status marea_gemm_parallel (marea_context *ctx, int dtype, bool ta, bool tb, int64_t m, int64_t n,
                                  int64_t k, const void *a, const void *b, bool accumulate, void *c) {
  if (MAREA_MAX(m, MAREA_MAX(n, k)) > INT32_MAX)
    return marea_fail(ctx, MAREA_ESHAPE, "matmul: %lld x %lld x %lld: a side is longer than 2147483647",
                      (long long)m, (long long)k, (long long)n);
  job j = {.all = make_product(dtype, ta, tb, m, n, k, a, b, accumulate, c)};
  if (m == 0 || n == 0 || k == 0 || (double)m * (double)n * (double)k < 2.0 * MIN_WORK) {
    multiply(&j.all);
    return MAREA_OK;
  }
  choose_cut(&j);
  int64_t blocks = (*side_of(&j.all, j.cut) + j.step - 1) / j.step;
  if (j.cut == CUT_K && blocks > 1) {
    j.partial = marea_alloc(ctx, (size_t)((blocks - 1) * m * n) * size_of(dtype));
    if (!j.partial) return marea_fail(ctx, MAREA_ENOMEM, "matmul: out of memory for partial sums");
  }
  marea_parallel(ctx, blocks, run_block, &j);
  if (j.cut == CUT_K) fold_partial(ctx, &j, blocks);
  marea_free(ctx, j.partial);
  return MAREA_OK;
}
