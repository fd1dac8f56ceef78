/* SPDX-License-Identifier: MIT
** columns.c: normalization where a channel is a column: statistics of every channel in one pass, their application in a
** second one, and the gradient in two passes.
**
** Rows are cut into chunks and channels into tiles; a chunk of a tile leaves partial results in double, and these
** are added in order, so the bits do not depend on threads. A chunk is read twice, the second time from the cache:
** once for its mean, once for the moments about that mean.
**
** Elements that are only stored (bf16, f16) pass through a buffer, some rows at a time, and what is made of them is
** rounded once; of bf16 kernels do so in registers, where there are such kernels and no activation but relu. Rows of few channels are folded: kernels see several of them as one row, whose columns are added up in
** the end, so that their vectors are full and their sums do not wait for each other.
*/
#include <math.h>
#include <string.h>

#include "norm.h"
#include "ops/reduce_loops.h"

/* Channels of a unit of work: its sums, squares and shifts in double take 12 KB of a first-level cache. */
#define TILE 512
/* Rows, folded ones, whose sums are kept in the dtype that is computed in: the rounding error of 256 additions in f32 is 1.5e-5 at most. */
#define DEEP 256
/* Elements that are made, or converted, for the next kernel, and then stay in the first-level cache: in double; and of
   those that are only stored, so few that as many lines as they take may be requested at once. */
#define BUFFER 2048
#define CONVERTED 1024
/* Groups whose partial results are reduced in one block: some microseconds. */
#define GROUPS 512
/* Columns of folded rows: four vectors of AVX-512. */
#define FOLDED 64

typedef struct elements {
  char *at;
  int dtype;
  size_t size;
} elements;

typedef struct columns {
  const marea_context *ctx;
  const marea_kernels *k;
  int dtype; /* that is computed in */
  size_t size;
  marea_norm g;
  int64_t channels, chunk, chunks, tiles, units, units_per_block;
  bool in_registers;       /* all of x, dy and what is made are bf16 that kernels take as it is */
  int64_t most;            /* elements of a buffer */
  int64_t fold, folded;    /* rows that are folded; their columns */
  double *first, *second;  /* [n][chunk][channel]: mean and squares about it; sums of e and of e (x - mean) */
  double *mean, *variance; /* [n * groups] */
  elements x, dy, out;
  const marea_tensor *weight, *bias;
  marea_tensor *dweight, *dbias;
  void *at_mean, *factor, *offset; /* [n * folded]: y = act((x - mean) factor + offset) */
  void *a, *b, *c;                 /* [n * folded]: dx = a e + b (x - mean) + c */
  int64_t run, runs, parts; /* of the last pass: rows of a block, blocks of one n, parts of a wide row */
} columns;

static elements elements_of (const marea_tensor *t) {
  return t ? (elements){marea_at(t), t->dtype, marea_element_size(t->dtype)} : (elements){0};
}

static columns columns_of (const marea_call *c, const marea_norm *g, const marea_tensor *x) {
  const int64_t channels = marea_norm_channels(g), tile = MAREA_MAX(MAREA_MIN(channels, TILE), 1);
  const int dtype = marea_computed_in(x->dtype);
  columns p = {.ctx = c->ctx,
               .k = c->ctx->kernels[dtype],
               .dtype = dtype,
               .size = marea_element_size(dtype),
               .g = *g,
               .channels = channels,
               .tiles = (channels + TILE - 1) / TILE,
               .fold = MAREA_MAX(FOLDED / MAREA_MAX(channels, 1), 1),
               .x = elements_of(x)};
  p.folded = p.fold * channels;
  p.chunk = MAREA_MIN(DEEP * p.fold, MAREA_MAX(MAREA_BLOCK / tile, 1));
  p.most = x->dtype == dtype ? BUFFER * (int64_t)(sizeof(double) / p.size) : CONVERTED;
  p.chunks = (g->rows + p.chunk - 1) / p.chunk;
  p.units = g->n * p.chunks * p.tiles;
  p.units_per_block = MAREA_MAX(1, MAREA_BLOCK / (p.chunk * tile));
  p.run = MAREA_MAX(1, p.most / MAREA_MAX(p.folded, 1)) * p.fold;
  p.runs = (g->rows + p.run - 1) / p.run;
  p.parts = (channels + p.most - 1) / p.most;
  return p;
}

