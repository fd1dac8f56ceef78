/* SPDX-License-Identifier: MIT
** winograd_passes.h: the image pass and the weight-gradient pass by Winograd's algorithms.
*/
#ifndef MAREA_CONV_WINOGRAD_PASSES_H
#define MAREA_CONV_WINOGRAD_PASSES_H

#include "winograd.h"

typedef struct marea_winograd_images {
  marea_image_pass base;
  marea_winograd_plan plan;
  float *weights;      /* transformed: (point, panel, phase, channel read, channel of the panel) */
  int64_t weight_step; /* elements from a point of them to the next */
  int64_t panels;      /* whose weights are transformed together: all, or as many as memory allows */
  int64_t kernel_cols;
} marea_winograd_images;

/* The plan is made. */
marea_status marea_winograd_images_open (marea_call *c, const marea_conv *g, const marea_conv_source *src,
                                         marea_winograd_images *p);

typedef struct marea_winograd_weights {
  marea_weight_pass
      base; /* its sums are transformed ones: (block, product, cin of the block, cout of the block) */
  marea_winograd_plan plan;
  char *block_sums;      /* images together: (workers, one block's sums), .. */
  size_t block_bytes;    /* .. bytes from a worker's to the next one's */
  const int64_t *offset; /* [MAREA_CONV_PANEL] 0, 1, 2, ... */
} marea_winograd_weights;

marea_status marea_winograd_weights_open (marea_call *c, const marea_conv_source *x,
                                          const marea_conv_source *dy, marea_winograd_weights *p);

#endif
