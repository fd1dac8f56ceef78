/* SPDX-License-Identifier: MIT
** gru.c: one direction of one layer of gated recurrent units (Cho et al. 2014), and its gradient. At each step
**
**   r = s(x w_xr + b_r + h w_hr)   z = s(x w_xz + b_z + h w_hz)   n = tanh(x w_xn + b_n + q)   h := (1 - z) n + z h
**
** with the reset after the product, q = r m, m = h w_hn + bias_h (PyTorch, Keras), or before it, q = (r h) w_hn (the paper).
** Backward, with dh as it arrives at a step: dz = dh (h - n) z', dn = dh (1 - z) (1 - n^2), dh := dh z + what goes through the
** products. After: dr = dn m r', dm = dn r, dh += (dr, dz, dm) w_h^T. Before: d = dn w_hn^T, dr = d h r', dh += d r + (dr, dz)
** times the transposed columns of r and z.
*/
#include <string.h>

#include "ops/vjp.h"
#include "sequence.h"

enum { X, W_X, W_H, BIAS, BIAS_H, H0, LENGTHS };               /* ORDER of the inputs */
enum { REVERSE, RESET_AFTER, RECURRENT_ACTIVATION, PRODUCTS }; /* ORDER of the attributes */
enum { Y, H_N, GATES, INNER }; /* ORDER of the results; the last two are for the gradient */
static const marea_sequence_inputs inputs = {X, W_X, W_H, BIAS, H0, LENGTHS, 0};

#define RESET_ATTR                                                                 \
  {                                                                                \
    "reset_after", MAREA_BOOL, 1, NULL,                                            \
        "the reset gate multiplies the product of state and weight, not the state" \
  }

static bool is_hard (const marea_attr *attr) { return attr[RECURRENT_ACTIVATION].i == 1; }

/* ---- gru ---- */

static marea_status check_inner_bias (marea_call *c) {
  if (!c->attr[RESET_AFTER].i && c->n_in > BIAS_H && c->in[BIAS_H])
    return marea_reject(c, MAREA_EARG, "argument 'bias_h': there is none with reset_after = false");
  marea_layout l;
  marea_layout_set(&l, c->in[X]->dtype, 1, &c->in[W_H]->shape[0]);
  return marea_sequence_want(c, BIAS_H, &l);
}

static marea_status gru_shape (marea_call *c) {
  MAREA_TRY(marea_sequence_shape(c, &inputs, 3));
  MAREA_TRY(check_inner_bias(c));
  const marea_tensor *x = c->in[X];
  const int64_t n = x->shape[0], steps = x->shape[1], h = c->in[W_H]->shape[0];
  c->n_out = 4;
  marea_layout_set(&c->layout[Y], x->dtype, 3, (int64_t[]){n, steps, h});
  marea_layout_set(&c->layout[H_N], x->dtype, 2, (int64_t[]){n, h});
  marea_layout_set(&c->layout[GATES], x->dtype, 3, (int64_t[]){n, steps, 3 * h});
  c->layout[INNER] = c->layout[Y];
  return MAREA_OK;
}

typedef struct gru {
  marea_recurrence r; /* its work: h w_h (rows, 3H), r h (rows, H) */
  marea_packed w_h;   /* all columns; with the reset before the product those of r and z */
  marea_packed w_n;   /* with the reset before the product */
  bool hard, after;
  const char *bias_h;  /* (H); NULL: none */
  char *gates, *inner; /* (N, T, 3H): first the input product, then r, z, n; (N, T, H): m, or r h */
} gru;

/* The row at x plus so many elements. */
static char *right_of (const marea_sequence *s, const char *x, int64_t elements) {
  return (char *)x + (size_t)elements * s->size;
}

/* q and m of a row: r m to the right of the other products. */
static void reset_after (const gru *p, const char *r, char *product, char *inner) {
  const marea_sequence *s = &p->r.s;
  const size_t n = (size_t)s->hidden;
  if (p->bias_h) s->kernels->add(n, product, 1, p->bias_h, 1, inner, NULL);
  else memcpy(inner, product, n * s->size);
  s->kernels->mul(n, r, 1, inner, 1, product, NULL);
}

