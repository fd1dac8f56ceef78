/* SPDX-License-Identifier: MIT
** rows.c: normalization of rows, each one by its own mean and variance, or by its root mean square. A row is measured
** and used while it is in the cache, in the backward pass too: nothing is kept from the forward pass.
*/
#include <math.h>
#include <string.h>

#include "norm.h"
#include "ops/reduce_loops.h"

/* Blocks of rows, each with its own sums for the parameters' gradients: 64 keep up to as many threads busy. */
#define PARTS 64
/* Rows whose sums are kept in the tensor's dtype: the rounding error of 64 additions in f32 is 4e-6 at most. */
#define FEW 64

typedef struct rows {
  const marea_kernels *k;
  int dtype;
  size_t size, width, bytes; /* bytes of a row */
  int64_t n, part;           /* rows, and rows of a block */
  double eps;
  bool is_rms;
  const char *x, *dy, *weight, *bias;
  char *out;    /* y or dx */
  char *memory; /* [worker][4] rows */
  size_t step;  /* from a worker's to the next one's */
  double *sums; /* [block][2][width]: for weight and bias; NULL: not wanted */
} rows;

static rows rows_of (const marea_call *c, const marea_norm *g, const marea_tensor *x,
                     const marea_tensor *weight) {
  rows p = {.k = c->ctx->kernels[x->dtype],
            .dtype = x->dtype,
            .size = marea_dtype_size((marea_dtype)x->dtype),
            .width = (size_t)g->width,
            .n = g->n,
            .eps = g->eps,
            .is_rms = g->is_rms,
            .x = marea_at(x),
            .weight = weight ? marea_at(weight) : NULL};
  p.bytes = p.width * p.size;
  return p;
}

/* The same in double, where squares have left the range of the dtype. */
static double measure_wide (const rows *p, const char *x, double *mean) {
  const marea_reduction row = {.x = x, .dtype = p->dtype, .outer = 1, .count = (int64_t)p->width, .inner = 1};
  const marea_moments m = marea_reduce_moments(&row, 0, (double)p->width);
  *mean = m.mean;
  return 1 / hypot(p->is_rms ? hypot(m.std, m.mean) : m.std, sqrt(p->eps));
}

/* y := x / sqrt(mean of squares + eps); returns the factor */
static double scale_by_rms (const rows *p, const char *x, char *y) {
  double sum, squares;
  p->k->moments(p->width, x, 0, &sum, &squares);
  double rate = 1 / sqrt(squares / (double)p->width + p->eps);
  if (!(rate > 0 && rate < INFINITY)) rate = measure_wide(p, x, &sum);
  p->k->scale(p->width, rate, x, y);
  return rate;
}

/* y := (x - mean) / sqrt(variance + eps), or by the root mean square; returns the factor */
static double standardize (const rows *p, const char *x, char *y) {
  if (p->is_rms) return scale_by_rms(p, x, y);
  double shift, rest, sum, squares;
  const double n = (double)p->width;
  marea_norm_store(p->dtype, &shift, 0, p->k->sum(p->width, x) / n);
  p->k->moments(p->width, x, marea_norm_load(p->dtype, &shift, 0), &sum, &squares);
  const double variance = MAREA_MAX(squares / n - sum / n * (sum / n), 0);
  double rate = 1 / sqrt(variance + p->eps), mean = sum / n;
  if (!(rate > 0 && rate < INFINITY)) {
    rate = measure_wide(p, x, &mean);
    marea_norm_store(p->dtype, &shift, 0, mean);
    mean -= marea_norm_load(p->dtype, &shift, 0);
  }
  marea_norm_store(p->dtype, &rest, 0, mean);
  p->k->sub(p->width, x, 1, &shift, 0, y, NULL);
  p->k->sub(p->width, y, 1, &rest, 0, y, NULL);
  p->k->scale(p->width, rate, y, y);
  return rate;
}

static void forward_block (void *arg, int64_t block, int worker) {
  const rows *p = arg;
  (void)worker;
  for (int64_t i = block * p->part; i < MAREA_MIN((block + 1) * p->part, p->n); i++) {
    char *y = p->out + (size_t)i * p->bytes;
    standardize(p, p->x + (size_t)i * p->bytes, y);
    if (p->weight) p->k->mul(p->width, y, 1, p->weight, 1, y, NULL);
    if (p->bias) p->k->add(p->width, y, 1, p->bias, 1, y, NULL);
  }
}

