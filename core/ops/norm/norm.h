/* SPDX-License-Identifier: MIT
** norm.h: the passes over data of the normalizations, channels last. A tensor is seen as (n, rows, groups, width), the
** last two being its channels; each (n, group) has a mean and a variance, over rows and width. Batch normalization is
** (1, rows, channels, 1), layer normalization (n, 1, 1, channels).
*/
#ifndef MAREA_NORM_H
#define MAREA_NORM_H

#include "core.h"

typedef struct marea_norm {
  int64_t n, rows, groups, width;
  double eps;
  marea_activation act; /* behind the normalization, and its slope */
  double slope;
  bool is_rms; /* rows.c: the mean is taken as 0 */
} marea_norm;

static inline int64_t marea_norm_channels (const marea_norm *g) { return g->groups * g->width; }

/* What a backward pass reads and writes; tensors that are NULL are absent or not wanted. bias: where there is an
   activation. In columns.c dtypes may differ, as long as all are computed in one. */
typedef struct marea_norm_back {
  const marea_tensor *dy, *x, *weight, *bias;
  marea_tensor *dx, *dweight, *dbias;
} marea_norm_back;

/* ---- columns.c: a channel is a column ---- */

/* mean and variance [n * groups], the latter divided by the number of elements. Chunks are measured about their
   own mean, so a mean that is large beside the deviation does no harm. */
marea_status marea_norm_statistics (marea_call *c, const marea_norm *g, const marea_tensor *x, double *mean,
                                    double *variance);
/* y := act((x - mean) / sqrt(variance + eps) * weight + bias) */
marea_status marea_norm_apply (marea_call *c, const marea_norm *g, const double *mean, const double *variance,
                               const marea_tensor *x, const marea_tensor *weight, const marea_tensor *bias,
                               marea_tensor *y);
marea_status marea_norm_backward (marea_call *c, const marea_norm *g, const double *mean,
                                  const double *variance, const marea_norm_back *b);

/* ---- rows.c: rows = groups = 1, a row is measured and used while it is in the cache ---- */

marea_status marea_norm_rows (marea_call *c, const marea_norm *g, const marea_tensor *x,
                              const marea_tensor *weight, const marea_tensor *bias, marea_tensor *y);
marea_status marea_norm_rows_backward (marea_call *c, const marea_norm *g, const marea_norm_back *b);

static inline double marea_norm_load (int dtype, const void *x, int64_t i) { return marea_load(dtype, x, i); }

static inline void marea_norm_store (int dtype, void *x, int64_t i, double value) {
  marea_store(dtype, x, i, value);
}

#endif
