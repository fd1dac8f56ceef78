/* SPDX-License-Identifier: MIT
** loss.c: losses of single elements and of classes, and their gradients, which are operators of their own
** where one pass over memory is worth it.
**
** reduction: "mean" over all elements, "sum", "none" (the shape of the input), or "batchmean", the sum
** divided by the size of the first dimension. A reduced loss is a 0-dim tensor; it is computed and summed
** in one pass, in fixed blocks, so its bits do not depend on the number of threads. Prediction and target
** must have the same shape: a silent broadcast here would be a mistake in most scripts.
*/
#include <float.h>
#include <math.h>
#include <string.h>

#include "formula.h"
#include "reduction.h"

#define ELEMENTS_ATTR REDUCTION_ATTR("what becomes of the elements' losses")
#define PIECE 1024 /* elements of a buffer between two kernels: 8 KB */
#define REDUCTIONS "g.pick{'mean', 'sum', 'none', 'batchmean'}"
#define TWO_INPUTS(first) .inputs = {{first, "any shape"}, {"target", "the same shape"}}
#define GRAD_INPUTS(first)                                                                    \
  .inputs = {{"dy", "gradient of the loss: a number, or the shape of the input with 'none'"}, \
             {first, "any shape"},                                                            \
             {"target", "the same shape"}}
#define PROBABILITY "{lo = 0.05, hi = 0.95}"
#define GRAD_SAMPLE(first, second, more)                                                      \
  "local s, r = g.shape(1, 3, 1), " REDUCTIONS " return {g.tensor(r == 'none' and s or {}), " \
  "g.tensor(s" first "), g.tensor(s" second ")}, {reduction = r" more "}"
#define REDUCTION_DOC                                                                                      \
  " Results: a number, or the input's shape with reduction 'none'; of no elements 0. The inputs have one " \
  "shape and become one float dtype. Errors: shapes differ, integers, 'batchmean' of 0 dims."

/* ---- reductions -------------------------------------------------------------------------------------- */

/* The factor of the sum of the losses: 1/n for a mean. */
static double factor (reduction r, const marea_tensor *x) {
  const int64_t n = r == MEAN ? marea_count(x->rank, x->shape) : r == BATCHMEAN ? x->shape[0] : 1;
  return n > 0 ? 1 / (double)n : 0;
}

/* in[i] is the prediction, in[i + 1] the target. */
static marea_status check_pair (marea_call *c, int i) {
  const marea_tensor *x = c->in[i];
  MAREA_TRY(marea_want_dtype(c, i, MAREA_FLOATS));
  MAREA_TRY(marea_want_shape(c, i + 1, x));
  if (c->attr[0].i == BATCHMEAN && x->rank == 0)
    return marea_reject(c, MAREA_ESHAPE, "reduction 'batchmean' needs at least one dimension, got %s",
                        marea_tensor_text(x).s);
  return MAREA_OK;
}

/* Shape rule of losses: in[0] is the prediction, in[1] the target. */
static marea_status loss_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  MAREA_TRY(check_pair(c, 0));
  marea_layout_set(&c->layout[0], x->dtype, c->attr[0].i == NONE ? x->rank : 0, x->shape);
  return MAREA_OK;
}

typedef struct loss_job {
  const marea_kernels *k;
  marea_binary_kernel *kernel;
  const double *p;
  const char *a, *b;
  size_t size; /* of an element */
  int64_t n;
  double *partial; /* loss: one sum a block */
  const char *dy;  /* gradient: a number, or n of them with dy_step 1 */
  size_t dy_step;
  double factor;
  bool clamp_b; /* kl_normal */
  bool clipped; /* gradient: 0 where the slope is 0, even if dy is infinite */
  char *out;
} loss_job;

/* kl_normal and its gradient clamp the log variance to this before exp(). */
#define MAX_LOG_VARIANCE 20.0

static void loss_piece (const loss_job *j, int64_t at, size_t n, void *out) {
  static const double limits[] = {-INFINITY, MAX_LOG_VARIANCE};
  double clamped[PIECE];
  const void *b = j->b + (size_t)at * j->size;
  if (j->clamp_b) {
    j->k->clamp(n, b, clamped, limits);
    b = clamped;
  }
  j->kernel(n, j->a + (size_t)at * j->size, 1, b, 1, out, j->p);
}

