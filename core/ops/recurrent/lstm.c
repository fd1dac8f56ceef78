/* SPDX-License-Identifier: MIT
** lstm.c: one direction of one layer of long short-term memory, and its gradient (Hochreiter and Schmidhuber 1997, with the
** forget gate of Gers et al. 2000). At each step, with a = x_t w_x + bias + h w_h cut into four parts of H columns:
**
**   i = s(a1)   f = s(a2)   g = tanh(a3)   o = s(a4)      c := f c + i g      h := o tanh(c)
**
** Backward, with dh and dc as they arrive at a step: dc += dh o (1 - tanh(c)^2), da = (dc g i', dc c_before f', dc i g',
** dh tanh(c) o'); then dh := da w_h^T and dc := dc f go on to the step before. The gradients of x, of the weights and of the
** bias are matrix products over all steps at once.
*/
#include <string.h>

#include "sequence.h"
#include "ops/vjp.h"

enum { X, W_X, W_H, BIAS, H0, C0, LENGTHS };      /* ORDER of the inputs */
enum { REVERSE, RECURRENT_ACTIVATION, PRODUCTS }; /* ORDER of the attributes */
enum { Y, H_N, C_N, GATES, CELLS }; /* ORDER of the results; the last two are for the gradient */
static const marea_sequence_inputs inputs = {X, W_X, W_H, BIAS, H0, LENGTHS, 0};

static bool is_hard (const marea_attr *attr) { return attr[RECURRENT_ACTIVATION].i == 1; }

/* ---- lstm ---- */

static marea_status lstm_shape (marea_call *c) {
  MAREA_TRY(marea_sequence_shape(c, &inputs, 4));
  const marea_tensor *x = c->in[X];
  const int64_t n = x->shape[0], steps = x->shape[1], h = c->in[W_H]->shape[0];
  c->n_out = 5;
  marea_layout_set(&c->layout[Y], x->dtype, 3, (int64_t[]){n, steps, h});
  marea_layout_set(&c->layout[H_N], x->dtype, 2, (int64_t[]){n, h});
  c->layout[C_N] = c->layout[H_N];
  MAREA_TRY(marea_sequence_want(c, C0, &c->layout[C_N]));
  const int64_t kept = marea_wants_record(c) ? n : 0;
  marea_layout_set(&c->layout[GATES], x->dtype, 3, (int64_t[]){kept, steps, 4 * h});
  marea_layout_set(&c->layout[CELLS], x->dtype, 3, (int64_t[]){kept, steps, h});
  return MAREA_OK;
}

typedef struct lstm {
  marea_recurrence r; /* its work: c (rows, H) */
  marea_packed w_h;
  bool hard;
  const char *c0;      /* (N, H) */
  char *gates, *cells; /* (N, T, 4H): i, f, g, o; (N, T, H); NULL: no gradient is wanted */
  char *c_n;           /* (N, H) */
} lstm;

static void begin_rows (const marea_recurrence *r, marea_range rows, char *c) {
  const lstm *p = (const lstm *)r;
  const marea_sequence *s = &r->s;
  for (int64_t i = 0; i < rows.end - rows.first; i++)
    memcpy(marea_sequence_row(s, c, i, s->hidden),
           marea_sequence_row(s, p->c0, s->order[rows.first + i], s->hidden), (size_t)s->hidden * s->size);
}

static void end_rows (const marea_recurrence *r, marea_range rows, char *c) {
  const lstm *p = (const lstm *)r;
  const marea_sequence *s = &r->s;
  for (int64_t i = 0; i < rows.end - rows.first; i++)
    memcpy(marea_sequence_row(s, p->c_n, s->order[rows.first + i], s->hidden),
           marea_sequence_row(s, c, i, s->hidden), (size_t)s->hidden * s->size);
}

/* The rows of a block at a step */
typedef struct forward_rows {
  const lstm *p;
  const int64_t *order;
  int64_t step;
  char *h, *c, *a;
} forward_rows;

static void forward_row (void *arg, int64_t i, int worker) {
  const forward_rows *k = arg;
  const lstm *p = k->p;
  const marea_sequence *s = &p->r.s;
  const size_t bytes = (size_t)s->hidden * s->size;
  const int64_t at = marea_sequence_at(s, k->order[i], k->step);
  char *c = marea_sequence_row(s, k->c, i, s->hidden), *y = marea_sequence_row(s, p->r.y, at, s->hidden);
  (void)worker;
  s->kernels->lstm_cell((size_t)s->hidden, marea_sequence_row(s, k->a, i, s->gates), p->hard, c,
                        p->gates ? marea_sequence_row(s, p->gates, at, s->gates) : NULL, y);
  memcpy(k->h + (size_t)i * bytes, y, bytes);
  if (p->cells) memcpy(marea_sequence_row(s, p->cells, at, s->hidden), c, bytes);
}

