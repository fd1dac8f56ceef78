/* SPDX-License-Identifier: MIT
** conv_gather.c: forward and input gradient of convolutions, over tiles of images. The arithmetic is in the kernel
** `gather`.
**
** Nothing is unrolled into a matrix (im2col). Outputs are cut into strips that read the same taps inside the image, and
** images are read where they lie; where strips would be short, tiles of the source are copied with their padding.
*/
#include <string.h>

#include "conv_pass.h"

#define BLOCK_WORK 5e5       /* multiplications worth a block */
#define CACHED_BYTES 8388608 /* of a result that its reader may still find in the third cache */
#define NEAR_BYTES 1048576   /* and in the second */
#define LEAST_STRIP 10       /* outputs of a phase's longest strip, which fill a tile */
#define MOST_CELLS 1024      /* that are described once a pass, and not whenever one is filled */
#define BAND_BYTES 16384     /* of the source, which stay in the first cache */
#define THIN_OUTPUTS 16      /* channels that fill a vector */
#define FEW_STEPS 32         /* (tap, channel) of an output, which take no longer than to write it */

/* ---- taps ---- */

static void add_phase_taps (const marea_conv_window *w, int64_t kernel_cols, const marea_conv_phase *y,
                            const marea_conv_phase *x, marea_conv_taps *t) {
  for (int64_t i = 0; i < y->taps; i++) {
    for (int64_t j = 0; j < x->taps; j++) {
      t->offset[t->n] = y->offset[i] * w->row + x->offset[j] * w->channels;
      t->origin[t->n++] = y->kernel[i] * kernel_cols + x->kernel[j];
    }
  }
}

marea_status marea_conv_list_taps (marea_call *c, const marea_conv *g, const marea_conv_window *w,
                                   marea_conv_taps *t) {
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, g->kernel, 2 * sizeof(int64_t), &bytes));
  MAREA_TABLE(c, t->offset, bytes);
  t->origin = t->offset + g->kernel[0] * g->kernel[1];
  t->n = 0;
  for (int64_t p = 0; p < w->axis[0].phases; p++)
    for (int64_t q = 0; q < w->axis[1].phases; q++)
      add_phase_taps(w, g->kernel[1], &w->axis[0].phase[p], &w->axis[1].phase[q], t);
  return MAREA_OK;
}

/* ---- weights, so that the channels that are written together are adjacent ---- */

typedef struct packing {
  const marea_conv *g;
  const marea_conv_gather *p;
  const char *weight;
  char *packed;
  int64_t panel;
  bool backward;
} packing;

/* One tap of a group, every panel of it: (panel, tap, channel read, channel written) from (tap, cin, cout). */
static void pack_tap (void *arg, int64_t block, int worker) {
  const packing *k = arg;
  const marea_conv_gather *p = k->p;
  const size_t size = p->w.size;
  const int64_t cin = k->g->cin / k->g->groups, cout = k->g->cout / k->g->groups, total = k->g->cout;
  const int64_t group = block / p->taps.n, tap = block % p->taps.n;
  const char *from = k->weight + (size_t)(p->taps.origin[tap] * cin * total + group * cout) * size;
  const int64_t read = k->backward ? 1 : total, written = k->backward ? total : 1;
  (void)worker;
  for (int64_t first = 0; first < p->cout; first += k->panel) {
    const int64_t width = MAREA_MIN(k->panel, p->cout - first);
    char *to = k->packed + (size_t)(group * p->w_group + (first * p->taps.n + tap * width) * p->cin) * size;
    for (int64_t r = 0; r < p->cin; r++) {
      for (int64_t w = 0; w < width; w++) {
        const int64_t i = r * read + (first + w) * written, j = r * width + w;
        if (size == 4) ((uint32_t *)to)[j] = ((const uint32_t *)from)[i];
        else ((uint64_t *)to)[j] = ((const uint64_t *)from)[i];
      }
    }
  }
}

marea_status marea_conv_pack (marea_call *c, const marea_conv *g, bool backward, int64_t panel,
                              marea_conv_gather *p) {
  packing k = {.g = g, .p = p, .weight = p->weight, .panel = panel, .backward = backward};
  const int64_t size[] = {p->groups, p->taps.n, p->cin, p->cout};
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 4, size, p->w.size, &bytes));
  MAREA_SCRATCH(c, k.packed, MAREA_MAX(bytes, 1));
  p->w_ci = p->cout;
  p->w_tap = p->cin * p->w_ci;
  p->w_group = p->taps.n * p->w_tap;
  p->weight = k.packed;
  if (bytes > 0) marea_parallel(c->ctx, p->groups * p->taps.n, pack_tap, &k);
  return MAREA_OK;
}

