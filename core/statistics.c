/* SPDX-License-Identifier: MIT
** statistics.c: least, largest and mean element of a tensor, and how many are NaN or infinite, in one pass over
** memory and in bounded time: of a large tensor it reads stretches that lie at equal distances.
**
** A stretch is small enough to stay in the first-level cache, where the kernels for sum, minimum and maximum go over it
** one after the other; NaNs and infinities are taken out before, of the stretches that hold some. Which elements are
** read depends on shape, strides and the limit alone, and partial results are added up in a fixed order.
*/
#include <math.h>
#include <string.h>

#include "core.h"

#define STRETCH 2048 /* elements: 16 KB of 8 bytes each, half of a first-level cache */
#define BLOCKS 64    /* units of parallel work */
#define SHORT_RUN 64 /* shorter runs are copied together before the kernels read them */

/* The distinct elements, as dimensions in order of falling strides; each is `repeat` elements of the tensor. */
typedef struct grid {
  const char *data;
  int dtype, rank;
  int64_t shape[MAREA_MAX_RANK], stride[MAREA_MAX_RANK]; /* outermost first */
  int64_t size, repeat;
} grid;

typedef struct partial {
  double least, most, sum;
  int64_t finite, nans, infinities, seen;
} partial;

typedef struct job {
  const marea_context *ctx;
  const marea_kernels *k;
  grid g;
  int dtype;               /* in which elements are looked at: that of the grid, or what it is computed in */
  int64_t stretches, read; /* number of stretches; number of those that are read */
  partial part[BLOCKS];
} job;

/* ---- the grid ---- */

/* Inserts a dimension in order of falling strides. */
static void insert (grid *g, int64_t size, int64_t stride) {
  int at = g->rank++;
  for (; at > 0 && g->stride[at - 1] < stride; at--) {
    g->shape[at] = g->shape[at - 1];
    g->stride[at] = g->stride[at - 1];
  }
  g->shape[at] = size;
  g->stride[at] = stride;
}

/* Joins dimensions that follow each other without a gap. */
static void join (grid *g) {
  int n = 0;
  for (int d = 0; d < g->rank; d++) {
    const bool follows = n > 0 && g->stride[n - 1] == g->shape[d] * g->stride[d];
    if (follows) g->shape[n - 1] *= g->shape[d];
    else g->shape[n++] = g->shape[d];
    g->stride[n - 1] = g->stride[d];
  }
  g->rank = n;
}

static grid grid_of (const marea_tensor *t) {
  grid g = {.dtype = t->dtype, .size = 1, .repeat = 1};
  for (int d = 0; d < t->rank; d++) {
    if (t->stride[d] == 0) g.repeat *= t->shape[d];
    else if (t->shape[d] != 1) insert(&g, t->shape[d], t->stride[d]);
  }
  join(&g);
  for (int d = 0; d < g.rank; d++) g.size *= g.shape[d];
  g.data = marea_at(t);
  return g;
}

/* The address of element i; *run := number of elements from it to the end of the innermost dimension. */
static const char *locate (const grid *g, int64_t i, int64_t *run) {
  int64_t offset = 0;
  *run = 1;
  for (int d = g->rank - 1; d >= 0; d--) {
    const int64_t at = i % g->shape[d];
    if (d == g->rank - 1) *run = g->shape[d] - at;
    offset += at * g->stride[d];
    i /= g->shape[d];
  }
  return g->data + offset * (int64_t)marea_dtype_size((marea_dtype)g->dtype);
}

static int64_t inner_stride (const grid *g) { return g->rank > 0 ? g->stride[g->rank - 1] : 1; }

/* How many elements of memory are fetched for each that is used: whole cache lines are. */
static int64_t cost (const grid *g) {
  const int64_t in_line = MAREA_ALIGN / (int64_t)marea_dtype_size((marea_dtype)g->dtype);
  return MAREA_MIN(inner_stride(g), in_line);
}

/* ---- a stretch ---- */

static void take (partial *p, double least, double most, double sum, int64_t n) {
  if (n == 0) return;
  if (p->finite == 0 || least < p->least) p->least = least;
  if (p->finite == 0 || most > p->most) p->most = most;
  p->sum += sum;
  p->finite += n;
}

/* y := the finite of x[0..n-1], *kept of them. Returns how many are NaN. */
#define KEEP_FINITE(real)                                                               \
  static int64_t keep_finite_##real(int64_t n, const real *x, real *y, int64_t *kept) { \
    int64_t nans = 0, m = 0;                                                            \
    for (int64_t i = 0; i < n; i++) {                                                   \
      y[m] = x[i];                                                                      \
      m += x[i] - x[i] == 0;                                                            \
      nans += x[i] != x[i];                                                             \
    }                                                                                   \
    *kept = m;                                                                          \
    return nans;                                                                        \
  }
KEEP_FINITE(float)
KEEP_FINITE(double)

typedef uint8_t bytes __attribute__((vector_size(16)));
typedef uint16_t sums __attribute__((vector_size(16)));