static void loss_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const loss_job *j = arg;
  const int64_t end = MAREA_MIN((block + 1) * MAREA_BLOCK, j->n);
  double buffer[PIECE], total = 0;
  for (int64_t i = block * MAREA_BLOCK; i < end; i += PIECE) {
    const size_t n = (size_t)MAREA_MIN(PIECE, end - i);
    loss_piece(j, i, n, j->partial ? (void *)buffer : j->out + (size_t)i * j->size);
    if (j->partial) total += j->k->sum(n, buffer);
  }
  if (j->partial) j->partial[block] = total;
}

static loss_job job_of (const marea_call *c, int first, marea_binary_kernel *kernel, const double *p) {
  const marea_tensor *x = c->in[first];
  return (loss_job){.k = c->ctx->kernels[x->dtype],
                    .kernel = kernel,
                    .p = p,
                    .a = marea_at(x),
                    .b = marea_at(c->in[first + 1]),
                    .size = marea_dtype_size((marea_dtype)x->dtype),
                    .n = marea_count(x->rank, x->shape),
                    .out = marea_at(c->out[0])};
}

static marea_status run_loss (marea_call *c, loss_job *j) {
  const int64_t blocks = (j->n + MAREA_BLOCK - 1) / MAREA_BLOCK;
  const reduction r = (reduction)c->attr[0].i;
  double total = 0;
  if (r != NONE && blocks > 0) MAREA_WORKSPACE_OR_RETURN(c, j->partial, (size_t)blocks * sizeof *j->partial);
  marea_parallel(c->ctx, blocks, loss_block, j);
  if (r == NONE) return MAREA_OK;
  for (int64_t i = 0; i < blocks; i++) total += j->partial[i];
  marea_store(c->out[0]->dtype, marea_at(c->out[0]), 0, total * factor(r, c->in[0]));
  return MAREA_OK;
}

static const marea_kernels *kernels (const marea_call *c) { return c->ctx->kernels[c->in[0]->dtype]; }

static marea_status forward_with (marea_call *c, marea_binary_kernel *kernel, const double *p) {
  loss_job j = job_of(c, 0, kernel, p);
  return run_loss(c, &j);
}

/* dy times the factor of the reduction: the gradient of each element's loss. */
static marea_tensor *arriving (formula *f, marea_tensor *dy, int i) {
  return times(f, dy, factor((reduction)f->v->attr[0].i, f->v->in[i]));
}

/* ---- gradients in one pass --------------------------------------------------------------------------- */

/* Shape rule of gradients: in[0] is dy, in[1] the prediction, in[2] the target. */
static marea_status grad_shape (marea_call *c) {
  const marea_tensor *x = c->in[1];
  marea_tensor number = *x;
  number.rank = 0;
  MAREA_TRY(check_pair(c, 1));
  MAREA_TRY(marea_want_shape(c, 0, c->attr[0].i == NONE ? x : &number));
  marea_layout_like(&c->layout[0], x);
  return MAREA_OK;
}

static void grad_piece (const loss_job *j, int64_t at, size_t n) {
  const double zero = 0; /* all bits 0: of either dtype */
  uint8_t counts[PIECE];
  char *out = j->out + (size_t)at * j->size;
  const bool guarded = j->clipped && (j->dy_step || !isfinite(j->factor));
  loss_piece(j, at, n, out);
  if (guarded) j->k->ne(n, out, 1, &zero, 0, counts, NULL);
  if (j->dy_step) j->k->mul(n, out, 1, j->dy + (size_t)at * j->size, 1, out, NULL);
  else j->k->scale(n, j->factor, out, out);
  if (guarded) j->k->where(n, counts, 1, out, 1, &zero, 0, out, NULL);
}

