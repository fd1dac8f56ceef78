/* SPDX-License-Identifier: MIT
** norm.c: batch, group and layer normalization, channels last. The passes are in norm_columns.c and norm_rows.c.
**
** The gradients are operators of their own where no graph of them is wanted, and one formula, over x seen as
** (n, rows, groups, width), where it is.
*/
#include "norm.h"

#include "formula.h"

#define ACTIVATIONS "none|relu|leaky_relu|elu|sigmoid|tanh|softplus"
#define EPS_ATTR(initial) \
  { "eps", MAREA_REAL, initial, NULL, "added to the variance" }
#define ACTIVATION_ATTRS                                                 \
  {"activation", MAREA_ENUM, 0, ACTIVATIONS, "applied to the result"}, { \
    "slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC               \
  }
#define WANTED_ATTRS                                                \
  {"dx", MAREA_BOOL, 1, NULL, "give x's gradient"},                 \
      {"dweight", MAREA_BOOL, 1, NULL, "give weight's gradient"}, { \
    "dbias", MAREA_BOOL, 1, NULL, "give bias' gradient"             \
  }
#define SAMPLE_SHAPE(rank) "local s = g.shape(" #rank ", 4, 1) local c = s[#s] "
#define SAMPLE_ACT "activation = g.pick{'none', 'none', 'sigmoid', 'tanh', 'softplus'}"
#define SAMPLE_EPS "eps = g.pick{0.01, 0.5}"
#define SAMPLE_WANTED "dx = g.bool(), dweight = g.bool(), dbias = true"

/* ---- checks ---- */

static marea_status check_eps (marea_call *c, int attr) {
  const double eps = c->attr[attr].f;
  if (eps >= 0) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument 'eps': expected a number >= 0, got %g", eps);
}

/* An input with one number for each channel of x, if it is there. */
static marea_status check_channels (marea_call *c, int input, const marea_tensor *x) {
  if (input >= c->n_in || !c->in[input]) return MAREA_OK;
  MAREA_TRY(marea_want_dtype(c, input, 1 << x->dtype));
  MAREA_TRY(marea_want_rank(c, input, 1, "(C)"));
  return marea_want_size(c, input, 0, x->shape[x->rank - 1], "one for each channel of x");
}

/* x (..., C) of a batch, in[input] */
static marea_status check_batch (marea_call *c, int input) {
  const marea_tensor *x = c->in[input];
  MAREA_TRY(marea_want_dtype(c, input, 1 << c->in[0]->dtype));
  if (x->rank >= 2) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "argument 'x': expected at least 2 dimensions (N, ..., C), got %s",
                      marea_tensor_text(x).s);
}

static marea_status reject_empty (marea_call *c, const marea_tensor *x) {
  return marea_reject(c, MAREA_ESHAPE, "x %s has no elements to take a mean of", marea_tensor_text(x).s);
}

static marea_tensor *input_at (const marea_call *c, int i) { return i < c->n_in ? c->in[i] : NULL; }

/* dy, and y where there is an activation, are like x. */
static marea_status check_result (marea_call *c, const marea_tensor *x, int y, int activation) {
  MAREA_TRY(marea_want_shape(c, 0, x));
  if (y < 0 || c->attr[activation].i == MAREA_ACT_NONE) return MAREA_OK;
  if (!input_at(c, y)) return marea_reject(c, MAREA_EARG, "argument 'y': expected a tensor, got nothing");
  MAREA_TRY(marea_want_dtype(c, y, 1 << x->dtype));
  return marea_want_shape(c, y, x);
}

/* Outputs dx, dweight, dbias of a backward operator: those that the attributes from `first` on ask for. */
static void layout_wanted (marea_call *c, int first, const marea_tensor *x, int rank, const int64_t *shape) {
  c->n_out = 0;
  if (c->attr[first].i) marea_layout_like(&c->layout[c->n_out++], x);
  for (int i = 1; i <= 2; i++)
    if (c->attr[first + i].i) marea_layout_set(&c->layout[c->n_out++], x->dtype, rank, shape);
}

static void outputs_wanted (const marea_call *c, int first, marea_norm_back *b) {
  int k = 0;
  if (c->attr[first].i) b->dx = c->out[k++];
  if (c->attr[first + 1].i) b->dweight = c->out[k++];
  if (c->attr[first + 2].i) b->dbias = c->out[k++];
}

