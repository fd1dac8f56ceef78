/* SPDX-License-Identifier: MIT
** direct_weights.c: the weight-gradient pass by direct sums. The arithmetic is in the kernel `direct_wgrad`.
**
** A tap with channels enough for tiles of its own is multiplied with just the outputs for which it lies inside the image;
** otherwise several taps share a tile of the kernel, and images are copied with their padding.
*/
#include "direct_weights.h"

/* For the times below see choose.c. */

/* Multiply-adds of a block: 5 ms on a core of 200 GFLOP/s, the time between two checks for interrupts. */
#define LONG_WORK 5e8
/* Rows of dw in a cut: four or more of the kernel's tiles, for which a tile of x and dy is loaded and computed again. */
#define LEAST_ROWS 64
/* Rows of dw, (tap, channel), up to which nothing is prefetched: reading dy takes all of the time, and the processor does
   it ahead by itself. 1->32, 28x28, batch 64: 9 rows 0.26 with prefetching against 0.25, 16 rows 0.35 against 0.39. */
#define FEW_ROWS 12
/* The sums of all parts: they are added while they are in a third-level cache. */
#define SUM_BYTES ((size_t)1 << 23)
/* Outputs of a part whose sum is large: fewer take less time than the sum to be cleared and added. 1x1 of stride 2, 14x14, batch 16, 256->512:
   1.6 against 2.1. */
#define LEAST_PIXELS 256
#define LARGE_SUM ((size_t)1 << 18)
/* Channels of a tap that fill tiles of the kernel by themselves. To 32, 28x28, batch 32: from 4 channels 0.41 against 0.28
   with taps that share tiles, from 8 0.56 against 0.55, from 12 0.83 against 0.88. */
#define OWN_TILES 8

static bool has_own_tiles (const marea_conv *g) { return g->cin / g->groups >= OWN_TILES; }

/* ---- a tile ---- */

/* Rows first .. end - 1 of dw, each tap with the outputs of the tile (`top`: its first row) for which it lies inside the
   image. */
static void add_inside (const marea_direct_weights *p, const marea_direct_wgrad *all, int64_t top,
                        int64_t first, int64_t end) {
  const marea_conv *g = p->base.g;
  const size_t size = p->base.x.size;
  const int64_t channels = g->cin / g->groups;
  marea_direct_wgrad k = *all;
  for (int64_t m = first; m < end; m += k.m) {
    const int64_t tap = m / channels;
    marea_range rows = marea_conv_outputs_inside(g, 0, tap / g->kernel[1]);
    const marea_range cols = marea_conv_outputs_inside(g, 1, tap % g->kernel[1]);
    rows.first = MAREA_MAX(rows.first, top);
    rows.end = MAREA_MIN(rows.end, top + all->rows);
    k.m = MAREA_MIN(end, (tap + 1) * channels) - m;
    k.rows = rows.end - rows.first;
    k.cols = cols.end - cols.first;
    if (k.rows <= 0 || k.cols <= 0) continue;
    const int64_t x = (rows.first - top) * k.x_row + cols.first * k.x_col,
                  dy = (rows.first - top) * k.dy_row + cols.first * k.dy_col;
    k.x = (const char *)all->x + x * (int64_t)size;
    k.dy = (const char *)all->dy + (size_t)dy * size;
    k.dw = (char *)all->dw + (size_t)((m - first) * k.dw_row) * size;
    k.offset = p->offset + m;
    p->base.kernels->direct_wgrad(&k);
  }
}