/* ---- strips: outputs that read the same taps ---- */

static marea_conv_strip next_strip (const marea_conv_axis *a, const marea_conv_phase *phase, int64_t first) {
  const marea_range taps = marea_conv_taps_inside(a, phase, first);
  marea_conv_strip r = {phase, first, 1, taps};
  for (; first + r.count < phase->count; r.count++) {
    const marea_range next = marea_conv_taps_inside(a, phase, first + r.count);
    if (next.first != taps.first || next.end != taps.end) break;
  }
  return r;
}

/* Are nearly all outputs in strips that fill tiles? */
static bool has_long_strips (const marea_conv_axis *a) {
  for (int64_t p = 0; p < a->phases; p++) {
    int64_t longest = 0;
    for (int64_t i = 0; i < a->phase[p].count;) {
      const int64_t count = next_strip(a, &a->phase[p], i).count;
      longest = MAREA_MAX(longest, count);
      i += count;
    }
    if (longest < LEAST_STRIP || 4 * longest < 3 * a->phase[p].count) return false;
  }
  return true;
}

/* The strips of a dimension, to `strip` unless that is NULL; how many. Where the window has its padding, a phase is
   one. */
static int64_t list_strips (const marea_conv_axis *a, bool padded, marea_conv_strip *strip) {
  int64_t n = 0;
  for (int64_t p = 0; p < a->phases; p++) {
    const marea_conv_phase *phase = &a->phase[p];
    for (int64_t i = 0; i < phase->count; n++) {
      const marea_conv_strip next = padded ? (marea_conv_strip){phase, 0, phase->count, {0, phase->taps}}
                                           : next_strip(a, phase, i);
      if (strip) strip[n] = next;
      i += next.count;
    }
  }
  return n;
}

static marea_status open_strips (marea_call *c, marea_conv_gather *p) {
  size_t bytes;
  for (int d = 0; d < 2; d++) {
    p->strips[d] = list_strips(&p->w.axis[d], !p->w.clipped, NULL);
    MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &p->strips[d], sizeof *p->strip[d], &bytes));
    MAREA_TABLE(c, p->strip[d], bytes);
    list_strips(&p->w.axis[d], !p->w.clipped, p->strip[d]);
  }
  return MAREA_OK;
}

/* ---- outputs that no tap reaches: act(bias) ---- */

static bool has_bare_outputs (const marea_conv_gather *p) {
  if (p->cin == 0) return true;
  for (int d = 0; d < 2; d++)
    for (int64_t i = 0; i < p->strips[d]; i++)
      if (p->strip[d][i].taps.first == p->strip[d][i].taps.end) return true;
  return false;
}

static marea_status make_pixel (marea_call *c, marea_conv_gather *p) {
  const size_t bytes = (size_t)(p->groups * p->cout) * p->w.size;
  char *pixel;
  p->pixel = NULL;
  if (c->ctx->dry || !has_bare_outputs(p)) return MAREA_OK;
  MAREA_SCRATCH(c, pixel, bytes);
  memset(pixel, 0, bytes);
  p->kernels->bias_act(1, (size_t)(p->groups * p->cout), p->bias, p->act, p->slope, pixel);
  p->pixel = pixel;
  return MAREA_OK;
}

/* ---- a tile ---- */

#define NARROW 8 /* fewer columns, and fewer than rows: the kernel goes down in place of across */

typedef struct cell { /* outputs of two strips in one tile */
  const marea_conv_strip *y, *x;
  const marea_direct_conv *form;
  int64_t unit, first, rows; /* rows of the phase to write: first in the phase and in the tile, how many */
  const char *tile;
  char *out; /* first pixel */
} cell;

static void fill_cell (const marea_conv_gather *p, const cell *k) {
  const size_t pixel = (size_t)(p->groups * p->cout) * p->w.size;
  const int64_t row = p->w.axis[0].out_step * p->w.axis[1].out, col = p->w.axis[1].out_step;
  for (int64_t i = 0; i < k->rows; i++)
    for (int64_t j = 0; j < k->x->count; j++)
      memcpy(k->out + (size_t)(i * row + j * col) * pixel, p->pixel, pixel);
}

