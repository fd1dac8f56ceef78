/* SPDX-License-Identifier: MIT
** conv_winograd.c: 3x3 convolutions of stride 1 at Winograd's 36 points, four multiplications for sixteen. The
** transforms are the kernels winograd_*; the 36 products in between are the kernels `gather` and `correlate` on
** a single row of tiles, as if these were pixels.
**
** In f32 only: f64 is there for exactness. The rounding error against the direct sum is some 1e-6 of the
** largest output.
*/
#include "conv_pass.h"

#define LEAST_CHANNELS 16            /* fewer, and the transforms cost more than the products save */
#define SAVES 2                      /* multiplications of the direct sum for one here, edges counted */
#define BAND_BYTES ((size_t)1 << 19) /* points of a band, both sides */
#define LEAST_TILES 28               /* of a band, which the 36 weights are read for */
#define SUM_BYTES ((size_t)1 << 24)  /* weight gradients at points, all parts */
#define LEAST_PARTS 8

bool marea_conv_has_points (const marea_conv *g, int dtype, const int64_t out[2]) {
  if (dtype != MAREA_F32 || g->groups != 1 || MAREA_MIN(g->cin, g->cout) < LEAST_CHANNELS) return false;
  for (int d = 0; d < 2; d++)
    if (g->kernel[d] != 3 || g->stride[d] != 1 || g->dilation[d] != 1) return false;
  const int64_t tiles = (out[0] + 3) / 4 * ((out[1] + 3) / 4);
  return out[0] * out[1] * 9 >= SAVES * tiles * MAREA_WINOGRAD_POINTS;
}

/* Sums of weight gradients that memory allows. */
static int64_t parts_at_points (const marea_conv *g) {
  const size_t bytes = MAREA_WINOGRAD_POINTS * (size_t)(g->cin * g->cout) * sizeof(float);
  return MAREA_MIN(MAREA_MIN(g->n, MAREA_CONV_PARTS), (int64_t)(SUM_BYTES / bytes));
}

bool marea_conv_correlates_at_points (const marea_conv *g, int dtype) {
  return marea_conv_has_points(g, dtype, g->out) && parts_at_points(g) >= LEAST_PARTS;
}

/* Tiles of 4x4 in `rows` by `cols` outputs; points of `first` and `second` channels. */
static marea_status open_points (marea_call *c, int64_t rows, int64_t cols, int64_t first, int64_t second,
                                 marea_conv_points *p) {
  const int64_t tile = MAREA_WINOGRAD_POINTS * (first + second) * (int64_t)sizeof(float);
  const int64_t down = (rows + 3) / 4, wanted = MAREA_MAX((int64_t)BAND_BYTES / tile, LEAST_TILES);
  p->across = (cols + 3) / 4;
  const int64_t bands = (down * p->across + wanted - 1) / wanted;
  p->band = (down + bands - 1) / bands;
  p->step[0] = p->band * p->across * first + MAREA_ALIGN / (int64_t)sizeof(float); /* not a power of two */
  p->step[1] = p->band * p->across * second + MAREA_ALIGN / (int64_t)sizeof(float);
  const int64_t size[] = {MAREA_WINOGRAD_POINTS, p->step[0] + p->step[1], c->ctx->threads};
  size_t total;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, size, sizeof(float), &total));
  p->bytes = total / (size_t)c->ctx->threads;
  MAREA_SCRATCH(c, p->memory, total);
  return MAREA_OK;
}

static float *points_of (const marea_conv_points *p, int side, int worker) {
  return (float *)(p->memory + (size_t)worker * p->bytes) +
         (side == 0 ? 0 : MAREA_WINOGRAD_POINTS * p->step[0]);
}

/* Rows of tiles `first` .. of a tile with `rows` rows of outputs: how many are in the band? */
static int64_t band_size (const marea_conv_points *p, int64_t rows, int64_t first) {
  return MAREA_MIN(p->band, (rows + 3) / 4 - first);
}

/* ---- gather ---- */

