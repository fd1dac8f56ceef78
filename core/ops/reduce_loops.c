/* SPDX-License-Identifier: MIT
** reduce_loops.c: reductions of (outer, count, inner) arrays to (outer, inner), in parallel, near memory speed.
**
** The reduced range is cut into fixed chunks and the inner one into fixed tiles; each chunk of a tile is a
** unit of work that leaves partial results in double, and the partials are added in order. So neither the
** number of threads nor their timing changes a bit. With inner = 1 the kernels run along rows; otherwise
** whole rows are added into a row of accumulators, a few hundred at a time in the tensor's dtype and then
** in double, so that the error does not grow with the number of rows.
*/
#include "reduce_loops.h"

#include <math.h>
#include <string.h>

/* Columns of a unit: accumulators and buffers of 4 KB each, four of them in a first-level cache. */
#define TILE 512
/* Rows that are added up in the tensor's dtype: the error is at most 256 x 2^-24 of their size. */
#define DEEP 256
#define PIECE 1024 /* elements of a buffer between two kernels: 8 KB */

typedef struct reduce_job {
  const marea_kernels *k;
  marea_reduction f;
  marea_reduce_kind kind;
  const double *shift;
  double divisor;
  int out_dtype;
  void *out;
  double *partial;       /* (outer, chunks, inner); NULL when there is one chunk */
  int64_t chunk, chunks; /* rows of a chunk, chunks */
  int64_t tiles, units, units_per_block;
} reduce_job;

static double combine (marea_reduce_kind kind, double a, double b) {
  if (kind == MAREA_REDUCE_PRODUCT) return a * b;
  if (kind == MAREA_REDUCE_MAX || kind == MAREA_REDUCE_LARGEST) return a > b || a != a ? a : b;
  if (kind == MAREA_REDUCE_MIN) return a < b || a != a ? a : b;
  return a + b;
}

/* to[i] := x[i], n elements of a float's dtype */
static void load_all (int dtype, const void *x, int64_t n, double *to) {
#define LOAD_ALL(type) \
  for (int64_t i = 0; i < n; i++) to[i] = (double)((const type *)x)[i]
  MAREA_SWITCH_FLOAT(dtype, LOAD_ALL);
}

/* out[first..] := total / divisor, n elements */
static void store_all (const reduce_job *j, int64_t first, int64_t n, const double *total) {
  if (j->out_dtype == MAREA_F32) {
    for (int64_t i = 0; i < n; i++) ((float *)j->out)[first + i] = (float)(total[i] / j->divisor);
    return;
  }
  for (int64_t i = 0; i < n; i++) marea_store(j->out_dtype, j->out, first + i, total[i] / j->divisor);
}

/* ---- rows: inner = 1 ---- */

static double row_squares (const marea_kernels *k, int dtype, int64_t n, const char *x, double shift) {
  double buffer[PIECE], mean, total = 0;
  marea_store(dtype, &mean, 0, shift);
  for (int64_t i = 0; i < n; i += PIECE) {
    const size_t part = (size_t)MAREA_MIN(PIECE, n - i);
    k->squared_difference(part, x + (size_t)i * marea_element_size(dtype), 1, &mean, 0, buffer, NULL);
    total += k->sum(part, buffer);
  }
  return total;
}

/* y := |x / scale|^power of n elements, `step` 0: one scale for all */
static void powers_of (const reduce_job *j, size_t n, const char *x, const void *scale, size_t step,
                       void *y) {
  const marea_kernels *k = j->k;
  double power;
  k->div(n, x, 1, scale, step, y, NULL);
  if (j->f.power == 2) {
    k->square(n, y, y, NULL);
    return;
  }
  k->abs(n, y, y, NULL);
  if (j->f.power == 1) return;
  marea_store(j->f.dtype, &power, 0, j->f.power);
  k->pow(n, y, 1, &power, 0, y, NULL);
}

