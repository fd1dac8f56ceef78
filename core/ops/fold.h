/* SPDX-License-Identifier: MIT
** fold.h: one pass over a tensor that leaves one number for each group of elements: the work behind
** reductions.
*/
#ifndef MAREA_FOLD_H
#define MAREA_FOLD_H

#include "core.h"

/* Elements as (outer, count, inner), row-major; `count` is what is folded away. */
typedef struct marea_folding {
  const void *x;
  int dtype;
  int64_t outer, count, inner;
  double power; /* of MAREA_FOLD_POWERS */
} marea_folding;

typedef enum marea_fold_kind {
  MAREA_FOLD_SUM,
  MAREA_FOLD_MAX, /* NaN where there is one */
  MAREA_FOLD_MIN,
  MAREA_FOLD_SQUARES, /* sum of (x - shift)^2 */
  MAREA_FOLD_EXPS,    /* sum of exp(x - shift) */
  MAREA_FOLD_PRODUCT, /* in double */
  MAREA_FOLD_LARGEST, /* max of |x|, 0 of none */
  MAREA_FOLD_POWERS   /* sum of |x / shift|^power */
} marea_fold_kind;

/* f := the values of `t`, contiguous at `x`, with the dimensions of set[] folded. Where these are not
   neighbours, or there is no such view, a copy with the folded dimensions last is made in scratch
   memory. */
marea_status marea_fold_over (marea_call *c, const marea_tensor *t, const bool *set, marea_folding *f);

/* out[outer * inner] := fold / divisor, as real numbers of out_dtype. shift [outer * inner] as the kind
   needs it. x is f32 or f64. The bits of the result depend on the shape only. */
marea_status marea_fold (marea_call *c, const marea_folding *f, marea_fold_kind kind, const double *shift,
                         double divisor, int out_dtype, void *out);

/* Mean of column i of outer * inner, and the root of the sum of squares about it over `divisor`, without overflow or
   underflow, at the pace of a plain loop: for columns whose squares have left the range. NaN unless all are finite. */
typedef struct marea_moments {
  double mean, std;
} marea_moments;
marea_moments marea_fold_moments (const marea_folding *f, int64_t i, double divisor);

/* The same for i64 and u8, exact: SUM, MAX, MIN and PRODUCT. */
void marea_fold_ints (marea_context *ctx, const marea_folding *f, marea_fold_kind kind, int out_dtype,
                      void *out);

#endif