static void grad_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const loss_job *j = arg;
  const int64_t end = MAREA_MIN((block + 1) * MAREA_BLOCK, j->n);
  for (int64_t i = block * MAREA_BLOCK; i < end; i += PIECE)
    grad_piece(j, i, (size_t)MAREA_MIN(PIECE, end - i));
}

static double number_of (const marea_tensor *t) { return marea_load(t->dtype, marea_at(t), 0); }

static marea_status grad_with (marea_call *c, marea_binary_kernel *kernel, const double *p, bool clipped) {
  loss_job j = job_of(c, 1, kernel, p);
  j.clipped = clipped;
  const reduction r = (reduction)c->attr[0].i;
  if (j.n == 0) return MAREA_OK;
  j.dy = marea_at(c->in[0]);
  j.dy_step = r == NONE;
  j.factor = r == NONE ? 1 : factor(r, c->in[1]) * number_of(c->in[0]);
  marea_parallel(c->ctx, (j.n + MAREA_BLOCK - 1) / MAREA_BLOCK, grad_block, &j);
  return MAREA_OK;
}

/* The gradient of a loss to its prediction, as operator `grad`. */
static marea_tensor *grad_of (formula *f, const marea_op *grad) {
  const marea_vjp *v = f->v;
  return step(f, grad, v->attr, 3, v->dout[0], v->in[0], v->in[1]);
}

/* The gradient to dy of a gradient operator, which is linear in dy: u times what dy = 1 gives. */
static void give_dy (formula *f, marea_tensor *u) {
  const marea_vjp *v = f->v;
  const bool each = v->attr[0].i == NONE;
  marea_tensor *one = constant(f, v->in[1], 1);
  if (each) one = expand_like(f, one, v->in[1]);
  marea_tensor *product = mul(f, u, step(f, v->op, v->attr, 3, one, v->in[1], v->in[2]));
  give(f, 0, each ? product : sum_all(f, product));
}

/* ---- bce --------------------------------------------------------------------------------------------- */

#define EPS_ATTR \
  { "eps", MAREA_REAL, 1e-7, NULL, "p is clamped to [eps, 1 - eps]" }

static marea_status check_eps (marea_call *c) {
  if (c->attr[1].f > 0 && c->attr[1].f < 0.5) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument 'eps': expected a number between 0 and 0.5, got %g",
                      c->attr[1].f);
}

static marea_status bce_shape (marea_call *c) {
  MAREA_TRY(check_eps(c));
  return loss_shape(c);
}

/* ---- probabilities: numbers that leave 0..1 by more than rounding are logits, pixels or labels by mistake -- */

#define SLACK 1e-3

typedef struct range_job {
  const marea_kernels *k;
  const char *x;
  size_t size;
  int64_t n;
  double *low, *high; /* one a block */
} range_job;

static void range_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const range_job *j = arg;
  const int64_t at = block * MAREA_BLOCK;
  const size_t n = (size_t)MAREA_MIN(MAREA_BLOCK, j->n - at);
  j->low[block] = j->k->min(n, j->x + (size_t)at * j->size);
  j->high[block] = j->k->max(n, j->x + (size_t)at * j->size);
}

static marea_status want_probabilities (marea_call *c, int input) {
  const marea_tensor *t = c->in[input];
  range_job j = {.k = c->ctx->kernels[t->dtype],
                 .x = marea_at(t),
                 .size = marea_dtype_size((marea_dtype)t->dtype),
                 .n = marea_count(t->rank, t->shape)};
  const int64_t blocks = (j.n + MAREA_BLOCK - 1) / MAREA_BLOCK;
  if (blocks == 0) return MAREA_OK;
  MAREA_WORKSPACE_OR_RETURN(c, j.low, 2 * (size_t)blocks * sizeof *j.low);
  j.high = j.low + blocks;
  for (int64_t i = 0; i < blocks; i++) j.low[i] = j.high[i] = 0;
  marea_parallel(c->ctx, blocks, range_block, &j);
  double low = j.low[0], high = j.high[0];
  for (int64_t i = 1; i < blocks; i++) {
    low = j.low[i] < low ? j.low[i] : low;
    high = j.high[i] > high ? j.high[i] : high;
  }
  if (!(low < -SLACK || high > 1 + SLACK)) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument '%s': expected numbers from 0 to 1, got %g to %g",
                      c->op->inputs[input].name, low, high);
}

