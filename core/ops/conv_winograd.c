/* SPDX-License-Identifier: MIT
** conv_winograd.c: convolutions at the points of a bilinear algorithm. 3x3: for stride 1 four multiplications for
** sixteen, for stride 2 twenty-five for thirty-six. 4x4 to 6x6 of stride 2 as convolutions of stride 1 between the
** smaller image and every other pixel of the larger one: for 5x5 121 for four hundred.
**
** The transforms are the kernels winograd_*; the products in between are the kernels `gather` and `correlate` on a
** single row of tiles, as if these were pixels. In f32 only: f64 is there for exactness. The rounding error against the
** direct sum is some 1e-6 of the largest output.
**
** Values at points lie together by point, then by phase (where the side has phases): (point, phase, tile, channel);
** weights are (point, panel, phase, channel read, channel of the panel), gradients (point, panel, tile, channel of the
** panel).
*/
#include "conv_pass.h"

/* What makes a scheme worth while. Fewer channels, and the transforms of data cost more than the products save; fewer
   tiles of all images, and those of the weights do. `saves`: multiplications of the direct sum for one here. */
typedef struct worth {
  int64_t channels, tiles;
  double saves;
} worth;
static const worth plain_worth = {16, 16, 2}, strided_worth = {32, 64, 1.25}, phases_worth = {32, 32, 1.6};

#define BAND_BYTES ((int64_t)1 << 19)   /* points of a band, both sides */
#define LEAST_TILES 28                  /* of a band, which the weights are read for */
#define FEW_TILES 12                    /* of an image, which are not worth reading the weights for */
#define IMAGES_BYTES ((int64_t)1 << 23) /* points of images that go together, both sides */
#define WEIGHT_BYTES ((int64_t)1 << 21) /* weights at points that these are multiplied with */
#define SUM_BYTES ((int64_t)1 << 24)    /* weight gradients at points, all parts */
#define LEAST_PARTS 8
#define LEAST_BLOCKS 8                             /* of sums, for threads to share */
#define PAD (MAREA_ALIGN / (int64_t)sizeof(float)) /* so that steps are no power of two */

/* ---- which scheme, and where its tiles lie ---- */

static int64_t tiles_of (int64_t size, int64_t outputs) { return (size + outputs - 1) / outputs; }

/* A dimension of 3 taps is one phase. */
static void set_whole (const marea_conv *g, int d, bool backward, const marea_conv_points *p,
                       marea_conv_points_axis *a) {
  const marea_scheme_sizes size = marea_scheme_size(p->scheme);
  *a = (marea_conv_points_axis){.phases = 1, .taps = {3}, .tap_step = 1, .low = -g->before[d]};
  if (!backward) return;
  a->first[0] = 2;
  a->tap_step = -1;
  a->before = p->scheme == MAREA_SCHEME_SPREAD ? g->before[d] % size.outputs : 0;
  a->low = p->scheme == MAREA_SCHEME_SPREAD ? g->before[d] / size.outputs * size.step - 1 : g->before[d] - 2;
}

/* Forward, output o meets pixels 2 o + t - before: those of an even distance meet taps 0, 2, 4, the others 1, 3, 5.
   Backward, pixel i meets taps t = i + before - 2 o; a tile starts at a pixel where t is of the kernel's parity, and then
   all its pixels meet the same stretch of dy. */
static void set_phases (const marea_conv *g, int d, bool backward, marea_conv_points_axis *a) {
  const int64_t k = g->kernel[d];
  *a = (marea_conv_points_axis){.phases = 2, .tap_step = backward ? -2 : 2, .low = -g->before[d]};
  for (int f = 0; f < 2; f++) {
    const int64_t first = backward ? (k + f) % 2 : f;
    a->taps[f] = (int)((k - first + 1) / 2);
    a->first[f] = backward ? first + 2 * (a->taps[f] - 1) : first;
  }
  if (!backward) return;
  a->before = (g->before[d] + k) % 2;
  a->low = (g->before[d] - k + 2 - a->before) / 2;
}

