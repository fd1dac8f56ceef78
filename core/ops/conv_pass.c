/* SPDX-License-Identifier: MIT
** conv_pass.c: the two passes that convolutions are made of, over tiles of images with their padding, split
** into blocks that depend on the shape alone. The arithmetic is in the kernels `gather` and `correlate`.
**
** Nothing is unrolled into a matrix (im2col): a tile of the source, padded, is all that is copied.
*/
#include <string.h>

#include "conv_geometry.h"

#define TASKS 8           /* tiles to aim for when there are few images */
#define BLOCK_WORK 1e6    /* multiplications worth a block */
#define LONG_WORK 5e8     /* multiplications of some milliseconds */
#define PARTIAL_BLOCKS 16 /* weight gradients summed apart */
#define LEAST_ROWS 64     /* of the weight gradient worth loading a tile for */
#define PARTIAL_BYTES ((size_t)1 << 23)

/* ---- taps ---- */

/* Taps in the order of phases (rows, then columns), each phase's together: offset in a tile, place in the
   kernel. */
typedef struct taps {
  int64_t n, *offset, *origin;
} taps;

static void add_phase_taps (const marea_conv_window *w, int64_t kernel_cols, const marea_conv_phase *y,
                            const marea_conv_phase *x, taps *t) {
  for (int64_t i = 0; i < y->taps; i++) {
    for (int64_t j = 0; j < x->taps; j++) {
      t->offset[t->n] = y->offset[i] * w->row + x->offset[j] * w->channels;
      t->origin[t->n++] = y->kernel[i] * kernel_cols + x->kernel[j];
    }
  }
}

static marea_status list_taps (marea_call *c, const marea_conv *g, const marea_conv_window *w, taps *t) {
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, g->kernel, 2 * sizeof(int64_t), &bytes));
  MAREA_SCRATCH(c, t->offset, bytes);
  t->origin = t->offset + g->kernel[0] * g->kernel[1];
  t->n = 0;
  for (int64_t p = 0; p < w->axis[0].phases; p++)
    for (int64_t q = 0; q < w->axis[1].phases; q++)
      add_phase_taps(w, g->kernel[1], &w->axis[0].phase[p], &w->axis[1].phase[q], t);
  return MAREA_OK;
}

/* ---- gather: forward and input gradient ---- */

typedef struct gather_pass {
  marea_conv_window w;
  taps taps;
  const marea_kernels *kernels;
  int64_t groups, cin, cout; /* channels of a group, as the pass reads and writes */
  const char *weight, *bias;
  int64_t w_group, w_cell_tap; /* steps of weight: group, tap */
  int64_t w_ci;
  char *out;
  const char *pixel; /* what outputs without taps are; NULL: there are none */
  marea_activation act;
  double slope;
  int64_t tasks, tasks_per_block;
} gather_pass;

/* ---- weights for the input gradient: (group, tap, cout, cin), so that written channels are adjacent ---- */

typedef struct packing {
  const marea_conv *g;
  const taps *taps;
  size_t size;
  const char *weight;
  char *packed;
} packing;

static void pack_tap (void *arg, int64_t block, int worker) {
  const packing *p = arg;
  const int64_t cin = p->g->cin / p->g->groups, cout = p->g->cout / p->g->groups;
  const int64_t group = block / p->taps->n, tap = p->taps->origin[block % p->taps->n];
  const int64_t from = tap * cin * p->g->cout + group * cout, to = block * cin * cout;
  (void)worker;
  for (int64_t co = 0; co < cout; co++) {
    for (int64_t ci = 0; ci < cin; ci++) {
      const int64_t i = from + ci * p->g->cout + co, j = to + co * cin + ci;
      if (p->size == 4) ((uint32_t *)p->packed)[j] = ((const uint32_t *)p->weight)[i];
      else ((uint64_t *)p->packed)[j] = ((const uint64_t *)p->weight)[i];
    }
  }
}

static marea_status pack_weight (marea_call *c, const marea_conv *g, const marea_tensor *weight,
                                 gather_pass *p) {
  char *packed;
  const int64_t count = p->groups * p->taps.n * p->cin * p->cout;
  MAREA_SCRATCH(c, packed, (size_t)MAREA_MAX(count, 1) * p->w.size);
  packing k = {g, &p->taps, p->w.size, marea_at(weight), packed};
  if (count > 0) marea_parallel(c->ctx, p->groups * p->taps.n, pack_tap, &k);
  p->weight = packed;
  p->w_cell_tap = p->cin * p->cout;
  p->w_group = p->taps.n * p->w_cell_tap;
  p->w_ci = p->cout;
  return MAREA_OK;
}