static void add_tile (const marea_weight_pass *b, int64_t image, int64_t tile, int64_t cut, int worker,
                      marea_sum *sum, marea_prefetch *prefetch) {
  const marea_direct_weights *p = (const marea_direct_weights *)b;
  const marea_conv_window *w = &b->x;
  const marea_conv *g = b->g;
  const bool depthwise = marea_conv_is_depthwise(g); /* all groups at once, a channel each */
  const int64_t groups = depthwise ? 1 : g->groups, top = tile * w->units,
                rows = marea_conv_window_units(w, tile);
  const int64_t cin = g->cin / groups, cout = g->cout / groups, all = b->sum.rows;
  const int64_t first = cut * all / b->sum.cuts, end = (cut + 1) * all / b->sum.cuts;
  const char *x = marea_conv_window_load(w, image, tile, worker);
  const char *dy = marea_conv_rows_load(&b->dy, image, top, rows, worker);
  for (int64_t i = 0; i < groups; i++) {
    marea_direct_wgrad k = {.x = x + (size_t)(i * cin) * w->size,
                            .dy = dy + (size_t)(i * cout) * w->size,
                            .dw = sum->at + (size_t)(first * g->cout + i * cout) * w->size,
                            .rows = rows,
                            .cols = g->out[1],
                            .x_row = w->axis[0].src_step * w->row,
                            .x_col = w->axis[1].src_step * w->channels,
                            .dy_row = g->out[1] * g->cout,
                            .dy_col = g->cout,
                            .m = end - first,
                            .cout = cout,
                            .dw_row = g->cout,
                            .offset = p->offset + first,
                            .depthwise = depthwise,
                            .prefetch = all > FEW_ROWS ? prefetch : NULL};
    if (has_own_tiles(g)) add_inside(p, &k, top, first, end);
    else b->kernels->direct_wgrad(&k);
  }
}

/* ---- the pass ---- */

static marea_status list_rows (marea_call *c, const marea_conv_taps *t, int64_t channels,
                               marea_direct_weights *p) {
  int64_t *offset;
  MAREA_TABLE_OR_RETURN(c, offset, (size_t)p->base.sum.rows * sizeof *offset);
  for (int64_t tap = 0; tap < t->n; tap++) {
    const int64_t at = t->offset[p->base.swapped ? t->n - 1 - tap : tap];
    for (int64_t ci = 0; ci < channels; ci++) offset[tap * channels + ci] = at + ci;
  }
  p->offset = offset;
  return MAREA_OK;
}

/* As many sums as memory allows, and cuts so that there are blocks enough nevertheless, and none so long that it could
   not be interrupted. */
static void choose_parts (const marea_conv *g, int64_t tiles, marea_partial_sums *s) {
  const int64_t count = s->rows * s->width;
  const size_t bytes = (size_t)count * s->size;
  const double work = (double)g->n * (double)g->out[0] * (double)g->out[1] * (double)count;
  s->parts = MAREA_MIN(g->n * tiles, MAREA_CONV_PARTS);
  s->parts = MAREA_MIN(s->parts, MAREA_MAX((int64_t)(SUM_BYTES / bytes), 1));
  if (bytes >= LARGE_SUM)
    s->parts = MAREA_MIN(s->parts, MAREA_MAX(g->n * g->out[0] * g->out[1] / LEAST_PIXELS, 1));
  s->cuts = MAREA_MAX((MAREA_CONV_PARTS + s->parts - 1) / s->parts,
                      (int64_t)MAREA_MIN(work / (double)s->parts / LONG_WORK, 1e6));
  s->cuts = MAREA_MIN(s->cuts, MAREA_MAX(s->rows / LEAST_ROWS, 1));
}

marea_status marea_direct_weights_open (marea_call *c, const marea_conv_source *x,
                                        const marea_conv_source *dy, marea_direct_weights *p) {
  marea_weight_pass *b = &p->base;
  const marea_conv *g = b->g;
  const int64_t channels = g->cin / g->groups;
  marea_conv_taps t;
  b->tile = add_tile;
  MAREA_TRY(marea_conv_axes(c, g, false, b->x.axis));
  b->x.clipped = has_own_tiles(g);
  MAREA_TRY(marea_conv_window_open(c, x, &b->x));
  MAREA_TRY(marea_conv_rows_open(c, dy, b->x.units, &b->dy));
  MAREA_TRY(marea_conv_list_taps(c, g, b->x.axis, b->x.row, b->x.channels, &t));
  b->sum = (marea_partial_sums){
      .rows = g->kernel[0] * g->kernel[1] * channels, .width = g->cout, .size = b->x.size, .first = b->dw};
  MAREA_TRY(list_rows(c, &t, channels, p));
  choose_parts(g, b->x.tiles, &b->sum);
  return marea_partial_sums_open(c, &b->sum);
}
