/* SPDX-License-Identifier: MIT
** batch_norm.c: batch normalization, in training and outside of it.
*/
#include "descriptors.h"

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
  MAREA_TRY(marea_norm_check_batch(c, 0));
  MAREA_TRY(marea_norm_check_channels(c, 1, x));
  MAREA_TRY(marea_norm_check_channels(c, 2, x));
  MAREA_TRY(marea_norm_check_eps(c, BATCH_EPS));
  MAREA_TRY(marea_want_slope(c, BATCH_SLOPE));
  if (marea_count(x->rank - 1, x->shape) == 0) return marea_norm_reject_empty(c, x);
  marea_layout_like(&c->layout[0], x);
  c->n_out = 3;
  for (int i = 1; i < 3; i++)
    marea_layout_set(&c->layout[i], marea_computed_in(x->dtype), 1, &x->shape[x->rank - 1]);
  return MAREA_OK;
}

static marea_status batch_norm_forward (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const marea_norm g = batch_of(x, c->attr);
  double *mean, *variance;
  MAREA_TRY(marea_norm_open_statistics(c, &g, &mean, &variance));
  MAREA_TRY(marea_norm_statistics(c, &g, x, mean, variance));
  for (int64_t i = 0; i < g.groups; i++) {
    marea_norm_store(c->out[1]->dtype, marea_at(c->out[1]), i, mean[i]);
    marea_norm_store(c->out[2]->dtype, marea_at(c->out[2]), i, variance[i]);
  }
  return marea_norm_apply(c, &g, mean, variance, x, marea_norm_input_at(c, 1), marea_norm_input_at(c, 2),
                          c->out[0]);
}

