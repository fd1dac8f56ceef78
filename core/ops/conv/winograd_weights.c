/* SPDX-License-Identifier: MIT
** winograd_weights.c: the weight-gradient pass by Winograd's algorithms.
**
** Sums are cut into blocks of some input channels by a panel of output channels. A block holds (product, cin, cout) sums,
** where a product is a point of a phase.
*/
#include "winograd_passes.h"

/* Blocks to aim for where threads share them. */
#define LEAST_BLOCKS 8

typedef struct sum_block {
  int64_t cin, cout, rows, cols; /* the first channels; how many */
} sum_block;

/* Input channels of a block: fewer where threads share the blocks and would find too few. */
static int64_t block_rows (const marea_winograd_weights *p) {
  const marea_conv *g = p->base.g;
  int64_t rows = MAREA_CONV_PANEL, blocks = marea_conv_panels(g->cin) * marea_conv_panels(g->cout);
  for (; p->base.run && rows > MAREA_CONV_PANEL / 4 && blocks < LEAST_BLOCKS; blocks *= 2) rows /= 2;
  return rows;
}

static int64_t block_count (const marea_winograd_weights *p) {
  return marea_winograd_tiles(p->base.g->cin, block_rows(p)) * marea_conv_panels(p->base.g->cout);
}

static sum_block block_of (const marea_winograd_weights *p, int64_t block) {
  const marea_conv *g = p->base.g;
  const int64_t panels = marea_conv_panels(g->cout), rows = block_rows(p), cin = block / panels * rows;
  return (sum_block){cin, block % panels * MAREA_CONV_PANEL, MAREA_MIN(rows, g->cin - cin),
                     marea_conv_panel_width(g->cout, block % panels)};
}

/* Where a block lies in a sum, in elements. */
static int64_t block_at (const marea_winograd_weights *p, const sum_block *b) {
  return p->plan.products * (b->cin * p->base.g->cout + b->cout * b->rows);
}

/* ---- the three steps ---- */

/* dy: `rows` rows of the gradient from row `first` of tiles on. */
static void transform_gradient (const marea_winograd_weights *p, const float *dy, int64_t first, int64_t n,
                                int64_t rows, int64_t tile, float *transformed) {
  const marea_winograd_plan *q = &p->plan;
  const marea_conv *g = p->base.g;
  const marea_winograd_grid l = marea_winograd_whole(q);
  for (int64_t i = 0; i < n; i++, tile += q->tile_cols) {
    const marea_winograd_row row = marea_winograd_row_in_image(q, &l, dy, first + i, rows, g->out[1], g->cout,
                                                               g->cout);
    marea_winograd_transform(q, p->base.kernels->winograd_gradient, true, tile, &row, transformed);
  }
}

/* What the products at the next point read: panels of x and of dy. */
static marea_prefetch next_point (const marea_winograd_plan *q, const marea_direct_wgrad *k) {
  const size_t pixels = (size_t)k->cols * sizeof(float);
  const float *x = (const float *)k->x + q->step[0], *dy = (const float *)k->dy + q->step[1];
  marea_prefetch p = {.n = 0};
  marea_prefetch_add(&p, marea_prefetch_area_of(x, pixels * (size_t)k->x_col));
  marea_prefetch_add(&p, marea_prefetch_area_of(dy, pixels * (size_t)k->dy_col));
  return p;
}

/* Adds all products of a block to its sums. Meanwhile `prefetch` is requested; NULL: the next point. */
static void add_products (const marea_winograd_weights *p, const sum_block *b, int64_t tiles,
                          const float *data, const float *dy, float *sum, bool overwrite,
                          marea_prefetch *prefetch) {
  const marea_winograd_plan *q = &p->plan;
  const int64_t all = p->base.g->cin, panel = b->cin / MAREA_CONV_PANEL, first = panel * MAREA_CONV_PANEL;
  for (int f = 0; f < q->phases; f++) {
    const marea_winograd_grid l = marea_winograd_phase(q, f);
    const float *x = data + (f * all + first) * q->most_tiles + b->cin - first;
    for (int64_t point = 0; point < q->points; point++) {
      if (!marea_winograd_has(q, &l, point)) continue;
      marea_direct_wgrad k = {.x = x + point * q->step[0],
                              .dy = dy + point * q->step[1] + b->cout * q->most_tiles,
                              .dw = sum,
                              .overwrite = overwrite,
                              .rows = 1,
                              .cols = tiles,
                              .x_col = marea_conv_panel_width(all, panel),
                              .dy_col = b->cols,
                              .m = b->rows,
                              .cout = b->cols,
                              .dw_row = b->cols,
                              .offset = p->offset};
      marea_prefetch next = {.n = 0};
      if (!prefetch && point + 1 < q->points) next = next_point(q, &k);
      k.prefetch = prefetch ? prefetch : &next;
      p->base.kernels->direct_wgrad(&k);
      sum += b->rows * b->cols;
    }
  }
}

