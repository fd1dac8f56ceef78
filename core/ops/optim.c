/* SPDX-License-Identifier: MIT
** optim.c: steps of optimizers. They change their inputs in place, are never recorded and never interrupted,
** so that a parameter is updated as a whole or not at all. Each one is a single pass over memory; with `rows` over
** those rows of the parameter and its states, in the dense step's arithmetic.
*/
#include <math.h>

#include "vjp.h"

/* ---- what the steps share ---- */

enum { SGD_ROWS = 3, RMS_ROWS = 4, ADAM_ROWS = 4, ADAGRAD_ROWS = 3 }; /* ORDER of the inputs `rows` below */

/* Does g have p's shape with `rows` in place of the first dimension? */
static marea_status want_rows (marea_call *c, const marea_tensor *rows, int at) {
  const marea_tensor *p = c->in[0], *g = c->in[1];
  MAREA_TRY(marea_want_dtype(c, at, MAREA_INTS));
  MAREA_TRY(marea_want_rank(c, at, 1, "(R)"));
  if (p->rank > 0 && g->rank == p->rank && g->shape[0] == rows->shape[0] &&
      memcmp(g->shape + 1, p->shape + 1, sizeof *g->shape * (size_t)(p->rank - 1)) == 0)
    return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE,
                      "argument 'g': expected the %lld rows of p %s that 'rows' names, got %s",
                      (long long)rows->shape[0], marea_tensor_text(p).s, marea_tensor_text(g).s);
}

/* All inputs in p's shape and dtype, but g where the last input, `rows`, is given. */
static marea_status check_alike (marea_call *c, int at) {
  const marea_tensor *rows = c->n_in > at ? c->in[at] : NULL;
  for (int i = 1; i < c->n_in && i < at; i++) {
    if (!c->in[i]) continue;
    MAREA_TRY(marea_want_dtype(c, i, 1 << c->in[0]->dtype));
    MAREA_TRY(i == 1 && rows ? want_rows(c, rows, at) : marea_want_shape(c, i, c->in[0]));
  }
  return MAREA_OK;
}

/* u->rows := the 0-based numbers in input `rows`, of which none comes twice, so that no two threads share one. */
static marea_status read_rows (marea_call *c, int at, marea_update *u) {
  const marea_tensor *p = c->in[0], *rows = c->in[at];
  const int64_t n = rows->shape[0], base = c->ctx->config.index_base;
  const size_t bytes = (size_t)MAREA_MAX(n, 1) * sizeof(int64_t);
  int64_t *row = u->rows = marea_alloc(c->ctx, bytes);
  if (!row) return marea_out_of_memory(c->ctx, c->op->name, bytes, "scratch space");
  for (int64_t i = 0; i < n; i++) {
    const int64_t value = marea_load_integer(rows->dtype, marea_at(rows), i);
    if (value < base || value - base >= p->shape[0])
      return marea_reject(c, MAREA_EARG, "argument 'rows': element %lld of %s is %lld, expected %lld to %lld",
                          (long long)(i + base), marea_tensor_text(rows).s, (long long)value, (long long)base,
                          (long long)(p->shape[0] - 1 + base));
    row[i] = value - base;
    if (i > 0 && row[i] <= row[i - 1])
      return marea_reject(c, MAREA_EARG,
                          "argument 'rows': element %lld of %s is %lld after %lld, expected "
                          "rising numbers",
                          (long long)(i + base), marea_tensor_text(rows).s, (long long)value,
                          (long long)(row[i - 1] + base));
  }
  u->count = n;
  u->n = marea_count(p->rank - 1, p->shape + 1);
  return MAREA_OK;
}

static marea_status want_range (marea_call *c, int attr, double low, double high) {
  const double f = c->attr[attr].f;
  if (f >= low && f <= high) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument '%s': expected %g to %g, got %g", c->op->attrs[attr].name, low,
                      high, f);
}

/* Numbers that must be 0 or more and finite. */
static marea_status want_positive (marea_call *c, int attr) {
  const double f = c->attr[attr].f;
  if (f >= 0 && isfinite(f)) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument '%s': expected a finite number of 0 or more, got %g",
                      c->op->attrs[attr].name, f);
}

