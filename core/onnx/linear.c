/* SPDX-License-Identifier: MIT
** linear.c: ONNX's products of matrices.
*/
#include "node.h"

HANDLER(MatMul) { give(n, 0, op2(n, "matmul", input(n, 0), input(n, 1))); }

/* alpha A' B' + beta C */
HANDLER(Gemm) {
  value *a = input(n, 0), *b = input(n, 1), *c = optional(n, 2);
  const double alpha = float_of(n, "alpha", 1), beta = float_of(n, "beta", 1);
  const bool ta = int_of(n, "transA", 0), tb = int_of(n, "transB", 0);
  if (goes_on(n) && (rank_of(a) != 2 || rank_of(b) != 2)) marea_onnx_reject(n, "expected matrices");
  value *y = CALL(n, "matmul", VALUES(a, b),
                  NAMED(marea_int("transpose_a", ta), marea_int("transpose_b", tb)));
  if (alpha != 1) y = times(n, y, alpha);
  if (c && beta != 0) y = add(n, y, beta != 1 ? times(n, c, beta) : c);
  give(n, 0, y);
}
