/* SPDX-License-Identifier: MIT
** descriptors.c: checks and gradients that the normalizations share.
*/
#include "descriptors.h"

/* ---- checks ---- */

marea_status marea_norm_check_eps (marea_call *c, int attr) {
  const double eps = c->attr[attr].f;
  if (eps >= 0) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument 'eps': expected a number >= 0, got %g", eps);
}

/* The floats that are computed in the same dtype as this one. */
static int companions_of (int dtype) {
  int set = 0;
  for (int d = 0; d < MAREA_DTYPE_COUNT; d++)
    if (marea_is_float(d) && marea_computed_in(d) == marea_computed_in(dtype)) set |= 1 << d;
  return set;
}

marea_status marea_norm_check_channels (marea_call *c, int input, const marea_tensor *x) {
  if (input >= c->n_in || !c->in[input]) return MAREA_OK;
  MAREA_TRY(marea_want_dtype(c, input, companions_of(x->dtype)));
  MAREA_TRY(marea_want_rank(c, input, 1, "(C)"));
  return marea_want_size(c, input, 0, x->shape[x->rank - 1], "one for each channel of x");
}

marea_status marea_norm_check_batch (marea_call *c, int input) {
  const marea_tensor *x = c->in[input];
  MAREA_TRY(marea_want_dtype(c, input, companions_of(c->in[0]->dtype)));
  if (x->rank >= 2) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "argument 'x': expected at least 2 dimensions (N, ..., C), got %s",
                      marea_tensor_text(x).s);
}

marea_status marea_norm_reject_empty (marea_call *c, const marea_tensor *x) {
  return marea_reject(c, MAREA_ESHAPE, "x %s has no elements to take a mean of", marea_tensor_text(x).s);
}

marea_tensor *marea_norm_input_at (const marea_call *c, int i) { return i < c->n_in ? c->in[i] : NULL; }

void marea_norm_layout_wanted (marea_call *c, int first, const marea_tensor *x, int rank,
                               const int64_t *shape) {
  c->n_out = 0;
  if (c->attr[first].i) marea_layout_like(&c->layout[c->n_out++], x);
  for (int i = 1; i <= 2; i++)
    if (c->attr[first + i].i)
      marea_layout_set(&c->layout[c->n_out++], marea_computed_in(x->dtype), rank, shape);
}

void marea_norm_outputs_wanted (const marea_call *c, int first, marea_norm_back *b) {
  int k = 0;
  if (c->attr[first].i) b->dx = c->out[k++];
  if (c->attr[first + 1].i) b->dweight = c->out[k++];
  if (c->attr[first + 2].i) b->dbias = c->out[k++];
}

/* Gradients of parameters that are only stored are rounded here. */
static marea_status round_gradients (marea_vjp *v) {
  for (int i = 0; i < MAREA_MIN(v->n_in, 3); i++) {
    marea_tensor *rounded, *d = v->din[i];
    if (!d || d->dtype == v->in[i]->dtype) continue;
    const marea_attr dtype = {.n = 1, .i = v->in[i]->dtype};
    MAREA_TRY(marea_run_with(v->ctx, &marea_op_cast, &dtype, &rounded, 1, d));
    marea_release(d);
    v->din[i] = rounded;
  }
  return MAREA_OK;
}

marea_status marea_norm_run_backward (marea_vjp *v, const marea_op *back, int n_in, marea_tensor **in,
                                      marea_attr *attrs, int first) {
  marea_tensor *out[3];
  int n;
  for (int i = 0; i < 3; i++) attrs[first + i] = marea_attr_int(i < v->n_in && v->need[i]);
  MAREA_TRY(marea_invoke(v->ctx, back, n_in, in, attrs, out, &n));
  for (int i = 0, k = 0; k < n; i++)
    if (attrs[first + i].i) v->din[i] = out[k++];
  return round_gradients(v);
}

marea_tensor *marea_norm_weight_of (const marea_vjp *v) { return v->n_in > 1 ? v->in[1] : NULL; }

marea_tensor *marea_norm_bias_of (const marea_vjp *v) { return v->n_in > 2 ? v->in[2] : NULL; }