static void forward_step (const marea_recurrence *r, marea_range rows, int64_t step, int64_t active, char *h,
                          char *work, char *a) {
  const lstm *p = (const lstm *)r;
  const marea_sequence *s = &r->s;
  forward_rows k = {p, s->order + rows.first, step, h, work, a};
  marea_sequence_multiply(s, &p->w_h, h, s->hidden, active, marea_sequence_narrow(s, work, r->per_row), a,
                          s->gates, true);
  marea_sequence_share(s, active, forward_row, &k);
}

/* c0 is the input behind h0. */
static marea_status run_layer (marea_call *c, const marea_sequence_inputs *at) {
  lstm p = {.hard = is_hard(c->attr), .c_n = marea_at(c->out[C_N])};
  marea_recurrence *r = &p.r;
  marea_sequence *s = &r->s;
  MAREA_TRY(marea_sequence_open(c, at, c->attr[REVERSE].i, s));
  if (s->n == 0 || s->hidden == 0) return MAREA_OK;
  MAREA_TRY(marea_recurrence_inputs(c, at, r, &p.w_h));
  MAREA_TRY(marea_sequence_first(c, s, at->h0, &r->h0));
  MAREA_TRY(marea_sequence_first(c, s, at->h0 + 1, &p.c0));
  r->y = marea_at(c->out[Y]);
  r->h_n = marea_at(c->out[H_N]);
  if (!s->bytes && c->out[GATES]->shape[0] > 0) {
    r->saved[0] = p.gates = marea_at(c->out[GATES]), r->width[0] = s->gates;
    r->saved[1] = p.cells = marea_at(c->out[CELLS]), r->width[1] = s->hidden;
  }
  r->per_row = s->hidden;
  r->step = forward_step;
  r->begin = begin_rows;
  r->end = end_rows;
  return marea_recurrence_run(c, r);
}

static marea_status lstm_forward (marea_call *c) { return run_layer(c, &inputs); }

static double lstm_flop (const marea_call *c) { return marea_sequence_flop(c, c->in[W_H], 1, 1); }

static marea_status lstm_vjp (marea_vjp *v) {
  marea_tensor *in[] = {v->in[X],  v->in[W_X],    v->in[W_H],    NULL,       NULL,         NULL,
                        v->out[Y], v->out[GATES], v->out[CELLS], v->dout[Y], v->dout[H_N], v->dout[C_N]};
  for (int i = H0; i <= LENGTHS && i < v->n_in; i++) in[3 + i - H0] = v->in[i];
  const marea_attr attr[] = {v->attr[REVERSE], v->attr[RECURRENT_ACTIVATION], marea_attr_int(v->need[X]),
                             v->attr[PRODUCTS]};
  return marea_sequence_vjp(v, &marea_op_lstm_grad, MAREA_COUNT(in), in, attr);
}

const marea_op marea_op_lstm = {
    .name = "lstm",
    .family = "recurrent",
    .doc = "One direction of one layer of long short-term memory over whole sequences: with a = x[:, t] w_x "
           "+ bias + h w_h "
           "in four parts, i = s(a1), f = s(a2), g = tanh(a3), o = s(a4): c = f c + i g, h = o tanh(c). x: "
           "(N, T, C); w_x: "
           "(C, 4H); w_h: (H, 4H); bias: (4H); h0, c0: (N, H), zeros when left out; lengths: i64 or u8 (N), "
           "steps that "
           "count in each row, 0 to T. Results: y (N, T, H), all h, zeros behind the end of a row; h_n, c_n "
           "(N, H), the "
           "states at its end. The order of gates, i f g o, is that of PyTorch and Keras (which writes i f c "
           "o). Gradient: "
           "to x, w_x, w_h, bias, h0, c0, once. Errors: sizes that do not fit, a length out of range (the "
           "first row is "
           "named). Source: Hochreiter and Schmidhuber 1997, Gers et al. 2000.",
    .inputs = {{"x", "(N, T, C)"},
               {"w_x", "(C, 4H)"},
               {"w_h", "(H, 4H)"},
               {"bias", "(4H)", .optional = true},
               {"h0", "(N, H)", .optional = true},
               {"c0", "(N, H)", .optional = true},
               {"lengths", "(N) steps of each row", .optional = true}},
    .attrs = MAREA_ATTRS(MAREA_SEQUENCE_REVERSE, MAREA_SEQUENCE_ACTIVATION, MAREA_PRODUCTS),
    .results = 3,
    .saves_in = 0x7f,
    .saves_out = 1 << Y | 1 << GATES | 1 << CELLS,
    .flags = MAREA_SHAPE_ONLY | MAREA_ROUNDS | MAREA_WIDE,
    .once = "nn.LSTMCell, called step by step",
    .sample = MAREA_SEQUENCE_SAMPLE
    "local inputs = {x, w(c, 4 * h), w(h, 4 * h), maybe(w(4 * h)), maybe(w(n, h)), maybe(w(n, h)), lengths} "
    "return inputs, {reverse = g.bool()}",
    .shape = lstm_shape,
    .forward = lstm_forward,
    .vjp = lstm_vjp,
    .flop = lstm_flop,
};

