/* SPDX-License-Identifier: MIT
** winograd_images.c: the image pass by Winograd's algorithms.
*/
#include "pack.h"
#include "winograd_passes.h"

/* Transformed weights that images which go together are multiplied with at a time. 128->256, 5x5, 7x7, stride 2, batch 64
   (see choose.c): 4 MB 6.2 ms, 8 MB 5.1, 16 MB 6.9. */
#define WEIGHT_BYTES ((int64_t)1 << 23)
/* A square of weights that is transposed at a time: 16 lines of 64 bytes on both sides stay in the first-level cache. */
#define SQUARE 16

/* Some images, and some panels of written channels, whose weights are transformed. */
typedef struct together {
  const marea_winograd_images *pass;
  int64_t image, images, panel, panels;
} together;

/* ---- the three steps ---- */

/* Weights of a panel at a point, all phases. */
static const float *weights_at (const together *k, int64_t point, int64_t panel) {
  const marea_winograd_images *p = k->pass;
  return p->weights + point * p->weight_step +
         (panel - k->panel) * MAREA_CONV_PANEL * p->plan.phases * p->base.cin;
}

/* All products at one point for one panel. */
static void multiply_point (const together *k, int64_t point, int64_t panel, int64_t tiles, const float *data,
                            float *products, marea_prefetch *prefetch) {
  const marea_image_pass *b = &k->pass->base;
  const marea_winograd_plan *q = &k->pass->plan;
  const int64_t width = marea_conv_panel_width(b->cout, panel), weights = b->cin * width;
  const float *w = weights_at(k, point, panel);
  int phase[4];
  int64_t tap[4] = {0};
  const int phases = marea_winograd_phases_at(q, point, phase), calls = q->input_gradient ? phases : 1;
  for (int f = 0; f < phases && !q->input_gradient; f++) tap[f] = phase[f] * q->most_tiles * b->cin;
  for (int i = 0; i < calls; i++) {
    const int out = q->input_gradient ? phase[i] : 0;
    const marea_direct_conv g = {.x = data + point * q->step[0],
                                 .w = w + phase[i] * weights,
                                 .y = products + point * q->step[1] + out * q->most_tiles * b->cout +
                                      panel * MAREA_CONV_PANEL,
                                 .rows = 1,
                                 .cols = tiles,
                                 .x_col = b->cin,
                                 .y_col = b->cout,
                                 .cin = b->cin,
                                 .cout = width,
                                 .tap_rows = 1,
                                 .taps = q->input_gradient ? 1 : phases,
                                 .tap = tap,
                                 .w_tap = phases > 1 ? (phase[1] - phase[0]) * weights : 0,
                                 .w_ci = width,
                                 .prefetch = prefetch};
    b->kernels->direct_conv(&g);
  }
}

static void write_outputs (const marea_winograd_images *p, const float *products, int64_t first, int64_t n,
                           int64_t image) {
  const marea_image_pass *b = &p->base;
  const marea_winograd_plan *q = &p->plan;
  const int64_t rows = b->x.axis[0].out, cols = b->x.axis[1].out;
  const float *out = (const float *)b->out + image * rows * cols * b->out_step;
  const int phases = q->input_gradient ? q->phases : 1;
  for (int64_t i = 0; i < n; i++, products += q->tile_cols * b->cout) {
    for (int f = 0; f < phases; f++) {
      const marea_winograd_grid l = q->input_gradient ? marea_winograd_phase(q, f) : marea_winograd_whole(q);
      marea_winograd_row g = marea_winograd_row_in_image(q, &l, out, first + i, rows, cols, b->cout,
                                                         b->out_step);
      g.transformed = (float *)products + f * q->most_tiles * b->cout;
      g.bias = b->bias;
      g.act = b->act;
      g.slope = b->slope;
      b->kernels->winograd_outputs(&g);
    }
  }
}

