/* SPDX-License-Identifier: MIT
** direct_images.c: the image pass by direct convolution. The arithmetic is in the kernel `direct_conv`.
**
** Nothing is unrolled into a matrix (im2col). Outputs are cut into strips that read the same taps inside the image, and
** images are read where they lie; where strips would be short, tiles of the source are copied with their padding. A strip
** of rows and one of columns make a cell, which is one call of the kernel.
*/
#include <string.h>

#include "direct_images.h"

/* For the times below see choose.c. */

/* Results larger than CACHED_BYTES are written past the caches, where a core gains by it (marea_cpu_streams): the layer that
   follows finds little of them in a third-level cache. 1->32 on a Zen 5 does (docs/performance.md, "Memory"); a Xeon does not,
   28x28, batch 128: 0.59 against 0.49. Results up to NEAR_BYTES, a second-level cache, are written as usual. */
#define CACHED_BYTES 8388608
#define NEAR_BYTES 1048576
/* Outputs of a phase's longest strip, for strips to be used: the kernel's tiles have up to 14 pixels, and 10 fill most of
   one. 32->32, batch 20: 10x10 0.18 in strips against 0.20 with copied padding, 28x28 1.44 against 1.52. */
#define LEAST_STRIP 10
/* Of source rows that are read for all phases in turn: half of a first-level cache. */
#define BAND_BYTES 16384
/* (tap, channel) pairs of an output, up to which writing the results takes as long as computing them: the kernel does 2
   multiply-adds of a vector a cycle, so a vector of results takes 16 cycles, and its 64 bytes at 16 GB/s as many. */
#define FEW_STEPS 32
/* Columns of a cell that is computed column by column, if it has more rows: beside an edge there are one or two. 32->32,
   batch 20, 28x28: 1.44 against 1.63 row by row. */
#define NARROW 8
/* Channels that are read, of a piece of the weights. 512->512, 3x3, 7x7, one image: 64 rows 1.80, 128 1.67, 256 1.78. */
#define PIECE_ROWS 128
/* Images of a block that packs a panel: some ms between two checks for interrupts. */
#define MOST_IMAGES 64
/* What a block of kept panels reads: half of a second-level cache. */
#define SOURCE_BYTES 524288
/* Blocks for each thread, and rows of outputs of a block, at least, where packed panels are kept. */
#define BLOCKS_OF_THREAD 4
#define LEAST_BAND 3

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

/* Are nearly all outputs in strips that fill the kernel's tiles? */
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

/* Lists the strips of a dimension in strip[], unless it is NULL; returns how many. Where the window has its padding, a
   phase is one strip. */
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

static marea_status open_strips (marea_call *c, marea_direct_images *p) {
  const marea_conv_window *w = &p->base.x;
  size_t bytes;
  for (int d = 0; d < 2; d++) {
    const bool padded = !w->clipped && !(d == 0 && p->packs); /* its rows have strips, too: fewer products */
    p->strips[d] = list_strips(&w->axis[d], padded, NULL);
    MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &p->strips[d], sizeof *p->strip[d], &bytes));
    MAREA_TABLE_OR_RETURN(c, p->strip[d], bytes);
    list_strips(&w->axis[d], padded, p->strip[d]);
  }
  return MAREA_OK;
}

/* ---- outputs that no tap reaches: act(bias) ---- */

static bool has_bare_outputs (const marea_direct_images *p) {
  if (p->base.cin == 0) return true;
  for (int d = 0; d < 2; d++)
    for (int64_t i = 0; i < p->strips[d]; i++)
      if (p->strip[d][i].taps.first == p->strip[d][i].taps.end) return true;
  return false;
}