/* The rows of a block at a step */
typedef struct forward_rows {
  const gru *p;
  const int64_t *order;
  int64_t step;
  char *h, *work;
} forward_rows;

/* r, z and what n needs of them. */
static void reset_row (void *arg, int64_t i, int worker) {
  const forward_rows *k = arg;
  const gru *p = k->p;
  const marea_sequence *s = &p->r.s;
  const int64_t width = s->hidden, at = marea_sequence_at(s, k->order[i], k->step);
  char *gates = marea_sequence_row(s, p->gates, at, s->gates),
       *product = marea_sequence_row(s, k->work, i, s->gates);
  char *inner = marea_sequence_row(s, p->inner, at, width);
  (void)worker;
  s->kernels->recurrent_gate((size_t)(2 * width), gates, product, p->hard, gates);
  if (p->after) {
    reset_after(p, gates, right_of(s, product, 2 * width), inner);
  } else {
    char *reset = marea_sequence_row(s, k->work, marea_sequence_rows(s), s->gates);
    s->kernels->mul((size_t)width, gates, 1, marea_sequence_row(s, k->h, i, width), 1, inner, NULL);
    memcpy(marea_sequence_row(s, reset, i, width), inner, (size_t)width * s->size);
  }
}

static void update_row (void *arg, int64_t i, int worker) {
  const forward_rows *k = arg;
  const marea_sequence *s = &k->p->r.s;
  const int64_t width = s->hidden, at = marea_sequence_at(s, k->order[i], k->step);
  char *gates = marea_sequence_row(s, k->p->gates, at, s->gates), *new = right_of(s, gates, 2 * width);
  char *state = marea_sequence_row(s, k->h, i, width), *y = marea_sequence_row(s, k->p->r.y, at, width);
  (void)worker;
  s->kernels->gru_update((size_t)width, new,
                         right_of(s, marea_sequence_row(s, k->work, i, s->gates), 2 * width),
                         right_of(s, gates, width), state, new, y);
  memcpy(state, y, (size_t)width * s->size);
}

static void after_row (void *arg, int64_t i, int worker) {
  reset_row(arg, i, worker);
  update_row(arg, i, worker);
}

static void forward_step (const marea_recurrence *r, marea_range rows, int64_t step, int64_t active, char *h,
                          char *work, char *a) {
  const gru *p = (const gru *)r;
  const marea_sequence *s = &r->s;
  const int64_t width = s->hidden;
  forward_rows k = {p, s->order + rows.first, step, h, work};
  char *narrow = marea_sequence_narrow(s, work, r->per_row);
  (void)a;
  marea_sequence_multiply(s, &p->w_h, h, width, active, narrow, work, s->gates, false);
  marea_sequence_share(s, active, p->after ? after_row : reset_row, &k);
  if (p->after) return;
  marea_sequence_multiply(s, &p->w_n, marea_sequence_row(s, work, marea_sequence_rows(s), s->gates), width,
                          active, narrow, right_of(s, work, 2 * width), s->gates, false);
  marea_sequence_share(s, active, update_row, &k);
}

/* Packs w_h: whole, or the columns of r and z and those of n apart. */
static marea_status pack (marea_call *c, const marea_sequence *s, const marea_tensor *w_h, bool after,
                          bool transposed, marea_packed *all, marea_packed *n) {
  const int64_t h = w_h->shape[0];
  if (!after) MAREA_TRY(marea_sequence_pack(c, s, w_h, 2 * h, h, transposed, n));
  return marea_sequence_pack(c, s, w_h, 0, after ? 3 * h : 2 * h, transposed, all);
}

