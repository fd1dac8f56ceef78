/* SPDX-License-Identifier: MIT
** rnn.c: one direction of one layer of the plain recurrent network (Elman 1990), and its gradient:
**
**   h := act(x_t w_x + bias + h w_h)
**
** Backward, with dh as it arrives at a step: da = dh act'(h); dh := da w_h^T goes on to the step before.
*/
#include <string.h>

#include "ops/vjp.h"
#include "sequence.h"

enum { X, W_X, W_H, BIAS, H0, LENGTHS }; /* ORDER of the inputs */
enum { REVERSE, ACTIVATION, PRODUCTS };  /* ORDER of the attributes */
enum { Y, H_N };                         /* ORDER of the results */
static const marea_sequence_inputs inputs = {X, W_X, W_H, BIAS, H0, LENGTHS, 0};

#define ACTIVATION_ATTR \
  { "activation", MAREA_ENUM, 0, "tanh|relu", "of each step" }

static bool is_relu (const marea_attr *attr) { return attr[ACTIVATION].i == 1; }

static marea_status rnn_shape (marea_call *c) {
  MAREA_TRY(marea_sequence_shape(c, &inputs, 1));
  const marea_tensor *x = c->in[X];
  const int64_t n = x->shape[0], steps = x->shape[1], h = c->in[W_H]->shape[0];
  c->n_out = 2;
  marea_layout_set(&c->layout[Y], x->dtype, 3, (int64_t[]){n, steps, h});
  marea_layout_set(&c->layout[H_N], x->dtype, 2, (int64_t[]){n, h});
  return MAREA_OK;
}

typedef struct rnn {
  marea_recurrence r; /* its work: h w_h (rows, H) */
  marea_packed w_h;
  bool relu;
} rnn;

/* The rows of a block at a step */
typedef struct forward_rows {
  const rnn *p;
  const int64_t *order;
  int64_t step;
  char *h, *work;
} forward_rows;

/* y holds the input product before the step. */
static void forward_row (void *arg, int64_t i, int worker) {
  const forward_rows *k = arg;
  const marea_sequence *s = &k->p->r.s;
  const int64_t width = s->hidden;
  char *y = marea_sequence_row(s, k->p->r.y, marea_sequence_at(s, k->order[i], k->step), width);
  (void)worker;
  s->kernels->rnn_cell((size_t)width, y, marea_sequence_row(s, k->work, i, width), k->p->relu, y);
  memcpy(marea_sequence_row(s, k->h, i, width), y, (size_t)width * s->size);
}

static void forward_step (const marea_recurrence *r, marea_range rows, int64_t step, int64_t active, char *h,
                          char *work, char *a) {
  const rnn *p = (const rnn *)r;
  const marea_sequence *s = &r->s;
  forward_rows k = {p, s->order + rows.first, step, h, work};
  (void)a;
  marea_sequence_multiply(s, &p->w_h, h, s->hidden, active, marea_sequence_narrow(s, work, r->per_row), work,
                          s->hidden, false);
  marea_sequence_share(s, active, forward_row, &k);
}

static marea_status rnn_forward (marea_call *c) {
  rnn p = {.relu = is_relu(c->attr)};
  marea_recurrence *r = &p.r;
  marea_sequence *s = &r->s;
  MAREA_TRY(marea_sequence_open(c, &inputs, c->attr[REVERSE].i, s));
  if (s->n == 0 || s->hidden == 0) return MAREA_OK;
  r->y = marea_at(c->out[Y]);
  r->h_n = marea_at(c->out[H_N]);
  r->per_row = s->hidden;
  r->step = forward_step;
  MAREA_TRY(marea_sequence_input_product(c, s, &inputs, r->y));
  MAREA_TRY(marea_sequence_pack(c, s, c->in[W_H], 0, s->gates, false, &p.w_h));
  MAREA_TRY(marea_sequence_first(c, s, H0, &r->h0));
  return marea_recurrence_run(c, r);
}

