/* SPDX-License-Identifier: MIT
** conv_points.c: which schemes there are for a convolution at points, where their tiles lie, memory and transforms.
*/
#include "conv_points.h"

/* What makes a scheme worth while. Fewer channels, and the transforms of data cost more than the products save; fewer
   tiles of all images, and those of the weights do. `saves`: multiplications of the direct sum for one here. */
typedef struct worth {
  int64_t channels, tiles;
  double saves;
} worth;
static const worth plain_worth = {16, 16, 2}, strided_worth = {32, 64, 1.25}, phases_worth = {32, 32, 1.6};

#define BAND_BYTES ((int64_t)1 << 19)   /* points of a band, both sides */
#define LEAST_TILES 28                  /* of a band, which the weights are read for */
#define FEW_TILES 12                    /* of an image, which are not worth reading the weights for */
#define IMAGES_BYTES ((int64_t)1 << 23) /* points of images that go together, both sides */
#define SUM_BYTES ((int64_t)1 << 24)    /* weight gradients at points, all parts */
#define LEAST_PARTS 8

/* ---- which scheme, and where its tiles lie ---- */

/* A dimension of 3 taps is one phase. */
static void set_whole (const marea_conv *g, int d, bool backward, const marea_conv_points *p,
                       marea_conv_points_axis *a) {
  const marea_winograd_sizes size = marea_winograd_size(p->variant);
  *a = (marea_conv_points_axis){.phases = 1, .taps = {3}, .tap_step = 1, .low = -g->before[d]};
  if (!backward) return;
  a->first[0] = 2;
  a->tap_step = -1;
  a->before = p->variant == MAREA_WINOGRAD_TRANSPOSED2 ? g->before[d] % size.outputs : 0;
  a->low = p->variant == MAREA_WINOGRAD_TRANSPOSED2 ? g->before[d] / size.outputs * size.step - 1
                                                    : g->before[d] - 2;
}

/* Forward, output o meets pixels 2 o + t - before: those of an even distance meet taps 0, 2, 4, the others 1, 3, 5.
   Backward, pixel i meets taps t = i + before - 2 o; a tile starts at a pixel where t is of the kernel's parity, and then
   all its pixels meet the same stretch of dy. */
static void set_phases (const marea_conv *g, int d, bool backward, marea_conv_points_axis *a) {
  const int64_t k = g->kernel[d];
  *a = (marea_conv_points_axis){.phases = 2, .tap_step = backward ? -2 : 2, .low = -g->before[d]};
  for (int f = 0; f < 2; f++) {
    const int64_t first = backward ? (k + f) % 2 : f;
    a->taps[f] = (int)((k - first + 1) / 2);
    a->first[f] = backward ? first + 2 * (a->taps[f] - 1) : first;
  }
  if (!backward) return;
  a->before = (g->before[d] + k) % 2;
  a->low = (g->before[d] - k + 2 - a->before) / 2;
}

/* Can it be done? Sets all that does not depend on memory. */
static bool set_scheme (const marea_conv *g, int dtype, bool backward, marea_conv_points *p) {
  if (dtype != MAREA_F32 || g->groups != 1 || g->dilation[0] != 1 || g->dilation[1] != 1) return false;
  bool whole[2], strided[2];
  for (int d = 0; d < 2; d++) {
    const int64_t k = g->kernel[d], s = g->stride[d];
    whole[d] = k == 3 && s <= 2;
    strided[d] = whole[d] && s == 2;
    if (!whole[d] && !(k >= 4 && k <= 6 && s == 2)) return false;
  }
  if (strided[0] != strided[1]) return false;
  *p = (marea_conv_points){.spread = backward, .phases = 1, .products = 1};
  p->variant = !strided[0] ? MAREA_WINOGRAD_F43
               : backward  ? MAREA_WINOGRAD_TRANSPOSED2
                           : MAREA_WINOGRAD_STRIDE2;
  const marea_winograd_sizes size = marea_winograd_size(p->variant);
  p->side = size.points;
  p->count = p->side * p->side;
  int64_t tiles[2];
  for (int d = 0; d < 2; d++) {
    marea_conv_points_axis *a = &p->axis[d];
    if (whole[d]) set_whole(g, d, backward, p, a);
    else set_phases(g, d, backward, a);
    p->phases *= a->phases;
    p->products *= marea_winograd_points(p->variant, a->taps[0]) +
                   (a->phases == 2 ? marea_winograd_points(p->variant, a->taps[1]) : 0);
    tiles[d] = marea_points_tiles(a->before + (backward ? g->in[d] : g->out[d]),
                                  size.outputs * (backward ? a->phases : 1));
  }
  p->down = tiles[0];
  p->across = tiles[1];
  return true;
}