/* dw (+)= the sums of a block, transformed back. */
static void write_weights (const marea_winograd_weights *p, const sum_block *b, const float *sum,
                           bool accumulate) {
  const marea_conv *g = p->base.g;
  const marea_winograd_plan *q = &p->plan;
  const marea_winograd_axis *rows = &q->axis[0], *cols = &q->axis[1];
  const int64_t n = g->cin * g->cout, size = b->rows * b->cols;
  for (int f = 0; f < q->phases; f++) {
    const marea_winograd_grid l = marea_winograd_phase(q, f);
    const int64_t tap = rows->first[l.first[0]] * g->kernel[1] + cols->first[l.first[1]];
    const int64_t down = marea_winograd_points(q->variant, l.taps[0]),
                  across = marea_winograd_points(q->variant, l.taps[1]);
    for (int64_t r = 0; r < b->rows; r++) {
      const marea_winograd_weight w = {.variant = q->variant,
                                       .taps = {l.taps[0], l.taps[1]},
                                       .weight = (float *)p->base.dw + tap * n + (b->cin + r) * g->cout +
                                                 b->cout,
                                       .transformed = (float *)sum + r * b->cols,
                                       .n = b->cols,
                                       .row = rows->tap_step * g->kernel[1] * n,
                                       .col = cols->tap_step * n,
                                       .point_row = across * size,
                                       .point = size,
                                       .accumulate = accumulate};
      p->base.kernels->winograd_weight_gradient(&w);
    }
    sum += down * across * size;
  }
}

/* ---- in bands, each part of the images with a sum of its own ---- */

static void add_tile (const marea_weight_pass *b, int64_t image, int64_t tile, int64_t cut, int worker,
                      marea_sum *sum, marea_prefetch *prefetch) {
  const marea_winograd_weights *p = (const marea_winograd_weights *)b;
  const marea_conv_window *w = &b->x;
  const marea_winograd_plan *q = &p->plan;
  const int64_t tiles = marea_conv_window_units(w, tile), outputs = w->axis[0].out_step;
  const int64_t top = tile * w->units * outputs, rows = MAREA_MIN(tiles * outputs, b->g->out[0] - top);
  const char *x = marea_conv_window_load(w, image, tile, worker);
  const float *dy = (const float *)marea_conv_rows_load(&b->dy, image, top, rows, worker);
  float *data = marea_winograd_side_of(q, 0, worker), *gradient = marea_winograd_side_of(q, 1, worker);
  (void)cut; /* there is one */
  for (int64_t first = 0; first < tiles; first += q->band, sum->overwrite = false) {
    const int64_t n = MAREA_MIN(q->band, tiles - first);
    marea_winograd_transform_data(q, b->kernels, w, x, first, n, true, 0, data);
    transform_gradient(p, dy, first, n, rows, 0, gradient);
    for (int64_t i = 0; i < block_count(p); i++) {
      const sum_block block = block_of(p, i);
      add_products(p, &block, n * q->tile_cols, data, gradient, (float *)sum->at + block_at(p, &block),
                   sum->overwrite, prefetch);
    }
  }
}

static void write_sum (void *arg, int64_t block, int worker) {
  const marea_winograd_weights *p = arg;
  const sum_block b = block_of(p, block);
  (void)worker;
  write_weights(p, &b, (const float *)p->base.sum.first + block_at(p, &b), false);
}

static void write_sums (const marea_weight_pass *b) {
  const marea_winograd_weights *p = (const marea_winograd_weights *)b;
  marea_parallel(b->ctx, block_count(p), write_sum, (void *)p);
}

