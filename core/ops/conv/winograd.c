/* SPDX-License-Identifier: MIT
** winograd.c: variants of Winograd's algorithms, where their tiles lie, memory and transforms.
*/
#include "winograd.h"

/* For the times below see choose.c. */

/* Both transformed sides of a band: half of a second-level cache of 1 MB. 64->64, 28x28, batch 32, weight gradient: 256 KB
   6.6, 512 KB 6.2, 2 MB 6.4. */
#define BAND_BYTES ((int64_t)1 << 19)
/* Winograd tiles of a band, at least: the weights are read for each band anew. The direct kernel takes 14 of them at a time. */
#define LEAST_TILES 28
/* Tiles of an image that are too few to read the weights for: fewer than the 14 pixels of the kernel's tile. 128->128, batch
   64, forward and weight gradient: 7x7, 4 tiles, 2.6 and 3.1 together against 5.7 and 3.2 in bands, 12x12, 9 tiles, 6.5 and
   7.7 against 9.0 and 7.5. */
#define FEW_TILES 12
/* The same of all images: bands share them among threads, and have fewer still. One image on a Xeon, 27x27, 49 tiles, 32->128:
   0.23 together, 0.28 in bands. */
#define FEW_TILES_IN_ALL 64
/* Transformed weights that stay in a second-level cache from band to band. 14x14, batch 16, 256->256, 9.4 MB: 11.7 together,
   20 in bands; 28x28, batch 4, 128->128, 2.4 MB: 2.6 and 3.3; 64->64, batch 32, 0.6 MB: 7.3 and 6.5. */
#define NEAR_WEIGHTS ((int64_t)1 << 20)
/* Both transformed sides of images that go together: they stay in a third-level cache from step to step. 128->256, 5x5, 7x7,
   stride 2, batch 64: 2 MB 9.5, 4 MB 6.3, 8 MB 5.3, 32 MB 5.1. */
#define IMAGES_BYTES ((int64_t)1 << 23)
/* Transformed weight gradients of all parts: half of a third-level cache of 32 MB. */
#define SUM_BYTES ((int64_t)1 << 24)
/* Parts of the images, each with a sum, for some threads to share. */
#define LEAST_PARTS 8

/* ---- which variant, and where its tiles lie ---- */

/* A dimension of 3 taps is one phase. */
static void set_whole (const marea_conv *g, int d, bool input_gradient, const marea_winograd_plan *p,
                       marea_winograd_axis *a) {
  const marea_winograd_sizes size = marea_winograd_size(p->variant);
  *a = (marea_winograd_axis){.phases = 1, .taps = {3}, .tap_step = 1, .low = -g->before[d]};
  if (!input_gradient) return;
  a->first[0] = 2;
  a->tap_step = -1;
  a->before = p->variant == MAREA_WINOGRAD_TRANSPOSED2 ? g->before[d] % size.outputs : 0;
  a->low = p->variant == MAREA_WINOGRAD_TRANSPOSED2 ? g->before[d] / size.outputs * size.step - 1
                                                    : g->before[d] - 2;
}

/* Forward, output o reads pixel 2 o + t - before by tap t: phase 0 has the pixels of taps 0, 2, 4, phase 1 those of
   1, 3, 5. In the input gradient, pixel i is made from output o by tap t = i + before - 2 o. A tile starts at a pixel
   whose taps have the kernel's parity: then all of its pixels are made from the same pixels of dy. */
static void set_phases (const marea_conv *g, int d, bool input_gradient, marea_winograd_axis *a) {
  const int64_t k = g->kernel[d];
  *a = (marea_winograd_axis){.phases = 2, .tap_step = input_gradient ? -2 : 2, .low = -g->before[d]};
  for (int f = 0; f < 2; f++) {
    const int64_t first = input_gradient ? (k + f) % 2 : f;
    a->taps[f] = (int)((k - first + 1) / 2);
    a->first[f] = input_gradient ? first + 2 * (a->taps[f] - 1) : first;
  }
  if (!input_gradient) return;
  a->before = (g->before[d] + k) % 2;
  a->low = (g->before[d] - k + 2 - a->before) / 2;
}