static marea_status open_partials (marea_call *c, columns *p) {
  const size_t bytes = (size_t)(p->g.n * p->chunks * p->channels) * sizeof(double);
  MAREA_WORKSPACE_OR_RETURN(c, p->first, MAREA_MAX(bytes, 1));
  MAREA_WORKSPACE_OR_RETURN(c, p->second, MAREA_MAX(bytes, 1));
  return MAREA_OK;
}

static marea_status open_factor (marea_call *c, const columns *p, void **factor) {
  MAREA_WORKSPACE_OR_RETURN(c, *factor, MAREA_MAX((size_t)(p->g.n * p->folded) * p->size, 1));
  return MAREA_OK;
}

static marea_status open_factors (marea_call *c, columns *p) {
  MAREA_TRY(open_factor(c, p, &p->at_mean));
  MAREA_TRY(open_factor(c, p, &p->factor));
  return open_factor(c, p, &p->offset);
}

static void run_units (marea_call *c, columns *p, marea_block_fn fn) {
  marea_parallel(c->ctx, (p->units + p->units_per_block - 1) / p->units_per_block, fn, p);
}

static void run_groups (marea_call *c, columns *p, int64_t groups, marea_block_fn fn) {
  marea_parallel(c->ctx, (groups + GROUPS - 1) / GROUPS, fn, p);
}

/* ---- rows as kernels take them ---- */

/* n rows of `width` channels. */
typedef struct rows {
  int64_t n, width, step; /* step: elements from one to the next */
  char *at;
} rows;

/* Rows in the dtype that is computed in, where they lie or in a buffer of n * width elements; `packed`: one right behind
   the other. */
static rows rows_of (const columns *p, const elements *e, const rows *r, int64_t row, int64_t channel,
                     bool packed, void *buffer) {
  const int64_t n = r->n, width = r->width;
  const char *from = e->at + (size_t)(row * p->channels + channel) * e->size;
  const bool gapless = width == p->channels || n == 1;
  if (e->dtype != p->dtype) /* the rows behind these: a line each 64 bytes */
    for (size_t i = 0, bytes = (size_t)(n * width) * e->size; i < bytes; i += 64)
      __builtin_prefetch(from + bytes + i);
  if (e->dtype == p->dtype && (gapless || !packed))
    return (rows){n, width, gapless ? width : p->channels, (char *)from};
  const int64_t runs = gapless ? 1 : n, run = n * width / runs;
  for (int64_t i = 0; i < runs; i++)
    marea_convert_run(p->ctx, run, e->dtype, from + (size_t)(i * p->channels) * e->size, 1, p->dtype,
                      (char *)buffer + (size_t)(i * width) * p->size, 1);
  return (rows){n, width, width, buffer};
}

/* Cuts rows into those that are folded, as rows, and the rest. */
static rows fold (const columns *p, const rows *r, rows *rest) {
  const int64_t n = r->n / p->fold;
  *rest = (rows){r->n % p->fold, r->width, r->step, r->at + (size_t)(n * p->fold * r->step) * p->size};
  return (rows){n, r->width * p->fold, r->step * p->fold, r->at};
}

static double total_of (const columns *p, const double *sums, int64_t i, int64_t width) {
  double total = 0;
  for (int64_t f = 0; f < p->fold; f++) total += marea_norm_load(p->dtype, sums, f * width + i);
  return total;
}

/* The number of channel i of a tile, for each of the rows that are folded. */
static void set_folded (const columns *p, void *to, int64_t i, int64_t width, double value) {
  for (int64_t f = 0; f < p->fold; f++) marea_norm_store(p->dtype, to, f * width + i, value);
}

