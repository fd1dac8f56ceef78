/* SPDX-License-Identifier: MIT
** reduce_loops.h: one pass over a tensor that leaves one number for each group of elements: the work behind
** reductions.
*/
#ifndef MAREA_REDUCE_LOOPS_H
#define MAREA_REDUCE_LOOPS_H

#include "core.h"

/* Elements as (outer, count, inner), row-major; `count` is the number of elements that become one. */
typedef struct marea_reduction {
  const void *x;
  int dtype;
  int64_t outer, count, inner;
  double power; /* of MAREA_REDUCE_POWERS */
} marea_reduction;

typedef enum marea_reduce_kind {
  MAREA_REDUCE_SUM,
  MAREA_REDUCE_MAX, /* NaN where there is one */
  MAREA_REDUCE_MIN,
  MAREA_REDUCE_SQUARES, /* sum of (x - shift)^2 */
  MAREA_REDUCE_EXPS,    /* sum of exp(x - shift) */
  MAREA_REDUCE_PRODUCT, /* in double */
  MAREA_REDUCE_LARGEST, /* max of |x|, 0 of none */
  MAREA_REDUCE_POWERS   /* sum of |x / shift|^power */
} marea_reduce_kind;

/* f := the values of `t`, contiguous at `x`, with the dimensions of set[] reduced. Where these are not
   neighbours, or there is no such view, a copy with the reduced dimensions last is made in a workspace. */
marea_status marea_reduce_over (marea_call *c, const marea_tensor *t, const bool *set, marea_reduction *f);

/* out[outer * inner] := reduction / divisor, as real numbers of out_dtype. shift [outer * inner] as the kind
   needs it. x is f32 or f64. The bits of the result depend on the shape only. */
marea_status marea_reduce (marea_call *c, const marea_reduction *f, marea_reduce_kind kind,
                           const double *shift, double divisor, int out_dtype, void *out);

/* Mean of column i of outer * inner, and the root of the sum of squares about it over `divisor`, without overflow or
   underflow, at the pace of a plain loop: for columns whose squares have left the range. NaN unless all are finite. */
typedef struct marea_moments {
  double mean, std;
} marea_moments;
marea_moments marea_reduce_moments (const marea_reduction *f, int64_t i, double divisor);

/* The same for i64 and u8, exact: SUM, MAX, MIN and PRODUCT. */
void marea_reduce_ints (marea_context *ctx, const marea_reduction *f, marea_reduce_kind kind, int out_dtype,
                        void *out);

#endif