/* Can it be done? Sets all that does not depend on memory. */
static bool set_scheme (const marea_conv *g, int dtype, bool backward, marea_conv_points *p) {
  if (dtype != MAREA_F32 || g->groups != 1 || g->dilation[0] != 1 || g->dilation[1] != 1) return false;
  bool whole[2], strided[2];
  for (int d = 0; d < 2; d++) {
    const int64_t k = g->kernel[d], s = g->stride[d];
    whole[d] = k == 3 && s <= 2;
    strided[d] = whole[d] && s == 2;
    if (!whole[d] && !(k >= 4 && k <= 6 && s == 2)) return false;
  }
  if (strided[0] != strided[1]) return false;
  *p = (marea_conv_points){.spread = backward, .phases = 1, .products = 1};
  p->scheme = !strided[0] ? MAREA_SCHEME_PLAIN : backward ? MAREA_SCHEME_SPREAD : MAREA_SCHEME_STRIDED;
  const marea_scheme_sizes size = marea_scheme_size(p->scheme);
  p->side = size.points;
  p->count = p->side * p->side;
  int64_t tiles[2];
  for (int d = 0; d < 2; d++) {
    marea_conv_points_axis *a = &p->axis[d];
    if (whole[d]) set_whole(g, d, backward, p, a);
    else set_phases(g, d, backward, a);
    p->phases *= a->phases;
    p->products *= marea_scheme_points(p->scheme, a->taps[0]) +
                   (a->phases == 2 ? marea_scheme_points(p->scheme, a->taps[1]) : 0);
    tiles[d] = tiles_of(a->before + (backward ? g->in[d] : g->out[d]),
                        size.outputs * (backward ? a->phases : 1));
  }
  p->down = tiles[0];
  p->across = tiles[1];
  return true;
}

/* Products of the direct way for an image and a pair of channels: what lies in padding counts only where that is
   computed. */
static double direct_products (const marea_conv *g) {
  const bool all = !marea_conv_goes_across(g);
  double products = 1;
  for (int d = 0; d < 2; d++) {
    int64_t meetings = 0;
    for (int64_t o = 0; o < g->out[d]; o++)
      for (int64_t t = 0; t < g->kernel[d]; t++) {
        const int64_t at = o * g->stride[d] + t - g->before[d];
        meetings += all || (at >= 0 && at < g->in[d]);
      }
    products *= (double)meetings;
  }
  return products;
}

/* Of 3x3 and stride 2 the products at points save little: where a core does products at full rate, reading and writing
   the points takes longer than that. */
static bool pays (const marea_context *ctx, const marea_conv *g, const marea_conv_points *p) {
  if (ctx->wide && p->phases == 1 && g->stride[0] > 1) return false;
  const worth *w = p->phases > 1 ? &phases_worth : g->stride[0] == 2 ? &strided_worth : &plain_worth;
  const int64_t tiles = p->down * p->across;
  return MAREA_MIN(g->cin, g->cout) >= w->channels && g->n * tiles >= w->tiles &&
         direct_products(g) >= w->saves * (double)(tiles * p->products);
}

/* Elements of a tile at all points: of the side with phases and of the other one. */
static int64_t tile_size (const marea_conv_points *p, int64_t data, int64_t others) {
  return p->count * (p->spread ? data + p->phases * others : p->phases * data + others);
}

/* How many images go together. */
static int64_t images_together (const marea_conv *g, const marea_conv_points *p, int64_t data,
                                int64_t others) {
  const int64_t most = IMAGES_BYTES /
                       (p->down * p->across * tile_size(p, data, others) * (int64_t)sizeof(float));
  if (most <= 1) return most;
  const int64_t parts = (g->n + most - 1) / most;
  return (g->n + parts - 1) / parts;
}

bool marea_conv_gathers_at_points (const marea_context *ctx, const marea_conv *g, int dtype, bool backward,
                                   marea_conv_points *p) {
  if (!set_scheme(g, dtype, backward, p) || !pays(ctx, g, p)) return false;
  if (p->down * p->across < FEW_TILES)
    p->images = images_together(g, p, backward ? g->cout : g->cin, backward ? g->cin : g->cout);
  return true;
}

/* Sums of weight gradients that memory allows. */
static int64_t sums_of (const marea_conv *g, const marea_conv_points *p) {
  const int64_t bytes = p->products * g->cin * g->cout * (int64_t)sizeof(float);
  return MAREA_MIN(MAREA_MIN(g->n, MAREA_CONV_PARTS), SUM_BYTES / bytes);
}

bool marea_conv_correlates_at_points (const marea_context *ctx, const marea_conv *g, int dtype,
                                      marea_conv_points *p) {
  if (!set_scheme(g, dtype, false, p) || !pays(ctx, g, p)) return false;
  const bool bands = sums_of(g, p) >= LEAST_PARTS;
  if (!bands || p->down * p->across < FEW_TILES) p->images = images_together(g, p, g->cin, g->cout);
  return bands || p->images > 0;
}

/* ---- phases and points ---- */

/* What a side of the points is made of: pixels first, first + step, .. of an image, in each dimension. */
typedef struct lattice {
  int taps[2]; /* that they meet */
  int64_t first[2], step[2];
} lattice;