/* Rows of taps that leave none out are one. */
static void join_rows (marea_direct_conv *g) {
  if (g->taps != g->tap_row) return;
  g->taps *= g->tap_rows;
  g->tap_rows = 1;
}

/* A cell for the kernel, but for its rows and addresses. */
static marea_direct_conv describe_cell (const marea_conv_gather *p, const marea_conv_strip *y,
                                        const marea_conv_strip *x) {
  const marea_conv_window *w = &p->w;
  const int64_t channels = p->groups * p->cout;
  const int64_t tap = marea_conv_first_tap(w->axis, y->phase, x->phase, y->taps.first, x->taps.first);
  marea_direct_conv g = {.w = p->weight + (size_t)(tap * p->w_tap) * w->size,
                         .cols = x->count,
                         .x_row = w->axis[0].src_step * w->row,
                         .x_col = w->axis[1].src_step * w->channels,
                         .y_row = w->axis[0].out_step * w->axis[1].out * channels,
                         .y_col = w->axis[1].out_step * channels,
                         .cin = p->cin,
                         .cout = p->cout,
                         .tap_rows = y->taps.end - y->taps.first,
                         .taps = x->taps.end - x->taps.first,
                         .tap_row = x->phase->taps,
                         .tap = p->taps.offset + tap,
                         .stream_output = p->stream_output,
                         .prefetch_output = p->prefetch_output,
                         .two_vectors = p->two_vectors,
                         .depthwise = p->depthwise,
                         .w_tap = p->w_tap,
                         .w_ci = p->w_ci,
                         .act = p->act,
                         .slope = p->slope};
  if (!p->thin) join_rows(&g);
  return g;
}

/* Taps of all strips of a dimension. */
static int64_t count_taps (const marea_conv_gather *p, int d) {
  int64_t n = 0;
  for (int64_t i = 0; i < p->strips[d]; i++) n += p->strip[d][i].taps.end - p->strip[d][i].taps.first;
  return n;
}

/* Adds what the kernel of few input channels needs. Strips are whole phases there, whether there is padding or not. */
static marea_status list_thin (marea_call *c, marea_conv_gather *p) {
  const int64_t taps[] = {count_taps(p, 0), count_taps(p, 1), p->cin}, rows = p->w.axis[0].out;
  marea_tap_run *run;
  marea_range *inside;
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, taps, sizeof *run, &bytes));
  MAREA_TABLE(c, run, MAREA_MAX(bytes, 1));
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &rows, sizeof *inside, &bytes));
  MAREA_TABLE(c, inside, bytes);
  for (int64_t i = 0; i < p->strips[0]; i++) {
    const marea_conv_strip *y = &p->strip[0][i];
    for (int64_t j = 0; j < p->strips[1]; j++) {
      marea_direct_conv *g = &p->cell[i * p->strips[1] + j];
      if (g->tap_rows * g->taps < 2) continue;
      marea_list_tap_runs(g, run);
      run += g->runs * g->tap_rows;
      g->rows_inside = inside;
    }
    for (int64_t unit = y->first; unit < y->first + y->count; unit++)
      *inside++ = marea_conv_taps_inside(&p->w.axis[0], y->phase, unit);
  }
  return MAREA_OK;
}

static marea_status open_cells (marea_call *c, marea_conv_gather *p) {
  const int64_t cells = p->strips[0] * p->strips[1], cols = p->strips[1];
  if (cells > MOST_CELLS) return MAREA_OK;
  p->thin = p->cin <= MAREA_FEW_CHANNELS && p->cout >= THIN_OUTPUTS && !p->depthwise;
  MAREA_TABLE(c, p->cell, (size_t)cells * sizeof *p->cell);
  for (int64_t i = 0; i < cells; i++)
    p->cell[i] = describe_cell(p, &p->strip[0][i / cols], &p->strip[1][i % cols]);
  return p->thin ? list_thin(c, p) : MAREA_OK;
}

static void turn (marea_direct_conv *g) {
  const marea_direct_conv as = *g;
  g->rows = as.cols, g->cols = as.rows;
  g->x_row = as.x_col, g->x_col = as.x_row;
  g->y_row = as.y_col, g->y_col = as.y_row;
  g->run = NULL;
}