static marea_status gru_forward (marea_call *c) {
  gru p = {.hard = is_hard(c->attr),
           .after = c->attr[RESET_AFTER].i,
           .bias_h = marea_sequence_given(c, BIAS_H),
           .gates = marea_at(c->out[GATES]),
           .inner = marea_at(c->out[INNER])};
  marea_recurrence *r = &p.r;
  marea_sequence *s = &r->s;
  MAREA_TRY(marea_sequence_open(c, &inputs, c->attr[REVERSE].i, s));
  if (s->n == 0 || s->hidden == 0) return MAREA_OK;
  MAREA_TRY(marea_sequence_input_product(c, s, &inputs, p.gates));
  MAREA_TRY(pack(c, s, c->in[W_H], p.after, false, &p.w_h, &p.w_n));
  MAREA_TRY(marea_sequence_first(c, s, H0, &r->h0));
  r->y = marea_at(c->out[Y]);
  r->h_n = marea_at(c->out[H_N]);
  r->saved[0] = p.gates, r->width[0] = s->gates;
  r->saved[1] = p.inner, r->width[1] = s->hidden;
  r->per_row = s->gates + s->hidden;
  r->step = forward_step;
  return marea_recurrence_run(c, r);
}

static double gru_flop (const marea_call *c) { return marea_sequence_flop(c, c->in[W_H], 1, 1); }

static marea_status gru_vjp (marea_vjp *v) {
  marea_tensor *in[] = {v->in[X],  v->in[W_X],    v->in[W_H],    NULL,       NULL,
                        v->out[Y], v->out[GATES], v->out[INNER], v->dout[Y], v->dout[H_N]};
  for (int i = H0; i <= LENGTHS && i < v->n_in; i++) in[3 + i - H0] = v->in[i];
  const marea_attr attr[] = {v->attr[REVERSE], v->attr[RESET_AFTER], v->attr[RECURRENT_ACTIVATION],
                             marea_attr_int(v->need[X]), v->attr[PRODUCTS]};
  return marea_sequence_vjp(v, &marea_op_gru_grad, MAREA_COUNT(in), in, attr);
}

const marea_op marea_op_gru = {
    .name = "gru",
    .family = "recurrent",
    .doc = "One direction of one layer of gated recurrent units over whole sequences: with a = x[:, t] w_x + "
           "bias in three "
           "parts and the columns of w_h likewise, r = s(a1 + h w_r), z = s(a2 + h w_z), n = tanh(a3 + r (h "
           "w_n + bias_h)), h "
           "= (1 - z) n + z h; with reset_after = false n = tanh(a3 + (r h) w_n). x: (N, T, C); w_x: (C, "
           "3H); w_h: (H, 3H); "
           "bias: (3H); bias_h: (H), with reset_after only; h0: (N, H), zeros when left out; lengths: i64 or "
           "u8 (N), steps "
           "that count in each row, 0 to T. Results: y (N, T, H), all h, zeros behind the end of a row; h_n "
           "(N, H), the state "
           "at its end. The order of gates, r z n, is that of PyTorch; Keras has z r n. Gradient: to x, w_x, "
           "w_h, bias, bias_h "
           "and h0, once. Errors: sizes that do not fit, a length out of range (the first row is named), "
           "bias_h without "
           "reset_after. Source: Cho et al. 2014.",
    .inputs = {{"x", "(N, T, C)"},
               {"w_x", "(C, 3H)"},
               {"w_h", "(H, 3H)"},
               {"bias", "(3H)", .optional = true},
               {"bias_h", "(H)", .optional = true},
               {"h0", "(N, H)", .optional = true},
               {"lengths", "(N) steps of each row", .optional = true}},
    .attrs = MAREA_ATTRS(MAREA_SEQUENCE_REVERSE, RESET_ATTR, MAREA_SEQUENCE_ACTIVATION, MAREA_PRODUCTS),
    .results = 2,
    .saves_in = 0x7f,
    .saves_out = 1 << Y | 1 << GATES | 1 << INNER,
    .flags = MAREA_SHAPE_ONLY | MAREA_ROUNDS | MAREA_WIDE,
    .once = "nn.GRUCell, called step by step",
    .sample = MAREA_SEQUENCE_SAMPLE "local after = g.bool() return {x, w(c, 3 * h), w(h, 3 * h), maybe(w(3 * "
                                    "h)), maybe(after and w(h) or nil), "
                                    "maybe(w(n, h)), lengths}, {reverse = g.bool(), reset_after = after}",
    .shape = gru_shape,
    .forward = gru_forward,
    .vjp = gru_vjp,
    .flop = gru_flop,
};