/* Products of the direct way for an image and a pair of channels. */
static double direct_products (const marea_conv *g, bool padding_counts) {
  double products = 1;
  for (int d = 0; d < 2; d++) {
    int64_t meetings = 0;
    for (int64_t t = 0; t < g->kernel[d]; t++) {
      const marea_range inside = marea_conv_outputs_inside(g, d, t);
      meetings += padding_counts ? g->out[d] : inside.end - inside.first;
    }
    products *= (double)meetings;
  }
  return products;
}

/* Of 3x3 and stride 2 the products at points save little: where a core does products at full rate, reading and writing
   the points takes longer than that. */
static bool pays (const marea_context *ctx, const marea_conv *g, const marea_conv_points *p,
                  bool padding_counts) {
  if (ctx->wide && p->phases == 1 && g->stride[0] > 1) return false;
  const worth *w = p->phases > 1 ? &phases_worth : g->stride[0] == 2 ? &strided_worth : &plain_worth;
  const int64_t tiles = p->down * p->across;
  return MAREA_MIN(g->cin, g->cout) >= w->channels && g->n * tiles >= w->tiles &&
         direct_products(g, padding_counts) >= w->saves * (double)(tiles * p->products);
}

/* Elements of a tile at all points: of the side with phases and of the other one. */
static int64_t tile_size (const marea_conv_points *p, int64_t data, int64_t others) {
  return p->count * (p->spread ? data + p->phases * others : p->phases * data + others);
}

/* How many images go together. */
static int64_t images_together (const marea_conv *g, const marea_conv_points *p, int64_t data,
                                int64_t others) {
  const int64_t most = IMAGES_BYTES /
                       (p->down * p->across * tile_size(p, data, others) * (int64_t)sizeof(float));
  if (most <= 1) return most;
  const int64_t parts = (g->n + most - 1) / most;
  return (g->n + parts - 1) / parts;
}

bool marea_conv_gathers_at_points (const marea_context *ctx, const marea_conv *g, int dtype, bool backward,
                                   marea_conv_points *p) {
  if (g->direct || !set_scheme(g, dtype, backward, p) || !pays(ctx, g, p, !marea_conv_goes_across(g)))
    return false;
  if (p->down * p->across < FEW_TILES)
    p->images = images_together(g, p, backward ? g->cout : g->cin, backward ? g->cin : g->cout);
  return true;
}

int64_t marea_points_sums (const marea_conv *g, const marea_conv_points *p) {
  const int64_t bytes = p->products * g->cin * g->cout * (int64_t)sizeof(float);
  return MAREA_MIN(MAREA_MIN(g->n, MAREA_CONV_PARTS), SUM_BYTES / bytes);
}

bool marea_conv_correlates_at_points (const marea_context *ctx, const marea_conv *g, int dtype,
                                      marea_conv_points *p) {
  if (g->direct || !set_scheme(g, dtype, false, p) || !pays(ctx, g, p, false)) return false;
  const bool bands = marea_points_sums(g, p) >= LEAST_PARTS;
  if (!bands || p->down * p->across < FEW_TILES) p->images = images_together(g, p, g->cin, g->cout);
  return bands || p->images > 0;
}

/* ---- phases and points ---- */

marea_lattice marea_points_phase (const marea_conv_points *p, int phase) {
  const marea_conv_points_axis *rows = &p->axis[0], *cols = &p->axis[1];
  const int y = phase / cols->phases, x = phase % cols->phases;
  return (marea_lattice){{rows->taps[y], cols->taps[x]}, {y, x}, {rows->phases, cols->phases}};
}

marea_lattice marea_points_whole (const marea_conv_points *p) {
  marea_lattice l = {.step = {1, 1}};
  for (int d = 0; d < 2; d++) l.taps[d] = MAREA_MAX(p->axis[d].taps[0], p->axis[d].taps[1]);
  return l;
}

bool marea_points_has (const marea_conv_points *p, const marea_lattice *l, int64_t point) {
  return point / p->side < marea_winograd_points(p->variant, l->taps[0]) &&
         point % p->side < marea_winograd_points(p->variant, l->taps[1]);
}

int marea_points_phases_at (const marea_conv_points *p, int64_t point, int phases[4]) {
  int n = 0;
  for (int f = 0; f < p->phases; f++) {
    const marea_lattice l = marea_points_phase(p, f);
    if (marea_points_has(p, &l, point)) phases[n++] = f;
  }
  return n;
}

/* ---- memory and transforms ---- */

void marea_points_axes (const marea_conv *g, bool backward, const marea_conv_points *p,
                        marea_conv_axis axis[2]) {
  const marea_winograd_sizes size = marea_winograd_size(p->variant);
  for (int d = 0; d < 2; d++) {
    const marea_conv_points_axis *a = &p->axis[d];
    const int64_t read = backward ? 1 : a->phases, written = backward ? a->phases : 1;
    axis[d] = (marea_conv_axis){.src = backward ? g->out[d] : g->in[d],
                                .out = backward ? g->in[d] : g->out[d],
                                .src_step = size.step * read,
                                .out_step = size.outputs * written,
                                .most = d == 0 ? p->down : p->across,
                                .low = a->low,
                                .high = a->low + size.data * read - 1};
  }
}