static marea_status make_pixel (marea_call *c, marea_direct_images *p) {
  const size_t channels = (size_t)(p->base.groups * p->base.cout), bytes = channels * p->base.x.size;
  char *pixel;
  p->pixel = NULL;
  if (c->ctx->shape_only || !has_bare_outputs(p)) return MAREA_OK;
  MAREA_WORKSPACE_OR_RETURN(c, pixel, bytes);
  memset(pixel, 0, bytes);
  p->base.kernels->bias_act(1, channels, p->base.bias, p->base.act, p->base.slope, pixel);
  p->pixel = pixel;
  return MAREA_OK;
}

/* ---- cells ---- */

/* If no tap of a row is left out, all rows of taps are one. */
static void join_rows (marea_direct_conv *g) {
  if (g->taps != g->tap_row) return;
  g->taps *= g->tap_rows;
  g->tap_rows = 1;
}

/* The kernel's arguments for a cell, but for rows and addresses. */
static marea_direct_conv describe_cell (const marea_direct_images *p, const marea_conv_strip *y,
                                        const marea_conv_strip *x, bool few) {
  const marea_image_pass *b = &p->base;
  const marea_conv_window *w = &b->x;
  const int64_t tap = marea_conv_first_tap(w->axis, y->phase, x->phase, y->taps.first, x->taps.first);
  marea_direct_conv g = {.w = p->weight.at + (size_t)(tap * p->weight.tap) * w->size,
                         .cols = x->count,
                         .x_row = w->axis[0].src_step * w->row,
                         .x_col = w->axis[1].src_step * w->channels,
                         .y_row = w->axis[0].out_step * w->axis[1].out * b->out_step,
                         .y_col = w->axis[1].out_step * b->out_step,
                         .cin = b->cin,
                         .cout = b->cout,
                         .tap_rows = y->taps.end - y->taps.first,
                         .taps = x->taps.end - x->taps.first,
                         .tap_row = x->phase->taps,
                         .tap = p->taps.offset + tap,
                         .stream_output = p->stream_output,
                         .prefetch_output = p->prefetch_output,
                         .two_vectors = p->two_vectors,
                         .depthwise = p->depthwise,
                         .w_tap = p->weight.tap,
                         .w_ci = p->weight.channel,
                         .act = b->act,
                         .slope = b->slope};
  if (!few && !p->depthwise) join_rows(&g);
  return g;
}

/* Taps of all strips of a dimension. */
static int64_t count_taps (const marea_direct_images *p, int d) {
  int64_t n = 0;
  for (int64_t i = 0; i < p->strips[d]; i++) n += p->strip[d][i].taps.end - p->strip[d][i].taps.first;
  return n;
}

/* Adds what the kernel of few input channels needs. A phase is one strip there, with or without padding. */
static marea_status list_tap_runs (marea_call *c, marea_direct_images *p) {
  const marea_conv_axis *axis = p->base.x.axis;
  const int64_t taps[] = {count_taps(p, 0), count_taps(p, 1), p->base.cin}, rows = axis[0].out;
  marea_tap_run *run;
  marea_range *inside;
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, taps, sizeof *run, &bytes));
  MAREA_TABLE_OR_RETURN(c, run, MAREA_MAX(bytes, 1));
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &rows, sizeof *inside, &bytes));
  MAREA_TABLE_OR_RETURN(c, inside, bytes);
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
      *inside++ = marea_conv_taps_inside(&axis[0], y->phase, unit);
  }
  return MAREA_OK;
}

static marea_status open_cells (marea_call *c, bool few, marea_direct_images *p) {
  const int64_t cells = p->strips[0] * p->strips[1], cols = p->strips[1];
  if (cells > MAREA_DIRECT_MOST_CELLS) return MAREA_OK;
  MAREA_TABLE_OR_RETURN(c, p->cell, (size_t)cells * sizeof *p->cell);
  for (int64_t i = 0; i < cells; i++)
    p->cell[i] = describe_cell(p, &p->strip[0][i / cols], &p->strip[1][i % cols], few);
  return few ? list_tap_runs(c, p) : MAREA_OK;
}

/* ---- a tile ---- */