/* ---- outputs that no tap reaches: act(bias) ---- */

static bool has_bare_outputs (const gather_pass *p) {
  if (p->cin == 0) return true;
  for (int d = 0; d < 2; d++)
    for (int64_t i = 0; i < p->w.axis[d].phases; i++)
      if (p->w.axis[d].phase[i].taps == 0) return true;
  return false;
}

static marea_status make_pixel (marea_call *c, gather_pass *p) {
  const size_t bytes = (size_t)(p->groups * p->cout) * p->w.size;
  char *pixel;
  p->pixel = NULL;
  if (!has_bare_outputs(p)) return MAREA_OK;
  MAREA_SCRATCH(c, pixel, bytes);
  memset(pixel, 0, bytes);
  p->kernels->bias_act(1, (size_t)(p->groups * p->cout), p->bias, p->act, p->slope, pixel);
  p->pixel = pixel;
  return MAREA_OK;
}

/* ---- the pass ---- */

typedef struct cell { /* rows of one phase in one tile */
  const marea_conv_phase *y, *x;
  int64_t rows, tap; /* rows to write; the phase's first tap */
  const char *tile;
  char *out; /* first pixel */
} cell;

static void fill_cell (const gather_pass *p, const cell *k) {
  const size_t pixel = (size_t)(p->groups * p->cout) * p->w.size;
  const int64_t row = p->w.axis[0].out_step * p->w.axis[1].out, col = p->w.axis[1].out_step;
  for (int64_t i = 0; i < k->rows; i++)
    for (int64_t j = 0; j < k->x->count; j++)
      memcpy(k->out + (size_t)(i * row + j * col) * pixel, p->pixel, pixel);
}

static void gather_cell (const gather_pass *p, const cell *k) {
  const marea_conv_window *w = &p->w;
  const int64_t channels = p->groups * p->cout;
  marea_gather g = {.rows = k->rows,
                    .cols = k->x->count,
                    .x_row = w->axis[0].src_step * w->row,
                    .x_col = w->axis[1].src_step * w->channels,
                    .y_row = w->axis[0].out_step * w->axis[1].out * channels,
                    .y_col = w->axis[1].out_step * channels,
                    .cin = p->cin,
                    .cout = p->cout,
                    .taps = k->y->taps * k->x->taps,
                    .tap = p->taps.offset + k->tap,
                    .w_tap = p->w_cell_tap,
                    .w_ci = p->w_ci,
                    .act = p->act,
                    .slope = p->slope};
  if (p->cin == 0 || g.taps == 0) {
    fill_cell(p, k);
    return;
  }
  const int64_t x = (k->y->start - w->axis[0].low) * w->row + (k->x->start - w->axis[1].low) * w->channels;
  for (int64_t i = 0; i < p->groups; i++) {
    g.x = k->tile + (size_t)(x + i * p->cin) * w->size;
    g.w = p->weight + (size_t)(i * p->w_group + k->tap * p->w_cell_tap) * w->size;
    g.bias = p->bias ? p->bias + (size_t)(i * p->cout) * w->size : NULL;
    g.y = k->out + (size_t)(i * p->cout) * w->size;
    p->kernels->gather(&g);
  }
}

static void gather_tile (const gather_pass *p, int64_t image, int64_t tile, int worker) {
  const marea_conv_axis *rows = &p->w.axis[0], *cols = &p->w.axis[1];
  const size_t pixel = (size_t)(p->groups * p->cout) * p->w.size;
  const int64_t first = tile * p->w.units;
  cell k = {.tile = marea_conv_window_load(&p->w, image, tile, worker), .tap = 0};
  for (int64_t i = 0; i < rows->phases; i++) {
    k.y = &rows->phase[i];
    k.rows = MAREA_MIN(p->w.units, k.y->count - first);
    for (int64_t j = 0; j < cols->phases; j++) {
      k.x = &cols->phase[j];
      const int64_t row = image * rows->out + k.y->first + first * rows->out_step;
      k.out = p->out + (size_t)(row * cols->out + k.x->first) * pixel;
      if (k.rows > 0) gather_cell(p, &k);
      k.tap += k.y->taps * k.x->taps;
    }
  }
}

