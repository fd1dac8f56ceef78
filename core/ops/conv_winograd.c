/* SPDX-License-Identifier: MIT
** conv_winograd.c: 3x3 convolutions at the points of a bilinear algorithm: for stride 1 four multiplications for
** sixteen, for stride 2 twenty-five for thirty-six. The transforms are the kernels winograd_*; the products in
** between are the kernels `gather` and `correlate` on a single row of tiles, as if these were pixels.
**
** In f32 only: f64 is there for exactness. The rounding error against the direct sum is some 1e-6 of the
** largest output.
*/
#include "conv_pass.h"

/* What makes a scheme worth while. Fewer channels, and the transforms of data cost more than the products save; fewer
   tiles of all images, and those of the weights do. `saves`: multiplications of the direct sum for one here. */
typedef struct worth {
  int64_t channels, tiles;
  double saves;
} worth;
static const worth plain_worth = {16, 16, 2}, strided_worth = {32, 64, 1.25};

#define BAND_BYTES ((int64_t)1 << 19) /* points of a band, both sides */
#define LEAST_TILES 28                /* of a band, which the weights are read for */
#define SUM_BYTES ((int64_t)1 << 24)  /* weight gradients at points, all parts */
#define LEAST_PARTS 8
#define WEIGHTS 4096 /* at points, of a block */

/* ---- which scheme, and where its tiles lie ---- */

static int64_t tiles_of (int64_t size, int64_t outputs) { return (size + outputs - 1) / outputs; }

/* One of the schemes, for results of size `out`? */
static bool choose_scheme (const marea_conv *g, int dtype, bool backward, const int64_t out[2],
                           marea_conv_points *p) {
  const bool strided = g->stride[0] == 2;
  const worth *w = strided ? &strided_worth : &plain_worth;
  if (dtype != MAREA_F32 || g->groups != 1 || MAREA_MIN(g->cin, g->cout) < w->channels) return false;
  for (int d = 0; d < 2; d++)
    if (g->kernel[d] != 3 || g->stride[d] != (strided ? 2 : 1) || g->dilation[d] != 1) return false;
  p->scheme = !strided ? MAREA_SCHEME_PLAIN : backward ? MAREA_SCHEME_SPREAD : MAREA_SCHEME_STRIDED;
  const marea_scheme_sizes size = marea_scheme_size(p->scheme);
  p->count = size.points * size.points;
  int64_t tiles = 1;
  for (int d = 0; d < 2; d++) {
    p->before[d] = p->scheme == MAREA_SCHEME_SPREAD ? g->before[d] % size.outputs : 0;
    tiles *= tiles_of(p->before[d] + out[d], size.outputs);
  }
  const int64_t pixels = g->out[0] *
                         g->out[1]; /* of the small side; each meets 9 taps, whatever the direction */
  return g->n * tiles >= w->tiles && 9.0 * (double)pixels >= w->saves * (double)(tiles * p->count);
}

/* Of stride 2 the products at points save little, and where these are fast, reading and writing the points takes
   longer than that. */
bool marea_conv_gathers_at_points (const marea_context *ctx, const marea_conv *g, int dtype, bool backward,
                                   marea_conv_points *p) {
  if (ctx->wide && g->stride[0] > 1) return false;
  return choose_scheme(g, dtype, backward, backward ? g->in : g->out, p);
}

/* Sums of weight gradients that memory allows. */
static int64_t sums_of (const marea_conv *g, const marea_conv_points *p) {
  const int64_t bytes = p->count * g->cin * g->cout * (int64_t)sizeof(float);
  return MAREA_MIN(MAREA_MIN(g->n, MAREA_CONV_PARTS), SUM_BYTES / bytes);
}

bool marea_conv_correlates_at_points (const marea_conv *g, int dtype, marea_conv_points *p) {
  return choose_scheme(g, dtype, false, g->out, p) && sums_of(g, p) >= LEAST_PARTS;
}

/* Where tiles of the scheme read the large side, or of SPREAD the small one: units of the axes are tiles. */
static void set_axes (const marea_conv *g, bool backward, const marea_conv_points *p,
                      marea_conv_axis axis[2]) {
  const marea_scheme_sizes size = marea_scheme_size(p->scheme);
  for (int d = 0; d < 2; d++) {
    const int64_t out = backward ? g->in[d] : g->out[d];
    int64_t low = -g->before[d];
    if (backward)
      low = p->scheme == MAREA_SCHEME_PLAIN ? g->before[d] - 2 : g->before[d] / size.outputs * size.step - 1;
    axis[d] = (marea_conv_axis){.src = backward ? g->out[d] : g->in[d],
                                .out = out,
                                .src_step = size.step,
                                .out_step = size.outputs,
                                .most = tiles_of(p->before[d] + out, size.outputs),
                                .low = low,
                                .high = low + size.data - 1};
  }
}