/* din[] from the operator `back`, whose last three attributes, from `first` on, say what is wanted; they are
   constants for the tape, which is right where nothing records. x is input 0, weight and bias are 1 and 2. */
static marea_status run_backward (marea_vjp *v, const marea_op *back, int n_in, marea_tensor **in,
                                  marea_attr *attrs, int first) {
  marea_tensor *out[3];
  int n;
  for (int i = 0; i < 3; i++) attrs[first + i] = marea_attr_int(i < v->n_in && v->need[i]);
  MAREA_TRY(marea_invoke(v->ctx, back, n_in, in, attrs, out, &n));
  for (int i = 0, k = 0; k < n; i++)
    if (attrs[first + i].i) v->din[i] = out[k++];
  return MAREA_OK;
}

static marea_tensor *weight_of (const marea_vjp *v) { return v->n_in > 1 ? v->in[1] : NULL; }

static bool needs (const marea_vjp *v, int i) { return i < v->n_in && v->need[i]; }

/* ---- the formula ---- */

static const int64_t over_group[] = {1, 3}, over_rows[] = {0, 1}; /* dimensions of (n, rows, groups, width) */

static marea_tensor *shaped (formula *f, marea_tensor *t, const int64_t shape[4]) {
  const marea_attr a = marea_attr_list(4, shape);
  return step(f, &marea_op_reshape, &a, 1, t, NULL, NULL);
}

static marea_tensor *like (formula *f, marea_tensor *t, const marea_tensor *shape) {
  const marea_attr a = marea_attr_list(shape->rank, shape->shape);
  return step(f, &marea_op_reshape, &a, 1, t, NULL, NULL);
}

static marea_tensor *group_mean (formula *f, marea_tensor *t) {
  const marea_attr a[] = {marea_attr_list(2, over_group), marea_attr_int(1)};
  return step(f, &marea_op_mean, a, 1, t, NULL, NULL);
}

static marea_tensor *parameter_sum (formula *f, marea_tensor *t, const marea_tensor *parameter) {
  return like(f, sum_dims(f, t, marea_attr_list(2, over_rows), false), parameter);
}

/* The gradients of the three inputs: with e = dy act'(y), xc = x - mean, rate = 1 / sqrt(variance + eps), t = e weight:
     dx = rate (t - mean(t) - xc rate^2 mean(t xc)), dweight = sum e xc rate, dbias = sum e.
   x, e: (n, rows, groups, width); mean, variance: (n, 1, groups, 1). Returns dx for what else is to be added to it. */
static marea_tensor *gradients (formula *f, const marea_norm *g, marea_tensor *x, marea_tensor *e,
                                marea_tensor *mean, marea_tensor *variance) {
  const marea_vjp *v = f->v;
  const int64_t columns[] = {1, 1, g->groups, g->width};
  marea_tensor *rate = unary(f, &marea_op_rsqrt, plus(f, variance, g->eps)), *xc = sub(f, x, mean),
               *dx = NULL;
  if (needs(v, 0)) {
    marea_tensor *t = weight_of(v) ? mul(f, e, shaped(f, weight_of(v), columns)) : e;
    marea_tensor *along = mul(f, square(f, rate), group_mean(f, mul(f, t, xc)));
    dx = mul(f, rate, sub(f, sub(f, t, group_mean(f, t)), mul(f, xc, along)));
  }
  if (needs(v, 1)) give(f, 1, parameter_sum(f, mul(f, e, mul(f, xc, rate)), v->in[1]));
  if (needs(v, 2)) give(f, 2, parameter_sum(f, e, v->in[2]));
  return dx;
}

/* ---- batch_norm ---- */

enum {
  BATCH_EPS,
  BATCH_ACTIVATION,
  BATCH_SLOPE,
  BATCH_DX
}; /* ORDER of attributes, DX: of batch_norm_backward */

static marea_norm batch_of (const marea_tensor *x, const marea_attr *attr) {
  const int64_t channels = x->shape[x->rank - 1];
  return (marea_norm){.n = 1,
                      .rows = marea_count(x->rank - 1, x->shape),
                      .groups = channels,
                      .width = 1,
                      .eps = attr[BATCH_EPS].f,
                      .act = (marea_activation)attr[BATCH_ACTIVATION].i,
                      .slope = attr[BATCH_SLOPE].f};
}

