/* SPDX-License-Identifier: MIT
** conv_across.c: both passes for small images in batches. The kernels' pixels are the same place in all images
** instead of a row of one: a row of 4 or 7 pixels would leave most of their registers empty, and where the image is
** smaller than the kernel, half of what a row meets is padding. At one place all images meet the same taps, so padding
** is never read and nothing is copied but the weights.
*/
#include <string.h>

#include "conv_pass.h"

#define MOST_COLUMNS 8  /* of the smaller side; longer rows fill the registers */
#define LEAST_IMAGES 24 /* which fill them as well */
#define LEAST_CHANNELS 16
#define CHUNK_IMAGES 256             /* of a block: some 100 us of work */
#define TAP_BYTES ((int64_t)1 << 17) /* of what a tap meets in a row of outputs */
#define LEAST_BLOCKS 32

bool marea_conv_goes_across (const marea_conv *g) {
  return g->n >= LEAST_IMAGES && g->out[1] <= MOST_COLUMNS &&
         MAREA_MIN(g->cin, g->cout) / g->groups >= LEAST_CHANNELS;
}

/* ---- gather ---- */

/* A place in the images: an output of a phase in each dimension. */
typedef struct place {
  const marea_conv_phase *phase[2];
  int64_t unit[2], out; /* out: pixel */
} place;

static place place_of (const marea_conv_gather *p, int64_t pixel) {
  const marea_conv_axis *axis = p->w.axis;
  const int64_t at[] = {pixel / axis[1].out, pixel % axis[1].out};
  const int64_t phase[] = {at[0] % axis[0].out_step, at[1] % axis[1].out_step};
  place l = {.out = pixel};
  for (int d = 0; d < 2; d++) {
    l.phase[d] = &axis[d].phase[phase[d]];
    l.unit[d] = at[d] / axis[d].out_step;
  }
  return l;
}

/* A panel of channels at one place of images first .. first + n - 1. */
static void gather_place (const marea_conv_gather *p, const place *l, int64_t group, int64_t panel,
                          int64_t first, int64_t n) {
  const marea_conv_window *w = &p->w;
  const int64_t channels = p->groups * p->cout, width = marea_conv_panel_width(p->cout, panel),
                step = p->cin * width;
  const int64_t co = group * p->cout + panel * MAREA_CONV_PANEL;
  const int64_t out_image = w->axis[0].out * w->axis[1].out * channels, image = w->axis[0].src * w->row;
  const marea_range rows = marea_conv_taps_inside(&w->axis[0], l->phase[0], l->unit[0]);
  const marea_range cols = marea_conv_taps_inside(&w->axis[1], l->phase[1], l->unit[1]);
  const int64_t y = l->phase[0]->start + l->unit[0] * w->axis[0].src_step;
  const int64_t x = l->phase[1]->start + l->unit[1] * w->axis[1].src_step;
  const int64_t tap = marea_conv_first_tap(w->axis, l->phase[0], l->phase[1], rows.first, cols.first);
  const marea_direct_conv g = {
      .x = w->from.src + (size_t)(first * image + y * w->row + x * w->channels + group * p->cin) * w->size,
      .w = p->weight +
           (size_t)(group * p->w_group + panel * MAREA_CONV_PANEL * p->taps.n * p->cin + tap * step) *
               w->size,
      .bias = p->bias ? p->bias + (size_t)co * w->size : NULL,
      .y = p->out + (size_t)(first * out_image + l->out * channels + co) * w->size,
      .rows = 1,
      .cols = n,
      .x_col = image,
      .y_col = out_image,
      .cin = p->cin,
      .cout = width,
      .tap_rows = rows.end - rows.first,
      .taps = cols.end - cols.first,
      .tap_row = l->phase[1]->taps,
      .tap = p->taps.offset + tap,
      .w_tap = step,
      .w_ci = width,
      .act = p->act,
      .slope = p->slope};
  p->kernels->direct_conv(&g);
}

/* Panels outermost: their weights stay in the second-level cache for all places. */
static void gather_block (void *arg, int64_t block, int worker) {
  const marea_conv_gather *p = arg;
  const int64_t places = p->w.axis[0].out * p->w.axis[1].out;
  const int64_t chunks = (p->w.images + CHUNK_IMAGES - 1) / CHUNK_IMAGES, panels = marea_conv_panels(p->cout);
  const int64_t chunk = block / places % chunks, panel = block / places / chunks;
  const int64_t first = chunk * p->w.images / chunks, end = (chunk + 1) * p->w.images / chunks;
  const place l = place_of(p, block % places);
  (void)worker;
  gather_place(p, &l, panel / panels, panel % panels, first, end - first);
}