/* Memory for a band of at most `down` rows of tiles: points of `first` and of `second` channels. */
static marea_status open_points (marea_call *c, int64_t down, int64_t across, int64_t first, int64_t second,
                                 marea_conv_points *p) {
  const int64_t tile = p->count * (first + second) * (int64_t)sizeof(float);
  const int64_t wanted = MAREA_MAX(BAND_BYTES / tile, LEAST_TILES);
  const int64_t bands = (down * across + wanted - 1) / wanted;
  p->across = across;
  p->band = (down + bands - 1) / bands;
  p->step[0] = p->band * across * first + MAREA_ALIGN / (int64_t)sizeof(float); /* not a power of two */
  p->step[1] = p->band * across * second + MAREA_ALIGN / (int64_t)sizeof(float);
  const int64_t size[] = {p->count, p->step[0] + p->step[1], c->ctx->threads};
  size_t total;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, size, sizeof(float), &total));
  p->bytes = total / (size_t)c->ctx->threads;
  MAREA_SCRATCH(c, p->memory, total);
  return MAREA_OK;
}

static float *points_of (const marea_conv_points *p, int side, int worker) {
  return (float *)(p->memory + (size_t)worker * p->bytes) + (side == 0 ? 0 : p->count * p->step[0]);
}

/* Row `row` of tiles of an image whose pixels of `channels` start at `image`, rows and columns as given. */
static marea_winograd tiles_in_image (const marea_conv_points *p, const float *image, int64_t row,
                                      int64_t rows, int64_t cols, int64_t channels) {
  const int64_t outputs = marea_scheme_size(p->scheme).outputs, first = row * outputs - p->before[0];
  return (marea_winograd){.scheme = p->scheme,
                          .image = (float *)image + (first * cols - p->before[1]) * channels,
                          .tiles = p->across,
                          .channels = channels,
                          .row = cols * channels,
                          .col = channels,
                          .point = p->step[1],
                          .top = MAREA_MAX(-first, 0),
                          .left = p->before[1],
                          .rows = rows - MAREA_MAX(first, 0),
                          .cols = cols};
}

/* Points of rows `first` .. first + n - 1 of tiles, of those in x. */
static void transform_data (const marea_conv_points *p, const marea_kernels *k, const marea_conv_window *w,
                            const char *x, int64_t first, int64_t n, float *points) {
  for (int64_t i = 0; i < n; i++) {
    marea_winograd g = {.scheme = p->scheme,
                        .image = (float *)x + (first + i) * w->axis[0].src_step * w->row,
                        .points = points + i * p->across * w->channels,
                        .tiles = p->across,
                        .channels = w->channels,
                        .row = w->row,
                        .col = w->channels,
                        .point = p->step[0]};
    k->winograd_data(&g);
  }
}

/* ---- gather ---- */

static void multiply (const marea_conv_gather *p, int64_t tiles, const float *data, float *products,
                      marea_conv_ahead *ahead) {
  static const int64_t here = 0;
  for (int64_t i = 0; i < p->points.count; i++) {
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
                      .w_ci = p->cout,
                      .ahead = ahead ? marea_conv_ahead_next(ahead) : NULL};
    p->kernels->gather(&g);
  }
}

static void write_outputs (const marea_conv_gather *p, float *products, int64_t first, int64_t n,
                           const float *out) {
  for (int64_t i = 0; i < n; i++) {
    marea_winograd g = tiles_in_image(&p->points, out, first + i, p->w.axis[0].out, p->w.axis[1].out,
                                      p->cout);
    g.points = products + i * p->points.across * p->cout;
    g.bias = p->bias;
    g.act = p->act;
    g.slope = p->slope;
    p->kernels->winograd_outputs(&g);
  }
}

static void gather_tile (const marea_conv_gather *p, int64_t image, int64_t tile, int worker,
                         marea_conv_ahead *ahead) {
  const marea_conv_window *w = &p->w;
  const marea_conv_points *points = &p->points;
  const int64_t rows = marea_conv_window_units(w, tile);
  const char *x = marea_conv_window_load(w, image, tile, worker);
  const float *out = (const float *)p->out + image * w->axis[0].out * w->axis[1].out * p->cout;
  float *data = points_of(points, 0, worker), *products = points_of(points, 1, worker);
  for (int64_t first = 0; first < rows; first += points->band) {
    const int64_t n = MAREA_MIN(points->band, rows - first);
    transform_data(points, p->kernels, w, x, first, n, data);
    multiply(p, n * points->across, data, products, ahead);
    write_outputs(p, products, tile * w->units + first, n, out);
  }
}

/* ---- its weights ---- */

typedef struct weights {
  const marea_kernels *kernels;
  const marea_conv_points *points;
  int64_t cin, cout;
  const float *weight; /* (9, cin, cout) */
  float *turned;       /* (9, cout, cin), taps in reverse: the input gradient's */
  float *at_points;    /* (points, channels read, channels written) */
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
  const int64_t n = w->cin * w->cout, step = WEIGHTS / w->points->count;
  (void)worker;
  w->kernels->winograd_weight(w->points->scheme, (size_t)n, (size_t)(block * step),
                              (size_t)MAREA_MIN((block + 1) * step, n), w->turned ? w->turned : w->weight,
                              w->at_points);
}

