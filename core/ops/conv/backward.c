/* SPDX-License-Identifier: MIT
** backward.c: the three gradients of a convolution in one walk over the images, so that an image's gradient comes from
** memory once, and the gradient before the activation is never stored as a whole.
*/
#include "backward.h"

#include <string.h>

#include "choose.h"

/* Of rows of e that are added up at a time: half of a first-level cache. */
#define BIAS_BYTES 16384

typedef struct backward {
  marea_context *ctx;
  const marea_kernels *kernels;
  const marea_image_pass *dx;                  /* NULL: not wanted, or not in the walk */
  const marea_weight_pass *dw;                 /* the same */
  char *db, *sums;                             /* (channels), NULL: not wanted; (parts - 1, channels) */
  bool e_in_window;                            /* the window of dw is of e, else its rows are */
  marea_conv_rows e, bias;                     /* e, and e as it is added up for db */
  bool shared;                                 /* e of an image is computed once for all three */
  int64_t images, parts, rows, cols, channels; /* of e: (images, rows, cols, channels) */
  int64_t band;                                /* rows of e that are added up at a time */
  size_t size;                                 /* of an element of db and sums, which are f32 if e is bf16 */
  char *wide; /* bf16: a band of e in f32 for each worker, `wide_step` bytes apart */
  size_t wide_step;
} backward;

/* ---- the walk ---- */

static char *bias_of (const backward *p, int64_t part) {
  return part == 0 ? p->db : p->sums + (size_t)((part - 1) * p->channels) * p->size;
}

static const char *widen_band (const backward *p, const char *e, int64_t rows, int worker) {
  char *wide = p->wide + (size_t)worker * p->wide_step;
  p->kernels->widen_bf16((size_t)(rows * p->cols * p->channels), (const void *)e, (void *)wide);
  return wide;
}

static void add_bias (const backward *p, int64_t image, int worker, char *sum) {
  for (int64_t row = 0; row < p->rows; row += p->band) {
    const int64_t n = MAREA_MIN(p->band, p->rows - row);
    const char *e = marea_conv_rows_load(&p->bias, image, row, n, worker);
    if (p->wide) e = widen_band(p, e, n, worker);
    p->kernels->add_rows((size_t)(n * p->cols), (size_t)p->channels, (size_t)p->channels, e, sum);
  }
}

/* Adds what the weight gradient reads besides e. */
static void prefetch_other (const backward *p, int64_t image, marea_prefetch *prefetch) {
  if (!p->dw) return;
  if (p->e_in_window) marea_conv_rows_prefetch(&p->dw->dy, image, prefetch);
  else marea_conv_window_prefetch(&p->dw->x, image, prefetch);
}

/* The input gradient. Meanwhile the place of its results is prefetched, and what the weight gradient of the same image
   will read. */
static void compute_dx (const backward *p, int64_t image, int worker) {
  marea_prefetch prefetch = {.n = 0};
  marea_image_pass_prefetch_out(p->dx, image, &prefetch);
  prefetch_other(p, image, &prefetch);
  for (int64_t tile = 0; tile < p->dx->x.tiles && !marea_stopping(p->ctx); tile++)
    p->dx->tile(p->dx, image, tile, worker, p->dx->x.tiles == 1 ? &prefetch : NULL);
}

/* The weight gradient. Meanwhile e of the next image is prefetched, and if there is no input gradient to do it the other
   operand, too. */
static void add_dw (const backward *p, int64_t image, int worker, marea_sum *sum) {
  marea_prefetch prefetch = {.n = 0};
  marea_conv_rows_prefetch(&p->e, image + 1, &prefetch);
  if (!p->dx) prefetch_other(p, image + 1, &prefetch);
  for (int64_t tile = 0; tile < p->dw->x.tiles && !marea_stopping(p->ctx); tile++)
    p->dw->tile(p->dw, image, tile, 0, worker, sum, p->dw->x.tiles == 1 ? &prefetch : NULL);
}

static void walk_part (void *arg, int64_t part, int worker) {
  const backward *p = arg;
  char *db = p->db ? bias_of(p, part) : NULL;
  marea_sum dw = {NULL, false};
  if (p->dw) dw = marea_partial_sums_begin(&p->dw->sum, part, 0);
  if (db) memset(db, 0, (size_t)p->channels * p->size);
  for (int64_t image = part * p->images / p->parts; image < (part + 1) * p->images / p->parts; image++) {
    if (p->shared) marea_conv_rows_load(&p->e, image, 0, p->rows, worker);
    if (p->dx) compute_dx(p, image, worker);
    if (p->dw) add_dw(p, image, worker, &dw);
    if (db) add_bias(p, image, worker, db);
  }
  if (p->dw && !marea_stopping(p->ctx)) marea_partial_sums_complete(&p->dw->sum, p->kernels, part, 0);
}

static void reduce_bias (const backward *p) {
  for (int64_t part = 1; part < p->parts; part++)
    p->kernels->add((size_t)p->channels, p->db, 1, bias_of(p, part), 1, p->db, NULL);
}