/* ---- lstm_int8 ---- */

enum { Q_X, Q_W_X, Q_W_X_SCALE, Q_W_H, Q_W_H_SCALE, Q_BIAS, Q_H0, Q_C0, Q_LENGTHS }; /* ORDER of its inputs */
enum { INPUTS = 2 };                                                                 /* behind REVERSE, .. */
static const marea_sequence_inputs int8_inputs = {Q_X, Q_W_X, Q_W_H, Q_BIAS, Q_H0, Q_LENGTHS, 4};

static marea_status lstm_int8_shape (marea_call *c) {
  const marea_tensor *x = c->in[Q_X];
  int64_t gates, h;
  MAREA_TRY(marea_want_rank(c, Q_X, 3, "(N, T, C)"));
  MAREA_TRY(marea_want_size(c, Q_X, 2, c->attr[INPUTS].i, "inputs, those of the weight"));
  MAREA_TRY(marea_int8_want(c, Q_W_X, 1, x->shape[2], &gates));
  h = gates / 4;
  MAREA_TRY(marea_want_rank(c, Q_W_H_SCALE, 1, "(4H)"));
  MAREA_TRY(marea_want_size(c, Q_W_X_SCALE, 0, c->in[Q_W_H_SCALE]->shape[0], "w_h_scale's size"));
  MAREA_TRY(marea_want_size(c, Q_W_X_SCALE, 0, 4 * h, "four gates"));
  MAREA_TRY(marea_int8_want(c, Q_W_H, 1, h, &gates));
  MAREA_TRY(marea_sequence_shape_rest(c, &int8_inputs, h, gates));
  c->n_out = 3;
  marea_layout_set(&c->layout[Y], x->dtype, 3, (int64_t[]){x->shape[0], x->shape[1], h});
  marea_layout_set(&c->layout[H_N], x->dtype, 2, (int64_t[]){x->shape[0], h});
  c->layout[C_N] = c->layout[H_N];
  return marea_sequence_want(c, Q_C0, &c->layout[C_N]);
}

static marea_status lstm_int8_forward (marea_call *c) { return run_layer(c, &int8_inputs); }

static double lstm_int8_flop (const marea_call *c) {
  const int64_t *x = c->in[Q_X]->shape, gates = c->in[Q_W_H_SCALE]->shape[0];
  return 2.0 * (double)(x[0] * x[1]) * (double)gates * (double)(x[2] + gates / 4);
}

const marea_op marea_op_lstm_int8 = {
    .name = "lstm_int8",
    .family = "recurrent",
    .doc =
        "lstm for inference on bytes, as linear_int8: w_x and w_h with their scales are quantize_int8's of "
        "(C, 4H) and (H, 4H); each step's x and h of each row become bytes, sums, gates and states are "
        "f32. x: f32 (N, T, C), results and the rest as lstm's. No gradient. Errors: as lstm's, x of "
        "another size than the weight's, f64.",
    .inputs = {{"x", "(N, T, C)"},
               {"w_x", "bytes"},
               {"w_x_scale", "(4H)"},
               {"w_h", "bytes"},
               {"w_h_scale", "(4H)"},
               {"bias", "(4H)", .optional = true},
               {"h0", "(N, H)", .optional = true},
               {"c0", "(N, H)", .optional = true},
               {"lengths", "(N) steps of each row", .optional = true}},
    .attrs = MAREA_ATTRS(
        MAREA_SEQUENCE_REVERSE, MAREA_SEQUENCE_ACTIVATION,
        {"inputs", MAREA_INT, MAREA_REQUIRED, NULL, "rows of w_x, which its bytes do not tell"}),
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .shape = lstm_int8_shape,
    .forward = lstm_int8_forward,
    .flop = lstm_int8_flop,
    .sample =
        "local d = g.shape(3, 3, 0, 4) local n, t, c, h = d[1], d[2], d[3], g.int(0, 9)\n"
        "local function f32(...) return g.tensor({...}, {dtype = 'f32', lo = 0, hi = 0.01}) end\n"
        "local function maybe(x) if g.bool() then return x end end\n"
        "local function bytes(k) return g.tensor({(4 * h + 15) // 16, (k + 3) // 4 * 64 + 64}, "
        "{dtype = 'u8', lo = 0, hi = 255}) end\n"
        "return {f32(n, t, c), bytes(c), f32(4 * h), bytes(h), f32(4 * h), maybe(f32(4 * h)), maybe(f32(n, "
        "h)), "
        "maybe(f32(n, h)), maybe(g.tensor({n}, {dtype = 'i64', lo = 0, hi = t}))}, {inputs = c, reverse = "
        "g.bool()}",
};

