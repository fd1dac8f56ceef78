/* SPDX-License-Identifier: MIT
** batch_images.c: the image pass for small images, a pixel of all images at a time.
*/
#include "batch.h"

/* Images of a block: with a panel of 32 channels, 3x3 taps and 64 channels read 5 million multiply-adds, some 50 us. */
#define CHUNK_IMAGES 256

/* A pixel of the outputs: an output of a phase in each dimension. */
typedef struct place {
  const marea_conv_phase *phase[2];
  int64_t unit[2], out; /* out: the pixel's number in an image */
} place;

static place place_of (const marea_conv_axis axis[2], int64_t pixel) {
  const int64_t at[] = {pixel / axis[1].out, pixel % axis[1].out};
  const int64_t phase[] = {at[0] % axis[0].out_step, at[1] % axis[1].out_step};
  place l = {.out = pixel};
  for (int d = 0; d < 2; d++) {
    l.phase[d] = &axis[d].phase[phase[d]];
    l.unit[d] = at[d] / axis[d].out_step;
  }
  return l;
}

/* A panel of channels at one pixel of images first .. first + n - 1. */
static void compute_place (const marea_batch_images *p, const place *l, int64_t group, int64_t panel,
                           int64_t first, int64_t n) {
  const marea_image_pass *b = &p->base;
  const marea_conv_window *w = &b->x;
  const int64_t width = marea_conv_panel_width(b->cout, panel), step = b->cin * width;
  const int64_t co = group * b->cout + panel * MAREA_CONV_PANEL;
  const int64_t out_image = w->axis[0].out * w->axis[1].out * b->out_step, image = w->axis[0].src * w->row;
  const marea_range rows = marea_conv_taps_inside(&w->axis[0], l->phase[0], l->unit[0]);
  const marea_range cols = marea_conv_taps_inside(&w->axis[1], l->phase[1], l->unit[1]);
  const int64_t y = l->phase[0]->start + l->unit[0] * w->axis[0].src_step;
  const int64_t x = l->phase[1]->start + l->unit[1] * w->axis[1].src_step;
  const int64_t tap = marea_conv_first_tap(w->axis, l->phase[0], l->phase[1], rows.first, cols.first);
  const int64_t weight = group * p->weight.group + panel * MAREA_CONV_PANEL * p->taps.n * b->cin + tap * step;
  const marea_direct_conv g = {
      .x = w->from.src + (size_t)(first * image + y * w->row + x * w->channels + group * b->cin) * w->size,
      .w = p->weight.at + (size_t)weight * w->size,
      .bias = b->bias ? b->bias + (size_t)co * w->size : NULL,
      .y = b->out + (size_t)(first * out_image + l->out * b->out_step + co) * w->size,
      .rows = 1,
      .cols = n,
      .x_col = image,
      .y_col = out_image,
      .cin = b->cin,
      .cout = width,
      .tap_rows = rows.end - rows.first,
      .taps = cols.end - cols.first,
      .tap_row = l->phase[1]->taps,
      .tap = p->taps.offset + tap,
      .w_tap = step,
      .w_ci = width,
      .act = b->act,
      .slope = b->slope};
  b->kernels->direct_conv(&g);
}

static int64_t chunks_of (const marea_image_pass *b) {
  return (b->x.images + CHUNK_IMAGES - 1) / CHUNK_IMAGES;
}

static int64_t pixels_of (const marea_image_pass *b) { return b->x.axis[0].out * b->x.axis[1].out; }

/* Panels outermost: a panel's weights stay in the second-level cache for all pixels. */
static void compute_block (void *arg, int64_t block, int worker) {
  const marea_batch_images *p = arg;
  const marea_image_pass *b = &p->base;
  const int64_t pixels = pixels_of(b), chunks = chunks_of(b), panels = marea_conv_panels(b->cout);
  const int64_t chunk = block / pixels % chunks, panel = block / pixels / chunks;
  const int64_t first = chunk * b->x.images / chunks, end = (chunk + 1) * b->x.images / chunks;
  const place l = place_of(b->x.axis, block % pixels);
  (void)worker;
  compute_place(p, &l, panel / panels, panel % panels, first, end - first);
}

static void compute_images (marea_call *c, const marea_image_pass *b) {
  marea_parallel(c->ctx, b->groups * marea_conv_panels(b->cout) * chunks_of(b) * pixels_of(b), compute_block,
                 (void *)b);
}

marea_status marea_batch_images_open (marea_call *c, const marea_conv *g, const marea_conv_source *src,
                                      marea_batch_images *p) {
  marea_image_pass *b = &p->base;
  marea_conv_window *w = &b->x;
  MAREA_TRY(marea_conv_axes(c, g, b->input_gradient, w->axis));
  marea_conv_window_in_place(src, w);
  MAREA_TRY(marea_conv_list_taps(c, g, w->axis, w->row, w->channels, &p->taps));
  MAREA_TRY(marea_conv_pack(c, g, b, &p->taps, b->input_gradient, MAREA_CONV_PANEL, &p->weight));
  b->run = compute_images;
  return MAREA_OK;
}
