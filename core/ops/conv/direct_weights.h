/* SPDX-License-Identifier: MIT
** direct_weights.h: the weight-gradient pass by direct sums.
*/
#ifndef MAREA_CONV_DIRECT_WEIGHTS_H
#define MAREA_CONV_DIRECT_WEIGHTS_H

#include "passes.h"

typedef struct marea_direct_weights {
  marea_weight_pass base;
  const int64_t
      *offset; /* [base.sum.rows] of a row of dw, (tap, channel of a group), in a tile of x; elements */
} marea_direct_weights;

marea_status marea_direct_weights_open (marea_call *c, const marea_conv_source *x,
                                        const marea_conv_source *dy, marea_direct_weights *p);

#endif