static marea_status want_buffer (marea_call *c, int input, int attr) {
  if (c->attr[attr].f == 0 || (c->n_in > input && c->in[input])) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument '%s': momentum %g needs a tensor of p's shape",
                      c->op->inputs[input].name, c->attr[attr].f);
}

/* n elements, from element p of the parameter and its states and g of the gradient. */
static void step_at (const marea_update *u, int64_t n, int64_t p, int64_t g) {
  char *at[4];
  for (int i = 0; i < MAREA_COUNT(at); i++)
    at[i] = u->in[i] ? u->in[i] + (size_t)(i == 1 ? g : p) * u->size : NULL;
  u->step(u, (size_t)n, at);
}

static void update_block (const marea_update *u, int64_t block, int worker) {
  const int64_t from = block * MAREA_BLOCK;
  (void)worker;
  step_at(u, MAREA_MIN(MAREA_BLOCK, u->n - from), from, from);
}

/* Rows that lie one behind the other are updated together. */
static void update_rows (const marea_update *u, int64_t block, int worker) {
  const int64_t end = MAREA_MIN((block + 1) * u->rows_per_block, u->count);
  (void)worker;
  for (int64_t i = block * u->rows_per_block, next; i < end; i = next) {
    for (next = i + 1; next < end && u->rows[next] == u->rows[next - 1] + 1;) next++;
    step_at(u, (next - i) * u->n, u->rows[i] * u->n, i * u->n);
  }
}

/* u->rows, run and blocks; `rows`: the input with numbers of rows */
static marea_status cut_update (marea_call *c, marea_update *u, int rows) {
  u->run = update_block;
  u->blocks = u->n > 0 ? (u->n - 1) / MAREA_BLOCK + 1 : 0;
  if (c->n_in <= rows || !c->in[rows]) return MAREA_OK;
  MAREA_TRY(read_rows(c, rows, u));
  u->run = update_rows;
  u->rows_per_block = MAREA_MAX(1, MAREA_BLOCK / MAREA_MAX(u->n, 1));
  u->blocks = u->n > 0 && u->count > 0 ? (u->count - 1) / u->rows_per_block + 1 : 0;
  return MAREA_OK;
}

static void run_block (void *arg, int64_t block, int worker) {
  const marea_update *u = arg;
  u->run(u, block, worker);
}

static marea_status run_update (marea_call *c, marea_update *u, int rows) {
  const marea_tensor *p = c->in[0];
  u->kernels = c->ctx->kernels[p->dtype];
  u->size = marea_dtype_size((marea_dtype)p->dtype);
  u->n = marea_count(p->rank, p->shape);
  for (int i = 0; i < MAREA_COUNT(u->in); i++)
    u->in[i] = i < MAREA_MIN(c->n_in, rows) && c->in[i] ? marea_at(c->in[i]) : NULL;
  const marea_status status = cut_update(c, u, rows);
  if (status == MAREA_OK && marea_put_off(c->ctx, u)) return MAREA_OK;
  if (status == MAREA_OK) marea_parallel(c->ctx, u->blocks, run_block, u);
  marea_free(c->ctx, u->rows);
  return status;
}

static double update_flop (const marea_call *c) { return (double)marea_tensor_size(c->in[1]); }

/* See the head of kernels/optim.inc. */
#define FADED_DOC " What would be smaller than the normal numbers is 0 in the states."

/* See bounded_gradient in kernels/optim.inc. */
#define BOUNDED_DOC                                                                                      \
  " Beyond 2^63 (f32) or 2^511 (f64), where squares overflow, d counts as that, infinite ones too: the " \
  "step "                                                                                                \
  "is that of any large gradient, and the weight goes on learning as the squares fade." FADED_DOC

#define ROWS_DOC \
  " With rows p[rows[i]] and its states are updated by g[i] as in a dense step, and others are left alone."

#define UPDATED /* of the samples: s, p's shape; d, the gradient's; rows */ \
  "local s = g.shape(0, 3)\nlocal d, rows = table.move(s, 1, #s, 1, {})\n"  \
  "if #s > 0 and s[1] > 0 and g.bool() then d[1], rows = 1, g.index({1}, s[1]) end\n"

#define INPUT_P \
  { "p", "(any shape) the parameter; changed" }
#define INPUT_G \
  { "g", "(p's) its gradient; with rows that of these, (R, ..)" }
#define INPUT_ROWS \
  { "rows", "(R) i64 or u8, rising: only these rows of p and its states change", .optional = true }