bool marea_winograd_fits (const marea_conv *g, int dtype, bool input_gradient, marea_winograd_plan *p) {
  if (dtype != MAREA_F32 || g->groups != 1 || g->dilation[0] != 1 || g->dilation[1] != 1) return false;
  bool whole[2], strided[2];
  for (int d = 0; d < 2; d++) {
    const int64_t k = g->kernel[d], s = g->stride[d];
    whole[d] = k == 3 && s <= 2;
    strided[d] = whole[d] && s == 2;
    if (!whole[d] && !(k >= 4 && k <= 6 && s == 2)) return false;
  }
  if (strided[0] != strided[1]) return false;
  *p = (marea_winograd_plan){.input_gradient = input_gradient, .phases = 1, .products = 1};
  p->variant = !strided[0]      ? MAREA_WINOGRAD_F43
               : input_gradient ? MAREA_WINOGRAD_TRANSPOSED2
                                : MAREA_WINOGRAD_STRIDE2;
  const marea_winograd_sizes size = marea_winograd_size(p->variant);
  p->side = size.points;
  p->points = p->side * p->side;
  int64_t tiles[2];
  for (int d = 0; d < 2; d++) {
    marea_winograd_axis *a = &p->axis[d];
    if (whole[d]) set_whole(g, d, input_gradient, p, a);
    else set_phases(g, d, input_gradient, a);
    p->phases *= a->phases;
    p->products *= marea_winograd_points(p->variant, a->taps[0]) +
                   (a->phases == 2 ? marea_winograd_points(p->variant, a->taps[1]) : 0);
    tiles[d] = marea_winograd_tiles(a->before + (input_gradient ? g->in[d] : g->out[d]),
                                    size.outputs * (input_gradient ? a->phases : 1));
  }
  p->tile_rows = tiles[0];
  p->tile_cols = tiles[1];
  return true;
}

/* ---- bands, or images together ---- */

/* Elements of a transformed tile: of the side with phases and of the other one. */
static int64_t tile_size (const marea_winograd_plan *p, int64_t data, int64_t others) {
  return p->points * (p->input_gradient ? data + p->phases * others : p->phases * data + others);
}

/* How many images go together: as equal shares of the batch as memory allows. */
static int64_t images_together (const marea_conv *g, const marea_winograd_plan *p, int64_t data,
                                int64_t others) {
  const int64_t most = IMAGES_BYTES /
                       (p->tile_rows * p->tile_cols * tile_size(p, data, others) * (int64_t)sizeof(float));
  if (most <= 1) return most;
  const int64_t parts = (g->n + most - 1) / most;
  return (g->n + parts - 1) / parts;
}

/* Are the tiles of a band too few for what is read of the weights? */
static bool fill_too_little (const marea_conv *g, const marea_winograd_plan *p) {
  const int64_t tiles = p->tile_rows * p->tile_cols,
                weights = p->products * g->cin * g->cout * (int64_t)sizeof(float);
  return tiles < FEW_TILES || g->n * tiles < FEW_TILES_IN_ALL || weights > NEAR_WEIGHTS;
}

void marea_winograd_share_images (const marea_conv *g, marea_winograd_plan *p) {
  if (!fill_too_little(g, p)) return;
  p->images = images_together(g, p, p->input_gradient ? g->cout : g->cin,
                              p->input_gradient ? g->cin : g->cout);
}

int64_t marea_winograd_sums (const marea_conv *g, const marea_winograd_plan *p) {
  const int64_t bytes = p->products * g->cin * g->cout * (int64_t)sizeof(float);
  return MAREA_MIN(MAREA_MIN(g->n, MAREA_CONV_PARTS), SUM_BYTES / bytes);
}

