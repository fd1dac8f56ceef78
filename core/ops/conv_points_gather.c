/* SPDX-License-Identifier: MIT
** conv_points_gather.c: forward and input gradient of convolutions at points.
*/
#include "conv_points.h"

#define WEIGHT_BYTES ((int64_t)1 << 23) /* weights at points that these are multiplied with */

/* Some images and some panels of channels written, which have their weights at points. */
typedef struct together {
  const marea_conv_gather *gather;
  int64_t image, images, panel, panels;
} together;

/* Weights of a panel at a point, all phases */
static const float *weights_at (const together *k, int64_t point, int64_t panel) {
  const marea_conv_points *q = &k->gather->points;
  return q->weights + point * q->step[2] + (panel - k->panel) * MAREA_CONV_PANEL * q->phases * k->gather->cin;
}

/* All products at one point for one panel */
static void multiply_point (const together *k, int64_t point, int64_t panel, int64_t tiles, const float *data,
                            float *products, marea_prefetch *ahead) {
  const marea_conv_gather *p = k->gather;
  const marea_conv_points *q = &p->points;
  const int64_t width = marea_conv_panel_width(p->cout, panel), weights = p->cin * width;
  const float *w = weights_at(k, point, panel);
  int phase[4];
  int64_t tap[4] = {0};
  const int phases = marea_points_phases_at(q, point, phase), calls = q->spread ? phases : 1;
  for (int f = 0; f < phases && !q->spread; f++) tap[f] = phase[f] * q->tiles * p->cin;
  for (int i = 0; i < calls; i++) {
    const int out = q->spread ? phase[i] : 0;
    const marea_direct_conv g = {.x = data + point * q->step[0],
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
                                 .prefetch = ahead};
    p->kernels->direct_conv(&g);
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
      const marea_lattice l = q->spread ? marea_points_phase(q, f) : marea_points_whole(q);
      marea_winograd_row g = marea_points_tiles_in_image(q, &l, out, first + i, rows, cols, p->cout);
      g.transformed = (float *)products + f * q->tiles * p->cout;
      g.bias = p->bias;
      g.act = p->act;
      g.slope = p->slope;
      p->kernels->winograd_outputs(&g);
    }
  }
}

static void gather_tile (const marea_conv_gather *p, int64_t image, int64_t tile, int worker,
                         marea_prefetch *ahead) {
  const marea_conv_window *w = &p->w;
  const marea_conv_points *q = &p->points;
  const together k = {.gather = p};
  const int64_t rows = marea_conv_window_units(w, tile), panels = marea_conv_panels(p->cout);
  const char *x = marea_conv_window_load(w, image, tile, worker);
  float *data = marea_points_of(q, 0, worker), *products = marea_points_of(q, 1, worker);
  for (int64_t first = 0; first < rows; first += q->band) {
    const int64_t n = MAREA_MIN(q->band, rows - first);
    marea_points_transform_data(q, p->kernels, w, x, first, n, false, 0, data);
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
    const marea_lattice l = marea_points_phase(q, (int)phase);
    const int64_t tap = rows->first[l.first[0]] * row + cols->first[l.first[1]] * n;
    const int64_t to = panel * MAREA_CONV_PANEL * q->phases * p->cin + (phase * p->cin + channel) * width;
    const marea_winograd_weight g = {.variant = q->variant,
                                     .taps = {l.taps[0], l.taps[1]},
                                     .weight = (float *)p->weight + tap + channel * p->cout + first,
                                     .transformed = q->weights + to,
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
  q->step[2] = q->panels * n + MAREA_POINTS_PAD;
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

static void load_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_conv_gather *p = k->gather;
  const marea_conv_window *w = &p->w;
  const int64_t image = block / w->tiles, tile = block % w->tiles;
  const char *x = marea_conv_window_load(w, k->image + image, tile, worker);
  marea_points_transform_data(&p->points, p->kernels, w, x, 0, marea_conv_window_units(w, tile), false,
                              marea_points_tile(&p->points, image, tile * w->units),
                              marea_points_of(&p->points, 0, worker));
}

/* While one panel is multiplied, the next one's weights are asked for, and its share of the next point's data and
   products. */
static void multiply_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_conv_points *q = &k->gather->points;
  const int64_t point = block / k->panels, panel = block % k->panels, next = block + 1;
  const size_t all = (size_t)q->step[0] * sizeof(float),
               share = all / (size_t)k->panels / MAREA_ALIGN * MAREA_ALIGN;
  const size_t weights = (size_t)(q->phases * k->gather->cin * MAREA_CONV_PANEL) * sizeof(float);
  marea_prefetch ahead = {.n = 0};
  if (next < q->count * k->panels)
    marea_prefetch_add(&ahead, marea_prefetch_area_of(
                                   weights_at(k, next / k->panels, k->panel + next % k->panels), weights));
  if (point + 1 < q->count)
    marea_prefetch_add(&ahead, marea_prefetch_area_of((char *)marea_points_of(q, 0, worker) +
                                                          (size_t)(point + 1) * all + (size_t)panel * share,
                                                      share));
  multiply_point(k, point, k->panel + panel, marea_points_tile(q, k->images, 0),
                 marea_points_of(q, 0, worker), marea_points_of(q, 1, worker), &ahead);
}

static void write_block (void *arg, int64_t image, int worker) {
  const together *k = arg;
  const marea_conv_gather *p = k->gather;
  write_outputs(p, marea_points_of(&p->points, 1, worker) + marea_points_tile(&p->points, image, 0) * p->cout,
                0, p->points.down, k->image + image);
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
  marea_points_axes(g, backward, &p->points, p->w.axis);
  MAREA_TRY(marea_conv_window_open(c, src, &p->w));
  MAREA_TRY(open_weights(c, g, backward, p));
  p->tile = gather_tile;
  if (p->points.images > 0) p->run = gather_together;
  return marea_points_open(c, p->w.units, p->cin, p->cout, &p->points);
}