/* A piece of the weights: one tap, and some of the channels that are read. */
typedef struct piece {
  int64_t tap[2];
  marea_range inputs;
} piece;

/* What is computed at a time: all channels of a group, or a panel of them, by packed weights or by a piece of those that
   lie in the tensor. */
typedef struct slice {
  int64_t channel, channels;
  const char *weights; /* of all taps, packed; NULL: not */
  const piece *piece;  /* NULL: everything */
} slice;

typedef struct cell { /* outputs of two strips in one tile */
  const slice *slice;
  const marea_conv_strip *y, *x;
  const marea_direct_conv *form;
  int64_t unit, first,
      rows; /* rows of the phase to write: the first one in the phase and in the tile; how many */
  const char *tile;
  char *out; /* first pixel */
} cell;

static void fill_cell (const marea_direct_images *p, const cell *k) {
  const marea_conv_axis *axis = p->base.x.axis;
  const size_t pixel = (size_t)(p->base.groups * p->base.cout) * p->base.x.size,
               step = (size_t)p->base.out_step * p->base.x.size;
  const int64_t row = axis[0].out_step * axis[1].out, col = axis[1].out_step;
  for (int64_t i = 0; i < k->rows; i++)
    for (int64_t j = 0; j < k->x->count; j++)
      memcpy(k->out + (size_t)(i * row + j * col) * step, p->pixel, pixel);
}

static void transpose_cell (marea_direct_conv *g) {
  const marea_direct_conv as = *g;
  g->rows = as.cols, g->cols = as.rows;
  g->x_row = as.x_col, g->x_col = as.x_row;
  g->y_row = as.y_col, g->y_col = as.y_row;
  g->run = NULL;
}

/* Leaves a cell only what a piece of the weights adds to it: in rows whose tap lies inside the image. False: nothing. */
static bool take_piece (const marea_direct_images *p, cell *k, marea_direct_conv *g) {
  const piece *only = k->slice->piece;
  const int64_t row = only->tap[0], col = only->tap[1], size = (int64_t)p->base.x.size;
  const marea_conv_axis *axis = &p->base.x.axis[0];
  const marea_conv_phase *y = k->y->phase;
  if (col < k->x->taps.first || col >= k->x->taps.end) return false;
  for (int64_t at; k->rows > 0; k->rows--, k->unit++, k->first++, k->out += (size_t)(g->y_row * size)) {
    at = y->start + k->unit * axis->src_step + y->offset[row];
    if (at >= 0) break;
  }
  while (k->rows > 0 && y->start + (k->unit + k->rows - 1) * axis->src_step + y->offset[row] >= axis->src)
    k->rows--;
  const int64_t tap = row * k->x->phase->taps + col;
  g->tap = p->taps.offset + tap;
  g->w = p->weight.at + (tap * g->w_tap + only->inputs.first * g->w_ci + k->slice->channel) * size;
  g->tap_rows = g->taps = 1;
  g->cin = only->inputs.end - only->inputs.first;
  g->accumulate = true;
  g->act = MAREA_ACT_NONE;
  return k->rows > 0;
}