marea_status marea_norm_open_statistics (marea_call *c, const marea_norm *g, double **mean,
                                         double **variance) {
  const size_t bytes = MAREA_MAX((size_t)(g->n * g->groups) * sizeof(double), 1);
  MAREA_WORKSPACE_OR_RETURN(c, *mean, bytes);
  MAREA_WORKSPACE_OR_RETURN(c, *variance, bytes);
  return MAREA_OK;
}

/* ---- the formula ---- */

static const int64_t over_group[] = {1, 3}, over_rows[] = {0, 1}; /* dimensions of (n, rows, groups, width) */

static marea_tensor *as (formula *f, marea_tensor *t, int dtype) {
  const marea_attr a = {.n = 1, .i = dtype};
  return !t || t->dtype == dtype ? t : step(f, &marea_op_cast, &a, 1, t, NULL, NULL);
}

marea_tensor *marea_norm_wide (formula *f, marea_tensor *t) {
  return t ? as(f, t, marea_computed_in(t->dtype)) : NULL;
}

void marea_norm_give (formula *f, int i, marea_tensor *d) { give(f, i, as(f, d, f->v->in[i]->dtype)); }

marea_tensor *marea_norm_shaped (formula *f, marea_tensor *t, const int64_t shape[4]) {
  const marea_attr a = marea_attr_list(4, shape);
  return step(f, &marea_op_reshape, &a, 1, marea_norm_wide(f, t), NULL, NULL);
}

marea_tensor *marea_norm_like (formula *f, marea_tensor *t, const marea_tensor *shape) {
  const marea_attr a = marea_attr_list(shape->rank, shape->shape);
  return step(f, &marea_op_reshape, &a, 1, t, NULL, NULL);
}

static marea_tensor *group_mean (formula *f, marea_tensor *t) {
  const marea_attr a[] = {marea_attr_list(2, over_group), marea_attr_int(1)};
  return step(f, &marea_op_mean, a, 1, t, NULL, NULL);
}

static marea_tensor *parameter_sum (formula *f, marea_tensor *t, const marea_tensor *parameter) {
  return marea_norm_like(f, sum_dims(f, t, marea_attr_list(2, over_rows), false), parameter);
}

marea_tensor *marea_norm_gradients (formula *f, const marea_norm *g, marea_tensor *x, marea_tensor *e,
                                    marea_tensor *mean, marea_tensor *variance) {
  const marea_vjp *v = f->v;
  const int64_t columns[] = {1, 1, g->groups, g->width};
  marea_tensor *rate = unary(f, &marea_op_rsqrt, plus(f, variance, g->eps)), *xc = sub(f, x, mean),
               *dx = NULL;
  if (needs(v, 0)) {
    marea_tensor *t = marea_norm_weight_of(v)
                          ? mul(f, e, marea_norm_shaped(f, marea_norm_weight_of(v), columns))
                          : e;
    marea_tensor *along = mul(f, square(f, rate), group_mean(f, mul(f, t, xc)));
    dx = mul(f, rate, sub(f, sub(f, t, group_mean(f, t)), mul(f, xc, along)));
  }
  if (needs(v, 1)) marea_norm_give(f, 1, parameter_sum(f, mul(f, e, mul(f, xc, rate)), v->in[1]));
  if (needs(v, 2)) marea_norm_give(f, 2, parameter_sum(f, e, v->in[2]));
  return dx;
}

marea_status marea_norm_statistics_formula (marea_vjp *v, const marea_norm *g) {
  const int64_t shape[] = {g->n, g->rows, g->groups, g->width};
  const marea_attr biased[] = {marea_attr_list(2, over_group), marea_attr_int(1), marea_attr_int(0)};
  formula f = {.v = v};
  marea_tensor *x = marea_norm_shaped(&f, v->in[0], shape);
  marea_tensor *variance = step(&f, &marea_op_var, biased, 1, x, NULL, NULL);
  marea_tensor *dx = marea_norm_gradients(&f, g, x, marea_norm_shaped(&f, v->dout[0], shape),
                                          group_mean(&f, x), variance);
  if (dx) marea_norm_give(&f, 0, marea_norm_like(&f, dx, v->in[0]));
  return finish(&f);
}