static lattice phase_lattice (const marea_conv_points *p, int phase) {
  const marea_conv_points_axis *rows = &p->axis[0], *cols = &p->axis[1];
  const int y = phase / cols->phases, x = phase % cols->phases;
  return (lattice){{rows->taps[y], cols->taps[x]}, {y, x}, {rows->phases, cols->phases}};
}

/* That of the side which phases have in common. */
static lattice whole_lattice (const marea_conv_points *p) {
  lattice l = {.step = {1, 1}};
  for (int d = 0; d < 2; d++) l.taps[d] = MAREA_MAX(p->axis[d].taps[0], p->axis[d].taps[1]);
  return l;
}

static bool has_point (const marea_conv_points *p, const lattice *l, int64_t point) {
  return point / p->side < marea_scheme_points(p->scheme, l->taps[0]) &&
         point % p->side < marea_scheme_points(p->scheme, l->taps[1]);
}

/* Phases that have a point; how many. */
static int phases_at (const marea_conv_points *p, int64_t point, int phases[4]) {
  int n = 0;
  for (int f = 0; f < p->phases; f++) {
    const lattice l = phase_lattice(p, f);
    if (has_point(p, &l, point)) phases[n++] = f;
  }
  return n;
}

/* ---- memory and transforms ---- */

static void set_axes (const marea_conv *g, bool backward, const marea_conv_points *p,
                      marea_conv_axis axis[2]) {
  const marea_scheme_sizes size = marea_scheme_size(p->scheme);
  for (int d = 0; d < 2; d++) {
    const marea_conv_points_axis *a = &p->axis[d];
    const int64_t read = backward ? 1 : a->phases, written = backward ? a->phases : 1;
    axis[d] = (marea_conv_axis){.src = backward ? g->out[d] : g->in[d],
                                .out = backward ? g->in[d] : g->out[d],
                                .src_step = size.step * read,
                                .out_step = size.outputs * written,
                                .most = d == 0 ? p->down : p->across,
                                .low = a->low,
                                .high = a->low + size.data * read - 1};
  }
}

/* Memory for a band of at most `units` rows of tiles, for each worker, or for images that go together. */
static marea_status open_points (marea_call *c, int64_t units, int64_t data, int64_t others,
                                 marea_conv_points *p) {
  const int64_t tile = tile_size(p, data, others) * (int64_t)sizeof(float);
  const int64_t wanted = MAREA_MAX(BAND_BYTES / tile, LEAST_TILES);
  const int64_t bands = (units * p->across + wanted - 1) / wanted;
  p->band = (units + bands - 1) / bands;
  p->tiles = p->images > 0 ? p->images * p->down * p->across : p->band * p->across;
  p->step[0] = p->tiles * data * (p->spread ? 1 : p->phases) + PAD;
  p->step[1] = p->tiles * others * (p->spread ? p->phases : 1) + PAD;
  const int64_t size[] = {p->count, p->step[0] + p->step[1]};
  p->other = p->count * p->step[0];
  if (p->images > 0) { /* next to each other, so that both can be asked for at once */
    p->other = p->step[0];
    p->step[0] = p->step[1] = p->step[0] + p->step[1];
  }
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(float), &p->bytes));
  if (p->images == 0) return marea_conv_worker_memory(c, &p->bytes, &p->memory);
  MAREA_SCRATCH(c, p->memory, p->bytes);
  return MAREA_OK;
}

static float *points_of (const marea_conv_points *p, int side, int worker) {
  const size_t own = p->images > 0 ? 0 : (size_t)worker * p->bytes;
  return (float *)(p->memory + own) + (side == 0 ? 0 : p->other);
}

static marea_winograd row_of_tiles (const marea_conv_points *p, const lattice *l, int side,
                                    int64_t channels) {
  return (marea_winograd){
      .scheme = p->scheme,
      .there = {marea_scheme_points(p->scheme, l->taps[0]), marea_scheme_points(p->scheme, l->taps[1])},
      .tiles = p->across,
      .channels = channels,
      .point_row = p->side * p->step[side],
      .point = p->step[side]};
}

/* One row of tiles, all channels together or, for `panels`, in panels one after the other: then lines of a panel do not
   push each other out of the first cache. Tile `tile` comes first. */
static void transform_row (const marea_conv_points *p, void (*transform)(const marea_winograd *), bool panels,
                           int64_t tile, const marea_winograd *row, float *points) {
  marea_winograd g = *row;
  if (!panels) {
    g.points = points + tile * row->channels;
    transform(&g);
    return;
  }
  for (int64_t panel = 0; panel < marea_conv_panels(row->channels); panel++) {
    g.channels = marea_conv_panel_width(row->channels, panel);
    g.image = (float *)row->image + panel * MAREA_CONV_PANEL;
    g.points = points + panel * MAREA_CONV_PANEL * p->tiles + tile * g.channels;
    transform(&g);
  }
}