/* ---- lstm_grad ---- */

enum {
  G_X,
  G_W_X,
  G_W_H,
  G_H0,
  G_C0,
  G_LENGTHS,
  G_Y,
  G_GATES,
  G_CELLS,
  DY,
  DH_N,
  DC_N
};                                        /* ORDER of its inputs */
enum { DX, DW_X, DW_H, DBIAS, DH0, DC0 }; /* and results */
enum { WANT_DX = 2 };
static const marea_recurrence_grad_places places = {
    {G_X, G_W_X, G_W_H, -1, G_H0, G_LENGTHS}, G_Y, DY, DH_N, DH0};

static marea_status lstm_grad_shape (marea_call *c) {
  MAREA_TRY(marea_sequence_shape(c, &places.inputs, 4));
  const marea_tensor *x = c->in[G_X];
  const int64_t n = x->shape[0], steps = x->shape[1], h = c->in[G_W_H]->shape[0];
  marea_layout all, state, gates;
  marea_layout_set(&all, x->dtype, 3, (int64_t[]){n, steps, h});
  marea_layout_set(&state, x->dtype, 2, (int64_t[]){n, h});
  marea_layout_set(&gates, x->dtype, 3, (int64_t[]){n, steps, 4 * h});
  for (int i = G_H0; i <= DC_N; i++) {
    if (i == DY || i == G_Y || i == G_CELLS) MAREA_TRY(marea_sequence_want(c, i, &all));
    if (i == DH_N || i == DC_N || i == G_H0 || i == G_C0) MAREA_TRY(marea_sequence_want(c, i, &state));
    if (i == G_GATES) MAREA_TRY(marea_sequence_want(c, i, &gates));
  }
  c->n_out = 6;
  marea_sequence_grad_layouts(c, 4, c->attr[WANT_DX].i);
  c->layout[DH0] = c->layout[DC0] = state;
  return MAREA_OK;
}

typedef struct lstm_grad {
  marea_recurrence_grad r; /* its work: da (rows, 4H), dc (rows, H) */
  marea_packed w_h;        /* transposed: (4H, H) */
  bool hard;
  const char *c0, *dc_n;     /* (N, H) */
  const char *gates, *cells; /* as forward */
  char *dc0;                 /* (N, H) */
} lstm_grad;

static char *dc_of (const marea_sequence *s, char *work) {
  return marea_sequence_row(s, work, marea_sequence_rows(s), s->gates);
}

static void begin_cells (const marea_recurrence_grad *r, marea_range rows, char *work) {
  const lstm_grad *p = (const lstm_grad *)r;
  const marea_sequence *s = &r->s;
  const size_t bytes = (size_t)s->hidden * s->size;
  char *dc = dc_of(s, work);
  for (int64_t i = 0; i < rows.end - rows.first; i++, dc += bytes) {
    if (p->dc_n) memcpy(dc, marea_sequence_row(s, p->dc_n, s->order[rows.first + i], s->hidden), bytes);
    else memset(dc, 0, bytes);
  }
}

static void end_cells (const marea_recurrence_grad *r, marea_range rows, char *work) {
  const lstm_grad *p = (const lstm_grad *)r;
  const marea_sequence *s = &r->s;
  const size_t bytes = (size_t)s->hidden * s->size;
  const char *dc = dc_of(s, work);
  for (int64_t i = 0; i < rows.end - rows.first; i++, dc += bytes)
    memcpy(marea_sequence_row(s, p->dc0, s->order[rows.first + i], s->hidden), dc, bytes);
}

typedef struct backward_rows {
  const lstm_grad *p;
  const int64_t *order;
  int64_t step;
  char *dh, *dc, *da, *narrow;
} backward_rows;

