/* SPDX-License-Identifier: MIT
** conv_correlate.c: the weight gradient of convolutions, over tiles of images with their padding. The
** arithmetic is in the kernel `correlate`.
**
** Tiles are cut into parts by the shape alone. Each part has a sum of its own; at the end they are added up in
** order, so the threads do not change a bit.
*/
#include <string.h>

#include "conv_pass.h"

#define FOLD 4096     /* weights that are added up, or brought back from points, at a time */
#define LONG_WORK 5e8 /* multiplications of some milliseconds */
#define LEAST_ROWS 64 /* of the weight gradient worth loading a tile for */
#define FEW_ROWS 16   /* which take no longer than to read dy, in an order that the processor foresees */
#define SUM_BYTES ((size_t)1 << 23)

/* ---- a tile by taps ---- */

static void correlate_tile (const marea_conv_correlate *p, int64_t image, int64_t tile, int64_t cut,
                            int worker, marea_conv_sum *sum, marea_ahead *ahead) {
  const marea_conv_window *w = &p->x;
  const marea_conv *g = p->g;
  const bool depthwise = marea_conv_is_depthwise(g); /* all groups at once, a channel each */
  const int64_t groups = depthwise ? 1 : g->groups, rows = marea_conv_window_units(w, tile);
  const int64_t cin = g->cin / groups, cout = g->cout / groups;
  const int64_t first = cut * p->rows / p->cuts, end = (cut + 1) * p->rows / p->cuts;
  const char *x = marea_conv_window_load(w, image, tile, worker);
  const char *dy = marea_conv_rows_load(&p->dy, image, tile * w->units, rows, worker);
  for (int64_t i = 0; i < groups; i++) {
    marea_correlate k = {.x = x + (size_t)(i * cin) * w->size,
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
                         .ahead = p->rows > FEW_ROWS ? ahead : NULL};
    p->kernels->correlate(&k);
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
  if (p->parts > 1) MAREA_SCRATCH(c, p->sums, (size_t)(p->parts - 1) * bytes);
  return MAREA_OK;
}

static marea_status open_by_taps (marea_call *c, const marea_conv_source *x, const marea_conv_source *dy,
                                  marea_conv_correlate *p) {
  const int64_t channels = p->g->cin / p->g->groups;
  marea_conv_taps t;
  p->tile = correlate_tile;
  p->rows = p->g->kernel[0] * p->g->kernel[1] * channels;
  p->count = p->rows * p->g->cout;
  MAREA_TRY(marea_conv_axes(c, p->g, false, p->x.axis));
  MAREA_TRY(marea_conv_window_open(c, x, &p->x));
  MAREA_TRY(marea_conv_rows_open(c, dy, p->x.units, &p->dy));
  MAREA_TRY(marea_conv_list_taps(c, p->g, &p->x, &t));
  MAREA_TRY(list_rows(c, &t, channels, p));
  return choose_parts(c, p);
}

/* ---- the pass ---- */

/* With one output channel a row of dw is one number, but
**   dw[t][ci] = sum over pixels p of x[p + t - before][ci] dy[p] = sum over q of dy[q + t' - before'][0] x[q][ci],
** t' = taps - 1 - t, before' = taps - 1 - before, has rows of all ci, and dy costs less to pad than x does. */
static bool mirror (const marea_conv *g, marea_conv *other) {
  if (g->cout != 1 || g->cin <= MAREA_THIN) return false;
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

marea_conv_sum marea_conv_correlate_sum (const marea_conv_correlate *p, int64_t part, int64_t cut) {
  char *sum = sum_of(p, part);
  if (p->at_points) return (marea_conv_sum){sum, true};
  const int64_t width = p->count / p->rows;
  const int64_t first = cut * p->rows / p->cuts * width, end = (cut + 1) * p->rows / p->cuts * width;
  memset(sum + (size_t)first * p->x.size, 0, (size_t)(end - first) * p->x.size);
  return (marea_conv_sum){sum, false};
}

static void run_block (void *arg, int64_t block, int worker) {
  const marea_conv_correlate *p = arg;
  const int64_t part = block / p->cuts, cut = block % p->cuts, tiles = p->x.tiles, tasks = p->g->n * tiles;
  marea_conv_sum sum = marea_conv_correlate_sum(p, part, cut);
  for (int64_t task = part * tasks / p->parts; task < (part + 1) * tasks / p->parts; task++) {
    if (marea_stopping(p->ctx)) return;
    marea_ahead ahead = {.n = 0};
    marea_conv_window_ahead(&p->x, task / tiles + 1, &ahead);
    marea_conv_rows_ahead(&p->dy, task / tiles + 1, &ahead);
    p->tile(p, task / tiles, task % tiles, cut, worker, &sum, tiles == 1 ? &ahead : NULL);
  }
}

void marea_conv_correlate_run (const marea_conv_correlate *p) {
  if (p->run) {
    p->run(p);
    return;
  }
  marea_parallel(p->ctx, p->parts * p->cuts, run_block, (void *)p);
}

static void fold_block (void *arg, int64_t block, int worker) {
  const marea_conv_correlate *p = arg;
  const int64_t first = block * FOLD, n = MAREA_MIN(FOLD, p->count - first);
  const size_t at = (size_t)first * p->x.size;
  char *to = sum_of(p, 0) + at;
  (void)worker;
  for (int64_t part = 1; part < p->parts; part++)
    p->kernels->add((size_t)n, to, 1, sum_of(p, part) + at, 1, to, NULL);
}

void marea_conv_correlate_finish (const marea_conv_correlate *p) {
  const int64_t blocks = (p->count - 1) / FOLD + 1;
  if (p->parts > 1) marea_parallel(p->ctx, blocks, fold_block, (void *)p);
  if (p->at_points) marea_conv_correlate_from_points(p);
}