/* ---- gru_grad ---- */

enum { G_X, G_W_X, G_W_H, G_H0, G_LENGTHS, G_Y, G_GATES, G_INNER, DY, DH_N }; /* ORDER of its inputs */
enum { DX, DW_X, DW_H, DBIAS, DBIAS_H, DH0 };                                 /* and results */
enum { WANT_DX = 3 };
static const marea_recurrence_grad_places places = {
    {G_X, G_W_X, G_W_H, -1, G_H0, G_LENGTHS}, G_Y, DY, DH_N, DH0};

static marea_status gru_grad_shape (marea_call *c) {
  MAREA_TRY(marea_sequence_shape(c, &places.inputs, 3));
  const marea_tensor *x = c->in[G_X];
  const int64_t n = x->shape[0], steps = x->shape[1], h = c->in[G_W_H]->shape[0];
  marea_layout all, gates;
  marea_layout_set(&all, x->dtype, 3, (int64_t[]){n, steps, h});
  marea_layout_set(&gates, x->dtype, 3, (int64_t[]){n, steps, 3 * h});
  c->n_out = 6;
  marea_sequence_grad_layouts(c, 3, c->attr[WANT_DX].i);
  marea_layout_set(&c->layout[DBIAS_H], x->dtype, 1, &h);
  marea_layout_set(&c->layout[DH0], x->dtype, 2, (int64_t[]){n, h});
  MAREA_TRY(marea_sequence_want(c, G_Y, &all));
  MAREA_TRY(marea_sequence_want(c, G_GATES, &gates));
  MAREA_TRY(marea_sequence_want(c, G_INNER, &all));
  MAREA_TRY(marea_sequence_want(c, DY, &all));
  return marea_sequence_want(c, DH_N, &c->layout[DH0]);
}

typedef struct gru_grad {
  marea_recurrence_grad
      r; /* its work: gradients of the input product (rows, 3H), of the recurrent one, (rows, H) */
  marea_packed w_h, w_n; /* as forward, transposed */
  bool hard, after;
  const char *gates, *inner; /* as forward */
} gru_grad;

/* The rows of a block at a step. d: the gradients of what r multiplies, which become those before r; value: what it was, (N,
   T, H) */
typedef struct backward_rows {
  const gru_grad *p;
  const int64_t *order;
  int64_t step;
  char *dh, *da, *dm, *more, *narrow;
  const char *value, *d;
  char *d_reset;
  int64_t d_row; /* elements from row to row of d and d_reset */
} backward_rows;

/* dz and dn; dh := dh z. */
static void update_grad_row (void *arg, int64_t i, int worker) {
  const backward_rows *k = arg;
  const gru_grad *p = k->p;
  const marea_sequence *s = &p->r.s;
  const int64_t width = s->hidden, at = marea_sequence_at(s, k->order[i], k->step);
  const char *gates = marea_sequence_row(s, p->gates, at, s->gates);
  char *row = marea_sequence_row(s, k->da, i, s->gates);
  (void)worker;
  s->kernels->gru_update_grad((size_t)width, right_of(s, gates, width), right_of(s, gates, 2 * width),
                              marea_sequence_row(s, p->r.before, at, width), p->hard,
                              marea_sequence_row(s, k->dh, i, width), right_of(s, row, width),
                              right_of(s, row, 2 * width));
}