static double row_powers (const reduce_job *j, int64_t n, const char *x, double shift) {
  double buffer[PIECE], scale, total = 0;
  marea_store(j->f.dtype, &scale, 0, shift);
  for (int64_t i = 0; i < n; i += PIECE) {
    const size_t part = (size_t)MAREA_MIN(PIECE, n - i);
    powers_of(j, part, x + (size_t)i * marea_element_size(j->f.dtype), &scale, 0, buffer);
    total += j->k->sum(part, buffer);
  }
  return total;
}

static double reduce_row (const reduce_job *j, int64_t n, const char *x, double shift) {
  switch (j->kind) {
  case MAREA_REDUCE_MAX: return j->k->max((size_t)n, x);
  case MAREA_REDUCE_MIN: return j->k->min((size_t)n, x);
  case MAREA_REDUCE_SQUARES: return row_squares(j->k, j->f.dtype, n, x, shift);
  case MAREA_REDUCE_EXPS: return j->k->exp_sum((size_t)n, shift, x, NULL);
  case MAREA_REDUCE_PRODUCT: return j->k->prod((size_t)n, x);
  case MAREA_REDUCE_LARGEST:
    return combine(MAREA_REDUCE_MAX, j->k->max((size_t)n, x), -j->k->min((size_t)n, x));
  case MAREA_REDUCE_POWERS: return row_powers(j, n, x, shift);
  default: return j->k->sum((size_t)n, x);
  }
}

/* ---- columns: inner > 1 ---- */

/* acc[w] := the largest |x| of n >= 1 rows */
static void reduce_largest (const reduce_job *j, int64_t n, int64_t w, size_t step, const char *x,
                            void *acc) {
  double buffer[TILE];
  j->k->abs((size_t)w, x, acc, NULL);
  for (int64_t r = 1; r < n; r++) {
    j->k->abs((size_t)w, x + (size_t)r * step, buffer, NULL);
    j->k->maximum((size_t)w, acc, 1, buffer, 1, acc, NULL);
  }
}

#define MULTIPLY_ROW(type) \
  for (int64_t i = 0; i < w; i++) total[i] *= (double)((const type *)x)[i]

/* total[w] := product of n rows */
static void reduce_products (const reduce_job *j, int64_t n, int64_t w, size_t step, const char *x,
                             double *total) {
  for (int64_t i = 0; i < w; i++) total[i] = 1;
  for (int64_t r = 0; r < n; r++, x += step) { MAREA_SWITCH_FLOAT(j->f.dtype, MULTIPLY_ROW); }
}

/* acc[w] := reduction of n >= 1 rows of the elements' differences from `shift`, or of their ratios to it. `together`
   rows lie side by side and are handled at a time; shift holds that many copies of its row, in the tensor's dtype. */
static void reduce_differences (const reduce_job *j, int64_t n, int64_t w, int64_t together, size_t step,
                                const char *x, const void *shift, void *acc) {
  const marea_kernels *k = j->k;
  double buffer[TILE];
  for (int64_t r = 0; r < n; r += together, x += (size_t)together * step) {
    const size_t rows = (size_t)MAREA_MIN(together, n - r), elements = rows * (size_t)w;
    if (j->kind == MAREA_REDUCE_POWERS) {
      powers_of(j, elements, x, shift, 1, buffer);
    } else if (j->kind == MAREA_REDUCE_SQUARES) {
      k->squared_difference(elements, x, 1, shift, 1, buffer, NULL);
    } else {
      k->sub(elements, x, 1, shift, 1, buffer, NULL);
      k->exp(elements, buffer, buffer, NULL);
    }
    k->add_rows(rows, (size_t)w, (size_t)w, buffer, acc);
  }
}