static marea_status batch_norm_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  MAREA_TRY(check_batch(c, 0));
  MAREA_TRY(check_channels(c, 1, x));
  MAREA_TRY(check_channels(c, 2, x));
  MAREA_TRY(check_eps(c, BATCH_EPS));
  MAREA_TRY(marea_want_slope(c, BATCH_SLOPE));
  if (marea_count(x->rank - 1, x->shape) == 0) return reject_empty(c, x);
  marea_layout_like(&c->layout[0], x);
  c->n_out = 3;
  for (int i = 1; i < 3; i++) marea_layout_set(&c->layout[i], x->dtype, 1, &x->shape[x->rank - 1]);
  return MAREA_OK;
}

/* Scratch for means and variances of all groups. */
static marea_status open_statistics (marea_call *c, const marea_norm *g, double **mean, double **variance) {
  const size_t bytes = MAREA_MAX((size_t)(g->n * g->groups) * sizeof(double), 1);
  MAREA_SCRATCH(c, *mean, bytes);
  MAREA_SCRATCH(c, *variance, bytes);
  return MAREA_OK;
}

static marea_status batch_norm_forward (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const marea_norm g = batch_of(x, c->attr);
  double *mean, *variance;
  MAREA_TRY(open_statistics(c, &g, &mean, &variance));
  MAREA_TRY(marea_norm_statistics(c, &g, x, mean, variance));
  for (int64_t i = 0; i < g.groups; i++) {
    marea_norm_store(x->dtype, marea_at(c->out[1]), i, mean[i]);
    marea_norm_store(x->dtype, marea_at(c->out[2]), i, variance[i]);
  }
  return marea_norm_apply(c, &g, mean, variance, x, input_at(c, 1), input_at(c, 2), c->out[0]);
}

/* t (C) as (1, 1, C, 1) */
static marea_tensor *channels_of (formula *f, const marea_norm *g, marea_tensor *t) {
  const int64_t shape[] = {1, 1, g->groups, 1};
  return shaped(f, t, shape);
}

/* dx from the gradients of the mean and the variance: dmean / n + 2 dvariance (x - mean) / n */
static marea_tensor *from_statistics (formula *f, const marea_norm *g, marea_tensor *x, marea_tensor *mean) {
  const marea_vjp *v = f->v;
  marea_tensor *dx = NULL;
  if (v->dout[1]) dx = times(f, channels_of(f, g, v->dout[1]), 1 / (double)g->rows);
  if (!v->dout[2]) return dx;
  marea_tensor *rate = times(f, channels_of(f, g, v->dout[2]), 2 / (double)g->rows);
  marea_tensor *spread = mul(f, sub(f, x, mean), rate);
  return dx ? add(f, spread, dx) : spread;
}

static marea_status batch_norm_formula (marea_vjp *v) {
  const marea_norm g = batch_of(v->in[0], v->attr);
  const int64_t shape[] = {1, g.rows, g.groups, 1};
  formula f = {.v = v};
  marea_tensor *x = shaped(&f, v->in[0], shape), *mean = channels_of(&f, &g, v->out[1]), *dx = NULL;
  if (v->dout[0]) {
    const marea_attr act[] = {v->attr[BATCH_ACTIVATION], v->attr[BATCH_SLOPE]};
    marea_tensor *e = v->dout[0];
    if (g.act != MAREA_ACT_NONE) e = step(&f, &marea_op_activation_grad, act, 2, e, v->out[0], NULL);
    dx = gradients(&f, &g, x, shaped(&f, e, shape), mean, channels_of(&f, &g, v->out[2]));
  }
  if (needs(v, 0) && (v->dout[1] || v->dout[2])) {
    marea_tensor *more = from_statistics(&f, &g, x, mean);
    dx = dx ? add(&f, dx, more)
            : step(&f, &marea_op_expand, (marea_attr[]){marea_attr_list(4, shape)}, 1, more, NULL, NULL);
  }
  if (dx) give(&f, 0, like(&f, dx, v->in[0]));
  return finish(&f);
}

static marea_status batch_norm_vjp (marea_vjp *v) {
  if (v->ctx->recording || !v->dout[0] || v->dout[1] || v->dout[2]) return batch_norm_formula(v);
  marea_tensor *y = v->attr[BATCH_ACTIVATION].i == MAREA_ACT_NONE ? NULL : v->out[0];
  marea_tensor *in[] = {v->dout[0], v->in[0], v->out[1], v->out[2], weight_of(v), y};
  marea_attr a[BATCH_DX + 3] = {v->attr[BATCH_EPS], v->attr[BATCH_ACTIVATION], v->attr[BATCH_SLOPE]};
  return run_backward(v, &marea_op_batch_norm_backward, 6, in, a, BATCH_DX);
}