static void add_rows (const columns *p, const rows *r, double *sum) {
  rows rest;
  const rows all = fold(p, r, &rest);
  p->k->add_rows((size_t)all.n, (size_t)all.width, (size_t)all.step, all.at, sum);
  if (rest.n > 0) p->k->add_rows((size_t)rest.n, (size_t)rest.width, (size_t)rest.step, rest.at, sum);
}

static void add_moments (const columns *p, const rows *r, const void *shift, double *sum, double *squares) {
  rows rest;
  const rows all = fold(p, r, &rest);
  p->k->add_moments((size_t)all.n, (size_t)all.width, (size_t)all.step, all.at, shift, sum, squares);
  if (rest.n > 0)
    p->k->add_moments((size_t)rest.n, (size_t)rest.width, (size_t)rest.step, rest.at, shift, sum, squares);
}

static void add_products (const columns *p, const rows *e, const rows *x, const void *shift, double *sum) {
  rows e_rest, x_rest;
  const rows es = fold(p, e, &e_rest), xs = fold(p, x, &x_rest);
  p->k->add_products((size_t)es.n, (size_t)es.width, (size_t)es.step, es.at, (size_t)xs.step, xs.at, shift,
                     sum);
  if (e_rest.n > 0)
    p->k->add_products((size_t)e_rest.n, (size_t)e_rest.width, (size_t)e_rest.step, e_rest.at,
                       (size_t)x_rest.step, x_rest.at, shift, sum);
}

/* Of a factor, what belongs to a channel of n. */
static const void *factor_at (const columns *p, const void *factor, int64_t n, int64_t channel) {
  return (const char *)factor + (size_t)(n * p->folded + channel) * p->size;
}

/* Rows of n whose elements follow each other: y := act((x - mean) factor + offset); y may be x. */
static void normalize_rows (const columns *p, int64_t n, int64_t channel, const rows *x, void *y) {
  const void *mean = factor_at(p, p->at_mean, n, channel), *factor = factor_at(p, p->factor, n, channel);
  const void *offset = factor_at(p, p->offset, n, channel);
  rows rest;
  const rows all = fold(p, x, &rest);
  const size_t done = (size_t)(all.n * all.width);
  p->k->normalize((size_t)all.n, (size_t)all.width, all.at, mean, factor, offset, y);
  if (rest.n > 0)
    p->k->normalize((size_t)rest.n, (size_t)rest.width, rest.at, mean, factor, offset,
                    (char *)y + done * p->size);
  p->k->bias_act((size_t)x->n, (size_t)x->width, NULL, p->g.act, p->g.slope, y);
}

/* ---- bf16 in registers ---- */

/* Do kernels take x, and dy and what is made of it if there are any, as they are? */
static bool are_in_registers (const columns *p, const marea_tensor *dy, const marea_tensor *made) {
  const bool act = p->g.act == MAREA_ACT_NONE || p->g.act == MAREA_ACT_RELU;
  return p->x.dtype == MAREA_BF16 && p->k->bf16_normalize && act && (!dy || dy->dtype == MAREA_BF16) &&
         (!made || made->dtype == MAREA_BF16);
}

/* n rows from `row` on of some channels of example `example`, with what belongs to these channels */
static marea_bf16_rows rows_in_place (const columns *p, int64_t example, int64_t row, int64_t n,
                                      int64_t channel, int64_t width) {
  const size_t at = (size_t)(row * p->channels + channel) * sizeof(uint16_t);
  marea_bf16_rows r = {.rows = (size_t)n, .width = (size_t)width, .step = (size_t)p->channels};
  r.x = (const uint16_t *)(const void *)(p->x.at + at);
  if (p->dy.at) r.dy = (const uint16_t *)(const void *)(p->dy.at + at);
  if (p->out.at) r.to = (uint16_t *)(void *)(p->out.at + at);
  if (p->at_mean) r.mean = factor_at(p, p->at_mean, example, channel);
  if (p->factor) r.factor = factor_at(p, p->factor, example, channel);
  if (p->offset) r.offset = factor_at(p, p->offset, example, channel);
  if (p->a) r.a = factor_at(p, p->a, example, channel);
  if (p->b) r.b = factor_at(p, p->b, example, channel);
  if (p->c) r.c = factor_at(p, p->c, example, channel);
  r.relu = p->g.act == MAREA_ACT_RELU;
  return r;
}

