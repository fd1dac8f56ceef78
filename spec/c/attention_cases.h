/* SPDX-License-Identifier: MIT
** attention_cases.h: the kernels of attention and `turn` against their formulas in double; a part of kernels_test.c.
*/
#include "../../core/kernels/half.h"

enum { ROWS_MOST = 20, KEYS_MOST = 40, PIECE = ROWS_MOST * KEYS_MOST };

static _Alignas(8) char raw_piece[8][PIECE * 8];
static double piece[8][PIECE];

static void expect_piece (const char *name, int which, int i, double wanted, bool wide) {
  const double got = take(raw_piece[which], i, wide);
  if (!(fabs(got - wanted) <= (wide ? 1e-13 : 1e-5) * (1 + fabs(wanted))))
    complain("value", name, got, wanted);
}

static void one_turn (const marea_kernels *k, int rows, int n, bool wide) {
  k->turn((size_t)rows, (size_t)n, KEYS_MOST, raw_piece[0], ROWS_MOST, raw_piece[1]);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < n; j++)
      if (take(raw_piece[1], j * ROWS_MOST + i, wide) != piece[0][i * KEYS_MOST + j])
        complain("value", "turn", take(raw_piece[1], j * ROWS_MOST + i, wide), piece[0][i * KEYS_MOST + j]);
}

static void one_mask (const marea_kernels *k, int n, bool wide) {
  for (int step = 0; step < 2; step++) {
    random_array(piece[2], raw_piece[2], n, wide);
    k->add_mask((size_t)n, raw_piece[0], (size_t)step, raw_piece[2]);
    for (int i = 0; i < n; i++) expect_piece("add_mask", 2, i, piece[2][i] + piece[0][i * step], wide);
  }
}

enum { WHOLE = 64 }; /* KEYS_MOST in pairs of the widest vectors */
static uint16_t rounded_piece[ROWS_MOST * WHOLE];

/* Called before softmax_piece itself, which leaves the exponentials in the scores. */
static void round_softmax_piece (const marea_kernels *k, int rows, int n, int width) {
  static char copy[5][PIECE * 8];
  memcpy(copy, raw_piece, sizeof copy);
  memset(rounded_piece, 1, sizeof rounded_piece);
  k->softmax_piece((size_t)rows, (size_t)n, KEYS_MOST, copy[0], copy[2], copy[3], (size_t)width, copy[4],
                   rounded_piece, WHOLE);
}

static void expect_rounded (int rows, int n) {
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < WHOLE; j++) {
      const double e = j < n ? take(raw_piece[0], i * KEYS_MOST + j, false) : 0;
      const uint16_t got = rounded_piece[i * WHOLE + j];
      if (got != to_bf16((float)e)) complain("value", "softmax_piece p", from_bf16(got), e);
    }
}

/* Scores 0, largest ones so far 2, sums 3, values 4 */
static void one_softmax_piece (const marea_kernels *k, int rows, int n, int width, bool wide) {
  for (int i = 2; i < 5; i++) random_array(piece[i], raw_piece[i], PIECE, wide);
  if (!wide) round_softmax_piece(k, rows, n, width);
  k->softmax_piece((size_t)rows, (size_t)n, KEYS_MOST, raw_piece[0], raw_piece[2], raw_piece[3],
                   (size_t)width, raw_piece[4], NULL, 0);
  if (!wide) expect_rounded(rows, n);
  for (int i = 0; i < rows; i++) {
    double most = piece[2][i], sum = piece[3][i];
    for (int j = 0; j < n; j++) most = fmax(most, piece[0][i * KEYS_MOST + j]);
    sum *= exp(piece[2][i] - most);
    for (int j = 0; j < n; j++) {
      const double e = exp(piece[0][i * KEYS_MOST + j] - most);
      expect_piece("softmax_piece exp", 0, i * KEYS_MOST + j, e, wide);
      sum += e;
    }
    expect_piece("softmax_piece max", 2, i, most, wide);
    expect_piece("softmax_piece sum", 3, i, sum, wide);
    for (int j = 0; j < width; j++)
      expect_piece("softmax_piece y", 4, i * width + j, piece[4][i * width + j] * exp(piece[2][i] - most),
                   wide);
  }
}

/* Scores 0, dp 1, keep 2 or none, lse 3, shift 4 */
static void one_softmax_piece_grad (const marea_kernels *k, int rows, int n, bool drop, bool wide) {
  for (int i = 0; i < 5; i++) random_array(piece[i], raw_piece[i], PIECE, wide);
  k->softmax_piece_grad((size_t)rows, (size_t)n, KEYS_MOST, raw_piece[0], raw_piece[1],
                        drop ? raw_piece[2] : NULL, raw_piece[3], raw_piece[4]);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < n; j++) {
      const int at = i * KEYS_MOST + j;
      const double p = exp(piece[0][at] - piece[3][i]), keep = drop ? piece[2][at] : 1;
      expect_piece("softmax_piece_grad p", 0, at, p * keep, wide);
      expect_piece("softmax_piece_grad ds", 1, at, p * (keep * piece[1][at] - piece[4][i]), wide);
    }
}

/* Query 0, keys 1, v 2, d 3 */
static void one_tanh_dot (const marea_kernels *k, int rows, int n, bool wide) {
  for (int i = 0; i < 8; i++) random_array(piece[i], raw_piece[i], PIECE, wide);
  k->tanh_dot((size_t)rows, (size_t)n, KEYS_MOST, raw_piece[0], raw_piece[1], raw_piece[2], raw_piece[4]);
  k->tanh_dot_grad((size_t)rows, (size_t)n, KEYS_MOST, raw_piece[0], raw_piece[1], raw_piece[2], raw_piece[3],
                   raw_piece[5], raw_piece[6], raw_piece[7]);
  double sum[ROWS_MOST] = {0};
  for (int j = 0; j < n; j++) {
    double dq = 0, dv = piece[7][j];
    for (int i = 0; i < rows; i++) {
      const double t = tanh(piece[0][j] + piece[1][i * KEYS_MOST + j]),
                   e = piece[3][i] * piece[2][j] * (1 - t * t);
      sum[i] += piece[2][j] * t;
      dq += e;
      dv += piece[3][i] * t;
      expect_piece("tanh_dot_grad dk", 6, i * KEYS_MOST + j, piece[6][i * KEYS_MOST + j] + e, wide);
    }
    expect_piece("tanh_dot_grad dq", 5, j, dq, wide);
    expect_piece("tanh_dot_grad dv", 7, j, dv, wide);
  }
  for (int i = 0; i < rows; i++) expect_piece("tanh_dot", 4, i, sum[i], wide);
}

static void check_attention (const marea_kernels *k, bool wide) {
  for (int round = 0; round < 200; round++) {
    const int rows = below(ROWS_MOST + 1), n = below(KEYS_MOST + 1);
    random_array(piece[0], raw_piece[0], PIECE, wide);
    one_turn(k, rows, n, wide);
    one_mask(k, n, wide);
    one_softmax_piece(k, rows, n, below(KEYS_MOST), wide);
    one_softmax_piece_grad(k, rows, n, round % 2, wide);
    one_tanh_dot(k, rows, n, wide);
  }
  end_group(wide ? "attention f64" : "attention f32");
}