static void transform_data (const marea_conv_points *p, const marea_kernels *k, const marea_conv_window *w,
                            const char *x, int64_t first, int64_t n, float *points) {
  for (int64_t i = 0; i < n; i++) {
    marea_winograd g = {.image = (float *)x + 4 * (first + i) * w->row,
                        .points = points + i * p->across * w->channels,
                        .tiles = p->across,
                        .channels = w->channels,
                        .row = w->row,
                        .col = w->channels,
                        .point = p->step[0]};
    k->winograd_data(&g);
  }
}

static void multiply (const marea_conv_gather *p, int64_t tiles, const float *data, float *products) {
  static const int64_t here = 0;
  for (int64_t i = 0; i < MAREA_WINOGRAD_POINTS; i++) {
    marea_gather g = {.x = data + i * p->points.step[0],
                      .w = (const float *)p->weight + i * p->cin * p->cout,
                      .y = products + i * p->points.step[1],
                      .rows = 1,
                      .cols = tiles,
                      .x_col = p->cin,
                      .y_col = p->cout,
                      .cin = p->cin,
                      .cout = p->cout,
                      .taps = 1,
                      .tap = &here,
                      .w_ci = p->cout};
    p->kernels->gather(&g);
  }
}

/* out: the pixel at the start of the tile; rows, of outputs in it */
static void write_outputs (const marea_conv_gather *p, float *products, int64_t first, int64_t n, float *out,
                           int64_t rows) {
  const int64_t cols = p->w.axis[1].out;
  for (int64_t i = 0; i < n; i++) {
    marea_winograd g = {.image = out + 4 * (first + i) * cols * p->cout,
                        .points = products + i * p->points.across * p->cout,
                        .tiles = p->points.across,
                        .channels = p->cout,
                        .row = cols * p->cout,
                        .col = p->cout,
                        .point = p->points.step[1],
                        .rows = rows - 4 * (first + i),
                        .cols = cols,
                        .bias = p->bias,
                        .act = p->act,
                        .slope = p->slope};
    p->kernels->winograd_outputs(&g);
  }
}

static void gather_tile (const marea_conv_gather *p, int64_t image, int64_t tile, int worker) {
  const marea_conv_window *w = &p->w;
  const int64_t rows = marea_conv_window_units(w, tile), row = image * w->axis[0].out + tile * w->units;
  const char *x = marea_conv_window_load(w, image, tile, worker);
  float *out = (float *)p->out + row * w->axis[1].out * p->cout;
  float *data = points_of(&p->points, 0, worker), *products = points_of(&p->points, 1, worker);
  for (int64_t first = 0; 4 * first < rows; first += p->points.band) {
    const int64_t n = band_size(&p->points, rows, first);
    transform_data(&p->points, p->kernels, w, x, first, n, data);
    multiply(p, n * p->points.across, data, products);
    write_outputs(p, products, first, n, out, rows);
  }
}

/* ---- its weights ---- */

typedef struct weights {
  const marea_kernels *kernels;
  int64_t cin, cout;
  const float *weight; /* (9, cin, cout) */
  float *turned;       /* (9, cout, cin), taps in reverse: the input gradient's */
  float *points;       /* (36, channels read, channels written) */
} weights;

static void turn_tap (void *arg, int64_t tap, int worker) {
  const weights *w = arg;
  const int64_t n = w->cin * w->cout;
  const float *from = w->weight + (8 - tap) * n;
  float *to = w->turned + tap * n;
  (void)worker;
  for (int64_t co = 0; co < w->cout; co++)
    for (int64_t ci = 0; ci < w->cin; ci++) to[co * w->cin + ci] = from[ci * w->cout + co];
}

static void weight_block (void *arg, int64_t block, int worker) {
  const weights *w = arg;
  const int64_t n = w->cin * w->cout, step = MAREA_BLOCK / MAREA_WINOGRAD_POINTS;
  (void)worker;
  w->kernels->winograd_weight((size_t)n, (size_t)(block * step), (size_t)MAREA_MIN((block + 1) * step, n),
                              w->turned ? w->turned : w->weight, w->points);
}

