/* SPDX-License-Identifier: MIT
** conv_backward.c: the three gradients of a convolution in one walk over the images, so that an image's
** gradient comes from memory once, and what is before the activation is never written down as a whole.
*/
#include <string.h>

#include "conv_pass.h"

#define BIAS_BYTES 16384 /* of rows added up at a time; they stay in the first-level cache */

typedef struct backward {
  marea_context *ctx;
  const marea_kernels *kernels;
  marea_conv_gather *dx;                       /* NULL: not wanted */
  marea_conv_correlate *dw;                    /* NULL: not wanted */
  char *db, *sums;                             /* db NULL: not wanted; sums: of the parts after the first */
  bool e_in_window;                            /* the window of dw is of e, else its rows are */
  marea_conv_rows e, bias;                     /* bias: e as it is added up */
  bool shared;                                 /* e of an image is computed once for all three */
  int64_t images, parts, rows, cols, channels; /* of e */
  int64_t band;                                /* rows of e added up at a time */
  size_t size;
} backward;

static char *bias_of (const backward *p, int64_t part) {
  return part == 0 ? p->db : p->sums + (size_t)((part - 1) * p->channels) * p->size;
}

static void add_bias (const backward *p, int64_t image, int worker, char *sum) {
  for (int64_t row = 0; row < p->rows; row += p->band) {
    const int64_t n = MAREA_MIN(p->band, p->rows - row);
    const char *e = marea_conv_rows_load(&p->bias, image, row, n, worker);
    p->kernels->add_rows((size_t)(n * p->cols), (size_t)p->channels, (size_t)p->channels, e, sum);
  }
}

/* Adds what the weight gradient reads besides e. */
static void other_ahead (const backward *p, int64_t image, marea_prefetch *a) {
  if (!p->dw) return;
  if (p->e_in_window) marea_conv_rows_ahead(&p->dw->dy, image, a);
  else marea_conv_window_ahead(&p->dw->x, image, a);
}

/* The input gradient, while what comes after it is asked for. */
static void walk_gather (const backward *p, int64_t image, int worker) {
  marea_prefetch ahead = {.n = 0};
  marea_conv_gather_ahead(p->dx, image, &ahead);
  other_ahead(p, image, &ahead);
  for (int64_t tile = 0; tile < p->dx->w.tiles && !marea_stopping(p->ctx); tile++)
    p->dx->tile(p->dx, image, tile, worker, p->dx->w.tiles == 1 ? &ahead : NULL);
}

/* The weight gradient, while the next image's e is asked for, and all of it if there is no input gradient. */
static void walk_correlate (const backward *p, int64_t image, int worker, marea_conv_sum *sum) {
  marea_prefetch ahead = {.n = 0};
  marea_conv_rows_ahead(&p->e, image + 1, &ahead);
  if (!p->dx) other_ahead(p, image + 1, &ahead);
  for (int64_t tile = 0; tile < p->dw->x.tiles && !marea_stopping(p->ctx); tile++)
    p->dw->tile(p->dw, image, tile, 0, worker, sum, p->dw->x.tiles == 1 ? &ahead : NULL);
}

static void walk_part (void *arg, int64_t part, int worker) {
  const backward *p = arg;
  char *db = p->db ? bias_of(p, part) : NULL;
  marea_conv_sum dw = {NULL, false};
  if (p->dw) dw = marea_conv_correlate_sum(p->dw, part, 0);
  if (db) memset(db, 0, (size_t)p->channels * p->size);
  for (int64_t image = part * p->images / p->parts; image < (part + 1) * p->images / p->parts; image++) {
    if (p->shared) marea_conv_rows_load(&p->e, image, 0, p->rows, worker);
    if (p->dx) walk_gather(p, image, worker);
    if (p->dw) walk_correlate(p, image, worker, &dw);
    if (db) add_bias(p, image, worker, db);
  }
  if (p->dw && !marea_stopping(p->ctx)) marea_conv_correlate_done(p->dw, part, 0);
}