#define PARAMETER_INPUTS \
  {"weight", "(C)", .optional = true}, { "bias", "(C)", .optional = true }

const marea_op marea_op_batch_norm = {
    .name = "batch_norm",
    .family = "norm",
    .doc =
        "y = act((x - mean) / sqrt(variance + eps) * weight + bias) with each channel's mean and variance "
        "over "
        "all dimensions but the last, the variance divided by their number. x: (N, ..., C), any rank from 2; "
        "weight, bias: (C), 1 and 0 when left out. Results: y like x, mean (C), variance (C). Gradient, with "
        "e = dy act'(y) and xhat = (x - mean) rate, rate = 1 / sqrt(variance + eps): dweight = sum e xhat, "
        "dbias = sum e, dx = weight rate (e - mean(e) - xhat mean(e xhat)); through mean and variance too. "
        "Source: Ioffe and Szegedy, arXiv:1502.03167. Errors: rank below 2, no rows, parameters of another "
        "size.",
    .inputs = {{"x", "(N, ..., C)"}, PARAMETER_INPUTS},
    .attrs = {EPS_ATTR(1e-3), ACTIVATION_ATTRS},
    .saves_in = 3,
    .saves_out = 7,
    .shape = batch_norm_shape,
    .forward = batch_norm_forward,
    .vjp = batch_norm_vjp,
    .sample =
        SAMPLE_SHAPE(2) "return {g.tensor(s), g.bool() and g.tensor{c} or nil, g.bool() and g.tensor{c} or "
                        "nil}, {" SAMPLE_EPS ", " SAMPLE_ACT "}",
};

static marea_status batch_norm_backward_shape (marea_call *c) {
  const marea_tensor *x = c->in[1];
  MAREA_TRY(check_batch(c, 1));
  MAREA_TRY(check_result(c, x, 5, BATCH_ACTIVATION));
  for (int i = 2; i <= 4; i++) MAREA_TRY(check_channels(c, i, x));
  MAREA_TRY(check_eps(c, BATCH_EPS));
  MAREA_TRY(marea_want_slope(c, BATCH_SLOPE));
  if (marea_count(x->rank - 1, x->shape) == 0) return reject_empty(c, x);
  layout_wanted(c, BATCH_DX, x, 1, &x->shape[x->rank - 1]);
  return MAREA_OK;
}

static marea_status batch_norm_backward_forward (marea_call *c) {
  const marea_tensor *x = c->in[1];
  const marea_norm g = batch_of(x, c->attr);
  marea_norm_back b = {.dy = c->in[0], .x = x, .y = input_at(c, 5), .weight = input_at(c, 4)};
  double *mean, *variance;
  MAREA_TRY(open_statistics(c, &g, &mean, &variance));
  for (int64_t i = 0; i < g.groups; i++) {
    mean[i] = marea_norm_load(x->dtype, marea_at(c->in[2]), i);
    variance[i] = marea_norm_load(x->dtype, marea_at(c->in[3]), i);
  }
  outputs_wanted(c, BATCH_DX, &b);
  return marea_norm_backward(c, &g, mean, variance, &b);
}

const marea_op marea_op_batch_norm_backward = {
    .name = "batch_norm_backward",
    .family = "norm",
    .doc = "The gradients of batch_norm to x, weight and bias, those of them that are asked for, in this "
           "order, from "
           "its mean and variance, which are taken as those of x. Constants for the tape: backward takes it "
           "unless "
           "a graph of the gradients is wanted. dy and y: like x. Errors as for batch_norm.",
    .inputs = {{"dy", "like x"},
               {"x", "(N, ..., C)"},
               {"mean", "(C)"},
               {"variance", "(C)"},
               {"weight", "(C)", .optional = true},
               {"y", "batch_norm's result, unless activation is none", .optional = true}},
    .attrs = {EPS_ATTR(1e-3), ACTIVATION_ATTRS, WANTED_ATTRS},
    .flags = MAREA_NO_GRAD,
    .shape = batch_norm_backward_shape,
    .forward = batch_norm_backward_forward,
    .sample = SAMPLE_SHAPE(2) "local act = g.pick{'none', 'relu', 'tanh'} return {g.tensor(s), g.tensor(s), "
                              "g.tensor{c}, g.tensor({c}, {lo = 0.5}), g.bool() and g.tensor{c} or nil, "
                              "act ~= 'none' and g.tensor(s) or nil}, {" SAMPLE_EPS
                              ", activation = act, " SAMPLE_WANTED "}",
};

