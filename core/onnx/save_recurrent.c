/* SPDX-License-Identifier: MIT
** save_recurrent.c: recurrent layers. ONNX has time first, weights with a row for each output and a direction in front, and
** gates in an order of its own.
*/
#include <stdio.h>

#include "save.h"

#define MOST_GATES 4
#define ONNX_INT32_TYPE 6

typedef struct cell {
  const char *op;
  int gates;
  int order[MOST_GATES];             /* Marea's gates in ONNX's order */
  int bias, bias_h, h0, c0, lengths; /* inputs; -1: it has none */
} cell;

static const cell rnn = {"RNN", 1, {0}, 3, -1, 4, -1, 5};
static const cell lstm = {"LSTM", 4, {0, 3, 1, 2}, 3, -1, 4, 5, 6}; /* i f g o -> i o f g */
static const cell gru = {"GRU", 3, {1, 0, 2}, 3, 4, 5, -1, 6};      /* r z n -> z r n */

static marea_status new_tensor (onnx_saver *s, int dtype, int rank, const int64_t *shape,
                                marea_tensor **out) {
  marea_layout l;
  marea_layout_set(&l, dtype, rank, shape);
  return marea_tensor_new(s->ctx, "onnx.save", &l, out);
}

/* (1, gates H, rows) of (rows, gates H) */
static marea_status arrange_weight (onnx_saver *s, marea_tensor *t, const void *arg, marea_tensor **out) {
  const cell *k = arg;
  const int64_t rows = t->shape[0], all = t->shape[1], h = all / k->gates;
  marea_tensor *dense;
  MAREA_TRY(marea_run(s->ctx, &marea_op_contiguous, &dense, 1, t));
  const marea_status status = new_tensor(s, t->dtype, 3, (int64_t[]){1, all, rows}, out);
  for (int64_t i = 0; i < all && status == MAREA_OK; i++)
    for (int64_t r = 0; r < rows; r++) {
      const int64_t from = r * all + k->order[i / h] * h + i % h;
      marea_store(t->dtype, marea_at(*out), i * rows + r, marea_load(t->dtype, marea_at(dense), from));
    }
  marea_release(dense);
  return status;
}

typedef struct biases {
  const cell *cell;
  marea_tensor *bias, *bias_h; /* (gates H), and of GRU's last gate (H); NULL: none */
} biases;

/* (1, 2 gates H): of the products of x, then of those of the state */
static marea_status arrange_bias (onnx_saver *s, marea_tensor *t, const void *arg, marea_tensor **out) {
  const biases *b = arg;
  const cell *k = b->cell;
  const int64_t h = b->bias ? b->bias->shape[0] / k->gates : t->shape[0], all = k->gates * h;
  marea_tensor *dense[2] = {NULL, NULL}, *own[] = {b->bias, b->bias_h};
  marea_status status = new_tensor(s, t->dtype, 2, (int64_t[]){1, 2 * all}, out);
  for (int i = 0; i < 2 && status == MAREA_OK; i++)
    if (own[i]) status = marea_run(s->ctx, &marea_op_contiguous, &dense[i], 1, own[i]);
  for (int64_t i = 0; i < 2 * all && status == MAREA_OK; i++) {
    const int64_t gate = i / h;
    double v = 0;
    if (i < all && dense[0]) v = marea_load(t->dtype, marea_at(dense[0]), k->order[gate] * h + i % h);
    if (gate == 2 * k->gates - 1 && dense[1]) v = marea_load(t->dtype, marea_at(dense[1]), i % h);
    marea_store(t->dtype, marea_at(*out), i, v);
  }
  for (int i = 0; i < 2; i++) marea_release(dense[i]);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status;
}

static bool has_input (const onnx_saver *s, int i) { return i >= 0 && is_given(s, i); }