/* ---- images together ---- */

typedef struct together {
  const marea_winograd_weights *pass;
  int64_t image, images;
} together;

static void transform_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_winograd_weights *p = k->pass;
  const marea_weight_pass *b = &p->base;
  const marea_conv_window *w = &b->x;
  const marea_winograd_plan *q = &p->plan;
  const int64_t image = block / w->tiles, tile = block % w->tiles, outputs = w->axis[0].out_step;
  const int64_t tiles = marea_conv_window_units(w, tile),
                first = marea_winograd_tile(q, image, tile * w->units);
  const int64_t top = tile * w->units * outputs, rows = MAREA_MIN(tiles * outputs, b->g->out[0] - top);
  const char *x = marea_conv_window_load(w, k->image + image, tile, worker);
  const char *dy = marea_conv_rows_load(&b->dy, k->image + image, top, rows, worker);
  marea_winograd_transform_data(q, b->kernels, w, x, 0, tiles, true, first, marea_winograd_side_of(q, 0, 0));
  transform_gradient(p, (const float *)dy, 0, tiles, rows, first, marea_winograd_side_of(q, 1, 0));
}

/* A block's products, transformed back while they are in the second-level cache. */
static void compute_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_winograd_weights *p = k->pass;
  const marea_winograd_plan *q = &p->plan;
  const sum_block b = block_of(p, block);
  float *sum = (float *)(p->block_sums + (size_t)worker * p->block_bytes);
  add_products(p, &b, marea_winograd_tile(q, k->images, 0), marea_winograd_side_of(q, 0, 0),
               marea_winograd_side_of(q, 1, 0), sum, true, NULL);
  write_weights(p, &b, sum, k->image > 0);
}

static void compute_together (const marea_weight_pass *b) {
  const marea_winograd_weights *p = (const marea_winograd_weights *)b;
  together k = {.pass = p};
  for (; k.image < b->g->n && !marea_stopping(b->ctx); k.image += k.images) {
    k.images = MAREA_MIN(p->plan.images, b->g->n - k.image);
    marea_parallel(b->ctx, k.images * b->x.tiles, transform_block, &k);
    marea_parallel(b->ctx, block_count(p), compute_block, &k);
  }
}

/* ---- the pass ---- */

/* Sums of all parts, or of one block for each worker. */
static marea_status open_sums (marea_call *c, marea_winograd_weights *p) {
  marea_partial_sums *s = &p->base.sum;
  const marea_conv *g = p->base.g;
  *s = (marea_partial_sums){.parts = 1,
                            .cuts = 1,
                            .rows = p->plan.products,
                            .width = g->cin * g->cout,
                            .size = sizeof(float),
                            .overwritten = true};
  if (!p->base.run) {
    s->parts = marea_winograd_sums(g, &p->plan);
    p->base.finish = write_sums;
    return marea_partial_sums_open(c, s);
  }
  p->block_bytes = (size_t)(s->rows * MAREA_CONV_PANEL * MAREA_CONV_PANEL) * sizeof(float);
  return marea_worker_memory(c, &p->block_bytes, &p->block_sums);
}

marea_status marea_winograd_weights_open (marea_call *c, const marea_conv_source *x,
                                          const marea_conv_source *dy, marea_winograd_weights *p) {
  marea_weight_pass *b = &p->base;
  const marea_conv *g = b->g;
  int64_t *offset;
  marea_winograd_axes(g, &p->plan, b->x.axis);
  MAREA_TRY(marea_conv_window_open(c, x, &b->x));
  b->tile = add_tile;
  if (p->plan.images > 0) b->run = compute_together;
  MAREA_TABLE_OR_RETURN(c, offset, MAREA_CONV_PANEL * sizeof *offset);
  for (int64_t i = 0; i < MAREA_CONV_PANEL; i++) offset[i] = i;
  p->offset = offset;
  MAREA_TRY(open_sums(c, p));
  MAREA_TRY(marea_winograd_memory(c, b->x.units, g->cin, g->cout, &p->plan));
  return marea_conv_rows_open(c, dy, b->x.units * b->x.axis[0].out_step, &b->dy);
}