/* ---- batch_norm_eval ---- */

enum { EVAL_X, EVAL_MEAN, EVAL_VARIANCE, EVAL_WEIGHT, EVAL_BIAS };

static marea_status batch_norm_eval_shape (marea_call *c) {
  MAREA_TRY(check_batch(c, 0));
  for (int i = 1; i <= 4; i++) MAREA_TRY(check_channels(c, i, c->in[0]));
  MAREA_TRY(check_eps(c, BATCH_EPS));
  MAREA_TRY(marea_want_slope(c, BATCH_SLOPE));
  return marea_shape_same(c);
}

static marea_status batch_norm_eval_forward (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const marea_norm g = batch_of(x, c->attr);
  double *mean, *variance;
  MAREA_TRY(open_statistics(c, &g, &mean, &variance));
  for (int64_t i = 0; i < g.groups; i++) {
    mean[i] = marea_norm_load(x->dtype, marea_at(c->in[EVAL_MEAN]), i);
    variance[i] = marea_norm_load(x->dtype, marea_at(c->in[EVAL_VARIANCE]), i);
  }
  return marea_norm_apply(c, &g, mean, variance, x, input_at(c, EVAL_WEIGHT), input_at(c, EVAL_BIAS),
                          c->out[0]);
}

static marea_status batch_norm_eval_vjp (marea_vjp *v) {
  formula f = {.v = v};
  const marea_attr act[] = {v->attr[BATCH_ACTIVATION], v->attr[BATCH_SLOPE]};
  marea_tensor *e = v->dout[0], *weight = v->n_in > EVAL_WEIGHT ? v->in[EVAL_WEIGHT] : NULL;
  if (act[0].i != MAREA_ACT_NONE) e = step(&f, &marea_op_activation_grad, act, 2, e, v->out[0], NULL);
  marea_tensor *rate = unary(&f, &marea_op_rsqrt, plus(&f, v->in[EVAL_VARIANCE], v->attr[BATCH_EPS].f));
  marea_tensor *factor = weight ? mul(&f, rate, weight) : rate;
  if (needs(v, EVAL_X)) give(&f, EVAL_X, mul(&f, e, factor));
  if (!needs(v, EVAL_MEAN) && !needs(v, EVAL_VARIANCE) && !needs(v, EVAL_WEIGHT) && !needs(v, EVAL_BIAS))
    return finish(&f);
  const marea_tensor *channels = v->in[EVAL_MEAN];
  marea_tensor *sum = sum_like(&f, e, channels);
  marea_tensor *product = sum_like(&f, mul(&f, e, sub(&f, v->in[EVAL_X], v->in[EVAL_MEAN])), channels);
  if (needs(v, EVAL_MEAN)) give(&f, EVAL_MEAN, times(&f, mul(&f, sum, factor), -1));
  if (needs(v, EVAL_VARIANCE))
    give(&f, EVAL_VARIANCE, times(&f, mul(&f, mul(&f, product, factor), square(&f, rate)), -0.5));
  if (needs(v, EVAL_WEIGHT)) give(&f, EVAL_WEIGHT, mul(&f, product, rate));
  if (needs(v, EVAL_BIAS)) give(&f, EVAL_BIAS, sum);
  return finish(&f);
}

const marea_op marea_op_batch_norm_eval = {
    .name = "batch_norm_eval",
    .family = "norm",
    .doc =
        "y = act((x - mean) / sqrt(variance + eps) * weight + bias) with a mean and variance that are given: "
        "batch "
        "normalization outside training. x: (N, ..., C); mean, variance, weight, bias: (C), the last two 1 "
        "and 0 "
        "when left out; y: like x. Gradients to all of them; dx = dy act'(y) weight / sqrt(variance + eps). "
        "Errors: rank below 2, sizes that differ.",
    .inputs = {{"x", "(N, ..., C)"}, {"mean", "(C)"}, {"variance", "(C)"}, PARAMETER_INPUTS},
    .attrs = {EPS_ATTR(1e-3), ACTIVATION_ATTRS},
    .saves_in = 15,
    .saves_out = 1,
    .shape = batch_norm_eval_shape,
    .forward = batch_norm_eval_forward,
    .vjp = batch_norm_eval_vjp,
    .sample = SAMPLE_SHAPE(2) "return {g.tensor(s), g.tensor{c}, g.tensor({c}, {lo = 0.5}), g.bool() and "
                              "g.tensor{c} or nil, g.bool() and g.tensor{c} or nil}, {" SAMPLE_EPS
                              ", " SAMPLE_ACT "}",
};