/* acc[w] := reduction of n >= 1 rows, `step` bytes apart */
static void reduce_rows (const reduce_job *j, int64_t n, int64_t w, int64_t together, size_t step,
                         const char *x, const void *shift, void *acc) {
  const size_t size = marea_element_size(j->f.dtype);
  if (j->kind == MAREA_REDUCE_MAX || j->kind == MAREA_REDUCE_MIN) {
    marea_binary_kernel *pick = j->kind == MAREA_REDUCE_MAX ? j->k->maximum : j->k->minimum;
    memcpy(acc, x, (size_t)w * size);
    for (int64_t r = 1; r < n; r++) pick((size_t)w, acc, 1, x + (size_t)r * step, 1, acc, NULL);
    return;
  }
  if (j->kind == MAREA_REDUCE_LARGEST) {
    reduce_largest(j, n, w, step, x, acc);
    return;
  }
  memset(acc, 0, (size_t)w * size);
  if (j->kind == MAREA_REDUCE_SUM) j->k->add_rows((size_t)n, (size_t)w, step / size, x, acc);
  else reduce_differences(j, n, w, together, step, x, shift, acc);
}

/* total[w] := reduction of rows [r0, r1) of tile columns from `first` on */
static void reduce_tile (const reduce_job *j, int64_t o, int64_t r0, int64_t r1, int64_t first, int64_t w,
                         double *total) {
  const int dtype = j->f.dtype;
  const int64_t inner = j->f.inner, together = w == inner ? TILE / w : 1;
  const size_t size = marea_element_size(dtype), step = (size_t)inner * size;
  double acc[TILE], shift[TILE], more[TILE];
  const char *x = (const char *)j->f.x + (size_t)((o * j->f.count + r0) * inner + first) * size;
  if (j->kind == MAREA_REDUCE_PRODUCT) {
    reduce_products(j, r1 - r0, w, step, x, total);
    return;
  }
  for (int64_t i = 0; j->shift && i < together * w; i++)
    marea_store(dtype, shift, i, j->shift[o * inner + first + i % w]);
  for (int64_t r = r0; r < r1; r += DEEP, x += DEEP * step) {
    reduce_rows(j, MAREA_MIN(DEEP, r1 - r), w, together, step, x, shift, acc);
    load_all(dtype, acc, w, r == r0 ? total : more);
    for (int64_t i = 0; r > r0 && i < w; i++) total[i] = combine(j->kind, total[i], more[i]);
  }
}

/* ---- units ---- */

/* The sum of a column of a unit in double, where sums of floats that exceed a float do not overflow. */
static double wide_sum (const reduce_job *j, int64_t first, int64_t rows) {
  double total = 0;
  for (int64_t r = 0; r < rows; r++) total += marea_load(j->f.dtype, j->f.x, first + r * j->f.inner);
  return total;
}

/* Computes the totals that overflowed in f32 again in double; sums of doubles that overflow stay infinite. */
static void repair_sums (const reduce_job *j, int64_t first, int64_t rows, int64_t w, double *total) {
  if (j->kind != MAREA_REDUCE_SUM || j->f.dtype != MAREA_F32) return;
  for (int64_t i = 0; i < w; i++)
    if (!isfinite(total[i])) total[i] = wide_sum(j, first + i, rows);
}

static void run_unit (const reduce_job *j, int64_t unit) {
  const int64_t inner = j->f.inner;
  const int64_t first = unit % j->tiles * TILE, w = MAREA_MIN(TILE, inner - first);
  const int64_t chunk = unit / j->tiles % j->chunks, o = unit / j->tiles / j->chunks;
  const int64_t r0 = chunk * j->chunk, r1 = MAREA_MIN(r0 + j->chunk, j->f.count);
  double total[TILE];
  if (inner == 1) {
    const char *x = (const char *)j->f.x + (size_t)(o * j->f.count + r0) * marea_element_size(j->f.dtype);
    total[0] = reduce_row(j, r1 - r0, x, j->shift ? j->shift[o] : 0);
  } else {
    reduce_tile(j, o, r0, r1, first, w, total);
  }
  repair_sums(j, (o * j->f.count + r0) * inner + first, r1 - r0, w, total);
  if (j->partial) {
    memcpy(j->partial + (o * j->chunks + chunk) * inner + first, total, (size_t)w * sizeof(double));
    return;
  }
  store_all(j, o * inner + first, w, total);
}