marea_status marea_norm_rows (marea_call *c, const marea_norm *g, const marea_tensor *x,
                              const marea_tensor *weight, const marea_tensor *bias, marea_tensor *y) {
  rows p = rows_of(c, g, x, weight);
  p.bias = bias ? marea_at(bias) : NULL;
  p.out = marea_at(y);
  p.part = MAREA_MAX(1, MAREA_BLOCK / MAREA_MAX(g->width, 1));
  marea_parallel(c->ctx, (p.n + p.part - 1) / p.part, forward_block, &p);
  return MAREA_OK;
}

/* ---- gradients ----
** dx = rate (e - mean(e) - xhat mean(e xhat)) with e = dy weight; without mean(e) where x's mean is taken as 0 */

/* dx, from xhat and a row of workspace */
static void row_gradient (const rows *p, const char *dy, const char *xhat, double rate, char *e, char *dx) {
  double mean;
  const double n = (double)p->width;
  if (p->weight) p->k->mul(p->width, dy, 1, p->weight, 1, e, NULL);
  else memcpy(e, dy, p->bytes);
  p->k->mul(p->width, e, 1, xhat, 1, dx, NULL);
  const double product = p->k->sum(p->width, dx) / n;
  if (!p->is_rms) marea_norm_store(p->dtype, &mean, 0, p->k->sum(p->width, e) / n);
  p->k->axpy(p->width, -product, xhat, e);
  if (!p->is_rms) p->k->sub(p->width, e, 1, &mean, 0, e, NULL);
  p->k->scale(p->width, rate, e, dx);
}

/* total += few; few := 0 */
static void add_few (const rows *p, double *total, char *few) {
  for (size_t i = 0; i < 2 * p->width; i++) total[i] += marea_norm_load(p->dtype, few, (int64_t)i);
  memset(few, 0, 2 * p->bytes);
}

static void backward_block (void *arg, int64_t block, int worker) {
  const rows *p = arg;
  char *xhat = p->memory + (size_t)worker * p->step, *e = xhat + p->bytes, *dweight = e + p->bytes;
  char *dbias = dweight + p->bytes;
  double *total = p->sums ? p->sums + (size_t)block * 2 * p->width : NULL;
  if (total) memset(total, 0, 2 * p->width * sizeof *total);
  memset(dweight, 0, 2 * p->bytes);
  const int64_t first = block * p->part, end = MAREA_MIN(first + p->part, p->n);
  for (int64_t i = first; i < end; i++) {
    const char *dy = p->dy + (size_t)i * p->bytes;
    const double rate = standardize(p, p->x + (size_t)i * p->bytes, xhat);
    if (p->out) row_gradient(p, dy, xhat, rate, e, p->out + (size_t)i * p->bytes);
    if (!total) continue;
    p->k->mul(p->width, dy, 1, xhat, 1, xhat, NULL);
    p->k->add(p->width, dweight, 1, xhat, 1, dweight, NULL);
    p->k->add(p->width, dbias, 1, dy, 1, dbias, NULL);
    if ((i - first + 1) % FEW == 0 || i + 1 == end) add_few(p, total, dweight);
  }
}

/* t[i] := sum over the blocks of row `which` of their sums */
static void reduce_parts (const rows *p, int64_t blocks, size_t which, marea_tensor *t) {
  for (size_t i = 0; t && i < p->width; i++) {
    double total = 0;
    for (int64_t block = 0; block < blocks; block++)
      total += p->sums[((size_t)block * 2 + which) * p->width + i];
    marea_norm_store(p->dtype, marea_at(t), (int64_t)i, total);
  }
}

marea_status marea_norm_rows_backward (marea_call *c, const marea_norm *g, const marea_norm_back *b) {
  rows p = rows_of(c, g, b->x, b->weight);
  p.dy = marea_at(b->dy);
  p.out = b->dx ? marea_at(b->dx) : NULL;
  p.part = MAREA_MAX((p.n + PARTS - 1) / PARTS, MAREA_MAX(1, MAREA_BLOCK / MAREA_MAX(g->width, 1)));
  const int64_t blocks = (p.n + p.part - 1) / p.part;
  p.step = 4 * p.bytes;
  MAREA_TRY(marea_worker_memory(c, &p.step, &p.memory));
  if (b->dweight || b->dbias)
    MAREA_WORKSPACE_OR_RETURN(c, p.sums, MAREA_MAX((size_t)blocks * 2 * p.width * sizeof(double), 1));
  marea_parallel(c->ctx, blocks, backward_block, &p);
  reduce_parts(&p, blocks, 0, b->dweight);
  reduce_parts(&p, blocks, 1, b->dbias);
  return MAREA_OK;
}