/* ---- group_norm ---- */

enum { GROUP_GROUPS, GROUP_EPS, GROUP_DX }; /* ORDER of attributes, DX: of group_norm_backward */

static marea_norm group_of (const marea_tensor *x, const marea_attr *attr) {
  const int64_t groups = attr[GROUP_GROUPS].i;
  return (marea_norm){.n = x->shape[0],
                      .rows = marea_count(x->rank - 2, x->shape + 1),
                      .groups = groups,
                      .width = x->shape[x->rank - 1] / groups,
                      .eps = attr[GROUP_EPS].f};
}

/* in[input] is x */
static marea_status check_groups (marea_call *c, int input) {
  const marea_tensor *x = c->in[input];
  const int64_t groups = c->attr[GROUP_GROUPS].i;
  MAREA_TRY(check_batch(c, input));
  MAREA_TRY(check_eps(c, GROUP_EPS));
  const int64_t channels = x->shape[x->rank - 1];
  if (groups < 1 || channels % groups != 0)
    return marea_reject(c, MAREA_EARG, "argument 'groups': %lld does not divide the %lld channels of x %s",
                        (long long)groups, (long long)channels, marea_tensor_text(x).s);
  if (x->shape[0] > 0 && marea_count(x->rank - 1, x->shape + 1) == 0) return reject_empty(c, x);
  return MAREA_OK;
}

static marea_status group_norm_shape (marea_call *c) {
  MAREA_TRY(check_groups(c, 0));
  MAREA_TRY(check_channels(c, 1, c->in[0]));
  MAREA_TRY(check_channels(c, 2, c->in[0]));
  return marea_shape_same(c);
}

static marea_status group_norm_forward (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const marea_norm g = group_of(x, c->attr);
  double *mean, *variance;
  MAREA_TRY(open_statistics(c, &g, &mean, &variance));
  MAREA_TRY(marea_norm_statistics(c, &g, x, mean, variance));
  return marea_norm_apply(c, &g, mean, variance, x, input_at(c, 1), input_at(c, 2), c->out[0]);
}

/* The formula where the statistics are no results: they are computed again, with a history. */
static marea_status statistics_formula (marea_vjp *v, const marea_norm *g) {
  const int64_t shape[] = {g->n, g->rows, g->groups, g->width};
  const marea_attr biased[] = {marea_attr_list(2, over_group), marea_attr_int(1), marea_attr_int(0)};
  formula f = {.v = v};
  marea_tensor *x = shaped(&f, v->in[0], shape);
  marea_tensor *variance = step(&f, &marea_op_var, biased, 1, x, NULL, NULL);
  marea_tensor *dx = gradients(&f, g, x, shaped(&f, v->dout[0], shape), group_mean(&f, x), variance);
  if (dx) give(&f, 0, like(&f, dx, v->in[0]));
  return finish(&f);
}

static marea_status group_norm_vjp (marea_vjp *v) {
  if (v->ctx->recording) {
    const marea_norm g = group_of(v->in[0], v->attr);
    return statistics_formula(v, &g);
  }
  marea_tensor *in[] = {v->dout[0], v->in[0], weight_of(v)};
  marea_attr a[GROUP_DX + 3] = {v->attr[GROUP_GROUPS], v->attr[GROUP_EPS]};
  return run_backward(v, &marea_op_group_norm_backward, 3, in, a, GROUP_DX);
}

#define GROUPS_ATTR \
  { "groups", MAREA_INT, MAREA_REQUIRED, NULL, "number of groups that the channels are cut into" }
#define GROUPS_SAMPLE \
  "local s, groups = g.shape(1, 3, 1), g.int(1, 3) local c = groups * g.int(1, 3) s[#s + 1] = c "