static void run_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const reduce_job *j = arg;
  const int64_t end = MAREA_MIN((block + 1) * j->units_per_block, j->units);
  for (int64_t unit = block * j->units_per_block; unit < end; unit++) run_unit(j, unit);
}

static void join_chunks (marea_context *ctx, const reduce_job *j) {
  const int64_t inner = j->f.inner;
  for (int64_t o = 0; o < j->f.outer; o++) {
    for (int64_t i = 0; i < inner && !MAREA_STOPPING(ctx, i); i++) {
      const double *partial = j->partial + o * j->chunks * inner + i;
      double total = partial[0];
      for (int64_t chunk = 1; chunk < j->chunks; chunk++)
        total = combine(j->kind, total, partial[chunk * inner]);
      marea_store(j->out_dtype, j->out, o * inner + i, total / j->divisor);
    }
  }
}

/* Rows of a chunk: a block of elements, but no fewer than DEEP rows, so that partials stay few. */
static int64_t chunk_rows (const marea_reduction *f) {
  if (f->inner <= 1) return MAREA_BLOCK; /* one column, or an empty tensor */
  return MAREA_MAX(DEEP, MAREA_BLOCK / MAREA_MIN(f->inner, TILE));
}

marea_status marea_reduce (marea_call *c, const marea_reduction *f, marea_reduce_kind kind,
                           const double *shift, double divisor, int out_dtype, void *out) {
  reduce_job j = {.k = c->ctx->kernels[f->dtype],
                  .f = *f,
                  .kind = kind,
                  .shift = shift,
                  .divisor = divisor,
                  .out_dtype = out_dtype,
                  .out = out};
  if (f->outer * f->inner == 0) return MAREA_OK;
  if (f->count == 0) {
    for (int64_t i = 0; i < f->outer * f->inner && !MAREA_STOPPING(c->ctx, i); i++)
      marea_store(out_dtype, out, i, kind == MAREA_REDUCE_PRODUCT);
    return MAREA_OK;
  }
  j.chunk = chunk_rows(f);
  j.chunks = (f->count + j.chunk - 1) / j.chunk;
  j.tiles = (f->inner + TILE - 1) / TILE;
  j.units = f->outer * j.chunks * j.tiles;
  j.units_per_block = MAREA_MAX(1, MAREA_BLOCK / (MAREA_MIN(j.chunk, f->count) * MAREA_MIN(TILE, f->inner)));
  if (j.chunks > 1)
    MAREA_WORKSPACE_OR_RETURN(c, j.partial, (size_t)(f->outer * j.chunks * f->inner) * sizeof(double));
  const int64_t blocks = (j.units + j.units_per_block - 1) / j.units_per_block;
  if (blocks == 1) run_block(&j, 0, 0);
  else marea_parallel(c->ctx, blocks, run_block, &j);
  if (j.partial) join_chunks(c->ctx, &j);
  return MAREA_OK;
}

/* ---- standard deviations by hand ---- */

marea_moments marea_reduce_moments (const marea_reduction *f, int64_t i, double divisor) {
  const int64_t first = i / f->inner * f->count * f->inner + i % f->inner, end = first + f->count * f->inner;
  double most = 0, mean = 0, spread = 0, squares = 0;
  for (int64_t k = first; k < end; k += f->inner) {
    const double size = fabs(marea_load(f->dtype, f->x, k));
    if (!isfinite(size)) return (marea_moments){NAN, NAN};
    most = MAREA_MAX(most, size);
  }
  if (most == 0) return (marea_moments){0, 0};
  for (int64_t k = first; k < end; k += f->inner)
    mean += marea_load(f->dtype, f->x, k) / most / (double)f->count;
  for (int64_t k = first; k < end; k += f->inner)
    spread = MAREA_MAX(spread, fabs(marea_load(f->dtype, f->x, k) / most - mean));
  for (int64_t k = first; k < end && spread > 0; k += f->inner) {
    const double d = (marea_load(f->dtype, f->x, k) / most - mean) / spread;
    squares += d * d;
  }
  return (marea_moments){most * mean, most * (spread * sqrt(squares / divisor))};
}

