/* SPDX-License-Identifier: MIT
** part.h: what the shape families share: a part of a tensor, and the base that indices have in messages.
*/
#ifndef MAREA_PART_H
#define MAREA_PART_H

#include "core.h"

static inline int base_of (const marea_call *c) { return c->ctx->config.index_base; }

/* Elements start, start + step, ... of a dimension, as a tensor on the stack that owns nothing. */
static inline marea_tensor part_of (const marea_tensor *t, int dim, int64_t start, int64_t step,
                                    int64_t length) {
  marea_tensor part = *t;
  part.offset += start * t->stride[dim];
  if (length > 1) part.stride[dim] *= step;
  part.shape[dim] = length;
  return part;
}

#endif
