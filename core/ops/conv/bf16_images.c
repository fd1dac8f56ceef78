/* SPDX-License-Identifier: MIT
** bf16_images.c: the image pass of bf16. Outputs of a phase are the grid of a product, the channels that a tap reads its
** depth. A few channels, or a number that the kernel cannot cut, would be a poor depth: then those of all taps of a pixel
** are gathered.
*/
#include <string.h>

#include "bf16_passes.h"

#define LEAST_DEPTH \
  8 /* channels of a tap that are not gathered: 16 bytes of 64 that an AMX tile's row holds */

#define GATHERED \
  8192 /* elements that are gathered for one product, or one row: half of a first-level cache */

/* ---- a phase ---- */

typedef struct phase {
  const marea_conv_phase *y, *x;
  int64_t tap, taps; /* the first of its taps in the list, and how many */
  int64_t depth;     /* of the product, and its taps */
  int64_t steps;
  int64_t w; /* where its weights begin, in those of a group */
} phase;

static phase next_phase (const marea_bf16_images *p, const phase *before, int64_t index) {
  const marea_conv_axis *axis = p->base.x.axis;
  phase k = {.y = &axis[0].phase[index / axis[1].phases], .x = &axis[1].phase[index % axis[1].phases]};
  k.taps = k.y->taps * k.x->taps;
  k.depth = p->gathered ? marea_bf16_depth(k.taps * p->base.cin) : p->base.cin;
  k.steps = p->gathered ? k.depth > 0 : k.taps;
  if (!before) return k;
  k.tap = before->tap + before->taps;
  k.w = before->w + marea_bf16_columns(p->base.cout) * before->depth * before->steps;
  return k;
}

static int64_t count_phases (const marea_bf16_images *p) {
  return p->base.x.axis[0].phases * p->base.x.axis[1].phases;
}

/* ---- weights ---- */

typedef struct packing {
  const marea_conv *g;
  marea_bf16_images *p;
} packing;

/* The weights of tap t of a group, (read, written) by steps, or turned */
static const uint16_t *weights_of (const packing *k, int64_t group, int64_t t) {
  const marea_conv *g = k->g;
  const int64_t cin = g->cin / g->groups, cout = g->cout / g->groups;
  return (const uint16_t *)(const void *)k->p->base.weight + k->p->taps.origin[t] * cin * g->cout +
         group * cout;
}

static void pack_tap (const packing *k, int64_t group, const phase *f, int64_t t) {
  const marea_image_pass *b = &k->p->base;
  const int64_t size = f->depth * MAREA_BF16_PANEL;
  marea_bf16_pack(b->kernels, b->cin, b->cout, weights_of(k, group, f->tap + t), k->g->cout,
                  b->input_gradient, k->p->w + group * k->p->group + f->w + t * size, f->taps * size);
}

/* One element after the other: there are few. */
static void pack_gathered (const packing *k, int64_t group, const phase *f) {
  const marea_image_pass *b = &k->p->base;
  const int64_t read = b->input_gradient ? 1 : k->g->cout, written = b->input_gradient ? k->g->cout : 1;
  uint16_t *to = k->p->w + group * k->p->group + f->w;
  memset(to, 0, (size_t)(marea_bf16_columns(b->cout) * f->depth) * sizeof *to);
  for (int64_t t = 0; t < f->taps; t++) {
    const uint16_t *w = weights_of(k, group, f->tap + t);
    for (int64_t ci = 0; ci < b->cin; ci++)
      for (int64_t co = 0; co < b->cout; co++) {
        const int64_t d = t * b->cin + ci, panel = co / MAREA_BF16_PANEL * f->depth * MAREA_BF16_PANEL;
        to[panel + (d / 2 * MAREA_BF16_PANEL + co % MAREA_BF16_PANEL) * 2 + d % 2] =
            w[ci * read + co * written];
      }
  }
}