bool marea_winograd_share_sums (const marea_conv *g, marea_winograd_plan *p) {
  const bool bands = marea_winograd_sums(g, p) >= LEAST_PARTS;
  if (!bands || p->tile_rows * p->tile_cols < FEW_TILES) p->images = images_together(g, p, g->cin, g->cout);
  return bands || p->images > 0;
}

/* ---- phases and points ---- */

marea_winograd_grid marea_winograd_phase (const marea_winograd_plan *p, int phase) {
  const marea_winograd_axis *rows = &p->axis[0], *cols = &p->axis[1];
  const int y = phase / cols->phases, x = phase % cols->phases;
  return (marea_winograd_grid){{rows->taps[y], cols->taps[x]}, {y, x}, {rows->phases, cols->phases}};
}

marea_winograd_grid marea_winograd_whole (const marea_winograd_plan *p) {
  marea_winograd_grid l = {.step = {1, 1}};
  for (int d = 0; d < 2; d++) l.taps[d] = MAREA_MAX(p->axis[d].taps[0], p->axis[d].taps[1]);
  return l;
}

bool marea_winograd_has (const marea_winograd_plan *p, const marea_winograd_grid *l, int64_t point) {
  return point / p->side < marea_winograd_points(p->variant, l->taps[0]) &&
         point % p->side < marea_winograd_points(p->variant, l->taps[1]);
}

int marea_winograd_phases_at (const marea_winograd_plan *p, int64_t point, int phases[4]) {
  int n = 0;
  for (int f = 0; f < p->phases; f++) {
    const marea_winograd_grid l = marea_winograd_phase(p, f);
    if (marea_winograd_has(p, &l, point)) phases[n++] = f;
  }
  return n;
}

/* ---- memory ---- */

void marea_winograd_axes (const marea_conv *g, const marea_winograd_plan *p, marea_conv_axis axis[2]) {
  const bool input_gradient = p->input_gradient;
  const marea_winograd_sizes size = marea_winograd_size(p->variant);
  for (int d = 0; d < 2; d++) {
    const marea_winograd_axis *a = &p->axis[d];
    const int64_t read = input_gradient ? 1 : a->phases, written = input_gradient ? a->phases : 1;
    axis[d] = (marea_conv_axis){.src = input_gradient ? g->out[d] : g->in[d],
                                .out = input_gradient ? g->in[d] : g->out[d],
                                .src_step = size.step * read,
                                .out_step = size.outputs * written,
                                .most = d == 0 ? p->tile_rows : p->tile_cols,
                                .low = a->low,
                                .high = a->low + size.data * read - 1};
  }
}

marea_status marea_winograd_memory (marea_call *c, int64_t units, int64_t data, int64_t others,
                                    marea_winograd_plan *p) {
  const int64_t tile = tile_size(p, data, others) * (int64_t)sizeof(float);
  const int64_t wanted = MAREA_MAX(BAND_BYTES / tile, LEAST_TILES);
  const int64_t bands = (units * p->tile_cols + wanted - 1) / wanted;
  p->band = (units + bands - 1) / bands;
  p->most_tiles = p->images > 0 ? p->images * p->tile_rows * p->tile_cols : p->band * p->tile_cols;
  p->step[0] = p->most_tiles * data * (p->input_gradient ? 1 : p->phases) + MAREA_WINOGRAD_PAD;
  p->step[1] = p->most_tiles * others * (p->input_gradient ? p->phases : 1) + MAREA_WINOGRAD_PAD;
  const int64_t size[] = {p->points, p->step[0] + p->step[1]};
  p->other_side = p->points * p->step[0];
  if (p->images > 0) { /* a point's two sides are neighbours, so that both are prefetched at once */
    p->other_side = p->step[0];
    p->step[0] = p->step[1] = p->step[0] + p->step[1];
  }
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(float), &p->bytes));
  if (p->images == 0) return marea_worker_memory(c, &p->bytes, &p->memory);
  MAREA_WORKSPACE_OR_RETURN(c, p->memory, p->bytes);
  return MAREA_OK;
}