marea_status marea_conv_gather_by_points (marea_call *c, const marea_conv *g, bool backward,
                                          const marea_tensor *weight, marea_conv_gather *p) {
  weights w = {p->kernels, g->cin, g->cout, marea_at(weight), NULL, NULL};
  const int64_t n = g->cin * g->cout, step = MAREA_BLOCK / MAREA_WINOGRAD_POINTS;
  const int64_t size[] = {MAREA_WINOGRAD_POINTS, n};
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(float), &bytes));
  MAREA_SCRATCH(c, w.points, bytes);
  if (backward) {
    MAREA_SCRATCH(c, w.turned, (size_t)(9 * n) * sizeof(float));
    marea_parallel(c->ctx, 9, turn_tap, &w);
  }
  marea_parallel(c->ctx, (n + step - 1) / step, weight_block, &w);
  p->weight = (const char *)w.points;
  p->tile = gather_tile;
  return open_points(c, p->w.units, p->w.axis[1].out, p->cin, p->cout, &p->points);
}

/* ---- correlate ---- */

static void transform_gradient (const marea_conv_correlate *p, const float *dy, int64_t first, int64_t n,
                                int64_t rows, float *points) {
  const int64_t cols = p->g->out[1], channels = p->g->cout;
  for (int64_t i = 0; i < n; i++) {
    marea_winograd g = {.image = (float *)dy + 4 * (first + i) * cols * channels,
                        .points = points + i * p->points.across * channels,
                        .tiles = p->points.across,
                        .channels = channels,
                        .row = cols * channels,
                        .col = channels,
                        .point = p->points.step[1],
                        .rows = rows - 4 * (first + i),
                        .cols = cols};
    p->kernels->winograd_gradient(&g);
  }
}

static void add_products (const marea_conv_correlate *p, int64_t tiles, const float *data, const float *dy,
                          float *sum) {
  const int64_t cin = p->g->cin, cout = p->g->cout;
  for (int64_t i = 0; i < MAREA_WINOGRAD_POINTS; i++) {
    marea_correlate k = {.x = data + i * p->points.step[0],
                         .dy = dy + i * p->points.step[1],
                         .dw = sum + i * cin * cout,
                         .rows = 1,
                         .cols = tiles,
                         .x_col = cin,
                         .dy_col = cout,
                         .m = cin,
                         .cout = cout,
                         .dw_row = cout,
                         .offset = p->offset};
    p->kernels->correlate(&k);
  }
}

static void correlate_tile (const marea_conv_correlate *p, int64_t image, int64_t tile, int64_t cut,
                            int worker, char *sum) {
  const marea_conv_window *w = &p->x;
  const int64_t rows = marea_conv_window_units(w, tile);
  const char *x = marea_conv_window_load(w, image, tile, worker);
  const char *dy = marea_conv_rows_load(&p->dy, image * p->g->out[0] + tile * w->units, rows, worker);
  float *data = points_of(&p->points, 0, worker), *gradient = points_of(&p->points, 1, worker);
  (void)cut; /* there is one */
  for (int64_t first = 0; 4 * first < rows; first += p->points.band) {
    const int64_t n = band_size(&p->points, rows, first);
    transform_data(&p->points, p->kernels, w, x, first, n, data);
    transform_gradient(p, (const float *)dy, first, n, rows, gradient);
    add_products(p, n * p->points.across, data, gradient, (float *)sum);
  }
}

marea_status marea_conv_correlate_by_points (marea_call *c, marea_conv_correlate *p) {
  const marea_conv *g = p->g;
  int64_t *offset;
  size_t bytes;
  p->tile = correlate_tile;
  p->rows = MAREA_WINOGRAD_POINTS;
  p->count = MAREA_WINOGRAD_POINTS * g->cin * g->cout;
  p->parts = parts_at_points(g);
  p->cuts = 1;
  MAREA_SCRATCH(c, offset, (size_t)g->cin * sizeof *offset);
  for (int64_t i = 0; i < g->cin; i++) offset[i] = i;
  p->offset = offset;
  const int64_t size[] = {p->parts, p->count};
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(float), &bytes));
  MAREA_SCRATCH(c, p->sums, bytes);
  return open_points(c, p->x.units, g->out[1], g->cin, g->cout, &p->points);
}