const marea_op marea_op_group_norm = {
    .name = "group_norm",
    .family = "norm",
    .doc = "y = (x - mean) / sqrt(variance + eps) * weight + bias with mean and variance of each example and "
           "each of "
           "`groups` equal cuts of the channels, over all positions; groups = 1: of the whole example, "
           "groups = C: "
           "instance normalization. x: (N, ..., C); weight, bias: (C), 1 and 0 when left out; y: like x. "
           "Gradient "
           "as for batch_norm, with means over a group. Source: Wu and He, arXiv:1803.08494. Errors: groups "
           "that do "
           "not divide C, rank below 2, parameters of another size.",
    .inputs = {{"x", "(N, ..., C)"}, PARAMETER_INPUTS},
    .attrs = {GROUPS_ATTR, EPS_ATTR(1e-5)},
    .saves_in = 3,
    .shape = group_norm_shape,
    .forward = group_norm_forward,
    .vjp = group_norm_vjp,
    .sample = GROUPS_SAMPLE
    "return {g.tensor(s), g.bool() and g.tensor{c} or nil, g.bool() and g.tensor{c} or nil}, "
    "{groups = groups, " SAMPLE_EPS "}",
};

static marea_status group_norm_backward_shape (marea_call *c) {
  const marea_tensor *x = c->in[1];
  MAREA_TRY(check_groups(c, 1));
  MAREA_TRY(check_result(c, x, -1, 0));
  MAREA_TRY(check_channels(c, 2, x));
  layout_wanted(c, GROUP_DX, x, 1, &x->shape[x->rank - 1]);
  return MAREA_OK;
}

static marea_status group_norm_backward_forward (marea_call *c) {
  const marea_tensor *x = c->in[1];
  const marea_norm g = group_of(x, c->attr);
  marea_norm_back b = {.dy = c->in[0], .x = x, .weight = input_at(c, 2)};
  double *mean, *variance;
  MAREA_TRY(open_statistics(c, &g, &mean, &variance));
  MAREA_TRY(marea_norm_statistics(c, &g, x, mean, variance));
  outputs_wanted(c, GROUP_DX, &b);
  return marea_norm_backward(c, &g, mean, variance, &b);
}

const marea_op marea_op_group_norm_backward = {
    .name = "group_norm_backward",
    .family = "norm",
    .doc = "The gradients of group_norm to x, weight and bias, those of them that are asked for, in this "
           "order; the "
           "statistics are computed again. Constants for the tape: backward takes it unless a graph of the "
           "gradients is wanted. dy: like x. Errors as for group_norm.",
    .inputs = {{"dy", "like x"}, {"x", "(N, ..., C)"}, {"weight", "(C)", .optional = true}},
    .attrs = {GROUPS_ATTR, EPS_ATTR(1e-5), WANTED_ATTRS},
    .flags = MAREA_NO_GRAD,
    .shape = group_norm_backward_shape,
    .forward = group_norm_backward_forward,
    .sample = GROUPS_SAMPLE "return {g.tensor(s), g.tensor(s), g.bool() and g.tensor{c} or nil}, "
                            "{groups = groups, " SAMPLE_EPS ", " SAMPLE_WANTED "}",
};

/* ---- layer_norm ---- */

enum { LAYER_LAST, LAYER_EPS, LAYER_DX }; /* ORDER of attributes, DX: of layer_norm_backward */

static marea_norm layer_of (const marea_tensor *x, const marea_attr *attr) {
  const int kept = x->rank - (int)attr[LAYER_LAST].i;
  return (marea_norm){.n = marea_count(kept, x->shape),
                      .rows = 1,
                      .groups = 1,
                      .width = marea_count(x->rank - kept, x->shape + kept),
                      .eps = attr[LAYER_EPS].f};
}

/* x, in[input], has the dimensions to normalize, and parameters from `parameters` on have their shape. */
static marea_status check_layer (marea_call *c, int input, int parameters) {
  const marea_tensor *x = c->in[input];
  const int64_t last = c->attr[LAYER_LAST].i;
  MAREA_TRY(marea_want_dtype(c, input, 1 << c->in[0]->dtype));
  MAREA_TRY(check_eps(c, LAYER_EPS));
  if (last < 1 || last > x->rank)
    return marea_reject(c, MAREA_EARG, "argument 'last': expected 1..%d dimensions of x %s, got %lld",
                        x->rank, marea_tensor_text(x).s, (long long)last);
  const marea_norm g = layer_of(x, c->attr);
  if (g.width == 0 && g.n > 0) return reject_empty(c, x);
  marea_tensor row = {.dtype = x->dtype, .rank = (int8_t)last};
  memcpy(row.shape, x->shape + x->rank - last, (size_t)last * sizeof *row.shape);
  for (int i = parameters; i < c->n_in; i++) {
    if (!c->in[i]) continue;
    MAREA_TRY(marea_want_dtype(c, i, 1 << x->dtype));
    MAREA_TRY(marea_want_shape(c, i, &row));
  }
  return MAREA_OK;
}

