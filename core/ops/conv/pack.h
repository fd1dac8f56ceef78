/* SPDX-License-Identifier: MIT
** pack.h: weights for the direct convolution kernel, which wants the channels that it writes to be adjacent.
*/
#ifndef MAREA_CONV_PACK_H
#define MAREA_CONV_PACK_H

#include "passes.h"

typedef struct marea_conv_weights {
  const char *at; /* (group, tap, channel read, channel written) by the steps below, in elements */
  int64_t group, tap, channel; /* steps; channels written are adjacent */
} marea_conv_weights;

/* What packed weights depend on: the geometry but for the number of images, and what the algorithm adds. */
enum { MAREA_CONV_PACKED = 1, MAREA_CONV_PANELS, MAREA_CONV_WINOGRAD }; /* kinds of packed weights */
marea_pack_key marea_conv_pack_key (const marea_conv *g, const marea_image_pass *p, int kind, int64_t a,
                                    int64_t b);
#define MAREA_CONV_WEIGHT 1 /* of the operators that keep packed weights, conv2d and conv_transpose2d */

/* Copies the pass' weight for the taps in the order of t, into panels of `panel` written channels: (group, panel, tap,
   channel read, channel written). `transposed`: the pass reads the channels that are adjacent in the weight. */
marea_status marea_conv_pack (marea_call *c, const marea_conv *g, const marea_image_pass *p,
                              const marea_conv_taps *t, bool transposed, int64_t panel,
                              marea_conv_weights *w);

#endif
