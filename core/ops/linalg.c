/* SPDX-License-Identifier: MIT
** linalg.c: decompositions of matrices, by LAPACK, which is part of OpenBLAS, or our own. They run in f64 whatever the tensors are:
** the matrices are small, and what is made of them (square roots, distances) loses digits.
*/
#include <math.h>
#include <string.h>

#include "core.h"

#define LARGEST 16384 /* side of a matrix: the workspace, 2 n^2, is counted in int */

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

/* *out := a tensor of a's shape in workspace, f64 and row by row; owns nothing. */
static marea_status workspace_like (marea_call *c, const marea_tensor *a, marea_storage *memory,
                                    marea_tensor *out) {
  *memory = (marea_storage){.ctx = c->ctx};
  MAREA_WORKSPACE_OR_RETURN(c, memory->data, (size_t)marea_count(a->rank, a->shape) * sizeof(double));
  *out = *a;
  out->dtype = MAREA_F64;
  out->storage = memory;
  out->offset = 0;
  marea_row_major(out->rank, out->shape, out->stride);
  return MAREA_OK;
}

/* a := (a + a^T) / 2; false when it has an element that is not finite */
static bool make_symmetric (double *a, int64_t n) {
  bool finite = true;
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j <= i; j++) {
      a[i * n + j] = a[j * n + i] = 0.5 * a[i * n + j] + 0.5 * a[j * n + i];
      finite = finite && isfinite(a[i * n + j]);
    }
  }
  return finite;
}

/* Upper bound of the time of one n x n matrix on a slow core, for marea_foresee: it cannot be stopped. */
static double seconds_of (int64_t n) {
  const double side = (double)n;
  return side * side * (0.8e-9 * side + 25e-9);
}

static marea_status eigh_forward (marea_call *c) {
  const marea_tensor *a = c->in[0];
  const int64_t n = a->shape[a->rank - 1], all = marea_count(a->rank, a->shape);
  const int side = (int)n;
  marea_storage matrices, vector;
  marea_tensor vectors, values;
  double *work;
  int *integers;
  if (all == 0) return MAREA_OK;
  MAREA_TRY(workspace_like(c, a, &matrices, &vectors));
  MAREA_TRY(workspace_like(c, c->out[0], &vector, &values));
  MAREA_WORKSPACE_OR_RETURN(c, work, (size_t)(1 + 6 * n + 2 * n * n) * sizeof *work);
  MAREA_WORKSPACE_OR_RETURN(c, integers, (size_t)(3 + 5 * n) * sizeof *integers);
  marea_copy_strided(c->ctx, a, &vectors);
  for (int64_t i = 0; i < all / (n * n); i++) {
    double *matrix = (double *)matrices.data + i * n * n;
    const long long number = (long long)(i + c->ctx->config.index_base);
    if (marea_stopping(c->ctx)) return MAREA_OK; /* marea_apply reports it */
    MAREA_TRY(marea_foresee(c, seconds_of(n)));
    if (!make_symmetric(matrix, n))
      return marea_reject(c, MAREA_EARG, "argument 'a': matrix %lld of %s has elements that are not finite",
                          number, marea_tensor_text(a).s);
    if (!marea_blas_eigen(side, matrix, (double *)vector.data + i * n, work, integers))
      return marea_reject(c, MAREA_ESTATE, "the eigenvalues of matrix %lld did not converge", number);
  }
  vectors.stride[a->rank - 2] = 1; /* they come columns first */
  vectors.stride[a->rank - 1] = n;
  marea_copy_strided(c->ctx, &values, c->out[0]);
  marea_copy_strided(c->ctx, &vectors, c->out[1]);
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
           "larger than 16384; elements that are not finite; a time limit (marea_limit_time, a sandbox's) "
           "of which less is left than one matrix takes, since it cannot be stopped.",
    .inputs = {{"a", "(.., n, n)"}},
    .flags = MAREA_STRIDED | MAREA_NO_GRAD | MAREA_WIDE,
    .shape = eigh_shape,
    .forward = eigh_forward,
    .flop = eigh_flop,
    .sample =
        "local n = g.int(0, 4)\nlocal s = g.shape(0, 2)\ns[#s + 1], s[#s + 2] = n, n\nreturn {g.tensor(s)}",
};