static marea_status rnn_vjp (marea_vjp *v) {
  marea_tensor *in[] = {v->in[X], v->in[W_X], v->in[W_H], NULL, NULL, v->out[Y], v->dout[Y], v->dout[H_N]};
  for (int i = H0; i <= LENGTHS && i < v->n_in; i++) in[3 + i - H0] = v->in[i];
  const marea_attr attr[] = {v->attr[REVERSE], v->attr[ACTIVATION], marea_attr_int(v->need[X]),
                             v->attr[PRODUCTS]};
  return marea_sequence_vjp(v, &marea_op_rnn_grad, MAREA_COUNT(in), in, attr);
}

static double rnn_flop (const marea_call *c) { return marea_sequence_flop(c, c->in[W_H], 1, 1); }

const marea_op marea_op_rnn = {
    .name = "rnn",
    .family = "recurrent",
    .doc = "One direction of one layer of a plain recurrent network over whole sequences: h = act(x[:, t] "
           "w_x + bias + h "
           "w_h). x: (N, T, C); w_x: (C, H); w_h: (H, H); bias: (H); h0: (N, H), zeros when left out; "
           "lengths: i64 or u8 "
           "(N), steps that count in each row, 0 to T. Results: y (N, T, H), all h, zeros behind the end of "
           "a row; h_n "
           "(N, H), the state at its end. Gradient: to x, w_x, w_h, bias and h0, once. Errors: sizes that do "
           "not fit, a "
           "length out of range (the first row is named). Source: Elman 1990.",
    .inputs = {{"x", "(N, T, C)"},
               {"w_x", "(C, H)"},
               {"w_h", "(H, H)"},
               {"bias", "(H)", .optional = true},
               {"h0", "(N, H)", .optional = true},
               {"lengths", "(N) steps of each row", .optional = true}},
    .attrs = MAREA_ATTRS(MAREA_SEQUENCE_REVERSE, ACTIVATION_ATTR, MAREA_PRODUCTS),
    .saves_in = 0x3f,
    .saves_out = 1 << Y,
    .flags = MAREA_SHAPE_ONLY | MAREA_ROUNDS | MAREA_WIDE,
    .once = "nn.RNNCell, called step by step",
    .sample = MAREA_SEQUENCE_SAMPLE
    "return {x, w(c, h), w(h, h), maybe(w(h)), maybe(w(n, h)), lengths}, {reverse = g.bool()}",
    .shape = rnn_shape,
    .forward = rnn_forward,
    .vjp = rnn_vjp,
    .flop = rnn_flop,
};

/* ---- rnn_grad ---- */

enum { G_X, G_W_X, G_W_H, G_H0, G_LENGTHS, G_Y, DY, DH_N }; /* ORDER of its inputs */
enum { DX, DW_X, DW_H, DBIAS, DH0 };                        /* and results */
enum { WANT_DX = 2 };
static const marea_recurrence_grad_places places = {
    {G_X, G_W_X, G_W_H, -1, G_H0, G_LENGTHS}, G_Y, DY, DH_N, DH0};

static marea_status rnn_grad_shape (marea_call *c) {
  MAREA_TRY(marea_sequence_shape(c, &places.inputs, 1));
  const marea_tensor *x = c->in[G_X];
  const int64_t n = x->shape[0], h = c->in[G_W_H]->shape[0];
  marea_layout all;
  marea_layout_set(&all, x->dtype, 3, (int64_t[]){n, x->shape[1], h});
  c->n_out = 5;
  marea_sequence_grad_layouts(c, 1, c->attr[WANT_DX].i);
  marea_layout_set(&c->layout[DH0], x->dtype, 2, (int64_t[]){n, h});
  MAREA_TRY(marea_sequence_want(c, G_Y, &all));
  MAREA_TRY(marea_sequence_want(c, DY, &all));
  return marea_sequence_want(c, DH_N, &c->layout[DH0]);
}