/* The kernel on rows that are folded, and on the rest of them */
static void run_folded (const columns *p, marea_bf16_rows r, void (*kernel)(const marea_bf16_rows *r)) {
  const size_t fold = (size_t)p->fold, rest = r.rows % fold, done = r.rows / fold * fold * r.step;
  marea_bf16_rows all = r;
  all.rows /= fold;
  all.width *= fold;
  all.step *= fold;
  if (all.rows > 0) kernel(&all);
  r.rows = rest;
  r.x += done;
  if (r.dy) r.dy += done;
  if (r.to) r.to += done;
  if (rest > 0) kernel(&r);
}

/* ---- units: a chunk of rows of a tile of channels ---- */

typedef struct unit {
  int64_t n, rows, width, channel; /* channel: the first one */
  int64_t row;                     /* the first one, counted through all n */
  int64_t partial;                 /* place of its partial results */
} unit;

static unit unit_at (const columns *p, int64_t i) {
  const int64_t tile = i % p->tiles, chunk = i / p->tiles % p->chunks, n = i / p->tiles / p->chunks;
  const int64_t row = chunk * p->chunk, channel = tile * TILE;
  return (unit){.n = n,
                .rows = MAREA_MIN(p->chunk, p->g.rows - row),
                .width = MAREA_MIN(TILE, p->channels - channel),
                .channel = channel,
                .row = n * p->g.rows + row,
                .partial = (n * p->chunks + chunk) * p->channels + channel};
}

/* Rows of a unit that fit in a buffer: folded ones as a whole. */
static int64_t rows_at_once (const columns *p, const unit *u) {
  return p->most / (p->fold * u->width) * p->fold;
}

/* The moments of a column of what is only stored, whose squares double holds. */
static marea_moments moments_in_double (const columns *p, const unit *u, int64_t channel) {
  const double n = (double)u->rows;
  double mean = 0, squares = 0;
  for (int64_t r = 0; r < u->rows; r++)
    mean += marea_norm_load(p->x.dtype, p->x.at, (u->row + r) * p->channels + channel) / n;
  for (int64_t r = 0; r < u->rows; r++) {
    const double d = marea_norm_load(p->x.dtype, p->x.at, (u->row + r) * p->channels + channel) - mean;
    squares += d * d / n;
  }
  return (marea_moments){mean, sqrt(squares)};
}

/* Channel i of a unit in double, where squares have left the range of the dtype. */
static void measure_wide (const columns *p, const unit *u, int64_t i) {
  const marea_reduction values = {.x = p->x.at + (size_t)(u->row * p->channels) * p->x.size,
                                  .dtype = p->dtype,
                                  .outer = 1,
                                  .count = u->rows,
                                  .inner = p->channels};
  const marea_moments m = p->x.dtype == p->dtype
                              ? marea_reduce_moments(&values, u->channel + i, (double)u->rows)
                              : moments_in_double(p, u, u->channel + i);
  p->first[u->partial + i] = m.mean;
  p->second[u->partial + i] = m.std * m.std * (double)u->rows;
}

/* Moments of all rows of a unit about a shift; or their sum, the shift being 0, and squares without a meaning */
static void add_unit (const columns *p, const unit *u, bool moments, const double *shift, double *sum,
                      double *squares) {
  double buffer[BUFFER];
  if (p->in_registers) {
    marea_bf16_rows r = rows_in_place(p, u->n, u->row, u->rows, u->channel, u->width);
    r.mean = (const float *)(const void *)shift;
    r.sum = (float *)(void *)sum;
    r.squares = (float *)(void *)squares;
    run_folded(p, r, p->k->bf16_norm_moments);
    return;
  }
  const int64_t most = p->x.dtype == p->dtype ? u->rows : rows_at_once(p, u);
  for (int64_t r = 0; r < u->rows; r += most) {
    const rows some = {.n = MAREA_MIN(most, u->rows - r), .width = u->width};
    const rows x = rows_of(p, &p->x, &some, u->row + r, u->channel, false, buffer);
    if (moments) add_moments(p, &x, shift, sum, squares);
    else add_rows(p, &x, sum);
  }
}