/* Points of rows `first` .. first + n - 1 of tiles, of those in x, from tile `tile` on. */
static void transform_data (const marea_conv_points *p, const marea_kernels *k, const marea_conv_window *w,
                            const char *x, int64_t first, int64_t n, bool panels, int64_t tile,
                            float *points) {
  const int phases = p->spread ? 1 : p->phases;
  for (int64_t i = 0; i < n; i++, tile += p->across) {
    const float *row = (const float *)x + (first + i) * w->axis[0].src_step * w->row;
    for (int f = 0; f < phases; f++) {
      const lattice l = p->spread ? whole_lattice(p) : phase_lattice(p, f);
      marea_winograd g = row_of_tiles(p, &l, 0, w->channels);
      g.image = (float *)row + l.first[0] * w->row + l.first[1] * w->channels;
      g.row = l.step[0] * w->row;
      g.col = l.step[1] * w->channels;
      g.fetch = p->images > 0;
      transform_row(p, k->winograd_data, panels, tile, &g, points + f * p->tiles * w->channels);
    }
  }
}

/* Pixels of the lattice before `at`, which a tile starts `start` pixels away from. */
static int64_t pixels_before (int64_t at, int64_t start, int64_t step) {
  return at <= start ? 0 : (at - start + step - 1) / step;
}

/* Row `row` of tiles of an image whose pixels of `channels` start at `image`, rows and columns as given. */
static marea_winograd tiles_in_image (const marea_conv_points *p, const lattice *l, const float *image,
                                      int64_t row, int64_t rows, int64_t cols, int64_t channels) {
  marea_winograd g = row_of_tiles(p, l, 1, channels);
  const int64_t outputs = marea_scheme_size(p->scheme).outputs * l->step[0];
  const int64_t y = row * outputs - p->axis[0].before + l->first[0], x = l->first[1] - p->axis[1].before;
  g.image = (float *)image + (y * cols + x) * channels;
  g.row = l->step[0] * cols * channels;
  g.col = l->step[1] * channels;
  g.top = pixels_before(0, y, l->step[0]);
  g.left = pixels_before(0, x, l->step[1]);
  g.rows = pixels_before(rows, y, l->step[0]) - g.top;
  g.cols = pixels_before(cols, x, l->step[1]) - g.left;
  return g;
}

/* ---- gather ---- */

/* Some images and some panels of channels written, which have their weights at points. */
typedef struct together {
  const marea_conv_gather *gather;
  const marea_conv_correlate *correlate;
  int64_t image, images, panel, panels;
} together;

/* All products at one point for one panel */
static void multiply_point (const together *k, int64_t point, int64_t panel, int64_t tiles, const float *data,
                            float *products, marea_ahead *ahead) {
  const marea_conv_gather *p = k->gather;
  const marea_conv_points *q = &p->points;
  const int64_t width = marea_conv_panel_width(p->cout, panel), weights = p->cin * width;
  const float *w = q->weights + point * q->step[2] +
                   (panel - k->panel) * MAREA_CONV_PANEL * q->phases * p->cin;
  int phase[4];
  int64_t tap[4] = {0};
  const int phases = phases_at(q, point, phase), calls = q->spread ? phases : 1;
  for (int f = 0; f < phases && !q->spread; f++) tap[f] = phase[f] * q->tiles * p->cin;
  for (int i = 0; i < calls; i++) {
    const int out = q->spread ? phase[i] : 0;
    const marea_gather g = {.x = data + point * q->step[0],
                            .w = w + phase[i] * weights,
                            .y = products + point * q->step[1] + out * q->tiles * p->cout +
                                 panel * MAREA_CONV_PANEL,
                            .rows = 1,
                            .cols = tiles,
                            .x_col = p->cin,
                            .y_col = p->cout,
                            .cin = p->cin,
                            .cout = width,
                            .tap_rows = 1,
                            .taps = q->spread ? 1 : phases,
                            .tap = tap,
                            .w_tap = phases > 1 ? (phase[1] - phase[0]) * weights : 0,
                            .w_ci = width,
                            .ahead = ahead};
    p->kernels->gather(&g);
  }
}