static void compute_cell (const marea_direct_images *p, cell *k, marea_prefetch *prefetch) {
  const marea_image_pass *b = &p->base;
  const marea_conv_window *w = &b->x;
  const marea_conv_phase *y = k->y->phase, *x = k->x->phase;
  marea_direct_conv g = k->form ? *k->form : describe_cell(p, k->y, k->x, false);
  if (g.cin == 0 || g.tap_rows == 0 || g.taps == 0) {
    if (k->slice->channel == 0 && !k->slice->piece) fill_cell(p, k);
    return;
  }
  const slice *s = k->slice;
  if (s->weights) g.w = s->weights + ((const char *)g.w - p->weight.at);
  if (s->piece && !take_piece(p, k, &g)) return;
  const int64_t top = y->start + k->first * w->axis[0].src_step - w->axis[0].low;
  const int64_t left = x->start + k->x->first * w->axis[1].src_step - w->axis[1].low;
  const size_t size = w->size;
  g.rows = k->rows;
  if (g.rows_inside) g.rows_inside += k->unit - k->y->first;
  if (g.cols < NARROW && g.cols < g.rows) transpose_cell(&g);
  g.x = k->tile +
        (top * w->row + left * w->channels + (s->piece ? s->piece->inputs.first : 0)) * (int64_t)size;
  const size_t before = (size_t)s->channel * size;
  g.y = k->out + before;
  g.bias = b->bias ? b->bias + before : NULL;
  g.cout = s->channels;
  g.prefetch = prefetch;
  for (int64_t i = 0; i < b->groups; i++) {
    b->kernels->direct_conv(&g);
    g.x = (const char *)g.x + (size_t)b->cin * size;
    g.w = (const char *)g.w + (size_t)p->weight.group * size;
    g.y = (char *)g.y + (size_t)b->cout * size;
    if (g.bias) g.bias = (const char *)g.bias + (size_t)b->cout * size;
  }
}

/* Rows first .. first + band - 1 of every phase, counted in the tile. */
static void compute_band (const marea_direct_images *p, const slice *s, int64_t image, int64_t start,
                          int64_t band, const char *tile, int64_t first, marea_prefetch *prefetch) {
  const marea_conv_axis *rows = &p->base.x.axis[0], *cols = &p->base.x.axis[1];
  const size_t pixel = (size_t)p->base.out_step * p->base.x.size;
  cell k = {.slice = s, .tile = tile};
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
      k.out = p->base.out + (size_t)(row * cols->out + col) * pixel;
      compute_cell(p, &k, prefetch);
    }
  }
}

/* The products of one output channel take less time than reading the source again for each phase: so a few rows of all
   phases at a time. */
static bool goes_in_bands (const marea_image_pass *p) { return p->cout == 1 && p->x.axis[0].out_step > 1; }

static void compute_tile (const marea_image_pass *b, int64_t image, int64_t tile, int worker,
                          marea_prefetch *prefetch) {
  const marea_direct_images *p = (const marea_direct_images *)b;
  const marea_conv_window *w = &b->x;
  const int64_t units = marea_conv_window_units(w, tile), row = w->row * (int64_t)w->size;
  const int64_t band = goes_in_bands(b) ? MAREA_MAX(BAND_BYTES / MAREA_MAX(row, 1), 1) : units;
  const char *source = marea_conv_window_load(w, image, tile, worker);
  const slice all = {.channels = b->cout};
  for (int64_t first = 0; first < units; first += band)
    compute_band(p, &all, image, tile * w->units, MAREA_MIN(band, units - first), source, first, prefetch);
}

/* ---- large weights ---- */

static slice slice_of (const marea_direct_images *p, int64_t panel) {
  return (slice){.channel = panel * MAREA_CONV_PANEL,
                 .channels = marea_conv_panel_width(p->base.cout, panel)};
}

/* Rows of an image, which lies there as a whole */
static void compute_rows (const marea_direct_images *p, const slice *s, int64_t image, marea_range rows,
                          int worker, marea_prefetch *prefetch) {
  const char *source = marea_conv_window_load(&p->base.x, image, 0, worker);
  compute_band(p, s, image, 0, rows.end - rows.first, source, rows.first, prefetch);
}

/* Packs a panel to (tap, channel read, MAREA_CONV_PANEL). */
static void pack_panel (const marea_direct_images *p, const slice *s, char *to) {
  const marea_image_pass *b = &p->base;
  const size_t size = b->x.size, read = (size_t)b->cin, written = (size_t)b->cout,
               width = (size_t)s->channels;
  for (int64_t i = 0; i < p->taps.n; i++, to += read * MAREA_CONV_PANEL * size) {
    const char *tap = b->weight + (size_t)p->taps.origin[i] * read * written * size;
    const size_t channel = (size_t)s->channel * size;
    if (b->input_gradient) b->kernels->turn(width, read, read, tap + channel * read, MAREA_CONV_PANEL, to);
    else b->kernels->copy_rows(read, width, written, tap + channel, MAREA_CONV_PANEL, to);
  }
}