static void measure (const columns *p, const unit *u) {
  double shift[TILE] = {0}, sum[TILE] = {0}, squares[TILE] = {0};
  add_unit(p, u, false, shift, sum, squares);
  for (int64_t i = 0; i < u->width; i++)
    set_folded(p, shift, i, u->width, total_of(p, sum, i, u->width) / (double)u->rows);
  memset(sum, 0, sizeof sum);
  memset(squares, 0, sizeof squares);
  add_unit(p, u, true, shift, sum, squares);
  for (int64_t i = 0; i < u->width; i++) {
    const double rest = total_of(p, sum, i, u->width) / (double)u->rows;
    p->first[u->partial + i] = marea_norm_load(p->dtype, shift, i) + rest;
    p->second[u->partial + i] = total_of(p, squares, i, u->width) - (double)u->rows * rest * rest;
    if (!isfinite(p->second[u->partial + i])) measure_wide(p, u, i);
  }
}

static void measure_block (void *arg, int64_t block, int worker) {
  const columns *p = arg;
  (void)worker;
  for (int64_t i = block * p->units_per_block; i < MAREA_MIN((block + 1) * p->units_per_block, p->units);
       i++) {
    const unit u = unit_at(p, i);
    measure(p, &u);
  }
}

static int64_t chunk_rows (const columns *p, int64_t chunk) {
  return MAREA_MIN(p->chunk, p->g.rows - chunk * p->chunk);
}

/* The mean of a group from those of its chunks and channels, and the squares about it. */
static void reduce_moments (const columns *p, int64_t n, int64_t group) {
  const int64_t width = p->g.width, at = n * p->chunks * p->channels + group * width;
  const double count = (double)(p->g.rows * width);
  double mean = 0, squares = 0;
  for (int64_t k = 0; k < p->chunks; k++)
    for (int64_t i = 0; i < width; i++) mean += (double)chunk_rows(p, k) * p->first[at + k * p->channels + i];
  mean /= count;
  for (int64_t k = 0; k < p->chunks; k++)
    for (int64_t i = 0; i < width; i++) {
      const double distance = p->first[at + k * p->channels + i] - mean;
      squares += p->second[at + k * p->channels + i] + (double)chunk_rows(p, k) * distance * distance;
    }
  p->mean[n * p->g.groups + group] = mean;
  p->variance[n * p->g.groups + group] = MAREA_MAX(squares / count, 0);
}

static void reduce_moments_block (void *arg, int64_t block, int worker) {
  const columns *p = arg;
  (void)worker;
  for (int64_t i = block * GROUPS; i < MAREA_MIN((block + 1) * GROUPS, p->g.n * p->g.groups); i++)
    reduce_moments(p, i / p->g.groups, i % p->g.groups);
}

marea_status marea_norm_statistics (marea_call *c, const marea_norm *g, const marea_tensor *x, double *mean,
                                    double *variance) {
  columns p = columns_of(c, g, x);
  p.mean = mean;
  p.variance = variance;
  p.in_registers = are_in_registers(&p, NULL, NULL);
  MAREA_TRY(open_partials(c, &p));
  run_units(c, &p, measure_block);
  run_groups(c, &p, g->n * g->groups, reduce_moments_block);
  return MAREA_OK;
}

/* ---- y ---- */

static double parameter (const marea_tensor *t, int64_t channel, double absent) {
  return t ? marea_norm_load(t->dtype, marea_at(t), channel) : absent;
}

