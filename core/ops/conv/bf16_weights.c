/* SPDX-License-Identifier: MIT
** bf16_weights.c: the weight-gradient pass of bf16: for each tap dw (cin, cout) += x (pixel, cin)^T dy (pixel, cout), a
** product whose depth is pixels.
**
** The kernel wants pixels that are next to each other. So for a tile x is turned, to one row of pixels for each phase
** of the stride and each channel, where a tap is a shift; and pairs of dy's pixels are packed. Rows follow each other
** at one pitch in both. Behind a row dy has zeros: what x has there adds nothing, unless it is infinite or NaN.
*/
#include <string.h>

#include "bf16_passes.h"

/* The sums of all parts: they are added while they are in a third-level cache. */
#define SUM_BYTES ((size_t)1 << 23)
#define LEAST_CHANNELS 32 /* of x in a cut, which packs all of dy */
/* Pixels that are multiplied for all taps in turn: those of 32 channels on both sides take 32 KB in a first-level cache. Of
   smaller images several are taken together, for the sums are loaded and stored for each product. */
#define NEAR_PIXELS 256
#define SLACK (2 * MAREA_BF16_DEPTH) /* pixels behind the last row that the kernel may read */

/* ---- operands of a tile, or of some images that are one tile each ---- */

typedef struct operands {
  uint16_t *x, *dy;
  uint32_t *pairs;
  int64_t rows;           /* of dy in a tile */
  int64_t images, pixels; /* pixels of an image in x, and in dy */
  int64_t depth;          /* of dy in all, in whole pieces */
  marea_range channels;   /* of x that are turned */
} operands;

/* Channels of x that a cut has: one group's if there are cuts. */
static marea_range channels_of (const marea_bf16_weights *p, int64_t cut) {
  const int64_t all = p->base.g->cin, cuts = p->base.sum.cuts;
  return (marea_range){cut * all / cuts, (cut + 1) * all / cuts};
}

static operands operands_of (const marea_bf16_weights *p, int worker, int64_t rows, int64_t images,
                             int64_t cut) {
  char *at = p->memory + (size_t)worker * p->bytes;
  const int64_t pixels = p->images > 1 ? p->image : 0;
  return (operands){.x = (uint16_t *)(void *)at,
                    .dy = (uint16_t *)(void *)(at + p->x),
                    .pairs = (uint32_t *)(void *)(at + p->x + p->dy),
                    .rows = rows,
                    .images = images,
                    .pixels = pixels,
                    .depth = marea_bf16_whole((images - 1) * pixels + rows * p->pitch),
                    .channels = channels_of(p, cut)};
}

/* Every s-th row and column from (row, col) on of a tile of so many rows, to (channel, pixel) by steps most, 1. */
static void turn_phase (const marea_bf16_weights *p, const char *source, const int64_t first[2],
                        int64_t tile_rows, const operands *o, uint16_t *to) {
  const marea_weight_pass *b = &p->base;
  const marea_conv_window *w = &b->x;
  const int64_t channels = o->channels.end - o->channels.first, step = p->phases[1] * w->channels;
  const int64_t n = (p->cols - first[1] + p->phases[1] - 1) / p->phases[1], half = p->pitch / 2,
                there = (n + 1) / 2;
  const uint16_t *x = (const uint16_t *)(const void *)source + first[0] * w->row + first[1] * w->channels;
  int64_t rows = 0;
  for (int64_t row = first[0]; row < tile_rows;
       row += p->phases[0], x += p->phases[0] * w->row, to += p->pitch, rows++) {
    b->kernels->bf16_pairs((size_t)n, (size_t)channels, step, x + o->channels.first, (size_t)channels,
                           o->pairs);
    memset(o->pairs + there * channels, 0, (size_t)((half - there) * channels) * sizeof *o->pairs);
    b->kernels->turn((size_t)half, (size_t)channels, (size_t)channels, o->pairs, (size_t)(p->most / 2), to);
  }
  for (int64_t ci = 0; ci < channels && rows < p->tile_rows; ci++)
    memset(to + ci * p->most, 0, (size_t)((p->tile_rows - rows) * p->pitch) * sizeof *to);
}