float *marea_winograd_side_of (const marea_winograd_plan *p, int side, int worker) {
  const size_t own = p->images > 0 ? 0 : (size_t)worker * p->bytes;
  return (float *)(p->memory + own) + (side == 0 ? 0 : p->other_side);
}

/* ---- transforms ---- */

static marea_winograd_row row_of_tiles (const marea_winograd_plan *p, const marea_winograd_grid *l, int side,
                                        int64_t channels) {
  return (marea_winograd_row){.variant = p->variant,
                              .present = {marea_winograd_points(p->variant, l->taps[0]),
                                          marea_winograd_points(p->variant, l->taps[1])},
                              .tiles = p->tile_cols,
                              .channels = channels,
                              .point_row = p->side * p->step[side],
                              .point = p->step[side]};
}

void marea_winograd_transform (const marea_winograd_plan *p, void (*transform)(const marea_winograd_row *),
                               bool panels, int64_t tile, const marea_winograd_row *row, float *transformed) {
  marea_winograd_row g = *row;
  if (!panels) {
    g.transformed = transformed + tile * row->channels;
    transform(&g);
    return;
  }
  for (int64_t panel = 0; panel < marea_conv_panels(row->channels); panel++) {
    g.channels = marea_conv_panel_width(row->channels, panel);
    g.image = (float *)row->image + panel * MAREA_CONV_PANEL;
    g.transformed = transformed + panel * MAREA_CONV_PANEL * p->most_tiles + tile * g.channels;
    transform(&g);
  }
}

void marea_winograd_transform_data (const marea_winograd_plan *p, const marea_kernels *k,
                                    const marea_conv_window *w, const char *x, int64_t first, int64_t n,
                                    bool panels, int64_t tile, float *transformed) {
  const int phases = p->input_gradient ? 1 : p->phases;
  for (int64_t i = 0; i < n; i++, tile += p->tile_cols) {
    const float *row = (const float *)x + (first + i) * w->axis[0].src_step * w->row;
    for (int f = 0; f < phases; f++) {
      const marea_winograd_grid l = p->input_gradient ? marea_winograd_whole(p) : marea_winograd_phase(p, f);
      marea_winograd_row g = row_of_tiles(p, &l, 0, w->channels);
      g.image = (float *)row + l.first[0] * w->row + l.first[1] * w->channels;
      g.row = l.step[0] * w->row;
      g.col = l.step[1] * w->channels;
      g.prefetch_output = p->images > 0;
      marea_winograd_transform(p, k->winograd_data, panels, tile, &g,
                               transformed + f * p->most_tiles * w->channels);
    }
  }
}

/* How many pixels start, start + step, .. lie before `at`. */
static int64_t pixels_before (int64_t at, int64_t start, int64_t step) {
  return at <= start ? 0 : (at - start + step - 1) / step;
}

marea_winograd_row marea_winograd_row_in_image (const marea_winograd_plan *p, const marea_winograd_grid *l,
                                                const float *image, int64_t row, int64_t rows, int64_t cols,
                                                int64_t channels, int64_t step) {
  marea_winograd_row g = row_of_tiles(p, l, 1, channels);
  const int64_t outputs = marea_winograd_size(p->variant).outputs * l->step[0];
  const int64_t y = row * outputs - p->axis[0].before + l->first[0], x = l->first[1] - p->axis[1].before;
  g.image = (float *)image + (y * cols + x) * step;
  g.row = l->step[0] * cols * step;
  g.col = l->step[1] * step;
  g.top = pixels_before(0, y, l->step[0]);
  g.left = pixels_before(0, x, l->step[1]);
  g.rows = pixels_before(rows, y, l->step[0]) - g.top;
  g.cols = pixels_before(cols, x, l->step[1]) - g.left;
  return g;
}