static marea_status bce_forward (marea_call *c) {
  MAREA_TRY(want_probabilities(c, 0));
  MAREA_TRY(want_probabilities(c, 1));
  return forward_with(c, kernels(c)->bce, &c->attr[1].f);
}

/* q := p clamped to [eps, 1 - eps], between 0 and 1 in p's dtype too, as the kernels do it */
static marea_tensor *clipped (formula *f, marea_tensor *p) {
  if (f->status != MAREA_OK) return NULL;
  const double eps = f->v->attr[1].f, low = MAREA_MAX(eps, marea_smallest(p->dtype));
  const double gap = MAREA_MAX(eps, marea_epsilon(p->dtype) / 2);
  const marea_attr limits[] = {marea_attr_real(low), marea_attr_real(1 - gap)};
  return step(f, &marea_op_clamp, limits, 1, p, NULL, NULL);
}

static marea_tensor *one_minus (formula *f, marea_tensor *t) {
  return plus(f, unary(f, &marea_op_neg, t), 1);
}

static marea_status bce_vjp (marea_vjp *v) {
  formula f = {.v = v};
  if (v->need[0]) give(&f, 0, grad_of(&f, &marea_op_bce_grad));
  if (v->need[1]) {
    marea_tensor *q = clipped(&f, v->in[0]);
    marea_tensor *odds = sub(&f, unary(&f, &marea_op_log, one_minus(&f, q)), unary(&f, &marea_op_log, q));
    give(&f, 1, mul(&f, odds, arriving(&f, v->dout[0], 0)));
  }
  return finish(&f);
}

const marea_op marea_op_bce = {
    .name = "bce",
    .family = "loss",
    TWO_INPUTS("p"),
    .attrs = MAREA_ATTRS(ELEMENTS_ATTR, EPS_ATTR),
    .flags = MAREA_PROMOTES | MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .shape = bce_shape,
    .forward = bce_forward,
    .vjp = bce_vjp,
    .sample = "local s = g.shape(1, 3) return {g.tensor(s, " PROBABILITY "), g.tensor(s, " PROBABILITY ")}, "
              "{reduction = " REDUCTIONS "}",
    .doc = "bce(p, target, reduction, eps): binary cross-entropy -(t log q + (1 - t) log(1 - q)) of "
           "probabilities, q = clamp(p, eps, 1 - eps) as in Keras. Gradients: dp = dy (q - t) / (q (1 - q)), "
           "0 where p is clamped; dt = dy (log(1 - q) - log q)." REDUCTION_DOC
           " Error: p or target outside of 0..1 by more than 0.001.",
};

static marea_status bce_grad_shape (marea_call *c) {
  MAREA_TRY(check_eps(c));
  return grad_shape(c);
}

static marea_status bce_grad_forward (marea_call *c) {
  return grad_with(c, kernels(c)->bce_grad, &c->attr[1].f, true);
}

/* The slope (1 - t)/(1 - q) - t/q has the slopes (1 - t)/(1 - q)^2 + t/q^2 after p and -1/(q (1 - q))
   after t. */
static marea_status bce_grad_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *u = v->dout[0], *p = v->in[1], *t = v->in[2];
  if (v->need[0]) give_dy(&f, u);
  if (v->need[1] || v->need[2]) {
    marea_tensor *q = clipped(&f, p), *rest = one_minus(&f, q);
    marea_tensor *w = keep_where(&f, binary(&f, &marea_op_eq, p, q), mul(&f, u, arriving(&f, v->in[0], 1)));
    if (v->need[1]) {
      marea_tensor *slope = divide(&f, one_minus(&f, t), square(&f, rest));
      give(&f, 1, mul(&f, w, add(&f, slope, divide(&f, t, square(&f, q)))));
    }
    if (v->need[2]) give(&f, 2, unary(&f, &marea_op_neg, divide(&f, w, mul(&f, q, rest))));
  }
  return finish(&f);
}