/* dr, and d r. */
static void reset_grad_row (const backward_rows *k, int64_t i) {
  const gru_grad *p = k->p;
  const marea_sequence *s = &p->r.s;
  const int64_t at = marea_sequence_at(s, k->order[i], k->step);
  char *row = marea_sequence_row(s, k->da, i, s->gates);
  s->kernels->gru_reset_grad((size_t)s->hidden, marea_sequence_row(s, p->gates, at, s->gates),
                             marea_sequence_row(s, k->value, at, s->hidden),
                             marea_sequence_row(s, k->d, i, k->d_row), p->hard, row,
                             marea_sequence_row(s, k->d_reset, i, k->d_row));
  marea_recurrence_keep(&p->r, p->r.dx_gates, at, row, NULL, i);
}

static void add_row (void *arg, int64_t i, int worker) {
  const backward_rows *k = arg;
  const marea_sequence *s = &k->p->r.s;
  char *dh = marea_sequence_row(s, k->dh, i, s->hidden);
  (void)worker;
  s->kernels->add((size_t)s->hidden, dh, 1, marea_sequence_row(s, k->more, i, s->hidden), 1, dh, NULL);
}

/* With the reset after the product its gradient is that of the input product, but for dm = dn r. */
static void after_grad_row (void *arg, int64_t i, int worker) {
  const backward_rows *k = arg;
  const marea_sequence *s = &k->p->r.s;
  const int64_t at = marea_sequence_at(s, k->order[i], k->step);
  char *row = marea_sequence_row(s, k->dm, i, s->gates);
  update_grad_row(arg, i, worker);
  reset_grad_row(k, i);
  memcpy(row, marea_sequence_row(s, k->da, i, s->gates), (size_t)(2 * s->hidden) * s->size);
  marea_recurrence_keep(&k->p->r, k->p->r.dh_gates, at, row, k->narrow, i);
}

static void before_grad_row (void *arg, int64_t i, int worker) {
  reset_grad_row(arg, i);
  add_row(arg, i, worker);
}

static void backward_step (const marea_recurrence_grad *r, marea_range rows, int64_t step, int64_t active,
                           char *dh, char *work) {
  const gru_grad *p = (const gru_grad *)r;
  const marea_sequence *s = &r->s;
  const int64_t width = s->hidden;
  char *dm = marea_sequence_row(s, work, marea_sequence_rows(s), s->gates);
  char *more = marea_sequence_row(s, dm, marea_sequence_rows(s), s->gates),
       *narrow = marea_sequence_narrow(s, work, r->per_row);
  backward_rows k = {p,    s->order + rows.first, step, dh, work, dm, more, narrow, r->before, more, more,
                     width};
  if (p->after) {
    k.value = p->inner, k.d_row = s->gates;
    k.d = right_of(s, work, 2 * width), k.d_reset = right_of(s, dm, 2 * width);
    marea_sequence_share(s, active, after_grad_row, &k);
    marea_sequence_multiply(s, &p->w_h, s->bf16 ? NULL : dm, s->gates, active, narrow, more, width, false);
  } else {
    marea_sequence_share(s, active, update_grad_row, &k);
    marea_sequence_multiply(s, &p->w_n, right_of(s, work, 2 * width), s->gates, active, narrow, more, width,
                            false);
    marea_sequence_share(s, active, before_grad_row, &k);
    marea_sequence_multiply(s, &p->w_h, work, s->gates, active, narrow, more, width, false);
  }
  marea_sequence_share(s, active, add_row, &k);
}

typedef struct columns {
  const marea_sequence *s;
  const char *from;
  char *to;
} columns;

static void copy_columns (void *arg, int64_t row, int worker) {
  const columns *k = arg;
  const int64_t first = 2 * k->s->hidden;
  (void)worker;
  memcpy(right_of(k->s, marea_sequence_row(k->s, k->to, row, k->s->gates), first),
         right_of(k->s, marea_sequence_row(k->s, k->from, row, k->s->gates), first),
         (size_t)k->s->hidden * k->s->size);
}