#define ATTR_LR \
  { "lr", MAREA_REAL, MAREA_REQUIRED, NULL, "learning rate" }
#define ATTR_MOMENTUM \
  { "momentum", MAREA_REAL, 0, NULL, "share of the last update; not 0: needs buf" }
#define ATTR_WEIGHT_DECAY \
  { "weight_decay", MAREA_REAL, 0, NULL, "times p is added to the gradient" }

/* ---- sgd ---- */

enum { SGD_LR, SGD_MOMENTUM, SGD_NESTEROV, SGD_WEIGHT_DECAY }; /* ORDER of attributes */

static marea_status sgd_shape (marea_call *c) {
  MAREA_TRY(check_alike(c, SGD_ROWS));
  MAREA_TRY(want_positive(c, SGD_LR));
  MAREA_TRY(want_positive(c, SGD_MOMENTUM));
  MAREA_TRY(want_positive(c, SGD_WEIGHT_DECAY));
  return want_buffer(c, 2, SGD_MOMENTUM);
}

static void sgd_at (const marea_update *u, size_t n, char *const *at) {
  u->kernels->sgd(n, at[0], at[1], u->a[1] == 0 ? NULL : at[2], u->a);
}

static marea_status sgd_forward (marea_call *c) {
  marea_update u = {.step = sgd_at,
                    .a = {c->attr[SGD_LR].f, c->attr[SGD_MOMENTUM].f, (double)c->attr[SGD_NESTEROV].i,
                          c->attr[SGD_WEIGHT_DECAY].f}};
  return run_update(c, &u, SGD_ROWS);
}

const marea_op marea_op_sgd_step = {
    .name = "sgd_step",
    .family = "optim",
    .doc =
        "Stochastic gradient descent: d = g + weight_decay p; with momentum buf = momentum buf + d and d = "
        "buf, or d = d + momentum buf (nesterov); p = p - lr d. buf starts as zeros. As PyTorch's "
        "SGD." FADED_DOC ROWS_DOC
        " Errors: shapes or dtypes differ, momentum without buf, a negative number, rows "
        "that do not rise or are none of p.",
    .inputs = {INPUT_P, INPUT_G, {"buf", "(p's) running update; changed", .optional = true}, INPUT_ROWS},
    .attrs = MAREA_ATTRS(ATTR_LR, ATTR_MOMENTUM,
                         {"nesterov", MAREA_BOOL, 0, NULL, "look ahead by one update"}, ATTR_WEIGHT_DECAY),
    .flags = MAREA_MUTATES | MAREA_NO_GRAD | MAREA_PUTS_OFF,
    .mutates = 1 | 4,
    .shape = sgd_shape,
    .forward = sgd_forward,
    .flop = update_flop,
    .sample = UPDATED "return {g.tensor(s), g.tensor(d), g.tensor(s), rows}, {lr = g.real(0, 1), "
                      "momentum = g.pick{0, 0.9}, nesterov = g.bool(), weight_decay = g.pick{0, 0.1}}",
};

/* ---- rmsprop ---- */

enum { RMS_LR, RMS_RHO, RMS_EPS, RMS_MOMENTUM, RMS_WEIGHT_DECAY }; /* ORDER of attributes */

static marea_status rmsprop_shape (marea_call *c) {
  MAREA_TRY(check_alike(c, RMS_ROWS));
  MAREA_TRY(want_positive(c, RMS_LR));
  MAREA_TRY(want_range(c, RMS_RHO, 0, 1));
  MAREA_TRY(want_positive(c, RMS_EPS));
  MAREA_TRY(want_positive(c, RMS_MOMENTUM));
  MAREA_TRY(want_positive(c, RMS_WEIGHT_DECAY));
  return want_buffer(c, 3, RMS_MOMENTUM);
}

static void rmsprop_at (const marea_update *u, size_t n, char *const *at) {
  u->kernels->rmsprop(n, at[0], at[1], at[2], u->a[3] == 0 ? NULL : at[3], u->a);
}

static marea_status rmsprop_forward (marea_call *c) {
  marea_update u = {.step = rmsprop_at,
                    .a = {c->attr[RMS_LR].f, c->attr[RMS_RHO].f, c->attr[RMS_EPS].f, c->attr[RMS_MOMENTUM].f,
                          c->attr[RMS_WEIGHT_DECAY].f}};
  return run_update(c, &u, RMS_ROWS);
}