static double rate_of (const columns *p, int64_t i) { return 1 / sqrt(p->variance[i] + p->g.eps); }

/* The mean is taken off as far as the dtype holds it; the rest of it goes into the offset. */
static void set_factors (const columns *p, int64_t n, int64_t group, int64_t channel) {
  const int64_t i = n * p->g.groups + group, at = n * p->folded + channel;
  const double factor = rate_of(p, i) * parameter(p->weight, channel, 1);
  set_folded(p, p->at_mean, at, p->channels, p->mean[i]);
  const double rest = p->mean[i] - marea_norm_load(p->dtype, p->at_mean, at);
  set_folded(p, p->factor, at, p->channels, factor);
  set_folded(p, p->offset, at, p->channels, parameter(p->bias, channel, 0) - rest * factor);
}

static void factors_block (void *arg, int64_t block, int worker) {
  const columns *p = arg;
  (void)worker;
  for (int64_t i = block * GROUPS; i < MAREA_MIN((block + 1) * GROUPS, p->g.n * p->g.groups); i++)
    for (int64_t j = 0; j < p->g.width; j++)
      set_factors(p, i / p->g.groups, i % p->g.groups, i % p->g.groups * p->g.width + j);
}

/* A block of the last pass: some rows of all channels, or some channels of one row. */
typedef struct run {
  int64_t n, row, channel; /* row: counted through all n */
  rows some;
} run;

static run run_at (const columns *p, int64_t block) {
  const int64_t part = block % p->parts, first = block / p->parts % p->runs * p->run,
                n = block / p->parts / p->runs;
  const int64_t channel = part * p->most;
  return (run){.n = n,
               .row = n * p->g.rows + first,
               .channel = channel,
               .some = {.n = MAREA_MIN(p->run, p->g.rows - first),
                        .width = MAREA_MIN(p->most, p->channels - channel)}};
}

static void run_runs (marea_call *c, columns *p, marea_block_fn fn) {
  marea_parallel(c->ctx, p->g.n * p->runs * p->parts, fn, p);
}

/* Results are made where they belong, or in a buffer if they are to be rounded. */
static char *place_of_run (const columns *p, const run *r) {
  return p->out.at + (size_t)(r->row * p->channels + r->channel) * p->out.size;
}

static bool is_rounded (const columns *p) { return p->out.dtype != p->dtype; }

static void round_run (const columns *p, const run *r, const void *made) {
  marea_convert_run(p->ctx, r->some.n * r->some.width, p->dtype, made, 1, p->out.dtype, place_of_run(p, r),
                    1);
}

static void apply_block (void *arg, int64_t block, int worker) {
  double buffer[BUFFER];
  const columns *p = arg;
  const run r = run_at(p, block);
  if (p->in_registers) {
    run_folded(p, rows_in_place(p, r.n, r.row, r.some.n, r.channel, r.some.width), p->k->bf16_normalize);
    return;
  }
  const rows x = rows_of(p, &p->x, &r.some, r.row, r.channel, true, buffer);
  void *y = is_rounded(p) ? (void *)buffer : place_of_run(p, &r);
  (void)worker;
  normalize_rows(p, r.n, r.channel, &x, y);
  if (is_rounded(p)) round_run(p, &r, y);
}

marea_status marea_norm_apply (marea_call *c, const marea_norm *g, const double *mean, const double *variance,
                               const marea_tensor *x, const marea_tensor *weight, const marea_tensor *bias,
                               marea_tensor *y) {
  columns p = columns_of(c, g, x);
  p.mean = (double *)mean;
  p.variance = (double *)variance;
  p.weight = weight;
  p.bias = bias;
  p.out = elements_of(y);
  p.in_registers = are_in_registers(&p, NULL, y);
  MAREA_TRY(open_factors(c, &p));
  run_groups(c, &p, g->n * g->groups, factors_block);
  run_runs(c, &p, apply_block);
  return MAREA_OK;
}