static const char *bias_of (onnx_saver *s, const cell *k) {
  const bool own = has_input(s, k->bias), state = has_input(s, k->bias_h);
  const int from = own ? k->bias : k->bias_h;
  const biases b = {k, own ? constant_in(s, k->bias) : NULL, state ? constant_in(s, k->bias_h) : NULL};
  char key[48];
  if (!own && !state) return NULL;
  if (own && state && !b.bias_h) marea_onnx_save_reject(s, "argument 'bias_h' depends on the inputs");
  snprintf(key, sizeof key, "%s biases %d", k->op, state ? slot_in(s, k->bias_h) : -1);
  return marea_onnx_made(s, from, key, arrange_bias, &b);
}

static const char *state_of (onnx_saver *s, int i) {
  return has_input(s, i) ? NODE(s, "Unsqueeze", plain(s, i), index1(s, 0)) : NULL;
}

/* The state at the end of row, which ONNX Runtime gives as zero where a row has no steps */
static const char *at_end (onnx_saver *s, const cell *k, const char *x, const char *initial) {
  x = NODE(s, "Squeeze", x, index1(s, 0));
  if (!initial || !has_input(s, k->lengths)) return x;
  const char *lengths = marea_onnx_typed(s, k->lengths, ONNX_INT64);
  const char *empty = NODE(s, "Equal", lengths, marea_onnx_number(s, 0, ONNX_INT64));
  return NODE(s, "Where", NODE(s, "Unsqueeze", empty, index1(s, 1)),
              NODE(s, "Squeeze", initial, index1(s, 0)), x);
}

static void put_attributes (onnx_saver *s, const cell *k, int64_t hidden) {
  static const char *const plain_of[] = {"Tanh", "Relu"}, *const gate[] = {"Sigmoid", "HardSigmoid"};
  const char *inner = k == &rnn ? plain_of[attr_i(s, "activation")] : gate[attr_i(s, "recurrent_activation")];
  const char *const names[] = {inner, "Tanh", "Tanh"};
  marea_onnx_put_int(s, "hidden_size", hidden);
  marea_onnx_put_text(s, "direction", attr_i(s, "reverse") ? "reverse" : "forward");
  marea_onnx_put_texts(s, "activations", k == &rnn ? 1 : k == &gru ? 2 : 3, names);
  if (k == &gru) marea_onnx_put_int(s, "linear_before_reset", attr_i(s, "reset_after"));
}

static void run_cell (onnx_saver *s, const cell *k) {
  const int64_t hidden = layout_in(s, 2)->shape[0], turned[] = {1, 0, 2};
  const char *x = marea_onnx_permuted(s, plain(s, 0), 3, turned);
  const char *w = marea_onnx_made(s, 1, k->op, arrange_weight, k),
             *r = marea_onnx_made(s, 2, k->op, arrange_weight, k);
  const char *bias = bias_of(s, k), *h0 = state_of(s, k->h0), *c0 = state_of(s, k->c0);
  const char *lengths = has_input(s, k->lengths) ? marea_onnx_typed(s, k->lengths, ONNX_INT64) : NULL;
  if (k->c0 >= 0 && !h0 != !c0) {
    const char *zeros = NODE(s, "Mul", h0 ? h0 : c0,
                             marea_onnx_number(s, 0, marea_onnx_type_of(layout_in(s, 0)->dtype)));
    h0 = h0 ? h0 : zeros;
    c0 = c0 ? c0 : zeros;
  }
  if (lengths) lengths = marea_onnx_cast_to(s, lengths, ONNX_INT32_TYPE);
  const char *y = NODE(s, k->op, x, w, r, bias, lengths, h0, c0), *state[2];
  for (int i = 0; i < s->c->n_out - 1; i++) state[i] = marea_onnx_result(s);
  put_attributes(s, k, hidden);
  y = NODE(s, "Squeeze", y, index1(s, 1));
  put(s, 0, marea_onnx_permuted(s, y, 3, turned));
  for (int i = 0; i < s->c->n_out - 1; i++) put(s, 1 + i, at_end(s, k, state[i], i == 0 ? h0 : c0));
}

SAVE(rnn) { run_cell(s, &rnn); }
SAVE(lstm) { run_cell(s, &lstm); }
SAVE(gru) { run_cell(s, &gru); }