const marea_op marea_op_bce_grad = {
    .name = "bce_grad",
    .family = "loss",
    GRAD_INPUTS("p"),
    .attrs = MAREA_ATTRS(ELEMENTS_ATTR, EPS_ATTR),
    .flags = MAREA_PROMOTES,
    .dtypes = MAREA_ANY,
    .saves_in = 7,
    .shape = bce_grad_shape,
    .forward = bce_grad_forward,
    .vjp = bce_grad_vjp,
    .sample = GRAD_SAMPLE(", " PROBABILITY, ", " PROBABILITY, ""),
    .doc = "bce_grad(dy, p, target, reduction, eps): the gradient of bce to p, dy (q - t) / (q (1 - q)) "
           "times 1/n of the reduction, 0 where p is clamped. Gradients to all three inputs. Errors: as bce; "
           "dy of another shape.",
};

/* ---- bce_with_logits --------------------------------------------------------------------------------- */

static marea_status bce_with_logits_forward (marea_call *c) {
  MAREA_TRY(want_probabilities(c, 1));
  return forward_with(c, kernels(c)->bce_with_logits, NULL);
}

static marea_status bce_with_logits_vjp (marea_vjp *v) {
  formula f = {.v = v};
  if (v->need[0]) give(&f, 0, grad_of(&f, &marea_op_bce_with_logits_grad));
  if (v->need[1]) give(&f, 1, unary(&f, &marea_op_neg, mul(&f, v->in[0], arriving(&f, v->dout[0], 0))));
  return finish(&f);
}

const marea_op marea_op_bce_with_logits = {
    .name = "bce_with_logits",
    .family = "loss",
    TWO_INPUTS("x"),
    .attrs = MAREA_ATTRS(ELEMENTS_ATTR),
    .flags = MAREA_PROMOTES | MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .shape = loss_shape,
    .forward = bce_with_logits_forward,
    .vjp = bce_with_logits_vjp,
    .sample = "local s = g.shape(1, 3) return {g.tensor(s, {away = {0}}), g.tensor(s, " PROBABILITY ")}, "
              "{reduction = " REDUCTIONS "}",
    .doc =
        "bce_with_logits(x, target, reduction): binary cross-entropy of sigmoid(x), max(x, 0) - x t + "
        "log(1 + e^-|x|), without overflow for any x, infinite ones too: 0 where they agree with a target of "
        "0 or 1, else infinity. Gradients: dx = dy (sigmoid(x) - t), dt = -dy "
        "x." REDUCTION_DOC " Error: target outside of 0..1 by more than 0.001.",
};

static marea_status bce_with_logits_grad_forward (marea_call *c) {
  return grad_with(c, kernels(c)->bce_with_logits_grad, NULL, false);
}

static marea_status bce_with_logits_grad_vjp (marea_vjp *v) {
  formula f = {.v = v};
  if (v->need[0]) give_dy(&f, v->dout[0]);
  if (v->need[1] || v->need[2]) {
    marea_tensor *w = mul(&f, v->dout[0], arriving(&f, v->in[0], 1));
    marea_tensor *s = unary(&f, &marea_op_sigmoid, v->in[1]);
    if (v->need[1]) give(&f, 1, mul(&f, w, sub(&f, s, square(&f, s))));
    if (v->need[2]) give(&f, 2, unary(&f, &marea_op_neg, w));
  }
  return finish(&f);
}

const marea_op marea_op_bce_with_logits_grad = {
    .name = "bce_with_logits_grad",
    .family = "loss",
    GRAD_INPUTS("x"),
    .attrs = MAREA_ATTRS(ELEMENTS_ATTR),
    .flags = MAREA_PROMOTES,
    .dtypes = MAREA_ANY,
    .saves_in = 7,
    .shape = grad_shape,
    .forward = bce_with_logits_grad_forward,
    .vjp = bce_with_logits_grad_vjp,
    .sample = GRAD_SAMPLE("", ", " PROBABILITY, ""),
    .doc = "bce_with_logits_grad(dy, x, target, reduction): the gradient of bce_with_logits to x, dy "
           "(sigmoid(x) - t) times 1/n of the reduction. Gradients to all three inputs. Errors: as "
           "bce_with_logits; dy of another shape.",
};