/* A panel of some images, or of a band of their rows. */
static void compute_panel (void *arg, int64_t block, int worker) {
  const marea_direct_images *p = arg;
  const marea_conv_window *w = &p->base.x;
  const int64_t panels = marea_conv_panels(p->base.cout), first = block / panels / p->bands * p->together,
                end = MAREA_MIN(first + p->together, w->images), band = block / panels % p->bands;
  const marea_range rows = {band * w->units / p->bands, (band + 1) * w->units / p->bands};
  char *weights = (char *)p->weight.at + (size_t)(p->kept ? block % panels : worker) * p->per_worker;
  slice s = slice_of(p, block % panels);
  s.weights = weights;
  if (!p->kept) pack_panel(p, &s, weights);
  for (int64_t image = first; image < end && !marea_stopping(p->base.ctx); image++) {
    marea_prefetch next = {.n = 0};
    if (image + 1 < end) marea_conv_window_prefetch(w, image + 1, &next);
    else if (p->kept && block % panels + 1 < panels)
      marea_prefetch_add(&next, marea_prefetch_area_of(weights + p->per_worker, p->per_worker));
    compute_rows(p, &s, image, rows, worker, &next);
  }
}

static void pack_kept (void *arg, int64_t panel, int worker) {
  const marea_direct_images *p = arg;
  const slice s = slice_of(p, panel);
  (void)worker;
  pack_panel(p, &s, (char *)p->weight.at + (size_t)panel * p->per_worker);
}

/* All panels of weights that keep their packed form. */
static marea_status keep_packed (marea_call *c, const marea_conv *g, marea_direct_images *p) {
  const marea_pack_key key = marea_conv_pack_key(g, &p->base, MAREA_CONV_PANELS, 0, 0);
  const int64_t panels = marea_conv_panels(p->base.cout);
  void *memory;
  bool ready;
  p->kept = true;
  MAREA_TRY(marea_pack_for(c, MAREA_CONV_WEIGHT, p->base.weight, &key, (size_t)panels * p->per_worker,
                           &memory, &ready));
  p->weight.at = memory;
  if (!ready) marea_parallel(c->ctx, panels, pack_kept, p);
  return MAREA_OK;
}

/* Blocks of panels that are packed already read what stays in a second-level cache from panel to panel, some images or a
   band of the rows of one; few panels are shared by rows, too. */
static void share_kept (const marea_call *c, marea_direct_images *p) {
  const marea_conv_window *w = &p->base.x;
  const int64_t source = MAREA_MAX(w->axis[0].src * w->row * (int64_t)w->size, 1),
                panels = marea_conv_panels(p->base.cout);
  const int64_t blocks = panels * w->images,
                wanted = c->ctx->threads > 1 ? BLOCKS_OF_THREAD * c->ctx->threads / blocks : 1;
  p->together = MAREA_MAX(1, MAREA_MIN(SOURCE_BYTES / source, MOST_IMAGES));
  p->bands = MAREA_MAX(1, MAREA_MIN(MAREA_MAX(wanted, source / SOURCE_BYTES), w->units / LEAST_BAND));
}

/* Memory for a packed panel of each worker. */
static marea_status open_packed (marea_call *c, const marea_conv *g, marea_direct_images *p) {
  marea_image_pass *b = &p->base;
  const int64_t size[] = {p->taps.n, b->cin, MAREA_CONV_PANEL};
  char *memory = NULL;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, size, b->x.size, &p->per_worker));
  const bool keeps = marea_keeps_packs(c, MAREA_CONV_WEIGHT) && !b->input_gradient;
  if (!keeps) MAREA_TRY(marea_worker_memory(c, &p->per_worker, &memory));
  p->weight = (marea_conv_weights){
      .at = memory, .tap = b->cin * MAREA_CONV_PANEL, .channel = MAREA_CONV_PANEL};
  p->together = MOST_IMAGES;
  p->bands = 1;
  if (keeps) share_kept(c, p);
  p->blocks = marea_conv_panels(b->cout) * ((b->x.images + p->together - 1) / p->together) * p->bands;
  return keeps ? keep_packed(c, g, p) : MAREA_OK;
}