typedef struct rnn_grad {
  marea_recurrence_grad r; /* its work: da (rows, H) */
  marea_packed w_h;        /* transposed */
  bool relu;
} rnn_grad;

typedef struct backward_rows {
  const rnn_grad *p;
  const int64_t *order;
  int64_t step;
  char *dh, *da, *narrow;
} backward_rows;

static void backward_row (void *arg, int64_t i, int worker) {
  const backward_rows *k = arg;
  const marea_recurrence_grad *r = &k->p->r;
  const marea_sequence *s = &r->s;
  const int64_t at = marea_sequence_at(s, k->order[i], k->step), width = s->hidden;
  char *da = marea_sequence_row(s, k->da, i, width);
  (void)worker;
  s->kernels->rnn_cell_grad((size_t)width, marea_sequence_row(s, r->y, at, width),
                            marea_sequence_row(s, k->dh, i, width), k->p->relu, da);
  marea_recurrence_keep(r, r->dx_gates, at, da, k->narrow, i);
}

static void backward_step (const marea_recurrence_grad *r, marea_range rows, int64_t step, int64_t active,
                           char *dh, char *work) {
  const rnn_grad *p = (const rnn_grad *)r;
  const marea_sequence *s = &r->s;
  const int64_t width = s->hidden;
  char *narrow = marea_sequence_narrow(s, work, r->per_row);
  backward_rows k = {p, s->order + rows.first, step, dh, work, narrow};
  marea_sequence_share(s, active, backward_row, &k);
  marea_sequence_multiply(s, &p->w_h, s->bf16 ? NULL : work, width, active, narrow, dh, width, false);
}

static marea_status rnn_grad_forward (marea_call *c) {
  rnn_grad p = {.relu = is_relu(c->attr)};
  marea_recurrence_grad *r = &p.r;
  marea_sequence *s = &r->s;
  MAREA_TRY(marea_recurrence_grad_open(c, &places, c->attr[REVERSE].i, r));
  MAREA_TRY(marea_sequence_pack(c, s, c->in[G_W_H], 0, s->gates, true, &p.w_h));
  r->per_row = s->hidden;
  r->step = backward_step;
  MAREA_TRY(marea_recurrence_grad_run(c, r));
  return marea_recurrence_grad_products(c, r, &places.inputs);
}

static double rnn_grad_flop (const marea_call *c) {
  return marea_sequence_flop(c, c->in[G_W_H], c->attr[WANT_DX].i ? 2 : 1, 2);
}

const marea_op marea_op_rnn_grad = {
    .name = "rnn_grad",
    .family = "recurrent",
    .doc = "The gradients of rnn to x, w_x, w_h, bias and h0, from those of its results, of which either may "
           "be missing, and "
           "from y (N, T, H). With dx = false the first one is empty.",
    .inputs = {{"x", "(N, T, C)"},
               {"w_x", "(C, H)"},
               {"w_h", "(H, H)"},
               {"h0", "(N, H)", .optional = true},
               {"lengths", "(N)", .optional = true},
               {"y", "(N, T, H)"},
               {"dy", "(N, T, H)", .optional = true},
               {"dh_n", "(N, H)", .optional = true}},
    .attrs = MAREA_ATTRS(MAREA_SEQUENCE_REVERSE, ACTIVATION_ATTR,
                         {"dx", MAREA_BOOL, 1, NULL, "whether the gradient to x is computed"},
                         MAREA_PRODUCTS),
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .sample = MAREA_SEQUENCE_SAMPLE
    "return {x, w(c, h), w(h, h), maybe(w(n, h)), lengths, w(n, t, h), w(n, t, h), maybe(w(n, h))}, "
    "{reverse = g.bool(), dx = g.bool()}",
    .shape = rnn_grad_shape,
    .forward = rnn_grad_forward,
    .flop = rnn_grad_flop,
};