static void write_outputs (const marea_conv_gather *p, const float *products, int64_t first, int64_t n,
                           int64_t image) {
  const marea_conv_points *q = &p->points;
  const int64_t rows = p->w.axis[0].out, cols = p->w.axis[1].out;
  const float *out = (const float *)p->out + image * rows * cols * p->cout;
  const int phases = q->spread ? q->phases : 1;
  for (int64_t i = 0; i < n; i++, products += q->across * p->cout) {
    for (int f = 0; f < phases; f++) {
      const lattice l = q->spread ? phase_lattice(q, f) : whole_lattice(q);
      marea_winograd g = tiles_in_image(q, &l, out, first + i, rows, cols, p->cout);
      g.points = (float *)products + f * q->tiles * p->cout;
      g.bias = p->bias;
      g.act = p->act;
      g.slope = p->slope;
      p->kernels->winograd_outputs(&g);
    }
  }
}

static void gather_tile (const marea_conv_gather *p, int64_t image, int64_t tile, int worker,
                         marea_ahead *ahead) {
  const marea_conv_window *w = &p->w;
  const marea_conv_points *q = &p->points;
  const together k = {.gather = p};
  const int64_t rows = marea_conv_window_units(w, tile), panels = marea_conv_panels(p->cout);
  const char *x = marea_conv_window_load(w, image, tile, worker);
  float *data = points_of(q, 0, worker), *products = points_of(q, 1, worker);
  for (int64_t first = 0; first < rows; first += q->band) {
    const int64_t n = MAREA_MIN(q->band, rows - first);
    transform_data(q, p->kernels, w, x, first, n, false, 0, data);
    for (int64_t i = 0; i < q->count * panels; i++)
      multiply_point(&k, i / panels, i % panels, n * q->across, data, products, ahead);
    write_outputs(p, products, tile * w->units + first, n, image);
  }
}

/* ---- its weights ---- */

#define SQUARE 16 /* turned at a time: lines of both sides stay in the first cache */

typedef struct turning {
  int64_t cin, cout;
  const float *weight; /* (taps, cin, cout) */
  float *turned;       /* (taps, cout, cin) */
} turning;

static void turn_tap (void *arg, int64_t tap, int worker) {
  const turning *k = arg;
  const int64_t cin = k->cin, cout = k->cout;
  const float *from = k->weight + tap * cin * cout;
  float *to = k->turned + tap * cin * cout;
  (void)worker;
  for (int64_t first = 0; first < cin; first += SQUARE)
    for (int64_t co = 0; co < cout; co++)
      for (int64_t ci = first; ci < MAREA_MIN(first + SQUARE, cin); ci++)
        to[co * cin + ci] = from[ci * cout + co];
}

/* One channel that is read, all phases of the panels */
static void weight_block (void *arg, int64_t channel, int worker) {
  const together *k = arg;
  const marea_conv_gather *p = k->gather;
  const marea_conv_points *q = &p->points;
  const marea_conv_points_axis *rows = &q->axis[0], *cols = &q->axis[1];
  const int64_t n = p->cin * p->cout, row = q->kernel_cols * n;
  (void)worker;
  for (int64_t i = 0; i < k->panels * q->phases; i++) {
    const int64_t panel = i / q->phases, phase = i % q->phases, first = (k->panel + panel) * MAREA_CONV_PANEL;
    const int64_t width = marea_conv_panel_width(p->cout, k->panel + panel);
    const lattice l = phase_lattice(q, (int)phase);
    const int64_t tap = rows->first[l.first[0]] * row + cols->first[l.first[1]] * n;
    const int64_t to = panel * MAREA_CONV_PANEL * q->phases * p->cin + (phase * p->cin + channel) * width;
    const marea_winograd_kernel g = {.scheme = q->scheme,
                                     .taps = {l.taps[0], l.taps[1]},
                                     .weight = (float *)p->weight + tap + channel * p->cout + first,
                                     .points = q->weights + to,
                                     .n = width,
                                     .row = rows->tap_step * row,
                                     .col = cols->tap_step * n,
                                     .point_row = q->side * q->step[2],
                                     .point = q->step[2]};
    p->kernels->winograd_weight(&g);
  }
}

/* Memory for the weights of some panels at points, all of them where these go together. */
static marea_status open_weights (marea_call *c, const marea_conv *g, bool backward, marea_conv_gather *p) {
  marea_conv_points *q = &p->points;
  const int64_t all = marea_conv_panels(p->cout), n = q->phases * p->cin * MAREA_CONV_PANEL;
  const int64_t most = MAREA_MAX(WEIGHT_BYTES / (q->count * n * (int64_t)sizeof(float)), 1);
  q->panels = q->images > 0 ? MAREA_MIN(all, most) : all;
  q->step[2] = q->panels * n + PAD;
  q->kernel_cols = g->kernel[1];
  const int64_t size[] = {q->count, q->step[2]};
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(float), &bytes));
  MAREA_SCRATCH(c, q->weights, bytes);
  if (backward) {
    turning k = {p->cout, p->cin, (const float *)p->weight, NULL};
    const int64_t taps = g->kernel[0] * g->kernel[1];
    MAREA_SCRATCH(c, k.turned, (size_t)(taps * p->cin * p->cout) * sizeof(float));
    marea_parallel(c->ctx, taps, turn_tap, &k);
    p->weight = (const char *)k.turned;
  }
  if (q->panels < all) return MAREA_OK;
  together k = {.gather = p, .panels = all};
  marea_parallel(c->ctx, p->cin, weight_block, &k);
  return MAREA_OK;
}