/* t (C) as (1, 1, C, 1) */
static marea_tensor *channels_of (formula *f, const marea_norm *g, marea_tensor *t) {
  const int64_t shape[] = {1, 1, g->groups, 1};
  return marea_norm_shaped(f, t, shape);
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

/* The result, made again by an operator with a history of its own; x: of its shape, wide. */
static marea_tensor *result_again (formula *f, marea_tensor *x, marea_tensor *mean, marea_tensor *variance,
                                   marea_tensor *weight, marea_tensor *bias) {
  marea_tensor *y = NULL;
  if (!goes_on(f)) return NULL;
  f->status = marea_run_with(f->v->ctx, &marea_op_batch_norm_eval, f->v->attr, &y, 5, x, mean, variance,
                             weight, bias);
  return own(f, y);
}

static marea_status batch_norm_formula (marea_vjp *v) {
  const marea_norm g = batch_of(v->in[0], v->attr);
  const int64_t shape[] = {1, g.rows, g.groups, 1};
  formula f = {.v = v};
  marea_tensor *x = marea_norm_shaped(&f, v->in[0], shape), *mean = channels_of(&f, &g, v->out[1]),
               *dx = NULL;
  if (v->dout[0]) {
    const marea_attr act[] = {v->attr[BATCH_ACTIVATION], v->attr[BATCH_SLOPE]};
    marea_tensor *e = marea_norm_wide(&f, v->dout[0]);
    if (g.act != MAREA_ACT_NONE) {
      marea_tensor *y = result_again(&f, marea_norm_wide(&f, v->in[0]), v->out[1], v->out[2],
                                     marea_norm_weight_of(v), marea_norm_bias_of(v));
      e = step(&f, &marea_op_activation_grad, act, 2, e, y, NULL);
    }
    dx = marea_norm_gradients(&f, &g, x, marea_norm_shaped(&f, e, shape), mean,
                              channels_of(&f, &g, v->out[2]));
  }
  if (needs(v, 0) && (v->dout[1] || v->dout[2])) {
    marea_tensor *more = from_statistics(&f, &g, x, mean);
    dx = dx ? add(&f, dx, more)
            : step(&f, &marea_op_expand, (marea_attr[]){marea_attr_list(4, shape)}, 1, more, NULL, NULL);
  }
  if (dx) marea_norm_give(&f, 0, marea_norm_like(&f, dx, v->in[0]));
  return finish(&f);
}

static marea_status batch_norm_vjp (marea_vjp *v) {
  if (v->ctx->recording || !v->dout[0] || v->dout[1] || v->dout[2]) return batch_norm_formula(v);
  marea_tensor *in[] = {v->dout[0],           v->in[0], v->out[1], v->out[2], marea_norm_weight_of(v),
                        marea_norm_bias_of(v)};
  marea_attr a[BATCH_DX + 3] = {v->attr[BATCH_EPS], v->attr[BATCH_ACTIVATION], v->attr[BATCH_SLOPE]};
  return marea_norm_run_backward(v, &marea_op_batch_norm_backward, 6, in, a, BATCH_DX);
}

const marea_op marea_op_batch_norm = {
    .name = "batch_norm",
    .family = "norm",
    .doc =
        "y = act((x - mean) / sqrt(variance + eps) * weight + bias) with each channel's mean and variance "
        "over "
        "all dimensions but the last, the variance divided by their number. x: (N, ..., C), any rank from 2; "
        "weight, bias: (C), 1 and 0 when left out. Results: y like x, mean (C), variance (C), f32 of bf16. "
        "Gradient, with "
        "e = dy act'(y) and xhat = (x - mean) rate, rate = 1 / sqrt(variance + eps): dweight = sum e xhat, "
        "dbias = sum e, dx = weight rate (e - mean(e) - xhat mean(e xhat)); through mean and variance too. "
        "Source: Ioffe and Szegedy, arXiv:1502.03167. Errors: rank below 2, no rows, parameters of another "
        "size.",
    .inputs = {{"x", "(N, ..., C)"}, MAREA_NORM_PARAMETER_INPUTS},
    .attrs = MAREA_ATTRS(MAREA_NORM_EPS_ATTR(1e-3), MAREA_NORM_ACTIVATION_ATTRS),
    .flags = MAREA_STORES,
    .saves_in = 7,
    .saves_out = 6,
    .shape = batch_norm_shape,
    .forward = batch_norm_forward,
    .vjp = batch_norm_vjp,
    .sample = MAREA_NORM_SAMPLE_SHAPE(
        2) "return {g.tensor(s), g.bool() and g.tensor{c} or nil, g.bool() and g.tensor{c} or "
           "nil}, {" MAREA_NORM_SAMPLE_EPS ", " MAREA_NORM_SAMPLE_ACT "}",
};

static marea_status batch_norm_backward_shape (marea_call *c) {
  const marea_tensor *x = c->in[1];
  MAREA_TRY(marea_norm_check_batch(c, 1));
  MAREA_TRY(marea_want_shape(c, 0, x));
  for (int i = 2; i <= 5; i++) MAREA_TRY(marea_norm_check_channels(c, i, x));
  MAREA_TRY(marea_norm_check_eps(c, BATCH_EPS));
  MAREA_TRY(marea_want_slope(c, BATCH_SLOPE));
  if (marea_count(x->rank - 1, x->shape) == 0) return marea_norm_reject_empty(c, x);
  marea_norm_layout_wanted(c, BATCH_DX, x, 1, &x->shape[x->rank - 1]);
  return MAREA_OK;
}

static marea_status batch_norm_backward_forward (marea_call *c) {
  const marea_tensor *x = c->in[1];
  const marea_norm g = batch_of(x, c->attr);
  marea_norm_back b = {
      .dy = c->in[0], .x = x, .weight = marea_norm_input_at(c, 4), .bias = marea_norm_input_at(c, 5)};
  double *mean, *variance;
  MAREA_TRY(marea_norm_open_statistics(c, &g, &mean, &variance));
  for (int64_t i = 0; i < g.groups; i++) {
    mean[i] = marea_norm_load(c->in[2]->dtype, marea_at(c->in[2]), i);
    variance[i] = marea_norm_load(c->in[3]->dtype, marea_at(c->in[3]), i);
  }
  marea_norm_outputs_wanted(c, BATCH_DX, &b);
  return marea_norm_backward(c, &g, mean, variance, &b);
}

const marea_op marea_op_batch_norm_backward = {
    .name = "batch_norm_backward",
    .family = "norm",
    .doc = "The gradients of batch_norm to x, weight and bias, those of them that are asked for, in this "
           "order, from "
           "its mean and variance, which are taken as those of x. Constants for the tape: backward takes it "
           "unless "
           "a graph of the gradients is wanted. dy: like x; weight and bias: batch_norm's. Those of weight "
           "and bias are "
           "f32 of bf16. Errors as for batch_norm.",
    .inputs = {{"dy", "like x"},
               {"x", "(N, ..., C)"},
               {"mean", "(C)"},
               {"variance", "(C)"},
               MAREA_NORM_PARAMETER_INPUTS},
    .attrs = MAREA_ATTRS(MAREA_NORM_EPS_ATTR(1e-3), MAREA_NORM_ACTIVATION_ATTRS, MAREA_NORM_WANTED_ATTRS),
    .flags = MAREA_NO_GRAD | MAREA_STORES,
    .shape = batch_norm_backward_shape,
    .forward = batch_norm_backward_forward,
    .sample = MAREA_NORM_SAMPLE_SHAPE(
        2) "return {g.tensor(s), g.tensor(s), g.tensor{c}, g.tensor({c}, {lo = 0.5}), g.bool() and "
           "g.tensor{c} or nil, g.bool() and g.tensor{c} or nil}, {" MAREA_NORM_SAMPLE_EPS
           ", activation = g.pick{'none', 'softplus', 'tanh'}, " MAREA_NORM_SAMPLE_WANTED "}",
};

/* ---- batch_norm_eval ---- */

enum { EVAL_X, EVAL_MEAN, EVAL_VARIANCE, EVAL_WEIGHT, EVAL_BIAS };

static marea_status batch_norm_eval_shape (marea_call *c) {
  MAREA_TRY(marea_norm_check_batch(c, 0));
  for (int i = 1; i <= 4; i++) MAREA_TRY(marea_norm_check_channels(c, i, c->in[0]));
  MAREA_TRY(marea_norm_check_eps(c, BATCH_EPS));
  MAREA_TRY(marea_want_slope(c, BATCH_SLOPE));
  return marea_shape_same(c);
}

static marea_status batch_norm_eval_forward (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const marea_norm g = batch_of(x, c->attr);
  double *mean, *variance;
  MAREA_TRY(marea_norm_open_statistics(c, &g, &mean, &variance));
  for (int64_t i = 0; i < g.groups; i++) {
    mean[i] = marea_norm_load(c->in[EVAL_MEAN]->dtype, marea_at(c->in[EVAL_MEAN]), i);
    variance[i] = marea_norm_load(c->in[EVAL_VARIANCE]->dtype, marea_at(c->in[EVAL_VARIANCE]), i);
  }
  return marea_norm_apply(c, &g, mean, variance, x, marea_norm_input_at(c, EVAL_WEIGHT),
                          marea_norm_input_at(c, EVAL_BIAS), c->out[0]);
}

/* Of what is only stored the result is made again, as it was rounded. */
static marea_tensor *eval_result (formula *f, marea_tensor *x) {
  const marea_vjp *v = f->v;
  if (x == v->in[EVAL_X]) return v->out[0];
  marea_tensor *weight = v->n_in > EVAL_WEIGHT ? v->in[EVAL_WEIGHT] : NULL;
  marea_tensor *bias = v->n_in > EVAL_BIAS ? v->in[EVAL_BIAS] : NULL;
  return result_again(f, x, v->in[EVAL_MEAN], v->in[EVAL_VARIANCE], weight, bias);
}

static marea_status batch_norm_eval_vjp (marea_vjp *v) {
  formula f = {.v = v};
  const marea_attr act[] = {v->attr[BATCH_ACTIVATION], v->attr[BATCH_SLOPE]};
  marea_tensor *e = marea_norm_wide(&f, v->dout[0]), *x = marea_norm_wide(&f, v->in[EVAL_X]);
  marea_tensor *mean = marea_norm_wide(&f, v->in[EVAL_MEAN]);
  marea_tensor *weight = v->n_in > EVAL_WEIGHT ? marea_norm_wide(&f, v->in[EVAL_WEIGHT]) : NULL;
  if (act[0].i != MAREA_ACT_NONE)
    e = step(&f, &marea_op_activation_grad, act, 2, e, eval_result(&f, x), NULL);
  marea_tensor *variance = marea_norm_wide(&f, v->in[EVAL_VARIANCE]);
  marea_tensor *rate = unary(&f, &marea_op_rsqrt, plus(&f, variance, v->attr[BATCH_EPS].f));
  marea_tensor *factor = weight ? mul(&f, rate, weight) : rate;
  if (needs(v, EVAL_X)) marea_norm_give(&f, EVAL_X, mul(&f, e, factor));
  if (!needs(v, EVAL_MEAN) && !needs(v, EVAL_VARIANCE) && !needs(v, EVAL_WEIGHT) && !needs(v, EVAL_BIAS))
    return finish(&f);
  marea_tensor *sum = sum_like(&f, e, mean), *product = sum_like(&f, mul(&f, e, sub(&f, x, mean)), mean);
  if (needs(v, EVAL_MEAN)) marea_norm_give(&f, EVAL_MEAN, times(&f, mul(&f, sum, factor), -1));
  if (needs(v, EVAL_VARIANCE))
    marea_norm_give(&f, EVAL_VARIANCE, times(&f, mul(&f, mul(&f, product, factor), square(&f, rate)), -0.5));
  if (needs(v, EVAL_WEIGHT)) marea_norm_give(&f, EVAL_WEIGHT, mul(&f, product, rate));
  if (needs(v, EVAL_BIAS)) marea_norm_give(&f, EVAL_BIAS, sum);
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
    .inputs = {{"x", "(N, ..., C)"}, {"mean", "(C)"}, {"variance", "(C)"}, MAREA_NORM_PARAMETER_INPUTS},
    .attrs = MAREA_ATTRS(MAREA_NORM_EPS_ATTR(1e-3), MAREA_NORM_ACTIVATION_ATTRS),
    .flags = MAREA_STORES,
    .saves_in = 31,
    .saves_out = 1,
    .shape = batch_norm_eval_shape,
    .forward = batch_norm_eval_forward,
    .vjp = batch_norm_eval_vjp,
    .sample = MAREA_NORM_SAMPLE_SHAPE(
        2) "return {g.tensor(s), g.tensor{c}, g.tensor({c}, {lo = 0.5}), g.bool() and "
           "g.tensor{c} or nil, g.bool() and g.tensor{c} or nil}, {" MAREA_NORM_SAMPLE_EPS
           ", " MAREA_NORM_SAMPLE_ACT "}",
};
