/* SPDX-License-Identifier: MIT
** save_linear.c: products of matrices.
*/
#include "save.h"

/* Turned by a node, so that a weight stays one which an embedding reads, too. */
static const char *matrix (onnx_saver *s, int i, bool turned) {
  const int rank = layout_in(s, i)->rank;
  int64_t dims[MAREA_MAX_RANK];
  if (!turned || rank < 2) return plain(s, i);
  for (int d = 0; d < rank; d++) dims[d] = d < rank - 2 ? d : 2 * rank - 3 - d;
  return marea_onnx_permuted(s, plain(s, i), rank, dims);
}

/* A vector beside a turned matrix becomes a matrix: ONNX Runtime joins Transpose and MatMul as if it were one. */
static void multiply_vector (onnx_saver *s, const char *a, const char *b, bool left) {
  const char *axis = index1(s, left ? -2 : -1);
  const char *matrix = NODE(s, "Unsqueeze", left ? a : b, index1(s, left ? 0 : 1));
  const char *y = left ? NODE(s, "MatMul", matrix, b) : NODE(s, "MatMul", a, matrix);
  put(s, 0, NODE(s, "Squeeze", y, axis));
}

SAVE(matmul) {
  const bool left = layout_in(s, 0)->rank == 1, right = layout_in(s, 1)->rank == 1;
  const bool turned = attr_i(s, "transpose_a") || attr_i(s, "transpose_b");
  const char *a = matrix(s, 0, attr_i(s, "transpose_a")), *b = matrix(s, 1, attr_i(s, "transpose_b"));
  if (turned && left != right) multiply_vector(s, a, b, left);
  else put(s, 0, NODE(s, "MatMul", a, b));
}

SAVE(linear) {
  const char *x = plain(s, 0), *w = plain(s, 1), *bias = plain(s, 2);
  const char *y = layout_in(s, 0)->rank == 2 && bias ? NODE(s, "Gemm", x, w, bias) : NODE(s, "MatMul", x, w);
  if (layout_in(s, 0)->rank != 2 && bias) y = NODE(s, "Add", y, bias);
  put(s, 0, marea_onnx_activated(s, y));
}