static void turn_x (const marea_bf16_weights *p, const char *source, int64_t image, const operands *o) {
  const marea_conv_axis *axis = &p->base.x.axis[0];
  const int64_t size = (o->channels.end - o->channels.first) * p->most;
  const int64_t tile_rows = (o->rows - 1) * axis->src_step + axis->high - axis->low + 1;
  for (int64_t i = 0; i < p->phases[0] * p->phases[1]; i++) {
    const int64_t first[] = {i / p->phases[1], i % p->phases[1]};
    turn_phase(p, source, first, tile_rows, o, o->x + i * size + image * o->pixels);
  }
}

/* What a tap reads behind the last row meets zeros of dy; here it gets zeros, too, so that it is no NaN. */
static void clear_ends (const marea_bf16_weights *p, const operands *o) {
  const int64_t rows = (p->phases[0] * p->phases[1]) * (o->channels.end - o->channels.first);
  const int64_t from = o->images * o->pixels + (o->pixels > 0 ? 0 : p->tile_rows * p->pitch);
  for (int64_t i = 0; i < rows; i++)
    memset(o->x + i * p->most + from, 0, (size_t)(p->most - from) * sizeof *o->x);
}

/* A panel of a tile of dy: (pixel / 2, MAREA_BF16_PANEL, 2), zeros behind each row, and up to `end` pixels. */
static void pack_panel (const marea_bf16_weights *p, const uint16_t *dy, int64_t columns, int64_t rows,
                        int64_t end, uint16_t *to) {
  const marea_conv *g = p->base.g;
  const int64_t cols = g->out[1], row = p->pitch * MAREA_BF16_PANEL,
                there = (cols + cols % 2) * MAREA_BF16_PANEL;
  if (columns < MAREA_BF16_PANEL) memset(to, 0, (size_t)(end * MAREA_BF16_PANEL) * sizeof *to);
  for (int64_t i = 0; i < rows; i++, dy += cols * g->cout, to += row) {
    p->base.kernels->bf16_pairs((size_t)cols, (size_t)columns, g->cout, dy, MAREA_BF16_PANEL,
                                (uint32_t *)(void *)to);
    memset(to + there, 0, (size_t)(row - there) * sizeof *to);
  }
  memset(to, 0, (size_t)((end - rows * p->pitch) * MAREA_BF16_PANEL) * sizeof *to);
}

static void pack_dy (const marea_bf16_weights *p, const char *source, int64_t image, const operands *o) {
  const marea_conv *g = p->base.g;
  const int64_t cout = g->cout / g->groups, panel = o->depth * MAREA_BF16_PANEL, at = image * o->pixels;
  const int64_t end = image + 1 < o->images ? o->pixels : o->depth - at;
  uint16_t *to = o->dy + at * MAREA_BF16_PANEL;
  for (int64_t i = 0; i < g->groups; i++)
    for (int64_t co = 0; co < cout; co += MAREA_BF16_PANEL, to += panel)
      pack_panel(p, (const uint16_t *)(const void *)source + i * cout + co,
                 MAREA_MIN(MAREA_BF16_PANEL, cout - co), o->rows, end, to);
}

static void load_tile (const marea_bf16_weights *p, int64_t image, int64_t tile, int64_t slot, int worker,
                       const operands *o) {
  const marea_weight_pass *b = &p->base;
  turn_x(p, marea_conv_window_load(&b->x, image, tile, worker), slot, o);
  pack_dy(p, marea_conv_rows_load(&b->dy, image, tile * b->x.units, o->rows, worker), slot, o);
}

/* ---- their product ---- */

/* Where tap t begins in the turned x. */
static int64_t shift_of (const marea_bf16_weights *p, int64_t t, int64_t channels) {
  const marea_conv *g = p->base.g;
  const int64_t row = t / g->kernel[1] * g->dilation[0], col = t % g->kernel[1] * g->dilation[1];
  const int64_t phase = row % p->phases[0] * p->phases[1] + col % p->phases[1];
  return phase * channels * p->most + row / p->phases[0] * p->pitch + col / p->phases[1];
}