/* ---- all gradients ---- */

/* Opens e. If it is small and more than one gradient reads it, all of an image is loaded at a time. */
static marea_status open_e (marea_call *c, const marea_conv_source *e, bool together, marea_image_pass *dx,
                            marea_weight_pass *dw, backward *p) {
  const int64_t row = MAREA_MAX(p->cols * p->channels * (int64_t)marea_element_size(e->t->dtype), 1);
  const int readers = (dx != NULL) + (dw != NULL) + (p->db != NULL);
  p->band = MAREA_MAX(BIAS_BYTES / row, 1);
  p->shared = together && readers > 1 && e->y && !e->computed &&
              (size_t)(p->rows * row) <= MAREA_CONV_TILE_BYTES;
  MAREA_TRY(marea_conv_rows_open(c, e, p->shared ? p->rows : p->band, &p->e));
  p->bias = p->e;
  if (!p->shared) return MAREA_OK;
  marea_conv_share(&p->e, &p->bias.from);
  if (dx) marea_conv_share(&p->e, &dx->x.from);
  if (dw) marea_conv_share(&p->e, p->e_in_window ? &dw->x.from : &dw->dy.from);
  return MAREA_OK;
}

/* db is bf16: its sum in f32, and the bands of e. */
static marea_status open_wide (marea_call *c, const marea_tensor *db, backward *p) {
  if (!db || db->dtype != MAREA_BF16) return MAREA_OK;
  p->wide_step = (size_t)(p->band * p->cols * p->channels) * sizeof(float);
  MAREA_WORKSPACE_OR_RETURN(c, p->db, (size_t)p->channels * sizeof(float));
  return marea_worker_memory(c, &p->wide_step, &p->wide);
}

/* All in one walk. */
static void run_together (marea_call *c, backward *p) {
  marea_parallel(c->ctx, p->parts, walk_part, p);
  if (p->dw && p->dw->finish) p->dw->finish(p->dw);
}

/* One after the other: with few images, or sums too large to have many of them, each gradient finds more blocks for
   threads to share than images have. */
static void run_apart (marea_call *c, const marea_conv *g, backward *p) {
  if (p->dx) marea_image_pass_run(c, g, p->dx);
  if (p->dw) marea_weight_pass_run(p->dw);
  p->dx = NULL;
  p->dw = NULL;
  if (p->db) marea_parallel(c->ctx, p->parts, walk_part, p);
}

marea_status marea_conv_backward (marea_call *c, const marea_conv *g, bool transposed, marea_conv_source *e,
                                  const marea_tensor *x, const marea_tensor *weight, marea_tensor *dx,
                                  marea_tensor *dw, marea_tensor *db) {
  const marea_conv_source plain = {.t = x};
  const marea_image_job job = {.input_gradient = !transposed, .src = e, .weight = weight, .out = dx};
  marea_any_image_pass images;
  marea_any_weight_pass weights;
  marea_image_pass *dx_pass = dx ? &images.base : NULL;
  marea_weight_pass *dw_pass = dw ? &weights.base : NULL;
  backward p = {.ctx = c->ctx,
                .kernels = c->ctx->kernels[marea_computed_in(x->dtype)],
                .dx = dx_pass,
                .dw = dw_pass,
                .db = db ? marea_at(db) : NULL,
                .images = g->n,
                .parts = MAREA_MIN(g->n, MAREA_CONV_PARTS),
                .rows = e->t->shape[1],
                .cols = e->t->shape[2],
                .channels = e->t->shape[3],
                .size = marea_element_size(marea_computed_in(x->dtype))};
  if (marea_conv_is_small_batch(g) && x->dtype != MAREA_BF16) MAREA_TRY(marea_conv_source_compute(c, e));
  if (dx) MAREA_TRY(marea_conv_open_images(c, g, &job, &images));
  if (dw)
    MAREA_TRY(marea_conv_open_weights(c, g, transposed ? e : &plain, transposed ? &plain : e, dw, &weights));
  p.e_in_window = transposed != (dw && dw_pass->swapped);
  const bool together = p.parts == MAREA_CONV_PARTS && !(dx && dx_pass->run) && !(dw && dw_pass->run) &&
                        (!dw || (dw_pass->sum.parts == p.parts && dw_pass->sum.cuts == 1));
  MAREA_TRY(open_e(c, e, together, dx_pass, dw_pass, &p));
  MAREA_TRY(open_wide(c, db, &p));
  if (db && p.parts > 1) MAREA_WORKSPACE_OR_RETURN(c, p.sums, (size_t)((p.parts - 1) * p.channels) * p.size);
  if (together) run_together(c, &p);
  else run_apart(c, g, &p);
  if (db && !c->ctx->shape_only) reduce_bias(&p);
  if (p.wide && !c->ctx->shape_only)
    p.kernels->narrow_bf16((size_t)p.channels, (const void *)p.db, (void *)marea_at(db));
  return MAREA_OK;
}