static void fold_bias (const backward *p) {
  for (int64_t part = 1; part < p->parts; part++)
    p->kernels->add((size_t)p->channels, p->db, 1, bias_of(p, part), 1, p->db, NULL);
}

/* Opens e, of which all of an image is loaded at a time if it is small and more than one gradient reads it. */
static marea_status open_e (marea_call *c, const marea_conv_source *e, bool together, backward *p) {
  const int64_t row = MAREA_MAX(p->cols * p->channels * (int64_t)p->size, 1);
  const int readers = (p->dx != NULL) + (p->dw != NULL) + (p->db != NULL);
  p->band = MAREA_MAX(BIAS_BYTES / row, 1);
  p->shared = together && readers > 1 && e->y && !e->computed &&
              (size_t)(p->rows * row) <= MAREA_CONV_TILE_BYTES;
  MAREA_TRY(marea_conv_rows_open(c, e, p->shared ? p->rows : p->band, &p->e));
  p->bias = p->e;
  if (!p->shared) return MAREA_OK;
  marea_conv_share(&p->e, &p->bias.from);
  if (p->dx) marea_conv_share(&p->e, &p->dx->w.from);
  if (p->dw) marea_conv_share(&p->e, p->e_in_window ? &p->dw->x.from : &p->dw->dy.from);
  return MAREA_OK;
}

/* Few images, or sums too large to have many: each gradient alone finds more blocks to share out. */
static void run_apart (marea_call *c, const marea_conv *g, backward *p) {
  if (p->dx) marea_conv_gather_run(c, g, p->dx);
  if (p->dw) marea_conv_correlate_run(p->dw);
  p->dx = NULL;
  p->dw = NULL;
  if (p->db) marea_parallel(c->ctx, p->parts, walk_part, p);
}

marea_status marea_conv_backward (marea_call *c, const marea_conv *g, bool transposed, marea_conv_source *e,
                                  const marea_tensor *x, const marea_tensor *weight, marea_tensor *dx,
                                  marea_tensor *dw, marea_tensor *db) {
  const marea_conv_source plain = {.t = x};
  marea_conv_gather gather;
  marea_conv_correlate correlate;
  backward p = {.ctx = c->ctx,
                .kernels = c->ctx->kernels[x->dtype],
                .dx = dx ? &gather : NULL,
                .dw = dw ? &correlate : NULL,
                .db = db ? marea_at(db) : NULL,
                .images = g->n,
                .parts = MAREA_MIN(g->n, MAREA_CONV_PARTS),
                .rows = e->t->shape[1],
                .cols = e->t->shape[2],
                .channels = e->t->shape[3],
                .size = marea_dtype_size((marea_dtype)x->dtype)};
  if (marea_conv_goes_across(g)) MAREA_TRY(marea_conv_source_compute(c, e));
  if (dx)
    MAREA_TRY(marea_conv_gather_open(c, g, !transposed, e, weight, NULL, MAREA_ACT_NONE, 0, dx, &gather));
  if (dw)
    MAREA_TRY(
        marea_conv_correlate_open(c, g, transposed ? e : &plain, transposed ? &plain : e, dw, &correlate));
  p.e_in_window = transposed != (dw && correlate.mirrored);
  const bool together = p.parts == MAREA_CONV_PARTS && !(dx && gather.run) &&
                        (!dw || (correlate.parts == p.parts && correlate.cuts == 1));
  MAREA_TRY(open_e(c, e, together, &p));
  if (db && p.parts > 1) MAREA_SCRATCH(c, p.sums, (size_t)((p.parts - 1) * p.channels) * p.size);
  if (together) marea_parallel(c->ctx, p.parts, walk_part, &p);
  else run_apart(c, g, &p);
  if (dw) marea_conv_correlate_finish(&correlate);
  if (db && !c->ctx->dry) fold_bias(&p);
  return MAREA_OK;
}