/* All three steps for the bands of a tile of the window. */
static void compute_tile (const marea_image_pass *b, int64_t image, int64_t tile, int worker,
                          marea_prefetch *prefetch) {
  const marea_winograd_images *p = (const marea_winograd_images *)b;
  const marea_conv_window *w = &b->x;
  const marea_winograd_plan *q = &p->plan;
  const together k = {.pass = p};
  const int64_t rows = marea_conv_window_units(w, tile), panels = marea_conv_panels(b->cout);
  const char *x = marea_conv_window_load(w, image, tile, worker);
  float *data = marea_winograd_side_of(q, 0, worker), *products = marea_winograd_side_of(q, 1, worker);
  for (int64_t first = 0; first < rows; first += q->band) {
    const int64_t n = MAREA_MIN(q->band, rows - first);
    marea_winograd_transform_data(q, b->kernels, w, x, first, n, false, 0, data);
    for (int64_t i = 0; i < q->points * panels; i++)
      multiply_point(&k, i / panels, i % panels, n * q->tile_cols, data, products, prefetch);
    write_outputs(p, products, tile * w->units + first, n, image);
  }
}

/* ---- weights ---- */

typedef struct transposition {
  int64_t cin, cout;
  const float *weight; /* (taps, cin, cout) */
  float *transposed;   /* (taps, cout, cin) */
} transposition;

static void transpose_tap (void *arg, int64_t tap, int worker) {
  const transposition *k = arg;
  const int64_t cin = k->cin, cout = k->cout;
  const float *from = k->weight + tap * cin * cout;
  float *to = k->transposed + tap * cin * cout;
  (void)worker;
  for (int64_t first = 0; first < cin; first += SQUARE)
    for (int64_t co = 0; co < cout; co++)
      for (int64_t ci = first; ci < MAREA_MIN(first + SQUARE, cin); ci++)
        to[co * cin + ci] = from[ci * cout + co];
}

/* Transforms the weights of one channel that is read, all phases of the panels. */
static void transform_channel (void *arg, int64_t channel, int worker) {
  const together *k = arg;
  const marea_winograd_images *p = k->pass;
  const marea_image_pass *b = &p->base;
  const marea_winograd_plan *q = &p->plan;
  const marea_winograd_axis *rows = &q->axis[0], *cols = &q->axis[1];
  const int64_t n = b->cin * b->cout, row = p->kernel_cols * n;
  (void)worker;
  for (int64_t i = 0; i < k->panels * q->phases; i++) {
    const int64_t panel = i / q->phases, phase = i % q->phases, first = (k->panel + panel) * MAREA_CONV_PANEL;
    const int64_t width = marea_conv_panel_width(b->cout, k->panel + panel);
    const marea_winograd_grid l = marea_winograd_phase(q, (int)phase);
    const int64_t tap = rows->first[l.first[0]] * row + cols->first[l.first[1]] * n;
    const int64_t to = panel * MAREA_CONV_PANEL * q->phases * b->cin + (phase * b->cin + channel) * width;
    const marea_winograd_weight g = {.variant = q->variant,
                                     .taps = {l.taps[0], l.taps[1]},
                                     .weight = (float *)b->weight + tap + channel * b->cout + first,
                                     .transformed = p->weights + to,
                                     .n = width,
                                     .row = rows->tap_step * row,
                                     .col = cols->tap_step * n,
                                     .point_row = q->side * p->weight_step,
                                     .point = p->weight_step};
    b->kernels->winograd_weight(&g);
  }
}

/* Memory for the transformed weights of some panels; those of all panels are transformed at once if they fit. */
static marea_status open_weights (marea_call *c, const marea_conv *g, marea_winograd_images *p) {
  marea_image_pass *b = &p->base;
  const marea_winograd_plan *q = &p->plan;
  const int64_t all = marea_conv_panels(b->cout), n = q->phases * b->cin * MAREA_CONV_PANEL;
  const int64_t most = MAREA_MAX(WEIGHT_BYTES / (q->points * n * (int64_t)sizeof(float)), 1);
  const bool kept = c->in[MAREA_CONV_WEIGHT]->storage->keeps_packs; /* all of them, then */
  p->panels = q->images > 0 && !kept ? MAREA_MIN(all, most) : all;
  p->weight_step = p->panels * n + MAREA_WINOGRAD_PAD;
  p->kernel_cols = g->kernel[1];
  const int64_t size[] = {q->points, p->weight_step};
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(float), &bytes));
  const marea_pack_key key = marea_conv_pack_key(g, b, MAREA_CONV_WINOGRAD, q->variant, q->phases);
  void *memory;
  bool ready;
  MAREA_TRY(marea_pack_for(c, MAREA_CONV_WEIGHT, b->weight, &key, bytes, &memory, &ready));
  p->weights = memory;
  if (ready) return MAREA_OK;
  if (b->input_gradient) {
    transposition k = {b->cout, b->cin, (const float *)b->weight, NULL};
    const int64_t taps = g->kernel[0] * g->kernel[1];
    MAREA_WORKSPACE_OR_RETURN(c, k.transposed, (size_t)(taps * b->cin * b->cout) * sizeof(float));
    marea_parallel(c->ctx, taps, transpose_tap, &k);
    b->weight = (const char *)k.transposed;
  }
  if (p->panels < all) return MAREA_OK;
  together k = {.pass = p, .panels = all};
  marea_parallel(c->ctx, b->cin, transform_channel, &k);
  return MAREA_OK;
}