const marea_op marea_op_rmsprop_step = {
    .name = "rmsprop_step",
    .family = "optim",
    .doc = "RMSprop as in Keras: d = g + weight_decay p; sq = rho sq + (1 - rho) d^2; u = lr d / (sqrt(sq) + "
           "eps), eps outside the root; p = p - u, or with momentum buf = momentum buf + u and p = p - buf. "
           "sq and buf start as zeros. Source: Tieleman and Hinton 2012, lecture 6e." BOUNDED_DOC ROWS_DOC
           " Errors: shapes or dtypes differ, momentum without buf, numbers out of range, rows that do not "
           "rise or are none of p.",
    .inputs = {INPUT_P,
               INPUT_G,
               {"sq", "(p's) running mean of squares; changed"},
               {"buf", "(p's) running update; changed", .optional = true},
               INPUT_ROWS},
    .attrs = MAREA_ATTRS(ATTR_LR, {"rho", MAREA_REAL, 0.9, NULL, "share of the old mean"},
                         {"eps", MAREA_REAL, 1e-7, NULL, "added to the root"}, ATTR_MOMENTUM,
                         ATTR_WEIGHT_DECAY),
    .flags = MAREA_MUTATES | MAREA_NO_GRAD | MAREA_PUTS_OFF,
    .mutates = 1 | 4 | 8,
    .shape = rmsprop_shape,
    .forward = rmsprop_forward,
    .flop = update_flop,
    .sample = UPDATED "return {g.tensor(s), g.tensor(d), g.tensor(s, {lo = 0, hi = 1}), g.tensor(s), rows},\n"
                      "  {lr = g.real(0, 1), momentum = g.pick{0, 0.9}, weight_decay = g.pick{0, 0.1}}",
};

/* ---- adam ---- */

/* ORDER of attributes */
enum { ADAM_LR, ADAM_BETA1, ADAM_BETA2, ADAM_EPS, ADAM_STEP, ADAM_WEIGHT_DECAY, ADAM_L2 };

static marea_status adam_shape (marea_call *c) {
  MAREA_TRY(check_alike(c, ADAM_ROWS));
  MAREA_TRY(want_positive(c, ADAM_LR));
  MAREA_TRY(want_range(c, ADAM_BETA1, 0, 1));
  MAREA_TRY(want_range(c, ADAM_BETA2, 0, 1));
  MAREA_TRY(want_positive(c, ADAM_EPS));
  MAREA_TRY(want_positive(c, ADAM_WEIGHT_DECAY));
  MAREA_TRY(want_positive(c, ADAM_L2));
  if (c->attr[ADAM_BETA1].f == 1 || c->attr[ADAM_BETA2].f == 1)
    return marea_reject(c, MAREA_EARG, "beta1 and beta2 must be less than 1");
  if (c->attr[ADAM_STEP].i < 1)
    return marea_reject(c, MAREA_EARG, "argument 'step': expected 1 or more, got %lld",
                        (long long)c->attr[ADAM_STEP].i);
  return MAREA_OK;
}

static void adam_at (const marea_update *u, size_t n, char *const *at) {
  u->kernels->adam(n, at[0], at[1], at[2], at[3], u->a);
}

/* 1 - beta^t without cancellation */
static double correction (double beta, int64_t t) { return beta == 0 ? 1 : -expm1((double)t * log(beta)); }

static marea_status adam_forward (marea_call *c) {
  const double beta1 = c->attr[ADAM_BETA1].f, beta2 = c->attr[ADAM_BETA2].f;
  const int64_t t = c->attr[ADAM_STEP].i;
  marea_update u = {.step = adam_at,
                    .a = {c->attr[ADAM_LR].f, beta1, beta2, c->attr[ADAM_EPS].f, correction(beta1, t),
                          correction(beta2, t), c->attr[ADAM_WEIGHT_DECAY].f, c->attr[ADAM_L2].f}};
  return run_update(c, &u, ADAM_ROWS);
}

