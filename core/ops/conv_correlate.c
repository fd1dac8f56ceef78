/* SPDX-License-Identifier: MIT
** conv_correlate.c: the weight gradient of convolutions, over tiles of images. The arithmetic is in the kernel
** `correlate`. Where a tap has channels enough for tiles of its own it meets just the outputs for which it lies inside the
** image; otherwise several taps share a tile, and images are copied with their padding.
**
** Tiles are cut into parts by the shape alone. Each part has a sum of its own, and these are added up in a binary tree,
** so the threads do not change a bit: parts 0 and 1, 2 and 3, then their sums, and so on. Who completes the second of two
** adds them. A thread's parts are neighbours, so most of what it adds is in its own caches.
*/
#include <string.h>

#include "conv_pass.h"

#define LONG_WORK 5e8 /* multiplications of some milliseconds */
#define LEAST_ROWS 64 /* of the weight gradient worth loading a tile for */
#define FEW_ROWS 16   /* which take no longer than to read dy, in an order that the processor foresees */
#define SUM_BYTES ((size_t)1 << 23)
#define OWN_TILES 8 /* channels of a tap that fill tiles by themselves */

/* ---- a tile by taps ---- */

static bool has_own_tiles (const marea_conv *g) { return g->cin / g->groups >= OWN_TILES; }

/* Rows first .. end - 1 of dw, each tap with the outputs of the tile (`top`: its first row) that meet the image. */
static void correlate_inside (const marea_conv_correlate *p, const marea_direct_wgrad *all, int64_t top,
                              int64_t first, int64_t end) {
  const marea_conv *g = p->g;
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
    k.x = (const char *)all->x + x * (int64_t)p->x.size;
    k.dy = (const char *)all->dy + (size_t)dy * p->x.size;
    k.dw = (char *)all->dw + (size_t)((m - first) * k.dw_row) * p->x.size;
    k.offset = p->offset + m;
    p->kernels->direct_wgrad(&k);
  }
}

static void correlate_tile (const marea_conv_correlate *p, int64_t image, int64_t tile, int64_t cut,
                            int worker, marea_conv_sum *sum, marea_prefetch *ahead) {
  const marea_conv_window *w = &p->x;
  const marea_conv *g = p->g;
  const bool depthwise = marea_conv_is_depthwise(g); /* all groups at once, a channel each */
  const int64_t groups = depthwise ? 1 : g->groups, top = tile * w->units,
                rows = marea_conv_window_units(w, tile);
  const int64_t cin = g->cin / groups, cout = g->cout / groups;
  const int64_t first = cut * p->rows / p->cuts, end = (cut + 1) * p->rows / p->cuts;
  const char *x = marea_conv_window_load(w, image, tile, worker);
  const char *dy = marea_conv_rows_load(&p->dy, image, top, rows, worker);
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
                            .prefetch = p->rows > FEW_ROWS ? ahead : NULL};
    if (has_own_tiles(g)) correlate_inside(p, &k, top, first, end);
    else p->kernels->direct_wgrad(&k);
  }
}

/* offset[] of every row of dw in a tile */
static marea_status list_rows (marea_call *c, const marea_conv_taps *t, int64_t channels,
                               marea_conv_correlate *p) {
  int64_t *offset;
  MAREA_TABLE(c, offset, (size_t)p->rows * sizeof *offset);
  for (int64_t tap = 0; tap < t->n; tap++) {
    const int64_t at = t->offset[p->mirrored ? t->n - 1 - tap : tap];
    for (int64_t ci = 0; ci < channels; ci++) offset[tap * channels + ci] = at + ci;
  }
  p->offset = offset;
  return MAREA_OK;
}

marea_status marea_conv_correlate_sums (marea_call *c, marea_conv_correlate *p) {
  const int64_t sums = p->parts - !p->at_points, size[] = {sums, p->rows, p->count / p->rows};
  const int64_t pairs[] = {p->parts, p->cuts};
  size_t bytes;
  if (sums > 0) {
    MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, size, p->x.size, &bytes));
    MAREA_SCRATCH(c, p->sums, bytes);
  }
  if (p->parts == 1) return MAREA_OK;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, pairs, sizeof *p->complete, &bytes));
  MAREA_TABLE(c, p->complete, bytes);
  for (int64_t i = 0; i < p->parts * p->cuts; i++) atomic_init(&p->complete[i], 0);
  return MAREA_OK;
}

/* How many sums memory allows, and ranges of rows so that there are blocks enough nevertheless, and none so
   long that it could not be interrupted. */
static marea_status choose_parts (marea_call *c, marea_conv_correlate *p) {
  const marea_conv *g = p->g;
  const size_t bytes = (size_t)p->count * p->x.size;
  const double work = (double)g->n * (double)g->out[0] * (double)g->out[1] * (double)p->count;
  p->parts = MAREA_MIN(g->n * p->x.tiles, MAREA_CONV_PARTS);
  p->parts = MAREA_MIN(p->parts, MAREA_MAX((int64_t)(SUM_BYTES / bytes), 1));
  p->cuts = MAREA_MAX((MAREA_CONV_PARTS + p->parts - 1) / p->parts,
                      (int64_t)MAREA_MIN(work / (double)p->parts / LONG_WORK, 1e6));
  p->cuts = MAREA_MIN(p->cuts, MAREA_MAX(p->rows / LEAST_ROWS, 1));
  return marea_conv_correlate_sums(c, p);
}