static void gather_block (void *arg, int64_t block, int worker) {
  const gather_pass *p = arg;
  const int64_t end = MAREA_MIN((block + 1) * p->tasks_per_block, p->tasks);
  for (int64_t task = block * p->tasks_per_block; task < end; task++)
    gather_tile(p, task / p->w.tiles, task % p->w.tiles, worker);
}

static void choose_blocks (const marea_conv *g, gather_pass *p) {
  p->tasks = g->n * p->w.tiles;
  const double work = (double)g->out[0] * (double)g->out[1] * (double)p->taps.n * (double)p->cin *
                      (double)p->cout * (double)p->groups / (double)p->w.tiles;
  const double enough = BLOCK_WORK / MAREA_MAX(work, 1);
  p->tasks_per_block = (int64_t)MAREA_MIN(enough, (double)(p->tasks / PARTIAL_BLOCKS));
  p->tasks_per_block = MAREA_MAX(p->tasks_per_block, 1);
}

marea_status marea_conv_gather (marea_call *c, const marea_conv *g, bool backward, const marea_tensor *src,
                                const marea_tensor *weight, const marea_tensor *bias, marea_activation act,
                                double slope, marea_tensor *out) {
  gather_pass p = {.kernels = c->ctx->kernels[out->dtype],
                   .groups = g->groups,
                   .act = act,
                   .slope = slope,
                   .cin = (backward ? g->cout : g->cin) / g->groups,
                   .cout = (backward ? g->cin : g->cout) / g->groups,
                   .weight = marea_at(weight),
                   .bias = bias ? marea_at(bias) : NULL,
                   .out = marea_at(out),
                   .w_cell_tap = g->cin / g->groups * g->cout,
                   .w_group = g->cout / g->groups,
                   .w_ci = g->cout};
  if (marea_count(out->rank, out->shape) == 0) return MAREA_OK;
  MAREA_TRY(marea_conv_window_open(c, g, backward, src, TASKS, &p.w));
  MAREA_TRY(list_taps(c, g, &p.w, &p.taps));
  if (backward) MAREA_TRY(pack_weight(c, g, weight, &p));
  MAREA_TRY(make_pixel(c, &p));
  choose_blocks(g, &p);
  marea_parallel(c->ctx, (p.tasks - 1) / p.tasks_per_block + 1, gather_block, &p);
  return MAREA_OK;
}

/* ---- correlate: weight gradient ---- */

typedef struct correlate_pass {
  marea_context *ctx;
  marea_conv_window w;
  const marea_conv *g;
  const marea_kernels *kernels;
  const char *dy;
  char *dw, *partial;         /* block 0 of the images adds into dw, the others into partial sums */
  int64_t rows;               /* of dw: (tap, channel of a group) */
  const int64_t *offset;      /* [rows] */
  int64_t tasks, parts, cuts; /* tiles of images; blocks of these; ranges of dw's rows */
} correlate_pass;

static char *part_of (const correlate_pass *p, int64_t part) {
  return part == 0 ? p->dw : p->partial + (size_t)((part - 1) * p->rows * p->g->cout) * p->w.size;
}

static void correlate_tile (const correlate_pass *p, int64_t task, int worker, int64_t first, int64_t end,
                            char *dw) {
  const marea_conv_window *w = &p->w;
  const marea_conv *g = p->g;
  const int64_t image = task / w->tiles, tile = task % w->tiles, cin = g->cin / g->groups,
                cout = g->cout / g->groups;
  const char *x = marea_conv_window_load(w, image, tile, worker);
  const char *dy = p->dy + (size_t)((image * g->out[0] + tile * w->units) * g->out[1] * g->cout) * w->size;
  for (int64_t i = 0; i < g->groups; i++) {
    marea_correlate k = {.x = x + (size_t)(i * cin) * w->size,
                         .dy = dy + (size_t)(i * cout) * w->size,
                         .dw = dw + (size_t)(first * g->cout + i * cout) * w->size,
                         .rows = marea_conv_window_units(w, tile),
                         .cols = g->out[1],
                         .x_row = w->axis[0].src_step * w->row,
                         .x_col = w->axis[1].src_step * w->channels,
                         .dy_row = g->out[1] * g->cout,
                         .dy_col = g->cout,
                         .m = end - first,
                         .cout = cout,
                         .dw_row = g->cout,
                         .offset = p->offset + first};
    p->kernels->correlate(&k);
  }
}

static bool stop_wanted (marea_context *ctx) {
  return !ctx->shielded && atomic_load_explicit(&ctx->interrupt, memory_order_relaxed);
}

