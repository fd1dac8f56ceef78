/* SPDX-License-Identifier: MIT
** recurrent_cases.h: the kernels of recurrent cells against their formulas in double; a part of kernels_test.c.
*/
enum { CELL = 70 }; /* units at most */

static double logistic (double x, bool hard) {
  return hard ? fmax(0, fmin(1, 0.2 * x + 0.5)) : 1 / (1 + exp(-x));
}

static double logistic_slope (double y, bool hard) {
  if (hard) return y > 0 && y < 1 ? 0.2 : 0;
  return y * (1 - y);
}

static _Alignas(8) char raw_cell[12][4 * CELL * 8];
static double cell[12][4 * CELL];

static void random_cell (int which, int n, bool wide) { random_array(cell[which], raw_cell[which], n, wide); }

static void expect_cell (const char *name, int which, int i, double wanted, bool wide) {
  const double got = take(raw_cell[which], i, wide);
  if (!(fabs(got - wanted) <= (wide ? 1e-14 : 2e-6) * (1 + fabs(wanted)))) complain("value", name, got, wanted);
}

static void one_lstm_cell (const marea_kernels *k, int n, bool hard, bool wide) {
  memcpy(raw_cell[7], raw_cell[2], sizeof raw_cell[2]); /* c */
  k->lstm_cell((size_t)n, raw_cell[0], hard, raw_cell[7], raw_cell[6], raw_cell[8]);
  for (int i = 0; i < n; i++) {
    double a[4];
    for (int g = 0; g < 4; g++) a[g] = cell[0][g * n + i];
    const double in = logistic(a[0], hard), forget = logistic(a[1], hard), out = logistic(a[3], hard);
    const double c = forget * cell[2][i] + in * tanh(a[2]);
    expect_cell("lstm_cell i", 6, i, in, wide);
    expect_cell("lstm_cell f", 6, n + i, forget, wide);
    expect_cell("lstm_cell g", 6, 2 * n + i, tanh(a[2]), wide);
    expect_cell("lstm_cell o", 6, 3 * n + i, out, wide);
    expect_cell("lstm_cell c", 7, i, c, wide);
    expect_cell("lstm_cell h", 8, i, out * tanh(c), wide);
  }
  memcpy(raw_cell[9], raw_cell[2], sizeof raw_cell[2]);
  k->lstm_cell((size_t)n, raw_cell[0], hard, raw_cell[9], NULL, raw_cell[10]);
  for (int i = 0; i < n; i++)
    if (take(raw_cell[10], i, wide) != take(raw_cell[8], i, wide))
      complain("value", "lstm_cell without gates", take(raw_cell[10], i, wide), take(raw_cell[8], i, wide));
}

static void one_lstm_cell_grad (const marea_kernels *k, int n, bool hard, bool wide) {
  memcpy(raw_cell[6], raw_cell[5], sizeof raw_cell[5]); /* dc */
  k->lstm_cell_grad((size_t)n, raw_cell[0], raw_cell[2], raw_cell[3], raw_cell[4], hard, raw_cell[6], raw_cell[7]);
  for (int i = 0; i < n; i++) {
    const double *g = cell[0], in = g[i], forget = g[n + i], new = g[2 * n + i], out = g[3 * n + i];
    const double c = tanh(cell[3][i]), dh = cell[4][i], dc = cell[5][i] + dh * out * (1 - c * c);
    expect_cell("lstm_cell_grad i", 7, i, dc * new * logistic_slope(in, hard), wide);
    expect_cell("lstm_cell_grad f", 7, n + i, dc * cell[2][i] * logistic_slope(forget, hard), wide);
    expect_cell("lstm_cell_grad g", 7, 2 * n + i, dc * in * (1 - new * new), wide);
    expect_cell("lstm_cell_grad o", 7, 3 * n + i, dh * c * logistic_slope(out, hard), wide);
    expect_cell("lstm_cell_grad c", 6, i, dc * forget, wide);
  }
}

static void one_gru_cell (const marea_kernels *k, int n, bool hard, bool wide) {
  k->recurrent_gate((size_t)n, raw_cell[0], raw_cell[1], hard, raw_cell[6]);
  k->gru_update((size_t)n, raw_cell[0], raw_cell[1], raw_cell[2], raw_cell[3], raw_cell[7], raw_cell[8]);
  memcpy(raw_cell[9], raw_cell[4], sizeof raw_cell[4]); /* dh */
  k->gru_update_grad((size_t)n, raw_cell[0], raw_cell[1], raw_cell[2], hard, raw_cell[9], raw_cell[10], raw_cell[11]);
  for (int i = 0; i < n; i++) {
    const double a = cell[0][i] + cell[1][i], z = cell[0][i], new = cell[1][i], dh = cell[4][i];
    expect_cell("recurrent_gate", 6, i, logistic(a, hard), wide);
    expect_cell("gru_update n", 7, i, tanh(a), wide);
    expect_cell("gru_update h", 8, i, (1 - cell[2][i]) * tanh(a) + cell[2][i] * cell[3][i], wide);
    expect_cell("gru_update_grad h", 9, i, dh * z, wide);
    expect_cell("gru_update_grad z", 10, i, dh * (cell[2][i] - new) * logistic_slope(z, hard), wide);
    expect_cell("gru_update_grad n", 11, i, dh * (1 - z) * (1 - new * new), wide);
  }
  k->gru_reset_grad((size_t)n, raw_cell[0], raw_cell[1], raw_cell[2], hard, raw_cell[6], raw_cell[7]);
  for (int i = 0; i < n; i++) {
    expect_cell("gru_reset_grad r", 6, i, cell[2][i] * cell[1][i] * logistic_slope(cell[0][i], hard), wide);
    expect_cell("gru_reset_grad x", 7, i, cell[2][i] * cell[0][i], wide);
  }
}

static void one_rnn_cell (const marea_kernels *k, int n, bool relu, bool wide) {
  k->rnn_cell((size_t)n, raw_cell[0], raw_cell[1], relu, raw_cell[6]);
  k->rnn_cell_grad((size_t)n, raw_cell[2], raw_cell[3], relu, raw_cell[7]);
  for (int i = 0; i < n; i++) {
    const double a = cell[0][i] + cell[1][i], y = cell[2][i], dh = cell[3][i];
    expect_cell("rnn_cell", 6, i, relu ? fmax(a, 0) : tanh(a), wide);
    expect_cell("rnn_cell_grad", 7, i, relu ? (y > 0 ? dh : 0) : dh * (1 - y * y), wide);
  }
}

static void check_recurrent (const marea_kernels *k, bool wide) {
  for (int round = 0; round < 200; round++) {
    const int n = below(CELL + 1);
    const bool option = round % 2;
    for (int i = 0; i < 6; i++) random_cell(i, 4 * n, wide);
    one_lstm_cell(k, n, option, wide);
    one_lstm_cell_grad(k, n, option, wide);
    one_gru_cell(k, n, option, wide);
    one_rnn_cell(k, n, option, wide);
  }
  end_group(wide ? "recurrent cells f64" : "recurrent cells f32");
}