/* ---- gradients, with e = dy act'(y) ----
** dbias = sum e; dweight = rate sum e (x - mean); dx = rate (w e - mean(w e) - xhat mean(w e xhat)), the means over a
** group, which is a e + b (x - mean) + c with factors that belong to a channel. y is made again where it is needed,
** which is faster than to read it. */

/* e of rows, in place or in `made`. */
static rows gradient_of (const columns *p, const run *r, const rows *x, void *buffer, void *made) {
  marea_binary_kernel *grad = marea_activation_grad_kernel(p->k, p->g.act);
  const rows dy = rows_of(p, &p->dy, &r->some, r->row, r->channel, grad != NULL, buffer);
  if (!grad) return dy;
  normalize_rows(p, r->n, r->channel, x, made);
  grad((size_t)(dy.n * dy.width), dy.at, 1, made, 1, made, &p->g.slope);
  return (rows){dy.n, dy.width, dy.width, made};
}

/* sum of e and of e (x - mean) over the rows of a unit */
static void add_gradients (const columns *p, const unit *u, double *sum, double *product) {
  double of_x[BUFFER], of_dy[BUFFER], made[BUFFER];
  const int64_t most = rows_at_once(p, u);
  const void *mean = factor_at(p, p->at_mean, u->n, u->channel);
  for (int64_t i = 0; i < u->rows; i += most) {
    const run r = {u->n, u->row + i, u->channel, {.n = MAREA_MIN(most, u->rows - i), .width = u->width}};
    const rows x = rows_of(p, &p->x, &r.some, r.row, r.channel, p->g.act != MAREA_ACT_NONE, of_x);
    const rows e = gradient_of(p, &r, &x, of_dy, made);
    add_rows(p, &e, sum);
    add_products(p, &e, &x, mean, product);
  }
}

static void sum_unit (const columns *p, const unit *u) {
  double sum[TILE] = {0}, product[TILE] = {0};
  if (p->in_registers) {
    marea_bf16_rows r = rows_in_place(p, u->n, u->row, u->rows, u->channel, u->width);
    r.sum = (float *)(void *)sum;
    r.squares = (float *)(void *)product;
    run_folded(p, r, p->k->bf16_norm_sums);
  } else {
    add_gradients(p, u, sum, product);
  }
  for (int64_t i = 0; i < u->width; i++) {
    p->first[u->partial + i] = total_of(p, sum, i, u->width);
    p->second[u->partial + i] = total_of(p, product, i, u->width);
  }
}

static void sum_block (void *arg, int64_t block, int worker) {
  const columns *p = arg;
  (void)worker;
  for (int64_t i = block * p->units_per_block; i < MAREA_MIN((block + 1) * p->units_per_block, p->units);
       i++) {
    const unit u = unit_at(p, i);
    sum_unit(p, &u);
  }
}

/* Sums of the chunks of one n and channel, left at its first chunk. */
static void reduce_chunks (const columns *p, int64_t n, int64_t channel) {
  double *first = p->first + n * p->chunks * p->channels + channel;
  double *second = p->second + n * p->chunks * p->channels + channel;
  for (int64_t k = 1; k < p->chunks; k++) {
    *first += first[k * p->channels];
    *second += second[k * p->channels];
  }
}

static void store_parameter (marea_tensor *t, int64_t channel, double value) {
  if (t) marea_norm_store(t->dtype, marea_at(t), channel, value);
}

static void reduce_parameters (const columns *p, int64_t group, int64_t channel) {
  double dweight = 0, dbias = 0;
  for (int64_t n = 0; n < p->g.n; n++) {
    const int64_t at = n * p->chunks * p->channels + channel;
    dweight += rate_of(p, n * p->g.groups + group) * p->second[at];
    dbias += p->first[at];
  }
  store_parameter(p->dweight, channel, dweight);
  store_parameter(p->dbias, channel, dbias);
}

