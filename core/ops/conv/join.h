/* SPDX-License-Identifier: MIT
** join.h: the phases of a strided input gradient's columns as channels.
*/
#ifndef MAREA_CONV_JOIN_H
#define MAREA_CONV_JOIN_H

#include "geometry.h"

/* Does it pay for the input gradient of g? */
bool marea_conv_joins_columns (const marea_context *ctx, const marea_conv *g);

/* What the gradient is of then: *g, and by workspace of the call *weight and, unless it is NULL, *bias, whose elements have
   `size` bytes. */
marea_status marea_conv_join_columns (marea_call *c, size_t size, marea_conv *g, const char **weight,
                                      const char **bias);

#endif