/* Sets output channels first .. end - 1 of all pixels to zero, or, when they are added up, makes the results of them. */
static void open_channels (const marea_direct_images *p, int64_t first, int64_t end) {
  const size_t size = p->base.x.size, pixel = (size_t)p->base.out_step * size;
  char *out = p->base.out + (size_t)first * size;
  for (int64_t i = 0; i < p->pixels; i++, out += pixel) memset(out, 0, (size_t)(end - first) * size);
}

static void close_channels (const marea_direct_images *p, int64_t first, int64_t end) {
  const marea_image_pass *b = &p->base;
  const size_t size = b->x.size, pixel = (size_t)b->out_step * size;
  const char *bias = b->bias ? b->bias + (size_t)first * size : NULL;
  char *out = b->out + (size_t)first * size;
  for (int64_t i = 0; i < p->pixels; i++, out += pixel)
    b->kernels->bias_act(1, (size_t)(end - first), bias, b->act, b->slope, out);
}

/* Rows first .. first + PIECE_ROWS - 1 of the weights, (tap, channel read), of some channels that are written. */
static marea_prefetch prefetch_rows (const marea_direct_images *p, int64_t first, int64_t channel,
                                     int64_t end) {
  const marea_image_pass *b = &p->base;
  const int64_t size = (int64_t)b->x.size, n = MAREA_MIN(PIECE_ROWS, p->taps.n * b->cin - first);
  const char *at = b->weight + (first * b->cout + channel) * size;
  const int64_t row = b->cout * size, lines = (end - channel) * size / MAREA_LINE;
  marea_prefetch next = {.n = 0};
  if (n > 0 && end - channel == b->cout)
    marea_prefetch_add(&next, marea_prefetch_area_of(at, (size_t)(n * row)));
  else if (n > 0) marea_prefetch_add(&next, (marea_prefetch_area){at, lines, MAREA_LINE, n, row});
  return next;
}

/* Adds the products of a piece to all pixels of panels first .. end - 1. */
static void add_piece (const marea_direct_images *p, const piece *one, marea_range panels, int worker,
                       marea_prefetch *next) {
  for (int64_t panel = panels.first; panel < panels.end; panel++) {
    slice s = slice_of(p, panel);
    s.piece = one;
    for (int64_t image = 0; image < p->base.x.images; image++)
      compute_rows(p, &s, image, (marea_range){0, p->base.x.units}, worker, next);
  }
}

/* Some panels, piece by piece. Meanwhile the next piece is prefetched: it follows in memory. */
static void compute_pieces (void *arg, int64_t block, int worker) {
  const marea_direct_images *p = arg;
  const marea_image_pass *b = &p->base;
  const int64_t all = marea_conv_panels(b->cout), cols = b->x.axis[1].phase[0].taps;
  const marea_range panels = {block * all / p->blocks, (block + 1) * all / p->blocks};
  const int64_t first = panels.first * MAREA_CONV_PANEL,
                end = MAREA_MIN(panels.end * MAREA_CONV_PANEL, b->cout);
  open_channels(p, first, end);
  for (int64_t tap = 0; tap < p->taps.n; tap++)
    for (int64_t ci = 0; ci < b->cin && !marea_stopping(b->ctx); ci += PIECE_ROWS) {
      const piece now = {{tap / cols, tap % cols}, {ci, MAREA_MIN(ci + PIECE_ROWS, b->cin)}};
      marea_prefetch next = prefetch_rows(p, tap * b->cin + now.inputs.end, first, end);
      add_piece(p, &now, panels, worker, &next);
    }
  close_channels(p, first, end);
}