static void backward_row (void *arg, int64_t i, int worker) {
  const backward_rows *k = arg;
  const lstm_grad *p = k->p;
  const marea_sequence *s = &p->r.s;
  const int64_t row = k->order[i], at = marea_sequence_at(s, row, k->step);
  char *da = marea_sequence_row(s, k->da, i, s->gates);
  (void)worker;
  s->kernels->lstm_cell_grad(
      (size_t)s->hidden, marea_sequence_row(s, p->gates, at, s->gates),
      marea_sequence_before(s, p->cells, p->c0, row, k->step), marea_sequence_row(s, p->cells, at, s->hidden),
      marea_sequence_row(s, k->dh, i, s->hidden), p->hard, marea_sequence_row(s, k->dc, i, s->hidden), da);
  marea_recurrence_keep(&p->r, p->r.dx_gates, at, da, k->narrow, i);
}

static void backward_step (const marea_recurrence_grad *r, marea_range rows, int64_t step, int64_t active,
                           char *dh, char *work) {
  const lstm_grad *p = (const lstm_grad *)r;
  const marea_sequence *s = &r->s;
  char *narrow = marea_sequence_narrow(s, work, r->per_row);
  backward_rows k = {p, s->order + rows.first, step, dh, dc_of(s, work), work, narrow};
  marea_sequence_share(s, active, backward_row, &k);
  marea_sequence_multiply(s, &p->w_h, s->bf16 ? NULL : work, s->gates, active, narrow, dh, s->hidden, false);
}

static marea_status lstm_grad_forward (marea_call *c) {
  lstm_grad p = {.hard = is_hard(c->attr),
                 .dc_n = marea_sequence_given(c, DC_N),
                 .gates = marea_at(c->in[G_GATES]),
                 .cells = marea_at(c->in[G_CELLS]),
                 .dc0 = marea_at(c->out[DC0])};
  marea_recurrence_grad *r = &p.r;
  marea_sequence *s = &r->s;
  MAREA_TRY(marea_recurrence_grad_open(c, &places, c->attr[REVERSE].i, r));
  MAREA_TRY(marea_sequence_first(c, s, G_C0, &p.c0));
  MAREA_TRY(marea_sequence_pack(c, s, c->in[G_W_H], 0, s->gates, true, &p.w_h));
  r->per_row = s->gates + s->hidden;
  r->step = backward_step;
  r->begin = begin_cells;
  r->end = end_cells;
  MAREA_TRY(marea_recurrence_grad_run(c, r));
  return marea_recurrence_grad_products(c, r, &places.inputs);
}

static double lstm_grad_flop (const marea_call *c) {
  return marea_sequence_flop(c, c->in[G_W_H], c->attr[WANT_DX].i ? 2 : 1, 2);
}

const marea_op marea_op_lstm_grad = {
    .name = "lstm_grad",
    .family = "recurrent",
    .doc = "The gradients of lstm to x, w_x, w_h, bias, h0 and c0, from those of its results, of which any "
           "may be missing, and "
           "from what it has kept: y, gates (N, T, 4H), cells (N, T, H). With dx = false the first one is "
           "empty.",
    .inputs = {{"x", "(N, T, C)"},
               {"w_x", "(C, 4H)"},
               {"w_h", "(H, 4H)"},
               {"h0", "(N, H)", .optional = true},
               {"c0", "(N, H)", .optional = true},
               {"lengths", "(N)", .optional = true},
               {"y", "(N, T, H)"},
               {"gates", "(N, T, 4H)"},
               {"cells", "(N, T, H)"},
               {"dy", "(N, T, H)", .optional = true},
               {"dh_n", "(N, H)", .optional = true},
               {"dc_n", "(N, H)", .optional = true}},
    .attrs = MAREA_ATTRS(MAREA_SEQUENCE_REVERSE, MAREA_SEQUENCE_ACTIVATION,
                         {"dx", MAREA_BOOL, 1, NULL, "whether the gradient to x is computed"},
                         MAREA_PRODUCTS),
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .sample = MAREA_SEQUENCE_SAMPLE
    "local y = w(n, t, h) return {x, w(c, 4 * h), w(h, 4 * h), maybe(w(n, h)), maybe(w(n, h)), lengths, y, "
    "w(n, t, 4 * h), w(n, t, h), w(n, t, h), maybe(w(n, h)), maybe(w(n, h))}, {reverse = g.bool(), dx = "
    "g.bool()}",
    .shape = lstm_grad_shape,
    .forward = lstm_grad_forward,
    .flop = lstm_grad_flop,
};
