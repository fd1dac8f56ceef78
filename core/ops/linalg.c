/* SPDX-License-Identifier: MIT
** linalg.c: decompositions of matrices, by LAPACK, which is part of OpenBLAS. They run in f64 whatever the tensors are:
** the matrices are small, and what is made of them (square roots, distances) loses digits.
*/
#include <cblas.h>
#include <math.h>
#include <string.h>

#include "core.h"

/* Eigenvalues and -vectors of a symmetric matrix by divide and conquer. Fortran passes the length of each string behind
   everything else. */
void dsyevd_ (const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w,
              double *work, const int *lwork, int *iwork, const int *liwork, int *info, size_t jobz_length,
              size_t uplo_length);

#define LARGEST 16384 /* side of a matrix: LAPACK counts its scratch memory, 2 n^2, in int */

static marea_status eigh_shape (marea_call *c) {
  const marea_tensor *a = c->in[0];
  const int64_t n = a->rank < 2 ? 0 : a->shape[a->rank - 1];
  if (a->rank < 2 || a->shape[a->rank - 2] != n)
    return marea_reject(c, MAREA_ESHAPE, "argument 'a': expected square matrices (.., n, n), got %s",
                        marea_tensor_text(a).s);
  if (n > LARGEST)
    return marea_reject(c, MAREA_ESHAPE, "argument 'a': %s is larger than %d x %d", marea_tensor_text(a).s,
                        LARGEST, LARGEST);
  marea_layout_set(&c->layout[0], a->dtype, a->rank - 1, a->shape);
  marea_layout_like(&c->layout[1], a);
  c->n_out = 2;
  return MAREA_OK;
}

static double get (const marea_tensor *t, int64_t i) {
  return t->dtype == MAREA_F64 ? ((const double *)marea_at(t))[i] : (double)((const float *)marea_at(t))[i];
}

static void put (marea_tensor *t, int64_t i, double value) {
  if (t->dtype == MAREA_F64) ((double *)marea_at(t))[i] = value;
  else ((float *)marea_at(t))[i] = (float)value;
}

static marea_status want_finite (marea_call *c, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (!isfinite(get(c->in[0], i)))
      return marea_reject(c, MAREA_EARG, "argument 'a': element %lld of %s is %g, expected finite numbers",
                          (long long)(i + c->ctx->config.index_base), marea_tensor_text(c->in[0]).s,
                          get(c->in[0], i));
  return MAREA_OK;
}

static marea_status eigh_forward (marea_call *c) {
  const marea_tensor *a = c->in[0];
  const int64_t n = a->shape[a->rank - 1], all = marea_count(a->rank, a->shape);
  const int side = (int)n, lwork = (int)(1 + 6 * n + 2 * n * n), liwork = (int)(3 + 5 * n);
  double *matrix, *value, *work;
  int *iwork, info = 0;
  if (all == 0) return MAREA_OK;
  MAREA_TRY(want_finite(c, all));
  MAREA_SCRATCH(c, matrix, (size_t)(n * n) * sizeof *matrix);
  MAREA_SCRATCH(c, value, (size_t)n * sizeof *value);
  MAREA_SCRATCH(c, work, (size_t)lwork * sizeof *work);
  MAREA_SCRATCH(c, iwork, (size_t)liwork * sizeof *iwork);
  if (openblas_get_num_threads() != 1) openblas_set_num_threads(1);
  for (int64_t at = 0; at < all; at += n * n) {
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < n; j++)
        matrix[i * n + j] = 0.5 * get(a, at + i * n + j) + 0.5 * get(a, at + j * n + i);
    dsyevd_("V", "L", &side, matrix, &side, value, work, &lwork, iwork, &liwork, &info, 1, 1);
    if (info != 0)
      return marea_reject(c, MAREA_ESTATE, "the eigenvalues of matrix %lld did not converge",
                          (long long)(at / (n * n) + c->ctx->config.index_base));
    for (int64_t i = 0; i < n; i++) put(c->out[0], at / n + i, value[i]);
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < n; j++)
        put(c->out[1], at + i * n + j, matrix[j * n + i]); /* theirs are columns first */
  }
  return MAREA_OK;
}

static double eigh_flop (const marea_call *c) {
  const marea_tensor *a = c->in[0];
  return 9.0 * (double)marea_tensor_size(c->in[0]) * (double)a->shape[a->rank - 1];
}

const marea_op marea_op_eigh = {
    .name = "eigh",
    .family = "linalg",
    .doc = "Eigenvalues and eigenvectors of symmetric matrices: a = v diag(w) v^T with v^T v = 1. a: (.., n, "
           "n), of which "
           "(a + a^T) / 2 is taken; w: (.., n), ascending; v: (.., n, n), vector k in column k, of length 1, "
           "its sign "
           "left open. Computed in f64 by LAPACK's dsyevd. No gradient. Errors: matrices that are not "
           "square, or "
           "larger than 16384; elements that are not finite.",
    .inputs = {{"a", "(.., n, n)"}},
    .flags = MAREA_NO_GRAD,
    .shape = eigh_shape,
    .forward = eigh_forward,
    .flop = eigh_flop,
    .sample =
        "local n = g.int(0, 4)\nlocal s = g.shape(0, 2)\ns[#s + 1], s[#s + 2] = n, n\nreturn {g.tensor(s)}",
};
