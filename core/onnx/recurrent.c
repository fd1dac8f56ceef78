/* SPDX-License-Identifier: MIT
** recurrent.c: ONNX's RNN, GRU and LSTM. With the usual activations a direction is one operator of Marea; with others, a
** limit of what goes into them (clip) or peepholes it is written out step by step.
*/
#include "window.h"

#define MOST_GATES 4
#define MOST_ACTIVATIONS 3

typedef struct activation {
  const char *name;
  double alpha, beta;
} activation;

typedef struct kind { /* of a layer */
  const char *op;
  int gates, order[MOST_GATES]; /* Marea's k-th gate is ONNX's order[k]-th */
  int n_act;
  const char *usual[MOST_ACTIVATIONS];
} kind;

static const kind rnn = {"rnn", 1, {0}, 1, {"Tanh"}};
static const kind gru = {"gru", 3, {1, 0, 2}, 2, {"Sigmoid", "Tanh"}};              /* z r n as r z n */
static const kind lstm = {"lstm", 4, {0, 2, 3, 1}, 3, {"Sigmoid", "Tanh", "Tanh"}}; /* i o f c as i f c o */

typedef struct layer {
  const kind *kind;
  bool batch_first, linear_reset; /* linear_reset: behind the product */
  int directions;
  int64_t rows, steps, hidden;
  double clip;        /* 0: none */
  value *x, *lengths; /* (N, T, C), (N) */
} layer;

typedef struct direction {
  bool reverse;
  activation act[MOST_ACTIVATIONS];
  value *w_x, *w_h, *b_x,
      *b_h;              /* (C, G H), (H, G H), (G H), (G H), in Marea's order of gates; NULL: no bias */
  value *h0, *c0, *peep; /* (N, H), (N, H), (3 H) in the order i o f; NULL: none */
} direction;

/* ---- reading ---- */

static value *selected (onnx_node *n, value *x, int dim, int64_t i) {
  return x ? CALL(n, "select", VALUES(x), NAMED(marea_int("dim", dim), marea_int("index", i))) : NULL;
}

static value *transposed (onnx_node *n, value *x) { return marea_onnx_permute(n, x, 2, (int[]){1, 0}); }

/* Blocks of `hidden` along the first dimension, from `first` on, in Marea's order */
static value *ordered (onnx_node *n, const layer *l, value *w, int first) {
  value *part[MOST_GATES];
  const int gates = l->kind->gates;
  if (!w) return NULL;
  for (int k = 0; k < gates; k++)
    part[k] = marea_onnx_narrow(n, w, 0, (first + l->kind->order[k]) * l->hidden, l->hidden);
  return gates == 1 ? part[0] : marea_onnx_call(n, "concat", gates, part, NAMED(marea_int("dim", 0)));
}

static bool has_sizes (onnx_node *n, int i, const value *v, int rank, const int64_t *shape) {
  if (goes_on(n) && v && !marea_has_shape(v->t, rank, shape))
    marea_onnx_reject(n, "input %d: %s has not the sizes that belong to the others", i + 1,
                      marea_tensor_text(v->t).s);
  return goes_on(n);
}

