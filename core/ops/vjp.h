/* SPDX-License-Identifier: MIT
** vjp.h: what gradients written with operators share: owned local handles, attribute values, and the few
** calls that nearly every family makes.
**
** A vjp keeps what it makes in MAREA_OWN locals, returns early on failure, and hands results over through
** din[].
*/
#ifndef MAREA_VJP_H
#define MAREA_VJP_H

#include <string.h>

#include "core.h"

static inline void marea_own_end (marea_tensor **t) { marea_release(*t); }

/* A local handle that is released when its block is left, on every path: MAREA_OWN t = NULL; */
#define MAREA_OWN __attribute__((cleanup(marea_own_end))) marea_tensor *

static inline marea_attr marea_attr_int (int64_t i) { return (marea_attr){.n = 1, .i = i}; }

static inline marea_attr marea_attr_real (double f) { return (marea_attr){.n = 1, .f = f}; }

static inline marea_attr marea_attr_list (int n, const int64_t *v) {
  marea_attr a = {.n = n, .v = {0}};
  if (n > 0) memcpy(a.v, v, (size_t)n * sizeof *v);
  return a;
}

static inline marea_status marea_reshape_to (marea_tensor *t, int rank, const int64_t *shape,
                                             marea_tensor **out) {
  if (marea_has_shape(t, rank, shape)) {
    *out = marea_retain(t);
    return MAREA_OK;
  }
  marea_attr a = marea_attr_list(rank, shape);
  return marea_run_with(t->ctx, &marea_op_reshape, &a, out, 1, t);
}

/* Elements start, start + 1, ... of a dimension, `length` of them. */
static inline marea_status marea_narrow_to (marea_tensor *t, int dim, int64_t start, int64_t length,
                                            marea_tensor **out) {
  marea_attr a[] = {marea_attr_int(dim), marea_attr_int(start), marea_attr_int(length)};
  return marea_run_with(t->ctx, &marea_op_narrow, a, out, 1, t);
}

/* Sums the first n dimensions away. */
static inline marea_status marea_sum_first (marea_tensor *t, int n, marea_tensor **out) {
  static const int64_t first[MAREA_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
  marea_attr a[] = {marea_attr_list(n, first), marea_attr_int(0)};
  return marea_run_with(t->ctx, &marea_op_sum, a, out, 1, t);
}

/* Gradient before a fused activation from the one after it and the output y. */
static inline marea_status marea_before_activation (marea_tensor *dy, marea_tensor *y, marea_attr activation,
                                                    marea_attr slope, marea_tensor **out) {
  if (activation.i == MAREA_ACT_NONE) {
    *out = marea_retain(dy);
    return MAREA_OK;
  }
  marea_attr a[] = {activation, slope};
  return marea_run_with(dy->ctx, &marea_op_activation_grad, a, out, 2, dy, y);
}

#endif