/* As threads do: longer runs of the weights follow each other in memory in larger blocks. */
static void open_pieces (const marea_call *c, marea_direct_images *p) {
  const marea_image_pass *b = &p->base;
  p->pixels = b->x.images * b->x.axis[0].out * b->x.axis[1].out;
  p->blocks = MAREA_MIN(c->ctx->threads == 1 ? 1 : 2 * c->ctx->threads, marea_conv_panels(b->cout));
}

static void run_blocks (marea_call *c, const marea_image_pass *b) {
  const marea_direct_images *p = (const marea_direct_images *)b;
  marea_parallel(c->ctx, p->blocks, p->packs ? compute_panel : compute_pieces, (void *)b);
}

/* ---- the pass ---- */

/* The kernel prefetches the lines of results that no second-level cache holds, where it has few products an element or one
   tap: a whole MobileNetV2, 16 images, 132 ms against 143. With few products it is writing them that takes time: they go
   past the caches, where a core writes whole lines at once. */
static void choose_stores (const marea_context *ctx, const marea_conv *g, marea_direct_images *p) {
  const marea_image_pass *b = &p->base;
  const int64_t pixels = g->n * b->x.axis[0].out * b->x.axis[1].out;
  const int64_t bytes = pixels * b->groups * b->cout * (int64_t)b->x.size;
  const int64_t taps = g->kernel[0] * g->kernel[1];
  const bool few = taps * b->cin <= FEW_STEPS;
  if (bytes <= NEAR_BYTES || (!few && taps > 1)) return;
  p->stream_output = few && ctx->streams && bytes > CACHED_BYTES;
  p->prefetch_output = !p->stream_output;
  p->base.kernel_fetches_out = true;
}

marea_status marea_direct_images_open (marea_call *c, const marea_conv *g, const marea_conv_source *src,
                                       marea_direct_kind kind, marea_direct_images *p) {
  marea_image_pass *b = &p->base;
  marea_conv_window *w = &b->x;
  MAREA_TRY(marea_conv_axes(c, g, b->input_gradient, w->axis));
  w->clipped = b->cin > MAREA_FEW_CHANNELS && !goes_in_bands(b) && has_long_strips(&w->axis[0]) &&
               has_long_strips(&w->axis[1]);
  if (kind == MAREA_DIRECT_DEPTHWISE) w->clipped = g->kernel[0] <= 3 && g->kernel[1] <= 3;
  p->packs = kind == MAREA_DIRECT_PACKED;
  if (p->packs || kind == MAREA_DIRECT_PIECES) MAREA_TRY(marea_conv_window_open_ahead(c, src, w));
  else MAREA_TRY(marea_conv_window_open(c, src, w));
  MAREA_TRY(open_strips(c, p));
  b->tile = compute_tile;
  p->depthwise = kind == MAREA_DIRECT_DEPTHWISE;
  if (p->depthwise) { /* all groups at once, a channel each */
    b->cout = b->groups;
    b->groups = 1;
  }
  p->two_vectors = c->ctx->wide;
  choose_stores(c->ctx, g, p);
  MAREA_TRY(marea_conv_list_taps(c, g, w->axis, w->row, w->channels, &p->taps));
  p->weight = (marea_conv_weights){b->weight, g->cout / g->groups, g->cin / g->groups * g->cout, g->cout};
  if (w->ahead) b->run = run_blocks;
  if (p->packs) MAREA_TRY(open_packed(c, g, p));
  else if (w->ahead) open_pieces(c, p);
  else if (b->input_gradient)
    MAREA_TRY(marea_conv_pack(c, g, b, &p->taps, !p->depthwise, b->cout, &p->weight));
  MAREA_TRY(open_cells(c, kind == MAREA_DIRECT_FEW, p));
  return make_pixel(c, p);
}