static void gather_cell (const marea_conv_gather *p, const cell *k, marea_prefetch *ahead) {
  const marea_conv_window *w = &p->w;
  const marea_conv_phase *y = k->y->phase, *x = k->x->phase;
  marea_direct_conv g = k->form ? *k->form : describe_cell(p, k->y, k->x);
  if (g.cin == 0 || g.tap_rows == 0 || g.taps == 0) {
    fill_cell(p, k);
    return;
  }
  const int64_t top = y->start + k->first * w->axis[0].src_step - w->axis[0].low;
  const int64_t left = x->start + k->x->first * w->axis[1].src_step - w->axis[1].low;
  const size_t size = w->size;
  g.rows = k->rows;
  if (g.rows_inside) g.rows_inside += k->unit - k->y->first;
  if (g.cols < NARROW && g.cols < g.rows) turn(&g);
  g.x = k->tile + (top * w->row + left * w->channels) * (int64_t)size;
  g.y = k->out;
  g.bias = p->bias;
  g.prefetch = ahead;
  for (int64_t i = 0; i < p->groups; i++) {
    p->kernels->direct_conv(&g);
    g.x = (const char *)g.x + (size_t)p->cin * size;
    g.w = (const char *)g.w + (size_t)p->w_group * size;
    g.y = (char *)g.y + (size_t)p->cout * size;
    if (g.bias) g.bias = (const char *)g.bias + (size_t)p->cout * size;
  }
}

/* Rows first .. first + band - 1 of every phase, counted in the tile. */
static void gather_band (const marea_conv_gather *p, int64_t image, int64_t start, int64_t band,
                         const char *tile, int64_t first, marea_prefetch *ahead) {
  const marea_conv_axis *rows = &p->w.axis[0], *cols = &p->w.axis[1];
  const size_t pixel = (size_t)(p->groups * p->cout) * p->w.size;
  cell k = {.tile = tile};
  for (int64_t i = 0; i < p->strips[0]; i++) {
    k.y = &p->strip[0][i];
    const int64_t begin = MAREA_MAX(start + first, k.y->first),
                  end = MAREA_MIN(start + first + band, k.y->first + k.y->count);
    if (begin >= end) continue;
    k.unit = begin;
    k.first = begin - start;
    k.rows = end - begin;
    for (int64_t j = 0; j < p->strips[1]; j++) {
      k.x = &p->strip[1][j];
      k.form = p->cell ? &p->cell[i * p->strips[1] + j] : NULL;
      const int64_t row = image * rows->out + k.y->phase->first + begin * rows->out_step,
                    col = k.x->phase->first + k.x->first * cols->out_step;
      k.out = p->out + (size_t)(row * cols->out + col) * pixel;
      gather_cell(p, &k, ahead);
    }
  }
}

/* The products of one output channel take less time than reading the source again for each phase: so a few rows of all
   phases at a time. */
static bool in_bands (const marea_conv_gather *p) { return p->cout == 1 && p->w.axis[0].out_step > 1; }

static void gather_tile (const marea_conv_gather *p, int64_t image, int64_t tile, int worker,
                         marea_prefetch *ahead) {
  const int64_t units = marea_conv_window_units(&p->w, tile), row = p->w.row * (int64_t)p->w.size;
  const int64_t band = in_bands(p) ? MAREA_MAX(BAND_BYTES / MAREA_MAX(row, 1), 1) : units;
  const char *source = marea_conv_window_load(&p->w, image, tile, worker);
  for (int64_t first = 0; first < units; first += band)
    gather_band(p, image, tile * p->w.units, MAREA_MIN(band, units - first), source, first, ahead);
}

/* ---- the pass ---- */

/* Few products an element: then it is writing the results that takes time. Past the caches they go only where a core
   fills lines at once. */
static void expect_results (const marea_context *ctx, const marea_conv *g, marea_conv_gather *p) {
  const int64_t pixels = g->n * p->w.axis[0].out * p->w.axis[1].out;
  const int64_t bytes = pixels * p->groups * p->cout * (int64_t)p->w.size;
  if (g->kernel[0] * g->kernel[1] * p->cin > FEW_STEPS || bytes <= NEAR_BYTES) return;
  p->stream_output = ctx->wide && bytes > CACHED_BYTES;
  p->prefetch_output = !p->stream_output;
}

