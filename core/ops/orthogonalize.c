/* SPDX-License-Identifier: MIT
** orthogonalize.c: the nearest matrix whose rows or columns are orthonormal, roughly, by a few matrix products. The
** optimizer Muon takes it of its updates.
*/
#include <math.h>

#include "core.h"

/* Jordan's coefficients: x goes to a x + b x^3 + c x^5. They let small singular values grow 3.44 times a step, and those
   near 1 stay between 0.68 and 1.14. */
#define STEPS 5
#define A 3.4445
#define B (-4.7750)
#define C 2.0315

typedef struct orthogonal {
  marea_context *ctx;
  const marea_kernels *kernels;
  int dtype;
  int64_t rows, cols, side; /* side: the shorter one */
  char *gram, *factor;      /* (side, side) */
} orthogonal;

static marea_status orthogonalize_shape (marea_call *c) {
  MAREA_TRY(marea_want_rank(c, 0, 2, "(rows, columns)"));
  return marea_shape_same(c);
}

#define ADD_TO_DIAGONAL(type) \
  for (int64_t i = 0; i < o->side; i++) ((type *)o->factor)[i * (o->side + 1)] += (type)A;

/* y := A x + B x G + C x G^2, G = x^T x, or by rows where these are the shorter side */
static marea_status polynomial (orthogonal *o, const char *x, char *y) {
  const int64_t n = o->side, long_side = o->rows + o->cols - n;
  const bool tall = o->cols == n;
  MAREA_TRY(marea_gemm_parallel(o->ctx, o->dtype, tall, !tall, n, n, long_side, x, x, NULL, o->gram));
  MAREA_TRY(marea_gemm_parallel(o->ctx, o->dtype, false, false, n, n, n, o->gram, o->gram, NULL, o->factor));
  o->kernels->scale((size_t)(n * n), C, o->factor, o->factor);
  o->kernels->axpy((size_t)(n * n), B, o->gram, o->factor);
  MAREA_SWITCH_FLOAT(o->dtype, ADD_TO_DIAGONAL);
  return marea_gemm_parallel(o->ctx, o->dtype, false, false, o->rows, o->cols, n, tall ? x : o->factor,
                             tall ? o->factor : x, NULL, y);
}

/* y := x / |x|; false for zeros. Divided by the largest element first, so that no square overflows, and before that by the
   least normal number where the reciprocal of the largest would be infinite. */
static bool normalize (const orthogonal *o, const char *x, char *y) {
  const marea_kernels *k = o->kernels;
  const size_t n = (size_t)(o->rows * o->cols);
  const double least = marea_smallest(o->dtype);
  double most = fmax(k->max(n, x), -k->min(n, x));
  if (most > 0 && most < least) {
    k->scale(n, 1 / least, x, y);
    x = y;
    most /= least;
  }
  k->scale(n, most > 0 ? 1 / most : 1, x, y);
  if (most == 0) return false;
  k->scale(n, 1 / sqrt(k->dot(n, y, y)), y, y);
  return true;
}

static marea_status orthogonalize_forward (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const int64_t rows = x->shape[0], cols = x->shape[1], side = MAREA_MIN(rows, cols);
  const size_t size = marea_dtype_size((marea_dtype)x->dtype), square = (size_t)(side * side) * size;
  orthogonal o = {c->ctx, c->ctx->kernels[x->dtype], x->dtype, rows, cols, side, NULL, NULL};
  char *y = marea_at(c->out[0]), *other;
  if (side == 0) return MAREA_OK;
  MAREA_WORKSPACE_OR_RETURN(c, o.gram, square);
  MAREA_WORKSPACE_OR_RETURN(c, o.factor, square);
  MAREA_WORKSPACE_OR_RETURN(c, other, (size_t)(rows * cols) * size);
  if (!normalize(&o, marea_at(x), other)) {
    marea_clear(c->ctx, y, (size_t)(rows * cols) * size);
    return MAREA_OK;
  }
  for (int i = 0; i < STEPS && !marea_stopping(c->ctx); i++) /* an odd number: the last result is in y */
    MAREA_TRY(polynomial(&o, i % 2 == 0 ? other : y, i % 2 == 0 ? y : other));
  return MAREA_OK;
}

static double orthogonalize_flop (const marea_call *c) {
  const double rows = (double)c->in[0]->shape[0], cols = (double)c->in[0]->shape[1], side = fmin(rows, cols);
  return STEPS * (4 * side * rows * cols + 2 * side * side * side);
}

const marea_op marea_op_orthogonalize = {
    .name = "orthogonalize",
    .family = "linalg",
    .doc = "Roughly u v^T of the singular value decomposition x = u s v^T: rows or columns, whichever are "
           "fewer, become orthonormal. x: (rows, columns). Five steps x = 3.4445 x - 4.775 x x^T x + 2.0315 "
           "(x x^T)^2 x from x / |x| (Newton and Schulz's iteration) leave singular values of 0.68 to 1.14, "
           "and less where they were under |x| / 500. Zeros give zeros. No gradient. Source: Jordan et al. "
           "2024, Muon, kellerjordan.github.io/posts/muon. Error: x is no matrix.",
    .inputs = {{"x", "(rows, columns)"}},
    .flags = MAREA_NO_GRAD | MAREA_WIDE,
    .shape = orthogonalize_shape,
    .forward = orthogonalize_forward,
    .flop = orthogonalize_flop,
    .sample =
        "local n, m = g.int(0, 3), g.int(0, 3) return {g.tensor(g.pick{{n, n + m + 2}, {n + m + 2, n}})}",
};