/* ---- its images together ---- */

/* Number of a tile among those of the images, for the image given and row `row` of tiles. */
static int64_t tile_of (const marea_conv_points *p, int64_t image, int64_t row) {
  return (image * p->down + row) * p->across;
}

static void load_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_conv_gather *p = k->gather;
  const marea_conv_window *w = &p->w;
  const int64_t image = block / w->tiles, tile = block % w->tiles;
  const char *x = marea_conv_window_load(w, k->image + image, tile, worker);
  transform_data(&p->points, p->kernels, w, x, 0, marea_conv_window_units(w, tile), false,
                 tile_of(&p->points, image, tile * w->units), points_of(&p->points, 0, worker));
}

/* While one panel is multiplied, its share of the next point's data and products is asked for. */
static void multiply_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_conv_points *q = &k->gather->points;
  const int64_t point = block / k->panels, panel = block % k->panels;
  const size_t all = (size_t)q->step[0] * sizeof(float),
               share = all / (size_t)k->panels / MAREA_ALIGN * MAREA_ALIGN;
  marea_ahead ahead = {.n = 0};
  if (point + 1 < q->count)
    marea_ahead_add(&ahead, marea_stretch_of((char *)points_of(q, 0, worker) + (size_t)(point + 1) * all +
                                                 (size_t)panel * share,
                                             share));
  multiply_point(k, point, k->panel + panel, tile_of(q, k->images, 0), points_of(q, 0, worker),
                 points_of(q, 1, worker), &ahead);
}

static void write_block (void *arg, int64_t image, int worker) {
  const together *k = arg;
  const marea_conv_gather *p = k->gather;
  write_outputs(p, points_of(&p->points, 1, worker) + tile_of(&p->points, image, 0) * p->cout, 0,
                p->points.down, k->image + image);
}

/* With the weights of some panels at a time */
static void gather_together (marea_call *c, const marea_conv_gather *p) {
  const marea_conv_points *q = &p->points;
  const int64_t panels = marea_conv_panels(p->cout);
  together k = {.gather = p};
  for (; k.image < p->w.images; k.image += k.images) {
    k.images = MAREA_MIN(q->images, p->w.images - k.image);
    marea_parallel(c->ctx, k.images * p->w.tiles, load_block, &k);
    for (k.panel = 0; k.panel < panels; k.panel += k.panels) {
      k.panels = MAREA_MIN(q->panels, panels - k.panel);
      if (q->panels < panels) marea_parallel(c->ctx, p->cin, weight_block, &k);
      marea_parallel(c->ctx, q->count * k.panels, multiply_block, &k);
    }
    marea_parallel(c->ctx, k.images, write_block, &k);
  }
}

marea_status marea_conv_gather_at_points (marea_call *c, const marea_conv *g, bool backward,
                                          const marea_conv_source *src, marea_conv_gather *p) {
  set_axes(g, backward, &p->points, p->w.axis);
  MAREA_TRY(marea_conv_window_open(c, src, &p->w));
  MAREA_TRY(open_weights(c, g, backward, p));
  p->tile = gather_tile;
  if (p->points.images > 0) p->run = gather_together;
  return open_points(c, p->w.units, p->cin, p->cout, &p->points);
}

/* ---- correlate ---- */

/* Sums are cut into blocks of some input channels of a panel by a panel of output channels, and hold (product, channel,
   channel) in each. */
typedef struct sum_block {
  int64_t cin, cout, rows, cols; /* the first channels; how many */
} sum_block;

/* Input channels of a block: fewer where threads share the blocks and would find too few. */
static int64_t sum_rows (const marea_conv_correlate *p) {
  const marea_conv *g = p->g;
  int64_t rows = MAREA_CONV_PANEL, blocks = marea_conv_panels(g->cin) * marea_conv_panels(g->cout);
  for (; p->run && rows > MAREA_CONV_PANEL / 4 && blocks < LEAST_BLOCKS; blocks *= 2) rows /= 2;
  return rows;
}

static int64_t sum_blocks (const marea_conv_correlate *p) {
  return tiles_of(p->g->cin, sum_rows(p)) * marea_conv_panels(p->g->cout);
}