/* ---- integers ---- */

static int64_t combine_ints (marea_reduce_kind kind, int64_t a, int64_t b) {
  if (kind == MAREA_REDUCE_MAX) return MAREA_MAX(a, b);
  if (kind == MAREA_REDUCE_MIN) return MAREA_MIN(a, b);
  if (kind == MAREA_REDUCE_PRODUCT)
    return (int64_t)((uint64_t)a * (uint64_t)b); /* wraps around, as the sum does */
  return (int64_t)((uint64_t)a + (uint64_t)b);
}

/* Element i of outer * inner */
#define REDUCE_COLUMN(type)                                                                 \
  {                                                                                         \
    const type *x = (const type *)f->x + i / f->inner * f->count * f->inner + i % f->inner; \
    if (f->count > 0) total = x[0];                                                         \
    for (int64_t r = 1; r < f->count && !MAREA_STOPPING(ctx, r); r++)                       \
      total = combine_ints(kind, total, x[r * f->inner]);                                   \
  }

void marea_reduce_ints (marea_context *ctx, const marea_reduction *f, marea_reduce_kind kind, int out_dtype,
                        void *out) {
  for (int64_t i = 0; i < f->outer * f->inner && !MAREA_STOPPING(ctx, i); i++) {
    int64_t total = kind == MAREA_REDUCE_PRODUCT; /* of no elements */
    MAREA_SWITCH_INTEGER(f->dtype, REDUCE_COLUMN);
    marea_store_integer(out_dtype, out, i, total);
  }
}

/* ---- the view ---- */

/* Are the reduced dimensions neighbours, sizes of 1 aside? Then f is a view of t. */
static bool view_of (const marea_tensor *t, const bool *set, marea_reduction *f) {
  f->outer = f->count = f->inner = 1;
  bool found = false;
  for (int d = 0; d < t->rank; d++) {
    if (t->shape[d] == 1) continue;
    if (set[d]) {
      if (found && f->inner != 1) return false;
      f->count *= t->shape[d];
      found = true;
    } else if (found) {
      f->inner *= t->shape[d];
    } else {
      f->outer *= t->shape[d];
    }
  }
  if (!found) { /* nothing to reduce: one row */
    f->inner = f->outer;
    f->outer = 1;
  }
  return true;
}

/* t with its reduced dimensions last; owns nothing. */
static marea_tensor reduced_last (const marea_tensor *t, const bool *set) {
  marea_tensor order = *t;
  int n = 0;
  for (int last = 0; last < 2; last++) {
    for (int d = 0; d < t->rank; d++) {
      if (set[d] != (last == 1)) continue;
      order.shape[n] = t->shape[d];
      order.stride[n++] = t->stride[d];
    }
  }
  return order;
}

marea_status marea_reduce_over (marea_call *c, const marea_tensor *t, const bool *set, marea_reduction *f) {
  f->dtype = t->dtype;
  f->x = marea_at(t);
  if (view_of(t, set, f)) return MAREA_OK;
  f->outer = f->count = f->inner = 1;
  for (int d = 0; d < t->rank; d++) *(set[d] ? &f->count : &f->outer) *= t->shape[d];
  const marea_tensor order = reduced_last(t, set);
  marea_tensor copy = order;
  marea_storage memory = {.ctx = c->ctx};
  const size_t bytes = (size_t)(f->outer * f->count) * marea_dtype_size((marea_dtype)t->dtype);
  MAREA_WORKSPACE_OR_RETURN(c, memory.data, bytes);
  copy.storage = &memory;
  copy.offset = 0;
  marea_row_major(copy.rank, copy.shape, copy.stride);
  marea_copy_strided(c->ctx, &order, &copy);
  f->x = memory.data;
  return MAREA_OK;
}
