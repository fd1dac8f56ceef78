/* SPDX-License-Identifier: MIT
** blas_own.c: what blas_open.c has from OpenBLAS, for builds with NO_BLAS=1, by our kernels: products row by row, and
** eigenvalues by Jacobi's rotations. Large products of f32 do not come here, see blas.c.
*/
#include <math.h>
#include <string.h>

#include "core.h"

#define GATHERED 512 /* elements of a strided operand that are copied at a time */

const char *marea_blas (void) { return "none: own products"; }

const char *marea_blas_trouble (int threads) {
  (void)threads;
  return NULL;
}

void marea_blas_reserve (int threads) { (void)threads; }

/* ---- products ---- */

static const char *at (int dtype, const void *p, int64_t i) {
  return (const char *)p + i * (int64_t)marea_element_size(dtype);
}

static char *place (int dtype, void *p, int64_t i) {
  return (char *)p + i * (int64_t)marea_element_size(dtype);
}

/* n elements `step` apart, side by side: where they lie, or in `memory` */
static const void *gather (int dtype, int64_t n, const void *x, int64_t step, void *memory) {
  if (step == 1) return x;
#define GATHER(type) \
  for (int64_t i = 0; i < n; i++) ((type *)memory)[i] = ((const type *)x)[i * step]
  MAREA_SWITCH_FLOAT(dtype, GATHER);
  return memory;
}

/* y[i] := sum, or y[i] + sum */
static void put (int dtype, void *y, int64_t i, double sum, bool add) {
  marea_store(dtype, y, i, add ? marea_load(dtype, y, i) + sum : sum);
}

/* y (n) := x B or y + x B, B (k, n); x by steps */
static void multiply_row (const marea_kernels *kernels, int dtype, int64_t k, int64_t n, const void *x,
                          int64_t x_step, const void *b, int64_t ldb, bool add, void *y) {
  double memory[GATHERED];
  for (int64_t p = 0; p < k; p += GATHERED) {
    const int64_t some = MAREA_MIN(GATHERED, k - p);
    const marea_row_product g = {.x = gather(dtype, some, at(dtype, x, p * x_step), x_step, memory),
                                 .w = at(dtype, b, p * ldb),
                                 .w_row = ldb,
                                 .y = y,
                                 .k = some,
                                 .m = n,
                                 .accumulate = add || p > 0};
    kernels->row_product(&g);
  }
}

/* y[i] := x . row i of B, or y[i] + that, B (n, k) */
static void multiply_rows (const marea_kernels *kernels, int dtype, int64_t k, int64_t n, const void *x,
                           int64_t x_step, const void *b, int64_t ldb, bool add, void *y, int64_t y_step) {
  double memory[GATHERED];
  for (int64_t p = 0; p < k; p += GATHERED) {
    const int64_t some = MAREA_MIN(GATHERED, k - p);
    const void *row = gather(dtype, some, at(dtype, x, p * x_step), x_step, memory);
    for (int64_t i = 0; i < n; i++)
      put(dtype, y, i * y_step, kernels->dot((size_t)some, row, at(dtype, b, i * ldb + p)), add || p > 0);
  }
}

/* The same with B (k, n), y by steps */
static void multiply_apart (const marea_kernels *kernels, const marea_blas_vector_product *p) {
  double memory[GATHERED];
  for (int64_t i = 0; i < p->n; i += GATHERED) {
    const int64_t some = MAREA_MIN(GATHERED, p->n - i);
    multiply_row(kernels, p->dtype, p->k, some, p->x, p->x_step, at(p->dtype, p->matrix, i), p->ld, false,
                 memory);
    for (int64_t j = 0; j < some; j++)
      put(p->dtype, p->y, (i + j) * p->y_step, marea_load(p->dtype, memory, j), p->add);
  }
}

void marea_blas_vector (const marea_kernels *kernels, const marea_blas_vector_product *p) {
  if (!p->by_k)
    multiply_rows(kernels, p->dtype, p->k, p->n, p->x, p->x_step, p->matrix, p->ld, p->add, p->y, p->y_step);
  else if (p->y_step == 1)
    multiply_row(kernels, p->dtype, p->k, p->n, p->x, p->x_step, p->matrix, p->ld, p->add, p->y);
  else multiply_apart(kernels, p);
}

void marea_blas_matrices (const marea_kernels *kernels, const marea_blas_product *p) {
  for (int64_t i = 0; i < p->m; i++) {
    const void *row = at(p->dtype, p->a, p->ta ? i : i * p->lda);
    const int64_t step = p->ta ? p->lda : 1;
    char *c = place(p->dtype, p->c, i * p->ldc);
    if (p->tb) multiply_rows(kernels, p->dtype, p->k, p->n, row, step, p->b, p->ldb, p->add, c, 1);
    else multiply_row(kernels, p->dtype, p->k, p->n, row, step, p->b, p->ldb, p->add, c);
  }
}

/* ---- eigenvalues ---- */

#define SWEEPS \
  64 /* Jacobi's method converges quadratically: some 10 are enough for any matrix that fits in memory */

/* x := c x - s y and y := s x + c y, n elements `step` apart */
static void rotate (int n, double *x, double *y, int step, double c, double s) {
  for (int i = 0; i < n; i++, x += step, y += step) {
    const double a = *x, b = *y;
    *x = c * a - s * b;
    *y = s * a + c * b;
  }
}

/* The rotation of rows and columns p and q that makes a[p][q] zero: t = tan of its angle is the smaller root of
   t^2 + 2 t (a_qq - a_pp) / (2 a_pq) - 1 = 0. Golub and Van Loan, Matrix Computations, 8.5. False: it is small already. */
static bool annihilate (int n, double *a, double *v, int p, int q) {
  const double off = a[p * n + q], least = 0x1p-53 * sqrt(fabs(a[p * n + p])) * sqrt(fabs(a[q * n + q]));
  if (fabs(off) <= least || fabs(off) < 0x1p-1000) return false;
  const double theta = (a[q * n + q] - a[p * n + p]) / (2 * off);
  const double t = copysign(1, theta) / (fabs(theta) + hypot(theta, 1)), c = 1 / hypot(t, 1), s = t * c;
  rotate(n, a + p * n, a + q * n, 1, c, s);
  rotate(n, a + p, a + q, n, c, s);
  rotate(n, v + p * n, v + q * n, 1, c, s);
  a[p * n + q] = a[q * n + p] = 0;
  return true;
}

/* Ascending values, with their vectors. */
static void sort (int n, double *w, double *v) {
  for (int i = 0; i < n; i++) {
    int least = i;
    for (int j = i + 1; j < n; j++)
      if (w[j] < w[least]) least = j;
    if (least == i) continue;
    const double value = w[i];
    w[i] = w[least], w[least] = value;
    rotate(n, v + i * n, v + least * n, 1, 0, 1);
  }
}

bool marea_blas_eigen (int n, double *a, double *w, double *work, int *integers) {
  bool moved = true;
  (void)integers;
  for (int i = 0; i < n * n; i++) work[i] = i % (n + 1) == 0;
  for (int sweep = 0; moved && sweep < SWEEPS; sweep++) {
    moved = false;
    for (int p = 0; p < n; p++)
      for (int q = p + 1; q < n; q++) moved |= annihilate(n, a, work, p, q);
  }
  for (int i = 0; i < n; i++) w[i] = a[i * n + i];
  sort(n, w, work);
  memcpy(a, work, (size_t)n * (size_t)n * sizeof *a);
  return !moved;
}
