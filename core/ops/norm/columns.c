/* SPDX-License-Identifier: MIT
** columns.c: normalization where a channel is a column: statistics of every channel in one pass, their application in a
** second one, and the gradient in two passes.
**
** Rows are cut into chunks and channels into tiles; a chunk of a tile leaves partial results in double, and these
** are added in order, so the bits do not depend on threads. A chunk is read twice, the second time from the cache:
** once for its mean, once for the moments about that mean.
*/
#include <math.h>
#include <string.h>

#include "norm.h"
#include "ops/reduce_loops.h"

/* Channels of a unit of work: its sums, squares and shifts in double take 12 KB of a first-level cache. */
#define TILE 512
/* Rows whose sums are kept in the tensor's dtype: the rounding error of 256 additions in f32 is 1.5e-5 at most. */
#define DEEP 256
/* Elements of gradients before the activation, computed for the next kernel: 8 KB of f32. */
#define BUFFER 2048
/* Groups whose partial results are reduced in one block: some microseconds. */
#define GROUPS 512
/* Elements of a block of the last pass: 16 KB of f32 stay in the first-level cache between two kernels. */
#define RUN (MAREA_BLOCK / 4)

typedef struct columns {
  const marea_kernels *k;
  int dtype;
  size_t size;
  marea_norm g;
  int64_t channels, chunk, chunks, tiles, units, units_per_block;
  double *first, *second;  /* [n][chunk][channel]: mean and squares about it; sums of e and of e (x - mean) */
  double *mean, *variance; /* [n * groups] */
  const char *x, *dy, *y;
  char *out;
  const void *weight, *bias;
  void *dweight, *dbias;
  void *at_mean, *a, *b, *c; /* [n * channels]: factors of the last pass */
  int64_t run, runs;         /* rows of a block of the last pass; blocks of one n */
} columns;

static columns columns_of (const marea_call *c, const marea_norm *g, const marea_tensor *x) {
  const int64_t channels = marea_norm_channels(g), tile = MAREA_MAX(MAREA_MIN(channels, TILE), 1);
  columns p = {.k = c->ctx->kernels[x->dtype],
               .dtype = x->dtype,
               .size = marea_dtype_size((marea_dtype)x->dtype),
               .g = *g,
               .channels = channels,
               .chunk = MAREA_MIN(DEEP, MAREA_MAX(MAREA_BLOCK / tile, 1)),
               .tiles = (channels + TILE - 1) / TILE,
               .x = marea_at(x)};
  p.chunks = (g->rows + p.chunk - 1) / p.chunk;
  p.units = g->n * p.chunks * p.tiles;
  p.units_per_block = MAREA_MAX(1, MAREA_BLOCK / (p.chunk * tile));
  p.run = MAREA_MAX(1, RUN / MAREA_MAX(channels, 1));
  p.runs = (g->rows + p.run - 1) / p.run;
  return p;
}

static marea_status open_partials (marea_call *c, columns *p) {
  const size_t bytes = (size_t)(p->g.n * p->chunks * p->channels) * sizeof(double);
  MAREA_WORKSPACE_OR_RETURN(c, p->first, MAREA_MAX(bytes, 1));
  MAREA_WORKSPACE_OR_RETURN(c, p->second, MAREA_MAX(bytes, 1));
  return MAREA_OK;
}

static marea_status open_factor (marea_call *c, const columns *p, void **factor) {
  MAREA_WORKSPACE_OR_RETURN(c, *factor, MAREA_MAX((size_t)(p->g.n * p->channels) * p->size, 1));
  return MAREA_OK;
}

static void run_units (marea_call *c, columns *p, marea_block_fn fn) {
  marea_parallel(c->ctx, (p->units + p->units_per_block - 1) / p->units_per_block, fn, p);
}