marea_status marea_points_open (marea_call *c, int64_t units, int64_t data, int64_t others,
                                marea_conv_points *p) {
  const int64_t tile = tile_size(p, data, others) * (int64_t)sizeof(float);
  const int64_t wanted = MAREA_MAX(BAND_BYTES / tile, LEAST_TILES);
  const int64_t bands = (units * p->across + wanted - 1) / wanted;
  p->band = (units + bands - 1) / bands;
  p->tiles = p->images > 0 ? p->images * p->down * p->across : p->band * p->across;
  p->step[0] = p->tiles * data * (p->spread ? 1 : p->phases) + MAREA_POINTS_PAD;
  p->step[1] = p->tiles * others * (p->spread ? p->phases : 1) + MAREA_POINTS_PAD;
  const int64_t size[] = {p->count, p->step[0] + p->step[1]};
  p->other = p->count * p->step[0];
  if (p->images > 0) { /* next to each other, so that both can be asked for at once */
    p->other = p->step[0];
    p->step[0] = p->step[1] = p->step[0] + p->step[1];
  }
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(float), &p->bytes));
  if (p->images == 0) return marea_worker_memory(c, &p->bytes, &p->memory);
  MAREA_SCRATCH(c, p->memory, p->bytes);
  return MAREA_OK;
}

float *marea_points_of (const marea_conv_points *p, int side, int worker) {
  const size_t own = p->images > 0 ? 0 : (size_t)worker * p->bytes;
  return (float *)(p->memory + own) + (side == 0 ? 0 : p->other);
}

static marea_winograd_row row_of_tiles (const marea_conv_points *p, const marea_lattice *l, int side,
                                        int64_t channels) {
  return (marea_winograd_row){.variant = p->variant,
                              .present = {marea_winograd_points(p->variant, l->taps[0]),
                                          marea_winograd_points(p->variant, l->taps[1])},
                              .tiles = p->across,
                              .channels = channels,
                              .point_row = p->side * p->step[side],
                              .point = p->step[side]};
}

void marea_points_transform (const marea_conv_points *p, void (*transform)(const marea_winograd_row *),
                             bool panels, int64_t tile, const marea_winograd_row *row, float *points) {
  marea_winograd_row g = *row;
  if (!panels) {
    g.transformed = points + tile * row->channels;
    transform(&g);
    return;
  }
  for (int64_t panel = 0; panel < marea_conv_panels(row->channels); panel++) {
    g.channels = marea_conv_panel_width(row->channels, panel);
    g.image = (float *)row->image + panel * MAREA_CONV_PANEL;
    g.transformed = points + panel * MAREA_CONV_PANEL * p->tiles + tile * g.channels;
    transform(&g);
  }
}

void marea_points_transform_data (const marea_conv_points *p, const marea_kernels *k,
                                  const marea_conv_window *w, const char *x, int64_t first, int64_t n,
                                  bool panels, int64_t tile, float *points) {
  const int phases = p->spread ? 1 : p->phases;
  for (int64_t i = 0; i < n; i++, tile += p->across) {
    const float *row = (const float *)x + (first + i) * w->axis[0].src_step * w->row;
    for (int f = 0; f < phases; f++) {
      const marea_lattice l = p->spread ? marea_points_whole(p) : marea_points_phase(p, f);
      marea_winograd_row g = row_of_tiles(p, &l, 0, w->channels);
      g.image = (float *)row + l.first[0] * w->row + l.first[1] * w->channels;
      g.row = l.step[0] * w->row;
      g.col = l.step[1] * w->channels;
      g.prefetch_output = p->images > 0;
      marea_points_transform(p, k->winograd_data, panels, tile, &g, points + f * p->tiles * w->channels);
    }
  }
}

/* Pixels of the lattice before `at`, which a tile starts `start` pixels away from. */
static int64_t pixels_before (int64_t at, int64_t start, int64_t step) {
  return at <= start ? 0 : (at - start + step - 1) / step;
}

marea_winograd_row marea_points_tiles_in_image (const marea_conv_points *p, const marea_lattice *l,
                                                const float *image, int64_t row, int64_t rows, int64_t cols,
                                                int64_t channels) {
  marea_winograd_row g = row_of_tiles(p, l, 1, channels);
  const int64_t outputs = marea_winograd_size(p->variant).outputs * l->step[0];
  const int64_t y = row * outputs - p->axis[0].before + l->first[0], x = l->first[1] - p->axis[1].before;
  g.image = (float *)image + (y * cols + x) * channels;
  g.row = l->step[0] * cols * channels;
  g.col = l->step[1] * channels;
  g.top = pixels_before(0, y, l->step[0]);
  g.left = pixels_before(0, x, l->step[1]);
  g.rows = pixels_before(rows, y, l->step[0]) - g.top;
  g.cols = pixels_before(cols, x, l->step[1]) - g.left;
  return g;
}