static sum_block block_of (const marea_conv_correlate *p, int64_t block) {
  const marea_conv *g = p->g;
  const int64_t panels = marea_conv_panels(g->cout), rows = sum_rows(p), cin = block / panels * rows;
  return (sum_block){cin, block % panels * MAREA_CONV_PANEL, MAREA_MIN(rows, g->cin - cin),
                     marea_conv_panel_width(g->cout, block % panels)};
}

/* dy: `rows` rows of the gradient from row `first` of tiles on. */
static void transform_gradient (const marea_conv_correlate *p, const float *dy, int64_t first, int64_t n,
                                int64_t rows, int64_t tile, float *points) {
  const marea_conv_points *q = &p->points;
  const lattice l = whole_lattice(q);
  for (int64_t i = 0; i < n; i++, tile += q->across) {
    const marea_winograd g = tiles_in_image(q, &l, dy, first + i, rows, p->g->out[1], p->g->cout);
    transform_row(q, p->kernels->winograd_gradient, true, tile, &g, points);
  }
}

/* All products of a block. */
static void add_products (const marea_conv_correlate *p, const sum_block *b, int64_t tiles, const float *data,
                          const float *dy, float *sum, bool fresh, marea_ahead *ahead) {
  const marea_conv_points *q = &p->points;
  const int64_t panel = b->cin / MAREA_CONV_PANEL, first = panel * MAREA_CONV_PANEL;
  for (int f = 0; f < q->phases; f++) {
    const lattice l = phase_lattice(q, f);
    const float *x = data + (f * p->g->cin + first) * q->tiles + b->cin - first;
    for (int64_t point = 0; point < q->count; point++) {
      if (!has_point(q, &l, point)) continue;
      const marea_correlate k = {.x = x + point * q->step[0],
                                 .dy = dy + point * q->step[1] + b->cout * q->tiles,
                                 .dw = sum,
                                 .overwrite = fresh,
                                 .rows = 1,
                                 .cols = tiles,
                                 .x_col = marea_conv_panel_width(p->g->cin, panel),
                                 .dy_col = b->cols,
                                 .m = b->rows,
                                 .cout = b->cols,
                                 .dw_row = b->cols,
                                 .offset = p->offset,
                                 .ahead = ahead};
      p->kernels->correlate(&k);
      sum += b->rows * b->cols;
    }
  }
}

/* The weights of a block. */
static void write_weights (const marea_conv_correlate *p, const sum_block *b, const float *sum,
                           bool accumulate) {
  const marea_conv_points *q = &p->points;
  const marea_conv_points_axis *rows = &q->axis[0], *cols = &q->axis[1];
  const int64_t n = p->g->cin * p->g->cout, size = b->rows * b->cols;
  for (int f = 0; f < q->phases; f++) {
    const lattice l = phase_lattice(q, f);
    const int64_t tap = rows->first[l.first[0]] * p->g->kernel[1] + cols->first[l.first[1]];
    const int64_t down = marea_scheme_points(q->scheme, l.taps[0]),
                  across = marea_scheme_points(q->scheme, l.taps[1]);
    for (int64_t r = 0; r < b->rows; r++) {
      const marea_winograd_kernel g = {.scheme = q->scheme,
                                       .taps = {l.taps[0], l.taps[1]},
                                       .weight = (float *)p->dw + tap * n + (b->cin + r) * p->g->cout +
                                                 b->cout,
                                       .points = (float *)sum + r * b->cols,
                                       .n = b->cols,
                                       .row = rows->tap_step * p->g->kernel[1] * n,
                                       .col = cols->tap_step * n,
                                       .point_row = across * size,
                                       .point = size,
                                       .accumulate = accumulate};
      p->kernels->winograd_weight_gradient(&g);
    }
    sum += down * across * size;
  }
}

/* Where a block lies among the sums. */
static int64_t block_at (const marea_conv_correlate *p, const sum_block *b) {
  return p->points.products * (b->cin * p->g->cout + b->cout * b->rows);
}

