/* SPDX-License-Identifier: MIT
** direct_images.h: the image pass by direct convolution.
*/
#ifndef MAREA_CONV_DIRECT_IMAGES_H
#define MAREA_CONV_DIRECT_IMAGES_H

#include "pack.h"

/* Outputs first .. first + count - 1 of a phase, all of which read these of its taps inside the source. */
typedef struct marea_conv_strip {
  const marea_conv_phase *phase;
  int64_t first, count;
  marea_range taps;
} marea_conv_strip;

typedef struct marea_direct_images {
  marea_image_pass base; /* depthwise: one group of all channels */
  bool depthwise;
  /* Large weights: panels of them, which each worker packs for itself (`packs`), or pieces, which are read where they
     lie, are outermost, and all images pass by one after the other. */
  bool packs;
  bool kept;         /* the panels of all channels are packed, and kept */
  size_t per_worker; /* bytes from a worker's packed weights to the next worker's */
  int64_t together;  /* images of a block */
  int64_t bands;     /* of the rows of images, which blocks are cut into, too */
  int64_t blocks;    /* panels, or ranges of them, that threads share */
  int64_t pixels;    /* of all results */
  marea_conv_taps taps;
  marea_conv_strip *strip[2]; /* of rows [strips[0]] and of columns [strips[1]] */
  int64_t strips[2];
  marea_conv_weights weight;
  bool stream_output, prefetch_output, two_vectors; /* as in marea_direct_conv */
  marea_direct_conv
      *cell; /* [strips[0]][strips[1]] arguments of the kernel for the outputs of two strips, but for rows
                              and addresses; NULL: too many, they are set when a cell is computed */
  const char *pixel; /* (groups * cout): outputs that no tap reaches, act(bias); NULL: there are none */
} marea_direct_images;

typedef enum marea_direct_kind {
  MAREA_DIRECT_ANY,
  MAREA_DIRECT_FEW,       /* few input channels: direct_conv_few.inc */
  MAREA_DIRECT_DEPTHWISE, /* a channel in each group */
  MAREA_DIRECT_PACKED,    /* large weights, by panels that are packed */
  MAREA_DIRECT_PIECES     /* large weights and few pixels, forward only */
} marea_direct_kind;

/* The kernel's arguments for so many cells are set once a pass: more than 1,024 would need more than 250 KB. */
#define MAREA_DIRECT_MOST_CELLS 1024

marea_status marea_direct_images_open (marea_call *c, const marea_conv *g, const marea_conv_source *src,
                                       marea_direct_kind kind, marea_direct_images *p);

#endif