/* The sums of bytes stay within 16 bits: STRETCH / 16 times two bytes. */
static void look_at_bytes (const uint8_t *x, int64_t n, partial *p) {
  bytes low = ~(bytes){0}, high = {0};
  sums sum = {0};
  uint8_t least = UINT8_MAX, most = 0;
  int64_t total = 0, i = 0;
  for (; i + 16 <= n; i += 16) {
    bytes v;
    sums pairs;
    memcpy(&v, x + i, sizeof v);
    memcpy(&pairs, &v, sizeof v);
    const bytes less = (bytes)(v < low), more = (bytes)(v > high);
    low = (v & less) | (low & ~less);
    high = (v & more) | (high & ~more);
    sum += (pairs & 255) + (pairs >> 8);
  }
  for (int k = 0; k < 16; k++) {
    least = MAREA_MIN(least, low[k]);
    most = MAREA_MAX(most, high[k]);
  }
  for (int k = 0; k < 8; k++) total += sum[k];
  for (; i < n; i++) {
    least = MAREA_MIN(least, x[i]);
    most = MAREA_MAX(most, x[i]);
    total += x[i];
  }
  take(p, least, most, (double)total, n);
}

static void look_at_integers (const int64_t *x, int64_t n, partial *p) {
  int64_t least = INT64_MAX, most = INT64_MIN;
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    least = MAREA_MIN(least, x[i]);
    most = MAREA_MAX(most, x[i]);
    sum += (double)x[i];
  }
  take(p, (double)least, (double)most, sum, n);
}

static void look_at_finite (const marea_kernels *k, const void *x, int64_t n, double sum, partial *p) {
  if (n > 0) take(p, k->min((size_t)n, x), k->max((size_t)n, x), sum, n);
}

/* A finite sum tells that all elements are finite; if the sum alone overflows, they are counted one by one. */
static void look_at_reals (const job *j, const void *x, int64_t n, partial *p) {
  double finite[STRETCH], sum = j->k->sum((size_t)n, x);
  int64_t kept = 0;
  if (isfinite(sum)) {
    look_at_finite(j->k, x, n, sum, p);
    return;
  }
  int64_t nans = 0;
#define KEEP(type) nans = keep_finite_##type(n, x, (type *)finite, &kept)
  MAREA_SWITCH_FLOAT(j->dtype, KEEP);
  look_at_finite(j->k, finite, kept, j->k->sum((size_t)kept, finite), p);
  p->nans += nans;
  p->infinities += n - kept - nans;
}

/* At most STRETCH elements side by side. */
static void look_at (const job *j, const void *x, int64_t n, partial *p) {
  p->seen += n;
#define LOOK_float look_at_reals(j, x, n, p)
#define LOOK_double look_at_reals(j, x, n, p)
#define LOOK_int64_t look_at_integers(x, n, p)
#define LOOK_uint8_t look_at_bytes(x, n, p)
#define LOOK(type) LOOK_##type
  MAREA_SWITCH_DTYPE(j->dtype, LOOK);
}

/* Element `first` and those after it, up to n of them. */
static void read_stretch (const job *j, int64_t first, int64_t n, partial *p) {
  const int64_t stride = inner_stride(&j->g), size = (int64_t)marea_dtype_size((marea_dtype)j->dtype);
  const bool as_is = stride == 1 && j->dtype == j->g.dtype;
  int64_t gathered[STRETCH], run, n_gathered = 0;
  while (n > 0) {
    const char *x = locate(&j->g, first, &run);
    run = MAREA_MIN(run, n);
    if (as_is && run >= SHORT_RUN) look_at(j, x, run, p);
    else {
      marea_convert_run(j->ctx, run, j->g.dtype, x, stride, j->dtype, (char *)gathered + n_gathered * size,
                        1);
      n_gathered += run;
    }
    first += run;
    n -= run;
  }
  if (n_gathered > 0) look_at(j, gathered, n_gathered, p);
}

static void read_block (void *arg, int64_t block, int worker) {
  job *j = arg;
  partial *p = &j->part[block];
  (void)worker;
  for (int64_t i = block * j->read / BLOCKS; i < (block + 1) * j->read / BLOCKS; i++) {
    const int64_t at = j->read == j->stretches
                           ? i
                           : (int64_t)((double)i * (double)(j->stretches - 1) / (double)(j->read - 1));
    read_stretch(j, at * STRETCH, MAREA_MIN(STRETCH, j->g.size - at * STRETCH), p);
  }
}

/* ---- all of it ---- */

void marea_statistics_of (const marea_tensor *t, int64_t most, marea_statistics *s) {
  MAREA_ENTER;
  if (s) memset(s, 0, sizeof *s);
  if (!s || !t || marea_count(t->rank, t->shape) == 0 || marea_is_planned(t)) return;
  marea_context *ctx = t->ctx;
  const int dtype = marea_computed_in(t->dtype);
  job j = {.ctx = ctx, .k = ctx->kernels[dtype], .g = grid_of(t), .dtype = dtype};
  partial all = {0};
  j.stretches = (j.g.size + STRETCH - 1) / STRETCH;
  const int64_t limit = most / cost(&j.g);
  j.read = most > 0 && j.g.size > limit ? MAREA_MAX(limit / STRETCH, 2) : j.stretches;
  const bool shielded = ctx->shielded;
  ctx->shielded = true; /* the time is bounded */
  marea_parallel(ctx, BLOCKS, read_block, &j);
  ctx->shielded = shielded;
  for (int b = 0; b < BLOCKS; b++) {
    const partial *p = &j.part[b];
    if (p->finite > 0) take(&all, p->least, p->most, p->sum, p->finite);
    all.nans += p->nans;
    all.infinities += p->infinities;
    all.seen += p->seen;
  }
  *s = (marea_statistics){.least = all.least,
                          .most = all.most,
                          .mean = all.finite > 0 ? all.sum / (double)all.finite : 0,
                          .finite = all.finite * j.g.repeat,
                          .nans = all.nans * j.g.repeat,
                          .infinities = all.infinities * j.g.repeat,
                          .seen = all.seen * j.g.repeat};
}
