/* SPDX-License-Identifier: MIT
** linear.c: ONNX's products of matrices.
*/
#include "window.h"

/* ---- of integers: sums of products by elements, which wrap around as they do in 64 bits ---- */

#define MOST_PRODUCTS (1 << 20) /* at a time, unless a result alone has more */

static bool is_float (const value *x) { return marea_dtype_is_float((marea_dtype)dtype_of(x)); }

static value *unsqueezed (onnx_node *n, value *x, int dim) {
  return CALL(n, "unsqueeze", VALUES(x), NAMED(marea_int("dim", dim)));
}

/* Are these factors of (.., M, K) and (.., K, N)? A product by elements has a dimension more. */
static bool are_factors (onnx_node *n, const value *a, const value *b) {
  const int rank_a = rank_of(a), rank_b = rank_of(b);
  if (!goes_on(n)) return false;
  if (dtype_of(a) != MAREA_I64 || dtype_of(b) != MAREA_I64)
    marea_onnx_reject(n, "expected numbers of one type, from 32 bits on, got %s and %s",
                      marea_onnx_type_name(n->in[0]->type), marea_onnx_type_name(n->in[1]->type));
  else if (MAREA_MAX(rank_a, rank_b) >= MAREA_MAX_RANK || size_of(a, rank_a - 1) != size_of(b, rank_b - 2))
    marea_onnx_reject(n, "matrices of integers: %s by %s", marea_tensor_text(a->t).s,
                      marea_tensor_text(b->t).s);
  return goes_on(n);
}

/* The sum over `length` of the K from `at` on */
static value *part_of_product (onnx_node *n, value *a, value *b, int64_t at, int64_t length) {
  a = marea_onnx_narrow(n, a, rank_of(a) - 1, at, length);
  b = marea_onnx_narrow(n, b, rank_of(b) - 2, at, length);
  value *products = mul(n, unsqueezed(n, a, rank_of(a)), unsqueezed(n, b, rank_of(b) - 2));
  const int64_t inner = rank_of(products) - 2;
  return CALL(n, "sum", VALUES(products), NAMED(marea_ints("dims", 1, &inner)));
}

static value *integer_product (onnx_node *n, value *a, value *b) {
  if (!are_factors(n, a, b)) return NULL;
  const int rank = rank_of(a), longest = MAREA_MAX(rank, rank_of(b));
  const int64_t all = size_of(a, rank - 1);
  double width = 1; /* elements of the result, or somewhat more */
  for (int d = 2; d < longest; d++)
    width *= (double)MAREA_MAX(d < rank ? size_of(a, rank - 1 - d) : 1,
                               d < rank_of(b) ? size_of(b, rank_of(b) - 1 - d) : 1);
  width *= (double)size_of(a, rank - 2) * (double)size_of(b, rank_of(b) - 1);
  const int64_t length = (int64_t)MAREA_MAX(MOST_PRODUCTS / MAREA_MAX(width, 1), 1);
  value *y = part_of_product(n, a, b, 0, MAREA_MIN(length, all));
  for (int64_t at = length; at < all && goes_on(n) && marea_onnx_may_turn(n, at / length); at += length)
    y = add(n, y, part_of_product(n, a, b, at, MAREA_MIN(length, all - at)));
  return y;
}

/* A vector is a row in front and a column behind; the result has no dimension for it. */
static value *whole_product (onnx_node *n, value *a, value *b) {
  const bool row = rank_of(a) == 1, column = rank_of(b) == 1;
  if (goes_on(n) && (rank_of(a) < 1 || rank_of(b) < 1)) marea_onnx_reject(n, "expected matrices or vectors");
  if (row) a = unsqueezed(n, a, 0);
  if (column) b = unsqueezed(n, b, 1);
  value *y = integer_product(n, a, b);
  if (column) y = CALL(n, "squeeze", VALUES(y), NAMED(marea_int("dim", rank_of(y) - 1)));
  if (row) y = CALL(n, "squeeze", VALUES(y), NAMED(marea_int("dim", rank_of(y) - (column ? 1 : 2))));
  return y;
}

HANDLER(MatMul) {
  value *a = input(n, 0), *b = input(n, 1);
  if (!goes_on(n)) return;
  give(n, 0, is_float(a) || is_float(b) ? op2(n, "matmul", a, b) : whole_product(n, a, b));
}

static value *transposed_if (onnx_node *n, value *x, bool turn) {
  return turn ? marea_onnx_permute(n, x, 2, (int[]){1, 0}) : x;
}

static bool is_whole (double x) { return x == (double)(int32_t)MAREA_MIN(MAREA_MAX(x, -1e9), 1e9); }

/* alpha A' B' + beta C */
HANDLER(Gemm) {
  value *a = input(n, 0), *b = input(n, 1), *c = optional(n, 2);
  const double alpha = float_of(n, "alpha", 1), beta = float_of(n, "beta", 1);
  const bool ta = int_of(n, "transA", 0), tb = int_of(n, "transB", 0);
  if (goes_on(n) && (rank_of(a) != 2 || rank_of(b) != 2)) marea_onnx_reject(n, "expected matrices");
  if (!goes_on(n)) return;
  const bool whole = !is_float(a) && !is_float(b);
  if (whole && !(is_whole(alpha) && is_whole(beta)))
    marea_onnx_reject(n, "matrices of integers times %g and %g", alpha, beta);
  value *y = whole ? integer_product(n, transposed_if(n, a, ta), transposed_if(n, b, tb))
                   : CALL(n, "matmul", VALUES(a, b),
                          NAMED(marea_int("transpose_a", ta), marea_int("transpose_b", tb)));
  if (alpha != 1) y = times(n, y, alpha);
  if (c && beta != 0) y = add(n, y, beta != 1 ? times(n, c, beta) : c);
  give(n, 0, y);
}