/* ---- mse, l1, huber ---------------------------------------------------------------------------------- */

/* Gives dx to the prediction and -dx to the target. */
static void give_both (formula *f, marea_tensor *dx) {
  if (f->v->need[0]) give(f, 0, dx);
  if (f->v->need[1]) give(f, 1, unary(f, &marea_op_neg, dx));
}

static marea_status mse_forward (marea_call *c) {
  return forward_with(c, kernels(c)->squared_difference, NULL);
}

static marea_status mse_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *rate = times(&f, arriving(&f, v->dout[0], 0), 2);
  give_both(&f, mul(&f, sub(&f, v->in[0], v->in[1]), rate));
  return finish(&f);
}

const marea_op marea_op_mse = {
    .name = "mse",
    .family = "loss",
    TWO_INPUTS("x"),
    .attrs = MAREA_ATTRS(ELEMENTS_ATTR),
    .flags = MAREA_PROMOTES | MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .shape = loss_shape,
    .forward = mse_forward,
    .vjp = mse_vjp,
    .sample = "local s = g.shape(1, 3) return {g.tensor(s), g.tensor(s)}, {reduction = " REDUCTIONS "}",
    .doc = "mse(x, target, reduction): (x - t)^2. Gradients: dx = 2 dy (x - t), dt = -dx." REDUCTION_DOC,
};

static marea_status l1_forward (marea_call *c) {
  return forward_with(c, kernels(c)->absolute_difference, NULL);
}

static marea_status l1_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *sign = unary(&f, &marea_op_sign, sub(&f, v->in[0], v->in[1]));
  marea_tensor *dx = mul(&f, sign, arriving(&f, v->dout[0], 0));
  give_both(&f, keep_where(&f, with_number(&f, &marea_op_ne, sign, 0), dx));
  return finish(&f);
}

#define FAR_APART \
  "local s = g.shape(1, 3) return {g.distinct(s), g.distinct(s) + 0.013}, {reduction = " REDUCTIONS

const marea_op marea_op_l1 = {
    .name = "l1",
    .family = "loss",
    TWO_INPUTS("x"),
    .attrs = MAREA_ATTRS(ELEMENTS_ATTR),
    .flags = MAREA_PROMOTES | MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .shape = loss_shape,
    .forward = l1_forward,
    .vjp = l1_vjp,
    .sample = FAR_APART "}",
    .doc = "l1(x, target, reduction): |x - t|. Gradients: dx = dy sign(x - t), 0 where they are equal; dt = "
           "-dx." REDUCTION_DOC,
};

#define DELTA_ATTR \
  { "delta", MAREA_REAL, 1, NULL, "where the square goes over into a line; above 0" }

static marea_status check_delta (marea_call *c) {
  if (c->attr[1].f > 0) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument 'delta': expected a number above 0, got %g", c->attr[1].f);
}

static marea_status huber_shape (marea_call *c) {
  MAREA_TRY(check_delta(c));
  return loss_shape(c);
}

static marea_status huber_forward (marea_call *c) {
  return forward_with(c, kernels(c)->huber, &c->attr[1].f);
}

static marea_status huber_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give_both(&f, grad_of(&f, &marea_op_huber_grad));
  return finish(&f);
}

const marea_op marea_op_huber = {
    .name = "huber",
    .family = "loss",
    TWO_INPUTS("x"),
    .attrs = MAREA_ATTRS(ELEMENTS_ATTR, DELTA_ATTR),
    .flags = MAREA_PROMOTES | MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .shape = huber_shape,
    .forward = huber_forward,
    .vjp = huber_vjp,
    .sample = FAR_APART ", delta = 0.7}",
    .doc = "huber(x, target, reduction, delta): with e = x - t, e^2 / 2 where |e| <= delta, else delta (|e| "
           "- delta / 2). Gradients: dx = dy clamp(e, -delta, delta), dt = -dx. Error: delta <= 0. Huber, "
           "1964." REDUCTION_DOC,
};