/* Pixels from `first` on of all taps of a group. With stride 1 the taps of a row are rows of the product's grid. */
static void add_taps (const marea_bf16_weights *p, const operands *o, int64_t group, int64_t first,
                      const marea_sum *sum) {
  static const int64_t here = 0;
  const marea_conv *g = p->base.g;
  const int64_t cin = g->cin / g->groups, cout = g->cout / g->groups, panel = o->depth * MAREA_BF16_PANEL;
  const int64_t begin = MAREA_MAX(o->channels.first, group * cin),
                end = MAREA_MIN(o->channels.end, (group + 1) * cin);
  const int64_t taps = p->phases[1] == 1 ? g->kernel[1] : 1;
  marea_bf16_product k = {.w = o->dy + group * (marea_bf16_columns(cout) / MAREA_BF16_PANEL) * panel +
                               first * MAREA_BF16_PANEL,
                          .rows = taps,
                          .x_row = g->dilation[1],
                          .y_row = cin * g->cout,
                          .cols = end - begin,
                          .x_col = p->most,
                          .y_col = g->cout,
                          .depth = MAREA_MIN(NEAR_PIXELS, o->depth - first),
                          .n = cout,
                          .tap_rows = 1,
                          .taps = 1,
                          .tap = &here,
                          .w_panel = panel,
                          .wide = true,
                          .accumulate = !sum->overwrite || first > 0,
                          .f32 = p->base.kernels};
  for (int64_t t = 0; t < g->kernel[0] * g->kernel[1] && begin < end; t += taps) {
    k.x = o->x + shift_of(p, t, o->channels.end - o->channels.first) + (begin - o->channels.first) * p->most +
          first;
    k.y = (float *)(void *)sum->at + (t * cin + begin - group * cin) * g->cout + group * cout;
    p->base.bf16->product(&k);
  }
}

static void add_product (const marea_bf16_weights *p, const operands *o, marea_sum *sum) {
  clear_ends(p, o);
  for (int64_t i = 0; i < p->base.g->groups; i++)
    for (int64_t first = 0; first < o->depth; first += NEAR_PIXELS) add_taps(p, o, i, first, sum);
  sum->overwrite = false;
}

static void add_tile (const marea_weight_pass *b, int64_t image, int64_t tile, int64_t cut, int worker,
                      marea_sum *sum, marea_prefetch *prefetch) {
  const marea_bf16_weights *p = (const marea_bf16_weights *)b;
  const operands o = operands_of(p, worker, marea_conv_window_units(&b->x, tile), 1, cut);
  (void)prefetch;
  load_tile(p, image, tile, 0, worker, &o);
  add_product(p, &o, sum);
}

/* A part's images, some at a time */
static void add_images (void *arg, int64_t block, int worker) {
  const marea_bf16_weights *p = arg;
  const marea_weight_pass *b = &p->base;
  const int64_t parts = b->sum.parts, cuts = b->sum.cuts, part = block / cuts, cut = block % cuts;
  const int64_t end = (part + 1) * b->g->n / parts;
  marea_sum sum = marea_partial_sums_begin(&b->sum, part, cut);
  for (int64_t image = part * b->g->n / parts; image < end; image += p->images) {
    const operands o = operands_of(p, worker, b->x.units, MAREA_MIN(p->images, end - image), cut);
    if (marea_stopping(b->ctx)) return;
    for (int64_t i = 0; i < o.images; i++) load_tile(p, image + i, 0, i, worker, &o);
    add_product(p, &o, &sum);
  }
  marea_partial_sums_complete(&b->sum, b->kernels, part, cut);
}

static void run_images (const marea_weight_pass *b) {
  marea_parallel(b->ctx, b->sum.parts * b->sum.cuts, add_images, (void *)b);
}

/* ---- the pass ---- */

