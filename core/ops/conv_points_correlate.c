/* SPDX-License-Identifier: MIT
** conv_points_correlate.c: the weight gradient of convolutions at points.
*/
#include "conv_points.h"

#define LEAST_BLOCKS 8 /* of sums, for threads to share */

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
  return marea_points_tiles(p->g->cin, sum_rows(p)) * marea_conv_panels(p->g->cout);
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
  const marea_lattice l = marea_points_whole(q);
  for (int64_t i = 0; i < n; i++, tile += q->across) {
    const marea_winograd_row g = marea_points_tiles_in_image(q, &l, dy, first + i, rows, p->g->out[1],
                                                             p->g->cout);
    marea_points_transform(q, p->kernels->winograd_gradient, true, tile, &g, points);
  }
}

/* What products at the next point read: panels of x and of dy. */
static marea_prefetch next_point (const marea_conv_points *q, const marea_direct_wgrad *k) {
  const size_t pixels = (size_t)k->cols * sizeof(float);
  marea_prefetch a = {.n = 0};
  marea_prefetch_add(&a, marea_prefetch_area_of((const float *)k->x + q->step[0], pixels * (size_t)k->x_col));
  marea_prefetch_add(&a,
                     marea_prefetch_area_of((const float *)k->dy + q->step[1], pixels * (size_t)k->dy_col));
  return a;
}

/* All products of a block. Meanwhile what `ahead` has is asked for; NULL: the next point. */
static void add_products (const marea_conv_correlate *p, const sum_block *b, int64_t tiles, const float *data,
                          const float *dy, float *sum, bool fresh, marea_prefetch *ahead) {
  const marea_conv_points *q = &p->points;
  const int64_t panel = b->cin / MAREA_CONV_PANEL, first = panel * MAREA_CONV_PANEL;
  for (int f = 0; f < q->phases; f++) {
    const marea_lattice l = marea_points_phase(q, f);
    const float *x = data + (f * p->g->cin + first) * q->tiles + b->cin - first;
    for (int64_t point = 0; point < q->count; point++) {
      if (!marea_points_has(q, &l, point)) continue;
      marea_direct_wgrad k = {.x = x + point * q->step[0],
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
                              .offset = p->offset};
      marea_prefetch next = {.n = 0};
      if (!ahead && point + 1 < q->count) next = next_point(q, &k);
      k.prefetch = ahead ? ahead : &next;
      p->kernels->direct_wgrad(&k);
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
    const marea_lattice l = marea_points_phase(q, f);
    const int64_t tap = rows->first[l.first[0]] * p->g->kernel[1] + cols->first[l.first[1]];
    const int64_t down = marea_winograd_points(q->variant, l.taps[0]),
                  across = marea_winograd_points(q->variant, l.taps[1]);
    for (int64_t r = 0; r < b->rows; r++) {
      const marea_winograd_weight g = {.variant = q->variant,
                                       .taps = {l.taps[0], l.taps[1]},
                                       .weight = (float *)p->dw + tap * n + (b->cin + r) * p->g->cout +
                                                 b->cout,
                                       .transformed = (float *)sum + r * b->cols,
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
                            int worker, marea_conv_sum *sum, marea_prefetch *ahead) {
  const marea_conv_window *w = &p->x;
  const marea_conv_points *q = &p->points;
  const int64_t tiles = marea_conv_window_units(w, tile), outputs = w->axis[0].out_step;
  const int64_t top = tile * w->units * outputs, rows = MAREA_MIN(tiles * outputs, p->g->out[0] - top);
  const char *x = marea_conv_window_load(w, image, tile, worker);
  const float *dy = (const float *)marea_conv_rows_load(&p->dy, image, top, rows, worker);
  float *data = marea_points_of(q, 0, worker), *gradient = marea_points_of(q, 1, worker);
  (void)cut; /* there is one */
  for (int64_t first = 0; first < tiles; first += q->band, sum->fresh = false) {
    const int64_t n = MAREA_MIN(q->band, tiles - first);
    marea_points_transform_data(q, p->kernels, w, x, first, n, true, 0, data);
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

/* Some images */
typedef struct together {
  const marea_conv_correlate *correlate;
  int64_t image, images;
} together;

static void load_both (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_conv_correlate *p = k->correlate;
  const marea_conv_window *w = &p->x;
  const marea_conv_points *q = &p->points;
  const int64_t image = block / w->tiles, tile = block % w->tiles, outputs = w->axis[0].out_step;
  const int64_t tiles = marea_conv_window_units(w, tile),
                first = marea_points_tile(q, image, tile * w->units);
  const int64_t top = tile * w->units * outputs, rows = MAREA_MIN(tiles * outputs, p->g->out[0] - top);
  const char *x = marea_conv_window_load(w, k->image + image, tile, worker);
  const char *dy = marea_conv_rows_load(&p->dy, k->image + image, top, rows, worker);
  marea_points_transform_data(q, p->kernels, w, x, 0, tiles, true, first, marea_points_of(q, 0, 0));
  transform_gradient(p, (const float *)dy, 0, tiles, rows, first, marea_points_of(q, 1, 0));
}

/* From points to weights while the sums are in the second-level cache. */
static void add_block (void *arg, int64_t block, int worker) {
  const together *k = arg;
  const marea_conv_correlate *p = k->correlate;
  const sum_block b = block_of(p, block);
  float *sum = (float *)(p->sums + (size_t)worker * p->sum_bytes);
  add_products(p, &b, marea_points_tile(&p->points, k->images, 0), marea_points_of(&p->points, 0, 0),
               marea_points_of(&p->points, 1, 0), sum, true, NULL);
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

void marea_conv_correlate_finish (const marea_conv_correlate *p) {
  if (p->at_points && !p->run) marea_parallel(p->ctx, sum_blocks(p), write_sum, (void *)p);
}

/* Sums of all parts, or of a block for each worker. */
static marea_status open_sums (marea_call *c, marea_conv_correlate *p) {
  if (!p->run) return marea_conv_correlate_sums(c, p);
  p->sum_bytes = (size_t)(p->points.products * MAREA_CONV_PANEL * MAREA_CONV_PANEL) * sizeof(float);
  return marea_worker_memory(c, &p->sum_bytes, &p->sums);
}

marea_status marea_conv_correlate_at_points (marea_call *c, const marea_conv_source *x,
                                             marea_conv_correlate *p) {
  const marea_conv *g = p->g;
  int64_t *offset;
  marea_points_axes(g, false, &p->points, p->x.axis);
  MAREA_TRY(marea_conv_window_open(c, x, &p->x));
  p->tile = correlate_tile;
  p->rows = p->points.products;
  p->count = p->rows * g->cin * g->cout;
  p->parts = p->points.images > 0 ? 1 : marea_points_sums(g, &p->points);
  p->cuts = 1;
  if (p->points.images > 0) p->run = correlate_together;
  MAREA_TABLE(c, offset, MAREA_CONV_PANEL * sizeof *offset);
  for (int64_t i = 0; i < MAREA_CONV_PANEL; i++) offset[i] = i;
  p->offset = offset;
  MAREA_TRY(open_sums(c, p));
  return marea_points_open(c, p->x.units, g->cin, g->cout, &p->points);
}
