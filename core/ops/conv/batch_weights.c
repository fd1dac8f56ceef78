/* SPDX-License-Identifier: MIT
** batch_weights.c: the weight-gradient pass for small images, a row of pixels of all images at a time.
*/
#include <string.h>

#include "batch.h"

/* Of x that is multiplied with a tap in a row of outputs, copied together: an eighth of a second-level cache. */
#define TAP_BYTES ((int64_t)1 << 17)
/* Blocks to aim for: few taps are cut by output panels, so that some threads find work. */
#define LEAST_BLOCKS 32

static int64_t panels_written (const marea_conv *g) { return marea_conv_panels(g->cout / g->groups); }

/* ---- dy in panels ---- */

typedef struct packing {
  const marea_conv *g;
  const char *from;
  char *to;
  size_t size;
} packing;

/* Where row y of dy's images starts for a panel of a group, in elements. Panels are (y, image, x, channel), so that what
   is multiplied with a tap lies together. */
static int64_t panel_row (const marea_conv *g, int64_t group, int64_t panel, int64_t y) {
  const int64_t cout = g->cout / g->groups, row = g->n * g->out[1];
  return (group * cout + panel * MAREA_CONV_PANEL) * g->out[0] * row +
         y * row * marea_conv_panel_width(cout, panel);
}

/* One row of dy, of all images, into all panels. */
static void pack_row (void *arg, int64_t y, int worker) {
  const packing *k = arg;
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

static marea_status pack_panels (marea_call *c, const marea_conv_source *dy, marea_weight_pass *b) {
  const int64_t pixels[] = {b->g->n, b->g->out[0], b->g->out[1], b->g->cout};
  packing k = {.g = b->g, .size = b->x.size};
  size_t bytes;
  MAREA_TRY(marea_conv_rows_open(c, dy, 0, &b->dy));
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 4, pixels, k.size, &bytes));
  MAREA_WORKSPACE_OR_RETURN(c, k.to, bytes);
  k.from = b->dy.from.src;
  marea_parallel(c->ctx, b->g->out[0], pack_row, &k);
  b->dy.from.src = k.to;
  return MAREA_OK;
}

/* ---- a tap ---- */

/* Where tap t of output number `out` lies. */
static int64_t source_of (const marea_conv_axis *a, int64_t out, int64_t t) {
  return a->phase[0].start + out * a->src_step + a->phase[0].offset[t];
}

/* One tap of a group, some panels of output channels, some images, one row of outputs. */
typedef struct tap_row {
  const marea_batch_weights *p;
  int64_t group, panel, panel_end;
  int64_t tap, image, images;
  int64_t y, top,
      left;         /* row of outputs; where the tap of its first output that lies inside is in the source */
  marea_range cols; /* of outputs for which the tap lies inside */
  bool first;       /* nothing was added to dw yet */
} tap_row;

/* x of a row of outputs, copied together: (image, output, channel) */
static const char *load_tap (const tap_row *k, int worker) {
  const marea_weight_pass *b = &k->p->base;
  const marea_conv_window *w = &b->x;
  const int64_t cin = b->g->cin / b->g->groups, step = w->axis[1].src_step * w->channels;
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

static void add_row (const tap_row *k, int worker) {
  const marea_weight_pass *b = &k->p->base;
  const marea_conv *g = b->g;
  const size_t size = b->x.size;
  const int64_t cin = g->cin / g->groups, cout = g->cout / g->groups, cols = k->cols.end - k->cols.first;
  const char *x = load_tap(k, worker);
  for (int64_t panel = k->panel; panel < k->panel_end; panel++) {
    const int64_t width = marea_conv_panel_width(cout, panel);
    const int64_t dy = panel_row(g, k->group, panel, k->y) + (k->image * g->out[1] + k->cols.first) * width;
    const int64_t dw = k->tap * cin * g->cout + k->group * cout + panel * MAREA_CONV_PANEL;
    const marea_direct_wgrad w = {.x = x,
                                  .dy = b->dy.from.src + (size_t)dy * size,
                                  .dw = b->dw + (size_t)dw * size,
                                  .rows = k->images,
                                  .cols = cols,
                                  .x_row = cols * cin,
                                  .x_col = cin,
                                  .dy_row = g->out[1] * width,
                                  .dy_col = width,
                                  .m = cin,
                                  .cout = width,
                                  .dw_row = g->cout,
                                  .offset = k->p->offset,
                                  .overwrite = k->first};
    b->kernels->direct_wgrad(&w);
  }
}

static void clear_tap (const tap_row *k) {
  const marea_weight_pass *b = &k->p->base;
  const marea_conv *g = b->g;
  const int64_t cin = g->cin / g->groups, cout = g->cout / g->groups, first = k->panel * MAREA_CONV_PANEL;
  const size_t size = b->x.size,
               bytes = (size_t)(MAREA_MIN(k->panel_end * MAREA_CONV_PANEL, cout) - first) * size;
  char *dw = b->dw + (size_t)(k->tap * cin * g->cout + k->group * cout + first) * size;
  for (int64_t ci = 0; ci < cin; ci++, dw += (size_t)g->cout * size) memset(dw, 0, bytes);
}

/* One tap of a group, some panels, summed over all images and the outputs for which the tap lies inside. */
static void compute_block (void *arg, int64_t block, int worker) {
  const marea_batch_weights *p = arg;
  const marea_weight_pass *b = &p->base;
  const marea_conv *g = b->g;
  const int64_t cut = block % p->cuts, panels = panels_written(g), tap = block / p->cuts / g->groups;
  const int64_t ty = tap / g->kernel[1], tx = tap % g->kernel[1];
  const marea_range rows = marea_conv_outputs_inside(g, 0, ty);
  tap_row k = {.p = p,
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
  k.left = source_of(&b->x.axis[1], k.cols.first, tx);
  for (; k.image < g->n && !marea_stopping(b->ctx); k.image += p->images) {
    k.images = MAREA_MIN(p->images, g->n - k.image);
    for (k.y = rows.first; k.y < rows.end; k.y++, k.first = false) {
      k.top = source_of(&b->x.axis[0], k.y, ty);
      add_row(&k, worker);
    }
  }
}

static void compute_weights (const marea_weight_pass *b) {
  const marea_batch_weights *p = (const marea_batch_weights *)b;
  marea_parallel(b->ctx, p->taps * p->cuts, compute_block, (void *)p);
}

marea_status marea_batch_weights_open (marea_call *c, const marea_conv_source *x, const marea_conv_source *dy,
                                       marea_batch_weights *p) {
  marea_weight_pass *b = &p->base;
  const marea_conv *g = b->g;
  const int64_t cin = g->cin / g->groups;
  int64_t *offset;
  MAREA_TRY(marea_conv_axes(c, g, false, b->x.axis));
  marea_conv_window_in_place(x, &b->x);
  MAREA_TRY(pack_panels(c, dy, b));
  MAREA_TABLE_OR_RETURN(c, offset, (size_t)cin * sizeof *offset);
  for (int64_t i = 0; i < cin; i++) offset[i] = i;
  p->offset = offset;
  b->run = compute_weights;
  p->taps = g->kernel[0] * g->kernel[1] * g->groups;
  p->cuts = MAREA_MIN(LEAST_BLOCKS / p->taps + 1, panels_written(g));
  p->images = MAREA_MAX(TAP_BYTES / (g->out[1] * cin * (int64_t)b->x.size), MAREA_BATCH_LEAST_IMAGES);
  p->images = MAREA_MIN(p->images, g->n);
  return marea_conv_window_memory(c, p->images * g->out[1] * cin, &b->x);
}