const marea_op marea_op_adam_step = {
    .name = "adam_step",
    .family = "optim",
    .doc =
        "Adam and AdamW: p = p - lr weight_decay p; d = g + l2 p; m = beta1 m + (1 - beta1) d; v = beta2 v "
        "+ (1 - beta2) d^2; p = p - lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps). m and "
        "v start as zeros, step counts from 1. Sources: Kingma and Ba, arXiv:1412.6980; Loshchilov and "
        "Hutter, arXiv:1711.05101." BOUNDED_DOC ROWS_DOC
        " Errors: shapes or dtypes differ, numbers out of range, rows that do not rise or are none of p.",
    .inputs = {INPUT_P,
               INPUT_G,
               {"m", "(p's) running mean; changed"},
               {"v", "(p's) running mean of squares; changed"},
               INPUT_ROWS},
    .attrs = MAREA_ATTRS(
        ATTR_LR, {"beta1", MAREA_REAL, 0.9, NULL, "share of the old m"},
        {"beta2", MAREA_REAL, 0.999, NULL, "share of the old v"},
        {"eps", MAREA_REAL, 1e-8, NULL, "added to the root"},
        {"step", MAREA_INT, MAREA_REQUIRED, NULL, "number of this step, from 1"},
        {"weight_decay", MAREA_REAL, 0, NULL, "decoupled: lr * weight_decay * p is taken off p"},
        {"l2", MAREA_REAL, 0, NULL, "times p is added to the gradient"}),
    .flags = MAREA_MUTATES | MAREA_NO_GRAD | MAREA_PUTS_OFF,
    .mutates = 1 | 4 | 8,
    .shape = adam_shape,
    .forward = adam_forward,
    .flop = update_flop,
    .sample = UPDATED
    "return {g.tensor(s), g.tensor(d), g.tensor(s), g.tensor(s, {lo = 0, hi = 1}), rows},\n"
    "  {lr = g.real(0, 1), step = g.int(1, 9), weight_decay = g.pick{0, 0.1}, l2 = g.pick{0, 0.1}}",
};

/* ---- adagrad ---- */

enum { ADAGRAD_LR, ADAGRAD_EPS, ADAGRAD_WEIGHT_DECAY }; /* ORDER of attributes */

static marea_status adagrad_shape (marea_call *c) {
  MAREA_TRY(check_alike(c, ADAGRAD_ROWS));
  MAREA_TRY(want_positive(c, ADAGRAD_LR));
  MAREA_TRY(want_positive(c, ADAGRAD_EPS));
  return want_positive(c, ADAGRAD_WEIGHT_DECAY);
}

static void adagrad_at (const marea_update *u, size_t n, char *const *at) {
  u->kernels->adagrad(n, at[0], at[1], at[2], u->a);
}

static marea_status adagrad_forward (marea_call *c) {
  marea_update u = {.step = adagrad_at,
                    .a = {c->attr[ADAGRAD_LR].f, c->attr[ADAGRAD_EPS].f, c->attr[ADAGRAD_WEIGHT_DECAY].f}};
  return run_update(c, &u, ADAGRAD_ROWS);
}

const marea_op marea_op_adagrad_step = {
    .name = "adagrad_step",
    .family = "optim",
    .doc =
        "Adagrad: d = g + weight_decay p; sum = sum + d^2; p = p - lr d / (sqrt(sum) + eps). sum starts as "
        "zeros. Source: Duchi, Hazan, Singer, JMLR 12, 2011. Beyond 2^63 (f32) or 2^511 (f64), where squares "
        "overflow, d counts as that, and the sum stays at its square." ROWS_DOC
        " Errors: shapes or dtypes differ, a negative number, rows that do not rise or are none of p.",
    .inputs = {INPUT_P, INPUT_G, {"sum", "(p's) sum of squares; changed"}, INPUT_ROWS},
    .attrs = MAREA_ATTRS(ATTR_LR, {"eps", MAREA_REAL, 1e-10, NULL, "added to the root"}, ATTR_WEIGHT_DECAY),
    .flags = MAREA_MUTATES | MAREA_NO_GRAD | MAREA_PUTS_OFF,
    .mutates = 1 | 4,
    .shape = adagrad_shape,
    .forward = adagrad_forward,
    .flop = update_flop,
    .sample = UPDATED "return {g.tensor(s), g.tensor(d), g.tensor(s, {lo = 0, hi = 1}), rows},\n"
                      "  {lr = g.real(0, 1), weight_decay = g.pick{0, 0.1}}",
};