static void set_gradient_factors (const columns *p, int64_t n, int64_t group) {
  const int64_t width = p->g.width, first = group * width, at = n * p->chunks * p->channels + first;
  const double rate = rate_of(p, n * p->g.groups + group), count = (double)(p->g.rows * width);
  double sum = 0, product = 0;
  for (int64_t i = 0; i < width; i++) {
    sum += parameter(p->weight, first + i, 1) * p->first[at + i];
    product += parameter(p->weight, first + i, 1) * p->second[at + i];
  }
  for (int64_t i = 0; i < width; i++) {
    const int64_t to = n * p->folded + first + i;
    set_folded(p, p->a, to, p->channels, rate * parameter(p->weight, first + i, 1));
    set_folded(p, p->b, to, p->channels, -rate * rate * rate * product / count);
    set_folded(p, p->c, to, p->channels, -rate * sum / count);
  }
}

static void reduce_sums_block (void *arg, int64_t block, int worker) {
  const columns *p = arg;
  (void)worker;
  for (int64_t group = block * GROUPS; group < MAREA_MIN((block + 1) * GROUPS, p->g.groups); group++) {
    for (int64_t i = group * p->g.width; i < (group + 1) * p->g.width; i++) {
      for (int64_t n = 0; n < p->g.n; n++) reduce_chunks(p, n, i);
      reduce_parameters(p, group, i);
    }
    for (int64_t n = 0; n < p->g.n && p->out.at; n++) set_gradient_factors(p, n, group);
  }
}

static void gradient_block (void *arg, int64_t block, int worker) {
  double of_x[BUFFER], of_dy[BUFFER], made[BUFFER];
  const columns *p = arg;
  const run r = run_at(p, block);
  (void)worker;
  if (p->in_registers) {
    run_folded(p, rows_in_place(p, r.n, r.row, r.some.n, r.channel, r.some.width), p->k->bf16_norm_grad);
    return;
  }
  const rows x = rows_of(p, &p->x, &r.some, r.row, r.channel, true, of_x);
  const rows e = gradient_of(p, &r, &x, of_dy, made);
  char *dx = is_rounded(p) ? (char *)made : place_of_run(p, &r);
  const void *mean = factor_at(p, p->at_mean, r.n, r.channel), *a = factor_at(p, p->a, r.n, r.channel);
  const void *b = factor_at(p, p->b, r.n, r.channel), *c = factor_at(p, p->c, r.n, r.channel);
  rows e_rest, x_rest;
  const rows es = fold(p, &e, &e_rest), xs = fold(p, &x, &x_rest);
  p->k->normalize_grad((size_t)es.n, (size_t)es.width, es.at, xs.at, mean, a, b, c, dx);
  dx += (size_t)(es.n * es.width) * p->size;
  if (e_rest.n > 0)
    p->k->normalize_grad((size_t)e_rest.n, (size_t)e_rest.width, e_rest.at, x_rest.at, mean, a, b, c, dx);
  if (is_rounded(p)) round_run(p, &r, made);
}

marea_status marea_norm_backward (marea_call *c, const marea_norm *g, const double *mean,
                                  const double *variance, const marea_norm_back *b) {
  columns p = columns_of(c, g, b->x);
  p.mean = (double *)mean;
  p.variance = (double *)variance;
  p.dy = elements_of(b->dy);
  p.weight = b->weight;
  p.bias = b->bias;
  p.out = elements_of(b->dx);
  p.dweight = b->dweight;
  p.dbias = b->dbias;
  p.in_registers = are_in_registers(&p, b->dy, b->dx);
  MAREA_TRY(open_partials(c, &p));
  MAREA_TRY(open_factors(c, &p));
  if (b->dx) {
    MAREA_TRY(open_factor(c, &p, &p.a));
    MAREA_TRY(open_factor(c, &p, &p.b));
    MAREA_TRY(open_factor(c, &p, &p.c));
  }
  run_groups(c, &p, g->n * g->groups, factors_block);
  run_units(c, &p, sum_block);
  run_groups(c, &p, g->groups, reduce_sums_block);
  if (b->dx) run_runs(c, &p, gradient_block);
  return MAREA_OK;
}