static marea_status huber_grad_shape (marea_call *c) {
  MAREA_TRY(check_delta(c));
  return grad_shape(c);
}

static marea_status huber_grad_forward (marea_call *c) {
  return grad_with(c, kernels(c)->huber_grad, &c->attr[1].f, false);
}

static marea_status huber_grad_vjp (marea_vjp *v) {
  formula f = {.v = v};
  if (v->need[0]) give_dy(&f, v->dout[0]);
  if (v->need[1] || v->need[2]) {
    marea_tensor *distance = unary(&f, &marea_op_abs, sub(&f, v->in[1], v->in[2]));
    marea_tensor *inside = with_number(&f, &marea_op_le, distance, v->attr[1].f);
    marea_tensor *dx = keep_where(&f, inside, mul(&f, v->dout[0], arriving(&f, v->in[0], 1)));
    if (v->need[1]) give(&f, 1, dx);
    if (v->need[2]) give(&f, 2, unary(&f, &marea_op_neg, dx));
  }
  return finish(&f);
}

const marea_op marea_op_huber_grad = {
    .name = "huber_grad",
    .family = "loss",
    GRAD_INPUTS("x"),
    .attrs = MAREA_ATTRS(ELEMENTS_ATTR, DELTA_ATTR),
    .flags = MAREA_PROMOTES,
    .dtypes = MAREA_ANY,
    .saves_in = 7,
    .shape = huber_grad_shape,
    .forward = huber_grad_forward,
    .vjp = huber_grad_vjp,
    .sample = "local s, r = g.shape(1, 3, 1), " REDUCTIONS " return {g.tensor(r == 'none' and s or {}), "
              "g.distinct(s), g.distinct(s) + 0.013}, {reduction = r, delta = 0.7}",
    .doc = "huber_grad(dy, x, target, reduction, delta): the gradient of huber to x, dy clamp(x - t, -delta, "
           "delta) times 1/n of the reduction. Gradients to all three inputs. Errors: as huber; dy of "
           "another shape.",
};

/* ---- kl_normal --------------------------------------------------------------------------------------- */

static marea_status kl_normal_forward (marea_call *c) {
  loss_job j = job_of(c, 0, kernels(c)->kl_normal, NULL);
  j.clamp_b = true;
  return run_loss(c, &j);
}

/* The gradient uses the clamped value too: large, but finite, and towards smaller variances. */
static marea_status kl_normal_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *rate = arriving(&f, v->dout[0], 0);
  if (v->need[0]) give(&f, 0, mul(&f, v->in[0], rate));
  if (v->need[1]) {
    const marea_attr limits[] = {marea_attr_real(-INFINITY), marea_attr_real(MAX_LOG_VARIANCE)};
    marea_tensor *held = step(&f, &marea_op_clamp, limits, 1, v->in[1], NULL, NULL);
    give(&f, 1, mul(&f, unary(&f, &marea_op_expm1, held), times(&f, rate, 0.5)));
  }
  return finish(&f);
}

const marea_op marea_op_kl_normal = {
    .name = "kl_normal",
    .family = "loss",
    .inputs = {{"mean", "any shape"}, {"logvar", "log variance, the same shape"}},
    .attrs = MAREA_ATTRS(ELEMENTS_ATTR),
    .flags = MAREA_PROMOTES | MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .shape = loss_shape,
    .forward = kl_normal_forward,
    .vjp = kl_normal_vjp,
    .sample = "local s = g.shape(1, 3) return {g.tensor(s), g.tensor(s)}, {reduction = " REDUCTIONS "}",
    .doc = "kl_normal(mean, logvar, reduction): Kullback-Leibler divergence of N(mean, exp(logvar)) from "
           "N(0, 1), (mean^2 + exp(logvar) - 1 - logvar) / 2 per element. A logvar above 20 counts as 20, in "
           "the value and in the gradient, so that neither overflows. Gradients: dmean = dy mean, dlogvar = "
           "dy (exp(logvar) - 1) / 2. Kingma and Welling, 2013 (arXiv 1312.6114), appendix B." REDUCTION_DOC,
};