static marea_status open_by_taps (marea_call *c, const marea_conv_source *x, const marea_conv_source *dy,
                                  marea_conv_correlate *p) {
  const int64_t channels = p->g->cin / p->g->groups;
  marea_conv_taps t;
  p->tile = correlate_tile;
  p->rows = p->g->kernel[0] * p->g->kernel[1] * channels;
  p->count = p->rows * p->g->cout;
  MAREA_TRY(marea_conv_axes(c, p->g, false, p->x.axis));
  p->x.clipped = has_own_tiles(p->g);
  MAREA_TRY(marea_conv_window_open(c, x, &p->x));
  MAREA_TRY(marea_conv_rows_open(c, dy, p->x.units, &p->dy));
  MAREA_TRY(marea_conv_list_taps(c, p->g, &p->x, &t));
  MAREA_TRY(list_rows(c, &t, channels, p));
  return choose_parts(c, p);
}

/* ---- the pass ---- */

/* With one output channel a row of dw is one number, but
**   dw[t][ci] = sum over pixels p of x[p + t - before][ci] dy[p] = sum over q of dy[q + t' - before'][0] x[q][ci],
** t' = taps - 1 - t, before' = taps - 1 - before, has rows of all ci, which fill vectors. */
static bool mirror (const marea_conv *g, marea_conv *other) {
  if (g->cout != 1 || g->cin <= MAREA_FEW_CHANNELS) return false;
  *other = *g;
  other->cin = 1;
  other->cout = g->cin;
  for (int d = 0; d < 2; d++) {
    const int64_t reach = g->dilation[d] * (g->kernel[d] - 1);
    if (g->stride[d] != 1 || g->before[d] > reach || g->after[d] > reach) return false;
    other->in[d] = g->out[d];
    other->out[d] = g->in[d];
    other->before[d] = reach - g->before[d];
    other->after[d] = reach - g->after[d];
  }
  return true;
}

marea_status marea_conv_correlate_open (marea_call *c, const marea_conv *g, const marea_conv_source *x,
                                        const marea_conv_source *dy, marea_tensor *dw,
                                        marea_conv_correlate *p) {
  *p = (marea_conv_correlate){
      .ctx = c->ctx, .g = g, .kernels = c->ctx->kernels[dw->dtype], .dw = marea_at(dw)};
  p->mirrored = mirror(g, &p->other);
  if (p->mirrored) {
    p->g = &p->other;
    return open_by_taps(c, dy, x, p);
  }
  p->at_points = marea_conv_correlates_at_points(c->ctx, g, dw->dtype, &p->points);
  if (!p->at_points && marea_conv_goes_across(g)) return marea_conv_correlate_across(c, x, dy, p);
  if (!p->at_points) return open_by_taps(c, x, dy, p);
  MAREA_TRY(marea_conv_correlate_at_points(c, x, p));
  return marea_conv_rows_open(c, dy, p->x.units * p->x.axis[0].out_step, &p->dy);
}

static char *sum_of (const marea_conv_correlate *p, int64_t part) {
  if (part == 0 && !p->at_points) return p->dw;
  return p->sums + (size_t)((part - !p->at_points) * p->count) * p->x.size;
}

/* The weights of a cut. */
static marea_range cut_of (const marea_conv_correlate *p, int64_t cut) {
  const int64_t width = p->count / p->rows;
  return (marea_range){cut * p->rows / p->cuts * width, (cut + 1) * p->rows / p->cuts * width};
}

marea_conv_sum marea_conv_correlate_sum (const marea_conv_correlate *p, int64_t part, int64_t cut) {
  char *sum = sum_of(p, part);
  if (p->at_points) return (marea_conv_sum){sum, true};
  const marea_range weights = cut_of(p, cut);
  memset(sum + (size_t)weights.first * p->x.size, 0, (size_t)(weights.end - weights.first) * p->x.size);
  return (marea_conv_sum){sum, false};
}

void marea_conv_correlate_done (const marea_conv_correlate *p, int64_t part, int64_t cut) {
  const marea_range weights = cut_of(p, cut);
  const size_t n = (size_t)(weights.end - weights.first), at = (size_t)weights.first * p->x.size;
  for (int64_t step = 1; step < p->parts; step *= 2) {
    const int64_t left = part / (2 * step) * (2 * step), right = left + step;
    part = left;
    if (right >= p->parts) continue;
    if (atomic_fetch_add(&p->complete[cut * p->parts + right], 1) == 0) return;
    char *to = sum_of(p, left) + at;
    p->kernels->add(n, to, 1, sum_of(p, right) + at, 1, to, NULL);
  }
}

static void run_block (void *arg, int64_t block, int worker) {
  const marea_conv_correlate *p = arg;
  const int64_t part = block / p->cuts, cut = block % p->cuts, tiles = p->x.tiles, tasks = p->g->n * tiles;
  marea_conv_sum sum = marea_conv_correlate_sum(p, part, cut);
  for (int64_t task = part * tasks / p->parts; task < (part + 1) * tasks / p->parts; task++) {
    if (marea_stopping(p->ctx)) return;
    marea_prefetch ahead = {.n = 0};
    marea_conv_window_ahead(&p->x, task / tiles + 1, &ahead);
    marea_conv_rows_ahead(&p->dy, task / tiles + 1, &ahead);
    p->tile(p, task / tiles, task % tiles, cut, worker, &sum, tiles == 1 ? &ahead : NULL);
  }
  marea_conv_correlate_done(p, part, cut);
}

void marea_conv_correlate_run (const marea_conv_correlate *p) {
  if (p->run) p->run(p);
  else marea_parallel(p->ctx, p->parts * p->cuts, run_block, (void *)p);
}