static void correlate_tile (const marea_conv_correlate *p, int64_t image, int64_t tile, int64_t cut,
                            int worker, marea_conv_sum *sum, marea_ahead *ahead) {
  const marea_conv_window *w = &p->x;
  const marea_conv_points *q = &p->points;
  const int64_t tiles = marea_conv_window_units(w, tile), outputs = w->axis[0].out_step;
  const int64_t top = tile * w->units * outputs, rows = MAREA_MIN(tiles * outputs, p->g->out[0] - top);
  const char *x = marea_conv_window_load(w, image, tile, worker);
  const float *dy = (const float *)marea_conv_rows_load(&p->dy, image, top, rows, worker);
  float *data = points_of(q, 0, worker), *gradient = points_of(q, 1, worker);
  (void)cut; /* there is one */
  for (int64_t first = 0; first < tiles; first += q->band, sum->fresh = false) {
    const int64_t n = MAREA_MIN(q->band, tiles - first);
    transform_data(q, p->kernels, w, x, first, n, true, 0, data);
    transform_gradient(p, dy, first, n, rows, 0, gradient);
    for (int64_t i = 0; i < sum_blocks(p); i++) {
      const sum_block b = block_of(p, i);
      add_products(p, &b, n * q->across, data, gradient, (float *)sum->at + block_at(p, &b), sum->fresh,
                   ahead);
    }
  }
}

static void write_sum (void *arg, int64_t block, int worker) {
  const marea_conv_correlate *p = arg;
  const sum_block b = block_of(p, block);
  (void)worker;
  write_weights(p, &b, (const float *)p->sums + block_at(p, &b), false);
}

/* ---- its images together ---- */

static void load_both (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_conv_correlate *p = k->correlate;
  const marea_conv_window *w = &p->x;
  const marea_conv_points *q = &p->points;
  const int64_t image = block / w->tiles, tile = block % w->tiles, outputs = w->axis[0].out_step;
  const int64_t tiles = marea_conv_window_units(w, tile), first = tile_of(q, image, tile * w->units);
  const int64_t top = tile * w->units * outputs, rows = MAREA_MIN(tiles * outputs, p->g->out[0] - top);
  const char *x = marea_conv_window_load(w, k->image + image, tile, worker);
  const char *dy = marea_conv_rows_load(&p->dy, k->image + image, top, rows, worker);
  transform_data(q, p->kernels, w, x, 0, tiles, true, first, points_of(q, 0, 0));
  transform_gradient(p, (const float *)dy, 0, tiles, rows, first, points_of(q, 1, 0));
}

/* From points to weights while the sums are in the second-level cache. */
static void add_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_conv_correlate *p = k->correlate;
  const sum_block b = block_of(p, block);
  float *sum = (float *)(p->sums + (size_t)worker * p->sum_bytes);
  add_products(p, &b, tile_of(&p->points, k->images, 0), points_of(&p->points, 0, 0),
               points_of(&p->points, 1, 0), sum, true, NULL);
  write_weights(p, &b, sum, k->image > 0);
}

static void correlate_together (const marea_conv_correlate *p) {
  together k = {.correlate = p};
  for (; k.image < p->g->n && !marea_stopping(p->ctx); k.image += k.images) {
    k.images = MAREA_MIN(p->points.images, p->g->n - k.image);
    marea_parallel(p->ctx, k.images * p->x.tiles, load_both, &k);
    marea_parallel(p->ctx, sum_blocks(p), add_block, &k);
  }
}

/* ---- */

void marea_conv_correlate_from_points (const marea_conv_correlate *p) {
  if (!p->run) marea_parallel(p->ctx, sum_blocks(p), write_sum, (void *)p);
}

/* Sums of all parts, or of a block for each worker. */
static marea_status open_sums (marea_call *c, marea_conv_correlate *p) {
  const int64_t size[] = {p->parts, p->count};
  size_t bytes;
  if (p->run) {
    p->sum_bytes = (size_t)(p->points.products * MAREA_CONV_PANEL * MAREA_CONV_PANEL) * sizeof(float);
    return marea_conv_worker_memory(c, &p->sum_bytes, &p->sums);
  }
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(float), &bytes));
  MAREA_SCRATCH(c, p->sums, bytes);
  return MAREA_OK;
}

marea_status marea_conv_correlate_at_points (marea_call *c, const marea_conv_source *x,
                                             marea_conv_correlate *p) {
  const marea_conv *g = p->g;
  int64_t *offset;
  set_axes(g, false, &p->points, p->x.axis);
  MAREA_TRY(marea_conv_window_open(c, x, &p->x));
  p->tile = correlate_tile;
  p->rows = p->points.products;
  p->count = p->rows * g->cin * g->cout;
  p->parts = p->points.images > 0 ? 1 : sums_of(g, &p->points);
  p->cuts = 1;
  if (p->points.images > 0) p->run = correlate_together;
  MAREA_TABLE(c, offset, MAREA_CONV_PANEL * sizeof *offset);
  for (int64_t i = 0; i < MAREA_CONV_PANEL; i++) offset[i] = i;
  p->offset = offset;
  MAREA_TRY(open_sums(c, p));
  return open_points(c, p->x.units, g->cin, g->cout, &p->points);
}