static void correlate_block (void *arg, int64_t block, int worker) {
  const correlate_pass *p = arg;
  const int64_t part = block / p->cuts, cut = block % p->cuts;
  const int64_t first = cut * p->rows / p->cuts, end = (cut + 1) * p->rows / p->cuts;
  char *dw = part_of(p, part);
  memset(dw + (size_t)(first * p->g->cout) * p->w.size, 0, (size_t)((end - first) * p->g->cout) * p->w.size);
  for (int64_t task = part * p->tasks / p->parts; task < (part + 1) * p->tasks / p->parts; task++) {
    if (stop_wanted(p->ctx)) return; /* a block can be long */
    correlate_tile(p, task, worker, first, end, dw);
  }
}

static void fold_block (void *arg, int64_t block, int worker) {
  const correlate_pass *p = arg;
  const int64_t first = block * MAREA_BLOCK, n = MAREA_MIN(MAREA_BLOCK, p->rows * p->g->cout - first);
  char *to = p->dw + (size_t)first * p->w.size;
  (void)worker;
  for (int64_t part = 1; part < p->parts; part++)
    p->kernels->add((size_t)n, to, 1, part_of(p, part) + (size_t)first * p->w.size, 1, to, NULL);
}

/* offset[] of every row of dw in a tile */
static marea_status list_rows (marea_call *c, const taps *t, int64_t channels, correlate_pass *p) {
  int64_t *offset;
  MAREA_SCRATCH(c, offset, (size_t)p->rows * sizeof *offset);
  for (int64_t tap = 0; tap < t->n; tap++)
    for (int64_t ci = 0; ci < channels; ci++) offset[tap * channels + ci] = t->offset[tap] + ci;
  p->offset = offset;
  return MAREA_OK;
}

/* How many partial sums memory allows, and ranges of rows so that there are blocks enough nevertheless, and
   none so long that it could not be interrupted. */
static marea_status choose_parts (marea_call *c, size_t bytes, correlate_pass *p) {
  const marea_conv *g = p->g;
  const double work = (double)g->n * (double)g->out[0] * (double)g->out[1] * (double)p->rows *
                      (double)g->cout;
  p->tasks = g->n * p->w.tiles;
  p->parts = MAREA_MIN(p->tasks, PARTIAL_BLOCKS);
  p->parts = MAREA_MIN(p->parts, MAREA_MAX((int64_t)(PARTIAL_BYTES / bytes), 1));
  p->cuts = MAREA_MAX((PARTIAL_BLOCKS + p->parts - 1) / p->parts,
                      (int64_t)MAREA_MIN(work / (double)p->parts / LONG_WORK, 1e6));
  p->cuts = MAREA_MIN(p->cuts, MAREA_MAX(p->rows / LEAST_ROWS, 1));
  p->partial = NULL;
  if (p->parts > 1) MAREA_SCRATCH(c, p->partial, (size_t)(p->parts - 1) * bytes);
  return MAREA_OK;
}

marea_status marea_conv_correlate (marea_call *c, const marea_conv *g, const marea_tensor *x,
                                   const marea_tensor *dy, marea_tensor *dw) {
  correlate_pass p = {.ctx = c->ctx,
                      .g = g,
                      .kernels = c->ctx->kernels[dw->dtype],
                      .dy = marea_at(dy),
                      .dw = marea_at(dw),
                      .rows = g->kernel[0] * g->kernel[1] * (g->cin / g->groups)};
  const size_t bytes = (size_t)marea_count(dw->rank, dw->shape) * marea_dtype_size((marea_dtype)dw->dtype);
  taps t;
  if (bytes == 0) return MAREA_OK;
  if (marea_count(dy->rank, dy->shape) == 0) {
    memset(p.dw, 0, bytes);
    return MAREA_OK;
  }
  MAREA_TRY(marea_conv_window_open(c, g, false, x, TASKS, &p.w));
  MAREA_TRY(list_taps(c, g, &p.w, &t));
  MAREA_TRY(list_rows(c, &t, g->cin / g->groups, &p));
  MAREA_TRY(choose_parts(c, bytes, &p));
  marea_parallel(c->ctx, p.parts * p.cuts, correlate_block, &p);
  const int64_t blocks = (p.rows * g->cout - 1) / MAREA_BLOCK + 1;
  if (p.parts > 1) marea_parallel(c->ctx, blocks, fold_block, &p);
  return MAREA_OK;
}
