/* SPDX-License-Identifier: MIT
** conv_geometry.h: one description for the four convolution operators, always in the terms of the forward
** convolution y = conv2d(x, w), and the two passes over data that they are made of.
*/
#ifndef MAREA_CONV_GEOMETRY_H
#define MAREA_CONV_GEOMETRY_H

#include "core.h"

/* x (n, h, w, cin), weight (kh, kw, cin / groups, cout), y (n, oh, ow, cout). Pairs are height and width. */
typedef struct marea_conv {
  int64_t n, cin, cout, groups;
  int64_t in[2], out[2], kernel[2], stride[2], dilation[2];
  int64_t before[2], after[2]; /* padding: top, left; bottom, right */
  bool direct;                 /* only ways whose results read nothing outside their window */
} marea_conv;

/* Where an operator's descriptor has what they share; -1: nowhere. */
typedef struct marea_conv_attrs {
  int8_t stride, padding, dilation, groups, algorithm;
} marea_conv_attrs;

/* Reads and checks stride, dilation, groups, algorithm into g. */
marea_status marea_conv_read (marea_call *c, marea_conv_attrs at, marea_conv *g);
/* Reads the padding for g->in and g->kernel, and replaces 'same' by its four numbers in the call. */
marea_status marea_conv_padding (marea_call *c, marea_conv_attrs at, marea_conv *g);
/* *out := what a convolution gives along one dimension; fails when the kernel does not fit into the input. */
marea_status marea_conv_size (marea_call *c, const marea_conv *g, int64_t out[2]);

/* ---- one dimension of a pass ---- */

/* Outputs first, first + step, ... that read the same taps. Output number i of them reads, for tap t, the
   source at start + i * src_step + offset[t]. */
typedef struct marea_conv_phase {
  int64_t first, count, start, taps;
  const int64_t *kernel, *offset; /* [taps] place in the kernel, and offset in the source */
} marea_conv_phase;

typedef struct marea_conv_axis {
  int64_t src, out, src_step, out_step;
  int64_t phases, most; /* most: the largest count, that of phase 0 */
  int64_t low, high;    /* sources that output 0 of all phases reads: low..high */
  marea_conv_phase *phase;
} marea_conv_axis;

/* The place of tap (row, col) of two phases among all taps, which come phase by phase. */
int64_t marea_conv_first_tap (const marea_conv_axis axis[2], const marea_conv_phase *y,
                              const marea_conv_phase *x, int64_t row, int64_t col);

/* The taps of a phase that lie in the source when its output number `unit` is made. */
marea_range marea_conv_taps_inside (const marea_conv_axis *a, const marea_conv_phase *p, int64_t unit);

/* The other way round: outputs of a convolution that meet the image at a tap. */
marea_range marea_conv_outputs_inside (const marea_conv *g, int d, int64_t tap);

/* ---- source images in tiles ---- */

#define MAREA_CONV_TILE_BYTES \
  ((size_t)1 << 18) /* a tile and the weights should stay in the second-level cache */

/* What a pass reads: t, or where y is given, the gradient before an activation: t * act'(.), told from the
   activation's result y. */
typedef struct marea_conv_source {
  const marea_tensor *t, *y;
  marea_activation act;
  double slope;
  const char *computed; /* all elements of that gradient; NULL: it is computed wherever it is read */
} marea_conv_source;

/* Computes them, for passes that do not read tile by tile. */
marea_status marea_conv_source_compute (marea_call *c, marea_conv_source *src);

/* Where elements come from. */
typedef struct marea_conv_images {
  const char *src, *y;
  size_t per_image, per_worker; /* bytes from an image to the next, or from a worker's to the next's */
  marea_binary_kernel *grad;    /* NULL: src as it is */
  double slope;
} marea_conv_images;

typedef struct marea_conv_window {
  marea_conv_axis axis[2];
  marea_conv_images from;
  const marea_kernels *kernels;
  size_t size; /* bytes of an element */
  int64_t channels, images;
  bool
      clipped; /* what lies outside the images is not read: tiles have no padding, or are the images themselves */
  int64_t units, tiles; /* rows of phase 0 in a tile; tiles of an image */
  int64_t row;          /* elements from one row of a tile to the next */
  size_t bytes;         /* of a tile */
  size_t per_worker;    /* from a worker's to the next one's */
  char *memory;         /* a tile for each worker */
  bool *cleared;        /* the worker's tile has zeros for padding at its sides */
} marea_conv_window;

/* Sets up the axes for reading x (forward, weight gradient) or, with `backward`, dy (input gradient) by taps. */
marea_status marea_conv_axes (marea_call *c, const marea_conv *g, bool backward, marea_conv_axis axis[2]);
/* Sets up reading whole images where they lie. */
void marea_conv_window_direct (const marea_conv_source *src, marea_conv_window *w);
/* Memory of `count` elements for each worker. */
marea_status marea_conv_window_memory (marea_call *c, int64_t count, marea_conv_window *w);
/* Sets up tiles for the axes that w has, with their padding unless w is clipped. A tile stays within some 256 KB, read in
   place or copied; few images are cut further. */
marea_status marea_conv_window_open (marea_call *c, const marea_conv_source *src, marea_conv_window *w);
/* Address of what output row 0 of the tile (unit 0 of phase rows) and column 0 read at offset (low, low). */
const char *marea_conv_window_load (const marea_conv_window *w, int64_t image, int64_t tile, int worker);
/* Rows of phase 0 in a tile. */
static inline int64_t marea_conv_window_units (const marea_conv_window *w, int64_t tile) {
  return MAREA_MIN(w->units, w->axis[0].most - tile * w->units);
}

/* Adds what reading `image` will need, if there is such an image. */
void marea_conv_window_ahead (const marea_conv_window *w, int64_t image, marea_prefetch *a);

/* Rows of images without padding, at most `most` of them at a time. */
typedef struct marea_conv_rows {
  marea_conv_images from;
  int64_t row, rows, images; /* elements of a row; rows of an image */
  size_t size, bytes;
  char *memory;
} marea_conv_rows;

marea_status marea_conv_rows_open (marea_call *c, const marea_conv_source *src, int64_t most,
                                   marea_conv_rows *r);
/* Elements come from the image of the same source that each worker has loaded into `all`, and are not computed again. */
void marea_conv_share (const marea_conv_rows *all, marea_conv_images *from);
/* Address of rows first .. first + n - 1 of an image. */
const char *marea_conv_rows_load (const marea_conv_rows *r, int64_t image, int64_t first, int64_t n,
                                  int worker);
void marea_conv_rows_ahead (const marea_conv_rows *r, int64_t image, marea_prefetch *a);

/* Sizes of upsampling by attribute 0 as those of a pool: windows of size and stride `scale` over the larger images, which
   are in[0] with from_large, and a result of the smaller ones. (pool.c) */
marea_status marea_upsample_read (marea_call *c, bool from_large, marea_conv *g);

#endif