static void narrow_block (void *arg, int64_t block, int worker) {
  const marea_weight_pass *b = arg;
  const int64_t first = block * MAREA_BLOCK, n = MAREA_MIN(MAREA_BLOCK, b->sum.rows * b->sum.width - first);
  (void)worker;
  b->kernels->narrow_bf16((size_t)n, (const float *)(const void *)b->sum.first + first,
                          (uint16_t *)(void *)b->dw + first);
}

static void finish (const marea_weight_pass *b) {
  marea_parallel(b->ctx, (b->sum.rows * b->sum.width - 1) / MAREA_BLOCK + 1, narrow_block, (void *)b);
}

/* A sum for each part if memory allows; else cuts, which turn the channels of their own. */
static void choose_parts (const marea_conv *g, int64_t tiles, marea_partial_sums *s) {
  s->parts = MAREA_MIN(g->n * tiles, MAREA_CONV_PARTS);
  s->cuts = 1;
  if ((size_t)(s->rows * s->width) * s->size <= SUM_BYTES / MAREA_CONV_PARTS) return;
  s->parts = 1;
  s->cuts = MAREA_MAX(MAREA_MIN(g->cin / LEAST_CHANNELS, MAREA_CONV_PARTS), 1);
}

/* A worker's turned x, packed dy and pairs of a row. */
static marea_status open_operands (marea_call *c, marea_bf16_weights *p) {
  const marea_weight_pass *b = &p->base;
  const marea_conv *g = b->g;
  const marea_conv_axis *rows = &b->x.axis[0], *cols = &b->x.axis[1];
  const int64_t tile_rows = (b->x.units - 1) * rows->src_step + rows->high - rows->low + 1;
  const int64_t cout = g->cout / g->groups, channels = (g->cin + b->sum.cuts - 1) / b->sum.cuts;
  for (int d = 0; d < 2; d++) p->phases[d] = g->stride[d];
  p->cols = (g->out[1] - 1) * cols->src_step + cols->high - cols->low + 1;
  p->pitch = (p->cols + p->phases[1] - 1) / p->phases[1];
  p->pitch += p->pitch % 2;
  p->tile_rows = (tile_rows + p->phases[0] - 1) / p->phases[0];
  p->image = p->tile_rows * p->pitch;
  p->images = b->x.tiles > 1 ? 1
                             : MAREA_MIN(NEAR_PIXELS / p->image, (g->n + b->sum.parts - 1) / b->sum.parts);
  p->images = MAREA_MAX(p->images, 1);
  p->most = marea_bf16_whole(p->images * p->image) + p->pitch + SLACK;
  const int64_t x[] = {p->phases[0], p->phases[1], channels, p->most},
                dy[] = {g->groups, marea_bf16_columns(cout), marea_bf16_whole(p->images * p->image)},
                pairs[] = {p->pitch, channels};
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 4, x, sizeof(uint16_t), &p->x));
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, dy, sizeof(uint16_t), &p->dy));
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, pairs, sizeof(uint32_t), &bytes));
  p->x = (p->x + MAREA_LINE - 1) / MAREA_LINE * MAREA_LINE;
  p->bytes = p->x + p->dy + bytes;
  return marea_worker_memory(c, &p->bytes, &p->memory);
}

marea_status marea_bf16_weights_open (marea_call *c, const marea_conv_source *x, const marea_conv_source *dy,
                                      marea_bf16_weights *p) {
  marea_weight_pass *b = &p->base;
  const marea_conv *g = b->g;
  MAREA_TRY(marea_conv_axes(c, g, false, b->x.axis));
  MAREA_TRY(marea_conv_window_open(c, x, &b->x));
  MAREA_TRY(marea_conv_rows_open(c, dy, b->x.units, &b->dy));
  b->tile = add_tile;
  b->finish = finish;
  b->sum = (marea_partial_sums){.rows = g->kernel[0] * g->kernel[1] * (g->cin / g->groups),
                                .width = g->cout,
                                .size = sizeof(float),
                                .overwritten = true};
  choose_parts(g, b->x.tiles, &b->sum);
  MAREA_TRY(open_operands(c, p));
  if (p->images > 1) b->run = run_images;
  return marea_partial_sums_open(c, &b->sum);
}