static marea_status transform_weight (marea_call *c, const marea_conv *g, bool backward,
                                      marea_conv_gather *p) {
  weights w = {p->kernels, &p->points, g->cin, g->cout, (const float *)p->weight, NULL, NULL};
  const int64_t n = g->cin * g->cout, step = WEIGHTS / p->points.count, size[] = {p->points.count, n};
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(float), &bytes));
  MAREA_SCRATCH(c, w.at_points, bytes);
  if (backward) {
    MAREA_SCRATCH(c, w.turned, (size_t)(9 * n) * sizeof(float));
    marea_parallel(c->ctx, 9, turn_tap, &w);
  }
  marea_parallel(c->ctx, (n + step - 1) / step, weight_block, &w);
  p->weight = (const char *)w.at_points;
  return MAREA_OK;
}

marea_status marea_conv_gather_at_points (marea_call *c, const marea_conv *g, bool backward,
                                          const marea_conv_source *src, marea_conv_gather *p) {
  set_axes(g, backward, &p->points, p->w.axis);
  MAREA_TRY(marea_conv_window_open(c, src, &p->w));
  MAREA_TRY(transform_weight(c, g, backward, p));
  p->tile = gather_tile;
  return open_points(c, p->w.units, p->w.axis[1].most, p->cin, p->cout, &p->points);
}

/* ---- correlate ---- */

/* dy: `rows` rows of the gradient from row `first` of tiles on */
static void transform_gradient (const marea_conv_correlate *p, const float *dy, int64_t first, int64_t n,
                                int64_t rows, float *points) {
  for (int64_t i = 0; i < n; i++) {
    marea_winograd g = tiles_in_image(&p->points, dy, first + i, rows, p->g->out[1], p->g->cout);
    g.points = points + i * p->points.across * p->g->cout;
    p->kernels->winograd_gradient(&g);
  }
}

static void add_products (const marea_conv_correlate *p, int64_t tiles, const float *data, const float *dy,
                          marea_conv_sum *sum, marea_conv_ahead *ahead) {
  const int64_t cin = p->g->cin, cout = p->g->cout;
  for (int64_t i = 0; i < p->points.count; i++) {
    marea_correlate k = {.x = data + i * p->points.step[0],
                         .dy = dy + i * p->points.step[1],
                         .dw = (float *)sum->at + i * cin * cout,
                         .overwrite = sum->fresh,
                         .rows = 1,
                         .cols = tiles,
                         .x_col = cin,
                         .dy_col = cout,
                         .m = cin,
                         .cout = cout,
                         .dw_row = cout,
                         .offset = p->offset,
                         .ahead = ahead ? marea_conv_ahead_next(ahead) : NULL};
    p->kernels->correlate(&k);
  }
  sum->fresh = false;
}

static void correlate_tile (const marea_conv_correlate *p, int64_t image, int64_t tile, int64_t cut,
                            int worker, marea_conv_sum *sum, marea_conv_ahead *ahead) {
  const marea_conv_window *w = &p->x;
  const marea_conv_points *points = &p->points;
  const int64_t tiles = marea_conv_window_units(w, tile), outputs = w->axis[0].out_step;
  const int64_t top = tile * w->units * outputs, rows = MAREA_MIN(tiles * outputs, p->g->out[0] - top);
  const char *x = marea_conv_window_load(w, image, tile, worker);
  const float *dy = (const float *)marea_conv_rows_load(&p->dy, image * p->g->out[0] + top, rows, worker);
  float *data = points_of(points, 0, worker), *gradient = points_of(points, 1, worker);
  (void)cut; /* there is one */
  for (int64_t first = 0; first < tiles; first += points->band) {
    const int64_t n = MAREA_MIN(points->band, tiles - first);
    transform_data(points, p->kernels, w, x, first, n, data);
    transform_gradient(p, dy, first, n, rows, gradient);
    add_products(p, n * points->across, data, gradient, sum, ahead);
  }
}

marea_status marea_conv_correlate_at_points (marea_call *c, const marea_conv_source *x,
                                             marea_conv_correlate *p) {
  const marea_conv *g = p->g;
  int64_t *offset;
  size_t bytes;
  set_axes(g, false, &p->points, p->x.axis);
  MAREA_TRY(marea_conv_window_open(c, x, &p->x));
  p->tile = correlate_tile;
  p->rows = p->points.count;
  p->count = p->points.count * g->cin * g->cout;
  p->parts = sums_of(g, &p->points);
  p->cuts = 1;
  MAREA_TABLE(c, offset, (size_t)g->cin * sizeof *offset);
  for (int64_t i = 0; i < g->cin; i++) offset[i] = i;
  p->offset = offset;
  const int64_t size[] = {p->parts, p->count};
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(float), &bytes));
  MAREA_SCRATCH(c, p->sums, bytes);
  return open_points(c, p->x.units, p->x.axis[1].most, g->cin, g->cout, &p->points);
}