static marea_status layer_norm_shape (marea_call *c) {
  MAREA_TRY(check_layer(c, 0, 1));
  return marea_shape_same(c);
}

static marea_status layer_norm_forward (marea_call *c) {
  const marea_norm g = layer_of(c->in[0], c->attr);
  return marea_norm_rows(c, &g, c->in[0], input_at(c, 1), input_at(c, 2), c->out[0]);
}

static marea_status layer_norm_vjp (marea_vjp *v) {
  if (v->ctx->recording) {
    const marea_norm g = layer_of(v->in[0], v->attr);
    return statistics_formula(v, &g);
  }
  marea_tensor *in[] = {v->dout[0], v->in[0], weight_of(v)};
  marea_attr a[LAYER_DX + 3] = {v->attr[LAYER_LAST], v->attr[LAYER_EPS]};
  return run_backward(v, &marea_op_layer_norm_backward, 3, in, a, LAYER_DX);
}

#define LAST_ATTR \
  { "last", MAREA_INT, 1, NULL, "how many of the last dimensions are normalized together" }
#define ROW_INPUT(name) \
  { name, "the last dimensions of x", .optional = true }
#define LAYER_SAMPLE                                                                                     \
  "local s = g.shape(1, 4, 1) local last = g.int(1, math.min(#s, 2)) local row = {table.unpack(s, #s - " \
  "last + 1)} "

const marea_op marea_op_layer_norm = {
    .name = "layer_norm",
    .family = "norm",
    .doc =
        "y = (x - mean) / sqrt(variance + eps) * weight + bias with mean and variance over the `last` last "
        "dimensions, the variance divided by their number. x: any rank from 1; weight, bias: the shape of "
        "those "
        "dimensions, 1 and 0 when left out; y: like x. Gradient as for batch_norm, with means over a row. "
        "Source: "
        "Ba, Kiros, Hinton, arXiv:1607.06450. Errors: last out of range, parameters of another shape.",
    .inputs = {{"x", "(..., D), at least one dimension"}, ROW_INPUT("weight"), ROW_INPUT("bias")},
    .attrs = {LAST_ATTR, EPS_ATTR(1e-5)},
    .saves_in = 3,
    .shape = layer_norm_shape,
    .forward = layer_norm_forward,
    .vjp = layer_norm_vjp,
    .sample = LAYER_SAMPLE
    "return {g.tensor(s), g.bool() and g.tensor(row) or nil, g.bool() and g.tensor(row) or "
    "nil}, {last = last, " SAMPLE_EPS "}",
};

static marea_status layer_norm_backward_shape (marea_call *c) {
  const marea_tensor *x = c->in[1];
  MAREA_TRY(check_layer(c, 1, 2));
  MAREA_TRY(check_result(c, x, -1, 0));
  const int last = (int)c->attr[LAYER_LAST].i;
  layout_wanted(c, LAYER_DX, x, last, x->shape + x->rank - last);
  return MAREA_OK;
}

static marea_status layer_norm_backward_forward (marea_call *c) {
  const marea_norm g = layer_of(c->in[1], c->attr);
  marea_norm_back b = {.dy = c->in[0], .x = c->in[1], .weight = input_at(c, 2)};
  outputs_wanted(c, LAYER_DX, &b);
  return marea_norm_rows_backward(c, &g, &b);
}

const marea_op marea_op_layer_norm_backward = {
    .name = "layer_norm_backward",
    .family = "norm",
    .doc =
        "The gradients of layer_norm to x, weight and bias, those of them that are asked for, in this order. "
        "Constants for the tape: backward takes it unless a graph of the gradients is wanted. dy: like x. "
        "Errors "
        "as for layer_norm.",
    .inputs = {{"dy", "like x"}, {"x", "(..., D)"}, ROW_INPUT("weight")},
    .attrs = {LAST_ATTR, EPS_ATTR(1e-5), WANTED_ATTRS},
    .flags = MAREA_NO_GRAD,
    .shape = layer_norm_backward_shape,
    .forward = layer_norm_backward_forward,
    .sample = LAYER_SAMPLE
    "return {g.tensor(s), g.tensor(s), g.bool() and g.tensor(row) or nil}, {last = last, " SAMPLE_EPS
    ", " SAMPLE_WANTED "}",
};
