/* SPDX-License-Identifier: MIT
** bf16_passes.h: both passes of bf16, by the kernel of marea_bf16_product, which sums in f32.
*/
#ifndef MAREA_CONV_BF16_PASSES_H
#define MAREA_CONV_BF16_PASSES_H

#include "passes.h"

/* Weights are packed: (group, phase, panel, tap of the phase, depth / 2, MAREA_BF16_PANEL, 2). */
typedef struct marea_bf16_images {
  marea_image_pass base;
  marea_conv_taps taps;
  bool gathered; /* the channels of a phase's taps are copied next to each other, and are one tap then */
  uint16_t *w;
  int64_t group; /* elements from a group's weights to the next group's */
  float *bias;   /* (groups * cout) */
  int64_t depth; /* of gathered pixels, the most of all phases */
  int64_t rows;  /* of them that are gathered at a time */
  size_t bytes;  /* of a worker's gathered pixels */
  char *memory;
} marea_bf16_images;

marea_status marea_bf16_images_open (marea_call *c, const marea_conv *g, const marea_conv_source *src,
                                     marea_bf16_images *p);

/* For a tile, or some small images, x is turned, (phase, channel, pixel), and dy is packed, pairs of pixels being its
   depth. */
typedef struct marea_bf16_weights {
  marea_weight_pass base;
  int64_t cols;          /* of a tile of x */
  int64_t pitch;         /* pixels from row to row, of both; even */
  int64_t tile_rows;     /* of a phase of x in a tile */
  int64_t images, image; /* that are multiplied together; pixels of one, with pitch */
  int64_t most;          /* elements of a channel of turned x */
  int64_t phases[2];     /* of x: the strides */
  size_t x, dy, bytes;   /* of a worker's turned x, packed dy and pairs of a row, in bytes; of all */
  char *memory;
} marea_bf16_weights;

marea_status marea_bf16_weights_open (marea_call *c, const marea_conv_source *x, const marea_conv_source *dy,
                                      marea_bf16_weights *p);

#endif