static marea_status open_by_taps (marea_call *c, const marea_conv *g, bool backward,
                                  const marea_conv_source *src, marea_conv_gather *p) {
  MAREA_TRY(marea_conv_axes(c, g, backward, p->w.axis));
  p->w.clipped = p->cin > MAREA_FEW_CHANNELS && !in_bands(p) && has_long_strips(&p->w.axis[0]) &&
                 has_long_strips(&p->w.axis[1]);
  MAREA_TRY(marea_conv_window_open(c, src, &p->w));
  MAREA_TRY(open_strips(c, p));
  p->tile = gather_tile;
  if (marea_conv_is_depthwise(g)) {
    p->depthwise = true; /* all groups at once, a channel each */
    p->cout = p->groups;
    p->groups = 1;
  }
  p->w_tap = g->cin / g->groups * g->cout;
  p->w_group = g->cout / g->groups;
  p->w_ci = g->cout;
  p->two_vectors = c->ctx->wide;
  expect_results(c->ctx, g, p);
  MAREA_TRY(marea_conv_list_taps(c, g, &p->w, &p->taps));
  if (backward) MAREA_TRY(marea_conv_pack(c, g, !p->depthwise, p->cout, p));
  MAREA_TRY(open_cells(c, p));
  return make_pixel(c, p);
}

marea_status marea_conv_gather_open (marea_call *c, const marea_conv *g, bool backward,
                                     const marea_conv_source *src, const marea_tensor *weight,
                                     const marea_tensor *bias, marea_activation act, double slope,
                                     marea_tensor *out, marea_conv_gather *p) {
  *p = (marea_conv_gather){.kernels = c->ctx->kernels[out->dtype],
                           .groups = g->groups,
                           .act = act,
                           .slope = slope,
                           .cin = (backward ? g->cout : g->cin) / g->groups,
                           .cout = (backward ? g->cin : g->cout) / g->groups,
                           .weight = marea_at(weight),
                           .bias = bias ? marea_at(bias) : NULL,
                           .out = marea_at(out)};
  if (marea_conv_gathers_at_points(c->ctx, g, out->dtype, backward, &p->points))
    return marea_conv_gather_at_points(c, g, backward, src, p);
  if (marea_conv_goes_across(g)) return marea_conv_gather_across(c, g, backward, src, p);
  return open_by_taps(c, g, backward, src, p);
}

typedef struct run {
  const marea_conv_gather *pass;
  int64_t tasks, tasks_per_block;
} run;

void marea_conv_gather_ahead (const marea_conv_gather *p, int64_t image, marea_prefetch *a) {
  const size_t bytes = (size_t)(p->w.axis[0].out * p->w.axis[1].out * p->groups * p->cout) * p->w.size;
  if (p->stream_output || p->prefetch_output) return; /* they need not be read, or most kernels ask */
  marea_prefetch_add(a, marea_prefetch_area_of(p->out + (size_t)image * bytes, bytes));
}

static void run_block (void *arg, int64_t block, int worker) {
  const run *r = arg;
  const marea_conv_gather *p = r->pass;
  const int64_t tiles = p->w.tiles, first = block * r->tasks_per_block;
  const int64_t end = MAREA_MIN(first + r->tasks_per_block, r->tasks);
  for (int64_t task = first; task < end; task++) {
    marea_prefetch ahead = {.n = 0};
    marea_conv_gather_ahead(p, task / tiles, &ahead);
    marea_conv_window_ahead(&p->w, task / tiles + 1, &ahead);
    p->tile(p, task / tiles, task % tiles, worker, tiles == 1 ? &ahead : NULL);
  }
}

void marea_conv_gather_run (marea_call *c, const marea_conv *g, const marea_conv_gather *p) {
  if (p->run) {
    p->run(c, p);
    return;
  }
  run r = {.pass = p, .tasks = g->n * p->w.tiles};
  const double work = (double)g->out[0] * (double)g->out[1] * (double)g->kernel[0] * (double)g->kernel[1] *
                      (double)p->cin * (double)p->cout * (double)p->groups / (double)p->w.tiles;
  const double enough = BLOCK_WORK / MAREA_MAX(work, 1);
  r.tasks_per_block = (int64_t)MAREA_MIN(enough, (double)(r.tasks / MAREA_CONV_PARTS));
  r.tasks_per_block = MAREA_MAX(r.tasks_per_block, 1);
  marea_parallel(c->ctx, (r.tasks - 1) / r.tasks_per_block + 1, run_block, &r);
}
