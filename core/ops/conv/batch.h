/* SPDX-License-Identifier: MIT
** batch.h: both passes for small images in batches.
**
** The pixels of the kernels' tiles are one pixel of many images instead of a row of one image: a row of 4 or 7 pixels
** would leave most of their registers empty, and where the image is smaller than the kernel, half of what a row reads
** is padding. At one pixel all images have the same taps inside, so padding is never read and nothing is copied but the
** weights.
*/
#ifndef MAREA_CONV_BATCH_H
#define MAREA_CONV_BATCH_H

#include "pack.h"

/* Images that fill the kernels' tiles of 14 pixels: 24 make two tiles of 12, 86 % of their registers. */
#define MAREA_BATCH_LEAST_IMAGES 24

typedef struct marea_batch_images {
  marea_image_pass base;
  marea_conv_taps taps;
  marea_conv_weights
      weight; /* in panels of MAREA_CONV_PANEL: (group, panel, tap, channel read, channel written) */
} marea_batch_images;

marea_status marea_batch_images_open (marea_call *c, const marea_conv *g, const marea_conv_source *src,
                                      marea_batch_images *p);

typedef struct marea_batch_weights {
  marea_weight_pass base; /* dy as panels: (group, panel, OH, N, OW, channel of the panel) */
  int64_t taps, cuts;     /* blocks: (tap, group) pairs, times ranges of output panels */
  int64_t images;         /* that a block copies and multiplies at a time */
  const int64_t *offset;  /* [cin of a group] 0, 1, 2, ... */
} marea_batch_weights;

marea_status marea_batch_weights_open (marea_call *c, const marea_conv_source *x, const marea_conv_source *dy,
                                       marea_batch_weights *p);

#endif