static void gather_images (marea_call *c, const marea_conv_gather *p) {
  const int64_t chunks = (p->w.images + CHUNK_IMAGES - 1) / CHUNK_IMAGES;
  marea_parallel(c->ctx,
                 p->groups * marea_conv_panels(p->cout) * chunks * p->w.axis[0].out * p->w.axis[1].out,
                 gather_block, (void *)p);
}

marea_status marea_conv_gather_across (marea_call *c, const marea_conv *g, bool backward,
                                       const marea_conv_source *src, marea_conv_gather *p) {
  MAREA_TRY(marea_conv_axes(c, g, backward, p->w.axis));
  marea_conv_window_direct(src, &p->w);
  MAREA_TRY(marea_conv_list_taps(c, g, &p->w, &p->taps));
  MAREA_TRY(marea_conv_pack(c, g, backward, MAREA_CONV_PANEL, p));
  p->run = gather_images;
  return MAREA_OK;
}

/* ---- correlate ---- */

typedef struct spreading {
  const marea_conv *g;
  const char *from;
  char *to;
  size_t size;
} spreading;

static int64_t panels_written (const marea_conv *g) { return marea_conv_panels(g->cout / g->groups); }

/* Where row y of dy's images starts for a panel of a group, in elements: panels are of one group after the other, and
   a panel holds (y, image, x, channel), so that what meets a tap lies together. */
static int64_t panel_row (const marea_conv *g, int64_t group, int64_t panel, int64_t y) {
  const int64_t cout = g->cout / g->groups, row = g->n * g->out[1];
  return (group * cout + panel * MAREA_CONV_PANEL) * g->out[0] * row +
         y * row * marea_conv_panel_width(cout, panel);
}

/* One row of dy, of all images, into all panels. */
static void spread_row (void *arg, int64_t y, int worker) {
  const spreading *k = arg;
  const marea_conv *g = k->g;
  const int64_t cout = g->cout / g->groups, panels = panels_written(g);
  (void)worker;
  for (int64_t i = 0; i < g->groups * panels; i++) {
    const int64_t group = i / panels, panel = i % panels;
    const size_t width = (size_t)marea_conv_panel_width(cout, panel) * k->size;
    char *to = k->to + (size_t)panel_row(g, group, panel, y) * k->size;
    for (int64_t n = 0; n < g->n; n++) {
      const int64_t pixel = (n * g->out[0] + y) * g->out[1];
      const char *from = k->from +
                         (size_t)(pixel * g->cout + group * cout + panel * MAREA_CONV_PANEL) * k->size;
      for (int64_t x = 0; x < g->out[1]; x++, to += width, from += (size_t)g->cout * k->size)
        memcpy(to, from, width);
    }
  }
}

static marea_status spread_panels (marea_call *c, const marea_conv_source *dy, marea_conv_correlate *p) {
  const int64_t pixels[] = {p->g->n, p->g->out[0], p->g->out[1], p->g->cout};
  spreading k = {.g = p->g, .size = p->x.size};
  size_t bytes;
  MAREA_TRY(marea_conv_rows_open(c, dy, 0, &p->dy));
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 4, pixels, k.size, &bytes));
  MAREA_SCRATCH(c, k.to, bytes);
  k.from = p->dy.from.src;
  marea_parallel(c->ctx, p->g->out[0], spread_row, &k);
  p->dy.from.src = k.to;
  return MAREA_OK;
}

/* Where tap t of output number `out` lies. */
static int64_t source_of (const marea_conv_axis *a, int64_t out, int64_t t) {
  return a->phase[0].start + out * a->src_step + a->phase[0].offset[t];
}

/* What one tap of a group meets in the source, for some panels of output channels */
typedef struct meeting {
  const marea_conv_correlate *p;
  int64_t group, panel, panel_end;
  int64_t tap, image, images; /* some images at a time */
  int64_t y, top, left; /* row of outputs; where the tap of its first output that counts lies in the source */
  marea_range cols;
  bool first;
} meeting;

/* x of a row of outputs, copied together: (image, output, channel) */
static const char *load_tap (const meeting *k, int worker) {
  const marea_conv_window *w = &k->p->x;
  const int64_t cin = k->p->g->cin / k->p->g->groups, step = w->axis[1].src_step * w->channels;
  char *memory = w->memory + (size_t)worker * w->per_worker, *to = memory;
  const size_t bytes = (size_t)cin * w->size;
  for (int64_t i = 0; i < k->images; i++) {
    const int64_t row = ((k->image + i) * w->axis[0].src + k->top) * w->row;
    const char *from = w->from.src + (size_t)(row + k->left * w->channels + k->group * cin) * w->size;
    for (int64_t j = k->cols.first; j < k->cols.end; j++, to += bytes, from += (size_t)step * w->size)
      memcpy(to, from, bytes);
  }
  return memory;
}