static bool is_text (ProtobufCBinaryData s, const char *text) {
  return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

/* What the activations take, with what is taken where nothing is said; read in order by those that take it */
static const struct {
  const char *name;
  bool takes_alpha, takes_beta;
  double alpha, beta;
} activations[] = {{"Sigmoid", false, false, 0, 0},
                   {"Tanh", false, false, 0, 0},
                   {"Relu", false, false, 0, 0},
                   {"Softsign", false, false, 0, 0},
                   {"Softplus", false, false, 0, 0},
                   {"LeakyRelu", true, false, 0.01, 0},
                   {"ThresholdedRelu", true, false, 1, 0},
                   {"Elu", true, false, 1, 0},
                   {"HardSigmoid", true, true, 0.2, 0.5},
                   {"ScaledTanh", true, true, 1, 1},
                   {"Affine", true, true, 1, 0}};

static bool find_activation (ProtobufCBinaryData name, size_t *found) {
  for (*found = 0; *found < MAREA_COUNT(activations); ++*found)
    if (is_text(name, activations[*found].name)) return true;
  return false;
}

/* Those of all directions */
static void read_activations (onnx_node *n, const layer *l, activation *act) {
  const Marea__AttributeProto *names = marea_onnx_attribute(n, "activations"),
                              *alpha = marea_onnx_attribute(n, "activation_alpha"),
                              *beta = marea_onnx_attribute(n, "activation_beta");
  const size_t count = (size_t)(l->directions * l->kind->n_act);
  size_t a = 0, b = 0;
  for (size_t k = 0; k < count; k++)
    act[k] = (activation){.name = l->kind->usual[k % (size_t)l->kind->n_act]};
  if (!names) return;
  if (names->n_strings != count)
    marea_onnx_reject(n, "%zu activations, expected %zu", names->n_strings, count);
  for (size_t k = 0, i; k < count && goes_on(n); k++) {
    if (!find_activation(names->strings[k], &i)) {
      marea_onnx_reject(n, "an activation is not known");
      return;
    }
    act[k] = (activation){
        .name = activations[i].name, .alpha = activations[i].alpha, .beta = activations[i].beta};
    if (activations[i].takes_alpha && alpha && a < alpha->n_floats) act[k].alpha = (double)alpha->floats[a++];
    if (activations[i].takes_beta && beta && b < beta->n_floats) act[k].beta = (double)beta->floats[b++];
  }
}

static bool is_usual (const kind *k, const activation *act) {
  if (k == &rnn && strcmp(act->name, "Relu") == 0) return true;
  for (int i = 0; i < k->n_act; i++)
    if (strcmp(act[i].name, k->usual[i]) != 0) return false;
  return true;
}

/* With T and N in this order unless the layout is 1 */
static value *batch_first (onnx_node *n, const layer *l, value *x) {
  return !x || l->batch_first ? x : marea_onnx_permute(n, x, 3, (int[]){1, 0, 2});
}

static bool read_layer (onnx_node *n, const kind *k, layer *l) {
  value *x = input(n, 0), *recurrent = input(n, 2);
  if (goes_on(n) && (rank_of(x) != 3 || rank_of(recurrent) != 3))
    marea_onnx_reject(n, "expected inputs 1 and 3 of rank 3");
  if (!goes_on(n)) return false;
  *l = (layer){.kind = k,
               .batch_first = int_of(n, "layout", 0),
               .linear_reset = int_of(n, "linear_before_reset", 0),
               .directions = marea_onnx_is(n, "direction", "forward", "bidirectional") ? 2 : 1,
               .hidden = size_of(recurrent, 2),
               .clip = float_of(n, "clip", 0),
               .lengths = optional(n, 4)};
  l->x = batch_first(n, l, x);
  l->rows = size_of(l->x, 0);
  l->steps = size_of(l->x, 1);
  if (int_of(n, "input_forget", 0)) marea_onnx_reject(n, "attribute 'input_forget': only 0 is supported");
  const int64_t D = l->directions, H = l->hidden, G = k->gates;
  has_sizes(n, 1, input(n, 1), 3, (int64_t[]){D, G * H, size_of(x, 2)});
  has_sizes(n, 2, recurrent, 3, (int64_t[]){D, G * H, H});
  has_sizes(n, 3, optional(n, 3), 2, (int64_t[]){D, 2 * G * H});
  return has_sizes(n, 4, l->lengths, 1, &l->rows);
}

/* State i of one direction (N, H) */
static value *state (onnx_node *n, const layer *l, int i, int64_t k) {
  value *s = optional(n, i);
  const int64_t D = l->directions;
  has_sizes(n, i, s, 3,
            l->batch_first ? (int64_t[]){l->rows, D, l->hidden} : (int64_t[]){D, l->rows, l->hidden});
  return selected(n, s, l->batch_first ? 1 : 0, k);
}

static void read_direction (onnx_node *n, const layer *l, int64_t k, direction *d) {
  activation act[2 * MOST_ACTIVATIONS];
  value *bias = selected(n, optional(n, 3), 0, k);
  read_activations(n, l, act);
  if (!goes_on(n)) return;
  *d = (direction){.reverse = k == 1 || marea_onnx_is(n, "direction", "forward", "reverse"),
                   .w_x = transposed(n, ordered(n, l, selected(n, input(n, 1), 0, k), 0)),
                   .w_h = transposed(n, ordered(n, l, selected(n, input(n, 2), 0, k), 0)),
                   .b_x = ordered(n, l, bias, 0),
                   .b_h = ordered(n, l, bias, l->kind->gates),
                   .h0 = state(n, l, 5, k)};
  memcpy(d->act, act + k * l->kind->n_act, (size_t)l->kind->n_act * sizeof act[0]);
  if (l->kind != &lstm) return;
  d->c0 = state(n, l, 6, k);
  value *peep = optional(n, 7);
  has_sizes(n, 7, peep, 2, (int64_t[]){l->directions, 3 * l->hidden});
  d->peep = selected(n, peep, 0, k);
}

/* ---- by one operator: out gets y (N, T, H), h and c (N, H) ---- */

/* The bias of x and of the state as one; *rest: that of the reset product, which stays apart */
static value *joint_bias (onnx_node *n, const layer *l, const direction *d, value **rest) {
  *rest = NULL;
  if (!d->b_x || l->kind != &gru || !l->linear_reset) return d->b_x ? add(n, d->b_x, d->b_h) : NULL;
  value *gates = marea_onnx_narrow(n, d->b_h, 0, 0, 2 * l->hidden);
  *rest = marea_onnx_narrow(n, d->b_h, 0, 2 * l->hidden, l->hidden);
  return add(n, d->b_x, marea_onnx_pad(n, gates, 0, 0, l->hidden, 0));
}

static void run_whole (onnx_node *n, const layer *l, const direction *d, value **out) {
  value *rest, *bias = joint_bias(n, l, d, &rest);
  const marea_named reverse = marea_int("reverse", d->reverse);
  if (l->kind == &gru)
    marea_onnx_call_all(n, "gru", VALUES(l->x, d->w_x, d->w_h, bias, rest, d->h0, l->lengths),
                        NAMED(reverse, marea_int("reset_after", l->linear_reset)), 2, out);
  else if (l->kind == &lstm)
    marea_onnx_call_all(n, "lstm", VALUES(l->x, d->w_x, d->w_h, bias, d->h0, d->c0, l->lengths),
                        NAMED(reverse), 3, out);
  else
    marea_onnx_call_all(
        n, "rnn", VALUES(l->x, d->w_x, d->w_h, bias, d->h0, l->lengths),
        NAMED(reverse, marea_word("activation", strcmp(d->act[0].name, "Relu") == 0 ? "relu" : "tanh")), 2,
        out);
}

/* ---- step by step ---- */

static value *number (onnx_node *n, double v, const value *like) {
  return marea_onnx_scalar(n, v, dtype_of(like));
}

static value *limited (onnx_node *n, value *x, double low, double high) {
  return CALL(n, "clamp", VALUES(x), NAMED(marea_real("min", low), marea_real("max", high)));
}

static value *activated (onnx_node *n, const layer *l, const activation *a, value *x) {
  if (l->clip > 0) x = limited(n, x, -l->clip, l->clip);
  if (strcmp(a->name, "Sigmoid") == 0) return op1(n, "sigmoid", x);
  if (strcmp(a->name, "Tanh") == 0) return op1(n, "tanh", x);
  if (strcmp(a->name, "Relu") == 0) return op1(n, "relu", x);
  if (strcmp(a->name, "Softplus") == 0) return op1(n, "softplus", x);
  if (strcmp(a->name, "Softsign") == 0) return divide(n, x, plus(n, op1(n, "abs", x), 1));
  if (strcmp(a->name, "LeakyRelu") == 0)
    return CALL(n, "leaky_relu", VALUES(x), NAMED(marea_real("slope", a->alpha)));
  if (strcmp(a->name, "Elu") == 0) return CALL(n, "elu", VALUES(x), NAMED(marea_real("alpha", a->alpha)));
  if (strcmp(a->name, "ThresholdedRelu") == 0)
    return where(n, op2(n, "gt", x, number(n, a->alpha, x)), x, number(n, 0, x));
  if (strcmp(a->name, "ScaledTanh") == 0) return times(n, op1(n, "tanh", times(n, x, a->beta)), a->alpha);
  x = plus(n, times(n, x, a->alpha), a->beta);
  return strcmp(a->name, "HardSigmoid") == 0 ? limited(n, x, 0, 1) : x;
}

/* Gate k of (N, G H) */
static value *gate (onnx_node *n, const layer *l, value *a, int k) {
  return marea_onnx_narrow(n, a, rank_of(a) - 1, k * l->hidden, l->hidden);
}

static value *state_product (onnx_node *n, value *h, value *w, value *bias) {
  value *a = op2(n, "matmul", h, w);
  return bias ? add(n, a, bias) : a;
}

/* a + c p, p being part k of the peepholes */
static value *with_peephole (onnx_node *n, const layer *l, const direction *d, value *a, value *c, int k) {
  return d->peep ? add(n, a, mul(n, c, gate(n, l, d->peep, k))) : a;
}

/* One step: `a` is x w_x + b_x; h and c become the next ones. */
static void step_lstm (onnx_node *n, const layer *l, const direction *d, value *a, value **h, value **c) {
  a = add(n, a, state_product(n, *h, d->w_h, d->b_h));
  value *i = activated(n, l, &d->act[0], with_peephole(n, l, d, gate(n, l, a, 0), *c, 0));
  value *f = activated(n, l, &d->act[0], with_peephole(n, l, d, gate(n, l, a, 1), *c, 2));
  value *g = activated(n, l, &d->act[1], gate(n, l, a, 2));
  *c = add(n, mul(n, f, *c), mul(n, i, g));
  value *o = activated(n, l, &d->act[0], with_peephole(n, l, d, gate(n, l, a, 3), *c, 1));
  *h = mul(n, o, activated(n, l, &d->act[2], *c));
}

/* Columns of gate k of w_h or b_h */
static value *columns (onnx_node *n, const layer *l, value *w, int k) { return w ? gate(n, l, w, k) : NULL; }

static void step_gru (onnx_node *n, const layer *l, const direction *d, value *a, value **h) {
  value *gates[2];
  for (int k = 0; k < 2; k++) {
    value *product = state_product(n, *h, columns(n, l, d->w_h, k), columns(n, l, d->b_h, k));
    gates[k] = activated(n, l, &d->act[0], add(n, gate(n, l, a, k), product));
  }
  value *w = columns(n, l, d->w_h, 2), *bias = columns(n, l, d->b_h, 2);
  value *inner = l->linear_reset ? mul(n, gates[0], state_product(n, *h, w, bias))
                                 : state_product(n, mul(n, gates[0], *h), w, bias);
  value *next = activated(n, l, &d->act[1], add(n, gate(n, l, a, 2), inner));
  *h = add(n, next, mul(n, gates[1], sub(n, *h, next)));
}

static void step (onnx_node *n, const layer *l, const direction *d, value *a, value **h, value **c) {
  if (l->kind == &lstm) step_lstm(n, l, d, a, h, c);
  else if (l->kind == &gru) step_gru(n, l, d, a, h);
  else *h = activated(n, l, &d->act[0], add(n, a, state_product(n, *h, d->w_h, d->b_h)));
}

static value *zeros (onnx_node *n, const layer *l) {
  return marea_onnx_expand(n, marea_onnx_scalar(n, 0, dtype_of(l->x)), 2, (int64_t[]){l->rows, l->hidden});
}

/* Rows that have ended, or have not begun from their end, keep their state. */
static void run_steps (onnx_node *n, const layer *l, const direction *d, value **out) {
  value **y = marea_onnx_room(n, l->steps, sizeof y[0]);
  value *all = state_product(n, l->x, d->w_x, d->b_x);
  value *h = d->h0 ? d->h0 : zeros(n, l), *c = d->c0 ? d->c0 : zeros(n, l),
        *zero = marea_onnx_scalar(n, 0, dtype_of(l->x));
  if (l->steps < 1) marea_onnx_reject(n, "expected at least one step");
  for (int64_t k = 0; k < l->steps && goes_on(n) && marea_onnx_may_turn(n, k); k++) {
    const int64_t t = d->reverse ? l->steps - 1 - k : k;
    value *before = h, *c_before = c;
    step(n, l, d, selected(n, all, 1, t), &h, &c);
    y[t] = h;
    if (!l->lengths) continue;
    value *counts = op2(n, "gt", l->lengths, marea_onnx_scalar(n, (double)t, dtype_of(l->lengths)));
    counts = marea_onnx_reshape(n, counts, 2, (int64_t[]){l->rows, 1});
    y[t] = where(n, counts, h, zero);
    h = where(n, counts, h, before);
    c = where(n, counts, c, c_before);
  }
  out[0] = goes_on(n) ? marea_onnx_call(n, "stack", (int)l->steps, y, NAMED(marea_int("dim", 1))) : NULL;
  out[1] = h;
  out[2] = c;
  marea_free(n->e->ctx, y);
}

/* ---- the whole layer ---- */

/* Results of the directions along a new dimension */
static value *both (onnx_node *n, const layer *l, value **part, int dim) {
  return goes_on(n) ? marea_onnx_call(n, "stack", l->directions, part, NAMED(marea_int("dim", dim))) : NULL;
}

static void run (onnx_node *n, const kind *k) {
  layer l;
  value *y[2], *h[2], *c[2];
  if (!read_layer(n, k, &l)) return;
  for (int i = 0; i < l.directions && goes_on(n); i++) {
    direction d;
    value *out[3] = {NULL};
    read_direction(n, &l, i, &d);
    if (!goes_on(n)) return;
    if (is_usual(k, d.act) && !d.peep && !(l.clip > 0)) run_whole(n, &l, &d, out);
    else run_steps(n, &l, &d, out);
    y[i] = batch_first(n, &l, out[0]);
    h[i] = out[1];
    c[i] = out[2];
  }
  give(n, 0, both(n, &l, y, l.batch_first ? 2 : 1)); /* (T, D, N, H), or (N, T, D, H) */
  give(n, 1, both(n, &l, h, l.batch_first ? 1 : 0));
  if (k == &lstm) give(n, 2, both(n, &l, c, l.batch_first ? 1 : 0));
}

HANDLER(RNN) { run(n, &rnn); }
HANDLER(GRU) { run(n, &gru); }
HANDLER(LSTM) { run(n, &lstm); }