/* The columns of n met r h in place of h. */
static marea_status reset_before_weight (marea_call *c, const gru_grad *p) {
  const marea_sequence *s = &p->r.s;
  columns k = {.s = s, .to = marea_at(c->out[DW_H])};
  char *product;
  MAREA_WORKSPACE_OR_RETURN(c, product, (size_t)MAREA_MAX(s->hidden * s->gates, 1) * s->size);
  const marea_gemm_layout as_b = marea_recurrence_grad_layout(&p->r, false);
  MAREA_TRY(marea_gemm_part(c->ctx, s->dtype, true, false, s->hidden, s->gates, s->n * s->steps, p->inner,
                            p->r.dx_gates, NULL, product, &as_b));
  k.from = product;
  marea_parallel(c->ctx, s->hidden, copy_columns, &k);
  return MAREA_OK;
}

static marea_status gru_grad_forward (marea_call *c) {
  gru_grad p = {.hard = is_hard(c->attr),
                .after = c->attr[RESET_AFTER].i,
                .gates = marea_at(c->in[G_GATES]),
                .inner = marea_at(c->in[G_INNER])};
  marea_recurrence_grad *r = &p.r;
  marea_sequence *s = &r->s;
  MAREA_TRY(marea_recurrence_grad_open(c, &places, c->attr[REVERSE].i, r));
  MAREA_TRY(pack(c, s, c->in[G_W_H], p.after, true, &p.w_h, &p.w_n));
  if (p.after) MAREA_TRY(marea_recurrence_grad_gates(c, r, &r->dh_gates));
  r->per_row = 2 * s->gates + s->hidden;
  r->step = backward_step;
  MAREA_TRY(marea_recurrence_grad_run(c, r));
  MAREA_TRY(marea_recurrence_grad_products(c, r, &places.inputs));
  marea_recurrence_sum(r, r->dh_gates, 2 * s->hidden, s->hidden, marea_at(c->out[DBIAS_H]));
  return p.after ? MAREA_OK : reset_before_weight(c, &p);
}

static double gru_grad_flop (const marea_call *c) {
  return marea_sequence_flop(c, c->in[G_W_H], c->attr[WANT_DX].i ? 2 : 1, 2);
}

const marea_op marea_op_gru_grad = {
    .name = "gru_grad",
    .family = "recurrent",
    .doc = "The gradients of gru to x, w_x, w_h, bias, bias_h and h0, from those of its results, of which "
           "either may be "
           "missing, and from what it has kept: y, gates (N, T, 3H), inner (N, T, H), which is h w_n + "
           "bias_h or r h. With "
           "dx = false the first one is empty.",
    .inputs = {{"x", "(N, T, C)"},
               {"w_x", "(C, 3H)"},
               {"w_h", "(H, 3H)"},
               {"h0", "(N, H)", .optional = true},
               {"lengths", "(N)", .optional = true},
               {"y", "(N, T, H)"},
               {"gates", "(N, T, 3H)"},
               {"inner", "(N, T, H)"},
               {"dy", "(N, T, H)", .optional = true},
               {"dh_n", "(N, H)", .optional = true}},
    .attrs = MAREA_ATTRS(MAREA_SEQUENCE_REVERSE, RESET_ATTR, MAREA_SEQUENCE_ACTIVATION,
                         {"dx", MAREA_BOOL, 1, NULL, "whether the gradient to x is computed"},
                         MAREA_PRODUCTS),
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .sample = MAREA_SEQUENCE_SAMPLE
    "return {x, w(c, 3 * h), w(h, 3 * h), maybe(w(n, h)), lengths, w(n, t, h), w(n, t, 3 * h), w(n, t, h), "
    "w(n, t, h), maybe(w(n, h))}, {reverse = g.bool(), reset_after = g.bool(), dx = g.bool()}",
    .shape = gru_grad_shape,
    .forward = gru_grad_forward,
    .flop = gru_grad_flop,
};