static void correlate_row (const meeting *k, int worker) {
  const marea_conv_correlate *p = k->p;
  const marea_conv *g = p->g;
  const int64_t cin = g->cin / g->groups, cout = g->cout / g->groups, cols = k->cols.end - k->cols.first;
  const char *x = load_tap(k, worker);
  for (int64_t panel = k->panel; panel < k->panel_end; panel++) {
    const int64_t width = marea_conv_panel_width(cout, panel);
    const int64_t dy = panel_row(g, k->group, panel, k->y) + (k->image * g->out[1] + k->cols.first) * width;
    const marea_direct_wgrad c = {
        .x = x,
        .dy = p->dy.from.src + (size_t)dy * p->x.size,
        .dw = p->dw +
              (size_t)(k->tap * cin * g->cout + k->group * cout + panel * MAREA_CONV_PANEL) * p->x.size,
        .rows = k->images,
        .cols = cols,
        .x_row = cols * cin,
        .x_col = cin,
        .dy_row = g->out[1] * width,
        .dy_col = width,
        .m = cin,
        .cout = width,
        .dw_row = g->cout,
        .offset = p->offset,
        .overwrite = k->first};
    p->kernels->direct_wgrad(&c);
  }
}

static void clear_tap (const meeting *k) {
  const marea_conv *g = k->p->g;
  const int64_t cin = g->cin / g->groups, cout = g->cout / g->groups, first = k->panel * MAREA_CONV_PANEL;
  const size_t size = k->p->x.size,
               bytes = (size_t)(MAREA_MIN(k->panel_end * MAREA_CONV_PANEL, cout) - first) * size;
  char *dw = k->p->dw + (size_t)(k->tap * cin * g->cout + k->group * cout + first) * size;
  for (int64_t ci = 0; ci < cin; ci++, dw += (size_t)g->cout * size) memset(dw, 0, bytes);
}

/* One tap of a group, some panels, summed over all images and the places where the tap lies inside. */
static void correlate_block (void *arg, int64_t block, int worker) {
  const marea_conv_correlate *p = arg;
  const marea_conv *g = p->g;
  const int64_t cut = block % p->cuts, panels = panels_written(g), tap = block / p->cuts / g->groups;
  const int64_t ty = tap / g->kernel[1], tx = tap % g->kernel[1];
  const marea_range rows = marea_conv_outputs_inside(g, 0, ty);
  meeting k = {.p = p,
               .group = block / p->cuts % g->groups,
               .panel = cut * panels / p->cuts,
               .panel_end = (cut + 1) * panels / p->cuts,
               .tap = tap,
               .cols = marea_conv_outputs_inside(g, 1, tx),
               .first = true};
  if (rows.first == rows.end || k.cols.first == k.cols.end) {
    clear_tap(&k);
    return;
  }
  k.left = source_of(&p->x.axis[1], k.cols.first, tx);
  for (; k.image < g->n && !marea_stopping(p->ctx); k.image += p->x.units) {
    k.images = MAREA_MIN(p->x.units, g->n - k.image);
    for (k.y = rows.first; k.y < rows.end; k.y++, k.first = false) {
      k.top = source_of(&p->x.axis[0], k.y, ty);
      correlate_row(&k, worker);
    }
  }
}

static void correlate_images (const marea_conv_correlate *p) {
  marea_parallel(p->ctx, p->rows * p->cuts, correlate_block, (void *)p);
}

marea_status marea_conv_correlate_across (marea_call *c, const marea_conv_source *x,
                                          const marea_conv_source *dy, marea_conv_correlate *p) {
  const int64_t cin = p->g->cin / p->g->groups;
  int64_t *offset;
  MAREA_TRY(marea_conv_axes(c, p->g, false, p->x.axis));
  marea_conv_window_direct(x, &p->x);
  MAREA_TRY(spread_panels(c, dy, p));
  MAREA_TABLE(c, offset, (size_t)cin * sizeof *offset);
  for (int64_t i = 0; i < cin; i++) offset[i] = i;
  p->offset = offset;
  p->run = correlate_images;
  p->parts = 1;
  p->rows = p->g->kernel[0] * p->g->kernel[1] * p->g->groups;
  p->cuts = MAREA_MIN(LEAST_BLOCKS / p->rows + 1, panels_written(p->g));
  p->x.units = MAREA_MAX(TAP_BYTES / (p->g->out[1] * cin * (int64_t)p->x.size), LEAST_IMAGES);
  p->x.units = MAREA_MIN(p->x.units, p->g->n);
  return marea_conv_window_memory(c, p->x.units * p->g->out[1] * cin, &p->x);
}