/* Tap `block` of all groups' lists; of gathered ones, with the first tap of a phase all of it. */
static void pack_block (void *arg, int64_t block, int worker) {
  const packing *k = arg;
  const int64_t group = block / k->p->taps.n, tap = block % k->p->taps.n;
  phase f = next_phase(k->p, NULL, 0);
  (void)worker;
  for (int64_t i = 1; f.tap + f.taps <= tap; i++) f = next_phase(k->p, &f, i);
  if (!k->p->gathered) pack_tap(k, group, &f, tap - f.tap);
  else if (tap == f.tap) pack_gathered(k, group, &f);
}

static marea_status pack_weights (marea_call *c, const marea_conv *g, marea_bf16_images *p) {
  packing k = {g, p};
  phase f = next_phase(p, NULL, 0);
  p->depth = f.depth;
  for (int64_t i = 1; i < count_phases(p); i++) {
    f = next_phase(p, &f, i);
    p->depth = MAREA_MAX(p->depth, f.depth);
  }
  p->group = f.w + marea_bf16_columns(p->base.cout) * f.depth * f.steps;
  const int64_t size[] = {p->base.groups, MAREA_MAX(p->group, 1)};
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof *p->w, &bytes));
  MAREA_WORKSPACE_OR_RETURN(c, p->w, bytes);
  marea_parallel(c->ctx, p->base.groups * p->taps.n, pack_block, &k);
  return MAREA_OK;
}

/* ---- a tile ---- */

/* Taps from t on that follow each other in x, so that their channels are one run */
static int64_t run_of_taps (const marea_bf16_images *p, const phase *f, int64_t t) {
  const int64_t *tap = p->taps.offset + f->tap;
  int64_t n = 1;
  while (t + n < f->taps && tap[t + n] - tap[t + n - 1] == p->base.cin) n++;
  return n;
}

/* Writes the row of pixels that output row `row` of a phase reads: (col, tap, channel), leaving out what is behind them up
   to depth. */
static void gather (const marea_bf16_images *p, const phase *f, const uint16_t *x, int64_t x_col,
                    uint16_t *to) {
  const int64_t size = (int64_t)sizeof *x;
  for (int64_t t = 0, n; t < f->taps; t += n) {
    n = run_of_taps(p, f, t);
    marea_copy_pieces(f->x->count, (size_t)(n * p->base.cin * size), x + p->taps.offset[f->tap + t],
                      x_col * size, to + t * p->base.cin, f->depth * size);
  }
}

/* Some rows at a time; what gather leaves out stays zero. */
static void multiply_gathered (const marea_bf16_images *p, const phase *f, marea_bf16_product g, int worker) {
  static const int64_t here = 0;
  uint16_t *to = (uint16_t *)(void *)(p->memory + (size_t)worker * p->bytes);
  const int64_t rows = g.rows, size = f->x->count * f->depth, x_row = g.x_row, x_col = g.x_col;
  const uint16_t *x = g.x;
  g.x = to;
  g.x_col = f->depth;
  g.x_row = size;
  g.tap = &here;
  memset(to, 0, (size_t)(MAREA_MIN(p->rows, rows) * size) * sizeof *to);
  for (int64_t i = 0; i < rows; i += g.rows) {
    g.rows = MAREA_MIN(p->rows, rows - i);
    for (int64_t r = 0; r < g.rows && f->depth > 0; r++)
      gather(p, f, x + (i + r) * x_row, x_col, to + r * size);
    p->base.bf16->product(&g);
    g.y = (uint16_t *)g.y + g.rows * g.y_row;
  }
}