static void run_groups (marea_call *c, columns *p, int64_t groups, marea_block_fn fn) {
  marea_parallel(c->ctx, (groups + GROUPS - 1) / GROUPS, fn, p);
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

static size_t place (const columns *p, int64_t row, int64_t channel) {
  return (size_t)(row * p->channels + channel) * p->size;
}

/* Channel i of a unit in double, where squares have left the range of the dtype. */
static void measure_wide (const columns *p, const unit *u, int64_t i) {
  const marea_reduction rows = {
      .x = p->x + place(p, u->row, 0), .dtype = p->dtype, .outer = 1, .count = u->rows, .inner = p->channels};
  const marea_moments m = marea_reduce_moments(&rows, u->channel + i, (double)u->rows);
  p->first[u->partial + i] = m.mean;
  p->second[u->partial + i] = m.std * m.std * (double)u->rows;
}

static void measure (const columns *p, const unit *u) {
  double shift[TILE], sum[TILE] = {0}, squares[TILE] = {0};
  const size_t rows = (size_t)u->rows, width = (size_t)u->width, step = (size_t)p->channels;
  const char *x = p->x + place(p, u->row, u->channel);
  p->k->add_rows(rows, width, step, x, sum);
  p->k->scale(width, 1 / (double)rows, sum, shift);
  memset(sum, 0, sizeof sum);
  p->k->add_moments(rows, width, step, x, shift, sum, squares);
  for (int64_t i = 0; i < u->width; i++) {
    const double rest = marea_norm_load(p->dtype, sum, i) / (double)rows;
    p->first[u->partial + i] = marea_norm_load(p->dtype, shift, i) + rest;
    p->second[u->partial + i] = marea_norm_load(p->dtype, squares, i) - (double)rows * rest * rest;
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
  MAREA_TRY(open_partials(c, &p));
  run_units(c, &p, measure_block);
  run_groups(c, &p, g->n * g->groups, reduce_moments_block);
  return MAREA_OK;
}

/* ---- y ---- */

static double weight_of (const columns *p, int64_t channel) {
  return p->weight ? marea_norm_load(p->dtype, p->weight, channel) : 1;
}

/* Stores the mean of channel i of n as far as the dtype holds it; returns the rest. */
static double set_mean (const columns *p, int64_t i, double mean) {
  marea_norm_store(p->dtype, p->at_mean, i, mean);
  return mean - marea_norm_load(p->dtype, p->at_mean, i);
}

static double rate_of (const columns *p, int64_t i) { return 1 / sqrt(p->variance[i] + p->g.eps); }

static void factors_block (void *arg, int64_t block, int worker) {
  const columns *p = arg;
  (void)worker;
  for (int64_t i = block * GROUPS; i < MAREA_MIN((block + 1) * GROUPS, p->g.n * p->g.groups); i++)
    for (int64_t j = 0; j < p->g.width; j++) {
      const int64_t channel = i % p->g.groups * p->g.width + j, at = i * p->g.width + j;
      const double factor = rate_of(p, i) * weight_of(p, channel);
      const double bias = p->bias ? marea_norm_load(p->dtype, p->bias, channel) : 0;
      marea_norm_store(p->dtype, p->a, at, factor);
      marea_norm_store(p->dtype, p->b, at, bias - set_mean(p, at, p->mean[i]) * factor);
    }
}

/* Rows of a block of the last pass: their number, and where they start. */
static int64_t run_at (const columns *p, int64_t block, int64_t *n, size_t *at) {
  const int64_t row = block % p->runs * p->run;
  *n = block / p->runs;
  *at = place(p, *n * p->g.rows + row, 0);
  return MAREA_MIN(p->run, p->g.rows - row);
}

static const void *factor_at (const columns *p, const void *factor, int64_t n) {
  return (const char *)factor + place(p, n, 0);
}

static void apply_block (void *arg, int64_t block, int worker) {
  const columns *p = arg;
  int64_t n;
  size_t at;
  const size_t rows = (size_t)run_at(p, block, &n, &at), channels = (size_t)p->channels;
  (void)worker;
  p->k->normalize(rows, channels, p->x + at, factor_at(p, p->at_mean, n), factor_at(p, p->a, n),
                  factor_at(p, p->b, n), p->out + at);
  p->k->bias_act(rows, channels, NULL, p->g.act, p->g.slope, p->out + at);
}

static const void *data_of (const marea_tensor *t) { return t ? marea_at(t) : NULL; }

static void *place_of (marea_tensor *t) { return t ? marea_at(t) : NULL; }

marea_status marea_norm_apply (marea_call *c, const marea_norm *g, const double *mean, const double *variance,
                               const marea_tensor *x, const marea_tensor *weight, const marea_tensor *bias,
                               marea_tensor *y) {
  columns p = columns_of(c, g, x);
  p.mean = (double *)mean;
  p.variance = (double *)variance;
  p.weight = data_of(weight);
  p.bias = data_of(bias);
  p.out = marea_at(y);
  MAREA_TRY(open_factor(c, &p, &p.at_mean));
  MAREA_TRY(open_factor(c, &p, &p.a));
  MAREA_TRY(open_factor(c, &p, &p.b));
  run_groups(c, &p, g->n * g->groups, factors_block);
  marea_parallel(c->ctx, g->n * p.runs, apply_block, &p);
  return MAREA_OK;
}

/* ---- gradients, with e = dy act'(y) ----
** dbias = sum e; dweight = rate sum e (x - mean); dx = rate (w e - mean(w e) - xhat mean(w e xhat)), the means over a
** group, which is a e + b (x - mean) + c with factors that belong to a channel. */

/* sum[j] += sum of e, product[j] += sum of e (x - mean[j]) over rows whose e is at hand */
static void add_sums (const columns *p, const unit *u, int64_t row, int64_t rows, size_t step, const char *e,
                      double *sum, double *product) {
  const char *mean = (const char *)factor_at(p, p->at_mean, u->n) + (size_t)u->channel * p->size;
  p->k->add_rows((size_t)rows, (size_t)u->width, step, e, sum);
  p->k->add_products((size_t)rows, (size_t)u->width, step, e, (size_t)p->channels,
                     p->x + place(p, row, u->channel), mean, product);
}

/* The same for all rows of a unit behind an activation: e is made some rows at a time. */
static void add_sums_behind (const columns *p, const unit *u, marea_binary_kernel *grad, double *sum,
                             double *product) {
  double buffer[BUFFER];
  const int64_t most = BUFFER / u->width;
  for (int64_t r = 0; r < u->rows; r += most) {
    const int64_t rows = MAREA_MIN(most, u->rows - r);
    for (int64_t i = 0; i < rows; i++) {
      const size_t at = place(p, u->row + r + i, u->channel);
      grad((size_t)u->width, p->dy + at, 1, p->y + at, 1, (char *)buffer + (size_t)(i * u->width) * p->size,
           &p->g.slope);
    }
    add_sums(p, u, u->row + r, rows, (size_t)u->width, (const char *)buffer, sum, product);
  }
}

static void sum_unit (const columns *p, const unit *u) {
  double sum[TILE] = {0}, product[TILE] = {0};
  marea_binary_kernel *grad = marea_activation_grad_kernel(p->k, p->g.act);
  const char *dy = p->dy + place(p, u->row, u->channel);
  if (grad) add_sums_behind(p, u, grad, sum, product);
  else add_sums(p, u, u->row, u->rows, (size_t)p->channels, dy, sum, product);
  for (int64_t i = 0; i < u->width; i++) {
    p->first[u->partial + i] = marea_norm_load(p->dtype, sum, i);
    p->second[u->partial + i] = marea_norm_load(p->dtype, product, i);
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

static void reduce_parameters (const columns *p, int64_t group, int64_t channel) {
  double dweight = 0, dbias = 0;
  for (int64_t n = 0; n < p->g.n; n++) {
    const int64_t at = n * p->chunks * p->channels + channel;
    dweight += rate_of(p, n * p->g.groups + group) * p->second[at];
    dbias += p->first[at];
  }
  if (p->dweight) marea_norm_store(p->dtype, p->dweight, channel, dweight);
  if (p->dbias) marea_norm_store(p->dtype, p->dbias, channel, dbias);
}

static void set_factors (const columns *p, int64_t n, int64_t group) {
  const int64_t width = p->g.width, first = group * width, at = n * p->chunks * p->channels + first;
  const double rate = rate_of(p, n * p->g.groups + group), count = (double)(p->g.rows * width);
  double sum = 0, product = 0;
  for (int64_t i = 0; i < width; i++) {
    sum += weight_of(p, first + i) * p->first[at + i];
    product += weight_of(p, first + i) * p->second[at + i];
  }
  for (int64_t i = 0; i < width; i++) {
    const int64_t to = n * p->channels + first + i;
    marea_norm_store(p->dtype, p->a, to, rate * weight_of(p, first + i));
    marea_norm_store(p->dtype, p->b, to, -rate * rate * rate * product / count);
    marea_norm_store(p->dtype, p->c, to, -rate * sum / count);
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
    for (int64_t n = 0; n < p->g.n && p->out; n++) set_factors(p, n, group);
  }
}

static void gradient_block (void *arg, int64_t block, int worker) {
  const columns *p = arg;
  int64_t n;
  size_t at;
  const size_t rows = (size_t)run_at(p, block, &n, &at), channels = (size_t)p->channels;
  marea_binary_kernel *grad = marea_activation_grad_kernel(p->k, p->g.act);
  (void)worker;
  if (grad) grad(rows * channels, p->dy + at, 1, p->y + at, 1, p->out + at, &p->g.slope);
  p->k->normalize_grad(rows, channels, grad ? p->out + at : p->dy + at, p->x + at,
                       factor_at(p, p->at_mean, n), factor_at(p, p->a, n), factor_at(p, p->b, n),
                       factor_at(p, p->c, n), p->out + at);
}

marea_status marea_norm_backward (marea_call *c, const marea_norm *g, const double *mean,
                                  const double *variance, const marea_norm_back *b) {
  columns p = columns_of(c, g, b->x);
  p.mean = (double *)mean;
  p.variance = (double *)variance;
  p.dy = marea_at(b->dy);
  p.y = data_of(b->y);
  p.weight = data_of(b->weight);
  p.out = place_of(b->dx);
  p.dweight = place_of(b->dweight);
  p.dbias = place_of(b->dbias);
  MAREA_TRY(open_partials(c, &p));
  MAREA_TRY(open_factor(c, &p, &p.at_mean));
  if (b->dx) {
    MAREA_TRY(open_factor(c, &p, &p.a));
    MAREA_TRY(open_factor(c, &p, &p.b));
    MAREA_TRY(open_factor(c, &p, &p.c));
  }
  for (int64_t i = 0; i < g->n * p.channels; i++) set_mean(&p, i, mean[i / g->width]);
  run_units(c, &p, sum_block);
  run_groups(c, &p, g->groups, reduce_sums_block);
  if (b->dx) marea_parallel(c->ctx, g->n * p.runs, gradient_block, &p);
  return MAREA_OK;
}
