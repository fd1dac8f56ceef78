/* SPDX-License-Identifier: MIT
** window.h: the images that a pass reads, in tiles of rows: read where they lie, copied between the zeros of their
** padding, or computed from the gradient behind an activation.
*/
#ifndef MAREA_CONV_WINDOW_H
#define MAREA_CONV_WINDOW_H

#include "geometry.h"

/* Of a tile: with the weights it stays in a second-level cache, the smallest of which have 1 MB. */
#define MAREA_CONV_TILE_BYTES ((size_t)1 << 18)

/* What a pass reads: t (N, H, W, C), or with y the gradient before an activation, t * act'(.), where y is the
   activation's result. */
typedef struct marea_conv_source {
  const marea_tensor *t, *y; /* y NULL: t itself */
  marea_activation act;
  double slope;
  const char *computed; /* (N, H, W, C): that gradient as a whole; NULL: it is computed wherever it is read */
} marea_conv_source;

/* Computes it as a whole, for passes that do not read tile by tile. */
marea_status marea_conv_source_compute (marea_call *c, marea_conv_source *src);

/* Where the elements of an image are. */
typedef struct marea_conv_images {
  const char *src, *y;         /* (N, H, W, C) each */
  size_t per_image;            /* bytes from an image to the next, .. */
  size_t per_worker;           /* .. and from a worker's image to the next worker's; one of both is 0 */
  marea_binary_kernel *grad;   /* computes elements from src and y; NULL: they are those of src */
  const marea_kernels *widens; /* elements are bf16, which grad computes with in f32; NULL: they are not */
  double slope;
} marea_conv_images;

typedef struct marea_conv_window {
  marea_conv_axis axis[2];
  marea_conv_images from;
  const marea_kernels *kernels;
  size_t size;              /* bytes of an element */
  int64_t channels, images; /* C and N */
  bool clipped;         /* nothing outside of the images is read: tiles have no padding, or are the images */
  int64_t units, tiles; /* rows of phase 0 that a tile serves; tiles of an image */
  int64_t row;          /* elements from a row of a tile to the next */
  size_t bytes;         /* of a tile in `memory` */
  size_t per_worker;    /* bytes from a worker's tile to the next worker's */
  char *memory;         /* (workers, rows, row): a copied tile for each worker */
  bool *cleared;        /* [workers] its tile has zeros at the sides, which stay from tile to tile */
  bool ahead; /* a tile is an image, and all of them lie copied in `memory`, per_worker bytes apart */
} marea_conv_window;

/* Sets up reading whole images where they lie. */
void marea_conv_window_in_place (const marea_conv_source *src, marea_conv_window *w);
/* Memory of `count` elements for each worker. */
marea_status marea_conv_window_memory (marea_call *c, int64_t count, marea_conv_window *w);
/* Sets up tiles for the axes that w has, with their padding unless w is clipped. A tile has at most some 256 KB, read in
   place or copied, and is smaller where there are few images. */
marea_status marea_conv_window_open (marea_call *c, const marea_conv_source *src, marea_conv_window *w);
/* The same, but that a tile is a whole image, and images that are not read in place are all copied: by this call. */
marea_status marea_conv_window_open_ahead (marea_call *c, const marea_conv_source *src, marea_conv_window *w);
/* Address of what output row 0 of the tile (unit 0 of the phases) and column 0 read at offset (low, low). */
const char *marea_conv_window_load (const marea_conv_window *w, int64_t image, int64_t tile, int worker);
/* Rows of phase 0 that a tile serves. */
static inline int64_t marea_conv_window_units (const marea_conv_window *w, int64_t tile) {
  return MAREA_MIN(w->units, w->axis[0].most - tile * w->units);
}
/* Adds the image, if there is such an image, to what is to be prefetched. */
void marea_conv_window_prefetch (const marea_conv_window *w, int64_t image, marea_prefetch *p);

/* Adds the rows of a tile of an image that is read in place, if there is such a tile. */
void marea_conv_window_prefetch_tile (const marea_conv_window *w, int64_t image, int64_t tile,
                                      marea_prefetch *p);

/* Rows of images without padding. */
typedef struct marea_conv_rows {
  marea_conv_images from;
  int64_t row, rows, images; /* W * C elements of a row; H; N */
  size_t size, bytes;        /* of an element; of a worker's memory */
  char *memory;              /* (workers, rows, row) */
} marea_conv_rows;

/* At most `most` rows are loaded at a time. */
marea_status marea_conv_rows_open (marea_call *c, const marea_conv_source *src, int64_t most,
                                   marea_conv_rows *r);
/* Lets `from` take its elements from the image that each worker has loaded into `all`, of the same source, so that they
   are computed once. */
void marea_conv_share (const marea_conv_rows *all, marea_conv_images *from);
/* Address of rows first .. first + n - 1 of an image. */
const char *marea_conv_rows_load (const marea_conv_rows *r, int64_t image, int64_t first, int64_t n,
                                  int worker);
void marea_conv_rows_prefetch (const marea_conv_rows *r, int64_t image, marea_prefetch *p);

#endif