/* Rows of a phase whose first one is unit `first`, which is row 0 of the tile `source`. */
static void compute_phase (const marea_bf16_images *p, const phase *f, const char *source, int64_t image,
                           int64_t first, int64_t rows, int worker) {
  const marea_image_pass *b = &p->base;
  const marea_conv_window *w = &b->x;
  const marea_conv_axis *axis = w->axis;
  const int64_t channels = b->groups * b->cout;
  const int64_t row = image * axis[0].out + f->y->first + first * axis[0].out_step;
  const int64_t at = (f->y->start - axis[0].low) * w->row + (f->x->start - axis[1].low) * w->channels;
  marea_bf16_product g = {.rows = rows,
                          .cols = f->x->count,
                          .x_row = axis[0].src_step * w->row,
                          .x_col = axis[1].src_step * w->channels,
                          .y_row = axis[0].out_step * axis[1].out * channels,
                          .y_col = axis[1].out_step * channels,
                          .depth = f->depth,
                          .n = b->cout,
                          .tap_rows = f->depth > 0,
                          .taps = f->steps,
                          .tap_row = f->steps,
                          .tap = p->taps.offset + f->tap,
                          .w_tap = f->depth * MAREA_BF16_PANEL,
                          .w_panel = f->steps * f->depth * MAREA_BF16_PANEL,
                          .act = b->act,
                          .slope = b->slope,
                          .f32 = b->kernels};
  for (int64_t i = 0; i < b->groups; i++) {
    g.x = (const uint16_t *)(const void *)source + at + i * b->cin;
    g.w = p->w + i * p->group + f->w;
    g.y = (uint16_t *)(void *)b->out + (row * axis[1].out + f->x->first) * channels + i * b->cout;
    g.bias = p->bias ? p->bias + i * b->cout : NULL;
    if (p->gathered) multiply_gathered(p, f, g, worker);
    else b->bf16->product(&g);
  }
}

static void compute_tile (const marea_image_pass *b, int64_t image, int64_t tile, int worker,
                          marea_prefetch *prefetch) {
  const marea_bf16_images *p = (const marea_bf16_images *)b;
  const int64_t first = tile * b->x.units, units = marea_conv_window_units(&b->x, tile);
  const char *source = marea_conv_window_load(&b->x, image, tile, worker);
  phase f = next_phase(p, NULL, 0);
  (void)prefetch;
  for (int64_t i = 0; i < count_phases(p); i++) {
    if (i > 0) f = next_phase(p, &f, i);
    const int64_t rows = MAREA_MIN(units, f.y->count - first);
    if (rows > 0 && f.x->count > 0) compute_phase(p, &f, source, image, first, rows, worker);
  }
}

/* ---- the pass ---- */

static marea_status widen_bias (marea_call *c, marea_bf16_images *p) {
  const marea_image_pass *b = &p->base;
  const size_t n = (size_t)(b->groups * b->cout);
  if (!b->bias) return MAREA_OK;
  MAREA_WORKSPACE_OR_RETURN(c, p->bias, n * sizeof *p->bias);
  if (!c->ctx->shape_only) b->kernels->widen_bf16(n, (const void *)b->bias, p->bias);
  return MAREA_OK;
}

marea_status marea_bf16_images_open (marea_call *c, const marea_conv *g, const marea_conv_source *src,
                                     marea_bf16_images *p) {
  marea_image_pass *b = &p->base;
  MAREA_TRY(marea_conv_axes(c, g, b->input_gradient, b->x.axis));
  MAREA_TRY(marea_conv_window_open(c, src, &b->x));
  MAREA_TRY(marea_conv_list_taps(c, g, b->x.axis, b->x.row, b->x.channels, &p->taps));
  b->tile = compute_tile;
  p->gathered = b->cin < LEAST_DEPTH || !marea_bf16_depth_fits(b->cin);
  MAREA_TRY(pack_weights(c, g, p));
  MAREA_TRY(widen_bias(c, p));
  if (!p->gathered) return MAREA_OK;
  const int64_t row = b->x.axis[1].most * p->depth;
  p->rows = MAREA_MAX(GATHERED / MAREA_MAX(row, 1), 1);
  const int64_t size[] = {p->rows, b->x.axis[1].most, MAREA_MAX(p->depth, 1)};
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, size, sizeof(uint16_t), &p->bytes));
  return marea_worker_memory(c, &p->bytes, &p->memory);
}