/* ---- images together ---- */

static void transform_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_winograd_plan *q = &k->pass->plan;
  const marea_conv_window *w = &k->pass->base.x;
  const int64_t image = block / w->tiles, tile = block % w->tiles;
  const char *x = marea_conv_window_load(w, k->image + image, tile, worker);
  marea_winograd_transform_data(q, k->pass->base.kernels, w, x, 0, marea_conv_window_units(w, tile), false,
                                marea_winograd_tile(q, image, tile * w->units),
                                marea_winograd_side_of(q, 0, worker));
}

/* One panel at one point. Meanwhile the next panel's weights are prefetched, and this panel's share of both sides of the
   next point. */
static void multiply_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_winograd_plan *q = &k->pass->plan;
  const int64_t point = block / k->panels, panel = block % k->panels, next = block + 1;
  const size_t all = (size_t)q->step[0] * sizeof(float),
               share = all / (size_t)k->panels / MAREA_ALIGN * MAREA_ALIGN;
  const size_t weights = (size_t)(q->phases * k->pass->base.cin * MAREA_CONV_PANEL) * sizeof(float);
  const char *sides = (const char *)marea_winograd_side_of(q, 0, worker);
  marea_prefetch prefetch = {.n = 0};
  if (next < q->points * k->panels) {
    const float *w = weights_at(k, next / k->panels, k->panel + next % k->panels);
    marea_prefetch_add(&prefetch, marea_prefetch_area_of(w, weights));
  }
  if (point + 1 < q->points)
    marea_prefetch_add(
        &prefetch, marea_prefetch_area_of(sides + (size_t)(point + 1) * all + (size_t)panel * share, share));
  multiply_point(k, point, k->panel + panel, marea_winograd_tile(q, k->images, 0),
                 marea_winograd_side_of(q, 0, worker), marea_winograd_side_of(q, 1, worker), &prefetch);
}

/* A row of tiles of an image */
static void write_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_winograd_images *p = k->pass;
  const int64_t image = block / p->plan.tile_rows, row = block % p->plan.tile_rows;
  const float *products = marea_winograd_side_of(&p->plan, 1, worker);
  write_outputs(p, products + marea_winograd_tile(&p->plan, image, row) * p->base.cout, row, 1,
                k->image + image);
}

/* Each step for some images, the products with the weights of some panels at a time. */
static void compute_together (marea_call *c, const marea_image_pass *b) {
  const marea_winograd_images *p = (const marea_winograd_images *)b;
  const marea_winograd_plan *q = &p->plan;
  const int64_t panels = marea_conv_panels(b->cout);
  together k = {.pass = p};
  for (; k.image < b->x.images; k.image += k.images) {
    k.images = MAREA_MIN(q->images, b->x.images - k.image);
    marea_parallel(c->ctx, k.images * b->x.tiles, transform_block, &k);
    for (k.panel = 0; k.panel < panels; k.panel += k.panels) {
      k.panels = MAREA_MIN(p->panels, panels - k.panel);
      if (p->panels < panels) marea_parallel(c->ctx, b->cin, transform_channel, &k);
      marea_parallel(c->ctx, q->points * k.panels, multiply_block, &k);
    }
    marea_parallel(c->ctx, k.images * q->tile_rows, write_block, &k);
  }
}

marea_status marea_winograd_images_open (marea_call *c, const marea_conv *g, const marea_conv_source *src,
                                         marea_winograd_images *p) {
  marea_image_pass *b = &p->base;
  marea_winograd_axes(g, &p->plan, b->x.axis);
  MAREA_TRY(marea_conv_window_open(c, src, &b->x));
  MAREA_TRY(open_weights(c, g, p));
  b->tile = compute_tile;
  if (p->plan.images > 0) b->run = compute_together;
  return marea_winograd_memory(c, b->x.units, b->cin, b->cout, &p->plan);
}
